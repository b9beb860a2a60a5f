/** What the server's settings must be so that its binary log holds every change as whole rows that describe themselves. */
import type { Finding } from '../../model/findings.ts';
import type { Session } from './connection.ts';

const WANTED: readonly {
  readonly name: string;
  readonly value: string;
  readonly why: string;
}[] = [
  { name: 'binlog_format', value: 'ROW', why: 'changes are read as rows, not as statements' },
  { name: 'binlog_row_image', value: 'FULL', why: 'a change must hold the whole row' },
  { name: 'binlog_row_metadata', value: 'FULL', why: 'each change must name its own columns' },
];

/** An empty list means ready. */
export async function logSettings(session: Session): Promise<Finding[]> {
  if (!session.kind.isMariaDb)
    return [
      {
        code: 'CAPABILITY_MISSING',
        severity: 'error',
        message: 'changes of MySQL itself are not followed yet, those of MariaDB are',
        fixSql: [],
      },
    ];
  const rows = await session.query(
    'read the settings of the binary log',
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata', 'server_uid')",
  );
  const settings = new Map(rows.map((row) => [String(row['Variable_name']), String(row['Value'])]));
  const findings: Finding[] = [];
  const add = (message: string, fixSql: readonly string[]) =>
    findings.push({ code: 'CDC_NOT_READY', severity: 'error', message, fixSql });
  if (settings.get('log_bin') !== 'ON')
    add('the server writes no binary log', [
      '-- in the server’s configuration, then restart it: [mariadb] log_bin = binlog, server_id = 1',
    ]);
  for (const { name, value, why } of WANTED)
    if (settings.get(name)?.toUpperCase() !== value)
      add(`${name} is ${settings.get(name) ?? 'unknown'}: ${why}`, [`SET GLOBAL ${name} = '${value}';`]);
  return findings;
}
