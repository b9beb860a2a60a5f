/**
 * Changes of MariaDB against its own replication: a backlog of the binary log that was written while nobody read it is replayed by two
 * native replicas (one after the other: their ratio is the noise) and by the service, into MariaDB and beside it into PostgreSQL. All
 * servers but the source commit durably and log what they apply. Timed from the moment the source has a reader to the moment the
 * last row is there. The service has followed such changes for a while by then; its source is disabled in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Arena } from '../postgres/arena.ts';
import { cpuSeconds } from '../postgres/cpu.ts';
import { alternate, mebibytes, median, ratio, say, sayLoad, seconds } from '../report.ts';
import { fillMariaDb, MARIADB_TABLE, MARIADB_VALUES, startServer, type BenchServer } from './tables.ts';

const BASE_ROWS = 100_000;
const MIXED_LARGEST = 1000;

export interface Workload {
  readonly name: string;
  readonly changes: number;
  /** Changes orders of the source; new rows get numbers from `first` on. `round` counts from 0. */
  readonly sql: (first: number, round: number) => string;
  /** The one that 1.0 of a native replica is asked of; the others are its ends, where a replica is at its best and its worst. */
  readonly isUsual?: boolean;
  /** A smaller one of the same kind. */
  readonly warmUp: () => Workload;
}

/** (a): transactions of as many inserts (1,000), after every fourth an update of as many older rows. */
export function largeTransactions(inserts: number, rows: number): Workload {
  const count = Math.round(inserts / rows);
  return {
    name: `(a) ${count} transactions of ${rows} inserts, ${Math.floor(count / 4)} updates of ${rows} rows`,
    changes: count * rows + Math.floor(count / 4) * rows,
    sql: (first) => `FOR n IN 1..${count} DO
        INSERT INTO orders SELECT ${MARIADB_VALUES} FROM (
          SELECT ${first} + (n - 1) * ${rows} + seq - 1 AS seq FROM seq_1_to_${rows}) numbers;
        IF n % 4 = 0 THEN
          UPDATE orders SET amount = amount + 1, note = CONCAT('changed ', n)
           WHERE id > (n DIV 4 - 1) % ${BASE_ROWS / 2 / rows} * ${rows}
             AND id <= (n DIV 4 - 1) % ${BASE_ROWS / 2 / rows} * ${rows} + ${rows};
        END IF;
      END FOR;`,
    warmUp: () => largeTransactions(inserts / 5, rows),
  };
}

/** (b): one-row transactions: six inserts, three updates and a delete of ten. */
export function smallTransactions(count: number): Workload {
  return {
    name: `(b) ${count} one-row transactions`,
    changes: count,
    sql: (first, round) => `FOR n IN 1..${count} DO
        IF n % 10 < 6 THEN INSERT INTO orders SELECT ${MARIADB_VALUES} FROM (SELECT ${first} + n AS seq) number;
        ELSEIF n % 10 < 9 THEN UPDATE orders SET amount = amount + 1, note = CONCAT('changed ', n) WHERE id = 1 + (n * 7919) % ${BASE_ROWS / 2};
        ELSE DELETE FROM orders WHERE id = ${BASE_ROWS / 2} + ${round} * ${Math.ceil(count / 10)} + n DIV 10;
        END IF;
      END FOR;`,
    warmUp: () => smallTransactions(count / 5),
  };
}

/**
 * (c): transactions of all sizes: of a hundred one of 1,000 rows, nine of 100, twenty of ten, seventy of one, in turn inserts and updates,
 * and of the smallest ones deletes too.
 */
