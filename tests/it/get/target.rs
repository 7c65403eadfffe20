//! What FILE leads to: links that another user may have laid, devices in use or missing, files that
//! cannot be replaced, directories and file systems that lack something. What will not succeed is said
//! before any server is asked.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::get::output::{Loop, part};
use crate::support::*;

/// A sample, its server, and a directory for FILE.
struct World {
    sample: Sample,
    server: HostileServer,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        Self::on(TempDir::new())
    }

    fn on(dir: TempDir) -> Self {
        let sample = Sample::new(3);
        Self {
            server: sample.honest(),
            sample,
            dir,
        }
    }

    fn get(&self, file: &Path) -> Run {
        self.sample.get(&[&self.server]).arg("-o").arg(file)
    }

    /// Exactly this, and no server was asked.
    #[track_caller]
    fn refuses(&self, out: Output, told: &str) {
        out.fails(1, &format!("psync: {told}\n"));
        assert_eq!(self.server.connections(), 0);
    }

    #[track_caller]
    fn holds(&self, file: &Path) {
        assert!(fs::read(file).unwrap() == self.sample.bytes, "not the file");
    }
}

#[test]
#[ignore = "takes other user ids"]
fn root_a_link_of_another_user_in_a_sticky_directory_is_not_followed() {
    // Who owns the directory, who laid the link, who follows it, and whether he does.
    for (owner, layer, user, follows) in [
        (0, MALLORY, ALICE, false),
        (0, MALLORY, 0, false),
        (0, 0, ALICE, true),
        (0, ALICE, ALICE, true),
        (ALICE, MALLORY, ALICE, false),
        (MALLORY, MALLORY, ALICE, true),
        (MALLORY, MALLORY, 0, true),
        (0, ALICE, 0, false),
    ] {
        // The last name, one on the way, and one that a link of the user's own leads to.
        for (to, name) in [
            ("home/file", "link"),
            ("home", "link/file"),
            ("home/file", "own"),
        ] {
            let (shared, world) = (Shared::new(), World::new());
            let list = shared.path().join("list");
            fs::copy(&world.sample.list, &list).unwrap();
            let home = shared.dir("home", user, 0o700);
            let public = shared.dir("public", owner, 0o1777);
            let file = home.join("file");
            fs::write(&file, "precious").unwrap();
            own(&file, user, 0o600);
            let link = public.join("link");
            symlink(shared.path().join(to), &link).unwrap();
            lchown(&link, Some(layer), Some(layer)).unwrap();
            symlink(&link, home.join("own")).unwrap();
            lchown(home.join("own"), Some(user), Some(user)).unwrap();
            let named = match name {
                "own" => home.join("own"),
                name => public.join(name),
            };
            for options in [&[][..], &["--in-place"]] {
                let get = shared.psync(user).arg("get").arg(world.server.url());
                let get = get.args(options).arg("-o").arg(&named).arg(&list);
                let out = get.run();
                if follows {
                    out.ok();
                    world.holds(&file);
                    fs::write(&file, "precious").unwrap();
                    continue;
                }
                let told = format!(
                    "follow {}: it is another user's symbolic link, in a sticky directory",
                    link.display()
                );
                world.refuses(out, &told);
                assert_eq!(fs::read(&file).unwrap(), b"precious");
                assert_eq!(names(&public), ["link"]);
            }
        }
    }
}

/// A link of /proc leads where no path of this process does: to another mount, another namespace.
#[test]
#[ignore = "mounts in a namespace"]
fn root_a_link_of_proc_is_followed_by_the_kernel() {
    let world = World::new();
    let dir = world.dir.join("dir");
    fs::create_dir(&dir).unwrap();
    let before = format!(
        "exec 3<'{0}'; mount -t tmpfs none '{0}'; echo other >'{0}/file'",
        dir.display()
    );
    let get = world.get(Path::new("/proc/self/fd/3/file")).sh(&before);
    get.under("unshare", ["-m"]).run().ok();
    world.holds(&dir.join("file"));
    assert_eq!(names(&dir), ["file"]);
    // One without a name is refused: it would be found nowhere.
    let before = format!("exec 3>'{0}/gone'; rm '{0}/gone'", dir.display());
    let out = world.get(Path::new("/dev/fd/3")).sh(&before).run();
    out.fails_naming(
        1,
        &["psync: open /dev/fd/3: it leads to a file that has no name here"],
    );
    assert_eq!(names(&dir), ["file"]);
}

