//! A running program seen from outside, by its process id: signals, and what /proc counts.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{Output, Run, need, tool};

/// `signal(pid, "STOP")`.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    assert!(
        Command::new(need("sh"))
            .arg("-c")
            .arg(&kill)
            .status()
            .unwrap()
            .success(),
        "{kill}"
    );
}

pub fn threads(pid: u32) -> usize {
    count(pid, "task")
}

pub fn descriptors(pid: u32) -> usize {
    count(pid, "fd")
}

pub fn resident_kib(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most it ever had in memory.
pub fn peak_kib(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

impl Run {
    /// Runs it, and returns what came of it with the most memory that it took, in KiB.
    #[track_caller]
    pub fn measured(self) -> (Output, u64) {
        let mut out = self.under("/usr/bin/time", ["-f", "%M"]).run();
        // Where the status is not 0, there is a line that says so before it.
        let last = out.stderr.trim_end().rfind('\n').map_or(0, |end| end + 1);
        let peak = out.stderr.split_off(last);
        let peak = peak.trim().parse().unwrap_or_else(|_| panic!("{out}"));
        (out, peak)
    }
}

/// Processor time so far, user and system, in ticks (hundredths of a second).
#[track_caller]
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The program's name stands in parentheses and may hold anything; utime is field 14, state 3.
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum()
}

/// Many clients need many descriptors, here and in the servers started here.
#[track_caller]
pub fn raise_descriptors() {
    let pid = std::process::id().to_string();
    tool!("prlimit", "--pid", pid, "--nofile=4096:").run().ok();
}

/// Far above what any state takes to come on a machine that does much besides: a test that passes
/// waits for the state alone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns once it holds; fails after a minute.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn count(pid: u32, what: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count()
}

#[track_caller]
fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let Some(line) = line else {
        panic!("process {pid} has ended")
    };
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
