//! Launches in a helper.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::super::Limits;
use super::super::attempt::ending;
use super::super::child::Ended;
use super::super::explain::{Scene, Seen, Site, Spot};
use super::super::launch::{Launch, Untrusted, site};
use super::super::outcome::{self, Outcome, Place};
use super::super::prepared::noted;
use super::server::{Reply, Server};
use super::wire::{ArgText, KernelText, LaunchText, Launches, MOST, SceneText, Task};
use crate::Error;
use crate::confine::{Helper, Protection, Protections};
use crate::launch::Arg;
use crate::memory::{Buffer, Guard, Pages};

/// Runs launches in a helper that has nothing but what it is given: code that means harm can read
/// nothing else, and do nothing but compute.
///
/// Kernels are linked there, from their [objects](Untrusted::object), with the symbols that a
/// runtime has by itself.
///
/// ```no_run
/// use svod_runtime::confine::Helper;
/// use svod_runtime::sandbox::{Confined, Launch, Limits};
/// # use svod_runtime::{Buffer, DType, Runtime, Signature, Source};
///
/// // First in `main`.
/// svod_runtime::sandbox::enter();
///
/// # let runtime = Runtime::new()?;
/// # let source = Source::c("bump", "void bump(int *x) { x[0] += 1; }");
/// # let signature = Signature::builder().read_write(DType::I32, 1).build()?;
/// let bump = runtime.load_untrusted(&source, signature)?;
/// let sandbox = Confined::new(Helper::this_program()?, Limits::default())?;
/// let mut x = Buffer::zeroed(DType::I32, 1)?;
/// let outcome = sandbox.run(Launch::new(&bump, vec![(&mut x).into()], &[], 1))?;
/// println!("{outcome}");
/// # Ok::<(), svod_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Confined {
    pub(super) helper: Helper,
    pub(super) limits: Limits,
    pub(super) less: bool,
    /// Helpers that wait.
    idle: Mutex<Vec<Server>>,
}

impl Confined {
    /// With this helper, and these limits for each launch, or run of a plan.
    ///
    /// # Errors
    ///
    /// [`Error::Confinement`] where the system lacks a protection.
    pub fn new(helper: Helper, limits: Limits) -> Result<Confined, Error> {
        let needed = [
            Protection::NoNewPrivileges,
            Protection::Seccomp,
            Protection::Limits,
        ];
        let less = "go on with less, by Confined::with_less";
        Protections::of_this_system().require(&needed, "kernels", less)?;
        Ok(Confined::of(helper, limits, false))
    }

    /// As [`new`](Self::new), also where the system lacks protections: with those that it has.
    #[must_use]
    pub const fn with_less(helper: Helper, limits: Limits) -> Confined {
        Confined::of(helper, limits, true)
    }

    const fn of(helper: Helper, limits: Limits, less: bool) -> Confined {
        Confined {
            helper,
            limits,
            less,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// What each launch may take.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs one launch.
    ///
    /// # Errors
    ///
    /// [`Error::Confinement`] and [`Error::System`] where there can be no helper, or it cannot
    /// link the kernel. What becomes of the launch is the [`Outcome`].
    pub fn run(&self, launch: Launch<'_>) -> Result<Outcome, Error> {
        outcome::only(self.run_all(&mut [launch])?)
    }

    /// Runs launches one after another, and says of each how it ended. Each has its arguments to
    /// itself: also those in [shared](Buffer::shared) memory are copied.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_all(&self, launches: &mut [Launch<'_>]) -> Result<Vec<Outcome>, Error> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        let mut fit = Vec::new();
        for (i, launch) in launches.iter().enumerate() {
            outcomes.push(launch.check().err().map(Outcome::Failed));
            if outcomes[i].is_none() {
                fit.push(i);
            }
        }
        let mut first = 0;
        while first < fit.len() {
            let some = &fit[first..fit.len().min(first + MOST)];
            first += self.in_one_helper(launches, some, &mut outcomes)?;
        }
        Ok(outcome::all(outcomes))
    }

    /// Has a helper make these launches, and says how many of them it made, up to one that ended
    /// it.
    fn in_one_helper(
        &self,
        launches: &mut [Launch<'_>],
        which: &[usize],
        outcomes: &mut [Option<Outcome>],
    ) -> Result<usize, Error> {
        let mut server = self.server()?;
        let start = server.used();
        let (task, places) = self.task(&mut server, launches, which)?;
        let code: usize = task.kernels.len();
        let arguments: usize = places.iter().map(Vec::len).sum();
        // Names, and numbers of up to 20 digits.
        let room = 4096 + 1024 * code + 32 * (arguments + which.len());
        let reply = server.ask_text(&Task::Launches(task), room)?;
        let ended = match reply {
            Reply::Failed(reason) => return Err(Error::confinement("kernels", reason)),
            Reply::Done => None,
            Reply::Ended(ended) => Some(ended),
        };
        let control = server.region().control();
        let at = (control.at.load(Ordering::Acquire) as usize).saturating_sub(1);
        let made = match ended {
            None => which.len(),
            Some(_) => at.min(which.len() - 1) + 1,
        };
        for (i, slot) in server.region().slots().iter().take(made).enumerate() {
            let number = which[i];
            outcomes[number] = noted(
                slot,
                launches[number].kernel.name(),
                launches[number].args.len(),
            );
            if outcomes[number].as_ref().is_some_and(Outcome::is_completed)
                && let Err(error) = take(&server, &mut launches[number], &places[i])
            {
                outcomes[number] = Some(Outcome::Failed(error));
            }
        }
        match ended {
            None => {
                server.free_from(start)?;
                self.give_back(server);
            }
            Some(ended) => {
                if control.began.load(Ordering::Relaxed) == 0 {
                    return Err(server.complaint(ended));
                }
                let number = which[made - 1];
                let (launch, scene) = (&launches[number], server.scene());
                let addresses = scene.places.get(made - 1).cloned().unwrap_or_default();
                outcomes[number] = Some(explain(&server, ended, launch, &addresses, &scene));
            }
        }
        Ok(made)
    }

    pub(super) fn server(&self) -> Result<Server, Error> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.pop() {
            Some(server) => Ok(server),
            None => {
                drop(idle);
                Server::start(&self.helper, &self.limits, self.less)
            }
        }
    }

    fn give_back(&self, server: Server) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < 16 && server.is_quiet() {
            idle.push(server);
        }
    }

