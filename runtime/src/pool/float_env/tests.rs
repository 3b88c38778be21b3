//! The arithmetic here is written in assembly: Rust's own may be computed by the
//! compiler, which takes the default environment for granted.

use std::arch::asm;

use super::*;

/// What `f` gives on a thread whose host has set `host`, and what control is left then.
/// Afterwards the thread has the default again, as the tests' own code needs it.
fn under<R>(host: Control, f: impl FnOnce() -> R) -> (R, Control) {
    host.set();
    let result = f();
    let left = Control::get();
    Control::DEFAULT.set();
    (result, left)
}

/// The least positive number of all, which is far from normal.
const LEAST: f64 = f64::from_bits(1);
/// A third, to nearest, and the next above it.
const THIRD: u64 = 0x3fd5_5555_5555_5555;

#[derive(Debug, PartialEq, Eq)]
struct Bits {
    /// A small number that is normal, times a half.
    too_small_a_result: u64,
    /// The least number times 2¹⁰⁰, which is normal.
    too_small_an_operand: u64,
    /// 1 divided by 3.
    third: u64,
    /// -1 divided by 3.
    minus_third: u64,
}

fn compute() -> Bits {
    Bits {
        too_small_a_result: mul(f64::MIN_POSITIVE, 0.5).to_bits(),
        too_small_an_operand: mul(LEAST, f64::from_bits((1023 + 100) << 52)).to_bits(),
        third: div(1.0, 3.0).to_bits(),
        minus_third: div(-1.0, 3.0).to_bits(),
    }
}

const DEFAULT_BITS: Bits = Bits {
    too_small_a_result: 1 << 51,
    too_small_an_operand: (1023 + 100 - 1074) << 52,
    third: THIRD,
    minus_third: THIRD | 1 << 63,
};

#[test]
fn whatever_the_host_has_set_a_guard_gives_the_default_bits() {
    for (host, bits) in hosts() {
        let ((before, within, after), left) = under(host, || {
            let before = compute();
            let guard = DefaultFloatEnv::enter();
            let within = compute();
            drop(guard);
            (before, within, compute())
        });
        assert_eq!(before, bits, "{host:x?} does what it should");
        assert_eq!(within, DEFAULT_BITS, "{host:x?}");
        assert_eq!(after, bits, "{host:x?} is back");
        assert_eq!(left, host);
    }
}

#[test]
fn a_thread_has_the_default_from_its_birth() {
    assert_eq!(Control::get(), Control::DEFAULT);
    assert_eq!(compute(), DEFAULT_BITS);
    drop(DefaultFloatEnv::enter());
    assert_eq!(Control::get(), Control::DEFAULT);
}

#[test]
fn guards_nest() {
    for (host, _) in hosts() {
        let (seen, left) = under(host, || {
            let outer = DefaultFloatEnv::enter();
            // As a host function could, which then runs a plan.
            host.set();
            let inner = DefaultFloatEnv::enter();
            let in_inner = Control::get();
            drop(inner);
            let between = Control::get();
            drop(outer);
            (in_inner, between)
        });
        assert_eq!(seen, (Control::DEFAULT, host));
        assert_eq!(left, host);
    }
}

#[test]
fn a_guard_within_a_guard_changes_nothing() {
    for (host, _) in hosts() {
        let (seen, left) = under(host, || {
            let outer = DefaultFloatEnv::enter();
            drop(DefaultFloatEnv::enter());
            let seen = Control::get();
            drop(outer);
            seen
        });
        assert_eq!((seen, left), (Control::DEFAULT, host));
    }
}

#[test]
fn a_panic_gives_the_host_its_environment_back() {
    for (host, _) in hosts() {
        let (panicked, left) = under(host, || {
            std::panic::catch_unwind(|| {
                let _guard = DefaultFloatEnv::enter();
                std::panic::resume_unwind(Box::new(()));
            })
            .is_err()
        });
        assert!(panicked);
        assert_eq!(left, host);
    }
}

