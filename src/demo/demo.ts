/**
 * `sluice demo`: two databases in an embedded PostgreSQL, the service between them as its own process, and a writer. The
 * control tables are the only way it speaks to the service.
 */
import type { Client } from 'pg';
import { hasCode, SluiceError } from '../model/errors.ts';
import { compare, type TableComparison } from './compare.ts';
import {
  clock,
  health,
  hurryVerification,
  insertStatements,
  refuseTrouble,
  verificationsSince,
  type Health,
  type Verification,
} from './control.ts';
import { DATASET_NOTICE, DEMO_TABLES, readDataset, type DemoTable } from './dataset.ts';
import { loadDataset } from './load.ts';
import { DemoService } from './service.ts';
import { CONTROL_DATABASE, COPY_DATABASE, setStage, SOURCE_DATABASE, type Stage } from './stage.ts';
import { draw, drawLine, type Picture } from './view.ts';
import { changesOf, Writer, type ChangeCounts } from './writer.ts';

export interface DemoScreen {
  /** Something worth a line of its own. */
  say(text: string): void;
  /** The live picture; replaces the last one. Null where there is no terminal: then `say` has a line now and then. */
  readonly paint: ((lines: readonly string[]) => void) | null;
}

export interface DemoOptions {
  readonly screen: DemoScreen;
  /** Aborted by Ctrl-C: everything is stopped and removed. */
  readonly signal: AbortSignal;
  readonly seed: number;
}

export interface DemoResult {
  readonly data: string;
  readonly rows: number;
  readonly copySeconds: number;
  readonly changes: ChangeCounts;
  readonly kills: number;
  /** From the last change to equal checksums. */
  readonly catchUpSeconds: number;
  readonly verifications: readonly Verification[];
  readonly tables: readonly TableComparison[];
  readonly equal: boolean;
}

const CHANGES = 10_000;

interface Play {
  readonly stage: Stage;
  readonly service: DemoService;
  readonly tables: readonly DemoTable[];
  readonly source: Client;
  readonly copy: Client;
  readonly control: Client;
  readonly writer: Writer;
  readonly rows: number;
  readonly copySeconds: number;
}

/** Unattended: copy, 10,000 mixed changes with one kill -9 in the middle, verification, comparison. */
export function demoOnce({ screen, signal, seed }: DemoOptions): Promise<DemoResult> {
  return withPlay({ screen, signal, seed }, async (play) => {
    const { service, writer, control } = play;
    screen.say(`Writing ${CHANGES} mixed changes; the service is killed with SIGKILL in the middle.`);
    await writer.write(CHANGES / 2, { signal });
    await service.kill();
    screen.say(`Killed after ${changesOf(writer.counts)} changes. The writer goes on without it.`);
    await writer.write(CHANGES / 5, { signal });
    service.start();
    await writer.write(CHANGES - changesOf(writer.counts), { signal });
    const written = Date.now();
    screen.say('All changes are written. Waiting until both sides have equal checksums …');
    const tables = await untilEqual(play, signal, 120);
    const catchUpSeconds = seconds(written);
    screen.say(tables.every((table) => table.equal) ? `Equal after ${catchUpSeconds} s.` : 'The checksums differ.');
    screen.say('Verifying every mapping: sluice verify');
    const verifications = await verifyAll(service, control, signal);
    const final = await compare(play.source, play.copy, play.tables);
    return {
      data: DATASET_NOTICE,
      rows: play.rows,
      copySeconds: play.copySeconds,
      changes: writer.counts,
      kills: 1,
      catchUpSeconds,
      verifications,
      tables: final,
      equal:
        final.every((table) => table.equal) &&
        verifications.length === DEMO_TABLES.length &&
        verifications.every((one) => one.status === 'PASSED'),
    };
  });
}

/** Until Ctrl-C: a steady writer and a live picture. */
export function demoLive({ screen, signal, seed }: DemoOptions): Promise<DemoResult> {
  return withPlay({ screen, signal, seed }, async (play) => {
    const { service, writer, control } = play;
    const events: string[] = [];
    let restarts = 0;
    let failure: unknown = null;
    const writing = writer.write(Number.POSITIVE_INFINITY, { signal, perSecond: 100 }).catch((error: unknown) => {
      failure = error;
    });
    let lastLine = 0;
    while (!signal.aborted && failure === null) {
      if (!service.running) {
        service.start();
        restarts += 1;
        events.push(`${new Date().toLocaleTimeString()} the service was gone; started again as ${service.pid ?? '?'}`);
      }
      const picture: Picture = {
        health: await health(control),
        rows: await rowCounts(play),
        written: writer.counts,
        servicePid: service.pid,
        events: events.slice(-4),
      };
      if (screen.paint) screen.paint([...draw(picture), '', 'Ctrl-C stops everything.']);
      else if (Date.now() - lastLine >= 5000) {
        lastLine = Date.now();
        screen.say(drawLine(picture));
      }
      await pause(500, signal);
    }
    await writing;
    if (failure instanceof Error) throw failure;
    screen.say('Stopped the writer. Waiting until both sides are equal …');
    const written = Date.now();
    const tables = await untilEqual(play, new AbortController().signal, 30);
    return {
      data: DATASET_NOTICE,
      rows: play.rows,
      copySeconds: play.copySeconds,
      changes: writer.counts,
      kills: restarts,
      catchUpSeconds: seconds(written),
      verifications: await verificationsSince(control, new Date(0)),
      tables,
      equal: tables.every((table) => table.equal),
    };
  });
}

