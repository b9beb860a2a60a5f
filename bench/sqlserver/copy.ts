/**
 * Full copies by the service, SQL Server → SQL Server, → PostgreSQL and PostgreSQL → SQL Server, each ending with its primary key. A
 * copy cannot be faster than the slower of reading and loading: the ratio is to the driver's own ceiling for that.
 */
import { SqlServerCatalog } from '../../src/engines/sqlserver/catalog.ts';
import type { Session } from '../../src/engines/sqlserver/connection.ts';
import { loadRows } from '../../src/engines/sqlserver/loader.ts';
import { SqlServerSnapshot } from '../../src/engines/sqlserver/snapshot.ts';
import { createSqlServerDatabase, type SqlServerTestDatabase } from '../../test/support/sqlserver.ts';
import { Arena } from '../postgres/arena.ts';
import { cpuSeconds } from '../postgres/cpu.ts';
import { median, say, sayLoad, seconds } from '../report.ts';
import { copyWithFreebcp, readWithDriver } from './ceilings.ts';
import { loadWithDriver, perSecond } from './load.ts';
import { COLUMNS, createTable, row } from './tables.ts';

const BATCH = 1000;

export async function benchCopy(source: SqlServerTestDatabase, rows: number, rounds: number): Promise<void> {
  say(`\nFull copy of ${rows} rows by the service`);
  const arena = await Arena.open();
  const destination = await createSqlServerDatabase(source.server, 'bench_to');
  try {
    await fillSource(source, rows);
    await fillPostgres(arena, rows);
    const times = {
      read: [] as number[],
      load: [] as number[],
      'SQL Server → SQL Server, the rows alone': [] as number[],
      'SQL Server → SQL Server': [] as number[],
      'SQL Server → PostgreSQL': [] as number[],
      'PostgreSQL → SQL Server': [] as number[],
    };
    const cpu: Record<string, number[]> = {};
    for (let round = 0; round < rounds; round++) {
      const session = await source.connection.open();
      times.read.push(await readWithDriver(session, 'dbo.orders', rows));
      await source.query(createTable('loaded', { key: false }));
      times.load.push(await loadWithDriver(session, rows));
      times['SQL Server → SQL Server, the rows alone'].push(await pipe(source, session, rows));
      await source.connection.release(session);
      await destination.query(
        'DROP TABLE IF EXISTS dbo.orders; DROP TABLE IF EXISTS dbo.from_postgres; DROP TABLE IF EXISTS dbo.tiny',
      );
      await arena.createDatabase('destination');
      await arena.createControl();
      await arena.control(
        `INSERT INTO source_servers (server_id, server_name, connection_string) VALUES (2, 'sqlserver', '${source.url}');
         INSERT INTO destination_servers (server_id, server_name, connection_string) VALUES (2, 'sqlserver', '${destination.url}')`,
      );
      arena.startService();
      const copy = async (name: keyof typeof times | null, columns: string, values: string) => {
        const before = cpuSeconds(arena.servicePid);
        const taken = (await arena.copyMapping(`(server_id, cdc_enabled, ${columns}) VALUES (${values})`)).seconds;
        if (name === null) return;
        times[name].push(taken);
        cpu[name] = [...(cpu[name] ?? []), cpuSeconds(arena.servicePid) - before];
      };
      const there = `'${destination.name}'`;
      // A first copy into a database makes what the service keeps there: not part of what is measured.
      await copy(
        null,
        'source_database, source_table, dest_server_id, dest_database',
        `2, 0, '${source.name}', 'tiny', 2, ${there}`,
      );
      await copy(
        'SQL Server → SQL Server',
        'source_database, source_table, dest_server_id, dest_database',
        `2, 0, '${source.name}', 'orders', 2, ${there}`,
      );
      await copy(
        'SQL Server → PostgreSQL',
        'source_database, source_table, dest_database, dest_schema',
        `2, 0, '${source.name}', 'orders', 'destination', 'public'`,
      );
      await copy(
        'PostgreSQL → SQL Server',
        'source_table, dest_server_id, dest_database, dest_schema, dest_table',
        `1, 0, 'orders', 2, ${there}, 'dbo', 'from_postgres'`,
      );
      sayLoad();
      await arena.stopService();
      for (const table of ['orders', 'from_postgres']) {
        const [found] = await destination.query(`SELECT COUNT(*) AS n FROM dbo.${table}`);
        if (Number(found?.['n']) !== rows) throw new Error(`${table}: ${String(found?.['n'])} rows of ${rows} arrived`);
      }
    }
    report(rows, times, cpu);
    const freebcp = await copyWithFreebcp(source, 'orders');
    if (freebcp !== null)
      say(
        `  freebcp out ${Math.round(rows / freebcp.out)} rows/s, in ${Math.round(rows / freebcp.in)} rows/s, one after the other ${Math.round(rows / (freebcp.out + freebcp.in))} rows/s`,
      );
  } finally {
    await destination.drop();
    await arena.close();
  }
}

