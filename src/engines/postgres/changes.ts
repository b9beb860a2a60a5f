/** The change stream of a PostgreSQL database: one replication slot, one publication, pgoutput. */
import type { ChangePiece, TableChanges } from '../../model/changes.ts';
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { Position, PositionOrder } from '../../model/position.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import type { ChangeReader, ChangeSource, ReadOptions, SourceObject, StreamHealth } from '../contract.ts';
import type { Connection, Session } from './connection.ts';
import { classify, sqlState } from './errors.ts';
import { PgoutputDecoder, Step, type Taken } from './pgoutput.ts';
import { displayLsn, formatPosition, Lineage, parseHistory, parsePosition, type Place } from './position.ts';
import { memberFinding, member, MEMBERS, Publication } from './publication.ts';
import { ReplicationConnection } from './replication-connection.ts';
import {
  createSlot,
  dropSlot,
  dropSlotSql,
  readSource,
  requireLogicalWal,
  SOURCE_AND_SLOT,
  sourceState,
  streamObjectName,
  type SlotState,
} from './slots.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** Limits a test may shorten. */
export interface PostgresChangesOptions {
  /** How long `prepare` waits for transactions older than the slot, ms. */
  readonly slotWaitMs?: number;
  /** How long `include` waits for transactions that write to the table, ms. */
  readonly includeWaitMs?: number;
  /** A connection that says nothing for so long although it was asked is lost, ms. */
  readonly silenceMs?: number;
  /** wal_sender_timeout of the reader's session, ms. */
  readonly senderTimeoutMs?: number;
}

const SLOT_WAIT_MS = 60_000;
const INCLUDE_WAIT_MS = 60_000;
const SILENCE_MS = 60_000;
/** How often what depends on time is looked at, at least, ms. */
const TICK_MS = 250;
/** First byte of pgoutput's Begin message. */
const BEGIN = 0x42;
/** Status updates at least this often (the server's wal_receiver_status_interval is 10 s by default), ms. */
const STATUS_MS = 5_000;
/**
 * wal_sender_timeout of our session. Not 0: then the server would keep the slot of a machine that vanished for hours, and
 * would not answer while it skips a large transaction.
 */
const SENDER_TIMEOUT_MS = 60_000;

export class PostgresChanges implements ChangeSource {
  readonly #connection: Connection;
  readonly #options: Required<PostgresChangesOptions>;
  readonly #lineage = new Lineage();
  readonly #publications = new Map<string, Publication>();
  /** Why a slot of ours was found useless and made anew, by its name: told by the GAP that follows. */
  readonly #replaced = new Map<string, string>();

