//! What a call costs: nanoseconds for a kernel that does nothing, with 1, 5, 12
//! and 32 opaque arguments, through each way of calling it, and beside libffi
//! used the plain way.
//!
//! The ways take turns in short rounds, so that a busy machine slows them all
//! alike; the figures are medians over the rounds, and the ratios are medians of
//! the rounds' own ratios to the direct call.

use std::cell::RefCell;
use std::ffi::c_void;
use std::hint::black_box;
use std::time::Instant;

use libffi::middle::{Arg, Cif, CodePtr, Type};
use svod_runtime::dispatch::{Call, KernelCif};
use svod_runtime::{DType, Kernel, Signature};

/// Calls in one round of one way: some 20 to 2,000 µs.
const CALLS: u32 = 10_000;
/// Rounds, of which the median counts.
const ROUNDS: usize = 201;

/// A way of calling, made ready, that makes `CALLS` calls.
struct Way<'a> {
    name: &'static str,
    round: Box<dyn FnMut() + 'a>,
}

fn nanoseconds(way: &mut Way<'_>) -> f64 {
    let start = Instant::now();
    (way.round)();
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Buffers but for the last argument, which is the grid index.
fn signature(args: usize) -> Signature {
    let buffers = (1..args).fold(Signature::builder(), |b, _| b.read(DType::F32, 16));
    let built = buffers.index(DType::I64, 1 << 40).build();
    built.unwrap_or_else(|e| unreachable!("{e}"))
}

/// A kernel that does nothing, and a direct call of it with arguments that the
/// compiler knows nothing of.
macro_rules! noop {
    ($name:ident, $Entry:ident, $direct:ident: $($slot:literal)*) => {
        type $Entry = extern "C" fn($(noop!(@type $slot)),*);

        #[inline(never)]
        extern "C" fn $name($(_: noop!(@type $slot)),*) {
            // Keeps the function a function, and the call a call.
            // SAFETY: no instruction.
            unsafe { std::arch::asm!("", options(nomem, nostack, preserves_flags)) };
        }

        #[inline(always)]
        fn $direct(function: $Entry, slots: &[u64]) {
            // One check of the length, so that the loads are just that.
            let slots = &slots[..[$($slot),*].len()];
            function($(slots[$slot]),*);
        }
    };
    (@type $slot:literal) => { u64 };
}

noop!(noop_1, Entry1, direct_1: 0);
noop!(noop_5, Entry5, direct_5: 0 1 2 3 4);
noop!(noop_12, Entry12, direct_12: 0 1 2 3 4 5 6 7 8 9 10 11);
noop!(noop_32, Entry32, direct_32: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25
    26 27 28 29 30 31);

/// libffi as its documentation shows it: a `Cif` of 64-bit integers, the values
/// packed into a thread-local vector, an array of argument pointers for each call.
fn libffi_plain(cif: &Cif, entry: *const c_void, values: &[u64]) {
    thread_local! {
        static PACKED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    PACKED.with_borrow_mut(|packed| {
        packed.clear();
        packed.extend_from_slice(values);
        let args: Vec<Arg<'_>> = packed.iter().map(Arg::new).collect();
        // SAFETY: the entry takes as many integers of 64 bits.
        unsafe { cif.call::<()>(CodePtr::from_ptr(entry), &args) }
    });
}

fn measure(args: usize, entry: *const c_void, direct: Box<dyn FnMut() + '_>) {
    let signature = signature(args);
    // SAFETY: the entry does nothing with its arguments.
    let kernel = unsafe { Kernel::from_entry("noop", entry, signature.clone()) };
    let memory = [0_f32; 16];
    let buffers: Vec<*mut u8> = vec![memory.as_ptr().cast_mut().cast(); args - 1];
    let values: Vec<u64> = (0..args as u64).collect();

    let mut call = Call::new(&kernel);
    let mut indexed = Call::new(&kernel);
    for (i, buffer) in buffers.iter().enumerate() {
        call.set_buffer(i, *buffer);
        indexed.set_buffer(i, *buffer);
    }
    let kernel_cif = KernelCif::new(&signature);
    let plain = Cif::new(vec![Type::u64(); args], Type::void());

    let mut ways = [
        Way {
            name: "direct call by a typed function pointer",
            round: direct,
        },
        Way {
            name: "prepared call",
            round: Box::new(|| {
                for _ in 0..CALLS {
                    // SAFETY: the entry does nothing with its arguments.
                    unsafe { black_box(&call).call() };
                }
            }),
        },
        Way {
            name: "prepared call, index patched in",
            round: Box::new(|| {
                for index in 0..CALLS {
                    // SAFETY: as above.
                    unsafe { black_box(&mut indexed).call_at(index.into()) };
                }
            }),
        },
        Way {
            name: "call from unpacked buffers and values",
            round: Box::new(|| {
                for index in 0..CALLS {
                    let buffers = black_box(buffers.as_slice());
                    // SAFETY: as above.
                    unsafe { black_box(&kernel).call(buffers, &[], index.into()) };
                }
            }),
        },
        Way {
            name: "KernelCif",
            round: Box::new(|| {
                for index in 0..CALLS {
                    let values = black_box(values.as_slice());
                    // SAFETY: as above.
                    unsafe { black_box(&kernel_cif).call(entry, values, Some(index.into())) };
                }
            }),
        },
        Way {
            name: "peer: libffi, plain",
            round: Box::new(|| {
                for _ in 0..CALLS {
                    libffi_plain(black_box(&plain), entry, black_box(values.as_slice()));
                }
            }),
        },
    ];

    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            let time = nanoseconds(way);
            // The first round warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    println!("\n{args} arguments                                   ns   ÷ direct   peer ÷ it");
    let ratio = |a: &[f64], b: &[f64]| median(a.iter().zip(b).map(|(a, b)| a / b).collect());
    let (direct, peer) = (&times[0], &times[times.len() - 1]);
    for (way, times) in ways.iter().zip(&times) {
        println!(
            "  {:<42} {:6.2} {:10.2} {:11.1}",
            way.name,
            median(times.clone()),
            ratio(times, direct),
            ratio(peer, times)
        );
    }
}

macro_rules! measure {
    ($args:literal, $noop:ident, $Entry:ident, $direct:ident) => {{
        let slots: Vec<u64> = (0..$args).collect();
        let round = move || {
            let function: $Entry = $noop;
            for _ in 0..CALLS {
                $direct(black_box(function), black_box(slots.as_slice()));
            }
        };
        measure($args, $noop as *const c_void, Box::new(round));
    }};
}

fn main() {
    println!("calls of a kernel that does nothing; medians of {ROUNDS} rounds of {CALLS} calls");
    measure!(1, noop_1, Entry1, direct_1);
    measure!(5, noop_5, Entry5, direct_5);
    measure!(12, noop_12, Entry12, direct_12);
    measure!(32, noop_32, Entry32, direct_32);
}
