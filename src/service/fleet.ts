/** Open handles to every server and database the control tables name: one each, shared by streams, copies and verifications. */
import { createHash } from 'node:crypto';
import type { EngineDatabase, Installation } from '../engines/contract.ts';
import { engineOf } from '../engines/registry.ts';
import { toSluiceError, type SluiceError } from '../model/errors.ts';

/** A server of the control tables with its secrets resolved, or why that failed. */
export interface ResolvedServer {
  readonly serverId: number | null;
  readonly name: string;
  readonly enabled: boolean;
  readonly connectionString: string;
  readonly error: SluiceError | null;
}

export interface Place {
  readonly server: ResolvedServer;
  readonly database: string;
}

/** Where a change stream is read: a database, or (null) the server with all its databases. */
export interface StreamPlace {
  readonly server: ResolvedServer;
  readonly database: string | null;
}

/** For messages. */
export function displayPlace({ server, database }: StreamPlace): string {
  return database === null ? `source ${server.name}` : `source ${server.name}, database ${database}`;
}

export class Fleet {
  readonly #installation: Installation;
  readonly #open = new Map<string, EngineDatabase>();

  constructor(installation: Installation) {
    this.#installation = installation;
  }

  /** The handle of a database, or of a server for its stream; made when first asked for, anew when the connection string changed. Does not connect. */
  database(place: StreamPlace): EngineDatabase {
    const key = keyOf(place);
    let handle = this.#open.get(key);
    if (!handle) {
      handle = engineOf(place.server.connectionString).open({
        connectionString: place.server.connectionString,
        database: place.database,
        serverWide: place.database === null,
        installation: this.#installation,
        applicationName: `sluice ${process.pid}`,
      });
      this.#open.set(key, handle);
    }
    return handle;
  }

  /** Closes handles that nothing wanted refers to any more (a changed connection string, a deleted server). */
  async keep(wanted: readonly StreamPlace[]): Promise<void> {
    const keys = new Set(wanted.map(keyOf));
    const gone = [...this.#open].filter(([key]) => !keys.has(key));
    for (const [key, handle] of gone) {
      this.#open.delete(key);
      await handle.close();
    }
  }

  async close(): Promise<void> {
    const handles = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(handles.map((handle) => handle.close()));
  }
}

/** Checks the connection string with its engine; an error belongs to the server's row. */
export function checkServer(server: Omit<ResolvedServer, 'error'>): ResolvedServer {
  try {
    engineOf(server.connectionString).check(server.connectionString);
    return { ...server, error: null };
  } catch (error) {
    return { ...server, error: toSluiceError(error) };
  }
}

function keyOf(place: StreamPlace): string {
  return `${createHash('sha256').update(place.server.connectionString).digest('hex')} ${JSON.stringify(place.database)}`;
}
