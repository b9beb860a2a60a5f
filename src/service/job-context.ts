/** What the jobs of mappings work with. */
import type { ControlDatabase, Owner, Settings } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import type { SluiceError } from '../model/errors.ts';
import type { Fleet } from './fleet.ts';
import type { PlannedMapping } from './planner.ts';

export interface JobContext {
  readonly control: ControlDatabase;
  readonly fleet: Fleet;
  readonly owner: Owner;
  readonly logger: Logger;
  readonly settings: () => Settings;
  /** Why a change stream of this process does not run now; null: it does, or is another's. */
  readonly streamFailure: (stream: string) => SluiceError | null;
  /** Some mapping of the plan belongs to the stream, whether it is read now or not. */
  readonly isPlanned: (stream: string) => boolean;
  /** A mapping of the plan, by its uid. */
  readonly mapping: (uid: string) => PlannedMapping | null;
}
