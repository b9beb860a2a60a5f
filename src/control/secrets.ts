/**
 * Secrets in connection strings: references that are resolved when a connection is opened, and values encrypted at rest.
 * Nothing here ever puts a secret into a message (invariant 12).
 */
import { createCipheriv, createDecipheriv, randomBytes, scryptSync } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { SluiceError } from '../model/errors.ts';
import { isKeyValueString, quoteValue } from '../model/key-value-string.ts';
import { redact } from '../model/redact.ts';

const REFERENCE = /\$\{(env|file):([^}]+)\}/g;
const ENCRYPTED = /enc:v1:([A-Za-z0-9+/]+={0,2})/g;

const SALT_BYTES = 16;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export interface SecretSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  readFile(path: string): Promise<string>;
}

const PROCESS_SOURCES: SecretSources = {
  get env() {
    return process.env;
  },
  readFile: (path) => readFile(path, 'utf8'),
};

/**
 * Replaces `${env:NAME}`, `${file:/path}` and `enc:v1:…` by what they stand for. `enc:v1:` may be the whole string or stand
 * in its place within one. In a URL, what stands in the user-info part is percent-encoded, and in `server=…;password=…` a
 * reference that is a whole value is quoted, so that any character may be in a password; elsewhere, and where the reference
 * is the whole string, it is taken as it is.
 * Throws SECRET_UNREADABLE naming the reference, never the value.
 */
export async function resolveSecrets(text: string, sources: SecretSources = PROCESS_SOURCES): Promise<string> {
  const whole = /^\s*enc:v1:[A-Za-z0-9+/]+={0,2}\s*$/.test(text);
  // What was encrypted as a whole may itself hold references: it is a connection string like any other.
  const outer = whole ? decryptSecret(text.trim(), sources.env['SLUICE_SECRET_KEY']) : text;
  const userInfo = userInfoRange(outer);
  const hasPairs = isKeyValueString(outer);
  const pieces: string[] = [];
  let at = 0;
  for (const match of [...outer.matchAll(REFERENCE), ...outer.matchAll(ENCRYPTED)].sort((a, b) => a.index - b.index)) {
    const value = await valueOf(match, sources);
    const encode = userInfo !== null && match.index >= userInfo.from && match.index < userInfo.to;
    const end = match.index + match[0].length;
    const quote = hasPairs && /=\s*$/.test(outer.slice(at, match.index)) && /^\s*(;|$)/.test(outer.slice(end));
    pieces.push(outer.slice(at, match.index), encode ? encodeURIComponent(value) : quote ? quoteValue(value) : value);
    at = end;
  }
  return pieces.join('') + outer.slice(at);
}

/** The part between `://` and the last `@` before the path: references are skipped, they may hold any of these characters. */
function userInfoRange(text: string): { from: number; to: number } | null {
  const scheme = /^\s*[a-z][a-z0-9+.-]*:\/\//i.exec(text);
  if (!scheme) return null;
  const from = scheme[0].length;
  const hidden = text
    .replace(REFERENCE, (found) => '_'.repeat(found.length))
    .replace(ENCRYPTED, (f) => '_'.repeat(f.length));
  const end = /[/?#]/.exec(hidden.slice(from));
  const to = hidden.slice(0, end ? from + end.index : hidden.length).lastIndexOf('@');
  return to < from ? null : { from, to };
}

async function valueOf(match: RegExpMatchArray, sources: SecretSources): Promise<string> {
  const [found, kind, name] = match;
  if (found.startsWith('enc:')) return decryptSecret(found, sources.env['SLUICE_SECRET_KEY']);
  if (kind === 'env') {
    const value = sources.env[name ?? ''];
    if (value === undefined) {
      throw new SluiceError('SECRET_UNREADABLE', `the environment variable of ${found} is not set`, {
        hint: `Set ${name ?? ''} in the environment of the service and start it again.`,
      });
    }
    return value;
  }
  try {
    return (await sources.readFile(name ?? '')).replace(/\r?\n$/, '');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new SluiceError('SECRET_UNREADABLE', `the file of ${found} cannot be read (${code ?? 'unknown'})`, {
      hint: 'Check that the file exists and that the service may read it.',
    });
  }
}

/**
 * AES-256-GCM. Layout after the prefix, base64: salt (16) · nonce (12) · tag (16) · ciphertext. A key of 32 bytes (64 hex
 * digits, or base64) is used as it is; anything else is a passphrase, stretched by scrypt with the value's own salt.
 */
export function encryptSecret(plain: string, secretKey: string | undefined): string {
  const salt = randomBytes(SALT_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keyFrom(secretKey, salt), nonce);
  const body = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()]);
  return `enc:v1:${Buffer.concat([salt, nonce, cipher.getAuthTag(), body]).toString('base64')}`;
}

/** Throws SECRET_UNREADABLE when the key is missing or another one, or the value was altered. */
export function decryptSecret(value: string, secretKey: string | undefined): string {
  const bytes = Buffer.from(value.replace(/^enc:v1:/, ''), 'base64');
  const head = SALT_BYTES + NONCE_BYTES;
  if (!value.startsWith('enc:v1:') || bytes.length < head + TAG_BYTES) {
    throw new SluiceError('SECRET_UNREADABLE', 'an enc:v1: value is cut short', {
      hint: 'Encrypt the secret again and paste the whole value.',
    });
  }
  const key = keyFrom(secretKey, bytes.subarray(0, SALT_BYTES));
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(SALT_BYTES, head));
    decipher.setAuthTag(bytes.subarray(head, head + TAG_BYTES));
    return decipher.update(bytes.subarray(head + TAG_BYTES), undefined, 'utf8') + decipher.final('utf8');
  } catch {
    throw new SluiceError('SECRET_UNREADABLE', 'an enc:v1: value does not open with this SLUICE_SECRET_KEY', {
      hint: 'Use the key it was encrypted with, or encrypt the secret again.',
    });
  }
}

function keyFrom(secretKey: string | undefined, salt: Uint8Array): Buffer {
  if (!secretKey) {
    throw new SluiceError('SECRET_UNREADABLE', 'SLUICE_SECRET_KEY is not set, and an enc:v1: value needs it', {
      hint: 'Set SLUICE_SECRET_KEY to 32 bytes in hex or base64, or to a passphrase.',
    });
  }
  if (/^[0-9a-f]{64}$/i.test(secretKey)) return Buffer.from(secretKey, 'hex');
  if (/^[A-Za-z0-9+/]{43}=$/.test(secretKey)) return Buffer.from(secretKey, 'base64');
  return scryptSync(secretKey, salt, 32, { N: 16384, r: 8, p: 1 });
}

/** What may be stored as a message: no passwords, no NUL (databases refuse it), and not without end. */
export function storable(text: string): string {
  const clean = redact(text).replaceAll('\0', '');
  return clean.length > 8000 ? `${clean.slice(0, 8000)}…` : clean;
}
