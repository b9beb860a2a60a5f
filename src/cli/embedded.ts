/** `sluice run --embedded`: a PostgreSQL of our own under ./.sluice/, on the same port every time, so that its URL stays good. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { freePort, startEmbeddedPostgres, type EmbeddedPostgres } from '../embedded/postgres.ts';
import { SluiceError } from '../model/errors.ts';

/** Starts it, or says why not. One process at a time: the second finds the data directory in use. */
export async function startUnder(directory: string): Promise<EmbeddedPostgres> {
  const folder = path.join(directory, '.sluice');
  mkdirSync(folder, { recursive: true });
  const portFile = path.join(folder, 'port');
  const port = existsSync(portFile) ? Number(readFileSync(portFile, 'utf8')) : await freePort();
  try {
    const server = await startEmbeddedPostgres({
      directory: path.join(folder, 'postgres'),
      port,
      // Its own tables may be a source as well.
      settings: { wal_level: 'logical', max_connections: '200' },
    });
    writeFileSync(portFile, String(port));
    return server;
  } catch (cause) {
    throw new SluiceError(
      'SERVER_UNREACHABLE',
      `the embedded PostgreSQL under ${folder} did not start: ${lastLine(cause)}`,
      {
        hint: `See ${path.join(folder, 'postgres', 'server.log')}. Another sluice run --embedded may be using it, or another program its port ${port}; delete ${portFile} for a new port.`,
        cause,
      },
    );
  }
}

function lastLine(thrown: unknown): string {
  return (thrown instanceof Error ? thrown.message : String(thrown)).trim().split('\n').pop() ?? '';
}
