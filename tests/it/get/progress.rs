//! The progress line of `get`: what a person sees at a terminal, and nobody else. The terminal is
//! a pseudo one, of `script`; standard output goes to a file.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::support::*;

/// To the first column, and all after it erased.
const CLEAR: &str = "\r\x1b[K";

/// What the terminal got, and standard output.
struct Seen {
    status: i32,
    screen: String,
    stdout: Vec<u8>,
}

impl Seen {
    /// All that was drawn, in order; empty where the line was taken away.
    fn drawn(&self) -> Vec<&str> {
        self.screen.split(CLEAR).skip(1).collect()
    }

    /// Only drawn lines, the last of which was taken away.
    #[track_caller]
    fn is_tidy(&self) -> Vec<&str> {
        let mut drawn = self.drawn();
        assert!(self.screen.starts_with(CLEAR), "{:?}", self.screen);
        assert_eq!(drawn.pop(), Some(""), "left behind: {:?}", self.screen);
        let plain = drawn.iter().all(|line| !line.contains(char::is_control));
        assert!(plain && !drawn.contains(&""), "{:?}", self.screen);
        drawn
    }
}

/// Runs `psync get WORDS >out` at a terminal, after these shell commands.
#[track_caller]
fn start(sample: &Sample, before: &str, words: &str) -> (Running, PathBuf, io::PipeWriter) {
    let out = sample.dir.join("out");
    let command = format!("{before}\nexec \"$PSYNC\" get {words} >\"$OUT\"");
    let (script, typist) = at_terminal(&command);
    let script = script.env("OUT", &out).env("LIST", &sample.list);
    (script.start(), out, typist)
}

#[track_caller]
fn watch(sample: &Sample, before: &str, words: &str) -> Seen {
    let (run, out, _typist) = start(sample, before, words);
    let done = run.wait();
    Seen {
        status: done.status,
        screen: done.text().to_owned(),
        stdout: fs::read(out).unwrap(),
    }
}

/// Takes its time over each block, so that there is something to see.
fn unhurried(sample: &Sample) -> HostileServer {
    unhurried_with(sample.map())
}

fn unhurried_with(blocks: BlockMap) -> HostileServer {
    HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let reply = Reply::honest(&blocks, &request);
            if !(conn.pause(Duration::from_millis(40)) && conn.send(reply.bytes())) {
                return;
            }
        }
    })
}

/// As numbers: `" 25 %  50/200 blocks …"`.
fn share(line: &str) -> Option<(u64, u64, u64)> {
    let (percent, rest) = line.split_once(" %  ")?;
    let (done, rest) = rest.split_once('/')?;
    let (total, _) = rest.split_once(" blocks  ")?;
    Some((
        percent.trim().parse().ok()?,
        done.parse().ok()?,
        total.parse().ok()?,
    ))
}

#[test]
fn a_terminal_is_shown_share_rate_and_origin_until_the_end() {
    let sample = Sample::new(29);
    let server = unhurried(&sample);
    let at_hand = sample.dir.join("at_hand");
    write_blocks(&at_hand, &sample.bytes[..3 * BLOCK_SIZE]);
    let words = format!("-j 1 -d '{}' {server} \"$LIST\"", at_hand.display());
    let seen = watch(&sample, "stty cols 120", &words);
    assert!(seen.status == 0 && seen.stdout == sample.bytes);
    let drawn = seen.is_tidy();
    // A second or more, several times a second.
    assert!(drawn.len() >= 3, "{drawn:?}");
    let mut before = 0;
    for line in &drawn {
        let Some((percent, done, total)) = share(line) else {
            panic!("{line}")
        };
        assert!(total == 30 && (before..=total).contains(&done), "{drawn:?}");
        assert_eq!(percent, done * 100 / total, "{line}");
        assert!(line.contains(" MB/s"), "{line}");
        before = done;
    }
    let last = drawn.last().unwrap();
    assert!(
        last.contains("3 at hand") && last.contains(" fetched"),
        "{last}"
    );
    assert!(last.contains(" left"), "{last}");
    // It goes on while nothing comes, but not as fast as it can.
    assert!(drawn.len() < 60, "{drawn:?}");
}

