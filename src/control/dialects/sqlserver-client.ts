/**
 * knex's client for SQL Server, with those parts replaced that do not hold up in a service: its queue of requests is shared by all
 * connections of the process, an update's count is the unnamed column of `SELECT @@ROWCOUNT` (which not every server leaves
 * unnamed), a failed rollback hides the error that led to it and puts the connection back into the pool, and lists are
 * limited to the 2,100 parameters of a statement.
 */
import MssqlClient from 'knex/lib/dialects/mssql/index.js';
import MssqlCompiler from 'knex/lib/dialects/mssql/query/mssql-querycompiler.js';
import MssqlTransaction from 'knex/lib/dialects/mssql/transaction.js';
import { requireTls } from '../../engines/sqlserver/login.ts';

/** Longer lists travel as one JSON text (OPENJSON: SQL Server 2016 and newer). */
const LONGEST_LIST = 500;

/** As much of tedious as is used here; only knex loads the driver. */
interface Driver {
  readonly Connection: new (settings: object) => DriverConnection;
  readonly Request: new (sql: string, done: (error: Error | null | undefined, rows?: number) => void) => DriverRequest;
  readonly TYPES: Readonly<
    Record<'NVarChar' | 'Bit' | 'Int' | 'BigInt' | 'Float' | 'DateTime2' | 'VarBinary', unknown>
  >;
}

interface DriverRequest {
  on(event: 'row', listener: (columns: readonly DriverColumn[]) => void): void;
  addParameter(name: string, type: unknown, value: unknown): void;
}

interface DriverColumn {
  readonly value: unknown;
  readonly metadata: { readonly colName: string };
}

export interface DriverConnection {
  connect(done: (error?: Error) => void): void;
  close(): void;
  execSql(request: DriverRequest): void;
  execSqlBatch(request: DriverRequest): void;
  rollbackTransaction(done: (error?: Error | null) => void): void;
  on(event: 'error' | 'errorMessage', listener: (error: Error & { number?: number }) => void): void;
  once(event: 'end', listener: () => void): void;
  removeAllListeners(event: 'errorMessage'): void;
  readonly inTransaction: boolean;
  readonly closed: boolean;
  readonly state: { readonly name: string };
  /** knex takes a connection with this mark out of the pool. */
  __knex__disposed?: unknown;
}

interface Query {
  readonly sql: string;
  readonly bindings?: readonly unknown[];
  readonly method?: string;
  readonly pluck?: string;
  readonly returning?: unknown;
  /** What a look at the schema (`hasColumn`) makes of its rows. */
  readonly output?: (this: unknown, rows: readonly Record<string, unknown>[]) => unknown;
  response?: { rows: Record<string, unknown>[]; count: number };
}

/** `connectionSettings` are tedious's own, and besides them the statements each new session begins with. */
export interface SessionSettings {
  readonly options: { readonly encrypt: boolean | 'strict' } & Readonly<Record<string, unknown>>;
  readonly sessionStart: string;
}

export class SqlServerClient extends MssqlClient {
  override async acquireRawConnection(): Promise<DriverConnection> {
    const { sessionStart, ...settings } = this.connectionSettings as SessionSettings;
    const driver = this._driver() as Driver;
    const connection = new driver.Connection(settings);
    requireTls(connection, settings.options.encrypt);
    // A refused login is told by several messages of which the driver keeps the last; the first says why (4060, then 18456).
    let refusal: Error | null = null;
    connection.on('errorMessage', (error) => {
      refusal ??= Object.assign(new Error(error.message), { number: error.number, code: 'ELOGIN' });
    });
    try {
      await new Promise<void>((resolve, reject) => connection.connect((error) => (error ? reject(error) : resolve())));
    } catch (error) {
      connection.close();
      throw refusal ?? error;
    }
    connection.removeAllListeners('errorMessage');
    connection.on('error', (error) => (connection.__knex__disposed = error));
    connection.once('end', () => (connection.__knex__disposed ??= 'the connection ended'));
    await new Promise<void>((resolve, reject) => {
      connection.execSqlBatch(new driver.Request(sessionStart, (error) => (error ? reject(error) : resolve())));
    });
    return connection;
  }

  override async validateConnection(connection: DriverConnection): Promise<boolean> {
    return !connection.closed && connection.__knex__disposed === undefined;
  }

