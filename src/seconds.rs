//! Times as people write them, such as `0.3`: text to duration and back.
//!
//! This file owns that format. It computes in whole numbers: std's code for fractions brings 25 KB of tables
//! into the binary.

use std::fmt::{self, Display};
use std::iter;
use std::str::FromStr;
use std::time::Duration;

/// Digits after the point that count.
const DIGITS: usize = 9;

/// A time that reads and shows as seconds.
#[derive(PartialEq, PartialOrd)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = ();

    /// Takes digits with at most one point among them, and nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = || whole.bytes().chain(part.bytes());
        if digits().next().is_none() || !digits().all(|c| c.is_ascii_digit()) {
            return Err(());
        }
        let whole = if whole.is_empty() { "0" } else { whole };
        let nanos = part.bytes().chain(iter::repeat(b'0')).take(DIGITS);
        let nanos = nanos.fold(0, |sum, c| sum * 10 + u32::from(c - b'0'));
        let whole = whole.parse().map_err(drop)?;
        Ok(Seconds(Duration::new(whole, nanos)))
    }
}

impl Display for Seconds {
    /// Shows as many digits after the point as there are.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (whole, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        let part = format!("{nanos:09}");
        match part.trim_end_matches('0') {
            "" => whole.fmt(f),
            part => write!(f, "{whole}.{part}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows_seconds() {
        for (text, nanos, shown) in [
            ("30", 30_000_000_000, "30"),
            ("0.3", 300_000_000, "0.3"),
            ("1.50", 1_500_000_000, "1.5"),
            (".001", 1_000_000, "0.001"),
            ("7.", 7_000_000_000, "7"),
            ("0.1234567891", 123_456_789, "0.123456789"),
        ] {
            let seconds: Seconds = text.parse().unwrap();
            assert_eq!(seconds.0, Duration::from_nanos(nanos), "{text}");
            assert_eq!(seconds.to_string(), shown);
        }
        for wrong in [
            "",
            ".",
            "-1",
            "+1",
            "1e3",
            "1.2.3",
            "1 ",
            "inf",
            "18446744073709551616",
            "٣",
        ] {
            assert!(wrong.parse::<Seconds>().is_err(), "{wrong}");
        }
    }
}
