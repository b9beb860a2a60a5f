/** What can go wrong with a change stream of PostgreSQL, told apart by what the server says. */
import { hasCode, SluiceError } from '../../model/errors.ts';
import { classify, sqlState } from './errors.ts';

export function gap(message: string, cause?: unknown): SluiceError {
  return new SluiceError('GAP', message, {
    hint: "The tables must be copied again: set on_gap = 'resync', or is_full_sync = 1 on each mapping.",
    cause,
  });
}

/** 53300 of a replication connection means max_wal_senders, not max_connections. */
export function exhausted(error: unknown): SluiceError {
  const classified = classify(error, 'connect for replication');
  if (sqlState(error) === '53300' && /max_wal_senders|standby connections/.test(classified.message)) {
    return new SluiceError('CDC_SLOTS_EXHAUSTED', classified.message, {
      hint: 'ALTER SYSTEM SET max_wal_senders = …; then restart the server.',
      cause: error,
    });
  }
  if (/replication role|permission denied to start WAL sender/.test(classified.message)) {
    return new SluiceError('PERMISSION_DENIED', classified.message, {
      hint: 'ALTER ROLE <our role> REPLICATION;',
      cause: error,
    });
  }
  return classified;
}

/** Errors of the stream itself, told apart by what the server says: its codes are shared with harmless ones. */
export function streamError(error: unknown, slot: string): SluiceError {
  const classified = classify(error, `read replication slot ${slot}`);
  if (hasCode(classified, 'GAP', 'CDC_IN_USE')) return classified;
  const { message } = classified;
  if (
    /can no longer (get changes from|access) replication slot|has already been removed|invalidated/.test(message) ||
    (sqlState(classified) === '42704' && /replication slot|publication/.test(message))
  )
    return gap(message, error);
  return classified;
}
