/**
 * Turns a control database of dbaops-dataflow, a tool that many come from, into ours, in place: its tables are renamed and kept, its
 * rows are carried over. All in one transaction, under the lock of migrations: whoever is killed has changed nothing.
 */
import { SluiceError } from '../model/errors.ts';
import { failpoint } from '../model/failpoint.ts';
import type { ControlContext, Queries } from './context.ts';
import { copiesOf, layoutOf, OLD_TABLES, OLD_VIEWS, type Columns, type Copy, type Layout } from './dataflow-rows.ts';
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
  if (context.dialect.name !== 'sqlserver') return false;
  return context.run('look for tables of another tool', async (queries) =>
    (await context.dialect.hasSchema(queries)) ? false : layoutOf(await readColumns(queries)) !== null,
  );
}

export async function upgradeDataflow(
  context: ControlContext,
  migrations: readonly Migration[],
  options: { dryRun: boolean; lockWaitSeconds?: number },
): Promise<DataflowUpgrade> {
  if (context.dialect.name !== 'sqlserver')
    throw new SluiceError('CONFIG_INVALID', 'the tables of dbaops-dataflow are on SQL Server, and DEST_URL is not', {
      hint: 'Set DEST_SERVER, DEST_USER and DEST_PASS to the server of its database.',
    });
  return context.transaction('upgrade the control database of dbaops-dataflow', async (queries) => {
    await context.dialect.lockForMigration(queries, options.lockWaitSeconds ?? 60);
    const columns = await readColumns(queries);
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
          hint: `Rename it: EXEC sp_rename N'dbo.${taken.to}', N'another_name';`,
        },
      );
    if (!options.dryRun) {
      for (const view of OLD_VIEWS) await queries.raw(`DROP VIEW IF EXISTS dbo.${view}`);
      for (const { from, to } of renamed) await queries.raw(`EXEC sp_rename N'dbo.${from}', N'${to}', N'OBJECT'`);
      await applyAll(context, queries, migrations);
    }
    const place = (table: string) => `dbo.${options.dryRun ? table : `${PREFIX}${table}`}`;
    const copies = copiesOf(layout, columns, place, Object.keys(SETTINGS));
    const carried: { from: string; to: string; rows: number }[] = [];
    const left: { from: string; rows: number }[] = [];
    for (const copy of copies) {
      const rows = await count(queries, place(copy.from), copy.where);
      carried.push({ from: copy.from, to: copy.to, rows });
      if (WHOLE.includes(copy.from)) {
        const missing = (await count(queries, place(copy.from))) - rows;
        if (missing > 0) left.push({ from: copy.from, rows: missing });
      }
      if (options.dryRun) continue;
      await carry(queries, copy, place(copy.from));
      await failpoint('control.carried');
    }
    if (!options.dryRun) await compare(queries, carried);
    return { layout, renamed, carried, left, applied: options.dryRun ? [] : migrations.map(({ name }) => name) };
  });
}

function nothingThere(why: string): SluiceError {
  return new SluiceError('CONFIG_INVALID', `the control database is not one of dbaops-dataflow: ${why}`, {
    hint: 'Set CONTROL_DATABASE to the database that the tool made, usually dbaops_dataflow.',
  });
}

async function readColumns(queries: Queries): Promise<Columns> {
  const rows = await queries.raw<{ table_name: string; column_name: string }[]>(
    `SELECT t.name AS table_name, c.name AS column_name FROM sys.tables AS t JOIN sys.columns AS c ON c.object_id = t.object_id
     WHERE t.schema_id = SCHEMA_ID(N'dbo')`,
  );
  const found = new Map<string, Set<string>>();
  for (const row of rows) {
    const name = row.table_name.toLowerCase();
    const columns = found.get(name) ?? new Set();
    found.set(name, columns.add(row.column_name.toLowerCase()));
  }
  return found;
}

async function carry(queries: Queries, { to, values, where, order, keepsId }: Copy, from: string): Promise<void> {
  const names = Object.keys(values);
  const insert =
    `INSERT INTO dbo.${to} (${names.join(', ')}) SELECT ${names.map((name) => values[name]).join(', ')} ` +
    `FROM ${from} AS o ${where === undefined ? '' : `WHERE ${where}`} ORDER BY o.${order}`;
  // One batch: the setting is the session's, and holds for one table at a time.
  await queries.raw(
    keepsId ? `SET IDENTITY_INSERT dbo.${to} ON; ${insert}; SET IDENTITY_INSERT dbo.${to} OFF` : insert,
  );
}

async function count(queries: Queries, table: string, where = '1 = 1'): Promise<number> {
  const [row] = await queries.raw<{ n: unknown }[]>(`SELECT COUNT_BIG(*) AS n FROM ${table} AS o WHERE ${where}`);
  return Number(row?.n);
}

/** Nothing was lost: else nothing is done. */
async function compare(queries: Queries, carried: DataflowUpgrade['carried']): Promise<void> {
  const expected = new Map<string, number>();
  for (const { to, rows } of carried) expected.set(to, (expected.get(to) ?? 0) + rows);
  for (const [table, rows] of expected) {
    const found = await count(queries, `dbo.${table}`);
    if (found !== rows)
      throw new SluiceError(
        'INTERNAL',
        `${table} holds ${found} rows after the upgrade, ${rows} were to be carried over`,
      );
  }
}
