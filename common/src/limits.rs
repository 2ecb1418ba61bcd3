//! Every bound of the product, as a named constant with its reason. `docs/LIMITS.md` is checked against this file.

use static_assertions::const_assert;

/// Largest gRPC message that either side accepts, in bytes. A bundle of 5,000 resources is about 2 MiB.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Largest encoded bundle, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 12 << 20;
/// Largest message on a connection that has not authenticated, in bytes.
pub const UNAUTHENTICATED_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Largest `Report` message, in bytes.
pub const REPORT_BYTES_MAX: usize = 1 << 20;
/// Records in one `Report`.
pub const REPORT_RECORDS_MAX: usize = 512;
/// Trait trees in one `Report`, those that are removed counted in.
pub const REPORT_TREES_MAX: usize = 64;
/// Largest encoded queue record, in bytes; outcomes are cut to fit.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Outcomes that a run result carries; the counts are always complete.
pub const OUTCOMES_PER_RUN_MAX: usize = 1_000;
/// Bytes of a message or a diff of one outcome.
pub const OUTCOME_TEXT_BYTES_MAX: usize = 8 << 10;
/// Bytes of one blob chunk on the wire.
pub const BLOB_CHUNK_BYTES: usize = 64 << 10;
/// Largest file that a policy may name with `source:`, in bytes.
pub const BLOB_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the value of one secret: a certificate chain with its key is a few thousand.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
/// Bytes of the value of one secret at least: what is shorter cannot be kept out of logs, it is part of every word.
pub const SECRET_BYTES_MIN: usize = 4;
/// Bytes of the path of a secret.
pub const SECRET_PATH_BYTES_MAX: usize = 200;
/// Secrets of one server, which it holds in memory.
pub const SECRETS_MAX: usize = 10_000;
/// Bytes of all sealed secrets of one assignment.
pub const SEALED_BYTES_MAX: usize = 512 << 10;
/// Bytes of one top-level trait tree as JSON.
pub const TRAIT_TREE_BYTES_MAX: usize = 256 << 10;
/// Bytes of a host name (RFC 1035 section 2.3.4).
pub const HOSTNAME_BYTES_MAX: usize = 253;
/// Resources of one bundle, after configcrates are joined and before `foreach` is unrolled.
pub const RESOURCES_PER_BUNDLE_MAX: usize = 20_000;
/// Further attempts that a resource may ask for.
pub const RETRIES_MAX: i64 = 100;
/// Items that one `foreach` may unroll to.
pub const FOREACH_ITEMS_MAX: usize = 10_000;
/// Resources of one run, after `foreach` is unrolled.
pub const RESOURCES_PER_RUN_MAX: usize = 100_000;
/// Bytes of messages and diffs that one run keeps of what it changed, and as many of what failed: a record carries less.
pub const RUN_TEXT_BYTES_MAX: usize = 512 << 10;
/// Characters of one template or condition, checked before it is parsed.
pub const TEMPLATE_SOURCE_BYTES_MAX: usize = 64 << 10;
/// Nesting of brackets and blocks in a template: the parser recurses.
pub const TEMPLATE_NESTING_MAX: usize = 64;
/// Operators in a row (`a + b.c | d`) in one expression: each is one level of the syntax tree.
pub const TEMPLATE_CHAIN_MAX: usize = 256;
/// Brackets and filters in all `set`, `with` and `for` tags of one template together: each may nest a value once more, and
/// values are printed and dropped by recursion.
pub const TEMPLATE_BUILD_MAX: usize = 1_024;
/// Bytes that one template may produce.
pub const TEMPLATE_OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Instructions that one template may execute.
pub const TEMPLATE_FUEL: u64 = 200_000;
/// Nesting of values in policy and on the wire.
pub const VALUE_DEPTH_MAX: usize = 32;
/// Files of one policy tree.
pub const TREE_FILES_MAX: usize = 100_000;
/// Bytes of the policy files and templates of one tree, which the compiler holds in memory.
pub const TREE_BYTES_MAX: u64 = 256 << 20;
/// Nesting of directories in a policy tree.
pub const TREE_DEPTH_MAX: usize = 16;
/// Bytes of what is remembered of the files of a tree between commands; more is not read.
pub const POLICY_MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Published trees that are kept for rollback.
pub const PUBLISHES_KEPT_MAX: usize = 20;
/// Bytes of one YAML file (`.vgo`, `server.yaml`, `envoy.yaml`).
pub const YAML_BYTES_MAX: usize = 4 << 20;
/// Nesting of a YAML file: a value of policy and what stands around it.
pub const YAML_DEPTH_MAX: usize = 40;
/// Values of one YAML file, aliases counted at every use.
pub const YAML_VALUES_MAX: usize = 400_000;

