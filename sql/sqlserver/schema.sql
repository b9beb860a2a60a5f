-- Sluice control database, SQL Server 2019 or later, schema version 1.
--
-- By hand, on an empty database (SSMS: choose the database, open this file, Execute):
--   sqlcmd -S host -Q "CREATE DATABASE sluice; ALTER DATABASE sluice SET READ_COMMITTED_SNAPSHOT ON"
--   sqlcmd -S host -d sluice -I -b -i sql/sqlserver/schema.sql
-- `sluice migrate` (and the service when it starts) runs this same file; later versions are files beside it, run in order.
--
-- Conventions
--   * Everything lives in schema dbo.
--   * Flags are BIT. Times are datetime2 in UTC, by the server's clock.
--   * You write source_servers, destination_servers, table_mappings and config. The rest is Sluice's.
--   * A wrong value (an unknown on_gap, a table that does not exist) is accepted here and reported on its row in
--     v_mapping_health, so that other rows go on. Only flags and references to servers are refused at once.
--   * Logs have no foreign keys: they outlive what they speak of. No reference cascades, so there is one way at most from
--     any table to any other (Msg 1785).
--   * Names that Sluice compares are of a binary collation: a PostgreSQL source has "Orders" and "orders".
--   * Read-committed snapshots are recommended: views and Sluice's own reads then wait for no writer.
--   * full_sync_requests and error_logs have filtered indexes: a session that writes to them needs QUOTED_IDENTIFIER ON
--     (sqlcmd -I), as SSMS and all drivers have it.

SET ANSI_NULLS ON;
SET QUOTED_IDENTIFIER ON;
GO

-- One row: what this installation is.
CREATE TABLE dbo.meta (
  meta_id            smallint         NOT NULL CONSTRAINT meta_pk PRIMARY KEY DEFAULT 1 CONSTRAINT meta_one_row CHECK (meta_id = 1),
  -- Names slots, staging tables and position rows of this installation. A new control database is a new installation.
  installation_uid   uniqueidentifier NOT NULL DEFAULT NEWID(),
  schema_version     int              NOT NULL,
  -- The oldest program that may work on this schema: programs that only know schemas below it stop with CONTROL_TOO_NEW.
  min_reader_version int              NOT NULL,
  -- Epochs of leases are drawn from it; never goes back.
  epoch_counter      bigint           NOT NULL DEFAULT 0,
  created_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  updated_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME()
);
GO

-- ---------------------------------------------------------------------------------------------------------------------
-- Yours: what to copy

CREATE TABLE dbo.source_servers (
  server_id          int              IDENTITY(1,1) NOT NULL CONSTRAINT source_servers_pk PRIMARY KEY,
  server_name        nvarchar(255)    NOT NULL CONSTRAINT source_servers_name_taken UNIQUE,
  -- server=host;user id=login;password=${env:PASSWORD};database=db — ${env:…}, ${file:…} and enc:v1:… keep the secret out of this table
  connection_string  nvarchar(max)    NOT NULL,
  is_enabled         bit              NOT NULL DEFAULT 1,
  created_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  updated_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  last_connected_at  datetime2(3)     NULL, -- written by Sluice
  notes              nvarchar(max)    NULL
);
GO

CREATE TABLE dbo.destination_servers (
  server_id          int              IDENTITY(1,1) NOT NULL CONSTRAINT destination_servers_pk PRIMARY KEY,
  server_name        nvarchar(255)    NOT NULL CONSTRAINT destination_servers_name_taken UNIQUE,
  connection_string  nvarchar(max)    NOT NULL,
  is_enabled         bit              NOT NULL DEFAULT 1,
  created_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  updated_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  last_connected_at  datetime2(3)     NULL, -- written by Sluice
  notes              nvarchar(max)    NULL
);
GO

