//! What keeps the server alive and its other clients served: deadlines, the cap on connections, used
//! up descriptors, threads and memory. Clients here are slow, silent, greedy or rude.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

/// Above any answer's time on a loaded machine, and below every deadline that is not under test.
const SOON: Duration = Duration::from_secs(8);

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A list of so many lines, all of them the block's.
fn post(target: &str, lines: usize) -> String {
    let list = format!("{}\n", &target[1..]).repeat(lines);
    let length = list.len();
    format!("POST /blocks HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{list}")
}

/// Asks on a connection that stays.
#[track_caller]
fn ask(client: &mut Client, target: &str) -> u16 {
    client.send(request(target)).response().status
}

/// A fresh client gets the block, and is not kept waiting.
#[track_caller]
fn served(addr: SocketAddr, target: &str) {
    let started = Instant::now();
    let mut client = Client::connect(addr);
    client.send(request(target));
    let answer = client.response();
    assert_eq!((answer.status, answer.body.len()), (200, BLOCK_SIZE));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

/// Whether this one try of a fresh client brings the block: a server short of something may say 503,
/// or have to let the client go.
#[track_caller]
fn is_served(addr: SocketAddr, target: &str) -> bool {
    let mut client = Client::connect(addr);
    client.try_send(format!("GET {target} HTTP/1.0\r\n\r\n"));
    let answer = client.read_to_any_end();
    assert!(!answer.starts_with(b"HTTP/1.1 404"));
    answer.starts_with(b"HTTP/1.1 200")
}

/// Connects so many, and returns once the server has accepted them all. In bursts, since the queue
/// of those not yet accepted is short.
#[track_caller]
fn connect(addr: SocketAddr, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    while clients.len() < count {
        let burst = (count - clients.len()).min(50);
        clients.extend((0..burst).map(|_| Client::connect(addr)));
        // Accepted in order, so an answer to one that came later says that they are in.
        let _ = Client::connect(addr).half_close().read_to_any_end();
    }
    clients
}

/// A connection whose server is stuck: it was asked for more than sockets hold, and nothing is read.
#[track_caller]
fn never_reads(addr: SocketAddr, target: &str) -> Client {
    let client = Client::connect(addr);
    let end = stuff(&client, &request(target).repeat(100));
    assert_eq!(end, ErrorKind::WouldBlock);
    client
}

/// Asks and asks until nothing more is taken; tells why.
fn stuff(client: &Client, requests: &str) -> ErrorKind {
    let mut stream = client.stream();
    let patience = Some(Duration::from_millis(100));
    stream.set_write_timeout(patience).unwrap();
    loop {
        if let Err(e) = stream.write_all(requests.as_bytes()) {
            return e.kind();
        }
    }
}

/// Waits until no thread of the server has anything to do: an answer is with its client before the
/// thread that sent it has turned to the next.
#[track_caller]
fn settled(pid: u32) {
    // The state follows the name, which stands in parentheses. A thread may end while it is looked at.
    let sleeps = |stat: String| {
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('S'))
    };
    wait_until("all threads sleep", || {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks.all(|task| fs::read_to_string(task.path().join("stat")).is_ok_and(sleeps))
    });
}

/// With everybody waiting for something: the server uses next to no processor time.
#[track_caller]
fn assert_not_spinning(pid: u32) {
    settled(pid);
    let before = cpu_ticks(pid);
    // Nothing is waited for: time is what is measured.
    thread::sleep(Duration::from_millis(400));
    let ticks = cpu_ticks(pid) - before;
    assert!(ticks < 12, "{ticks} ticks of 40");
}

#[test]
fn a_head_must_be_whole_in_time() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "0.2"]);
    let mut idle = Client::connect(server.addr());
    for part in ["G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: test\r\n"] {
        let started = Instant::now();
        let mut client = Client::connect(server.addr());
        client.send(part);
        let answer = client.response();
        assert_eq!(
            (answer.status, answer.header("Connection")),
            (408, Some("close")),
            "{part:?}"
        );
        client.closed();
        assert!((Duration::from_millis(200)..SOON).contains(&started.elapsed()));
    }
    // Also behind a whole request.
    let mut client = Client::connect(server.addr());
    client.send(request(&target) + "GET");
    assert_eq!(
        [client.response().status, client.response().status],
        [200, 408]
    );
    client.closed();
    // Nothing at all is no head: it waited all the while, and longer than the time for one.
    assert_eq!(ask(&mut idle, &target), 200);
}

