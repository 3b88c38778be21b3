//! What a plan adds to the calls that it makes: a run of 1,000 launches of a kernel
//! that does nothing with 4 buffers, beside a loop over 1,000 records, each with a
//! typed function pointer and 4 pointers of its own.

use std::ffi::c_void;
use std::hint::black_box;
use std::time::Duration;

use svod_runtime::bench::{Budget, race};
use svod_runtime::plan::{Executable, PlanBuilder, Role};
use svod_runtime::{DType, Error, Kernel, Signature};

/// Launches in one run.
const LAUNCHES: usize = 1_000;
/// Elements of a buffer.
const LEN: usize = 16;
/// Buffers, which the launches use by turns.
const BUFFERS: usize = 64;

type Entry = unsafe extern "C" fn(*mut u8, *mut u8, *mut u8, *mut u8);

#[inline(never)]
unsafe extern "C" fn noop(_: *mut u8, _: *mut u8, _: *mut u8, _: *mut u8) {
    // Keeps the function a function, and the call a call.
    // SAFETY: no instruction.
    unsafe { std::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}

/// A call as one writes it by hand.
struct Record {
    function: Entry,
    args: [*mut u8; 4],
}

/// The buffers of a launch: all launches use others, one of which they write.
fn buffers(launch: usize) -> [usize; 4] {
    [0, 1, 2, 3].map(|i| (launch * 3 + i) % BUFFERS)
}

fn executable() -> Result<Executable, Error> {
    let buffers_of = Signature::builder().write(DType::F32, LEN);
    let signature = (0..3)
        .fold(buffers_of, |b, _| b.read(DType::F32, LEN))
        .build()?;
    let mut plan = PlanBuilder::new("noop");
    let kernel = plan.kernel("noop", signature.clone());
    for _ in 0..BUFFERS {
        plan.buffer(None, Role::Temp, DType::F32, &[LEN])?;
    }
    for launch in 0..LAUNCHES {
        let mut args = Vec::new();
        for buffer in buffers(launch) {
            args.push(plan.whole(buffer)?);
        }
        plan.launch(kernel, &args, &[], 1)?;
    }
    let entry: Entry = noop;
    // SAFETY: the entry takes four pointers and does nothing with them.
    let kernel = unsafe { Kernel::from_entry("noop", entry as *const c_void, signature) };
    Executable::new(plan.build()?, vec![kernel], [])
}

fn main() -> Result<(), Error> {
    let mut instance = executable()?.instance()?;
    let mut memory = vec![[0_f32; LEN]; BUFFERS];
    let starts: Vec<*mut u8> = memory.iter_mut().map(|b| b.as_mut_ptr().cast()).collect();
    let records: Vec<Record> = (0..LAUNCHES)
        .map(|launch| Record {
            function: black_box(noop),
            args: buffers(launch).map(|i| starts[i]),
        })
        .collect();

    let mut by_hand = || {
        for Record { function, args } in black_box(records.as_slice()) {
            // SAFETY: it does nothing with its arguments.
            unsafe { function(args[0], args[1], args[2], args[3]) };
        }
        Ok(())
    };
    let mut plan = || black_box(&mut instance).run(&[]);
    let budget = Budget {
        sample: Duration::from_micros(100),
        ..Budget::rounds(2_001)
    };
    let race = race(&mut [&mut by_hand, &mut plan], &budget)?;

    println!(
        "{LAUNCHES} launches of a kernel that does nothing with 4 buffers;\n\
         medians of {} rounds of {} runs, with their quartiles\n",
        race.samples(0).len(),
        race.runs_in_a_sample()
    );
    println!("                        ns a launch                ÷ the loop");
    #[allow(clippy::cast_precision_loss)] // a thousand
    let each = |ns: f64| ns / LAUNCHES as f64;
    for (i, name) in ["loop by hand", "plan"].into_iter().enumerate() {
        let (time, ratio) = (race.times(i), race.ratios(i, 0));
        println!(
            "  {name:<16} {:7.3} ({:.3} to {:.3})    {:.3} ({:.3} to {:.3})",
            each(time.median),
            each(time.lower),
            each(time.upper),
            ratio.median,
            ratio.lower,
            ratio.upper
        );
    }
    Ok(())
}