/// First step of the agent's backoff, in milliseconds.
pub const BACKOFF_FIRST_MS: u64 = 5_000;
/// Ceiling of the agent's backoff, jitter included, in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 300_000;
/// Jitter of the backoff, in percent either way.
pub const BACKOFF_JITTER_PERCENT: u64 = 20;
/// Shortest check-in interval, in milliseconds.
pub const INTERVAL_MIN_MS: u64 = 1_000;
/// Longest check-in interval, in milliseconds.
pub const INTERVAL_MAX_MS: u64 = 24 * 3_600_000;
/// Check-in interval until a server says otherwise, in milliseconds.
pub const INTERVAL_DEFAULT_MS: u64 = 300_000;

/// Time for TCP connect, TLS and `Hello` together, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 15_000;
/// Time for one unary call, in milliseconds.
pub const CALL_TIMEOUT_MS: u64 = 30_000;
/// Server: time for a TLS handshake, in milliseconds.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// Server: time from the handshake to `Authenticate` or `Enroll`, in milliseconds.
pub const AUTHENTICATE_TIMEOUT_MS: u64 = 15_000;
/// Server: a connection without calls in flight is told to go away after this, in milliseconds.
pub const IDLE_TIMEOUT_MS: u64 = 60_000;
/// Server: silence on a held connection after which it is pinged, in milliseconds. Below the idle time-out that common
/// address translators give established connections.
pub const KEEPALIVE_MS: u64 = 240_000;
/// Server: time for the answer to that ping, in milliseconds.
pub const KEEPALIVE_TIMEOUT_MS: u64 = 20_000;
/// Server: time that a connection told to go away has for its calls in flight, in milliseconds.
pub const GOAWAY_GRACE_MS: u64 = 5_000;
/// Server: time that a peer has to close its end after the last word, in milliseconds.
pub const LINGER_MS: u64 = 2_000;
/// Bytes of the header list of one request.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Bytes that one stream may have waiting in HTTP/2 for the peer's window.
pub const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Calls given up by one peer, less calls that it let finish, before its connection is closed (reset flood).
pub const RESETS_PER_CONNECTION_MAX: u32 = 64;
/// API: bytes of a request body through the admin socket, where a route does not set less.
pub const API_BODY_BYTES_MAX: usize = 64 << 20;
/// API: bytes of a request body from the network, where a route does not set less.
pub const API_NETWORK_BODY_BYTES_MAX: usize = 1 << 20;
/// API: time for an answer, in milliseconds. Publishing a large tree takes seconds.
pub const API_ANSWER_MS: u64 = 120_000;
/// API: bytes of a download read from its file at a time.
pub const API_CHUNK_BYTES: usize = 64 << 10;
/// API: headers of one request.
pub const API_HEADERS_MAX: usize = 64;
/// Letters of other threads that wait for a loop; the sender waits when it is full.
pub const MAILBOX_LETTERS_MAX: usize = 4096;
/// Calls of one client connection, in flight or waiting for a stream.
pub const CALLS_PER_CONNECTION_MAX: usize = 256;
/// Concurrent streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 8;
/// Unauthenticated connections of one peer address.
pub const UNAUTHENTICATED_PER_ADDRESS_MAX: u32 = 64;
/// Offline after this many tenths of the envoy's observed cadence.
pub const OFFLINE_CADENCE_TENTHS: u64 = 25;

