/** What the binary log does not hold (invariant 5). */
import { SluiceError } from '../../../model/errors.ts';

const RESYNC = 'on_gap = resync copies the tables again.';

export function notRows(verb: string): SluiceError {
  return new SluiceError('GAP', `the source’s log holds a statement (${verb}) instead of the rows that it changed`, {
    hint: "SET GLOBAL binlog_format = 'ROW'; sessions that have set it otherwise, or were opened before, must be reopened. Then set is_full_sync = 1.",
  });
}

export function anotherLog(): SluiceError {
  return new SluiceError('GAP', 'the source’s log is another one than it was: the source was restored or replaced', {
    hint: RESYNC,
  });
}

export function incident(): SluiceError {
  return new SluiceError('GAP', 'the source says that its binary log lacks changes (an incident event)', {
    hint: RESYNC,
  });
}

export function lostXa(): SluiceError {
  return new SluiceError(
    'GAP',
    'an XA transaction was committed that the source’s log no longer holds: the file in which it was prepared was purged',
    { hint: `${RESYNC} Keep the log for longer than transactions stay prepared (XA RECOVER lists them).` },
  );
}
