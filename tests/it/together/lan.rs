//! `--lan`: what is asked and answered, to the byte, and that whoever else answers costs time at most.
//!
//! The port is the protocol's, so each test has a network of its own: the loopback of a namespace that
//! any user may make, or hosts on a bridge, for root.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::*;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 112, 115);
const PORT: u16 = 40960;

const ADVICE: &str = "is the network up? --lan=ADDR takes the interface with that address";

/// A shell script, with `$PSYNC`, where there is nothing but a loopback, and psync's own directory.
pub fn alone(script: &str, dir: &TempDir) -> Option<Run> {
    let may = tool!("unshare", "-rn", "true").run().status == 0;
    let ip = need("ip");
    may.then(|| {
        let script = format!("\"$IP\" link set lo up\n{script}");
        tool!("unshare", "-rn", "sh", "-ec", script)
            .env("IP", ip)
            .env("PSYNC", PSYNC)
            .cwd(dir)
    })
}

/// A server that has come up, in such a script.
pub const SERVED: &str = ": >out; \"$PSYNC\" server -d b --lan=127.0.0.1 127.0.0.1:0 >out &
trap 'kill $!' EXIT
until grep -q listening out; do :; done
";

#[test]
fn get_finds_a_server_on_its_own_machine() {
    let sample = Sample::new(20);
    write_blocks(sample.dir.join("b"), &sample.bytes);
    let get = "\"$PSYNC\" get -d none --lan=127.0.0.1 list";
    let Some(run) = alone(&format!("{SERVED}{get}"), &sample.dir) else {
        skip!("no namespaces for this user")
    };
    sample.is_whole(run.run());
}

#[test]
fn a_second_server_says_that_the_port_is_taken() {
    let dir = TempDir::new();
    std::fs::create_dir(dir.join("b")).unwrap();
    let second = "\"$PSYNC\" server -d b --lan=127.0.0.1 127.0.0.1:0";
    let Some(run) = alone(&format!("{SERVED}{second}"), &dir) else {
        skip!("no namespaces for this user")
    };
    let out = run.run().fails(
        1,
        "psync: listen on 239.255.112.115:40960: another program has this UDP port, perhaps another psync server --lan\n",
    );
    assert!(out.stdout.is_empty(), "{out}");
}

#[test]
fn where_there_is_no_network_a_server_fails_and_get_goes_on() {
    let sample = Sample::new(3);
    write_blocks(sample.dir.join("b"), &sample.bytes);
    for (option, cause) in [
        ("--lan", "No such device"),
        ("--lan=192.0.2.1", "No such device"),
    ] {
        let script = format!("\"$PSYNC\" server -d b {option} :0");
        let Some(run) = alone(&script, &sample.dir) else {
            skip!("no namespaces for this user")
        };
        let told = format!("psync: listen on 239.255.112.115:40960: {cause}; {ADVICE}\n");
        run.run().fails(1, &told);
    }
    for (option, cause) in [
        ("--lan", "Network is unreachable"),
        ("--lan=192.0.2.1", "Cannot assign requested address"),
    ] {
        let get = |more: &str| {
            let script = format!("\"$PSYNC\" get {more} {option} list");
            alone(&script, &sample.dir).unwrap().run()
        };
        let told = format!("psync: ask the local network: {cause}; {ADVICE}\n");
        let out = get("-d b").warns(&told);
        assert!(out.stdout == sample.bytes);
        sample.is_whole(get("-q -d b"));
    }
}

#[test]
fn a_server_that_the_network_does_not_reach_says_so() {
    let dir = TempDir::new();
    for words in [
        &["--lan", "127.0.0.1:0"][..],
        &["--lan", "[::1]:0", "127.0.0.2:0"],
        &["--lan=192.0.2.1", "127.0.0.1:0"],
        &["--lan=127.0.0.1", "127.0.0.2:0"],
    ] {
        let out = psync!("server", "-d", &dir).args(words).run();
        let told = "psync: --lan: no ADDR is one that this network reaches, as :8080 is; see psync server --help\n";
        let out = out.fails(2, told);
        assert!(out.stdout.is_empty(), "{out}");
    }
}

