import { startMariaDb, startMysqlItself } from '../support/mysql-servers.ts';
import { writeFileSync } from 'node:fs';
const a = await startMariaDb();
const b = await startMysqlItself();
writeFileSync('/tmp/attack3-env', `export TEST_MYSQL_URL=${a.server.url}\nexport TEST_MYSQL8_URL=${b.server.url}\n`);
console.log(a.server, b.server);
const end = async () => { await a.stop(); await b.stop(); process.exit(0); };
process.on('SIGTERM', () => void end());
setInterval(() => undefined, 60000);
