//! Second chances: the rounds over the servers for what failed (`--retry`), servers from files
//! (`--servers`), and what is said at the end about all of it, `--stats` to the letter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

/// A failure that may have passed a little later.
fn passing() -> Vec<(&'static str, Reply)> {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\nx";
    let size = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10";
    vec![
        ("500", Reply::status(500, "")),
        ("502", Reply::status(502, "<html>")),
        ("503", Reply::with(503, &["Retry-After: 1"], "")),
        ("429", Reply::with(429, &["Retry-After: 86400"], "")),
        ("408", Reply::status(408, "").then_close()),
        ("broken off", Reply::raw(short).then_close()),
        (
            "broken off in the size of a chunk",
            Reply::raw(size).then_close(),
        ),
        ("silence", Reply::raw("").then_silence()),
        ("silence in the body", Reply::raw(short).then_silence()),
    ]
}

fn lasting() -> Vec<(&'static str, Reply)> {
    vec![
        ("wrong bytes", Reply::ok("lie")),
        ("nothing", Reply::ok("")),
        ("not HTTP", Reply::raw("lie\r\n\r\n").then_close()),
        ("400", Reply::status(400, "")),
        ("401", Reply::status(401, "")),
        ("403", Reply::status(403, "")),
        ("404", Reply::status(404, "")),
        ("410", Reply::status(410, "")),
        ("302", Reply::with(302, &["Location: /"], "")),
        ("206", Reply::status(206, "x")),
    ]
}

/// Answers thus where it is asked for a block for the first time, and honestly later.
fn at_first(sample: &Sample, first: Reply) -> HostileServer {
    let (blocks, known) = (sample.map(), Mutex::new(BTreeSet::new()));
    HostileServer::http(move |request| {
        if known.lock().unwrap().insert(request.target.clone()) {
            first.clone()
        } else {
            Reply::honest(&blocks, request)
        }
    })
}

fn get(sample: &Sample, server: &HostileServer, retry: u32) -> Run {
    let get = sample.get(&[server]).args(["--timeout", "1"]);
    get.args(["--retry", &retry.to_string()])
}

#[track_caller]
fn reads_as(sample: &Sample, file: &Path) {
    assert!(std::fs::read(file).unwrap() == sample.bytes, "not the file");
}

