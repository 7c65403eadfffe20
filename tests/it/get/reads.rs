//! How often an update reads FILE: twice, and once where FILE is written in place; by a list and by a
//! root, wherever the blocks have moved to, and with a seed. What `$TMPDIR` does not take costs reads, and
//! nothing else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::output::Loop;
use crate::support::*;

/// Blocks of the old file: its list has two levels above it.
const BLOCKS: usize = 4000;

/// Reads of FILE, in hundredths of its size. A root costs those of a few blocks more.
const TWICE: usize = 205;
const ONCE: usize = 105;

struct Update {
    dir: TempDir,
    old: Vec<u8>,
    new: Rooted,
    server: HostileServer,
}

impl Update {
    fn new(new: &[u8], old: Vec<u8>) -> Self {
        let (dir, new) = (TempDir::new(), Rooted::new(new));
        dir.file("list", hashlist(new.bytes()));
        let map = new.map();
        let server = HostileServer::http(move |request| Reply::honest(&map, request));
        Update {
            dir,
            old,
            new,
            server,
        }
    }

    /// A hundredth of the blocks is new, in ten places.
    fn changed(blocks: usize) -> Self {
        let new = random(blocks * BLOCK_SIZE + 77, 1);
        let mut old = new.clone();
        for place in 0..10 {
            let first = (place * blocks / 10 + place) * BLOCK_SIZE;
            old[first..first + 4 * BLOCK_SIZE].fill(7);
        }
        Update::new(&new, old)
    }

    /// 64 blocks are new, at the beginning.
    fn moved(blocks: usize) -> Self {
        let old = random(blocks * BLOCK_SIZE + 77, 2);
        Update::new(&[random(64 * BLOCK_SIZE, 3), old.clone()].concat(), old)
    }

    /// Runs get and tells how often it has read `file`, in hundredths of the old file's size.
    fn reads(&self, file: &Path, run: Run) -> usize {
        let (out, calls) = trace("read,pread64", &["--seccomp-bpf"], run);
        out.ok();
        let of_file = format!("<{}>", file.display());
        let result = |text: &str| text.rsplit_once(" = ")?.1.parse::<usize>().ok();
        let calls = calls.iter().filter(|call| call.text.contains(&of_file));
        let bytes: usize = calls.filter_map(|call| result(&call.text)).sum();
        bytes * 100 / self.old.len()
    }

    /// Updates FILE, by the list and by the root, with these words.
    fn file(&self, words: &[&str], most: usize) {
        for hashlist in [self.dir.join("list").to_str().unwrap(), &self.new.root] {
            let file = self.dir.file("file", &self.old);
            let get = psync!("get", "-o", &file, self.server.url(), hashlist).args(words);
            let reads = self.reads(&file, get);
            assert!(fs::read(&file).unwrap() == self.new.bytes());
            assert!(
                (1..=most).contains(&reads),
                "{words:?} {hashlist}: {reads} %"
            );
        }
    }
}

#[test]
fn an_update_reads_file_twice_and_in_place_once() {
    for update in [Update::changed(BLOCKS), Update::moved(BLOCKS)] {
        update.file(&[], TWICE);
        update.file(&["--in-place"], ONCE);
    }
}

#[test]
fn a_file_that_is_right_is_read_once() {
    let update = Update::changed(BLOCKS);
    let right = update.dir.file("right", update.new.bytes());
    for hashlist in [update.dir.join("list").to_str().unwrap(), &update.new.root] {
        let reads = update.reads(&right, psync!("get", "-o", &right, hashlist));
        assert!((99..=ONCE).contains(&reads), "{hashlist}: {reads} %");
    }
}

#[test]
fn a_seed_is_read_twice() {
    let update = Update::moved(BLOCKS);
    let seed = update.dir.file("seed", &update.old);
    for hashlist in [update.dir.join("list").to_str().unwrap(), &update.new.root] {
        let out = update.dir.join("out");
        let get = psync!(
            "get",
            "--seed",
            &seed,
            "-o",
            &out,
            update.server.url(),
            hashlist
        );
        let reads = update.reads(&seed, get);
        assert!(fs::read(&out).unwrap() == update.new.bytes());
        assert!(reads <= TWICE, "{hashlist}: {reads} %");
        fs::remove_file(out).unwrap();
    }
}

#[test]
#[ignore = "a loop device"]
fn root_a_device_is_read_once() {
    let update = Update::changed(BLOCKS);
    for hashlist in [update.dir.join("list").to_str().unwrap(), &update.new.root] {
        // What lies behind the file is not read.
        let room = [&update.old[..], &vec![0; 2 * update.old.len()]].concat();
        let device = match Loop::new(&room) {
            Ok(device) => device,
            Err(e) => skip!("no loop device: {e}"),
        };
        let path = device.device.clone();
        let get = psync!("get", "-o", &path, update.server.url(), hashlist);
        let reads = update.reads(&path, get);
        assert!(device.read().starts_with(update.new.bytes()));
        assert!(reads <= ONCE, "{hashlist}: {reads} %");
    }
}

#[test]
fn without_a_directory_for_its_list_file_is_read_more_often() {
    for update in [Update::changed(300), Update::moved(300)] {
        for words in [&[][..], &["--in-place"]] {
            let file = update.dir.file("file", &update.old);
            let get = psync!("get", "-o", &file, update.server.url(), &update.new.root);
            get.args(words).env("TMPDIR", "/nonexistent").run().ok();
            assert!(fs::read(&file).unwrap() == update.new.bytes(), "{words:?}");
        }
        let right = update.dir.file("file", update.new.bytes());
        let get = psync!("get", "-o", &right, &update.new.root);
        get.env("TMPDIR", "/nonexistent").run().ok();
    }
}

