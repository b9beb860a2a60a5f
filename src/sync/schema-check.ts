/**
 * Compares a source table with its destination before any row moves (invariant 6): which columns are carried to which, by
 * which key, and what stands in the way. Pure; knows no engine.
 */
import type { Remedies, RouteColumn, Suspends, TableDesign } from '../engines/contract.ts';
import { hasCode } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import { displayName, type Column, type Table } from '../model/tables.ts';
import { cannotHold, type LogicalType } from '../model/types.ts';
import { routeColumn } from './drift.ts';
import { chooseKey, type KeyRequest, type Report } from './key-choice.ts';

export interface SchemaCheckRequest extends KeyRequest {
  /** What of the destination's table the destination can suspend for a session. */
  readonly suspends: Suspends;
  /** Earlier copies filled the destination table, so that columns the source has gained are added to it. */
  readonly mayAdd?: boolean;
  /**
   * How the destination would declare the source's table with this key: a column that is declared so takes what it can (a uuid as text
   * where there is no such type). Throws SCHEMA_MISMATCH where it cannot.
   */
  readonly design?: ((key: readonly string[]) => TableDesign) | null;
  /** Statements of the destination's engine, for hints. */
  readonly remedies?: Remedies | null;
}

export interface SchemaCheck {
  /** At most one per column, then those on the table. Any of severity `error`: the mapping cannot run. */
  readonly findings: readonly Finding[];
  /** Source columns that are carried, in the source's order. */
  readonly columns: readonly RouteColumn[];
  /** Source names of columns that the destination table lacks and is to be given (`mayAdd`). */
  readonly missing: readonly string[];
  /** Source names of the key's columns; empty: no key (only without `cdc`). */
  readonly key: readonly string[];
}

export function checkSchema(request: SchemaCheckRequest): SchemaCheck {
  const { source, target } = request;
  const findings: Finding[] = [];
  const report: Report = (severity, code, message, fixSql = []) => findings.push({ code, severity, message, fixSql });
  const missing: string[] = [];
  if (request.cdc && source.kind === 'other')
    report('error', 'CAPABILITY_MISSING', `${displayName(source.name)} is not a table: its changes cannot be followed`);
  const pairs = target === null ? null : matchColumns(source, target);
  const designed = pairs === null ? new Map<string, string>() : designedTypes(request, pairs);
  const columns: RouteColumn[] = [];
  for (const column of source.columns) {
    const match = pairs?.get(column.name);
    if (target !== null) {
      const what = `column ${column.name} of ${displayName(target.name)}`;
      const isAsDesigned = match !== undefined && designed.get(column.name) === match.nativeType;
      const problem = columnProblem(column, match ?? null, { source, target, isAsDesigned });
      if (match === undefined && request.mayAdd === true) {
        if (column.generated === null) {
          missing.push(column.name);
          report('info', 'COLUMN_ADDED', `${what}: new at the source, so it is added`);
        } else report('warning', 'SCHEMA_MISMATCH', `${what}: ${problem?.why ?? ''}`);
      } else if (problem !== null)
        report('error', 'SCHEMA_MISMATCH', `${what}: ${problem.why}`, fix(problem, column, match, request));
    }
    if (column.generated === null && (target === null || match !== undefined || missing.includes(column.name)))
      columns.push(routeColumn(column, match?.name ?? column.name));
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
    guards(target, request, report);
  }
  return { findings, columns, missing, key: chooseKey(request, columns, report) };
}

