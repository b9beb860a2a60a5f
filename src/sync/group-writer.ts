/** Writes the stream's pieces into one apply group: its own session, its own position, its own trouble. */
import { type AlteredTable, type ChangePiece, type TableCaptures } from '../model/changes.ts';
import { failpoint } from '../model/failpoint.ts';
import { hasCode, SluiceError, toSluiceError } from '../model/errors.ts';
import type { Position } from '../model/position.ts';
import { displayName } from '../model/tables.ts';
import type {
  ApplyCounts,
  Catalog,
  ChangeSource,
  Destination,
  GroupApplier,
  GroupTransaction,
  GroupState,
  Route,
  SnapshotSource,
} from '../engines/contract.ts';
import { absentSource } from './absent-values.ts';
import { decodeBlock, encodeBlocks } from './change-block.ts';
import { ColumnFollower, type ColumnsChanged } from './follow-columns.ts';
import { KnownDrifts } from './known-drifts.ts';
import { BLOCK_BYTES, MappingFailure, prepare, routeChanges, type Prepared } from './piece-router.ts';
import { Drifted, PieceTransaction } from './piece-transaction.ts';
import type { RefusedRow, Sparing } from './refused-rows.ts';
import { NotRead, Rewound, TableGap, Undone } from './write-interruptions.ts';

export interface GroupEvents {
  /** The group has durably stored `position`; `counts` by mapping, only those that had changes. */
  committed(
    group: GroupWriter,
    position: Position,
    committedAt: number | null,
    counts: ReadonlyMap<string, ApplyCounts>,
  ): void;
  /** The mapping's changes go to a backlog from now on, because of `error`; its state says so when it resolves. */
  held(mappingUid: string, error: SluiceError): Promise<void>;
  /** How many refused rows the mapping may leave behind. */
  failedRowsAllowed(mappingUid: string): number;
  /** Rows were refused; kept durably when it resolves. False: these are more than allowed. */
  refused(mappingUid: string, position: string, rows: readonly RefusedRow[]): Promise<boolean>;
  /** The column of the source that asks for a full sync when a row sets it to 1; null: none is watched. */
  triggerColumn(mappingUid: string): string | null;
  /** It was set. The commit that carries the change has happened. */
  flipped(mappingUid: string): void;
  /** Changes of the mapping's table are missing. Durable when it resolves; the group goes on without the mapping. */
  gap(mappingUid: string, error: SluiceError): Promise<void>;
  /** The source's columns changed: followed in place, or (`error`) to be mended by a full copy. */
  columnsChanged(mappingUid: string, change: ColumnsChanged): Promise<void>;
}

export interface GroupOptions {
  readonly stream: string;
  readonly group: string;
  readonly destination: Destination;
  readonly source: ChangeSource;
  /** The source's. */
  readonly catalog: Catalog;
  /** The source's. */
  readonly snapshot: SnapshotSource;
  /** Draws an epoch above `atLeast` from the control database's counter. */
  readonly drawEpoch: (atLeast: number) => Promise<number>;
  readonly lockWaitMs: () => number;
  readonly retries: () => { attempts: number; delayMs: number };
  readonly events: GroupEvents;
}

export interface WriteOptions {
  /** Position that the stream was at when the piece's transaction began; undefined: what does not complete it is staged. */
  readonly begins?: Position;
  /** The commit need not be durable when it resolves; `GroupWriter.durable` says which is. */
  readonly lazily?: boolean;
  /** Called when all that is left is to wait for the commit. */
  readonly committing?: () => void;
}

export class GroupWriter {
  readonly options: GroupOptions;
  #applier: GroupApplier | null = null;
  #known: GroupState | null = null;
  #durable: Position | null = null;
  /** The beginning of a transaction that is being read, applied. */
  #begun: PieceTransaction | null = null;
  #stagedPieces = 0;
  /** A transaction was applied as it was read, and that was undone: none is until one was staged and committed. */
  #stagesNext = false;
  /** Blocks of the piece in hand that are staged. */
  #blocksIn = 0;
  /** Mappings of which a row of the piece in hand was refused. */
  readonly #sparing = new Map<string, Sparing>();
  /** Of mappings of which a row was refused since this session began: those rows. */
  readonly #suspects = new Map<string, Set<string>>();
  readonly #drifts = new KnownDrifts();
  readonly #follower: ColumnFollower;
  /** The last piece whose statements were told. */
  #told: ChangePiece | null = null;
  #routes: readonly Route[] = [];
  /** What was found out about a piece ahead of its turn, by these routes. */
  #prepared: (Prepared & { readonly piece: ChangePiece; readonly routes: readonly Route[] }) | null = null;

