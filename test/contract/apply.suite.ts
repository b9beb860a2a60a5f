import { expect } from 'chai';
import type {
  Catalog,
  ChangeSource,
  CopySession,
  Destination,
  GroupApplier,
  Route,
  SnapshotSource,
} from '../../src/engines/contract.ts';
import type { ChangePiece } from '../../src/model/changes.ts';
import { SluiceError } from '../../src/model/errors.ts';
import type { Position } from '../../src/model/position.ts';
import type { Table } from '../../src/model/tables.ts';
import { Collapse } from '../../src/sync/collapse.ts';
import { decodeBlock, encodeBlocks } from '../../src/sync/change-block.ts';
import { folder } from '../../src/sync/fold.ts';
import { GroupWriter, type GroupEvents } from '../../src/sync/group-writer.ts';
import { Undone } from '../../src/sync/write-interruptions.ts';
import { changesOf, type ChangeSpec } from '../support/changes.ts';
import {
  createItems,
  insertItems,
  ITEM_COLUMNS,
  ITEM_ROUTE,
  itemsTable,
  numbers,
  type ContractDatabase,
  type EngineUnderTest,
} from './engine-under-test.ts';

const STREAM = 'contract/1/db';
const MAPPING = '00000000-0000-4000-8000-000000000001';
const at = (n: number) => `position ${n}` as Position;

/** Of a source that has made-up positions and is never asked for anything else. */
function writerOf(destination: Destination, drawEpoch: () => Promise<number>): GroupWriter {
  const number = (position: Position) => Number(position.split(' ')[1]);
  const compare: ChangeSource['compare'] = (a, b) =>
    number(a) < number(b) ? 'before' : number(a) > number(b) ? 'after' : 'equal';
  const nothing = { compare } as ChangeSource & Catalog & SnapshotSource;
  const events: GroupEvents = {
    committed: () => undefined,
    held: () => Promise.resolve(),
    failedRowsAllowed: () => 0,
    refused: () => Promise.resolve(false),
    triggerColumn: () => null,
    flipped: () => undefined,
    gap: (_, error) => Promise.reject(error),
    columnsChanged: (_, { error }) => Promise.reject(error ?? new Error('columns changed')),
  };
  return new GroupWriter({
    ...{ stream: STREAM, group: 'main', destination, source: nothing, catalog: nothing, snapshot: nothing },
    ...{ drawEpoch, lockWaitMs: () => 500, retries: () => ({ attempts: 0, delayMs: 1 }), events },
  });
}

