/** Opens the control database: finds the engine by the URL's scheme, checks that the server answers, closes. */
import { SluiceError } from '../model/errors.ts';
import { ControlContext, type ControlDialect, type ControlOptions } from './context.ts';
import { mysqlDialect } from './dialects/mysql.ts';
import { postgresDialect } from './dialects/postgres.ts';
import { sqlserverDialect } from './dialects/sqlserver.ts';
import { resolveSecrets } from './secrets.ts';

const DIALECTS: readonly ControlDialect[] = [postgresDialect, sqlserverDialect, mysqlDialect];

export const DEFAULT_CONTROL_DATABASE = 'sluice';

/**
 * Connects once before it resolves, and creates the database when it is missing and the login may. Rejects with
 * DESTINATION_MISSING (no URL), ENGINE_UNKNOWN, CONFIG_INVALID, SECRET_UNREADABLE, LOGIN_FAILED, TLS_FAILED,
 * PERMISSION_DENIED, or CONTROL_UNREACHABLE, which a service waits out.
 */
export async function openContext(options: Partial<ControlOptions> & { url: string }): Promise<ControlContext> {
  if (!options.url) {
    throw new SluiceError('DESTINATION_MISSING', 'no destination is configured', {
      hint: 'Set DEST_URL, for example postgres://user:${env:PASSWORD}@host:5432/, or start with --embedded.',
    });
  }
  const url = await resolveSecrets(options.url);
  const dialect = dialectOf(url);
  const knex = await dialect.open({ ...options, url, database: options.database || DEFAULT_CONTROL_DATABASE });
  return new ControlContext(knex, dialect);
}

function dialectOf(url: string): ControlDialect {
  const scheme = /^\s*([a-z][a-z0-9+.-]*):\/\//i.exec(url)?.[1]?.toLowerCase();
  const found = DIALECTS.find(
    (dialect) => (scheme !== undefined && dialect.schemes.includes(scheme)) || dialect.understands?.(url),
  );
  if (found) return found;
  const known = DIALECTS.flatMap((dialect) => dialect.schemes.map((each) => `${each}://`)).join(', ');
  throw new SluiceError(
    'ENGINE_UNKNOWN',
    `the control database cannot live at ${scheme ? `${scheme}://` : 'this URL'}`,
    {
      hint: `DEST_URL starts with one of ${known}.`,
    },
  );
}

/** One round trip: the server answers and the tables are there. Rejects with CONTROL_UNREACHABLE and the like. */
export async function checkHealth(context: ControlContext): Promise<{ migrated: boolean; roundTripMs: number }> {
  const before = performance.now();
  const migrated = await context.run('reach the control database', (queries) => context.dialect.hasSchema(queries));
  return { migrated, roundTripMs: performance.now() - before };
}
