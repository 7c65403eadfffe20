//! Stories: commands of psync, where each is run, and what must hold whatever ends or hinders them. For
//! kills, refusals, full disks and power cuts, which come at the moments that a good run shows.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::{
    BLOCK_SIZE, BlockMap, Call, Client, Moment, Output, Rooted, Run, Server, TempDir,
    assert_stored, at_drop, blocks, frames, hash_hex, hashlist, names, psync, random, trace,
};

/// Threads that go through the cases: each case is a short program or two, and waits a little.
const THREADS: usize = 3;

/// A refusal must not make it wait for long, nor for ever.
pub const SOON: Duration = Duration::from_secs(30);

/// A command, and what it is to bring about in a directory of its own, where lie the file `in` and its
/// `list`, an older `out`, and `b`, a block directory with right and damaged blocks and what a dead
/// writer left.
#[derive(Debug)]
pub struct Story {
    pub words: &'static str,
    /// Whether there is no `b` and no `out` before.
    pub is_new: bool,
}

const fn story(words: &'static str) -> Story {
    Story {
        words,
        is_new: false,
    }
}

pub const fn new_story(words: &'static str) -> Story {
    Story {
        words,
        is_new: true,
    }
}

pub const EXPORT: Story = story("export -d b in");
pub const EXPORT_ROOT: Story = story("export --root -d b in");
pub const EXPORT_NEW: Story = new_story("export --root -d b in");
pub const GET: Story = story("get --retry 0 -j 1 -o out SERVER list");
pub const GET_ROOT: Story = story("get --retry 0 -j 1 -o out SERVER ROOT");
pub const IN_PLACE: Story = story("get --retry 0 -j 1 --in-place -o out SERVER list");
pub const KEEP: Story = story("get --retry 0 -j 1 -k -d b SERVER list");
pub const KEEP_ROOT: Story = story("get --retry 0 -j 1 -k -d b -o out SERVER ROOT");
pub const KEEP_NEW: Story = new_story("get --retry 0 -j 3 -k -d b -o out SERVER list");

/// What the stories are about.
#[derive(Debug)]
pub struct World {
    pub new: Rooted,
    pub old: Vec<u8>,
    /// Every block of the new file, its list and its root; served by `server`.
    pub map: BlockMap,
    pub server: Server,
    _dir: TempDir,
}

/// The one block in `b` that is right, and the one that is damaged.
const RIGHT: usize = 0;
const DAMAGED: usize = 59;

const OLD_MODE: u32 = 0o640;

fn block(seed: u64) -> Vec<u8> {
    random(BLOCK_SIZE, seed)
}

impl World {
    /// A file of few different blocks, so that there are few calls, and of so many that its list is a
    /// level: zeros, repeated ones, a short last one.
    pub fn new() -> Self {
        let parts = [
            block(1),
            block(2),
            vec![0; 57 * BLOCK_SIZE],
            [block(3), block(4), block(3), block(5)].concat(),
            random(5, 6),
        ];
        Self::of(&parts.concat())
    }

    pub fn of(new: &[u8]) -> Self {
        // One block lies at its place, one at another, one where zeros are due; and it is longer.
        let mut old = new.to_vec();
        old[BLOCK_SIZE..2 * BLOCK_SIZE].copy_from_slice(&block(7));
        old[7 * BLOCK_SIZE..8 * BLOCK_SIZE].copy_from_slice(&block(5));
        old.truncate(59 * BLOCK_SIZE);
        old.extend(random(new.len() - old.len() + BLOCK_SIZE, 8));
        let new = Rooted::new(new);
        assert_eq!(new.levels.len(), 2);
        let (map, dir) = (new.map(), TempDir::new());
        for (hash, block) in &map {
            fs::write(dir.join(hash), block).unwrap();
        }
        World {
            server: Server::start(&dir),
            new,
            old,
            map,
            _dir: dir,
        }
    }

    pub fn list(&self) -> String {
        hashlist(self.new.bytes())
    }

    /// Each place of the file is as before or as after, where it is written over.
    fn is_between(&self, now: &[u8]) -> bool {
        let part = |bytes: &[u8], n| blocks(bytes).nth(n).unwrap_or_default().to_vec();
        blocks(now).enumerate().all(|(n, now)| {
            let (old, new) = (part(&self.old, n), part(self.new.bytes(), n));
            let over = [&new[..], old.get(new.len()..).unwrap_or_default()].concat();
            [old, new, over].iter().any(|allowed| allowed == now)
        })
    }
}

