import { expect } from 'chai';
import { checksum, createWorld, equal, eventually, type World } from '../support/service.ts';

interface KeyCase {
  readonly name: string;
  readonly columns: string;
  readonly key: string;
  /** Key values, as SQL; each row also has a large value, so that key changes carry absent cells. */
  readonly values: readonly string[];
  /** Moves keys onto other keys' former values. */
  readonly move: readonly string[];
}

const KEYS: readonly KeyCase[] = [
  {
    name: 'key decimal',
    columns: 'k numeric(38,10) NOT NULL',
    key: 'k',
    values: ['9999999999999999999999999999.9999999999', '-0.0000000001', "'NaN'", '0'],
    move: ['UPDATE # SET k = 1.5 WHERE k = 0', 'UPDATE # SET k = 0 WHERE k < 0'],
  },
  {
    // The same number in other digits: equal to the index, other bytes.
    name: 'key unlimited decimal',
    columns: 'k numeric NOT NULL',
    key: 'k',
    values: ['1.0', '2', '3.000'],
    move: ['UPDATE # SET k = 1.00 WHERE k = 1', 'UPDATE # SET k = 3 WHERE k = 3', 'DELETE FROM # WHERE k = 2.0'],
  },
  {
    name: 'key uuid',
    columns: 'k uuid NOT NULL',
    key: 'k',
    values: ["'00112233-4455-6677-8899-aabbccddeeff'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    move: [`UPDATE # SET k = '00000000-0000-0000-0000-000000000000' WHERE k < 'a0000000-0000-0000-0000-000000000000'`],
  },
  {
    name: 'key timestamp',
    columns: 'k timestamptz NOT NULL',
    key: 'k',
    values: ["'infinity'", "'-infinity'", "'2024-10-27 00:30:00.000001+00'", "'0044-03-15 12:00:00 BC'"],
    move: [`UPDATE # SET k = k + interval '0.000001' WHERE k > '2000-01-01' AND k < 'infinity'`],
  },
  {
    name: 'key text',
    columns: 'k text NOT NULL',
    key: 'k',
    values: [
      "'Ключ'",
      "'鍵'",
      "'a'",
      "'A'",
      "'a '",
      "' a'",
      "''",
      "E'e\\u0301'",
      "E'\\u00e9'",
      "'NULL'",
      "E'\\\\N'",
      "'😀'",
    ],
    move: [
      `UPDATE # SET k = 'tmp' WHERE k = 'a'`,
      `UPDATE # SET k = 'a' WHERE k = 'A'`,
      `UPDATE # SET k = 'A' WHERE k = 'tmp'`,
      `DELETE FROM # WHERE k = 'a '`,
      `UPDATE # SET k = E'\\t\\n' WHERE k = ''`,
    ],
  },
  {
    name: 'key float',
    columns: 'k float8 NOT NULL',
    key: 'k',
    values: ["'NaN'", "'-0'", '5e-324', "'Infinity'"],
    move: [`UPDATE # SET k = 0 WHERE k = 0`, `DELETE FROM # WHERE k = 'NaN'`],
  },
  {
    name: 'key bytes',
    columns: 'k bytea NOT NULL',
    key: 'k',
    values: ["'\\x00'", "''", "'\\x5c4e'", "'\\xff'"],
    move: [`UPDATE # SET k = '\\x0001' WHERE k = '\\x00'`],
  },
];

describe('keys', () => {
  let world: World;
  before(async () => {
    world = await createWorld();
    await world.start();
  });
  after(() => world.close());

  for (const one of KEYS)
    it(`F20 F25: ${one.name}`, async () => {
      const table = `"${one.name}"`;
      // The key is not the first column.
      await world.source.query(
        `CREATE TABLE ${table} (note text, ${one.columns}, large text, PRIMARY KEY (${one.key}))`,
      );
      await world.source.query(`ALTER TABLE ${table} ALTER large SET STORAGE EXTERNAL`);
      for (const value of one.values)
        await world.source.query(`INSERT INTO ${table} VALUES ('n', ${value}, repeat('x', 9000) || gen_random_uuid())`);
      await world.state(await world.map(one.name), 'streaming');
      await equal(world, table);
      for (const statement of one.move) await world.source.query(statement.replaceAll('#', table));
      await equal(world, table);
      // All at once: one transaction that deletes and inserts, and updates without the large value.
      await world.source.query(
        `BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM ${table}; DELETE FROM ${table}; INSERT INTO ${table} SELECT * FROM kept; UPDATE ${table} SET note = 'again'; DROP TABLE kept; COMMIT`,
      );
      await equal(world, table);
    });

  it('F25: a composite key in another order than the columns, by replica identity full', async () => {
    await world.source.query(
      `CREATE TABLE composite (a text NOT NULL, large text, b int NOT NULL, c numeric(4,2) NOT NULL, PRIMARY KEY (c, a, b))`,
    );
    await world.source.query(`ALTER TABLE composite REPLICA IDENTITY FULL`);
    await world.source.query(`ALTER TABLE composite ALTER large SET STORAGE EXTERNAL`);
    await world.source.query(
      `INSERT INTO composite SELECT 'a' || i % 3, repeat('y', 5000), i, i / 4.0 FROM generate_series(1, 40) i`,
    );
    await world.state(await world.map('composite', { primary_key_column: 'a, b, c' }), 'streaming');
    await equal(world, 'composite');
    await world.source.query(`UPDATE composite SET a = a || 'x', c = c + 1 WHERE b % 2 = 0`);
    await world.source.query(`UPDATE composite SET b = b + 100 WHERE b < 20`);
    await world.source.query(`DELETE FROM composite WHERE b = 25`);
    await equal(world, 'composite');
  });

  it('F25: a unique index serves as key, the primary key does not exist', async () => {
    await world.source.query(`CREATE TABLE by_index (v text, k int NOT NULL UNIQUE)`);
    await world.source.query(`ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_k_key`);
    await world.source.query(`INSERT INTO by_index SELECT 'v' || i, i FROM generate_series(1, 100) i`);
    await world.state(await world.map('by_index'), 'streaming');
    await world.source.query(`UPDATE by_index SET k = k + 1000 WHERE k <= 50`);
    await equal(world, 'by_index');
  });

  it('F25: no key: copied without changes, refused with them', async () => {
    await world.source.query(`CREATE TABLE keyless (v text)`);
    await world.source.query(`INSERT INTO keyless VALUES ('a'), ('a'), (NULL)`);
    await world.state(await world.map('keyless', { dest_table: 'keyless_once', cdc_enabled: 0 }), 'idle');
    expect(await checksum(world.destination, 'keyless_once')).to.equal(await checksum(world.source, 'keyless'));
    await world.state(await world.map('keyless'), 'failed');
    const [row] = await world.control.query(`SELECT error_code FROM mapping_state WHERE error_code IS NOT NULL`);
    expect(row?.['error_code']).to.equal('KEY_REQUIRED');
  });

  it('F27: names with spaces, quotes, brackets, dots, reserved words, emoji', async () => {
    const names = [
      'select',
      'a b',
      `q"uo'te`,
      'br[ack]et',
      'do.t',
      '😀',
      'Ümläut',
      '$1',
      '%s',
      'back\\slash',
      'tab\there',
      'COUNT(*)',
    ];
    const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
    const schema = `sch."e'ma 😀`;
    const table = `ta"b.le [x] select`;
    const full = `${quote(schema)}.${quote(table)}`;
    await world.source.query(`CREATE SCHEMA ${quote(schema)}`);
    await world.source.query(`CREATE TYPE ${quote(schema)}.${quote('mo"od')} AS ENUM ('o''k', 'b\\ad')`);
    const [key = '', ...others] = names;
    await world.source.query(
      `CREATE TABLE ${full} (${others.map((name) => `${quote(name)} text`).join(', ')}, ${quote('e"num')} ${quote(schema)}.${quote('mo"od')}, ${quote(key)} int PRIMARY KEY)`,
    );
    await world.source.query(`CREATE INDEX ${quote('in"dex')} ON ${full} (${quote('do.t')})`);
    const insert = (id: number) =>
      world.source.query(
        `INSERT INTO ${full} (${names.map(quote).join(', ')}, ${quote('e"num')}) VALUES (${id}, ${others.map((_, i) => `'v${i}'`).join(', ')}, 'o''k')`,
      );
    await insert(1);
    await insert(2);
    const mapping = await world.map(table, { source_schema: schema });
    await world.state(mapping, 'streaming');
    await equal(world, full);
    await insert(3);
    await world.source.query(
      `UPDATE ${full} SET ${others.map((name) => `${quote(name)} = '${'w'.repeat(3)}'`).join(', ')} WHERE ${quote(key)} = 1`,
    );
    await world.source.query(`DELETE FROM ${full} WHERE ${quote(key)} = 2`);
    await equal(world, full);
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await eventually(async () => {
      const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [
        mapping,
      ]);
      if (row?.['is_full_sync'] !== 0) throw new Error('still 1');
    });
    await equal(world, full);
  });
});
