/** Sessions of one PostgreSQL database: a small pool for short queries, and sessions of their own for readers, loaders and appliers. */
import pg from 'pg';
import { parse } from 'pg-connection-string';
import { SluiceError } from '../../model/errors.ts';
import type { Installation, OpenOptions } from '../contract.ts';
import { SessionPool, type PooledSession } from '../session-pool.ts';
import { classify } from './errors.ts';

/** Every value arrives as the server's own text: the driver's parsers lose digits and microseconds (invariant 6). */
const TEXT_ONLY = { getTypeParser: () => (value: string) => value } as unknown as pg.CustomTypesConfig;

/**
 * What a session must agree on so that text means the same everywhere: dates in ISO, floats shortest-exact, bytes in hex,
 * UTC, money with two digits; no search path, so that every name is a full one. Sent as statements, not as start-up options, which poolers refuse.
 */
const SESSION_SETTINGS = `
  SET client_encoding = 'UTF8'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET timezone = 'UTC';
  SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmloption = 'content'; SET lc_monetary = 'C';
  SET search_path = '';
  SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
  SET standard_conforming_strings = on`;

export type Row = Readonly<Record<string, string | null>>;

/** One connection, in our hands only. */
export class Session implements PooledSession {
  readonly client: pg.Client;
  /** Set once the connection is gone; whoever holds the session must open another. */
  lost: Error | null = null;

  constructor(client: pg.Client) {
    this.client = client;
    client.on('error', (error) => (this.lost ??= error));
    client.on('end', () => (this.lost ??= new Error('Connection ended')));
  }

  /** The server process's id, as pg_terminate_backend takes it. */
  get pid(): number {
    return (this.client as unknown as { processID: number }).processID;
  }

  /** `doing` completes "could not …" in an error. Rows have every value as text. */
  async query(doing: string, text: string, values: readonly unknown[] = []): Promise<Row[]> {
    if (this.lost)
      throw new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause: this.lost });
    try {
      // Without values the simple protocol is used, which allows several statements at once.
      const result =
        values.length > 0 ? await this.client.query<Row>(text, [...values]) : await this.client.query<Row>(text);
      return Array.isArray(result) ? ((result as pg.QueryResult<Row>[]).at(-1)?.rows ?? []) : result.rows;
    } catch (error) {
      throw this.lost
        ? new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause: error })
        : classify(error, doing);
    }
  }

  /** Several statements in one round trip (simple protocol): the rows each of them touched, in order. */
  async run(doing: string, statements: readonly string[]): Promise<number[]> {
    if (this.lost)
      throw new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause: this.lost });
    try {
      const result: unknown = await this.client.query(statements.join(';\n'));
      return (Array.isArray(result) ? (result as pg.QueryResult[]) : [result as pg.QueryResult]).map(
        (each) => each.rowCount ?? 0,
      );
    } catch (error) {
      throw this.lost
        ? new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause: error })
        : classify(error, doing);
    }
  }

  /** Runs `work` in a transaction; rolls back when it throws. */
  async transaction<T>(begin: string, work: () => Promise<T>): Promise<T> {
    await this.query('begin a transaction', begin);
    try {
      const result = await work();
      await this.query('commit', 'COMMIT');
      return result;
    } catch (error) {
      if (!this.lost) await this.query('roll back', 'ROLLBACK').catch(() => undefined);
      throw error;
    }
  }

  /** Within a transaction: what `work` did is undone when it throws, and the transaction goes on. */
  async attempt<T>(work: () => Promise<T>): Promise<T> {
    await this.run('set a savepoint', ['SAVEPOINT attempt']);
    try {
      const result = await work();
      await this.run('release a savepoint', ['RELEASE SAVEPOINT attempt']);
      return result;
    } catch (error) {
      if (!this.lost)
        await this.run('go back to a savepoint', ['ROLLBACK TO SAVEPOINT attempt', 'RELEASE SAVEPOINT attempt']);
      throw error;
    }
  }

  onEnd(listener: () => void): void {
    this.client.once('end', listener);
  }

  async end(): Promise<void> {
    await this.client.end().catch(() => undefined);
  }

  /** Without goodbye: what was in flight is rolled back by the server. For a session in the middle of a COPY. */
  destroy(): void {
    this.lost ??= new Error('Connection ended');
    (this.client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
  }
}

/** Sessions to one database. */
export class Connection {
  readonly installation: Installation;
  readonly database: string;
  /** As whom; null: the driver's choice. */
  readonly user: string | null;
  /** What the connection string says beyond libpq's parameters. */
  readonly options: PostgresOptions;
  readonly #config: pg.ClientConfig;
  readonly #pool: SessionPool<Session>;
  /** As `server_version_num`, of the session opened last; null before the first. */
  serverVersion: number | null = null;
  /** sslmode=prefer and absent: what the server turned out to support. */
  #plainText = false;

