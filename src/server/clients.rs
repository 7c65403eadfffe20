//! The connections of a server: which one makes room when there are too many of them, or when their
//! buffers take too much memory.
//!
//! This file owns the table of connections and the budget of their buffers. It reads and sends nothing. A
//! connection is idle until a whole request has arrived: a head that dribbles in counts as idle.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutex::lock;

/// A connection as the others see it.
pub struct Client {
    pub stream: TcpStream,
    pub address: SocketAddr,
    /// When it connected or its last answer ended. None while the server answers a request of it.
    idle_since: Mutex<Option<Instant>>,
    /// Bytes of the budget that it holds.
    held: AtomicUsize,
}

impl Client {
    pub fn new(stream: TcpStream, address: SocketAddr) -> Self {
        Client {
            stream,
            address,
            idle_since: Mutex::new(Some(Instant::now())),
            held: AtomicUsize::new(0),
        }
    }

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

/// How often a client that gets the memory of an evicted one checks whether that memory is free, and the
/// pause between two checks.
const RELEASE_TRIES: u32 = 100;
const RELEASE_PAUSE: Duration = Duration::from_micros(200);

/// Connections that a shortage ends: blocks need descriptors too, not only the one connection that could
/// not be accepted.
const SHORTAGE_ROOM: usize = 4;

/// Bytes for all buffers that are larger than usual: inputs with long heads or lists, outputs for many
/// blocks, the text of `/peers`. Enough to answer lists of 1,024 lines for 60 clients at once, 15 of them with
/// the largest outputs, or lists of 128 lines on each of 512 connections. Without a bound a thousand clients that
/// never end their requests, or never read the answers, would take the memory of a small box.
const BUDGET: usize = 3 * 1024 * 1024;

/// The part of the budget that outputs may take, which only save system calls with it. The rest is for
/// requests, which are refused without it: otherwise slow readers would hold all of it.
const SPARE: usize = BUDGET / 2;

/// All connections of a server.
pub struct Clients {
    max: usize,
    /// Bytes of the budget that all of them hold.
    reserved: AtomicUsize,
    /// In order of arrival.
    table: Mutex<Vec<Arc<Client>>>,
}

impl Clients {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Clients {
            max,
            reserved: AtomicUsize::new(0),
            table: Mutex::default(),
        })
    }

    /// Admits a client; where there is no room, the longest idle makes some. None where the server is
    /// answering all of them.
    pub fn admit(self: &Arc<Self>, client: &Arc<Client>) -> Option<Admitted> {
        let mut table = lock(&self.table);
        if table.len() >= self.max {
            evict(&mut table, |_| true)?;
        }
        table.push(Arc::clone(client));
        Some(Admitted {
            clients: Arc::clone(self),
            client: Arc::clone(client),
        })
    }

    /// Ends the longest idle connections, at most [`SHORTAGE_ROOM`], and waits for their descriptors and memory
    /// to come back.
    pub fn make_room_and_pause(&self) {
        for _ in 0..SHORTAGE_ROOM {
            evict(&mut lock(&self.table), |_| true);
        }
        thread::sleep(SHORTAGE_PAUSE);
    }

    /// Returns `bytes` of `client` to the budget, or as many as it still holds.
    fn release(&self, client: &Client, bytes: usize) {
        let left = |held: usize| Some(held.saturating_sub(bytes));
        let (Ok(held) | Err(held)) = client.held.fetch_update(Relaxed, Relaxed, left);
        self.reserved.fetch_sub(held.min(bytes), Relaxed);
    }
}

/// Ends the longest idle connection among those that are `due`, if any.
fn evict(table: &mut Vec<Arc<Client>>, due: impl Fn(&Client) -> bool) -> Option<Arc<Client>> {
    let due = table.iter().enumerate().filter(|(_, client)| due(client));
    let idle = due.filter_map(|(at, client)| {
        let idle_since = *lock(&client.idle_since);
        Some((idle_since?, at))
    });
    // Of equals the first that came.
    let (_, at) = idle.min()?;
    let client = table.remove(at);
    // Wakes its thread, which then lets go of it.
    let _ = client.stream.shutdown(Shutdown::Both);
    Some(client)
}

