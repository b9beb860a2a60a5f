/** Sessions of one SQL Server database: a small pool for short queries, and sessions of their own for readers, loaders and appliers. */
import { Connection as Driver, Request, TYPES, type ConnectionConfiguration } from 'tedious';
import { SluiceError } from '../../model/errors.ts';
import { parseSqlServerAddress, type SqlServerAddress } from '../../model/sqlserver-address.ts';
import { placeOf, sqlServerLogin } from '../../model/sqlserver-login.ts';
import type { Installation, OpenOptions } from '../contract.ts';
import { classify } from './errors.ts';

/**
 * A value as the driver gives it. Only for bookkeeping of our own: rows of users' tables are selected as exact text or bytes
 * (types.ts), because the driver makes doubles of decimals and drops the zone of a datetimeoffset (invariant 6). 64-bit integers are text.
 */
export type SqlValue = string | number | boolean | Date | Uint8Array | null;
/** Names in lower case: a stand-in folds them, so every column is selected under a lower-case alias. */
export type Row = Readonly<Record<string, SqlValue>>;
export type Parameters = Readonly<Record<string, string | number | boolean | Uint8Array | null>>;

type DriverColumn = { readonly value: unknown; readonly metadata: { readonly colName: string } };

/** One connection, in our hands only. One request at a time. */
export class Session {
  readonly driver: Driver;
  /** Set once the connection is gone; whoever holds the session must open another. */
  lost: Error | null = null;

  constructor(driver: Driver) {
    this.driver = driver;
    driver.on('error', (error) => (this.lost ??= error));
    driver.on('end', () => (this.lost ??= new Error('Connection ended')));
  }

  /** `doing` completes "could not …" in an error. Parameters are bound by name (`@name`); text as nvarchar(max). The rows of every result set. */
  async query(doing: string, text: string, parameters: Parameters = {}): Promise<Row[]> {
    const rows: Row[] = [];
    await this.#request(doing, text, parameters, (request) =>
      request.on('row', (columns: readonly DriverColumn[]) => {
        const row: Record<string, SqlValue> = {};
        for (const column of columns) row[column.metadata.colName.toLowerCase()] = (column.value ?? null) as SqlValue;
        rows.push(row);
      }),
    );
    return rows;
  }

  /**
   * Statements in one round trip, one batch: the rows that each counting statement touched, in order. XACT_ABORT is on: the
   * first error ends the batch and rolls an open transaction back.
   */
  async run(doing: string, statements: readonly string[], parameters: Parameters = {}): Promise<number[]> {
    const counts: number[] = [];
    const count = (rows: number | undefined) => {
      if (rows !== undefined) counts.push(rows);
    };
    await this.#request(doing, statements.join(';\n'), parameters, (request) => {
      request.on('done', count);
      request.on('doneInProc', count);
    });
    return counts;
  }

  /** Runs `work` in a transaction; rolls back when it throws. `begin`: statements that go before, in the same round trip. */
  async transaction<T>(work: () => Promise<T>, before: readonly string[] = []): Promise<T> {
    await this.run('begin a transaction', [...before, 'BEGIN TRANSACTION']);
    try {
      const result = await work();
      await this.run('commit', ['COMMIT TRANSACTION']);
      return result;
    } catch (error) {
      await this.rollback();
      throw error;
    }
  }

  /** Ends whatever transaction is open, also one that the server has rolled back already. */
  async rollback(): Promise<void> {
    if (!this.lost) await this.run('roll back', ['IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION']).catch(() => undefined);
  }

  /**
   * Sends a batch whose rows the caller takes as they come: `attach` listens, `pause` and `resume` of the request push back.
   * Resolves when the server has answered everything.
   */
  stream(doing: string, text: string, attach: (request: Request) => void): Promise<void> {
    return this.#request(doing, text, {}, attach);
  }

  async end(): Promise<void> {
    if (this.lost) return;
    await new Promise<void>((resolve) => {
      this.driver.once('end', () => resolve());
      this.driver.close();
    });
  }

  /** Without goodbye: what was in flight is rolled back by the server. */
  destroy(): void {
    this.lost ??= new Error('Connection ended');
    this.driver.close();
  }

  #request(doing: string, text: string, parameters: Parameters, attach: (request: Request) => void): Promise<void> {
    if (this.lost) return Promise.reject(this.#lostWhile(doing, this.lost));
    return new Promise((resolve, reject) => {
      const request = new Request(text, (error) => {
        if (!error) resolve();
        else reject(this.lost ? this.#lostWhile(doing, error) : classify(error, doing));
      });
      attach(request);
      const bound = Object.entries(parameters);
      for (const [name, value] of bound) request.addParameter(name, typeOf(value), forDriver(value));
      if (bound.length > 0) this.driver.execSql(request);
      else this.driver.execSqlBatch(request);
    });
  }

  #lostWhile(doing: string, cause: unknown): SluiceError {
    return new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause });
  }
}

