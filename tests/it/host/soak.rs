//! Long runs, after which everything must be as it was: a server after a million requests of every
//! kind, and a `get` whose server dies again and again. `cargo test --test it host::soak:: -- --ignored
//! --nocapture --test-threads=1` prints the figures. A day of cron is in `soak_day`.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::support::*;

/// An address for servers that come back to it. Nobody connects from it, so its port stays free
/// while no server is there.
pub fn lasting_address(host: &str) -> String {
    let free = TcpListener::bind((host, 0)).unwrap();
    free.local_addr().unwrap().to_string()
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub threads: usize,
    pub descriptors: usize,
    pub resident_kib: u64,
}

impl Held {
    pub fn of(pid: u32) -> Self {
        Self {
            threads: threads(pid),
            descriptors: descriptors(pid),
            resident_kib: resident_kib(pid),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            threads: self.threads.max(other.threads),
            descriptors: self.descriptors.max(other.descriptors),
            resident_kib: self.resident_kib.max(other.resident_kib),
        }
    }
}

/// Requests in all, and those after which the server is looked at.
const REQUESTS: usize = 1_000_000;
const LEG: usize = 50_000;

/// Legs until the server's allocator has what it needs for so many clients.
const WARM_UP: usize = 4;

/// What it may have more after a leg than after the warm-up. A byte a request would be 780.
const GROWTH_KIB: u64 = 512;

/// Never more, whoever asks: what a thousand connections may take.
const MOST_KIB: u64 = 32 * 1024;

/// Clients at once: far fewer than the server takes, so that none is sent away.
const CLIENTS: usize = 8;

/// Addresses of the server. A client that closes first keeps its port from that address for a minute,
/// and there are 28,000: one address would be used up.
const ADDRESSES: usize = 4;

/// Blocks in the directory, and in the file that is served beside it.
const EACH: usize = 400;

/// A request with its answer, to the byte.
struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Exchange {
    fn new(request: impl AsRef<[u8]>, answer: impl AsRef<[u8]>) -> Self {
        Self {
            request: request.as_ref().to_vec(),
            answer: answer.as_ref().to_vec(),
        }
    }
}

/// Whether the connection goes on after an answer, and how that was said.
#[derive(Clone, Copy)]
enum Then {
    Stays,
    Closes,
    /// HTTP/1.0, which closes unless told.
    OldCloses,
    OldStays,
}

impl Then {
    fn request(self, line: &str) -> String {
        match self {
            Then::Stays => format!("{line} HTTP/1.1\r\nHost: soak\r\n\r\n"),
            Then::Closes => format!("{line} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n"),
            Then::OldCloses => format!("{line} HTTP/1.0\r\n\r\n"),
            Then::OldStays => format!("{line} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        }
    }

    fn said(self) -> &'static str {
        match self {
            Then::Stays => "",
            Then::Closes | Then::OldCloses => "Connection: close\r\n",
            Then::OldStays => "Connection: keep-alive\r\n",
        }
    }
}

fn text_answer(status: &str, more: &str, then: Then, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nContent-Type: text/plain; charset=utf-8\r\n{}\r\n{body}",
        body.len(),
        then.said()
    )
}

fn refusal(status: &str, more: &str, then: Then) -> String {
    let reason = status.split_once(' ').unwrap().1;
    text_answer(status, more, then, &format!("{reason}\n"))
}

/// Heads that are none, HASH standing for a block's, and why they are refused.
const MALFORMED: &[(&str, &str)] = &[
    ("GET /HASH HTTP/1.1\r\n\r\n", "400 Bad Request"),
    ("GET  /HASH HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request"),
    (
        "GET /HASH HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "400 Bad Request",
    ),
    ("GET /HASH HTTP/1.1\r\nHost : a\r\n\r\n", "400 Bad Request"),
    ("GET /HASH HTTP/1.1\nHost: a\n\n", "400 Bad Request"),
    ("\u{1}\u{2}\r\n\r\n", "400 Bad Request"),
    (
        "GET /HASH HTTP/2.0\r\nHost: a\r\n\r\n",
        "505 HTTP Version Not Supported",
    ),
    (
        "BREW /HASH HTTP/1.1\r\nHost: a\r\n\r\n",
        "501 Not Implemented",
    ),
    (
        "GET /HASH HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "501 Not Implemented",
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\n\r\n",
        "411 Length Required",
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        "413 Content Too Large",
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhash",
        "400 Bad Request",
    ),
    ("GET /LONG HTTP/1.1\r\n", "414 URI Too Long"),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: LONG\r\nX: LONG\r\nX: LONG\r\n\r\n",
        "431 Request Header Fields Too Large",
    ),
];

