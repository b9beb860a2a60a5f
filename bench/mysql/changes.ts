/**
 * Changes of MariaDB: a backlog of the binary log that was written while nobody read it, replayed by a native replica and by the
 * service, into MariaDB and beside it into PostgreSQL. The service is one that has been running: it is stopped (SIGSTOP) meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Arena } from '../postgres/arena.ts';
import { cpuSeconds } from '../postgres/cpu.ts';
import { alternate, median, ratio, say, sayLoad, seconds } from '../report.ts';
import { fillMariaDb, MARIADB_TABLE, startServer, type BenchServer } from './tables.ts';

const TRANSACTION = 1000;
const WARM_ROWS = 5000;

export async function benchChanges(changes: number, rounds: number): Promise<void> {
  say(`\nChanges: ${changes} inserts and ${changes / 4} updates in transactions of ${TRANSACTION}`);
  const arena = await Arena.open();
  const [source, destination, replica] = await Promise.all([
    startServer(),
    startServer(),
    // It logs what it applies, as the destination logs what the service writes.
    startServer({ 'server-id': '2', 'log-slave-updates': '1' }),
  ]);
  try {
    await replica.query(
      `CHANGE MASTER TO MASTER_HOST = '${source.host}', MASTER_PORT = ${source.port}, MASTER_USER = 'root', MASTER_USE_GTID = slave_pos`,
    );
    // Its own database is the source's.
    await replica.query('DROP DATABASE bench');
    await replica.query('START SLAVE');
    await source.query(`CREATE TABLE orders ${MARIADB_TABLE}`);
    for (const [title, mapping, last] of [
      [
        'MariaDB → MariaDB',
        `dest_server_id, dest_database) VALUES (2, 'orders', 2, 'bench')`,
        lastOf(destination, 'orders'),
      ],
      [
        'MariaDB → PostgreSQL',
        `dest_database, dest_schema) VALUES (2, 'orders', 'destination', 'public')`,
        async () => Number(await arena.value('destination', 'SELECT coalesce(max(id), 0) FROM orders')),
      ],
    ] as const) {
      await arena.createDatabase('destination');
      await arena.createControl({ lease_seconds: 600 });
      await arena.control(
        `INSERT INTO source_servers (server_id, server_name, connection_string) VALUES (2, 'mariadb', '${source.url}');
         INSERT INTO destination_servers (server_id, server_name, connection_string) VALUES (2, 'mariadb', '${destination.url}')`,
      );
      arena.startService();
      await arena.copyMapping(`(server_id, source_table, ${mapping}`);
      await round(title, arena, source, replica, last, changes, rounds);
      await arena.stopService();
    }
  } finally {
    await arena.stopService().catch(() => 0);
    await Promise.all([source, destination, replica].map((server) => server.stop()));
    await arena.close();
  }
}

type Last = () => Promise<number>;

function lastOf(server: BenchServer, table: string): Last {
  return async () => Number((await server.query(`SELECT MAX(id) AS id FROM bench.${table}`))[0]?.['id'] ?? 0);
}

async function round(
  title: string,
  arena: Arena,
  source: BenchServer,
  replica: BenchServer,
  last: Last,
  changes: number,
  rounds: number,
): Promise<void> {
  const theirs = lastOf(replica, 'orders');
  const here = lastOf(source, 'orders');
  const arrived = async (where: Last, id: number) => {
    const started = performance.now();
    while ((await where()) < id) await sleep(20);
    return (performance.now() - started) / 1000;
  };
  const start = await here();
  await source.query(fillMariaDb('orders', start + 1, start + WARM_ROWS));
  await arrived(last, start + WARM_ROWS);
  await arrived(theirs, start + WARM_ROWS);
  const times = { sluice: [] as number[], replica: [] as number[] };
  const cpu: number[] = [];
  for (let n = 0; n < rounds; n++) {
    process.kill(arena.servicePid, 'SIGSTOP');
    await replica.query('STOP SLAVE');
    const before = await here();
    for (let at = before; at < before + changes; at += TRANSACTION) {
      await source.query(fillMariaDb('orders', at + 1, at + TRANSACTION));
      if ((at - before) % (4 * TRANSACTION) === 0)
        await source.query(
          `UPDATE orders SET amount = amount + 1, note = 'changed' WHERE id BETWEEN ${at + 1} AND ${at + TRANSACTION}`,
        );
    }
    // The last row of all comes last.
    const end = before + changes + 1;
    await source.query(fillMariaDb('orders', end, end));
    for (const arm of alternate(['replica', 'sluice'] as const, n)) {
      if (arm === 'replica') {
        await replica.query('START SLAVE');
        times.replica.push(await arrived(theirs, end));
      } else {
        const busy = cpuSeconds(arena.servicePid);
        process.kill(arena.servicePid, 'SIGCONT');
        times.sluice.push(await arrived(last, end));
        cpu.push(cpuSeconds(arena.servicePid) - busy);
      }
    }
    sayLoad();
  }
  const all = changes * 1.25;
  say(
    `  ${title}  ${seconds(times.sluice)} s (${Math.round(all / median(times.sluice))} changes/s), processor of the service ${seconds(cpu)} s`,
  );
  say(
    `    native replica  ${seconds(times.replica)} s; replica / sluice = ${ratio(times.replica, times.sluice)}${title.endsWith('MariaDB') ? '  (target ≥ 1.0)' : ''}`,
  );
}
