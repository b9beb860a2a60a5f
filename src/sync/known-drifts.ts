/**
 * What was found out about the routes of a group, each as it is now: forgotten when a copy or a change of its columns makes it another
 * one, whose differences from the source look the same and need a copy of their own.
 */
import type { Route } from '../engines/contract.ts';

interface Known {
  readonly route: string;
  /** Differences that were looked at, and need nothing more. */
  readonly settled: Set<string>;
  /** A copy was asked for because of a statement at the source: it brings whatever differs. */
  isAsked: boolean;
}

export class KnownDrifts {
  readonly #known = new Map<string, Known>();

  isSettled(route: Route, drift: string): boolean {
    return this.#of(route).settled.has(drift);
  }

  settle(route: Route, drift: string): void {
    this.#of(route).settled.add(drift);
  }

  isAsked(route: Route): boolean {
    return this.#of(route).isAsked;
  }

  asked(route: Route): void {
    this.#of(route).isAsked = true;
  }

  #of(route: Route): Known {
    const { mappingUid, liveGeneration, columns, capture } = route;
    const text = JSON.stringify([liveGeneration ?? null, capture ?? null, columns]);
    let known = this.#known.get(mappingUid);
    if (known?.route !== text) {
      known = { route: text, settled: new Set(), isAsked: false };
      this.#known.set(mappingUid, known);
    }
    return known;
  }
}
