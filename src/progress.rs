//! The progress line: what a person at a terminal sees of a long run. Draws through `console`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::block::BLOCK_SIZE;
use crate::console;

/// Between two drawings.
const TICK: Duration = Duration::from_millis(200);

/// Where nobody watches there is nothing to wake up for.
const NEVER: Duration = Duration::from_secs(3600);

/// The rate is that of so many ticks: five seconds.
const SAMPLES: usize = 25;

pub struct Progress {
    watched: bool,
    drawn: Option<Instant>,
    /// When how many blocks were done.
    samples: VecDeque<(Instant, u64)>,
}

impl Progress {
    /// Draws only where that is `wanted` and somebody watches; `to_stdout` if data goes there.
    pub fn new(wanted: bool, to_stdout: bool) -> Self {
        let watched = wanted && console::is_watched(to_stdout);
        Progress {
            watched,
            drawn: None,
            samples: VecDeque::new(),
        }
    }

    /// How long to wait before the next drawing is due.
    pub fn tick(&self) -> Duration {
        if self.watched { TICK } else { NEVER }
    }

    /// Draws, unless the last drawing is recent: `done` blocks of `total`, and `more` to say.
    pub fn draw(&mut self, done: u64, total: Option<u64>, more: impl FnOnce() -> String) {
        if !self.watched {
            return;
        }
        let now = Instant::now();
        if self.drawn.is_some_and(|drawn| now - drawn < TICK) {
            return;
        }
        self.drawn = Some(now);
        self.samples.push_back((now, done));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0.0, |&(then, before)| {
            let seconds = (now - then).as_secs_f64();
            if seconds > 0.0 {
                (done - before) as f64 / seconds
            } else {
                0.0
            }
        });
        console::show_progress(&line(done, total, rate, &more()));
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

/// `rate` is in blocks a second.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for a person to read"
)]
fn line(done: u64, total: Option<u64>, rate: f64, more: &str) -> String {
    let mut line = match total {
        Some(total) => {
            let share = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!("{share:3} %  {done}/{total} blocks")
        }
        None => format!("{done} blocks"),
    };
    let tenths = (rate * BLOCK_SIZE as f64 / 1e5) as u64;
    line.push_str(&format!("  {}.{} MB/s", tenths / 10, tenths % 10));
    if let Some(left) = total
        .map(|total| total.saturating_sub(done))
        .filter(|_| rate > 0.0)
    {
        let seconds = (left as f64 / rate) as u64;
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
        assert_eq!(
            line(50, Some(200), 10.0, "5 at hand"),
            " 25 %  50/200 blocks  0.0 MB/s  0:15 left  5 at hand"
        );
        assert_eq!(line(1000, None, 2500.0, ""), "1000 blocks  10.2 MB/s");
        assert_eq!(line(0, Some(0), 0.0, ""), "100 %  0/0 blocks  0.0 MB/s");
    }
}
