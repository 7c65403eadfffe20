//! Who may do what with FILE after an update: what it granted, or less where that is refused; and that
//! FILE.part is private while it is put together, and trusted only where no other user has a hand in it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::get::output::part;
use crate::support::*;

/// A sample whose blocks are here, and a FILE that differs from it.
struct Update {
    blocks: TempDir,
    list: PathBuf,
    bytes: Vec<u8>,
    dir: TempDir,
    file: PathBuf,
}

impl Update {
    /// On a disk, whose file system has attributes of users.
    fn new(mode: u32) -> Self {
        let blocks = TempDir::new();
        let bytes = random(3 * BLOCK_SIZE + 5, 77);
        let list = write_blocks(&blocks, &bytes);
        let list = blocks.file("list", list);
        let dir = TempDir::on_disk();
        let file = dir.file("file", "old");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        Self {
            blocks,
            list,
            bytes,
            dir,
            file,
        }
    }

    fn get(&self) -> Run {
        psync!("get", "-d", &self.blocks, "-o", &self.file, &self.list)
    }

    fn grants_less(&self) -> String {
        format!(
            "psync: keep the rights of {}: the owner, group, mode or ACL was refused, so fewer users may use it now\n",
            self.file.display()
        )
    }

    #[track_caller]
    fn is_done(&self) {
        assert!(fs::read(&self.file).unwrap() == self.bytes, "not the file");
        assert_eq!(names(self.file.parent().unwrap()), ["file"]);
    }
}

