import { expect } from 'chai';
import { Writable } from 'node:stream';
import { SluiceError } from '../../src/model/errors.ts';
import { createLogger, type LoggerOptions } from '../../src/log/logger.ts';
import { redact } from '../../src/model/redact.ts';

/** A logger and the lines that it wrote. */
function capture(options: LoggerOptions = {}) {
  let text = '';
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString('utf8');
      done();
    },
  });
  return { log: createLogger({ ...options, stream }), lines: () => text.trimEnd().split('\n') };
}

describe('log', () => {
  it('writes one text line per event, with scope and fields', () => {
    const { log, lines } = capture();
    log.child({ part: 'queue' }).child({ mapping: 'shop: public.orders' }).info('copied', { rows: 3, note: 'a b' });
    log.info('two\nlines');
    log.debug('not at this level');
    expect(lines()).to.have.length(2);
    expect(lines()[0]).to.match(/^\S+Z INFO {2}\[queue · shop: public\.orders\] copied rows=3 note="a b"$/);
    expect(lines()[1]).to.match(/INFO {2}two\\nlines$/);
  });

  it('writes JSON with the error taken apart', () => {
    const { log, lines } = capture({ format: 'json' });
    const error = new SluiceError('LOGIN_FAILED', 'refused for postgres://u:geheim@h/db', {
      hint: 'check password=geheim',
    });
    log.error('cannot connect', { error, message: 'a field of that name' });
    const entry = JSON.parse(lines()[0] ?? '') as Record<string, unknown>;
    expect(entry).to.include({ level: 'error', message: 'cannot connect', code: 'LOGIN_FAILED' });
    expect(lines()[0]).not.to.include('geheim');
  });

  const secrets: [string, string][] = [
    ['postgres://app:s3cr@t/x@db:5432/shop', 'postgres://app:***@db:5432/shop'],
    ['server=h;user id=sa;password=s3cret;database=x', 'server=h;user id=sa;password=***;database=x'],
    ['Server=h;Pwd={s3c;ret};Encrypt=1', 'Server=h;Pwd=***;Encrypt=1'],
    ['Server=h;Password="s3;""c""ret";Encrypt=1', 'Server=h;Password=***;Encrypt=1'],
    ["Password='s3;''cret';Encrypt=1", 'Password=***;Encrypt=1'],
    ['PWD={s3;}}cret};Encrypt=1', 'PWD=***;Encrypt=1'],
    [`host=h password='s3c ret' user=u`, 'host=h password=*** user=u'],
    ['{"password":"s3\\"cret","user":"u"}', '{"password":***,"user":"u"}'],
    ['mysql://u:s3cret@a/x and mysql://v:s3cret@b/y', 'mysql://u:***@a/x and mysql://v:***@b/y'],
    ['?sslpassword=s3cret&sslmode=require', '?sslpassword=***&sslmode=require'],
    [`ALTER ROLE r PASSWORD 's3cret'`, 'ALTER ROLE r PASSWORD ***'],
    ['enc:v1:AbC+/=9', 'enc:v1:***'],
    ['password=${env:SHOP_PASSWORD}', 'password=${env:SHOP_PASSWORD}'],
    ['bypassed 3 rows; https://host/path', 'bypassed 3 rows; https://host/path'],
  ];
  for (const [before, after] of secrets) {
    it(`hides passwords: ${after}`, () => expect(redact(before)).to.equal(after));
  }
});
