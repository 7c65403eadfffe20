//! Who is connected, and who makes room when there are too many.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::buffers::Buffers;
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
    /// Bytes that it has reserved.
    held: AtomicUsize,
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

/// Bytes for requests that are longer than usual, of all clients: enough for lists of 128 hashes on
/// each of 512 connections, or for 100 long heads. Without a bound a thousand clients that never
/// end their requests, or never read the answers, would take the memory of a small box.
const BUDGET: usize = 2 * 1024 * 1024;

/// All connections of a server.
pub struct Clients {
    max: usize,
    /// Bytes that all have reserved, also those that have just been ended.
    reserved: AtomicUsize,
    pub buffers: Buffers,
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
            reserved: AtomicUsize::new(0),
            buffers: Buffers::new(),
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
        if table.clients.len() >= self.max && table.evict(self.start, |_| true).is_none() {
            return Err(stream);
        }
        let client = Arc::new(Client {
            stream,
            address,
            start: self.start,
            quiet_since: AtomicU32::new(milliseconds(self.start)),
            answering: AtomicBool::new(false),
            held: AtomicUsize::new(0),
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
        self.table().evict(self.start, |_| true).is_some()
    }

    /// Ends a few connections that are silent, and waits for what they held to come back.
    pub fn wait_out_shortage(&self) {
        for _ in 0..SHORTAGE_ROOM {
            self.make_room();
        }
        thread::sleep(SHORTAGE_PAUSE);
    }

    /// Sets so many bytes of the budget aside for `client`. Where they are used up, whoever holds
    /// some and is longest without a whole request has to go. None where all holders are being
    /// answered.
    pub fn reserve<'a>(&'a self, client: &'a Client, bytes: usize) -> Option<Reservation<'a>> {
        while self.add_reserved(bytes).is_err() {
            let holds =
                |other: &Client| other.held.load(Relaxed) > 0 && !std::ptr::eq(other, client);
            let ended = self.table().evict(self.start, holds)?;
            // Its thread has been woken and is about to let go of it.
            self.release(&ended, usize::MAX);
        }
        client.held.fetch_add(bytes, Relaxed);
        Some(Reservation {
            clients: self,
            client,
            bytes,
        })
    }

    fn add_reserved(&self, bytes: usize) -> Result<usize, usize> {
        self.reserved.fetch_update(Relaxed, Relaxed, |reserved| {
            Some(reserved + bytes).filter(|&sum| sum <= BUDGET)
        })
    }

    /// Takes back so many bytes, or as many as `client` still holds.
    fn release(&self, client: &Client, bytes: usize) {
        let left = |held: usize| Some(held.saturating_sub(bytes));
        let (Ok(held) | Err(held)) = client.held.fetch_update(Relaxed, Relaxed, left);
        self.reserved.fetch_sub(held.min(bytes), Relaxed);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    /// Ends the connection longest without a whole request among those that are `due`, if any.
    fn evict(&mut self, start: Instant, due: impl Fn(&Client) -> bool) -> Option<Arc<Client>> {
        let now = milliseconds(start);
        let due = self.clients.iter().filter(|(_, client)| due(client));
        let quiet = due.filter_map(|(key, client)| Some((client.quiet_for(now)?, *key)));
        // Of equals the first that came: the order of keys is that of arrival.
        let (_, key) = quiet.max_by_key(|&(quiet, key)| (quiet, std::cmp::Reverse(key)))?;
        let client = self.clients.remove(&key)?;
        // Wakes its thread, which then lets go of it.
        let _ = client.stream.shutdown(Shutdown::Both);
        Some(client)
    }
}

/// Bytes of the budget, set aside until dropped.
pub struct Reservation<'a> {
    clients: &'a Clients,
    client: &'a Client,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.clients.release(self.client, self.bytes);
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

    #[test]
    fn who_holds_some_of_the_budget_and_is_quiet_makes_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = Clients::new(4);
        let connections = [(); 4].map(|()| connect(&listener));
        let ends = [0, 1, 2, 3].map(|n: usize| connections[n].0.try_clone().unwrap());
        let admitted = connections.map(|(_, stream, address)| {
            let admitted = clients.admit(stream, address);
            admitted.ok().unwrap()
        });
        let [none, quiet, answered, new] = admitted.each_ref().map(|of| &*of.client);
        let first = clients.reserve(quiet, BUDGET / 2).unwrap();
        let second = clients.reserve(answered, BUDGET / 2).unwrap();
        answered.begin_answer();
        assert_eq!(ends.each_ref().map(ended), [false; 4]);
        // Nothing is too much where there is nothing left, and one who holds nothing is no help.
        assert!(clients.reserve(none, 0).is_some());
        let third = clients.reserve(new, BUDGET / 2).unwrap();
        assert_eq!(ends.each_ref().map(ended), [false, true, false, false]);
        // Its part has been given to another, so there is nothing to give back.
        drop(first);
        new.begin_answer();
        assert!(clients.reserve(none, 1).is_none());
        new.end_answer();
        // Nor is it that one itself who has to go.
        assert!(clients.reserve(new, 1).is_none());
        drop(second);
        assert!(clients.reserve(none, BUDGET / 2).is_some());
        drop(third);
        assert!(clients.reserve(none, BUDGET).is_some());
        assert_eq!(clients.reserved.load(Relaxed), 0);
    }
}
