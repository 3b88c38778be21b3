//! Inputs for whoever has none.

use crate::Error;
use crate::memory::Buffer;
use crate::plan::PlanBuffer;
use crate::signature::{DType, Number, Scalar};

/// Elements for an input: they follow from its name, and look random.
pub(crate) fn arbitrary(input: &PlanBuffer) -> Result<Buffer, Error> {
    let dtype = input.dtype.unwrap_or(DType::U8);
    let mut buffer = Buffer::zeroed(dtype, input.bytes / dtype.size())?;
    let name = input.name.as_deref().unwrap_or_default();
    // FNV-1a.
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = SplitMix64(seed);
    let mut bytes = Vec::with_capacity(input.bytes);
    for _ in 0..buffer.len() {
        let slot = Scalar::from_number(dtype, random.number(dtype)).map_or(0, Scalar::to_slot);
        bytes.extend_from_slice(&slot.to_le_bytes()[..dtype.size()]);
    }
    buffer.overwrite(&bytes);
    Ok(buffer)
}

struct SplitMix64(u64);

impl SplitMix64 {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[allow(clippy::cast_precision_loss)] // of 53 bits nothing is lost
    fn number(&mut self, dtype: DType) -> Number {
        let bits = self.next() >> 11;
        match dtype.is_float() {
            true => Number::Float(bits as f64 / (1_u64 << 52) as f64 - 1.0),
            false => Number::Int((bits & 1).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::to_f64;
    use crate::plan::Role;

    fn of(name: &str, dtype: DType) -> Vec<f64> {
        let input = PlanBuffer {
            name: Some(name.into()),
            role: Role::Input,
            dtype: Some(dtype),
            shape: vec![1000],
            bytes: 1000 * dtype.size(),
            align: 16,
        };
        to_f64(arbitrary(&input).unwrap().as_view()).unwrap()
    }

    #[test]
    fn they_are_the_same_each_time_and_of_their_type() {
        for dtype in DType::ALL {
            let (x, y) = (of("x", dtype), of("y", dtype));
            assert_eq!(x, of("x", dtype));
            assert_ne!(x, y);
            let low = if dtype.is_float() { -1.0 } else { 0.0 };
            assert!(x.iter().all(|v| (low..=1.0).contains(v)), "{dtype}");
            let mean = x.iter().sum::<f64>() / 1000.0;
            assert!(
                (mean - f64::midpoint(low, 1.0)).abs() < 0.1,
                "{dtype} {mean}"
            );
        }
    }
}
