//! Which proxy the environment names for a server, read as curl reads it. Pure: knows no sockets,
//! and takes the environment as a closure.

/// What the environment says of proxies.
#[derive(Default)]
pub struct Proxies {
    pub http: Option<Variable>,
    pub https: Option<Variable>,
    /// Hosts, and domains with all hosts in them, to which no proxy leads.
    direct: Vec<String>,
}

/// A variable that is set, which errors name by its name: its value may hold a password.
pub struct Variable {
    pub name: &'static str,
    pub value: String,
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
            // Not HTTP_PROXY: a web server hands its scripts a client's `Proxy:` header so.
            http: first(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            direct: direct
                .map(|entry| entry.trim_start_matches('.').to_ascii_lowercase())
                .collect(),
        }
    }

    /// Whether `host`, in lower case and a v6 address in brackets, is to be reached directly.
    pub fn is_direct(&self, host: &str) -> bool {
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
