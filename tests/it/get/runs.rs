//! Requests for many blocks at once (`POST /blocks`): what is asked, what of an answer is taken, and
//! how those servers are met that know no such request, answer it wrongly or slowly.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::host::soak::lasting_address;
use crate::support::*;

/// What is answered to a request for these blocks, which a server has all of.
type Answer = fn(&[&[u8]]) -> Reply;

/// How many blocks are asked for of a server of which nothing is known, at most.
const FIRST: usize = 8;

const PAGE: &str = "<html><body>405 Not Allowed</body></html>\n";

fn joined(blocks: &[&[u8]]) -> Vec<u8> {
    blocks
        .iter()
        .map(|block| frame(block))
        .collect::<Vec<_>>()
        .concat()
}

fn raw(head: &str, body: &[u8]) -> Reply {
    Reply::raw([head.as_bytes(), body].concat())
}

fn chunked(body: impl AsRef<[u8]>) -> Reply {
    raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        body.as_ref(),
    )
}

fn flipped(block: &[u8]) -> Vec<u8> {
    block.iter().map(|byte| !byte).collect()
}

/// Serves single blocks as every server does, and runs in its own way.
fn server(blocks: BlockMap, answer: Answer) -> HostileServer {
    let handler = move |request: &Request| {
        if request.is_run() {
            let run = request.run();
            let run: Vec<_> = run.iter().map(|hash| blocks[hash].as_slice()).collect();
            answer(&run)
        } else {
            Reply::honest(&blocks, request)
        }
    };
    HostileServer::http(handler).taking_runs()
}

fn hashes(sample: &Sample) -> Vec<String> {
    hashlist(&sample.bytes).lines().map(str::to_owned).collect()
}

/// Alone, with -v: all of the file, and nobody is given up.
#[track_caller]
fn suffices(name: &str, sample: &Sample, lone: &HostileServer, options: &[&str]) -> Output {
    let out = sample.get(&[lone]).arg("-v").args(options).run();
    let whole = out.status == 0 && out.stdout == sample.bytes;
    let alone = out.stderr.lines().count() == 1 + usize::from(options.contains(&"--stats"));
    assert!(
        whole && alone && !out.stderr.contains("give up"),
        "{name}: {out}"
    );
    out
}

// What is asked.

/// Nobody was there to be asked for many blocks at once, which says nothing of who is there later.
#[test]
fn a_server_that_comes_up_late_is_asked_for_runs() {
    let (dir, bytes) = (TempDir::new(), random(300 * BLOCK_SIZE, 71));
    let (blocks, list) = (dir.join("b"), dir.file("list", hashlist(&bytes)));
    write_blocks(&blocks, &bytes);
    let addr = lasting_address("127.9.9.3");
    let get = psync!("get", "-v", "--stats", &addr, list).start();
    get.wait_stderr(|told| told.ends_with(b"Connection refused\n"));
    let _server = Server::of(psync!("server", "-d", &blocks, &addr));
    let out = get.wait();
    assert!(out.status == 0 && out.stdout == bytes, "{out}");
    assert!(out.stat("requests") < 60, "{out}");
}

#[test]
fn a_run_is_asked_for_in_one_request() {
    let sample = Sample::new(299);
    let good = HostileServer::psync(sample.map());
    let out = suffices("honest", &sample, &good, &["--stats"]);
    assert_eq!((good.singles().len(), good.connections()), (0, 1));
    assert_eq!(good.asked(), hashes(&sample));
    assert!(good.runs()[0].len() <= FIRST, "{}", good.runs()[0].len());
    assert!(good.runs().len() <= 300 / 10, "{}", good.runs().len());
    assert_eq!(out.stat("requests"), good.requests().len() as u64);
    assert_eq!(out.stat("bytes"), (sample.bytes.len() + 2 * 300) as u64);
    assert_eq!((out.stat("fetched"), out.stat("missing")), (300, 0));
    for jobs in ["2", "8", "64"] {
        let good = HostileServer::psync(sample.map());
        suffices("honest", &sample, &good, &["-j", jobs]);
        let mut asked = good.asked();
        let mut due = hashes(&sample);
        asked.sort();
        due.sort();
        assert_eq!(asked, due, "-j {jobs}");
        assert!(good.requests().len() <= 300, "-j {jobs}");
    }
}

#[test]
fn a_run_is_a_plain_request_below_the_servers_path() {
    let sample = Sample::new(40);
    for path in ["", "/a/b", "/A%20b"] {
        let good = HostileServer::psync(sample.map());
        sample.is_whole(sample.get(&[&(good.url() + path + "/")]).run());
        for request in good.requests() {
            let expected = [
                format!("post {}/blocks http/1.1", path.to_lowercase()),
                format!("content-length: {}", request.body.len()),
                format!("host: {good}"),
                format!("user-agent: psync/{}", env!("CARGO_PKG_VERSION")),
            ];
            let lines = request.head.trim_end().lines().map(str::to_lowercase);
            let mut lines: Vec<_> = lines
                .filter(|line| !line.starts_with("content-type:"))
                .collect();
            lines[1..].sort();
            assert_eq!(lines, expected);
        }
        assert_eq!(good.asked(), hashes(&sample));
    }
}

#[test]
fn one_block_is_no_run() {
    let sample = Sample::new(0);
    let good = HostileServer::psync(sample.map());
    sample.is_whole(sample.get(&[&good]).run());
    assert_eq!((good.runs().len(), good.singles().len()), (0, 1));
}

/// Of one that answers slowly or of which little is wanted, too: never more than may be asked for.
#[test]
fn a_run_has_at_most_1024_lines() {
    let dir = TempDir::new();
    let list = long_list(&dir, 9000);
    let map = block_map(&random(4 * BLOCK_SIZE, 8));
    for (jobs, least) in [("1", 256), ("8", 64)] {
        let good = HostileServer::psync(map.clone());
        let null = File::options().write(true).open("/dev/null").unwrap();
        psync!("get", "-j", jobs, good.url(), &list)
            .stdout_to(null)
            .run()
            .ok();
        let lengths: Vec<_> = good.runs().iter().map(Vec::len).collect();
        assert_eq!(lengths.iter().sum::<usize>() + good.singles().len(), 9000);
        let longest = lengths.iter().max();
        assert!(longest >= Some(&least), "-j {jobs}: {lengths:?}");
    }
}

