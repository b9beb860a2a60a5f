/** Values that have hurt (F30–F36), as SQL literals per type. Read back, each must print what it prints at the source. */
export interface TypeCase {
  readonly type: string;
  /** SQL expressions; NULL is added to every type. */
  readonly values: readonly string[];
}

const all256 = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0')).join('');

export const VALUE_MATRIX: readonly TypeCase[] = [
  { type: 'boolean', values: ['true', 'false'] },
  { type: 'smallint', values: ['-32768', '32767'] },
  { type: 'integer', values: ['-2147483648', '2147483647', '0'] },
  { type: 'bigint', values: ['-9223372036854775808', '9223372036854775807', '9007199254740993'] },
  {
    type: 'numeric',
    values: [
      "'NaN'",
      "'Infinity'",
      "'-Infinity'",
      '0.00',
      '1.10',
      `1${'0'.repeat(1000)}.${'0'.repeat(500)}1`,
      `-0.${'0'.repeat(300)}1`,
    ],
  },
  {
    type: 'numeric(38,10)',
    values: ['9999999999999999999999999999.9999999999', '-9999999999999999999999999999.9999999999', "'NaN'"],
  },
  { type: 'numeric(5,-2)', values: ['1234500'] },
  {
    type: 'double precision',
    values: [
      "'NaN'",
      "'Infinity'",
      "'-Infinity'",
      "'-0'",
      '5e-324',
      '1.7976931348623157e308',
      '0.1',
      '2.2250738585072014e-308',
    ],
  },
  { type: 'real', values: ["'NaN'", "'Infinity'", "'-0'", "'1e-45'", '3.4028235e38', '0.1'] },
  {
    type: 'text',
    values: [
      "''",
      "'NULL'",
      "'\\N'",
      "'\\.'",
      "E'\\\\'",
      "E'\\\\\\\\n'",
      "E'tab\\there'",
      "E'line\\nbreak'",
      "E'\\r\\n'",
      "E'\\b\\f\\v\\x01\\x7f'",
      "'quote '' \"\"'",
      "'emoji 😀👩‍👩‍👧'",
      "E'e\\u0301 vs \\u00e9'",
      "'日本語'",
      "E'\\U0010FFFF'",
      "' leading and trailing '",
      "E'\\u0085\\u2028'",
      "repeat('long\\', 50000)",
      "repeat('ü', 200000)",
    ],
  },
  { type: 'character varying(5)', values: ["''", "'abcde'", "'😀😀😀😀😀'"] },
  { type: 'character(5)', values: ["''", "'ab'", "'日本'"] },
  { type: 'bytea', values: [`'\\x${all256}'`, "''", "'\\x5c4e'", "'\\x0a'", "'\\x00'"] },
  {
    type: 'date',
    values: ["'infinity'", "'-infinity'", "'4713-11-24 BC'", "'0001-01-01'", "'9999-12-31'", "'5874897-12-31'"],
  },
  { type: 'time', values: ["'24:00'", "'00:00:00.000001'", "'23:59:59.999999'"] },
  { type: 'time(3)', values: ["'23:59:59.999'"] },
  { type: 'timetz', values: ["'24:00+15:59'", "'12:00:00.123456-14:00'"] },
  {
    type: 'timestamp',
    values: [
      "'infinity'",
      "'-infinity'",
      "'4713-11-24 00:00:00.000001 BC'",
      "'9999-12-31 23:59:59.999999'",
      "'294276-12-31'",
    ],
  },
  {
    type: 'timestamptz',
    values: [
      "'infinity'",
      "'-infinity'",
      "'0001-01-01 00:00:00 BC'",
      "'2024-03-31 01:30:00.123456+14:00'",
      "'2024-10-27 02:30:00 Europe/Berlin'",
      "'1890-01-01 00:00:00+00:53:28'",
    ],
  },
  {
    type: 'interval',
    values: ["'1 mon -1 day +00:00:00.000001'", "'-178000000 years'", "'1 day'", "'24:00'", "'838:59:59'"],
  },
  { type: 'interval day to second(2)', values: ["'3 days 04:05:06.78'"] },
  { type: 'uuid', values: ["'00112233-4455-6677-8899-aabbccddeeff'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"] },
  { type: 'json', values: [`'{"a" : 1,  "a":null}'`, "'null'", `'"\\u0000"'`, "'[1.0, 1e400]'"] },
  { type: 'jsonb', values: [`'{"b":null,"a":[1.10,null,"\\\\"]}'`, "'null'", `'"tab\\t"'`] },
  { type: 'xml', values: [`'<a b="1">t &amp; ü<!-- c --></a>'`, "'plain'"] },
  { type: 'bit(8)', values: ["B'10100101'"] },
  { type: 'bit varying', values: ["B''", "B'1'", "B'101010101'"] },
  { type: 'money', values: ["'-92233720368547758.08'", "'92233720368547758.07'", "'0.01'"] },
  { type: 'inet', values: ["'::1'", "'10.1.2.3/8'"] },
  { type: 'cidr', values: ["'10.0.0.0/8'"] },
  { type: 'macaddr', values: ["'08:00:2b:01:02:03'"] },
  { type: 'point', values: ["'(1e-300,-0)'", "'(NaN,Infinity)'"] },
  { type: 'polygon', values: ["'((0,0),(1,1),(2,0))'"] },
  { type: 'tsvector', values: ["'a:1A fat:2B cat'"] },
  { type: 'tsquery', values: ["'a & !(b | c:*)'"] },
  { type: 'int4range', values: ["'empty'", "'[1,)'", "'(,5]'"] },
  { type: 'tstzrange', values: [`'["2020-01-01 00:00:00.000001+00",infinity)'`] },
  { type: 'nummultirange', values: ["'{[1.0,2.5),[3,)}'", "'{}'"] },
  { type: 'integer[]', values: ["'{}'", "'{1,NULL,-3}'", "'{{1,2},{3,4}}'", "'[0:1]={5,6}'"] },
  {
    type: 'text[]',
    values: [`'{"",NULL,"NULL","a,b","q\\"q","back\\\\slash"}'`, "ARRAY[E'tab\\t', E'nl\\n', '{}', '😀']", "'{}'"],
  },
  { type: 'numeric(10,2)[]', values: ["'{1.10,NULL,NaN}'"] },
  { type: 'bytea[]', values: ["ARRAY['\\x00ff'::bytea, NULL, '']"] },
  { type: 'timestamptz[]', values: ["ARRAY['infinity'::timestamptz, NULL]"] },
  { type: '"char"', values: ["'a'", "''"] },
  { type: 'name', values: ["'a name'"] },
  { type: 'pg_lsn', values: ["'16/B374D848'"] },
  { type: 'jsonpath', values: [`'$.a[*] ? (@ > 1)'`] },
];

