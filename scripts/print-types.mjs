/**
 * Prints docs/types.md from the engines' own type tables (src/engines/<engine>/types.ts and ddl.ts): `npm run docs:types`. Each type
 * is given to each destination's design of a table, so that the page says what is made.
 */
import { fileURLToPath } from 'node:url';
import * as mysqlDdl from '../src/engines/mysql/ddl.ts';
import * as mysqlTypes from '../src/engines/mysql/types.ts';
import * as postgresDdl from '../src/engines/postgres/ddl.ts';
import * as postgresTypes from '../src/engines/postgres/types.ts';
import * as sqlserverDdl from '../src/engines/sqlserver/ddl.ts';
import * as sqlserverTypes from '../src/engines/sqlserver/types.ts';

const numeric = (precision, scale) => ((precision << 16) | (scale & 0x7ff)) + 4;
const MODIFIED = {
  numeric: [
    ['numeric', -1],
    ['numeric(12,2)', numeric(12, 2)],
    ['numeric(60,20)', numeric(60, 20)],
  ],
  varchar: [
    ['character varying', -1],
    ['character varying(100)', 104],
  ],
  bpchar: [['character(10)', 14]],
  time: [['time without time zone', -1]],
  timetz: [['time with time zone', -1]],
  timestamp: [
    ['timestamp without time zone', -1],
    ['timestamp(3) without time zone', 3],
  ],
  timestamptz: [['timestamp with time zone', -1]],
  bool: [['boolean', -1]],
  int2: [['smallint', -1]],
  int4: [['integer', -1]],
  int8: [['bigint', -1]],
  float4: [['real', -1]],
  float8: [['double precision', -1]],
};
/** Types that are opaque, or made of others. */
const postgresOthers = [
  ['inet', { kind: 'opaque', engine: 'postgres', native: 'inet' }],
  ['bit(8)', { kind: 'opaque', engine: 'postgres', native: 'bit(8)' }],
  ['int4range', { kind: 'opaque', engine: 'postgres', native: 'int4range' }],
  ["mood (an enum of 'sad', 'ok')", { kind: 'enum', labels: ['sad', 'ok'] }, 'public.mood'],
  ['integer[]', { kind: 'array', element: { kind: 'int', bits: 32, signed: true } }],
];

function postgresColumns() {
  const listed = postgresTypes.NATIVE_NAMES.flatMap((name) => {
    const type = { oid: 1, schema: 'pg_catalog', name, kind: 'b', element: 0, array: 0, base: 0, baseModifier: -1 };
    return (MODIFIED[name] ?? [[name, -1]]).map(([native, modifier]) => [
      native,
      postgresTypes.logicalType(new Map([[1, type]]), 1, modifier, native),
    ]);
  });
  return [...listed, ...postgresOthers].map(([shown, type, native = shown]) => ({ shown, native, type }));
}

const MYSQL_FORMS = {
  tinyint: ['tinyint', 'tinyint unsigned'],
  smallint: ['smallint', 'smallint unsigned'],
  mediumint: ['mediumint', 'mediumint unsigned'],
  int: ['int', 'int unsigned'],
  bigint: ['bigint', 'bigint unsigned'],
  bit: ['bit(1)', 'bit(8)', 'bit(64)'],
  decimal: ['decimal(12,2)', 'decimal(65,30)'],
  time: ['time', 'time(6)'],
  datetime: ['datetime', 'datetime(6)'],
  timestamp: ['timestamp', 'timestamp(6)'],
  char: ['char(10)'],
  varchar: ['varchar(100)'],
  binary: ['binary(16)'],
  varbinary: ['varbinary(100)'],
  enum: ["enum('a','b')"],
  set: ["set('a','b')"],
};
const SQLSERVER_FORMS = {
  decimal: ['decimal(12,2)', 'decimal(38,10)'],
  numeric: ['numeric(12,2)'],
  time: ['time(3)', 'time(7)'],
  datetime2: ['datetime2(3)', 'datetime2(7)'],
  datetimeoffset: ['datetimeoffset(7)'],
  char: ['char(10)'],
  varchar: ['varchar(100)', 'varchar(max)'],
  nchar: ['nchar(10)'],
  nvarchar: ['nvarchar(100)', 'nvarchar(max)'],
  binary: ['binary(16)'],
  varbinary: ['varbinary(100)', 'varbinary(max)'],
};
const formsOf = (types, forms) =>
  types.NATIVE_NAMES.flatMap((name) => forms[name] ?? [name]).map((native) => ({
    shown: native,
    native,
    type: types.logicalType(native),
  }));

const ENGINES = {
  postgres: { title: 'PostgreSQL', columns: postgresColumns, design: postgresDdl.design, schema: 'public' },
  sqlserver: {
    title: 'SQL Server',
    columns: () => formsOf(sqlserverTypes, SQLSERVER_FORMS),
    design: sqlserverDdl.design,
    schema: 'dbo',
  },
  mysql: {
    title: 'MySQL and MariaDB',
    columns: () => formsOf(mysqlTypes, MYSQL_FORMS),
    design: (source, target, key) => mysqlDdl.design(source, target, key, null),
    schema: '',
  },
};

/** What the destination declares for a column of the type; a dash: the schema check refuses it. */
function madeBy(engine, into, { native, type }) {
  const column = {
    name: 'c',
    nativeType: native,
    type,
    nullable: true,
    generated: null,
    identity: null,
    default: null,
    collation: null,
  };
  const source = {
    engine,
    name: { schema: '', table: 't' },
    id: '',
    kind: 'table',
    columns: [column],
    keys: [],
    indexes: [],
    triggers: [],
    foreignKeys: [],
    referencedBy: [],
    estimatedRows: null,
    bytes: 0,
  };
  try {
    const { design, schema } = ENGINES[into];
    const made = design(source, { schema, table: 't' }, []).columns[0].nativeType.replace(/^"public"\./, '');
    return `\`${made}\``;
  } catch (error) {
    if (error.code !== 'SCHEMA_MISMATCH') throw error;
    return '—';
  }
}

function tableOf(engine) {
  const names = Object.keys(ENGINES);
  const rows = ENGINES[engine]
    .columns()
    .map((column) => `| \`${column.shown}\` | ${names.map((into) => madeBy(engine, into, column)).join(' | ')} |`);
  return `## From ${ENGINES[engine].title}

| type | ${names.map((name) => ENGINES[name].title).join(' | ')} |
|---|${'---|'.repeat(names.length)}
${rows.join('\n')}
`;
}

export function typesPage() {
  return `# Types

What a column becomes in a table that Sluice makes. A dash: no type there holds every value, so that the schema check refuses the
column by its name before any row moves; create the table yourself, with a type of your choice, where you know the values.

A value that the type does not hold (NaN or infinity, a zero date, a year past 9999, minutes past a TIME's last) fails its row, never the
others: it goes to \`dead_letters\`, and past \`max_failed_rows\` the mapping stops. Negative zero is zero to MySQL and MariaDB.

Keys, NOT NULL, defaults that are constants or the present time, numbering (identity, AUTO_INCREMENT) and secondary indexes of whole
columns come with the table. What does not translate is listed by \`sluice add-table --dry-run\` and in \`sync_logs\`, by the schema check: expressions,
partial and full-text indexes, uniqueness of text where the destination compares text otherwise, foreign keys, triggers, checks.

${Object.keys(ENGINES).map(tableOf).join('\n')}
This page is printed from \`src/engines/*/types.ts\` by \`npm run docs:types\`.
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(typesPage());
