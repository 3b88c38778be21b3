//! What LLVM's verifier lets pass, and its code generator crashes on: labels, which only a branch
//! may have, where any other value stands, and values of types that have no size.
//!
//! It is a walk over all instructions, which takes next to nothing beside making code of them.

use std::ffi::CStr;

use super::api::{Api, Ref};

/// LLVM's numbers of kinds of types, and of instructions.
const VOID: i32 = 0;
const LABEL: i32 = 7;
const TOKEN: i32 = 16;
const INVOKE: i32 = 5;
const CALL: i32 = 45;
const CALL_BRANCH: i32 = 67;

/// Refuses a module that LLVM would crash on.
///
/// # Errors
///
/// Which function it is, and what about it.
///
/// # Safety
///
/// The module must be alive, of this library, and have passed its verifier.
pub(super) unsafe fn check(api: &Api, module: Ref) -> Result<(), String> {
    let refused = |function, what| {
        // SAFETY: the function is alive, and its name lives as long as it does.
        let name = unsafe { CStr::from_ptr((api.value_name)(function, &mut 0)) };
        Err(format!(
            "no code can be made of the function `{}`: {what}",
            name.to_string_lossy()
        ))
    };
    // SAFETY: LLVM's lists end in null, and what is in them is alive as long as the module, which
    // nobody changes meanwhile. Only functions are asked for parameters, calls for arguments, and
    // instructions for operands, of which there are as many as they say.
    unsafe {
        let kind = |value| (api.type_kind)((api.type_of)(value));
        let is_sized = |value| (api.is_sized)((api.type_of)(value)) != 0;
        let of_module = List(api.next_function, (api.first_function)(module));
        for function in of_module {
            let first_block = (api.first_block)(function);
            // What is defined elsewhere has no code here, and LLVM's own functions take anything.
            if first_block.is_null() {
                continue;
            }
            let mut params = List(api.next_param, (api.first_param)(function));
            if !params.all(is_sized) {
                return refused(
                    function,
                    "one of its parameters is of a type that has no size",
                );
            }
            let blocks = List(api.next_block, first_block);
            let instructions =
                blocks.flat_map(|b| List(api.next_instruction, (api.first_instruction)(b)));
            for instruction in instructions {
                if !matches!(kind(instruction), VOID | TOKEN) && !is_sized(instruction) {
                    return refused(function, "one of its values is of a type that has no size");
                }
                let values = match (api.opcode)(instruction) {
                    CALL | INVOKE | CALL_BRANCH => (api.argument_count)(instruction),
                    _ if !(api.as_terminator)(instruction).is_null() => 0,
                    _ => (api.operand_count)(instruction).cast_unsigned(),
                };
                let mut values = (0..values).map(|i| (api.operand)(instruction, i));
                if values.any(|value| kind(value) == LABEL) {
                    return refused(function, "a label stands where no branch is");
                }
            }
        }
    }
    Ok(())
}

/// The rest of one of LLVM's lists.
struct List(unsafe extern "C" fn(Ref) -> Ref, Ref);

impl Iterator for List {
    type Item = Ref;

    fn next(&mut self) -> Option<Ref> {
        let item = self.1;
        if item.is_null() {
            return None;
        }
        // SAFETY: whoever made the list keeps what is in it alive, and the function is the one
        // that goes on in lists of its kind.
        self.1 = unsafe { (self.0)(item) };
        Some(item)
    }
}
