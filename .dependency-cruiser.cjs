/**
 * Imports point one way:
 *   cli, web, service → sync, verify → control, engines (the contract) → model
 * and nobody outside an engine's folder imports its driver.
 */

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'model-is-the-ground',
      comment: 'src/model imports nothing of ours outside itself',
      severity: 'error',
      from: { path: '^src/model/' },
      to: { path: '^src/(?!model/)' },
    },
    {
      name: 'engines-import-only-model',
      severity: 'error',
      from: { path: '^src/engines/' },
      to: { path: '^src/(?!model/|engines/)' },
    },
    {
      name: 'engines-do-not-know-each-other',
      severity: 'error',
      from: { path: '^src/engines/([^/]+)/' },
      to: { path: '^src/engines/[^/]+/', pathNot: '^src/engines/($1|contract)/' },
    },
    {
      name: 'only-the-registry-names-engines',
      comment: 'everything else asks for capabilities through src/engines/registry.ts',
      severity: 'error',
      from: {
        path: '^src/',
        pathNot: '^src/engines/(registry\\.ts|contract\\.ts|[^/]+/)|^src/(demo|control/dialects)/',
      },
      to: { path: '^src/engines/[^/]+/' },
    },
    {
      name: 'a-control-dialect-knows-how-its-engine-is-reached',
      comment:
        'src/control/dialects/<engine>… reads src/engines/<engine>/address.ts and login.ts, and no more of any engine',
      severity: 'error',
      from: { path: '^src/control/dialects/([a-z]+)' },
      to: { path: '^src/engines/[^/]+/', pathNot: '^src/engines/$1/(address|login)\\.ts$' },
    },
    {
      name: 'control-imports-down',
      severity: 'error',
      from: { path: '^src/control/' },
      to: { path: '^src/(sync|verify|service|cli|web|demo)/' },
    },
    {
      name: 'sync-and-verify-import-down',
      severity: 'error',
      from: { path: '^src/(sync|verify)/' },
      to: { path: '^src/(service|cli|web|demo)/' },
    },
    {
      name: 'service-imports-down',
      severity: 'error',
      from: { path: '^src/service/' },
      to: { path: '^src/(cli|web|demo)/' },
    },
    {
      name: 'drivers-stay-in-their-engine',
      comment: 'the demo plays a user with psql: it writes to its databases by itself',
      severity: 'error',
      from: { pathNot: '^src/(engines/[^/]+|demo|embedded)/' },
      to: { path: 'node_modules/(pg|pg-copy-streams|mysql2|mssql|tedious|mongodb|ioredis|neo4j-driver|kafkajs)/' },
    },
    {
      name: 'knex-only-in-control',
      severity: 'error',
      from: { pathNot: '^src/control/' },
      to: { path: 'node_modules/knex/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.js', '.mjs', '.json'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
    },
  },
};