/** By source column: the native type that the destination would give it. None where it could not make the table. */
function designedTypes(request: SchemaCheckRequest, pairs: ReadonlyMap<string, Column>): Map<string, string> {
  const carried = [...pairs].map(([source, { name }]) => ({ source, target: name }));
  try {
    const design = request.design?.(chooseKey(request, carried, () => undefined));
    return new Map(design?.columns.map((column) => [column.source, column.nativeType]));
  } catch (error) {
    if (!hasCode(error, 'SCHEMA_MISMATCH')) throw error;
    return new Map();
  }
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

/** Why a column cannot be carried: `why` is the rest of "column x of y: …". */
interface Problem {
  readonly kind: 'missing' | 'generated' | 'type' | 'null';
  readonly why: string;
}

/** Null: it can be carried, or need not. */
function columnProblem(
  column: Column,
  match: Column | null,
  { source, target, isAsDesigned }: { source: Table; target: Table; isAsDesigned: boolean },
): Problem | null {
  const sameEngine = source.engine === target.engine;
  if (column.generated !== null) {
    if (match !== null && sameEngine && match.generated === column.generated) return null;
    const why =
      match === null
        ? 'missing; it is generated at the source, so declare it here by the same expression'
        : 'it is generated at the source and not by the same expression here; declare it by that expression';
    return { kind: 'generated', why };
  }
  if (match === null) return { kind: 'missing', why: 'missing' };
  if (match.generated !== null)
    return { kind: 'generated', why: 'it is generated here and an ordinary column at the source' };
  if (match.selfWritten)
    return { kind: 'generated', why: 'only the server writes it here; declare it as an ordinary column' };
  const isSame = isAsDesigned || sameTypes(column, match, sameEngine);
  const reason = isSame ? null : cannotHold(column.type, match.type);
  if (reason !== null)
    return { kind: 'type', why: `${column.nativeType} does not go into ${match.nativeType}: ${reason}` };
  if (column.nullable && !match.nullable)
    return { kind: 'null', why: 'it is NOT NULL here and may be NULL at the source' };
  return null;
}

function fix(
  problem: Problem,
  column: Column,
  match: Column | undefined,
  { source, target, remedies }: SchemaCheckRequest,
): readonly string[] {
  if (!remedies || target === null) return [];
  if (problem.kind === 'missing') return remedies.addColumn(target.name, source, column.name);
  if (problem.kind === 'type' && match) return remedies.retype(target.name, match, source, column.name);
  return problem.kind === 'null' && match ? [remedies.allowNull(target.name, match)] : [];
}

/** An enum's name says nothing of its labels, so those are always compared. */
function sameTypes(column: Column, match: Column, sameEngine: boolean): boolean {
  const { type } = column;
  if (type.kind === 'opaque' && type.untransportable !== undefined) return false;
  return sameEngine && column.nativeType === match.nativeType && !hasLabels(type);
}

function hasLabels(type: LogicalType): boolean {
  return type.kind === 'enum' || (type.kind === 'array' && hasLabels(type.element));
}

function fillsItself(column: Column): boolean {
  return (
    column.default !== null || column.generated !== null || column.identity !== null || column.selfWritten === true
  );
}

/** Triggers would change rows a second time, and cascades remove some that the source still has; order alone does not help. */
function guards(target: Table, { suspends, remedies }: SchemaCheckRequest, report: Report): void {
  if (target.isTransactional === false)
    report(
      'error',
      'CAPABILITY_MISSING',
      `${displayName(target.name)} takes no part in transactions, so that its rows cannot commit with the position`,
      remedies?.makeTransactional?.(target) ?? [],
    );
  const kinds: [string, readonly string[]][] = [
    ...(suspends.triggers ? [] : ([['enabled triggers', target.triggers]] as [string, readonly string[]][])),
    ...(suspends.foreignKeys
      ? []
      : ([
          ['foreign keys', target.foreignKeys],
          ['foreign keys of other tables that refer to it', target.referencedBy],
        ] as [string, readonly string[]][])),
  ];
  const found = kinds.filter(([, names]) => names.length > 0).map(([kind, names]) => `${kind} (${names.join(', ')})`);
  if (found.length > 0)
    report(
      'error',
      'DESTINATION_GUARDED',
      `${displayName(target.name)} has ${found.join(', ')}, which this login cannot suspend while rows are written`,
      remedies?.suspendGuards(target) ?? [],
    );
}
