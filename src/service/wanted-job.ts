/** What a mapping needs done now, decided from its rows alone. Pure. */
import type { MappingStateRow } from '../control/index.ts';
import type { PlannedMapping } from './planner.ts';

export type JobKind = 'copy' | 'adopt' | 'pause' | 'settle' | 'verify';

/** `isDue`: the time of the state's next attempt has come. Null: nothing. */
export function wantedJob(mapping: PlannedMapping, isDue: (state: MappingStateRow) => boolean): JobKind | null {
  const { state, running, queued, initialSync, onGap, personHash } = mapping.row;
  if (!state) return null;
  const retryWaits = state.retryInMs !== null && !isDue(state) && state.personHash === personHash;
  if (!mapping.enabled) return state.state === 'paused' || state.state === 'gap' ? null : 'pause';
  const isOpen = running !== null || queued?.confirmed === true;
  // What an earlier version of the row asked for is settled before anything is copied by the new one.
  const isChanged = state.personHash !== null && state.personHash !== personHash;
  // invariant 5: what it has was kept up to date by a stream that nobody reads for it now (one of an earlier version's name).
  const isLeft = state.destDatabase !== null && state.stream !== mapping.stream;
  if (isLeft && (isOpen || state.state !== 'gap')) return 'settle';
  if (isOpen && isChanged && state.state !== 'gap') return 'settle';
  if (isOpen && !(running !== null && retryWaits)) return 'copy';
  switch (state.state) {
    case 'new':
      return initialSync === 'none' ? 'adopt' : 'settle';
    case 'paused':
      return 'settle';
    case 'failed':
      return retryWaits || (state.retryAt === null && state.personHash === personHash)
        ? null
        : initialSync === 'none'
          ? 'adopt'
          : 'settle';
    case 'gap':
      return onGap === 'resync' && queued === null ? 'settle' : null;
    case 'copying':
      return 'settle';
    case 'streaming':
    case 'idle':
      return isChanged ? 'settle' : null;
  }
}
