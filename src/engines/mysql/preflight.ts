/** What is missing for a role, each with the statements that fix it. */
import { hasCode } from '../../model/errors.ts';
import type { Finding } from '../../model/findings.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import type { Preflight } from '../contract.ts';
import { describeTables } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { loginOf, logSettings } from './binlog/log-settings.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { writeSettings } from './write-settings.ts';

/** Each right that reading the log needs, and what it may be called (GRANT statements print it so). */
function rightsOf(session: Session): readonly { readonly names: RegExp; readonly grant: string }[] {
  return [
    { names: /\b(REPLICATION SLAVE|REPLICATION REPLICA|ALL PRIVILEGES)\b/, grant: 'REPLICATION SLAVE' },
    {
      names: /\b(BINLOG MONITOR|REPLICATION CLIENT|SUPER|ALL PRIVILEGES)\b/,
      grant: session.kind.isMariaDb ? 'BINLOG MONITOR' : 'REPLICATION CLIENT',
    },
  ];
}

/** MySQL 9.6 and newer leave foreign keys to the server, which logs what they change, unless they are told to leave them to InnoDB. */
async function logsCascades(session: Session): Promise<boolean> {
  const [row] = await session.query('ask who cascades', "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'");
  return row?.['Value'] === 'OFF';
}

export class MysqlPreflight implements Preflight {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  source(tables: readonly TableName[], options: { cdc: boolean }): Promise<Finding[]> {
    return this.#connection.use(async (session) => {
      const findings: Finding[] = [];
      if (options.cdc) findings.push(...(await logSettings(session)), ...(await this.#rights(session)));
      const described = await describeTables(session, tables, this.#connection.database);
      for (const [i, name] of tables.entries()) {
        const table = described[i];
        if (!table)
          findings.push({
            code: 'SOURCE_TABLE_MISSING',
            severity: 'error',
            message: `${displayName(name)} does not exist, or this login may not see it`,
            fixSql: [
              `GRANT SELECT ON ${quoteTable({ ...name, schema: name.schema || (this.#connection.database ?? '') })} TO CURRENT_USER;`,
            ],
          });
        else if (options.cdc) findings.push(...(await this.#cascades(session, name)));
      }
      return findings;
    });
  }

  destination(): Promise<Finding[]> {
    return this.#connection.use(async (session) => [
      ...(await writeSettings(session)),
      ...(await this.#writeRights(session)),
    ]);
  }

  /** A database's own rights may be granted by a pattern (`shop%`), so that only trying says what this login may do. */
  async #writeRights(session: Session): Promise<Finding[]> {
    const name = quoteIdentifier(`sluice_try_${session.id}`);
    try {
      await session.run('make a table', [
        `CREATE TABLE ${name} (n int) ENGINE = InnoDB`,
        `ALTER TABLE ${name} ADD KEY n (n)`,
        `CREATE TEMPORARY TABLE ${quoteIdentifier(`sluice_temporary_${session.id}`)} (n int)`,
        `DROP TABLE ${name}`,
      ]);
      return [];
    } catch (error) {
      if (!hasCode(error, 'PERMISSION_DENIED')) throw error;
      await session.run('drop the table', [`DROP TABLE IF EXISTS ${name}`]).catch(() => undefined);
      const [who] = await session.query('ask who we are', 'SELECT CURRENT_USER() AS login, DATABASE() AS place');
      const login = String(who?.['login']).replace(/^(.*)@(.*)$/, "'$1'@'$2'");
      return [
        {
          code: 'PERMISSION_DENIED',
          severity: 'error',
          message: `the login may not make tables in database ${String(who?.['place'])}`,
          fixSql: [
            `GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, CREATE TEMPORARY TABLES ON ${quoteIdentifier(String(who?.['place']))}.* TO ${login};`,
          ],
        },
      ];
    }
  }

  async #rights(session: Session): Promise<Finding[]> {
    const rows = await session.query('read the login’s rights', 'SHOW GRANTS FOR CURRENT_USER');
    const grants = rows.flatMap((row) => Object.values(row).map(String)).filter((grant) => / ON \*\.\* /.test(grant));
    const login = await loginOf(session);
    return rightsOf(session)
      .filter(({ names }) => !grants.some((grant) => names.test(grant)))
      .map(({ grant }) => ({
        code: 'PERMISSION_DENIED',
        severity: 'error',
        message: `the login lacks ${grant}, which reading the binary log needs`,
        fixSql: [`GRANT ${grant} ON *.* TO ${login};`],
      }));
  }

  /** InnoDB changes the child rows of a cascade by itself, and the log does not hold them. information_schema hides the rules from a login that may only read. */
  async #cascades(session: Session, name: TableName): Promise<Finding[]> {
    if (await logsCascades(session)) return [];
    const [row] = await session.query(
      `read the foreign keys of ${displayName(name)}`,
      `SHOW CREATE TABLE ${quoteTable(name)}`,
    );
    const sql = String(row?.['Create Table'] ?? '');
    const found = sql.matchAll(
      /^\s*CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY .*? ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)/gm,
    );
    return [...found].map(([, constraint = '']) => ({
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: `${displayName(name)}: foreign key ${constraint.replaceAll('``', '`')} cascades, and the binary log does not hold what it changes`,
      fixSql: [
        `-- drop foreign key \`${constraint}\` of ${displayName(name)} and add it again with RESTRICT, or copy the table with cdc_enabled = 0`,
      ],
    }));
  }
}