  constructor(options: GroupOptions) {
    this.options = options;
    this.#follower = new ColumnFollower({
      destination: options.destination,
      catalog: options.catalog,
      drifts: this.#drifts,
      session: () => this.#session(),
      hold: (failure) => this.#hold(failure),
      columnsChanged: (mappingUid, change) => options.events.columnsChanged(mappingUid, change),
    });
  }

  get name(): string {
    return this.options.group;
  }

  /** Position last known to be stored; null before `take`. */
  get position(): Position | null {
    return this.#known?.position ?? null;
  }

  /** Position that no crash of the destination can take back; null before `take`. Lower than `position` after lazy commits. */
  get durable(): Position | null {
    return this.#durable;
  }

  /** Some mapping of the group is being copied: whoever folds its backlog waits for positions. */
  get isAwaited(): boolean {
    return this.#routes.some((route) => route.backlog === 'copy');
  }

  /** Fences the group for a fresh epoch. `create`: where a group that does not exist yet starts. False: it does not exist. */
  async take(create: Position | null): Promise<boolean> {
    const { destination, stream, group } = this.options;
    await destination.prepare();
    const stored = (await destination.groups(stream)).find((each) => each.group === group);
    const epoch = await this.options.drawEpoch(stored?.epoch ?? 0);
    const applier = await destination.takeGroup({
      stream,
      group,
      epoch,
      lockWaitMs: this.options.lockWaitMs(),
      create,
    });
    if (!applier) return false;
    this.#applier = applier;
    this.#known = applier.state;
    this.#durable = applier.durable;
    this.#stagedPieces = 0;
    this.#blocksIn = 0;
    return true;
  }

  /**
   * Commits the piece, behind what came before of its transaction; what does not complete its transaction is applied and not committed, or
   * staged. Retries what is transient; throws what is not, `Rewound`, `Undone` and `NotRead`.
   */
  async write(piece: ChangePiece, options: WriteOptions = {}): Promise<void> {
    if (piece.end !== null && this.#has(piece.end)) {
      // The beginning of a transaction does not say where it ends: what was kept of one that is here already is not applied again.
      if (this.#stagedPieces > 0) await this.#session().discardStaged();
      this.#stagedPieces = 0;
      return;
    }
    if (this.#begun !== null || (piece.end === null && this.#appliesAtOnce(options.begins))) {
      await this.#writePart(piece, options);
      return;
    }
    const { attempts, delayMs } = this.options.retries();
    for (let attempt = 1; ; attempt++) {
      try {
        if (piece.end === null) await this.#stage(piece);
        else await this.#commit(piece, piece.end, options);
        return;
      } catch (error) {
        if (error instanceof MappingFailure || error instanceof Drifted || error instanceof TableGap) {
          await this.#settle(error, piece);
          attempt = 0;
          continue;
        }
        if (error instanceof NotRead) throw error;
        const known = toSluiceError(error);
        // A lost connection ends the session: whether the commit came through is read from the position row (F01).
        if (known.code === 'FENCED' || known.retry !== 'backoff' || attempt > attempts) throw known;
        if (this.#stagedPieces > 0 && hasCode(known, 'CONNECTION_LOST')) throw known;
        await new Promise((resolve) => setTimeout(resolve, delayMs * (0.5 + Math.random())));
        if (hasCode(known, 'CONNECTION_LOST')) {
          await this.#reconnect();
          if (piece.end !== null && this.#has(piece.end)) return;
        }
      }
    }
  }

  /** Of the piece that is to be written next: what the server need not be kept waiting for, as long as the routes stay as they are. */
  prepare(piece: ChangePiece): void {
    if (piece.end === null || this.#applier === null) return;
    this.#prepared = { ...prepare(piece.tables, this.#routes), piece, routes: this.#routes };
  }

  /** Makes what was committed lazily durable. */
  async settle(): Promise<void> {
    if (this.#applier === null || this.#begun !== null || this.#durable === this.position) return;
    try {
      await this.#inPlace(() => Promise.resolve());
    } catch (error) {
      if (!hasCode(error, 'CONNECTION_LOST')) throw error;
      // A new session begins with a durable commit.
      await this.#reconnect();
    }
  }

  async close(): Promise<void> {
    const applier = this.#applier;
    this.#applier = null;
    this.#prepared = null;
    // It ends with its session.
    this.#begun = null;
    await applier?.close();
  }

  /** The group is ahead of the reader (another group was behind at the start): it has this already. */
  #has(end: Position): boolean {
    if (this.#known === null) return false;
    const order = this.options.source.compare(end, this.#known.position);
    if (order === 'unordered')
      throw new SluiceError('GAP', `the position of group ${this.name} does not belong to this source any more`);
    return order !== 'after';
  }

  /** Nothing is known that would have to be tried again, and the group has everything before the transaction and nothing of it. */
  #appliesAtOnce(begins: Position | undefined): boolean {
    if (this.#stagesNext || this.#stagedPieces > 0 || this.#suspects.size > 0) return false;
    return (
      begins !== undefined &&
      this.#known !== null &&
      this.options.source.compare(begins, this.#known.position) === 'equal'
    );
  }

  /** Whatever goes wrong: the transaction is read again from its beginning and staged, so that it can be tried as often as is needed. */
  async #writePart(piece: ChangePiece, options: WriteOptions): Promise<void> {
    try {
      if (piece.end !== null) return await this.#commit(piece, piece.end, options);
      this.#begun ??= await this.#begin();
      try {
        await this.#begun.apply(this.#takePrepared(piece, this.#routes));
        await failpoint('stream.part-applied');
      } catch (error) {
        await this.#begun.transaction.rollback();
        throw error;
      }
    } catch (error) {
      this.#begun = null;
      this.#stagesNext = true;
      if (error instanceof NotRead || hasCode(error, 'FENCED')) throw error;
      // Whether a commit came through is read from the position row (F01).
      throw new Undone(error);
    }
  }

  async #stage(piece: ChangePiece): Promise<void> {
    const applier = this.#session();
    let block = 0;
    for (const table of piece.tables) {
      for (const each of encodeBlocks(table, BLOCK_BYTES)) {
        // Tried again, it goes on behind the blocks that are in.
        if (block++ < this.#blocksIn) continue;
        await applier.stage(each);
        this.#stagedPieces++;
        this.#blocksIn++;
      }
    }
    this.#blocksIn = 0;
    await failpoint('stream.piece-staged');
  }

  /** A commit of its own at the position the group is at. */
  async #inPlace(work: (transaction: GroupTransaction) => Promise<unknown>): Promise<void> {
    const applier = this.#session();
    const transaction = await applier.begin();
    try {
      await work(transaction);
      await transaction.commit(applier.state.position);
    } catch (error) {
      await transaction.rollback();
      throw error;
    }
    this.#durable = applier.durable;
  }

  async #begin(): Promise<PieceTransaction> {
    const transaction = await this.#session().begin();
    this.#routes = transaction.routes;
    return new PieceTransaction(transaction, {
      drifts: this.#drifts,
      triggerColumn: (mappingUid) => this.options.events.triggerColumn(mappingUid),
      sparing: this.#sparing,
      absent: (route) => absentSource(this.options, route),
    });
  }

  async #commit(piece: ChangePiece, end: Position, { lazily = false, committing }: WriteOptions): Promise<void> {
    const applying = this.#begun ?? (await this.#begin());
    const { transaction, counts, flipped } = applying;
    const { captures, schemas } = piece;
    for (const uid of this.#suspects.keys()) this.#spareRows(uid, end);
    try {
      for (const { source } of schemas ? transaction.routes : [])
        if (!schemas?.has(source.schema)) throw new NotRead(source.schema);
      if (captures) this.#checkCaptures(transaction.routes, captures);
      if (this.#stagedPieces > 0)
        for await (const block of transaction.staged()) {
          const routed = routeChanges([decodeBlock(block.bytes)], transaction.routes);
          await applying.apply({ routed, collapsed: new Map() });
        }
      await applying.apply(this.#takePrepared(piece, transaction.routes));
      if (piece.altered && this.#told !== piece) {
        await this.#tell(piece.altered, transaction.routes);
        this.#told = piece;
      }
      await failpoint('stream.before-commit');
      // A flag that was set is acted upon elsewhere: that must not be forgotten here.
      const committed = transaction.commit(end, { lazily: lazily && flipped.size === 0 });
      committing?.();
      await committed;
    } catch (error) {
      await transaction.rollback();
      throw error;
    }
    await failpoint('stream.after-commit');
    const { state, durable } = this.#session();
    this.#known = state;
    this.#durable = durable;
    this.#begun = null;
    // What is committed before the transaction that was undone says nothing of that one.
    if (this.#stagedPieces > 0) this.#stagesNext = false;
    this.#stagedPieces = 0;
    this.#sparing.clear();
    this.options.events.committed(this, end, piece.committedAt, counts);
    for (const mappingUid of flipped) this.options.events.flipped(mappingUid);
  }

  /** Used once: what was made of it is the attempt's. */
  #takePrepared(piece: ChangePiece, routes: readonly Route[]): Prepared {
    const ready = this.#prepared;
    this.#prepared = null;
    if (ready?.piece === piece && ready.routes === routes) return ready;
    return { routed: routeChanges(piece.tables, routes), collapsed: new Map() };
  }

  /** The failing mapping's changes go to a backlog, in a commit of its own at the position the group is at. */
  async #hold(failure: MappingFailure): Promise<void> {
    await this.#inPlace((transaction) => transaction.hold(failure.mappingUid));
    await this.options.events.held(failure.mappingUid, failure.error);
  }

  async #reconnect(): Promise<void> {
    const before = this.#known;
    const durable = this.#durable;
    await this.close();
    if (!(await this.take(null)))
      throw new SluiceError('GAP', `the destination has lost the position of group ${this.name}`);
    const now = this.#known?.position;
    const isBehind = (position: Position | null | undefined) =>
      now !== undefined && position != null && this.options.source.compare(now, position) === 'before';
    if (isBehind(durable)) {
      throw new SluiceError(
        'GAP',
        `the destination of group ${this.name} went back behind what was acknowledged: it was restored`,
      );
    }
    if (isBehind(before?.position)) throw new Rewound();
  }

  #session(): GroupApplier {
    if (!this.#applier) throw new SluiceError('CONNECTION_LOST', `group ${this.name} has no session`);
    return this.#applier;
  }

  /** Durably, before the position passes the statements: a crash in between tells them again. */
  async #tell(altered: readonly AlteredTable[], routes: readonly Route[]): Promise<void> {
    for (const route of routes) {
      const { schema, table } = route.source;
      const found = altered.find(
        (each) => each.schema === schema && (each.table === null || each.table.toLowerCase() === table.toLowerCase()),
      );
      if (!found) continue;
      const error = new SluiceError('SCHEMA_CHANGED', `the source ran ${found.verb} on ${displayName(route.source)}`);
      await this.options.events.columnsChanged(route.mappingUid, { added: [], dropped: [], error });
      this.#drifts.asked(route);
    }
  }

  /** invariant 5, for sources that record each table by itself: before anything is applied, under the position row's lock. */
  #checkCaptures(routes: readonly Route[], captures: TableCaptures): void {
    for (const route of routes) {
      const capture = route.capture ?? null;
      const error = captures.gap(route.source, capture);
      if (error) throw new TableGap(route, error);
      const successor = route.live ? captures.successor(route.source, capture) : null;
      if (successor && !this.#drifts.isSettled(route, successor.capture))
        throw new Drifted(route, successor.relation, successor.capture, successor.capture);
    }
  }

  async #settle(trouble: Drifted | MappingFailure | TableGap, piece: ChangePiece): Promise<void> {
    if (trouble instanceof MappingFailure && this.#maySpare(trouble, piece)) return;
    try {
      if (trouble instanceof TableGap) await this.#leave(trouble);
      else if (trouble instanceof Drifted) await this.#follower.follow(trouble);
      else await this.#hold(trouble);
    } catch (error) {
      if (!(error instanceof MappingFailure)) throw error;
      await this.#hold(error);
    }
  }

  /** A refused row, for the first time in this piece: it is looked for, and the others are applied. */
  #maySpare({ mappingUid, error }: MappingFailure, { end }: ChangePiece): boolean {
    if (error.code !== 'ROW_REFUSED' || end === null || this.#sparing.has(mappingUid)) return false;
    this.#spareRows(mappingUid, end);
    return true;
  }

  #spareRows(mappingUid: string, end: Position): void {
    const { events } = this.options;
    const suspects = this.#suspects.get(mappingUid) ?? new Set();
    this.#suspects.set(mappingUid, suspects);
    this.#sparing.set(mappingUid, {
      limit: events.failedRowsAllowed(mappingUid),
      suspects,
      record: (rows) => events.refused(mappingUid, end, rows),
    });
  }

  /** invariant 5: one table's changes are missing. Said durably first, so that no position ever hides it. */
  async #leave({ route, error }: TableGap): Promise<void> {
    if (!route.live && route.backlog === 'copy') {
      // Nobody reads the table yet: its copy starts anew.
      await this.#inPlace((transaction) => transaction.hold(route.mappingUid));
      return;
    }
    await this.options.events.gap(route.mappingUid, error);
    await this.options.destination.copies.forget(route.mappingUid);
  }
}