/** Sets everything up to streaming mappings, plays, and leaves nothing behind, whatever happens. */
async function withPlay<T>({ screen, signal, seed }: DemoOptions, act: (play: Play) => Promise<T>): Promise<T> {
  screen.say(DATASET_NOTICE);
  screen.say('Starting an embedded PostgreSQL …');
  const stage = await setStage();
  const service = new DemoService(stage);
  try {
    const source = await stage.connect(SOURCE_DATABASE);
    const tables = readDataset();
    const rows = await loadDataset(source, tables, () => stopIf(signal));
    screen.say(`Filled ${SOURCE_DATABASE}: ${tables.map((table) => `${table.rows.length} ${table.name}`).join(', ')}.`);
    screen.say(await service.command('migrate'));
    const control = await stage.connect(CONTROL_DATABASE);
    await hurryVerification(control);
    for (const statement of insertStatements(stage, DEMO_TABLES)) {
      screen.say(`\n${statement}`);
      await control.query(statement);
    }
    stopIf(signal);
    screen.say('\nStarting the service: sluice run');
    const started = Date.now();
    service.start();
    await untilStreaming(service, control, screen, signal);
    const copySeconds = seconds(started);
    screen.say(`All ${rows} rows are copied and followed after ${copySeconds} s.`);
    const writer = await Writer.create(await stage.connect(SOURCE_DATABASE), seed);
    const copy = await stage.connect(COPY_DATABASE);
    return await act({ stage, service, tables, source, copy, control, writer, rows, copySeconds });
  } catch (error) {
    // Its log goes with the stage.
    if (!signal.aborted) screen.say(`\nThe end of the service's log:\n${service.lastWords()}\n`);
    throw error;
  } finally {
    await service.stop();
    await stage.strike();
  }
}

async function untilStreaming(
  service: DemoService,
  control: Client,
  screen: DemoScreen,
  signal: AbortSignal,
): Promise<void> {
  const until = Date.now() + 180_000;
  for (;;) {
    stopIf(signal);
    if (!service.running) throw new SluiceError('INTERNAL', 'the service stopped by itself');
    const all = await health(control);
    refuseTrouble(all);
    if (all.length > 0 && all.every((one) => one.state === 'streaming')) return;
    if (Date.now() > until) {
      throw new SluiceError('TIMEOUT', `not all mappings are streaming after 3 minutes: ${states(all)}`);
    }
    screen.paint?.(draw({ health: all, rows: new Map(), written: NOTHING, servicePid: service.pid, events: [] }));
    await pause(250, signal);
  }
}

/** Compares until all is equal or the time is up; resolves to the last comparison. */
async function untilEqual(play: Play, signal: AbortSignal, limitSeconds: number): Promise<TableComparison[]> {
  const until = Date.now() + limitSeconds * 1000;
  for (;;) {
    stopIf(signal);
    refuseTrouble(await health(play.control));
    const tables = await compare(play.source, play.copy, play.tables);
    if (tables.every((table) => table.equal) || Date.now() > until) return tables;
    await pause(500, signal);
  }
}

/** Asks for each verification, then reads what verification_logs says of it. */
async function verifyAll(service: DemoService, control: Client, signal: AbortSignal): Promise<Verification[]> {
  const since = await clock(control);
  for (const { mappingId } of await health(control)) {
    stopIf(signal);
    try {
      await service.command('verify', String(mappingId));
    } catch (error) {
      // Differences are in verification_logs too, which is what counts here.
      if (!hasCode(error, 'VERIFICATION_FAILED')) throw error;
    }
  }
  return verificationsSince(control, since);
}

async function rowCounts(play: Play): Promise<Map<string, { source: number; copy: number | null }>> {
  const count = async (client: Client, table: string): Promise<number | null> => {
    const found = await client.query<{ found: boolean }>('SELECT to_regclass($1) IS NOT NULL AS found', [table]);
    if (!found.rows[0]?.found) return null;
    const result = await client.query<{ rows: string }>(`SELECT count(*)::text AS rows FROM ${table}`);
    return Number(result.rows[0]?.rows ?? 0);
  };
  const rows = new Map<string, { source: number; copy: number | null }>();
  for (const { name } of play.tables) {
    rows.set(name, { source: (await count(play.source, name)) ?? 0, copy: await count(play.copy, name) });
  }
  return rows;
}

const NOTHING: ChangeCounts = { inserted: 0, updated: 0, deleted: 0, rekeyed: 0, transactions: 0 };

function states(all: readonly Health[]): string {
  return (
    all.map((one) => `${one.table} ${one.state}${one.error === null ? '' : ` (${one.error})`}`).join(', ') ||
    'no mapping'
  );
}

function stopIf(signal: AbortSignal): void {
  if (signal.aborted) throw new SluiceError('CANCELLED', 'the demo was interrupted');
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}

function seconds(since: number): number {
  return Math.round((Date.now() - since) / 100) / 10;
}