-- Only server_id and source_table are required:
--   INSERT INTO table_mappings (server_id, source_table) VALUES (1, 'Orders');
CREATE TABLE dbo.table_mappings (
  mapping_id         int              IDENTITY(1,1) NOT NULL CONSTRAINT table_mappings_pk PRIMARY KEY,
  server_id          int              NOT NULL CONSTRAINT table_mappings_server_in_use REFERENCES dbo.source_servers (server_id),
  source_database    nvarchar(255)    NULL, -- NULL: the connection string's
  source_schema      nvarchar(255)    NULL, -- NULL: the engine's default (dbo, public)
  source_table       nvarchar(255)    NOT NULL,
  dest_database      nvarchar(255)    NULL, -- NULL: the source's name
  dest_schema        nvarchar(255)    NULL, -- NULL: the source's name
  dest_table         nvarchar(255)    NULL, -- NULL: the source's name
  primary_key_column nvarchar(500)    NULL, -- NULL: from the catalog; 'a, b' is a composite key; names may be quoted
  full_sync_trigger_column nvarchar(255) NULL, -- a column of the source: a row that sets it to 1 requests a full sync
  is_full_sync       bit              NOT NULL DEFAULT 0, -- 1 requests a full sync; 0 while it runs cancels it
  is_enabled         bit              NOT NULL DEFAULT 1,
  cdc_enabled        bit              NOT NULL DEFAULT 1, -- 0: full syncs only
  last_cdc_lsn       binary(10)       NULL, -- these three are written by Sluice, for display, at most once a minute
  last_cdc_sync_at   datetime2(3)     NULL,
  last_full_sync_at  datetime2(3)     NULL,
  created_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  updated_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(), -- when you last changed the row
  dest_server_id     int              NULL CONSTRAINT table_mappings_dest_server_in_use REFERENCES dbo.destination_servers (server_id), -- NULL: the control server
  apply_group        nvarchar(255)    NULL, -- mappings of one group commit together; NULL: the common one
  initial_sync       nvarchar(20)     NULL DEFAULT N'copy', -- 'copy', or 'none': the destination already holds the rows
  on_gap             nvarchar(20)     NULL DEFAULT N'stop', -- 'stop', or 'resync': copy again by itself when changes were lost
  max_failed_rows    bigint           NOT NULL DEFAULT 0, -- rows the destination may refuse before the mapping stops
  keep_failed_values bit              NOT NULL DEFAULT 0, -- 1: dead_letters keep values, not only keys
  mapping_uid        uniqueidentifier NOT NULL DEFAULT NEWID() CONSTRAINT table_mappings_uid UNIQUE, -- made by the database; leave it alone
  full_sync_flips    bigint           NOT NULL DEFAULT 0 -- counted by the trigger below: how often is_full_sync became 1
);
CREATE INDEX table_mappings_by_server ON dbo.table_mappings (server_id, is_enabled);
CREATE INDEX table_mappings_by_dest_server ON dbo.table_mappings (dest_server_id);
GO

CREATE TABLE dbo.config (
  config_key         nvarchar(100)    NOT NULL CONSTRAINT config_pk PRIMARY KEY,
  config_value       nvarchar(500)    NOT NULL,
  description        nvarchar(max)    NULL,
  updated_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME()
);
GO

