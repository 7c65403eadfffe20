//! Servers that are named by servers: who is asked, in which order, how often and how many; and what a
//! liar can do with it, which is to waste bounded time.

use std::fmt::Display;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::*;

/// Has these blocks, and answers so when asked for peers.
fn answering(blocks: BlockMap, peers: Reply) -> HostileServer {
    HostileServer::http(move |request| match request.target.as_str() {
        "/peers" => peers.clone(),
        _ => Reply::honest(&blocks, request),
    })
}

/// Has no block, and names these.
fn naming(peers: &[&dyn Display]) -> HostileServer {
    answering(BlockMap::new(), Reply::ok(lines(peers)))
}

fn lines(peers: &[&dyn Display]) -> String {
    peers.iter().map(|peer| format!("{peer}\n")).collect()
}

/// How often it was asked for peers, and for anything else.
fn asked(server: &HostileServer) -> (usize, usize) {
    let targets = server.targets();
    let peers = targets.iter().filter(|target| *target == "/peers").count();
    (peers, targets.len() - peers)
}

#[test]
fn peers_give_what_no_listed_server_gives() {
    let sample = Sample::new(3);
    let mut half = sample.map();
    half.remove(&sample.hash(1));
    half.remove(&sample.hash(3));
    let (peer, unlisted) = (sample.honest(), sample.honest());
    let listed = answering(half, Reply::ok(format!("# near\n\n  {peer} # box\r\n")));
    sample.is_whole(sample.get(&[&listed]).arg("--peers").run());
    assert_eq!((asked(&listed), asked(&peer)), ((1, 4), (1, 2)));
    // Nobody asks for them unless told to.
    let out = sample.get(&[&listed]).run();
    sample.ends_before(1, out, &[&format!("{listed}: HTTP 404 Not Found")]);
    assert_eq!(asked(&listed).0, 1);
    assert_eq!(unlisted.connections(), 0);
}

#[test]
fn peers_are_found_before_the_work_and_asked_for_what_is_left() {
    let sample = Sample::new(9);
    let peer = sample.honest();
    let listed = answering(sample.map(), Reply::ok(lines(&[&peer])));
    let file = sample.dir.join("file");
    let get = || {
        let get = sample.get(&[&listed]).args(["--peers", "-j", "8"]);
        get.arg("-o").arg(&file)
    };
    get().run().ok();
    assert_eq!(listed.targets()[0], "/peers");
    assert_eq!((asked(&listed), asked(&peer)), ((1, 10), (1, 0)));
    // Nobody is asked where nothing is to be fetched, nor by a dry run.
    get().run().ok();
    fs::remove_file(&file).unwrap();
    get().arg("-n").run().fails_naming(3, &["10 of 10 blocks"]);
    assert_eq!((asked(&listed), asked(&peer)), ((1, 10), (1, 0)));
}

/// One step asks all at once: each of these is silent for as long as the step takes.
#[test]
fn each_step_takes_the_connect_timeout_once() {
    let sample = Sample::new(3);
    let mute = |blocks| {
        HostileServer::http(move |request| match request.target.as_str() {
            "/peers" => Reply::raw("").then_silence(),
            _ => Reply::honest(&blocks, request),
        })
    };
    let [first, second] = [mute(BlockMap::new()), mute(sample.map())];
    let dead: Vec<_> = (0..20).map(|_| mute(sample.map())).collect();
    let dead: Vec<_> = dead.iter().map(|server| server as &dyn Display).collect();
    let naming = naming(&dead);
    let get = sample.get(&[&naming, &first, &second]).arg("-v");
    let out = get.args(["--peers", "--connect-timeout", "1"]).run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    let steps = Duration::from_secs(2)..Duration::from_secs(5);
    assert!(steps.contains(&out.took), "{out}");
    // A peer that does not answer is not used. A listed server is.
    for dead in dead {
        let told = format!("psync: give up http://{dead}: no answer to a request for peers\n");
        assert!(out.stderr.contains(&told), "{out}");
    }
    assert_eq!(out.stderr.matches("give up").count(), 20, "{out}");
    assert_eq!((asked(&first), asked(&second)), ((1, 4), (1, 4)));
}

