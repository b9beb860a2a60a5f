/**
 * What a SQL Server says until the login: PRELOGIN, then TLS inside of PRELOGIN packets (MS-TDS 2.2.6.5), with a certificate that
 * nobody vouches for, as a fresh installation has one. Nobody who looks at certificates gets further.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';

const PRELOGIN = 0x12;
const RESPONSE = 0x04;
const HEADER_BYTES = 8;

/** Options VERSION and ENCRYPTION (1: on), each a place and a length, then their values. */
const ANSWER = Buffer.from([0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 15, 0, 0, 0, 0, 0, 1]);

export interface TlsOnlyServer {
  readonly port: number;
  /** Clients that went on after they had seen the certificate. */
  readonly logins: () => number;
  stop(): Promise<void>;
}

/** Null: there is no openssl to make a certificate with. */
export async function startTlsOnlyServer(): Promise<TlsOnlyServer | null> {
  const secret = makeCertificate();
  if (secret === null) return null;
  const sockets = new Set<Socket>();
  let logins = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => undefined);
    let tunnel: Duplex | null = null;
    onPackets(socket, (body) => {
      if (tunnel) tunnel.push(body);
      else {
        tunnel = new Duplex({
          read: () => undefined,
          write: (chunk: Buffer, _encoding, done) => {
            socket.write(packet(PRELOGIN, chunk), done);
          },
        });
        socket.write(packet(RESPONSE, ANSWER));
        const secure = new TLSSocket(tunnel, { isServer: true, ...secret });
        // With TLS 1.3 this side is done before the other has looked: what counts is that something is said.
        secure.on('data', () => logins++).on('error', () => undefined);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    logins: () => logins,
    stop: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => {
          resolve();
        });
      }),
  };
}

function onPackets(socket: Socket, take: (body: Buffer) => void): void {
  let waiting = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    waiting = Buffer.concat([waiting, chunk]);
    while (waiting.length >= HEADER_BYTES && waiting.length >= waiting.readUInt16BE(2)) {
      const length = waiting.readUInt16BE(2);
      take(Buffer.from(waiting.subarray(HEADER_BYTES, length)));
      waiting = waiting.subarray(length);
    }
  });
}

function packet(type: number, body: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt8(type, 0);
  header.writeUInt8(1, 1); // the last of its message
  header.writeUInt16BE(HEADER_BYTES + body.length, 2);
  return Buffer.concat([header, body]);
}

function makeCertificate(): { key: Buffer; cert: Buffer } | null {
  const home = mkdtempSync(path.join(tmpdir(), 'sluice-certificate-'));
  const [key, cert] = [path.join(home, 'key.pem'), path.join(home, 'cert.pem')];
  try {
    const subject = ['-subj', '/CN=SSL_Self_Signed_Fallback', '-days', '1'];
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert, ...subject],
      {
        stdio: 'ignore',
      },
    );
    return { key: readFileSync(key), cert: readFileSync(cert) };
  } catch {
    return null;
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}
