//! The same targets for libFuzzer; the environment's `TARGET` says which.
#![no_main]

use std::sync::LazyLock;

use psync_fuzz::{TARGETS, Target};

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").expect("TARGET");
    let mut targets = TARGETS.iter();
    targets
        .find(|target| target.name == name)
        .expect("a target")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (CHOSEN.run)(data);
});
