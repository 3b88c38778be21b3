//! Results and sizes as a person reads them.

use std::cmp::Ordering;
use std::time::Duration;

use svod_runtime::bundle::{for_each_number, to_f64};
use svod_runtime::signature::Number;
use svod_runtime::{DType, Error, View};

/// How many of an output's first values are shown.
const FIRST: usize = 8;

/// How many of the best scores are shown.
const BEST: usize = 3;

/// More scores than this in a row are rather something else.
const MAX_SCORES: usize = 100_000;

/// An output in numbers.
pub(crate) struct Summary {
    /// The smallest and the largest, where there are numbers.
    pub(crate) range: Option<(Number, Number)>,
    pub(crate) nans: usize,
    pub(crate) first: Vec<Number>,
    /// The highest of a row of scores, with their places.
    pub(crate) best: Vec<(usize, f64)>,
}

impl Summary {
    pub(crate) fn new(shape: &[usize], elements: View<'_>) -> Result<Summary, Error> {
        let mut summary = Summary {
            range: None,
            nans: 0,
            first: Vec::new(),
            best: Vec::new(),
        };
        for_each_number(elements, |v| {
            if summary.first.len() < FIRST {
                summary.first.push(v);
            }
            summary.range = match summary.range {
                _ if is_nan(v) => {
                    summary.nans += 1;
                    summary.range
                }
                None => Some((v, v)),
                Some((min, max)) => Some((
                    if is_less(v, min) { v } else { min },
                    if is_less(max, v) { v } else { max },
                )),
            };
        })?;
        if is_score_row(shape, elements.dtype()) {
            let ranked = to_f64(elements)?.into_iter().enumerate();
            let mut ranked: Vec<_> = ranked.filter(|(_, v)| !v.is_nan()).collect();
            // Equal ones, as 0 and -0 are, stay in their order.
            ranked.sort_by(|(_, a), (_, b)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
            ranked.truncate(BEST);
            summary.best = ranked;
        }
        Ok(summary)
    }

    /// `min … max`, and how many are no numbers.
    pub(crate) fn range(&self) -> String {
        let mut text = match self.range {
            Some((min, max)) => format!("{} … {}", exact(min), exact(max)),
            None => "no numbers".to_owned(),
        };
        if self.nans > 0 {
            text += &format!(", {} NaN", self.nans);
        }
        text
    }

    pub(crate) fn first(&self, of: usize) -> String {
        let mut words: Vec<_> = self.first.iter().map(|v| exact(*v)).collect();
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
                Some(label) => format!("{} {}", plain(label), number(*score)),
                None => format!("[{i}] {}", number(*score)),
            })
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

fn is_nan(v: Number) -> bool {
    matches!(v, Number::Float(v) if v.is_nan())
}

/// Of two numbers of one type.
fn is_less(a: Number, b: Number) -> bool {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => a < b,
        (Number::Float(a), Number::Float(b)) => a < b,
        _ => false,
    }
}

/// An integer in full, another number in the digits that count.
fn exact(v: Number) -> String {
    match v {
        Number::Int(v) => v.to_string(),
        Number::Float(v) => number(v),
    }
}

/// What a bundle says, fit for a terminal: control characters, and those that turn
/// the direction of the text, show as what they are.
pub(crate) fn plain(text: &str) -> String {
    let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escape = |c: char| -> String {
        if c.is_control() || turns(c) {
            c.escape_default().collect()
        } else {
            c.into()
        }
    };
    text.chars().map(escape).collect()
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
    } else if seconds >= 1e-6 {
        format!("{:.1} µs", seconds * 1e6)
    } else {
        format!("{:.0} ns", seconds * 1e9)
    }
}

/// `1 kernel`, `2 kernels`, `3 launches`, `4 copies`
pub(crate) fn count(n: usize, what: &str) -> String {
    match what.strip_suffix('y') {
        _ if n == 1 => format!("{n} {what}"),
        Some(stem) => format!("{n} {stem}ies"),
        None if what.ends_with("ch") => format!("{n} {what}es"),
        None => format!("{n} {what}s"),
    }
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
    fn integers_are_shown_in_full() {
        let values = [(1_i64 << 53) + 1, -1];
        let summary = Summary::new(&[2], View::from_slice(&values)).unwrap();
        assert_eq!(summary.range(), "-1 … 9007199254740993");
    }

    #[test]
    fn control_characters_do_nothing() {
        assert_eq!(plain("a\u{1b}]0;b\u{7}c\n"), "a\\u{1b}]0;b\\u{7}c\\n");
        assert_eq!(plain("é → 7"), "é → 7");
    }

    #[test]
    fn nan_takes_no_part_in_the_range() {
        let values = [f32::NAN, 1.0, -2.0];
        let summary = Summary::new(&[3], View::from_slice(&values)).unwrap();
        assert_eq!(summary.range(), "-2.0000 … 1.0000, 1 NaN");
        assert_eq!(summary.best(&[]).unwrap(), "[1] 1.0000, [2] -2.0000");
    }
}
