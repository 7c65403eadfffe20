//! Bytes that are nearly right: good ones, flipped, cut, spliced, repeated. The same for the same
//! seed, and nothing but std.

/// xorshift64*.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Seeds next to each other shall not begin alike, and 0 would stay 0.
        Dice(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The same for the same bytes, which stay as they are.
    pub fn of(bytes: &[u8]) -> Self {
        let add = |sum: u64, &byte: &u8| sum.wrapping_mul(31).wrapping_add(byte.into());
        Dice::new(bytes.iter().fold(0, add))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Less than `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap_or(0) % limit
    }
}

/// Bytes that mean something in one format or another.
const MARKS: &[u8] = b"\r\n\r\n \t:/.,%?#*0159\0\x0b\x0c\x7f\x80\xffHGPTafAF\x10;=+-";

/// Puts into `out` one of `good`, changed in one to four places, or in none.
pub fn mutate(good: &[impl AsRef<[u8]>], dice: &mut Dice, out: &mut Vec<u8>) {
    let pick = |dice: &mut Dice| good[dice.below(good.len())].as_ref();
    out.clear();
    out.extend_from_slice(pick(dice));
    for _ in 0..dice.below(5) {
        let at = dice.below(out.len() + 1);
        let rest = out.len() - at;
        let some = dice.below(rest.min(40) + 1);
        match dice.below(9) {
            0 if rest > 0 => out[at] ^= 1 << dice.below(8),
            1 if rest > 0 => out[at] = MARKS[dice.below(MARKS.len())],
            2 => out.insert(at, MARKS[dice.below(MARKS.len())]),
            3 => out.insert(at, dice.next().to_le_bytes()[0]),
            4 => out.truncate(at),
            5 => drop(out.drain(at..at + some)),
            // Some of it once more, or many times.
            6 => {
                let times = if dice.below(40) == 0 { 600 } else { 1 };
                let part = out[at..at + some].repeat(times);
                out.splice(at..at, part);
            }
            // The end, or a part, of another.
            7 => {
                let other = pick(dice);
                out.truncate(at);
                out.extend_from_slice(&other[dice.below(other.len() + 1)..]);
            }
            _ => {
                let other = pick(dice);
                let from = dice.below(other.len() + 1);
                let to = from + dice.below((other.len() - from).min(80) + 1);
                out.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}