/// The psync server of these blocks on this host.
#[track_caller]
fn serve(host: &Host, dir: &std::path::Path, words: &[&str]) -> Server {
    let run = psync!("server", "-d", dir).args(words).arg(":8080");
    Server::of(host.run(run))
}

/// `get` of the sample on this host.
fn ask(host: &Host, sample: &Sample, words: &[&str], servers: &[&dyn Display]) -> Output {
    host.run(sample.get(servers).args(words)).run()
}

/// A question, and who asked it.
type Heard = (Vec<u8>, SocketAddr);

/// Something on a host that hears every question, and has its own idea of answers.
struct Answerer {
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    /// `answer` is given the socket to answer from, the nonce, and who asked.
    fn new(host: &Host, answer: impl Fn(&UdpSocket, &str, SocketAddr) + Send + 'static) -> Self {
        let addr = host.addr();
        let socket = host.within(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            socket.join_multicast_v4(&GROUP, &addr).unwrap();
            socket
        });
        let moment = Duration::from_millis(50);
        socket.set_read_timeout(Some(moment)).unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (hearing, stopped) = (Arc::clone(&heard), Arc::clone(&stop));
        let listen = move || {
            let mut buffer = [0; 1024];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let question = buffer[..length].to_vec();
                let nonce = String::from_utf8_lossy(&question[length.min(12)..]).into_owned();
                hearing.lock().unwrap().push((question, from));
                answer(&socket, &nonce, from);
            }
        };
        let thread = Some(thread::spawn(listen));
        Self {
            heard,
            stop,
            thread,
        }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        at_drop(|| {
            self.stop.store(true, Ordering::Relaxed);
            let ended = self.thread.take().unwrap().join();
            assert!(ended.is_ok() || thread::panicking());
        });
    }
}

fn here(nonce: &str, port: impl Display) -> String {
    format!("psync 1 here {nonce} {port}")
}

#[test]
#[ignore = "network namespaces"]
fn root_boxes_find_each_other() {
    let (net, sample) = (Net::new(0, 3), Sample::new(40));
    let (first, second) = sample.bytes.split_at(20 * BLOCK_SIZE);
    let (a, b) = (sample.dir.join("a"), sample.dir.join("b"));
    write_blocks(&a, first);
    write_blocks(&b, second);
    let _servers = [
        serve(net.host(0), &a, &["--lan"]),
        serve(net.host(1), &b, &["--lan"]),
    ];
    for host in 0..3 {
        sample.is_whole(ask(net.host(host), &sample, &["--lan"], &[]));
    }
    // A proxy has no part in it.
    let get = sample
        .get(&[])
        .arg("--lan")
        .env("http_proxy", "http://10.113.0.9:1");
    sample.is_whole(net.host(2).run(get).run());
    // And only where it is asked for.
    let out = ask(net.host(2), &sample, &[], &[]);
    out.fails_naming(3, &["it is not at hand, and no server is given"]);
}

#[test]
#[ignore = "network namespaces"]
fn root_one_question_is_asked_with_a_fresh_nonce() {
    let (net, sample) = (Net::new(0, 2), Sample::new(1));
    let listener = Answerer::new(net.host(0), |_, _, _| {});
    for _ in 0..5 {
        let out = ask(net.host(1), &sample, &["--lan"], &[]);
        let out = out.fails_naming(3, &["no server is given"]);
        assert!(out.took >= Duration::from_millis(500), "{out}");
    }
    let heard = listener.heard();
    let mut questions: Vec<_> = heard.iter().map(|(question, _)| question.clone()).collect();
    questions.dedup();
    assert_eq!((heard.len(), questions.len()), (5, 5));
    for (question, from) in heard {
        let nonce = question.strip_prefix(b"psync 1 who ").unwrap();
        assert!(nonce.len() == 16 && nonce.iter().all(|c| b"0123456789abcdef".contains(c)));
        assert_eq!(from.ip(), net.host(1).addr());
    }
    // What is already there needs nobody.
    let whole = sample.dir.file("whole", &sample.bytes);
    let output = ["--lan", "-o", whole.to_str().unwrap()];
    ask(net.host(1), &sample, &output, &[]).ok();
    assert_eq!(listener.heard().len(), 5);
}

