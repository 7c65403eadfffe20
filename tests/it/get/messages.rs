//! What `get` says and how it ends: messages to the letter, exit codes, closed and full outputs, and
//! the proxy of the environment.

use std::io::{self, Read};
use std::process::Stdio;

use crate::support::*;

#[test]
fn a_missing_block_is_told_with_each_server_s_own_reason() {
    let sample = Sample::new(1);
    let (refusing, liar) = (Refusing::new(), HostileServer::http(|_| Reply::ok("lie")));
    let blocks = [(sample.hash(0), sample.block(0).to_vec())].into();
    let lacking = HostileServer::http(move |request| Reply::honest(&blocks, request));
    let reasons = [
        format!("{refusing}: Connection refused (given up)"),
        format!("{lacking}: HTTP 404 Not Found"),
        format!("{liar}: wrong bytes (3)"),
    ];
    let reasons = reasons.each_ref().map(String::as_str);
    let get = || sample.get(&[&refusing, &lacking, &liar]);
    sample.ends_before(1, get().run(), &reasons);
    // Errors are what quiet leaves.
    sample.ends_before(1, get().arg("-q").run(), &reasons);
    let out = get().arg("-v").run();
    let given_up = format!("psync: give up http://{refusing}: Connection refused\n");
    assert!(
        out.status == 3 && out.stderr.starts_with(&given_up),
        "{out}"
    );
}

/// A stream's length is not known, so that it is not told either.
#[test]
fn a_missing_block_of_a_stream_has_a_number_and_no_total() {
    let sample = Sample::new(0);
    let out = psync!("get", "-").stdin(sample.hash(0)).run();
    out.fails(3, &format!(
        "psync: get {}: block 1: it is not at hand, and no server is given; the output ends before it\n",
        sample.hash(0)
    ));
}

#[test]
fn verbose_names_each_server_given_up_and_sums_up() {
    let sample = Sample::new(9);
    let at_hand = sample.dir.join("at_hand");
    write_blocks(&at_hand, &sample.bytes[..3 * BLOCK_SIZE]);
    let (refusing, good) = (Refusing::new(), sample.honest());
    let liar = HostileServer::http(|_| Reply::status(500, ""));
    let list = sample.list.display();
    for option in ["-v", "--verbose"] {
        let get = sample
            .get(&[&refusing, &liar, &good])
            .arg(option)
            .arg("-d")
            .arg(&at_hand);
        let out = get.run().warns(&format!(
            "psync: give up http://{refusing}: Connection refused\n\
             psync: give up http://{liar}: HTTP 500 Internal Server Error\n\
             psync: get {list}: 10 blocks: 3 at hand, 7 fetched, 0 missing\n"
        ));
        assert!(out.stdout == sample.bytes);
    }
    sample.is_whole(sample.get(&[&refusing, &liar, &good]).run());
    sample.is_whole(sample.get(&[&refusing, &liar, &good]).arg("-q").run());
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_word() {
    let sample = Sample::new(100);
    let good = sample.honest();
    sample.get(&[&good]).stdout_to(broken()).run().fails(1, "");
    // In the middle, with more to come than a pipe holds.
    let (mut reader, writer) = io::pipe().unwrap();
    let get = sample.get(&[&good]).stdout_to(writer).start();
    let mut beginning = vec![0; BLOCK_SIZE];
    reader.read_exact(&mut beginning).unwrap();
    drop(reader);
    get.wait().fails(1, "");
    assert!(beginning == sample.block(0));
    assert!(good.requests().len() < 101 + 2);
}

/// As `>&-` in a shell has it. To say "done" would be a lie, since nobody got a byte.
#[test]
fn a_stdout_closed_from_the_beginning_is_no_success() {
    let sample = Sample::new(1);
    sample
        .get(&[&sample.honest()])
        .sh("exec >&-")
        .run()
        .fails(1, "");
}

#[test]
fn a_closed_or_full_stderr_changes_nothing() {
    let (sample, refusing) = (Sample::new(1), Refusing::new());
    let get = |server: &dyn std::fmt::Display| sample.get(&[server]).arg("-v");
    let good = sample.honest();
    for (status, server) in [(3, &refusing as &dyn std::fmt::Display), (0, &good)] {
        let (closed, filled) = (
            get(server).sh("exec 2>&-").run(),
            get(server).stderr_to(full()).run(),
        );
        let whole = if status == 0 { &sample.bytes[..] } else { &[] };
        for out in [closed, filled] {
            assert!(out.status == status && out.stdout == whole, "{out}");
        }
        assert_eq!(get(server).stderr_to(broken()).run().status, status);
    }
    let out = psync!("get", "--frob").sh("exec 2>&-").run();
    assert_eq!(out.status, 2);
}

/// 16 MiB of memory, few descriptors, and with one job one thread beside the first.
#[test]
fn a_small_machine_will_do() {
    let sample = Sample::new(2000);
    let good = sample.honest();
    let out = sample
        .get(&[&Refusing::new(), &good])
        .sh("ulimit -v 16384; ulimit -n 8")
        .run();
    sample.is_whole(out);
    let get = sample.get(&[&good]).stdout_to(Stdio::piped()).start();
    let pid = get.pid();
    wait_until("it is under way", || good.requests().len() > 10);
    // It may have ended meanwhile.
    if let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) {
        assert!(tasks.count() <= 2);
    }
    sample.is_whole(get.wait());
}