#[test]
fn under_a_root_the_share_is_known_from_the_start() {
    let sample = Sample::new(89);
    let rooted = Rooted::new(&sample.bytes);
    let server = unhurried_with(rooted.map());
    let words = format!("{server} {}", rooted.root);
    let seen = watch(&sample, "stty cols 120", &words);
    assert!(seen.status == 0 && seen.stdout == sample.bytes);
    let drawn = seen.is_tidy();
    let known = |line: &&str| share(line).is_some_and(|(_, _, total)| total == 90);
    assert!(drawn.iter().all(known), "{drawn:?}");
}

/// Of one worker and a server that takes its time: each block is news.
#[test]
fn the_line_moves_as_blocks_come() {
    let sample = Sample::new(40);
    let server = unhurried(&sample);
    let seen = watch(&sample, "", &format!("-j 1 {server} \"$LIST\""));
    let mut done: Vec<_> = seen
        .is_tidy()
        .iter()
        .filter_map(|line| share(line))
        .collect();
    done.dedup();
    // Over a second and a half, several times a second.
    assert!(done.len() >= 6, "{done:?}");
}

#[test]
fn the_progress_of_a_file_is_shown_too() {
    let sample = Sample::new(19);
    let (server, file) = (unhurried(&sample), sample.dir.join("file"));
    let words = format!("-o '{}' {server} \"$LIST\"", file.display());
    let seen = watch(&sample, "", &words);
    assert!(seen.status == 0 && fs::read(file).unwrap() == sample.bytes);
    assert!(seen.is_tidy().iter().all(|line| share(line).is_some()));
}

/// Without a total there is no share, and no time left.
#[test]
fn a_list_of_unknown_length_has_a_count_and_a_rate() {
    let sample = Sample::new(19);
    let server = unhurried(&sample);
    let seen = watch(&sample, "", &format!("-j 1 {server} - <\"$LIST\""));
    assert!(seen.status == 0 && seen.stdout == sample.bytes);
    for line in seen.is_tidy() {
        let counts = line.contains(" blocks  ") && line.contains(" MB/s");
        assert!(counts && !line.contains('%'), "{line}");
    }
}

#[test]
fn no_drawn_line_reaches_the_last_column() {
    let sample = Sample::new(14);
    for columns in [1, 2, 10, 20, 40, 80, 300] {
        let server = unhurried(&sample);
        let words = format!("-j 4 {server} \"$LIST\"");
        let seen = watch(&sample, &format!("stty cols {columns}"), &words);
        assert!(seen.status == 0 && seen.stdout == sample.bytes);
        let drawn = seen.drawn();
        assert!(
            drawn.iter().all(|line| line.len() < columns),
            "{columns}: {drawn:?}"
        );
        assert!(seen.screen.ends_with(CLEAR), "{columns}: {drawn:?}");
    }
    // A terminal that does not tell its width may well be a usual one.
    let server = unhurried(&sample);
    let seen = watch(&sample, "stty cols 0", &format!("{server} \"$LIST\""));
    let drawn = seen.is_tidy();
    assert!(drawn.iter().all(|line| line.len() < 80), "{drawn:?}");
}

#[test]
fn nothing_is_drawn_for_the_quiet_or_where_stderr_is_no_terminal() {
    let sample = Sample::new(9);
    let server = unhurried(&sample);
    let log = sample.dir.join("log");
    for words in [
        format!("-q {server} \"$LIST\""),
        format!("--quiet {server} \"$LIST\""),
        format!("{server} \"$LIST\" 2>'{}'", log.display()),
        format!("{server} \"$LIST\" 2>/dev/null"),
        format!("{server} \"$LIST\" 2>&-"),
    ] {
        let seen = watch(&sample, "", &words);
        assert!(seen.status == 0 && seen.stdout == sample.bytes, "{words}");
        assert_eq!(seen.screen, "", "{words}");
    }
    assert_eq!(fs::read(log).unwrap(), b"");
}

