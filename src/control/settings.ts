/**
 * Every setting of the `config` table, once: its default, range, unit and meaning. The table is seeded from here, the
 * documentation is printed from here, and a value read back is checked here. All values are whole numbers.
 */
import { z } from 'zod';
import { SluiceError } from '../model/errors.ts';
import type { ControlContext } from './context.ts';

interface SettingSpec {
  readonly default: number;
  readonly min: number;
  readonly max: number;
  readonly unit: string;
  readonly description: string;
}

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const TIB = 1024 ** 4;

export const SETTINGS = {
  cdc_check_interval_seconds: {
    default: 10,
    min: 1,
    max: 3600,
    unit: 's',
    description:
      'How often the control tables are read, and sources that are polled are asked for changes (sooner while they have some)',
  },
  verification_interval_minutes: {
    default: 5,
    min: 0,
    max: 525_600,
    unit: 'min',
    description: 'How often source and destination are compared; 0 = never',
  },
  parallel_scheduler_count: {
    default: 5,
    min: 1,
    max: 256,
    unit: 'jobs',
    description: 'Copies and verifications that run at once in one process',
  },
  server_parallel_count: {
    default: 4,
    min: 1,
    max: 256,
    unit: 'jobs',
    description: 'Copies and verifications that run at once against one source server',
  },
  batch_size: {
    default: 1000,
    min: 1,
    max: 1_000_000,
    unit: 'rows',
    description: 'Rows at which a waiting batch of changes is sent; it grows to batch_max_bytes when more is waiting',
  },
  batch_max_bytes: {
    default: 16 * MIB,
    min: 64 * 1024,
    max: GIB,
    unit: 'bytes',
    description: 'Largest batch of changes; while it is written the next one is read',
  },
  max_retry_attempts: {
    default: 3,
    min: 0,
    max: 1000,
    unit: 'times',
    description: 'How often a failed step is tried again before the mapping is failed',
  },
  retry_delay_seconds: {
    default: 30,
    min: 1,
    max: 86_400,
    unit: 's',
    description: 'Pause before a failed step is tried again',
  },
  failed_retry_minutes: {
    default: 15,
    min: 1,
    max: 10_080,
    unit: 'min',
    description: 'How often a failed mapping is tried again, besides when its row changes',
  },
  verification_row_count: {
    default: 10_000,
    min: 1,
    max: 100_000_000,
    unit: 'rows',
    description: 'Newest rows by key that a verification compares',
  },
  hold_max_bytes: {
    default: 10 * GIB,
    min: MIB,
    max: 1024 * TIB,
    unit: 'bytes',
    description:
      "How much of its log a source may keep for a destination that is away; past it the destination's mappings enter gap",
  },
  hold_max_hours: {
    default: 24,
    min: 1,
    max: 8760,
    unit: 'h',
    description:
      "How long a source may keep its log for a destination that is away; past it the destination's mappings enter gap",
  },
  backlog_max_bytes: {
    default: 10 * GIB,
    min: MIB,
    max: 1024 * TIB,
    unit: 'bytes',
    description: 'Largest backlog of a paused, failing or copying mapping',
  },
  copy_max_bytes_per_second: {
    default: 0,
    min: 0,
    max: TIB,
    unit: 'bytes/s',
    description: 'Largest rate of a full sync; 0 = no limit',
  },
  copy_chunk_bytes: {
    default: 64 * MIB,
    min: MIB,
    max: 16 * GIB,
    unit: 'bytes',
    description: 'Size of one chunk of a full sync, about; each is a short transaction on the source',
  },
  copy_parallelism: {
    default: 2,
    min: 1,
    max: 64,
    unit: 'chunks',
    description: 'Chunks of one full sync that are read at once',
  },
  lease_seconds: {
    default: 15,
    min: 5,
    max: 600,
    unit: 's',
    description: 'How long work stays with a process that no longer answers',
  },
  log_retention_days: {
    default: 30,
    min: 1,
    max: 3650,
    unit: 'd',
    description: 'How long sync_logs, error_logs, verification_logs, sync_status and finished requests are kept',
  },
  dead_letter_retention_days: {
    default: 90,
    min: 1,
    max: 3650,
    unit: 'd',
    description: 'How long dead_letters are kept',
  },
  trigger_poll_seconds: {
    default: 60,
    min: 5,
    max: 86_400,
    unit: 's',
    description: 'How often trigger columns are polled where the change stream does not show them',
  },
} as const satisfies Record<string, SettingSpec>;

