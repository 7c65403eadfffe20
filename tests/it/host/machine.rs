//! The process around psync: standard streams that are closed or full, no environment, no current
//! directory, few descriptors, little memory, small files; and the Makefile's ways to install and to show it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::*;

const MIB: usize = 1 << 20;

#[test]
fn a_full_standard_output_is_an_error() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 1));
    let list = dir.file("list", write_blocks(dir.join("b"), &bytes));
    let told = "psync: write standard output: No space left on device; see df, and df -i\n";
    let server = Server::start(dir.join("b"));
    for run in [
        psync!("export", "--no-store").stdin(&bytes),
        psync!("export", "-d", dir.join("c")).stdin(&bytes),
        psync!("get", "-d", dir.join("none"), server.to_string(), &list),
        psync!("get", "-d", dir.join("b"), &list),
        psync!("--help"),
        psync!("export", "--version"),
        psync!("server", "-d", &dir, "127.0.0.1:0"),
    ] {
        run.stdout_to(full()).run().fails(1, told);
    }
    // What was stored before stays, and nothing else does.
    assert_stored(dir.join("c"), &hashlist(&bytes));
    assert_eq!(strangers(dir.join("c")), [""; 0]);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (dir, bytes) = (TempDir::new(), random(20 * MIB, 2));
    let list = dir.file("list", write_blocks(dir.join("b"), &bytes));
    let server = Server::start(dir.join("b"));
    let export = || psync!("export", "-d", dir.join("c")).stdin(&bytes);
    for run in [
        psync!("export", "--no-store").stdin(&bytes),
        export(),
        psync!("get", "-d", dir.join("none"), server.to_string(), &list),
        psync!("get", "-d", dir.join("b"), &list),
        psync!("--help"),
        psync!("server", "-d", &dir, "127.0.0.1:0"),
    ] {
        run.stdout_to(broken()).run().fails(1, "");
    }
    assert_eq!(strangers(dir.join("c")), [""; 0]);
    // In the middle, as with `| head -1`.
    let (mut reader, writer) = io::pipe().unwrap();
    let run = export().stdout_to(writer).start();
    let mut line = [0; 65];
    reader.read_exact(&mut line).unwrap();
    drop(reader);
    run.wait().fails(1, "");
    assert!(hashlist(&bytes).as_bytes().starts_with(&line));
    assert_eq!(strangers(dir.join("c")), [""; 0]);
}

#[test]
fn a_closed_standard_output_loses_no_list_unnoticed() {
    for run in [
        psync!("export", "--no-store").stdin("x"),
        psync!("--version"),
    ] {
        run.sh("exec >&-").run().fails(1, "");
    }
}

#[test]
fn a_closed_or_full_standard_error_changes_nothing() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 3));
    let good = || psync!("export", "-d", dir.join("b")).stdin(&bytes);
    let bad = || psync!("export", "--no-store", dir.join("gone"));
    let usage = || psync!("export", "--frob");
    let runs: [(&dyn Fn() -> Run, i32); 3] = [(&good, 0), (&bad, 1), (&usage, 2)];
    for (run, status) in runs {
        for run in [
            run().sh("exec 2>&-"),
            run().stderr_to(full()),
            run().stderr_to(broken()),
        ] {
            let out = run.run();
            assert_eq!(out.status, status, "{out}");
            assert!(status > 0 || out.text() == hashlist(&bytes));
        }
    }
    // Both at once: what is opened next must not be taken for a standard stream.
    let out = good().sh("exec 2>&- >&-").run();
    assert!(matches!(out.status, 0 | 1), "{out}");
    assert_stored(dir.join("b"), &hashlist(&bytes));
}

#[test]
fn no_environment_and_no_current_directory_are_done_without() {
    let (dir, bytes) = (TempDir::new(), random(MIB, 4));
    let (blocks, sub) = (dir.join("b"), dir.join("sub"));
    let bare = |run: Run| {
        fs::create_dir(&sub).unwrap();
        run.no_env("HOME")
            .cwd(&sub)
            .sh(&format!("rmdir '{}'", sub.display()))
    };
    let out = bare(psync!("export", "-d", &blocks).stdin(&bytes))
        .run()
        .ok();
    assert!(out.text() == hashlist(&bytes));
    assert_stored(&blocks, out.text());
    let list = dir.file("list", &out.stdout);
    let server = Server::of(bare(psync!("server", "-d", &blocks, "127.0.0.1:0")));
    let back = bare(psync!("get", server.to_string(), &list)).run().ok();
    assert!(back.stdout == bytes);
    let none = bare(psync!("export", "--no-store").stdin(&bytes))
        .run()
        .ok();
    assert!(none.stdout == out.stdout);
    let relative = bare(psync!("export", "-d", "x").stdin("x")).run();
    relative.fails(1, "psync: create x: No such file or directory\n");
}

