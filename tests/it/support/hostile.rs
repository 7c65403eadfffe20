//! Servers that keep no rule: closures over std TCP. Every connection and request is counted;
//! dropping the server ends them all. Most are static: to `POST /blocks` they answer 405, which is
//! neither counted nor the handler's affair.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{BlockMap, at_drop, block_map, uninterrupted, wait_until};

#[derive(Debug)]
pub struct HostileServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    accepting: bool,
    connections: usize,
    takes_runs: bool,
    requests: Vec<Request>,
    live: BTreeMap<usize, TcpStream>,
    failed: usize,
}

impl HostileServer {
    /// The handler has each connection to itself, with its number from 0; it is closed when the
    /// handler returns.
    pub fn start(handler: impl Fn(&mut Conn, usize) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", handler)
    }

    pub fn start_at(at: &str, handler: impl Fn(&mut Conn, usize) + Send + Sync + 'static) -> Self {
        let mut listener = None;
        // One that was there before may be about to go.
        wait_until("the address is free", || {
            listener = TcpListener::bind(at).ok();
            listener.is_some()
        });
        let listener = listener.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        shared.state.lock().unwrap().accepting = true;
        let acceptor = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &acceptor, &Arc::new(handler)));
        Self { addr, shared }
    }

    /// The handler sees whole requests and answers with a `Reply`.
    pub fn http(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::http_at("127.0.0.1:0", handler)
    }

    pub fn http_at(at: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(at, move |conn, _| {
            while let Some(request) = conn.request() {
                if !handler(&request).send(conn) {
                    return;
                }
            }
        })
    }

    /// Keeps the rules: serves the blocks of these bytes, to count what is asked of it.
    pub fn honest(bytes: &[u8]) -> Self {
        let blocks = block_map(bytes);
        Self::http(move |request| Reply::honest(&blocks, request))
    }

    /// The handler sees requests for many blocks at once too.
    pub fn taking_runs(self) -> Self {
        self.shared.state.lock().unwrap().takes_runs = true;
        self
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// How many requests there are once no more come: for a bound on them, which a machine that halts
    /// for longer than that only makes easier to keep.
    pub fn settled(&self) -> usize {
        const QUIET: Duration = Duration::from_millis(300);
        let (mut seen, mut since) = (0, Instant::now());
        while seen == 0 || since.elapsed() < QUIET {
            let now = self.shared.state.lock().unwrap().requests.len();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            thread::sleep(Duration::from_millis(5));
        }
        seen
    }

    /// Their targets: `/HASH`.
    pub fn targets(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .map(|request| request.target)
            .collect()
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        at_drop(|| {
            let mut state = self.shared.state.lock().unwrap();
            state.stopping = true;
            for stream in state.live.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            self.shared.changed.notify_all();
            drop(state);
            // The acceptor wakes up for this one and finds that it is to stop.
            let _ = TcpStream::connect(self.addr);
            let state = self.shared.state.lock().unwrap();
            let unfinished = |state: &mut State| state.accepting || !state.live.is_empty();
            let limit = Duration::from_secs(10);
            let (state, late) = self
                .shared
                .changed
                .wait_timeout_while(state, limit, unfinished)
                .unwrap();
            let failed = state.failed;
            drop(state);
            if !thread::panicking() {
                assert!(!late.timed_out(), "a hostile server's handler does not end");
                assert_eq!(failed, 0, "a hostile server's handler panicked");
            }
        });
    }
}

/// `HOST:PORT`, as a SERVER word.
impl fmt::Display for HostileServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

