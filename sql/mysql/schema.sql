-- Sluice control database, MySQL 8.0 or later and MariaDB 10.6 or later, schema version 1.
--
-- By hand (`mariadb` and `mysql` take the same options):
--   mariadb -e "CREATE DATABASE sluice CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
--   mariadb sluice < sql/mysql/schema.sql
-- `sluice migrate` (and the service when it starts) runs this same file; later versions are files beside it, run in order.
--
-- Conventions
--   * Flags are tinyint 0 or 1. Times are datetime in UTC, by the server's clock, whatever your session's time zone is.
--   * You write source_servers, destination_servers, table_mappings and config. The rest is Sluice's.
--   * A wrong value (an unknown on_gap, a table that does not exist) is accepted here and reported on its row in
--     v_mapping_health, so that other rows go on. Only flags and references to servers are refused at once.
--   * Logs have no foreign keys: they outlive what they speak of.
--   * All text is compared as it is written, capitals and small letters apart: a source may have "Orders" and "orders".
--   * DDL commits by itself here. Each statement may run again, so that the file can be run again after it was interrupted. A
--     statement ends with the line, and none has statements in it, so that no DELIMITER is needed.
--   * Where only some rows are to be unique there is a generated column that is NULL for the others: neither server has partial
--     indexes. It is stored: MariaDB has had defects with indexes on virtual ones.
--   * With the binary log on, triggers may be made by an account with SUPER (MariaDB: BINLOG ADMIN), or by any once
--     log_bin_trust_function_creators is 1.

-- Triggers and views keep the settings that they were made with.
SET NAMES utf8mb4 COLLATE utf8mb4_bin;
SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO';

-- One row: what this installation is.
CREATE TABLE IF NOT EXISTS meta (
  meta_id            tinyint      NOT NULL PRIMARY KEY DEFAULT 1 CHECK (meta_id = 1),
  -- Names slots, staging tables and position rows of this installation. A new control database is a new installation.
  installation_uid   char(36)     NOT NULL DEFAULT (UUID()),
  schema_version     int          NOT NULL,
  -- The oldest program that may work on this schema: programs that only know schemas below it stop with CONTROL_TOO_NEW.
  min_reader_version int          NOT NULL,
  -- Epochs of leases are drawn from it; never goes back.
  epoch_counter      bigint       NOT NULL DEFAULT 0,
  created_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  updated_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3))
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- ---------------------------------------------------------------------------------------------------------------------
-- Yours: what to copy