/// A FILE.part that waits for its server's next answer.
fn stuck(sample: &Sample, file: &Path) -> (HostileServer, Running) {
    let server = HostileServer::http(|_| Reply::raw("").then_silence());
    let run = sample.get(&[&server]).arg("-o").arg(file);
    let run = run.limit(Duration::from_secs(60)).start();
    wait_until("it asks", || !server.requests().is_empty());
    (server, run)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// The ACL, an entry a line.
#[track_caller]
fn acl(path: &Path) -> String {
    let out = tool!("getfacl", "-cnp", path).run().ok();
    out.text().trim_end().replace('\n', ",")
}

#[track_caller]
fn set_acl(words: &[&str], path: &Path) {
    tool!("setfacl").args(words).arg(path).run().ok();
}

#[track_caller]
fn attribute(path: &Path, name: &str) -> String {
    let out = tool!(
        "getfattr",
        "--absolute-names",
        "-e",
        "hex",
        "-n",
        name,
        path
    )
    .run();
    let line = out.text().lines().find(|line| line.starts_with(name));
    line.unwrap_or_default().to_owned()
}

#[test]
fn an_acl_and_attributes_are_kept() {
    for acl_words in [
        &["-m", "u:12345:r"][..],
        &["-m", "u:12345:rw,g:23456:-,m::rw"],
        &["-m", "u:12345:-,o::r"],
    ] {
        let update = Update::new(0o640);
        set_acl(acl_words, &update.file);
        tool!("setfattr", "-n", "user.note", "-v", "mine", &update.file)
            .run()
            .ok();
        let before = (acl(&update.file), mode(&update.file));
        assert!(before.0.contains("user:12345:"));
        update.get().run().ok();
        update.is_done();
        assert_eq!((acl(&update.file), mode(&update.file)), before);
        let note = attribute(&update.file, "user.note");
        assert_eq!(note, "user.note=0x6d696e65");
    }
}

/// The directory's default ACL gives FILE.part an ACL that FILE has not.
#[test]
fn a_default_acl_of_the_directory_widens_neither_file_nor_its_part() {
    for old in [0o600, 0o640, 0o664] {
        let update = Update::new(old);
        set_acl(&["-d", "-m", "u:12345:rwx,g:23456:rwx,o::rwx"], &update.dir);
        let before = acl(&update.file);
        assert!(!before.contains("12345"));
        let sample = Sample::new(2);
        let (_server, run) = stuck(&sample, &update.file);
        assert_eq!(mode(&part(&update.file)), 0o600);
        run.kill();
        update.get().run().ok();
        update.is_done();
        assert_eq!((acl(&update.file), mode(&update.file)), (before, old));
    }
}

#[test]
fn a_new_file_has_what_the_umask_and_the_default_acl_both_grant() {
    for (default, umask, granted) in [
        (
            "u:12345:rwx,g::rx,o::-",
            "022",
            "user::rw-,user:12345:rwx\t#effective:r--,group::r-x\t#effective:r--,mask::r--,other::---",
        ),
        (
            "u:12345:rwx,g::rx,o::rx",
            "077",
            "user::rw-,user:12345:rwx\t#effective:---,group::r-x\t#effective:---,mask::---,other::---",
        ),
        ("g::rx,o::rx", "002", "user::rw-,group::r--,other::r--"),
    ] {
        let update = Update::new(0o600);
        fs::remove_file(&update.file).unwrap();
        set_acl(&["-d", "-m", default], &update.dir);
        let umask = format!("umask {umask}");
        update.get().sh(&umask).run().ok();
        update.is_done();
        assert_eq!(acl(&update.file), granted);
    }
}

/// A file system that takes no ACL, no mode: the owner alone is left, and told.
#[test]
fn where_an_acl_is_refused_only_the_owner_is_left() {
    for error in ["EOPNOTSUPP", "EPERM", "ENOSPC"] {
        let update = Update::new(0o640);
        // Denied to one, who must not have what others have.
        set_acl(&["-m", "u:12345:-,o::r"], &update.file);
        let inject = format!("inject=fsetxattr:error={error}");
        let (out, _) = trace("fsetxattr", &["-e", &inject], update.get());
        out.warns(&update.grants_less());
        update.is_done();
        assert_eq!(acl(&update.file), "user::rw-,group::---,other::---");
    }
}

/// Nor is more granted where the ACL is not told, and no reason to fail: some file systems do not list it.
#[test]
fn where_an_acl_is_not_told_only_the_owner_is_left() {
    for (inject, is_kept) in [
        ("llistxattr:retval=0", true),
        ("llistxattr:error=EPERM", true),
        ("llistxattr:error=E2BIG", true),
        ("lgetxattr:error=EPERM:when=1+", false),
        ("lgetxattr:error=EINVAL:when=1+", false),
        ("lgetxattr:error=ENOSYS:when=1+", false),
        ("lgetxattr:error=EOPNOTSUPP:when=1+", false),
    ] {
        let update = Update::new(0o640);
        set_acl(&["-m", "u:12345:rw"], &update.file);
        let before = acl(&update.file);
        let inject = format!("inject={inject}");
        let path = ["-P", update.file.to_str().unwrap(), "-e", &inject];
        let (out, _) = trace("llistxattr,lgetxattr", &path, update.get());
        if is_kept {
            out.ok();
            assert_eq!(acl(&update.file), before);
        } else {
            out.warns(&update.grants_less());
            assert_eq!(acl(&update.file), "user::rw-,group::---,other::---");
        }
        update.is_done();
    }
}

/// Attributes of a FILE.part that an older run left do not become FILE's.
#[test]
fn a_part_is_taken_up_without_its_attributes() {
    for is_new in [false, true] {
        let update = Update::new(0o640);
        if is_new {
            fs::remove_file(&update.file).unwrap();
        }
        let part = part(&update.file);
        fs::write(&part, "left").unwrap();
        fs::set_permissions(&part, fs::Permissions::from_mode(0o600)).unwrap();
        set_acl(&["-m", "u:12345:rwx,m::-"], &part);
        tool!("setfattr", "-n", "user.note", "-v", "odd", &part)
            .run()
            .ok();
        update.get().run().ok();
        update.is_done();
        assert!(
            !acl(&update.file).contains("12345"),
            "{}",
            acl(&update.file)
        );
        assert_eq!(attribute(&update.file, "user.note"), "");
    }
}

/// Nor is one whose rights cannot be read replaced by one that may grant more.
#[test]
fn a_file_whose_acl_cannot_be_read_stays_as_it_is() {
    for call in ["llistxattr", "lgetxattr"] {
        let update = Update::new(0o600);
        set_acl(&["-m", "u:12345:r"], &update.file);
        let inject = format!("inject={call}:error=EIO");
        let (out, _) = trace(call, &["-e", &inject], update.get());
        out.fails_naming(1, &["psync: keep the rights of ", ": Input/output error\n"]);
        assert_eq!(fs::read(&update.file).unwrap(), b"old");
        // What was put together is of use to the next run.
        update.get().run().ok();
        update.is_done();
    }
}

/// SMB and WebDAV refuse each chmod and chown: no reason to fail where nothing is to be changed.
#[test]
fn a_mode_that_is_right_is_not_set() {
    let update = Update::new(0o600);
    let inject = [
        "-e",
        "inject=fchmod,fchown,fsetxattr,fremovexattr:error=EPERM",
    ];
    let (out, calls) = trace(
        "fchmod,fchown,fsetxattr,fremovexattr",
        &inject,
        update.get(),
    );
    out.ok();
    update.is_done();
    assert!(
        !calls.iter().any(|call| call.is(&["fchmod", "fchown"])),
        "{calls:?}"
    );
    // Where it is to be changed and cannot be, the narrower one stays, and is told.
    let update = Update::new(0o644);
    let (out, _) = trace("fchmod", &["-e", "inject=fchmod:error=EPERM"], update.get());
    out.warns(&update.grants_less());
    update.is_done();
    assert_eq!(mode(&update.file), 0o600);
}

#[test]
fn the_part_is_private_whatever_file_is() {
    for (old, left) in [(None, None), (Some(0o644), None), (None, Some(0o644))] {
        let (sample, dir) = (Sample::new(2), TempDir::new());
        let file = dir.join("file");
        if let Some(old) = old {
            fs::write(&file, "old").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(old)).unwrap();
        }
        // As an older version has left it.
        if let Some(left) = left {
            fs::write(part(&file), "left").unwrap();
            fs::set_permissions(part(&file), fs::Permissions::from_mode(left)).unwrap();
        }
        let (_server, run) = stuck(&sample, &file);
        assert_eq!(mode(&part(&file)), 0o600, "{old:?} {left:?}");
        run.kill();
        sample
            .get(&[&sample.honest()])
            .arg("-o")
            .arg(&file)
            .run()
            .ok();
        assert_eq!(mode(&file), 0o644);
    }
}

