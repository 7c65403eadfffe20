//! Rounds over the servers for blocks that failed.
//!
//! This file owns the number of rounds and the pause before each. It does not sleep itself.

use std::mem;
use std::time::Duration;

/// Longest pause before a round.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The rounds of one list or file.
pub struct Rounds {
    most: u32,
    /// Rounds in a row without a block.
    fruitless: u32,
    /// Whether the last round brought a block. A block that never failed does not count: else the rounds
    /// would wait for a silent server as long as others give.
    pub made_progress: bool,
}

impl Rounds {
    pub fn new(most: u32) -> Self {
        Rounds {
            most,
            fruitless: 0,
            made_progress: false,
        }
    }

    /// The pause before the next round; none after the last. It doubles after each round without a block.
    pub fn next(&mut self) -> Option<Duration> {
        if mem::take(&mut self.made_progress) {
            self.fruitless = 0;
        }
        if self.fruitless == self.most {
            return None;
        }
        let seconds = 1_u64.checked_shl(self.fruitless).unwrap_or(u64::MAX);
        self.fruitless += 1;
        Some(Duration::from_secs(seconds).min(MAX_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_bring_blocks_do_not_count() {
        let mut rounds = Rounds::new(2);
        let seconds = |rounds: &mut Rounds| rounds.next().map(|pause| pause.as_secs());
        assert_eq!(seconds(&mut rounds), Some(1));
        assert_eq!(seconds(&mut rounds), Some(2));
        rounds.made_progress = true;
        assert_eq!(seconds(&mut rounds), Some(1));
        assert_eq!(seconds(&mut rounds), Some(2));
        assert_eq!(seconds(&mut rounds), None);
        assert_eq!(Rounds::new(0).next(), None);
        let mut many = Rounds {
            fruitless: 70,
            ..Rounds::new(100)
        };
        assert_eq!(many.next(), Some(MAX_PAUSE));
    }
}