/// Tunnels to itself, as if it were every server.
fn proxy(sample: &Sample) -> HostileServer {
    let blocks = sample.map();
    HostileServer::http(move |request| match request.method.as_str() {
        "CONNECT" => Reply::raw("HTTP/1.1 200 Connection established\r\n\r\n"),
        _ => Reply::honest(&blocks, request),
    })
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let sample = Sample::new(3);
    for variable in ["http_proxy", "all_proxy"] {
        for scheme in ["http://", ""] {
            let proxy = proxy(&sample);
            // A name that only the proxy knows.
            let get = sample.get(&[&"blocks.invalid:8080"]);
            sample.is_whole(get.env(variable, format!("{scheme}{proxy}")).run());
            assert_eq!(proxy.connections(), 1);
            let hosts: Vec<_> = proxy
                .requests()
                .iter()
                .map(|r| r.header("host").unwrap().to_owned())
                .collect();
            assert!(
                hosts.iter().all(|host| host == "blocks.invalid:8080"),
                "{hosts:?}"
            );
        }
    }
}

#[test]
fn a_proxy_is_told_the_name_and_password_in_its_url() {
    let sample = Sample::new(0);
    let proxy = proxy(&sample);
    let value = format!("http://user:pass@{proxy}");
    sample.is_whole(
        sample
            .get(&[&"blocks.invalid"])
            .env("http_proxy", value)
            .run(),
    );
    let requests = proxy.requests();
    let told = requests[0].header("proxy-authorization");
    assert_eq!(told, Some("Basic dXNlcjpwYXNz"));
    assert_eq!(requests[1].header("proxy-authorization"), None);
}