/// What another may have had a hand in is neither believed nor written to, nor what it leads to.
#[test]
fn a_part_that_others_can_reach_is_refused_by_name() {
    type Make = fn(&Path, &Path);
    let makes: [(&str, Make); 5] = [
        ("it is a symbolic link", |part, other| {
            symlink(other, part).unwrap();
        }),
        ("it is a symbolic link", |part, other| {
            fs::remove_file(other).unwrap();
            symlink(other, part).unwrap();
        }),
        ("it has another name, a hard link", |part, other| {
            fs::hard_link(other, part).unwrap();
        }),
        ("other users may write it", |part, _| {
            fs::write(part, "x").unwrap();
            fs::set_permissions(part, fs::Permissions::from_mode(0o620)).unwrap();
        }),
        ("it is not a regular file", |part, _| {
            tool!("mkfifo", part).run().ok();
        }),
    ];
    for (reason, make) in makes {
        let (sample, dir) = (Sample::new(2), TempDir::new());
        let (file, other) = (dir.file("file", "old"), dir.file("other", "precious"));
        make(&part(&file), &other);
        let before = (names(&dir), fs::read(&other).ok());
        let server = sample.honest();
        let out = sample.get(&[&server]).arg("-o").arg(&file).run();
        let told = format!(
            "psync: write {}: {reason}; remove it, or choose another FILE\n",
            part(&file).display()
        );
        out.fails(1, &told);
        assert_eq!((names(&dir), fs::read(&other).ok()), before);
        assert_eq!(
            (fs::read(&file).unwrap(), server.connections()),
            (b"old".to_vec(), 0)
        );
    }
}