#[test]
fn psync_server_is_asked_for_runs() {
    let sample = Sample::new(3000);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    for jobs in ["1", "8"] {
        let server = Server::with(sample.dir.join("blocks"), &["-v"]);
        let out = sample.get(&[&server]).args(["-j", jobs, "--stats"]).run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        let (requests, bytes) = (out.stat("requests"), out.stat("bytes"));
        assert!(requests <= 3001 / 10, "-j {jobs}: {requests}");
        assert_eq!(bytes, (sample.bytes.len() + 2 * 3001) as u64);
        server.wait_stderr(|log| line_count(log) as u64 >= requests);
        let log = server.stop();
        assert_eq!(
            log.matches("POST /blocks").count() as u64,
            requests,
            "{log}"
        );
    }
}

// Answers that are right.

#[test]
#[rustfmt::skip]
fn frames_may_come_in_any_form_of_body() {
    let table: &[(&str, Answer)] = &[
        ("with a length", |run| Reply::ok(joined(run))),
        ("in chunks of one byte", |run| chunked(in_chunks(&joined(run), 1))),
        ("in chunks of 4095 bytes", |run| chunked(in_chunks(&joined(run), 4095))),
        ("in one chunk", |run| chunked(in_chunks(&joined(run), 1 << 20))),
        ("until it closes", |run| raw("HTTP/1.1 200 OK\r\n\r\n", &joined(run)).then_close()),
        ("until it closes, and says so", |run| raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &joined(run)).then_close()),
        ("HTTP/1.0", |run| raw("HTTP/1.0 200 OK\r\n\r\n", &joined(run)).then_close()),
        ("HTTP/1.0 with a length", |run| raw(&format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", joined(run).len()), &joined(run)).then_close()),
        ("closed after each", |run| Reply::ok(joined(run)).then_close()),
        ("with a type", |run| Reply::with(200, &["Content-Type: text/html"], joined(run))),
    ];
    let sample = Sample::new(60);
    for (name, answer) in table {
        for jobs in ["1", "8"] {
            let lone = server(sample.map(), *answer);
            let out = suffices(name, &sample, &lone, &["-j", jobs, "--stats"]);
            assert_eq!(lone.singles(), [""; 0], "{name}, -j {jobs}");
            assert_eq!(out.stat("bytes"), (sample.bytes.len() + 2 * 61) as u64, "{name}");
        }
    }
}

/// Unasked, yet allowed before any answer.
#[test]
fn a_100_before_the_frames_does_no_harm() {
    let answer: Answer = |run| {
        let frames = Reply::ok(joined(run));
        raw("HTTP/1.1 100 Continue\r\n\r\n", frames.bytes())
    };
    let sample = Sample::new(60);
    for jobs in ["1", "8"] {
        let lone = server(sample.map(), answer);
        suffices("after a 100", &sample, &lone, &["-j", jobs]);
        assert!(!lone.runs().is_empty());
    }
}

/// Nor where it is known how it should answer.
#[test]
fn a_100_before_later_frames_does_no_harm() {
    let sample = Sample::new(200);
    let (blocks, asked) = (sample.map(), AtomicUsize::new(0));
    let lone = HostileServer::http(move |request| {
        let reply = Reply::psync(&blocks, request);
        match asked.fetch_add(1, SeqCst) {
            0 => reply,
            _ => raw("HTTP/1.1 100 Continue\r\n\r\n", reply.bytes()),
        }
    });
    suffices("100, later", &sample, &lone.taking_runs(), &[]);
}

/// FIN or RST, after an answer or when the next request arrives: no block lost, nobody at fault.
#[test]
fn a_connection_closed_meanwhile_loses_no_run() {
    let sample = Sample::new(60);
    for reset in [false, true] {
        let blocks = sample.map();
        let lone = HostileServer::http(move |request| match (request.nth, reset) {
            (0, _) => Reply::psync(&blocks, request),
            (_, true) => Reply::raw("").then_reset(),
            (_, false) => Reply::raw("").then_close(),
        });
        let lone = lone.taking_runs();
        suffices("closes at the next", &sample, &lone, &[]);
        let answered = lone
            .requests()
            .into_iter()
            .filter(|request| request.nth == 0);
        assert!(answered.clone().all(|request| request.is_run()));
        let given: Vec<_> = answered.flat_map(|request| request.run()).collect();
        assert_eq!(given, hashes(&sample), "by a reset: {reset}");
        let lone = server(sample.map(), |run| Reply::ok(joined(run)).then_close());
        suffices("closes after each", &sample, &lone, &["-j", "8"]);
        assert_eq!(lone.asked().len(), 61);
    }
}

// Answers that are none.

/// Each costs one request, and each block is then asked for by itself.
#[track_caller]
fn does_without(name: &str, answer: Answer, options: &[&str]) {
    for (whole, jobs) in [(40, "1"), (400, "8")] {
        let sample = Sample::new(whole);
        let lone = server(sample.map(), answer);
        let options = [options, &["-j", jobs]].concat();
        suffices(name, &sample, &lone, &options);
        let runs = lone.runs();
        // Twice where it hung up.
        assert!(
            (1..=2).contains(&runs.len()),
            "{name}, -j {jobs}: {} runs",
            runs.len()
        );
        let singles = lone.singles();
        assert!(
            singles.len() <= whole + 1,
            "{name}, -j {jobs}: {} singles",
            singles.len()
        );
        let asked: BTreeSet<_> = lone.asked().into_iter().collect();
        assert_eq!(asked.len(), whole + 1, "{name}, -j {jobs}");
        // And beside a good one listed after it, which then has nothing to do.
        let (lone, good) = (server(sample.map(), answer), sample.honest());
        let get = sample.get(&[&lone, &good]).args(&options);
        sample.is_whole(get.run());
        assert_eq!(good.connections(), 0, "{name}, -j {jobs}");
    }
}

#[test]
#[rustfmt::skip]
fn a_server_that_knows_no_runs_is_asked_singly() {
    let table: &[(&str, Answer)] = &[
        ("404", |_| Reply::status(404, PAGE)),
        ("404 without a page", |_| Reply::status(404, "")),
        ("405", |_| Reply::with(405, &["Allow: GET, HEAD"], PAGE)),
        ("501", |_| Reply::status(501, PAGE)),
        ("501 and closed", |_| Reply::status(501, PAGE).then_close()),
        ("400", |_| Reply::status(400, PAGE).then_close()),
        ("401", |_| Reply::with(401, &["WWW-Authenticate: Basic"], PAGE)),
        ("403", |_| Reply::status(403, PAGE)),
        ("411", |_| Reply::status(411, "")),
        ("413", |_| Reply::status(413, PAGE).then_close()),
        ("415", |_| Reply::status(415, "")),
        ("505", |_| Reply::status(505, "")),
        ("201", |run| Reply::status(201, joined(run))),
        ("204", |_| raw("HTTP/1.1 204 No Content\r\n\r\n", b"")),
        ("206", |run| Reply::status(206, joined(run))),
        ("302", |_| Reply::with(302, &["Location: /"], "")),
        ("307", |_| Reply::with(307, &["Location: /blocks"], "")),
        ("a long page", |_| Reply::status(404, [b'x'; 200_000])),
        ("a page with 200", |_| Reply::ok(PAGE)),
        ("a page with 200 that begins with an empty line", |_| Reply::ok(format!("\r\n{}", PAGE.repeat(200)))),
        ("a long page with 200", |_| Reply::ok(PAGE.repeat(5000))),
        ("a page with 200, in chunks", |_| chunked(in_chunks(PAGE.as_bytes(), 7))),
        ("an endless page", |_| raw("HTTP/1.1 200 OK\r\n\r\n", b"").then_forever(PAGE)),
        ("endless zeros", |_| raw("HTTP/1.1 200 OK\r\n\r\n", b"").then_forever([0; 4096])),
        ("endless ones", |_| raw("HTTP/1.1 200 OK\r\n\r\n", b"").then_forever([1; 4096])),
        ("an empty 200", |_| Reply::ok("")),
        ("an empty 200 without length", |_| raw("HTTP/1.1 200 OK\r\n\r\n", b"").then_close()),
        ("a block without its length", |run| Reply::ok(run[0])),
        ("gzip", |run| Reply::with(200, &["Content-Encoding: gzip"], [&b"\x1f\x8b\x08\0"[..], &joined(run)].concat())),
        ("hangs up", |_| Reply::raw("").then_close()),
        ("resets", |_| Reply::raw("").then_reset()),
        ("hangs up in the head", |_| Reply::raw("HTTP/1.1 200").then_close()),
        ("not HTTP", |_| Reply::raw("SSH-2.0-OpenSSH_9.6\r\n").then_close()),
        ("a head without end", |_| Reply::raw("HTTP/1.1 200 OK\r\nX: ").then_forever([b'x'; 4096])),
        ("two lengths", |run| raw("HTTP/1.1 200 OK\r\nContent-Length: 4098\r\nContent-Length: 5\r\n\r\n", &joined(run))),
        ("broken chunks", |run| chunked([b"xyz\r\n", &joined(run)[..]].concat()).then_close()),
    ];
    for (name, answer) in table {
        does_without(name, *answer, &["--timeout", "20"]);
    }
}

#[test]
#[rustfmt::skip]
fn a_server_whose_frames_are_none_is_asked_singly() {
    let table: &[(&str, Answer)] = &[
        ("half a length", |_| Reply::ok([16])),
        ("half a frame", |run| Reply::ok(&joined(run)[..1000])),
        ("half a frame, no length", |run| raw("HTTP/1.1 200 OK\r\n\r\n", &joined(run)[..1000]).then_close()),
        ("half a frame of a length that is more", |run| Reply::begun(joined(run).len(), &joined(run)[..1000]).then_close()),
        ("half a frame after three", |run| Reply::ok(&joined(run)[..3 * 4098 + 1000])),
        ("half a frame after three, chunked", |run| chunked(in_chunks(&joined(run)[..3 * 4098 + 1000], 999))),
        ("half a length after three", |run| Reply::ok(&joined(run)[..=3 * 4098])),
        ("three frames only", |run| Reply::ok(&joined(run)[..3 * 4098])),
        ("all but the last byte", |run| Reply::ok(&joined(run)[..joined(run).len() - 1])),
        ("N of 4097", |run| Reply::ok([&[16, 1][..], run[0], b"x", &joined(&run[1..])].concat())),
        ("N of 65535", |_| Reply::ok([255; 70_000])),
        ("N of 65535 after three", |run| Reply::ok([&joined(&run[..3]), &[255; 70_000][..]].concat())),
        ("little-endian", |run| Reply::ok(run.iter().flat_map(|b| [&[0, 16][..], b].concat()).collect::<Vec<_>>())),
        ("four bytes of length", |run| Reply::ok(run.iter().flat_map(|b| [&[0, 0, 16, 0][..], b].concat()).collect::<Vec<_>>())),
        ("no lengths", |run| Reply::ok(run.concat())),
        ("padded", |run| Reply::ok(run.iter().flat_map(|b| frame(&[b, &b"x"[..]].concat())).collect::<Vec<_>>())),
        ("reversed", |run| Reply::ok(run.iter().rev().flat_map(|b| frame(b)).collect::<Vec<_>>())),
        ("each pair swapped", |run| Reply::ok(run.chunks(2).flat_map(|two| two.iter().rev().flat_map(|b| frame(b))).collect::<Vec<_>>())),
        ("from the second on", |run| Reply::ok(joined(&[&run[1..], &run[..1]].concat()))),
        ("one more before", |run| Reply::ok([frame(b"x"), joined(run)].concat())),
        ("the hashes again", |run| Reply::ok(run.iter().flat_map(|b| frame(hash_hex(b).as_bytes())).collect::<Vec<_>>())),
        ("wrong bytes", |run| Reply::ok(run.iter().flat_map(|b| frame(&flipped(b))).collect::<Vec<_>>())),
    ];
    for (name, answer) in table {
        does_without(name, *answer, &["--timeout", "20"]);
    }
}

/// What was asked for came, so that is kept; but whoever says more is not understood.
#[test]
#[rustfmt::skip]
fn a_server_that_gives_more_frames_than_asked_is_asked_singly() {
    let table: &[(&str, Answer)] = &[
        ("one more", |run| Reply::ok([joined(run), frame(b"x")].concat())),
        ("an empty one more", |run| Reply::ok([joined(run), frame(b"")].concat())),
        ("a byte more", |run| Reply::ok([joined(run), vec![0]].concat())),
        ("twice", |run| Reply::ok(joined(run).repeat(2))),
        ("more, in chunks", |run| chunked(in_chunks(&joined(run).repeat(2), 1000))),
        ("more until it closes", |run| raw("HTTP/1.1 200 OK\r\n\r\n", &joined(run).repeat(2)).then_close()),
        ("without end", |run| raw("HTTP/1.1 200 OK\r\n\r\n", &joined(run)).then_forever(frame(&[7; 4096]))),
    ];
    for (name, answer) in table {
        does_without(name, *answer, &["--timeout", "20"]);
        let sample = Sample::new(40);
        let lone = server(sample.map(), *answer);
        suffices(name, &sample, &lone, &["--timeout", "20"]);
        assert_eq!(lone.asked(), hashes(&sample), "{name}");
    }
}

/// Nothing is lost by waiting once, and nothing is to be waited for again.
#[rustfmt::skip]
fn silence_after_the_frames_costs_its_timeout_once() {
    let table: &[(&str, Answer)] = &[
        ("no end", |run| Reply::begun(1 << 20, joined(run)).then_silence()),
        ("no last chunk", |run| {
            let chunks = in_chunks(&joined(run), 1000);
            chunked(&chunks[..chunks.len() - 5]).then_silence()
        }),
        ("the last CRLF missing", |run| {
            let chunks = in_chunks(&joined(run), 1000);
            chunked(&chunks[..chunks.len() - 2]).then_silence()
        }),
        ("more frames", |run| Reply::begun(1 << 20, joined(run).repeat(2)).then_silence()),
        ("frames out of order", |run| {
            let turned: Vec<_> = run.iter().rev().flat_map(|b| frame(b)).collect();
            Reply::begun(1 << 20, turned).then_silence()
        }),
        ("a page", |_| Reply::begun(1 << 20, PAGE).then_silence()),
    ];
    thread::scope(|scope| {
        for (name, answer) in table {
            scope.spawn(move || does_without(name, *answer, &["--timeout", "1"]));
        }
    });
}

/// It serves every block; that it never answers what it does not know costs two timeouts, not the file.
fn a_server_that_is_silent_to_runs_alone_is_asked_singly_in_the_end() {
    let sample = Sample::new(40);
    let lone = server(sample.map(), |_| Reply::raw("").then_silence());
    let out = sample
        .get(&[&lone])
        .args(["--timeout", "1", "--retry", "2"])
        .run();
    sample.is_whole(out);
    // Once it may have been away.
    assert_eq!(lone.runs().len(), 2);
}

/// Busy: each block is asked for by itself now, and what takes a run may be tried again.
#[test]
fn a_server_too_busy_for_runs_is_asked_singly() {
    for status in [408, 429, 500, 502, 503] {
        for (whole, jobs) in [(80, "1"), (400, "8")] {
            let sample = Sample::new(whole);
            let (blocks, asked) = (sample.map(), AtomicUsize::new(0));
            let busy = HostileServer::http(move |request| {
                if request.is_run() && asked.fetch_add(1, SeqCst) < 3 {
                    Reply::with(status, &["Retry-After: 1000"], PAGE)
                } else {
                    Reply::psync(&blocks, request)
                }
            });
            let busy = busy.taking_runs();
            suffices(&status.to_string(), &sample, &busy, &["-j", jobs]);
            assert!(!busy.runs().is_empty() && !busy.singles().is_empty());
            let never = server(
                sample.map(),
                match status {
                    408 => |_| Reply::status(408, ""),
                    429 => |_| Reply::status(429, ""),
                    500 => |_| Reply::status(500, ""),
                    _ => |_| Reply::status(503, ""),
                },
            );
            suffices(&status.to_string(), &sample, &never, &["-j", jobs]);
            assert_eq!(never.singles().len(), whole + 1);
            assert!(
                never.runs().len() <= (whole + 1).div_ceil(4),
                "{}",
                never.runs().len()
            );
        }
    }
}

#[test]
fn a_server_always_too_busy_for_runs_is_seldom_asked_for_them() {
    let sample = Sample::new(1599);
    for (jobs, most) in [("1", 8), ("8", 1600 / 20)] {
        let busy = server(sample.map(), |_| Reply::status(503, PAGE));
        suffices("503", &sample, &busy, &["-j", jobs]);
        assert_eq!(busy.singles().len(), 1600, "-j {jobs}");
        let runs = busy.runs().len();
        assert!((2..=most).contains(&runs), "-j {jobs}: {runs}");
    }
}

#[test]
fn static_servers_are_asked_singly() {
    let sample = Sample::new(200);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    let blocks = sample.dir.join("blocks");
    for (daemon, path) in [
        (Daemon::nginx(&blocks, ""), ""),
        (
            Daemon::nginx(&sample.dir, "error_page 405 =200 /list;"),
            "/blocks",
        ),
        (
            Daemon::nginx(&sample.dir, "client_max_body_size 1;"),
            "/blocks",
        ),
        (Daemon::nginx(&blocks, "keepalive_requests 1;"), ""),
        (Daemon::busybox_httpd(&blocks), ""),
        (Daemon::busybox_httpd(&sample.dir), "/blocks"),
    ] {
        for jobs in ["1", "8"] {
            let url = daemon.url() + path;
            let get = sample.get(&[&url]).args(["-j", jobs, "-v", "--stats"]);
            let out = get.run();
            let whole = out.status == 0 && out.stdout == sample.bytes;
            assert!(whole && !out.stderr.contains("give up"), "{url}: {out}");
            let requests = out.stat("requests");
            assert!((202..=204).contains(&requests), "{url}: {out}");
        }
    }
}

// Answers that are partly right.

/// What `first` gave is kept; of the good one after it, exactly the rest is asked, in order.
#[track_caller]
fn the_rest_is_asked_of_the_next(
    name: &str,
    given: impl Fn(usize) -> bool + Send + Sync + 'static,
    end: fn(Reply) -> Reply,
    options: &[&str],
) -> (Output, HostileServer) {
    let sample = Sample::new(40);
    let (blocks, kept) = (sample.map(), Arc::new(Mutex::new(BTreeSet::new())));
    let keeping = Arc::clone(&kept);
    let first = HostileServer::http(move |request| {
        if !request.is_run() {
            return Reply::status(404, "");
        }
        let run = request.run();
        let body = frames(&blocks, &run);
        let mut sent = Vec::new();
        for (n, hash) in run.iter().enumerate() {
            if !given(n) {
                break;
            }
            sent.extend(frame(&blocks[hash]));
            keeping.lock().unwrap().insert(hash.clone());
        }
        end(Reply::begun(body.len(), sent))
    });
    let first = first.taking_runs();
    let second = HostileServer::psync(sample.map());
    let out = sample.get(&[&first, &second]).args(options).arg("-v").run();
    assert!(
        out.status == 0 && out.stdout == sample.bytes,
        "{name}: {out}"
    );
    let kept = kept.lock().unwrap();
    let due: Vec<_> = hashes(&sample)
        .into_iter()
        .filter(|hash| !kept.contains(hash))
        .collect();
    let asked = second.asked();
    let (count, expected) = (asked.len(), due.len());
    assert!(asked == due, "{name}: {count} asked for, not {expected}");
    (out, first)
}

/// What ends an answer, the head and some of whose frames this is.
type End = fn(Reply) -> Reply;

/// With some bytes more.
fn and(reply: &Reply, more: &[u8]) -> Reply {
    raw("", &[reply.bytes(), more].concat())
}

#[test]
fn what_came_before_a_run_broke_off_is_kept() {
    let ends: [(&str, End); 2] = [
        ("in a block", |reply| and(&reply, &[16, 0, 7]).then_close()),
        ("before an end", |reply| and(&reply, &[0, 0]).then_close()),
    ];
    for (name, end) in ends {
        for k in [1, 3, 6] {
            let (out, first) = the_rest_is_asked_of_the_next(name, move |n| n < k, end, &[]);
            // Each brought something: it is not given up.
            assert!(!out.stderr.contains("give up"), "{name}: {out}");
            assert!(first.runs().len() >= 3, "{name}: {}", first.runs().len());
        }
    }
}

/// Whole it is, and right: what was to follow it changes nothing.
#[test]
fn a_block_after_which_nothing_comes_is_kept() {
    for k in [1, 3, 7] {
        the_rest_is_asked_of_the_next("FIN", move |n| n < k, Reply::then_close, &[]);
        let in_a_length: End = |reply| and(&reply, &[16]).then_close();
        the_rest_is_asked_of_the_next("in a length", move |n| n < k, in_a_length, &[]);
    }
    let options = ["--timeout", "1"];
    the_rest_is_asked_of_the_next("silence", |n| n < 3, Reply::then_silence, &options);
}

/// A reset may overtake what came before it, so what is kept is known by what is asked again.
#[test]
fn a_reset_in_a_run_loses_no_block() {
    let sample = Sample::new(40);
    let blocks = sample.map();
    let first = HostileServer::http(move |request| {
        let body = frames(&blocks, &request.hashes());
        Reply::begun(body.len(), &body[..body.len() / 2]).then_reset()
    });
    let (first, second) = (first.taking_runs(), HostileServer::psync(sample.map()));
    sample.is_whole(sample.get(&[&first, &second]).run());
    let asked: Vec<_> = second.asked();
    let mut sorted = asked.clone();
    sorted.sort_by_key(|hash| hashes(&sample).iter().position(|other| other == hash));
    sorted.dedup();
    assert_eq!(asked, sorted, "each once and in order");
    assert!(asked.len() < 41, "nothing was kept");
}

/// It sent nothing for the timeout, or too little: one timeout, whatever the number of blocks.
fn silence_in_a_run_costs_its_timeout_once() {
    const PACE: Duration = Duration::from_millis(50);
    let table: [(&str, usize, End); 5] = [
        ("in a block after 1", 1, |reply| {
            and(&reply, &[16, 0, 7]).then_silence()
        }),
        ("before any", 0, Reply::then_silence),
        ("in the first length", 0, |reply| {
            and(&reply, &[16]).then_silence()
        }),
        ("a byte now and then after 3", 3, |reply| {
            and(&reply, &[16, 0])
                .then_forever("x")
                .paced_from_here(PACE)
        }),
        ("a byte now and then at once", 0, |reply| {
            reply.then_forever([8]).paced_from_here(PACE)
        }),
    ];
    thread::scope(|scope| {
        for (name, k, end) in table {
            scope.spawn(move || {
                let given = move |n| n < k;
                let options = ["--timeout", "1"];
                let (out, first) = the_rest_is_asked_of_the_next(name, given, end, &options);
                let told: Vec<_> = out.stderr.lines().collect();
                let given_up = told[0].starts_with("psync: give up ")
                    && told[0].ends_with("no whole answer within 1 s");
                assert!(told.len() == 2 && given_up, "{name}: {out}");
                assert_eq!(first.requests().len(), 1, "{name}");
            });
        }
    });
}

/// And by eight workers at once.
fn silence_in_a_run_costs_eight_workers_its_timeout_once() {
    let sample = Sample::new(400);
    for k in [0, 3] {
        let blocks = sample.map();
        let silent = HostileServer::http(move |request| {
            let hashes = request.hashes();
            let body = frames(&blocks, &hashes[..k.min(hashes.len())]);
            Reply::begun(1 << 20, body).then_silence()
        });
        let (silent, good) = (silent.taking_runs(), HostileServer::psync(sample.map()));
        let get = sample
            .get(&[&silent, &good])
            .args(["-j", "8", "--timeout", "1"]);
        let out = get.arg("-v").run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        assert_eq!(out.stderr.matches("give up").count(), 1, "{out}");
        assert!(silent.requests().len() <= 8, "{}", silent.requests().len());
    }
}

/// Of a server that is known to take runs: the one block that is wrong, and no other.
#[test]
fn only_what_is_wrong_in_a_run_is_asked_of_the_next() {
    let sample = Sample::new(80);
    let wrong = |n: usize| n % 7 == 3;
    let lies: BlockMap = blocks(&sample.bytes)
        .enumerate()
        .map(|(n, block)| {
            let sent = if wrong(n) {
                flipped(block)
            } else {
                block.to_vec()
            };
            (hash_hex(block), sent)
        })
        .collect();
    let due: Vec<_> = (0..81)
        .filter(|&n| wrong(n))
        .map(|n| sample.hash(n))
        .collect();
    for jobs in ["1", "8"] {
        let (liar, good) = (
            HostileServer::psync(lies.clone()),
            HostileServer::psync(sample.map()),
        );
        let out = sample.get(&[&liar, &good]).args(["-v", "-j", jobs]).run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        assert!(!out.stderr.contains("give up"), "{out}");
        let mut asked = good.asked();
        let mut expected = due.clone();
        if jobs != "1" {
            asked.sort();
            expected.sort();
        }
        assert_eq!(asked, expected, "-j {jobs}");
        assert_eq!(liar.asked().len(), 81, "-j {jobs}");
    }
    let liar = HostileServer::psync(lies);
    let out = sample.get(&[&liar]).run();
    sample.ends_before(3, out, &[&format!("{liar}: wrong bytes (4096)")]);
}

#[test]
fn a_server_that_lies_in_runs_is_given_up_after_three() {
    let sample = Sample::new(200);
    // From the first on: its way with runs is not believed, then nothing of it.
    let lies: BlockMap = sample
        .map()
        .into_iter()
        .map(|(hash, b)| (hash, flipped(&b)))
        .collect();
    let (liar, good) = (
        HostileServer::psync(lies.clone()),
        HostileServer::psync(sample.map()),
    );
    let out = sample.get(&[&liar, &good]).arg("-v").run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    let told = format!("psync: give up http://{liar}: wrong bytes (4096)\n");
    assert!(out.stderr.starts_with(&told), "{out}");
    assert_eq!((liar.runs().len(), liar.singles().len()), (1, 3));
    assert_eq!(good.asked(), hashes(&sample));
    // From the second run on.
    let (blocks, asked) = (sample.map(), AtomicUsize::new(0));
    let liar = HostileServer::http(move |request| match asked.fetch_add(1, SeqCst) {
        0 => Reply::psync(&blocks, request),
        _ => Reply::psync(&lies, request),
    });
    let (liar, good) = (liar.taking_runs(), HostileServer::psync(sample.map()));
    let out = sample.get(&[&liar, &good]).arg("-v").run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    let told = format!("psync: give up http://{liar}: wrong bytes (4096)\n");
    assert!(out.stderr.starts_with(&told), "{out}");
    assert_eq!((liar.runs().len(), liar.singles().len()), (2, 0));
    assert_eq!(good.asked(), hashes(&sample)[liar.runs()[0].len()..]);
}

/// Slow is not silent: each block comes within its time, all of them take several times as long.
fn a_run_may_take_longer_than_the_timeout() {
    let sample = Sample::new(15);
    let blocks = sample.map();
    let slow = HostileServer::start(move |conn, n| {
        while let Some(request) = conn.request() {
            let hashes = request.hashes();
            let body = frames(&blocks, &hashes);
            let pace = if n + request.nth == 0 { 500 } else { 0 };
            if !conn.send(Reply::begun(body.len(), "").bytes()) {
                return;
            }
            for hash in &hashes {
                let sent =
                    conn.pause(Duration::from_millis(pace)) && conn.send(frame(&blocks[hash]));
                if !sent {
                    return;
                }
            }
        }
    });
    let slow = slow.taking_runs();
    let out = suffices("slow", &sample, &slow, &["--timeout", "1.5"]);
    assert!(
        slow.singles().is_empty() && out.took > Duration::from_secs(3),
        "{out}"
    );
}

/// Its way with single requests is better: it is found out in a few rounds, and each is followed by
/// more single requests than the one before.
fn a_server_that_falls_silent_in_later_runs_is_asked_singly_in_the_end() {
    let meet = |jobs: &'static str, most: usize| {
        let sample = Sample::new(400);
        let (blocks, asked) = (sample.map(), AtomicUsize::new(0));
        let stalling = HostileServer::http(move |request| {
            let reply = Reply::psync(&blocks, request);
            if !request.is_run() || asked.fetch_add(1, SeqCst) == 0 {
                return reply;
            }
            let body = frames(&blocks, &request.run());
            Reply::begun(body.len(), &body[..body.len() / 2 + 7]).then_silence()
        });
        let stalling = stalling.taking_runs();
        let get = sample.get(&[&stalling]).args(["-j", jobs]);
        sample.is_whole(get.args(["--timeout", "1", "--retry", "2"]).run());
        let (runs, singles) = (stalling.runs().len(), stalling.singles().len());
        assert!(runs <= most, "-j {jobs}: {runs}");
        assert!((1..=401).contains(&singles), "-j {jobs}: {singles}");
    };
    thread::scope(|scope| {
        scope.spawn(move || meet("1", 4));
        scope.spawn(move || meet("8", 1 + 3 * 8));
    });
}

