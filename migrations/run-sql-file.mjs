/**
 * Runs a file of `sql/<engine>/` on the connection of `knex`, so that migrations and a DBA with a command-line client
 * execute one and the same text.
 */
import { readFile } from 'node:fs/promises';

const FOLDERS = { pg: 'postgres', mssql: 'sqlserver', mysql2: 'mysql' };

export async function runSqlFile(knex, name) {
  const folder = FOLDERS[knex.client.config.client];
  if (folder === undefined) throw new Error(`no SQL files for ${String(knex.client.config.client)}`);
  const sql = await readFile(new URL(`../sql/${folder}/${name}`, import.meta.url), 'utf8');
  // knex takes a question mark for a parameter, also within comments.
  await knex.raw(sql.replaceAll('?', '\\?'));
}
