//! What came of what a handler of signals wrote down: pure, and of every number that may stand
//! there.
//!
//! The system says which page an access met, and not always that: for an address that no memory
//! could have, or one that is not aligned as the instruction asks for, it says nothing. So the
//! instruction is decoded, and its address computed from the registers as the processor does.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::Limits;
use super::control::{CODE, REGISTERS, Record};
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
    /// What stands at the instruction, or, where there is none, at the stack pointer.
    pub(super) bytes: Option<[u8; CODE]>,
}

impl Seen {
    /// None where nothing was written down.
    pub(super) fn read(record: &Record) -> Option<Seen> {
        let stage = record.stage.load(Ordering::Acquire);
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

/// What the host knows of the child.
pub(super) struct Scene<'a> {
    pub(super) at: Place,
    pub(super) sites: &'a [Site],
    /// Which function an address is in, and how far.
    pub(super) locate: &'a dyn Fn(u64) -> Option<(String, u64)>,
    /// The stack that kernels have, and the addresses below it.
    pub(super) stack: Range<usize>,
    pub(super) below: Range<usize>,
    pub(super) limits: Limits,
}

/// What the code of a `SIGFPE` is that a division of integers has raised, in Linux.
const INTEGER_DIVISION: i32 = 1;

/// How far from an argument an address may lie and still be taken for a slip of it.
const NEAR: u64 = 64 << 10;

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
    let decoded = machine::decode(seen);
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
    let code = match fault {
        // Nothing is there; what called it is.
        Fault::Jump => decoded.caller,
        _ => Some(seen.instruction),
    };
    let place = code.and_then(|code| (scene.locate)(code));
    let code = place.map(|(function, offset)| CodePlace {
        function,
        offset,
        instruction: decoded.text,
    });
    Outcome::Crashed(Box::new(Crash {
        fault,
        signal: seen.signal,
        at,
        code,
        access,
    }))
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
        && seen.stack > (scene.stack.start as u64).saturating_sub(1 << 32);
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
        (at, at - bytes.end + 1)
    } else if touched.start < bytes.start {
        let last = touched.end.min(bytes.start);
        (last - 1, bytes.start - last + 1)
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
    /// For a jump to nowhere, what called.
    caller: Option<u64>,
    /// What a fault of memory is.
    memory: Fault,
    /// What a fault of a division is.
    division: Fault,
    text: Option<String>,
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use iced_x86::{
        Code, Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction,
        InstructionInfoFactory, IntelFormatter, MemorySize, OpAccess, OpKind, Register,
    };

    use super::{Decoded, Fault, Seen};

    /// The exceptions that an access may be.
    const GENERAL_PROTECTION: u64 = 13;
    const PAGE_FAULT: u64 = 14;
    const ALIGNMENT_CHECK: u64 = 17;

    /// Bits of a page fault's error.
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;

    pub(super) fn decode(seen: &Seen) -> Decoded {
        let fetched = seen.trap == PAGE_FAULT
            && (seen.syndrome & FETCH != 0 || seen.instruction == seen.address);
        let mut decoded = Decoded {
            address: seen.address,
            bytes: None,
            write: (seen.trap == PAGE_FAULT && !fetched).then_some(seen.syndrome & WRITE != 0),
            is_jump: fetched,
            caller: None,
            memory: Fault::Memory,
            division: Fault::DivisionByZero,
            text: None,
        };
        let Some(bytes) = &seen.bytes else {
            return decoded;
        };
        if fetched {
            // What a call has left on the stack.
            let returns = bytes.first_chunk().map(|word| u64::from_le_bytes(*word));
            decoded.caller = returns.map(|address| address.wrapping_sub(1));
            return decoded;
        }
        let mut decoder = Decoder::with_ip(64, bytes, seen.instruction, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return decoded;
        }
        let mut text = String::new();
        IntelFormatter::new().format(&instruction, &mut text);
        decoded.text = Some(text);
        if instruction.code() != Code::INVALID {
            division(seen, &instruction, &mut decoded);
            memory(seen, &instruction, &mut decoded);
        }
        decoded
    }

    /// What the division that this is has gone wrong for.
    fn division(seen: &Seen, instruction: &Instruction, decoded: &mut Decoded) {
        if instruction.op0_kind() == OpKind::Register
            && let Some(divisor) = register(seen, instruction.op0_register())
            && divisor != 0
        {
            decoded.division = Fault::DivisionOverflow;
        }
    }

    fn memory(seen: &Seen, instruction: &Instruction, decoded: &mut Decoded) {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instruction);
        let protection = matches!(seen.trap, GENERAL_PROTECTION | ALIGNMENT_CHECK);
        for used in info.used_memory() {
            let size = match used.memory_size() {
                MemorySize::Unknown => None,
                size => Some(size.size()).filter(|size| *size > 0),
            };
            let address = used.virtual_address(0, |name, _, _| register(seen, name));
            let Some(address) = address else { continue };
            let bytes = size.unwrap_or(1) as u64;
            let is_it = protection || {
                let end = address.saturating_add(bytes.max(1));
                (address..end).contains(&seen.address)
            };
            if !is_it {
                continue;
            }
            decoded.address = address;
            decoded.bytes = size;
            let access = used.access();
            if protection {
                let writes = matches!(
                    access,
                    OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite
                );
                decoded.write = Some(writes);
                let canonical = (address as i64) << 16 >> 16 == address as i64;
                if canonical && !address.is_multiple_of(bytes) {
                    decoded.memory = Fault::Misaligned;
                }
            }
            return;
        }
        if protection {
            // It is not for what it touches: a jump to what can be no address, or what only the
            // system may do.
            match instruction.flow_control() {
                FlowControl::Next => decoded.memory = Fault::IllegalInstruction,
                _ => {
                    decoded.is_jump = true;
                    decoded.caller = Some(seen.instruction);
                }
            }
        }
    }

    /// What a register held; nothing of those that are not recorded.
    fn register(seen: &Seen, register: Register) -> Option<u64> {
        match register {
            Register::ES | Register::CS | Register::SS | Register::DS => return Some(0),
            Register::RIP => return Some(seen.instruction),
            _ => {}
        }
        if !register.is_gpr() {
            return None;
        }
        let full = seen.registers.get(register.full_register().number())?;
        Some(match register.size() {
            8 => *full,
            4 => *full & 0xffff_ffff,
            2 => *full & 0xffff,
            _ if matches!(
                register,
                Register::AH | Register::BH | Register::CH | Register::DH
            ) =>
            {
                let low = seen.registers.get(register.number() - 4)?;
                *low >> 8 & 0xff
            }
            _ => *full & 0xff,
        })
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::{Decoded, Fault, Seen};

    /// The classes of a syndrome.
    const FETCH: u64 = 0x20;
    const PC_ALIGNMENT: u64 = 0x22;
    const DATA: u64 = 0x24;

    pub(super) fn decode(seen: &Seen) -> Decoded {
        let class = seen.syndrome >> 26 & 0x3f;
        let fetched = matches!(class, FETCH | PC_ALIGNMENT) || seen.instruction == seen.address;
        Decoded {
            address: seen.address,
            bytes: None,
            write: (class == DATA).then_some(seen.syndrome & 1 << 6 != 0),
            is_jump: fetched,
            caller: Some(seen.registers[30].wrapping_sub(4)),
            memory: Fault::Memory,
            division: Fault::DivisionByZero,
            text: None,
        }
    }
}