/// All of these at once: they mostly wait.
fn each(table: Vec<(&'static str, Reply)>, test: impl Fn(&str, Reply) + Sync) {
    thread::scope(|scope| {
        for (name, reply) in table {
            let test = &test;
            let thread = thread::Builder::new().name(name.to_owned());
            thread
                .spawn_scoped(scope, move || test(name, reply))
                .unwrap();
        }
    });
}

#[test]
fn a_failure_that_passes_is_asked_about_again() {
    each(passing(), |name, reply| {
        // One of eight workers may ask for the second block first, and bring nothing in that round.
        for (jobs, retry) in [("1", 1), ("8", 2)] {
            let sample = Sample::new(1);
            let server = at_first(&sample, reply.clone());
            let out = get(&sample, &server, retry).args(["-j", jobs]).run();
            let whole = out.status == 0 && out.stdout == sample.bytes && out.stderr.is_empty();
            assert!(whole, "{name}, -j {jobs}: {out}");
            assert!(out.took >= Duration::from_secs(1), "{name}: no pause");
            assert_eq!(server.requests().len(), 4, "{name}, -j {jobs}");
        }
        let sample = Sample::new(1);
        let (server, file) = (at_first(&sample, reply), sample.dir.join("file"));
        get(&sample, &server, 1).arg("-o").arg(&file).run().ok();
        reads_as(&sample, &file);
    });
}

/// It is asked twice at once already, on another connection, in case that it had only closed a
/// kept one: so its third answer is the first of the second round.
#[test]
fn a_server_that_hung_up_is_asked_again() {
    for reset in [false, true] {
        let sample = Sample::new(0);
        let blocks = sample.map();
        let server = HostileServer::http(move |request| match (request.conn, reset) {
            (0 | 1, true) => Reply::raw("").then_reset(),
            (0 | 1, false) => Reply::raw("").then_close(),
            _ => Reply::honest(&blocks, request),
        });
        sample.is_whole(get(&sample, &server, 1).run());
        assert_eq!(server.connections(), 3);
    }
}

#[test]
fn without_rounds_a_failure_that_would_pass_is_final() {
    each(passing(), |name, reply| {
        let sample = Sample::new(0);
        let server = at_first(&sample, reply);
        let out = get(&sample, &server, 0).run();
        let told = out.stderr.lines().count() == 2 && out.stderr.starts_with(&sample.lacks(0));
        assert!(
            out.status == 3 && told && out.stdout.is_empty(),
            "{name}: {out}"
        );
        assert_eq!(server.requests().len(), 1, "{name}");
    });
}

#[test]
fn a_failure_that_lasts_gets_no_other_round() {
    each(lasting(), |name, reply| {
        let sample = Sample::new(2);
        let server = || {
            let reply = reply.clone();
            HostileServer::http(move |_| reply.clone())
        };
        let (stream, file) = (server(), server());
        let out = get(&sample, &stream, 5).run();
        let told = out.stderr.lines().count() == 2 && out.stderr.starts_with(&sample.lacks(0));
        assert!(
            out.status == 3 && told && out.stdout.is_empty(),
            "{name}: {out}"
        );
        let out = get(&sample, &file, 5)
            .arg("-o")
            .arg(sample.dir.join("file"))
            .run();
        let out = out.fails_naming(3, &["3 of 3 blocks could not be had"]);
        // The pauses of five rounds take half a minute.
        assert!(out.took < Duration::from_secs(20), "{name}: {out}");
        assert!(
            stream.requests().len() <= 3 && file.requests().len() == 3,
            "{name}"
        );
    });
}

#[test]
fn a_server_given_up_for_wrong_bytes_is_not_asked_in_later_rounds() {
    let sample = Sample::new(3);
    let liar = HostileServer::http(|_| Reply::ok("lie"));
    let slow = at_first(&sample, Reply::status(503, ""));
    let get = sample.get(&[&liar, &slow]).args(["--retry", "3"]);
    sample.is_whole(get.run());
    assert_eq!(liar.requests().len(), 3);
    // Nor one that mixed the two.
    let count = AtomicUsize::new(0);
    let mixed = HostileServer::http(move |_| match count.fetch_add(1, SeqCst) {
        1 => Reply::ok("lie"),
        _ => Reply::status(503, ""),
    });
    let slow = at_first(&sample, Reply::status(503, ""));
    let get = sample.get(&[&mixed, &slow]).args(["--retry", "3"]);
    sample.is_whole(get.run());
    assert_eq!(mixed.requests().len(), 3);
}

/// Three times busy: given up for now. What another worker still gets of it then, late and wrong, is
/// no reason never to ask again.
#[test]
fn a_wrong_answer_after_a_server_was_given_up_does_not_last() {
    let sample = Sample::new(39);
    let (blocks, asked) = (sample.map(), AtomicUsize::new(0));
    let given_up = Arc::new(AtomicBool::new(false));
    let is_given_up = Arc::clone(&given_up);
    let server = HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let reply = match asked.fetch_add(1, SeqCst) {
                0 => Reply::honest(&blocks, &request),
                1 => {
                    while !is_given_up.load(SeqCst) && conn.pause(Duration::from_millis(2)) {}
                    Reply::ok("lie")
                }
                _ if !is_given_up.load(SeqCst) => Reply::status(503, ""),
                _ => Reply::honest(&blocks, &request),
            };
            if !conn.send(reply.bytes()) {
                return;
            }
        }
    });
    // What it lied about comes from another, which has nothing else.
    let (blocks, first) = (sample.map(), Arc::new(Mutex::new(None)));
    let lied = Arc::clone(&first);
    let other = HostileServer::http(move |request| {
        if lied.lock().unwrap().as_deref() == Some(request.hash()) {
            Reply::honest(&blocks, request)
        } else {
            Reply::status(404, "")
        }
    });
    let get = sample.get(&[&server, &other]).args(["-j", "4", "-v"]);
    let get = get.args(["--retry", "3", "--timeout", "20"]).start();
    let told = format!("psync: give up http://{server}: HTTP 503");
    get.wait_stderr(|said| String::from_utf8_lossy(said).contains(&told));
    *first.lock().unwrap() = Some(server.requests()[1].hash().to_owned());
    given_up.store(true, SeqCst);
    let out = get.wait();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    assert_eq!(out.stderr.matches("give up").count(), 1, "{out}");
}

