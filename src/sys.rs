//! Calls and numbers of the system that std lacks.
//!
//! Only this file has `unsafe`. It holds which descriptors were closed at the start, and knows
//! nothing of blocks.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

#[cfg(not(target_os = "linux"))]
pub use elsewhere::*;
#[cfg(target_os = "linux")]
pub use linux::*;

const LINUX: bool = cfg!(target_os = "linux");
const MIPS: bool = cfg!(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6"
));
const SPARC: bool = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));
const POWERPC: bool = cfg!(any(target_arch = "powerpc", target_arch = "powerpc64"));

/// A string of C, ended by NUL.
type Name = *const c_char;

unsafe extern "C" {
    /// The effective user.
    #[link_name = "geteuid"]
    pub safe fn user() -> u32;
    safe fn umask(mask: u32) -> u32;
    fn access(path: Name, mode: i32) -> i32;
    fn signal(number: i32, handler: usize) -> usize;
}

/// The outcome of a call that returns 0, or leaves its error in errno.
fn checked(returned: i32) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A path as the C library takes it.
fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// Opens without waiting for the other end of a FIFO (open(2)). Some machines have a number of their
/// own; the last is that of the BSDs and macOS.
pub const O_NONBLOCK: i32 = match LINUX {
    true if MIPS => 0o200,
    true if SPARC => 0x4000,
    true => 0o4000,
    false => 0x4,
};

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
/// without O_CREAT"). Other systems ignore the flag.
pub const O_EXCL: i32 = match LINUX {
    true if MIPS => 0x400,
    true if SPARC => 0x800,
    true => 0o200,
    false => 0x800,
};

/// Makes a write beyond the file size limit (`ulimit -f`) fail like one to a full disk. Otherwise
/// SIGXFSZ (signal(7)) would end the program without a message. A child process would inherit this.
pub fn ignore_file_size_signal() {
    const SIGXFSZ: i32 = if LINUX && MIPS { 31 } else { 25 };
    const SIG_IGN: usize = 1;
    // SAFETY: SIG_IGN runs no handler.
    unsafe { signal(SIGXFSZ, SIG_IGN) };
}

/// Whether this user may make, rename and remove names in a directory, as far as modes, ACLs and mounts
/// tell (access(2)).
///
/// # Errors
/// Why not.
pub fn may_write_in(directory: &Path) -> io::Result<()> {
    const W_OK: i32 = 2;
    const X_OK: i32 = 1;
    let directory = c_path(directory)?;
    // SAFETY: `directory` ends with NUL.
    checked(unsafe { access(directory.as_ptr(), W_OK | X_OK) })
}

/// The bits of a mode that the user takes from each new file. Only one thread may run: the call that reads
/// them sets them.
pub fn masked_bits() -> u32 {
    const PRIVATE: u32 = 0o077;
    let mask = umask(PRIVATE);
    umask(mask);
    mask
}

/// Which of the first three descriptors were closed when the program began: std opens /dev/null in
/// their place before `main`, and output there would be lost without a message.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// Whether standard input (0), output (1) or error (2) was closed when the program began.
pub fn was_closed_at_start(descriptor: u8) -> bool {
    CLOSED_AT_START.load(Relaxed) & 1 << descriptor != 0
}

