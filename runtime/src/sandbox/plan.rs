//! Crash isolation of a whole run of a plan.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attempt::Suspect;
use super::child::Ended;
use super::control::{Bytes, Region, Slot};
use super::explain::Site;
use super::{CrashIsolation, Outcome, fault};
use crate::Error;
use crate::dispatch::Kernel;
use crate::plan::{Instance, Observer, Op, Plan};

/// With which status a child exits whose run returned an error.
const FAILED: i32 = 124;

impl CrashIsolation {
    /// Runs a plan once in a child, as [`Instance::run`] does here: with its inputs, constants and
    /// states as they are in this process. Where it completes, states and outputs are what the run
    /// has left; where not, they are as before.
    ///
    /// The child runs the ops one after another, and copies what changed. The limits are those of
    /// the whole run. Where the executable is [guarded](crate::plan::Executable::with_guard), an
    /// access outside a buffer meets the guard, and is named with the op, the argument and the
    /// element. Who loads kernels to run them in sandboxes alone does not have to vouch for them.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and as [`Instance::run`] where nothing has run: a variable has no
    /// value, an input was not given, or the instance is torn.
    pub fn run_plan(
        &self,
        instance: &mut Instance,
        variables: &[(&str, i64)],
    ) -> Result<Outcome, Error> {
        instance.check_ready(variables)?;
        instance.check_own_results()?;
        let region = self.region(1)?;
        let kernels = instance.executable().kernels();
        let size: usize = instance
            .results()
            .map(|(_, buffer)| bytes(buffer.as_view()))
            .sum();
        let results = Bytes::new(size)?;
        let noted = region.note();
        let before = instance.replace_observer(Some(Observer(Box::new(move |op| noted.op(op)))));
        let cpu = self.limits().cpu;
        let mut body = || {
            if let Some(cpu) = cpu {
                fault::set_cpu_timer(cpu);
            }
            let start = fault::now();
            region.control().began.store(start, Ordering::Relaxed);
            let result = instance.run_unnamed(variables);
            let nanos = fault::now().saturating_sub(start);
            let Some(slot) = region.slots().first() else {
                return;
            };
            slot.nanos.store(nanos, Ordering::Relaxed);
            if let Err(error) = &result {
                note_error(slot, error);
                fault::exit(FAILED);
            }
            let mut at = 0;
            for (_, buffer) in instance.results() {
                let view = buffer.as_view();
                results.write(at, view.as_bytes());
                at += bytes(view);
            }
            slot.state.store(Slot::DONE, Ordering::Release);
        };
        // Whoever listens to spans may take locks.
        let nobody = tracing::subscriber::NoSubscriber::default();
        let ended =
            tracing::subscriber::with_default(nobody, || self.attempt(&region, 1, &mut body));
        instance.replace_observer(before);
        let outcome = match ended? {
            None => {
                let mut at = 0;
                for (_, buffer) in instance.results() {
                    let size = bytes(buffer.as_view());
                    buffer.overwrite(results.read(at, size));
                    at += size;
                }
                let nanos = region.slots().first();
                let nanos = nanos.map_or(0, |slot| slot.nanos.load(Ordering::Relaxed));
                Outcome::Completed {
                    time: Duration::from_nanos(nanos),
                }
            }
            Some((ended, op)) => {
                let began = region.control().at.load(Ordering::Acquire) > 0;
                let op = began.then_some(op);
                self.plan_outcome(&region, ended, op, instance, &kernels)
            }
        };
        self.give_back(region);
        Ok(outcome)
    }

    fn plan_outcome(
        &self,
        region: &Region,
        ended: Ended,
        op: Option<usize>,
        instance: &Instance,
        kernels: &[Kernel],
    ) -> Outcome {
        let plan = instance.executable().plan();
        let launch = op.and_then(|op| match plan.ops().get(op)? {
            Op::Launch(launch) => Some(launch),
            _ => None,
        });
        let kernel = launch.and_then(|launch| plan.kernels().get(launch.kernel));
        let name = kernel.map(|kernel| kernel.entry.clone());
        if ended == Ended::Exited(FAILED)
            && let Some(slot) = region.slots().first()
            && let Some(error) = noted_error(slot, op, plan)
        {
            return Outcome::Failed(error);
        }
        let whole = |buffer: usize| {
            let size = plan.buffers().get(buffer)?.bytes;
            let range = crate::plan::BufferRange {
                buffer,
                offset: 0,
                bytes: size,
            };
            Some(instance.address(&range).addr().get() as u64)
        };
        let sites = launch.map_or_else(Vec::new, |launch| sites_of(plan, launch, &whole));
        let suspect = Suspect {
            kernel: name.unwrap_or_default(),
            op,
            sites: &sites,
            code: kernels.iter().collect(),
            shared: Vec::new(),
        };
        self.explain(region, ended, &suspect)
    }
}

/// How an error of a run is told by a child, which has numbers alone.
pub(super) fn note_error(slot: &Slot, error: &Error) {
    let state = match error {
        Error::KernelStatus { status, index, .. } => {
            slot.status.store(*status, Ordering::Relaxed);
            slot.index.store(*index, Ordering::Relaxed);
            Slot::STATUS
        }
        Error::Overrun {
            argument, stray, ..
        } => {
            slot.note(*argument, stray);
            Slot::STRAY
        }
        _ => Slot::NOT_RUN,
    };
    slot.state.store(state, Ordering::Release);
}

/// The same error again; none where the run is done.
pub(super) fn noted_error(slot: &Slot, op: Option<usize>, plan: &Plan) -> Option<Error> {
    let args = op.and_then(|op| match plan.ops().get(op)? {
        Op::Launch(launch) => Some(launch.args.len()),
        _ => None,
    });
    let error = match slot.state.load(Ordering::Acquire) {
        Slot::DONE => None,
        Slot::STATUS => Some(Error::KernelStatus {
            kernel: String::new(),
            op,
            status: slot.status.load(Ordering::Relaxed),
            index: slot.index.load(Ordering::Relaxed),
        }),
        Slot::STRAY if let Some((argument, stray)) = slot.stray(args.unwrap_or(usize::MAX)) => {
            Some(Error::Overrun {
                kernel: String::new(),
                op,
                argument,
                buffer: None,
                stray,
            })
        }
        _ => Some(Error::run("the run failed in the sandbox")),
    };
    error.map(|error| plan.with_names(error))
}

/// Where the arguments of a launch lie; `base` says where each buffer does.
pub(super) fn sites_of(
    plan: &Plan,
    launch: &crate::plan::Launch,
    base: &dyn Fn(usize) -> Option<u64>,
) -> Vec<Site> {
    let Some(kernel) = plan.kernels().get(launch.kernel) else {
        return Vec::new();
    };
    let params = kernel.signature.buffers().zip(&launch.args).enumerate();
    let sites = params.filter_map(|(argument, (param, range))| {
        Some(Site {
            start: base(range.buffer)?.wrapping_add(range.offset as u64),
            argument,
            len: param.len,
            element: param.dtype.size(),
            buffer: Some(plan.buffer_with_role(range.buffer)),
        })
    });
    sites.collect()
}

const fn bytes(view: crate::View<'_>) -> usize {
    view.len() * view.dtype().size()
}
