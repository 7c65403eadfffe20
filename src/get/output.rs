//! Where blocks go. Only a `Block` can be written, and a `Block` is verified.
//!
//! Standard output, a pipe or a character device is a stream: the blocks one after the other. A
//! file is put together beside its place, in `FILE.part`, and renamed when it is complete; until
//! then FILE is as it was. A block device, or a file where that is asked for, is written in place.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::existing::read_right;
use super::list::{List, Wanted};
use super::parts::End;
use super::target::{follow, part_of};
use crate::block::{self, BLOCK_SIZE, Block, READ_SIZE};
use crate::console::Stdout;
use crate::error::{Error, Result};
use crate::file::{sync, sync_name};
use crate::lockfile::{self, Locking, is_named};

pub enum Output {
    Stream(Stream),
    Place(Place),
}

/// Standard output, a FIFO or a character device: blocks in order.
pub enum Stream {
    Stdout(Stdout),
    File(File, PathBuf),
}

impl Stream {
    /// # Errors
    /// When the other end is gone, or the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Stream::Stdout(stdout) => stdout.write(bytes),
            Stream::File(file, path) => {
                let written = file.write_all(bytes);
                written.map_err(|e| Error::io("write", path.display(), &e))
            }
        }
    }
}

impl Output {
    /// # Errors
    /// When the output cannot be written to, is too small, or is another psync's.
    pub fn open(path: Option<&Path>, in_place: bool, list: &List) -> Result<Self> {
        let path = match path {
            Some(path) => follow(path)?,
            None => return Ok(Output::Stream(Stream::Stdout(Stdout::new()?))),
        };
        let kind = match fs::metadata(&path) {
            Ok(metadata) => Some(metadata.file_type()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io("open", path.display(), &e)),
        };
        match kind {
            Some(kind) if kind.is_dir() => {
                Err(Error::local("write", path.display(), "Is a directory"))
            }
            Some(kind) if kind.is_block_device() => Place::device(path, list).map(Output::Place),
            Some(kind) if !kind.is_file() => {
                let file = OpenOptions::new().write(true).open(&path);
                let file = file.map_err(|e| Error::io("open", path.display(), &e))?;
                Ok(Output::Stream(Stream::File(file, path)))
            }
            _ if in_place => Place::in_place(path).map(Output::Place),
            _ => Place::part(path).map(Output::Place),
        }
    }
}

/// Opens and locks what is to be written: a FILE.part, or what is mostly there already.
fn open_locked(options: &mut OpenOptions, path: &Path, is_part: bool) -> Result<File> {
    let failed = |cause: &io::Error| match is_part {
        true => Error::create(path.display(), cause),
        false => Error::io("open", path.display(), cause),
    };
    let refused = |cause| Err(Error::local("write", path.display(), cause));
    loop {
        match lockfile::lock(options, path).map_err(|e| failed(&e))? {
            Locking::Locked(file) => return Ok(file),
            Locking::Held => return refused("another psync is writing it"),
            Locking::Moved if path.is_symlink() => {
                return refused("it is a symbolic link; remove it");
            }
            // Renamed by another psync that has just finished: there is a new one to be made.
            Locking::Moved => {}
            Locking::Absent(e) | Locking::Present(e) => return Err(failed(&e)),
            Locking::Unlockable(e) => return Err(Error::io("lock", path.display(), &e)),
        }
    }
}

/// A file or device that is written block by block, each at its place. Locked against a second
/// psync; shared by all workers, who look in it, but only one writes.
pub struct Place {
    file: File,
    path: PathBuf,
    kind: Kind,
    /// Bytes that were there at the start. Beyond them is nothing to look at, and a hole is zeros.
    had: u64,
}

enum Kind {
    /// FILE.part, to become `target`, which until then is as it was: `before`, where it can be
    /// read, with this owner and mode.
    Part {
        target: PathBuf,
        before: Option<File>,
        metadata: Option<Box<Metadata>>,
    },
    InPlace,
    /// Its size in bytes.
    Device(u64),
}

impl Place {
    fn part(target: PathBuf) -> Result<Self> {
        let path = part_of(&target);
        let before = match File::open(&target) {
            Ok(file) => Some(file),
            // One that may be written but not read is of no use, and in nobody's way.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                None
            }
            Err(e) => return Err(Error::io("read", target.display(), &e)),
        };
        let metadata = match fs::metadata(&target) {
            Ok(metadata) => Some(Box::new(metadata)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            // With a mode of its own, what was private would not be any more.
            Err(e) => return Err(Error::io("read", target.display(), &e)),
        };
        let kind = Kind::Part {
            target,
            before,
            metadata,
        };
        Place::lock(path, kind)
    }

    fn in_place(path: PathBuf) -> Result<Self> {
        Place::lock(path, Kind::InPlace)
    }