/// A server that goes away for a while in the midst of runs is asked for runs again.
fn outages_do_not_end_runs() {
    const BETWEEN: usize = 1_500;
    let sample = Sample::new(3 * BETWEEN);
    let (blocks, counts) = (sample.map(), Mutex::new((0, 0)));
    let server = HostileServer::http(move |request| {
        let (given, outages) = &mut *counts.lock().unwrap();
        let count = request.hashes().len();
        if (*given + count) / BETWEEN > *outages {
            *outages += 1;
            return Reply::raw("").then_silence();
        }
        *given += count;
        Reply::psync(&blocks, request)
    });
    let server = server.taking_runs();
    let get = sample
        .get(&[&server])
        .args(["--timeout", "1", "--retry", "2", "-v"]);
    let out = get.run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    assert_eq!(out.stderr.matches("give up").count(), 3, "{out}");
    let (runs, singles) = (server.runs().len(), server.singles().len());
    assert!(runs < 100 && singles <= 3 * 17, "{runs} and {singles}");
}

/// All at once: they wait, mostly.
#[test]
fn silence_costs_its_timeout_once() {
    thread::scope(|scope| {
        scope.spawn(a_server_that_falls_silent_in_later_runs_is_asked_singly_in_the_end);
        scope.spawn(outages_do_not_end_runs);
        scope.spawn(silence_after_the_frames_costs_its_timeout_once);
        scope.spawn(a_server_that_is_silent_to_runs_alone_is_asked_singly_in_the_end);
        scope.spawn(silence_in_a_run_costs_its_timeout_once);
        scope.spawn(silence_in_a_run_costs_eight_workers_its_timeout_once);
    });
}