#[test]
fn a_byte_now_and_then_does_not_make_the_time_longer() {
    let (dir, _) = one_block();
    let server = Server::with(&dir, &["--timeout", "0.2"]);
    for text in ["GET /", "GET / HTTP/1.1\r\nHost: test\r\nX: "] {
        let started = Instant::now();
        let mut client = Client::connect(server.addr());
        let stream = client.stream().try_clone().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = &stream;
                let _ = stream.write_all(text.as_bytes());
                while !done.load(Ordering::Relaxed) && stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let status = client.response().status;
            done.store(true, Ordering::Relaxed);
            assert_eq!(status, 408);
        });
        assert!((Duration::from_millis(200)..SOON).contains(&started.elapsed()));
    }
}

#[test]
fn a_slow_head_within_the_time_is_answered() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "20"]);
    let text = request(&target);
    let mut client = Client::connect(server.addr());
    for _ in 0..2 {
        client.send_split(text.as_bytes(), &[1, 10, 60, text.len() - 1]);
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_reader_that_takes_nothing_is_dropped_in_time() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "0.3"]);
    served(server.addr(), &target);
    let mut greedy = never_reads(server.addr(), &target);
    wait_until("its thread has ended", || threads(server.pid()) == 1);
    // What it was sent is whole answers but for the last.
    let seen = greedy.read_to_any_end();
    assert!(seen.starts_with(b"HTTP/1.1 200 OK\r\n"));
    served(server.addr(), &target);
}

#[test]
fn a_reader_that_takes_its_time_is_not_dropped() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "2"]);
    let client = never_reads(server.addr(), &target);
    let mut stream = client.stream();
    // From here on no request is sent, and what was asked for is taken over twice the time.
    let started = Instant::now();
    let mut buffer = vec![0; 256 * 1024];
    let mut taken = 0;
    loop {
        let n = uninterrupted(|| stream.read(&mut buffer)).unwrap();
        assert!(n > 0, "closed after {taken} bytes");
        taken += n;
        if started.elapsed() > Duration::from_secs(4) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_longest_idle_makes_room() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "4"]);
    let mut clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Client::connect(server.addr());
            assert_eq!(ask(&mut client, &target), 200);
            settled(server.pid());
            client
        })
        .collect();
    // The first is heard of again, some milliseconds later, and so the second is the longest idle.
    clients[0].send_split(request(&target).as_bytes(), &[10, 20, 30, 40, 50]);
    assert_eq!(clients[0].response().status, 200);
    settled(server.pid());
    served(server.addr(), &target);
    clients.remove(1).closed();
    for client in &mut clients {
        assert_eq!(ask(client, &target), 200);
    }
}

#[test]
fn a_head_that_dribbles_in_counts_as_idle() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "2"]);
    let mut dribbler = Client::connect(server.addr());
    dribbler.send_split(
        request(&target).as_bytes().split_last().unwrap().1,
        &[1, 10, 20],
    );
    let mut healthy = Client::connect(server.addr());
    for _ in 0..5 {
        healthy.send_split(request(&target).as_bytes(), &[10, 20]);
        assert_eq!(healthy.response().status, 200);
    }
    served(server.addr(), &target);
    let end = dribbler.read_to_any_end();
    assert!(end.is_empty());
    assert_eq!(ask(&mut healthy, &target), 200);
}

#[test]
fn silent_clients_beyond_the_cap_shut_nobody_out() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "32"]);
    let clients = connect(server.addr(), 32 + 200);
    for _ in 0..10 {
        served(server.addr(), &target);
    }
    wait_until("most have gone", || threads(server.pid()) <= 34);
    drop(clients);
    wait_until("their threads have ended", || threads(server.pid()) == 1);
}