-- updated_at says when a person changed the row: columns that Sluice writes do not count, nor does is_full_sync going back
-- to 0. full_sync_flips tells a new request (0, then 1 again) from one that is still being served.
-- The first line ends the recursion where a database has RECURSIVE_TRIGGERS ON.
CREATE TRIGGER dbo.touch_mapping ON dbo.table_mappings AFTER UPDATE AS
BEGIN
  SET NOCOUNT ON;
  IF NOT EXISTS (SELECT 1 FROM inserted) RETURN;
  UPDATE m
  SET full_sync_flips = d.full_sync_flips + CASE WHEN i.is_full_sync = 1 AND d.is_full_sync = 0 THEN 1 ELSE 0 END,
      updated_at = SYSUTCDATETIME()
  FROM dbo.table_mappings AS m
  JOIN inserted AS i ON i.mapping_id = m.mapping_id
  JOIN deleted AS d ON d.mapping_id = m.mapping_id
  WHERE (i.is_full_sync = 1 AND d.is_full_sync = 0)
     OR EXISTS (
       SELECT i.server_id, i.dest_server_id, i.is_enabled, i.cdc_enabled, i.max_failed_rows, i.keep_failed_values, i.mapping_uid,
              i.source_database COLLATE Latin1_General_BIN2 AS a, i.source_schema COLLATE Latin1_General_BIN2 AS b,
              i.source_table COLLATE Latin1_General_BIN2 AS c, i.dest_database COLLATE Latin1_General_BIN2 AS d,
              i.dest_schema COLLATE Latin1_General_BIN2 AS e, i.dest_table COLLATE Latin1_General_BIN2 AS f,
              i.primary_key_column COLLATE Latin1_General_BIN2 AS g, i.full_sync_trigger_column COLLATE Latin1_General_BIN2 AS h,
              i.apply_group COLLATE Latin1_General_BIN2 AS j, i.initial_sync COLLATE Latin1_General_BIN2 AS k,
              i.on_gap COLLATE Latin1_General_BIN2 AS l
       EXCEPT
       SELECT d.server_id, d.dest_server_id, d.is_enabled, d.cdc_enabled, d.max_failed_rows, d.keep_failed_values, d.mapping_uid,
              d.source_database COLLATE Latin1_General_BIN2, d.source_schema COLLATE Latin1_General_BIN2,
              d.source_table COLLATE Latin1_General_BIN2, d.dest_database COLLATE Latin1_General_BIN2,
              d.dest_schema COLLATE Latin1_General_BIN2, d.dest_table COLLATE Latin1_General_BIN2,
              d.primary_key_column COLLATE Latin1_General_BIN2, d.full_sync_trigger_column COLLATE Latin1_General_BIN2,
              d.apply_group COLLATE Latin1_General_BIN2, d.initial_sync COLLATE Latin1_General_BIN2,
              d.on_gap COLLATE Latin1_General_BIN2);
END;
GO

CREATE TRIGGER dbo.touch_source_server ON dbo.source_servers AFTER UPDATE AS
BEGIN
  SET NOCOUNT ON;
  IF NOT EXISTS (SELECT 1 FROM inserted) RETURN;
  UPDATE s
  SET updated_at = SYSUTCDATETIME()
  FROM dbo.source_servers AS s
  JOIN inserted AS i ON i.server_id = s.server_id
  JOIN deleted AS d ON d.server_id = s.server_id
  WHERE EXISTS (
    SELECT i.is_enabled, i.server_name COLLATE Latin1_General_BIN2 AS a,
           i.connection_string COLLATE Latin1_General_BIN2 AS b, i.notes COLLATE Latin1_General_BIN2 AS c
    EXCEPT
    SELECT d.is_enabled, d.server_name COLLATE Latin1_General_BIN2,
           d.connection_string COLLATE Latin1_General_BIN2, d.notes COLLATE Latin1_General_BIN2);
END;
GO

CREATE TRIGGER dbo.touch_destination_server ON dbo.destination_servers AFTER UPDATE AS
BEGIN
  SET NOCOUNT ON;
  IF NOT EXISTS (SELECT 1 FROM inserted) RETURN;
  UPDATE s
  SET updated_at = SYSUTCDATETIME()
  FROM dbo.destination_servers AS s
  JOIN inserted AS i ON i.server_id = s.server_id
  JOIN deleted AS d ON d.server_id = s.server_id
  WHERE EXISTS (
    SELECT i.is_enabled, i.server_name COLLATE Latin1_General_BIN2 AS a,
           i.connection_string COLLATE Latin1_General_BIN2 AS b, i.notes COLLATE Latin1_General_BIN2 AS c
    EXCEPT
    SELECT d.is_enabled, d.server_name COLLATE Latin1_General_BIN2,
           d.connection_string COLLATE Latin1_General_BIN2, d.notes COLLATE Latin1_General_BIN2);
END;
GO

CREATE TRIGGER dbo.touch_config ON dbo.config AFTER UPDATE AS
BEGIN
  SET NOCOUNT ON;
  IF NOT EXISTS (SELECT 1 FROM inserted) RETURN;
  UPDATE c
  SET updated_at = SYSUTCDATETIME()
  FROM dbo.config AS c
  JOIN inserted AS i ON i.config_key = c.config_key
  JOIN deleted AS d ON d.config_key = c.config_key
  WHERE i.config_value COLLATE Latin1_General_BIN2 <> d.config_value COLLATE Latin1_General_BIN2;
