//! The child's side: what it does with itself before a kernel runs, and what it writes down when
//! one goes wrong.
//!
//! All of this runs in a process that was forked from one with many threads, any of which may have
//! held any lock at that moment. So nothing here allocates, locks, or panics: it loads, stores, and
//! asks the system, by calls of the C library that do nothing but that.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

use super::control::{Control, Region};
use crate::pool::restore_default;

/// With which status a child exits whose handler has written down why.
pub(super) const FAULTED: c_int = 121;
/// With which it does whose parent is gone, or that the system refused something.
pub(super) const REFUSED: c_int = 122;

/// What a handler writes to. It is set in children alone.
static CONTROL: AtomicPtr<Control> = AtomicPtr::new(std::ptr::null_mut());

/// The signals that say what a kernel did, and that the time of the processors is spent.
const WATCHED: [c_int; 9] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGPROF,
    libc::SIGXCPU,
];

/// The last signal that there is.
const LAST_SIGNAL: c_int = 64;

/// Makes this process a child that writes down how it ends: its signals have no other handlers
/// any more.
///
/// # Safety
///
/// To be called in a process that was forked for it, which has one thread; `region` must stay as
/// long as the process.
pub(super) unsafe fn watch(region: &Region) {
    CONTROL.store(
        std::ptr::from_ref(region.control()).cast_mut(),
        Ordering::Release,
    );
    let (stack, bytes) = region.handler_stack();
    let stack = libc::stack_t {
        ss_sp: stack.cast(),
        ss_flags: 0,
        ss_size: bytes,
    };
    // SAFETY: the stack is the region's, which stays, and no signal has used it yet.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: an action that calls nothing. Those that cannot be changed are refused.
        unsafe { Action::DEFAULT.set(signal) };
    }
    for signal in WATCHED {
        // SAFETY: the handler does only what handlers of signals may do.
        unsafe { Action::RECORD.set(signal) };
    }
}

/// An action as the system takes it. The C library's call for it takes a lock, for `SIGABRT`,
/// which a thread of the host's that was starting a program may have held.
#[repr(C)]
struct Action {
    handler: Option<Handler>,
    flags: libc::c_ulong,
    /// Where a handler returns to, which none does here.
    restorer: usize,
    mask: u64,
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

impl Action {
    /// The flag without which x86-64 starts no handler.
    const HAS_RESTORER: libc::c_int = 0x0400_0000;

    const DEFAULT: Action = Action {
        handler: None,
        flags: 0,
        restorer: 0,
        mask: 0,
    };

    /// Nothing else comes in between. A fault while it runs ends the process, with what has been
    /// written down by then.
    const RECORD: Action = Action {
        handler: Some(on_signal),
        flags: (libc::SA_SIGINFO | libc::SA_ONSTACK | Action::HAS_RESTORER).unsigned_abs() as u64,
        restorer: 0,
        mask: u64::MAX,
    };

    /// # Safety
    ///
    /// The handler must do only what handlers of signals may do.
    unsafe fn set(&self, signal: c_int) {
        let old = std::ptr::null_mut::<Action>();
        // SAFETY: it reads one action, whose handler is vouched for by the caller.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                std::ptr::from_ref(self),
                old,
                size_of::<u64>(),
            )
        };
    }
}

/// Lets signals in.
pub(super) fn unblock() {
    // SAFETY: a set of signals is plain numbers, which the calls overwrite or read.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const all, std::ptr::null_mut());
    }
}

/// Has `SIGPROF` come once all threads together have had so much of the processors' time; zero
/// calls it off.
pub(super) fn set_cpu_timer(time: Duration) {
    // Zero is none.
    let micros = time.subsec_micros() + u32::from(!time.is_zero() && time.as_micros() == 0);
    let timer = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_usec: libc::suseconds_t::from(micros as i32),
        },
    };
    // SAFETY: it reads one value, which lives until it returns.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
}

