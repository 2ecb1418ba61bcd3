//! Walking below a root directory without leaving it.
//!
//! Every open below the root is made with `O_NOFOLLOW`. A symbolic link among the parents is resolved here, by text and
//! within the root, and only if it belongs to root or to the agent's own user: anybody else's link is refused, because
//! whoever owns it chooses where the agent writes. The last component is never followed. The last directory stays open:
//! most policies manage files side by side.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::geteuid;

/// Links that one path may lead through, as in Linux.
const LINKS_MAX: usize = 40;

/// A directory below which every path is looked up.
pub struct Root {
    top: Arc<OwnedFd>,
    path: PathBuf,
    /// The text of the directory that was walked last, and the directory.
    last: Option<(String, Arc<OwnedFd>)>,
    own_uid: u32,
    /// `openat2` is missing (Linux before 5.6, or a filter).
    old_kernel: bool,
}

/// A name in an open directory. The name is not followed by anything that uses it.
#[derive(Clone, Debug)]
pub struct Place<'p> {
    /// The directory, opened with `O_PATH`.
    pub dir: Arc<OwnedFd>,
    /// Not empty, no slash, not `.` or `..`.
    pub name: &'p str,
}

/// Why a path could not be walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// A parent does not exist.
    Missing {
        /// Which.
        path: String,
    },
    /// A parent is something else.
    NotADirectory {
        /// Which.
        path: String,
    },
    /// A parent is a link of somebody who is neither root nor the agent's user.
    ForeignLink {
        /// Which.
        path: String,
        /// Whose.
        uid: u32,
    },
    /// Links that lead to each other, or too many.
    Loop {
        /// The path asked for.
        path: String,
    },
    /// The path names nothing below the root: `/`, or it has `..` in it.
    Unusable {
        /// The path asked for.
        path: String,
    },
    /// Anything else.
    Io {
        /// Where.
        path: String,
        /// What.
        errno: Errno,
    },
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalkError::Missing { path } => write!(f, "the directory {path} does not exist"),
            WalkError::NotADirectory { path } => write!(f, "{path} is not a directory"),
            WalkError::ForeignLink { path, uid } => {
                write!(f, "{path} is a symbolic link of user {uid}; links of other users are not followed")
            }
            WalkError::Loop { path } => write!(f, "{path} leads through a loop of symbolic links"),
            WalkError::Unusable { path } => write!(f, "{path} is not a path below the root"),
            WalkError::Io { path, errno } => write!(f, "{path}: {}", errno.desc()),
        }
    }
}

impl std::error::Error for WalkError {}

impl Root {
    /// The host's own root, or a sysroot.
    pub fn try_new(sysroot: Option<&Path>) -> Result<Root, WalkError> {
        let path = sysroot.unwrap_or(Path::new("/"));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // The operator names the sysroot: links in it are theirs.
        let top = openat(AT_FDCWD, path, flags, Mode::empty())
            .map_err(|errno| WalkError::Io { path: path.display().to_string(), errno })?;
        Ok(Root {
            top: Arc::new(top),
            path: path.to_path_buf(),
            last: None,
            own_uid: geteuid().as_raw(),
            old_kernel: false,
        })
    }

    /// Where the root is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub fn top(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.top)
    }

    /// Opens the parent of an absolute path.
    pub fn locate<'p>(&mut self, path: &'p str) -> Result<Place<'p>, WalkError> {
        let unusable = || WalkError::Unusable { path: path.to_string() };
        let mut trimmed = path;
        while let Some(shorter) = trimmed.strip_suffix('/').or_else(|| trimmed.strip_suffix("/.")) {
            trimmed = shorter;
        }
        let (parent, name) = trimmed.rsplit_once('/').ok_or_else(unusable)?;
        if name.is_empty() || name == ".." {
            return Err(unusable());
        }
        Ok(Place { dir: self.directory(parent)?, name })
    }

    /// Opens a directory by its absolute path.
    pub fn directory(&mut self, path: &str) -> Result<Arc<OwnedFd>, WalkError> {
        if let Some((text, dir)) = &self.last
            && text == path
        {
            return Ok(Arc::clone(dir));
        }
        let relative = path.trim_matches('/');
        if relative.is_empty() {
            return Ok(self.top());
        }
        if relative.split('/').any(|part| part == "..") {
            return Err(WalkError::Unusable { path: path.to_string() });
        }
        let dir = Arc::new(self.open_at_once(relative, path)?);
        self.last = Some((path.to_string(), Arc::clone(&dir)));
        Ok(dir)
    }

    /// Forgets the open directory: something was changed, and a path may mean another directory now.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// One system call where no link is in the way and the kernel is not old; else step by step.
    fn open_at_once(&mut self, relative: &str, path: &str) -> Result<OwnedFd, WalkError> {
        if !self.old_kernel {
            let how = OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_IN_ROOT);
            match openat2(self.top.as_fd(), relative, how) {
                Ok(dir) => return Ok(dir),
                Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => self.old_kernel = true,
                // A link, or an error that the steps name better.
                Err(_) => {}
            }
        }
        self.walk(relative, path)
    }

    fn walk(&self, relative: &str, path: &str) -> Result<OwnedFd, WalkError> {
        // Parts still to go, the next one last; directories so far with their names, for `..` in link texts.
        let mut parts: Vec<String> = relative.rsplit('/').map(str::to_string).collect();
        let mut stack: Vec<(OwnedFd, String)> = Vec::new();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            if part.is_empty() || part == "." {
                continue;
            }
            if part == ".." {
                stack.pop();
                continue;
            }
            let here = stack.iter().map(|(_, name)| name.as_str()).chain([part.as_str()]).collect::<Vec<_>>().join("/");
            let here = format!("/{here}");
            let io = |errno| match errno {
                Errno::ENOENT => WalkError::Missing { path: here.clone() },
                Errno::ENOTDIR => WalkError::NotADirectory { path: here.clone() },
                errno => WalkError::Io { path: here.clone(), errno },
            };
            let current = stack.last().map_or(self.top.as_fd(), |(dir, _)| dir.as_fd());
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let next = openat(current, part.as_str(), flags, Mode::empty()).map_err(io)?;
            let stat = fstat(next.as_fd()).map_err(io)?;
            match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFDIR => stack.push((next, part)),
                SFlag::S_IFLNK if stat.st_uid != 0 && stat.st_uid != self.own_uid => {
                    return Err(WalkError::ForeignLink { path: here, uid: stat.st_uid });
                }
                SFlag::S_IFLNK => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(WalkError::Loop { path: path.to_string() });
                    }
                    let to = readlinkat(next.as_fd(), "").map_err(io)?;
                    let to = to.to_str().ok_or(WalkError::Io { path: here.clone(), errno: Errno::EILSEQ })?;
                    if to.starts_with('/') {
                        // Absolute within the root: that is what keeps a sysroot closed.
                        stack.clear();
                    }
                    parts.extend(to.rsplit('/').map(str::to_string));
                }
                _ => return Err(WalkError::NotADirectory { path: here }),
            }
        }
        match stack.pop() {
            Some((dir, _)) => Ok(dir),
            // Links led back to the root itself.
            None => open(&self.path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|errno| WalkError::Io { path: path.to_string(), errno }),
        }
    }
}