/** Applying, holding, folding and swapping at a destination; positions are opaque to it, so these are made up. */
export function applySuite(engine: EngineUnderTest): void {
  describe('as destination: apply, backlog, swap and fencing', () => {
    let database: ContractDatabase;
    let destination: Destination;
    let table: Table;
    let applier: GroupApplier;
    let epoch: number;

    beforeEach(async () => {
      database = await engine.database();
      if (!database.handle.destination) throw new Error('this engine is no destination');
      destination = database.handle.destination;
      await destination.prepare();
      table = await createItems(database);
      epoch = 1;
      applier = await take(1);
    });
    afterEach(async () => {
      await applier.close();
      await database.drop();
    });

    const take = async (n: number, from: Destination = destination): Promise<GroupApplier> => {
      const taken = await from.takeGroup({ stream: STREAM, group: 'main', epoch: n, lockWaitMs: 500, create: at(0) });
      if (!taken) throw new Error('the group was not made');
      return taken;
    };
    const request = (live: Table | null, requestId: number, copyEpoch: number) => {
      const source = { ...itemsTable(database.schema, 'source_items'), id: '1' };
      return {
        stream: STREAM,
        group: 'main',
        mappingUid: MAPPING,
        copyEpoch,
        requestId,
        source,
        key: ['id'],
        columns: ITEM_ROUTE,
        design: destination.design(source, table.name, ['id']),
        target: table.name,
        live,
        lockWaitMs: 500,
      };
    };
    const adopt = () => destination.copies.adopt(request(table, 0, ++epoch));
    const collapsed = (...specs: ChangeSpec[]) => {
      const collapse = new Collapse(ITEM_COLUMNS, ['id']);
      collapse.add(changesOf(ITEM_COLUMNS, specs));
      return collapse.result();
    };
    const onlyRoute = (routes: readonly Route[]): Route => {
      const [route] = routes;
      if (!route || routes.length !== 1) throw new Error(`${routes.length} routes`);
      return route;
    };
    const apply = async (position: number, ...specs: ChangeSpec[]) => {
      const transaction = await applier.begin();
      const counts = await transaction.apply(onlyRoute(transaction.routes), collapsed(...specs));
      await transaction.commit(at(position));
      return counts;
    };
    const append = async (position: number, ...specs: ChangeSpec[]) => {
      const transaction = await applier.begin();
      const route = onlyRoute(transaction.routes);
      for (const block of encodeBlocks(changesOf(ITEM_COLUMNS, specs), 1000)) await transaction.append(route, block);
      await transaction.commit(at(position));
    };
    /** Of a transaction that ends at `end`, or goes on. */
    const piece = (end: number | null, ...specs: ChangeSpec[]): ChangePiece => {
      const changes = changesOf(ITEM_COLUMNS, specs);
      const relation = { ...changes.relation, name: { schema: database.schema, table: 'source_items' } };
      const counted = { bytes: 100, changes: specs.length, transactions: 1, committedAt: null };
      return { ...counted, tables: [{ ...changes, relation }], end: end === null ? null : at(end) };
    };
    const rows = () => database.rows(table.name, ITEM_COLUMNS);
    const codeOf = async (work: Promise<unknown>) => {
      const error: unknown = await work.then(
        () => null,
        (thrown: unknown) => thrown,
      );
      return error instanceof SluiceError ? error.code : error;
    };

    it('inserts, updates, deletes, moves keys; counts them; position and rows commit together', async () => {
      await adopt();
      expect(
        await apply(1, ['I', null, ['1', 'a', 'x']], ['I', null, ['2', 'b', null]], ['I', null, ['3', '', 'z']]),
      ).to.deep.equal({
        inserted: 3,
        updated: 0,
        deleted: 0,
      });
      await apply(
        2,
        ['U', null, ['1', 'A', 'x']],
        ['D', ['2', undefined, undefined], null],
        ['U', ['3', undefined, undefined], ['4', 'moved', undefined]],
      );
      expect(await rows()).to.deep.equal([
        ['1', 'A', 'x'],
        ['4', 'moved', 'z'],
      ]);
      expect((await destination.groups(STREAM))[0]?.position).to.equal(at(2));
    });

    it('F20 F22: two rows swap keys and keep their unchanged values', async () => {
      await adopt();
      await apply(1, ['I', null, ['1', 'one', 'BIG1']], ['I', null, ['2', 'two', 'BIG2']]);
      await apply(
        2,
        ['U', ['1', undefined, undefined], ['9', 'one', undefined]],
        ['U', ['2', undefined, undefined], ['1', 'two', undefined]],
        ['U', ['9', undefined, undefined], ['2', 'one', undefined]],
      );
      expect(await rows()).to.deep.equal([
        ['1', 'two', 'BIG2'],
        ['2', 'one', 'BIG1'],
      ]);
    });

    it('rolled back, nothing has happened, and the applier goes on', async () => {
      await adopt();
      const transaction = await applier.begin();
      await transaction.apply(onlyRoute(transaction.routes), collapsed(['I', null, ['1', 'a', 'x']]));
      await transaction.rollback();
      expect(await rows()).to.deep.equal([]);
      expect((await destination.groups(STREAM))[0]?.position).to.equal(at(0));
      await apply(1, ['I', null, ['2', 'b', 'y']]);
      expect(await rows()).to.deep.equal([['2', 'b', 'y']]);
    });

    it('several batches in one transaction see each other and nothing of earlier ones twice', async () => {
      await adopt();
      const transaction = await applier.begin();
      const route = onlyRoute(transaction.routes);
      await transaction.apply(route, collapsed(['I', null, ['1', 'first', 'x']]));
      await transaction.apply(route, collapsed(['U', null, ['1', 'second', 'x']], ['I', null, ['2', 'b', null]]));
      await transaction.apply(route, collapsed(['D', ['1', undefined, undefined], null]));
      await transaction.commit(at(1));
      expect(await rows()).to.deep.equal([['2', 'b', null]]);
    });

    it('F43: staged pieces come back in order, and go with the commit', async () => {
      await adopt();
      const specs: ChangeSpec[] = [
        ['I', null, ['1', 'a', null]],
        ['U', null, ['1', 'b', null]],
      ];
      for (const spec of specs) {
        for (const block of encodeBlocks(changesOf(ITEM_COLUMNS, [spec]), 1000)) await applier.stage(block);
      }
      const read = async () => {
        const transaction = await applier.begin();
        const values: string[] = [];
        for await (const block of transaction.staged()) values.push(String(decodeBlock(block.bytes).cells[1]));
        await transaction.commit(at(1 + values.length));
        return values;
      };
      expect(await read()).to.deep.equal(['a', 'b']);
      expect(await read()).to.deep.equal([]);
    });

    it('F09 F63: an owner with an older epoch is refused, whatever it does, and so is one that comes late', async () => {
      await adopt();
      const other = database.another().destination;
      if (!other) throw new Error('no destination');
      const successor = await take(5, other);
      expect(await codeOf(applier.begin())).to.equal('FENCED');
      expect(await codeOf(applier.stage({ bytes: Buffer.from('x'), changes: 1 }))).to.equal('FENCED');
      expect(await codeOf(take(4))).to.equal('FENCED');
      const transaction = await successor.begin();
      await transaction.commit(at(1));
      await successor.close();
    });

    it('F63: a successor does not wait for an owner that is frozen inside its transaction', async () => {
      await adopt();
      await applier.begin();
      const startedAt = performance.now();
      const other = database.another().destination;
      if (!other) throw new Error('no destination');
      const successor = await take(6, other);
      expect(performance.now() - startedAt).to.be.lessThan(5000);
      await (await successor.begin()).commit(at(1));
      await successor.close();
    });

    it('a held mapping keeps its changes, and gets them in order when it returns', async () => {
      await adopt();
      await apply(1, ['I', null, ['1', 'a', 'BIG']]);
      await destination.copies.hold(MAPPING, 500);
      await append(2, ['U', null, ['1', 'held', undefined]], ['I', null, ['2', 'new', null]]);
      await append(3, ['U', ['1', undefined, undefined], ['7', 'held too', undefined]]);
      expect(await rows()).to.deep.equal([['1', 'a', 'BIG']]);
      const session = await destination.copies.openHeld(MAPPING, ++epoch, 500);
      if (!session) throw new Error('nothing held');
      expect(await session.finish(folder(session.route, null, { guard: asRouted }).fold)).to.equal(true);
      await session.close();
      expect(await rows()).to.deep.equal([
        ['2', 'new', null],
        ['7', 'held too', 'BIG'],
      ]);
      await apply(4, ['D', ['2', undefined, undefined], null]);
      expect(await rows()).to.have.length(1);
    });

    it('F08: what was made ready of a piece by one route is not applied by another', async () => {
      await adopt();
      await applier.close();
      const writer = writerOf(destination, () => Promise.resolve(++epoch));
      try {
        await writer.take(null);
        await writer.write(piece(1, ['I', null, ['1', 'a', 'x']]));
        const [two, three] = [piece(2, ['I', null, ['2', 'b', 'x']]), piece(3, ['I', null, ['3', 'c', 'x']])];
        writer.prepare(two);
        await writer.write(two);
        expect(await rows()).to.have.length(2);
        writer.prepare(three);
        await destination.copies.hold(MAPPING, 500);
        await writer.write(three);
        expect(await rows()).to.have.length(2);
        const session = await destination.copies.openHeld(MAPPING, ++epoch, 500);
        if (!session) throw new Error('nothing held');
        expect(await session.finish(folder(session.route, null, { guard: asRouted }).fold)).to.equal(true);
        await session.close();
        expect((await rows()).map(([id]) => id)).to.deep.equal(['1', '2', '3']);
      } finally {
        await writer.close();
      }
    });

    it('F43: a transaction that was undone is staged when it comes again, whatever is committed before it', async () => {
      await adopt();
      await applier.close();
      const writer = writerOf(destination, () => Promise.resolve(++epoch));
      const first = piece(null, ['I', null, ['1', 'a', 'x']]);
      // There is no row to take the value from.
      const wrong = piece(null, ['U', ['9', undefined, undefined], ['8', 'a', undefined]]);
      try {
        await writer.take(null);
        await writer.write(first, { begins: at(0) });
        const undone: unknown = await writer.write(wrong, { begins: at(0) }).catch((error: unknown) => error);
        expect(undone).to.be.instanceOf(Undone);
        await writer.close();
        await writer.take(null);
        // A place in the log that is told while the source makes the transaction ready again.
        await writer.write(piece(1));
        await writer.write(first, { begins: at(1) });
        await writer.write(wrong, { begins: at(1) });
        expect(await rows()).to.deep.equal([]);
      } finally {
        await writer.close();
      }
    });

    it('F65: calls side by side, after others that found nothing to do, each have a session of their own', async () => {
      const unknown = '00000000-0000-4000-8000-00000000000f';
      const { copies } = destination;
      await copies.forget(unknown);
      expect(await copies.hold(unknown, 500)).to.equal(false);
      expect(await copies.adopt({ ...request(table, 0, ++epoch), group: 'nobody' })).to.equal(false);
      await adopt();
      const states = await Promise.all(Array.from({ length: 6 }, () => copies.states([MAPPING])));
      expect(states.map(([state]) => state?.mappingUid)).to.deep.equal(Array.from({ length: 6 }, () => MAPPING));
    });

    it('F08: a copy replaces the rows in one instant, with what changed meanwhile', async () => {
      await adopt();
      await insertItems(database, table.name, numbers(1, 50), 'old');
      const session = await destination.copies.open(request(table, 1, ++epoch));
      if (!session) throw new Error('no position row');
      // The live table goes on meanwhile, and so does the backlog.
      const transaction = await applier.begin();
      const route = onlyRoute(transaction.routes);
      expect([route.live, route.backlog]).to.deep.equal([true, 'copy']);
      const change: ChangeSpec = ['U', null, ['3', 'changed', 'big']];
      await transaction.apply(route, collapsed(change));
      for (const block of encodeBlocks(changesOf(ITEM_COLUMNS, [change]), 1000)) await transaction.append(route, block);
      await transaction.commit(at(1));
      const cells = numbers(1, 40).flatMap((id) => [String(id), `new${id}`, 'big']);
      const batch = { columns: ITEM_COLUMNS, rows: 40, cells };
      await session.load({ id: 0, bounds: '' }, { format: 'cells', batches: one(batch) });
      // Loaded twice, as a row that moved would be: one of them stays.
      await session.load(
        { id: 1, bounds: '' },
        { format: 'cells', batches: one({ columns: ITEM_COLUMNS, rows: 1, cells: ['5', 'new5', 'big'] }) },
      );
      expect([...(await session.loadedChunks()).keys()].sort()).to.deep.equal([0, 1]);
      await session.buildKey();
      await session.buildIndexes();
      const { fold } = folder(session.route, null, { guard: asRouted });
      await session.round(1 << 20, fold);
      await session.compare();
      expect(await rows()).to.have.length(50);
      expect(await session.finish(fold)).to.equal(true);
      await session.close();
      const after = await rows();
      expect(after).to.have.length(40);
      expect(after[2]).to.deep.equal(['3', 'changed', 'big']);
      expect(after[4]).to.deep.equal(['5', 'new5', 'big']);
      const [state] = await destination.copies.states([MAPPING]);
      expect([state?.finishedRequest, state?.route?.live, state?.route?.backlog]).to.deep.equal([1, true, null]);
    });

    it('F08: a copy onto an empty table holds up no commit and shows nothing before its end', async () => {
      const session = await destination.copies.open(request(table, 3, ++epoch));
      if (!session) throw new Error('no position row');
      const cells = numbers(1, 30).flatMap((id) => [String(id), `new${id}`, 'big']);
      await session.load(
        { id: 0, bounds: '' },
        { format: 'cells', batches: one({ columns: ITEM_COLUMNS, rows: 30, cells }) },
      );
      await session.buildKey();
      await session.buildIndexes();
      const { fold } = folder(session.route, null, { guard: asRouted });
      await append(1, ['U', null, ['3', 'before', undefined]]);
      await session.compare();
      await append(2, ['U', null, ['4', 'after', undefined]], ['I', null, ['31', 'new', null]]);
      await session.round(1 << 20, fold);
      await append(
        3,
        ['U', ['5', undefined, undefined], ['32', 'moved', undefined]],
        ['D', ['6', undefined, undefined], null],
      );
      expect(await rows()).to.deep.equal([]);
      expect(await session.finish(fold)).to.equal(true);
      await session.close();
      const after = await rows();
      expect(after).to.have.length(30);
      expect(after.slice(2, 5)).to.deep.equal([
        ['3', 'before', 'big'],
        ['4', 'after', 'big'],
        ['7', 'new7', 'big'],
      ]);
      expect(after.slice(28)).to.deep.equal([
        ['31', 'new', null],
        ['32', 'moved', 'big'],
      ]);
      await apply(4, ['D', ['1', undefined, undefined], null]);
      expect(await rows()).to.have.length(29);
    });

    it('F63: a copier frozen in the middle of its swap onto an empty table is succeeded and refused', async () => {
      const load = async (session: CopySession, id: number) =>
        session.load(
          { id: 0, bounds: '' },
          { format: 'cells', batches: one({ columns: ITEM_COLUMNS, rows: 1, cells: [String(id), 'a', null] }) },
        );
      const first = await destination.copies.open(request(table, 4, ++epoch));
      if (!first) throw new Error('no position row');
      await load(first, 1);
      await first.buildKey();
      await first.compare();
      const second = await destination.copies.open(request(table, 4, ++epoch));
      if (!second) throw new Error('no position row');
      await second.compare();
      const { fold } = folder(second.route, null, { guard: asRouted });
      expect(await codeOf(first.finish(fold))).to.equal('FENCED');
      expect(await second.finish(fold)).to.equal(true);
      expect(await rows()).to.deep.equal([['1', 'a', null]]);
      await first.close();
      await second.close();
    });

    it('F03: a copier that died is succeeded: its chunks stay, it is refused', async () => {
      const first = await destination.copies.open(request(table, 2, ++epoch));
      if (!first) throw new Error('no position row');
      await first.load(
        { id: 0, bounds: '' },
        { format: 'cells', batches: one({ columns: ITEM_COLUMNS, rows: 1, cells: ['1', 'a', null] }) },
      );
      const second = await destination.copies.open(request(table, 2, ++epoch));
      if (!second) throw new Error('no position row');
      expect([...(await second.loadedChunks())]).to.deep.equal([[0, 1]]);
      expect(
        await codeOf(
          first.load(
            { id: 1, bounds: '' },
            { format: 'cells', batches: one({ columns: ITEM_COLUMNS, rows: 1, cells: ['2', 'b', null] }) },
          ),
        ),
      ).to.equal('FENCED');
      expect([...(await second.loadedChunks())]).to.deep.equal([[0, 1]]);
      await first.close();
      await second.close();
    });
  });
}

/** No column of these suites' tables ever changes. */
const asRouted = async () => undefined;

async function* one<T>(value: T): AsyncGenerator<T> {
  yield value;
}
