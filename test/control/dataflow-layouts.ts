/** Control databases of dbaops-dataflow as its four generations made and filled them. */

export interface DataflowLayout {
  readonly name: string;
  readonly statements: readonly string[];
  /** What must be there afterwards: a query and the rows it gives. */
  readonly expected: readonly { readonly sql: string; readonly rows: readonly Readonly<Record<string, unknown>>[] }[];
  /** Rows carried over, by table of ours. */
  readonly carried: Readonly<Record<string, number>>;
}

const SERVER = `is_enabled BIT NOT NULL DEFAULT 1, created_at DATETIME2 NOT NULL DEFAULT GETUTCDATE(), updated_at DATETIME2 NOT NULL DEFAULT GETUTCDATE(),
  last_connected_at DATETIME2 NULL, notes NVARCHAR(MAX) NULL`;

/** `reference`: the columns by which a mapping finds its servers. */
const mappings = (reference: string, between: string, further = '') => `CREATE TABLE table_mappings (
  mapping_id INT IDENTITY(1,1) PRIMARY KEY, ${reference},
  source_database NVARCHAR(255) NOT NULL, source_schema NVARCHAR(255) NOT NULL DEFAULT 'dbo', source_table NVARCHAR(255) NOT NULL,
  dest_database NVARCHAR(255) NOT NULL, dest_schema NVARCHAR(255) NOT NULL DEFAULT 'dbo', dest_table NVARCHAR(255) NOT NULL,
  primary_key_column NVARCHAR(255) NOT NULL, ${between},
  is_enabled BIT NOT NULL DEFAULT 1, cdc_enabled BIT NOT NULL DEFAULT 0, last_cdc_lsn BINARY(10) NULL, last_full_sync_at DATETIME2 NULL,
  created_at DATETIME2 NOT NULL DEFAULT GETUTCDATE(), updated_at DATETIME2 NOT NULL DEFAULT GETUTCDATE()${further})`;

const TRIGGER = 'full_sync_trigger_column NVARCHAR(255) NULL';

const CONFIG = [
  `CREATE TABLE config (config_key NVARCHAR(100) PRIMARY KEY, config_value NVARCHAR(500) NOT NULL, description NVARCHAR(MAX) NULL, updated_at DATETIME2 NOT NULL DEFAULT GETUTCDATE())`,
  `INSERT INTO config (config_key, config_value, description) VALUES ('cdc_check_interval_seconds', '25', 'mine'), ('batch_size', '500', NULL), ('max_retry_attempts', '7', NULL), ('no_longer_known', 'x', NULL)`,
];

