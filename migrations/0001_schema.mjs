/** Schema version 1: the file a DBA may run by hand, unchanged. */
import { runSqlFile } from './run-sql-file.mjs';

export async function up(knex) {
  await runSqlFile(knex, 'schema.sql');
}
