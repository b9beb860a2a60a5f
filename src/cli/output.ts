/** Where a command's words go: results on stdout, everything said meanwhile on stderr, progress bars only on a terminal. */
import cliProgress from 'cli-progress';

export interface Terminal {
  readonly stdout: NodeJS.WriteStream | NodeJS.WritableStream;
  readonly stderr: NodeJS.WriteStream | NodeJS.WritableStream;
}

/** One long job: rows done, rows expected (null: not known), shown with rate and time left. */
export interface ProgressBar {
  update(done: number, expected?: number | null): void;
  finish(done: number): void;
}

export class Output {
  readonly json: boolean;
  private readonly terminal: Terminal;
  private bars: cliProgress.MultiBar | null = null;
  /** Lines of the last picture, to be drawn over by the next. */
  private painted = 0;

  constructor(terminal: Terminal, json: boolean) {
    this.terminal = terminal;
    this.json = json;
  }

  /** Both streams are a terminal and the answer is for a person. */
  get interactive(): boolean {
    return !this.json && isTty(this.terminal.stdout) && isTty(this.terminal.stderr);
  }

  /** Part of the result; with --json the envelope has it instead. */
  line(text = ''): void {
    if (!this.json) this.terminal.stdout.write(`${text}\n`);
  }

  /** Said on the way; never part of the result. */
  note(text: string): void {
    this.painted = 0;
    if (this.bars) this.bars.log(`${text}\n`);
    else this.terminal.stderr.write(`${text}\n`);
  }

  envelope(value: unknown): void {
    this.terminal.stdout.write(
      `${JSON.stringify(value, (_name, cell: unknown) => (typeof cell === 'bigint' ? String(cell) : cell))}\n`,
    );
  }

  /** Without a terminal a line at most each 5 seconds takes the bar's place. */
  progress(label: string, expected: number | null): ProgressBar {
    return this.interactive ? this.bar(label, expected) : this.lines(label, expected);
  }

  /** A picture of several lines, over the last one. Only where `interactive`. */
  repaint(lines: readonly string[]): void {
    const { stderr } = this.terminal;
    // Some terminals say 0.
    const columns = ('columns' in stderr && stderr.columns) || 80;
    const up = this.painted > 0 ? `\x1b[${this.painted}A` : '';
    // Cut, because a wrapped line would be two; \x1b[K clears what a longer line left, \x1b[J what more lines left.
    const text = lines.map((line) => `${[...line].slice(0, columns - 1).join('')}\x1b[K\n`).join('');
    stderr.write(`${up}${text}\x1b[J`);
    this.painted = lines.length;
  }

  /** Leaves the terminal as it was. */
  close(): void {
    this.bars?.stop();
    this.bars = null;
  }

  private bar(label: string, expected: number | null): ProgressBar {
    this.bars ??= new cliProgress.MultiBar(
      {
        format: '{label} {bar} {percentage}% {value}/{total} rows {rate}/s {left} left',
        barsize: 24,
        hideCursor: true,
        clearOnComplete: false,
        stream: this.terminal.stderr,
      },
      cliProgress.Presets.shades_classic,
    );
    const started = Date.now();
    const bar = this.bars.create(expected ?? 1, 0, { label, rate: 0, left: '' });
    const update = (done: number, total: number | null) => {
      const rate = rateOf(done, started);
      bar.setTotal(Math.max(total ?? done, done, 1));
      bar.update(done, { label, rate, left: total === null || rate === 0 ? '?' : duration((total - done) / rate) });
    };
    return {
      update: (done, total = expected) => update(done, total),
      finish: (done) => {
        update(done, done);
        bar.stop();
      },
    };
  }

  private lines(label: string, expected: number | null): ProgressBar {
    const started = Date.now();
    let last = started;
    const say = (done: number, total: number | null) => {
      const rate = rateOf(done, started);
      const share =
        total === null || total === 0 ? '' : ` of ${total} (${Math.min(100, Math.floor((100 * done) / total))}%)`;
      const left = total === null || rate === 0 || total <= done ? '' : `, ${duration((total - done) / rate)} left`;
      this.note(`${label}: ${done}${share} rows, ${rate}/s${left}`);
    };
    return {
      update: (done, total = expected) => {
        if (Date.now() - last < 5000) return;
        last = Date.now();
        say(done, total);
      },
      finish: (done) => say(done, done),
    };
  }
}

/** Rows as aligned columns, numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number | null)[])[]): string[] {
  const cells = rows.map((row) => row.map((cell) => (cell === null ? '' : String(cell))));
  const widths = head.map((title, at) => Math.max(width(title), ...cells.map((row) => width(row[at] ?? ''))));
  const right = head.map(
    (_, at) => rows.length > 0 && rows.every((row) => typeof row[at] === 'number' || row[at] === null),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, at) => {
        const fill = ' '.repeat(Math.max(0, (widths[at] ?? 0) - width(cell)));
        return right[at] ? fill + cell : cell + fill;
      })
      .join('  ')
      .trimEnd();
  return [line(head), ...cells.map(line)];
}

export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?';
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function rateOf(done: number, started: number): number {
  const seconds = (Date.now() - started) / 1000;
  return seconds < 0.2 ? 0 : Math.round(done / seconds);
}

function width(text: string): number {
  return [...text].length;
}

function isTty(stream: NodeJS.WriteStream | NodeJS.WritableStream): boolean {
  return 'isTTY' in stream && stream.isTTY;
}