/// Between its last rights and its name it may be what others can write, and the next run completes it.
#[track_caller]
fn killed_when_complete(get: &dyn Fn() -> Run, file: &Path, owner: u32, mode_left: u32) {
    for call in ["fsync", "rename"] {
        let inject = format!("inject={call}:signal=KILL:when=1");
        let words = ["-f", "-qq", "-o", "/dev/null", "-e", &inject];
        let before = fs::read(file).ok();
        assert_eq!(get().under("strace", words).run().status, 137);
        assert_eq!(fs::read(file).ok(), before);
        let left = fs::metadata(part(file)).unwrap();
        assert_eq!(
            (left.uid(), left.mode() & 0o7777),
            (owner, mode_left),
            "{call}"
        );
    }
    get().run().ok();
    assert!(!part(file).exists());
    assert_eq!(mode(file), mode_left);
}

#[test]
fn one_that_is_killed_when_it_is_complete_is_taken_up() {
    let user = fs::metadata("/proc/self").unwrap().uid();
    // Some that their owner does not write, or read, without root's rights to do so all the same.
    for mode in [0o444, 0o200, 0o000] {
        let update = Update::new(mode);
        killed_when_complete(&|| update.get().powerless(), &update.file, user, mode);
        update.is_done();
    }
    let update = Update::new(0o664);
    killed_when_complete(&|| update.get(), &update.file, user, 0o664);
    update.is_done();
    let update = Update::new(0o600);
    fs::remove_file(&update.file).unwrap();
    let get = || update.get().sh("umask 002");
    killed_when_complete(&get, &update.file, user, 0o664);
    update.is_done();
}

#[test]
#[ignore = "takes another user id"]
fn root_one_that_is_killed_when_it_is_another_users_is_taken_up() {
    for mode in [0o4755, 0o664, 0o666] {
        let update = Update::new(0o600);
        own(&update.file, ALICE, mode);
        killed_when_complete(&|| update.get(), &update.file, ALICE, mode);
        update.is_done();
        assert_eq!(fs::metadata(&update.file).unwrap().uid(), ALICE);
    }
}

/// The new owner's group has all that its members had as others.
#[test]
#[ignore = "takes other user ids"]
fn root_one_of_another_owner_that_all_may_write_is_taken_up() {
    for (mode, left) in [(0o666, 0o666), (0o6777, 0o777)] {
        let (shared, update) = (Shared::new(), Update::new(0o600));
        let file = shared.dir("alices", ALICE, 0o755).join("file");
        fs::write(&file, "old").unwrap();
        own(&file, MALLORY, mode);
        let get = || {
            let get = shared.psync(ALICE).args(["get", "-q", "-o"]).arg(&file);
            get.arg("-d").arg(&update.blocks).arg(&update.list)
        };
        let inject = "inject=rename:signal=KILL:when=1";
        let words = ["-f", "-qq", "-o", "/dev/null", "-e", inject];
        assert_eq!(get().under("strace", words).run().status, 137);
        assert_eq!(self::mode(&part(&file)), left);
        assert_eq!(get().run().status, 0);
        assert!(fs::read(&file).unwrap() == update.bytes);
        assert!(!part(&file).exists());
    }
}

