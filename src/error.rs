//! What went wrong, as `ACTION OBJECT: CAUSE`, and the exit code that goes with it.
//!
//! This file owns the wording of causes that the system gives. It prints only through `console`.

use std::fmt::{self, Display};
use std::io;

use crate::console;
use crate::sys;

/// Why a command ended without doing all it was asked.
#[derive(Debug)]
pub struct Error {
    exit: Exit,
    /// One line an entry. Empty for a reader that went away, which needs no telling.
    lines: Vec<String>,
    /// For a program to read, after all others.
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
    fn new(exit: Exit, action: &str, object: impl Display, cause: impl Display) -> Self {
        Error {
            exit,
            lines: vec![format!("{action} {object}: {cause}")],
            closing: None,
        }
    }

    /// Something on this machine failed. Exit code 1.
    pub fn local(action: &str, object: impl Display, cause: impl Display) -> Self {
        Error::new(Exit::Local, action, object, cause)
    }

    /// The system refused an operation on `object`. Exit code 1.
    pub fn io(action: &str, object: impl Display, cause: &io::Error) -> Self {
        Error::local(action, object, Cause(cause))
    }

    /// As [`Error::io`], for making a new file: there "no space" is mostly "no inodes".
    pub fn create(object: impl Display, cause: &io::Error) -> Self {
        if cause.kind() == io::ErrorKind::StorageFull {
            return Error::local(
                "create",
                object,
                "no inode, or no space, left for one more file; see df -i, and df",
            );
        }
        Error::io("create", object, cause)
    }

    /// The command line is wrong. Exit code 2.
    pub fn usage(command: &str, problem: impl Display) -> Self {
        let program = if command.is_empty() {
            "psync".to_owned()
        } else {
            format!("psync {command}")
        };
        Error {
            exit: Exit::Usage,
            lines: vec![format!("{problem}; see {program} --help")],
            closing: None,
        }
    }

    /// A text that must be well formed is not. Exit code 2.
    pub fn malformed(action: &str, object: impl Display, cause: impl Display) -> Self {
        Error::new(Exit::Usage, action, object, cause)
    }

    /// Blocks could not be had. Exit code 3.
    pub fn missing(action: &str, object: impl Display, cause: impl Display) -> Self {
        Error::new(Exit::Missing, action, object, cause)
    }

    /// Whether it is that blocks could not be had.
    pub fn is_missing(&self) -> bool {
        self.exit == Exit::Missing
    }

    /// Writing to standard output failed. Silent when its reader went away. Exit code 1.
    pub fn stdout(cause: &io::Error) -> Self {
        if cause.kind() == io::ErrorKind::BrokenPipe {
            return Error {
                exit: Exit::Local,
                lines: Vec::new(),
                closing: None,
            };
        }
        Error::io("write", "standard output", cause)
    }

    /// Adds a line that says more about the same failure.
    pub fn and(mut self, line: String) -> Self {
        self.lines.push(line);
        self
    }

    /// Has `line` printed last, as it is.
    pub fn closing(mut self, line: Option<String>) -> Self {
        self.closing = line;
        self
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    pub fn print(&self) {
        for line in &self.lines {
            console::complain(line);
        }
        if let Some(line) = &self.closing {
            console::print_line(line.clone());
        }
    }

    pub fn exit_code(&self) -> u8 {
        self.exit as u8
    }
}

/// An [`io::Error`] in a user's words: without std's "(os error N)", and with what helps.
pub struct Cause<'a>(pub &'a io::Error);

impl Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        f.write_str(text)?;
        if self.0.kind() == io::ErrorKind::StorageFull {
            f.write_str("; see df, and df -i")?;
        } else if sys::is_descriptor_shortage(self.0) {
            f.write_str("; see ulimit -n")?;
        }
        Ok(())
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
        assert!(text(&Error::create("x", &full)).contains("inode"));
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
