//! The harness on itself, without psync: a tool that other tests trust is tested first.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

#[test]
fn hashlists_are_right_without_psync() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hash_hex(b"abc"), abc);
    let bytes = random(BLOCK_SIZE + 1, 7);
    assert_eq!(bytes, random(BLOCK_SIZE + 1, 7));
    assert_ne!(bytes, random(BLOCK_SIZE + 1, 8));
    assert_eq!(
        blocks(&bytes).map(<[u8]>::len).collect::<Vec<_>>(),
        [BLOCK_SIZE, 1]
    );
    let dir = TempDir::new();
    let list = write_blocks(&dir, &bytes);
    assert_eq!(dir.names().len(), 2);
    let kept: Vec<u8> = list
        .lines()
        .flat_map(|hash| fs::read(dir.join(hash)).unwrap())
        .collect();
    assert_eq!(kept, bytes);
    assert_eq!(hashlist(b""), "");
}

#[test]
fn temporary_directories_go_away_even_if_locked() {
    let dir = TempDir::new();
    let path = dir.to_path_buf();
    fs::create_dir(dir.join("locked")).unwrap();
    dir.file("locked/file", "x");
    fs::set_permissions(dir.join("locked"), fs::Permissions::from_mode(0o500)).unwrap();
    let other = TempDir::on_disk();
    assert_ne!(other.to_path_buf(), path);
    drop(dir);
    assert!(!path.exists());
}

#[test]
fn programs_run_in_a_clean_environment_and_give_exact_output() {
    let dir = TempDir::new();
    let out = tool!("sh", "-c", "pwd; cat; echo oops >&2; exit 3")
        .cwd(&dir)
        .stdin("in")
        .run();
    assert_eq!(out.text(), format!("{}\nin", dir.display()));
    out.fails(3, "oops\n").fails_naming(3, &["oo", "ps"]);
    tool!("sh", "-c", "echo w >&2").run().warns("w\n");
    tool!("sh", "-c", "test -d \"$HOME\"").run().ok();
    tool!("sh", "-c", "test -z \"$HOME$CARGO_MANIFEST_DIR\"")
        .no_env("HOME")
        .run()
        .ok();
    assert_eq!(
        tool!("sh", "-c", "echo $V").env("V", "x").run().ok().text(),
        "x\n"
    );
    let limited = tool!("sh", "-c", "ulimit -n; echo $0")
        .argv0("sh")
        .sh("ulimit -n 20");
    assert_eq!(limited.run().ok().text().lines().next(), Some("20"));
    assert_eq!(tool!("busybox", "x").argv0("echo").run().ok().text(), "x\n");
    let out = tool!("sh", "-c", "echo x")
        .stdout_to(full())
        .stderr_to(Stdio::null())
        .run();
    assert_eq!((out.status, out.stderr.as_str()), (1, ""));
}

#[test]
fn programs_can_be_fed_watched_and_killed() {
    let mut cat = tool!("cat").stdin_from(Stdio::piped()).start();
    cat.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    assert_eq!(cat.wait_stdout(|out| out.ends_with(b"\n")), b"one\n");
    assert!(cat.is_alive() && threads(cat.pid()) == 1 && descriptors(cat.pid()) >= 3);
    assert!(resident_kib(cat.pid()) > 0 && peak_kib(cat.pid()) >= resident_kib(cat.pid()));
    assert!(cpu_ticks(cat.pid()) < 100);
    assert_eq!(cat.kill().status, 137);
    let sleeper = tool!("sh", "-c", "echo ready >&2; exec cat")
        .stdin_from(Stdio::piped())
        .start();
    assert_eq!(sleeper.wait_stderr(|err| err.ends_with(b"\n")), b"ready\n");
    drop(sleeper);
    let cat = tool!("cat").stdin_from(Stdio::piped()).start();
    signal(cat.pid(), "TERM");
    assert_eq!(cat.wait().status, 143);
}

#[test]
#[should_panic(expected = "still running")]
fn what_hangs_is_ended() {
    tool!("sleep", "1000")
        .limit(Duration::from_millis(50))
        .run();
}

#[test]
#[should_panic(expected = "CRASHED")]
fn a_crash_is_not_an_error() {
    tool!("sh", "-c", "kill -ABRT $$").run();
}

#[test]
#[should_panic(expected = "CRASHED")]
fn a_panic_of_one_thread_is_not_an_error() {
    tool!("sh", "-c", "echo \"thread 'x' panicked at y\" >&2").run();
}

#[test]
#[should_panic(expected = "nginx is missing: apt-get install nginx-light")]
fn in_ci_a_missing_program_fails_and_names_its_package() {
    Program::named("nginx").end_test(true);
}

#[test]
#[should_panic(expected = "tests/programs does not list no-such-program")]
fn a_program_that_setup_does_not_know_fails() {
    need("no-such-program");
}

/// Stands for a test that needs nginx where there is none.
fn lacks_nginx() {
    Program::named("nginx").end_test(false);
}

