//! Editing a file of text: what it should be is a pure function of what it is, and it is then replaced whole. The base of
//! every executor that owns a part of a file and leaves the rest alone.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;

use nix::sys::stat::FileStat;

use super::file::{Access, dress};
use crate::exec::contract::{Action, Drift, Statement, spare_path};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::undo::Back;
use crate::sys::replace::Replacement;
use crate::sys::root::Place;

/// Bytes of a file whose parts are managed.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// What has to become of a file.
pub trait Edit {
    /// The new content, or `None` where the old one is right already. A file that does not exist is empty. Applied to its own
    /// result it gives `None`. The error is a sentence without the path.
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String>;
}

/// A file with an edit that is to hold in it.
pub struct Edited<'t, E> {
    /// Where it is.
    pub path: Cow<'t, str>,
    /// What is to hold.
    pub edit: E,
    /// Owner and mode, where they are asked for.
    pub access: Access,
}

impl<'t, E: Edit> Edited<'t, E> {
    /// With owner and mode left alone.
    pub fn new(path: Cow<'t, str>, edit: E) -> Edited<'t, E> {
        Edited { path, edit, access: Access::default() }
    }

    fn edited(&self, old: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.edit.edit(old).map_err(|error| Fault::Failed(format!("{}: {error}", self.path)))
    }
}

impl<E: Edit> Statement for Edited<'_, E> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        let loaded = load(host, &self.path)?;
        let old = loaded.as_ref().map_or(&[][..], |loaded| &loaded.bytes);
        let differences = loaded.as_ref().map_or_else(Vec::new, |loaded| self.access.differences(&loaded.stat));
        match self.edited(old)? {
            Some(new) => {
                let action = if loaded.is_some() { Action::Change } else { Action::Create };
                let diff = if diff { host.diff(&self.path, old, &new) } else { String::new() };
                Ok(Some(Drift { diff, ..Drift::new(action, differences.join(", ")) }))
            }
            None => Ok(Drift::change(differences)),
        }
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let loaded = load(host, &self.path)?;
        let place = host.locate_to_write(&self.path)?;
        let old = loaded.as_ref().map_or(&[][..], |loaded| &loaded.bytes);
        match (self.edited(old)?, &loaded) {
            (Some(new), _) => put(host, &place, loaded.as_ref(), &new, &self.access, &self.path),
            (None, Some(loaded)) => self.access.set(&loaded.file, &loaded.stat, &self.path),
            (None, None) => Ok(()),
        }
    }

    fn back(&mut self, _host: &mut Host) -> Result<Back, Fault> {
        Ok(Back::File(self.path.to_string()))
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        spare_path(host, &self.path, false)
    }
}

/// A file that was read whole.
pub struct Loaded {
    /// Open for reading.
    pub file: File,
    /// As it was when it was opened.
    pub stat: FileStat,
    /// Everything in it.
    pub bytes: Vec<u8>,
}

/// Reads a file whole; `None` where there is nothing.
pub fn load(host: &mut Host, path: &str) -> Result<Option<Loaded>, Fault> {
    let Some(place) = host.locate(path)? else { return Ok(None) };
    let Some((mut file, stat)) = host.open_file(&place, path)? else { return Ok(None) };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > FILE_BYTES_MAX {
        let message = format!("{path} has {size} bytes; parts of files over {FILE_BYTES_MAX} are not managed");
        return Err(Fault::Refused(message));
    }
    // One more than there is, so that one read also meets the end.
    let mut bytes = Vec::with_capacity(size as usize + 1);
    (&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Fault::io("read", path))?;
    Ok(Some(Loaded { file, stat, bytes }))
}

/// Replaces the content of a file whole, or creates it; owner and mode stay where none are asked for.
pub fn put(
    host: &mut Host,
    place: &Place<'_>,
    old: Option<&Loaded>,
    bytes: &[u8],
    access: &Access,
    path: &str,
) -> Result<(), Fault> {
    let mut new = Replacement::begin(place).map_err(Fault::io("write beside", path))?;
    new.write(bytes).map_err(Fault::io("write", path))?;
    let old = old.map(|loaded| (&loaded.file, &loaded.stat));
    dress(host, &new, access, old).map_err(Fault::io("set owner and mode of", path))?;
    new.commit(place).map_err(Fault::io("replace", path))?;
    host.sync_later(place, path)
}
