//! The architectures that objects may be for, each on every host.

use std::fmt;

use object::elf;

use super::relocation::Kind;
use super::{aarch64, x86_64};

/// What an object's code runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm, little-endian.
    Aarch64,
}

/// The bytes of the longest stub.
const MAX_STUB_SIZE: usize = aarch64::STUB_SIZE;

impl Architecture {
    /// What code is mapped and run for on this machine; `None` where it is not. An
    /// aarch64 is not among them yet: its instruction cache would have to be told of
    /// new code, and there was none to try that on.
    pub const HOST: Option<Architecture> = if cfg!(target_arch = "x86_64") {
        Some(Architecture::X86_64)
    } else {
        None
    };

    /// Its name, as bundles and Rust have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }

    pub(super) const fn of_machine(machine: elf::Machine) -> Option<Architecture> {
        match machine {
            elf::EM_X86_64 => Some(Architecture::X86_64),
            elf::EM_AARCH64 => Some(Architecture::Aarch64),
            _ => None,
        }
    }

    /// What a relocation does; `None` for what no kernel's object may hold.
    pub(super) const fn relocation(self, kind: elf::RelocationType) -> Option<Kind> {
        match self {
            Architecture::X86_64 => x86_64::relocation(kind),
            Architecture::Aarch64 => aarch64::relocation(kind),
        }
    }

    /// The name that the ABI gives a relocation, if it has one of that number.
    pub(super) fn relocation_name(self, kind: elf::RelocationType) -> Option<&'static str> {
        match self {
            Architecture::X86_64 => elf::NAMES_R_X86_64.name(kind),
            Architecture::Aarch64 => elf::NAMES_R_AARCH64.name(kind),
        }
    }

    /// The addend of a branch, in code, to the symbol itself: x86-64 counts from the end
    /// of the field.
    pub(super) const fn branch_addend(self) -> i64 {
        match self {
            Architecture::X86_64 => -4,
            Architecture::Aarch64 => 0,
        }
    }

    /// The bytes of one stub, a power of two, to which it is aligned.
    pub(super) const fn stub_size(self) -> u64 {
        match self {
            Architecture::X86_64 => x86_64::STUB_SIZE as u64,
            Architecture::Aarch64 => aarch64::STUB_SIZE as u64,
        }
    }

    /// A stub at address `stub` that jumps to where the GOT slot at `slot` points, in
    /// the first bytes; `None` where it cannot reach the slot.
    pub(super) fn stub(self, stub: u64, slot: u64) -> Option<[u8; MAX_STUB_SIZE]> {
        let mut bytes = [0; MAX_STUB_SIZE];
        match self {
            Architecture::X86_64 => {
                bytes[..x86_64::STUB_SIZE].copy_from_slice(&x86_64::stub(stub, slot)?);
            }
            Architecture::Aarch64 => bytes = aarch64::stub(stub, slot)?,
        }
        Some(bytes)
    }

    /// The byte that fills the gaps between code, so that a stray jump traps: `int3`
    /// on x86-64; on aarch64 four zeros are `udf #0`.
    pub(super) const fn code_fill(self) -> u8 {
        match self {
            Architecture::X86_64 => 0xcc,
            Architecture::Aarch64 => 0,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
