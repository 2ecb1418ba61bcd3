//! Where the parts of an archive are on this host: one table for making archives and for restoring them.

use std::path::{Path, PathBuf};

use super::manifest::DATABASE;
use crate::config::ServerConfig;

/// The files and folders of a server.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The server root; files belong to its owner.
    pub root: PathBuf,
    /// The database.
    pub database: PathBuf,
    /// Folders: name in the archive, place.
    pub folders: Vec<(&'static str, PathBuf)>,
    /// Single files that are, or may be, elsewhere than in the folder of their name.
    pub files: Vec<(&'static str, PathBuf)>,
}

impl Layout {
    /// As a configuration says. `server_yaml` is the file that it came from, where it is not the usual one.
    pub fn of(config: &ServerConfig, server_yaml: Option<&Path>) -> Layout {
        let root = config.root.clone();
        let yaml = server_yaml.map_or_else(|| root.join("server.yaml"), Path::to_path_buf);
        let in_root = |name: &str| root.join(name);
        let tls = &config.tls;
        let usual = [
            ("secrets/.master.key", &config.master_key),
            ("tls/ca", &tls.ca),
            ("tls/ca_key", &tls.ca_key),
            ("tls/cert", &tls.cert),
            ("tls/key", &tls.key),
        ];
        let folders = vec![
            ("stacks", in_root("stacks")),
            ("publishes", in_root("publishes")),
            ("secrets", config.secrets_dir.clone()),
            ("tls", in_root("tls")),
            ("bolt", in_root("bolt")),
            ("license", in_root("license")),
        ];
        let placed = |name: &str| {
            let (folder, rest) = name.split_once('/').unwrap_or((name, ""));
            folders.iter().find(|(known, _)| *known == folder).map(|(_, path)| path.join(rest))
        };
        let mut files: Vec<(&'static str, PathBuf)> = usual
            .into_iter()
            .filter(|(name, path)| placed(name).as_ref() != Some(*path))
            .map(|(name, path)| (name, path.clone()))
            .collect();
        let local = yaml.with_file_name("server.local.yaml");
        files.extend([("server.yaml", yaml), ("server.local.yaml", local)]);
        Layout { database: config.database.clone(), folders, files, root }
    }

    /// The place of a member. The manifest was checked: the path leads nowhere else.
    pub fn place(&self, member: &str) -> PathBuf {
        if member == DATABASE {
            return self.database.clone();
        }
        if let Some((_, path)) = self.files.iter().find(|(name, _)| *name == member) {
            return path.clone();
        }
        let (folder, rest) = member.split_once('/').unwrap_or((member, ""));
        match self.folders.iter().find(|(name, _)| *name == folder) {
            Some((_, path)) => path.join(rest),
            None => self.root.join(member),
        }
    }

    /// Places that are not below the root.
    pub fn outside(&self) -> Vec<&Path> {
        let folders = self.folders.iter().map(|(_, path)| path);
        let files = self.files.iter().map(|(_, path)| path);
        let all = std::iter::once(&self.database).chain(folders).chain(files);
        all.map(PathBuf::as_path).filter(|path| !path.starts_with(&self.root)).collect()
    }
}