/** `origin`: the column of error_logs that names the server or flow; `references`: of the generations that had foreign keys. */
const fourLogs = (origin: string, references: string) => [
  `CREATE TABLE sync_status (status_id BIGINT IDENTITY(1,1) PRIMARY KEY, mapping_id INT NOT NULL, sync_type NVARCHAR(50) NOT NULL, status NVARCHAR(50) NOT NULL,
     records_processed BIGINT NOT NULL DEFAULT 0, records_failed BIGINT NOT NULL DEFAULT 0, started_at DATETIME2 NOT NULL, completed_at DATETIME2 NULL,
     error_message NVARCHAR(MAX) NULL, last_processed_pk NVARCHAR(500) NULL${references})`,
  'CREATE INDEX IX_sync_status_mapping ON sync_status(mapping_id, started_at DESC)',
  `CREATE TABLE sync_logs (log_id BIGINT IDENTITY(1,1) PRIMARY KEY, mapping_id INT NOT NULL, log_level NVARCHAR(20) NOT NULL, log_message NVARCHAR(MAX) NOT NULL,
     sync_type NVARCHAR(50) NULL, records_count BIGINT NULL, execution_time_ms INT NULL, created_at DATETIME2 NOT NULL DEFAULT GETUTCDATE()${references})`,
  `CREATE TABLE error_logs (error_id BIGINT IDENTITY(1,1) PRIMARY KEY, mapping_id INT NULL, ${origin} INT NULL, error_type NVARCHAR(50) NOT NULL, error_message NVARCHAR(MAX) NOT NULL,
     error_details NVARCHAR(MAX) NULL, stack_trace NVARCHAR(MAX) NULL, retry_count INT NOT NULL DEFAULT 0, is_resolved BIT NOT NULL DEFAULT 0,
     created_at DATETIME2 NOT NULL DEFAULT GETUTCDATE(), resolved_at DATETIME2 NULL)`,
  `CREATE TABLE verification_logs (verification_id BIGINT IDENTITY(1,1) PRIMARY KEY, mapping_id INT NOT NULL, verification_type NVARCHAR(50) NOT NULL, source_md5 NVARCHAR(32) NULL,
     dest_md5 NVARCHAR(32) NULL, source_row_count BIGINT NULL, dest_row_count BIGINT NULL, records_compared BIGINT NOT NULL DEFAULT 0, mismatches_found BIGINT NOT NULL DEFAULT 0,
     verification_status NVARCHAR(50) NOT NULL, verification_details NVARCHAR(MAX) NULL, verified_at DATETIME2 NOT NULL DEFAULT GETUTCDATE()${references})`,
  `INSERT INTO sync_status (mapping_id, sync_type, status, records_processed, started_at, completed_at, last_processed_pk) VALUES
     (1, 'FULL_SYNC', 'COMPLETED', 42, '2026-01-11T10:00:00', '2026-01-11T10:01:00', '42'), (1, 'CDC', 'RUNNING', 3, '2026-01-11T10:02:00', NULL, NULL)`,
  `INSERT INTO sync_logs (mapping_id, log_level, log_message, sync_type, records_count, execution_time_ms, created_at) VALUES
     (1, 'INFO', N'Full sync done: Ölçü', 'FULL_SYNC', 42, 60000, '2026-01-11T10:01:00'), (3, 'ERROR', 'Schema validation failed', 'SCHEMA_CHECK', NULL, NULL, '2026-01-11T10:03:00')`,
  `INSERT INTO error_logs (mapping_id, ${origin}, error_type, error_message, error_details, stack_trace, retry_count, is_resolved, created_at, resolved_at) VALUES
     (1, NULL, 'SYNC', 'deadlock', 'details', 'main.go:1', 2, 0, '2026-01-11T10:04:00', NULL), (NULL, 1, 'CONNECTION', 'refused', NULL, NULL, 0, 1, '2026-01-11T10:05:00', '2026-01-11T11:00:00')`,
  `INSERT INTO verification_logs (mapping_id, verification_type, source_md5, dest_md5, records_compared, mismatches_found, verification_status, verified_at) VALUES
     (1, 'MD5_COMPARISON', '', '', 1000, 2, 'FAILED', '2026-01-11T10:06:00')`,
  `EXEC (N'CREATE VIEW v_sync_summary AS SELECT ss.status, tm.source_table FROM sync_status ss INNER JOIN table_mappings tm ON ss.mapping_id = tm.mapping_id')`,
  `EXEC (N'CREATE VIEW v_recent_errors AS SELECT TOP 100 error_id, error_message FROM error_logs WHERE is_resolved = 0')`,
];