/// Where a directory really is, as the kernel says; `None` without `/proc`.
pub fn real_path(dir: &OwnedFd) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::write(dir.path().join("a/file"), "x").unwrap();
        let root = Root::try_new(Some(dir.path())).unwrap();
        (dir, root)
    }

    fn lands_in(root: &mut Root, path: &str) -> Result<PathBuf, WalkError> {
        let place = root.locate(path)?;
        Ok(real_path(&place.dir).unwrap().join(place.name))
    }

    #[test]
    fn paths_are_found_below_the_root() {
        let (dir, mut root) = tree();
        let base = dir.path().canonicalize().unwrap();
        for (path, expected) in [("/a/b/x", "a/b/x"), ("/x", "x"), ("//a//./b/x/", "a/b/x"), ("/a/b/c/.", "a/b/c")] {
            assert_eq!(lands_in(&mut root, path), Ok(base.join(expected)), "{path}");
        }
        for path in ["/", "", "/..", "/a/../x", "//"] {
            assert!(matches!(root.locate(path), Err(WalkError::Unusable { .. })), "{path}");
        }
        assert_eq!(lands_in(&mut root, "/a/no/x"), Err(WalkError::Missing { path: "/a/no".into() }));
        assert_eq!(lands_in(&mut root, "/a/file/x"), Err(WalkError::NotADirectory { path: "/a/file".into() }));
    }

    #[test]
    fn absolute_and_climbing_links_stay_inside() {
        for old_kernel in [false, true] {
            let (dir, mut root) = tree();
            root.old_kernel = old_kernel;
            let base = dir.path().canonicalize().unwrap();
            symlink("/a/b", dir.path().join("absolute")).unwrap();
            symlink("../../../../../a", dir.path().join("a/b/climb")).unwrap();
            symlink("/etc", dir.path().join("out")).unwrap();
            symlink("/", dir.path().join("a/top")).unwrap();
            assert_eq!(lands_in(&mut root, "/absolute/x"), Ok(base.join("a/b/x")));
            assert_eq!(lands_in(&mut root, "/a/b/climb/x"), Ok(base.join("a/x")));
            assert_eq!(lands_in(&mut root, "/a/top/x"), Ok(base.join("x")));
            assert_eq!(lands_in(&mut root, "/out/x"), Err(WalkError::Missing { path: "/etc".into() }));
        }
    }

    #[test]
    fn loops_end() {
        let (dir, mut root) = tree();
        symlink("two", dir.path().join("one")).unwrap();
        symlink("one", dir.path().join("two")).unwrap();
        assert_eq!(lands_in(&mut root, "/one/x"), Err(WalkError::Loop { path: "/one".into() }));
    }

    #[test]
    fn links_of_other_users_are_refused() {
        if !geteuid().is_root() {
            return;
        }
        let (dir, mut root) = tree();
        symlink("/a/b", dir.path().join("theirs")).unwrap();
        std::os::unix::fs::lchown(dir.path().join("theirs"), Some(65_534), None).unwrap();
        let refused = WalkError::ForeignLink { path: "/theirs".into(), uid: 65_534 };
        assert_eq!(lands_in(&mut root, "/theirs/x"), Err(refused));
    }
}
