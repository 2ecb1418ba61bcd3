//! The tables, as numbered migrations. A migration that has been released is never edited; a change is a new one.
//!
//! Numbers are signed 64-bit in SQLite: hashes and counters of 64 bits are stored bit for bit. Times are milliseconds since
//! 1970. The views at the end are for people with `sqlite3`.

/// One step forward.
pub struct Migration {
    /// What it does, for the table of migrations.
    pub name: &'static str,
    /// Statements, all in one transaction.
    pub sql: &'static str,
}

/// All of them; version `n` of the schema is what the first `n` make.
pub const MIGRATIONS: &[Migration] = &[
    Migration { name: "tables of the first release", sql: TABLES },
    Migration { name: "views for people", sql: VIEWS },
    Migration { name: "statements that wait for their envoys", sql: STATEMENTS },
];

/// Tables that the server reads to start: small whatever the history, and checked before everything else.
pub const START_TABLES: &[&str] = &["server_state", "envoys", "envoy_progress", "tokens", "trusted", "statements"];

const TABLES: &str = "
CREATE TABLE server_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    server_id BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    revocation_counter INTEGER NOT NULL,
    revocation_digest INTEGER NOT NULL,
    published BLOB,
    interval_ms INTEGER NOT NULL,
    continuity INTEGER NOT NULL,
    clean_shutdown INTEGER NOT NULL
) STRICT;

-- Who they are: changes rarely.
CREATE TABLE envoys (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    hostname TEXT NOT NULL,
    public_key BLOB NOT NULL,
    sealing_key BLOB NOT NULL,
    state INTEGER NOT NULL,
    machine_id TEXT NOT NULL,
    os TEXT NOT NULL,
    arch TEXT NOT NULL,
    enrolled_at INTEGER NOT NULL,
    enrolled_serial INTEGER NOT NULL,
    assigned_serial INTEGER NOT NULL,
    bundle BLOB
) STRICT;
CREATE INDEX envoys_by_hostname ON envoys (hostname);
CREATE INDEX envoys_by_key ON envoys (public_key);

-- How far they are: changes with every report, so it is narrow and apart.
CREATE TABLE envoy_progress (
    id INTEGER PRIMARY KEY,
    last_seen INTEGER NOT NULL,
    status INTEGER NOT NULL,
    ok INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    urgent_watermark INTEGER NOT NULL,
    urgent_link BLOB NOT NULL,
    routine_watermark INTEGER NOT NULL,
    routine_link BLOB NOT NULL,
    trait_hash INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    agent_version TEXT NOT NULL
) STRICT;

-- One row a record: a run, a stretch of runs without change, a gap, an incident. The id is the order of arrival, so that
-- what is oldest lies together. Columns are lossless: the body that the link covers can be made again from them; where it
-- cannot (unknown fields), it is kept in body.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    envoy INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    count INTEGER GENERATED ALWAYS AS (last_seq - first_seq + 1) VIRTUAL,
    previous_link BLOB,
    first_link BLOB,
    last_link BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    first_run_id BLOB,
    run_id BLOB,
    started_at INTEGER,
    started_boot_ms INTEGER,
    last_started_at INTEGER,
    last_started_boot_ms INTEGER,
    duration_ms INTEGER,
    boot_id TEXT,
    bundle_hash BLOB,
    serial INTEGER,
    epoch INTEGER,
    source INTEGER,
    bundle_age_ms INTEGER,
    ok INTEGER,
    changed INTEGER,
    skipped INTEGER,
    failed INTEGER,
    blocked INTEGER,
    status INTEGER,
    dry_run INTEGER,
    reason TEXT,
    error TEXT,
    body BLOB
) STRICT;
CREATE INDEX runs_by_envoy ON runs (envoy, lane, last_seq);

-- Outcomes other than ok and skipped of one run: a JSON array of arrays
-- [resource, type, outcome, duration_ms, message, diff, relapse, consecutive].
CREATE TABLE outcomes (
    run INTEGER PRIMARY KEY,
    list TEXT NOT NULL
) STRICT;

-- Records that came with a sequence which is taken by another content.
CREATE TABLE forks (
    id INTEGER PRIMARY KEY,
    envoy INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    previous_link BLOB NOT NULL,
    first_link BLOB NOT NULL,
    last_link BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    run_id BLOB,
    body BLOB NOT NULL,
    UNIQUE (envoy, lane, first_seq, last_link)
) STRICT;