/// Nor does silence that other workers still meet make it worth asking again.
#[test]
fn silence_after_a_server_was_given_up_for_wrong_bytes_changes_nothing() {
    let sample = Sample::new(79);
    let (blocks, asked) = (sample.map(), AtomicUsize::new(0));
    let liar = HostileServer::http(move |request| match asked.fetch_add(1, SeqCst) {
        0 => Reply::honest(&blocks, request),
        1 | 2 => Reply::raw("").then_silence(),
        _ => Reply::ok("lie"),
    });
    // Makes another round necessary, for the last block: by then the liar is known.
    let (blocks, last) = (sample.map(), sample.hash(79));
    let (late, times) = (last.clone(), AtomicUsize::new(0));
    let good = HostileServer::http(move |request| {
        if request.hash() == late && times.fetch_add(1, SeqCst) == 0 {
            Reply::status(503, "")
        } else {
            Reply::honest(&blocks, request)
        }
    });
    let get = sample.get(&[&liar, &good]).args(["-j", "4", "-v"]);
    let out = get.args(["--retry", "2", "--timeout", "2"]).run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    let told = format!("psync: give up http://{liar}: wrong bytes");
    assert!(
        out.stderr.starts_with(&told) && out.stderr.matches("give up").count() == 1,
        "{out}"
    );
    let asked = |server: &HostileServer| server.asked().iter().filter(|h| **h == last).count();
    assert_eq!((asked(&liar), asked(&good)), (0, 2), "{out}");
}

/// Lines that name blocks nobody has.
fn unknown(lines: usize) -> String {
    (0..lines)
        .map(|n| hash_hex(&n.to_le_bytes()) + "\n")
        .collect()
}

/// A stream ends there, so what comes after it is looked for within the window alone.
#[test]
fn a_stream_goes_on_within_its_window_behind_a_block_that_may_come() {
    let sample = Sample::new(1);
    let list = hashlist(&sample.bytes[..BLOCK_SIZE]) + &unknown(100_000);
    let list = sample.dir.file("long", list);
    let late = sample.hash(0);
    for jobs in ["1", "8", "64"] {
        let busy = late.clone();
        let server = HostileServer::http(move |request| {
            Reply::status(if request.hash() == busy { 503 } else { 404 }, "")
        });
        let get = psync!("get", "-j", jobs, "--retry", "1", server.url(), &list);
        let (out, peak) = get.measured();
        let told = format!("psync: get {late}: block 1 of 100001: no server gave it");
        out.fails_naming(3, &[&told]);
        let requests = server.requests().len();
        assert!(requests < 6000, "-j {jobs}: {requests}");
        assert!(peak < 24 * 1024, "-j {jobs}: {peak} KiB");
    }
}

#[test]
fn a_stream_goes_on_within_its_window_behind_a_block_that_is_late() {
    let sample = Sample::new(2);
    let list = hashlist(&sample.bytes[..2 * BLOCK_SIZE]) + &unknown(100_000);
    let list = sample.dir.file("long", list);
    for jobs in ["8", "64"] {
        let (blocks, late) = (sample.map(), sample.hash(1));
        let server = HostileServer::start(move |conn, _| {
            while let Some(request) = conn.request() {
                let is_late = request.hash() == late;
                let on = !is_late || conn.pause(Duration::from_millis(500));
                if !on || !conn.send(Reply::honest(&blocks, &request).bytes()) {
                    return;
                }
            }
        });
        let get = psync!("get", "-j", jobs, "--retry", "1", server.url(), &list);
        let (out, peak) = get.measured();
        out.fails_naming(3, &["block 3 of 100002: no server gave it"]);
        let requests = server.requests().len();
        assert!(requests < 6000, "-j {jobs}: {requests}");
        assert!(peak < 24 * 1024, "-j {jobs}: {peak} KiB");
    }
}

