//! Blocks served out of whole files (`--file`), from where they lie: no copy of the file, and no
//! file for each block.
//!
//! This file owns the files, and the one thread that reads and hashes them, one after the other,
//! while all connections already look blocks up in what is indexed so far. An index takes 10 bytes
//! a block (2.5 MiB a GiB), and nothing else here grows with a file. Whatever is found is hashed
//! before it is believed, so a file that changes is never wrong: its changed blocks are absent
//! until it has been read anew, which begins once it has been still for a while. Until that is
//! done, the file as it was is served too where it is still right, even if it has lost its name;
//! then it is let go, and its space on the disk comes back. That takes the memory for both.

use std::fs::{self, File, Metadata};
use std::mem;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crate::block::{self, Slot};
use crate::error::{Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::index::{self, Index};
use crate::progress::Progress;

/// Between two looks at whether a file has changed. One that was like this at two looks is still.
const WATCH: Duration = Duration::from_secs(2);

/// The files that are served, for all connections. The list is changed as a whole, so that nobody
/// waits while another reads.
#[derive(Default)]
pub struct Files(RwLock<Arc<Vec<Arc<Served>>>>);

/// A file with what is known of its blocks.
struct Served {
    file: File,
    index: Index,
}

impl Files {
    /// Reads a block into `slot`, wherever it lies. False where no file has it.
    pub fn read(&self, hash: &Hash, slot: &mut Slot) -> bool {
        let list = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        list.iter()
            .any(|served| served.index.find(&served.file, hash, slot))
    }

    /// Serves `new`, if any, and `old` no longer.
    fn replace(&self, old: Option<&Arc<Served>>, new: Option<&Arc<Served>>) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let kept = list.iter().filter(|&served| !is_same(old, served));
        *list = Arc::new(kept.chain(new).cloned().collect());
    }
}

fn is_same(one: Option<&Arc<Served>>, other: &Arc<Served>) -> bool {
    one.is_some_and(|one| Arc::ptr_eq(one, other))
}

/// What tells a file from another, and from itself before it was changed: device, inode, size, and
/// the times of the last change. Who keeps the mtime (`cp -p`, `rsync -t`) cannot keep the ctime. That
/// changes with mode, owner and links too: then a file is read anew for nothing, and served meanwhile.
/// A block device has the size 0 and the times of its node, which tell only of what was written by
/// that name.
type Fingerprint = (u64, u64, u64, [(i64, i64); 2]);

fn mark(metadata: &Metadata) -> Fingerprint {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        times(metadata),
    )
}

/// The mtime and the ctime, in seconds and nanoseconds.
fn times(metadata: &Metadata) -> [(i64, i64); 2] {
    [
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    ]
}

/// Whether one more change would show in the mark: not soon after the last, as clocks have ticks,
/// of two seconds on FAT.
fn shows_changes(metadata: &Metadata) -> bool {
    !times(metadata).into_iter().any(is_recent)
}

/// Whether this time was less than a look ago.
fn is_recent((seconds, nanoseconds): (i64, i64)) -> bool {
    let since_1970 = u64::try_from(seconds).ok().zip(nanoseconds.try_into().ok());
    let age = since_1970
        .and_then(|(seconds, nanoseconds)| {
            UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
        })
        .and_then(|then| then.elapsed().ok());
    age.is_some_and(|age| age < WATCH)
}

/// A file that was opened to be indexed.
struct Opened {
    file: File,
    size: u64,
    mark: Fingerprint,
    shows_changes: bool,
}

impl Opened {
    fn new(path: &Path) -> Result<Self> {
        let failed = |e| Error::io("serve", path.display(), &e);
        let (file, metadata) = file::open(path).map_err(failed)?;
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            let cause = "neither a file nor a block device";
            return Err(Error::local("serve", path.display(), cause));
        }
        Ok(Opened {
            size: file::size(&file).map_err(failed)?,
            mark: mark(&metadata),
            shows_changes: shows_changes(&metadata),
            file,
        })
    }
}

/// One that the command line names.
struct WatchedFile {
    path: PathBuf,
    /// Opened at the start, and not yet looked at.
    first: Option<Opened>,
    served: Option<Arc<Served>>,
    /// As it is served, if a change would show, and as it was at the last look.
    read: Option<Fingerprint>,
    seen: Option<Fingerprint>,
    /// Whether the error that it cannot be read anew was reported.
    error_reported: bool,
}

/// Who keeps the indexes right.
pub struct Indexer {
    files: Arc<Files>,
    named: Vec<WatchedFile>,
}

impl Indexer {
    /// Opens all of `paths`.
    ///
    /// # Errors
    /// When one is not there, or is not a file whose parts can be read in any order.
    pub fn new(paths: &[PathBuf]) -> Result<Self> {
        let mut named: Vec<WatchedFile> = Vec::new();
        for path in paths {
            if named.iter().any(|other| other.path.as_os_str() == path) {
                continue;
            }
            let opened = Opened::new(path)?;
            named.push(WatchedFile {
                path: path.clone(),
                seen: Some(opened.mark),
                first: Some(opened),
                served: None,
                read: None,
                error_reported: false,
            });
        }
        Ok(Indexer {
            files: Arc::default(),
            named,
        })
    }

    /// What the connections read; None where no file is named.
    pub fn files(&self) -> Option<Arc<Files>> {
        (!self.named.is_empty()).then(|| Arc::clone(&self.files))
    }

    /// Never ends. What is wrong with a file is for `tell`.
    pub fn run(mut self, tell: &dyn Fn(&Error)) {
        loop {
            for named in &mut self.named {
                match named.look(&self.files) {
                    Ok(()) => {}
                    // Tried again at every look, reported once.
                    Err(_) if named.error_reported => {}
                    Err(error) => {
                        tell(&error);
                        named.error_reported = true;
                    }
                }
            }
            thread::sleep(WATCH);
        }
    }
}

impl WatchedFile {
    /// Indexes the file at the first look, and whenever it has changed and is still again.
    fn look(&mut self, files: &Files) -> Result<()> {
        let opened = match self.first.take() {
            Some(first) => first,
            None => {
                // One that has no name any more is served on.
                let seen = fs::metadata(&self.path).ok().map(|now| mark(&now));
                let before = mem::replace(&mut self.seen, seen);
                if seen.is_none() || seen != before || seen == self.read {
                    return Ok(());
                }
                Opened::new(&self.path)?
            }
        };
        let Opened { file, size, .. } = opened;
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
        self.read = opened.shows_changes.then_some(opened.mark);
        (self.served, self.error_reported) = (Some(new), false);
        Ok(())
    }
}
