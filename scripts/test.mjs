/**
 * npm test [-- --long] [--lanes N] [--grep X] [files]: installs packages when needed, builds what child processes of the tests
 * run, and runs the folders of test/ side by side, each in a mocha of its own with servers of its own: in three lanes where
 * there are two processors, because many tests wait. Ends with what was skipped and what failed, and the line `N passed, N failed, N skipped`.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { installPackages, root, startNode } from './bootstrap.mjs';

installPackages();

// What is not ours is mocha's, and goes to it as it came.
const { values, tokens } = parseArgs({
  options: { long: { type: 'boolean' }, lanes: { type: 'string' } },
  strict: false,
  tokens: true,
});
const ours = new Set(
  tokens.flatMap(({ kind, name, index, inlineValue }) =>
    kind !== 'option'
      ? []
      : name === 'long'
        ? [index]
        : name !== 'lanes'
          ? []
          : inlineValue
            ? [index]
            : [index, index + 1],
  ),
);
const args = process.argv.slice(2).filter((_, at) => !ours.has(at));
const files = args.filter((arg, at) => !takesValue(args[at - 1]) && !arg.startsWith('-') && looksLikeFile(arg));
const flags = args.filter((arg) => !files.includes(arg));

const scratch = mkdtempSync(path.join(tmpdir(), 'sluice-test-run-'));
const config = JSON.parse(readFileSync(path.join(root, '.mocharc.json'), 'utf8'));
const shared = {
  ...(values.long ? { SLUICE_TEST_LONG: '1' } : {}),
  ...(process.stdout.isTTY ? { FORCE_COLOR: '1' } : {}),
};
const isBuilt = files.length > 0 || (await build());
const folders = files.length > 0 ? [files] : testFolders();
const total = { passed: 0, failed: isBuilt ? 0 : 1, skipped: [], failures: isBuilt ? [] : ['the build'], seconds: [] };
let interruptedBy = null;
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
])
  process.on(signal, () => (interruptedBy ??= code));
await runAll(folders, Number(values.lanes ?? Math.min(3, availableParallelism() + 1)));
rmSync(scratch, { recursive: true, force: true });
report();

/** Child processes of the tests start in a third of the time from JavaScript. Single files are not worth the wait. */
async function build() {
  const outDir = path.join(root, '.test-build');
  rmSync(outDir, { recursive: true, force: true });
  const tsc = [path.join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'];
  const options = ['--outDir', outDir, '--noCheck', '--declaration', 'false'];
  shared.SLUICE_TEST_MAIN = path.join(outDir, 'cli', 'main.js');
  return (await startNode([...tsc, ...options]).ended) === 0;
}

/** The test files of each folder of test/; those of test/engines by engine. */
function testFolders() {
  const found = new Map();
  for (const file of readdirSync(path.join(root, 'test'), { recursive: true }).sort()) {
    if (!file.endsWith('.test.ts')) continue;
    const parts = path.dirname(file).split(path.sep);
    const folder = parts.slice(0, parts[0] === 'engines' ? 2 : 1).join('/');
    found.set(folder, [...(found.get(folder) ?? []), path.join('test', file)]);
  }
  return [...found.values()];
}

/** Each folder's output comes in one piece, in order; that of the first one that has not ended as it is written. */
async function runAll(folders, lanes) {
  const outputs = folders.map(() => ({ text: [], ended: false }));
  let shown = 0;
  const show = () => {
    for (; shown < outputs.length; shown++) {
      for (const text of outputs[shown].text.splice(0)) process.stdout.write(text);
      if (!outputs[shown].ended) return;
    }
  };
  let next = 0;
  const lane = async () => {
    for (let at = next++; at < folders.length && interruptedBy === null; at = next++) {
      const output = outputs[at];
      const isOnly = folders.length === 1;
      await run(folders[at], `${at}`, isOnly, (text) => {
        output.text.push(text);
        show();
      });
      output.ended = true;
      show();
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

async function run(spec, name, isOnly, write) {
  const counts = path.join(scratch, `${name}.json`);
  const started = performance.now();
  // mocha would add the files of its configuration to those given here, so the configuration is handed over piece by piece.
  const mocha = startNode(
    [
      ...config['node-option'].map((option) => `--${option}`),
      path.join('node_modules', 'mocha', 'bin', 'mocha.js'),
      '--no-config',
      '--no-package',
      ...config.extension.flatMap((value) => ['--extension', value]),
      ...config.require.flatMap((value) => ['--require', value]),
      ...['--timeout', String(config.timeout)],
      ...(config.exit ? ['--exit'] : []),
      ...['--reporter', path.join(root, 'scripts', 'mocha-reporter.mjs')],
      ...flags,
      ...spec,
    ],
    { ...shared, SLUICE_TEST_COUNTS: counts },
    isOnly ? null : write,
  );
  const code = await mocha.ended;
  total.seconds.push([
    path.relative('test', path.dirname(spec[0])) || '.',
    Math.round((performance.now() - started) / 1000),
  ]);
  const ended = existsSync(counts) ? JSON.parse(readFileSync(counts, 'utf8')) : null;
  total.passed += ended?.passed ?? 0;
  total.failed += ended?.failed ?? 0;
  total.skipped.push(...(ended?.skipped ?? []));
  total.failures.push(...(ended?.failures ?? []));
  if (ended?.complete) return;
  total.failed += 1;
  total.failures.push(`the tests of ${spec.join(', ')}: they ended before their end (exit code ${code})`);
}

function report() {
  const { passed, skipped, failures } = total;
  if (passed + total.failed + skipped.length === 0) {
    total.failed = 1;
    failures.push('no test was found');
  }
  if (skipped.length > 0) console.log('  Skipped:\n');
  for (const { title, reason } of skipped) console.log(`    - ${title}\n      ${reason ?? 'no reason given'}`);
  if (failures.length > 0) console.log('\n  Failed:\n');
  for (const title of failures) console.log(`    - ${title}`);
  const longest = total.seconds.sort(([, a], [, b]) => b - a).map(([folder, seconds]) => `${folder} ${seconds}`);
  if (longest.length > 1) console.log(`\n  Seconds: ${longest.join(', ')}`);
  console.log(`${passed} passed, ${total.failed} failed, ${skipped.length} skipped`);
  process.exitCode = interruptedBy ?? (total.failed > 0 ? 1 : 0);
}

function takesValue(flag) {
  return ['--grep', '-g', '--fgrep', '-f', '--timeout', '-t', '--retries'].includes(flag);
}

function looksLikeFile(arg) {
  return existsSync(path.resolve(root, arg)) || /[*]|\.ts$/.test(arg);
}
