//! Roots: one hash for a whole file. What `export --root` stores and prints, the same text as worked out
//! without psync; `get SERVER... ROOT` from all kinds of servers and from none; every root block and
//! list that is not one; and that what is at hand is not asked for.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::get::mirror::{honest as honest_mirror, mirror};
use crate::get::output::{Loop, part};
use crate::store::block_dir::stamps;
use crate::support::*;

const A: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// Blocks whose hashes 60 blocks of a list hold.
const TWO_DEEP: usize = 3780;

/// Address space for files of any length (KiB).
const MEMORY: &str = "ulimit -v 16384";

/// `psync get SERVER... ROOT`, with no second round.
fn get(servers: &[&dyn Display], root: &str) -> Run {
    let servers = servers.iter().map(ToString::to_string);
    psync!("get").args(servers).arg(root).args(["--retry", "0"])
}

/// 201 blocks and four of their list; the last block is a short one.
fn sample() -> Rooted {
    Rooted::new(&random(200 * BLOCK_SIZE + 5, 61))
}

/// A file of so many bytes, of few different blocks.
fn cheap(size: usize) -> Vec<u8> {
    let mut bytes = random(33 * BLOCK_SIZE, 7).repeat(size / (33 * BLOCK_SIZE) + 1);
    bytes.truncate(size);
    bytes
}

fn store(dir: &Path, map: &BlockMap) {
    fs::create_dir_all(dir).unwrap();
    for (hash, block) in map {
        fs::write(dir.join(hash), block).unwrap();
    }
}

fn serve(map: BlockMap) -> HostileServer {
    HostileServer::http(move |request| Reply::honest(&map, request))
}

/// What was asked for that is in `map`, each once, and how often that was.
fn asked_of(server: &HostileServer, map: &BlockMap) -> (BTreeSet<String>, usize) {
    let asked: Vec<_> = server.asked();
    let asked: Vec<_> = asked.into_iter().filter(|h| map.contains_key(h)).collect();
    let count = asked.len();
    (asked.into_iter().collect(), count)
}

/// Whether block `n` of `level` lies at its place in a file of these bytes.
fn lies_in(rooted: &Rooted, level: usize, n: usize, bytes: &[u8]) -> bool {
    if level > 0 {
        let below = Rooted::below(n);
        let count = blocks(&rooted.levels[level - 1]).len();
        let mut below = below.start..below.end.min(count);
        return below.all(|n| lies_in(rooted, level - 1, n, bytes));
    }
    let block = blocks(rooted.bytes()).nth(n).unwrap();
    let start = n * BLOCK_SIZE;
    bytes.get(start..start + block.len()) == Some(block)
}

/// The blocks of a level that do not.
fn lacks(rooted: &Rooted, level: usize, bytes: &[u8]) -> BTreeSet<String> {
    let text = &rooted.levels[level];
    let numbers = (0..).zip(blocks(text));
    let absent = numbers.filter(|&(n, _)| !lies_in(rooted, level, n, bytes));
    absent.map(|(_, block)| hash_hex(block)).collect()
}

#[test]
fn root_blocks_are_the_text_of_the_protocol() {
    let a = format!("psync root 1\nsize 3\ndepth 0\n{A}\n");
    // Worked out by hand: sha256sum and split.
    let known = [
        (
            Vec::new(),
            "psync root 1\nsize 0\ndepth 0\n",
            "ce52c286d6e9bdb5f4edce4e17fcab93acdfd5abd24d4a0b944f47b78f67fe8f",
        ),
        (
            b"abc".to_vec(),
            &a,
            "77dcf63de2e3d34d2c275630a7a97b4338e77271c66633666bb2f590e2e23ae1",
        ),
        (
            vec![b'x'; 60 * BLOCK_SIZE + 1],
            "psync root 1\nsize 245761\ndepth 1\na42efb1525536ea454122a6652ac29d43e095b735ebe73196884a7f6adbf7c8b\n",
            "55584672dd68dbb0ba1f821fd6ecb71dae0c35d7b6d554b29d79f8eacad19198",
        ),
        (
            vec![b'x'; TWO_DEEP * BLOCK_SIZE + 1],
            "psync root 1\nsize 15482881\ndepth 2\n4eee2b75a2e9c9d88be04a9617681447f2c260236fd53f7a910ae3753d1c8c9a\n",
            "9ff17a82abfbfc307bc4b2da74fade44143ef8479142bad436feb808c4454e6a",
        ),
    ];
    let dir = TempDir::new();
    for (bytes, text, root) in known {
        let blocks = dir.join(root);
        let run = psync!("export", "--root", "-d", &blocks).stdin(&bytes);
        assert_eq!(run.run().ok().text(), format!("{root}\n"));
        assert_eq!(fs::read_to_string(blocks.join(root)).unwrap(), text);
        let rooted = Rooted::new(&bytes);
        assert_eq!((&rooted.root[..], &rooted.text[..]), (root, text));
    }
}

/// Of these servers, each over the directory, all of them or those that are quick with many blocks.
fn sources(dir: &Path, map: &BlockMap, all: bool) -> Vec<(String, Box<dyn Any>)> {
    let server = Server::start(dir);
    let mut sources: Vec<(String, Box<dyn Any>)> = vec![
        (server.url(), Box::new(server)),
        (String::new(), Box::new(())),
    ];
    if all {
        let map = map.clone();
        let old = HostileServer::http(move |request| {
            let Some(block) = map.get(request.hash()) else {
                return Reply::raw("HTTP/1.0 404 No\r\n\r\n").then_close();
            };
            Reply::raw([b"HTTP/1.0 200 OK\r\n\r\n", &block[..]].concat()).then_close()
        });
        let (nginx, busybox) = (Daemon::nginx(dir, ""), Daemon::busybox_httpd(dir));
        sources.push((nginx.url(), Box::new(nginx)));
        sources.push((busybox.url(), Box::new(busybox)));
        sources.push((old.url(), Box::new(old)));
    }
    sources
}

