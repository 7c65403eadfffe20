//! What the server answers to every kind of bytes: status, headers, body, and whether the connection
//! lives on. One answer a request, in order, however the bytes arrive.

use crate::server::wire::{BLOCK, TARGETS};
use crate::support::*;

/// Follows each request: answered only where the connection lives on.
const PROBE: &str = "GET / HTTP/1.1\r\nHost: probe\r\n\r\n";

const LIVES: bool = true;
const ENDS: bool = false;

/// A served block; its hash stands for HASH in the requests below.
struct Served {
    server: Server,
    dir: TempDir,
    bytes: Vec<u8>,
    hash: String,
}

impl Served {
    #[track_caller]
    fn start() -> Self {
        let (dir, bytes) = (TempDir::new(), random(BLOCK_SIZE, 1));
        write_blocks(&dir, &bytes);
        Self {
            server: Server::start(&dir),
            hash: hash_hex(&bytes),
            dir,
            bytes,
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.server.addr())
    }

    /// `HASH` in `text` replaced.
    fn fill(&self, text: &str) -> String {
        text.replace("HASH", &self.hash)
    }

    /// Sends it and the probe at once. A second answer to the request itself, or one to the probe on
    /// a connection that must have ended, shows.
    #[track_caller]
    fn check(&self, request: impl AsRef<[u8]>, status: u16, lives: bool) {
        let shown = String::from_utf8_lossy(request.as_ref()).into_owned();
        let shown = &shown[..shown.len().min(200)];
        let bytes = [request.as_ref(), PROBE.as_bytes()].concat();
        let answers = responses(&exchange(self.server.addr(), bytes));
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let expected = if lives {
            vec![status, 200]
        } else {
            vec![status]
        };
        assert_eq!(statuses, expected, "{shown:?}");
        let first = &answers[0];
        let says_close = first.header("Connection") == Some("close");
        assert_eq!(says_close, !lives, "{shown:?}: {first:?}");
        let allow = (status == 405).then_some("GET, HEAD");
        assert_eq!(first.header("Allow"), allow, "{shown:?}");
        if lives {
            assert!(answers[1].body.starts_with(b"psync "), "{shown:?}");
        }
    }
}

/// Lines of a response's head, sorted.
fn headers(response: &Response) -> Vec<String> {
    let mut lines: Vec<_> = response
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    lines
}

#[test]
fn nothing_but_the_hash_in_the_directory_is_opened() {
    let (dir, trace) = (TempDir::new(), TempDir::new());
    let (bytes, log) = (random(BLOCK_SIZE, 1), trace.join("log"));
    write_blocks(&dir, &bytes);
    let hash = hash_hex(&bytes);
    let strace = [
        "-D",
        "-f",
        "-qq",
        "-s",
        "300",
        "-e",
        "trace=%file,accept4",
        "-o",
    ];
    let args = strace
        .map(Into::into)
        .into_iter()
        .chain([log.clone().into()]);
    let run = psync!("server", "-d", &dir, "127.0.0.1:0");
    let server = Server::of(run.under::<std::ffi::OsString>("strace", args));
    let odd = TARGETS.iter().filter(|(_, answer, _)| *answer != BLOCK);
    for (target, ..) in odd {
        let target = target.replace("HASH", &hash);
        exchange(
            server.addr(),
            format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"),
        );
    }
    assert_eq!(get(server.addr(), &format!("/{hash}")).body, bytes);
    let wanted = dir.join(&hash).display().to_string();
    let read = || std::fs::read_to_string(&log).unwrap();
    wait_until("the trace shows the block", || read().contains(&wanted));
    let text = read();
    let named: Vec<_> = text
        .lines()
        .skip_while(|line| !line.contains("accept4("))
        .filter(|line| !line.contains("accept4"))
        .filter_map(|line| line.split('"').nth(1))
        // What libc looks at to make a thread's heap.
        .filter(|name| !name.starts_with("/sys/") && !name.starts_with("/proc/"))
        .collect();
    // One of the odd ones is a hash too.
    let absent = dir.join("0".repeat(64)).display().to_string();
    assert_eq!(named, [absent, wanted]);
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    let served = Served::start();
    let smuggled = served.fill("GET /HASH HTTP/1.1\r\nHost: test\r\n\r\n");
    let length = smuggled.len();
    for (method, fields, status) in [
        ("GET", format!("Content-Length: {length}"), 200),
        ("POST", format!("Content-Length: {length}"), 405),
        ("PUT", format!("Content-Length: {length}"), 405),
        ("BREW", format!("Content-Length: {length}"), 501),
        ("GET", "Transfer-Encoding: chunked".into(), 501),
        ("POST", "Transfer-Encoding: chunked".into(), 501),
        (
            "GET",
            "Transfer-Encoding: chunked\r\nContent-Length: 4".into(),
            400,
        ),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n{smuggled}");
        served.check(request, status, ENDS);
    }
}

