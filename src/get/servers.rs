//! The servers of one `get`: in which order they are asked, and which are given up.
//!
//! No socket here: how a server is asked is a closure's affair, so all of this is tested without
//! one. A `Servers` is shared by all workers.

use std::fmt::{self, Display};
use std::net::Ipv6Addr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::block::Block;
use crate::error::Result;
use crate::hash::Hash;
use crate::mutex::lock;

/// Wrong answers in a row after which a server is given up.
const STRIKES: u32 = 3;

/// Characters of a server's URL: more than any proxy or server takes with a hash after it.
const MAX_URL: usize = 2_000;

/// Where a server is: `http://HOST[:PORT][/PATH]` in one written form, so that the same server is
/// the same text.
#[derive(Clone, Debug, PartialEq)]
pub struct Url(String);

impl Url {
    /// Parses `HOST[:PORT]` or `http://HOST[:PORT][/PATH]`, or says why it is neither.
    pub fn parse(text: &str) -> std::result::Result<Self, &'static str> {
        const FORM: &str = "a server is HOST[:PORT] or http://HOST[:PORT][/PATH]";
        if text.len() > MAX_URL {
            return Err("a server's URL of over 2,000 characters");
        }
        let (scheme, port_due, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", 80, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                if !cfg!(feature = "tls") {
                    return Err("this psync is built without https; build it with --features tls");
                }
                ("https", 443, rest)
            }
            Some(_) => return Err(FORM),
            None if text.contains('/') => return Err(FORM),
            None => ("http", 80, text),
        };
        let (authority, path) = rest
            .find('/')
            .map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = split_port(authority);
        let port = port.map_or(Some(port_due), parse_port).ok_or(FORM)?;
        if !is_host(host)
            || !path
                .bytes()
                .all(|c| c.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&c))
        {
            return Err(FORM);
        }
        let port = if port == port_due {
            String::new()
        } else {
            format!(":{port}")
        };
        let (host, path) = (host.to_ascii_lowercase(), path.trim_end_matches('/'));
        Ok(Url(format!("{scheme}://{host}{port}{path}")))
    }

    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// In lower case, a v6 address in brackets.
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        split_port(authority).0
    }

    /// Where the block is, if this server has it.
    pub fn block(&self, hash: &Hash) -> String {
        format!("{}/{hash}", self.0)
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|c| c.is_ascii_digit());
    digits.parse().ok().filter(|&port| plain && port > 0)
}

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
        }
    }
}

impl Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What came of asking one server for one block.
#[derive(Debug)]
pub enum Answer {
    Block(Block<Vec<u8>>),
    /// The server has not got it, which is no failure.
    Missing(String),
    Failed(Failure),
}

/// An answer that is neither the block nor a plain no.
#[derive(Clone, Debug)]
pub struct Failure {
    pub reason: String,
    /// No connection, or silence: the server is given up at once. Else it is one strike.
    pub at_once: bool,
    /// Whether the same server may do better a little later.
    pub passing: bool,
}

impl Failure {
    /// No connection, or silence.
    pub fn gone(reason: impl Display) -> Self {
        Failure {
            reason: reason.to_string(),
            at_once: true,
            passing: true,
        }
    }

    /// A wrong answer.
    pub fn strike(reason: impl Display, passing: bool) -> Self {
        Failure {
            reason: reason.to_string(),
            at_once: false,
            passing,
        }
    }
}

/// What came of asking all servers for one block.
#[derive(Debug)]
pub enum Fetched {
    Block(Block<Vec<u8>>),
    /// Nobody gave it; `passing` if somebody may do so a little later.
    Nobody {
        passing: bool,
    },
}

