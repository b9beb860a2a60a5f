/** The live picture: what a screen shows of the demo at one moment. */
import type { Health } from './control.ts';
import { changesOf, type ChangeCounts } from './writer.ts';

export interface Picture {
  readonly health: readonly Health[];
  /** Rows by table, on both sides. */
  readonly rows: ReadonlyMap<string, { source: number; copy: number | null }>;
  readonly written: ChangeCounts;
  readonly servicePid: number | null;
  /** What happened last, newest last. */
  readonly events: readonly string[];
}

export function draw(picture: Picture): string[] {
  const lines = picture.health.map((one) => {
    const rows = picture.rows.get(one.table);
    const lag = one.lagSeconds === null ? '' : `${one.lagSeconds.toFixed(1)} s`;
    const copied =
      one.copied === null ? '' : `copying ${count(one.copied)}${one.expected ? ` of ${count(one.expected)}` : ''}`;
    return [
      one.table.padEnd(10),
      one.state.padEnd(10),
      lag.padStart(8),
      count(rows?.source ?? 0).padStart(12),
      count(rows?.copy ?? 0).padStart(12),
      count(one.applied).padStart(10),
      ` ${(one.verification ?? '').padEnd(9)}`,
      one.error ?? copied,
    ].join(' ');
  });
  const head = [
    'table'.padEnd(10),
    'state'.padEnd(10),
    'lag'.padStart(8),
    'source rows'.padStart(12),
    'copy rows'.padStart(12),
    'applied'.padStart(10),
    ' verified',
  ].join(' ');
  const { written } = picture;
  return [
    head,
    ...lines.map((line) => line.trimEnd()),
    '',
    `writer   ${count(changesOf(written))} rows changed in ${count(written.transactions)} transactions ` +
      `(${count(written.inserted)} inserted, ${count(written.updated)} updated, ${count(written.deleted)} deleted, ${count(written.rekeyed)} new keys)`,
    picture.servicePid === null
      ? 'service  not running'
      : `service  process ${picture.servicePid}; try kill -9 ${picture.servicePid}: the demo starts it again`,
    ...picture.events.map((event) => `         ${event}`),
  ];
}

/** One line for logs and pipes. */
export function drawLine(picture: Picture): string {
  const tables = picture.health.map((one) => {
    const rows = picture.rows.get(one.table);
    return `${one.table} ${one.state} ${rows?.copy ?? 0}/${rows?.source ?? 0}`;
  });
  return `${tables.join(' · ')} · ${changesOf(picture.written)} changes written`;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}