/// To standard output, FILE, and FILE in place, from servers of all kinds and from the directory.
#[test]
fn files_of_every_size_come_back_by_their_root_alone() {
    let dir = TempDir::new();
    for size in [
        0,
        1,
        4095,
        4096,
        4097,
        60 * BLOCK_SIZE,
        60 * BLOCK_SIZE + 1,
        TWO_DEEP * BLOCK_SIZE,
        TWO_DEEP * BLOCK_SIZE + 1,
    ] {
        let rooted = Rooted::new(&cheap(size));
        let blocks = dir.join(format!("blocks{size}"));
        let file = dir.file("in", rooted.bytes());
        let out = psync!("export", "--root", "-d", &blocks, file).run().ok();
        assert_eq!(out.text(), rooted.line(), "{size}");
        let map = rooted.map();
        assert!(names(&blocks).iter().eq(map.keys()), "{size}");
        for (hash, block) in &map {
            assert!(&fs::read(blocks.join(hash)).unwrap() == block, "{hash}");
        }
        let small = size < 1 << 20;
        for (url, _alive) in sources(&blocks, &map, small) {
            let run = || match &url[..] {
                "" => get(&[], &rooted.root).arg("-d").arg(&blocks),
                url => get(&[&url], &rooted.root),
            };
            assert!(run().run().ok().stdout == rooted.bytes(), "{size} {url}");
            for words in [&["-o"][..], &["--in-place", "-o"]] {
                let to = dir.join("to");
                fs::write(&to, vec![b'o'; size / 2 + 7]).unwrap();
                let out = run().args(words).arg(&to).run().ok();
                assert_eq!(out.stdout, b"");
                assert!(
                    fs::read(&to).unwrap() == rooted.bytes(),
                    "{size} {url} {words:?}"
                );
                assert!(!part(&to).exists());
                fs::remove_file(&to).unwrap();
            }
        }
    }
}

#[test]
fn export_prints_the_root_alone_and_without_storing_the_same() {
    let (dir, rooted) = (TempDir::new(), sample());
    let blocks = dir.join("blocks");
    let file = dir.file("in", rooted.bytes());
    let export = || psync!("export", "--root", "-d", &blocks);
    let no_store = || export().arg("--no-store");
    for run in [
        no_store().arg(&file),
        no_store().stdin(rooted.bytes()),
        no_store().arg("-").stdin(rooted.bytes()),
    ] {
        assert_eq!(run.run().ok().text(), rooted.line());
        assert!(!blocks.exists());
    }
    assert_eq!(export().arg(&file).run().ok().text(), rooted.line());
    // All of it is there: nothing is written anew.
    let before = stamps(&blocks);
    assert_eq!(export().arg(&file).run().ok().text(), rooted.line());
    assert!(stamps(&blocks) == before);
    let out = export().arg("--no-sync").stdin(rooted.bytes()).run();
    assert_eq!(out.ok().text(), rooted.line());
    assert!(stamps(&blocks) == before);
}

#[test]
fn export_puts_damaged_lists_right() {
    let (dir, rooted) = (TempDir::new(), sample());
    let blocks = dir.join("blocks");
    let export = || psync!("export", "--root", "-d", &blocks).stdin(rooted.bytes());
    export().run().ok();
    fs::write(blocks.join(&rooted.root), "").unwrap();
    fs::write(blocks.join(rooted.hash(1, 0)), vec![b'x'; BLOCK_SIZE]).unwrap();
    fs::remove_file(blocks.join(rooted.hash(1, 2))).unwrap();
    assert_eq!(export().run().ok().text(), rooted.line());
    assert!(names(&blocks).iter().eq(rooted.map().keys()));
    assert_stored(&blocks, &names(&blocks).join("\n"));
}

/// Texts that are no root block of the file, nor of any.
fn no_root_blocks(rooted: &Rooted) -> Vec<Vec<u8>> {
    let text = &rooted.text;
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let [first, size, depth, hashes @ ..] = &lines[..] else {
        panic!("{text}")
    };
    let hashes = hashes.concat();
    let one = format!("{}\n", rooted.hash(1, 0));
    let many = one.repeat(60);
    let mut all: Vec<Vec<u8>> = [
        text[..text.len() - 1].to_owned(),
        text[..text.len() - 65].to_owned(),
        format!("{text}\n"),
        format!("{text}{one}"),
        format!("{text}\0"),
        format!("{text}{}", " ".repeat(BLOCK_SIZE - text.len())),
        format!("{first}{depth}{size}{hashes}"),
        format!("{size}{depth}{hashes}"),
        format!("{first}{size}{hashes}"),
        text.replace("size 8", "size 08"),
        text.replace("size 819205", "size 819201234"),
        text.replace("size 819205", "size 4096"),
        text.replace("size 819205", "size 0"),
        text.replace("size 819205", "size -1"),
        text.replace("size 819205", "size 18446744073709551616"),
        text.replace("depth 1", "depth 0"),
        text.replace("depth 1", "depth 2"),
        text.replace("depth 1", "depth 4294967296"),
        text.replace("root 1", "root 2"),
        text.replace('\n', "\r\n"),
        text.replace(&rooted.hash(1, 0), &rooted.hash(1, 0).to_uppercase()),
        format!("{first}size 5\ndepth 1\n{one}"),
        format!("{first}size {}\ndepth 1\n{many}{one}", 61 * BLOCK_SIZE),
        "x".to_owned(),
        "psync root 1\n".to_owned(),
        "<!DOCTYPE html>\n".repeat(200),
    ]
    .map(String::into_bytes)
    .into();
    all.push(random(BLOCK_SIZE, 1));
    all.push(b"psync root 1\nsize 1\ndepth 0\n\xff\n".to_vec());
    // Zeros are always at hand.
    all.push(vec![0; BLOCK_SIZE]);
    all
}

