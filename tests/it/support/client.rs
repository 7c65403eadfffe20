//! A client that sends any bytes at all, and a response parser of its own that is stricter than any
//! browser: what it lets pass, every client understands.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// The longest that a server may take over one read; above every deadline of the server.
const LIMIT: Duration = Duration::from_secs(30);

/// Between two pieces, so that they seldom arrive as one. No verdict hangs on it.
const GAP: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self {
            stream,
            seen: Vec::new(),
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// As far as the server lets it: false once it has closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// In pieces, cut at these offsets.
    #[track_caller]
    pub fn send_split(&mut self, bytes: &[u8], offsets: &[usize]) -> &mut Self {
        let mut from = 0;
        for &to in offsets {
            self.send(&bytes[from..to]);
            thread::sleep(GAP);
            from = to;
        }
        self.send(&bytes[from..])
    }

    /// The same, but sends no more once something is answered, if that is to be the last answer:
    /// the server does not wait for long then.
    pub fn send_until_answered(&mut self, bytes: &[u8], offsets: &[usize], last: bool) {
        let mut from = 0;
        for &to in offsets.iter().chain([&bytes.len()]) {
            if last && from > 0 && self.is_answered() {
                return;
            }
            self.send(&bytes[from..to]);
            if to < bytes.len() {
                thread::sleep(GAP);
            }
            from = to;
        }
    }

    fn is_answered(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = uninterrupted(|| self.stream.peek(&mut [0]));
        self.stream.set_nonblocking(false).unwrap();
        seen.is_ok()
    }

    /// Says that no more will come, and goes on reading.
    #[track_caller]
    pub fn half_close(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// What comes next is these bytes, and what follows them stays for the next call.
    #[track_caller]
    pub fn expect(&mut self, bytes: &[u8]) -> &mut Self {
        while self.seen.len() < bytes.len() {
            match self.read_more() {
                Ok(true) => {}
                end => panic!("{end:?} after {}", show(&self.seen)),
            }
        }
        let is_next = self.seen.starts_with(bytes);
        assert!(is_next, "not {}, but {}", show(bytes), show(&self.seen));
        self.seen.drain(..bytes.len());
        self
    }

    /// Exactly one response; what follows it stays for the next call.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.take_response(false)
    }

    /// The response to a HEAD: its body is not sent.
    #[track_caller]
    pub fn response_to_head(&mut self) -> Response {
        self.take_response(true)
    }

    /// All that comes until the server closes in order; a reset fails.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self
            .read_more()
            .unwrap_or_else(|e| panic!("{e} after {}", show(&self.seen)))
        {}
        std::mem::take(&mut self.seen)
    }

    /// All that comes until it is over, a reset included.
    #[track_caller]
    pub fn read_to_any_end(&mut self) -> Vec<u8> {
        loop {
            match self.read_more() {
                Ok(true) => {}
                Err(e) if is_timeout(&e) => panic!("still open after {}", show(&self.seen)),
                Ok(false) | Err(_) => return std::mem::take(&mut self.seen),
            }
        }
    }

    /// The server closes in order and says no more.
    #[track_caller]
    pub fn closed(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "expected the end, got {}", show(&rest));
    }

    #[track_caller]
    fn take_response(&mut self, to_head: bool) -> Response {
        loop {
            if let Some((response, length)) = Response::parse(&self.seen, to_head) {
                self.seen.drain(..length);
                return response;
            }
            match self.read_more() {
                Ok(true) => {}
                Ok(false) => panic!("closed after {}", show(&self.seen)),
                Err(e) => panic!("{e} after {}", show(&self.seen)),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 65536];
        let n = uninterrupted(|| self.stream.read(&mut buffer))?;
        self.seen.extend_from_slice(&buffer[..n]);
        Ok(n > 0)
    }
}

/// A read by hand, again where a signal ended it: a process that was stopped for a moment has that of
/// every socket with a time limit, though it handles no signal (signal(7)).
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn show(bytes: &[u8]) -> String {
    format!(
        "{} bytes: {}",
        bytes.len(),
        String::from_utf8_lossy(&bytes[..bytes.len().min(400)])
    )
}

/// One GET on its own connection.
#[track_caller]
pub fn get(addr: SocketAddr, target: &str) -> Response {
    let mut client = Client::connect(addr);
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    ));
    let response = client.response();
    client.closed();
    response
}