  constructor(options: OpenOptions) {
    this.installation = options.installation;
    const { config, preferTls, options: own } = clientConfig(options.connectionString);
    this.options = own;
    this.#config = {
      ...config,
      application_name: options.applicationName,
      keepAlive: true,
      keepAliveInitialDelayMillis: 30_000,
      connectionTimeoutMillis: 15_000,
      types: TEXT_ONLY,
    };
    if (options.database !== null) this.#config.database = options.database;
    this.user = config.user ?? null;
    this.#plainText = !preferTls;
    this.database = this.#config.database ?? this.#config.user ?? 'postgres';
    this.#pool = new SessionPool(this.database, options.maxSessions ?? 8);
  }

  /** A session of the caller's own; end it with `release`. `replication`: speaks the replication protocol. */
  open(options: { replication?: boolean } = {}): Promise<Session> {
    return this.#pool.open(() => this.#connect(options.replication ?? false));
  }

  release(session: Session): Promise<void> {
    return this.#pool.release(session);
  }

  /** A pooled session, for work that ends in `giveBack` when all went well, else in `release`. */
  take(): Promise<Session> {
    return this.#pool.take(() => this.#connect(false));
  }

  giveBack(session: Session): Promise<void> {
    return this.#pool.giveBack(session);
  }

  /** Runs `work` on a pooled session: for short queries. A session that failed is not used again. */
  use<T>(work: (session: Session) => Promise<T>): Promise<T> {
    return this.#pool.use(() => this.#connect(false), work);
  }

  query(doing: string, text: string, values: readonly unknown[] = []): Promise<Row[]> {
    return this.use((session) => session.query(doing, text, values));
  }

  close(): Promise<void> {
    this.#pool.close();
    return Promise.resolve();
  }

  async #connect(replication: boolean): Promise<Session> {
    const doing = `connect to database ${this.database} at ${this.#config.host ?? 'localhost'}:${this.#config.port ?? 5432}`;
    const attempt = async (config: pg.ClientConfig) => {
      const client = new pg.Client(replication ? ({ ...config, replication: 'database' } as pg.ClientConfig) : config);
      const session = new Session(client);
      try {
        await client.connect();
      } catch (error) {
        await client.end().catch(() => undefined);
        throw error;
      }
      return session;
    };
    try {
      let session: Session;
      if (this.#plainText) {
        session = await attempt(this.#config);
      } else {
        try {
          session = await attempt({ ...this.#config, ssl: { rejectUnauthorized: false } });
        } catch (error) {
          if (!(error instanceof Error) || !/does not support SSL/i.test(error.message)) throw error;
          this.#plainText = true;
          session = await attempt(this.#config);
        }
      }
      const [set] = await session.query(
        'set up the session',
        `${SESSION_SETTINGS}; SELECT current_setting('server_version_num') AS version`,
      );
      if (set?.['version']) this.serverVersion = Number(set['version']);
      return session;
    } catch (error) {
      throw classify(error, doing);
    }
  }
}

const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'];

/** Parses and checks a connection string. `preferTls`: no sslmode was asked for, so TLS is tried first, as libpq does. */
export function clientConfig(connectionString: string): {
  config: pg.ClientConfig;
  preferTls: boolean;
  options: PostgresOptions;
} {
  let url: URL;
  try {
    url = new URL(connectionString);
  } catch {
    throw new SluiceError('MAPPING_INVALID', 'the connection string is not a URL', {
      hint: 'Write postgres://user:password@host:5432/database; percent-encode special characters of the password.',
    });
  }
  const mode = url.searchParams.get('sslmode');
  if (mode !== null && !SSL_MODES.includes(mode)) {
    throw new SluiceError('MAPPING_INVALID', `sslmode=${mode} is not known`, {
      hint: `Use one of ${SSL_MODES.join(', ')}.`,
    });
  }
  const options: PostgresOptions = {
    publication: url.searchParams.get('publication'),
    slot: url.searchParams.get('slot'),
  };
  for (const own of ['publication', 'slot']) url.searchParams.delete(own);
  const preferTls = mode === null || mode === 'prefer' || mode === 'allow';
  if (preferTls) url.searchParams.delete('sslmode');
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(url.toString(), { useLibpqCompat: true });
  } catch (cause) {
    throw new SluiceError(
      'MAPPING_INVALID',
      `the connection string cannot be used: ${cause instanceof Error ? cause.message : 'unknown'}`,
      {
        hint: 'Check sslrootcert, sslcert and sslkey: each names a file this process can read.',
        cause,
      },
    );
  }
  const config: pg.ClientConfig = {};
  if (parsed.host) config.host = parsed.host;
  if (parsed.port) config.port = Number(parsed.port);
  if (parsed.user) config.user = parsed.user;
  if (parsed.password) config.password = parsed.password;
  if (parsed.database) config.database = parsed.database;
  if (!preferTls && parsed.ssl !== undefined) config.ssl = parsed.ssl as NonNullable<pg.ClientConfig['ssl']>;
  return { config, preferTls, options };
}

/** What a connection string may say beyond libpq's: an existing publication or slot to use instead of managed ones. */
export interface PostgresOptions {
  readonly publication: string | null;
  readonly slot: string | null;
}
