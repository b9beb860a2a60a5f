/** Statements that make a table here hold what a source column holds, for hints. */
import type { TableName } from '../../model/tables.ts';
import type { Remedies } from '../contract.ts';
import { designColumn } from '../added-columns.ts';
import { addColumnSql, design } from './ddl.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

export const columnRemedies: Omit<Remedies, 'suspendGuards'> = {
  addColumn: (target, source, as) => {
    const designed = designColumn(design, target, source, as);
    return designed === null ? [] : addColumnSql(designed, target, [as]);
  },
  // ALTER COLUMN says type and collation again; what is not said becomes the database's default.
  allowNull: (target, column) =>
    alterColumn(
      target,
      column.name,
      column.nativeType,
      column.collation === null ? '' : ` COLLATE ${column.collation}`,
      true,
    ),
  retype: (target, column, source, as) => {
    const declared = designColumn(design, target, source, as)?.declared[0];
    return declared?.nativeType
      ? [alterColumn(target, column.name, declared.nativeType, declared.collate, column.nullable)]
      : [];
  },
};

function alterColumn(target: TableName, name: string, type: string, collate: string, nullable: boolean): string {
  return `ALTER TABLE ${quoteTable(target)} ALTER COLUMN ${quoteIdentifier(name)} ${type}${collate} ${nullable ? 'NULL' : 'NOT NULL'}`;
}
