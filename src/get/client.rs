//! One request to one server. Only this file and those of `client/` use `ureq`.
//!
//! All of the library's settings are made in [`agent`], on purpose: its defaults have no
//! timeouts, few idle connections and large buffers. What an answer is worth is not decided here.

mod deadline;
pub mod failure;
mod proxy;
mod resolve;
pub mod url;

use std::env;
use std::io;
use std::mem;
use std::ptr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::response::Parts;
use ureq::http::{self, HeaderName, Uri, header};
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, BodyReader, RequestBuilder, ResponseExt, Timeout};

use crate::block;
use crate::error::{Cause, Error, Result};
use crate::hash::Hash;
use crate::mutex::lock;
use crate::seconds::Seconds;
use crate::sys;
use deadline::{PART_DEADLINE, PartDeadlines};
use failure::Failure;
use proxy::{Proxies, Variable};
use resolve::ResolveOnce;
use url::Url;

/// Bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// Bytes read at once: the more, the fewer system calls, and beyond 128 KiB that makes no
/// difference. All connections together take no more than `INPUTS` where the least of each allows.
const MAX_INPUT: usize = 128 * 1024;
const INPUTS: usize = 1024 * 1024;

/// And at least of one: the longest head and one more byte, without which ureq takes a full buffer
/// for the end of the connection.
const MIN_INPUT: usize = MAX_HEAD + 1;

/// A request is one line and four fields, and mostly the lines of a run.
const OUTPUT: usize = 8 * 1024;

/// Redirects of a mirror that are followed. None of a server's: a peer must not send the client
/// elsewhere.
const MAX_REDIRECTS: u32 = 3;

/// Bytes of an answer without a block that are read to use its connection again: an error page.
/// A longer one costs the connection.
const MAX_PAGE: usize = 16 * 1024;

/// Longer than any server keeps an idle connection, and a closed one is noticed anyhow.
const MAX_IDLE_AGE: Duration = Duration::from_secs(600);

/// Connections to peers that are kept. A stranger may name 63, and a connection to each for every job
/// would take more descriptors than a process has.
const PEER_CONNECTIONS: usize = 64;

/// Asks servers, over connections that are kept. Shared by all workers.
pub struct Client {
    proxies: Proxies,
    direct: Agent,
    /// By a proxy, where the environment names one for the scheme.
    http: Option<Agent>,
    https: Option<Agent>,
    connect_timeout: Duration,
    timeout: Duration,
    tally: Arc<Mutex<Tally>>,
}

/// What was asked and received so far.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub requests: u64,
    /// Of bodies.
    pub bytes: u64,
}

pub type Answered<T> = std::result::Result<T, Fault>;

/// What comes of a call of the library.
type Called = std::result::Result<http::Response<Body>, ureq::Error>;

/// Why there is no answer.
pub enum Fault {
    Failed(Failure),
    /// This machine is at fault, not the server.
    Local(Error),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::Failed(failure)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Local(error)
    }
}

/// A server in the local network is the one that answered there, and nobody else's idea of it.
fn is_direct(proxies: &Proxies, server: &Url) -> bool {
    server.is_near() || proxies.is_direct(server.host())
}

