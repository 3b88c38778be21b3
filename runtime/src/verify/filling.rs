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
    /// Negative ones, where the type has any, which a minimum lets through.
    Low,
    /// Fractions near 0, to which little can be added without that it shows.
    Near,
}

/// After how many elements a filling repeats itself: a prime, so that no row is as long.
const PERIOD: usize = 251;

impl Fill {
    pub(super) const ALL: [Fill; 4] = [Fill::Ones, Fill::High, Fill::Low, Fill::Near];

    /// Fills `bytes` with elements of this type, which are others for another `salt`: what is copied
    /// from the same place of another argument is not what was there.
    pub(super) fn fill(self, dtype: DType, salt: usize, bytes: &mut [u8]) {
        let size = dtype.size();
        let period: Vec<u8> = (0..PERIOD)
            .flat_map(|i| {
                self.element(dtype, i + 1 + salt * 29)
                    .to_le_bytes()
                    .into_iter()
                    .take(size)
            })
            .collect();
        for chunk in bytes.chunks_mut(period.len()) {
            chunk.copy_from_slice(&period[..chunk.len()]);
        }
    }

    fn element(self, dtype: DType, index: usize) -> u64 {
        // 0 to 99, each differing from the one before.
        let step = i128::try_from(index * 37 % 100).unwrap_or(0);
        let number = match (self, dtype) {
            (Fill::Near, dtype) if dtype.is_float() => {
                let fraction = Number::Float(0.0078125 * (step + 1) as f64);
                return Scalar::from_number(dtype, fraction).map_or(0, Scalar::to_slot);
            }
            (Fill::Ones, DType::Bool) => 1,
            (Fill::Ones, _) => return u64::MAX,
            (Fill::High, DType::Bool) => 0,
            (Fill::Low | Fill::Near, DType::Bool) => (step / 3) & 1,
            (Fill::High, dtype) if dtype.is_float() => 20_000 + 64 * step,
            (Fill::Low, dtype) if dtype.is_float() => -20_000 - 64 * step,
            (Fill::High, _) => 1 + step,
            (Fill::Low, dtype) if dtype.integer_range().is_some_and(|(min, _)| min < 0) => {
                -2 - step
            }
            (Fill::Low, _) => 101 + step,
            (Fill::Near, _) => step % 7,
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
            Fill::Near => [0x20; 8],
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
            let filled = |fill: Fill, salt| {
                let mut bytes = vec![0; 300 * size];
                fill.fill(dtype, salt, &mut bytes);
                let elements = bytes.chunks(size).map(<[u8]>::to_vec);
                elements.collect::<Vec<_>>()
            };
            let all = Fill::ALL.map(|fill| filled(fill, 0));
            let [ones, high, ..] = &all;
            assert!(ones.iter().zip(high).all(|(a, b)| a != b), "{dtype}");
            if dtype == DType::Bool {
                continue;
            }
            for (fill, elements) in Fill::ALL.iter().zip(&all).skip(1) {
                let salted = filled(*fill, 1);
                let differ = |other: &[Vec<u8>]| elements.iter().zip(other).all(|(a, b)| a != b);
                assert!(differ(ones), "{dtype} {fill:?}");
                // Few integers are near 0.
                let few = *fill == Fill::Near && !dtype.is_float();
                assert!(few || differ(&salted), "{dtype} {fill:?}");
                let mut pairs = elements[..PERIOD].windows(2);
                let steady = pairs.any(|two| two[0] == two[1]);
                assert!(few || !steady, "{dtype} {fill:?}");
            }
        }
    }
}
