//! Where blocks go, in spans of verified blocks (`sink.rs`).
//!
//! Standard output, a pipe or a character device is a stream: it takes the blocks in order. A file grows
//! beside its place, in `FILE.part`, and a rename puts it there when it is complete; until then FILE is
//! as it was. A block device, or a file with `--in-place`, is written in place.
//!
//! This file owns each write to these, and their locks. It fetches nothing, and reads no list.

pub mod existing;
mod in_use;
mod rights;
pub mod sink;
pub mod target;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sources::seed::Seed;
use crate::block::{self, BLOCK_SIZE};
use crate::console::Stdout;
use crate::error::{Error, Result};
use crate::file::{PRIVATE, sync, sync_name};
use crate::lockfile::{self, Locking, is_named};
use existing::OldFile;
use rights::Leftover;
use sink::{Origin, Span};
use target::{Kind, Target};

pub enum Output {
    Stream(Stream),
    Place(Box<Place>),
}

/// Standard output, a FIFO or a character device: blocks in order.
pub enum Stream {
    Stdout(Stdout),
    File(File, PathBuf),
}

impl Stream {
    /// # Errors
    /// When it refuses writes, or is another one by now: others may write to its directory.
    fn open(target: Target) -> Result<Self> {
        let failed = |e| Error::io("open", target.path.display(), &e);
        let file = OpenOptions::new().write(true).open(&target.path);
        let file = file.map_err(failed)?;
        if !target.is_as_found(file.metadata()) {
            return Err(Error::local("write", target.path.display(), REPLACED));
        }
        Ok(Stream::File(file, target.path))
    }

    /// Writes the next span.
    ///
    /// # Errors
    /// When the other end is gone, or the disk is full.
    pub fn write(&mut self, span: &Span) -> Result<()> {
        match span.origin {
            // A stream has no places.
            Origin::InPlace => Ok(()),
            Origin::Zeros => (0..span.count()).try_for_each(|_| self.write_bytes(&[0; BLOCK_SIZE])),
            Origin::Local | Origin::Derived | Origin::Fetched => self.write_bytes(span.row.bytes()),
        }
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Stream::Stdout(stdout) => stdout.write(bytes),
            Stream::File(file, path) => {
                let written = file.write_all(bytes);
                written.map_err(|e| Error::io("write", path.display(), &e))
            }
        }
    }
}

impl Output {
    /// # Errors
    /// When there is no room for a file of `least` bytes. [`Place::write`] refuses a last block that turns
    /// out to be too long.
    pub fn check_size(&self, least: u64) -> Result<()> {
        match self {
            Output::Stream(_) => Ok(()),
            Output::Place(place) => place.written.check_end(least),
        }
    }

    /// The files of a [`Place`], the one that is written too: each may have blocks of the list under a root,
    /// and each block that it gives is verified.
    pub fn seeds(&self) -> Vec<Arc<Seed>> {
        match self {
            Output::Stream(_) => Vec::new(),
            Output::Place(place) => {
                let seeds = place.old_seeds.iter().chain([&place.written.seed]);
                seeds.cloned().collect()
            }
        }
    }

    /// Opens `target`, which is `old_file` if it is a file that this user may read. Opens standard output if
    /// there is no `target`. Writes nothing yet.
    ///
    /// # Errors
    /// When it refuses writes, will not be replaceable, or is another psync's.
    pub fn open(target: Option<Target>, old_file: Option<OldFile>) -> Result<Self> {
        let Some(target) = target else {
            return Ok(Output::Stream(Stream::Stdout(Stdout::new()?)));
        };
        target.check()?;
        if target.kind == Kind::Stream {
            return Stream::open(target).map(Output::Stream);
        }
        let place = match target.in_place {
            true => {
                let file = open_in_place(&target)?;
                Place::new(file, target.path.clone(), target)
            }
            false => Place::in_part_file(target, old_file),
        };
        place.map(|place| Output::Place(Box::new(place)))
    }
}

