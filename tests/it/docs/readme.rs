//! What README.md shows is what happens: its examples run as they stand, its command lines are
//! understood, its figures are those that were measured, and the tests that it names are there.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::*;

/// The port that the examples name, for which a test must take a free one.
const PORT: &str = "8080";

#[test]
fn examples_run_as_they_stand() {
    let readme = readme();
    let examples = examples(&readme, "sh");
    assert!(examples.len() >= 2, "README.md has lost its examples");
    for program in ["split", "sha256sum", "cmp", "curl"] {
        need(program);
    }
    let dir = TempDir::new();
    symlink(PSYNC, dir.join("psync")).unwrap();
    dir.file("disk.img", random(3_000_000, 8));
    let free = TcpListener::bind("[::]:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);

    // A person types the second command after the first; a script waits for the server.
    let wait =
        format!("& trap 'kill $!' EXIT; until curl -so/dev/null localhost:{port}; do :; done;");
    let script = examples
        .concat()
        .replace(PORT, &port)
        .replacen(" & ", &format!(" {wait} "), 1);
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let out = tool!("sh", "-ec", script)
        .env("PATH", path)
        .env("HOME", &*dir)
        .cwd(&*dir)
        .run()
        .ok();
    assert_eq!(out.text(), format!("listening on [::]:{port}\n"));
    assert_eq!(
        fs::read(dir.join("copy")).unwrap(),
        fs::read(dir.join("disk.img")).unwrap()
    );
}

/// What stands in lines of their own, without the fields of a crontab.
fn command_lines(readme: &str) -> Vec<&str> {
    let indented = readme.lines().filter_map(|line| line.strip_prefix("    "));
    let lines = indented.filter_map(|line| {
        let fields = line.split_whitespace().take(5);
        let is_cron = fields
            .clone()
            .all(|field| field.bytes().all(|c| c == b'*' || c.is_ascii_digit()));
        match is_cron {
            true => line.find("psync ").map(|at| &line[at..]),
            false => Some(line).filter(|line| line.starts_with("psync ")),
        }
    });
    lines.collect()
}

#[test]
fn command_lines_are_understood() {
    let readme = readme();
    let lines = command_lines(&readme);
    assert!(lines.len() >= 8, "{lines:?}");
    let dir = TempDir::new();
    symlink(PSYNC, dir.join("psync")).unwrap();
    for line in lines {
        // What they name is not here, and that is all that is wrong with them.
        let line = line
            .replace("/srv/", "missing/")
            .replace("/dev/sdb1", "missing/sdb1");
        let line = line.split(" &").next().unwrap();
        let path = format!("{}:/usr/bin:/bin", dir.display());
        let run = tool!("sh", "-c", line).env("PATH", path);
        let out = run.env("HOME", &*dir).cwd(&*dir).run();
        out.fails_naming(1, &["psync: ", " missing/"]);
    }
}

#[test]
fn systemd_takes_the_units() {
    let dir = TempDir::new();
    let readme = readme();
    let units = examples(&readme, "ini");
    let names = ["disk-img.service", "disk-img.timer"].map(|name| dir.join(name));
    assert_eq!(units.len(), names.len());
    for (unit, name) in units.iter().zip(&names) {
        fs::write(name, unit.replace("/usr/local/bin/psync", PSYNC)).unwrap();
    }
    let out = tool!("systemd-analyze", "verify").args(names).run().ok();
    assert_eq!(out.stderr, "");
}

#[test]
fn each_promise_names_the_files_of_its_tests() {
    let readme = readme();
    let promises = section(&readme, "What it promises").split(". **").skip(1);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let is_name = |word: &&str| {
        word.contains('/')
            && word
                .bytes()
                .all(|c| c.is_ascii_lowercase() || b"_/".contains(&c))
    };
    let mut count = 0;
    for promise in promises {
        let words = promise.split('`').skip(1).step_by(2);
        let names: Vec<&str> = words.filter(is_name).collect();
        assert!(!names.is_empty(), "{promise}");
        for name in names {
            let file = tests.join(name).with_extension("rs");
            assert!(file.is_file(), "{name} is no file of tests");
        }
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

/// Each number in `text` that is one of seconds or MiB.
fn figures(text: &str) -> Vec<String> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "|,;()".contains(c))
        .collect();
    let pairs = words
        .windows(2)
        .filter(|pair| ["s", "MiB"].contains(&pair[1]) && pair[0].contains('.'));
    pairs.map(|pair| pair.join(" ")).collect()
}

#[test]
fn figures_are_those_of_the_last_benchmark() {
    let results = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/bench/results.md"
    ));
    let (results, readme) = (figures(&results.unwrap()), readme());
    let told = figures(section(&readme, "When to use something else"));
    assert!(told.len() >= 16, "{told:?}");
    for figure in told {
        assert!(
            results.contains(&figure),
            "{figure} is not in tests/bench/results.md"
        );
    }
}