#[test]
fn head_is_get_without_the_body() {
    let served = Served::start();
    let mut client = served.client();
    for target in ["/HASH", "/", "/nothing", "*", "/HASH?x"] {
        for fields in ["", "Content-Length: 0\r\n", "Connection: keep-alive\r\n"] {
            let rest = served.fill(&format!(" {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
            client.send(format!("GET{rest}"));
            let got = client.response();
            client.send(format!("HEAD{rest}"));
            let head = client.response_to_head();
            // A body would be taken for the next answer.
            assert_eq!(
                (head.status, headers(&head)),
                (got.status, headers(&got)),
                "{target}"
            );
        }
    }
    client.send(served.fill("HEAD /HASH HTTP/1.0\r\n\r\n"));
    assert_eq!(
        client.response_to_head().header("Content-Length"),
        Some("4096")
    );
    client.closed();
}

#[test]
fn http_1_0_lives_on_only_when_asked_to_and_is_told_so() {
    let served = Served::start();
    let mut client = served.client();
    for _ in 0..2 {
        client.send(served.fill("GET /HASH HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
        let answer = client.response();
        assert_eq!(
            (answer.header("Connection"), &answer.body),
            (Some("keep-alive"), &served.bytes)
        );
    }
    // It needs no Host, but has at most one.
    client.send(served.fill("GET /HASH HTTP/1.0\r\n\r\n"));
    let answer = client.response();
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (200, Some("close"))
    );
    client.closed();
    for (fields, status) in [
        ("Host: a\r\nHost: b\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", 400),
        ("Connection: keep-alive, close\r\n", 200),
        ("Connection: keep-alive\r\nContent-Length: 1\r\n", 200),
    ] {
        served.check(
            served.fill(&format!("GET /HASH HTTP/1.0\r\n{fields}\r\n")),
            status,
            ENDS,
        );
    }
}

/// A request whose request line has `length` bytes, answered with 200: the absolute form's host may
/// be as long as anyone likes.
fn long_line(hash: &str, length: usize) -> String {
    let rest = format!("GET http:///{hash} HTTP/1.1");
    let host = "h".repeat(length - rest.len());
    format!("GET http://{host}/{hash} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A request whose head has `length` bytes.
fn long_head(length: usize) -> String {
    let rest = "GET / HTTP/1.1\r\nHost: test\r\nX: \r\n\r\n";
    let value = "x".repeat(length - rest.len());
    format!("GET / HTTP/1.1\r\nHost: test\r\nX: {value}\r\n\r\n")
}

#[test]
fn a_request_line_has_at_most_8000_bytes() {
    let served = Served::start();
    for (length, status, lives) in [
        (7_999, 200, LIVES),
        (8_000, 200, LIVES),
        (8_001, 414, ENDS),
        (9_000, 414, ENDS),
        (100_000, 414, ENDS),
    ] {
        served.check(long_line(&served.hash, length), status, lives);
    }
    // Nor is the end of the line waited for.
    let endless = format!("GET /{}", "x".repeat(8_100));
    let mut client = served.client();
    client.send(endless);
    assert_eq!(client.response().status, 414);
}

#[test]
fn a_head_has_at_most_16_kib() {
    let served = Served::start();
    for (length, status, lives) in [
        (16_000, 200, LIVES),
        (16_383, 200, LIVES),
        (16_384, 200, LIVES),
        (16_400, 431, ENDS),
        (20_000, 431, ENDS),
    ] {
        served.check(long_head(length), status, lives);
    }
    let many = "X: y\r\n".repeat(4_000);
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{many}\r\n");
    served.check(request, 431, ENDS);
}

#[test]
fn a_head_of_16_kib_and_one_byte_is_too_large() {
    let served = Served::start();
    for over in 1..=5 {
        served.check(long_head(16_384 + over), 431, ENDS);
    }
}

#[test]
fn what_is_too_long_is_told_so_though_more_was_sent() {
    let served = Served::start();
    for (request, status) in [
        (long_head(200_000), 431),
        (long_line(&served.hash, 200_000), 414),
        (format!("GET / HTTP/9.9\r\n{}", "x".repeat(200_000)), 505),
    ] {
        let mut client = served.client();
        // All of it before the answer is looked at, and the sending side stays open.
        client.send(request);
        assert_eq!(client.response().status, status);
        client.closed();
    }
}

/// Three requests in a row and the statuses of their answers.
fn three(served: &Served) -> (String, [u16; 3]) {
    let text = "GET /HASH HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\nPUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    (served.fill(text), [200, 404, 405])
}

#[test]
fn requests_split_anywhere_are_the_same_requests() {
    let served = Served::start();
    let (text, statuses) = three(&served);
    for offset in 1..text.len() {
        let mut client = served.client();
        client.send_split(text.as_bytes(), &[offset]);
        let first = client.response();
        assert!(first.body == served.bytes, "split at {offset}");
        let rest = [(); 2].map(|()| client.response().status);
        assert_eq!(
            [first.status, rest[0], rest[1]],
            statuses,
            "split at {offset}"
        );
        client.closed();
    }
}

#[test]
fn a_hundred_requests_at_once_are_answered_in_order() {
    let (dir, bytes) = (TempDir::new(), random(50 * BLOCK_SIZE + 1, 2));
    write_blocks(&dir, &bytes);
    let server = Server::start(&dir);
    let asked: String = blocks(&bytes)
        .flat_map(|block| [format!("/{}", hash_hex(block)), "/absent".into()])
        .map(|target| format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .collect();
    // Half-closed behind the last, which takes no answer away.
    let answers = responses(&exchange(server.addr(), asked));
    assert_eq!(answers.len(), 102);
    for (block, pair) in blocks(&bytes).zip(answers.chunks(2)) {
        assert!(pair[0].status == 200 && pair[0].body == block);
        assert_eq!(pair[1].status, 404);
    }
}

#[test]
fn half_closed_is_answered_and_cut_short_is_not() {
    let served = Served::start();
    let request = served.fill("GET /HASH HTTP/1.1\r\nHost: test\r\n\r\n");
    let answers = responses(&exchange(served.server.addr(), &request));
    assert!(answers.len() == 1 && answers[0].body == served.bytes);
    for cut in [0, 1, 30, request.len() - 2, request.len() - 1] {
        assert_eq!(
            exchange(served.server.addr(), &request[..cut]),
            b"",
            "cut at {cut}"
        );
    }
}

/// Every status that the protocol knows.
const STATUSES: [u16; 12] = [200, 400, 404, 405, 408, 411, 413, 414, 431, 501, 503, 505];

#[test]
fn whatever_is_sent_is_answered_in_order_or_not_at_all() {
    let served = Served::start();
    let text =
        "GET /HASH HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
    let text = served.fill(text).repeat(2);
    // Bytes that mean something turn up more often than others.
    let marks = b"\r\n\r\n \t:/.,%?#*0159\0\x0b\x0c\x7f\x80\xffHGPT";
    for seed in 0..1000 {
        let dice = random(32, seed);
        let mut bytes = text.clone().into_bytes();
        for die in dice.chunks(8).take(1 + usize::from(dice[31]) % 4) {
            let at = usize::from(u16::from_le_bytes([die[0], die[1]])) % bytes.len();
            let byte = match die[2] % 8 {
                0 => die[3],
                _ => marks[usize::from(die[3]) % marks.len()],
            };
            match die[4] % 4 {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, byte),
                2 => bytes.truncate(at.max(20)),
                _ => bytes[at] = byte,
            }
        }
        let answers = responses(&exchange(served.server.addr(), &bytes));
        let shown = String::from_utf8_lossy(&bytes);
        assert!(answers.len() <= 2, "{shown:?}: {}", answers.len());
        for (n, answer) in answers.iter().enumerate() {
            assert!(
                STATUSES.contains(&answer.status),
                "{shown:?}: {}",
                answer.status
            );
            let last = answer.header("Connection") == Some("close");
            assert!(!last || n + 1 == answers.len(), "{shown:?}");
            let block = answer.status == 200 && answer.header("ETag").is_some();
            assert!(!block || answer.body == served.bytes, "{shown:?}");
        }
    }
}

#[test]
fn noise_is_refused_at_most_once() {
    let served = Served::start();
    for seed in 0..200 {
        let noise = random(1 + 40 * seed as usize, seed);
        let answers = responses(&exchange(served.server.addr(), noise));
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert!(
            matches!(statuses[..], [] | [400 | 414]),
            "{seed}: {statuses:?}"
        );
    }
}

#[test]
fn an_upload_is_refused_and_the_client_told_so() {
    let served = Served::start();
    let file = served.dir.file("upload", vec![0; 3_000_000]);
    for more in [
        &["-H", "Expect:"][..],
        &["-H", "Transfer-Encoding: chunked"],
        &[],
    ] {
        let out = tool!(
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-T",
            &file
        )
        .args(more)
        .arg(served.server.url() + "/upload")
        .run();
        let status = if more.iter().any(|word| word.contains("chunked")) {
            "501"
        } else {
            "405"
        };
        assert_eq!(out.text(), status, "{out}");
    }
}
