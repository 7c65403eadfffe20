//! Disks that lose power or have no room, at each moment of the stories of `support/story.rs`. Most of it only
//! root can set up.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::*;

const IN_PLACE_NEW: Story = new_story("get --retry 0 -j 1 --in-place -o out SERVER list");

/// Calls after which the disk is another, or surer; and the end. That a file is made shows as well at
/// the first write to it.
const CHANGES: [&str; 10] = [
    "exit_group",
    "fchmod",
    "fchown",
    "fsync",
    "ftruncate",
    "pwrite64",
    "rename",
    "syncfs",
    "unlink",
    "write",
];

/// The moments before those.
fn changes(story: &Story, world: &World) -> Vec<Moment> {
    let (moments, _) = moments(story, world);
    let changes = moments.into_iter().filter(|(_, call)| call.is(&CHANGES));
    changes.map(|(moment, _)| moment).collect()
}

impl Mount {
    /// What an open journal holds reaches the disk, with whatever names it has by now; data of other
    /// files need not.
    fn commit_journal(&self) {
        File::create(self.at.join("another"))
            .unwrap()
            .sync_all()
            .unwrap();
    }

    fn cut_power(&self) {
        self.shut_down();
        self.unmount();
        self.mount(self.image.as_ref().unwrap());
    }

    fn sync(&self) {
        tool!("sync", "-f", &self.at).run().ok();
    }
}

/// Killed at a moment, and then the power goes: nothing of what the program would have done later is
/// done, and nothing is on the disk but what was synced, or what a journal committed in between has
/// brought there.
#[test]
#[ignore = "mounts"]
fn root_a_power_cut_at_each_change_leaves_nothing_that_is_believed_wrongly() {
    let world = World::new();
    for mkfs in journaled() {
        for story in [&EXPORT_ROOT, &GET, &IN_PLACE, &KEEP_ROOT] {
            let mount = Mount::made_by(mkfs, &[], DISK);
            let place = Place::within(TempDir::within(&mount.at));
            let changes = changes(story, &world);
            for moment in &changes {
                for committed in [false, true] {
                    let _case = Case(format!("{mkfs} {} {moment:?} {committed}", story.words));
                    place.clear();
                    story.sets_out(&place, &world);
                    mount.sync();
                    let out = story.killed(&place, &world, moment);
                    if committed {
                        mount.commit_journal();
                    }
                    mount.cut_power();
                    assert_survived_by(story, &place, &world, &out.stdout);
                }
                let _case = Case(format!("{mkfs} {} {moment:?}, then again", story.words));
                place.clear();
                story.sets_out(&place, &world);
                mount.sync();
                story.killed(&place, &world, moment);
                let out = story.run(&place, &world).run().ok();
                mount.cut_power();
                if story.has("out") {
                    assert!(
                        fs::read(place.join("out")).unwrap() == world.new.bytes(),
                        "lost"
                    );
                }
                assert_survived_by(story, &place, &world, &out.stdout);
            }
        }
    }
}

fn assert_survived_by(story: &Story, place: &Place, world: &World, printed: &[u8]) {
    if !story.has("--in-place") {
        story.assert_old_or_new(place, world);
    }
    story.assert_believed(place, world, printed);
    story.assert_completes(place, world);
    // And what nothing has looked at yet is put right.
    EXPORT_ROOT.assert_completes(place, world);
    assert_eq!(strangers(place.join("b")), [""; 0]);
}

