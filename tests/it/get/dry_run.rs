//! `get --dry-run`: what is here and what is missing, on one line; it asks no server and writes
//! nothing, and exit 0 means that nothing is left to be done.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::get::output::{Loop, part};
use crate::support::*;

/// A file of two blocks, one of zeros, a fourth and 5 bytes; its server; a directory for FILE.
struct World {
    sample: Sample,
    server: HostileServer,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let mut bytes = random(4 * BLOCK_SIZE + 5, 13);
        bytes[2 * BLOCK_SIZE..3 * BLOCK_SIZE].fill(0);
        let mut sample = Sample::new(0);
        fs::write(&sample.list, hashlist(&bytes)).unwrap();
        sample.bytes = bytes;
        Self {
            server: sample.honest(),
            sample,
            dir: TempDir::new(),
        }
    }

    /// With all that could have it ask or write.
    fn get(&self) -> Run {
        let (server, mirror) = (self.server.url(), self.server.url() + "/file");
        psync!("get", "-n", "-k", "--peers", "-m", mirror, server).cwd(&self.dir)
    }

    fn block(&self, n: usize) -> &[u8] {
        self.sample.block(n)
    }

    /// Exactly this line and status; no server was asked, and nothing has changed.
    #[track_caller]
    fn tells(&self, run: Run, status: i32, line: &str) {
        let before = tree(&self.dir);
        let out = run.run();
        assert_eq!(
            (out.status, out.text()),
            (status, format!("{line}\n").as_str()),
            "{out}"
        );
        assert_eq!(
            out.stderr.lines().count(),
            usize::from(status != 0),
            "{out}"
        );
        assert_eq!(self.server.connections(), 0);
        assert_eq!(tree(&self.dir), before);
    }
}

/// Each name in a directory, and what it holds.
fn tree(dir: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let content = |name: String| {
        let bytes = fs::read(dir.join(&name)).ok();
        (name, bytes)
    };
    names(dir).into_iter().map(content).collect()
}

#[test]
fn it_counts_what_is_here_and_what_is_missing() {
    let world = World::new();
    let (list, all) = (&world.sample.list, &world.sample.bytes);
    let get = || world.get();
    // Of a block whose length a list does not tell the most is counted.
    world.tells(get().arg(list), 3, "blocks=5 local=1 missing=4 bytes=16384");
    world.tells(
        get().arg("-").stdin(fs::read(list).unwrap()),
        3,
        "blocks=5 local=1 missing=4 bytes=16384",
    );
    fs::create_dir(world.dir.join("b")).unwrap();
    write_blocks(world.dir.join("b"), world.block(1));
    let seeds = ["-d", "b", "--seed", "seed"];
    world
        .dir
        .file("seed", [&b"odd"[..], world.block(0)].concat());
    world.tells(
        get().args(seeds).arg(list),
        3,
        "blocks=5 local=2 missing=3 bytes=12288",
    );
    world
        .dir
        .file("seed", [world.block(3), world.block(0)].concat());
    world.tells(
        get().args(seeds).arg(list),
        3,
        "blocks=5 local=4 missing=1 bytes=4096",
    );
    write_blocks(world.dir.join("b"), world.block(4));
    world.tells(
        get().args(seeds).arg(list),
        0,
        "blocks=5 local=5 missing=0 bytes=0",
    );
    // All is here, but FILE is not what the list says.
    let file = ["-o", "file"];
    let whole = "blocks=5 local=5 missing=0 bytes=0";
    let get = || world.get().args(seeds).args(file).arg(list);
    world.tells(get(), 3, whole);
    for (there, status) in [
        (&all[..], 0),
        (&all[..all.len() - 1], 3),
        (&[&all[..], b"x"].concat(), 3),
        (
            &[&all[..BLOCK_SIZE - 1], b"x", &all[BLOCK_SIZE..]].concat(),
            3,
        ),
        (b"", 3),
    ] {
        world.dir.file("file", there);
        world.tells(get(), status, whole);
        world.tells(get().arg("--in-place"), status, whole);
    }
}