#[test]
fn slow_answers_are_waited_for() {
    thread::scope(|scope| {
        scope.spawn(a_run_may_take_longer_than_the_timeout);
        scope.spawn(a_slow_line_takes_its_time_and_nothing_else);
        scope.spawn(runs_are_short_at_first_and_as_long_as_the_line_is_quick);
    });
}

// How long runs are.

/// Answers each run at the pace of so many milliseconds a block, from a run's number on.
fn paced(blocks: BlockMap, pace: fn(usize) -> u64) -> HostileServer {
    let asked = AtomicUsize::new(0);
    let server = HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let pace = Duration::from_millis(pace(asked.fetch_add(1, SeqCst)));
            let hashes = request.hashes();
            let sent = conn.send(Reply::begun(frames(&blocks, &hashes).len(), "").bytes())
                && hashes.iter().all(|hash| {
                    (pace.is_zero() || conn.pause(pace)) && conn.send(frame(&blocks[hash]))
                });
            if !sent {
                return;
            }
        }
    });
    server.taking_runs()
}

fn runs_are_short_at_first_and_as_long_as_the_line_is_quick() {
    let lengths = |lines: usize, pace: fn(usize) -> u64| {
        let sample = Sample::new(lines - 1);
        let server = paced(sample.map(), pace);
        suffices("paced", &sample, &server, &[]);
        server.runs().iter().map(Vec::len).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let quick = lengths(1000, |_| 0);
            assert!(quick[0] <= FIRST, "{quick:?}");
            assert!(quick.iter().max() >= Some(&128), "{quick:?}");
            assert!(quick.len() <= 20, "{quick:?}");
        });
        scope.spawn(|| {
            let slow = lengths(30, |_| 100);
            assert!(slow.iter().all(|&length| length <= FIRST), "{slow:?}");
        });
        scope.spawn(|| {
            // Long by the third, which then takes more than a second.
            let turning = lengths(300, |nth| if nth < 2 { 0 } else { 12 });
            assert!(turning[2] > FIRST, "{turning:?}");
            let rest = turning[3..].iter().max().unwrap();
            assert!(2 * rest <= turning[2], "{turning:?}");
        });
    });
}

