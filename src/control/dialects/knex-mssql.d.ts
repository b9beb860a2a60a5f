/** knex types its public face only; these are the parts of its SQL Server client that sqlserver-client.ts replaces. */
declare module 'knex/lib/dialects/mssql/index.js' {
  import type { Knex } from 'knex';

  export default class MssqlClient extends Knex.Client {
    connectionSettings: object;
    /** The driver: tedious. */
    _driver(): unknown;
  }
}

declare module 'knex/lib/dialects/mssql/query/mssql-querycompiler.js' {
  export default class MssqlQueryCompiler {
    constructor(client: unknown, builder: unknown, formatter?: unknown);
    _returning(method: string, value: unknown, withTrigger?: boolean): string;
    whereIn(statement: { column: unknown; value: unknown; not?: boolean }): string;
    _columnClause(statement: unknown): string;
    _not(statement: unknown, text: string): string;
    client: { parameter(value: unknown, builder: unknown, bindings: unknown): string };
    builder: unknown;
    bindingsHolder: unknown;
  }
}

declare module 'knex/lib/dialects/mssql/transaction.js' {
  export default class MssqlTransaction {
    constructor(client: unknown, container: unknown, config: unknown, outer: unknown);
    rollback(connection: unknown, error?: unknown): Promise<void>;
    _completed: boolean;
    doNotRejectOnRollback: boolean;
    _resolver(value?: unknown): void;
    _rejecter(error: unknown): void;
  }
}
