//! What a relocation is: a value to compute, and a field to put it in.
//!
//! Every architecture's relocations are pairs of the two. What there is to compute
//! differs little from one to the next, so that it is done in one place
//! ([`resolve`](super::resolve)); the fields differ, and each architecture's table
//! says what they are.

use super::layout::Rights;

/// What a relocation computes. In the terms of the ABIs: S is the symbol's address,
/// A the addend, P the place that is patched, G the address of the symbol's slot in
/// the global offset table (GOT), L that of the symbol's stub, Z its size, and
/// Page(x) the first address of the 4 KiB around x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compute {
    /// Nothing: the relocation is a note to other tools. The reader drops it.
    Nothing,
    /// S + A
    Absolute,
    /// S + A − P
    Relative,
    /// S + A − P, or L + A − P: a call or a jump, which may go through the stub.
    Branch,
    /// S + A − P: a branch within a function, which may not go through a stub, as that
    /// uses a register.
    ShortBranch,
    /// Page(S + A) − Page(P)
    Page,
    /// S + A − GOT
    FromTable,
    /// S + A − GOT, or L + A − GOT
    BranchFromTable,
    /// GOT + A − P
    Table,
    /// G + A
    Slot,
    /// G + A − P
    SlotRelative,
    /// Page(G + A) − Page(P)
    SlotPage,
    /// G + A − GOT
    SlotFromTable,
    /// G + A − Page(GOT)
    SlotFromPage,
    /// Z + A
    Size,
}

impl Compute {
    /// Whether the symbol needs a slot in the GOT.
    pub(super) const fn needs_slot(self) -> bool {
        matches!(
            self,
            Compute::Slot
                | Compute::SlotRelative
                | Compute::SlotPage
                | Compute::SlotFromTable
                | Compute::SlotFromPage
        )
    }

    /// Whether a stub may stand for a function that lies elsewhere.
    pub(super) const fn may_need_stub(self) -> bool {
        self.is_branch() || self.is_reference()
    }

    /// Whether it jumps to the symbol and does nothing else with it.
    pub(super) const fn is_branch(self) -> bool {
        matches!(self, Compute::Branch | Compute::BranchFromTable)
    }

    /// Whether it tells the code the symbol's address.
    pub(super) const fn is_reference(self) -> bool {
        matches!(
            self,
            Compute::Absolute | Compute::Relative | Compute::Page | Compute::FromTable
        )
    }
}

/// The numbers that a field stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Every number; the field holds a part of it, and others hold the rest.
    Any,
    /// Signed ones of so many bits.
    Signed(u32),
    /// Unsigned ones of so many bits.
    Unsigned(u32),
    /// Both.
    Either(u32),
}

impl Values {
    fn hold(self, value: i128) -> bool {
        let signed = |bits: u32| value >= -(1 << (bits - 1)) && value < 1 << (bits - 1);
        let unsigned = |bits: u32| value >= 0 && value < 1 << bits;
        match self {
            Values::Any => true,
            Values::Signed(bits) => signed(bits),
            Values::Unsigned(bits) => unsigned(bits),
            Values::Either(bits) => signed(bits) || unsigned(bits),
        }
    }
}

/// Where a field's bits lie in the little-endian word that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `count` bits from bit `at` on.
    Bits { at: u32, count: u32 },
    /// The immediate of an aarch64 `adr` or `adrp`: two bits from bit 29 on are the
    /// lowest, 19 from bit 5 on the others.
    Adr,
    /// The immediate of an aarch64 move of 16 bits, which becomes a `movn` of the
    /// complement for a negative number, and a `movz` for another. A `movk` stays one.
    Move,
}

/// A field of code or data that a relocation fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// The bytes of the word that holds it; 0 for no field.
    pub(super) width: u8,
    /// What it can stand for; another value is an overflow.
    pub(super) values: Values,
    /// The lowest bit of the value that it holds.
    pub(super) shift: u8,
    /// The bits below that, in number, which must be 0. Those between them and
    /// `shift` are somebody else's.
    pub(super) zeros: u8,
    /// Where its bits lie.
    pub(super) place: Place,
}

impl Field {
    /// A number of `width` bytes.
    pub(super) const fn data(width: u8, values: Values) -> Field {
        Field {
            width,
            values,
            shift: 0,
            zeros: 0,
            place: Place::Bits {
                at: 0,
                count: 8 * width as u32,
            },
        }
    }

