//! A day of cron in minutes: 288 runs of one `get` line, five minutes apart, while its servers come, go,
//! die, lie and stop, the file has new versions, what was kept rots, and the client is killed; and a
//! mirror that heals itself. After every run: the exit code that the blocks at hand call for, FILE all
//! or nothing, and nothing left over. What happens is thrown with dice; a failure tells their seed.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::soak::{Held, lasting_address};
use crate::support::*;

/// Every five minutes.
const RUNS: usize = 24 * 12;

/// Runs after which it is told how it goes, and looked at who is there all day.
const A_QUARTER: usize = RUNS / 4;

/// Another seed, for another day.
const SEED: &str = "PSYNC_SOAK_SEED";

/// The file has a new version every two hours, of which a hundredth is new.
const BETWEEN_VERSIONS: usize = 24;
const BLOCKS: usize = 400;
const NEW: usize = BLOCKS / 100;

/// Servers on the crontab's line. Another may be named in the file that it names.
const SLOTS: usize = 4;

/// For `--timeout`: a stopped server costs a run so many seconds, and no other takes so long on a machine
/// that does much besides.
const PATIENCE: &str = "3";

/// Runs that a stopped server stays so, for it costs each its timeout.
const STOPPED_FOR: usize = 3;

/// What a server in use all day may hold more in the evening than in the morning.
const GROWTH_KIB: u64 = 1024;

type Hashes = BTreeSet<String>;

fn hashes_of(bytes: &[u8]) -> Hashes {
    blocks(bytes).map(hash_hex).collect()
}

/// The seed to throw the dice with, told if the test fails.
struct Seeded(u64);

impl Seeded {
    fn new() -> Self {
        Self(env::var(SEED).map_or(1, |seed| seed.parse().unwrap()))
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        at_drop(|| {
            if thread::panicking() {
                eprintln!("{SEED}={} throws the same dice", self.0);
            }
        });
    }
}

/// A version of the file, and where its blocks and lists lie on the other boxes.
struct Version {
    rooted: Rooted,
    list: PathBuf,
    file: PathBuf,
    repository: PathBuf,
    /// Of the file, and with those above it.
    blocks: Hashes,
    all: Hashes,
}

impl Version {
    fn new(dir: &Path, number: usize, bytes: &[u8]) -> Self {
        let rooted = Rooted::new(bytes);
        let path = |what: &str| dir.join(format!("{what}{number}"));
        let (list, file, repository) = (path("list"), path("file"), path("blocks"));
        fs::write(&list, hashlist(bytes)).unwrap();
        fs::write(&file, bytes).unwrap();
        write_blocks(&repository, bytes);
        for (hash, block) in rooted.above() {
            fs::write(repository.join(hash), block).unwrap();
        }
        Self {
            blocks: hashes_of(bytes),
            all: rooted.map().into_keys().collect(),
            rooted,
            list,
            file,
            repository,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.rooted.bytes()
    }

    /// The day's, each made of the one before.
    fn all_of(dir: &Path, dice: &mut Dice) -> Vec<Self> {
        let mut bytes = random(BLOCKS * BLOCK_SIZE + 5, 6);
        (0..RUNS.div_ceil(BETWEEN_VERSIONS))
            .map(|number| {
                for _ in 0..NEW * usize::from(number > 0) {
                    let at = dice.below(BLOCKS) * BLOCK_SIZE;
                    let new = random(BLOCK_SIZE, dice.below(1 << 30) as u64);
                    bytes[at..at + BLOCK_SIZE].copy_from_slice(&new);
                }
                bytes.extend(random(number * 1000, number as u64));
                Self::new(dir, number, &bytes)
            })
            .collect()
    }
}

/// What is at an address, of which version.
enum Serving {
    Nothing,
    Blocks(Server, usize),
    /// The file at the path, which a newer one may replace.
    File(Server, usize, PathBuf),
    /// What served blocks, and is stopped since this run.
    Stopped(Server, usize, usize),
    Liar(#[allow(dead_code, reason = "dropped at its end")] HostileServer),
}

impl Serving {
    fn name(&self) -> String {
        match self {
            Serving::Nothing => "-".to_owned(),
            Serving::Blocks(_, version) => format!("blocks {version}"),
            Serving::File(_, version, _) => format!("file {version}"),
            Serving::Stopped(..) => "stopped".to_owned(),
            Serving::Liar(_) => "liar".to_owned(),
        }
    }
}

/// The other boxes.
struct Others {
    dir: TempDir,
    versions: Vec<Version>,
    addrs: Vec<String>,
    slots: Vec<Serving>,
    /// The file that names more servers, and the nginx in it.
    servers: PathBuf,
    nginx: Option<(Daemon, usize)>,
}

impl Others {
    fn new(dice: &mut Dice) -> Self {
        let dir = TempDir::new();
        Self {
            versions: Version::all_of(&dir, dice),
            addrs: (0..SLOTS).map(|_| lasting_address("127.9.9.3")).collect(),
            slots: (0..SLOTS).map(|_| Serving::Nothing).collect(),
            servers: dir.file("servers", ""),
            nginx: None,
            dir,
        }
    }

