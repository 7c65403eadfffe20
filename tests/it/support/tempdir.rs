//! A test's own directory: unique, on a tmpfs where there is one, gone when dropped.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use super::at_drop;

#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let shm = Path::new("/dev/shm");
        Self::within(if shm.is_dir() {
            shm
        } else {
            Path::new(env!("CARGO_TARGET_TMPDIR"))
        })
    }

    /// On the disk: for hundreds of megabytes, or for what a tmpfs does not do.
    pub fn on_disk() -> Self {
        Self::within(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    pub fn within(parent: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("psync-it-{}-{n}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // A killed run with the same process id left it behind.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => panic!("{}: {e}", path.display()),
            }
        }
    }

    /// Writes a file of that name into it.
    #[track_caller]
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Names in it, sorted.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        super::names(&self.0)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        at_drop(|| {
            if fs::remove_dir_all(&self.0).is_err() {
                // A test took the write permission of a directory in it away.
                let _ = Command::new("chmod")
                    .arg("-R")
                    .arg("u+rwx")
                    .arg(&self.0)
                    .status();
                let _ = fs::remove_dir_all(&self.0);
            }
        });
    }
}

impl Deref for TempDir {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for TempDir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<OsStr> for TempDir {
    fn as_ref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}
