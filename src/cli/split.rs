//! Options as people type them: `--jobs 8`, `--jobs=8`, `-j 8`, `-j8`, `-qj8`, `-kqo FILE`.
//!
//! This file owns these forms. One pass over a command's words, in order and by the table of the
//! command's options, splits them: each option is then a word of its own under its long name, its
//! value the next word. A word after an option that takes a value is that value whatever it looks
//! like, so no value is ever taken for an option, nor for the `--` that ends them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::vec::IntoIter;

/// What stands before each value in [`Split::options`]: no option begins so.
const MARK: u8 = b'=';

/// One option of a command: its letter, if it has one, its name, and what it takes.
pub struct Spec(pub Option<u8>, pub &'static str, pub Takes);

#[derive(Clone, Copy, PartialEq)]
pub enum Takes {
    Nothing,
    /// A value: the rest of the word, or else the next one.
    Value,
    /// Nothing, or a value within the word: `--lan`, `--lan=ADDR`. With its value the option goes by
    /// its name and a `=`.
    Inline,
}

/// A command's words, told apart.
#[derive(Default)]
pub struct Split {
    /// Long names, each followed by its value, if it has one, behind a mark: see [`value`].
    pub options: Vec<OsString>,
    pub operands: Vec<OsString>,
    /// The first thing that is wrong. What follows is split all the same: it may ask for help.
    pub problem: Option<String>,
}

/// Splits the words of a command that has the options of these tables.
pub fn split(words: Vec<OsString>, tables: &[&[Spec]]) -> Split {
    let mut split = Split::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let taken = match word.as_bytes() {
            b"--" => {
                split.operands.extend(words);
                break;
            }
            [b'-', b'-', ..] => split.long(&word, &mut words, tables),
            [b'-', _, ..] => split.letters(&word, &mut words, tables),
            _ => {
                split.operands.push(word);
                continue;
            }
        };
        if let Err(problem) = taken {
            split.problem.get_or_insert(problem);
        }
    }
    split
}

/// A value without its mark.
pub fn value(marked: &OsStr) -> OsString {
    let bytes = marked.as_bytes();
    OsStr::from_bytes(bytes.strip_prefix(&[MARK]).unwrap_or(bytes)).to_owned()
}

impl Split {
    /// Takes `--name`, `--name=value` or `--name value`.
    fn long(
        &mut self,
        word: &OsStr,
        words: &mut IntoIter<OsString>,
        tables: &[&[Spec]],
    ) -> Result<(), String> {
        let bytes = word.as_bytes();
        let end = bytes.iter().position(|&c| c == b'=');
        let (name, within) = bytes.split_at(end.unwrap_or(bytes.len()));
        let within = within.get(1..);
        let found = find(tables, |Spec(_, known, _)| known.as_bytes() == name);
        match (found, within) {
            (Some(Spec(_, name, Takes::Value)), Some(value)) => self.valued(name, value),
            (Some(Spec(_, name, Takes::Value)), None) => self.next(name, words, name)?,
            (Some(Spec(_, name, Takes::Inline)), Some(value)) => {
                self.valued(&format!("{name}="), value);
            }
            (Some(Spec(_, name, _)), None) => self.options.push(name.into()),
            _ => return Err(format!("unknown option '{}'", word.display())),
        }
        Ok(())
    }

    /// Takes `-abc`: letters, of which the first that takes a value has the rest of the word, or else
    /// the next one.
    fn letters(
        &mut self,
        word: &OsStr,
        words: &mut IntoIter<OsString>,
        tables: &[&[Spec]],
    ) -> Result<(), String> {
        let bytes = word.as_bytes();
        for (at, letter) in bytes.iter().enumerate().skip(1) {
            let found = find(tables, |Spec(known, ..)| known.as_ref() == Some(letter));
            match (found, &bytes[at + 1..]) {
                (Some(Spec(_, name, Takes::Value)), []) => {
                    return self.next(name, words, &format!("-{}", char::from(*letter)));
                }
                (Some(Spec(_, name, Takes::Value)), value) => {
                    self.valued(name, value);
                    return Ok(());
                }
                (Some(Spec(_, name, _)), _) => self.options.push(name.into()),
                (None, _) => return Err(unknown_letter(word, at)),
            }
        }
        Ok(())
    }

    /// Takes the next word as the value of the option that was typed so.
    fn next(
        &mut self,
        name: &str,
        words: &mut IntoIter<OsString>,
        typed: &str,
    ) -> Result<(), String> {
        let value = words
            .next()
            .ok_or_else(|| format!("{typed}: its value is missing"))?;
        self.valued(name, value.as_bytes());
        Ok(())
    }

    fn valued(&mut self, name: &str, value: &[u8]) {
        let marked = [&[MARK], value].concat();
        self.options
            .extend([name.into(), OsString::from_vec(marked)]);
    }
}

fn find<'a>(tables: &[&'a [Spec]], is_it: impl Fn(&Spec) -> bool) -> Option<&'a Spec> {
    tables.iter().copied().flatten().find(|spec| is_it(spec))
}