struct Server {
    url: Url,
    state: Mutex<State>,
    /// A worker that was the first to ask this server has heard from it, or has not.
    tried: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether it ever answered, since it was last given another chance.
    proven: bool,
    /// Whether a worker is finding that out.
    on_trial: bool,
    /// Failures in a row, and whether any of them will last.
    strikes: u32,
    lasting: bool,
    given_up: bool,
    /// Why it did not give the block that it was last asked for in vain.
    reason: Option<String>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until it is known whether this server answers at all, or until it is the caller's
    /// turn to find out. So one that does not costs its timeout once, not once a worker. False if
    /// it is given up.
    fn admit(&self, passing: &mut bool) -> bool {
        let mut state = self.state();
        while state.on_trial && !state.given_up {
            state = self
                .tried
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.given_up {
            *passing |= !state.lasting;
            return false;
        }
        state.on_trial = !state.proven;
        true
    }
}

/// All servers, in the order in which they are asked.
pub struct Servers {
    list: Vec<Server>,
    /// Is told of each server that is given up.
    give_up: fn(String),
}

impl Servers {
    /// A server listed twice is asked once.
    pub fn new(urls: Vec<Url>, give_up: fn(String)) -> Self {
        let mut list: Vec<Server> = Vec::new();
        for url in urls {
            if !list.iter().any(|server| server.url == url) {
                list.push(Server {
                    url,
                    state: Mutex::default(),
                    tried: Condvar::new(),
                });
            }
        }
        Servers { list, give_up }
    }

    /// Asks one server after the other for a block, until one gives it.
    ///
    /// # Errors
    /// Those of `ask`, for what is wrong on this side.
    pub fn fetch(&self, ask: impl Fn(&Url) -> Result<Answer>) -> Result<Fetched> {
        let mut passing = false;
        for server in &self.list {
            if !server.admit(&mut passing) {
                continue;
            }
            let answer = ask(&server.url);
            let mut state = server.state();
            state.on_trial = false;
            server.tried.notify_all();
            match answer? {
                Answer::Block(block) => {
                    state.succeed();
                    return Ok(Fetched::Block(block));
                }
                Answer::Missing(reason) => {
                    state.succeed();
                    state.reason = Some(reason);
                }
                Answer::Failed(failure) => {
                    passing |= failure.passing;
                    if state.fail(failure) {
                        let reason = state.reason.as_deref().unwrap_or_default();
                        (self.give_up)(format!("give up {}: {reason}", server.url));
                    }
                }
            }
        }
        Ok(Fetched::Nobody { passing })
    }

    /// Gives every server another chance that was given up for what may have passed.
    pub fn revive(&self) {
        for server in &self.list {
            let mut state = server.state();
            if state.given_up && !state.lasting {
                *state = State {
                    reason: state.reason.take(),
                    ..State::default()
                };
            }
        }
    }

    /// Each server's reason for the last block that it did not give, as `ask SERVER: REASON`.
    pub fn reasons(&self) -> Vec<String> {
        let reason = |server: &Server| {
            let state = server.state();
            let given_up = if state.given_up { " (given up)" } else { "" };
            Some(format!(
                "ask {}: {}{given_up}",
                server.url,
                state.reason.as_ref()?
            ))
        };
        self.list.iter().filter_map(reason).collect()
    }
}

impl State {
    /// An answer that was under way as the server was given up changes nothing.
    fn succeed(&mut self) {
        if self.given_up {
            return;
        }
        self.proven = true;
        self.strikes = 0;
        self.lasting = false;
    }

    /// Counts a failure; true if it is the one for which the server is given up.
    fn fail(&mut self, failure: Failure) -> bool {
        self.proven |= !failure.at_once;
        self.strikes += if failure.at_once { STRIKES } else { 1 };
        // Silence is the last word: what went before it is no reason never to ask again.
        self.lasting = !failure.passing || (self.lasting && !failure.at_once);
        self.reason = Some(failure.reason);
        let over = self.strikes >= STRIKES && !self.given_up;
        self.given_up |= over;
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::thread;

    #[test]
    fn a_server_has_one_written_form() {
        for (text, url) in [
            ("host", "http://host"),
            ("HOST:80", "http://host"),
            ("http://Host:8080/", "http://host:8080"),
            ("http://host/A/b//", "http://host/A/b"),
            ("[::1]", "http://[::1]"),
            ("[::1]:99", "http://[::1]:99"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), url);
        }
        assert_eq!(Url::parse("http://[::1]:9/x:y").unwrap().host(), "[::1]");
        assert_eq!(Url::parse("Host").unwrap().host(), "host");
        for wrong in [
            "",
            ":80",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host/path",
            "./list",
            "ftp://host",
            "http://",
            "http:///x",
            "::1",
            "[::1",
            "[x]:1",
            "us er",
            "u@host",
            "http://host/?q",
            "http://host/a b",
            "http://ho\u{e9}st",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Url::parse("https://host").is_ok(), cfg!(feature = "tls"));
    }

