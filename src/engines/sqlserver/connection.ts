/** Sessions of one SQL Server database: a small pool for short queries, and sessions of their own for readers, loaders and appliers. */
import type { EventEmitter } from 'node:events';
import type * as Tedious from 'tedious';
import type { Connection as Driver, ConnectionConfiguration, Request } from 'tedious';
import { hasCode, SluiceError } from '../../model/errors.ts';
import { parseSqlServerAddress, type SqlServerAddress } from './address.ts';
import { placeOf, requireTls, sqlServerLogin } from './login.ts';
import type { Installation, OpenOptions } from '../contract.ts';
import { SessionPool, type PooledSession } from '../session-pool.ts';
import { classify } from './errors.ts';
import type { RowExtractor } from './tds/rows.ts';

/**
 * A value as the driver gives it. Only for bookkeeping of our own: rows of users' tables are selected as exact text or bytes
 * (types.ts), because the driver makes doubles of decimals and drops the zone of a datetimeoffset (invariant 6). 64-bit integers are text.
 */
export type SqlValue = string | number | boolean | Date | Uint8Array | null;
/** Names in lower case: a stand-in folds them, so every column is selected under a lower-case alias. */
export type Row = Readonly<Record<string, SqlValue>>;
export type Parameters = Readonly<Record<string, string | number | boolean | Uint8Array | null>>;

/** Where an answer becomes tokens. Private to the driver, so a test reads every type through it. */
interface DriverInternals {
  createTokenStreamParser(message: AsyncIterable<Buffer>, handler: unknown): { readonly parser: EventEmitter };
}

/** Packet type of a bulk load (MS-TDS 2.2.3.1.1). */
const BULK_LOAD_MESSAGE = 0x07;

type DriverColumn = { readonly value: unknown; readonly metadata: { readonly colName: string } };

/** One connection, in our hands only. One request at a time. */
export class Session implements PooledSession {
  readonly driver: Driver;
  readonly #tedious: typeof Tedious;
  /** What is kept for the session (temporary tables) goes by this object: another one after `reset`. */
  scope: object = {};
  /** Set once the connection is gone; whoever holds the session must open another. */
  lost: Error | null = null;
  /** Since it was opened or reset. */
  #isUsed = false;
  /** Attempts under way, one inside another. */
  #attempts = 0;
  /** Takes the rows of the next answer. */
  #extractor: RowExtractor | null = null;
  /** An answer that could not be read; the session has ended with it. */
  #unreadable: unknown = null;