#[test]
#[ignore = "network namespaces"]
fn root_nothing_but_an_answer_is_believed() {
    let (net, sample) = (Net::new(0, 2), Sample::new(1));
    let bytes = sample.bytes.clone();
    let bait = net.host(0).keep(move || {
        let blocks = block_map(&bytes);
        HostileServer::http_at("10.113.0.1:0", move |request| {
            Reply::honest(&blocks, request)
        })
    });
    let port = bait.addr().port();
    let wrong = move |socket: &UdpSocket, nonce: &str, from: SocketAddr| {
        let other = format!("{:016x}", u64::from_str_radix(nonce, 16).unwrap() ^ 1);
        let short = &nonce[..15];
        let flipped = nonce.bytes().rev().map(char::from).collect::<String>();
        for answer in [
            here(&other, port),
            here(short, port),
            here("", port),
            here(&flipped, port),
            here(nonce, 0),
            here(nonce, format_args!("0{port}")),
            here(nonce, format_args!("{port} ")),
            here(nonce, format_args!("{port}\n")),
            here(nonce, format_args!("{port}/x")),
            here(nonce, 65536 + u32::from(port)),
            here(nonce, format_args!("+{port}")),
            here(nonce, "0".repeat(600)),
            here(&nonce.to_uppercase(), port) + "\0",
            format!("psync 2 here {nonce} {port}"),
            format!("psync 1 who {nonce}"),
            String::new(),
        ] {
            socket.send_to(answer.as_bytes(), from).unwrap();
        }
    };
    let answerer = Answerer::new(net.host(0), wrong);
    let out = ask(net.host(1), &sample, &["--lan"], &[]);
    out.fails_naming(3, &["it is not at hand, and no server is given"]);
    assert_eq!(bait.connections(), 0);
    drop(answerer);
    let _right = Answerer::new(net.host(0), move |socket, nonce, from| {
        wrong(socket, nonce, from);
        socket.send_to(here(nonce, port).as_bytes(), from).unwrap();
    });
    sample.is_whole(ask(net.host(1), &sample, &["--lan"], &[]));
}

#[test]
#[ignore = "network namespaces"]
fn root_thirty_two_answers_are_taken_in_order_of_arrival_before_those_listed() {
    let (net, sample) = (Net::new(0, 2), Sample::new(0));
    let _answerer = Answerer::new(net.host(0), |socket, nonce, from| {
        for port in [1, 1, 2, 1, 2].into_iter().chain(3..=40) {
            socket.send_to(here(nonce, port).as_bytes(), from).unwrap();
        }
    });
    let listed: [&dyn Display; 2] = [&"10.113.0.1:99", &"10.113.0.1:2"];
    let out = ask(net.host(1), &sample, &["--lan"], &listed);
    let due = (1..=32).chain([99]);
    let due = due.map(|port| format!("10.113.0.1:{port}: Connection refused (given up)"));
    let due: Vec<_> = due.collect();
    let due: Vec<_> = due.iter().map(String::as_str).collect();
    sample.ends_before(0, out, &due);
}

#[test]
#[ignore = "network namespaces"]
fn root_liars_on_the_link_cost_time_alone() {
    let (net, sample) = (Net::new(0, 5), Sample::new(60));
    let (lying, silent, flooding, honest) = (net.host(0), net.host(1), net.host(2), net.host(3));
    let _lies =
        lying.keep(|| HostileServer::http_at("10.113.0.1:8080", |_| Reply::ok([7; BLOCK_SIZE])));
    let _told = Answerer::new(lying, |socket, nonce, from| {
        socket.send_to(here(nonce, 8080).as_bytes(), from).unwrap();
    });
    let _never_accepts = silent.within(|| TcpListener::bind("10.113.0.2:8080").unwrap());
    let _told = Answerer::new(silent, |socket, nonce, from| {
        socket.send_to(here(nonce, 8080).as_bytes(), from).unwrap();
    });
    let _flood = Answerer::new(flooding, |socket, _, from| {
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            for forged in [here("0123456789abcdef", 8080), "x".repeat(1400)] {
                let _ = socket.send_to(forged.as_bytes(), from);
            }
        }
    });
    let blocks = sample.dir.join("blocks");
    write_blocks(&blocks, &sample.bytes);
    let _server = serve(honest, &blocks, &["--lan"]);
    for _ in 0..3 {
        // The honest one listed too: a flood may drown its answer in the socket's buffer.
        let options = ["--lan", "-j", "8", "--timeout", "1"];
        let out = ask(net.host(4), &sample, &options, &[&"10.113.0.4:8080"]);
        assert!(out.took < Duration::from_secs(30), "{:?}", out.took);
        sample.is_whole(out);
    }
}

