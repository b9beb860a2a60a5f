/** Done when 2: `docs/quickstart.md` as a person follows it: its blocks, in its order, against a server of its own. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import pg from 'pg';
import { sluice } from '../cli/support.ts';
import { ChildService } from '../support/child-service.ts';
import { privateServer, type PrivateServer } from '../control-plane/support.ts';
import { eventually } from '../support/service.ts';

const PAGE = readFileSync(path.join(path.dirname(fileURLToPath(import.meta.url)), '../../docs/quickstart.md'), 'utf8');

/** One command of the page: psql with -c or with a here-document, createdb, or the program itself. */
type Command =
  | { readonly kind: 'sql'; readonly database: string; readonly text: string; readonly expected: string | null }
  | { readonly kind: 'createdb'; readonly database: string }
  | { readonly kind: 'sluice'; readonly args: readonly string[] };

/** The commands of a section (its number), in order. */
function section(number: number): Command[] {
  const found = new RegExp(`^## ${number}\\. [^\\n]*\\n(.*?)(?=^## |$(?![\\s\\S]))`, 'ms').exec(PAGE)?.[1];
  if (found === undefined) throw new Error(`docs/quickstart.md has no section ${number}`);
  const blocks = [...found.matchAll(/^```\n(.*?)^```/gms)].map((match) => match[1] ?? '');
  return blocks.flatMap(commandsOf);
}

function commandsOf(block: string): Command[] {
  const commands: Command[] = [];
  const lines = block.split('\n');
  for (let line = lines.shift(); line !== undefined; line = lines.shift()) {
    const here = /^psql -d (\S+) <<'SQL'$/.exec(line);
    const inline = /^psql (?:-d (\S+) )?-c "([^"]*)"(?:\s+# (.*))?$/.exec(line);
    const create = /^createdb (\S+)$/.exec(line);
    const own = /^npx tsx src\/cli\/main\.ts ([^#]*?)\s*(?:#.*)?$/.exec(line);
    if (here) {
      const text = lines.splice(0, lines.indexOf('SQL')).join('\n');
      lines.shift();
      commands.push({ kind: 'sql', database: here[1] ?? '', text, expected: null });
    } else if (inline) {
      commands.push({
        kind: 'sql',
        database: inline[1] ?? 'postgres',
        text: inline[2] ?? '',
        expected: inline[3] ?? null,
      });
    } else if (create) commands.push({ kind: 'createdb', database: create[1] ?? '' });
    else if (own) commands.push({ kind: 'sluice', args: (own[1] ?? '').split(' ') });
    else if (line.trim() !== '') throw new Error(`the test cannot follow this line of docs/quickstart.md: ${line}`);
  }
  return commands;
}

