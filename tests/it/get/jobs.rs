//! Many requests at once (`-j`): how many, in which order their blocks come out, in how much memory,
//! and what servers cost that are dead, silent or lie, when eight workers meet them.

use std::fmt::Display;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::*;

/// More than any of these tests takes, less than the watchdog's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// A number that a handler waits for.
#[derive(Clone, Default)]
struct Meter(Arc<(Mutex<Counts>, Condvar)>);

#[derive(Clone, Copy, Default)]
struct Counts {
    arrived: usize,
    answered: usize,
    most: usize,
    released: bool,
}

impl Meter {
    fn change<T>(&self, change: impl Fn(&mut Counts) -> T) -> T {
        let done = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        done
    }

    fn wait(&self, enough: impl Fn(&Counts) -> bool) {
        let counts = self.0.0.lock().unwrap();
        let unfinished = |counts: &mut Counts| !enough(counts);
        drop(self.0.1.wait_timeout_while(counts, PATIENCE, unfinished));
    }

    /// Which request this is, from 0.
    fn arrive(&self) -> usize {
        self.change(|counts| {
            counts.arrived += 1;
            counts.most = counts.most.max(counts.arrived - counts.answered);
            counts.arrived - 1
        })
    }

    fn most(&self) -> usize {
        self.0.0.lock().unwrap().most
    }
}

/// Answers the first request at once: one worker finds out whether a server answers at all. Of
/// those after it, it holds each batch of `n` until it is whole, and answers it backwards.
fn holding(sample: &Sample, n: usize, meter: &Meter) -> HostileServer {
    let (blocks, meter) = (sample.map(), meter.clone());
    HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let nth = meter.arrive();
            if let Some(nth) = nth.checked_sub(1) {
                let (batch, place) = (nth / n, nth % n);
                meter.wait(|counts| counts.arrived > (batch + 1) * n);
                // Time for one too many to arrive.
                if place == n - 1 && !conn.pause(Duration::from_millis(50)) {
                    return;
                }
                meter.wait(|counts| counts.answered == 1 + batch * n + (n - 1 - place));
            }
            // Before it is sent: the next request may arrive before `send` is back.
            meter.change(|counts| counts.answered += 1);
            if !conn.send(Reply::honest(&blocks, &request).bytes()) {
                return;
            }
        }
    })
}

#[test]
fn so_many_requests_are_under_way_at_once_and_never_more() {
    for n in [1, 2, 8, 64] {
        let (sample, meter) = (Sample::new(2 * n), Meter::default());
        let server = holding(&sample, n, &meter);
        let out = sample.get(&[&server]).args(["-j", &n.to_string()]).run();
        sample.is_whole(out);
        assert_eq!((meter.most(), server.requests().len()), (n, 2 * n + 1));
        assert!(server.connections() <= n, "{n}: {}", server.connections());
    }
}

#[test]
fn eight_are_under_way_unless_something_else_is_said() {
    let (sample, meter) = (Sample::new(16), Meter::default());
    let server = holding(&sample, 8, &meter);
    sample.is_whole(psync!("get", &server.url(), &sample.list).run());
    assert_eq!(meter.most(), 8);
}

#[test]
fn blocks_that_come_backwards_find_their_places() {
    let (sample, meter) = (Sample::new(32), Meter::default());
    let server = holding(&sample, 8, &meter);
    let file = sample.dir.join("file");
    let get = sample.get(&[&server]).args(["-j", "8"]);
    get.arg("-o").arg(&file).run().ok();
    assert!(std::fs::read(&file).unwrap() == sample.bytes);
    assert_eq!(meter.most(), 8);
}

