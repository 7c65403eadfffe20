//! Runs a target on mutated bytes: `fuzz TARGET [SECONDS [SEED]]`, or on files as they are:
//! `fuzz TARGET FILE...`. What makes it panic is left in `crash-TARGET`, to be run again.

use std::env;
use std::fs;
use std::panic;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use psync_fuzz::mutate::{Dice, mutate};
use psync_fuzz::{TARGETS, Target, clean};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some(target) = TARGETS
        .iter()
        .find(|target| words.first().is_some_and(|w| w == target.name))
    else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("fuzz TARGET [SECONDS [SEED]] or fuzz TARGET FILE...; targets: {names:?}");
        return ExitCode::from(2);
    };
    let number = |at: usize| words.get(at).map(|word| word.parse::<u64>());
    let done = match number(1) {
        Some(Err(_)) => {
            for file in &words[1..] {
                (target.run)(&fs::read(file).expect("a file"));
            }
            ExitCode::SUCCESS
        }
        seconds => {
            let seconds = Duration::from_secs(seconds.map_or(10, Result::unwrap_or_default));
            fuzz(
                target,
                seconds,
                number(2).map_or(0, Result::unwrap_or_default),
            )
        }
    };
    clean();
    done
}

fn fuzz(target: &Target, time: Duration, seed: u64) -> ExitCode {
    let good = (target.good)();
    good.iter().for_each(|good| (target.run)(good));
    let (mut dice, mut data) = (Dice::new(seed), Vec::new());
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        // The clock is asked now and then only.
        for _ in 0..16 {
            mutate(&good, &mut dice, &mut data);
            if panic::catch_unwind(|| (target.run)(&data)).is_err() {
                let file = format!("crash-{}", target.name);
                let kept = fs::write(&file, &data);
                eprintln!(
                    "{}: wrong after {count} runs: {file} ({kept:?})",
                    target.name
                );
                return ExitCode::FAILURE;
            }
            count += 1;
        }
    }
    println!(
        "{}: {count} runs in {:?}, seed {seed}",
        target.name,
        start.elapsed()
    );
    ExitCode::SUCCESS
}
