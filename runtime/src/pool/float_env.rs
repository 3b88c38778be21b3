//! The floating-point environment that kernels are compiled for.
//!
//! A thread's control registers say how it rounds, whether it keeps numbers too small
//! to be normal, and which exceptions stop it. Compilers take it that they hold what
//! the platform's ABI begins a thread with; hosts set other things: audio programs flush
//! small numbers to zero, and a library that was built with `-ffast-math` does so for
//! whoever loads it. A run on such a thread, and a worker that inherits from it, would
//! give other bits than the same run elsewhere. So all that run kernels do so within
//! [`DefaultFloatEnv`]. Where nothing is to be changed it stores two registers and
//! compares: 5.4 ns on an AMD EPYC, of which `stmxcsr` takes 4.2; where something is, 26.

use std::marker::PhantomData;

use control::Control;

/// While it lives, the thread that it was made on has the default floating-point
/// environment.
///
/// It stays with its thread. They nest: the innermost is dropped first. What changes the
/// environment while it lives, as a host function could, is not noticed.
///
/// Only control is exchanged. The flags that remember exceptions stay as they are, on the
/// way in and on the way out, so that a host that looks at them sees what has happened in
/// between, as after any other call. There is one case in which they cannot: where the
/// host has the x87 stop at exceptions, its flags are cleared on the way out, since it
/// would stop for an exception that is only remembered.
#[derive(Debug)]
pub(crate) struct DefaultFloatEnv {
    host: Control,
    /// Control registers are a thread's own.
    thread: PhantomData<*const ()>,
}

impl DefaultFloatEnv {
    /// Changes to the default environment, if this thread has another.
    #[inline]
    pub(crate) fn enter() -> DefaultFloatEnv {
        let host = Control::get();
        if host != Control::DEFAULT {
            Control::DEFAULT.set();
        }
        DefaultFloatEnv {
            host,
            thread: PhantomData,
        }
    }
}

/// Has this thread the default environment again, after code that may have changed it.
#[inline]
pub(crate) fn restore_default() {
    if Control::get() != Control::DEFAULT {
        Control::DEFAULT.set();
    }
}

impl Drop for DefaultFloatEnv {
    /// Changes back, if something was changed.
    #[inline]
    fn drop(&mut self) {
        if self.host != Control::DEFAULT {
            self.host.set();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    /// The SSE unit's exception flags within its control register.
    const SSE_FLAGS: u32 = 0x3f;
    /// The x87's masks, by which exceptions are remembered and do not stop it.
    const X87_MASKS: u16 = 0x3f;

    /// The control registers of both units: all vector and ordinary arithmetic is SSE's,
    /// and `long double` the x87's.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Control {
        /// Without its flags.
        pub(super) sse: u32,
        pub(super) x87: u16,
    }

    impl Control {
        /// All exceptions masked, to nearest, small numbers kept, the x87 with all 64
        /// bits: what the System V ABI begins a process with.
        pub(super) const DEFAULT: Control = Control {
            sse: 0x1f80,
            x87: 0x037f,
        };

        /// This thread's.
        #[inline]
        pub(super) fn get() -> Control {
            let mut x87 = 0_u16;
            // SAFETY: one store of two bytes, to a place of two bytes.
            unsafe {
                asm!("fnstcw [{}]", in(reg) &raw mut x87, options(nostack, preserves_flags));
            }
            Control {
                sse: sse() & !SSE_FLAGS,
                x87,
            }
        }

        /// Makes it this thread's.
        #[cold]
        pub(super) fn set(self) {
            let sse = self.sse | (sse() & SSE_FLAGS);
            // A flag that is set and no longer masked stops the x87 at its next
            // instruction; SSE waits until the exception happens again.
            if self.x87 & X87_MASKS != X87_MASKS {
                // SAFETY: it clears the x87's flags, which code after a block without
                // `preserves_flags` does not count on, and touches nothing else.
                unsafe { asm!("fnclex", options(nomem, nostack)) };
            }
            // SAFETY: each loads a control register from a place of its size, with a value
            // that this processor gave or the ABI's own, so that no reserved bit is set.
            // Rust's code takes the default environment for granted. That is what `enter`
            // restores; the drop gives back to the thread what its host has chosen for it
            // before, and answers for.
            unsafe {
                asm!(
                    "ldmxcsr [{}]",
                    "fldcw [{}]",
                    in(reg) &raw const sse,
                    in(reg) &raw const self.x87,
                    options(readonly, nostack),
                );
            }
        }
    }

    #[inline]
    fn sse() -> u32 {
        let mut sse = 0_u32;
        // SAFETY: one store of four bytes, to a place of four bytes.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut sse, options(nostack, preserves_flags));
        }
        sse
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    /// The control register, which is one for all arithmetic. Flags are in another.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Control {
        pub(super) fpcr: u64,
    }

    impl Control {
        /// To nearest, small numbers kept, no exception stops anything.
        pub(super) const DEFAULT: Control = Control { fpcr: 0 };

        /// This thread's.
        #[inline]
        pub(super) fn get() -> Control {
            let fpcr;
            // SAFETY: it reads a register that every program may read.
            unsafe {
                asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags));
            }
            Control { fpcr }
        }

        /// Makes it this thread's.
        #[cold]
        pub(super) fn set(self) {
            // SAFETY: a value that this processor gave, or the ABI's own. Rust's code
            // takes the default environment for granted. That is what `enter` restores;
            // the drop gives back to the thread what its host has chosen for it before,
            // and answers for.
            unsafe { asm!("msr fpcr, {}", in(reg) self.fpcr, options(nostack)) };
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    /// Nothing is known of this architecture's control, so that nothing is changed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Control;

    impl Control {
        pub(super) const DEFAULT: Control = Control;

        pub(super) const fn get() -> Control {
            Control
        }

        pub(super) const fn set(self) {}
    }
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests;