export function mixedTransactions(count: number): Workload {
  const rows = Math.round(count * MIXED_ROWS);
  return {
    name: `(c) ${count} transactions of 1 to 1,000 rows`,
    changes: rows,
    sql: (first, round) => `DECLARE next BIGINT DEFAULT ${first};
      DECLARE size INT;
      FOR n IN 1..${count} DO
        SET size = CASE WHEN n % 100 = 0 THEN 1000 WHEN n % 100 < 10 THEN 100 WHEN n % 100 < 30 THEN 10 ELSE 1 END;
        IF size = 1 AND n % 3 = 0 THEN DELETE FROM orders WHERE id = ${BASE_ROWS / 2} + ${round} * ${Math.ceil(count / 3)} + n DIV 3;
        ELSEIF n DIV 100 % 2 = 0 THEN
          INSERT INTO orders SELECT ${MARIADB_VALUES} FROM (SELECT next + seq - 1 AS seq FROM seq_1_to_1000 WHERE seq <= size) numbers;
          SET next = next + size;
        ELSE
          UPDATE orders SET amount = amount + 1, note = CONCAT('changed ', n)
           WHERE id > (n * 7919) % ${BASE_ROWS / 2 - MIXED_LARGEST} AND id <= (n * 7919) % ${BASE_ROWS / 2 - MIXED_LARGEST} + size;
        END IF;
      END FOR;`,
    isUsual: true,
    warmUp: () => mixedTransactions(count / 5),
  };
}

/** Rows of a transaction of (c) on average. */
const MIXED_ROWS = (1 * 1000 + 9 * 100 + 20 * 10 + 70) / 100;

/** One transaction, larger than what is held of changes: for the memory that it takes. */
export function oneTransaction(rows: number): Workload {
  return {
    name: `one transaction of ${rows} inserts`,
    changes: rows,
    sql: (first) =>
      `INSERT INTO orders SELECT ${MARIADB_VALUES} FROM (SELECT ${first} + seq - 1 AS seq FROM seq_1_to_${rows}) numbers;`,
    warmUp: () => oneTransaction(1000),
  };
}

export interface ChangesOptions {
  readonly workloads: readonly Workload[];
  readonly rounds: number;
  /** Engines of the destinations. */
  readonly pairs: readonly string[];
}

export async function benchChanges({ workloads, rounds, pairs }: ChangesOptions): Promise<void> {
  const arena = await Arena.open();
  // What the source is durable by is nobody's time; and the replicas' files are their own.
  const relaxed = { 'sync-binlog': '0', 'innodb-flush-log-at-trx-commit': '0' };
  const replicaSettings = (id: string) => ({ 'server-id': id, 'log-slave-updates': '1' });
  const [source, destination, ...replicas] = await Promise.all([
    startServer(relaxed),
    startServer({ 'server-id': '4' }),
    startServer(replicaSettings('2')),
    startServer(replicaSettings('3')),
  ]);
  try {
    for (const replica of replicas) {
      await replica.query(
        `CHANGE MASTER TO MASTER_HOST = '${source.host}', MASTER_PORT = ${source.port}, MASTER_USER = 'root', MASTER_USE_GTID = slave_pos`,
      );
      // Its own database is the source's.
      await replica.query('DROP DATABASE bench');
    }
    await source.query(`CREATE TABLE orders ${MARIADB_TABLE}`);
    await source.query(fillMariaDb('orders', 1, BASE_ROWS));
    const bench = new Bench(arena, source, replicas);
    for (const replica of replicas) await bench.replicate(replica);
    if (pairs.includes('mariadb'))
      await bench.pair(
        {
          title: 'MariaDB → MariaDB',
          hasTarget: true,
          mapping: `dest_server_id, dest_database) VALUES (2, 'orders', 2, 'bench')`,
          server: `INSERT INTO destination_servers (server_id, server_name, connection_string) VALUES (2, 'mariadb', '${destination.url}')`,
          pid: () => Promise.resolve(destination.pid),
          ...tableOf(destination),
        },
        workloads,
        rounds,
      );
    if (pairs.includes('postgres'))
      await bench.pair(
        {
          title: 'MariaDB → PostgreSQL',
          hasTarget: false,
          mapping: `dest_database, dest_schema) VALUES (2, 'orders', 'destination', 'public')`,
          server: '',
          pid: async () =>
            Number(
              await arena.value(
                'destination',
                `SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE datname = 'destination' AND application_name <> 'sluice bench'
                    AND query LIKE ANY (ARRAY['%sluice.positions%', '%sluice.generations%', '%COPY%', 'UPDATE%', '%pg_temp%'])`,
              ),
            ),
          last: async () => Number(await arena.value('destination', 'SELECT coalesce(max(id), 0) FROM orders')),
          fingerprint: () =>
            arena.value(
              'destination',
              `SELECT count(*) || ' ' || sum(crc32(convert_to(concat_ws('|', id, customer, amount,
                  to_char(ordered_at, 'YYYY-MM-DD HH24:MI:SS.US'), details, coalesce(note, '-')), 'UTF8'))) FROM orders`,
            ),
        },
        workloads,
        rounds,
      );
  } finally {
    await arena.stopService().catch(() => 0);
    await Promise.all([source, destination, ...replicas].map((server) => server.stop()));
    await arena.close();
  }
}