  constructor(connection: Connection, options: PostgresChangesOptions = {}) {
    this.#connection = connection;
    this.#options = {
      slotWaitMs: options.slotWaitMs ?? SLOT_WAIT_MS,
      includeWaitMs: options.includeWaitMs ?? INCLUDE_WAIT_MS,
      silenceMs: options.silenceMs ?? SILENCE_MS,
      senderTimeoutMs: options.senderTimeoutMs ?? SENDER_TIMEOUT_MS,
    };
  }

  /**
   * Order by log position within one cluster and timeline. Across timelines only once `read` has learned from the source that
   * the older one was left at or above the position; `unordered` until then.
   */
  compare(a: Position, b: Position): PositionOrder {
    return this.#lineage.compare(a, b);
  }

  incarnation(position: Position): string {
    const place = parsePosition(position);
    return place === null ? position : `${place.systemId}/${place.timeline}`;
  }

  display(position: Position): string {
    const place = parsePosition(position);
    return place === null ? position : displayLsn(place.lsn);
  }

  async prepare(stream: string): Promise<{ start: Position; created: boolean; objects: SourceObject[] }> {
    const slot = this.#slot(stream);
    const publication = this.#publication(stream);
    let source = await readSource(this.#connection, slot.name);
    requireLogicalWal(source);
    // Before the slot: see Publication.prepare.
    await publication.prepare(source.role);
    let created = false;
    if (source.slot?.invalid && slot.managed) {
      // It can never be read again. `read` from a stored position will say GAP; a stream without one loses nothing.
      this.#replaced.set(slot.name, `the server had invalidated the slot (${source.slot.invalid})`);
      await dropSlot(this.#connection, slot.name);
      source = { ...source, slot: null };
    }
    if (source.slot === null) {
      if (!slot.managed) {
        throw new SluiceError(
          'CDC_NOT_READY',
          `replication slot ${slot.name}, named in the connection string, does not exist`,
          { hint: `SELECT pg_create_logical_replication_slot('${slot.name}', 'pgoutput');` },
        );
      }
      await createSlot(this.#connection, slot.name, source, this.#options.slotWaitMs);
      created = true;
      source = await readSource(this.#connection, slot.name);
    }
    const confirmed = this.#usable(slot.name, source.slot);
    const objects: SourceObject[] = [];
    if (slot.managed) objects.push({ kind: 'replication slot', name: slot.name, dropSql: dropSlotSql(slot.name) });
    if (publication.managed)
      objects.push({ kind: 'publication', name: publication.name, dropSql: publication.dropSql });
    return { start: formatPosition({ ...source.now, lsn: confirmed }), created, objects };
  }

  async read(stream: string, from: Position, options: ReadOptions): Promise<ChangeReader> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#read(stream, from, options);
      } catch (error) {
        const slot = this.#slot(stream);
        if (!hasCode(error, 'CDC_IN_USE') || !options.takeOver || !slot.managed || attempt > 2) throw error;
        const holder = (await readSource(this.#connection, slot.name)).slot?.activePid;
        if (holder) await this.#terminate(Number(holder));
      }
    }
  }

  async #read(stream: string, from: Position, options: ReadOptions): Promise<ChangeReader> {
    const slot = this.#slot(stream);
    const publication = this.#publication(stream);
    const place = parsePosition(from);
    if (place === null) throw gap(`the stored position is not one of PostgreSQL: ${from}`);
    const { decoder, textAsBytes } = await this.#decoder();
    const session = await this.#connection.open({ replication: true }).catch((error: unknown) => {
      throw exhausted(error);
    });
    try {
      const timeline = await this.#sameHistory(session, place);
      // Needs no right from 12 on; an older server keeps its own.
      await session
        .query('set the timeout', `SET wal_sender_timeout = ${this.#options.senderTimeoutMs}`)
        .catch(() => undefined);
      // Such a server would refuse to send text that is not UTF-8 to a session that speaks it.
      if (textAsBytes) await session.query('set the encoding', `SET client_encoding = 'SQL_ASCII'`);
      const reader = new PostgresChangeReader(decoder, { ...place, timeline }, this.#lineage, options, {
        slot: slot.name,
        silenceMs: this.#options.silenceMs,
        statusMs: Math.min(STATUS_MS, this.#options.senderTimeoutMs / 3, this.#options.silenceMs / 3),
        terminate: (pid) => this.#terminate(pid),
      });
      await reader.start(
        session,
        `START_REPLICATION SLOT ${quoteIdentifier(slot.name)} LOGICAL ${displayLsn(place.lsn)} ` +
          // The replication grammar has no E'' strings: only the quote is doubled.
          `(proto_version '1', publication_names '${quoteIdentifier(publication.name).replaceAll("'", "''")}')`,
      );
      try {
        // invariant 5: with the slot held, so that nobody moves it between the check and the first piece.
        await this.#check(slot.name, publication, place, session.pid);
      } catch (error) {
        await reader.abandon();
        throw error;
      }
      reader.go();
      return reader;
    } catch (error) {
      session.destroy();
      await this.#connection.release(session);
      throw streamError(error, slot.name);
    }
  }

  async include(stream: string, table: Table, key?: readonly string[]): Promise<{ objects: SourceObject[] }> {
    const publication = this.#publication(stream);
    await publication.include(table, key ?? null);
    return {
      objects: publication.managed
        ? [{ kind: 'publication', name: publication.name, dropSql: publication.dropSql }]
        : [],
    };
  }

  exclude(stream: string, table: TableName): Promise<void> {
    return this.#publication(stream).exclude(table);
  }

  /**
   * The inserted end of the log, and a record behind it that makes the walsender of a quiet server pass it. No row is written.
   */
  async end(): Promise<Position> {
    const source = await readSource(this.#connection, '');
    if (!source.standby) {
      // From 17 on the record can be flushed by itself; before, only a transaction's commit does that at once.
      const emit =
        source.version >= 170_000
          ? `SELECT pg_logical_emit_message(false, 'sluice', '', true)`
          : `BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_logical_emit_message(true, 'sluice', ''); COMMIT`;
      await this.#connection.query('mark the end of the log', emit);
    }
    return formatPosition(source.now);
  }

  async health(stream: string, tables: readonly TableName[]): Promise<StreamHealth> {
    const slot = this.#slot(stream);
    const publication = this.#publication(stream);
    const rows = await this.#connection.query(
      'read the health of the stream',
      `WITH source AS (${SOURCE_AND_SLOT.replaceAll('$1', '$4')}), members AS (${MEMBERS})
       SELECT *, (SELECT to_jsonb(p)::text FROM pg_publication p WHERE p.pubname = $3) AS publication
       FROM source LEFT JOIN members ON true ORDER BY members.ord`,
      [tables.map((name) => name.schema), tables.map((name) => name.table), publication.name, slot.name],
    );
    const state = sourceState(rows[0]);
    const findings: { name: TableName; finding: StreamHealth['tables'][number]['finding'] }[] = [];
    for (const [index, name] of tables.entries()) {
      const row = rows[index];
      if (row === undefined) continue;
      const found = member(row);
      const label = displayName(name);
      if (found.oid === null) {
        findings.push({
          name,
          finding: {
            code: 'SOURCE_TABLE_MISSING',
            severity: 'error',
            message: `${label} does not exist at the source, or we may not see it`,
            fixSql: [],
          },
        });
        continue;
      }
      if (!found.published) {
        findings.push({
          name,
          finding: {
            // Not CDC_NOT_READY: what changed since it was taken out is in no stream.
            code: 'GAP',
            severity: 'error',
            message: `${label} is no longer in publication ${publication.name}`,
            fixSql: [`ALTER PUBLICATION ${quoteIdentifier(publication.name)} ADD TABLE ONLY ${quoteTable(name)}`],
          },
        });
      }
      const finding = memberFinding(found, null);
      if (finding) findings.push({ name, finding });
    }
    const faults = [this.#fault(slot.name, state.slot), publication.fault(rows[0]?.['publication'] ?? null)];
    return {
      retainedBytes: state.slot?.retainedBytes ?? null,
      headroomBytes: state.slot?.safeBytes ?? null,
      stream: faults
        .filter((fault) => fault !== null)
        .map(({ code, message, hint }) => ({
          code,
          severity: 'error',
          message,
          fixSql: code === 'CDC_NOT_READY' && hint ? [hint] : [],
        })),
      tables: findings,
    };
  }

  async drop(stream: string): Promise<void> {
    const slot = this.#slot(stream);
    // The slot first: it is what fills the source's disk.
    if (slot.managed) await dropSlot(this.#connection, slot.name);
    await this.#publication(stream).drop();
    this.#replaced.delete(slot.name);
  }

  #slot(stream: string): { name: string; managed: boolean } {
    const given = this.#connection.options.slot;
    return given === null
      ? { name: streamObjectName(this.#connection, stream), managed: true }
      : { name: given, managed: false };
  }

  #publication(stream: string): Publication {
    let publication = this.#publications.get(stream);
    if (publication === undefined) {
      const given = this.#connection.options.publication;
      publication = new Publication(this.#connection, {
        name: given ?? streamObjectName(this.#connection, stream),
        managed: given === null,
        waitMs: this.#options.includeWaitMs,
      });
      this.#publications.set(stream, publication);
    }
    return publication;
  }

  async #decoder(): Promise<{ decoder: PgoutputDecoder; textAsBytes: boolean }> {
    const rows = await this.#connection.query(
      'read the types of the source',
      `WITH RECURSIVE binary_type(oid) AS (SELECT 17::oid UNION
         SELECT t.oid FROM pg_type t JOIN binary_type b ON t.typtype = 'd' AND t.typbasetype = b.oid)
       SELECT b.oid::text AS oid, current_setting('server_encoding') AS encoding FROM binary_type b`,
    );
    const textAsBytes = rows[0]?.['encoding'] === 'SQL_ASCII';
    const byteaTypes = new Set(rows.map((row) => Number(row['oid'])));
    return { decoder: new PgoutputDecoder({ byteaTypes, textAsBytes }), textAsBytes };
  }

  /** What makes a slot unreadable; null: nothing. */
  #fault(name: string, slot: SlotState | null): SluiceError | null {
    if (slot === null) return gap(`replication slot ${name} is missing`);
    if (slot.invalid !== null) {
      return gap(
        `the server has invalidated replication slot ${name} (${slot.invalid}) and discarded the changes it kept`,
      );
    }
    if (slot.plugin !== 'pgoutput' || slot.database !== this.#connection.database || slot.confirmed === null) {
      return new SluiceError(
        'CDC_NOT_READY',
        `replication slot ${name} is not a pgoutput slot of database ${this.#connection.database}`,
        { hint: 'Name another slot in the connection string, or none.' },
      );
    }
    return null;
  }

  /** Where the slot begins. Throws what makes it unusable. */
  #usable(name: string, slot: SlotState | null): bigint {
    const fault = this.#fault(name, slot);
    if (fault) throw fault;
    return slot?.confirmed ?? 0n;
  }

  /**
   * Is the server behind this session the one that `place` was read from, or its successor (a standby promoted at or above
   * it)? Resolves to the timeline that is written now; GAP otherwise.
   */
  async #sameHistory(session: Session, place: Place): Promise<number> {
    const identity = (await session.query('identify the source', 'IDENTIFY_SYSTEM'))[0];
    const timeline = Number(identity?.['timeline']);
    if (identity?.['systemid'] !== place.systemId)
      throw gap(`the source is another cluster (system identifier ${identity?.['systemid']}) than the one it was`);
    if (timeline > 1 && timeline !== place.timeline) {
      const history = (await session.query('read the timeline history', `TIMELINE_HISTORY ${timeline}`))[0];
      this.#lineage.learn(place.systemId, timeline, parseHistory(history?.['content'] ?? ''));
    }
    if (!this.#lineage.contains(place, timeline)) {
      throw gap(
        `the source was restored or failed over to a point before the stored position: it is on timeline ${timeline}, ` +
          `which does not contain ${displayLsn(place.lsn)} of timeline ${place.timeline}`,
      );
    }
    return timeline;
  }

  /** Ends a walsender and waits until it has let go of the slot (before 14 there is nothing to wait with). */
  async #terminate(pid: number): Promise<void> {
    const doing = 'end the reader';
    await this.#connection
      .query(doing, 'SELECT pg_terminate_backend($1::int, 5000)', [String(pid)])
      .catch(() => this.#connection.query(doing, 'SELECT pg_terminate_backend($1::int)', [String(pid)]))
      .catch(() => undefined); // not allowed to: it ends when it next writes to the closed socket
  }

  /** Does the slot, held by process `pid`, still have everything after `place`? */
  async #check(name: string, publication: Publication, place: Place, pid: number): Promise<void> {
    const rows = await this.#connection.query(
      'check the replication slot',
      `SELECT s.*, (SELECT to_jsonb(p)::text FROM pg_publication p WHERE p.pubname = $2) AS publication FROM (${SOURCE_AND_SLOT}) s`,
      [name, publication.name],
    );
    const source = sourceState(rows[0]);
    const confirmed = this.#usable(name, source.slot);
    if (source.slot?.activePid !== String(pid)) {
      throw new SluiceError('CDC_IN_USE', `replication slot ${name} is not ours (process ${source.slot?.activePid})`);
    }
    if (source.now.systemId !== place.systemId) throw gap('the source is another cluster than the one it was');
    if (confirmed > place.lsn) {
      // The server starts later in silence (F17, F19).
      const reason = this.#replaced.get(name);
      throw gap(
        `the stored position ${displayLsn(place.lsn)} lies below ${displayLsn(confirmed)}, which was acknowledged to the source` +
          (reason === undefined ? ' (or the slot was made anew)' : `: ${reason}`),
      );
    }
    if (source.now.lsn < place.lsn) {
      throw gap(
        `the stored position ${displayLsn(place.lsn)} lies beyond the end of the source's log, ${displayLsn(source.now.lsn)}: ` +
          'the source was restored to an earlier point',
      );
    }
    const fault = publication.fault(rows[0]?.['publication'] ?? null);
    if (fault) throw fault;
  }
}

