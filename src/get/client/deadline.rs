//! Deadlines for the parts of a body, and for a chain of redirects as a whole, which ureq does not have.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

thread_local! {
    /// When what this thread waits for must be there.
    static PART_DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `read`, whose waits for input on this thread fail after `timeout` altogether. One call cannot stand in
/// another: the end of the inner one ends the deadline.
pub fn within<T>(timeout: Duration, read: impl FnOnce() -> T) -> T {
    let _guard = DeadlineGuard;
    PART_DEADLINE.set(Some(Instant::now() + timeout));
    read()
}

/// Ends the deadline, also after a panic: a worker survives that, and reads on with the same thread.
struct DeadlineGuard;

impl Drop for DeadlineGuard {
    fn drop(&mut self) {
        PART_DEADLINE.set(None);
    }
}

/// Ends every wait for input at [`PART_DEADLINE`]. ureq has a timeout for a whole body, which a slow line
/// exceeds, and one for each wait, which a byte now and then never exceeds.
#[derive(Debug)]
pub struct PartDeadlines;

impl<In: Transport> Connector<In> for PartDeadlines {
    type Out = Watched<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(Watched))
    }
}

#[derive(Debug)]
pub struct Watched<In>(In);

impl<In: Transport> Transport for Watched<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if let Some(deadline) = PART_DEADLINE.get() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ureq::Error::Timeout(Timeout::RecvBody));
            }
            timeout.after = timeout.after.min(left.into());
            timeout.reason = Timeout::RecvBody;
        }
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn a_panic_leaves_no_deadline() {
        let read = || within(Duration::ZERO, || panic!("a reader's"));
        assert!(catch_unwind(read).is_err());
        assert!(PART_DEADLINE.get().is_none());
    }
}
