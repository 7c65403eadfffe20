//! What README.md does without psync: its shell functions as they stand, with GNU coreutils and with
//! nothing but busybox, on block directories that psync made and on what goes wrong with them.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::support::*;

/// No block, one short, one whole, one more byte; a list of two blocks.
const SIZES: [usize; 5] = [0, 1, 4096, 4097, 300_000];

/// At most so many hashes are in a root block.
const ROOT_HASHES: usize = 60;

/// A box with a shell, certain tools and a block directory.
struct Desk {
    home: TempDir,
    blocks: PathBuf,
    shell: Vec<PathBuf>,
    path: String,
    readme: String,
}

impl Desk {
    /// One with coreutils, one with busybox alone.
    fn both() -> [Self; 2] {
        for program in ["sha256sum", "split", "cmp", "grep", "sed", "tar", "xargs"] {
            need(program);
        }
        let desk = Self::new(vec![need("sh")], ":/usr/bin:/bin");
        let busybox = need("busybox");
        let alone = Self::new(vec![busybox.clone(), "sh".into()], "");
        for applet in tool!("busybox", "--list").run().ok().text().lines() {
            symlink(&busybox, alone.home.join("bin").join(applet)).unwrap();
        }
        [desk, alone]
    }

    fn new(shell: Vec<PathBuf>, more_path: &str) -> Self {
        let home = TempDir::new();
        let blocks = home.join(".psync/blocks");
        fs::create_dir_all(&blocks).unwrap();
        for dir in ["bin", "tmp", "lists"] {
            fs::create_dir(home.join(dir)).unwrap();
        }
        let path = format!("{}{more_path}", home.join("bin").display());
        Self {
            home,
            blocks,
            shell,
            path,
            readme: readme(),
        }
    }

    /// A script after all the functions, in the block directory.
    fn script(&self, script: &str) -> Run {
        let functions = examples(section(&self.readme, "Without psync"), "sh").concat();
        Run::new(&self.shell[0])
            .args(&self.shell[1..])
            .args(["-c", &format!("cd ~/.psync/blocks\n{functions}\n{script}")])
            .env("PATH", &self.path)
            .env("HOME", &self.home)
            .env("TMPDIR", self.home.join("tmp"))
    }

    /// Leaves nothing behind, whether it succeeds or fails.
    #[track_caller]
    fn run(&self, script: &str) -> Output {
        let output = self.script(script).run();
        assert!(names(self.home.join("tmp")).is_empty(), "{output}");
        let mut left = names(&self.blocks);
        left.retain(|name| name.starts_with(".store") || name.starts_with(".copy"));
        assert!(left.is_empty(), "{output}");
        output
    }

    /// A line that README.md shows.
    #[track_caller]
    fn shown(&self, line: &str) -> Output {
        self.shown_with("ROOT", "ROOT", line)
    }

    /// The same for this root.
    #[track_caller]
    fn shown_for(&self, root: &str, line: &str) -> Output {
        self.shown_with("ROOT", root, line)
    }

    #[track_caller]
    fn shown_with(&self, word: &str, with: &str, line: &str) -> Output {
        assert!(self.readme.contains(line), "README.md has lost: {line}");
        self.run(&line.replace(word, with))
    }

    /// A file whose blocks psync has put into the directory, and its list.
    #[track_caller]
    fn exported(&self, bytes: &[u8]) -> String {
        self.home.file("disk.img", bytes);
        let out = psync!("export", "-d", &self.blocks).stdin(bytes).run().ok();
        self.home.file("disk.list", out.text());
        assert_eq!(out.text(), hashlist(bytes));
        out.text().to_owned()
    }