/// Default bound of the agent's queue, in bytes.
pub const QUEUE_BYTES_DEFAULT: u64 = 64 << 20;
/// Acknowledged records are kept up to this many bytes,
pub const RETAINED_BYTES_MAX: u64 = 8 << 20;
/// or this long in server time, whichever comes first, in milliseconds.
pub const RETAINED_MS_MAX: u64 = 72 * 3_600_000;
/// Default bound of the agent's state store, in bytes.
pub const STATE_BYTES_DEFAULT: u64 = if cfg!(target_pointer_width = "64") { 256 << 20 } else { 32 << 20 };
/// Smallest bound of the agent's state store that a configuration may ask for, in bytes.
pub const STATE_BYTES_MIN: u64 = 1 << 20;
/// Bytes of the name of a meta value or trait tree in the agent's store; LMDB takes keys of up to 511.
pub const STORE_NAME_BYTES_MAX: usize = 255;
/// Bytes of one meta value of the agent's store.
pub const META_VALUE_BYTES_MAX: usize = 64 << 10;
/// Time for the child that opens and reads the whole store at start, in milliseconds: 256 MiB from a slow card.
pub const PROBE_DEADLINE_MS: u64 = 60_000;
/// Stores kept that were moved aside because they were damaged.
pub const CORRUPT_STORES_KEPT: usize = 2;
/// Requests that wait for the thread that owns the agent's store.
pub const STORE_REQUESTS_MAX: usize = 64;
/// Pieces of files of the policy that wait for the agent's disk before their stream is left unread.
pub const BLOB_PIECES_WAITING_MAX: usize = 16;
/// Bytes of all files that bundles name, on the agent.
pub const BLOB_STORE_BYTES_DEFAULT: u64 = 512 << 20;
/// Port of the agent protocol where an address names none.
pub const GRPC_PORT: u16 = 1530;
/// Envoys that a server sends elsewhere in one second: the rest of a fleet follows at later check-ins, and the other server is not
/// met by all at once.
pub const REBOOTSTRAPS_PER_SECOND_MAX: u32 = 50;
/// Redirects that an agent follows in a row.
pub const REDIRECT_HOPS_MAX: u32 = 3;
/// Recovery keys that followed one another, as an envoy is told of them.
pub const RECOVERY_KEYS_MAX: usize = 16;
/// Addresses in a server list.
pub const SERVERS_MAX: usize = 16;

/// Default timeout of a resource, in milliseconds.
pub const RESOURCE_TIMEOUT_DEFAULT_MS: u64 = 300_000;
/// Pause before a resource is tried again, in milliseconds.
pub const RETRY_PAUSE_MS: u64 = 1_000;
/// Directories with changed names that a run keeps open to sync them once, together.
pub const UNSYNCED_DIRECTORIES_MAX: usize = 64;
/// Time that TERM gives the current resource, in milliseconds.
pub const TERM_GRACE_MS: u64 = 8_000;
/// Bytes kept of each output stream of a child.
pub const CHILD_OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Bytes kept of what a package manager prints of all packages.
pub const PACKAGE_LIST_BYTES_MAX: usize = 4 << 20;
/// Time that a resource waits for another process that holds the lock of a package manager, in milliseconds.
pub const PACKAGE_LOCK_WAIT_MS: u64 = 60_000;
/// Time that one trait collector may take, in milliseconds.
pub const COLLECTOR_TIMEOUT_MS: u64 = 5_000;
/// Bytes of a tree that the agent collects entry by entry (packages, services, users), as JSON; the others are left out.
pub const TRAIT_COLLECTED_BYTES_MAX: usize = 192 << 10;
/// Bytes that are read of a file that lists packages.
pub const PACKAGE_DATABASE_BYTES_MAX: u64 = 256 << 20;
/// Programs of an operator that print traits.
pub const TRAIT_PROGRAMS_MAX: usize = 32;
/// Bytes that one of them may print.
pub const TRAIT_PROGRAM_BYTES_MAX: usize = 64 << 10;
/// Bytes that all of them may print.
pub const TRAIT_PROGRAMS_BYTES_MAX: usize = 256 << 10;
/// Time that all of them may take, in milliseconds.
pub const TRAIT_PROGRAMS_TIMEOUT_MS: u64 = 20_000;
/// Nesting of what they print.
pub const TRAIT_DEPTH_MAX: usize = 16;
/// Values in what one of them prints.
pub const TRAIT_VALUES_MAX: usize = 10_000;
/// Bytes of a key in what they print.
pub const TRAIT_KEY_BYTES_MAX: usize = 256;
/// Bytes of the name of a trait tree.
pub const TRAIT_NAME_BYTES_MAX: usize = 64;

/// Server: emergency reserve beside the database, in bytes.
pub const DATABASE_BALLAST_BYTES: u64 = 4 << 20;
/// Server: page cache of the connection that writes, in bytes.
pub const DATABASE_CACHE_BYTES: u64 = 32 << 20;
/// Server: how long a statement waits for another process that holds the database, in milliseconds.
pub const DATABASE_BUSY_MS: u64 = 5_000;
/// Server: the WAL is copied back when this much of it is not, in bytes; less often makes the file long, more often stalls
/// commits.
pub const WAL_CHECKPOINT_BYTES: u64 = 32 << 20;
/// Server: a WAL that grew to this (a reader holds it) is truncated, waiting for readers, in bytes.
pub const WAL_EMERGENCY_BYTES: u64 = 1 << 30;
/// Server: a WAL that grew to this while Litestream, to whom it was left, does not run is copied back by the server, in bytes.
pub const WAL_UNREPLICATED_BYTES: u64 = 256 << 20;