/// What comes of it when `other` takes the name `path` as that is opened for the nth time.
fn swapped(world: &World, get: Run, path: &Path, nth: usize, other: &Path) {
    let log = world.sample.dir.join("log");
    let inject = format!("inject=openat:delay_enter=3000000:when={nth}");
    let words = [
        "-f",
        "-qq",
        "-e",
        &inject,
        "-P",
        path.to_str().unwrap(),
        "-o",
    ];
    let words = words.into_iter().chain(log.to_str());
    let run = get.under("strace", words).start();
    wait_until("it opens it", || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.matches("openat(").count() == nth
    });
    fs::rename(other, path).unwrap();
    let told = format!(
        "write {}: it was replaced or removed meanwhile; run the same command again",
        path.display()
    );
    world.refuses(run.wait(), &told);
}

/// What was found to be a FIFO is a link to another file when it is opened.
#[test]
fn a_fifo_that_is_swapped_for_a_link_is_not_written_through() {
    let world = World::new();
    let (fifo, link) = (world.dir.join("fifo"), world.dir.join("link"));
    tool!("mkfifo", &fifo).run().ok();
    let precious = world.dir.file("precious", "precious");
    symlink(&precious, &link).unwrap();
    swapped(&world, world.get(&fifo), &fifo, 1, &link);
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

/// What is written in place is what was found, and nothing that has its name by then.
#[test]
fn a_file_that_is_swapped_is_not_written_in_place() {
    let world = World::new();
    let file = world.dir.file("file", "old");
    let precious = world.dir.file("precious", "precious");
    // Opened to be held, to see whether it is right, and to be written.
    let get = world.get(&file).arg("--in-place");
    swapped(&world, get, &file, 3, &precious);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

/// It would give the content to whoever made it.
#[test]
#[ignore = "takes other user ids"]
fn root_a_fifo_of_another_user_in_a_sticky_directory_is_not_written_to() {
    let (shared, world) = (Shared::new(), World::new());
    let list = shared.path().join("list");
    fs::copy(&world.sample.list, &list).unwrap();
    let fifo = shared.dir("public", 0, 0o1777).join("fifo");
    tool!("mkfifo", &fifo).run().ok();
    own(&fifo, MALLORY, 0o666);
    let get = shared.psync(ALICE).arg("get").arg(world.server.url());
    let told = format!(
        "follow {}: it is another user's FIFO or device, in a sticky directory",
        fifo.display()
    );
    world.refuses(get.arg("-o").arg(&fifo).arg(&list).run(), &told);
}

/// Wherever it is mounted.
#[test]
#[ignore = "mounts in a namespace"]
fn root_a_missing_device_is_not_made_a_file_elsewhere() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_devtmpfs = |line: &str| line.contains(" /dev ") && line.contains(" - devtmpfs ");
    if !mounts.lines().any(is_devtmpfs) {
        skip!("/dev is no devtmpfs");
    }
    let world = World::on(TempDir::on_disk());
    let name = world.dir.join(format!("psync-it-{}", std::process::id()));
    let before = format!("mount --bind /dev '{}'", world.dir.display());
    let out = world.get(&name).sh(&before).under("unshare", ["-m"]).run();
    let told = format!(
        "create {}: there is no such device, and a new file in /dev would be lost",
        name.display()
    );
    world.refuses(out, &told);
    let made = Path::new("/dev").join(name.file_name().unwrap());
    assert!(!made.exists() && !part(&made).exists());
}

/// The way that works is named, where there is one.
#[test]
fn a_directory_that_may_not_be_written_leaves_in_place() {
    let world = World::new();
    let closed = world.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    let file = closed.join("file");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let told = format!(
        "create {}: Permission denied; --in-place updates it where it lies",
        part(&file).display()
    );
    world.refuses(world.get(&file).powerless().run(), &told);
    world.get(&file).arg("--in-place").powerless().run().ok();
    world.holds(&file);
}

/// Only a name that is not there is passed over: any other error of the look-up is told.
#[test]
fn what_cannot_be_looked_up_is_no_new_file() {
    for error in ["EACCES", "EIO", "ELOOP"] {
        let world = World::new();
        let file = world.dir.file("file", "old");
        let link = world.sample.dir.join("link");
        symlink(&file, &link).unwrap();
        let inject = format!("inject=?statx,?newfstatat,?fstatat64,?lstat,?lstat64:error={error}");
        let words = ["-f", "-qq", "-o", "/dev/null", "-e", &inject, "-P"];
        let words = words.into_iter().chain(link.to_str());
        let out = world.get(&link).under("strace", words).run();
        assert_eq!((out.status, world.server.connections()), (1, 0), "{out}");
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(names(&world.dir), ["file"]);
    }
}

/// In memory, where the next boot loses it, and what was meant is a disk.
#[test]
fn a_missing_device_is_not_made_a_file() {
    let world = World::new();
    let device = PathBuf::from(format!("/dev/psync-it-{}", std::process::id()));
    let link = world.dir.join("disk");
    symlink(&device, &link).unwrap();
    for name in [&device, &link] {
        for options in [&[][..], &["--in-place"]] {
            let out = world.get(name).args(options).run();
            let told = format!(
                "create {}: there is no such device, and a new file in /dev would be lost",
                device.display()
            );
            world.refuses(out, &told);
            assert!(!device.exists() && !part(&device).exists());
        }
    }
    // Another file system below it is for files.
    if Path::new("/dev/shm").is_dir() {
        let dir = TempDir::within(Path::new("/dev/shm"));
        world.get(&dir.join("file")).run().ok();
        world.holds(&dir.join("file"));
    }
}

/// One that holds a file system, or swap, would be destroyed.
#[test]
#[ignore = "mounts a loop device"]
fn root_a_device_in_use_is_refused() {
    let world = World::new();
    let device = match Loop::new(&vec![0; 8 << 20]) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let told = format!(
        "write {}: it is mounted or in use; unmount it first",
        device.device.display()
    );
    let link = world.dir.join("by-id");
    symlink(&device.device, &link).unwrap();
    let refused = || {
        for name in [&device.device, &link] {
            for options in [&[][..], &["--in-place"]] {
                world.refuses(world.get(name).args(options).run(), &told);
            }
        }
    };
    tool!("mkfs.ext4", "-q", &device.device).run().ok();
    let mount = Mount::of(&device.device, "rw");
    fs::write(mount.at.join("kept"), "kept").unwrap();
    refused();
    assert_eq!(fs::read(mount.at.join("kept")).unwrap(), b"kept");
    mount.unmount();
    tool!("mkswap", &device.device).run();
    if tool!("swapon", &device.device).run().status == 0 {
        refused();
        tool!("swapoff", &device.device).run().ok();
    }
    world.get(&device.device).run().ok();
    assert!(device.read().starts_with(&world.sample.bytes));
}

/// Nor does the kernel say that a loop device lies over it, whose file system would be destroyed.
#[test]
#[ignore = "loop devices"]
fn root_what_lies_under_a_loop_device_is_refused() {
    let world = World::new();
    let (Ok(lower), dir) = (Loop::new(&vec![0; 8 << 20]), TempDir::on_disk()) else {
        skip!("no loop device")
    };
    let upper = Loop::over(lower.device.clone(), dir).unwrap();
    for (file, options, refused) in [
        (&lower.device, &[][..], true),
        (&lower.image, &["--in-place"], true),
        (&lower.image, &[], false),
    ] {
        let out = world.get(file).args(options).run();
        if refused {
            let by = if file == &lower.device {
                &upper
            } else {
                &lower
            };
            let told = format!(
                "write {}: it is in use by {}; detach that first",
                file.display(),
                by.device.display()
            );
            world.refuses(out, &told);
        } else {
            // Another file takes its place, and the device keeps the old one.
            out.ok();
            world.holds(file);
        }
    }
    for name in [&b"blank "[..], b"b\xe4r"] {
        let dir = TempDir::on_disk();
        let image = dir.join(OsStr::from_bytes(name));
        fs::write(&image, vec![0; 1 << 20]).unwrap();
        let device = Loop::over(image.clone(), dir).unwrap();
        let out = world.get(&image).arg("--in-place").run();
        let by = format!("it is in use by {}; ", device.device.display());
        out.fails_naming(1, &[&by]);
    }
}

#[test]
#[ignore = "a loop device"]
fn root_a_read_only_device_is_told_before_anything_is_asked() {
    let world = World::new();
    let device = match Loop::new(&vec![0; 8 << 20]) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let set = |how: &str| tool!("blockdev", how, &device.device).run().ok();
    set("--setro");
    let out = world.get(&device.device).run();
    // It would stay so for the next that has this loop device.
    set("--setrw");
    let told = format!(
        "write {}: it can only be read (blockdev --setrw)",
        device.device.display()
    );
    world.refuses(out, &told);
}

#[test]
#[ignore = "a loop device"]
fn root_of_two_gets_of_one_device_the_second_says_so() {
    let world = World::new();
    let device = match Loop::new(&vec![0; 8 << 20]) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let silent = HostileServer::http(|_| Reply::raw("").then_silence());
    let get = world.sample.get(&[&silent]).arg("-o").arg(&device.device);
    let first = get.start();
    wait_until("it asks", || !silent.requests().is_empty());
    let told = format!(
        "write {}: another psync is writing it",
        device.device.display()
    );
    world.refuses(world.get(&device.device).run(), &told);
    first.kill();
}

/// A device that the device mapper holds is in use too.
#[test]
#[ignore = "maps a device"]
fn root_a_mapped_device_is_refused() {
    let world = World::new();
    let device = match Loop::new(&vec![0; 8 << 20]) {
        Ok(device) => device,
        Err(e) => skip!("no loop device: {e}"),
    };
    let name = format!("psync-it-{}", std::process::id());
    let table = format!("0 2048 linear {} 0", device.device.display());
    if tool!("dmsetup", "create", &name, "--table", &table)
        .run()
        .status
        != 0
    {
        skip!("this kernel has no device mapper");
    }
    let out = world.get(&device.device).run();
    tool!("dmsetup", "remove", &name).run().ok();
    out.fails_naming(1, &["it is mounted or in use"]);
}

/// Each would be found when all is fetched, at each run anew.
#[test]
#[ignore = "mounts, and sets attributes of files"]
fn root_a_file_that_cannot_be_replaced_is_told_before_anything_is_asked() {
    for (obstacle, in_place_works, set, unset) in [
        (
            "it is mounted by itself, and a mount cannot be replaced",
            true,
            "cp -p file other; mount --bind other file",
            "umount file",
        ),
        (
            "it is immutable (chattr +i)",
            false,
            "chattr +i file",
            "chattr -i file",
        ),
        (
            "it is append-only (chattr +a)",
            false,
            "chattr +a file",
            "chattr -a file",
        ),
        (
            "its directory is immutable (chattr +i)",
            true,
            "chattr +i .",
            "chattr -i .",
        ),
        (
            "its directory is append-only (chattr +a)",
            true,
            "chattr +a .",
            "chattr -a .",
        ),
    ] {
        let world = World::on(TempDir::on_disk());
        let file = world.dir.file("file", "old");
        let sh = |commands: &str| tool!("sh", "-c", commands).cwd(&world.dir).run();
        let done = sh(set);
        if done.status != 0 {
            sh(unset);
            skip!("{set}: {done}");
        }
        let out = world.get(&file).run();
        let in_place = in_place_works.then(|| world.get(&file).arg("--in-place").run());
        sh(unset).ok();
        let advice = match in_place_works {
            true => "; --in-place updates it where it lies",
            false => "",
        };
        let told = format!("psync: replace {}: {obstacle}{advice}\n", file.display());
        out.fails(1, &told);
        assert!(!part(&file).exists());
        if let Some(out) = in_place {
            out.ok();
        }
        assert_eq!(world.server.connections() > 0, in_place_works);
        // Where it is right already there is nothing to be replaced.
        fs::write(&file, &world.sample.bytes).unwrap();
        sh(set).ok();
        let out = world.get(&file).run();
        sh(unset).ok();
        out.ok();
    }
}

/// Nor can a new one get its name.
#[test]
#[ignore = "sets attributes of a directory"]
fn root_a_new_file_in_an_append_only_directory_is_told_before_anything_is_asked() {
    let world = World::on(TempDir::on_disk());
    let file = world.dir.join("file");
    let set = |attribute: &str| tool!("chattr", attribute, &world.dir).run();
    if set("+a").status != 0 {
        skip!("no append-only directories here");
    }
    let out = world.get(&file).run();
    set("-a").ok();
    let told = format!(
        "replace {}: its directory is append-only (chattr +a)",
        file.display()
    );
    world.refuses(out, &told);
    assert_eq!(names(&world.dir), [""; 0]);
    // In place it is made under its name.
    set("+a").ok();
    let out = world.get(&file).arg("--in-place").run();
    set("-a").ok();
    out.ok();
    world.holds(&file);
}

#[test]
#[ignore = "takes other user ids"]
fn root_a_file_of_another_user_in_a_sticky_directory_is_told_before_anything_is_asked() {
    let (shared, world) = (Shared::new(), World::new());
    let list = shared.path().join("list");
    fs::copy(&world.sample.list, &list).unwrap();
    let public = shared.dir("public", 0, 0o1777);
    let file = public.join("file");
    for (mode, advice) in [
        (0o644, ""),
        (0o666, "; --in-place updates it where it lies"),
    ] {
        fs::write(&file, "old").unwrap();
        own(&file, MALLORY, mode);
        let get = |user| {
            let get = shared.psync(user).arg("get").arg(world.server.url());
            get.arg("-o").arg(&file).arg(&list)
        };
        let told = format!(
            "replace {}: it belongs to another user, in a sticky directory{advice}",
            file.display()
        );
        world.refuses(get(ALICE).run(), &told);
        assert_eq!(names(&public), ["file"]);
    }
    let get = shared.psync(ALICE).arg("get").arg(world.server.url());
    get.args(["--in-place", "-o"])
        .arg(&file)
        .arg(&list)
        .run()
        .ok();
    world.holds(&file);
    fs::write(&file, "old").unwrap();
    let get = shared.psync(MALLORY).arg("get").arg(world.server.url());
    get.arg("-o").arg(&file).arg(&list).run().ok();
    world.holds(&file);
}

/// By a root too: its root block is asked for, but not before FILE can be written.
#[test]
fn an_output_that_cannot_be_is_told_before_the_root_is_asked_for() {
    let world = World::new();
    let closed = world.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let root = hash_hex(b"some root block");
    let get = psync!("get", world.server.url(), &root, "-o", closed.join("file"));
    let told = format!(
        "create {}: Permission denied",
        closed.join("file.part").display()
    );
    world.refuses(get.powerless().run(), &told);
    // A root that no server has leaves no FILE.part.
    let file = world.dir.join("file");
    let get = psync!("get", world.server.url(), &root, "-o", &file);
    let out = get.args(["--retry", "0"]).run();
    assert_eq!(
        (out.status, names(&world.dir)),
        (3, vec!["closed".to_owned()]),
        "{out}"
    );
}

/// CIFS has no fsync of a directory (EINVAL), others say so in other words.
#[test]
fn a_file_system_without_a_sync_of_directories_is_no_reason_to_fail() {
    for (error, status) in [("EINVAL", 0), ("EOPNOTSUPP", 0), ("ENOSYS", 0), ("EIO", 1)] {
        let inject = format!("inject=fsync:error={error}");
        // A new file, and one that is right already.
        for _ in 0..2 {
            let world = World::new();
            let file = world.dir.join("file");
            let directory = ["-P", world.dir.to_str().unwrap(), "-e", &inject];
            let (out, calls) = trace("fsync", &directory, world.get(&file));
            assert_eq!((out.status, calls.len()), (status, 1), "{error}: {out}");
            world.holds(&file);
            let (out, calls) = trace("fsync", &directory, world.get(&file));
            assert_eq!((out.status, calls.len()), (status, 1), "{error}: {out}");
        }
        let dir = TempDir::new();
        let export = psync!("export", "-d", &dir).stdin("block");
        let (out, calls) = trace("fsync", &["-e", &inject], export);
        assert_eq!((out.status, calls.len()), (status, 1), "{error}: {out}");
        let printed = if status == 0 {
            hashlist(b"block")
        } else {
            String::new()
        };
        assert_eq!(out.text(), printed);
        // syncfs is older than some systems that stand for Linux: there all is synced.
        let inject = format!("inject=syncfs:error={error}");
        let export = psync!("export", "-d", &dir).stdin("more");
        let (out, calls) = trace("syncfs,sync", &["-e", &inject], export);
        assert_eq!(out.status, status, "{error}: {out}");
        let syncs = calls.iter().filter(|call| call.is(&["sync"])).count();
        assert_eq!(syncs, usize::from(status == 0));
        // Of the file itself it stays an error.
        let world = World::new();
        let file = world.dir.join("file");
        let inject = format!("inject=fsync:error={error}:when=1");
        let (out, _) = trace("fsync", &["-e", &inject], world.get(&file));
        out.fails_naming(1, &["psync: sync ", "file.part: "]);
        assert!(!file.exists());
    }
}

/// ext4's directories are full before the file system is: with blocks of 1 KiB at 81,920 names.
#[test]
#[ignore = "mounts, and makes 80,000 files"]
fn root_a_full_directory_is_told_and_what_to_do() {
    let mount = Mount::made_by("mkfs.ext4", &["-b", "1024", "-N", "200000"], 500);
    let dir = mount.blocks();
    fs::create_dir(&dir).unwrap();
    let name = |n: u32| dir.join(format!("{n:064x}"));
    // A name goes to the leaf that its hash says: the first that finds no room is not the last that
    // does.
    let (mut count, mut refused) = (0, 0);
    while refused < 20_000 {
        refused += u32::from(fs::write(name(count), "").is_err());
        count += 1;
    }
    let bytes = random(64 * BLOCK_SIZE, 9);
    let export = || psync!("export", "-d", &dir).stdin(&bytes).run();
    let told = ": No space left on device: the directory is full, the file system is not; on ext4, tune2fs -O large_dir or larger blocks make room for more names\n";
    let out = export().fails_naming(1, &["psync: ", told]);
    assert_eq!(out.stderr.lines().count(), 1, "{out}");
    assert!(hashlist(&bytes).as_bytes().starts_with(&out.stdout));
    (0..count).for_each(|n| drop(fs::remove_file(name(n))));
    assert!(export().ok().text() == hashlist(&bytes));
}

/// However many another user claims.
#[test]
#[ignore = "takes other user ids"]
fn root_writers_of_another_user_leave_room() {
    let shared = Shared::new();
    let dir = shared.dir("blocks", 0, 0o1777);
    for n in 0..100 {
        let lock = dir.join(format!(".psync-{n}"));
        fs::write(&lock, "").unwrap();
        own(&lock, MALLORY, 0o644);
    }
    for user in [0, ALICE] {
        let export = || shared.psync(user).args(["export", "-d"]).arg(&dir);
        export().stdin("x").run().ok();
        // What one of his own left that was killed is swept, whatever its number.
        for name in [".psync-120", ".psync-120-7"] {
            fs::write(dir.join(name), "").unwrap();
            own(&dir.join(name), user, 0o600);
        }
        export().stdin("y").run().ok();
        assert_eq!(strangers(&dir).len(), 100);
    }
}

/// In a block directory that users share, each sweeps what is his own.
#[test]
#[ignore = "takes other user ids"]
fn root_a_writer_of_another_user_counts_as_alive() {
    for mode in [0o600, 0o644, 0o666] {
        let shared = Shared::new();
        let dir = shared.dir("blocks", 0, 0o1777);
        for name in [".psync-0", ".psync-0-0"] {
            fs::write(dir.join(name), "mallory's").unwrap();
            own(&dir.join(name), MALLORY, mode);
        }
        let precious = shared.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        own(&precious, ALICE, 0o644);
        symlink(&precious, dir.join(".psync-1")).unwrap();
        lchown(dir.join(".psync-1"), Some(MALLORY), Some(MALLORY)).unwrap();
        for user in [0, ALICE] {
            let export = shared.psync(user).args(["export", "-d"]).arg(&dir);
            let calls = "open,openat,flock,unlink,unlinkat";
            let (out, calls) = trace(calls, &[], export.stdin(user.to_string()));
            assert!(out.ok().text() == hashlist(user.to_string().as_bytes()));
            let touched = |name: &str| {
                let name = format!("{}\"", dir.join(name).display());
                let mut done = calls.iter().filter(|call| !call.has_failed());
                done.any(|call| call.text.contains(&name))
            };
            assert!(touched(".psync-2") && !touched(".psync-0") && !touched(".psync-1"));
        }
        let left = names(&dir).into_iter().filter(|name| name.starts_with('.'));
        assert_eq!(
            left.collect::<Vec<_>>(),
            [".psync-0", ".psync-0-0", ".psync-1"]
        );
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }
}
