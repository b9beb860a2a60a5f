/**
 * knex's client for MySQL and MariaDB, with those parts replaced that do not hold up in a service: it puts values into the text of
 * its statements, and it waits for a server's farewell that may never come.
 */
import type { Socket } from 'node:net';
import Mysql2Client from 'knex/lib/dialects/mysql2/index.js';

type Done = (error: (Error & { code?: string }) | null, result?: unknown) => void;

/** As much of mysql2 as is used here; only knex loads the driver. */
interface Driver {
  createConnection(settings: object): DriverConnection;
}

interface DriverConnection {
  connect(done: Done): void;
  query(sql: string, done: Done): void;
  execute(sql: string, values: readonly unknown[], done: Done): void;
  end(done: Done): void;
  destroy(): void;
  on(event: 'error', listener: (error: Error) => void): void;
  readonly stream: Socket;
  /** knex takes a connection with this mark out of the pool. */
  __knex__disposed?: unknown;
}

interface Query {
  readonly sql: string;
  readonly bindings?: readonly unknown[];
  readonly method?: string;
  response?: [result: unknown, fields: unknown];
}

/** `connectionSettings`: the driver's own, what it is told in order to encrypt, and the statements each session begins with. */
export interface MysqlSessionSettings {
  readonly login: object;
  /** Null: plain text. */
  readonly tls: object | null;
  /** A server that has no TLS is spoken to in plain text. */
  readonly preferTls: boolean;
  readonly sessionStart: readonly string[];
}

export class MysqlClient extends Mysql2Client {
  override async acquireRawConnection(): Promise<DriverConnection> {
    const { login, tls, preferTls, sessionStart } = this.connectionSettings as MysqlSessionSettings;
    const driver = this._driver() as Driver;
    const connection =
      tls === null
        ? await connected(driver, login)
        : await connected(driver, { ...login, ssl: tls }).catch((error: { code?: unknown }) => {
            if (!preferTls || error.code !== 'HANDSHAKE_NO_SSL_SUPPORT') throw error;
            return connected(driver, login);
          });
    try {
      for (const sql of sessionStart) await this._query(connection, { sql });
      return connection;
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  override async destroyRawConnection(connection: DriverConnection): Promise<void> {
    if (!connection.stream.destroyed) await new Promise<void>((resolve) => connection.end(() => resolve()));
    // The goodbye is on its way; a network that swallows it must not keep the process.
    connection.stream.destroySoon();
    connection.stream.unref();
  }

  /** Statements with values are prepared and the values bound (invariant 11); DDL is not prepared on every server. */
  _query(connection: DriverConnection, query: Query): Promise<Query> {
    const { sql, bindings = [] } = query;
    return new Promise((resolve, reject) => {
      const done: Done = (error, result) => {
        if (error) return reject(error);
        query.response = [result, undefined];
        resolve(query);
      };
      if (bindings.length === 0) connection.query(sql, done);
      else connection.execute(sql, bindings.map(bound), done);
    });
  }

  /** Rows of a raw statement, as the clients of other engines give them. */
  override processResponse(query: Query, runner: unknown): unknown {
    if (query.method === 'raw') return query.response?.[0];
    return super.processResponse(query, runner);
  }
}

async function connected(driver: Driver, settings: object): Promise<DriverConnection> {
  const connection = driver.createConnection(settings);
  connection.on('error', (error) => (connection.__knex__disposed = error));
  try {
    await new Promise<void>((resolve, reject) => connection.connect((error) => (error ? reject(error) : resolve())));
    return connection;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** The driver knows bytes by the class Buffer. */
function bound(value: unknown): unknown {
  if (value === undefined) return null;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return value;
}
