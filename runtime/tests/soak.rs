//! All of it at once, for as long as the first argument says, in seconds: bundles that are loaded
//! again and again, instances on threads of their own and on pools, runs that are cancelled or come
//! too late, forks, and bad kernels in sandboxes. Results are right all the time. At the end the
//! process has as many threads and open files as at the beginning, and as much memory as when all had
//! been going for a while.
//!
//! `cargo xtask soak` runs it for ten minutes, `cargo test` for a moment.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use svod_runtime::bench::{Budget, race_in};
use svod_runtime::bundle::{Bundle, Load};
use svod_runtime::confine::Helper;
use svod_runtime::memory::Guard;
use svod_runtime::plan::{Cancel, Executable, Instance, Run};
use svod_runtime::sandbox::{
    Confined, CrashIsolation, Launch, Limits, Outcome, PlanOptions, Untrusted, enter,
};
use svod_runtime::{
    Bounds, Buffer, DType, Error, Kernel, Runtime, RuntimeBuilder, Scalar, Signature,
};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");

/// How long it goes on where nothing is said.
const MOMENT: Duration = Duration::from_secs(2);

/// What memory may grow by that is no leak: heaps of threads, and what the allocator keeps.
const SLACK: u64 = 24 << 20;

const LEN: usize = 64;

fn main() {
    enter();
    let said = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let time = said.map_or(MOMENT, Duration::from_secs);
    let start = Instant::now();
    let alone = Usage::now();
    let soak = Soak {
        ends: AtomicBool::new(false),
        rounds: Default::default(),
    };
    let first = std::thread::scope(|scope| {
        for (i, (_, work)) in WORK.iter().enumerate() {
            let soak = &soak;
            scope.spawn(move || {
                // A panic ends it for all, so that it is told at once.
                let ends = Ends(&soak.ends);
                while !soak.ends.load(Ordering::Relaxed) {
                    work();
                    soak.rounds[i].fetch_add(1, Ordering::Relaxed);
                }
                drop(ends);
            });
        }
        let mut first = None;
        while start.elapsed() < time && !soak.ends.load(Ordering::Relaxed) {
            std::thread::park_timeout(time / 200);
            // Each has done all that it does, some times.
            let all = soak.rounds.iter().all(|n| n.load(Ordering::Relaxed) > 2);
            if first.is_none() && all && start.elapsed() > time / 10 {
                first = Some(Usage::now());
            }
        }
        soak.ends.store(true, Ordering::Relaxed);
        first
    });
    for ((what, _), rounds) in WORK.iter().zip(&soak.rounds) {
        println!("{:>10} {what}", rounds.load(Ordering::Relaxed));
    }
    let mut last = Usage::now();
    // Threads end some moments after the last handle to their pool.
    let patience = Instant::now() + Duration::from_secs(10);
    while last.threads > alone.threads && Instant::now() < patience {
        std::thread::yield_now();
        last = Usage::now();
    }
    println!("after {:.1?}: {last:?}", start.elapsed());
    assert_eq!((last.threads, last.files), (alone.threads, alone.files));
    let Some(first) = first else {
        println!("too short to tell whether anything grows");
        return;
    };
    println!("before: {first:?}");
    assert!(
        last.memory <= first.memory + SLACK,
        "more memory than before"
    );
}

struct Soak {
    ends: AtomicBool,
    rounds: [AtomicU64; WORK.len()],
}

/// Ends all, also where a round panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What this process has.
#[derive(Debug)]
#[allow(dead_code)] // printed
struct Usage {
    /// Bytes of memory that it shares with nobody.
    memory: u64,
    threads: usize,
    files: usize,
}

impl Usage {
    fn now() -> Usage {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: Vec<u64> = statm.split(' ').map_while(|n| n.parse().ok()).collect();
        let count = |folder: &str| fs::read_dir(folder).unwrap().count();
        Usage {
            memory: (pages[1] - pages[2]) * rustix::param::page_size() as u64,
            threads: count("/proc/self/task"),
            files: count("/proc/self/fd"),
        }
    }
}

const WORK: [(&str, fn()); 8] = [
    ("bundles loaded and run", load),
    ("instances on a pool, of a new executable", on_a_pool),
    ("runs cancelled, late, and run again", cancelled),
    ("launches in forks, most of them bad", forked),
    ("plans in forks", plans_in_forks),
    ("races with bad candidates", raced),
    ("plans in a helper", confined),
    ("launches here", here),
];

fn runtime(threads: usize) -> Runtime {
    let builder = RuntimeBuilder::from_env().no_cache();
    builder.guard(Guard::Off).threads(threads).build().unwrap()
}

fn digits() -> Bundle {
    Bundle::open(DIGITS).unwrap()
}

fn executable(bundle: &Bundle, threads: usize) -> Executable {
    // SAFETY: the example keeps its signatures, and nobody writes it.
    unsafe { bundle.load(&runtime(threads), &|_| {}) }.unwrap()
}

fn check(bundle: &Bundle, instance: &mut Instance) {
    let report = bundle.run_test(&bundle.tests()[0], instance).unwrap();
    assert!(report.is_within());
}

fn load() {
    let bundle = digits();
    check(&bundle, &mut executable(&bundle, 1).instance().unwrap());
}

