//! What came of what a handler of signals wrote down: pure, and of every number that may stand
//! there.
//!
//! The system says which page an access met, and not always that: for an address that no memory
//! could have, or one that is not aligned as the instruction asks for, it says nothing. So the
//! instruction is decoded, and its address computed from the registers as the processor does.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::Limits;
use super::control::{CODE, REGISTERS, Record, WORDS};
use super::outcome::{Access, ArgumentPlace, CodePlace, Crash, Fault, Outcome, Place, TimeLimit};
use crate::confine::system_call_name;

/// What a handler wrote down, as plain numbers.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) signal: i32,
    pub(super) code: i32,
    pub(super) system_call: i32,
    pub(super) address: u64,
    pub(super) instruction: u64,
    pub(super) stack: u64,
    pub(super) syndrome: u64,
    pub(super) trap: u64,
    pub(super) registers: [u64; REGISTERS],
    /// What stands at the instruction, where there is one.
    pub(super) bytes: Option<[u8; CODE]>,
    /// What stands at the stack pointer, as far as it could be read.
    pub(super) words: Vec<u64>,
}

impl Seen {
    /// None where nothing was written down.
    pub(super) fn read(record: &Record) -> Option<Seen> {
        let stage = record.stage.load(Ordering::Acquire);
        let words = record.read.load(Ordering::Acquire) as usize;
        let words = record.words.iter().take(words.min(WORDS));
        (stage > 0).then(|| Seen {
            signal: record.signal.load(Ordering::Relaxed),
            code: record.code.load(Ordering::Relaxed),
            system_call: record.system_call.load(Ordering::Relaxed),
            address: record.address.load(Ordering::Relaxed),
            instruction: record.instruction.load(Ordering::Relaxed),
            stack: record.stack.load(Ordering::Relaxed),
            syndrome: record.syndrome.load(Ordering::Relaxed),
            trap: record.trap.load(Ordering::Relaxed),
            registers: std::array::from_fn(|i| record.registers[i].load(Ordering::Relaxed)),
            bytes: (stage > 1)
                .then(|| std::array::from_fn(|i| record.bytes[i].load(Ordering::Relaxed))),
            words: words.map(|word| word.load(Ordering::Relaxed)).collect(),
        })
    }
}

/// An argument: where it lay in the child.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) start: u64,
    /// Its number among the buffer arguments.
    pub(super) argument: usize,
    /// How many elements it has, and of how many bytes each.
    pub(super) len: usize,
    pub(super) element: usize,
    /// The plan's buffer, where it is one.
    pub(super) buffer: Option<String>,
}

impl Site {
    /// How many bytes outside of it an address lies; 0 within.
    pub(super) fn distance(&self, address: u64) -> u64 {
        let bytes = self.bytes();
        match address < bytes.start {
            true => bytes.start - address,
            false => address.saturating_add(1).saturating_sub(bytes.end),
        }
    }

    fn bytes(&self) -> Range<u64> {
        self.start
            ..self
                .start
                .saturating_add(self.len as u64 * self.element as u64)
    }
}

/// An address in a kernel's code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) function: &'a str,
    /// How many bytes into it.
    pub(super) offset: u64,
    /// These bytes, where they can be read.
    pub(super) before: Option<&'a [u8]>,
}

/// What the host knows of the child.
pub(super) struct Scene<'a> {
    pub(super) at: Place,
    pub(super) sites: &'a [Site],
    /// Where in the code of kernels an address is.
    pub(super) locate: &'a dyn Fn(u64) -> Option<Spot<'a>>,
    /// The bytes at an address within an argument, so many of up to 8, as a number.
    pub(super) peek: &'a dyn Fn(u64, usize) -> Option<u64>,
    /// The stack that kernels have, and the addresses below it.
    pub(super) stack: Range<usize>,
    pub(super) below: Range<usize>,
    pub(super) limits: Limits,
}

/// What the code of a `SIGFPE` is that a division of integers has raised, in Linux.
const INTEGER_DIVISION: i32 = 1;

/// How far from an argument an address may lie and still be taken for a slip of it.
const NEAR: u64 = 64 << 10;

/// How far below the stack a pointer may be, and still be taken for one that has left it.
const FAR_BELOW: u64 = 1 << 32;

/// How a child ended that a handler wrote this down of.
pub(super) fn explain(seen: &Seen, scene: Scene<'_>) -> Outcome {
    let sent = seen.code <= 0;
    let at = scene.at.clone();
    match seen.signal {
        libc::SIGSYS if !sent => {
            return Outcome::Denied {
                system_call: system_call_name(seen.system_call.into()).map_or_else(
                    || format!("system call {}", seen.system_call),
                    str::to_owned,
                ),
                at,
            };
        }
        libc::SIGPROF | libc::SIGXCPU if !sent => {
            return Outcome::TimedOut {
                limit: TimeLimit::Cpu,
                after: scene.limits.cpu.unwrap_or(scene.limits.wall),
                at,
            };
        }
        _ => {}
    }
    let decoded = machine::decode(seen, scene.peek);
    let fault = match seen.signal {
        libc::SIGABRT => Fault::Abort,
        _ if sent => Fault::Killed,
        libc::SIGTRAP => Fault::Breakpoint,
        libc::SIGILL => Fault::IllegalInstruction,
        libc::SIGFPE if seen.code == INTEGER_DIVISION => decoded.division,
        libc::SIGFPE => Fault::FloatingPoint,
        _ if decoded.is_jump => Fault::Jump,
        _ if is_overflow(seen, &scene) => Fault::StackOverflow,
        libc::SIGBUS if seen.code == libc::BUS_ADRALN => Fault::Misaligned,
        _ => decoded.memory,
    };
    let of_memory = matches!(fault, Fault::Memory | Fault::Misaligned);
    let access = of_memory.then(|| access(&decoded, scene.sites));
    if let Some(Access { address, .. }) = access
        && is_refused_memory(address)
    {
        return Outcome::OutOfMemory {
            limit: scene.limits.memory,
            at,
        };
    }
    let code = code(seen, &scene, decoded);
    Outcome::Crashed(Box::new(Crash {
        fault,
        signal: seen.signal,
        at,
        code,
        access,
    }))
}

