//! Files locked (flock) while their owner lives: the lock goes with the process, whatever ends it.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::sys;

/// What came of locking a file.
pub enum Locking {
    Locked(File),
    /// Another process holds it.
    Held,
    /// There is nothing of that name, nor could it be made in a directory that is not there.
    Absent(io::Error),
    /// Where it is to be made, there is one already.
    Present(io::Error),
    /// It was renamed or removed meanwhile.
    Moved,
    /// It is not to be written, for this reason.
    Refused(&'static str),
    /// It is open, but its file system knows no locks.
    Unlockable(io::Error),
}

/// Has `check` look at what is at `path`, opens it, which is to be no link, and locks it. What the check
/// refuses, another user's file say, is not even opened.
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
    // A FIFO under the name would make the open wait.
    let flags = sys::O_NONBLOCK | sys::O_NOFOLLOW;
    let file = match options.custom_flags(flags).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Locking::Absent(e)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Locking::Present(e)),
        opened => opened?,
    };
    // It may be another one by now.
    if let Err(reason) = check(&file.metadata()?) {
        return Ok(Locking::Refused(reason));
    }
    lock_open(file, path)
}

/// Locks a file that was opened at `path`.
///
/// # Errors
/// When it cannot be looked at.
pub fn lock_open(file: File, path: &Path) -> io::Result<Locking> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Locking::Held),
        Err(TryLockError::Error(e)) => return Ok(Locking::Unlockable(e)),
    }
    // Its owner may have removed or renamed it since it was opened here: then the lock is on
    // something else by now.
    Ok(if is_named(&file, path)? {
        Locking::Locked(file)
    } else {
        Locking::Moved
    })
}

/// Whether `path` itself, not by a link, is still the name of `file`.
///
/// # Errors
/// When the file cannot be looked at.
pub fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(path));
    Ok(named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())))
}
