/**
 * What a person may write into the control tables, column by column. Blank text means NULL; words are read without regard
 * to case; whatever is refused says why in words that follow the column's name.
 */
import { z } from 'zod';
import { parseNameList } from './names.ts';

const blankToNull = (value: unknown) => (typeof value === 'string' && value.trim() === '' ? null : value);
const optionalName = z.preprocess(blankToNull, z.string().nullable());
const word = (allowed: readonly [string, ...string[]]) =>
  z.preprocess(
    (value) => (typeof value === 'string' ? value.trim().toLowerCase() : value) ?? allowed[0],
    z.enum(allowed, { error: `must be one of ${allowed.map((each) => `'${each}'`).join(', ')}` }),
  );
const flag = z.number().transform((value) => value === 1);

const keyList = z.preprocess(blankToNull, z.string().nullable()).transform((text, refinement) => {
  if (text === null) return null;
  const names = parseNameList(text);
  if (Array.isArray(names)) return names;
  refinement.addIssue({ code: 'custom', message: names.problem });
  return z.NEVER;
});

/** Keys are the columns' names: a problem names the column the person has to change. */
export const MAPPING = z.object({
  mapping_id: z.number(),
  mapping_uid: z.string(),
  server_id: z.number(),
  source_database: optionalName,
  source_schema: optionalName,
  source_table: z.string().refine((name) => name.trim() !== '', 'is empty'),
  dest_server_id: z.number().nullable(),
  dest_database: optionalName,
  dest_schema: optionalName,
  dest_table: optionalName,
  primary_key_column: keyList,
  full_sync_trigger_column: optionalName,
  is_full_sync: flag,
  is_enabled: flag,
  cdc_enabled: flag,
  apply_group: optionalName,
  initial_sync: word(['copy', 'none']),
  on_gap: word(['stop', 'resync']),
  max_failed_rows: z.coerce.number().min(0, 'is negative').max(Number.MAX_SAFE_INTEGER, 'is too large'),
  keep_failed_values: flag,
});

/** What a person writes, without the flag that asks for a full sync and without what pauses the mapping. */
export const PERSON_COLUMNS = Object.keys(MAPPING.shape).filter(
  (column) => !['mapping_id', 'is_full_sync', 'is_enabled'].includes(column),
);

export const SERVER = z.object({
  server_id: z.number(),
  server_name: z.string(),
  connection_string: z.string().refine((text) => text.trim() !== '', 'is empty'),
  is_enabled: flag,
});
