//! Which proxy the environment names for a server, read as curl reads it. Pure: knows no sockets,
//! and takes the environment as a closure.

use super::url::Url;
use crate::error::{Error, Result};

/// The proxies that the environment names.
pub struct Proxies {
    pub http: Option<Variable>,
    pub https: Option<Variable>,
    /// Hosts, and domains with all their hosts, that are reached without a proxy.
    direct: Vec<String>,
}

/// A variable that is set. Errors show its name only: its value may hold a password.
pub struct Variable {
    pub name: &'static str,
    pub value: String,
}

impl Variable {
    /// Parses its value.
    ///
    /// # Errors
    /// When that is not the URL of a proxy that can be used.
    pub fn parse(&self) -> Result<ureq::Proxy> {
        const NO_URL: &str = "not the URL of a proxy";
        let refused = |cause| Error::local("use", self.name, cause);
        let proxy = ureq::Proxy::new(&self.value).map_err(|_| refused(NO_URL))?;
        if proxy.protocol() != ureq::ProxyProtocol::Http {
            return Err(refused("psync goes through http:// proxies only"));
        }
        // ureq accepts an empty host, and takes a port of over 65,535 for the usual one.
        let (host, port) = (proxy.host(), proxy.port());
        let authority = proxy.uri().authority().map_or("", |given| given.as_str());
        let place = authority.rsplit('@').next().unwrap_or_default();
        if host.is_empty() || (place != host && place != format!("{host}:{port}")) {
            return Err(refused(NO_URL));
        }
        Ok(proxy)
    }
}

impl Proxies {
    pub fn new(env: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = env(name).filter(|value| !value.is_empty())?;
                Some(Variable { name, value })
            })
        };
        let direct = first(&["no_proxy", "NO_PROXY"]).map_or(String::new(), |found| found.value);
        let direct = direct.split([',', ' ']).filter(|entry| !entry.is_empty());
        Proxies {
            // Not HTTP_PROXY: a web server sets that for its scripts, from a client's `Proxy:` header.
            http: first(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            // Without TLS no server is reached by https.
            https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
                .filter(|_| cfg!(feature = "tls")),
            direct: direct
                .map(|entry| entry.trim_start_matches('.').to_ascii_lowercase())
                .collect(),
        }
    }

    /// The proxy that leads to `server`, if one does.
    pub fn to(&self, server: &Url) -> Option<&Variable> {
        let proxy = if server.is_https() {
            &self.https
        } else {
            &self.http
        };
        // A server that answered in the local network is there; a proxy may know another one by its address.
        let is_direct = || server.is_on_lan() || self.is_direct(server.host());
        proxy.as_ref().filter(|_| !is_direct())
    }

    /// Whether `host`, in lower case and a v6 address in brackets, is reached directly.
    fn is_direct(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        let is_below = |domain: &str| {
            host.strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
        };
        let matches = |entry: &String| entry == "*" || entry == host || is_below(entry);
        self.direct.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::new(|name| {
            let set = variables.iter().find(|(set, _)| *set == name);
            set.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn hosts_and_domains_are_direct() {
        let direct = |list, host| proxies(&[("no_proxy", list)]).is_direct(host);
        for (list, host) in [
            ("*", "any"),
            ("a.org", "a.org"),
            ("a.org", "b.a.org"),
            (".a.org", "a.org"),
            ("x, A.org", "a.org"),
            ("::1", "[::1]"),
        ] {
            assert!(direct(list, host), "{list} {host}");
        }
        for (list, host) in [
            ("", "a"),
            ("a.org", "ba.org"),
            ("b.a.org", "a.org"),
            (",", "a"),
        ] {
            assert!(!direct(list, host), "{list} {host}");
        }
    }

    #[test]
    fn the_first_that_is_set_counts() {
        let named = |variables: &[_]| {
            proxies(variables)
                .http
                .map(|found| (found.name, found.value))
        };
        assert!(named(&[("http_proxy", ""), ("HTTP_PROXY", "x")]).is_none());
        let both = named(&[("ALL_PROXY", "y"), ("http_proxy", "x")]);
        assert_eq!(both, Some(("http_proxy", "x".to_owned())));
    }
}
