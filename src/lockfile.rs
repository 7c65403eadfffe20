//! Files locked (flock) while their owner lives: the system frees the lock with the process.
//!
//! This file owns the order of check, open and lock. It neither writes to a file nor removes one.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::file::is_same_inode;
use crate::sys;

/// The outcome of locking a file.
pub enum Locking {
    Locked(File),
    /// Another process holds it.
    Held,
    /// Another process renamed or removed it meanwhile.
    Moved,
    /// The check refuses it, for this reason.
    Refused(&'static str),
    /// It is open, but its file system knows no locks.
    Unlockable(io::Error),
}

/// Checks, opens and locks the file at `path`, which must not be a link. Leaves a file closed that `check`
/// refuses, such as another user's.
///
/// # Errors
/// When it cannot be opened.
pub fn lock(
    options: &mut OpenOptions,
    path: &Path,
    check: impl Fn(&Metadata) -> Result<(), &'static str>,
) -> io::Result<Locking> {
    let named = fs::symlink_metadata(path);
    if let Some(reason) = named.ok().and_then(|named| check(&named).err()) {
        return Ok(Locking::Refused(reason));
    }
    // The open of a FIFO would wait.
    let flags = sys::O_NONBLOCK | sys::O_NOFOLLOW;
    let file = options.custom_flags(flags).open(path)?;
    // The name may lead to another file since the first check.
    if let Err(reason) = check(&file.metadata()?) {
        return Ok(Locking::Refused(reason));
    }
    lock_open(file, path)
}

/// Locks a file that was opened at `path`.
///
/// # Errors
/// When its metadata cannot be read.
pub fn lock_open(file: File, path: &Path) -> io::Result<Locking> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Locking::Held),
        Err(TryLockError::Error(e)) => return Ok(Locking::Unlockable(e)),
    }
    // Its owner may have removed or renamed it since the open: then `path` leads to another file.
    match is_named(&file, path)? {
        true => Ok(Locking::Locked(file)),
        false => Ok(Locking::Moved),
    }
}

/// Whether `path` itself is still the name of `file`. A link to it is not.
///
/// # Errors
/// When the file's metadata cannot be read.
pub fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(path));
    Ok(named.is_ok_and(|named| is_same_inode(&named, &opened)))
}
