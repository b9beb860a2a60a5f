import { stopMysql } from './mysql.ts';
import { stopTestServer } from './postgres.ts';
import { stopSqlServer } from './sqlserver.ts';

export const mochaHooks = {
  async afterAll(): Promise<void> {
    await stopSqlServer();
    await stopMysql();
    await stopTestServer();
  },
};
