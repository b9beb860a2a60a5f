/**
 * One change stream: one reader, its apply groups, and the acknowledgement (PROTOCOL, The stream). `run` is the stream's life;
 * it ends when `stop` was called, and throws what the owner must know (FENCED, a source that fails). Whoever owns the stream's
 * lease runs it; nobody else.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChangePiece } from '../model/changes.ts';
import { failpoint } from '../model/failpoint.ts';
import { hasCode, SluiceError, toSluiceError } from '../model/errors.ts';
import type { Position } from '../model/position.ts';
import type {
  Catalog,
  ChangeReader,
  ChangeSource,
  Destination,
  SnapshotSource,
  SourceObject,
} from '../engines/contract.ts';
import { GroupWriter, type GroupEvents } from './group-writer.ts';
import { NotRead, Rewound, Undone } from './write-interruptions.ts';

/** An apply group as the control tables want it. */
export interface GroupSpec {
  /** Unique among the stream's groups, whatever their destination. */
  readonly id: string;
  readonly group: string;
  readonly destination: Destination;
}

export interface StreamSettings {
  readonly batchRows: number;
  readonly batchMaxBytes: number;
  readonly leaseMs: number;
  readonly idleMs: number;
  readonly pollMs: number;
  readonly retryAttempts: number;
  readonly retryDelayMs: number;
  readonly holdMaxBytes: number;
  readonly holdMaxMs: number;
}

export interface StreamEvents extends Pick<
  GroupEvents,
  'held' | 'columnsChanged' | 'failedRowsAllowed' | 'refused' | 'triggerColumn' | 'flipped'
> {
  committed(
    groupId: string,
    position: Position,
    committedAt: number | null,
    counts: Parameters<GroupEvents['committed']>[3],
  ): void;
  /** Durable before it resolves: these groups' mappings are in `gap`, and the source may forget what they lack. */
  gap(groupIds: readonly string[], reason: SluiceError): Promise<void>;
  /** As above, of one mapping. */
  mappingGap(mappingUid: string, reason: SluiceError): Promise<void>;
  /** The group's destination does not answer; the acknowledgement waits for it. Said once. */
  away(groupId: string, reason: SluiceError): void;
  back(groupId: string): void;
  /** A transaction that was applied while it was read is read again, and staged. */
  undone(groupId: string, reason: string): void;
  objects(objects: readonly SourceObject[]): Promise<void>;
}

export interface StreamOptions {
  readonly stream: string;
  readonly source: ChangeSource;
  readonly catalog: Catalog;
  readonly snapshot: SnapshotSource;
  /** What the control tables want now; read again between pieces. */
  readonly groups: () => readonly GroupSpec[];
  /** Schemas of the source that hold a mapped table, as far as the control tables say. */
  readonly schemas?: () => readonly string[];
  readonly settings: () => StreamSettings;
  /** Somebody beyond this stream waits for its next position: a copy that is about to begin. */
  readonly isAwaited?: () => boolean;
  readonly drawEpoch: (atLeast: number) => Promise<number>;
  readonly events: StreamEvents;
}

interface Member {
  readonly spec: GroupSpec;
  readonly writer: GroupWriter;
  /** Lowest position this group is known to have stored; null: not known (away since the start). */
  durable: Position | null;
  awaySince: number | null;
  /** Let go: in `gap`, not waited for. */
  released: boolean;
  retryAt: number;
}

/** How long after a failed attempt a destination that is away is asked again. */
const AWAY_RETRY_MS = 5_000;
/** A copy that folds waits for positions: then even idle progress is stored often. */
const AWAITED_IDLE_MS = 200;
/** A piece that was there at once is one of many: it is committed lazily, as long as the last durable commit is no older than this. */
const READY_MS = 5;
const DURABLE_MS = 1000;
/** When nothing follows a lazy commit for so long, what was committed is made durable. */
const SETTLE_MS = 100;

