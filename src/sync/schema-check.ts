/**
 * Compares a source table with its destination before any row moves (invariant 6): which columns are carried to which, by
 * which key, and what stands in the way. Pure; knows no engine.
 */
import type { RouteColumn } from '../engines/contract.ts';
import type { Finding } from '../model/findings.ts';
import { displayName, type Column, type Table } from '../model/tables.ts';
import { cannotHold, type LogicalType } from '../model/types.ts';
import { chooseKey, type KeyRequest, type Report } from './key-choice.ts';

export interface SchemaCheckRequest extends KeyRequest {
  /** The destination can suspend triggers and foreign keys for a session. */
  readonly canSuspend: boolean;
}

export interface SchemaCheck {
  /** At most one per column, then those on the table. Any of severity `error`: the mapping cannot run. */
  readonly findings: readonly Finding[];
  /** Source columns that are carried, in the source's order. */
  readonly columns: readonly RouteColumn[];
  /** Source names of the key's columns; empty: no key (only without `cdc`). */
  readonly key: readonly string[];
}

export function checkSchema(request: SchemaCheckRequest): SchemaCheck {
  const { source, target } = request;
  const findings: Finding[] = [];
  const report: Report = (severity, code, message) => findings.push({ code, severity, message, fixSql: [] });
  if (request.cdc && source.kind === 'other')
    report('error', 'CAPABILITY_MISSING', `${displayName(source.name)} is not a table: its changes cannot be followed`);
  const pairs = target === null ? null : matchColumns(source, target);
  const columns: RouteColumn[] = [];
  for (const column of source.columns) {
    const match = pairs?.get(column.name);
    if (target !== null) {
      const problem = columnProblem(column, match ?? null, source, target);
      if (problem !== null)
        report('error', 'SCHEMA_MISMATCH', `column ${column.name} of ${displayName(target.name)}: ${problem}`);
    }
    if (column.generated === null && (target === null || match !== undefined))
      columns.push({ source: column.name, target: match?.name ?? column.name });
  }
  if (target !== null) {
    const matched = new Set([...(pairs?.values() ?? [])].map((column) => column.name));
    for (const column of target.columns) {
      if (matched.has(column.name) || column.nullable || fillsItself(column)) continue;
      report(
        'error',
        'SCHEMA_MISMATCH',
        `column ${column.name} of ${displayName(target.name)}: the source has no such column, and it is NOT NULL without a default`,
      );
    }
    guards(target, request.canSuspend, report);
  }
  return { findings, columns, key: chooseKey(request, columns, report) };
}

/** By exact name; what is left, by name in any case where that is unambiguous. Values: the destination's columns. */
function matchColumns(source: Table, target: Table): Map<string, Column> {
  const pairs = new Map<string, Column>();
  const free = new Map(target.columns.map((column) => [column.name, column]));
  for (const { name } of source.columns) {
    const exact = free.get(name);
    if (exact) {
      pairs.set(name, exact);
      free.delete(name);
    }
  }
  for (const { name } of source.columns) {
    if (pairs.has(name)) continue;
    const folded = name.toLowerCase();
    const candidates = [...free.values()].filter((column) => column.name.toLowerCase() === folded);
    const rivals = source.columns.filter((one) => !pairs.has(one.name) && one.name.toLowerCase() === folded);
    const [match] = candidates;
    if (match && candidates.length === 1 && rivals.length === 1) pairs.set(name, match);
  }
  return pairs;
}

/** Why this column cannot be carried, as the rest of "column x of y: …"; null: it can, or need not. */
function columnProblem(column: Column, match: Column | null, source: Table, target: Table): string | null {
  const sameEngine = source.engine === target.engine;
  if (column.generated !== null) {
    if (match !== null && sameEngine && match.generated === column.generated) return null;
    return match === null
      ? 'missing; it is generated at the source, so declare it here by the same expression'
      : 'it is generated at the source and not by the same expression here; declare it by that expression';
  }
  if (match === null) return 'missing';
  if (match.generated !== null) return 'it is generated here and an ordinary column at the source';
  const reason = sameTypes(column, match, sameEngine) ? null : cannotHold(column.type, match.type);
  if (reason !== null) return `${column.nativeType} does not go into ${match.nativeType}: ${reason}`;
  if (column.nullable && !match.nullable) return 'it is NOT NULL here and may be NULL at the source';
  return null;
}

/** An enum's name says nothing of its labels, so those are always compared. */
function sameTypes(column: Column, match: Column, sameEngine: boolean): boolean {
  return sameEngine && column.nativeType === match.nativeType && !hasLabels(column.type);
}

function hasLabels(type: LogicalType): boolean {
  return type.kind === 'enum' || (type.kind === 'array' && hasLabels(type.element));
}

function fillsItself(column: Column): boolean {
  return column.default !== null || column.generated !== null || column.identity !== null;
}

function guards(target: Table, canSuspend: boolean, report: Report): void {
  if (canSuspend) return;
  const kinds: [string, readonly string[]][] = [
    ['enabled triggers', target.triggers],
    ['foreign keys', target.foreignKeys],
    ['foreign keys of other tables that refer to it', target.referencedBy],
  ];
  const found = kinds.filter(([, names]) => names.length > 0).map(([kind, names]) => `${kind} (${names.join(', ')})`);
  if (found.length > 0)
    report(
      'warning',
      'DESTINATION_GUARDED',
      `${displayName(target.name)} has ${found.join(', ')}, which this login cannot suspend while rows are written`,
    );
}