/// What a signal says that ended a child and of which nothing was written down: the child had no
/// handler any more, or one that could not run.
pub(super) const fn unrecorded(signal: i32) -> Fault {
    match signal {
        libc::SIGSEGV | libc::SIGBUS => Fault::Memory,
        libc::SIGILL => Fault::IllegalInstruction,
        libc::SIGFPE => Fault::FloatingPoint,
        libc::SIGTRAP => Fault::Breakpoint,
        libc::SIGABRT => Fault::Abort,
        _ => Fault::Killed,
    }
}

/// Where in a kernel's code it was: at the instruction, or, where that is none of a kernel's, at the
/// call that led there.
fn code(seen: &Seen, scene: &Scene<'_>, decoded: Decoded) -> Option<CodePlace> {
    if let Some(at) = decoded.instruction
        && let Some(spot) = (scene.locate)(at)
    {
        return Some(CodePlace {
            function: spot.function.to_owned(),
            offset: spot.offset,
            instruction: decoded.text,
        });
    }
    machine::returns(seen, decoded.is_jump).find_map(|to| {
        let spot = (scene.locate)(to)?;
        let (offset, text) = machine::call_before(&spot, to)?;
        Some(CodePlace {
            function: spot.function.to_owned(),
            offset,
            instruction: text,
        })
    })
}

/// The name of a system call, or its number.
pub(super) fn call_name(number: i32) -> String {
    let name = system_call_name(number.into());
    name.map_or_else(|| format!("system call {number}"), str::to_owned)
}

fn is_overflow(seen: &Seen, scene: &Scene<'_>) -> bool {
    let within = |range: &Range<usize>, address: u64| {
        usize::try_from(address).is_ok_and(|address| range.contains(&address))
    };
    let memory = matches!(seen.signal, libc::SIGSEGV | libc::SIGBUS);
    // A function that takes more than there is has moved the pointer before it touches any.
    let far_below = seen.stack < scene.stack.start as u64
        && seen.stack > (scene.stack.start as u64).saturating_sub(FAR_BELOW);
    memory && (within(&scene.below, seen.address) || far_below)
}

/// Whether an address is what the system returns where it has no memory, taken for an address.
fn is_refused_memory(address: u64) -> bool {
    address.wrapping_neg() == u64::from(libc::ENOMEM.unsigned_abs())
}

/// The access, and the argument that it is of.
fn access(decoded: &Decoded, sites: &[Site]) -> Access {
    let bytes = decoded.bytes.unwrap_or(1).max(1) as u64;
    let touched = decoded.address..decoded.address.saturating_add(bytes);
    let found = sites.iter().filter_map(|site| {
        let place = beside(site, &touched)?;
        Some((place.outside, place))
    });
    let nearest = found.min_by_key(|(outside, _)| *outside);
    Access {
        address: decoded.address,
        bytes: decoded.bytes,
        write: decoded.write,
        argument: nearest.map(|(_, place)| place),
    }
}

/// Where bytes lie that are in an argument, or near it.
fn beside(site: &Site, touched: &Range<u64>) -> Option<ArgumentPlace> {
    let bytes = site.bytes();
    // The byte that is wrong: the nearest that is outside.
    let (at, outside) = if touched.end > bytes.end {
        let at = touched.start.max(bytes.end);
        (at, (at - bytes.end).saturating_add(1))
    } else if touched.start < bytes.start {
        let last = touched.end.min(bytes.start);
        (last - 1, (bytes.start - last).saturating_add(1))
    } else {
        (touched.start, 0)
    };
    if outside > NEAR {
        return None;
    }
    let element = site.element.max(1) as i128;
    let element = (i128::from(at) - i128::from(site.start)).div_euclid(element);
    Some(ArgumentPlace {
        argument: site.argument,
        element: i64::try_from(element).unwrap_or(i64::MAX),
        len: site.len,
        outside,
        buffer: site.buffer.clone(),
    })
}

/// What an instruction did.
struct Decoded {
    /// What it touched: computed, or as the system says.
    address: u64,
    bytes: Option<usize>,
    write: Option<bool>,
    is_jump: bool,
    /// Where the instruction is, where there is one.
    instruction: Option<u64>,
    /// What a fault of memory is.
    memory: Fault,
    /// What a fault of a division is.
    division: Fault,
    text: Option<String>,
}

// Both are pure, and tested on either.
#[cfg(any(test, target_arch = "aarch64"))]
mod aarch64;
#[cfg(any(test, target_arch = "x86_64"))]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as machine;
#[cfg(target_arch = "x86_64")]
use x86_64 as machine;

#[cfg(test)]
mod tests;
