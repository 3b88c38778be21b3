//! What an op may not read is filled with.

use crate::signature::{DType, Number, Scalar};

/// What elements hold that an op may not read. Of two of them one at least shows in what is
/// computed from it, and neighbours differ, so that a copy of another element is no element that
/// was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fill {
    /// All bits set: NaN, or -1. The same everywhere.
    Ones,
    /// Positive numbers above what most are, which a maximum lets through.
    High,
    /// Negative ones, where the type has any.
    Low,
}

/// After how many elements a filling repeats itself: a prime, so that no row is as long.
const PERIOD: usize = 251;

impl Fill {
    pub(super) const ALL: [Fill; 3] = [Fill::Ones, Fill::High, Fill::Low];

    /// Fills `bytes` with elements of this type.
    pub(super) fn fill(self, dtype: DType, bytes: &mut [u8]) {
        let size = dtype.size();
        let period: Vec<u8> = (0..PERIOD)
            .flat_map(|i| self.element(dtype, i).to_le_bytes().into_iter().take(size))
            .collect();
        for chunk in bytes.chunks_mut(period.len()) {
            chunk.copy_from_slice(&period[..chunk.len()]);
        }
    }

    fn element(self, dtype: DType, index: usize) -> u64 {
        // 0 to 99, each differing from the one before.
        let step = (index * 37 % 100) as i128;
        let number = match (self, dtype) {
            (Fill::Ones, DType::Bool) => 1,
            (Fill::Ones, _) => return u64::MAX,
            (Fill::High, DType::Bool) => 0,
            (Fill::Low, DType::Bool) => step & 1,
            (Fill::High, dtype) if dtype.is_float() => 20_000 + 64 * step,
            (Fill::Low, dtype) if dtype.is_float() => -20_000 - 64 * step,
            (Fill::High, _) => 1 + step,
            (Fill::Low, dtype) if dtype.integer_range().is_some_and(|(min, _)| min < 0) => {
                -2 - step
            }
            (Fill::Low, _) => 101 + step,
        };
        Scalar::from_number(dtype, Number::Int(number)).map_or(0, Scalar::to_slot)
    }

    /// What the slack beside an argument holds: ordinary numbers of each floating-point type, but
    /// for the first.
    pub(super) const fn slack(self) -> [u8; 8] {
        match self {
            Fill::Ones => [0xff; 8],
            Fill::High => [0x40; 8],
            Fill::Low => [0xc0; 8],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillings_differ_from_each_other_and_neighbours_too() {
        for dtype in DType::ALL {
            let size = dtype.size();
            let filled = Fill::ALL.map(|fill| {
                let mut bytes = vec![0; 300 * size];
                fill.fill(dtype, &mut bytes);
                bytes
            });
            let [ones, high, low] = filled
                .each_ref()
                .map(|b| b.chunks(size).collect::<Vec<_>>());
            for i in 0..300 {
                assert_ne!(ones[i], high[i], "{dtype} {i}");
                if dtype != DType::Bool {
                    assert_ne!(high[i], low[i], "{dtype} {i}");
                    assert_ne!(ones[i], low[i], "{dtype} {i}");
                }
            }
            if dtype != DType::Bool {
                let differ = |all: &[&[u8]]| all.windows(2).all(|two| two[0] != two[1]);
                assert!(differ(&high[..PERIOD]) && differ(&low[..PERIOD]), "{dtype}");
            }
            assert_eq!(ones[0], ones[299]);
        }
    }
}