/// More than a line may have, and in three lines more than a head.
const LONG: usize = 8_001;

/// What the server has, where it is, and what clients have checked so far.
struct Soak {
    addrs: Vec<SocketAddr>,
    blocks: Vec<(String, Vec<u8>)>,
    checked: AtomicUsize,
}

impl Soak {
    /// A client to its end. Returns the requests whose answers were right, to the byte.
    fn visit(&self, dice: &mut Dice) -> usize {
        let addr = self.addrs[dice.below(ADDRESSES)];
        let mut client = Client::connect(addr);
        let client = &mut client;
        match dice.below(100) {
            0..58 => self.one(client, dice),
            58..68 => self.half_closed(client, dice),
            68..76 => self.malformed(client, dice),
            76..82 => self.reset(client, dice),
            82..84 => self.half_a_head(client),
            84..88 => self.lists(client, dice),
            88..94 => self.one_by_one(client, dice),
            _ => self.pipelined(client, dice),
        }
    }

    fn block(&self, dice: &mut Dice) -> &(String, Vec<u8>) {
        &self.blocks[dice.below(self.blocks.len())]
    }

    /// Any request that does not end the connection by itself.
    fn any(&self, dice: &mut Dice, then: Then) -> Exchange {
        let (hash, block) = self.block(dice);
        let found = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\nETag: \"{hash}\"\r\nCache-Control: public, max-age=31536000, immutable\r\n{}\r\n",
            block.len(),
            then.said()
        );
        let absent = hash_hex(hash.as_bytes());
        match dice.below(20) {
            0..12 => {
                let answer = [found.as_bytes(), block].concat();
                Exchange::new(then.request(&format!("GET /{hash}")), answer)
            }
            12 | 13 => Exchange::new(then.request(&format!("HEAD /{hash}")), found),
            14..17 => Exchange::new(
                then.request(&format!("GET /{absent}")),
                refusal("404 Not Found", "", then),
            ),
            17 => Exchange::new(
                then.request(&format!("GET /../{hash}")),
                refusal("404 Not Found", "", then),
            ),
            18 => Exchange::new(
                then.request(&format!("DELETE /{hash}")),
                refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n", then),
            ),
            _ => Exchange::new(
                then.request("GET /blocks"),
                refusal("405 Method Not Allowed", "Allow: POST\r\n", then),
            ),
        }
    }

    /// A connection for one request.
    fn one(&self, client: &mut Client, dice: &mut Dice) -> usize {
        let then = [Then::Closes, Then::OldCloses][dice.below(2)];
        let exchange = self.any(dice, then);
        client.send(exchange.request).expect(&exchange.answer);
        client.closed();
        1
    }

    fn one_by_one(&self, client: &mut Client, dice: &mut Dice) -> usize {
        const COUNT: usize = 40;
        let then = [Then::Stays, Then::OldStays][dice.below(2)];
        for _ in 0..COUNT {
            let exchange = self.any(dice, then);
            client.send(exchange.request).expect(&exchange.answer);
        }
        COUNT
    }

    /// All that so many requests send, and all that is to be answered.
    fn many(&self, count: usize, dice: &mut Dice) -> Exchange {
        let mut all = Exchange::new("", "");
        for _ in 0..count {
            let exchange = self.any(dice, Then::Stays);
            all.request.extend(exchange.request);
            all.answer.extend(exchange.answer);
        }
        all
    }

    fn pipelined(&self, client: &mut Client, dice: &mut Dice) -> usize {
        let count = 1 + dice.below(64);
        let all = self.many(count, dice);
        client.send(all.request).expect(&all.answer);
        count
    }

    fn half_closed(&self, client: &mut Client, dice: &mut Dice) -> usize {
        let count = 1 + dice.below(5);
        let all = self.many(count, dice);
        client.send(all.request).half_close().expect(&all.answer);
        client.closed();
        count
    }

    /// A good request, and one that is none.
    fn malformed(&self, client: &mut Client, dice: &mut Dice) -> usize {
        let (head, status) = MALFORMED[dice.below(MALFORMED.len())];
        let head = head.replace("HASH", &self.block(dice).0);
        let head = head.replace("LONG", &"x".repeat(LONG));
        let good = self.any(dice, Then::Stays);
        client.send([good.request, head.into_bytes()].concat());
        client.expect(&good.answer);
        client.expect(refusal(status, "", Then::Closes).as_bytes());
        client.closed();
        2
    }

    /// Goes away with answers unread, which resets the connection.
    fn reset(&self, client: &mut Client, dice: &mut Dice) -> usize {
        let (hash, block) = self.block(dice);
        let line = Then::Stays.request(&format!("GET /{hash}"));
        client.send(line.repeat(2 + dice.below(60)));
        let answer = client.response();
        assert!(answer.status == 200 && answer.body == *block, "{answer:?}");
        1
    }

    /// Ends in the middle of a head, and is told nothing.
    fn half_a_head(&self, client: &mut Client) -> usize {
        client.send("GET / HTTP/1.1\r\nHost: ").half_close();
        client.closed();
        0
    }

    fn lists(&self, client: &mut Client, dice: &mut Dice) -> usize {
        const COUNT: usize = 5;
        for _ in 0..COUNT {
            let (mut list, mut frames) = (String::new(), Vec::new());
            for _ in 0..1 + dice.below(40) {
                let (hash, block) = self.block(dice);
                if dice.below(8) == 0 {
                    list += &hash_hex(hash.as_bytes());
                    frames.extend(frame(b""));
                } else {
                    list += hash;
                    frames.extend(frame(block));
                }
                list += "\n";
            }
            client.send(format!(
                "POST /blocks HTTP/1.1\r\nHost: soak\r\nContent-Length: {}\r\n\r\n{list}",
                list.len()
            ));
            let answer = client.response();
            assert!(answer.status == 200 && answer.body == frames, "{list}");
        }
        COUNT
    }

    /// Clients come and go until so many requests are checked in all. Returns the most that the server
    /// held meanwhile.
    fn leg(&self, number: usize, pid: u32) -> Held {
        let until = (number + 1) * LEG;
        let (over, mut most) = (AtomicBool::new(false), Held::of(pid));
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || {
                        let mut dice = Dice::new((number * CLIENTS + client) as u64);
                        while self.checked.load(Relaxed) < until {
                            let right = self.visit(&mut dice);
                            self.checked.fetch_add(right, Relaxed);
                        }
                    })
                })
                .collect();
            let over = &over;
            let watch = scope.spawn(move || {
                while !over.load(Relaxed) {
                    most = most.most(Held::of(pid));
                    thread::sleep(Duration::from_millis(20));
                }
                most
            });
            // Over also where a client panics.
            let ends: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
            over.store(true, Relaxed);
            assert!(ends.iter().all(Result::is_ok), "a client failed");
            watch.join().unwrap()
        })
    }
}

