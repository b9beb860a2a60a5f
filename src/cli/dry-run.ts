/** What add-table would lead to: the destination table, and what is missing at either end. Writes nothing anywhere. */
import { randomUUID } from 'node:crypto';
import type { ControlDatabase, MappingRow, NewMapping } from '../control/index.ts';
import { SluiceError, toSluiceError } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import { displayName, type Table } from '../model/tables.ts';
import { checkMapping } from '../sync/check-mapping.ts';
import { linesOf } from './diagnosis.ts';
import type { Outcome } from './envelope.ts';
import { makePlan } from './planning.ts';

export async function dryRun(control: ControlDatabase, mapping: NewMapping, destinationUrl: string): Promise<Outcome> {
  const row = rowOf(mapping);
  const { plan, fleet } = await makePlan(control, destinationUrl, row);
  try {
    const problem = plan.problems.find((one) => one.row === row);
    if (problem) throw problem.error;
    const planned = plan.mappings.find((one) => one.row === row);
    if (!planned) throw new Error('the planner lost the row');
    const source = fleet.database(planned.source);
    const destination = fleet.database(planned.destination);
    const cdc = planned.stream !== null;
    const findings: Finding[] = [
      ...((await source.preflight?.source([planned.sourceTable], { cdc })) ?? []),
      ...((await destination.preflight?.destination()) ?? []),
    ];
    let table: Table | null = null;
    let live: Table | null = null;
    let error: SluiceError | null = null;
    try {
      ({ table, live } = await checkMapping({
        source,
        destination,
        sourceTable: planned.sourceTable,
        target: planned.target,
        keyColumns: row.primaryKey,
        stream: planned.stream,
        findings: async (found) => void findings.push(...found),
      }));
    } catch (thrown) {
      error = toSluiceError(thrown);
    }
    const first = findings.find((finding) => finding.severity === 'error');
    error ??= first ? new SluiceError(first.code, first.message) : null;
    const key = row.primaryKey ?? table?.keys.find((candidate) => candidate.usable)?.columns ?? [];
    const design = table && !live ? (destination.destination?.design(table, planned.target, key) ?? null) : null;
    const from = displayName(planned.sourceTable);
    const to = `${displayName(planned.target)} in ${planned.destination.database}`;
    return {
      summary: error
        ? error.message
        : `${from} would ${live ? 'fill the existing table' : 'make and fill'} ${to}. Nothing was changed.`,
      result: {
        source: { database: planned.source.database, ...planned.sourceTable },
        destination: { database: planned.destination.database, ...planned.target, exists: live !== null },
        ddl: design?.ddl ?? [],
        leftOut: design?.leftOut ?? [],
        findings,
      },
      lines: [
        ...findings.flatMap((finding) => linesOf({ about: from, ...finding })),
        ...(design?.ddl.map((sql) => `${sql};`) ?? []),
        ...(design?.leftOut.map((text) => `-- left out: ${text}`) ?? []),
      ],
      ...(error ? { error } : {}),
    };
  } finally {
    await fleet.close();
  }
}

/** The row as the poller would read it back. */
function rowOf(mapping: NewMapping): MappingRow {
  return {
    mappingId: 0,
    mappingUid: randomUUID(),
    serverId: mapping.serverId,
    sourceDatabase: mapping.sourceDatabase ?? null,
    sourceSchema: mapping.sourceSchema ?? null,
    sourceTable: mapping.sourceTable,
    destServerId: mapping.destServerId ?? null,
    destDatabase: mapping.destDatabase ?? null,
    destSchema: mapping.destSchema ?? null,
    destTable: mapping.destTable ?? null,
    primaryKey: mapping.primaryKey?.split(',').map((name) => name.trim()) ?? null,
    triggerColumn: mapping.triggerColumn ?? null,
    fullSyncFlag: false,
    enabled: true,
    cdcEnabled: mapping.cdcEnabled ?? true,
    applyGroup: mapping.applyGroup ?? null,
    initialSync: mapping.initialSync ?? 'copy',
    onGap: mapping.onGap ?? 'stop',
    maxFailedRows: 0,
    keepFailedValues: false,
    personHash: '',
    state: null,
    running: null,
    queued: null,
  };
}
