//! Where numbers lie.

use serde::Serialize;

/// Where numbers lie, and how far apart: NaN in each field, if there are none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// A quarter of them lies below.
    pub lower: f64,
    /// Half of them lies below.
    pub median: f64,
    /// Three quarters of them lie below.
    pub upper: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these numbers, in any order.
    #[must_use]
    pub fn of(numbers: &[f64]) -> Spread {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread {
            min: quantile(&sorted, 0),
            lower: quantile(&sorted, 1),
            median: quantile(&sorted, 2),
            upper: quantile(&sorted, 3),
            max: quantile(&sorted, 4),
        }
    }
}

/// So many quarters of the way from the first to the last; between two numbers, in
/// proportion.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let (at, rest) = (last * quarters / 4, last * quarters % 4);
    let next = sorted[(at + 1).min(last)];
    #[allow(clippy::cast_precision_loss)] // 0 to 3
    let part = rest as f64 / 4.0;
    sorted[at] + (next - sorted[at]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_numbers_in_proportion() {
        let spread = |numbers: &[f64]| {
            let s = Spread::of(numbers);
            [s.min, s.lower, s.median, s.upper, s.max]
        };
        assert_eq!(spread(&[3.0]), [3.0; 5]);
        assert_eq!(
            spread(&[5.0, 1.0, 4.0, 2.0, 3.0]),
            [1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert_eq!(
            spread(&[40.0, 10.0, 30.0, 20.0]),
            [10.0, 17.5, 25.0, 32.5, 40.0]
        );
        // One slow round moves nothing but the maximum.
        assert_eq!(spread(&[1.0, 1.0, 1.0, 1.0, 1e9])[..4], [1.0; 4]);
        assert!(spread(&[]).iter().all(|v| v.is_nan()));
    }
}
