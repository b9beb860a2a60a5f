/**
 * The change stream of a SQL Server database: change data capture, polled. The capture job reads the log and fills change tables, the
 * cleanup job empties them by age; we read them, and nothing is made or kept at the source because of us (invariant 10).
 */
import { SluiceError } from '../../model/errors.ts';
import type { Position, PositionOrder } from '../../model/position.ts';
import { carriedColumns, displayName, tableKey, type Table, type TableName } from '../../model/tables.ts';
import type { ChangeReader, ChangeSource, ReadOptions, SourceObject, StreamHealth } from '../contract.ts';
import { capturedColumns, readState, type SourceState } from './capture-instances.ts';
import { readHealth, requireAgent } from './capture-health.ts';
import { captureOf, chainOf, gap } from './captures.ts';
import { SqlServerChangeReader } from './change-reader.ts';
import type { Connection } from './connection.ts';
import { comparePositions, displayLsn, formatPosition, parsePosition, ZERO_LSN, type Place } from './position.ts';
import { anotherName, enableTable, grantCapture, requireHistory, requireReady } from './source-state.ts';

/** Without the right to ask for the log's end it is known as a moment; clocks of commits may differ by so much, ms. */
const CLOCK_MARGIN_MS = 1000;

export class SqlServerChanges implements ChangeSource {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  compare(a: Position, b: Position): PositionOrder {
    return comparePositions(a, b);
  }

  incarnation(position: Position): string {
    const place = parsePosition(position);
    return place === null ? position : (place.fork ?? place.database);
  }

  display(position: Position): string {
    const place = parsePosition(position);
    return place === null ? position : displayLsn(place.lsn);
  }

  async prepare(_stream: string): Promise<{ start: Position; floor: null; created: boolean; objects: SourceObject[] }> {
    const state = await this.#ready();
    return { start: formatPosition(placeOf(state)), floor: null, created: false, objects: [] };
  }

  async read(_stream: string, from: Position, options: ReadOptions): Promise<ChangeReader> {
    const place = parsePosition(from);
    if (place === null) throw gap(`the stored position is not one of SQL Server: ${from}`);
    const session = await this.#connection.open();
    try {
      const state = await readState(session);
      requireHistory(state, place);
      return new SqlServerChangeReader(this.#connection, session, place, state, options);
    } catch (error) {
      await this.#connection.release(session);
      throw error;
    }
  }

  /**
   * Enabling capture locks the table's schema: once its instance is there, whatever changed before has committed, and whatever
   * changes later is recorded.
   */
  async include(_stream: string, table: Table): Promise<{ objects: SourceObject[] }> {
    const state = await this.#ready();
    const label = displayName(table.name);
    const instances = state.instances.filter(({ table: name }) => tableKey(name) === tableKey(table.name));
    if (instances.length === 0)
      throw new SluiceError('CDC_NOT_READY', `changes of ${label} are not captured`, {
        hint: `${enableTable(table.name)} ${grantCapture(state.user)}`,
      });
    const columns = await capturedColumns(
      this.#connection,
      instances.map(({ id }) => id),
    );
    const current = chainOf(instances, columns).at(-1);
    if (!current)
      throw new SluiceError('CDC_NOT_READY', `capture of ${label} has not begun yet`, {
        hint: 'It begins when the capture job has read the log so far: see that SQL Server Agent and the job run.',
      });
    const held = columns.get(current.id) ?? [];
    if (held.length === 0)
      throw new SluiceError('PERMISSION_DENIED', `user ${state.user} may not read the change table of ${label}`, {
        hint: grantCapture(state.user),
      });
    const missing = carriedColumns(table).filter((column) => !held.some(({ name }) => name === column.name));
    if (missing.length > 0)
      throw new SluiceError(
        'SCHEMA_MISMATCH',
        `capture instance ${current.name} of ${label} does not hold ${missing.map(({ name }) => name).join(', ')}: changes of it would be lost`,
        { hint: enableTable(table.name, anotherName(table.name, instances)) },
      );
    if (
      table.capture != null &&
      !instances.some((instance) => captureOf(instance).split(':')[0] === table.capture?.split(':')[0])
    )
      throw new SluiceError('COPY_RESTARTED', `the capture instance of ${label} was made anew`);
    return { objects: [] };
  }

  exclude(): Promise<void> {
    return Promise.resolve();
  }

  /**
   * The log's end, which the capture job passes with the next commit or, when nothing happens, with the next idle row of
   * cdc.lsn_time_mapping. Throws CDC_NOT_READY when nobody captures: nothing would ever get there.
   */
  async end(): Promise<Position> {
    const health = await readHealth(this.#connection, []);
    requireReady(health.state, this.#name);
    requireAgent(health);
    const place = placeOf(health.state);
    if (health.logEnd !== null) return formatPosition({ ...place, lsn: health.logEnd, time: health.state.now });
    return formatPosition({ ...place, time: health.state.now + CLOCK_MARGIN_MS, beyond: true });
  }

  async health(_stream: string, tables: readonly TableName[], at: Position | null = null): Promise<StreamHealth> {
    const health = await readHealth(this.#connection, tables);
    const place = at === null ? null : parsePosition(at);
    const { retentionSeconds, state } = health;
    // The cleanup job keeps what is younger than the retention, counted from the last capture.
    const headroomSeconds =
      retentionSeconds !== null && place !== null && state.last !== null && place.time > 0
        ? Math.max(0, retentionSeconds - Math.max(0, state.last.time - place.time) / 1000)
        : null;
    return {
      retainedBytes: null,
      headroomBytes: null,
      lastCapturedAt: state.last === null ? null : state.last.time + state.toUtc,
      captureLagSeconds: state.last === null ? null : Math.max(0, (state.now - state.last.time) / 1000),
      headroomSeconds,
      stream: health.stream,
      tables: health.tables,
    };
  }

  drop(): Promise<void> {
    return Promise.resolve();
  }

  get #name(): string {
    return this.#connection.database ?? '(default)';
  }

  async #ready(): Promise<SourceState> {
    const state = await readState(this.#connection);
    requireReady(state, this.#name);
    return state;
  }
}

function placeOf(state: SourceState): Place {
  const { database, fork, last } = state;
  return { database, fork, lsn: last?.lsn ?? ZERO_LSN, time: last?.time ?? 0 };
}