CREATE TABLE IF NOT EXISTS source_servers (
  server_id          int          NOT NULL AUTO_INCREMENT PRIMARY KEY,
  server_name        varchar(255) NOT NULL,
  -- postgres://user:${env:PASSWORD}@host:5432/database — ${env:…}, ${file:…} and enc:v1:… keep the secret out of this table
  connection_string  longtext     NOT NULL,
  is_enabled         tinyint(1)   NOT NULL DEFAULT 1 CHECK (is_enabled IN (0, 1)),
  created_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  updated_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  last_connected_at  datetime(3)  NULL, -- written by Sluice
  notes              longtext     NULL,
  UNIQUE KEY source_servers_name_taken (server_name)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS destination_servers (
  server_id          int          NOT NULL AUTO_INCREMENT PRIMARY KEY,
  server_name        varchar(255) NOT NULL,
  connection_string  longtext     NOT NULL,
  is_enabled         tinyint(1)   NOT NULL DEFAULT 1 CHECK (is_enabled IN (0, 1)),
  created_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  updated_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  last_connected_at  datetime(3)  NULL, -- written by Sluice
  notes              longtext     NULL,
  UNIQUE KEY destination_servers_name_taken (server_name)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Only server_id and source_table are required:
--   INSERT INTO table_mappings (server_id, source_table) VALUES (1, 'orders');
CREATE TABLE IF NOT EXISTS table_mappings (
  mapping_id         int          NOT NULL AUTO_INCREMENT PRIMARY KEY,
  server_id          int          NOT NULL,
  source_database    varchar(255) NULL, -- NULL: the connection string's
  source_schema      varchar(255) NULL, -- NULL: the engine's default (public, dbo)
  source_table       varchar(255) NOT NULL,
  dest_database      varchar(255) NULL, -- NULL: the source's name
  dest_schema        varchar(255) NULL, -- NULL: the source's name
  dest_table         varchar(255) NULL, -- NULL: the source's name
  primary_key_column varchar(500) NULL, -- NULL: from the catalog; 'a, b' is a composite key; names may be quoted
  full_sync_trigger_column varchar(255) NULL, -- a column of the source: a row that sets it to 1 requests a full sync
  is_full_sync       tinyint(1)   NOT NULL DEFAULT 0 CHECK (is_full_sync IN (0, 1)), -- 1 requests a full sync; 0 while it runs cancels it
  is_enabled         tinyint(1)   NOT NULL DEFAULT 1 CHECK (is_enabled IN (0, 1)),
  cdc_enabled        tinyint(1)   NOT NULL DEFAULT 1 CHECK (cdc_enabled IN (0, 1)), -- 0: full syncs only
  last_cdc_lsn       varbinary(64) NULL, -- these three are written by Sluice, for display, at most once a minute
  last_cdc_sync_at   datetime(3)  NULL,
  last_full_sync_at  datetime(3)  NULL,
  created_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  updated_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)), -- when you last changed the row
  dest_server_id     int          NULL, -- NULL: the control server
  apply_group        varchar(255) NULL, -- mappings of one group commit together; NULL: the common one
  initial_sync       varchar(20)  NULL DEFAULT 'copy', -- 'copy', or 'none': the destination already holds the rows
  on_gap             varchar(20)  NULL DEFAULT 'stop', -- 'stop', or 'resync': copy again by itself when changes were lost
  max_failed_rows    bigint       NOT NULL DEFAULT 0, -- rows the destination may refuse before the mapping stops
  keep_failed_values tinyint(1)   NOT NULL DEFAULT 0 CHECK (keep_failed_values IN (0, 1)), -- 1: dead_letters keep values, not only keys
  mapping_uid        char(36)     NOT NULL DEFAULT (UUID()), -- made by the database; leave it alone
  full_sync_flips    bigint       NOT NULL DEFAULT 0, -- counted by the trigger below: how often is_full_sync became 1
  UNIQUE KEY table_mappings_uid (mapping_uid),
  KEY table_mappings_by_server (server_id, is_enabled),
  KEY table_mappings_by_dest_server (dest_server_id),
  CONSTRAINT table_mappings_server_in_use FOREIGN KEY (server_id) REFERENCES source_servers (server_id),
  CONSTRAINT table_mappings_dest_server_in_use FOREIGN KEY (dest_server_id) REFERENCES destination_servers (server_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS config (
  config_key         varchar(100) NOT NULL PRIMARY KEY,
  config_value       varchar(500) NOT NULL,
  description        longtext     NULL,
  updated_at         datetime(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3))
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- updated_at says when a person changed the row: columns that Sluice writes do not count, nor does is_full_sync going back
-- to 0. full_sync_flips tells a new request (0, then 1 again) from one that is still being served.
DROP TRIGGER IF EXISTS touch_new_mapping;
CREATE TRIGGER touch_new_mapping BEFORE INSERT ON table_mappings
  FOR EACH ROW SET NEW.full_sync_flips = NEW.is_full_sync;
DROP TRIGGER IF EXISTS touch_mapping;
CREATE TRIGGER touch_mapping BEFORE UPDATE ON table_mappings
  FOR EACH ROW SET
    NEW.full_sync_flips = OLD.full_sync_flips + IF(NEW.is_full_sync = 1 AND OLD.is_full_sync = 0, 1, 0),
    NEW.updated_at = IF(
      NEW.server_id <=> OLD.server_id AND NEW.source_database <=> OLD.source_database AND
      NEW.source_schema <=> OLD.source_schema AND NEW.source_table <=> OLD.source_table AND
      NEW.dest_server_id <=> OLD.dest_server_id AND NEW.dest_database <=> OLD.dest_database AND
      NEW.dest_schema <=> OLD.dest_schema AND NEW.dest_table <=> OLD.dest_table AND
      NEW.primary_key_column <=> OLD.primary_key_column AND
      NEW.full_sync_trigger_column <=> OLD.full_sync_trigger_column AND NEW.is_enabled <=> OLD.is_enabled AND
      NEW.cdc_enabled <=> OLD.cdc_enabled AND NEW.apply_group <=> OLD.apply_group AND
      NEW.initial_sync <=> OLD.initial_sync AND NEW.on_gap <=> OLD.on_gap AND
      NEW.max_failed_rows <=> OLD.max_failed_rows AND NEW.keep_failed_values <=> OLD.keep_failed_values AND
      NEW.mapping_uid <=> OLD.mapping_uid AND NEW.full_sync_flips <=> OLD.full_sync_flips,
      NEW.updated_at, UTC_TIMESTAMP(3));

DROP TRIGGER IF EXISTS touch_source_server;
CREATE TRIGGER touch_source_server BEFORE UPDATE ON source_servers
  FOR EACH ROW SET NEW.updated_at = IF(
    NEW.server_name <=> OLD.server_name AND NEW.connection_string <=> OLD.connection_string AND
    NEW.is_enabled <=> OLD.is_enabled AND NEW.notes <=> OLD.notes,
    NEW.updated_at, UTC_TIMESTAMP(3));
DROP TRIGGER IF EXISTS touch_destination_server;
CREATE TRIGGER touch_destination_server BEFORE UPDATE ON destination_servers
  FOR EACH ROW SET NEW.updated_at = IF(
    NEW.server_name <=> OLD.server_name AND NEW.connection_string <=> OLD.connection_string AND
    NEW.is_enabled <=> OLD.is_enabled AND NEW.notes <=> OLD.notes,
    NEW.updated_at, UTC_TIMESTAMP(3));
DROP TRIGGER IF EXISTS touch_config;
CREATE TRIGGER touch_config BEFORE UPDATE ON config
  FOR EACH ROW SET NEW.updated_at = IF(
    NEW.config_value <=> OLD.config_value,
    NEW.updated_at, UTC_TIMESTAMP(3));

-- ---------------------------------------------------------------------------------------------------------------------
-- Sluice's: where each mapping is

-- Everything the service writes often about a mapping. No foreign key: the row of a deleted mapping stays until what it
-- left behind on servers has been cleaned up.
CREATE TABLE IF NOT EXISTS mapping_state (
  mapping_uid         char(36)         NOT NULL PRIMARY KEY,
  mapping_id          int              NOT NULL,
  state               varchar(20)      NOT NULL DEFAULT 'new', -- new, copying, streaming, idle, paused, gap, failed
  state_since         datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  error_code          varchar(50)      NULL,
  error_message       longtext         NULL,
  error_hint          longtext         NULL,
  warning             longtext         NULL, -- what somebody should do at the source; changes go on arriving meanwhile
  warning_hint        longtext         NULL,
  retry_at            datetime(3)      NULL,
  attempts            int              NOT NULL DEFAULT 0,
  position            longtext         NULL, -- for display; never read back
  display_lsn         varbinary(64)    NULL, -- for table_mappings.last_cdc_lsn; never read back
  last_commit_at      datetime(3)      NULL, -- when the newest applied transaction committed at the source
  lag_seconds         double           NULL, -- behind the source, as of updated_at
  rows_inserted       bigint           NOT NULL DEFAULT 0,
  rows_updated        bigint           NOT NULL DEFAULT 0,
  rows_deleted        bigint           NOT NULL DEFAULT 0,
  rows_failed         bigint           NOT NULL DEFAULT 0,
  last_verified_at    datetime(3)      NULL,
  verification_status varchar(50)      NULL, -- PASSED, FAILED, PARTIAL
  person_hash         varchar(64)      NULL, -- of your columns, as last acted upon
  trigger_seen_zero   tinyint(1)       NOT NULL DEFAULT 1 CHECK (trigger_seen_zero IN (0, 1)), -- 0: the trigger column could not be reset
  server_id           int              NULL, -- where it was placed, so that a deleted mapping can be cleaned up
  dest_server_id      int              NULL,
  dest_database       varchar(255)     NULL,
  stream              varchar(400)     NULL,
  apply_group         varchar(255)     NULL,
  updated_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  KEY mapping_state_by_mapping (mapping_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What the source says of each change stream; written by who reads it, when it has changed.
CREATE TABLE IF NOT EXISTS stream_health (
  stream              varchar(400)     NOT NULL PRIMARY KEY,
  last_captured_at    datetime(3)      NULL, -- when the newest transaction committed that the source's capture job has recorded; an idle job makes a mark each 5 minutes
  retention_headroom_seconds double    NULL, -- how long until the source discards, by age, what was not read
  retention_headroom_bytes bigint      NULL, -- … or by size
  error_code          varchar(50)      NULL, -- why nothing is captured: agent or capture job stopped, sys.dm_cdc_errors, slot invalidated
  error_message       longtext         NULL,
  error_hint          longtext         NULL,
  updated_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3))
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- At most one request of a mapping runs, and at most one waits beside it.
CREATE TABLE IF NOT EXISTS full_sync_requests (
  request_id          bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  mapping_id          int              NOT NULL,
  mapping_uid         char(36)         NOT NULL,
  reason              varchar(30)      NOT NULL, -- flag, trigger, cli, api, initial, gap, schema_change
  status              varchar(20)      NOT NULL DEFAULT 'queued', -- queued, running, completed, failed, cancelled
  is_confirmed        tinyint(1)       NOT NULL DEFAULT 1 CHECK (is_confirmed IN (0, 1)), -- 0: the source's trigger column is not yet known to be reset
  flag_flip           bigint           NULL, -- the full_sync_flips that this request serves
  requested_by        varchar(255)     NULL,
  requested_at        datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  owner               varchar(64)      NULL,
  started_at          datetime(3)      NULL,
  finished_at         datetime(3)      NULL,
  rows_copied         bigint           NULL,
  error_code          varchar(50)      NULL,
  error_message       longtext         NULL,
  open_status         varchar(20)      GENERATED ALWAYS AS (CASE WHEN status IN ('queued', 'running') THEN status END) STORED,
  UNIQUE KEY full_sync_requests_one_open (mapping_uid, open_status),
  KEY full_sync_requests_by_mapping (mapping_uid, request_id),
  KEY full_sync_requests_by_status (status, mapping_uid),
  KEY full_sync_requests_by_finish (finished_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Who owns what, by this database's clock.
CREATE TABLE IF NOT EXISTS leases (
  lease_key           varchar(400)     NOT NULL PRIMARY KEY,
  owner               varchar(64)      NOT NULL, -- the process's own uuid: a restarted process is another owner
  host                varchar(255)     NULL,
  pid                 int              NULL,
  epoch               bigint           NULL,
  acquired_at         datetime(3)      NOT NULL,
  renewed_at          datetime(3)      NOT NULL,
  expires_at          datetime(3)      NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What Sluice made on sources (slots, publications, capture instances), to be undone when the last mapping leaves.
CREATE TABLE IF NOT EXISTS source_objects (
  object_id           bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  server_id           int              NOT NULL,
  database_name       varchar(255)     NOT NULL,
  object_type         varchar(50)      NOT NULL,
  object_name         varchar(255)     NOT NULL,
  mapping_uid         char(36)         NULL, -- NULL: belongs to the stream
  stream              longtext         NULL,
  undo_sql            longtext         NULL, -- what undoes it, for a person
  created_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  updated_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  UNIQUE KEY source_objects_once (server_id, database_name, object_type, object_name)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Chunks of running copies, for display; the destination keeps its own record, which decides.
CREATE TABLE IF NOT EXISTS sync_progress (
  request_id          bigint           NOT NULL,
  chunk_id            int              NOT NULL,
  mapping_id          int              NOT NULL,
  rows_copied         bigint           NOT NULL DEFAULT 0,
  bytes_copied        bigint           NOT NULL DEFAULT 0,
  completed_at        datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  PRIMARY KEY (request_id, chunk_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- ---------------------------------------------------------------------------------------------------------------------
-- Sluice's: what happened

-- One row per run.
CREATE TABLE IF NOT EXISTS sync_status (
  status_id           bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  mapping_id          int              NOT NULL,
  sync_type           varchar(50)      NOT NULL, -- FULL_SYNC, CDC
  status              varchar(50)      NOT NULL, -- RUNNING, COMPLETED, ERROR, PAUSED
  records_processed   bigint           NOT NULL DEFAULT 0,
  records_failed      bigint           NOT NULL DEFAULT 0,
  started_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  completed_at        datetime(3)      NULL,
  error_message       longtext         NULL,
  error_code          varchar(50)      NULL,
  request_id          bigint           NULL,
  owner               varchar(64)      NULL,
  phase               varchar(50)      NULL,
  rows_estimated      bigint           NULL,
  bytes_processed     bigint           NOT NULL DEFAULT 0,
  rows_per_second     double           NULL,
  seconds_left        double           NULL,
  updated_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  KEY sync_status_by_mapping (mapping_id, sync_type, status_id),
  KEY sync_status_by_status (status, sync_type, mapping_id, status_id),
  KEY sync_status_by_completion (completed_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS sync_logs (
  log_id              bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  mapping_id          int              NULL, -- NULL: about the service
  log_level           varchar(20)      NOT NULL, -- INFO, WARNING, ERROR
  log_message         longtext         NOT NULL,
  sync_type           varchar(50)      NULL, -- CDC, FULL_SYNC, VERIFICATION, SCHEMA_CHECK
  records_count       bigint           NULL,
  execution_time_ms   bigint           NULL,
  created_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  error_code          varchar(50)      NULL,
  details             longtext         NULL,
  KEY sync_logs_by_mapping (mapping_id, log_id),
  KEY sync_logs_by_time (created_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- An error that repeats unchanged is one row with a growing retry_count.
CREATE TABLE IF NOT EXISTS error_logs (
  error_id            bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  mapping_id          int              NULL,
  server_id           int              NULL,
  error_type          varchar(50)      NOT NULL, -- CONNECTION, SYNC, CDC, SCHEMA, VERIFICATION, OTHER
  error_message       longtext         NOT NULL,
  error_details       longtext         NULL,
  retry_count         int              NOT NULL DEFAULT 0,
  is_resolved         tinyint(1)       NOT NULL DEFAULT 0 CHECK (is_resolved IN (0, 1)),
  created_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  resolved_at         datetime(3)      NULL,
  error_code          varchar(50)      NOT NULL,
  hint                longtext         NULL,
  last_seen_at        datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  fingerprint         varchar(64)      NOT NULL,
  open_fingerprint    varchar(64)      GENERATED ALWAYS AS (CASE WHEN is_resolved = 0 THEN fingerprint END) STORED,
  UNIQUE KEY error_logs_open_once (open_fingerprint),
  KEY error_logs_by_mapping (mapping_id, error_id),
  KEY error_logs_open (is_resolved, last_seen_at),
  KEY error_logs_by_time (last_seen_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS verification_logs (
  verification_id     bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  mapping_id          int              NOT NULL,
  verification_type   varchar(50)      NOT NULL, -- MD5_COMPARISON, ROW_COUNT, SCHEMA
  source_md5          varchar(32)      NULL,
  dest_md5            varchar(32)      NULL,
  source_row_count    bigint           NULL,
  dest_row_count      bigint           NULL,
  records_compared    bigint           NOT NULL DEFAULT 0,
  mismatches_found    bigint           NOT NULL DEFAULT 0,
  verification_status varchar(50)      NOT NULL, -- PASSED, FAILED, PARTIAL
  verification_details longtext        NULL,
  verified_at         datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  duration_ms         bigint           NULL,
  KEY verification_logs_by_mapping (mapping_id, verification_id),
  KEY verification_logs_by_status (verification_status, verified_at),
  KEY verification_logs_by_time (verified_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Keys that differ between source and destination. Keys are row values: they are kept here and in dead_letters only.
CREATE TABLE IF NOT EXISTS verification_mismatches (
  mismatch_id         bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  verification_id     bigint           NOT NULL,
  mapping_id          int              NOT NULL,
  kind                varchar(20)      NOT NULL, -- missing, extra, different (seen from the destination)
  key_text            longtext         NOT NULL, -- JSON array, one text per key column
  found_at            datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  repaired_at         datetime(3)      NULL,
  KEY verification_mismatches_by_run (verification_id),
  KEY verification_mismatches_by_mapping (mapping_id, mismatch_id),
  KEY verification_mismatches_by_time (found_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Rows the destination refused. One per mapping, position and key, however often the batch was tried.
CREATE TABLE IF NOT EXISTS dead_letters (
  dead_letter_id      bigint           NOT NULL AUTO_INCREMENT PRIMARY KEY,
  mapping_id          int              NOT NULL,
  mapping_uid         char(36)         NOT NULL,
  position            longtext         NOT NULL, -- of the change; 'copy:<request id>' for rows of a full sync
  key_hash            varchar(64)      NOT NULL,
  key_text            longtext         NOT NULL, -- JSON array, one text per key column
  operation           varchar(20)      NOT NULL, -- upsert, delete, copy
  error_code          varchar(50)      NOT NULL,
  reason              longtext         NOT NULL,
  row_values          longtext         NULL, -- only with keep_failed_values = 1
  created_at          datetime(3)      NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
  position_hash       varchar(64)      NOT NULL,
  UNIQUE KEY dead_letters_once (mapping_uid, position_hash, key_hash),
  KEY dead_letters_by_mapping (mapping_id, dead_letter_id),
  KEY dead_letters_by_time (created_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- ---------------------------------------------------------------------------------------------------------------------
-- Views

-- The latest run of each mapping and kind; a mapping that runs is RUNNING.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_sync_summary AS
SELECT s.server_name, m.source_database, m.source_table, coalesce(m.dest_table, m.source_table) AS dest_table,
       r.status, r.sync_type, r.records_processed, r.records_failed, r.started_at, r.completed_at,
       TIMESTAMPDIFF(SECOND, r.started_at, coalesce(r.completed_at, UTC_TIMESTAMP(3))) AS duration_seconds,
       m.mapping_id, m.source_schema, m.dest_database, m.dest_schema, r.phase, r.rows_estimated, r.bytes_processed,
       r.rows_per_second, r.seconds_left, r.request_id, r.error_code, r.error_message, r.updated_at
FROM table_mappings m
JOIN source_servers s ON s.server_id = m.server_id
JOIN (
  SELECT mapping_id, max(status_id) AS status_id
  FROM sync_status
  WHERE sync_type IN ('FULL_SYNC', 'CDC')
  GROUP BY mapping_id, sync_type
) newest ON newest.mapping_id = m.mapping_id
JOIN sync_status r ON r.status_id = newest.status_id;

-- The 100 latest errors that are not resolved.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_recent_errors AS
SELECT e.error_id, s.server_name, m.source_table, coalesce(m.dest_table, m.source_table) AS dest_table,
       e.error_type, e.error_message, e.retry_count, e.is_resolved, e.created_at,
       e.mapping_id, e.error_code, e.hint, e.last_seen_at
FROM (SELECT * FROM error_logs WHERE is_resolved = 0 ORDER BY last_seen_at DESC LIMIT 100) e
LEFT JOIN table_mappings m ON m.mapping_id = e.mapping_id
LEFT JOIN source_servers s ON s.server_id = coalesce(e.server_id, m.server_id)
ORDER BY e.last_seen_at DESC;

-- One row per mapping: how it is, and what to do.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_mapping_health AS
SELECT m.mapping_id, s.server_name, m.source_database, m.source_schema, m.source_table,
       m.dest_database, m.dest_schema, coalesce(m.dest_table, m.source_table) AS dest_table, d.server_name AS dest_server_name,
       m.is_enabled, m.cdc_enabled, m.is_full_sync,
       coalesce(t.state, 'new') AS state, t.state_since,
       -- behind the source, as of the last change; how long ago the source's capture job came as far as it is
       t.lag_seconds, t.last_commit_at,
       TIMESTAMPDIFF(MICROSECOND, h.last_captured_at, UTC_TIMESTAMP(3)) / 1e6 AS capture_lag_seconds, h.last_captured_at,
       h.retention_headroom_seconds, h.retention_headroom_bytes, t.position,
       coalesce(t.rows_inserted, 0) AS rows_inserted, coalesce(t.rows_updated, 0) AS rows_updated,
       coalesce(t.rows_deleted, 0) AS rows_deleted, coalesce(t.rows_failed, 0) AS rows_failed,
       m.last_full_sync_at, t.last_verified_at, t.verification_status,
       -- its own trouble, else its stream's
       coalesce(t.error_code, h.error_code) AS error_code,
       CASE WHEN t.error_code IS NULL THEN h.error_message ELSE t.error_message END AS error_message,
       CASE WHEN t.error_code IS NULL THEN h.error_hint ELSE t.error_hint END AS error_hint,
       t.warning, t.warning_hint, t.retry_at, coalesce(t.attempts, 0) AS attempts,
       r.phase AS full_sync_phase, r.records_processed AS full_sync_rows, r.rows_estimated AS full_sync_rows_estimated,
       r.rows_per_second AS full_sync_rows_per_second, r.seconds_left AS full_sync_seconds_left, t.updated_at
FROM table_mappings m
JOIN source_servers s ON s.server_id = m.server_id
LEFT JOIN destination_servers d ON d.server_id = m.dest_server_id
LEFT JOIN mapping_state t ON t.mapping_uid = m.mapping_uid
LEFT JOIN stream_health h ON h.stream = t.stream AND m.is_enabled = 1 AND s.is_enabled = 1
-- Few rows run: they are read once, in the index's order, instead of looked for once per mapping.
LEFT JOIN (
  SELECT mapping_id, max(status_id) AS status_id
  FROM sync_status
  WHERE status = 'RUNNING' AND sync_type = 'FULL_SYNC'
  GROUP BY mapping_id
) running ON running.mapping_id = m.mapping_id
LEFT JOIN sync_status r ON r.status_id = running.status_id;

-- The 1000 latest log lines.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v_recent_logs AS
SELECT l.log_id, s.server_name, m.source_table, coalesce(m.dest_table, m.source_table) AS dest_table,
       l.log_level, l.log_message, l.created_at, l.mapping_id, l.sync_type, l.records_count, l.execution_time_ms,
       l.error_code, l.details
FROM (SELECT * FROM sync_logs ORDER BY log_id DESC LIMIT 1000) l
LEFT JOIN table_mappings m ON m.mapping_id = l.mapping_id
LEFT JOIN source_servers s ON s.server_id = m.server_id
ORDER BY l.log_id DESC;

INSERT INTO meta (schema_version, min_reader_version) SELECT 1, 1 FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM meta);
