//! Which file is to be written: where FILE's name leads, and what FILE.part is called.
//!
//! This file opens and writes nothing.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Symbolic links followed to the file that is to be written; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// Where `path` leads by symbolic links, the last of which may lead to nothing yet.
pub fn follow(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    // What leads to a pipe, as /dev/stdout may, has no other name.
    let is_place = |kind: fs::FileType| kind.is_file() || kind.is_block_device();
    if fs::metadata(&path).is_ok_and(|metadata| !is_place(metadata.file_type())) {
        return Ok(path);
    }
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else {
            return Ok(path);
        };
        // An absolute target replaces all of it.
        path.pop();
        path.push(target);
    }
    Err(Error::local(
        "open",
        path.display(),
        "Too many levels of symbolic links",
    ))
}

/// FILE.part
pub fn part_of(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(".part");
    path.into()
}
