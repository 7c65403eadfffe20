//! The block directory under `export`: what is there is left alone, what is damaged put right; synced
//! before it is named; nothing left behind and nothing wrong, whatever is killed, and beside others
//! at work in the same directory.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use crate::support::*;

const MIB: usize = 1 << 20;

/// Inode and time of change of every file.
pub fn stamps(dir: &Path) -> Vec<(String, u64, i64, i64)> {
    let stamp = |name: String| {
        let file = fs::symlink_metadata(dir.join(&name)).unwrap();
        (name, file.ino(), file.ctime(), file.ctime_nsec())
    };
    names(dir).into_iter().map(stamp).collect()
}

#[test]
fn known_blocks_are_compared_and_not_rewritten() {
    let (dir, bytes) = (TempDir::new(), random(2 * MIB, 1));
    let blocks = dir.join("b");
    let export = || psync!("export", "-d", &blocks).stdin(&bytes);
    let list = export().run().ok();
    let before = stamps(&blocks);
    // Times are as coarse as the kernel's tick; the calls are told without it.
    let calls = "write,pwrite64,writev,?rename,?renameat,?renameat2,?link,linkat,openat,?unlink,unlinkat,?utime,utimensat";
    let (out, calls) = trace(calls, &[], export());
    assert!(out.ok().stdout == list.stdout);
    assert!(stamps(&blocks) == before);
    let count = |what: &dyn Fn(&Call) -> bool| calls.iter().filter(|call| what(call)).count();
    assert_eq!(
        count(&|call| call.is_rename() || call.is(&["link", "linkat"])),
        0
    );
    assert_eq!(
        count(&|call| call.text.ends_with("= 4096") && call.text.contains("write")),
        0
    );
    // One for the writer itself, and not one a block.
    assert!(count(&|call| call.text.contains("O_CREAT")) <= 1);
}

/// Such a look, where another thread makes names, costs more than the write.
#[test]
fn in_a_new_directory_nothing_is_looked_for() {
    let (dir, bytes) = (TempDir::new(), random(64 * BLOCK_SIZE, 3));
    let (blocks, list) = (dir.join("b"), hashlist(&bytes));
    let (out, calls) = trace(
        "?open,openat",
        &[],
        psync!("export", "-d", &blocks).stdin(&bytes),
    );
    assert!(out.ok().text() == list);
    let blocks = blocks.to_str().unwrap();
    let opened = |what: &str| {
        let under = |call: &&Call| call.paths().any(|path| path.starts_with(what));
        calls.iter().filter(under).count()
    };
    assert!(opened(&format!("{blocks}/.psync-")) > 64, "{calls:?}");
    let looked: usize = list
        .lines()
        .map(|hash| opened(&format!("{blocks}/{hash}")))
        .sum();
    assert_eq!(looked, 0);
    // Nor for what dead or failed writers left, where none did: there may be a million names.
    let is_list =
        |call: &&Call| call.text.contains("O_DIRECTORY") && call.paths().any(|path| path == blocks);
    assert_eq!(calls.iter().filter(is_list).count(), 1, "{calls:?}");
}

#[test]
fn damaged_blocks_are_put_right_and_the_others_left_alone() {
    let (dir, bytes) = (TempDir::new(), random(64 * BLOCK_SIZE, 2));
    let blocks = dir.join("b");
    write_blocks(&blocks, &bytes);
    let names = names(&blocks);
    let outside = dir.file("outside", "not a block");
    type Damage<'a> = &'a dyn Fn(&Path, Vec<u8>);
    let damages: [Damage; 9] = [
        &|path, mut block| {
            block[4095] ^= 1;
            fs::write(path, block).unwrap();
        },
        &|path, block| fs::write(path, &block[..4095]).unwrap(),
        &|path, block| fs::write(path, [&block[..], b"x"].concat()).unwrap(),
        &|path, _| fs::write(path, "").unwrap(),
        &|path, _| fs::write(path, vec![0; 10 * MIB]).unwrap(),
        &|path, _| fs::remove_file(path).unwrap(),
        &|path, _| {
            fs::remove_file(path).unwrap();
            tool!("mkfifo", path).run().ok();
        },
        &|path, _| {
            fs::remove_file(path).unwrap();
            symlink("/nonexistent/x", path).unwrap();
        },
        &|path, _| {
            fs::remove_file(path).unwrap();
            symlink(&outside, path).unwrap();
        },
    ];
    for (damage, name) in damages.iter().zip(&names) {
        let path = blocks.join(name);
        damage(&path, fs::read(&path).unwrap());
    }
    let whole = stamps(&blocks).split_off(damages.len());
    let out = psync!("export", "-d", &blocks).stdin(&bytes).run().ok();
    assert_eq!(out.text(), hashlist(&bytes));
    assert_stored(&blocks, out.text());
    assert!(stamps(&blocks).ends_with(&whole) && strangers(&blocks).is_empty());
    assert!(
        names
            .iter()
            .all(|name| fs::symlink_metadata(blocks.join(name)).unwrap().is_file())
    );
    assert_eq!(fs::read(outside).unwrap(), b"not a block");
}