interface Table {
  /** The highest number that is there. */
  readonly last: () => Promise<number>;
  /** Rows, and a hash over every value. */
  readonly fingerprint: () => Promise<string>;
}

interface Pair extends Table {
  readonly title: string;
  readonly hasTarget: boolean;
  /** Columns and values of the mapping, behind the source's. */
  readonly mapping: string;
  readonly server: string;
  /** The process that applies. */
  readonly pid: () => Promise<number>;
}

function tableOf(server: BenchServer): Table {
  const one = async (sql: string) => {
    const [value] = Object.values((await server.query(sql))[0] ?? {});
    return typeof value === 'string' ? value : '0';
  };
  return {
    last: async () => Number(await one('SELECT MAX(id) AS id FROM bench.orders')),
    fingerprint: () =>
      one(`SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(CONCAT_WS('|', id, customer, amount, ordered_at, details, COALESCE(note, '-'))))) AS f
             FROM bench.orders`),
  };
}

interface Run {
  readonly seconds: number;
  /** By process. */
  readonly cpu: Readonly<Record<string, number>>;
}

class Bench {
  readonly #arena: Arena;
  readonly #source: BenchServer;
  readonly #replicas: readonly BenchServer[];
  #round = 0;

  constructor(arena: Arena, source: BenchServer, replicas: readonly BenchServer[]) {
    this.#arena = arena;
    this.#source = source;
    this.#replicas = replicas;
  }

  async pair(pair: Pair, workloads: readonly Workload[], rounds: number): Promise<void> {
    const arena = this.#arena;
    await arena.createDatabase('destination');
    await arena.createControl();
    await arena.control(
      `INSERT INTO source_servers (server_id, server_name, connection_string) VALUES (2, 'mariadb', '${this.#source.url}'); ${pair.server}`,
    );
    arena.startService();
    await arena.copyMapping(`(server_id, source_table, ${pair.mapping}`);
    for (const workload of workloads) await this.#workload(pair, workload, rounds);
    say(`  peak resident size of the service: ${mebibytes(await arena.stopService())}`);
  }

