//! The connections of a server: which one makes room when there are too many of them, or when their
//! buffers take too much memory.
//!
//! A connection is idle until a whole request has arrived: a head that dribbles in counts as idle.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutex::lock;

/// A connection as the others see it.
pub struct Client {
    pub stream: TcpStream,
    pub address: SocketAddr,
    /// When it connected or its last answer ended. None while a whole request is being answered.
    idle_since: Mutex<Option<Instant>>,
    /// Bytes of the budget that it holds.
    held: AtomicUsize,
}

impl Client {
    pub fn begin_answer(&self) {
        *lock(&self.idle_since) = None;
    }

    pub fn end_answer(&self) {
        *lock(&self.idle_since) = Some(Instant::now());
    }
}

/// The pause after something failed for want of descriptors, memory or threads, so that nothing
/// spins.
pub const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// How often a client that is given the memory of another looks whether that has let go of it, and the pause
/// between two looks.
const RELEASE_TRIES: u32 = 100;
const RELEASE_PAUSE: Duration = Duration::from_micros(200);

/// Connections ended to end a shortage: descriptors for blocks are needed too, not only for the
/// one connection that could not be accepted.
const SHORTAGE_ROOM: usize = 4;

/// Bytes for all buffers that are larger than usual: inputs with long heads or lists, outputs for many
/// blocks, the text of `/peers`. Enough to answer lists of 1,024 lines for 60 clients at once, 15 of them with
/// the largest outputs, or lists of 128 lines on each of 512 connections. Without a bound a thousand clients that
/// never end their requests, or never read the answers, would take the memory of a small box.
const BUDGET: usize = 3 * 1024 * 1024;

/// The part of it that outputs may take, which only save calls to the system by it. The rest is kept for
/// requests, which are refused without it: slow readers would hold all of it.
const SPARE: usize = BUDGET / 2;

/// All connections of a server.
pub struct Clients {
    max: usize,
    /// Bytes of the budget that all hold.
    reserved: AtomicUsize,
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
            table: Mutex::default(),
        })
    }

    /// Admits a connection; the longest idle makes room where there is none.
    pub fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) -> Admission {
        let mut table = self.table();
        if table.clients.len() >= self.max && table.evict(|_| true).is_none() {
            return Admission::Full(stream);
        }
        let client = Arc::new(Client {
            stream,
            address,
            idle_since: Mutex::new(Some(Instant::now())),
            held: AtomicUsize::new(0),
        });
        let key = table.next;
        table.next += 1;
        table.clients.insert(key, Arc::clone(&client));
        Admission::Admitted(Admitted {
            clients: Arc::clone(self),
            key,
            client,
        })
    }

    /// Ends the longest idle connection; false where none is idle.
    fn make_room(&self) -> bool {
        self.table().evict(|_| true).is_some()
    }

    /// Ends a few idle connections, and waits for what they held to come back.
    pub fn wait_out_shortage(&self) {
        for _ in 0..SHORTAGE_ROOM {
            self.make_room();
        }
        thread::sleep(SHORTAGE_PAUSE);
    }

    /// Takes so many bytes of the budget, up to `limit` of it; false where it has too few.
    fn take(&self, client: &Client, bytes: usize, limit: usize) -> bool {
        let taken = self.reserved.fetch_update(Relaxed, Relaxed, |reserved| {
            Some(reserved + bytes).filter(|&sum| sum <= limit)
        });
        if taken.is_ok() {
            client.held.fetch_add(bytes, Relaxed);
        }
        taken.is_ok()
    }

    /// Takes back so many bytes, or as many as `client` still holds.
    fn give_back(&self, client: &Client, bytes: usize) {
        let left = |held: usize| Some(held.saturating_sub(bytes));
        let (Ok(held) | Err(held)) = client.held.fetch_update(Relaxed, Relaxed, left);
        self.reserved.fetch_sub(held.min(bytes), Relaxed);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    /// Ends the longest idle connection among those that are `due`, if any.
    fn evict(&mut self, due: impl Fn(&Client) -> bool) -> Option<Arc<Client>> {
        let due = self.clients.iter().filter(|(_, client)| due(client));
        let idle = due.filter_map(|(key, client)| {
            let idle_since = *lock(&client.idle_since);
            Some((idle_since?, *key))
        });
        // Of equals the first that came: the order of keys is that of arrival.
        let (_, key) = idle.min()?;
        let client = self.clients.remove(&key)?;
        // Wakes its thread, which then lets go of it.
        let _ = client.stream.shutdown(Shutdown::Both);
        Some(client)
    }
}

/// Bytes of the budget that one buffer holds, until released or dropped.
pub struct Reservation<'a> {
    clients: &'a Clients,
    client: &'a Client,
    bytes: usize,
}

impl<'a> Reservation<'a> {
    /// Holds nothing yet.
    pub fn new(clients: &'a Clients, client: &'a Client) -> Self {
        Reservation {
            clients,
            client,
            bytes: 0,
        }
    }