END;
GO

-- ---------------------------------------------------------------------------------------------------------------------
-- Sluice's: where each mapping is

-- Everything the service writes often about a mapping. No foreign key: the row of a deleted mapping stays until what it
-- left behind on servers has been cleaned up.
CREATE TABLE dbo.mapping_state (
  mapping_uid         uniqueidentifier NOT NULL CONSTRAINT mapping_state_pk PRIMARY KEY,
  mapping_id          int              NOT NULL,
  state               nvarchar(20)     NOT NULL DEFAULT N'new', -- new, copying, streaming, idle, paused, gap, failed
  state_since         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  error_code          nvarchar(50)     NULL,
  error_message       nvarchar(max)    NULL,
  error_hint          nvarchar(max)    NULL,
  warning             nvarchar(max)    NULL, -- what somebody should do at the source; changes go on arriving meanwhile
  warning_hint        nvarchar(max)    NULL,
  retry_at            datetime2(3)     NULL,
  attempts            int              NOT NULL DEFAULT 0,
  position            nvarchar(max)    NULL, -- for display; never read back
  display_lsn         varbinary(64)    NULL, -- for table_mappings.last_cdc_lsn; never read back
  last_commit_at      datetime2(3)     NULL, -- when the newest applied transaction committed at the source
  lag_seconds         float            NULL, -- behind the source, as of updated_at
  rows_inserted       bigint           NOT NULL DEFAULT 0,
  rows_updated        bigint           NOT NULL DEFAULT 0,
  rows_deleted        bigint           NOT NULL DEFAULT 0,
  rows_failed         bigint           NOT NULL DEFAULT 0,
  last_verified_at    datetime2(3)     NULL,
  verification_status nvarchar(50)     NULL, -- PASSED, FAILED, PARTIAL
  person_hash         nvarchar(64)     NULL, -- of your columns, as last acted upon
  trigger_seen_zero   bit              NOT NULL DEFAULT 1, -- 0: the trigger column could not be reset
  server_id           int              NULL, -- where it was placed, so that a deleted mapping can be cleaned up
  dest_server_id      int              NULL,
  dest_database       nvarchar(255)    NULL,
  stream              nvarchar(400)    COLLATE Latin1_General_BIN2 NULL,
  apply_group         nvarchar(255)    NULL,
  updated_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME()
);
CREATE INDEX mapping_state_by_mapping ON dbo.mapping_state (mapping_id);
GO

-- What the source says of each change stream; written by who reads it, when it has changed.
CREATE TABLE dbo.stream_health (
  stream              nvarchar(400)    COLLATE Latin1_General_BIN2 NOT NULL CONSTRAINT stream_health_pk PRIMARY KEY,
  last_captured_at    datetime2(3)     NULL, -- when the newest transaction committed that the source's capture job has recorded; an idle job makes a mark each 5 minutes
  retention_headroom_seconds float     NULL, -- how long until the source discards, by age, what was not read
  retention_headroom_bytes bigint      NULL, -- … or by size
  error_code          nvarchar(50)     NULL, -- why nothing is captured: agent or capture job stopped, sys.dm_cdc_errors
  error_message       nvarchar(max)    NULL,
  error_hint          nvarchar(max)    NULL,
  updated_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME()
);
GO

