//! The block directory: one flat directory of blocks, each named by its hash.
//!
//! Only this file knows how a hash becomes a path, and how a block is read and written. It deletes
//! nothing but temporaries and lock files: its own, and those of dead writers.
//!
//! # How a block is written
//!
//! Under a temporary name in the same directory, then renamed, so that a name never shows half a
//! block. A batch of temporaries is synced with one call before the renames, and the directory
//! after them: a rename alone leaves empty files under the right names when ext4 or XFS lose
//! power, and without the second sync the names may be gone.
//!
//! A writer owns the names `.psync-W` and `.psync-W-N`. It makes the file `.psync-W` and locks it (flock)
//! while it lives; N counts its temporaries. The lock goes with the process, whatever kills it, so a
//! file that can be locked is a dead writer's. Only then a new writer reads the directory and removes
//! the temporaries of the dead. A process id in the names would prove nothing where containers share
//! the directory.

mod filter;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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

/// The beginning of every temporary name; no hash begins so.
const TEMPORARY: &str = ".psync-";

/// Writers of one user in one directory at once. Each one looks at all numbers at its start, a microsecond
/// each.
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

    /// A way for one thread to the blocks. It reuses the memory for the path.
    pub fn view(&self) -> View {
        let path = self.path.join("").into_os_string().into_vec();
        let prefix = path.len();
        View { path, prefix }
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
        let failed = |e| Error::io("open block directory", self.path.display(), &e);
        let directory = File::open(&self.path).map_err(failed)?;
        let user = sys::user();
        let mut dead = dead_owners(&self.path, user);
        // The number of a dead writer needs no new file, for which there may be no room.
        let is_inherited = !dead.is_empty();
        let owner = match is_inherited {
            true => dead.swap_remove(0),
            false => claim(&self.path)?,
        };
        let uid = owner.lock.metadata().map_or(user, |lock| lock.uid());
        if uid != user {
            // NFS gives root's files to another user, also those of the dead writers.
            dead.append(&mut dead_owners(&self.path, uid));
        }
        let mut writer = Writer {
            dir: self.clone(),
            directory,
            owner,
            uid,
            next: AtomicU32::new(0),
            staged: AtomicU32::new(u32::from(is_inherited)),
            put: None,
        };
        writer.sweep(&dead)?;
        writer.put = writer.is_empty()?.then(Filter::new);
        Ok(writer)
    }
}

/// One thread's way to the blocks of a directory.
pub struct View {
    /// The path that was used last.
    path: Vec<u8>,
    /// Bytes of the directory and the slash in it.
    prefix: usize,
}

impl View {
    fn temporary_path(&mut self, owner: u32, temporary: Temporary) -> &Path {
        self.named(format!("{TEMPORARY}{owner}-{}", temporary.0).as_bytes())
    }

    /// Only this makes a path of a hash.
    fn block_path(&mut self, hash: &Hash) -> &Path {
        self.named(&hash.to_hex())
    }

    fn named(&mut self, name: &[u8]) -> &Path {
        self.path.truncate(self.prefix);
        self.path.extend_from_slice(name);
        self.path()
    }

    fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// Reads a block into `slot`. False when it is absent. Anything else under its name (a directory, a FIFO,
    /// a broken link, a damaged file) counts as absent.
    ///
    /// # Errors
    /// Only when the machine is short of descriptors or memory, which says nothing about the block.
    pub fn read(&mut self, hash: &Hash, slot: &mut Slot) -> io::Result<bool> {
        let read = self.open(hash);
        match read.and_then(|mut file| slot.read(&mut file, hash)) {
            Err(e) if !sys::is_shortage(&e) => Ok(false),
            read => read,
        }
    }

    /// Opens whatever has the name, without waiting if it is a FIFO: the hash of the content decides.
    fn open(&mut self, hash: &Hash) -> io::Result<File> {
        file::open_with(self.block_path(hash), sys::O_NONBLOCK)
    }
}

/// The right to write into a block directory, held until dropped. Shared by threads.
pub struct Writer {
    dir: BlockDir,
    directory: File,
    owner: WriterLock,
    /// The user to whom the files of this writer belong.
    uid: u32,
    /// Number of the next temporary.
    next: AtomicU32,
    /// Temporaries that are not yet renamed, and one more until those of the dead writer that had this
    /// number are removed.
    staged: AtomicU32,
    /// The blocks put into a directory that was empty at the start. Looking up an absent name is slow
    /// while another thread makes names: the two wait for each other in the kernel, and an export into a
    /// new directory took 1.4 times as long.
    put: Option<Filter>,
}

/// A block that is written but not yet in place: the number in its temporary name.
#[derive(Clone, Copy)]
pub struct Temporary(u32);

impl Writer {
    /// A way for one more thread to write.
    pub fn block_writer(&self) -> BlockWriter<'_> {
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

