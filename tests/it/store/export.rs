//! What `export` makes of its input: every size, every kind of file and pipe, the same list as worked
//! out without psync, the same bytes back; where it stores; what it says of input it cannot read.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::*;

const MIB: usize = 1 << 20;

/// Every length at which cutting into blocks, or psync's reading in larger pieces, may go wrong.
const SIZES: [usize; 12] = [
    0,
    1,
    4095,
    4096,
    4097,
    8191,
    8192,
    8193,
    MIB / 4,
    MIB / 4 + 1,
    3 * MIB - 1,
    17 * MIB + 5,
];

#[test]
fn files_of_every_size_come_back() {
    let dir = TempDir::new();
    let blocks = dir.join("blocks");
    fs::create_dir(&blocks).unwrap();
    let server = Server::start(&blocks);
    for size in SIZES {
        let bytes = random(size, size as u64);
        let file = dir.file("in", &bytes);
        let out = psync!("export", "-d", &blocks, &file).run().ok();
        assert!(out.text() == hashlist(&bytes), "list of {size}");
        assert_stored(&blocks, out.text());
        let list = dir.file("list", &out.stdout);
        let back = psync!("get", "-d", dir.join("none"), server.to_string(), &list).run();
        assert!(back.status == 0 && back.stdout == bytes, "{size}: {back}");
        // An empty list is warned of: a download of it that failed looks the same.
        assert_eq!(back.stderr.is_empty(), size > 0, "{back}");
    }
    assert_eq!(strangers(&blocks), [""; 0]);
}

#[test]
fn standard_input_gives_the_same_list_as_the_file() {
    for size in SIZES {
        let bytes = random(size, 1);
        for words in [
            &["--no-store"][..],
            &["--no-store", "-"],
            &["--no-store", "--", "-"],
        ] {
            let out = psync!("export").args(words).stdin(&bytes).run().ok();
            assert!(out.text() == hashlist(&bytes), "{size} {words:?}");
        }
    }
}

#[test]
fn a_dribbling_pipe_is_cut_like_a_file() {
    let bytes = random(MIB, 3);
    for sizes in [
        &[1, 7, 4095, 1, 4096, 4097, 13][..],
        &[65537, 3, 100_000],
        &[4097],
    ] {
        let mut run = psync!("export", "--no-store")
            .stdin_from(Stdio::piped())
            .start();
        let mut pipe = run.stdin.take().unwrap();
        let (mut rest, mut turn) = (&bytes[..], sizes.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*turn.next().unwrap()));
            pipe.write_all(now).unwrap();
            rest = later;
        }
        drop(pipe);
        assert!(run.wait().ok().text() == hashlist(&bytes), "{sizes:?}");
    }
}

#[test]
fn a_fifo_is_read_to_its_end() {
    let (dir, bytes) = (TempDir::new(), random(MIB + 1, 4));
    let fifo = dir.join("fifo");
    tool!("mkfifo", &fifo).run().ok();
    let run = psync!("export", "-d", dir.join("b"), &fifo).start();
    let mut pipe = OpenOptions::new().write(true).open(&fifo).unwrap();
    pipe.write_all(&bytes).unwrap();
    drop(pipe);
    let out = run.wait().ok();
    assert!(out.text() == hashlist(&bytes));
    assert_stored(dir.join("b"), out.text());
}

#[test]
fn repeated_blocks_are_listed_each_time_and_stored_once() {
    let one = random(BLOCK_SIZE, 5);
    let mut mixed = one.repeat(700);
    mixed.extend_from_slice(&[0; 300 * BLOCK_SIZE]);
    mixed.extend_from_slice(&one.repeat(40));
    mixed.extend_from_slice(&one[..5]);
    // More of the same than any batch holds.
    for (bytes, distinct) in [(mixed, 3), (vec![0; 40 * MIB], 1)] {
        let dir = TempDir::new();
        let out = psync!("export", "-d", dir.join("b"))
            .stdin(&bytes)
            .run()
            .ok();
        let line = hash_hex(&bytes[..BLOCK_SIZE]) + "\n";
        let same = distinct == 1;
        let list = if same {
            line.repeat(40 * MIB / BLOCK_SIZE)
        } else {
            hashlist(&bytes)
        };
        assert!(out.text() == list);
        assert_eq!(names(dir.join("b")).len(), distinct);
        assert_stored(dir.join("b"), out.text());
    }
}