#[test]
fn what_is_no_root_block_is_refused_and_nothing_is_touched() {
    let (dir, rooted) = (TempDir::new(), sample());
    let mut texts = no_root_blocks(&rooted);
    // A block of the file, and one of its list.
    texts.push(rooted.bytes()[..BLOCK_SIZE].to_vec());
    texts.push(rooted.levels[1][..BLOCK_SIZE].to_vec());
    let mut map = rooted.map();
    map.extend(texts.iter().map(|text| (hash_hex(text), text.clone())));
    let server = serve(map);
    let file = dir.file("file", "as it was");
    for text in &texts {
        let root = hash_hex(text);
        let told = format!("psync: read root {root}: it is the hash of no root block\n");
        let out = get(&[&server], &root).run().fails(2, &told);
        assert_eq!(out.stdout, b"");
        for words in [&["-o"][..], &["--in-place", "-o"]] {
            let run = get(&[&server], &root).args(words).arg(&file);
            assert_eq!(run.run().fails(2, &told).stdout, b"");
            assert_eq!(fs::read(&file).unwrap(), b"as it was");
            assert!(!part(&file).exists());
        }
    }
    let asked: BTreeSet<_> = server.asked().into_iter().collect();
    assert!(asked.is_subset(&texts.iter().map(|text| hash_hex(text)).collect()));
}

#[test]
fn a_root_that_nobody_has_is_missing() {
    let (dir, rooted) = (TempDir::new(), sample());
    // More than a block is none, whatever its hash.
    let long = vec![b'x'; BLOCK_SIZE + 1];
    let mut map = rooted.map();
    map.insert(hash_hex(&long), long.clone());
    let server = serve(map);
    let file = dir.join("file");
    for root in [hash_hex(b"nobody's"), hash_hex(&long)] {
        let told = format!(
            "psync: get {root}: its root block could not be had; the same command later goes on from here\n"
        );
        for run in [
            get(&[&server], &root),
            get(&[&server], &root).arg("-o").arg(&file),
            get(&[], &root),
        ] {
            let out = run.run().fails_naming(3, &[&told]);
            assert!(out.stdout.is_empty() && dir.names().is_empty(), "{out}");
        }
    }
}

/// A list, or a file under it, that is not as the root says: what it is, the root with it, and what is
/// said after `psync: `, where `ROOT` stands for the root.
fn wrong_lists() -> Vec<(&'static str, Rooted, &'static str)> {
    const NO_FIT: &str = "read root ROOT: its hashes do not fit its size\n";
    let one = Rooted::new(&random(61 * BLOCK_SIZE, 3));
    let list = String::from_utf8(one.levels[1].clone()).unwrap();
    let with = |text: Vec<u8>| Rooted::over(one.bytes().len(), vec![one.bytes().to_vec(), text]);
    let first = &list[..64];
    let lists = [
        ("cut", list[..list.len() - 1].to_owned(), NO_FIT),
        ("a line less", list[..list.len() - 65].to_owned(), NO_FIT),
        ("a line more", format!("{list}{first}\n"), NO_FIT),
        ("CRLF", list.replace('\n', "\r\n"), NO_FIT),
        ("padded", format!("{list}\n"), NO_FIT),
        ("another root", one.text.clone(), NO_FIT),
        (
            "a line of 63",
            list.replacen(first, &format!("{}\r", &first[..63]), 1),
            "read hashlist ROOT:1: 63 characters",
        ),
        (
            "upper case",
            list.replacen(first, &"A".repeat(64), 1),
            "read hashlist ROOT:1: upper-case 'A' in column 1",
        ),
        (
            "no digits",
            list.replacen(first, &"g".repeat(64), 1),
            "read hashlist ROOT:1: 'g' in column 1",
        ),
    ];
    let mut all: Vec<_> = lists
        .into_iter()
        .map(|(what, text, told)| (what, with(text.into_bytes()), told))
        .collect();
    all.push(("garbage", with(random(list.len(), 5)), NO_FIT));
    all.push(("of zeros", with(vec![0; BLOCK_SIZE]), NO_FIT));
    // As many bytes as fit the list, but not as the file has.
    let size = one.bytes().len();
    for (what, size, told) in [
        (
            "a last block too long",
            size - 1,
            "read root ROOT: block 61 has 4096 bytes, which does not fit its size\n",
        ),
        (
            "a last block much too long",
            size - 4095,
            "read root ROOT: block 61 has 4096 bytes, which does not fit its size\n",
        ),
    ] {
        all.push((what, Rooted::over(size, one.levels.clone()), told));
    }
    let short = Rooted::new(&one.bytes()[..60 * BLOCK_SIZE + 5]);
    all.push((
        "a last block too short",
        Rooted::over(size, short.levels),
        "read root ROOT: block 61 has 5 bytes, which does not fit its size\n",
    ));
    // Only the second block of a list, and a list of lists.
    let more = sample();
    let mut text = more.levels[1].clone();
    text[BLOCK_SIZE..2 * BLOCK_SIZE].copy_from_slice(&random(BLOCK_SIZE, 5));
    all.push((
        "garbage within",
        Rooted::over(more.bytes().len(), vec![more.bytes().to_vec(), text]),
        NO_FIT,
    ));
    let deep = Rooted::new(&cheap(TWO_DEEP * BLOCK_SIZE + 1));
    let mut text = deep.levels[2].clone();
    text[0] = b'\n';
    let levels = vec![deep.levels[0].clone(), deep.levels[1].clone(), text];
    all.push((
        "a list of lists",
        Rooted::over(deep.bytes().len(), levels),
        NO_FIT,
    ));
    // The list where the list of it is due.
    let mut levels = deep.levels.clone();
    levels[2] = deep.levels[1][..deep.levels[2].len()].to_vec();
    all.push((
        "a level left out",
        Rooted::over(deep.bytes().len(), levels),
        NO_FIT,
    ));
    all
}

