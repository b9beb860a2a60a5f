/**
 * Changes by CDC, SQL Server → SQL Server and → PostgreSQL: a backlog that one scan of the log captures while the service waits, timed from the end
 * of the scan to the last row at the destination (up to one polling interval of it is waiting). Held against the driver reading
 * the change table with the rows thrown away.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { Request } from 'tedious';
import { createSqlServerDatabase, type SqlServerTestDatabase } from '../../test/support/sqlserver.ts';
import { Arena } from '../postgres/arena.ts';
import { cpuSeconds } from '../postgres/cpu.ts';
import { mebibytes, ratio, say, sayLoad, seconds } from '../report.ts';
import { perSecond } from './load.ts';
import { createTable, row } from './tables.ts';

const TRANSACTION = 1000;
const WARM_ROWS = 5000;

export async function benchChanges(
  server: SqlServerTestDatabase['server'],
  rows: number,
  rounds: number,
): Promise<void> {
  say(`\nChanges by CDC: ${rows} inserts in transactions of ${TRANSACTION}`);
  const destination = await createSqlServerDatabase(server, 'bench_to');
  try {
    await benchPair(server, rows, rounds, {
      title: 'SQL Server → SQL Server',
      columns: 'dest_server_id, dest_database',
      values: `2, '${destination.name}'`,
      server: `INSERT INTO destination_servers (server_id, server_name, connection_string) VALUES (2, 'sqlserver', '${destination.url}')`,
      lastId: async () => lastIdOf(await destination.query(LAST_ID)),
    });
  } finally {
    await destination.drop();
  }
  await benchPair(server, rows, rounds, {
    title: 'SQL Server → PostgreSQL',
    columns: 'dest_database, dest_schema',
    values: `'destination', 'public'`,
    server: '',
    lastId: async (arena) => lastIdOf(await arena.query('destination', 'SELECT MAX(id) AS id FROM public.orders')),
  });
}

interface Target {
  readonly title: string;
  /** Columns and values of the mapping. */
  readonly columns: string;
  readonly values: string;
  readonly server: string;
  /** The highest key that has arrived: rows arrive in its order, and asking costs nothing. */
  readonly lastId: (arena: Arena) => Promise<number>;
}

const LAST_ID = 'SELECT MAX(id) AS id FROM dbo.orders';

function lastIdOf([row]: readonly Record<string, unknown>[]): number {
  return Number(row?.['id'] ?? -1);
}

async function benchPair(
  server: SqlServerTestDatabase['server'],
  rows: number,
  rounds: number,
  target: Target,
): Promise<void> {
  const arena = await Arena.open();
  const source = await createSqlServerDatabase(server, 'bench_cdc');
  try {
    await source.query(createTable('orders', { key: true }));
    await source.enableCdc();
    await source.captureTable('dbo', 'orders');
    await arena.createDatabase('destination');
    await arena.createControl({ cdc_check_interval_seconds: 1 });
    await arena.control(
      `INSERT INTO source_servers (server_id, server_name, connection_string) VALUES (2, 'sqlserver', '${source.url}'); ${target.server}`,
    );
    arena.startService();
    await arena.copyMapping(
      `(server_id, source_database, source_table, ${target.columns}) VALUES (2, '${source.name}', 'orders', ${target.values})`,
    );
    const arrived = async (id: number) => {
      while ((await target.lastId(arena)) < id) {
        arena.peakMemory(); // fails when the service has ended
        await sleep(50);
      }
    };
    // What is measured is a service that has been running for a while: sessions on both sides have their caches by then.
    await insert(source, 0, WARM_ROWS);
    await arrived(WARM_ROWS - 1);
    await stopCapture(source);
    const times = {
      sluice: [] as number[],
      seen: [] as number[],
      /** Of a row, once the first were there. */
      each: [] as number[],
      cpu: [] as number[],
      read: [] as number[],
    };
    for (let round = 0; round < rounds; round++) {
      const before = WARM_ROWS + round * rows;
      await insert(source, before, rows);
      await source.query('EXEC sys.sp_cdc_scan @maxtrans = 100000');
      await gatherStatistics(source);
      const started = performance.now();
      const since = () => (performance.now() - started) / 1000;
      const busy = cpuSeconds(arena.servicePid);
      await arrived(before);
      const seen = since();
      const first = (await target.lastId(arena)) + 1 - before;
      await arrived(before + rows - 1);
      const taken = since();
      times.sluice.push(taken);
      times.seen.push(seen);
      times.each.push((taken - seen) / (rows - first));
      times.cpu.push(cpuSeconds(arena.servicePid) - busy);
      sayLoad();
      times.read.push(await readChanges(source, rows));
    }
    say(`  ${target.title.padEnd(32)}${seconds(times.sluice)} s  ${perSecond(rows, times.sluice)}`);
    say(`    of it until the first were there (the wait for the poll included) ${seconds(times.seen)} s`);
    say(
      `    processor of the service ${seconds(times.cpu)} s, its peak resident size ${mebibytes(arena.peakMemory())}`,
    );
    say(`  driver reads the change table   ${seconds(times.read)} s  ${perSecond(rows, times.read)}`);
    say(`  read / sluice = ${ratio(times.read, times.sluice)}  (target ≥ 0.5)`);
    const read = times.read.map((each) => each / rows);
    say(`  read / sluice, once the first were there = ${ratio(read, times.each)}`);
  } finally {
    await arena.stopService().catch(() => 0);
    await source.drop();
    await arena.close();
  }
}

