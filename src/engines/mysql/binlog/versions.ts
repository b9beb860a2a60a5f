/**
 * MariaDB's system-versioned tables (manual, "System-Versioned Tables"): the log has their former rows as it has the rows that are, and only
 * the time at which a row's validity ends tells the two apart. A DELETE is logged as an update of that time, an update is followed by an insert
 * of the former row, and DELETE HISTORY deletes rows that nobody sees.
 */
import { TYPE, type LogColumn } from './columns.ts';

/** What the server calls the two columns that a table has without having been asked for them: they are its last, and always have a value. */
const [START, END] = ['row_start', 'row_end'];
/** Bytes of a TIMESTAMP(6). */
const TIME_BYTES = 7;
/** 2038-01-19 and, from MariaDB 11.5 on, 2106-02-07: the last moment that there is. */
const LAST: readonly Buffer[] = [Buffer.from('7fffffff0f423f', 'hex'), Buffer.from('ffffffff0f423f', 'hex')];

/** The table may be versioned; whether it is, the catalog says. */
export function mayBeVersioned(columns: readonly LogColumn[]): boolean {
  const [start, end] = columns.slice(-2);
  return start?.name === START && end?.name === END && [start, end].every(isTime);
}

function isTime({ type, meta }: LogColumn): boolean {
  return type === TYPE.timestamp2 && meta === 6;
}

/** By the columns of the table as it is: those that the catalog shows are ordinary ones. */
export function isVersioned(columns: readonly LogColumn[], shown: ReadonlyMap<string, string>): boolean {
  return mayBeVersioned(columns) && shown.size > 0 && !shown.has(START) && !shown.has(END);
}

/** The row of a versioned table that ends at `end` in the buffer is one that the table has, not one that it had. */
export function isCurrent(buffer: Buffer, end: number): boolean {
  return LAST.some((time) => time.equals(buffer.subarray(end - TIME_BYTES, end)));
}
