//! `relay TARGET RTT_MS BITS_PER_SECOND`: the link of the tests, as a program for the benchmarks.
//!
//! Prints `listening on IP:PORT`, then, whenever they have changed, the bytes carried so far as
//! `carried UP DOWN`. Ends with its parent, so that a killed script leaves nothing running.
#![allow(
    clippy::unwrap_used,
    reason = "a panic is this program's way to complain"
)]

use std::env;
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::os::unix::process::parent_id;
use std::thread;
use std::time::Duration;

#[path = "../it/support/relay.rs"]
mod relay;

/// Between two looks at the parent and the counts.
const TICK: Duration = Duration::from_millis(100);

fn main() -> io::Result<()> {
    let parent = parent_id();
    let words: Vec<String> = env::args().skip(1).collect();
    let [target, rtt, rate] = &words[..] else {
        return Err(io::Error::other("relay TARGET RTT_MS BITS_PER_SECOND"));
    };
    let target = target.to_socket_addrs()?.next().unwrap();
    let rtt = Duration::from_millis(rtt.parse().unwrap());
    let relay = relay::Relay::start(target, rtt, rate.parse().unwrap());
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {}", relay.addr())?;
    let mut told = (0, 0);
    while parent_id() == parent {
        thread::sleep(TICK);
        let now = (relay.bytes_up(), relay.bytes_down());
        if now != told {
            writeln!(stdout, "carried {} {}", now.0, now.1)?;
            told = now;
        }
    }
    Ok(())
}
