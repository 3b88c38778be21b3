//! Results and sizes as a person reads them.

use std::time::Duration;

use svod_runtime::bundle::to_f64;
use svod_runtime::{DType, Error, View};

/// How many of an output's first values are shown.
const FIRST: usize = 8;

/// How many of the best scores are shown.
const BEST: usize = 3;

/// More scores than this in a row are rather something else.
const MAX_SCORES: usize = 100_000;

/// An output in numbers.
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) nans: usize,
    pub(crate) first: Vec<f64>,
    /// The highest of a row of scores, with their places.
    pub(crate) best: Vec<(usize, f64)>,
    integers: bool,
}

impl Summary {
    pub(crate) fn new(shape: &[usize], elements: View<'_>) -> Result<Summary, Error> {
        let values = to_f64(elements)?;
        let numbers = || values.iter().copied().filter(|v| !v.is_nan());
        let mut best = Vec::new();
        if is_score_row(shape, elements.dtype()) {
            best = values.iter().copied().enumerate().collect();
            best.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            best.truncate(BEST);
        }
        Ok(Summary {
            min: numbers().fold(f64::INFINITY, f64::min),
            max: numbers().fold(f64::NEG_INFINITY, f64::max),
            nans: values.iter().filter(|v| v.is_nan()).count(),
            first: values.iter().copied().take(FIRST).collect(),
            best,
            integers: !elements.dtype().is_float(),
        })
    }

    /// `min … max`, and how many are no numbers.
    pub(crate) fn range(&self) -> String {
        let mut text = if self.min <= self.max {
            format!("{} … {}", self.number(self.min), self.number(self.max))
        } else {
            "no numbers".to_owned()
        };
        if self.nans > 0 {
            text += &format!(", {} NaN", self.nans);
        }
        text
    }

    pub(crate) fn first(&self, of: usize) -> String {
        let mut words: Vec<_> = self.first.iter().map(|v| self.number(*v)).collect();
        if of > FIRST {
            words.push("…".to_owned());
        }
        words.join("  ")
    }

    /// The best few of a row of scores, by label where there is one.
    pub(crate) fn best(&self, labels: &[String]) -> Option<String> {
        let words: Vec<_> = self
            .best
            .iter()
            .map(|(i, score)| match labels.get(*i) {
                Some(label) => format!("{label} {}", number(*score)),
                None => format!("[{i}] {}", number(*score)),
            })
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    fn number(&self, v: f64) -> String {
        if self.integers {
            format!("{v}")
        } else {
            number(v)
        }
    }
}

/// One row with more than one floating-point number.
fn is_score_row(shape: &[usize], dtype: DType) -> bool {
    let Some((&last, others)) = shape.split_last() else {
        return false;
    };
    dtype.is_float() && others.iter().all(|&d| d == 1) && (2..=MAX_SCORES).contains(&last)
}

/// Four digits that count.
pub(crate) fn number(v: f64) -> String {
    let size = v.abs();
    if v == 0.0 || !v.is_finite() {
        format!("{v}")
    } else if !(1e-3..1e6).contains(&size) {
        format!("{v:.3e}")
    } else if size >= 100.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.4}")
    }
}

/// `[1, 8, 8]`
pub(crate) fn shape(shape: &[usize]) -> String {
    let words: Vec<_> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", words.join(", "))
}

#[allow(clippy::cast_precision_loss)] // three digits are shown
pub(crate) fn bytes(n: usize) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

pub(crate) fn duration(d: Duration) -> String {
    let seconds = d.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 1e-3 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} µs", seconds * 1e6)
    }
}

/// `1 kernel`, `2 kernels`
pub(crate) fn count(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_what_counts() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.98765), "0.9877");
        assert_eq!(number(1234.56), "1234.6");
        assert_eq!(number(1.5e-7), "1.500e-7");
        assert_eq!(number(f64::NAN), "NaN");
    }

    #[test]
    fn the_best_of_a_row_are_named() {
        let row = [0.1_f32, 0.7, 0.2];
        let labels = ["a".to_owned(), "b".to_owned()];
        let summary = Summary::new(&[1, 3], View::from_slice(&row)).unwrap();
        let best = summary.best(&labels).unwrap();
        assert_eq!(best, "b 0.7000, [2] 0.2000, a 0.1000");
        let rows = Summary::new(&[3, 1], View::from_slice(&row)).unwrap();
        assert_eq!(rows.best(&labels), None);
    }

    #[test]
    fn nan_takes_no_part_in_the_range() {
        let values = [f32::NAN, 1.0, -2.0];
        let summary = Summary::new(&[3], View::from_slice(&values)).unwrap();
        assert_eq!(summary.range(), "-2.0000 … 1.0000, 1 NaN");
    }
}