function gap(message: string, cause?: unknown): SluiceError {
  return new SluiceError('GAP', message, {
    hint: "The tables must be copied again: set on_gap = 'resync', or is_full_sync = 1 on each mapping.",
    cause,
  });
}

/** 53300 of a replication connection means max_wal_senders, not max_connections. */
function exhausted(error: unknown): SluiceError {
  const classified = classify(error, 'connect for replication');
  if (sqlState(error) === '53300' && /max_wal_senders|standby connections/.test(classified.message)) {
    return new SluiceError('CDC_SLOTS_EXHAUSTED', classified.message, {
      hint: 'ALTER SYSTEM SET max_wal_senders = …; then restart the server.',
      cause: error,
    });
  }
  if (/replication role|permission denied to start WAL sender/.test(classified.message)) {
    return new SluiceError('PERMISSION_DENIED', classified.message, {
      hint: 'ALTER ROLE <our role> REPLICATION;',
      cause: error,
    });
  }
  return classified;
}

/** Errors of the stream itself, told apart by what the server says: its codes are shared with harmless ones. */
function streamError(error: unknown, slot: string): SluiceError {
  const classified = classify(error, `read replication slot ${slot}`);
  if (hasCode(classified, 'GAP', 'CDC_IN_USE')) return classified;
  const { message } = classified;
  if (
    /can no longer (get changes from|access) replication slot|has already been removed|invalidated/.test(message) ||
    (sqlState(classified) === '42704' && /replication slot|publication/.test(message))
  )
    return gap(message, error);
  return classified;
}

