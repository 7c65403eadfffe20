//! Programs that nobody here wrote, at the other end: web servers over a block directory, HTTP clients
//! against `psync server`, and the tools that a block directory and a hashlist are made for.

use std::fs;

use crate::support::*;

/// A file whose blocks `export` has put into `blocks`, and its hashlist as printed.
fn exported() -> (Sample, std::path::PathBuf) {
    let sample = Sample::new(300);
    let blocks = sample.dir.join("blocks");
    let out = psync!("export", "-d", &blocks)
        .stdin(&sample.bytes)
        .run()
        .ok();
    assert_eq!(out.text(), hashlist(&sample.bytes));
    (sample, blocks)
}

#[test]
fn nginx_is_a_server() {
    let (sample, blocks) = exported();
    let nginx = Daemon::nginx(&blocks, "");
    sample.is_whole(sample.get(&[&nginx]).run());
    sample.is_whole(sample.get(&[&nginx.url()]).run());
    let nginx = Daemon::nginx(&sample.dir, "keepalive_requests 7;");
    sample.is_whole(sample.get(&[&(nginx.url() + "/blocks/")]).run());
    // Compresses whatever it can, for clients that ask.
    let nginx = Daemon::nginx(
        &blocks,
        "gzip on; gzip_types *; gzip_min_length 1; chunked_transfer_encoding on;",
    );
    sample.is_whole(sample.get(&[&nginx]).run());
    fs::remove_file(blocks.join(sample.hash(2))).unwrap();
    let reason = format!("{nginx}: HTTP 404 Not Found");
    sample.ends_before(2, sample.get(&[&nginx]).run(), &[&reason]);
    sample.is_whole(sample.get(&[&nginx, &sample.honest()]).run());
}

/// As README.md has it.
#[test]
fn nginx_in_front_lets_requests_for_many_blocks_through() {
    let readme = readme();
    let example = examples(&readme, "nginx")[0];
    let (sample, blocks) = exported();
    let server = Server::start(&blocks);
    let nginx = Daemon::nginx(
        sample.dir.join("nothing"),
        &example.replace("127.0.0.1:8080", &server.addr().to_string()),
    );
    let out = sample.get(&[&nginx]).arg("--stats").run();
    assert!(out.stdout == sample.bytes, "{out}");
    assert!(out.stat("requests") < 20, "{out}");
}

#[test]
fn busybox_httpd_is_a_server() {
    let (sample, blocks) = exported();
    let busybox = Daemon::busybox_httpd(&blocks);
    sample.is_whole(sample.get(&[&busybox]).run());
    let busybox = Daemon::busybox_httpd(&sample.dir);
    sample.is_whole(sample.get(&[&(busybox.url() + "/blocks")]).run());
    fs::remove_file(blocks.join(sample.hash(2))).unwrap();
    sample.is_whole(
        sample
            .get(&[&(busybox.url() + "/blocks"), &sample.honest()])
            .run(),
    );
}

#[test]
fn curl_is_a_client() {
    let (sample, blocks) = exported();
    let server = Server::start(blocks);
    let urls: Vec<_> = (0..301)
        .map(|n| format!("{}/{}", server.url(), sample.hash(n)))
        .collect();
    let curl = || tool!("curl", "-sS", "--fail");
    // All over one connection.
    let out = curl().args(&urls).run().ok();
    assert!(out.stdout == sample.bytes);
    assert!(curl().arg("--http1.0").arg(&urls[0]).run().ok().stdout == sample.block(0));
    assert!(curl().arg("--compressed").arg(&urls[0]).run().ok().stdout == sample.block(0));
    let absent = format!("{}/{}", server.url(), hash_hex(b"absent"));
    let out = curl()
        .args(["-o", "/dev/null", "-w", "%{http_code}"])
        .arg(&absent)
        .run();
    assert_eq!((out.status, out.text()), (22, "404"));
    let head = curl().arg("-I").arg(&urls[300]).run().ok();
    assert!(
        head.text().starts_with("HTTP/1.1 200 OK\r\n")
            && head.text().contains("\r\nContent-Length: 5\r\n"),
        "{head}"
    );
    // A second download that the server need not send again.
    let etag = sample.dir.join("etag");
    curl()
        .arg("--etag-save")
        .arg(&etag)
        .arg(&urls[0])
        .run()
        .ok();
    assert_eq!(
        fs::read_to_string(etag).unwrap().trim(),
        format!("\"{}\"", sample.hash(0))
    );
}

#[test]
fn wget_and_busybox_wget_are_clients() {
    let (sample, blocks) = exported();
    let server = Server::start(blocks);
    let absent = format!("{}/{}", server.url(), hash_hex(b"absent"));
    for n in [0, 300] {
        let url = format!("{}/{}", server.url(), sample.hash(n));
        assert!(tool!("wget", "-q", "-O", "-", &url).run().ok().stdout == sample.block(n));
        assert!(
            tool!("busybox", "wget", "-q", "-O", "-", &url)
                .run()
                .ok()
                .stdout
                == sample.block(n)
        );
    }
    // 8: an error that the server told.
    assert_eq!(tool!("wget", "-q", "-O", "-", &absent).run().status, 8);
    tool!("busybox", "wget", "-q", "-O", "-", &absent)
        .run()
        .fails_naming(1, &["404"]);
}

#[test]
fn sha256sum_checks_a_block_directory() {
    let (sample, blocks) = exported();
    let check = || {
        let sums: String = hashlist(&sample.bytes)
            .lines()
            .map(|hash| format!("{hash}  {hash}\n"))
            .collect();
        tool!("sha256sum", "--check", "--strict", "--quiet", "-")
            .cwd(&blocks)
            .stdin(sums)
            .run()
    };
    check().ok();
    assert_eq!(fs::read_dir(&blocks).unwrap().count(), 301);
    // It would tell.
    fs::write(blocks.join(sample.hash(7)), "x").unwrap();
    check().fails_naming(1, &["WARNING: 1 computed checksum did NOT match"]);
}

#[test]
fn split_and_sha256sum_print_the_same_hashlist() {
    for len in [0, 1, 4095, 4096, 4097, 50_000] {
        let (dir, bytes) = (TempDir::new(), random(len, 8));
        let file = dir.file("file", &bytes);
        let split = tool!(
            "split",
            "-b",
            "4096",
            "--filter=sha256sum | cut -c1-64",
            &file
        )
        .run()
        .ok();
        let export = psync!("export", "--no-store", &file).run().ok();
        assert_eq!(export.text(), split.text());
    }
}

/// As a shell puts a file together without psync: the formats alone are enough.
#[test]
fn cat_puts_a_file_together() {
    let (sample, blocks) = exported();
    let out = tool!("xargs", "cat")
        .cwd(blocks)
        .stdin(hashlist(&sample.bytes))
        .run()
        .ok();
    assert!(out.stdout == sample.bytes);
}