    fn blocks_server(&self, slot: usize, version: usize) -> Serving {
        let dir = &self.versions[version].repository;
        let server = psync!("server", "-d", dir, &self.addrs[slot]);
        Serving::Blocks(Server::of(day_long(server)), version)
    }

    fn file_server(&self, slot: usize, version: usize) -> Serving {
        let path = self.dir.join(format!("served{slot}"));
        fs::copy(&self.versions[version].file, &path).unwrap();
        let server = Server::of(day_long(psync!(
            "server",
            "--file",
            &path,
            &self.addrs[slot]
        )));
        self.wait_served(&server, version);
        Serving::File(server, version, path)
    }

    /// Until the server has read the version.
    fn wait_served(&self, server: &Server, version: usize) {
        let list = fs::read_to_string(&self.versions[version].list).unwrap();
        let request = post(&list);
        let blocks = blocks(self.versions[version].bytes());
        let frames = blocks.flat_map(frame).collect::<Vec<_>>();
        let mut client = Client::connect(server.addr());
        wait_until("the file is read", || {
            client.send(&request).response().body == frames
        });
    }

    /// Something happens at the address. `now` is the version that there is by now.
    fn change(&mut self, slot: usize, run: usize, now: usize, dice: &mut Dice) {
        let before = std::mem::replace(&mut self.slots[slot], Serving::Nothing);
        let older = now.saturating_sub(1 + dice.below(2));
        self.slots[slot] = match (before, dice.below(16)) {
            (Serving::Stopped(server, version, _), _) => {
                signal(server.pid(), "CONT");
                Serving::Blocks(server, version)
            }
            (Serving::Blocks(server, version), 0..2) => {
                signal(server.pid(), "STOP");
                Serving::Stopped(server, version, run)
            }
            (Serving::File(server, version, path), 0..8) if version < now => {
                let new = self.dir.join("new");
                fs::copy(&self.versions[now].file, &new).unwrap();
                fs::rename(new, &path).unwrap();
                self.wait_served(&server, now);
                Serving::File(server, now, path)
            }
            // `kill -9` of what was there, and another in its place at once.
            (before, what) => {
                drop(before);
                match what {
                    0..5 => self.blocks_server(slot, now),
                    5..7 => self.blocks_server(slot, older),
                    7..10 => self.file_server(slot, now),
                    10 => Serving::Liar(liar(&self.addrs[slot])),
                    _ => Serving::Nothing,
                }
            }
        };
    }

    fn change_nginx(&mut self, now: usize, dice: &mut Dice) {
        self.nginx = None;
        fs::write(&self.servers, "# nobody\n").unwrap();
        if dice.below(2) == 0 {
            let version = now.saturating_sub(dice.below(2));
            let nginx = Daemon::nginx(&self.versions[version].repository, "");
            fs::write(&self.servers, format!("{nginx}\n")).unwrap();
            self.nginx = Some((nginx, version));
        }
    }

