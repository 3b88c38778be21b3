//! The kernels by which a machine is measured.
//!
//! They are compiled with the library, so that a machine without a compiler can be measured, for
//! the widest vectors that it has. All threads work at the same time, each on data of its own,
//! and the best of several tries counts: what the machine can do is what it does undisturbed. So
//! time counts in which a thread had a processor, and a try is better than any other where all
//! threads had one all the time.

use std::hint::black_box;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::machine::{Bandwidth, Rates};

/// The sizes of data: from what fits any cache to what fits none, in steps that show where one ends.
const SIZES: [usize; 8] = [
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
    256 << 20,
];

/// How long a try goes on, and how many there are.
const TRY: Duration = Duration::from_millis(2);
const TRIES: usize = 16;

/// What part of a try a thread must have had a processor for, if it is to count as undisturbed.
const UNDISTURBED: f64 = 0.95;

/// Of how many bytes on a try is longer anyway, and how many there are then.
const LARGE: usize = 32 << 20;
const TRIES_OF_LARGE: usize = 3;

/// Fused multiplications and additions of each chain, and bytes, between two looks at the clock.
const ROUNDS: usize = 4096;
const BETWEEN_LOOKS: usize = 1 << 20;

pub(super) fn measure(threads: usize) -> Rates {
    measure_with(threads, &SIZES)
}

fn measure_with(threads: usize, sizes: &[usize]) -> Rates {
    Rates {
        threads,
        f32_flops: together(threads, TRIES, |_| (), |()| fma_f32(ROUNDS)),
        f64_flops: together(threads, TRIES, |_| (), |()| fma_f64(ROUNDS)),
        bandwidth: sizes.iter().map(|&size| bandwidth(threads, size)).collect(),
    }
}

fn bandwidth(threads: usize, size: usize) -> Bandwidth {
    // Whole chunks of what the reading kernel takes at a time.
    let words = (size / threads / 8).max(1).next_multiple_of(CHUNK);
    // Few bytes take no longer than a look at the clock.
    let times = (BETWEEN_LOOKS / (words * 8)).max(1);
    let tries = if size > LARGE { TRIES_OF_LARGE } else { TRIES };
    let read = together(
        threads,
        tries,
        |_| vec![1_u64; words],
        |data| {
            for _ in 0..times {
                black_box(sum(black_box(data)));
            }
            times * words * 8
        },
    );
    let half = words / 2;
    let copy = together(
        threads,
        tries,
        |_| (vec![1_u64; half], vec![0_u64; half]),
        |(from, to)| {
            for _ in 0..times {
                add_one(black_box(from), to);
                black_box(&mut *to);
            }
            times * half * 16
        },
    );
    Bandwidth { size, read, copy }
}

/// What all threads do in a second when each does `work` again and again, which says how much
/// it did.
fn together<T>(
    threads: usize,
    tries: usize,
    prepare: impl Fn(usize) -> T + Sync,
    work: impl Fn(&mut T) -> usize + Sync,
) -> f64 {
    // Where the system refuses a thread, those that there are do without it.
    let barrier = OnceLock::new();
    let one = |thread| {
        let barrier: &Barrier = barrier.wait();
        let mut data = prepare(thread);
        // In caches and in memory, before it counts.
        work(&mut data);
        let mut rates = vec![Rate::default(); tries];
        for rate in &mut rates {
            barrier.wait();
            let (start, on_cpu, mut done) = (Instant::now(), cpu_time(), 0);
            let took = loop {
                done += work(&mut data);
                let took = start.elapsed();
                if took >= TRY {
                    break took;
                }
            };
            *rate = Rate::of(done, took, cpu_time().saturating_sub(on_cpu));
        }
        rates
    };
    let one = &one;
    let rates: Vec<Vec<Rate>> = thread::scope(|scope| {
        let spawn = |t| thread::Builder::new().spawn_scoped(scope, move || one(t));
        let others: Vec<_> = (1..threads).map_while(|t| spawn(t).ok()).collect();
        let _ = barrier.set(Barrier::new(others.len() + 1));
        let mut rates = vec![one(0)];
        rates.extend(others.into_iter().filter_map(|other| other.join().ok()));
        rates
    });
    let all = |try_: usize| {
        let each = rates.iter().map(|rates| rates[try_]);
        each.reduce(Rate::beside).unwrap_or_default()
    };
    best((0..tries).map(all))
}

