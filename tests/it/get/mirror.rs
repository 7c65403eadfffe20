//! Mirrors (`-m`): plain copies of the whole file, read by byte ranges, when no server gives a block.
//! What is asked of them, and how little it matters when they answer in another way.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::support::*;

/// What is answered to a request for a part of this file.
pub type Answer = fn(&[u8], &Request) -> Reply;

/// The first byte that is asked for, and the one after the last; fails unless that is one range, of
/// whole blocks.
#[track_caller]
fn range(request: &Request) -> (usize, Option<usize>) {
    let value = request.header("Range").unwrap_or_default();
    let ends = value
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'));
    let (first, last) = ends.unwrap_or_else(|| panic!("{}", request.head));
    let first: usize = first.parse().unwrap();
    let end = (!last.is_empty()).then(|| last.parse::<usize>().unwrap() + 1);
    let is_whole = |byte: usize| byte.is_multiple_of(BLOCK_SIZE);
    let plain = request.method == "GET"
        && is_whole(first)
        && end.is_none_or(|end| is_whole(end) && end > first);
    let once = request.head.to_lowercase().matches("\r\nrange:").count() == 1;
    assert!(plain && once, "{}", request.head);
    (first, end)
}

/// The numbers of the blocks that these requests ask for.
#[track_caller]
pub fn asked_blocks(server: &HostileServer) -> Vec<usize> {
    let requests = server.requests();
    let blocks = requests.iter().flat_map(|request| {
        let (first, end) = range(request);
        first / BLOCK_SIZE..end.unwrap() / BLOCK_SIZE
    });
    blocks.collect()
}

/// A 206 with what is there of bytes `first` to `end`, a 416 where nothing is.
fn part(file: &[u8], first: usize, end: usize) -> Reply {
    let (of, end) = (file.len(), end.min(file.len()));
    if first >= end {
        return Reply::with(416, &[&format!("Content-Range: bytes */{of}")], "");
    }
    let field = format!("Content-Range: bytes {first}-{}/{of}", end - 1);
    Reply::with(206, &[&field], &file[first..end])
}

/// What a web server answers.
pub fn honest(file: &[u8], request: &Request) -> Reply {
    let (first, end) = range(request);
    part(file, first, end.unwrap_or(file.len()))
}

/// As that, but at most so many bytes.
fn capped(file: &[u8], request: &Request, most: usize) -> Reply {
    let (first, end) = range(request);
    part(file, first, end.unwrap_or(file.len()).min(first + most))
}

/// All of it, whatever was asked for.
fn whole(file: &[u8], request: &Request) -> Reply {
    range(request);
    Reply::ok(file)
}

pub fn mirror(file: &[u8], answer: Answer) -> HostileServer {
    let file = file.to_vec();
    HostileServer::http(move |request| answer(&file, request))
}

/// `get` with these mirrors of the file.
fn get(sample: &Sample, servers: &[&dyn Display], mirrors: &[&HostileServer]) -> Run {
    let urls = mirrors.iter().map(|mirror| mirror.url() + "/dir/file");
    sample
        .get(servers)
        .args(urls.flat_map(|url| ["-m".to_owned(), url]))
}

fn changed(bytes: &[u8], blocks: &[usize]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for n in blocks {
        bytes[n * BLOCK_SIZE] ^= 1;
    }
    bytes
}

/// All blocks but these.
fn lacking(sample: &Sample, lacks: impl Fn(usize) -> bool) -> BlockMap {
    sample.having(|n| !lacks(n))
}

/// Exit 3, and nothing wrong in what there is.
#[track_caller]
fn is_cut(name: &str, sample: &Sample, out: &Output) {
    let right = out.status == 3 && sample.bytes.starts_with(&out.stdout);
    assert!(
        right && out.stdout.len() < sample.bytes.len(),
        "{name}: {out}"
    );
}

// What is asked.