#[test]
#[ignore = "mounts"]
fn root_a_full_directory_for_its_list_costs_reads_alone() {
    for update in [Update::changed(BLOCKS), Update::moved(BLOCKS)] {
        let full = Mount::tmpfs("size=64k");
        for words in [&[][..], &["--in-place"]] {
            let file = update.dir.file("file", &update.old);
            let get = psync!("get", "-o", &file, update.server.url(), &update.new.root);
            get.args(words).env("TMPDIR", &full.at).run().ok();
            assert!(fs::read(&file).unwrap() == update.new.bytes(), "{words:?}");
        }
    }
}

/// An update of a file of 200 blocks, of which the last ten differ.
fn small() -> Update {
    let new = random(200 * BLOCK_SIZE, 4);
    let mut old = new.clone();
    old[190 * BLOCK_SIZE..].fill(7);
    Update::new(&new, old)
}

/// Runs it under strace, which delays the first such call on this file, and does `meanwhile` as it waits.
fn meanwhile(run: Run, call: &str, path: &Path, meanwhile: impl FnOnce()) -> Output {
    let dir = TempDir::new();
    let log = dir.file("log", "");
    let inject = format!("inject={call}:delay_enter=1500000:when=1");
    let trace = format!("trace={call}");
    let words = ["-f", "-qq", "-e", &trace, "-e", &inject, "-P"];
    let words = words.into_iter().chain(path.to_str()).chain(["-o"]);
    let run = run.under("strace", words.chain(log.to_str()));
    let run = run.start();
    let begun = format!("{call}(");
    wait_until("it makes the call", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains(&begun))
    });
    meanwhile();
    run.wait()
}

/// What was found in FILE counts only as long as no other psync writes to it.
#[test]
fn a_file_that_changes_before_it_is_locked_is_read_again() {
    let update = small();
    for hashlist in [update.dir.join("list").to_str().unwrap(), &update.new.root] {
        let file = update.dir.file("file", &update.old);
        let get = psync!(
            "get",
            "--in-place",
            "-o",
            &file,
            update.server.url(),
            hashlist
        );
        let out = meanwhile(get, "flock", &file, || {
            let writable = OpenOptions::new().write(true).open(&file).unwrap();
            writable.write_all_at(b"another psync's", 9).unwrap();
        });
        out.ok();
        assert!(fs::read(&file).unwrap() == update.new.bytes());
    }
}

/// The list that was checked is the one that FILE is compared with, and the one that it is made by.
#[test]
fn a_list_that_is_replaced_or_written_meanwhile_is_not_mixed_with_the_old_one() {
    let update = small();
    let other = hashlist(&random(200 * BLOCK_SIZE, 5));
    let list = update.dir.join("list");
    for in_place in [&[][..], &["--in-place"]] {
        let file = update.dir.file("file", &update.old);
        let locked = match in_place {
            [] => update.dir.join("file.part"),
            _ => file.clone(),
        };
        let get = psync!("get", "-o", &file, update.server.url(), &list).args(in_place);
        let out = meanwhile(get, "flock", &locked, || {
            fs::rename(update.dir.file("other", &other), &list).unwrap();
        });
        out.ok();
        assert!(fs::read(&file).unwrap() == update.new.bytes());

        fs::write(&list, hashlist(update.new.bytes())).unwrap();
        let file = update.dir.file("file", &update.old);
        let get = psync!("get", "-o", &file, update.server.url(), &list).args(in_place);
        let out = meanwhile(get, "flock", &locked, || fs::write(&list, &other).unwrap());
        assert_ne!(out.status, 0, "{out}");
        fs::write(&list, hashlist(update.new.bytes())).unwrap();
        let _ = fs::remove_file(update.dir.join("file.part"));
    }
}

/// FILE grows as it is compared, and is not right for that.
#[test]
fn a_file_that_grows_meanwhile_is_not_right_already() {
    let update = small();
    let list = update.dir.join("list");
    for (hashlist, in_place) in [
        (list.to_str().unwrap(), &[][..]),
        (&update.new.root, &["--in-place"]),
    ] {
        let file = update.dir.file("file", update.new.bytes());
        let get = psync!("get", "-o", &file, update.server.url(), hashlist).args(in_place);
        let out = meanwhile(get, "pread64", &file, || {
            let mut file = OpenOptions::new().append(true).open(&file).unwrap();
            file.write_all(b"more").unwrap();
        });
        out.ok();
        assert!(fs::read(&file).unwrap() == update.new.bytes());
    }
}

#[test]
#[ignore = "mounts"]
fn root_a_list_beside_file_leaves_room_for_it() {
    let new = random(1000 * BLOCK_SIZE, 6);
    let update = Update::new(&new, new.iter().rev().copied().collect());
    // Room for FILE twice, and for half of its list.
    let full = Mount::tmpfs("size=8032k");
    let file = full.at.file("file", &update.old);
    let get = psync!("get", "-o", &file, update.server.url(), &update.new.root);
    get.env("TMPDIR", &full.at).run().ok();
    assert!(fs::read(&file).unwrap() == update.new.bytes());
}
