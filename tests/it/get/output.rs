//! `get -o`: all or nothing, resumed after anything, in place where that is asked for, a stream where
//! FILE is one; and that nothing is asked for that is there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;

const SOON: Duration = Duration::from_secs(15);

/// A sample, and FILE in a directory of its own.
struct To {
    sample: Sample,
    file: PathBuf,
}

impl To {
    /// So many whole blocks and a short one.
    fn new(whole: usize) -> Self {
        Self::of(random(whole * BLOCK_SIZE + 5, 41))
    }

    fn of(bytes: Vec<u8>) -> Self {
        let mut sample = Sample::new(0);
        fs::write(&sample.list, hashlist(&bytes)).unwrap();
        sample.bytes = bytes;
        let out = sample.dir.join("out");
        fs::create_dir(&out).unwrap();
        Self {
            sample,
            file: out.join("file"),
        }
    }

    fn dir(&self) -> &Path {
        self.file.parent().unwrap()
    }

    /// FILE as it is before, if at all.
    fn has(&self, before: Option<&str>) {
        if let Some(before) = before {
            fs::write(&self.file, before).unwrap();
        }
    }

    fn part(&self) -> PathBuf {
        part(&self.file)
    }

    fn get(&self, server: &HostileServer) -> Run {
        self.get_to(&self.file, server)
    }

    fn get_to(&self, file: impl AsRef<OsStr>, server: &HostileServer) -> Run {
        self.sample.get(&[server]).arg("-o").arg(file).limit(SOON)
    }

    /// Not a word, the whole file, and nothing else beside it.
    #[track_caller]
    fn is_whole(&self, output: Output) {
        assert_eq!(output.ok().stdout, b"");
        self.holds(&self.sample.bytes);
    }

    #[track_caller]
    fn holds(&self, bytes: &[u8]) {
        assert!(fs::read(&self.file).unwrap() == bytes, "not the file");
        assert_eq!(names(self.dir()), ["file"]);
    }

    /// Blocks of the sample that lie at their own places in the file at `path`.
    fn right_in(&self, path: &Path) -> usize {
        let there = fs::read(path).unwrap_or_default();
        blocks(&there)
            .zip(blocks(&self.sample.bytes))
            .filter(|(there, wanted)| there == wanted)
            .count()
    }

    fn count(&self) -> usize {
        blocks(&self.sample.bytes).len()
    }

    /// A server without these blocks.
    fn lacking(&self, lacks: &[usize]) -> HostileServer {
        let mut map = self.sample.map();
        for &n in lacks {
            map.remove(&self.sample.hash(n));
        }
        HostileServer::http(move |request| Reply::honest(&map, request))
    }

    /// A server that answers so many requests, and then no more.
    fn stalling(&self, answers: usize) -> HostileServer {
        let (map, asked) = (self.sample.map(), AtomicUsize::new(0));
        HostileServer::http(move |request| match asked.fetch_add(1, Ordering::SeqCst) {
            n if n < answers => Reply::honest(&map, request),
            _ => Reply::raw("").then_silence(),
        })
    }

    /// A get of FILE that waits for ever for its server's next answer.
    #[track_caller]
    fn stuck(&self, server: &HostileServer, options: &[&str]) -> Running {
        let run = self
            .get(server)
            .args(options)
            .limit(Duration::from_secs(60))
            .start();
        let before = server.requests().len();
        wait_until("it asks", || server.requests().len() > before);
        run
    }
}

