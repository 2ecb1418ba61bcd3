//! Every message of the protocol by its name.

use common::crypto::sha256;
use common::proto::{Message, wire};

/// The messages that there are. A test compares the list with the `.proto`.
macro_rules! messages {
    ($($name:ident)*) => {
        /// Decodes a message and encodes it again: the bytes, and a digest of the values as text.
        pub fn round_trip(name: &str, bytes: &[u8]) -> Result<(Vec<u8>, String), String> {
            match name {
                $(stringify!($name) => again::<wire::$name>(bytes),)*
                _ => Err("there is no such message".into()),
            }
        }
    };
}

messages! {
    Assignment AuthenticateReply AuthenticateRequest BlobChunk BlobRef Bundle CheckInReply CheckInRequest EnrollReply EnrollRequest
    FetchBlobRequest Gap HelloBody HelloReply HelloRequest Incident Receipt Record RecoveryStatement Redirect ReportReply
    ReportRequest Resource ResourceOutcome RevocationEcho RunCounts RunResult SealedSecret SecretRef Signed Stretch TraitUpdate
    Value ValueList ValueMap WatchEvent WatchRequest
}

fn again<M: Message + Default + std::fmt::Debug>(bytes: &[u8]) -> Result<(Vec<u8>, String), String> {
    let message = M::decode(bytes).map_err(|error| error.to_string())?;
    Ok((message.encode_to_vec(), sha256(&[format!("{message:?}").as_bytes()]).to_string()))
}
