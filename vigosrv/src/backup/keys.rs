//! Whose keys are these? What an archive must know of a server's identity.

use std::path::Path;

use common::crypto::{KEY_FILE_BYTES_MAX, Purpose, SigningKey, parse_seed, server_id};
use common::sys::file::read_bounded;
use zeroize::Zeroizing;

/// Id of the server whose `tls/` this is.
pub fn server_id_of(tls: &Path) -> Result<String, String> {
    let path = tls.join("identity_key");
    let text = read_bounded(&path, KEY_FILE_BYTES_MAX).map(Zeroizing::new).map_err(|error| error.to_string())?;
    let seed = parse_seed(Purpose::Identity, &text).map_err(|error| error.to_string())?;
    Ok(server_id(&SigningKey::from_seed(*seed).public()).to_string())
}