describe('docs/quickstart.md, followed literally', function () {
  this.timeout(90_000);
  let server: PrivateServer;
  let service: ChildService;
  const clients = new Map<string, pg.Client>();
  let variables: Record<string, string>;

  before(async () => {
    server = await privateServer({ wal_level: 'logical' });
    // The page writes localhost:5432; the password is whatever PGPASSWORD says.
    variables = { DEST_URL: `postgres://postgres:secret@127.0.0.1:${server.port}/`, PGPASSWORD: 'secret' };
  });
  after(async () => {
    await service?.stop();
    await Promise.all([...clients.values()].map((client) => client.end()));
    await server?.remove();
  });

  const client = async (database: string) => {
    let found = clients.get(database);
    if (!found) {
      found = new pg.Client({ connectionString: server.url(database) });
      await found.connect();
      clients.set(database, found);
    }
    return found;
  };
  /** As psql prints it with -At: rows of cells. */
  const sql = async (database: string, text: string): Promise<string[][]> => {
    const result: unknown = await (
      await client(database)
    ).query({ text: text.replaceAll('localhost:5432', `127.0.0.1:${server.port}`), rowMode: 'array' });
    const last = (Array.isArray(result) ? result.at(-1) : result) as pg.QueryArrayResult;
    return last.rows.map((row) => row.map((cell) => String(cell)));
  };
  /** Runs the section's SQL; what the page says about a result ("# 10000") comes true within a poll and a little. */
  const follow = async (number: number, only?: RegExp) => {
    for (const command of section(number)) {
      if (command.kind === 'createdb') await sql('postgres', `CREATE DATABASE ${command.database}`);
      if (command.kind !== 'sql' || (only && !only.test(command.text))) continue;
      const value = /^([\w.]+)(?:,|$)/.exec(command.expected ?? '')?.[1];
      if (value === undefined) await sql(command.database, command.text);
      else
        await eventually(async () => {
          const rows = await sql(command.database, command.text);
          expect(rows, command.text).to.deep.equal(value === 'none' ? [] : [[value]]);
        }, 15_000);
    }
  };
  const same = () =>
    eventually(async () => {
      const sum = `SELECT count(*), md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o`;
      expect(await sql('shop_copy', sum)).to.deep.equal(await sql('shop', sum));
    }, 15_000);
  const state = (wanted: string) =>
    eventually(async () => {
      expect(await sql('sluice', `SELECT state FROM v_mapping_health`)).to.deep.equal([[wanted]]);
    }, 15_000);
  const completed = async () =>
    Number((await sql('sluice', `SELECT count(*) FROM full_sync_requests WHERE status = 'completed'`))[0]?.[0]);

  it('1: something to copy', async () => {
    await follow(1);
    expect(await sql('shop', 'SELECT count(*) FROM orders')).to.deep.equal([['10000']]);
  });

  it('2: the control database and the service', async () => {
    const own = section(2).flatMap((command) => (command.kind === 'sluice' ? [command.args] : []));
    expect(own).to.deep.equal([['migrate'], ['run']]);
    const migrated = await sluice([...(own[0] ?? [])], variables);
    expect(migrated.exitCode, migrated.stderr).to.equal(0);
    service = await ChildService.start({ control: { name: 'sluice' } }, {}, variables);
    await service.says('service started');
  });

  it('3: two INSERTs: the table is made, copied and followed within a poll', async () => {
    await follow(3);
    await state('streaming');
    await same();
    const [row] = await sql('sluice', `SELECT connection_string FROM source_servers`);
    expect(row?.[0], 'the password is not in the table').to.include('${env:PGPASSWORD}');
  });

  it('4: changes arrive; the median is below a second after the commit', async () => {
    await follow(4);
    const delays: number[] = [];
    for (let i = 1; i <= 20; i++) {
      await sql('shop', `UPDATE orders SET customer = 'update ${i}' WHERE id = ${i}`);
      const at = performance.now();
      await eventually(async () => {
        const rows = await sql('shop_copy', `SELECT customer FROM orders WHERE id = ${i}`);
        if (rows[0]?.[0] !== `update ${i}`) throw new Error('not there yet');
      });
      delays.push(performance.now() - at);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const median = delays.sort((a, b) => a - b)[10] ?? Infinity;
    expect(median, `delays in ms: ${delays.map(Math.round).join(' ')}`).to.be.lessThan(1000);
  });

  it('5: copied again by the flag, which returns to 0, and by the trigger column, which is set back', async () => {
    const before = await completed();
    await follow(5, /is_full_sync|v_sync_summary/);
    await eventually(async () => {
      expect(await sql('sluice', 'SELECT is_full_sync FROM table_mappings')).to.deep.equal([['0']]);
      expect(await completed()).to.equal(before + 1);
    }, 20_000);
    await follow(5, /full_sync = 1 WHERE id/);
    await eventually(async () => {
      expect(await sql('shop', 'SELECT full_sync FROM orders WHERE id = 1')).to.deep.equal([['0']]);
      expect(await completed()).to.equal(before + 2);
    }, 20_000);
    await same();
  });

  it('6: disabled and enabled: what changed meanwhile arrives', async () => {
    await follow(6, /is_enabled = 0/);
    await state('paused');
    await sql('shop', `UPDATE orders SET customer = 'while disabled' WHERE id < 100`);
    await follow(6, /is_enabled = 1/);
    await state('streaming');
    await same();
  });

  it('7: when something is wrong: the queries run, doctor finds nothing', async () => {
    await follow(7);
    process.env['PGPASSWORD'] = variables['PGPASSWORD']; // as exported at the top of the page
    const doctor = await sluice(['doctor'], variables);
    delete process.env['PGPASSWORD'];
    expect(doctor.exitCode, doctor.stdout + doctor.stderr).to.equal(0);
  });

  it('8: clean up: the slot and the publication are gone within a poll', async () => {
    await follow(8);
    await eventually(async () => {
      expect(await sql('shop', `SELECT pubname FROM pg_publication`)).to.deep.equal([]);
    }, 15_000);
    expect(await sql('shop_copy', `SELECT count(*) FROM orders`), 'the copy stays').to.deep.equal([['10000']]);
  });
});
