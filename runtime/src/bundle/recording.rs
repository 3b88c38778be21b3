//! Runs that a bundle is to be tested with.

use std::path::PathBuf;

use super::npy::Array;
use super::{Test, Tolerance};

/// A run to be recorded in a bundle, as a [`Test`] is one that was.
///
/// Inputs and outputs are arrays of exactly the type and shape that the plan states;
/// every variable has a value.
#[derive(Debug, Default)]
pub struct Recording {
    /// The run's variables.
    pub variables: Vec<(String, i64)>,
    /// What the run was given, by the inputs' names. What is left out stays as it was
    /// in the run before.
    pub inputs: Vec<(String, Recorded)>,
    /// What came out, by the outputs' names.
    pub outputs: Vec<(String, Recorded)>,
    /// How far results may be from what was recorded.
    pub tolerance: Tolerance,
    /// For a classifier, the true class of each picture.
    pub truth: Option<Recorded>,
}

/// A recorded array.
#[derive(Debug)]
pub enum Recorded {
    /// One in memory.
    Array(Array),
    /// An array file, which is copied when the bundle is written.
    File(PathBuf),
}

impl From<Array> for Recorded {
    fn from(array: Array) -> Recorded {
        Recorded::Array(array)
    }
}

impl From<PathBuf> for Recorded {
    fn from(file: PathBuf) -> Recorded {
        Recorded::File(file)
    }
}

impl From<&Test> for Recording {
    /// The run of another bundle, whose files are copied.
    fn from(test: &Test) -> Recording {
        let files = |files: &[(String, PathBuf)]| {
            let file = |(name, path): &(String, PathBuf)| (name.clone(), path.clone().into());
            files.iter().map(file).collect()
        };
        Recording {
            variables: test.variables.clone(),
            inputs: files(&test.inputs),
            outputs: files(&test.outputs),
            tolerance: test.tolerance,
            truth: test.truth.clone().map(Recorded::File),
        }
    }
}
