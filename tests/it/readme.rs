//! What README.md shows is what happens: its examples run as they stand.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;

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
