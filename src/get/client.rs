//! Requests to servers, one at a time. Only this file and those of `client/` use `ureq`.
//!
//! All of the library's settings are made in [`Client::new`], on purpose: its defaults have no
//! timeouts, few idle connections and large buffers. What an answer is worth is decided elsewhere.

mod deadline;
pub mod failure;
mod proxy;
mod resolve;
pub mod url;

use std::env;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::{self, HeaderName, Uri, header};
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, BodyReader, RequestBuilder, ResponseExt, Timeout};

use crate::block;
use crate::error::{Cause, Error, Result};
use crate::hash::Hash;
use crate::mutex::lock;
use crate::seconds::Seconds;
use crate::sys;
use deadline::{PartDeadlines, within};
use failure::ServerFailure;
use proxy::Proxies;
use resolve::ResolveOnce;
use url::Url;

/// Bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// Bytes of one read. More bytes mean fewer system calls; beyond 128 KiB the gain ends. All connections
/// share `INPUTS`, but each has [`MIN_INPUT`].
const MAX_INPUT: usize = 128 * 1024;
const INPUTS: usize = 1024 * 1024;

/// The longest head and one more byte, without which ureq takes a full buffer for the end of the
/// connection.
const MIN_INPUT: usize = MAX_HEAD + 1;

/// A request is one line and four fields; a batch adds its hashlist.
const OUTPUT: usize = 8 * 1024;

/// Redirects that a mirror may make. A server may make none: a peer must not send the client elsewhere.
const MAX_REDIRECTS: u32 = 3;

/// Bytes of an error page that are read, so that its connection can be used again. A longer page costs
/// the connection.
const MAX_PAGE: usize = 16 * 1024;

/// Longer than any server keeps an idle connection. A request notices that its connection is closed.
const MAX_IDLE_AGE: Duration = Duration::from_secs(600);

/// Connections kept to peers. A stranger may name 63, and one to each for every job would take more
/// descriptors than a process has.
const PEER_CONNECTIONS: usize = 64;

/// Asks servers, over connections that are kept. All workers share it.
pub struct Client {
    proxies: Proxies,
    direct: Agent,
    /// By a proxy, with the variable that names it.
    by_proxy: Vec<(&'static str, Agent)>,
    connect_timeout: Duration,
    timeout: Duration,
    tally: Arc<Mutex<Tally>>,
}

/// What was asked and received so far.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub requests: u64,
    /// Bytes of bodies.
    pub bytes: u64,
}

/// Calls the library, through this agent. The flag says: over a new connection.
type Call<'a> = &'a dyn Fn(&Agent, bool) -> std::result::Result<http::Response<Body>, ureq::Error>;

/// What reading a body brings, where only the server can fail.
pub type ServerResult<T> = std::result::Result<T, ServerFailure>;

/// What a request brings.
pub type RequestResult<T> = std::result::Result<T, RequestError>;

/// Whose fault it is that a request brings nothing.
pub enum RequestError {
    Server(ServerFailure),
    /// This machine's: it says nothing of the server, and ends the command.
    Local(Error),
}

