//! Servers over a whole run of `get`: how often each is connected to and asked, what a missing block, a
//! closed connection, a redirect or a dead server costs, and the ways to write a SERVER.

use std::fmt::Display;
use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::support::*;

/// A server that closes, in one way or another, the connection that request `nth` comes on,
/// before it is answered.
fn closes_at(sample: &Sample, nth: usize, reset: bool) -> HostileServer {
    let blocks = sample.map();
    HostileServer::http(move |request| match (request.nth == nth, reset) {
        (false, _) => Reply::honest(&blocks, request),
        (true, true) => Reply::raw("").then_reset(),
        (true, false) => Reply::raw("").then_close(),
    })
}

/// Half of the blocks: the even ones from 0, the odd ones from 1.
fn every_second(sample: &Sample, from: usize) -> HostileServer {
    let mine = sample.having(|n| n % 2 == from);
    HostileServer::http(move |request| Reply::honest(&mine, request))
}

#[test]
fn a_missing_block_is_no_failure_and_costs_no_connection() {
    let page = "<html>nothing here</html>".repeat(40);
    for status in [404, 403, 410] {
        let chunked = format!(
            "HTTP/1.1 {status} Nothing\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{page}\r\n0\r\n\r\n",
            page.len()
        );
        for answer in [
            Reply::status(status, ""),
            Reply::status(status, &page),
            Reply::raw(chunked),
        ] {
            let sample = Sample::new(9);
            let lacking = HostileServer::http(move |_| answer.clone());
            let good = sample.honest();
            sample.is_whole(sample.get(&[&lacking, &good]).run());
            assert_eq!(
                (lacking.connections(), lacking.requests().len()),
                (1, 10),
                "{status}"
            );
            assert_eq!(
                (good.connections(), good.requests().len()),
                (1, 10),
                "{status}"
            );
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let sample = Sample::new(0);
    let elsewhere = sample.honest();
    let hash = sample.hash(0);
    let targets = [
        format!("{}/{hash}", elsewhere.url()),
        format!("//{elsewhere}/{hash}"),
        format!("https://{elsewhere}/{hash}"),
        format!("/{hash}"),
        format!("file://{}/list", sample.dir.display()),
        String::new(),
    ];
    for status in [301, 302, 303, 307, 308] {
        for target in &targets {
            let location = format!("Location: {target}");
            let redirecting = HostileServer::http(move |_| Reply::with(status, &[&location], ""));
            let out = sample.get(&[&redirecting]).run();
            let told = format!("ask {}: HTTP {status}", redirecting.url());
            out.fails_naming(3, &[&told]);
            assert_eq!(redirecting.requests().len(), 1, "{status} {target}");
        }
    }
    assert_eq!(elsewhere.connections(), 0);
    let redirecting = HostileServer::http(|_| Reply::with(302, &["Location: /"], ""));
    sample.is_whole(sample.get(&[&redirecting, &sample.honest()]).run());
}

#[test]
fn a_connection_that_the_server_closed_loses_no_block() {
    for (nth, reset, whole, connections) in [
        (1, false, 9, 10),
        (1, true, 9, 10),
        (2, true, 9, 5),
        (100, false, 249, 3),
        (100, true, 249, 3),
    ] {
        let sample = Sample::new(whole);
        let lone = closes_at(&sample, nth, reset);
        sample.is_whole(sample.get(&[&lone]).run());
        assert_eq!(
            lone.connections(),
            connections,
            "at request {nth}, by a reset: {reset}"
        );
    }
    // Announced or not, right after the answer.
    for announced in [&["Connection: close"][..], &[]] {
        let sample = Sample::new(249);
        let blocks = sample.map();
        let lone = HostileServer::http(move |request| match request.nth {
            99 => Reply::with(200, announced, &blocks[request.hash()]).then_close(),
            _ => Reply::honest(&blocks, request),
        });
        sample.is_whole(sample.get(&[&lone]).run());
        assert_eq!((lone.connections(), lone.requests().len()), (3, 250));
    }
}

/// One that also hangs up on a fresh connection is at fault: asked twice, no third time.
#[test]
fn a_server_that_always_hangs_up_is_asked_on_one_fresh_connection_more() {
    let sample = Sample::new(0);
    let rude = closes_at(&sample, 0, false);
    let reason = format!("{rude}: it hung up without an answer");
    sample.ends_before(0, sample.get(&[&rude]).run(), &[&reason]);
    assert_eq!(rude.connections(), 2);
}

#[test]
fn a_server_that_dies_half_way_is_replaced_by_the_next() {
    let sample = Sample::new(3);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    let good = sample.honest();
    for second in [None, Some(good.to_string())] {
        let dying = Server::start(sample.dir.join("blocks"));
        let addr = dying.to_string();
        let mut get = psync!("get", &addr)
            .args(&second)
            .arg("-")
            .stdin_from(Stdio::piped())
            .start();
        let mut list = get.stdin.take().unwrap();
        writeln!(list, "{}", sample.hash(0)).unwrap();
        get.wait_stdout(|out| out.len() == BLOCK_SIZE);
        dying.stop();
        for n in 1..4 {
            // Of the lone one, `get` may have despaired already.
            let _ = writeln!(list, "{}", sample.hash(n));
        }
        drop(list);
        let out = get.wait();
        if second.is_some() {
            sample.is_whole(out);
        } else {
            let out = out.fails_naming(
                3,
                &[&format!("psync: ask http://{addr}: Connection refused")],
            );
            assert!(out.stdout == sample.bytes[..BLOCK_SIZE]);
        }
    }
}

#[test]
fn servers_complete_each_other() {
    let sample = Sample::new(199);
    let (even, odd) = (every_second(&sample, 0), every_second(&sample, 1));
    sample.is_whole(sample.get(&[&odd, &even]).run());
    assert_eq!((odd.connections(), odd.requests().len()), (1, 200));
    assert_eq!((even.connections(), even.requests().len()), (1, 100));
}

#[test]
fn the_file_ends_before_the_block_that_every_server_lacks() {
    let sample = Sample::new(5);
    for k in [0, 2, 5] {
        let lacking = || {
            let mut blocks = sample.map();
            blocks.remove(&sample.hash(k));
            HostileServer::http(move |request| Reply::honest(&blocks, request))
        };
        let (a, b) = (lacking(), lacking());
        let reasons = [&a, &b].map(|server| format!("{server}: HTTP 404 Not Found"));
        sample.ends_before(k, sample.get(&[&a, &b]).run(), &[&reasons[0], &reasons[1]]);
        // The first may have been asked for some of what follows already.
        assert!(a.requests().len() > k && b.requests().len() == 1);
    }
}

#[test]
fn a_dead_server_costs_its_timeout_once_whatever_the_number_of_blocks() {
    let sample = Sample::new(199);
    let blocks = sample.map();
    // Counts also what it answers with 405, as psync does.
    let good = HostileServer::http(move |request| Reply::honest(&blocks, request)).taking_runs();
    let silent = HostileServer::http(|_| Reply::raw("").then_silence());
    let get = sample.get(&[&silent, &good]).args(["--timeout", "2"]);
    sample.is_whole(get.run());
    assert_eq!((silent.connections(), silent.requests().len()), (1, 1));
    for (dead, why) in [
        (
            Box::new(Refusing::new()) as Box<dyn Display>,
            "Connection refused",
        ),
        (Box::new(Deaf::new()), "no connection within 0.3 s"),
        (Box::new("no.such.host.invalid"), ""),
    ] {
        let before = good.requests().len();
        let get = sample.get(&[&dead, &good]).args(["-v", "--stats"]);
        let out = get.args(["--connect-timeout", "0.3"]).run();
        let whole = out.status == 0 && out.stdout == sample.bytes;
        let told = format!("psync: give up http://{dead}: {why}");
        let once = out.stderr.starts_with(&told) && out.stderr.lines().count() == 3;
        assert!(whole && once, "{out}");
        // All requests but one came to the good one.
        let of_good = good.requests().len() - before;
        assert_eq!(out.stat("requests") as usize - of_good, 1, "{dead}");
    }
}

#[test]
fn a_lying_server_is_asked_three_times() {
    let sample = Sample::new(199);
    for lie in [
        Reply::ok([0; BLOCK_SIZE]),
        Reply::status(500, "sorry"),
        Reply::raw("lie\r\n\r\n").then_close(),
    ] {
        let (liar, good) = (HostileServer::http(move |_| lie.clone()), sample.honest());
        sample.is_whole(sample.get(&[&liar, &good]).run());
        assert_eq!((liar.requests().len(), good.requests().len()), (3, 200));
    }
}

/// Three in a row are too many; with a right answer between them, any number is not.
#[test]
fn a_server_that_is_mostly_right_is_kept() {
    let sample = Sample::new(29);
    let blocks = sample.map();
    let (flaky, good) = (
        HostileServer::http(move |request| match request.nth % 3 {
            2 => Reply::honest(&blocks, request),
            _ => Reply::ok("oops"),
        }),
        sample.honest(),
    );
    sample.is_whole(sample.get(&[&flaky, &good]).run());
    assert_eq!((flaky.requests().len(), good.requests().len()), (30, 20));
}

#[test]
fn a_server_listed_twice_is_asked_once() {
    let sample = Sample::new(0);
    let lacking = HostileServer::http(|_| Reply::status(404, ""));
    let (url, slash) = (lacking.url(), lacking.url() + "/");
    let reason = format!("{lacking}: HTTP 404 Not Found");
    let out = sample.get(&[&lacking, &url, &slash, &lacking]).run();
    sample.ends_before(0, out, &[&reason]);
    assert_eq!(lacking.requests().len(), 1);
}

#[test]
fn a_server_is_written_in_several_ways() {
    let sample = Sample::new(1);
    let good = sample.honest();
    let port = good.addr().port();
    for (server, target) in [
        (format!("127.0.0.1:{port}"), ""),
        (format!("http://127.0.0.1:{port}"), ""),
        (format!("http://127.0.0.1:{port}/"), ""),
        (format!("HTTP://127.0.0.1:{port}///"), ""),
        (format!("http://127.0.0.1:{port}/a/b"), "/a/b"),
        (format!("http://127.0.0.1:{port}/A%20b/"), "/A%20b"),
        // Resolves to ::1 as well on most machines, where nobody listens.
        (format!("localhost:{port}"), ""),
        (format!("LOCALHOST:{port}"), ""),
    ] {
        let before = good.requests().len();
        sample.is_whole(sample.get(&[&server]).run());
        let asked = [0, 1].map(|n| format!("{target}/{}", sample.hash(n)));
        assert_eq!(good.targets()[before..], asked, "{server}");
    }
}

#[test]
fn ipv6_will_do() {
    if TcpListener::bind("[::1]:0").is_err() {
        skip!("this machine has no IPv6");
    }
    let sample = Sample::new(3);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    let server = Server::of(psync!("server", "-d", sample.dir.join("blocks"), "[::1]:0"));
    assert!(server.addr().is_ipv6());
    sample.is_whole(sample.get(&[&server]).run());
    sample.is_whole(sample.get(&[&server.url()]).run());
}

/// No compression is asked for, since what is unpacked has no bound; and nothing tells who asks.
#[test]
fn a_request_says_no_more_than_it_must() {
    let sample = Sample::new(0);
    let good = sample.honest();
    sample.is_whole(sample.get(&[&good]).run());
    let request = good.requests().remove(0);
    let mut lines: Vec<_> = request
        .head
        .trim_end()
        .lines()
        .map(str::to_lowercase)
        .collect();
    lines[1..].sort();
    let expected = [
        format!("get /{} http/1.1", sample.hash(0)),
        format!("host: {good}"),
        format!("user-agent: psync/{}", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(lines, expected);
}

/// Four requests would take four timeouts if each byte, or each line, began a new one.
#[test]
fn what_answers_in_time_is_waited_for() {
    let sample = Sample::new(3);
    let blocks = sample.map();
    let slow = HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let reply = Reply::honest(&blocks, &request);
            let (first, rest) = reply.bytes().split_at(10);
            if !(conn.send(first) && conn.pause(Duration::from_millis(200)) && conn.send(rest)) {
                return;
            }
        }
    });
    sample.is_whole(sample.get(&[&slow]).args(["--timeout", "10"]).run());
}

/// The page that goes with a status is nothing to wait for, block after block.
#[test]
fn a_server_that_falls_silent_in_a_page_costs_its_timeout_once() {
    const PACE: Duration = Duration::from_millis(100);
    let meet = |name: String, answer: Reply| {
        let sample = Sample::new(9);
        let (bad, good) = (
            HostileServer::http(move |_| answer.clone()),
            sample.honest(),
        );
        let get = sample.get(&[&bad, &good]).args(["--timeout", "2"]);
        sample.is_whole(get.run());
        (bad.requests().len() > 1).then(|| format!("{name}: {} times", bad.requests().len()))
    };
    let mut bad = Vec::new();
    for status in ["404 Not Found", "500 Internal Server Error", "302 Found"] {
        for length in ["Content-Length: 100\r\n", ""] {
            let head = Reply::raw(format!("HTTP/1.1 {status}\r\n{length}\r\n<html>"));
            let slow = head.clone().then_forever("x").paced_from_here(PACE);
            bad.push((format!("{status}, {length:?}, silent"), head.then_silence()));
            bad.push((format!("{status}, {length:?}, slow"), slow));
        }
    }
    let asked_again: Vec<String> = thread::scope(|scope| {
        let meet = |(name, answer)| scope.spawn(move || meet(name, answer));
        let met: Vec<_> = bad.into_iter().map(meet).collect();
        met.into_iter()
            .filter_map(|met| met.join().unwrap())
            .collect()
    });
    assert_eq!(asked_again, [""; 0]);
}

/// A page longer than a head of sixteen KiB may cost its connection, and no more.
#[test]
fn a_long_page_is_no_failure() {
    let sample = Sample::new(9);
    let (wordy, good) = (
        HostileServer::http(|_| Reply::status(404, [b'x'; 200_000])),
        sample.honest(),
    );
    sample.is_whole(sample.get(&[&wordy, &good]).run());
    assert_eq!((wordy.requests().len(), good.requests().len()), (10, 10));
}

/// However many servers lack a block, each is asked on the connection that it keeps.
#[test]
fn a_dozen_servers_keep_their_connections() {
    let sample = Sample::new(20);
    let lacking: Vec<_> = (0..12)
        .map(|_| HostileServer::http(|_| Reply::status(404, "no\n")))
        .collect();
    let good = sample.honest();
    let mut servers: Vec<&dyn Display> = lacking.iter().map(|server| server as _).collect();
    servers.push(&good);
    sample.is_whole(sample.get(&servers).run());
    for server in lacking.iter().chain([&good]) {
        assert_eq!((server.connections(), server.requests().len()), (1, 21));
    }
}
