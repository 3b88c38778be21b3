//! What memory holds that nobody has written yet.

use crate::signature::{DType, Number, Scalar};

/// What memory is filled with to find out whether a result depends on it: the
/// scratch of a run before its first write, and the slack beside a guarded buffer.
///
/// One run with each filling gives the same results, unless something that was
/// never written was read and mattered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filling {
    /// All bits set: NaN, -1, the largest unsigned integer; of type `bool`, 1.
    Ones,
    /// 100, a number like any other; of type `bool`, 0. Untyped memory has bytes
    /// that make a number between 2 and 33 in each floating-point type.
    Hundreds,
}

impl Filling {
    /// The two fillings.
    pub const BOTH: [Filling; 2] = [Filling::Ones, Filling::Hundreds];

    /// Eight bytes of elements, to be repeated from the first element on. A kernel
    /// may assume that a `bool` is 0 or 1, and so it is.
    pub(crate) fn elements(self, dtype: Option<DType>) -> [u8; 8] {
        const UNTYPED: u8 = 0x40;
        let number = match (self, dtype) {
            (Filling::Ones, Some(DType::Bool)) => 1,
            (Filling::Ones, _) => return [0xff; 8],
            (Filling::Hundreds, None) => return [UNTYPED; 8],
            (Filling::Hundreds, Some(DType::Bool)) => 0,
            (Filling::Hundreds, Some(_)) => 100,
        };
        let dtype = dtype.unwrap_or(DType::U8);
        // Each of these numbers is a value of its type.
        let scalar = Scalar::from_number(dtype, Number::Int(number));
        let slot = scalar.map_or(0, Scalar::to_slot).to_le_bytes();
        std::array::from_fn(|i| slot[i % dtype.size()])
    }

    /// As [`elements`](Self::elements), for the slack of such a buffer, where no
    /// kernel has anything to assume: of the two fillings one at least shows any
    /// value that is written over it.
    pub(crate) fn slack(self, dtype: Option<DType>) -> [u8; 8] {
        match self {
            Filling::Ones => [0xff; 8],
            Filling::Hundreds => self.elements(dtype),
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::memory::Buffer;

    /// The elements of a filled buffer, as numbers.
    fn filled(dtype: DType, elements: [u8; 8]) -> Vec<f64> {
        let mut buffer = Buffer::zeroed(dtype, 5).unwrap();
        buffer.fill(elements);
        let number = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let bits = u64::from_le_bytes(word);
            match dtype {
                DType::F16 => f16::from_bits(bits as u16).to_f64(),
                DType::BF16 => bf16::from_bits(bits as u16).to_f64(),
                DType::F32 => f32::from_bits(bits as u32).into(),
                DType::F64 => f64::from_bits(bits),
                _ if dtype.integer_range().is_some_and(|(min, _)| min < 0) => {
                    let unused = 64 - 8 * dtype.size();
                    ((bits << unused).cast_signed() >> unused) as f64
                }
                _ => bits as f64,
            }
        };
        let view = buffer.as_view();
        view.as_bytes().chunks(dtype.size()).map(number).collect()
    }

    #[test]
    fn each_type_is_filled_with_values_of_its_own() {
        for dtype in DType::ALL {
            let filled = |filling: Filling| filled(dtype, filling.elements(Some(dtype)));
            let (ones, hundreds) = match dtype.integer_range() {
                Some((0, 1)) => (1.0, 0.0),
                Some((0, max)) => (max as f64, 100.0),
                Some(_) => (-1.0, 100.0),
                None => (f64::NAN, 100.0),
            };
            let same = |got: Vec<f64>, expected: f64| {
                let same = |v: &f64| *v == expected || (v.is_nan() && expected.is_nan());
                assert!(got.iter().all(same), "{dtype}: {got:?}");
            };
            same(filled(Filling::Ones), ones);
            same(filled(Filling::Hundreds), hundreds);
        }
    }

    #[test]
    fn untyped_memory_holds_ordinary_numbers_of_each_floating_point_type() {
        for dtype in DType::ALL.into_iter().filter(|d| d.is_float()) {
            let values = filled(dtype, Filling::Hundreds.elements(None));
            assert!(values.iter().all(|v| (2.0..33.0).contains(v)), "{values:?}");
        }
    }
}