#[test]
fn a_missing_program_skips_wherever_it_is_needed() {
    let scoped = || thread::scope(|scope| drop(scope.spawn(lacks_nginx)));
    let joined = || thread::spawn(lacks_nginx).join().unwrap();
    let nginx = Some(Program::named("nginx"));
    assert_eq!(skipped_for(lacks_nginx), nginx);
    assert_eq!(skipped_for(scoped), nginx);
    assert_eq!(skipped_for(joined), nginx);
    assert_eq!(skipped_for(|| ()), None);
}

#[test]
#[should_panic(expected = "a failure of its own")]
fn any_other_panic_fails() {
    skipped_for(|| panic!("a failure of its own"));
}

/// Needs a program, and panics, when dropped.
struct Late;

impl Drop for Late {
    fn drop(&mut self) {
        at_drop(lacks_nginx);
    }
}

#[test]
#[should_panic(expected = "the first")]
fn what_fails_when_dropped_lets_the_first_panic_go_on() {
    let _late = Late;
    panic!("the first");
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let paths = names(dir).into_iter().map(|name| dir.join(name));
    let below = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => vec![path],
    };
    paths.flat_map(below).collect()
}

/// A panic in a Drop while another is on its way would end all tests. The relay panics nowhere, and is a program
/// without this harness too.
#[test]
fn every_drop_goes_through_at_drop() {
    let all = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"));
    let files = all.iter().filter(|path| !path.ends_with("relay.rs"));
    let mut drops = 0;
    for path in files {
        let text = fs::read_to_string(path).unwrap();
        for body in text.split("fn drop(&mut self) {\n").skip(1) {
            assert!(
                body.trim_start().starts_with("at_drop("),
                "{path:?}: {body}"
            );
            drops += 1;
        }
    }
    assert!(drops > 10, "{drops}");
}

/// `make mutants` would take a name of none for tests that tell nothing.
#[test]
fn the_files_of_tests_that_the_makefile_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("Makefile")).unwrap();
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || "_:".contains(c)));
    let names: Vec<&str> = words.filter_map(|word| word.strip_suffix("::")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let file = format!("tests/it/{}.rs", name.replace("::", "/"));
        assert!(root.join(file).is_file(), "{name} is no file of tests");
    }
}

#[test]
fn clients_and_hostile_servers_agree() {
    let bytes = random(3 * BLOCK_SIZE, 1);
    let server = HostileServer::honest(&bytes);
    let hashes: Vec<_> = blocks(&bytes).map(hash_hex).collect();
    let mut client = Client::connect(server.addr());
    let asked: String = hashes
        .iter()
        .map(|hash| request(&format!("/{hash}")))
        .collect();
    let offsets: Vec<_> = (1..asked.len()).step_by(17).collect();
    client.send_split(asked.as_bytes(), &offsets);
    for block in blocks(&bytes) {
        assert_eq!(client.response().body, block);
    }
    client.send(request("/nothing")).half_close();
    let missing = client.response();
    assert_eq!(
        (missing.status, missing.header("content-length")),
        (404, Some("10"))
    );
    client.closed();
    assert_eq!(server.connections(), 1);
    assert_eq!(server.targets().len(), 4);
    let last = &server.requests()[3];
    assert_eq!(
        (last.conn, last.nth, last.header("HOST")),
        (0, 3, Some("test"))
    );
}

#[test]
fn hostile_servers_see_bodies_and_end_connections_in_every_way() {
    let server = HostileServer::http(|request| match request.target.as_str() {
        "/body" => Reply::ok(&request.body),
        "/closed" => Reply::status(503, "").then_close(),
        "/reset" => Reply::raw("HTTP/1.1 200").then_reset(),
        "/silence" => Reply::raw("").then_silence(),
        "/slow" => Reply::ok("slow")
            .paced(Duration::from_millis(1))
            .then_close(),
        _ => Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_forever([b'x'; 4096]),
    })
    .taking_runs();
    let post = "POST /body HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
    let twice = format!("{post}one{post}two");
    let bodies = responses(&exchange(server.addr(), twice));
    assert_eq!(
        (bodies[0].body.as_slice(), bodies[1].body.as_slice()),
        (&b"one"[..], &b"two"[..])
    );
    let ask = |target: &str| {
        let mut client = Client::connect(server.addr());
        assert!(client.try_send(request(target)));
        client
    };
    let mut closed = ask("/closed");
    assert_eq!(closed.response().status, 503);
    closed.closed();
    let mut slow = ask("/slow");
    assert_eq!(slow.response().body, b"slow");
    assert_eq!(slow.stream().peer_addr().unwrap(), server.addr());
    assert!(b"HTTP/1.1 200".starts_with(&ask("/reset").read_to_any_end()));
    let mut reset = TcpStream::connect(server.addr()).unwrap();
    reset.write_all(request("/reset").as_bytes()).unwrap();
    let end = reset.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    // Left open on purpose: dropping the server must end both.
    let (_silent, _endless) = (ask("/silence"), ask("/endless"));
    wait_until("eight requests seen", || server.requests().len() == 8);
}

