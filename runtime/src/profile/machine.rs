//! What a machine can do at most.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::peaks;
use crate::Runtime;
use crate::compile::cache::Key;
use crate::compile::cpu;
use crate::plan::cpu_name;
use crate::pool::available_threads;

/// To be raised when what is measured, or how, changes.
const VERSION: &str = "4";

/// What a machine can do at most: measured once, and kept in the runtime's cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as the system names it.
    pub cpu: String,
    /// For one thread, and for as many as the runtime has, if those are more.
    pub rates: Vec<Rates>,
}

/// What some threads can do together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// How many threads.
    pub threads: usize,
    /// Fused multiplications and additions of 32-bit floats, in operations a second: each is two.
    pub f32_flops: f64,
    /// The same of 64-bit floats.
    pub f64_flops: f64,
    /// What they move, of data of several sizes, from the smallest on.
    pub bandwidth: Vec<Bandwidth>,
}

/// What is moved in a second, of data that is gone through again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// The size of the data, of all threads together, in bytes.
    pub size: usize,
    /// Bytes read in a second, by a kernel that only reads.
    pub read: f64,
    /// Bytes read and written in a second, together, by a copy.
    pub copy: f64,
}

impl Machine {
    /// Measures it with one thread, and with `threads`, but no more than there are CPUs for. It takes one or two seconds, in which the
    /// machine should have nothing else to do, and 256 MiB.
    #[must_use]
    pub fn measure(threads: usize) -> Machine {
        let mut counts = vec![1, threads.clamp(1, available_threads())];
        counts.dedup();
        let mut rates: Vec<Rates> = counts.into_iter().map(peaks::measure).collect();
        if let [one, all] = &mut rates[..] {
            one.raise(all);
        }
        Machine {
            cpu: cpu_name(),
            rates,
        }
    }

    /// What was measured before for a machine like this one and as many threads as the runtime
    /// has, and is in its cache; measured now, and kept there, where nothing is.
    #[must_use]
    pub fn of(runtime: &Runtime) -> Machine {
        Machine::known(runtime).unwrap_or_else(|| Machine::measured(runtime))
    }

    /// As [`of`](Self::of), but measured now in any case: for where it was measured while the machine
    /// had other work.
    #[must_use]
    pub fn measured(runtime: &Runtime) -> Machine {
        let machine = Machine::measure(runtime.pool().threads());
        if let (Some(cache), Ok(bytes)) = (runtime.cache(), serde_json::to_vec(&machine)) {
            cache.put(&key(runtime), &bytes);
        }
        machine
    }

    fn known(runtime: &Runtime) -> Option<Machine> {
        let bytes = runtime.cache()?.get(&key(runtime))?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The rates of so many threads: those of the most that are no more.
    #[must_use]
    pub fn rates(&self, threads: usize) -> Option<&Rates> {
        let fitting = self.rates.iter().filter(|rates| rates.threads <= threads);
        fitting.max_by_key(|rates| rates.threads)
    }
}

/// By what its figures are found again.
fn key(runtime: &Runtime) -> Key {
    Key::new([
        ("machine", VERSION),
        ("cpu", cpu::host()),
        ("name", &cpu_name()),
        ("threads", &runtime.pool().threads().to_string()),
    ])
}

impl Rates {
    /// One thread can do what each of several does.
    fn raise(&mut self, several: &Rates) {
        let threads = several.threads as f64;
        self.f32_flops = self.f32_flops.max(several.f32_flops / threads);
        self.f64_flops = self.f64_flops.max(several.f64_flops / threads);
        for (one, all) in self.bandwidth.iter_mut().zip(&several.bandwidth) {
            one.read = one.read.max(all.read / threads);
            one.copy = one.copy.max(all.copy / threads);
        }
    }

    /// The least time in which so many operations can be done.
    #[must_use]
    pub fn arithmetic(&self, flops: u64, bytes_a_float: usize) -> Duration {
        let rate = match bytes_a_float {
            8.. => self.f64_flops,
            _ => self.f32_flops,
        };
        seconds(flops as f64 / rate)
    }

    /// Of the sizes that are read about as fast, the largest each: where a cache ends.
    pub fn plateaus(&self) -> impl Iterator<Item = &Bandwidth> {
        let next = self.bandwidth.iter().skip(1).map(Some).chain([None]);
        let levels = self.bandwidth.iter().zip(next);
        let ends = levels.filter(|(level, next)| next.is_none_or(|n| n.read < 0.75 * level.read));
        ends.map(|(level, _)| level)
    }

    /// The bandwidth where data of this size lies that is gone through again and again.
    #[must_use]
    pub fn bandwidth(&self, size: usize) -> Option<&Bandwidth> {
        let fitting = self.bandwidth.iter().find(|level| level.size >= size);
        fitting.or(self.bandwidth.last())
    }
}

/// Seconds as a time; none where they are no number that is one.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
