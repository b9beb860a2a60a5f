/** What information_schema says of tables. */
import type { Catalog } from '../contract.ts';
import type { Table, TableName } from '../../model/tables.ts';
import type { Connection } from './connection.ts';
import { quoteTable } from './sql.ts';

export class MysqlCatalog implements Catalog {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  describe(names: readonly TableName[]): Promise<(Table | null)[]> {
    return Promise.resolve(names.map(() => null));
  }

  async isEmpty(name: TableName): Promise<boolean> {
    const rows = await this.#connection.query('look for a row', `SELECT 1 AS found FROM ${quoteTable(name)} LIMIT 1`);
    return rows.length === 0;
  }
}