/// A directory for a story to happen in, and a server of its `b`, which is at it all the while.
#[derive(Debug)]
pub struct Place {
    pub dir: TempDir,
    server: Server,
}

impl Deref for Place {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.dir
    }
}

impl Place {
    pub fn new() -> Self {
        Self::within(TempDir::new())
    }

    pub fn within(dir: TempDir) -> Self {
        fs::create_dir(dir.join("b")).unwrap();
        let server = Server::start(dir.join("b"));
        Place { dir, server }
    }

    pub fn clear(&self) {
        for name in self.dir.names() {
            let path = self.dir.join(name);
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// All hashes of the world, asked of the server: what it gives is right, and it gives all that is
    /// right.
    pub fn assert_served(&self, world: &World) {
        let list: String = world.map.keys().map(|hash| format!("{hash}\n")).collect();
        let head = format!("Content-Length: {}\r\nConnection: close", list.len());
        let request = format!("POST /blocks HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n{list}");
        let answer = Client::connect(self.server.addr()).send(request).response();
        let right = |hash: &&String| {
            fs::read(self.join("b").join(hash)).is_ok_and(|now| now == world.map[*hash])
        };
        let right = world
            .map
            .keys()
            .filter(right)
            .map(|hash| (hash, &world.map[hash]));
        let right = right
            .map(|(hash, block)| (hash.clone(), block.clone()))
            .collect();
        assert!(
            answer.body == frames(&right, world.map.keys()),
            "served wrongly"
        );
    }
}

impl Story {
    pub fn has(&self, word: &str) -> bool {
        self.words.split(' ').any(|said| said == word)
    }

    pub fn is_export(&self) -> bool {
        self.has("export")
    }

    pub fn sets_out(&self, place: &Path, world: &World) {
        let write = |name: &str, bytes: &[u8]| fs::write(place.join(name), bytes).unwrap();
        write("in", world.new.bytes());
        write("list", world.list().as_bytes());
        if self.is_new {
            return;
        }
        write("out", &world.old);
        fs::set_permissions(place.join("out"), fs::Permissions::from_mode(OLD_MODE)).unwrap();
        fs::create_dir(place.join("b")).unwrap();
        let block = |n| blocks(world.new.bytes()).nth(n).unwrap();
        let name = |n| format!("b/{}", hash_hex(block(n)));
        write(&name(RIGHT), block(RIGHT));
        write(&name(DAMAGED), &Self::damaged(world));
        write("b/.psync-5", b"");
        write("b/.psync-5-0", &block(DAMAGED)[..9]);
    }

    fn damaged(world: &World) -> Vec<u8> {
        let mut block = blocks(world.new.bytes()).nth(DAMAGED).unwrap().to_vec();
        block[17] ^= 1;
        block
    }

    pub fn run(&self, place: &Path, world: &World) -> Run {
        let words = self.words.split(' ').map(|word| match word {
            "SERVER" => world.server.to_string(),
            "ROOT" => world.new.root.clone(),
            word => word.to_owned(),
        });
        psync!().args(words).cwd(place).limit(SOON)
    }

    /// What must hold whenever and however it ended, and while it runs.
    pub fn assert_sound(&self, place: &Place, world: &World, printed: &[u8]) {
        let out = fs::read(place.join("out")).ok();
        if !self.has("--in-place") {
            self.assert_old_or_new(place, world);
        } else if let Some(out) = out {
            assert!(world.is_between(&out), "neither old nor new");
        }
        if place.join("b").exists() {
            self.assert_blocks_sound(place, world);
        }
        self.assert_believed(place, world, printed);
    }

    pub fn assert_old_or_new(&self, place: &Path, world: &World) {
        match fs::read(place.join("out")) {
            Err(_) => assert!(self.is_new, "no output"),
            Ok(out) => {
                let is_old = !self.is_new && out == world.old;
                assert!(is_old || out == world.new.bytes(), "half an output");
                let mode = fs::metadata(place.join("out"))
                    .unwrap()
                    .permissions()
                    .mode();
                assert!(self.is_new || mode & 0o777 == OLD_MODE, "{mode:o}");
            }
        }
    }

    /// What it printed is true, and what lies there is not served where it is wrong.
    pub fn assert_believed(&self, place: &Place, world: &World, printed: &[u8]) {
        if self.is_export() {
            self.assert_printed_is_stored(place, world, str::from_utf8(printed).unwrap());
        } else {
            assert!(world.new.bytes().starts_with(printed), "wrong bytes");
        }
        place.assert_served(world);
    }

    pub fn assert_blocks_sound(&self, place: &Path, world: &World) {
        let damaged = (world.list().lines().nth(DAMAGED)).map(str::to_owned);
        for name in names(place.join("b"))
            .iter()
            .filter(|name| name.len() == 64)
        {
            let block = fs::read(place.join("b").join(name)).unwrap();
            let as_before = Some(name) == damaged.as_ref() && block == Self::damaged(world);
            assert!(
                as_before && !self.is_new || block == world.map[name],
                "{name}"
            );
        }
    }

    fn assert_printed_is_stored(&self, place: &Path, world: &World, printed: &str) {
        if self.has("--root") {
            assert!(printed.is_empty() || printed == world.new.line());
            let all = world.map.keys().map(|hash| format!("{hash}\n"));
            let all: String = all.filter(|_| !printed.is_empty()).collect();
            assert_stored(place.join("b"), &all);
        } else {
            assert!(world.list().starts_with(printed));
            assert_stored(place.join("b"), printed);
        }
    }

    /// What is true of one that came to its end, whatever was before it.
    pub fn assert_done(&self, place: &Place, world: &World, out: Output) {
        let out = out.ok();
        self.assert_believed(place, world, &out.stdout);
        if self.is_export() {
            let root = self.has("--root");
            let all = if root { world.new.line() } else { world.list() };
            assert_eq!(out.text(), all);
        } else if self.has("out") {
            self.assert_old_or_new(place, world);
            assert!(fs::read(place.join("out")).unwrap() == world.new.bytes());
        } else {
            assert!(out.stdout == world.new.bytes());
        }
        assert!(!place.join("out.part").exists());
    }

    /// Once more, undisturbed: it completes.
    pub fn assert_completes(&self, place: &Place, world: &World) {
        self.assert_done(place, world, self.run(place, world).run());
    }

    /// As the program is killed as it begins a call.
    pub fn killed(&self, place: &Place, world: &World, moment: &Moment) -> Output {
        let words = ["-f", "-o", "/dev/null"].map(str::to_owned).into_iter();
        let words = words.chain(moment.inject("signal=KILL", place));
        let out = self.run(place, world).under("strace", words).run();
        assert!(matches!(out.status, 0 | 137), "{out}");
        out
    }
}

/// Names of all that lies there.
fn left(place: &Path) -> Vec<String> {
    let mut left = names(place);
    if place.join("b").exists() {
        left.extend(names(place.join("b")));
    }
    left
}

/// It leaves what it always leaves. More blocks may be kept, where what was at hand could not be read.
pub fn assert_left(place: &Path, world: &World, always: &[String]) {
    let mut left = left(place);
    left.retain(|name| always.contains(name) || !world.map.contains_key(name));
    assert_eq!(left, always);
}

/// Says which case it was that failed.
#[derive(Debug)]
pub struct Case(pub String);

impl Drop for Case {
    fn drop(&mut self) {
        at_drop(|| {
            if thread::panicking() {
                eprintln!("FAILED {}", self.0);
            }
        });
    }
}

/// Goes through all cases, several at once, each thread in a place of its own; counts those for which
/// `work` says so.
pub fn count<T: Sync>(cases: &[T], work: impl Fn(&Place, &T) -> bool + Sync) -> usize {
    let (next, counted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let place = Place::new();
                while let Some(case) = cases.get(next.fetch_add(1, SeqCst)) {
                    place.clear();
                    if work(&place, case) {
                        counted.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    counted.into_inner()
}

/// Runs it undisturbed; returns its moments with their calls, and what it leaves.
pub fn moments(story: &Story, world: &World) -> (Vec<(Moment, Call)>, Vec<String>) {
    let place = Place::new();
    place.clear();
    story.sets_out(&place, world);
    let (out, calls) = trace("all", &["-s", "0"], story.run(&place, world));
    story.assert_done(&place, world, out);
    let moments = Moment::of(&calls, &place);
    let moments = moments
        .into_iter()
        .map(|(moment, call)| (moment, call.clone()));
    (moments.collect(), left(&place))
}
