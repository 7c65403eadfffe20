//! URLs of servers and mirrors, and their written form. This file knows no socket.

use std::fmt::{self, Display};
use std::net::{Ipv6Addr, SocketAddrV4};

/// Characters of a URL. No proxy or server takes a longer one with a hash after it.
const MAX_URL: usize = 2_000;

/// Where a server or a mirror is. There is one written form, so that the same server has the same text.
#[derive(Clone, Debug)]
pub struct Url {
    text: String,
    /// Whether it answered the question of `--lan`: no proxy leads there.
    lan: bool,
}

impl PartialEq for Url {
    fn eq(&self, other: &Url) -> bool {
        self.text == other.text
    }
}

impl Url {
    /// Parses a server's `HOST[:PORT]` or `http://HOST[:PORT][/PATH]`, or says why it is neither.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "a server is HOST[:PORT] or http://HOST[:PORT][/PATH]";
        let (start, path) = split(text, FORM)?;
        if path.contains('?') {
            return Err(FORM);
        }
        let path = path.trim_end_matches('/');
        Ok(Url::from_text(format!("{start}{path}")))
    }

    /// Parses a mirror's `http://HOST[:PORT]/PATH`, which may have a query.
    pub fn parse_mirror(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "a mirror is http://HOST[:PORT]/PATH";
        let (start, path) = split(text, FORM)?;
        if path.is_empty() {
            return Err(FORM);
        }
        Ok(Url::from_text(format!("{start}{path}")))
    }

    /// Takes the text as it is. That of a redirect need not have the written form: it is only asked again.
    pub fn from_text(text: String) -> Self {
        Url { text, lan: false }
    }

    /// A server that answered the question of `--lan`, in the same form as a listed one.
    pub fn on_lan(server: SocketAddrV4) -> Option<Self> {
        let url = Url::parse(&server.to_string()).ok()?;
        Some(Url { lan: true, ..url })
    }

    pub fn is_on_lan(&self) -> bool {
        self.lan
    }

    /// Each URL once, in order.
    pub fn distinct(urls: Vec<Self>) -> Vec<Self> {
        let mut distinct = Vec::new();
        for url in urls {
            if !distinct.contains(&url) {
                distinct.push(url);
            }
        }
        distinct
    }

    /// Parses a list of servers, one a line, # comments: the number of each line, and its server or what is
    /// wrong with it.
    pub fn list(text: &[u8]) -> Vec<(usize, Result<Self, &'static str>)> {
        let mut list = Vec::new();
        for (line, number) in text.split(|&c| c == b'\n').zip(1..) {
            let comment = line.iter().position(|&c| c == b'#');
            let word = line[..comment.unwrap_or(line.len())].trim_ascii();
            if !word.is_empty() {
                let word = std::str::from_utf8(word).map_err(|_| "not UTF-8");
                list.push((number, word.and_then(Url::parse)));
            }
        }
        list
    }

    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// In lower case, a v6 address in brackets.
    pub fn host(&self) -> &str {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        split_port(authority).0
    }
}

/// Splits a URL into its start, in the written form, and its path. `form` is the error for most.
fn split<'t>(text: &'t str, form: &'static str) -> Result<(String, &'t str), &'static str> {
    if text.len() > MAX_URL {
        return Err("a URL of over 2,000 characters");
    }
    let (scheme, rest) = match text.split_once("://") {
        Some(parts) => parts,
        None if text.contains('/') => return Err(form),
        None => ("http", text),
    };
    let (scheme, port_due) = match &*scheme.to_ascii_lowercase() {
        "http" => ("http", 80),
        "https" if cfg!(feature = "tls") => ("https", 443),
        "https" => return Err("this psync is built without https; build it with --features tls"),
        _ => return Err(form),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = split_port(authority);
    let port = port.map_or(Some(port_due), parse_port).ok_or(form)?;
    let is_allowed = |c: u8| c.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&c);
    if !is_host(host) || !path.bytes().all(is_allowed) {
        return Err(form);
    }
    let mut start = format!("{scheme}://{}", host.to_ascii_lowercase());
    if port != port_due {
        start += &format!(":{port}");
    }
    Ok((start, path))
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
    let in_brackets = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    if let Some(v6) = in_brackets {
        return v6.parse::<Ipv6Addr>().is_ok();
    }
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    !host.is_empty() && host.bytes().all(is_allowed)
}

impl Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_server_on_the_lan_is_the_same_as_one_listed() {
        for text in ["10.0.0.1:80", "10.0.0.1:8080"] {
            let found = Url::on_lan(text.parse().unwrap()).unwrap();
            assert!(found == Url::parse(text).unwrap() && found.is_on_lan());
        }
    }

    #[test]
    fn a_mirror_has_a_path() {
        for (text, url) in [
            ("http://Host:80/File", "http://host/File"),
            ("http://host/dir/?id=1&x=y", "http://host/dir/?id=1&x=y"),
        ] {
            assert_eq!(Url::parse_mirror(text).unwrap().to_string(), url);
        }
        for wrong in ["host", "http://host", "host/file", "http://host/a b", "x"] {
            assert!(Url::parse_mirror(wrong).is_err(), "{wrong}");
        }
    }
}
