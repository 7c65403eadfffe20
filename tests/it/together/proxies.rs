//! psync behind and by way of the large proxies, each as it comes: squid, varnish and haproxy before a server, by
//! requests for many blocks and, where only GET gets through, by one for each. `make test-peers` runs these.

use std::fs;
use std::net::SocketAddr;

use crate::support::*;

/// Blocks of the sample: a short one is the last.
const BLOCKS: usize = 301;

/// What a proxy does with POST.
#[derive(Clone, Copy, PartialEq)]
enum Post {
    Passed,
    Refused,
}

/// Starts a proxy before this server.
type Start = fn(SocketAddr, Post) -> Daemon;

fn squid(config: &str) -> Daemon {
    let name = |port| format!("psync{port}");
    let squid = Daemon::start(|port, home| {
        let hosts = home.join("hosts");
        fs::write(&hosts, "127.0.0.1 blocks.invalid\n").unwrap();
        let config = config.replace("PORT", &format!("127.0.0.1:{port}"));
        let file = home.join("squid.conf");
        let text = format!(
            "{config}
hosts_file {}
access_log none
cache_log /dev/null
cache_mem 16 MB
memory_cache_shared off
netdb_filename none
pid_filename none
pinger_enable off
",
            hosts.display()
        );
        fs::write(&file, text).unwrap();
        tool!("squid", "-N", "-d", "1", "-n", name(port), "-f", file)
    });
    // Its shared memory has names for others that would join, and outlives it by these.
    let own = format!("{}-", name(squid.addr().port()));
    for file in names("/dev/shm")
        .iter()
        .filter(|file| file.starts_with(&own))
    {
        fs::remove_file(format!("/dev/shm/{file}")).unwrap();
    }
    squid
}

fn squid_before(server: SocketAddr, post: Post) -> Daemon {
    let refusal = match post {
        Post::Passed => "",
        Post::Refused => "acl post method POST\nhttp_access deny post\n",
    };
    squid(&format!(
        "http_port PORT accel defaultsite=blocks no-vhost
cache_peer {} parent {} 0 no-query originserver
{refusal}http_access allow all",
        server.ip(),
        server.port()
    ))
}

fn varnish_before(server: SocketAddr, post: Post) -> Daemon {
    let refusal = match post {
        Post::Passed => "",
        Post::Refused => "sub vcl_recv { if (req.method == \"POST\") { return (synth(405)); } }",
    };
    Daemon::start(|port, home| {
        let (ip, server) = (server.ip(), server.port());
        let file = home.join("psync.vcl");
        let text = format!(
            "vcl 4.1;\nbackend psync {{ .host = \"{ip}\"; .port = \"{server}\"; }}\n{refusal}\n"
        );
        fs::write(&file, text).unwrap();
        let run = tool!(
            "varnishd",
            "-F",
            "-j",
            "none",
            "-T",
            "none",
            "-s",
            "malloc,16m"
        );
        run.args(["-a", &format!("127.0.0.1:{port}")])
            .arg("-n")
            .arg(home.join("work"))
            .arg("-f")
            .arg(file)
    })
}

fn haproxy_before(server: SocketAddr, post: Post) -> Daemon {
    let refusal = match post {
        Post::Passed => "",
        Post::Refused => "http-request deny deny_status 405 if METH_POST",
    };
    Daemon::start(|port, home| {
        let file = home.join("haproxy.cfg");
        let text = format!(
            "defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
frontend blocks
    bind 127.0.0.1:{port}
    {refusal}
    default_backend psync
backend psync
    server psync {server}
"
        );
        fs::write(&file, text).unwrap();
        tool!("haproxy", "-db", "-f", file)
    })
}

/// A file, and a server that has its blocks.
fn served() -> (Sample, Server) {
    let sample = Sample::new(BLOCKS - 1);
    let blocks = sample.dir.join("blocks");
    write_blocks(&blocks, &sample.bytes);
    let server = Server::start(&blocks);
    (sample, server)
}

/// Fetches the whole file, and returns how many requests that took.
#[track_caller]
fn requests(sample: &Sample, run: Run) -> u64 {
    let out = run.arg("--stats").run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
    out.stat("requests")
}

/// With POST a few requests bring all blocks. Without, each block takes one.
#[track_caller]
fn passes_blocks(start: Start) {
    let (sample, server) = served();
    let proxy = start(server.addr(), Post::Passed);
    assert!(requests(&sample, sample.get(&[&proxy])) < 20);
    let proxy = start(server.addr(), Post::Refused);
    assert!(requests(&sample, sample.get(&[&proxy])) >= BLOCKS as u64);
}

#[test]
#[ignore = "make test-peers"]
fn peers_squid_before_a_server_passes_blocks() {
    passes_blocks(squid_before);
}

#[test]
#[ignore = "make test-peers"]
fn peers_varnish_before_a_server_passes_blocks() {
    passes_blocks(varnish_before);
}

#[test]
#[ignore = "make test-peers"]
fn peers_haproxy_before_a_server_passes_blocks() {
    passes_blocks(haproxy_before);
}

#[test]
#[ignore = "make test-peers"]
fn peers_varnish_keeps_blocks_that_a_server_no_longer_has() {
    let (sample, server) = served();
    let varnish = varnish_before(server.addr(), Post::Refused);
    sample.is_whole(sample.get(&[&varnish]).run());
    server.stop();
    sample.is_whole(sample.get(&[&varnish]).run());
}

/// The server's name is one that only the proxy knows.
#[test]
#[ignore = "make test-peers"]
fn peers_squid_leads_to_a_server() {
    let (sample, server) = served();
    let squid = squid("http_port PORT\nhttp_access allow all");
    let name = format!("blocks.invalid:{}", server.addr().port());
    let get = sample.get(&[&name]).env("http_proxy", squid.url());
    assert!(requests(&sample, get) < 20);
}
