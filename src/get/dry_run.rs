//! `get --dry-run`: counts the local blocks, and those that a get would fetch.
//!
//! This file owns that count. It opens each file for reading only, and contacts no server.

use std::sync::Arc;

use super::list::List;
use super::output::existing::OldFile;
use super::output::sink::{Origin, Sink};
use super::output::target::Target;
use super::sources::Sources;
use super::sources::local::Local;
use super::sources::seed::Seed;
use crate::block::{self, BLOCK_SIZE};
use crate::error::Result;
use crate::file;
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
    /// The count for a root whose root block is missing.
    pub fn without_root() -> Self {
        Count {
            missing: 1,
            bytes: BLOCK_SIZE as u64,
            ..Count::default()
        }
    }

    /// The count for a FILE that is right.
    pub fn complete(blocks: u64) -> Self {
        Count {
            blocks,
            local: blocks,
            is_complete: true,
            ..Count::default()
        }
    }

    /// Counts the block of this number as missing, in a file of this size, if known.
    fn add_missing(&mut self, number: u64, size: Option<u64>) {
        self.blocks += 1;
        self.missing += 1;
        self.bytes += size.map_or(BLOCK_SIZE, |size| block::length(number, size)) as u64;
    }
}

/// FILE and FILE.part, as [`super::output::Place`] has them.
#[derive(Default)]
pub struct Files {
    pub old_file: Option<OldFile>,
    /// FILE.part, where there is one that is to replace FILE.
    old_seeds: Vec<Arc<Seed>>,
}

impl Files {
    /// # Errors
    /// When FILE exists and cannot be read.
    pub fn open(target: &Target) -> Result<Self> {
        let mut files = Files {
            old_file: OldFile::open(target)?,
            old_seeds: Vec::new(),
        };
        if !target.in_place {
            let part = file::open_regular(&target.part_path()).and_then(Seed::at_own_places);
            files.old_seeds.extend(part.map(Arc::new));
        }
        files.seeds().iter().for_each(|seed| seed.write_nothing());
        Ok(files)
    }

    /// Files that may have blocks of the list under a root.
    pub fn seeds(&self) -> Vec<Arc<Seed>> {
        let old_file = self.old_file.iter().map(|old| &old.seed);
        self.old_seeds.iter().chain(old_file).cloned().collect()
    }

    /// As [`OldFile::check_end`].
    pub fn check_end(&self, end: u64) -> Result<()> {
        let old_file = self.old_file.as_ref();
        old_file.map_or(Ok(()), |old| old.check_end(end))
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
    let mut local = Local::of_file(sources, files.old_file.as_ref(), &files.old_seeds);
    let mut sink = Sink::new(&sources.keep, &sources.spare, None);
    let (mut count, mut size, mut in_place) = (Count::default(), 0, 0);
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
        if !local.find(&wanted, &mut sink)? {
            size = wanted.offset() + 1;
            count.add_missing(wanted.number, list.size());
        }
        for span in sink.take() {
            size = span.end.offset();
            count.blocks += span.count();
            count.local += span.count();
            in_place += u64::from(span.origin == Origin::InPlace);
        }
        progress.draw(count.blocks, list.length(), String::new);
    }
    files.check_end(size)?;
    let ends = files.old_file.as_ref().is_some_and(|old| old.ends_at(size));
    count.is_complete = in_place == count.blocks && ends;
    Ok(count)
}
