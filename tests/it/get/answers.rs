//! What servers answer to `get`, honest and not: one table of what is taken, one of what is refused.
//! A refused answer is met alone, where its reason is told, and with a good server listed after
//! it, where nobody is to notice.

use std::fmt::Display;
use std::thread;
use std::time::Duration;

use crate::support::*;

/// How a server answers the request for this block.
type Answer = fn(&[u8]) -> Reply;

/// Neither an endless answer nor a bomb takes more than this, the program itself included (KiB).
const MEMORY: &str = "ulimit -v 16384";

const PAGE: &str = "<html><body>502 Bad Gateway</body></html>\n";

/// These bytes and the block.
fn raw(head: &str, block: &[u8]) -> Reply {
    Reply::raw([head.as_bytes(), block].concat())
}

/// As `raw`, with the block's length in place of the `{}`.
fn sized(head: &str, block: &[u8]) -> Reply {
    raw(&head.replace("{}", &block.len().to_string()), block)
}

/// A 200 with these header lines and no others, and the block.
fn with(lines: &str, block: &[u8]) -> Reply {
    raw(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n"), block)
}

/// A 200 with its right length and this line beside it.
fn and(line: &str, block: &[u8]) -> Reply {
    with(&format!("{line}\r\nContent-Length: {}", block.len()), block)
}

fn length(value: &str, block: &[u8]) -> Reply {
    with(&format!("Content-Length: {value}"), block)
}

fn chunked(bytes: impl AsRef<[u8]>) -> Reply {
    with("Transfer-Encoding: chunked", bytes.as_ref())
}

fn server(sample: &Sample, answer: Answer) -> HostileServer {
    let blocks = sample.map();
    HostileServer::http(move |request| answer(&blocks[request.hash()]))
}

/// Meets a bad server, a new one each time, in both ways.
#[track_caller]
fn falls_back<S: Display>(name: &str, bad: impl Fn(&Sample) -> S, why: &str, options: &[&str]) {
    let sample = Sample::new(3);
    let get = |servers: &[&dyn Display]| sample.get(servers).args(options).sh(MEMORY).run();
    let lone = bad(&sample);
    let out = get(&[&lone]);
    let told: Vec<_> = out.stderr.split_inclusive('\n').collect();
    let reason = told
        .get(1)
        .and_then(|line| line.strip_prefix(&format!("psync: ask http://{lone}: ")));
    assert!(
        out.status == 3 && out.stdout.is_empty() && told.len() == 2 && told[0] == sample.lacks(0),
        "{name}: {out}"
    );
    assert!(
        reason.is_some_and(|reason| reason.contains(why)),
        "{name}, not {why:?}: {out}"
    );
    let out = get(&[&bad(&sample), &sample.honest()]);
    let whole = out.status == 0 && out.stdout == sample.bytes && out.stderr.is_empty();
    assert!(whole, "{name}: {out}");
}

fn each_falls_back(table: &[(&str, Answer, &str)]) {
    for (name, answer, why) in table {
        falls_back(
            name,
            |sample| server(sample, *answer),
            why,
            &["--timeout", "20"],
        );
    }
}

#[test]
#[rustfmt::skip]
fn wrong_bytes_are_not_taken() {
    each_falls_back(&[
        ("flipped", |b| Reply::ok(b.iter().map(|c| !c).collect::<Vec<_>>()), "wrong bytes (4096)"),
        ("another valid block", |_| Reply::ok(random(BLOCK_SIZE, 99)), "wrong bytes (4096)"),
        ("a proxy's error page", |_| Reply::ok(PAGE), "wrong bytes (42)"),
        ("nothing", |_| Reply::ok(""), "an empty answer"),
        ("longer", |b| Reply::ok([b, b"x"].concat()), "4097 bytes, which no block has"),
        ("shorter", |b| Reply::ok(&b[1..]), "wrong bytes (4095)"),
        ("longer, no length", |b| raw("HTTP/1.1 200 OK\r\n\r\n", &[b, b"x"].concat()).then_close(), "more bytes than"),
        ("shorter, no length", |b| raw("HTTP/1.1 200 OK\r\n\r\n", &b[1..]).then_close(), "wrong bytes (4095)"),
        ("longer, chunked", |b| chunked(chunks(&[b, b"x"].concat(), 4096, "0\r\n\r\n")), "more bytes than"),
        ("shorter, chunked", |b| chunked(chunks(&b[1..], 9, "0\r\n\r\n")), "wrong bytes (4095)"),
        ("gzip", |_| with("Content-Encoding: gzip\r\nContent-Length: 20", &[7; 20]), "wrong bytes (20)"),
    ]);
}

#[test]
#[rustfmt::skip]
fn odd_lengths_are_not_taken() {
    each_falls_back(&[
        ("too large", |b| length("4096", &b[1..]).then_close(), "broke off after 4095 bytes"),
        ("too small", |b| length("4000", b), "wrong bytes (4000)"),
        ("zero", |b| length("0", b), "an empty answer"),
        ("10^12", |b| length("1000000000000", b), "1000000000000 bytes, which no block has"),
        ("4096 modulo 2^64", |b| length("18446744073709555712", b), "content-length"),
        ("negative", |b| length("-4096", b), "content-length"),
        ("signed", |b| length("+4096", b), "content-length"),
        ("hexadecimal", |b| length("0x1000", b), "content-length"),
        ("no value", |b| length("", b), "content-length"),
        ("twice", |b| with("Content-Length: 4096\r\nContent-Length: 5", b), "content-length"),
        ("twice, wrong first", |b| with("Content-Length: 5\r\nContent-Length: 4096", b), "content-length"),
    ]);
}

#[test]
#[rustfmt::skip]
fn broken_chunks_are_not_taken() {
    each_falls_back(&[
        ("over 2^64", |_| chunked("ffffffffffffffffff\r\nx"), "chunk length"),
        ("2^64 - 1", |b| chunked([b"ffffffffffffffff\r\n", b].concat()).then_close(), "broke off"),
        ("negative", |_| chunked("-1\r\nx"), "chunk length"),
        ("no size", |_| chunked("\r\nx"), "chunk length"),
        ("no hexadecimal", |_| chunked("<html>\r\n"), "chunk length"),
        ("an endless size", |_| chunked("").then_forever([b'0'; 4096]), "the body is not HTTP"),
        ("an endless extension", |_| chunked("1;").then_forever([b'x'; 4096]), "the body is not HTTP"),
        ("no CRLF after one", |b| chunked([b"1000\r\n", b, b"0\r\n\r\n"].concat()), "chunk"),
        ("without end", |_| chunked("").then_forever(chunks(&[7; 4096], 64, "")), "more bytes than"),
        ("an endless trailer", |b| chunked(chunks(b, 512, "0\r\nX: ")).then_forever([b'y'; 4096]), "the body is not HTTP"),
        ("the last one missing", |b| chunked(chunks(b, 512, "")).then_close(), "broke off after 4096 bytes"),
    ]);
}

#[test]
#[rustfmt::skip]
fn endless_answers_are_cut_short() {
    const LINES: &str = "X-Filler: yes\r\n";
    each_falls_back(&[
        ("body", |_| raw("HTTP/1.1 200 OK\r\n\r\n", b"").then_forever([b'x'; 4096]), "more bytes than a block has"),
        ("body and 10^12", |_| length("1000000000000", b"").then_forever([b'x'; 4096]), "bytes, which no block has"),
        ("gzip bomb", |_| with("Content-Encoding: gzip", b"\x1f\x8b\x08").then_forever([0; 4096]), "more bytes than"),
        ("page of a 404", |_| raw("HTTP/1.1 404 Not Found\r\n\r\n", b"").then_forever([b'x'; 4096]), "HTTP 404"),
        ("head", |_| raw("HTTP/1.1 200 OK\r\n", b"").then_forever(LINES.repeat(300)), "too many headers"),
        ("1,000 lines", |b| and(LINES.repeat(1000).trim_end(), b), "too many headers"),
        ("10,000 lines", |b| and(LINES.repeat(10_000).trim_end(), b), "too many headers"),
    ]);
}

/// In the words of the one limit that it is about: nobody hung up, and once is enough to know.
#[test]
#[rustfmt::skip]
fn an_endless_line_in_a_head_is_told_as_one() {
    each_falls_back(&[
        ("header", |_| raw("HTTP/1.1 200 OK\r\nX: ", b"").then_forever([b'x'; 4096]), "a head of over 16384 bytes"),
        ("status", |_| raw("HTTP/1.1 200 ", b"").then_forever([b'x'; 4096]), "a head of over 16384 bytes"),
    ]);
}

#[test]
#[rustfmt::skip]
fn other_tongues_are_not_taken() {
    const NOT_HTTP: &str = "not HTTP: ";
    each_falls_back(&[
        ("HTTP/0.9", |b| Reply::raw(b).then_close(), NOT_HTTP),
        ("HTTP/2 frames", |_| Reply::raw(b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0").then_close(), NOT_HTTP),
        ("a TLS alert", |_| Reply::raw(b"\x15\x03\x01\0\x02\x02\x46").then_close(), NOT_HTTP),
        ("an SSH banner", |_| Reply::raw("SSH-2.0-OpenSSH_9.6\r\n").then_close(), NOT_HTTP),
        ("random bytes", |_| Reply::raw(random(1000, 5)).then_close(), NOT_HTTP),
        ("endless random bytes", |_| Reply::raw("").then_forever(random(65536, 5)), NOT_HTTP),
        ("another version", |b| raw("HTTP/1.2 200 OK\r\nContent-Length: 4096\r\n\r\n", b), NOT_HTTP),
        ("version 2", |b| raw("HTTP/2.0 200 OK\r\nContent-Length: 4096\r\n\r\n", b), NOT_HTTP),
        ("a radio's", |b| raw("ICY 200 OK\r\nContent-Length: 4096\r\n\r\n", b), NOT_HTTP),
        ("four digits", |b| raw("HTTP/1.1 2000 OK\r\nContent-Length: 4096\r\n\r\n", b), NOT_HTTP),
        ("two digits", |b| raw("HTTP/1.1 20 OK\r\nContent-Length: 4096\r\n\r\n", b), NOT_HTTP),
        ("status 0", |b| raw("HTTP/1.1 000 OK\r\nContent-Length: 4096\r\n\r\n", b), NOT_HTTP),
        ("CR only", |b| raw("HTTP/1.1 200 OK\rContent-Length: 4096\r\r", b).then_close(), NOT_HTTP),
        ("NUL in a value", |b| and("X: a\0b", b), NOT_HTTP),
        ("NUL in a name", |b| and("X\0: ab", b), NOT_HTTP),
        ("obs-fold", |b| and("X: a\r\n b", b), NOT_HTTP),
        ("space before the colon", |b| and("X : a", b), NOT_HTTP),
        ("no colon", |b| and("X", b), NOT_HTTP),
    ]);
    // Some speak first.
    let banner = |_: &Sample| {
        HostileServer::start(|conn, _| {
            conn.send("220 mail ESMTP\r\n");
            conn.until_gone();
        })
    };
    falls_back("a banner before the request", banner, NOT_HTTP, &[]);
}

#[test]
#[rustfmt::skip]
fn answers_that_break_off_are_not_taken() {
    const HUNG_UP: &str = "it hung up without an answer";
    each_falls_back(&[
        ("at once, FIN", |_| Reply::raw("").then_close(), HUNG_UP),
        ("at once, RST", |_| Reply::raw("").then_reset(), HUNG_UP),
        ("in the head, FIN", |_| Reply::raw("HTTP/1.1 200").then_close(), HUNG_UP),
        ("in the head, RST", |_| Reply::raw("HTTP/1.1 200").then_reset(), HUNG_UP),
        ("in the body, FIN", |b| length("4096", &b[..1000]).then_close(), "broke off after 1000 bytes"),
        // A reset may overtake the bytes before it.
        ("in the body, RST", |b| length("4096", &b[..1000]).then_reset(), "it "),
        ("in a chunk", |b| chunked([b"1000\r\n", &b[..1000]].concat()).then_close(), "broke off after 1000 bytes"),
    ]);
}

#[test]
#[rustfmt::skip]
fn other_statuses_are_not_the_block() {
    each_falls_back(&[
        ("101", |_| raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"").then_close(), "HTTP 101"),
        ("201", |b| Reply::status(201, b), "HTTP 201"),
        ("204", |_| raw("HTTP/1.1 204 No Content\r\n\r\n", b""), "HTTP 204 No Content"),
        ("204 with a body", |b| Reply::status(204, b), "HTTP 204 No Content"),
        ("206", |b| Reply::with(206, &["Content-Range: bytes 0-4095/4096"], b), "HTTP 206 Partial Content"),
        ("300", |b| Reply::status(300, b), "HTTP 300"),
        ("304", |_| raw("HTTP/1.1 304 Not Modified\r\n\r\n", b""), "HTTP 304 Not Modified"),
        ("304 with a body", |b| Reply::status(304, b), "HTTP 304 Not Modified"),
        ("400", |b| Reply::status(400, b), "HTTP 400 Bad Request"),
        ("401", |b| Reply::with(401, &["WWW-Authenticate: Basic"], b), "HTTP 401 Unauthorized"),
        ("403", |b| Reply::status(403, b), "HTTP 403 Forbidden"),
        ("404", |b| Reply::status(404, b), "HTTP 404 Not Found"),
        ("407", |b| Reply::status(407, b), "HTTP 407"),
        ("410", |b| Reply::status(410, b), "HTTP 410 Gone"),
        ("416", |_| Reply::status(416, ""), "HTTP 416"),
        ("429", |_| Reply::with(429, &["Retry-After: 100000000000000000000"], ""), "HTTP 429 Too Many Requests"),
        ("500", |b| Reply::status(500, b), "HTTP 500 Internal Server Error"),
        ("502", |_| Reply::status(502, PAGE), "HTTP 502 Bad Gateway"),
        ("503", |_| Reply::with(503, &["Retry-After: 1"], PAGE), "HTTP 503 Service Unavailable"),
        ("503 until a date", |_| Reply::with(503, &["Retry-After: Fri, 31 Dec 2100 23:59:59 GMT"], ""), "HTTP 503"),
        ("999", |b| Reply::status(999, b), "HTTP 999"),
    ]);
}

#[test]
#[rustfmt::skip]
fn slow_and_silent_answers_cost_their_timeout_and_no_more() {
    const PACE: Duration = Duration::from_millis(100);
    let table: &[(&str, Answer, &str)] = &[
        ("silence", |_| Reply::raw("").then_silence(), "no answer within 1 s (given up)"),
        ("silence in the head", |_| Reply::raw("HTTP/1.1 ").then_silence(), "no answer within 1 s (given up)"),
        ("silence in the body", |b| length("4096", &b[1..]).then_silence(), "no whole answer within 1 s (given up)"),
        ("a slow head", |b| Reply::ok(b).paced(PACE), "no answer within 1 s (given up)"),
        ("a slow body", |_| length("4096", b"").then_forever("x").paced_from_here(PACE), "no whole answer within 1 s (given up)"),
        ("a slow chunk size", |_| chunked("").then_forever("1").paced_from_here(PACE), "no whole answer within 1 s (given up)"),
        ("endless trailers", |b| chunked(chunks(b, 512, "0\r\n")).then_forever("X: y\r\n"), "no whole answer within 1 s (given up)"),
        ("a flood of 100", |_| Reply::raw("").then_forever("HTTP/1.1 100 Continue\r\n\r\n"), "a head of over 16384 bytes"),
        ("a flood of 102", |_| Reply::raw("").then_forever("HTTP/1.1 102 Processing\r\n\r\n"), "a head of over 16384 bytes"),
    ];
    thread::scope(|scope| {
        for (name, answer, why) in table {
            scope.spawn(|| {
                falls_back(name, |sample| server(sample, *answer), why, &["--timeout", "1"]);
            });
        }
    });
}

#[test]
fn servers_that_cannot_be_reached_are_passed_over() {
    falls_back(
        "refuses",
        |_| Refusing::new(),
        "Connection refused (given up)",
        &[],
    );
    let why = "no connection within 0.3 s (given up)";
    falls_back(
        "never accepts",
        |_| Deaf::new(),
        why,
        &["--connect-timeout", "0.3"],
    );
    let why = "failed to lookup address information";
    falls_back("no such host", |_| "no.such.host.invalid", why, &[]);
    falls_back(
        "no such host, and a port",
        |_| "no.such.host.invalid:8080",
        why,
        &[],
    );
}

/// Right bytes are taken whatever surrounds them, even from a server that is alone; the last
/// column says how many connections the four blocks take.
#[test]
#[rustfmt::skip]
fn right_bytes_are_taken_however_they_come() {
    let table: &[(&str, Answer, usize)] = &[
        ("as they should", |b| Reply::ok(b), 1),
        ("chunked", |b| chunked(chunks(b, 512, "0\r\n\r\n")), 1),
        ("in one chunk", |b| chunked(chunks(b, 4096, "0\r\n\r\n")), 1),
        ("in chunks of a byte", |b| chunked(chunks(b, 1, "0\r\n\r\n")), 1),
        ("with trailers", |b| chunked(chunks(b, 512, "0\r\nX: y\r\nZ: z\r\n\r\n")), 1),
        ("last CRLF missing", |b| chunked(chunks(b, 512, "0\r\n")).then_close(), 4),
        ("after a 100", |b| sized("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", b), 1),
        ("after a 103", |b| sized("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", b), 1),
        ("until it closes", |b| raw("HTTP/1.1 200 OK\r\n\r\n", b).then_close(), 4),
        ("HTTP/1.0", |b| sized("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", b).then_close(), 4),
        ("HTTP/1.0, no length", |b| raw("HTTP/1.0 200 OK\r\n\r\n", b).then_close(), 4),
        ("HTTP/1.0, kept alive", |b| sized("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n", b), 1),
        ("a long header", |b| and(&format!("X: {}", "x".repeat(12_000)), b), 1),
        ("sixty headers", |b| and("X-Filler: yes\r\n".repeat(60).trim_end(), b), 1),
        ("chunked and a length", |b| with(&format!("Transfer-Encoding: chunked\r\nContent-Length: {}", b.len()), &chunks(b, 512, "0\r\n\r\n")), 1),
        ("chunk extensions", |b| chunked([format!("{:X};a=b\r\n", b.len()).as_bytes(), b, b"\r\n0;c\r\n\r\n"].concat()), 1),
        ("length twice", |b| and(&format!("Content-Length: {}", b.len()), b), 1),
        ("another type", |b| and("Content-Type: text/html; charset=utf-16", b), 1),
        ("no reason phrase", |b| sized("HTTP/1.1 200\r\nContent-Length: {}\r\n\r\n", b), 1),
        ("LF only", |b| sized("HTTP/1.1 200 OK\nContent-Length: {}\n\n", b), 1),
        ("other case", |b| with(&format!("cONTENT-lENGTH:{}", b.len()), b), 1),
        ("Connection: close", |b| and("Connection: close", b).then_close(), 4),
        ("closed unannounced", |b| Reply::ok(b).then_close(), 4),
        ("close, and kept open", |b| and("Connection: close", b), 4),
        ("HTTP/1.0, kept open", |b| sized("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", b), 4),
        ("reset afterwards", |b| and("Connection: close", b).then_reset(), 4),
    ];
    for (name, answer, connections) in table {
        let sample = Sample::new(3);
        let lone = server(&sample, *answer);
        let out = sample.get(&[&lone]).sh(MEMORY).run();
        let whole = out.status == 0 && out.stdout == sample.bytes && out.stderr.is_empty();
        assert!(whole, "{name}: {out}");
        assert_eq!(lone.connections(), *connections, "{name}");
        assert_eq!(lone.requests().len(), 4, "{name}");
    }
}

/// More bytes than announced are the beginning of no answer: they cost the connection and no block.
#[test]
fn bytes_after_an_answer_are_not_the_next_one() {
    let sample = Sample::new(3);
    let blocks = sample.map();
    let chatty = HostileServer::http(move |request| {
        let block = &blocks[request.hash()];
        length(
            &block.len().to_string(),
            &[block, &b"<!-- served by -->"[..]].concat(),
        )
    });
    sample.is_whole(sample.get(&[&chatty]).run());
    // A second answer to one request is another block's, if it is believed to be the next one's.
    let blocks = sample.map();
    let doubled = HostileServer::http(move |request| {
        let answer = Reply::honest(&blocks, request);
        Reply::raw([answer.bytes(), answer.bytes()].concat())
    });
    sample.is_whole(sample.get(&[&doubled, &sample.honest()]).run());
}
