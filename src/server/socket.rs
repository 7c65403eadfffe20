//! A connection's socket: its options, and sending with a deadline.
//!
//! This file owns the timeouts that the system keeps. It does not look at what it sends.

use std::io::{self, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::sys;

/// How long a connection may be without the first byte of a request.
pub const IDLE: Duration = Duration::from_secs(60);

/// Writes per `timeout`. A write says only that the client took bytes during it, not when the last of them:
/// so a client may get up to an eighth more than `timeout`.
const WRITES: u32 = 8;

/// Sets a listening socket's options, which its connections inherit: setting them on each connection would
/// cost three system calls. A read then ends after `IDLE`.
///
/// # Errors
/// Those of the system.
pub fn set_options(listener: TcpListener, timeout: Duration) -> io::Result<TcpListener> {
    // std sets them only on a stream; the descriptor is the same.
    let socket = TcpStream::from(OwnedFd::from(listener));
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(timeout / WRITES))?;
    socket.set_read_timeout(Some(IDLE))?;
    Ok(OwnedFd::from(socket).into())
}

/// Sends all of `bytes`, or gives up where the client takes none for the `timeout` of [`set_options`].
///
/// # Errors
/// Those of the system.
pub fn send_all(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let (mut tries, mut untaken) = (0, None);
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => (bytes, tries) = (&bytes[written..], 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // A slow client may have taken some: the socket has room only once a third of what it
                // holds is taken.
                let before = mem::replace(&mut untaken, sys::untaken(stream));
                tries = if before == untaken { tries + 1 } else { 1 };
                if tries == WRITES {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