/// Runs it with room for so many blocks or files, which `take` leaves, then with all that there was.
fn runs_out(story: &Story, place: &Place, world: &World, take: &dyn Fn(usize) -> PathBuf) -> usize {
    (0..100)
        .find(|&room| {
            let _case = Case(format!("{} with room for {room}", story.words));
            place.clear();
            story.sets_out(place, world);
            let ballast = take(room);
            let out = story.run(place, world).run();
            story.assert_sound(place, world, &out.stdout);
            let is_enough = out.status == 0;
            if !is_enough {
                let out = out.fails_naming(1, &["psync: ", " left ", "(see df"]);
                assert_eq!(out.stderr.lines().count(), 1, "{out}");
            }
            remove(&ballast);
            story.assert_completes(place, world);
            is_enough
        })
        .unwrap()
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// Uses up the inodes but so many, for files in a directory that is returned.
fn use_up_inodes(mount: &Mount, but: usize) -> PathBuf {
    let dir = mount.at.join("ballast");
    fs::create_dir(&dir).unwrap();
    let mut made = 0;
    while File::create(dir.join(made.to_string())).is_ok() {
        made += 1;
    }
    (made - but..made).for_each(|n| fs::remove_file(dir.join(n.to_string())).unwrap());
    dir
}

/// To the very last block, and the very last name.
#[test]
#[ignore = "mounts"]
fn root_with_room_for_any_part_of_it_it_is_told_and_the_next_run_completes() {
    let world = World::new();
    let stories = [
        &EXPORT,
        &EXPORT_ROOT,
        &EXPORT_NEW,
        &GET,
        &GET_ROOT,
        &IN_PLACE_NEW,
        &KEEP,
        &KEEP_ROOT,
        &KEEP_NEW,
    ];
    let mut mounts = vec![
        Mount::tmpfs("size=2m"),
        Mount::tmpfs("size=2m,nr_inodes=200"),
    ];
    if journaled().contains(&"mkfs.ext4") {
        mounts.push(Mount::made_by("mkfs.ext4", &["-b", "4096"], 8));
        mounts.push(Mount::made_by("mkfs.ext4", &["-b", "4096", "-N", "200"], 8));
    }
    for (n, mount) in mounts.iter().enumerate() {
        let place = Place::within(TempDir::within(&mount.at));
        for story in stories {
            let room = match n % 2 {
                0 => runs_out(story, &place, &world, &|room| mount.fill(room * BLOCK_SIZE)),
                _ => runs_out(story, &place, &world, &|room| use_up_inodes(mount, room)),
            };
            assert!(room > 0, "{}", story.words);
        }
    }
}

/// Of so many requests each, the disk is copied, or brought up to date as the kernel does when it likes.
const COPIED: usize = 300;
const WRITTEN: usize = 170;

/// The disk as it is in the middle of the work, copied past the file system while that goes on.
#[test]
#[ignore = "mounts"]
fn root_a_disk_pulled_in_the_middle_of_a_get_has_nothing_that_is_believed_wrongly() {
    let sample = Sample::new(1500);
    let old = random(900 * BLOCK_SIZE, 3);
    for mkfs in journaled() {
        for options in [
            &["-o", "out"][..],
            &["-o", "out", "--in-place"],
            &["-o", "out", "-k", "-d", "b"],
        ] {
            let mount = Mount::made_by(mkfs, &[], DISK);
            let (out, blocks) = (mount.at.join("out"), mount.blocks());
            fs::write(&out, &old).unwrap();
            mount.sync();
            let copies = TempDir::new();
            let (image, to) = (mount.image.clone().unwrap(), copies.to_path_buf());
            let copy = move |n: usize| {
                let to = to.join(n.to_string());
                tool!("cp", "--sparse=always", &image, to).run().ok();
            };
            let (map, asked, at) = (sample.map(), AtomicUsize::new(0), mount.at.to_path_buf());
            let pull = copy.clone();
            let server = HostileServer::http(move |request| {
                let n = asked.fetch_add(1, SeqCst);
                if n % COPIED == COPIED - 1 {
                    pull(n);
                }
                if n % WRITTEN == WRITTEN - 1 {
                    tool!("sync", "-f", &at).run().ok();
                }
                Reply::honest(&map, request)
            });
            let get = || {
                sample
                    .get(&[&server])
                    .args(["-j", "4"])
                    .args(options)
                    .cwd(&mount.at)
                    .run()
                    .ok()
            };
            get();
            copy(usize::MAX);
            let pulled: Vec<_> = names(&copies)
                .iter()
                .map(|name| copies.join(name))
                .collect();
            assert_eq!(pulled.len(), 1501 / COPIED + 1);
            for image in pulled {
                let _case = Case(format!("{mkfs} {options:?} {}", image.display()));
                mount.unmount();
                mount.mount(&image);
                let (now, is_last) = (
                    fs::read(&out).unwrap(),
                    image.ends_with(usize::MAX.to_string()),
                );
                let is_old = !is_last && (now == old || options.contains(&"--in-place"));
                assert!(is_old || now == sample.bytes);
                get();
                assert!(fs::read(&out).unwrap() == sample.bytes);
                if blocks.exists() {
                    psync!("export", "-d", &blocks)
                        .stdin(&sample.bytes)
                        .run()
                        .ok();
                    assert_stored(&blocks, &hashlist(&sample.bytes));
                    assert_eq!(strangers(&blocks), [""; 0]);
                }
            }
        }
    }
}

/// As a volume is whose pool is full: writing fails when the data is to go to the disk, long after the
/// program wrote it, and what is in memory still reads well.
#[test]
#[ignore = "mounts"]
fn root_what_a_full_pool_did_not_take_is_not_believed_when_it_has_room_again() {
    let sample = Sample::new(1000);
    let blocks = sample.dir.join("b");
    write_blocks(&blocks, &sample.bytes);
    // FILE is old and replaced, old and written in place, or right already as far as is cached.
    for (words, is_right) in [(&[][..], false), (&["--in-place"], false), (&[], true)] {
        for mkfs in journaled() {
            let _case = Case(format!("{mkfs} {words:?} {is_right}"));
            let pool = Mount::tmpfs("size=400m");
            let mount = Mount::made_in(TempDir::within(&pool.at), mkfs, &[], DISK);
            let file = mount.at.join("file");
            fs::write(&file, "old").unwrap();
            mount.sync();
            let ballast = pool.fill(0);
            if is_right {
                fs::write(&file, &sample.bytes).unwrap();
            }
            let get = || {
                let run = sample.get(&[]).arg("-d").arg(&blocks).args(words);
                run.arg("-o").arg(&file).run()
            };
            get().fails_naming(1, &["psync: "]);
            get().fails_naming(1, &["psync: "]);
            remove(&ballast);
            if get().status != 0 {
                // The file system has given up itself.
                mount.unmount();
                mount.mount(mount.image.as_ref().unwrap());
                get().ok();
            }
            mount.cut_power();
            assert!(fs::read(&file).unwrap() == sample.bytes);
        }
    }
}
