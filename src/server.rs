//! `psync server`: serves a block directory, and the blocks of whole files, over HTTP.
//!
//! This file owns the listening sockets, one thread each. That thread accepts, and gives every connection a
//! thread, an idle one (`server/threads.rs`) if there is any. It writes to no file or directory: the server
//! only ever reads.
//!
//! The way of a request: `server/connection.rs` receives it (`server/input.rs`, which parses it with
//! `server/http.rs`, and a list of blocks with `server/list.rs`) and answers it (`server/answers.rs`, through
//! `server/output.rs` and `server/socket.rs`). `server/clients.rs` decides which client has to go when they
//! are too many or take too much memory. `server/files.rs` keeps the files of `--file`, `server/peers.rs` reads
//! the text of `--peers`, and `server/log.rs` writes what `-v` reports.

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

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::console::Stdout;
use crate::error::{Error, Result};
use crate::lan::{self, Responder};
use crate::spawn::spawn;
use crate::store::BlockDir;
use crate::sys;
use answers::{Answers, Source};
use clients::{Admitted, Client, Clients, SHORTAGE_PAUSE};
use files::{Files, Indexer};
use http::{Request, Status};
use input::Input;
use log::Log;
use threads::Threads;

/// Stack of a connection's thread, in bytes: its deepest path takes a quarter of it, a panic's
/// backtrace the rest.
const STACK: usize = 128 * 1024;

/// Stack of the thread that reads files, in bytes: what std gives a thread.
const INDEXER_STACK: usize = 2 * 1024 * 1024;

/// What the command line asks for.
pub struct Options {
    /// None only where there are files to serve.
    pub dir: Option<BlockDir>,
    /// Whether the user named the directory, which must then exist.
    pub dir_named: bool,
    pub files: Vec<PathBuf>,
    /// The file that answers `/peers`.
    pub peers: Option<PathBuf>,
    pub addresses: Vec<Address>,
    /// The address of the interface that answers questions of the local network; unspecified for the
    /// system's choice, none where the server does not answer them.
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

    /// Binds every address of the host, all to one port. Passes over one that this machine has no
    /// interface for, as long as there is another.
    fn bind(&self, timeout: Duration) -> io::Result<Vec<TcpListener>> {
        let mut listeners: Vec<TcpListener> = Vec::new();
        let (mut port, mut failure) = (self.port, None);
        let mut hosts = self.hosts()?;
        hosts.dedup();
        for host in hosts {
            // [::] is every interface of both kinds, unless the system keeps them apart.
            let may_be_in_use = self.host.is_empty() && !listeners.is_empty();
            let bound = TcpListener::bind((host, port));
            match bound.and_then(|listener| socket::set_options(listener, timeout)) {
                Ok(listener) => {
                    port = listener.local_addr()?.port();
                    listeners.push(listener);
                }
                Err(e) if may_be_in_use && e.kind() == ErrorKind::AddrInUse => {}
                Err(e) if sys::is_no_interface(&e) => failure = Some(e),
                Err(e) => return Err(e),
            }
        }
        match failure {
            Some(e) if listeners.is_empty() => Err(e),
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
        let addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        Ok(addresses.map(|address| address.ip()).collect())
    }
}

/// Serves until killed.
///
/// # Errors
/// When the directory or a file is absent, or an address is not available.
pub fn run(options: Options) -> Result<()> {
    check_directory(&options)?;
    let indexer = Indexer::new(&options.files)?;
    if let Some(path) = &options.peers {
        // Reports a misspelt name at once. Each request reads the file anew.
        peers::read(path).map_err(|e| Error::io("serve", path.display(), &e))?;
    }
    let mut listeners = Vec::new();
    for address in &options.addresses {
        let bound = address.bind(options.timeout);
        listeners.extend(bound.map_err(|e| Error::io("listen on", &address.text, &e))?);
    }
    let sockets = listeners.iter().map(TcpListener::local_addr);
    let sockets: io::Result<Vec<_>> = sockets.collect();
    let sockets = sockets.map_err(|e| Error::io("listen on", "a socket", &e))?;
    let line = |address| format!("listening on {address}\n");
    let lines: String = sockets.iter().map(line).collect();
    let responder = |interface| Responder::new(interface, &sockets);
    let lan = options.lan.map(responder).transpose()?;
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
        spawn(INDEXER_STACK, Box::new(move || indexer.run(log.as_deref())))?;
    }
    if let Some(lan) = lan {
        spawn(lan::STACK, Box::new(move || lan.run()))?;
    }
    let own = listeners.pop();
    for listener in listeners {
        let server = Arc::clone(&server);
        spawn(STACK, Box::new(move || server.accept(&listener)))?;
    }
    // Last, when everything that accepting needs is there.
    stdout.write(lines.as_bytes())?;
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
    // Its own dot, not its name: that is found only where this user may search the directory.
    match path.join(".").metadata() {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound && !options.dir_named => Ok(()),
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
    /// Accepts for ever. No failure of an accept ends it, and none makes it spin. Each socket has one thread
    /// that accepts, no more: the system sets a descriptor aside for every thread that waits in accept.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((stream, address)) => self.admit(stream, address),
                Err(e) => match e.kind() {
                    // The last is the timeout for idle connections, which the socket has too.
                    ErrorKind::ConnectionAborted | ErrorKind::WouldBlock => {}
                    _ if sys::is_shortage(&e) => self.clients.make_room_and_pause(),
                    // Accept reports failures of the network too (accept(2)), which pass.
                    _ => thread::sleep(SHORTAGE_PAUSE),
                },
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let client = Arc::new(Client::new(stream, address));
        let Some(admitted) = self.clients.admit(&client) else {
            return send_unavailable(&client.stream);
        };
        let Some(admitted) = self.threads.hand_over(admitted) else {
            return;
        };
        let server = Arc::clone(self);
        if spawn(STACK, Box::new(move || server.work(admitted))).is_err() {
            send_unavailable(&client.stream);
            self.clients.make_room_and_pause();
        }
    }

    /// Serves a connection, and then those that come within a moment.
    fn work(&self, first: Admitted) {
        let mut next = Some(first);
        while let Some(admitted) = next {
            // A panic ends this thread, and so its connection. Only its client learns of any other failure.
            let _ = self.serve(&admitted);
            drop(admitted);
            next = self.threads.wait();
        }
    }

    fn serve(&self, admitted: &Admitted) -> io::Result<()> {
        let options = &self.options;
        let source = Source {
            files: self.files.as_deref(),
            view: options.dir.as_ref().map(BlockDir::view),
            peers: options.peers.as_deref(),
            clients: &self.clients,
        };
        let mut input = Input::new(admitted, options.timeout);
        let mut answers = Answers::new(admitted, source);
        let log = self.log.as_deref();
        connection::serve(&admitted.client, &mut input, &mut answers, log)
    }
}

/// Turns a connection away without a thread. Loses what does not fit into its socket's buffer.
fn send_unavailable(mut stream: &TcpStream) {
    let status = Status::UNAVAILABLE;
    let (mut answer, request) = (Vec::new(), Request::broken(status));
    http::push_text(&mut answer, &request, status, status.text().as_bytes());
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
