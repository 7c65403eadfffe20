//! A healthy client beside a thousand hostile ones, measured: `cargo test --release --test it
//! server::attacks -- --ignored --nocapture --test-threads=1` prints the figures, nginx's for comparison.
//! What each limit does is told in `limits`; here they must hold all at once, for seconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

/// Attackers at once: twice what the server takes.
const ATTACKERS: usize = 1000;

/// Connections that it takes.
const CAP: usize = 512;

/// How long an attack lasts once it is under way.
const LASTS: Duration = Duration::from_secs(5);

/// Far above what a healthy client waits, for machines that do something else besides.
const P99: Duration = Duration::from_secs(2);

/// What a hostile client does with its connection whenever its turn comes. An error, and it comes
/// again with a new one.
type Turn = fn(&mut TcpStream, turn: usize, target: &str) -> std::io::Result<()>;

/// As much as is taken; nothing taken is no error.
fn offer(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    match stream.write(bytes) {
        Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(()),
    }
}

/// An error where the server has closed; what it sent is not taken.
fn is_open(stream: &TcpStream) -> std::io::Result<()> {
    match stream.peek(&mut [0]) {
        Ok(0) => Err(std::io::ErrorKind::ConnectionAborted.into()),
        Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(()),
    }
}

const ATTACKS: &[(&str, Turn)] = &[
    ("silence", |stream, _, _| is_open(stream)),
    ("heads byte by byte", |stream, turn, _| {
        is_open(stream)?;
        let head = b"GET / HTTP/1.1\r\nHost: test\r\nX: ";
        offer(stream, &[*head.get(turn).unwrap_or(&b'x')])
    }),
    ("long heads", |stream, turn, _| {
        is_open(stream)?;
        match turn {
            0 => offer(stream, b"GET / HTTP/1.1\r\nHost: test\r\nX: "),
            1 => offer(stream, &[b'x'; 16_000]),
            _ => offer(stream, b"x"),
        }
    }),
    ("lists byte by byte", |stream, turn, target| {
        is_open(stream)?;
        match turn {
            0 => offer(
                stream,
                b"POST /blocks HTTP/1.1\r\nHost: test\r\nContent-Length: 65000\r\n\r\n",
            ),
            _ => offer(stream, &target.as_bytes()[1 + (turn - 1) % 64..][..1]),
        }
    }),
    ("requests, nothing read", |stream, _, target| {
        is_open(stream)?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        offer(stream, request.repeat(200).as_bytes())
    }),
    ("lists, read byte by byte", |stream, turn, target| {
        if turn == 0 {
            let list = format!("{}\n", &target[1..]).repeat(128);
            let length = list.len();
            let request = format!(
                "POST /blocks HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{list}"
            );
            return offer(stream, request.repeat(10).as_bytes());
        }
        match stream.read(&mut [0]) {
            Ok(0) => Err(std::io::ErrorKind::ConnectionAborted.into()),
            Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }),
    ("a new connection each turn", |_, turn, _| match turn {
        0 => Ok(()),
        _ => Err(std::io::ErrorKind::Other.into()),
    }),
    ("resets", |stream, turn, target| match turn {
        0 => offer(
            stream,
            format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
                .repeat(30)
                .as_bytes(),
        ),
        // Closing with bytes unread resets the connection.
        _ => Err(std::io::ErrorKind::Other.into()),
    }),
];

/// Keeps so many hostile clients busy until it is over, a turn of each ten times a second.
fn attack(addr: SocketAddr, target: &str, turn: Turn, under_way: &AtomicBool, over: &AtomicBool) {
    let connect = || {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1)).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((stream, 0))
    };
    let mut clients: Vec<Option<(TcpStream, usize)>> = (0..ATTACKERS).map(|_| None).collect();
    while !over.load(Ordering::Relaxed) {
        for client in &mut clients {
            let Some((stream, turns)) = client else {
                *client = connect();
                continue;
            };
            if turn(stream, *turns, target).is_err() {
                *client = None;
            } else {
                *turns += 1;
            }
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
        under_way.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
    }
}

/// What a healthy client saw of it, and the server's process.
struct Figures {
    /// Times of the answers, in order; each on a connection of its own.
    times: Vec<Duration>,
    /// Connections that brought no block.
    failed: usize,
    /// Of one processor.
    percent: u64,
    threads: usize,
    resident_kib: u64,
}

impl Figures {
    /// Asks again and again until `over` says so: 50 times a second and once at the least.
    fn take(addr: SocketAddr, pid: u32, target: &str, mut over: impl FnMut() -> bool) -> Self {
        let (started, ticks) = (Instant::now(), cpu_ticks(pid));
        let mut figures = Self {
            times: Vec::new(),
            failed: 0,
            percent: 0,
            threads: 0,
            resident_kib: 0,
        };
        while figures.times.is_empty() || !over() {
            let asked = Instant::now();
            let mut client = Client::connect(addr);
            client.try_send(format!("GET {target} HTTP/1.0\r\n\r\n"));
            let answer = client.read_to_any_end();
            if answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > BLOCK_SIZE {
                figures.times.push(asked.elapsed());
            } else {
                figures.failed += 1;
                assert!(started.elapsed() < LASTS * 10, "nothing is served");
            }
            figures.threads = figures.threads.max(threads(pid));
            figures.resident_kib = figures.resident_kib.max(resident_kib(pid));
            thread::sleep(Duration::from_millis(20).saturating_sub(asked.elapsed()));
        }
        figures.percent =
            (cpu_ticks(pid) - ticks) * 1000 / started.elapsed().as_millis().max(1) as u64;
        figures.times.sort();
        figures
    }

