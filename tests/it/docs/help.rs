//! Help, versions and usage errors of every command and of the links that stand for them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use crate::support::*;

const VERSION: &str = concat!("psync ", env!("CARGO_PKG_VERSION"), "\n");

/// Command, and the first lines of its help.
const HELP: [(&str, &str); 4] = [
    ("", concat!("psync ", env!("CARGO_PKG_VERSION"), " - ")),
    ("export", "psync export - "),
    ("server", "psync server - "),
    ("get", "psync get - "),
];

fn psync(command: &str) -> Run {
    psync!().args(command.split_whitespace())
}

/// The help of a command, well formed.
#[track_caller]
fn help(run: Run, title: &str) -> String {
    let out = run.run().ok();
    let text = out.text();
    assert!(text.starts_with(title) && text.ends_with('\n'), "{text}");
    assert!(
        text.contains("Usage: psync ") || text.contains("Usage:\n    psync "),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    text.to_owned()
}

#[test]
fn help_is_on_stdout_wherever_it_is_asked_for() {
    for (command, title) in HELP {
        let text = help(psync(command).arg("--help").no_env("HOME"), title);
        assert_eq!(help(psync(command).arg("-h"), title), text);
        if !command.is_empty() {
            // Whatever else the command line says.
            for more in [
                &["a", "-h"][..],
                &["--help", "--frob"],
                &["-d", "x", "a", "b", "c", "--help"],
                &["-dx", "--frob", "-h"],
                &["-hx"],
            ] {
                assert_eq!(help(psync(command).args(more), title), text);
            }
        }
    }
}

/// What the help of a command lists: `-d, --dir DIR`.
fn listed(help: &str) -> BTreeSet<&str> {
    let items = help.lines().filter_map(|line| {
        let item = line.trim_start();
        let column = line.len() - item.len();
        ([4, 8].contains(&column) && item.starts_with('-')).then_some(item)
    });
    items.map(|item| item.split("  ").next().unwrap()).collect()
}

/// The options of the contract and no others, and what they are where nothing is said.
#[test]
fn help_names_every_option_of_the_command() {
    for (command, options, defaults) in [
        (
            "export",
            &["-d, --dir DIR", "--root", "--no-store", "--no-sync"][..],
            &["$PSYNC_DIR", "$HOME/.psync/blocks"][..],
        ),
        (
            "server",
            &[
                "-d, --dir DIR",
                "--file FILE",
                "--peers FILE",
                "--lan",
                "--max-conns N",
                "--timeout SECS",
                "-v, --verbose",
            ],
            &["$PSYNC_DIR", "--lan=ADDR", "[512]", "[15]"],
        ),
        (
            "get",
            &[
                "-o, --output FILE",
                "--in-place",
                "-n, --dry-run",
                "-d, --dir DIR",
                "-k, --keep",
                "--seed FILE",
                "-m, --mirror URL",
                "--servers FILE",
                "--peers",
                "--lan",
                "-j, --jobs N",
                "--spread",
                "--timeout SECS",
                "--connect-timeout SECS",
                "--retry N",
                "-q, --quiet",
                "-v, --verbose",
                "--stats",
            ],
            &["$PSYNC_DIR", "--lan=ADDR", "[8]", "[30]", "[5]", "[2]"],
        ),
    ] {
        let out = psync(command).arg("-h").run().ok();
        let mut due: BTreeSet<_> = options.iter().copied().collect();
        due.extend(["-h, --help", "-V, --version"]);
        assert_eq!(listed(out.text()), due, "{command}");
        for word in defaults {
            assert!(out.text().contains(word), "{command} {word}");
        }
    }
}

#[test]
fn the_version_is_one_line() {
    for (command, _) in HELP {
        for option in ["-V", "--version"] {
            let out = psync(command).arg(option).no_env("HOME").run().ok();
            assert_eq!(out.text(), VERSION);
        }
    }
}

#[test]
fn a_link_is_its_command() {
    let dir = TempDir::new();
    for (command, title) in &HELP[1..] {
        let name = format!("psync-{command}");
        let link = dir.join(&name);
        symlink(PSYNC, &link).unwrap();
        let text = help(psync(command).arg("-h"), title);
        assert_eq!(help(Run::new(&link).arg("-h"), title), text);
        assert_eq!(help(psync!("-h").argv0(&name), title), text);
        assert_eq!(
            help(psync!("--help").argv0(&format!("/usr/bin/{name}")), title),
            text
        );
        assert_eq!(Run::new(&link).arg("-V").run().ok().text(), VERSION);
        // Its own name is no word to it.
        let out = Run::new(&link).arg("--frob").run();
        out.fails(
            2,
            &format!("psync: unknown option '--frob'; see psync {command} --help\n"),
        );
    }
    // Any other name is just a name.
    for name in [
        "psync-0.1",
        "psync-frob",
        "psync-gets",
        "get",
        "-",
        "",
        "psync-",
    ] {
        help(psync!("-h").argv0(name), HELP[0].1);
    }
    // A link to the link, and the work itself.
    let sample = Sample::new(1);
    symlink("psync-export", dir.join("again")).unwrap();
    Run::new(dir.join("again"))
        .arg("--no-store")
        .run()
        .fails_naming(2, &["unknown option '--no-store'"]);
    let out = Run::new(dir.join("psync-export"))
        .arg("--no-store")
        .stdin(&sample.bytes)
        .run()
        .ok();
    assert_eq!(out.text(), fs::read_to_string(&sample.list).unwrap());
    let good = sample.honest();
    sample.is_whole(
        Run::new(dir.join("psync-get"))
            .arg(good.url())
            .arg(&sample.list)
            .run(),
    );
    let server = Server::of(
        Run::new(dir.join("psync-server"))
            .arg("127.0.0.1:0")
            .env("PSYNC_DIR", &dir),
    );
    assert_eq!(get(server.addr(), "/").status, 200);
}

#[test]
fn a_usage_error_is_one_line_that_names_the_word() {
    let number = |word: &str| format!("'{word}': --max-conns takes a number, 1 to 100000");
    let jobs = |word: &str| format!("'{word}': --jobs takes a number, 1 to 256");
    let seconds =
        |word: &str, option: &str| format!("'{word}': {option} takes seconds, 0.001 to 86400");
    let server =
        |word: &str| format!("'{word}': a server is HOST[:PORT] or http://HOST[:PORT][/PATH]");
    let address = |word: &str| format!("'{word}': ADDR is HOST:PORT, [v6]:PORT or :PORT");
    let mut table: Vec<(&str, &str, String)> = vec![
        ("", "", "a command is missing: export, server or get".into()),
        ("", "frob", "unknown command 'frob'".into()),
        ("", "Export", "unknown command 'Export'".into()),
        ("", "--frob", "unknown option '--frob'".into()),
        ("", "-x get", "unknown option '-x'".into()),
        ("", "--", "unknown option '--'".into()),
        ("export", "-x", "unknown option '-x'".into()),
        ("export", "--frob=1", "unknown option '--frob=1'".into()),
        ("export", "-xyz a", "unknown option '-x' in '-xyz'".into()),
        ("export", "-rd x a", "unknown option '-r' in '-rd'".into()),
        ("export", "--root=x a", "unknown option '--root=x'".into()),
        ("export", "a b", "unexpected word 'b'".into()),
        ("export", "- b", "unexpected word 'b'".into()),
        ("export", "-d", "-d: its value is missing".into()),
        ("export", "a --dir", "--dir: its value is missing".into()),
        ("export", "-v", "unknown option '-v'".into()),
        ("server", "", "ADDR is missing, such as :8080".into()),
        ("server", "-vd", "-d: its value is missing".into()),
        ("server", ":1 -vq", "unknown option '-q' in '-vq'".into()),
        ("server", "-dv", "ADDR is missing, such as :8080".into()),
        (
            "server",
            ":1 --max-conns",
            "--max-conns: its value is missing".into(),
        ),
        (
            "server",
            "--no-store :1",
            "unknown option '--no-store'".into(),
        ),
        ("get", "", "HASHLIST is missing".into()),
        ("get", "-q", "HASHLIST is missing".into()),
        ("get", "--timeout", "--timeout: its value is missing".into()),
        ("get", "--frob list", "unknown option '--frob'".into()),
        ("get", "host list -x", "unknown option '-x'".into()),
        ("get", "-qxj8 list", "unknown option '-x' in '-qxj8'".into()),
        ("get", "--quiet=x list", "unknown option '--quiet=x'".into()),
        ("get", "-q=x list", "unknown option '-=' in '-q=x'".into()),
        ("get", "--peers=x list", "unknown option '--peers=x'".into()),
        ("get", "--out f list", "unknown option '--out'".into()),
        ("get", "list -qo", "-o: its value is missing".into()),
        ("get", "-j8x list", jobs("8x")),
        ("get", "-qj list", jobs("list")),
        ("get", "-j=8 list", jobs("=8")),
        ("get", "-j -q list", jobs("-q")),
        ("get", "-j -- list", jobs("--")),
        ("get", "-ofile", "HASHLIST is missing".into()),
        ("get", "-o --", "HASHLIST is missing".into()),
    ];
    for word in [
        "0",
        "-1",
        "+1",
        "100001",
        "99999999999999999999",
        "1.5",
        "x",
        "0x10",
    ] {
        table.push((
            "server",
            Box::leak(format!(":1 --max-conns {word}").into_boxed_str()),
            number(word),
        ));
    }
    for word in [
        "0", "-1", "+1", "1e3", "inf", "nan", "86401", ".", "1s", "0.0001", "1.2.3",
    ] {
        for (command, option) in [
            ("server", "--timeout"),
            ("get", "--timeout"),
            ("get", "--connect-timeout"),
        ] {
            let line = Box::leak(format!("{option} {word} :1").into_boxed_str());
            table.push((command, line, seconds(word, option)));
        }
    }
    for word in [
        "8080",
        "host",
        "127.0.0.1",
        "[127.0.0.1]:80",
        "host:http",
        "host:",
        "host:x",
        "host:65536",
        "::1:80",
        "[::1]",
        "http://host:80",
        "host:-1",
        "[fe80::1%lo]:80",
    ] {
        table.push(("server", word, address(word)));
    }
    for word in [
        "ftp://host",
        "host:",
        "host:0",
        "host:65536",
        "host/path",
        "http://",
        "::1",
        "[::1",
        "[fe80::1%lo]",
        "u@host",
        "http://h/?q",
        "a,b",
        "./x",
    ] {
        table.push((
            "get",
            Box::leak(format!("{word} list").into_boxed_str()),
            server(word),
        ));
    }
    for (command, line, problem) in table {
        let name = if command.is_empty() {
            "psync".to_owned()
        } else {
            format!("psync {command}")
        };
        let out = psync(command).args(line.split_whitespace()).run();
        let out = out.fails(2, &format!("psync: {problem}; see {name} --help\n"));
        assert!(out.stdout.is_empty(), "{out}");
    }
}

/// Words of `psync get`, in which a list, a server and a directory stand, and the files that come of them.
#[test]
fn get_takes_options_as_people_type_them() {
    let sample = Sample::new(3);
    let (server, list) = (sample.honest(), sample.list.display().to_string());
    let url = server.url();
    for (words, file, kept) in [
        (&["-o", "out", "-j", "8"][..], "out", false),
        (&["-oout", "-j8"], "out", false),
        (&["-qj8", "-oout"], "out", false),
        (&["-kqo", "out", "-db"], "out", true),
        (&["-kqoout", "-d", "b"], "out", true),
        (&["--output=out", "--dir=b", "-qk"], "out", true),
        (&["--output", "out", "--jobs", "8"], "out", false),
        // A value is a value whatever it looks like.
        (&["-o", "-k", "-db"], "-k", false),
        (&["-qo", "--help"], "--help", false),
        (&["-o", "--"], "--", false),
        (&["-o", "--", "-kdb", "--"], "--", true),
        (&["--output", "-V"], "-V", false),
        (&["--output=--keep"], "--keep", false),
        // As getopt has it, all that follows the letter.
        (&["-o=out"], "=out", false),
        (&["-o-k"], "-k", false),
    ] {
        let dir = TempDir::new();
        let run = psync!("get").args(words).args([&url, &list]).cwd(&dir);
        let out = run.run().ok();
        assert!(out.stdout.is_empty(), "{words:?}");
        assert!(fs::read(dir.join(file)).unwrap() == sample.bytes);
        let names = if kept { vec![file, "b"] } else { vec![file] };
        let due: BTreeSet<_> = names.into_iter().map(str::to_owned).collect();
        assert_eq!(BTreeSet::from_iter(dir.names()), due, "{words:?}");
        if kept {
            assert_stored(dir.join("b"), &hashlist(&sample.bytes));
        }
    }
    // And before the other words, between them and after them.
    let out = psync!("get", &url, "-qj8", &list, "-v").run();
    assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
}

#[test]
fn export_takes_options_as_people_type_them() {
    let sample = Sample::new(3);
    let list = hashlist(&sample.bytes);
    for (words, stored) in [
        (&["-db"][..], "b"),
        (&["-d", "b", "--no-sync"], "b"),
        (&["--dir=b", "-"], "b"),
        (&["-d", "--root"], "--root"),
        (&["-d--root"], "--root"),
        (&["-d", "--", "--", "-"], "--"),
        (&["-d=b"], "=b"),
    ] {
        let dir = TempDir::new();
        let run = psync!("export").args(words).cwd(&dir);
        let out = run.stdin(&sample.bytes).run().ok();
        assert!(out.text() == list, "{words:?}");
        assert_eq!(dir.names(), [stored], "{words:?}");
        assert_stored(dir.join(stored), &list);
    }
}

#[test]
fn server_takes_options_as_people_type_them() {
    let (dir, block) = (TempDir::new(), random(BLOCK_SIZE, 1));
    for name in ["b", "-v", "--", "=b"] {
        write_blocks(dir.join(name), &block);
    }
    let target = format!("/{}", hash_hex(&block));
    for (words, logs) in [
        (&["-db"][..], false),
        (&["-vdb"], true),
        (&["-vd", "b"], true),
        (&["-v", "--dir=b", "--max-conns=7"], true),
        (&["-d", "-v"], false),
        (&["-d-v"], false),
        (&["-vd", "--"], true),
        (&["-d=b"], false),
        (&["-db", "--"], false),
    ] {
        let run = psync!("server").args(words).arg("127.0.0.1:0");
        let server = Server::of(run.cwd(&dir));
        assert_eq!(get(server.addr(), &target).status, 200, "{words:?}");
        if logs {
            server.wait_stderr(|log| line_count(log) == 1);
        }
        assert_eq!(!server.stop().is_empty(), logs, "{words:?}");
    }
}

#[test]
fn empty_words_are_named_too() {
    for (args, problem) in [
        (&[""][..], "unknown command ''; see psync --help"),
        (
            &["get", "", "list"],
            "'': a server is HOST[:PORT] or http://HOST[:PORT][/PATH]; see psync get --help",
        ),
        (
            &["get", "--timeout=", "list"],
            "'': --timeout takes seconds, 0.001 to 86400; see psync get --help",
        ),
        (
            &["server", ""],
            "'': ADDR is HOST:PORT, [v6]:PORT or :PORT; see psync server --help",
        ),
        (
            &["server", ":0", ""],
            "'': ADDR is HOST:PORT, [v6]:PORT or :PORT; see psync server --help",
        ),
        (
            &["server", ":1", "--max-conns="],
            "'': --max-conns takes a number, 1 to 100000; see psync server --help",
        ),
        (&["export", ""], "FILE is empty; see psync export --help"),
        (
            &["export", "-d", ""],
            "-d is empty; see psync export --help",
        ),
        (
            &["server", "--file=", ":1"],
            "--file is empty; see psync server --help",
        ),
        (&["get", ""], "HASHLIST is empty; see psync get --help"),
        (
            &["get", "-o", "", "list"],
            "-o is empty; see psync get --help",
        ),
        (
            &["get", "-qo", "", "list"],
            "-o is empty; see psync get --help",
        ),
        (
            &["get", "--output=", "list"],
            "-o is empty; see psync get --help",
        ),
        (
            &["get", "--seed", "", "list"],
            "--seed is empty; see psync get --help",
        ),
    ] {
        psync!()
            .args(args)
            .run()
            .fails(2, &format!("psync: {problem}\n"));
    }
}

#[test]
fn without_a_directory_the_two_that_need_one_say_so() {
    for (command, line) in [("export", "-"), ("server", ":0")] {
        let run = || psync(command).arg(line);
        for run in [run().no_env("HOME"), run().env("HOME", "")] {
            run.run().fails(2, &format!(
                "psync: no block directory: name one with -d DIR, or set PSYNC_DIR or HOME; see psync {command} --help\n"
            ));
        }
    }
}

/// Without the feature, https is refused in words that help.
#[test]
#[cfg(not(feature = "tls"))]
fn https_needs_its_feature() {
    let out = psync("get https://host list").run();
    out.fails(2, "psync: 'https://host': this psync is built without https; build it with --features tls; see psync get --help\n");
}

#[test]
fn help_for_a_reader_that_went_away_is_no_crash() {
    psync("get -h").stdout_to(broken()).run().fails(1, "");
    psync("-h").stdout_to(full()).run().fails_naming(
        1,
        &["psync: write standard output: No space left on device"],
    );
}
