//! Which file is to be written: where FILE's name leads, what is there, and whether it can be
//! replaced at the end. What cannot succeed is refused here, before any server is asked.
//!
//! This file reads names and metadata, and writes nothing.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::directory_of;
use crate::sys;

/// Symbolic links followed to the file that is to be written; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// The bit of a directory's mode by which each user removes only files of his own.
const STICKY: u32 = 0o1000;

/// FILE, by a name that no link hides.
pub struct Target {
    pub path: PathBuf,
    pub kind: Kind,
}

pub enum Kind {
    /// A FIFO, a character device, or what a link in /proc leads to: blocks in order.
    Stream,
    BlockDevice,
    Regular(Metadata),
    /// There is nothing yet.
    New,
}

impl Target {
    /// # Errors
    /// When the name leads nowhere, to a directory, or by a link that another user may have laid.
    pub fn find(path: &Path) -> Result<Self> {
        let real = follow(path)?;
        // What leads to a pipe, as /dev/stdout may, has no other name.
        let (path, named) = match fs::metadata(path) {
            Ok(there) if is_stream(&there) => (path.to_owned(), Ok(there)),
            _ => {
                let named = fs::symlink_metadata(&real);
                (real, named)
            }
        };
        let kind = match named {
            Ok(there) if there.is_dir() => {
                return Err(Error::local("write", path.display(), "Is a directory"));
            }
            Ok(there) if there.file_type().is_block_device() => Kind::BlockDevice,
            Ok(there) if there.is_file() => Kind::Regular(there),
            Ok(_) => Kind::Stream,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Kind::New,
            Err(e) => return Err(Error::io("open", path.display(), &e)),
        };
        Ok(Target { path, kind })
    }

    /// Where FILE is put together.
    pub fn part(&self) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".part");
        path.into()
    }

    /// What is said of a device with too few bytes.
    pub fn too_small(path: &Path, size: u64) -> Error {
        let cause = format_args!("it has {size} bytes, too few for the file").to_string();
        Error::local("write", path.display(), cause)
    }

    /// Whether FILE can be made, or replaced by FILE.part.
    ///
    /// # Errors
    /// When the system will refuse it at the end.
    pub fn check(&self, in_place: bool) -> Result<()> {
        let old = match &self.kind {
            Kind::Stream | Kind::BlockDevice => return Ok(()),
            Kind::Regular(_) if in_place => return Ok(()),
            Kind::Regular(old) => Some(old),
            Kind::New => None,
        };
        let directory = directory_of(&self.path);
        if is_among_devices(directory) {
            let cause = "there is no such device, and a new file in /dev would be lost";
            return Err(Error::local("create", self.path.display(), cause));
        }
        match old.and_then(|old| self.obstacle(old, directory)) {
            None => Ok(()),
            Some(obstacle) => {
                let cause = format!("{obstacle}{}", self.advice());
                Err(Error::local("replace", self.path.display(), cause))
            }
        }
    }

    /// What keeps the kernel from renaming another file to FILE.
    fn obstacle(&self, old: &Metadata, directory: &Path) -> Option<&'static str> {
        let (file, names) = (sys::fixed(&self.path), sys::fixed(directory));
        let user = sys::user();
        let is_anothers = |parent: Metadata| {
            let owners = [0, parent.uid(), old.uid()];
            parent.mode() & STICKY != 0 && !owners.contains(&user)
        };
        if file.mounted {
            Some("it is mounted by itself, and a mount cannot be replaced")
        } else if file.immutable {
            Some("it is immutable (chattr +i)")
        } else if file.append_only {
            Some("it is append-only (chattr +a)")
        } else if names.immutable {
            Some("its directory is immutable (chattr +i)")
        } else if names.append_only {
            Some("its directory is append-only (chattr +a)")
        } else if fs::symlink_metadata(directory).is_ok_and(is_anothers) {
            Some("it belongs to another user, in a sticky directory")
        } else {
            None
        }
    }

    /// What to do about that.
    fn advice(&self) -> &'static str {
        let mut options = OpenOptions::new();
        let flags = sys::O_NOFOLLOW | sys::O_NONBLOCK;
        match options.write(true).custom_flags(flags).open(&self.path) {
            Ok(_) => "; --in-place updates it where it lies",
            Err(_) => "",
        }
    }
}

fn is_stream(there: &Metadata) -> bool {
    let kind = there.file_type();
    !(kind.is_file() || kind.is_dir() || kind.is_block_device())
}

/// Whether a new file in `directory` would lie in memory among the devices, for want of one: in /dev,
/// wherever that is mounted, but not in other file systems below it. /dev/shm is for files, even
/// where it has no file system of its own.
fn is_among_devices(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|there| there.dev());
    let real = fs::canonicalize(directory).unwrap_or_default();
    let (here, dev) = (device(&real), device(Path::new("/dev")));
    let is_below = real.starts_with("/dev") && !real.starts_with("/dev/shm");
    let is_mounted = dev != device(Path::new("/"));
    here.is_some() && here == dev && (is_below || is_mounted && !real.starts_with("/dev"))
}

/// Where `path` leads by symbolic links, the last of which may lead to nothing yet. The kernel's own
/// rule for links in directories that all may write to depends on a setting (fs.protected_symlinks),
/// so it is applied here, at each link on the way.
fn follow(path: &Path) -> Result<PathBuf> {
    let failed = |e: &io::Error| Error::io("open", path.display(), e);
    let mut rest = components(path);
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(name) = rest.pop_front() {
        let next = at.join(&name);
        let there = match fs::symlink_metadata(&next) {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::NotFound && rest.is_empty() => return Ok(next),
            Err(e) => return Err(failed(&e)),
        };
        if !there.is_symlink() {
            at = next;
            continue;
        }
        check_link(&next, &there)?;
        links += 1;
        if links > MAX_LINKS {
            let cause = "Too many levels of symbolic links";
            return Err(Error::local("open", path.display(), cause));
        }
        let target = fs::read_link(&next).map_err(|e| failed(&e))?;
        for name in components(&target).into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(at)
}

/// The names in `path`, and an empty one where it ends with a slash: that asks for a directory.
fn components(path: &Path) -> VecDeque<OsString> {
    let names = path.components().map(Component::as_os_str);
    let mut names: VecDeque<OsString> = names.map(OsString::from).collect();
    if path.file_name().is_some() && path.as_os_str().as_bytes().ends_with(b"/") {
        names.push_back(OsString::new());
    }
    names
}

/// # Errors
/// When `link` lies where each user may lay links, and belongs to neither this user nor the owner of
/// the directory: it would have this user's file written over.
fn check_link(path: &Path, link: &Metadata) -> Result<()> {
    let directory = directory_of(path);
    let parent = fs::metadata(directory).map_err(|e| Error::io("read", directory.display(), &e))?;
    let owners = [sys::user(), parent.uid()];
    if parent.mode() & STICKY == 0 || owners.contains(&link.uid()) {
        return Ok(());
    }
    let cause = "it is another user's symbolic link, in a sticky directory";
    Err(Error::local("follow", path.display(), cause))
}
