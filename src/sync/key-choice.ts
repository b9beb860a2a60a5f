/** Which columns tell rows apart on both sides: the person's choice, else the primary key, else the first usable unique key. */
import type { RouteColumn } from '../engines/contract.ts';
import { displayName, type Key, type Table } from '../model/tables.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';

export interface KeyRequest {
  readonly source: Table;
  /** Null: the table does not exist yet and is made from the source's description. */
  readonly target: Table | null;
  /** The names in `primary_key_column`, in order; null: from the catalog. */
  readonly key: readonly string[] | null;
  /** Changes will be followed, which needs a key. */
  readonly cdc: boolean;
}

export type Report = (
  severity: Finding['severity'],
  code: ErrorCode,
  message: string,
  fixSql?: readonly string[],
) => void;

/** Source names of the key's columns, in the key's order; empty when there is none (reported where one is needed). */
export function chooseKey(request: KeyRequest, columns: readonly RouteColumn[], report: Report): readonly string[] {
  const { source, target } = request;
  const carried = new Map(columns.map((column) => [column.source, column.target]));
  const candidates = source.keys.filter((key) => key.usable && key.columns.every((name) => carried.has(name)));
  if (request.key !== null && request.key.length > 0)
    return namedKey(request, request.key, candidates, carried, report);
  const onBothSides = candidates.find((key) => target === null || targetKey(key.columns, carried, target) !== null);
  const chosen = onBothSides ?? (request.cdc ? candidates[0] : undefined);
  if (!chosen) {
    if (request.cdc)
      report(
        'error',
        'KEY_REQUIRED',
        `${displayName(source.name)} has no primary key and no unique index on columns that are all NOT NULL: its changes cannot be followed`,
      );
    return [];
  }
  checkTarget(chosen, carried, target, report);
  return chosen.columns;
}

function namedKey(
  request: KeyRequest,
  names: readonly string[],
  candidates: readonly Key[],
  carried: ReadonlyMap<string, string>,
  report: Report,
): readonly string[] {
  const { source, target } = request;
  const resolved: string[] = [];
  for (const name of names) {
    const column = resolveName(name, source);
    if (column === null) {
      report('error', 'KEY_INVALID', `${displayName(source.name)} has no column ${name}, named in primary_key_column`);
      return [];
    }
    resolved.push(column);
  }
  const key = candidates.find((candidate) => sameSet(candidate.columns, resolved));
  if (!key) {
    report(
      'error',
      'KEY_INVALID',
      `${displayName(source.name)}: no primary key or unique index on exactly (${resolved.join(', ')}) with all columns NOT NULL`,
    );
    return resolved;
  }
  checkTarget(key, carried, target, report);
  return resolved;
}

/** Exactly, else in any case if that is one column. */
function resolveName(name: string, table: Table): string | null {
  if (table.columns.some((column) => column.name === name)) return name;
  const folded = table.columns.filter((column) => column.name.toLowerCase() === name.toLowerCase());
  return folded.length === 1 ? (folded[0]?.name ?? null) : null;
}

function checkTarget(key: Key, carried: ReadonlyMap<string, string>, target: Table | null, report: Report): void {
  if (target === null) return;
  const found = targetKey(key.columns, carried, target);
  const columns = key.columns.map((name) => carried.get(name) ?? name).join(', ');
  if (found === null)
    report(
      'error',
      'KEY_INVALID',
      `${displayName(target.name)} has no primary key or unique index on exactly (${columns}) with all columns NOT NULL`,
    );
  else if (found.loose && !key.loose)
    report(
      'error',
      'KEY_INVALID',
      `${displayName(target.name)}: index ${found.name} on (${columns}) takes values for equal that the source tells apart (collation or type)`,
    );
}

/** The destination's usable key on the same columns; a strict one before a loose one. */
function targetKey(columns: readonly string[], carried: ReadonlyMap<string, string>, target: Table): Key | null {
  const names = columns.map((name) => carried.get(name) ?? name);
  const found = target.keys.filter((key) => key.usable && sameSet(key.columns, names));
  return found.find((key) => !key.loose) ?? found[0] ?? null;
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name) => b.includes(name));
}