const FOUR_LOGS = [
  {
    sql: `SELECT mapping_id, sync_type, status, records_processed, error_message, CASE WHEN completed_at IS NULL THEN 0 ELSE 1 END AS ended FROM sync_status ORDER BY status_id`,
    rows: [
      {
        mapping_id: 1,
        sync_type: 'FULL_SYNC',
        status: 'COMPLETED',
        records_processed: '42',
        error_message: null,
        ended: 1,
      },
      {
        mapping_id: 1,
        sync_type: 'CDC',
        status: 'ERROR',
        records_processed: '3',
        error_message: 'not finished when the control database was upgraded',
        ended: 1,
      },
    ],
  },
  {
    sql: `SELECT mapping_id, log_level, log_message, sync_type, records_count, execution_time_ms, CONVERT(nvarchar(19), created_at, 120) AS at FROM sync_logs ORDER BY log_id`,
    rows: [
      {
        mapping_id: 1,
        log_level: 'INFO',
        log_message: 'Full sync done: Ölçü',
        sync_type: 'FULL_SYNC',
        records_count: '42',
        execution_time_ms: '60000',
        at: '2026-01-11 10:01:00',
      },
      {
        mapping_id: 3,
        log_level: 'ERROR',
        log_message: 'Schema validation failed',
        sync_type: 'SCHEMA_CHECK',
        records_count: null,
        execution_time_ms: null,
        at: '2026-01-11 10:03:00',
      },
    ],
  },
  {
    sql: `SELECT mapping_id, server_id, error_type, error_message, error_details, retry_count, is_resolved FROM error_logs ORDER BY error_id`,
    rows: [
      {
        mapping_id: 1,
        server_id: null,
        error_type: 'SYNC',
        error_message: 'deadlock',
        error_details: 'details\nmain.go:1',
        retry_count: 2,
        is_resolved: 0,
      },
      {
        mapping_id: null,
        server_id: 1,
        error_type: 'CONNECTION',
        error_message: 'refused',
        error_details: null,
        retry_count: 0,
        is_resolved: 1,
      },
    ],
  },
  {
    sql: 'SELECT mapping_id, records_compared, mismatches_found, verification_status FROM verification_logs',
    rows: [{ mapping_id: 1, records_compared: '1000', mismatches_found: '2', verification_status: 'FAILED' }],
  },
  {
    sql: 'SELECT last_processed_pk FROM dataflow_sync_status ORDER BY status_id',
    rows: [{ last_processed_pk: '42' }, { last_processed_pk: null }],
  },
];

const LOG_COUNTS = { sync_status: 2, sync_logs: 2, error_logs: 2, verification_logs: 1 };

/** Every mapping as we see it; `rows` are the columns that a generation has its own way with. */
const mappingsAre = (rows: readonly Readonly<Record<string, unknown>>[]) => ({
  sql: `SELECT mapping_id, server_id, dest_server_id, source_table, dest_database, primary_key_column, full_sync_trigger_column, is_full_sync, is_enabled, cdc_enabled,
          CAST(SUBSTRING(last_cdc_lsn, 10, 1) AS int) AS lsn_end FROM table_mappings ORDER BY mapping_id`,
  rows,
});

const users = (own: Readonly<Record<string, unknown>>) => ({
  mapping_id: 1,
  source_table: 'Users',
  dest_database: 'DestDB',
  primary_key_column: 'UserID',
  is_full_sync: 1,
  is_enabled: 1,
  cdc_enabled: 1,
  lsn_end: 7,
  ...own,
});
const orders = (own: Readonly<Record<string, unknown>>) => ({
  mapping_id: 3,
  source_table: 'Orders',
  dest_database: 'DestDB',
  primary_key_column: '"a,b"',
  full_sync_trigger_column: null,
  is_full_sync: 1,
  is_enabled: 0,
  cdc_enabled: 0,
  lsn_end: null,
  ...own,
});

/** Mapping 2 was deleted: numbers have holes. */
const insertMappings = (columns: string, users: string, orders: string) => [
  `INSERT INTO table_mappings (${columns}, source_database, source_table, dest_database, dest_table, primary_key_column, is_enabled, cdc_enabled, last_cdc_lsn) VALUES
     (${users}, 'SourceDB', 'Users', 'DestDB', 'Users', 'UserID', 1, 1, 0x00000000000000000007),
     (${users}, 'SourceDB', 'Gone', 'DestDB', 'Gone', 'Id', 1, 1, NULL),
     (${orders}, 'SourceDB', 'Orders', 'DestDB', 'Orders', 'a,b', 0, 0, NULL)`,
  `DELETE FROM table_mappings WHERE source_table = 'Gone'`,
];

