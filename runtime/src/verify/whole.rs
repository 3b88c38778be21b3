//! The plan as a whole: the same results however it is run.

use super::Pass;
use super::report::{Finding, Kind, WholeCheck};
use crate::Error;
use crate::bundle::compare;
use crate::memory::Guard;
use crate::plan::{Executable, Instance, Role, Schedule, Scheduling, parts_for};
use crate::pool::Pool;

/// How many runs a schedule may take to be learned.
const LEARNING: usize = 64;

/// What runs of a whole plan came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// What was compared.
    pub checks: Vec<WholeCheck>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Makes runs of a plan in this process, and compares them, bit for bit, with runs on one thread,
/// in the plan's order, in which every temp has memory of its own: over planned memory, guarded at
/// both ends, with each launch of each wave in parts on so many threads, and with the schedule that
/// is learned for these. And these themselves with what was recorded.
///
/// `made` is told of each instance before it runs.
///
/// # Errors
///
/// What prevents the first runs: as [`Instance::set_input`] and [`Instance::run`]. Others that
/// fail are findings.
pub fn whole(
    executable: &Executable,
    passes: &[Pass],
    threads: usize,
    made: &mut dyn FnMut(&mut Instance),
) -> Result<Whole, Error> {
    let executable = executable.clone().with_guard(Guard::Off);
    let serial = executable.clone().with_pool(Pool::alone());
    let serial = serial.with_scheduling(Scheduling::Off);
    let pool = Pool::builder().threads(threads).build();
    let plan = executable.plan();
    let waves = Schedule::waves(plan, parts_for(threads));
    let mut whole = Whole::default();
    let mut reference = serial.clone().with_separate_temps().instance()?;
    made(&mut reference);
    let mut expected = Vec::new();
    for pass in passes {
        run(&mut reference, pass)?;
        expected.push(results(&reference)?);
        whole.recorded(&reference, pass)?;
    }
    let recorded = passes.iter().filter(|p| !p.recorded.is_empty()).count();
    whole.checked(Kind::Recorded, recorded);
    whole.compare(
        Kind::PlannedMemory,
        "over planned memory",
        &serial,
        passes,
        &expected,
        made,
    )?;
    for guard in [Guard::End, Guard::Start] {
        let how = format!("with buffers guarded at their {}", guard.name());
        let guarded = serial.clone().with_guard(guard);
        whole.compare(Kind::Guarded, &how, &guarded, passes, &expected, made)?;
    }
    if threads > 1 {
        let how = format!("with each launch in parts on {threads} threads");
        let parallel = executable.clone().with_pool(pool.clone());
        let in_waves = parallel.clone().with_schedule(&waves)?;
        whole.compare(Kind::Threads, &how, &in_waves, passes, &expected, made)?;
        let learned = parallel.with_scheduling(Scheduling::Learned);
        learn(&learned, passes, made)?;
        let how = format!("with the schedule that is learned for {threads} threads");
        whole.compare(Kind::Threads, &how, &learned, passes, &expected, made)?;
    }
    Ok(whole)
}

/// Runs until a schedule is learned, or for long enough.
fn learn(
    executable: &Executable,
    passes: &[Pass],
    made: &mut dyn FnMut(&mut Instance),
) -> Result<(), Error> {
    let mut instance = executable.instance()?;
    made(&mut instance);
    for pass in passes.iter().cycle().take(LEARNING) {
        if !executable.is_learning() || run(&mut instance, pass).is_err() {
            break;
        }
    }
    Ok(())
}

fn run(instance: &mut Instance, pass: &Pass) -> Result<(), Error> {
    if pass.fresh {
        instance.reset();
    }
    for (name, elements) in &pass.inputs {
        instance.set_input(name, elements.as_view())?;
    }
    instance.run(&pass.variables())
}

/// The bytes of each output, and of each state.
fn results(instance: &Instance) -> Result<Vec<Vec<u8>>, Error> {
    let plan = instance.executable().plan();
    let mut all = Vec::new();
    for output in plan.outputs() {
        all.push(instance.output(&output.name)?.as_bytes().to_vec());
    }
    for name in states(instance) {
        all.push(instance.state(name)?.as_bytes().to_vec());
    }
    Ok(all)
}

/// The names of states that have one of their own.
fn states(instance: &Instance) -> impl Iterator<Item = &str> {
    let buffers = instance.executable().plan().buffers().iter();
    let states = buffers.filter(|b| b.role == Role::State);
    let names = states.filter_map(|b| b.name.as_deref());
    names.filter(|name| instance.state(name).is_ok())
}

impl Whole {
    fn checked(&mut self, kind: Kind, runs: usize) {
        match self.checks.iter_mut().find(|check| check.kind == kind) {
            Some(check) => check.runs += runs,
            None => self.checks.push(WholeCheck {
                kind,
                runs,
                skipped: None,
            }),
        }
    }

    fn found(&mut self, kind: Kind, pass: &Pass, at: Option<(String, usize)>, text: String) {
        self.findings.push(Finding {
            kind,
            pass: pass.name.clone(),
            op: None,
            kernel: None,
            argument: None,
            element: at
                .as_ref()
                .map(|(_, element)| i64::try_from(*element).unwrap_or(i64::MAX)),
            buffer: at.map(|(buffer, _)| buffer),
            calls: Vec::new(),
            code: None,
            line: None,
            text,
        });
    }

    /// Compares a run with what was recorded.
    fn recorded(&mut self, instance: &Instance, pass: &Pass) -> Result<(), Error> {
        for (name, recorded) in &pass.recorded {
            let difference = compare(instance.output(name)?, recorded.as_view(), pass.tolerance)?;
            if let Some(element) = difference.first_outside {
                let text = format!(
                    "{} of {} elements are further from what was recorded than they may be, by up \
                     to {:e}",
                    difference.outside, difference.elements, difference.max_outside
                );
                let at = Some((format!("output `{name}`"), element));
                self.found(Kind::Recorded, pass, at, text);
            }
        }
        Ok(())
    }

    /// Makes the runs again in another way.
    fn compare(
        &mut self,
        kind: Kind,
        how: &str,
        executable: &Executable,
        passes: &[Pass],
        expected: &[Vec<Vec<u8>>],
        made: &mut dyn FnMut(&mut Instance),
    ) -> Result<(), Error> {
        let mut instance = executable.instance()?;
        made(&mut instance);
        for (pass, expected) in passes.iter().zip(expected) {
            if let Err(error) = run(&mut instance, pass) {
                self.found(kind, pass, None, format!("a run {how} failed: {error}"));
                return Ok(());
            }
            self.checked(kind, 1);
            let got = results(&instance)?;
            let outputs = executable.plan().outputs().iter();
            let outputs = outputs.map(|output| (format!("output `{}`", output.name), output.dtype));
            let state = |name: &str| {
                let view = instance.state(name).ok()?;
                Some((format!("state `{name}`"), view.dtype()))
            };
            let named: Vec<_> = outputs.chain(states(&instance).filter_map(state)).collect();
            for ((got, expected), (name, dtype)) in got.iter().zip(expected).zip(named) {
                let size = dtype.size();
                let pairs = got.chunks(size).zip(expected.chunks(size));
                let differing: Vec<_> = pairs.enumerate().filter(|(_, (a, b))| a != b).collect();
                if let Some((element, _)) = differing.first() {
                    let text = format!(
                        "a run {how} gave other bits in {} of {} elements",
                        differing.len(),
                        got.len() / size
                    );
                    self.found(kind, pass, Some((name, *element)), text);
                }
            }
        }
        Ok(())
    }
}
