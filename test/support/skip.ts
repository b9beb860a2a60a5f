import type { Context } from 'mocha';

interface MaybeSkipped {
  skipReason?: string;
}

/** Skips the running test, or from a hook the tests it is for; the reason is printed at the end of the run (scripts/mocha-reporter.mjs). */
export function skip(context: Context, reason: string): never {
  const runnable = context.runnable();
  (runnable as MaybeSkipped).skipReason = reason;
  if ('type' in runnable && runnable.type === 'hook') {
    // It is the hook's tests that are reported, not the hook.
    runnable.parent?.eachTest((test) => {
      (test as MaybeSkipped).skipReason = reason;
    });
  }
  return context.skip();
}
