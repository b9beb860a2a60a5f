/** A version of the control tables after the present one, as an upgrade would bring it: alters a table full of rows. */
import type { Migration } from '../../src/control/index.ts';

export const NEXT_VERSION: Migration = {
  version: 2,
  name: '0002_next',
  up: async (queries) => {
    const word = (queries.client as { dialect: string }).dialect === 'mssql' ? 'ADD' : 'ADD COLUMN';
    await queries.raw(`ALTER TABLE table_mappings ${word} next_column integer NOT NULL DEFAULT 7`);
    await queries.raw('CREATE TABLE next_table (id integer PRIMARY KEY)');
  },
};