async function stopCapture(source: SqlServerTestDatabase): Promise<void> {
  const job = source.job();
  if (job === null) await source.query(`EXEC sys.sp_cdc_stop_job @job_type = N'capture'`);
  else await job.stop();
}

/** Of the change table, which has just been filled: SQL Server gathers them when it needs them, Babelfish when its autovacuum gets there. */
async function gatherStatistics(source: SqlServerTestDatabase): Promise<void> {
  const { name, server } = source;
  if (server.pgUrl === null) {
    await source.query('UPDATE STATISTICS cdc.dbo_orders_CT');
    return;
  }
  const client = new pg.Client({ connectionString: server.pgUrl });
  await client.connect();
  try {
    await client.query(`ANALYZE ${client.escapeIdentifier(`${name}_cdc`.toLowerCase())}.dbo_orders_ct`);
  } finally {
    await client.end();
  }
}

/** Rows made on the server, from one row's values; their keys follow `after`. */
async function insert(source: SqlServerTestDatabase, after: number, rows: number): Promise<void> {
  const [, customer, amount, at, details, note] = row(1234);
  const digits =
    '(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)';
  for (let first = after; first < after + rows; first += TRANSACTION)
    await source.query(
      `INSERT INTO dbo.orders (id, customer, amount, ordered_at, details, note)
       SELECT @first + a.d + 10 * b.d + 100 * c.d, @customer, CAST(@amount AS decimal(14,2)), CAST(@at AS datetime2(6)), @details, @note
         FROM ${digits} AS a CROSS JOIN ${digits} AS b CROSS JOIN ${digits} AS c`,
      { first, customer, amount, at, details, note } as Record<string, string | number>,
    );
}

/** Seconds for the changes of the last round. */
async function readChanges(source: SqlServerTestDatabase, rows: number): Promise<number> {
  const session = await source.connection.open();
  const started = performance.now();
  let read = 0;
  await new Promise<void>((resolve, reject) => {
    const sql = `SELECT TOP (${rows}) * FROM cdc.dbo_orders_CT ORDER BY __$start_lsn DESC, __$command_id, __$seqval, __$operation`;
    const request = new Request(sql, (error) => (error ? reject(error) : resolve()));
    request.on('row', () => read++);
    session.driver.execSqlBatch(request);
  });
  const taken = (performance.now() - started) / 1000;
  await source.connection.release(session);
  if (read !== rows) throw new Error(`${read} changes of ${rows} were read`);
  return taken;
}
