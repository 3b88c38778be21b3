//! Constants that code reads, as numbers.

use half::{bf16, f16};

/// What code takes the bytes of a constant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    F16,
    Bf16,
    F32,
    F64,
    /// A signed integer of so many bytes, 1 to 8.
    Int(usize),
    /// Bits, so many bytes, 1 to 8.
    Bits(usize),
}

/// More of them are not shown.
const SHOWN: usize = 8;

impl Lane {
    pub(super) const fn size(self) -> usize {
        match self {
            Lane::F16 | Lane::Bf16 => 2,
            Lane::F32 => 4,
            Lane::F64 => 8,
            Lane::Int(size) | Lane::Bits(size) => size,
        }
    }

    fn name(self) -> String {
        match self {
            Lane::F16 => "f16".into(),
            Lane::Bf16 => "bf16".into(),
            Lane::F32 => "f32".into(),
            Lane::F64 => "f64".into(),
            Lane::Int(size) => format!("i{}", 8 * size),
            Lane::Bits(size) => format!("u{}", 8 * size),
        }
    }

    /// One number, of as many bytes as it takes.
    fn number(self, bytes: &[u8]) -> String {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(word);
        let unused = 64 - 8 * bytes.len().clamp(1, 8);
        let float = |value: f64, short: String| {
            // A mask is no number, and its sign or payload is what counts.
            if value.is_nan() {
                format!("{bits:#x}")
            } else {
                short
            }
        };
        #[allow(clippy::cast_possible_truncation)] // of the low bytes
        match self {
            Lane::F16 => {
                let value = f16::from_bits(bits as u16);
                float(value.into(), value.to_string())
            }
            Lane::Bf16 => {
                let value = bf16::from_bits(bits as u16);
                float(value.into(), value.to_string())
            }
            Lane::F32 => {
                let value = f32::from_bits(bits as u32);
                float(value.into(), format!("{value:?}"))
            }
            Lane::F64 => {
                let value = f64::from_bits(bits);
                float(value, format!("{value:?}"))
            }
            Lane::Int(_) => ((bits << unused).cast_signed() >> unused).to_string(),
            Lane::Bits(_) => format!("{bits:#x}"),
        }
    }

    /// `f32 1.5`, `f32 1.5 × 8`, `i32 [0, 1, 2, 3]`
    pub(super) fn show(self, bytes: &[u8]) -> String {
        let lanes: Vec<&[u8]> = bytes.chunks_exact(self.size()).collect();
        let name = self.name();
        match lanes.as_slice() {
            [] => name,
            [one] => format!("{name} {}", self.number(one)),
            [first, rest @ ..] if rest.iter().all(|lane| lane == first) => {
                format!("{name} {} × {}", self.number(first), lanes.len())
            }
            _ => {
                let mut shown: Vec<_> = lanes.iter().take(SHOWN).map(|l| self.number(l)).collect();
                if lanes.len() > SHOWN {
                    shown.push("…".into());
                }
                format!("{name} [{}]", shown.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_numbers_of_the_type_that_code_reads() {
        let floats: Vec<u8> = [1.5_f32; 4].iter().flat_map(|f| f.to_le_bytes()).collect();
        assert_eq!(Lane::F32.show(&floats), "f32 1.5 × 4");
        assert_eq!(Lane::F32.show(&floats[..4]), "f32 1.5");
        assert_eq!(Lane::F64.show(&(-0.1_f64).to_le_bytes()), "f64 -0.1");
        assert_eq!(Lane::F16.show(&[0, 0x3c]), "f16 1");
        assert_eq!(Lane::Bf16.show(&[0x80, 0x3f]), "bf16 1");
        assert_eq!(Lane::Int(1).show(&[0xff, 2]), "i8 [-1, 2]");
        assert_eq!(Lane::F32.show(&[0xff, 0xff, 0xff, 0x7f]), "f32 0x7fffffff");
        let many = Lane::Int(1).show(&(0..16).collect::<Vec<u8>>());
        assert_eq!(many, "i8 [0, 1, 2, 3, 4, 5, 6, 7, …]");
    }
}