pub fn part(file: &Path) -> PathBuf {
    let mut part = file.to_owned().into_os_string();
    part.push(".part");
    part.into()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// What a file is known by: it was not written again if this has not changed.
fn identity(path: &Path) -> (u64, i64, i64, i64, i64) {
    let at = fs::metadata(path).unwrap();
    (
        at.ino(),
        at.mtime(),
        at.mtime_nsec(),
        at.ctime(),
        at.ctime_nsec(),
    )
}

/// Runs it and returns what came of it with the (offset, length) of each write at a place.
#[track_caller]
fn traced(run: Run) -> (Output, Vec<(u64, usize)>) {
    let dir = TempDir::new();
    let trace = dir.join("trace");
    let words = ["-f", "-qq", "-s", "0", "-e", "trace=pwrite64", "-o"];
    let words = words.iter().map(OsStr::new).chain([trace.as_os_str()]);
    let output = run.under("strace", words).run();
    let text = fs::read_to_string(trace).unwrap();
    let writes = text.lines().filter(|line| line.contains("pwrite64("));
    // 17 pwrite64(4, ""..., 4096, 8192) = 4096
    let writes = writes.map(|line| {
        let (call, length) = line.rsplit_once(" = ").unwrap();
        let offset = call.trim_end().trim_end_matches(')').rsplit_once(", ");
        (offset.unwrap().1.parse().unwrap(), length.parse().unwrap())
    });
    (output, writes.collect())
}

#[test]
fn every_size_arrives_whole_and_in_silence() {
    for size in [1, 4095, 4096, 4097, 8192, (1 << 20) + 1] {
        for jobs in ["1", "8"] {
            let to = To::of(random(size, 7));
            let server = to.sample.honest();
            to.is_whole(to.get(&server).args(["-j", jobs]).run());
            assert_eq!(server.requests().len(), to.count(), "{size}");
        }
    }
}

#[test]
fn an_empty_list_gives_an_empty_file_and_a_warning() {
    for before in [None, Some("old"), Some("")] {
        for options in [&[][..], &["--in-place"]] {
            let to = To::of(Vec::new());
            let server = to.sample.honest();
            to.has(before);
            let list = to.sample.list.display();
            let warning = format!(
                "psync: get {list}: the hashlist is empty, so the file is; a failed download of the list looks the same\n"
            );
            to.get(&server).args(options).run().warns(&warning);
            to.holds(b"");
            assert_eq!(server.connections(), 0);
        }
    }
}

#[test]
fn the_list_may_come_by_a_pipe() {
    for before in [None, Some(3), Some(12)] {
        let to = To::new(9);
        let server = to.sample.honest();
        if let Some(old) = before {
            fs::write(&to.file, random(old * BLOCK_SIZE, 8)).unwrap();
        }
        let run = psync!("get", server.url(), "-", "--retry", "0", "-o", &to.file);
        to.is_whole(run.stdin(hashlist(&to.sample.bytes)).run());
    }
}

#[test]
fn file_is_as_it_was_until_complete_and_the_next_run_asks_only_for_what_was_missing() {
    for (old, lacks) in [
        (None, &[4][..]),
        (Some("an older one"), &[0, 9]),
        (Some(""), &[1, 2, 3, 4, 5]),
    ] {
        for jobs in ["1", "8"] {
            let to = To::new(9);
            to.has(old);
            let get = |server: &HostileServer| to.get(server).args(["-j", jobs]).run();
            let out = get(&to.lacking(lacks));
            assert!(out.status == 3 && out.stdout.is_empty(), "{out}");
            match old {
                None => assert_eq!(names(to.dir()), ["file.part"]),
                Some(old) => {
                    assert_eq!(fs::read_to_string(&to.file).unwrap(), old);
                    assert_eq!(names(to.dir()), ["file", "file.part"]);
                }
            }
            assert_eq!(to.right_in(&to.part()), to.count() - lacks.len());
            let good = to.sample.honest();
            to.is_whole(get(&good));
            let mut asked = good.targets();
            asked.sort();
            let mut wanted: Vec<_> = lacks
                .iter()
                .map(|&n| format!("/{}", to.sample.hash(n)))
                .collect();
            wanted.sort();
            assert_eq!(asked, wanted);
        }
    }
}

#[test]
fn missing_blocks_are_counted_and_the_first_are_named() {
    for (lacks, more) in [(&[4][..], ""), (&[0, 5, 9], ""), (&[1, 2, 3, 4], ", ...")] {
        let to = To::new(9);
        let server = to.lacking(lacks);
        let names = lacks.iter().take(3);
        let names: Vec<_> = names
            .map(|&n| format!("{} (block {})", to.sample.hash(n), n + 1))
            .collect();
        let stderr = format!(
            "psync: get {}: {} of 10 blocks could not be had: {}{more}; the same command later goes on from here\n",
            to.sample.list.display(),
            lacks.len(),
            names.join(", ")
        );
        let out = to.get(&server).run();
        assert!(out.status == 3 && out.stderr.starts_with(&stderr), "{out}");
        assert_eq!(to.right_in(&to.part()), 10 - lacks.len());
    }
}

#[test]
fn killed_at_any_instant_it_goes_on_from_what_it_had() {
    for jobs in [1, 3] {
        for answers in [0, 1, 2, 7, 16, 17, 40, 63] {
            let to = To::new(63);
            fs::write(&to.file, "old").unwrap();
            let silent = to.stalling(answers);
            let run = to
                .get(&silent)
                .args(["-j", &jobs.to_string()])
                .limit(Duration::from_secs(60))
                .start();
            wait_until("it asks once more", || silent.requests().len() > answers);
            assert_eq!(run.kill().status, 137);
            assert_eq!(fs::read(&to.file).unwrap(), b"old");
            let had = to.right_in(&to.part());
            let good = to.sample.honest();
            to.is_whole(to.get(&good).run());
            assert_eq!(good.requests().len(), 64 - had, "{jobs} {answers}");
            // What was in flight may be lost, and no more.
            assert!(had + jobs * 32 >= answers, "{had} of {answers} kept");
        }
    }
}

/// Or a slow link and a time limit would never come to the end together.
#[test]
fn a_block_goes_to_its_place_when_it_comes_not_with_its_neighbours() {
    let to = To::new(63);
    let silent = to.stalling(10);
    let run = to.get(&silent).limit(Duration::from_secs(60)).start();
    wait_until("what came is in the part", || to.right_in(&to.part()) == 10);
    run.kill();
    let good = to.sample.honest();
    to.is_whole(to.get(&good).run());
    assert_eq!(good.requests().len(), 54);
}

#[test]
fn whatever_lies_in_the_part_only_what_is_right_is_believed() {
    let whole = To::new(9).sample.bytes;
    let block = |n: usize| &whole[n * BLOCK_SIZE..][..BLOCK_SIZE];
    let rubbish = random(10 * BLOCK_SIZE, 99);
    let damaged = {
        let mut bytes = whole.clone();
        bytes[3 * BLOCK_SIZE + 17] ^= 1;
        bytes
    };
    for (what, part, asked) in [
        ("nothing", Vec::new(), 10),
        ("rubbish", rubbish.clone(), 10),
        ("short rubbish", rubbish[..100].to_vec(), 10),
        ("longer rubbish", random(30 * BLOCK_SIZE, 98), 10),
        ("all of it", whole.clone(), 0),
        ("a flipped bit", damaged, 1),
        ("cut", whole[..4 * BLOCK_SIZE + 1].to_vec(), 6),
        ("cut by one", whole[..whole.len() - 1].to_vec(), 1),
        ("at wrong places", [block(1), block(0)].concat(), 10),
        (
            "one more in front",
            [&rubbish[..BLOCK_SIZE], &whole].concat(),
            10,
        ),
        (
            "whole and longer by blocks",
            [&whole[..9 * BLOCK_SIZE], &rubbish].concat(),
            1,
        ),
    ] {
        for old in [None, Some("old")] {
            let to = To::new(9);
            to.has(old);
            fs::write(to.part(), &part).unwrap();
            let server = to.sample.honest();
            to.is_whole(to.get(&server).run());
            assert_eq!(server.requests().len(), asked, "{what}");
        }
    }
}

#[test]
fn the_right_last_block_of_a_longer_part_or_file_is_not_asked_for() {
    for options in [&[][..], &["--in-place"]] {
        let to = To::new(3);
        let longer = [&to.sample.bytes[..], b"more"].concat();
        fs::write(&to.file, &longer).unwrap();
        let server = to.sample.honest();
        to.is_whole(to.get(&server).args(options).run());
        assert_eq!(server.targets(), [""; 0], "{options:?}");
    }
}

#[test]
fn a_fifo_or_a_directory_as_the_part_is_no_hang_and_harms_nothing() {
    type Make = fn(&Path);
    let makes: [(&str, Make); 2] = [
        ("fifo", |part| drop(tool!("mkfifo", part).run().ok())),
        ("directory", |part| fs::create_dir(part).unwrap()),
    ];
    for (what, make) in makes {
        let to = To::new(2);
        fs::write(&to.file, "old").unwrap();
        make(&to.part());
        let out = to.get(&to.sample.honest()).run();
        let out = out.fails_naming(1, &["psync: ", "file.part: "]);
        assert_eq!(out.stderr.lines().count(), 1, "{what}: {out}");
        assert_eq!(fs::read(&to.file).unwrap(), b"old");
    }
}

#[test]
fn what_is_right_in_file_is_not_fetched() {
    for (at, asked) in [
        (&[][..], 0),
        (&[0], 1),
        (&[9], 1),
        (&[2, 3, 7], 3),
        (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 10),
    ] {
        for options in [&[][..], &["--in-place"]] {
            let to = To::new(9);
            let mut old = to.sample.bytes.clone();
            at.iter().for_each(|&n| old[n * BLOCK_SIZE] ^= 1);
            fs::write(&to.file, old).unwrap();
            let server = to.sample.honest();
            to.is_whole(to.get(&server).args(options).run());
            assert_eq!(server.requests().len(), asked, "{at:?} {options:?}");
        }
    }
}

#[test]
fn blocks_of_file_are_found_at_other_places() {
    let whole = To::new(9).sample.bytes;
    let other = random(3 * BLOCK_SIZE, 5);
    let backwards: Vec<_> = whole[..9 * BLOCK_SIZE]
        .chunks(BLOCK_SIZE)
        .rev()
        .flatten()
        .copied()
        .collect();
    for (what, old, asked) in [
        ("later", [&other[..], &whole].concat(), 0),
        ("earlier", whole[2 * BLOCK_SIZE..].to_vec(), 2),
        ("backwards", backwards, 1),
        // Only what lies at whole blocks is found.
        ("by a byte", [b"x", &whole[..]].concat(), 10),
    ] {
        let to = To::new(9);
        fs::write(&to.file, old).unwrap();
        let server = to.sample.honest();
        to.is_whole(to.get(&server).run());
        assert_eq!(server.requests().len(), asked, "{what}");
    }
}

#[test]
fn a_file_that_is_right_already_is_not_touched_and_nothing_is_asked() {
    for options in [&[][..], &["--in-place"], &["-j", "8"]] {
        let to = To::new(9);
        fs::write(&to.file, &to.sample.bytes).unwrap();
        fs::set_permissions(&to.file, fs::Permissions::from_mode(0o640)).unwrap();
        let before = identity(&to.file);
        let server = to.sample.honest();
        to.is_whole(to.get(&server).args(options).run());
        assert_eq!(identity(&to.file), before);
        assert_eq!(server.connections(), 0);
    }
}

#[test]
fn a_file_that_is_right_already_may_lie_in_a_directory_that_is_read_only() {
    let to = To::new(3);
    fs::write(&to.file, &to.sample.bytes).unwrap();
    fs::set_permissions(&to.file, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(to.dir(), fs::Permissions::from_mode(0o555)).unwrap();
    to.is_whole(to.get(&to.sample.honest()).powerless().run());
}

#[test]
fn file_keeps_its_mode_and_a_new_one_has_that_of_the_umask() {
    for old in [0o600, 0o755, 0o644, 0o4711] {
        for options in [&[][..], &["--in-place"]] {
            let to = To::new(2);
            fs::write(&to.file, "old").unwrap();
            fs::set_permissions(&to.file, fs::Permissions::from_mode(old)).unwrap();
            let server = to.sample.honest();
            to.is_whole(to.get(&server).args(options).run());
            // Writing to a file takes its set-user-id bit, unless it is root who writes.
            assert_eq!(mode(&to.file) & 0o777, old & 0o777, "{old:o}");
        }
    }
    for (umask, new) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        let to = To::new(2);
        let umask = format!("umask {umask}");
        to.is_whole(to.get(&to.sample.honest()).sh(&umask).run());
        assert_eq!(mode(&to.file), new);
    }
}

#[test]
fn a_private_file_is_as_private_while_it_is_put_together() {
    let to = To::new(2);
    fs::write(&to.file, "old").unwrap();
    fs::set_permissions(&to.file, fs::Permissions::from_mode(0o600)).unwrap();
    let silent = to.stalling(1);
    let run = to.stuck(&silent, &[]);
    assert_eq!(mode(&to.part()) & 0o077, 0, "others may read FILE.part");
    run.kill();
}

#[test]
fn a_symbolic_link_is_followed_and_stays() {
    // What `link` says, a second link's text if there is one, and whether the target is there.
    for (link, second, exists) in [
        ("out/file", None, true),
        ("out/file", None, false),
        ("./out/../out/file", None, true),
        ("ABSOLUTE", None, true),
        ("ABSOLUTE", None, false),
        ("dir/second", Some("../out/file"), true),
        ("dir/second", Some("../out/file"), false),
        ("dir/second", Some("ABSOLUTE"), false),
    ] {
        let to = To::new(3);
        let root = &to.sample.dir;
        let path = |text: &str| match text {
            "ABSOLUTE" => to.file.clone(),
            text => text.into(),
        };
        fs::create_dir(root.join("dir")).unwrap();
        let from = root.join("link");
        symlink(path(link), &from).unwrap();
        if let Some(text) = second {
            symlink(path(text), root.join("dir/second")).unwrap();
        }
        if exists {
            fs::write(&to.file, "old").unwrap();
        }
        let before = names(root);
        let server = to.sample.honest();
        to.is_whole(to.get_to(&from, &server).run());
        assert_eq!(fs::read_link(&from).unwrap(), path(link));
        assert_eq!(names(root), before);
        assert_eq!(names(root.join("dir")).len(), usize::from(second.is_some()));
        // By a relative name too.
        fs::write(&to.file, "old").unwrap();
        to.is_whole(to.get_to("link", &server).cwd(root).run());
    }
}

#[test]
fn an_output_that_cannot_be_is_one_clear_error_and_nothing_is_asked() {
    let to = To::new(2);
    let root = &to.sample.dir;
    let closed = root.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("old"), "old").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    for (output, cause) in [
        ("out", "Is a directory"),
        ("list/file", "Not a directory"),
        ("list/.", "Not a directory"),
        ("closed/new", "Permission denied"),
        ("closed/old", "Permission denied"),
        ("loop", "Too many levels of symbolic links"),
    ] {
        for options in [&[][..], &["--in-place"]] {
            if (output, options.len()) == ("closed/old", 1) {
                continue;
            }
            let server = to.sample.honest();
            let run = to.get_to(output, &server).args(options).cwd(root);
            let out = run.powerless().run();
            assert!(
                matches!(out.status, 1 | 2) && out.stderr.contains(cause),
                "-o '{output}' {options:?}: {out}"
            );
            assert_eq!(out.stderr.lines().count(), 1, "{out}");
            assert_eq!(server.connections(), 0, "-o '{output}'");
        }
    }
    assert_eq!(fs::read(closed.join("old")).unwrap(), b"old");
    assert_eq!(names(to.dir()), [""; 0]);
}

