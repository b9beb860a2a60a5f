/** What MariaDB and MySQL do each in its own way about their binary logs. The events themselves are much the same (binlog-*.ts). */
import { SluiceError } from '../../../model/errors.ts';
import type { Session } from '../connection.ts';
import type { GtidSet } from './gtid-set.ts';
import type { LogPlace, Place } from './position.ts';

/** Where a reader begins. */
export interface Start {
  readonly place: LogPlace;
  /** What the log holds up to there, as it was stored. */
  readonly gtids: string;
  /** The server is to find the place by what we have; null: by its name. */
  readonly by: GtidSet | null;
}

export interface BinaryLog {
  /** Which server it is, whatever it is called. */
  identity(session: Session): Promise<string>;
  /** A place at or below which everything is visible to who reads from now on (invariant 1). */
  visiblePlace(session: Session, server: string): Promise<Place>;
  /** At or behind everything that is visible now. */
  end(session: Session, server: string): Promise<Place>;
  /** Resolves when what the log holds is visible: a transaction is written to the log before InnoDB commits it. Throws TIMEOUT. */
  waitUntilVisible(session: Session, doing: string): Promise<void>;
  /** Leaves a transaction open whose snapshot sees the transactions of these tokens (BinlogDecoder). Throws TIMEOUT. */
  beginBehind(session: Session, tokens: readonly string[], doing: string): Promise<void>;
  /**
   * Where to start behind a stored place of this server, if the log up to there is the one that was stored; throws GAP. A file that was
   * purged after it had been read to its end is no loss (F12).
   */
  find(session: Session, place: Place): Promise<Start>;
  /** Character sets by collation id. */
  readonly collationsSql: string;
  /** What a replica says of itself before it asks for the log. */
  readonly setUp: (heartbeatMs: number) => readonly string[];
}

export function gap(reason: string): SluiceError {
  return new SluiceError('GAP', reason, { hint: 'on_gap = resync copies the tables again.' });
}

/** Places of the log that the stored one is to be compared with. */
export async function logFiles(session: Session): Promise<{ file: string; bytes: number }[]> {
  const rows = await session.query('list the binary logs', 'SHOW BINARY LOGS');
  return rows.map((row) => ({ file: String(row['Log_name']), bytes: Number(row['File_size']) }));
}

/** `sql`: the statement by which the server tells where it writes. */
export async function endOfLog(session: Session, sql: string): Promise<LogPlace & { gtids: string }> {
  const [row] = await session.query('find the end of the binary log', sql);
  if (!row)
    throw new SluiceError('CDC_NOT_READY', 'the source writes no binary log', {
      hint: 'Start the server with log_bin.',
    });
  return {
    file: String(row['File']),
    offset: Number(row['Position']),
    gtids: String(row['Executed_Gtid_Set'] ?? ''),
  };
}

export const VISIBLE_WITHIN_MS = 60_000;

export function notVisible(doing: string): SluiceError {
  return new SluiceError('TIMEOUT', `could not ${doing}: a transaction of the binary log is still not visible`, {
    hint: 'A semi-synchronous replica may be away, so that commits wait for it.',
  });
}
