/** Names of what Sluice keeps in a destination database, the same in every engine that has schemas (PROTOCOL, Rows that coordinate). */
import { createHash } from 'node:crypto';
import type { TableName } from '../model/tables.ts';

export const HOME = 'sluice';

/** Short, stable part of a mapping's uid for names of its own tables. */
function tag(mappingUid: string): string {
  return createHash('sha256').update(mappingUid).digest('hex').slice(0, 16);
}

export function stagingTable(mappingUid: string, generation: number): TableName {
  return { schema: HOME, table: `stage_${tag(mappingUid)}_${generation}` };
}

export function backlogTable(mappingUid: string, generation: number): TableName {
  return { schema: HOME, table: `backlog_${tag(mappingUid)}_${generation}` };
}
