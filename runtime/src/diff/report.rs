//! What came of a comparison.

use crate::Error;
use crate::bundle::{Difference, Tolerance, compare, for_each_number};
use crate::memory::View;
use crate::plan::{BufferRange, Op, Plan, PlanOutput, RanTwice};
use crate::signature::{DType, Number};

/// Which numbers count as the same: see the [module](super).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Closeness {
    /// Bit for bit: also 0 and -0 differ, and NaNs of other bits.
    pub exact: bool,
    /// For all floating-point types, instead of what is said of each.
    pub rtol: Option<f64>,
    /// Likewise.
    pub atol: Option<f64>,
}

impl Closeness {
    /// Bit for bit.
    pub const EXACT: Closeness = Closeness {
        exact: true,
        rtol: None,
        atol: None,
    };

    /// How far two elements of a type may be from each other.
    #[must_use]
    pub fn tolerance(&self, dtype: DType) -> Tolerance {
        let (rtol, atol) = match dtype {
            _ if self.exact => return Tolerance::default(),
            DType::F64 => (1e-9, 1e-12),
            DType::F32 => (1e-4, 1e-5),
            DType::F16 => (1e-2, 1e-3),
            DType::BF16 => (5e-2, 1e-2),
            _ => return Tolerance::default(),
        };
        Tolerance {
            rtol: self.rtol.unwrap_or(rtol),
            atol: self.atol.unwrap_or(atol),
        }
    }

    /// How far two outputs of whole runs may be from each other, of which something else is
    /// known.
    pub(super) fn of_run(&self, dtype: DType, at_least: Tolerance) -> Tolerance {
        let tolerance = self.tolerance(dtype);
        match *self == Closeness::default() && dtype.is_float() {
            true => Tolerance {
                rtol: tolerance.rtol.max(at_least.rtol),
                atol: tolerance.atol.max(at_least.atol),
            },
            false => tolerance,
        }
    }

    const fn is_same(&self, difference: &Difference) -> bool {
        match self.exact {
            true => difference.is_exact(),
            false => difference.is_within(),
        }
    }
}

/// An element, as both sides have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Its number among those that were compared.
    pub index: usize,
    /// Its place in the buffer's, or the output's, shape; nothing where the buffer's elements
    /// are of another type, or none.
    pub place: Option<Vec<usize>>,
    /// What the left side has.
    pub left: Number,
    /// What the right side has.
    pub right: Number,
}

/// How what an op has written differs, by more than it may.
#[derive(Clone, Debug, PartialEq)]
pub struct OpDifference {
    /// The op.
    pub op: usize,
    /// The number of the kernel, of a launch.
    pub kernel: Option<usize>,
    /// Where in which buffer the elements lie that were compared.
    pub range: BufferRange,
    /// Their type.
    pub dtype: DType,
    /// How far they may be from each other.
    pub tolerance: Tolerance,
    /// The first that differs by more than it may.
    pub first: Element,
    /// One that differs the most.
    pub worst: Element,
    /// All of them.
    pub all: Difference,
}

/// What came of an op.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Both sides have written the same, bit for bit.
    Same,
    /// Both have written the same within what counts as the same.
    Within,
    /// They differ.
    Differs(Box<OpDifference>),
    /// One of them failed, with this error: the left, or the right one.
    Failed([Option<String>; 2]),
}

/// An op, run on both sides from the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct OpReport {
    /// The op.
    pub op: usize,
    /// What came of it.
    pub verdict: Verdict,
    /// How many elements it may write, all of which were compared.
    pub elements: usize,
    /// The largest distance between two of them, as [`Difference::max_abs`] counts it.
    pub max_abs: f64,
    /// The largest distance over the magnitude, as [`Difference::max_rel`] counts it.
    pub max_rel: f64,
    /// How many of them differ in any bit.
    pub other_bits: usize,
}