#[test]
fn a_sparse_file_comes_back_as_zeros() {
    let dir = TempDir::new();
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.set_len(24 * MIB as u64 + 3).unwrap();
    let blocks = dir.join("b");
    let out = psync!("export", "-d", &blocks, dir.join("sparse"))
        .run()
        .ok();
    assert_eq!(names(&blocks).len(), 2);
    let list = dir.file("list", &out.stdout);
    let server = Server::start(&blocks);
    let back = psync!("get", server.to_string(), &list).run().ok();
    assert!(back.stdout == vec![0; 24 * MIB + 3]);
}

#[test]
#[ignore = "hashes five gigabytes"]
fn slow_five_gigabytes_of_nothing_are_one_block() {
    let dir = TempDir::new();
    const SIZE: u64 = 5 << 30;
    File::create(dir.join("sparse"))
        .unwrap()
        .set_len(SIZE)
        .unwrap();
    let run = psync!("export", "-d", dir.join("b"), dir.join("sparse"));
    let out = run.limit(std::time::Duration::from_secs(600)).run().ok();
    let zeros = hash_hex(&[0; BLOCK_SIZE]);
    assert_eq!(names(dir.join("b")), [zeros.as_str()]);
    assert_eq!(out.text().lines().count() as u64, SIZE / BLOCK_SIZE as u64);
    assert!(out.text().lines().all(|line| line == zeros));
}

#[test]
fn the_directory_is_the_option_then_the_variable_then_in_home() {
    let bytes = random(3 * BLOCK_SIZE, 6);
    let dir = TempDir::new();
    let (option, variable, home) = (dir.join("o/x"), dir.join("v/y"), dir.join("h"));
    let run = || psync!("export").stdin(&bytes).env("HOME", &home);
    let all = || [&option, &variable, &home].map(|path| path.exists());
    run()
        .env("PSYNC_DIR", &variable)
        .arg("-d")
        .arg(&option)
        .run()
        .ok();
    assert_eq!(all(), [true, false, false]);
    run().env("PSYNC_DIR", &variable).run().ok();
    assert_eq!(all(), [true, true, false]);
    // Set to nothing is not set.
    run().env("PSYNC_DIR", "").run().ok();
    for made in [option, variable, home.join(".psync/blocks")] {
        assert_stored(&made, &hashlist(&bytes));
        assert_eq!(names(&made).len(), 3);
    }
}

#[test]
fn no_store_touches_no_directory() {
    let bytes = random(2 * MIB, 7);
    let dir = TempDir::new();
    let forbidden = dir.join("no");
    let run = psync!("export", "--no-store", "-d", &forbidden, "-").stdin(&bytes);
    let run = run.env("HOME", &dir).env("PSYNC_DIR", &forbidden);
    assert!(run.run().ok().text() == hashlist(&bytes));
    assert_eq!(dir.names(), [""; 0]);
    let without = psync!("export", "--no-store")
        .no_env("HOME")
        .stdin(&bytes)
        .run()
        .ok();
    assert!(without.text() == hashlist(&bytes));
}

#[test]
fn what_it_makes_follows_the_umask() {
    for (umask, directory, block) in [
        ("022", 0o755, 0o644),
        ("077", 0o700, 0o600),
        ("002", 0o775, 0o664),
    ] {
        let (dir, bytes) = (TempDir::new(), random(2 * BLOCK_SIZE, 8));
        let blocks = dir.join("a/b");
        let run = psync!("export", "-d", &blocks).stdin(&bytes);
        let out = run.sh(&format!("umask {umask}")).run().ok();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(
            (mode(dir.join("a")), mode(blocks.clone())),
            (directory, directory)
        );
        for hash in out.text().lines() {
            assert_eq!(mode(blocks.join(hash)), block, "umask {umask}");
        }
    }
}

