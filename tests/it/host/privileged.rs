//! What only root can set up: full and shut-down file systems, an empty chroot, limits of memory and of
//! threads. Mounts are made by hand and taken down when dropped.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::host::machine::round_trip;
use crate::store::block_dir::busy_writer;
use crate::support::*;

const MIB: usize = 1 << 20;

#[test]
#[ignore = "mounts"]
fn root_a_full_disk_says_what_is_full_and_the_next_run_completes() {
    let bytes = random(20 * MIB, 1);
    let resume = "make room and run the same command again to resume\n";
    let space = &["psync: ", "No space left on device (see df); ", resume];
    let inodes = &[
        "psync: create ",
        "No space left on device: no inode is left (see df -i); ",
        "run the same command again to resume\n",
    ];
    // Room for some of the blocks, the rest taken by something that can go.
    let ballast = |mount: &Mount, mib: usize, files: usize| {
        let dir = mount.at.join("ballast");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("big"), vec![1; mib * MIB]).unwrap();
        (0..files).for_each(|n| fs::write(dir.join(n.to_string()), "").unwrap());
        dir
    };
    for (mount, mib, files, told) in [
        (Mount::tmpfs("size=48m"), 30, 0, space),
        (Mount::tmpfs("nr_inodes=9000"), 0, 4000, inodes),
        (Mount::tmpfs("nr_inodes=9000"), 0, 8000, inodes),
        (
            Mount::made_by("mkfs.ext4", &["-N", "20000"], 48),
            20,
            0,
            space,
        ),
        (
            Mount::made_by("mkfs.ext4", &["-N", "6000"], 64),
            0,
            1500,
            inodes,
        ),
    ] {
        let ballast = ballast(&mount, mib, files);
        let export = || psync!("export", "-d", mount.blocks()).stdin(&bytes).run();
        let out = export().fails_naming(1, told);
        assert_eq!(out.stderr.lines().count(), 1, "{out}");
        assert!(hashlist(&bytes).as_bytes().starts_with(&out.stdout));
        assert_stored(mount.blocks(), out.text());
        assert_eq!(strangers(mount.blocks()), [""; 0]);
        fs::remove_dir_all(ballast).unwrap();
        let out = export().ok();
        assert!(out.text() == hashlist(&bytes));
        assert_stored(mount.blocks(), out.text());
        assert_eq!(strangers(mount.blocks()), [""; 0]);
    }
}

#[test]
#[ignore = "mounts"]
fn root_a_killed_writers_temporaries_give_their_inodes_back() {
    let mount = Mount::tmpfs("nr_inodes=3000");
    busy_writer(&mount.blocks(), &random(4 * MIB, 2)).kill();
    let litter = strangers(mount.blocks()).len();
    let mut fillers = 0;
    while fs::write(mount.at.join(format!("filler{fillers}")), "").is_ok() {
        fillers += 1;
    }
    // Only what the dead left stands between this and a free inode.
    assert!(litter > 64 && fillers > 64);
    let export = || psync!("export", "-d", mount.blocks()).stdin("x").run();
    let first = export();
    let second = export();
    assert!(second.status == 0, "first: {first}\nsecond: {second}");
    assert_stored(mount.blocks(), second.text());
    assert_eq!(strangers(mount.blocks()), [""; 0]);
}

#[test]
#[ignore = "mounts"]
fn root_a_read_only_file_system_is_one_clear_error() {
    let mount = Mount::tmpfs("size=1m");
    fs::create_dir(mount.blocks()).unwrap();
    tool!("mount", "-o", "remount,ro", &mount.at).run().ok();
    for dir in [mount.blocks(), mount.at.join("new")] {
        let out = psync!("export", "-d", &dir).stdin("x").run();
        let place = dir.display().to_string();
        let out = out.fails_naming(1, &["psync: create ", &place, ": Read-only file system\n"]);
        assert_eq!(out.stderr.lines().count(), 1);
    }
}

