/**
 * What every script of package.json starts with: it makes sure that the packages of package-lock.json are installed, then
 * runs a child and lives as long as it does. Only node's own modules here: nothing else may be installed yet.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Runs `npm ci` unless node_modules already is what package-lock.json says. Everything is said on stderr: stdout belongs to the command. */
export function installPackages() {
  if (packagesAreCurrent()) return;
  process.stderr.write('Installing packages (npm ci) …\n');
  const options = { cwd: root, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 };
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=warn'];
  const npm = process.env['npm_execpath'];
  // Under `npm run` this is npm's own program; otherwise `npm` is looked up (on Windows it is a .cmd, which needs a shell).
  const result =
    npm !== undefined && /\.c?js$/.test(npm)
      ? spawnSync(process.execPath, [npm, ...args], options)
      : spawnSync('npm', args, { ...options, shell: process.platform === 'win32' });
  process.stderr.write(result.stderr ?? '');
  if (result.status !== 0) {
    process.stderr.write(`${result.stdout ?? ''}${result.error ? `${result.error.message}\n` : ''}npm ci failed\n`);
    process.exit(3);
  }
}

/** By content, not by time: npm keeps a copy of what it installed in node_modules/.package-lock.json. */
function packagesAreCurrent() {
  const modules = path.join(root, 'node_modules');
  if (!existsSync(modules)) return false;
  // A link is somebody else's node_modules: `npm ci` would empty it.
  if (lstatSync(modules).isSymbolicLink()) return true;
  const installed = path.join(modules, '.package-lock.json');
  if (!existsSync(installed)) return false;
  const have = JSON.parse(readFileSync(installed, 'utf8')).packages ?? {};
  const want = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages ?? {};
  return Object.entries(want).every(([name, entry]) => {
    if (name === '') return true;
    const found = have[name];
    // Optional packages of other platforms are never there.
    return found === undefined ? entry.optional === true : found.version === entry.version;
  });
}

/** As `startNode` on this terminal; resolves to the exit code. */
export function runNode(args, env = {}) {
  return startNode(args, env).ended;
}

const children = new Set();
let passesSignalsOn = false;

/**
 * Starts `node <args>`, on this terminal or, given `write`, with its output going there; `ended` resolves to its exit code. SIGINT,
 * SIGTERM and SIGHUP are passed on and the child is waited for: it stops what it started. (A terminal's Ctrl-C reaches the child
 * by itself too; the children take the second one within a second as the same.)
 */
export function startNode(args, env = {}, write = null) {
  const output = write === null ? 'inherit' : 'pipe';
  const child = spawn(process.execPath, args, {
    cwd: root,
    stdio: ['inherit', output, output],
    env: { ...process.env, ...env },
  });
  children.add(child);
  if (!passesSignalsOn)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
      process.on(signal, () => children.forEach((each) => each.kill(signal)));
  passesSignalsOn = true;
  child.stdout?.setEncoding('utf8').on('data', write);
  child.stderr?.setEncoding('utf8').on('data', write);
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', async (code, signal) => {
      children.delete(child);
      // Its last words; a process that it left behind may hold the pipe for longer.
      if (write !== null) await Promise.race([once(child, 'close'), pause(2000, null, { ref: false })]);
      if (code !== null) resolve(code);
      else resolve(signal === 'SIGINT' ? 130 : signal === 'SIGTERM' ? 143 : 1);
    });
  });
  return { ended };
}
