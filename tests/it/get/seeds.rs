//! Blocks from files at hand (`--seed`), the order of all sources, and `--keep`: what is fetched once is
//! there for the next, and for `server`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;

const SOON: Duration = Duration::from_secs(15);

/// These blocks of the sample one after the other.
fn of(sample: &Sample, numbers: &[usize]) -> Vec<u8> {
    let blocks = numbers.iter().flat_map(|&n| sample.block(n));
    blocks.copied().collect()
}

fn seeded(sample: &Sample, server: &HostileServer, seeds: &[PathBuf]) -> Run {
    let words = seeds
        .iter()
        .flat_map(|seed| [OsStr::new("--seed"), seed.as_os_str()]);
    sample.get(&[server]).args(words).limit(SOON)
}

/// Hashes of these blocks, as a server is asked for them.
fn targets(sample: &Sample, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let target = |n| format!("/{}", sample.hash(n));
    numbers.into_iter().map(target).collect()
}

fn not_at_hand(sample: &Sample, n: usize) -> String {
    let line = sample.lacks(n);
    line.replace(
        "no server gave it",
        "it is not at hand, and no server is given",
    )
}

#[test]
fn blocks_are_found_wherever_they_lie_in_a_seed() {
    let sample = Sample::new(9);
    let other = random(2 * BLOCK_SIZE, 5);
    for (what, seed, asked) in [
        ("the file", sample.bytes.clone(), &[][..]),
        (
            "an older version",
            of(&sample, &[0, 1, 2, 5, 6, 9]),
            &[3, 4, 7, 8],
        ),
        (
            "another order",
            of(&sample, &[8, 3, 1, 1, 0]),
            &[2, 4, 5, 6, 7, 9],
        ),
        (
            "behind others",
            [&other[..], &of(&sample, &[4, 5])].concat(),
            &[0, 1, 2, 3, 6, 7, 8, 9],
        ),
        (
            "not at whole blocks",
            [b"x", &sample.bytes[..]].concat(),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        ),
        (
            "its last block",
            [&other[..], sample.block(9)].concat(),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        (
            "a whole block cut",
            sample.block(3)[..4000].to_vec(),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        ),
        ("empty", Vec::new(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ] {
        let server = sample.honest();
        let seed = sample.dir.file("seed", seed);
        sample.is_whole(seeded(&sample, &server, &[seed]).run());
        assert_eq!(
            server.targets(),
            targets(&sample, asked.iter().copied()),
            "{what}"
        );
    }
}

#[test]
fn many_seeds_may_be_given_and_each_gives_what_it_has() {
    let sample = Sample::new(9);
    let seed = |name: &str, numbers: &[usize]| sample.dir.file(name, of(&sample, numbers));
    let seeds = [
        seed("one", &[0, 1]),
        seed("two", &[1, 9]),
        seed("three", &[5]),
    ];
    for jobs in ["1", "8"] {
        let server = sample.honest();
        sample.is_whole(seeded(&sample, &server, &seeds).args(["-j", jobs]).run());
        let mut asked = server.targets();
        asked.sort();
        let mut wanted = targets(&sample, [2, 3, 4, 6, 7, 8]);
        wanted.sort();
        assert_eq!(asked, wanted);
    }
    let twice = [seeds[0].clone(), seeds[0].clone()];
    sample.is_whole(seeded(&sample, &sample.honest(), &twice).run());
}

#[test]
fn seed_names_need_not_be_utf_8_nor_begin_with_a_letter() {
    for name in [
        OsStr::from_bytes(b"\xff"),
        OsStr::new("-x"),
        OsStr::new("-"),
    ] {
        let sample = Sample::new(3);
        fs::write(sample.dir.join(name), &sample.bytes).unwrap();
        let run = sample.get(&[]).arg("--seed").arg(name);
        sample.is_whole(run.cwd(&sample.dir).run());
    }
}

#[test]
fn a_seed_that_cannot_be_read_is_an_error_before_anything_is_asked() {
    let sample = Sample::new(3);
    let good = sample.dir.file("good", &sample.bytes);
    fs::create_dir(sample.dir.join("directory")).unwrap();
    let secret = sample.dir.file("secret", &sample.bytes);
    tool!("chmod", "0", secret).run().ok();
    for (seed, cause) in [
        ("missing", "No such file or directory"),
        ("good/x", "Not a directory"),
        ("directory", "s a directory"),
        ("secret", "Permission denied"),
    ] {
        let server = sample.honest();
        let out = sample.dir.join("out");
        let seed = sample.dir.join(seed);
        let run = seeded(&sample, &server, &[good.clone(), seed.clone()])
            .arg("-o")
            .arg(&out);
        let run = run.powerless().run();
        let told = format!("psync: read seed {}: ", seed.display());
        let run = run.fails_naming(1, &[&told]);
        assert!(
            run.stderr.to_lowercase().contains(&cause.to_lowercase()),
            "{run}"
        );
        assert_eq!(run.stderr.lines().count(), 1, "{run}");
        assert_eq!(server.connections(), 0);
        assert!(!out.exists() && !sample.dir.join("out.part").exists());
    }
}

#[test]
fn a_seed_that_is_a_fifo_is_an_error_and_no_hang() {
    let sample = Sample::new(3);
    let fifo = sample.dir.join("fifo");
    tool!("mkfifo", &fifo).run().ok();
    let server = sample.honest();
    let run = seeded(&sample, &server, std::slice::from_ref(&fifo));
    let out = run.run();
    let told = format!("psync: read seed {}: ", fifo.display());
    let out = out.fails_naming(1, &[&told]);
    assert_eq!(out.stderr.lines().count(), 1);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_seed_that_changes_meanwhile_is_never_believed() {
    type Change = fn(&Sample, &PathBuf);
    let changes: [(&str, Change); 4] = [
        ("overwritten", |sample, seed| {
            fs::write(seed, random(sample.bytes.len(), 77)).unwrap();
        }),
        ("truncated", |_, seed| {
            fs::write(seed, "").unwrap();
        }),
        ("another order", |sample, seed| {
            fs::write(seed, of(sample, &[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])).unwrap();
        }),
        ("grown", |sample, seed| {
            fs::write(seed, [b"x", &sample.bytes[..]].concat()).unwrap();
        }),
    ];
    for (what, change) in changes {
        for to_file in [false, true] {
            let sample = Sample::new(9);
            // Without the first block, so that its server is asked once the seed's index is made.
            let mut old = sample.bytes.clone();
            old[0] ^= 1;
            let seed = sample.dir.file("seed", old);
            let changed = Arc::new(AtomicUsize::new(0));
            let (map, told) = (sample.map(), Arc::clone(&changed));
            let server = HostileServer::http(move |request| {
                wait_until("the seed has changed", || told.load(Ordering::SeqCst) > 0);
                Reply::honest(&map, request)
            });
            let run = seeded(&sample, &server, std::slice::from_ref(&seed));
            let out = sample.dir.join("out");
            let run = if to_file {
                run.arg("-o").arg(&out)
            } else {
                run
            };
            let run = run.start();
            wait_until("it asks", || !server.requests().is_empty());
            change(&sample, &seed);
            changed.store(1, Ordering::SeqCst);
            let output = run.wait().ok();
            let bytes = if to_file {
                fs::read(&out).unwrap()
            } else {
                output.stdout
            };
            assert!(bytes == sample.bytes, "{what}");
        }
    }
}

#[test]
#[ignore = "hashes a gigabyte"]
fn slow_a_seeds_index_takes_at_most_16_bytes_a_block() {
    let sample = Sample::new(0);
    let [small, large] = [BLOCK_SIZE as u64, 1 << 30].map(|zeros| {
        let seed = sample.dir.join(zeros.to_string());
        let file = fs::File::create(&seed).unwrap();
        file.set_len(zeros).unwrap();
        file.write_all_at(&sample.bytes, zeros).unwrap();
        let get = sample.get(&[]).arg("--seed").arg(seed);
        let (out, peak) = get.limit(Duration::from_secs(300)).measured();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        peak
    });
    // Of 262,144 blocks 4 MiB, and the buffers of four threads.
    let more = large.saturating_sub(small);
    assert!(more < (4 + 2) << 10, "{more} KiB");
}

#[test]
fn of_many_equal_blocks_in_a_seed_one_that_is_right_is_enough() {
    let sample = Sample::new(1);
    let seed = sample.dir.file("seed", sample.block(0).repeat(1000));
    let server = sample.honest();
    sample.is_whole(seeded(&sample, &server, &[seed]).run());
    assert_eq!(server.targets(), targets(&sample, [1]));
}

/// Each source lacks one more of the first blocks, and only the next is asked for it.
#[test]
fn blocks_come_from_the_output_the_directory_seeds_and_servers_in_this_order() {
    let sample = Sample::new(7);
    let dir = sample.dir.join("blocks");
    let out = sample.dir.join("out");
    let part = sample.dir.join("out.part");
    write_blocks(&dir, &of(&sample, &[2, 3]));
    let seed = sample.dir.file("seed", of(&sample, &[3, 4, 5]));
    let map = |numbers: &[usize]| {
        let map = block_map(&of(&sample, numbers));
        HostileServer::http(move |request| Reply::honest(&map, request))
    };
    let (first, second) = (map(&[0, 1, 2, 3, 4, 5, 6]), sample.honest());
    fs::write(&part, sample.block(0)).unwrap();
    fs::write(&out, sample.block(1)).unwrap();
    let run = sample
        .get(&[&first, &second])
        .arg("-d")
        .arg(&dir)
        .arg("-o")
        .arg(&out);
    let trace = sample.dir.join("trace");
    let run = run.arg("--seed").arg(&seed).args(["--stats"]);
    let words = ["-f", "-qq", "-e", "trace=openat", "-o"].map(OsStr::new);
    let run = run
        .under("strace", words.into_iter().chain([trace.as_os_str()]))
        .run();
    assert_eq!(run.status, 0, "{run}");
    assert!(
        run.stderr.contains(" local=6 fetched=2 missing=0 "),
        "{run}"
    );
    assert!(fs::read(&out).unwrap() == sample.bytes);
    // Elsewhere than at servers there is none of these.
    assert_eq!(first.targets(), targets(&sample, [6, 7]));
    assert_eq!(second.targets(), targets(&sample, [7]));
    // What is right in the output is looked for nowhere else.
    let opened = fs::read_to_string(trace).unwrap();
    let looked = |n: usize| opened.contains(&sample.hash(n));
    let looked: Vec<_> = (0..8).filter(|&n| looked(n)).collect();
    assert_eq!(looked, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn without_servers_seeds_and_the_directory_are_put_together() {
    let sample = Sample::new(5);
    let dir = sample.dir.join("blocks");
    let seed = sample.dir.file("seed", of(&sample, &[1, 3, 5]));
    write_blocks(&dir, &of(&sample, &[0, 2, 4]));
    let get = || sample.get(&[]).arg("-d").arg(&dir).arg("--seed").arg(&seed);
    sample.is_whole(get().run());
    let out = sample.dir.join("out");
    assert_eq!(get().arg("-o").arg(&out).run().ok().stdout, b"");
    assert!(fs::read(&out).unwrap() == sample.bytes);
    fs::remove_file(dir.join(sample.hash(2))).unwrap();
    let output = get().run().fails(3, &not_at_hand(&sample, 2));
    assert!(output.stdout == sample.bytes[..2 * BLOCK_SIZE]);
    fs::remove_file(&out).unwrap();
    get()
        .arg("-o")
        .arg(&out)
        .run()
        .fails_naming(3, &["1 of 6 blocks could not be had: ", &sample.hash(2)]);
    // With the missing one found elsewhere, it goes on from there.
    let more = sample.dir.file("more", sample.block(2));
    let run = sample.get(&[]).arg("--seed").arg(more).arg("-o").arg(&out);
    run.run().ok();
    assert!(fs::read(&out).unwrap() == sample.bytes);
}

#[test]
fn what_is_fetched_is_kept_and_not_asked_for_again() {
    for option in ["-k", "--keep"] {
        for jobs in ["1", "8"] {
            let sample = Sample::new(40);
            // Made where it is missing, parents too.
            let dir = sample.dir.join("new/blocks");
            let server = sample.honest();
            let get = || {
                sample
                    .get(&[&server])
                    .arg("-d")
                    .arg(&dir)
                    .args([option, "-j", jobs])
            };
            sample.is_whole(get().run());
            assert_stored(&dir, &hashlist(&sample.bytes));
            assert_eq!(strangers(&dir), [""; 0]);
            assert_eq!(names(&dir).len(), 41);
            assert_eq!(server.requests().len(), 41);
            sample.is_whole(get().run());
            assert_eq!(server.requests().len(), 41);
            // The whole of it without any server.
            sample.is_whole(sample.get(&[]).arg("-d").arg(&dir).run());
        }
    }
}

#[test]
fn zeros_that_nobody_is_asked_for_are_kept_too() {
    let dir = TempDir::new();
    let bytes = [&[0; 5 * BLOCK_SIZE][..], b"end"].concat();
    let list = dir.file("list", hashlist(&bytes));
    let server = HostileServer::http(|request| Reply::honest(&block_map(b"end"), request));
    let kept = dir.join("kept");
    let run = psync!(
        "get",
        "--keep",
        "-d",
        &kept,
        server.addr().to_string(),
        list
    )
    .run();
    assert!(run.ok().stdout == bytes);
    assert_stored(&kept, &hashlist(&bytes));
}

#[test]
fn it_is_kept_in_the_directory_of_the_variable_or_of_home() {
    let sample = Sample::new(3);
    let (home, other) = (sample.dir.join("home"), sample.dir.join("other"));
    let server = sample.honest();
    let get = || sample.get(&[&server]).arg("-k");
    sample.is_whole(get().env("HOME", &home).run());
    assert_stored(home.join(".psync/blocks"), &hashlist(&sample.bytes));
    sample.is_whole(get().env("PSYNC_DIR", &other).run());
    assert_stored(&other, &hashlist(&sample.bytes));
}

#[test]
fn keep_without_a_directory_is_a_usage_error() {
    let sample = Sample::new(1);
    let server = sample.honest();
    let out = sample.get(&[&server]).arg("-k").no_env("HOME").run();
    out.fails_naming(2, &["no block directory", "--help"]);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_told_before_anything_is_asked() {
    let sample = Sample::new(1);
    sample.dir.file("file", "");
    let closed = sample.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    tool!("chmod", "555", &closed).run().ok();
    for dir in ["file", "closed", "closed/new"] {
        let server = sample.honest();
        let dir = sample.dir.join(dir);
        let out = sample
            .get(&[&server])
            .arg("-k")
            .arg("-d")
            .arg(&dir)
            .powerless()
            .run();
        let out = out.fails_naming(1, &["psync: ", &dir.display().to_string()]);
        assert_eq!(out.stderr.lines().count(), 1);
        assert_eq!(server.connections(), 0);
    }
}

#[test]
fn a_damaged_block_in_the_directory_is_put_right() {
    let sample = Sample::new(5);
    let dir = sample.dir.join("blocks");
    let list = write_blocks(&dir, &sample.bytes);
    let flipped = [&[!sample.block(0)[0]], &sample.block(0)[1..]].concat();
    fs::write(dir.join(sample.hash(0)), flipped).unwrap();
    fs::write(dir.join(sample.hash(1)), "").unwrap();
    fs::write(dir.join(sample.hash(2)), [sample.block(2), b"x"].concat()).unwrap();
    fs::write(dir.join(sample.hash(5)), &sample.block(5)[..4]).unwrap();
    let server = sample.honest();
    sample.is_whole(sample.get(&[&server]).arg("-k").arg("-d").arg(&dir).run());
    assert_eq!(server.targets(), targets(&sample, [0, 1, 2, 5]));
    assert_stored(&dir, &list);
    assert_eq!(strangers(&dir), [""; 0]);
}

#[test]
fn what_was_at_hand_is_not_kept_a_second_time() {
    let bytes = [random(4 * BLOCK_SIZE, 3), vec![0; 3 * BLOCK_SIZE]].concat();
    let mut sample = Sample::new(0);
    fs::write(&sample.list, hashlist(&bytes)).unwrap();
    sample.bytes = bytes;
    let dir = sample.dir.join("blocks");
    let seed = sample.dir.file("seed", of(&sample, &[0, 1]));
    let out = sample.dir.file("out", of(&sample, &[3, 3, 2]));
    let server = sample.honest();
    let run = seeded(&sample, &server, &[seed])
        .arg("-k")
        .arg("-d")
        .arg(&dir);
    run.run().ok();
    // Zeros are at hand to psync alone.
    let mut kept = vec![sample.hash(2), sample.hash(3), sample.hash(4)];
    kept.sort();
    assert_eq!(names(&dir), kept);
    fs::remove_dir_all(&dir).unwrap();
    let server = sample.honest();
    let run = sample
        .get(&[&server])
        .arg("-k")
        .arg("-d")
        .arg(&dir)
        .arg("-o")
        .arg(&out);
    run.run().ok();
    let mut kept = vec![sample.hash(0), sample.hash(1), sample.hash(4)];
    kept.sort();
    assert_eq!(names(&dir), kept);
}

#[test]
fn wrong_bytes_are_never_kept_and_what_was_fetched_before_a_failure_is() {
    let sample = Sample::new(9);
    for jobs in ["1", "8"] {
        for to_file in [false, true] {
            let dir = TempDir::new();
            let (map, bad) = (sample.map(), sample.hash(5));
            let liar = HostileServer::http(move |request| match request.hash() == bad {
                true => Reply::ok([b'x'; BLOCK_SIZE]),
                false => Reply::honest(&map, request),
            });
            let run = sample
                .get(&[&liar])
                .args(["-k", "-j", jobs, "-d"])
                .arg(&dir);
            let out = TempDir::new();
            let run = if to_file {
                run.arg("-o").arg(out.join("out"))
            } else {
                run
            };
            assert_eq!(run.run().status, 3);
            assert!(!dir.join(sample.hash(5)).exists());
            assert_eq!(strangers(&dir), [""; 0], "-j {jobs}, to a file: {to_file}");
            // The blocks before it at least, and all of them where it goes on.
            let kept = if to_file { 9 } else { 5 };
            assert!(names(&dir).len() >= kept);
            let stored = names(&dir).join("\n");
            assert_stored(&dir, &stored);
        }
    }
}

#[test]
fn a_killed_get_leaves_no_wrong_block_and_the_next_one_cleans_up() {
    for answers in [0, 1, 9, 30] {
        let sample = Sample::new(40);
        let dir = sample.dir.join("blocks");
        let (map, asked) = (sample.map(), AtomicUsize::new(0));
        let silent = HostileServer::http(move |request| {
            match asked.fetch_add(1, Ordering::SeqCst) < answers {
                true => Reply::honest(&map, request),
                false => Reply::raw("").then_silence(),
            }
        });
        let get = |server: &HostileServer| {
            sample
                .get(&[server])
                .args(["-k", "-j", "4", "-d"])
                .arg(&dir)
        };
        let run = get(&silent).start();
        wait_until("it asks once more", || silent.requests().len() > answers);
        run.kill();
        let kept: Vec<_> = names(&dir)
            .into_iter()
            .filter(|name| name.len() == 64)
            .collect();
        assert!(kept.len() <= answers && kept.len() + 8 >= answers);
        assert_stored(&dir, &kept.join("\n"));
        let good = sample.honest();
        sample.is_whole(get(&good).run());
        assert_eq!(good.requests().len(), 41 - kept.len());
        assert_stored(&dir, &hashlist(&sample.bytes));
        assert_eq!(strangers(&dir), [""; 0]);
    }
}

#[test]
fn what_one_get_keeps_a_server_of_the_directory_gives_to_the_next() {
    let sample = Sample::new(30);
    let dir = sample.dir.join("blocks");
    fs::create_dir(&dir).unwrap();
    let near = Server::start(&dir);
    // Half of it is there, and served, before the other half comes.
    let half = Arc::new(AtomicUsize::new(0));
    let (map, go_on) = (sample.map(), Arc::clone(&half));
    let asked = AtomicUsize::new(0);
    let far = HostileServer::http(move |request| {
        if asked.fetch_add(1, Ordering::SeqCst) == 15 {
            wait_until("it may go on", || go_on.load(Ordering::SeqCst) > 0);
        }
        Reply::honest(&map, request)
    });
    let run = sample.get(&[&far]).arg("-k").arg("-d").arg(&dir).start();
    wait_until("the first half", || far.requests().len() > 15);
    for n in 0..15 {
        let answer = get(near.addr(), &format!("/{}", sample.hash(n)));
        assert_eq!((answer.status, &answer.body[..]), (200, sample.block(n)));
    }
    assert_eq!(
        get(near.addr(), &format!("/{}", sample.hash(15))).status,
        404
    );
    half.store(1, Ordering::SeqCst);
    sample.is_whole(run.wait());
    sample.is_whole(sample.get(&[&near]).run());
}

#[test]
fn two_gets_and_an_export_may_share_a_directory() {
    let sample = Sample::new(60);
    let dir = sample.dir.join("blocks");
    let server = sample.honest();
    let get = || {
        sample
            .get(&[&server])
            .args(["-k", "-j", "4", "-d"])
            .arg(&dir)
            .start()
    };
    let export = psync!("export", "-d", &dir).stdin(&sample.bytes).start();
    let (one, two) = (get(), get());
    sample.is_whole(one.wait());
    sample.is_whole(two.wait());
    export.wait().ok();
    assert_stored(&dir, &hashlist(&sample.bytes));
    assert_eq!(strangers(&dir), [""; 0]);
}

#[test]
#[ignore = "mounts"]
fn root_a_full_block_directory_is_told_and_with_room_made_the_same_command_goes_on() {
    for (options, filled, told) in [
        (
            "size=2m",
            true,
            "No space left on device (see df); make room and run the same command again to resume\n",
        ),
        (
            "size=2m,nr_inodes=64",
            false,
            "No space left on device: no inode is left (see df -i); remove files and run the same command again to resume\n",
        ),
    ] {
        let sample = Sample::new(200);
        let disk = Mount::tmpfs(options);
        let dir = disk.at.join("blocks");
        let ballast = filled.then(|| disk.fill(50 * BLOCK_SIZE));
        let server = sample.honest();
        let get = || {
            sample
                .get(&[&server])
                .args(["-k", "-j", "4", "-d"])
                .arg(&dir)
                .run()
        };
        let out = get().fails_naming(1, &["psync: ", &dir.display().to_string(), told]);
        assert_eq!(out.stderr.lines().count(), 1, "{out}");
        assert!(sample.bytes.starts_with(&out.stdout));
        let kept: Vec<_> = names(&dir)
            .into_iter()
            .filter(|name| name.len() == 64)
            .collect();
        assert!(kept.len() > 30);
        assert_stored(&dir, &kept.join("\n"));
        match ballast {
            Some(ballast) => fs::remove_file(ballast).unwrap(),
            None => drop(
                tool!("mount", "-o", "remount,nr_inodes=1000", &disk.at)
                    .run()
                    .ok(),
            ),
        }
        let before = server.requests().len();
        sample.is_whole(get());
        assert_eq!(server.requests().len() - before, 201 - kept.len());
        assert_stored(&dir, &hashlist(&sample.bytes));
        assert_eq!(strangers(&dir), [""; 0]);
    }
}

/// The end of a get is not put off by a list that goes on.
#[test]
fn what_is_kept_is_given_up_in_order_though_the_list_goes_on() {
    let dir = TempDir::new();
    let kept = dir.join("kept");
    let mut get = psync!("get", "-k", "-d", &kept, "-")
        .stdin_from(std::process::Stdio::piped())
        .start();
    let mut list = get.stdin.take().unwrap();
    std::io::Write::write_all(&mut list, format!("{}\n", hash_hex(b"nobody's")).as_bytes())
        .unwrap();
    // The list stays open until it has ended.
    get.wait().fails_naming(3, &["it is not at hand"]);
    drop(list);
    assert_eq!(strangers(&kept), [""; 0]);
}
