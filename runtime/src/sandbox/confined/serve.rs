//! The helper's side.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::thread::futex;

use super::super::attempt::do_on_own_stack;
use super::super::control::{Region, SharedFile, Slot};
use super::super::launch::Untrusted;
use super::super::plan::note_error;
use super::super::prepared::{Prepared, run_in_turn};
use super::super::{Limits, fault};
use super::wire::{CodeText, Launches, MOST, PlanTask, RESET, RUN, SceneText, Span, TEXT, Task};
use crate::Error;
use crate::bundle::Bundle;
use crate::compile::Object;
use crate::confine::{Mode, Protections, Rights, one_heap};
use crate::launch::Arg;
use crate::memory::{Buffer, Guard};
use crate::plan::{Instance, cpu_name};
use crate::pool::{Pool, SPIN_BETWEEN_RUNS};
use crate::runtime::Runtime;
use crate::signature::DType;

/// What a helper for kernels is started as.
pub(crate) const MODE: Mode = ("kernels", |arguments| match serve(arguments) {
    Err(error) => error.to_string(),
});

/// Says which signal tells of what happens to a descriptor: `F_SETSIG` of Linux, on all
/// architectures, which `libc` has not for most.
const F_SETSIG: libc::c_int = 10;

/// What a helper is told when it is started.
pub(super) fn arguments(limits: &Limits, less: bool) -> [String; 2] {
    [
        limits.stack.to_string(),
        if less { "less" } else { "all" }.to_owned(),
    ]
}

/// What a helper has.
struct Helper {
    file: File,
    map: SharedFile,
    region: Region,
    runtime: Runtime,
    rights: Rights,
    confined: bool,
    plan: Option<Loaded>,
    answered: u32,
}

/// A plan that is ready.
struct Loaded {
    instance: Instance,
    task: PlanTask,
    values: Vec<i64>,
}

fn serve(arguments: &[OsString]) -> Result<Infallible, Error> {
    one_heap();
    // What a host has open and does not keep from programs that it starts.
    // SAFETY: nothing here has a descriptor yet but the three of a terminal.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    let word = |i: usize| arguments.get(i).and_then(|word| word.to_str());
    let stack = word(0).and_then(|word| word.parse().ok());
    let (Some(stack), Some(less)) = (stack, word(1)) else {
        let reason = "the helper was not started by its host";
        return Err(Error::confinement("kernels", reason));
    };
    if closed != 0 && less != "less" {
        let error = io::Error::last_os_error();
        let reason = format!("the system cannot close what was inherited: {error}");
        return Err(Error::confinement("kernels", reason));
    }
    end_with_host().map_err(|e| Error::system("have a helper end with its host", e))?;
    let limits = Limits::default().stack(stack);
    let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let file = file.map_err(|e| Error::system("share a descriptor", e))?;
    // SAFETY: the host has made it as long, and sealed it.
    let region = unsafe { Region::over(file.as_fd(), MOST, &limits) }?;
    let mut rights = Rights::kernel()?;
    if less == "less" {
        rights = rights.as_far_as(&Protections::of_this_system());
    }
    let runtime = Runtime::builder().build()?;
    runtime.open_symbols();
    let long = Region::in_file(MOST) as u64;
    let mut helper = Helper {
        // SAFETY: as above.
        map: unsafe { SharedFile::map(file.as_fd(), long) }?,
        file,
        region,
        runtime,
        rights,
        confined: false,
        plan: None,
        answered: 0,
    };
    // SAFETY: this process has one thread, and was started for this; the region is never dropped,
    // as this function does not return but with an error, after which the process ends.
    unsafe { fault::watch(&helper.region) };
    loop {
        helper.wait();
        let long = helper.region.control().file_bytes.load(Ordering::Relaxed);
        if long > helper.map.len() as u64 {
            // SAFETY: so the host says, who has sealed it.
            helper.map = unsafe { SharedFile::map(helper.file.as_fd(), long) }?;
        }
        let done = helper.answer();
        let control = helper.region.control();
        if let Err(error) = done {
            helper.write(text_of(&error).as_bytes())?;
            control.failed.store(1, Ordering::Relaxed);
        }
        control.answers.store(helper.answered, Ordering::Release);
        // Nobody may be waiting yet.
        let _ = futex::wake(&control.answers, futex::Flags::empty(), 1);
    }
}

