import { createWorld, equal, type World } from '../support/service.ts';

const LONG = process.env['SLUICE_TEST_LONG'] !== undefined;
const HUGE_BYTES = LONG ? 64 << 20 : 8 << 20;
/** PostgreSQL's own limit of columns. */
const COLUMNS = 1600;

describe('large rows and values', () => {
  let world: World;
  before(async () => {
    world = await createWorld({ batch_max_bytes: 1 << 20 });
    await world.start();
  });
  after(() => world.close());

  it('F33: a table of 1,600 columns, unchanged large values among them', async () => {
    const names = Array.from({ length: COLUMNS - 2 }, (_, i) => `c${i}`);
    await world.source.query(`CREATE TABLE wide (id int PRIMARY KEY, large text, ${names.join(' int, ')} int)`);
    await world.source.query(`ALTER TABLE wide ALTER large SET STORAGE EXTERNAL`);
    const row = (id: number) =>
      `INSERT INTO wide VALUES (${id}, repeat('x', 20000), ${names.map((_, i) => (i % 7 === 0 ? 'NULL' : String(i * id))).join(', ')})`;
    for (const id of [1, 2, 3]) await world.source.query(row(id));
    await world.state(await world.map('wide'), 'streaming');
    await equal(world, 'wide');

    await world.source.query(row(4));
    await world.source.query('UPDATE wide SET c1 = -1 WHERE id = 1');
    await world.source.query('UPDATE wide SET id = 22, c2 = NULL WHERE id = 2');
    await world.source.query('DELETE FROM wide WHERE id = 3');
    await equal(world, 'wide');
  });

  it('F33: rows and values larger than batch_max_bytes', async () => {
    await world.source.query('CREATE TABLE huge (id int PRIMARY KEY, body bytea, note text)');
    await world.source.query('ALTER TABLE huge ALTER body SET STORAGE EXTERNAL');
    // Every byte, also on either side of any boundary a buffer may have.
    await world.source.query(`CREATE FUNCTION bytes_of(size int) RETURNS bytea LANGUAGE sql AS $$
      SELECT substr(decode(repeat((SELECT string_agg(lpad(to_hex(i), 2, '0'), '' ORDER BY i) FROM generate_series(0, 255) i), size / 256 + 1), 'hex'), 1, size) $$`);
    await world.source.query(`INSERT INTO huge VALUES (1, bytes_of(${HUGE_BYTES}), 'copied'), (2, '', '')`);
    await world.state(await world.map('huge'), 'streaming');
    await equal(world, 'huge', 'huge', 60_000);

    await world.source.query(`INSERT INTO huge VALUES (3, bytes_of(${HUGE_BYTES} + 1), 'streamed')`);
    await world.source.query(`UPDATE huge SET body = bytes_of(${HUGE_BYTES} - 1), note = 'grown' WHERE id = 2`);
    await world.source.query(`UPDATE huge SET note = 'unchanged body' WHERE id = 1`);
    await world.source.query(`UPDATE huge SET id = 30 WHERE id = 3`);
    await equal(world, 'huge', 'huge', 60_000);
  });
});
