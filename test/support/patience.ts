/**
 * Limits in tests are for what never comes: each is written down for two idle cores, and stretched by this for a machine that is slow or
 * has other work. A test that passes takes no longer by it.
 */
import type { Hook, Runnable, Suite, Test } from 'mocha';

export const PATIENCE = Number(process.env['SLUICE_TEST_PATIENCE'] ?? 3);

/** Mocha keeps these where its types do not show them. */
interface Hooks {
  readonly _beforeAll: readonly Hook[];
  readonly _afterAll: readonly Hook[];
  readonly _beforeEach: readonly Hook[];
  readonly _afterEach: readonly Hook[];
}

/** To be called once, when every file is loaded. */
export function stretchTimeouts(root: Suite): void {
  const { _beforeAll, _afterAll, _beforeEach, _afterEach } = root as unknown as Hooks;
  for (const runnable of [..._beforeAll, ..._afterAll, ..._beforeEach, ..._afterEach, ...root.tests]) stretch(runnable);
  for (const suite of root.suites) stretchTimeouts(suite);
}

function stretch(runnable: Runnable | Hook | Test): void {
  if (runnable.timeout() > 0) runnable.timeout(runnable.timeout() * PATIENCE);
}
