//! `--lan`: one question to the local network, and its answers; `get`'s side and `server`'s.
//!
//! `get` sends one datagram, `psync 1 who NONCE`, to a multicast group; a server sends one back,
//! `psync 1 here NONCE PORT`, and is the server at the address that it came from and PORT. No line
//! end, nothing after; IPv4.
//!
//! std cannot read the TTL of what it receives, nor list interfaces. Three rules keep psync to the local
//! network:
//! - The question has TTL 1, so no router passes it on, and NONCE is 64 random bits. A host off the link
//!   never sees it, and an answer without it does not count.
//! - A server listens on the group's own address, so it does not receive what is sent to the box itself,
//!   from wherever. Its answer has TTL 1 too, so that a forged question sends nothing off the link.
//! - An answer does not count if it comes from no single host's address, or from this box's own 127.0.0.0/8
//!   unless the user chose that as the interface.
//!
//! A host on the link may send any answer, [`MAX_ANSWERS`] times. That costs time, and no more: `get` verifies
//! blocks, and gives up a bad server as any other. For that cost `get` asks only where the user says so.
//!
//! This file owns the messages, their sockets and their bounds. It prints nothing, and knows nothing
//! of blocks, of HTTP, or of how servers are asked.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Cause, Error, Result};
use crate::sys;

/// Where the question goes: a group that sites assign for themselves (RFC 2365), "ps" its end.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 112, 115);
const PORT: u16 = 40960;

/// The link alone.
const TTL: u32 = 1;

/// How long `get` waits for answers: many times what a thread that sleeps on a busy small box takes to wake
/// up, and short enough for a crontab.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers that count, at most: one file needs no more servers, and each liar costs its failure.
const MAX_ANSWERS: usize = 32;

/// Answers sent in any one second: enough for a segment of a hundred boxes that all ask at the same minute,
/// and at most 6 KB a second to the victim of forged questions.
const MAX_RATE: usize = 100;
const RATE_TIME: Duration = Duration::from_secs(1);

/// The pause after a socket failed, so that nothing spins.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);

/// Longer than any message: one that is too long does not look like one that fits.
const BUFFER: usize = 64;

/// Stack of the thread that answers, in bytes: a buffer, the times of its answers, and std's calls.
pub const STACK: usize = 64 * 1024;

const QUESTION: &[u8] = b"psync 1 who ";
const ANSWER: &[u8] = b"psync 1 here ";

/// Hex digits of a nonce.
const NONCE: usize = 16;

/// The nonce of a question, in the asker's own digits.
fn read_question(datagram: &[u8]) -> Option<&[u8]> {
    let nonce = datagram.strip_prefix(QUESTION)?;
    (nonce.len() == NONCE && nonce.iter().all(u8::is_ascii_hexdigit)).then_some(nonce)
}

/// The port in an answer to the question of `nonce`.
fn read_answer(datagram: &[u8], nonce: &[u8]) -> Option<u16> {
    let rest = datagram.strip_prefix(ANSWER)?.strip_prefix(nonce)?;
    let port = str::from_utf8(rest.strip_prefix(b" ")?).ok()?;
    // A port has no leading zero, nor the sign that std allows.
    port.parse().ok().filter(|_| !port.starts_with(['0', '+']))
}

/// Digits that only the hosts of the link learn.
fn fresh_nonce() -> String {
    format!("{:01$x}", sys::random(), NONCE)
}

/// Asks the local network by the interface with the address `interface`, or by the system's choice where
/// that is unspecified. Takes half a second, or less where [`MAX_ANSWERS`] come before.
///
/// # Errors
/// Where there is no such interface, or no network.
pub fn ask(interface: Ipv4Addr) -> io::Result<Vec<SocketAddrV4>> {
    // Linux sends to a group by the interface of the sender's address; std has no other way to say.
    let socket = UdpSocket::bind((interface, 0))?;
    socket.set_multicast_ttl_v4(TTL)?;
    let nonce = fresh_nonce();
    socket.send_to(&[QUESTION, nonce.as_bytes()].concat(), (GROUP, PORT))?;
    let deadline = Instant::now() + PATIENCE;
    let mut servers = Vec::new();
    while servers.len() < MAX_ANSWERS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; BUFFER];
        match socket.recv_from(&mut buffer) {
            Ok((length, SocketAddr::V4(from))) if may_answer(*from.ip(), interface) => {
                let port = read_answer(&buffer[..length], nonce.as_bytes());
                let server = port.map(|port| SocketAddrV4::new(*from.ip(), port));
                servers.extend(server.filter(|server| !servers.contains(server)));
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The network went away; a server that has answered may still be reachable.
            Err(_) => break,
        }
    }
    Ok(servers)
}

