//! What the server makes of whatever lies in its block directory under a hash's name: the exact
//! block, or 404 and no waiting. The directory may change under it at any time.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::*;

#[test]
fn blocks_of_every_length_are_served() {
    let dir = TempDir::new();
    let lengths = [1, 2, 4095, 4096];
    let blocks = lengths.map(|length| random(length, length as u64));
    for block in &blocks {
        write_blocks(&dir, block);
    }
    let server = Server::start(&dir);
    for block in &blocks {
        let answer = get(server.addr(), &format!("/{}", hash_hex(block)));
        assert_eq!(
            answer.header("Content-Length"),
            Some(&*block.len().to_string())
        );
        assert!(answer.status == 200 && answer.body == *block);
    }
}

/// Puts something under the name of a block.
type Make = fn(&Path, &[u8]);

#[test]
fn what_is_not_the_block_is_not_there() {
    let dir = TempDir::new();
    let rows: [(&str, Make); 15] = [
        ("absent", |_, _| {}),
        ("a directory", |path, _| fs::create_dir(path).unwrap()),
        ("a FIFO", |path, _| fifo(path)),
        ("a socket", |path, _| {
            // Bound under a short name: a socket's path has at most 108 bytes.
            let short = path.with_file_name("s");
            UnixListener::bind(&short).unwrap();
            fs::rename(short, path).unwrap();
        }),
        ("a dangling link", |path, _| {
            symlink("nowhere", path).unwrap();
        }),
        ("a link to itself", |path, _| symlink(path, path).unwrap()),
        ("a link to a directory", |path, _| {
            symlink("/", path).unwrap();
        }),
        ("a link to zeros without end", |path, _| {
            symlink("/dev/zero", path).unwrap();
        }),
        ("a link to nothing", |path, _| {
            symlink("/dev/null", path).unwrap();
        }),
        ("empty", |path, _| fs::write(path, "").unwrap()),
        ("a byte short", |path, block| {
            fs::write(path, &block[1..]).unwrap();
        }),
        ("a byte long", |path, block| {
            fs::write(path, [block, b"x"].concat()).unwrap();
        }),
        ("twice", |path, block| {
            fs::write(path, [block, block].concat()).unwrap();
        }),
        ("a bit flipped", |path, block| {
            let mut block = block.to_vec();
            block[2000] ^= 1;
            fs::write(path, block).unwrap();
        }),
        ("huge", |path, _| {
            let file = fs::File::create(path).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
    ];
    let server = Server::start(&dir);
    // All on one connection: none of them costs it.
    let mut client = Client::connect(server.addr());
    for (seed, (what, make)) in rows.into_iter().enumerate() {
        let block = random(BLOCK_SIZE, seed as u64);
        let name = hash_hex(&block);
        make(&dir.join(&name), &block);
        for method in ["GET", "HEAD"] {
            client.send(format!("{method} /{name} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let answer = match method {
                "GET" => client.response(),
                _ => client.response_to_head(),
            };
            assert_eq!(answer.status, 404, "{what}");
        }
    }
}

#[track_caller]
fn fifo(path: &Path) {
    tool!("mkfifo", path).run().ok();
}

#[test]
fn a_pipe_that_somebody_writes_to_is_not_waited_for() {
    let (dir, block) = (TempDir::new(), random(100, 1));
    let name = hash_hex(&block);
    fifo(&dir.join(&name));
    // Both ends, so that opening waits for nobody; nothing is ever written.
    let _writer = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.join(&name))
        .unwrap();
    let server = Server::start(&dir);
    assert_eq!(get(server.addr(), &format!("/{name}")).status, 404);
}

#[test]
fn a_file_longer_than_a_block_is_none_even_under_its_own_hash() {
    let (dir, bytes) = (TempDir::new(), random(BLOCK_SIZE + 1, 1));
    let empty = dir.file(&hash_hex(b""), "");
    let long = dir.file(&hash_hex(&bytes), &bytes);
    let server = Server::start(&dir);
    for path in [empty, long] {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(get(server.addr(), &format!("/{name}")).status, 404);
    }
}

#[test]
fn a_link_to_a_block_is_the_block() {
    let (dir, elsewhere, block) = (TempDir::new(), TempDir::new(), random(77, 1));
    let name = hash_hex(&block);
    symlink(elsewhere.file("block", &block), dir.join(&name)).unwrap();
    let server = Server::start(&dir);
    assert_eq!(get(server.addr(), &format!("/{name}")).body, block);
}

#[test]
fn the_directory_may_be_a_link_or_relative() {
    let (dir, block) = (TempDir::new(), random(77, 1));
    write_blocks(dir.join("real"), &block);
    symlink("real", dir.join("link")).unwrap();
    for name in ["link", "real/", "./real/../link"] {
        let server = Server::of(psync!("server", "-d", name, "127.0.0.1:0").cwd(&dir));
        assert_eq!(
            get(server.addr(), &format!("/{}", hash_hex(&block))).body,
            block
        );
    }
}

#[test]
fn blocks_come_and_go_while_it_runs() {
    let (dir, block) = (TempDir::new(), random(BLOCK_SIZE, 1));
    let (home, name) = (dir.join("blocks"), hash_hex(&block));
    fs::create_dir(&home).unwrap();
    let server = Server::start(&home);
    let mut client = Client::connect(server.addr());
    let mut ask = || {
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.response().status
    };
    assert_eq!(ask(), 404);
    write_blocks(&home, &block);
    assert_eq!(ask(), 200);
    fs::write(home.join(&name), &block[..4095]).unwrap();
    assert_eq!(ask(), 404);
    write_blocks(&home, &block);
    assert_eq!(ask(), 200);
    fs::remove_dir_all(&home).unwrap();
    assert_eq!(ask(), 404);
    write_blocks(&home, &block);
    assert_eq!(ask(), 200);
}

#[test]
fn a_block_being_written_is_absent_or_whole() {
    let (dir, bytes) = (TempDir::new(), random(500 * BLOCK_SIZE, 1));
    let (home, file) = (dir.join("blocks"), dir.file("in", &bytes));
    fs::create_dir(&home).unwrap();
    let server = Server::start(&home);
    let mut export = psync!("export", "--no-sync", "-d", &home, &file).start();
    let mut client = Client::connect(server.addr());
    while export.is_alive() {
        for block in blocks(&bytes).step_by(7) {
            client.send(format!(
                "GET /{} HTTP/1.1\r\nHost: test\r\n\r\n",
                hash_hex(block)
            ));
            let answer = client.response();
            assert!(answer.status == 404 || (answer.status == 200 && answer.body == block));
        }
    }
    export.wait().ok();
    for block in blocks(&bytes).step_by(7) {
        assert!(get(server.addr(), &format!("/{}", hash_hex(block))).body == block);
    }
}

#[test]
fn the_directory_may_have_any_name() {
    let (dir, block) = (TempDir::new(), random(77, 1));
    for name in [
        &b"-d"[..],
        b"--",
        b"\xff\xfe",
        b" ",
        b"a\nb",
        b"x=y",
        &[b'n'; 255],
    ] {
        let name = OsStr::from_bytes(name);
        write_blocks(dir.join(name), &block);
        let server =
            Server::of(psync!("server", "127.0.0.1:0", "-d", Path::new(".").join(name)).cwd(&dir));
        assert_eq!(
            get(server.addr(), &format!("/{}", hash_hex(&block))).body,
            block
        );
        let variable = psync!("server", "127.0.0.1:0")
            .env("PSYNC_DIR", name)
            .cwd(&dir);
        let server = Server::of(variable);
        assert_eq!(
            get(server.addr(), &format!("/{}", hash_hex(&block))).body,
            block
        );
    }
}

#[test]
fn it_needs_no_environment_and_no_current_directory() {
    let (dir, block) = (TempDir::new(), random(77, 1));
    let gone = TempDir::new();
    write_blocks(&dir, &block);
    let run = psync!("server", "-d", &dir, "127.0.0.1:0")
        .no_env("HOME")
        .cwd(&gone);
    let server = Server::of(run.sh("rmdir \"$PWD\"; umask 077; unset PWD OLDPWD"));
    assert!(!gone.exists());
    assert_eq!(
        get(server.addr(), &format!("/{}", hash_hex(&block))).body,
        block
    );
}

#[test]
fn it_only_reads() {
    let (dir, block) = (TempDir::new(), random(BLOCK_SIZE, 1));
    let name = hash_hex(&block);
    let stale = [".psync-0", ".psync-0-0", "somebody's"];
    for name in stale {
        dir.file(name, "x");
    }
    dir.file(&name, "damaged");
    let before = dir.names();
    let server = Server::start(&dir);
    assert_eq!(get(server.addr(), &format!("/{name}")).status, 404);
    server.stop();
    assert_eq!(dir.names(), before);
    assert_eq!(fs::read(dir.join(name)).unwrap(), b"damaged");
}