    fn stopped_too_long(&self, run: usize) -> Option<usize> {
        let is_due = |slot: &Serving| matches!(slot, Serving::Stopped(_, _, since) if since + STOPPED_FOR <= run);
        self.slots.iter().position(is_due)
    }

    /// What whoever asks them all gets.
    fn hashes(&self) -> Hashes {
        let mut all = Hashes::new();
        for slot in &self.slots {
            match slot {
                Serving::Blocks(_, version) => all.extend(self.versions[*version].all.clone()),
                Serving::File(_, version, _) => all.extend(self.versions[*version].blocks.clone()),
                Serving::Nothing | Serving::Stopped(..) | Serving::Liar(_) => {}
            }
        }
        let nginx = self.nginx.as_ref();
        all.extend(
            nginx
                .iter()
                .flat_map(|(_, version)| self.versions[*version].all.clone()),
        );
        all
    }

    fn names(&self) -> String {
        let slots: Vec<_> = self.slots.iter().map(Serving::name).collect();
        let nginx = self.nginx.as_ref().map(|(_, version)| version);
        format!("{}, nginx {nginx:?}", slots.join(", "))
    }
}

fn post(list: &str) -> String {
    let length = list.len();
    format!("POST /blocks HTTP/1.1\r\nHost: day\r\nContent-Length: {length}\r\n\r\n{list}")
}

/// It may have to live as long as the test.
fn day_long(run: Run) -> Run {
    run.limit(Duration::from_secs(3600))
}

/// Has a block of the right length for every hash, and the wrong one.
fn liar(addr: &str) -> HostileServer {
    HostileServer::http_at(addr, |request| match request.is_run() {
        true => Reply::ok(frame(&[7; BLOCK_SIZE]).repeat(request.run().len())),
        false => Reply::ok([7; BLOCK_SIZE]),
    })
    .taking_runs()
}

/// The box with the crontab.
struct Home {
    /// FILE has its directory to itself, as have the blocks and the temporary files.
    dir: TempDir,
    file: PathBuf,
    blocks: PathBuf,
    tmp: PathBuf,
}

impl Home {
    fn new() -> Self {
        let dir = TempDir::new();
        let made = |name: &str| {
            let made = dir.join(name);
            fs::create_dir(&made).unwrap();
            made
        };
        let (out, blocks, tmp) = (made("out"), made("blocks"), made("tmp"));
        Self {
            file: out.join("file"),
            blocks,
            tmp,
            dir,
        }
    }

    fn part(&self) -> PathBuf {
        crate::get::output::part(&self.file)
    }

    /// The blocks that are whole in the block directory.
    fn kept(&self) -> Hashes {
        let names = names(&self.blocks).into_iter();
        names
            .filter(|name| {
                fs::read(self.blocks.join(name)).is_ok_and(|block| hash_hex(&block) == *name)
            })
            .collect()
    }

    /// What need not be fetched for this version: it is in FILE, in its place in FILE.part, or kept.
    /// With a root what FILE and FILE.part are is known with their lists.
    fn at_hand(&self, kept: &Hashes, version: &Version, by_root: bool) -> Hashes {
        let [file, part] =
            [&self.file, &self.part()].map(|path| fs::read(path).unwrap_or_default());
        let mut all = kept.clone();
        all.extend(hashes_of(&file));
        let in_place = blocks(&part).zip(blocks(version.bytes()));
        all.extend(
            in_place
                .filter(|(there, right)| there.starts_with(right))
                .map(|(_, right)| hash_hex(right)),
        );
        for bytes in [file, part]
            .iter()
            .filter(|bytes| by_root && !bytes.is_empty())
        {
            all.extend(Rooted::new(bytes).lists().into_keys());
        }
        all
    }

