import { expect } from 'chai';
import { Collapse } from '../../src/sync/collapse.ts';
import type { ChangeCell } from '../../src/model/changes.ts';
import { changesOf, type ChangeSpec } from '../support/changes.ts';

const COLUMNS = ['id', 'v', 'big'];

function collapse(...specs: ChangeSpec[]) {
  const collapsed = new Collapse(COLUMNS, ['id']);
  collapsed.add(changesOf(COLUMNS, specs));
  const result = collapsed.result();
  const rows: ChangeCell[][] = [];
  for (let i = 0; i < result.upsertCount; i++) rows.push(result.upserts.slice(i * 3, i * 3 + 3));
  return {
    rows,
    deletes: result.deletes,
    bases: [...result.bases.entries()],
    truncate: result.truncate,
    hasAbsent: result.hasAbsent,
  };
}

describe('collapse', () => {
  it('F21: insert, update, delete, insert of one key leaves the last insert', () => {
    const result = collapse(
      ['I', null, ['1', 'a', 'x']],
      ['U', null, ['1', 'b', 'x']],
      ['D', ['1', undefined, undefined], null],
      ['I', null, ['1', 'c', null]],
    );
    expect(result.rows).to.deep.equal([['1', 'c', null]]);
    expect(result.deletes).to.deep.equal([]);
  });

  it('F21: insert then delete leaves a delete, so that a row from before goes too', () => {
    const result = collapse(['I', null, ['1', 'a', 'x']], ['D', ['1', undefined, undefined], null]);
    expect(result.rows).to.deep.equal([]);
    expect(result.deletes).to.deep.equal(['1']);
  });

  it('F20: a key change deletes the old key and writes the new one, absent values from the old', () => {
    const result = collapse(['U', ['1', undefined, undefined], ['2', 'a', undefined]]);
    expect(result.rows).to.deep.equal([['2', 'a', undefined]]);
    expect(result.deletes).to.deep.equal(['1']);
    expect(result.bases).to.deep.equal([[0, ['1']]]);
  });

  it('F20: two rows swap keys through a third: each finds its absent values under the key it had', () => {
    const result = collapse(
      ['U', ['1', undefined, undefined], ['-1', 'one', undefined]],
      ['U', ['2', undefined, undefined], ['1', 'two', undefined]],
      ['U', ['-1', undefined, undefined], ['2', 'one', undefined]],
    );
    expect(result.deletes).to.deep.equal(['-1']);
    expect(result.rows).to.have.deep.members([
      ['1', 'two', undefined],
      ['2', 'one', undefined],
    ]);
    const baseOf = new Map(result.bases.map(([n, base]) => [result.rows[n]?.[0], base]));
    expect(baseOf.get('1')).to.deep.equal(['2']);
    expect(baseOf.get('2')).to.deep.equal(['1']);
  });

  it('F22: an unchanged large value keeps what an earlier change of the batch gave it', () => {
    const result = collapse(['I', null, ['1', 'a', 'LARGE']], ['U', null, ['1', 'b', undefined]]);
    expect(result.rows).to.deep.equal([['1', 'b', 'LARGE']]);
    expect(result.hasAbsent).to.equal(false);
  });

  it('F22: what could not be read is not what an earlier change of the batch had', () => {
    const collapse = new Collapse(['id', 'v', 'w'], ['id']);
    collapse.add(changesOf(['id', 'v', 'w'], [['I', null, ['1', null, 'w']]]));
    const unread = changesOf(['id', 'v', 'w'], [['U', null, ['1', undefined, 'x']]]);
    unread.hasUnread = true;
    collapse.add(unread);
    const { upserts, hasAbsent, hasUnread } = collapse.result();
    expect(upserts).to.deep.equal(['1', undefined, 'x']);
    expect([hasAbsent, hasUnread]).to.deep.equal([true, true]);
  });

  it('F22: absent is not NULL, and stays absent when nothing supplies it', () => {
    const result = collapse(['U', null, ['1', 'a', undefined]], ['U', null, ['1', null, undefined]]);
    expect(result.rows).to.deep.equal([['1', null, undefined]]);
    expect(result.bases).to.deep.equal([]);
    expect(result.hasAbsent).to.equal(true);
  });

  it('a key moved, deleted there, and inserted anew does not take the old row for its base', () => {
    const result = collapse(
      ['U', ['1', undefined, undefined], ['2', 'a', undefined]],
      ['D', ['2', undefined, undefined], null],
      ['I', null, ['2', 'new', 'L']],
    );
    expect(result.rows).to.deep.equal([['2', 'new', 'L']]);
    expect(result.bases).to.deep.equal([]);
    expect(result.deletes).to.deep.equal(['1']);
  });

  it('a key that moves away and back finds its values under itself', () => {
    const result = collapse(
      ['U', ['1', undefined, undefined], ['2', 'a', undefined]],
      ['U', ['2', undefined, undefined], ['1', 'a', undefined]],
    );
    expect(result.rows).to.deep.equal([['1', 'a', undefined]]);
    expect(result.bases).to.deep.equal([[0, ['1']]]);
    expect(result.deletes).to.deep.equal(['2']);
  });

  it('F23: TRUNCATE forgets what was before it and keeps what follows', () => {
    const result = collapse(
      ['I', null, ['1', 'a', 'x']],
      ['D', ['9', undefined, undefined], null],
      ['T', null, null],
      ['I', null, ['2', 'b', 'y']],
    );
    expect(result.truncate).to.equal(true);
    expect(result.rows).to.deep.equal([['2', 'b', 'y']]);
    expect(result.deletes).to.deep.equal([]);
  });

  it('F25: text keys are compared as bytes: case and trailing spaces tell keys apart, string and bytes of one text do not', () => {
    const result = collapse(
      ['I', null, ['a', '1', null]],
      ['I', null, ['A', '2', null]],
      ['I', null, ['a ', '3', null]],
      ['U', null, [Buffer.from('a'), '4', null]],
    );
    expect(result.rows).to.have.length(3);
    expect(result.rows.map((row) => row[1])).to.have.members(['4', '2', '3']);
  });

  it('F25: composite keys whose parts join to the same text stay apart', () => {
    const collapsed = new Collapse(['a', 'b'], ['a', 'b']);
    collapsed.add(
      changesOf(
        ['a', 'b'],
        [
          ['I', null, ['1', '23']],
          ['I', null, ['12', '3']],
        ],
      ),
    );
    expect(collapsed.result().upsertCount).to.equal(2);
  });

  it('F26: a column that the relation lost is NULL in new rows and untouched in updated ones', () => {
    const collapsed = new Collapse(COLUMNS, ['id']);
    collapsed.add(
      changesOf(
        ['id', 'v'],
        [
          ['I', null, ['1', 'a']],
          ['U', null, ['2', 'b']],
        ],
      ),
    );
    expect(collapsed.result().upserts).to.deep.equal(['1', 'a', null, '2', 'b', undefined]);
  });
});