/// After one second, and then after two, from the answer on: so at least that long after the request
/// before, however late either is seen.
#[test]
fn rounds_that_bring_nothing_come_later_and_later_and_end() {
    thread::scope(|scope| {
        for to_file in [false, true] {
            scope.spawn(move || {
                let sample = Sample::new(0);
                let times = Arc::new(Mutex::new(Vec::new()));
                let seen = Arc::clone(&times);
                let busy = HostileServer::http(move |_| {
                    seen.lock().unwrap().push(Instant::now());
                    Reply::status(503, "")
                });
                let mut get = get(&sample, &busy, 2);
                if to_file {
                    get = get.arg("-o").arg(sample.dir.join("file"));
                }
                let why = format!("psync: ask http://{busy}: HTTP 503 Service Unavailable");
                let out = get.run().fails_naming(3, &[&why]);
                assert!(out.stdout.is_empty() && !sample.dir.join("file").exists());
                assert_eq!(out.stderr.lines().count(), 2, "{out}");
                let times = times.lock().unwrap();
                let [first, second, third] = times[..] else {
                    panic!("{times:?}")
                };
                let pauses = [second - first, third - second];
                let due = [1, 2].map(Duration::from_secs);
                assert!(pauses[0] >= due[0] && pauses[1] >= due[1], "{pauses:?}");
            });
        }
    });
}

/// Five blocks, then three failures, for which it is given up: a long download outlives any number
/// of short outages, each of which costs a round that brings blocks.
#[test]
fn a_round_that_brought_blocks_does_not_count() {
    let sample = Sample::new(19);
    let server = || {
        let (blocks, count) = (sample.map(), AtomicUsize::new(0));
        HostileServer::http(move |request| match count.fetch_add(1, SeqCst) % 8 {
            ..5 => Reply::honest(&blocks, request),
            _ => Reply::status(503, ""),
        })
    };
    let file = sample.dir.join("file");
    thread::scope(|scope| {
        scope.spawn(|| sample.is_whole(get(&sample, &server(), 1).run()));
        scope.spawn(|| {
            let server = server();
            get(&sample, &server, 1).arg("-o").arg(&file).run().ok();
            // The last outage comes after the last block.
            assert_eq!(server.requests().len(), 20 + 3 * 3);
        });
    });
    reads_as(&sample, &file);
}

/// Refused at first; by then somebody has started it.
#[test]
fn a_server_that_comes_back_is_asked_again() {
    let sample = Sample::new(3);
    for to_file in [false, true] {
        // An address that nobody connects from, so that nobody takes its port meanwhile.
        let free = TcpListener::bind("127.9.9.1:0").unwrap();
        let (addr, file) = (
            free.local_addr().unwrap().to_string(),
            sample.dir.join("file"),
        );
        drop(free);
        let mut get = sample.get(&[&addr]).args(["-v", "--retry", "3"]);
        if to_file {
            get = get.arg("-o").arg(&file);
        }
        let get = get.start();
        get.wait_stderr(|told| told.ends_with(b"Connection refused\n"));
        let blocks = sample.map();
        let server = HostileServer::http_at(&addr, move |request| Reply::honest(&blocks, request));
        let out = get.wait();
        assert_eq!((out.status, server.requests().len()), (0, 4), "{out}");
        if to_file {
            reads_as(&sample, &file);
        } else {
            assert!(out.stdout == sample.bytes);
        }
    }
}