-- At most one request of a mapping runs, and at most one waits beside it.
CREATE TABLE dbo.full_sync_requests (
  request_id          bigint           IDENTITY(1,1) NOT NULL CONSTRAINT full_sync_requests_pk PRIMARY KEY,
  mapping_id          int              NOT NULL,
  mapping_uid         uniqueidentifier NOT NULL,
  reason              nvarchar(30)     NOT NULL, -- flag, trigger, cli, api, initial, gap, schema_change
  status              nvarchar(20)     NOT NULL DEFAULT N'queued', -- queued, running, completed, failed, cancelled
  is_confirmed        bit              NOT NULL DEFAULT 1, -- 0: the source's trigger column is not yet known to be reset
  flag_flip           bigint           NULL, -- the full_sync_flips that this request serves
  requested_by        nvarchar(255)    NULL,
  requested_at        datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  owner               nvarchar(64)     NULL,
  started_at          datetime2(3)     NULL,
  finished_at         datetime2(3)     NULL,
  rows_copied         bigint           NULL,
  error_code          nvarchar(50)     NULL,
  error_message       nvarchar(max)    NULL
);
CREATE UNIQUE INDEX full_sync_requests_one_queued ON dbo.full_sync_requests (mapping_uid) WHERE status = N'queued';
CREATE UNIQUE INDEX full_sync_requests_one_running ON dbo.full_sync_requests (mapping_uid) WHERE status = N'running';
CREATE INDEX full_sync_requests_by_mapping ON dbo.full_sync_requests (mapping_uid, request_id DESC);
CREATE INDEX full_sync_requests_by_status ON dbo.full_sync_requests (status, mapping_uid);
CREATE INDEX full_sync_requests_by_finish ON dbo.full_sync_requests (finished_at);
GO

-- Who owns what, by this database's clock.
CREATE TABLE dbo.leases (
  lease_key           nvarchar(400)    COLLATE Latin1_General_BIN2 NOT NULL CONSTRAINT leases_pk PRIMARY KEY,
  owner               nvarchar(64)     NOT NULL, -- the process's own uuid: a restarted process is another owner
  host                nvarchar(255)    NULL,
  pid                 int              NULL,
  epoch               bigint           NULL,
  acquired_at         datetime2(3)     NOT NULL,
  renewed_at          datetime2(3)     NOT NULL,
  expires_at          datetime2(3)     NOT NULL
);
GO

-- What Sluice made on sources (slots, publications, capture instances), to be undone when the last mapping leaves.
CREATE TABLE dbo.source_objects (
  object_id           bigint           IDENTITY(1,1) NOT NULL CONSTRAINT source_objects_pk PRIMARY KEY,
  server_id           int              NOT NULL,
  database_name       nvarchar(255)    COLLATE Latin1_General_BIN2 NOT NULL,
  object_type         nvarchar(50)     NOT NULL,
  object_name         nvarchar(255)    COLLATE Latin1_General_BIN2 NOT NULL,
  mapping_uid         uniqueidentifier NULL, -- NULL: belongs to the stream
  stream              nvarchar(max)    COLLATE Latin1_General_BIN2 NULL,
  undo_sql            nvarchar(max)    NULL, -- what undoes it, for a person
  created_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  updated_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  CONSTRAINT source_objects_once UNIQUE (server_id, database_name, object_type, object_name)
);
GO

-- Chunks of running copies, for display; the destination keeps its own record, which decides.
CREATE TABLE dbo.sync_progress (
  request_id          bigint           NOT NULL,
  chunk_id            int              NOT NULL,
  mapping_id          int              NOT NULL,
  rows_copied         bigint           NOT NULL DEFAULT 0,
  bytes_copied        bigint           NOT NULL DEFAULT 0,
  completed_at        datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  CONSTRAINT sync_progress_pk PRIMARY KEY (request_id, chunk_id)
);
GO

-- ---------------------------------------------------------------------------------------------------------------------
-- Sluice's: what happened

-- One row per run.
CREATE TABLE dbo.sync_status (
  status_id           bigint           IDENTITY(1,1) NOT NULL CONSTRAINT sync_status_pk PRIMARY KEY,
  mapping_id          int              NOT NULL,
  sync_type           nvarchar(50)     NOT NULL, -- FULL_SYNC, CDC
  status              nvarchar(50)     NOT NULL, -- RUNNING, COMPLETED, ERROR, PAUSED
  records_processed   bigint           NOT NULL DEFAULT 0,
  records_failed      bigint           NOT NULL DEFAULT 0,
  started_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  completed_at        datetime2(3)     NULL,
  error_message       nvarchar(max)    NULL,
  error_code          nvarchar(50)     NULL,
  request_id          bigint           NULL,
  owner               nvarchar(64)     NULL,
  phase               nvarchar(50)     NULL,
  rows_estimated      bigint           NULL,
  bytes_processed     bigint           NOT NULL DEFAULT 0,
  rows_per_second     float            NULL,
  seconds_left        float            NULL,
  updated_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME()
);
CREATE INDEX sync_status_by_mapping ON dbo.sync_status (mapping_id, sync_type, status_id DESC);
CREATE INDEX sync_status_by_status ON dbo.sync_status (status, sync_type, mapping_id, status_id DESC);
CREATE INDEX sync_status_by_completion ON dbo.sync_status (completed_at);
GO

