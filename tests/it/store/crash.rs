//! What a crash leaves, and what a refusal does, at each system call: nothing wrong is believed, and
//! the same command again completes.

use std::fs::{self, File};
use std::net::SocketAddr;

use crate::support::*;

const STORIES: [Story; 9] = [
    EXPORT,
    EXPORT_ROOT,
    EXPORT_NEW,
    GET,
    GET_ROOT,
    IN_PLACE,
    KEEP,
    KEEP_ROOT,
    KEEP_NEW,
];

/// Kills it at these moments, each from the same beginning. strace sends the signal as a call begins,
/// which is then not made: so what is met is every state of the disk between two calls of a thread.
/// What is not: the middle of a call, and the order of two threads' calls is that of the run. Of what
/// has no path, and so changes no file, a call that another thread has made as often is not met; nor
/// is one that this run does without. A server of the directory sees the same states while the writer
/// lives.
fn kill_at(story: &Story, world: &World, moments: &[&Moment], always: &[String]) {
    let killed = count(moments, |place, moment| {
        let _case = Case(format!("{} {moment:?}", story.words));
        story.sets_out(place, world);
        let out = story.killed(place, world, moment);
        story.assert_sound(place, world, &out.stdout);
        story.assert_completes(place, world);
        story.assert_blocks_sound(place, world);
        assert_left(place, world, always);
        out.status == 137
    });
    let (all, what) = (moments.len(), story.words);
    assert!(killed * 10 > all * 9, "{killed} of {all}: {what}");
}

#[test]
#[ignore = "a minute, for some three thousand moments"]
fn slow_killed_at_each_system_call_it_leaves_nothing_wrong_and_the_next_completes() {
    let world = World::new();
    for story in &STORIES {
        let (moments, always) = moments(story, &world);
        let moments: Vec<_> = moments.iter().map(|(moment, _)| moment).collect();
        kill_at(story, &world, &moments, &always);
    }
}

/// Of so many blocks that all threads have some, and of so many calls only these.
#[test]
#[ignore = "half a minute"]
fn slow_killed_amid_several_threads_it_leaves_nothing_wrong_and_the_next_completes() {
    const EACH: usize = 11;
    let world = World::of(&random(150 * BLOCK_SIZE + 5, 9));
    for story in [&EXPORT_NEW, &KEEP_NEW] {
        let (moments, always) = moments(story, &world);
        let moments = moments.iter().map(|(moment, _)| moment);
        let moments: Vec<_> = moments.skip(EACH / 2).step_by(EACH).collect();
        kill_at(story, &world, &moments, &always);
    }
}

/// What the system may say to a call. Nothing to those that are not psync's to answer for: memory,
/// without which std aborts; what starts a thread, of which it sees the whole; locks between threads;
/// and the end.
fn refusals(call: &Call) -> &'static [&'static str] {
    match call.name() {
        // A thread's stack.
        "mmap"
            if call
                .text
                .contains("PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_STACK") =>
        {
            &["ENOMEM"]
        }
        "mmap" | "munmap" | "mprotect" | "madvise" | "brk" | "rseq" | "set_robust_list"
        | "sigaltstack" | "rt_sigaction" | "rt_sigprocmask" | "gettid" | "sched_getaffinity"
        | "futex" | "exit" | "exit_group" => &[],
        // std asserts that a directory can be closed.
        "close" if call.text.contains("/b>") || call.text.contains("</sys/block>") => &[],
        "getrandom" => &["ENOSYS"],
        "clone3" | "clone" => &["EAGAIN"],
        "socket" => &["EMFILE", "ENOBUFS"],
        // It does not wait, so nothing interrupts it.
        "connect" => &["ECONNREFUSED", "ENETUNREACH"],
        "sendto" => &["EINTR", "ECONNRESET", "ENOBUFS"],
        "recvfrom" => &["EINTR", "ECONNRESET", "ENOMEM"],
        "poll" | "ppoll" => &["EINTR", "ENOMEM"],
        // std tries again after an interruption, but where it reads a directory.
        "accept4" => &["EINTR", "EMFILE", "ECONNABORTED", "ENOMEM"],
        "bind" | "listen" => &["EADDRINUSE"],
        "openat" if call.text.contains("O_DIRECTORY") => &["EIO", "EMFILE"],
        "openat" => &["EINTR", "EIO", "EMFILE", "ENOSPC", "ENOMEM"],
        "read" | "pread64" | "fsync" => &["EINTR", "EIO"],
        "write" if call.text.contains("<pipe:") => &["EINTR", "ENOMEM"],
        "write" | "pwrite64" | "ftruncate" => &["EINTR", "EIO", "ENOSPC"],
        "rename" | "mkdir" => &["EIO", "ENOSPC"],
        "flock" => &["EIO", "ENOLCK"],
        _ => &["EIO"],
    }
}

