//! psync for other processors, static and in emulation (qemu-user), with each other and with the one for
//! this machine: 32 bits, the other order of bytes, and MIPS's own numbers for what the system says.
//!
//! Emulation hands system calls on to this kernel, translated: it shows what psync makes of them, not
//! what a 32-bit kernel would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::get::output::Loop;
use crate::server::whole_files::{serves, sparse, wait_for};
use crate::support::*;
use crate::together::lan::{SERVED, alone};

/// A processor, where it is another one: its target and emulator.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Machine(Option<(&'static str, &'static str)>);

const NATIVE: Machine = Machine(None);
const ARM: Machine = Machine(Some(("armv7-unknown-linux-gnueabihf", "qemu-arm-static")));
const MIPS: Machine = Machine(Some(("mips-unknown-linux-gnu", "qemu-mips-static")));

impl Machine {
    /// The same command there.
    #[track_caller]
    fn of(self, run: Run) -> Run {
        match self.0 {
            Some((target, emulator)) => run.program(binary(target)).under(emulator, [""; 0]),
            None => run,
        }
    }

    #[track_caller]
    fn serve(self, options: &[&dyn AsRef<std::ffi::OsStr>]) -> Server {
        let run = psync!("server").args(options.iter().map(AsRef::as_ref));
        Server::of(self.of(run.arg("127.0.0.1:0")))
    }