#[test]
fn an_output_in_a_missing_directory_is_one_clear_error_and_nothing_is_asked() {
    let to = To::new(2);
    let root = &to.sample.dir;
    symlink("none/x", root.join("dangling")).unwrap();
    for output in ["none/file", "dangling", "new/", "new/."] {
        for options in [&[][..], &["--in-place"]] {
            let server = to.sample.honest();
            let run = to.get_to(output, &server).args(options).cwd(root);
            let out = run.run();
            let one_line = out.stderr.lines().count() == 1;
            assert!(
                out.status == 1 && one_line,
                "-o '{output}' {options:?}: {out}"
            );
            assert_eq!(server.connections(), 0, "-o '{output}'");
        }
    }
    assert!(!root.join("none").exists() && !root.join("new").exists());
}

#[test]
fn an_output_without_a_name_is_one_clear_error_and_leaves_nothing() {
    for options in [&[][..], &["--in-place"]] {
        let to = To::new(2);
        let server = to.sample.honest();
        let run = to.get_to("", &server).args(options).cwd(to.dir());
        let out = run.run();
        let refused = matches!(out.status, 1 | 2) && out.stderr.lines().count() == 1;
        assert!(refused, "{options:?}: {out}");
        assert_eq!(server.connections(), 0);
        assert_eq!(names(to.dir()), [""; 0]);
    }
}

