/** Every statement that the product sends to a SQL Server is T-SQL by the grammar, whatever a more lenient server takes. */
import { expect } from 'chai';
import { sentStatements } from '../../support/sent-statements.ts';
import { eventually } from '../../support/service.ts';
import { skip } from '../../support/skip.ts';
import { createSameEnginePair, SQL_SERVER, type SameEnginePair } from '../../support/same-engine-pair.ts';
import { loadTsqlGrammar } from '../../support/tsql-grammar.ts';

/** What the grammar does not know, though SQL Server does. */
const GAPS: readonly { readonly batch: RegExp; readonly why: string }[] = [
  { batch: /^INSERT BULK /, why: 'announces rows that follow it on the wire; clients may send it, scripts may not' },
  { batch: /^DROP TABLE (IF EXISTS )?\S+, \S+$/, why: 'several tables in one statement (manual: DROP TABLE)' },
  { batch: /^set ansi_nulls on\nset ansi_null_dflt_on on\n/, why: 'the driver’s own, when a session is reset' },
];

describe('T-SQL that the product sends', function () {
  this.timeout(300_000);
  let pair: SameEnginePair;
  const parse = loadTsqlGrammar();
  before(async function () {
    if (!parse) skip(this, 'the grammar of T-SQL is not installed: npm ci');
    pair = await createSameEnginePair(this, SQL_SERVER);
  });
  after(() => pair?.close());

  const errorsOf = (batch: string) => (parse ? parse(batch) : ['not parsed']);

  it('the grammar tells T-SQL from what is not', () => {
    expect(errorsOf('SELECT TOP (1) [a b] AS x FROM dbo.t WITH (READPAST) WHERE y = @y;')).to.deep.equal([]);
    expect(errorsOf('SELECT x FROM dbo.t LIMIT 1')).to.not.deep.equal([]);
    expect(errorsOf('UPDATE dbo.t SET x = 1 RETURNING x')).to.not.deep.equal([]);
    expect(errorsOf('INSERT INTO dbo.t VALUES (1) ON CONFLICT DO NOTHING')).to.not.deep.equal([]);
  });

  it('is T-SQL: what a service sends for copies, changes, pauses and repeated copies, and what other tests made the engine send', async () => {
    await pair.create('written', 50);
    await pair.create('another', 1);
    await pair.world.start();
    const mapping = await pair.stream('written');
    await pair.stream('another');
    await pair.from.query(
      `UPDATE dbo.written SET id = id + 1000, v = N'moved' WHERE id < 5; DELETE FROM dbo.written WHERE id = 7; INSERT INTO dbo.written VALUES (0, NULL)`,
    );
    await pair.equal('written');
    const enable = (enabled: number) =>
      pair.world.control.query('UPDATE table_mappings SET is_enabled = $2 WHERE mapping_id = $1', [mapping, enabled]);
    await enable(0);
    await pair.state(mapping, 'paused');
    await pair.from.query(`UPDATE dbo.written SET v = N'kept' WHERE id > 20`);
    await enable(1);
    await pair.state(mapping, 'streaming');
    await pair.equal('written');
    await pair.into.query(`DELETE FROM dbo.written WHERE id = 30`);
    await pair.copyAgain(mapping);
    await pair.equal('written');
    await pair.world.control.query('DELETE FROM table_mappings');
    await eventually(async () => {
      expect(await pair.into.query('SELECT mapping_uid FROM sluice.generations')).to.deep.equal([]);
    }, 60_000);

    const batches = sentStatements().filter((batch) => !GAPS.some((gap) => gap.batch.test(batch)));
    expect(batches.length).to.be.greaterThan(60);
    const refused = batches.flatMap((batch) => errorsOf(batch).map((error) => `${error} in:\n${batch.slice(0, 1000)}`));
    expect(refused.join('\n\n')).to.equal('');
  });
});
