//! Where blocks go, in rows of verified blocks (`sink.rs`).
//!
//! Standard output, a pipe or a character device is a stream: the blocks one after the other. A
//! file is put together beside its place, in `FILE.part`, and renamed when it is complete; until
//! then FILE is as it was. A block device, or a file where that is asked for, is written in place.

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

use super::block_ref::BlockRef;
use super::sources::seed::{OwnLists, Scope, Seed};
use crate::block::{self, BLOCK_SIZE};
use crate::console::Stdout;
use crate::error::{Error, Result};
use crate::file::{PRIVATE, sync, sync_name};
use crate::lockfile::{self, Locking, is_named};
use crate::sys;
use existing::OldFile;
use rights::Leftover;
use sink::End;
use target::Target;

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
    /// When it cannot be written to, or is another one by now: a name in a directory that others may
    /// write to.
    fn open(target: Target) -> Result<Self> {
        let failed = |e| Error::io("open", target.path.display(), &e);
        let file = OpenOptions::new().write(true).open(&target.path);
        let file = file.map_err(failed)?;
        if !target.is_as_found(file.metadata()) {
            return Err(Error::local("write", target.path.display(), REPLACED));
        }
        Ok(Stream::File(file, target.path))
    }

    /// # Errors
    /// When the other end is gone, or the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
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
    /// When there is no room for a file of at least so many bytes. [`Place::write`] refuses a last block
    /// that turns out to be too long.
    pub fn check_size(&self, least: u64) -> Result<()> {
        match self {
            Output::Stream(_) => Ok(()),
            Output::Place(place) => place.check_end(least),
        }
    }

    /// Files that are as they were before the work, and may have blocks of the list under a root.
    pub fn seeds(&self) -> Vec<Arc<Seed>> {
        match self {
            Output::Stream(_) => Vec::new(),
            Output::Place(place) => {
                let written_to = [Arc::clone(&place.old.seed)];
                place.seeds().iter().cloned().chain(written_to).collect()
            }
        }
    }

    /// Opens `target`, which has `old` if it is a file, or standard output where there is none. Nothing
    /// is written to it yet.
    ///
    /// # Errors
    /// When it cannot be written to, will not be replaceable, or is another psync's.
    pub fn open(target: Option<Target>, in_place: bool, old: Option<OldFile>) -> Result<Self> {
        let Some(target) = target else {
            return Ok(Output::Stream(Stream::Stdout(Stdout::new()?)));
        };
        target.check(in_place)?;
        let place = match &target.kind {
            target::Kind::Stream(_) => return Stream::open(target).map(Output::Stream),
            target::Kind::BlockDevice(there) => Place::device(&target, there),
            target::Kind::Regular(there) if in_place => {
                in_use::check_loops(&target.path, there)?;
                Place::in_place(target, old)
            }
            target::Kind::New if in_place => Place::in_place(target, old),
            _ => Place::part(target, old),
        };
        place.map(|place| Output::Place(Box::new(place)))
    }
}