    fn of_hundred(&self, hundredth: usize) -> Duration {
        self.times[(self.times.len() - 1) * hundredth / 100]
    }

    fn print(&self, server: &str, attack: &str) {
        eprintln!(
            "{server:5} {attack:26} {:4} answers, {:3} failed, p50 {:6.1} ms, p99 {:6.1} ms, {:3} % CPU, {:4} threads, {:6} KiB",
            self.times.len(),
            self.failed,
            self.of_hundred(50).as_secs_f64() * 1000.0,
            self.of_hundred(99).as_secs_f64() * 1000.0,
            self.percent,
            self.threads,
            self.resident_kib,
        );
    }

    #[track_caller]
    fn assert_healthy(&self, attack: &str) {
        let p99 = self.of_hundred(99);
        assert!(p99 < P99, "{attack}: {p99:?}");
        assert!(
            self.failed * 20 <= self.times.len(),
            "{attack}: {} failed",
            self.failed
        );
        assert!(
            self.resident_kib < 32 * 1024,
            "{attack}: {} KiB",
            self.resident_kib
        );
        // Those let go may not have ended yet.
        assert!(self.threads < 2 * CAP, "{attack}: {} threads", self.threads);
    }
}

/// The figures of a client beside this attack.
fn beside(addr: SocketAddr, pid: u32, target: &str, turn: Turn) -> Figures {
    let (under_way, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| attack(addr, target, turn, &under_way, &over));
        let waited = Instant::now();
        while !under_way.load(Ordering::Relaxed) && waited.elapsed() < LASTS * 4 {
            thread::sleep(Duration::from_millis(10));
        }
        let begun = Instant::now();
        let figures = Figures::take(addr, pid, target, || begun.elapsed() > LASTS);
        over.store(true, Ordering::Relaxed);
        figures
    })
}

#[test]
#[ignore = "takes a minute"]
fn slow_attacks_leave_a_healthy_client_served() {
    raise_descriptors();
    let (dir, target) = one_block();
    for (name, turn) in ATTACKS {
        let server = Server::start(&dir);
        let before = descriptors(server.pid());
        let figures = beside(server.addr(), server.pid(), &target, *turn);
        figures.print("psync", name);
        figures.assert_healthy(name);
        wait_until("all have gone", || threads(server.pid()) == 1);
        assert!(descriptors(server.pid()) <= before, "{name}");
        let nginx = Daemon::nginx(&dir, "");
        beside(nginx.addr(), nginx.pid(), &target, *turn).print("nginx", name);
    }
}

/// How slowhttptest attacks, for as long as `-l` says, all its connections open within a few seconds.
const SLOW_HTTP_TEST: &[(&str, &str)] = &[
    ("slow heads (-H)", "-H -i 1 -x 24 -u URL/"),
    (
        "slow bodies (-B)",
        "-B -i 1 -x 24 -s 65000 -t POST -u URL/blocks",
    ),
    (
        "slow reading (-X)",
        "-X -n 1 -z 1 -w 1 -y 64 -k 10 -u URLTARGET",
    ),
];

#[test]
#[ignore = "takes a minute"]
fn slow_slowhttptest_finds_the_service_available() {
    raise_descriptors();
    let (dir, target) = one_block();
    for (name, words) in SLOW_HTTP_TEST {
        let words = words.replace("TARGET", &target);
        // While it attacks, and what it says of it.
        let beside = |url: &str, addr, pid| {
            let words = words.replace("URL", url);
            let attack = tool!(
                "slowhttptest",
                "-c",
                "1000",
                "-r",
                "400",
                "-p",
                "3",
                "-l",
                "15"
            );
            let mut attack = attack.args(words.split(' ')).start();
            let figures = Figures::take(addr, pid, &target, || !attack.is_alive());
            (figures, attack.wait())
        };
        let server = Server::start(&dir);
        let (figures, report) = beside(&server.url(), server.addr(), server.pid());
        figures.print("psync", name);
        figures.assert_healthy(name);
        // Said every few seconds, in colours.
        let text = report.text();
        assert!(text.contains("service available"), "{name}: {report}");
        assert!(!text.contains("NO"), "{name}: {report}");
        wait_until("all have gone", || threads(server.pid()) == 1);
        let nginx = Daemon::nginx(&dir, "");
        beside(&nginx.url(), nginx.addr(), nginx.pid())
            .0
            .print("nginx", name);
    }
}
