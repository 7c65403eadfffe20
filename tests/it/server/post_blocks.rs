//! `POST /blocks`: a hashlist brings a frame for each of its lines, two bytes of length and the
//! block, or no block. One answer a request, in order, however the bytes arrive, and only ever
//! blocks that are right.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::support::*;

/// Follows each request: answered only where the connection lives on.
const PROBE: &str = "GET / HTTP/1.1\r\nHost: probe\r\n\r\n";

const LIVES: bool = true;
const ENDS: bool = false;

fn post(list: &str) -> String {
    let length = list.len();
    format!("POST /blocks HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{list}")
}

fn frames(bytes: &[u8]) -> Vec<u8> {
    blocks(bytes).flat_map(frame).collect()
}

/// A server of a file's blocks, the file, and its hashlist.
struct Served {
    server: Server,
    dir: TempDir,
    bytes: Vec<u8>,
    list: String,
}

impl Served {
    #[track_caller]
    fn start(length: usize) -> Self {
        let (dir, bytes) = (TempDir::new(), random(length, 1));
        let list = write_blocks(&dir, &bytes);
        Self {
            server: Server::start(&dir),
            dir,
            bytes,
            list,
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.server.addr())
    }

    /// What is answered to these bytes and the probe behind them, of which the first must have this
    /// status and be the only one where the connection ends.
    #[track_caller]
    fn check(&self, request: &str, status: u16, lives: bool) -> Response {
        let shown = &request[..request.len().min(200)];
        let bytes = exchange(self.server.addr(), request.to_owned() + PROBE);
        let answers = responses(&bytes);
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let due = [status, 200];
        assert_eq!(statuses, due[..1 + usize::from(lives)], "{shown:?}");
        let says_close = answers[0].header("Connection") == Some("close");
        assert_eq!(says_close, !lives, "{shown:?}");
        answers[0].clone()
    }
}

#[test]
fn the_answer_is_exactly_these_bytes() {
    let served = Served::start(BLOCK_SIZE + 5);
    let absent = "0".repeat(64);
    let list = format!("{}{absent}\n", served.list);
    let frames = [&frames(&served.bytes)[..], &[0, 0]].concat();
    assert_eq!(frames.len(), 0x100b);
    let common = "Content-Type: application/octet-stream\r\n";
    let head = format!("HTTP/1.1 200 OK\r\n{common}Transfer-Encoding: chunked\r\n\r\n100b\r\n");
    let due = [head.as_bytes(), &frames, b"\r\n0\r\n\r\n"].concat();
    let answer = exchange(served.server.addr(), post(&list));
    assert!(answer == due, "{}", String::from_utf8_lossy(&answer[..100]));
    // HTTP/1.0 knows no chunks: there the end of the connection ends the answer.
    for fields in ["", "Connection: keep-alive\r\n"] {
        let length = list.len();
        let request =
            format!("POST /blocks HTTP/1.0\r\n{fields}Content-Length: {length}\r\n\r\n{list}");
        let head = format!("HTTP/1.1 200 OK\r\n{common}Connection: close\r\n\r\n");
        let due = [head.as_bytes(), &frames].concat();
        let answer = exchange(served.server.addr(), request + PROBE);
        assert!(answer == due, "{}", String::from_utf8_lossy(&answer[..100]));
    }
}

#[test]
fn every_line_has_its_frame_in_order() {
    let served = Served::start(100 * BLOCK_SIZE + 77);
    let mut client = served.client();
    let mut ask = |list: &str| {
        let answer = client.send(post(list)).response();
        assert_eq!(answer.status, 200);
        answer.body
    };
    let all = frames(&served.bytes);
    for list in [
        served.list.clone(),
        served.list.replace('\n', "\r\n"),
        served.list.trim_end().to_owned(),
        served.list.trim_end().replace('\n', "\r\n"),
    ] {
        assert!(ask(&list) == all);
    }
    // Any order, any number of times, of any number up to the most that one write may bring, and
    // one more.
    let lines: Vec<_> = served.list.lines().zip(blocks(&served.bytes)).collect();
    for count in [1, 2, 15, 16, 17, 31, 32, 33, 101] {
        for step in [1, 100] {
            let picked: Vec<_> = (0..count).map(|n| lines[n * step % lines.len()]).collect();
            let list: String = picked.iter().map(|(hash, _)| format!("{hash}\n")).collect();
            let due: Vec<_> = picked.iter().flat_map(|(_, block)| frame(block)).collect();
            assert!(ask(&list) == due, "{count} {step}");
        }
    }
    let twice = format!("{0}\n{0}\n", lines[100].0);
    assert!(ask(&twice) == frame(lines[100].1).repeat(2));
}

