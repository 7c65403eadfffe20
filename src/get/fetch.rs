//! One request to one server. Only this file uses `ureq`.
//!
//! All of the library's settings are made in [`Fetcher::new`], on purpose: its defaults have no
//! timeouts, few idle connections and large buffers. A status is not believed, nor is a length:
//! the hash decides.

use std::collections::HashMap;
use std::env;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::{Response, Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::proxy::{Proxies, Variable};
use super::servers::{Answer, Url};
use crate::block::{self, BLOCK_SIZE, Block, READ_SIZE};
use crate::error::{Cause, Error, Result};
use crate::hash::Hash;
use crate::sys;

/// Bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// Bytes read at once: a block with its head fits, and one more byte than a head may have, without
/// which ureq takes a full buffer for the end of the connection.
const INPUT: usize = MAX_HEAD + 1;

/// A request is one line and four fields.
const OUTPUT: usize = 4 * 1024;

/// Bytes of an answer without a block that are read to use its connection again: an error page.
/// A longer one costs the connection.
const MAX_PAGE: usize = 16 * 1024;

/// Longer than any server keeps an idle connection, and a closed one is noticed anyhow.
const MAX_IDLE_AGE: Duration = Duration::from_secs(600);

/// Asks servers for blocks, over connections that are kept. Shared by all workers.
pub struct Fetcher {
    proxies: Proxies,
    direct: Agent,
    /// By a proxy, where the environment names one for the scheme.
    http: Option<Agent>,
    https: Option<Agent>,
    connect_timeout: Duration,
    timeout: Duration,
}

/// Why a request brought no answer.
enum Failure {
    /// The connection ended before an answer began: it may have been a kept one that the server
    /// had closed meanwhile.
    HungUp(String),
    /// The server cannot be reached, or is silent.
    Unreachable(String),
    Malformed(String),
    /// This machine is at fault, not the server.
    Local(Error),
}

impl Fetcher {
    /// `connect_timeout` is for a connection; `timeout` for sending a request, for the head of
    /// its answer and for its body, each.
    ///
    /// # Errors
    /// When the environment names a proxy that is not one.
    pub fn new(connect_timeout: Duration, timeout: Duration) -> Result<Self> {
        let proxies = Proxies::new(|name| env::var(name).ok());
        let agent = |proxy| {
            let config = Config::builder()
                .http_status_as_error(false)
                // A peer must not send the client elsewhere.
                .max_redirects(0)
                .max_redirects_will_error(false)
                // Phases only: a global, per-call or resolve timeout starts a thread a request.
                .timeout_connect(Some(connect_timeout))
                .timeout_send_request(Some(timeout))
                .timeout_recv_response(Some(timeout))
                .timeout_recv_body(Some(timeout))
                .max_response_header_size(MAX_HEAD)
                .input_buffer_size(INPUT)
                .output_buffer_size(OUTPUT)
                .max_idle_age(MAX_IDLE_AGE)
                .user_agent(concat!("psync/", env!("CARGO_PKG_VERSION")))
                .accept(AutoHeaderValue::None)
                .accept_encoding(AutoHeaderValue::None)
                .proxy(proxy)
                .build();
            Agent::with_parts(config, DefaultConnector::default(), ResolveOnce::default())
        };
        let by = |proxy: &Option<Variable>| -> Result<Option<Agent>> {
            Ok(proxy
                .as_ref()
                .map(parse_proxy)
                .transpose()?
                .map(|proxy| agent(Some(proxy))))
        };
        Ok(Fetcher {
            direct: agent(None),
            http: by(&proxies.http)?,
            https: if cfg!(feature = "tls") {
                by(&proxies.https)?
            } else {
                None
            },
            proxies,
            connect_timeout,
            timeout,
        })
    }

    /// By a proxy or directly, as the environment has it for this server.
    fn agent(&self, server: &Url) -> &Agent {
        let by_proxy = if server.is_https() {
            &self.https
        } else {
            &self.http
        };
        let by_proxy = by_proxy
            .as_ref()
            .filter(|_| !self.proxies.is_direct(server.host()));
        by_proxy.unwrap_or(&self.direct)
    }

    /// Asks `server` for a block.
    ///
    /// # Errors
    /// When this machine is too short of something to ask.
    pub fn fetch(&self, server: &Url, hash: &Hash) -> Result<Answer> {
        let url = server.block(hash);
        let agent = self.agent(server);
        let response = match self.request(agent, &url, false) {
            // Once more, on a connection that is fresh for certain.
            Err(Failure::HungUp(_)) => self.request(agent, &url, true),
            done => done,
        };
        match response.and_then(|response| self.receive(response, hash)) {
            Ok(answer) => Ok(answer),
            Err(Failure::HungUp(reason) | Failure::Malformed(reason)) => Ok(Answer::Wrong(reason)),
            Err(Failure::Unreachable(reason)) => Ok(Answer::Unreachable(reason)),
            Err(Failure::Local(error)) => Err(error),
        }
    }

    fn request(
        &self,
        agent: &Agent,
        url: &str,
        fresh: bool,
    ) -> std::result::Result<Response<ureq::Body>, Failure> {
        let mut request = agent.get(url);
        if fresh {
            // No kept connection is younger than this.
            request = request.config().max_idle_age(Duration::ZERO).build();
        }
        request.call().map_err(|e| self.failure(e, url))
    }

    fn failure(&self, error: ureq::Error, url: &str) -> Failure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => Failure::Unreachable(format!(
                "no connection within {} s",
                self.connect_timeout.as_secs_f32()
            )),
            ureq::Error::Timeout(_) => {
                Failure::Unreachable(format!("no answer within {} s", self.timeout.as_secs_f32()))
            }
            ureq::Error::Io(e) if sys::is_shortage(&e) => Failure::Local(Error::io("ask", url, &e)),
            ureq::Error::Io(e)
                if matches!(
                    e.kind(),
                    UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
                ) =>
            {
                Failure::HungUp("it hung up without an answer".to_owned())
            }
            ureq::Error::Io(e) => Failure::Unreachable(Cause(&e).to_string()),
            ureq::Error::HostNotFound => Failure::Unreachable("host not found".to_owned()),
            ureq::Error::ConnectionFailed => Failure::Unreachable("no connection".to_owned()),
            ureq::Error::ConnectProxyFailed(e) => {
                Failure::Unreachable(format!("the proxy refused: {e}"))
            }
            ureq::Error::LargeResponseHeader(..) => {
                Failure::Malformed(format!("a head of over {MAX_HEAD} bytes"))
            }
            e => Failure::Malformed(format!("not HTTP: {e}")),
        }
    }

    fn silence(&self) -> Failure {
        let seconds = self.timeout.as_secs_f32();
        Failure::Unreachable(format!("no whole answer within {seconds} s"))
    }

    /// Takes an answer for what it is. Its body is read to the end, or its connection is lost.
    fn receive(
        &self,
        mut response: Response<ureq::Body>,
        hash: &Hash,
    ) -> std::result::Result<Answer, Failure> {
        let status = response.status();
        if status == 200 {
            return self.receive_block(&mut response, hash);
        }
        let reason = format!(
            "HTTP {} {}",
            status.as_str(),
            status.canonical_reason().unwrap_or_default()
        );
        let reason = reason.trim_end().to_owned();
        // What the page says changes nothing, but one that never ends must cost its time once.
        let page = block::fill(&mut response.body_mut().as_reader(), &mut [0; MAX_PAGE]);
        if page.is_err_and(|e| is_timeout(&e)) {
            return Err(self.silence());
        }
        Ok(match status.as_u16() {
            403 | 404 | 410 => Answer::Missing(reason),
            _ => Answer::Wrong(reason),
        })
    }

    fn receive_block(
        &self,
        response: &mut Response<ureq::Body>,
        hash: &Hash,
    ) -> std::result::Result<Answer, Failure> {
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if let Some(length) = length.filter(|&length| length > BLOCK_SIZE as u64) {
            return Ok(Answer::Wrong(format!("{length} bytes, which no block has")));
        }
        let mut bytes = Vec::with_capacity(READ_SIZE);
        let read = response
            .body_mut()
            .as_reader()
            .take(READ_SIZE as u64)
            .read_to_end(&mut bytes);
        if let Err(e) = read {
            return Err(if is_timeout(&e) {
                self.silence()
            } else if e
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<ureq::Error>)
            {
                Failure::Malformed(format!("the body is not HTTP: {e}"))
            } else {
                let length = bytes.len();
                Failure::Malformed(format!("it broke off after {length} bytes of a block"))
            });
        }
        let reason = match bytes.len() {
            0 => "an empty answer".to_owned(),
            READ_SIZE.. => "more bytes than a block has".to_owned(),
            length => format!("wrong bytes ({length})"),
        };
        Ok(Block::verify(bytes, hash).map_or(Answer::Wrong(reason), Answer::Block))
    }
}