    /// A byte of it turns.
    fn rot(path: &Path, dice: &mut Dice) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len() as usize;
        if length > 0 {
            let (at, mut byte) = (dice.below(length) as u64, [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
        }
    }
}

/// What is done to a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    /// `kill -9` after so many milliseconds.
    Killed(u64),
    /// The server of that slot is killed after so many milliseconds.
    ServerKilled(u64),
    /// Another begins while it is at it.
    Overlapped,
}

/// What the runs came to.
#[derive(Debug, Default)]
struct Counts {
    done: usize,
    nothing_to_do: usize,
    missing: usize,
    killed: usize,
    overlapped: usize,
    /// Of servers.
    changes: usize,
    versions: BTreeSet<usize>,
}

struct Day {
    dice: Dice,
    others: Others,
    home: Home,
    run: usize,
    now: usize,
    /// The blocks that are whole in its block directory.
    kept: Hashes,
    counts: Counts,
    seed: Seeded,
}

impl Drop for Day {
    fn drop(&mut self) {
        at_drop(|| {
            if thread::panicking() {
                let Self {
                    run, now, others, ..
                } = self;
                eprintln!("run {run}, version {now}, servers: {}", others.names());
            }
        });
    }
}

impl Day {
    fn new() -> Self {
        let seed = Seeded::new();
        let mut dice = Dice::new(seed.0);
        Self {
            others: Others::new(&mut dice),
            dice,
            home: Home::new(),
            run: 0,
            now: 0,
            kept: Hashes::new(),
            counts: Counts::default(),
            seed,
        }
    }

    fn version(&self) -> &Version {
        &self.others.versions[self.now]
    }

    /// The crontab's line, with the list or the root.
    fn line(&self, by_root: bool, keep: bool, first: Option<&HostileServer>) -> Run {
        let times = [
            "--timeout",
            PATIENCE,
            "--connect-timeout",
            PATIENCE,
            "--retry",
            "0",
        ];
        let mut run = psync!("get", "-o", &self.home.file, "-d", &self.home.blocks).args(times);
        run = run
            .arg("--servers")
            .arg(&self.others.servers)
            .env("TMPDIR", &self.home.tmp);
        if keep {
            run = run.arg("--keep");
        }
        run = run
            .args(first.map(ToString::to_string))
            .args(&self.others.addrs);
        match by_root {
            true => run.arg(&self.version().rooted.root),
            false => run.arg(&self.version().list),
        }
    }

    /// What happens in five minutes.
    fn pass(&mut self) {
        self.now = self.run / BETWEEN_VERSIONS;
        let Self {
            dice,
            others,
            home,
            kept,
            counts,
            ..
        } = self;
        if let Some(slot) = others.stopped_too_long(self.run) {
            others.change(slot, self.run, self.now, dice);
        }
        if self.run == 0 || dice.below(3) == 0 {
            counts.changes += 1;
            others.change(dice.below(SLOTS), self.run, self.now, dice);
        }
        if dice.below(12) == 0 {
            others.change_nginx(self.now, dice);
        }
        if dice.below(4) == 0 && !kept.is_empty() {
            let hash = kept.iter().nth(dice.below(kept.len())).unwrap().clone();
            Home::rot(&home.blocks.join(&hash), dice);
            kept.remove(&hash);
        }
        match dice.below(12) {
            0..3 if home.file.exists() => Home::rot(&home.file, dice),
            3 if home.file.exists() => fs::remove_file(&home.file).unwrap(),
            4 if home.part().exists() => Home::rot(&home.part(), dice),
            _ => {}
        }
    }

    fn trouble(&mut self) -> Trouble {
        let after = self.dice.below(25) as u64;
        match self.dice.below(12) {
            0 | 1 => Trouble::Killed(after),
            2 => Trouble::ServerKilled(after),
            3..6 => Trouble::Overlapped,
            _ => Trouble::None,
        }
    }