/// Opens and locks FILE.part: a new one, or the private one of an earlier run. From one that is open to
/// others this run only takes blocks, beside a new one: another user who has it open could read or write it.
/// Returns that one second.
fn open_part_file(path: &Path, target: &Target) -> Result<(File, Option<File>)> {
    let look_at = |there: &Metadata| rights::look_at(there, path, target);
    let failed = |e| Error::storage("create", path, &e);
    let check = |there: &Metadata| match look_at(there) {
        Leftover::Refused(reason) => Err(reason),
        Leftover::Private | Leftover::Open => Ok(()),
    };
    let mut new = OpenOptions::new();
    new.read(true).write(true);
    new.create_new(true).mode(PRIVATE);
    let mut leftover = None;
    loop {
        match lockfile::lock(&mut new, path, |_| Ok(())) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e)),
            Ok(locking) => {
                if let Locking::Unlockable(_) = locking {
                    let _ = fs::remove_file(path);
                }
                return Ok((locked(locking, path)?, leftover));
            }
        }
        let is_private = fs::symlink_metadata(path)
            .is_ok_and(|there| matches!(look_at(&there), Leftover::Private));
        let mut old = OpenOptions::new();
        old.read(true).write(is_private);
        match lockfile::lock(&mut old, path, check) {
            // Another psync has just finished and renamed it: the next turn makes a new one.
            Ok(Locking::Moved) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(locking) => {
                let file = locked(locking, path)?;
                let there = file.metadata().map_err(failed)?;
                if is_private && matches!(look_at(&there), Leftover::Private) {
                    rights::clear_attributes(&file, path);
                    return Ok((file, None));
                }
                fs::remove_file(path).map_err(failed)?;
                leftover = Some(file);
            }
            // A file that not even its owner may read has no blocks of use.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && leftover.is_none() => {
                let there = fs::symlink_metadata(path).map_err(failed)?;
                check(&there).map_err(|reason| refused(path, reason))?;
                fs::remove_file(path).map_err(|_| failed(e))?;
            }
            Err(e) => return Err(failed(e)),
        }
    }
}

fn refused(path: &Path, reason: &str) -> Error {
    let cause = format!("{reason}; remove it, or choose another FILE");
    Error::local("write", path.display(), cause)
}

fn locked(locking: Locking, path: &Path) -> Result<File> {
    let cause = match locking {
        Locking::Locked(file) => return Ok(file),
        Locking::Held => "another psync is writing it",
        Locking::Moved => REPLACED,
        Locking::Refused(reason) => return Err(refused(path, reason)),
        Locking::Unlockable(e) => return Err(Error::io("lock", path.display(), &e)),
    };
    Err(Error::local("write", path.display(), cause))
}

fn rights_failed(target: &Target, cause: &io::Error) -> Error {
    Error::io("keep the rights of", target.path.display(), cause)
}

/// Nothing is known of the file that has the name now.
const REPLACED: &str = "it was replaced or removed meanwhile; run the same command again";

/// Opens and locks FILE itself.
fn open_in_place(target: &Target) -> Result<File> {
    let path = &target.path;
    if let Some(there) = &target.found {
        in_use::check_loops(path, there)?;
    }
    let locking = match &target.found {
        Some(there) if target.kind == Kind::BlockDevice => {
            let locking = lockfile::lock_open(in_use::open_device(path, there)?, path);
            locking.map_err(|e| Error::io("lock", path.display(), &e))?
        }
        // Only a new file is made: an old one may be another user's, in a sticky directory
        // (fs.protected_regular).
        found => {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(found.is_none());
            let locking = lockfile::lock(&mut options, path, |_| Ok(()));
            locking.map_err(|e| Error::storage("open", path, &e))?
        }
    };
    let file = locked(locking, path)?;
    if target.kind != Kind::New && !target.is_as_found(file.metadata()) {
        return Err(Error::local("write", path.display(), REPLACED));
    }
    Ok(file)
}

/// A file or device in which each block has its place. Locked against a second psync. All workers
/// look into it, and only one thread writes. Files that may have blocks already:
///
/// | | `written` | `old_seeds` |
/// |---|---|---|
/// | FILE.part | FILE.part | FILE, and the FILE.part of an earlier run if this run made a new one |
/// | in place | FILE | none |
/// | `--dry-run` (`dry_run.rs`) | FILE, as `old_file` | FILE.part |
pub struct Place {
    file: File,
    target: Target,
    /// `file` as it was when it was opened, with its path: FILE.part, or FILE in place. It has no blocks behind
    /// its end, where each hole reads as zeros.
    pub written: OldFile,
    /// Older states of the file, which this run only reads.
    pub old_seeds: Vec<Arc<Seed>>,
    has_begun: bool,
}

