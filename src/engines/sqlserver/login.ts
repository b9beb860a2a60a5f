/** What tedious, the driver of SQL Server, is told so that it reaches an address: once, for the engine and for the control database. */
import { readFileSync } from 'node:fs';
import { SluiceError } from '../../model/errors.ts';
import type { SqlServerAddress } from './address.ts';

/** Throws MAPPING_INVALID when the CA file cannot be read. `database` null: the login's default one. */
export function sqlServerLogin(address: SqlServerAddress, database: string | null) {
  const login = { userName: address.user ?? '', password: address.password ?? '' };
  const named = address.port === null && address.instance !== null;
  return {
    server: address.host,
    authentication:
      address.domain === null
        ? { type: 'default' as const, options: login }
        : { type: 'ntlm' as const, options: { ...login, domain: address.domain } },
    options: {
      ...(named ? { instanceName: address.instance ?? undefined } : { port: address.port ?? 1433 }),
      ...(database === null ? {} : { database }),
      encrypt: address.encrypt,
      trustServerCertificate: address.trustServerCertificate,
      ...(address.certificateHost === null ? {} : { serverName: address.certificateHost }),
      ...(address.caFile === null ? {} : { cryptoCredentialsDetails: { ca: readCertificate(address.caFile) } }),
      readOnlyIntent: address.readOnlyIntent,
      multiSubnetFailover: address.multiSubnetFailover,
      connectTimeout: address.connectTimeoutMs,
      useUTC: true,
      useColumnNames: false,
      rowCollectionOnDone: false,
      rowCollectionOnRequestCompletion: false,
      // XACT_ABORT: an error never leaves a transaction half done.
      abortTransactionOnError: true,
      // Ours waits and tries again where it should, and says so.
      maxRetriesOnTransientErrors: 0,
    },
  };
}

/** As much of the driver's connection as is needed to look before the login leaves. */
interface BeforeLogin {
  messageIo?: { tlsNegotiationComplete: boolean };
  sendLogin7Packet: () => void;
}

/**
 * The driver goes on in plain text when the server says that it has no TLS (tedious 19, performTlsNegotiation), and anybody on the
 * way could say so for it. With encryption asked for, this ends the attempt before the login, and with it the password, is sent.
 * To be called before `connect`.
 */
export function requireTls(driver: object, encrypt: boolean | 'strict'): void {
  if (encrypt !== true) return; // 'strict' begins with TLS
  const connection = driver as BeforeLogin;
  const send = connection.sendLogin7Packet.bind(connection);
  connection.sendLogin7Packet = () => {
    if (connection.messageIo?.tlsNegotiationComplete !== true)
      throw Object.assign(new Error('the server offers no TLS, and encryption was asked for'), { code: 'EENCRYPT' });
    send();
  };
}

/** `host,port` or `host\instance`, for messages. */
export function placeOf(address: SqlServerAddress): string {
  const { host, port, instance } = address;
  return instance !== null && port === null ? `${host}\\${instance}` : `${host},${port ?? 1433}`;
}

function readCertificate(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SluiceError('MAPPING_INVALID', 'the certificate file of the connection string cannot be read', {
      hint: 'certificate= names a PEM file that this process can read.',
      cause,
    });
  }
}