    /// One word that runs psync there, for a shell.
    #[track_caller]
    fn script(self, dir: &TempDir) -> PathBuf {
        let (target, emulator) = self.0.unwrap();
        let (emulator, binary) = (need(emulator), binary(target));
        let text = format!(
            "#!/bin/sh\nexec {} {} \"$@\"\n",
            emulator.display(),
            binary.display()
        );
        let path = dir.file(target, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// As `make test-cross` has built it.
#[track_caller]
fn binary(target: &str) -> PathBuf {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let binary = build.join(target).join("release/psync");
    if !binary.exists() {
        need_all("cross");
        panic!("make test-cross builds it");
    }
    binary
}

/// Two levels of lists above it; a short last block, zeros, and blocks that it has twice.
fn file() -> Vec<u8> {
    let start = random(4000 * BLOCK_SIZE, 1);
    let zeros = [0; 40 * BLOCK_SIZE];
    let end = random(200 * BLOCK_SIZE + 5, 2);
    [&start, &zeros[..], &start[..100 * BLOCK_SIZE], &end].concat()
}

#[test]
#[ignore = "make test-cross"]
fn cross_what_is_exported_is_the_same() {
    let rooted = Rooted::new(&file());
    let list = hashlist(rooted.bytes());
    for machine in [ARM, MIPS] {
        let dir = TempDir::new();
        let file = dir.file("file", rooted.bytes());
        let blocks = dir.join("blocks");
        let export = |words: &[&str]| {
            let run = psync!("export", "-d", &blocks, &file).args(words);
            machine.of(run).run().ok()
        };
        assert!(export(&[]).text() == list);
        // What is damaged is put right.
        fs::write(blocks.join(&list[..64]), "x").unwrap();
        assert_eq!(export(&["--root"]).text(), rooted.line());
        let all: String = rooted.map().into_keys().map(|hash| hash + "\n").collect();
        assert_stored(&blocks, &all);
        assert_eq!(strangers(&blocks), [""; 0]);
    }
}

/// The counts of `--stats` that do not depend on how fast anybody was.
fn counts(stderr: &str) -> Vec<&str> {
    let words: Vec<_> = stderr.split_whitespace().take(4).collect();
    assert!(
        stderr.starts_with("blocks=") && stderr.lines().count() == 1,
        "{stderr}"
    );
    words
}

#[test]
#[ignore = "make test-cross"]
fn cross_every_two_of_them_agree() {
    let rooted = Rooted::new(&file());
    let dir = TempDir::new();
    let (file, blocks) = (dir.file("file", rooted.bytes()), dir.join("blocks"));
    let list = dir.file("list", hashlist(rooted.bytes()));
    let empty = TempDir::new();
    let export = psync!("export", "-d", &blocks, "--root", &file).run().ok();
    assert_eq!(export.text(), rooted.line());
    for from in [NATIVE, ARM, MIPS] {
        let server = from.serve(&[&"-d", &blocks]);
        let of_file = from.serve(&[&"-d", &empty, &"--file", &file]);
        for part in rooted.bytes().chunks(1024 * BLOCK_SIZE) {
            wait_for(&of_file, part);
        }
        let mut counted = Vec::new();
        for to in [NATIVE, ARM, MIPS] {
            let (out, kept) = (TempDir::new(), TempDir::new());
            let get = |server: &Server| to.of(psync!("get", server.url()));
            let is_file = |path: &Path| fs::read(path).unwrap() == rooted.bytes();
            assert!(get(&server).arg(&list).run().ok().stdout == rooted.bytes());

            let place = out.join("kept");
            let keep = get(&server).args(["--stats", "--keep", "-d"]).arg(&*kept);
            let stats = keep.arg("-o").arg(&place).arg(&list).run().stderr;
            assert!(is_file(&place), "{stats}");
            assert_stored(&kept, &fs::read_to_string(&list).unwrap());
            counted.push(counts(&stats).join(" "));

            let place = out.join("root");
            get(&server)
                .arg("-o")
                .arg(&place)
                .arg(&rooted.root)
                .run()
                .ok();
            assert!(is_file(&place));

            let place = out.join("of a file");
            get(&of_file).arg("-o").arg(&place).arg(&list).run().ok();
            assert!(is_file(&place));
        }
        counted.dedup();
        assert_eq!(counted.len(), 1, "{counted:?}");
    }
}

/// The line of a block of nothing but zeros.
fn zeros() -> String {
    hashlist(&[0; BLOCK_SIZE])
}

#[test]
#[ignore = "make test-cross"]
fn cross_they_find_each_other() {
    let sample = Sample::new(20);
    write_blocks(sample.dir.join("b"), &sample.bytes);
    for (server, get) in [(ARM, MIPS), (MIPS, ARM)] {
        let script = format!("{SERVED}\"$GET\" get -d none --lan=127.0.0.1 list");
        let Some(run) = alone(&script, &sample.dir) else {
            skip!("no namespaces for this user")
        };
        let run = run.env("PSYNC", server.script(&sample.dir));
        sample.is_whole(run.env("GET", get.script(&sample.dir)).run());
    }
}

/// As with a kernel that has no IPv6, which small boxes' have not.
#[test]
#[ignore = "make test-cross"]
fn cross_all_interfaces_are_those_of_ipv4_where_there_is_no_ipv6() {
    let no_ipv6 = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=socket"];
    let refused = "inject=socket:error=EAFNOSUPPORT:when=1";
    for machine in [NATIVE, ARM, MIPS] {
        let dir = TempDir::new();
        let run = machine.of(psync!("server", "-d", &*dir, ":0"));
        let server = Server::of(run.under("strace", no_ipv6.into_iter().chain(["-e", refused])));
        assert!(server.addr().is_ipv4(), "{server}");
    }
}

const GIB: u64 = 1 << 30;

/// Far above what hashing four of them takes in emulation: half a minute of one processor.
const LIMIT: Duration = Duration::from_secs(1800);

/// What lies where numbers of 32 bits end, signed and not, and behind that.
const MARKS: [u64; 5] = [
    BLOCK_SIZE as u64,
    2 * GIB,
    4 * GIB - BLOCK_SIZE as u64,
    4 * GIB,
    4 * GIB + 5 * BLOCK_SIZE as u64,
];

/// A sparse file, too long for 32 bits; its list; and the blocks of it that are not zeros.
struct Long {
    dir: TempDir,
    file: PathBuf,
    list: PathBuf,
    marks: Vec<u8>,
}

impl Long {
    fn new() -> Self {
        let dir = TempDir::on_disk();
        let marks = random(MARKS.len() * BLOCK_SIZE, 1);
        let parts: Vec<_> = MARKS.into_iter().zip(blocks(&marks)).collect();
        let size = MARKS[4] + BLOCK_SIZE as u64;
        let file = sparse(&dir, size, &parts);
        let mut lines = vec![zeros(); (size / BLOCK_SIZE as u64) as usize];
        for (offset, block) in parts {
            lines[(offset / BLOCK_SIZE as u64) as usize] = hashlist(block);
        }
        let list = dir.file("list", lines.concat());
        Self {
            dir,
            file,
            list,
            marks,
        }
    }

    /// The rest, to the end, of what `get` writes to `place`.
    fn is_got(&self, machine: Machine, place: &Path, words: &[&dyn AsRef<std::ffi::OsStr>]) {
        let get = psync!("get", "-o", place).args(words.iter().map(AsRef::as_ref));
        machine.of(get.arg(&self.list)).limit(LIMIT).run().ok();
        tool!("cmp", place, &self.file).limit(LIMIT).run().ok();
    }
}

#[test]
#[ignore = "make test-cross"]
fn cross_files_may_be_longer_than_32_bits_count() {
    let long = Long::new();
    let blocks = long.dir.join("blocks");
    write_blocks(&blocks, &long.marks);
    let nginx = Daemon::nginx(&*long.dir, "");
    let mirror = format!("{}/sparse", nginx.url());
    for machine in [ARM, MIPS] {
        let out = TempDir::on_disk();
        long.is_got(machine, &out.join("from blocks"), &[&"-d", &blocks]);
        long.is_got(machine, &out.join("from a mirror"), &[&"-m", &mirror]);
    }
    // The others hash all of it, which takes its time in emulation: each by one of them.
    let list = fs::read(&long.list).unwrap();
    let export = psync!("export", "--no-store", &long.file).limit(LIMIT);
    assert!(ARM.of(export).run().ok().stdout == list);

    let out = TempDir::on_disk();
    let server = MIPS.serve(&[&"-d", &out, &"--file", &long.file]);
    let deadline = Instant::now() + LIMIT;
    while !serves(&server, &long.marks) {
        assert!(Instant::now() < deadline, "never served");
        thread::sleep(Duration::from_millis(100));
    }
    long.is_got(ARM, &out.join("from a file"), &[&server.url()]);
    long.is_got(ARM, &out.join("from a seed"), &[&"--seed", &long.file]);
}

#[test]
#[ignore = "make test-cross; a loop device"]
fn cross_so_may_block_devices() {
    let long = Long::new();
    let blocks = long.dir.join("blocks");
    write_blocks(&blocks, &long.marks);
    let dir = TempDir::on_disk();
    let size = fs::metadata(&long.file).unwrap().len();
    let image = sparse(&dir, size, &[(4 * GIB, b"something else")]);
    let device = match Loop::over(image, dir) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let list = fs::read_to_string(&long.list).unwrap() + &zeros();
    let list = long.dir.file("longer list", list);
    let get = MIPS.of(psync!("get", "-o", &device.device, &list));
    let told = format!(": it has {size} bytes, too few for the file\n");
    get.run().fails_naming(1, &[&told]);

    long.is_got(MIPS, &device.device, &[&"-d", &blocks]);
}