impl Place {
    fn in_part_file(target: Target, old_file: Option<OldFile>) -> Result<Self> {
        rights::check_readable(&target).map_err(|e| rights_failed(&target, &e))?;
        let path = target.part_path();
        let (file, leftover) = open_part_file(&path, &target)?;
        let leftover = leftover.and_then(|leftover| Seed::at_own_places(leftover).ok());
        let mut place = Place::new(file, path, target)?;
        place.old_seeds.extend(leftover.map(Arc::new));
        place.old_seeds.extend(old_file.map(|old| old.seed));
        Ok(place)
    }

    fn new(file: File, path: PathBuf, target: Target) -> Result<Self> {
        let seed = file.try_clone().and_then(Seed::at_own_places);
        Ok(Place {
            written: OldFile::new(seed, path)?,
            file,
            target,
            old_seeds: Vec::new(),
            has_begun: false,
        })
    }

    /// The work begins: from now on FILE.part stays for the next run.
    pub fn begin(&mut self) {
        self.has_begun = true;
    }

    /// Writes a span to its place.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn write(&self, span: &Span) -> Result<()> {
        self.written.check_end(span.end.offset())?;
        let write = |bytes: &[u8], number| self.file.write_all_at(bytes, block::offset(number));
        let written = match span.origin {
            Origin::InPlace => Ok(()),
            Origin::Zeros => {
                // Behind the old end each byte reads as zero, and takes no room.
                let end = block::count(self.written.seed.size()).min(span.end.wanted.number + 1);
                (span.first..end).try_for_each(|number| write(&[0; BLOCK_SIZE], number))
            }
            Origin::Local | Origin::Derived | Origin::Fetched => {
                write(span.row.bytes(), span.first)
            }
        };
        written.map_err(|e| self.write_failed(&e))
    }

    /// A disk stays full as long as FILE.part stays for the next run, so the message says what that takes.
    fn write_failed(&self, cause: &io::Error) -> Error {
        const SECTOR: u64 = 512;
        let there = self.file.metadata();
        let taken = there.map_or(0, |there| there.blocks() * SECTOR);
        let full = match cause.kind() {
            io::ErrorKind::StorageFull if taken > 0 => "No space left on device (see df)",
            io::ErrorKind::QuotaExceeded if taken > 0 => "Disk quota exceeded (see quota)",
            _ => return Error::storage("write", &self.written.path, cause),
        };
        let cause = format!(
            "{full}, of which it takes {taken} bytes; make room and run the same command again to resume"
        );
        Error::local("write", self.written.path.display(), cause)
    }

    /// Brings the complete file of `size` bytes to the disk and FILE into its place. Returns whether FILE
    /// grants less than it did.
    ///
    /// # Errors
    /// When the disk refuses; then FILE is as it was.
    pub fn finish(&self, size: u64) -> Result<bool> {
        let (target, path) = (&self.target, &self.written.path);
        if target.kind != Kind::BlockDevice {
            self.file.set_len(size).map_err(|e| self.write_failed(&e))?;
        }
        let mut grants_less = false;
        if !target.in_place {
            if !target.is_as_found(fs::symlink_metadata(&target.path)) {
                return Err(Error::local("replace", target.path.display(), REPLACED));
            }
            let passed_on = rights::pass_on(target, &self.file, path);
            grants_less = passed_on.map_err(|e| rights_failed(target, &e))?;
        }
        if let Err(e) = sync(&self.file) {
            // The next run could not tell which of its blocks are right.
            if !target.in_place {
                let _ = fs::remove_file(path);
            }
            return Err(Error::storage("sync", path, &e));
        }
        // The name must still lead to the file that was written.
        let has_name = is_named(&self.file, path);
        if !has_name.map_err(|e| Error::io("read", path.display(), &e))? {
            return Err(Error::local("write", path.display(), REPLACED));
        }
        if !target.in_place {
            let failed = |e| Error::storage("put in place", &target.path, &e);
            fs::rename(path, &target.path).map_err(failed)?;
            sync_name(&target.path).map_err(|e| Error::io("sync", target.path.display(), &e))?;
        }
        Ok(grants_less)
    }
}

impl Drop for Place {
    /// Removes a FILE.part that the work has not begun to fill.
    fn drop(&mut self) {
        let is_empty = || self.file.metadata().is_ok_and(|there| there.len() == 0);
        let is_unused = !self.target.in_place && !self.has_begun && is_empty();
        if is_unused && is_named(&self.file, &self.written.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.written.path);
        }
    }
}
