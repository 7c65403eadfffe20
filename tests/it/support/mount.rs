//! File systems of a test's own, for root: small ones in memory, and journaled ones in a file, whose
//! power can be cut. Taken down when dropped.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{BLOCK_SIZE, TempDir, at_drop, need, tool};

/// A file system mounted on a directory of its own.
#[derive(Debug)]
pub struct Mount {
    pub at: TempDir,
    pub image: Option<PathBuf>,
    _images: TempDir,
}

impl Mount {
    pub fn tmpfs(options: &str) -> Mount {
        // A machine without it could not take the mount down again.
        need("umount");
        let at = TempDir::new();
        tool!("mount", "-t", "tmpfs", "-o", options, "none", &at)
            .run()
            .ok();
        Mount {
            at,
            image: None,
            _images: TempDir::new(),
        }
    }

    /// What lies on a device.
    pub fn of(device: &Path, options: &str) -> Mount {
        let mount = Mount {
            at: TempDir::new(),
            image: None,
            _images: TempDir::new(),
        };
        tool!("mount", "-o", options, device, &mount.at).run().ok();
        mount
    }

    /// In a file, by way of a loop device.
    pub fn made_by(mkfs: &str, words: &[&str], mib: usize) -> Mount {
        Self::made_in(TempDir::new(), mkfs, words, mib)
    }

    /// With that file, which is sparse, in a directory that may have too little room for it.
    pub fn made_in(images: TempDir, mkfs: &str, words: &[&str], mib: usize) -> Mount {
        let image = images.join("image");
        File::create(&image)
            .unwrap()
            .set_len((mib << 20) as u64)
            .unwrap();
        let out = tool!(mkfs, "-q").args(words).arg(&image).run();
        assert_eq!(out.status, 0, "{out}");
        let mount = Mount {
            at: TempDir::new(),
            image: Some(image.clone()),
            _images: images,
        };
        mount.mount(&image);
        mount
    }

    pub fn mount(&self, image: &Path) {
        need("umount");
        tool!("mount", "-o", "loop", image, &self.at).run().ok();
    }

    pub fn unmount(&self) {
        tool!("umount", &self.at).run().ok();
    }

    /// From now on nothing reaches the disk, not even the journal's open part.
    pub fn shut_down(&self) {
        tool!("xfs_io", "-x", "-c", "shutdown", &self.at).run().ok();
    }

    /// Takes all of its room but so many bytes, by a file that is returned.
    pub fn fill(&self, but: usize) -> PathBuf {
        let ballast = self.at.join("ballast");
        let file = File::create(&ballast).unwrap();
        let mut at = 0;
        while file.write_all_at(&[1; BLOCK_SIZE], at).is_ok() {
            at += BLOCK_SIZE as u64;
        }
        file.set_len(at - but as u64).unwrap();
        ballast
    }

    pub fn blocks(&self) -> PathBuf {
        self.at.join("b")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        at_drop(|| {
            let _ = tool!("umount", "-l", &self.at).run();
        });
    }
}

/// mkfs programs whose file systems this kernel has.
pub fn journaled() -> Vec<&'static str> {
    let _ = tool!("sh", "-c", "modprobe ext4; modprobe xfs").run();
    let kernel = fs::read_to_string("/proc/filesystems").unwrap();
    let has = |mkfs: &&str| {
        let kind = mkfs.trim_start_matches("mkfs.");
        let has = kernel.split_whitespace().any(|word| word == kind);
        if !has {
            let _ = writeln!(std::io::stderr(), "SKIPPED {kind}: this kernel has none");
        }
        has
    };
    ["mkfs.ext4", "mkfs.xfs"].into_iter().filter(has).collect()
}

/// The least that mkfs.xfs makes; sparse.
pub const DISK: usize = 320;
