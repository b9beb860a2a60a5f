/** Processor time of processes (Linux), which other people's work on the machine disturbs less than the clock. */
import { readFileSync } from 'node:fs';

/** USER_HZ, which Linux fixes for /proc. */
const TICKS_PER_SECOND = 100;

/** User and system seconds of a process so far; 0 for one that is not there. */
export function cpuSeconds(pid: number): number {
  try {
    // The program's name, in brackets, may hold anything.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}
