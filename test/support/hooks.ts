import { stopTestServer } from './postgres.ts';

export const mochaHooks = {
  async afterAll(): Promise<void> {
    await stopTestServer();
  },
};
