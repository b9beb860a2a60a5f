/** The service as a process of its own (`sluice run`): to be killed, frozen and told to stop. */
import { spawn } from 'node:child_process';
import { testServer } from '../support/postgres.ts';
import { SLUICE } from '../support/program.ts';
import { eventually } from '../support/service.ts';

export interface ChildService {
  readonly pid: number;
  /** Its log so far, one event a line. */
  readonly lines: readonly string[];
  /** How it ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Waits for a line of its log. */
  line(pattern: RegExp, seconds?: number): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM, unless it has ended; waits. */
  stop(): Promise<void>;
}

export async function startChild(
  controlDatabase: string,
  options: Readonly<Record<string, string>> = {},
): Promise<ChildService> {
  const variables = {
    PATH: process.env['PATH'] ?? '',
    LOG_LEVEL: 'debug',
    DEST_URL: (await testServer()).url(),
    CONTROL_DATABASE: controlDatabase,
    ...options,
  };
  const child = spawn(process.execPath, [...SLUICE, 'run'], {
    env: variables,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const lines: string[] = [];
  let rest = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (process.env['SLUICE_TEST_LOG']) process.stderr.write(text);
    const parts = (rest + text).split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on('exit', (code, signal) => resolve({ code, signal }));
  });
  return {
    pid: child.pid ?? 0,
    lines,
    ended,
    line: (pattern, seconds = 20) =>
      eventually(async () => {
        if (!lines.some((line) => pattern.test(line)))
          throw new Error(`the service has not said ${pattern}: ${lines.slice(-5).join('\n')}`);
        await Promise.resolve();
      }, seconds * 1000),
    signal: (signal) => child.kill(signal),
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      await ended;
    },
  };
}