/// What a thread, or all, did in a try.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// How much in a second with a processor.
    done: f64,
    is_undisturbed: bool,
}

impl Rate {
    fn of(done: usize, took: Duration, on_cpu: Duration) -> Rate {
        // A clock that stands still says nothing.
        let on_cpu = if on_cpu.is_zero() { took } else { on_cpu };
        let (took, on_cpu) = (took.as_secs_f64(), on_cpu.as_secs_f64());
        Rate {
            done: done as f64 / on_cpu.min(took).max(1e-9),
            is_undisturbed: on_cpu >= UNDISTURBED * took,
        }
    }

    fn beside(self, other: Rate) -> Rate {
        Rate {
            done: self.done + other.done,
            is_undisturbed: self.is_undisturbed && other.is_undisturbed,
        }
    }
}

/// The best of those that were undisturbed or, where none was, of all.
fn best(rates: impl Iterator<Item = Rate>) -> f64 {
    let by_rate = |a: &Rate, b: &Rate| {
        let undisturbed = a.is_undisturbed.cmp(&b.is_undisturbed);
        undisturbed.then(a.done.total_cmp(&b.done))
    };
    rates.max_by(by_rate).map_or(0.0, |rate| rate.done)
}

/// How long the calling thread has had a processor.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Words that are read at a time: as many sums are kept, which fill eight registers of the widest
/// common vectors.
const CHUNK: usize = 32;

