/**
 * MariaDB → MariaDB by a login with BINLOG REPLAY, killed while changes go in as row events and before and after the commits of them.
 * Every transaction writes down what state it leaves behind, so that whatever a reader finds can be told from half of something.
 * SLUICE_TEST_SEED repeats a run's choices, SLUICE_TEST_KILLS sets how many kills come at random moments.
 */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from '../../src/demo/random.ts';
import type { Failpoint } from '../../src/model/failpoint.ts';
import { ChildServices } from '../support/child-service.ts';
import { createSameEnginePair, MARIADB, type SameEnginePair } from '../support/same-engine-pair.ts';
import { eventually } from '../support/service.ts';
import { skip } from '../support/skip.ts';

const KILLS = Number(process.env['SLUICE_TEST_KILLS'] ?? (process.env['SLUICE_TEST_LONG'] ? 40 : 3));
/** Rows of a statement: enough for events to be used. */
const MANY = 260;
/** Too few for that. */
const FEW = 40;
/** Of its login at the destination. */
const USER = 'row_events';
const TABLES = ['plain', 'moving'] as const;

const stateOf = (table: string) =>
  `(SELECT CONCAT(COUNT(*), ' rows, ', SUM(id), ', ', SUM(n), ', ', BIT_XOR(CRC32(CONCAT_WS('|', id, n, v)))) FROM ${table})`;

/** What transactions are made of. The keys of `plain` never change. */
class Writer {
  written = 0;
  #next = 10_000;
  readonly #pair: SameEnginePair;

  constructor(pair: SameEnginePair) {
    this.#pair = pair;
  }

  async prepare(): Promise<void> {
    for (const table of TABLES) {
      await this.#pair.create(table, 600);
      await this.#pair.from.query(`ALTER TABLE ${table} ADD COLUMN n int NOT NULL DEFAULT 0`);
    }
    await this.#pair.from.query(
      'CREATE TABLE marks (n int PRIMARY KEY, plain varchar(100) NOT NULL, moving varchar(100) NOT NULL)',
    );
    await this.write();
  }

  /** One transaction. */
  async write(...statements: string[]): Promise<void> {
    this.written++;
    await this.#pair.from.held(async (run) => {
      for (const statement of statements) await run(statement);
      await run(`INSERT INTO marks SELECT ${this.written}, ${stateOf('plain')}, ${stateOf('moving')}`);
    });
  }

  insert(table: string, rows: number): string {
    const first = this.#next + 1;
    this.#next += rows;
    return `INSERT INTO ${table} (id, v, n) SELECT seq, CONCAT('new ', seq), ${this.written} FROM seq_${first}_to_${this.#next}`;
  }

  update(table: string): string {
    return `UPDATE ${table} SET v = CONCAT('changed ', ${this.written}, ' ', id), n = n + 1 ORDER BY id DESC LIMIT ${MANY}`;
  }

  /** The oldest. */
  remove(table: string, rows: number): string {
    return `DELETE FROM ${table} ORDER BY id LIMIT ${rows}`;
  }

  /** Deleted, and inserted with other values. */
  replace(table: string): string[] {
    return [
      `CREATE TEMPORARY TABLE taken AS SELECT id FROM ${table} ORDER BY id LIMIT ${FEW}`,
      `DELETE FROM ${table} WHERE id IN (SELECT id FROM taken)`,
      `INSERT INTO ${table} (id, v, n) SELECT id, 'again', ${this.written} FROM taken`,
      'DROP TEMPORARY TABLE taken',
    ];
  }

  /** To keys that nothing had. */
  move(rows: number): string[] {
    const first = this.#next;
    this.#next += rows;
    return [`SET @id = ${first}`, `UPDATE moving SET id = (@id := @id + 1), n = n + 1 ORDER BY id DESC LIMIT ${rows}`];
  }

  /** Each to the key of its neighbour. */
  shift(): string {
    this.#next++;
    return 'UPDATE moving SET id = id + 1 ORDER BY id DESC';
  }
}

interface Counts {
  /** Statements with events, or with what a session is told first. */
  readonly events: number;
  /** Ways back from events that were not taken. */
  readonly back: number;
}

