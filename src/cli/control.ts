/** How commands reach the control database, and how a person's name for a mapping finds its row. */
import { ControlDatabase, type MappingHealth } from '../control/index.ts';
import { SluiceError } from '../model/errors.ts';
import type { Environment } from './environment.ts';

/** Opens the control database for `work` and closes it. DESTINATION_MISSING when none is configured. */
export async function withControl<T>(
  environment: Environment,
  work: (control: ControlDatabase) => Promise<T>,
  options: { check: boolean } = { check: true },
): Promise<T> {
  const control = await openControl(environment);
  try {
    if (options.check) await control.check();
    return await work(control);
  } finally {
    await control.close();
  }
}

export function openControl(environment: Environment): Promise<ControlDatabase> {
  if (environment.destinationUrl === null) {
    throw new SluiceError('DESTINATION_MISSING', 'no destination is configured', {
      hint: 'Set DEST_URL, for example postgres://user:password@host:5432/ (see .env.example), or start with: sluice run --embedded',
    });
  }
  return ControlDatabase.open({
    url: environment.destinationUrl,
    database: environment.controlDatabase,
    applicationName: 'sluice',
  });
}

/** `12`, `orders`, `public.orders`, or the full name that `displayName` gives. CONFIG_INVALID when none or several match. */
export function findMapping(all: readonly MappingHealth[], text: string): MappingHealth {
  const found = /^\d+$/.test(text)
    ? all.filter((one) => one.mappingId === Number(text))
    : all.filter((one) =>
        [one.sourceTable, `${one.sourceSchema ?? ''}.${one.sourceTable}`, displayName(one)].includes(text),
      );
  const [mapping] = found;
  if (mapping === undefined) {
    throw new SluiceError('CONFIG_INVALID', `there is no mapping ${text}`, { hint: 'sluice status lists them.' });
  }
  if (found.length > 1) {
    throw new SluiceError('CONFIG_INVALID', `${found.length} mappings are called ${text}`, {
      hint: `Say which by its number: ${found.map((one) => one.mappingId).join(', ')}.`,
    });
  }
  return mapping;
}

/** `server: database.schema.table`, with what the row names. */
export function displayName(mapping: MappingHealth): string {
  const table = [mapping.sourceDatabase, mapping.sourceSchema, mapping.sourceTable].filter((part) => part !== null);
  return `${mapping.server}: ${table.join('.')}`;
}
