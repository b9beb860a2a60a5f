/**
 * Every failure of the list that can happen to an engine has a test that says so in its title: with MariaDB and MySQL, one for each end
 * of a mapping that it can happen to. The titles are those of a run of everything, as mocha lists them without running it.
 */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

const ROOT = path.resolve(import.meta.dirname, '../..');
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Which end of a mapping the engine is in a test. */
type End = 'source' | 'destination';
type Shown = (fullTitle: string) => boolean;

/** `Source → Destination`, `Source to Destination`, `Engine as source`, in that spelling. */
function shows(engine: string, end: End): Shown {
  const form =
    end === 'source'
      ? new RegExp(`\\b${engine} (→|to [A-Z]|as source\\b)`)
      : new RegExp(`(→|[a-z] to) ${engine}\\b|\\b${engine} as destination\\b`, 'i');
  return (title) => form.test(title);
}

// F11, F13, F14, F16 and F29 are of tables that are captured by themselves; F17 is PostgreSQL's; F09, F19, F36, F40, F45, F48, F49, F63 and
// F66 happen at the destination.
const OF_A_BINARY_LOG = [
  ...range(1, 8),
  10,
  12,
  15,
  18,
  ...range(20, 28),
  ...range(30, 35),
  ...range(41, 44),
  46,
  47,
  64,
  65,
];
// F07, F10, F12, F15, F18, F41 and F44 happen at the source.
const OF_A_DESTINATION = [
  ...[...range(1, 6), 8, 9, ...range(19, 28), ...range(30, 36)],
  ...[40, 42, 43, ...range(45, 49), ...range(63, 66)],
];

const WANTED: readonly { readonly of: string; readonly shown: Shown; readonly numbers: readonly number[] }[] = [
  {
    of: 'SQL Server',
    shown: (title) => title.includes('SQL Server'),
    // F17 and F18 are PostgreSQL's and MySQL's; F50–F58 and F60–F62 are of no engine.
    numbers: [...range(1, 16), ...range(19, 36), ...range(40, 49), 59, ...range(63, 66)],
  },
  ...['MariaDB', 'MySQL'].flatMap((name) => [
    { of: `${name} as source`, shown: shows(name, 'source'), numbers: OF_A_BINARY_LOG },
    { of: `${name} as destination`, shown: shows(name, 'destination'), numbers: OF_A_DESTINATION },
  ]),
];

const numberOf = (n: number) => `F${String(n).padStart(2, '0')}`;

/** Of all tests, those of the long run too, with those of the groups around them. */
function fullTitles(): string[] {
  const files = readdirSync(path.join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts') && !import.meta.filename.endsWith(file))
    .map((file) => path.join('test', file));
  const mocha = path.join('node_modules', 'mocha', 'bin', 'mocha.js');
  const options = ['--import=tsx', mocha, '--no-config', '--no-package', '--dry-run', '--exit', '--reporter', 'json'];
  const run = spawnSync(process.execPath, [...options, ...files], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    env: { ...process.env, SLUICE_TEST_LONG: '1' },
  });
  const text = run.stdout.slice(run.stdout.indexOf('{'));
  const { passes } = JSON.parse(text) as { passes: { fullTitle: string }[] };
  return passes.map(({ fullTitle }) => fullTitle);
}

/** Titles of tests in a source text that do nothing, by the compiler. */
function emptyTests(text: string): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node) => {
    if (ts.isCallExpression(node) && ts.isIdentifier(node.expression) && node.expression.text === 'it') {
      const [title, work] = node.arguments;
      const isWork = work !== undefined && (ts.isArrowFunction(work) || ts.isFunctionExpression(work));
      if (!isWork || (ts.isBlock(work.body) && work.body.statements.length === 0)) found.push(title?.getText() ?? '');
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile('test.ts', text, ts.ScriptTarget.Latest, true));
  return found;
}

describe('failure numbers', function () {
  this.timeout(120_000);
  let titles: readonly string[];
  before(() => {
    titles = fullTitles();
  });

  for (const { of, shown, numbers } of WANTED)
    it(`every number that can happen to ${of} has a test`, () => {
      const ofThis = titles.filter(shown);
      const missing = numbers
        .map(numberOf)
        .filter((n) => !ofThis.some((title) => new RegExp(`\\b${n}\\b`).test(title)));
      expect(missing).to.deep.equal([]);
    });

  it('no test does nothing', () => {
    const empty = readdirSync(path.join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .flatMap((file) => emptyTests(readFileSync(path.join(ROOT, 'test', file), 'utf8')));
    expect(empty).to.deep.equal([]);
    const text = `
      // it('a comment', () => {});
      it('nothing in it', () => {});
      it('only a title');
      it('work', async function () { await work(); });
      it(\`an expression\`, () => work());`;
    expect(emptyTests(text)).to.deep.equal(["'nothing in it'", "'only a title'"]);
  });
});
