/** SIGINT, SIGTERM and SIGHUP as an AbortSignal, for commands that have to clean up. */

/**
 * Runs `work` until it is done; a signal aborts it and it is waited for. A second signal within a second is the same one (a
 * terminal and a wrapping script both send it); a later one ends the process at once.
 */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let first = 0;
  const stop = () => {
    if (first === 0) {
      first = Date.now();
      controller.abort();
    } else if (Date.now() - first > 1000) process.exit(130);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, stop);
  try {
    return await work(controller.signal);
  } finally {
    for (const signal of signals) process.off(signal, stop);
  }
}