/// What must hold after a power cut, of the blocks whose hashes had been printed before it.
fn assert_survived(blocks: &Path, printed: &str, bytes: &[u8], what: &str) {
    assert_stored(blocks, printed);
    // A name that shows something else may only be one that nobody believes.
    let right = block_map(bytes);
    let found = |name: &String| fs::read(blocks.join(name)).ok();
    let wrong: Vec<_> = if blocks.exists() {
        names(blocks)
    } else {
        Vec::new()
    };
    let wrong = wrong
        .iter()
        .filter(|name| right.contains_key(*name) && found(name) != right.get(*name).cloned());
    let wrong: Vec<_> = wrong.collect();
    if !wrong.is_empty() {
        let server = Server::start(blocks);
        for name in wrong {
            assert_eq!(
                get(server.addr(), &format!("/{name}")).status,
                404,
                "{what}: {name}"
            );
        }
    }
    let out = psync!("export", "-d", blocks).stdin(bytes).run().ok();
    assert!(out.text() == hashlist(bytes), "{what}");
    assert_stored(blocks, out.text());
    assert_eq!(strangers(blocks), [""; 0], "{what}");
}

// The file system's own shutdown stops all writing at one moment, and mounting again replays its
// journal: what is then there is what psync, and the kernel meanwhile, had brought to the disk. It
// shows that enough was synced, in the right order. It cannot show a disk that reorders or forgets
// what it has acknowledged, nor sectors half written: here the loop device's file is the disk, and
// keeps whatever it was sent.

#[test]
#[ignore = "mounts"]
fn root_after_exit_0_a_power_cut_takes_no_block() {
    let bytes = random(20 * MIB, 3);
    for mkfs in journaled() {
        // The second time all of it is there already, put there by one that did not sync.
        for unsynced_before in [false, true] {
            let mount = Mount::made_by(mkfs, &[], DISK);
            if unsynced_before {
                psync!("export", "--no-sync", "-d", mount.blocks())
                    .stdin(&bytes)
                    .run()
                    .ok();
            }
            let out = psync!("export", "-d", mount.blocks())
                .stdin(&bytes)
                .run()
                .ok();
            // As pulled at that moment: the disk as it is, copied past the file system.
            let image = mount.image.clone().unwrap();
            let copy = image.with_extension("copy");
            tool!("cp", "--sparse=always", &image, &copy).run().ok();
            mount.shut_down();
            for image in [&image, &copy] {
                mount.unmount();
                mount.mount(image);
                let what = format!("{mkfs}, {}", image.display());
                assert_survived(&mount.blocks(), out.text(), &bytes, &what);
            }
        }
    }
}

#[test]
#[ignore = "mounts"]
fn root_the_simulated_power_cut_does_take_what_was_not_synced() {
    let bytes = random(20 * MIB, 4);
    for mkfs in journaled() {
        let mount = Mount::made_by(mkfs, &[], DISK);
        let out = psync!("export", "--no-sync", "-d", mount.blocks())
            .stdin(&bytes)
            .run()
            .ok();
        mount.shut_down();
        mount.unmount();
        mount.mount(mount.image.as_ref().unwrap());
        let right = |hash: &&str| {
            fs::read(mount.blocks().join(hash)).is_ok_and(|block| hash_hex(&block) == **hash)
        };
        let kept = out.text().lines().filter(right).count();
        assert!(
            kept < out.text().lines().count(),
            "{mkfs}: all kept, so it shows nothing"
        );
        // Even so nothing is lost that another export does not put right.
        assert_survived(&mount.blocks(), "", &bytes, mkfs);
    }
}

