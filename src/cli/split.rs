//! Options as people type them: `--jobs 8`, `--jobs=8`, `-j 8`, `-j8`, `-qj8`, `-kqo FILE`.
//!
//! This file owns these forms. The help text of a command is the definition of its options. One pass
//! over the command's words, in order, splits them: each option is then a word of its own under its long
//! name, its value the next word. The word after an option that takes a value is that value whatever it
//! looks like, so no value is ever taken for an option, nor for the `--` that ends them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::vec::IntoIter;

/// Stands before each value in [`Split::options`]: no option begins so.
const MARK: &str = "=";

/// An option: its letter, if it has one, its name, and what it takes.
#[derive(Debug, PartialEq)]
pub struct Spec<'a>(pub Option<u8>, pub &'a str, pub Takes);

#[derive(Debug, PartialEq)]
pub enum Takes {
    Nothing,
    /// A value: the rest of the word, or else the next word.
    Value,
    /// Nothing, or a value within the word: `--lan`, `--lan=ADDR`. With its value the option goes by
    /// its name and a `=`.
    Inline,
}

/// A command's words, split.
#[derive(Default)]
pub struct Split {
    /// Long names, each followed by its value, if it has one, behind a mark: see [`value`].
    pub options: Vec<OsString>,
    pub operands: Vec<OsString>,
    /// The first problem. The words after it are split all the same: they may ask for help.
    pub problem: Option<String>,
    /// The words that are not yet split.
    rest: IntoIter<OsString>,
}

/// The options that a help text describes. Each begins a line, two spaces before its description:
/// `-j, --jobs N`. One that takes a value within its word is also described as `--lan=ADDR`.
pub fn described(help: &str) -> Vec<Spec<'_>> {
    let lines = help.lines().map(str::trim_start);
    let described = lines.filter(|line| line.starts_with('-'));
    let heads = described.filter_map(|line| line.split("  ").next());
    let specs = heads.map(|head| {
        let (letter, long) = head.split_once(", ").unwrap_or(("", head));
        let letter = letter.as_bytes().get(1).copied();
        match long.split_once(' ') {
            Some((name, _)) => Spec(letter, name, Takes::Value),
            None if help.contains(&format!("{long}=")) => Spec(letter, long, Takes::Inline),
            None => Spec(letter, long, Takes::Nothing),
        }
    });
    specs.collect()
}

/// Splits the words of a command that has these options.
pub fn split(words: Vec<OsString>, options: &[Spec]) -> Split {
    let mut split = Split {
        rest: words.into_iter(),
        ..Split::default()
    };
    while let Some(word) = split.rest.next() {
        let taken = match word.as_bytes() {
            b"--" => {
                split.operands.extend(split.rest.by_ref());
                Ok(())
            }
            [b'-', b'-', ..] => split.long(&word, options),
            [b'-', _, ..] => split.letters(&word, options),
            _ => {
                split.operands.push(word);
                Ok(())
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
    let value = bytes.strip_prefix(MARK.as_bytes()).unwrap_or(bytes);
    OsStr::from_bytes(value).to_owned()
}

impl Split {
    /// Takes `--name`, `--name=value` or `--name value`.
    fn long(&mut self, word: &OsStr, options: &[Spec]) -> Result<(), String> {
        let bytes = word.as_bytes();
        let end = bytes.iter().position(|&c| c == b'=');
        let (name, within) = bytes.split_at(end.unwrap_or(bytes.len()));
        let within = within.get(1..);
        let spec = options.iter().find(|Spec(_, known, takes)| {
            known.as_bytes() == name && (within.is_none() || *takes != Takes::Nothing)
        });
        let spec = spec.ok_or_else(|| format!("unknown option '{}'", word.display()))?;
        self.take(spec, within, spec.1)
    }

    /// Takes `-abc`: letters, of which the first that takes a value has the rest of the word, or else
    /// the next word.
    fn letters(&mut self, word: &OsStr, options: &[Spec]) -> Result<(), String> {
        let bytes = word.as_bytes();
        for (at, letter) in bytes.iter().enumerate().skip(1) {
            let mut options = options.iter();
            let spec = options.find(|Spec(known, ..)| known.as_ref() == Some(letter));
            let spec = spec.ok_or_else(|| unknown_letter(word, at))?;
            if spec.2 == Takes::Value {
                let rest = Some(&bytes[at + 1..]).filter(|rest| !rest.is_empty());
                return self.take(spec, rest, &format!("-{}", char::from(*letter)));
            }
            self.options.push(spec.1.into());
        }
        Ok(())
    }

    /// Takes an option, which was `typed` so, with its value: the one `within` its word, or the next word.
    fn take(&mut self, spec: &Spec, within: Option<&[u8]>, typed: &str) -> Result<(), String> {
        let Spec(_, name, takes) = spec;
        let value = match (takes, within) {
            (Takes::Value, None) => {
                let next = self.rest.next();
                Some(next.ok_or_else(|| format!("{typed}: its value is missing"))?)
            }
            _ => within.map(|value| OsStr::from_bytes(value).to_owned()),
        };
        let is_inline = *takes == Takes::Inline && value.is_some();
        let end = if is_inline { "=" } else { "" };
        self.options.push(format!("{name}{end}").into());
        let marked = |value: OsString| [OsStr::new(MARK), &value].into_iter().collect();
        self.options.extend(value.map(marked));
        Ok(())
    }
}

/// Names the letter that begins at this byte, and the word unless the letter is all of it.
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
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const OPTIONS: &[Spec] = &[
        Spec(Some(b'j'), "--jobs", Takes::Value),
        Spec(Some(b'k'), "--keep", Takes::Nothing),
        Spec(None, "--lan", Takes::Inline),
        Spec(Some(b'o'), "--output", Takes::Value),
        Spec(Some(b'q'), "--quiet", Takes::Nothing),
        Spec(Some(b'h'), "--help", Takes::Nothing),
    ];

    #[test]
    fn a_help_text_defines_the_options() {
        let help = "\
Usage: get [OPTIONS] - or --so
    -j, --jobs N     at once [8]. By
                     N threads
    -k, --keep       what is fetched
        --lan        ask. --lan=ADDR: there
    -o, --output FILE
                     write it
    -q, --quiet      less
    -h, --help       this text
";
        assert_eq!(described(help), OPTIONS);
    }

    fn of<W: AsRef<[u8]>>(words: &[W]) -> Split {
        let words = words.iter().map(|word| word.as_ref().to_vec());
        split(words.map(OsString::from_vec).collect(), OPTIONS)
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