impl From<ServerFailure> for RequestError {
    fn from(failure: ServerFailure) -> Self {
        RequestError::Server(failure)
    }
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        RequestError::Local(error)
    }
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
        let agent = |proxy| {
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
            let connector = DefaultConnector::default().chain(PartDeadlines);
            Agent::with_parts(config, connector, ResolveOnce::new(connect_timeout))
        };
        let mut by_proxy = Vec::new();
        for proxy in proxies.http.iter().chain(&proxies.https) {
            // A proxy that no server needs may be unusable. Any peer may need it: what a stranger says
            // must not decide that.
            let leads_to = |server| proxies.to(server).is_some_and(|to| to.name == proxy.name);
            if peers || servers.iter().any(leads_to) {
                by_proxy.push((proxy.name, agent(Some(proxy.parse()?))));
            }
        }
        Ok(Client {
            direct: agent(None),
            by_proxy,
            proxies,
            connect_timeout,
            timeout,
            tally: Arc::default(),
        })
    }

    /// The agent that reaches this server, and the words before the reason why it did not.
    fn agent(&self, server: &Url) -> (&Agent, &'static str) {
        let name = self.proxies.to(server).map(|proxy| proxy.name);
        let by_proxy = self.by_proxy.iter().find(|(by, _)| Some(*by) == name);
        by_proxy.map_or((&self.direct, ""), |(_, agent)| (agent, "by the proxy: "))
    }

    /// The tally until now.
    pub fn tally(&self) -> Tally {
        *lock(&self.tally)
    }

    /// Asks `server` for a block.
    ///
    /// # Errors
    /// When there is no answer, or this machine has no descriptor or memory left to ask.
    pub fn block(&self, server: &Url, hash: &Hash) -> RequestResult<Response> {
        self.get(server, &format!("{server}/{hash}"))
    }

    /// Asks `server` for the servers that it knows.
    ///
    /// # Errors
    /// As [`Client::block`].
    pub fn peers(&self, server: &Url) -> RequestResult<Response> {
        self.get(server, &format!("{server}/peers"))
    }

    fn get(&self, server: &Url, url: &str) -> RequestResult<Response> {
        self.ask(server, url, &|agent, is_fresh| {
            prepare(agent.get(url), is_fresh).call()
        })
    }

    /// Asks `server` for all blocks of `list`, a hashlist, in one request.
    ///
    /// # Errors
    /// As [`Client::block`].
    pub fn blocks(&self, server: &Url, list: &[u8]) -> RequestResult<Response> {
        let url = format!("{server}/blocks");
        self.ask(server, &url, &|agent, is_fresh| {
            prepare(agent.post(&url), is_fresh).send(list)
        })
    }

    /// Asks `mirror` for the bytes from `first` to `last`, both included, or to the end.
    ///
    /// # Errors
    /// As [`Client::block`].
    pub fn range(&self, mirror: &Url, first: u64, last: Option<u64>) -> RequestResult<Response> {
        let url = mirror.to_string();
        let last = last.map_or_else(String::new, |last| last.to_string());
        let range = format!("bytes={first}-{last}");
        self.ask(mirror, &url, &|agent, is_fresh| {
            let request = prepare(agent.get(&url), is_fresh).header(header::RANGE, &range);
            let request = request.config().max_redirects(MAX_REDIRECTS).build();
            // The library reads the page of each redirect, which may have no end: all redirects take
            // this time at most.
            within(self.timeout, || request.call())
        })
    }

    /// Makes one request: its answer, whose body is still to be read. Where the connection was a kept one that
    /// the server may have closed meanwhile, it asks again over a new one.
    fn ask(&self, server: &Url, url: &str, call: Call) -> RequestResult<Response> {
        let (agent, by) = self.agent(server);
        let call = |is_fresh| {
            lock(&self.tally).requests += 1;
            call(agent, is_fresh)
        };
        let answer = match call(false) {
            Err(e) if is_hung_up(&e) => call(true),
            answer => answer,
        };
        let answer = answer.map_err(|e| self.unanswered(e, url, by))?;
        let place = answer.get_uri().clone();
        Ok(Response {
            place,
            answer: answer.map(Body::into_reader),
            timeout: self.timeout,
            filled: 0,
            bytes: 0,
            tally: Arc::clone(&self.tally),
        })
    }

    /// Why there is no answer. `by` stands before the reason for no connection.
    fn unanswered(&self, error: ureq::Error, url: &str, by: &str) -> RequestError {
        use ureq::Error;
        RequestError::Server(match error {
            e if is_hung_up(&e) => ServerFailure::strike("it hung up without an answer", true),
            Error::Timeout(Timeout::Connect) => {
                let seconds = Seconds(self.connect_timeout);
                ServerFailure::unreachable(format_args!("{by}no connection within {seconds} s"))
            }
            Error::Timeout(_) => silence("no answer", self.timeout),
            Error::Io(e) if sys::is_shortage(&e) => {
                return RequestError::Local(crate::error::Error::io("ask", url, &e));
            }
            Error::Io(e) => ServerFailure::unreachable(format_args!("{by}{}", Cause(&e))),
            Error::HostNotFound => ServerFailure::unreachable(format_args!("{by}host not found")),
            Error::ConnectionFailed => {
                ServerFailure::unreachable(format_args!("{by}no connection"))
            }
            Error::ConnectProxyFailed(e) => {
                ServerFailure::unreachable(format_args!("the proxy refused: {e}"))
            }
            Error::LargeResponseHeader(..) => {
                ServerFailure::strike(format_args!("a head of over {MAX_HEAD} bytes"), false)
            }
            e => ServerFailure::strike(format_args!("not HTTP: {e}"), false),
        })
    }
}

