//! Runs of a plan in a helper.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::Confined;
use super::super::child::Ended;
use super::super::explain::{Seen, Site};
use super::super::outcome::{Outcome, Place};
use super::super::plan::{noted_error, sites_of};
use super::host::explain_at;
use super::server::{Reply, Server};
use super::wire::{PlanTask, RESET, RUN, SceneText, Span, Task};
use crate::Error;
use crate::bundle::{Bundle, Load, Runner};
use crate::memory::{Buffer, Guard, View};
use crate::plan::{Op, Plan};
use crate::runtime::Runtime;

/// How a plan runs in a helper.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PlanOptions {
    /// How many threads a run may have there, 1 at least.
    pub threads: usize,
    /// How buffers are guarded. Guarded runs have one thread.
    pub guard: Guard,
}

impl Default for PlanOptions {
    /// One thread, and no guards.
    fn default() -> PlanOptions {
        PlanOptions {
            threads: 1,
            guard: Guard::Off,
        }
    }
}

impl PlanOptions {
    /// The same, with so many threads.
    #[must_use]
    pub const fn threads(mut self, threads: usize) -> PlanOptions {
        self.threads = threads;
        self
    }

    /// The same, guarded so.
    #[must_use]
    pub const fn guard(mut self, guard: Guard) -> PlanOptions {
        self.guard = guard;
        self
    }
}

/// A plan in a helper, with memory of its own there: as an [`Instance`](crate::plan::Instance),
/// whose kernels can do nothing but compute. A run that ends its helper is an [`Outcome`], after
/// which the next one begins in a new helper, with the states as at the start.
#[derive(Debug)]
pub struct ConfinedPlan<'a> {
    sandbox: &'a Confined,
    bundle: &'a Bundle,
    /// Objects of kernels, for the next helper.
    objects: Vec<crate::compile::Object>,
    options: PlanOptions,
    running: Option<Running>,
    /// What was given, in the order of the plan's inputs.
    inputs: Vec<Option<Buffer>>,
    /// What came out of the last run that completed, in the plan's order.
    outputs: Vec<Buffer>,
}

/// A helper that has the plan.
#[derive(Debug)]
struct Running {
    server: Server,
    scene: SceneText,
    inputs: Vec<Span>,
    outputs: Vec<Span>,
    variables: Span,
    /// Which inputs it has.
    given: Vec<bool>,
}

impl Confined {
    /// A bundle's plan, in a helper. Its kernels are compiled by `runtime`, whose compilers [can be
    /// confined](crate::RuntimeBuilder::confine_compilers) as well, and linked in the helper: in
    /// this process none of its code runs, or is mapped.
    ///
    /// # Errors
    ///
    /// As [`Bundle::compile`]; and as [`Bundle::load`] and [`Confined::run`], as text, where the
    /// helper cannot link or load.
    pub fn load<'a>(
        &'a self,
        bundle: &'a Bundle,
        runtime: &Runtime,
        load: &Load<'_>,
        options: PlanOptions,
    ) -> Result<ConfinedPlan<'a>, Error> {
        let plan = bundle.plan();
        let outputs = plan
            .outputs()
            .iter()
            .map(|output| Buffer::zeroed(output.dtype, output.range.bytes / output.dtype.size()));
        let mut confined = ConfinedPlan {
            sandbox: self,
            bundle,
            objects: bundle.compile(runtime, load)?,
            options,
            running: None,
            inputs: plan.inputs().map(|_| None).collect(),
            outputs: outputs.collect::<Result<_, _>>()?,
        };
        confined.start()?;
        Ok(confined)
    }
}

