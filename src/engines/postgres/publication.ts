/**
 * The publication of a stream: which tables are in it, and the wait that makes a copy and the stream meet without a gap
 * (PROTOCOL, A copy, 2).
 */
import { createHash } from 'node:crypto';
import { hasCode, SluiceError, toSluiceError } from '../../model/errors.ts';
import type { Finding } from '../../model/findings.ts';
import { carriedColumns, displayName, type Table, type TableName } from '../../model/tables.ts';
import type { Connection, Session } from './connection.ts';
import { classify, sqlState } from './errors.ts';
import { member, memberFinding, MEMBERS, type Member } from './publication-members.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** No table is to blame for these. */
const UNREACHABLE = [
  'CONNECTION_LOST',
  'SERVER_UNREACHABLE',
  'SERVER_BUSY',
  'LOGIN_FAILED',
  'DATABASE_MISSING',
] as const;

const PUBLISH = `publish = 'insert, update, delete, truncate', publish_via_partition_root = true`;

function failure(finding: Finding): SluiceError {
  return new SluiceError(finding.code, finding.message, { hint: finding.fixSql.join('; ') || undefined });
}

interface Pending {
  readonly table: Table;
  readonly key: readonly string[] | null;
  readonly until: number;
  readonly resolve: () => void;
  readonly reject: (error: SluiceError) => void;
  /** Transactions that still have to end, as pg_locks names them; null: not looked yet. */
  waitFor: Set<string> | null;
}

export interface PublicationOptions {
  readonly name: string;
  /** Ours to alter; else it was given by the connection string and is only looked at. */
  readonly managed: boolean;
  /** How long `include` waits for transactions that write to a table, ms. */
  readonly waitMs: number;
}

/**
 * One publication of one database. Calls of `include` that overlap share their statements and their waits, so that including 500
 * tables costs a handful of round trips; a table whose writers do not end holds up no other.
 */
export class Publication {
  readonly name: string;
  readonly managed: boolean;
  readonly #connection: Connection;
  readonly #waitMs: number;
  #incoming: Pending[] = [];
  #waiting: Pending[] = [];
  #running = false;
  #wake: (() => void) | null = null;

  constructor(connection: Connection, options: PublicationOptions) {
    this.#connection = connection;
    this.name = options.name;
    this.managed = options.managed;
    this.#waitMs = options.waitMs;
  }

  get dropSql(): string {
    return `DROP PUBLICATION IF EXISTS ${quoteIdentifier(this.name)};`;
  }

