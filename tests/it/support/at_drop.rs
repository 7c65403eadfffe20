//! What every Drop in tests/it does, it does through here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Runs the body of a Drop. A panic in it fails the test, or skips it; where the test has failed already it goes no
/// further, since a second one on its way would end the whole run.
pub fn at_drop(work: impl FnOnce()) {
    if thread::panicking() {
        let _ = catch_unwind(AssertUnwindSafe(work));
    } else {
        work();
    }
}