/// One that has nothing says so quickly, whatever it is asked for.
#[test]
fn an_empty_server_listed_first_does_not_keep_runs_short() {
    let sample = Sample::new(1599);
    for jobs in ["1", "8"] {
        let (empty, full) = (
            HostileServer::psync(BlockMap::new()),
            HostileServer::psync(sample.map()),
        );
        sample.is_whole(sample.get(&[&empty, &full]).args(["-j", jobs]).run());
        assert_eq!(full.asked().len(), 1600, "each block once");
        for (name, server) in [("empty", &empty), ("full", &full)] {
            let requests = server.requests().len();
            assert!(requests <= 1600 / 20, "-j {jobs}, {name}: {requests}");
        }
    }
}

/// A modem's line. One that gave the timeout to a whole run, or asked for all at once, would fail.
fn a_slow_line_takes_its_time_and_nothing_else() {
    let sample = Sample::new(11);
    let server = HostileServer::psync(sample.map());
    let relay = Relay::start(server.addr(), Duration::from_millis(200), 64_000);
    let get = sample.get(&[&relay]).args(["--timeout", "3", "--stats"]);
    let out = get.run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    assert_eq!(out.stat("missing"), 0);
    assert!(server.runs().iter().all(|run| run.len() <= FIRST));
    // Nothing came twice: bodies, and some bytes of a head for each request.
    let heads = 400 * out.stat("requests");
    assert!(
        relay.bytes_down() <= out.stat("bytes") + heads,
        "{}",
        relay.bytes_down()
    );
    assert_eq!(server.asked(), hashes(&sample));
}