CREATE TABLE dbo.sync_logs (
  log_id              bigint           IDENTITY(1,1) NOT NULL CONSTRAINT sync_logs_pk PRIMARY KEY,
  mapping_id          int              NULL, -- NULL: about the service
  log_level           nvarchar(20)     NOT NULL, -- INFO, WARNING, ERROR
  log_message         nvarchar(max)    NOT NULL,
  sync_type           nvarchar(50)     NULL, -- CDC, FULL_SYNC, VERIFICATION, SCHEMA_CHECK
  records_count       bigint           NULL,
  execution_time_ms   bigint           NULL,
  created_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  error_code          nvarchar(50)     NULL,
  details             nvarchar(max)    NULL
);
CREATE INDEX sync_logs_by_mapping ON dbo.sync_logs (mapping_id, log_id DESC);
CREATE INDEX sync_logs_by_time ON dbo.sync_logs (created_at);
GO

-- An error that repeats unchanged is one row with a growing retry_count.
CREATE TABLE dbo.error_logs (
  error_id            bigint           IDENTITY(1,1) NOT NULL CONSTRAINT error_logs_pk PRIMARY KEY,
  mapping_id          int              NULL,
  server_id           int              NULL,
  error_type          nvarchar(50)     NOT NULL, -- CONNECTION, SYNC, CDC, SCHEMA, VERIFICATION, OTHER
  error_message       nvarchar(max)    NOT NULL,
  error_details       nvarchar(max)    NULL,
  retry_count         int              NOT NULL DEFAULT 0,
  is_resolved         bit              NOT NULL DEFAULT 0,
  created_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  resolved_at         datetime2(3)     NULL,
  error_code          nvarchar(50)     NOT NULL,
  hint                nvarchar(max)    NULL,
  last_seen_at        datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  fingerprint         nvarchar(64)     NOT NULL
);
CREATE UNIQUE INDEX error_logs_open_once ON dbo.error_logs (fingerprint) WHERE is_resolved = 0;
CREATE INDEX error_logs_by_mapping ON dbo.error_logs (mapping_id, error_id DESC);
CREATE INDEX error_logs_open ON dbo.error_logs (is_resolved, last_seen_at DESC);
CREATE INDEX error_logs_by_time ON dbo.error_logs (last_seen_at);
GO

CREATE TABLE dbo.verification_logs (
  verification_id     bigint           IDENTITY(1,1) NOT NULL CONSTRAINT verification_logs_pk PRIMARY KEY,
  mapping_id          int              NOT NULL,
  verification_type   nvarchar(50)     NOT NULL, -- MD5_COMPARISON, ROW_COUNT, SCHEMA
  source_md5          nvarchar(32)     NULL,
  dest_md5            nvarchar(32)     NULL,
  source_row_count    bigint           NULL,
  dest_row_count      bigint           NULL,
  records_compared    bigint           NOT NULL DEFAULT 0,
  mismatches_found    bigint           NOT NULL DEFAULT 0,
  verification_status nvarchar(50)     NOT NULL, -- PASSED, FAILED, PARTIAL
  verification_details nvarchar(max)   NULL,
  verified_at         datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  duration_ms         bigint           NULL
);
CREATE INDEX verification_logs_by_mapping ON dbo.verification_logs (mapping_id, verification_id DESC);
CREATE INDEX verification_logs_by_status ON dbo.verification_logs (verification_status, verified_at DESC);
CREATE INDEX verification_logs_by_time ON dbo.verification_logs (verified_at);
GO