/// Puts something under the name of a block.
type Make = fn(&Path, &[u8]);

#[test]
fn what_is_not_the_block_is_an_empty_frame() {
    let served = Served::start(BLOCK_SIZE);
    let rows: [(&str, Make); 8] = [
        ("absent", |_, _| {}),
        ("a directory", |path, _| fs::create_dir(path).unwrap()),
        ("a FIFO", |path, _| {
            tool!("mkfifo", path).run().ok();
        }),
        ("a dangling link", |path, _| {
            std::os::unix::fs::symlink("nowhere", path).unwrap();
        }),
        ("empty", |path, _| fs::write(path, "").unwrap()),
        ("a byte short", |path, block| {
            fs::write(path, &block[1..]).unwrap();
        }),
        ("a byte long", |path, block| {
            fs::write(path, [block, b"x"].concat()).unwrap();
        }),
        ("a bit flipped", |path, block| {
            let mut block = block.to_vec();
            block[2000] ^= 1;
            fs::write(path, block).unwrap();
        }),
    ];
    let good = frame(&served.bytes);
    let (mut list, mut due) = (served.list.clone(), good.clone());
    for (seed, (what, make)) in rows.into_iter().enumerate() {
        let block = random(BLOCK_SIZE, 100 + seed as u64);
        let name = hash_hex(&block);
        make(&served.dir.join(&name), &block);
        let between = format!("{0}{name}\n{0}", served.list);
        let answer = served.check(&post(&between), 200, LIVES);
        assert!(
            answer.body == [&good[..], &[0, 0], &good].concat(),
            "{what}"
        );
        list.push_str(&format!("{name}\n{}", served.list));
        due.extend([&[0, 0], &good[..]].concat());
    }
    assert!(served.check(&post(&list), 200, LIVES).body == due);
    // Nothing but absent ones: many more frames than blocks in a write.
    let absent = format!("{}\n", "0".repeat(64)).repeat(1024);
    assert_eq!(served.check(&post(&absent), 200, LIVES).body, [0; 2048]);
}

#[test]
fn a_list_has_at_most_1024_lines() {
    let served = Served::start(1024 * BLOCK_SIZE);
    let crlf = served.list.replace('\n', "\r\n");
    for list in [&served.list, &crlf, served.list.trim_end()] {
        assert!(served.check(&post(list), 200, LIVES).body == frames(&served.bytes));
    }
    let (line, _) = served.list.split_at(65);
    for over in [
        // Seen by its lines, as it is no longer than the longest list.
        served.list.clone() + line,
        served.list.clone() + line.trim_end(),
        // Seen by its length.
        crlf.clone() + line,
        crlf + "\n",
    ] {
        served.check(&post(&over), 413, ENDS);
    }
    let empty = served.check(&post(""), 200, LIVES);
    assert!(empty.body.is_empty());
}

#[test]
fn a_body_that_is_no_hashlist_is_refused_once_and_the_connection_ends() {
    let served = Served::start(BLOCK_SIZE);
    let hash = served.list.trim_end().to_owned();
    let line = &served.list;
    for body in [
        "\n".to_owned(),
        "\r\n".into(),
        format!("{line}\n"),
        format!("{line}\n{line}"),
        format!("\n{line}"),
        format!("# list\n{line}"),
        format!("{}\n", &hash[1..]),
        format!("{hash}0\n"),
        format!("{hash} \n"),
        format!(" {hash}\n"),
        format!("{hash}\r"),
        format!("{hash}\r\r\n"),
        format!("{hash}\r{hash}"),
        format!("\u{feff}{line}"),
        format!("{}\n", hash.to_uppercase()),
        format!("{}\0\n", &hash[1..]),
        format!("{}\u{e9}\n", &hash[2..]),
        format!("{hash}  file\n"),
        format!("{hash}\n{hash}").replacen('\n', "", 1),
        "x".into(),
        "x".repeat(60_000),
        // As if it were a request.
        PROBE.into(),
        format!("{line}{PROBE}"),
        format!("0\r\n\r\n{PROBE}"),
    ] {
        let answer = served.check(&post(&body), 400, ENDS);
        assert_eq!(answer.body, b"Bad Request\n");
    }
}

