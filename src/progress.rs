//! The progress line: what a person at a terminal sees of a long run.
//!
//! This file owns its wording and its pace. `console` draws it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::block::BLOCK_SIZE;
use crate::console;

/// Between two drawings.
const TICK: Duration = Duration::from_millis(200);

/// The time between two drawings where no person watches: long, so that nothing wakes up for them.
const NEVER: Duration = Duration::from_secs(3600);

/// Ticks that the rate is measured over: five seconds.
const SAMPLES: usize = 25;

pub struct Progress {
    watched: bool,
    /// The last drawings: when, and how many blocks were done.
    samples: VecDeque<(Instant, u64)>,
}

impl Progress {
    /// Draws only where the caller wants that and somebody watches. `to_stdout`: data goes there.
    pub fn new(wanted: bool, to_stdout: bool) -> Self {
        Progress {
            watched: wanted && console::is_watched(to_stdout),
            samples: VecDeque::new(),
        }
    }

    /// How long to wait before the next drawing is due.
    pub fn tick(&self) -> Duration {
        if self.watched { TICK } else { NEVER }
    }

    /// Draws, unless the last drawing is recent: `done` blocks of `total`, and `more`.
    pub fn draw(&mut self, done: u64, total: Option<u64>, more: impl FnOnce() -> String) {
        let last = self.samples.back();
        if !self.watched || last.is_some_and(|(drawn, _)| drawn.elapsed() < TICK) {
            return;
        }
        let now = Instant::now();
        self.samples.push_back((now, done));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        let (then, before) = self.samples[0];
        let line = line(done, total, done - before, now - then, &more());
        console::show_progress(&line);
    }
}

impl Drop for Progress {
    /// Takes the line away.
    fn drop(&mut self) {
        if self.watched {
            console::show_progress("");
        }
    }
}

/// The rate is that of the `recent` blocks, which took `time`.
fn line(done: u64, total: Option<u64>, recent: u64, time: Duration, more: &str) -> String {
    let mut line = match total {
        Some(total) => {
            let share = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!("{share:3} %  {done}/{total} blocks")
        }
        None => format!("{done} blocks"),
    };
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    let bytes = recent * BLOCK_SIZE as u64;
    let tenths = bytes.checked_div(millis * 100).unwrap_or(0);
    line.push_str(&format!("  {}.{} MB/s", tenths / 10, tenths % 10));
    let left = total.map(|total| total.saturating_sub(done) * millis);
    if let Some(seconds) = left.and_then(|left| left.checked_div(recent * 1000)) {
        line.push_str(&format!("  {}:{:02} left", seconds / 60, seconds % 60));
    }
    if !more.is_empty() {
        line.push_str("  ");
        line.push_str(more);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_share_rate_time_left_and_more() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(50, Some(200), 10, second, "5 at hand"),
            " 25 %  50/200 blocks  0.0 MB/s  0:15 left  5 at hand"
        );
        assert_eq!(line(1000, None, 2500, second, ""), "1000 blocks  10.2 MB/s");
        assert_eq!(
            line(0, Some(0), 0, Duration::ZERO, ""),
            "100 %  0/0 blocks  0.0 MB/s"
        );
    }
}