fn on_a_pool() {
    let bundle = digits();
    let executable = executable(&bundle, 3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| check(&bundle, &mut executable.instance().unwrap()));
        }
    });
}

fn cancelled() {
    let bundle = digits();
    let executable = executable(&bundle, 2);
    let mut instance = executable.instance().unwrap();
    bundle.tests()[0].give(&mut instance).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let stopped = instance.run_with(Run {
        cancel: Some(&cancel),
        ..Run::default()
    });
    assert!(matches!(stopped, Err(Error::Cancelled { .. })));
    let late = instance.run_with(Run {
        deadline: Some(Instant::now()),
        ..Run::default()
    });
    assert!(matches!(late, Err(Error::DeadlinePassed { .. })));
    instance.reset();
    check(&bundle, &mut instance);
}

/// Adds 1 to each element, and then does what it is told to: 1 loops, 2 writes far behind the
/// last, 3 comes to an instruction that there is none of, 4 ends the process.
extern "C" fn obey(x: *mut i32, what: i32) {
    for i in 0..LEN {
        // SAFETY: it is given as many elements.
        unsafe { *x.add(i) += 1 };
    }
    match what {
        1 => loop {
            std::hint::spin_loop();
        },
        // SAFETY: not so; it runs in a sandbox.
        2 => unsafe { x.add(LEN).write_volatile(0) },
        3 => std::process::abort(),
        // SAFETY: it touches no memory.
        4 => unsafe { libc::_exit(3) },
        _ => {}
    }
}

fn obedient() -> Kernel {
    let signature = Signature::builder()
        .read_write(DType::I32, LEN)
        .scalar(DType::I32, "what", Bounds::Any)
        .build()
        .unwrap();
    // SAFETY: for 0 it is so; others are given in sandboxes alone.
    unsafe { Kernel::from_entry("obey", obey as *const _, signature) }
}

fn sandbox() -> CrashIsolation {
    CrashIsolation::new(Limits::default().wall(Duration::from_millis(20)))
}

fn forked() {
    let kernel = Untrusted::new(obedient());
    let whats = [0, 2, 3, 0, 4, 1, 0];
    let mut buffers: Vec<_> = whats
        .map(|_| Buffer::zeroed(DType::I32, LEN).unwrap())
        .into();
    let launches = buffers.iter_mut().zip(whats);
    let mut launches: Vec<_> = launches
        .map(|(x, what)| Launch::new(&kernel, vec![x.into()], &[Scalar::I32(what)], 1))
        .collect();
    let outcomes = sandbox().run_all(&mut launches).unwrap();
    drop(launches);
    for ((what, outcome), buffer) in whats.iter().zip(outcomes).zip(&buffers) {
        // On a machine with much else to do, the good ones may take too long as well.
        let right = match (what, &outcome) {
            (0, Outcome::Completed { .. }) => 1,
            (_, Outcome::TimedOut { .. }) | (2..=4, Outcome::Crashed(_)) => 0,
            _ => panic!("{what}: {outcome}"),
        };
        assert_eq!(buffer.as_slice::<i32>().unwrap(), [right; LEN]);
    }
}

fn plans_in_forks() {
    let bundle = digits();
    let mut instance = executable(&bundle, 2).instance().unwrap();
    bundle.tests()[0].give(&mut instance).unwrap();
    let sandbox = CrashIsolation::new(Limits::default());
    let outcome = sandbox.run_plan(&mut instance, &[]).unwrap();
    assert!(outcome.is_completed(), "{outcome}");
}

fn raced() {
    let kernel = Untrusted::new(obedient());
    let mut buffers: Vec<_> = (0..3)
        .map(|_| Buffer::zeroed(DType::I32, LEN).unwrap())
        .collect();
    let launches = buffers.iter_mut().zip([0, 3, 0]);
    let mut launches: Vec<_> = launches
        .map(|(x, what)| Launch::new(&kernel, vec![x.into()], &[Scalar::I32(what)], 1))
        .collect();
    let budget = Budget {
        warm_up: Duration::ZERO,
        ..Budget::rounds(3)
    };
    let sandbox = CrashIsolation::new(Limits::default());
    let screened = race_in(&sandbox, &mut launches, &budget).unwrap();
    assert_eq!(screened.bad.len(), 1);
    assert_eq!(screened.race.rounds(), 3);
}

fn confined() {
    let bundle = digits();
    let sandbox = Confined::with_less(Helper::this_program().unwrap(), Limits::default());
    let options = PlanOptions::default().threads(2);
    let load = Load::default();
    let mut plan = sandbox.load(&bundle, &runtime(1), &load, options).unwrap();
    for _ in 0..3 {
        let report = bundle.run_test(&bundle.tests()[0], &mut plan).unwrap();
        assert!(report.is_within());
    }
}

fn here() {
    let kernel = obedient();
    let mut x = Buffer::zeroed(DType::I32, LEN).unwrap();
    for run in 1..100 {
        let launched = kernel.launch(&mut [(&mut x).into()], &[Scalar::I32(0)], 1);
        launched.unwrap();
        assert_eq!(x.as_slice::<i32>().unwrap(), [run; LEN]);
    }
}