/// An unpredictable number: std keys its hashes from the system's random numbers, without a file.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Whether the process, or the machine, has no descriptor left.
pub fn is_descriptor_shortage(error: &io::Error) -> bool {
    // The same numbers on every Unix.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Whether the machine was short of something, which says nothing about the object of the call.
pub fn is_shortage(error: &io::Error) -> bool {
    is_descriptor_shortage(error) || error.kind() == io::ErrorKind::OutOfMemory
}

/// ENODATA, which std has no name for: the file lacks the attribute.
const NO_SUCH_ATTRIBUTE: i32 = if SPARC { 111 } else { 61 };

/// Whether a file lacks an attribute, or its file system knows none. One that lists the attribute knows
/// some: its refusal means something else.
pub fn is_no_attribute(error: &io::Error, is_listed: bool) -> bool {
    let is_unsupported = error.kind() == io::ErrorKind::Unsupported;
    error.raw_os_error() == Some(NO_SUCH_ATTRIBUTE) || is_unsupported && !is_listed
}

/// Whether the file system lacks a call: EINVAL from CIFS, EOPNOTSUPP or ENOSYS from others.
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

/// What keeps a file from being replaced, or names in a directory: bits of [`file_attributes`], as statx(2)
/// has them. These are set by `chattr +i` and `chattr +a`.
pub const IMMUTABLE: u64 = 0x10;
pub const APPEND_ONLY: u64 = 0x20;
/// A mount of its own, as a file of a container mostly is. Known since Linux 5.8.
pub const MOUNT_ROOT: u64 = 0x2000;

/// What a file system has left for this user.
pub struct Room {
    pub bytes: u64,
    /// None where the file system makes inodes as it needs them.
    pub inodes: Option<u64>,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{CStr, CString, c_long, c_ulong, c_void};
    use std::fs::File;
    use std::io;
    use std::net::TcpStream;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
    use std::path::Path;
    use std::sync::atomic::Ordering::Relaxed;

    use super::{CLOSED_AT_START, MIPS, Name, POWERPC, Room, SPARC};
    use super::{c_path, checked, is_unsupported};

    unsafe extern "C" {
        safe fn sync();
        safe fn syncfs(fd: BorrowedFd) -> i32;
        fn fcntl(fd: i32, command: i32, ...) -> i32;
        fn ioctl(fd: i32, request: c_ulong, ...) -> i32;
        fn syscall(number: c_long, ...) -> c_long;
        // musl has one form of these, of 64 bits.
        #[cfg_attr(not(target_env = "musl"), link_name = "posix_fadvise64")]
        safe fn posix_fadvise(fd: BorrowedFd, offset: i64, length: i64, advice: i32) -> i32;
        #[cfg_attr(not(target_env = "musl"), link_name = "statvfs64")]
        fn statvfs(path: Name, found: *mut Statvfs) -> i32;
        fn llistxattr(path: Name, to: *mut c_void, size: usize) -> isize;
        fn lgetxattr(path: Name, name: Name, to: *mut c_void, size: usize) -> isize;
        fn fsetxattr(
            fd: BorrowedFd,
            name: Name,
            from: *const c_void,
            size: usize,
            flags: i32,
        ) -> i32;
        fn fremovexattr(fd: BorrowedFd, name: Name) -> i32;
    }

    /// Runs before `main`, and before std: the loader calls the functions that this section lists.
    #[used]
    // SAFETY: the section holds pointers to functions of C's calling convention, and this is one.
    #[unsafe(link_section = ".init_array")]
    static NOTE_CLOSED: extern "C" fn() = note_closed;

    extern "C" fn note_closed() {
        const F_GETFD: i32 = 1;
        for descriptor in 0..3_u8 {
            // SAFETY: F_GETFD takes no further argument and only fails for a closed descriptor.
            if unsafe { fcntl(i32::from(descriptor), F_GETFD) } == -1 {
                CLOSED_AT_START.fetch_or(1 << descriptor, Relaxed);
            }
        }
    }

    /// Brings everything written to the file system of `dir` to the disk (syncfs(2)), or where that call
    /// is missing, everything on the machine (sync(2)).
    ///
    /// # Errors
    /// Those of the call; since Linux 5.8 also write-back errors of any file there.
    pub fn sync_file_system(dir: &File) -> io::Result<()> {
        match checked(syncfs(dir.as_fd())) {
            Err(e) if is_unsupported(&e) => {
                sync();
                Ok(())
            }
            synced => synced,
        }
    }

    /// Drops a file from the cache (posix_fadvise(2)). After a failed sync the cache holds what the disk
    /// lacks, and the next sync does not report it.
    pub fn forget_cached(file: &File) {
        const DONTNEED: i32 = if cfg!(target_arch = "s390x") { 6 } else { 4 };
        posix_fadvise(file.as_fd(), 0, 0, DONTNEED);
    }

    /// Bytes written to `socket` that the other side has not yet taken, where the system tells.
    pub fn untaken(socket: &TcpStream) -> Option<i32> {
        // tcp(7). Some machines have a number of their own, here and below.
        const SIOCOUTQ: c_ulong = match (MIPS, SPARC || POWERPC) {
            (true, _) => 0x7472,
            (_, true) => 0x4004_7473,
            _ => 0x5411,
        };
        let mut bytes = 0_i32;
        // SAFETY: SIOCOUTQ writes one int, for which `bytes` has the room and alignment.
        checked(unsafe { ioctl(socket.as_raw_fd(), SIOCOUTQ, &raw mut bytes) }).ok()?;
        Some(bytes)
    }

    /// Columns of the terminal that standard error is, if it tells them.
    pub fn terminal_width() -> Option<usize> {
        // ioctl_tty(2).
        const TIOCGWINSZ: c_ulong = match MIPS || SPARC || POWERPC {
            true => 0x4008_7468,
            false => 0x5413,
        };
        const STDERR: i32 = 2;
        // struct winsize: rows, columns, and two in pixels.
        let mut size = [0_u16; 4];
        // SAFETY: TIOCGWINSZ writes one struct winsize, for which `size` has the room and alignment.
        checked(unsafe { ioctl(STDERR, TIOCGWINSZ, size.as_mut_ptr()) }).ok()?;
        Some(usize::from(size[1])).filter(|&columns| columns > 0)
    }

    /// Lets `read` fill a buffer, given its address and size. Returns as many bytes as `read` says.
    fn read_attribute(read: impl FnOnce(*mut c_void, usize) -> isize) -> io::Result<Vec<u8>> {
        /// Bytes of an attribute's value, and of all names together, at most (xattr(7)).
        const MAX_ATTRIBUTE: usize = 65536;
        let mut buffer = vec![0_u8; MAX_ATTRIBUTE];
        let length = read(buffer.as_mut_ptr().cast(), buffer.len());
        buffer.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
        Ok(buffer)
    }

    /// Names of the extended attributes of the file `path`, which may be a link itself (llistxattr(2)).
    /// ACLs are among them. None where the file system knows no attributes.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn attribute_names(path: &Path) -> io::Result<Vec<CString>> {
        let path = c_path(path)?;
        // SAFETY: `path` ends with NUL, and `to` has room for `size` bytes.
        let names = read_attribute(|to, size| unsafe { llistxattr(path.as_ptr(), to, size) });
        match names {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(Vec::new()),
            names => Ok(names?
                .split_inclusive(|&c| c == 0)
                .filter_map(|name| CStr::from_bytes_with_nul(name).ok().map(CStr::to_owned))
                .collect()),
        }
    }

    /// The value of an extended attribute of the file `path`, which may be a link itself (lgetxattr(2)).
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be read.
    pub fn attribute(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
        let (path, name) = (c_path(path)?, name.as_ptr());
        // SAFETY: both names end with NUL, and `to` has room for `size` bytes.
        read_attribute(|to, size| unsafe { lgetxattr(path.as_ptr(), name, to, size) })
    }

    /// Sets an extended attribute (fsetxattr(2)).
    ///
    /// # Errors
    /// When the file system knows none, or refuses this one.
    pub fn set_attribute(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
        let (from, size) = (value.as_ptr().cast(), value.len());
        // SAFETY: `name` ends with NUL, and `value` has `size` bytes.
        checked(unsafe { fsetxattr(file.as_fd(), name.as_ptr(), from, size, 0) })
    }

    /// Removes an extended attribute, where there is one (fremovexattr(2)).
    pub fn remove_attribute(file: &File, name: &CStr) {
        // SAFETY: `name` ends with NUL.
        unsafe { fremovexattr(file.as_fd(), name.as_ptr()) };
    }

    /// As of linux/stat.h: the same on all processors.
    #[repr(C)]
    #[derive(Default)]
    struct Statx {
        mask: u32,
        block_size: u32,
        attributes: u64,
        rest: [u64; 30],
    }

    /// Attributes of the file `path`, which may be a link itself (statx(2)). The number of the call stands
    /// here because musl has had a name for it only since 1.2.5.
    pub fn file_attributes(path: &Path) -> u64 {
        const STATX: c_long = match () {
            () if cfg!(target_arch = "x86_64") => 332,
            () if cfg!(target_arch = "x86") => 383,
            () if cfg!(target_arch = "arm") => 397,
            () if cfg!(any(target_arch = "mips", target_arch = "mips32r6")) => 4366,
            () if MIPS => 5326,
            () if POWERPC => 383,
            () if cfg!(target_arch = "s390x") => 379,
            () if SPARC => 360,
            () => 291,
        };
        const AT_FDCWD: c_long = -100;
        const AT_SYMLINK_NOFOLLOW: c_long = 0x100;
        const NOTHING_MORE: c_long = 0;
        let path = c_path(path).unwrap_or_default();
        let (mut found, path, flags) = (Statx::default(), path.as_ptr(), AT_SYMLINK_NOFOLLOW);
        let to = &raw mut found;
        // SAFETY: `path` ends with NUL, and the kernel writes one struct statx, 256 bytes, for which
        // `found` has the room and alignment.
        unsafe { syscall(STATX, AT_FDCWD, path, flags, NOTHING_MORE, to) };
        found.attributes
    }

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

    /// What the file system of `path` has left (statvfs(3)), where it tells.
    pub fn room(path: &Path) -> Option<Room> {
        let path = c_path(path).ok()?;
        let mut found = Statvfs::default();
        // SAFETY: `path` ends with NUL, and `found` has room for more than a struct statvfs.
        checked(unsafe { statvfs(path.as_ptr(), &raw mut found) }).ok()?;
        Some(Room {
            bytes: found.available.saturating_mul(found.fragment_size as u64),
            inodes: (found.files > 0).then_some(found.available_files),
        })
    }
}

/// What takes the place of Linux's own calls on other systems.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::ffi::{CStr, CString};
    use std::fs::File;
    use std::io;
    use std::net::TcpStream;
    use std::path::Path;

    use super::Room;

    /// There is no such call: each file is synced as it is written.
    pub fn sync_file_system(_: &File) -> io::Result<()> {
        Ok(())
    }

    /// There is no such call, or the cache keeps what the disk refused.
    pub fn forget_cached(_: &File) {}

    pub fn untaken(_: &TcpStream) -> Option<i32> {
        None
    }

    pub fn terminal_width() -> Option<usize> {
        None
    }

    /// The calls have other names and the attributes other meanings: a file has none.
    pub fn attribute_names(_: &Path) -> io::Result<Vec<CString>> {
        Ok(Vec::new())
    }

    pub fn attribute(_: &Path, _: &CStr) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn set_attribute(_: &File, _: &CStr, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn remove_attribute(_: &File, _: &CStr) {}

    pub fn file_attributes(_: &Path) -> u64 {
        0
    }

    pub fn room(_: &Path) -> Option<Room> {
        None
    }
}