    /// One run, and all that must hold after it.
    fn cron(&mut self) {
        let (trouble, by_root) = (self.trouble(), self.run / 12 % 2 == 1);
        let keep = self.dice.below(3) > 0;
        let before = fs::read(&self.home.file).ok();
        let is_right = before.as_deref() == Some(self.version().bytes());
        let at_hand = self.home.at_hand(&self.kept, self.version(), by_root);
        let wanted = if by_root {
            &self.version().all
        } else {
            &self.version().blocks
        };
        let missing: Hashes = wanted.difference(&at_hand).cloned().collect();
        let can_be_had = missing.is_subset(&self.others.hashes());
        let is_fetched = !missing.is_disjoint(&self.version().blocks);
        let line = self.line(by_root, keep, None);
        let output = match trouble {
            Trouble::None => line.run(),
            Trouble::Killed(after) => killed_after(line, after),
            Trouble::ServerKilled(after) => self.with_a_server_killed(line, after),
            Trouble::Overlapped if is_fetched && can_be_had && !is_right => {
                self.overlapped(by_root, keep)
            }
            Trouble::Overlapped => line.run(),
        };
        let status = output.status;
        match status {
            0 => drop(output.ok()),
            137 => assert!(matches!(trouble, Trouble::Killed(_)), "{output}"),
            _ => self.is_short_of_blocks(&output),
        }
        if !matches!(trouble, Trouble::Killed(_) | Trouble::ServerKilled(_)) {
            assert_eq!(
                status == 0,
                is_right || can_be_had,
                "by root: {by_root}, missing: {missing:?}"
            );
        }
        self.all_or_nothing(status, is_right, before.as_deref());
        let kept = self.home.kept();
        self.kept_what_it_should(status, keep && !is_right, &kept, &missing);
        self.kept = kept;
        self.count(status, is_right);
    }

    /// Exit 3, for reasons that are servers'.
    #[track_caller]
    fn is_short_of_blocks(&self, output: &Output) {
        let first = output.stderr.starts_with("psync: get ");
        let mut rest = output.stderr.lines().skip(1);
        assert!(output.status == 3 && output.stdout.is_empty(), "{output}");
        assert!(
            first && rest.all(|line| line.starts_with("psync: ask http://")),
            "{output}"
        );
    }

    #[track_caller]
    fn all_or_nothing(&self, status: i32, was_right: bool, before: Option<&[u8]>) {
        let after = fs::read(&self.home.file).ok();
        let is_right = after.as_deref() == Some(self.version().bytes());
        let is_old = after.as_deref() == before;
        // One that was killed may have been done.
        assert!(
            is_right && status != 3 || is_old && status != 0 || was_right,
            "FILE after {status}"
        );
        let mut beside = names(self.home.file.parent().unwrap());
        beside
            .retain(|name| name != "file" && (name != "file.part" || (status == 0 && !was_right)));
        assert!(beside.is_empty(), "{beside:?} after {status}");
        assert!(names(&self.home.tmp).is_empty());
        assert_eq!(names(&self.home.dir), ["blocks", "out", "tmp"]);
    }

    /// Nothing was kept that was not to be; what was fetched was.
    #[track_caller]
    fn kept_what_it_should(&self, status: i32, keep: bool, after: &Hashes, missing: &Hashes) {
        let before = &self.kept;
        let came: Hashes = after.difference(before).cloned().collect();
        let version = self.version();
        // Its lists too where they need not be fetched: who passes a file on passes them on.
        let mut may_come: Hashes = version.all.difference(&version.blocks).cloned().collect();
        may_come.extend(missing.iter().cloned());
        let gone: Vec<_> = before.difference(after).collect();
        assert!(
            came.is_subset(&may_come) && gone.is_empty(),
            "{came:?} {gone:?}"
        );
        assert!(keep || came.is_empty(), "{came:?}");
        if keep && status != 137 {
            assert!(strangers(&self.home.blocks).is_empty());
        }
        if keep && status == 0 {
            assert!(missing.is_subset(&came), "{missing:?} {came:?}");
        }
    }

    fn count(&mut self, status: i32, was_right: bool) {
        let counts = &mut self.counts;
        match status {
            0 if was_right => counts.nothing_to_do += 1,
            0 => counts.done += 1,
            137 => counts.killed += 1,
            _ => counts.missing += 1,
        }
        if status == 0 {
            counts.versions.insert(self.now);
        }
    }

