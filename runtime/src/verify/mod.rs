//! Whether kernels keep what their signatures promise, tried op by op.
//!
//! A signature is a promise that everything else rests on: that a kernel stays inside its
//! arguments, writes none that it is only to read, reads none that it is only to write, and that
//! the calls of its grid do not depend on each other. Whoever loads a kernel vouches for that. A
//! [`Verifier`] looks: it goes through a plan with real inputs, launches every op many times in a
//! [sandbox](crate::sandbox), and compares.
//!
//! # What is tried of a launch
//!
//! Each argument lies in pages of its own, of which it has as many bytes as the signature says and
//! no more. What is only read cannot be written.
//!
//! | the launch is made | what is found |
//! | --- | --- |
//! | with arguments that end before, and that begin behind, inaccessible pages | what it touches outside, at both ends |
//! | with what it may not read filled in four ways | what it reads of arguments that are `w`, and of temps that no op has written |
//! | again | what is not the same each time |
//! | with addresses that are as aligned as is declared, and no more | what assumes more |
//! | with the calls of its grid in reverse, and mixed | what depends on their order |
//! | in parts of its grid, each without the others | calls that depend on others, and two that write one element |
//!
//! What it may not read holds, in four launches, NaN or -1, large positive numbers, large negative
//! ones, and fractions near 0, others in each argument. An element that kept its filling in all of them was not written; one that is the
//! same in all was written, and right; any other was computed from what is not to be read. Which
//! element that was is found by bisection. A grid of up to 64 calls is made call by call; of a
//! larger one, each bit of the calls' numbers parts them in two, so that any two calls are apart
//! once. That calls make no difference at the same time is not tried here but in [whole] runs.
//!
//! What is found is what these runs show, with these inputs: a verification that finds nothing is
//! no proof for other ones. A read that no result depends on is seen at an inaccessible page alone;
//! a write to an argument that is `rw` of what it held already is not seen; and behind an argument
//! whose length is no multiple of its alignment lie some bytes before the page, of which writes are
//! seen, and such reads as results depend on.
//!
//! # What is tried of the plan
//!
//! [`whole`] makes runs of an executable, which somebody vouches for: on one thread and several,
//! over planned memory and separate one, guarded, and compared with what was recorded.
//!
//! ```
//! use svod_runtime::plan::PlanBuilder;
//! use svod_runtime::verify::{Kind, Pass, Settings, Verifier};
//! use svod_runtime::{DType, Runtime, Signature, Source};
//!
//! let runtime = Runtime::new()?;
//! let source = Source::c(
//!     "shift",
//!     "void shift(float *y, const float *x, int i) { y[i] = x[i]; if (i == 2) y[i + 1] = 0; }",
//! );
//! let signature = Signature::builder()
//!     .write(DType::F32, 8)
//!     .read(DType::F32, 8)
//!     .index(DType::I32, 8)
//!     .build()?;
//! let shift = runtime.load_untrusted(&source, signature.clone())?;
//! let mut plan = PlanBuilder::new("shifted");
//! let x = plan.input("x", DType::F32, &[8])?;
//! let y = plan.output("y", DType::F32, &[8])?;
//! let kernel = plan.kernel("shift", signature);
//! plan.launch(kernel, &[y, x], &[], 8)?;
//! let plan = plan.build()?;
//!
//! let pass = Pass::arbitrary(&plan, "arbitrary", &[])?;
//! let mut verifier = Verifier::new(plan, vec![shift], [], Settings::default())?;
//! verifier.run(&pass, &mut |_| ())?;
//! let found = &verifier.report().findings[0];
//! assert_eq!((found.kind, found.argument, found.element), (Kind::Overlap, Some(0), Some(3)));
//! assert_eq!(found.calls, [2, 3]);
//! # Ok::<(), svod_runtime::Error>(())
//! ```

