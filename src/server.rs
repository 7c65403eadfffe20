//! `psync server`: serves a block directory, and the blocks of whole files, over HTTP. It only ever
//! reads.
//!
//! This file owns the listening sockets: one thread each, which accepts and gives every connection a
//! thread, an idle one (`server/threads.rs`) if there is any. The way of a request: `server/connection.rs` has
//! it received (`server/input.rs`), parsed (`server/http.rs`, and `server/list.rs` for a list of blocks) and
//! answered (`server/answers.rs`, out of `server/output.rs` over `server/socket.rs`). Which client has to go
//! when there are too many, or when they take too much memory, is `server/clients.rs`. `server/files.rs` keeps
//! the files of `--file`, `server/peers.rs` reads the text of `--peers`, and `server/log.rs` writes what `-v` says.

mod answers;
mod clients;
mod connection;
mod files;
mod http;
mod input;
mod list;
mod log;
mod output;
mod peers;
mod socket;
mod threads;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::console::{self, Stdout};
use crate::error::{Error, Result};
use crate::lan::{self, Responder};
use crate::spawn::spawn;
use crate::store::BlockDir;
use crate::sys;
use answers::{Answers, Source};
use clients::{Admission, Admitted, Clients, SHORTAGE_PAUSE};
use connection::Connection;
use files::{Files, Indexer};
use http::{Request, Status};
use input::Input;
use log::Log;
use threads::{Handover, Threads};

/// Stack of a connection's thread, in bytes: its deepest path takes a quarter of it, a panic's
/// backtrace the rest.
const STACK: usize = 128 * 1024;

/// Stack of the thread that reads files, in bytes: what std gives a thread.
const INDEXER_STACK: usize = 2 * 1024 * 1024;

/// What the command line asks for.
pub struct Options {
    /// None only where there are files to serve.
    pub dir: Option<BlockDir>,
    /// Whether the directory was named, and so must be there.
    pub dir_named: bool,
    pub files: Vec<PathBuf>,
    /// The file that `/peers` is answered with.
    pub peers: Option<PathBuf>,
    pub addresses: Vec<Address>,
    /// By which interface questions of the local network are answered, if they are: its address, or
    /// unspecified for the system's choice.
    pub lan: Option<Ipv4Addr>,
    pub max_connections: usize,
    pub timeout: Duration,
    pub verbose: bool,
}

/// `HOST:PORT`, `[v6]:PORT`, or `:PORT` for all interfaces.
pub struct Address {
    text: String,
    host: String,
    port: u16,
}

