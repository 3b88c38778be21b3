//! The relocations and stubs of aarch64.
//!
//! Source: *ELF for the Arm 64-bit Architecture (AArch64)*, 2024Q3, section 5.7;
//! the instructions are in the *Arm Architecture Reference Manual*, C6.2.

use object::elf;

use super::relocation::{Compute, Field, Kind, Place, Values};

/// The bits of a value that a field of an instruction holds: those from `shift` on,
/// of which `zeros` below must be 0.
const fn immediate(values: Values, shift: u8, zeros: u8, place: Place) -> Field {
    Field {
        width: 4,
        values,
        shift,
        zeros,
        place,
    }
}

/// A distance to code or data that is a multiple of 4 bytes, of `bits` bits.
const fn words(bits: u32, at: u32, count: u32) -> Field {
    immediate(Values::Signed(bits), 2, 2, Place::Bits { at, count })
}

/// The low 12 bits of an address, as a load or store of `1 << log_size` bytes counts
/// them. The rest of the address is in the page that an `adrp` computes.
const fn low12(log_size: u8) -> Field {
    let count = 12 - log_size as u32;
    immediate(
        Values::Any,
        log_size,
        log_size,
        Place::Bits { at: 10, count },
    )
}

/// 16 bits of an address, from bit `16 * group` on.
const fn group(group: u8, values: Values) -> Field {
    immediate(values, 16 * group, 0, Place::Bits { at: 5, count: 16 })
}

/// 16 bits of a signed number, from bit `16 * group` on, in a move that says the sign.
const fn signed_group(group: u8) -> Field {
    let bits = 16 * (group as u32 + 1) + 1;
    immediate(Values::Signed(bits), 16 * group, 0, Place::Move)
}