  async #workload(pair: Pair, workload: Workload, rounds: number): Promise<void> {
    say(`\nChanges, ${pair.title}: ${workload.name}`);
    const runs = { sluice: [] as Run[], native: [] as Run[], again: [] as Run[] };
    await this.#enable(true);
    await this.#change(workload.warmUp());
    await arrived(pair, await tableOf(this.#source).last());
    await this.#enable(false);
    const [one, two] = this.#replicas;
    if (!one || !two) throw new Error('two replicas are needed');
    for (const replica of this.#replicas) await this.replicate(replica);
    for (let round = 0; round < rounds; round++) {
      await this.#change(workload);
      const truth = await tableOf(this.#source).fingerprint();
      for (const arm of alternate(['native', 'sluice', 'again'] as const, round)) {
        await this.#arena.settle();
        const table = arm === 'sluice' ? pair : tableOf(arm === 'native' ? one : two);
        if (arm === 'sluice') runs.sluice.push(await this.#apply(pair));
        else runs[arm].push(await this.replicate(arm === 'native' ? one : two));
        const found = await table.fingerprint();
        if (found !== truth) throw new Error(`${arm} of ${pair.title} holds ${found}, the source ${truth}`);
      }
      sayLoad();
    }
    const times = (arm: keyof typeof runs) => runs[arm].map((run) => run.seconds);
    for (const arm of ['sluice', 'native', 'again'] as const) {
      const cpu = Object.keys(runs[arm][0]?.cpu ?? {})
        .map((process) => `${process} ${median(runs[arm].map((run) => run.cpu[process] ?? 0)).toFixed(2)}`)
        .join(', ');
      const perSecond = Math.round(workload.changes / median(times(arm)));
      say(`  ${arm.padEnd(8)} ${seconds(times(arm))} s (${perSecond} changes/s)   processor seconds: ${cpu}`);
    }
    say(`  native / again (noise) = ${ratio(times('native'), times('again'))}`);
    say(
      `  native / sluice = ${ratio(times('native'), times('sluice'))}${pair.hasTarget && workload.isUsual ? '  (target ≥ 1.0)' : ''}`,
    );
  }

  /** The last row of all comes last. */
  async #change(workload: Workload): Promise<void> {
    const first = (await tableOf(this.#source).last()) + 1;
    await this.#source.query(`BEGIN NOT ATOMIC ${workload.sql(first, this.#round++)} END`);
    const last = (await tableOf(this.#source).last()) + 1;
    await this.#source.query(fillMariaDb('orders', last, last));
  }

  /** Until a replica is where the source is. */
  async replicate(replica: BenchServer): Promise<Run> {
    const run = this.#timed(
      tableOf(replica),
      () => replica.query('START SLAVE'),
      () => Promise.resolve({ replica: replica.pid }),
    );
    const result = await run;
    await replica.query('STOP SLAVE');
    await this.#endReaders();
    return result;
  }

  async #apply(pair: Pair): Promise<Run> {
    const pid = await pair.pid();
    const result = await this.#timed(
      pair,
      () => this.#enable(true),
      // A session of PostgreSQL is a process of its own.
      async () => ({ service: this.#arena.servicePid, destination: pid || (await pair.pid()) }),
    );
    await this.#enable(false);
    return result;
  }

  /** What else the processes do meanwhile counts as well; a session that was there at the beginning does not count from its own. */
  async #timed(
    table: Table,
    start: () => Promise<unknown>,
    processes: () => Promise<Record<string, number>>,
  ): Promise<Run> {
    const end = await tableOf(this.#source).last();
    const before = new Map<number, number>();
    for (const pid of [this.#source.pid, ...Object.values(await processes())]) before.set(pid, cpuSeconds(pid));
    await start();
    await this.#untilReaders(1);
    const started = performance.now();
    await arrived(table, end);
    const elapsed = (performance.now() - started) / 1000;
    const pids: Record<string, number> = { source: this.#source.pid, ...(await processes()) };
    const cpu = Object.fromEntries(
      Object.entries(pids).map(([name, pid]) => [name, cpuSeconds(pid) - (before.get(pid) ?? 0)]),
    );
    return { seconds: elapsed, cpu: { ...cpu, sum: Object.values(cpu).reduce((sum, each) => sum + each, 0) } };
  }

  async #enable(isEnabled: boolean): Promise<void> {
    await this.#arena.control(`UPDATE source_servers SET is_enabled = ${isEnabled ? 1 : 0} WHERE server_id = 2`);
    if (!isEnabled) await this.#untilReaders(0);
  }

  async #readers(): Promise<string[]> {
    const rows = await this.#source.query(
      `SELECT ID AS id FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump'`,
    );
    return rows.map((row) => String(row['id']));
  }

  async #untilReaders(count: 0 | 1): Promise<void> {
    while (Math.min(1, (await this.#readers()).length) !== count) await sleep(5);
  }

  /** The source notices that a replica has left when it has something to send. */
  async #endReaders(): Promise<void> {
    for (const id of await this.#readers()) await this.#source.query(`KILL ${id}`);
    await this.#untilReaders(0);
  }
}

async function arrived(table: Table, id: number): Promise<void> {
  // A replica's table comes with the replica.
  while ((await table.last().catch(() => 0)) < id) await sleep(10);
}
