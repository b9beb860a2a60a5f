/** The bench's table: a bigint key and mixed types, about 200 bytes a row, made by the servers from the key alone. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { connect, startMariaDb, type PrivateServer, type Settings } from '../../test/support/mysql-servers.ts';

export const MARIADB_TABLE = `(id bigint NOT NULL PRIMARY KEY, customer varchar(40) NOT NULL, amount decimal(14,2) NOT NULL,
  ordered_at datetime(6) NOT NULL, details varchar(200) NOT NULL, note varchar(80)) DEFAULT CHARACTER SET utf8mb4`;

export const POSTGRES_COLUMNS = `id bigint NOT NULL, customer varchar(40) NOT NULL, amount numeric(14,2) NOT NULL,
  ordered_at timestamp NOT NULL, details varchar(200) NOT NULL, note varchar(80)`;

/** The row of the number `seq`. */
export const MARIADB_VALUES = `seq, CONCAT('customer ', (seq * 7919) % 100003), (seq * 31 % 100000000) / 100,
    '2024-01-01' + INTERVAL seq SECOND + INTERVAL seq % 1000000 MICROSECOND,
    CONCAT('{"sku": ', (seq * 17) % 5000, ', "qty": ', seq % 9, ', "tags": ["a", "b"]}'), IF(seq % 5 > 0, REPEAT(MD5(seq), 2), NULL)`;

/** Rows of the numbers from `first` to `last`, by MariaDB's sequence engine. */
export function fillMariaDb(table: string, first: number, last: number): string {
  return `INSERT INTO ${table} SELECT ${MARIADB_VALUES} FROM seq_${first}_to_${last}`;
}

export function fillPostgres(table: string, rows: number): string {
  return `INSERT INTO ${table} SELECT g, 'customer ' || (g * 7919) % 100003, (g * 31 % 100000000)::numeric / 100,
    timestamp '2024-01-01' + g * interval '1.000001 s', '{"sku": ' || (g * 17) % 5000 || ', "qty": ' || g % 9 || ', "tags": ["a", "b"]}',
    CASE WHEN g % 5 > 0 THEN repeat(md5(g::text), 2) END FROM generate_series(1::bigint, ${rows}) g`;
}

/** As a tuned, durable server would have it. */
const DURABLE: Settings = {
  'sync-binlog': '1',
  'innodb-flush-log-at-trx-commit': '1',
  'innodb-buffer-pool-size': '512M',
  'innodb-log-file-size': '512M',
};

export interface BenchServer {
  readonly private: PrivateServer;
  readonly host: string;
  readonly port: string;
  /** Of its database `bench`. */
  readonly url: string;
  /** Of the server's process. */
  readonly pid: number;
  query(sql: string): Promise<Readonly<Record<string, unknown>>[]>;
  stop(): Promise<void>;
}

export async function startServer(settings: Settings = {}): Promise<BenchServer> {
  const server = await startMariaDb({ ...DURABLE, ...settings });
  const admin = connect(server.server.url, null);
  await admin.query('make the database', 'CREATE DATABASE bench');
  await admin.close();
  const connection = connect(server.server.url, 'bench');
  const url = new URL(server.server.url);
  url.pathname = '/bench';
  return {
    private: server,
    host: url.hostname,
    port: url.port,
    url: url.toString(),
    pid: Number(readFileSync(path.join(server.directory, 'pid'), 'utf8')),
    query: (sql) => connection.query('run a statement of the bench', sql),
    stop: async () => {
      await connection.close();
      await server.stop();
    },
  };
}