    fn with_a_server_killed(&mut self, line: Run, after: u64) -> Output {
        let slot = self.dice.below(SLOTS);
        let running = line.start();
        // When the server goes is part of the dice, and any instant will do.
        thread::sleep(Duration::from_millis(after));
        self.others.slots[slot] = Serving::Nothing;
        running.wait()
    }

    /// While it waits for its first server, another comes to an end.
    fn overlapped(&mut self, by_root: bool, keep: bool) -> Output {
        self.counts.overlapped += 1;
        let (go, root) = (
            Arc::new(AtomicBool::new(false)),
            self.version().rooted.root.clone(),
        );
        let (told, first) = (Arc::clone(&go), root.clone());
        // The root itself is asked for before FILE is locked.
        let gate = HostileServer::http(move |request| {
            if request.hash() != first {
                wait_until("it may go on", || told.load(SeqCst));
            }
            Reply::status(404, "")
        });
        let running = self
            .line(by_root, keep, Some(&gate))
            .arg("--timeout=20")
            .start();
        wait_until("it asks", || {
            gate.targets().iter().any(|target| target[1..] != root)
        });
        let told = format!(
            "psync: write {}: another psync is writing it\n",
            self.home.part().display()
        );
        self.line(by_root, keep, None).run().fails(1, &told);
        go.store(true, SeqCst);
        running.wait()
    }

    /// What serves the box's block directory gives what is in it, and never what has rotted there.
    #[track_caller]
    fn neighbour_tells_no_lie(&self, neighbour: &Server) {
        let wanted: Vec<_> = self.version().all.iter().collect();
        let nobody = String::new();
        let expected = frames(
            &self.version().rooted.map(),
            wanted
                .iter()
                .map(|&hash| self.kept.get(hash).unwrap_or(&nobody)),
        );
        let list: String = wanted.iter().map(|hash| format!("{hash}\n")).collect();
        let answer = Client::connect(neighbour.addr())
            .send(post(&list))
            .response();
        assert!(answer.status == 200 && answer.body == expected);
    }

