import { createWorld, type World } from '../support/service.ts';
import { USER_TYPE_MATRIX, USER_TYPES, VALUE_MATRIX } from '../engines/postgres/values.ts';
import { Matrix } from './matrix.ts';

describe('values, PostgreSQL to PostgreSQL', () => {
  let world: World;
  before(async () => {
    world = await createWorld();
    await world.start();
  });
  after(() => world.close());

  it('F30 F31 F32 F33 F34: built-in types through copy, stream and backlog', async () => {
    await throughEverything(new Matrix(world, 'builtin', VALUE_MATRIX, { image: true }));
  });

  it('F34: enums, composites, domains, ranges and their arrays through copy, stream and backlog', async () => {
    await world.source.query(USER_TYPES);
    // Enums are made by Sluice where they are missing; composites, domains and ranges are the person's.
    await world.destination.query(USER_TYPES);
    await throughEverything(new Matrix(world, 'own', USER_TYPE_MATRIX, { image: false }));
  });

  async function throughEverything(matrix: Matrix): Promise<void> {
    await world.source.query(matrix.createSql());
    await world.source.query(matrix.insertSql(0));
    await matrix.map();
    await matrix.equal(1);

    await world.source.query(matrix.insertSql(1000));
    for (const statement of matrix.rotateSql(0)) await world.source.query(statement);
    await matrix.equal(2);

    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = ANY ($1)', [
      matrix.mappings,
    ]);
    for (const mapping of matrix.mappings) await world.state(mapping, 'paused');
    await world.source.query(matrix.insertSql(2000));
    for (const statement of matrix.rotateSql(1000)) await world.source.query(statement);
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = ANY ($1)', [
      matrix.mappings,
    ]);
    for (const mapping of matrix.mappings) await world.state(mapping, 'streaming');
    await matrix.equal(3);
  }
});