/// Has the system kill this process when its host ends, whatever runs here then: its standard
/// output is the end of a pipe of which the host has the other, and nothing is ever written there,
/// so that what happens to it is that end. A kernel cannot [close](Rights::kernel) it.
fn end_with_host() -> io::Result<()> {
    let set = |what: libc::c_int, value: libc::c_int| {
        // SAFETY: numbers alone.
        match unsafe { libc::fcntl(libc::STDOUT_FILENO, what, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    set(F_SETSIG, libc::SIGKILL)?;
    set(libc::F_SETOWN, std::process::id().cast_signed())?;
    set(libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)?;
    // It may have ended before; while it has not, there is nothing to read.
    let mut byte = [0];
    match rustix::io::read(io::stdout(), &mut byte) {
        Ok(_) => fault::exit(0),
        Err(_) => Ok(()),
    }
}

/// An error with what caused it.
fn text_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

impl Helper {
    /// Waits for a request.
    fn wait(&mut self) {
        let requests = &self.region.control().requests;
        let start = Instant::now();
        loop {
            let had = requests.load(Ordering::Acquire);
            if had != self.answered {
                self.answered = had;
                return;
            }
            if start.elapsed() < SPIN_BETWEEN_RUNS {
                std::hint::spin_loop();
                continue;
            }
            // Woken, late or interrupted: what counts is what is there then.
            let _ = futex::wait(requests, futex::Flags::empty(), had, None);
        }
    }

    fn answer(&mut self) -> Result<(), Error> {
        match self.region.control().task.load(Ordering::Relaxed) {
            TEXT => {
                let control = self.region.control();
                let text = self.read(Span {
                    at: control.text.load(Ordering::Relaxed),
                    bytes: control.text_bytes.load(Ordering::Relaxed),
                })?;
                let task = serde_json::from_slice(&text);
                match task.map_err(|e| Error::run(format!("a request: {e}")))? {
                    Task::Launches(launches) => self.launch(launches),
                    Task::Plan(plan) => self.load(plan),
                }
            }
            RUN => self.run(),
            RESET => {
                if let Some(plan) = &mut self.plan {
                    plan.instance.reset();
                }
                Ok(())
            }
            other => Err(Error::run(format!("there is no request {other}"))),
        }
    }

    /// Takes away all rights but to compute, once.
    fn confine(&mut self) -> Result<(), Error> {
        if !self.confined {
            let applied = self.rights.apply();
            applied.map_err(|refused| Error::confinement("kernels", refused))?;
            self.confined = true;
        }
        Ok(())
    }

    fn read(&self, span: Span) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let size = usize::try_from(span.bytes).unwrap_or(usize::MAX);
        bytes
            .try_reserve_exact(size)
            .map_err(|_| Error::OutOfMemory {
                what: "a request".into(),
                bytes: size,
            })?;
        bytes.resize(size, 0);
        self.map.read(span.at, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes what is mapped where, or why something failed.
    fn write(&self, text: &[u8]) -> Result<(), Error> {
        let control = self.region.control();
        let room = control.scene_room.load(Ordering::Relaxed);
        let bytes = text.len().min(usize::try_from(room).unwrap_or(0));
        let at = control.scene.load(Ordering::Relaxed);
        self.map.write(at, &text[..bytes])?;
        control.scene_bytes.store(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    fn write_scene(&self, kernels: &[crate::Kernel], places: Vec<Vec<u64>>) -> Result<(), Error> {
        let range = |range: std::ops::Range<usize>| (range.start, range.end);
        let code = kernels.iter().map(|kernel| {
            let code = kernel.code().unwrap_or_default();
            let functions = code.functions.into_iter();
            CodeText {
                start: code.addresses.start as u64,
                end: code.addresses.end as u64,
                functions: functions.map(|(name, at)| (name, at as u64)).collect(),
            }
        });
        let scene = SceneText {
            stack: range(self.region.stack()),
            below: range(self.region.below_stack()),
            code: code.collect(),
            places,
        };
        let text = serde_json::to_vec(&scene).map_err(|e| Error::run(format!("a scene: {e}")))?;
        self.write(&text)
    }

    fn launch(&mut self, asked: Launches) -> Result<(), Error> {
        self.confine()?;
        let mut kernels = Vec::new();
        for kernel in asked.kernels {
            let (object, signature) = kernel.read(|span| self.read(span))?;
            kernels.push(self.runtime.link_untrusted(object, signature)?);
        }
        let mut args = Vec::new();
        for launch in &asked.launches {
            let kernel = kernels.get(launch.kernel);
            let kernel = kernel.ok_or_else(|| Error::run("a kernel that is not there"))?;
            args.push(self.arguments(kernel, &launch.args)?);
        }
        let mut views: Vec<Vec<Arg<'_>>> = Vec::new();
        for buffers in &mut args {
            views.push(buffers.iter_mut().map(Arg::from).collect());
        }
        let launches = asked.launches.iter().zip(&views).enumerate();
        let mut prepared: Vec<_> = launches
            .map(|(i, (launch, args))| {
                let scalars = launch.scalars.iter().copied();
                let none = args.iter().map(|_| None).collect();
                let prepared = Prepared::over(i, &kernels[launch.kernel], args, scalars, none);
                prepared
                    .calls(launch.first, launch.count, launch.reversed)
                    .in_order(launch.order.as_deref())
            })
            .collect();
        let linked: Vec<_> = kernels.iter().map(|k| k.kernel().clone()).collect();
        let places = prepared.iter().map(Prepared::places).collect();
        self.write_scene(&linked, places)?;
        let cpu = asked.cpu.map(Duration::from_nanos);
        let region = &self.region;
        // SAFETY: nothing else runs there.
        unsafe { do_on_own_stack(region, &mut || run_in_turn(region, &mut prepared, cpu)) };
        fault::set_cpu_timer(Duration::ZERO);
        Ok(())
    }

    /// The buffers of a launch, where the file has them.
    fn arguments(
        &self,
        kernel: &Untrusted,
        args: &[super::wire::ArgText],
    ) -> Result<Vec<Buffer>, Error> {
        let params = kernel.signature().buffers();
        let buffers = params.zip(args).map(|(param, arg)| {
            let of = (param.dtype, arg.len, arg.align);
            // SAFETY: the host writes these pages only between requests, and this process reads
            // nothing of them itself; what kernels make of them is what they are here for.
            unsafe { Buffer::of_file(self.file.as_fd(), arg.at, of, arg.guard()) }
        });
        buffers.collect()
    }

    fn load(&mut self, task: PlanTask) -> Result<(), Error> {
        let guard = Guard::from_name(&task.guard).unwrap_or_default();
        // What runs would ask the system for later: which processor a schedule was learned on.
        let _ = cpu_name();
        let pool = Pool::builder().threads(task.threads).settled().build();
        let runtime = Runtime::builder().pool(pool).guard(guard).build()?;
        runtime.open_symbols();
        let bundle = Bundle::open(&task.bundle)?;
        let kernels = bundle.plan().kernels().iter().zip(&task.objects);
        let objects =
            kernels.map(|(kernel, span)| Ok(Object::new(&kernel.entry, self.read(*span)?)));
        let objects = objects.collect::<Result<Vec<_>, Error>>()?;
        // SAFETY: nothing of this process is worth anything to anybody: it was started to run
        // what nobody vouches for.
        let executable = unsafe { bundle.link(&runtime, &objects, || self.confine()) }?;
        let instance = executable.instance()?;
        let plan = executable.plan();
        let whole = |(i, buffer): (usize, &crate::plan::PlanBuffer)| crate::plan::BufferRange {
            buffer: i,
            offset: 0,
            bytes: buffer.bytes,
        };
        let places = plan.buffers().iter().enumerate().map(|buffer| {
            let at = instance.address(&whole(buffer));
            vec![at.addr().get() as u64]
        });
        let places = places.collect();
        self.write_scene(&executable.kernels(), places)?;
        self.plan = Some(Loaded {
            values: vec![0; plan.variables().len()],
            instance,
            task,
        });
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        let nothing = || Error::run("there is no plan to run");
        let Loaded {
            instance,
            task,
            values,
        } = self.plan.as_mut().ok_or_else(nothing)?;
        let map = &self.map;
        for (i, value) in values.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            map.read(task.variables.at + 8 * i as u64, &mut bytes)?;
            *value = i64::from_le_bytes(bytes);
        }
        for (name, span) in &task.inputs {
            let dtype = instance.input(name)?.dtype();
            fill(instance, name, dtype, |bytes| map.read(span.at, bytes))?;
        }
        let region = &self.region;
        if let Some(cpu) = task.cpu {
            fault::set_cpu_timer(Duration::from_nanos(cpu));
        }
        let start = fault::now();
        region.control().began.store(start, Ordering::Relaxed);
        let mut result = Ok(());
        // SAFETY: nothing else runs there.
        unsafe {
            do_on_own_stack(region, &mut || {
                result = instance.run_with(crate::plan::Run {
                    variables: values,
                    ..crate::plan::Run::default()
                });
            });
        }
        fault::set_cpu_timer(Duration::ZERO);
        let slot = region.slots().first().ok_or_else(nothing)?;
        slot.nanos
            .store(fault::now().saturating_sub(start), Ordering::Relaxed);
        match &result {
            Ok(()) => slot.state.store(Slot::DONE, Ordering::Release),
            Err(Error::KernelStatus { op, .. } | Error::Overrun { op, .. }) => {
                let op = op.map_or(0, |op| op as u32 + 1);
                region.control().at.store(op, Ordering::Relaxed);
                if let Err(error) = &result {
                    note_error(slot, error);
                }
                return Ok(());
            }
            Err(_) => {
                // It is no kernel that is to blame: an instance that is torn, for example.
                region.control().began.store(0, Ordering::Relaxed);
                return result;
            }
        }
        let outputs = instance.executable().plan().outputs().iter();
        for (output, span) in outputs.zip(&task.outputs) {
            let bytes = instance.output(&output.name)?.as_bytes();
            map.write(span.at, bytes)?;
        }
        Ok(())
    }
}

/// Has an input hold what `read` reads.
fn fill(
    instance: &mut Instance,
    name: &str,
    dtype: DType,
    read: impl FnOnce(&mut [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let len = instance.input(name)?.len();
    let mut bytes = Buffer::zeroed(DType::U8, len * dtype.size())?;
    read(bytes.as_mut_slice::<u8>()?)?;
    let typed = bytes.with_dtype(dtype);
    instance.set_input(name, typed.as_view())
}
