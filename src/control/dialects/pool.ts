/** The pool of sessions under every dialect: knex over an engine's client, silent and without secrets in its errors. */
import type { Socket } from 'node:net';
import knexModule, { type Knex } from 'knex';
import type { ControlOptions } from '../context.ts';

const { knex: makeKnex } = knexModule;

/** A pool that has answered once. `afterCreate`: what a new session begins with, where the client does not do it itself. */
export async function openPool(
  options: ControlOptions,
  client: string | typeof Knex.Client,
  connection: object,
  afterCreate?: Knex.PoolConfig['afterCreate'],
): Promise<Knex> {
  const knex = makeKnex({
    client,
    connection: connection as Knex.StaticConnectionConfig,
    // Its message would carry the bound values (invariant 12).
    compileSqlOnError: false,
    // Whatever it would print on its own reaches the caller as a rejection, classified and without secrets.
    log: { warn: quiet, error: quiet, debug: quiet, deprecate: quiet },
    acquireConnectionTimeout: options.timeoutMs ?? 15_000,
    pool: {
      min: 0,
      max: options.maxConnections ?? 4,
      idleTimeoutMillis: 60_000,
      ...(afterCreate === undefined ? {} : { afterCreate }),
    },
  });
  try {
    await knex.raw('SELECT 1 AS one');
    return knex;
  } catch (error) {
    await knex.destroy().catch(() => undefined);
    throw error;
  }
}

/** The socket is given up once nothing has arrived on it for that long; 0: never. */
export function impatient(socket: Socket, silenceMs: number): Socket {
  if (silenceMs > 0)
    socket.setTimeout(silenceMs, () =>
      socket.destroy(new Error(`Connection terminated: no answer for ${silenceMs} ms`)),
    );
  return socket;
}

function quiet(): void {}
