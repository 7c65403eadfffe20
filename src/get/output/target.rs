//! Which file is to be written: where FILE's name leads, what is there, and whether it can be
//! replaced at the end. What cannot succeed is refused here, before any server is asked.
//!
//! This file reads names and metadata, and writes nothing.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Cause, Error, Result};
use crate::file::{self, directory_of};
use crate::sys;

/// Symbolic links looked at on the way to the file that is to be written, at most. The kernel follows 40,
/// and one of them may be looked at again for each name behind it.
const MAX_LINKS: usize = 400;

/// The bit of a directory's mode by which each user removes only files of his own.
const STICKY: u32 = 0o1000;

/// FILE, by a name that no link hides.
pub struct Target {
    pub path: PathBuf,
    pub kind: Kind,
    /// Keeps a regular FILE's inode from becoming another file's, which would then look the same.
    _held: Option<File>,
}

pub enum Kind {
    /// A FIFO, a character device, or what a link in /proc leads to: blocks in order.
    Stream(Box<Metadata>),
    BlockDevice(Box<Metadata>),
    Regular(Box<Metadata>),
    /// There is nothing yet.
    New,
}

impl Target {
    /// # Errors
    /// When the name leads nowhere, to a directory, or by a link that another user may have laid.
    pub fn find(path: &Path) -> Result<Self> {
        let real = follow(path)?;
        let target = |path, kind| Target {
            path,
            kind,
            _held: None,
        };
        let failed = |e| Error::io("open", path.display(), &e);
        let there = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(target(real, Kind::New)),
            there => Box::new(there.map_err(failed)?),
        };
        let kind = there.file_type();
        if kind.is_dir() {
            return Err(Error::local("write", path.display(), "Is a directory"));
        }
        let is_named = |named: &Metadata| is_same(named, &there);
        let named = fs::symlink_metadata(&real).ok().filter(is_named);
        if !kind.is_file() && !kind.is_block_device() {
            if let Some(named) = named {
                check_owner(&real, &named, "FIFO or device")?;
            }
            // What leads to a pipe, as /dev/stdout may, has no other name.
            return Ok(target(path.to_owned(), Kind::Stream(there)));
        }
        if named.is_none() {
            let cause = "it leads to a file that has no name here";
            return Err(Error::local("open", path.display(), cause));
        }
        if kind.is_block_device() {
            return Ok(target(real, Kind::BlockDevice(there)));
        }
        let held = file::hold(&real).ok();
        // Of what is held, since it may be another one by now.
        let there = match held.as_ref().map(File::metadata) {
            Some(held) => Box::new(held.map_err(failed)?),
            None => there,
        };
        Ok(Target {
            path: real,
            kind: Kind::Regular(there),
            _held: held,
        })
    }

    pub fn is_regular(&self) -> bool {
        matches!(self.kind, Kind::Regular(_))
    }

    /// Whether `now`, what is there or was opened, is what was found. Otherwise it is not known what
    /// rights FILE is to have, nor whether it is to be written at all.
    pub fn is_as_found(&self, now: io::Result<Metadata>) -> bool {
        match (&self.kind, now) {
            (Kind::New, Err(e)) => e.kind() == io::ErrorKind::NotFound,
            (Kind::New, Ok(_)) | (_, Err(_)) => false,
            (Kind::Stream(old) | Kind::BlockDevice(old) | Kind::Regular(old), Ok(now)) => {
                is_same(old, &now)
            }
        }
    }

    /// Opens FILE to read its blocks. None where there is no FILE, it has no blocks, or this user may
    /// write it but not read it.
    ///
    /// # Errors
    /// When the disk fails; when a device cannot be read, which is what is asked of it.
    pub fn open_to_read(&self) -> Result<Option<File>> {
        let opened = match &self.kind {
            Kind::Stream(_) | Kind::New => return Ok(None),
            Kind::BlockDevice(_) => file::open(&self.path).map(|(device, _)| device),
            Kind::Regular(_) => match file::open_regular(&self.path) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
                opened => opened,
            },
        };
        let failed = |e| Error::io("read", self.path.display(), &e);
        opened.map(Some).map_err(failed)
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
        let lost = match &self.kind {
            Kind::Stream(_) | Kind::BlockDevice(_) => return Ok(()),
            Kind::Regular(_) if in_place => return Ok(()),
            Kind::Regular(_) => "it is a file among the devices, and the next boot loses it",
            Kind::New => "there is no such device, and a new file in /dev would be lost",
        };
        let directory = directory_of(&self.path);
        if is_among_devices(directory) {
            return Err(Error::local("create", self.path.display(), lost));
        }
        // A new name is made there, and by FILE.part another one is taken away.
        let obstacle = if in_place {
            None
        } else {
            self.obstacle(directory)
        };
        if let Some(obstacle) = obstacle {
            let cause = format!("{obstacle}{}", self.advice());
            return Err(Error::local("replace", self.path.display(), cause));
        }
        sys::may_write_in(directory).map_err(|e| {
            let path = if in_place {
                self.path.clone()
            } else {
                self.part()
            };
            let cause = format!("{}{}", Cause(&e), self.advice());
            Error::local("create", path.display(), cause)
        })
    }

    /// What keeps the kernel from renaming another file to FILE.
    fn obstacle(&self, directory: &Path) -> Option<&'static str> {
        let names = sys::fixed(directory);
        if names.immutable {
            return Some("its directory is immutable (chattr +i)");
        }
        if names.append_only {
            return Some("its directory is append-only (chattr +a)");
        }
        let Kind::Regular(old) = &self.kind else {
            return None;
        };
        let (file, user) = (sys::fixed(&self.path), sys::user());
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
        } else if fs::metadata(directory).is_ok_and(is_anothers) {
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

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether a new file in `directory` would lie in memory among the devices, for want of one: in /dev,
/// wherever that is mounted, but not in other file systems below it. /dev/shm is for files, even
/// where it has no file system of its own.
fn is_among_devices(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|there| there.dev());
    let real = fs::canonicalize(directory).unwrap_or_default();
    let (here, dev) = (device(&real), device(Path::new("/dev")));
    if here.is_none() || here != dev || real.starts_with("/dev/shm") {
        return false;
    }
    // One of containers is a tmpfs, which may hold other directories too.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_devtmpfs = |mount: &str| mount.contains(" /dev ") && mount.contains(" - devtmpfs ");
    real.starts_with("/dev") || mounts.lines().any(is_devtmpfs)
}

