/** What is wrong with rows a person wrote: said once, in the log, in error_logs and on the row, until it changes or goes away. */
import type { ControlDatabase } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { SluiceError } from '../model/errors.ts';
import type { ResolvedServer } from './fleet.ts';
import type { Plan } from './planner.ts';

/** Kept as the person's hash of a row that is refused, so that any usable row counts as changed. */
const REFUSED = 'refused';

export class ProblemReports {
  readonly #control: ControlDatabase;
  readonly #logger: Logger;
  /** Code and message last said, by what they are about. */
  readonly #reported = new Map<string, string>();

  constructor(control: ControlDatabase, logger: Logger) {
    this.#control = control;
    this.#logger = logger;
  }

  /** Rows of `config` that are not used. */
  async settings(problems: readonly { key: string; error: SluiceError }[]): Promise<void> {
    for (const { key, error } of problems) await this.#report(`config ${key}`, {}, error);
    // Also what an earlier process reported.
    await this.#control.journal.resolveSettings(problems.map(({ error }) => error));
    this.#forgetReports('config ', new Set(problems.map(({ key }) => `config ${key}`)));
  }

  /** Mappings and servers that cannot be used; the others run (F52). */
  async plan(
    current: Plan,
    sources: ReadonlyMap<number, ResolvedServer>,
    destinations: ReadonlyMap<number, ResolvedServer>,
  ): Promise<void> {
    const seen = new Set<string>();
    for (const { row, error } of current.problems) {
      seen.add(`mapping ${row.mappingId}`);
      await this.#report(`mapping ${row.mappingId}`, { mappingId: row.mappingId }, error);
      await this.#failState(row.mappingUid, row.state?.state ?? 'new', error);
    }
    for (const bad of current.invalid) {
      const key = bad.mappingId === null ? `${bad.table} ${bad.id}` : `mapping ${bad.mappingId}`;
      const error = new SluiceError(bad.code, bad.message, { hint: bad.hint });
      seen.add(key);
      await this.#report(key, bad.mappingId === null ? { serverId: bad.id } : { mappingId: bad.mappingId }, error);
      if (bad.mappingUid !== null) await this.#failState(bad.mappingUid, null, error);
    }
    for (const [role, servers] of [
      ['source server', sources],
      ['destination server', destinations],
    ] as const) {
      for (const server of servers.values()) {
        if (!server.error || server.serverId === null) continue;
        seen.add(`${role} ${server.serverId}`);
        await this.#report(`${role} ${server.serverId}`, { serverId: server.serverId }, server.error);
      }
    }
    await this.#serversWork(seen);
    this.#forgetReports('mapping ', seen);
    this.#forgetReports('source', seen);
    this.#forgetReports('destination', seen);
  }

  async #failState(mappingUid: string, state: string | null, error: SluiceError): Promise<void> {
    if (state === 'paused' || state === 'gap') return;
    await this.#control.states
      .set(mappingUid, 'failed', {
        error: { code: error.code, message: error.message, hint: error.hint },
        retryInSeconds: null,
        personHash: REFUSED,
      })
      .catch((problem: unknown) => this.#logger.debug('state was not written', { error: problem }));
  }

  /** To the log and to error_logs, once until it changes or goes away. */
  async #report(key: string, where: { mappingId?: number; serverId?: number }, error: SluiceError): Promise<void> {
    const text = `${error.code} ${error.message}`;
    if (this.#reported.get(key) === text) return;
    this.#reported.set(key, text);
    this.#logger.error(key, { error });
    await this.#control.journal.error({ ...where, type: 'OTHER' }, error);
  }

  /** Servers that were reported and are understood now: their errors are resolved. A mapping's are when it runs. */
  async #serversWork(seen: ReadonlySet<string>): Promise<void> {
    for (const key of this.#reported.keys()) {
      const id = / server (\d+)$|_servers (\d+)$/.exec(key);
      if (id && !seen.has(key)) await this.#control.journal.resolveErrors({ serverId: Number(id[1] ?? id[2]) });
    }
  }

  #forgetReports(prefix: string, still: ReadonlySet<string>): void {
    for (const key of this.#reported.keys()) if (key.startsWith(prefix) && !still.has(key)) this.#reported.delete(key);
  }
}
