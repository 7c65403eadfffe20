//! What a test needs of the machine. A missing program fails the test and names its package, so that
//! a green run means that it ran; only what no package can bring (a right, a file system) is skipped.

use std::env;
use std::path::{Path, PathBuf};

/// Where the program is; fails with the name of its package.
#[track_caller]
pub fn need(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons live in sbin, which an ordinary user's PATH leaves out.
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{program} is missing: apt-get install {}", package(program)))
}

fn package(program: &str) -> &str {
    match program {
        "nginx" => "nginx-light",
        "sha256sum" | "split" | "cut" | "sleep" | "chroot" | "mkfifo" | "chmod" | "cp" | "id"
        | "cat" | "sync" | "true" => "coreutils",
        "cmp" => "diffutils",
        "start-stop-daemon" => "dpkg",
        "systemd-analyze" => "systemd",
        "mount" | "umount" | "losetup" => "mount",
        "unshare" | "nsenter" | "prlimit" | "setpriv" => "util-linux",
        "xargs" => "findutils",
        "mkfs.ext4" => "e2fsprogs",
        "mkfs.xfs" | "xfs_io" => "xfsprogs",
        "script" => "bsdutils",
        "sh" => "dash",
        "ip" => "iproute2",
        "qemu-arm-static" | "qemu-mips-static" => "qemu-user-static",
        _ => Path::new(program)
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or(program),
    }
}

/// Ends the test as passed, and says so where `cargo test` does not capture it.
macro_rules! skip {
    ($($why:tt)*) => {{
        use std::io::Write;
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {}", format_args!($($why)*));
        return;
    }};
}
pub(crate) use skip;
