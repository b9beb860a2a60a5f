/**
 * Changes by CDC, SQL Server → SQL Server: a backlog that one scan of the log captures while the service waits, timed from the end
 * of the scan to the last row at the destination (up to one polling interval of it is waiting). Held against the driver reading
 * the change table with the rows thrown away.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Request } from 'tedious';
import { createSqlServerDatabase, type SqlServerTestDatabase } from '../../test/support/sqlserver.ts';
import { Arena } from '../postgres/arena.ts';
import { cpuSeconds } from '../postgres/cpu.ts';
import { ratio, say, sayLoad, seconds } from '../report.ts';
import { perSecond } from './load.ts';
import { createTable, row } from './tables.ts';

const TRANSACTION = 1000;

export async function benchChanges(
  server: SqlServerTestDatabase['server'],
  rows: number,
  rounds: number,
): Promise<void> {
  say(`\nChanges by CDC: ${rows} inserts in transactions of ${TRANSACTION}`);
  const arena = await Arena.open();
  const [source, destination] = [
    await createSqlServerDatabase(server, 'bench_cdc'),
    await createSqlServerDatabase(server, 'bench_to'),
  ];
  try {
    await source.query(createTable('orders', { key: true }));
    await source.enableCdc();
    await source.captureTable('dbo', 'orders');
    await arena.createControl({ cdc_check_interval_seconds: 1 });
    await arena.control(
      `INSERT INTO source_servers (server_id, server_name, connection_string) VALUES (2, 'sqlserver', '${source.url}');
       INSERT INTO destination_servers (server_id, server_name, connection_string) VALUES (2, 'sqlserver', '${destination.url}')`,
    );
    arena.startService();
    await arena.copyMapping(
      `(server_id, source_database, source_table, dest_server_id, dest_database) VALUES (2, '${source.name}', 'orders', 2, '${destination.name}')`,
    );
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
      const before = await counted(destination);
      await insert(source, before, rows);
      await source.query('EXEC sys.sp_cdc_scan @maxtrans = 100000');
      const started = performance.now();
      const busy = cpuSeconds(arena.servicePid);
      let seen = { at: NaN, rows: 0 };
      for (let there = before; there < before + rows; there = await counted(destination)) {
        arena.peakMemory(); // fails when the service has ended
        if (there > before && seen.rows === 0)
          seen = { at: (performance.now() - started) / 1000, rows: there - before };
        await sleep(50);
      }
      const taken = (performance.now() - started) / 1000;
      times.sluice.push(taken);
      times.seen.push(seen.at);
      times.each.push((taken - seen.at) / (rows - seen.rows));
      times.cpu.push(cpuSeconds(arena.servicePid) - busy);
      sayLoad();
      times.read.push(await readChanges(source, rows));
    }
    say(`  sluice                          ${seconds(times.sluice)} s  ${perSecond(rows, times.sluice)}`);
    say(`    of it until the first were there (the wait for the poll included) ${seconds(times.seen)} s`);
    say(`    processor of the service ${seconds(times.cpu)} s`);
    say(`  driver reads the change table   ${seconds(times.read)} s  ${perSecond(rows, times.read)}`);
    say(`  read / sluice = ${ratio(times.read, times.sluice)}  (target ≥ 0.5)`);
    const read = times.read.map((each) => each / rows);
    say(`  read / sluice, once the first were there = ${ratio(read, times.each)}`);
  } finally {
    await arena.stopService().catch(() => 0);
    await source.drop();
    await destination.drop();
    await arena.close();
  }
}

async function stopCapture(source: SqlServerTestDatabase): Promise<void> {
  const job = source.job();
  if (job === null) await source.query(`EXEC sys.sp_cdc_stop_job @job_type = N'capture'`);
  else await job.stop();
}

async function counted(database: SqlServerTestDatabase): Promise<number> {
  const [found] = await database.query('SELECT COUNT(*) AS n FROM dbo.orders');
  return Number(found?.['n']);
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
