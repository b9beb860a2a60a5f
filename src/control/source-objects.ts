/** What Sluice made on sources (invariant 10): recorded before it is made, removed after it is undone. */
import type { ControlContext } from './context.ts';

export interface RecordedObject {
  readonly serverId: number;
  readonly database: string;
  /** Slot, publication, capture instance …: the engine's word. */
  readonly kind: string;
  readonly name: string;
  /** Null: belongs to the stream. */
  readonly mappingUid: string | null;
  readonly stream: string | null;
  /** What a DBA runs to remove it by hand. */
  readonly dropSql: string | null;
}

interface ObjectRow {
  server_id: number;
  database_name: string;
  object_type: string;
  object_name: string;
  mapping_uid: string | null;
  stream: string | null;
  undo_sql: string | null;
}

export class SourceObjects {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /** Adds it, or brings its record up to date. Writes nothing when it is recorded as it is. */
  async upsert(object: RecordedObject): Promise<void> {
    const row = toRow(object);
    const { server_id, database_name, object_type, object_name, ...rest } = row;
    const identity = { server_id, database_name, object_type, object_name };
    await this.#context.run(`record the ${object.kind} ${object.name}`, async (queries) => {
      const made = await this.#context.dialect.insertMissing(
        queries,
        'source_objects',
        [{ ...row }],
        Object.keys(identity),
      );
      if (made > 0) return;
      const found = await queries<ObjectRow>('source_objects').where(identity).first();
      if (found && (Object.keys(rest) as (keyof typeof rest)[]).every((column) => found[column] === rest[column]))
        return;
      await queries('source_objects')
        .where(identity)
        .update({ ...rest, updated_at: this.#context.now(queries) });
    });
  }

  /** It is gone from the source. */
  async remove(object: Pick<RecordedObject, 'serverId' | 'database' | 'kind' | 'name'>): Promise<void> {
    await this.#context.run(`remove the record of the ${object.kind} ${object.name}`, (queries) =>
      queries('source_objects')
        .where({
          server_id: object.serverId,
          database_name: object.database,
          object_type: object.kind,
          object_name: object.name,
        })
        .delete(),
    );
  }

  async list(filter: { serverId?: number; mappingUid?: string; stream?: string } = {}): Promise<RecordedObject[]> {
    return this.#context.run('list what was made on sources', async (queries) => {
      const query = queries<ObjectRow>('source_objects').select('*').orderBy('object_id');
      if (filter.serverId !== undefined) void query.where('server_id', filter.serverId);
      if (filter.mappingUid !== undefined) void query.where('mapping_uid', filter.mappingUid);
      if (filter.stream !== undefined) void query.where('stream', filter.stream);
      return (await query).map(fromRow);
    });
  }
}

function toRow(object: RecordedObject): ObjectRow {
  return {
    server_id: object.serverId,
    database_name: object.database,
    object_type: object.kind,
    object_name: object.name,
    mapping_uid: object.mappingUid,
    stream: object.stream,
    undo_sql: object.dropSql,
  };
}

function fromRow(row: ObjectRow): RecordedObject {
  return {
    serverId: row.server_id,
    database: row.database_name,
    kind: row.object_type,
    name: row.object_name,
    mappingUid: row.mapping_uid,
    stream: row.stream,
    dropSql: row.undo_sql,
  };
}
