//! Files locked (flock) while their owner lives: the lock goes with the process, whatever ends it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::sys;

/// What came of locking a file.
pub enum Locking {
    Locked(File),
    /// Somebody else holds it.
    Held,
    /// There is nothing of that name, nor could it be made in a directory that is not there.
    Absent(io::Error),
    /// Where it is to be made, there is one already.
    Present(io::Error),
    /// The name is not that of the opened file: a link, or one that was renamed meanwhile.
    Moved,
    /// It is open, but its file system knows no locks.
    Unlockable(io::Error),
}

/// Opens the file at `path`, which is to be itself and no link, and locks it.
///
/// # Errors
/// When it cannot be opened.
pub fn lock(options: &mut OpenOptions, path: &Path) -> io::Result<Locking> {
    // A FIFO under the name would make the open wait.
    let file = match options.custom_flags(sys::O_NONBLOCK).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Locking::Absent(e)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Locking::Present(e)),
        opened => opened?,
    };
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