#[test]
fn raw_handlers_have_the_socket() {
    let server = HostileServer::start_at("[::1]:0", |conn, n| {
        conn.send(format!("SSH-2.0-{n}\r\n"));
        match n {
            0 => conn.close(),
            _ => conn.until_gone(),
        }
    });
    assert!(server.url().starts_with("http://[::1]:"));
    assert_eq!(
        Client::connect(server.addr()).half_close().read_to_end(),
        b"SSH-2.0-0\r\n"
    );
    assert_eq!(exchange(server.addr(), "x"), b"SSH-2.0-1\r\n");
}

#[test]
fn some_addresses_refuse_and_some_never_answer() {
    let (refusing, deaf) = (Refusing::new(), Deaf::new());
    let connect = |addr| TcpStream::connect_timeout(&addr, Duration::from_millis(50)).map(drop);
    let kind = |addr| connect(addr).unwrap_err().kind();
    assert_eq!(kind(refusing.addr()), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(kind(deaf.addr()), std::io::ErrorKind::TimedOut);
    assert_eq!(
        format!("{refusing}{deaf}"),
        format!("{}{}", refusing.addr(), deaf.addr())
    );
}

#[test]
#[should_panic(expected = "header: ")]
fn the_response_parser_is_strict() {
    responses(b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n");
}

/// Where nginx is missing it is skipped, as others are: make test-bare sees to that.
#[test]
#[should_panic(expected = "the daemon does not start")]
fn a_daemon_that_does_not_start_fails() {
    Daemon::nginx(TempDir::new(), "no_such_directive;");
}

#[test]
fn other_servers_start_and_serve() {
    let dir = TempDir::new();
    dir.file("hello", "hello");
    let nginx = Daemon::nginx(&dir, "add_header X-More yes;");
    let answer = get(nginx.addr(), "/hello");
    assert_eq!(
        (answer.body.as_slice(), answer.header("X-More")),
        (&b"hello"[..], Some("yes"))
    );
    let busybox = Daemon::busybox_httpd(&dir);
    assert_eq!(
        tool!("curl", "-sS", busybox.url() + "/hello")
            .run()
            .ok()
            .text(),
        "hello"
    );
    assert_ne!(nginx.to_string(), busybox.to_string());
}

#[test]
fn a_relay_is_as_slow_as_its_line() {
    let rtt = Duration::from_millis(40);
    let bytes = random(50_000, 3);
    let answer = bytes.clone();
    let server = HostileServer::http(move |_| Reply::ok(&answer));
    // 50,000 bytes take 400 ms.
    let relay = Relay::start(server.addr(), rtt, 1_000_000);
    let started = Instant::now();
    let answers = thread::scope(|scope| {
        let clients = [0; 2].map(|_| scope.spawn(|| get_to_half_close(relay.addr())));
        clients.map(|client| client.join().unwrap())
    });
    let took = started.elapsed();
    for answer in answers {
        assert_eq!(answer.body, bytes);
    }
    // Two round trips, and both answers one after the other on the one line.
    let least = 2 * rtt + Duration::from_millis(800);
    assert!(took >= least, "{took:?} < {least:?}");
    let asked = request("/").len() as u64;
    assert_eq!(relay.bytes_up(), 2 * asked);
    let down = 2 * bytes.len() as u64;
    assert!(relay.bytes_down() > down && relay.bytes_down() < down + 200);
    assert_eq!(server.connections(), 2);
}

/// The target sees the end of what the client sends, and its answer comes for all that.
fn get_to_half_close(addr: SocketAddr) -> Response {
    let mut client = Client::connect(addr);
    client.send(request("/")).half_close();
    let response = client.response();
    client.closed();
    response
}

#[test]
fn a_relay_holds_senders_back_and_passes_ends_on() {
    let server = HostileServer::http(|request| match request.target.as_str() {
        "/reset" => Reply::raw("HTTP/1.1 200").then_reset(),
        "/silence" => Reply::raw("").then_silence(),
        _ => Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_forever([b'x'; 4096]),
    });
    let relay = Relay::start(server.addr(), Duration::from_millis(2), 8_000_000);
    let ask = |target: &str| {
        let mut client = Client::connect(relay.addr());
        client.send(request(target));
        client
    };
    // Nobody reads the endless answer, or not to its end: others have the line to themselves.
    let endless = ask("/endless");
    drop(ask("/endless"));
    assert!(b"HTTP/1.1 200".starts_with(&ask("/reset").read_to_any_end()));
    let refusing = Refusing::new();
    let to_nobody = Relay::start(refusing.addr(), Duration::ZERO, 8_000_000);
    assert_eq!(Client::connect(to_nobody.addr()).read_to_any_end(), b"");
    let mut silent = ask("/silence");
    wait_until("four requests seen", || server.requests().len() == 4);
    drop(relay);
    assert_eq!(silent.read_to_any_end(), b"");
    drop(endless);
}
