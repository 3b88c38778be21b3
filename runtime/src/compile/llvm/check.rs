//! What LLVM's verifier lets pass, and its code generator crashes on: labels where nothing
//! branches, and values of types that no register and no memory can hold.
//!
//! It is a walk over all instructions, which takes next to nothing beside making code of them.

use std::ffi::CStr;

use super::api::{Api, Ref};

/// LLVM's numbers of kinds of types.
const VOID: i32 = 0;
const LABEL: i32 = 7;
const STRUCT: i32 = 10;
const ARRAY: i32 = 11;
const METADATA: i32 = 14;
const TOKEN: i32 = 16;
const OF_A_TARGET: i32 = 20;

/// LLVM's number of the instruction that takes the next of a variable number of arguments.
const NEXT_ARGUMENT: i32 = 49;

/// Refuses a module for this architecture that LLVM would crash on.
///
/// # Errors
///
/// Which function it is, and what about it.
///
/// # Safety
///
/// The module must be alive, of this library, and have passed its verifier.
pub(super) unsafe fn check(api: &Api, module: Ref, architecture: &str) -> Result<(), String> {
    let refused = |function, what| {
        // SAFETY: the function is alive, and its name, which ends, lives as long as it does.
        let name = unsafe { CStr::from_ptr((api.value_name)(function, &mut 0)) };
        let name = name.to_string_lossy();
        Err(format!(
            "no code can be made of the function `{name}`: {what}"
        ))
    };
    // SAFETY: what is in the lists of a module is alive as long as the module, which nobody
    // changes meanwhile. Only functions are asked for parameters, and instructions for operands
    // and successors; of operands there are as many as they say, and the verifier has seen to it
    // that none is missing.
    unsafe {
        let type_of = |value| (api.type_of)(value);
        let can_be = |value| has_code(api, type_of(value), architecture);
        for function in List::new(api.next_function, (api.first_function)(module)) {
            let first_block = (api.first_block)(function);
            // What is defined elsewhere has no code here, and LLVM's own functions take anything.
            if first_block.is_null() {
                continue;
            }
            let mut params = List::new(api.next_param, (api.first_param)(function));
            if !params.all(can_be) {
                return refused(
                    function,
                    "one of its parameters is of a type that has no values",
                );
            }
            let blocks = List::new(api.next_block, first_block);
            let instructions = blocks
                .flat_map(|block| List::new(api.next_instruction, (api.first_instruction)(block)));
            for instruction in instructions {
                if (api.opcode)(instruction) == NEXT_ARGUMENT {
                    return refused(
                        function,
                        "it has a `va_arg`, which targets lack for most types",
                    );
                }
                let made = (api.type_kind)(type_of(instruction));
                if !matches!(made, VOID | TOKEN) && !can_be(instruction) {
                    return refused(
                        function,
                        "one of its values is of a type that has no values",
                    );
                }
                let mut labels = 0;
                for i in 0..(api.operand_count)(instruction).cast_unsigned() {
                    let operand = (api.operand)(instruction, i);
                    match (api.type_kind)(type_of(operand)) {
                        LABEL => labels += 1,
                        METADATA | TOKEN => {}
                        _ if can_be(operand) => {}
                        _ => return refused(function, "it uses a value of a type that has none"),
                    }
                }
                let is_terminator = !(api.as_terminator)(instruction).is_null();
                let ways = if is_terminator {
                    (api.successor_count)(instruction)
                } else {
                    0
                };
                if labels != ways {
                    return refused(function, "a label stands where nothing branches to it");
                }
            }
        }
    }
    Ok(())
}

/// Whether code can be made of values of a type, as far as it is not a matter of instructions. To
/// have a size is another thing: some that are as long as the processor's vectors have none.
///
/// # Safety
///
/// The type must be alive.
unsafe fn has_code(api: &Api, of: Ref, architecture: &str) -> bool {
    // SAFETY: promised by the caller; only structures and arrays are asked for their elements, and
    // structures for as many as they have.
    unsafe {
        match (api.type_kind)(of) {
            VOID | LABEL | METADATA | TOKEN => false,
            STRUCT if (api.is_opaque)(of) != 0 => false,
            STRUCT => (0..(api.element_count)(of))
                .all(|i| has_code(api, (api.element_at)(of, i), architecture)),
            ARRAY => has_code(api, (api.element)(of), architecture),
            // Most are of other targets than processors.
            OF_A_TARGET => architecture == "aarch64" && (api.is_sized)(of) != 0,
            _ => true,
        }
    }
}

/// The rest of one of LLVM's lists.
struct List(unsafe extern "C" fn(Ref) -> Ref, Ref);

impl List {
    /// From this item on, if it is not null.
    ///
    /// # Safety
    ///
    /// The function must be the one that goes on in lists of items of this kind, and nothing may
    /// change the list, or what it is of, as long as this is used.
    const unsafe fn new(next: unsafe extern "C" fn(Ref) -> Ref, first: Ref) -> List {
        List(next, first)
    }
}

impl Iterator for List {
    type Item = Ref;

    fn next(&mut self) -> Option<Ref> {
        let item = self.1;
        if item.is_null() {
            return None;
        }
        // SAFETY: promised to `new`; the list ends in null.
        self.1 = unsafe { (self.0)(item) };
        Some(item)
    }
}