impl OpReport {
    pub(super) fn of(
        plan: &Plan,
        ran: &RanTwice<'_>,
        closeness: &Closeness,
    ) -> Result<Self, Error> {
        let mut report = OpReport {
            op: ran.op,
            verdict: Verdict::Same,
            elements: 0,
            max_abs: 0.0,
            max_rel: 0.0,
            other_bits: 0,
        };
        if ran.failed.iter().any(Option::is_some) {
            let failed = ran.failed.map(|error| error.map(ToString::to_string));
            report.verdict = Verdict::Failed(failed);
            return Ok(report);
        }
        for written in &ran.written {
            let tolerance = closeness.tolerance(written.dtype);
            let all = compare(written.right, written.left, tolerance)?;
            report.elements += all.elements;
            report.max_abs = report.max_abs.max(all.max_abs);
            report.max_rel = report.max_rel.max(all.max_rel);
            report.other_bits += all.other_bits;
            if all.is_exact() || matches!(report.verdict, Verdict::Differs(_)) {
                continue;
            }
            if closeness.is_same(&all) {
                report.verdict = Verdict::Within;
                continue;
            }
            let place = |index| place(plan, &written.range, written.dtype, index);
            let [first, worst] = elements(&all, written.left, written.right, &place)?;
            let kernel = match plan.ops().get(ran.op) {
                Some(Op::Launch(launch)) => Some(launch.kernel),
                _ => None,
            };
            report.verdict = Verdict::Differs(Box::new(OpDifference {
                op: ran.op,
                kernel,
                range: written.range,
                dtype: written.dtype,
                tolerance,
                first,
                worst,
                all,
            }));
        }
        Ok(report)
    }

    /// How what it has written differs, if it does.
    #[must_use]
    pub const fn difference(&self) -> Option<&OpDifference> {
        match &self.verdict {
            Verdict::Differs(difference) => Some(difference),
            _ => None,
        }
    }

    /// How it failed, on the left and on the right.
    #[must_use]
    pub const fn failed(&self) -> &[Option<String>; 2] {
        match &self.verdict {
            Verdict::Failed(failed) => failed,
            _ => &[None, None],
        }
    }

    /// Whether both sides are the same within what counts as the same.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        matches!(self.verdict, Verdict::Same | Verdict::Within)
    }
}

/// How an output of the sides' own runs differs.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputDifference {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// How far they may be from each other.
    pub tolerance: Tolerance,
    /// How they differ; `None` where one side has no output of this name, type and shape.
    pub difference: Option<Difference>,
    /// The first element that differs by more than it may, and one that differs the most.
    pub beyond: Option<Box<[Element; 2]>>,
    /// Whether the left, and the right, output is what was recorded, within the recorded run's
    /// tolerance; `None` where nothing was.
    pub recorded: Option<[bool; 2]>,
    shape: Vec<usize>,
}

impl OutputDifference {
    pub(super) fn of(output: &PlanOutput, tolerance: Tolerance) -> OutputDifference {
        OutputDifference {
            name: output.name.clone(),
            dtype: output.dtype,
            tolerance,
            difference: None,
            beyond: None,
            recorded: None,
            shape: output.shape.clone(),
        }
    }

    pub(super) fn compare(
        &mut self,
        left: View<'_>,
        right: View<'_>,
        closeness: &Closeness,
    ) -> Result<(), Error> {
        let difference = compare(right, left, self.tolerance)?;
        if !closeness.is_same(&difference) {
            let place = |index| unravel(index, &self.shape);
            let beyond = elements(&difference, left, right, &place)?;
            self.beyond = Some(Box::new(beyond));
        }
        self.difference = Some(difference);
        Ok(())
    }

    /// Whether it is the same within what counts as the same.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.difference.is_some() && self.beyond.is_none()
    }
}

/// What came of a run on both sides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunReport {
    /// How many ops were compared: none where plans are not alike, and not all where an op
    /// failed on the left.
    pub ops: usize,
    /// How many of them differ in some bit, and no more than they may.
    pub within: usize,
    /// How many differ by more, or failed on one side.
    pub differing: usize,
    /// The first of these.
    pub first: Option<OpReport>,
    /// The op that failed on the left, after which none was compared.
    pub stopped: Option<usize>,
    /// The outputs of the sides' own runs; none where one of these failed.
    pub outputs: Vec<OutputDifference>,
    /// How the left, or the right, side's own run failed.
    pub failed: [Option<String>; 2],
}

