/** What sources say of the change streams that are read from them: one row a stream, written by who reads it. */
import type { ErrorCode, SluiceError } from '../model/errors.ts';
import type { ControlContext } from './context.ts';
import { storable } from './secrets.ts';

export interface StreamHealthRow {
  /** How long ago the newest commit was that the source's capture job has recorded; null: it has no such job, or has recorded nothing. */
  readonly captureLagSeconds: number | null;
  readonly headroomSeconds: number | null;
  readonly headroomBytes: number | null;
  /** Why nothing is captured. */
  readonly fault: SluiceError | null;
}

const TABLE = 'stream_health';

export class StreamHealths {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /** Replaces the stream's row. Call it when something has changed (invariant 13). */
  async write(
    stream: string,
    { captureLagSeconds, headroomSeconds, headroomBytes, fault }: StreamHealthRow,
  ): Promise<void> {
    await this.#context.run('write the health of a stream', async (queries) => {
      const { dialect } = this.#context;
      const now = this.#context.now(queries);
      const row = {
        // By this database's clock, as everything a view counts from.
        last_captured_at: captureLagSeconds === null ? null : dialect.inSeconds(queries, -captureLagSeconds),
        retention_headroom_seconds: headroomSeconds,
        retention_headroom_bytes: headroomBytes === null ? null : Math.round(headroomBytes),
        error_code: fault?.code ?? null,
        error_message: fault === null ? null : storable(fault.message),
        error_hint: fault?.hint ? storable(fault.hint) : null,
        updated_at: now,
      };
      const update = () => dialect.updateRows(queries(TABLE).where({ stream }), row, 'stream');
      if ((await update()) > 0) return;
      await dialect.insertMissing(queries, TABLE, [{ stream }], ['stream']);
      await update();
    });
  }

  /** The code of what was last said to keep the stream from capturing; null: nothing. */
  async faultOf(stream: string): Promise<ErrorCode | null> {
    return this.#context.run('read the health of a stream', async (queries) => {
      const row = await queries(TABLE)
        .where({ stream })
        .first<{ error_code: ErrorCode | null } | undefined>('error_code');
      return row?.error_code ?? null;
    });
  }
}
