//! Runs programs, psync first of all: clean environment, private HOME, exact output. A watchdog ends
//! what hangs, and a crash is never taken for an error message.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{TempDir, at_drop, need, uninterrupted};

pub const PSYNC: &str = env!("CARGO_BIN_EXE_psync");

/// The watchdog's patience, unless a test says `limit`. Far above what any test needs.
const LIMIT: Duration = Duration::from_secs(60);

/// `psync!("export", "-d", &dir, &file)`: a `Run` of the real binary; words and paths may mix.
macro_rules! psync {
    ($($arg:expr),* $(,)?) => {
        $crate::support::Run::new($crate::support::PSYNC)$(.arg($arg))*
    };
}
pub(crate) use psync;

/// `tool!("curl", "-s", server.url())`: some other program, which must be installed.
macro_rules! tool {
    ($name:expr $(, $arg:expr)* $(,)?) => {
        $crate::support::Run::new($crate::support::need($name))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())$(.arg($arg))*
    };
}
pub(crate) use tool;

/// A program about to be run.
#[derive(Debug)]
pub struct Run {
    argv: Vec<OsString>,
    argv0: Option<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    cwd: Option<PathBuf>,
    stdin: Input,
    stdout: Stdio,
    stderr: Stdio,
    limit: Duration,
}

#[derive(Debug)]
enum Input {
    Bytes(Vec<u8>),
    From(Stdio),
}

impl Run {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().to_owned()],
            argv0: None,
            env: Vec::new(),
            cwd: None,
            stdin: Input::From(Stdio::null()),
            stdout: Stdio::piped(),
            stderr: Stdio::piped(),
            limit: LIMIT,
        }
    }

    /// Another program with the same words.
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.argv[0] = program.as_ref().to_owned();
        self
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<I: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.argv
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The name the program sees itself called by: `psync-get`.
    pub fn argv0(mut self, name: &str) -> Self {
        self.argv0 = Some(name.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.into(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable away: HOME, which is a private directory otherwise.
    pub fn no_env(mut self, name: &str) -> Self {
        self.env.push((name.into(), None));
        self
    }

    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = Input::Bytes(bytes.as_ref().to_vec());
        self
    }

    /// A file, an `io::pipe()`, or `Stdio::piped()` to write it by hand through `Running::stdin`.
    pub fn stdin_from(mut self, from: impl Into<Stdio>) -> Self {
        self.stdin = Input::From(from.into());
        self
    }

    /// Elsewhere than into `Output::stdout`: /dev/full, an `io::pipe()` whose reader is dropped.
    pub fn stdout_to(mut self, to: impl Into<Stdio>) -> Self {
        self.stdout = to.into();
        self
    }

    pub fn stderr_to(mut self, to: impl Into<Stdio>) -> Self {
        self.stderr = to.into();
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Through a program that turns into this one: `under("unshare", ["-m"])`. With strace add
    /// `-D`, or killing the `Running` would kill strace alone.
    #[track_caller]
    pub fn under<I: AsRef<OsStr>>(
        mut self,
        program: &str,
        args: impl IntoIterator<Item = I>,
    ) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let prefix = [need(program).into_os_string()].into_iter().chain(args);
        self.argv.splice(0..0, prefix);
        self
    }

    /// Without the rights that set root above file modes, so that those mean something under any
    /// user. It stays the same user, who may reach the binary wherever it was built.
    #[track_caller]
    pub fn powerless(self) -> Self {
        let rights = [
            "--securebits=+noroot",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ];
        match std::fs::metadata("/proc/self").unwrap().uid() {
            0 => self.under("setpriv", rights),
            _ => self,
        }
    }

    /// After these shell commands: `sh("ulimit -n 32")`, `sh("umask 077; exec 2>&-")`.
    #[track_caller]
    pub fn sh(self, before: &str) -> Self {
        self.under(
            "sh",
            ["-c".to_owned(), format!("{before}\nexec \"$0\" \"$@\"")],
        )
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        self.start().wait()
    }

    #[track_caller]
    pub fn start(self) -> Running {
        let home = TempDir::new();
        let what = self
            .argv
            .iter()
            .map(|arg| arg.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).env_clear().env("HOME", &home);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(name) = &self.argv0 {
            command.arg0(name);
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let (stdin, bytes) = match self.stdin {
            Input::From(stdio) => (stdio, None),
            Input::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
        };
        command.stdin(stdin).stdout(self.stdout).stderr(self.stderr);
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
        if let Some(bytes) = bytes {
            let mut pipe = child.stdin.take().unwrap();
            // A program need not read all of it.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        Running {
            stdin: child.stdin.take(),
            stdout: Capture::of(child.stdout.take()),
            stderr: Capture::of(child.stderr.take()),
            child,
            what,
            started,
            limit: self.limit,
            _home: home,
        }
    }
}

/// A program under way; killed when dropped.
#[derive(Debug)]
pub struct Running {
    pub stdin: Option<ChildStdin>,
    child: Child,
    stdout: Capture,
    stderr: Capture,
    what: String,
    started: Instant,
    limit: Duration,
    _home: TempDir,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until what it has printed so far is enough; fails if it ends or hangs before.
    #[track_caller]
    pub fn wait_stdout(&self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.wait_for(&self.stdout, enough)
    }

    #[track_caller]
    pub fn wait_stderr(&self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.wait_for(&self.stderr, enough)
    }

    pub fn stderr_now(&self) -> Vec<u8> {
        self.stderr.bytes()
    }

    #[track_caller]
    fn wait_for(&self, capture: &Capture, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        capture.wait(Instant::now() + self.limit, &enough);
        let seen = capture.bytes();
        if !enough(&seen) {
            let stderr = self.stderr.now();
            panic!(
                "{}: ended or hangs after {}\n{stderr}",
                self.what,
                String::from_utf8_lossy(&seen)
            );
        }
        seen
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let deadline = self.started + self.limit;
        drop(self.stdin.take());
        // The ends of its pipes announce its own, so the polling below is short.
        self.stdout.wait(deadline, |_| false);
        self.stderr.wait(deadline, |_| false);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.output(status);
            }
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                panic!(
                    "{}: still running after {:?}\n{}",
                    self.what,
                    self.limit,
                    self.stderr.now()
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// `kill -9`, whose status is 137.
    #[track_caller]
    pub fn kill(mut self) -> Output {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        // Bounded: a process that inherited the pipe may hold it open.
        let deadline = Instant::now() + Duration::from_secs(5);
        self.stdout.wait(deadline, |_| false);
        self.stderr.wait(deadline, |_| false);
        self.output(status)
    }

    #[track_caller]
    fn output(&self, status: ExitStatus) -> Output {
        let output = Output {
            what: self.what.clone(),
            status: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap()),
            stdout: self.stdout.bytes(),
            stderr: self.stderr.now(),
            took: self.started.elapsed(),
        };
        // 101 a panic; 132, 134, 135, 136, 139 the signals of a crash; a thread's panic leaves the
        // status as it was.
        let crashed = matches!(output.status, 101 | 132 | 134 | 135 | 136 | 139);
        assert!(
            !crashed && !output.stderr.contains("panicked at"),
            "CRASHED: {output}"
        );
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        at_drop(|| {
            let _ = self.child.kill();
            let _ = self.child.wait();
        });
    }
}

/// What a program left.
#[derive(Debug)]
pub struct Output {
    /// The exit code, or 128 and the signal's number.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub took: Duration,
    what: String,
}

impl Output {
    /// Exit 0, and nothing said about it.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.ends(0, "")
    }

    /// Exit 0 with exactly this on stderr.
    #[track_caller]
    pub fn warns(self, stderr: &str) -> Self {
        self.ends(0, stderr)
    }

    #[track_caller]
    pub fn fails(self, status: i32, stderr: &str) -> Self {
        assert_ne!(status, 0);
        self.ends(status, stderr)
    }

    /// Where stderr holds what no test can foresee: the status, and each of these somewhere.
    #[track_caller]
    pub fn fails_naming(self, status: i32, parts: &[&str]) -> Self {
        let found = parts.iter().all(|part| self.stderr.contains(part));
        assert!(
            self.status == status && found,
            "expected {status} and {parts:?}: {self}"
        );
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).unwrap()
    }

    /// Of the line of `--stats`, by name.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        let word = |word: &str| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        let found = self.stderr.split_whitespace().find_map(word);
        found.unwrap_or_else(|| panic!("no {name}: {self}"))
    }

    #[track_caller]
    fn ends(self, status: i32, stderr: &str) -> Self {
        let as_expected = self.status == status && self.stderr == stderr;
        assert!(
            as_expected,
            "expected status {status} and stderr:\n{stderr}\n{self}"
        );
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            status,
            stdout,
            stderr,
            ..
        } = self;
        let shown = String::from_utf8_lossy(&stdout[..stdout.len().min(400)]);
        let bytes = stdout.len();
        write!(
            f,
            "{what}\nstatus {status}, stdout of {bytes} bytes: {shown}\nstderr:\n{stderr}"
        )
    }
}

