//! The host of a sandbox: threads that are busy, and what must stay as it is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use svod_runtime::{Arg, Bounds, DType, Kernel, Signature, Source};

use crate::common::{Rng, zeroed};
use crate::runtime;

/// The process that may allocate; 0 for any.
static HOST: AtomicU32 = AtomicU32::new(0);

/// From here on a process that was forked from this one and allocates, or frees, ends with a status
/// that no case of the zoo expects.
pub(crate) fn forbid_allocation_elsewhere() {
    HOST.store(std::process::id(), Ordering::Relaxed);
}

/// The system's, for one process.
pub(crate) struct Allocator;

fn check_process() {
    let host = HOST.load(Ordering::Relaxed);
    if host != 0 && host != std::process::id() {
        // SAFETY: it does not return, and touches no memory.
        unsafe { libc::_exit(99) }
    }
}

// SAFETY: it is the system's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check_process();
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        check_process();
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(start, layout) }
    }
}

/// How many threads are busy.
const THREADS: usize = 8;
const LEN: usize = 1000;

/// Whether this process has AddressSanitizer in it.
pub(crate) fn is_sanitized() -> bool {
    std::env::var_os("ASAN_OPTIONS").is_some()
}

/// What this process has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    descriptors: usize,
    threads: usize,
    resident: usize,
}

impl Taken {
    pub(crate) fn now() -> Taken {
        let count = |folder| std::fs::read_dir(folder).unwrap().count();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        Taken {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            resident: pages * rustix::param::page_size(),
        }
    }

    pub(crate) fn check_against(self, before: Taken) {
        assert_eq!(self.descriptors, before.descriptors);
        assert_eq!(self.threads, before.threads);
        // Room for what the threads that were busy have allocated; AddressSanitizer keeps what is
        // freed.
        let room = if is_sanitized() { 1 << 30 } else { 16 << 20 };
        assert!(
            self.resident < before.resident + room,
            "{self:?} after {before:?}"
        );
    }
}

/// Which signals a handler of the host's has run for.
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handle(signal: libc::c_int) {
    HANDLED.fetch_or(1 << signal, Ordering::Relaxed);
}

/// Handlers of the host's own, for all that could be told to it of a child.
pub(crate) struct Handlers {
    before: Vec<(libc::c_int, libc::sigaction)>,
}

const SIGNALS: [libc::c_int; 12] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGPROF,
    libc::SIGXCPU,
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGUSR1,
];

/// The one that there was.
fn set(signal: libc::c_int, action: Option<&libc::sigaction>) -> libc::sigaction {
    let new = action.map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = std::mem::MaybeUninit::uninit();
    // SAFETY: it reads an action, whose handler adds to a number, and writes one.
    unsafe {
        assert_eq!(libc::sigaction(signal, new, old.as_mut_ptr()), 0);
        old.assume_init()
    }
}

fn action(handler: usize) -> libc::sigaction {
    // SAFETY: plain numbers, of which zeros are values.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action
}

impl Handlers {
    pub(crate) fn install() -> Handlers {
        let mut handler = action(handle as *const () as usize);
        // That a child has stopped is told whatever it was made with.
        handler.sa_flags = libc::SA_NOCLDSTOP;
        let before = SIGNALS.map(|signal| (signal, set(signal, Some(&handler))));
        Handlers {
            before: before.to_vec(),
        }
    }

    pub(crate) fn ignore_children(&self) {
        set(libc::SIGCHLD, Some(&action(libc::SIG_IGN)));
    }

    /// All are there, and none has run.
    pub(crate) fn check(&self) {
        for signal in SIGNALS {
            let now = set(signal, None).sa_sigaction;
            let ignored = signal == libc::SIGCHLD && now == libc::SIG_IGN;
            assert!(ignored || now == handle as *const () as usize, "{signal}");
        }
        assert_eq!(
            HANDLED.load(Ordering::Relaxed),
            0,
            "signals, a bit for each"
        );
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for (signal, action) in &self.before {
            set(*signal, Some(action));
        }
    }
}

/// Does `work` while threads compute, allocate and take a lock. Returns how often each of them has
/// found its results right.
pub(crate) fn beside_busy_threads(kernel: &Kernel, work: impl FnOnce()) -> Vec<usize> {
    let (lock, stop) = (Mutex::new(0_u64), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|i| {
                let (lock, stop) = (&lock, &stop);
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        compute(kernel, lock, (i + THREADS * count) as u64);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        /// Ends the threads, also where `work` fails.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = Stop(&stop);
        work();
        drop(stop);
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// `y[i] = a * y[i] + i`, a hundred times.
pub(crate) fn kernel() -> Kernel {
    let source = Source::c(
        "busy",
        "void busy(unsigned long *y, unsigned long a) {
             for (int k = 0; k < 100; k++)
                 for (int i = 0; i < 1000; i++) y[i] = a * y[i] + i;
         }",
    );
    let signature = Signature::builder()
        .read_write(DType::U64, LEN)
        .scalar(DType::U64, "a", Bounds::Any)
        .build()
        .unwrap();
    // SAFETY: it touches y[0] to y[999].
    unsafe { runtime().load(&source, signature) }.unwrap()
}

fn compute(kernel: &Kernel, lock: &Mutex<u64>, seed: u64) {
    let mut random = Rng(seed);
    let a = random.next();
    let mut y = zeroed(DType::U64, LEN);
    kernel
        .launch(&mut [Arg::from(&mut y)], &[a.into()], 1)
        .unwrap();
    let mut expected = vec![0_u64; LEN];
    for _ in 0..100 {
        for (i, y) in expected.iter_mut().enumerate() {
            *y = a.wrapping_mul(*y).wrapping_add(i as u64);
        }
    }
    assert!(y.as_slice::<u64>().unwrap() == expected, "of {a}");
    for _ in 0..100 {
        let some = vec![seed; 1 + random.below(5000)];
        let mut sum = lock.lock().unwrap();
        *sum = sum.wrapping_add(some.iter().copied().fold(0, u64::wrapping_add));
    }
}