#[test]
#[ignore = "forty seconds on a line of 64 kbit/s"]
fn slow_256_kib_come_over_a_modem() {
    let sample = Sample::new(63);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    let server = Server::start(sample.dir.join("blocks"));
    for jobs in ["1", "8"] {
        let relay = Relay::start(server.addr(), Duration::from_millis(200), 64_000);
        let get = sample.get(&[&relay]).args(["--timeout", "10", "-j", jobs]);
        let out = get.limit(Duration::from_secs(300)).run();
        assert!(
            relay.bytes_down() < 280_000,
            "-j {jobs}: {}",
            relay.bytes_down()
        );
        sample.is_whole(out);
    }
}

/// What changed, and little more: 1.05 of it in both directions together.
#[test]
fn an_update_costs_what_changed() {
    let sample = Sample::new(5000);
    let mut old = sample.bytes.clone();
    let changed: Vec<_> = (0..50).map(|n| n * 100 + n * n % 97).collect();
    for &n in &changed {
        old[n * BLOCK_SIZE + n % BLOCK_SIZE] ^= 1;
    }
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    for jobs in ["1", "8"] {
        let server = Server::start(sample.dir.join("blocks"));
        let relay = Relay::start(server.addr(), Duration::from_millis(5), 50_000_000);
        let file = sample.dir.file("file", &old);
        let get = sample.get(&[&relay]).args(["-j", jobs, "--stats", "-o"]);
        let out = get.arg(&file).run();
        assert!(
            out.status == 0 && fs::read(&file).unwrap() == sample.bytes,
            "{out}"
        );
        assert_eq!((out.stat("fetched"), out.stat("local")), (50, 4951));
        let (up, down) = (relay.bytes_up(), relay.bytes_down());
        let most = 50 * 4096 * 105 / 100;
        assert!(
            up + down <= most,
            "-j {jobs}: {up} and {down}, not {most}: {out}"
        );
    }
}

