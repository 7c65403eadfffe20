//! The progress line: what a person at a terminal sees of a long run.
//!
//! This file owns its wording and its pace. `console` draws it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::block::BLOCK_SIZE;
use crate::console;

/// Between two drawings.
const TICK: Duration = Duration::from_millis(200);

/// Where nobody watches there is nothing to wake up for.
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
        let rate = Rate {
            blocks: done - before,
            millis: u64::try_from((now - then).as_millis()).unwrap_or(0),
        };
        console::show_progress(&line(done, total, &rate, &more()));
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

/// Blocks, and the milliseconds that they took.
struct Rate {
    blocks: u64,
    millis: u64,
}

fn line(done: u64, total: Option<u64>, rate: &Rate, more: &str) -> String {
    let mut line = match total {
        Some(total) => {
            let share = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!("{share:3} %  {done}/{total} blocks")
        }
        None => format!("{done} blocks"),
    };
    let bytes = rate.blocks * BLOCK_SIZE as u64;
    let tenths = bytes.checked_div(rate.millis * 100).unwrap_or(0);
    line.push_str(&format!("  {}.{} MB/s", tenths / 10, tenths % 10));
    let left = total.map(|total| total.saturating_sub(done) * rate.millis);
    if let Some(seconds) = left.and_then(|left| left.checked_div(rate.blocks * 1000)) {
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
        let rate = |blocks| Rate {
            blocks,
            millis: 1000,
        };
        assert_eq!(
            line(50, Some(200), &rate(10), "5 at hand"),
            " 25 %  50/200 blocks  0.0 MB/s  0:15 left  5 at hand"
        );
        assert_eq!(line(1000, None, &rate(2500), ""), "1000 blocks  10.2 MB/s");
        let none = Rate {
            blocks: 0,
            millis: 0,
        };
        assert_eq!(line(0, Some(0), &none, ""), "100 %  0/0 blocks  0.0 MB/s");
    }
}
