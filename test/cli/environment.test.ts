import { expect } from 'chai';
import { readEnvironment } from '../../src/cli/environment.ts';
import { hasCode } from '../../src/model/errors.ts';
import { parseSqlServerAddress } from '../../src/engines/sqlserver/address.ts';

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
    [{ DEST_SERVER: 'db1', DEST_USER: 'app', DEST_PASS: 'p;"s' }, 'server="db1";user id="app";password="p;""s"'],
    [{ DEST_SERVER: 'db1', DEST_PASS: '${env:SECRET}' }, 'server="db1";user id="sa";password=${env:SECRET}'],
    [{ DEST_URL: 'Server=db1;User Id=sa;Password=x' }, 'Server=db1;User Id=sa;Password=x'],
    [{ CONFIG_SERVER: 'old', CONFIG_USER: 'u', CONFIG_PASS: 'x' }, 'server="old";user id="u";password="x"'],
    [{ CONFIG_SERVER: 'old', DEST_SERVER: 'new', DEST_PASS: 'x' }, 'server="new";user id="sa";password="x"'],
  ];
  for (const [variables, url] of urls) {
    it(`understands ${Object.keys(variables).join(', ')}: ${url}`, () =>
      expect(readEnvironment(variables).destinationUrl).to.equal(url));
  }

  const told: [Record<string, string>, Record<string, unknown>][] = [
    [
      {
        DEST_SERVER: 'db1\\SQL2',
        DEST_USER: "o'brien",
        DEST_PASS: 'p;}@/%"',
        DEST_ENCRYPT: '0',
        DEST_TRUST_CERT: 'yes',
      },
      {
        host: 'db1',
        instance: 'SQL2',
        port: null,
        user: "o'brien",
        password: 'p;}@/%"',
        encrypt: false,
        trustServerCertificate: true,
      },
    ],
    [
      { DEST_SERVER: 'db1,1435', DEST_PASS: 'x' },
      { host: 'db1', port: 1435, user: 'sa', encrypt: true, trustServerCertificate: false },
    ],
    [
      { DEST_SERVER: 'tcp:[::1]', DEST_PORT: '1500', DEST_PASS: 'x' },
      { host: '::1', port: 1500 },
    ],
    [{ DEST_SERVER: 'db1', DEST_PASS: 'x', DEST_ENCRYPT: 'strict' }, { encrypt: 'strict' }],
    [{ DEST_SERVER: 'db1', DEST_PASS: 'x', DEST_CA: '/etc/my ca.pem' }, { caFile: '/etc/my ca.pem' }],
  ];
  for (const [variables, address] of told) {
    it(`SQL Server is told what ${JSON.stringify(variables)} says`, () =>
      expect(parseSqlServerAddress(readEnvironment(variables).destinationUrl ?? '')).to.deep.include(address));
  }

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
