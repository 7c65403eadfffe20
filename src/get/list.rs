//! The hashlist that `get` resolves, from a file or a stream.
//!
//! A file is read twice: once to see that all of it is valid, before anything else happens, and
//! once as it is used, so that no list need fit into memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};

use crate::console;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::hashlist::Reader;

pub struct List {
    reader: Reader<Box<dyn BufRead>>,
    name: String,
    length: Option<u64>,
    given: u64,
}

impl List {
    /// Opens the file `path`, or standard input where that is `-`.
    ///
    /// # Errors
    /// Exit code 1 when it cannot be read, 2 when it is a file and any line of it is not a hash.
    pub fn open(path: &OsStr) -> Result<Self> {
        let name = path.display().to_string();
        if path == "-" {
            return Ok(List::new(
                Box::new(BufReader::new(console::stdin()?)),
                name,
                None,
            ));
        }
        let failed = |e| Error::io("read hashlist", path.display(), &e);
        let mut file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Ok(List::new(Box::new(BufReader::new(file)), name, None));
        }
        let mut length = 0;
        let mut check = Reader::new(BufReader::new(&file), name.clone());
        while check.next()?.is_some() {
            length += 1;
        }
        file.rewind().map_err(failed)?;
        Ok(List::new(
            Box::new(BufReader::new(file)),
            name,
            Some(length),
        ))
    }

    fn new(input: Box<dyn BufRead>, name: String, length: Option<u64>) -> Self {
        List {
            reader: Reader::new(input, name.clone()),
            name,
            length,
            given: 0,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lines, where they are known beforehand.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next hash, or none at the end.
    ///
    /// # Errors
    /// As the hashlist's reader; and when a file has become longer or shorter since it was opened.
    pub fn next(&mut self) -> Result<Option<Hash>> {
        let hash = self.reader.next()?;
        self.given += u64::from(hash.is_some());
        let is_due = |length| match hash {
            Some(_) => self.given <= length,
            None => self.given == length,
        };
        if !self.length.is_none_or(is_due) {
            let cause = "it changed while it was read";
            return Err(Error::local("read hashlist", &self.name, cause));
        }
        Ok(hash)
    }
}