-- Keys that differ between source and destination. Keys are row values: they are kept here and in dead_letters only.
CREATE TABLE dbo.verification_mismatches (
  mismatch_id         bigint           IDENTITY(1,1) NOT NULL CONSTRAINT verification_mismatches_pk PRIMARY KEY,
  verification_id     bigint           NOT NULL,
  mapping_id          int              NOT NULL,
  kind                nvarchar(20)     NOT NULL, -- missing, extra, different (seen from the destination)
  key_text            nvarchar(max)    COLLATE Latin1_General_BIN2 NOT NULL, -- JSON array, one text per key column
  found_at            datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  repaired_at         datetime2(3)     NULL
);
CREATE INDEX verification_mismatches_by_run ON dbo.verification_mismatches (verification_id);
CREATE INDEX verification_mismatches_by_mapping ON dbo.verification_mismatches (mapping_id, mismatch_id DESC);
CREATE INDEX verification_mismatches_by_time ON dbo.verification_mismatches (found_at);
GO

-- Rows the destination refused. One per mapping, position and key, however often the batch was tried.
CREATE TABLE dbo.dead_letters (
  dead_letter_id      bigint           IDENTITY(1,1) NOT NULL CONSTRAINT dead_letters_pk PRIMARY KEY,
  mapping_id          int              NOT NULL,
  mapping_uid         uniqueidentifier NOT NULL,
  position            nvarchar(max)    NOT NULL, -- of the change; 'copy:<request id>' for rows of a full sync
  key_hash            nvarchar(64)     NOT NULL,
  key_text            nvarchar(max)    NOT NULL, -- JSON array, one text per key column
  operation           nvarchar(20)     NOT NULL, -- upsert, delete, copy
  error_code          nvarchar(50)     NOT NULL,
  reason              nvarchar(max)    NOT NULL,
  row_values          nvarchar(max)    NULL, -- only with keep_failed_values = 1
  created_at          datetime2(3)     NOT NULL DEFAULT SYSUTCDATETIME(),
  position_hash       nvarchar(64)     NOT NULL
);
CREATE UNIQUE INDEX dead_letters_once ON dbo.dead_letters (mapping_uid, position_hash, key_hash);
CREATE INDEX dead_letters_by_mapping ON dbo.dead_letters (mapping_id, dead_letter_id DESC);
CREATE INDEX dead_letters_by_time ON dbo.dead_letters (created_at);
GO

-- ---------------------------------------------------------------------------------------------------------------------
-- Views

-- The latest run of each mapping and kind; a mapping that runs is RUNNING.
CREATE VIEW dbo.v_sync_summary AS
SELECT s.server_name, m.source_database, m.source_table, COALESCE(m.dest_table, m.source_table) AS dest_table,
       r.status, r.sync_type, r.records_processed, r.records_failed, r.started_at, r.completed_at,
       DATEDIFF_BIG(second, r.started_at, COALESCE(r.completed_at, SYSUTCDATETIME())) AS duration_seconds,
       m.mapping_id, m.source_schema, m.dest_database, m.dest_schema, r.phase, r.rows_estimated, r.bytes_processed,
       r.rows_per_second, r.seconds_left, r.request_id, r.error_code, r.error_message, r.updated_at
FROM dbo.table_mappings AS m
JOIN dbo.source_servers AS s ON s.server_id = m.server_id
CROSS JOIN (SELECT N'FULL_SYNC' AS sync_type UNION ALL SELECT N'CDC') AS kind
CROSS APPLY (
  SELECT TOP (1) x.*
  FROM dbo.sync_status AS x
  WHERE x.mapping_id = m.mapping_id AND x.sync_type = kind.sync_type
  ORDER BY x.status_id DESC
) AS r;
GO

-- The 100 latest errors that are not resolved; ORDER BY last_seen_at DESC puts the newest first.
CREATE VIEW dbo.v_recent_errors AS
SELECT e.error_id, s.server_name, m.source_table, COALESCE(m.dest_table, m.source_table) AS dest_table,
       e.error_type, e.error_message, e.retry_count, e.is_resolved, e.created_at,
       e.mapping_id, e.error_code, e.hint, e.last_seen_at