#[test]
fn where_all_are_being_answered_the_next_is_told_503() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "2", "--timeout", "60"]);
    let mut stuck: Vec<_> = (0..2)
        .map(|_| never_reads(server.addr(), &target))
        .collect();
    wait_until("both are stuck", || {
        settled(server.pid());
        let mut client = Client::connect(server.addr());
        client.try_send(request(&target));
        let mut start = [0; 12];
        let read = uninterrupted(|| client.stream().peek(&mut start)).unwrap_or(0);
        let is_refused = start[..read] == *b"HTTP/1.1 503";
        if !is_refused {
            // One was not, and had to make room: this one takes its place.
            stuff(&client, &request(&target).repeat(100));
            stuck.push(client);
        }
        is_refused
    });
    for text in ["", &request(&target)] {
        let mut client = Client::connect(server.addr());
        client.try_send(text);
        let answer = client.read_to_any_end();
        assert!(
            answer.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        assert!(String::from_utf8_lossy(&answer).contains("\r\nConnection: close\r\n"));
    }
    drop(stuck);
    wait_until("there is room again", || threads(server.pid()) < 3);
    served(server.addr(), &target);
}

#[test]
fn clients_that_linger_after_their_last_answer_shut_nobody_out() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "4"]);
    let mut lingering: Vec<_> = (0..4).map(|_| Client::connect(server.addr())).collect();
    for client in &mut lingering {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
    settled(server.pid());
    // They have all been answered, and do not close: nobody is being answered any more.
    served(server.addr(), &target);
}

#[test]
fn one_at_a_time_is_enough_for_clients_one_after_the_other() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "1"]);
    for _ in 0..200 {
        let mut client = Client::connect(server.addr());
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!(client.response().status, 200);
        client.closed();
    }
}

#[test]
fn dribblers_whose_time_is_up_shut_nobody_out() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "8", "--timeout", "0.2"]);
    let mut dribblers: Vec<_> = (0..8).map(|_| Client::connect(server.addr())).collect();
    for client in &mut dribblers {
        client.send("GET /");
    }
    for client in &mut dribblers {
        assert_eq!(client.response().status, 408);
    }
    settled(server.pid());
    served(server.addr(), &target);
}

#[test]
fn a_thousand_dribblers_shut_nobody_out() {
    raise_descriptors();
    let (dir, target) = one_block();
    let server = Server::start(&dir);
    let mut dribblers = connect(server.addr(), 1000);
    let mut healthy = Client::connect(server.addr());
    let head = format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}", "x".repeat(100));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for byte in head.as_bytes().chunks(1) {
                for client in &mut dribblers {
                    // Those that had to make room are gone.
                    client.try_send(byte);
                }
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for _ in 0..100 {
            assert_eq!(ask(&mut healthy, &target), 200);
            served(server.addr(), &target);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn two_hundred_that_never_read_shut_nobody_out() {
    raise_descriptors();
    let (dir, target) = one_block();
    let server = Server::start(&dir);
    let pipelined = request(&target).repeat(200);
    let mut greedy = connect(server.addr(), 200);
    for client in &mut greedy {
        let stream = client.stream();
        // As much as is taken at once: the server's thread may be stuck by now.
        stream.set_nonblocking(true).unwrap();
        client.try_send(&pipelined);
    }
    for _ in 0..20 {
        served(server.addr(), &target);
    }
    drop(greedy);
    wait_until("their threads have ended", || threads(server.pid()) == 1);
}

/// A server of `dir`, and 1,000 clients that got `target` each.
fn a_thousand_answered((dir, target): &(TempDir, String)) -> (Server, Vec<Client>) {
    raise_descriptors();
    let server = Server::with(dir, &["--max-conns", "1001"]);
    let mut clients = connect(server.addr(), 1000);
    for client in &mut clients {
        assert_eq!(ask(client, target), 200);
    }
    served(server.addr(), target);
    (server, clients)
}

#[test]
fn a_thousand_idle_clients_take_less_than_32_mib() {
    let (server, _clients) = a_thousand_answered(&one_block());
    wait_until("all are there", || threads(server.pid()) == 1001);
    let peak = peak_kib(server.pid());
    assert!(peak < 32 * 1024, "{peak} KiB");
}

#[test]
fn a_thousand_clients_take_less_than_32_mib_whatever_they_send() {
    // A block first, whose memory is kept, then all of a head but its end. Of those heads the
    // oldest make room.
    let head = format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}", "x".repeat(16_000));
    let block = one_block();
    let (server, mut clients) = a_thousand_answered(&block);
    for client in &mut clients {
        client.send(&head);
    }
    served(server.addr(), &block.1);
    let mut last = clients.pop().unwrap();
    last.send("\r\n\r\n");
    assert_eq!(last.response().status, 200);
    let peak = peak_kib(server.pid());
    assert!(peak < 32 * 1024, "{peak} KiB");
}

