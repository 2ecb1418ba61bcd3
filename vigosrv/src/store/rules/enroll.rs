//! Who may become an envoy. The core has checked names, keys and proofs; here is what only the database knows: tokens, names
//! that are taken, keys that are known, how many a trusted entry has let in.

use common::proto::Enrolled;

use crate::store::tables::{Tables, TokenRow};
use crate::store::{EnrollRefusal, EnrollWrite, EnvoyRow, StoreError, Written};

/// What a token says about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenVerdict {
    /// This key used it before.
    Same,
    /// Go on; `replace`: the host name may be taken.
    Good { replace: bool },
    /// No.
    Refused(EnrollRefusal),
}

/// Judges a token. A use by the same key comes first, expired or not: a lost reply burns nothing.
pub fn judge_token(token: Option<&TokenRow>, enroll: &EnrollWrite) -> TokenVerdict {
    let Some(token) = token else { return TokenVerdict::Refused(EnrollRefusal::UnknownToken) };
    match &token.used {
        Some((key, _)) if *key == enroll.row.public_key => return TokenVerdict::Same,
        Some(_) => return TokenVerdict::Refused(EnrollRefusal::UsedToken),
        None => {}
    }
    if enroll.at > token.invite.expires_at {
        return TokenVerdict::Refused(EnrollRefusal::ExpiredToken);
    }
    match &token.invite.hostname {
        Some(name) if *name != enroll.row.hostname => TokenVerdict::Refused(EnrollRefusal::WrongHostname),
        // A token that is bound to no name must not replace whatever host it is shown for.
        bound => TokenVerdict::Good { replace: token.invite.replace && bound.is_some() },
    }
}

/// A new envoy, or the same row again.
pub fn enroll<T: Tables>(tables: &mut T, enroll: &EnrollWrite) -> Result<Written, StoreError> {
    let refused = |why| Ok(Written::EnrollRefused(why));
    let mut replace = false;
    if let Some(hash) = &enroll.token {
        let token = tables.token(hash)?;
        match judge_token(token.as_ref(), enroll) {
            TokenVerdict::Refused(why) => return refused(why),
            TokenVerdict::Good { replace: may } => replace = may,
            TokenVerdict::Same => {
                let used = token.and_then(|token| token.used);
                let row = match used {
                    Some((_, uuid)) => tables.envoy(&uuid)?,
                    None => None,
                };
                return match row.filter(|row| row.state != Enrolled::Revoked) {
                    Some(row) => Ok(Written::Enrolled(Box::new(row))),
                    None => refused(EnrollRefusal::UsedToken),
                };
            }
        }
    }
    // The key is the identity: a host that asks again with the key it has is the envoy that it was, under the name that the
    // server fixed then.
    if let Some(row) = tables.envoy_with_key(&enroll.row.public_key)? {
        if let Some(hash) = &enroll.token {
            tables.use_token(hash, &row.public_key, &row.uuid)?;
        }
        return Ok(Written::Enrolled(Box::new(row)));
    }
    if !replace && !tables.envoys_named(&enroll.row.hostname)?.is_empty() {
        return refused(EnrollRefusal::NameTaken);
    }
    // The token, where there is one, opens the door; the trusted entry is then not used up.
    let trusted = enroll.trusted.as_ref().filter(|_| enroll.token.is_none());
    if let Some((entry, max)) = trusted
        && tables.trusted_count(entry)? >= *max
    {
        return refused(EnrollRefusal::TrustedFull);
    }
    // 122 random bits never collide; if they do, the row that is there stays what it is.
    if tables.envoy(&enroll.row.uuid)?.is_some() {
        return refused(EnrollRefusal::NameTaken);
    }
    let serial = tables.server().version.serial;
    let row = EnvoyRow { enrolled_serial: serial, assigned_serial: serial, ..enroll.row.clone() };
    tables.insert_envoy(&row)?;
    if let Some(hash) = &enroll.token {
        tables.use_token(hash, &row.public_key, &row.uuid)?;
    }
    if let Some((entry, _)) = trusted {
        tables.count_trusted(entry)?;
    }
    Ok(Written::Enrolled(Box::new(row)))
}

/// An envoy with a receipt that this database does not know. Its `enrolled_serial` is that of the receipt.
pub fn readmit<T: Tables>(tables: &mut T, row: &EnvoyRow) -> Result<Written, StoreError> {
    if let Some(known) = tables.envoy(&row.uuid)? {
        return Ok(match known.state {
            Enrolled::Revoked => Written::UnknownEnvoy,
            _ => Written::Enrolled(Box::new(known)),
        });
    }
    if !tables.envoys_named(&row.hostname)?.is_empty() {
        return Ok(Written::NameTaken);
    }
    let row = EnvoyRow { assigned_serial: tables.server().version.serial, ..row.clone() };
    tables.insert_envoy(&row)?;
    Ok(Written::Enrolled(Box::new(row)))
}
