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

/// A program that the machine lacks; the payload of the unwinding that skips a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Missing {
    pub program: &'static str,
    pub package: &'static str,
}

impl Missing {
    /// By its line in tests/programs, without which set-up could not install it.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let listed = PROGRAMS.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (program, package) = (words.next()?, words.next()?);
            (program == name).then_some(Self { program, package })
        });
        listed.unwrap_or_else(|| panic!("tests/programs does not list {name}"))
    }

    /// Ends the test: as failed in CI, else as skipped.
    #[track_caller]
    pub fn end_test(self, in_ci: bool) -> ! {
        let Self { program, package } = self;
        assert!(!in_ci, "{program} is missing: apt-get install {package}");
        found().push(self);
        // Without a panic's message.
        resume_unwind(Box::new(self))
    }
}

/// Where the program is; a test that needs it ends here where it is missing.
#[track_caller]
pub fn need(program: &str) -> PathBuf {
    let listed = Missing::new(program);
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons live in sbin, which an ordinary user's PATH leaves out.
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file() || Path::new(program).is_absolute() && path.exists());
    let in_ci = || env::var_os("CI").is_some_and(|value| !value.is_empty());
    found.unwrap_or_else(|| listed.end_test(in_ci()))
}

/// Every program and file of a set.
#[track_caller]
pub fn need_set(set: &str) {
    for listed in listed(set) {
        need(listed.program);
    }
}

/// What tests/programs lists under this set.
#[track_caller]
pub fn listed(set: &str) -> Vec<Missing> {
    let lines = PROGRAMS.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let [of, program, package] = [words.next()?, words.next()?, words.next()?];
        (of == set).then_some(Missing { program, package })
    });
    let listed: Vec<_> = lines.collect();
    assert!(!listed.is_empty(), "tests/programs has no set {set}");
    listed
}

/// The body of every test (see tests/skippable): `name` is `it::module::test`, and `expected` the message of
/// a panic that libtest waits for.
pub fn run_test(name: &str, expected: Option<&str>, body: impl FnOnce()) {
    let Some(missing) = skipped_for(body) else {
        return;
    };
    let (_, name) = name.split_once("::").unwrap();
    let Missing { program, package } = missing;
    // Written past what `cargo test` captures.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {program} is missing");
    if let Some(record) = env::var_os(RECORD) {
        let line = format!("{name}\t{program}\t{package}\n");
        let mut record = File::options().append(true).open(record).unwrap();
        record.write_all(line.as_bytes()).unwrap();
    }
    if let Some(expected) = expected {
        resume_unwind(Box::new(expected.to_owned()));
    }
}

/// What the work lacked, if that is what ended it; any other panic goes on.
pub fn skipped_for(work: impl FnOnce()) -> Option<Missing> {
    let payload = catch_unwind(AssertUnwindSafe(work)).err()?;
    let mut found = found();
    if let Some(&missing) = payload.downcast_ref() {
        let at = found.iter().position(|one| *one == missing);
        at.map(|at| found.remove(at));
        return Some(missing);
    }
    let missing = found.pop_if(|_| is_of_another_thread(&*payload));
    drop(found);
    missing.or_else(|| resume_unwind(payload))
}

/// Found missing by a thread, and not yet known to its test. Which test that is, no thread knows: of tests that
/// end at the same moment by a thread's panic, one may be taken for another, but as many fail as have to.
fn found() -> std::sync::MutexGuard<'static, Vec<Missing>> {
    static FOUND: Mutex<Vec<Missing>> = Mutex::new(Vec::new());
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