/// Nanoseconds of the monotonic clock.
pub(super) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes one value, which lives until it returns.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Ends the process, and nothing else: no handlers of exits, no destructors.
pub(super) fn exit(status: c_int) -> ! {
    // SAFETY: it does not return, and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Writes down what happened, and ends the process.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    /// Whether a handler is at it. Another can be of another thread alone, which waits for the
    /// first to end the process.
    static BUSY: AtomicBool = AtomicBool::new(false);
    machine::restore();
    while BUSY.swap(true, Ordering::AcqRel) {
        std::hint::spin_loop();
    }
    let control = CONTROL.load(Ordering::Acquire);
    if control.is_null() {
        exit(REFUSED);
    }
    // SAFETY: whoever set it vouched that it stays.
    let fault = unsafe { &(*control).fault };
    // SAFETY: the system gives a handler with `SA_SIGINFO` both, for as long as it runs.
    let (info, context) = unsafe { (&*info, &*context.cast::<libc::ucontext_t>()) };
    fault.signal.store(signal, Ordering::Relaxed);
    fault.code.store(info.si_code, Ordering::Relaxed);
    // SAFETY: a union's field of plain numbers, which the system wrote.
    let address = unsafe { info.si_addr() }.addr() as u64;
    fault.address.store(address, Ordering::Relaxed);
    if signal == libc::SIGSYS {
        // `_call_addr`, `_syscall`, `_arch`: behind the 16 bytes that all kinds begin with.
        // SAFETY: a signal's information is 128 bytes long, and the system wrote them.
        let call = unsafe { std::ptr::from_ref(info).cast::<i32>().add(6).read() };
        fault.system_call.store(call, Ordering::Relaxed);
    }
    machine::record(fault, context);
    fault.stage.store(1, Ordering::Release);
    // What may fault in its turn.
    let ip = fault.instruction.load(Ordering::Relaxed);
    let of_memory = matches!(signal, libc::SIGSEGV | libc::SIGBUS);
    let page = rustix::param::page_size() as u64;
    // In neither the first page nor behind all addresses is anything to be read.
    let is_somewhere = |address: u64| (page..machine::ADDRESSES).contains(&address);
    let is_jump = of_memory && ip == address;
    if !is_jump && is_somewhere(ip) {
        for (i, byte) in fault.bytes.iter().enumerate() {
            let at = ip.wrapping_add(i as u64);
            // An instruction at the end of its page may have nothing behind it.
            if i > 0 && at.is_multiple_of(page) {
                fault.stage.store(2, Ordering::Release);
            }
            let at = std::ptr::with_exposed_provenance::<u8>(at as usize);
            // SAFETY: the processor has just read an instruction there. If that is not so, this
            // process ends here, as it is about to anyway.
            byte.store(unsafe { at.read_volatile() }, Ordering::Relaxed);
        }
        fault.stage.store(2, Ordering::Release);
    }
    let stack = fault.stack.load(Ordering::Relaxed);
    if !is_somewhere(stack) {
        exit(FAULTED);
    }
    let stack = std::ptr::with_exposed_provenance::<u64>(stack as usize);
    for (i, word) in fault.words.iter().enumerate() {
        // SAFETY: as above, of the stack.
        let read = unsafe { stack.wrapping_add(i).read_unaligned() };
        word.store(read, Ordering::Relaxed);
        fault.read.store(i as u32 + 1, Ordering::Release);
    }
    exit(FAULTED);
}

/// Makes of the processor again what every function may expect of it, after a kernel that may not
/// have left it so.
pub(super) fn restore_processor() {
    machine::restore();
    restore_default();
}

