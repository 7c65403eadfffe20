//! FILE, to which the blocks go: where its name leads, what is there, and whether it can be replaced at
//! the end.
//!
//! This file owns the checks that come before any request: it refuses a write that the system would refuse at
//! the end. It reads names and metadata, and writes nothing.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Cause, Error, Result};
use crate::file::{self, directory_of, is_same_inode};
use crate::sys;

/// Symbolic links to look at on the way to the file, at most. The kernel follows 40; here a link counts
/// once for each name behind it.
const MAX_LINKS: usize = 400;

/// The mode of a new file, before the umask.
const ALL_READ_AND_WRITE: u32 = 0o666;

/// The bit of a directory's mode that lets each user remove only files of his own.
const STICKY: u32 = 0o1000;

/// Attributes that keep the kernel from renaming a file: those of its directory, and its own.
const OF_DIRECTORY: [(u64, &str); 2] = [
    (sys::IMMUTABLE, "its directory is immutable (chattr +i)"),
    (sys::APPEND_ONLY, "its directory is append-only (chattr +a)"),
];
const OF_FILE: [(u64, &str); 3] = [
    (sys::MOUNT_ROOT, MOUNTED),
    (sys::IMMUTABLE, "it is immutable (chattr +i)"),
    (sys::APPEND_ONLY, "it is append-only (chattr +a)"),
];
const MOUNTED: &str = "it is mounted by itself, and a mount cannot be replaced";

/// FILE, under its name without links.
pub struct Target {
    pub path: PathBuf,
    pub kind: Kind,
    /// None for a new FILE.
    pub found: Option<Metadata>,
    /// The mode that a new FILE gets.
    pub new_mode: u32,
    /// Whether FILE itself is written, as each device is, or FILE.part replaces it.
    pub in_place: bool,
    /// Keeps the inode of a regular FILE from becoming another file's, which would then look the same.
    _held: Option<File>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// A FIFO, a character device, or a pipe that only a link in /proc names: blocks in order.
    Stream,
    BlockDevice,
    Regular,
    /// FILE does not exist yet.
    New,
}