#[test]
fn a_link_as_the_part_leads_to_no_other_file() {
    let to = To::new(2);
    let other = to.sample.dir.file("other", "precious");
    symlink(&other, to.part()).unwrap();
    let server = to.sample.honest();
    let out = to.get(&server).run();
    assert_eq!(fs::read(&other).unwrap(), b"precious", "{out}");
    let is_link = fs::symlink_metadata(&to.file).is_ok_and(|file| file.is_symlink());
    assert!(!is_link, "{out}");
}

#[test]
fn a_fifo_gets_the_bytes_in_order() {
    for options in [&[][..], &["--in-place"]] {
        let to = To::new(40);
        tool!("mkfifo", &to.file).run().ok();
        let server = to.sample.honest();
        let reader = tool!("cat", &to.file).limit(SOON).start();
        let run = to.get(&server).args(options).args(["-j", "4"]);
        let out = run.run().ok();
        assert_eq!(out.stdout, b"");
        assert!(reader.wait().ok().stdout == to.sample.bytes);
        assert_eq!(names(to.dir()), ["file"]);
    }
}

#[test]
fn a_fifo_ends_before_the_first_block_that_nobody_had() {
    let to = To::new(5);
    tool!("mkfifo", &to.file).run().ok();
    let reader = tool!("cat", &to.file).limit(SOON).start();
    let server = to.lacking(&[3]);
    let out = to.get(&server).run();
    out.fails_naming(3, &[&to.sample.lacks(3)]);
    assert!(reader.wait().ok().stdout == to.sample.bytes[..3 * BLOCK_SIZE]);
}

#[test]
fn a_character_device_is_a_stream() {
    let to = To::new(5);
    let server = to.sample.honest();
    let out = to.get_to("/dev/null", &server).run().ok();
    assert_eq!(out.stdout, b"");
    assert_eq!(server.requests().len(), 6);
    let out = to.get_to("/dev/full", &server).run();
    out.fails_naming(1, &["psync: write /dev/full: No space left on device"]);
    assert!(!Path::new("/dev/null.part").exists());
}

#[test]
fn the_device_that_stands_for_standard_output_is_a_stream_where_that_is_a_pipe() {
    let to = To::new(5);
    for name in ["/dev/stdout", "/proc/self/fd/1"] {
        let server = to.sample.honest();
        let run = to.get_to(name, &server);
        to.sample.is_whole(run.run());
    }
}

#[test]
fn a_dash_is_standard_output_whatever_lies_under_that_name() {
    for there in [None, Some(false), Some(true)] {
        let to = To::new(5);
        match there {
            None => {}
            Some(true) => fs::write(to.dir().join("-"), &to.sample.bytes).unwrap(),
            Some(false) => fs::write(to.dir().join("-"), "other").unwrap(),
        }
        let before = names(to.dir());
        let server = to.sample.honest();
        to.sample
            .is_whole(to.get_to("-", &server).cwd(to.dir()).run());
        assert_eq!(names(to.dir()), before);
    }
}

