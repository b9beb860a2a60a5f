/** What is told of a mapping while it is worked on: its state, errors, findings, and objects made at its source. */
import type { ControlDatabase, MappingStateName } from '../control/index.ts';
import { hasCode, SluiceError } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import type { PlannedMapping } from './planner.ts';

export class MappingNotes {
  readonly #control: ControlDatabase;
  readonly #lastFindings = new Map<string, string>();

  constructor(control: ControlDatabase) {
    this.#control = control;
  }

  /** The state, and where the mapping is placed while it is in it. */
  async setState(
    mapping: PlannedMapping,
    state: MappingStateName,
    details: Parameters<ControlDatabase['states']['set']>[2] = {},
  ): Promise<void> {
    await this.#control.states.set(mapping.row.mappingUid, state, {
      personHash: mapping.row.personHash,
      serverId: mapping.row.serverId,
      destServerId: mapping.row.destServerId,
      destDatabase: mapping.destination.database,
      stream: mapping.stream,
      applyGroup: mapping.group,
      ...details,
    });
  }

  /** Into `error_logs`, with the mapping named. True: not the error it had already. */
  async error(mapping: PlannedMapping, error: SluiceError): Promise<boolean> {
    const message = error.message.startsWith('mapping ') ? error.message : `${mapping.label}: ${error.message}`;
    const type = hasCode(error, 'SCHEMA_MISMATCH', 'KEY_REQUIRED', 'KEY_INVALID', 'SCHEMA_CHANGED') ? 'SCHEMA' : 'SYNC';
    return this.#control.journal.error(
      { mappingId: mapping.row.mappingId, type },
      new SluiceError(error.code, message, { hint: error.hint ?? undefined, retry: error.retry }),
    );
  }

  /** One line per finding; an unchanged list is not written twice within the process. */
  async findings(mapping: PlannedMapping, findings: readonly Finding[]): Promise<void> {
    const text = JSON.stringify(findings);
    if (findings.length === 0 || this.#lastFindings.get(mapping.row.mappingUid) === text) return;
    this.#lastFindings.set(mapping.row.mappingUid, text);
    await this.#control.journal.log(
      findings.map((finding) => ({
        mappingId: mapping.row.mappingId,
        level: ({ error: 'ERROR', warning: 'WARNING', info: 'INFO' } as const)[finding.severity],
        message: finding.message,
        syncType: 'SCHEMA_CHECK' as const,
        errorCode: finding.code,
        ...(finding.fixSql.length > 0 ? { details: finding.fixSql.join(';\n') } : {}),
      })),
    );
  }

  async sourceObjects(
    mapping: PlannedMapping,
    objects: readonly { kind: string; name: string; dropSql: string }[],
  ): Promise<void> {
    for (const object of objects) {
      await this.#control.sourceObjects.upsert({
        serverId: mapping.row.serverId,
        database: mapping.source.database,
        kind: object.kind,
        name: object.name,
        mappingUid: null,
        stream: mapping.stream,
        dropSql: object.dropSql,
      });
    }
  }
}
