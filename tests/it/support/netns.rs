//! A network of its own for a test: hosts, each in a network namespace, joined by a bridge that is
//! in one more. Nothing of it touches the machine's own network. Takes root, and `ip`.
//!
//!     let net = Net::new(0, 2);                       // 10.113.0.1 and .2, each on the bridge
//!     let server = Server::of(net.host(0).run(psync!("server", "-d", &dir, ":8080")));
//!     net.host(1).run(psync!("get", …)).run().ok();
//!     let bad = net.host(0).keep(|| HostileServer::start_at(…));       // the test's own sockets,
//!     let socket = net.host(0).within(|| UdpSocket::bind(…).unwrap()); // on that host
//!
//! Programs must have ended, and sockets be closed, before the `Net` is dropped: declare it first. All
//! is then gone, also after a panic; what a killed run left has that run's process id in its name.

use std::fs::File;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::{Run, at_drop, need, tool, wait_until};

/// Hosts on one bridge.
#[derive(Debug)]
pub struct Net {
    name: String,
    number: u8,
    hosts: Vec<Host>,
}

/// One of them: its interface on the bridge is `eth0`.
#[derive(Debug)]
pub struct Host {
    namespace: String,
    addr: Ipv4Addr,
}

impl Net {
    /// So many hosts: 10.113.NUMBER.1 the first, each with a default route by the bridge.
    #[track_caller]
    pub fn new(number: u8, hosts: u8) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut net = Net {
            name: format!("psync-it-{}-{n}", std::process::id()),
            number,
            hosts: Vec::new(),
        };
        // From here on dropping `net` takes away what there is.
        ip(&format!("netns add {}", net.name));
        ip(&format!(
            "-n {} link add bridge type bridge mcast_snooping 0",
            net.name
        ));
        ip(&format!("-n {} link set bridge up", net.name));
        for _ in 0..hosts {
            net.add_host();
        }
        net
    }

    pub fn host(&self, n: usize) -> &Host {
        &self.hosts[n]
    }

    #[track_caller]
    fn add_host(&mut self) {
        let place = self.hosts.len() + 1;
        let host = Host {
            namespace: format!("{}-{place}", self.name),
            addr: Ipv4Addr::new(10, 113, self.number, u8::try_from(place).unwrap()),
        };
        ip(&format!("netns add {}", host.namespace));
        self.hosts.push(host);
        let host = &self.hosts[place - 1];
        host.ip("link set lo up");
        self.join(host, "eth0", host.addr);
        host.ip("route add default dev eth0");
    }

    /// Gives a host, of this net or another, one more interface, on this bridge: of this name and with
    /// this address, whose last number no other has here.
    #[track_caller]
    pub fn join(&self, host: &Host, interface: &str, addr: Ipv4Addr) {
        let (name, to) = (&self.name, &host.namespace);
        let port = format!("{}-{interface}", addr.octets()[3]);
        ip(&format!(
            "-n {name} link add {port} master bridge type veth peer name {interface} netns {to}"
        ));
        ip(&format!("-n {name} link set {port} up"));
        host.ip(&format!("addr add {addr}/24 dev {interface}"));
        host.ip(&format!("link set {interface} up"));
        // What is sent before that is lost without a word.
        for (namespace, interface) in [(name, &port), (to, &interface.to_owned())] {
            wait_until("the link is up", || {
                let words = ["-n", namespace, "-br", "link", "show", interface];
                tool!("ip").args(words).run().text().contains(" UP ")
            });
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        at_drop(|| {
            let hosts = self.hosts.iter().map(|host| &host.namespace);
            for namespace in hosts.chain([&self.name]) {
                // With a namespace go its interfaces.
                let _ = Command::new(need("ip"))
                    .args(["netns", "del", namespace])
                    .output();
            }
        });
    }
}

impl Host {
    pub fn addr(&self) -> Ipv4Addr {
        self.addr
    }

    /// The program, on this host. Killing it kills the program itself.
    #[track_caller]
    pub fn run(&self, run: Run) -> Run {
        let file = format!("--net={}", self.file().display());
        run.under("nsenter", [file])
    }

    /// `ip` on this host: `host.ip("link set eth0 down")`.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        ip(&format!("-n {} {words}", self.namespace));
    }

    /// What this returns, done on this host: a socket opened there stays there, and so do threads
    /// started there.
    #[track_caller]
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.file()).unwrap();
        // A thread is in a namespace of its own choice.
        thread::scope(|scope| {
            let done = scope.spawn(move || {
                enter(&file);
                work()
            });
            done.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The same, for what must end on this host too: it is dropped there.
    #[track_caller]
    pub fn keep<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Kept<'_, T> {
        let value = Some(self.within(work));
        Kept { host: self, value }
    }

    fn file(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(&self.namespace)
    }
}

/// Something of the test's own on a host.
#[derive(Debug)]
pub struct Kept<'a, T: Send> {
    host: &'a Host,
    value: Option<T>,
}

impl<T: Send> Deref for Kept<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().unwrap()
    }
}

impl<T: Send> Drop for Kept<'_, T> {
    fn drop(&mut self) {
        at_drop(|| {
            let value = self.value.take();
            self.host.within(|| drop(value));
        });
    }
}

#[allow(unsafe_code, reason = "std has no setns(2)")]
fn enter(namespace: &File) {
    use std::os::fd::AsRawFd;
    unsafe extern "C" {
        fn setns(fd: i32, kind: i32) -> i32;
    }
    const CLONE_NEWNET: i32 = 0x4000_0000;
    // SAFETY: setns takes a descriptor, open for as long as it is borrowed, and no pointer.
    let failed = unsafe { setns(namespace.as_raw_fd(), CLONE_NEWNET) } != 0;
    assert!(!failed, "setns: {}", std::io::Error::last_os_error());
}

#[track_caller]
fn ip(words: &str) {
    let out = tool!("ip").args(words.split(' ')).run();
    assert_eq!(out.status, 0, "{out}");
}
