//! The hashlist that `get` is given: every refusal of the grammar, before any server hears of it; what
//! is accepted; and the files, streams and sizes that a list comes as.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::thread;

use crate::support::*;

const A: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// Address space for lists of any length (KiB).
const MEMORY: &str = "ulimit -v 16384";

fn empty_warning(name: &str) -> String {
    format!(
        "psync: get {name}: the hashlist is empty, so the file is; a failed download of the list looks the same\n"
    )
}

/// The text of a list, and what is said of it after `NAME:`.
fn refusals() -> Vec<(Vec<u8>, &'static str)> {
    let due = [
        ("\n", "1: a blank line"),
        ("\r\n", "1: a blank line"),
        ("{A}\n\n{A}\n", "2: a blank line"),
        ("{A}\n{A}\n\n", "3: a blank line"),
        ("# list\n{A}\n", "1: '#' in column 1"),
        ("{A} # one\n", "1: byte 0x20 in column 65"),
        ("{A}\n{63}\n", "2: 63 characters"),
        ("{A}\n{63}", "2: 63 characters"),
        ("{A}0\n", "1: more than 64 characters"),
        ("{A}0", "1: more than 64 characters"),
        ("{A}{A}\n", "1: more than 64 characters"),
        ("{A} \n", "1: byte 0x20 in column 65"),
        (" {A}\n", "1: byte 0x20 in column 1"),
        ("{A}\t\n", "1: byte 0x09 in column 65"),
        ("{A}\r{A}\r", "1: byte 0x0d in column 65"),
        ("{A}\r\r\n", "1: byte 0x0d in column 65"),
        ("{A}  file\n", "1: byte 0x20 in column 65"),
        ("{63}\0\n", "1: byte 0x00 in column 64"),
        ("{A}\0\n", "1: byte 0x00 in column 65"),
        ("{A}\n\0", "2: byte 0x00 in column 1"),
        ("\u{feff}{A}\n", "1: a byte order mark"),
        ("{63}G\n", "1: 'G' in column 64"),
        ("{63}A\n", "1: upper-case 'A' in column 64"),
        ("<!DOCTYPE html>\n", "1: '<' in column 1"),
        ("-\n", "1: '-' in column 1"),
    ];
    let fill = |text: &str| {
        text.replace("{A}", A)
            .replace("{63}", &A[..63])
            .into_bytes()
    };
    let mut all: Vec<_> = due
        .into_iter()
        .map(|(text, why)| (fill(text), why))
        .collect();
    // Not UTF-8; UTF-16; packed; binary hashes.
    all.push((b"\xff\xfe\xfd\n".to_vec(), "1: byte 0xff in column 1"));
    all.push((
        [&A.as_bytes()[..62], b"\xc3\x28\n"].concat(),
        "1: byte 0xc3 in column 63",
    ));
    all.push((
        A.bytes().flat_map(|c| [c, 0]).collect(),
        "1: byte 0x00 in column 2",
    ));
    all.push((
        b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
        "1: byte 0x1f in column 1",
    ));
    all
}

#[test]
fn a_file_that_is_no_hashlist_is_refused_before_anything_else_happens() {
    let server = HostileServer::honest(b"abc");
    let dir = TempDir::new();
    for (text, why) in refusals() {
        let list = dir.file("list", &text);
        let due = "where a hash (64 characters 0-9a-f) is due\n";
        let stderr = format!("psync: read hashlist {}:{why} {due}", list.display());
        let out = psync!("get", server.url(), &list).run().fails(2, &stderr);
        assert!(out.stdout.is_empty(), "{out}");
    }
    // A valid beginning is no reason to begin.
    let list = dir.file("list", format!("{A}\n").repeat(100_000) + "x\n");
    let out = psync!("get", server.url(), &list).run();
    let out = out.fails_naming(2, &["list:100001: 'x' in column 1"]);
    assert!(out.stdout.is_empty());
    assert_eq!(server.connections(), 0);
}

/// A stream cannot be read twice: what came before the wrong line is there, and nothing else.
#[test]
fn a_stream_is_refused_where_it_goes_wrong() {
    let server = HostileServer::honest(b"abc");
    for (text, why) in refusals() {
        let out = psync!("get", server.url(), "-").stdin(&text).run();
        let out = out.fails_naming(2, &["psync: read hashlist -:", why]);
        let line: usize = why.split_once(':').unwrap().0.parse().unwrap();
        assert_eq!(out.text(), "abc".repeat(line - 1), "{why}");
    }
}

