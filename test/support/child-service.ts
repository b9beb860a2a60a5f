/** `sluice run` as a process of its own, so that a test can kill, freeze and thaw it. */
import { spawn, type ChildProcess } from 'node:child_process';
import type { Failpoint } from '../../src/model/failpoint.ts';
import { testServer } from './postgres.ts';
import { SLUICE } from './program.ts';
import { eventually, type World } from './service.ts';

/** What of the log is kept for a failing test's message. */
const LOG_LINES = 400;

/** `'stream.after-commit': 'kill:3'`, as SLUICE_FAILPOINTS takes them (src/model/failpoint.ts). */
export type Failpoints = Partial<Record<Failpoint, string>>;

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class ChildService {
  readonly log: string[] = [];
  readonly exited: Promise<NodeJS.Signals | number>;
  readonly #child: ChildProcess;
  #over = false;

  private constructor(child: ChildProcess) {
    this.#child = child;
    running.add(child);
    let rest = '';
    const collect = (text: string) => {
      if (process.env['SLUICE_TEST_LOG']) process.stderr.write(text);
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      this.log.push(...lines);
      if (this.log.length > LOG_LINES) this.log.splice(0, this.log.length - LOG_LINES);
    };
    child.stdout?.setEncoding('utf8').on('data', collect);
    child.stderr?.setEncoding('utf8').on('data', collect);
    this.exited = new Promise((resolve) =>
      child.once('exit', (code, signal) => {
        this.#over = true;
        running.delete(child);
        resolve(signal ?? code ?? -1);
      }),
    );
  }

  /** Starts the service on the world's control database; `variables` of its environment come before what is set here. */
  static async start(
    world: { readonly control: { readonly name: string } },
    failpoints: Failpoints = {},
    variables: Readonly<Record<string, string>> = {},
  ): Promise<ChildService> {
    const own = Object.entries(process.env).filter(([name]) => !/^(DEST_|CONFIG_|CONTROL_|SLUICE_|LOG_|PG)/.test(name));
    const child = spawn(process.execPath, [...SLUICE, 'run'], {
      env: {
        ...Object.fromEntries(own),
        DEST_URL: variables['DEST_URL'] ?? (await testServer()).url(),
        CONTROL_DATABASE: world.control.name,
        LOG_LEVEL: 'debug',
        SLUICE_FAILPOINTS: Object.entries(failpoints)
          .map(([name, action]) => `${name}=${action}`)
          .join(','),
        ...variables,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new ChildService(child);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get isOver(): boolean {
    return this.#over;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** As a power failure would. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.exited;
  }

  /** SIGTERM, and the exit code (or signal) it ended with. */
  async stop(): Promise<NodeJS.Signals | number> {
    this.signal('SIGCONT');
    this.signal('SIGTERM');
    return this.exited;
  }

  /** Waits until it has ended by itself; false: it still runs after `ms`. */
  async endsWithin(ms: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
    await Promise.race([this.exited, limit]);
    clearTimeout(timer);
    return this.#over;
  }

  /** Waits until a line of its log contains `text`. */
  async says(text: string, ms = 20_000): Promise<void> {
    await eventually(async () => {
      if (this.count(text) === 0) throw new Error(`the service did not say “${text}”:\n${this.lastWords()}`);
    }, ms);
  }

  /** Lines of its log that contain `text`. */
  count(text: string): number {
    return this.log.filter((line) => line.includes(text)).length;
  }

  lastWords(lines = 40): string {
    return this.log.slice(-lines).join('\n');
  }
}

/**
 * Lets the leases of killed (or frozen) processes expire now instead of in `lease_seconds`: what time would do. With `of`: those
 * of one process.
 */
export async function expireLeases(world: World, of?: ChildService): Promise<void> {
  await world.control.query(
    `UPDATE leases SET expires_at = now() AT TIME ZONE 'UTC' - interval '1 second' WHERE $1::int IS NULL OR pid = $1`,
    [of?.pid ?? null],
  );
}

/** The services of one test; all of them are killed at its end. */
export class ChildServices {
  readonly #started: ChildService[] = [];

  /** Those that were killed before it leave no leases to wait for. */
  async start(world: World, failpoints: Failpoints = {}): Promise<ChildService> {
    await expireLeases(world);
    return this.startBeside(world, failpoints);
  }

  /** Those that run, or are frozen, keep their leases. */
  async startBeside(world: World, failpoints: Failpoints = {}): Promise<ChildService> {
    const service = await ChildService.start(world, failpoints);
    this.#started.push(service);
    return service;
  }

  async killAll(): Promise<void> {
    await Promise.all(this.#started.splice(0).map((service) => service.kill()));
  }
}