// What comes out.

/// Blocks that are missing here and there, the same again and again, zeros, and a short last one.
fn patchwork() -> Sample {
    let (plain, zeros) = (random(400 * BLOCK_SIZE, 77), [0; BLOCK_SIZE]);
    let mut bytes = Vec::new();
    for n in 0..400 {
        let block = match n % 10 {
            3 => &plain[..BLOCK_SIZE],
            5 | 6 => &zeros,
            _ => &plain[n * BLOCK_SIZE..][..BLOCK_SIZE],
        };
        bytes.extend_from_slice(block);
    }
    bytes.extend_from_slice(b"the end");
    let dir = TempDir::new();
    let list = dir.file("list", hashlist(&bytes));
    Sample { bytes, dir, list }
}

#[test]
fn a_stream_is_in_order_whatever_is_missing_where() {
    let sample = patchwork();
    let servers = || {
        [
            HostileServer::psync(sample.having(|n| n % 2 == 1)),
            HostileServer::psync(sample.having(|n| n / 16 % 2 == 0)),
            sample.honest(),
            HostileServer::psync(sample.map()),
        ]
    };
    let seed = sample
        .dir
        .file("seed", &sample.bytes[100 * BLOCK_SIZE..150 * BLOCK_SIZE]);
    let dir = sample.dir.join("some");
    write_blocks(&dir, &sample.bytes[200 * BLOCK_SIZE..230 * BLOCK_SIZE]);
    for jobs in ["1", "3", "8", "64"] {
        for more in [&[][..], &["--spread"], &["--at-hand"]] {
            let servers = servers();
            let servers: Vec<_> = servers
                .iter()
                .map(|server| server as &dyn Display)
                .collect();
            let get = || {
                let get = sample.get(&servers).args(["-j", jobs]);
                match more {
                    ["--at-hand"] => get.arg("--seed").arg(&seed).arg("-d").arg(&dir),
                    _ => get.args(more),
                }
            };
            sample.is_whole(get().run());
            let file = sample.dir.join("file");
            get().arg("-o").arg(&file).run().ok();
            assert!(fs::read(&file).unwrap() == sample.bytes);
            fs::remove_file(&file).unwrap();
        }
    }
}