#[test]
fn a_list_that_does_not_fit_its_root_is_refused_and_nothing_wrong_is_written() {
    let dir = TempDir::new();
    for (what, rooted, told) in wrong_lists() {
        let file = dir.file("file", "as it was");
        let told = format!("psync: {}", told.replace("ROOT", &rooted.root));
        // The file's blocks at hand or not; the list's always from the server.
        let blocks = dir.join("blocks");
        store(&blocks, &block_map(rooted.bytes()));
        let server = serve(rooted.above());
        let all = serve(rooted.map());
        let run = || get(&[&server], &rooted.root).arg("-d").arg(&blocks);
        let check = |out: Output| {
            let out = out.fails_naming(2, &[&told]);
            assert_eq!(out.stderr.lines().count(), 1, "{what}: {out}");
            assert!(rooted.bytes().starts_with(&out.stdout), "{what}: {out}");
        };
        check(run().run());
        check(get(&[&all], &rooted.root).run());
        check(run().arg("-o").arg(&file).run());
        assert_eq!(fs::read(&file).unwrap(), b"as it was", "{what}");
        let _ = fs::remove_file(part(&file));
        fs::remove_dir_all(&blocks).unwrap();
    }
}

/// The message, and how far the file is known without it.
#[test]
fn a_missing_block_of_the_list_ends_the_file_where_it_is_known_no_further() {
    let rooted = sample();
    for (n, known) in [(0, 0), (1, 63), (2, 126), (3, 189)] {
        let mut map = rooted.map();
        map.remove(&rooted.hash(1, n));
        let server = serve(map);
        let told = format!(
            "psync: get {}: block {} of its list could not be had; the same command later goes on from here\n",
            rooted.root,
            rooted.hash(1, n)
        );
        for jobs in ["1", "8"] {
            let out = get(&[&server], &rooted.root).args(["-j", jobs]).run();
            let out = out.fails_naming(3, &[&told]);
            assert!(out.stderr.starts_with(&told), "{out}");
            assert!(out.stdout == rooted.bytes()[..known * BLOCK_SIZE], "{n}");
        }
    }
}

#[test]
fn blocks_that_a_missing_list_would_name_are_missing_in_the_sum() {
    let rooted = sample();
    let count = blocks(rooted.bytes()).len();
    for (gone, sum) in [
        (
            rooted.hash(1, 2),
            format!("blocks={count} local=0 fetched=126 missing={}", count - 126),
        ),
        (
            rooted.root.clone(),
            "blocks=0 local=0 fetched=0 missing=0".to_owned(),
        ),
    ] {
        let mut map = rooted.map();
        map.remove(&gone);
        let out = get(&[&serve(map)], &rooted.root)
            .args(["--stats", "-v"])
            .run();
        let out = out.fails_naming(
            3,
            &[
                "the same command later goes on from here",
                "\npsync: ask http://",
            ],
        );
        assert!(
            out.stderr.lines().last().unwrap().starts_with(&sum),
            "{out}"
        );
    }
}

#[test]
fn a_missing_list_of_lists_is_named_and_what_is_known_is_written() {
    let rooted = Rooted::new(&cheap((TWO_DEEP + 400) * BLOCK_SIZE));
    assert_eq!(blocks(&rooted.levels[2]).len(), 2);
    for (n, known) in [(0, 0), (1, 63 * BLOCK_SIZE / 65)] {
        let (dir, hash) = (TempDir::new(), rooted.hash(2, n));
        let mut map = rooted.map();
        map.remove(&hash);
        store(&dir, &map);
        let out = get(&[&Server::start(&dir)], &rooted.root).run();
        let out = out.fails_naming(3, &[&format!("block {hash} of its list could not be had")]);
        assert!(out.stdout == rooted.bytes()[..known * BLOCK_SIZE], "{n}");
    }
}

