//! Which op does not compute the same with other code: how a miscompiled kernel is found.
//!
//! Two executables of one plan, compiled by two compilers, at two levels, or for two CPUs,
//! should give the same results. Where they do not, whole runs say little: one wrong number
//! early on makes all that follows wrong. A [`Diff`] goes through the plan op by op and has
//! both sides begin [from the same bytes](Pair): all that the op reads, and all that it
//! overwrites. What it writes is compared, and the run goes on with the left results. So a
//! wrong op is named, and those that only receive what it got wrong are not. No more is kept
//! than one op writes.
//!
//! In addition each side makes a run of its own, as a program would, and the outputs of these
//! are compared: for what only shows when ops follow each other, such as a kernel that writes
//! where it may not, and for sides that differ in the number of threads.
//!
//! # What is the same
//!
//! [`Closeness`] says which numbers count as the same. Integers and `bool` have to be equal.
//! Floating-point numbers have room, by their type, since compilers may contract `a * b + c`
//! into one rounding, compute functions of constants themselves, and, where flags let them,
//! sum in another order. An op is compared from equal inputs, so that room has to be left for
//! the roundings of one op, and not for those of a model:
//!
//! | type | `rtol` | `atol` |
//! | --- | --- | --- |
//! | `f64` | 1e-9 | 1e-12 |
//! | `f32` | 1e-4 | 1e-5 |
//! | `f16` | 1e-2 | 1e-3 |
//! | `bf16` | 5e-2 | 1e-2 |
//!
//! Some ten roundings of a half, and a thousand of an `f32`, in one direction; a sum of `n`
//! numbers in another order is off by about the root of `n`. `atol` is for sums whose terms,
//! numbers around 1, cancel. What is wrong is most often off by more than that: an element
//! that was left out, or taken twice. To look for less, bit for bit, there is
//! [`Closeness::EXACT`].
//!
//! # Threads
//!
//! Where an executable's pool has more than one thread, its side has each launch cut in parts
//! that these threads share, more of them than there are threads; and its own run has a
//! schedule in which every op of a wave may run beside the others
//! ([`Schedule::waves`]), not one that is learned, which may be that of one thread. Results
//! are to be the same on any number of threads, bit for bit.
//!
//! ```
//! # use svod_runtime::diff::{Closeness, Diff, Event};
//! # use svod_runtime::plan::{Executable, PlanBuilder};
//! # use svod_runtime::{DType, Runtime, Signature, Source};
//! # let runtime = Runtime::new()?;
//! # let executable = |text: &str| {
//! #     let mut plan = PlanBuilder::new("scale");
//! #     let x = plan.input("x", DType::F32, &[4])?;
//! #     let y = plan.output("y", DType::F32, &[4])?;
//! #     let signature = Signature::builder().write(DType::F32, 4).read(DType::F32, 4).build()?;
//! #     let kernel = plan.kernel("scale", signature.clone());
//! #     plan.launch(kernel, &[y, x], &[], 1)?;
//! #     let scale = unsafe { runtime.load(&Source::c("scale", text), signature)? };
//! #     Executable::new(plan.build()?, vec![scale], [])
//! # };
//! # let left = executable(
//! #     "void scale(float *y, const float *x) { for (int i = 0; i < 4; i++) y[i] = 2 * x[i]; }",
//! # )?;
//! # let right = executable(
//! #     "void scale(float *y, const float *x) { for (int i = 0; i < 3; i++) y[i] = 2 * x[i]; }",
//! # )?;
//! let mut diff = Diff::new(&left, &right, Closeness::default())?;
//! diff.give_arbitrary()?;
//! let report = diff.run(&[], &mut |_| ())?;
//! let wrong = report.first.expect("the right one leaves out an element");
//! assert_eq!((wrong.op, wrong.difference().map(|d| d.first.index)), (0, Some(3)));
//! # Ok::<(), svod_runtime::Error>(())
//! ```

pub(crate) mod inputs;
mod report;

pub use report::{
    Closeness, Element, OpDifference, OpReport, OutputDifference, RunReport, Verdict,
};

use crate::Error;
use crate::bundle::{Test, Tolerance, compare, npy};
use crate::memory::View;
use crate::plan::{Executable, Instance, Pair, PairEvent, Plan, Schedule, Side, parts_for};