  override async destroyRawConnection(connection: DriverConnection): Promise<void> {
    if (connection.closed) return;
    await new Promise<void>((resolve) => {
      connection.once('end', () => resolve());
      connection.close();
    });
  }

  override transaction(container: unknown, config: unknown, outer: unknown): never {
    return new Transaction(this, container, config, outer) as never;
  }

  override queryCompiler(builder: unknown, formatter?: unknown): Compiler {
    return new Compiler(this, builder, formatter);
  }

  _query(connection: DriverConnection, query: Query): Promise<Query> {
    const driver = this._driver() as Driver;
    return new Promise((resolve, reject) => {
      const rows: Record<string, unknown>[] = [];
      const request = new driver.Request(query.sql, (error, count = 0) => {
        if (error) return reject(error);
        query.response = { rows, count };
        resolve(query);
      });
      request.on('row', (columns) => rows.push(rowOf(columns)));
      query.bindings?.forEach((value, index) => {
        const [type, bound] = bindingOf(driver, value);
        request.addParameter(`p${index}`, type, bound);
      });
      connection.execSql(request);
    });
  }

  processResponse(query: Query, runner: unknown): unknown {
    const { rows = [], count = 0 } = query.response ?? {};
    if (query.output) return query.output.call(runner, rows);
    if (query.method === 'first') return rows[0];
    if (query.method === 'pluck') return rows.map((row) => row[query.pluck ?? '']);
    const counted = query.method === 'update' || query.method === 'del';
    // What knex says it returns of an update without `returning`.
    return counted && query.returning === '@@rowcount' ? count : rows;
  }
}

/** Flags as the numbers that they are on every other engine. Names come in lower case. */
function rowOf(columns: readonly DriverColumn[]): Record<string, unknown> {
  const row: Record<string, unknown> = {};
  for (const { metadata, value } of columns)
    row[metadata.colName.toLowerCase()] = typeof value === 'boolean' ? Number(value) : value;
  return row;
}

function bindingOf({ TYPES }: Driver, value: unknown): [type: unknown, value: unknown] {
  if (typeof value === 'boolean') return [TYPES.Bit, value];
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) return [TYPES.Float, value];
    return [Math.abs(value) < 2 ** 31 ? TYPES.Int : TYPES.BigInt, value];
  }
  if (value instanceof Date) return [TYPES.DateTime2, value];
  if (value instanceof Uint8Array)
    return [TYPES.VarBinary, Buffer.from(value.buffer, value.byteOffset, value.byteLength)];
  return [TYPES.NVarChar, value ?? null];
}

class Compiler extends MssqlCompiler {
  /** Counts are taken from the protocol (the server's own count of rows), never from a statement that follows. */
  override _returning(method: string, value: unknown, withTrigger?: boolean): string {
    return method === 'rowcount' ? '' : super._returning(method, value, withTrigger);
  }

  override whereIn(statement: { column: unknown; value: unknown; not?: boolean }): string {
    const { value } = statement;
    if (!Array.isArray(value) || value.length <= LONGEST_LIST || Array.isArray(statement.column))
      return super.whereIn(statement);
    const list = this.client.parameter(JSON.stringify(value), this.builder, this.bindingsHolder);
    // WITH: the default schema's column is of a binary collation, which meets no other.
    return `${this._columnClause(statement)} ${this._not(statement, 'in ')}(select [value] from openjson(${list}) with ([value] nvarchar(4000) '$'))`;
  }
}

class Transaction extends MssqlTransaction {
  override rollback(connection: DriverConnection, error?: unknown): Promise<void> {
    this._completed = true;
    const end = () => {
      if (error === undefined && this.doNotRejectOnRollback) this._resolver();
      else this._rejecter(error ?? new Error('the transaction was rolled back'));
    };
    // XACT_ABORT has rolled back already, or the connection is gone.
    if (!connection.inTransaction) return Promise.resolve(end());
    if (connection.state.name !== 'LoggedIn') {
      discard(connection);
      return Promise.resolve(end());
    }
    return new Promise((resolve) => {
      connection.rollbackTransaction((failed) => {
        // 3903: there is none any more.
        if (failed && (failed as { number?: number }).number !== 3903) discard(connection);
        resolve(end());
      });
    });
  }
}

/** The server rolls back what is open on a connection that ends. */
function discard(connection: DriverConnection): void {
  connection.__knex__disposed = 'the transaction could not be rolled back';
  connection.close();
}