#[test]
fn after_a_missing_list_block_the_same_command_asks_for_what_is_missing() {
    // With --peers the list is fetched first, to be gone through in an order of its own.
    for option in [None, Some("--peers")] {
        let (dir, rooted) = (TempDir::new(), sample());
        let file = dir.join("file");
        let mut map = rooted.map();
        map.remove(&rooted.hash(1, 2));
        let first = serve(map);
        let run = get(&[&first], &rooted.root).arg("-o").arg(&file);
        let out = run.args(option).arg("--stats").run();
        let sum = format!(
            " fetched=126 missing={} ",
            blocks(rooted.bytes()).len() - 126
        );
        out.fails_naming(3, &[&rooted.hash(1, 2), &sum]);
        let kept = fs::read(part(&file)).unwrap();
        assert!(!file.exists() && kept == rooted.bytes()[..126 * BLOCK_SIZE]);
        let second = serve(rooted.map());
        let run = get(&[&second], &rooted.root).arg("-o").arg(&file);
        assert_eq!(run.args(option).run().ok().stdout, b"");
        assert!(fs::read(&file).unwrap() == rooted.bytes());
        asks_for_what_is_missing(&rooted, &second, &kept);
    }
}

#[test]
fn without_a_place_for_temporary_files_the_order_is_the_list_s() {
    let (dir, rooted) = (TempDir::new(), sample());
    let (file, server) = (dir.join("file"), serve(rooted.map()));
    let run = get(&[&server], &rooted.root)
        .args(["--peers", "-o"])
        .arg(&file);
    run.env("TMPDIR", dir.join("missing")).run().ok();
    assert!(fs::read(&file).unwrap() == rooted.bytes());
}

/// Of the file each block once that was not in its place, of its lists each that cannot be told from
/// what was.
#[track_caller]
fn asks_for_what_is_missing(rooted: &Rooted, server: &HostileServer, kept: &[u8]) {
    for level in 0..rooted.levels.len() {
        let lacks = lacks(rooted, level, kept);
        let (asked, count) = asked_of(server, &block_map(&rooted.levels[level]));
        assert_eq!((&asked, count), (&lacks, lacks.len()), "level {level}");
    }
}

#[test]
fn after_kill_9_the_same_command_asks_for_what_is_missing() {
    let (dir, rooted) = (TempDir::new(), Rooted::new(&random(700 * BLOCK_SIZE, 62)));
    let file = dir.join("file");
    let (map, above) = (rooted.map(), rooted.above());
    let given = block_map(&rooted.bytes()[..400 * BLOCK_SIZE]);
    let stuck = HostileServer::http(move |request| {
        let reply = Reply::honest(&map, request);
        if above.contains_key(request.hash()) || given.contains_key(request.hash()) {
            reply
        } else {
            Reply::raw("").then_silence()
        }
    });
    let run = get(&[&stuck], &rooted.root).arg("-o").arg(&file).start();
    let whole = |bytes: Vec<u8>| lies_in(&rooted, 1, 2, &bytes);
    wait_until("much of the file is there", || {
        fs::read(part(&file)).is_ok_and(whole)
    });
    run.kill();
    let kept = fs::read(part(&file)).unwrap();
    let server = serve(rooted.map());
    get(&[&server], &rooted.root)
        .arg("-o")
        .arg(&file)
        .run()
        .ok();
    assert!(fs::read(&file).unwrap() == rooted.bytes());
    asks_for_what_is_missing(&rooted, &server, &kept);
}

/// It is this machine that fails, not the list, which ends in the middle of a line then.
#[test]
fn a_list_that_cannot_be_handed_on_is_told_as_that() {
    let (rooted, dir) = (sample(), TempDir::new());
    let blocks = dir.join("b");
    store(&blocks, &rooted.map());
    let run = get(&[], &rooted.root).arg("-d").arg(&blocks);
    let run = run.arg("-o").arg(dir.join("out"));
    let words = [
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=write:error=ENOMEM:when=2",
    ];
    let told = "psync: write a pipe: Cannot allocate memory\n";
    run.under("strace", words).run().fails(1, told);
}

#[test]
fn a_file_that_is_already_right_costs_no_request() {
    for bytes in [Vec::new(), random(5, 1), random(200 * BLOCK_SIZE, 2)] {
        let (dir, rooted) = (TempDir::new(), Rooted::new(&bytes));
        let file = dir.file("file", &bytes);
        let server = serve(rooted.map());
        let inode = fs::metadata(&file).unwrap().ino();
        for words in [&["-o"][..], &["--in-place", "-o"]] {
            let out = get(&[&server], &rooted.root).args(words).arg(&file).run();
            assert_eq!(out.ok().stdout, b"");
        }
        assert_eq!(server.connections(), 0);
        assert_eq!(dir.names(), ["file"]);
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
        // One byte more, or less, is another file.
        fs::write(&file, [&bytes[..], b"x"].concat()).unwrap();
        get(&[&server], &rooted.root)
            .arg("-o")
            .arg(&file)
            .run()
            .ok();
        assert!(fs::read(&file).unwrap() == bytes);
        assert!(asked_of(&server, &block_map(&bytes)).1 <= 1);
    }
}