#[test]
fn a_directory_under_a_blocks_name_is_one_clear_error() {
    let (dir, bytes) = (TempDir::new(), random(8 * BLOCK_SIZE, 3));
    let blocks = dir.join("b");
    let name = hash_hex(&bytes[..BLOCK_SIZE]);
    fs::create_dir_all(blocks.join(&name).join("somebody's")).unwrap();
    let out = psync!("export", "-d", &blocks).stdin(&bytes).run();
    let path = blocks.join(&name);
    let message = format!("psync: put in place {}: Is a directory\n", path.display());
    let out = out.fails(1, &message);
    assert!(!out.text().contains(&name));
    assert!(path.join("somebody's").is_dir());
    assert_eq!(strangers(&blocks), [""; 0]);
}

#[test]
fn a_place_that_is_no_directory_is_one_clear_error() {
    let dir = TempDir::new();
    let file = dir.file("file", "x");
    let at = |path: &Path| psync!("export", "-d", path).stdin("x").run();
    let told = |path: &Path, cause| format!("psync: create {}: {cause}\n", path.display());
    at(&file).fails(1, &told(&file, "Not a directory"));
    at(&file.join("x")).fails(1, &told(&file.join("x"), "Not a directory"));
    let long = dir.join("x".repeat(300));
    at(&long).fails(1, &told(&long, "File name too long"));
    let link = dir.join("link");
    symlink("/nonexistent/x", &link).unwrap();
    at(&link).fails_naming(1, &["psync: create ", "link: "]);
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_directory_that_refuses_writing_is_one_clear_error() {
    let dir = TempDir::new();
    let blocks = dir.join("b");
    fs::create_dir(&blocks).unwrap();
    for (mode, action) in [
        ("555", "create"),
        ("333", "open block directory"),
        ("000", ""),
    ] {
        tool!("chmod", mode, &blocks).run().ok();
        let out = psync!("export", "-d", &blocks).stdin("x").powerless().run();
        let place = blocks.display().to_string();
        let out = out.fails_naming(1, &["psync: ", action, &place, "Permission denied\n"]);
        assert_eq!(
            (out.stdout.as_slice(), out.stderr.lines().count()),
            (&b""[..], 1),
            "{out}"
        );
    }
    // Nor can one be made in it.
    tool!("chmod", "555", &blocks).run().ok();
    let sub = blocks.join("sub");
    let out = psync!("export", "-d", &sub).stdin("x").powerless().run();
    out.fails(
        1,
        &format!("psync: create {}: Permission denied\n", sub.display()),
    );
}

/// Blocks of plain text, so that a trace of their writing stays small.
fn legible(blocks: usize) -> Vec<u8> {
    (0..blocks)
        .flat_map(|n| hash_hex(&n.to_le_bytes()).repeat(64).into_bytes())
        .collect()
}

#[test]
fn a_block_is_synced_before_it_gets_its_name_and_named_before_its_line_is_printed() {
    are_synced_and_named_before_they_are_printed(false);
}

/// The lists' blocks too, which have no lines, and all of it before the root.
#[test]
fn all_that_is_under_a_root_is_synced_and_named_before_it_is_printed() {
    are_synced_and_named_before_they_are_printed(true);
}

fn are_synced_and_named_before_they_are_printed(root: bool) {
    let dir = TempDir::new();
    // More than one batch; with a root each block has to do with its one line.
    let bytes = legible(if root { 2 } else { 17 } * MIB / BLOCK_SIZE);
    let list = dir.join("list");
    let run = psync!("export", "-d", dir.join("b")).stdin(&bytes);
    let run = run.args(root.then_some("--root"));
    let run = run.stdout_to(File::create(&list).unwrap());
    let rooted = Rooted::new(&bytes);
    let (text, blocks) = match root {
        true => (rooted.line(), rooted.map()),
        false => (hashlist(&bytes), block_map(&bytes)),
    };
    let calls = "write,?rename,?renameat,?renameat2,syncfs,fsync,fdatasync,?sync";
    let (out, calls) = trace(calls, &["-s", "9999999"], run);
    out.ok();
    assert!(fs::read_to_string(&list).unwrap() == text);

    let (named, printed) = names_and_lines(&calls, list.to_str().unwrap());
    assert_eq!(
        (named.len(), printed.len()),
        (blocks.len(), text.lines().count())
    );
    let syncs: Vec<_> = calls.iter().filter(|call| call.is_sync()).collect();
    for (hash, line) in printed {
        // A root's line is that of all blocks.
        let names: Vec<&Call> = match root {
            true => named.values().copied().collect(),
            false => vec![named[hash]],
        };
        for name in names {
            // Without a sync after it, the name itself may be gone.
            let synced = syncs
                .iter()
                .any(|sync| name.end < sync.begin && sync.end < line.begin);
            assert!(synced, "{hash}");
        }
    }
    assert!(syncs.len() <= 8, "a sync is dear: {}", syncs.len());
}

/// By hash, the rename that gives a block its name, and the first write of its line to `list`. Fails
/// where a file was not synced between its writing and its rename.
#[track_caller]
fn names_and_lines<'c>(
    calls: &'c [Call],
    list: &str,
) -> (HashMap<&'c str, &'c Call>, HashMap<&'c str, &'c Call>) {
    let (mut written, mut named, mut printed) = (HashMap::new(), HashMap::new(), HashMap::new());
    for call in calls {
        let mut paths = call.paths();
        if call.is_rename() {
            let (from, to) = (paths.next().unwrap(), paths.next().unwrap());
            let content: &Call = written[from];
            let is_between = |sync: &Call| {
                sync.is(&["syncfs"]) && content.end < sync.begin && sync.end < call.begin
            };
            assert!(calls.iter().any(is_between), "{to}");
            named.insert(to.rsplit('/').next().unwrap(), call);
        } else if call.is(&["write"]) {
            let path = paths.next().unwrap();
            if path == list {
                let text = call.text.split('"').nth(1).unwrap();
                for hash in text.split("\\n").filter(|hash| hash.len() == 64) {
                    printed.entry(hash).or_insert(call);
                }
            } else {
                written.insert(path, call);
            }
        }
    }
    (named, printed)
}