fn accept<H>(listener: &TcpListener, shared: &Arc<Shared>, handler: &Arc<H>)
where
    H: Fn(&mut Conn, usize) + Send + Sync + 'static,
{
    loop {
        let (stream, _) = listener.accept().unwrap();
        let mut state = shared.state.lock().unwrap();
        if state.stopping {
            state.accepting = false;
            shared.changed.notify_all();
            return;
        }
        let n = state.connections;
        state.connections += 1;
        state.live.insert(n, stream.try_clone().unwrap());
        drop(state);
        // What a handler sends in pieces is to arrive in pieces.
        let _ = stream.set_nodelay(true);
        let (shared, handler) = (Arc::clone(shared), Arc::clone(handler));
        thread::spawn(move || {
            let mut conn = Conn {
                stream,
                n,
                asked: 0,
                unread: false,
                shared: Arc::clone(&shared),
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| handler(&mut conn, n)));
            drop(conn);
            let mut state = shared.state.lock().unwrap();
            state.live.remove(&n);
            state.failed += usize::from(outcome.is_err());
            shared.changed.notify_all();
        });
    }
}

/// A connection in a handler's hands: a `TcpStream` that can also read requests and be rude.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    n: usize,
    asked: usize,
    unread: bool,
    shared: Arc<Shared>,
}

impl Conn {
    /// The next request, or nothing where the client has gone. Its last byte stays in the socket until
    /// the next call: closing a socket with unread bytes is what sends a reset.
    pub fn request(&mut self) -> Option<Request> {
        loop {
            let request = self.any_request()?;
            let mut state = self.shared.state.lock().unwrap();
            if request.method != "POST" || state.takes_runs {
                self.asked += 1;
                state.requests.push(request.clone());
                return Some(request);
            }
            drop(state);
            self.send("HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
        }
    }

    fn any_request(&mut self) -> Option<Request> {
        self.catch_up()?;
        let mut seen = Vec::new();
        loop {
            let mut peeked = [0; 16384];
            let n = uninterrupted(|| self.stream.peek(&mut peeked));
            let n = n.ok().filter(|&n| n > 0)?;
            let before = seen.len();
            seen.extend_from_slice(&peeked[..n]);
            let end = request_end(&seen).filter(|&end| end <= seen.len());
            let take = end.map_or(n, |end| end - before - 1);
            self.stream.read_exact(&mut peeked[..take]).ok()?;
            let Some(end) = end else { continue };
            self.unread = true;
            return Some(Request::parse(&seen[..end], self.n, self.asked));
        }
    }

    /// False once the client has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Waits that long, but not past the server's end; false then.
    pub fn pause(&self, time: Duration) -> bool {
        let state = self.shared.state.lock().unwrap();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, time, |state| !state.stopping);
        !waited.unwrap().0.stopping
    }

    /// A byte each `pace`; false once the client has gone.
    pub fn dribble(&mut self, bytes: &[u8], pace: Duration) -> bool {
        bytes
            .iter()
            .all(|&byte| self.send([byte]) && self.pause(pace))
    }

    /// Says nothing more and reads until the client has gone.
    pub fn until_gone(&mut self) {
        let mut waste = [0; 4096];
        while uninterrupted(|| self.stream.read(&mut waste)).is_ok_and(|n| n > 0) {}
    }

    /// Ends it in order, with a FIN and nothing left unread.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.until_gone();
    }

    /// Ends it with a reset, once the handler returns: it waits here for a byte to leave unread.
    pub fn reset(&mut self) {
        if !self.unread {
            let _ = uninterrupted(|| self.stream.peek(&mut [0]));
        }
    }

    fn catch_up(&mut self) -> Option<()> {
        if self.unread {
            self.unread = false;
            self.stream.read_exact(&mut [0]).ok()?;
        }
        Some(())
    }
}

impl Deref for Conn {
    type Target = TcpStream;
    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// The whole head, empty line and all.
    pub head: String,
    pub body: Vec<u8>,
    /// Which connection it came on, and the how manyth on it, both from 0.
    pub conn: usize,
    pub nth: usize,
}

