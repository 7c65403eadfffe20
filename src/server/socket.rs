//! A connection's socket: its options, and sending with a deadline.

use std::io::{self, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::sys;

/// A connection ends after this without the first byte of a request.
pub const IDLE: Duration = Duration::from_secs(60);

/// Writes that are tried in `timeout`. One call does not tell when the last byte of what it wrote was
/// taken, only that it was in its own time: as much as an eighth is given too much.
const WRITES: u32 = 8;

/// Sets a listening socket's options, which its connections inherit: to set them on each costs
/// a small box three calls to the system a connection. A read then ends after `IDLE`.
///
/// # Errors
/// Those of the system.
pub fn set_options(listener: TcpListener, timeout: Duration) -> io::Result<TcpListener> {
    // std sets them by another type, of the same descriptor.
    let socket = TcpStream::from(OwnedFd::from(listener));
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(timeout / WRITES))?;
    socket.set_read_timeout(Some(IDLE))?;
    Ok(OwnedFd::from(socket).into())
}

/// Sends all of `bytes`, or gives up where the client takes none for `timeout`, as [`set_options`] was told.
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
                // There is room for more only once a third of what was written is taken, which on a
                // slow line may be later.
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