/// Whether an answer from this address counts.
fn may_answer(from: Ipv4Addr, interface: Ipv4Addr) -> bool {
    !from.is_unspecified()
        && !from.is_multicast()
        && !from.is_broadcast()
        && (!from.is_loopback() || interface.is_loopback())
}

/// What a server answers the question with.
pub struct Responder {
    questions: UdpSocket,
    answers: UdpSocket,
    port: u16,
}

impl Responder {
    /// Answers by the interface with the address `interface`, for the first of the `listening` sockets that
    /// this interface reaches. Where it is unspecified, that is the first socket on all interfaces or on an
    /// address that others reach, and the interface of this address.
    ///
    /// # Errors
    /// When the interface reaches no socket, when there is no such interface or no network, or when another
    /// program has the port.
    pub fn new(interface: Ipv4Addr, listening: &[SocketAddr]) -> Result<Self> {
        let Some(server) = advertised(interface, listening) else {
            return Err(Error::usage(
                "server",
                "--lan: no ADDR is one that this network reaches, as :8080 is",
            ));
        };
        Responder::open(server).map_err(|e| {
            let cause: &dyn Display = match e.kind() {
                ErrorKind::AddrInUse => &TAKEN,
                _ => &format_args!("{}; {ADVICE}", Cause(&e)),
            };
            Error::local("listen on", SocketAddrV4::new(GROUP, PORT), cause)
        })
    }

    fn open(server: SocketAddrV4) -> io::Result<Self> {
        let questions = UdpSocket::bind((GROUP, PORT))?;
        questions.join_multicast_v4(&GROUP, server.ip())?;
        // From the advertised address, which need not be the interface's first.
        let answers = UdpSocket::bind((*server.ip(), 0))?;
        answers.set_ttl(TTL)?;
        Ok(Responder {
            questions,
            answers,
            port: server.port(),
        })
    }

    /// Answers for ever.
    pub fn run(&self) {
        // When the last answers were sent, the oldest at `next`.
        let mut sent: [Option<Instant>; MAX_RATE] = [None; MAX_RATE];
        let mut next = 0;
        loop {
            let mut buffer = [0; BUFFER];
            let Ok((length, from)) = self.questions.recv_from(&mut buffer) else {
                thread::sleep(FAILURE_PAUSE);
                continue;
            };
            let Some(nonce) = read_question(&buffer[..length]) else {
                continue;
            };
            if sent[next].is_some_and(|sent| sent.elapsed() < RATE_TIME) {
                continue;
            }
            let answer = [ANSWER, nonce, format!(" {}", self.port).as_bytes()].concat();
            // A lost answer costs the asker half a second, and the server nothing.
            let _ = self.answers.send_to(&answer, from);
            sent[next] = Some(Instant::now());
            next = (next + 1) % MAX_RATE;
        }
    }
}

/// Advice where there is no network to ask.
pub const ADVICE: &str = "is the network up? --lan=ADDR takes the interface with that address";

/// The cause where another program has the port.
const TAKEN: &str = "another program has this UDP port, perhaps another psync server --lan";

