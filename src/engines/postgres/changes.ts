/** The change stream of a PostgreSQL database: one replication slot, one publication, pgoutput. */
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { Position, PositionOrder } from '../../model/position.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import type { ChangeReader, ChangeSource, ReadOptions, SourceObject, StreamHealth } from '../contract.ts';
import type { Connection, Session } from './connection.ts';
import { exhausted, gap, streamError } from './change-errors.ts';
import { PostgresChangeReader } from './change-reader.ts';
import { PgoutputDecoder } from './pgoutput.ts';
import { displayLsn, formatPosition, Lineage, parseHistory, parsePosition, type Place } from './position.ts';
import { member, memberFinding, MEMBERS } from './publication-members.ts';
import { Publication } from './publication.ts';
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

  async prepare(
    stream: string,
  ): Promise<{ start: Position; floor: Position; created: boolean; objects: SourceObject[] }> {
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
    const start = formatPosition({ ...source.now, lsn: confirmed });
    return { start, floor: start, created, objects };
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