/// One that shows escape codes as they are: an editor's, or at the end of a serial line.
#[test]
fn a_dumb_terminal_is_shown_messages_alone() {
    let sample = Sample::new(19);
    let (server, file) = (unhurried(&sample), sample.dir.file("file", &sample.bytes));
    let list = sample.list.display();
    let get = format!("get -v -j 1 {server} '{list}' >\"$OUT\"");
    let got = format!("psync: get {list}: 20 blocks: 0 at hand, 20 fetched, 0 missing\r\n");
    let export = format!("export --no-store '{}' >\"$OUT\"", file.display());
    for (words, told) in [(get, &*got), (export, "")] {
        let screen = |term: &str| {
            let (script, _typist) = at_terminal(&format!("exec \"$PSYNC\" {words}"));
            let script = script.env("TERM", term);
            let out = script.env("OUT", sample.dir.join("out")).run();
            assert_eq!(out.status, 0, "{out}");
            out.text().to_owned()
        };
        assert_eq!(screen("dumb"), told, "{words}");
        assert!(screen("xterm").contains(CLEAR), "{words}");
    }
}

#[test]
fn a_server_at_a_dumb_terminal_draws_nothing() {
    let sample = Sample::new(19);
    let (file, out) = (
        sample.dir.file("file", &sample.bytes),
        sample.dir.join("out"),
    );
    let command = "exec \"$PSYNC\" server -v --file \"$FILE\" 127.0.0.1:0 >\"$OUT\"";
    let (script, _typist) = at_terminal(command);
    let script = script.env("TERM", "dumb").env("FILE", &file);
    let running = script.env("OUT", &out).start();
    let listening = || fs::read_to_string(&out).unwrap_or_default();
    wait_until("it listens", || listening().ends_with('\n'));
    let addr = listening()["listening on ".len()..].trim().parse().unwrap();
    let last = format!("/{}", sample.hash(19));
    wait_until("the index", || get(addr, &last).status == 200);
    // What is drawn is drawn before that.
    let logged = |screen: &[u8]| String::from_utf8_lossy(screen).contains("\" 200 ");
    let screen = running.wait_stdout(logged);
    assert!(!screen.contains(&b'\x1b'), "{screen:?}");
}

/// Each on a line of its own, which nothing was drawn on.
#[test]
fn messages_are_not_mixed_with_progress() {
    let sample = Sample::new(19);
    let mut blocks = sample.map();
    blocks.remove(&sample.hash(18));
    let lacking = HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let reply = Reply::honest(&blocks, &request);
            if !(conn.pause(Duration::from_millis(30)) && conn.send(reply.bytes())) {
                return;
            }
        }
    });
    // Right at first, so that a line is drawn when it is given up.
    let good = sample.map();
    let liar = HostileServer::http(move |request| match request.nth {
        ..3 => Reply::honest(&good, request),
        _ => Reply::ok("lie"),
    });
    let words = format!("-j 1 -v --stats --retry 0 {liar} {lacking} \"$LIST\"");
    let seen = watch(&sample, "stty cols 300", &words);
    assert!(seen.status == 3 && seen.stdout == sample.bytes[..18 * BLOCK_SIZE]);
    // A terminal's line begins at a line end or where the drawn one was erased.
    let lines = seen.screen.replace(CLEAR, "\n").replace("\r\n", "\n");
    let lines: Vec<_> = lines.split('\n').filter(|line| !line.is_empty()).collect();
    let begins = |line: &&str| {
        share(line).is_some() || line.starts_with("psync: ") || line.starts_with("blocks=")
    };
    assert!(lines.iter().all(begins), "{lines:?}");
    let message = |line: &&&str| share(line).is_none();
    // Given up, summed up, counted, missing, and why: of both servers.
    assert_eq!(lines.iter().filter(message).count(), 6, "{lines:?}");
    assert!(
        lines
            .iter()
            .all(|line| line.matches("psync: ").count() <= 1 && line.matches(" %  ").count() <= 1)
    );
    assert!(seen.screen.ends_with('\n'), "{:?}", seen.screen);
}

