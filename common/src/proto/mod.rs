//! The messages of `proto/vigo/v1/agent.proto`, generated ahead and committed, and their conversion to checked types.
//!
//! Raw messages (`wire::*`) are what arrives; nothing beyond the edge of a core works on them before a `TryFrom` here or
//! in [`crate::bundle`] has checked lengths, ranges and references.

/// Generated code; see `tests/proto_generated.rs`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod wire {
    include!("vigo.v1.rs");
}

mod convert;

pub use convert::{BadMessage, Enrolled, RecordBody, RecordMeta, counts_from_wire, counts_to_wire, record_meta};
pub use prost::Message;

/// Version of the protocol that both sides speak.
pub const PROTOCOL_VERSION: u32 = 1;

/// Full method names of the service, as in the `:path` of a request.
pub mod method {
    /// `Hello`.
    pub const HELLO: &str = "/vigo.v1.Agent/Hello";
    /// `Enroll`.
    pub const ENROLL: &str = "/vigo.v1.Agent/Enroll";
    /// `Authenticate`.
    pub const AUTHENTICATE: &str = "/vigo.v1.Agent/Authenticate";
    /// `CheckIn`.
    pub const CHECK_IN: &str = "/vigo.v1.Agent/CheckIn";
    /// `Report`.
    pub const REPORT: &str = "/vigo.v1.Agent/Report";
    /// `FetchBlob`.
    pub const FETCH_BLOB: &str = "/vigo.v1.Agent/FetchBlob";
    /// `Watch`.
    pub const WATCH: &str = "/vigo.v1.Agent/Watch";
}

/// gRPC status codes that this protocol uses (grpc.io, "Status codes and their use in gRPC").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the gRPC specification")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    /// From the text of a `grpc-status` trailer.
    pub fn from_text(text: &str) -> Code {
        use Code::*;
        let n: u8 = text.parse().unwrap_or(2);
        [
            Ok,
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            Unimplemented,
            Internal,
            Unavailable,
            Unauthenticated,
        ]
        .into_iter()
        .find(|code| *code as u8 == n)
        .unwrap_or(Unknown)
    }
}