/// What a relocation does; `None` for what no kernel's object may hold.
pub(super) const fn relocation(kind: elf::RelocationType) -> Option<Kind> {
    /// The withdrawn number of `R_AARCH64_NONE`.
    const OLD_NONE: elf::RelocationType = elf::RelocationType(256);
    const ADR: Field = immediate(Values::Signed(21), 0, 0, Place::Adr);
    // The page is 12 bits, and the number of pages 21.
    const ADRP: Field = immediate(Values::Signed(33), 12, 12, Place::Adr);
    const ADRP_UNCHECKED: Field = immediate(Values::Any, 12, 12, Place::Adr);
    const LITERAL: Field = words(21, 5, 19);
    const SIGNED32: Field = Field::data(4, Values::Signed(32));
    const SIGNED64: Field = Field::data(8, Values::Signed(64));
    // A slot within 32 KiB of a page or of the table.
    const SLOT15: Field = immediate(
        Values::Unsigned(15),
        3,
        3,
        Place::Bits { at: 10, count: 12 },
    );
    let (compute, field) = match kind {
        elf::R_AARCH64_NONE | OLD_NONE => return Some(Kind::NOTHING),

        elf::R_AARCH64_ABS64 => (Compute::Absolute, Field::data(8, Values::Either(64))),
        elf::R_AARCH64_ABS32 => (Compute::Absolute, Field::data(4, Values::Either(32))),
        elf::R_AARCH64_ABS16 => (Compute::Absolute, Field::data(2, Values::Either(16))),
        elf::R_AARCH64_PREL64 => (Compute::Relative, SIGNED64),
        elf::R_AARCH64_PREL32 => (Compute::Relative, Field::data(4, Values::Either(32))),
        elf::R_AARCH64_PREL16 => (Compute::Relative, Field::data(2, Values::Either(16))),
        elf::R_AARCH64_PLT32 => (Compute::Branch, SIGNED32),
        elf::R_AARCH64_GOTPCREL32 => (Compute::SlotRelative, SIGNED32),
        elf::R_AARCH64_GOTREL64 => (Compute::FromTable, SIGNED64),
        elf::R_AARCH64_GOTREL32 => (Compute::FromTable, SIGNED32),

        elf::R_AARCH64_MOVW_UABS_G0 => (Compute::Absolute, group(0, Values::Unsigned(16))),
        elf::R_AARCH64_MOVW_UABS_G0_NC => (Compute::Absolute, group(0, Values::Any)),
        elf::R_AARCH64_MOVW_UABS_G1 => (Compute::Absolute, group(1, Values::Unsigned(32))),
        elf::R_AARCH64_MOVW_UABS_G1_NC => (Compute::Absolute, group(1, Values::Any)),
        elf::R_AARCH64_MOVW_UABS_G2 => (Compute::Absolute, group(2, Values::Unsigned(48))),
        elf::R_AARCH64_MOVW_UABS_G2_NC => (Compute::Absolute, group(2, Values::Any)),
        elf::R_AARCH64_MOVW_UABS_G3 => (Compute::Absolute, group(3, Values::Any)),
        elf::R_AARCH64_MOVW_SABS_G0 => (Compute::Absolute, signed_group(0)),
        elf::R_AARCH64_MOVW_SABS_G1 => (Compute::Absolute, signed_group(1)),
        elf::R_AARCH64_MOVW_SABS_G2 => (Compute::Absolute, signed_group(2)),
        elf::R_AARCH64_MOVW_PREL_G0 => (Compute::Relative, signed_group(0)),
        elf::R_AARCH64_MOVW_PREL_G0_NC => (Compute::Relative, group(0, Values::Any)),
        elf::R_AARCH64_MOVW_PREL_G1 => (Compute::Relative, signed_group(1)),
        elf::R_AARCH64_MOVW_PREL_G1_NC => (Compute::Relative, group(1, Values::Any)),
        elf::R_AARCH64_MOVW_PREL_G2 => (Compute::Relative, signed_group(2)),
        elf::R_AARCH64_MOVW_PREL_G2_NC => (Compute::Relative, group(2, Values::Any)),
        elf::R_AARCH64_MOVW_PREL_G3 => (
            Compute::Relative,
            immediate(Values::Any, 48, 0, Place::Move),
        ),

        elf::R_AARCH64_LD_PREL_LO19 => (Compute::Relative, LITERAL),
        elf::R_AARCH64_ADR_PREL_LO21 => (Compute::Relative, ADR),
        elf::R_AARCH64_ADR_PREL_PG_HI21 => (Compute::Page, ADRP),
        elf::R_AARCH64_ADR_PREL_PG_HI21_NC => (Compute::Page, ADRP_UNCHECKED),
        elf::R_AARCH64_ADD_ABS_LO12_NC | elf::R_AARCH64_LDST8_ABS_LO12_NC => {
            (Compute::Absolute, low12(0))
        }
        elf::R_AARCH64_LDST16_ABS_LO12_NC => (Compute::Absolute, low12(1)),
        elf::R_AARCH64_LDST32_ABS_LO12_NC => (Compute::Absolute, low12(2)),
        elf::R_AARCH64_LDST64_ABS_LO12_NC => (Compute::Absolute, low12(3)),
        elf::R_AARCH64_LDST128_ABS_LO12_NC => (Compute::Absolute, low12(4)),

        elf::R_AARCH64_TSTBR14 => (Compute::ShortBranch, words(16, 5, 14)),
        elf::R_AARCH64_CONDBR19 => (Compute::ShortBranch, LITERAL),
        elf::R_AARCH64_JUMP26 | elf::R_AARCH64_CALL26 => (Compute::Branch, words(28, 0, 26)),

        elf::R_AARCH64_GOT_LD_PREL19 => (Compute::SlotRelative, LITERAL),
        elf::R_AARCH64_ADR_GOT_PAGE => (Compute::SlotPage, ADRP),
        elf::R_AARCH64_LD64_GOT_LO12_NC => (Compute::Slot, low12(3)),
        elf::R_AARCH64_LD64_GOTOFF_LO15 => (Compute::SlotFromTable, SLOT15),
        elf::R_AARCH64_LD64_GOTPAGE_LO15 => (Compute::SlotFromPage, SLOT15),
        _ => return None,
    };
    Some(Kind::new(compute, field))
}

/// The bytes of one stub.
pub(super) const STUB_SIZE: usize = 16;