#[test]
fn every_list_of_the_protocol_is_accepted() {
    let sample = Sample::new(3);
    let server = sample.honest();
    let lf = fs::read_to_string(&sample.list).unwrap();
    for text in [
        lf.clone(),
        lf.replace('\n', "\r\n"),
        lf.trim_end().to_owned(),
        lf.trim_end().replace('\n', "\r\n"),
    ] {
        fs::write(&sample.list, &text).unwrap();
        sample.is_whole(sample.get(&[&server]).run());
        sample.is_whole(psync!("get", server.url(), "-").stdin(&text).run());
    }
}

#[test]
fn the_same_hash_may_occur_any_number_of_times() {
    let bytes = [
        vec![0; 50 * BLOCK_SIZE],
        random(BLOCK_SIZE, 3),
        vec![0; 2 * BLOCK_SIZE],
    ]
    .concat();
    let (dir, server) = (TempDir::new(), HostileServer::honest(&bytes));
    let list = dir.file("list", hashlist(&bytes));
    assert!(psync!("get", server.url(), &list).run().ok().stdout == bytes);
}

/// Any block may be short, as the list's own rules have it: the list decides, not the place in it.
#[test]
fn the_list_decides_where_short_blocks_stand() {
    let (dir, server) = (TempDir::new(), HostileServer::honest(b"abc"));
    let list = dir.file("list", format!("{A}\n{A}\n"));
    assert_eq!(
        psync!("get", server.url(), &list).run().ok().text(),
        "abcabc"
    );
}

#[test]
fn an_empty_list_is_an_empty_file_and_a_warning() {
    let (dir, server) = (TempDir::new(), HostileServer::honest(b"abc"));
    let list = dir.file("list", "");
    let name = list.to_str().unwrap();
    let get = || psync!("get", server.url());
    for (get, name) in [
        (get().arg(&list), name),
        (psync!("get").arg(&list), name),
        (get().arg("-").stdin(""), "-"),
        (get().arg("/dev/null"), "/dev/null"),
    ] {
        assert_eq!(get.run().warns(&empty_warning(name)).text(), "");
    }
    assert_eq!(get().arg("-q").arg(&list).run().ok().text(), "");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_list_may_come_from_a_fifo() {
    let sample = Sample::new(3);
    let fifo = sample.dir.join("fifo");
    tool!("mkfifo", &fifo).run().ok();
    let text = fs::read(&sample.list).unwrap();
    let writer = thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, text)
    });
    sample.is_whole(psync!("get", sample.honest().url(), &fifo).run());
    writer.join().unwrap().unwrap();
}

/// A block is written as soon as its line is there: a list may be made while it is resolved.
#[test]
fn a_stream_is_resolved_as_it_comes() {
    let sample = Sample::new(3);
    let server = sample.honest();
    let mut get = psync!("get", server.url(), "-")
        .stdin_from(Stdio::piped())
        .start();
    let mut list = get.stdin.take().unwrap();
    for n in 0..4 {
        writeln!(list, "{}", sample.hash(n)).unwrap();
        let due = sample.bytes.len().min((n + 1) * BLOCK_SIZE);
        get.wait_stdout(|out| out.len() == due);
    }
    drop(list);
    sample.is_whole(get.wait());
}

#[test]
fn one_line_of_100_megabytes_takes_no_memory() {
    let dir = TempDir::on_disk();
    let list = dir.join("list");
    // A file of NULs with no room on the disk.
    fs::File::create(&list)
        .unwrap()
        .set_len(100_000_000)
        .unwrap();
    let out = psync!("get", &list).sh(MEMORY).run();
    out.fails_naming(2, &["list:1: byte 0x00 in column 1"]);
    let mut get = psync!("get", "-")
        .stdin_from(Stdio::piped())
        .sh(MEMORY)
        .start();
    let mut line = get.stdin.take().unwrap();
    // It is refused long before the end, which closes the pipe.
    let taken = (0..100).take_while(|_| line.write_all(&[b'a'; 1_000_000]).is_ok());
    assert!(taken.count() < 100);
    get.wait()
        .fails_naming(2, &["psync: read hashlist -:1: more than 64 characters"]);
}

