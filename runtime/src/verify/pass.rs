//! Runs of a plan over which it is verified.

use crate::Error;
use crate::bundle::{Bundle, Tolerance, npy};
use crate::diff::inputs;
use crate::memory::Buffer;
use crate::plan::Plan;

/// A run of a plan over which it is verified: what it is given, and what came of it before.
#[derive(Debug)]
pub struct Pass {
    /// What it is called in reports.
    pub name: String,
    /// Whether states begin anew.
    pub fresh: bool,
    /// What inputs hold, by name. Others keep what they held; they begin as zeros.
    pub inputs: Vec<(String, Buffer)>,
    /// A value for each variable.
    pub variables: Vec<(String, i64)>,
    /// Outputs that are known, by name.
    pub recorded: Vec<(String, Buffer)>,
    /// How far results may be from what is known.
    pub tolerance: Tolerance,
}

impl Pass {
    /// With inputs that look random and are the same each time: floating-point numbers from -1 to
    /// 1, and 0 or 1 for integers.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn arbitrary(plan: &Plan, name: &str, variables: &[(&str, i64)]) -> Result<Pass, Error> {
        let mut given = Vec::new();
        for input in plan.inputs() {
            if let Some(name) = &input.name {
                given.push((name.clone(), inputs::arbitrary(input)?));
            }
        }
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), *v));
        Ok(Pass {
            name: name.to_owned(),
            fresh: true,
            inputs: given,
            variables: variables.collect(),
            recorded: Vec::new(),
            tolerance: Tolerance::default(),
        })
    }

    /// The recorded tests of a bundle, in order; then, of a plan with variables, one with each of
    /// these as small as it may be, and one with each as large. Where nothing was recorded, inputs
    /// are [arbitrary](Self::arbitrary).
    ///
    /// # Errors
    ///
    /// As [`npy::read`], and [`Error::OutOfMemory`].
    pub fn of_bundle(bundle: &Bundle) -> Result<Vec<Pass>, Error> {
        let plan = bundle.plan();
        let mut passes = Vec::new();
        for (i, test) in bundle.tests().iter().enumerate() {
            passes.push(Pass {
                name: format!("test {i}"),
                fresh: i == 0,
                inputs: read(&test.inputs)?,
                variables: test.variables.clone(),
                recorded: read(&test.outputs)?,
                tolerance: test.tolerance,
            });
        }
        let named = |value: fn(&crate::plan::Variable) -> i64| {
            let all = plan.variables().iter();
            all.map(|v| (v.name.as_str(), value(v))).collect::<Vec<_>>()
        };
        let extremes = [
            ("smallest variables", named(|v| v.min)),
            ("largest variables", named(|v| v.max)),
        ];
        let extremes = match (plan.variables().is_empty(), passes.is_empty()) {
            (true, true) => vec![("arbitrary inputs", Vec::new())],
            (true, false) => Vec::new(),
            (false, _) => extremes.to_vec(),
        };
        for (name, variables) in extremes {
            let mut pass = Pass::arbitrary(plan, name, &variables)?;
            if let Some(test) = bundle.tests().first() {
                for (name, given) in read(&test.inputs)? {
                    pass.inputs.retain(|(other, _)| *other != name);
                    pass.inputs.push((name, given));
                }
            }
            passes.push(pass);
        }
        Ok(passes)
    }

    pub(super) fn variables(&self) -> Vec<(&str, i64)> {
        let all = self.variables.iter();
        all.map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

fn read(files: &[(String, std::path::PathBuf)]) -> Result<Vec<(String, Buffer)>, Error> {
    let read =
        |(name, path): &(String, std::path::PathBuf)| Ok((name.clone(), npy::read(path)?.elements));
    files.iter().map(read).collect()
}