impl ConfinedPlan<'_> {
    /// Its plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.bundle.plan()
    }

    /// Copies an input's elements from the caller.
    ///
    /// # Errors
    ///
    /// As [`Instance::set_input`](crate::plan::Instance::set_input).
    pub fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        let plan = self.bundle.plan();
        plan.find_input(name)?;
        let is_it =
            |(_, buffer): &(usize, &crate::plan::PlanBuffer)| buffer.name.as_deref() == Some(name);
        let Some((i, buffer)) = plan.inputs().enumerate().find(is_it) else {
            return Err(Error::run(format!("there is no input `{name}`")));
        };
        let dtype = buffer.dtype.unwrap_or(crate::DType::U8);
        let mut copy = Buffer::zeroed(dtype, buffer.bytes / dtype.size())?;
        copy.as_view_mut().copy_from(elements)?;
        self.inputs[i] = Some(copy);
        if let Some(running) = &mut self.running {
            running.given[i] = false;
        }
        Ok(())
    }

    /// The elements of an output, as the last run left them that completed.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where the plan has no output of that name.
    pub fn output(&self, name: &str) -> Result<View<'_>, Error> {
        self.plan().find_output(name)?;
        let all = self.plan().outputs().iter().zip(&self.outputs);
        let found = all.clone().find(|(output, _)| output.name == name);
        let found = found.ok_or_else(|| Error::run(format!("there is no output `{name}`")))?;
        Ok(found.1.as_view())
    }

    /// Puts every state back to what it was at the start.
    ///
    /// # Errors
    ///
    /// As [`Confined::run`].
    pub fn reset(&mut self) -> Result<(), Error> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        match running.server.ask(RESET)? {
            Reply::Done => {}
            Reply::Failed(reason) => return Err(Error::confinement("the plan", reason)),
            // The next one starts with those states.
            Reply::Ended(_) => self.running = None,
        }
        Ok(())
    }

    /// Runs the plan once, with a value for each variable, as
    /// [`Instance::run`](crate::plan::Instance::run) does.
    ///
    /// Where the helper has several threads, the op is not noted that each is at: a crash is named
    /// with the kernel whose code it was in, and with an op of that kernel whose argument the
    /// access is in or near.
    ///
    /// # Errors
    ///
    /// As [`Confined::run`], and as [`Instance::run`](crate::plan::Instance::run) where nothing has
    /// run. What becomes of a run is the [`Outcome`].
    pub fn run(&mut self, variables: &[(&str, i64)]) -> Result<Outcome, Error> {
        let values = self.bundle.plan().variable_values(variables)?;
        self.run_with(&values)
    }

    /// As [`run`](Self::run), with the values in the plan's order.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_with(&mut self, values: &[i64]) -> Result<Outcome, Error> {
        let plan = self.bundle.plan();
        plan.check_values(values)?;
        for (input, given) in plan.inputs().zip(&self.inputs) {
            if given.is_none() {
                let name = input.name.as_deref().unwrap_or_default();
                return Err(Error::run(format!("the input `{name}` was not given")));
            }
        }
        self.start()?;
        let Some(running) = &mut self.running else {
            return Err(Error::run("the sandbox has lost its helper"));
        };
        for (i, value) in values.iter().enumerate() {
            let at = running.variables.at + 8 * i as u64;
            running.server.write(at, &value.to_le_bytes())?;
        }
        for (i, input) in self.inputs.iter().enumerate() {
            if let (Some(input), false) = (input, running.given[i]) {
                let bytes = input.as_view().as_bytes();
                running.server.write(running.inputs[i].at, bytes)?;
                running.given[i] = true;
            }
        }
        let server = &mut running.server;
        match server.ask(RUN)? {
            Reply::Failed(reason) => Err(Error::confinement("the plan", reason)),
            Reply::Done => {
                let slot = server.region().slots().first();
                let slot = slot.ok_or_else(|| Error::run("a run that came to nothing"))?;
                let at = server.region().control().at.load(Ordering::Relaxed) as usize;
                let op = at.checked_sub(1);
                if let Some(error) = noted_error(slot, op, plan) {
                    return Ok(Outcome::Failed(error));
                }
                let nanos = slot.nanos.load(Ordering::Relaxed);
                for (output, span) in self.outputs.iter_mut().zip(&running.outputs) {
                    let size = usize::try_from(span.bytes).unwrap_or(0);
                    let mut bytes = Buffer::zeroed(crate::DType::U8, size)?;
                    server.read(span.at, bytes.as_mut_slice::<u8>()?)?;
                    let typed = bytes.with_dtype(output.dtype());
                    output.as_view_mut().copy_from(typed.as_view())?;
                }
                Ok(Outcome::Completed {
                    time: Duration::from_nanos(nanos),
                })
            }
            Reply::Ended(ended) => {
                let outcome = explain(running, plan, ended);
                self.running = None;
                Ok(outcome)
            }
        }
    }

    /// Has a helper that has the plan.
    fn start(&mut self) -> Result<(), Error> {
        if self.running.is_some() {
            return Ok(());
        }
        let plan = self.bundle.plan();
        let limits = self.sandbox.limits;
        // One that has served launches has taken its rights away, and can open no bundle.
        let mut server = Server::start(&self.sandbox.helper, &limits, self.sandbox.less)?;
        server.allow(plan.bytes(crate::plan::Role::Constant));
        let objects = self.objects.iter().map(|object| server.put(object.bytes()));
        let objects = objects.collect::<Result<Vec<_>, _>>()?;
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            let name = input.name.clone().unwrap_or_default();
            inputs.push((name, server.place(input.bytes)?));
        }
        let outputs = plan.outputs().iter().map(|o| server.place(o.range.bytes));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let variables = server.place(8 * plan.variables().len())?;
        let threads = self.options.threads.max(1);
        let bundle = std::path::absolute(self.bundle.path());
        let bundle = bundle.map_err(|e| Error::system("find the bundle's folder", e))?;
        let cpu = limits.cpu;
        let task = PlanTask {
            bundle,
            objects,
            threads,
            guard: self.options.guard.name().to_owned(),
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            variables,
            cpu: cpu.and_then(|cpu| u64::try_from(cpu.as_nanos()).ok()),
        };
        let room = 4096 + 1024 * plan.kernels().len() + 32 * plan.buffers().len();
        match server.ask_text(&Task::Plan(task), room)? {
            Reply::Done => {}
            Reply::Failed(reason) => return Err(Error::confinement("the plan", reason)),
            Reply::Ended(ended) => return Err(server.complaint(ended)),
        }
        self.running = Some(Running {
            scene: server.scene(),
            server,
            given: vec![false; inputs.len()],
            inputs: inputs.into_iter().map(|(_, span)| span).collect(),
            outputs,
            variables,
        });
        Ok(())
    }
}

