//! What the system has and std does not say: a few calls and numbers.
//!
//! This is the only file with `unsafe`. It holds which descriptors were closed at the start, and knows
//! nothing of blocks.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

const LINUX: bool = cfg!(target_os = "linux");
const MIPS: bool = cfg!(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6"
));
const SPARC: bool = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));
const POWERPC: bool = cfg!(any(target_arch = "powerpc", target_arch = "powerpc64"));

/// Opens without waiting for the other end of a FIFO (open(2)). The number is the kernel's, on
/// some machines one of their own; the last is that of the BSDs and macOS.
pub const O_NONBLOCK: i32 = match LINUX {
    true if MIPS => 0o200,
    true if SPARC => 0x4000,
    true => 0o4000,
    false => 0x4,
};

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

/// Has what is cached of a file, and is not to be written any more, read from the disk when it is next
/// read (posix_fadvise(2)). After a sync has failed the cache holds what the disk does not, and the
/// next sync says nothing of it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn forget_cached(file: &File) {
    use std::os::fd::AsRawFd;

    /// An offset in the C library's own width.
    #[cfg(target_env = "musl")]
    type Offset = i64;
    #[cfg(not(target_env = "musl"))]
    type Offset = std::ffi::c_long;
    unsafe extern "C" {
        fn posix_fadvise(fd: i32, offset: Offset, length: Offset, advice: i32) -> i32;
    }
    const DONTNEED: i32 = if cfg!(target_arch = "s390x") { 6 } else { 4 };
    // SAFETY: it takes a descriptor, open for as long as `file` is borrowed, and no pointer.
    unsafe { posix_fadvise(file.as_raw_fd(), 0, 0, DONTNEED) };
}

/// Other systems have no call for it, or keep what was not written.
#[cfg(not(target_os = "linux"))]
pub fn forget_cached(_: &File) {}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
unsafe extern "C" {
    fn ioctl(fd: i32, request: std::ffi::c_ulong, ...) -> i32;
}

/// The request for what of a socket was sent and not yet taken (tcp(7), SIOCOUTQ), on some machines a
/// number of their own.
#[cfg(target_os = "linux")]
const SIOCOUTQ: std::ffi::c_ulong = match (MIPS, SPARC || POWERPC) {
    (true, _) => 0x7472,
    (_, true) => 0x4004_7473,
    _ => 0x5411,
};

/// Bytes that were written to `socket` and that the other side has not yet taken, where that is told.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn untaken(socket: &TcpStream) -> Option<i32> {
    use std::os::fd::AsRawFd;

    let mut bytes = 0_i32;
    // SAFETY: SIOCOUTQ writes one int, for which `bytes` has the room and alignment.
    let told = unsafe { ioctl(socket.as_raw_fd(), SIOCOUTQ, &raw mut bytes) } == 0;
    told.then_some(bytes)
}

/// Elsewhere it is not asked for.
#[cfg(not(target_os = "linux"))]
pub fn untaken(_: &TcpStream) -> Option<i32> {
    None
}

/// Which of the first three descriptors were closed when the program began: std opens /dev/null in
/// their place before `main`, and what is written there would be lost without a word.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// Whether standard input (0), output (1) or error (2) was closed when the program began.
pub fn was_closed_at_start(descriptor: u8) -> bool {
    CLOSED_AT_START.load(Relaxed) & 1 << descriptor != 0
}

/// Runs before `main`, and before std: the loader calls what this section lists.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
#[used]
// SAFETY: the section holds pointers to functions of C's calling convention, and this is one.
#[unsafe(link_section = ".init_array")]
static NOTE_CLOSED: extern "C" fn() = {
    extern "C" fn note_closed() {
        unsafe extern "C" {
            fn fcntl(fd: i32, command: i32, ...) -> i32;
        }
        const F_GETFD: i32 = 1;
        for descriptor in 0..3_u8 {
            // SAFETY: F_GETFD takes no further argument and only fails for a closed descriptor.
            if unsafe { fcntl(i32::from(descriptor), F_GETFD) } == -1 {
                CLOSED_AT_START.fetch_or(1 << descriptor, Relaxed);
            }
        }
    }
    note_closed
};

/// Bits that nobody can foresee: std keys its hashes from the system's own random numbers, which need
/// no file.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
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

/// EAFNOSUPPORT, which std has no name for: a machine without IPv6. The last is that of the BSDs and
/// macOS too.
const NO_SUCH_FAMILY: i32 = match LINUX {
    true if MIPS => 124,
    true if !SPARC => 97,
    _ => 47,
};

/// Whether the machine has no interface for an address, or none for any of its kind.
pub fn is_no_interface(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

/// The request for a terminal's size (ioctl_tty(2)), on some machines a number of their own.
#[cfg(target_os = "linux")]
const TIOCGWINSZ: std::ffi::c_ulong = match MIPS || SPARC || POWERPC {
    true => 0x4008_7468,
    false => 0x5413,
};

/// Columns of the terminal that standard error is, if it is one that tells.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn terminal_width() -> Option<usize> {
    const STDERR: i32 = 2;
    // struct winsize: rows, columns, and two in pixels.
    let mut size = [0_u16; 4];
    // SAFETY: TIOCGWINSZ writes one struct winsize, for which `size` has the room and alignment.
    let told = unsafe { ioctl(STDERR, TIOCGWINSZ, size.as_mut_ptr()) } == 0;
    Some(usize::from(size[1])).filter(|&columns| told && columns > 0)
}

/// Elsewhere the width is not asked for.
#[cfg(not(target_os = "linux"))]
pub fn terminal_width() -> Option<usize> {
    None
}
