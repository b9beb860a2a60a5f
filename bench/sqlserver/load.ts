/**
 * Bulk loading one constant row over and over: our loader, and the driver's own BulkLoad, which is the ceiling that copies are held
 * against. Both into a heap, in one statement, under a table lock.
 */
import { TYPES } from 'tedious';
import { loadRows } from '../../src/engines/sqlserver/loader.ts';
import type { RowStream } from '../../src/engines/contract.ts';
import type { Session } from '../../src/engines/sqlserver/connection.ts';
import type { SqlServerTestDatabase } from '../../test/support/sqlserver.ts';
import { alternate, ratio, say, seconds } from '../report.ts';
import { COLUMNS, createTable, row } from './tables.ts';

const TABLE = { schema: 'dbo', table: 'loaded' };
const BATCH = 1000;

export function constantRows(rows: number): RowStream {
  const one = row(1234);
  const cells = Array.from({ length: BATCH }, () => one).flat();
  return {
    format: 'cells',
    batches: (async function* () {
      for (let left = rows; left > 0; left -= BATCH) {
        const count = Math.min(BATCH, left);
        yield {
          columns: COLUMNS,
          rows: count,
          cells: count === BATCH ? cells : cells.slice(0, count * COLUMNS.length),
        };
      }
    })(),
  };
}

/** Seconds. */
export async function loadWithSluice(session: Session, rows: number): Promise<number> {
  const started = performance.now();
  const columns = COLUMNS.map((name) => ({ name, default: null }));
  const loaded = await loadRows(session, TABLE, columns, constantRows(rows), { tableLock: true });
  if (loaded !== rows) throw new Error(`${loaded} rows of ${rows} were loaded`);
  return (performance.now() - started) / 1000;
}

/** Seconds. */
export async function loadWithDriver(session: Session, rows: number): Promise<number> {
  const started = performance.now();
  await new Promise<void>((resolve, reject) => {
    const load = session.driver.newBulkLoad('[dbo].[loaded]', { lockTable: true }, (error, loaded) => {
      if (error) reject(error);
      else if (loaded !== rows) reject(new Error(`${loaded} rows of ${rows} were loaded`));
      else resolve();
    });
    load.addColumn('id', TYPES.BigInt, { nullable: false });
    load.addColumn('customer', TYPES.NVarChar, { nullable: false, length: 40 });
    load.addColumn('amount', TYPES.Decimal, { nullable: false, precision: 38, scale: 2 });
    load.addColumn('ordered_at', TYPES.DateTime2, { nullable: false, scale: 6 });
    load.addColumn('details', TYPES.NVarChar, { nullable: false, length: 200 });
    load.addColumn('note', TYPES.VarChar, { nullable: true, length: 80 });
    const [id, customer, amount, at, details, note] = row(1234);
    const constant = [Number(id), customer, Number(amount), new Date(`${at}Z`), details, note];
    session.driver.execBulkLoad(
      load,
      (function* () {
        for (let i = 0; i < rows; i++) yield constant;
      })(),
    );
  });
  return (performance.now() - started) / 1000;
}

export interface LoadTimes {
  readonly sluice: number[];
  readonly driver: number[];
}

export async function benchLoad(database: SqlServerTestDatabase, rows: number, rounds: number): Promise<LoadTimes> {
  say(`\nBulk load of ${rows} constant rows of ${COLUMNS.length} columns`);
  const times: LoadTimes = { sluice: [], driver: [] };
  for (let round = 0; round < rounds; round++) {
    for (const arm of alternate(['driver', 'sluice'] as const, round)) {
      await database.query(createTable('loaded', { key: false }));
      const session = await database.connection.open();
      times[arm].push(await (arm === 'sluice' ? loadWithSluice : loadWithDriver)(session, rows));
      await database.connection.release(session);
    }
  }
  say(`  sluice  ${seconds(times.sluice)} s  ${perSecond(rows, times.sluice)}`);
  say(`  driver  ${seconds(times.driver)} s  ${perSecond(rows, times.driver)}`);
  say(`  driver / sluice = ${ratio(times.driver, times.sluice)}  (target ≥ 1.0)`);
  return times;
}

export function perSecond(rows: number, times: readonly number[]): string {
  return `${Math.round(rows / Math.min(...times))} rows/s at best`;
}
