import { expect } from 'chai';
import { readEnvironment } from '../../src/cli/environment.ts';
import { hasCode } from '../../src/model/errors.ts';
import { parseSqlServerAddress } from '../../src/model/sqlserver-address.ts';

describe('environment', () => {
  it('has defaults', () => {
    expect(readEnvironment({})).to.deep.equal({
      destinationUrl: null,
      controlDatabase: 'sluice',
      secretKey: null,
      logLevel: 'info',
      logFormat: 'text',
    });
  });

  const urls: [Record<string, string>, string][] = [
    [{ DEST_URL: 'postgres://u@h/', DEST_SERVER: '' }, 'postgres://u@h/'],
    [{ DEST_SERVER: 'db1', DEST_USER: 'app', DEST_PASS: 'p@s/s' }, 'sqlserver://app:p%40s%2Fs@db1/'],
    [{ DEST_SERVER: 'db1,1435', DEST_PASS: 'x' }, 'sqlserver://sa:x@db1:1435/'],
    [
      { DEST_SERVER: 'db1\\SQL2', DEST_PASS: 'x', DEST_ENCRYPT: '0' },
      'sqlserver://sa:x@db1/?instance=SQL2&encrypt=false',
    ],
    [{ DEST_SERVER: 'tcp:[::1]', DEST_PORT: '1500', DEST_PASS: 'x' }, 'sqlserver://sa:x@[::1]:1500/'],
    [{ DEST_SERVER: 'db1', DEST_PASS: '${env:SECRET}' }, 'sqlserver://sa:${env:SECRET}@db1/'],
    [
      { DEST_SERVER: 'db1', DEST_PASS: 'x', DEST_ENCRYPT: 'strict', DEST_TRUST_CERT: '1' },
      'sqlserver://sa:x@db1/?encrypt=strict&trustServerCertificate=true',
    ],
    [{ DEST_SERVER: 'db1', DEST_PASS: 'x', DEST_CA: '/etc/ca.pem' }, 'sqlserver://sa:x@db1/?ca=%2Fetc%2Fca.pem'],
    [{ DEST_URL: 'Server=db1;User Id=sa;Password=x' }, 'Server=db1;User Id=sa;Password=x'],
    [{ CONFIG_SERVER: 'old', CONFIG_USER: 'u', CONFIG_PASS: 'x' }, 'sqlserver://u:x@old/'],
    [{ CONFIG_SERVER: 'old', DEST_SERVER: 'new', DEST_PASS: 'x' }, 'sqlserver://sa:x@new/'],
  ];
  for (const [variables, url] of urls) {
    it(`understands ${Object.keys(variables).join(', ')}: ${url}`, () =>
      expect(readEnvironment(variables).destinationUrl).to.equal(url));
  }

  it('what DEST_SERVER and its like say is what SQL Server is told', () => {
    const variables = {
      DEST_SERVER: 'db1\\SQL2',
      DEST_USER: "o'brien",
      DEST_PASS: 'p;}@/%"',
      DEST_ENCRYPT: '0',
      DEST_TRUST_CERT: 'yes',
    };
    expect(parseSqlServerAddress(readEnvironment(variables).destinationUrl ?? '')).to.include({
      host: 'db1',
      instance: 'SQL2',
      port: null,
      user: "o'brien",
      password: 'p;}@/%"',
      encrypt: false,
      trustServerCertificate: true,
    });
    const bare = parseSqlServerAddress(
      readEnvironment({ DEST_SERVER: 'db1,1435', DEST_PASS: 'x' }).destinationUrl ?? '',
    );
    expect(bare).to.include({ host: 'db1', port: 1435, user: 'sa', encrypt: true, trustServerCertificate: false });
  });

  const wrong: [Record<string, string>, string][] = [
    [{ DEST_URL: 'localhost' }, 'DEST_URL'],
    [{ DEST_URL: 'postgres://h/', DEST_SERVER: 'h' }, 'DEST_SERVER'],
    [{ DEST_SERVER: 'h', DEST_PORT: '99999' }, 'DEST_PORT'],
    [{ DEST_SERVER: 'a b' }, 'DEST_SERVER'],
    [{ LOG_LEVEL: 'loud' }, 'LOG_LEVEL'],
    [{ LOG_FORMAT: 'xml' }, 'LOG_FORMAT'],
  ];
  for (const [variables, name] of wrong) {
    it(`refuses ${JSON.stringify(variables)}`, () => {
      let thrown: unknown;
      try {
        readEnvironment(variables);
      } catch (error) {
        thrown = error;
      }
      expect(hasCode(thrown, 'CONFIG_INVALID')).to.equal(true);
      expect((thrown as Error).message).to.include(name);
    });
  }
});
