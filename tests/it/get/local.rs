//! Blocks at hand: which block directory `get` looks in, what counts as absent there, and that nobody is
//! asked for what is there.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use crate::support::*;

#[test]
fn what_is_at_hand_is_not_asked_for() {
    let sample = Sample::new(3);
    let blocks = sample.dir.join("blocks");
    write_blocks(&blocks, &sample.bytes);
    fs::remove_file(blocks.join(sample.hash(2))).unwrap();
    let server = sample.honest();
    sample.is_whole(sample.get(&[&server]).arg("-d").arg(&blocks).run());
    assert_eq!(server.targets(), [format!("/{}", sample.hash(2))]);
    // It looks; it keeps nothing.
    assert_eq!(fs::read_dir(&blocks).unwrap().count(), 3);
}

#[test]
fn whatever_is_not_the_block_counts_as_absent() {
    let sample = Sample::new(7);
    let blocks = sample.dir.join("blocks");
    write_blocks(&blocks, &sample.bytes);
    let names: Vec<_> = (0..8).map(|n| blocks.join(sample.hash(n))).collect();
    let flipped = [&[!sample.block(0)[0]], &sample.block(0)[1..]].concat();
    let longer = [sample.block(1), b"x"].concat();
    fs::write(&names[0], flipped).unwrap();
    fs::write(&names[1], longer).unwrap();
    fs::write(&names[2], &sample.block(2)[..4095]).unwrap();
    fs::write(&names[3], "").unwrap();
    for name in &names[4..] {
        fs::remove_file(name).unwrap();
    }
    fs::create_dir(&names[4]).unwrap();
    // Neither may it wait for somebody to write into this one.
    tool!("mkfifo", &names[5]).run().ok();
    symlink("nowhere", &names[6]).unwrap();
    let _socket = UnixListener::bind(&names[7]);
    let server = sample.honest();
    sample.is_whole(sample.get(&[&server]).arg("-d").arg(&blocks).run());
    assert_eq!(server.requests().len(), 8);
    let out = sample.get(&[]).arg("-d").arg(&blocks).run();
    let missing = sample.lacks(0).replace(
        "no server gave it",
        "it is not at hand, and no server is given",
    );
    assert!(out.fails(3, &missing).stdout.is_empty());
}

#[test]
fn a_link_to_a_block_is_as_good_as_the_block() {
    let sample = Sample::new(1);
    let (there, here) = (sample.dir.join("there"), sample.dir.join("here"));
    write_blocks(&there, &sample.bytes);
    fs::create_dir(&here).unwrap();
    for n in 0..2 {
        symlink(there.join(sample.hash(n)), here.join(sample.hash(n))).unwrap();
    }
    sample.is_whole(sample.get(&[]).arg("-d").arg(here).run());
}

#[test]
fn without_servers_the_file_is_put_together_from_what_is_at_hand() {
    let sample = Sample::new(3);
    let blocks = sample.dir.join("blocks");
    write_blocks(&blocks, &sample.bytes);
    let get = || psync!("get", "-d", &blocks, &sample.list);
    sample.is_whole(get().run());
    fs::remove_file(blocks.join(sample.hash(1))).unwrap();
    let missing = sample.lacks(1).replace(
        "no server gave it",
        "it is not at hand, and no server is given",
    );
    assert!(get().run().fails(3, &missing).stdout == sample.bytes[..BLOCK_SIZE]);
}

#[test]
fn the_directory_is_that_of_the_option_else_the_variable_else_home() {
    let sample = Sample::new(1);
    let home = sample.dir.join("home");
    let blocks = home.join(".psync/blocks");
    write_blocks(&blocks, &sample.bytes);
    let (empty, none) = (sample.dir.join("empty"), sample.dir.join("none"));
    fs::create_dir(&empty).unwrap();
    let get = || sample.get(&[]).env("HOME", &empty);
    // Found in each place, though the places after it hold nothing.
    sample.is_whole(get().env("HOME", &home).run());
    sample.is_whole(get().env("HOME", &home).env("PSYNC_DIR", "").run());
    sample.is_whole(get().env("PSYNC_DIR", &blocks).run());
    for option in ["-d", "--dir"] {
        sample.is_whole(
            get()
                .env("PSYNC_DIR", &empty)
                .arg(option)
                .arg(&blocks)
                .run(),
        );
    }
    sample.is_whole(get().arg(format!("--dir={}", blocks.display())).run());
    // Not found: the first one named counts, even where it does not exist.
    for first in [&empty, &none] {
        sample
            .get(&[])
            .env("HOME", &home)
            .env("PSYNC_DIR", first)
            .run()
            .fails_naming(3, &["not at hand"]);
        let get = sample.get(&[]).env("HOME", &home).env("PSYNC_DIR", &blocks);
        get.arg("-d")
            .arg(first)
            .run()
            .fails_naming(3, &["not at hand"]);
    }
    assert!(!none.exists());
}

#[test]
fn a_directory_that_is_missing_or_none_at_all_is_just_empty() {
    let sample = Sample::new(1);
    let server = sample.honest();
    let file = sample.dir.file("file", "");
    for dir in [sample.dir.join("missing"), file] {
        sample.is_whole(sample.get(&[&server]).arg("-d").arg(&dir).run());
    }
    assert!(!sample.dir.join("missing").exists());
    for home in [None, Some("")] {
        let get = sample.get(&[&server]);
        let get = match home {
            None => get.no_env("HOME"),
            Some(home) => get.env("HOME", home),
        };
        sample.is_whole(get.run());
    }
}

/// Nothing of the server's, nothing left behind: what is given is only read.
#[test]
fn get_writes_no_file() {
    let sample = Sample::new(1);
    let home = sample.dir.join("home");
    fs::create_dir(&home).unwrap();
    sample.is_whole(
        sample
            .get(&[&sample.honest()])
            .env("HOME", &home)
            .cwd(&home)
            .run(),
    );
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}
