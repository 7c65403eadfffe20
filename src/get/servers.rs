//! The servers of one `get`: in which order they are asked, and which are given up.
//!
//! No socket here: how a server is asked is a closure's affair, so all of this is tested without
//! one. A `Servers` is shared by all workers.

use std::fmt::{self, Display};
use std::net::Ipv6Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::block::Block;
use crate::error::Result;
use crate::hash::Hash;

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
    /// Anything else that is not the block: wrong bytes, malformed, an error. Counts as a strike.
    Wrong(String),
    /// No connection, or silence.
    Unreachable(String),
}

struct Server {
    url: Url,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    strikes: u32,
    given_up: bool,
    /// Why it did not give the block that it was last asked for in vain.
    reason: Option<String>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All servers, in the order in which they are asked.
pub struct Servers<'a> {
    list: Vec<Server>,
    /// Is told of each server that is given up.
    give_up: &'a (dyn Fn(String) + Sync),
}

impl<'a> Servers<'a> {
    /// A server listed twice is asked once.
    pub fn new(urls: Vec<Url>, give_up: &'a (dyn Fn(String) + Sync)) -> Self {
        let mut list: Vec<Server> = Vec::new();
        for url in urls {
            if !list.iter().any(|server| server.url == url) {
                list.push(Server {
                    url,
                    state: Mutex::default(),
                });
            }
        }
        Servers { list, give_up }
    }

    /// Asks one server after the other for a block, until one gives it; none if nobody does.
    ///
    /// # Errors
    /// Those of `ask`, for what is wrong on this side.
    pub fn fetch(&self, ask: impl Fn(&Url) -> Result<Answer>) -> Result<Option<Block<Vec<u8>>>> {
        for server in &self.list {
            if server.state().given_up {
                continue;
            }
            match ask(&server.url)? {
                Answer::Block(block) => {
                    server.state().strikes = 0;
                    return Ok(Some(block));
                }
                Answer::Missing(reason) => {
                    let mut state = server.state();
                    state.strikes = 0;
                    state.reason = Some(reason);
                }
                Answer::Wrong(reason) => self.strike(server, 1, reason),
                Answer::Unreachable(reason) => self.strike(server, STRIKES, reason),
            }
        }
        Ok(None)
    }

    fn strike(&self, server: &Server, strikes: u32, reason: String) {
        let mut state = server.state();
        state.strikes += strikes;
        if state.strikes >= STRIKES && !state.given_up {
            state.given_up = true;
            (self.give_up)(format!("give up {}: {reason}", server.url));
        }
        state.reason = Some(reason);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

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

    fn block() -> Answer {
        Answer::Block(Block::new(b"block".to_vec()))
    }

    #[test]
    fn asks_in_order_until_one_gives_it() {
        let servers = Servers::new(urls(&["a", "b", "a:80", "c"]), &|_| {});
        let asked = RefCell::new(Vec::new());
        let fetched = servers.fetch(|url| {
            asked.borrow_mut().push(url.to_string());
            Ok(if url.0 == "http://c" {
                block()
            } else {
                Answer::Missing("404".to_owned())
            })
        });
        assert_eq!(fetched.unwrap().unwrap().bytes(), b"block");
        assert_eq!(*asked.borrow(), ["http://a", "http://b", "http://c"]);
        assert_eq!(
            servers.reasons(),
            ["ask http://a: 404", "ask http://b: 404"]
        );
    }

    /// How often a lone server is asked by ten fetches, each answered with the next of `answers`.
    fn asked(answers: &[fn() -> Answer]) -> usize {
        let servers = Servers::new(urls(&["a"]), &|_| {});
        let count = RefCell::new(0);
        for turn in 0..10 {
            let fetched = servers.fetch(|_| {
                *count.borrow_mut() += 1;
                Ok(answers[turn % answers.len()]())
            });
            fetched.unwrap();
        }
        count.into_inner()
    }

    #[test]
    fn a_bad_server_costs_its_failure_once_or_thrice() {
        let missing = || Answer::Missing(String::new());
        let wrong = || Answer::Wrong(String::new());
        assert_eq!(asked(&[|| Answer::Unreachable(String::new())]), 1);
        assert_eq!(asked(&[wrong]), 3);
        assert_eq!(asked(&[missing]), 10);
        assert_eq!(
            asked(&[wrong, wrong, block]),
            10,
            "only three in a row are too many"
        );
        assert_eq!(asked(&[wrong, wrong, missing]), 10);
        assert_eq!(asked(&[block, wrong, wrong, wrong]), 4);
    }

    #[test]
    fn tells_once_who_is_given_up_and_why() {
        let told = Mutex::new(Vec::new());
        let tell = |text| told.lock().unwrap().push(text);
        let servers = Servers::new(urls(&["a"]), &tell);
        for _ in 0..2 {
            assert!(
                servers
                    .fetch(|_| Ok(Answer::Unreachable("refused".to_owned())))
                    .unwrap()
                    .is_none()
            );
        }
        assert_eq!(*told.lock().unwrap(), ["give up http://a: refused"]);
        assert_eq!(servers.reasons(), ["ask http://a: refused (given up)"]);
    }
}
