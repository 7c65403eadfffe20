//! What the system has and std does not say: one call and a few numbers.
//!
//! This is the only file with `unsafe`. It holds no state and knows nothing of blocks.

use std::fs::File;
use std::io;

/// Opens without waiting for the other end of a FIFO (open(2)); the number is the kernel's, a
/// machine's own.
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6"
    )
))]
pub const O_NONBLOCK: i32 = 0o200;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "sparc", target_arch = "sparc64")
))]
pub const O_NONBLOCK: i32 = 0x4000;
#[cfg(all(
    target_os = "linux",
    not(any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6",
        target_arch = "sparc",
        target_arch = "sparc64"
    ))
))]
pub const O_NONBLOCK: i32 = 0o4000;
/// The BSDs' and macOS's.
#[cfg(not(target_os = "linux"))]
pub const O_NONBLOCK: i32 = 0x4;

/// Brings everything written to the file system of `dir` to the disk (syncfs(2)).
///
/// # Errors
/// Those of the call; since Linux 5.8 also write-back errors of any file there.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn sync_file_system(dir: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    unsafe extern "C" {
        fn syncfs(fd: i32) -> i32;
    }
    // SAFETY: syncfs takes a descriptor, open for as long as `dir` is borrowed, and no pointer.
    match unsafe { syncfs(dir.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Other systems have no call for it: there each file is synced as it is written.
#[cfg(not(target_os = "linux"))]
pub fn sync_file_system(_: &File) -> io::Result<()> {
    Ok(())
}

/// ENFILE and EMFILE, the same numbers on every Unix.
const DESCRIPTORS_USED_UP: [i32; 2] = [23, 24];

/// Whether the process, or the machine, has no descriptor left.
pub fn is_descriptor_shortage(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| DESCRIPTORS_USED_UP.contains(&code))
}

/// Whether the machine was short of something, which says nothing about what was asked for.
pub fn is_shortage(error: &io::Error) -> bool {
    is_descriptor_shortage(error) || error.kind() == io::ErrorKind::OutOfMemory
}
