//! Files of which parts are read, in any order and by several threads: no position is kept.
//!
//! This file owns the calls, and nothing of what is read by them.

use std::env;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::sys;

/// Opens a file, without waiting for the other end of a FIFO.
///
/// # Errors
/// When it cannot be read, or is a directory.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(sys::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((file, metadata))
}

/// Holds a file, without the right to read it: as long as that is open no other file has its inode.
///
/// # Errors
/// When it is not there. Other systems have no such way of opening.
pub fn hold(path: &Path) -> io::Result<File> {
    let flags = sys::O_PATH.ok_or(io::ErrorKind::Unsupported)? | sys::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Opens a regular file to read it. What is none is not even opened, since that may have effects: a
/// FIFO's writer would be let go, a watchdog begin to count.
///
/// # Errors
/// When it is not there, is no regular file, or is a link, or cannot be read.
pub fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut options = OpenOptions::new();
    let flags = sys::O_NONBLOCK | sys::O_NOFOLLOW;
    options.read(true).custom_flags(flags).open(path)
}

/// Makes a file without a name in `$TMPDIR`, for this user alone: it goes with the process.
///
/// # Errors
/// When there is no directory for it.
pub fn unnamed() -> io::Result<File> {
    // Of no use to anybody who guesses it: it is made anew or not at all, and gone at once.
    let path = env::temp_dir().join(format!(".psync-{:016x}", sys::random()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Bytes of an open file. Not from its metadata: a block device's says 0.
///
/// # Errors
/// When it has no size, as a pipe has none.
pub fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Reads at `offset` until `buffer` is full, the file ends, or it cannot be read on.
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

/// Whether both are names of one file that is there. A pipe or device may be both ends of something.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (fs::metadata(one), fs::metadata(other)) else {
        return false;
    };
    one.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// What did not reach the disk reads as if it had, and the next sync says nothing of it: so nothing of
/// it may be believed.
pub fn sync(file: &File) -> io::Result<()> {
    let synced = file.sync_all();
    if synced.is_err() {
        sys::forget_cached(file);
    }
    synced
}

/// The directory that holds the name `path`.
pub fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| *parent != "");
    parent.unwrap_or(Path::new("."))
}

/// Brings the names in a directory to the disk, where the file system can do that: one that cannot
/// has its own way, and there is nothing else to be done.
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
        // One that may be written but not read cannot be synced by itself.
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(e),
        _ => Ok(()),
    }
}