/// Where `path` leads by symbolic links, the last of which may lead to nothing yet. Only the last name is
/// replaced by what it leads to: the way there is the kernel's, since a link of /proc may lead where no
/// path of this process does.
fn follow(path: &Path) -> Result<PathBuf> {
    check_links(path, &mut 0)?;
    let mut path = path.to_owned();
    loop {
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_symlink() => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("open", path.display(), &e));
            }
            _ => return Ok(path),
        }
        let target = fs::read_link(&path);
        let target = target.map_err(|e| Error::io("open", path.display(), &e))?;
        // An absolute target replaces all of it.
        path.pop();
        path.push(target);
    }
}

/// Looks at each link in `path`, and in what it leads to. The kernel's own rule for links in directories
/// that all may write to depends on a setting (fs.protected_symlinks), and is about the last name alone.
fn check_links(path: &Path, links: &mut usize) -> Result<()> {
    for way in path.ancestors() {
        // What cannot be looked at is told where it is opened.
        let there = fs::symlink_metadata(way).ok();
        let Some(link) = there.filter(Metadata::is_symlink) else {
            continue;
        };
        check_owner(way, &link, "symbolic link")?;
        *links += 1;
        if *links > MAX_LINKS {
            let cause = "Too many levels of symbolic links";
            return Err(Error::local("open", way.display(), cause));
        }
        if let Ok(target) = fs::read_link(way) {
            check_links(&directory_of(way).join(target), links)?;
        }
    }
    Ok(())
}

/// # Errors
/// When `there` lies where each user may put names, and belongs to neither this user nor the owner of
/// the directory: a link would have this user's file written over, a FIFO would give the content away.
fn check_owner(path: &Path, there: &Metadata, kind: &str) -> Result<()> {
    let directory = directory_of(path);
    let parent = fs::metadata(directory).map_err(|e| Error::io("read", directory.display(), &e))?;
    let owners = [sys::user(), parent.uid()];
    if parent.mode() & STICKY == 0 || owners.contains(&there.uid()) {
        return Ok(());
    }
    let cause = format!("it is another user's {kind}, in a sticky directory");
    Err(Error::local("follow", path.display(), cause))
}
