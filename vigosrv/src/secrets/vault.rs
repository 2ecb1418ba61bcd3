//! The secrets of a server in memory: values by path. They do not print.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// What a server may give to its envoys.
#[derive(Clone, Default)]
pub struct Vault(BTreeMap<String, Secret>);

/// One value.
#[derive(Clone)]
pub struct Secret {
    /// Grows with every change of the value.
    pub version: u64,
    /// UTF-8 text.
    pub value: Zeroizing<Vec<u8>>,
}

impl Vault {
    /// The secret of that path.
    pub fn get(&self, path: &str) -> Option<&Secret> {
        self.0.get(path)
    }

    /// Adds or replaces one.
    pub fn put(&mut self, path: String, secret: Secret) {
        self.0.insert(path, secret);
    }

    /// Paths and versions, in order.
    pub fn versions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(path, secret)| (path.as_str(), secret.version))
    }

    /// Paths that are not in both in the same version.
    pub fn differences<'v>(&'v self, other: &'v Vault) -> impl Iterator<Item = String> + use<'v> {
        let version = |vault: &Vault, path: &str| vault.get(path).map(|secret| secret.version);
        let all = self.0.keys().chain(other.0.keys());
        all.filter(move |path| version(self, path) != version(other, path)).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({} secrets)", self.0.len())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(version {})", self.version)
    }
}
