/** npm run demo [-- --once --json]: installs packages when needed, then runs `sluice demo`. */
import path from 'node:path';
import { installPackages, runNode } from './bootstrap.mjs';

installPackages();
process.exitCode = await runNode([
  '--import',
  'tsx',
  path.join('src', 'cli', 'main.ts'),
  'demo',
  ...process.argv.slice(2),
]);