  constructor(tedious: typeof Tedious, driver: Driver) {
    this.#tedious = tedious;
    this.driver = driver;
    driver.on('error', (error) => (this.lost ??= error));
    driver.on('end', () => (this.lost ??= new Error('Connection ended')));
    const internals = driver as unknown as DriverInternals;
    // eslint-disable-next-line @typescript-eslint/unbound-method -- called on it below
    const parserOf = internals.createTokenStreamParser;
    internals.createTokenStreamParser = (message, handler) => {
      const extractor = this.#extractor;
      this.#extractor = null;
      const answer = extractor === null ? message : this.#extracted(extractor, message);
      const made = parserOf.call(internals, answer, handler);
      // The driver does not listen, so that an answer it cannot read would end the process.
      made.parser.on('error', (error) => this.#end(error));
      return made;
    };
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

  /**
   * Within a transaction: what `work` did is undone when it throws, and the transaction goes on. Errors that end a statement
   * (constraints, NULL, truncation, overflow) leave the transaction alive under XACT_ABORT OFF; those that end the batch
   * (conversions, a lost object) do not, whatever is set: then INTERNAL says so, and nothing of the transaction is left. Nor is there after a
   * deadlock, which says so itself: the whole is to be tried again.
   */
  async attempt<T>(work: () => Promise<T>): Promise<T> {
    const depth = this.#attempts++;
    const savepoint = `attempt${depth}`;
    try {
      await this.run('set a savepoint', ['SET XACT_ABORT OFF', `SAVE TRANSACTION ${savepoint}`]);
      const result = await work();
      if (depth === 0) await this.run('go on without savepoint', ['SET XACT_ABORT ON']);
      return result;
    } catch (error) {
      if (this.lost) throw error;
      const [row] = await this.query(
        'go back to a savepoint',
        `DECLARE @state int = XACT_STATE();
         IF @state = 1 ROLLBACK TRANSACTION ${savepoint} ELSE IF @state = -1 ROLLBACK TRANSACTION;
         ${depth === 0 ? 'SET XACT_ABORT ON;' : ''} SELECT @state AS state`,
      );
      if (row?.['state'] === 1 || hasCode(error, 'DEADLOCK')) throw error;
      throw new SluiceError('INTERNAL', 'the server ended the whole transaction because of one statement', {
        cause: error,
      });
    } finally {
      this.#attempts = depth;
    }
  }

  /** Ends whatever transaction is open, also one that the server has rolled back already. */
  async rollback(): Promise<void> {
    if (!this.lost) await this.run('roll back', ['IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION']).catch(() => undefined);
  }

  /**
   * Sends a batch whose answer the caller takes as it comes: `attach` listens. Resolves when the server has answered everything.
   */
  stream(doing: string, text: string, attach: (request: Request) => void): Promise<void> {
    return this.#request(doing, text, {}, attach);
  }

  /**
   * Sends a batch whose rows never meet the driver's parser: `extractor` takes them out of the answer. Resolves when the server has
   * answered everything. Use `readRows` (rows.ts).
   */
  extract(doing: string, text: string, parameters: Parameters, extractor: RowExtractor): Promise<void> {
    return this.#request(doing, text, parameters, () => (this.#extractor = extractor));
  }

  /**
   * Sends `statement` (INSERT BULK) and then the rows it announces, as the message's bytes. Resolves to the number of rows the
   * server took. After an error the caller ends the session: a bulk load that was cut off leaves some servers unable to take another.
   */
  async bulkLoad(doing: string, statement: string, message: AsyncIterable<Buffer>): Promise<number> {
    await this.#request(doing, statement, {}, () => undefined);
    return new Promise((resolve, reject) => {
      const request = new this.#tedious.Request('', (error, rows) => {
        if (!error) resolve(rows ?? 0);
        else reject(this.#failure(doing, error));
      });
      // The driver's own BulkLoad writes decimals, money and times through doubles and Dates; below it, it has this.
      this.driver.makeRequest(request, BULK_LOAD_MESSAGE, message);
    });
  }

  onEnd(listener: () => void): void {
    this.driver.once('end', listener);
  }

  async end(): Promise<void> {
    if (this.lost) return;
    await new Promise<void>((resolve) => {
      this.driver.once('end', () => resolve());
      this.driver.close();
    });
  }

  /**
   * As a new session is: no transaction, temporary tables or settings of ours (sp_reset_connection, which goes with the next
   * request as a flag of TDS). What the server has learned for the session it keeps.
   */
  async reset(): Promise<void> {
    if (!this.#isUsed) return;
    this.scope = {};
    // Part of the reset on SQL Server; a stand-in leaves the transaction open.
    await this.rollback();
    await new Promise<void>((resolve, reject) =>
      this.driver.reset((error) => (error ? reject(this.#failure('reset a session', error)) : resolve())),
    );
    this.#isUsed = false;
  }

  /** Without goodbye: what was in flight is rolled back by the server. */
  destroy(): void {
    this.lost ??= new Error('Connection ended');
    this.driver.close();
  }

  #request(doing: string, text: string, parameters: Parameters, attach: (request: Request) => void): Promise<void> {
    if (this.lost) return Promise.reject(this.#lostWhile(doing, this.lost));
    this.#isUsed = true;
    return new Promise((resolve, reject) => {
      const request = new this.#tedious.Request(text, (error) => {
        if (!error) resolve();
        else reject(this.#failure(doing, error));
      });
      attach(request);
      const bound = Object.entries(parameters);
      for (const [name, value] of bound)
        request.addParameter(name, typeOf(value, this.#tedious.TYPES), forDriver(value));
      if (bound.length > 0) this.driver.execSql(request);
      else this.driver.execSqlBatch(request);
    });
  }

  /** An error here would look like the end of the answer to the driver, so that it is kept from it. */
  async *#extracted(extractor: RowExtractor, message: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
    try {
      yield* extractor.rest(message);
    } catch (error) {
      this.#end(error);
      await new Promise(() => undefined);
    }
  }

  #end(unreadable: unknown): void {
    this.#unreadable ??= unreadable;
    this.destroy();
  }

  #failure(doing: string, error: unknown): SluiceError {
    if (this.#unreadable !== null) return classify(this.#unreadable, doing);
    return this.lost ? this.#lostWhile(doing, error) : classify(error, doing);
  }

  #lostWhile(doing: string, cause: unknown): SluiceError {
    return new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause });
  }
}

function typeOf(value: string | number | boolean | Uint8Array | null, types: (typeof Tedious)['TYPES']) {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? types.BigInt : types.Float;
  if (typeof value === 'boolean') return types.Bit;
  return value instanceof Uint8Array ? types.VarBinary : types.NVarChar;
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
  readonly #pool: SessionPool<Session>;

  constructor(options: OpenOptions) {
    this.installation = options.installation;
    this.address = parseSqlServerAddress(options.connectionString);
    this.database = options.database ?? this.address.database;
    this.#config = driverConfiguration(this.address, this.database, options.applicationName);
    this.#pool = new SessionPool(this.database ?? '(default)', options.maxSessions ?? 8);
  }

  /** A session of the caller's own; end it with `release`. */
  open(): Promise<Session> {
    return this.#pool.open(() => this.#connect());
  }

  release(session: Session): Promise<void> {
    return this.#pool.release(session);
  }

  /** A pooled session, for work that ends in `giveBack` when all went well, else in `release`. */
  async take(): Promise<Session> {
    const session = await this.#pool.take(() => this.#connect());
    try {
      await session.reset();
      return session;
    } catch {
      // Kept for too long, perhaps.
      await this.release(session);
      return this.open();
    }
  }

  async giveBack(session: Session): Promise<void> {
    try {
      await session.reset();
    } catch {
      await this.#pool.release(session);
      return;
    }
    await this.#pool.giveBack(session);
  }

  /** Runs `work` on a pooled session: for short queries. A session that failed is not used again. */
  use<T>(work: (session: Session) => Promise<T>): Promise<T> {
    return this.#pool.use(() => this.#connect(), work);
  }

  query(doing: string, text: string, parameters: Parameters = {}): Promise<Row[]> {
    return this.use((session) => session.query(doing, text, parameters));
  }

  close(): Promise<void> {
    this.#pool.close();
    return Promise.resolve();
  }

  async #connect(): Promise<Session> {
    const doing = `connect to database ${this.database ?? '(default)'} at ${placeOf(this.address)}`;
    // With what it brings it takes 30 MiB and a third of a second, which a service without SQL Server does not have to spend.
    const tedious = await import('tedious');
    const driver = new tedious.Connection(this.#config);
    requireTls(driver, this.address.encrypt);
    const session = new Session(tedious, driver);
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