#[test]
fn lists_and_blocks_may_be_at_different_servers() {
    let (dir, rooted) = (TempDir::new(), sample());
    let half = |odd: bool| -> BlockMap {
        let all = rooted.map().into_iter().enumerate();
        let half = all.filter(|(n, _)| (n % 2 == 1) == odd);
        half.map(|(_, block)| block).collect()
    };
    let split = [
        (rooted.above(), block_map(rooted.bytes())),
        (block_map(rooted.bytes()), rooted.above()),
        (half(true), half(false)),
        (half(false), half(true)),
    ];
    for (n, (one, two)) in split.into_iter().enumerate() {
        for spread in [&[][..], &["--spread"]] {
            let (one, two) = (serve(one.clone()), HostileServer::psync(two.clone()));
            let run = get(&[&one, &two], &rooted.root).args(spread);
            assert!(run.run().ok().stdout == rooted.bytes(), "{n}");
        }
        // Or in the directory.
        let blocks = dir.join(n.to_string());
        store(&blocks, &one);
        let two = serve(two.clone());
        let run = get(&[&two], &rooted.root).arg("-d").arg(&blocks);
        assert!(run.run().ok().stdout == rooted.bytes(), "{n}");
        let (_, asked) = asked_of(&two, &one);
        assert_eq!(asked, 0);
    }
}

#[test]
fn a_server_that_lies_about_lists_is_given_up_and_never_believed() {
    let rooted = sample();
    for always in [true, false] {
        let (map, lists) = (rooted.map(), rooted.lists());
        let liar = HostileServer::http(move |request| {
            if always || lists.contains_key(request.hash()) {
                Reply::ok(format!("{A}\n").repeat(63))
            } else {
                Reply::honest(&map, request)
            }
        });
        let honest = serve(rooted.map());
        let run = get(&[&liar, &honest], &rooted.root).arg("-j").arg("1");
        assert!(run.run().ok().stdout == rooted.bytes(), "{always}");
        if always {
            // Besides the third, one for the file may be under way as one for the list is.
            assert!((3..=4).contains(&liar.requests().len()));
        }
        let out = get(&[&liar], &rooted.root)
            .run()
            .fails_naming(3, &["wrong bytes"]);
        assert_eq!(out.stdout, b"");
    }
}

#[test]
fn a_dead_server_costs_its_time_once() {
    let rooted = sample();
    let silent = HostileServer::start(|conn, _| conn.until_gone());
    let refusing = Refusing::new();
    let server = serve(rooted.map());
    let run = get(&[&silent, &refusing, &server], &rooted.root);
    let out = run.args(["-v", "--timeout", "1"]).run();
    assert!(out.status == 0 && out.stdout == rooted.bytes(), "{out}");
    assert_eq!(silent.connections(), 1);
    assert_eq!(out.stderr.matches("give up ").count(), 2, "{out}");
}

#[test]
fn rounds_are_for_lists_too() {
    let rooted = sample();
    let (map, refused) = (rooted.map(), Mutex::new(BTreeSet::new()));
    // The root block, and one of the list, at second asking.
    let late = [rooted.root.clone(), rooted.hash(1, 2)];
    let server = HostileServer::http(move |request| {
        let hash = request.hash().to_owned();
        if late.contains(&hash) && refused.lock().unwrap().insert(hash) {
            return Reply::status(503, "");
        }
        Reply::honest(&map, request)
    });
    let run = get(&[&server], &rooted.root).args(["--retry", "1"]);
    assert!(run.run().ok().stdout == rooted.bytes());
    let (map, root) = (rooted.map(), rooted.root.clone());
    let busy = HostileServer::http(move |request| match request.hash() == root {
        true => Reply::honest(&map, request),
        false => Reply::status(503, ""),
    });
    let out = get(&[&busy], &rooted.root).run();
    out.fails_naming(3, &[&rooted.hash(1, 0), "HTTP 503"]);
    // The root block, and blocks of the list until the server is given up.
    assert_eq!(busy.requests().len(), 4);
}

#[test]
fn what_is_kept_serves_the_next_box_by_the_root_alone() {
    let (dir, rooted) = (TempDir::new(), sample());
    let (one, two) = (dir.join("one"), dir.join("two"));
    let server = serve(rooted.map());
    let keep = |server: &dyn Display, dir: &Path| {
        let run = get(&[server], &rooted.root).arg("-k").arg("-d").arg(dir);
        assert!(run.run().ok().stdout == rooted.bytes());
        assert!(names(dir).iter().eq(rooted.map().keys()));
        assert_stored(dir, &names(dir).join("\n"));
    };
    keep(&server, &one);
    keep(&Server::start(&one), &two);
    // Nothing of it is asked for again.
    let asked = server.requests().len();
    keep(&server, &one);
    assert_eq!(server.requests().len(), asked);
}

/// Where most of the list comes from an older version it is kept all the same.
#[test]
fn lists_that_seeds_give_are_kept_too() {
    let (dir, rooted) = (TempDir::new(), sample());
    let mut old = rooted.bytes().to_vec();
    old[100 * BLOCK_SIZE] ^= 1;
    let (seed, kept) = (dir.file("old", old), dir.join("kept"));
    let server = serve(rooted.map());
    let run = get(&[&server], &rooted.root).arg("--seed").arg(seed);
    let run = run.arg("-k").arg("-d").arg(&kept).run();
    assert!(run.ok().stdout == rooted.bytes());
    for hash in rooted.above().keys() {
        assert!(kept.join(hash).exists(), "{hash}");
    }
}