/// The list is checked wholly, then fails at its first block; it is never in memory.
#[test]
fn a_list_of_a_million_lines_takes_no_memory() {
    let dir = TempDir::on_disk();
    let list = dir.file("list", format!("{A}\n").repeat(1_000_000));
    let silent = HostileServer::http(|_| Reply::raw("").then_silence());
    let get = psync!("get", silent.url(), &list).sh(MEMORY).start();
    wait_until("the first block is asked for", || {
        silent.requests().len() == 1
    });
    assert!(peak_kib(get.pid()) < 12 * 1024);
    get.kill();
    let refusing = Refusing::new();
    let out = psync!("get", refusing.to_string(), &list).sh(MEMORY).run();
    let reason = format!("psync: ask http://{refusing}: Connection refused (given up)\n");
    out.fails(3, &format!(
        "psync: get {A}: block 1 of 1000000: no server gave it; the output ends before it\n{reason}"
    ));
}

#[test]
#[ignore = "slow"]
fn slow_a_list_of_a_million_lines_is_resolved() {
    let dir = TempDir::on_disk();
    write_blocks(dir.join("blocks"), b"abc");
    let list = dir.file("list", format!("{A}\n").repeat(1_000_000));
    let out = psync!("get", "-d", dir.join("blocks"), &list)
        .sh(MEMORY)
        .run()
        .ok();
    assert!(out.stdout == b"abc".repeat(1_000_000));
}

#[test]
fn a_list_that_cannot_be_read_is_named() {
    let (dir, server) = (TempDir::new(), HostileServer::honest(b"abc"));
    fs::create_dir(dir.join("directory")).unwrap();
    dir.file("file", "");
    let get = |name: &OsStr| psync!("get", server.url(), name).cwd(&dir).run();
    // The list may have been forgotten, or not be the last word.
    let missing =
        "No such file or directory; the last word is a file, or a root of 64 digits 0-9a-f";
    for (name, why) in [
        ("missing", missing),
        ("directory", "Is a directory"),
        ("file/below", "Not a directory"),
        ("two\nlines", missing),
    ] {
        let shown = name.replace('\n', "?");
        get(name.as_ref()).fails(1, &format!("psync: read hashlist {shown}: {why}\n"));
    }
    // Whatever its bytes are shown as, it is one line.
    let odd = OsStr::from_bytes(b"\xff\x1b[31m\n");
    let out = get(odd).fails_naming(
        1,
        &[
            "psync: read hashlist ",
            "?[31m?: No such file or directory; ",
        ],
    );
    assert_eq!(out.stderr.lines().count(), 1, "{out}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn names_of_lists_may_be_odd() {
    let sample = Sample::new(1);
    let server = sample.honest();
    let hash = sample.hash(0);
    for name in [
        OsStr::from_bytes(b"\xff\xfe"),
        OsStr::new("two\nlines"),
        OsStr::new("-dash"),
        OsStr::new("--"),
        OsStr::new("-"),
        OsStr::new(&hash),
        OsStr::new("a=b"),
        OsStr::new("host:80"),
    ] {
        fs::copy(&sample.list, sample.dir.join(name)).unwrap();
        let word = [b"./", name.as_bytes()].concat();
        sample.is_whole(
            psync!("get", server.url(), OsStr::from_bytes(&word))
                .cwd(&sample.dir)
                .run(),
        );
    }
    sample.is_whole(
        psync!("get", server.url(), "--", "-dash")
            .cwd(&sample.dir)
            .run(),
    );
}

/// It is a root: a file so named does not make it a list.
#[test]
fn a_hash_is_a_root_and_no_file_name() {
    let (dir, server) = (TempDir::new(), HostileServer::honest(b"abc"));
    dir.file(A, format!("{A}\n"));
    let out = psync!("get", server.url(), A).cwd(&dir).run();
    out.fails(
        2,
        &format!("psync: read root {A}: it is the hash of no root block\n"),
    );
    assert_eq!(server.targets(), [format!("/{A}")]);
}

/// A list that another program writes anew meanwhile must not end as a file cut short.
#[test]
fn a_list_that_changes_while_it_is_read_is_no_success() {
    // Longer than what is read ahead of it.
    let lines = 1000;
    let line = format!("{}\n", hash_hex(b"abc"));
    for change in [500, 999, 1001, 2000] {
        let dir = TempDir::new();
        let list = dir.file("list", line.repeat(lines));
        let changed = list.clone();
        let text = line.repeat(change);
        let server = HostileServer::http(move |request| {
            if request.nth == 0 {
                fs::write(&changed, &text).unwrap();
            }
            Reply::ok("abc")
        });
        let out = psync!("get", server.url(), &list).run();
        // Half a line, where it was caught at that.
        assert!(matches!(out.status, 1 | 2), "{out}");
        let told = "psync: read hashlist ";
        assert!(
            out.stderr.starts_with(told) && out.stderr.lines().count() == 1,
            "{out}"
        );
        assert!(out.stdout.len() <= lines * 3);
    }
}
