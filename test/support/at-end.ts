/** What tests keep beyond their suites, given back when the run is over and its servers still are there. */

import './loaded-once.ts';

const works: (() => Promise<void>)[] = [];

export function atEnd(work: () => Promise<void>): void {
  works.push(work);
}

/** Called once at the end of the run, before the servers are stopped (root hook in `hooks.ts`). */
export async function runAtEnd(): Promise<void> {
  await Promise.allSettled(works.splice(0).map((work) => work()));
}
