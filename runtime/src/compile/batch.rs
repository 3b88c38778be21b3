//! Many sources, compiled in few processes.
//!
//! To start a compiler takes longer than to compile most kernels. So C sources that can
//! be are [merged](super::merge) into translation units, about as many as there are
//! cores, and each unit's object is [split](super::split) into one for each kernel. What
//! cannot be merged is compiled alone, and so is what breaks a unit: errors are always those
//! of a source that was compiled alone, with its own names and lines, and one that fails takes
//! no other with it.
//!
//! Modules of MLIR are not merged: the programs that lower them take many, one after another.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::c::{self, Failure};
use super::merge::{self, Unit};
use super::{
    Family, Language, Options, Source, Toolchain, compile_alone, compile_lowered, mlir, split,
};
use crate::Error;

/// Flags of units: each function and each constant in a section of its own, so that an
/// object can be split.
const UNIT_FLAGS: &[&str] = &["-ffunction-sections", "-fdata-sections"];

/// What clang needs beside: no section that counts symbols, and all errors at once, so that
/// all sources that are at fault are found.
const CLANG_UNIT_FLAGS: &[&str] = &["-fno-addrsig", "-ferror-limit=0"];

/// What gcc needs beside: functions that are alike stay two, each with its own callers.
const GCC_UNIT_FLAGS: &[&str] = &["-fno-ipa-icf"];

/// The beginnings of flags with which merged sources give the code that they give alone.
/// Others may let a compiler reassociate across what was inlined, or refer by name to
/// what merging renames.
const MERGEABLE_FLAGS: [&str; 5] = ["-O", "-m", "-W", "-w", "-std="];

/// What one thread does in one go.
enum Task {
    Unit(Unit),
    Alone(usize),
    /// Modules of MLIR, to be lowered.
    Modules(Vec<usize>),
    /// The LLVM IR that one of them was lowered to.
    Lowered(usize, Vec<u8>),
}

/// Compiles all sources and tells `done` of each, by its number, as it is ready, from any
/// thread. Once it is `given_up`, nothing more is begun.
pub(super) fn compile_each(
    toolchain: &Toolchain,
    options: &Options,
    sources: &[&Source],
    given_up: &AtomicBool,
    done: &(dyn Fn(usize, Result<Vec<u8>, Error>) + Sync),
) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut tasks = tasks(sources, options, threads);
    let mut first = true;
    while !tasks.is_empty() {
        tasks = round(&tasks, threads, |task| match task {
            _ if given_up.load(Ordering::Relaxed) => Vec::new(),
            Task::Alone(i) => {
                done(*i, compile_alone(toolchain, sources[*i], options));
                Vec::new()
            }
            Task::Modules(numbers) => lower(toolchain, options, sources, numbers),
            Task::Lowered(i, ir) => {
                let ir = ir.clone();
                done(*i, compile_lowered(toolchain, sources[*i], ir, options));
                Vec::new()
            }
            Task::Unit(unit) => match compile_unit(toolchain, options, sources, unit) {
                Ok(objects) => {
                    let members = unit.members.iter().zip(objects);
                    members.for_each(|(member, object)| done(member.source, Ok(object)));
                    Vec::new()
                }
                Err(diagnostics) => again(unit, &diagnostics, sources, first),
            },
        });
        first = false;
    }
}

/// What is to be done at first: units, and what cannot be in one.
fn tasks(sources: &[&Source], options: &Options, threads: usize) -> Vec<Task> {
    let may_merge = options.flags.iter().all(|flag| {
        let known = MERGEABLE_FLAGS.iter().any(|f| flag.starts_with(f));
        known && !flag.starts_with("-Ofast") && !flag.contains(',')
    });
    let (mut mergeable, mut alone, mut modules) = (Vec::new(), Vec::new(), Vec::new());
    for (i, source) in sources.iter().enumerate() {
        let prepared = match source.language {
            Language::C if may_merge => merge::prepare(source),
            Language::Mlir if mlir::may_share(source) => {
                modules.push((i, *source));
                continue;
            }
            _ => {
                alone.push(i);
                continue;
            }
        };
        match prepared {
            Ok(prepared) => mergeable.push((i, prepared)),
            Err(why) => {
                tracing::debug!(kernel = source.entry, %why, "compiled alone");
                alone.push(i);
            }
        }
    }
    let mut tasks = units(merge::units(mergeable, threads));
    tasks.extend(mlir::batches(&modules, threads).into_iter().map(of_modules));
    tasks.extend(alone.into_iter().map(Task::Alone));
    tasks
}