FROM (SELECT TOP (100) * FROM dbo.error_logs WHERE is_resolved = 0 ORDER BY last_seen_at DESC) AS e
LEFT JOIN dbo.table_mappings AS m ON m.mapping_id = e.mapping_id
LEFT JOIN dbo.source_servers AS s ON s.server_id = COALESCE(e.server_id, m.server_id);
GO

-- One row per mapping: how it is, and what to do.
CREATE VIEW dbo.v_mapping_health AS
SELECT m.mapping_id, s.server_name, m.source_database, m.source_schema, m.source_table,
       m.dest_database, m.dest_schema, COALESCE(m.dest_table, m.source_table) AS dest_table, d.server_name AS dest_server_name,
       m.is_enabled, m.cdc_enabled, m.is_full_sync,
       COALESCE(t.state, N'new') AS state, t.state_since,
       -- behind the source, as of the last change; how long ago the source's capture job came as far as it is
       t.lag_seconds, t.last_commit_at,
       DATEDIFF_BIG(millisecond, h.last_captured_at, SYSUTCDATETIME()) / 1000.0e0 AS capture_lag_seconds, h.last_captured_at,
       h.retention_headroom_seconds, h.retention_headroom_bytes, t.position,
       COALESCE(t.rows_inserted, 0) AS rows_inserted, COALESCE(t.rows_updated, 0) AS rows_updated,
       COALESCE(t.rows_deleted, 0) AS rows_deleted, COALESCE(t.rows_failed, 0) AS rows_failed,
       m.last_full_sync_at, t.last_verified_at, t.verification_status,
       -- its own trouble, else its stream's
       COALESCE(t.error_code, h.error_code) AS error_code,
       CASE WHEN t.error_code IS NULL THEN h.error_message ELSE t.error_message END AS error_message,
       CASE WHEN t.error_code IS NULL THEN h.error_hint ELSE t.error_hint END AS error_hint,
       t.warning, t.warning_hint, t.retry_at, COALESCE(t.attempts, 0) AS attempts,
       r.phase AS full_sync_phase, r.records_processed AS full_sync_rows, r.rows_estimated AS full_sync_rows_estimated,
       r.rows_per_second AS full_sync_rows_per_second, r.seconds_left AS full_sync_seconds_left, t.updated_at
FROM dbo.table_mappings AS m
JOIN dbo.source_servers AS s ON s.server_id = m.server_id
LEFT JOIN dbo.destination_servers AS d ON d.server_id = m.dest_server_id
LEFT JOIN dbo.mapping_state AS t ON t.mapping_uid = m.mapping_uid
LEFT JOIN dbo.stream_health AS h ON h.stream = t.stream AND m.is_enabled = 1 AND s.is_enabled = 1
-- Few rows run: they are read once, in the index's order, instead of looked for once per mapping.
LEFT JOIN (
  SELECT x.*, ROW_NUMBER() OVER (PARTITION BY x.mapping_id ORDER BY x.status_id DESC) AS newest
  FROM dbo.sync_status AS x
  WHERE x.status = N'RUNNING' AND x.sync_type = N'FULL_SYNC'
) AS r ON r.mapping_id = m.mapping_id AND r.newest = 1;
GO

-- The 1000 latest log lines; ORDER BY log_id DESC puts the newest first.
CREATE VIEW dbo.v_recent_logs AS
SELECT l.log_id, s.server_name, m.source_table, COALESCE(m.dest_table, m.source_table) AS dest_table,
       l.log_level, l.log_message, l.created_at, l.mapping_id, l.sync_type, l.records_count, l.execution_time_ms,
       l.error_code, l.details
FROM (SELECT TOP (1000) * FROM dbo.sync_logs ORDER BY log_id DESC) AS l
LEFT JOIN dbo.table_mappings AS m ON m.mapping_id = l.mapping_id
LEFT JOIN dbo.source_servers AS s ON s.server_id = m.server_id;
GO

INSERT INTO dbo.meta (schema_version, min_reader_version) VALUES (1, 1);
GO