impl Address {
    /// None when it is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        if port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok().then_some(v6)?,
            None if host.contains([':', '[', ']', '/']) => return None,
            None => host,
        };
        Some(Address {
            text: text.to_owned(),
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// Binds every address that the host stands for, all to one port. One that this machine has
    /// no interface for is passed over as long as another can be had.
    fn bind(&self, timeout: Duration) -> Result<Vec<TcpListener>> {
        let failed = |e: io::Error| Error::io("listen on", &self.text, &e);
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut failure = None;
        let mut port = self.port;
        let mut hosts = self.hosts().map_err(failed)?;
        hosts.dedup();
        for host in hosts {
            let bound = TcpListener::bind((host, port));
            match bound.and_then(|listener| socket::set_options(listener, timeout)) {
                Ok(listener) => {
                    port = listener.local_addr().map_err(failed)?.port();
                    listeners.push(listener);
                }
                // [::] is every interface of both kinds, unless the system keeps them apart.
                Err(e)
                    if e.kind() == io::ErrorKind::AddrInUse
                        && self.host.is_empty()
                        && !listeners.is_empty() => {}
                Err(e) if sys::is_no_interface(&e) => failure = Some(e),
                Err(e) => return Err(failed(e)),
            }
        }
        match failure {
            Some(e) if listeners.is_empty() => Err(failed(e)),
            _ => Ok(listeners),
        }
    }

    fn hosts(&self) -> io::Result<Vec<IpAddr>> {
        if self.host.is_empty() {
            return Ok(vec![
                Ipv6Addr::UNSPECIFIED.into(),
                Ipv4Addr::UNSPECIFIED.into(),
            ]);
        }
        Ok((self.host.as_str(), self.port)
            .to_socket_addrs()?
            .map(|address| address.ip())
            .collect())
    }
}

/// Serves until killed.
///
/// # Errors
/// When the directory or a file is not there, or an address cannot be had.
pub fn run(options: Options) -> Result<()> {
    check_directory(&options)?;
    let indexer = Indexer::new(&options.files)?;
    if let Some(path) = &options.peers {
        // A slip of the finger is told now. What becomes of the file later is seen at each request.
        peers::read(path).map_err(|e| Error::io("serve", path.display(), &e))?;
    }
    let mut listeners = Vec::new();
    for address in &options.addresses {
        listeners.extend(address.bind(options.timeout)?);
    }
    let mut text = String::new();
    let mut sockets = Vec::new();
    for listener in &listeners {
        let address = listener
            .local_addr()
            .map_err(|e| Error::io("listen on", "a socket", &e))?;
        text.push_str(&format!("listening on {address}\n"));
        sockets.push(address);
    }
    let lan = match options.lan {
        Some(interface) => Some(Responder::new(interface, &sockets)?),
        None => None,
    };
    let mut stdout = Stdout::new()?;

    let server = Arc::new(Server {
        clients: Clients::new(options.max_connections),
        files: indexer.files(),
        log: options.verbose.then(Arc::default),
        options,
        threads: Threads::default(),
    });
    if let Some(log) = server.log.clone() {
        spawn(log::STACK, Box::new(move || log.run()))?;
    }
    if server.files.is_some() {
        let log = server.log.clone();
        // Not past the log, where there is one: nobody may be reading what it writes.
        let tell = move |error: &Error| match &log {
            Some(log) => {
                let lines = error.lines().iter();
                lines.for_each(|line| log.add(&console::message(line)));
            }
            None => console::report(error),
        };
        spawn(INDEXER_STACK, Box::new(move || indexer.run(&tell)))?;
    }
    if let Some(lan) = lan {
        spawn(lan::STACK, Box::new(move || lan.run()))?;
    }
    let own = listeners.pop();
    for listener in listeners {
        let server = Arc::clone(&server);
        spawn(STACK, Box::new(move || server.accept(&listener)))?;
    }
    // Not before all is there that accepting takes.
    stdout.write(text.as_bytes())?;
    drop(stdout);
    if let Some(listener) = own {
        server.accept(&listener);
    }
    Ok(())
}

fn check_directory(options: &Options) -> Result<()> {
    let Some(path) = options.dir.as_ref().map(BlockDir::path) else {
        return Ok(());
    };
    // What is in it can be opened only where it may be searched: so its own dot, not its name.
    match path.join(".").metadata() {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !options.dir_named => Ok(()),
        Err(e) => Err(Error::io("serve", path.display(), &e)),
    }
}

struct Server {
    options: Options,
    files: Option<Arc<Files>>,
    clients: Arc<Clients>,
    threads: Threads,
    log: Option<Arc<Log>>,
}

impl Server {
    /// Accepts for ever. No failure of an accept ends it, and none makes it spin. It is left to one
    /// thread: each that waits in accept has a descriptor set aside by the system.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((stream, address)) => self.admit(stream, address),
                Err(e)
                    if matches!(
                        e.kind(),
                        // The last is the time of an idle connection, which the socket has too.
                        io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::WouldBlock
                    ) => {}
                Err(e) if sys::is_shortage(&e) => self.clients.wait_out_shortage(),
                // A network's failures come through accept too (accept(2)); they pass.
                Err(_) => thread::sleep(SHORTAGE_PAUSE),
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let admitted = match self.clients.admit(stream, address) {
            Admission::Admitted(admitted) => admitted,
            Admission::Full(stream) => return send_unavailable(&stream),
        };
        let admitted = match self.threads.hand_over(admitted) {
            Handover::Taken => return,
            Handover::NoThread(admitted) => admitted,
        };
        let client = Arc::clone(&admitted.client);
        let server = Arc::clone(self);
        let work = move || server.work(admitted);
        if spawn(STACK, Box::new(work)).is_err() {
            send_unavailable(&client.stream);
            self.clients.wait_out_shortage();
        }
    }

    /// Serves a connection, and whatever comes next within a moment.
    fn work(&self, first: Admitted) {
        let mut next = Some(first);
        while let Some(admitted) = next {
            // A panic ends this thread, and so its connection.
            self.connection(&admitted).run();
            drop(admitted);
            next = self.threads.wait();
        }
    }

    /// In a function of its own, so that what is moved here does not stay on the stack of each connection.
    #[inline(never)]
    fn connection<'a>(&'a self, admitted: &'a Admitted) -> Connection<'a> {
        let options = &self.options;
        let (clients, client) = (&*admitted.clients, &*admitted.client);
        let source = Source {
            files: self.files.as_deref(),
            view: options.dir.as_ref().map(BlockDir::view),
            clients,
        };
        Connection::new(
            client,
            Input::new(clients, client, options.timeout),
            Answers::new(client, source, options.peers.as_deref()),
            self.log.as_deref(),
        )
    }
}

/// Turns a connection away without a thread: what does not fit into its socket's buffer is lost.
fn send_unavailable(mut stream: &TcpStream) {
    let mut answer = Vec::new();
    let status = Status::Unavailable;
    http::push_refusal(&mut answer, &Request::broken(status), status);
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(&answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("[::1]:8080", "::1", 8080),
            (":0", "", 0),
            ("box.example:65535", "box.example", 65535),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
        }
        for wrong in [
            "", "80", "host", "host:", "::1:80", "[::1]", "[x]:1", "h:65536", "h:-1", "h:+1",
            "h/p:1", "[h:1",
        ] {
            assert!(Address::parse(wrong).is_none(), "{wrong}");
        }
    }
}
