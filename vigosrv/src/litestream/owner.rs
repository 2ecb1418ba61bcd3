//! Whose replica it is: a database of one row beside the replica proper (`URL/owner`), written and read back by Litestream itself, so
//! that it works wherever Litestream does. Two servers that write one replica destroy it.
//!
//! An installation is a server and a root: the same server restored elsewhere has the server's id and another installation, because the
//! id of the installation is in `run/`, which no archive holds.

use std::path::PathBuf;

use common::ids::hex;
use common::rng::{Rng, SystemRng};
use common::sys::{Clock, Owner, file};

use super::program::{Patience, Program};
use super::text::Job;
use super::{Identity, ReplicaError, Site};
use crate::store::{Marker, read_marker, write_marker};

/// The replica of the marker, below that of the database.
const BELOW: &str = "owner";
/// The directory of the marker, below `run/`.
const DIR: &str = "replica_owner";
/// The id of this installation, below `run/`.
const INSTALLATION: &str = "installation";
/// Bytes of that file.
const INSTALLATION_BYTES_MAX: u64 = 256;
/// How long a look or a claim may take, milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// Whose it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// Nobody's: it is empty, or was made by other means.
    Nobody,
    /// This installation's.
    Ours,
    /// Another's.
    Other(Box<Marker>),
}

/// Looks and claims.
pub(super) struct Ownership<'a> {
    pub site: &'a Site,
    pub identity: &'a Identity,
    pub program: &'a Program,
    pub clock: &'a Clock,
    pub stop: &'a dyn Fn() -> bool,
}

impl Ownership<'_> {
    /// Reads the marker.
    pub fn look(&self) -> Result<Found, ReplicaError> {
        self.prepare()?;
        let copy = self.dir().join("found.db");
        self.clear("found.db");
        let (yml, database) = (self.yml().display().to_string(), self.database().display().to_string());
        let to = copy.display().to_string();
        let words = ["restore", "-config", &yml, "-no-expand-env", "-if-replica-exists", "-o", &to, &database];
        self.program.run(&words, &self.patience())?;
        let marker = if copy.exists() {
            read_marker(&copy).map_err(|error| ReplicaError::Damaged(error.to_string()))?
        } else {
            None
        };
        self.clear("found.db");
        Ok(match marker {
            None => Found::Nobody,
            Some(marker)
                if marker.server_id == self.identity.server_id && marker.installation == self.installation()? =>
            {
                Found::Ours
            }
            Some(marker) => Found::Other(Box::new(marker)),
        })
    }

    /// Writes the marker, whoever's was there.
    pub fn claim(&self) -> Result<(), ReplicaError> {
        self.prepare()?;
        self.clear("owner.db");
        let marker = Marker {
            server_id: self.identity.server_id,
            installation: self.installation()?,
            host: self.identity.host.clone(),
            at: self.clock.now().wall,
        };
        write_marker(&self.database(), &marker).map_err(|error| ReplicaError::Damaged(error.to_string()))?;
        let yml = self.yml().display().to_string();
        self.program.run(&["replicate", "-once", "-config", &yml, "-no-expand-env"], &self.patience())?;
        match self.look()? {
            Found::Ours => Ok(()),
            _ => {
                Err(ReplicaError::Failed { command: "replicate".into(), said: "the owner's mark was not kept".into() })
            }
        }
    }

    fn patience(&self) -> Patience<'_> {
        Patience { clock: self.clock, ms: PATIENCE_MS, stop: self.stop }
    }

    fn dir(&self) -> PathBuf {
        self.site.run_dir().join(DIR)
    }

    fn database(&self) -> PathBuf {
        self.dir().join("owner.db")
    }

    fn yml(&self) -> PathBuf {
        self.dir().join("litestream.yml")
    }

    fn prepare(&self) -> Result<(), ReplicaError> {
        file::make_dir(&self.dir(), 0o700, Some(Owner::of(&self.site.root)?))?;
        self.site.write_yml(&self.yml(), &Job { database: self.database(), below: BELOW, socket: None })
    }

    /// Removes a database with what belongs to it.
    fn clear(&self, name: &str) {
        for name in [name.to_string(), format!("{name}-wal"), format!("{name}-shm"), format!("{name}.tmp")] {
            let _ = std::fs::remove_file(self.dir().join(name));
        }
        let _ = std::fs::remove_dir_all(self.dir().join(format!(".{name}-litestream")));
    }

    /// The id of this installation; made where there is none.
    fn installation(&self) -> Result<String, ReplicaError> {
        let path = self.site.run_dir().join(INSTALLATION);
        match file::read_bounded(&path, INSTALLATION_BYTES_MAX) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_string()),
            Err(error) if error.kind == std::io::ErrorKind::NotFound => {
                let mut bytes = [0; 16];
                SystemRng::default().fill(&mut bytes);
                let id = hex(&bytes);
                let owner = Some(Owner::of(&self.site.root)?);
                file::write_atomic(&path, format!("{id}\n").as_bytes(), 0o600, owner)?;
                Ok(id)
            }
            Err(error) => Err(error.into()),
        }
    }
}