/// Its connection ends in the midst of a block, then nobody is there for a while: alone it is enough for
/// all that.
#[test]
fn a_server_that_dies_in_the_midst_and_comes_back_loses_no_block() {
    let sample = Sample::new(9);
    let blocks = sample.map();
    // As above, an address that nobody connects from.
    let dying = HostileServer::http_at("127.9.9.1:0", move |request| match request.nth {
        ..4 => Reply::honest(&blocks, request),
        _ => Reply::begun(BLOCK_SIZE, "half").then_silence(),
    });
    let get = sample.get(&[&dying]).args(["-v", "--retry", "3"]).start();
    wait_until("it is in the midst", || dying.requests().len() == 5);
    let addr = dying.to_string();
    drop(dying);
    get.wait_stderr(|told| told.ends_with(b"Connection refused\n"));
    let blocks = sample.map();
    let back = HostileServer::http_at(&addr, move |request| Reply::honest(&blocks, request));
    let out = get.wait();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    assert_eq!(back.requests().len(), 6);
}

/// What nobody has is missing at once; what may come is waited for, and comes before it is told.
#[test]
fn a_file_gets_all_that_can_be_had_before_the_missing_are_told() {
    let sample = Sample::new(9);
    let (mut blocks, known) = (sample.map(), Mutex::new(BTreeMap::new()));
    blocks.remove(&sample.hash(2));
    blocks.remove(&sample.hash(7));
    let server = HostileServer::http(move |request| {
        let mut known = known.lock().unwrap();
        let times = known.entry(request.target.clone()).or_insert(0);
        *times += 1;
        match times {
            1 if blocks.contains_key(request.hash()) && request.hash() < "8" => {
                Reply::status(503, "")
            }
            _ => Reply::honest(&blocks, request),
        }
    });
    let file = sample.dir.join("file");
    let get = get(&sample, &server, 2).arg("-o").arg(&file);
    let list = sample.list.display();
    let (two, seven) = (sample.hash(2), sample.hash(7));
    let told = format!(
        "psync: get {list}: 2 of 10 blocks could not be had: {two} (block 3), {seven} (block 8); the same command later goes on from here\n\
         psync: ask {}: HTTP ",
        server.url()
    );
    let out = get.run().fails_naming(3, &[&told]);
    assert_eq!(out.stderr.lines().count(), 2, "{out}");
    let good = sample.honest();
    let again = sample.get(&[&good]).arg("-o").arg(&file);
    again.run().ok();
    reads_as(&sample, &file);
    assert_eq!(good.targets(), [format!("/{two}"), format!("/{seven}")]);
}

/// What comes in the second round comes before what nobody has.
#[test]
fn a_stream_gets_all_that_can_be_had_before_the_block_that_nobody_has() {
    for jobs in ["1", "8"] {
        let sample = Sample::new(5);
        let (mut blocks, first) = (sample.map(), AtomicUsize::new(0));
        blocks.remove(&sample.hash(3));
        let slow = sample.hash(1);
        let server = HostileServer::http(move |request| {
            if request.hash() == slow && first.fetch_add(1, SeqCst) == 0 {
                Reply::status(503, "")
            } else {
                Reply::honest(&blocks, request)
            }
        });
        let out = get(&sample, &server, 1).args(["-j", jobs]).run();
        assert!(
            out.status == 3 && out.stderr.starts_with(&sample.lacks(3)),
            "{out}"
        );
        assert!(out.stdout == sample.bytes[..3 * BLOCK_SIZE], "{out}");
    }
}

/// The other server's blocks are no sign that it is back: it is asked once, and once in the
/// one round that there is.
#[test]
fn a_silent_server_costs_its_timeout_once_a_round_whatever_the_number_of_missing_blocks() {
    let sample = Sample::new(4999);
    let silent = HostileServer::http(|_| Reply::raw("").then_silence());
    let half = sample.having(|n| n % 2 == 0);
    let half = HostileServer::http(move |request| Reply::honest(&half, request));
    let get = sample.get(&[&silent, &half]).args(["-j", "8", "-o"]);
    let get = get.arg(sample.dir.join("file"));
    let get = get.args(["--timeout", "0.5", "--retry", "1"]);
    get.run()
        .fails_naming(3, &["2500 of 5000 blocks could not be had"]);
    assert_eq!(silent.connections(), 2);
}