/// Whoever has an older FILE.part open reads nothing of a private FILE, and writes nothing into any.
#[test]
fn what_was_open_to_others_is_read_and_made_anew() {
    for (old, left) in [(0o600, 0o644), (0o600, 0o604), (0o664, 0o664)] {
        let (sample, dir) = (Sample::new(3), TempDir::new());
        let file = dir.file("file", "old");
        fs::set_permissions(&file, fs::Permissions::from_mode(old)).unwrap();
        fs::write(part(&file), &sample.bytes[..2 * BLOCK_SIZE]).unwrap();
        fs::set_permissions(part(&file), fs::Permissions::from_mode(left)).unwrap();
        let mut held = File::options().append(true).open(part(&file)).unwrap();
        let server = sample.honest();
        sample.get(&[&server]).arg("-o").arg(&file).run().ok();
        held.write_all(b"EVIL").unwrap();
        assert!(fs::read(&file).unwrap() == sample.bytes);
        assert_eq!(held.metadata().unwrap().len(), 2 * BLOCK_SIZE as u64 + 4);
        assert_eq!((mode(&file), names(&dir)), (old, vec!["file".to_owned()]));
        // What it had is not fetched again.
        assert_eq!(server.requests().len(), 2, "{old:o} {left:o}");
    }
}

/// FILE is not what it was at the start: its rights, and what is to become of it, are not known.
#[test]
fn a_file_that_is_replaced_meanwhile_stays() {
    for (before, now) in [(true, "another's"), (true, ""), (false, "another's")] {
        // On a disk, whose file systems give an inode that is free to the next file.
        let (sample, dir) = (Sample::new(3), TempDir::on_disk());
        let file = dir.join("file");
        if before {
            // One that psync cannot hold by reading it.
            fs::write(&file, "old").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o200)).unwrap();
        }
        let (blocks, path) = (sample.map(), file.clone());
        let server = HostileServer::http(move |request| {
            if request.nth == 1 {
                let _ = fs::remove_file(&path);
                if !now.is_empty() {
                    fs::write(&path, now).unwrap();
                }
            }
            Reply::honest(&blocks, request)
        });
        let get = || {
            let get = sample.get(&[&server]).arg("-o").arg(&file);
            get.powerless().run()
        };
        let told = format!(
            "psync: replace {}: it was replaced or removed meanwhile; run the same command again\n",
            file.display()
        );
        get().fails(1, &told);
        let left = fs::read(&file).ok();
        assert_eq!(left.unwrap_or_default(), now.as_bytes());
        let asked = server.requests().len();
        get().ok();
        assert!(fs::read(&file).unwrap() == sample.bytes);
        assert_eq!(server.requests().len(), asked);
    }
}

#[test]
#[ignore = "takes other user ids"]
fn root_a_part_of_another_user_is_refused_by_name() {
    for mode in [0o600, 0o666] {
        let (shared, sample) = (Shared::new(), Sample::new(2));
        let list = shared.path().join("list");
        fs::copy(&sample.list, &list).unwrap();
        let dir = shared.dir("public", 0, 0o1777);
        let file = dir.join("file");
        fs::write(part(&file), "mallory's").unwrap();
        own(&part(&file), MALLORY, mode);
        let mut held = File::options().append(true).open(part(&file)).unwrap();
        let server = sample.honest();
        for user in [0, ALICE] {
            let get = shared.psync(user).args(["get", &server.url(), "-o"]);
            let out = get.arg(&file).arg(&list).run();
            let told = format!(
                "psync: write {}: it belongs to another user; remove it, or choose another FILE\n",
                part(&file).display()
            );
            out.fails(1, &told);
        }
        held.write_all(b" still").unwrap();
        assert_eq!(fs::read(part(&file)).unwrap(), b"mallory's still");
        assert_eq!(
            (names(&dir), server.connections()),
            (vec!["file.part".to_owned()], 0)
        );
    }
}

/// Nor is it taken away from the owner of FILE, who has not finished with it.
#[test]
#[ignore = "takes other user ids"]
fn root_a_part_of_the_owner_of_file_stays_where_another_updates_it() {
    let (shared, update) = (Shared::new(), Update::new(0o600));
    let dir = shared.dir("alices", ALICE, 0o755);
    let file = dir.join("file");
    for path in [&file, &part(&file)] {
        fs::write(path, "mallory's").unwrap();
        own(path, MALLORY, 0o600);
    }
    let get = shared.psync(ALICE).args(["get", "-o"]).arg(&file);
    let out = get.arg("-d").arg(&update.blocks).arg(&update.list).run();
    out.fails_naming(1, &["file.part: it belongs to another user; remove it"]);
    assert_eq!(fs::read(part(&file)).unwrap(), b"mallory's");
}

