/** What the server's settings must be so that its binary log holds every change as whole rows that describe themselves. */
import { hasCode } from '../../../model/errors.ts';
import type { Finding } from '../../../model/findings.ts';
import type { Session } from '../connection.ts';

interface Wanted {
  readonly name: string;
  readonly value: string;
  readonly why: string;
}

const WANTED: readonly Wanted[] = [
  { name: 'binlog_format', value: 'ROW', why: 'changes are read as rows, not as statements' },
  { name: 'binlog_row_image', value: 'FULL', why: 'a change must hold the whole row' },
  { name: 'binlog_row_metadata', value: 'FULL', why: 'each change must name its own columns' },
];

/** MySQL's own. */
const WANTED_OF_MYSQL: readonly Wanted[] = [
  { name: 'binlog_row_value_options', value: '', why: 'a change must hold whole JSON documents, not parts of them' },
  { name: 'binlog_order_commits', value: 'ON', why: 'transactions must become visible in the order of the log' },
];

/** An empty list means ready. */
export async function logSettings(session: Session): Promise<Finding[]> {
  const { isMariaDb } = session.kind;
  const wanted = isMariaDb ? WANTED : [...WANTED, ...WANTED_OF_MYSQL];
  const rows = await session.query(
    'read the settings of the binary log',
    `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'gtid_mode', ${wanted.map(({ name }) => `'${name}'`).join(', ')})`,
  );
  const settings = new Map(rows.map((row) => [String(row['Variable_name']), String(row['Value'])]));
  const findings: Finding[] = [];
  const add = (message: string, fixSql: readonly string[]) =>
    findings.push({ code: 'CDC_NOT_READY', severity: 'error', message, fixSql });
  if (settings.get('log_bin') !== 'ON')
    findings.push({
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: 'the server writes no binary log',
      fixSql: [
        `-- in the server’s configuration, then restart it: [${isMariaDb ? 'mariadb' : 'mysqld'}] log_bin = binlog, server_id = 1`,
      ],
      losesChanges: true,
    });
  for (const { name, value, why } of wanted)
    // A server that has no such setting behaves as it should.
    if ((settings.get(name) ?? (name === 'binlog_format' ? value : 'unknown')).toUpperCase() !== value)
      add(`${name} is ${settings.get(name) || 'empty'}: ${why}`, [`SET GLOBAL ${name} = '${value}';`]);
  if (!isMariaDb && settings.get('gtid_mode') !== 'ON' && !(await seesCommits(session)))
    add('transactions have no GTIDs (gtid_mode), and this login cannot see which of them are visible', [
      '-- gtid_mode = ON (with enforce_gtid_consistency = ON), or performance_schema = ON and:',
      `GRANT SELECT ON performance_schema.metadata_locks TO ${await loginOf(session)};`,
    ]);
  return findings;
}

/** The lock that reading the list takes itself is in it, where locks are recorded at all. */
async function seesCommits(session: Session): Promise<boolean> {
  const [row] = await session
    .query('look at locks', 'SELECT COUNT(*) AS n FROM performance_schema.metadata_locks')
    .catch((error: unknown) => {
      if (hasCode(error, 'CONNECTION_LOST')) throw error;
      return [];
    });
  return Number(row?.['n'] ?? 0) > 0;
}

/** As GRANT takes it. */
export async function loginOf(session: Session): Promise<string> {
  const [who] = await session.query('ask who we are', 'SELECT CURRENT_USER() AS login');
  return String(who?.['login']).replace(/^(.*)@(.*)$/, "'$1'@'$2'");
}
