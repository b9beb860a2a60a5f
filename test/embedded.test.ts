import { expect } from 'chai';
import { createDatabase } from './support/postgres.ts';

describe('embedded PostgreSQL', () => {
  it('serves a database of its own, at wal_level logical', async () => {
    const database = await createDatabase();
    try {
      const rows = await database.query('SELECT current_database() AS name, current_setting($1) AS level', [
        'wal_level',
      ]);
      expect(rows).to.deep.equal([{ name: database.name, level: 'logical' }]);
    } finally {
      await database.drop();
    }
  });
});