    /// The request, with all that it needs in the file.
    fn task(
        &self,
        server: &mut Server,
        launches: &[Launch<'_>],
        which: &[usize],
    ) -> Result<(Launches, Vec<Vec<ArgText>>), Error> {
        let (mut kernels, mut texts, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut known: Vec<&Untrusted> = Vec::new();
        for &number in which {
            let launch = &launches[number];
            let same = |kernel: &&Untrusted| std::ptr::eq(*kernel, launch.kernel);
            let kernel = match known.iter().position(same) {
                Some(kernel) => kernel,
                None => {
                    let object = launch.kernel.object().ok_or_else(|| {
                        let reason = format!(
                            "of kernel `{}` there is no object, from which it could be linked there",
                            launch.kernel.name()
                        );
                        Error::confinement("kernels", reason)
                    })?;
                    let bytes = server.put(object.bytes())?;
                    let signature = launch.kernel.signature();
                    kernels.push(KernelText::new(object.entry(), signature, bytes));
                    known.push(launch.kernel);
                    known.len() - 1
                }
            };
            let mut args = Vec::new();
            for (arg, param) in launch.args.iter().zip(launch.kernel.signature().buffers()) {
                args.push(put(
                    server,
                    arg,
                    param.align.max(param.dtype.size()),
                    launch.side(),
                )?);
            }
            places.push(args.clone());
            texts.push(LaunchText {
                kernel,
                args,
                scalars: launch.scalars.iter().map(|s| s.to_slot()).collect(),
                first: launch.indices.start,
                count: launch.indices.end.saturating_sub(launch.indices.start),
                reversed: launch.reversed,
                order: launch.order.clone(),
            });
        }
        let cpu = self.limits.cpu;
        let task = Launches {
            kernels,
            launches: texts,
            cpu: cpu.and_then(|cpu| u64::try_from(cpu.as_nanos()).ok()),
        };
        Ok((task, places))
    }
}

/// An argument's bytes, on pages of their own, at one end of them.
fn put(server: &mut Server, arg: &Arg<'_>, align: usize, guard: Guard) -> Result<ArgText, Error> {
    let view = arg.view();
    let bytes = view.as_bytes();
    let nothing = || Error::OutOfMemory {
        what: "an argument".into(),
        bytes: bytes.len(),
    };
    let (first, size) = Pages::placed(bytes.len(), align, guard).ok_or_else(nothing)?;
    let span = server.place(size)?;
    server.write(span.at + first as u64, bytes)?;
    Ok(ArgText {
        at: span.at,
        len: view.len(),
        align,
        start: guard == Guard::Start,
    })
}

/// Copies back what a kernel has written.
fn take(server: &Server, launch: &mut Launch<'_>, places: &[ArgText]) -> Result<(), Error> {
    let params = launch.kernel.signature().buffers();
    for ((arg, place), param) in launch.args.iter_mut().zip(places).zip(params) {
        let Arg::Write(view) = arg else { continue };
        if !param.access.writes() {
            continue;
        }
        let bytes = view.len() * view.dtype().size();
        let mut copy = Buffer::zeroed(crate::DType::U8, bytes)?;
        let first = Pages::placed(bytes, place.align, place.guard()).map_or(0, |(first, _)| first);
        server.read(place.at + first as u64, copy.as_mut_slice::<u8>()?)?;
        view.copy_from(copy.with_dtype(view.dtype()).as_view())?;
    }
    Ok(())
}

/// What became of a launch that ended its helper.
fn explain(
    server: &Server,
    ended: Ended,
    launch: &Launch<'_>,
    addresses: &[u64],
    scene: &SceneText,
) -> Outcome {
    let params = launch.kernel.signature().buffers().enumerate();
    let sites: Vec<_> = params
        .zip(addresses)
        .map(|((argument, param), &start)| site(argument, param, start))
        .collect();
    let control = server.region().control();
    let at = Place {
        kernel: launch.kernel.name().to_owned(),
        op: None,
        index: control.index.load(Ordering::Relaxed),
    };
    explain_at(server, ended, at, &sites, scene)
}

/// What became of what was running when a helper ended.
pub(super) fn explain_at(
    server: &Server,
    ended: Ended,
    at: Place,
    sites: &[Site],
    scene: &SceneText,
) -> Outcome {
    let locate = |address| {
        let (_, function, offset) = scene.locate(address)?;
        Some(Spot {
            function,
            offset,
            before: None,
        })
    };
    let seen = Seen::read(&server.region().control().fault);
    ending(
        seen.as_ref(),
        ended,
        Scene {
            at,
            sites,
            locate: &locate,
            peek: &|_, _| None,
            stack: scene.stack.0..scene.stack.1,
            below: scene.below.0..scene.below.1,
            limits: *server.limits(),
        },
    )
}