/** Types that another database knows under other object ids: the text lane only. Made by `USER_TYPES`. */
export const USER_TYPE_MATRIX: readonly TypeCase[] = [
  { type: 'public.mood', values: ["'sad'", "'it''s \\ok'", "'😀'"] },
  { type: 'public.mood[]', values: ["'{sad,NULL}'"] },
  { type: 'public.pair', values: [`ROW(1, E'a,"b\\\\\\n')`, 'ROW(NULL, NULL)'] },
  { type: 'public.pair[]', values: [`ARRAY[ROW(1,'x')::public.pair, NULL]`] },
  { type: 'public.posint', values: ['1'] },
  { type: 'public.posint[]', values: ["'{1,2}'"] },
  { type: 'public.floats', values: ["'[1.5,2.5)'"] },
  { type: 'regclass', values: ["'pg_catalog.pg_class'"] },
];

export const USER_TYPES = `
  CREATE TYPE public.mood AS ENUM ('sad', 'it''s \\ok', '😀');
  CREATE TYPE public.pair AS (a int, b text);
  CREATE DOMAIN public.posint AS int CHECK (VALUE > 0);
  CREATE TYPE public.floats AS RANGE (subtype = float8)`;

/** Makes `public."<table>"` with a column per type and a row per value, and the same empty table under `empty`. */
export function matrixSql(cases: readonly TypeCase[], table: string, fill: boolean): string[] {
  const columns = cases.map((one, i) => `c${i} ${one.type}`).join(', ');
  const statements = [`CREATE TABLE public."${table}" (id int PRIMARY KEY, ${columns})`];
  if (!fill) return statements;
  const rows = Math.max(...cases.map((one) => one.values.length)) + 1;
  for (let row = 0; row < rows; row++) {
    const values = cases.map((one) =>
      row < one.values.length ? `(${one.values[row] ?? 'NULL'})::${one.type}` : 'NULL',
    );
    statements.push(`INSERT INTO public."${table}" VALUES (${row}, ${values.join(', ')})`);
  }
  return statements;
}
