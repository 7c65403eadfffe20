//! The main job once through, each step against what the harness works out without psync.

use std::fs;

use crate::support::*;

#[test]
fn export_prints_the_hashlist_and_fills_the_directory() {
    let (dir, bytes) = (TempDir::new(), random(3 * BLOCK_SIZE + 5, 1));
    let file = dir.file("in", &bytes);
    let blocks = dir.join("blocks");
    let out = psync!("export", "-d", &blocks, &file).run().ok();
    assert_eq!(out.text(), hashlist(&bytes));
    for (hash, block) in block_map(&bytes) {
        assert_eq!(fs::read(blocks.join(hash)).unwrap(), block);
    }
    assert_eq!(fs::read_dir(&blocks).unwrap().count(), 4);
    let out = psync!("export", "--no-store").stdin(&bytes).run().ok();
    assert_eq!(out.text(), hashlist(&bytes));
}

#[test]
fn server_serves_a_block() {
    let (dir, bytes) = (TempDir::new(), random(BLOCK_SIZE, 2));
    write_blocks(&dir, &bytes);
    let server = Server::with(&dir, &["-v"]);
    let target = format!("/{}", hash_hex(&bytes));
    let answer = get(server.addr(), &target);
    assert_eq!((answer.status, answer.body), (200, bytes));
    let mut client = Client::connect(server.addr());
    client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let head = client.response_to_head();
    assert_eq!(
        (head.status, head.header("Content-Length")),
        (200, Some("4096"))
    );
    server.wait_stderr(|err| line_count(err) == 2);
    assert!(threads(server.pid()) >= 2);
    assert!(server.stop().contains(&target));
}

#[test]
fn get_brings_a_file_back() {
    let (dir, bytes) = (TempDir::new(), random(5 * BLOCK_SIZE + 1, 3));
    let list = dir.file("list", write_blocks(dir.join("blocks"), &bytes));
    let server = Server::start(dir.join("blocks"));
    assert!(psync!("get", server.url(), &list).run().ok().stdout == bytes);
}

#[test]
fn get_passes_over_a_lying_server() {
    let (dir, bytes) = (TempDir::new(), random(2 * BLOCK_SIZE, 4));
    let list = dir.file("list", hashlist(&bytes));
    let liar = HostileServer::http(|_| Reply::ok([0; BLOCK_SIZE]));
    let good = HostileServer::honest(&bytes);
    let out = psync!("get", liar.to_string(), good.to_string(), &list).run();
    assert_eq!(out.status, 0, "{out}");
    assert!(out.stdout == bytes);
    psync!("get", liar.to_string(), &list)
        .run()
        .fails_naming(3, &[&liar.to_string()]);
}

#[test]
fn servers_may_have_several_addresses() {
    let dir = TempDir::new();
    let server = Server::of(psync!("server", "-d", &dir, "127.0.0.1:0", "[::1]:0"));
    let addrs = server.addrs(2);
    assert!(addrs[1].is_ipv6() && addrs[0] == server.addr());
    for addr in addrs {
        assert_eq!(get(addr, "/").status, 200);
    }
}
