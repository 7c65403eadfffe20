//! What a test needs of the machine. tests/programs lists every program that a test may run. One that is
//! missing skips the test, and is recorded for the summary of `make test`; where the variable CI is set, it
//! fails the test. `skip!` is for what no package brings: a right, a file system.

use std::any::Any;
use std::env;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Lines of SET, PROGRAM or FILE, PACKAGE.
const PROGRAMS: &str = include_str!("../../programs");

/// Names the file to which each skipped test adds a line: test, program, package.
const RECORD: &str = "PSYNC_TESTS_SKIPPED";

/// A program, or a file, that tests/programs lists. One that is missing is the payload of the unwinding that
/// skips its test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
}

impl Program {
    /// One that is not listed fails the test, also where the machine has it: set-up could not install it.
    #[track_caller]
    pub fn named(name: &str) -> Self {
        let program = listed().find(|(_, program)| program.name == name);
        let program = program.map(|(_, program)| program);
        program.unwrap_or_else(|| panic!("tests/programs does not list {name}"))
    }

    /// Ends the test for lack of it: as failed in CI, else as skipped.
    #[track_caller]
    pub fn end_test(self, in_ci: bool) -> ! {
        let Self { name, package } = self;
        assert!(!in_ci, "{name} is missing: apt-get install {package}");
        found_missing().push(self);
        // Without a panic's message.
        resume_unwind(Box::new(self))
    }
}

/// Each line's set and program.
fn listed() -> impl Iterator<Item = (&'static str, Program)> {
    PROGRAMS.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let [set, name, package] = [words.next()?, words.next()?, words.next()?];
        Some((set, Program { name, package }))
    })
}

/// The programs of a set.
#[track_caller]
pub fn programs(set: &str) -> Vec<Program> {
    let of_set = listed().filter(|(of, _)| *of == set);
    let programs: Vec<_> = of_set.map(|(_, program)| program).collect();
    assert!(!programs.is_empty(), "tests/programs has no set {set}");
    programs
}

/// Where the program is; a test that needs it ends here where it is missing.
#[track_caller]
pub fn need(name: &str) -> PathBuf {
    let program = Program::named(name);
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons live in sbin, which an ordinary user's PATH leaves out.
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file() || Path::new(name).is_absolute() && path.exists());
    let in_ci = || env::var_os("CI").is_some_and(|value| !value.is_empty());
    found.unwrap_or_else(|| program.end_test(in_ci()))
}

/// Every program of a set.
#[track_caller]
pub fn need_all(set: &str) {
    for program in programs(set) {
        need(program.name);
    }
}

/// The body of every test (see tests/skippable): `name` is `it::module::test`, and `expected` the message of
/// a panic that libtest waits for.
pub fn run_test(name: &str, expected: Option<&str>, body: impl FnOnce()) {
    let Some(missing) = skipped_for(body) else {
        return;
    };
    let (_, test) = name.split_once("::").unwrap();
    let Program { name, package } = missing;
    // Written past what `cargo test` captures.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {name} is missing");
    if let Some(record) = env::var_os(RECORD) {
        let line = format!("{test}\t{name}\t{package}\n");
        let mut record = File::options().append(true).open(record).unwrap();
        record.write_all(line.as_bytes()).unwrap();
    }
    if let Some(expected) = expected {
        resume_unwind(Box::new(expected.to_owned()));
    }
}

/// What the work lacked, if that is what ended it; any other panic goes on.
pub fn skipped_for(work: impl FnOnce()) -> Option<Program> {
    let payload = catch_unwind(AssertUnwindSafe(work)).err()?;
    let mut found = found_missing();
    if let Some(&missing) = payload.downcast_ref() {
        let at = found.iter().position(|one| *one == missing);
        at.map(|at| found.remove(at));
        return Some(missing);
    }
    let missing = found.pop_if(|_| is_of_another_thread(&*payload));
    drop(found);
    missing.or_else(|| resume_unwind(payload))
}

/// Programs that a thread found missing, and that the end of its test has not yet taken. No thread knows its test: of
/// tests that end at the same moment by a thread's panic, one may be taken for another, but the number that fails is
/// right.
fn found_missing() -> std::sync::MutexGuard<'static, Vec<Program>> {
    static FOUND: Mutex<Vec<Program>> = Mutex::new(Vec::new());
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this panic stands for one in a thread that was waited for, by the end of a scope or by
/// `join().unwrap()`: std hides the payload of that.
fn is_of_another_thread(payload: &(dyn Any + Send)) -> bool {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.is_some_and(|text| text == "a scoped thread panicked" || text.ends_with(": Any { .. }"))
}

/// Ends the test as passed, and says so where `cargo test` does not capture it.
macro_rules! skip {
    ($($why:tt)*) => {{
        use std::io::Write;
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {}", format_args!($($why)*));
        return;
    }};
}
pub(crate) use skip;
