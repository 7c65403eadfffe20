//! System calls of a program, as strace tells them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use super::{Output, Run, TempDir};

/// Runs it under strace and returns each call of these, in order of their ends.
pub fn trace(calls: &str, more: &[&str], run: Run) -> (Output, Vec<Call>) {
    let dir = TempDir::new();
    let log = dir.join("log");
    let to = log.to_str().unwrap();
    let select = format!("trace={calls}");
    let options = [&["-f", "-q", "-y", "-o", to, "-e", &select], more].concat();
    let out = run.under("strace", options).run();
    (out, Call::parse(&fs::read(log).unwrap()))
}

/// One system call as strace tells it, and the lines of the log at which it began and ended.
#[derive(Debug, Clone)]
pub struct Call {
    pid: String,
    pub text: String,
    pub begin: usize,
    pub end: usize,
}

impl Call {
    pub fn parse(log: &[u8]) -> Vec<Call> {
        let (mut calls, mut open) = (Vec::new(), HashMap::new());
        for (end, line) in String::from_utf8_lossy(log).lines().enumerate() {
            let Some((pid, text)) = line.split_once(' ') else {
                continue;
            };
            let text = text.trim_start();
            if let Some(begun) = text.strip_suffix("<unfinished ...>") {
                open.insert(pid.to_owned(), (end, begun.to_owned()));
            } else if let Some((_, rest)) = text
                .split_once("resumed>")
                .filter(|_| text.starts_with("<..."))
            {
                let (begin, begun) = open.remove(pid).unwrap();
                calls.push(Call {
                    pid: pid.to_owned(),
                    text: begun + rest,
                    begin,
                    end,
                });
            } else if text.contains('(') {
                calls.push(Call {
                    pid: pid.to_owned(),
                    text: text.to_owned(),
                    begin: end,
                    end,
                });
            }
        }
        calls
    }

    pub fn name(&self) -> &str {
        self.text.split('(').next().unwrap_or_default()
    }

    pub fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name())
    }

    pub fn has_failed(&self) -> bool {
        self.text
            .rsplit_once(" = ")
            .is_some_and(|(_, result)| result.starts_with("-1 "))
    }

    pub fn is_sync(&self) -> bool {
        self.is(&["syncfs", "fsync", "fdatasync", "sync"])
    }

    pub fn is_rename(&self) -> bool {
        self.is(&["rename", "renameat", "renameat2"])
    }

    /// What in `dir` it is about, if anything is: a path relative to it.
    fn path(&self, dir: &Path) -> Option<String> {
        let said = self.text.split('"').nth(1).filter(|said| !said.is_empty());
        // An address stands in quotes too.
        let said = said.filter(|_| !self.text.contains("{sa_family="));
        let path = said.or_else(|| self.paths().next())?;
        let path = dir.join(path);
        match path.strip_prefix(dir).ok()? {
            inside if inside == Path::new("") => Some(".".to_owned()),
            inside => Some(inside.display().to_string()),
        }
    }

    /// What stands in quotes, or as a descriptor's path.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.text
            .split(['"', '<', '>'])
            .filter(|part| part.starts_with('/'))
    }
}

/// A call of one run by which strace finds the same one in another: the nth of its name that a thread
/// makes, and of those on the same path where it has one. strace counts for each thread, and does not know one
/// thread from another. So of two that make the same call on the same path, or on none, one that
/// comes later to its nth is never met there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub name: String,
    path: Option<String>,
    nth: usize,
}

impl Moment {
    /// Of each call from the program's own beginning on. Before it are the loader's and std's, the last
    /// of which gives the handler of an overflow its stack. Only paths in `dir`, where it ran, are paths: others
    /// may have another name the next time.
    pub fn of<'a>(calls: &'a [Call], dir: &Path) -> Vec<(Moment, &'a Call)> {
        let mut counts = BTreeMap::new();
        let mut calls: Vec<&Call> = calls.iter().collect();
        calls.sort_by_key(|call| call.begin);
        let prepared = calls.iter().position(|call| call.is(&["sigaltstack"]));
        let moments = calls.iter().map(|&call| {
            let (name, path) = (call.name().to_owned(), call.path(dir));
            let mut count = |path: Option<String>| {
                let count: &mut usize = counts.entry((&call.pid, call.name(), path)).or_default();
                *count += 1;
                *count
            };
            let of_name = count(None);
            let nth = path.clone().map_or(of_name, |path| count(Some(path)));
            (Moment { name, path, nth }, call)
        });
        let mut moments: Vec<_> = moments.collect();
        let own = moments.split_off(prepared.unwrap_or(0));
        // Without a path, a thread's nth call may have been met in the loader already.
        let is_met = |moment: &Moment| {
            let same = |(before, _): &(Moment, _)| before.name == moment.name;
            moment.path.is_none() && moments.iter().filter(|one| same(one)).count() >= moment.nth
        };
        own.into_iter()
            .filter(|(moment, _)| !is_met(moment))
            .collect()
    }

    /// Words for strace to do something then to a program that runs in `dir`: `signal=KILL`.
    pub fn inject(&self, what: &str, dir: &Path) -> Vec<String> {
        let Moment { name, path, nth } = self;
        let mut words = vec![
            "-e".to_owned(),
            format!("inject={name}:{what}:when={nth}"),
            "-e".to_owned(),
            "quiet=all".to_owned(),
        ];
        for path in path.iter() {
            // As it is said, and as a descriptor shows it.
            let full = match path.as_str() {
                "." => dir.to_owned(),
                path => dir.join(path),
            };
            let full = full.display().to_string();
            words.extend(["-P".to_owned(), path.clone(), "-P".to_owned(), full]);
        }
        words
    }
}