/// Names the letter that begins at this byte, and the word unless there is nothing else in it.
fn unknown_letter(word: &OsStr, at: usize) -> String {
    let rest = OsStr::from_bytes(&word.as_bytes()[at..]).to_string_lossy();
    let option: String = ['-'].into_iter().chain(rest.chars().take(1)).collect();
    match word == option.as_str() {
        true => format!("unknown option '{option}'"),
        false => format!("unknown option '{option}' in '{}'", word.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &[Spec] = &[Spec(Some(b'h'), "--help", Takes::Nothing)];
    const TABLE: &[Spec] = &[
        Spec(Some(b'j'), "--jobs", Takes::Value),
        Spec(Some(b'k'), "--keep", Takes::Nothing),
        Spec(None, "--lan", Takes::Inline),
        Spec(Some(b'o'), "--output", Takes::Value),
        Spec(Some(b'q'), "--quiet", Takes::Nothing),
    ];

    fn of<W: AsRef<[u8]>>(words: &[W]) -> Split {
        let words = words.iter().map(|word| word.as_ref().to_vec());
        split(words.map(OsString::from_vec).collect(), &[COMMON, TABLE])
    }

    /// Words, the options that come of them, and the operands.
    #[test]
    fn each_form_is_the_same_option() {
        for (words, options, operands) in [
            ("", "", ""),
            ("--jobs 8 x", "--jobs =8", "x"),
            ("--jobs=8 x", "--jobs =8", "x"),
            ("-j 8 x", "--jobs =8", "x"),
            ("-j8 x", "--jobs =8", "x"),
            ("x -qj8", "--quiet --jobs =8", "x"),
            ("-kqo file x", "--keep --quiet --output =file", "x"),
            ("-kqofile x", "--keep --quiet --output =file", "x"),
            ("-k -q -kk", "--keep --quiet --keep --keep", ""),
            ("-qh -x", "--quiet --help", ""),
            // All after the letter is the value, as getopt has it.
            ("-o=x", "--output ==x", ""),
            ("-okq", "--output =kq", ""),
            ("-oo", "--output =o", ""),
            ("--output==x=", "--output ==x=", ""),
            ("--output=", "--output =", ""),
            // The word after an option that takes a value is its value.
            ("-o -k x", "--output =-k", "x"),
            ("-o -- x -k", "--output =-- --keep", "x"),
            ("-qo --help", "--quiet --output =--help", ""),
            ("--output --output --output", "--output =--output", ""),
            ("-o - -", "--output =-", "-"),
            ("-o =k -k", "--output ==k --keep", ""),
            ("-o", "", ""),
            ("-- -k --", "", "-k --"),
            ("-k -- -o", "--keep", "-o"),
            ("--lan 10.0.0.1 x", "--lan", "10.0.0.1 x"),
            ("--lan=10.0.0.1 x", "--lan= =10.0.0.1", "x"),
            ("--lan= x", "--lan= =", "x"),
        ] {
            let list: Vec<_> = words.split_whitespace().collect();
            let done = of(&list);
            let shown = |words: Vec<OsString>| words.join(OsStr::new(" ")).into_string().unwrap();
            assert_eq!(shown(done.options), options, "{words}");
            assert_eq!(shown(done.operands), operands, "{words}");
        }
        let empty = of(&["-o", "", ""]);
        assert_eq!(
            (empty.options, empty.operands),
            (vec!["--output".into(), "=".into()], vec!["".into()])
        );
        assert!(empty.problem.is_none());
    }

    #[test]
    fn a_value_is_the_bytes_that_were_typed() {
        for value_typed in [
            &b"\xff"[..],
            b"=",
            b"-",
            b"--",
            b"--quiet",
            b"=\xff=",
            b"\n",
        ] {
            let joined = [b"-o", value_typed].concat();
            let long = [b"--output=", value_typed].concat();
            let rows: [&[&[u8]]; 4] = [
                &[b"-o", value_typed],
                &[b"--output", value_typed],
                &[&joined],
                &[&long],
            ];
            for row in rows {
                let done = of(row);
                assert_eq!(done.options[0], "--output", "{row:?}");
                assert_eq!(value(&done.options[1]).as_bytes(), value_typed, "{row:?}");
                assert_eq!((done.options.len(), done.problem), (2, None), "{row:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_as_it_was_typed() {
        for (words, problem) in [
            (&["-x"][..], "unknown option '-x'"),
            (&["-qxj8"], "unknown option '-x' in '-qxj8'"),
            (&["-xq"], "unknown option '-x' in '-xq'"),
            (&["-qx"], "unknown option '-x' in '-qx'"),
            (&["-q=x"], "unknown option '-=' in '-q=x'"),
            (&["-q-"], "unknown option '--' in '-q-'"),
            (&["-é"], "unknown option '-é'"),
            (&["-qéa"], "unknown option '-é' in '-qéa'"),
            (&["--frob"], "unknown option '--frob'"),
            (&["--frob=x"], "unknown option '--frob=x'"),
            (&["--quiet=x"], "unknown option '--quiet=x'"),
            (&["--quiet="], "unknown option '--quiet='"),
            (&["--=x"], "unknown option '--=x'"),
            (&["--out", "x"], "unknown option '--out'"),
            (&["---"], "unknown option '---'"),
            (&["-o"], "-o: its value is missing"),
            (&["-qo"], "-o: its value is missing"),
            (&["--output"], "--output: its value is missing"),
            // The first of several.
            (&["-x", "--frob", "-o"], "unknown option '-x'"),
        ] {
            assert_eq!(of(words).problem.as_deref(), Some(problem));
            // Help is given all the same, unless it is a value.
            let asked = [words, &["--help"]].concat();
            let is_value = ["-o", "-qo", "--output"].contains(words.last().unwrap());
            assert_eq!(of(&asked).options.contains(&"--help".into()), !is_value);
        }
        let bytes = of(&[b"-q\xff"]).problem.unwrap();
        assert_eq!(bytes, "unknown option '-\u{fffd}' in '-q\u{fffd}'");
    }
}
