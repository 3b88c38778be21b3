//! What the system says of an access on aarch64. Instructions are not decoded.

use super::{Decoded, Fault, Seen, Spot};

/// The classes of a syndrome.
const FETCH: u64 = 0x20;
const PC_ALIGNMENT: u64 = 0x22;
const DATA: u64 = 0x24;

/// The register that a call leaves its place in.
const LINK: usize = 30;
/// The bytes of an instruction.
const SIZE: u64 = 4;

pub(super) fn decode(seen: &Seen, _: &dyn Fn(u64, usize) -> Option<u64>) -> Decoded {
    let class = seen.syndrome >> 26 & 0x3f;
    // Of other signals the address is always the instruction's.
    let of_memory = matches!(seen.signal, libc::SIGSEGV | libc::SIGBUS) && seen.code > 0;
    let fetched =
        of_memory && (matches!(class, FETCH | PC_ALIGNMENT) || seen.instruction == seen.address);
    Decoded {
        address: seen.address,
        bytes: None,
        write: (of_memory && class == DATA).then_some(seen.syndrome & 1 << 6 != 0),
        is_jump: fetched,
        instruction: (!fetched).then_some(seen.instruction),
        memory: Fault::Memory,
        division: Fault::DivisionByZero,
        text: None,
    }
}

/// Where what is running may return to.
pub(super) fn returns(seen: &Seen, is_jump: bool) -> impl Iterator<Item = u64> {
    let words = if is_jump { 0 } else { seen.words.len() };
    let link = seen.registers.get(LINK).copied();
    link.into_iter()
        .chain(seen.words.iter().take(words).copied())
}

/// Where the instruction begins, in bytes from the function's first, that ends before an address
/// which is returned to.
pub(super) fn call_before(spot: &Spot<'_>, _: u64) -> Option<(u64, Option<String>)> {
    Some((spot.offset.checked_sub(SIZE)?, None))
}
