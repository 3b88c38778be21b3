//! Candidates that find caches cold.
//!
//! A kernel that is run again and again finds its data in caches, where a plan that comes
//! to it once finds it in memory. What is to be known decides which of them to measure.

use std::fs;
use std::hint::black_box;

use super::Candidate;
use crate::Error;
use crate::pool::{Job, Pool, run_alone};

/// The size of a sweep where the system does not say how large its caches are.
const UNKNOWN: usize = 128 << 20;
/// A cache line. A stride that is smaller than one costs time only.
const LINE: usize = 64;

/// Memory that is gone through so that caches hold nothing else.
#[derive(Debug)]
pub struct Sweep {
    lines: Vec<[u8; LINE]>,
}

impl Sweep {
    /// Twice the size of the last-level cache, as the system states it, since caches do
    /// not always make room for what comes in a row; 128 MiB where it does not. It is
    /// memory, and time, of which a tuner has one for all candidates.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new() -> Result<Sweep, Error> {
        Sweep::of_bytes(last_level().map_or(UNKNOWN, |bytes| bytes.saturating_mul(2)))
    }

    /// Of this size, rounded up to cache lines.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn of_bytes(bytes: usize) -> Result<Sweep, Error> {
        let count = bytes.div_ceil(LINE);
        let mut lines = Vec::new();
        let reserved = lines.try_reserve_exact(count);
        reserved.map_err(|_| Error::OutOfMemory {
            what: "what is gone through to have caches cold".into(),
            bytes,
        })?;
        // All pages that were never written are one, which evicts little.
        lines.resize(count, [1; LINE]);
        Ok(Sweep { lines })
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.lines.len() * LINE
    }

    /// Goes through it on this thread, and on each of the pool's that come. A thread's
    /// cache of instructions may keep what it has.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] where this process was forked meanwhile.
    pub fn evict(&self, pool: Option<&Pool>) -> Result<(), Error> {
        match pool.filter(|pool| pool.threads() > 1) {
            None => {
                run_alone(&Eviction(self, 1));
                Ok(())
            }
            Some(pool) => {
                let job = Eviction(self, u32::try_from(pool.threads()).unwrap_or(u32::MAX));
                pool.run(&mut 0, &job).map_err(|_| Error::Forked)
            }
        }
    }
}

/// The sweep once for each of so many threads: who has done one comes too late for another.
struct Eviction<'a>(&'a Sweep, u32);

impl Job for Eviction<'_> {
    fn phases(&self) -> u32 {
        1
    }

    fn units(&self, _phase: u32) -> u32 {
        self.1
    }

    fn run(&self, _phase: u32, _unit: u32) {
        let mut sum = 0_u8;
        for line in &self.0.lines {
            sum = sum.wrapping_add(line[0]);
        }
        black_box(sum);
    }
}

/// A candidate of which each run finds caches cold: they are swept once it is prepared,
/// which is not timed. A sample is one run, of which the clock costs some 20 ns.
#[derive(Debug)]
pub struct Cold<'a, C> {
    candidate: C,
    sweep: &'a Sweep,
}

impl<'a, C: Candidate> Cold<'a, C> {
    /// This candidate, with caches that are cold.
    pub const fn new(candidate: C, sweep: &'a Sweep) -> Cold<'a, C> {
        Cold { candidate, sweep }
    }
}

impl<C: Candidate> Candidate for Cold<'_, C> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.candidate.prepare()?;
        self.sweep.evict(self.candidate.pool())
    }

    fn run(&mut self) -> Result<(), Error> {
        self.candidate.run()
    }

    fn runs_once(&self) -> bool {
        true
    }

    fn pool(&self) -> Option<&Pool> {
        self.candidate.pool()
    }
}

/// The size of the largest cache of the first CPU, in bytes.
fn last_level() -> Option<usize> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| {
        let text = fs::read_to_string(cache.ok()?.path().join("size")).ok()?;
        size(&text)
    });
    sizes.max().filter(|bytes| *bytes > 0)
}

/// `512K`, as the system writes it.
fn size(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        None => (text, 1),
        Some(number) if text.ends_with('K') => (number, 1 << 10),
        Some(number) if text.ends_with('M') => (number, 1 << 20),
        Some(number) => (number, 1 << 30),
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_system_writes_them() {
        assert_eq!(size("32K\n"), Some(32 << 10));
        assert_eq!(size("262144K"), Some(256 << 20));
        assert_eq!(size("96M"), Some(96 << 20));
        assert_eq!(size("1G"), Some(1 << 30));
        assert_eq!(size("4096"), Some(4096));
        for text in ["", "K", "-1K", "12 K", "1T"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn a_sweep_has_whole_lines_of_memory_of_its_own() {
        let sweep = Sweep::of_bytes(1000).unwrap();
        assert_eq!(sweep.bytes(), 1024);
        for pool in [None, Some(&Pool::builder().threads(3).build())] {
            sweep.evict(pool).unwrap();
        }
        let too_large = Sweep::of_bytes(usize::MAX / 2).unwrap_err();
        assert!(
            matches!(too_large, Error::OutOfMemory { .. }),
            "{too_large}"
        );
    }
}
