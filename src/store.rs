//! The block directory: one flat directory of blocks, each named by its hash.
//!
//! This file alone knows how a hash becomes a path, how a block is read back and how one is put
//! there. It deletes nothing but psync's own temporaries of writers that are dead.
//!
//! # How a block is written
//!
//! Under a temporary name in the same directory, then renamed, so that a name never shows half a
//! block. A batch of temporaries is synced with one call before the renames, and the directory
//! after them: a rename alone leaves empty files under the right names when ext4 or XFS lose
//! power, and without the second sync the names may be gone.
//!
//! A writer owns the names `.psync-W` and `.psync-W-N`: the file `.psync-W`, made by it, is locked
//! (flock) while it lives; N counts its temporaries. The lock goes with the process, whatever
//! kills it, so a file that can be locked is a dead writer's; only then is the directory read, and
//! what the dead left removed. A process id in the names would prove nothing where the directory
//! is shared between containers.

mod filter;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::block::{self, Block, READ_SIZE, Slot};
use crate::error::{Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::lockfile::{self, Locking};
use crate::sys;
use filter::Filter;

/// First characters of every temporary name; no hash begins so.
const TEMPORARY: &str = ".psync-";

/// Writers of one user in one directory at once. Each start looks at every number, a microsecond each.
const MAX_WRITERS: usize = 64;

/// A block directory, which need not exist as long as it is only read.
#[derive(Clone)]
pub struct BlockDir {
    path: PathBuf,
}

impl BlockDir {
    pub fn new(path: PathBuf) -> Self {
        BlockDir { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A view for one thread, which reuses the memory for the path.
    pub fn view(&self) -> View {
        let mut path = self.path.as_os_str().as_bytes().to_vec();
        path.push(b'/');
        View {
            prefix: path.len(),
            path,
        }
    }

    /// Makes the directory where there is none, and claims a writer's names in it. Removes what
    /// dead writers left.
    ///
    /// # Errors
    /// When the directory cannot be made or written to.
    pub fn writer(&self) -> Result<Writer> {
        fs::create_dir_all(&self.path).map_err(|e| match e.kind() {
            // What create_dir_all says of a file in the way.
            io::ErrorKind::AlreadyExists => {
                Error::local("create", self.path.display(), "Not a directory")
            }
            _ => Error::storage("create", &self.path, &e),
        })?;
        let open = File::open(&self.path);
        let directory =
            open.map_err(|e| Error::io("open block directory", self.path.display(), &e))?;
        let user = sys::user();
        let mut dead = dead_owners(&self.path, user);
        let owner = claim(&self.path, &dead)?;
        let uid = owner.lock.metadata().map_or(user, |lock| lock.uid());
        if uid != user {
            // NFS writes another user's name for root, and did so for the dead.
            dead.append(&mut dead_owners(&self.path, uid));
        }
        let mut writer = Writer {
            dir: self.clone(),
            directory,
            owner,
            uid,
            next: AtomicU32::new(0),
            staged: AtomicU32::new(1),
            put: None,
        };
        if writer.sweep_dead_writers(&dead)? {
            writer.staged.store(0, Relaxed);
        }
        writer.put = writer.is_empty()?.then(Filter::new);
        Ok(writer)
    }
}

/// One thread's way to the blocks of a directory.
pub struct View {
    path: Vec<u8>,
    prefix: usize,
}

impl View {
    /// The one place where a hash becomes a path.
    fn block_path(&mut self, hash: &Hash) -> &Path {
        self.named(hash)
    }

    fn temporary_path(&mut self, owner: u32, temporary: Temporary) -> &Path {
        self.named(format_args!("{TEMPORARY}{owner}-{}", temporary.0))
    }

    fn named(&mut self, name: impl Display) -> &Path {
        self.path.truncate(self.prefix);
        // Writing to memory does not fail.
        let _ = write!(self.path, "{name}");
        self.path()
    }

    /// The path that was made last.
    fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// Reads a block into `slot`. False when it is absent, and whatever is there but is not it (a
    /// directory, a FIFO, a link to nowhere, a damaged file) counts as absent.
    ///
    /// # Errors
    /// Only when the machine is short of descriptors or memory, which says nothing of the block.
    pub fn read(&mut self, hash: &Hash, slot: &mut Slot) -> io::Result<bool> {
        let read = self.open(hash);
        match read.and_then(|mut file| slot.read(&mut file, hash)) {
            Err(e) if !sys::is_shortage(&e) => Ok(false),
            read => read,
        }
    }

    /// Without waiting where the name is a FIFO's. No look at what it is: the hash decides.
    fn open(&mut self, hash: &Hash) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(sys::O_NONBLOCK)
            .open(self.block_path(hash))
    }
}

/// The right to write into a block directory, held until dropped. Shared by threads.
pub struct Writer {
    dir: BlockDir,
    directory: File,
    owner: WriterLock,
    /// The user that the directory has files of this writer belong to.
    uid: u32,
    /// Number of the next temporary.
    next: AtomicU32,
    /// Temporaries that are not yet renamed, and one more while there may be some of a dead writer
    /// whose names these are now.
    staged: AtomicU32,
    /// What was put into a directory that was empty at the start. A look for a name that is not
    /// there is dear where another thread makes names: the two wait for each other in the kernel,
    /// and an export into a new directory took 1.4 times as long.
    put: Option<Filter>,
}

/// A block that is written but not yet in place: the number in its temporary name.
#[derive(Clone, Copy)]
pub struct Temporary(u32);

impl Writer {
    /// A way for one more thread to write.
    pub fn hand(&self) -> BlockWriter<'_> {
        BlockWriter {
            writer: self,
            temporary: self.dir.view(),
            block: self.dir.view(),
        }
    }

    /// Brings to the disk whatever was written in the directory, names and blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<()> {
        sys::sync_file_system(&self.directory).map_err(|e| self.error("sync", &e))
    }

    /// Brings the names in the directory to the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync_names(&self) -> Result<()> {
        file::sync_directory(&self.directory).map_err(|e| self.error("sync", &e))
    }

    /// Whether there is nothing but temporaries.
    fn is_empty(&self) -> Result<bool> {
        for entry in self.entries()? {
            let name = entry
                .map_err(|e| self.error("read block directory", &e))?
                .file_name();
            if !name.as_bytes().starts_with(TEMPORARY.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entries(&self) -> Result<fs::ReadDir> {
        fs::read_dir(&self.dir.path).map_err(|e| self.error("read block directory", &e))
    }

    /// Removes what dead writers left; false if any of it could not be. Their marks go last: as long
    /// as those are there, the next writer tries again.
    fn sweep_dead_writers(&self, dead: &[WriterLock]) -> Result<bool> {
        let swept =
            dead.is_empty() || self.sweep(&dead.iter().map(|owner| owner.number).collect())?;
        if swept {
            for owner in dead
                .iter()
                .filter(|owner| owner.number != self.owner.number)
            {
                let _ = fs::remove_file(&owner.path);
            }
        }
        Ok(swept)
    }

    /// Removes the temporaries of the `dead`, who cannot be at work on them any more. False if any
    /// could not be removed.
    fn sweep(&self, dead: &HashSet<u32>) -> Result<bool> {
        let mut swept = true;
        for entry in self.entries()? {
            let name = entry
                .map_err(|e| self.error("read block directory", &e))?
                .file_name();
            if temporary_owner(name.as_bytes()).is_some_and(|owner| dead.contains(&owner)) {
                // Another sweeper may have taken it first.
                let removed = fs::remove_file(self.dir.path.join(name));
                swept &= removed.map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |()| true);
            }
        }
        Ok(swept)
    }

    fn error(&self, action: &str, cause: &io::Error) -> Error {
        Error::storage(action, &self.dir.path, cause)
    }
}

impl Drop for Writer {
    /// Leaves no temporary behind where a batch was given up half-way, nor those of a writer that
    /// was being killed as this one began: the kernel lets go of a lock a little after the end.
    fn drop(&mut self) {
        let _ = self.sweep_dead_writers(&dead_owners(&self.dir.path, self.uid));
        let left = self.staged.load(Relaxed) > 0;
        if !left
            || self
                .sweep(&HashSet::from([self.owner.number]))
                .unwrap_or(false)
        {
            let _ = fs::remove_file(&self.owner.path);
        }
    }
}

/// One thread's way to write.
pub struct BlockWriter<'a> {
    writer: &'a Writer,
    temporary: View,
    block: View,
}

