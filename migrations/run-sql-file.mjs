/**
 * Runs a file of `sql/<engine>/` on the connection of `knex`, so that migrations and a DBA with a command-line client
 * execute one and the same text.
 */
import { readFile } from 'node:fs/promises';

const FOLDERS = { postgresql: 'postgres', mssql: 'sqlserver', mysql: 'mysql' };

/** A line of its own, as sqlcmd and SSMS have it: what is between two of them is one batch. */
const BATCH_END = /^[ \t]*GO[ \t]*\r?$/gim;

export async function runSqlFile(knex, name) {
  const folder = FOLDERS[knex.client.dialect];
  if (folder === undefined) throw new Error(`no SQL files for ${String(knex.client.dialect)}`);
  const sql = await readFile(new URL(`../sql/${folder}/${name}`, import.meta.url), 'utf8');
  const batches = folder === 'sqlserver' ? sql.split(BATCH_END).filter((each) => each.trim()) : [sql];
  // knex takes a question mark for a parameter, also within comments.
  for (const batch of batches) await knex.raw(batch.replaceAll('?', '\\?'));
}
