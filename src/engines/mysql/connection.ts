/** Sessions of one MySQL or MariaDB database: a small pool for short queries, and sessions of their own for readers, loaders and appliers. */
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import type mysql from 'mysql2';
import { SluiceError } from '../../model/errors.ts';
import { parseMysqlAddress, type MysqlAddress } from './address.ts';
import type { Installation, OpenOptions } from '../contract.ts';
import { SessionPool, type PooledSession } from '../session-pool.ts';
import { classify } from './errors.ts';
import { mysqlLogin, tlsOptions } from './login.ts';

/** A value as exact text, or bytes where the column is binary. */
export type SqlValue = string | Buffer | null;
export type Row = Readonly<Record<string, SqlValue>>;
/** Bound values; text is bound as text, whatever it is compared with. */
export type Parameter = string | number | Uint8Array | null;

/**
 * What a session must agree on so that text means the same everywhere (invariant 6). sql_mode: writes are refused, never adjusted;
 * zero dates stay possible, so that a copy can hold them; literals have no escapes but the doubled quote. A reader that is pushed
 * back must not be ended by the server (net_write_timeout, 60 s by default), nor may one end a transaction that waits for the other end
 * (MariaDB's idle_…_timeout), and nothing waits for a table's lock for a year.
 * Versioned comments: MariaDB skips those of 50700 to 99999, MySQL those that begin with M.
 */
const SESSION_SETTINGS = [
  'SET NAMES utf8mb4 COLLATE utf8mb4_bin',
  `SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,NO_BACKSLASH_ESCAPES,ERROR_FOR_DIVISION_BY_ZERO',
     autocommit = 1, sql_auto_is_null = 0, sql_safe_updates = 0, sql_big_selects = 1, sql_select_limit = 18446744073709551615,
     group_concat_max_len = 1073741824, net_write_timeout = 3600, net_read_timeout = 3600, wait_timeout = 28800,
     lock_wait_timeout = 60, innodb_lock_wait_timeout = 50
     /*!80000 , information_schema_stats_expiry = 0 , max_execution_time = 0 */ /*M!100100 , max_statement_time = 0 */
     /*M!100300 , idle_transaction_timeout = 0, idle_write_transaction_timeout = 0, idle_readonly_transaction_timeout = 0 */`,
  'SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ',
].join('; ');

/** Every value as the server's own text. */
const TEXT_ONLY: mysql.ConnectionOptions = {
  dateStrings: true,
  jsonStrings: true,
  decimalNumbers: false,
  // Several statements in one round trip. No value is ever part of their text (invariant 11).
  multipleStatements: true,
};

/** What the server is, learned with the first session. */
export interface ServerKind {
  readonly isMariaDb: boolean;
  /** As the server says it. */
  readonly version: string;
  /** LOAD DATA LOCAL; no longer, once it was refused. */
  allowsInfile: boolean;
  /** It does not tell names of databases and tables apart by case (lower_case_table_names 1 and 2). */
  readonly foldsNames: boolean;
  /** BINLOG statements of bound values; no longer, once it was refused. */
  allowsEvents: boolean;
}

/** One connection, in our hands only. */
export class Session implements PooledSession {
  readonly driver: mysql.Connection;
  kind: ServerKind = {
    isMariaDb: false,
    version: '',
    allowsInfile: true,
    allowsEvents: false,
    foldsNames: false,
  };
  /** Set once the connection is gone; whoever holds the session must open another. */
  lost: Error | null = null;

  readonly #onEnd = new Set<() => void>();

