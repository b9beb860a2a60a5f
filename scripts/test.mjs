/**
 * npm test [-- --long] [--grep X] [files]: installs packages when needed, runs mocha, and ends with the line
 * `N passed, N failed, N skipped`.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { installPackages, root, runNode } from './bootstrap.mjs';

installPackages();

const given = process.argv.slice(2);
const long = given.includes('--long');
const args = given.filter((arg) => arg !== '--long');
const files = args.filter((arg, at) => !takesValue(args[at - 1]) && !arg.startsWith('-') && looksLikeFile(arg));
const flags = args.filter((arg) => !files.includes(arg));

// mocha would add the files of its configuration to those given here, so the configuration is handed over piece by piece.
const config = JSON.parse(readFileSync(path.join(root, '.mocharc.json'), 'utf8'));
const scratch = mkdtempSync(path.join(tmpdir(), 'sluice-test-run-'));
const countsFile = path.join(scratch, 'counts.json');
const code = await runNode(
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
    ...(files.length > 0 ? files : config.spec),
  ],
  { SLUICE_TEST_COUNTS: countsFile, ...(long ? { SLUICE_TEST_LONG: '1' } : {}) },
);

let { passed, failed, skipped, complete } = existsSync(countsFile)
  ? JSON.parse(readFileSync(countsFile, 'utf8'))
  : { passed: 0, failed: 0, skipped: 0, complete: false };
rmSync(scratch, { recursive: true, force: true });
if (!complete) {
  failed += 1;
  console.log(`\nThe test run ended before its end (exit code ${code}); that counts as one failure.`);
} else if (passed + failed + skipped === 0) {
  failed = 1;
  console.log('\nNo test was found; that counts as one failure.');
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = code === 0 && failed > 0 ? 1 : code;

function takesValue(flag) {
  return ['--grep', '-g', '--fgrep', '-f', '--timeout', '-t', '--retries'].includes(flag);
}

function looksLikeFile(arg) {
  return existsSync(path.resolve(root, arg)) || /[*]|\.ts$/.test(arg);
}
