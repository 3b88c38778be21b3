//! Threads that are slow at the wrong moment, on request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Has threads wait for a random while wherever another could come between: for tests.
#[derive(Debug)]
pub(super) struct Delays {
    state: AtomicU64,
}

impl Delays {
    pub(super) fn new(seed: u64) -> Delays {
        Delays {
            state: AtomicU64::new(seed),
        }
    }

    #[cold]
    pub(super) fn delay(&self) {
        // Splitmix64 over a counter. It orders nothing, so that it hides nothing from those
        // who look for races.
        let mut x = self
            .state
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let how_long = x >> 32;
        match x % 16 {
            0 => std::thread::sleep(Duration::from_nanos(how_long % 50_000)),
            1..4 => std::thread::yield_now(),
            4..10 => (0..how_long % 1000).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}