impl RunReport {
    pub(super) fn add(&mut self, op: OpReport) {
        self.ops += 1;
        self.within += usize::from(op.verdict == Verdict::Within);
        if op.failed()[0].is_some() {
            self.stopped = Some(op.op);
        }
        if !op.is_same() {
            self.differing += 1;
            self.first.get_or_insert(op);
        }
    }

    /// Whether every op, and every output, is the same within what counts as the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.differing == 0 && self.is_same_as_a_whole()
    }

    /// Whether the outputs of the sides' own runs are.
    #[must_use]
    pub fn is_same_as_a_whole(&self) -> bool {
        self.outputs.iter().all(OutputDifference::is_same) && self.failed == [None, None]
    }

    /// Whether a side failed, so that there is no next run.
    #[must_use]
    pub const fn ended(&self) -> bool {
        !matches!(self.failed, [None, None]) || self.stopped.is_some()
    }
}

/// The first element that differs by more than it may, and the worst.
fn elements(
    all: &Difference,
    left: View<'_>,
    right: View<'_>,
    place: &dyn Fn(usize) -> Option<Vec<usize>>,
) -> Result<[Element; 2], Error> {
    // Where nothing is outside, the bits are what counts.
    let first = all.first_outside.or(all.first).unwrap_or(0);
    let worst = all.worst_outside.or(all.worst).unwrap_or(first);
    let element = |index| {
        Ok(Element {
            index,
            place: place(index),
            left: number(left, index)?,
            right: number(right, index)?,
        })
    };
    Ok([element(first)?, element(worst)?])
}

fn number(view: View<'_>, index: usize) -> Result<Number, Error> {
    let mut found = Number::Int(0);
    for_each_number(view.slice(index..index + 1)?, |number| found = number)?;
    Ok(found)
}

/// Where an element of a range is in its buffer's shape.
fn place(plan: &Plan, range: &BufferRange, dtype: DType, index: usize) -> Option<Vec<usize>> {
    let buffer = &plan.buffers()[range.buffer];
    if buffer.dtype != Some(dtype) || !range.offset.is_multiple_of(dtype.size()) {
        return None;
    }
    unravel(range.offset / dtype.size() + index, &buffer.shape)
}

fn unravel(mut index: usize, shape: &[usize]) -> Option<Vec<usize>> {
    let mut place = vec![0; shape.len()];
    for (at, &size) in place.iter_mut().zip(shape).rev() {
        *at = index.checked_rem(size)?;
        index /= size;
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_a_place_in_a_shape() {
        assert_eq!(unravel(23, &[2, 3, 4]), Some(vec![1, 2, 3]));
        assert_eq!(unravel(7, &[2, 3, 4]), Some(vec![0, 1, 3]));
        assert_eq!(unravel(0, &[]), Some(vec![]));
    }

    #[test]
    fn what_is_stated_is_for_floating_point_numbers_alone() {
        let stated = Closeness {
            rtol: Some(0.5),
            ..Closeness::default()
        };
        let tolerance = stated.tolerance(DType::F32);
        assert_eq!((tolerance.rtol, tolerance.atol), (0.5, 1e-5));
        assert_eq!(stated.tolerance(DType::I32), Tolerance::default());
        let test = Tolerance {
            rtol: 0.1,
            atol: 0.1,
        };
        assert_eq!(Closeness::default().of_run(DType::F32, test), test);
        assert_eq!(
            Closeness::default().of_run(DType::U8, test),
            Tolerance::default()
        );
        assert_eq!(stated.of_run(DType::F32, test), tolerance);
        assert_eq!(
            Closeness::EXACT.of_run(DType::F32, test),
            Tolerance::default()
        );
    }
}