    /// What others may have put into a block directory. Returns the names.
    fn foreign(&self) -> Vec<String> {
        let upper = hash_hex(b"upper").to_uppercase();
        let long = hash_hex(b"long") + "0";
        let files = [
            "name with spaces",
            "quote ' and \"",
            "-rf",
            "two\nlines",
            "x",
            ".psync.old",
            &upper,
            &long,
            &upper[1..],
        ];
        for name in files {
            fs::write(self.blocks.join(name), "foreign").unwrap();
        }
        fs::create_dir(self.blocks.join("directory")).unwrap();
        let mut names: Vec<_> = files.map(str::to_owned).into();
        names.push("directory".into());
        names.sort();
        names
    }
}

/// The formats worked out from the protocol: the hash of the root block of a list, and all blocks that
/// lead from it to the list.
fn root_of(list: &str, size: usize) -> (String, BlockMap) {
    let (mut text, mut depth, mut stored) = (list.to_owned(), 0, BlockMap::new());
    while text.lines().count() > ROOT_HASHES {
        stored.extend(block_map(text.as_bytes()));
        text = hashlist(text.as_bytes());
        depth += 1;
    }
    let block = format!("psync root 1\nsize {size}\ndepth {depth}\n{text}").into_bytes();
    let hash = hash_hex(&block);
    assert!(block.len() <= BLOCK_SIZE);
    stored.insert(hash.clone(), block);
    (hash, stored)
}

/// The root of `~/disk.img` as the functions find it, whose blocks and list are there.
#[track_caller]
fn shell_root(desk: &Desk) -> String {
    let out = desk.shown("root ~/disk.list ~/disk.img").ok();
    let root = out.text().strip_suffix('\n').unwrap();
    assert_eq!(root.len(), 64, "{out}");
    root.to_owned()
}

#[test]
fn damaged_blocks_are_shown() {
    for desk in Desk::both() {
        assert_eq!(desk.run("damaged").ok().text(), "");
        let bytes = random(300_000, 1);
        let list = desk.exported(&bytes);
        desk.foreign();
        assert_eq!(desk.run("damaged").ok().text(), "");
        let hashes: Vec<_> = list.lines().collect();
        fs::write(desk.blocks.join(hashes[7]), "").unwrap();
        fs::copy(desk.blocks.join(hashes[1]), desk.blocks.join(hashes[20])).unwrap();
        let out = desk.run("damaged").fails(1, "");
        let mut shown = [
            format!("{}  {}\n", hash_hex(b""), hashes[7]),
            format!("{}  {}\n", hashes[1], hashes[20]),
        ];
        shown.sort_by(|a, b| a[66..].cmp(&b[66..]));
        assert_eq!(out.text(), shown.concat());
    }
}

#[test]
fn what_a_list_lacks_is_what_is_missing_or_damaged() {
    for desk in Desk::both() {
        let lacking = || desk.shown("lacking ~/disk.list");
        for size in SIZES {
            desk.exported(&random(size, 2));
            assert_eq!(lacking().ok().text(), "");
        }
        let mut bytes = random(300_000, 2);
        bytes.extend_from_within(..BLOCK_SIZE * 9);
        let list = desk.exported(&bytes);
        desk.foreign();
        let hashes: Vec<_> = list.lines().collect();
        fs::remove_file(desk.blocks.join(hashes[3])).unwrap();
        fs::remove_file(desk.blocks.join(hashes[40])).unwrap();
        // Damaged in such a way that the block of another name is there.
        fs::write(
            desk.blocks.join(hashes[5]),
            &bytes[3 * BLOCK_SIZE..][..BLOCK_SIZE],
        )
        .unwrap();
        let mut expected = [hashes[3], hashes[5], hashes[40]];
        expected.sort_unstable();
        assert_eq!(lacking().ok().text(), expected.join("\n") + "\n");

        // What is no hash is lacking too.
        desk.home
            .file("disk.list", hashes[0].to_uppercase() + "\nx\n");
        assert_eq!(lacking().ok().text().lines().count(), 2);
        fs::remove_file(desk.home.join("disk.list")).unwrap();
        lacking().fails_naming(1, &["disk.list"]);
        fs::create_dir(desk.home.join("disk.list")).unwrap();
        lacking().fails_naming(1, &["Is a directory"]);
    }
}

