/**
 * MySQL's binary log. A transaction gets its GTID when it is written to the log, is *owned* until InnoDB has committed it, and is
 * *executed* from then on (sql/binlog.cc, ordered_commit): `@@gtid_executed` is what every later read sees. Where transactions have no
 * GTIDs the locks tell: a commit holds one of the namespace COMMIT from before the log until behind InnoDB.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { errorNumber } from '../errors.ts';
import { endOfLog, gap, logFiles, notVisible, VISIBLE_WITHIN_MS, type BinaryLog } from './binary-log.ts';
import type { Session } from '../connection.ts';
import { GtidSet } from './gtid-set.ts';
import { compareLogPlaces, isGtidSet, type Place } from './position.ts';

/** No such place in the log. */
const ER_ERROR_WHEN_EXECUTING_COMMAND = 1220;
/** Events of a file begin here. */
const FIRST = 4;

export const mysqlLog: BinaryLog = {
  identity: async (session) => {
    const [row] = await session.query('identify the server', 'SELECT @@global.server_uuid AS uuid');
    return String(row?.['uuid']);
  },

  visiblePlace: async (session, server) => {
    const end = await endOfLog(session, statusSql(session));
    await waitUntilVisible(session, 'find a place in the binary log');
    const { mode, executed } = await gtidsOf(session);
    if (mode !== 'ON' || executed.isEmpty) return { server, file: end.file, offset: end.offset, gtids: '' };
    const gtids = executed.toString();
    // The set was read before the place, and again when all up to the place was visible: the same, it is that of the place. Otherwise
    // the place is only one that is surely not behind it.
    const isExact = new GtidSet(end.gtids).toString() === gtids;
    return { server, file: end.file, offset: isExact ? end.offset : FIRST, gtids };
  },

  end: async (session, server) => {
    const { mode, executed } = await gtidsOf(session);
    const end = await endOfLog(session, statusSql(session));
    return { server, file: end.file, offset: end.offset, gtids: mode === 'ON' ? executed.toString() : '' };
  },

  waitUntilVisible,

  beginBehind: async (session, tokens, doing) => {
    if (tokens.length === 0) return;
    await waitUntilVisible(session, doing);
    await session.run(doing, ['START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY']);
  },

  find: async (session, place) => {
    const { mode, executed, purged } = await gtidsOf(session);
    const isNumbered = isGtidSet(place.gtids);
    const stored = new GtidSet(isNumbered ? place.gtids : '');
    if (isNumbered) {
      if (!executed.includes(stored))
        throw gap(
          'the source does not know transactions that were read from it: it was restored, or its log was reset',
        );
      if (!stored.includes(purged)) throw gap('the source has purged transactions that were not read');
    }
    const by = isNumbered && mode === 'ON' ? stored : null;
    const { gtids } = place;
    const files = await logFiles(session);
    const file = files.find((each) => each.file === place.file);
    if (file) {
      if (place.offset > file.bytes)
        throw gap(`${place.file}:${place.offset} lies beyond the end of the source’s log: the source was restored`);
      await checkPlace(session, place, stored);
      return { place, gtids, by };
    }
    const [first] = files;
    // Its files are numbered without a gap: it is one of those that were purged, or none of this log.
    if (first === undefined || !(compareLogPlaces(place, { file: first.file, offset: 0 }) < 0))
      throw gap(`the source’s log has no ${place.file}: it was begun anew, or the source was restored`);
    if (!isNumbered) throw gap(`binary log ${place.file} is no longer on the server: it was purged`);
    return { place: { file: first.file, offset: FIRST }, gtids, by: by ?? stored };
  },

  collationsSql: 'SELECT ID AS id, CHARACTER_SET_NAME AS name FROM information_schema.COLLATIONS',

  // Both names: the new one since 8.0.26.
  setUp: (heartbeatMs) => [
    `SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum,
       @master_heartbeat_period = ${heartbeatMs * 1_000_000}, @source_heartbeat_period = ${heartbeatMs * 1_000_000}`,
  ],
};

/** SHOW MASTER STATUS is gone since 8.4, its successor is of 8.2. */
function statusSql(session: Session): string {
  const [major = 0, minor = 0] = session.kind.version.split('.').map(Number);
  return major > 8 || (major === 8 && minor >= 2) ? 'SHOW BINARY LOG STATUS' : 'SHOW MASTER STATUS';
}

async function gtidsOf(session: Session): Promise<{ mode: string; executed: GtidSet; purged: GtidSet }> {
  const [row] = await session.query(
    'read the GTIDs of the server',
    'SELECT @@global.gtid_mode AS mode, @@global.gtid_executed AS executed, @@global.gtid_purged AS purged',
  );
  const set = (name: string) => new GtidSet(row?.[name]?.toString() ?? '');
  return { mode: String(row?.['mode']), executed: set('executed'), purged: set('purged') };
}

/** An event begins there, and of what was stored none comes behind it (a log that was written anew has other events there). */
async function checkPlace(session: Session, place: Place, stored: GtidSet): Promise<void> {
  const another = gap(
    `at ${place.file}:${place.offset} the source’s log is another one than it was: the source was restored or replaced`,
  );
  const [next] = await session
    .query(
      'look a place of the binary log up',
      `SHOW BINLOG EVENTS IN '${place.file.replaceAll("'", "''")}' FROM ${place.offset} LIMIT 1`,
    )
    .catch((error: unknown) => {
      throw errorNumber(error) === ER_ERROR_WHEN_EXECUTING_COMMAND ? another : error;
    });
  const [, origin, number] = /GTID_NEXT= '(.*):(\d+)'/.exec(String(next?.['Info'] ?? '')) ?? [];
  if (place.offset > FIRST && origin !== undefined && number !== undefined)
    if (stored.has({ origin: origin.toLowerCase(), number: BigInt(number) })) throw another;
}

async function waitUntilVisible(session: Session, doing: string): Promise<void> {
  const { mode } = await gtidsOf(session);
  const pending = () => (mode === 'ON' ? ownedGtids(session, doing) : commitsUnderWay(session, doing));
  const awaited = await pending();
  const deadline = performance.now() + VISIBLE_WITHIN_MS;
  for (let pause = 1; awaited.size > 0; pause = Math.min(pause * 2, 100)) {
    await sleep(pause);
    const now = await pending();
    for (const each of awaited) if (!now.has(each)) awaited.delete(each);
    if (performance.now() > deadline) throw notVisible(doing);
  }
}

/** `uuid:7#42:8#43`: the number and the session that commits it. */
async function ownedGtids(session: Session, doing: string): Promise<Set<string>> {
  const [row] = await session.query(doing, 'SELECT @@global.gtid_owned AS owned');
  const owned = new Set<string>();
  for (const part of String(row?.['owned'] ?? '')
    .replace(/\s/g, '')
    .split(',')
    .filter(Boolean)) {
    const [uuid = '', ...rest] = part.split(':');
    for (const each of rest) owned.add(`${uuid}:${each}`);
  }
  return owned;
}

async function commitsUnderWay(session: Session, doing: string): Promise<Set<string>> {
  const rows = await session.query(
    doing,
    `SELECT CONCAT(OWNER_THREAD_ID, ':', OWNER_EVENT_ID, ':', OBJECT_INSTANCE_BEGIN) AS id
     FROM performance_schema.metadata_locks WHERE OBJECT_TYPE = 'COMMIT' AND LOCK_STATUS = 'GRANTED'`,
  );
  return new Set(rows.map((row) => String(row['id'])));
}