/// The first of `listening` that `interface` reaches: the address to answer from, and the port. A socket on
/// every v6 interface takes v4 too, unless the system keeps them apart.
fn advertised(interface: Ipv4Addr, listening: &[SocketAddr]) -> Option<SocketAddrV4> {
    let by_interface = |socket: &SocketAddr| {
        let address = match socket.ip().to_canonical() {
            ip if ip.is_unspecified() => interface,
            IpAddr::V4(ip) if interface.is_unspecified() && !ip.is_loopback() => ip,
            IpAddr::V4(ip) if ip == interface => ip,
            _ => return None,
        };
        Some(SocketAddrV4::new(address, socket.port()))
    };
    listening.iter().find_map(by_interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &[u8] = b"0123456789abcdEF";

    #[test]
    fn a_question_is_its_bytes_and_no_others() {
        let good = [QUESTION, DIGITS].concat();
        assert_eq!(read_question(&good), Some(DIGITS));
        for length in 0..good.len() {
            assert_eq!(read_question(&good[..length]), None);
        }
        for junk in [&b" "[..], b"\n", b"0", b"\0", &[b'0'; 40]] {
            assert_eq!(read_question(&[&good, junk].concat()), None);
            assert_eq!(read_question(&[junk, &good].concat()), None);
        }
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                let is_due = match at < QUESTION.len() {
                    true => byte == good[at],
                    false => byte.is_ascii_hexdigit(),
                };
                assert_eq!(read_question(&bytes).is_some(), is_due, "{bytes:?}");
            }
        }
    }

    #[test]
    fn an_answer_is_to_this_question_and_has_a_port() {
        let answer = |port: &str| [ANSWER, DIGITS, port.as_bytes()].concat();
        for (text, port) in [(" 1", 1), (" 8080", 8080), (" 65535", 65535)] {
            assert_eq!(read_answer(&answer(text), DIGITS), Some(port));
            assert_eq!(read_answer(&answer(text), b"0123456789abcdef"), None);
        }
        for wrong in [
            "",
            " ",
            "8080",
            " 0",
            " 08080",
            " 65536",
            " 4294967297",
            " +1",
            " -1",
            "  1",
            " 1 ",
            " 1\n",
            " 1\0",
            " 1 2",
            " x",
            " 1.5",
            "\t1",
            " \u{661}",
        ] {
            assert_eq!(read_answer(&answer(wrong), DIGITS), None, "{wrong:?}");
        }
        let good = answer(" 80");
        for at in 0..good.len() - 2 {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert_eq!(read_answer(&bytes, DIGITS), None);
            assert_eq!(read_answer(&good[..at], DIGITS), None);
        }
    }

    #[test]
    fn a_nonce_is_hex_digits_and_fresh() {
        let nonces: Vec<String> = (0..100).map(|_| fresh_nonce()).collect();
        for (n, nonce) in nonces.iter().enumerate() {
            assert!(read_question(&[QUESTION, nonce.as_bytes()].concat()).is_some());
            assert!(!nonces[..n].contains(nonce));
        }
        // Each digit takes each value somewhere, so that none is a constant.
        let digit = |nonce: &String, place| nonce.as_bytes()[place];
        for place in 0..NONCE {
            let first = digit(&nonces[0], place);
            assert!(nonces.iter().any(|nonce| digit(nonce, place) != first));
        }
    }

    #[test]
    fn who_may_answer() {
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let any = Ipv4Addr::UNSPECIFIED;
        for (from, interface, may) in [
            ("10.0.0.1", any, true),
            ("169.254.1.1", any, true),
            ("203.0.113.1", ip("203.0.113.2"), true),
            ("127.0.0.1", any, false),
            ("127.0.0.1", ip("10.0.0.1"), false),
            ("127.0.0.1", ip("127.0.0.1"), true),
            ("0.0.0.0", any, false),
            ("255.255.255.255", any, false),
            ("239.255.112.115", any, false),
        ] {
            assert_eq!(may_answer(ip(from), interface), may, "{from} {interface}");
        }
    }

    #[test]
    fn the_first_socket_that_can_be_reached_is_told() {
        let found = |interface: &str, listening: &[&str]| {
            let listening: Vec<SocketAddr> = listening.iter().map(|a| a.parse().unwrap()).collect();
            let found = advertised(interface.parse().unwrap(), &listening);
            found.map_or(String::new(), |found| found.to_string())
        };
        let all = [
            "127.0.0.1:1",
            "[::1]:2",
            "[fd00::1]:3",
            "10.0.0.1:4",
            "[::]:5",
            "0.0.0.0:6",
        ];
        assert_eq!(found("0.0.0.0", &all), "10.0.0.1:4");
        assert_eq!(found("0.0.0.0", &all[..3]), "");
        assert_eq!(found("0.0.0.0", &all[4..]), "0.0.0.0:5");
        assert_eq!(found("10.0.0.1", &all), "10.0.0.1:4");
        assert_eq!(found("10.0.0.2", &all), "10.0.0.2:5");
        assert_eq!(found("10.0.0.2", &all[..4]), "");
        assert_eq!(found("127.0.0.1", &all), "127.0.0.1:1");
        assert_eq!(found("0.0.0.0", &["[::ffff:10.0.0.1]:7"]), "10.0.0.1:7");
    }
}
