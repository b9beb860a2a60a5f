import { expect } from 'chai';
import { randomBytes } from 'node:crypto';
import { decryptSecret, encryptSecret, resolveSecrets } from '../../src/control/secrets.ts';
import { redact } from '../../src/model/redact.ts';
import { parseSqlServerAddress } from '../../src/engines/sqlserver/address.ts';
import { rejection } from './support.ts';

const AWKWARD = 'p@ss/w:ord?#%[]{} "\'ü&=;';

const sources = (env: Record<string, string> = {}, files: Record<string, string> = {}) => ({
  env,
  readFile: async (path: string) => {
    const found = files[path];
    if (found === undefined) throw Object.assign(new Error('ENOENT: /etc/x'), { code: 'ENOENT' });
    return found;
  },
});

describe('control: secrets', () => {
  it('puts any character safely into the password of a URL', async () => {
    const url = await resolveSecrets(
      'postgres://${env:USER}:${env:PW}@host:5432/db',
      sources({ USER: 'a b', PW: AWKWARD }),
    );
    const parsed = new URL(url);
    expect(decodeURIComponent(parsed.password)).to.equal(AWKWARD);
    expect(decodeURIComponent(parsed.username)).to.equal('a b');
    expect(parsed.host).to.equal('host:5432');
  });

  it('takes references elsewhere as they are, and reads files without their last line end', async () => {
    const files = { '/run/secrets/pw': `${AWKWARD}\n`, '/etc/url': 'postgres://h/db\r\n' };
    expect(await resolveSecrets('${file:/etc/url}', sources({}, files))).to.equal('postgres://h/db');
    expect(await resolveSecrets('postgres://h/${env:DB}?a=1', sources({ DB: 'shop' }))).to.equal(
      'postgres://h/shop?a=1',
    );
    const url = await resolveSecrets('postgres://u:${file:/run/secrets/pw}@h/db', sources({}, files));
    expect(decodeURIComponent(new URL(url).password)).to.equal(AWKWARD);
  });

  it('any character may be in a password of a SQL Server connection string', async () => {
    for (const password of [AWKWARD, 'a;b"c}d', ` '{`]) {
      const text = await resolveSecrets('server=h;user id=u;password=${env:PW};database=d', sources({ PW: password }));
      expect(parseSqlServerAddress(text)).to.include({ password, database: 'd' });
    }
  });

  it('a password that looks like a reference is not resolved again', async () => {
    const url = await resolveSecrets('postgres://u:${env:A}@h/', sources({ A: '${env:B}', B: 'no' }));
    expect(decodeURIComponent(new URL(url).password)).to.equal('${env:B}');
  });

  it('says which reference cannot be read, never what it holds', async () => {
    for (const [text, name] of [
      ['postgres://u:${env:NOPE}@h/', '${env:NOPE}'],
      ['postgres://u:${file:/nope}@h/', '${file:/nope}'],
    ] as const) {
      const error = await rejection(resolveSecrets(text, sources()));
      expect(error).to.have.property('code', 'SECRET_UNREADABLE');
      expect(error).to.have.property('message').that.contains(name);
    }
  });

  for (const [kind, key] of [
    ['32 bytes in hex', randomBytes(32).toString('hex')],
    ['32 bytes in base64', randomBytes(32).toString('base64')],
    ['a passphrase', 'correct horse battery staple'],
  ] as const) {
    it(`encrypts with ${kind}, differently each time, and opens with that key only`, async () => {
      const one = encryptSecret(AWKWARD, key);
      expect(one).to.match(/^enc:v1:[A-Za-z0-9+/=]+$/);
      expect(one).to.not.equal(encryptSecret(AWKWARD, key));
      expect(decryptSecret(one, key)).to.equal(AWKWARD);
      for (const wrong of [undefined, '', 'another', randomBytes(32).toString('hex')]) {
        expect(() => decryptSecret(one, wrong))
          .to.throw()
          .with.property('code', 'SECRET_UNREADABLE');
      }
      const bytes = Buffer.from(one.slice(7), 'base64');
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      expect(() => decryptSecret(`enc:v1:${bytes.toString('base64')}`, key))
        .to.throw()
        .with.property('code', 'SECRET_UNREADABLE');
      const url = await resolveSecrets(`postgres://u:${one}@h/db`, sources({ SLUICE_SECRET_KEY: key }));
      expect(decodeURIComponent(new URL(url).password)).to.equal(AWKWARD);
      const whole = encryptSecret('postgres://u:pw@h/db', key);
      expect(await resolveSecrets(whole, sources({ SLUICE_SECRET_KEY: key }))).to.equal('postgres://u:pw@h/db');
    });
  }

  it('blots out passwords in any text', () => {
    for (const text of [
      'connect to postgres://user:hunter2@host/db failed',
      'postgres://user:hunter2@hunter2@host/db', // an @ that was not encoded
      'Server=x;User Id=u;Password=hunter2;Encrypt=no',
      "host=x password='hunter2 hunter2' dbname=y",
      'pwd={hunter2;hunter2};database=z',
      'PASSWORD = hunter2',
      'two: mysql://a:hunter2@x/ and mongodb+srv://b:hunter2@y/',
    ]) {
      expect(redact(text), text).to.not.contain('hunter2');
      expect(redact(text), text).to.contain('***');
    }
    expect(redact('relation "orders" of host:5432 has no key')).to.equal('relation "orders" of host:5432 has no key');
  });

  it('blots out in time proportional to the text, whatever is in it', () => {
    const began = performance.now();
    for (const piece of ['x', 'a:', '://a:', "password='", 'enc:v1:', 'postgres://u:p@h '])
      redact(piece.repeat(200_000 / piece.length));
    expect(performance.now() - began).to.be.below(3000);
  });
});
