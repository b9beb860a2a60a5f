/** The columns that a copy is loaded into: like the live table's where there is one, so that rows go over without a conversion; else as designed. */
import { SluiceError } from '../model/errors.ts';
import type { Column } from '../model/tables.ts';
import type { GenerationRequest } from './contract.ts';

/** In the order of the request. */
export function stagedColumns({ live, design, columns }: GenerationRequest): Column[] {
  return columns.map((column) => {
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
      default: designed.default ?? null,
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
