/** How figures are printed: machines are noisy, so ratios from alternating arms are what counts. */
import { cpus, loadavg } from 'node:os';

export function say(line = ''): void {
  process.stdout.write(`${line}\n`);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Median of the per-round ratios `a / b`: above 1, b was the faster. */
export function ratio(a: readonly number[], b: readonly number[]): string {
  return median(a.map((value, round) => value / (b[round] ?? Number.NaN))).toFixed(2);
}

export function seconds(values: readonly number[]): string {
  return values.map((value) => value.toFixed(2)).join(' ');
}

/** What else went on: of figures taken on a machine with more to do than it has cores, not even ratios say much. */
export function sayLoad(): void {
  say(`  (load ${loadavg()[0]?.toFixed(1)} on ${cpus().length} cores)`);
}

export function mebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(0)} MiB`;
}

/** Which arm goes first changes with the round. */
export function alternate<T>(arms: readonly T[], round: number): T[] {
  return round % 2 === 0 ? [...arms] : [...arms].reverse();
}