#[test]
fn blocks_of_file_and_of_its_part_are_here() {
    let world = World::new();
    let get = || world.get().args(["-o", "file"]).arg(&world.sample.list);
    // At their own places, and moved.
    let (all, noise) = (&world.sample.bytes, random(BLOCK_SIZE, 1));
    world
        .dir
        .file("file", [&noise, world.block(1), world.block(0)].concat());
    world.tells(get(), 3, "blocks=5 local=3 missing=2 bytes=8192");
    // In FILE.part only what is at its place, which is what a get takes from it.
    let part = part(&world.dir.join("file"));
    fs::write(&part, [&all[..BLOCK_SIZE], world.block(4)].concat()).unwrap();
    world.tells(get(), 3, "blocks=5 local=3 missing=2 bytes=8192");
    fs::write(&part, [&vec![0; 4 * BLOCK_SIZE], world.block(4)].concat()).unwrap();
    world.tells(get(), 3, "blocks=5 local=4 missing=1 bytes=4096");
    // A get fetches no more than that.
    let get = world.sample.get(&[&world.server]).cwd(&world.dir);
    get.args(["-o", "file"]).run().ok();
    assert_eq!(world.server.requests().len(), 1);
}

/// In place nothing is taken from elsewhere in FILE, which is written over, nor from a FILE.part.
#[test]
fn in_place_only_what_is_at_its_place_is_here() {
    let world = World::new();
    let get = || {
        world
            .get()
            .args(["--in-place", "-o", "file"])
            .arg(&world.sample.list)
    };
    world.dir.file(
        "file",
        [world.block(1), world.block(1), world.block(0)].concat(),
    );
    fs::write(part(&world.dir.join("file")), &world.sample.bytes).unwrap();
    world.tells(get(), 3, "blocks=5 local=2 missing=3 bytes=12288");
}

/// To open them has effects: a FIFO's writer would be let go, a watchdog begin to count.
#[test]
fn what_is_no_file_is_not_opened() {
    let world = World::new();
    let fifo = world.dir.join("fifo");
    tool!("mkfifo", &fifo).run().ok();
    symlink(&fifo, part(&world.dir.join("file"))).unwrap();
    let bytes = random(100 * BLOCK_SIZE, 4);
    let dir = world.dir.join("b");
    let export = psync!("export", "--root", "-d", &dir).stdin(&bytes);
    let root = export.run().ok().text().trim_end().to_owned();
    for output in ["fifo", "file"] {
        for list in [world.sample.list.to_str().unwrap(), &root] {
            let get = world.get().args(["-d", "b", "-o", output, list]);
            let (out, calls) = trace("open,openat", &[], get);
            assert_eq!(out.status, 3, "{out}");
            let opened = calls
                .iter()
                .filter(|call| call.text.contains("fifo\"") || call.text.contains("file.part\""));
            assert_eq!(opened.count(), 0, "{output} {list}");
        }
    }
}

#[test]
fn by_a_root_it_counts_blocks_of_the_file_alone() {
    let world = World::new();
    let dir = world.dir.join("b");
    let bytes = random(200 * BLOCK_SIZE + 7, 3);
    let export = psync!("export", "--root", "-d", &dir)
        .stdin(&bytes)
        .run()
        .ok();
    let root = export.text().trim_end().to_owned();
    let get = || world.get().args(["-d", "b", &root]);
    world.tells(get(), 0, "blocks=201 local=201 missing=0 bytes=0");
    let block = |n: usize| dir.join(hash_hex(blocks(&bytes).nth(n).unwrap()));
    for n in [0, 100, 200] {
        fs::remove_file(block(n)).unwrap();
    }
    // The root tells how long the last one is.
    world.tells(get(), 3, "blocks=201 local=198 missing=3 bytes=8199");
    // Of a FILE of which only the root is known, that is enough, if it is right.
    world.dir.file("file", &bytes);
    let verify = || world.get().args(["-d", "none", "-o", "file", &root]);
    world.tells(verify(), 0, "blocks=201 local=201 missing=0 bytes=0");
    world.dir.file("file", &bytes[1..]);
    world.tells(verify(), 3, "blocks=0 local=0 missing=1 bytes=4096");
    world.tells(
        world.get().args(["-d", "none", &root]),
        3,
        "blocks=0 local=0 missing=1 bytes=4096",
    );
    // A list that is not all here: the size is what the root tells of the rest.
    let text = hashlist(&bytes);
    let lists: Vec<_> = blocks(text.as_bytes()).map(hash_hex).collect();
    fs::remove_file(dir.join(&lists[2])).unwrap();
    // The second block ends in the middle of line 126.
    let (listed, size) = (2 * BLOCK_SIZE / 65, bytes.len());
    let (local, missing) = (listed - 2, 201 - listed + 2);
    let rest = size - listed * BLOCK_SIZE + 2 * BLOCK_SIZE;
    world.tells(
        get(),
        3,
        &format!("blocks=201 local={local} missing={missing} bytes={rest}"),
    );
    for list in &lists {
        let _ = fs::remove_file(dir.join(list));
    }
    world.tells(
        get(),
        3,
        &format!("blocks=201 local=0 missing=201 bytes={size}"),
    );
}