#[test]
fn a_list_that_is_still_being_written_is_worked_at_as_it_comes() {
    use std::io::Write;
    let (sample, good) = (Sample::new(20), Sample::new(20).honest());
    let mut get = psync!("get", "-j", "8", good.url(), "-")
        .stdin_from(Stdio::piped())
        .start();
    let mut list = get.stdin.take().unwrap();
    for n in 0..3 {
        writeln!(list, "{}", sample.hash(n)).unwrap();
        get.wait_stdout(|out| out.len() == (n + 1) * BLOCK_SIZE);
    }
    for n in 3..21 {
        writeln!(list, "{}", sample.hash(n)).unwrap();
    }
    drop(list);
    sample.is_whole(get.wait());
}

#[test]
fn a_number_of_jobs_out_of_range_is_a_usage_error() {
    let sample = Sample::new(1);
    let good = sample.honest();
    for number in [
        "0",
        "257",
        "-1",
        "1.5",
        "x",
        "",
        "18446744073709551617",
        "+8",
    ] {
        let out = sample.get(&[&good]).arg(format!("--jobs={number}")).run();
        out.fails(
            2,
            &format!("psync: '{number}': --jobs takes a number, 1 to 256; see psync get --help\n"),
        );
    }
    assert_eq!(good.connections(), 0);
    sample.is_whole(sample.get(&[&good]).args(["-j", "256"]).run());
}

/// Answers all but block 1 (block 0 shows that it answers), which waits to be released.
fn stalling(sample: &Sample, meter: &Meter) -> HostileServer {
    let (blocks, meter, stalled) = (sample.map(), meter.clone(), sample.hash(1));
    HostileServer::http(move |request| {
        if request.hash() == stalled {
            meter.wait(|counts| counts.released);
        }
        Reply::honest(&blocks, request)
    })
}

/// The window is bounded, whatever the number of jobs and the size of the file.
#[test]
fn a_stream_that_waits_for_one_block_fetches_few_others_meanwhile() {
    for (jobs, most) in [(8, 2500), (64, 2500)] {
        let (sample, meter) = (Sample::new(4000), Meter::default());
        let server = stalling(&sample, &meter);
        let get = sample.get(&[&server]).args(["-j", &jobs.to_string()]);
        let get = get.args(["--timeout", "30"]).start();
        wait_until("requests come", || server.requests().len() >= 2 * jobs);
        let asked = server.settled();
        let peak = peak_kib(get.pid());
        meter.change(|counts| counts.released = true);
        sample.is_whole(get.wait());
        assert!(asked <= most, "-j {jobs}: {asked} requests");
        assert!(peak < 24 * 1024, "-j {jobs}: {peak} KiB");
    }
}

/// A file has a place for each block: one that does not come holds up only the few that its
/// worker was to fetch after it.
#[test]
fn a_file_that_waits_for_one_block_goes_on_with_the_others() {
    let (sample, meter) = (Sample::new(4000), Meter::default());
    let server = stalling(&sample, &meter);
    let file = sample.dir.join("file");
    let get = sample
        .get(&[&server])
        .args(["-j", "8", "--timeout", "30", "-o"]);
    let get = get.arg(&file).start();
    wait_until("all but a few are asked for", || {
        server.requests().len() >= 4001 - 32
    });
    meter.change(|counts| counts.released = true);
    get.wait().ok();
    assert!(std::fs::read(&file).unwrap() == sample.bytes);
}

type Answer = fn(&[u8]) -> Reply;

