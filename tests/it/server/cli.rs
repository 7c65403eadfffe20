//! How the server starts: what it prints, what it refuses and with which exit code; and the line that
//! `-v` writes for each request.

use std::fs;
use std::io::BufRead;
use std::net::TcpListener;

use crate::support::*;

#[test]
fn it_prints_a_line_for_each_socket() {
    let (dir, target) = one_block();
    for (addresses, expected) in [
        (&["127.0.0.1:0"][..], &["127.0.0.1:"][..]),
        (&["[::1]:0"], &["[::1]:"]),
        (
            &["127.0.0.1:0", "[::1]:0", "127.0.0.2:0"],
            &["127.0.0.1:", "[::1]:", "127.0.0.2:"],
        ),
        (
            &["127.0.0.1:0", "127.0.0.1:0"],
            &["127.0.0.1:", "127.0.0.1:"],
        ),
        // Every interface of both kinds by one socket.
        (&[":0"], &["[::]:"]),
        (&["0.0.0.0:0"], &["0.0.0.0:"]),
    ] {
        let server = Server::of(psync!("server", "-d", &dir).args(addresses));
        for (addr, start) in server.addrs(expected.len()).into_iter().zip(expected) {
            assert!(addr.to_string().starts_with(start), "{addresses:?}: {addr}");
            assert_ne!(addr.port(), 0);
            assert_eq!(get(addr, &target).status, 200);
        }
    }
}

#[test]
fn all_interfaces_are_those_of_both_kinds() {
    let (dir, target) = one_block();
    let server = Server::of(psync!("server", "-d", &dir, ":0"));
    let port = server.addr().port();
    for host in ["127.0.0.1", "127.0.0.2", "[::1]"] {
        let addr = format!("{host}:{port}").parse().unwrap();
        assert_eq!(get(addr, &target).status, 200, "{host}");
    }
}

/// By the first call, for IPv6, that fails: as of a kernel without it, or of one that has no address.
#[test]
fn without_ipv6_all_interfaces_are_those_of_ipv4() {
    let (dir, target) = one_block();
    for (call, error) in [("socket", "EAFNOSUPPORT"), ("bind", "EADDRNOTAVAIL")] {
        let inject = format!("inject={call}:error={error}:when=1");
        let words = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
        let run = psync!("server", "-d", &dir, ":0");
        let server = Server::of(run.under("strace", words));
        assert!(server.addr().to_string().starts_with("0.0.0.0:"), "{call}");
        let addr = format!("127.0.0.1:{}", server.addr().port())
            .parse()
            .unwrap();
        assert_eq!(get(addr, &target).status, 200, "{call}");
    }
}

#[test]
fn a_name_is_every_address_of_it_at_one_port() {
    let (dir, target) = one_block();
    let server = Server::of(psync!("server", "-d", &dir, "localhost:0"));
    assert!(server.addr().ip().is_loopback());
    assert_eq!(get(server.addr(), &target).status, 200);
}

#[test]
fn options_may_follow_the_addresses() {
    let (dir, target) = one_block();
    let server = Server::of(psync!(
        "server",
        "127.0.0.1:0",
        "--max-conns=3",
        "--timeout",
        "2.5",
        "--dir",
        &dir
    ));
    assert_eq!(get(server.addr(), &target).status, 200);
    let linked = psync!("-d", &dir, "127.0.0.1:0").argv0("psync-server");
    assert_eq!(get(Server::of(linked).addr(), &target).status, 200);
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let dir = TempDir::new();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    // 192.0.2.0/24 is nobody's (RFC 5737).
    for (addr, cause) in [
        (&*busy, "Address already in use"),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("[2001:db8::1]:0", "Cannot assign requested address"),
    ] {
        let message = format!("psync: listen on {addr}: {cause}\n");
        let out = psync!("server", "-d", &dir, addr).run().fails(1, &message);
        assert_eq!(out.text(), "");
        // Nor does it serve on those that it could have had.
        let out = psync!("server", "-d", &dir, "127.0.0.1:0", addr).run();
        assert_eq!(out.fails(1, &message).text(), "");
    }
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let dir = TempDir::new();
    // A label of 64 characters is no name, whatever the resolver (RFC 1035, section 2.3.4).
    let addr = format!("{}:0", "x".repeat(64));
    let out = psync!("server", "-d", &dir, &addr).run();
    assert_eq!(out.text(), "");
    let message = format!("psync: listen on {addr}: ");
    assert_eq!(out.fails_naming(1, &[&message]).stderr.lines().count(), 1);
}

#[test]
fn a_directory_that_was_named_must_be_there() {
    let dir = TempDir::new();
    let (missing, file) = (dir.join("missing"), dir.file("file", "x"));
    let below = file.join("below");
    for (path, cause) in [
        (&missing, "No such file or directory"),
        (&file, "Not a directory"),
        (&below, "Not a directory"),
    ] {
        let message = format!("psync: serve {}: {cause}\n", path.display());
        let out = psync!("server", "-d", path, "127.0.0.1:0").run();
        assert_eq!(out.fails(1, &message).text(), "");
    }
    assert!(!missing.exists());
    let message = format!("psync: serve {}: Not a directory\n", file.display());
    let by_variable = psync!("server", "127.0.0.1:0").env("PSYNC_DIR", &file);
    by_variable.run().fails(1, &message);
}

