import { createWorld, type World } from '../support/service.ts';
import { USER_TYPE_MATRIX, USER_TYPES, VALUE_MATRIX, type TypeCase } from '../engines/postgres/values.ts';
import { postgresEnd } from './ends.ts';
import { controlledBy, Matrix } from './matrix.ts';

describe('values, PostgreSQL to PostgreSQL', () => {
  let world: World;
  before(async () => {
    world = await createWorld();
    await world.start();
  });
  after(() => world.close());

  it('F30 F31 F32 F33 F34: built-in types through copy, stream and backlog', async () => {
    await throughEverything('builtin', VALUE_MATRIX, true);
  });

  it('F34: enums, composites, domains, ranges and their arrays through copy, stream and backlog', async () => {
    await world.source.query(USER_TYPES);
    // Enums are made by Sluice where they are missing; composites, domains and ranges are the person's.
    await world.destination.query(USER_TYPES);
    await throughEverything('own', USER_TYPE_MATRIX, false);
  });

  /** Into a table made by Sluice, and one made before. `image`: it holds object ids, so of built-in types only. */
  async function throughEverything(table: string, cases: readonly TypeCase[], image: boolean): Promise<void> {
    const matrix = new Matrix({
      table,
      columns: cases.map(({ type, values }) => ({ type, values: values.map((sql) => ({ sql: `(${sql})::${type}` })) })),
      source: postgresEnd(world.source, cases.length, { image }),
      destination: postgresEnd(world.destination, cases.length, { image }),
      map: async () => [
        { mapping: await world.map(table), table },
        { mapping: await world.map(table, { dest_table: `${table}_given` }), table: `${table}_given` },
      ],
      ...controlledBy(world, 20),
    });
    await world.source.query(matrix.createSql());
    await world.destination.query(matrix.createSql(`${table}_given`));
    await matrix.throughEverything();
  }
});
