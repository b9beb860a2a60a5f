/** Cells as text that the server reads back exactly, by the type of the column they go into. A value that no text says is refused. */
import { SluiceError } from '../../../model/errors.ts';
import type { Cell } from '../../../model/changes.ts';
import type { Column } from '../../../model/tables.ts';
import { isCharacter } from '../ddl.ts';
import { cellForm, parseNativeType } from '../types.ts';

export interface ValueWriter {
  /** The cell's text; null: NULL. */
  readonly text: (cell: Cell) => string | null;
  /** What is assigned to the column, of a text or a variable that holds it; null: the text itself. */
  readonly expression: ((value: string) => string) | null;
  /** The text may hold tabs, line ends and backslashes. */
  readonly isFree: boolean;
  /** A cell that is text goes as it is. */
  readonly takesText?: boolean;
}

export class RefusedValue extends Error {}

function textOf(cell: Cell): string | null {
  return cell instanceof Uint8Array
    ? Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength).toString('utf8')
    : cell;
}

const NOT_ASCII = /[^\x00-\x7f]/;
const HALF = /\p{Surrogate}/u;

const plain: ValueWriter = { text: textOf, expression: null, isFree: false, takesText: true };

/** Text that is no Unicode (a half of a surrogate pair) has no bytes. */
const free: ValueWriter = {
  text: (cell) => {
    const text = textOf(cell);
    if (typeof cell === 'string' && NOT_ASCII.test(cell) && HALF.test(cell))
      throw new RefusedValue('it holds half of a surrogate pair');
    return text;
  },
  expression: null,
  isFree: true,
  takesText: true,
};

function hexOf(cell: Cell): string | null {
  if (cell === null) return null;
  return (
    typeof cell === 'string' ? Buffer.from(cell) : Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength)
  ).toString('hex');
}

const bytes: ValueWriter = { text: hexOf, expression: (value) => `UNHEX(${value})`, isFree: false };

const boolean: ValueWriter = {
  text: (cell) => {
    const text = textOf(cell);
    return text === null ? null : /^(t|true|1)$/i.test(text) ? '1' : '0';
  },
  expression: (value) => `CAST(${value} AS UNSIGNED)`,
  isFree: false,
};

const bits: ValueWriter = { text: textOf, expression: (value) => `CAST(${value} AS UNSIGNED)`, isFree: false };

/** The server reads a double and refuses what is past the largest float: whose shortest digits are, a little. */
const float32: ValueWriter = {
  text: (cell) => {
    const text = textOf(cell);
    const value = text === null ? NaN : Math.fround(Number(text));
    return Number.isFinite(value) && value !== 0 ? String(value) : text;
  },
  expression: null,
  isFree: false,
};

/** With fewer digits a year is one of this century or the last. */
const year: ValueWriter = { text: (cell) => textOf(cell)?.padStart(4, '0') ?? null, expression: null, isFree: false };

/** Cells are in UTC, as our sessions are. */
const instant: ValueWriter = {
  text: (cell) => {
    const text = textOf(cell);
    if (text === null) return null;
    if (!text.endsWith('+00')) throw new RefusedValue('it is no time in UTC');
    return text.slice(0, -3);
  },
  expression: null,
  isFree: false,
};

const EWKB_HAS_SRID = 0x20000000;

/** (Extended) WKB as the server keeps it: four bytes of SRID, then WKB. */
const geometry: ValueWriter = {
  text: (cell) => {
    if (cell === null) return null;
    const wkb =
      typeof cell === 'string' ? Buffer.from(cell) : Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength);
    if (wkb.length < 5 || wkb[0] !== 1) throw new RefusedValue('it is no little-endian WKB');
    const type = wkb.readUInt32LE(1);
    if ((type & EWKB_HAS_SRID) === 0) return `00000000${wkb.toString('hex')}`;
    const plainType = Buffer.alloc(4);
    plainType.writeUInt32LE((type & ~EWKB_HAS_SRID) >>> 0);
    return `${wkb.toString('hex', 5, 9)}01${plainType.toString('hex')}${wkb.toString('hex', 9)}`;
  },
  expression: (value) => `UNHEX(${value})`,
  isFree: false,
};

export function valueWriter(column: Pick<Column, 'nativeType'>): ValueWriter {
  const { nativeType } = column;
  const { name } = parseNativeType(nativeType);
  if (name === 'year') return year;
  switch (cellForm(nativeType)) {
    case 'bytes':
      return bytes;
    case 'geometry':
      return geometry;
    case 'bit':
      return bits;
    case 'boolean':
      return boolean;
    case 'instant':
      return instant;
    case 'float32':
      return float32;
    case 'text':
      return isCharacter(nativeType) || name === 'json' ? free : plain;
    default:
      return plain;
  }
}

/** The first cell that cannot be said. */
export function refused(table: string, column: string, error: unknown): unknown {
  if (!(error instanceof RefusedValue)) return error;
  return new SluiceError(
    'ROW_REFUSED',
    `could not load rows into ${table}: a value of column ${column} is refused: ${error.message}`,
  );
}