impl Target {
    /// # Errors
    /// When the name leads to a directory, to a file without a name of its own, or by another user's link.
    pub fn find(path: &Path, in_place: bool) -> Result<Self> {
        let mut target = Target {
            path: follow(path)?,
            kind: Kind::New,
            found: None,
            new_mode: ALL_READ_AND_WRITE & !sys::masked_bits(),
            in_place,
            _held: None,
        };
        let failed = |e| Error::io("open", path.display(), &e);
        let mut found = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(target),
            found => found.map_err(failed)?,
        };
        if found.is_dir() {
            return Err(Error::local("write", path.display(), "Is a directory"));
        }
        let is_found = |named: &Metadata| is_same_inode(named, &found);
        let named = fs::symlink_metadata(&target.path).ok().filter(is_found);
        if !found.is_file() && !found.file_type().is_block_device() {
            if let Some(named) = named {
                check_owner(&target.path, &named, "FIFO or device")?;
            }
            // A pipe has no name but a link like /dev/stdout.
            path.clone_into(&mut target.path);
            target.kind = Kind::Stream;
        } else if named.is_none() {
            let cause = "it leads to a file that has no name here";
            return Err(Error::local("open", path.display(), cause));
        } else if found.is_file() {
            target.kind = Kind::Regular;
            target._held = file::hold(&target.path).ok();
            if let Some(held) = &target._held {
                // The name may be another file's by now.
                found = held.metadata().map_err(failed)?;
            }
        } else {
            target.kind = Kind::BlockDevice;
            target.in_place = true;
        }
        target.found = Some(found);
        Ok(target)
    }

    /// Whether `now`, which has the name or was opened by it, is the file that was found. Of another file
    /// neither the rights are known, nor whether this user may write it at all.
    pub fn is_as_found(&self, now: io::Result<Metadata>) -> bool {
        match (&self.found, now) {
            (Some(found), Ok(now)) => is_same_inode(found, &now),
            (None, Err(e)) => e.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Opens FILE to read its blocks. None if it does not exist, is a stream, or is a regular file that
    /// this user may not read.
    ///
    /// # Errors
    /// When the disk fails, or a device cannot be read.
    pub fn open_to_read(&self) -> Result<Option<File>> {
        let opened = match self.kind {
            Kind::Stream | Kind::New => return Ok(None),
            Kind::BlockDevice => file::open(&self.path).map(|(device, _)| device),
            Kind::Regular => match file::open_regular(&self.path) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
                opened => opened,
            },
        };
        let failed = |e| Error::io("read", self.path.display(), &e);
        opened.map(Some).map_err(failed)
    }

    /// The path of FILE.part.
    pub fn part_path(&self) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".part");
        path.into()
    }

    /// Whether FILE can be made, or replaced by FILE.part.
    ///
    /// # Errors
    /// When the system would refuse it at the end.
    pub fn check(&self) -> Result<()> {
        let lost = match self.kind {
            Kind::Stream | Kind::BlockDevice => return Ok(()),
            Kind::Regular if self.in_place => return Ok(()),
            Kind::Regular => "it is a file among the devices, and the next boot loses it",
            Kind::New => "there is no such device, and a new file in /dev would be lost",
        };
        let directory = directory_of(&self.path);
        if is_among_devices(directory) {
            return Err(Error::local("create", self.path.display(), lost));
        }
        // A rename also removes a name. A directory may forbid that and allow a new one.
        if !self.in_place
            && let Some(obstacle) = self.obstacle(directory)
        {
            let cause = format!("{obstacle}{}", self.advice());
            return Err(Error::local("replace", self.path.display(), cause));
        }
        sys::may_write_in(directory).map_err(|e| {
            let part = self.part_path();
            let created = if self.in_place { &self.path } else { &part };
            let cause = format!("{}{}", Cause(&e), self.advice());
            Error::local("create", created.display(), cause)
        })
    }

    /// What keeps the kernel from renaming another file to FILE.
    fn obstacle(&self, directory: &Path) -> Option<&'static str> {
        let first = |path: &Path, obstacles: &[(u64, &'static str)]| {
            let attributes = sys::file_attributes(path);
            let is_set = |&(bit, obstacle)| (attributes & bit != 0).then_some(obstacle);
            obstacles.iter().find_map(is_set)
        };
        let obstacle = first(directory, &OF_DIRECTORY);
        let (None, Some(old)) = (obstacle, &self.found) else {
            return obstacle;
        };
        first(&self.path, &OF_FILE).or_else(|| {
            let parent = fs::metadata(directory).ok()?;
            let owners = [0, parent.uid(), old.uid()];
            let is_anothers = parent.mode() & STICKY != 0 && !owners.contains(&sys::user());
            is_anothers.then_some("it belongs to another user, in a sticky directory")
        })
    }

    /// The way to write FILE nevertheless, if there is one.
    fn advice(&self) -> &'static str {
        let mut options = OpenOptions::new();
        let flags = sys::O_NOFOLLOW | sys::O_NONBLOCK;
        match options.write(true).custom_flags(flags).open(&self.path) {
            Ok(_) => "; --in-place updates it where it lies",
            Err(_) => "",
        }
    }
}

/// Whether a new file in `directory` would lie in memory among the devices, under the name of a missing
/// device: in the file system of /dev, wherever that is mounted. Those mounted below it, and /dev/shm without
/// one of its own, are for files.
fn is_among_devices(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|there| there.dev());
    let real = fs::canonicalize(directory).unwrap_or_default();
    let (here, dev) = (device(&real), device(Path::new("/dev")));
    if here.is_none() || here != dev || real.starts_with("/dev/shm") {
        return false;
    }
    // The /dev of a container is a tmpfs, which may hold other directories too.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_devtmpfs = |mount: &str| mount.contains(" /dev ") && mount.contains(" - devtmpfs ");
    real.starts_with("/dev") || mounts.lines().any(is_devtmpfs)
}

/// The path to which symbolic links lead from `path`: the file there may not exist yet. Replaces a link in the
/// last name by its target. The kernel follows the others, since a link in /proc may lead to a place
/// without a path for this process.
fn follow(path: &Path) -> Result<PathBuf> {
    use io::ErrorKind::{InvalidInput, NotFound};
    check_links(path, &mut 0)?;
    let mut path = path.to_owned();
    loop {
        let target = match fs::read_link(&path) {
            // EINVAL: not a link.
            Err(e) if matches!(e.kind(), InvalidInput | NotFound) => return Ok(path),
            target => target.map_err(|e| Error::io("open", path.display(), &e))?,
        };
        // An absolute target replaces all of `path`.
        path.pop();
        path.push(target);
    }
}

/// Checks each link in `path`, and each in its target. The kernel's own rule for links in directories that
/// all may write to depends on a setting (fs.protected_symlinks), and covers the last name alone.
fn check_links(path: &Path, links: &mut usize) -> Result<()> {
    for way in path.ancestors() {
        // The open of FILE reports a failure here.
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
/// When `there` lies in a sticky directory, where each user may make names, and belongs to neither this user
/// nor the directory's owner: by a link this user would overwrite a file of his own, and a FIFO would give
/// the content away.
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