#[test]
fn a_file_is_put_together_or_not_at_all() {
    for desk in Desk::both() {
        let image = desk.home.join("disk.img");
        let assemble = || desk.shown("assemble ~/disk.list ~/disk.img");
        for size in SIZES {
            let bytes = random(size, 3);
            desk.exported(&bytes);
            fs::remove_file(&image).unwrap();
            assert_eq!(assemble().ok().text(), "");
            assert!(fs::read(&image).unwrap() == bytes, "{size}");
        }
        let bytes = random(300_000, 3);
        let list = desk.exported(&bytes);
        desk.foreign();
        fs::write(&image, "before").unwrap();
        let fails = |why: &str| {
            let out = assemble();
            assert_ne!(out.status, 0, "{why}: {out}");
            assert!(!out.stderr.is_empty() || !out.stdout.is_empty(), "{why}");
            assert_eq!(fs::read(&image).unwrap(), b"before", "{why}");
            assert!(!desk.home.join("disk.img.new").exists(), "{why}");
        };
        let first = &list[..64];
        for bad in [
            list.replace('\n', "\r\n"),
            list.to_uppercase(),
            list.replacen('\n', "\n\n", 1),
            list.replacen('\n', " ", 1),
            list.trim_end().to_owned(),
            format!("{list}x\n"),
            format!("{list}name with spaces\n"),
            format!("{list}# it's a comment\n"),
            format!("{list}./{first}\n"),
        ] {
            desk.home.file("disk.list", &bad);
            fails(&bad);
        }
        desk.home.file("disk.list", &list);
        let block = desk.blocks.join(first);
        fs::write(&block, &bytes[..4095]).unwrap();
        fails("damaged");
        fs::remove_file(&block).unwrap();
        fails("missing");
        fs::remove_file(desk.home.join("disk.list")).unwrap();
        fails("no list");
    }
}

/// Another box, in a directory of the desk's home.
struct Other<'d> {
    desk: &'d Desk,
    blocks: PathBuf,
    /// What ssh does: the words after the host, joined, to a shell in the home there.
    ssh: String,
}

impl<'d> Other<'d> {
    fn new(desk: &'d Desk) -> Self {
        let there = desk.home.join("there");
        fs::create_dir(&there).unwrap();
        let ssh = format!("shift; export HOME={}; cd; sh -c \"$*\"", there.display());
        let blocks = there.join(".psync/blocks");
        let other = Self { desk, blocks, ssh };
        other.program("ssh", &other.ssh);
        other
    }

