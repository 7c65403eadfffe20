//! A link in user space: every connection to the relay goes on to one target, and all of them share
//! one line with a latency and a rate in each direction. Needs no rights, no network namespace and no
//! kernel module, so a test or a benchmark has a slow line wherever it runs.
//!
//! What it is true to: a byte waits for those before it on the line, of whatever connection, then for
//! the line's rate, then for half a round trip; connections take turns, a segment each; a sender is
//! held back once a little of its data waits; opening a connection takes a round trip. What it leaves
//! out: headers and acknowledgements cost nothing, nothing is lost, and a connection is at full speed
//! from its first byte, as if TCP's slow start were over. The kernel's own socket buffers lie before
//! and behind the line, as they do before and behind a real one. Ends are passed on in order; of a
//! reset, which std alone cannot send, the far side sees that both directions end.
//!
//! `tests/bench/relay.rs` makes a program of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

/// How far ahead of its departure a segment is taken from its sender: a home router's queue when all
/// is well, and enough that a thread that wakes up late leaves no gap on the line.
const QUEUE: Duration = Duration::from_millis(20);

/// A segment is what the line carries in this time, but within the bounds below: short, so that
/// connections take turns finely; long, so that a fast line costs a few per cent of a processor.
const TURN: Duration = Duration::from_millis(1);

/// What an Ethernet frame carries of a TCP stream.
const SEGMENT_MIN: u64 = 1448;

/// So that a fast line has turns at all.
const SEGMENT_MAX: u64 = 16384;

/// Of each connection's four threads, that do nothing but copy.
const STACK: usize = 128 * 1024;

/// After an accept that failed, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A listening relay; dropping it ends every connection.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    rtt: Duration,
    up: Line,
    down: Line,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    connections: usize,
    live: BTreeMap<usize, [Arc<TcpStream>; 2]>,
}

impl Relay {
    /// Listens on a free port of the loopback. `bits_per_second` is the rate of each direction.
    pub fn start(target: SocketAddr, rtt: Duration, bits_per_second: u64) -> Self {
        Self::start_at("127.0.0.1:0", target, rtt, bits_per_second)
    }

    /// Listens there.
    pub fn start_at(at: &str, target: SocketAddr, rtt: Duration, bits_per_second: u64) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let addr = listener.local_addr().unwrap();
        let line = || Line::new(rtt / 2, bits_per_second);
        let shared = Arc::new(Shared {
            target,
            rtt,
            up: line(),
            down: line(),
            state: Mutex::default(),
        });
        let acceptor = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &acceptor));
        Self { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Bytes that have gone onto the line towards the target.
    pub fn bytes_up(&self) -> u64 {
        locked(&self.shared.up.clock).bytes
    }

    /// Bytes that have gone onto the line from the target.
    pub fn bytes_down(&self) -> u64 {
        locked(&self.shared.down.clock).bytes
    }
}

/// `HOST:PORT`, as a SERVER word.
impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = locked(&self.shared.state);
        state.stopping = true;
        for socket in state.live.values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        // The acceptor wakes up for this one and finds that it is to stop.
        let _ = TcpStream::connect(self.addr);
    }
}

/// One direction of the link.
#[derive(Debug)]
struct Line {
    latency: Duration,
    bits_per_second: u64,
    segment: usize,
    /// Segments of one connection that may be under way: twice what fills the line, so that a reader
    /// that stops holds its own sender back and nobody else's.
    window: usize,
    clock: Mutex<Clock>,
}

#[derive(Debug)]
struct Clock {
    /// When the last byte that was taken will have left.
    free: Instant,
    bytes: u64,
}

impl Line {
    fn new(latency: Duration, bits_per_second: u64) -> Self {
        let carries = |time: Duration| {
            let bytes = time.as_nanos() * u128::from(bits_per_second) / 8_000_000_000;
            u64::try_from(bytes).unwrap()
        };
        let segment = carries(TURN).clamp(SEGMENT_MIN, SEGMENT_MAX);
        let window = 2 * carries(latency + QUEUE).div_ceil(segment) + 2;
        Self {
            latency,
            bits_per_second,
            segment: usize::try_from(segment).unwrap(),
            window: usize::try_from(window).unwrap(),
            clock: Mutex::new(Clock {
                free: Instant::now(),
                bytes: 0,
            }),
        }
    }

