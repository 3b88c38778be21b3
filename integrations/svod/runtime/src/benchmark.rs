//! Kernels timed against each other, for Svod's search.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use svod_device::device::Program;

use crate::program::code_of;
use crate::{Result, engine};

/// How a kernel is timed.
#[derive(Debug, Clone)]
pub struct BenchmarkConfig {
    /// Runs before those that count.
    pub warmup_runs: usize,
    /// Runs that count.
    pub timing_runs: usize,
    /// Whether the shortest run says what the kernel takes, or the mean.
    pub take_minimum: bool,
    /// Ends the timing once the shortest run so far is longer than this.
    pub early_stop: Option<Duration>,
    /// Whether the caches hold something else before each run but the first.
    pub clear_l2: bool,
}

impl Default for BenchmarkConfig {
    /// Three runs, of which the shortest counts: what else happens on a machine makes a run
    /// longer, and never shorter.
    fn default() -> Self {
        Self {
            warmup_runs: 0,
            timing_runs: 3,
            take_minimum: true,
            early_stop: None,
            clear_l2: false,
        }
    }
}

/// What a kernel took.
#[derive(Debug, Clone)]
pub struct BenchmarkResult {
    /// The shortest run.
    pub min: Duration,
    /// The mean of all.
    pub mean: Duration,
    /// Each run.
    pub runs: Vec<Duration>,
}

impl BenchmarkResult {
    /// The shortest, or the mean.
    #[must_use]
    pub fn timing(&self, take_minimum: bool) -> Duration {
        if take_minimum { self.min } else { self.mean }
    }
}

/// Times a kernel. What is still to be compiled of it is compiled before.
///
/// # Errors
///
/// What the kernel's program fails with, or its compiler.
///
/// # Safety
///
/// As [`Program::execute`], for each run.
pub unsafe fn benchmark_kernel(
    kernel: &dyn Program,
    buffers: &[*mut u8],
    vals: &[i64],
    global_size: Option<[usize; 3]>,
    local_size: Option<[usize; 3]>,
    config: &BenchmarkConfig,
) -> Result<BenchmarkResult> {
    if let Some(code) = code_of(kernel) {
        code.kernel()?;
    }
    // SAFETY: promised by the caller.
    let run = || unsafe { kernel.execute(buffers, vals, global_size, local_size) };
    for _ in 0..config.warmup_runs {
        run()?;
    }
    let mut runs = Vec::with_capacity(config.timing_runs);
    let mut min = Duration::MAX;
    for i in 0..config.timing_runs {
        if config.clear_l2 && i > 0 {
            clear_caches();
        }
        let start = Instant::now();
        run()?;
        let took = start.elapsed();
        min = min.min(took);
        runs.push(took);
        if config.early_stop.is_some_and(|limit| min > limit) {
            break;
        }
    }
    if runs.is_empty() {
        min = Duration::ZERO;
    }
    let count = u32::try_from(runs.len().max(1)).unwrap_or(u32::MAX);
    let mean = runs.iter().sum::<Duration>() / count;
    Ok(BenchmarkResult { min, mean, runs })
}

/// Sets the runtime up, which the first kernel would do otherwise. Its threads start with the
/// first launch that can use them.
pub fn warmup_thread_pool() {
    // Who needs it will be told of the error.
    let _ = engine();
}

/// Reads more memory than the caches of a core hold.
fn clear_caches() {
    const BYTES: usize = 16 << 20;
    const LINE: usize = 64;
    static OTHER: OnceLock<Vec<u8>> = OnceLock::new();
    let other = OTHER.get_or_init(|| vec![1; BYTES]);
    let sum = other.iter().step_by(LINE);
    black_box(sum.fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
}
