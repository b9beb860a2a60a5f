/**
 * Runs a file of `sql/<engine>/` on the connection of `knex`, so that migrations and a DBA with a command-line client
 * execute one and the same text.
 */
import { readFile } from 'node:fs/promises';

const FOLDERS = { postgresql: 'postgres', mssql: 'sqlserver', mysql: 'mysql' };

/** What a command-line client sends at once. A line GO ends a batch of sqlcmd and SSMS; mysql sends each statement apart. */
const PARTS = {
  postgres: (sql) => [sql],
  sqlserver: (sql) => sql.split(/^[ \t]*GO[ \t]*\r?$/gim),
  mysql: (sql) => sql.replaceAll(/^[ \t]*--.*$/gm, '').split(/;[ \t]*\r?$/gm),
};

export async function runSqlFile(knex, name) {
  const folder = FOLDERS[knex.client.dialect];
  if (folder === undefined) throw new Error(`no SQL files for ${String(knex.client.dialect)}`);
  const sql = await readFile(new URL(`../sql/${folder}/${name}`, import.meta.url), 'utf8');
  const parts = PARTS[folder](sql).filter((each) => each.trim());
  // knex takes a question mark for a parameter, also within comments.
  for (const part of parts) await knex.raw(part.replaceAll('?', '\\?'));
}
