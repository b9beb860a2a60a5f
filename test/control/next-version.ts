/** A version of the control tables after the present one, as an upgrade would bring it: alters a table full of rows. */
import type { Migration } from '../../src/control/index.ts';

export const NEXT_VERSION: Migration = {
  version: 2,
  name: '0002_next',
  up: async (queries) => {
    const word = (queries.client as { dialect: string }).dialect === 'mssql' ? 'ADD' : 'ADD COLUMN';
    // MySQL may have done a part of it for a process that was killed.
    if (!(await queries.schema.hasColumn('table_mappings', 'next_column')))
      await queries.raw(`ALTER TABLE table_mappings ${word} next_column integer NOT NULL DEFAULT 7`);
    if (!(await queries.schema.hasTable('next_table')))
      await queries.raw('CREATE TABLE next_table (id integer PRIMARY KEY)');
  },
};
