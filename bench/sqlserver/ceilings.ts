/** What copies are held against: the driver reading with the rows thrown away; and freebcp out | in beside it, where it is installed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Request } from 'tedious';
import type { Session } from '../../src/engines/sqlserver/connection.ts';
import type { SqlServerTestDatabase } from '../../test/support/sqlserver.ts';
import { say } from '../report.ts';
import { COLUMNS, createTable } from './tables.ts';

/** Seconds in which the driver has read every row; it makes an object of each value, whatever we want of it. */
export async function readWithDriver(session: Session, table: string, rows: number): Promise<number> {
  const started = performance.now();
  let read = 0;
  await new Promise<void>((resolve, reject) => {
    const request = new Request(`SELECT ${COLUMNS.join(', ')} FROM ${table}`, (error) =>
      error ? reject(error) : resolve(),
    );
    request.on('row', () => read++);
    session.driver.execSqlBatch(request);
  });
  if (read !== rows) throw new Error(`${read} rows of ${rows} were read`);
  return (performance.now() - started) / 1000;
}

/** Seconds of freebcp out and in, each for itself; null: it is not installed, or does not do it here (said why). */
export async function copyWithFreebcp(
  database: SqlServerTestDatabase,
  table: string,
): Promise<{ out: number; in: number } | null> {
  const { hostname, port, username, password } = new URL(database.url);
  const folder = mkdtempSync(path.join(tmpdir(), 'sluice-freebcp-'));
  try {
    const file = path.join(folder, 'rows');
    const run = (direction: 'out' | 'in', name: string) => {
      const started = performance.now();
      const login = ['-S', `${hostname}:${port || '1433'}`, '-U', decodeURIComponent(username)];
      const result = spawnSync(
        'freebcp',
        [
          `${database.name}.dbo.${name}`,
          direction,
          file,
          '-c',
          '-b',
          '1000000',
          ...login,
          '-P',
          decodeURIComponent(password),
        ],
        { env: { ...process.env, TDSVER: '7.4' }, encoding: 'utf8' },
      );
      if (result.status !== 0)
        throw new Error(`freebcp ${direction}: ${String(result.error ?? (result.stderr || result.stdout)).trim()}`);
      return (performance.now() - started) / 1000;
    };
    await database.query(createTable('by_freebcp', { key: false }));
    return { out: run('out', table), in: run('in', 'by_freebcp') };
  } catch (error) {
    say(`  FREEBCP IS NOT MEASURED: ${error instanceof Error ? error.message.split('\n').at(-1) : String(error)}`);
    return null;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