    /// In the evening everything is there once more.
    fn evening(&mut self) {
        self.others.slots[0] = self.others.blocks_server(0, self.now);
        // So that there is something to do, and what the dead left is removed.
        fs::remove_file(&self.home.file).unwrap();
        for name in names(&self.home.blocks) {
            fs::remove_file(self.home.blocks.join(name)).unwrap();
        }
        let _ = fs::remove_file(self.home.part());
        self.line(true, true, None).run().ok();
        assert!(fs::read(&self.home.file).unwrap() == self.version().bytes());
        assert_eq!(names(self.home.file.parent().unwrap()), ["file"]);
        assert_eq!(
            names(&self.home.blocks).into_iter().collect::<Hashes>(),
            self.version().all
        );
    }
}

fn killed_after(line: Run, after: u64) -> Output {
    let mut running = line.start();
    // When it is killed is part of the dice, and any instant will do.
    thread::sleep(Duration::from_millis(after));
    if running.is_alive() {
        running.kill()
    } else {
        running.wait()
    }
}

#[test]
#[ignore = "takes minutes"]
fn slow_a_day_of_cron_keeps_file_right_whatever_becomes_of_its_servers() {
    let started = Instant::now();
    let mut day = Day::new();
    // Serves all day what the runs keep.
    let neighbour = Server::of(day_long(psync!(
        "server",
        "-d",
        &day.home.blocks,
        "127.0.0.1:0"
    )));
    let mut held = Vec::new();
    for run in 0..RUNS {
        day.run = run;
        day.pass();
        day.cron();
        day.neighbour_tells_no_lie(&neighbour);
        if (run + 1) % A_QUARTER == 0 {
            wait_until("the neighbour is idle", || threads(neighbour.pid()) == 1);
            held.push(Held::of(neighbour.pid()));
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("{} runs, {seconds:.1} s: {:?}", run + 1, day.counts);
        }
    }
    day.evening();
    eprintln!(
        "seed {}: {RUNS} runs in {:.1} s, servers changed {} times; the neighbour: {held:?}",
        day.seed.0,
        started.elapsed().as_secs_f64(),
        day.counts.changes
    );
    // Neither was all well, nor nothing.
    let counts = &day.counts;
    assert!(
        counts.done > RUNS / 20 && counts.missing > RUNS / 20,
        "{counts:?}"
    );
    assert!(counts.killed > 0 && counts.overlapped > 0, "{counts:?}");
    let (morning, evening) = (held[0], held[held.len() - 1]);
    assert!(evening.descriptors <= morning.descriptors);
    assert!(evening.resident_kib <= morning.resident_kib + GROWTH_KIB);
}

/// What may become of a block's file. Each leaves something that is not the block.
fn spoil(path: &Path, dice: &mut Dice) {
    let whole = fs::read(path).unwrap();
    match dice.below(5) {
        0 => fs::remove_file(path).unwrap(),
        // What a power cut may leave.
        1 => fs::write(path, "").unwrap(),
        2 => fs::write(path, &whole[..whole.len() - 1]).unwrap(),
        3 => fs::write(path, [&whole[..], b"x"].concat()).unwrap(),
        _ => Home::rot(path, dice),
    }
}

/// Blocks that may be spoilt between two runs.
const MOST_SPOILT: usize = 20;

/// `get --keep` whose output nobody needs: it reads every block that is kept, and fetches those that
/// are none. Some of the runs are killed; the next heals all the same.
#[test]
#[ignore = "takes a minute"]
fn slow_a_mirror_that_rots_heals_itself_run_after_run() {
    let (started, seed) = (Instant::now(), Seeded::new());
    let mut dice = Dice::new(seed.0);
    let (dir, home) = (TempDir::new(), Home::new());
    let versions = Version::all_of(&dir, &mut dice);
    let (mut healed, mut killed) = (0, 0);
    for run in 0..RUNS {
        let version = &versions[run / BETWEEN_VERSIONS];
        let by_root = dice.below(2) == 0;
        let wanted = if by_root {
            &version.all
        } else {
            &version.blocks
        };
        let (kept, hashes) = (home.kept(), wanted.iter().collect::<Vec<_>>());
        for _ in 0..dice.below(MOST_SPOILT) {
            let path = home.blocks.join(hashes[dice.below(hashes.len())]);
            if path.exists() && fs::metadata(&path).unwrap().len() > 0 {
                spoil(&path, &mut dice);
            }
        }
        let spoilt = kept.difference(&home.kept()).count();
        let lacks: Hashes = wanted.difference(&home.kept()).cloned().collect();
        let origin = HostileServer::psync(version.rooted.map());
        let get = psync!("get", "--keep", "-d", &home.blocks, origin.to_string());
        let get = match by_root {
            true => get.arg(&version.rooted.root),
            false => get.arg(&version.list),
        };
        let get = get.stdout_to(File::create("/dev/null").unwrap());
        let output = match dice.below(8) {
            0 => killed_after(get, dice.below(25) as u64),
            _ => get.run(),
        };
        if output.status == 137 {
            killed += 1;
            continue;
        }
        output.ok();
        assert_eq!(
            origin.asked().into_iter().collect::<Hashes>(),
            lacks,
            "run {run}"
        );
        let kept = home.kept();
        assert!(
            wanted.is_subset(&kept) && strangers(&home.blocks).is_empty(),
            "run {run}"
        );
        healed += spoilt;
    }
    let all = versions.iter().flat_map(|version| version.all.clone());
    assert!(home.kept().is_subset(&all.collect()));
    eprintln!(
        "seed {}: {RUNS} runs in {:.1} s, {healed} blocks healed, {killed} killed",
        seed.0,
        started.elapsed().as_secs_f64()
    );
    assert!(healed > RUNS && killed > 0);
}
