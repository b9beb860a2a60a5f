/** The catalog of a source: what sys.* says of its tables, and what captures them. */
import { tableKey, type Table, type TableName } from '../../model/tables.ts';
import { capturedColumns, readState, type CaptureInstance } from './capture-instances.ts';
import { captureOf, chainOf } from './captures.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection } from './connection.ts';

export class CapturedCatalog extends SqlServerCatalog {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    super(connection);
    this.#connection = connection;
  }

  override async describe(names: readonly TableName[]): Promise<(Table | null)[]> {
    const [tables, captures] = await Promise.all([super.describe(names), this.#captures()]);
    return tables.map((table) =>
      table === null || captures === null ? table : { ...table, capture: captures.get(tableKey(table.name)) ?? null },
    );
  }

  /** Of every captured table; null: change data capture is off, or hidden from this login. */
  async #captures(): Promise<Map<string, string> | null> {
    const { instances, isCdcEnabled, isHidden } = await readState(this.#connection);
    if (!isCdcEnabled || isHidden) return null;
    const byTable = new Map<string, CaptureInstance[]>();
    for (const instance of instances) {
      const key = tableKey(instance.table);
      byTable.set(key, [...(byTable.get(key) ?? []), instance]);
    }
    const pairs = [...byTable.values()].filter((own) => own.length > 1).flat();
    const columns = await capturedColumns(
      this.#connection,
      pairs.map(({ id }) => id),
    );
    return new Map(
      [...byTable].flatMap(([key, own]) => {
        const current = chainOf(own, columns).at(-1);
        return current ? [[key, captureOf(current)]] : [];
      }),
    );
  }
}
