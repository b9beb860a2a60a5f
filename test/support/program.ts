/** How a test starts `sluice` as a process of its own: node's arguments before the command. */
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const BUILT = process.env['SLUICE_TEST_MAIN'];
/** Not import.meta.resolve: mocha would load what lacks it (tsx) a second time, and its servers would be other ones that nobody stops. */
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

/** What scripts/test.mjs has built from the sources; where a file is run by itself, the sources. */
export const SLUICE: readonly string[] =
  BUILT === undefined ? [`--import=${TSX}`, fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))] : [BUILT];