/// As many bytes as are taken at once: the server may be stuck with an answer that nobody reads.
fn send_what_is_taken(client: &mut Client, bytes: &str) {
    client.stream().set_nonblocking(true).unwrap();
    client.try_send(bytes);
    client.stream().set_nonblocking(false).unwrap();
}

#[test]
fn a_thousand_lists_whose_answers_nobody_reads_take_less_than_32_mib() {
    let block = one_block();
    let (server, mut clients) = a_thousand_answered(&block);
    let list = post(&block.1, 1024);
    for client in &mut clients {
        send_what_is_taken(client, &list);
        send_what_is_taken(client, &list);
    }
    for _ in 0..10 {
        served(server.addr(), &block.1);
    }
    settled(server.pid());
    let peak = peak_kib(server.pid());
    assert!(peak < 32 * 1024, "{peak} KiB");
}

#[test]
fn a_thousand_lists_that_dribble_in_take_less_than_32_mib() {
    let block = one_block();
    let (server, mut clients) = a_thousand_answered(&block);
    let list = post(&block.1, 1024);
    for client in &mut clients {
        client.try_send(&list[..list.len() - 1]);
    }
    served(server.addr(), &block.1);
    // The last is in, and of those before it some had to make room.
    let mut last = clients.pop().unwrap();
    last.send(&list[list.len() - 1..]);
    assert_eq!(last.response().body.len(), 1024 * (2 + BLOCK_SIZE));
    let peak = peak_kib(server.pid());
    assert!(peak < 32 * 1024, "{peak} KiB");
}

/// With so many clients stuck that `asked` and never read, and as many more as it takes, one more
/// with `next` is refused with 503 and the end of its connection; others are not.
#[track_caller]
fn refused_where_all_are_stuck(
    (dir, target): (TempDir, String),
    count: usize,
    asked: &str,
    next: &str,
) {
    let server = Server::with(&dir, &["--timeout", "60"]);
    let mut stuck = connect(server.addr(), count);
    thread::scope(|scope| {
        for client in &stuck {
            scope.spawn(|| stuff(client, asked));
        }
    });
    wait_until("one is refused", || {
        settled(server.pid());
        let mut client = Client::connect(server.addr());
        client.try_send(next);
        let mut start = [0; 12];
        let read = uninterrupted(|| client.stream().peek(&mut start)).unwrap_or(0);
        if start[..read] != *b"HTTP/1.1 503" {
            // One of the others was not stuck, and this one takes its place.
            stuff(&client, asked);
            stuck.push(client);
            return false;
        }
        // Nothing that follows is taken for a request.
        let answers = responses(&client.half_close().read_to_end());
        assert_eq!(answers.len(), 1);
        answers[0].header("Connection") == Some("close")
    });
    served(server.addr(), &target);
    drop(stuck);
    wait_until("their threads have ended", || threads(server.pid()) == 1);
    let mut client = Client::connect(server.addr());
    assert_eq!(client.send(next).response().status, 200);
}

/// Lists of the most lines that are answered at once, at most: 3 MiB of 32 KiB each, and half of that may be
/// large outputs.
const MOST_LISTS: usize = 64;

/// More of them than may arrive at once, each with a part of its text.
const MANY_ARRIVING: usize = 90;

#[test]
fn where_all_lists_are_being_answered_the_next_is_told_503() {
    let block = one_block();
    let list = post(&block.1, 1024);
    refused_where_all_are_stuck(block, MOST_LISTS, &list, &list);
}

#[test]
fn where_all_long_heads_are_being_answered_the_next_is_told_503() {
    let block = one_block();
    let field = format!("X: {}\r\nHost", "x".repeat(16_000));
    let lengthen = |request: String| request.replace("Host", &field);
    // Each with a list, whose answer gets stuck sooner: 3 MiB of 24 KiB each, and half of that may be large
    // outputs. What is left for none of them may be enough for a head alone.
    let list = lengthen(post(&block.1, 256));
    refused_where_all_are_stuck(block, 73, &list, &list);
}