type Refusal<'a> = (&'a Moment, &'a Call, &'static str);

/// Each refusal of each moment; of calls that fail alike in a row, as in the search for a free number,
/// of the first.
fn refused<'a>(moments: &'a [(Moment, &'a Call)]) -> Vec<Refusal<'a>> {
    let alike = |before: &Call, call: &Call| {
        before.is(&[call.name()]) && before.has_failed() && call.has_failed()
    };
    let is_first = |n: usize| n == 0 || !alike(moments[n - 1].1, moments[n].1);
    let firsts = (0..moments.len())
        .filter(|&n| is_first(n))
        .map(|n| &moments[n]);
    let cases = firsts.flat_map(|(moment, call)| {
        let errors = refusals(call).iter();
        errors.map(move |&error| (moment, *call, error))
    });
    cases.collect()
}

/// What strace tells of a run.
struct Log(TempDir);

impl Log {
    fn has_refused(&self) -> bool {
        let text = fs::read(self.0.join("log")).unwrap();
        String::from_utf8_lossy(&text).contains("(INJECTED)")
    }
}

/// Words for strace to refuse a call, and its log.
fn refusing(moment: &Moment, error: &str, place: &Place) -> (Vec<String>, Log) {
    let log = TempDir::new();
    let words = ["-f", "-o", log.join("log").to_str().unwrap()].map(str::to_owned);
    let inject = moment.inject(&format!("error={error}"), place);
    ([&words[..], &inject].concat(), Log(log))
}

/// Calls by which FILE.part is given what FILE grants.
const RIGHTS: [&str; 3] = ["fchown", "fsetxattr", "fremovexattr"];

/// What failed on this machine is told in one line, what could not be had in some; else nothing is.
fn assert_told(out: &Output, moment: &Moment) {
    let lines = out.stderr.lines();
    // What the main thread tells may be its own first write.
    let untold = moment.name == "write";
    let right = match out.status {
        // Without an ACL, or a mode, FILE grants less, which is told.
        0 if RIGHTS.contains(&moment.name.as_str()) => {
            out.stderr.is_empty() || out.stderr.starts_with("psync: keep the rights of ")
        }
        0 => out.stderr.is_empty(),
        1 => lines.clone().count() == 1 || untold && out.stderr.is_empty(),
        3 => !out.stderr.is_empty(),
        _ => false,
    };
    assert!(right, "{out}");
    assert!(
        lines.clone().all(|line| line.starts_with("psync: ")),
        "{out}"
    );
}

#[test]
#[ignore = "two minutes"]
fn slow_whatever_call_is_refused_it_is_told_and_the_next_run_completes() {
    let world = World::new();
    for story in &STORIES {
        let (moments, always) = moments(story, &world);
        let moments: Vec<_> = moments
            .iter()
            .map(|(moment, call)| (moment.clone(), call))
            .collect();
        let cases = refused(&moments);
        let met = count(&cases, |place, (moment, call, error)| {
            let _case = Case(format!("{} {moment:?} {error} {}", story.words, call.text));
            story.sets_out(place, &world);
            let (words, log) = refusing(moment, error, place);
            let out = story.run(place, &world).under("strace", words).run();
            assert_told(&out, moment);
            assert!(*error != "EINTR" || out.status == 0, "{out}");
            story.assert_sound(place, &world, &out.stdout);
            story.assert_completes(place, &world);
            if story.has("b") {
                // One that has nothing to write does not clear up, where that was what failed.
                psync!("export", "-d", "b", "/dev/null")
                    .cwd(&place.dir)
                    .run()
                    .ok();
            }
            assert_left(place, &world, &always);
            log.has_refused()
        });
        let all = cases.len();
        assert!(met * 10 > all * 9, "{met} of {all}: {}", story.words);
    }
}

/// A server that is at work under strace.
struct Traced {
    running: Running,
    addr: SocketAddr,
}

const SERVER: &str = "server -d b --file in --peers list 127.0.0.1:0";

/// All blocks are in `b`, so that it does not matter how far the file has been read.
fn sets_out_server(place: &Place, world: &World) {
    EXPORT.sets_out(place, world);
    write_blocks(place.join("b"), world.new.bytes());
}

/// Starts one, as strace is told to treat it; or what it said instead.
fn serve(place: &Place, strace: &[String]) -> Result<Traced, Output> {
    let said = place.join("said");
    let run = psync!().args(SERVER.split(' ')).cwd(&place.dir);
    // psync is to be the child, which is ended in the end, and strace to let go when it is told to.
    let words = ["-D", "-I1"].map(str::to_owned);
    let run = run.under("strace", [&words, strace].concat());
    let mut running = run.stdout_to(File::create(&said).unwrap()).start();
    let listens = || fs::read_to_string(&said).unwrap();
    wait_until("it listens or ends", || {
        listens().ends_with('\n') || !running.is_alive()
    });
    match listens().trim_end().strip_prefix("listening on ") {
        Some(addr) => Ok(Traced {
            running,
            addr: addr.parse().unwrap(),
        }),
        None => Err(running.wait()),
    }
}

impl Traced {
    /// Asks for a block, for all at once and for the peers, each on a connection of its own; whatever
    /// comes whole is right. Returns whether all came.
    fn answers(&self, world: &World) -> bool {
        let list: String = world.map.keys().map(|hash| format!("{hash}\n")).collect();
        let of_file = block_map(world.new.bytes());
        let (hash, block) = of_file.first_key_value().unwrap();
        [
            (format!("GET /{hash}"), "", block.clone()),
            (
                "POST /blocks".to_owned(),
                &list[..],
                frames(&of_file, world.map.keys()),
            ),
            ("GET /peers".to_owned(), "", world.list().into_bytes()),
        ]
        .into_iter()
        .all(|(line, body, wanted)| {
            let mut client = Client::connect(self.addr);
            let head = format!(
                "Host: t\r\nContent-Length: {}\r\nConnection: close",
                body.len()
            );
            client.try_send(format!("{line} HTTP/1.1\r\n{head}\r\n\r\n{body}"));
            let answer = Response::parse(&client.read_to_any_end(), false);
            answer.is_some_and(|(answer, _)| {
                assert!(answer.status != 200 || answer.body == wanted, "{line}");
                answer.status == 200
            })
        })
    }

    /// Without strace, which would do the same to each new thread.
    fn released(self) -> Self {
        let tracer = || {
            let status =
                fs::read_to_string(format!("/proc/{}/status", self.running.pid())).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("TracerPid:"));
            line.unwrap().trim().parse::<u32>().unwrap()
        };
        if tracer() != 0 {
            signal(tracer(), "TERM");
        }
        wait_until("strace lets go", || tracer() == 0);
        self
    }
}

#[test]
#[ignore = "a minute"]
fn slow_whatever_call_is_refused_a_server_goes_on_or_tells_why_it_does_not_begin() {
    let world = World::new();
    let place = Place::new();
    place.clear();
    sets_out_server(&place, &world);
    let log = place.join("log");
    let to = ["-f", "-y", "-s", "0", "-o", log.to_str().unwrap()].map(str::to_owned);
    let server = serve(&place, &to).ok().unwrap();
    assert!(server.answers(&world));
    server.released().running.kill();
    let calls = Call::parse(&fs::read(&log).unwrap());
    let moments = Moment::of(&calls, &place);
    let cases = refused(&moments);
    let met = count(&cases, |place, (moment, call, error)| {
        let _case = Case(format!("{moment:?} {error} {}", call.text));
        sets_out_server(place, &world);
        let (words, log) = refusing(moment, error, place);
        match serve(place, &words) {
            Err(out) => {
                assert!(out.status == 1 && out.stderr.lines().count() == 1, "{out}");
                assert!(out.stderr.starts_with("psync: "), "{out}");
            }
            Ok(server) => {
                let answered = server.answers(&world);
                assert!(answered || *error != "EINTR");
                let mut server = server.released();
                assert!(server.answers(&world), "not any more");
                assert!(server.running.is_alive());
                let out = server.running.kill();
                assert!(
                    out.stderr.lines().all(|line| line.starts_with("psync: ")),
                    "{out}"
                );
            }
        }
        log.has_refused()
    });
    let all = cases.len();
    assert!(met * 10 > all * 9, "{met} of {all}");
}