  constructor(driver: mysql.Connection) {
    this.driver = driver;
    driver.on('error', (error: Error) => this.#over(error));
    driver.on('end', () => this.#over(new Error('Connection ended')));
  }

  /** The connection's id, as KILL takes it. */
  get id(): number {
    return this.driver.threadId;
  }

  /**
   * `doing` completes "could not …" in an error. With values the statement is prepared and they are bound. For bookkeeping of our
   * own: of bound statements times come in binary, from which the driver makes its own text. Users' rows are read by rows.ts.
   */
  async query(doing: string, text: string, values: readonly Parameter[] = []): Promise<Row[]> {
    const result = await this.#send(doing, text, values);
    return Array.isArray(result) ? (result as Record<string, unknown>[]).map(exact) : [];
  }

  /** Several statements in one round trip: the rows each of them touched, in order. */
  async run(doing: string, statements: readonly string[]): Promise<number[]> {
    const result = await this.#send(doing, statements.join(';\n'), []);
    const all: readonly unknown[] = statements.length > 1 && Array.isArray(result) ? (result as unknown[]) : [result];
    return all.map((each) =>
      Array.isArray(each) ? each.length : Number((each as mysql.ResultSetHeader).affectedRows),
    );
  }

  /** Several statements in one round trip: the rows of each of them, none for those that give no rows. */
  async batch(doing: string, statements: readonly string[]): Promise<Row[][]> {
    const result = await this.#send(doing, statements.join(';\n'), []);
    const all: readonly unknown[] = statements.length > 1 && Array.isArray(result) ? (result as unknown[]) : [result];
    return all.map((each) => (Array.isArray(each) ? (each as Record<string, unknown>[]).map(exact) : []));
  }

  /** One statement that gives no rows: how many it touched, and of how many warnings the server tells. `file`: of LOAD DATA LOCAL. */
  async change(
    doing: string,
    text: string,
    values: readonly Parameter[] = [],
    file?: () => Readable,
  ): Promise<{ rows: number; warnings: number }> {
    const result = (await this.#send(doing, text, values, file)) as mysql.ResultSetHeader;
    return { rows: Number(result.affectedRows), warnings: Number(result.warningStatus) };
  }

  /** Runs `work` in a transaction; rolls back when it throws. */
  async transaction<T>(begin: string, work: () => Promise<T>): Promise<T> {
    await this.run('begin a transaction', [begin]);
    try {
      const result = await work();
      await this.run('commit', ['COMMIT']);
      return result;
    } catch (error) {
      if (!this.lost) await this.run('roll back', ['ROLLBACK']).catch(() => undefined);
      throw error;
    }
  }

  /** Calls `listener` when the connection has ended, for whatever reason. What is returned takes the listener away again. */
  onEnd(listener: () => void): () => void {
    this.#onEnd.add(listener);
    return () => this.#onEnd.delete(listener);
  }

  async end(): Promise<void> {
    if (this.lost) return;
    // The driver does not call back when the connection is lost meanwhile.
    await new Promise<void>((resolve) => {
      this.#onEnd.add(resolve);
      this.driver.end(() => resolve());
    });
    this.#over(new Error('Connection ended'));
  }

  /** Without goodbye: the server rolls back what was in flight. What waits for an answer is told. */
  destroy(): void {
    this.driver.destroy();
    (this.driver as unknown as { stream: Socket }).stream.destroy();
    this.#over(new Error('Connection ended'));
  }

  #over(error: Error): void {
    this.lost ??= error;
    for (const listener of this.#onEnd) listener();
    this.#onEnd.clear();
  }

  /** The error of a connection that is gone, whatever the driver called it. */
  failure(doing: string, error: unknown): SluiceError {
    if (!this.lost) return classify(error, doing);
    return new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause: error });
  }

  #send(doing: string, text: string, values: readonly Parameter[], file?: () => Readable): Promise<unknown> {
    if (this.lost) return Promise.reject(this.failure(doing, this.lost));
    return new Promise((resolve, reject) => {
      // The driver forgets its commands when the connection is destroyed.
      const ended = () => reject(this.failure(doing, this.lost));
      this.#onEnd.add(ended);
      const done = (error: mysql.QueryError | null, result: unknown) => {
        this.#onEnd.delete(ended);
        if (error?.fatal) this.#over(error);
        if (error) reject(this.failure(doing, error));
        else resolve(result);
      };
      const options = { sql: text, typeCast: asText, ...(file ? { infileStreamFactory: file } : {}) };
      if (values.length === 0) this.driver.query(options, done);
      else
        this.driver.execute(
          { sql: text, values: values.map(forDriver), typeCast: asText },
          done as Parameters<mysql.Connection['execute']>[2],
        );
    });
  }
}

/** Everything as the server's own text, or its bytes: the driver would make numbers, dates and objects of it. */
const asText: mysql.TypeCast = (field, next) => {
  switch (field.type) {
    case 'GEOMETRY':
    case 'BIT':
      return field.buffer();
    case 'JSON':
      return field.string('utf8');
    default:
      return next();
  }
};

function exact(row: Record<string, unknown>): Row {
  const copy: Record<string, SqlValue> = {};
  for (const [name, value] of Object.entries(row)) {
    if (typeof value === 'string' || Buffer.isBuffer(value)) copy[name] = value;
    else copy[name] = typeof value === 'number' ? String(value) : null;
  }
  return copy;
}

