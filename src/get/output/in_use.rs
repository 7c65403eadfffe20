//! Whether another part of the system uses a block device, or the image of one: a write would destroy the
//! data on it.
//!
//! This file owns these refusals. It opens devices, and writes nothing.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::lockfile::{self, Locking};
use crate::sys;

/// Opens a block device for reading and writing.
///
/// # Errors
/// When it is mounted, swapped to, held by another driver, or can only be read.
pub fn open_device(path: &Path, there: &Metadata) -> Result<File> {
    let refused = |cause| Error::local("write", path.display(), cause);
    if is_read_only(there.rdev()) {
        return Err(refused("it can only be read (blockdev --setrw)"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(sys::O_EXCL | sys::O_NOFOLLOW);
    options.open(path).map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy if is_locked(path) => refused("another psync is writing it"),
        io::ErrorKind::ResourceBusy => refused("it is mounted or in use; unmount it first"),
        _ => Error::io("open", path.display(), &e),
    })
}

/// # Errors
/// When a loop device uses this device or file, which the kernel does not count as use.
pub fn check_loops(path: &Path, there: &Metadata) -> Result<()> {
    let identity = |there: &Metadata| match there.file_type().is_block_device() {
        true => (there.rdev(), None),
        false => (there.dev(), Some(there.ino())),
    };
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    for device in devices {
        let backing = fs::read(device.path().join("loop/backing_file")).unwrap_or_default();
        let backing = backing.strip_suffix(b"\n").map(OsStr::from_bytes);
        let backing = backing.and_then(|name| fs::metadata(name).ok());
        if backing.is_some_and(|backing| identity(&backing) == identity(there)) {
            let name = device.file_name();
            let cause = format!("it is in use by /dev/{}; detach that first", name.display());
            return Err(Error::local("write", path.display(), cause));
        }
    }
    Ok(())
}

/// Whether a device refuses each write, according to sysfs.
fn is_read_only(number: u64) -> bool {
    // gnu_dev_major(3). The kernel's numbers have 12 and 20 bits.
    let major = number >> 8 & 0xfff;
    let minor = number & 0xff | number >> 12 & 0xf_ff00;
    let read = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro"));
    read.is_ok_and(|read| read.trim_end() == "1")
}

/// Whether another psync has locked it.
fn is_locked(path: &Path) -> bool {
    let opened = File::open(path).and_then(|device| lockfile::lock_open(device, path));
    matches!(opened, Ok(Locking::Held))
}
