/**
 * mocha's `spec` output, and the counts, the skipped tests with their reasons, and the failed ones left in the file
 * SLUICE_TEST_COUNTS for scripts/test.mjs. A test is skipped with `skip(this, 'reason')` of test/support/skip.ts.
 */
import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

const { EVENT_RUN_END, EVENT_TEST_FAIL, EVENT_TEST_PENDING } = Mocha.Runner.constants;

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const rootSuite = runner.suite; // later it is the suite that runs
    const skipped = [];
    const failures = [];
    let complete = false;
    let interrupted = false;
    runner.on(EVENT_TEST_PENDING, (test) => skipped.push({ title: test.fullTitle(), reason: test.skipReason }));
    runner.on(EVENT_TEST_FAIL, (test) => failures.push(test.fullTitle()));
    runner.once(EVENT_RUN_END, () => {
      complete = !interrupted;
    });
    process.on('exit', () => {
      const { passes: passed, failures: failed } = this.stats;
      const counts = { passed, failed, skipped, failures, complete };
      if (process.env.SLUICE_TEST_COUNTS) writeFileSync(process.env.SLUICE_TEST_COUNTS, JSON.stringify(counts));
    });

    // Interrupted: end the running test, let the root hooks stop the server; when that takes long, stop it and leave.
    let first = 0;
    const stop = () => {
      if (Date.now() - first < 1000) return; // the terminal and scripts/test.mjs both send it
      if (first !== 0) process.exit(130);
      first = Date.now();
      interrupted = true;
      console.log('\n  interrupted: stopping …');
      runner.abort();
      setTimeout(async () => {
        // By the hooks themselves: an import of test/support would be a second instance that knows of no server.
        for (const hook of rootSuite._afterAll) await hook.fn.call({});
        process.exit(130);
      }, 3000).unref();
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, stop);
  }
}