#[test]
fn no_sync_leaves_it_to_the_system() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 5));
    let calls = "syncfs,fsync,fdatasync,?sync,sync_file_range,msync";
    for (words, syncs) in [(&[][..], true), (&["--no-sync"], false)] {
        let blocks = dir.join(words.len().to_string());
        let run = psync!("export", "-d", &blocks).args(words).stdin(&bytes);
        let (out, calls) = trace(calls, &[], run);
        assert_stored(&blocks, out.ok().text());
        assert_eq!(!calls.is_empty(), syncs, "{words:?}: {calls:?}");
    }
}

#[test]
fn a_block_that_was_there_is_synced_too_before_its_line_is_printed() {
    // Whoever put it there may not have: --no-sync, rsync, another export at work this moment.
    let (dir, bytes) = (TempDir::new(), random(MIB, 23));
    let (blocks, list) = (dir.join("b"), dir.join("list"));
    write_blocks(&blocks, &bytes);
    let run = psync!("export", "-d", &blocks).stdin(&bytes);
    let run = run.stdout_to(File::create(&list).unwrap());
    let (out, calls) = trace("write,syncfs,fsync", &[], run);
    out.ok();
    let printed = |call: &&Call| call.is(&["write"]) && call.paths().next() == list.to_str();
    let first = calls.iter().find(printed).unwrap();
    assert!(
        calls
            .iter()
            .any(|call| call.is(&["syncfs"]) && call.end < first.begin)
    );
}

