/** What statements do to one table, applied to another of the same server on a session of the test's. */
import { expect } from 'chai';
import type { ApplyCounts } from '../../../src/engines/contract.ts';
import { describeTables } from '../../../src/engines/mysql/catalog.ts';
import type { Connection, Session } from '../../../src/engines/mysql/connection.ts';
import { readColumns, readRows } from '../../../src/engines/mysql/rows.ts';
import { quoteIdentifier } from '../../../src/engines/mysql/sql.ts';
import { TableApplier } from '../../../src/engines/mysql/table-applier.ts';
import { BEGIN, openWriter } from '../../../src/engines/mysql/transactions.ts';
import { selectExpression } from '../../../src/engines/mysql/types.ts';
import type { Cell } from '../../../src/model/changes.ts';
import type { KeyedChanges } from '../../../src/model/keyed-changes.ts';
import { Collapse } from '../../../src/sync/collapse.ts';
import type { MysqlTestDatabase } from '../../support/mysql.ts';
import type { Stream } from './stream.ts';
import { shown } from './values.ts';

/** The changes, of which nobody may make cells. */
export function asTheyCame(changes: KeyedChanges): KeyedChanges {
  expect(changes.images).not.to.equal(null);
  return Object.defineProperties({} as KeyedChanges, {
    ...Object.getOwnPropertyDescriptors(changes),
    upserts: {
      get: () => {
        throw new Error('cells were made');
      },
    },
  });
}

/** A session as the service writes by, and what is replayed on it. */
export async function openReplay(
  database: MysqlTestDatabase,
  stream: Stream,
  connection: Connection,
): Promise<{ session: Session; rows: Replay }> {
  const session = await openWriter(connection, { patient: true });
  return { session, rows: new Replay(database, stream, session) };
}

export class Replay {
  readonly #database: MysqlTestDatabase;
  readonly #stream: Stream;
  readonly #session: Session;
  /** By target: kept from one replay to the next, once set. */
  kept: Map<string, TableApplier> | null = null;

  constructor(database: MysqlTestDatabase, stream: Stream, session: Session) {
    this.#database = database;
    this.#stream = stream;
    this.#session = session;
  }

  async of(table: string): Promise<Cell[][]> {
    const { columns } = await this.#described(table);
    const list = columns.map((column) => selectExpression(column.nativeType, quoteIdentifier(column.name)));
    const sql = `SELECT ${list.join(', ')} FROM ${quoteIdentifier(table)} ORDER BY 1`;
    const rows: Cell[][] = [];
    for await (const { cells, rows: count } of readRows(this.#session, 'read rows', sql, readColumns(columns)))
      for (let row = 0; row < count; row++) rows.push(cells.slice(row * columns.length, (row + 1) * columns.length));
    return rows;
  }

  async expectSame(left: string, right: string): Promise<void> {
    const { columns } = await this.#described(right);
    const text = (rows: readonly Cell[][]) =>
      rows.flatMap((row, r) =>
        row.map((cell, i) => `row ${r}, ${columns[i]?.nativeType}: ${typeof cell} ${shown(cell)}`),
      );
    const [found, wanted] = [text(await this.of(left)), text(await this.of(right))];
    expect(found.length).to.equal(wanted.length);
    for (const [i, line] of found.entries()) expect(line).to.equal(wanted[i]);
  }

  /** Applies what `statements` do to `source` to `target`. */
  async replay(
    source: string,
    target: string,
    statements: readonly string[],
    count: number,
    how: (changes: KeyedChanges) => KeyedChanges = (changes) => changes,
  ): Promise<ApplyCounts> {
    const session = this.#session;
    const from = await this.#stream.start();
    for (const statement of statements) await this.#database.query(statement);
    const names = (await this.#described(source)).columns.map((column) => column.name);
    const collapse = new Collapse(names, ['id']);
    for (const piece of await this.#stream.read(from, count)) for (const table of piece.tables) collapse.add(table);
    const columns = names.map((column) => ({ source: column, target: column }));
    const applier =
      this.kept?.get(target) ?? new TableApplier(session, await this.#described(target), columns, ['id'], true);
    this.kept?.set(target, applier);
    await session.run('begin', BEGIN);
    try {
      const counts = await applier.apply(how(collapse.result()));
      await session.run('commit', ['COMMIT', 'SET autocommit = 1']);
      return counts;
    } catch (error) {
      await session.run('roll back', ['ROLLBACK', 'SET autocommit = 1']);
      throw error;
    } finally {
      await applier.dropStages();
    }
  }

  async #described(table: string) {
    const [found] = await describeTables(this.#session, [{ schema: '', table }], this.#database.name);
    if (!found) throw new Error(`${table} is not there`);
    return found;
  }
}