/// Two executables that are compared, run by run. States go on from run to run.
#[derive(Debug)]
pub struct Diff {
    /// None, and why, where the plans are not alike.
    pair: Result<Pair, Error>,
    left: Instance,
    right: Instance,
    closeness: Closeness,
}

/// What a [`Diff`] tells of while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// An op is about to be run by the code of this side.
    Op {
        /// The op.
        op: usize,
        /// The side.
        side: Side,
    },
    /// An op was run by both sides, and compared.
    Compared(&'a OpReport),
    /// A side is about to make a run of its own.
    Run {
        /// The side.
        side: Side,
    },
}

impl Diff {
    /// Two executables, each with initial states. If their plans are not
    /// [alike](Plan::check_alike), they cannot be compared [op by op](Self::unlike), but by
    /// their outputs.
    ///
    /// It takes the memory of two instances of `left` and one of `right`.
    ///
    /// # Errors
    ///
    /// As [`Executable::instance`].
    pub fn new(left: &Executable, right: &Executable, closeness: Closeness) -> Result<Diff, Error> {
        let pair = match left.plan().check_alike(right.plan()) {
            Ok(()) => Ok(Pair::new(left, right)?),
            Err(unlike) => Err(unlike),
        };
        Ok(Diff {
            pair,
            left: own(left)?,
            right: own(right)?,
            closeness,
        })
    }

    /// Why the two cannot be compared op by op, if they cannot.
    #[must_use]
    pub const fn unlike(&self) -> Option<&Error> {
        match &self.pair {
            Ok(_) => None,
            Err(unlike) => Some(unlike),
        }
    }

    /// The constants, and the states at the start, that do not hold the same on both sides, by
    /// the number of the buffer; none where the plans are not alike. Op by op, both sides have
    /// those of the left one; in a run of its own, each has its own.
    #[must_use]
    pub fn unlike_contents(&self) -> Vec<usize> {
        if self.pair.is_err() {
            return Vec::new();
        }
        let [left, right] = [&self.left, &self.right].map(|side| side.executable().contents());
        let unlike = |i: &usize| match (&left[*i], &right[*i]) {
            (Some(a), Some(b)) => a.as_bytes() != b.as_bytes(),
            (a, b) => a.is_some() != b.is_some(),
        };
        (0..left.len()).filter(unlike).collect()
    }