#[inline(always)]
fn sum_of(data: &[u64]) -> u64 {
    let mut sums = [0_u64; CHUNK];
    for chunk in data.as_chunks::<CHUNK>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

/// A copy that compilers make no call of `memcpy` of, which on some processors takes instructions
/// for strings that are slower by far than a kernel's loads and stores.
#[inline(always)]
fn one_more(from: &[u64], to: &mut [u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.wrapping_add(1);
    }
}

#[cfg(not(target_arch = "x86_64"))]
use self::portable::{fma_f32, fma_f64};
#[cfg(target_arch = "x86_64")]
use self::x86_64::{add_one, fma_f32, fma_f64, sum};
#[cfg(not(target_arch = "x86_64"))]
use {one_more as add_one, sum_of as sum};

/// As many independent chains as hide the time that one operation takes.
const CHAINS: usize = 12;

/// Chains of vectors of `LANES` floats, which the compiler keeps in registers.
macro_rules! chains {
    ($float:ty, $lanes:expr, $rounds:expr, $fma:expr) => {{
        let factor = black_box([0.999 as $float; $lanes]);
        let addend = black_box([0.001 as $float; $lanes]);
        let mut chains = [[1.0 as $float; $lanes]; CHAINS];
        for _ in 0..$rounds {
            for chain in &mut chains {
                for lane in 0..$lanes {
                    chain[lane] = $fma(chain[lane], factor[lane], addend[lane]);
                }
            }
        }
        black_box(chains);
        $rounds * CHAINS * $lanes * 2
    }};
}

#[cfg(not(target_arch = "x86_64"))]
mod portable {
    use super::*;

    pub(super) fn fma_f32(rounds: usize) -> usize {
        chains!(f32, 4, rounds, f32::mul_add)
    }

    pub(super) fn fma_f64(rounds: usize) -> usize {
        chains!(f64, 2, rounds, f64::mul_add)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_set1_pd, _mm256_set1_ps, _mm512_fmadd_pd,
        _mm512_fmadd_ps, _mm512_set1_pd, _mm512_set1_ps,
    };

    use super::{CHAINS, black_box, one_more, sum_of};

    macro_rules! vectors {
        ($name:ident, $feature:literal, $lanes:literal, $set:ident, $fma:ident) => {
            #[target_feature(enable = $feature)]
            fn $name(rounds: usize) -> usize {
                let (factor, addend) = ($set(black_box(0.999)), $set(black_box(0.001)));
                let mut chains = [$set(black_box(1.0)); CHAINS];
                for _ in 0..rounds {
                    for chain in &mut chains {
                        *chain = $fma(*chain, factor, addend);
                    }
                }
                black_box(chains);
                rounds * CHAINS * $lanes * 2
            }
        };
    }

    vectors!(f32_avx512, "avx512f", 16, _mm512_set1_ps, _mm512_fmadd_ps);
    vectors!(f64_avx512, "avx512f", 8, _mm512_set1_pd, _mm512_fmadd_pd);
    vectors!(f32_avx2, "avx2,fma", 8, _mm256_set1_ps, _mm256_fmadd_ps);
    vectors!(f64_avx2, "avx2,fma", 4, _mm256_set1_pd, _mm256_fmadd_pd);

    #[target_feature(enable = "avx512f")]
    fn sum_avx512(data: &[u64]) -> u64 {
        sum_of(data)
    }

    #[target_feature(enable = "avx2")]
    fn sum_avx2(data: &[u64]) -> u64 {
        sum_of(data)
    }

    pub(super) fn sum(data: &[u64]) -> u64 {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: this CPU has what it was compiled for.
            unsafe { sum_avx512(data) }
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            unsafe { sum_avx2(data) }
        } else {
            sum_of(data)
        }
    }

    #[target_feature(enable = "avx512f")]
    fn add_one_avx512(from: &[u64], to: &mut [u64]) {
        one_more(from, to);
    }

    #[target_feature(enable = "avx2")]
    fn add_one_avx2(from: &[u64], to: &mut [u64]) {
        one_more(from, to);
    }

    pub(super) fn add_one(from: &[u64], to: &mut [u64]) {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: this CPU has what it was compiled for.
            unsafe { add_one_avx512(from, to) }
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            unsafe { add_one_avx2(from, to) }
        } else {
            one_more(from, to);
        }
    }

    macro_rules! widest {
        ($name:ident, $avx512:ident, $avx2:ident, $float:ty, $lanes:literal) => {
            pub(super) fn $name(rounds: usize) -> usize {
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: this CPU has what it was compiled for.
                    unsafe { $avx512(rounds) }
                } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    unsafe { $avx2(rounds) }
                } else {
                    chains!($float, $lanes, rounds, |a: $float, b, c| a * b + c)
                }
            }
        };
    }

    widest!(fma_f32, f32_avx512, f32_avx2, f32, 4);
    widest!(fma_f64, f64_avx512, f64_avx2, f64, 2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_do_something_and_sums_are_right() {
        // Small ones: tests are not optimised.
        let rates = measure_with(2, &SIZES[..1]);
        assert_eq!(rates.threads, 2);
        assert!(rates.f32_flops > 1e5 && rates.f64_flops > 1e5, "{rates:?}");
        let level = rates.bandwidth[0];
        assert!(level.read > 1e5 && level.copy > 1e5, "{rates:?}");
        let data: Vec<u64> = (0..64).collect();
        assert_eq!(sum(&data), 63 * 32);
        let mut to = vec![0; 63];
        add_one(&data, &mut to);
        assert_eq!(to, data[1..]);
    }

    #[test]
    fn a_thread_that_has_no_processor_counts_for_nothing() {
        let millis = Duration::from_millis;
        // Half of the time, another program had it.
        let halved = Rate::of(100, millis(2), millis(1));
        assert!((halved.done - 1e5).abs() < 1.0 && !halved.is_undisturbed);
        let slower = Rate::of(90, millis(1), millis(1));
        assert!((slower.done - 9e4).abs() < 1.0 && slower.is_undisturbed);
        // Beside one that was away, the other had the memory to itself.
        let both = halved.beside(slower);
        assert!(!both.is_undisturbed && (both.done - 1.9e5).abs() < 1.0);
        assert!((best([halved, slower, both].into_iter()) - 9e4).abs() < 1.0);
        assert!((best([halved, halved].into_iter()) - 1e5).abs() < 1.0);
        assert!((Rate::of(1, millis(1), Duration::ZERO).done - 1e3).abs() < 1.0);
    }

    #[test]
    fn there_is_data_for_each_of_many_threads() {
        assert!(bandwidth(40, 64).read > 0.0);
    }

    #[test]
    fn an_operation_is_counted_as_two() {
        // 12 chains of at least two lanes.
        assert!(fma_f32(1) >= CHAINS * 2 * 2);
        assert_eq!(fma_f32(10), 10 * fma_f32(1));
        assert_eq!(fma_f32(1), 2 * fma_f64(1));
    }
}
