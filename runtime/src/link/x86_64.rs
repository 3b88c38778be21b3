//! The relocations and stubs of x86-64.
//!
//! Source: *System V Application Binary Interface, AMD64 Architecture Processor
//! Supplement*, version 1.0, sections 4.4.1 and, for the large code models, 3.5.

use object::elf;

use super::relocation::{Compute, Field, Kind, Values};

const WORD64: Field = Field::data(8, Values::Either(64));
const SIGNED64: Field = Field::data(8, Values::Signed(64));
const SIGNED32: Field = Field::data(4, Values::Signed(32));
const UNSIGNED32: Field = Field::data(4, Values::Unsigned(32));

/// What a relocation does; `None` for what no kernel's object may hold.
///
/// The forms of `GOTPCREL` that allow a load through the GOT to be rewritten into an
/// address (`GOTPCRELX` and its kin) are served like the plain one.
pub(super) const fn relocation(kind: elf::RelocationType) -> Option<Kind> {
    let (compute, field) = match kind {
        elf::R_X86_64_NONE => return Some(Kind::NOTHING),
        elf::R_X86_64_64 => (Compute::Absolute, WORD64),
        // It is zero-extended, and the next one is sign-extended.
        elf::R_X86_64_32 => (Compute::Absolute, UNSIGNED32),
        elf::R_X86_64_32S => (Compute::Absolute, SIGNED32),
        elf::R_X86_64_16 => (Compute::Absolute, Field::data(2, Values::Either(16))),
        elf::R_X86_64_8 => (Compute::Absolute, Field::data(1, Values::Either(8))),
        elf::R_X86_64_PC64 => (Compute::Relative, SIGNED64),
        elf::R_X86_64_PC32 => (Compute::Relative, SIGNED32),
        elf::R_X86_64_PC16 => (Compute::Relative, Field::data(2, Values::Signed(16))),
        elf::R_X86_64_PC8 => (Compute::Relative, Field::data(1, Values::Signed(8))),
        elf::R_X86_64_PLT32 => (Compute::Branch, SIGNED32),
        elf::R_X86_64_PLTOFF64 => (Compute::BranchFromTable, SIGNED64),
        elf::R_X86_64_GOTOFF64 => (Compute::FromTable, SIGNED64),
        elf::R_X86_64_GOTPC32 => (Compute::Table, SIGNED32),
        elf::R_X86_64_GOTPC64 => (Compute::Table, SIGNED64),
        elf::R_X86_64_GOTPCREL
        | elf::R_X86_64_GOTPCRELX
        | elf::R_X86_64_REX_GOTPCRELX
        | elf::R_X86_64_CODE_4_GOTPCRELX
        | elf::R_X86_64_CODE_5_GOTPCRELX
        | elf::R_X86_64_CODE_6_GOTPCRELX => (Compute::SlotRelative, SIGNED32),
        elf::R_X86_64_GOTPCREL64 => (Compute::SlotRelative, SIGNED64),
        elf::R_X86_64_GOT32 => (Compute::SlotFromTable, SIGNED32),
        elf::R_X86_64_GOT64 | elf::R_X86_64_GOTPLT64 => (Compute::SlotFromTable, SIGNED64),
        elf::R_X86_64_SIZE32 => (Compute::Size, UNSIGNED32),
        elf::R_X86_64_SIZE64 => (Compute::Size, WORD64),
        _ => return None,
    };
    Some(Kind::new(compute, field))
}

/// The bytes of one stub, padded so that each begins where fetching likes it.
pub(super) const STUB_SIZE: usize = 8;

/// A stub at address `stub` that jumps to where the GOT slot at `slot` points:
/// `jmp *disp32(%rip)`, then `int3` twice. `None` where 32 bits do not reach it.
pub(super) fn stub(stub: u64, slot: u64) -> Option<[u8; STUB_SIZE]> {
    const JUMP_SIZE: i128 = 6;
    let distance = i128::from(slot) - i128::from(stub) - JUMP_SIZE;
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([0xff, 0x25, a, b, c, d, 0xcc, 0xcc])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_jumps_through_its_slot() {
        // jmp *0x1ffa(%rip) at 0x1000 reads the slot at 0x3000.
        let bytes = stub(0x1000, 0x3000).unwrap();
        assert_eq!(bytes, [0xff, 0x25, 0xfa, 0x1f, 0, 0, 0xcc, 0xcc]);
        assert_eq!(stub(0x1000, 1 << 40), None);
    }

    #[test]
    fn addresses_are_unsigned_or_signed_as_the_code_extends_them() {
        let fill = |kind, value| relocation(kind).unwrap().field.fill(0, value);
        assert_eq!(fill(elf::R_X86_64_32, (1 << 32) - 1), Some(0xffff_ffff));
        assert_eq!(fill(elf::R_X86_64_32, -1), None);
        assert_eq!(fill(elf::R_X86_64_32S, -1), Some(0xffff_ffff));
        assert_eq!(fill(elf::R_X86_64_32S, 1 << 31), None);
        assert_eq!(fill(elf::R_X86_64_64, -1), Some(u64::MAX));
        assert_eq!(fill(elf::R_X86_64_64, (1 << 64) - 1), Some(u64::MAX));
    }
}