    /// The plan of the left side.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.left.executable().plan()
    }

    /// Gives both sides an input.
    ///
    /// # Errors
    ///
    /// As [`Instance::set_input`], also where the right side has no such input.
    pub fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        if let Ok(pair) = &mut self.pair {
            pair.set_input(name, elements)?;
        }
        self.left.set_input(name, elements)?;
        self.right.set_input(name, elements)
    }

    /// Gives both sides the inputs of a recorded run.
    ///
    /// # Errors
    ///
    /// As [`npy::read`] and [`set_input`](Self::set_input).
    pub fn give(&mut self, test: &Test) -> Result<(), Error> {
        for (name, path) in &test.inputs {
            self.set_input(name, npy::read(path)?.elements.as_view())?;
        }
        Ok(())
    }

    /// Gives both sides inputs that look random and are the same each time, for whoever has
    /// none: floating-point numbers from -1 to 1, and 0 or 1 for integers, which often count
    /// something that there are not many of.
    ///
    /// # Errors
    ///
    /// As [`set_input`](Self::set_input), and [`Error::OutOfMemory`].
    pub fn give_arbitrary(&mut self) -> Result<(), Error> {
        let inputs = self.plan().inputs();
        let made = inputs.filter_map(|input| Some((input.name.clone()?, inputs::arbitrary(input))));
        let made: Vec<_> = made.collect();
        for (name, elements) in made {
            self.set_input(&name, elements?.as_view())?;
        }
        Ok(())
    }

    /// Makes a recorded run on both sides, with its inputs and variables, and compares; also
    /// with what was recorded. The outputs of the sides' own runs may differ by the test's
    /// tolerance where that is more, unless the [`Closeness`] was stated.
    ///
    /// # Errors
    ///
    /// As [`give`](Self::give), [`run`](Self::run) and [`npy::read`].
    pub fn run_test(
        &mut self,
        test: &Test,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<RunReport, Error> {
        self.give(test)?;
        let variables = test.variables.iter().map(|(n, v)| (n.as_str(), *v));
        let variables: Vec<_> = variables.collect();
        let mut report = self.run_within(&variables, test.tolerance, tell)?;
        for (name, path) in &test.outputs {
            let found = report.outputs.iter_mut().find(|o| o.name == *name);
            if let Some(output) = found.filter(|output| output.difference.is_some()) {
                let recorded = npy::read(path)?;
                let recorded = recorded.elements.as_view();
                let is_it = |side: &Instance| {
                    let compared = compare(side.output(name)?, recorded, test.tolerance);
                    compared.map(|d| d.is_within())
                };
                output.recorded = Some([is_it(&self.left)?, is_it(&self.right)?]);
            }
        }
        Ok(report)
    }

    /// Makes a run on both sides, with the inputs that they were given: op by op, each op from
    /// the same bytes, and then one of each side's own.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] and [`Error::UnknownName`] where variables or inputs are not the plans'.
    /// What fails on one side alone is told by the report; what fails on both is the left
    /// error. Of guarded executables, what is written beside a buffer is [`Error::Overrun`], whichever
    /// side did it.
    pub fn run(
        &mut self,
        variables: &[(&str, i64)],
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<RunReport, Error> {
        self.run_within(variables, Tolerance::default(), tell)
    }

    fn run_within(
        &mut self,
        variables: &[(&str, i64)],
        at_least: Tolerance,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<RunReport, Error> {
        // What is not given is found before anything runs.
        self.left.executable().plan().check_variables(variables)?;
        self.right.executable().plan().check_variables(variables)?;
        let mut report = RunReport::default();
        if let Ok(pair) = &mut self.pair {
            let plan = self.left.executable().plan();
            op_by_op(pair, plan, &self.closeness, variables, &mut report, tell)?;
        }
        let failed = [Side::Left, Side::Right].map(|side| {
            tell(Event::Run { side });
            let instance = match side {
                Side::Left => &mut self.left,
                Side::Right => &mut self.right,
            };
            instance.run(variables).err()
        });
        match failed {
            [None, None] => report.outputs = self.outputs(at_least)?,
            [Some(left), Some(_)] => return Err(left),
            failed => report.failed = failed.map(|error| error.map(|e| e.to_string())),
        }
        Ok(report)
    }

    /// How the outputs of the sides' own runs differ.
    fn outputs(&self, at_least: Tolerance) -> Result<Vec<OutputDifference>, Error> {
        let [left, right] = [&self.left, &self.right].map(|side| side.executable().plan());
        let mut outputs = Vec::new();
        for output in left.outputs() {
            let tolerance = self.closeness.of_run(output.dtype, at_least);
            let other = right.outputs().iter().find(|o| o.name == output.name);
            let other = other.filter(|o| (o.dtype, &o.shape) == (output.dtype, &output.shape));
            let mut report = OutputDifference::of(output, tolerance);
            if other.is_some() {
                let views = [&self.left, &self.right].map(|side| side.output(&output.name));
                let [left, right] = views;
                report.compare(left?, right?, &self.closeness)?;
            }
            outputs.push(report);
        }
        let known = |name: &str| left.outputs().iter().any(|o| o.name == name);
        let others = right.outputs().iter().filter(|o| !known(&o.name));
        let others = others.map(|o| OutputDifference::of(o, Tolerance::default()));
        outputs.extend(others);
        Ok(outputs)
    }
}

/// An instance for runs of a side's own.
fn own(executable: &Executable) -> Result<Instance, Error> {
    let threads = executable.pool().threads();
    if threads == 1 {
        return executable.instance();
    }
    let schedule = Schedule::waves(executable.plan(), parts_for(threads));
    executable.clone().with_schedule(&schedule)?.instance()
}

/// Runs both sides op by op, and adds to the report how they differ.
fn op_by_op(
    pair: &mut Pair,
    plan: &Plan,
    closeness: &Closeness,
    variables: &[(&str, i64)],
    report: &mut RunReport,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<(), Error> {
    let result = pair.run(variables, &mut |event| {
        match event {
            PairEvent::Begins { op, side } => tell(Event::Op { op, side }),
            // The error that the run ends with says it.
            PairEvent::Ran(ran) if ran.failed.iter().all(Option::is_some) => {}
            PairEvent::Ran(ran) => {
                let op = OpReport::of(plan, &ran, closeness)?;
                tell(Event::Compared(&op));
                report.add(op);
            }
        }
        Ok(())
    });
    match result {
        // That the left side fails alone is what was looked for.
        Err(_) if report.stopped.is_some() => Ok(()),
        result => result,
    }
}