/// One block in a hundred, in as many places: of the lists only what has changed is received too, which
/// is at most two blocks a place, and above it fewer still. So scattered a change costs about twice its
/// blocks; in long runs, a 60th more than them.
#[test]
fn an_update_costs_what_has_changed_of_file_and_list() {
    let old = random(16 << 20, 71);
    let changed = |places: usize, length: usize| {
        let mut new = old.clone();
        for place in 0..places {
            let start = (place * 4096 / places + 17) * BLOCK_SIZE;
            let end = start + length * BLOCK_SIZE;
            new[start..end].copy_from_slice(&random(length * BLOCK_SIZE, place as u64));
        }
        Rooted::new(&new)
    };
    let dir = TempDir::new();
    let seed = dir.file("old", &old);
    for (places, length, percent) in [(40, 1, 210), (2, 400, 115)] {
        let rooted = changed(places, length);
        let (blocks, file) = (dir.join("blocks"), dir.join("file"));
        store(&blocks, &rooted.map());
        let server = Server::start(&blocks);
        let lacking = (0..rooted.levels.len()).map(|level| lacks(&rooted, level, &old));
        let count: usize = lacking.map(|lacks| lacks.len()).sum();
        // Each with two bytes before it, in the answer to a run.
        let due = count * (BLOCK_SIZE + 2) + rooted.text.len();
        assert!(due <= places * length * BLOCK_SIZE * percent / 100, "{due}");
        let update = |words: &[&str], path: &Path| {
            let run = get(&[&server], &rooted.root).args(words).arg(path);
            let out = run.arg("--stats").run();
            let bytes = out.stat("bytes") as usize;
            assert!(out.status == 0 && bytes <= due, "{due}: {out}");
            out.stdout
        };
        assert!(update(&["--seed"], &seed) == rooted.bytes());
        // FILE itself is a seed.
        for words in [&["-o"][..], &["--in-place", "-o"]] {
            fs::write(&file, &old).unwrap();
            update(words, &file);
            assert!(fs::read(&file).unwrap() == rooted.bytes());
        }
        fs::remove_dir_all(&blocks).unwrap();
    }
}

#[test]
fn seeds_of_any_length_and_content_are_never_believed_wrongly() {
    let (dir, rooted) = (TempDir::new(), sample());
    let bytes = rooted.bytes();
    let longer = [bytes, &random(70 * BLOCK_SIZE, 5)].concat();
    let moved = [b"x", bytes].concat();
    for (what, seed, lists) in [
        ("the file", bytes, 0),
        ("longer", &longer, 0),
        ("shorter", &bytes[..130 * BLOCK_SIZE + 9], 2),
        ("a byte shorter", &bytes[..bytes.len() - 1], 1),
        ("moved", &moved, 4),
        ("its own list", &rooted.levels[1], 4),
        ("another's", &random(bytes.len(), 8), 4),
        ("a byte", b"x", 4),
        ("empty", b"", 4),
    ] {
        let server = serve(rooted.map());
        let seed = dir.file("seed", seed);
        let out = get(&[&server], &rooted.root).arg("--seed").arg(seed).run();
        assert!(out.ok().stdout == bytes, "{what}");
        assert_eq!(asked_of(&server, &rooted.lists()).1, lists, "{what}");
    }
}

#[test]
fn a_seed_that_changes_while_lists_are_told_from_it_is_never_believed() {
    let rooted = sample();
    for (what, change) in [
        ("another", random(rooted.bytes().len(), 9)),
        ("shorter", rooted.bytes()[..70 * BLOCK_SIZE].to_vec()),
        ("empty", Vec::new()),
    ] {
        let dir = TempDir::new();
        let mut old = rooted.bytes().to_vec();
        old[0] ^= 1;
        let seed = dir.file("seed", old);
        let (changed, map, path) = (AtomicBool::new(false), rooted.map(), seed.clone());
        // The root is there before any seed is read; what comes after it changes under way.
        let root = rooted.root.clone();
        let server = HostileServer::http(move |request| {
            if request.hash() != root && !changed.swap(true, SeqCst) {
                fs::write(&path, &change).unwrap();
            }
            Reply::honest(&map, request)
        });
        let out = get(&[&server], &rooted.root).arg("--seed").arg(seed).run();
        assert!(out.ok().stdout == rooted.bytes(), "{what}");
    }
}

#[test]
fn a_mirror_gives_blocks_of_the_file_and_is_asked_for_none_of_the_list() {
    let (dir, rooted) = (TempDir::new(), sample());
    let lists = serve(rooted.above());
    // It fails where a request has no range.
    let copy = mirror(rooted.bytes(), honest_mirror);
    let file = dir.join("file");
    let whole = |mirror: &HostileServer| format!("{}/file", mirror.url());
    let run = || get(&[&lists], &rooted.root).args(["-m", &whole(&copy)]);
    assert!(run().run().ok().stdout == rooted.bytes());
    run().arg("-o").arg(&file).run().ok();
    assert!(fs::read(&file).unwrap() == rooted.bytes());
    assert!(copy.targets().iter().all(|target| target == "/file"));
    // Nor where nobody else has it.
    let alone = mirror(rooted.bytes(), honest_mirror);
    let out = get(&[], &rooted.root).args(["-m", &whole(&alone)]).run();
    out.fails_naming(3, &["its root block could not be had"]);
    assert_eq!(alone.connections(), 0);
}

/// As `psync export --root > disk.root` leaves it: for FILE its root block is hardly meant.
#[test]
fn a_root_that_is_kept_in_a_file_is_not_taken_for_a_list() {
    let (dir, rooted) = (TempDir::new(), Rooted::new(b"abc"));
    let (kept, file) = (
        dir.file("disk.root", rooted.line()),
        dir.file("disk.img", "old"),
    );
    let blocks = dir.join("b");
    store(&blocks, &rooted.map());
    let server = serve(rooted.map());
    for words in [&["--in-place"][..], &["-d", "b"], &[]] {
        let run = psync!("get", server.url(), "-o", &file, &kept).args(words);
        let told = "disk.root: it holds a root, which is given itself: \"$(cat FILE)\"\n";
        run.cwd(&dir).run().fails_naming(2, &[told]);
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }
    // Whoever wants to see it may.
    let out = psync!("get", server.url(), &kept).run().ok();
    assert!(out.text().starts_with("psync root 1\n"));
}