#[test]
fn output_names_need_not_be_utf_8_nor_begin_with_a_letter() {
    for name in [
        OsStr::from_bytes(b"\xff\xfe"),
        OsStr::new("-x"),
        OsStr::new("--in-place"),
        OsStr::new("a b\nc"),
    ] {
        let to = To::new(2);
        let server = to.sample.honest();
        let get = |server: &HostileServer| to.get_to(name, server).cwd(to.dir()).run();
        let out = get(&to.lacking(&[1]));
        assert!(out.status == 3, "{out}");
        get(&server).ok();
        assert!(fs::read(to.dir().join(name)).unwrap() == to.sample.bytes);
        assert_eq!(names(to.dir()).len(), 1);
        assert_eq!(server.requests().len(), 1);
    }
    let to = To::new(2);
    let mut word = OsStr::new("--output=").to_owned();
    word.push(OsStr::from_bytes(b"x\xff"));
    let server = to.sample.honest();
    let run = to.sample.get(&[&server]);
    run.arg(word).cwd(to.dir()).run().ok();
    assert!(fs::read(to.dir().join(OsStr::from_bytes(b"x\xff"))).unwrap() == to.sample.bytes);
}

#[test]
fn of_two_gets_of_one_file_the_second_says_so() {
    for (options, written) in [(&[][..], "file.part"), (&["--in-place"], "file")] {
        let to = To::new(9);
        fs::write(&to.file, "old").unwrap();
        // Answers the rest only when told to.
        let go = Arc::new(AtomicUsize::new(0));
        let (map, told) = (to.sample.map(), Arc::clone(&go));
        let slow = HostileServer::http(move |request| {
            wait_until("it may go on", || told.load(Ordering::SeqCst) > 0);
            Reply::honest(&map, request)
        });
        let first = to.stuck(&slow, options);
        let link = to.sample.dir.join("link");
        symlink(&to.file, &link).unwrap();
        let other = to.sample.honest();
        for name in [&to.file, &link] {
            let out = to.get_to(name, &other).args(options).run();
            let stderr = format!(
                "psync: write {}: another psync is writing it\n",
                to.dir().join(written).display()
            );
            out.fails(1, &stderr);
        }
        assert_eq!(other.connections(), 0);
        go.store(1, Ordering::SeqCst);
        to.is_whole(first.wait());
        // And there is nothing left of it in the way.
        to.is_whole(to.get(&other).args(options).run());
        fs::write(&to.file, "old").unwrap();
        to.is_whole(to.get(&other).args(options).run());
    }
}