/// Sends these bytes, says that no more will come, and returns all that is answered.
#[track_caller]
pub fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    Client::connect(addr).send(bytes).half_close().read_to_end()
}

/// Bytes that must be whole responses and nothing else, none of them to a HEAD.
#[track_caller]
pub fn responses(mut bytes: &[u8]) -> Vec<Response> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let Some((response, length)) = Response::parse(bytes, false) else {
            panic!("cut short: {}", show(bytes))
        };
        all.push(response);
        bytes = &bytes[length..];
    }
    all
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// `HTTP/1.1`
    pub version: String,
    pub status: u16,
    pub reason: String,
    /// As sent, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The response at the beginning and its length; nothing if there is more to come; a panic if it
    /// breaks a rule.
    #[track_caller]
    pub fn parse(bytes: &[u8], to_head: bool) -> Option<(Self, usize)> {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = str::from_utf8(&bytes[..head]).unwrap_or_else(|_| panic!("{}", show(bytes)));
        let mut lines = text.split("\r\n");
        let parsed = lines.next().and_then(status_line);
        let Some((version, status, reason)) = parsed else {
            panic!("status line: {text}")
        };
        let headers: Option<Vec<_>> = lines.map(header_line).collect();
        let Some(headers) = headers else {
            panic!("header: {text}")
        };
        let mut response = Self {
            version,
            status,
            reason,
            headers,
            body: Vec::new(),
        };
        let rest = &bytes[head + 4..];
        let length = if response.is_chunked() {
            let (body, length) = dechunked(rest)?;
            response.body = body;
            length
        } else {
            let length = response
                .length()
                .unwrap_or_else(|| panic!("length: {text}"));
            let length = if to_head || status == 304 { 0 } else { length };
            response.body = rest.get(..length)?.to_vec();
            length
        };
        Some((response, head + 4 + length))
    }

    /// In chunks, and said so exactly once and to a client that understands it.
    fn is_chunked(&self) -> bool {
        let said = |name: &&str| self.header(name).is_some();
        let lengths = ["Content-Length", "Transfer-Encoding"];
        let encodings = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(lengths[1]));
        self.version == "HTTP/1.1"
            && lengths.iter().filter(|name| said(name)).count() == 1
            && encodings.map(|(_, value)| value).eq(["chunked"])
    }

    /// Every other answer states it, exactly once.
    fn length(&self) -> Option<usize> {
        let named = |name: &str| {
            let name = name.to_owned();
            self.headers
                .iter()
                .filter(move |(key, _)| key.eq_ignore_ascii_case(&name))
        };
        let (_, value) = named("Content-Length").next()?;
        let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let once = named("Content-Length").count() == 1 && named("Transfer-Encoding").count() == 0;
        value.parse().ok().filter(|_| plain && once)
    }
}

/// A body in chunks and its length as sent; nothing if there is more to come; a panic if it is not
/// in the one form that everybody reads: no extension, no trailer, no leading zero.
#[track_caller]
pub fn dechunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let end = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let size = str::from_utf8(&bytes[at..at + end]).unwrap();
        let length = usize::from_str_radix(size, 16).unwrap();
        assert_eq!(size, format!("{length:x}"), "chunk size");
        at += end + 2;
        body.extend_from_slice(bytes.get(at..at + length)?);
        let line_end = bytes.get(at + length..at + length + 2)?;
        assert_eq!(line_end, b"\r\n", "after a chunk");
        at += length + 2;
        if length == 0 {
            return Some((body, at));
        }
    }
}

fn status_line(line: &str) -> Option<(String, u16, String)> {
    let (version, rest) = line.split_once(' ')?;
    let (status, reason) = rest.split_once(' ')?;
    let digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    let known = matches!(version, "HTTP/1.0" | "HTTP/1.1");
    let plain = reason.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let status = status.parse().ok().filter(|_| digits && known && plain)?;
    Some((version.to_owned(), status, reason.to_owned()))
}

fn header_line(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(": ")?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let named = !name.is_empty() && name.bytes().all(token);
    let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~')) && value == value.trim();
    (named && plain).then(|| (name.to_owned(), value.to_owned()))
}
