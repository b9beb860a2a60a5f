/** Statements that make a table here hold what a source column holds, for hints. */
import { hasCode } from '../../model/errors.ts';
import type { Table, TableName } from '../../model/tables.ts';
import type { Remedies } from '../contract.ts';
import { addColumnSql, design, type SqlServerDesign } from './ddl.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

export const columnRemedies: Omit<Remedies, 'suspendGuards'> = {
  addColumn: (target, source, as) => {
    const designed = designOf(target, source, as);
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
    const declared = designOf(target, source, as)?.declared[0];
    return declared?.nativeType
      ? [alterColumn(target, column.name, declared.nativeType, declared.collate, column.nullable)]
      : [];
  },
};

function alterColumn(target: TableName, name: string, type: string, collate: string, nullable: boolean): string {
  return `ALTER TABLE ${quoteTable(target)} ALTER COLUMN ${quoteIdentifier(name)} ${type}${collate} ${nullable ? 'NULL' : 'NOT NULL'}`;
}

/** One column, as it would be declared; null: no type here holds it. */
function designOf(target: TableName, source: Table, column: string): SqlServerDesign | null {
  try {
    const columns = source.columns.filter((candidate) => candidate.name === column);
    return design({ ...source, columns, keys: [], indexes: [], foreignKeys: [], triggers: [] }, target, []);
  } catch (error) {
    if (hasCode(error, 'SCHEMA_MISMATCH')) return null;
    throw error;
  }
}