/// Opens and locks FILE.part: a new one, or what a run before this one left. What that left open to
/// others is read, and a new one is made: one that another user has open would be read, or written to.
fn open_part(path: &Path, look_at: &dyn Fn(&Metadata) -> Leftover) -> Result<(File, Option<File>)> {
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
            // Renamed by another psync that has just finished: there is a new one to be made.
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
            // One that not even its owner may read has nothing to give.
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

/// Of what goes by the name now, nothing is known.
const REPLACED: &str = "it was replaced or removed meanwhile; run the same command again";

/// A file or device that is written block by block, each at its place. Locked against a second
/// psync; shared by all workers, who look in it, but only one writes.
pub struct Place {
    file: File,
    path: PathBuf,
    kind: Kind,
    /// What was there at the start. Beyond it is nothing to look at, and a hole is zeros.
    old: OldFile,
    has_begun: bool,
}

enum Kind {
    /// FILE.part, to become `target`, which until then is as it was.
    Part {
        target: Target,
        /// A FILE.part that an earlier run left and that is not written on, and FILE where it can be read.
        seeds: Vec<Arc<Seed>>,
        /// What a new FILE's mode is to be.
        new_mode: u32,
    },
    InPlace,
    Device,
}

impl Place {
    fn part(target: Target, old: Option<OldFile>) -> Result<Self> {
        rights::check_readable(&target).map_err(|e| rights_failed(&target, &e))?;
        let new_mode = rights::ALL_READ_AND_WRITE & !sys::masked_bits();
        let path = target.part();
        let look_at = |there: &Metadata| rights::look_at(there, &path, &target, new_mode);
        let (file, leftover) = open_part(&path, &look_at)?;
        let mut seeds = Vec::new();
        if let Some(leftover) = leftover {
            let leftover = Seed::new(leftover, Scope::OwnPlaces, OwnLists::Written);
            seeds.extend(leftover.ok().map(Arc::new));
        }
        seeds.extend(old.map(|old| old.seed));
        let kind = Kind::Part {
            target,
            seeds,
            new_mode,
        };
        Place::new(file, path, kind)
    }

    /// What is there already is opened and not made: it may be another user's, in a sticky directory
    /// (fs.protected_regular).
    fn in_place(target: Target, old: Option<OldFile>) -> Result<Self> {
        let is_new = matches!(target.kind, target::Kind::New);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(is_new);
        let locking = lockfile::lock(&mut options, &target.path, |_| Ok(()));
        let failed = |e| Error::storage("open", &target.path, &e);
        let file = locked(locking.map_err(failed)?, &target.path)?;
        if !is_new && !target.is_as_found(file.metadata()) {
            return Err(Error::local("write", target.path.display(), REPLACED));
        }
        let mut place = Place::new(file, target.path, Kind::InPlace)?;
        // What was found in it before it was locked holds as long as nobody has written to it since.
        if let Some(old) = old.filter(|old| old.is_as(&place.old)) {
            place.old = old;
        }
        Ok(place)
    }

    fn device(target: &Target, there: &Metadata) -> Result<Self> {
        let path = target.path.clone();
        let device = in_use::open_device(&path, there)?;
        let locking = lockfile::lock_open(device, &path);
        let locking = locking.map_err(|e| Error::io("lock", path.display(), &e))?;
        let file = locked(locking, &path)?;
        if !target.is_as_found(file.metadata()) {
            return Err(Error::local("write", path.display(), REPLACED));
        }
        Place::new(file, path, Kind::Device)
    }

    fn new(file: File, path: PathBuf, kind: Kind) -> Result<Self> {
        let old = file
            .try_clone()
            .and_then(|file| OldFile::new(file, Scope::OwnPlaces, OwnLists::Written));
        Ok(Place {
            old: old.map_err(|e| Error::io("read", path.display(), &e))?,
            file,
            path,
            kind,
            has_begun: false,
        })
    }

    /// The work begins: from now on FILE.part stays for the next run.
    pub fn begin(&mut self) {
        self.has_begun = true;
    }

    /// # Errors
    /// When there is no room for what ends with the byte before `end`.
    fn check_end(&self, end: u64) -> Result<()> {
        match self.kind {
            Kind::Device if end > self.old.seed.size() => {
                Err(Target::too_small(&self.path, self.old.seed.size()))
            }
            _ => Ok(()),
        }
    }

    /// What was there at the start.
    pub fn old(&self) -> &OldFile {
        &self.old
    }

    /// Files with blocks that are of use, besides what is written to.
    pub fn seeds(&self) -> &[Arc<Seed>] {
        match &self.kind {
            Kind::Part { seeds, .. } => seeds,
            Kind::InPlace | Kind::Device => &[],
        }
    }

    /// Writes blocks that follow each other, from the `first` to the `end`.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn write(&self, first: u64, end: End, bytes: &[u8]) -> Result<()> {
        self.check_end(end.offset())?;
        let written = self.file.write_all_at(bytes, block::offset(first));
        written.map_err(|e| self.write_failed(&e))
    }

    /// A full disk stays full as long as FILE.part is there, which is kept for the next run.
    fn write_failed(&self, cause: &io::Error) -> Error {
        const SECTOR: u64 = 512;
        let taken = self
            .file
            .metadata()
            .map_or(0, |there| there.blocks() * SECTOR);
        let full = match cause.kind() {
            io::ErrorKind::StorageFull if taken > 0 => "No space left on device (see df)",
            io::ErrorKind::QuotaExceeded if taken > 0 => "Disk quota exceeded (see quota)",
            _ => return Error::storage("write", &self.path, cause),
        };
        let cause = format!(
            "{full}, of which it takes {taken} bytes; make room and run the same command again to resume"
        );
        Error::local("write", self.path.display(), cause)
    }

    /// As [`Place::write`], of nothing but zeros. What was never written reads as zeros, and takes
    /// no room.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn write_zeros(&self, first: u64, end: End) -> Result<()> {
        for number in first..=end.wanted.number {
            if block::offset(number) >= self.old.seed.size() {
                return self.check_end(end.offset());
            }
            let wanted = BlockRef {
                number,
                ..end.wanted
            };
            let end = End { wanted, ..end };
            self.write(number, end, &[0; BLOCK_SIZE])?;
        }
        Ok(())
    }

    /// All of its `size` bytes are there: brings them to the disk and FILE into its place. Tells whether
    /// FILE grants less than it did.
    ///
    /// # Errors
    /// When the disk refuses; then FILE is as it was.
    pub fn finish(&self, size: u64) -> Result<bool> {
        let failed = |action| move |e: io::Error| Error::io(action, self.path.display(), &e);
        if !matches!(self.kind, Kind::Device) {
            self.file.set_len(size).map_err(|e| self.write_failed(&e))?;
        }
        let mut grants_less = false;
        if let Kind::Part {
            target, new_mode, ..
        } = &self.kind
        {
            if !target.is_as_found(fs::symlink_metadata(&target.path)) {
                return Err(Error::local("replace", target.path.display(), REPLACED));
            }
            let passed_on = rights::pass_on(target, &self.file, &self.path, *new_mode);
            grants_less = passed_on.map_err(|e| rights_failed(target, &e))?;
        }
        if let Err(e) = sync(&self.file) {
            // The next run could not tell what of it is right.
            if let Kind::Part { .. } = self.kind {
                let _ = fs::remove_file(&self.path);
            }
            return Err(Error::storage("sync", &self.path, &e));
        }
        // What goes by the name now must be what was written, not another's.
        if !is_named(&self.file, &self.path).map_err(failed("read"))? {
            return Err(Error::local("write", self.path.display(), REPLACED));
        }
        if let Kind::Part { target, .. } = &self.kind {
            let failed = |e| Error::storage("put in place", &target.path, &e);
            fs::rename(&self.path, &target.path).map_err(failed)?;
            sync_name(&target.path).map_err(|e| Error::io("sync", target.path.display(), &e))?;
        }
        Ok(grants_less)
    }
}

impl Drop for Place {
    /// Leaves no FILE.part behind where the work has not begun.
    fn drop(&mut self) {
        let is_empty = || self.file.metadata().is_ok_and(|there| there.len() == 0);
        let is_unused = matches!(self.kind, Kind::Part { .. }) && !self.has_begun && is_empty();
        if is_unused && is_named(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
