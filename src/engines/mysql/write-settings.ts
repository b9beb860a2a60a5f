/** What of the server's settings a destination should know. */
import type { Finding } from '../../model/findings.ts';
import type { Session } from './connection.ts';

/** Below it, a batch of changes might not fit one packet. */
const LEAST_PACKET = 16 * 1024 * 1024;

export async function writeSettings(session: Session): Promise<Finding[]> {
  const rows = await session.query(
    'read the settings for writing',
    `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'local_infile', 'innodb_flush_log_at_trx_commit', 'max_allowed_packet',
       'log_bin', 'binlog_format')`,
  );
  const settings = new Map(rows.map((row) => [String(row['Variable_name']), String(row['Value']).toUpperCase()]));
  const findings: Finding[] = [];
  const add = (finding: Omit<Finding, 'code'>) => findings.push({ code: 'CONFIG_INVALID', ...finding });
  if (settings.get('read_only') === 'ON')
    findings.push({
      code: 'PERMISSION_DENIED',
      severity: 'warning',
      message: 'the server is read-only (read_only): only a login with the right to pass that can write',
      fixSql: [],
    });
  if (settings.get('local_infile') !== 'ON')
    add({
      severity: 'warning',
      message:
        'LOAD DATA LOCAL is not allowed (local_infile), so that rows are inserted by statements, which takes longer',
      fixSql: ['SET GLOBAL local_infile = ON;'],
    });
  if (settings.get('innodb_flush_log_at_trx_commit') !== '1')
    add({
      severity: 'warning',
      message:
        'commits are not on the disk when they return (innodb_flush_log_at_trx_commit): after a power failure the position is below what the source was told, which is a gap',
      fixSql: ['SET GLOBAL innodb_flush_log_at_trx_commit = 1;'],
    });
  if (Number(settings.get('max_allowed_packet')) < LEAST_PACKET)
    add({
      severity: 'warning',
      message: 'max_allowed_packet is less than 16 MiB: rows of large values may be refused',
      fixSql: [`SET GLOBAL max_allowed_packet = ${LEAST_PACKET * 4};`],
    });
  if (settings.get('log_bin') === 'ON' && settings.get('binlog_format') === 'STATEMENT')
    add({
      severity: 'error',
      message: 'binlog_format is STATEMENT, which allows no writes under READ COMMITTED',
      fixSql: ["SET GLOBAL binlog_format = 'ROW';"],
    });
  return findings;
}
