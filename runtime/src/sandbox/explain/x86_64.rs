//! An instruction of x86-64, and what it touched.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction, InstructionInfoFactory,
    IntelFormatter, MemorySize, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

use super::{Decoded, Fault, Seen, Spot};

/// The exceptions that are told apart.
const BREAKPOINT: u64 = 3;
const STACK_SEGMENT: u64 = 12;
const GENERAL_PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
const ALIGNMENT_CHECK: u64 = 17;

/// Bits of a page fault's error.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

/// The number of the accumulator and of the data register among registers.
const ACCUMULATOR: usize = 0;
const DATA: usize = 2;

pub(super) fn decode(seen: &Seen, peek: &dyn Fn(u64, usize) -> Option<u64>) -> Decoded {
    let of_memory = matches!(seen.signal, libc::SIGSEGV | libc::SIGBUS) && seen.code > 0;
    let fetched = of_memory
        && match seen.trap {
            PAGE_FAULT => seen.syndrome & FETCH != 0 || seen.instruction == seen.address,
            // Some processors jump first, and then look where they are.
            _ => !is_canonical(seen.instruction),
        };
    let page_fault = of_memory && seen.trap == PAGE_FAULT && !fetched;
    let mut decoded = Decoded {
        address: seen.address,
        bytes: None,
        write: page_fault.then_some(seen.syndrome & WRITE != 0),
        is_jump: fetched,
        instruction: (!fetched).then_some(seen.instruction),
        memory: Fault::Memory,
        division: Fault::DivisionByZero,
        text: None,
    };
    if seen.signal == libc::SIGTRAP && seen.trap == BREAKPOINT {
        // The processor is behind it, and it has one byte.
        decoded.instruction = Some(seen.instruction.wrapping_sub(1));
        decoded.text = Some("int3".into());
        return decoded;
    }
    let (Some(bytes), false) = (&seen.bytes, fetched) else {
        return decoded;
    };
    let mut decoder = Decoder::with_ip(64, bytes, seen.instruction, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return decoded;
    }
    decoded.text = Some(text(&instruction));
    match seen.signal {
        libc::SIGFPE => decoded.division = division(seen, &instruction, peek),
        _ if page_fault => find(seen, &instruction, &mut decoded),
        _ if of_memory => protection(seen, &instruction, &mut decoded),
        _ => {}
    }
    decoded
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    IntelFormatter::new().format(instruction, &mut text);
    text
}

const fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// What a division has gone wrong for: it tells by its divisor, or, where that lies in memory that
/// cannot be read any more, by the dividend, which is rarely so large that another one could be at
/// fault.
fn division(
    seen: &Seen,
    instruction: &Instruction,
    peek: &dyn Fn(u64, usize) -> Option<u64>,
) -> Fault {
    let divisor = match instruction.op0_kind() {
        OpKind::Register => register(seen, instruction.op0_register()),
        OpKind::Memory => address(seen, instruction)
            .and_then(|address| peek(address, instruction.memory_size().size())),
        _ => None,
    };
    let overflows = match divisor {
        Some(divisor) => divisor != 0,
        None => is_large(seen, instruction),
    };
    match overflows {
        true => Fault::DivisionOverflow,
        false => Fault::DivisionByZero,
    }
}

/// Whether a dividend is one that -1, or 1, is too small for as a divisor.
fn is_large(seen: &Seen, instruction: &Instruction) -> bool {
    let [low, high] = [ACCUMULATOR, DATA].map(|i| seen.registers.get(i).copied().unwrap_or(0));
    let bits = 8 * instruction.memory_size().size() as u32;
    if !matches!(bits, 16 | 32 | 64) {
        return false;
    }
    let mask = u64::MAX >> (64 - bits);
    let (low, high) = (low & mask, high & mask);
    match instruction.mnemonic() {
        Mnemonic::Idiv => {
            let least = 1 << (bits - 1);
            let sign = if low & least == 0 { 0 } else { mask };
            high != sign || low == least
        }
        _ => high != 0,
    }
}