/// Calls `function` with `argument` on another stack, which ends at `top`.
///
/// # Safety
///
/// `top` must be the end of memory that nothing else uses, as large a stack as the function needs,
/// and a multiple of 16; what the function asks of its argument must hold.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn on_stack(
    function: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
    top: *mut u8,
) {
    #[cfg(target_arch = "x86_64")]
    std::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rdx",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    );
    #[cfg(target_arch = "aarch64")]
    std::arch::naked_asm!(
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "mov sp, x2",
        "mov x9, x0",
        "mov x0, x1",
        "blr x9",
        "mov sp, x29",
        "ldp x29, x30, [sp], #16",
        "ret",
    );
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use std::sync::atomic::Ordering;

    use super::super::control::Record;

    /// Where the addresses end that a process may have.
    pub(super) const ADDRESSES: u64 = 1 << 47;

    /// Bytes are copied upwards, addresses need no alignment, nothing is on the x87's stack.
    pub(super) fn restore() {
        /// All flags but that by which addresses are checked.
        const UNCHECKED: i32 = !(1 << 18);
        // SAFETY: what Rust's code takes for granted anyway.
        unsafe {
            std::arch::asm!(
                "pushfq",
                "and qword ptr [rsp], {unchecked}",
                "popfq",
                "cld",
                "fninit",
                unchecked = const UNCHECKED,
            );
        }
    }

    /// Where the system keeps each register, in the order in which instructions number them.
    const ORDER: [libc::c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];

    pub(super) fn record(fault: &Record, context: &libc::ucontext_t) {
        let all = &context.uc_mcontext.gregs;
        let register = |number: libc::c_int| all.get(number as usize).map_or(0, |&r| r as u64);
        for (place, number) in fault.registers.iter().zip(ORDER) {
            place.store(register(number), Ordering::Relaxed);
        }
        let store = |place: &std::sync::atomic::AtomicU64, number| {
            place.store(register(number), Ordering::Relaxed);
        };
        store(&fault.instruction, libc::REG_RIP);
        store(&fault.stack, libc::REG_RSP);
        store(&fault.syndrome, libc::REG_ERR);
        store(&fault.trap, libc::REG_TRAPNO);
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use std::sync::atomic::Ordering;

    use super::super::control::Record;

    /// Where the addresses end that a process may have.
    pub(super) const ADDRESSES: u64 = 1 << 52;

    /// There is nothing of the kind that a kernel could change.
    pub(super) const fn restore() {}

    /// What marks the record of the syndrome among those that follow the registers.
    const SYNDROME: u32 = 0x4553_5201;

    pub(super) fn record(fault: &Record, context: &libc::ucontext_t) {
        let machine = &context.uc_mcontext;
        for (place, value) in fault.registers.iter().zip(machine.regs) {
            place.store(value, Ordering::Relaxed);
        }
        fault.registers[31].store(machine.sp, Ordering::Relaxed);
        fault.instruction.store(machine.pc, Ordering::Relaxed);
        fault.stack.store(machine.sp, Ordering::Relaxed);
        fault.trap.store(0, Ordering::Relaxed);
        fault.syndrome.store(syndrome(machine), Ordering::Relaxed);
    }

    /// Records of a mark and a size, one after another; 0 where there is no syndrome among them.
    fn syndrome(machine: &libc::mcontext_t) -> u64 {
        // The registers are followed by 4 KiB of records, aligned to 16 bytes.
        let start = std::ptr::from_ref(machine).cast::<u8>();
        let registers = std::mem::offset_of!(libc::mcontext_t, pstate) + 8;
        let (mut at, end) = (registers.next_multiple_of(16), registers + 4096);
        while at + 16 <= end {
            // SAFETY: within the records, which the system wrote and which are aligned to 16 bytes.
            let (mark, size) = unsafe {
                let head = start.add(at).cast::<u32>();
                (head.read(), head.add(1).read() as usize)
            };
            if mark == SYNDROME {
                // SAFETY: as above; the value follows the head.
                return unsafe { start.add(at + 8).cast::<u64>().read() };
            }
            if mark == 0 || size < 16 {
                break;
            }
            at += size;
        }
        0
    }
}