/// As `| head` has it: there is nothing to say, but the drawn line must not stay.
#[test]
fn the_line_is_taken_away_when_the_reader_of_stdout_goes() {
    let sample = Sample::new(40);
    let server = unhurried(&sample);
    let (run, out, _typist) = {
        let fifo = sample.dir.join("out");
        tool!("mkfifo", &fifo).run().ok();
        start(
            &sample,
            "stty cols 120",
            &format!("-j 1 {server} \"$LIST\""),
        )
    };
    let reader = fs::File::open(out).unwrap();
    run.wait_stdout(|screen| String::from_utf8_lossy(screen).matches(" MB/s").count() >= 2);
    drop(reader);
    let done = run.wait();
    assert_eq!(done.status, 1, "{done}");
    assert!(
        done.text().ends_with(CLEAR),
        "left behind: {:?}",
        done.text()
    );
}

/// The total is what the list was when it was checked: more lines than that are no crash.
#[test]
fn a_list_that_grows_meanwhile_does_not_upset_the_progress() {
    let sample = Sample::new(29);
    let list = hashlist(&sample.bytes);
    let short = sample.dir.file("list", &list[..65]);
    let (blocks, full) = (sample.map(), Arc::new(list));
    let server = HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            // By the time of the first request, the list has been checked.
            fs::write(&short, full.as_bytes()).unwrap();
            let reply = Reply::honest(&blocks, &request);
            if !(conn.pause(Duration::from_millis(40)) && conn.send(reply.bytes())) {
                return;
            }
        }
    });
    let words = format!("-j 1 {server} \"$LIST\"");
    let seen = watch(&sample, "stty cols 120", &words);
    let crashed = seen.status == 101 || seen.screen.contains("panicked");
    assert!(!crashed, "{}", seen.screen);
    assert!(sample.bytes.starts_with(&seen.stdout));
    // One line or all of them, as the reading went.
    assert!(matches!(seen.status, 0..=3), "{}", seen.screen);
}

/// In a pause between two rounds, too, there is somebody there.
#[test]
fn the_line_stays_during_the_pause_before_a_round() {
    let sample = Sample::new(4);
    let blocks = sample.map();
    let server = HostileServer::http(move |request| match request.nth {
        3 => Reply::status(503, "").then_close(),
        _ => Reply::honest(&blocks, request),
    });
    let words = format!("-j 1 --retry 3 {server} \"$LIST\"");
    let seen = watch(&sample, "stty cols 120", &words);
    assert!(
        seen.status == 0 && seen.stdout == sample.bytes,
        "{}",
        seen.screen
    );
    let drawn = seen.is_tidy();
    assert!(drawn.len() >= 4, "{drawn:?}");
}

#[test]
fn export_shows_how_far_it_is_too() {
    let dir = TempDir::new();
    let file = dir.file("file", random(20 * BLOCK_SIZE, 6));
    let command = "exec \"$PSYNC\" export -d \"$DIR/b\" \"$FILE\" >\"$DIR/list\"";
    let run = |command: &str| {
        let (script, _typist) = at_terminal(command);
        let out = script.env("DIR", &*dir).env("FILE", &file).run();
        assert_eq!(out.status, 0, "{out}");
        out.text().to_owned()
    };
    let screen = run(command);
    assert!(
        screen.contains("100 %  20/20 blocks") && screen.ends_with(CLEAR),
        "{screen:?}"
    );
    // Where the list goes to the terminal it is progress enough.
    let screen = run("exec \"$PSYNC\" export -d \"$DIR/b\" \"$FILE\"");
    assert!(!screen.contains(CLEAR), "{screen:?}");
}