#[test]
fn servers_complete_each_other_by_runs() {
    let sample = Sample::new(199);
    let (odd, even) = (
        HostileServer::psync(sample.having(|n| n % 2 == 1)),
        HostileServer::psync(sample.having(|n| n % 2 == 0)),
    );
    sample.is_whole(sample.get(&[&odd, &even]).run());
    assert_eq!(odd.asked(), hashes(&sample));
    let evens: Vec<_> = (0..200).step_by(2).map(|n| sample.hash(n)).collect();
    assert_eq!(even.asked(), evens);
    assert!(even.requests().len() <= 2 * odd.requests().len());
    // Nobody has the tenth.
    let lacking = || HostileServer::psync(sample.having(|n| n != 10));
    let (a, b) = (lacking(), lacking());
    // One block is asked for by itself.
    let reasons = [
        format!("{a}: it has not got it"),
        format!("{b}: HTTP 404 Not Found"),
    ];
    sample.ends_before(10, sample.get(&[&a, &b]).run(), &[&reasons[0], &reasons[1]]);
    assert_eq!(b.asked(), [sample.hash(10)]);
}

#[test]
fn lists_that_come_line_by_line_are_resolved_as_they_come() {
    let sample = Sample::new(60);
    let good = HostileServer::psync(sample.map());
    for jobs in ["1", "8"] {
        let mut get = psync!("get", "-j", jobs, good.url(), "-")
            .stdin_from(Stdio::piped())
            .start();
        let mut list = get.stdin.take().unwrap();
        let mut written = 0;
        for batch in [1, 1, 2, 7, 1, 20] {
            let batch: String = (written..written + batch)
                .map(|n| sample.hash(n) + "\n")
                .collect();
            list.write_all(batch.as_bytes()).unwrap();
            written += batch.lines().count();
            get.wait_stdout(|out| out.len() == written * BLOCK_SIZE);
        }
        let rest: String = (written..61).map(|n| sample.hash(n) + "\n").collect();
        list.write_all(rest.as_bytes()).unwrap();
        drop(list);
        sample.is_whole(get.wait());
    }
}

#[test]
fn what_a_killed_one_wrote_is_not_asked_for_again() {
    let sample = Sample::new(600);
    for jobs in ["1", "8"] {
        let (blocks, given) = (sample.map(), AtomicUsize::new(0));
        let stalling = HostileServer::http(move |request| {
            let run = request.hashes();
            let body = frames(&blocks, &run);
            if given.fetch_add(run.len(), SeqCst) < 250 {
                Reply::psync(&blocks, request)
            } else {
                // Some more of it, in the middle of a block.
                Reply::begun(body.len(), &body[..body.len() / 2]).then_silence()
            }
        });
        let stalling = stalling.taking_runs();
        let file = sample.dir.join(format!("file{jobs}"));
        let part = sample.dir.join(format!("file{jobs}.part"));
        let first = psync!(
            "get",
            "-j",
            jobs,
            "--timeout",
            "60",
            "-o",
            &file,
            stalling.url(),
            &sample.list
        );
        let first = first.start();
        let right = || {
            let bytes = fs::read(&part).unwrap_or_default();
            let pairs = bytes.chunks(BLOCK_SIZE).zip(blocks_of(&sample));
            let right = pairs.filter(|(have, (_, due))| have == due);
            right.map(|(_, (n, _))| n).collect::<BTreeSet<_>>()
        };
        wait_until("most is written", || right().len() >= 200);
        assert_eq!(first.kill().status, 137);
        let right = right();
        let good = HostileServer::psync(sample.map());
        let again = psync!("get", "-j", jobs, "-o", &file, good.url(), &sample.list);
        again.run().ok();
        assert!(fs::read(&file).unwrap() == sample.bytes && !part.exists());
        let asked: BTreeSet<_> = good.asked().into_iter().collect();
        let due = blocks_of(&sample).filter(|(n, _)| !right.contains(n));
        let due: BTreeSet<_> = due.map(|(_, block)| hash_hex(block)).collect();
        assert!(asked == due && good.asked().len() == due.len(), "-j {jobs}");
    }
}

fn blocks_of(sample: &Sample) -> impl Iterator<Item = (usize, &[u8])> {
    blocks(&sample.bytes).enumerate()
}

#[test]
fn what_comes_in_runs_is_kept() {
    let sample = patchwork();
    for jobs in ["1", "8"] {
        let dir = sample.dir.join(format!("kept{jobs}"));
        let broken = sample.having(|n| n % 50 != 7);
        let (first, good) = (
            HostileServer::psync(broken),
            HostileServer::psync(sample.map()),
        );
        let get = sample
            .get(&[&first, &good])
            .args(["-j", jobs, "-k", "-d"])
            .arg(&dir);
        sample.is_whole(get.run());
        // Zeros need not be fetched.
        let zeros = hash_hex(&[0; BLOCK_SIZE]) + "\n";
        assert_stored(&dir, &hashlist(&sample.bytes).replace(&zeros, ""));
        assert!(strangers(&dir).is_empty());
        // A second one needs nobody.
        let get = sample.get(&[&first]).args(["-j", jobs, "-d"]).arg(&dir);
        let before = first.requests().len();
        sample.is_whole(get.run());
        assert_eq!(first.requests().len(), before);
    }
}

// What it takes.

#[test]
fn runs_need_little_memory() {
    let dir = TempDir::new();
    let list = long_list(&dir, 16_384);
    let server = Server::start(dir.join("blocks"));
    for jobs in ["1", "8", "64"] {
        let peak = peak_of(psync!("get", "-j", jobs, server.url(), &list));
        assert!(peak < 24 * 1024, "-j {jobs}: {peak} KiB");
        let file = dir.join("file");
        let peak = peak_of(psync!("get", "-j", jobs, "-o", &file, server.url(), &list));
        assert!(peak < 24 * 1024, "-j {jobs}, -o: {peak} KiB");
        assert_eq!(fs::metadata(&file).unwrap().len(), 16_384 * 4096);
        fs::remove_file(&file).unwrap();
    }
}

/// A window, whatever the list; and it ends when the reader does.
#[test]
fn a_reader_that_does_not_read_holds_up_the_runs() {
    let dir = TempDir::new();
    let list = long_list(&dir, 40_000);
    let map = block_map(&random(4 * BLOCK_SIZE, 8));
    for jobs in ["1", "8", "64"] {
        let good = HostileServer::psync(map.clone());
        let (reader, writer) = std::io::pipe().unwrap();
        let get = psync!("get", "-j", jobs, good.url(), &list)
            .stdout_to(writer)
            .start();
        good.settled();
        let (asked, peak) = (good.asked().len(), peak_kib(get.pid()));
        assert!(asked <= 6000, "-j {jobs}: {asked}");
        assert!(peak < 24 * 1024, "-j {jobs}: {peak} KiB");
        drop(reader);
        assert_eq!(get.wait().status, 1);
    }
}