#[test]
fn any_name_is_a_file_name() {
    let (dir, bytes) = (TempDir::new(), random(BLOCK_SIZE + 1, 9));
    let odd: [&[u8]; 5] = [b"-x", b"--no-store", b"\xff\xfe.img", b"a\nb", b" "];
    for name in odd.map(OsStr::from_bytes) {
        fs::write(dir.join(name), &bytes).unwrap();
        let here = [OsStr::new("./"), name].join(OsStr::new(""));
        for words in [&[OsStr::new("--"), name][..], &[&here]] {
            let out = psync!("export", "--no-store")
                .args(words)
                .cwd(&dir)
                .run()
                .ok();
            assert_eq!(out.text(), hashlist(&bytes), "{words:?}");
        }
        // As a block directory.
        let blocks = dir.join([OsStr::new("dir"), name].join(OsStr::new("")));
        let out = psync!("export", "-d", &blocks, "--", name)
            .cwd(&dir)
            .run()
            .ok();
        assert_stored(&blocks, out.text());
    }
}

#[test]
fn input_that_cannot_be_read_is_named_on_one_line() {
    let dir = TempDir::new();
    fs::create_dir(dir.join("sub")).unwrap();
    let closed = dir.file("closed", "x");
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    dir.file("file", "x");
    for (words, message) in [
        (&[&b"gone"[..]][..], "open gone: No such file or directory"),
        (&[b"sub"], "read sub: Is a directory"),
        (&[b"closed"], "open closed: Permission denied"),
        (&[b"file/x"], "open file/x: Not a directory"),
        (&[b"--", b"-gone"], "open -gone: No such file or directory"),
        (&[b"a\nb\x1b"], "open a?b?: No such file or directory"),
        (&[b"\xff"], "open \u{fffd}: No such file or directory"),
    ] {
        let words = words.iter().map(|word| OsStr::from_bytes(word));
        let blocks = dir.join("b");
        let out = psync!("export", "-d", &blocks)
            .args(words)
            .cwd(&dir)
            .powerless()
            .run();
        assert_eq!(out.fails(1, &format!("psync: {message}\n")).stdout, b"");
        assert!(!blocks.exists() || names(&blocks).is_empty());
    }
}

/// Changes the file while psync waits with its first lines for their reader, and returns all lines.
fn export_while(dir: &TempDir, bytes: &[u8], change: impl FnOnce(&File)) -> String {
    let file = dir.file("in", bytes);
    let (mut reader, writer) = io::pipe().unwrap();
    let run = psync!("export", "-d", dir.join("b"), &file)
        .stdout_to(writer)
        .start();
    let mut list = vec![0];
    reader.read_exact(&mut list).unwrap();
    change(&OpenOptions::new().append(true).open(&file).unwrap());
    reader.read_to_end(&mut list).unwrap();
    run.wait().ok();
    String::from_utf8(list).unwrap()
}

#[test]
fn a_file_that_changes_its_length_meanwhile_gives_what_was_read() {
    let bytes = random(40 * MIB, 10);
    let full = hashlist(&bytes);
    let dir = TempDir::new();
    let list = export_while(&dir, &bytes, |file| file.set_len(18 * MIB as u64).unwrap());
    assert!(full.starts_with(&list) && list.len() >= full.len() / 40 * 16);
    assert_stored(dir.join("b"), &list);

    let dir = TempDir::new();
    let list = export_while(&dir, &bytes, |mut file| file.write_all(b"more").unwrap());
    assert!(list.starts_with(&full));
    assert!(list == full || list[full.len()..] == hashlist(b"more"));
    assert_stored(dir.join("b"), &list);
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let dir = TempDir::new();
    for words in [&["--no-store"][..], &["-d", "b"]] {
        let run = psync!("export")
            .args(words)
            .cwd(&dir)
            .stdin_from(Stdio::piped());
        let mut run = run.start();
        let mut pipe = run.stdin.take().unwrap();
        for seed in 0..64 {
            pipe.write_all(&random(MIB, seed)).unwrap();
        }
        // All but a pipe's content is taken, and psync waits for more.
        let peak = peak_kib(run.pid());
        assert!(peak < 12 << 10, "{words:?}: {peak} KiB");
        drop(pipe);
        assert_eq!(
            run.wait().ok().text().lines().count(),
            64 * MIB / BLOCK_SIZE
        );
    }
}
