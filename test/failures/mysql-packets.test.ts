/** MariaDB that takes no packet larger than 1 MiB, as servers did by default for long. */
import { ChildServices } from '../support/child-service.ts';
import { createSameEnginePair, MARIADB, type SameEnginePair } from '../support/same-engine-pair.ts';

describe('MariaDB to MariaDB: small packets', function () {
  this.timeout(120_000);
  let pair: SameEnginePair;
  const services = new ChildServices();
  before(async function () {
    pair = await createSameEnginePair(this, MARIADB);
    await pair.into.query('SET GLOBAL max_allowed_packet = 1048576');
  });
  after(async () => {
    await services.killAll();
    await pair?.into.query('SET GLOBAL max_allowed_packet = 134217728');
    await pair?.close();
  });

  it('F43: a large transaction is staged in blocks that are no larger', async () => {
    await pair.create('t', 10);
    await services.start(pair.world, { 'stream.part-applied': 'error:1' });
    await pair.stream('t');
    await pair.from.query("INSERT INTO t SELECT seq, REPEAT('x', 1000) FROM seq_100_to_25000");
    await pair.equal('t');
  });
});
