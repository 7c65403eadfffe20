//! What share/ has for boxes that run a server for good.

use std::env;
use std::fs;
use std::net::TcpListener;

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
        (self.0)();
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
