//! One request to one server. Only this file uses `ureq`.
//!
//! All of the library's settings are made in [`Fetcher::new`], on purpose: its defaults have no
//! timeouts, few idle connections and large buffers. A status is not believed, nor is a length:
//! the hash decides.

use std::collections::HashMap;
use std::env;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::{Response, Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Timeout};

use super::proxy::{Proxies, Variable};
use super::servers::{Answer, Failure, Url};
use crate::block::{self, BLOCK_SIZE, Block, READ_SIZE};
use crate::error::{Cause, Error, Result};
use crate::hash::Hash;
use crate::mutex::lock;
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
    tally: Mutex<Tally>,
}

/// What was asked and received so far.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub requests: u64,
    /// Of bodies.
    pub bytes: u64,
}

type Answered<T> = std::result::Result<T, Unanswered>;

/// Why a request brought no answer.
enum Unanswered {
    /// The connection ended before an answer began: it may have been a kept one that the server
    /// had closed meanwhile.
    HungUp,
    Failed(Failure),
    /// This machine is at fault, not the server.
    Local(Error),
}

impl Fetcher {
    /// Keeps a connection to each of `servers` for each of `jobs`. `connect_timeout` is for a connection; `timeout` for sending a request, for the head of
    /// its answer and for its body, each.
    ///
    /// # Errors
    /// When the environment names a proxy that is not one.
    pub fn new(
        servers: &[Url],
        jobs: usize,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self> {
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
                .max_idle_connections(jobs.saturating_mul(servers.len()))
                .max_idle_connections_per_host(jobs)
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
            tally: Mutex::default(),
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

    /// What was asked and received until now.
    pub fn tally(&self) -> Tally {
        *lock(&self.tally)
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
            Err(Unanswered::HungUp) => self.request(agent, &url, true),
            done => done,
        };
        let failure = match response.and_then(|response| self.receive(response, hash)) {
            Ok(answer) => return Ok(answer),
            Err(Unanswered::HungUp) => Failure::strike("it hung up without an answer", true),
            Err(Unanswered::Failed(failure)) => failure,
            Err(Unanswered::Local(error)) => return Err(error),
        };
        Ok(Answer::Failed(failure))
    }

    fn request(&self, agent: &Agent, url: &str, fresh: bool) -> Answered<Response<Body>> {
        let mut request = agent.get(url);
        if fresh {
            // No kept connection is younger than this.
            request = request.config().max_idle_age(Duration::ZERO).build();
        }
        lock(&self.tally).requests += 1;
        request.call().map_err(|e| self.unanswered(e, url))
    }

    fn unanswered(&self, error: ureq::Error, url: &str) -> Unanswered {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        use ureq::Error;
        Unanswered::Failed(match error {
            Error::Timeout(Timeout::Connect) => {
                let seconds = self.connect_timeout.as_secs_f32();
                Failure::gone(format!("no connection within {seconds} s"))
            }
            Error::Timeout(_) => self.silence("no answer"),
            Error::Io(e) if sys::is_shortage(&e) => {
                return Unanswered::Local(crate::error::Error::io("ask", url, &e));
            }
            Error::Io(e) => match e.kind() {
                UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => {
                    return Unanswered::HungUp;
                }
                _ => Failure::gone(Cause(&e)),
            },
            Error::HostNotFound => Failure::gone("host not found"),
            Error::ConnectionFailed => Failure::gone("no connection"),
            Error::ConnectProxyFailed(e) => Failure::gone(format_args!("the proxy refused: {e}")),
            Error::LargeResponseHeader(..) => {
                Failure::strike(format_args!("a head of over {MAX_HEAD} bytes"), false)
            }
            e => Failure::strike(format_args!("not HTTP: {e}"), false),
        })
    }

    fn silence(&self, lacking: &str) -> Failure {
        let seconds = self.timeout.as_secs_f32();
        Failure::gone(format_args!("{lacking} within {seconds} s"))
    }

    /// Takes an answer for what it is. Its body is read to the end, or its connection is lost.
    fn receive(&self, mut response: Response<Body>, hash: &Hash) -> Answered<Answer> {
        let status = response.status();
        if status == 200 {
            return self.receive_block(&mut response, hash);
        }
        let reason = status.canonical_reason().unwrap_or_default();
        let reason = format!("HTTP {} {reason}", status.as_str());
        let reason = reason.trim_end().to_owned();
        // What the page says changes nothing, but one that never ends must not cost its time again.
        let page = block::fill(&mut response.body_mut().as_reader(), &mut [0; MAX_PAGE]);
        lock(&self.tally).bytes += page.as_ref().map_or(0, |&length| length as u64);
        if page.is_err_and(|e| is_timeout(&e)) {
            return Err(Unanswered::Failed(self.silence("no whole answer")));
        }
        Ok(match status.as_u16() {
            403 | 404 | 410 => Answer::Missing(reason),
            status => {
                let passing = matches!(status, 408 | 429 | 500..=599);
                Answer::Failed(Failure::strike(reason, passing))
            }
        })
    }

    fn receive_block(&self, response: &mut Response<Body>, hash: &Hash) -> Answered<Answer> {
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if let Some(length) = length.filter(|&length| length > BLOCK_SIZE as u64) {
            let reason = format_args!("{length} bytes, which no block has");
            return Ok(Answer::Failed(Failure::strike(reason, false)));
        }
        let mut bytes = Vec::with_capacity(READ_SIZE);
        let mut body = response.body_mut().as_reader().take(READ_SIZE as u64);
        let read = body.read_to_end(&mut bytes);
        lock(&self.tally).bytes += bytes.len() as u64;
        if let Err(e) = read {
            return Err(Unanswered::Failed(if is_timeout(&e) {
                self.silence("no whole answer")
            } else if e
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<ureq::Error>)
            {
                Failure::strike(format_args!("the body is not HTTP: {e}"), false)
            } else {
                let length = bytes.len();
                Failure::strike(
                    format_args!("it broke off after {length} bytes of a block"),
                    true,
                )
            }));
        }
        let reason = match bytes.len() {
            0 => "an empty answer".to_owned(),
            READ_SIZE.. => "more bytes than a block has".to_owned(),
            length => format!("wrong bytes ({length})"),
        };
        let wrong = || Answer::Failed(Failure::strike(reason, false));
        Ok(Block::verify(bytes, hash).map_or_else(wrong, Answer::Block))
    }
}

/// Whether reading a body took too long.
fn is_timeout(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<ureq::Error>());
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
                io::ErrorKind::TimedOut => ureq::Error::Timeout(Timeout::Connect),
                _ => ureq::Error::Io(e),
            })?;
            addresses = self.resolver.empty();
            addresses.push(alive);
        }
        lock(&self.known).insert(key, addresses.clone());
        Ok(addresses)
    }
}