#[test]
fn what_is_malformed_is_refused_and_what_is_empty_is_told() {
    let world = World::new();
    let out = world.get().arg("-").stdin("odd\n").run();
    out.fails_naming(2, &["psync: read hashlist -:1: "]);
    let out = world.get().arg("-").run();
    assert_eq!(
        (out.status, out.text()),
        (0, "blocks=0 local=0 missing=0 bytes=0\n")
    );
    assert!(out.stderr.contains("the hashlist is empty"), "{out}");
    // Not even an empty FILE is made.
    let out = world.get().args(["-q", "-o", "file", "-"]).run();
    assert_eq!(
        (out.status, out.text()),
        (3, "blocks=0 local=0 missing=0 bytes=0\n")
    );
    assert!(!world.dir.join("file").exists());
}

/// No right to write is needed, nothing is opened for writing, and no socket is made.
#[test]
fn it_only_reads() {
    let world = World::new();
    let file = world.dir.file("file", &world.sample.bytes);
    let read_only = fs::Permissions::from_mode(0o444);
    fs::set_permissions(&file, read_only).unwrap();
    let closed = fs::Permissions::from_mode(0o555);
    fs::set_permissions(&world.dir, closed).unwrap();
    let get = || {
        let get = world.get().args(["--lan", "-d", "b", "--seed", "file"]);
        get.args(["-o", "file"]).arg(&world.sample.list)
    };
    world.tells(get().powerless(), 0, "blocks=5 local=5 missing=0 bytes=0");
    let calls = "open,openat,socket,connect,mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2,fsync,ftruncate,flock";
    let (out, calls) = trace(calls, &[], get());
    assert_eq!(out.status, 0, "{out}");
    assert!(
        calls
            .iter()
            .any(|call| call.text.contains("/file\"") || call.text.contains("\"file\""))
    );
    let only_reads = |call: &Call| {
        call.is(&["open", "openat"])
            && !["O_WRONLY", "O_RDWR", "O_CREAT"]
                .iter()
                .any(|flag| call.text.contains(flag))
    };
    let writes: Vec<_> = calls.iter().filter(|call| !only_reads(call)).collect();
    assert!(writes.is_empty(), "{writes:?}");
}

/// `get -n -o DEV LIST` verifies a device, though it is mounted and larger than the file.
#[test]
#[ignore = "mounts a loop device"]
fn root_a_device_is_verified() {
    let world = World::new();
    let mut image = vec![0; 8 << 20];
    image[..world.sample.bytes.len()].copy_from_slice(&world.sample.bytes);
    let device = match Loop::new(&image) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let list = &world.sample.list;
    let get = || world.get().arg("-o").arg(&device.device);
    world.tells(get().arg(list), 0, "blocks=5 local=5 missing=0 bytes=0");
    // Of what is mounted, all that lies on the device.
    tool!("mkfs.ext4", "-q", &device.device).run().ok();
    let image = device.read();
    let whole = world.dir.file("whole", hashlist(&image));
    let mount = Mount::of(&device.device, "ro,noload");
    let mounted = get().arg(&whole).run();
    mount.unmount();
    assert_eq!(
        mounted.ok().text(),
        "blocks=2048 local=2048 missing=0 bytes=0\n"
    );
    let small = Loop::new(&image[..2 * BLOCK_SIZE]).unwrap();
    let out = world.get().arg("-o").arg(&small.device).arg(list).run();
    out.fails_naming(1, &["it has 8192 bytes, too few for the file"]);
    let get = world.get().arg("-o").arg(&small.device).arg("-");
    let out = get.stdin(fs::read(list).unwrap()).run();
    out.fails_naming(1, &["it has 8192 bytes, too few for the file"]);
    assert_eq!(world.server.connections(), 0);
}