/// Whatever is named by a hash is that block of `bytes`, or absent.
fn assert_nothing_wrong(dir: &Path, bytes: &[u8]) {
    let map = block_map(bytes);
    for name in names(dir).iter().filter(|name| name.len() == 64) {
        assert!(fs::read(dir.join(name)).unwrap() == map[name], "{name}");
    }
}

/// Exports the same again after a kill: completes, and clears up after the dead.
fn assert_goes_on(dir: &Path, bytes: &[u8]) {
    let out = psync!("export", "-d", dir).stdin(bytes).run().ok();
    assert!(out.text() == hashlist(bytes));
    assert_stored(dir, out.text());
    assert_eq!(strangers(dir), [""; 0]);
}

#[test]
fn killed_at_any_system_call_it_leaves_nothing_wrong_and_the_next_completes() {
    let bytes = random(2 * MIB + 9, 6);
    let list = hashlist(&bytes);
    let mut killed = 0;
    // The first opens are the loader's and the search for a free writer's name.
    let points = [
        ("flock", &[1][..]),
        ("openat", &[66, 70, 71, 72, 90, 140]),
        ("write", &[1, 2, 3, 50, 120]),
        ("syncfs", &[1]),
        ("fsync", &[1]),
        ("?rename,?renameat,?renameat2", &[1, 2, 100, 200]),
        ("?unlink,unlinkat", &[1]),
        ("exit_group", &[1]),
    ];
    for (call, times) in points {
        for time in times {
            let dir = TempDir::new();
            let blocks = dir.join("b");
            let inject = format!("inject={call}:signal=KILL:when={time}");
            let run = psync!("export", "-d", &blocks).stdin(&bytes);
            let (out, _) = trace(call, &["-e", &inject], run);
            killed += u32::from(out.status == 137);
            assert!(matches!(out.status, 0 | 137), "{call} {time}: {out}");
            assert!(list.as_bytes().starts_with(&out.stdout));
            if blocks.exists() {
                assert_stored(&blocks, out.text());
                assert_nothing_wrong(&blocks, &bytes);
            }
            assert_goes_on(&blocks, &bytes);
        }
    }
    // Which thread makes which call is psync's own affair; most of these points exist however it works.
    assert!(killed >= 15, "{killed}");
}

#[test]
fn killed_after_any_amount_of_input_the_same_command_goes_on() {
    let bytes = random(36 * MIB, 7);
    let list = hashlist(&bytes);
    let dir = TempDir::new();
    let blocks = dir.join("b");
    // One after the other in one directory: each meets what the one before left.
    for fed in [
        0,
        1,
        300_000,
        MIB,
        5 * MIB,
        16 * MIB + 1,
        17 * MIB,
        33 * MIB,
        36 * MIB,
    ] {
        let mut run = psync!("export", "-d", &blocks)
            .stdin_from(Stdio::piped())
            .start();
        run.stdin
            .as_mut()
            .unwrap()
            .write_all(&bytes[..fed])
            .unwrap();
        let out = run.kill();
        assert!(list.as_bytes().starts_with(&out.stdout));
        if blocks.exists() {
            assert_stored(&blocks, out.text());
            assert_nothing_wrong(&blocks, &bytes);
        }
    }
    assert_goes_on(&blocks, &bytes);
}

#[test]
fn whatever_the_disk_refuses_is_told_and_cleared_up() {
    let bytes = random(3 * MIB, 20);
    for (call, error, when, action, cause) in [
        ("syncfs", "EIO", 1, "sync", "Input/output error"),
        (
            "syncfs",
            "ENOSPC",
            1,
            "sync",
            "No space left on device (see df); make room",
        ),
        ("fsync", "EIO", 1, "sync", "Input/output error"),
        (
            "?rename,?renameat,?renameat2",
            "EIO",
            1,
            "put in place",
            "Input/output error",
        ),
        (
            "?rename,?renameat,?renameat2",
            "ENOSPC",
            150,
            "put in place",
            "No space left on device: the directory is full",
        ),
        (
            "?open,openat",
            "ENOSPC",
            60,
            "create",
            "No space left on device: the directory is full",
        ),
        (
            "write",
            "EDQUOT",
            1,
            "write",
            "Disk quota exceeded (see quota); make room and run the same command again",
        ),
        (
            "write",
            "ENOSPC",
            99,
            "write",
            "No space left on device (see df); make room",
        ),
    ] {
        let dir = TempDir::new();
        let blocks = dir.join("b");
        let inject = format!("inject={call}:error={error}:when={when}");
        let run = psync!("export", "-d", &blocks).stdin(&bytes);
        let (out, _) = trace(call, &["-e", &inject], run);
        let out = out.fails_naming(
            1,
            &[
                &format!("psync: {action} "),
                cause,
                &blocks.display().to_string(),
            ],
        );
        // All of it is one batch, so none of its lines may be out.
        assert_eq!((out.text(), out.stderr.lines().count()), ("", 1));
        assert_nothing_wrong(&blocks, &bytes);
        assert_eq!(strangers(&blocks), [""; 0], "{call}");
        assert_goes_on(&blocks, &bytes);
    }
}