impl BlockWriter<'_> {
    /// Writes `block` under a temporary name, or does nothing where it is in place already.
    ///
    /// # Errors
    /// When the disk or the directory refuses.
    // Inlined, it would be in the binary three times.
    #[inline(never)]
    pub fn stage(&mut self, block: &Block) -> Result<Option<Temporary>> {
        let may_be_there = |put: &Filter| put.may_hold(&block.hash());
        if self.writer.put.as_ref().is_none_or(may_be_there) && self.holds(block) {
            return Ok(None);
        }
        let (temporary, mut file) = self.create()?;
        self.writer.staged.fetch_add(1, Relaxed);
        let written = file.write_all(block.bytes());
        #[cfg(not(target_os = "linux"))]
        let written = written.and_then(|()| file.sync_all());
        written.map_err(|e| Error::storage("write", self.temporary.path(), &e))?;
        if let Some(put) = &self.writer.put {
            put.add(&block.hash());
        }
        Ok(Some(temporary))
    }

    /// Whether `block` lies in the directory as it should. A wrong no does no harm: the same is put
    /// in its place.
    fn holds(&mut self, block: &Block) -> bool {
        let mut buffer = [0; READ_SIZE];
        let file = self.block.open(&block.hash());
        let read = file.and_then(|mut file| block::read_some(&mut file, &mut buffer));
        read.is_ok_and(|length| buffer[..length] == *block.bytes())
    }

    fn create(&mut self) -> Result<(Temporary, File)> {
        loop {
            let temporary = Temporary(self.writer.next.fetch_add(1, Relaxed));
            let path = self
                .temporary
                .temporary_path(self.writer.owner.number, temporary);
            match File::create_new(path) {
                Ok(file) => return Ok((temporary, file)),
                // Left by somebody whose lock file is gone. Numbers are plenty.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::storage("create", path, &e)),
            }
        }
    }

    /// Puts a staged block in place.
    ///
    /// # Errors
    /// When the directory refuses.
    pub fn publish(&mut self, temporary: Temporary, hash: &Hash) -> Result<()> {
        let owner = self.writer.owner.number;
        let from = self.temporary.temporary_path(owner, temporary);
        let to = self.block.block_path(hash);
        let renamed = fs::rename(from, to);
        renamed.map_err(|e| Error::storage("put in place", to, &e))?;
        self.writer.staged.fetch_sub(1, Relaxed);
        Ok(())
    }
}

