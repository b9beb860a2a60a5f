/** The table a copy is loaded into: like the live one where there is one, so that rows go over without a conversion; else as designed. */
import { SluiceError } from '../../model/errors.ts';
import type { Column } from '../../model/tables.ts';
import type { GenerationRequest } from '../contract.ts';
import { stagedType } from './exact.ts';
import { createTableSql, ownDesign } from './ddl.ts';
import { createSchemaSql } from './home.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import type { TableName } from '../../model/tables.ts';

export function stagingSql(request: GenerationRequest, name: TableName): string[] {
  if (request.live === null)
    return [createSchemaSql(request.target.schema), createTableSql(ownDesign(request.design), name)];
  const key = new Set(stagedKey(request).map((column) => column.name));
  const declared = stagedColumns(request).map(
    (column) => `${quoteIdentifier(column.name)} ${stagedType(column)} ${key.has(column.name) ? 'NOT NULL' : 'NULL'}`,
  );
  return [`CREATE TABLE ${quoteTable(name)} (${declared.join(', ')})`];
}

/** Columns as the staging table has them, in the order of the route. */
export function stagedColumns(request: GenerationRequest): Column[] {
  const { live, design } = request;
  return request.columns.map((column) => {
    const found = live?.columns.find((candidate) => candidate.name === column.target);
    if (found) return found;
    const designed = design.columns.find((candidate) => candidate.target === column.target);
    if (live || !designed) throw new SluiceError('INTERNAL', `column ${column.target} is not part of the design`);
    return {
      name: designed.target,
      nativeType: designed.nativeType,
      type: designed.type,
      nullable: true,
      generated: null,
      identity: null,
      default: null,
      collation: null,
    };
  });
}

export function stagedKey(request: GenerationRequest): Column[] {
  const columns = stagedColumns(request);
  return request.key.map((name) => {
    const column = columns[request.columns.findIndex((candidate) => candidate.source === name)];
    if (!column) throw new SluiceError('INTERNAL', 'the key is not among the carried columns');
    return column;
  });
}
