/** Sessions of one database, whatever the engine: a few idle ones for short queries, others for whoever opens them. */
import { SluiceError } from '../model/errors.ts';

export interface PooledSession {
  /** Set once the connection is gone. */
  readonly lost: Error | null;
  end(): Promise<void>;
  /** Without goodbye. */
  destroy(): void;
}

export class SessionPool<S extends PooledSession> {
  readonly #connect: () => Promise<S>;
  readonly #what: string;
  readonly #maxIdle: number;
  readonly #sessions = new Set<S>();
  readonly #idle: S[] = [];
  #closed = false;

  /** `what` names the database in errors. */
  constructor(connect: () => Promise<S>, what: string, maxIdle: number) {
    this.#connect = connect;
    this.#what = what;
    this.#maxIdle = maxIdle;
  }

  /** A session of the caller's own; end it with `release`. */
  async open(): Promise<S> {
    if (this.#closed) throw this.#over();
    const session = await this.#connect();
    if (this.#closed) {
      session.destroy();
      throw this.#over();
    }
    this.#sessions.add(session);
    return session;
  }

  async release(session: S): Promise<void> {
    this.#sessions.delete(session);
    await session.end();
  }

  /** Runs `work` on a pooled session: for short queries. A session that failed is not used again. */
  async use<T>(work: (session: S) => Promise<T>): Promise<T> {
    let session = this.#idle.pop();
    while (session?.lost) {
      this.#sessions.delete(session);
      session = this.#idle.pop();
    }
    session ??= await this.open();
    try {
      const result = await work(session);
      if (this.#closed || session.lost || this.#idle.length >= this.#maxIdle) await this.release(session);
      else this.#idle.push(session);
      return result;
    } catch (error) {
      await this.release(session);
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#idle.length = 0;
    for (const session of [...this.#sessions]) session.destroy();
    this.#sessions.clear();
  }

  #over(): SluiceError {
    return new SluiceError('CONNECTION_LOST', `${this.#what}: already closed`);
  }
}
