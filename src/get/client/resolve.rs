//! Names to addresses, for ureq. This file owns the choice of the address; it connects only to try one.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use ureq::Timeout;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::mutex::lock;

/// Looks each host up once: the default resolver does so before every request. Of several addresses it
/// keeps the first that takes a connection: a dead one would cost its timeout with every connection.
#[derive(Debug)]
pub struct ResolveOnce {
    resolver: DefaultResolver,
    connect_timeout: Duration,
    /// By scheme and authority, since the port follows from both.
    known: Mutex<HashMap<String, ResolvedSocketAddrs>>,
}

impl ResolveOnce {
    pub fn new(connect_timeout: Duration) -> Self {
        ResolveOnce {
            resolver: DefaultResolver::default(),
            connect_timeout,
            known: Mutex::default(),
        }
    }

    /// The first address that takes a connection. All of them share the time for one.
    fn first_alive(&self, addresses: &[SocketAddr]) -> Result<SocketAddr, ureq::Error> {
        let share = self.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1);
        let mut failure = ureq::Error::HostNotFound;
        for address in addresses {
            failure = match TcpStream::connect_timeout(address, share) {
                Ok(_) => return Ok(*address),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    ureq::Error::Timeout(Timeout::Connect)
                }
                Err(e) => ureq::Error::Io(e),
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
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let key = format!("{:?} {:?}", uri.scheme(), uri.authority());
        if let Some(addresses) = lock(&self.known).get(&key) {
            return Ok(addresses.clone());
        }
        let mut addresses = self.resolver.resolve(uri, config, timeout)?;
        if addresses.len() > 1 {
            let alive = self.first_alive(&addresses)?;
            addresses = self.resolver.empty();
            addresses.push(alive);
        }
        lock(&self.known).insert(key, addresses.clone());
        Ok(addresses)
    }
}
