import type { BinaryLog } from './binary-log.ts';
import type { Session } from '../connection.ts';
import { mariaDbLog } from './mariadb-log.ts';
import { mysqlLog } from './mysql-log.ts';

/** The only place that tells whose log it is. */
export function binaryLogOf(session: Session): BinaryLog {
  return session.kind.isMariaDb ? mariaDbLog : mysqlLog;
}
