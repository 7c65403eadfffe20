//! Other users of the machine, for root: psync under two user ids that share nothing but a directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::{PSYNC, Run, TempDir};

/// Two users without rights, whose ids no account has.
pub const ALICE: u32 = 54_321;
pub const MALLORY: u32 = 54_322;

/// A directory that each user may go to, with a psync that each may run.
#[derive(Debug)]
pub struct Shared(TempDir);

impl Shared {
    pub fn new() -> Self {
        Self::on(TempDir::new())
    }

    pub fn on(dir: TempDir) -> Self {
        fs::copy(PSYNC, dir.join("psync")).unwrap();
        let readable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&dir, readable).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A directory in it that belongs to `owner`.
    pub fn dir(&self, name: &str, owner: u32, mode: u32) -> std::path::PathBuf {
        let dir = self.0.join(name);
        fs::create_dir(&dir).unwrap();
        own(&dir, owner, mode);
        dir
    }

    /// psync as this user, in this group of the same number and no other.
    #[track_caller]
    pub fn psync(&self, user: u32) -> Run {
        self.psync_in(user, user)
    }

    #[track_caller]
    pub fn psync_in(&self, user: u32, group: u32) -> Run {
        let ids = [
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
        ];
        Run::new(self.0.join("psync")).under("setpriv", ids)
    }
}

/// Gives a file to a user and to the group of the same number.
#[track_caller]
pub fn own(path: &Path, user: u32, mode: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
