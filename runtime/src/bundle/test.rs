//! Recorded runs: what was given, and what came out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::npy::{self, Array};
use super::{Bundle, Difference, Tolerance, compare, for_each_number, to_f64};
use crate::Error;
use crate::memory::{Filling, View};
use crate::plan::{Instance, Run, Timings};
use crate::signature::Number;

/// A recorded run.
#[derive(Clone, Debug)]
pub struct Test {
    /// The run's variables.
    pub variables: Vec<(String, i64)>,
    /// The inputs' names and array files.
    pub inputs: Vec<(String, PathBuf)>,
    /// The outputs' names and array files.
    pub outputs: Vec<(String, PathBuf)>,
    /// How far results may be from what was recorded.
    pub tolerance: Tolerance,
    /// For a classifier, an array file with the true class of each picture.
    pub truth: Option<PathBuf>,
}

/// What came of a recorded run.
#[derive(Clone, Debug)]
pub struct TestReport {
    /// The run itself, without reading files and comparing.
    pub time: Duration,
    /// Each recorded output, and how the run's differs.
    pub outputs: Vec<OutputReport>,
    /// For a classifier with known truth, what it answered.
    pub classified: Option<Classified>,
    /// The plan's outputs that depend on what memory held before, and how; empty
    /// where that was not tried.
    pub unsteady: Vec<OutputReport>,
}

/// One output of a recorded run.
#[derive(Clone, Debug)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// How the run's differs from the recorded one.
    pub difference: Difference,
}

/// What a classifier answered, and what was true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// For each picture, the class with the highest score.
    pub answers: Vec<usize>,
    /// For each picture, its class.
    pub truth: Vec<usize>,
}

impl Classified {
    /// How many answers are right.
    #[must_use]
    pub fn correct(&self) -> usize {
        let pairs = self.answers.iter().zip(&self.truth);
        pairs.filter(|(answer, truth)| answer == truth).count()
    }
}

impl TestReport {
    /// Whether all outputs lie within the tolerance.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.outputs.iter().all(|o| o.difference.is_within())
    }

    /// Whether no output was found to depend on what memory held before.
    #[must_use]
    pub const fn is_steady(&self) -> bool {
        self.unsteady.is_empty()
    }

    /// Whether all outputs are the same in every bit.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.outputs.iter().all(|o| o.difference.is_exact())
    }
}

/// What runs a bundle's plan: an [`Instance`], or one [in a sandbox](crate::sandbox::ConfinedPlan).
pub trait Runner {
    /// Copies an input's elements from the caller.
    ///
    /// # Errors
    ///
    /// As [`Instance::set_input`].
    fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error>;

    /// Runs the plan once, with values for its variables in its own order, and says how long that
    /// took.
    ///
    /// # Errors
    ///
    /// As [`Instance::run_with`], and [`Error::Sandboxed`].
    fn run_once(&mut self, variables: &[i64]) -> Result<Duration, Error>;

    /// The elements of an output, as the last run left them.
    ///
    /// # Errors
    ///
    /// As [`Instance::output`].
    fn output(&self, name: &str) -> Result<View<'_>, Error>;

    /// Puts every state back to what it was at the start.
    ///
    /// # Errors
    ///
    /// [`Error::Confinement`] where that is in a sandbox that cannot.
    fn reset(&mut self) -> Result<(), Error>;
}

impl Runner for Instance {
    fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        Instance::set_input(self, name, elements)
    }

    fn run_once(&mut self, variables: &[i64]) -> Result<Duration, Error> {
        let start = Instant::now();
        self.run_with(Run {
            variables,
            ..Run::default()
        })?;
        Ok(start.elapsed())
    }

    fn output(&self, name: &str) -> Result<View<'_>, Error> {
        Instance::output(self, name)
    }

    fn reset(&mut self) -> Result<(), Error> {
        Instance::reset(self);
        Ok(())
    }
}

/// A runner that has each op's time added.
struct Timed<'a>(&'a mut Instance, &'a mut Timings);

impl Runner for Timed<'_> {
    fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        self.0.set_input(name, elements)
    }

    fn run_once(&mut self, variables: &[i64]) -> Result<Duration, Error> {
        let start = Instant::now();
        self.0.run_with(Run {
            variables,
            timings: Some(self.1),
            ..Run::default()
        })?;
        Ok(start.elapsed())
    }

    fn output(&self, name: &str) -> Result<View<'_>, Error> {
        self.0.output(name)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.0.reset();
        Ok(())
    }
}

impl Test {
    /// Reads the inputs and gives them.
    ///
    /// # Errors
    ///
    /// As [`npy::read`] and [`Runner::set_input`].
    pub fn give(&self, runner: &mut (impl Runner + ?Sized)) -> Result<(), Error> {
        for (name, path) in &self.inputs {
            let array = npy::read(path)?;
            runner.set_input(name, array.elements.as_view())?;
        }
        Ok(())
    }
}

