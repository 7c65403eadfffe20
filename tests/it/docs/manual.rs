//! The manual and the completions say what the help says: the same options, their values and numbers.
//! Completions are those of the real shells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::support::*;

const COMMANDS: [&str; 3] = ["export", "server", "get"];

fn share(name: &str) -> String {
    format!("{}/share/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// An option's short form, and its value's name.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    short: Option<String>,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    None,
    /// `--lan`, or `--lan=ADDR`.
    Optional(String),
    Needed(String),
}

/// Of a long option: what it is, and what is said of it.
type Options = BTreeMap<String, (Kind, String)>;

/// Reads `-s, --long VALUE`.
#[track_caller]
fn option(head: &str) -> (String, Kind) {
    let (short, long) = match head.split_once(", ") {
        Some((short, long)) => (Some(short.to_owned()), long),
        None => (None, head),
    };
    assert!(long.starts_with("--"), "{head}");
    let (long, value) = match (long.split_once("[="), long.split_once(' ')) {
        (Some((long, value)), _) => (long, Value::Optional(value.trim_end_matches(']').into())),
        (_, Some((long, value))) => (long, Value::Needed(value.into())),
        _ => (long, Value::None),
    };
    (long.to_owned(), Kind { short, value })
}

/// Reads a list of options: each begins at one of the columns of `heads`, and what is said of it
/// stands after two spaces, and in lines that begin further to the right than all of these.
#[track_caller]
fn options(text: &str, heads: &[usize]) -> Options {
    let mut options = Options::new();
    let mut last = None;
    for line in text.lines() {
        let item = line.trim_start();
        let column = line.len() - item.len();
        if item.starts_with('-') && heads.contains(&column) {
            let (head, said) = item.split_once("  ").unwrap_or((item, ""));
            let (long, kind) = option(head);
            assert!(!options.contains_key(&long), "{long} twice:\n{text}");
            options.insert(long.clone(), (kind, said.trim().to_owned()));
            last = Some(long);
        } else if heads.iter().all(|&head| column > head) {
            if let Some((_, said)) = last.as_ref().and_then(|long| options.get_mut(long)) {
                said.push(' ');
                said.push_str(item);
            }
        } else if !item.is_empty() {
            last = None;
        }
    }
    options
}

fn help_text(command: &str) -> String {
    let words = command.split_whitespace();
    psync!()
        .args(words)
        .arg("--help")
        .run()
        .ok()
        .text()
        .to_owned()
}

/// The options that the help of a command names.
#[track_caller]
fn help(command: &str) -> Options {
    let mut options = options(&help_text(command), &[4, 8]);
    assert!(options.len() >= 2, "{command}");
    for (long, (kind, said)) in &mut options {
        let within = said.split(&format!("{long}=")).nth(1);
        if let Some(name) = within.and_then(|rest| rest.split([':', ' ']).next()) {
            kind.value = Value::Optional(name.to_owned());
        }
    }
    options
}

/// The manual as text, each paragraph a line.
fn page() -> String {
    let page = tool!(
        "mandoc",
        "-T",
        "ascii",
        "-O",
        "width=1000",
        share("psync.1")
    );
    let mut text = String::new();
    for c in page.run().ok().text().chars() {
        // Bold and underlined characters are typed over others.
        match c {
            '\x08' => drop(text.pop()),
            c => text.push(c),
        }
    }
    text
}

/// What stands under this heading, up to the next of its kind.
#[track_caller]
fn under(page: &str, heading: &str) -> String {
    let depth = heading.len() - heading.trim_start().len();
    let is_heading = |line: &&str| {
        let indent = line.len() - line.trim_start().len();
        !line.is_empty() && indent <= depth
    };
    let mut lines = page.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no {heading} in:\n{page}");
    let lines: Vec<_> = lines.take_while(|line| !is_heading(line)).collect();
    lines.join("\n")
}

/// In one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn numbers(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    words
        .map(|word| word.trim_matches('.'))
        .filter(|word| word.bytes().any(|c| c.is_ascii_digit()))
        .collect()
}

