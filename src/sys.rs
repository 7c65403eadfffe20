//! What the system has and std does not say: a few calls and numbers.
//!
//! This is the only file with `unsafe`. It holds which descriptors were closed at the start, and knows
//! nothing of blocks.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::TcpStream;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

/// What a write beyond the limit of a file's size (`ulimit -f`) raises, before it fails (signal(7)).
const SIGXFSZ: i32 = if LINUX && MIPS { 31 } else { 25 };

/// Has a write beyond the limit of a file's size fail, as one to a full disk does, where the signal
/// would end the program without a word. A program that this one started would inherit that.
#[allow(unsafe_code)]
pub fn ignore_file_size_signal() {
    unsafe extern "C" {
        fn signal(number: i32, handler: usize) -> usize;
    }
    const SIG_IGN: usize = 1;
    // SAFETY: SIG_IGN is no function that a signal could interrupt anything with.
    unsafe { signal(SIGXFSZ, SIG_IGN) };
}

/// Refuses to open a symbolic link (open(2)); numbers as with [`O_NONBLOCK`].
pub const O_NOFOLLOW: i32 = match LINUX {
    true if cfg!(any(target_arch = "arm", target_arch = "aarch64")) || POWERPC => 0o100_000,
    true => 0o400_000,
    false => 0x100,
};

/// Opens a file to hold it, not to read it (open(2)).
pub const O_PATH: Option<i32> = match LINUX {
    true if SPARC => Some(0x100_0000),
    true => Some(0o10_000_000),
    false => None,
};

/// Refuses a block device that is mounted, swapped to or held by another driver (open(2), "O_EXCL
/// without O_CREAT"). Other systems have no such check, and take the flag for nothing.
pub const O_EXCL: i32 = match LINUX {
    true if MIPS => 0x400,
    true if SPARC => 0x800,
    true => 0o200,
    false => 0x800,
};

#[allow(unsafe_code)]
unsafe extern "C" {
    fn geteuid() -> u32;
    fn umask(mask: u32) -> u32;
}

/// The user whose rights the program has.
#[allow(unsafe_code)]
pub fn user() -> u32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { geteuid() }
}

