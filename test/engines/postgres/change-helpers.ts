/** What the tests of the change stream share: a reader's pieces as lines of text, and waiting. */
import { expect } from 'chai';
import { Op, type ChangeCell, type ChangePiece, type TableChanges } from '../../../src/model/changes.ts';
import { hasCode, type ErrorCode, type SluiceError } from '../../../src/model/errors.ts';
import type { Position } from '../../../src/model/position.ts';
import type { Table, TableName } from '../../../src/model/tables.ts';
import type { ChangeReader } from '../../../src/engines/contract.ts';
import type { PostgresChanges } from '../../../src/engines/postgres/changes.ts';
import { parsePosition, type Place } from '../../../src/engines/postgres/position.ts';

/** Runs SQL, rows as objects. */
export interface Queryable {
  query<R extends Record<string, unknown>>(sql: string, params?: unknown[]): Promise<R[]>;
}

export class Collector {
  readonly reader: ChangeReader;
  readonly #changes: PostgresChanges;
  readonly #iterator: AsyncIterator<ChangePiece>;
  lastEnd: Position = '' as Position;

  constructor(reader: ChangeReader, changes: PostgresChanges) {
    this.reader = reader;
    this.#changes = changes;
    this.#iterator = reader.pieces[Symbol.asyncIterator]();
  }

  async next(wanted: (piece: ChangePiece) => boolean = () => true): Promise<ChangePiece> {
    for (;;) {
      const result = await this.#iterator.next();
      if (result.done) throw new Error('the stream ended');
      const { value } = result;
      if (value.end) this.lastEnd = value.end;
      if (wanted(value)) return value;
    }
  }

  /** Changes until there are `count`. */
  async take(count: number): Promise<string[]> {
    const seen: string[] = [];
    while (seen.length < count) seen.push(...rows(await this.next((piece) => piece.changes > 0)));
    return seen;
  }

  /** Changes until the stream is at or past `target`. */
  async through(target: Position): Promise<string[]> {
    const seen: string[] = [];
    for (;;) {
      const piece = await this.next();
      seen.push(...rows(piece));
      if (piece.end && this.#changes.compare(piece.end, target) !== 'before') return seen;
    }
  }
}

/** One line per change: `schema.table op before > after`; an absent cell is `-`. */
export function rows(piece: ChangePiece): string[] {
  return piece.tables.flatMap((changes) =>
    changes.ops.map((op, index) => {
      const letter = { [Op.Insert]: 'I', [Op.Update]: 'U', [Op.Delete]: 'D', [Op.Truncate]: 'T' }[op];
      const old = row(changes, changes.before[index] ?? -1);
      const now = row(changes, changes.after[index] ?? -1);
      const parts = op === Op.Update ? [old, '>', now] : [old, now];
      const { schema, table } = changes.relation.name;
      return [`${schema}.${table}`, letter, ...parts].filter((part) => part !== null).join(' ');
    }),
  );
}

function row(changes: TableChanges, at: number): string | null {
  if (at < 0) return null;
  const text = (cell: ChangeCell) => (cell === undefined ? '-' : cell === null ? 'NULL' : String(cell));
  return changes.cells
    .slice(at, at + changes.relation.columns.length)
    .map(text)
    .join();
}

export function end(piece: ChangePiece): Position {
  if (piece.end === null) throw new Error('the piece ends inside a transaction');
  return piece.end;
}

export function place(position: Position): Place {
  const found = parsePosition(position);
  if (found === null) throw new Error(`not a position: ${position}`);
  return found;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export async function until(condition: () => Promise<boolean>): Promise<void> {
  const limit = performance.now() + 5_000;
  while (!(await condition())) {
    if (performance.now() > limit) throw new Error('the condition did not come true');
    await sleep(20);
  }
}

export async function rejects(work: Promise<unknown>, code: ErrorCode, message = /./): Promise<SluiceError> {
  try {
    await work;
  } catch (error) {
    if (!hasCode(error, code)) throw error;
    expect(error.message).to.match(message);
    return error;
  }
  throw new Error(`expected ${code}`);
}

export async function describeTable(db: Queryable, name: TableName): Promise<Table> {
  const found = await db.query<{ oid: string; columns: string[] }>(
    `SELECT c.oid::text, ARRAY(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
    [name.schema, name.table],
  );
  const first = found[0];
  if (first === undefined) throw new Error(`no table ${name.table}`);
  return {
    engine: 'postgres',
    name,
    id: first.oid,
    kind: 'table',
    columns: first.columns.map((column) => ({
      name: column,
      nativeType: 'text',
      type: { kind: 'text', length: null, fixed: false, nul: false },
      nullable: true,
      generated: null,
      identity: null,
      default: null,
      collation: null,
    })),
    keys: [],
    indexes: [],
    triggers: [],
    foreignKeys: [],
    referencedBy: [],
    estimatedRows: null,
    bytes: 0,
  };
}