export type SettingName = keyof typeof SETTINGS;
export type Settings = { readonly [name in SettingName]: number };

/** A row of `config` that is not used, and why. The setting keeps its last good value. */
export interface SettingProblem {
  readonly key: string;
  readonly error: SluiceError;
}

const NAMES = Object.keys(SETTINGS) as SettingName[];

export const DEFAULT_SETTINGS: Settings = fromEntries((name) => SETTINGS[name].default);

function fromEntries(valueOf: (name: SettingName) => number): Settings {
  return Object.fromEntries(NAMES.map((name) => [name, valueOf(name)])) as Record<SettingName, number>;
}

function schemaOf(spec: SettingSpec): z.ZodType<number> {
  return z
    .string()
    .trim()
    .regex(/^[+-]?\d+$/, 'is not a whole number')
    .transform(Number)
    .pipe(z.number().min(spec.min, 'is too small').max(spec.max, 'is too large'));
}

const SCHEMAS = new Map<string, { name: SettingName; schema: z.ZodType<number> }>(
  NAMES.map((name) => [name, { name, schema: schemaOf(SETTINGS[name]) }]),
);

/**
 * Checks rows of `config`. A missing row means the default; an invalid one is a problem and keeps the value of `last`
 * (an unknown key is a problem only). Keys are compared without regard to case and surrounding blanks.
 */
export function parseSettings(
  rows: readonly { key: string; value: string }[],
  last: Settings = DEFAULT_SETTINGS,
): { settings: Settings; problems: SettingProblem[] } {
  const values = new Map<SettingName, number>();
  const problems: SettingProblem[] = [];
  for (const { key, value } of rows) {
    const known = SCHEMAS.get(key.trim().toLowerCase());
    if (!known) {
      problems.push({ key, error: unknownKey(key) });
      continue;
    }
    const parsed = known.schema.safeParse(value);
    if (parsed.success) {
      values.set(known.name, parsed.data);
      continue;
    }
    values.set(known.name, last[known.name]);
    problems.push({
      key,
      error: invalidValue(known.name, value, parsed.error.issues[0]?.message ?? 'is invalid', last[known.name]),
    });
  }
  return { settings: fromEntries((name) => values.get(name) ?? SETTINGS[name].default), problems };
}

function unknownKey(key: string): SluiceError {
  const wanted = key.trim().toLowerCase();
  const near = NAMES.find((name) => name.startsWith(wanted.slice(0, 8)) || name.includes(wanted));
  return new SluiceError('CONFIG_INVALID', `config: there is no setting ${key}`, {
    hint: near ? `Did you mean ${near}?` : `Delete the row; settings are ${NAMES.join(', ')}.`,
  });
}

function invalidValue(name: SettingName, value: string, problem: string, used: number): SluiceError {
  const { min, max, unit } = SETTINGS[name];
  // A person may paste anything here, a password too: a long value is not repeated.
  const shown = /^[\w.+-]{1,20}$/.test(value) ? `'${value}'` : 'its value';
  return new SluiceError('CONFIG_INVALID', `config: ${name}: ${shown} ${problem}; ${used} stays in use`, {
    hint: `UPDATE config SET config_value = '${SETTINGS[name].default}' WHERE config_key = '${name}'; accepted are ${min} to ${max} (${unit}).`,
  });
}

export class SettingsStore {
  readonly #context: ControlContext;
  #last: Settings = DEFAULT_SETTINGS;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /** Adds the rows that are missing, with defaults; a person's values stay. Resolves to how many were added. */
  async seed(): Promise<number> {
    const rows = NAMES.map((name) => {
      const { default: value, min, max, unit, description } = SETTINGS[name];
      return {
        config_key: name,
        config_value: String(value),
        description: `${description} (${unit}, ${min} to ${max})`,
      };
    });
    return this.#context.run('write the default settings', (queries) =>
      this.#context.dialect.insertMissing(queries, 'config', rows, ['config_key']),
    );
  }

  /** Reads the table; an invalid value keeps the one that was last good in this process (at first the default). */
  async readSettings(): Promise<{ settings: Settings; problems: SettingProblem[] }> {
    const rows = await this.#context.run('read the settings', (queries) =>
      queries('config').select<{ key: string; value: string }[]>('config_key as key', 'config_value as value'),
    );
    const result = parseSettings(rows, this.#last);
    this.#last = result.settings;
    return result;
  }
}
