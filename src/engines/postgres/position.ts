/**
 * Positions of a PostgreSQL stream: `pg1:<system identifier>:<timeline>:<LSN, 16 hex digits>`. The first two are the
 * source's incarnation (invariant 5): another cluster, or one restored to an earlier point, never yields a comparable one.
 */
import type { Position, PositionOrder } from '../../model/position.ts';

/** A position taken apart. */
export interface Place {
  /** `system_identifier` of pg_control_system(), decimal. */
  readonly systemId: string;
  readonly timeline: number;
  readonly lsn: bigint;
}

/** One line of a timeline history file: the lineage left `timeline` at `end`. */
export interface Fork {
  readonly timeline: number;
  readonly end: bigint;
}

const FORM = /^pg1:(\d{1,20}):(\d{1,10}):([0-9A-F]{16})$/;

export function formatPosition(place: Place): Position {
  const lsn = place.lsn.toString(16).toUpperCase().padStart(16, '0');
  return `pg1:${place.systemId}:${place.timeline}:${lsn}` as Position;
}

/** Null: not a position that this version wrote. */
export function parsePosition(position: Position): Place | null {
  const [, systemId, timeline, lsn] = FORM.exec(position) ?? [];
  if (systemId === undefined || timeline === undefined || lsn === undefined) return null;
  return { systemId, timeline: Number(timeline), lsn: BigInt(`0x${lsn}`) };
}

/** The server's own text form, `X/Y`, as a number. Throws SyntaxError for anything else. */
export function parseLsn(text: string): bigint {
  const [high, low, more] = text.split('/');
  if (!high || !low || more !== undefined) throw new SyntaxError(`not a log position: ${text}`);
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

export function displayLsn(lsn: bigint): string {
  const hex = (part: bigint) => part.toString(16).toUpperCase();
  return `${hex(lsn >> 32n)}/${hex(lsn & 0xffffffffn)}`;
}

/** Parses the content of a timeline history file (TIMELINE_HISTORY, manual "Streaming Replication Protocol"). */
export function parseHistory(content: string): Fork[] {
  const forks: Fork[] = [];
  for (const line of content.split('\n')) {
    const [, timeline, end] = /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(line) ?? [];
    if (timeline !== undefined && end !== undefined) forks.push({ timeline: Number(timeline), end: parseLsn(end) });
  }
  return forks;
}

/** What is known of how timelines descend from each other; filled from the source by those who ask it. */
export class Lineage {
  readonly #histories = new Map<string, readonly Fork[]>();

  learn(systemId: string, timeline: number, history: readonly Fork[]): void {
    this.#histories.set(`${systemId}:${timeline}`, history);
  }

  /** Is `place` part of the history of `timeline`: on it, or on an ancestor at or before the fork? False also when unknown. */
  contains(place: Place, timeline: number): boolean {
    if (place.timeline === timeline) return true;
    const fork = this.#histories.get(`${place.systemId}:${timeline}`)?.find((each) => each.timeline === place.timeline);
    return fork !== undefined && place.lsn <= fork.end;
  }

  /** `unordered` wherever order is not proven: other cluster, other text, timelines whose fork is not known. */
  compare(a: Position, b: Position): PositionOrder {
    const left = parsePosition(a);
    const right = parsePosition(b);
    if (left === null || right === null || left.systemId !== right.systemId) return 'unordered';
    const related =
      left.timeline <= right.timeline ? this.contains(left, right.timeline) : this.contains(right, left.timeline);
    if (!related) return 'unordered';
    if (left.lsn === right.lsn) return 'equal';
    return left.lsn < right.lsn ? 'before' : 'after';
  }
}
