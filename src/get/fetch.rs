//! One request to one server. Only this file uses `ureq`.
//!
//! All of the library's settings are made in [`Fetcher::new`], on purpose: its defaults have no
//! timeouts, few idle connections and large buffers. A status is not believed, nor is a length:
//! the hash decides.

use std::collections::HashMap;
use std::env;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// Keeps a connection to each of `servers`. `connect_timeout` is for a connection; `timeout` for sending a request, for the head of
    /// its answer and for its body, each.
    ///
    /// # Errors
    /// When the environment names a proxy that is not one.
    pub fn new(servers: &[Url], connect_timeout: Duration, timeout: Duration) -> Result<Self> {
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
                .max_idle_connections(servers.len())
                .max_idle_connections_per_host(1)
                .max_idle_age(MAX_IDLE_AGE)
                .user_agent(concat!("psync/", env!("CARGO_PKG_VERSION")))
                .accept(AutoHeaderValue::None)
                .accept_encoding(AutoHeaderValue::None)
                .proxy(proxy)
                .build();
            Agent::with_parts(
                config,
                DefaultConnector::default(),
                ResolveOnce::new(connect_timeout),
            )
        };
        // Only where a server is reached by it does it matter whether it can be used.
        let by = |proxy: &Option<Variable>, https: bool| -> Result<Option<Agent>> {
            let led =
                |server: &Url| server.is_https() == https && !proxies.is_direct(server.host());
            let proxy = proxy.as_ref().filter(|_| servers.iter().any(led));
            Ok(proxy
                .map(parse_proxy)
                .transpose()?
                .map(|proxy| agent(Some(proxy))))
        };
        Ok(Fetcher {
            direct: agent(None),
            http: by(&proxies.http, false)?,
            https: by(&proxies.https, true)?,
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

/// Looks each host up once: the default resolver does it before every request. Of several
/// addresses it gives the first that takes a connection: a dead one would cost its time again
/// with every connection.
#[derive(Debug)]
struct ResolveOnce {
    resolver: DefaultResolver,
    connect_timeout: Duration,
    /// By scheme and authority, since the port follows from both.
    known: Mutex<HashMap<String, ResolvedSocketAddrs>>,
}

impl ResolveOnce {
    fn new(connect_timeout: Duration) -> Self {
        ResolveOnce {
            resolver: DefaultResolver::default(),
            connect_timeout,
            known: Mutex::default(),
        }
    }

    /// The first address that can be connected to, all of them sharing the time for one.
    fn first_alive(&self, addresses: &[SocketAddr]) -> io::Result<SocketAddr> {
        let mut failure = io::ErrorKind::NotFound.into();
        for address in addresses {
            let share = self.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1);
            match TcpStream::connect_timeout(address, share) {
                Ok(_) => return Ok(*address),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }
}

impl Resolver for ResolveOnce {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let key = format!("{:?} {:?}", uri.scheme(), uri.authority());
        if let Some(addresses) = lock(&self.known).get(&key) {
            return Ok(addresses.clone());
        }
        let mut addresses = self.resolver.resolve(uri, config, timeout)?;
        if addresses.len() > 1 {
            let alive = self.first_alive(&addresses).map_err(|e| match e.kind() {
                io::ErrorKind::TimedOut => ureq::Error::Timeout(ureq::Timeout::Connect),
                _ => ureq::Error::Io(e),
            })?;
            addresses = self.resolver.empty();
            addresses.push(alive);
        }
        lock(&self.known).insert(key, addresses.clone());
        Ok(addresses)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