    /// Puts so many bytes behind those already taken; returns when the last of them leaves.
    fn take(&self, bytes: usize) -> Instant {
        let bytes = bytes as u64;
        let time = Duration::from_nanos(bytes * 8_000_000_000 / self.bits_per_second);
        let mut clock = locked(&self.clock);
        clock.free = clock.free.max(Instant::now()) + time;
        clock.bytes += bytes;
        clock.free
    }
}

/// What arrives at the far end of a line, and when.
struct Arrival {
    at: Instant,
    what: What,
}

enum What {
    Bytes(Vec<u8>),
    /// No more from this side.
    End,
    /// No more from either side.
    Reset,
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        let mut state = locked(&shared.state);
        if state.stopping {
            return;
        }
        let Ok((client, _)) = accepted else {
            drop(state);
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let n = state.connections;
        state.connections += 1;
        drop(state);
        let shared = Arc::clone(shared);
        // Without a thread the connection ends here, which its client sees.
        let _ = small().spawn(move || {
            // The handshake. What the client sends meanwhile waits in its socket, and where the target
            // refuses, is what makes the close a reset.
            thread::sleep(shared.rtt);
            if let Ok(server) = TcpStream::connect(shared.target) {
                relay(&shared, n, client, server);
            }
        });
    }
}

/// One connection, to its end.
fn relay(shared: &Shared, n: usize, client: TcpStream, server: TcpStream) {
    // Segments are to arrive as the line gives them.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client, server) = (Arc::new(client), Arc::new(server));
    let mut state = locked(&shared.state);
    if state.stopping {
        return;
    }
    let sockets = [Arc::clone(&client), Arc::clone(&server)];
    state.live.insert(n, sockets);
    drop(state);
    thread::scope(|scope| {
        let ways = [
            (&shared.up, &*client, &*server),
            (&shared.down, &*server, &*client),
        ];
        for (line, from, to) in ways {
            let (sender, receiver) = sync_channel(line.window);
            let threads = small()
                .spawn_scoped(scope, move || depart(line, from, &sender))
                .and_then(|_| {
                    small().spawn_scoped(scope, move || arrive(line, receiver, from, to))
                });
            if threads.is_err() {
                let _ = (
                    client.shutdown(Shutdown::Both),
                    server.shutdown(Shutdown::Both),
                );
            }
        }
    });
    locked(&shared.state).live.remove(&n);
}

/// Takes segments from a sender as the line's queue has room.
fn depart(line: &Line, mut from: &TcpStream, far: &SyncSender<Arrival>) {
    let mut buffer = vec![0; line.segment];
    loop {
        let (taken, what) = match from.read(&mut buffer) {
            Ok(0) => (0, What::End),
            Ok(n) => (n, What::Bytes(buffer[..n].to_vec())),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => (0, What::Reset),
        };
        let leaves = line.take(taken);
        let at = leaves + line.latency;
        // Fails once the receiver has gone; `arrive` tells this side so in its time.
        if far.send(Arrival { at, what }).is_err() || taken == 0 {
            return;
        }
        // Each reader wakes when its own last segment is this near to leaving: so they take turns.
        sleep_until(leaves.checked_sub(QUEUE).unwrap_or(leaves));
    }
}

/// Hands segments to their receiver when they are due.
fn arrive(line: &Line, near: Receiver<Arrival>, from: &TcpStream, mut to: &TcpStream) {
    for Arrival { at, what } in &near {
        sleep_until(at);
        let gone = match what {
            What::Bytes(bytes) => to.write_all(&bytes).is_err(),
            What::End => to.shutdown(Shutdown::Write).is_err(),
            What::Reset => to.shutdown(Shutdown::Both).is_err(),
        };
        if gone {
            // What is still under way is lost, and the sender hears of it in half a round trip.
            drop(near);
            thread::sleep(line.latency);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn small() -> Builder {
    Builder::new().stack_size(STACK)
}

fn sleep_until(time: Instant) {
    let left = time.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

/// No thread panics while it holds one of these.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