#[test]
fn a_part_that_stays_beside_a_complete_file_is_no_trouble() {
    let to = To::new(4);
    let server = to.sample.honest();
    fs::write(&to.file, &to.sample.bytes).unwrap();
    fs::write(to.part(), random(BLOCK_SIZE, 3)).unwrap();
    to.get(&server).run().ok();
    assert!(fs::read(&to.file).unwrap() == to.sample.bytes);
    // A newer list takes what it can from both.
    fs::write(&to.file, &to.sample.bytes[..2 * BLOCK_SIZE]).unwrap();
    let mut part = vec![0; 5 * BLOCK_SIZE];
    part[2 * BLOCK_SIZE..3 * BLOCK_SIZE].copy_from_slice(to.sample.block(2));
    fs::write(to.part(), part).unwrap();
    to.is_whole(to.get(&server).run());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn zeros_are_holes_in_a_new_file_and_never_fetched() {
    let data = random(2 * BLOCK_SIZE, 4);
    let zeros = vec![0; 300 * BLOCK_SIZE];
    for (what, bytes, asked) in [
        ("inside", [&data[..], &zeros, &data].concat(), 4),
        ("in front", [&zeros[..], &data].concat(), 2),
        ("at the end", [&data[..], &zeros].concat(), 2),
        ("alone", zeros.clone(), 0),
    ] {
        for old in [None, Some("old")] {
            let to = To::of(bytes.clone());
            to.has(old);
            let server = to.sample.honest();
            to.is_whole(to.get(&server).run());
            assert_eq!(server.requests().len(), asked, "{what}");
            let taken = fs::metadata(&to.file).unwrap().blocks() * 512;
            assert!(taken < 200 * 1024, "{what}: {taken} bytes on the disk");
        }
    }
    // To a stream they are written, and not fetched either.
    let to = To::of([&data[..], &zeros].concat());
    let server = to.sample.honest();
    to.sample.is_whole(to.sample.get(&[&server]).run());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn zeros_are_written_over_what_is_not() {
    let data = random(2 * BLOCK_SIZE, 4);
    let zeros = vec![0; 3 * BLOCK_SIZE];
    let bytes = [&data[..], &zeros, &data, &zeros, &zeros[..9]].concat();
    for length in [bytes.len(), 3 * BLOCK_SIZE + 7, 20 * BLOCK_SIZE] {
        let old = vec![b'x'; length];
        let to = To::of(bytes.clone());
        fs::write(to.part(), &old).unwrap();
        to.is_whole(to.get(&to.sample.honest()).run());
        fs::write(&to.file, &old).unwrap();
        to.is_whole(to.get(&to.sample.honest()).arg("--in-place").run());
    }
}

#[test]
fn a_short_block_before_the_last_is_refused_and_file_stays() {
    let whole = random(3 * BLOCK_SIZE, 6);
    let short = &random(100, 7)[..];
    let map = {
        let mut map = block_map(&whole);
        map.insert(hash_hex(short), short.to_vec());
        map
    };
    let mut lines: Vec<_> = blocks(&whole).map(hash_hex).collect();
    lines.insert(1, hash_hex(short));
    for old in [
        None,
        Some("old"),
        Some(std::str::from_utf8(&[b'x'; 5000]).unwrap()),
    ] {
        let to = To::new(3);
        to.has(old);
        fs::write(&to.sample.list, lines.join("\n")).unwrap();
        let map = map.clone();
        let server = HostileServer::http(move |request| Reply::honest(&map, request));
        let stderr = format!(
            "psync: read hashlist {}:2: a block of 100 bytes, which only the last of a file may have\n",
            to.sample.list.display()
        );
        to.get(&server).run().fails(2, &stderr);
        assert_eq!(fs::read_to_string(&to.file).ok().as_deref(), old);
    }
}

#[test]
fn a_bad_list_leaves_no_trace() {
    let to = To::new(3);
    fs::write(&to.sample.list, hashlist(&to.sample.bytes) + "x\n").unwrap();
    let server = to.sample.honest();
    for options in [&[][..], &["--in-place"]] {
        to.get(&server)
            .args(options)
            .run()
            .fails_naming(2, &["list:5: "]);
        assert_eq!(names(to.dir()), [""; 0]);
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn in_place_grows_and_shrinks_and_writes_only_what_differs() {
    let whole = To::new(9).sample.bytes;
    let changed = |at: &[usize]| {
        let mut bytes = whole.clone();
        at.iter().for_each(|&n| bytes[n * BLOCK_SIZE] ^= 1);
        bytes
    };
    for (what, old, written) in [
        ("one differs", changed(&[4]), &[4][..]),
        ("three differ", changed(&[0, 5, 9]), &[0, 5, 9]),
        ("shorter", whole[..6 * BLOCK_SIZE].to_vec(), &[6, 7, 8, 9]),
        (
            "longer",
            [&whole[..9 * BLOCK_SIZE], &random(9 * BLOCK_SIZE, 2)].concat(),
            &[9],
        ),
    ] {
        let to = To::new(9);
        fs::write(&to.file, old).unwrap();
        let inode = fs::metadata(&to.file).unwrap().ino();
        let server = to.sample.honest();
        let (out, mut writes) = traced(to.get(&server).arg("--in-place"));
        to.is_whole(out);
        writes.sort_unstable();
        let offsets: Vec<_> = writes
            .iter()
            .map(|&(offset, _)| offset as usize / BLOCK_SIZE)
            .collect();
        assert_eq!(offsets, written, "{what}");
        assert_eq!(server.requests().len(), written.len(), "{what}");
        assert_eq!(fs::metadata(&to.file).unwrap().ino(), inode);
    }
}

#[test]
fn in_place_makes_a_file_and_resumes_it() {
    let to = To::new(9);
    let out = to.get(&to.lacking(&[2, 9])).arg("--in-place").run();
    assert!(out.status == 3, "{out}");
    assert_eq!(names(to.dir()), ["file"]);
    assert_eq!(to.right_in(&to.file), 8);
    let server = to.sample.honest();
    to.is_whole(to.get(&server).arg("--in-place").run());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn in_place_killed_at_any_instant_goes_on_from_what_it_had() {
    for answers in [0, 5, 17, 40] {
        let to = To::new(63);
        fs::write(&to.file, vec![b'x'; 100 * BLOCK_SIZE]).unwrap();
        let silent = to.stalling(answers);
        let get = |server: &HostileServer| to.get(server).arg("--in-place");
        let run = get(&silent).limit(Duration::from_secs(60)).start();
        wait_until("it asks once more", || silent.requests().len() > answers);
        run.kill();
        let had = to.right_in(&to.file);
        let good = to.sample.honest();
        to.is_whole(get(&good).run());
        assert_eq!(good.requests().len(), 64 - had);
    }
}

#[test]
fn in_place_without_an_output_is_a_usage_error() {
    let to = To::new(1);
    let server = to.sample.honest();
    let out = to.sample.get(&[&server]).arg("--in-place").run();
    out.fails_naming(2, &["--in-place", "--help"]);
    assert_eq!(server.connections(), 0);
}

/// Not its last block alone: all it said was asked of the disk before the name was.
#[test]
fn file_is_synced_before_it_gets_its_name_and_the_directory_after() {
    let to = To::new(3);
    let trace = to.sample.dir.join("trace");
    let words = ["-f", "-qq", "-y", "-e"].map(OsStr::new);
    let calls = OsStr::new("trace=fsync,fdatasync,rename,renameat,renameat2,pwrite64");
    let words = words
        .into_iter()
        .chain([calls, "-o".as_ref(), trace.as_os_str()]);
    let server = to.sample.honest();
    to.is_whole(to.get(&server).under("strace", words).run());
    let text = fs::read_to_string(trace).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let first = |what: &str| lines.iter().position(|line| line.contains(what)).unwrap();
    let last = |what: &str| lines.iter().rposition(|line| line.contains(what)).unwrap();
    let (written, synced) = (last("pwrite64("), first("sync("));
    let (renamed, directory) = (first("rename"), last("sync("));
    assert!(written < synced, "{text}");
    assert!(synced < renamed && renamed < directory, "{text}");
}

/// Whoever put it there, or its name, may have been killed before that.
#[test]
fn a_file_that_is_right_already_is_on_the_disk_too_when_that_is_said() {
    for option in ["--quiet", "--in-place"] {
        let to = To::new(3);
        fs::write(&to.file, &to.sample.bytes).unwrap();
        let run = to.get(&to.sample.honest()).arg(option);
        let (out, calls) = trace("fsync,fdatasync", &[], run);
        to.is_whole(out);
        let synced = |path: &Path| {
            calls
                .iter()
                .any(|call| call.paths().next() == path.to_str())
        };
        assert!(synced(&to.file) && synced(to.dir()), "{calls:?}");
    }
}

/// It reads as if it were on the disk, and syncs without a word the next time.
#[test]
fn nothing_is_believed_of_a_part_whose_sync_has_failed() {
    let to = To::new(9);
    fs::write(&to.file, "old").unwrap();
    let server = to.sample.honest();
    let inject = ["-e", "inject=fsync:error=EIO:when=1"];
    let (out, _) = trace("fsync", &inject, to.get(&server));
    let told = format!("psync: sync {}: Input/output error\n", to.part().display());
    out.fails(1, &told);
    assert_eq!(fs::read(&to.file).unwrap(), b"old");
    let asked = server.requests().len();
    to.is_whole(to.get(&server).run());
    assert_eq!(server.requests().len(), 2 * asked);
}

#[test]
#[ignore = "five gigabytes, sparse"]
fn slow_five_sparse_gigabytes_take_no_room_and_few_requests() {
    let blocks = 5 * (1 << 30) / BLOCK_SIZE;
    let to = To::new(3);
    let zero = hash_hex(&[0; BLOCK_SIZE]) + "\n";
    let first = hashlist(&to.sample.bytes[..3 * BLOCK_SIZE]);
    let list = first + &zero.repeat(blocks - 3) + &hash_hex(to.sample.block(3));
    fs::write(&to.sample.list, list).unwrap();
    let server = to.sample.honest();
    let get = || to.get(&server).limit(Duration::from_secs(500)).run().ok();
    get();
    let file = File::open(&to.file).unwrap();
    let size = (blocks * BLOCK_SIZE + 5) as u64;
    assert_eq!(file.metadata().unwrap().len(), size);
    assert!(file.metadata().unwrap().blocks() < 1000);
    let mut end = [1; 9];
    file.read_exact_at(&mut end, size - 9).unwrap();
    assert_eq!(end[..4], [0; 4]);
    assert_eq!(&end[4..], to.sample.block(3));
    assert_eq!(server.requests().len(), 4);
    let before = identity(&to.file);
    get();
    assert_eq!(identity(&to.file), before);
    assert_eq!(server.requests().len(), 4);
}

#[test]
#[ignore = "mounts"]
fn root_a_full_disk_is_told_and_with_room_made_the_same_command_goes_on() {
    for (options, shown) in [(&[][..], "file.part"), (&["--in-place"], "file")] {
        let mut to = To::new(200);
        let disk = Mount::tmpfs("size=2m");
        to.file = disk.at.join("file");
        let ballast = disk.fill(50 * BLOCK_SIZE);
        let server = to.sample.honest();
        let get = || to.get(&server).args(options).run();
        let out = get();
        let had = to.right_in(&disk.at.join(shown));
        assert!(had > 30, "{had}");
        let stderr = format!(
            "psync: write {}: No space left on device (see df), of which it takes {} bytes; make room and run the same command again to resume\n",
            disk.at.join(shown).display(),
            fs::metadata(disk.at.join(shown)).unwrap().blocks() * 512
        );
        out.fails(1, &stderr);
        fs::remove_file(ballast).unwrap();
        let before = server.requests().len();
        to.is_whole(get());
        assert_eq!(server.requests().len() - before, 201 - had);
    }
}

#[test]
#[ignore = "mounts"]
fn root_no_inode_for_the_part_is_told() {
    let mut to = To::new(2);
    let disk = Mount::tmpfs("nr_inodes=4");
    to.file = disk.at.join("file");
    let mut fillers = 0;
    while fs::write(disk.at.join(format!("filler{fillers}")), "").is_ok() {
        fillers += 1;
    }
    let server = to.sample.honest();
    let out = to.get(&server).run();
    let stderr = format!(
        "psync: create {}: No space left on device: no inode is left (see df -i); remove files and run the same command again to resume\n",
        to.part().display()
    );
    out.fails(1, &stderr);
    assert_eq!(server.connections(), 0);
    (0..fillers).for_each(|n| fs::remove_file(disk.at.join(format!("filler{n}"))).unwrap());
    to.is_whole(to.get(&server).run());
}

/// A block device of so many bytes over a file.
pub struct Loop {
    pub device: PathBuf,
    pub image: PathBuf,
    _dir: TempDir,
}

impl Loop {
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        let dir = TempDir::on_disk();
        let image = dir.file("image", bytes);
        Self::over(image, dir)
    }

    /// Over a file in this directory.
    pub fn over(image: PathBuf, dir: TempDir) -> io::Result<Self> {
        let out = tool!("losetup", "--show", "-f", &image).run();
        if out.status != 0 {
            return Err(io::Error::other(out.to_string()));
        }
        Ok(Self {
            device: out.text().trim().into(),
            image,
            _dir: dir,
        })
    }

    pub fn read(&self) -> Vec<u8> {
        tool!("sync").run().ok();
        fs::read(&self.image).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        at_drop(|| {
            let _ = tool!("losetup", "-d", &self.device).run();
        });
    }
}

#[test]
#[ignore = "a loop device"]
fn root_of_a_block_device_only_the_blocks_that_differ_are_written() {
    let whole = random(16 * BLOCK_SIZE, 3);
    // The device may be larger than the file; what is behind it stays.
    for rest in [0, 3 * BLOCK_SIZE, 512] {
        let to = To::of(whole.clone());
        let mut old = [&whole[..], &random(rest, 1)].concat();
        old[2 * BLOCK_SIZE] ^= 1;
        old[9 * BLOCK_SIZE + 4095] ^= 1;
        let device = match Loop::new(&old) {
            Ok(device) => device,
            Err(e) => skip!("no loop device: {e}"),
        };
        let server = to.sample.honest();
        let (out, mut writes) = traced(to.get_to(&device.device, &server));
        out.ok();
        writes.sort_unstable();
        assert_eq!(writes, [2, 9].map(|n| (n * 4096, 4096)));
        assert_eq!(server.requests().len(), 2);
        let now = device.read();
        assert!(now[..whole.len()] == whole && now[whole.len()..] == old[whole.len()..]);
        let (out, writes) = traced(to.get_to(&device.device, &server));
        out.ok();
        assert_eq!((writes.len(), server.requests().len()), (0, 2));
    }
}

#[test]
#[ignore = "a loop device"]
fn root_zeros_are_written_to_a_block_device() {
    let bytes = [random(BLOCK_SIZE, 3), vec![0; 4 * BLOCK_SIZE]].concat();
    let to = To::of(bytes.clone());
    let device = match Loop::new(&vec![b'x'; 8 * BLOCK_SIZE]) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let server = to.sample.honest();
    to.get_to(&device.device, &server).run().ok();
    assert_eq!(server.requests().len(), 1);
    let now = device.read();
    assert!(now[..bytes.len()] == bytes && now[bytes.len()..] == [b'x'; 3 * BLOCK_SIZE]);
}

#[test]
#[ignore = "a loop device"]
fn root_the_short_last_block_on_a_block_device_is_not_asked_for_twice() {
    let to = To::new(3);
    let device = match Loop::new(&vec![b'x'; 8 * BLOCK_SIZE]) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let server = to.sample.honest();
    to.get_to(&device.device, &server).run().ok();
    assert!(device.read().starts_with(&to.sample.bytes));
    assert_eq!(server.requests().len(), 4);
    let (out, writes) = traced(to.get_to(&device.device, &server));
    out.ok();
    assert_eq!((writes.len(), server.requests().len()), (0, 4));
}

#[test]
#[ignore = "a loop device"]
fn root_a_block_device_that_is_too_small_is_told_before_anything_is_asked() {
    let to = To::new(8);
    let old = random(8 * BLOCK_SIZE, 1);
    let device = match Loop::new(&old) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let server = to.sample.honest();
    let (out, writes) = traced(to.get_to(&device.device, &server));
    let stderr = format!(
        "psync: write {}: it has 32768 bytes, too few for the file\n",
        device.device.display()
    );
    out.fails(1, &stderr);
    assert_eq!((writes.len(), server.connections()), (0, 0));
    assert!(device.read() == old);
}

/// A list does not tell how long the last block is: what lacks room for it is found out at that block.
/// And a disk is mostly named by a link.
#[test]
#[ignore = "needs root, for a loop device"]
fn root_a_block_device_too_small_for_the_last_block_is_refused_at_that_block() {
    for (tail, fits) in [(512, true), (513, false)] {
        let bytes = random(8 * BLOCK_SIZE + tail, 2);
        let old = random(8 * BLOCK_SIZE + 512, 1);
        let device = match Loop::new(&old) {
            Ok(device) => device,
            Err(e) => skip!("no loop device: {e}"),
        };
        let dir = TempDir::new();
        let link = dir.join("by-id");
        symlink(&device.device, &link).unwrap();
        let list = dir.file("list", hashlist(&bytes));
        let server = HostileServer::honest(&bytes);
        let out = psync!("get", "-o", &link, server.url(), &list).run();
        if fits {
            out.ok();
            assert!(device.read() == bytes);
        } else {
            out.fails_naming(1, &["too few for the file"]);
            assert!(device.read()[8 * BLOCK_SIZE..] == old[8 * BLOCK_SIZE..]);
        }
    }
}

/// One whose mode cannot be had is not replaced: it would be open to all.
#[test]
fn a_private_file_stays_so_whatever_is_refused() {
    for when in 1..=6 {
        let to = To::new(2);
        fs::write(&to.file, "old").unwrap();
        fs::set_permissions(&to.file, fs::Permissions::from_mode(0o600)).unwrap();
        let inject = format!("inject=?statx,?newfstatat,?fstatat64:error=EIO:when={when}");
        let words = ["-f", "-qq", "-o", "/dev/null", "-e", &inject, "-P"].map(OsStr::new);
        let words = words.into_iter().chain([to.file.as_os_str()]);
        let out = to.get(&to.sample.honest()).under("strace", words).run();
        assert!(matches!(out.status, 0 | 1), "{out}");
        assert_eq!(mode(&to.file), 0o600, "{when}");
    }
}

/// What goes by the name at the end must be what was written: here somebody cleared up.
/// Whatever name it goes by: the list is what is trusted.
#[test]
fn the_list_is_not_written_over() {
    let sample = Sample::new(3);
    let list = fs::read(&sample.list).unwrap();
    let link = sample.dir.join("link");
    symlink(&sample.list, &link).unwrap();
    let server = sample.honest();
    for output in [&sample.list, &link] {
        for words in [&["-o"][..], &["--in-place", "-o"]] {
            let out = sample.get(&[&server]).args(words).arg(output).run();
            out.fails_naming(2, &["psync: -o ", " is HASHLIST itself, ", "--help\n"]);
            assert!(fs::read(&sample.list).unwrap() == list);
        }
    }
    // Nor as the FILE.part of another.
    let (part, file) = (sample.dir.join("other.part"), sample.dir.join("other"));
    fs::write(&part, &list).unwrap();
    let out = psync!("get", server.url(), "-o", &file, &part).run();
    out.fails_naming(2, &["psync: -o ", "other.part is HASHLIST itself, "]);
    assert!(fs::read(&part).unwrap() == list && !file.exists());
    assert_eq!(server.connections(), 0);
}

#[test]
fn an_output_that_is_removed_or_replaced_meanwhile_is_no_success() {
    let sample = Sample::new(3);
    for in_place in [false, true] {
        for replace in [false, true] {
            let dir = TempDir::new();
            let file = dir.join("file");
            let victim = if in_place {
                file.clone()
            } else {
                dir.join("file.part")
            };
            let (blocks, removed) = (sample.map(), victim.clone());
            let server = HostileServer::http(move |request| {
                if request.nth == 1 {
                    fs::remove_file(&removed).unwrap();
                    if replace {
                        fs::write(&removed, "another's").unwrap();
                    }
                }
                Reply::honest(&blocks, request)
            });
            let get = sample.get(&[&server]).arg("-o").arg(&file);
            let get = if in_place { get.arg("--in-place") } else { get };
            get.run()
                .fails_naming(1, &["it was replaced or removed meanwhile"]);
            assert_eq!(victim.exists(), replace);
        }
    }
}