/// Blocks come from a directory and from a file; every answer is compared to the byte. Between the
/// legs, when no client is there, no thread and no descriptor may be left of them.
#[test]
#[ignore = "takes minutes"]
fn slow_a_million_requests_leave_the_server_as_it_was() {
    let (dir, served) = (TempDir::new(), TempDir::new());
    let (stored, file) = (
        random(EACH * BLOCK_SIZE + 1, 1),
        random(EACH * BLOCK_SIZE + 4095, 2),
    );
    write_blocks(&dir, &stored);
    let path = served.file("file", &file);
    let any_ports = (1..=ADDRESSES).map(|n| format!("127.0.0.{n}:0"));
    let run = psync!("server", "-d", &dir, "--file", path);
    let server = Server::of(run.args(any_ports).limit(Duration::from_secs(3600)));
    let pid = server.pid();
    let soak = Soak {
        addrs: server.addrs(ADDRESSES),
        blocks: block_map(&stored)
            .into_iter()
            .chain(block_map(&file))
            .collect(),
        checked: AtomicUsize::new(0),
    };
    for (hash, block) in &soak.blocks {
        let is_served = || get(server.addr(), &format!("/{hash}")).body == *block;
        wait_until("the file has been read", is_served);
    }
    wait_until("its clients have gone", || threads(pid) == 1 + ADDRESSES);
    let idle = Held::of(pid);
    eprintln!("before: {idle:?}");
    let (started, mut after) = (Instant::now(), Vec::new());
    for number in 0..REQUESTS / LEG {
        let most = soak.leg(number, pid);
        let is_alone =
            |held: Held| held.threads == idle.threads && held.descriptors == idle.descriptors;
        wait_until("all have gone", || is_alone(Held::of(pid)));
        after.push(Held::of(pid));
        eprintln!(
            "{:7} requests, {:5.1} s: {:?}, most {most:?}",
            soak.checked.load(Relaxed),
            started.elapsed().as_secs_f64(),
            after[number]
        );
        let most = after[number.min(WARM_UP)].resident_kib + GROWTH_KIB;
        assert!(after[number].resident_kib <= most, "it grows");
    }
    let checked = soak.checked.load(Relaxed);
    eprintln!(
        "{:.0} requests/s, at most {} KiB",
        checked as f64 / started.elapsed().as_secs_f64(),
        peak_kib(pid)
    );
    assert!(checked >= REQUESTS && peak_kib(pid) < MOST_KIB);
}