#[test]
fn the_default_directory_may_come_later() {
    let (home, block) = (TempDir::new(), random(BLOCK_SIZE, 1));
    let target = format!("/{}", hash_hex(&block));
    for (variable, below) in [("HOME", ".psync/blocks"), ("PSYNC_DIR", "")] {
        let value = home.join(variable);
        let server = Server::of(psync!("server", "127.0.0.1:0").env(variable, &value));
        assert_eq!(get(server.addr(), &target).status, 404);
        assert!(!value.exists());
        write_blocks(value.join(below), &block);
        assert_eq!(get(server.addr(), &target).body, block);
    }
}

#[test]
fn a_reader_of_stdout_may_go_once_it_has_the_address() {
    let (dir, target) = one_block();
    // `head` ends with the first line, and the pipe with it. The shell becomes the server, which so
    // ends with the test.
    let line = dir.join("line");
    let run = psync!("server", "-v", "-d", &dir, "127.0.0.1:0");
    let sh = "set -e; mkfifo \"$LINE.fifo\"; head -n 1 <\"$LINE.fifo\" >\"$LINE\" &
        exec \"$@\" >\"$LINE.fifo\"";
    let mut running = run
        .env("LINE", &line)
        .env("PATH", std::env::var_os("PATH").unwrap());
    running = running.under("sh", ["-c", sh, "sh"]);
    let running = running.start();
    let read = || fs::read_to_string(&line).unwrap_or_default();
    wait_until("the address is known", || read().ends_with('\n'));
    let addr = read()
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .parse()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(get(addr, &target).status, 200);
    }
    running.wait_stderr(|err| line_count(err) == 3);
    drop(running);
}

#[test]
fn a_closed_or_full_stderr_costs_nothing() {
    let (dir, target) = one_block();
    let run = || psync!("server", "-v", "-d", &dir, "127.0.0.1:0");
    for run in [
        run().sh("exec 2>&-"),
        run().stderr_to(full()),
        run().stderr_to(broken()),
    ] {
        let server = Server::of(run);
        for _ in 0..3 {
            assert_eq!(get(server.addr(), &target).status, 200);
        }
    }
}

/// As of a journal that has stopped, or of a person who looks at a page of it.
#[test]
fn a_log_that_nobody_reads_costs_its_lines_alone() {
    /// More than a pipe holds, and than the server does.
    const LOG: usize = 1024 * 1024;
    let (dir, target) = one_block();
    let (reader, writer) = std::io::pipe().unwrap();
    let run = psync!("server", "-v", "-d", &dir, "127.0.0.1:0");
    let server = Server::of(run.args(["--max-conns", "4"]).stderr_to(writer));
    let long = format!("/{}", "x".repeat(7_000));
    for _ in 0..LOG / long.len() {
        assert_eq!(get(server.addr(), &long).status, 404);
        assert_eq!(get(server.addr(), &target).status, 200);
    }
    // Once somebody does, it is told.
    let mut lines = std::io::BufReader::new(reader).lines();
    let lost = lines.find(|line| line.as_ref().unwrap().contains(" are lost: "));
    let lost = lost.unwrap().unwrap();
    assert!(
        lost.starts_with("psync: ") && lost.contains(" lines of the log "),
        "{lost}"
    );
}

#[test]
fn verbose_writes_one_line_a_request() {
    let (dir, target) = one_block();
    let server = Server::with(&dir, &["-v"]);
    let mut client = Client::connect(server.addr());
    let from = client.stream().local_addr().unwrap();
    let mut lines = Vec::new();
    for (line, status) in [
        (format!("GET {target} HTTP/1.1"), 200),
        (format!("HEAD {target} HTTP/1.1"), 200),
        ("GET / HTTP/1.1".into(), 200),
        ("GET /nothing HTTP/1.1".into(), 404),
        ("PUT / HTTP/1.1".into(), 405),
        // Escape sequences stay out of the terminal, and what follows cannot be forged.
        ("GET /\u{1b}[2J\" HTTP/1.1".into(), 400),
    ] {
        client.send(format!("{line}\r\nHost: test\r\n\r\n"));
        let answer = match &line[..4] {
            "HEAD" => client.response_to_head(),
            _ => client.response(),
        };
        assert_eq!(answer.status, status);
        let escaped = line.replace('\u{1b}', "\\u{1b}").replace('"', "\\\"");
        lines.push((escaped, status));
    }
    server.wait_stderr(|err| line_count(err) >= lines.len());
    let log = server.stop();
    assert_eq!(log.lines().count(), lines.len(), "{log}");
    for (logged, (line, status)) in log.lines().zip(lines) {
        let start = format!("psync: {from} \"{line}\" {status} ");
        let rest = logged.strip_prefix(&start);
        let numbers: Vec<_> = rest
            .unwrap_or_else(|| panic!("{logged}"))
            .split(' ')
            .collect();
        let whole = |text: &&str| text.parse::<u64>().is_ok();
        assert!(numbers.len() == 2 && numbers.iter().all(whole), "{logged}");
        if line.contains(&target) {
            // The block's bytes, of which HEAD sends none.
            assert_eq!(
                numbers[0],
                if line.starts_with("GET") { "4096" } else { "0" }
            );
        }
    }
}

#[test]
fn silent_unless_asked() {
    let (dir, target) = one_block();
    let server = Server::start(&dir);
    assert_eq!(get(server.addr(), &target).status, 200);
    exchange(server.addr(), "garbage\n");
    assert_eq!(server.stop(), "");
}