impl Client {
    /// Keeps a connection to each of `servers` for each of `jobs`, and some to the peers that may be
    /// found. `connect_timeout` is for a connection; `timeout` for sending a request, for the head of
    /// its answer, and for each part of its body: see [`Response`].
    ///
    /// # Errors
    /// When the environment names a proxy that is not one.
    pub fn new(
        servers: &[Url],
        peers: bool,
        jobs: usize,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self> {
        let proxies = Proxies::new(|name| env::var(name).ok());
        let to_peers = if peers { PEER_CONNECTIONS } else { 0 };
        let connections = (jobs.saturating_mul(servers.len()) + to_peers).max(1);
        let agent = |proxy| agent(proxy, connections, jobs, connect_timeout, timeout);
        // Only where a server is reached by it does it matter whether it can be used.
        let by = |proxy: &Option<Variable>, https: bool| -> Result<Option<Agent>> {
            let led = |server: &Url| server.is_https() == https && !is_direct(&proxies, server);
            // A stranger's word must not make a difference, so any peer is thought to be.
            let peer_led = peers && (!https || cfg!(feature = "tls"));
            let is_used = peer_led || servers.iter().any(led);
            let proxy = proxy.as_ref().filter(|_| is_used);
            Ok(proxy
                .map(parse_proxy)
                .transpose()?
                .map(|proxy| agent(Some(proxy))))
        };
        Ok(Client {
            direct: agent(None),
            http: by(&proxies.http, false)?,
            https: by(&proxies.https, true)?,
            proxies,
            connect_timeout,
            timeout,
            tally: Arc::default(),
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
            .filter(|_| !is_direct(&self.proxies, server));
        by_proxy.unwrap_or(&self.direct)
    }

    /// What was asked and received until now.
    pub fn tally(&self) -> Tally {
        *lock(&self.tally)
    }

    /// Asks `server` for a block.
    ///
    /// # Errors
    /// When there is no answer, or this machine is too short of something to ask.
    pub fn block(&self, server: &Url, hash: &Hash) -> Answered<Response> {
        self.get(server, &server.block(hash), None)
    }

    /// Asks `server` for the servers that it knows.
    ///
    /// # Errors
    /// As [`Client::block`].
    pub fn peers(&self, server: &Url) -> Answered<Response> {
        self.get(server, &server.peers(), None)
    }

    /// Asks `server` for all blocks of `list`, a hashlist, in one request.
    ///
    /// # Errors
    /// As [`Client::block`].
    pub fn blocks(&self, server: &Url, list: &[u8]) -> Answered<Response> {
        let url = server.blocks();
        self.ask(server, &url, &|agent, fresh| {
            only(fresh, agent.post(&url)).send(list)
        })
    }

    /// Asks `mirror` for the bytes from `first` to `last`, this one too, or to the end.
    ///
    /// # Errors
    /// As [`Client::block`].
    pub fn range(&self, mirror: &Url, first: u64, last: Option<u64>) -> Answered<Response> {
        let last = last.map_or_else(String::new, |last| last.to_string());
        let range = format!("bytes={first}-{last}");
        self.get(mirror, &mirror.to_string(), Some(&range))
    }

    fn get(&self, server: &Url, url: &str, range: Option<&str>) -> Answered<Response> {
        self.ask(server, url, &|agent, fresh| {
            let mut request = only(fresh, agent.get(url));
            if let Some(range) = range {
                request = request.header(header::RANGE, range);
                request = request.config().max_redirects(MAX_REDIRECTS).build();
                // The pages that come with redirects are read on the way, and may have no end.
                PART_DEADLINE.set(Some(Instant::now() + self.timeout));
            }
            let answer = request.call();
            PART_DEADLINE.set(None);
            answer
        })
    }

    /// Asks by `call`; once more on a fresh connection, as it is then told, where a kept one may
    /// have been closed meanwhile.
    fn ask(
        &self,
        server: &Url,
        url: &str,
        call: &dyn Fn(&Agent, bool) -> Called,
    ) -> Answered<Response> {
        let agent = self.agent(server);
        let call = |fresh| {
            lock(&self.tally).requests += 1;
            call(agent, fresh)
        };
        let answer = match call(false) {
            Err(e) if is_hung_up(&e) => call(true),
            answer => answer,
        };
        let by = if ptr::eq(agent, &self.direct) {
            ""
        } else {
            "by the proxy: "
        };
        let answer = answer.map_err(|e| self.unanswered(e, url, by))?;
        let place = answer.get_uri().clone();
        let (head, body) = answer.into_parts();
        Ok(Response {
            place,
            head,
            body: body.into_reader(),
            timeout: self.timeout,
            filled: 0,
            bytes: 0,
            tally: Arc::clone(&self.tally),
        })
    }

    /// `by` is said before why there is no connection.
    fn unanswered(&self, error: ureq::Error, url: &str, by: &str) -> Fault {
        use ureq::Error;
        Fault::Failed(match error {
            e if is_hung_up(&e) => Failure::strike("it hung up without an answer", true),
            Error::Timeout(Timeout::Connect) => {
                let seconds = Seconds(self.connect_timeout);
                Failure::unreachable(format_args!("{by}no connection within {seconds} s"))
            }
            Error::Timeout(_) => silence("no answer", self.timeout),
            Error::Io(e) if sys::is_shortage(&e) => {
                return Fault::Local(crate::error::Error::io("ask", url, &e));
            }
            Error::Io(e) => Failure::unreachable(format_args!("{by}{}", Cause(&e))),
            Error::HostNotFound => Failure::unreachable(format_args!("{by}host not found")),
            Error::ConnectionFailed => Failure::unreachable(format_args!("{by}no connection")),
            Error::ConnectProxyFailed(e) => {
                Failure::unreachable(format_args!("the proxy refused: {e}"))
            }
            Error::LargeResponseHeader(..) => {
                Failure::strike(format_args!("a head of over {MAX_HEAD} bytes"), false)
            }
            e => Failure::strike(format_args!("not HTTP: {e}"), false),
        })
    }
}

/// The library with all its settings: so many `connections` are kept, of them `jobs` to one server.
fn agent(
    proxy: Option<ureq::Proxy>,
    connections: usize,
    jobs: usize,
    connect_timeout: Duration,
    timeout: Duration,
) -> Agent {
    let config = Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Phases only: a global, per-call or resolve timeout starts a thread a request.
        .timeout_connect(Some(connect_timeout))
        .timeout_send_request(Some(timeout))
        .timeout_send_body(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .max_response_header_size(MAX_HEAD)
        .input_buffer_size((INPUTS / connections).clamp(MIN_INPUT, MAX_INPUT))
        .output_buffer_size(OUTPUT)
        .max_idle_connections(connections)
        .max_idle_connections_per_host(jobs)
        .max_idle_age(MAX_IDLE_AGE)
        .user_agent(concat!("psync/", env!("CARGO_PKG_VERSION")))
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .proxy(proxy)
        .build();
    Agent::with_parts(
        config,
        DefaultConnector::default().chain(PartDeadlines),
        ResolveOnce::new(connect_timeout),
    )
}

/// Has a request wait for a fresh connection, where that is asked for: no kept one is so young.
fn only<B>(fresh: bool, request: RequestBuilder<B>) -> RequestBuilder<B> {
    if fresh {
        request.config().max_idle_age(Duration::ZERO).build()
    } else {
        request
    }
}

/// Whether the connection ended before an answer began: it may have been a kept one that the
/// server had closed meanwhile.
fn is_hung_up(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ends = [
        UnexpectedEof,
        ConnectionReset,
        ConnectionAborted,
        BrokenPipe,
    ];
    matches!(error, ureq::Error::Io(e) if ends.contains(&e.kind()))
}

fn silence(lacking: &str, timeout: Duration) -> Failure {
    let seconds = Seconds(timeout);
    Failure::silent(format_args!("{lacking} within {seconds} s"))
}

/// An answer: its head, and its body as it comes. A body must be read to its end, or its connection
/// is lost.
///
/// Time is given to each part of a body that is filled: a server that sends block after block may
/// take long over a run of them, one that sends a byte now and then may not.
pub struct Response {
    place: Uri,
    head: Parts,
    body: BodyReader<'static>,
    timeout: Duration,
    /// Bytes of the part that is being filled, or was last.
    filled: usize,
    /// Received and not yet in the tally.
    bytes: u64,
    tally: Arc<Mutex<Tally>>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// What the head says about the body's length.
    pub fn length(&self) -> Option<u64> {
        self.field(&header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Where the range that was answered begins (RFC 9110, section 14.4).
    pub fn range_start(&self) -> Option<u64> {
        let (unit, range) = self.field(&header::CONTENT_RANGE)?.split_once(' ')?;
        let (start, _) = range.split_once('-')?;
        let is_plain = start.bytes().all(|c| c.is_ascii_digit());
        (is_plain && unit.eq_ignore_ascii_case("bytes"))
            .then(|| start.parse().ok())
            .flatten()
    }

    /// Where the answer comes from in the end.
    pub fn place(&self) -> Url {
        Url::of_answer(&self.place)
    }

    fn field(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Reads until `buffer` is full or the body at its end, in `timeout` altogether; tells the
    /// bytes read.
    ///
    /// # Errors
    /// When the body breaks off or stops coming.
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.filled = 0;
        PART_DEADLINE.set(Some(Instant::now() + self.timeout));
        let filled = block::fill(self, buffer);
        PART_DEADLINE.set(None);
        filled
    }

    /// Whether nothing more comes, which lets the connection be used again.
    ///
    /// # Errors
    /// As [`Response::fill`].
    pub fn ends(&mut self) -> io::Result<bool> {
        Ok(self.fill(&mut [0])? == 0)
    }

    /// Bytes of the part that was filled last, also where it did not come whole.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Why a part of a body did not come whole.
    pub fn failure(&self, error: &io::Error) -> Failure {
        if is_timeout(error) {
            silence("no whole answer", self.timeout)
        } else if let Some(inner) = ureq_error(error) {
            // Cut off in the line of a chunk's size it is told as this.
            let transient = matches!(inner, ureq::Error::BodyStalled);
            Failure::strike(format_args!("the body is not HTTP: {error}"), transient)
        } else {
            let reason = format_args!("it broke off after {} bytes of a block", self.filled);
            Failure::strike(reason, true)
        }
    }

    /// The status for a person, after the page that comes with it has been read: what that says
    /// changes nothing.
    ///
    /// # Errors
    /// When the page never ends, which must not cost its time again.
    pub fn refusal(&mut self) -> std::result::Result<String, Failure> {
        if self.fill(&mut [0; MAX_PAGE]).is_err_and(|e| is_timeout(&e)) {
            return Err(silence("no whole answer", self.timeout));
        }
        let reason = self.head.status.canonical_reason().unwrap_or_default();
        let status = self.head.status.as_str();
        Ok(format!("HTTP {status} {reason}").trim_end().to_owned())
    }
}

impl io::Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = self.body.read(buffer)?;
        self.filled += received;
        self.bytes += received as u64;
        Ok(received)
    }
}

impl Response {
    /// Brings what was received into the tally.
    pub fn account(&mut self) {
        lock(&self.tally).bytes += mem::take(&mut self.bytes);
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        self.account();
    }
}

/// Whether reading a body took too long.
fn is_timeout(error: &io::Error) -> bool {
    matches!(ureq_error(error), Some(ureq::Error::Timeout(_)))
}

/// What the library says is wrong with a body, rather than the system.
fn ureq_error(error: &io::Error) -> Option<&ureq::Error> {
    error.get_ref()?.downcast_ref()
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