#[test]
fn a_sweep_that_is_killed_is_taken_up_by_the_next() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 21));
    let blocks = dir.join("b");
    busy_writer(&blocks, &bytes).kill();
    for when in [1, 20, 1] {
        let inject = format!("inject=?unlink,unlinkat:signal=KILL:when={when}");
        let run = psync!("export", "-d", &blocks).stdin(&bytes);
        let (out, _) = trace("?unlink,unlinkat", &["-e", &inject], run);
        assert_eq!(out.status, 137);
    }
    assert_goes_on(&blocks, &bytes);
}

/// Whose names it has taken over: they must not be given up with what lies under them.
#[test]
fn a_sweep_that_fails_is_taken_up_by_the_next() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 24));
    let blocks = dir.join("b");
    busy_writer(&blocks, &bytes).kill();
    let run = psync!("export", "-d", &blocks).stdin(&bytes);
    let inject = ["-e", "inject=getdents64:error=EIO:when=1"];
    let (out, _) = trace("getdents64", &inject, run);
    out.fails_naming(1, &["psync: read block directory "]);
    assert_goes_on(&blocks, &bytes);
}

#[test]
fn where_there_are_no_locks_it_says_so_and_leaves_nothing() {
    let (dir, bytes) = (TempDir::new(), random(3 * BLOCK_SIZE, 22));
    let blocks = dir.join("b");
    let run = psync!("export", "-d", &blocks).stdin(&bytes);
    let (out, _) = trace("flock", &["-e", "inject=flock:error=ENOLCK"], run);
    let told = format!(
        "psync: lock {}/.psync-0: No locks available\n",
        blocks.display()
    );
    out.fails(1, &told);
    assert_eq!(names(&blocks), [""; 0]);
}

#[test]
fn a_directory_that_is_gone_is_told_as_that() {
    let gone = TempDir::new();
    let run = psync!("export", "-d", ".").stdin("x").cwd(&*gone);
    let out = run.sh(&format!("rmdir '{}'", gone.display())).run();
    out.fails_naming(
        1,
        &["psync: create ./.psync-0: No such file or directory\n"],
    );
}

#[test]
fn a_block_that_may_not_be_read_is_put_right() {
    let (dir, bytes) = (TempDir::new(), random(3 * BLOCK_SIZE, 22));
    let blocks = dir.join("b");
    let list = write_blocks(&blocks, &bytes);
    let path = blocks.join(&list[..64]);
    tool!("chmod", "000", &path).run().ok();
    let run = psync!("export", "-d", &blocks).stdin(&bytes).powerless();
    assert_eq!(run.run().ok().text(), list);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o444, 0o444);
}

/// An export that has taken `bytes`, written blocks of it, and waits for more.
pub fn busy_writer(blocks: &Path, bytes: &[u8]) -> Running {
    let written = || {
        let is_block =
            |name: &String| fs::metadata(blocks.join(name)).is_ok_and(|file| file.len() == 4096);
        if blocks.exists() {
            names(blocks).iter().filter(|name| is_block(name)).count()
        } else {
            0
        }
    };
    let before = written();
    let mut run = psync!("export", "-d", blocks)
        .stdin_from(Stdio::piped())
        .start();
    run.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    wait_until("blocks are written", || written() >= before + 64);
    run
}