#[test]
fn mandoc_finds_no_fault_in_the_page() {
    let out = tool!("mandoc", "-T", "lint", share("psync.1")).run();
    // Whose manuals this machine has says nothing of the page.
    let faults = out.text().lines();
    let faults: Vec<_> = faults
        .filter(|line| !line.contains("referenced manual not found"))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_page_says_of_each_option_what_help_says() {
    let page = page();
    let common = options(&under(&page, "   Options of every command"), &[5]);
    let kinds = |options: &Options| {
        let kinds = options
            .iter()
            .map(|(long, (kind, _))| (long.clone(), kind.clone()));
        kinds.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(kinds(&common), kinds(&help("")));
    for command in COMMANDS {
        let mut told = options(&under(&page, &format!("   psync {command}")), &[5]);
        told.extend(common.clone());
        let help = help(command);
        assert_eq!(kinds(&told), kinds(&help), "{command}");
        for (long, (_, said)) in &help {
            let (here, there) = (numbers(&told[long].1), numbers(said));
            assert!(
                here.is_superset(&there),
                "{command} {long}: {here:?} lacks some of {there:?}"
            );
        }
    }
}

#[test]
fn the_page_has_the_usage_codes_variables_and_version_of_the_help() {
    let page = page();
    let help = help_text("");
    let usage = help.split("Usage:\n").nth(1).unwrap();
    let usage = usage.split("\n\n").next().unwrap();
    assert_eq!(flat(&under(&page, "SYNOPSIS")), flat(usage));

    let codes = under(&page, "EXIT STATUS");
    for code in 0..=3 {
        let tag = format!("     {code}  ");
        assert!(codes.lines().any(|line| line.starts_with(&tag)), "{codes}");
    }
    let environment = under(&page, "ENVIRONMENT");
    for command in ["", "export", "server", "get"] {
        for named in help_text(command).split('$').skip(1) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name = named.split(|c| !is_name(c)).next().unwrap();
            let is_told = environment.lines().any(|line| {
                let tag = line.strip_prefix("     ").unwrap_or_default();
                let tag = tag.split("  ").next().unwrap_or_default();
                tag.split(", ").any(|told| told == name)
            });
            assert!(name.is_empty() || is_told, "{name} in:\n{environment}");
        }
    }
    let version = concat!("psync ", env!("CARGO_PKG_VERSION"), ".");
    assert!(under(&page, "HISTORY").contains(version));
}

#[test]
fn the_pages_examples_use_options_that_are_there() {
    let page = page();
    let examples = under(&page, "EXAMPLES");
    let mut seen = BTreeSet::new();
    for example in examples
        .split("psync ")
        .skip(1)
        .filter_map(|rest| rest.lines().next())
    {
        let mut words = example.split(['#', '|']).next().unwrap().split_whitespace();
        let command = words.next().unwrap();
        let options = help(command);
        seen.insert(command);
        for word in words.filter(|word| word.len() > 1 && word.starts_with('-')) {
            let is_there = options
                .iter()
                .any(|(long, (kind, _))| long == word || kind.short.as_deref() == Some(word));
            assert!(is_there, "{example}");
        }
    }
    assert_eq!(seen, COMMANDS.into());
}

/// A place to complete in, with the file and the directory that there are.
struct Place {
    dir: TempDir,
}

const FILE: &str = "a.list";
const DIRECTORY: &str = "sub";

impl Place {
    fn new(queries: &[String]) -> Self {
        let dir = TempDir::new();
        fs::create_dir_all(dir.join("here").join(DIRECTORY)).unwrap();
        fs::write(dir.join("here").join(FILE), "").unwrap();
        dir.file("queries", queries.join("\n") + "\n");
        Self { dir }
    }

    fn shell(&self, run: Run) -> Run {
        run.cwd(self.dir.join("here"))
            .env("QUERIES", self.dir.join("queries"))
            .env("ANSWERS", self.dir.join("answers"))
            .env("COMPLETIONS", share("completions"))
    }

    /// The answers that the shell wrote: a word a line, and a dot after each answer.
    #[track_caller]
    fn answers(&self, queries: &[String]) -> Answers {
        let text = fs::read_to_string(self.dir.join("answers")).unwrap();
        let mut answers = vec![BTreeSet::new()];
        for line in text.lines() {
            match line {
                "." => answers.push(BTreeSet::new()),
                word => {
                    // A file is named with what stands before it, a directory with a slash.
                    let file = word.split_once('=').map_or(word, |(_, file)| file);
                    let file = file.trim_end_matches('/');
                    let is_joined = |name: &&str| file.starts_with('-') && file.ends_with(name);
                    let name = [FILE, DIRECTORY].into_iter().find(is_joined);
                    let file = name.unwrap_or(file).to_owned();
                    answers.last_mut().unwrap().insert(file);
                }
            }
        }
        assert_eq!(answers.pop(), Some(BTreeSet::new()), "{text}");
        assert_eq!(answers.len(), queries.len(), "{text}");
        queries.iter().cloned().zip(answers).collect()
    }
}

type Answers = BTreeMap<String, BTreeSet<String>>;

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn forms(options: &Options) -> BTreeSet<String> {
    let forms = options
        .iter()
        .flat_map(|(long, (kind, _))| kind.short.clone().into_iter().chain([long.clone()]));
    forms.collect()
}

/// What may stand where a value of this name is due.
fn values(name: &str) -> BTreeSet<String> {
    match name {
        "DIR" => set(&[DIRECTORY]),
        "FILE" => set(&[FILE, DIRECTORY]),
        "N" | "SECS" | "URL" => set(&[]),
        name => panic!("what is completed for {name}?"),
    }
}

/// What is to be typed, and what is due then.
#[derive(Default)]
struct Due {
    exactly: Answers,
    /// Where options are due, but not all.
    some_options: BTreeSet<String>,
}

impl Due {
    /// fish does not mind values: to any program it offers options where a value is due, files after
    /// `--flag=`.
    fn of_help(minds_values: bool) -> Self {
        let mut due = Self::default();
        due.exactly.insert("psync ".into(), set(&COMMANDS));
        due.exactly.insert("psync -".into(), forms(&help("")));
        for command in COMMANDS {
            let options = help(command);
            for program in [
                format!("psync {command}"),
                format!("psync-{command}"),
                format!("/usr/bin/psync-{command}"),
            ] {
                let operand = match command {
                    "server" => set(&[]),
                    _ => set(&[FILE, DIRECTORY]),
                };
                due.add(&program, &options, &operand, minds_values);
            }
        }
        due
    }

    fn add(
        &mut self,
        program: &str,
        options: &Options,
        operand: &BTreeSet<String>,
        minds_values: bool,
    ) {
        let exactly = &mut self.exactly;
        exactly.insert(format!("{program} -"), forms(options));
        exactly.insert(format!("{program} "), operand.clone());
        exactly.insert(format!("{program} -- "), operand.clone());
        exactly.insert(format!("{program} -- -"), set(&[]));
        // Letters that take nothing, joined.
        let flags = options.iter().filter(|(long, (kind, _))| {
            kind.value == Value::None && !["--help", "--version"].contains(&long.as_str())
        });
        let letters = flags.filter_map(|(_, (kind, _))| kind.short.as_deref());
        let letters: String = letters.flat_map(|short| short.chars().skip(1)).collect();
        for (long, (Kind { short, value }, _)) in options {
            if ["--help", "--version"].contains(&long.as_str()) {
                continue;
            }
            let values = match value {
                Value::Needed(name) => Some(values(name)),
                _ => None,
            };
            for form in short.iter().chain([long]) {
                let next = values.as_ref().unwrap_or(operand);
                exactly.insert(format!("{program} {form} "), next.clone());
                if values.is_none() {
                    self.some_options.insert(format!("{program} {form} -"));
                } else if minds_values {
                    exactly.insert(format!("{program} {form} -"), set(&[]));
                }
            }
            if let (Some(values), Some(short)) = (&values, short) {
                // The last of joined letters takes the next word, or the rest of its own.
                let last = &short[1..];
                exactly.insert(format!("{program} -{letters}{last} "), values.clone());
                exactly.insert(format!("{program} {short}x "), operand.clone());
                for value in values.iter().filter(|_| minds_values) {
                    let begun = format!("{program} {short}{}", &value[..1]);
                    exactly.insert(begun, set(&[value]));
                }
            }
            if values.is_some() || minds_values {
                exactly.insert(format!("{program} {long}="), values.unwrap_or_default());
            }
        }
    }
}

/// Types each query into the shell, asks for completions, and checks them against the help.
#[track_caller]
fn check(ask: fn(&[String]) -> Answers, minds_values: bool) {
    let due = Due::of_help(minds_values);
    let queries: Vec<String> = due
        .exactly
        .keys()
        .chain(&due.some_options)
        .cloned()
        .collect();
    let answers = ask(&queries);
    for (query, due) in &due.exactly {
        assert_eq!(&answers[query], due, "of '{query}'");
    }
    for query in &due.some_options {
        let is_option = |word: &String| word.starts_with('-');
        let answer = &answers[query];
        assert!(
            answer.len() > 1 && answer.iter().all(is_option),
            "{answer:?} of '{query}'"
        );
    }
}

fn bash(queries: &[String]) -> Answers {
    // What bash does: looks up the function by the program's last name, cuts words at each =.
    const SCRIPT: &str = r#"
        . "$COMPLETIONS/psync.bash"
        exec > "$ANSWERS"
        while IFS= read -r COMP_LINE; do
            read -ra COMP_WORDS <<< "${COMP_LINE//=/ = }"
            [[ $COMP_LINE != *' ' ]] || COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            read -r _ _ function _ <<< "$(complete -p "${COMP_WORDS[0]##*/}")"
            "$function"
            printf '%s\n' "${COMPREPLY[@]}" .
        done < "$QUERIES" | grep -v '^$'
    "#;
    let place = Place::new(queries);
    let run = tool!("bash", "--norc", "-uc", SCRIPT);
    place.shell(run).run().ok();
    place.answers(queries)
}

#[test]
fn bash_completes_what_help_names() {
    check(bash, true);
}

/// As psync reads them: a word after an option that takes a value is that value.
#[test]
fn bash_takes_words_in_order() {
    let all = forms(&help("get"));
    let files = set(&[FILE, DIRECTORY]);
    let rows = [
        ("psync get -o -- -", &all),
        ("psync get -o -- ", &files),
        ("psync get -o -j ", &files),
        ("psync get -o -d -", &all),
        ("psync get -o --jobs x -", &all),
        ("psync get --dir=x -", &all),
        ("psync get --output=-- -", &all),
        ("psync get --lan=x -", &all),
        ("psync get -qj 8 -", &all),
        ("psync get -d -o -d ", &set(&[DIRECTORY])),
        ("psync get -qo -- -d ", &set(&[DIRECTORY])),
        ("psync get -qk", &set(&[])),
        ("psync get -j8", &set(&[])),
    ];
    let queries = rows.map(|(query, _)| query.to_owned());
    let answers = bash(&queries);
    for (query, due) in rows {
        assert_eq!(&answers[query], due, "of '{query}'");
    }
}

#[test]
fn fish_completes_what_help_names() {
    const SCRIPT: &str = r#"
        source $COMPLETIONS/psync.fish
        for query in (cat $QUERIES)
            complete -C $query | string replace -r '\t.*' ''
            echo .
        end > $ANSWERS
    "#;
    let fish = |queries: &[String]| {
        let place = Place::new(queries);
        let run = tool!("fish", "--no-config", "-c", SCRIPT);
        place.shell(run).run().ok();
        place.answers(queries)
    };
    check(fish, false);
}

#[test]
fn zsh_completes_what_help_names() {
    // Completes only at a terminal, in its line editor. What it is about to offer goes to the answers.
    const RC: &str = r#"
        fpath=($COMPLETIONS $fpath)
        autoload -Uz compinit && compinit -u -D
        compadd() {
            local -a offered
            # With these it only looks something up.
            if (( ! ${@[(I)-[a-zA-Z]#[OAD]]} )); then
                builtin compadd -O offered "$@"
                (( $#offered )) && print -rl -- $offered >&3
            fi
            builtin compadd "$@"
        }
        zle -C offer complete-word _main_complete
        answer() {
            while IFS= read -r BUFFER <&4; do
                CURSOR=$#BUFFER
                zle offer
                print . >&3
            done
            exit
        }
        zle -N zle-line-init answer
        exec 3>$ANSWERS 4<$QUERIES
    "#;
    let zsh = |queries: &[String]| {
        let place = Place::new(queries);
        place.dir.file(".zshrc", RC);
        need("zsh");
        let (run, _typist) = at_terminal("exec zsh -d -i");
        let out = place.shell(run).env("ZDOTDIR", &*place.dir).run();
        assert_eq!(out.status, 0, "{out}");
        place.answers(queries)
    };
    check(zsh, true);
}
