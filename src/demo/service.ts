/** The service as a process of its own, so that it can be killed as a power failure would. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { SluiceError, type ErrorCode } from '../model/errors.ts';
import { CONTROL_DATABASE, type Stage } from './stage.ts';

/** The command line beside us: src/cli/main.ts under tsx, dist/cli/main.js when built. */
const FROM_SOURCE = import.meta.url.endsWith('.ts');
const COMMAND: readonly string[] = [
  // By its full address: the service runs in another folder.
  ...(FROM_SOURCE ? ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href] : []),
  fileURLToPath(new URL(`../cli/main.${FROM_SOURCE ? 'ts' : 'js'}`, import.meta.url)),
];

export class DemoService {
  private readonly stage: Stage;
  private child: ChildProcess | null = null;
  private exited: Promise<void> = Promise.resolve();

  constructor(stage: Stage) {
    this.stage = stage;
  }

  /** `sluice <args> --json` to its end; its envelope's summary, or its error thrown. */
  async command(...args: string[]): Promise<string> {
    const child = spawn(process.execPath, [...COMMAND, ...args, '--json'], {
      env: this.environment(),
      cwd: this.stage.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [text, noise] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (piece: string) => (text += piece));
    child.stderr.setEncoding('utf8').on('data', (piece: string) => (noise += piece));
    await new Promise((resolve) => child.once('close', resolve));
    const envelope = parse(text);
    if (envelope === null) throw new SluiceError('INTERNAL', `sluice ${args.join(' ')}: ${noise.trim()}`);
    if (envelope.ok) return envelope.summary;
    throw new SluiceError(envelope.error?.code ?? 'INTERNAL', envelope.summary, {
      hint: envelope.error?.hint ?? undefined,
    });
  }

  /** `sluice run` in the background, its log in the stage's folder. */
  start(): void {
    const log = openSync(this.logFile, 'a');
    const child = spawn(process.execPath, [...COMMAND, 'run'], {
      env: this.environment(),
      cwd: this.stage.folder,
      stdio: ['ignore', log, log],
      // A group of its own: a terminal's Ctrl-C reaches the demo, which stops the service in order.
      detached: true,
    });
    closeSync(log);
    this.child = child;
    this.exited = new Promise((resolve) => child.once('exit', () => resolve()));
  }

  get pid(): number | null {
    return this.running ? (this.child?.pid ?? null) : null;
  }

  get running(): boolean {
    return this.child !== null && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** The end of its log, for when it stops by itself. */
  lastWords(lines = 12): string {
    if (!existsSync(this.logFile)) return '(there is none)';
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }

  /** kill -9: no chance to clean up. */
  async kill(): Promise<void> {
    if (this.running) this.child?.kill('SIGKILL');
    await this.exited;
  }

  /** SIGTERM, and SIGKILL when it has not drained after `graceMs`. */
  async stop(graceMs = 20_000): Promise<void> {
    if (this.running) this.child?.kill('SIGTERM');
    const timer = setTimeout(() => this.child?.kill('SIGKILL'), graceMs);
    await this.exited;
    clearTimeout(timer);
  }

  private get logFile(): string {
    return path.join(this.stage.folder, 'service.log');
  }

  private environment(): NodeJS.ProcessEnv {
    // What the person's shell has configured for a real installation must not reach the demo.
    const own = Object.entries(process.env).filter(([name]) => !/^(DEST_|CONFIG_|CONTROL_|SLUICE_|LOG_|PG)/.test(name));
    return { ...Object.fromEntries(own), DEST_URL: this.stage.server.url(), CONTROL_DATABASE };
  }
}

/** The envelope of `--json` (src/cli/envelope.ts); null when the command died before it could answer. */
interface Answer {
  readonly ok: boolean;
  readonly summary: string;
  readonly error: { readonly code: ErrorCode; readonly hint: string | null } | null;
}

function parse(text: string): Answer | null {
  try {
    return JSON.parse(text) as Answer;
  } catch {
    return null;
  }
}
