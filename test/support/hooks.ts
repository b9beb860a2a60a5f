import { stopMysql } from './mysql.ts';
import { stopTestServer } from './postgres.ts';
import { stopSqlServer } from './sqlserver.ts';

export const mochaHooks = {
  async afterAll(): Promise<void> {
    // Side by side: one that cannot be stopped must not leave the others running.
    await Promise.allSettled([stopSqlServer(), stopMysql(), stopTestServer()]);
  },
};
