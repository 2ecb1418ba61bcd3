//! Every key of `server.yaml`. The loader, its suggestions and refusals, and `vigocli config server.yaml` come from here.

use common::limits;
use common::settings::{Form, Setting};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Entries of `enrollment.trusted`.
pub const TRUSTED_MAX: usize = 1_000;

const fn row(key: &'static str, form: Form, default: &'static str, doc: &'static str) -> Setting {
    Setting { key, form, default, doc }
}

/// Keys of an entry of `enrollment.trusted`.
static TRUSTED: [Setting; 5] = [
    row("match", Form::Text, "\"\"", "host name pattern (required): `*`, `?`, `[a-z]`"),
    row("cidr", Form::Text, "\"\"", "network that the envoy must call from, such as 10.0.0.0/8; none = any"),
    row("until", Form::Text, "\"\"", "last day or moment (UTC) of the entry, such as 2027-01-31; none = for ever"),
    row("max", Form::Number(0, 10_000_000), "0", "envoys that it may enroll; 0 = any number"),
    row("secrets", Form::Bool, "false", "give secrets at once, without `vigocli envoys approve`"),
];

/// The table.
pub static TABLE: [Setting; 50] = [
    row("server.grpc_listen", Form::Listen, "\":1530\"", "Where agents connect (gRPC). Port 0: any free one."),
    row(
        "server.api_listen",
        Form::Listen,
        "\":8443\"",
        "REST, metrics, bootstrap script (HTTPS). Port 0: any free one.",
    ),
    row("server.hostname", Form::Hostname, "\"\"", "What envoys are told to dial. Empty: the name of this host."),
    row("server.tls.cert_file", Form::Path, "tls/cert", "Leaf certificate, then its chain (PEM)."),
    row("server.tls.key_file", Form::Path, "tls/key", "Its private key (PEM, mode 0600)."),
    row("server.tls.ca_file", Form::Path, "tls/ca", "Certificate of our own CA (PEM)."),
    row("server.tls.ca_key_file", Form::Path, "tls/ca_key", "Private key of our own CA (PEM, mode 0600)."),
    row("server.tls_sans", Form::List, "[]", "More host names and addresses for the certificate."),
    row("database.driver", Form::Choice(&["sqlite"], &["postgres"]), "sqlite", "Kind of database."),
    row("database.dsn", Form::Sensitive, "db/vigo.db", "The database file."),
    row("secrets.backend", Form::Choice(&["local"], &["vault"]), "local", "Where secrets are kept."),
    row("secrets.secrets_dir", Form::Path, "secrets", "Directory of the local backend."),
    row("secrets.key_file", Form::Path, "secrets/.master.key", "Master key of the local backend (mode 0600)."),
    row(
        "checkin.interval",
        Form::Duration(limits::INTERVAL_MIN_MS, limits::INTERVAL_MAX_MS),
        "5m",
        "How often an envoy converges and checks in.",
    ),
    row(
        "checkin.bundle_max_age",
        Form::DurationOrZero(HOUR, 3_650 * DAY, "a cached policy never expires"),
        "0",
        "How long an envoy may go on with a cached policy while this server is gone.",
    ),
    row(
        "checkin.hold",
        Form::Choice(&["auto", "always", "never"], &[]),
        "auto",
        "Keep connections open for push: auto holds up to limits.held_connections, the others poll.",
    ),
    row("enrollment.trusted", Form::Entries(&TRUSTED, TRUSTED_MAX), "[]", "Who may enroll without a token."),
    row("limits.held_connections", Form::Number(0, 2_000_000), "20000", "Connections held with `checkin.hold: auto`."),
    row(
        "limits.connections",
        Form::Number(16, 4_000_000),
        "60000",
        "Connections of agents in all; beyond it new ones are closed.",
    ),
    row("limits.api_connections", Form::Number(4, 100_000), "256", "Connections to api_listen in all."),
    row("limits.handshake_timeout", Form::Duration(SECOND, 5 * MINUTE), "10s", "Time for a TLS handshake."),
    row(
        "limits.authenticate_timeout",
        Form::Duration(SECOND, 5 * MINUTE),
        "15s",
        "Time from the handshake to Authenticate or Enroll.",
    ),
    row(
        "limits.idle_timeout",
        Form::Duration(5 * SECOND, HOUR),
        "1m",
        "A connection without calls in flight is closed after this.",
    ),
    row("limits.header_bytes", Form::Size(4 * KIB, MIB), "16KiB", "Header of one request."),
    row("limits.body_bytes", Form::Size(2 * MIB, 16 * MIB), "2MiB", "Body of one request of an authenticated envoy."),
    row("limits.streams", Form::Number(4, 100), "8", "Calls in flight on one connection."),
    row("limits.rate_per_address", Form::Number(1, 1_000_000), "200", "New connections a second from one address."),
    row(
        "limits.unauthenticated_per_address",
        Form::Number(1, 100_000),
        "64",
        "Connections from one address that have not authenticated.",
    ),
    row(
        "limits.checkins_per_second",
        Form::Number(1, 1_000_000),
        "20000",
        "Check-ins answered at once; others get a time slot.",
    ),
    row(
        "limits.pending_writes",
        Form::Number(16, 1_000_000),
        "4096",
        "Writes that wait for the disk; beyond it reports are put off.",
    ),
    row(
        "retention.max_bytes",
        Form::Size(10_000_000, 100_000_000_000_000),
        "10GB",
        "Size of the database at which old runs go.",
    ),
    row("retention.runs", Form::Duration(HOUR, 3_650 * DAY), "90d", "How long runs are kept; max_bytes rules."),
    row("log.level", Form::Choice(&["error", "warn", "info", "debug"], &[]), "info", "How much is logged."),
    row("log.format", Form::Choice(&["text", "json"], &[]), "text", "One line a record, for people or for machines."),
    row("paths.snapshots", Form::Path, "snapshots", "Where archives go."),
    row(
        "backup.url",
        Form::Text,
        "\"\"",
        "Replica of the database, by Litestream: s3://BUCKET/PATH, gcs://BUCKET/PATH, sftp://USER@HOST/PATH, file:///PATH.",
    ),
    row("backup.key_path", Form::Text, "\"\"", "sftp: private key of the login."),
    row("backup.host_key", Form::Text, "\"\"", "sftp: public key of the server (required), as `ssh-keyscan` shows it."),
    row(
        "backup.access_key_id",
        Form::SensitiveOrNone,
        "\"\"",
        "s3: id of the key. Without one: the role of this host.",
    ),
    row("backup.secret_access_key", Form::SensitiveOrNone, "\"\"", "s3: its secret."),
    row("backup.region", Form::Text, "\"\"", "s3: region."),
    row("backup.endpoint", Form::Text, "\"\"", "s3: address of a compatible store, such as https://minio.example.com."),
    row("backup.force_path_style", Form::Bool, "false", "s3: the bucket is in the path, not in the host name."),
    row("backup.retention", Form::Duration(HOUR, 3_650 * DAY), "720h", "How far back the replica can be restored."),
    row("backup.sync_interval", Form::Duration(100, HOUR), "1s", "How often what is new goes to the replica."),
    row("peers", Form::Later, "{}", "Standby servers."),
    row("spanner", Form::Later, "{}", "Federation."),
    row("license", Form::Later, "{}", "Licence."),
    row("smtp", Form::Later, "{}", "Alerts by mail."),
    row("export", Form::Later, "[]", "Event sinks."),
];