/// A pipe read to its end by a thread, so that no program waits for its test.
#[derive(Debug, Clone)]
struct Capture(Arc<(Mutex<Captured>, Condvar)>);

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let capture = Self(Arc::default());
        let writer = capture.clone();
        match pipe {
            Some(pipe) => drop(thread::spawn(move || writer.fill(pipe))),
            None => writer.0.0.lock().unwrap().ended = true,
        }
        capture
    }

    fn fill(&self, mut pipe: impl Read) {
        let (captured, changed) = &*self.0;
        let mut buffer = [0; 65536];
        loop {
            let n = uninterrupted(|| pipe.read(&mut buffer)).unwrap_or(0);
            let mut captured = captured.lock().unwrap();
            captured.bytes.extend_from_slice(&buffer[..n]);
            captured.ended = n == 0;
            changed.notify_all();
            if n == 0 {
                return;
            }
        }
    }

    /// Returns once there is enough, or it ended, or time is up.
    fn wait(&self, deadline: Instant, enough: impl Fn(&[u8]) -> bool) {
        let (captured, changed) = &*self.0;
        let left = deadline.saturating_duration_since(Instant::now());
        let guard = captured.lock().unwrap();
        let unfinished = |now: &mut Captured| !now.ended && !enough(&now.bytes);
        let _ = changed.wait_timeout_while(guard, left, unfinished).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().bytes.clone()
    }

    fn now(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}