/// Exports `in` of `dir`, serves it and gets it back, each run as `limited` makes it, with `dir` as
/// current directory: paths are relative, and so the same in a chroot.
pub fn round_trip(dir: &Path, mib: usize, program: &str, limited: &dyn Fn(Run) -> Run) {
    let run = |words: &[&str]| {
        let run = limited(Run::new(program).args(words).cwd(dir));
        run.limit(Duration::from_secs(300))
    };
    let bytes = random(mib * MIB, 5);
    fs::write(dir.join("in"), &bytes).unwrap();
    let list = File::create(dir.join("list")).unwrap();
    run(&["export", "-d", "b", "in"]).stdout_to(list).run().ok();
    assert!(fs::read_to_string(dir.join("list")).unwrap() == hashlist(&bytes));
    let server = Server::of(run(&["server", "-d", "b", "127.0.0.1:0"]));
    let get = ["get", "-d", "none", &server.to_string(), "list"];
    assert!(run(&get).run().ok().stdout == bytes);
}

/// Data is what a program fills with its own: heap and the stacks of its threads. A limit of the
/// address space would count code and reservations, which cost no memory.
fn few_descriptors_and_little_memory(run: Run) -> Run {
    run.sh("ulimit -n 64; ulimit -d 16384")
}

#[test]
fn few_descriptors_and_little_memory_are_enough() {
    round_trip(
        &TempDir::new(),
        16,
        PSYNC,
        &few_descriptors_and_little_memory,
    );
}

#[test]
#[ignore = "a hundred megabytes"]
fn slow_few_descriptors_and_little_memory_are_enough_for_a_hundred_megabytes() {
    round_trip(
        &TempDir::new(),
        100,
        PSYNC,
        &few_descriptors_and_little_memory,
    );
}

#[test]
fn too_few_descriptors_are_one_clear_error() {
    let dir = TempDir::new();
    // At 3 the loader itself fails, at some of the next psync does; from some number on all is well.
    let mut enough = false;
    for n in 4..16 {
        let blocks = dir.join(n.to_string());
        let run = psync!("export", "-d", &blocks).stdin("x");
        let out = run.sh(&format!("ulimit -n {n}")).run();
        if out.status == 0 {
            enough = true;
            assert_stored(&blocks, out.text());
        } else {
            assert!(!enough, "{out}");
            let told = out.stderr.contains("see ulimit -n\n") || out.status == 127;
            assert!(told && out.stdout.is_empty(), "{out}");
        }
        assert!(!blocks.exists() || strangers(&blocks).is_empty());
    }
    assert!(enough);
}

pub fn make(words: &[&str]) -> Run {
    let keep = ["HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"];
    let mut run = tool!(
        "make",
        "--no-print-directory",
        "-C",
        env!("CARGO_MANIFEST_DIR")
    )
    .args(words);
    for (name, value) in keep
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
    {
        run = run.env(name, value);
    }
    run.stderr_to(Stdio::null()).limit(Duration::from_secs(600))
}

#[test]
fn make_help_names_what_each_target_installs() {
    let out = make(&["help"]).run().ok();
    let (_, set_up) = out.text().split_once("first installs").unwrap();
    for set in ["test", "root", "cross", "peers"] {
        let target = if set == "test" {
            set
        } else {
            &format!("test-{set}")
        };
        let lines = set_up.lines().map(|line| line.split_whitespace());
        let mut lines = lines.filter(|words| words.clone().nth(1) == Some(target));
        let words: Vec<_> = lines.next().unwrap().collect();
        for Program { package, .. } in programs(set) {
            assert!(words.contains(&package), "{target}: {package}: {words:?}");
        }
    }
}

