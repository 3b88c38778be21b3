//! What a user gives a run, held against what the bundle asks for.

use std::path::PathBuf;

use svod_runtime::bundle::Bundle;
use svod_runtime::bundle::npy::Array;

use crate::{Failure, show};

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
