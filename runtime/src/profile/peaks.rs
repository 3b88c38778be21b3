//! The kernels by which a machine is measured.
//!
//! They are compiled with the library, so that a machine without a compiler can be measured, for
//! the widest vectors that it has. All threads work at the same time, each on data of its own,
//! and the best of several tries counts: what the machine can do is what it does undisturbed.

use std::hint::black_box;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

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
        let mut rates = vec![0.0; tries];
        for rate in &mut rates {
            barrier.wait();
            let (start, mut done) = (Instant::now(), 0);
            let took = loop {
                done += work(&mut data);
                let took = start.elapsed();
                if took >= TRY {
                    break took;
                }
            };
            *rate = done as f64 / took.as_secs_f64();
        }
        rates
    };
    let one = &one;
    let rates: Vec<Vec<f64>> = thread::scope(|scope| {
        let spawn = |t| thread::Builder::new().spawn_scoped(scope, move || one(t));
        let others: Vec<_> = (1..threads).map_while(|t| spawn(t).ok()).collect();
        let _ = barrier.set(Barrier::new(others.len() + 1));
        let mut rates = vec![one(0)];
        rates.extend(others.into_iter().filter_map(|other| other.join().ok()));
        rates
    });
    let all = |try_: usize| rates.iter().map(|rates| rates[try_]).sum::<f64>();
    (0..tries).map(all).fold(0.0, f64::max)
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