#[test]
#[ignore = "a release build"]
fn slow_make_install_puts_the_binary_and_its_links_in_place() {
    let dir = TempDir::new();
    let destination = format!("DESTDIR={}", dir.display());
    let out = make(&["install", &destination, "PREFIX=/opt/p"]).run();
    assert_eq!(out.status, 0, "{out}");
    let bin = dir.join("opt/p/bin");
    assert_eq!(
        names(&bin),
        ["psync", "psync-export", "psync-get", "psync-server"]
    );
    let size = fs::metadata(bin.join("psync")).unwrap().len();
    assert!(size < 1 << 20, "{size} bytes");
    for name in names(&bin) {
        let version = Run::new(bin.join(&name)).arg("--version").run().ok();
        assert!(version.text().starts_with("psync "));
    }
    let out = Run::new(bin.join("psync-export"))
        .arg("--no-store")
        .stdin("x")
        .run()
        .ok();
    assert_eq!(out.text(), hashlist(b"x"));
    // Again, over what is there.
    assert_eq!(
        make(&["install", &destination, "PREFIX=/opt/p"])
            .run()
            .status,
        0
    );
}

#[test]
#[ignore = "a release build"]
fn slow_make_demo_shows_the_main_job_on_any_file() {
    let dir = TempDir::new();
    let file = dir.file("some file", random(MIB, 6));
    let out = make(&["demo", &format!("FILE={}", file.display())]).run();
    assert_eq!(out.status, 0, "{out}");
    let text = out.text();
    assert!(text.contains("export:   256 hashes"), "{text}");
    assert!(
        text.ends_with("compare:  the same, byte for byte\n"),
        "{text}"
    );
}

/// With files of so many blocks at most (`ulimit -f` counts by 512 bytes).
fn small_files(blocks: usize) -> impl Fn(Run) -> Run {
    move |run| run.sh(&format!("ulimit -f {}", blocks * BLOCK_SIZE / 512))
}

fn too_large(action: &str) -> String {
    format!("psync: {action}: File too large; see ulimit -f, and what its file system allows\n")
}

#[test]
fn a_file_size_limit_ends_an_export_as_a_full_disk_does() {
    let (dir, bytes) = (TempDir::new(), random(100 * BLOCK_SIZE, 7));
    let (home, file) = (dir.join("b"), dir.file("file", &bytes));
    let export = || psync!("export", "-d", &home, &file);
    // Of the block directory: not one more block, and those that are there stay.
    let stored = write_blocks(&home, &bytes[..3 * BLOCK_SIZE]);
    let out = export().sh("ulimit -f 4").run();
    let told = out.fails_naming(1, &[": File too large; see ulimit -f, and "]);
    assert!(told.stderr.starts_with("psync: write ") && told.stderr.lines().count() == 1);
    assert!(told.stdout.is_empty() && strangers(&home).is_empty());
    assert_stored(&home, &stored);
    // Of the list: what it holds is right, and its blocks are there.
    let list = File::create(dir.join("list")).unwrap();
    let out = small_files(1)(export()).stdout_to(list).run();
    out.fails(1, &too_large("write standard output"));
    let list = fs::read_to_string(dir.join("list")).unwrap();
    let due = hashlist(&bytes);
    assert!(list.len() == BLOCK_SIZE && due.starts_with(&list));
    assert_stored(&home, &due);
    assert!(strangers(&home).is_empty());
    let out = export().run().ok();
    assert!(out.text() == due);
}

#[test]
fn a_file_size_limit_ends_a_get_as_a_full_disk_does() {
    let sample = Sample::new(100);
    let (server, dir) = (sample.honest(), TempDir::new());
    let (file, part) = (dir.file("file", "old"), dir.join("file.part"));
    let get = || sample.get(&[&server]).arg("--stats");
    // Of FILE.part: FILE stays, and the same command goes on.
    let out = small_files(40)(get().arg("-o").arg(&file)).run();
    out.fails(1, &too_large(&format!("write {}", part.display())));
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert!(fs::read(&part).unwrap() == sample.bytes[..40 * BLOCK_SIZE]);
    let out = get().arg("-o").arg(&file).run();
    assert_eq!((out.status, out.stat("local")), (0, 40), "{out}");
    assert!(fs::read(&file).unwrap() == sample.bytes && !part.exists());
    // Of FILE in place.
    let place = dir.join("place");
    let in_place = || get().arg("--in-place").arg("-o").arg(&place);
    let out = small_files(40)(in_place()).run();
    out.fails(1, &too_large(&format!("write {}", place.display())));
    let out = in_place().run();
    assert_eq!((out.status, out.stat("local")), (0, 40), "{out}");
    assert!(fs::read(&place).unwrap() == sample.bytes);
    // Of standard output.
    let to = dir.join("stdout");
    let out = small_files(40)(get().stdout_to(File::create(&to).unwrap())).run();
    out.fails(1, &too_large("write standard output"));
    assert!(fs::read(&to).unwrap() == sample.bytes[..40 * BLOCK_SIZE]);
}