/// Whether reading a body took too long.
fn is_timeout(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref());
    matches!(inner, Some(ureq::Error::Timeout(_)))
}

fn parse_proxy(variable: &Variable) -> Result<ureq::Proxy> {
    let refused = |cause| Error::local("use", variable.name, cause);
    const NO_URL: &str = "not the URL of a proxy";
    let proxy = ureq::Proxy::new(&variable.value).map_err(|_| refused(NO_URL))?;
    if proxy.protocol() != ureq::ProxyProtocol::Http {
        return Err(refused("psync goes through http:// proxies only"));
    }
    // ureq takes an empty host, and the usual port for one that does not exist.
    let authority = proxy
        .uri()
        .authority()
        .map_or("", |authority| authority.as_str());
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    let port = host_and_port.strip_prefix(proxy.host());
    let port_is_right =
        port.is_some_and(|port| port.is_empty() || port == format!(":{}", proxy.port()));
    if proxy.host().is_empty() || !port_is_right {
        return Err(refused(NO_URL));
    }
    Ok(proxy)
}

/// Looks each host up once: the default resolver does it before every request.
#[derive(Debug, Default)]
struct ResolveOnce {
    resolver: DefaultResolver,
    known: Mutex<HashMap<String, ResolvedSocketAddrs>>,
}

impl Resolver for ResolveOnce {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        if let Some(addresses) = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(host)
        {
            return Ok(addresses.clone());
        }
        let addresses = self.resolver.resolve(uri, config, timeout)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(host.to_owned(), addresses.clone());
        Ok(addresses)
    }
}
