//! Who is connected, and who makes room when there are too many.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutex::lock;

/// A connection as the others see it.
pub struct Client {
    pub stream: TcpStream,
    pub address: SocketAddr,
    start: Instant,
    /// Milliseconds from `start` to the end of the last answer, or to the first byte of none.
    /// 32 bits wrap after 49 days, so only differences are used; MIPS32 has no AtomicU64.
    quiet_since: AtomicU32,
    /// Whether a whole request is being answered.
    answering: AtomicBool,
    /// Whether its head is a long one.
    long_head: AtomicBool,
}

impl Client {
    pub fn begin_answer(&self) {
        self.answering.store(true, Relaxed);
    }

    pub fn end_answer(&self) {
        self.quiet_since.store(milliseconds(self.start), Relaxed);
        // Whoever sees that it is not being answered must see since when.
        self.answering.store(false, Release);
    }

    /// Milliseconds without a whole request; none while one is being answered.
    fn quiet_for(&self, now: u32) -> Option<u32> {
        if self.answering.load(Acquire) {
            return None;
        }
        let quiet = now.wrapping_sub(self.quiet_since.load(Relaxed));
        // An answer that ended after `now` was taken is no silence of 49 days.
        Some(if quiet > u32::MAX / 2 { 0 } else { quiet })
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "wraps on purpose, see quiet_since"
)]
fn milliseconds(start: Instant) -> u32 {
    start.elapsed().as_millis() as u32
}

/// The pause after something failed for want of descriptors, memory or threads, so that nothing
/// spins.
pub const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// Connections ended to end a shortage: descriptors for blocks are needed too, not only for the
/// one connection that could not be accepted.
const SHORTAGE_ROOM: usize = 4;

/// Heads too long for a connection's usual buffer, at once: 16 KiB each, so 1 MiB. More would let
/// a thousand clients that never end theirs take the memory of a small box.
const MAX_LONG_HEADS: usize = 64;

/// All connections of a server.
pub struct Clients {
    max: usize,
    long_heads: AtomicUsize,
    start: Instant,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    clients: BTreeMap<u64, Arc<Client>>,
}

impl Clients {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Clients {
            max,
            long_heads: AtomicUsize::new(0),
            start: Instant::now(),
            table: Mutex::default(),
        })
    }

    /// Takes a connection in; the one longest without a whole request makes room where there is
    /// none. Gives the stream back when all are being answered.
    pub fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<Admitted, TcpStream> {
        let mut table = self.table();
        if table.clients.len() >= self.max && !table.evict(self.start, |_| true) {
            return Err(stream);
        }
        let client = Arc::new(Client {
            stream,
            address,
            start: self.start,
            quiet_since: AtomicU32::new(milliseconds(self.start)),
            answering: AtomicBool::new(false),
            long_head: AtomicBool::new(false),
        });
        let key = table.next;
        table.next += 1;
        table.clients.insert(key, Arc::clone(&client));
        Ok(Admitted {
            clients: Arc::clone(self),
            key,
            client,
        })
    }

    /// Ends the connection longest without a whole request, if any is without one.
    fn make_room(&self) -> bool {
        self.table().evict(self.start, |_| true)
    }

    /// Ends a few connections that are silent, and waits for what they held to come back.
    pub fn wait_out_shortage(&self) {
        for _ in 0..SHORTAGE_ROOM {
            self.make_room();
        }
        thread::sleep(SHORTAGE_PAUSE);
    }

    /// Accounts for a client's long head. Where there are too many, the one among them longest
    /// without a whole request has to go.
    pub fn begin_long_head<'a>(&'a self, client: &'a Client) -> LongHead<'a> {
        if self.long_heads.fetch_add(1, Relaxed) >= MAX_LONG_HEADS {
            let is_long = |client: &Client| client.long_head.load(Relaxed);
            self.table().evict(self.start, is_long);
        }
        client.long_head.store(true, Relaxed);
        LongHead(self, client)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    /// Ends the connection longest without a whole request among those that are `due`.
    fn evict(&mut self, start: Instant, due: impl Fn(&Client) -> bool) -> bool {
        let now = milliseconds(start);
        let due = self.clients.iter().filter(|(_, client)| due(client));
        let quiet = due.filter_map(|(key, client)| Some((client.quiet_for(now)?, *key)));
        // Of equals the first that came: the order of keys is that of arrival.
        let Some((_, key)) = quiet.max_by_key(|&(quiet, key)| (quiet, std::cmp::Reverse(key)))
        else {
            return false;
        };
        if let Some(client) = self.clients.remove(&key) {
            // Wakes its thread, which then lets go of it.
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        true
    }
}

/// A long head, accounted for until dropped.
pub struct LongHead<'a>(&'a Clients, &'a Client);

impl Drop for LongHead<'_> {
    fn drop(&mut self) {
        self.0.long_heads.fetch_sub(1, Relaxed);
        self.1.long_head.store(false, Relaxed);
    }
}

/// A place among the clients, given up when dropped, also by a panic.
pub struct Admitted {
    pub clients: Arc<Clients>,
    key: u64,
    pub client: Arc<Client>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.clients.table().clients.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    /// A connection's two ends.
    fn connect(listener: &TcpListener) -> (TcpStream, TcpStream, SocketAddr) {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, address) = listener.accept().unwrap();
        (near, far, address)
    }

    fn ended(mut near: &TcpStream) -> bool {
        near.set_nonblocking(true).unwrap();
        matches!(near.read(&mut [0]), Ok(0))
    }

    #[test]
    fn an_answer_that_ends_this_moment_is_no_long_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_near, stream, address) = connect(&listener);
        let clients = Clients::new(1);
        let admitted = clients.admit(stream, address).ok().unwrap();
        let client = &admitted.client;
        client.quiet_since.store(5, Relaxed);
        assert_eq!(
            [3, 5, 9].map(|now| client.quiet_for(now)),
            [Some(0), Some(0), Some(4)]
        );
        client.begin_answer();
        assert_eq!(client.quiet_for(9), None);
    }

    #[test]
    fn the_longest_quiet_makes_room_and_the_answered_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = Clients::new(2);
        let (first_end, stream, address) = connect(&listener);
        let first = clients.admit(stream, address).ok().unwrap();
        let (second_end, stream, address) = connect(&listener);
        let second = clients.admit(stream, address).ok().unwrap();
        first.client.begin_answer();
        let (third_end, stream, address) = connect(&listener);
        let third = clients.admit(stream, address).ok().unwrap();
        assert_eq!(
            [&first_end, &second_end, &third_end].map(ended),
            [false, true, false]
        );
        drop(second);
        third.client.begin_answer();
        let (_, stream, address) = connect(&listener);
        assert!(clients.admit(stream, address).is_err() && !clients.make_room());
        drop(first);
        let (_, stream, address) = connect(&listener);
        assert!(clients.admit(stream, address).is_ok());
    }
}
