/** Whether a mapping may write where it points. */
import { SluiceError } from '../model/errors.ts';
import type { TableName } from '../model/tables.ts';
import type { Fleet } from './fleet.ts';
import type { PlannedMapping } from './planner.ts';

/**
 * F54, where the planner's look at connection strings does not reach: one server has many names. Asked of the databases
 * themselves before anything is written.
 */
export async function checkPlace(
  mapping: PlannedMapping,
  fleet: Fleet,
  mappingOf: (uid: string) => PlannedMapping | null,
): Promise<void> {
  const source = fleet.database(mapping.source);
  const destination = fleet.database(mapping.destination);
  const hint = 'Set dest_database, dest_schema or dest_table to another place.';
  // The empty schema is the database itself (`Engine.streamScope`).
  const target = { ...mapping.target, schema: mapping.target.schema || mapping.destination.database };
  const folds = (await destination.destination?.foldsNames?.()) ?? false;
  const isSame = (a: TableName, b: TableName) =>
    sameTable(a, b) || (folds && sameTable(inLowerCase(a), inLowerCase(b)));
  if (source.engine === destination.engine && isSame(mapping.sourceTable, target)) {
    const here = await source.destination?.identity();
    if (here !== undefined && here === (await destination.destination?.identity()))
      throw new SluiceError('MAPPING_INVALID', `${mapping.label}: source and destination are the same table`, {
        hint,
      });
  }
  await destination.destination?.prepare();
  for (const uid of (await destination.destination?.copies.writers(mapping.target)) ?? []) {
    const other = uid === mapping.row.mappingUid ? null : mappingOf(uid);
    // Of another place by now: it leaves when it is settled.
    if (!other || !isSame(other.target, mapping.target) || other.row.mappingId > mapping.row.mappingId) continue;
    throw new SluiceError(
      'DESTINATION_TAKEN',
      `${mapping.label}: mapping ${other.row.mappingId} already writes to this destination table`,
      { hint: 'Give one of the two another dest_database, dest_schema or dest_table, or delete it.' },
    );
  }
}

export function sameTable(a: TableName, b: TableName): boolean {
  return a.schema === b.schema && a.table === b.table;
}

/** `name`, as its server calls it, is the table that the mapping names. Where they differ in case only, the server says whether it is. */
export async function isNamedBy(
  { source, sourceTable }: PlannedMapping,
  name: TableName,
  fleet: Fleet,
): Promise<boolean> {
  if (sameTable(name, sourceTable)) return true;
  if (!sameTable(inLowerCase(name), inLowerCase(sourceTable))) return false;
  const [now = null] = await fleet.database(source).catalog.describe([sourceTable]);
  return now !== null && sameTable(name, now.name);
}

function inLowerCase({ schema, table }: TableName): TableName {
  return { schema: schema.toLowerCase(), table: table.toLowerCase() };
}