/// Bytes of the budget that one buffer holds, until released or dropped.
pub struct Reservation<'a> {
    holder: &'a Admitted,
    bytes: usize,
}

impl<'a> Reservation<'a> {
    /// Holds nothing yet.
    pub fn new(holder: &'a Admitted) -> Self {
        Reservation { holder, bytes: 0 }
    }

    /// Holds `bytes` from now on, or more if it did before. Where the budget has too few, the longest idle
    /// client that holds some makes room. False where the server is answering all of those, or where this
    /// client had to make room itself.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Admitted { clients, client } = self.holder;
        let mut evicted = Vec::new();
        while !self.take(bytes, BUDGET) {
            let holds = |other: &Client| other.held.load(Relaxed) > 0 && !ptr::eq(other, &**client);
            let Some(other) = evict(&mut lock(&clients.table), holds) else {
                return false;
            };
            clients.release(&other, usize::MAX);
            evicted.push(other);
        }
        evicted.iter().all(|other| self.wait_for_release(other))
    }

    /// The same where the budget has that much to spare. Ends no connection.
    pub fn grow_if_spare(&mut self, bytes: usize) -> bool {
        self.take(bytes, SPARE)
    }

    /// Takes what it lacks of `bytes`. False where all clients together would then hold more than `limit`.
    fn take(&mut self, bytes: usize, limit: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Admitted { clients, client } = self.holder;
        let raised = |reserved| Some(reserved + more).filter(|&sum| sum <= limit);
        let taken = clients.reserved.fetch_update(Relaxed, Relaxed, raised);
        if taken.is_ok() {
            client.held.fetch_add(more, Relaxed);
            self.bytes += more;
        }
        taken.is_ok()
    }

    /// Waits until the thread of `evicted`, which the eviction woke, has freed its memory, or until
    /// [`RELEASE_TRIES`] checks were in vain: on a busy machine that thread may come later. False where this
    /// client is evicted meanwhile, which takes all that it holds.
    fn wait_for_release(&self, evicted: &Arc<Client>) -> bool {
        let is_admitted = || self.holder.client.held.load(Relaxed) > 0;
        for _ in 0..RELEASE_TRIES {
            if Arc::strong_count(evicted) == 1 || !is_admitted() {
                break;
            }
            thread::sleep(RELEASE_PAUSE);
        }
        is_admitted()
    }

    /// Holds at most `bytes` from now on.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            let Admitted { clients, client } = self.holder;
            clients.release(client, less);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// A client's place in the table. Dropping it, also by a panic, gives up the place.
pub struct Admitted {
    pub clients: Arc<Clients>,
    pub client: Arc<Client>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let is_other = |other: &Arc<Client>| !Arc::ptr_eq(other, &self.client);
        lock(&self.clients.table).retain(is_other);
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
        clients.admit(&Arc::new(Client::new(stream, address)))
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
        assert!(admit(&clients, stream, address).is_none());
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
        let reservation = |n: usize| Reservation::new(&admitted[n]);
        let [mut none, mut idle, mut answered, mut new] = [0, 1, 2, 3].map(reservation);
        assert!(idle.grow(BUDGET / 2) && answered.grow(BUDGET / 2));
        admitted[2].client.begin_answer();
        assert_eq!(ends.each_ref().map(ended), [false; 4]);
        // Nothing is too much where nothing is left, and a client that holds nothing is no help.
        assert!(none.grow(0) && !none.grow_if_spare(1));
        assert!(new.grow(BUDGET / 2) && new.grow(BUDGET / 4));
        assert_eq!(ends.each_ref().map(ended), [false, true, false, false]);
        // Its part has been given to another, so it gives nothing back.
        idle.shrink(0);
        admitted[3].client.begin_answer();
        assert!(!none.grow(1));
        admitted[3].client.end_answer();
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
        let mut first = Reservation::new(&admitted);
        let mut second = Reservation::new(&admitted);
        assert!(first.grow_if_spare(SPARE) && !second.grow_if_spare(1));
        assert!(second.grow(BUDGET - SPARE));
        drop(first);
        assert!(!second.grow_if_spare(SPARE + 1));
        drop(second);
        assert_eq!(clients.reserved.load(Relaxed), 0);
    }
}
