/** A transaction far larger than memory: applied as one, in bounded memory. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { ChildService } from '../support/child-service.ts';
import { checksum, createWorld, eventually, type World } from '../support/service.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);
const ROWS = LONG ? 5_000_000 : 200_000;
/** What the process may take beyond what it has after a copy of nothing. Held in memory, 200,000 rows would take more than twice that. */
const MAX_GROWTH_MB = 110;

describe('a very large transaction', function () {
  this.timeout(LONG ? 3_600_000 : 120_000);
  let world: World;
  let service: ChildService;
  afterEach(async () => {
    await service.kill();
    await world.close();
  });

  it(`F43: ${ROWS} rows in one transaction: memory stays bounded, readers see all or nothing`, async () => {
    world = await createWorld();
    await world.source.query('CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text, n numeric)');
    service = await ChildService.start(world);
    await world.state(await world.map('t'), 'streaming', 30);
    await world.source.query(`INSERT INTO t SELECT -i, 'warm', 'up', 'rows', i FROM generate_series(1, 20000) i`);
    await eventually(async () => {
      if ((await counted(world)) !== 20_000) throw new Error('not there yet');
    }, 20_000);
    const before = megabytes(service.pid, 'VmRSS');
    await world.source.query(
      `INSERT INTO t SELECT i, md5(i::text), repeat(md5(i::text), 3), 'row ' || i, i * 1.01 FROM generate_series(1, ${ROWS}) i`,
    );
    const seen = new Set<number>();
    await eventually(
      async () => {
        const count = await counted(world);
        seen.add(count);
        if (count !== ROWS + 20_000) throw new Error(`${count} rows`);
      },
      LONG ? 1_800_000 : 60_000,
    );
    expect([...seen]).to.deep.equal([20_000, ROWS + 20_000]);
    const peak = megabytes(service.pid, 'VmHWM');
    console.log(`      resident: ${before} MB before, at most ${peak} MB`);
    expect(peak - before).to.be.lessThan(MAX_GROWTH_MB);
    expect(await checksum(world.destination, 't')).to.equal(await checksum(world.source, 't'));
  });
});

async function counted(world: World): Promise<number> {
  const [row] = await world.destination.query<{ n: number }>('SELECT count(*)::int AS n FROM t');
  return row?.n ?? 0;
}

/** A line of /proc/<pid>/status. */
function megabytes(pid: number, name: 'VmRSS' | 'VmHWM'): number {
  const line = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Math.round(Number(line?.[1]) / 1024);
}