#[test]
fn a_live_writers_temporaries_are_not_swept_and_a_dead_ones_are() {
    let dir = TempDir::new();
    let blocks = dir.join("b");
    let (slow, dead, other) = (random(MIB, 8), random(MIB, 9), random(MIB, 10));
    let mut live = busy_writer(&blocks, &slow);
    busy_writer(&blocks, &dead).kill();
    let out = psync!("export", "-d", &blocks).stdin(&other).run().ok();
    assert_stored(&blocks, out.text());
    live.stdin.as_mut().unwrap().write_all(&slow).unwrap();
    let out = live.wait().ok();
    assert!(out.text() == hashlist(&slow.repeat(2)));
    assert_stored(&blocks, out.text());
    assert_eq!(strangers(&blocks), [""; 0]);
}

#[test]
fn any_number_of_dead_writers_is_cleared_up_after() {
    for dead in [1, 5, 63, 64] {
        let (dir, bytes) = (TempDir::new(), random(MIB, 11));
        // As psync leaves them when killed; their form is no promise, so one is looked at first.
        let blocks = dir.join("b");
        busy_writer(&blocks, &bytes).kill();
        assert!(
            strangers(&blocks).contains(&".psync-0".to_owned()),
            "the form has changed"
        );
        for n in 0..dead {
            File::create(blocks.join(format!(".psync-{n}"))).unwrap();
            fs::write(blocks.join(format!(".psync-{n}-{}", n * 7)), "half").unwrap();
        }
        assert_goes_on(&blocks, &bytes);
    }
}

/// As many as README.md says. The test stands for them: each writer holds the lock of a file so named.
#[test]
fn sixty_four_writers_at_once_are_the_most() {
    let dir = TempDir::new();
    let blocks = dir.join("b");
    fs::create_dir(&blocks).unwrap();
    let writer = |n| {
        let file = File::create(blocks.join(format!(".psync-{n}"))).unwrap();
        file.lock().unwrap();
        file
    };
    let mut writers: Vec<_> = (0..64).map(writer).collect();
    let export = || psync!("export", "-d", &blocks).stdin("x").run();
    let told = format!(
        "psync: write to {}: 64 writers are at work in it\n",
        blocks.display()
    );
    assert_eq!(export().fails(1, &told).stdout, b"");
    assert_eq!(names(&blocks).len(), 64);
    drop(writers.pop());
    // A process that another test has just forked may still have it.
    let last = File::open(blocks.join(".psync-63")).unwrap();
    wait_until("its lock is free", || last.try_lock().is_ok());
    drop(last);
    assert_stored(&blocks, export().ok().text());
    assert_eq!(strangers(&blocks).len(), 63);
}

#[test]
fn files_of_others_are_left_alone() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 12));
    let blocks = dir.join("b");
    // Somebody dead, so that there is a sweep.
    busy_writer(&blocks, &bytes).kill();
    let others = [
        "notes.txt",
        ".hidden",
        ".psync",
        ".psync-",
        ".psync-x",
        ".psync-0-x",
        ".psync-0-",
        ".psync--0",
        ".psync-0-1-2",
        ".psync-0-1.bak",
        ".psyncs-0-1",
        "psync-0-1",
        ".psync-0-99999999999",
        "0",
        ".psync-x-0",
        ".psync-0 -1",
    ];
    let mut theirs: Vec<PathBuf> = others.map(|name| blocks.join(name)).into();
    theirs.push(blocks.join("A".repeat(64)));
    theirs.push(blocks.join("0".repeat(63)));
    theirs.push(blocks.join("f".repeat(64)));
    theirs
        .iter()
        .for_each(|path| fs::write(path, "theirs").unwrap());
    fs::create_dir(blocks.join("sub")).unwrap();
    fs::write(blocks.join("sub/.psync-0-1"), "theirs").unwrap();
    let out = psync!("export", "-d", &blocks).stdin(&bytes).run().ok();
    assert_stored(&blocks, out.text());
    theirs.push(blocks.join("sub/.psync-0-1"));
    for path in &theirs {
        assert_eq!(
            fs::read(path).unwrap_or_default(),
            b"theirs",
            "{}",
            path.display()
        );
    }
    assert_eq!(strangers(&blocks).len(), others.len() + 3);
}