/// Servers of all kinds of failure, each with its own words; the first few missing, and no more.
#[test]
fn a_failure_names_how_many_the_first_few_and_each_server_s_own_reason() {
    let sample = Sample::new(9);
    let lacking = HostileServer::http(|_| Reply::status(404, ""));
    let liar = HostileServer::http(|_| Reply::ok("lie"));
    let silent = HostileServer::http(|_| Reply::raw("").then_silence());
    let refusing = Refusing::new();
    let file = sample.dir.join("file");
    let list = sample.list.display();
    for (jobs, quiet) in [("1", false), ("8", false), ("8", true)] {
        let get = sample.get(&[&lacking, &liar, &silent, &refusing]);
        let get = get.args(["--timeout", "0.5", "-j", jobs]);
        let out = get.arg(if quiet { "-q" } else { "--in-place" });
        let out = out.arg("-o").arg(&file).run();
        let told: Vec<_> = out.stderr.lines().collect();
        let head = format!("psync: get {list}: 10 of 10 blocks could not be had: ");
        assert!(
            out.status == 3 && told.len() == 5 && told[0].starts_with(&head),
            "{out}"
        );
        let named = told[0].matches("(block ").count();
        assert!(
            (2..10).contains(&named) && told[0].contains(", ...; "),
            "{out}"
        );
        if jobs == "1" {
            assert!(
                told[0].contains(&format!(": {} (block 1), ", sample.hash(0))),
                "{out}"
            );
        }
        assert_eq!(
            told[1..],
            [
                format!("psync: ask http://{lacking}: HTTP 404 Not Found"),
                format!("psync: ask http://{liar}: wrong bytes (3) (given up)"),
                format!("psync: ask http://{silent}: no answer within 0.5 s (given up)"),
                format!("psync: ask http://{refusing}: Connection refused (given up)"),
            ]
        );
    }
}

/// Whichever worker finds it last: the first few are the first of the file.
#[test]
fn the_first_missing_blocks_are_named_in_order_whatever_the_number_of_jobs() {
    let sample = Sample::new(39);
    let first = sample.hash(0);
    let lacking = HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let late = request.hash() == first && !conn.pause(Duration::from_millis(300));
            if late || !conn.send(Reply::status(404, "").bytes()) {
                return;
            }
        }
    });
    // Another server first, so that the slow answer is not the one all others wait for.
    let quick = HostileServer::http(|_| Reply::status(404, ""));
    let get = sample.get(&[&quick, &lacking]).args(["-j", "8", "-o"]);
    let out = get.arg(sample.dir.join("file")).run();
    let named = format!(
        "40 of 40 blocks could not be had: {} (block 1), {} (block 2), ",
        sample.hash(0),
        sample.hash(1)
    );
    out.fails_naming(3, &[&named]);
}

#[test]
fn servers_come_from_files_too_after_those_of_the_command_line() {
    let sample = Sample::new(0);
    let lacking: Vec<_> = (0..4)
        .map(|_| HostileServer::http(|_| Reply::status(404, "")))
        .collect();
    let [a, b, c, d] = &lacking[..] else { panic!() };
    let first = format!(
        "# Ours.\n\n{b}   # the fast one\r\n\t{}/ \n   \n#{a}\n",
        c.url()
    );
    let first = sample.dir.file("first", first);
    // The last line end is missing, and some are known already.
    let second = format!("HTTP://{a}\n{}//\n{d}", b.url());
    let second = sample.dir.file("second", second);
    let empty = sample.dir.file("empty", "");
    let get = sample.get(&[a]).arg("--servers").arg(&first);
    let get = get.arg("--servers").arg(&empty);
    let out = get.arg("--servers").arg(&second).run();
    let reasons = [a, b, c, d].map(|server| format!("{server}: HTTP 404 Not Found"));
    sample.ends_before(0, out, &reasons.each_ref().map(String::as_str));
    let asked = lacking.iter().map(|server| server.requests().len());
    assert_eq!(asked.collect::<Vec<_>>(), [1, 1, 1, 1]);
    // Alone, they are as good as any.
    let good = sample.honest();
    let file = sample.dir.file("third", good.to_string());
    let get = psync!("get", "--servers", &file, &sample.list);
    sample.is_whole(get.run());
    let get = psync!("get", "--servers", "-dash", &sample.list).cwd(&sample.dir);
    get.run().fails_naming(1, &["psync: read servers -dash: "]);
}