    fn device(path: PathBuf, list: &List) -> Result<Self> {
        let mut place = Place::lock(path, Kind::InPlace)?;
        let size = place.file.seek(SeekFrom::End(0));
        let size = size.map_err(|e| Error::io("read the size of", place.path.display(), &e))?;
        place.had = size;
        place.kind = Kind::Device(size);
        // The last block may be as short as a byte: see `is_tight`.
        let shortest = || match list.length()? {
            0 => Some(0),
            blocks => Some(block::offset(blocks - 1) + 1),
        };
        if list
            .size()
            .or_else(shortest)
            .is_some_and(|least| least > size)
        {
            return Err(place.too_small(size));
        }
        Ok(place)
    }

    /// Whether it depends on the length of the last of so many blocks if there is room for all.
    pub fn is_tight(&self, blocks: u64) -> bool {
        matches!(self.kind, Kind::Device(size) if block::offset(blocks) > size)
    }

    /// # Errors
    /// When there is no room for so many bytes of a block.
    pub fn check_room(&self, wanted: &Wanted, length: usize) -> Result<()> {
        match self.kind {
            Kind::Device(size) if wanted.offset() + length as u64 > size => {
                Err(self.too_small(size))
            }
            _ => Ok(()),
        }
    }

    fn too_small(&self, size: u64) -> Error {
        let cause = format_args!("it has {size} bytes, too few for the file").to_string();
        Error::local("write", self.path.display(), cause)
    }

    fn lock(path: PathBuf, kind: Kind) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        if let Kind::Part {
            metadata: Some(metadata),
            ..
        } = &kind
        {
            // As private as FILE from the first byte on.
            options.mode(metadata.mode() & 0o777);
        }
        let file = open_locked(&mut options, &path, matches!(kind, Kind::Part { .. }))?;
        let metadata = file.metadata();
        let had = metadata
            .map_err(|e| Error::io("read", path.display(), &e))?
            .len();
        Ok(Place {
            file,
            path,
            kind,
            had,
        })
    }

    /// FILE as it was, whose blocks may be of use at other places.
    pub fn before(&self) -> Option<File> {
        match &self.kind {
            Kind::Part { before, .. } => before.as_ref()?.try_clone().ok(),
            Kind::InPlace | Kind::Device(_) => None,
        }
    }

    /// The length of the block that is already in its place, or none.
    pub fn right(&self, wanted: &Wanted, buffer: &mut [u8; READ_SIZE]) -> Option<usize> {
        if wanted.offset() >= self.had {
            return None;
        }
        Some(read_right(&self.file, wanted, buffer)?.bytes().len())
    }

    /// The block as it lies at the same place of FILE as it was.
    pub fn unchanged<'b>(
        &self,
        wanted: &Wanted,
        buffer: &'b mut [u8; READ_SIZE],
    ) -> Option<Block<&'b [u8]>> {
        match &self.kind {
            Kind::Part {
                before: Some(before),
                ..
            } => read_right(before, wanted, buffer),
            _ => None,
        }
    }

    /// Writes blocks that follow each other, from the `first` to the `end`.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn write(&self, first: u64, end: End, bytes: &[u8]) -> Result<()> {
        self.check_room(&end.wanted, end.length)?;
        let written = self.file.write_all_at(bytes, block::offset(first));
        written.map_err(|e| Error::io("write", self.path.display(), &e))
    }

    /// As [`Place::write`], of nothing but zeros. What was never written reads as zeros, and takes
    /// no room.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn write_zeros(&self, first: u64, end: End) -> Result<()> {
        for number in first..=end.wanted.number {
            if block::offset(number) >= self.had {
                return self.check_room(&end.wanted, end.length);
            }
            let wanted = Wanted {
                number,
                ..end.wanted
            };
            let end = End { wanted, ..end };
            self.write(number, end, &[0; BLOCK_SIZE])?;
        }
        Ok(())
    }

    /// All of its `size` bytes are there: brings them to the disk and FILE into its place.
    ///
    /// # Errors
    /// When the disk refuses; then FILE is as it was.
    pub fn finish(&self, size: u64) -> Result<()> {
        let failed = |action| move |e: io::Error| Error::io(action, self.path.display(), &e);
        if !matches!(self.kind, Kind::Device(_)) {
            self.file.set_len(size).map_err(failed("write"))?;
        }
        if let Kind::Part {
            metadata: Some(metadata),
            ..
        } = &self.kind
        {
            // Its owner first, since that may clear bits of the mode. Only root can, and none must.
            let _ = fchown(&self.file, Some(metadata.uid()), Some(metadata.gid()));
            let set = self.file.set_permissions(metadata.permissions());
            set.map_err(failed("set the mode of"))?;
        }
        if let Err(e) = sync(&self.file) {
            // The next run could not tell what of it is right.
            if let Kind::Part { .. } = self.kind {
                let _ = fs::remove_file(&self.path);
            }
            return Err(failed("sync")(e));
        }
        // What goes by the name now must be what was written, not another's.
        if !is_named(&self.file, &self.path).map_err(failed("read"))? {
            let cause = "it was replaced or removed meanwhile; run the same command again";
            return Err(Error::local("write", self.path.display(), cause));
        }
        if let Kind::Part { target, .. } = &self.kind {
            fs::rename(&self.path, target)
                .map_err(|e| Error::io("put in place", target.display(), &e))?;
            sync_name(target)?;
        }
        Ok(())
    }
}