/// The address of the instruction's one operand in memory.
fn address(seen: &Seen, instruction: &Instruction) -> Option<u64> {
    instruction.virtual_address(0, 0, |name, _, _| register(seen, name))
}

/// What an instruction touches: from where on, and how many bytes.
fn touched(seen: &Seen, used: &UsedMemory) -> Option<(u64, Option<usize>)> {
    let size = match used.memory_size() {
        MemorySize::Unknown => None,
        size => Some(size.size()).filter(|size| *size > 0),
    };
    let address = used.virtual_address(0, |name, _, _| register(seen, name))?;
    Some((address, size))
}

/// Finds which of what an instruction touches the page is of that was not there.
fn find(seen: &Seen, instruction: &Instruction, decoded: &mut Decoded) {
    let mut factory = InstructionInfoFactory::new();
    let all = factory.info(instruction).used_memory();
    let found = all.iter().find_map(|used| {
        let (address, size) = touched(seen, used)?;
        let end = address.saturating_add(size.unwrap_or(1) as u64);
        (address..end)
            .contains(&seen.address)
            .then_some((address, size))
    });
    if let Some((address, size)) = found {
        decoded.address = address;
        decoded.bytes = size;
    }
}

/// What was refused of an instruction for another reason than a page.
fn protection(seen: &Seen, instruction: &Instruction, decoded: &mut Decoded) {
    if !matches!(
        seen.trap,
        STACK_SEGMENT | GENERAL_PROTECTION | ALIGNMENT_CHECK
    ) {
        return;
    }
    let mut factory = InstructionInfoFactory::new();
    let all = factory.info(instruction).used_memory();
    let wrong = all.iter().find_map(|used| {
        let (address, size) = touched(seen, used)?;
        let fault = if !is_canonical(address) {
            Fault::Memory
        } else if !address.is_multiple_of(size.unwrap_or(1).max(1) as u64) {
            Fault::Misaligned
        } else {
            return None;
        };
        Some((address, size, used.access(), fault))
    });
    if let Some((address, size, access, fault)) = wrong {
        decoded.address = address;
        decoded.bytes = size;
        decoded.write = Some(matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        ));
        decoded.memory = fault;
        return;
    }
    // It is not for what it touches: a jump to what can be no address, or what only the system may
    // do.
    match instruction.flow_control() {
        FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return => {
            decoded.is_jump = true;
        }
        _ => decoded.memory = Fault::IllegalInstruction,
    }
}

/// Where what is running may return to.
pub(super) fn returns(seen: &Seen, is_jump: bool) -> impl Iterator<Item = u64> {
    // What jumped has called last, or else has left nothing.
    let words = if is_jump { 1 } else { seen.words.len() };
    seen.words.iter().take(words).copied()
}

/// Where the call begins, in bytes from the function's first, that ends before an address which is
/// returned to.
pub(super) fn call_before(spot: &Spot<'_>, returns: u64) -> Option<(u64, Option<String>)> {
    let Some(before) = spot.before else {
        // Within it.
        return Some((spot.offset.checked_sub(1)?, None));
    };
    let first = returns.wrapping_sub(before.len() as u64);
    let mut decoder = Decoder::with_ip(64, before, first, DecoderOptions::NONE);
    let mut last = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut last);
    }
    let is_call = matches!(
        last.flow_control(),
        FlowControl::Call | FlowControl::IndirectCall
    );
    (is_call && !last.is_invalid()).then(|| (last.ip().wrapping_sub(first), Some(text(&last))))
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
    let full = *seen.registers.get(register.full_register().number())?;
    Some(match register.size() {
        8 => full,
        4 => full & 0xffff_ffff,
        2 => full & 0xffff,
        _ if matches!(
            register,
            Register::AH | Register::BH | Register::CH | Register::DH
        ) =>
        {
            full >> 8 & 0xff
        }
        _ => full & 0xff,
    })
}
