//! What the protocol stands on: words, and a place to sleep.
//!
//! The protocol is written over these traits, so that what runs is also what loom
//! explores: with its words, and with gates made of its locks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;

/// A machine, or a model of one.
pub(super) trait Platform: 'static {
    type Word: Word;
    type Gate: Gate;
    type Spin: Spin;
}

/// An atomic word. What reads acquires, what writes releases, unless it says otherwise.
pub(super) trait Word: Send + Sync {
    fn new(value: u64) -> Self;
    fn load(&self) -> u64;
    /// A load that orders nothing: for a look that is followed by a read-modify-write.
    fn peek(&self) -> u64;
    /// A store that orders nothing: for what another word then hands over.
    fn put(&self, value: u64);
    /// Adds, and returns what was there.
    fn add(&self, value: u64) -> u64;
    /// Subtracts, and returns what was there.
    fn sub(&self, value: u64) -> u64;
    /// Sets bits, and returns what was there.
    fn set(&self, bits: u64) -> u64;
    /// Clears bits, and returns what was there.
    fn clear(&self, bits: u64) -> u64;
    /// Puts `new` where `current` is, or returns what is there. It may fail for no reason.
    fn exchange(&self, current: u64, new: u64) -> Result<(), u64>;
}

/// Where threads sleep until they are let through, as often as it was told: a semaphore.
pub(super) trait Gate: Send + Sync {
    fn new() -> Self;
    /// Lets `count` threads through, now or when they come.
    fn post(&self, count: u32);
    /// Waits to be let through.
    fn wait(&self);
}

/// A wait that is awake, for a while.
pub(super) trait Spin {
    fn new() -> Self;
    /// Passes a moment. Returns false once it has done so for as long as `limit`.
    fn goes_on(&mut self, limit: Duration) -> bool;
}

/// The machine.
#[derive(Debug)]
pub(super) struct Native;

impl Platform for Native {
    type Word = AtomicU64;
    type Gate = FutexGate;
    type Spin = TimedSpin;
}

impl Word for AtomicU64 {
    #[inline]
    fn new(value: u64) -> Self {
        AtomicU64::new(value)
    }

    #[inline]
    fn load(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    #[inline]
    fn peek(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    #[inline]
    fn put(&self, value: u64) {
        self.store(value, Ordering::Relaxed);
    }

    #[inline]
    fn add(&self, value: u64) -> u64 {
        self.fetch_add(value, Ordering::AcqRel)
    }

    #[inline]
    fn sub(&self, value: u64) -> u64 {
        self.fetch_sub(value, Ordering::AcqRel)
    }

    #[inline]
    fn set(&self, bits: u64) -> u64 {
        self.fetch_or(bits, Ordering::AcqRel)
    }

    #[inline]
    fn clear(&self, bits: u64) -> u64 {
        self.fetch_and(!bits, Ordering::AcqRel)
    }

    #[inline]
    fn exchange(&self, current: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange_weak(current, new, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }
}

/// A semaphore on a futex.
#[derive(Debug)]
pub(super) struct FutexGate {
    /// How many threads may pass.
    permits: AtomicU32,
}

impl Gate for FutexGate {
    fn new() -> Self {
        FutexGate {
            permits: AtomicU32::new(0),
        }
    }

    fn post(&self, count: u32) {
        self.permits.fetch_add(count, Ordering::Release);
        // It fails for an address that is none, and this is one.
        let _ = futex::wake(&self.permits, futex::Flags::PRIVATE, count);
    }

    fn wait(&self) {
        let take = |permits: u32| permits.checked_sub(1);
        while self
            .permits
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, take)
            .is_err()
        {
            // It returns for a signal, or because there is a permit by now: look again.
            let _ = futex::wait(&self.permits, futex::Flags::PRIVATE, 0, None);
        }
    }
}

/// A spin that looks at the clock now and then.
#[derive(Debug)]
pub(super) struct TimedSpin {
    polls: u32,
    start: Option<Instant>,
}

/// After how many polls the clock is looked at: it costs 25 ns, a poll about 10 ns with the
/// pause in it. 1 looks at every poll.
const POLLS: u32 = 32;

impl Spin for TimedSpin {
    #[inline]
    fn new() -> Self {
        TimedSpin {
            polls: 0,
            start: None,
        }
    }

    #[inline]
    fn goes_on(&mut self, limit: Duration) -> bool {
        std::hint::spin_loop();
        self.polls = self.polls.wrapping_add(1);
        if !self.polls.is_multiple_of(POLLS) {
            return !limit.is_zero();
        }
        self.start.get_or_insert_with(Instant::now).elapsed() < limit
    }
}
