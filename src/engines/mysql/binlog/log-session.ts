/** Sessions that are sent the binary log, as a replica's are. */
import { SluiceError } from '../../../model/errors.ts';
import { BinlogConnection } from './connection.ts';
import type { Connection, Session } from '../connection.ts';
import { binaryLogOf } from './log-of-server.ts';

/** The server sends a heartbeat when it has nothing else, ms. */
const HEARTBEAT_MS = 2_000;
/** A server that says nothing for so long although it promised heartbeats is lost, ms. */
const SILENCE_MS = 60_000;

/** From now on the session is for the log only. */
export async function askForLog(session: Session, command: (slaveId: number) => Buffer): Promise<BinlogConnection> {
  await session.run('set up the reader of the binary log', binaryLogOf(session).setUp(HEARTBEAT_MS));
  const connection = new BinlogConnection(session, 'read the binary log');
  connection.start(command(slaveId()));
  return connection;
}

/** A reader that is gone is noticed with the next heartbeat only, and its file could not be purged until then. */
export async function leaveLog(connection: Connection, session: Session): Promise<void> {
  const { id } = session;
  session.destroy();
  await connection.release(session);
  await connection.query('end the reader', `KILL CONNECTION ${id}`).catch(() => undefined);
}

export function checkSilence(connection: BinlogConnection): void {
  if (performance.now() - connection.heardAt <= SILENCE_MS) return;
  connection.session.destroy();
  throw new SluiceError(
    'CONNECTION_LOST',
    `the source has sent nothing of its binary log for ${Math.round(SILENCE_MS / 1000)} s`,
  );
}

/** Each reader announces another replica: two of one number would end each other. */
function slaveId(): number {
  return 0x8000_0000 + Math.floor(Math.random() * 0x7fff_fffe);
}