interface ReaderSetup {
  readonly slot: string;
  readonly silenceMs: number;
  readonly statusMs: number;
  /** Ends a walsender that does not listen, over another session. */
  readonly terminate: (pid: number) => Promise<void>;
}

/**
 * Reads ahead of its consumer by at most `maxBytes`: then the socket is paused, and the server waits, kept content by status
 * updates from a timer.
 */
class PostgresChangeReader implements ChangeReader {
  readonly #decoder: PgoutputDecoder;
  readonly #from: Place;
  readonly #lineage: Lineage;
  readonly #options: ReadOptions;
  readonly #setup: ReaderSetup;
  /** Positions that no piece may reach across, in order. */
  readonly #breaks: bigint[];
  #stream: ReplicationConnection | null = null;
  #pid = 0;
  /** Completes "could not …". */
  readonly #doing: string;
  readonly #queue: ChangePiece[] = [];
  #queuedBytes = 0;
  #paused = false;
  #waiting: { resolve: (result: IteratorResult<ChangePiece>) => void; reject: (error: SluiceError) => void } | null =
    null;
  #error: SluiceError | null = null;
  #stopped: Promise<void> | null = null;
  /** A check for "nothing more in the socket" is due. */
  #flushing = false;
  /** End of the last completed piece made, and of the last handed out. */
  #made: bigint;
  #handedOut: bigint;
  /** The last piece handed out ends inside a transaction. */
  #inside = false;
  /** A piece of the transaction being decoded was made already: its end must be handed out even if nothing more is in it. */
  #begun = false;
  #acknowledged: bigint;
  /** Where the server is while nothing of ours happens. */
  #idle: bigint | null = null;
  #idleAt = performance.now();
  /** Acknowledgements are held back until the slot was checked. */
  #going = false;
  #statusDue = false;
  #statusAt = 0;
  #timer: NodeJS.Timeout | null = null;
  /** Requests for a reply in quick succession: the server is shutting down and waits for us. */
  #urgentSince: number | null = null;
  #requestedAt = 0;

