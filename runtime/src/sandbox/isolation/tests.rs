//! Kernels that write over what their process and the host share.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::{Untrusted, fault};
use super::*;
use crate::dispatch::Kernel;
use crate::memory::Buffer;
use crate::signature::{Bounds, DType, Scalar, Signature};

/// What a kernel here does once it has written.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(i64)]
enum Then {
    Returns,
    Ends,
    SaysThatItFaulted,
    Faults,
    Loops,
}

/// A number that looks random (SplitMix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// Writes over `bytes` bytes at an address. It allocates nothing, as the process that it is in was
/// forked.
extern "C" fn scribble(_: *mut f32, address: u64, bytes: u64, seed: u64, then: i64) {
    let at = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    for i in 0..bytes {
        let byte = match seed % 4 {
            0 => 0xff,
            1 => 0,
            // Small numbers of 32 bits.
            2 => [mix(seed ^ (i / 4)) as u8 % 4, 0, 0, 0][i as usize % 4],
            _ => mix(seed.wrapping_add(i << 32)) as u8,
        };
        // SAFETY: it is the region of the process that this runs in, of which all is plain
        // numbers, or nothing.
        unsafe { at.add(i as usize).write_volatile(byte) };
    }
    match then {
        1 => fault::exit(0),
        2 => fault::exit(fault::FAULTED),
        // SAFETY: not so, and what is tested.
        3 => unsafe { std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1) },
        4 => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
}

fn kernel() -> Untrusted {
    let signature = Signature::builder()
        .write(DType::F32, 4)
        .scalar(DType::U64, "address", Bounds::Any)
        .scalar(DType::U64, "bytes", Bounds::Any)
        .scalar(DType::U64, "seed", Bounds::Any)
        .scalar(DType::I64, "then", Bounds::Any)
        .build()
        .unwrap();
    // SAFETY: not so, and launched in children alone.
    unsafe { Kernel::from_entry("scribble", scribble as *const _, signature) }.into()
}

/// Of three launches the second writes over all that its process shares with this one.
fn run(wall: Duration, seed: u64, then: Then) -> Vec<Outcome> {
    let kernel = kernel();
    let sandbox = CrashIsolation::new(Limits::default().wall(wall));
    let region = Region::new(3, &sandbox.limits).unwrap();
    let address = std::ptr::from_ref(region.control()).expose_provenance() as u64;
    let bytes = size_of_val(region.control()) + size_of_val(region.slots());
    sandbox.give_back(region);
    let mut data = [(); 3].map(|()| Buffer::zeroed(DType::F32, 4).unwrap());
    let mut launches: Vec<_> = data
        .iter_mut()
        .enumerate()
        .map(|(i, data)| {
            let (bytes, then) = match i {
                1 => (bytes as u64, then),
                _ => (0, Then::Returns),
            };
            let scalars = [
                Scalar::U64(address),
                Scalar::U64(bytes),
                Scalar::U64(seed),
                Scalar::I64(then as i64),
            ];
            Launch::new(&kernel, vec![data.into()], &scalars, 1)
        })
        .collect();
    sandbox.run_all(&mut launches).unwrap()
}

#[test]
fn whatever_a_kernel_writes_where_outcomes_are_noted_there_is_one_of_each_launch() {
    let long = Duration::from_secs(100);
    for then in [
        Then::Returns,
        Then::Ends,
        Then::SaysThatItFaulted,
        Then::Faults,
    ] {
        for seed in 0..60 {
            let outcomes = run(long, seed, then);
            assert_eq!(outcomes.len(), 3, "{then:?} {seed}");
            let mut text = String::new();
            for outcome in outcomes {
                // No number in it is one that cannot be said.
                writeln!(text, "{outcome} {outcome:?}").unwrap();
            }
        }
    }
}

#[test]
fn one_that_loops_has_an_end_whatever_it_says_of_its_beginning() {
    for seed in 0..8 {
        let outcomes = run(Duration::from_millis(10), seed, Then::Loops);
        assert_eq!(outcomes.len(), 3, "{seed}");
        assert!(outcomes.iter().any(|outcome| !outcome.is_completed()));
    }
}
