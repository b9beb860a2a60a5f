import { expect } from 'chai';
import { hasCode } from '../../../src/model/errors.ts';
import { isKeyValueString } from '../../../src/model/key-value-string.ts';
import { parseSqlServerAddress } from '../../../src/engines/sqlserver/address.ts';

const ADO = 'server=source1.example.com;user id=sa;password=pass;database=master;encrypt=disable';

function refusal(text: string): string {
  try {
    parseSqlServerAddress(text);
  } catch (error) {
    if (hasCode(error, 'MAPPING_INVALID')) return error.message;
    throw error;
  }
  return 'accepted';
}

describe('connection strings of SQL Server', () => {
  it('reads the form that ADO, Go and ODBC tools share', () => {
    expect(parseSqlServerAddress(ADO)).to.include({
      host: 'source1.example.com',
      port: null,
      instance: null,
      user: 'sa',
      password: 'pass',
      database: 'master',
      encrypt: false,
      trustServerCertificate: false,
    });
  });

  it('takes any case and order of keys, synonyms, spaces and empty parts', () => {
    const address = parseSqlServerAddress(
      ' ;; PWD = p ; Initial  Catalog=My Db;UID= me ;Data Source = tcp:h , 1444 ;TRUST SERVER CERTIFICATE = Yes;;ApplicationIntent=readonly;MultiSubnetFailover=True;Connect Timeout=3;',
    );
    expect(address).to.include({
      host: 'h',
      port: 1444,
      user: 'me',
      password: 'p',
      database: 'My Db',
      trustServerCertificate: true,
      readOnlyIntent: true,
      multiSubnetFailover: true,
      connectTimeoutMs: 3000,
      encrypt: true,
    });
  });

  for (const [written, meant] of [
    [`"a;b'c}d=e"`, `a;b'c}d=e`],
    [`'a"b;c'`, `a"b;c`],
    [`"a""b"`, `a"b`],
    [`'it''s'`, `it's`],
    [`{a;b}}c}`, `a;b}c`],
    [`a'b"c}d`, `a'b"c}d`],
    [`p==q`, `p==q`],
  ] as const) {
    it(`reads the password ${written}`, () => {
      expect(parseSqlServerAddress(`server=h;password=${written};user id=u`)).to.include({
        password: meant,
        user: 'u',
      });
    });
  }

  it('reads named instances, ports and local names', () => {
    expect(parseSqlServerAddress('server=host\\inst;uid=u')).to.include({ host: 'host', instance: 'inst', port: null });
    expect(parseSqlServerAddress('server=host\\inst,1500;uid=u')).to.include({ instance: 'inst', port: 1500 });
    expect(parseSqlServerAddress('server=host;port=1501;uid=u')).to.include({ port: 1501 });
    expect(parseSqlServerAddress('server=(local);uid=u')).to.include({ host: 'localhost' });
    expect(parseSqlServerAddress('server=.;uid=u')).to.include({ host: 'localhost' });
    expect(parseSqlServerAddress('server=tcp:[::1],1500;uid=u')).to.include({ host: '::1', port: 1500 });
    expect(parseSqlServerAddress('sqlserver://u:p@[::1]:1500/')).to.include({ host: '::1', port: 1500 });
  });

  it('reads URLs, with the path as database, or as instance where the database is named besides', () => {
    expect(parseSqlServerAddress('sqlserver://us%40er:p%3Bw@h:1433/My%20Db?encrypt=strict')).to.include({
      host: 'h',
      port: 1433,
      user: 'us@er',
      password: 'p;w',
      database: 'My Db',
      encrypt: 'strict',
    });
    expect(parseSqlServerAddress('mssql://u:p@h/SQLExpress?database=db&TrustServerCertificate=true')).to.include({
      instance: 'SQLExpress',
      database: 'db',
      trustServerCertificate: true,
    });
  });

  it('F52: says what is wrong without repeating what is secret', () => {
    const secret = 'hunter2';
    for (const [text, words] of [
      [`user id=sa;password=${secret};server=`, /names no server/],
      [`server=h,99999;password=${secret}`, /port/],
      [`server=h;password="${secret}`, /not closed/],
      [`server=h;password="${secret}"x;uid=u`, /closing quote/],
      [`server=h;password=${secret};encrypt=perhaps`, /Encrypt/],
      [`server=h;password=${secret};TrustServerCertificate=maybe`, /TrustServerCertificate/],
      [`server=h;Integrated Security=SSPI;password=${secret}`, /integrated security/],
      [`server=h;${secret}`, /key=value/],
      [`sqlserver://u:${secret}%zz@h/db`, /percent/],
      [secret, /neither a URL/],
    ] as const) {
      const message = refusal(text);
      expect(message, text).to.match(words);
      expect(message).not.to.contain(secret);
    }
  });

  it('is told from other strings by its form', () => {
    expect(isKeyValueString(ADO)).to.equal(true);
    expect(isKeyValueString('password=x;Data Source=h')).to.equal(true);
    expect(isKeyValueString('postgres://h/db?server=x')).to.equal(false);
    expect(isKeyValueString('h')).to.equal(false);
  });
});