/// Lines of the list, and the different blocks in it: a prime, so that no two runs of them are alike.
const LINES: usize = 300_000;
const DIFFERENT: usize = 1_021;

/// How often the server goes, at least so many blocks after the last time. Every sixth time it
/// falls silent instead of dying.
const OUTAGES: usize = 60;
const BETWEEN: usize = LINES / (OUTAGES + 2);
const SILENT: usize = 6;

/// What `get` may have in memory more than after the first outages: none of what grows.
const GET_GROWTH_KIB: u64 = 2 * 1024;

/// Reads a file of so many blocks from the pipe, checks each, and tells how many came.
fn check_stream(mut from: impl Read, different: &[u8], came: &AtomicUsize) -> usize {
    let mut room = [0; BLOCK_SIZE];
    for block in blocks(different).cycle() {
        if from.read_exact(&mut room).is_err() {
            break;
        }
        assert!(room == *block, "block {}", came.load(Relaxed));
        came.fetch_add(1, Relaxed);
    }
    came.load(Relaxed)
}

/// With the two rounds that there are by default, sixty outages.
#[test]
#[ignore = "takes minutes"]
fn slow_a_get_outlives_sixty_outages_of_its_only_server_and_does_not_grow() {
    let (dir, lists) = (TempDir::new(), TempDir::new());
    let different = random(DIFFERENT * BLOCK_SIZE, 3);
    let hashes = write_blocks(&dir, &different);
    let lines = hashes.lines().cycle().take(LINES);
    let list: String = lines.map(|hash| hash.to_owned() + "\n").collect();
    let list = lists.file("list", list);
    let addr = lasting_address("127.9.9.2");
    let serve = || Server::of(psync!("server", "-d", &dir, &addr));
    let mut server = serve();
    let (read, write) = io::pipe().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let (count, expected) = (Arc::clone(&came), different.clone());
    let reader = thread::spawn(move || check_stream(read, &expected, &count));
    let started = Instant::now();
    let get = psync!("get", "-v", "--stats", "--timeout", "2", &addr, &list);
    let get = get
        .stdout_to(write)
        .limit(Duration::from_secs(1200))
        .start();
    let told = || get.stderr_now().iter().filter(|&&c| c == b'\n').count();
    let mut held = Vec::new();
    for outage in 1..=OUTAGES {
        wait_until("blocks come", || came.load(Relaxed) >= outage * BETWEEN);
        held.push(Held::of(get.pid()));
        let before = told();
        let notices = || wait_until("it notices", || told() > before);
        if outage % SILENT == 0 {
            signal(server.pid(), "STOP");
            notices();
            signal(server.pid(), "CONT");
        } else {
            server.stop();
            notices();
            server = serve();
        }
    }
    let output = get.wait();
    assert_eq!(reader.join().unwrap(), LINES);
    let summary = format!(
        "psync: get {}: {LINES} blocks: 0 at hand, {LINES} fetched, 0 missing\n",
        list.display()
    );
    let (given_up, stats) = output.stderr.split_once(&summary).unwrap();
    let reason = format!("psync: give up http://{addr}: ");
    assert!(
        output.status == 0 && given_up.lines().all(|line| line.starts_with(&reason)),
        "{output}"
    );
    let (_, requests) = stats.split_once(" requests=").unwrap();
    let requests: usize = requests.split(' ').next().unwrap().parse().unwrap();
    assert!(requests < LINES / 10, "asked for single blocks: {stats}");
    let (early, late) = held.split_at(OUTAGES / 4);
    let [early, late] = [early, late].map(|held| held.iter().copied().reduce(Held::most).unwrap());
    eprintln!(
        "{LINES} blocks in {requests} requests, {OUTAGES} outages told {} times, {:.1} s: {:?} at first, at most {early:?}, later {late:?}",
        given_up.lines().count(),
        started.elapsed().as_secs_f64(),
        held[0]
    );
    assert!(late.threads <= early.threads && late.descriptors <= early.descriptors);
    assert!(late.resident_kib <= early.resident_kib + GET_GROWTH_KIB);
}