const README_STRING = 'server=source1.example.com;user id=sa;password=pass;database=master;encrypt=disable';

const CONFIG_IS = {
  sql: `SELECT config_key, config_value FROM config WHERE config_key IN ('cdc_check_interval_seconds', 'batch_size', 'max_retry_attempts', 'no_longer_known') ORDER BY config_key`,
  rows: [
    { config_key: 'batch_size', config_value: '500' },
    { config_key: 'cdc_check_interval_seconds', config_value: '25' },
    { config_key: 'max_retry_attempts', config_value: '7' },
  ],
};

const FLOWS = [
  `CREATE TABLE flows (flow_id INT IDENTITY(1,1) PRIMARY KEY, flow_name NVARCHAR(255) NOT NULL UNIQUE,
     source_server NVARCHAR(255) NOT NULL, source_port INT NOT NULL DEFAULT 1433, source_user NVARCHAR(255) NOT NULL, source_password NVARCHAR(255) NOT NULL,
     dest_server NVARCHAR(255) NOT NULL, dest_port INT NOT NULL DEFAULT 1433, dest_user NVARCHAR(255) NOT NULL, dest_password NVARCHAR(255) NOT NULL, ${SERVER})`,
  `INSERT INTO flows (flow_name, source_server, source_port, source_user, source_password, dest_server, dest_user, dest_password, notes) VALUES
     ('shop', 'source1.example.com', 1444, 'sa', 'p;a"s=s', 'dest.example.com', 'writer', 'pw', N'notes')`,
];

const FLOW_SERVERS = [
  {
    sql: 'SELECT server_id, server_name, connection_string, is_enabled, notes FROM source_servers',
    rows: [
      {
        server_id: 1,
        server_name: 'shop',
        connection_string: 'server="source1.example.com";port=1444;user id="sa";password="p;a""s=s";encrypt=disable',
        is_enabled: 1,
        notes: 'notes',
      },
    ],
  },
  {
    sql: 'SELECT server_id, connection_string FROM destination_servers',
    rows: [
      {
        server_id: 1,
        connection_string: 'server="dest.example.com";port=1433;user id="writer";password="pw";encrypt=disable',
      },
    ],
  },
];