/** Numbers would be bound as doubles. */
function forDriver(value: Parameter): string | Buffer | null {
  if (typeof value === 'number') return String(value);
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value;
}

/** Sessions to one database. */
export class Connection {
  readonly installation: Installation;
  readonly address: MysqlAddress;
  /** Null: none is chosen. */
  readonly database: string | null;
  readonly #config: mysql.ConnectionOptions;
  readonly #pool: SessionPool<Session>;
  #kind: ServerKind | null = null;
  /** ssl-mode PREFERRED: what the server turned out to support. */
  #plainText: boolean;

  constructor(options: OpenOptions) {
    this.installation = options.installation;
    this.address = parseMysqlAddress(options.connectionString);
    this.database = options.serverWide === true ? null : (options.database ?? this.address.database);
    this.#plainText = this.address.sslMode === 'disabled';
    this.#config = { ...mysqlLogin(this.address, this.database, options.applicationName), ...TEXT_ONLY };
    this.#pool = new SessionPool(this.database ?? '(none)', options.maxSessions ?? 4);
  }

  /** Null: no session was opened yet. */
  get kind(): ServerKind | null {
    return this.#kind;
  }

  /** A session of the caller's own; end it with `release`. */
  open(): Promise<Session> {
    return this.#pool.open(() => this.#connect());
  }

  release(session: Session): Promise<void> {
    return this.#pool.release(session);
  }

  /** Runs `work` on a pooled session: for short queries. A session that failed is not used again. */
  use<T>(work: (session: Session) => Promise<T>): Promise<T> {
    return this.#pool.use(() => this.#connect(), work);
  }

  query(doing: string, text: string, values: readonly Parameter[] = []): Promise<Row[]> {
    return this.use((session) => session.query(doing, text, values));
  }

  async close(): Promise<void> {
    this.#pool.close();
  }

  async #connect(): Promise<Session> {
    const { host, port, socket } = this.address;
    const doing = `connect to database ${this.database ?? '(none)'} at ${socket ?? `${host}:${port}`}`;
    let session: Session;
    try {
      session = await this.#attempt();
    } catch (error) {
      const classified = classify(error, doing);
      // While connecting, silence and a closed socket mean that nobody is there who could serve.
      if (classified.code !== 'CONNECTION_LOST') throw classified;
      throw new SluiceError('SERVER_UNREACHABLE', classified.message, { cause: error });
    }
    try {
      this.#kind ??= await this.#learn(session);
      session.kind = this.#kind;
      await session.run('set up the session', [SESSION_SETTINGS]);
      return session;
    } catch (error) {
      session.destroy();
      throw error;
    }
  }

  async #attempt(): Promise<Session> {
    if (this.#plainText) return start(this.#config);
    const ssl = tlsOptions(this.address);
    try {
      return await start({ ...this.#config, ssl });
    } catch (error) {
      const isRefused = (error as { code?: unknown }).code === 'HANDSHAKE_NO_SSL_SUPPORT';
      if (this.address.sslMode !== 'preferred' || !isRefused) throw error;
      this.#plainText = true;
      return start(this.#config);
    }
  }

  async #learn(session: Session): Promise<ServerKind> {
    const [row] = await session.query(
      'ask for the version',
      'SELECT VERSION() AS version, @@GLOBAL.local_infile AS allowed, @@GLOBAL.lower_case_table_names AS folds',
    );
    const version = String(row?.['version'] ?? '');
    const isMariaDb = /mariadb/i.test(version);
    return {
      isMariaDb,
      version,
      allowsInfile: String(row?.['allowed']) === '1',
      // MySQL takes a BINLOG statement's rows from its text only.
      allowsEvents: isMariaDb,
      foldsNames: String(row?.['folds']) !== '0',
    };
  }
}

async function start(config: mysql.ConnectionOptions): Promise<Session> {
  // Loaded by whoever connects first: a service without MySQL does not spend its 16 MiB.
  const { createConnection } = await import('mysql2');
  const driver = createConnection(config);
  const session = new Session(driver);
  try {
    await new Promise<void>((resolve, reject) => driver.connect((error) => (error ? reject(error) : resolve())));
    return session;
  } catch (error) {
    driver.destroy();
    throw error;
  }
}
