//! Servers that are whole programs: psync's own, and those nobody here wrote. Each on a free port,
//! ended by its process id when dropped.

use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Output, Run, Running, TempDir, at_drop, line_count, psync, tool};

/// `psync server`. However it ends, a panic in any thread of it, or a word on its stdout beyond
/// the addresses, fails the test.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    running: Option<Running>,
}

impl Server {
    #[track_caller]
    pub fn start(dir: impl AsRef<Path>) -> Self {
        Self::with(dir, &[])
    }

    /// With more options.
    #[track_caller]
    pub fn with(dir: impl AsRef<Path>, options: &[&str]) -> Self {
        Self::of(
            psync!("server", "-d", dir.as_ref())
                .args(options)
                .arg("127.0.0.1:0"),
        )
    }

    /// Any command line that ends in `psync server`: `Server::of(psync!(…).sh("ulimit -n 32"))`.
    #[track_caller]
    pub fn of(run: Run) -> Self {
        let running = run.start();
        let addr = listening(&running, 1)[0];
        Self {
            addr,
            running: Some(running),
        }
    }

    /// The first socket's address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The addresses of a server that was given `n`.
    #[track_caller]
    pub fn addrs(&self, n: usize) -> Vec<SocketAddr> {
        listening(self.running.as_ref().unwrap(), n)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().pid()
    }

    /// Waits until its stderr says so (`-v`).
    #[track_caller]
    pub fn wait_stderr(&self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.running.as_ref().unwrap().wait_stderr(enough)
    }

    /// Ends it and returns its stderr; fails if it had ended by itself.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.end().stderr
    }

    #[track_caller]
    fn end(&mut self) -> Output {
        let mut running = self.running.take().unwrap();
        if !running.is_alive() {
            panic!("the server ended by itself: {}", running.wait());
        }
        let output = running.kill();
        let only_addresses = output
            .text()
            .lines()
            .all(|line| line.starts_with("listening on "));
        assert!(only_addresses, "{output}");
        output
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        at_drop(|| {
            if thread::panicking() {
                if let Some(running) = self.running.take() {
                    eprintln!("{}", String::from_utf8_lossy(&running.stderr_now()));
                }
            } else if self.running.is_some() {
                self.end();
            }
        });
    }
}

/// `HOST:PORT`, as a SERVER word.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

#[track_caller]
fn listening(running: &Running, n: usize) -> Vec<SocketAddr> {
    let lines = running.wait_stdout(|out| line_count(out) >= n);
    let text = String::from_utf8(lines).unwrap();
    let address = |line: &str| line.strip_prefix("listening on ")?.parse().ok();
    let addrs: Option<Vec<_>> = text.lines().take(n).map(address).collect();
    addrs.unwrap_or_else(|| panic!("not `listening on IP:PORT`: {text}"))
}

/// Somebody else's server.
#[derive(Debug)]
pub struct Daemon {
    addr: SocketAddr,
    running: Running,
    _home: TempDir,
}

impl Daemon {
    /// Starts what `run` makes of a free port and an empty directory, and waits until it accepts.
    #[track_caller]
    pub fn start(run: impl Fn(u16, &Path) -> Run) -> Self {
        // The port is free when it is asked for; another process may take it before the daemon does.
        for _ in 0..5 {
            let home = TempDir::new();
            let addr = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let mut running = run(addr.port(), &home).start();
            let deadline = Instant::now() + Duration::from_secs(10);
            while running.is_alive() && Instant::now() < deadline {
                if TcpStream::connect(addr).is_ok() && running.is_alive() {
                    return Self {
                        addr,
                        running,
                        _home: home,
                    };
                }
                thread::sleep(Duration::from_millis(2));
            }
            eprintln!("{}", running.kill());
        }
        panic!("the daemon does not start");
    }

    /// nginx over a directory; `more` are further lines of its `server` block.
    #[track_caller]
    pub fn nginx(root: impl AsRef<Path>, more: &str) -> Self {
        Self::start(|port, home| {
            let config = nginx_config(port, root.as_ref(), home, more);
            let file = home.join("nginx.conf");
            std::fs::write(&file, config).unwrap();
            tool!("nginx", "-e", "stderr", "-p", home, "-c", file)
        })
    }

    #[track_caller]
    pub fn busybox_httpd(root: impl AsRef<Path>) -> Self {
        let listen = |port| format!("127.0.0.1:{port}");
        Self::start(|port, _| {
            tool!(
                "busybox",
                "httpd",
                "-f",
                "-p",
                listen(port),
                "-h",
                root.as_ref()
            )
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

/// One process, so that ending it leaves no worker behind, and no file outside its own directory.
fn nginx_config(port: u16, root: &Path, home: &Path, more: &str) -> String {
    let root = root.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", home.display()))
        .concat();
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 512; }}
http {{
{temp}    access_log off;
    sendfile on;
    server {{
        listen 127.0.0.1:{port};
        root \"{root}\";
        {more}
    }}
}}
"
    )
}