#[test]
fn a_mirror_alone_will_do() {
    let sample = Sample::new(400);
    for jobs in ["1", "8", "64"] {
        let good = mirror(&sample.bytes, honest);
        let out = get(&sample, &[], &[&good])
            .args(["-j", jobs, "--stats"])
            .run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        // Each block once, and neighbours together.
        let mut asked = asked_blocks(&good);
        asked.sort_unstable();
        assert!(asked.into_iter().eq(0..401), "-j {jobs}");
        let requests = good.requests().len();
        assert!(requests <= 200, "-j {jobs}: {requests}");
        assert_eq!(out.stat("requests"), requests as u64);
        assert_eq!(out.stat("bytes"), sample.bytes.len() as u64);
        let file = sample.dir.join("file");
        get(&sample, &[], &[&good])
            .args(["-j", jobs, "-o"])
            .arg(&file)
            .run()
            .ok();
        assert!(fs::read(&file).unwrap() == sample.bytes);
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn one_job_asks_a_mirror_in_few_requests() {
    let sample = Sample::new(999);
    let good = mirror(&sample.bytes, honest);
    sample.is_whole(get(&sample, &[], &[&good]).run());
    assert!(
        good.requests().len() <= 1000 / 20,
        "{}",
        good.requests().len()
    );
    assert_eq!(good.connections(), 1);
}

#[test]
fn a_request_to_a_mirror_says_no_more_than_it_must() {
    let sample = Sample::new(0);
    let good = mirror(&sample.bytes, honest);
    for (url, target) in [
        ("/file", "/file"),
        ("/", "/"),
        ("/dir/file?version=7&x=%20", "/dir/file?version=7&x=%20"),
        ("/?", "/?"),
    ] {
        let before = good.requests().len();
        let url = good.url() + url;
        sample.is_whole(sample.get(&[]).args(["-m", &url]).run());
        let requests = good.requests().split_off(before);
        let lines = requests[0].head.trim_end().lines().map(str::to_owned);
        let mut lines: Vec<_> = lines.map(|line| line.replace("GET ", "get ")).collect();
        assert_eq!(lines.remove(0), format!("get {target} HTTP/1.1"));
        let mut lines: Vec<_> = lines.iter().map(|line| line.to_lowercase()).collect();
        lines.sort();
        let expected = [
            format!("host: {good}"),
            "range: bytes=0-4095".to_owned(),
            format!("user-agent: psync/{}", env!("CARGO_PKG_VERSION")),
        ];
        assert_eq!(lines, expected, "{target}");
    }
}

#[test]
fn a_mirror_is_asked_for_what_no_server_gives_and_nothing_else() {
    let sample = Sample::new(300);
    let lacks = |n: usize| n.is_multiple_of(50) || (100..130).contains(&n) || n == 300;
    let due: Vec<_> = (0..301).filter(|&n| lacks(n)).collect();
    for jobs in ["1", "8"] {
        for takes_runs in [false, true] {
            let some = lacking(&sample, lacks);
            let server = HostileServer::http(move |request| Reply::psync(&some, request));
            let server = if takes_runs {
                server.taking_runs()
            } else {
                server
            };
            let good = mirror(&sample.bytes, honest);
            sample.is_whole(get(&sample, &[&server], &[&good]).args(["-j", jobs]).run());
            let mut asked = asked_blocks(&good);
            asked.sort_unstable();
            assert_eq!(asked, due, "-j {jobs}");
            // None where a server has it all.
            let good = mirror(&sample.bytes, honest);
            let all = HostileServer::psync(sample.map());
            sample.is_whole(
                get(&sample, &[&server, &all], &[&good])
                    .args(["-j", jobs])
                    .run(),
            );
            assert_eq!(good.connections(), 0);
        }
    }
    let good = mirror(&sample.bytes, honest);
    sample.is_whole(get(&sample, &[&Refusing::new()], &[&good]).run());
    assert_eq!(asked_blocks(&good).len(), 301);
}

#[test]
fn several_mirrors_complete_each_other_in_order() {
    let sample = Sample::new(60);
    let first = mirror(&changed(&sample.bytes, &[3, 30, 31, 32]), honest);
    let second = mirror(&changed(&sample.bytes, &[30, 40]), honest);
    let (third, fourth) = (mirror(&sample.bytes, honest), mirror(&sample.bytes, honest));
    sample.is_whole(get(&sample, &[], &[&first, &second, &third, &fourth]).run());
    assert_eq!(asked_blocks(&first).len(), 61);
    assert_eq!(asked_blocks(&second), [3, 30, 31, 32]);
    assert_eq!(asked_blocks(&third), [30]);
    assert_eq!(fourth.connections(), 0);
}

#[test]
fn a_mirror_listed_twice_is_asked_once() {
    let sample = Sample::new(0);
    let lacking = mirror(&[], |_, _| Reply::status(404, ""));
    let other = mirror(&sample.bytes, honest);
    is_cut(
        "twice",
        &sample,
        &get(&sample, &[], &[&lacking, &lacking]).run(),
    );
    assert_eq!(lacking.requests().len(), 1);
    for mirrors in [[&lacking, &other, &lacking], [&lacking, &lacking, &other]] {
        sample.is_whole(get(&sample, &[], &mirrors).run());
    }
    assert_eq!(lacking.requests().len(), 3);
}

#[test]
fn a_mirror_that_is_none_is_a_usage_error() {
    let sample = Sample::new(0);
    for url in [
        "",
        "host",
        "host/file",
        "http://host",
        "ftp://host/file",
        "http://host/a b",
        "http:///file",
        "http://h:0/f",
        "file:///etc/passwd",
    ] {
        let out = sample.get(&[]).arg(format!("--mirror={url}")).run();
        let told = out.stderr.lines().count() == 1 && out.stderr.contains("--help");
        assert!(
            out.status == 2 && told && out.stderr.contains(url),
            "{url}: {out}"
        );
    }
    let out = psync!("get", &sample.list, "-m").run();
    assert_eq!(out.status, 2, "{out}");
    let out = sample
        .get(&[])
        .args(["-m", "https://127.0.0.1:1/file"])
        .run();
    assert_eq!(
        out.status,
        if cfg!(feature = "tls") { 3 } else { 2 },
        "{out}"
    );
}

// Mirrors that answer in another way.

#[test]
fn one_that_ignores_ranges_is_read_about_once() {
    let forms: [(&str, Answer); 4] = [
        ("with a length", whole),
        ("in chunks", |file, _| {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            Reply::raw([&head[..], &in_chunks(file, 10_000)].concat())
        }),
        ("until it closes", |file, _| {
            Reply::raw([b"HTTP/1.1 200 OK\r\n\r\n", file].concat()).then_close()
        }),
        ("by HTTP/1.0", |file, _| {
            Reply::raw([b"HTTP/1.0 200 OK\r\n\r\n", file].concat()).then_close()
        }),
    ];
    let sample = Sample::new(2000);
    for (name, answer) in forms {
        for jobs in [1, 8] {
            let stubborn = mirror(&sample.bytes, answer);
            let run = get(&sample, &[], &[&stubborn]).args(["-j", &jobs.to_string(), "--stats"]);
            let out = run.run();
            assert!(
                out.status == 0 && out.stdout == sample.bytes,
                "{name}, -j {jobs}: {out}"
            );
            let requests = stubborn.requests().len();
            let most = if jobs == 1 { 1 } else { 8 };
            assert!(requests <= most, "{name}, -j {jobs}: {requests}");
            // Who comes late for its blocks has it begin anew, which is rare: eight readings would be
            // one for each worker.
            let (bytes, of) = (out.stat("bytes"), sample.bytes.len());
            let most = if jobs == 1 { 1 } else { 6 };
            assert!(
                bytes <= most * of as u64,
                "{name}, -j {jobs}: {bytes} bytes of {of}"
            );
            let file = sample.dir.join("file");
            let stubborn = mirror(&sample.bytes, answer);
            let run = get(&sample, &[], &[&stubborn]).args(["-j", &jobs.to_string(), "-o"]);
            run.arg(&file).run().ok();
            assert!(fs::read(&file).unwrap() == sample.bytes, "{name}");
            fs::remove_file(&file).unwrap();
            assert!(stubborn.requests().len() <= 8, "{name}, -j {jobs}");
        }
    }
}

/// For a few blocks here and there it is read as far as the last of them.
#[test]
fn one_that_ignores_ranges_gives_what_servers_lack() {
    let sample = Sample::new(1000);
    for jobs in ["1", "8"] {
        let server = HostileServer::psync(lacking(&sample, |n| n % 37 == 5));
        let stubborn = mirror(&sample.bytes, whole);
        sample.is_whole(
            get(&sample, &[&server], &[&stubborn])
                .args(["-j", jobs])
                .run(),
        );
        let most = if jobs == "1" { 1 } else { 8 };
        assert!(
            stubborn.requests().len() <= most,
            "-j {jobs}: {}",
            stubborn.requests().len()
        );
    }
}

/// It breaks off again and again; each time some of it has come.
#[test]
fn one_that_ignores_ranges_and_breaks_off_is_read_again() {
    let sample = Sample::new(100);
    let (file, asked) = (sample.bytes.clone(), AtomicUsize::new(0));
    let flaky = HostileServer::http(move |_| {
        let nth = asked.fetch_add(1, SeqCst) + 1;
        let sent = (nth * 40 * BLOCK_SIZE + 100).min(file.len());
        Reply::begun(file.len(), &file[..sent]).then_close()
    });
    let out = get(&sample, &[], &[&flaky]).args(["--retry", "1"]).run();
    sample.is_whole(out);
    assert!(flaky.requests().len() <= 4, "{}", flaky.requests().len());
}

#[test]
fn one_that_caps_ranges_is_asked_for_the_rest() {
    let sample = Sample::new(100);
    let caps: [(Answer, usize); 4] = [
        (|file, request| capped(file, request, 4096), 101),
        (|file, request| capped(file, request, 10_000), 70),
        (|file, request| capped(file, request, 8191), 110),
        (|file, request| capped(file, request, 100_000), 30),
    ];
    for (answer, most) in caps {
        for jobs in ["1", "8"] {
            let stingy = mirror(&sample.bytes, answer);
            let out = get(&sample, &[], &[&stingy]).args(["-j", jobs, "-v"]).run();
            assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
            assert!(!out.stderr.contains("give up"), "{out}");
            let asked = stingy.requests().len();
            assert!(asked <= most || jobs == "8", "{asked}, not {most}");
        }
    }
    let useless = mirror(&sample.bytes, |file, request| capped(file, request, 4095));
    is_cut("4095", &sample, &get(&sample, &[], &[&useless]).run());
    let good = mirror(&sample.bytes, honest);
    sample.is_whole(get(&sample, &[], &[&useless, &good]).run());
}

/// Alone it is told why; before a good one, nobody is to notice.
#[track_caller]
fn falls_back(name: &str, answer: Answer, why: &str) {
    for jobs in ["1", "8"] {
        let sample = Sample::new(40);
        let options = ["-j", jobs, "--timeout", "20"];
        let bad = mirror(&sample.bytes, answer);
        let out = get(&sample, &[], &[&bad]).args(options).run();
        is_cut(name, &sample, &out);
        let told = format!("psync: ask {}/dir/file: ", bad.url());
        let reason = out.stderr.lines().find_map(|line| line.strip_prefix(&told));
        // Nor does it come to the timeout; with tls, who speaks none to that for a connection.
        let is_due = |reason: &str| reason.contains(why) && !reason.contains(" within 20 ");
        assert!(reason.is_some_and(is_due), "{name}, not {why:?}: {out}");
        let (bad, good) = (mirror(&sample.bytes, answer), mirror(&sample.bytes, honest));
        sample.is_whole(get(&sample, &[], &[&bad, &good]).args(options).run());
    }
}

fn moved(place: &str) -> Reply {
    Reply::with(302, &[&format!("Location: {place}")], "")
}

fn ranged(field: &str, body: &[u8]) -> Reply {
    Reply::with(206, &[&format!("Content-Range: {field}")], body)
}

#[test]
#[rustfmt::skip]
fn what_is_no_mirror_costs_nothing_but_time() {
    let table: &[(&str, Answer, &str)] = &[
        ("404", |_, _| Reply::status(404, "no"), "HTTP 404 Not Found"),
        ("403", |_, _| Reply::status(403, "no"), "HTTP 403 Forbidden"),
        ("410", |_, _| Reply::status(410, ""), "HTTP 410 Gone"),
        ("401", |_, _| Reply::status(401, ""), "HTTP 401"),
        ("204", |_, _| Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"), "HTTP 204"),
        ("416", |_, _| Reply::status(416, ""), "its copy of the file is shorter"),
        ("500", |_, _| Reply::status(500, "sorry"), "HTTP 500"),
        ("503", |_, _| Reply::with(503, &["Retry-After: 1000"], ""), "HTTP 503"),
        ("429", |_, _| Reply::status(429, ""), "HTTP 429"),
        ("999", |_, _| Reply::status(999, ""), "HTTP 999"),
        ("a page", |_, _| Reply::ok("<html>it has moved</html>"), "its copy of the file is shorter"),
        ("a long page", |_, _| Reply::ok("<html>".repeat(50_000)), "its copy of the file has other bytes there"),
        ("an empty file", |_, _| Reply::ok(""), "its copy of the file is shorter"),
        ("an endless file", |_, _| Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_forever([7; 65_536]), "its copy of the file has other bytes there"),
        ("another file", |file, request| honest(&random(file.len(), 3), request), "its copy of the file has other bytes there"),
        ("an endless range", |_, _| Reply::raw("HTTP/1.1 206 P\r\nContent-Range: bytes 0-4095/4096\r\n\r\n").then_forever([7; 65_536]), ""),
        ("an empty 206", |file, request| ranged(&format!("bytes {}-4095/{}", range(request).0, file.len()), b""), "it gave less than a block"),
        ("a later range", |file, _| ranged("bytes 8192-12287/99999", &file[8192..12288]), "it gave another range"),
        ("a range that begins before", |file, _| ranged("bytes 1-4096/99999", &file[1..4097]), "it gave another range"),
        ("no field", |file, _| Reply::status(206, file), "it gave another range"),
        ("an unknown range", |file, _| ranged("bytes */99999", file), "it gave another range"),
        ("another unit", |file, _| ranged("blocks 0-1/2", file), "it gave another range"),
        ("a negative range", |file, _| ranged("bytes -1-4095/99999", file), "it gave another range"),
        ("a range with a sign", |file, request| { let (first, end) = range(request); let end = end.unwrap().min(file.len()); ranged(&format!("bytes +{first}-{}/{}", end - 1, file.len()), &file[first..end]) }, "it gave another range"),
        ("no range", |file, _| ranged("bytes", file), "it gave another range"),
        ("several parts", |file, _| Reply::with(206, &["Content-Type: multipart/byteranges; boundary=x"], [b"--x\r\nContent-Range: bytes 0-4095/99999\r\n\r\n", &file[..4096], b"\r\n--x--\r\n"].concat()), "it gave another range"),
        ("gzip", |file, request| { let (first, end) = range(request); Reply::with(206, &["Content-Encoding: gzip", &format!("Content-Range: bytes {first}-{}/{}", end.unwrap() - 1, file.len())], [7; 40_000]) }, "its copy of the file has other bytes there"),
        ("a redirect to itself", |_, _| moved("/dir/file"), "HTTP 302"),
        ("a redirect to a file", |_, _| moved("file:///etc/hostname"), ""),
        ("a redirect to itself by https", |_, request| moved(&format!("https://{}/", request.header("Host").unwrap())), ""),
        ("a redirect to nowhere", |_, _| Reply::status(302, ""), ""),
        ("a redirect that is no URL", |_, _| moved("http://[::/"), ""),
        ("a redirect to a mailbox", |_, _| moved("mailto:x@y"), ""),
        ("304", |_, _| Reply::raw("HTTP/1.1 304 Not Modified\r\n\r\n"), "HTTP 304"),
        ("not HTTP", |_, _| Reply::raw("SSH-2.0-OpenSSH_9.6\r\n").then_close(), "not HTTP: "),
        ("hangs up", |_, _| Reply::raw("").then_close(), "it hung up without an answer"),
        ("resets", |_, _| Reply::raw("").then_reset(), "it hung up without an answer"),
        ("breaks off", |file, _| Reply::begun(file.len(), &file[..1000]).then_close(), "it broke off"),
    ];
    for (name, answer, why) in table {
        falls_back(name, *answer, why);
    }
}

#[test]
fn another_version_lacks_what_differs() {
    let sample = Sample::new(60);
    let other = changed(&sample.bytes, &[7, 8, 40, 60]);
    for answer in [honest as Answer, whole, |file, request| {
        capped(file, request, 10_000)
    }] {
        for jobs in ["1", "8"] {
            let file = sample.dir.join("file");
            let version = mirror(&other, answer);
            let run = get(&sample, &[], &[&version]).args(["-j", jobs, "--stats", "-o"]);
            let out = run.arg(&file).run();
            assert_eq!(
                (out.status, out.stat("missing"), out.stat("fetched")),
                (3, 4, 57),
                "{out}"
            );
            // The same command later, with another.
            let right = mirror(&sample.bytes, honest);
            let run = get(&sample, &[], &[&version, &right]).args(["-j", jobs, "-o"]);
            run.arg(&file).run().ok();
            assert!(fs::read(&file).unwrap() == sample.bytes);
            let mut asked = asked_blocks(&right);
            asked.sort_unstable();
            assert_eq!(asked, [7, 8, 40, 60], "-j {jobs}");
            fs::remove_file(&file).unwrap();
        }
    }
}

#[test]
fn a_shorter_copy_lacks_the_end() {
    let sample = Sample::new(60);
    for length in [
        0,
        1,
        10 * BLOCK_SIZE,
        10 * BLOCK_SIZE + 7,
        60 * BLOCK_SIZE,
        60 * BLOCK_SIZE + 4,
    ] {
        for answer in [honest as Answer, whole] {
            let file = sample.dir.join("file");
            let short = mirror(&sample.bytes[..length], answer);
            let run = get(&sample, &[], &[&short]).args(["--stats", "-o"]);
            let out = run.arg(&file).run();
            let had = (length / BLOCK_SIZE) as u64;
            assert_eq!(
                (out.status, out.stat("fetched")),
                (3, had),
                "{length}: {out}"
            );
            fs::remove_file(sample.dir.join("file.part")).unwrap();
            let good = mirror(&sample.bytes, honest);
            sample.is_whole(get(&sample, &[], &[&short, &good]).args(["-j", "8"]).run());
        }
    }
}

/// Where the file ends is known from the list, and its last block from its hash.
#[test]
fn a_longer_copy_holds_the_last_block_too() {
    for (whole_blocks, more) in [
        (60, 1),
        (60, 4090),
        (60, 4091),
        (60, 4092),
        (60, 50_000),
        (0, 9),
    ] {
        let sample = Sample::new(whole_blocks);
        let longer = [&sample.bytes[..], &random(more, 9)].concat();
        for answer in [honest as Answer, whole, |file, request| {
            capped(file, request, 10_000)
        }] {
            for jobs in ["1", "8"] {
                let longer = mirror(&longer, answer);
                sample.is_whole(get(&sample, &[], &[&longer]).args(["-j", jobs]).run());
                let file = sample.dir.join("file");
                let run = get(&sample, &[], &[&longer]).args(["-j", jobs, "-o"]);
                run.arg(&file).run().ok();
                assert!(fs::read(&file).unwrap() == sample.bytes);
                fs::remove_file(&file).unwrap();
            }
        }
        // A list that is read only once tells no end beforehand, unless there are places.
        let file = sample.dir.join("file");
        let longer = mirror(&longer, honest);
        let run = psync!("get", "-m", longer.url() + "/file", "-", "-o", &file);
        run.stdin(hashlist(&sample.bytes)).run().ok();
        assert!(fs::read(&file).unwrap() == sample.bytes);
    }
}

#[test]
fn a_mirror_that_recovers_is_asked_again() {
    let sample = Sample::new(60);
    for jobs in ["1", "8"] {
        let (file, asked) = (sample.bytes.clone(), AtomicUsize::new(0));
        let busy = HostileServer::http(move |request| match asked.fetch_add(1, SeqCst) {
            ..3 => Reply::status(500, "sorry"),
            _ => honest(&file, request),
        });
        let out = get(&sample, &[], &[&busy])
            .args(["-j", jobs, "--retry", "1"])
            .run();
        sample.is_whole(out);
        // What came of a range before it broke off is kept.
        let (file, asked) = (sample.bytes.clone(), AtomicUsize::new(0));
        let dying = HostileServer::http(move |request| match asked.fetch_add(1, SeqCst) {
            0 => {
                let reply = honest(&file, request);
                let most = reply.bytes().len().min(2 * BLOCK_SIZE + 1000);
                Reply::raw(&reply.bytes()[..most]).then_close()
            }
            _ => honest(&file, request),
        });
        let good = mirror(&sample.bytes, honest);
        sample.is_whole(get(&sample, &[], &[&dying, &good]).args(["-j", jobs]).run());
        assert!(!asked_blocks(&good).contains(&0), "-j {jobs}");
    }
}

#[test]
fn a_connection_closed_meanwhile_is_no_failure_of_a_mirror() {
    let sample = Sample::new(200);
    let file = sample.bytes.clone();
    let closing = HostileServer::http(move |request| match request.nth {
        0 => honest(&file, request),
        _ => Reply::raw("").then_reset(),
    });
    let out = get(&sample, &[], &[&closing]).arg("-v").run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    assert!(!out.stderr.contains("give up"), "{out}");
    let closing = mirror(&sample.bytes, |file, request| {
        honest(file, request).then_close()
    });
    sample.is_whole(get(&sample, &[], &[&closing]).args(["-j", "8"]).run());
}

#[test]
fn a_silent_mirror_costs_its_timeout_once() {
    let ends: [(&str, Answer); 3] = [
        ("at once", |_, _| Reply::raw("").then_silence()),
        ("in a range", |file, request| {
            let reply = honest(file, request);
            let half = reply.bytes().len() / 2;
            Reply::raw(&reply.bytes()[..half]).then_silence()
        }),
        ("in a page", |_, _| {
            Reply::raw("HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n").then_silence()
        }),
    ];
    thread::scope(|scope| {
        for (name, answer) in ends {
            scope.spawn(move || {
                for jobs in ["1", "8"] {
                    let sample = Sample::new(400);
                    let silent = mirror(&sample.bytes, answer);
                    let good = mirror(&sample.bytes, honest);
                    let run = get(&sample, &[], &[&silent, &good]);
                    let out = run.args(["-j", jobs, "--timeout", "1", "-v"]).run();
                    let whole = out.status == 0 && out.stdout == sample.bytes;
                    assert!(
                        whole && out.stderr.matches("give up").count() == 1,
                        "{name}: {out}"
                    );
                    assert!(
                        silent.requests().len() <= 8,
                        "{name}: {}",
                        silent.requests().len()
                    );
                }
            });
        }
    });
}

/// All but one of many workers wait until it is their turn to read: not for one timeout after the
/// other.
#[test]
fn one_that_ignores_ranges_and_falls_silent_costs_its_timeout_once() {
    let ends: [(&str, Answer); 2] = [
        ("silent", |file, _| {
            Reply::begun(file.len(), &file[..100_000]).then_silence()
        }),
        ("slow", |file, _| {
            let begun = Reply::begun(file.len(), &file[..100_000]).then_forever("x");
            begun.paced_from_here(Duration::from_millis(50))
        }),
    ];
    let asked: Vec<_> = thread::scope(|scope| {
        let meet = |name: &'static str, answer, jobs: &'static str| {
            scope.spawn(move || {
                let sample = Sample::new(400);
                let (silent, good) = (mirror(&sample.bytes, answer), mirror(&sample.bytes, honest));
                let run = get(&sample, &[], &[&silent, &good]);
                let out = run.args(["-j", jobs, "--timeout", "1", "-v"]).run();
                let whole = out.status == 0 && out.stdout == sample.bytes;
                assert!(
                    whole && out.stderr.matches("give up").count() == 1,
                    "{name}: {out}"
                );
                (name, jobs, silent.requests().len())
            })
        };
        let pairs = ends
            .iter()
            .flat_map(|(name, answer)| ["1", "8", "16"].map(|jobs| meet(name, *answer, jobs)));
        let met: Vec<_> = pairs.collect();
        met.into_iter().map(|met| met.join().unwrap()).collect()
    });
    assert!(
        asked.iter().all(|(.., requests)| *requests <= 2),
        "{asked:?}"
    );
}

/// What still comes of it may be wanted only much later, when it has given up sending: like any
/// connection that was closed meanwhile, that is no failure.
#[test]
fn one_that_ignores_ranges_and_was_closed_meanwhile_is_asked_again() {
    let sample = Sample::new(400);
    for jobs in ["1", "8"] {
        let (file, asked) = (sample.bytes.clone(), AtomicUsize::new(0));
        let stubborn = HostileServer::http(move |_| match asked.fetch_add(1, SeqCst) {
            0 => Reply::begun(file.len(), &file[..201 * BLOCK_SIZE]).then_close(),
            _ => Reply::ok(&file),
        });
        let server = HostileServer::psync(lacking(&sample, |n| n % 100 == 0));
        let run = get(&sample, &[&server], &[&stubborn]).args(["-j", jobs, "-v"]);
        let out = run.run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        let most = if jobs == "1" { 2 } else { 8 };
        let requests = stubborn.requests().len();
        assert!(requests <= most, "-j {jobs}: {requests}");
    }
}

/// What it sends too little of is known after the first time.
#[test]
fn one_that_ignores_ranges_and_is_shorter_is_read_a_few_times() {
    let sample = Sample::new(1600);
    let copy = &sample.bytes[..1200 * BLOCK_SIZE];
    for jobs in ["1", "8"] {
        for to_file in [false, true] {
            let short = mirror(copy, whole);
            let run = get(&sample, &[], &[&short]).args(["-j", jobs, "--stats"]);
            let out = if to_file {
                run.arg("-o").arg(sample.dir.join("file")).run()
            } else {
                run.run()
            };
            assert_eq!((out.status, out.stat("fetched")), (3, 1200), "{out}");
            let (bytes, of) = (out.stat("bytes"), sample.bytes.len() as u64);
            assert!(bytes < 3 * of, "-j {jobs}: {bytes} bytes of {of}");
        }
        fs::remove_file(sample.dir.join("file.part")).unwrap();
    }
}

/// Wherever the workers are, they mostly take what comes next: most of the 160 blocks do not cost
/// another reading.
#[test]
fn one_that_ignores_ranges_is_read_a_few_times_for_what_a_server_lacks_all_over() {
    let sample = Sample::new(1600);
    for jobs in ["1", "8"] {
        let server = HostileServer::psync(lacking(&sample, |n| n % 10 == 3));
        let stubborn = mirror(&sample.bytes, whole);
        let file = sample.dir.join("file");
        let run = get(&sample, &[&server], &[&stubborn]).args(["-j", jobs, "--stats", "-o"]);
        let out = run.arg(&file).run();
        assert!(out.status == 0, "{out}");
        assert!(fs::read(&file).unwrap() == sample.bytes);
        fs::remove_file(&file).unwrap();
        let of = sample.bytes.len() as u64;
        let bytes = out.stat("bytes") - of * 9 / 10;
        assert!(bytes < 6 * of, "-j {jobs}: {bytes} bytes of {of}");
    }
}

#[test]
fn stats_count_what_one_that_ignores_ranges_sent() {
    let sample = Sample::new(200);
    let stubborn = mirror(&sample.bytes, whole);
    let out = get(&sample, &[], &[&stubborn]).arg("--stats").run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    assert_eq!(out.stat("bytes"), sample.bytes.len() as u64);
    // Also where it was not read to its end.
    let server = HostileServer::psync(lacking(&sample, |n| n == 100));
    let stubborn = mirror(&sample.bytes, whole);
    let out = get(&sample, &[&server], &[&stubborn]).arg("--stats").run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    let frames = sample.bytes.len() - BLOCK_SIZE + 2 * 201;
    assert_eq!(
        out.stat("bytes"),
        (frames + 101 * BLOCK_SIZE) as u64,
        "{out}"
    );
}

/// The blocks came whole, so that nothing more comes is nothing to wait for; but for the last, which
/// is short.
#[test]
fn a_range_without_its_end_costs_no_timeout_but_the_last() {
    let ends: [(&str, Answer); 2] = [
        ("a length of one more", |file, request| {
            let (first, end) = range(request);
            let end = end.unwrap().min(file.len());
            let field = format!("Content-Length: {}", end - first + 1);
            unended(file, first, end, &field, &file[first..end])
        }),
        ("no last chunk", |file, request| {
            let (first, end) = range(request);
            let end = end.unwrap().min(file.len());
            let chunks = in_chunks(&file[first..end], 1000);
            let chunks = &chunks[..chunks.len() - 5];
            unended(file, first, end, "Transfer-Encoding: chunked", chunks)
        }),
    ];
    thread::scope(|scope| {
        for (name, answer) in ends {
            for (jobs, whole) in [("1", 200), ("8", 1600)] {
                scope.spawn(move || {
                    // Paid for by each, the timeouts would add up to over a minute.
                    let sample = Sample::new(whole);
                    let server = HostileServer::psync(lacking(&sample, |n| n % 2 == 0));
                    let odd = mirror(&sample.bytes, answer);
                    let run = get(&sample, &[&server], &[&odd]);
                    let out = run.args(["-j", jobs, "--timeout", "1", "-v"]).run();
                    let is_whole = out.status == 0 && out.stdout == sample.bytes;
                    assert!(
                        is_whole && !out.stderr.contains("give up"),
                        "{name}, -j {jobs}: {out}"
                    );
                    assert_eq!(odd.requests().len(), whole / 2 + 1, "{name}, -j {jobs}");
                });
            }
        }
    });
}

/// A 206 with this field, after whose body nothing comes.
fn unended(file: &[u8], first: usize, end: usize, field: &str, body: &[u8]) -> Reply {
    let (last, of) = (end - 1, file.len());
    let range = format!("Content-Range: bytes {first}-{last}/{of}");
    let head = format!("HTTP/1.1 206 Partial Content\r\n{range}\r\n{field}\r\n\r\n");
    Reply::raw([head.as_bytes(), body].concat()).then_silence()
}

/// Its name in any case.
#[test]
fn the_unit_of_a_range_is_bytes_however_written() {
    let sample = Sample::new(60);
    for unit in ["Bytes", "BYTES"] {
        let file = sample.bytes.clone();
        let good = HostileServer::http(move |request| {
            let (first, end) = range(request);
            let end = end.unwrap().min(file.len());
            let field = format!("{unit} {first}-{}/{}", end - 1, file.len());
            ranged(&field, &file[first..end])
        });
        sample.is_whole(get(&sample, &[], &[&good]).run());
    }
}

// Redirects.

/// `/0` leads on to `/1` and so forth, so many times, and the last of them is the file.
fn chain(file: &[u8], length: usize, status: u16) -> HostileServer {
    let file = file.to_vec();
    HostileServer::http(move |request| {
        let (first, _) = range(request);
        let place: usize = request.hash().parse().unwrap();
        assert!(first < file.len());
        if place == length {
            return honest(&file, request);
        }
        let next = match place % 2 {
            0 => format!("http://{}/{}", request.header("Host").unwrap(), place + 1),
            _ => format!("{}", place + 1),
        };
        Reply::with(
            status,
            &[&format!("Location: {next}")],
            "<html>moved</html>",
        )
    })
}

#[test]
fn up_to_three_redirects_of_a_mirror_are_followed() {
    let sample = Sample::new(40);
    for status in [301, 302, 303, 307, 308] {
        for length in 1..=4 {
            let mirror = chain(&sample.bytes, length, status);
            let run = sample.get(&[]).args(["-m", &(mirror.url() + "/0")]);
            let out = run.run();
            let places: BTreeSet<_> = mirror.targets().into_iter().collect();
            let reached = places.len() - 1;
            if length <= 3 {
                sample.is_whole(out);
                assert_eq!(reached, length, "{status}");
            } else {
                is_cut("four", &sample, &out);
                assert_eq!(reached, 3, "{status}");
                let told = format!("ask {}/0: HTTP {status}", mirror.url());
                assert!(out.stderr.contains(&told), "{out}");
            }
        }
    }
}

/// To another machine, with the range and without what is nobody's affair there.
#[test]
fn a_redirect_of_a_mirror_leads_elsewhere() {
    let sample = Sample::new(40);
    let good = mirror(&sample.bytes, honest);
    let place = format!("{}/a?b=c", good.url());
    let redirecting = HostileServer::http(move |_| moved(&place));
    for jobs in ["1", "8"] {
        sample.is_whole(get(&sample, &[], &[&redirecting]).args(["-j", jobs]).run());
    }
    assert!(good.targets().iter().all(|target| target == "/a?b=c"));
    assert_eq!(asked_blocks(&good).len(), 82);
    // A loop is left, and not entered without end.
    let looping = mirror(&[], |_, request| {
        moved(if request.target == "/a" { "/b" } else { "/a" })
    });
    let out = get(&sample, &[], &[&looping]).args(["-j", "8"]).run();
    is_cut("loop", &sample, &out);
    assert!(
        looping.requests().len() <= 11 * 4,
        "{}",
        looping.requests().len()
    );
}

#[test]
fn a_redirect_to_a_dead_place_is_a_dead_mirror() {
    let sample = Sample::new(40);
    let nobody = Refusing::new();
    let place = format!("http://{nobody}/");
    let redirecting = HostileServer::http(move |_| moved(&place));
    let good = mirror(&sample.bytes, honest);
    let out = get(&sample, &[], &[&redirecting, &good])
        .args(["-j", "8", "-v"])
        .run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    assert_eq!(out.stderr.matches("give up").count(), 1, "{out}");
    assert!(
        redirecting.requests().len() <= 8,
        "{}",
        redirecting.requests().len()
    );
}

/// The page that comes with a redirect is read on the way, and for no longer than an answer may take.
#[test]
fn a_redirect_whose_page_never_ends_costs_its_timeout_once() {
    const CHUNKED: &str =
        "HTTP/1.1 302 Found\r\nLocation: /b\r\nTransfer-Encoding: chunked\r\n\r\n";
    let pages: [(&str, Answer); 5] = [
        ("silence", |_, _| {
            Reply::raw("HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 100\r\n\r\n")
                .then_silence()
        }),
        ("an endless page", |_, _| {
            Reply::raw("HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n").then_forever([b'x'; 4096])
        }),
        ("endless chunks of a byte", |_, _| {
            Reply::raw(CHUNKED).then_forever("1\r\nx\r\n".repeat(500))
        }),
        ("a chunk now and then", |_, _| {
            let reply = Reply::raw(CHUNKED).then_forever("1\r\nx\r\n");
            reply.paced_from_here(Duration::from_millis(20))
        }),
        ("an endless page with a length", |_, _| {
            Reply::raw(
                "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 1000000000000\r\n\r\n",
            )
            .then_forever([b'x'; 4096])
        }),
    ];
    thread::scope(|scope| {
        for (name, answer) in pages {
            for jobs in ["1", "8"] {
                scope.spawn(move || {
                    let sample = Sample::new(100);
                    let (bad, good) = (mirror(&[], answer), mirror(&sample.bytes, honest));
                    let run = get(&sample, &[], &[&bad, &good]);
                    let out = run.args(["-j", jobs, "--timeout", "1", "-v"]).run();
                    let whole = out.status == 0 && out.stdout == sample.bytes;
                    let told = format!("psync: give up {}", bad.url());
                    assert!(
                        whole && out.stderr.matches(&told).count() == 1,
                        "{name}, -j {jobs}: {out}"
                    );
                    assert_eq!(bad.requests().len(), 1, "{name}, -j {jobs}");
                });
            }
        }
    });
}

#[test]
fn redirects_of_a_mirror_are_walked_once_and_not_for_every_range() {
    let sample = Sample::new(1000);
    for (jobs, most) in [("1", 1), ("8", 8)] {
        let mirror = chain(&sample.bytes, 3, 302);
        let url = mirror.url() + "/0";
        sample.is_whole(sample.get(&[]).args(["-m", &url, "-j", jobs]).run());
        let at = |place: &str| mirror.targets().iter().filter(|at| *at == place).count();
        let hops = ["/0", "/1", "/2"].map(at);
        assert!(
            hops.iter().all(|&count| (1..=most).contains(&count)),
            "-j {jobs}: {hops:?}"
        );
        assert!(at("/3") >= 4, "-j {jobs}: {}", at("/3"));
    }
}

/// The place that they lead to is good for a while only.
#[test]
fn redirects_of_a_mirror_are_walked_anew_when_the_place_fails() {
    let sample = Sample::new(400);
    let ends: [fn() -> Reply; 4] = [
        || Reply::status(403, "expired"),
        || Reply::status(404, ""),
        || Reply::status(503, ""),
        || Reply::raw("").then_close(),
    ];
    for end in ends {
        for jobs in ["1", "8"] {
            // Another place after the third answer; until then all know the first, from the one that
            // found out whether this mirror answers at all.
            let (file, given) = (sample.bytes.clone(), AtomicUsize::new(0));
            let signing = HostileServer::http(move |request| {
                let place = if given.load(SeqCst) < 3 { "/a" } else { "/b" };
                match request.target.as_str() {
                    "/file" => moved(place),
                    target if target == place => {
                        given.fetch_add(1, SeqCst);
                        honest(&file, request)
                    }
                    _ => end(),
                }
            });
            let url = signing.url() + "/file";
            let out = sample.get(&[]).args(["-m", &url, "-j", jobs, "-v"]).run();
            assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
            assert!(!out.stderr.contains("give up"), "{out}");
            let walks = signing.targets().iter().filter(|at| *at == "/file").count();
            assert!((2..=9).contains(&walks), "-j {jobs}: {walks}");
        }
    }
}

// What others wrote, and the rest.

#[test]
fn nginx_and_busybox_httpd_are_mirrors() {
    let sample = Sample::new(600);
    fs::write(sample.dir.join("copy"), &sample.bytes).unwrap();
    let moved = "location /moved { return 302 /copy; }";
    for (daemon, path) in [
        (Daemon::nginx(&sample.dir, ""), "/copy"),
        (Daemon::nginx(&sample.dir, "max_ranges 0;"), "/copy"),
        (
            Daemon::nginx(&sample.dir, "gzip on; gzip_types *; gzip_min_length 1;"),
            "/copy?x",
        ),
        (Daemon::nginx(&sample.dir, "keepalive_requests 2;"), "/copy"),
        (Daemon::nginx(&sample.dir, moved), "/moved"),
        (Daemon::busybox_httpd(&sample.dir), "/copy"),
    ] {
        let url = daemon.url() + path;
        for jobs in ["1", "8"] {
            let out = sample
                .get(&[])
                .args(["-m", &url, "-j", jobs, "--stats"])
                .run();
            assert!(
                out.status == 0 && out.stdout == sample.bytes,
                "{url}: {out}"
            );
            let most = 3 * sample.bytes.len() as u64;
            assert!(out.stat("bytes") <= most, "{url}: {out}");
            // A block by itself, in the middle and the last.
            let server = HostileServer::psync(lacking(&sample, |n| n == 300 || n == 600));
            sample.is_whole(sample.get(&[&server]).args(["-m", &url, "-j", jobs]).run());
        }
    }
}

#[test]
fn what_comes_of_a_mirror_is_kept() {
    let sample = Sample::new(60);
    let dir = sample.dir.join("kept");
    let good = mirror(&sample.bytes, honest);
    sample.is_whole(
        get(&sample, &[], &[&good])
            .args(["-k", "-d"])
            .arg(&dir)
            .run(),
    );
    assert_stored(&dir, &hashlist(&sample.bytes));
    let asked = good.requests().len();
    sample.is_whole(get(&sample, &[], &[&good]).arg("-d").arg(&dir).run());
    assert_eq!(good.requests().len(), asked);
}

#[test]
fn mirrors_need_little_memory() {
    let dir = TempDir::new();
    let list = long_list(&dir, 4096);
    let file = random(4 * BLOCK_SIZE, 8).repeat(1024);
    for answer in [honest as Answer, whole] {
        for jobs in ["1", "8", "64"] {
            let good = mirror(&file, answer);
            let url = good.url() + "/file";
            let peak = peak_of(psync!("get", "-j", jobs, "-m", &url, &list));
            assert!(peak < 24 * 1024, "-j {jobs}: {peak} KiB");
        }
    }
}