/// A claimed writer's number. The lock on its file lasts as long as the file is open.
struct WriterLock {
    number: u32,
    path: PathBuf,
    lock: File,
}

impl WriterLock {
    /// The same claim once more: a lock is shared by all descriptors of one opening.
    fn share(&self) -> io::Result<Self> {
        Ok(WriterLock {
            number: self.number,
            path: self.path.clone(),
            lock: self.lock.try_clone()?,
        })
    }
}

/// The W of `.psync-W-N`, if `name` is one.
fn temporary_owner(name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?;
    let (owner, number) = name.strip_prefix(TEMPORARY)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    owner.parse().ok()
}

fn owner_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{TEMPORARY}{number}"))
}

/// Claims the numbers of all dead writers in `dir` whose files belong to the user `uid`. Those of other
/// users count as alive: only their owner can tell, and removes what they left.
fn dead_owners(dir: &Path, uid: u32) -> Vec<WriterLock> {
    let is_own = |there: &Metadata| match there.is_file() && there.uid() == uid {
        true => Ok(()),
        false => Err("it belongs to another user"),
    };
    let claim = |(number, path, is_taken): (u32, PathBuf, bool)| {
        let lock = || lockfile::lock(OpenOptions::new().write(true), &path, is_own);
        match is_taken.then(lock) {
            Some(Ok(Locking::Locked(lock))) => Some(WriterLock { number, path, lock }),
            _ => None,
        }
    };
    numbers(dir, uid).filter_map(claim).collect()
}

/// The numbers that writers of the user `uid` may have, the first that no other user has taken: each with
/// the path of its lock, and whether that is there.
fn numbers(dir: &Path, uid: u32) -> impl Iterator<Item = (u32, PathBuf, bool)> {
    let look = move |number| {
        let path = owner_path(dir, number);
        match fs::symlink_metadata(&path) {
            Ok(there) => (there.uid() == uid).then_some((number, path, true)),
            Err(_) => Some((number, path, false)),
        }
    };
    (0..).filter_map(look).take(MAX_WRITERS)
}

/// Claims a number for this process: that of a dead writer, which needs no new file where there
/// may be no room for one, else a free one.
fn claim(dir: &Path, dead: &[WriterLock]) -> Result<WriterLock> {
    let failed = |path: &Path, e| Error::storage("create", path, &e);
    if let Some(first) = dead.first() {
        return first.share().map_err(|e| failed(&first.path, e));
    }
    for (number, path, _) in numbers(dir, sys::user()).filter(|(.., is_taken)| !is_taken) {
        let mut new = OpenOptions::new();
        // Who may open it may lock it, and so have it taken for a living writer's.
        new.write(true).create_new(true).mode(0o600);
        let made = lockfile::lock(&mut new, &path, |_| Ok(()));
        match made.map_err(|e| failed(&path, e))? {
            Locking::Locked(lock) => return Ok(WriterLock { number, path, lock }),
            // It is removed or renamed meanwhile, and so may be each of the names in it.
            Locking::Absent(e) => return Err(failed(&path, e)),
            Locking::Unlockable(e) => {
                let _ = fs::remove_file(&path);
                return Err(Error::io("lock", path.display(), &e));
            }
            Locking::Held | Locking::Present(_) | Locking::Moved | Locking::Refused(_) => {}
        }
    }
    let cause = format_args!("{MAX_WRITERS} writers are at work in it");
    Err(Error::local("write to", dir.display(), cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_temporaries_have_an_owner() {
        let hash = Hash::of(b"x").to_string();
        for (name, owner) in [
            (".psync-0-0", Some(0)),
            (".psync-63-4294967295", Some(63)),
            (".psync-7", None),
            (".psync--1", None),
            (".psync-1-", None),
            (".psync-1-x", None),
            (".psync-1-2-3", None),
            (".psyncs-1-2", None),
            ("psync-1-2", None),
            (&hash, None),
        ] {
            assert_eq!(temporary_owner(name.as_bytes()), owner, "{name}");
        }
        assert_eq!(temporary_owner(b".psync-1-\xff"), None);
    }
}