  readonly pieces: AsyncIterable<ChangePiece>;

  constructor(decoder: PgoutputDecoder, from: Place, lineage: Lineage, options: ReadOptions, setup: ReaderSetup) {
    this.#decoder = decoder;
    this.#from = from;
    this.#lineage = lineage;
    this.#options = options;
    this.#setup = setup;
    this.#breaks = (options.breakAt ?? [])
      .flatMap((position) => parsePosition(position)?.lsn ?? [])
      .sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    this.#doing = `read replication slot ${setup.slot}`;
    this.#made = this.#handedOut = this.#acknowledged = from.lsn;
    // Leaving a loop over it early ends nothing: what was read must still be acknowledged, and `stop` ends the session.
    this.pieces = { [Symbol.asyncIterator]: () => ({ next: () => this.#next() }) };
  }

  /** Resolves once the server streams; nothing is acknowledged before `go`. */
  async start(session: Session, command: string): Promise<void> {
    this.#pid = session.pid;
    this.#stream = await ReplicationConnection.start(session, command, this.#doing, {
      data: (buffer, start, end) => this.#data(buffer, start, end),
      keepalive: (walEnd, replyRequested) => this.#keepalive(walEnd, replyRequested),
      chunk: () => this.#chunk(),
      failed: (error) => this.#fail(streamError(error, this.#setup.slot)),
    });
  }

  go(): void {
    this.#going = true;
    this.#send(true);
    this.#tick();
  }

  async abandon(): Promise<void> {
    this.#end();
    if (!(await this.#stream?.finish())) await this.#setup.terminate(this.#pid);
  }

  /** Never beyond what was handed out, and never backwards; sent together with others of the same turn. */
  acknowledge(position: Position): void {
    const place = parsePosition(position);
    if (place?.systemId !== this.#from.systemId || !this.#lineage.contains(place, this.#from.timeline)) {
      throw new SluiceError('INTERNAL', `position ${position} is not of this stream and cannot be acknowledged`);
    }
    // A position above what was read is another reader's: acknowledging it would skip what this one has not handed out.
    const lsn = place.lsn < this.#handedOut ? place.lsn : this.#handedOut;
    if (lsn <= this.#acknowledged) return;
    this.#acknowledged = lsn;
    this.#sendSoon();
  }

  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      this.#end();
      if (this.#error === null) {
        this.#send(false);
        // In the middle of a large transaction the server does not listen: the slot must be free when we return.
        if (!(await this.#stream?.finish())) await this.#setup.terminate(this.#pid);
      }
      this.#waiting?.resolve({ done: true, value: undefined });
      this.#waiting = null;
    })();
    return this.#stopped;
  }

  #end(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#queue.length = 0;
  }

  #fail(error: SluiceError): void {
    if (this.#error !== null || this.#stopped !== null) return;
    this.#error = error;
    this.#end();
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  // --- from the socket -------------------------------------------------------------------------------------------------

  #data(buffer: Buffer, start: number, end: number): void {
    const decoder = this.#decoder;
    if (this.#breaks.length > 0 && buffer[start] === BEGIN) this.#breakBefore(buffer.readBigUInt64BE(start + 1));
    const step = decoder.decode(buffer, start, end);
    if (step === Step.None) return;
    if (step === Step.Commit && this.#begun) this.#cut(true);
    else if (step === Step.Commit && decoder.changes === 0) {
      // Nothing of ours in it (servers before 15 send empty transactions): it is progress, not a piece.
      const taken = decoder.takeCompleted();
      if (taken?.end) this.#idle = taken.end;
    } else if (decoder.bytes >= this.#pieceBytes()) this.#cut(step === Step.Commit);
    // While the consumer is busy the piece grows: the more waits, the fewer commits it takes.
    else if (step === Step.Commit && decoder.changes >= this.#options.maxChanges && this.#waiting !== null)
      this.#cut(true);
  }

  /** A transaction begins whose commit record is at `lsn`: what is complete is a piece by itself if a break lies between. */
  #breakBefore(lsn: bigint): void {
    let crossed = false;
    for (let next = this.#breaks[0]; next !== undefined && next <= lsn; next = this.#breaks[0]) {
      this.#breaks.shift();
      crossed = true;
    }
    if (crossed) this.#cut(true);
  }

  /** Makes pieces of what was decoded: of completed transactions first, then of a transaction too large for memory. */
  #cut(atCommit: boolean): void {
    const completed = this.#decoder.takeCompleted();
    if (completed) {
      this.#enqueue(completed);
      this.#begun = false;
    }
    if (!atCommit && this.#decoder.bytes >= this.#pieceBytes()) {
      this.#enqueue(this.#decoder.takeOpen());
      this.#begun = true;
    }
  }

  #enqueue(taken: Taken): void {
    const end = taken.end === null ? null : formatPosition({ ...this.#from, lsn: taken.end });
    if (taken.end !== null) this.#made = taken.end;
    this.#queue.push({ ...taken, end });
    this.#queuedBytes += taken.bytes;
  }

  #keepalive(walEnd: bigint, replyRequested: boolean): void {
    // Inside a transaction it says nothing: the server sends it between two of our rows too.
    if (!this.#decoder.inTransaction && walEnd > this.#made) this.#idle = walEnd;
    if (replyRequested) this.#requested();
  }

  /** A server that shuts down asks again at once after each answer, until everything is acknowledged. */
  #requested(): void {
    const now = performance.now();
    if (now - this.#requestedAt > 300) this.#urgentSince = null;
    else this.#urgentSince ??= now;
    this.#requestedAt = now;
    if (this.#urgentSince === null) this.#sendSoon();
    else if (now - this.#urgentSince > 5_000) {
      // Nobody stores our progress: do not hold up the shutdown. What is not acknowledged is sent again.
      this.#stream?.destroy();
      this.#fail(new SluiceError('SERVER_BUSY', `could not ${this.#doing}: the server is shutting down`));
    } else setTimeout(() => this.#sendSoon(), 50);
  }

  #chunk(): void {
    if (this.#waiting !== null && !this.#flushing) {
      this.#flushing = true;
      // After the poll phase: whatever the socket held has been read by then.
      setImmediate(() => {
        this.#flushing = false;
        this.#deliver();
      });
    }
    if (!this.#paused && this.#buffered() >= this.#aheadBytes()) {
      this.#paused = true;
      this.#stream?.pause();
    }
  }

  /** Size of a piece that ends inside a transaction: once it must be taken apart, small parts cost no more and hold less. */
  #pieceBytes(): number {
    return this.#begun ? this.#options.maxBytes / 4 : this.#options.maxBytes;
  }

  /** The consumer holds a piece as well: what it may take next is half of what may be held, unless one transaction needs it all. */
  #aheadBytes(): number {
    const ready = this.#queue.length > 0 || this.#decoder.completed > 0;
    return ready ? this.#options.maxBytes / 2 : this.#pieceBytes();
  }

  #buffered(): number {
    return this.#queuedBytes + this.#decoder.bytes;
  }

  // --- to the consumer -------------------------------------------------------------------------------------------------

  #next(): Promise<IteratorResult<ChangePiece>> {
    if (this.#error !== null) return Promise.reject(this.#error);
    if (this.#stopped !== null) return Promise.resolve({ done: true, value: undefined });
    if (this.#waiting !== null) {
      return Promise.reject(new SluiceError('INTERNAL', 'a change stream has one consumer'));
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#deliver();
    });
  }

  #deliver(): void {
    const waiting = this.#waiting;
    if (waiting === null || !this.#going) return;
    if (this.#queue.length === 0) {
      const completed = this.#decoder.takeCompleted();
      if (completed) this.#enqueue(completed);
    }
    let piece = this.#queue.shift();
    if (piece !== undefined) this.#queuedBytes -= piece.bytes;
    else piece = this.#progress();
    if (piece === undefined) return;
    this.#inside = piece.end === null;
    const lsn = piece.end === null ? null : parsePosition(piece.end)?.lsn;
    if (lsn) this.#handedOut = lsn;
    this.#idleAt = performance.now();
    this.#waiting = null;
    waiting.resolve({ done: false, value: piece });
    if (this.#paused && this.#buffered() < this.#aheadBytes()) {
      this.#paused = false;
      this.#stream?.resume();
    }
  }

  /** Idle progress, when it is due. */
  #progress(): ChangePiece | undefined {
    if (this.#idle === null || this.#inside || this.#decoder.inTransaction) return undefined;
    if (this.#idle <= this.#made) {
      this.#idle = null;
      return undefined;
    }
    const due = this.#idleAt + this.#options.idleProgressMs();
    if (this.#urgentSince === null && performance.now() < due) return undefined;
    const lsn = this.#idle;
    this.#idle = null;
    this.#made = lsn;
    const tables: TableChanges[] = [];
    const end = formatPosition({ ...this.#from, lsn });
    return { tables, end, bytes: 0, changes: 0, transactions: 0, committedAt: null };
  }

  // --- to the server ---------------------------------------------------------------------------------------------------

  #send(requestReply: boolean): void {
    if (!this.#going) return;
    this.#statusDue = false;
    this.#statusAt = performance.now();
    this.#stream?.sendStatus(this.#acknowledged, requestReply);
  }

  #sendSoon(): void {
    if (this.#statusDue) return;
    this.#statusDue = true;
    setImmediate(() => {
      if (this.#statusDue && this.#error === null && this.#stopped === null) this.#send(false);
    });
  }

  /** Everything that depends on time: status updates, requests for progress, silence. */
  #tick(): void {
    if (this.#error !== null || this.#stopped !== null) return;
    const now = performance.now();
    const interval = this.#options.idleProgressMs();
    const period = Math.min(Math.max(interval / 2, 20), this.#setup.statusMs);
    // The interval may become shorter at any moment (somebody waits for progress now): it is asked for often.
    const tick = Math.min(period, TICK_MS);
    if (!this.#paused && this.#stream !== null && now - this.#stream.heardAt > this.#setup.silenceMs) {
      this.#stream.destroy();
      this.#fail(
        new SluiceError(
          'CONNECTION_LOST',
          `could not ${this.#doing}: the server has said nothing for ${Math.round(this.#setup.silenceMs / 1000)} s`,
        ),
      );
      return;
    }
    const wantsProgress =
      this.#idle === null && !this.#decoder.inTransaction && now - this.#idleAt >= interval - period;
    const sinceStatus = now - this.#statusAt;
    if ((wantsProgress && sinceStatus >= period - 10) || sinceStatus >= this.#setup.statusMs - 10) this.#send(true);
    this.#deliver();
    this.#timer = setTimeout(() => this.#tick(), tick);
  }
}