    /// Puts a shell script of that name before all programs of the desk.
    fn program(&self, name: &str, text: &str) {
        let path = self.desk.home.join("bin").join(name);
        let _ = fs::remove_file(&path);
        let sh = fs::canonicalize(&self.desk.shell[0]).unwrap();
        let arg = if self.desk.shell.len() > 1 { " sh" } else { "" };
        fs::write(&path, format!("#!{}{arg}\n{text}\n", sh.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn blocks_are_copied_to_another_box() {
    for desk in Desk::both() {
        let other = Other::new(&desk);
        let blocks = &other.blocks;
        assert_eq!(desk.shown("copy_to ssh box").ok().text(), "");
        assert!(names(blocks).is_empty());
        let list = desk.exported(&random(300_000, 4));
        desk.foreign();
        fs::write(desk.blocks.join(".psync-0-1"), "half a block").unwrap();
        desk.shown("copy_to ssh box").ok();
        assert_stored(blocks, &list);
        assert_eq!(names(blocks).len(), list.lines().count());

        // Damaged blocks stay behind, and those there are put right.
        fs::write(desk.blocks.join(&list[..64]), "damaged").unwrap();
        fs::write(blocks.join(&list[65..129]), "damaged").unwrap();
        fs::write(blocks.join("name with spaces"), "theirs").unwrap();
        desk.shown("copy_to ssh box").ok();
        assert_stored(blocks, &list);
        assert_eq!(strangers(blocks), ["name with spaces"]);

        // Elsewhere on this box.
        let disk = desk.home.join("disk");
        fs::create_dir(&disk).unwrap();
        let to_disk = "copy_to env HOME=/mnt sh -c";
        fs::copy(blocks.join(&list[..64]), desk.blocks.join(&list[..64])).unwrap();
        desk.shown_with("/mnt", &disk.display().to_string(), to_disk)
            .ok();
        assert_stored(disk.join(".psync/blocks"), &list);
        assert_eq!(
            names(disk.join(".psync/blocks")).len(),
            list.lines().count()
        );
    }
}

#[test]
fn no_block_has_its_name_before_all_of_them_have_come() {
    for desk in Desk::both() {
        let other = Other::new(&desk);
        let (blocks, ssh) = (&other.blocks, &other.ssh);
        let list = desk.exported(&random(300_000, 4));
        // The line breaks.
        other.program("cut_off", &format!("head -c 100000 | {{ {ssh}\n}}"));
        let out = desk.run("copy_to cut_off box");
        assert_ne!(out.status, 0, "{out}");
        assert!(names(blocks).is_empty());

        // The line stalls.
        let go = desk.home.join("go");
        tool!("mkfifo", &go).run().ok();
        let stall = format!(
            "{{ dd bs=1000 count=100 2> /dev/null; read -r go < {}; cat; }} | {{ {ssh}\n}}",
            go.display()
        );
        other.program("stalls", &stall);
        let copying = desk.script("copy_to stalls box").start();
        wait_until("blocks arrive", || {
            let Some(new) = names(blocks).pop() else {
                return false;
            };
            assert!(new.starts_with(".copy."), "{new}");
            !names(blocks.join(new)).is_empty()
        });
        assert_eq!(names(blocks).len(), 1);
        fs::write(&go, "go\n").unwrap();
        copying.wait().ok();
        assert_stored(blocks, &list);
        assert_eq!(names(blocks).len(), list.lines().count());
    }
}

#[test]
fn a_file_is_cut_into_blocks() {
    for desk in Desk::both() {
        let cut = || desk.shown("store < ~/disk.img > ~/disk.list");
        let listed = || fs::read_to_string(desk.home.join("disk.list")).unwrap();
        for size in SIZES {
            let mut bytes = random(size, 5);
            bytes.extend(vec![0; size / 2]);
            desk.home.file("disk.img", &bytes);
            cut().ok();
            assert_eq!(listed(), hashlist(&bytes));
            assert_stored(&desk.blocks, &listed());
        }
        assert!(strangers(&desk.blocks).is_empty());
        // As psync finds and serves them; damaged ones are put right.
        let list = listed();
        fs::write(desk.blocks.join(&list[..64]), "damaged").unwrap();
        desk.foreign();
        cut().ok();
        assert_stored(&desk.blocks, &list);
        let out = psync!("get", "-d", &desk.blocks, desk.home.join("disk.list")).run();
        assert!(out.ok().stdout == fs::read(desk.home.join("disk.img")).unwrap());

        // No room for a block: no list.
        desk.home.file("disk.img", random(300_000, 6));
        let before = names(&desk.blocks);
        let out = desk.run("ulimit -f 4; trap '' XFSZ; store < ~/disk.img");
        assert!(out.status != 0 && out.stdout.is_empty(), "{out}");
        fs::remove_file(desk.home.join("disk.img")).unwrap();
        assert_ne!(cut().status, 0);
        assert_eq!(names(&desk.blocks), before);
    }
}

#[test]
fn a_root_is_computed_and_followed_back() {
    for desk in Desk::both() {
        let whole = ROOT_HASHES * BLOCK_SIZE;
        for size in SIZES.into_iter().chain([whole, whole + 1]) {
            let bytes = random(size, 7);
            let list = desk.exported(&bytes);
            let (root, leading) = root_of(&list, size);
            assert_eq!(shell_root(&desk), root, "{size}");
            for (hash, block) in &leading {
                assert!(fs::read(desk.blocks.join(hash)).unwrap() == *block);
            }
            desk.home.file("disk.list", "");
            let out = desk.shown_for(&root, "needs ROOT ~/disk.list").ok();
            let mut needed: Vec<_> = out.text().lines().collect();
            let mut expected: Vec<_> = leading.keys().map(String::as_str).collect();
            expected.extend(list.lines());
            expected.sort_unstable();
            needed.sort_unstable();
            assert_eq!(needed, expected, "{size}");
            assert_eq!(
                fs::read_to_string(desk.home.join("disk.list")).unwrap(),
                list
            );
            desk.shown("assemble ~/disk.list ~/disk.img").ok();
            assert!(fs::read(desk.home.join("disk.img")).unwrap() == bytes);
        }
        assert!(strangers(&desk.blocks).is_empty());
    }
}

/// The list alone is cut up, so that many blocks cost little: the most of depth 1, the least of depth 2.
#[test]
fn a_root_has_the_least_depth() {
    for desk in Desk::both() {
        for (blocks, depth) in [(60, 0), (61, 1), (3780, 1), (3781, 2)] {
            let size = (blocks - 1) * BLOCK_SIZE + 1;
            let list: String = (0..blocks)
                .map(|n| hash_hex(&n.to_be_bytes()) + "\n")
                .collect();
            desk.home.file("disk.list", &list);
            let image = File::create(desk.home.join("disk.img")).unwrap();
            image.set_len(size as u64).unwrap();
            let (root, leading) = root_of(&list, size);
            let text = String::from_utf8(leading[&root].clone()).unwrap();
            assert!(text.starts_with(&format!("psync root 1\nsize {size}\ndepth {depth}\n")));
            assert_eq!(shell_root(&desk), root);
            let hashes: Vec<_> = leading.keys().map(|hash| hash.clone() + "\n").collect();
            assert_stored(&desk.blocks, &hashes.concat());
            desk.shown_for(&root, "needs ROOT ~/disk.list").ok();
            assert_eq!(
                fs::read_to_string(desk.home.join("disk.list")).unwrap(),
                list
            );
        }
    }
}

/// Only where `split` is a program: without one a block costs a process.
#[test]
fn a_big_file_goes_all_the_way() {
    let [desk, _] = Desk::both();
    let size = 3781 * BLOCK_SIZE;
    let path = desk.home.join("disk.img");
    let image = File::create(&path).unwrap();
    image.set_len(size as u64).unwrap();
    desk.shown("store < ~/disk.img > ~/disk.list").ok();
    let list = fs::read_to_string(desk.home.join("disk.list")).unwrap();
    assert_eq!(list, (hash_hex(&[0; BLOCK_SIZE]) + "\n").repeat(3781));
    let (root, _) = root_of(&list, size);
    assert_eq!(shell_root(&desk), root);
    fs::remove_file(&path).unwrap();
    fs::remove_file(desk.home.join("disk.list")).unwrap();
    desk.shown_for(&root, "needs ROOT ~/disk.list").ok();
    desk.shown("assemble ~/disk.list ~/disk.img").ok();
    assert!(fs::read(&path).unwrap() == vec![0; size]);
}

#[test]
fn a_root_is_not_made_of_a_list_that_does_not_fit() {
    for desk in Desk::both() {
        let list = desk.exported(&random(300_000, 8));
        let before = names(&desk.blocks);
        for bad in [
            list[65..].to_owned(),
            String::new(),
            list.replace('\n', "\r\n"),
            list.trim_end().to_owned(),
            list.to_uppercase(),
            format!("{list}x\n"),
        ] {
            desk.home.file("disk.list", &bad);
            let out = desk.shown("root ~/disk.list ~/disk.img");
            assert!(out.stdout.is_empty(), "{out}");
            out.fails_naming(1, &["disk.list: not the list of "]);
        }
        for missing in ["disk.list", "disk.img"] {
            fs::remove_file(desk.home.join(missing)).unwrap();
            let out = desk.shown("root ~/disk.list ~/disk.img");
            assert!(out.status != 0 && out.stdout.is_empty(), "{out}");
        }
        assert_eq!(names(&desk.blocks), before);
    }
}

/// Two lists, one of them of a part of the other's file, a root, and blocks that nothing needs.
struct Crowd {
    root: String,
    needed: Vec<String>,
    unneeded: Vec<String>,
}

impl Crowd {
    fn new(desk: &Desk) -> Self {
        let bytes = random(300_000, 9);
        let small = desk.exported(&bytes[..50_000]);
        let big = desk.exported(&bytes);
        fs::write(desk.home.join("lists/a small one.list"), &small).unwrap();
        fs::write(desk.home.join("lists/b.list"), &big).unwrap();
        let rooted = random(400_000, 10);
        let under_root = desk.exported(&rooted);
        let (root, leading) = root_of(&under_root, rooted.len());
        assert_eq!(shell_root(desk), root);
        let mut needed: Vec<_> = [small, big, under_root]
            .iter()
            .flat_map(|list| list.lines().map(str::to_owned))
            .chain(leading.into_keys())
            .collect();
        needed.sort();
        needed.dedup();
        let mut unneeded: Vec<_> = desk
            .exported(&random(200_000, 11))
            .lines()
            .map(str::to_owned)
            .collect();
        unneeded.sort();
        Self {
            root,
            needed,
            unneeded,
        }
    }
}

const UNNEEDED: &str = "unneeded ~/lists/*.list ROOT > ~/gone";
const REMOVE: &str = "xargs -r rm -f < ~/gone";

#[test]
fn what_nothing_needs_is_removed() {
    for desk in Desk::both() {
        let crowd = Crowd::new(&desk);
        let mut left = desk.foreign();
        left.extend(crowd.needed);
        left.sort();
        // More names than fit on a command line.
        let mut unneeded = crowd.unneeded;
        for n in 0..33_000_u32 {
            let hash = hash_hex(&n.to_be_bytes());
            fs::write(desk.blocks.join(&hash), "").unwrap();
            unneeded.push(hash);
        }
        unneeded.sort();
        desk.shown_for(&crowd.root, UNNEEDED).ok();
        let gone = fs::read_to_string(desk.home.join("gone")).unwrap();
        assert!(gone.lines().eq(&unneeded));
        desk.shown(REMOVE).ok();
        assert_eq!(names(&desk.blocks), left);
        // Again: there is nothing.
        desk.shown_for(&crowd.root, UNNEEDED).ok();
        desk.shown(REMOVE).ok();
        assert_eq!(names(&desk.blocks), left);
    }
}

/// `unneeded` fails, says why, and prints nothing to be removed.
#[track_caller]
fn refuses(desk: &Desk, crowd: &Crowd, why: &str, line: &str) {
    let out = desk.run(&line.replace("ROOT", &crowd.root));
    assert!(out.status != 0 && !out.stderr.is_empty(), "{why}: {out}");
    assert_eq!(fs::read(desk.home.join("gone")).unwrap(), b"", "{why}");
}

#[test]
fn nothing_is_removed_for_a_name_that_leads_to_no_list() {
    for desk in Desk::both() {
        let crowd = Crowd::new(&desk);
        let refuses = |why: &str, line: &str| refuses(&desk, &crowd, why, line);
        refuses("nothing named", "unneeded > ~/gone");
        refuses("missing", "unneeded ~/lists/b.list ~/lists/c.list > ~/gone");
        refuses("no match", "unneeded ~/lists/*.txt > ~/gone");
        refuses("directory", "unneeded ~/lists/b.list ~/lists > ~/gone");
        refuses(
            "no root",
            &format!("unneeded ~/lists/b.list {} > ~/gone", crowd.unneeded[0]),
        );
        refuses("no slash", "unneeded ROOT x > ~/gone");
        refuses(
            "absent root",
            &format!("unneeded ROOT {} > ~/gone", hash_hex(b"absent")),
        );
        // A root of another kind may need more than can be seen.
        let later = format!("psync root 2\nsize 1\ndepth 0\n{}\n", hash_hex(b"x"));
        let later = write_blocks(&desk.blocks, later.as_bytes());
        refuses(
            "a later root",
            &format!("unneeded ~/lists/*.list {} > ~/gone", later.trim_end()),
        );
    }
}

#[test]
fn nothing_is_removed_for_a_list_that_cannot_be_trusted() {
    for desk in Desk::both() {
        let crowd = Crowd::new(&desk);
        let refuses = |why: &str, line: &str| refuses(&desk, &crowd, why, line);
        let b = desk.home.join("lists/b.list");
        let list = fs::read_to_string(&b).unwrap();
        for bad in [
            String::new(),
            "\n".to_owned(),
            list.to_uppercase(),
            list.replace('\n', "\r\n"),
            list[..list.len() - 2].to_owned(),
            format!("<html>\n{list}"),
        ] {
            fs::write(&b, &bad).unwrap();
            refuses(&bad, UNNEEDED);
        }
        // Its last line may lack its end.
        fs::write(&b, list.trim_end()).unwrap();
        let out = desk.run(&format!("unneeded ~/lists/b.list {}", crowd.root));
        assert!(
            out.status != 0,
            "a root's hash went to the end of a list: {out}"
        );
        let out = desk.run("unneeded ~/lists/b.list").ok();
        assert!(!list.lines().any(|hash| out.text().contains(hash)));
        fs::write(&b, &list).unwrap();

        // What leads from the root to its list.
        let block = fs::read_to_string(desk.blocks.join(&crowd.root)).unwrap();
        let level = desk.blocks.join(block.lines().last().unwrap());
        let text = fs::read(&level).unwrap();
        fs::write(&level, &text[..text.len() - 65]).unwrap();
        refuses("damaged level", UNNEEDED);
        fs::remove_file(&level).unwrap();
        refuses("missing level", UNNEEDED);
    }
}

#[test]
fn nothing_is_removed_beside_an_export_at_work_or_one_that_was_killed() {
    for desk in Desk::both() {
        let crowd = Crowd::new(&desk);
        let refuses = |why: &str, line: &str| refuses(&desk, &crowd, why, line);
        let export = psync!("export", "-d", &desk.blocks)
            .stdin_from(std::process::Stdio::piped())
            .start();
        wait_until("an export begins", || !strangers(&desk.blocks).is_empty());
        refuses("export at work", UNNEEDED);
        export.kill();
        refuses("export killed", UNNEEDED);
        symlink(PSYNC, desk.home.join("bin/psync")).unwrap();
        desk.shown("psync export -d . /dev/null").ok();
        desk.shown_for(&crowd.root, UNNEEDED).ok();
        let gone = fs::read_to_string(desk.home.join("gone")).unwrap();
        assert!(gone.lines().eq(&crowd.unneeded));
    }
}

#[test]
fn the_recipe_and_export_agree_on_a_root() {
    for desk in Desk::both() {
        for size in [0, 1, 245_760, 245_761, 300_000] {
            let bytes = random(size, 3);
            desk.exported(&bytes);
            let out = psync!("export", "--root", "--no-store")
                .stdin(bytes)
                .run()
                .ok();
            assert_eq!(out.text(), shell_root(&desk) + "\n", "{size}");
        }
    }
}
