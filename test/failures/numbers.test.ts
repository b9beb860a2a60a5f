/** Every failure of the list that can happen to an engine has a test that says so in its title. */
import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

const TESTS = path.resolve(import.meta.dirname, '..');
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const ENGINES = [
  {
    name: 'SQL Server',
    contract: 'sqlserver',
    files: /sqlserver.*\.test\.ts$/,
    // F17 and F18 are PostgreSQL's and MySQL's; F50–F58 and F60–F62 are of no engine.
    numbers: [...range(1, 16), ...range(19, 36), ...range(40, 49), 59, ...range(63, 66)],
  },
  {
    name: 'MySQL and MariaDB',
    contract: 'mysql',
    files: /mysql.*\.test\.ts$/,
    // F11, F13, F14, F16 and F29 are of tables that are captured by themselves; F17 is PostgreSQL's.
    numbers: [...range(1, 10), 12, 15, ...range(18, 28), ...range(30, 36), ...range(40, 49), ...range(63, 66)],
  },
] as const;

/** Calls of a source text, by the compiler: what stands in a comment or a string is none. */
function calls(text: string): { name: string; title: string; isTest: boolean }[] {
  const found: { name: string; title: string; isTest: boolean }[] = [];
  const visit = (node: ts.Node, around: string) => {
    let title = around;
    if (ts.isCallExpression(node) && ts.isIdentifier(node.expression)) {
      const [first, work] = node.arguments;
      const name = node.expression.text;
      if (name === 'it' || name === 'describe') title += ` ${first ? textOf(first) : ''}`;
      const isTest =
        name === 'it' &&
        work !== undefined &&
        (ts.isArrowFunction(work) || ts.isFunctionExpression(work)) &&
        !(ts.isBlock(work.body) && work.body.statements.length === 0);
      found.push({ name, title, isTest });
    }
    // What is skipped is left out with all that is in it: of `it.skip` and the like, nothing is called `it`.
    if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression) && isSuite(node.expression)) return;
    ts.forEachChild(node, (child) => visit(child, title));
  };
  visit(ts.createSourceFile('test.ts', text, ts.ScriptTarget.Latest, true), '');
  return found;
}

const isSuite = ({ expression }: ts.PropertyAccessExpression) =>
  ts.isIdentifier(expression) && ['it', 'describe'].includes(expression.text);

/** What of a title is written down: of a template, all but what is put in. */
function textOf(node: ts.Node): string {
  if (ts.isStringLiteralLike(node)) return node.text;
  if (!ts.isTemplateExpression(node)) return '';
  return [node.head.text, ...node.templateSpans.map((span) => span.literal.text)].join('');
}

/** Titles of the tests that run on an engine: of its own files, and of the contract suites that it is registered for. */
function titles({ contract, files }: (typeof ENGINES)[number]): string[] {
  const read = (file: string) => calls(readFileSync(path.join(TESTS, file), 'utf8'));
  const registered = new Set(
    [`contract/${contract}.test.ts`, `pairs/to-${contract}.test.ts`].flatMap((file) =>
      read(file).map(({ name }) => name),
    ),
  );
  return readdirSync(TESTS, { recursive: true, encoding: 'utf8' })
    .filter((file) => {
      if (files.test(file)) return true;
      const suite = /^(?:contract|pairs)\/(.*)\.suite\.ts$/.exec(file)?.[1];
      return suite !== undefined && registered.has(`${suite}Suite`);
    })
    .flatMap((file) => read(file).flatMap(({ title, isTest }) => (isTest ? [title] : [])));
}

const numberOf = (n: number) => `F${String(n).padStart(2, '0')}`;

describe('failure numbers', () => {
  for (const engine of ENGINES)
    it(`every number that can happen to ${engine.name} has a test`, () => {
      const all = titles(engine);
      const missing = engine.numbers
        .map(numberOf)
        .filter((n) => !all.some((title) => new RegExp(`\\b${n}\\b`).test(title)));
      expect(missing).to.deep.equal([]);
    });

  it('only tests count: no comments, no strings, nothing skipped or empty, no group without a test', () => {
    const text = `
      // it('F01: a comment', () => { work(); });
      /* it('F02: another', () => { work(); }); */
      const s = "it('F03: a string', () => { work(); })";
      it.skip('F04: skipped', () => { work(); });
      describe.skip('F05: skipped', () => { it('F06: with it', () => { work(); }); });
      describe('F07: a group', () => undefined);
      it('F08: nothing in it', () => {});
      it('F09: only a title');
      describe('F10: a group', () => { it(\`F11: \${s} of F12\`, async function () { await work(); }); });`;
    const counted = calls(text).flatMap(({ title, isTest }) => (isTest ? title.match(/F\d\d/g) : []));
    expect(counted).to.deep.equal(['F10', 'F11', 'F12']);
  });
});