#[test]
fn what_was_flagged_before_and_within_is_flagged_after() {
    let hosts = hosts().into_iter().map(|(host, _)| host);
    for host in hosts.chain([Control::DEFAULT]) {
        let (flags, _) = under(host, || {
            clear_flags();
            let clear = flags();
            let _ = div(1.0, 0.0);
            let before = flags();
            let guard = DefaultFloatEnv::enter();
            let within = flags();
            let _ = mul(f64::MAX, 2.0);
            drop(guard);
            (clear, before, within, flags())
        });
        let (clear, before, within, after) = flags;
        assert_eq!(clear, 0);
        assert_eq!(before, DIVISION_BY_ZERO, "{host:x?}");
        assert_eq!(within, DIVISION_BY_ZERO, "{host:x?}");
        assert_eq!(after, DIVISION_BY_ZERO | OVERFLOW | INEXACT, "{host:x?}");
    }
}

#[cfg(target_arch = "aarch64")]
use aarch64::{DIVISION_BY_ZERO, INEXACT, OVERFLOW, clear_flags, div, flags, hosts, mul};
#[cfg(target_arch = "x86_64")]
use x86_64::{DIVISION_BY_ZERO, INEXACT, OVERFLOW, clear_flags, div, flags, hosts, mul};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::*;

    pub(super) const DIVISION_BY_ZERO: u32 = 1 << 2;
    pub(super) const OVERFLOW: u32 = 1 << 3;
    pub(super) const INEXACT: u32 = 1 << 5;

    const DENORMALS_ARE_ZERO: u32 = 1 << 6;
    const DIVISION_MASK: u32 = 1 << 9;
    const UPWARD: u32 = 0b10 << 13;
    const FLUSH_TO_ZERO: u32 = 1 << 15;

    pub(super) fn mul(a: f64, b: f64) -> f64 {
        let mut product = a;
        // SAFETY: arithmetic on registers.
        unsafe { asm!("mulsd {}, {}", inout(xmm_reg) product, in(xmm_reg) b) };
        product
    }

    pub(super) fn div(a: f64, b: f64) -> f64 {
        let mut quotient = a;
        // SAFETY: arithmetic on registers.
        unsafe { asm!("divsd {}, {}", inout(xmm_reg) quotient, in(xmm_reg) b) };
        quotient
    }

    pub(super) fn flags() -> u32 {
        let mut sse = 0_u32;
        // SAFETY: a store to a place of its size.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut sse) };
        sse & 0x3f
    }

    pub(super) fn clear_flags() {
        let mut sse = 0_u32;
        // SAFETY: a store and a load, of a place of their size; control stays.
        unsafe {
            asm!(
                "stmxcsr [{0}]",
                "and dword ptr [{0}], ~0x3f",
                "ldmxcsr [{0}]",
                in(reg) &raw mut sse,
            );
        }
    }

    /// Environments that a host may have, and what it computes in them.
    pub(super) fn hosts() -> Vec<(Control, Bits)> {
        let with = |sse: u32| Control {
            sse: Control::DEFAULT.sse | sse,
            ..Control::DEFAULT
        };
        let flushed = Bits {
            too_small_a_result: 0,
            ..DEFAULT_BITS
        };
        let read_as_zero = Bits {
            too_small_an_operand: 0,
            ..DEFAULT_BITS
        };
        let up = Bits {
            third: THIRD + 1,
            ..DEFAULT_BITS
        };
        let all = Bits {
            too_small_a_result: 0,
            too_small_an_operand: 0,
            ..up
        };
        let all_bits = FLUSH_TO_ZERO | DENORMALS_ARE_ZERO | UPWARD;
        vec![
            (with(FLUSH_TO_ZERO), flushed),
            (with(DENORMALS_ARE_ZERO), read_as_zero),
            (with(UPWARD), up),
            (with(all_bits), all),
            (single_x87(), DEFAULT_BITS),
        ]
    }

    /// The x87 with 24 bits of precision.
    fn single_x87() -> Control {
        Control {
            x87: 0x007f,
            ..Control::DEFAULT
        }
    }

    /// The 80 bits of a number divided by another, as the x87 has it.
    fn long_div(a: f64, b: f64) -> [u8; 10] {
        let mut quotient = [0_u8; 10];
        // SAFETY: it leaves the stack as it was, empty, and stores ten bytes in a place of
        // ten.
        unsafe {
            asm!(
                "fld qword ptr [{a}]",
                "fld qword ptr [{b}]",
                "fdivp st(1), st",
                "fstp tbyte ptr [{quotient}]",
                a = in(reg) &raw const a,
                b = in(reg) &raw const b,
                quotient = in(reg) &raw mut quotient,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        quotient
    }

    #[test]
    fn the_x87_has_its_full_precision() {
        let ((before, within, after), left) = under(single_x87(), || {
            let before = long_div(1.0, 3.0);
            let guard = DefaultFloatEnv::enter();
            let within = long_div(1.0, 3.0);
            drop(guard);
            (before, within, long_div(1.0, 3.0))
        });
        let third = [0xab, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xfd, 0x3f];
        let single = [0, 0, 0, 0, 0, 0xab, 0xaa, 0xaa, 0xfd, 0x3f];
        assert_eq!((before, within, after), (single, third, single));
        assert_eq!(left, single_x87());
    }

    #[test]
    fn a_host_that_stops_at_exceptions_is_not_stopped_by_those_of_a_run() {
        let host = Control {
            sse: Control::DEFAULT.sse & !DIVISION_MASK,
            x87: Control::DEFAULT.x87 & !(1 << 2),
        };
        let ((quotients, after), left) = under(host, || {
            let guard = DefaultFloatEnv::enter();
            let quotients = (div(1.0, 0.0), long_div(1.0, 0.0));
            drop(guard);
            // Here the x87 would stop, if it still remembered the division.
            (quotients, (div(1.0, 2.0), long_div(1.0, 2.0)))
        });
        let infinity = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x7f];
        assert_eq!(quotients, (f64::INFINITY, infinity));
        let half = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xfe, 0x3f];
        assert_eq!(after, (0.5, half));
        assert_eq!(left, host);
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::*;

    pub(super) const DIVISION_BY_ZERO: u64 = 1 << 1;
    pub(super) const OVERFLOW: u64 = 1 << 2;
    pub(super) const INEXACT: u64 = 1 << 4;

    const UPWARD: u64 = 0b01 << 22;
    const FLUSH_TO_ZERO: u64 = 1 << 24;

    pub(super) fn mul(a: f64, b: f64) -> f64 {
        let product;
        // SAFETY: arithmetic on registers.
        unsafe { asm!("fmul {:d}, {:d}, {:d}", out(vreg) product, in(vreg) a, in(vreg) b) };
        product
    }

    pub(super) fn div(a: f64, b: f64) -> f64 {
        let quotient;
        // SAFETY: arithmetic on registers.
        unsafe { asm!("fdiv {:d}, {:d}, {:d}", out(vreg) quotient, in(vreg) a, in(vreg) b) };
        quotient
    }

    pub(super) fn flags() -> u64 {
        let fpsr: u64;
        // SAFETY: it reads a register that every program may read.
        unsafe { asm!("mrs {}, fpsr", out(reg) fpsr) };
        fpsr & 0x1f
    }

    pub(super) fn clear_flags() {
        // SAFETY: flags alone are cleared.
        unsafe { asm!("msr fpsr, xzr") };
    }

    /// Environments that a host may have, and what it computes in them.
    pub(super) fn hosts() -> Vec<(Control, Bits)> {
        let flushed = Bits {
            too_small_a_result: 0,
            too_small_an_operand: 0,
            ..DEFAULT_BITS
        };
        let up = Bits {
            third: THIRD + 1,
            ..DEFAULT_BITS
        };
        let both = Bits {
            third: THIRD + 1,
            ..flushed
        };
        let with = |fpcr| Control { fpcr };
        vec![
            (with(FLUSH_TO_ZERO), flushed),
            (with(UPWARD), up),
            (with(FLUSH_TO_ZERO | UPWARD), both),
        ]
    }
}
