//! What a run came to, as one JSON object.
//!
//! | key | what |
//! | --- | --- |
//! | `bundle`, `name` | the folder as it was given, and the plan's name |
//! | `guard` | `off`, `end` or `start`: how buffers were guarded |
//! | `threads` | how many a run may have |
//! | `kernels`, `load_us` | how many, and what it took to compile and link them |
//! | `runs` | a run of given inputs, or one for each recorded test |
//! | `runs[].test`, `variables` | which recorded test, and what the variables were |
//! | `runs[].times_us` | each repetition's time |
//! | `runs[].outputs` | name, dtype, shape, min, max, NaNs, the first values, the best scores |
//! | `runs[].compared` | for each recorded output, how it differs |
//! | `runs[].unsteady` | each output that depends on memory that was not written, and how |
//! | `runs[].answers`, `correct` | of a classifier: the class of each picture, how many are right |
//! | `ok` | whether all that was to be compared is the same |
//! | `saved_schedule` | with `--save-schedule`, the file |
//! | `ops` | with `--timings`, for each op its number, `what` it is, how often it ran, `mean_us`, `min_us` |
//! | `accuracy` | of a classifier: `correct` and `of` |
//!
//! What is no finite number is null.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use svod_runtime::Guard;
use svod_runtime::bundle::{Bundle, Classified, Runner, Test, TestReport};
use svod_runtime::signature::Number;

use crate::Failure;
use crate::loading::Loading;
use crate::show::Summary;

/// JSON's text. JSON escapes some control characters; a terminal acts on more.
pub(crate) fn text(value: &Value) -> String {
    let text = format!("{value:#}");
    let acts = |c: char| ('\u{7f}'..='\u{9f}').contains(&c);
    if !text.contains(acts) {
        return text;
    }
    let escape = |c: char| match c {
        c if acts(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.into(),
    };
    text.chars().map(escape).collect()
}

/// The object for the whole command.
pub(crate) fn command(
    bundle: &Bundle,
    guard: Guard,
    loading: Loading,
    runs: &[Value],
    ok: bool,
    accuracy: Option<(usize, usize)>,
) -> Value {
    json!({
        "bundle": bundle.path(),
        "name": bundle.plan().name(),
        "guard": guard.name(),
        "kernels": bundle.plan().kernels().len(),
        "load_us": micros(&loading.time),
        "kernels_compiled": loading.compiled,
        "kernels_cached": loading.cached,
        "kernels_carried": loading.carried,
        "runs": runs,
        "ok": ok,
        "accuracy": accuracy.map(|(correct, of)| json!({ "correct": correct, "of": of })),
    })
}

/// A run of given inputs.
pub(crate) fn run(variables: &[(&str, i64)], times: &[Duration], outputs: Value) -> Value {
    json!({
        "variables": variables.iter().copied().collect::<BTreeMap<_, _>>(),
        "times_us": times.iter().map(micros).collect::<Vec<_>>(),
        "outputs": outputs,
    })
}

/// A run of a recorded test.
pub(crate) fn test(
    i: usize,
    test: &Test,
    times: &[Duration],
    report: &TestReport,
    outputs: Value,
) -> Value {
    let variables: Vec<_> = test
        .variables
        .iter()
        .map(|(n, v)| (n.as_str(), *v))
        .collect();
    let compared = report.outputs.iter().map(|output| {
        let difference = &output.difference;
        json!({
            "name": output.name,
            "within": difference.is_within(),
            "exact": difference.is_exact(),
            "elements": difference.elements,
            "outside": difference.outside,
            "other_bits": difference.other_bits,
            "max_abs": difference.max_abs,
        })
    });
    let unsteady = report.unsteady.iter().map(|output| {
        let difference = &output.difference;
        json!({
            "name": output.name,
            "elements": difference.elements,
            "other_bits": difference.other_bits,
            "first": difference.first,
        })
    });
    let classified = report.classified.as_ref();
    let mut value = run(&variables, times, outputs);
    value["test"] = json!(i);
    value["compared"] = compared.collect();
    value["unsteady"] = unsteady.collect();
    value["correct"] = json!(classified.map(Classified::correct));
    value["answers"] = json!(classified.map(|c| &c.answers));
    value
}

/// Every output of the last run.
pub(crate) fn outputs(bundle: &Bundle, runner: &impl Runner) -> Result<Value, Failure> {
    let mut outputs = Vec::new();
    for output in bundle.plan().outputs() {
        let summary = Summary::new(&output.shape, runner.output(&output.name)?)?;
        let best = summary.best.iter().map(
            |(i, score)| json!({ "index": i, "score": score, "label": bundle.labels().get(*i) }),
        );
        outputs.push(json!({
            "name": output.name,
            "dtype": output.dtype.name(),
            "shape": output.shape,
            "min": summary.range.map(|(min, _)| number(min)),
            "max": summary.range.map(|(_, max)| number(max)),
            "nans": summary.nans,
            "first": summary.first.iter().map(|v| number(*v)).collect::<Vec<_>>(),
            "best": best.collect::<Vec<_>>(),
        }));
    }
    Ok(outputs.into())
}

/// Integers of any element type are JSON's, as integers.
fn number(v: Number) -> Value {
    match v {
        Number::Int(v) => {
            i64::try_from(v).map_or_else(|_| json!(u64::try_from(v).ok()), Value::from)
        }
        Number::Float(v) => json!(v),
    }
}

pub(crate) fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