/// A stub at address `stub` that jumps to where the GOT slot at `slot` points:
/// `adrp x16, page`, `ldr x16, [x16, low]`, `br x16`, then `brk #0`. Calls may change
/// x16 and x17 on their way. `None` where 4 GiB do not reach it.
pub(super) fn stub(stub: u64, slot: u64) -> Option<[u8; STUB_SIZE]> {
    const ADRP: u64 = 0x9000_0010;
    const LDR: u64 = 0xf940_0210;
    const BR: u64 = 0xd61f_0200;
    const BRK: u64 = 0xd420_0000;
    let pages = i128::from(slot >> 12) - i128::from(stub >> 12);
    let page = relocation(elf::R_AARCH64_ADR_GOT_PAGE)?.field;
    let low = relocation(elf::R_AARCH64_LD64_GOT_LO12_NC)?.field;
    let code = [
        page.fill(ADRP, pages << 12)?,
        low.fill(LDR, slot.into())?,
        BR,
        BRK,
    ];
    let mut bytes = [0; STUB_SIZE];
    for (place, word) in bytes.chunks_exact_mut(4).zip(code) {
        place.copy_from_slice(&word.to_le_bytes()[..4]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an assembler makes of the same instructions with the numbers written out:
    /// `clang --target=aarch64 -c`, then `objdump -d`.
    #[test]
    fn fields_are_filled_as_an_assembler_fills_them() {
        let cases = [
            // b .+0x1000, bl .-4, b.eq .+0x100000-4, tbz x1, #3, .-0x8000
            (elf::R_AARCH64_JUMP26, 0x1400_0000, 0x1000, 0x1400_0400),
            (elf::R_AARCH64_CALL26, 0x9400_0000, -4, 0x97ff_ffff),
            (elf::R_AARCH64_CONDBR19, 0x5400_0000, 0xf_fffc, 0x547f_ffe0),
            (elf::R_AARCH64_TSTBR14, 0x3618_0001, -0x8000, 0x361c_0001),
            // adr x0, .-1, adrp x0, .+0x12345000
            (elf::R_AARCH64_ADR_PREL_LO21, 0x1000_0000, -1, 0x70ff_ffe0),
            (
                elf::R_AARCH64_ADR_PREL_PG_HI21,
                0x9000_0000,
                0x1234_5000,
                0xb009_1a20,
            ),
            // add x0, x0, #0xabc, ldr q0, [x0, #0xab0], ldr w0, [x0, #0xabc]
            (
                elf::R_AARCH64_ADD_ABS_LO12_NC,
                0x9100_0000,
                0x7_7abc,
                0x912a_f000,
            ),
            (
                elf::R_AARCH64_LDST128_ABS_LO12_NC,
                0x3dc0_0000,
                0x7_7ab0,
                0x3dc2_ac00,
            ),
            (
                elf::R_AARCH64_LDST32_ABS_LO12_NC,
                0xb940_0000,
                0x7_7abc,
                0xb94a_bc00,
            ),
            // movk x0, #0x5678, lsl 16; movn x0, #0x1 (which is -2); movz x0, #2
            (
                elf::R_AARCH64_MOVW_UABS_G1_NC,
                0xf2a0_0000,
                0x1234_5678_9abc,
                0xf2aa_cf00,
            ),
            (elf::R_AARCH64_MOVW_SABS_G0, 0xd280_0000, -2, 0x9280_0020),
            (elf::R_AARCH64_MOVW_SABS_G0, 0x9280_0000, 2, 0xd280_0040),
        ];
        for (kind, old, value, new) in cases {
            let filled = relocation(kind).unwrap().field.fill(old, value);
            assert_eq!(filled, Some(new), "{kind:?} {value:#x} {filled:x?}");
        }
    }

    #[test]
    fn a_distance_that_an_instruction_cannot_hold_is_not_cut() {
        for (kind, largest, step) in [
            (elf::R_AARCH64_CALL26, (1 << 27) - 4, 4),
            (elf::R_AARCH64_CONDBR19, (1 << 20) - 4, 4),
            (elf::R_AARCH64_TSTBR14, (1 << 15) - 4, 4),
            (elf::R_AARCH64_LD_PREL_LO19, (1 << 20) - 4, 4),
            (elf::R_AARCH64_ADR_PREL_LO21, (1 << 20) - 1, 1),
            (elf::R_AARCH64_ADR_PREL_PG_HI21, (1 << 32) - 4096, 4096),
            (elf::R_AARCH64_MOVW_UABS_G0, (1 << 16) - 1, 1),
            (elf::R_AARCH64_LD64_GOTPAGE_LO15, (1 << 15) - 8, 8),
        ] {
            let field = relocation(kind).unwrap().field;
            assert!(field.fill(0, largest).is_some(), "{kind:?}");
            assert_eq!(field.fill(0, largest + step), None, "{kind:?}");
            if step > 1 {
                assert_eq!(field.fill(0, largest - 1), None, "{kind:?}: between");
            }
        }
    }

    #[test]
    fn a_stub_jumps_through_its_slot() {
        // adrp x16, +2 pages; ldr x16, [x16, #8]; br x16; brk #0
        let expected: [u32; 4] = [0xd000_0010, 0xf940_0610, 0xd61f_0200, 0xd420_0000];
        let expected: Vec<u8> = expected.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(stub(0x1ff0, 0x3008).unwrap().to_vec(), expected);
        assert_eq!(stub(0x1000, 1 << 40), None);
    }
}