#[test]
fn upper_case_is_a_file_name() {
    let (dir, server) = (TempDir::new(), HostileServer::honest(b"abc"));
    let name = A.to_uppercase();
    let run = || psync!("get", server.url(), &name).cwd(&dir);
    let told = format!("psync: read hashlist {name}: No such file or directory; ");
    let out = run().run();
    out.fails_naming(1, &[&told, "a root of 64 digits 0-9a-f\n"]);
    assert_eq!(server.connections(), 0);
    dir.file(&name, format!("{A}\n"));
    assert_eq!(run().run().ok().text(), "abc");
}

/// A file of zeros but for its last byte, by its root alone, to FILE: how much memory that takes, in KiB,
/// when all but the last block is there.
fn peak_of_zeros(size: usize, depth: usize) -> u64 {
    let (dir, last) = (TempDir::new(), hash_hex(b"x"));
    let zeros = hash_hex(&[0; BLOCK_SIZE]) + "\n";
    let list = format!("{}{last}\n", zeros.repeat(size / BLOCK_SIZE));
    let mut levels = vec![b"x".to_vec(), list.into_bytes()];
    while blocks(&levels[levels.len() - 1]).len() > 60 {
        levels.push(hashlist(&levels[levels.len() - 1]).into_bytes());
    }
    assert_eq!(levels.len(), depth + 1);
    let rooted = Rooted::over(size, levels);
    let (map, open) = (rooted.map(), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&open);
    let server = HostileServer::http(move |request| {
        if request.hashes().contains(&hash_hex(b"x")) {
            wait_until("the memory was looked at", || gate.load(SeqCst));
        }
        Reply::psync(&map, request)
    });
    let server = server.taking_runs();
    let file = dir.join("file");
    let run = get(&[&server], &rooted.root).arg("-o").arg(&file);
    let run = run.sh(MEMORY).start();
    wait_until("the last block is asked for", || {
        let requests = server.requests();
        let newest = requests.last();
        newest.is_some_and(|request| request.hashes().contains(&last))
    });
    let peak = peak_kib(run.pid());
    open.store(true, SeqCst);
    run.wait().ok();
    let made = fs::metadata(&file).unwrap();
    assert_eq!((made.len(), made.blocks() < 64), (size as u64, true));
    peak
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let peak = peak_of_zeros((128 << 20) + 1, 2);
    assert!(peak < 16 << 10, "{peak} KiB");
}

#[test]
#[ignore = "a gigabyte"]
fn slow_memory_does_not_grow_with_a_file_three_lists_deep() {
    let peak = peak_of_zeros((1 << 30) + 1, 3);
    assert!(peak < 16 << 10, "{peak} KiB");
}

#[test]
fn a_reader_that_stops_ends_it_quietly() {
    let (dir, rooted) = (
        TempDir::new(),
        Rooted::new(&cheap((TWO_DEEP + 1) * BLOCK_SIZE)),
    );
    store(&dir, &rooted.map());
    let server = Server::start(&dir);
    for taken in [0, 1, 100_000] {
        let (mut reader, writer) = io::pipe().unwrap();
        let run = get(&[&server], &rooted.root).stdout_to(writer).start();
        reader.read_exact(&mut vec![0; taken]).unwrap();
        drop(reader);
        run.wait().fails(1, "");
    }
}

/// The root says how long the file is before anything else is asked for.
#[test]
#[ignore = "a loop device"]
fn root_a_block_device_too_small_for_a_root_is_told_at_once() {
    let old = random(200 * BLOCK_SIZE + 512, 4);
    let device = match Loop::new(&old) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    for (tail, fits) in [(513, false), (BLOCK_SIZE, false), (512, true), (1, true)] {
        let rooted = Rooted::new(&random(200 * BLOCK_SIZE + tail, 5));
        let server = serve(rooted.map());
        let run = get(&[&server], &rooted.root).arg("-o").arg(&device.device);
        if fits {
            run.run().ok();
            assert!(device.read().starts_with(rooted.bytes()));
            continue;
        }
        let size = old.len();
        let told = format!(
            "psync: write {}: it has {size} bytes, too few for the file\n",
            device.device.display()
        );
        run.run().fails(1, &told);
        assert_eq!(server.asked(), [rooted.root]);
        assert!(device.read() == old);
    }
}

/// The last line of the list lies across two of its blocks, and is that of a longer block in the old file.
#[test]
fn a_longer_file_has_all_blocks_of_a_list_but_for_its_last_line() {
    let rooted = Rooted::new(&random(63 * BLOCK_SIZE + 1, 62));
    let dir = TempDir::new();
    let blocks = dir.join("blocks");
    let root = BlockMap::from([(rooted.root.clone(), rooted.text.clone().into_bytes())]);
    store(&blocks, &root);
    for options in [&[][..], &["--in-place"]] {
        let file = dir.file("file", [rooted.bytes(), &random(5000, 1)].concat());
        let run = get(&[], &rooted.root).arg("-d").arg(&blocks).args(options);
        run.arg("-o").arg(&file).run().ok();
        assert!(fs::read(&file).unwrap() == rooted.bytes(), "{options:?}");
    }
}