/// Every request passes here, whatever it asks for: a header of all requests belongs here.
fn prepare<B>(request: RequestBuilder<B>, is_fresh: bool) -> RequestBuilder<B> {
    if is_fresh {
        // No kept connection is that young.
        request.config().max_idle_age(Duration::ZERO).build()
    } else {
        request
    }
}

/// Whether the connection ended before the answer began. The server may have closed a kept connection
/// meanwhile.
fn is_hung_up(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ureq::Error::Io(e) = error else {
        return false;
    };
    matches!(
        e.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

fn silence(lacking: &str, timeout: Duration) -> ServerFailure {
    let seconds = Seconds(timeout);
    ServerFailure::silent(format_args!("{lacking} within {seconds} s"))
}

/// An answer: its head, and its body as it comes. A body that is not read to its end costs its
/// connection.
///
/// Each part of a body has `timeout`, so a server may take long over many blocks, but not over one.
pub struct Response {
    place: Uri,
    answer: http::Response<BodyReader<'static>>,
    timeout: Duration,
    /// Bytes of the current part, or of the last one.
    filled: usize,
    /// Received and not yet in the tally.
    bytes: u64,
    tally: Arc<Mutex<Tally>>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.answer.status().as_u16()
    }

    /// The body's length, as the head has it.
    pub fn length(&self) -> Option<u64> {
        self.field(&header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Where the range in the answer begins (RFC 9110, section 14.4).
    pub fn range_start(&self) -> Option<u64> {
        let (unit, range) = self.field(&header::CONTENT_RANGE)?.split_once(' ')?;
        let (start, _) = range.split_once('-')?;
        let is_plain = start.bytes().all(|c| c.is_ascii_digit());
        let start = start.parse().ok();
        start.filter(|_| is_plain && unit.eq_ignore_ascii_case("bytes"))
    }

    /// Where the answer comes from, after all redirects.
    pub fn place(&self) -> Url {
        Url::from_text(self.place.to_string())
    }

    fn field(&self, name: &HeaderName) -> Option<&str> {
        self.answer.headers().get(name)?.to_str().ok()
    }

    /// Reads one part: until `buffer` is full or the body ends. Returns the bytes read.
    ///
    /// # Errors
    /// When the body breaks off or stops coming.
    pub fn fill(&mut self, buffer: &mut [u8]) -> ServerResult<usize> {
        self.filled = 0;
        let filled = within(self.timeout, || block::fill(self, buffer));
        filled.map_err(|e| self.failure(&e))
    }

    /// Whether the body ends here, so that its connection can be used again.
    ///
    /// # Errors
    /// As [`Response::fill`].
    pub fn ends(&mut self) -> ServerResult<bool> {
        Ok(self.fill(&mut [0])? == 0)
    }

    /// Bytes of the last part, even if it broke off.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Why a part of the body broke off.
    fn failure(&self, error: &io::Error) -> ServerFailure {
        // An error of the library, not of the system.
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(ureq::Error::Timeout(_)) => silence("no whole answer", self.timeout),
            Some(inner) => {
                // A body that is cut off in the line of a chunk's size.
                let transient = matches!(inner, ureq::Error::BodyStalled);
                ServerFailure::strike(format_args!("the body is not HTTP: {error}"), transient)
            }
            None => {
                let reason = format_args!("it broke off after {} bytes of a block", self.filled);
                ServerFailure::strike(reason, true)
            }
        }
    }

    /// The status in words. Reads the page that comes with it, and ignores that.
    ///
    /// # Errors
    /// When the page does not end in time: no other page may cost that time.
    pub fn refusal(&mut self) -> ServerResult<String> {
        if let Err(failure) = self.fill(&mut [0; MAX_PAGE])
            && failure.is_outage()
        {
            return Err(failure);
        }
        let status = self.answer.status();
        let reason = status.canonical_reason().unwrap_or_default();
        let status = status.as_str();
        Ok(format!("HTTP {status} {reason}").trim_end().to_owned())
    }

    /// Adds the bytes received to the tally.
    pub fn account(&mut self) {
        lock(&self.tally).bytes += mem::take(&mut self.bytes);
    }
}

impl io::Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = self.answer.body_mut().read(buffer)?;
        self.filled += received;
        self.bytes += received as u64;
        Ok(received)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        self.account();
    }
}
