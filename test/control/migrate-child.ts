/**
 * A process of its own for the migration tests: `migrate-child.ts <url> <database> <mode>`. Mode `hang` stops for ever in
 * the middle of migration 2, after its first statement, and says so; mode `run` migrates and prints what it applied.
 */
import { ControlDatabase } from '../../src/control/index.ts';
import { loadMigrations } from '../../src/control/migrate.ts';
import { NEXT_VERSION } from './next-version.ts';

const [url, database, mode] = process.argv.slice(2);
if (!url || !database) throw new Error('usage: migrate-child.ts <url> <database> <mode>');

const hanging = {
  ...NEXT_VERSION,
  up: async (queries: Parameters<typeof NEXT_VERSION.up>[0]) => {
    await NEXT_VERSION.up(queries);
    process.stdout.write('hanging\n');
    setInterval(() => undefined, 1000);
    await new Promise(() => undefined);
  },
};

const control = await ControlDatabase.open({ url, database }, [
  ...(await loadMigrations()),
  mode === 'hang' ? hanging : NEXT_VERSION,
]);
const result = await control.migrate();
process.stdout.write(`${JSON.stringify(result)}\n`);
await control.close();