function report(
  rows: number,
  times: Readonly<Record<string, readonly number[]>>,
  cpu: Readonly<Record<string, readonly number[]>>,
): void {
  const { read = [], load = [], ...copies } = times;
  say(`  driver reads, rows thrown away   ${seconds(read)} s  ${perSecond(rows, read)}`);
  say(`  driver loads one constant row    ${seconds(load)} s  ${perSecond(rows, load)}`);
  for (const [name, taken] of Object.entries(copies)) {
    const ceiling = taken.map((_, round) => {
      const reading = name.startsWith('SQL Server') ? (read[round] ?? 0) : 0;
      const loading = /→ SQL Server/.test(name) ? (load[round] ?? 0) : 0;
      return Math.max(reading, loading);
    });
    const share = median(taken.map((value, round) => (ceiling[round] ?? NaN) / value));
    const own = cpu[name] ? `, processor of the service ${seconds(cpu[name])} s` : '';
    say(
      `  ${name}  ${seconds(taken)} s  ${perSecond(rows, taken)}: ${share.toFixed(2)} of the ceiling (target ≥ 0.8)${own}`,
    );
  }
}

/** Seconds from our reader straight into our loader: a copy without its bookkeeping, key and swap. */
async function pipe(source: SqlServerTestDatabase, session: Session, rows: number): Promise<number> {
  const [table] = await new SqlServerCatalog(source.connection).describe([{ schema: 'dbo', table: 'orders' }]);
  if (!table) throw new Error('no table to copy');
  const snapshot = new SqlServerSnapshot(source.connection);
  await source.query(createTable('loaded', { key: false }));
  const started = performance.now();
  const plan = await snapshot.planChunks(table, { targetBytes: 64 * 1024 * 1024 });
  let loaded = 0;
  for (const chunk of plan.chunks) {
    const stream = await snapshot.readChunk(table, plan.layout, chunk, COLUMNS, 'cells');
    const columns = COLUMNS.map((name) => ({ name, default: null }));
    loaded += await loadRows(session, { schema: 'dbo', table: 'loaded' }, columns, stream, { tableLock: true });
  }
  if (loaded !== rows) throw new Error(`${loaded} rows of ${rows} were copied`);
  return (performance.now() - started) / 1000;
}

async function fillSource(source: SqlServerTestDatabase, rows: number): Promise<void> {
  await source.query(createTable('orders', { key: true }));
  await source.query('DROP TABLE IF EXISTS dbo.tiny; CREATE TABLE dbo.tiny (id int PRIMARY KEY)');
  const session = await source.connection.open();
  const batches = (async function* () {
    for (let from = 1; from <= rows; from += BATCH) {
      const count = Math.min(BATCH, rows - from + 1);
      yield { columns: COLUMNS, rows: count, cells: Array.from({ length: count }, (_, i) => row(from + i)).flat() };
    }
  })();
  const columns = COLUMNS.map((name) => ({ name }));
  await loadRows(session, { schema: 'dbo', table: 'orders' }, columns, { format: 'cells', batches });
  await source.connection.release(session);
}

async function fillPostgres(arena: Arena, rows: number): Promise<void> {
  await arena.query(
    'source',
    `CREATE TABLE orders (id bigint PRIMARY KEY, customer varchar(40) NOT NULL, amount numeric(14,2) NOT NULL,
       ordered_at timestamp NOT NULL, details varchar(200) NOT NULL, note varchar(80));
     INSERT INTO orders SELECT g, 'customer ' || (g * 7919) % 100003, (g * 31 % 100000000)::numeric / 100,
       timestamp '2024-01-01' + g * interval '1.000001 s', '{"sku": ' || (g * 17) % 5000 || ', "qty": ' || g % 9 || ', "tags": ["a", "b"]}',
       CASE WHEN g % 5 > 0 THEN repeat(md5(g::text), 2) END FROM generate_series(1::bigint, ${rows}) g;
     ANALYZE orders`,
  );
}
