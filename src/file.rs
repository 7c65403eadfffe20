//! Opening, reading at an offset, comparing and syncing files.
//!
//! This file owns the flags of these calls. It keeps no position, so several threads may read one file, and
//! knows nothing of a file's content.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys;

/// The mode of a file that only its owner may read and write.
pub const PRIVATE: u32 = 0o600;

/// Opens a file, without waiting for the other end of a FIFO.
///
/// # Errors
/// When it cannot be read, or is a directory.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = open_with(path, sys::O_NONBLOCK)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((file, metadata))
}

/// Opens a file to read it, with these flags of open(2).
pub fn open_with(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Holds a file, without the right to read it: while it is open, no other file gets its inode.
///
/// # Errors
/// When it is absent, and where the system is not Linux.
pub fn hold(path: &Path) -> io::Result<File> {
    let flags = sys::O_PATH.ok_or(io::ErrorKind::Unsupported)? | sys::O_NOFOLLOW;
    open_with(path, flags)
}

/// Opens a regular file to read it. Refuses anything else before it opens it, since that may have effects:
/// the writer of a FIFO would go on, a watchdog would begin to count.
///
/// # Errors
/// When it is absent, not a regular file (a link is none), or cannot be read.
pub fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    open_with(path, sys::O_NONBLOCK | sys::O_NOFOLLOW)
}

/// Makes a file in `directory`, for this user alone, and removes its name, which it returns: the file ends
/// with the process.
///
/// # Errors
/// When the directory takes no file.
pub fn unnamed(directory: &Path) -> io::Result<(File, PathBuf)> {
    // A user who guesses the name gains nothing: only a new file gets it, and loses it at once.
    let path = directory.join(format!(".psync-{:016x}", sys::random()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.mode(PRIVATE);
    let file = options.open(&path)?;
    fs::remove_file(&path)?;
    Ok((file, path))
}

/// Bytes of an open file. Not from its metadata: a block device's says 0.
///
/// # Errors
/// When it has no size, as a pipe has none.
pub fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Reads at `offset` until `buffer` is full, the file ends, or a read fails.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}

/// Whether both paths name one regular file. A pipe or a device may be input and output at once.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let (one, other) = (fs::metadata(one), fs::metadata(other));
    one.is_ok_and(|one| one.is_file() && other.is_ok_and(|other| is_same_inode(&one, &other)))
}

pub fn is_same_inode(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Brings a file to the disk. If that fails, drops it from the cache: the next run would read bytes from
/// there that the disk lacks, and the next sync would report no error.
pub fn sync(file: &File) -> io::Result<()> {
    let synced = file.sync_all();
    synced.inspect_err(|_| sys::forget_cached(file))
}

/// The directory that holds the name `path`.
pub fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| *parent != "");
    parent.unwrap_or(Path::new("."))
}

/// Brings the names in a directory to the disk. A file system that lacks the call does so in its own way.
///
/// # Errors
/// When the disk refuses.
pub fn sync_directory(directory: &File) -> io::Result<()> {
    match directory.sync_all() {
        Err(e) if !sys::is_unsupported(&e) => Err(e),
        _ => Ok(()),
    }
}

/// Brings the name of a file to the disk.
///
/// # Errors
/// When the disk refuses.
pub fn sync_name(path: &Path) -> io::Result<()> {
    match File::open(directory_of(path)).and_then(|directory| sync_directory(&directory)) {
        // A directory that this user may write but not read cannot be synced.
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(e),
        _ => Ok(()),
    }
}