export class Stream {
  readonly #options: StreamOptions;
  readonly #members = new Map<string, Member>();
  #reader: ChangeReader | null = null;
  /** The next piece, pulled before its turn. */
  #upcoming: Promise<IteratorResult<ChangePiece>> | null = null;
  #stopping = false;
  /** End of the last piece that went to every group: where a new group starts. */
  #at: Position | null = null;
  #acknowledged: Position | null = null;
  /** When every group was last durable where it stands, ms of `performance.now`. */
  #durableAt = 0;
  #restart = false;
  /** Schemas of tables that a route was found for, although the control tables did not name them when the reader began. */
  readonly #schemas = new Set<string>();

  constructor(options: StreamOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    try {
      while (!this.#stopping) {
        this.#restart = false;
        await this.#readFromLowest();
      }
    } finally {
      await this.#close();
    }
  }

  /** Ends after the piece in hand. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#reader?.stop();
  }

  /** Where the stream is, for status: what is acknowledged, and which groups hold it back. */
  status(): { acknowledged: Position | null; away: string[] } {
    return {
      acknowledged: this.#acknowledged,
      away: [...this.#members.values()].filter((member) => member.awaySince !== null).map((member) => member.spec.id),
    };
  }

  async #readFromLowest(): Promise<void> {
    const { source, stream, events } = this.#options;
    const prepared = await source.prepare(stream);
    await events.objects(prepared.objects);
    await this.#takeGroups(prepared);
    const active = [...this.#members.values()].filter((member) => !member.released);
    const positions = active.map((member) => member.durable).filter((position) => position !== null);
    if (positions.length === 0) {
      // Nothing to read for: every destination is away, or there is no group yet.
      await this.#pause(1000);
      return;
    }
    const from = positions.reduce((low, each) => (source.compare(each, low) === 'before' ? each : low));
    const reader = await this.#openReader(from, positions);
    if (!reader) return;
    this.#reader = reader;
    this.#at = from;
    try {
      const pieces = reader.pieces[Symbol.asyncIterator]();
      while (!this.#stopping) {
        const askedAt = performance.now();
        const piece = await this.#next(pieces, reader);
        if (piece === null) break;
        const now = performance.now();
        const lazily = now - askedAt < READY_MS && now - this.#durableAt < DURABLE_MS;
        const begins = this.#at ?? from;
        const committing = () => this.#pullAhead(pieces, reader);
        await this.#toGroups((writer) => writer.write(piece, { begins, lazily, committing }));
        if (this.#restart) break;
        if (piece.end !== null) {
          if (!lazily) this.#durableAt = performance.now();
          this.#at = piece.end;
          this.#acknowledge(reader);
          await failpoint('stream.after-acknowledge');
          await this.#adjustGroups();
          if (this.#restart) break;
        }
      }
      if (!this.#restart) await this.#settle(reader);
    } catch (error) {
      if (!hasCode(error, 'GAP')) throw error;
      // Read again from where they are, all groups would come to it.
      await this.#settleGap(
        [...this.#members.values()].filter((member) => !member.released && member.durable !== null),
        error,
      );
    } finally {
      this.#reader = null;
      this.#upcoming = null;
      await reader.stop();
    }
    if (this.#restart) await Promise.all([...this.#members.values()].map((member) => member.writer.close()));
  }

  /** The next piece; null: there is none. What was committed lazily is made durable when none comes at once. */
  async #next(pieces: AsyncIterator<ChangePiece>, reader: ChangeReader): Promise<ChangePiece | null> {
    const next = this.#upcoming ?? pieces.next();
    this.#upcoming = null;
    if ([...this.#members.values()].some(({ writer }) => writer.durable !== writer.position)) {
      const isThere = next.then(
        () => true,
        () => true, // thrown below
      );
      const waited = new AbortController();
      const isLate = sleep(SETTLE_MS, false, { signal: waited.signal }).catch(() => true);
      if (!(await Promise.race([isThere, isLate]))) {
        await this.#settle(reader);
        if (this.#restart) return null;
      }
      waited.abort();
    }
    const result = await next;
    return result.done === true ? null : result.value;
  }

  /** While destinations commit, what follows is made ready for them. */
  #pullAhead(pieces: AsyncIterator<ChangePiece>, reader: ChangeReader): void {
    if (this.#upcoming !== null || reader.isReady !== true) return;
    this.#upcoming = pieces.next();
    this.#upcoming
      .then(({ done, value }) => {
        if (done !== true) for (const { writer } of this.#members.values()) writer.prepare(value);
      })
      .catch(() => undefined); // thrown to who asks for it, or applies it
  }

  async #settle(reader: ChangeReader): Promise<void> {
    await this.#toGroups((writer) => writer.settle());
    this.#durableAt = performance.now();
    if (!this.#restart) this.#acknowledge(reader);
  }

  /** Opens the reader; a gap is settled (invariant 5) and null returned: start over. */
  async #openReader(from: Position, positions: readonly Position[]): Promise<ChangeReader | null> {
    const { source, stream } = this.#options;
    try {
      return await source.read(stream, from, {
        takeOver: true,
        schemas: [...new Set([...(this.#options.schemas?.() ?? []), ...this.#schemas])],
        breakAt: positions.filter((position) => source.compare(position, from) === 'after'),
        maxChanges: this.#options.settings().batchRows,
        maxBytes: this.#options.settings().batchMaxBytes,
        idleProgressMs: () => (this.#isAwaited() ? AWAITED_IDLE_MS : this.#options.settings().idleMs),
        pollMs: () => (this.#isAwaited() ? AWAITED_IDLE_MS : this.#options.settings().pollMs),
      });
    } catch (error) {
      if (!hasCode(error, 'GAP')) throw error;
      // Whoever stands at the lowest position cannot go on; groups ahead of it may.
      const behind = [...this.#members.values()].filter(
        (member) => !member.released && member.durable !== null && source.compare(member.durable, from) !== 'after',
      );
      await this.#settleGap(behind, error);
      return null;
    }
  }

  /** Fences every group for us. Those that do not exist start where a stream without positions starts, if nobody else has a position yet. */
  async #takeGroups({ start, floor, created }: Awaited<ReturnType<ChangeSource['prepare']>>): Promise<void> {
    const { source } = this.#options;
    const specs = this.#options.groups();
    await this.#dismiss(specs);
    for (const spec of specs) if (!this.#members.has(spec.id)) this.#members.set(spec.id, this.#member(spec));
    const gone: Member[] = [];
    const fresh: Member[] = [];
    for (const member of this.#members.values()) {
      if (member.released) continue;
      try {
        if (await member.writer.take(null)) {
          member.durable = member.writer.position;
          this.#isBack(member);
        } else fresh.push(member);
      } catch (error) {
        this.#isAway(member, error);
      }
    }
    for (const member of this.#members.values()) {
      if (member.released || member.durable === null) continue;
      const order = source.compare(member.durable, floor ?? start);
      // Below what was acknowledged, or of another history: a restored destination, a replaced source, a slot made anew (F17, F19).
      if ((order === 'before' && floor !== null) || order === 'unordered' || (created && order !== 'equal'))
        gone.push(member);
    }
    if (gone.length > 0) {
      const why = created
        ? 'the source no longer had our place in its log (it was made anew), so changes are missing'
        : 'the stored position lies below what the source was told it may forget: the destination or the source was restored';
      await this.#settleGap(
        gone,
        new SluiceError('GAP', why, { hint: 'Set is_full_sync = 1 for the mappings, or on_gap = ‘resync’.' }),
        start,
      );
    }
    const low = [...this.#members.values()]
      .map((member) => member.durable)
      .filter((position) => position !== null)
      .reduce<Position | null>(
        (low, each) => (low === null || source.compare(each, low) === 'before' ? each : low),
        null,
      );
    for (const member of fresh) {
      // At the lowest position that will be read from, so that a group made before a crash is found where it was made.
      try {
        await member.writer.take(low ?? start);
        member.durable = member.writer.position;
      } catch (error) {
        this.#isAway(member, error);
      }
    }
  }

  /** To all groups at once. A group whose destination fails is away from now on; the others do not wait for it. */
  async #toGroups(work: (writer: GroupWriter) => Promise<void>): Promise<void> {
    await Promise.all(
      [...this.#members.values()].map(async (member) => {
        if (member.released || member.awaySince !== null) return;
        try {
          await work(member.writer);
          member.durable = member.writer.durable;
        } catch (error) {
          if (hasCode(error, 'FENCED')) throw error;
          if (error instanceof Rewound || error instanceof Undone) {
            if (error instanceof Undone) this.#options.events.undone(member.spec.id, error.reason);
            this.#restart = true;
            return;
          }
          if (error instanceof NotRead) {
            this.#schemas.add(error.schema);
            this.#restart = true;
            return;
          }
          if (hasCode(error, 'GAP')) {
            await this.#settleGap([member], error);
            this.#restart = true;
            return;
          }
          this.#isAway(member, error);
          await member.writer.close();
        }
      }),
    );
  }

  /** Invariant 3: the lowest position durable in all groups that are not let go. */
  #acknowledge(reader: ChangeReader): void {
    const { source } = this.#options;
    let low: Position | null = null;
    for (const member of this.#members.values()) {
      if (member.released) continue;
      if (member.durable === null) return;
      if (low === null || source.compare(member.durable, low) === 'before') low = member.durable;
    }
    if (low === null) return;
    this.#acknowledged = low;
    reader.acknowledge(low);
  }

  /** Groups that left, and those whose destination is reached by another connection now: they begin anew with it. */
  async #dismiss(specs: readonly GroupSpec[]): Promise<void> {
    for (const [id, member] of this.#members) {
      if (specs.some((spec) => spec.id === id && spec.destination === member.spec.destination)) continue;
      await member.writer.close();
      this.#members.delete(id);
    }
  }

  /** Between transactions: new groups are made at the reading position, groups that left are closed, groups that were away are asked. */
  async #adjustGroups(): Promise<void> {
    const specs = this.#options.groups();
    await this.#dismiss(specs);
    for (const spec of specs) {
      if (this.#members.has(spec.id) || this.#at === null) continue;
      const member = this.#member(spec);
      this.#members.set(spec.id, member);
      try {
        const found = await member.writer.take(null);
        if (!found) await member.writer.take(this.#at);
        member.durable = member.writer.position;
        // A row it did not know: adopted, and read again from there (PROTOCOL, Rows that coordinate).
        if (found) this.#restart = true;
      } catch (error) {
        this.#isAway(member, error);
      }
    }
    for (const member of this.#members.values()) if (member.released) await this.#readmit(member);
    const { holdMaxMs } = this.#options.settings();
    for (const member of this.#members.values()) {
      if (member.awaySince === null || member.released) continue;
      if (performance.now() - member.awaySince > holdMaxMs || (await this.#holdsTooMuch(member))) {
        await this.release(
          member.spec.id,
          `the destination has been away for longer than hold_max_hours or hold_max_bytes allow`,
        );
        continue;
      }
      if (performance.now() < member.retryAt) continue;
      member.retryAt = performance.now() + AWAY_RETRY_MS;
      try {
        await member.spec.destination.prepare();
        // It answers again: everybody reads on from the lowest position.
        this.#restart = true;
      } catch {
        // Still away; said when it went.
      }
    }
  }

  /** A group that was let go starts again where the stream is now, once its destination answers; its mappings stay in `gap`. */
  async #readmit(member: Member): Promise<void> {
    const at = this.#at;
    if (at === null || performance.now() < member.retryAt) return;
    member.retryAt = performance.now() + AWAY_RETRY_MS;
    try {
      await member.spec.destination.prepare();
      await this.#resetAt(member, at);
    } catch (error) {
      if (hasCode(error, 'FENCED')) throw error;
      return;
    }
    // Counted for the acknowledgement from this moment on.
    member.released = false;
    this.#isBack(member);
  }

  /** The group starts again at `position`: its mappings are live no more. */
  async #resetAt(member: Member, position: Position): Promise<void> {
    const { stream, drawEpoch, settings } = this.#options;
    const { destination, group } = member.spec;
    await member.writer.close();
    const stored = (await destination.groups(stream)).find((each) => each.group === group);
    if (stored) {
      const epoch = await drawEpoch(stored.epoch);
      await destination.resetGroup({ stream, group, epoch, lockWaitMs: settings().leaseMs, position });
    }
    await member.writer.take(stored ? null : position);
    member.durable = member.writer.position;
  }

  /** Lets a group go: its mappings are in `gap`, durably, before anything is acknowledged past it. */
  async release(groupId: string, why: string): Promise<void> {
    const member = this.#members.get(groupId);
    if (!member || member.released) return;
    await this.#options.events.gap([groupId], new SluiceError('HOLD_EXCEEDED', why));
    member.released = true;
    await member.writer.close();
  }

  async #holdsTooMuch(member: Member): Promise<boolean> {
    if (member.durable === null) return false;
    const health = await this.#options.source.health(this.#options.stream, []).catch(() => null);
    return (
      health !== null && health.retainedBytes !== null && health.retainedBytes > this.#options.settings().holdMaxBytes
    );
  }

  async #settleGap(members: readonly Member[], reason: SluiceError, start?: Position): Promise<void> {
    const { source, stream, events } = this.#options;
    // Durable first: a crash in between leaves mappings in gap, never a position that hides one.
    await events.gap(
      members.map((member) => member.spec.id),
      reason,
    );
    const position = start ?? (await source.prepare(stream)).start;
    for (const member of members) await this.#resetAt(member, position);
  }

  /** Somebody waits for the next position: a fold, or a group that is to be made between two transactions. */
  #isAwaited(): boolean {
    return (
      this.#options.isAwaited?.() === true ||
      [...this.#members.values()].some(
        (member) => member.writer.isAwaited || member.awaySince !== null || member.released,
      ) ||
      this.#options.groups().some((spec) => !this.#members.has(spec.id))
    );
  }

  #member(spec: GroupSpec): Member {
    const { source, stream, drawEpoch, events, settings } = this.#options;
    const writer = new GroupWriter({
      stream,
      group: spec.group,
      destination: spec.destination,
      source,
      catalog: this.#options.catalog,
      snapshot: this.#options.snapshot,
      drawEpoch,
      lockWaitMs: () => settings().leaseMs,
      retries: () => ({ attempts: settings().retryAttempts, delayMs: Math.min(settings().retryDelayMs, 1000) }),
      events: {
        committed: (_writer, position, committedAt, counts) => events.committed(spec.id, position, committedAt, counts),
        held: (uid, error) => events.held(uid, error),
        gap: (uid, error) => events.mappingGap(uid, error),
        triggerColumn: (uid) => events.triggerColumn(uid),
        flipped: (uid) => events.flipped(uid),
        failedRowsAllowed: (uid) => events.failedRowsAllowed(uid),
        refused: (uid, position, rows) => events.refused(uid, position, rows),
        columnsChanged: (uid, change) => events.columnsChanged(uid, change),
      },
    });
    return { spec, writer, durable: null, awaySince: null, released: false, retryAt: 0 };
  }

  #isAway(member: Member, thrown: unknown): void {
    const error = toSluiceError(thrown);
    if (error.code === 'FENCED') throw error;
    if (member.awaySince === null) this.#options.events.away(member.spec.id, error);
    member.awaySince ??= performance.now();
    member.retryAt = performance.now() + AWAY_RETRY_MS;
  }

  #isBack(member: Member): void {
    if (member.awaySince !== null) this.#options.events.back(member.spec.id);
    member.awaySince = null;
  }

  async #pause(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (!this.#stopping && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 50));
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#members.values()].map((member) => member.writer.close().catch(() => undefined)));
  }
}