/// Whom the peers of the first step name.
#[test]
fn a_server_that_is_named_in_the_second_step_is_used_without_being_asked() {
    let sample = Sample::new(3);
    let last = answering(sample.map(), Reply::raw("").then_silence());
    let peer = naming(&[&last]);
    let listed = naming(&[&peer]);
    sample.is_whole(sample.get(&[&listed]).arg("--peers").run());
    assert_eq!((asked(&peer), asked(&last)), ((1, 4), (0, 4)));
}

#[test]
fn the_peers_of_peers_are_asked_last_and_theirs_are_not() {
    let sample = Sample::new(0);
    let fourth = sample.honest();
    let third = naming(&[&fourth]);
    let second = naming(&[&third]);
    let first = naming(&[&second]);
    let get = sample.get(&[&first]).arg("--peers");
    let out = get.run();
    sample
        .lacks(0)
        .lines()
        .for_each(|line| assert!(out.stderr.contains(line), "{out}"));
    assert_eq!(out.status, 3, "{out}");
    assert_eq!((asked(&first), asked(&second)), ((1, 1), (1, 1)));
    assert_eq!((asked(&third), fourth.connections()), ((0, 1), 0));
    let good = sample.honest();
    let second = naming(&[&good]);
    let (slow, first) = (naming(&[]), naming(&[&second]));
    let other = naming(&[&slow]);
    let get = sample.get(&[&first, &other]).arg("--peers");
    sample.is_whole(get.run());
    assert_eq!((asked(&second), asked(&slow)), ((1, 1), (1, 1)));
}

/// A mirror is for what no server gives.
#[test]
fn peers_are_asked_before_mirrors() {
    let sample = Sample::new(2);
    let (peer, mirror) = (sample.honest(), sample.honest());
    let listed = naming(&[&peer]);
    let get = sample.get(&[&listed]);
    let url = format!("{}/copy", mirror.url());
    sample.is_whole(get.args(["--peers", "-m", &url]).run());
    assert_eq!(mirror.connections(), 0);
}

#[test]
fn a_loop_is_walked_once() {
    let sample = Sample::new(0);
    let names = Arc::new(Mutex::new(String::new()));
    let in_the_loop = || {
        let names = Arc::clone(&names);
        HostileServer::http(move |request| match request.target.as_str() {
            "/peers" => Reply::ok(&*names.lock().unwrap()),
            _ => Reply::status(404, ""),
        })
    };
    let servers = [in_the_loop(), in_the_loop(), in_the_loop()];
    let all: Vec<&dyn Display> = servers.iter().map(|server| server as _).collect();
    *names.lock().unwrap() = lines(&all).repeat(3);
    let out = sample.get(&[&servers[0], &servers[1]]).arg("--peers").run();
    let reasons = [&servers[0], &servers[1]]
        .map(|server| format!("psync: ask {}: HTTP 404 Not Found\n", server.url()));
    let together = "psync: ask 1 peers: none gave it; see -v\n";
    out.fails(3, &(sample.lacks(0) + &reasons.concat() + together));
    for server in &servers {
        assert_eq!(asked(server), (1, 1));
    }
    // With -v each has its own line.
    let get = sample.get(&[&servers[0]]).args(["--peers", "-v"]);
    let told = format!("psync: ask {}: HTTP 404 Not Found\n", servers[2].url());
    get.run().fails_naming(3, &[&told]);
}

#[test]
fn no_server_has_no_peers() {
    let sample = Sample::new(0);
    let out = sample.get(&[]).arg("--peers").run();
    let told = "it is not at hand, and no server is given";
    out.fails_naming(3, &[told]);
    let out = sample.get(&[&Refusing::new()]).arg("--peers").run();
    out.fails_naming(3, &["Connection refused (given up)"]);
    psync!("get", "--peers=x", &sample.list).run().fails(
        2,
        "psync: unknown option '--peers=x'; see psync get --help\n",
    );
}