/// The next bytes on a connection of which nothing else was read.
#[track_caller]
fn read(client: &Client, count: usize) -> String {
    let mut bytes = vec![0; count];
    client.stream().read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_client_that_waits_with_the_body_is_told_to_go_on() {
    let served = Served::start(BLOCK_SIZE);
    let due = "HTTP/1.1 100 Continue\r\n\r\n";
    let request = post(&served.list);
    for field in ["Expect: 100-continue", "expect:\t100-Continue "] {
        let request = request.replace("Host", &format!("{field}\r\nHost"));
        let (head, body) = request.split_at(request.len() - served.list.len());
        let mut client = served.client();
        for _ in 0..2 {
            client.send(head);
            assert_eq!(read(&client, due.len()), due);
            client.send(body);
            // The next head is not sent before: so nothing of it is read here.
            let answer = client.response();
            assert!(answer.status == 200 && answer.body == frame(&served.bytes));
        }
        // Of no use where the body is there, or is none, or comes from HTTP/1.0; nor where the
        // answer is a refusal.
        served.check(&request, 200, LIVES);
        served.check(&head.replace(": 65", ": 0"), 200, LIVES);
        served.check(&head.replace(": 65", ": 67585"), 413, ENDS);
        served.check(&head.replace("/blocks", "/"), 405, ENDS);
        let old = head.replace("HTTP/1.1", "HTTP/1.0");
        let mut client = served.client();
        client.send_split((old + body).as_bytes(), &[head.len()]);
        assert!(client.read_to_end().starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    // Another expectation is passed over.
    let other = request.replace("Host", "Expect: the unexpected\r\nHost");
    served.check(&other, 200, LIVES);
}

/// A list, a block, an empty list and a list, and what their answers' bodies are.
fn four(served: &Served) -> (String, [Vec<u8>; 4]) {
    let hash = &served.list[..64];
    let text = [
        post(&served.list),
        format!("GET /{hash} HTTP/1.1\r\nHost: test\r\n\r\n"),
        post(""),
        post(&served.list.trim_end().replace('\n', "\r\n")),
    ];
    let all = frames(&served.bytes);
    let block = served.bytes[..BLOCK_SIZE].to_vec();
    (text.concat(), [all.clone(), block, Vec::new(), all])
}

#[test]
fn requests_in_one_packet_are_answered_in_order() {
    let served = Served::start(BLOCK_SIZE + 5);
    let (text, bodies) = four(&served);
    for times in [1, 25] {
        let bytes = exchange(served.server.addr(), text.repeat(times));
        let answers = responses(&bytes).into_iter().map(|answer| answer.body);
        assert!(answers.eq(bodies.iter().cycle().take(4 * times).cloned()));
    }
}

#[test]
fn requests_split_anywhere_are_the_same_requests() {
    let served = Served::start(BLOCK_SIZE + 5);
    let (text, bodies) = four(&served);
    for offset in 1..text.len() {
        let mut client = served.client();
        client.send_split(text.as_bytes(), &[offset]);
        let answers = [(); 4].map(|()| client.response().body);
        assert!(answers == bodies, "split at {offset}");
    }
    let every: Vec<_> = (1..text.len()).collect();
    let mut client = served.client();
    client.send_split(text.as_bytes(), &every);
    assert!([(); 4].map(|()| client.response().body) == bodies);
}

#[test]
fn a_list_behind_a_long_head_is_read_too() {
    let served = Served::start(100 * BLOCK_SIZE);
    for length in [1_900, 2_000, 2_048, 4_000, 16_200] {
        let field = format!("X: {}\r\nHost", "x".repeat(length));
        let request = post(&served.list).replace("Host", &field);
        let answer = served.check(&request, 200, LIVES);
        assert!(answer.body == frames(&served.bytes), "{length}");
    }
}

#[test]
fn a_list_cut_short_is_not_answered() {
    let served = Served::start(2 * BLOCK_SIZE);
    let request = post(&served.list);
    let head = request.len() - served.list.len();
    for cut in [head, head + 1, head + 65, request.len() - 1] {
        let answer = exchange(served.server.addr(), &request[..cut]);
        assert!(answer.is_empty(), "cut at {cut}");
    }
}

#[test]
fn whatever_is_sent_is_answered_in_order_or_not_at_all() {
    let served = Served::start(BLOCK_SIZE + 5);
    let text = post(&served.list).repeat(2);
    let marks = b"\r\n\r\n \t:/.,0159\0aAfFgHPT";
    for seed in 0..500 {
        let dice = random(32, seed);
        let mut bytes = text.clone().into_bytes();
        for die in dice.chunks(8).take(1 + usize::from(dice[31]) % 4) {
            let at = usize::from(u16::from_le_bytes([die[0], die[1]])) % bytes.len();
            let byte = marks[usize::from(die[3]) % marks.len()];
            match die[4] % 4 {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, byte),
                2 => bytes.truncate(at.max(20)),
                _ => bytes[at] = byte,
            }
        }
        let shown = String::from_utf8_lossy(&bytes);
        let answers = responses(&exchange(served.server.addr(), &bytes));
        assert!(answers.len() <= 2, "{shown:?}: {}", answers.len());
        for (n, answer) in answers.iter().enumerate() {
            let last = answer.header("Connection") == Some("close");
            assert!(!last || n + 1 == answers.len(), "{shown:?}");
            assert!(answer.status == 200 || (400..=505).contains(&answer.status));
        }
    }
}

#[test]
fn curl_gets_the_whole_file() {
    let served = Served::start(300 * BLOCK_SIZE + 9);
    let list = served.dir.file("list", &served.list);
    let data = format!("@{}", list.display());
    let url = served.server.url() + "/blocks";
    for more in [
        &["-sSf"][..],
        &["-sSf", "--http1.0"],
        &["-sSf", "-H", "Expect: 100-continue"],
    ] {
        let out = tool!("curl", "--data-binary", &data, &url, &url);
        // It joins the answers to one list for each URL.
        let out = out.args(more).run().ok();
        let (mut rest, mut file) = (&out.stdout[..], Vec::new());
        while let Some((length, more)) = rest.split_first_chunk() {
            let (block, more) = more.split_at(u16::from_be_bytes(*length).into());
            file.extend_from_slice(block);
            rest = more;
        }
        assert!(
            file == [&served.bytes[..], &served.bytes].concat(),
            "{more:?}"
        );
    }
}

#[test]
fn verbose_tells_the_bytes_of_the_frames() {
    let (dir, bytes) = (TempDir::new(), random(20 * BLOCK_SIZE + 5, 1));
    let list = write_blocks(&dir, &bytes);
    let server = Server::with(&dir, &["-v"]);
    let answers = exchange(server.addr(), post(&list) + &post("") + &post("x"));
    assert_eq!(responses(&answers).len(), 3);
    server.wait_stderr(|err| line_count(err) == 3);
    let log = server.stop();
    let logged = log.lines().map(|line| {
        let (_, rest) = line.split_once(" \"").unwrap();
        rest.rsplit_once(' ').unwrap().0
    });
    let length = frames(&bytes).len();
    let due = [format!("200 {length}"), "200 0".into(), "400 12".into()];
    assert!(
        logged.eq(due.map(|rest| format!("POST /blocks HTTP/1.1\" {rest}"))),
        "{log}"
    );
}

#[test]
fn a_chunk_of_blocks_is_sent_with_one_write() {
    let (dir, trace, bytes) = (TempDir::new(), TempDir::new(), random(64 * BLOCK_SIZE, 1));
    let (list, log) = (write_blocks(&dir, &bytes), trace.join("log"));
    let options = [
        "-D",
        "-f",
        "-qq",
        "-s",
        "300",
        "-e",
        "trace=open,openat,read,close,sendto,write,writev",
    ];
    let args = options.map(Into::into).into_iter();
    let args = args.chain(["-o".into(), log.clone().into_os_string()]);
    let run = psync!("server", "-d", &dir, "127.0.0.1:0");
    let server = Server::of(run.under::<std::ffi::OsString>("strace", args));
    let mut client = Client::connect(server.addr());
    assert!(client.send(post(&list)).response().body == frames(&bytes));
    let text = || fs::read_to_string(&log).unwrap();
    // Counted from the first block to the answer that follows.
    client.send(PROBE).response();
    wait_until("the trace shows the end", || text().contains("psync 0"));
    let text = text();
    let calls = text.lines().skip_while(|line| !line.contains(&list[..64]));
    let calls: Vec<_> = calls.take_while(|line| !line.contains("psync 0")).collect();
    let count = |name: &str| calls.iter().filter(|line| line.contains(name)).count();
    let counted = ["open", "read(", "close(", "sendto("].map(count);
    assert_eq!(counted, [64, 64, 64, 4], "{text}");
    assert_eq!(calls.len(), 64 * 3 + 4, "{text}");
}
