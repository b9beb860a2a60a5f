/** npm run bench -- NAME [options]: installs packages when needed, then runs bench/NAME.ts. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { installPackages, root, runNode } from './bootstrap.mjs';

const folder = path.join(root, 'bench');
const names = existsSync(folder)
  ? readdirSync(folder)
      .filter((file) => file.endsWith('.ts'))
      .map((file) => path.basename(file, '.ts'))
  : [];
const [name, ...rest] = process.argv.slice(2);
if (name === undefined || !names.includes(name)) {
  console.error(`Usage: npm run bench -- NAME [options]\nNames: ${names.join(', ') || 'none yet'}`);
  process.exit(2);
}
installPackages();
process.exitCode = await runNode(['--import', 'tsx', path.join('bench', `${name}.ts`), ...rest]);
