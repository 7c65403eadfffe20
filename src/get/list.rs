//! The hashlist that `get` resolves, from a file, a stream or a root.
//!
//! This file owns the numbers and the order of the lines. It holds no list in memory: it reads a file once
//! to check all of it, before anything else happens, and again for each use. It finds no block:
//! `list/tree.rs` does for a list under a root.

mod order;
pub mod tree;

use std::env;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::iter::Flatten;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::block_ref::BlockRef;
use crate::block;
use crate::console;
use crate::error::{Cause, Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::hashlist::{LINE, Reader, push_line};
use crate::mutex::lock;
use order::{Order, Ordered};

pub struct List {
    reader: Reader<BufReader<Box<dyn Read + Send>>>,
    name: String,
    length: Option<u64>,
    /// Bytes of the file, where a root tells them.
    size: Option<u64>,
    /// Why a list under a root ends early.
    early_end: SharedError,
    /// The file that holds the text, if there is one.
    file: Option<File>,
    /// Bytes and mtime of the file when all of it was checked. None for an unnamed file.
    checked: Option<(u64, Option<SystemTime>)>,
    /// The numbers of the next lines, in a shuffled list.
    order: Option<Flatten<Order>>,
    /// Whether the last line is marked although the length is not known. That takes a look at the next line,
    /// for which a block would wait where the list is still growing.
    marks_last_line: bool,
    given: u64,
    /// Whether the last line was given, or an error ended the list.
    ended: bool,
}

/// Why a text ends early, if it does. Its reader shares this with the thread that writes it.
pub type SharedError = Arc<Mutex<Option<Error>>>;

impl List {
    /// Opens the file `path`, or standard input where that is `-`.
    ///
    /// # Errors
    /// Exit code 1 when it cannot be read, 2 when it is a file and any line of it is not a hash.
    pub fn open(path: &OsStr) -> Result<Self> {
        let name = path.display().to_string();
        if path == "-" {
            return Ok(List::new(Box::new(console::stdin()?), name, None));
        }
        let failed = |e| Error::io("read hashlist", path.display(), &e);
        let file = File::open(path).map_err(|e| match e.kind() {
            // Swapped words, or a mistyped root.
            io::ErrorKind::NotFound => {
                let hint = "the last word is a file, or a root of 64 digits 0-9a-f";
                let cause = format!("{}; {hint}", Cause(&e));
                Error::local("read hashlist", path.display(), cause)
            }
            _ => failed(e),
        })?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Ok(List::new(Box::new(file), name, None));
        }
        let mut length = 0;
        let mut check = Reader::new(BufReader::new(&file), name.clone());
        while check.next()?.is_some() {
            length += 1;
        }
        let mut list = List {
            file: Some(file),
            checked: Some((found.len(), found.modified().ok())),
            ..List::new(Box::new(io::empty()), name, Some(length))
        };
        list.rewind()?;
        Ok(list)
    }

    /// Begins a list in a file again, with its first line.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rewind(&mut self) -> Result<()> {
        if let Some(file) = &self.file {
            let text = self.read_again(file)?;
            self.set_text(Box::new(text));
        }
        Ok(())
    }

    /// The list's file, from its beginning.
    fn read_again(&self, mut file: &File) -> Result<File> {
        let text = file.rewind().and_then(|()| file.try_clone());
        text.map_err(|e| Error::io("read hashlist", &self.name, &e))
    }

    fn set_text(&mut self, text: Box<dyn Read + Send>) {
        self.reader = Reader::new(BufReader::new(text), self.name.clone());
        (self.given, self.ended) = (0, false);
    }

    fn new(input: Box<dyn Read + Send>, name: String, length: Option<u64>) -> Self {
        List {
            reader: Reader::new(BufReader::new(input), name.clone()),
            name,
            length,
            size: None,
            early_end: SharedError::default(),
            file: None,
            checked: None,
            order: None,
            marks_last_line: false,
            given: 0,
            ended: false,
        }
    }

    /// Shuffles the lines (`list/order.rs`). A list that cannot be read in any order keeps its own: a pipe, a
    /// text with other line ends, and a list under a root that is not fetched or has missing blocks.
    ///
    /// # Errors
    /// When the file of the list cannot be read.
    pub fn shuffle(&mut self) -> Result<()> {
        let (Some(length), Some(file)) = (self.length, &self.file) else {
            return Ok(());
        };
        let is_even = |now: Metadata| now.len() == length * LINE as u64;
        if !file.metadata().is_ok_and(is_even) {
            return Ok(());
        }
        let order = Order::new(length);
        self.order = Some(order.clone().flatten());
        let text = Ordered {
            file: self.read_again(file)?,
            order,
            piece: 0..0,
        };
        self.set_text(Box::new(text));
        Ok(())
    }

    pub fn is_shuffled(&self) -> bool {
        self.order.is_some()
    }

    /// Fetches a whole list under a root, up to its first missing block, into an unnamed file: then
    /// [`List::shuffle`] begins again at its first line. Does nothing where `$TMPDIR` takes no file.
    ///
    /// # Errors
    /// When the write fails; else as [`List::next`].
    pub fn fetch_all(&mut self) -> Result<()> {
        let Ok((file, path)) = file::unnamed(&env::temp_dir()) else {
            return Ok(());
        };
        let failed = |e: io::Error| Error::io("write", path.display(), &e);
        let mut text = BufWriter::new(&file);
        let mut line = Vec::with_capacity(LINE);
        loop {
            match self.next() {
                Ok(Some(wanted)) => {
                    line.clear();
                    push_line(&mut line, &wanted.hash);
                    text.write_all(&line).map_err(failed)?;
                }
                Ok(None) => break,
                Err(error) if error.is_missing() => {
                    *lock(&self.early_end) = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        text.flush().map_err(failed)?;
        drop(text);
        self.file = Some(file);
        self.rewind()
    }

    /// Marks the last line from now on.
    pub fn mark_last_line(&mut self) {
        self.marks_last_line = true;
    }

    /// Lines given out so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Lines of the whole list, where known beforehand.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Bytes of the file, where known beforehand.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The least size of the file in bytes, where known beforehand: the last block may be as short as a byte.
    pub fn least_size(&self) -> Option<u64> {
        let shortest = || match self.length? {
            0 => Some(0),
            blocks => Some(block::offset(blocks - 1) + 1),
        };
        self.size.or_else(shortest)
    }

    /// The next line, or none at the end.
    ///
    /// # Errors
    /// As the hashlist's reader; when a file grew or shrank since it was opened; the error that ended a list
    /// under a root early.
    pub fn next(&mut self) -> Result<Option<BlockRef>> {
        let Some(hash) = self.read()? else {
            return Ok(None);
        };
        let shuffled = self.order.as_mut().and_then(Iterator::next);
        let number = shuffled.unwrap_or(self.given);
        self.given += 1;
        let last = match self.length {
            Some(length) => number + 1 == length,
            None => self.marks_last_line && self.reader.is_at_end()?,
        };
        Ok(Some(BlockRef { number, hash, last }))
    }

    fn read(&mut self) -> Result<Option<Hash>> {
        let hash = self.reader.next();
        let is_due = |length| match hash {
            Ok(Some(_)) => self.given < length,
            Ok(None) => self.given == length && self.is_unchanged(),
            Err(_) => false,
        };
        if self.length.is_none_or(is_due) {
            return hash;
        }
        // An error cuts the text of a list under a root off, mostly in the middle of a line.
        let early_end = lock(&self.early_end).take();
        let cause = "it changed while it was read";
        Err(match (early_end, hash) {
            (Some(error), _) | (None, Err(error)) => error,
            (None, Ok(_)) => Error::local("read hashlist", &self.name, cause),
        })
    }

    /// Whether the list's file is as it was when it was checked. FILE was compared with that text, and blocks
    /// were found by it.
    fn is_unchanged(&self) -> bool {
        let now = self.file.as_ref().and_then(|file| file.metadata().ok());
        let is_as = |checked| now.is_some_and(|now| (now.len(), now.modified().ok()) == checked);
        self.checked.is_none_or(is_as)
    }

    /// Adds the next lines to `lines`, until these are `most`. Returns whether the list ended. Where the length
    /// is not known, the list may still be written: then this waits for one line at most.
    ///
    /// # Errors
    /// As [`List::next`]. The lines before are in `lines`.
    pub fn take(&mut self, most: usize, lines: &mut Vec<BlockRef>) -> Result<bool> {
        while !self.ended && lines.len() < most {
            let must_wait = self.length.is_none() && !self.reader.has_line();
            if must_wait && !lines.is_empty() {
                break;
            }
            let next = self.next();
            self.ended = !matches!(next, Ok(Some(_)));
            lines.extend(next?);
        }
        Ok(self.ended)
    }
}