impl Request {
    /// The target's last part: the hash.
    pub fn hash(&self) -> &str {
        self.target.rsplit('/').next().unwrap_or("")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    fn parse(bytes: &[u8], conn: usize, nth: usize) -> Self {
        let (head, body) = bytes.split_at(head_end(bytes).unwrap());
        let head = String::from_utf8_lossy(head).into_owned();
        let mut words = head
            .lines()
            .next()
            .unwrap_or("")
            .split(' ')
            .map(str::to_owned);
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        Self {
            method,
            target,
            head,
            body: body.to_vec(),
            conn,
            nth,
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn request_end(bytes: &[u8]) -> Option<usize> {
    let end = head_end(bytes)?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    Some(end + header(&head, "content-length").map_or(0, |length| length.parse().unwrap()))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Raw bytes to answer with, and what becomes of the connection then.
#[derive(Debug, Clone)]
pub struct Reply {
    bytes: Vec<u8>,
    pace: Option<Duration>,
    /// Bytes that are sent at once for all that.
    at_once: usize,
    then: Then,
}

#[derive(Debug, Clone)]
enum Then {
    Keep,
    Close,
    Reset,
    Silence,
    Repeat(Vec<u8>),
}

impl Reply {
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self {
            bytes: bytes.as_ref().to_vec(),
            pace: None,
            at_once: 0,
            then: Then::Keep,
        }
    }

    /// A plain 200.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200, body)
    }

    /// `Reply::status(404, "")`.
    pub fn status(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::with(status, &[], body)
    }

    pub fn with(status: u16, headers: &[&str], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Status\r\n{headers}Content-Length: {length}\r\n\r\n");
        Self::raw([head.as_bytes(), body].concat())
    }

    /// What an ordinary static server answers.
    pub fn honest(blocks: &BlockMap, request: &Request) -> Self {
        match blocks.get(request.hash()) {
            _ if request.method != "GET" => Self::with(405, &["Allow: GET"], ""),
            Some(block) => Self::ok(block),
            None => Self::status(404, "not found\n"),
        }
    }

    pub fn then_close(self) -> Self {
        Self {
            then: Then::Close,
            ..self
        }
    }

    pub fn then_reset(self) -> Self {
        Self {
            then: Then::Reset,
            ..self
        }
    }

    /// Keeps the connection and never says anything again.
    pub fn then_silence(self) -> Self {
        Self {
            then: Then::Silence,
            ..self
        }
    }

    /// Goes on with these bytes until the client has gone.
    pub fn then_forever(self, bytes: impl AsRef<[u8]>) -> Self {
        Self {
            then: Then::Repeat(bytes.as_ref().to_vec()),
            ..self
        }
    }

    /// One byte each `pace`.
    pub fn paced(self, pace: Duration) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }

    /// What was said so far at once, and one byte each `pace` of what comes after it.
    pub fn paced_from_here(self, pace: Duration) -> Self {
        Self {
            at_once: self.bytes.len(),
            ..self.paced(pace)
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the connection goes on.
    fn send(&self, conn: &mut Conn) -> bool {
        let send = |conn: &mut Conn, bytes: &[u8]| match self.pace {
            Some(pace) => conn.dribble(bytes, pace),
            None => conn.send(bytes),
        };
        let (at_once, rest) = self.bytes.split_at(self.at_once);
        let sent = conn.send(at_once) && send(conn, rest);
        match &self.then {
            Then::Keep => return sent,
            Then::Close => conn.close(),
            Then::Reset => conn.reset(),
            Then::Silence => conn.until_gone(),
            Then::Repeat(bytes) => while send(conn, bytes) {},
        }
        false
    }
}

/// An address that refuses every connection, kept from anybody else's use.
#[derive(Debug)]
pub struct Refusing {
    // The near end of a connection: its port is taken, yet nobody listens there.
    near: TcpStream,
    _far: TcpListener,
}

impl Refusing {
    pub fn new() -> Self {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            near: TcpStream::connect(far.local_addr().unwrap()).unwrap(),
            _far: far,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.near.local_addr().unwrap()
    }
}

impl fmt::Display for Refusing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
    }
}

/// Listens and never accepts, its backlog full: a connection to it neither succeeds nor fails.
#[derive(Debug)]
pub struct Deaf {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Deaf {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // On loopback a connection takes microseconds, so this long means that there is no room.
        let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok();
        let started = Instant::now();
        let waiting = std::iter::from_fn(connect).collect();
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the backlog never fills"
        );
        Self {
            listener,
            _waiting: waiting,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

impl fmt::Display for Deaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
    }
}
