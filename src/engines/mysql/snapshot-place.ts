/**
 * Snapshots whose place in the binary log is known. A transaction is written to the log before InnoDB commits it, so that a reader of the log
 * may know of it before others can see it; MariaDB tells exactly which place a consistent snapshot stands at (`Binlog_snapshot_position`).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../model/errors.ts';
import type { Session } from './connection.ts';
import { compareLogPlaces, type LogPlace } from './position.ts';

const VISIBLE_WITHIN_MS = 60_000;

/** Begins a snapshot and leaves its transaction open. */
async function beginSnapshot(session: Session, doing: string): Promise<LogPlace> {
  await session.run(doing, ['START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY']);
  const rows = await session.query(doing, "SHOW STATUS LIKE 'binlog_snapshot_%'");
  const value = (name: string) => rows.find((row) => String(row['Variable_name']).toLowerCase() === name)?.['Value'];
  return { file: String(value('binlog_snapshot_file') ?? ''), offset: Number(value('binlog_snapshot_position') ?? 0) };
}

/** A place at or below which everything is visible. */
export async function snapshotPlace(session: Session): Promise<LogPlace> {
  const place = await beginSnapshot(session, 'find a place in the binary log');
  await session.run('find a place in the binary log', ['ROLLBACK']);
  return place;
}

/** Leaves a transaction open whose snapshot sees everything up to `place`. Throws TIMEOUT when that takes a minute. */
export async function waitForSnapshot(session: Session, place: LogPlace, doing: string): Promise<void> {
  const deadline = performance.now() + VISIBLE_WITHIN_MS;
  for (let pause = 1; ; pause = Math.min(pause * 2, 100)) {
    const seen = await beginSnapshot(session, doing);
    // A snapshot taken since the file was changed stands behind it.
    if (compareLogPlaces(seen, place) >= 0) return;
    await session.run(doing, ['ROLLBACK']);
    if (performance.now() > deadline)
      throw new SluiceError('TIMEOUT', `could not ${doing}: a transaction of the binary log is still not visible`, {
        hint: 'A semi-synchronous replica may be away, so that commits wait for it.',
      });
    await sleep(pause);
  }
}