  /**
   * Creates it, empty, unless it is there. Must come before the slot: servers before 18 cannot decode changes that are older
   * than the publication. A given one is only looked for (CDC_NOT_READY).
   */
  async prepare(role: string): Promise<void> {
    const rows = await this.#connection.query(
      'look for the publication',
      `SELECT to_jsonb(p)::text AS publication FROM pg_publication p WHERE pubname = $1`,
      [this.name],
    );
    const text = rows[0]?.['publication'];
    if (text) {
      const fault = this.fault(text);
      if (fault) throw fault;
      return;
    }
    if (!this.managed) {
      throw new SluiceError(
        'CDC_NOT_READY',
        `publication ${this.name}, named in the connection string, does not exist`,
        { hint: `CREATE PUBLICATION ${quoteIdentifier(this.name)} FOR TABLE … WITH (${PUBLISH});` },
      );
    }
    try {
      await this.#connection.query(
        `create publication ${this.name}`,
        `CREATE PUBLICATION ${quoteIdentifier(this.name)} WITH (${PUBLISH})`,
      );
    } catch (error) {
      if (sqlState(error) === '42710' || sqlState(error) === '23505') return; // somebody else was faster
      throw this.#denied(error, [], role);
    }
  }

  /** What is wrong with it as a whole; null: nothing. `row`: its row of pg_publication as JSON, null: there is none. */
  fault(row: string | null): SluiceError | null {
    if (row === null) {
      return new SluiceError(
        'GAP',
        `publication ${this.name} is missing: what changed since it was dropped is in no stream`,
        {
          hint: "The tables must be copied again: set on_gap = 'resync', or is_full_sync = 1 on each mapping.",
        },
      );
    }
    const publication = JSON.parse(row) as Record<string, unknown>;
    const missing = ['pubinsert', 'pubupdate', 'pubdelete', 'pubtruncate', 'pubviaroot'].filter(
      (property) => publication[property] !== true,
    );
    if (missing.length === 0) return null;
    return new SluiceError('CDC_NOT_READY', `publication ${this.name} lacks ${missing.join(', ')}`, {
      hint: `ALTER PUBLICATION ${quoteIdentifier(this.name)} SET (${PUBLISH});`,
    });
  }

  /** PROTOCOL, A copy, 2. Idempotent. `key`: the columns changes will be matched by, null: not known. */
  include(table: Table, key: readonly string[] | null): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#incoming.push({ table, key, until: performance.now() + this.#waitMs, resolve, reject, waitFor: null });
      this.#wake?.();
      if (!this.#running) void this.#run();
    });
  }

  async exclude(name: TableName): Promise<void> {
    if (!this.managed) return;
    await this.#altering(async (session) => {
      const rows = await session.query(
        'look for the table in the publication',
        `SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid
         JOIN pg_namespace s ON s.oid = c.relnamespace WHERE p.pubname = $1 AND s.nspname = $2 AND c.relname = $3`,
        [this.name, name.schema, name.table],
      );
      if (rows.length === 0) return;
      await session.query(
        `take ${displayName(name)} out of publication ${this.name}`,
        `ALTER PUBLICATION ${quoteIdentifier(this.name)} DROP TABLE ONLY ${quoteTable(name)}`,
      );
    });
  }

  async drop(): Promise<void> {
    if (this.managed) await this.#connection.query(`drop publication ${this.name}`, this.dropSql);
  }

  async #run(): Promise<void> {
    this.#running = true;
    // Calls made in the same turn of the event loop come together.
    await new Promise((resolve) => setTimeout(resolve, 1));
    for (let pause = 10; this.#incoming.length > 0 || this.#waiting.length > 0; pause = Math.min(pause * 2, 500)) {
      const batch = this.#incoming;
      this.#incoming = [];
      try {
        if (batch.length > 0) {
          pause = 10;
          this.#waiting.push(...(await this.#add(batch)));
        }
        const done = await this.#poll();
        if (done.length > 0) {
          if (this.managed) await this.#invalidate();
          this.#waiting = this.#waiting.filter((each) => !done.includes(each));
          for (const each of done) each.resolve();
        }
      } catch (error) {
        // The connection failed, or the like: nobody here can go on.
        const failed = new Set([...batch, ...this.#waiting]);
        this.#waiting = [];
        for (const each of failed) each.reject(toSluiceError(error));
      }
      if (this.#waiting.length > 0 && this.#incoming.length === 0) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, pause);
          this.#wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        this.#wake = null;
      }
    }
    this.#running = false;
  }

  /** Adds the tables that are not in yet; resolves to those that now are. When the whole batch is refused, each is tried alone. */
  async #add(batch: Pending[]): Promise<Pending[]> {
    try {
      return await this.#altering((session) => this.#addIn(session, batch));
    } catch (error) {
      const only = batch[0];
      if (hasCode(error, ...UNREACHABLE)) throw error;
      if (batch.length > 1) {
        const added: Pending[] = [];
        for (const each of batch) added.push(...(await this.#add([each])));
        return added;
      }
      if (only) only.reject(await this.#explain(error, only.table.name));
      return [];
    }
  }

  async #addIn(session: Session, batch: readonly Pending[]): Promise<Pending[]> {
    const names = batch.map((each) => each.table.name);
    const rows = await session.query('read the publication', MEMBERS, [
      names.map((name) => name.schema),
      names.map((name) => name.table),
      this.name,
    ]);
    const good: Pending[] = [];
    const missing = new Map<string, string>();
    const refused: [Pending, SluiceError][] = [];
    for (const [index, row] of rows.entries()) {
      const each = batch[index];
      if (each === undefined) continue;
      const found = member(row);
      const refusal = this.#refusal(each, found);
      if (refusal) refused.push([each, refusal]);
      else {
        good.push(each);
        if (!found.published) missing.set(each.table.id, quoteTable(found.name));
      }
    }
    if (missing.size > 0) {
      await session.query(
        `add ${missing.size === 1 ? [...missing.values()].join() : `${missing.size} tables`} to publication ${this.name}`,
        `ALTER PUBLICATION ${quoteIdentifier(this.name)} ADD TABLE ONLY ${[...missing.values()].join(', ONLY ')}`,
      );
    }
    for (const [each, refusal] of refused) each.reject(refusal);
    return good;
  }

  #refusal(each: Pending, found: Member): SluiceError | null {
    const name = displayName(found.name);
    if (found.oid === null) {
      return new SluiceError('SOURCE_TABLE_MISSING', `${name} does not exist at the source, or we may not see it`);
    }
    if (found.oid !== each.table.id) {
      return new SluiceError('SOURCE_TABLE_REPLACED', `${name} is not the table it was when it was described`);
    }
    // Before it is published: the server would refuse the owner's updates otherwise.
    const finding = memberFinding(found, each.key);
    if (finding?.severity === 'error') return failure(finding);
    if (this.managed) return null;
    if (!found.published) {
      return new SluiceError('CDC_NOT_READY', `${name} is not in publication ${this.name}`, {
        hint: `ALTER PUBLICATION ${quoteIdentifier(this.name)} ADD TABLE ONLY ${quoteTable(found.name)};`,
      });
    }
    const sent = found.sentColumns;
    const left = sent === null ? [] : carriedColumns(each.table).filter((column) => !sent.includes(column.name));
    if (found.rowFilter || left.length > 0) {
      return new SluiceError(
        'CDC_NOT_READY',
        `publication ${this.name} leaves out ${found.rowFilter ? 'rows' : `columns ${left.map((column) => column.name).join(', ')}`} of ${name}`,
        { hint: 'Publish the whole table: drop it from the publication and add it without WHERE and column list.' },
      );
    }
    return null;
  }

  /**
   * Looks which transactions hold the tables locked to write, and returns the entries that wait for none any more; those past
   * their time are rejected. A transaction that comes later needs no wait: its changes are in the stream.
   */
  async #poll(): Promise<Pending[]> {
    if (this.#waiting.length === 0) return [];
    const rows = await this.#connection.query(
      'look who writes to the tables',
      `SELECT t.root::text AS root, l.virtualtransaction AS who, l.pid::text AS pid
       FROM (SELECT r.oid AS root, r.oid AS relid FROM unnest($1::oid[]) r(oid)
             UNION SELECT r.oid, p.relid FROM unnest($1::oid[]) r(oid), pg_partition_tree(r.oid) p) t
       JOIN pg_locks l ON l.relation = t.relid
       WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`,
      [[...new Set(this.#waiting.map((each) => each.table.id))]],
    );
    const writers = new Map<string, Map<string, string>>();
    for (const { root, who, pid } of rows) {
      const of = writers.get(root ?? '') ?? new Map<string, string>();
      of.set(who ?? '', pid ? `pid ${pid}` : 'a prepared transaction');
      writers.set(root ?? '', of);
    }
    const done: Pending[] = [];
    const late: Pending[] = [];
    for (const each of this.#waiting) {
      const now = writers.get(each.table.id) ?? new Map<string, string>();
      each.waitFor ??= new Set(now.keys());
      // PREPARE TRANSACTION gives a transaction another name here ("-1/…"), so every prepared one is waited for.
      const still = [...now].filter(([who]) => each.waitFor?.has(who) || who.startsWith('-1/'));
      if (still.length === 0) done.push(each);
      else if (performance.now() > each.until) {
        late.push(each);
        each.reject(
          new SluiceError(
            'TIMEOUT',
            `transactions that write to ${displayName(each.table.name)} have not ended: ${[...new Set(still.map(([, pid]) => pid))].join(', ')}`,
            {
              hint: 'A copy begins once the transactions that were writing have ended. End them, or wait: SELECT pg_terminate_backend(pid); for prepared ones ROLLBACK PREPARED.',
            },
          ),
        );
      }
    }
    this.#waiting = this.#waiting.filter((each) => !late.includes(each));
    return done;
  }

  /**
   * Alters the publication without changing it: minor releases before 14.18, 15.13, 16.9 and 17.5 may keep a stale "not
   * published" entry, which only an invalidation after the last old writer clears.
   */
  #invalidate(): Promise<void> {
    return this.#altering(async (session) => {
      await session.query(
        `refresh publication ${this.name}`,
        `ALTER PUBLICATION ${quoteIdentifier(this.name)} SET (${PUBLISH})`,
      );
    });
  }

  /** A transaction that alters the publication: one at a time over all processes, tried again when somebody else altered it meanwhile. */
  async #altering<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const key = createHash('sha256').update(this.name).digest().readBigInt64BE(0);
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#connection.use((session) =>
          session.transaction('BEGIN', async () => {
            await session.query('bound the wait for locks', `SET LOCAL lock_timeout = '10s'`);
            if (this.managed) {
              await session.query('lock the publication', 'SELECT pg_advisory_xact_lock($1)', [String(key)]);
            }
            return work(session);
          }),
        );
      } catch (error) {
        // XX000: "tuple concurrently updated"; 42710: it became a member meanwhile; 40P01: deadlock
        if (attempt >= 5 || !['XX000', '42710', '40P01'].includes(sqlState(error) ?? '')) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20 * attempt * (1 + Math.random())));
      }
    }
  }

  /** Why a single table could not be added; a lock that was waited for in vain names its holders. */
  async #explain(error: unknown, name: TableName): Promise<SluiceError> {
    if (sqlState(error) !== '55P03') return this.#denied(error, [name], null);
    const rows = await this.#connection
      .query(
        'find who holds the lock',
        `SELECT DISTINCT 'pid ' || l.pid AS who FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
         JOIN pg_namespace s ON s.oid = c.relnamespace
         WHERE l.granted AND l.locktype = 'relation' AND s.nspname = $1 AND c.relname = $2
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')`,
        [name.schema, name.table],
      )
      .catch(() => []);
    return new SluiceError(
      'TIMEOUT',
      `could not add ${displayName(name)} to publication ${this.name}: it is locked by ${rows.map((row) => row['who']).join(', ') || 'somebody'}`,
      { hint: 'A schema change or a vacuum against wraparound holds such a lock; it is tried again.', cause: error },
    );
  }

  #denied(error: unknown, tables: readonly TableName[], role: string | null): SluiceError {
    const classified = classify(error, `alter publication ${this.name}`);
    if (classified.code === 'PERMISSION_DENIED') {
      const quoted = role === null ? '<our role>' : quoteIdentifier(role);
      return new SluiceError('PERMISSION_DENIED', classified.message, {
        hint:
          tables.length === 0
            ? `GRANT CREATE ON DATABASE ${quoteIdentifier(this.#connection.database)} TO ${quoted}; or make one by hand and name it with ?publication=`
            : `A publication takes a table from its owner only: GRANT <owner of ${tables.map(quoteTable).join(', ')}> TO ${quoted}; or make a publication by hand and name it with ?publication=`,
        cause: error,
      });
    }
    if (sqlState(error) === '42704') {
      return new SluiceError(
        'CDC_NOT_READY',
        `publication ${this.name} does not exist yet: the stream's owner makes it`,
        {
          cause: error,
        },
      );
    }
    return classified;
  }
}
