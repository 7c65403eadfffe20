//! What share/ has for boxes that run a server for good, and what `make install` puts where.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::*;

fn shared(name: &str) -> String {
    format!("{}/share/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_unit_starts_a_server_that_serves() {
    let unit = fs::read_to_string(shared("psync.service")).unwrap();
    let values = |key: &str| {
        let line = unit.lines().filter_map(|line| line.strip_prefix(key));
        line.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut command = values("ExecStart=").remove(0);
    let dir = TempDir::new();
    let hash = write_blocks(&dir, b"block").trim_end().to_owned();
    for variable in values("Environment=") {
        let (name, value) = variable.split_once('=').unwrap();
        let value = match name {
            "PSYNC_DIR" => dir.display().to_string(),
            _ => value.replace(":8080", "127.0.0.1:0"),
        };
        command = command.replace(&format!("${{{name}}}"), &value);
        command = command.replace(&format!("${name}"), &value);
    }
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/psync"));
    let server = Server::of(Run::new(PSYNC).args(words));
    let url = format!("http://{}/{hash}", server.addr());
    assert_eq!(tool!("curl", "-s", url).run().ok().stdout, b"block");
}

/// Runs it also where a test fails half-way.
struct AtEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        at_drop(|| {
            (self.0)();
        });
    }
}

#[test]
fn the_init_script_starts_and_stops_a_server() {
    need("start-stop-daemon");
    let dir = TempDir::new();
    let blocks = dir.join("blocks");
    let hash = write_blocks(&blocks, b"block").trim_end().to_owned();
    let user = tool!("id", "-un").run().ok().text().trim().to_owned();
    for shell in [&["sh"][..], &["busybox", "sh"]] {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let config = format!(
            "PSYNC={PSYNC}\nPSYNC_DIR={}\nARGS={addr}\nRUN_AS={user}\nPIDFILE={}\n",
            blocks.display(),
            dir.join("pid").display(),
        );
        let config = dir.file("config", config);
        let script = |word: &str| {
            let path = env::var("PATH").unwrap_or_default();
            let run = Run::new(need(shell[0])).args(&shell[1..]);
            run.arg(shared("psync.init"))
                .arg(word)
                .env("PSYNC_CONFIG", &config)
                .env("PATH", format!("{path}:/usr/sbin:/sbin"))
                .run()
        };
        let _stop = AtEnd(|| drop(script("stop")));
        assert_eq!(script("status").status, 3);
        assert_eq!(script("start").status, 0);
        let url = format!("http://{addr}/{hash}");
        wait_until("it serves", || {
            tool!("curl", "-s", &url).run().stdout == b"block"
        });
        assert_eq!(script("start").text(), "psync is running\n");
        assert_eq!(script("status").text(), "psync is running\n");
        assert_eq!(script("restart").status, 0);
        wait_until("it serves again", || {
            tool!("curl", "-s", &url).run().stdout == b"block"
        });
        assert_eq!(script("stop").status, 0);
        assert_eq!(script("status").status, 3);
        assert_eq!(script("").status, 2);
    }
}

/// Files below `dir`, with their modes, and links with what they lead to.
fn below(dir: &Path, name: &str, found: &mut Vec<String>) {
    for entry in names(dir) {
        let (path, name) = (dir.join(&entry), format!("{name}{entry}"));
        if let Ok(target) = fs::read_link(&path) {
            found.push(format!("{name} -> {}", target.display()));
        } else if path.is_dir() {
            below(&path, &format!("{name}/"), found);
        } else {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            found.push(format!("{name} {mode:o}"));
        }
    }
}

#[test]
fn everything_is_installed_in_its_place() {
    let dest = TempDir::new();
    // Twice: over what is there already.
    for _ in 0..2 {
        let make = tool!("make", "-s", "install", "PREFIX=/usr").sh("umask 022");
        make.cwd(env!("CARGO_MANIFEST_DIR"))
            .arg(format!("DESTDIR={}", dest.display()))
            .arg(format!("BINARY={PSYNC}"))
            .arg(format!("--old-file={PSYNC}"))
            .run()
            .ok();
    }
    let mut found = Vec::new();
    below(&dest, "", &mut found);
    let mut due: Vec<String> = [
        "usr/bin/psync 755",
        "usr/lib/systemd/system/psync.service 644",
        "usr/share/bash-completion/completions/psync 644",
        "usr/share/fish/vendor_completions.d/psync.fish 644",
        "usr/share/man/man1/psync.1 644",
        "usr/share/zsh/site-functions/_psync 644",
    ]
    .map(str::to_owned)
    .into();
    for command in ["export", "server", "get"] {
        let links = [
            format!("usr/bin/psync-{command} -> psync"),
            format!("usr/share/bash-completion/completions/psync-{command} -> psync"),
            format!("usr/share/fish/vendor_completions.d/psync-{command}.fish -> psync.fish"),
            format!("usr/share/man/man1/psync-{command}.1 -> psync.1"),
        ];
        due.extend(links);
    }
    due.sort();
    found.sort();
    assert_eq!(found, due);
    let unit = fs::read_to_string(dest.join("usr/lib/systemd/system/psync.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/psync server "));

    // fish finds it there by itself.
    let fish = tool!("fish", "-c", "complete -C 'psync-get --see'");
    let path = format!("{}:/usr/bin:/bin", dest.join("usr/bin").display());
    let fish = fish.env("PATH", path);
    let fish = fish.env("XDG_DATA_DIRS", dest.join("usr/share")).run().ok();
    assert!(fish.text().starts_with("--seed\t"), "{fish}");
}
