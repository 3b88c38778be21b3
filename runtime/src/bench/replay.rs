//! A plan's run as a candidate.

use super::Candidate;
use crate::Error;
use crate::bundle::Bundle;
use crate::memory::View;
use crate::plan::{Executable, Instance, Plan, Run, Trace};
use crate::pool::Pool;

/// An instance that takes part in a race. Each sample starts from the initial states;
/// of several runs in a sample, each finds the states that the one before has left.
#[derive(Debug)]
pub struct Replay<'a> {
    plan: &'a Plan,
    instance: Instance,
    /// In the plan's order.
    variables: Vec<i64>,
}

impl<'a> Replay<'a> {
    /// A new instance whose inputs are zeros, with each variable at its minimum.
    ///
    /// # Errors
    ///
    /// As [`Executable::instance`].
    pub fn new(executable: &'a Executable) -> Result<Replay<'a>, Error> {
        let mut instance = executable.instance()?;
        for input in executable.plan().inputs() {
            // What is given of it are the zeros with which it was born.
            instance.input(input.name.as_deref().unwrap_or_default())?;
        }
        let variables = executable.plan().variables();
        Ok(Replay {
            plan: executable.plan(),
            instance,
            variables: variables.iter().map(|v| v.min).collect(),
        })
    }

    /// The instance, as its last run left it.
    #[must_use]
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The variables and what was chosen for them, in the plan's order.
    pub fn variables(&self) -> impl Iterator<Item = (&'a str, i64)> {
        let variables = self.plan.variables().iter().zip(&self.variables);
        variables.map(|(variable, value)| (variable.name.as_str(), *value))
    }

    /// Gives it the inputs and variables of a recorded run, of a bundle whose executable
    /// it is an instance of. What the run leaves out is given as by those before.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where there is no such test; whatever reading its files may
    /// return.
    pub fn set_test(&mut self, bundle: &Bundle, test: usize) -> Result<(), Error> {
        let tests = bundle.tests();
        let Some(tests) = tests.get(..=test) else {
            return Err(Error::run(format!(
                "there is no recorded test {test}; there are {}, counted from 0",
                tests.len()
            )));
        };
        for test in tests {
            test.give(&mut self.instance)?;
            for (name, value) in &test.variables {
                self.set_variable(name, *value)?;
            }
        }
        Ok(())
    }

    /// Copies an input's elements from the caller.
    ///
    /// # Errors
    ///
    /// As [`Instance::set_input`].
    pub fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        self.instance.set_input(name, elements)
    }

    /// Runs until the executable has learned its schedule, but no more than `most` runs, each
    /// from the initial states; says whether nothing is left to learn.
    ///
    /// # Errors
    ///
    /// As [`run`](Candidate::run).
    pub fn learn(&mut self, most: usize) -> Result<bool, Error> {
        for _ in 0..most {
            if !self.instance.executable().is_learning() {
                break;
            }
            self.prepare()?;
            self.run()?;
        }
        Ok(!self.instance.executable().is_learning())
    }

    /// Runs once from the initial states, and has the trace say what ran when.
    ///
    /// # Errors
    ///
    /// As [`run`](Candidate::run).
    pub fn trace(&mut self, trace: &mut Trace) -> Result<(), Error> {
        self.prepare()?;
        self.trace_on(trace)
    }

    /// As [`trace`](Self::trace), from the states that the last run left.
    ///
    /// # Errors
    ///
    /// As [`run`](Candidate::run).
    pub fn trace_on(&mut self, trace: &mut Trace) -> Result<(), Error> {
        self.instance.run_with(Run {
            variables: &self.variables,
            trace: Some(trace),
            ..Run::default()
        })
    }

    /// Chooses a variable.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where there is no such variable, [`Error::Run`] where it does
    /// not take the value.
    pub fn set_variable(&mut self, name: &str, value: i64) -> Result<(), Error> {
        let i = self.plan.find_variable(name)?;
        self.plan.check_variable(i, value)?;
        self.variables[i] = value;
        Ok(())
    }
}

impl Candidate for Replay<'_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.instance.reset();
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        self.instance.run_with(Run {
            variables: &self.variables,
            ..Run::default()
        })
    }

    fn pool(&self) -> Option<&Pool> {
        Some(self.instance.executable().pool())
    }
}
