//! Runs a target on mutated bytes, for a time or so many times: `fuzz TARGET [SECONDS|COUNTx [SEED]]`; or on
//! files as they are: `fuzz TARGET FILE...`. What makes it panic is left in `crash-TARGET`, to be run again.

use std::env;
use std::fs;
use std::panic;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use psync_fuzz::mutate::{Dice, mutate};
use psync_fuzz::{TARGETS, Target, clean};

const USAGE: &str = "fuzz TARGET [SECONDS|COUNTx [SEED]] or fuzz TARGET FILE...";

/// When it is enough.
enum Limit {
    Time(Duration),
    Runs(u64),
}

impl Limit {
    fn parse(word: &str) -> Option<Limit> {
        match word.strip_suffix('x') {
            Some(count) => count.parse().ok().map(Limit::Runs),
            None => word.parse().ok().map(Duration::from_secs).map(Limit::Time),
        }
    }

    fn is_reached(&self, start: Instant, count: u64) -> bool {
        match *self {
            // The clock is asked now and then only.
            Limit::Time(time) => count.is_multiple_of(16) && start.elapsed() >= time,
            Limit::Runs(most) => count >= most,
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some(target) = TARGETS
        .iter()
        .find(|target| words.first().is_some_and(|w| w == target.name))
    else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("{USAGE}; targets: {names:?}");
        return ExitCode::from(2);
    };
    let limit = words.get(1).map_or("10", String::as_str);
    let seed = words.get(2).map_or(Ok(0), |word| word.parse());
    let done = match (Limit::parse(limit), seed) {
        (Some(limit), Ok(seed)) => fuzz(target, &limit, seed),
        (Some(_), Err(_)) => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        (None, _) => {
            for file in &words[1..] {
                (target.run)(&fs::read(file).expect("a file"));
            }
            ExitCode::SUCCESS
        }
    };
    clean();
    done
}

fn fuzz(target: &Target, limit: &Limit, seed: u64) -> ExitCode {
    let good = (target.good)();
    for good in &good {
        (target.run)(good);
    }
    let (mut dice, mut data) = (Dice::new(seed), Vec::new());
    let (start, mut count, mut accepted) = (Instant::now(), 0, 0);
    while !limit.is_reached(start, count) {
        mutate(&good, &mut dice, &mut data);
        let Ok(is_accepted) = panic::catch_unwind(|| (target.run)(&data)) else {
            let file = format!("crash-{}", target.name);
            let kept = fs::write(&file, &data);
            eprintln!(
                "{}: wrong after {count} runs, seed {seed}: {file} ({kept:?})",
                target.name
            );
            return ExitCode::FAILURE;
        };
        count += 1;
        accepted += u64::from(is_accepted);
    }
    let share = accepted * 100 / count.max(1);
    println!(
        "{}: {count} runs in {:?}, seed {seed}, {share} % accepted",
        target.name,
        start.elapsed()
    );
    if target.accepted.contains(&share) {
        ExitCode::SUCCESS
    } else {
        eprintln!("{}: not within {:?} %", target.name, target.accepted);
        ExitCode::FAILURE
    }
}
