//! The relocations of x86-64.
//!
//! Source: *System V Application Binary Interface, AMD64 Architecture Processor
//! Supplement*, version 1.0, section 4.4.1. In its terms, S is the symbol's
//! address, A the addend, P the place that is patched, G + GOT the address of
//! the symbol's slot in the global offset table, L that of its stub.

use object::elf;

/// What a relocation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    None,
    /// S + A, 64 bits.
    Abs64,
    /// S + A, 32 bits, to be zero-extended.
    Abs32,
    /// S + A, 32 bits, to be sign-extended.
    Abs32Signed,
    /// S + A − P, 32 bits.
    Pc32,
    /// S + A − P, 64 bits.
    Pc64,
    /// L + A − P, 32 bits: a call, which may go through a stub.
    Plt32,
    /// G + GOT + A − P, 32 bits: a load through the GOT. The forms that allow
    /// the load to be rewritten (`GOTPCRELX`) are served like the plain one.
    GotPcRel,
}

impl Kind {
    pub(super) fn from_elf(kind: elf::RelocationType) -> Option<Kind> {
        Some(match kind {
            elf::R_X86_64_NONE => Kind::None,
            elf::R_X86_64_64 => Kind::Abs64,
            elf::R_X86_64_32 => Kind::Abs32,
            elf::R_X86_64_32S => Kind::Abs32Signed,
            elf::R_X86_64_PC32 => Kind::Pc32,
            elf::R_X86_64_PC64 => Kind::Pc64,
            elf::R_X86_64_PLT32 => Kind::Plt32,
            elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => {
                Kind::GotPcRel
            }
            _ => return None,
        })
    }

    /// The bytes that it patches.
    pub(super) const fn width(self) -> usize {
        match self {
            Kind::None => 0,
            Kind::Abs64 | Kind::Pc64 => 8,
            _ => 4,
        }
    }

    /// The name that errors use.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::None => "R_X86_64_NONE",
            Kind::Abs64 => "R_X86_64_64",
            Kind::Abs32 => "R_X86_64_32",
            Kind::Abs32Signed => "R_X86_64_32S",
            Kind::Pc32 => "R_X86_64_PC32",
            Kind::Pc64 => "R_X86_64_PC64",
            Kind::Plt32 => "R_X86_64_PLT32",
            Kind::GotPcRel => "R_X86_64_GOTPCREL",
        }
    }

    /// `value`, which is exact, in the bytes of the field; `None` where the
    /// field cannot hold it.
    pub(super) fn encode(self, value: i128) -> Option<[u8; 8]> {
        let bits = match self {
            Kind::None => 0,
            // An address is unsigned, a distance signed; S + A may be either.
            Kind::Abs64 => u64::try_from(value)
                .or_else(|_| i64::try_from(value).map(i64::cast_unsigned))
                .ok()?,
            Kind::Pc64 => i64::try_from(value).ok()?.cast_unsigned(),
            Kind::Abs32 => u64::from(u32::try_from(value).ok()?),
            Kind::Abs32Signed | Kind::Pc32 | Kind::Plt32 | Kind::GotPcRel => {
                i64::from(i32::try_from(value).ok()?).cast_unsigned()
            }
        };
        Some(bits.to_le_bytes())
    }
}

/// The ABI's name of a relocation that is not done, for the error.
pub(super) fn elf_name(kind: elf::RelocationType) -> String {
    let name = match kind {
        elf::R_X86_64_GOT32 => "R_X86_64_GOT32",
        elf::R_X86_64_COPY => "R_X86_64_COPY",
        elf::R_X86_64_GLOB_DAT => "R_X86_64_GLOB_DAT",
        elf::R_X86_64_JUMP_SLOT => "R_X86_64_JUMP_SLOT",
        elf::R_X86_64_RELATIVE => "R_X86_64_RELATIVE",
        elf::R_X86_64_16 => "R_X86_64_16",
        elf::R_X86_64_PC16 => "R_X86_64_PC16",
        elf::R_X86_64_8 => "R_X86_64_8",
        elf::R_X86_64_PC8 => "R_X86_64_PC8",
        elf::R_X86_64_DTPMOD64 => "R_X86_64_DTPMOD64",
        elf::R_X86_64_DTPOFF64 => "R_X86_64_DTPOFF64",
        elf::R_X86_64_TPOFF64 => "R_X86_64_TPOFF64",
        elf::R_X86_64_TLSGD => "R_X86_64_TLSGD",
        elf::R_X86_64_TLSLD => "R_X86_64_TLSLD",
        elf::R_X86_64_DTPOFF32 => "R_X86_64_DTPOFF32",
        elf::R_X86_64_GOTTPOFF => "R_X86_64_GOTTPOFF",
        elf::R_X86_64_TPOFF32 => "R_X86_64_TPOFF32",
        elf::R_X86_64_GOTOFF64 => "R_X86_64_GOTOFF64",
        elf::R_X86_64_GOTPC32 => "R_X86_64_GOTPC32",
        elf::R_X86_64_GOTPC64 => "R_X86_64_GOTPC64",
        elf::R_X86_64_GOT64 => "R_X86_64_GOT64",
        elf::R_X86_64_GOTPCREL64 => "R_X86_64_GOTPCREL64",
        elf::R_X86_64_PLTOFF64 => "R_X86_64_PLTOFF64",
        other => return format!("number {}", other.0),
    };
    name.to_owned()
}

/// The bytes of one stub, padded so that each begins where fetching likes it.
pub(super) const STUB_SIZE: u64 = 8;

/// A stub at address `stub` that jumps to where the GOT slot at `slot` points:
/// `jmp *disp32(%rip)`, then `int3` twice.
pub(super) fn stub(stub: u64, slot: u64) -> Option<[u8; STUB_SIZE as usize]> {
    const JUMP_SIZE: u64 = 6;
    let distance = i128::from(slot) - i128::from(stub + JUMP_SIZE);
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([0xff, 0x25, a, b, c, d, 0xcc, 0xcc])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_fit_its_field_is_not_cut() {
        let max = i128::from(i32::MAX);
        let min = i128::from(i32::MIN);
        for kind in [Kind::Pc32, Kind::Plt32, Kind::GotPcRel, Kind::Abs32Signed] {
            assert!(kind.encode(max).is_some() && kind.encode(min).is_some());
            assert_eq!(kind.encode(max + 1), None);
            assert_eq!(kind.encode(min - 1), None);
        }
        assert_eq!(Kind::Abs32.encode(-1), None);
        assert_eq!(Kind::Abs32.encode(1 << 32), None);
        assert_eq!(Kind::Abs32.encode((1 << 32) - 1).unwrap()[..4], [0xff; 4]);
        assert_eq!(Kind::Abs64.encode(1 << 64), None);
        assert_eq!(Kind::Abs64.encode(-1), Some([0xff; 8]));
        assert_eq!(Kind::Pc64.encode(1 << 63), None);
    }

    #[test]
    fn a_stub_jumps_through_its_slot() {
        // jmp *0x1ffa(%rip) at 0x1000 reads the slot at 0x3000.
        let bytes = stub(0x1000, 0x3000).unwrap();
        assert_eq!(bytes, [0xff, 0x25, 0xfa, 0x1f, 0, 0, 0xcc, 0xcc]);
        assert_eq!(stub(0x1000, 1 << 40), None);
    }
}
