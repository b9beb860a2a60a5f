/** MariaDB, and in the long run MySQL itself, at both ends. */
import { MARIADB, MYSQL_ITSELF } from '../support/same-engine-pair.ts';
import { historySuite } from './history.suite.ts';
import { troubleSuite } from './trouble.suite.ts';

for (const under of process.env['SLUICE_TEST_LONG'] ? [MARIADB, MYSQL_ITSELF] : [MARIADB]) {
  historySuite(under);
  troubleSuite(under);
}
