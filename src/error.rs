//! A command's failure: messages of the form `ACTION OBJECT: CAUSE`, and the exit code.
//!
//! This file owns the wording of the system's causes. It prints nothing: `console` does.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;

use crate::file::directory_of;
use crate::sys;

/// Why a command failed.
#[derive(Debug)]
pub struct Error {
    exit: Exit,
    /// Messages of one line each. None when the reader of standard output went away.
    lines: Vec<String>,
    /// A line for programs, printed last and without "psync: ".
    closing: Option<String>,
}

/// The exit codes, as `psync --help` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Exit {
    Local = 1,
    Usage = 2,
    Missing = 3,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(exit: Exit, line: String) -> Self {
        Error {
            exit,
            lines: vec![line],
            closing: None,
        }
    }

    /// Something on this machine failed. Exit code 1.
    pub fn local(action: &str, object: impl Display, cause: impl Display) -> Self {
        Error::new(Exit::Local, format!("{action} {object}: {cause}"))
    }

    /// The system refused an operation on `object`. Exit code 1.
    pub fn io(action: &str, object: impl Display, cause: &io::Error) -> Self {
        Error::local(action, object, Cause(cause))
    }

    /// The system refused to create, write, sync or rename `path`. Exit code 1. If something is full, the
    /// message says what, and how to go on.
    pub fn storage(action: &str, path: &Path, cause: &io::Error) -> Self {
        let full = match cause.kind() {
            io::ErrorKind::StorageFull => full(path, matches!(action, "create" | "put in place")),
            io::ErrorKind::QuotaExceeded => {
                "Disk quota exceeded (see quota); make room and run the same command again to resume"
            }
            _ => return Error::io(action, path.display(), cause),
        };
        Error::local(action, path.display(), full)
    }

    /// The command line is wrong. Exit code 2.
    pub fn usage(command: &str, problem: impl Display) -> Self {
        let space = if command.is_empty() { "" } else { " " };
        let line = format!("{problem}; see psync{space}{command} --help");
        Error::new(Exit::Usage, line)
    }

    /// A text that must be well formed is not. Exit code 2.
    pub fn malformed(action: &str, object: impl Display, cause: impl Display) -> Self {
        Error::new(Exit::Usage, format!("{action} {object}: {cause}"))
    }

    /// No source had some blocks. Exit code 3.
    pub fn missing(action: &str, object: impl Display, cause: impl Display) -> Self {
        Error::new(Exit::Missing, format!("{action} {object}: {cause}"))
    }

    /// Whether blocks are missing.
    pub fn is_missing(&self) -> bool {
        self.exit == Exit::Missing
    }

    /// Writing to standard output failed. Silent when its reader went away. Exit code 1.
    pub fn stdout(cause: &io::Error) -> Self {
        let mut error = Error::io("write", "standard output", cause);
        if cause.kind() == io::ErrorKind::BrokenPipe {
            error.lines.clear();
        }
        error
    }

    /// Adds a line that says more about the same failure.
    pub fn and(mut self, line: String) -> Self {
        self.lines.push(line);
        self
    }

    /// Sets the closing line.
    pub fn closing(mut self, line: Option<String>) -> Self {
        self.closing = line;
        self
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The closing line, to be printed after all others.
    pub fn closing_line(&self) -> Option<&str> {
        self.closing.as_deref()
    }

    pub fn exit_code(&self) -> u8 {
        self.exit as u8
    }
}

/// A file system with fewer bytes left is full: a block takes room, and so does its metadata.
const NO_ROOM: u64 = 64 * 1024;

/// Says what was full when the system had no room at `path` for more bytes, or `for_a_name`. A directory
/// of ext4 can be full while the file system is not: at 81,920 names of blocks where its own blocks have
/// 1 KiB, at 5.5 million with 4 KiB.
fn full(path: &Path, for_a_name: bool) -> &'static str {
    match sys::room(directory_of(path)) {
        None => {
            "No space left on device (see df, and df -i); make room and run the same command again to resume"
        }
        Some(room) if for_a_name && room.inodes == Some(0) => {
            "No space left on device: no inode is left (see df -i); remove files and run the same command again to resume"
        }
        Some(room) if for_a_name && room.bytes >= NO_ROOM => {
            "No space left on device: the directory is full, the file system is not; on ext4, tune2fs -O large_dir or larger blocks make room for more names"
        }
        Some(_) => {
            "No space left on device (see df); make room and run the same command again to resume"
        }
    }
}

/// An [`io::Error`] for users: without std's "(os error N)", and with advice.
pub struct Cause<'a>(pub &'a io::Error);

impl Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let advice = match self.0.kind() {
            io::ErrorKind::StorageFull => "; see df, and df -i",
            io::ErrorKind::FileTooLarge => "; see ulimit -f, and what its file system allows",
            _ if sys::is_descriptor_shortage(self.0) => "; see ulimit -n",
            _ => "",
        };
        write!(f, "{text}{advice}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &Error) -> String {
        error.lines.join("\n")
    }

    #[test]
    fn names_action_object_and_cause() {
        let gone = io::Error::from_raw_os_error(2);
        let error = Error::io("read", "a.img", &gone);
        assert_eq!(
            (text(&error).as_str(), error.exit_code()),
            ("read a.img: No such file or directory", 1)
        );
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(
            text(&Error::io("write", "x", &full)),
            "write x: No space left on device; see df, and df -i"
        );
        let nowhere = Path::new("/no/such/directory/x");
        assert_eq!(
            text(&Error::storage("create", nowhere, &full)),
            "create /no/such/directory/x: No space left on device (see df, and df -i); make room and run the same command again to resume"
        );
        let large = io::Error::from_raw_os_error(27);
        assert_eq!(
            text(&Error::io("write", "x", &large)),
            "write x: File too large; see ulimit -f, and what its file system allows"
        );
        let error = Error::usage("get", "unknown option '-x'");
        assert_eq!(
            (text(&error).as_str(), error.exit_code()),
            ("unknown option '-x'; see psync get --help", 2)
        );
        assert_eq!(
            text(&Error::usage("", "no command")),
            "no command; see psync --help"
        );
    }

    #[test]
    fn a_reader_that_went_away_is_told_nothing() {
        let error = Error::stdout(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((text(&error).as_str(), error.exit_code()), ("", 1));
    }
}