#[test]
fn a_file_size_limit_loses_nothing_that_is_kept() {
    let sample = Sample::new(100);
    let (server, dir) = (sample.honest(), TempDir::new());
    let home = dir.join("b");
    let get = || {
        sample
            .get(&[&server])
            .args(["--stats", "-k", "-d"])
            .arg(&home)
    };
    // Not one block.
    let out = get().sh("ulimit -f 4").run();
    out.fails_naming(
        1,
        &[
            "psync: write ",
            "/.psync-0-0: File too large; see ulimit -f",
        ],
    );
    assert!(fs::read_dir(&home).unwrap().next().is_none());
    // All that were fetched until the output was too large.
    let file = dir.join("file");
    let out = small_files(40)(get().arg("-o").arg(&file)).run();
    out.fails(1, &too_large(&format!("write {}.part", file.display())));
    assert_stored(&home, &hashlist(&sample.bytes[..40 * BLOCK_SIZE]));
    assert!(strangers(&home).is_empty());
    fs::remove_file(dir.join("file.part")).unwrap();
    let out = get().arg("-o").arg(&file).run();
    assert!(out.status == 0 && out.stat("local") >= 40, "{out}");
    assert!(fs::read(&file).unwrap() == sample.bytes);
}

/// Zeros are not written: the file is made that long at the end.
#[test]
fn a_file_size_limit_holds_for_what_is_never_written() {
    let dir = TempDir::new();
    let bytes = vec![0; 100 * BLOCK_SIZE];
    let (list, file) = (dir.file("list", hashlist(&bytes)), dir.join("file"));
    let get = || psync!("get", "-o", &file, &list);
    let out = small_files(40)(get()).run();
    out.fails(1, &too_large(&format!("write {}.part", file.display())));
    get().run().ok();
    assert!(fs::read(&file).unwrap() == bytes);
}

/// With a root, --peers and -o, which has the list in a file while it runs.
#[test]
fn a_file_size_limit_of_the_list_is_told_too() {
    let (dir, rooted) = (TempDir::new(), Rooted::new(&random(100 * BLOCK_SIZE, 9)));
    let blocks = rooted.map();
    let server = HostileServer::http(move |request| Reply::honest(&blocks, request));
    let get = psync!("get", "--peers", "-o", dir.join("file"), server.to_string());
    let get = get.arg(&rooted.root).env("TMPDIR", &dir);
    let out = small_files(1)(get).run();
    out.fails_naming(
        1,
        &[
            "psync: write ",
            "/.psync-",
            ": File too large; see ulimit -f",
        ],
    );
    assert!(!dir.join("file").exists());
}

#[test]
fn a_log_that_has_reached_the_file_size_limit_costs_its_lines_alone() {
    let (dir, target) = one_block();
    let log = File::create(dir.join("log")).unwrap();
    let run = small_files(1)(psync!("server", "-v", "-d", &dir, "127.0.0.1:0"));
    let server = Server::of(run.stderr_to(log));
    let long = format!("/{}", "x".repeat(3_000));
    for _ in 0..5 {
        assert_eq!(get(server.addr(), &long).status, 404);
        assert_eq!(get(server.addr(), &target).status, 200);
    }
    let length = || fs::metadata(dir.join("log")).unwrap().len();
    wait_until("the limit", || length() == BLOCK_SIZE as u64);
    assert_eq!(get(server.addr(), &target).status, 200);
}

/// `0>FILE` for `0<FILE` is a slip that must not end as the list of an empty file.
#[test]
fn a_standard_input_that_cannot_be_read_is_not_an_empty_one() {
    let dir = TempDir::new();
    for run in [psync!("export", "--no-store"), psync!("get", "-")] {
        let slip = File::create(dir.join("slip")).unwrap();
        let out = run.stdin_from(Stdio::from(slip)).run();
        let out = out.fails_naming(1, &["psync: read ", "Bad file descriptor"]);
        assert!(out.stdout.is_empty());
    }
}
