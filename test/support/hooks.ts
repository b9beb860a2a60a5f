import { runAtEnd } from './at-end.ts';
import { stopMysql } from './mysql.ts';
import { stretchTimeouts } from './patience.ts';
import { stopTestServer } from './postgres.ts';
import { recordStatements } from './sent-statements.ts';
import { stopSqlServer } from './sqlserver.ts';

export const mochaHooks = {
  beforeAll(this: Mocha.Context): void {
    recordStatements();
    const suite = this.test?.parent;
    if (suite) stretchTimeouts(suite);
  },
  async afterAll(): Promise<void> {
    await runAtEnd();
    // Side by side: one that cannot be stopped must not leave the others running.
    await Promise.allSettled([stopSqlServer(), stopMysql(), stopTestServer()]);
  },
};