/// Archive: members.
pub const BACKUP_MEMBERS_MAX: usize = 1_000_000;
/// Archive: bytes of the path of a member, and of the target of a link.
pub const BACKUP_PATH_BYTES_MAX: usize = 1_024;
/// Archive: bytes of the manifest.
pub const BACKUP_MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Archive: folders within folders.
pub const BACKUP_DEPTH_MAX: usize = 64;
/// Archive: bytes of a password.
pub const BACKUP_PASSWORD_BYTES_MAX: u64 = 1_024;

/// Server: writes that wait for the writer thread.
pub const WRITER_QUEUE_MAX: usize = 16_384;
/// Server: memory of the writes that wait, in bytes.
pub const WRITER_QUEUE_BYTES_MAX: usize = 128 << 20;
/// Server: writes of one transaction.
pub const WRITER_GROUP_MAX: usize = 1_024;
/// Server: memory of the writes of one transaction, in bytes; bounds how long an acknowledgement waits for others.
pub const WRITER_GROUP_BYTES_MAX: usize = 16 << 20;

/// Server: rows that one question to the database gives.
pub const READ_ROWS_MAX: usize = 1_000;
/// Server: steps of SQLite's machine that one question may take: about two seconds of one core.
pub const READ_STEPS_MAX: u64 = 100_000_000;
/// Server: steps between two looks at that bound.
pub const READ_STEPS_BETWEEN: u64 = 10_000;

const_assert!(READ_STEPS_BETWEEN * 100 <= READ_STEPS_MAX);
const_assert!(WRITER_GROUP_MAX <= WRITER_QUEUE_MAX && WRITER_GROUP_BYTES_MAX <= WRITER_QUEUE_BYTES_MAX);
const_assert!(WAL_CHECKPOINT_BYTES * 4 <= WAL_UNREPLICATED_BYTES && WAL_UNREPLICATED_BYTES * 4 <= WAL_EMERGENCY_BYTES);
const_assert!(REPORT_BYTES_MAX < MESSAGE_BYTES_MAX);
// A bundle travels with its assignment and framing.
const_assert!(BUNDLE_BYTES_MAX + (1 << 20) <= MESSAGE_BYTES_MAX);
// What is collected fits as a tree with its mark, and any one tree into the half of a report that trees have.
const_assert!(
    TRAIT_COLLECTED_BYTES_MAX + 64 <= TRAIT_TREE_BYTES_MAX && TRAIT_TREE_BYTES_MAX + 1024 <= REPORT_BYTES_MAX / 2
);
const_assert!(TRAIT_PROGRAM_BYTES_MAX <= TRAIT_TREE_BYTES_MAX);
// Any one record fits into a report.
const_assert!(RECORD_BYTES_MAX * 2 <= REPORT_BYTES_MAX);
// A value as deep as allowed can be written in a file: root, resources, resource, parameter.
const_assert!(VALUE_DEPTH_MAX + 4 <= YAML_DEPTH_MAX);
// A run keeps at least what its record can carry.
const_assert!(RECORD_BYTES_MAX <= RUN_TEXT_BYTES_MAX);
const_assert!(RESOURCES_PER_BUNDLE_MAX <= RESOURCES_PER_RUN_MAX);
const_assert!(BACKOFF_FIRST_MS <= BACKOFF_MAX_MS);
const_assert!(INTERVAL_MIN_MS <= INTERVAL_DEFAULT_MS && INTERVAL_DEFAULT_MS <= INTERVAL_MAX_MS);
// TERM leaves time to store the result and exit within 10 s.
const_assert!(TERM_GRACE_MS <= 8_000);
// The queue gets at most half of the store.
const_assert!(cfg!(target_pointer_width = "32") || QUEUE_BYTES_DEFAULT * 2 <= STATE_BYTES_DEFAULT);
const_assert!(BLOB_BYTES_MAX <= BLOB_STORE_BYTES_DEFAULT);
// What a turn of the loop reads beyond it still finds room.
const_assert!(BLOB_PIECES_WAITING_MAX * 2 <= STORE_REQUESTS_MAX);
const_assert!(STORE_NAME_BYTES_MAX <= 511);