    fn urls(names: &[&str]) -> Vec<Url> {
        names.iter().map(|name| Url::parse(name).unwrap()).collect()
    }

    fn servers(names: &[&str]) -> Servers {
        Servers::new(urls(names), |_| {})
    }

    fn block() -> Answer {
        Answer::Block(Block::new(b"block".to_vec()))
    }

    fn missing() -> Answer {
        Answer::Missing(String::new())
    }

    fn wrong() -> Answer {
        Answer::Failed(Failure::strike("wrong", false))
    }

    fn busy() -> Answer {
        Answer::Failed(Failure::strike("busy", true))
    }

    fn gone() -> Answer {
        Answer::Failed(Failure::gone("refused"))
    }

    #[test]
    fn asks_in_order_until_one_gives_it() {
        let servers = servers(&["a", "b", "a:80", "c"]);
        let asked = RefCell::new(Vec::new());
        let fetched = servers.fetch(|url| {
            asked.borrow_mut().push(url.to_string());
            Ok(if url.0 == "http://c" {
                block()
            } else {
                missing()
            })
        });
        assert!(matches!(fetched.unwrap(), Fetched::Block(block) if block.bytes() == b"block"));
        assert_eq!(*asked.borrow(), ["http://a", "http://b", "http://c"]);
        assert_eq!(servers.reasons(), ["ask http://a: ", "ask http://b: "]);
    }

    /// How often a lone server is asked by ten fetches, each answered with the next of `answers`,
    /// and whether the last of them may do better later.
    fn asked(servers: &Servers, answers: &[fn() -> Answer]) -> (usize, bool) {
        let count = RefCell::new(0);
        let mut later = false;
        for turn in 0..10 {
            let fetched = servers.fetch(|_| {
                *count.borrow_mut() += 1;
                Ok(answers[turn % answers.len()]())
            });
            later = matches!(fetched.unwrap(), Fetched::Nobody { passing: true });
        }
        (count.into_inner(), later)
    }

    #[test]
    fn a_bad_server_costs_its_failure_once_or_thrice() {
        let asked = |answers: &[fn() -> Answer]| asked(&servers(&["a"]), answers);
        assert_eq!(asked(&[gone]), (1, true));
        assert_eq!(asked(&[wrong]), (3, false));
        assert_eq!(asked(&[busy]), (3, true));
        assert_eq!(asked(&[busy, busy, wrong]), (3, false));
        assert_eq!(asked(&[wrong, gone]), (2, true));
        assert_eq!(asked(&[missing]), (10, false));
        assert_eq!(
            asked(&[wrong, wrong, block]).0,
            10,
            "only three in a row are too many"
        );
        assert_eq!(asked(&[wrong, wrong, missing]).0, 10);
        assert_eq!(asked(&[block, wrong, wrong, wrong]).0, 4);
    }

    #[test]
    fn what_may_have_passed_is_given_another_chance() {
        for (answer, again) in [(gone as fn() -> Answer, 1), (busy, 3), (wrong, 0)] {
            let servers = servers(&["a"]);
            asked(&servers, &[answer]);
            servers.revive();
            assert_eq!(asked(&servers, &[answer]).0, again);
        }
    }

    #[test]
    fn one_worker_finds_out_for_all_whether_a_server_answers() {
        let servers = servers(&["a"]);
        let count = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    servers.fetch(|_| {
                        *count.lock().unwrap() += 1;
                        // Long enough for all to come here, were they let in.
                        thread::sleep(std::time::Duration::from_millis(50));
                        Ok(gone())
                    })
                });
            }
        });
        assert_eq!(*count.lock().unwrap(), 1);
        assert_eq!(servers.reasons(), ["ask http://a: refused (given up)"]);
    }

    #[test]
    fn tells_once_who_is_given_up_and_why() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let servers = Servers::new(urls(&["a"]), |text| TOLD.lock().unwrap().push(text));
        asked(&servers, &[gone]);
        assert_eq!(*TOLD.lock().unwrap(), ["give up http://a: refused"]);
    }
}