describe('killed while changes go in as row events, MariaDB → MariaDB', function () {
  this.timeout(120_000 + KILLS * 20_000);
  const seed = Number(process.env['SLUICE_TEST_SEED'] ?? Math.floor(Math.random() * 1e9));
  let pair: SameEnginePair;
  let writer: Writer;
  const services = new ChildServices();

  before(async function () {
    pair = await createSameEnginePair(this, MARIADB);
    const { into, world } = pair;
    const [server] = await into.query('SELECT VERSION() AS version');
    if (!/mariadb/i.test(String(server?.['version']))) skip(this, 'MySQL takes no events in this way');
    // The rights of docs/sources.md.
    await into.query(`CREATE OR REPLACE USER ${USER} IDENTIFIED BY 'secret'`);
    await into.query(
      `GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, CREATE TEMPORARY TABLES ON ${into.name}.* TO ${USER}`,
    );
    await into.query(`GRANT BINLOG REPLAY ON *.* TO ${USER}`);
    const url = new URL(into.url);
    [url.username, url.password] = [USER, 'secret'];
    await world.control.query('UPDATE destination_servers SET connection_string = $1', [url.toString()]);
    writer = new Writer(pair);
    await writer.prepare();
    const service = await services.start(world);
    for (const table of [...TABLES, 'marks']) await pair.stream(table);
    await service.kill();
  });
  after(async () => {
    await services.killAll();
    await pair?.into.query(`DROP USER ${USER}`);
    await pair?.close();
  });

  /** The transaction that a reader of the destination finds last; what it left behind is what is there. */
  const found = async (): Promise<number> => {
    const [row] = await pair.into.query(
      `SELECT n, plain, moving, ${stateOf('plain')} AS plain_is, ${stateOf('moving')} AS moving_is FROM marks ORDER BY n DESC LIMIT 1`,
    );
    for (const table of TABLES)
      expect(row?.[`${table}_is`], `${table}, behind transaction ${String(row?.['n'])}`).to.equal(row?.[table]);
    return Number(row?.['n']);
  };
  const counts = async (): Promise<Counts> => {
    const rows = await pair.into.query(
      `SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_binlog', 'Com_rollback_to_savepoint')`,
    );
    const of = (name: string) => Number(rows.find((row) => row['Variable_name'] === name)?.['Value']);
    return { events: of('Com_binlog'), back: of('Com_rollback_to_savepoint') };
  };
  const during = async (work: () => Promise<unknown>): Promise<Counts> => {
    const before = await counts();
    await work();
    const after = await counts();
    return { events: after.events - before.events, back: after.back - before.back };
  };
  /** New rows, changed ones, and few enough others. */
  const changeMany = () =>
    writer.write(
      writer.update('plain'),
      writer.insert('plain', MANY),
      writer.remove('plain', MANY),
      ...writer.replace('plain'),
      ...writer.move(FEW),
      writer.remove('moving', FEW),
      writer.insert('moving', FEW),
    );
  const allEqual = async () => {
    for (const table of [...TABLES, 'marks']) await pair.equal(table);
    expect(await found()).to.equal(writer.written);
  };

  for (const { point, isIn } of [
    { point: 'stream.before-commit', isIn: false },
    { point: 'stream.after-commit', isIn: true },
  ] satisfies readonly { point: Failpoint; isIn: boolean }[])
    it(`F01 F06 F49: killed at ${point}: all of the events or none, and none twice`, async () => {
      const before = await found();
      await changeMany();
      const killed = await during(async () => {
        const service = await services.start(pair.world, { [point]: 'kill' });
        expect(await service.endsWithin(45_000), service.lastWords()).to.equal(true);
        // The server has noticed.
        await eventually(async () => void expect(await sessions()).to.deep.equal([]));
      });
      expect(killed.back).to.equal(0);
      // The first tells how events are laid out.
      expect(killed.events, 'statements with events').to.be.greaterThan(1);
      expect(await found()).to.equal(isIn ? writer.written : before);
      const service = await services.start(pair.world);
      const after = await during(async () => {
        await changeMany();
        await allEqual();
      });
      expect(after.back).to.equal(0);
      expect(after.events, 'statements with events').to.be.greaterThan(1);
      await service.kill();
    });
  const sessions = async () =>
    (await pair.into.query('SHOW FULL PROCESSLIST')).filter((row) => row['User'] === USER).map((row) => row['Info']);

  it('F01 F40: killed while the server applies the events: nothing of them remains, and they go in again', async () => {
    const before = await found();
    await changeMany();
    await pair.into.held(async (run) => {
      const [row] = await pair.into.query('SELECT MAX(id) AS id FROM plain');
      await run(`UPDATE plain SET v = v WHERE id = ${Number(row?.['id'])}`);
      const service = await services.start(pair.world);
      await eventually(async () => {
        const doing = await sessions();
        expect(
          doing.some((text) => /^BINLOG/.test(String(text))),
          doing.join('\n'),
        ).to.equal(true);
      }, 30_000);
      await service.kill();
    });
    expect(await found()).to.equal(before);
    const service = await services.start(pair.world);
    await allEqual();
    await service.kill();
  });

  it(`F01 F06 F20 F21 F49: ${KILLS} kills at random moments among transactions of all kinds (seed ${seed})`, async () => {
    const random = new Random(seed);
    const kinds = [
      changeMany,
      () => writer.write(writer.insert('moving', MANY), writer.remove('moving', MANY), writer.update('plain')),
      () => writer.write(writer.update('moving'), ...writer.replace('moving'), ...writer.move(MANY)),
      () => writer.write(writer.shift(), writer.insert('plain', MANY), writer.remove('plain', MANY)),
      () => writer.write(...writer.replace('plain'), writer.update('plain'), ...writer.replace('plain')),
    ];
    let stop = false;
    const writing = (async () => {
      while (!stop) {
        await random.pick(kinds)();
        await found();
        await sleep(random.below(60));
      }
    })();
    // Told where it is waited for.
    writing.catch(() => undefined);
    const killed = await during(async () => {
      try {
        for (let kill = 0; kill < KILLS; kill++) {
          const last = await found();
          const service = await services.start(pair.world);
          await eventually(async () => void expect(await found()).to.be.greaterThan(last), 30_000);
          await sleep(random.below(1500));
          await service.kill();
          expect(await found()).to.be.greaterThan(last);
        }
      } finally {
        stop = true;
        await writing;
      }
    });
    expect(killed.events - killed.back, 'statements with events that stayed').to.be.greaterThan(2 * KILLS);
    await services.start(pair.world);
    await allEqual();
    console.log(`      seed ${seed}: ${writer.written} transactions, ${killed.events} statements, ${killed.back} back`);
  });
});
