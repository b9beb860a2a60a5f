/**
 * Turns a control database of dbaops-dataflow, a tool that many come from, into ours, in place: its tables are renamed and kept, its
 * rows are carried over. All in one transaction, under the lock of migrations: whoever is killed has changed nothing.
 */
import { SluiceError } from '../model/errors.ts';
import { failpoint } from '../model/failpoint.ts';
import type { ControlContext, Queries } from './context.ts';
import { layoutOf, OLD_TABLES, type Layout } from './dataflow-layouts.ts';
import { applyAll, type Migration } from './migrate.ts';
import { SETTINGS } from './settings.ts';

export interface DataflowUpgrade {
  /** Null: it was upgraded before. */
  readonly layout: Layout | null;
  readonly renamed: readonly { readonly from: string; readonly to: string }[];
  readonly carried: readonly { readonly from: string; readonly to: string; readonly rows: number }[];
  /** Rows that stay in the renamed tables only: settings that do not exist here, mappings whose server is gone. */
  readonly left: readonly { readonly from: string; readonly rows: number }[];
  readonly applied: readonly string[];
}

const PREFIX = 'dataflow_';
/** Of these every row should have a place here; what of `logs` is no error is in sync_logs anyway. */
const WHOLE = ['table_mappings', 'config'];

/** For the hint of a plain migration, which would fail on the first name that is taken. */
export async function holdsDataflow(context: ControlContext): Promise<boolean> {
  const { dataflow } = context.dialect;
  if (!dataflow) return false;
  return context.run('look for tables of another tool', async (queries) =>
    (await context.dialect.hasSchema(queries)) ? false : layoutOf(await dataflow.readColumns(queries)) !== null,
  );
}

export async function upgradeDataflow(
  context: ControlContext,
  migrations: readonly Migration[],
  options: { dryRun: boolean; lockWaitSeconds?: number },
): Promise<DataflowUpgrade> {
  const { dataflow } = context.dialect;
  if (!dataflow)
    throw new SluiceError('CONFIG_INVALID', 'the tables of dbaops-dataflow are on SQL Server, and DEST_URL is not', {
      hint: 'Set DEST_SERVER, DEST_USER and DEST_PASS to the server of its database.',
    });
  const work = async (queries: Queries): Promise<DataflowUpgrade> => {
    const columns = await dataflow.readColumns(queries);
    if (await context.dialect.hasSchema(queries)) {
      if (columns.has(`${PREFIX}table_mappings`))
        return { layout: null, renamed: [], carried: [], left: [], applied: [] };
      throw nothingThere('its tables are those of Sluice already');
    }
    const layout = layoutOf(columns);
    if (layout === null) throw nothingThere('it has no tables of any generation of that tool');
    const renamed = OLD_TABLES.filter((name) => columns.has(name)).map((from) => ({ from, to: `${PREFIX}${from}` }));
    const taken = renamed.find(({ to }) => columns.has(to));
    if (taken)
      throw new SluiceError(
        'CONFIG_INVALID',
        `table ${taken.from} would be kept as ${taken.to}, and that name is taken`,
        {
          hint: `Rename it: ${dataflow.renameSql(taken.to, 'another_name')};`,
        },
      );
    if (!options.dryRun) {
      await dataflow.keep(queries, renamed);
      await applyAll(context, queries, migrations);
    }
    const called = (table: string) => (options.dryRun ? table : `${PREFIX}${table}`);
    const copies = dataflow.copies(layout, columns, called, Object.keys(SETTINGS));
    const carried: { from: string; to: string; rows: number }[] = [];
    const left: { from: string; rows: number }[] = [];
    for (const copy of copies) {
      const rows = await dataflow.count(queries, called(copy.from), copy.where);
      carried.push({ from: copy.from, to: copy.to, rows });
      if (WHOLE.includes(copy.from)) {
        const missing = (await dataflow.count(queries, called(copy.from))) - rows;
        if (missing > 0) left.push({ from: copy.from, rows: missing });
      }
      if (options.dryRun) continue;
      await dataflow.carry(queries, copy, called(copy.from));
      await failpoint('control.carried');
    }
    if (!options.dryRun) await compare((table) => dataflow.count(queries, table), carried);
    return { layout, renamed, carried, left, applied: options.dryRun ? [] : migrations.map(({ name }) => name) };
  };
  return context.run('upgrade the control database of dbaops-dataflow', (queries) =>
    context.dialect.migrateAlone(queries, options.lockWaitSeconds ?? 60, work),
  );
}

function nothingThere(why: string): SluiceError {
  return new SluiceError('CONFIG_INVALID', `the control database is not one of dbaops-dataflow: ${why}`, {
    hint: 'Set CONTROL_DATABASE to the database that the tool made, usually dbaops_dataflow.',
  });
}

/** Nothing was lost: else nothing is done. */
async function compare(count: (table: string) => Promise<number>, carried: DataflowUpgrade['carried']): Promise<void> {
  const expected = new Map<string, number>();
  for (const { to, rows } of carried) expected.set(to, (expected.get(to) ?? 0) + rows);
  for (const [table, rows] of expected) {
    const found = await count(table);
    if (found !== rows)
      throw new SluiceError(
        'INTERNAL',
        `${table} holds ${found} rows after the upgrade, ${rows} were to be carried over`,
      );
  }
}
