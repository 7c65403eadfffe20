//! `get --dry-run`: counts the blocks that are on this machine, and those that a get would fetch.
//!
//! This file opens everything for reading only, and contacts no server.

use std::path::PathBuf;
use std::sync::Arc;

use super::list::List;
use super::output::existing::OldFile;
use super::output::target::{Kind, Target};
use super::sources::Sources;
use super::sources::local::Local;
use super::sources::seed::{OwnLists, Scope, Seed};
use crate::block::{self, BLOCK_SIZE};
use crate::error::Result;
use crate::file;
use crate::hash::Hash;
use crate::progress::Progress;

/// The blocks of a file, without those of its lists.
#[derive(Default)]
pub struct Count {
    pub blocks: u64,
    pub local: u64,
    pub missing: u64,
    /// Bytes to fetch, at most: the last block may be shorter than its share here.
    pub bytes: u64,
    /// Whether FILE has exactly the blocks of the list.
    pub is_complete: bool,
}

impl Count {
    /// For a root whose root block is missing.
    pub fn without_root() -> Self {
        Count {
            missing: 1,
            bytes: BLOCK_SIZE as u64,
            ..Count::default()
        }
    }

    /// For a FILE that is right.
    pub fn complete(blocks: u64) -> Self {
        Count {
            blocks,
            local: blocks,
            is_complete: true,
            ..Count::default()
        }
    }

    /// Counts the block of this number in a file of this size, if that is known.
    fn add_missing(&mut self, number: u64, size: Option<u64>) {
        self.blocks += 1;
        self.missing += 1;
        self.bytes += size.map_or(BLOCK_SIZE, |size| block::length(number, size)) as u64;
    }
}

/// What there is of FILE.
#[derive(Default)]
pub struct Files {
    /// FILE, if it is there.
    old: Option<OldFile>,
    /// FILE.part, and FILE if it is to be replaced: its blocks may be of use elsewhere.
    seeds: Vec<Arc<Seed>>,
    /// The path of a device, which goes on after the file.
    device: Option<PathBuf>,
}

impl Files {
    /// # Errors
    /// When FILE is there and cannot be read.
    pub fn open(target: &Target, is_in_place: bool) -> Result<Self> {
        let is_device = matches!(target.kind, Kind::BlockDevice(_));
        let mut files = Files {
            old: OldFile::open(target, is_in_place, OwnLists::Derived)?,
            device: is_device.then(|| target.path.clone()),
            ..Files::default()
        };
        if !is_device && !is_in_place {
            let part = file::open_regular(&target.part());
            let part = part.and_then(|part| Seed::new(part, Scope::OwnPlaces, OwnLists::Derived));
            files.seeds.extend(part.ok().map(Arc::new));
            files
                .seeds
                .extend(files.old.iter().map(|old| Arc::clone(&old.seed)));
        }
        Ok(files)
    }

    /// Files that may have blocks of the list under a root.
    pub fn seeds(&self) -> Vec<Arc<Seed>> {
        match &self.old {
            Some(old) if self.seeds.is_empty() => vec![Arc::clone(&old.seed)],
            _ => self.seeds.clone(),
        }
    }

    /// Whether FILE is a regular one, and all that `root` stands for: how many blocks it has.
    pub fn has_root(&self, root: &Hash) -> Option<u64> {
        let old = self.old.as_ref().filter(|_| self.device.is_none())?;
        old.has_root(root)
    }

    /// Whether FILE is there and has `size` bytes.
    fn ends_at(&self, size: u64) -> bool {
        let is_end = |old: &OldFile| self.device.is_some() || old.seed.size() == size;
        self.old.as_ref().is_some_and(is_end)
    }

    /// # Errors
    /// When FILE is a device, and has no room for `least` bytes.
    fn check_room(&self, least: u64) -> Result<()> {
        match (&self.device, &self.old) {
            (Some(path), Some(old)) if least > old.seed.size() => {
                Err(Target::too_small(path, old.seed.size()))
            }
            _ => Ok(()),
        }
    }
}

/// Looks for each block of `list` in `files` and in the local `sources`.
///
/// # Errors
/// As the list's; when FILE is a device that is too small.
pub fn count(
    list: &mut List,
    sources: &Sources,
    files: &Files,
    mut progress: Progress,
) -> Result<Count> {
    let mut local = Local::of_file(sources, files.old.as_ref(), &files.seeds);
    let (mut count, mut size, mut in_place) = (Count::default(), 0, 0);
    files.check_room(list.least_size().unwrap_or(0))?;
    list.mark_last_line();
    loop {
        let wanted = match list.next() {
            Ok(Some(wanted)) => wanted,
            Ok(None) => break,
            // The rest of the list is missing too, and the root gives its length.
            Err(error) if error.is_missing() => {
                for number in list.given()..list.length().unwrap_or(0) {
                    count.add_missing(number, list.size());
                }
                break;
            }
            Err(error) => return Err(error),
        };
        let mut length = local.find_in_place(&wanted);
        in_place += u64::from(length.is_some());
        if length.is_none() {
            length = local.find_elsewhere(&wanted)?;
        }
        if let Some(length) = length {
            size = wanted.offset() + length as u64;
            count.blocks += 1;
            count.local += 1;
        } else {
            size = wanted.offset() + 1;
            count.add_missing(wanted.number, list.size());
        }
        progress.draw(count.blocks, list.length(), String::new);
    }
    files.check_room(size)?;
    count.is_complete = in_place == count.blocks && files.ends_at(size);
    Ok(count)
}