/// What became of a run that ended its helper.
fn explain(running: &Running, plan: &Plan, ended: Ended) -> Outcome {
    let scene = &running.scene;
    let fault = Seen::read(&running.server.region().control().fault);
    // In the kernel's own code, or in what that has called.
    let code = fault.as_ref().and_then(|seen| {
        let mut addresses = std::iter::once(&seen.instruction).chain(&seen.words);
        addresses.find_map(|address| scene.locate(*address))
    });
    let kernel = code.map(|(kernel, ..)| kernel);
    let address = fault.as_ref().map_or(0, |seen| seen.address);
    let base = |buffer: usize| scene.places.get(buffer)?.first().copied();
    // Of the launches of that kernel, that one whose arguments are nearest.
    let launches = plan
        .ops()
        .iter()
        .enumerate()
        .filter_map(|(op, it)| match it {
            Op::Launch(launch) if Some(launch.kernel) == kernel => Some((op, launch)),
            _ => None,
        });
    let mut found: Option<(u64, usize, Vec<Site>)> = None;
    let mut count = 0;
    for (op, launch) in launches {
        count += 1;
        let sites = sites_of(plan, launch, &base);
        let distance = sites.iter().map(|site| site.distance(address)).min();
        let distance = distance.unwrap_or(u64::MAX);
        if found.as_ref().is_none_or(|(least, ..)| distance < *least) {
            found = Some((distance, op, sites));
        }
    }
    let (op, sites) = match found {
        Some((distance, op, sites)) if distance <= 1 << 16 || count == 1 => (Some(op), sites),
        _ => (None, Vec::new()),
    };
    let at = Place {
        kernel: kernel
            .and_then(|kernel| plan.kernels().get(kernel))
            .map(|kernel| kernel.entry.clone())
            .unwrap_or_default(),
        op,
        index: 0,
    };
    explain_at(&running.server, ended, at, &sites, scene)
}

impl Runner for ConfinedPlan<'_> {
    fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        ConfinedPlan::set_input(self, name, elements)
    }

    fn run_once(&mut self, variables: &[i64]) -> Result<Duration, Error> {
        self.run_with(variables)?.into_result()
    }

    fn output(&self, name: &str) -> Result<View<'_>, Error> {
        ConfinedPlan::output(self, name)
    }

    fn reset(&mut self) -> Result<(), Error> {
        ConfinedPlan::reset(self)
    }
}
