//! `make dist`: a release that is the same bytes wherever it is built, holds what `make install` puts in
//! place, and nothing of the machine that it was built on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::host::machine::make;
use crate::support::*;

const EPOCH: u64 = 1_234_567_890;

/// A builder's own directories: the source, with nothing of git, cargo's home, and what is built.
struct Builder {
    source: PathBuf,
    home: PathBuf,
    build: PathBuf,
}

impl Builder {
    fn new(dir: &Path) -> Self {
        let [source, home, build] = ["source", "cargo home", "build"].map(|name| dir.join(name));
        fs::create_dir_all(&source).unwrap();
        fs::create_dir_all(&home).unwrap();
        let tree = "src share tests Makefile Cargo.toml Cargo.lock README.md CHANGELOG.md LICENSE";
        let from = env!("CARGO_MANIFEST_DIR");
        let copy = tool!("cp", "-r").args(tree.split(' ')).arg(&source);
        copy.cwd(from).run().ok();
        let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo = cargo.unwrap_or_else(|| std::env::home_dir().unwrap().join(".cargo"));
        // What was fetched once is not fetched again.
        for name in names(&cargo) {
            symlink(cargo.join(&name), home.join(&name)).unwrap();
        }
        Self {
            source,
            home,
            build,
        }
    }

    /// Runs `make dist`, and returns what it has made, by name.
    fn dist(&self, before: &str, epoch: &str) -> Vec<(String, Vec<u8>)> {
        let make = make(&["-C", self.source.to_str().unwrap(), "dist"]).sh(before);
        let make = make
            .env("CARGO_HOME", &self.home)
            .env("CARGO_TARGET_DIR", &self.build);
        let make = make
            .env("SOURCE_DATE_EPOCH", epoch)
            .stderr_to(Stdio::piped());
        let out = make.limit(Duration::from_secs(1200)).run();
        assert_eq!(out.status, 0, "{out}");
        let dist = self.build.join("dist");
        let read = |name: String| (name.clone(), fs::read(dist.join(name)).unwrap());
        names(&dist).into_iter().map(read).collect()
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
#[ignore = "two release builds"]
fn slow_a_release_is_the_same_bytes_wherever_it_is_built() {
    let dir = TempDir::on_disk();
    let one = Builder::new(&dir.join("one"));
    let other = Builder::new(&dir.join("in-quite-another-place"));
    tool!("chmod", "-R", "go=", &one.source).run().ok();
    // The time as it is told, and as it is in a copy of the source.
    let changes = fs::File::open(other.source.join("CHANGELOG.md")).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH);
    changes.set_modified(time).unwrap();
    let made = one.dist("umask 077; export TZ=UTC-5", &EPOCH.to_string());
    let made_there = other.dist("umask 002; export LC_ALL=C.UTF-8", "");
    let found: Vec<_> = made.iter().map(|(name, _)| name.as_str()).collect();
    let arch = std::env::consts::ARCH;
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("psync-{version}-{arch}");
    assert_eq!(found[..2], ["SHA256SUMS", &format!("{name}.tar.gz")]);
    for (this, that) in made.iter().zip(&made_there) {
        assert!(this == that, "{} and {} differ", this.0, that.0);
    }
    assert_eq!(made.len(), made_there.len());

    let check = || tool!("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS");
    let dist = one.build.join("dist");
    check().cwd(&dist).run().ok();
    let tarball = dist.join(&made[1].0);
    tool!("tar", "-xzf", &tarball).cwd(&dir).run().ok();
    let unpacked = dir.join(&name);
    let sums = fs::read_to_string(unpacked.join("SHA256SUMS")).unwrap();
    check().cwd(&unpacked).run().ok();
    for file in [
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "psync.init",
        "share/man/man1/psync.1",
    ] {
        assert!(sums.contains(&format!("  ./{file}\n")), "{file}: {sums}");
    }
    let mut binaries = vec![unpacked.join("bin/psync")];
    if made.len() > 2 {
        let package = dist.join(&made[2].0);
        let to = dir.join("package");
        tool!("dpkg-deb", "--extract", &package, &to).run().ok();
        tool!("md5sum", "--check", "--strict", "--quiet", "-")
            .stdin(
                tool!("dpkg-deb", "--info", &package, "md5sums")
                    .run()
                    .ok()
                    .stdout,
            )
            .cwd(&to)
            .run()
            .ok();
        let field = tool!("dpkg-deb", "--field", &package, "Version").run().ok();
        assert_eq!(field.text().trim(), version);
        binaries.push(to.join("usr/bin/psync"));
    }
    for binary in binaries {
        let told = Run::new(&binary).arg("--version").run().ok();
        assert_eq!(told.text(), format!("psync {version}\n"));
        let bytes = fs::read(&binary).unwrap();
        let home = std::env::home_dir().unwrap();
        for path in [&home, &dir.to_path_buf()] {
            let below = format!("{}/", path.display());
            assert!(!holds(&bytes, &below), "{below}");
        }
        // Paths are there, and would be seen.
        assert!(holds(&bytes, "crates/ureq-"));
    }
}
