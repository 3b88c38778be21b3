//! The schedule of runs: which one they have, and how it is kept.

use std::path::Path;

use serde_json::Value;
use svod_runtime::bench::Replay;
use svod_runtime::bundle::npy::Array;
use svod_runtime::bundle::{Bundle, read_schedules};
use svod_runtime::plan::{Executable, LearnedSchedule, Scheduling};
use svod_runtime::{Error, Guard, Runtime, RuntimeBuilder};

use crate::loading;
use crate::{Failure, RunArgs, ScheduleArg, show};

/// The most runs in which a schedule is learned: more than it takes for any number of
/// threads.
pub(crate) const LEARNING: usize = 1000;

const ONE_THREAD: &str = "runs of one thread need no schedule; let them have more with --threads";

/// Whether what is asked goes together.
pub(crate) fn check(args: &RunArgs, runtime: &Runtime) -> Result<(), Failure> {
    if !args.save_schedule {
        return Ok(());
    }
    let message = match args.schedule {
        ScheduleArg::Off => "with --schedule off, no schedule is learned that could be saved",
        ScheduleArg::File(_) => "with the schedule of a file, none is learned that could be saved",
        ScheduleArg::Learned if runtime.guard() != Guard::Off => {
            "guarded runs are on one thread, and teach no schedule that could be saved"
        }
        ScheduleArg::Learned if runtime.pool().threads() < 2 => ONE_THREAD,
        ScheduleArg::Learned => return Ok(()),
    };
    Err(Failure::Usage(message.into()))
}

/// The executable with the schedule that is asked for.
pub(crate) fn apply(args: &RunArgs, executable: Executable) -> Result<Executable, Failure> {
    match &args.schedule {
        // One that is to be saved is learned anew.
        ScheduleArg::Learned if args.save_schedule => {
            Ok(executable.with_scheduling(Scheduling::Learned))
        }
        ScheduleArg::Learned => Ok(executable),
        ScheduleArg::Off => Ok(executable.with_scheduling(Scheduling::Off)),
        ScheduleArg::File(file) => {
            let learned = of_file(file, executable.pool().threads())?;
            let fixed = executable.with_schedule(&learned.schedule);
            // Which file it is of, is the user's to know.
            fixed.map_err(|e| match e {
                Error::Schedule { reason } => Failure::Library(Error::File {
                    file: file.clone(),
                    reason: format!("the schedule is not the plan's: {reason}"),
                }),
                other => other.into(),
            })
        }
    }
}

/// The schedule of a file for so many threads; any, if it is the only one.
fn of_file(file: &Path, threads: usize) -> Result<LearnedSchedule, Failure> {
    let mut list = read_schedules(file)?;
    if list.len() == 1 {
        return Ok(list.remove(0));
    }
    let fitting = list.iter().position(|learned| learned.threads == threads);
    fitting.map(|i| list.remove(i)).ok_or_else(|| {
        let known: Vec<_> = list.iter().map(|l| l.threads.to_string()).collect();
        let known = match known.as_slice() {
            [] => "it has none".to_owned(),
            known => format!("it has some for {}", known.join(", ")),
        };
        let threads = show::count(threads, "thread");
        Failure::Usage(format!(
            "{} has no schedule for {threads}; {known}",
            file.display()
        ))
    })
}

/// Runs on until a schedule is learned.
pub(crate) fn learn(
    bundle: &Bundle,
    executable: &Executable,
    inputs: &[(&str, Array)],
    variables: &[(&str, i64)],
) -> Result<LearnedSchedule, Failure> {
    let mut replay = Replay::new(executable)?;
    if inputs.is_empty() && variables.is_empty() && !bundle.tests().is_empty() {
        replay.set_test(bundle, 0)?;
    }
    for (name, array) in inputs {
        replay.set_input(name, array.elements.as_view())?;
    }
    for (name, value) in variables {
        replay.set_variable(name, *value)?;
    }
    replay.learn(LEARNING)?;
    executable.learned().ok_or_else(|| {
        let runs = show::count(LEARNING, "run");
        Failure::Library(Error::Run {
            reason: format!("no schedule was learned in {runs}"),
        })
    })
}

/// The schedule of a bundle's runs on so many threads, or as the environment says; and
/// whether the bundle carries it. If not, the bundle is compiled and run.
pub(crate) fn of(
    bundle: &Bundle,
    threads: Option<u16>,
) -> Result<(LearnedSchedule, bool), Failure> {
    let mut builder = RuntimeBuilder::from_env().guard(Guard::Off);
    if let Some(threads) = threads {
        builder = builder.threads(threads.into());
    }
    let runtime = builder.build()?;
    if runtime.pool().threads() < 2 {
        return Err(Failure::Usage(ONE_THREAD.into()));
    }
    if let Some(learned) = bundle.schedule(runtime.pool().threads()) {
        return Ok((learned.clone(), true));
    }
    let (executable, _) = loading::load(bundle, &runtime, true)?;
    Ok((learn(bundle, &executable, &[], &[])?, false))
}

/// It as the format has it.
pub(crate) fn as_json(learned: &LearnedSchedule) -> Result<Value, Failure> {
    let value = serde_json::from_str(&learned.to_json()?);
    value.map_err(|e| Failure::Output(e.into()))
}

/// A line about a schedule that was saved.
pub(crate) fn saved(learned: &LearnedSchedule, file: &Path) -> String {
    let (serial, time) = (nanos(learned.serial_nanos), nanos(learned.nanos));
    format!(
        "saved the schedule for {} in {}: {time} a run, {serial} on one thread",
        show::count(learned.threads, "thread"),
        show::plain(&file.display().to_string()),
    )
}

fn nanos(nanos: f64) -> String {
    let time = std::time::Duration::try_from_secs_f64(nanos / 1e9);
    show::duration(time.unwrap_or(std::time::Duration::MAX))
}