/// Whether this user may make, rename and remove names in a directory, as far as modes, ACLs and mounts
/// tell (access(2)).
///
/// # Errors
/// Why not.
#[allow(unsafe_code)]
pub fn may_write_in(directory: &Path) -> io::Result<()> {
    unsafe extern "C" {
        fn access(path: *const c_char, mode: i32) -> i32;
    }
    const W_OK: i32 = 2;
    const X_OK: i32 = 1;
    let directory = c_path(directory)?;
    // SAFETY: `directory` ends with NUL.
    match unsafe { access(directory.as_ptr(), W_OK | X_OK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The bits of a mode that the user takes from each new file. To be called while there is one thread:
/// they can only be read by setting them.
#[allow(unsafe_code)]
pub fn masked_bits() -> u32 {
    const PRIVATE: u32 = 0o077;
    // SAFETY: it takes and returns a number, and cannot fail.
    let mask = unsafe { umask(PRIVATE) };
    // SAFETY: as above.
    unsafe { umask(mask) };
    mask
}

/// Brings everything written to the file system of `dir` to the disk (syncfs(2)), or where that call is
/// missing, everything on the machine (sync(2)).
///
/// # Errors
/// Those of the call; since Linux 5.8 also write-back errors of any file there.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn sync_file_system(dir: &File) -> io::Result<()> {
    unsafe extern "C" {
        fn syncfs(fd: i32) -> i32;
        fn sync();
    }
    // SAFETY: syncfs takes a descriptor, open for as long as `dir` is borrowed, and no pointer.
    if unsafe { syncfs(dir.as_raw_fd()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if is_unsupported(&error) {
        // SAFETY: it takes nothing and cannot fail.
        unsafe { sync() };
        return Ok(());
    }
    Err(error)
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

/// ENODATA, which std has no name for: a file without the attribute that is asked for.
const NO_SUCH_ATTRIBUTE: i32 = if SPARC { 111 } else { 61 };

/// Whether a file has no attribute of that name, or its file system none at all: not one that lists it.
pub fn is_no_attribute(error: &io::Error, is_listed: bool) -> bool {
    let is_unsupported = error.kind() == io::ErrorKind::Unsupported;
    error.raw_os_error() == Some(NO_SUCH_ATTRIBUTE) || is_unsupported && !is_listed
}

/// Whether the file system has no such call: EINVAL from CIFS, EOPNOTSUPP or ENOSYS from others.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
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

/// A path as the C library takes it.
fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// Bytes of an attribute's value, and of all names together, at most (xattr(7)).
#[cfg(target_os = "linux")]
const MAX_ATTRIBUTE: usize = 65536;

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
unsafe extern "C" {
    fn llistxattr(path: *const c_char, list: *mut c_char, size: usize) -> isize;
    fn lgetxattr(
        path: *const c_char,
        name: *const c_char,
        value: *mut std::ffi::c_void,
        size: usize,
    ) -> isize;
    fn fsetxattr(
        fd: i32,
        name: *const c_char,
        value: *const std::ffi::c_void,
        size: usize,
        flags: i32,
    ) -> i32;
    fn fremovexattr(fd: i32, name: *const c_char) -> i32;
}

/// What such a call brought into `buffer`, as many bytes as it says.
#[cfg(target_os = "linux")]
fn brought(mut buffer: Vec<u8>, length: isize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Names of the extended attributes of the file `path`, which may be a link itself (llistxattr(2)).
/// ACLs are among them. None where the file system knows no attributes.
///
/// # Errors
/// When the file cannot be looked at.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn attribute_names(path: &Path) -> io::Result<Vec<CString>> {
    let path = c_path(path)?;
    let mut names = vec![0_u8; MAX_ATTRIBUTE];
    // SAFETY: `path` ends with NUL, and `names` has room for as many bytes as it says.
    let length = unsafe { llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    match brought(names, length) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(Vec::new()),
        names => Ok(names?
            .split(|&c| c == 0)
            .filter(|name| !name.is_empty())
            .filter_map(|name| CString::new(name).ok())
            .collect()),
    }
}

/// The value of an extended attribute of the file `path`, which may be a link itself (lgetxattr(2)).
///
/// # Errors
/// When there is none of that name, or it cannot be read.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn attribute(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = c_path(path)?;
    let mut value = vec![0_u8; MAX_ATTRIBUTE];
    let (to, size) = (value.as_mut_ptr().cast(), value.len());
    // SAFETY: both names end with NUL, and `value` has room for as many bytes as it says.
    let length = unsafe { lgetxattr(path.as_ptr(), name.as_ptr(), to, size) };
    brought(value, length)
}

/// Sets an extended attribute (fsetxattr(2)).
///
/// # Errors
/// When the file system knows none, or refuses this one.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn set_attribute(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (from, size) = (value.as_ptr().cast(), value.len());
    // SAFETY: the descriptor is open for as long as `file` is borrowed, `name` ends with NUL, and
    // `value` has as many bytes as it says.
    match unsafe { fsetxattr(file.as_raw_fd(), name.as_ptr(), from, size, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Removes an extended attribute, where there is one (fremovexattr(2)).
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn remove_attribute(file: &File, name: &CStr) {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `name` ends with NUL.
    unsafe { fremovexattr(file.as_raw_fd(), name.as_ptr()) };
}

/// Elsewhere the calls have other names and the attributes other meanings: a file has none.
#[cfg(not(target_os = "linux"))]
pub fn attribute_names(_: &Path) -> io::Result<Vec<CString>> {
    Ok(Vec::new())
}
#[cfg(not(target_os = "linux"))]
pub fn attribute(_: &Path, _: &CStr) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}
#[cfg(not(target_os = "linux"))]
pub fn set_attribute(_: &File, _: &CStr, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
#[cfg(not(target_os = "linux"))]
pub fn remove_attribute(_: &File, _: &CStr) {}

/// What keeps a file or directory from being replaced, or names in it.
#[derive(Clone, Copy, Default)]
pub struct Fixed {
    /// `chattr +i`.
    pub immutable: bool,
    /// `chattr +a`.
    pub append_only: bool,
    /// Mounted by itself, as a file of a container mostly is. Told since Linux 5.8.
    pub mounted: bool,
}

/// What of that holds for `path`, which may be a link itself (statx(2)). The kernel's own call: musl
/// has had a name for it only since 1.2.5.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn fixed(path: &Path) -> Fixed {
    use std::ffi::c_long;

    /// As of linux/stat.h: the same on all processors.
    #[repr(C)]
    struct Statx {
        mask: u32,
        block_size: u32,
        attributes: u64,
        rest: [u64; 30],
    }
    const STATX: c_long = if cfg!(target_arch = "x86_64") {
        332
    } else if cfg!(target_arch = "x86") {
        383
    } else if cfg!(target_arch = "arm") {
        397
    } else if cfg!(any(target_arch = "mips", target_arch = "mips32r6")) {
        4366
    } else if MIPS {
        5326
    } else if POWERPC {
        383
    } else if cfg!(target_arch = "s390x") {
        379
    } else if SPARC {
        360
    } else {
        291
    };
    const AT_FDCWD: c_long = -100;
    const AT_SYMLINK_NOFOLLOW: c_long = 0x100;
    const IMMUTABLE: u64 = 0x10;
    const APPEND: u64 = 0x20;
    const MOUNT_ROOT: u64 = 0x2000;
    const NOTHING_MORE: c_long = 0;
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    let Ok(path) = c_path(path) else {
        return Fixed::default();
    };
    let mut found = Statx {
        mask: 0,
        block_size: 0,
        attributes: 0,
        rest: [0; 30],
    };
    // SAFETY: `path` ends with NUL, and the kernel writes one struct statx, 256 bytes, for which
    // `found` has the room and alignment.
    let told = unsafe {
        syscall(
            STATX,
            AT_FDCWD,
            path.as_ptr(),
            AT_SYMLINK_NOFOLLOW,
            NOTHING_MORE,
            &raw mut found,
        )
    };
    let has = |bit| told == 0 && found.attributes & bit != 0;
    Fixed {
        immutable: has(IMMUTABLE),
        append_only: has(APPEND),
        mounted: has(MOUNT_ROOT),
    }
}

/// Elsewhere it is not asked for.
#[cfg(not(target_os = "linux"))]
pub fn fixed(_: &Path) -> Fixed {
    Fixed::default()
}

/// What a file system has left for this user.
pub struct Room {
    pub bytes: u64,
    /// None where the file system makes them as they are needed.
    pub inodes: Option<u64>,
}

/// What the file system of `path` has left (statvfs(3)), where it tells.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn room(path: &Path) -> Option<Room> {
    /// The beginning is the same in glibc's 64-bit form and in musl, `usize` standing for their unsigned
    /// long; the end has room for the rest.
    #[repr(C)]
    #[derive(Default)]
    struct Statvfs {
        block_size: usize,
        fragment_size: usize,
        blocks: u64,
        free: u64,
        available: u64,
        files: u64,
        free_files: u64,
        available_files: u64,
        rest: [u64; 16],
    }
    unsafe extern "C" {
        // musl has one form, of 64 bits.
        #[cfg_attr(not(target_env = "musl"), link_name = "statvfs64")]
        fn statvfs(path: *const c_char, found: *mut Statvfs) -> i32;
    }
    let path = c_path(path).ok()?;
    let mut found = Statvfs::default();
    // SAFETY: `path` ends with NUL, and `found` has room for more than a struct statvfs.
    if unsafe { statvfs(path.as_ptr(), &raw mut found) } != 0 {
        return None;
    }
    Some(Room {
        bytes: found.available.saturating_mul(found.fragment_size as u64),
        inodes: (found.files > 0).then_some(found.available_files),
    })
}

/// Elsewhere it is not asked for.
#[cfg(not(target_os = "linux"))]
pub fn room(_: &Path) -> Option<Room> {
    None
}