CREATE TABLE trait_values (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    refs INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT;
-- Stable trees point to a shared value; volatile ones, which no other host has, are inline.
CREATE TABLE traits (
    envoy INTEGER NOT NULL,
    path TEXT NOT NULL,
    value INTEGER,
    json TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY (envoy, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    hash BLOB PRIMARY KEY,
    hostname TEXT,
    replace_host INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    author TEXT NOT NULL,
    used_key BLOB,
    used_uuid BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE trusted (
    entry TEXT PRIMARY KEY,
    enrolled INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE publishes (
    serial INTEGER PRIMARY KEY,
    tree BLOB NOT NULL,
    author TEXT NOT NULL,
    message TEXT NOT NULL,
    summary TEXT NOT NULL,
    at INTEGER NOT NULL,
    envoys INTEGER NOT NULL
) STRICT;
CREATE TABLE revocations (
    counter INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    uuid BLOB,
    detail TEXT NOT NULL
) STRICT;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
";

const VIEWS: &str = "
CREATE VIEW envoy_list AS
SELECT e.id, lower(substr(hex(e.uuid), 1, 8) || '-' || substr(hex(e.uuid), 9, 4) || '-' || substr(hex(e.uuid), 13, 4)
        || '-' || substr(hex(e.uuid), 17, 4) || '-' || substr(hex(e.uuid), 21)) AS uuid,
    e.hostname,
    CASE e.state WHEN 1 THEN 'active' WHEN 2 THEN 'pending' WHEN 3 THEN 'review' WHEN 4 THEN 'duplicate'
        WHEN 5 THEN 'revoked' END AS state,
    datetime(e.enrolled_at / 1000, 'unixepoch') AS enrolled, datetime(p.last_seen / 1000, 'unixepoch') AS seen,
    e.assigned_serial, lower(hex(e.bundle)) AS bundle, p.agent_version, e.os, e.arch,
    p.urgent_watermark, p.routine_watermark
FROM envoys e JOIN envoy_progress p USING (id);

CREATE VIEW run_list AS
SELECT r.id, e.hostname, CASE r.lane WHEN 1 THEN 'urgent' ELSE 'routine' END AS lane,
    CASE r.kind WHEN 1 THEN 'run' WHEN 2 THEN 'stretch' WHEN 3 THEN 'gap' ELSE 'incident' END AS kind,
    r.first_seq, r.last_seq, r.count,
    lower(substr(hex(r.first_run_id), 1, 8) || '-' || substr(hex(r.first_run_id), 9, 4) || '-'
        || substr(hex(r.first_run_id), 13, 4) || '-' || substr(hex(r.first_run_id), 17, 4) || '-'
        || substr(hex(r.first_run_id), 21)) AS first_run_id,
    lower(substr(hex(r.run_id), 1, 8) || '-' || substr(hex(r.run_id), 9, 4) || '-' || substr(hex(r.run_id), 13, 4)
        || '-' || substr(hex(r.run_id), 17, 4) || '-' || substr(hex(r.run_id), 21)) AS run_id,
    datetime(r.received_at / 1000, 'unixepoch') AS received, datetime(r.started_at / 1000, 'unixepoch') AS started,
    r.duration_ms, r.serial, r.epoch,
    CASE r.source WHEN 1 THEN 'live' WHEN 2 THEN 'cache' WHEN 3 THEN 'file' END AS source,
    r.ok, r.changed, r.skipped, r.failed, r.blocked,
    CASE r.status WHEN 5 THEN 'failed' WHEN 6 THEN 'degraded' WHEN 7 THEN 'diverged' WHEN 8 THEN 'relapsed'
        WHEN 9 THEN 'converged' END AS status,
    r.reason, r.error
FROM runs r JOIN envoys e ON e.id = r.envoy;

CREATE VIEW resource_outcomes AS
SELECT o.run, j.key AS place, j.value ->> 0 AS resource, j.value ->> 1 AS type,
    CASE j.value ->> 2 WHEN 1 THEN 'ok' WHEN 2 THEN 'changed' WHEN 3 THEN 'skipped' WHEN 4 THEN 'failed'
        WHEN 5 THEN 'blocked' END AS outcome,
    j.value ->> 3 AS duration_ms, j.value ->> 4 AS message, j.value ->> 5 AS diff, j.value ->> 6 AS relapse,
    j.value ->> 7 AS consecutive
FROM outcomes o, json_each(o.list) j;

CREATE VIEW envoy_traits AS
SELECT t.envoy, t.path, t.value IS NULL AS volatile, coalesce(t.json, v.json) AS json, t.at
FROM traits t LEFT JOIN trait_values v ON v.id = t.value;
";

const STATEMENTS: &str = "
-- Signed redirects that were ordered and not picked up yet.
CREATE TABLE statements (
    uuid BLOB PRIMARY KEY,
    payload BLOB NOT NULL,
    signature BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";