function typeOf(value: string | number | boolean | Uint8Array | null) {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? TYPES.BigInt : TYPES.Float;
  if (typeof value === 'boolean') return TYPES.Bit;
  return value instanceof Uint8Array ? TYPES.VarBinary : TYPES.NVarChar;
}

/** The driver takes Buffers only. */
function forDriver(value: string | number | boolean | Uint8Array | null): unknown {
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value;
}

/** Sessions to one database. */
export class Connection {
  readonly installation: Installation;
  readonly address: SqlServerAddress;
  /** Null: the login's default database. */
  readonly database: string | null;
  readonly #config: ConnectionConfiguration;
  readonly #sessions = new Set<Session>();
  readonly #idle: Session[] = [];
  readonly #maxIdle: number;
  #closed = false;

  constructor(options: OpenOptions) {
    this.installation = options.installation;
    this.address = parseSqlServerAddress(options.connectionString);
    this.database = options.database ?? this.address.database;
    this.#config = driverConfiguration(this.address, this.database, options.applicationName);
    this.#maxIdle = options.maxSessions ?? 4;
  }

  /** A session of the caller's own; end it with `release`. */
  async open(): Promise<Session> {
    if (this.#closed)
      throw new SluiceError('CONNECTION_LOST', `database ${this.database ?? '(default)'}: already closed`);
    const session = await this.#connect();
    this.#sessions.add(session);
    session.driver.once('end', () => this.#sessions.delete(session));
    if (this.#closed) {
      session.destroy();
      throw new SluiceError('CONNECTION_LOST', `database ${this.database ?? '(default)'}: already closed`);
    }
    return session;
  }

  async release(session: Session): Promise<void> {
    this.#sessions.delete(session);
    await session.end();
  }

  /** Runs `work` on a pooled session: for short queries. A session that failed is not used again. */
  async use<T>(work: (session: Session) => Promise<T>): Promise<T> {
    let session = this.#idle.pop();
    while (session?.lost) session = this.#idle.pop();
    session ??= await this.open();
    try {
      const result = await work(session);
      if (this.#closed || session.lost || this.#idle.length >= this.#maxIdle) await this.release(session);
      else this.#idle.push(session);
      return result;
    } catch (error) {
      await this.release(session);
      throw error;
    }
  }

  query(doing: string, text: string, parameters: Parameters = {}): Promise<Row[]> {
    return this.use((session) => session.query(doing, text, parameters));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#idle.length = 0;
    for (const session of [...this.#sessions]) session.destroy();
    this.#sessions.clear();
  }

  async #connect(): Promise<Session> {
    const doing = `connect to database ${this.database ?? '(default)'} at ${placeOf(this.address)}`;
    const driver = new Driver(this.#config);
    const session = new Session(driver);
    // A refused login is told by several messages of which the driver keeps the last; an earlier one says why (4060, then 18456).
    const refusals: { readonly number: number; readonly message: string; readonly code: string }[] = [];
    driver.on('errorMessage', ({ number, message }: { number: number; message: string }) => {
      refusals.push({ number, message, code: 'ELOGIN' });
    });
    try {
      await new Promise<void>((resolve, reject) => driver.connect((error) => (error ? reject(error) : resolve())));
      driver.removeAllListeners('errorMessage');
      return session;
    } catch (error) {
      driver.close();
      const classified = classify(refusals[0] ?? error, doing);
      // While connecting, silence means that nobody is there.
      throw classified.code === 'TIMEOUT' || classified.code === 'CONNECTION_LOST'
        ? new SluiceError('SERVER_UNREACHABLE', classified.message, {
            hint: classified.hint ?? undefined,
            cause: error,
          })
        : classified;
    }
  }
}

/** Throws MAPPING_INVALID when the CA file cannot be read. */
function driverConfiguration(
  address: SqlServerAddress,
  database: string | null,
  applicationName: string,
): ConnectionConfiguration {
  const login = sqlServerLogin(address, database);
  return {
    ...login,
    options: {
      ...login.options,
      appName: applicationName,
      // A copy's read or a fold may take its time; what must not wait says so with SET LOCK_TIMEOUT.
      requestTimeout: 0,
      cancelTimeout: 5_000,
      // The largest the protocol has: fewer packets to parse (with TLS the server allows 16 KiB).
      packetSize: 32_767,
    },
  };
}
