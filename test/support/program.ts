/** How a test starts `sluice` as a process of its own: node's arguments before the command. */
import { fileURLToPath } from 'node:url';

const BUILT = process.env['SLUICE_TEST_MAIN'];

/** What scripts/test.mjs has built from the sources; where a file is run by itself, the sources. */
export const SLUICE: readonly string[] =
  BUILT === undefined
    ? [`--import=${import.meta.resolve('tsx')}`, fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))]
    : [BUILT];