#[test]
#[ignore = "mounts"]
fn root_a_power_cut_in_the_middle_leaves_every_printed_block_and_the_next_run_completes() {
    let bytes = random(52 * MIB, 5);
    let lines = |out: &[u8]| out.iter().filter(|&&byte| byte == b'\n').count();
    // After so much input, and once so many lines are there.
    for (fed, printed) in [
        (MIB, 0),
        (16 * MIB, 0),
        (17 * MIB, 1),
        (34 * MIB, 4097),
        (52 * MIB, 8000),
        (36 * MIB, 0),
    ] {
        for mkfs in journaled() {
            let what = format!("{mkfs} after {fed} bytes and {printed} lines");
            let mount = Mount::made_by(mkfs, &[], DISK);
            let mut run = psync!("export", "-d", mount.blocks())
                .stdin_from(Stdio::piped())
                .start();
            run.stdin
                .as_mut()
                .unwrap()
                .write_all(&bytes[..fed])
                .unwrap();
            let out = run.wait_stdout(|out| lines(out) >= printed);
            mount.shut_down();
            run.kill();
            mount.unmount();
            mount.mount(mount.image.as_ref().unwrap());
            let text = String::from_utf8(out).unwrap();
            assert!(hashlist(&bytes).starts_with(&text));
            assert_survived(&mount.blocks(), &text, &bytes, &what);
        }
    }
}

/// A memory cgroup of this kernel's version, and the file by which to join it; none where there is no
/// controller to be had.
fn memory_cgroup(bytes: usize) -> Option<(PathBuf, PathBuf)> {
    let name = format!("psync-it-{}", std::process::id());
    for (root, limit) in [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ] {
        let group = Path::new(root).join(&name);
        if fs::create_dir(&group).is_ok() {
            if fs::write(group.join(limit), bytes.to_string()).is_ok() {
                return Some((group.clone(), group.join("cgroup.procs")));
            }
            let _ = fs::remove_dir(&group);
        }
    }
    None
}

#[test]
#[ignore = "makes a cgroup"]
fn root_sixteen_megabytes_of_memory_are_enough_for_a_hundred() {
    // The cgroup counts what is resident, caches too: the fairest measure of a small box. On a disk,
    // for on a tmpfs the blocks themselves would be memory.
    let Some((group, join)) = memory_cgroup(16 * MIB) else {
        skip!("no memory cgroup")
    };
    let join = format!("echo $$ >'{}'", join.display());
    round_trip(&TempDir::on_disk(), 100, PSYNC, &|run| run.sh(&join));
    wait_until("the cgroup is empty", || fs::remove_dir(&group).is_ok());
}

#[test]
#[ignore = "takes another user id"]
fn root_few_threads_are_enough() {
    // Nobody's: the limit counts all that a user runs.
    let id = ["--reuid", "54321", "--regid", "54321", "--clear-groups"];
    let dir = TempDir::new();
    chown(&dir, Some(54321), Some(54321)).unwrap();
    // Where the binary was built, that user may not go.
    let program = dir.join("psync");
    fs::copy(PSYNC, &program).unwrap();
    let limited = |run: Run, threads: &str| run.under("setpriv", id).under("prlimit", [threads]);
    round_trip(&dir, 16, program.to_str().unwrap(), &|run| {
        limited(run, "--nproc=16")
    });
    let bytes = fs::read(dir.join("in")).unwrap();
    let alone = Run::new(&program)
        .args(["export", "-d", "b2", "in"])
        .cwd(&dir);
    let out = limited(alone, "--nproc=1").run().ok();
    assert!(out.text() == hashlist(&bytes));
    assert_stored(dir.join("b2"), out.text());
}

#[test]
#[ignore = "a release build, and a chroot"]
fn root_the_static_binary_alone_works_in_an_empty_chroot() {
    let mut build = tool!("sh", "tests/static.sh").cwd(env!("CARGO_MANIFEST_DIR"));
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"] {
        if let Some(value) = std::env::var_os(name) {
            build = build.env(name, value);
        }
    }
    let out = build.limit(Duration::from_secs(900)).run();
    assert_eq!(out.status, 0, "{out}");
    let (binary, _) = out
        .text()
        .lines()
        .last()
        .unwrap()
        .split_once(": static")
        .unwrap();
    let dir = TempDir::new();
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join(binary),
        dir.join("psync"),
    )
    .unwrap();
    let root = dir.to_path_buf();
    round_trip(&dir, 100, "/psync", &|run| run.under("chroot", [&root]));
    assert_eq!(dir.names(), ["b", "in", "list", "psync"]);
}