    /// Whether there are no names but those of temporaries.
    fn is_empty(&self) -> Result<bool> {
        for name in self.names()? {
            if !name?.as_bytes().starts_with(TEMPORARY.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn names(&self) -> Result<impl Iterator<Item = Result<OsString>>> {
        let failed = |e| self.error("read block directory", &e);
        let entries = fs::read_dir(&self.dir.path).map_err(failed)?;
        Ok(entries.map(move |entry| entry.map(|entry| entry.file_name()).map_err(failed)))
    }

    /// Removes the temporaries under this writer's number, if any are left, and those of the `dead`. A lock
    /// file goes after all temporaries of its owner: as long as it exists, the next writer tries again.
    fn sweep(&self, dead: &[WriterLock]) -> Result<()> {
        let mut numbers: Vec<_> = dead.iter().map(|owner| owner.number).collect();
        if self.staged.load(Relaxed) > 0 {
            numbers.push(self.owner.number);
        }
        if numbers.is_empty() {
            return Ok(());
        }
        let mut swept = numbers.clone();
        for name in self.names()? {
            let name = name?;
            let owner = temporary_owner(name.as_bytes());
            let Some(owner) = owner.filter(|owner| numbers.contains(owner)) else {
                continue;
            };
            match fs::remove_file(self.dir.path.join(name)) {
                // Another sweeper may have removed it first.
                Err(e) if e.kind() != io::ErrorKind::NotFound => swept.retain(|&n| n != owner),
                _ => {}
            }
        }
        if swept.contains(&self.owner.number) {
            self.staged.store(0, Relaxed);
        }
        for owner in dead.iter().filter(|owner| swept.contains(&owner.number)) {
            let _ = fs::remove_file(&owner.path);
        }
        Ok(())
    }

    fn error(&self, action: &str, cause: &io::Error) -> Error {
        Error::storage(action, &self.dir.path, cause)
    }
}

impl Drop for Writer {
    /// Removes the temporaries of an abandoned batch, and those of a writer that was killed as this one
    /// began: the kernel releases a lock a little after the process ends.
    fn drop(&mut self) {
        let _ = self.sweep(&dead_owners(&self.dir.path, self.uid));
        if self.staged.load(Relaxed) == 0 {
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
    /// Writes `block` under a temporary name, unless it is in place already.
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

    /// Whether `block` is in place and right. A wrong no does no harm: the same block replaces it.
    fn holds(&mut self, block: &Block) -> bool {
        let mut buffer = [0; READ_SIZE];
        let file = self.block.open(&block.hash());
        let read = file.and_then(|mut file| block::read_some(&mut file, &mut buffer));
        read.is_ok_and(|length| buffer[..length] == *block.bytes())
    }

    fn create(&mut self) -> Result<(Temporary, File)> {
        let owner = self.writer.owner.number;
        loop {
            let temporary = Temporary(self.writer.next.fetch_add(1, Relaxed));
            let path = self.temporary.temporary_path(owner, temporary);
            match File::create_new(path) {
                Ok(file) => return Ok((temporary, file)),
                // Left by a writer whose lock file is gone.
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

/// The W of `.psync-W-N`, if `name` is one.
fn temporary_owner(name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?;
    let (owner, number) = name.strip_prefix(TEMPORARY)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    owner.parse().ok()
}

/// Claims the numbers of all dead writers in `dir` whose files belong to the user `uid`. Writers of other
/// users count as alive: only their user can lock their files, and removes their temporaries.
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

/// The numbers that writers of the user `uid` may have, which are the first that no other user has taken:
/// each with the path of its lock file, and whether that exists.
fn numbers(dir: &Path, uid: u32) -> impl Iterator<Item = (u32, PathBuf, bool)> {
    let look = move |number| {
        let path = dir.join(format!("{TEMPORARY}{number}"));
        match fs::symlink_metadata(&path) {
            Ok(there) => (there.uid() == uid).then_some((number, path, true)),
            Err(_) => Some((number, path, false)),
        }
    };
    (0..).filter_map(look).take(MAX_WRITERS)
}

/// Claims a free number for this process.
fn claim(dir: &Path) -> Result<WriterLock> {
    for (number, path, _) in numbers(dir, sys::user()).filter(|(.., is_taken)| !is_taken) {
        let mut new = OpenOptions::new();
        // A user who may open it may lock it, and so fake a living writer.
        new.write(true).create_new(true).mode(0o600);
        match lockfile::lock(&mut new, &path, |_| Ok(())) {
            Ok(Locking::Locked(lock)) => return Ok(WriterLock { number, path, lock }),
            Ok(Locking::Unlockable(e)) => {
                let _ = fs::remove_file(&path);
                return Err(Error::io("lock", path.display(), &e));
            }
            Ok(Locking::Held | Locking::Moved | Locking::Refused(_)) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // Among others, the directory was removed or renamed meanwhile.
            Err(e) => return Err(Error::storage("create", &path, &e)),
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