#[test]
fn no_proxy_is_honoured() {
    let sample = Sample::new(3);
    let (proxy, good) = (proxy(&sample), sample.honest());
    for no_proxy in [
        "127.0.0.1",
        "*",
        "example.org,127.0.0.1",
        "example.org, 127.0.0.1",
    ] {
        let get = sample.get(&[&good]).env("http_proxy", proxy.url());
        sample.is_whole(get.env("no_proxy", no_proxy).run());
    }
    // In capitals, a web server would hand it a client's `Proxy:` header.
    sample.is_whole(sample.get(&[&good]).env("HTTP_PROXY", proxy.url()).run());
    sample.is_whole(sample.get(&[&good]).env("http_proxy", "").run());
    assert_eq!(proxy.connections(), 0);
    let get = sample.get(&[&good]).env("http_proxy", proxy.url());
    sample.is_whole(get.env("no_proxy", "example.org").run());
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_proxy_that_refuses_or_is_dead_is_told_as_such() {
    let sample = Sample::new(1);
    let refused = HostileServer::http(|_| Reply::status(403, "no\n").then_close());
    let out = sample
        .get(&[&"blocks.invalid"])
        .env("http_proxy", refused.url())
        .run();
    out.fails_naming(
        3,
        &["psync: ask http://blocks.invalid: the proxy refused: "],
    );
    let dead = Refusing::new();
    let out = sample
        .get(&[&"blocks.invalid"])
        .env("http_proxy", format!("http://{dead}"))
        .run();
    out.fails_naming(
        3,
        &["psync: ask http://blocks.invalid: by the proxy: Connection refused"],
    );
}

#[test]
fn a_bad_proxy_is_one_clear_line() {
    let sample = Sample::new(1);
    let good = sample.honest();
    for (value, why) in [
        ("http://", "not the URL of a proxy"),
        ("two words", "not the URL of a proxy"),
        // Its password stays untold.
        ("ftp://user:secret@host", "not the URL of a proxy"),
        ("ftp://host", "not the URL of a proxy"),
        ("http://[::1", "not the URL of a proxy"),
        (
            "socks5://127.0.0.1:1",
            "psync goes through http:// proxies only",
        ),
        (
            "https://127.0.0.1:1",
            "psync goes through http:// proxies only",
        ),
    ] {
        let out = sample.get(&[&good]).env("http_proxy", value).run();
        out.fails(1, &format!("psync: use http_proxy: {why}\n"));
    }
    assert_eq!(good.connections(), 0);
}

#[test]
fn a_proxy_without_a_host_or_a_port_that_exists_is_refused_as_such() {
    let sample = Sample::new(1);
    for value in [":80", "http://:80", "http://host:99999"] {
        let out = sample
            .get(&[&sample.honest()])
            .env("http_proxy", value)
            .run();
        out.fails(1, "psync: use http_proxy: not the URL of a proxy\n");
    }
}

/// As curl has it: a domain stands for what is below it, a leading dot for nothing, and case does not matter.
#[test]
fn no_proxy_names_domains() {
    let sample = Sample::new(0);
    let mut wrong = Vec::new();
    for (no_proxy, host, direct) in [
        ("blocks.invalid", "blocks.invalid", true),
        ("blocks.invalid", "a.blocks.invalid", true),
        (".blocks.invalid", "a.blocks.invalid", true),
        (".blocks.invalid", "blocks.invalid", true),
        ("BLOCKS.invalid", "blocks.INVALID", true),
        ("::1", "[::1]:1", true),
        ("locks.invalid", "blocks.invalid", false),
        ("a.blocks.invalid", "blocks.invalid", false),
        ("", "blocks.invalid", false),
    ] {
        let proxy = proxy(&sample);
        let get = sample.get(&[&host]).env("http_proxy", proxy.url());
        let out = get.env("no_proxy", no_proxy).run();
        let due = if direct { (3, 0) } else { (0, 1) };
        if (out.status, proxy.connections()) != due {
            wrong.push((no_proxy, host));
        }
    }
    assert_eq!(wrong, []);
}

#[test]
fn a_proxy_that_is_silent_or_never_ends_is_given_up() {
    let sample = Sample::new(3);
    for answer in [
        Reply::raw("").then_silence(),
        Reply::raw("HTTP/1.1 200 OK\r\nX: ").then_forever([b'x'; 4096]),
        Reply::raw("SSH-2.0\r\n").then_close(),
    ] {
        let proxy = HostileServer::http(move |_| answer.clone());
        let get =
            sample
                .get(&[&"blocks.invalid"])
                .args(["--timeout", "0.4", "--connect-timeout", "0.4"]);
        let out = get
            .env("http_proxy", proxy.url())
            .sh("ulimit -v 16384")
            .limit(std::time::Duration::from_secs(10))
            .run();
        out.fails_naming(3, &["psync: ask http://blocks.invalid: "]);
    }
}

/// With too few descriptors the machine is at fault, never a server: a block is not missing for that.
#[test]
fn descriptors_used_up_are_no_missing_block() {
    let sample = Sample::new(3);
    let good = sample.honest();
    let mut failed = 0;
    for descriptors in 3..8 {
        let out = sample
            .get(&[&good])
            .sh(&format!("ulimit -n {descriptors}"))
            .run();
        if out.status == 0 {
            sample.is_whole(out);
            continue;
        }
        failed += 1;
        // With three, not even the program's libraries open: that is the loader's message.
        if descriptors > 3 {
            assert!(
                out.status == 1 && out.stderr.contains("see ulimit -n"),
                "{descriptors}: {out}"
            );
        }
    }
    assert!((1..5).contains(&failed), "{failed}");
}

#[test]
fn a_proxy_that_no_server_needs_need_not_be_usable() {
    let sample = Sample::new(3);
    let at_hand = sample.dir.join("at_hand");
    write_blocks(&at_hand, &sample.bytes);
    let bad = |run: Run| run.env("all_proxy", "socks5h://127.0.0.1:1");
    sample.is_whole(bad(sample.get(&[])).arg("-d").arg(&at_hand).run());
    sample.is_whole(
        bad(sample.get(&[&sample.honest()]))
            .env("no_proxy", "*")
            .run(),
    );
}