#[test]
fn a_servers_file_that_is_malformed_or_missing_is_told_with_its_line() {
    let sample = Sample::new(1);
    let good = sample.honest();
    let form = "a server is HOST[:PORT] or http://HOST[:PORT][/PATH]";
    for (line, cause) in [
        ("two words", form),
        ("ftp://host", form),
        ("host:port", form),
        ("host:0", form),
        ("host:65536", form),
        ("host/path", form),
        ("http://", form),
        ("http://user@host", form),
        ("http://host/a?b", form),
        ("\u{feff}host", form),
        ("h\u{f6}st", form),
        ("[::1", form),
    ] {
        let file = sample
            .dir
            .file("servers", format!("# 1\n{good}\r\n\n{line}\n{good}\n"));
        let out = sample.get(&[&good]).arg("--servers").arg(&file).run();
        let told = format!("psync: read servers {}:4: {cause}\n", file.display());
        out.fails(2, &told);
    }
    let file = sample.dir.file("servers", b"\xff\xfe\n");
    let told = format!("psync: read servers {}:1: not UTF-8\n", file.display());
    let get = || sample.get(&[&good]).arg("--servers");
    get().arg(&file).run().fails(2, &told);
    for (name, cause) in [("missing", "No such file"), ("", "directory")] {
        let path = sample.dir.join(name);
        let told = format!("psync: read servers {}: ", path.display());
        get().arg(&path).run().fails_naming(1, &[&told, cause]);
    }
    let out = sample.get(&[&good]).arg("--servers").run();
    out.fails(
        2,
        "psync: --servers: its value is missing; see psync get --help\n",
    );
    assert_eq!(good.connections(), 0);
}

/// The last line of what was said, its time taken off, and all before it.
#[track_caller]
fn stats(out: &Output) -> (String, String) {
    let text = out.stderr.strip_suffix('\n').unwrap();
    let (before, last) = text
        .rsplit_once('\n')
        .map_or(("", text), |(before, last)| (before, last));
    let (counts, seconds) = last
        .split_once(" seconds=")
        .unwrap_or_else(|| panic!("{out}"));
    let seconds: f64 = seconds.parse().unwrap();
    assert!((0.0..=out.took.as_secs_f64()).contains(&seconds), "{out}");
    (before.to_owned(), counts.to_owned())
}

#[test]
fn stats_are_one_line_at_the_end_with_right_counts() {
    let sample = Sample::new(9);
    let at_hand = sample.dir.join("at_hand");
    write_blocks(&at_hand, &sample.bytes[..3 * BLOCK_SIZE]);
    let length = sample.bytes.len();
    let all = |more| {
        format!(
            "blocks=10 local=0 fetched=10 missing=0 bytes={length} requests={}",
            10 + more
        )
    };
    let some = |more| {
        let bytes = length - 3 * BLOCK_SIZE;
        format!(
            "blocks=10 local=3 fetched=7 missing=0 bytes={bytes} requests={}",
            7 + more
        )
    };
    // The first of many jobs has one block to ask for, a lone one has several: it is told by one
    // request more that this server takes none for many.
    for (more, found_out) in [(&[][..], 1), (&["-q"], 1), (&["-j", "8"], 0)] {
        let good = sample.honest();
        let out = sample.get(&[&good]).arg("--stats").args(more).run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        assert_eq!(stats(&out), (String::new(), all(found_out)));
        assert_eq!(good.requests().len(), 10);
        let get = sample.get(&[&good]).arg("--stats").args(more);
        let out = get.arg("-d").arg(&at_hand).run();
        assert_eq!(stats(&out), (String::new(), some(found_out)));
    }
    let out = sample
        .get(&[&sample.honest()])
        .args(["-v", "--stats"])
        .run();
    let list = sample.list.display();
    let summary = format!("psync: get {list}: 10 blocks: 0 at hand, 10 fetched, 0 missing");
    assert_eq!(stats(&out), (summary, all(1)));
    // To a file; and once more, when there is nothing left to do.
    let file = sample.dir.join("file");
    let good = sample.honest();
    let get = || sample.get(&[&good]).arg("--stats");
    let out = get().arg("-o").arg(&file).run();
    assert_eq!(stats(&out), (String::new(), all(1)));
    let out = get().arg("-o").arg(&file).run();
    let none = "blocks=10 local=10 fetched=0 missing=0 bytes=0 requests=0";
    assert_eq!(stats(&out), (String::new(), none.to_owned()));
    // Of a list whose length nobody knows beforehand, and of an empty one.
    let list = hashlist(&sample.bytes[..2 * BLOCK_SIZE]);
    let good = sample.honest();
    let get = || psync!("get", "--stats", "-q", good.url(), "-");
    let two = "blocks=2 local=0 fetched=2 missing=0 bytes=8192 requests=3";
    assert_eq!(stats(&get().stdin(list).run()).1, two);
    let none = "blocks=0 local=0 fetched=0 missing=0 bytes=0 requests=0";
    assert_eq!(stats(&get().run()).1, none);
}

