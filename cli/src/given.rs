//! What a user gives a run, held against what the bundle asks for.

use std::path::PathBuf;

use clap::Args;
use svod_runtime::bench::Replay;
use svod_runtime::bundle::Bundle;
use svod_runtime::bundle::npy::Array;
use svod_runtime::plan::Executable;

use crate::show;
use crate::{Failure, name_and_file, name_and_number};

/// What a run that is measured is given.
#[derive(Args)]
pub(crate) struct Given {
    /// Take inputs and variables from this recorded test; from the first, where this is
    /// left out. Without tests, inputs are zeros and variables as small as they may be
    #[arg(long, value_name = "N")]
    test: Option<usize>,
    /// Give an input as a NumPy array file, once for each input, in the place of the
    /// test's
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = name_and_file)]
    inputs: Vec<(String, PathBuf)>,
    /// Choose a variable, once for each variable, in the place of the test's choice
    #[arg(long = "var", value_name = "NAME=N", value_parser = name_and_number)]
    variables: Vec<(String, i64)>,
}

impl Given {
    /// Whether the bundle has all that is given, each of it once.
    pub(crate) fn check(&self, bundle: &Bundle) -> Result<(), Failure> {
        let path = bundle.path().display();
        let tests = bundle.tests().len();
        if let Some(test) = self.test.filter(|test| *test >= tests) {
            let tests = show::count(tests, "recorded test");
            return Err(Failure::Usage(format!(
                "{path} has {tests}, counted from 0; there is no test {test}"
            )));
        }
        let (plan, path) = (bundle.plan(), path.to_string());
        let inputs: Vec<_> = plan.inputs().filter_map(|b| b.name.as_deref()).collect();
        let given: Vec<_> = self.inputs.iter().map(|(name, _)| name.as_str()).collect();
        check_known(&path, "input", &inputs, &given)?;
        let variables: Vec<_> = plan.variables().iter().map(|v| v.name.as_str()).collect();
        let given: Vec<_> = self.variables.iter().map(|(n, _)| n.as_str()).collect();
        check_known(&path, "variable", &variables, &given)
    }

    /// The arrays of the files.
    pub(crate) fn read(&self, bundle: &Bundle) -> Result<Vec<Array>, Failure> {
        let mut arrays = Vec::new();
        for (name, file) in &self.inputs {
            arrays.push(bundle.read_input(name, file)?);
        }
        Ok(arrays)
    }

    /// The recorded test that inputs are of.
    pub(crate) fn test(&self, bundle: &Bundle) -> Option<usize> {
        self.test
            .or_else(|| (!bundle.tests().is_empty()).then_some(0))
    }

    /// An instance with what it is to be run on; `arrays` are those of the files.
    pub(crate) fn replay<'a>(
        &self,
        bundle: &Bundle,
        executable: &'a Executable,
        arrays: &[Array],
    ) -> Result<Replay<'a>, Failure> {
        let mut replay = Replay::new(executable)?;
        if let Some(test) = self.test(bundle) {
            replay.set_test(bundle, test)?;
        }
        for ((name, _), array) in self.inputs.iter().zip(arrays) {
            replay.set_input(name, array.elements.as_view())?;
        }
        for (name, value) in &self.variables {
            replay.set_variable(name, *value)?;
        }
        Ok(replay)
    }

    /// `test 0, n = 4`
    pub(crate) fn line(&self, bundle: &Bundle, replay: &Replay<'_>) -> String {
        let given = match self.test(bundle) {
            Some(test) => format!("test {test}"),
            None if bundle.plan().inputs().next().is_none() => "no inputs".into(),
            None if self.inputs.is_empty() => "inputs zero".into(),
            None => "given inputs, others zero".into(),
        };
        let variables = replay.variables();
        let variables = variables.map(|(name, value)| format!(", {} = {value}", show::plain(name)));
        given + &variables.collect::<String>()
    }
}

/// What to call the command with, for a bundle that has no tests.
pub(crate) fn what_to_give(bundle: &Bundle) -> String {
    let mut message = "this bundle has no recorded tests; give it".to_owned();
    for input in bundle.plan().inputs() {
        let name = input.name.as_deref().unwrap_or_default();
        let dtype = input.dtype.map_or("bytes", |d| d.name());
        let shape = show::shape(&input.shape);
        message += &format!("\n  --input {name}=FILE.npy   {dtype} {shape}");
    }
    for variable in bundle.plan().variables() {
        let (name, min, max) = (&variable.name, variable.min, variable.max);
        message += &format!("\n  --var {name}=N   {min} to {max}");
    }
    message
}

/// Whether each input and variable is given once, and nothing else, and the variables
/// are within their bounds.
pub(crate) fn check_names(
    bundle: &Bundle,
    inputs: &[(String, PathBuf)],
    variables: &[(String, i64)],
) -> Result<(), Failure> {
    let plan = bundle.plan();
    let wanted = plan.inputs().filter_map(|b| b.name.as_deref()).collect();
    let given = inputs.iter().map(|(n, _)| n.as_str()).collect();
    check_set("input", wanted, given)?;
    let wanted = plan.variables().iter().map(|v| v.name.as_str()).collect();
    let given = variables.iter().map(|(n, _)| n.as_str()).collect();
    check_set("variable", wanted, given)?;
    let values = variables.iter().map(|(n, v)| (n.as_str(), *v));
    Ok(plan.check_variables(&values.collect::<Vec<_>>())?)
}

fn check_set(what: &str, wanted: Vec<&str>, given: Vec<&str>) -> Result<(), Failure> {
    check_known("the bundle", what, &wanted, &given)?;
    match wanted.iter().find(|name| !given.contains(name)) {
        None => Ok(()),
        Some(missing) => {
            let names = names(what, &wanted);
            let message = format!("the {what} `{missing}` is not given; {names}");
            Err(Failure::Usage(message))
        }
    }
}

/// Whether `bundle` has all that is given, each of it once.
pub(crate) fn check_known(
    bundle: &str,
    what: &str,
    has: &[&str],
    given: &[&str],
) -> Result<(), Failure> {
    for (i, name) in given.iter().enumerate() {
        if !has.contains(name) {
            let names = names(what, has);
            let message = format!("{bundle} has no {what} `{name}`; {names}");
            return Err(Failure::Usage(message));
        }
        if given[..i].contains(name) {
            let message = format!("the {what} `{name}` is given twice");
            return Err(Failure::Usage(message));
        }
    }
    Ok(())
}

fn names(what: &str, names: &[&str]) -> String {
    match names {
        [] => format!("it has no {what}s"),
        names => format!("its {what}s are: {}", names.join(", ")),
    }
}

/// The arrays of the input files, each of its input's type and shape.
pub(crate) fn read_inputs<'a>(
    bundle: &Bundle,
    inputs: &'a [(String, PathBuf)],
) -> Result<Vec<(&'a str, Array)>, Failure> {
    let mut arrays = Vec::new();
    for (name, path) in inputs {
        arrays.push((name.as_str(), bundle.read_input(name, path)?));
    }
    Ok(arrays)
}