#[test]
fn a_static_server_with_a_file_of_peers_will_do() {
    let sample = Sample::new(3);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    let peer = Server::start(sample.dir.join("blocks"));
    let root = TempDir::new();
    fs::create_dir(root.join("some")).unwrap();
    root.file("some/peers", lines(&[&peer]));
    let check = |addr: &dyn Display| {
        let listed = format!("http://{addr}/some");
        sample.is_whole(sample.get(&[&listed]).arg("--peers").run());
    };
    check(&Daemon::busybox_httpd(&root));
    check(&Daemon::nginx(&root, ""));
}

#[test]
fn the_file_is_read_at_each_request() {
    let sample = Sample::new(3);
    write_blocks(sample.dir.join("blocks"), &sample.bytes);
    let peer = Server::start(sample.dir.join("blocks"));
    let dir = TempDir::new();
    let file = dir.file("list", lines(&[&peer]));
    let server = Server::with(&dir, &["--peers", &file.to_string_lossy()]);
    sample.is_whole(sample.get(&[&server]).arg("--peers").run());
    let due = |status: u16, text: &[u8]| {
        let response = get(server.addr(), "/peers");
        assert_eq!((response.status, &response.body[..]), (status, text));
    };
    due(200, lines(&[&peer]).as_bytes());
    for text in [&b""[..], b"x", b"\xff\0\r\n\r\n"] {
        fs::write(&file, text).unwrap();
        due(200, text);
    }
    // Of a long file the whole lines that fit.
    fs::write(&file, "box.example:8080\n".repeat(10_000)).unwrap();
    due(200, "box.example:8080\n".repeat(65_536 / 17).as_bytes());
    fs::write(&file, "x".repeat(65_537)).unwrap();
    due(200, b"");
    fs::write(&file, "x".repeat(65_536)).unwrap();
    due(200, "x".repeat(65_536).as_bytes());
    // Gone, and what is no file.
    fs::remove_file(&file).unwrap();
    due(404, b"Not Found\n");
    fs::create_dir(&file).unwrap();
    due(404, b"Not Found\n");
    fs::remove_dir(&file).unwrap();
    tool!("mkfifo", &file).run().ok();
    due(404, b"Not Found\n");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "back\n").unwrap();
    due(200, b"back\n");
    // And a server that names nobody.
    assert_eq!(get(peer.addr(), "/peers").status, 404);
}

#[test]
fn a_file_that_is_not_there_is_told_at_the_start() {
    let dir = TempDir::new();
    for (name, cause) in [
        ("none", "No such file or directory"),
        (".", "is a directory"),
    ] {
        let file = dir.join(name);
        let server = psync!("server", "-d", &dir, "--peers", &file, "127.0.0.1:0");
        let told = format!("psync: serve {}: {cause}\n", file.display());
        server.run().fails(1, &told);
    }
}

