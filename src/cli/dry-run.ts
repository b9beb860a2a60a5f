/** What add-table would lead to: the destination table, and what is missing at either end. */
import { resolveSecrets, type ControlDatabase, type NewMapping, type ServerRow } from '../control/index.ts';
import { SluiceError, toSluiceError } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import { displayName, type Table } from '../model/tables.ts';
import { checkMapping } from '../sync/full-sync.ts';
import { linesOf } from './diagnosis.ts';
import { Ends, resolveNames } from './ends.ts';
import type { Outcome } from './envelope.ts';

/** Looks at both ends as a full sync would; writes nothing anywhere. */
export async function dryRun(
  control: ControlDatabase,
  mapping: NewMapping,
  server: ServerRow,
  destinationUrl: string,
): Promise<Outcome> {
  const ends = new Ends(await control.installation());
  try {
    const names = resolveNames(
      {
        sourceDatabase: mapping.sourceDatabase ?? null,
        sourceSchema: mapping.sourceSchema ?? null,
        sourceTable: mapping.sourceTable,
        destDatabase: mapping.destDatabase ?? null,
        destSchema: mapping.destSchema ?? null,
        destTable: mapping.destTable ?? null,
      },
      await resolveSecrets(server.connectionString),
    );
    const source = await ends.database(server.connectionString, names.sourceDatabase);
    const destination = await ends.database(destinationUrl, names.destDatabase);
    const cdc = mapping.cdcEnabled ?? true;
    const keyColumns = mapping.primaryKey?.split(',').map((name) => name.trim()) ?? null;
    const findings: Finding[] = [...((await source.preflight?.source([names.source], { cdc })) ?? [])];
    findings.push(...((await destination.preflight?.destination()) ?? []));
    let error: SluiceError | null = null;
    let live: Table | null = null;
    let table: Table | null = null;
    try {
      ({ live, table } = await checkMapping({
        source,
        destination,
        sourceTable: names.source,
        target: names.target,
        keyColumns,
        stream: cdc ? 'dry run' : null,
        findings: async (found) => void findings.push(...found),
      }));
    } catch (thrown) {
      error = toSluiceError(thrown);
    }
    const first = findings.find((finding) => finding.severity === 'error');
    error ??= first ? new SluiceError(first.code, first.message) : null;
    const key = keyColumns ?? table?.keys.find((candidate) => candidate.usable)?.columns ?? [];
    const design = table && !live ? (destination.destination?.design(table, names.target, key) ?? null) : null;
    const target = `${names.destDatabase ? `${names.destDatabase}, ` : ''}${displayName(names.target)}`;
    const what = live ? `would fill the existing table ${target}` : `would make and fill ${target}`;
    return {
      summary: error ? error.message : `${displayName(names.source)} ${what}. Nothing was changed.`,
      result: {
        source: names.source,
        target: names.target,
        exists: live !== null,
        ddl: design?.ddl ?? [],
        leftOut: design?.leftOut ?? [],
        findings,
      },
      lines: [
        ...findings.flatMap((finding) => linesOf({ about: displayName(names.source), ...finding })),
        ...(design?.ddl.map((sql) => `${sql};`) ?? []),
        ...(design?.leftOut.map((text) => `-- left out: ${text}`) ?? []),
      ],
      ...(error ? { error } : {}),
    };
  } finally {
    await ends.close();
  }
}