/// Rights are kept where the user may give them, else narrowed: no other owner's set-user-id, nothing for
/// a group that had less.
#[test]
#[ignore = "takes other user ids"]
fn root_a_file_of_another_user_grants_no_more_than_it_did() {
    // The mode before; what is left of it with neither owner nor group, and with the group.
    for (old, alone, in_group) in [
        (0o6777, 0o777, 0o777),
        (0o644, 0o644, 0o644),
        (0o664, 0o644, 0o664),
        (0o640, 0o600, 0o640),
        (0o604, 0o600, 0o604),
        (0o4711, 0o711, 0o711),
    ] {
        for (user, group, new) in [
            (ALICE, ALICE, alone),
            (ALICE, MALLORY, in_group),
            (0, 0, old),
        ] {
            let (shared, update) = (Shared::new(), Update::new(0o600));
            let dir = shared.dir("alices", ALICE, 0o755);
            let file = dir.join("file");
            fs::write(&file, "old").unwrap();
            own(&file, MALLORY, old);
            let get = shared.psync_in(user, group).args(["get", "-o"]).arg(&file);
            let out = get.arg("-d").arg(&update.blocks).arg(&update.list).run();
            assert_eq!(out.status, 0, "{out}");
            assert_eq!(out.stderr.is_empty(), new == old, "{out}");
            let there = fs::metadata(&file).unwrap();
            let owner = if user == 0 { MALLORY } else { user };
            assert_eq!(
                (there.uid(), mode(&file)),
                (owner, new),
                "{old:o} {user} {group}"
            );
            assert!(fs::read(&file).unwrap() == update.bytes);
        }
    }
}

/// And an ACL is about a group that is another one then.
#[test]
#[ignore = "takes other user ids"]
fn root_an_acl_goes_with_the_group() {
    let (shared, update) = (Shared::new(), Update::new(0o600));
    let dir = shared.dir("alices", ALICE, 0o755);
    for (group, due) in [
        (
            MALLORY,
            "user::rw-,user:12345:r--,group::r--,mask::r--,other::r--",
        ),
        (ALICE, "user::rw-,group::---,other::---"),
    ] {
        let file = dir.join("file");
        fs::write(&file, "old").unwrap();
        own(&file, MALLORY, 0o644);
        set_acl(&["-m", "u:12345:r"], &file);
        let get = shared.psync_in(ALICE, group).args(["get", "-o"]).arg(&file);
        let out = get.arg("-d").arg(&update.blocks).arg(&update.list).run();
        assert_eq!(out.status, 0, "{out}");
        assert_eq!(acl(&file), due);
        fs::remove_file(&file).unwrap();
    }
}

#[test]
#[ignore = "sets a capability"]
fn root_capabilities_and_owners_are_kept_and_hashes_of_the_content_are_not() {
    let update = Update::new(0o4750);
    // CAP_NET_BIND_SERVICE, permitted and effective.
    let value = "0x0100000200040000000000000000000000000000";
    chown(&update.file, Some(ALICE), Some(MALLORY)).unwrap();
    fs::set_permissions(&update.file, fs::Permissions::from_mode(0o4750)).unwrap();
    let set =
        |name: &str, value: &str| tool!("setfattr", "-n", name, "-v", value, &update.file).run();
    set("security.capability", value).ok();
    let has_ima = set("security.ima", "0x0404").status == 0;
    update.get().run().ok();
    update.is_done();
    let there = fs::metadata(&update.file).unwrap();
    assert_eq!(
        (there.uid(), there.gid(), mode(&update.file)),
        (ALICE, MALLORY, 0o4750)
    );
    let capability = attribute(&update.file, "security.capability");
    assert_eq!(capability, format!("security.capability={value}"));
    if has_ima {
        assert_eq!(attribute(&update.file, "security.ima"), "");
    }
}