#[test]
fn lists_that_dribble_in_make_room_for_whole_ones() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "60"]);
    let list = post(&target, 1024);
    let mut dribblers = connect(server.addr(), MANY_ARRIVING);
    for client in &mut dribblers {
        client.send(&list[..list.len() - 1]);
    }
    settled(server.pid());
    let mut client = Client::connect(server.addr());
    assert_eq!(client.send(&list).response().status, 200);
    assert_eq!(dribblers.remove(0).read_to_any_end(), b"");
}

#[test]
fn a_list_must_be_whole_in_time() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "0.2"]);
    let list = post(&target, 3);
    let head = list.len() - 3 * 65;
    for part in [head, head + 1, head + 65, list.len() - 1] {
        let started = Instant::now();
        let mut client = Client::connect(server.addr());
        let answer = client.send(&list[..part]).response();
        let told = (answer.status, answer.header("Connection"));
        assert_eq!(told, (408, Some("close")), "{part}");
        client.closed();
        assert!((Duration::from_millis(200)..SOON).contains(&started.elapsed()));
    }
    // Not restarted by each byte.
    let started = Instant::now();
    let mut client = Client::connect(server.addr());
    client.send(&list[..head]);
    let mut stream = client.stream();
    stream
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let mut dribble = list[head..].bytes();
    while stream.peek(&mut [0]).is_err() {
        let byte = dribble.next().expect("408 before the last byte");
        let _ = stream.write_all(&[byte]);
    }
    assert_eq!(client.response().status, 408);
    assert!(started.elapsed() >= Duration::from_millis(200));
    // The time for the next head is another.
    let server = Server::with(&dir, &["--timeout", "20"]);
    let mut client = Client::connect(server.addr());
    for _ in 0..2 {
        client.send_split(list.as_bytes(), &[head, head + 10, head + 65]);
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_list_that_dribbles_in_counts_as_idle() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--max-conns", "2"]);
    let list = post(&target, 3);
    let mut dribbler = Client::connect(server.addr());
    dribbler.send_split(&list.as_bytes()[..list.len() - 1], &[30, 100, 150]);
    let mut healthy = Client::connect(server.addr());
    for _ in 0..5 {
        healthy.send_split(list.as_bytes(), &[100, 150]);
        assert_eq!(healthy.response().status, 200);
    }
    served(server.addr(), &target);
    assert!(dribbler.read_to_any_end().is_empty());
    assert_eq!(ask(&mut healthy, &target), 200);
}

#[test]
fn a_reader_that_takes_nothing_of_a_list_is_dropped_in_time() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "0.3"]);
    let mut greedy = Client::connect(server.addr());
    // The server may drop it before that many are taken.
    stuff(&greedy, &post(&target, 1024));
    wait_until("its thread has ended", || threads(server.pid()) == 1);
    let seen = greedy.read_to_any_end();
    assert!(seen.starts_with(b"HTTP/1.1 200 OK\r\n"));
    served(server.addr(), &target);
}

/// From the last byte on, however many writes that is.
#[test]
fn a_reader_that_takes_nothing_has_the_timeout_once() {
    const TIMEOUT: u64 = 2;
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["-v", "--timeout", &TIMEOUT.to_string()]);
    let greedy = Client::connect(server.addr());
    stuff(&greedy, &post(&target, 1024).repeat(4));
    // The last answer was not sent whole.
    let log = server.wait_stderr(|err| err.windows(7).any(|part| part == b" 200 - "));
    let log = String::from_utf8(log).unwrap();
    let micros: u64 = log.split(" 200 - ").nth(1).unwrap().trim().parse().unwrap();
    let (least, most) = (TIMEOUT * 1_000_000, TIMEOUT * 2_000_000);
    assert!((least..most).contains(&micros), "{log}");
}

#[test]
fn a_list_that_cannot_be_read_for_want_of_descriptors_is_503() {
    let (dir, target) = one_block();
    let run = psync!("server", "-d", &dir, "127.0.0.1:0");
    // As below, none is left for a block.
    let server = Server::of(run.sh("ulimit -n 6"));
    let mut client = Client::connect(server.addr());
    assert_eq!(ask(&mut client, "/"), 200);
    settled(server.pid());
    let refusal = client.send(post(&target, 20)).response();
    assert_eq!((refusal.status, refusal.header("Connection")), (503, None));
    assert_eq!(ask(&mut client, "/"), 200);
}

