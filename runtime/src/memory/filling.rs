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
    use super::*;
    use crate::bundle::to_f64;
    use crate::memory::Buffer;

    #[test]
    fn each_type_is_filled_with_values_of_its_own() {
        for dtype in DType::ALL {
            let filled = |filling: Filling| {
                let mut buffer = Buffer::zeroed(dtype, 5).unwrap();
                buffer.fill(filling.elements(Some(dtype)));
                to_f64(buffer.as_view()).unwrap()
            };
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
            let mut buffer = Buffer::zeroed(dtype, 3).unwrap();
            buffer.fill(Filling::Hundreds.elements(None));
            let values = to_f64(buffer.as_view()).unwrap();
            assert!(values.iter().all(|v| (2.0..33.0).contains(v)), "{values:?}");
        }
    }
}
