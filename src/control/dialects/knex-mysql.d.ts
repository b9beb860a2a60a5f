/** knex types its public face only; this is the part of its MySQL client that mysql-client.ts replaces. */
declare module 'knex/lib/dialects/mysql2/index.js' {
  import type { Knex } from 'knex';

  export default class Mysql2Client extends Knex.Client {
    connectionSettings: object;
    /** The driver: mysql2. */
    _driver(): unknown;
    processResponse(query: object, runner: unknown): unknown;
  }
}
