/** What mysql2, the driver of MySQL and MariaDB, is told so that it reaches an address: once, for the engine and for the control database. */
import { readFileSync } from 'node:fs';
import type mysql from 'mysql2';
import { SluiceError } from '../../model/errors.ts';
import type { MysqlAddress } from './address.ts';

/** `database` null: none is chosen. Without TLS: see `tlsOptions`. */
export function mysqlLogin(
  address: MysqlAddress,
  database: string | null,
  applicationName: string,
): mysql.ConnectionOptions {
  return {
    ...(address.socket === null ? { host: address.host, port: address.port } : { socketPath: address.socket }),
    ...(address.user === null ? {} : { user: address.user }),
    ...(address.password === null ? {} : { password: address.password }),
    ...(database === null ? {} : { database }),
    connectAttributes: { program_name: applicationName },
    connectTimeout: address.connectTimeoutMs,
    enableKeepAlive: true,
    keepAliveInitialDelay: 30_000,
    charset: 'UTF8MB4_BIN',
    timezone: 'Z',
    supportBigNumbers: true,
    bigNumberStrings: true,
    // Rows found, not rows changed: an update to equal values is an update.
    flags: ['FOUND_ROWS'],
  };
}

/** Throws MAPPING_INVALID when a file cannot be read. */
export function tlsOptions(address: MysqlAddress): mysql.SslOptions {
  const isVerified = address.sslMode === 'verify_ca' || address.sslMode === 'verify_identity';
  return {
    rejectUnauthorized: isVerified,
    verifyIdentity: address.sslMode === 'verify_identity',
    ...(address.caFile === null ? {} : { ca: readPem(address.caFile, 'ssl-ca') }),
    ...(address.certificateFile === null ? {} : { cert: readPem(address.certificateFile, 'ssl-cert') }),
    ...(address.keyFile === null ? {} : { key: readPem(address.keyFile, 'ssl-key') }),
  };
}

function readPem(file: string, parameter: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SluiceError('MAPPING_INVALID', `the file that ${parameter} names cannot be read`, {
      hint: 'It names a PEM file that this process can read.',
      cause,
    });
  }
}