/// Whatever the first of the listed servers says, what the second names is found.
#[test]
fn a_liar_wastes_time_and_nothing_else() {
    let sample = Sample::new(3);
    let elsewhere = sample.honest();
    let redirect = format!("Location: {}/peers", elsewhere.url());
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let names = |name: &dyn Display, count: usize| -> String {
        let name = |n| format!("http://{name}/{n}\n");
        (0..count).map(name).collect()
    };
    let (refusing, deaf) = (Refusing::new(), Deaf::new());
    let silent = HostileServer::http(|_| Reply::raw("").then_silence());
    let lying = HostileServer::http(|_| Reply::ok([0; BLOCK_SIZE]));
    for (name, lie) in [
        ("nothing", Reply::ok("")),
        ("absent", Reply::status(404, "no")),
        ("failing", Reply::status(500, "no")),
        ("a redirect", Reply::with(302, &[&redirect], "")),
        ("endless", Reply::raw(head).then_forever("box#\n")),
        ("one endless line", Reply::raw(head).then_forever("a.b")),
        ("no HTTP", Reply::raw("lie\r\n\r\n").then_close()),
        ("silence", Reply::raw("").then_silence()),
        ("half", Reply::raw(head.to_owned() + "x").then_silence()),
        (
            "a reset",
            Reply::with(200, &["Content-Length: 99"], "x").then_reset(),
        ),
        (
            "slow",
            Reply::raw(head)
                .then_forever("x")
                .paced_from_here(Duration::from_millis(100)),
        ),
        ("binary", Reply::ok(random(50_000, 7))),
        (
            "no servers",
            Reply::ok("x y\nftp://x\n../..\n:0\nhttp://a/?q\n\0\n#\n"),
        ),
        ("refusing", Reply::ok(names(&refusing, 1000))),
        ("deaf", Reply::ok(names(&deaf, 1000))),
        ("silent", Reply::ok(names(&silent, 1000))),
        ("lying", Reply::ok(names(&lying, 1000))),
    ] {
        let (liar, peer) = (answering(BlockMap::new(), lie), sample.honest());
        let other = naming(&[&peer]);
        let get = sample.get(&[&liar, &other]).args([
            "--peers",
            "--timeout",
            "1",
            "--connect-timeout",
            "1",
        ]);
        let out = get.run();
        assert!(
            out.status == 0 && out.stdout == sample.bytes,
            "{name}: {out}"
        );
        assert_eq!(asked(&liar).0, 1, "{name}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

/// One after the other, and each for as long as it may take, these would take minutes.
#[test]
fn hundreds_of_dead_peers_cost_bounded_time() {
    let sample = Sample::new(40);
    let silent = HostileServer::http(|_| Reply::raw("").then_silence());
    let deaf = Deaf::new();
    for dead in [&silent as &dyn Display, &deaf] {
        let names = (0..1000).map(|n| format!("http://{dead}/{n}\n"));
        let liar = answering(BlockMap::new(), Reply::ok(names.collect::<String>()));
        for jobs in ["1", "8"] {
            let get = sample.get(&[&liar]).args(["--peers", "--timeout", "1"]);
            let get = get.args(["--connect-timeout", "1", "-j", jobs]);
            // The watchdog's minute is the bound.
            get.run().fails_naming(3, &["could not be had"; 0]);
        }
    }
}

#[test]
fn of_a_long_list_so_many_servers_are_asked() {
    let sample = Sample::new(0);
    let crowd = HostileServer::http(|_| Reply::status(404, ""));
    let names = (0..1000).map(|n| format!("http://{crowd}/{n}\n"));
    let (liar, other) = (
        answering(BlockMap::new(), Reply::ok(names.collect::<String>())),
        naming(&[]),
    );
    let get = sample.get(&[&liar, &other]).arg("--peers");
    get.run().fails_naming(3, &["ask 62 peers: none gave it"]);
    let hash = sample.hash(0);
    let blocks: Vec<_> = (0..62).map(|n| format!("/{n}/{hash}")).collect();
    let mut targets = crowd.targets();
    targets.retain(|target| target.ends_with(&hash));
    assert_eq!(targets, blocks);
}

#[test]
fn of_a_long_list_so_many_bytes_are_read() {
    let sample = Sample::new(0);
    for (room, whole) in [(0, true), (1, false)] {
        let peer = sample.honest();
        let name = format!("http://{peer}\n");
        // The name's line ends with the last byte that is read, or one behind it.
        let before = "#".repeat(65_536 - name.len() - 1 + room) + "\n";
        let listed = answering(
            BlockMap::new(),
            Reply::ok(before + &name + &"x\n".repeat(50_000)),
        );
        let out = sample.get(&[&listed]).arg("--peers").run();
        if whole {
            sample.is_whole(out);
        } else {
            out.fails_naming(3, &["no server gave it"]);
            assert_eq!(peer.connections(), 0);
        }
    }
}
