//! Whole files whose blocks are served (`--file`) from where they lie: without a copy of the file, and
//! without a file for each block.
//!
//! This file owns the open files, their indexes, and the one thread that reads and hashes them, one after the
//! other, while all connections already look up what is indexed so far. An index takes 10 bytes
//! a block (2.5 MiB a GiB), and nothing else here grows with a file. It never trusts an index: it hashes each
//! block that it finds, so the changed blocks of a file are absent, never wrong, until the file is read anew.
//! That begins once the file has been still for a while. Until it is done, the file as it was is served too
//! where it is still right, even if it has lost its name; then it is closed, which frees its space on the
//! disk. Meanwhile both indexes take memory.

use std::fs::{self, File, Metadata};
use std::mem;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use super::log::{self, Log};
use crate::block::{self, Slot};
use crate::error::{Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::index::{self, Index};
use crate::mutex::unpoisoned;
use crate::progress::Progress;

/// The time between two looks at whether a file has changed. A file is still if two looks find it the same.
const WATCH: Duration = Duration::from_secs(2);

/// The files that are served, for all connections. A change replaces the list as a whole, so that no
/// connection waits while another reads.
#[derive(Default)]
pub struct Files(RwLock<Arc<Vec<Arc<Served>>>>);

/// An open file and the index of its blocks.
struct Served {
    file: File,
    index: Index,
}

impl Files {
    /// Reads a block into `slot` from any file that has it. False where none has.
    pub fn read(&self, hash: &Hash, slot: &mut Slot) -> bool {
        let list = unpoisoned(self.0.read()).clone();
        list.iter()
            .any(|served| served.index.find(&served.file, hash, slot))
    }

    /// Serves `new`, if any, and `old` no longer.
    fn replace(&self, old: Option<&Arc<Served>>, new: Option<&Arc<Served>>) {
        let mut list = unpoisoned(self.0.write());
        let is_kept = |served: &&_| old.is_none_or(|old| !Arc::ptr_eq(old, served));
        *list = Arc::new(list.iter().filter(is_kept).chain(new).cloned().collect());
    }
}

/// What tells a file from another, and from itself before a change. A program that keeps the mtime (`cp -p`,
/// `rsync -t`) cannot keep the ctime, which changes with mode, owner and links too. A block device has the size
/// 0 and the times of its node, which tell only of what was written by that name.
#[derive(Clone, Copy, PartialEq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    /// The mtime and the ctime, in seconds and nanoseconds.
    times: [(i64, i64); 2],
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        Fingerprint {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            times: [
                (metadata.mtime(), metadata.mtime_nsec()),
                (metadata.ctime(), metadata.ctime_nsec()),
            ],
        }
    }

    /// Whether a change of the file from now on would alter it. One soon after the last might not: clocks have
    /// ticks, of two seconds on FAT.
    fn shows_changes(&self) -> bool {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default();
        !self.times.into_iter().any(|(seconds, nanoseconds)| {
            let then = Duration::from_secs(seconds.max(0).unsigned_abs())
                + Duration::from_nanos(nanoseconds.unsigned_abs());
            now.checked_sub(then).is_some_and(|age| age < WATCH)
        })
    }
}

/// An open file, its size, and its fingerprint.
type Opened = (File, u64, Fingerprint);

/// Opens a file whose blocks are to be served.
fn open(path: &Path) -> Result<Opened> {
    let failed = |e| Error::io("serve", path.display(), &e);
    let (file, metadata) = file::open(path).map_err(failed)?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        let cause = "neither a file nor a block device";
        return Err(Error::local("serve", path.display(), cause));
    }
    let size = file::size(&file).map_err(failed)?;
    Ok((file, size, Fingerprint::of(&metadata)))
}

/// A file that the command line names.
#[derive(Default)]
struct WatchedFile {
    path: PathBuf,
    /// Opened at the start, and not yet indexed.
    first: Option<Opened>,
    served: Option<Arc<Served>>,
    /// As it is served, if a change would show.
    read: Option<Fingerprint>,
    /// As it was at the last look.
    seen: Option<Fingerprint>,
    /// Whether its last failure was reported.
    error_reported: bool,
}

/// Keeps the indexes right.
pub struct Indexer {
    files: Arc<Files>,
    watched: Vec<WatchedFile>,
}

impl Indexer {
    /// Opens all of `paths`.
    ///
    /// # Errors
    /// When one is absent, or is not a file whose parts can be read in any order.
    pub fn new(paths: &[PathBuf]) -> Result<Self> {
        let mut watched: Vec<WatchedFile> = Vec::new();
        for path in paths {
            if watched.iter().any(|other| other.path.as_os_str() == path) {
                continue;
            }
            let (file, size, fingerprint) = open(path)?;
            watched.push(WatchedFile {
                path: path.clone(),
                first: Some((file, size, fingerprint)),
                seen: Some(fingerprint),
                ..WatchedFile::default()
            });
        }
        Ok(Indexer {
            files: Arc::default(),
            watched,
        })
    }

    /// What the connections read; None where the command line names no file.
    pub fn files(&self) -> Option<Arc<Files>> {
        (!self.watched.is_empty()).then(|| Arc::clone(&self.files))
    }

    /// Never ends. Reports to `log` what is wrong with a file.
    pub fn run(mut self, log: Option<&Log>) {
        loop {
            for watched in &mut self.watched {
                // Every look tries again; only the first failure is reported.
                if let Err(error) = watched.look(&self.files)
                    && !mem::replace(&mut watched.error_reported, true)
                {
                    log::report(log, &error);
                }
            }
            thread::sleep(WATCH);
        }
    }
}

impl WatchedFile {
    /// Indexes the file at the first look, and whenever its fingerprint has changed and is still again. Where
    /// only the mode, the owner or a link changed, this is in vain.
    fn look(&mut self, files: &Files) -> Result<()> {
        let (file, size, fingerprint) = match self.first.take() {
            Some(first) => first,
            None => {
                // A file that has lost its name is served on.
                let seen = fs::metadata(&self.path).ok();
                let seen = seen.map(|metadata| Fingerprint::of(&metadata));
                let before = mem::replace(&mut self.seen, seen);
                if seen.is_none() || seen != before || seen == self.read {
                    return Ok(());
                }
                open(&self.path)?
            }
        };
        let shows_changes = fingerprint.shows_changes();
        let index = Index::new(size).ok_or_else(|| {
            let mebibytes = index::bytes(size) >> 20;
            let cause = format_args!("its index of {mebibytes} MiB does not fit into memory");
            Error::local("serve", self.path.display(), cause)
        })?;
        let new = Arc::new(Served { file, index });
        files.replace(None, Some(&new));
        let (mut progress, blocks) = (Progress::new(true, false), block::count(size));
        new.index.read(&new.file, &mut |done| {
            progress.draw(done, Some(blocks), || "indexed".to_owned());
        });
        files.replace(self.served.as_ref(), None);
        self.read = shows_changes.then_some(fingerprint);
        (self.served, self.error_reported) = (Some(new), false);
        Ok(())
    }
}