    /// The word `old` with `value`, which is exact, in the field's bits; `None`
    /// where the field cannot hold it.
    pub(super) fn fill(self, old: u64, value: i128) -> Option<u64> {
        let low = value & ((1 << self.zeros) - 1);
        if !self.values.hold(value) || low != 0 {
            return None;
        }
        // The bits of the value from `shift` on; those beyond the field are its sign,
        // or are another field's.
        let bits = (value >> self.shift) as u64;
        Some(match self.place {
            Place::Bits { at, count } => {
                let mask = if count == 64 {
                    u64::MAX
                } else {
                    ((1 << count) - 1) << at
                };
                old & !mask | (bits << at) & mask
            }
            Place::Adr => {
                let mask = 0b11 << 29 | 0x7_ffff << 5;
                old & !mask | (bits & 0b11) << 29 | (bits >> 2 & 0x7_ffff) << 5
            }
            Place::Move => {
                // Bits 30 and 29 are the operation: 00 is `movn`, 10 is `movz`, 11 is
                // `movk`, which keeps the bits around it and says no sign.
                let mask = 0xffff << 5 | 0b11 << 29;
                let (bits, operation) = match old >> 29 & 0b11 {
                    0b11 => (bits, 0b11),
                    // The sign of 64 bits, of which the last of four moves has the top.
                    _ if (value as i64) < 0 => (!bits, 0),
                    _ => (bits, 0b10),
                };
                old & !mask | (bits & 0xffff) << 5 | operation << 29
            }
        })
    }
}

/// A relocation of an architecture: what it computes, and where that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) compute: Compute,
    pub(super) field: Field,
}

impl Kind {
    pub(super) const NOTHING: Kind = Kind {
        compute: Compute::Nothing,
        field: Field::data(0, Values::Any),
    };

    pub(super) const fn new(compute: Compute, field: Field) -> Kind {
        Kind { compute, field }
    }

    /// Whether the field, alone or with others, holds any address and any distance.
    pub(super) const fn holds_any_address(self) -> bool {
        matches!(
            self.field.values,
            Values::Any | Values::Signed(64) | Values::Either(64)
        )
    }

    /// Whether it holds a distance between segments, and cannot hold every one below 2 GiB;
    /// in a section with the rights `from`, to a symbol in one with the rights `to`.
    pub(super) fn needs_near(self, from: Rights, to: Rights) -> bool {
        let narrow = match self.field.values {
            Values::Any => false,
            Values::Signed(bits) | Values::Either(bits) => bits < 32,
            Values::Unsigned(bits) => bits < 31,
        };
        // The GOT lies among the constants.
        let between = match self.compute {
            Compute::Relative | Compute::Branch | Compute::ShortBranch | Compute::Page => {
                from != to
            }
            Compute::Table | Compute::SlotRelative | Compute::SlotPage => from != Rights::Constants,
            Compute::FromTable | Compute::BranchFromTable => to != Rights::Constants,
            Compute::Nothing
            | Compute::Absolute
            | Compute::Slot
            | Compute::SlotFromTable
            | Compute::SlotFromPage
            | Compute::Size => false,
        };
        narrow && between
    }

    /// Whether the field can hold an absolute address in the lowest 2 GiB alone.
    pub(super) const fn needs_low_address(self) -> bool {
        let narrow = matches!(
            self.field.values,
            Values::Signed(..=32) | Values::Unsigned(..=32) | Values::Either(..=32)
        );
        narrow && matches!(self.compute, Compute::Absolute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_fit_its_field_is_not_cut() {
        let fits = |values: Values, value: i128| Field::data(4, values).fill(0, value).is_some();
        let (max, min) = (i128::from(i32::MAX), i128::from(i32::MIN));
        for value in [min, -1, 0, max] {
            assert!(fits(Values::Signed(32), value));
        }
        assert!(!fits(Values::Signed(32), max + 1) && !fits(Values::Signed(32), min - 1));
        assert!(fits(Values::Unsigned(32), (1 << 32) - 1));
        assert!(!fits(Values::Unsigned(32), 1 << 32) && !fits(Values::Unsigned(32), -1));
        assert!(fits(Values::Either(32), (1 << 32) - 1) && fits(Values::Either(32), min));
        assert!(!fits(Values::Either(32), 1 << 32) && !fits(Values::Either(32), min - 1));

        let wide = |values: Values, value: i128| Field::data(8, values).fill(0, value);
        assert_eq!(wide(Values::Either(64), -1), Some(u64::MAX));
        assert_eq!(wide(Values::Either(64), 1 << 64), None);
        assert_eq!(wide(Values::Signed(64), 1 << 63), None);
    }

    #[test]
    fn a_field_keeps_the_bits_around_it() {
        let field = Field {
            width: 4,
            values: Values::Any,
            shift: 3,
            zeros: 3,
            place: Place::Bits { at: 10, count: 12 },
        };
        let all = 0xffff_ffff;
        assert_eq!(field.fill(all, 0), Some(0xffc0_03ff));
        assert_eq!(field.fill(0, 0x8), Some(1 << 10));
        assert_eq!(field.fill(0, 0xffff_fff8), Some(0xfff << 10));
        assert_eq!(field.fill(0, 0x4), None, "it is not a multiple of 8");
    }
}