#[test]
fn an_answer_that_lacks_descriptors_is_cut_off_and_calls_no_block_absent() {
    // It may be between two answers that the sockets hold no more: then the next is refused whole.
    assert!((0..5).any(|n| is_cut_off(1000 - 10 * n)));
}

/// Whether an answer of so many blocks is cut off where there are no descriptors from some time in
/// the midst of it on. What came of it must be right.
#[track_caller]
fn is_cut_off(lines: usize) -> bool {
    let (dir, target) = one_block();
    let server = Server::start(&dir);
    let mut client = Client::connect(server.addr());
    // More than sockets hold.
    client.send(post(&target, lines).repeat(8)).half_close();
    uninterrupted(|| client.stream().peek(&mut [0])).unwrap();
    settled(server.pid());
    let pid = server.pid().to_string();
    tool!("prlimit", "--pid", pid, "--nofile=4:").run().ok();
    let seen = client.read_to_any_end();
    let frame = [&[16, 0], &fs::read(dir.join(&target[1..])).unwrap()[..]].concat();
    let is_right = |other: &[u8]| *other == frame[..other.len()];
    let mut rest = &seen[..];
    // A reset may take the end of what was sent, wherever that is.
    while let Some(head) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
        if rest.starts_with(b"HTTP/1.1 503 ") {
            return false;
        }
        assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
        rest = &rest[head + 4..];
        let Some((body, length)) = dechunked(rest) else {
            for chunk in cut_chunks(rest) {
                assert!(chunk.chunks(frame.len()).all(is_right));
            }
            return true;
        };
        assert!(body.len() == lines * frame.len() && body.chunks(frame.len()).all(is_right));
        rest = &rest[length..];
    }
    false
}

/// The chunks at the beginning of a body that has no end.
fn cut_chunks(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        assert!(size > 0);
        rest = &rest[line + 2..];
        chunks.push(&rest[..size.min(rest.len())]);
        rest = &rest[(size + 2).min(rest.len())..];
    }
    chunks
}

#[test]
fn used_up_descriptors_are_waited_out() {
    let (dir, target) = one_block();
    let run = psync!("server", "-d", &dir, "--timeout", "60", "127.0.0.1:0");
    let server = Server::of(run.sh("ulimit -n 32"));
    let silent: Vec<_> = (0..200).map(|_| Client::connect(server.addr())).collect();
    // Silent ones make room until the last is in.
    let started = Instant::now();
    wait_until("served beside 200 silent ones", || {
        is_served(server.addr(), &target)
    });
    assert!(started.elapsed() < SOON);
    assert_not_spinning(server.pid());
    drop(silent);
    wait_until("their threads have ended", || threads(server.pid()) == 1);
    served(server.addr(), &target);
}

#[test]
fn descriptors_that_nobody_can_give_up_are_waited_for_without_spinning() {
    let (dir, target) = one_block();
    let run = psync!("server", "-d", &dir, "--timeout", "60", "127.0.0.1:0");
    let server = Server::of(run.sh("ulimit -n 16"));
    let mut greedy = Vec::new();
    wait_until("no descriptor is left", || {
        let client = Client::connect(server.addr());
        // One that had not yet been answered when they ran out may be let go.
        if stuff(&client, &request(&target).repeat(100)) == ErrorKind::WouldBlock {
            greedy.push(client);
        }
        descriptors(server.pid()) >= 16
    });
    assert_not_spinning(server.pid());
    drop(greedy);
    wait_until("their threads have ended", || threads(server.pid()) == 1);
    served(server.addr(), &target);
}

#[test]
fn a_block_that_cannot_be_opened_for_want_of_descriptors_is_503() {
    let (dir, target) = one_block();
    let run = psync!("server", "-d", &dir, "127.0.0.1:0");
    // Standard input, output and error, the socket that listens, one connection, and the one that
    // the kernel sets aside for the next.
    let server = Server::of(run.sh("ulimit -n 6"));
    let mut client = Client::connect(server.addr());
    let mut refusal = None;
    wait_until("the next descriptor is set aside", || {
        client.send(request(&target));
        let answer = client.response();
        let is_refused = answer.status == 503;
        refusal = Some(answer);
        is_refused
    });
    assert_eq!(refusal.unwrap().header("Connection"), None);
    // The connection lives on.
    assert_eq!(ask(&mut client, "/"), 200);
}

