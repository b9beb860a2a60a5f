/**
 * MariaDB's binary log. Which place a consistent snapshot stands at is told by the server (`Binlog_snapshot_position`), and so is the GTID
 * state at any place that it still has (`BINLOG_GTID_POS`).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, SluiceError } from '../../../model/errors.ts';
import { readToken } from './transaction.ts';
import { xidText } from './xa.ts';
import { endOfLog, gap, logFiles, notVisible, VISIBLE_WITHIN_MS, type BinaryLog } from './binary-log.ts';
import type { Session } from '../connection.ts';
import { compareLogPlaces, type LogPlace } from './position.ts';

/** Between the log and InnoDB a commit takes as long as a disk takes to write. */
const XA_COMMIT_MS = 2000;

const STATUS = 'SHOW MASTER STATUS';

export const mariaDbLog: BinaryLog = {
  identity: async (session) => {
    const [row] = await session.query(
      'identify the server',
      'SELECT @@global.server_uid AS uid, @@global.server_id AS id',
    );
    return `${String(row?.['uid'])}/${String(row?.['id'])}`;
  },

  visiblePlace: async (session, server) => {
    const doing = 'find a place in the binary log';
    const place = await beginSnapshot(session, doing);
    await session.run(doing, ['ROLLBACK']);
    await waitForXas(session, doing, null);
    const gtids = await gtidsAt(session, place);
    if (gtids === null) throw new SluiceError('INTERNAL', 'the server does not know its own log’s end');
    return { server, ...place, gtids };
  },

  end: async (session, server) => ({ server, ...(await endOfLog(session, STATUS)), gtids: '' }),

  waitUntilVisible: async (session, doing) => {
    const end = await endOfLog(session, STATUS);
    await waitForXas(session, doing, null);
    await waitForSnapshot(session, end, doing);
    await session.run(doing, ['ROLLBACK']);
  },

  beginBehind: async (session, tokens, doing) => {
    const places = tokens.map(readToken);
    const xids = places.flatMap(({ xid }) => xid ?? []);
    if (xids.length > 0) await waitForXas(session, doing, new Set(xids));
    const begun = latest(places);
    // A snapshot behind its beginning is behind all of it: places of snapshots lie between transactions.
    if (begun !== null) await waitForSnapshot(session, { file: begun.file, offset: begun.offset + 1 }, doing);
  },

  find: async (session, place) => {
    const start = { place, gtids: place.gtids, by: null };
    const gtids = await gtidsAt(session, place);
    if (gtids === place.gtids) return start;
    const files = await logFiles(session);
    if (gtids === null && !files.some(({ file }) => file === place.file)) {
      const [first] = files;
      const isNext =
        first !== undefined &&
        place.gtids !== '' &&
        (await gtidsAt(session, { file: first.file, offset: 4 })) === place.gtids;
      if (isNext) return { ...start, place: { file: first.file, offset: 4 } };
      throw gap(
        `binary log ${place.file} is no longer on the server: it was purged, or the server’s log was begun anew`,
      );
    }
    if (gtids === null)
      throw gap(
        `the stored position ${place.file}:${place.offset} lies beyond the end of the source’s log: the source was restored`,
      );
    throw gap(
      `at ${place.file}:${place.offset} the source’s log is another one than it was: the source was restored or replaced`,
    );
  },

  collationsSql:
    'SELECT ID AS id, CHARACTER_SET_NAME AS name FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID IS NOT NULL',

  setUp: (heartbeatMs) => [
    `SET @master_binlog_checksum = @@global.binlog_checksum, @mariadb_slave_capability = 4, @master_heartbeat_period = ${heartbeatMs * 1_000_000}`,
  ],
};

/** The log's GTID state at a place; null: the log has no such place. */
async function gtidsAt(session: Session, place: LogPlace): Promise<string | null> {
  const [row] = await session
    .query('look a place of the binary log up', 'SELECT BINLOG_GTID_POS(?, CAST(? AS UNSIGNED)) AS gtids', [
      place.file,
      place.offset,
    ])
    .catch((error: unknown) => {
      if (hasCode(error, 'CONNECTION_LOST')) throw error;
      return [];
    });
  const gtids = row?.['gtids'];
  return gtids === null || gtids === undefined ? null : gtids.toString().split(',').sort(byDomain).join(',');
}

function byDomain(a: string, b: string): number {
  return Number(a.split('-')[0]) - Number(b.split('-')[0]);
}

/** Begins a snapshot and leaves its transaction open. */
async function beginSnapshot(session: Session, doing: string): Promise<LogPlace> {
  await session.run(doing, ['START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY']);
  const rows = await session.query(doing, "SHOW STATUS LIKE 'binlog_snapshot_%'");
  const value = (name: string) => rows.find((row) => String(row['Variable_name']).toLowerCase() === name)?.['Value'];
  return { file: String(value('binlog_snapshot_file') ?? ''), offset: Number(value('binlog_snapshot_position') ?? 0) };
}

/** Leaves a transaction open whose snapshot sees everything up to `place`. */
async function waitForSnapshot(session: Session, place: LogPlace, doing: string): Promise<void> {
  const deadline = performance.now() + VISIBLE_WITHIN_MS;
  for (let pause = 1; ; pause = Math.min(pause * 2, 100)) {
    const seen = await beginSnapshot(session, doing);
    // A snapshot taken since the file was changed stands behind it.
    if (compareLogPlaces(seen, place) >= 0) return;
    await session.run(doing, ['ROLLBACK']);
    if (performance.now() > deadline) throw notVisible(doing);
    await sleep(pause);
  }
}

/**
 * XA COMMIT is written to the log before InnoDB commits, and no place of a snapshot tells which of the two it is behind
 * (sql/handler.cc, ha_commit_or_rollback_by_xid); until it is done the transaction is listed as prepared. `committed`: those whose
 * commit was read. Null: any that is under way; one that stays is not, it waits for somebody to decide.
 */
async function waitForXas(session: Session, doing: string, committed: ReadonlySet<string> | null): Promise<void> {
  const awaited = new Set(committed ?? (await preparedXids(session, doing)));
  const deadline = performance.now() + (committed === null ? XA_COMMIT_MS : VISIBLE_WITHIN_MS);
  for (let pause = 1; awaited.size > 0; pause = Math.min(pause * 2, 100)) {
    const now = await preparedXids(session, doing);
    for (const each of awaited) if (!now.has(each)) awaited.delete(each);
    if (awaited.size === 0) return;
    if (performance.now() > deadline) {
      if (committed === null) return;
      throw notVisible(doing);
    }
    await sleep(pause);
  }
}

async function preparedXids(session: Session, doing: string): Promise<Set<string>> {
  const rows = await session.query(doing, 'XA RECOVER');
  return new Set(
    rows.map((row) => {
      const data = Buffer.from(row['data'] ?? '');
      const global = Number(row['gtrid_length']);
      return xidText(data.toString('hex', 0, global), data.toString('hex', global), String(row['formatID']));
    }),
  );
}

function latest(places: readonly LogPlace[]): LogPlace | null {
  let last: LogPlace | null = null;
  for (const place of places) if (last === null || compareLogPlaces(place, last) > 0) last = place;
  return last;
}
