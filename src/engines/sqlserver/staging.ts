/** The table a copy is loaded into: like the live one where there is one, so that rows go over without a conversion; else as designed. */
import type { TableName } from '../../model/tables.ts';
import type { GenerationRequest } from '../contract.ts';
import { stagedColumns, stagedKey } from '../staged-columns.ts';
import { stagedType } from './exact.ts';
import { createTableSql, ownDesign } from './ddl.ts';
import { createSchemaSql } from './home.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

export function stagingSql(request: GenerationRequest, name: TableName): string[] {
  if (request.live === null)
    return [createSchemaSql(request.target.schema), createTableSql(ownDesign(request.design), name)];
  const key = new Set(stagedKey(request).map((column) => column.name));
  const declared = stagedColumns(request).map(
    (column) => `${quoteIdentifier(column.name)} ${stagedType(column)} ${key.has(column.name) ? 'NOT NULL' : 'NULL'}`,
  );
  return [`CREATE TABLE ${quoteTable(name)} (${declared.join(', ')})`];
}