#[test]
fn silent_clients_give_up_the_descriptors_that_a_block_needs() {
    let (dir, target) = one_block();
    let run = psync!("server", "-d", &dir, "127.0.0.1:0");
    let server = Server::of(run.sh("ulimit -n 24"));
    let mut client = Client::connect(server.addr());
    let mut silent = Vec::new();
    for _ in 0..30 {
        assert_eq!(ask(&mut client, &target), 200);
        silent.push(Client::connect(server.addr()));
        assert_eq!(ask(silent.last_mut().unwrap(), "/"), 200);
    }
}

/// The limit counts a user's threads all over the machine, so a user is needed who has none.
#[test]
#[ignore = "takes another user id"]
fn root_used_up_threads_are_waited_out() {
    let (dir, target) = one_block();
    let home = TempDir::new();
    // Where that user can run it, wherever it was built.
    let psync = home.join("psync");
    fs::copy(PSYNC, &psync).unwrap();
    fs::set_permissions(&psync, fs::Permissions::from_mode(0o755)).unwrap();
    let uid = (100_000 + process::id()).to_string();
    let run = Run::new(&psync).args(["server", "--timeout", "60", "127.0.0.1:0", "-d"]);
    let run = run.arg(&dir).under("prlimit", ["--nproc=8"]);
    let server = Server::of(run.under("setpriv", ["--clear-groups", "--reuid", &uid, "--"]));
    let silent: Vec<_> = (0..100).map(|_| Client::connect(server.addr())).collect();
    wait_until("served beside 100 silent ones", || {
        is_served(server.addr(), &target)
    });
    assert!(threads(server.pid()) <= 8);
    drop(silent);
    wait_until("their threads have ended", || threads(server.pid()) == 1);
    // And where none can make room: 503, and no spinning.
    let stuck: Vec<_> = (0..7)
        .map(|_| never_reads(server.addr(), &target))
        .collect();
    let answer = Client::connect(server.addr()).read_to_any_end();
    assert!(answer.starts_with(b"HTTP/1.1 503 "));
    assert_not_spinning(server.pid());
    drop(stuck);
    wait_until("their threads have ended", || threads(server.pid()) == 1);
    served(server.addr(), &target);
}

/// So many clients that go away in the middle of their answers.
#[track_caller]
fn resets_leave_nothing_behind(count: usize) {
    let (dir, target) = one_block();
    let server = Server::start(&dir);
    served(server.addr(), &target);
    wait_until("nobody is connected", || threads(server.pid()) == 1);
    let before = descriptors(server.pid());
    let asked = request(&target).repeat(30);
    for _ in 0..count {
        let mut client = Client::connect(server.addr());
        client.send(&asked);
        // Closing with bytes unread resets the connection.
        uninterrupted(|| client.stream().peek(&mut [0])).unwrap();
    }
    wait_until("their threads have ended", || threads(server.pid()) == 1);
    assert_eq!(descriptors(server.pid()), before);
    let resident = resident_kib(server.pid());
    assert!(resident < 32 * 1024, "{resident} KiB");
    served(server.addr(), &target);
}

#[test]
fn three_thousand_resets_leave_nothing_behind() {
    resets_leave_nothing_behind(3_000);
}

#[test]
#[ignore = "takes long"]
fn slow_ten_thousand_resets_leave_nothing_behind() {
    resets_leave_nothing_behind(10_000);
}

#[test]
#[ignore = "takes a minute"]
fn slow_an_idle_connection_ends_after_a_minute() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["--timeout", "1"]);
    let mut client = Client::connect(server.addr());
    let limit = Some(Duration::from_secs(90));
    client.stream().set_read_timeout(limit).unwrap();
    assert_eq!(ask(&mut client, &target), 200);
    let started = Instant::now();
    client.closed();
    assert!((55..80).contains(&started.elapsed().as_secs()));
}
