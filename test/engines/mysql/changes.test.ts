import { expect } from 'chai';
import { comparePositions, formatPosition } from '../../../src/engines/mysql/binlog/position.ts';
import { Op } from '../../../src/model/changes.ts';
import type { Position } from '../../../src/model/position.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../../support/mysql.ts';
import { skip } from '../../support/skip.ts';
import { seenIn, STREAM, Stream } from './stream.ts';
import { casesFor, shown, valueTable } from './values.ts';

describe('MariaDB as source: positions', () => {
  const at = (file: string, offset: number, server = 's') =>
    formatPosition({ server, file, offset, gtids: '0-1-5,1-1-2' });

  it('F07: are ordered by the number of the file, however many digits it has, then by the offset', () => {
    expect(comparePositions(at('binlog.999999', 500), at('binlog.1000000', 4))).to.equal('before');
    expect(comparePositions(at('binlog.000002', 4), at('binlog.000001', 99999999))).to.equal('after');
    expect(comparePositions(at('binlog.000001', 1000), at('binlog.000001', 999))).to.equal('after');
    expect(comparePositions(at('binlog.000001', 7), at('binlog.000001', 7))).to.equal('equal');
  });

  it('F18: of two servers, or of logs of other names, are not ordered', () => {
    expect(comparePositions(at('binlog.000001', 7), at('binlog.000001', 8, 'other'))).to.equal('unordered');
    expect(comparePositions(at('binlog.000001', 7), at('other.000001', 8))).to.equal('unordered');
    expect(comparePositions('pg1:x' as Position, at('binlog.000001', 8))).to.equal('unordered');
  });
});

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`${name} as source: its change stream`, () => {
    let database: MysqlTestDatabase;
    let stream: Stream;
    before(async function () {
      database = await createMysqlDatabase(await require(this));
      stream = new Stream(database.url);
    });
    after(async () => {
      await stream?.close();
      await database?.drop();
    });

    it('F30 F31 F32 F33 F34: every type arrives as a copy reads it, whatever zone and character set wrote it', async () => {
      const cases = casesFor(database.server.isMariaDb);
      const made = valueTable(cases, 'all_values');
      await database.query(made.create);
      const start = await stream.start();
      await database.query(made.insert);
      await database.query('UPDATE all_values SET id = id + 100');
      await database.query('DELETE FROM all_values');
      const seen = seenIn(await stream.read(start, made.rows.length * 3));
      expect(seen.length).to.equal(made.rows.length * 3);
      for (const [r, expected] of made.rows.entries()) {
        const rows = [seen[r]?.after, seen[made.rows.length + r]?.after, seen[made.rows.length + r]?.before];
        for (const [c, cell] of expected.entries()) {
          if (c === 0) continue;
          const wanted = shown(cell);
          expect(rows[0]?.[`c${c - 1}`], `insert ${r}, ${cases[c - 1]?.type}`).to.equal(wanted);
          expect(rows[1]?.[`c${c - 1}`], `update ${r}, ${cases[c - 1]?.type}`).to.equal(wanted);
          const old = rows[2]?.[`c${c - 1}`];
          if (old !== undefined) expect(old, `before ${r}, ${cases[c - 1]?.type}`).to.equal(wanted);
        }
        expect(seen[made.rows.length * 2 + r]?.before?.['id']).to.equal(String(r + 100));
      }
    });

    it('F26: rows written before and after columns are added, dropped, renamed, retyped and moved are read as they were, also after a restart', async () => {
      await database.query('CREATE TABLE shifting (id int PRIMARY KEY, a int, b varchar(10))');
      const start = await stream.start();
      await database.query("INSERT INTO shifting VALUES (1, 10, '4')");
      await database.query('ALTER TABLE shifting ADD COLUMN first_now bigint unsigned FIRST');
      await database.query("INSERT INTO shifting VALUES (18446744073709551615, 2, 20, '5')");
      await database.query('ALTER TABLE shifting DROP COLUMN a, MODIFY b decimal(5,2) AFTER first_now');
      await database.query('UPDATE shifting SET first_now = 1, b = 3.5 WHERE id = 2');
      await database.query('ALTER TABLE shifting CHANGE id ident smallint');
      await database.query('INSERT INTO shifting (ident, b) VALUES (-3, 1.25)');
      const wanted = [
        { id: '1', a: '10', b: '4' },
        { first_now: '18446744073709551615', id: '2', a: '20', b: '5' },
        { first_now: null, b: '1.25', ident: '-3' },
      ];
      for (let round = 0; round < 2; round++) {
        const rows = seenIn(await stream.read(start, 4)).filter((one) => one.op === Op.Insert);
        expect(rows.map((one) => one.after)).to.deep.equal(wanted);
      }
    }).timeout(30_000);

    it('F23: TRUNCATE is a change in its place, of this database only, also before any row was seen', async () => {
      await database.query('CREATE TABLE `emp``tied` (id int PRIMARY KEY)');
      await database.query('INSERT INTO `emp``tied` VALUES (1)');
      const start = await stream.start();
      await database.query('/* by hand */ TRUNCATE TABLE `emp``tied`');
      await database.query('INSERT INTO `emp``tied` VALUES (2)');
      await database.query(`TRUNCATE \`${database.name}\`.\`emp\`\`tied\``);
      const seen = seenIn(await stream.read(start, 3));
      expect(seen.map((one) => [one.op, one.table])).to.deep.equal([
        [Op.Truncate, 'emp`tied'],
        [Op.Insert, 'emp`tied'],
        [Op.Truncate, 'emp`tied'],
      ]);
    });

    it('compressed rows and statements are read', async function () {
      if (!database.server.isMariaDb) skip(this, 'of MariaDB');
      await database.query('CREATE TABLE squeezed (id int PRIMARY KEY, v text)');
      const start = await stream.start();
      await database.query('SET GLOBAL log_bin_compress = 1, GLOBAL log_bin_compress_min_len = 10');
      try {
        await database.query("INSERT INTO squeezed VALUES (1, REPEAT('abc', 2000))");
        await database.query("UPDATE squeezed SET v = REPEAT('def', 2000)");
        await database.query(`/* ${'x'.repeat(300)} */ TRUNCATE TABLE squeezed`);
      } finally {
        await database.query('SET GLOBAL log_bin_compress = 0');
      }
      const seen = seenIn(await stream.read(start, 3));
      expect(seen.map((one) => one.op)).to.deep.equal([Op.Insert, Op.Update, Op.Truncate]);
      expect(seen[1]?.after?.['v']).to.equal('def'.repeat(2000));
    });

    it('F05: what other databases of the server change is progress, not a change', async () => {
      const other = await createMysqlDatabase(database.server, 'other');
      try {
        const start = await stream.start();
        await other.query('CREATE TABLE theirs (id int PRIMARY KEY)');
        await other.query('INSERT INTO theirs VALUES (1)');
        const end = await stream.source.end();
        const pieces = await stream.read(start, 0);
        expect(pieces.every((piece) => piece.changes === 0)).to.equal(true);
        const reached = pieces.at(-1)?.end;
        expect(reached && stream.source.compare(reached, end)).to.not.equal('before');
      } finally {
        await other.drop();
      }
    });

    it('F49: one reader of the server hands out the databases that are wanted, tables of one name apart, a transaction across them whole', async () => {
      const [left, right, unwanted] = [
        await createMysqlDatabase(database.server, 'left'),
        await createMysqlDatabase(database.server, 'right'),
        await createMysqlDatabase(database.server, 'unwanted'),
      ];
      const server = new Stream(left.url, true);
      try {
        for (const each of [left, right, unwanted])
          await each.query('CREATE TABLE t (id int PRIMARY KEY, v varchar(9))');
        const start = await server.start();
        await left.connection.use((session) =>
          session.transaction('START TRANSACTION', async () => {
            for (const [i, { name }] of [left, unwanted, right].entries())
              await session.run('write', [`INSERT INTO \`${name}\`.t VALUES (${i}, 'v')`]);
          }),
        );
        await left.query(`TRUNCATE \`${right.name}\`.t`);
        await left.query(`RENAME TABLE t TO \`${right.name}\`.moved`);
        await right.query("INSERT INTO moved VALUES (7, 'v')");
        const pieces = await server.read(start, 4, { schemas: [left.name, right.name] });
        const tables = pieces.flatMap((piece) => piece.tables);
        expect(tables.map(({ relation, ops }) => [relation.name, ops])).to.deep.equal([
          [{ schema: left.name, table: 't' }, [Op.Insert]],
          [{ schema: right.name, table: 't' }, [Op.Insert, Op.Truncate]],
          [{ schema: right.name, table: 'moved' }, [Op.Insert]],
        ]);
        expect(new Set(tables.map(({ relation }) => relation.id)).size).to.equal(3);
        expect(pieces.every(({ schemas }) => schemas?.has(right.name) && !schemas.has(unwanted.name))).to.equal(true);
        expect(pieces.flatMap((piece) => piece.altered ?? [])).to.deep.equal([
          { schema: left.name, table: 't', verb: 'RENAME TABLE' },
          { schema: right.name, table: 'moved', verb: 'RENAME TABLE' },
        ]);
      } finally {
        await server.close();
        for (const each of [left, right, unwanted]) await each.drop();
      }
    });

    it('F27: rows that a session does not log whole are told to be missing, and hold up no other table', async () => {
      await database.query('CREATE TABLE partial (id int PRIMARY KEY, v int, w int)');
      await database.query('INSERT INTO partial VALUES (1, 1, 1)');
      await database.query('CREATE TABLE beside (id int PRIMARY KEY)');
      const start = await stream.start();
      await database.connection.use((session) =>
        session.run('change', [
          "SET SESSION binlog_row_image = 'MINIMAL'",
          'UPDATE partial SET v = 2',
          "SET SESSION binlog_row_image = 'FULL'",
        ]),
      );
      await database.query('INSERT INTO beside VALUES (1)');
      const pieces = await stream.read(start, 1);
      expect(seenIn(pieces).map((one) => one.table)).to.deep.equal(['beside']);
      const told = pieces.flatMap(({ captures }) => captures?.gap({ schema: '', table: 'partial' }, null)?.code ?? []);
      expect(told).to.deep.equal(['GAP']);
    });

    it('F32: every character of the sets of one byte is read as the server maps it', async () => {
      const sets = await database.query(
        `SELECT CHARACTER_SET_NAME AS name FROM information_schema.CHARACTER_SETS
          WHERE MAXLEN = 1 AND CHARACTER_SET_NAME NOT IN ('ascii', 'binary', 'swe7') ORDER BY 1`,
      );
      const names = sets.map(({ name }) => String(name));
      expect(names).to.include.members(['cp1251', 'koi8r', 'latin2', 'hebrew']);
      await database.query(
        `CREATE TABLE lettered (id int PRIMARY KEY, ${names.map((name) => `${name} varchar(256) CHARACTER SET ${name}`).join(', ')})`,
      );
      const start = await stream.start();
      const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('hex');
      await database.query(
        `INSERT INTO lettered VALUES (1, ${names.map((name) => `CONVERT(UNHEX('${all}') USING ${name})`).join(', ')})`,
      );
      const [seen] = seenIn(await stream.read(start, 1));
      const [row] = await database.query('SELECT * FROM lettered');
      expect(Object.keys(seen?.after ?? {})).to.have.length(names.length + 1);
      expect(seen?.after).to.deep.equal({ ...row, id: '1' });
    });

    it('F22: a value that is not read from the log is absent, and what is fetched for it is no older than the change', async () => {
      await database.query('CREATE TABLE greek (id int PRIMARY KEY, v varchar(20) CHARACTER SET gbk)');
      const start = await stream.start();
      await database.query("INSERT INTO greek VALUES (1, 'αβγ')");
      const [piece] = await stream.read(start, 1);
      const [changes] = piece?.tables ?? [];
      expect(changes?.hasAbsent).to.equal(true);
      expect(seenIn(piece ? [piece] : [])[0]?.after).to.deep.equal({ id: '1', v: undefined });
      const [table] = await stream.handle.catalog.describe([{ schema: '', table: 'greek' }]);
      if (!table) throw new Error('not there');
      const fetched = await stream.handle.snapshot?.fetchRows(table, ['v'], ['id'], [['1']], changes?.visibility ?? []);
      expect(fetched?.cells).to.deep.equal(['αβγ']);
      expect(changes?.visibility).to.have.length(1);
    });

    it('F46: a source that stands still goes on saying so: between two pieces destinations that are away are asked again', async () => {
      const reader = await stream.source.read(STREAM, await stream.start(), {
        ...{ maxChanges: 1000, maxBytes: 1 << 20, idleProgressMs: () => 20, pollMs: () => 20 },
      });
      try {
        let pieces = 0;
        for await (const piece of reader.pieces) {
          expect([piece.changes, piece.end === null]).to.deep.equal([0, false]);
          if (++pieces === 5) break;
        }
      } finally {
        await reader.stop();
      }
    });

    it('no piece reaches across a place at which a group stands', async () => {
      await database.query('CREATE TABLE broken_at (id int PRIMARY KEY)');
      const start = await stream.start();
      await database.query('INSERT INTO broken_at VALUES (1)');
      await database.query('INSERT INTO broken_at VALUES (2)');
      const middle = await stream.source.end();
      await database.query('INSERT INTO broken_at VALUES (3)');
      const pieces = await stream.read(start, 3, { breakAt: [middle] });
      const counts = pieces
        .filter((piece) => piece.changes > 0)
        .map((piece) => [piece.changes, piece.end && stream.source.compare(piece.end, middle)]);
      expect(counts).to.deep.equal([
        [2, 'equal'],
        [1, 'after'],
      ]);
    });
  });