mod filling;
mod grid;
mod judge;
mod lines;
mod memory;
mod pass;
mod report;
mod trial;
mod whole;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use pass::Pass;
pub use report::{Checked, Finding, Kind, Line, Report, WholeCheck};
pub use whole::{Whole, whole};

use crate::Error;
use crate::compile::{Language, Object, Source};
use crate::memory::{Constant, View};
use crate::plan::{BufferRange, Executable, Launch, Op, Plan, Role, check_content};
use crate::runtime::Runtime;
use crate::sandbox::{CrashIsolation, Limits, Untrusted};
use crate::signature::{Number, Scalar};
use judge::{Findings, Found, Written};
use memory::Memory;
use trial::{Argument, Subject};

/// How a verification is done.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// What each launch may take.
    pub limits: Limits,
    /// Whether a kernel is verified once, and not again in each op that launches it with the same
    /// scalars and grid: these are run once, so that the plan goes on.
    pub quick: bool,
}

impl Settings {
    /// The same, with other limits.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Settings {
        self.limits = limits;
        self
    }

    /// The same, quick or not.
    #[must_use]
    pub const fn quick(mut self, quick: bool) -> Settings {
        self.quick = quick;
        self
    }
}

/// What a [`Verifier`] tells of while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A run of the plan begins.
    Pass(&'a str),
    /// An op is about to be verified.
    Op(usize),
    /// Something was found.
    Found(&'a Finding),
}

/// A plan that is verified, run by run. No code of it runs in this process.
#[derive(Debug)]
pub struct Verifier {
    plan: Arc<Plan>,
    kernels: Vec<Untrusted>,
    contents: Vec<Option<Constant>>,
    memory: Memory,
    sandbox: CrashIsolation,
    settings: Settings,
    report: Report,
    /// The kernels, scalars and grids that were verified, where they are to be once.
    verified: HashSet<(usize, Vec<u64>, u64)>,
}

impl Verifier {
    /// Of a plan, which others may have as well, with a kernel for each of its kernels, in order,
    /// and with what its constants hold and its states hold at the start, by the buffer's number.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] where kernels or contents are not the plan's, or an op is a host function, which
    /// cannot be run in a sandbox.
    pub fn new(
        plan: impl Into<Arc<Plan>>,
        kernels: Vec<Untrusted>,
        contents: impl IntoIterator<Item = (usize, Constant)>,
        settings: Settings,
    ) -> Result<Verifier, Error> {
        let plan = plan.into();
        let of_plan = plan.kernels().iter().map(|k| &k.signature);
        if !of_plan.eq(kernels.iter().map(Untrusted::signature)) {
            return Err(Error::run(
                "the kernels to verify are not those of the plan",
            ));
        }
        if let Some(op) = plan.ops().iter().position(|op| matches!(op, Op::Host(_))) {
            return Err(Error::run(format!(
                "ops[{op}] is a host function, which cannot be verified"
            )));
        }
        let mut given = vec![None; plan.buffers().len()];
        for (i, content) in contents {
            let (buffer, slot) = plan.buffers().get(i).zip(given.get_mut(i)).ok_or_else(|| {
                Error::run(format!("contents for buffer {i}, which is not there"))
            })?;
            check_content(buffer, &content)
                .map_err(|reason| Error::run(format!("{}: {reason}", plan.buffer_label(i))))?;
            *slot = Some(content);
        }
        for (i, (buffer, given)) in plan.buffers().iter().zip(&given).enumerate() {
            if buffer.role == Role::Constant && given.is_none() {
                let label = plan.buffer_label(i);
                return Err(Error::run(format!(
                    "{label} is a constant without contents"
                )));
            }
        }
        Ok(Verifier {
            memory: Memory::new(&plan, &given),
            contents: given,
            kernels,
            sandbox: CrashIsolation::new(settings.limits),
            settings,
            report: Report {
                ops: vec![Checked::default(); plan.ops().len()],
                ..Report::default()
            },
            verified: HashSet::new(),
            plan,
        })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What came of it so far.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// What came of it.
    #[must_use]
    pub fn into_report(self) -> Report {
        self.report
    }

    /// The elements of an output, as the last run left them; a `bool` is a byte.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] where there is none of this name.
    pub fn output(&self, name: &str) -> Result<&[u8], Error> {
        self.plan.find_output(name)?;
        let mut outputs = self.plan.outputs().iter();
        let output = outputs.find(|output| output.name == name);
        Ok(output.map_or(&[], |output| self.memory.bytes(&output.range)))
    }

    /// The plan with its kernels and contents, to be run in this process: for [`whole`], once
    /// nothing was found.
    ///
    /// # Errors
    ///
    /// As [`Executable::new_unchecked`].
    ///
    /// # Safety
    ///
    /// As [`Executable::new_unchecked`], and the kernels must keep the contracts of their
    /// signatures, as the [`signature`](crate::signature) module states them.
    pub unsafe fn executable(&self) -> Result<Executable, Error> {
        let kernels = self.kernels.iter().cloned();
        // SAFETY: promised by the caller.
        let kernels = kernels.map(|kernel| unsafe { kernel.vouch() }).collect();
        let contents = self.contents.iter().enumerate();
        let contents = contents.filter_map(|(i, content)| Some((i, content.clone()?)));
        // SAFETY: promised by the caller.
        unsafe { Executable::new_unchecked(self.plan.clone(), kernels, contents) }
    }

    /// Finds the lines of source of what was found at a place of a kernel's code, where `sources`
    /// has a source of C of that kernel, by its number, and the compiler makes the same code of it
    /// with a table of lines.
    pub fn find_lines(&mut self, runtime: &Runtime, sources: &dyn Fn(usize) -> Option<Source>) {
        let mut compiled: HashMap<usize, Option<Object>> = HashMap::new();
        for finding in &mut self.report.findings {
            let op = finding.op.and_then(|op| self.plan.ops().get(op));
            let (Some(code), Some(Op::Launch(launch))) = (&finding.code, op) else {
                continue;
            };
            let with_lines = compiled.entry(launch.kernel).or_insert_with(|| {
                let source = sources(launch.kernel).filter(|s| s.language() == Language::C)?;
                runtime.compile_with_lines(&source).ok()
            });
            let object = self.kernels[launch.kernel].object();
            if let (Some(object), Some(with_lines)) = (object, with_lines) {
                finding.line = lines::line(object, with_lines, code);
            }
        }
    }

    /// Adds what came of the plan as a whole.
    pub fn add_whole(&mut self, whole: Whole) {
        self.report.whole.extend(whole.checks);
        self.report.findings.extend(whole.findings);
    }

    /// Goes through the plan once, and verifies each op with what those before it have written.
    ///
    /// # Errors
    ///
    /// [`Error::Run`] and [`Error::UnknownName`] where variables or inputs are not the plan's;
    /// [`Error::System`] and [`Error::OutOfMemory`] where launches cannot be made. What a kernel
    /// does wrong is a [finding](Report::findings).
    pub fn run(&mut self, pass: &Pass, tell: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let variables = self.plan.variable_values(&pass.variables())?;
        for (name, elements) in &pass.inputs {
            self.set_input(name, elements.as_view())?;
        }
        tell(Event::Pass(&pass.name));
        self.report.passes.push(pass.name.clone());
        if pass.fresh {
            self.memory.reset(&self.plan, &self.contents);
        }
        self.memory.begin();
        for op in self.plan.order() {
            tell(Event::Op(op));
            self.op(op, &variables, pass, tell)?;
        }
        self.unwritten_outputs(pass, tell);
        Ok(())
    }

    fn set_input(&mut self, name: &str, elements: View<'_>) -> Result<(), Error> {
        self.plan.find_input(name)?;
        let is_it =
            |b: &crate::plan::PlanBuffer| b.role == Role::Input && b.name.as_deref() == Some(name);
        let found = self.plan.buffers().iter().position(is_it);
        let Some(buffer) = found else {
            return Ok(());
        };
        let of_plan = &self.plan.buffers()[buffer];
        let bytes = elements.as_bytes();
        if bytes.len() != of_plan.bytes || of_plan.dtype.is_some_and(|d| d != elements.dtype()) {
            return Err(Error::run(format!(
                "{} elements of {} for the input `{name}`, which has {} bytes",
                elements.len(),
                elements.dtype(),
                of_plan.bytes
            )));
        }
        let range = BufferRange {
            buffer,
            offset: 0,
            bytes: bytes.len(),
        };
        self.memory.write(&range, 0, bytes);
        Ok(())
    }

    fn op(
        &mut self,
        op: usize,
        variables: &[i64],
        pass: &Pass,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        self.report.ops[op].runs += 1;
        match &self.plan.ops()[op] {
            Op::Launch(launch) => {
                let launch = launch.clone();
                self.launch(op, &launch, variables, pass, tell)
            }
            Op::Copy { from, to } => {
                self.memory.copy(from, to);
                Ok(())
            }
            Op::Fill { to, dtype, value } => {
                let number = value.evaluate(variables).map_err(Error::run)?;
                let scalar = Scalar::from_number(*dtype, number);
                let slot = scalar.map_or(0, Scalar::to_slot).to_le_bytes();
                self.memory.fill(to, &slot[..dtype.size()]);
                Ok(())
            }
            Op::Host(_) => Err(Error::run("a host function cannot be verified")),
        }
    }

    fn launch(
        &mut self,
        op: usize,
        launch: &Launch,
        variables: &[i64],
        pass: &Pass,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let kernel = &self.kernels[launch.kernel];
        let (scalars, grid) = numbers(kernel, launch, variables)?;
        let slots = scalars.iter().map(|s| s.to_slot()).collect();
        let is_new = self.verified.insert((launch.kernel, slots, grid));
        let params = kernel.signature().buffers();
        let ranges = params
            .zip(&launch.args)
            .map(|(param, range)| range.part(0..param.bytes()));
        let ranges: Vec<_> = ranges.collect();
        let params = kernel.signature().buffers().zip(&ranges);
        let arguments = params.map(|(param, range)| Argument {
            param,
            bytes: self.memory.bytes(range),
            unwritten: self.memory.unwritten(range),
        });
        let arguments = arguments.collect();
        let mut subject = Subject::new(kernel, arguments, scalars, grid, &self.sandbox);
        let mut findings = Findings::default();
        let full = is_new || !self.settings.quick || subject.may_read_unwritten();
        let written = match full {
            true => verify(&mut subject, &mut findings)?,
            false => judge::run_once(&mut subject, &mut findings)?,
        };
        let checked = &mut self.report.ops[op];
        checked.launches += subject.launches;
        checked.calls += subject.calls;
        checked.skipped += usize::from(!full);
        checked.grid = checked.grid.max(grid);
        checked.alone = grid <= grid::ALONE;
        drop(subject);
        self.go_on(&ranges, written);
        for found in findings.0 {
            let range = found.argument.and_then(|argument| ranges.get(argument));
            let range = range.copied();
            self.add(Some(op), pass, found, range, tell);
        }
        Ok(())
    }

    /// Has the plan go on with what a launch has written.
    fn go_on(&mut self, ranges: &[BufferRange], written: Vec<Written>) {
        for one in written {
            let range = &ranges[one.argument];
            let size = range.bytes / one.elements.len().max(1);
            if one.elements.iter().all(|written| *written) {
                self.memory.write(range, 0, &one.bytes);
                continue;
            }
            for (element, _) in one.elements.iter().enumerate().filter(|(_, w)| **w) {
                let at = element * size;
                self.memory.write(range, at, &one.bytes[at..at + size]);
            }
        }
    }

    /// Looks for parts of outputs that no op has written.
    fn unwritten_outputs(&mut self, pass: &Pass, tell: &mut dyn FnMut(Event<'_>)) {
        for output in self.plan.outputs().to_vec() {
            let unwritten = self.memory.unwritten(&output.range);
            let Some(byte) = unwritten.and_then(|all| all.iter().position(|u| *u)) else {
                continue;
            };
            let element = i64::try_from(byte / output.dtype.size()).unwrap_or(i64::MAX);
            let text = format!(
                "no op has written it, and it is in the output `{}`",
                output.name
            );
            let found = Found {
                kind: Kind::UnwrittenOutput,
                argument: None,
                element: Some(element),
                calls: Vec::new(),
                code: None,
                text,
            };
            self.add(None, pass, found, Some(output.range), tell);
        }
    }

    /// Adds a finding, unless the same was found before.
    fn add(
        &mut self,
        op: Option<usize>,
        pass: &Pass,
        found: Found,
        range: Option<BufferRange>,
        tell: &mut dyn FnMut(Event<'_>),
    ) {
        let buffer = range.map(|range| {
            let role = self.plan.buffers()[range.buffer].role.name();
            format!("{role} {}", self.plan.buffer_label(range.buffer))
        });
        let mut all = self.report.findings.iter();
        if all.any(|f| {
            (f.op, f.kind, f.argument) == (op, found.kind, found.argument)
                && (op.is_some() || f.buffer == buffer)
        }) {
            return;
        }
        let kernel = op.and_then(|op| match self.plan.ops().get(op)? {
            Op::Launch(launch) => Some(self.plan.kernels()[launch.kernel].entry.clone()),
            _ => None,
        });
        self.report.findings.push(Finding {
            kind: found.kind,
            pass: pass.name.clone(),
            op,
            kernel,
            argument: found.argument,
            buffer,
            element: found.element,
            calls: found.calls,
            code: found.code,
            line: None,
            text: found.text,
        });
        if let Some(finding) = self.report.findings.last() {
            tell(Event::Found(finding));
        }
    }
}

/// The scalars of a launch, and its grid.
fn numbers(
    kernel: &Untrusted,
    launch: &Launch,
    variables: &[i64],
) -> Result<(Vec<Scalar>, u64), Error> {
    let scalars = kernel.signature().scalars().zip(&launch.scalars);
    let scalars = scalars.map(|(param, value)| {
        let number = value.evaluate(variables).map_err(Error::run)?;
        Scalar::from_number(param.dtype, number)
            .ok_or_else(|| Error::run(format!("{number} is no value of `{}`", param.name)))
    });
    let scalars = scalars.collect::<Result<_, _>>()?;
    let grid = launch.grid.evaluate(variables).map_err(Error::run)?;
    let grid = match grid {
        Number::Int(grid) => u64::try_from(grid).ok(),
        Number::Float(_) => None,
    };
    let grid = grid.ok_or_else(|| Error::run("a grid that is no number of calls"))?;
    Ok((scalars, grid))
}

/// Verifies a launch, and returns what it writes.
fn verify(subject: &mut Subject<'_>, findings: &mut Findings) -> Result<Vec<Written>, Error> {
    let Some(mut reference) = judge::judge(subject, findings)? else {
        return Ok(judge::anything(subject, findings));
    };
    let steady = !findings.0.iter().any(|f| f.kind == Kind::Unsteady);
    if subject.grid > 1 && steady {
        grid::take_apart(subject, &reference, findings)?;
        // A call that is named says more than an order.
        let named = [Kind::Overlap, Kind::Dependent];
        for found in std::mem::take(&mut reference.order) {
            if !named.iter().any(|kind| findings.has(*kind, found.argument)) {
                findings.add(found);
            }
        }
    }
    Ok(judge::written(subject, &reference, findings))
}