#[test]
#[ignore = "network namespaces"]
fn root_the_interface_is_the_one_of_the_address() {
    let (near, far) = (Net::new(0, 2), Net::new(1, 1));
    let sample = Sample::new(10);
    let blocks = sample.dir.join("blocks");
    let empty = sample.dir.join("empty");
    write_blocks(&blocks, &sample.bytes);
    std::fs::create_dir(&empty).unwrap();
    let client = near.host(1);
    far.join(client, "eth1", Ipv4Addr::new(10, 113, 1, 9));
    let _other = serve(near.host(0), &empty, &["--lan"]);
    let _server = serve(far.host(0), &blocks, &["--lan"]);
    sample.is_whole(ask(client, &sample, &["--lan=10.113.1.9"], &[]));
    for lan in ["--lan", "--lan=10.113.0.2"] {
        let out = ask(client, &sample, &[lan], &[]);
        sample.ends_before(0, out, &["10.113.0.1:8080: it has not got it"]);
    }
    // A server on both is heard on the one, whichever has the default route.
    for words in [
        &["--lan=10.113.1.9", ":8080"][..],
        &["--lan", "10.113.1.9:8080"],
    ] {
        let run = psync!("server", "-d", &blocks).args(words);
        let _both = Server::of(client.run(run));
        let out = ask(far.host(0), &sample, &["--lan", "-v"], &[]);
        assert_eq!(out.status, 0, "{out}");
        assert!(out.stdout == sample.bytes);
    }
}

/// What comes to this socket until a moment after the last.
fn received(socket: &UdpSocket) -> Vec<(String, SocketAddr)> {
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        all.push((
            String::from_utf8_lossy(&buffer[..length]).into_owned(),
            from,
        ));
    }
    all
}

#[test]
#[ignore = "network namespaces"]
fn root_a_server_answers_the_question_alone_and_no_more_than_a_hundred_a_second() {
    let (net, sample) = (Net::new(0, 2), Sample::new(1));
    let _server = serve(net.host(0), &sample.dir, &["--lan"]);
    let client = net.host(1);
    let socket = client.within(|| UdpSocket::bind((client.addr(), 0)).unwrap());
    let nonce = "0123456789abcdEF";
    let question = format!("psync 1 who {nonce}");
    for wrong in [
        &question[..27],
        &format!("{question}\n"),
        &format!("{question}0"),
        &format!(" {question}"),
        &question.replace("who", "Who"),
        &question.replace('1', "2"),
        &question.replace('f', "g").replace('F', "G"),
        &"psync 1 who ".repeat(100),
        &here(nonce, 8080),
        "",
    ] {
        socket.send_to(wrong.as_bytes(), (GROUP, PORT)).unwrap();
    }
    // Nor one that is not asked of all.
    socket
        .send_to(question.as_bytes(), (net.host(0).addr(), PORT))
        .unwrap();
    assert_eq!(received(&socket), []);
    socket.send_to(question.as_bytes(), (GROUP, PORT)).unwrap();
    let answers = received(&socket);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, here(nonce, 8080));
    assert_eq!(answers[0].1.ip(), net.host(0).addr());
    // A flood: what it takes is bounded, and it passes.
    let start = Instant::now();
    for _ in 0..1000 {
        socket.send_to(question.as_bytes(), (GROUP, PORT)).unwrap();
    }
    let answers = received(&socket).len();
    let seconds = start.elapsed().as_secs() as usize + 1;
    assert!((1..=100 * seconds).contains(&answers), "{answers}");
    let status = client.within(|| get("10.113.0.1:8080".parse().unwrap(), "/").status);
    assert_eq!(status, 200);
    // An interface that was down for a while is heard again.
    net.host(0).ip("link set eth0 down");
    net.host(0).ip("link set eth0 up");
    wait_until("the server is heard", || {
        socket.send_to(question.as_bytes(), (GROUP, PORT)).unwrap();
        !received(&socket).is_empty()
    });
}
