import { expect } from 'chai';
import type { EngineDatabase, RowStream } from '../../../src/engines/contract.ts';
import { engineOf } from '../../../src/engines/registry.ts';
import type { Cell } from '../../../src/model/changes.ts';
import type { Table } from '../../../src/model/tables.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../../support/mysql.ts';
import { casesFor, shown, valueTable } from './values.ts';

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`${name} as source: values in a copy`, () => {
    let database: MysqlTestDatabase;
    let handle: EngineDatabase;
    before(async function () {
      database = await createMysqlDatabase(await require(this));
      handle = engineOf(database.url).open({
        connectionString: database.url,
        database: null,
        installation: { uid: 'test' },
        applicationName: 'sluice tests',
      });
    });
    after(async () => {
      await handle?.close();
      await database?.drop();
    });

    const describeTable = async (table: string): Promise<Table> => {
      const [described] = await handle.catalog.describe([{ schema: '', table }]);
      if (!described) throw new Error(`${table} is not there`);
      return described;
    };
    const rowsOf = async (stream: RowStream): Promise<Cell[][]> => {
      if (!('batches' in stream)) throw new Error('expected cells');
      const rows: Cell[][] = [];
      for await (const batch of stream.batches) {
        const width = batch.columns.length;
        for (let row = 0; row < batch.rows; row++) rows.push(batch.cells.slice(row * width, (row + 1) * width));
      }
      return rows;
    };
    const copy = async (table: Table, columns = table.columns.map((column) => column.name)): Promise<Cell[][]> => {
      if (!handle.snapshot) throw new Error('no snapshot');
      const plan = await handle.snapshot.planChunks(table, { targetBytes: 1 << 24 });
      const rows: Cell[][] = [];
      for (const chunk of plan.chunks)
        rows.push(...(await rowsOf(await handle.snapshot.readChunk(table, plan.layout, chunk, columns, 'cells'))));
      return rows;
    };

    it('F30 F31 F32 F33 F34: every type arrives exact, by chunk and by key', async () => {
      const cases = casesFor(database.server.isMariaDb);
      const made = valueTable(cases, 'all_values');
      await database.query(made.create);
      await database.query(made.insert);
      const table = await describeTable('all_values');
      const names = table.columns.map((column) => column.name);
      const keys = made.rows.map(([id]) => [id as string]);
      const fetched = await handle.snapshot?.fetchRows(table, names, ['id'], keys, []);
      if (!fetched) throw new Error('no rows');
      const byKey = Array.from({ length: fetched.rows }, (_, r) =>
        fetched.cells.slice(r * names.length, (r + 1) * names.length),
      );
      byKey.sort((a, b) => Number(a[0]) - Number(b[0]));
      for (const rows of [await copy(table), byKey]) {
        expect(rows.length).to.equal(made.rows.length);
        for (const [r, expected] of made.rows.entries())
          for (const [c, cell] of expected.entries()) {
            const type = c === 0 ? 'id' : (cases[c - 1]?.type ?? '');
            expect(shown(rows[r]?.[c]), `row ${r}, ${type}`).to.equal(shown(cell));
          }
      }
    });

    it('F27: generated and invisible columns are told and read; names of any kind are quoted', async () => {
      await database.query(
        `CREATE TABLE \`odd \`\`name.ü'" select\` (\`from\` int NOT NULL, \`a\`\`b\` varchar(10), v int AS (\`from\` + 1) VIRTUAL,
        s int AS (\`from\` * 2) STORED, hidden int ${database.server.isMariaDb ? 'INVISIBLE DEFAULT 7' : 'DEFAULT 7 INVISIBLE'}, PRIMARY KEY (\`from\`))`,
      );
      const name = 'odd `name.ü\'" select';
      await database.query(`INSERT INTO \`odd \`\`name.ü'" select\` (\`from\`, \`a\`\`b\`) VALUES (1, 'x')`);
      const table = await describeTable(name);
      const generated = table.columns.map((column) => column.generated?.replace(/[`() ]/g, '') ?? null);
      expect(generated).to.deep.equal([null, null, 'from+1VIRTUAL', 'from*2STORED', null]);
      expect(await copy(table)).to.deep.equal([['1', 'x', '2', '2', '7']]);
    });

    it('F33: a value of 20 MB, larger than a packet of the protocol, and a row of 1,000 columns', async () => {
      await database.query('CREATE TABLE large (id int PRIMARY KEY, v longblob, t longtext)');
      await database.query("INSERT INTO large VALUES (1, REPEAT(X'00FF', 10000000), REPEAT('é', 10000000))");
      const [row] = await copy(await describeTable('large'));
      expect(Buffer.from(row?.[1] as Uint8Array).equals(Buffer.alloc(20_000_000, Buffer.from([0, 255])))).to.equal(
        true,
      );
      expect((row?.[2] as string).length).to.equal(10_000_000);
      const columns = Array.from({ length: 999 }, (_, i) => `c${i} int`);
      await database.query(`CREATE TABLE wide (id int PRIMARY KEY, ${columns.join(', ')})`);
      await database.query(`INSERT INTO wide VALUES (${Array.from({ length: 1000 }, (_, i) => i).join(', ')})`);
      expect((await copy(await describeTable('wide')))[0]).to.deep.equal(
        Array.from({ length: 1000 }, (_, i) => String(i)),
      );
    });

    it('F34: labels with quotes and backslashes are described as they are', async () => {
      await database.query("CREATE TABLE labelled (id int PRIMARY KEY, e enum('a,b','it''s','back\\slash','(x)'))");
      const [, column] = (await describeTable('labelled')).columns;
      expect(column?.type).to.deep.equal({ kind: 'enum', labels: ['a,b', "it's", 'back\\slash', '(x)'] });
    });

    for (const [what, type, values] of [
      ['bigint unsigned', 'bigint unsigned', (i: number) => `${18446744073709551000n + BigInt(i)}`],
      ['decimal', 'decimal(30,10)', (i: number) => `${i}.0000000001`],
      ['text of one case', 'varchar(50)', (i: number) => `'key ${String(i).padStart(5, '0')}'`],
      ['latin1 text', 'varchar(50) CHARACTER SET latin1', (i: number) => `'kéy ${i}'`],
      ['bytes', 'varbinary(20)', (i: number) => `X'${i.toString(16).padStart(8, '0')}FF00'`],
      ['datetime', 'datetime(6)', (i: number) => `'2020-01-01 00:00:00' + INTERVAL ${i} MICROSECOND`],
      ['timestamp', 'timestamp(6)', (i: number) => `'2020-01-01 00:00:00' + INTERVAL ${i} SECOND`],
      ['date', 'date', (i: number) => `'1000-01-01' + INTERVAL ${i} DAY`],
    ] as const)
      it(`F25: a key of ${what} is split into chunks, and rows are found by it`, async () => {
        const name = `keyed_${what.replaceAll(' ', '_')}`;
        await database.query(`CREATE TABLE ${name} (k ${type} PRIMARY KEY, v varchar(300))`);
        const rows = Array.from({ length: 600 }, (_, i) => `(${values(i)}, REPEAT('x', 200))`);
        await database.query(`INSERT INTO ${name} VALUES ${rows.join(', ')}`);
        const table = await describeTable(name);
        const plan = await handle.snapshot?.planChunks(table, { targetBytes: 20_000 });
        expect(plan?.chunks.length).to.be.greaterThan(3);
        const seen: Cell[][] = [];
        for (const chunk of plan?.chunks ?? []) {
          const stream = await handle.snapshot?.readChunk(table, plan?.layout ?? '', chunk, ['k'], 'cells');
          if (stream) seen.push(...(await rowsOf(stream)));
        }
        expect(seen.length).to.equal(600);
        expect(new Set(seen.map(([k]) => shown(k))).size).to.equal(600);
        const wanted = [seen[0] ?? [], seen[299] ?? [], seen[599] ?? []];
        const found = await handle.snapshot?.fetchRows(table, ['k'], ['k'], wanted, []);
        expect(found?.cells.map(shown).sort()).to.deep.equal(wanted.map(([k]) => shown(k)).sort());
      });

    it('F25: a composite key whose first column is the same in all rows is split by the next', async () => {
      await database.query('CREATE TABLE tenants (tenant int, id bigint, v varchar(300), PRIMARY KEY (tenant, id))');
      const rows = Array.from({ length: 900 }, (_, i) => `(${i < 800 ? 1 : 2}, ${i}, REPEAT('x', 200))`);
      await database.query(`INSERT INTO tenants VALUES ${rows.join(', ')}`);
      const table = await describeTable('tenants');
      const plan = await handle.snapshot?.planChunks(table, { targetBytes: 20_000 });
      expect(plan?.chunks.length).to.be.greaterThan(5);
      const ids = new Set<string | null>();
      let count = 0;
      for (const chunk of plan?.chunks ?? []) {
        const stream = await handle.snapshot?.readChunk(table, plan?.layout ?? '', chunk, ['id'], 'cells');
        for (const [id] of stream ? await rowsOf(stream) : []) {
          ids.add(shown(id));
          count++;
        }
      }
      expect([count, ids.size]).to.deep.equal([900, 900]);
    });

    it('F25: a table without a key, and one whose key is an enum, are read as one', async () => {
      await database.query('CREATE TABLE keyless (v int); ');
      await database.query('INSERT INTO keyless VALUES (1), (1), (2)');
      expect((await copy(await describeTable('keyless'))).length).to.equal(3);
      await database.query("CREATE TABLE by_label (e enum('b', 'a') PRIMARY KEY)");
      await database.query("INSERT INTO by_label VALUES ('a'), ('b')");
      const table = await describeTable('by_label');
      expect((await copy(table)).map(([e]) => e).sort()).to.deep.equal(['a', 'b']);
      expect((await handle.snapshot?.fetchRows(table, ['e'], ['e'], [['a']], []))?.cells).to.deep.equal(['a']);
    });

    it('F25: keys that a collation holds equal are called loose', async () => {
      await database.query(
        `CREATE TABLE loose (ci varchar(10) COLLATE utf8mb4_general_ci NOT NULL UNIQUE, bin varchar(10) COLLATE utf8mb4_bin NOT NULL UNIQUE,
        strict varchar(10) COLLATE ${database.server.isMariaDb ? 'utf8mb4_nopad_bin' : 'utf8mb4_0900_bin'} NOT NULL UNIQUE, n int NOT NULL UNIQUE)`,
      );
      const { keys } = await describeTable('loose');
      expect(Object.fromEntries(keys.map((key) => [key.name, key.loose]))).to.deep.equal({
        ci: true,
        bin: true,
        strict: false,
        n: false,
      });
    });
  });