/// A unit of one is no unit.
fn units(units: Vec<Unit>) -> Vec<Task> {
    let task = |unit: Unit| match unit.members.as_slice() {
        [one] => Task::Alone(one.source),
        _ => Task::Unit(unit),
    };
    units.into_iter().map(task).collect()
}

fn of_modules(numbers: Vec<usize>) -> Task {
    match numbers.as_slice() {
        [one] => Task::Alone(*one),
        _ => Task::Modules(numbers),
    }
}

/// What is to be done after modules were lowered together: each is compiled or, where one of
/// them is at fault, lowered alone.
fn lower(
    toolchain: &Toolchain,
    options: &Options,
    sources: &[&Source],
    numbers: &[usize],
) -> Vec<Task> {
    let modules: Vec<&Source> = numbers.iter().map(|&i| sources[i]).collect();
    let lowered = toolchain
        .mlir()
        .ok()
        .and_then(|mlir| mlir.lower_all(&modules, options.confinement.as_deref()));
    let numbers = numbers.iter().copied();
    match lowered {
        Some(lowered) => {
            let each = numbers.zip(lowered);
            each.map(|(i, ir)| Task::Lowered(i, ir)).collect()
        }
        None => numbers.map(Task::Alone).collect(),
    }
}

/// What is to be done instead of a unit that broke: its members without those at fault,
/// which are compiled alone; all alone, where nobody can tell or that broke too.
fn again(unit: &Unit, diagnostics: &str, sources: &[&Source], first: bool) -> Vec<Task> {
    let faulty = unit.at_fault(diagnostics);
    tracing::debug!(
        members = unit.members.len(),
        faulty = faulty.len(),
        diagnostics,
        "a unit broke"
    );
    let (mut rest, mut alone) = (Vec::new(), Vec::new());
    for member in &unit.members {
        let i = member.source;
        match merge::prepare(sources[i]) {
            Ok(prepared) if first && !faulty.is_empty() && !faulty.contains(&i) => {
                rest.push((i, prepared));
            }
            _ => alone.push(Task::Alone(i)),
        }
    }
    let mut tasks = units(merge::units(rest, 1));
    tasks.extend(alone);
    tasks
}

/// Does all tasks, several at a time, and returns what is to be done after them.
fn round(tasks: &[Task], threads: usize, one: impl Fn(&Task) -> Vec<Task> + Sync) -> Vec<Task> {
    let (next, more) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let after = one(task);
            let mut more = more.lock().unwrap_or_else(PoisonError::into_inner);
            more.extend(after);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(tasks.len()) {
            // Where the system has no more threads, this one does the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    more.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The object of each member, or what the compiler, or the linker, had to say.
fn compile_unit(
    toolchain: &Toolchain,
    options: &Options,
    sources: &[&Source],
    unit: &Unit,
) -> Result<Vec<Vec<u8>>, String> {
    let name = unit
        .members
        .first()
        .map_or("", |m| &sources[m.source].entry);
    let compiler = toolchain.c_compiler(name).map_err(|e| e.to_string())?;
    let mut flags = UNIT_FLAGS.to_vec();
    flags.extend(match compiler.family {
        Family::Clang => CLANG_UNIT_FLAGS,
        Family::Gcc => GCC_UNIT_FLAGS,
    });
    let process = c::Unit {
        what: &format!("{} kernels, `{name}` and others", unit.members.len()),
        text: &[unit.text.as_bytes()],
        dir: Path::new("/"),
        // What includes anything is compiled alone.
        readable: None,
        language: "c",
        flags: &flags,
    };
    let object = c::compile_unit(compiler, &process, options).map_err(|failure| match failure {
        Failure::Diagnostics(diagnostics) => diagnostics,
        Failure::Error(error) => error.to_string(),
    })?;
    let entry = |m: &merge::Member| (m.entry.clone(), sources[m.source].entry.clone());
    let entries: Vec<_> = unit.members.iter().map(entry).collect();
    let entries: Vec<_> = entries
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    split::split(&object, &entries)
}