/// Bytes are those of all bodies, whether good for something or not; each server is asked once for
/// many blocks, in vain.
#[test]
fn stats_count_wasted_bytes_and_requests() {
    let sample = Sample::new(9);
    let lacking = HostileServer::http(|_| Reply::status(404, "0123456789"));
    let liar = HostileServer::http(|_| Reply::ok("lie"));
    let good = sample.honest();
    let out = sample.get(&[&lacking, &liar, &good]).arg("--stats").run();
    let bytes = sample.bytes.len() + 10 * 10 + 3 * 3;
    let due = format!("blocks=10 local=0 fetched=10 missing=0 bytes={bytes} requests=26");
    assert_eq!(stats(&out), (String::new(), due));
}

#[test]
fn stats_are_the_last_line_of_a_failure_too() {
    let sample = Sample::new(9);
    let mut blocks = sample.map();
    blocks.remove(&sample.hash(4));
    let lacking = HostileServer::http(move |request| Reply::honest(&blocks, request));
    for quiet in [false, true] {
        let get = || {
            let get = sample.get(&[&lacking]).arg("--stats");
            if quiet { get.arg("-q") } else { get }
        };
        let file = sample.dir.join(quiet.to_string());
        let out = get().arg("-o").arg(&file).run();
        let bytes = sample.bytes.len() - BLOCK_SIZE + "not found\n".len();
        let due = format!("blocks=10 local=0 fetched=9 missing=1 bytes={bytes} requests=11");
        assert!(out.status == 3 && out.stderr.lines().count() == 3, "{out}");
        assert!(out.stderr.contains(&due), "{out}");
        assert_eq!(stats(&out).1, due);
        let out = get().run();
        assert!(
            out.status == 3 && out.stdout.len() == 4 * BLOCK_SIZE,
            "{out}"
        );
        let (before, counts) = stats(&out);
        assert!(before.starts_with(sample.lacks(4).trim_end()), "{out}");
        assert!(counts.contains(" missing=1 "), "{out}");
    }
}

/// What cron mails: nothing, from a run that did well in the end, on a stderr that is a file.
#[test]
fn success_is_silent_whatever_was_met_on_the_way() {
    let sample = Sample::new(9);
    let servers = [
        HostileServer::http(|_| Reply::status(404, "")),
        HostileServer::http(|_| Reply::ok("lie")),
        HostileServer::http(|_| Reply::status(503, "")),
        HostileServer::http(|_| Reply::raw("").then_silence()),
        at_first(&sample, Reply::status(503, "")),
    ];
    let [a, b, c, d, e] = &servers;
    let get = sample.get(&[a, b, c, &Refusing::new(), d, e]);
    let get = get.args(["--timeout", "0.5", "--retry", "2", "-j", "8", "-o"]);
    let (file, log) = (sample.dir.join("file"), sample.dir.join("log"));
    let stderr: Stdio = std::fs::File::create(&log).unwrap().into();
    get.arg(&file).stderr_to(stderr).run().ok();
    reads_as(&sample, &file);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
}