export const LAYOUTS: readonly DataflowLayout[] = [
  {
    name: 'the README’s: source_servers and four log tables',
    statements: [
      `CREATE TABLE source_servers (server_id INT IDENTITY(1,1) PRIMARY KEY, server_name NVARCHAR(255) NOT NULL UNIQUE, connection_string NVARCHAR(1000) NOT NULL, ${SERVER})`,
      'CREATE INDEX IX_source_servers_enabled ON source_servers(is_enabled)',
      `INSERT INTO source_servers (server_name, connection_string, is_enabled, notes) VALUES ('SourceServer1', '${README_STRING}', 1, N'ilk'), ('odbc', 'odbc:server=h;user id=sa;password={p;w}', 0, NULL)`,
      mappings(
        'server_id INT NOT NULL REFERENCES source_servers(server_id) ON DELETE CASCADE',
        TRIGGER,
        ', UNIQUE (server_id, source_database, source_schema, source_table)',
      ),
      ...insertMappings('server_id, full_sync_trigger_column', `1, 'FullSyncTrigger'`, '2, NULL'),
      ...fourLogs('server_id', ', FOREIGN KEY (mapping_id) REFERENCES table_mappings(mapping_id) ON DELETE CASCADE'),
    ],
    expected: [
      {
        sql: 'SELECT server_id, server_name, connection_string, is_enabled, notes FROM source_servers ORDER BY server_id',
        rows: [
          {
            server_id: 1,
            server_name: 'SourceServer1',
            connection_string: README_STRING,
            is_enabled: 1,
            notes: 'ilk',
          },
          {
            server_id: 2,
            server_name: 'odbc',
            connection_string: 'server=h;user id=sa;password={p;w}',
            is_enabled: 0,
            notes: null,
          },
        ],
      },
      mappingsAre([
        users({ server_id: 1, dest_server_id: null, full_sync_trigger_column: 'FullSyncTrigger' }),
        orders({ server_id: 2, dest_server_id: null }),
      ]),
      ...FOUR_LOGS,
    ],
    carried: { source_servers: 2, table_mappings: 2, ...LOG_COUNTS },
  },
  {
    name: 'server_connections and config',
    statements: [
      ...CONFIG,
      `CREATE TABLE server_connections (server_id INT IDENTITY(1,1) PRIMARY KEY, server_name NVARCHAR(255) NOT NULL UNIQUE, server_type NVARCHAR(50) NOT NULL, connection_string NVARCHAR(1000) NOT NULL, ${SERVER},
         CONSTRAINT CK_server_type CHECK (server_type IN ('SOURCE', 'DEST')))`,
      `INSERT INTO server_connections (server_name, server_type, connection_string) VALUES ('from', 'SOURCE', '${README_STRING}'), ('to', 'DEST', 'server=d;user id=sa;password=pass')`,
      mappings(
        'source_server_id INT NOT NULL REFERENCES server_connections(server_id) ON DELETE CASCADE, dest_server_id INT NOT NULL',
        TRIGGER,
      ),
      ...insertMappings(
        'source_server_id, dest_server_id, full_sync_trigger_column',
        `1, 2, 'FullSyncTrigger'`,
        '1, 2, NULL',
      ),
      ...fourLogs('server_id', ', FOREIGN KEY (mapping_id) REFERENCES table_mappings(mapping_id) ON DELETE CASCADE'),
    ],
    expected: [
      {
        sql: 'SELECT server_id, server_name, connection_string FROM source_servers',
        rows: [{ server_id: 1, server_name: 'from', connection_string: README_STRING }],
      },
      {
        sql: 'SELECT server_id, server_name, connection_string FROM destination_servers',
        rows: [{ server_id: 2, server_name: 'to', connection_string: 'server=d;user id=sa;password=pass' }],
      },
      mappingsAre([
        users({ server_id: 1, dest_server_id: 2, full_sync_trigger_column: 'FullSyncTrigger' }),
        orders({ server_id: 1, dest_server_id: 2 }),
      ]),
      CONFIG_IS,
      ...FOUR_LOGS,
    ],
    carried: { source_servers: 1, destination_servers: 1, table_mappings: 2, config: 3, ...LOG_COUNTS },
  },
  {
    name: 'flows and four log tables',
    statements: [
      ...CONFIG,
      ...FLOWS,
      mappings('flow_id INT NOT NULL', TRIGGER, ', last_cdc_sync_at DATETIME2 NULL'),
      ...insertMappings('flow_id, full_sync_trigger_column', `1, 'FullSyncTrigger'`, '1, NULL'),
      // Without foreign keys a flow can go and leave its mappings behind.
      `INSERT INTO table_mappings (flow_id, source_database, source_table, dest_database, dest_table, primary_key_column) VALUES (99, 'a', 'Left', 'b', 'Left', 'Id')`,
      ...fourLogs('flow_id', ''),
    ],
    expected: [
      ...FLOW_SERVERS,
      mappingsAre([
        users({ server_id: 1, dest_server_id: 1, full_sync_trigger_column: 'FullSyncTrigger' }),
        orders({ server_id: 1, dest_server_id: 1 }),
      ]),
      {
        sql: 'SELECT source_table FROM dataflow_table_mappings WHERE flow_id = 99',
        rows: [{ source_table: 'Left' }],
      },
      CONFIG_IS,
      ...FOUR_LOGS,
    ],
    carried: { source_servers: 1, destination_servers: 1, table_mappings: 2, config: 3, ...LOG_COUNTS },
  },
  {
    name: 'flows and one table logs',
    statements: [
      ...CONFIG,
      ...FLOWS,
      mappings('flow_id INT NOT NULL', 'is_full_sync BIT NOT NULL DEFAULT 0', ', last_cdc_sync_at DATETIME2 NULL'),
      ...insertMappings('flow_id', '1', '1'),
      `CREATE TABLE logs (log_id BIGINT IDENTITY(1,1) PRIMARY KEY, flow_id INT NULL, mapping_id INT NULL, log_type NVARCHAR(50) NOT NULL, log_message NVARCHAR(MAX) NOT NULL,
         status NVARCHAR(20) NOT NULL, records_count BIGINT NULL, duration_ms INT NULL, created_at DATETIME2 NOT NULL DEFAULT GETUTCDATE())`,
      `INSERT INTO logs (flow_id, mapping_id, log_type, log_message, status, records_count, duration_ms) VALUES (1, 1, 'FULL_SYNC', 'done', 'SUCCESS', 42, 900),
         (1, 1, 'CDC', 'bcp failed', 'ERROR', NULL, NULL), (1, NULL, 'CONNECTION', 'refused', 'ERROR', NULL, NULL), (1, 1, 'VERIFICATION', 'differ', 'FAILED', 10, 5), (NULL, NULL, 'SYNC', 'started', 'INFO', NULL, NULL)`,
      `EXEC (N'CREATE VIEW v_recent_logs AS SELECT TOP 1000 log_id, log_message FROM logs')`,
      `EXEC (N'CREATE VIEW v_recent_errors AS SELECT TOP 100 log_id, log_message FROM logs WHERE status = ''ERROR''')`,
    ],
    expected: [
      ...FLOW_SERVERS,
      mappingsAre([
        users({ server_id: 1, dest_server_id: 1, full_sync_trigger_column: null }),
        orders({ server_id: 1, dest_server_id: 1 }),
      ]),
      CONFIG_IS,
      {
        sql: 'SELECT mapping_id, log_level, log_message, sync_type, records_count, execution_time_ms, details FROM sync_logs ORDER BY log_id',
        rows: (
          [
            [1, 'INFO', 'done', 'FULL_SYNC', '42', '900', 'FULL_SYNC SUCCESS, flow 1'],
            [1, 'ERROR', 'bcp failed', 'CDC', null, null, 'CDC ERROR, flow 1'],
            [null, 'ERROR', 'refused', null, null, null, 'CONNECTION ERROR, flow 1'],
            [1, 'ERROR', 'differ', 'VERIFICATION', '10', '5', 'VERIFICATION FAILED, flow 1'],
            [null, 'INFO', 'started', null, null, null, 'SYNC INFO, flow '],
          ] as const
        ).map(([mapping_id, log_level, log_message, sync_type, records_count, execution_time_ms, details]) => ({
          mapping_id,
          log_level,
          log_message,
          sync_type,
          records_count,
          execution_time_ms,
          details,
        })),
      },
      {
        sql: 'SELECT mapping_id, server_id, error_type, error_message, is_resolved FROM error_logs ORDER BY error_id',
        rows: [
          { mapping_id: 1, server_id: 1, error_type: 'CDC', error_message: 'bcp failed', is_resolved: 0 },
          { mapping_id: null, server_id: 1, error_type: 'CONNECTION', error_message: 'refused', is_resolved: 1 },
        ],
      },
      {
        sql: 'SELECT mapping_id, verification_status, verification_details FROM verification_logs',
        rows: [{ mapping_id: 1, verification_status: 'FAILED', verification_details: 'differ' }],
      },
      { sql: 'SELECT COUNT(*) AS n FROM dataflow_logs', rows: [{ n: 5 }] },
    ],
    carried: {
      source_servers: 1,
      destination_servers: 1,
      table_mappings: 2,
      config: 3,
      sync_logs: 5,
      error_logs: 2,
      verification_logs: 1,
    },
  },
];
