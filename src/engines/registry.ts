/** The engines of this build. Adding one: its folder, and a line here. */
import { SluiceError } from '../model/errors.ts';
import type { Engine } from './contract.ts';
import { mysql } from './mysql/index.ts';
import { postgres } from './postgres/index.ts';
import { sqlserver } from './sqlserver/index.ts';

const ENGINES: readonly Engine[] = [postgres, sqlserver, mysql];

/** The engine of a connection string, by its scheme or its form. Throws ENGINE_UNKNOWN; the message holds nothing of the string but the scheme. */
export function engineOf(connectionString: string): Engine {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(connectionString.trim())?.[1]?.toLowerCase() ?? '';
  const engine = ENGINES.find(
    (candidate) =>
      candidate.schemes.includes(scheme) || (scheme === '' && candidate.understands?.(connectionString) === true),
  );
  if (engine) return engine;
  const known = ENGINES.flatMap((each) => each.schemes.map((name) => `${name}://`)).join(', ');
  throw new SluiceError(
    'ENGINE_UNKNOWN',
    scheme ? `no engine for ${scheme}://` : 'the connection string has no scheme',
    {
      hint: `This build knows ${known}.`,
    },
  );
}