/// Some of each kind that one worker alone meets in `answers`.
#[test]
#[rustfmt::skip]
fn a_bad_answer_is_bad_to_eight_workers_too() {
    fn raw(head: &str, block: &[u8]) -> Reply {
        Reply::raw([head.as_bytes(), block].concat())
    }
    let table: &[(&str, Answer, &str)] = &[
        ("flipped", |b| Reply::ok(b.iter().map(|c| !c).collect::<Vec<_>>()), "wrong bytes ("),
        ("another valid block", |_| Reply::ok(random(BLOCK_SIZE, 99)), "wrong bytes (4096)"),
        ("an empty answer", |_| Reply::ok(""), "an empty answer"),
        ("a byte more", |b| Reply::ok([b, b"x"].concat()), ""),
        ("too long a length", |b| raw("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n", &b[1..]).then_close(), ""),
        ("10^12", |b| raw("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b), "which no block has"),
        ("two lengths", |b| raw("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\nContent-Length: 5\r\n\r\n", b), "content-length"),
        ("a chunk over 2^64", |_| raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx", b""), "chunk length"),
        ("chunks without end", |_| raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"").then_forever("1\r\nx\r\n"), "more bytes than"),
        ("a body without end", |_| raw("HTTP/1.1 200 OK\r\n\r\n", b"").then_forever([b'x'; 4096]), "more bytes than"),
        ("a head without end", |_| raw("HTTP/1.1 200 OK\r\nX: ", b"").then_forever([b'x'; 4096]), "a head of over 16384 bytes"),
        ("an SSH banner", |_| Reply::raw("SSH-2.0-OpenSSH_9.6\r\n").then_close(), "not HTTP: "),
        ("random bytes", |_| Reply::raw(random(1000, 5)).then_close(), "not HTTP: "),
        ("a FIN at once", |_| Reply::raw("").then_close(), "it hung up without an answer"),
        ("a reset at once", |_| Reply::raw("").then_reset(), "it hung up without an answer"),
        ("a reset in the body", |b| raw("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n", &b[1..]).then_reset(), ""),
        ("404", |_| Reply::status(404, "no"), "HTTP 404 Not Found"),
        ("a redirect", |_| Reply::with(302, &["Location: /"], ""), "HTTP 302 Found"),
        ("503", |_| Reply::with(503, &["Retry-After: 1"], ""), "HTTP 503 Service Unavailable"),
        ("silence", |_| Reply::raw("").then_silence(), "no answer within 1 s (given up)"),
        ("silence in the body", |b| raw("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n", &b[1..]).then_silence(), "no whole answer within 1 s (given up)"),
        ("a slow head", |b| Reply::ok(b).paced(Duration::from_millis(100)), "no answer within 1 s (given up)"),
    ];
    // Not all at once, so that the clock is about the server and not about the machine.
    for some in table.chunks(4) {
        thread::scope(|scope| {
            for (name, answer, why) in some {
                scope.spawn(|| falls_back(name, *answer, why));
            }
        });
    }
}

fn falls_back(name: &str, answer: Answer, why: &str) {
    let sample = Sample::new(40);
    let bad = || {
        let blocks = sample.map();
        HostileServer::http(move |request| answer(&blocks[request.hash()]))
    };
    let get = |servers: &[&dyn Display]| {
        let get = sample.get(servers).args(["-j", "8", "--timeout", "1"]);
        get.run()
    };
    let lone = bad();
    let out = get(&[&lone]);
    let told: Vec<_> = out.stderr.lines().collect();
    let as_due = out.status == 3 && out.stdout.is_empty() && told.len() == 2;
    assert!(as_due && told[1].contains(why), "{name}: {out}");
    let asked = lone.requests().len();
    // Three strikes and a request of each worker, once more where it hung up.
    assert!(asked <= 2 * 11 || name == "404", "{name}: {asked}");
    let out = get(&[&bad(), &sample.honest()]);
    let whole = out.status == 0 && out.stdout == sample.bytes && out.stderr.is_empty();
    assert!(whole, "{name}: {out}");
}

/// 2,000 blocks by eight workers, where a first server is no good: how many requests the good one did not
/// get. Each of them may have cost its timeout, so what that comes to is counted and not timed.
#[track_caller]
fn asked_in_vain(name: &str, first: &dyn Display) -> usize {
    let sample = Sample::new(1999);
    let blocks = sample.map();
    // Counts also what it answers with 405, as psync does.
    let good = HostileServer::http(move |request| Reply::honest(&blocks, request)).taking_runs();
    let get = sample.get(&[first, &good]).args(["-j", "8"]);
    let get = get.args(["-v", "--stats", "--timeout", "2"]);
    let out = get.args(["--connect-timeout", "1"]).run();
    let whole = out.status == 0 && out.stdout == sample.bytes;
    let told = format!("psync: give up http://{first}: ");
    let once = out.stderr.starts_with(&told) && out.stderr.matches("give up").count() == 1;
    assert!(whole && once, "{name}: {out}");
    out.stat("requests") as usize - good.requests().len()
}

#[test]
fn a_dead_first_server_costs_its_timeout_once_whatever_the_number_of_jobs() {
    let unseen: [(&str, &dyn Display); 3] = [
        ("refuses", &Refusing::new()),
        ("no such host", &"no.such.host.invalid"),
        ("black hole", &Deaf::new()),
    ];
    for (name, dead) in unseen {
        assert_eq!(asked_in_vain(name, dead), 1, "{name}");
    }
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\nx";
    for (name, answer) in [("silent", ""), ("silent in a body", half)] {
        let silent = HostileServer::http(move |_| Reply::raw(answer).then_silence());
        asked_in_vain(name, &silent);
        assert_eq!((silent.connections(), silent.requests().len()), (1, 1));
    }
}

#[test]
fn a_lying_first_server_is_asked_a_few_times_whatever_the_number_of_jobs() {
    for lie in [
        Reply::ok([0; BLOCK_SIZE]),
        Reply::status(500, "sorry"),
        Reply::raw("lie\r\n\r\n").then_close(),
        Reply::raw("").then_close(),
    ] {
        let liar = HostileServer::http(move |_| lie.clone());
        asked_in_vain("liar", &liar);
        let asked = liar.requests().len();
        // Three strikes, and what the other workers had asked by then; twice where it hung up.
        assert!((3..=2 * 11).contains(&asked), "{asked}");
    }
}

/// Good for its first hundred blocks, and then as `after`.
fn turns(after: Reply) -> HostileServer {
    let (blocks, asked) = (Sample::new(1999).map(), AtomicUsize::new(0));
    HostileServer::http(move |request| match asked.fetch_add(1, SeqCst) {
        ..100 => Reply::honest(&blocks, request),
        _ => after.clone(),
    })
}

#[test]
fn a_first_server_that_turns_bad_costs_its_timeout_once_whatever_the_number_of_jobs() {
    let silent = turns(Reply::raw("").then_silence());
    asked_in_vain("turns silent", &silent);
    let asked = silent.requests().len();
    assert!((101..=108).contains(&asked), "{asked}");
    for (name, after) in [
        ("turns liar", Reply::ok("lie")),
        ("hangs up", Reply::raw("").then_close()),
        ("resets", Reply::raw("").then_reset()),
    ] {
        let server = turns(after);
        asked_in_vain(name, &server);
        let asked = server.requests().len();
        // A good answer that is late, of seven other workers, begins the count of strikes anew after two
        // of them; then three, and what was under way. Each twice, where it hung up.
        let most = 2 * (7 * 2 + 3 + 7);
        assert!((103..=100 + most).contains(&asked), "{name}: {asked}");
    }
}

#[test]
fn a_first_server_that_is_killed_loses_no_block_of_eight_workers() {
    use std::io::Write;
    let sample = Sample::new(1999);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    let (dying, good) = (Server::start(sample.dir.join("blocks")), sample.honest());
    let mut get = psync!("get", "-j", "8", "--retry=0", dying.url(), good.url(), "-")
        .stdin_from(Stdio::piped())
        .start();
    let mut pipe = get.stdin.take().unwrap();
    let list = hashlist(&sample.bytes);
    let (first, rest) = list.split_at(65 * 300);
    pipe.write_all(first.as_bytes()).unwrap();
    get.wait_stdout(|out| out.len() >= 100 * BLOCK_SIZE);
    dying.stop();
    pipe.write_all(rest.as_bytes()).unwrap();
    drop(pipe);
    sample.is_whole(get.wait());
    assert!(good.requests().len() >= 1700);
}

#[test]
fn memory_does_not_grow_with_the_list() {
    let dir = TempDir::new();
    let list = long_list(&dir, 262_144);
    // At hand: that is quick, and the list, the window and the writing are the same.
    let get = psync!("get", "-j", "8", "-d", dir.join("blocks"), &list);
    let peak = peak_of(get);
    assert!(peak < 24 * 1024, "{peak} KiB");
}

#[test]
fn sixty_four_jobs_need_little_memory() {
    let dir = TempDir::new();
    let list = long_list(&dir, 8192);
    let server = Server::start(dir.join("blocks"));
    let peak = peak_of(psync!("get", "-j", "64", server.url(), &list));
    assert!(peak < 24 * 1024, "{peak} KiB");
}

#[test]
#[ignore = "a minute: a gigabyte over loopback"]
fn slow_memory_does_not_grow_with_what_is_fetched() {
    let dir = TempDir::new();
    let list = long_list(&dir, 262_144);
    let server = Server::start(dir.join("blocks"));
    for jobs in ["8", "64"] {
        let peak = peak_of(psync!("get", "-j", jobs, server.url(), &list));
        assert!(peak < 24 * 1024, "-j {jobs}: {peak} KiB");
    }
}

/// Few descriptors, 16 MiB of memory all in all, and the usual eight jobs.
#[test]
fn a_small_machine_will_do_for_eight_jobs() {
    let sample = Sample::new(2000);
    let good = sample.honest();
    let small = "ulimit -n 64; ulimit -v 16384";
    let get = || {
        psync!(
            "get",
            "--retry=0",
            Refusing::new().to_string(),
            good.url(),
            &sample.list
        )
    };
    sample.is_whole(get().sh(small).run());
    let file = sample.dir.join("file");
    get().arg("-o").arg(&file).sh(small).run().ok();
    assert!(std::fs::read(&file).unwrap() == sample.bytes);
}

/// More jobs than descriptors: done, or one clear line that is not about a server.
#[test]
fn descriptors_short_of_the_jobs_are_told_as_such() {
    let sample = Sample::new(1000);
    let good = sample.honest();
    for descriptors in [8, 12, 16, 32, 64, 128] {
        let get = sample.get(&[&good]).args(["-j", "64"]);
        let out = get.sh(&format!("ulimit -n {descriptors}")).run();
        if out.status == 0 {
            sample.is_whole(out);
            continue;
        }
        let one_line = out.stderr.lines().count() == 1 && out.stderr.contains("see ulimit -n");
        assert!(out.status == 1 && one_line, "{descriptors}: {out}");
        assert!(sample.bytes.starts_with(&out.stdout), "{descriptors}");
    }
}

/// The limit counts a user's threads all over the machine, so a user is needed who has none.
#[test]
#[ignore = "takes another user id"]
fn root_too_few_threads_are_fewer_workers() {
    use std::os::unix::fs::PermissionsExt;
    let sample = Sample::new(1000);
    std::fs::set_permissions(&sample.dir, PermissionsExt::from_mode(0o755)).unwrap();
    // Where the other user may reach it.
    let dir = TempDir::new();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    let psync = dir.join("psync");
    std::fs::copy(PSYNC, &psync).unwrap();
    for threads in [2, 4, 16] {
        let good = sample.honest();
        let get = Run::new(&psync).args(["get", "-j", "64", &good.url()]);
        // Nobody's but this test's.
        let user = ["--reuid=61234", "--regid=61234", "--clear-groups"];
        let get = get
            .arg(&sample.list)
            .under("prlimit", [format!("--nproc={threads}")])
            .under("setpriv", user);
        sample.is_whole(get.run());
        assert!(good.connections() < threads, "{threads}");
    }
}