impl Bundle {
    /// Runs a recorded run on an instance of this bundle's executable, or in a sandbox, and
    /// compares what comes out. Recorded runs belong together: they are run in
    /// order, on one instance, since a state carries over.
    ///
    /// # Errors
    ///
    /// What reading its files and running the plan may return.
    pub fn run_test(
        &self,
        test: &Test,
        runner: &mut (impl Runner + ?Sized),
    ) -> Result<TestReport, Error> {
        test.give(runner)?;
        let given = test.variables.iter().map(|(n, v)| (n.as_str(), *v));
        let variables = self.plan.variable_values(&given.collect::<Vec<_>>())?;
        let time = runner.run_once(&variables)?;
        let mut outputs = Vec::new();
        for (name, path) in &test.outputs {
            let expected = npy::read(path)?;
            let got = runner.output(name)?;
            outputs.push(OutputReport {
                name: name.clone(),
                difference: compare(got, expected.elements.as_view(), test.tolerance)?,
            });
        }
        Ok(TestReport {
            time,
            outputs,
            classified: self.classified(test, runner)?,
            unsteady: Vec::new(),
        })
    }

    /// As [`run_test`](Self::run_test), and adds what each op took to `timings`.
    ///
    /// # Errors
    ///
    /// As [`run_test`](Self::run_test).
    pub fn run_test_timed(
        &self,
        test: &Test,
        instance: &mut Instance,
        timings: &mut Timings,
    ) -> Result<TestReport, Error> {
        self.run_test(test, &mut Timed(instance, timings))
    }

    /// As [`run_test`](Self::run_test), on two instances, with
    /// [scratch](Instance::fill_scratch) that holds each of the two fillings. The
    /// report is of the first; its [`unsteady`](TestReport::unsteady) are the outputs,
    /// recorded or not, in which the second differs.
    ///
    /// # Errors
    ///
    /// As [`run_test`](Self::run_test).
    pub fn run_test_filled(
        &self,
        test: &Test,
        first: &mut Instance,
        second: &mut Instance,
    ) -> Result<TestReport, Error> {
        first.fill_scratch(Filling::Ones)?;
        let mut report = self.run_test(test, first)?;
        second.fill_scratch(Filling::Hundreds)?;
        self.run_test(test, second)?;
        for output in self.plan.outputs() {
            let (a, b) = (first.output(&output.name)?, second.output(&output.name)?);
            let difference = compare(a, b, Tolerance::default())?;
            if !difference.is_exact() {
                report.unsteady.push(OutputReport {
                    name: output.name.clone(),
                    difference,
                });
            }
        }
        Ok(report)
    }

    fn classified(
        &self,
        test: &Test,
        runner: &(impl Runner + ?Sized),
    ) -> Result<Option<Classified>, Error> {
        let (Some(path), Some(classifier)) = (&test.truth, &self.classifier) else {
            return Ok(None);
        };
        let Array { elements, .. } = npy::read(path)?;
        let answers = self.answers(runner, &classifier.scores)?;
        // What is none of the classes can be no answer.
        let mut truth = Vec::with_capacity(elements.len());
        for_each_number(elements.as_view(), |number| {
            truth.push(match number {
                Number::Int(v) => usize::try_from(v).unwrap_or(usize::MAX),
                Number::Float(_) => usize::MAX,
            });
        })?;
        if truth.len() != answers.len() {
            let reason = format!("{} classes for {} pictures", truth.len(), answers.len());
            return Err(Error::file(path, reason));
        }
        Ok(Some(Classified { answers, truth }))
    }

    /// For each row of an output with rows, where its highest score is; the first of
    /// several, and 0 where none is a number.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where the plan has no output of that name.
    pub fn answers(
        &self,
        runner: &(impl Runner + ?Sized),
        output: &str,
    ) -> Result<Vec<usize>, Error> {
        let scores = to_f64(runner.output(output)?)?;
        let shape = self.plan.outputs().iter().find(|o| o.name == output);
        let classes = shape.and_then(|o| o.shape.last().copied()).unwrap_or(1);
        Ok(scores.chunks(classes.max(1)).map(highest).collect())
    }
}

/// Where the highest number of a row is: the first of several, 0 without any.
fn highest(row: &[f64]) -> usize {
    let numbers = row.iter().copied().enumerate().filter(|(_, v)| !v.is_nan());
    let highest = numbers.reduce(|best, next| if next.1 > best.1 { next } else { best });
    highest.map_or(0, |(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::highest;

    #[test]
    fn the_first_of_equal_scores_is_the_highest_and_a_nan_is_none() {
        assert_eq!(highest(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(highest(&[-0.0, 0.0]), 0);
        assert_eq!(highest(&[f64::NAN, -2.0, f64::NAN, -1.0]), 3);
        assert_eq!(highest(&[f64::NAN, f64::NEG_INFINITY]), 1);
        assert_eq!(highest(&[f64::NAN]), 0);
    }
}
