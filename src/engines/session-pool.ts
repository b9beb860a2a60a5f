/** Sessions to one database, whatever the engine: a few kept for short queries, and sessions of their own for whoever opens them. */
import { SluiceError } from '../model/errors.ts';

export interface PooledSession {
  /** Set once the connection is gone. */
  readonly lost: Error | null;
  /** Calls `listener` when the connection has ended, for whatever reason. */
  onEnd(listener: () => void): void;
  end(): Promise<void>;
  /** Without goodbye: what was in flight is rolled back by the server. */
  destroy(): void;
}

export class SessionPool<S extends PooledSession> {
  readonly #database: string;
  readonly #maxIdle: number;
  readonly #sessions = new Set<S>();
  readonly #idle: S[] = [];
  #closed = false;

  /** `maxIdle`: sessions kept for `use`. `database`: for messages. */
  constructor(database: string, maxIdle: number) {
    this.#database = database;
    this.#maxIdle = maxIdle;
  }

  /** A session of the caller's own; end it with `release`. */
  async open(connect: () => Promise<S>): Promise<S> {
    this.#check();
    const session = await connect();
    if (this.#closed) session.destroy();
    this.#check();
    this.#sessions.add(session);
    session.onEnd(() => this.#sessions.delete(session));
    return session;
  }

  async release(session: S): Promise<void> {
    this.#sessions.delete(session);
    await session.end();
  }

  /** A kept session, or a new one: the caller's until `giveBack`, as it was taken, or `release`. */
  async take(connect: () => Promise<S>): Promise<S> {
    let session = this.#idle.pop();
    while (session?.lost) session = this.#idle.pop();
    return session ?? this.open(connect);
  }

  async giveBack(session: S): Promise<void> {
    // Two users of one session would be in each other's transactions.
    if (this.#idle.includes(session)) throw new SluiceError('INTERNAL', 'a session was given back twice');
    if (this.#closed || session.lost || this.#idle.length >= this.#maxIdle) await this.release(session);
    else this.#idle.push(session);
  }

  /** Runs `work` on a kept session, or a new one. A session that failed is not used again. */
  async use<T>(connect: () => Promise<S>, work: (session: S) => Promise<T>): Promise<T> {
    const session = await this.take(connect);
    try {
      const result = await work(session);
      await this.giveBack(session);
      return result;
    } catch (error) {
      await this.release(session);
      throw error;
    }
  }

  /** Ends every session, those in use included. Safe to call twice. */
  close(): void {
    this.#closed = true;
    this.#idle.length = 0;
    for (const session of [...this.#sessions]) session.destroy();
    this.#sessions.clear();
  }

  #check(): void {
    if (this.#closed) throw new SluiceError('CONNECTION_LOST', `database ${this.#database}: already closed`);
  }
}
