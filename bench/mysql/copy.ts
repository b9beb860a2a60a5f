/** Full copies by the service, MariaDB → PostgreSQL and back, against the servers' own clients in a pipe, and pgloader. */
import { spawnSync } from 'node:child_process';
import { Arena } from '../postgres/arena.ts';
import { cpuSeconds } from '../postgres/cpu.ts';
import { alternate, median, ratio, say, sayLoad, seconds } from '../report.ts';
import { fillMariaDb, fillPostgres, MARIADB_TABLE, POSTGRES_COLUMNS, startServer, type BenchServer } from './tables.ts';

export async function benchCopy(rows: number, rounds: number): Promise<void> {
  say(`\nFull copy of ${rows} rows`);
  const arena = await Arena.open();
  const server = await startServer();
  try {
    await server.query(`CREATE TABLE orders ${MARIADB_TABLE}`);
    await server.query(fillMariaDb('orders', 1, rows));
    await server.query('ANALYZE TABLE orders');
    await server.query('CREATE DATABASE back');
    await arena.query(
      'source',
      `CREATE TABLE orders (${POSTGRES_COLUMNS}, PRIMARY KEY (id)); ${fillPostgres('orders', rows)}; ANALYZE`,
    );
    await measure(arena, rounds, rows, 'MariaDB → PostgreSQL', 'mariadb | psql COPY', {
      prepare: () => arena.createDatabase('destination'),
      pipe: () => toPostgres(arena, server),
      sluice: () =>
        copy(
          arena,
          server,
          `(server_id, source_table, cdc_enabled, dest_database, dest_schema) VALUES (2, 'orders', 0, 'destination', 'public')`,
        ),
      count: () => arena.value('destination', 'SELECT count(*) FROM orders'),
    });
    await pgloader(arena, server, rows);
    await measure(arena, rounds, rows, 'PostgreSQL → MariaDB', 'psql COPY TO | LOAD DATA LOCAL', {
      prepare: async () => void (await server.query('DROP DATABASE back; CREATE DATABASE back')),
      pipe: () => toMariaDb(arena, server),
      sluice: () =>
        copy(
          arena,
          server,
          `(server_id, source_table, cdc_enabled, dest_server_id, dest_database) VALUES (1, 'orders', 0, 2, 'back')`,
        ),
      count: async () => String((await server.query('SELECT COUNT(*) AS n FROM back.orders'))[0]?.['n']),
    });
  } finally {
    await server.stop();
    await arena.close();
  }
}

interface Arms {
  readonly prepare: () => Promise<void>;
  readonly pipe: () => Promise<void>;
  /** Seconds, as the service itself records them. */
  readonly sluice: () => Promise<{ seconds: number; cpu: number }>;
  readonly count: () => Promise<string>;
}

/** The peer runs twice in each round: the ratio of the two runs is the noise. */
async function measure(
  arena: Arena,
  rounds: number,
  rows: number,
  title: string,
  peer: string,
  arms: Arms,
): Promise<void> {
  const times = { sluice: [] as number[], peer: [] as number[], again: [] as number[] };
  const cpu: number[] = [];
  for (let round = 0; round < rounds; round++)
    for (const arm of alternate(['peer', 'sluice', 'again'] as const, round)) {
      await arms.prepare();
      await arena.settle();
      if (arm === 'sluice') {
        const run = await arms.sluice();
        times.sluice.push(run.seconds);
        cpu.push(run.cpu);
      } else {
        const started = performance.now();
        await arms.pipe();
        times[arm].push((performance.now() - started) / 1000);
      }
      if ((await arms.count()) !== String(rows)) throw new Error(`${title}, ${arm}: not all rows arrived`);
    }
  const perSecond = Math.round(rows / median(times.sluice));
  say(`  ${title}  ${seconds(times.sluice)} s (${perSecond} rows/s), processor of the service ${seconds(cpu)} s`);
  say(`    ${peer}  ${seconds(times.peer)} s`);
  say(
    `    peer / sluice = ${ratio(times.peer, times.sluice)}  (target ≥ 0.8), peer / peer = ${ratio(times.peer, times.again)}`,
  );
  sayLoad();
}

async function copy(arena: Arena, server: BenchServer, mapping: string): Promise<{ seconds: number; cpu: number }> {
  await arena.createControl();
  await arena.control(
    `INSERT INTO source_servers (server_id, server_name, connection_string) VALUES (2, 'mariadb', '${server.url}');
     INSERT INTO destination_servers (server_id, server_name, connection_string) VALUES (2, 'mariadb', '${server.url}')`,
  );
  arena.startService();
  const { seconds: taken } = await arena.copyMapping(mapping);
  const cpu = cpuSeconds(arena.servicePid);
  await arena.stopService();
  return { seconds: taken, cpu };
}

function shell(command: string): void {
  const result = spawnSync('bash', ['-c', `set -o pipefail; ${command}`], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${command.slice(0, 40)}… failed: ${result.stderr || result.stdout}`);
}

const client = ({ host, port }: BenchServer) => `mariadb -uroot -h${host} -P${port} --local-infile=1`;

/** Ends with the primary key, as a copy by the service does. */
async function toPostgres(arena: Arena, server: BenchServer): Promise<void> {
  await arena.query('destination', `CREATE TABLE orders (${POSTGRES_COLUMNS})`);
  shell(
    `${client(server)} -q -N -B bench -e 'SELECT * FROM orders' | psql -q '${arena.url('destination')}' -c "COPY orders FROM STDIN (NULL 'NULL')"`,
  );
  await arena.query('destination', 'ALTER TABLE orders ADD PRIMARY KEY (id)');
}

async function toMariaDb(arena: Arena, server: BenchServer): Promise<void> {
  await server.query(`CREATE TABLE back.orders ${MARIADB_TABLE}`);
  shell(
    `psql -q '${arena.url('source')}' -c 'COPY orders TO STDOUT' | ${client(server)} back -e "LOAD DATA LOCAL INFILE '/dev/stdin' INTO TABLE orders CHARACTER SET utf8mb4"`,
  );
}

async function pgloader(arena: Arena, server: BenchServer, rows: number): Promise<void> {
  if (spawnSync('pgloader', ['--version']).status !== 0)
    return say('  PGLOADER IS NOT MEASURED: it is not installed (Debian: pgloader)');
  await arena.createDatabase('destination');
  const started = performance.now();
  const result = spawnSync('pgloader', [server.url, arena.url('destination')], { encoding: 'utf8' });
  const taken = (performance.now() - started) / 1000;
  const found = await arena.value('destination', 'SELECT count(*) FROM bench.orders').catch(() => '0');
  if (result.status !== 0 || found !== String(rows))
    return say(
      `  PGLOADER IS NOT MEASURED: it copied ${found} rows: ${(result.stderr || result.stdout).trim().split('\n').at(-1) ?? ''}`,
    );
  await arena.createDatabase('destination');
  const ours = await copy(
    arena,
    server,
    `(server_id, source_table, cdc_enabled, dest_database, dest_schema) VALUES (2, 'orders', 0, 'destination', 'public')`,
  );
  say(
    `  pgloader ${taken.toFixed(2)} s, sluice beside it ${ours.seconds.toFixed(2)} s: pgloader / sluice = ${(taken / ours.seconds).toFixed(2)}  (target ≥ 3)`,
  );
}