#[test]
fn what_stands_in_the_way_of_its_own_names_stops_nothing() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 13));
    let blocks = dir.join("b");
    fs::create_dir_all(blocks.join(".psync-0")).unwrap();
    tool!("mkfifo", blocks.join(".psync-1")).run().ok();
    symlink("/nonexistent/x", blocks.join(".psync-2")).unwrap();
    fs::create_dir(blocks.join(".psync-3-0")).unwrap();
    fs::write(blocks.join(".psync-3-1"), "").unwrap();
    let out = psync!("export", "-d", &blocks).stdin(&bytes).run().ok();
    assert_stored(&blocks, out.text());
    assert!(blocks.join(".psync-0").is_dir());
}

#[test]
fn where_a_dead_writers_temporary_cannot_be_removed_its_mark_stays_for_the_next() {
    let dir = TempDir::new();
    fs::write(dir.join(".psync-0"), "").unwrap();
    fs::write(dir.join(".psync-1"), "").unwrap();
    fs::create_dir(dir.join(".psync-1-0")).unwrap();
    psync!("export", "-d", &dir).stdin("x").run().ok();
    let marks = [0, 1].map(|n| dir.join(format!(".psync-{n}")).exists());
    assert_eq!(marks, [false, true], "the first is the writer's own");
}

#[test]
fn a_failed_export_leaves_no_temporary_and_only_whole_lines_of_blocks_that_are_there() {
    let bytes = random(20 * MIB, 14);
    // Every file may grow to half a block.
    let dir = TempDir::new();
    let run = psync!("export", "-d", dir.join("b")).stdin(&bytes);
    run.under("prlimit", ["--fsize=2048"])
        .run()
        .fails_naming(1, &["psync: write ", ": File too large; see ulimit -f"]);
    assert_eq!(names(dir.join("b")), [""; 0]);

    // The last block alone cannot be put in place.
    let dir = TempDir::new();
    let last = hash_hex(&bytes[bytes.len() - BLOCK_SIZE..]);
    fs::create_dir_all(dir.join("b").join(&last)).unwrap();
    let out = psync!("export", "-d", dir.join("b")).stdin(&bytes).run();
    let out = out.fails_naming(1, &["psync: put in place ", &last]);
    assert!(
        hashlist(&bytes).as_bytes().starts_with(&out.stdout) && out.stdout.len().is_multiple_of(65)
    );
    assert_stored(dir.join("b"), out.text());
    assert_eq!(strangers(dir.join("b")), [""; 0]);
}

#[test]
fn exports_of_the_same_and_of_different_files_at_once_while_serving_and_getting() {
    let dir = TempDir::new();
    let blocks = dir.join("b");
    let before = random(3 * MIB, 15);
    let list = dir.file("list", write_blocks(&blocks, &before));
    let server = Server::start(&blocks);
    let (same, overlapping) = (random(4 * MIB, 16), random(MIB, 17));
    let inputs = [
        &same[..],
        &same,
        &[&same[..2 * MIB], &overlapping].concat(),
        &[&overlapping[..], &before].concat(),
    ];
    thread::scope(|scope| {
        for bytes in &inputs {
            let blocks = &blocks;
            scope.spawn(move || {
                for _ in 0..3 {
                    let out = psync!("export", "-d", blocks).stdin(bytes).run().ok();
                    assert!(out.text() == hashlist(bytes));
                    assert_stored(blocks, out.text());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..4 {
                let run = psync!("get", "-d", dir.join("none"), server.to_string(), &list);
                assert!(run.run().ok().stdout == before);
            }
        });
    });
    assert_eq!(strangers(&blocks), [""; 0]);
    for bytes in inputs {
        assert_stored(&blocks, &hashlist(bytes));
    }
}

#[test]
fn several_first_exports_may_make_the_directory_at_once() {
    let bytes = random(BLOCK_SIZE * 3, 18);
    for _ in 0..5 {
        let dir = TempDir::new();
        let blocks = dir.join("a/b/c");
        let start = || psync!("export", "-d", &blocks).stdin(&bytes).start();
        for run in [start(), start(), start(), start()] {
            assert_eq!(run.wait().ok().text(), hashlist(&bytes));
        }
        assert_stored(&blocks, &hashlist(&bytes));
        assert_eq!(strangers(&blocks), [""; 0]);
    }
}