    /// Holds `bytes` from now on, or more if it did before. Where the budget has too few, the longest idle
    /// client that holds some makes room; false where all of those are being answered, or this one had to make
    /// room itself.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut ended = Vec::new();
        while !self.clients.take(self.client, more, BUDGET) {
            let holds =
                |other: &Client| other.held.load(Relaxed) > 0 && !ptr::eq(other, self.client);
            let Some(client) = self.clients.table().evict(holds) else {
                return false;
            };
            self.clients.give_back(&client, usize::MAX);
            ended.push(client);
        }
        self.bytes += more;
        ended.iter().all(|client| self.outlives(client))
    }

    /// Waits until the thread of `ended`, which was woken, has let go of its memory; on a busy machine not for
    /// as long as that takes. False where this client is ended meanwhile.
    fn outlives(&self, ended: &Arc<Client>) -> bool {
        let is_there = || self.client.held.load(Relaxed) > 0;
        for _ in 0..RELEASE_TRIES {
            if Arc::strong_count(ended) == 1 || !is_there() {
                break;
            }
            thread::sleep(RELEASE_PAUSE);
        }
        is_there()
    }

    /// The same where the budget has so many to spare; ends no connection.
    pub fn grow_if_spare(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let is_granted = self.clients.take(self.client, more, SPARE);
        if is_granted {
            self.bytes += more;
        }
        is_granted
    }

    /// Holds at most `bytes` from now on.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.clients.give_back(self.client, less);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// What becomes of a connection that asks to be admitted.
pub enum Admission {
    Admitted(Admitted),
    /// All others are being answered.
    Full(TcpStream),
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

    fn admit(clients: &Arc<Clients>, stream: TcpStream, address: SocketAddr) -> Option<Admitted> {
        match clients.admit(stream, address) {
            Admission::Admitted(admitted) => Some(admitted),
            Admission::Full(_) => None,
        }
    }

    #[test]
    fn the_longest_idle_makes_room_and_the_answered_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = Clients::new(3);
        let (first_end, stream, address) = connect(&listener);
        let first = admit(&clients, stream, address).unwrap();
        let (second_end, stream, address) = connect(&listener);
        let second = admit(&clients, stream, address).unwrap();
        let (third_end, stream, address) = connect(&listener);
        let third = admit(&clients, stream, address).unwrap();
        first.client.begin_answer();
        second.client.begin_answer();
        second.client.end_answer();
        let (fourth_end, stream, address) = connect(&listener);
        let fourth = admit(&clients, stream, address).unwrap();
        assert_eq!(
            [&first_end, &second_end, &third_end, &fourth_end].map(ended),
            [false, false, true, false],
            "the second was heard of after the third"
        );
        drop(third);
        second.client.begin_answer();
        fourth.client.begin_answer();
        let (_, stream, address) = connect(&listener);
        assert!(admit(&clients, stream, address).is_none() && !clients.make_room());
        drop(first);
        let (_, stream, address) = connect(&listener);
        assert!(admit(&clients, stream, address).is_some());
    }

    #[test]
    fn an_idle_client_that_holds_some_of_the_budget_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = Clients::new(4);
        let connections = [(); 4].map(|()| connect(&listener));
        let ends = [0, 1, 2, 3].map(|n: usize| connections[n].0.try_clone().unwrap());
        let admitted =
            connections.map(|(_, stream, address)| admit(&clients, stream, address).unwrap());
        let reservation = |n: usize| Reservation::new(&clients, &admitted[n].client);
        let [mut none, mut idle, mut answered, mut new] = [0, 1, 2, 3].map(reservation);
        assert!(idle.grow(BUDGET / 2) && answered.grow(BUDGET / 2));
        answered.client.begin_answer();
        assert_eq!(ends.each_ref().map(ended), [false; 4]);
        // Nothing is too much where nothing is left, and a client that holds nothing is no help.
        assert!(none.grow(0) && !none.grow_if_spare(1));
        assert!(new.grow(BUDGET / 2) && new.grow(BUDGET / 4));
        assert_eq!(ends.each_ref().map(ended), [false, true, false, false]);
        // Its part has been given to another, so it gives nothing back.
        idle.shrink(0);
        new.client.begin_answer();
        assert!(!none.grow(1));
        new.client.end_answer();
        // It does not end itself.
        assert!(!new.grow(BUDGET / 2 + 1));
        drop(answered);
        assert!(none.grow(BUDGET / 2));
        new.shrink(BUDGET / 4);
        assert_eq!(clients.reserved.load(Relaxed), BUDGET / 2 + BUDGET / 4);
        new.shrink(0);
        new.shrink(BUDGET);
        assert!(none.grow(BUDGET));
        drop(none);
        assert_eq!(clients.reserved.load(Relaxed), 0);
    }

    #[test]
    fn what_only_saves_calls_leaves_the_rest_of_the_budget() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = Clients::new(1);
        let (_near, stream, address) = connect(&listener);
        let admitted = admit(&clients, stream, address).unwrap();
        let mut first = Reservation::new(&clients, &admitted.client);
        let mut second = Reservation::new(&clients, &admitted.client);
        assert!(first.grow_if_spare(SPARE) && !second.grow_if_spare(1));
        assert!(second.grow(BUDGET - SPARE));
        drop(first);
        assert!(!second.grow_if_spare(SPARE + 1));
        drop(second);
        assert_eq!(clients.reserved.load(Relaxed), 0);
    }
}
