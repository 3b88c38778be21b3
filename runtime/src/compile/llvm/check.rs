//! What LLVM's verifier lets pass, and its code generator crashes on: labels where nothing
//! branches, and values of types that no register and no memory can hold.
//!
//! It is a walk over all instructions, which takes next to nothing beside making code of them.

use std::collections::HashMap;
use std::ffi::CStr;

use super::api::{Api, Ref};

/// LLVM's numbers of kinds of types.
const VOID: i32 = 0;
const DOUBLE: i32 = 3;
const LABEL: i32 = 7;
const INTEGER: i32 = 8;
const STRUCT: i32 = 10;
const ARRAY: i32 = 11;
const POINTER: i32 = 12;
const METADATA: i32 = 14;
const TOKEN: i32 = 16;
const OF_A_TARGET: i32 = 20;

/// LLVM's number of the instruction that takes the next of a variable number of arguments.
const NEXT_ARGUMENT: i32 = 49;

/// The one type of a target's own that this library makes code for, as LLVM writes it.
const COUNT_AS_PREDICATE: &CStr = c"target(\"aarch64.svcount\")";

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
    let mut types = Types {
        api,
        is_arm: architecture == "aarch64",
        known: HashMap::new(),
    };
    // SAFETY: the module is alive, and nobody changes it meanwhile, so that its functions are
    // alive as long; the name of one ends, and lives as long as it does.
    unsafe {
        for function in List::new(api.next_function, (api.first_function)(module)) {
            if let Some(what) = refusal(&mut types, function) {
                let name = CStr::from_ptr((api.value_name)(function, &mut 0));
                let name = name.to_string_lossy();
                return Err(format!(
                    "no code can be made of the function `{name}`: {what}"
                ));
            }
        }
    }
    Ok(())
}

/// What it is about a function that LLVM would crash on.
///
/// # Safety
///
/// The function must be one of a module as [`check`] asks for, whose types these are.
unsafe fn refusal(types: &mut Types<'_>, function: Ref) -> Option<&'static str> {
    let api = types.api;
    // SAFETY: what is in the lists of a function is alive as long as its module, and so are types.
    // Only functions are asked for parameters, types of functions for what these return, and
    // terminators for successors; of operands there are as many as an instruction says, and the
    // verifier has seen to it that none is missing.
    unsafe {
        let first_block = (api.first_block)(function);
        // What is defined elsewhere has no code here, and LLVM's own functions take anything.
        if first_block.is_null() {
            return None;
        }
        let returned = (api.return_type)((api.value_type)(function));
        if (api.type_kind)(returned) != VOID && !types.have_values(returned) {
            return Some("what it returns is of a type that has no values");
        }
        let mut params = List::new(api.next_param, (api.first_param)(function));
        if !params.all(|param| types.have_values((api.type_of)(param))) {
            return Some("one of its parameters is of a type that has no values");
        }
        let blocks = List::new(api.next_block, first_block);
        let of_block = |block| List::new(api.next_instruction, (api.first_instruction)(block));
        for instruction in blocks.flat_map(of_block) {
            let made = (api.type_of)(instruction);
            if (api.opcode)(instruction) == NEXT_ARGUMENT && !types.are_passed(made) {
                return Some("it has a `va_arg` of a type that targets lack it for");
            }
            if !matches!((api.type_kind)(made), VOID | TOKEN) && !types.have_values(made) {
                return Some("one of its values is of a type that has none");
            }
            let mut labels = 0;
            for i in 0..(api.operand_count)(instruction).cast_unsigned() {
                let used = (api.type_of)((api.operand)(instruction, i));
                match (api.type_kind)(used) {
                    LABEL => labels += 1,
                    METADATA | TOKEN => {}
                    _ if types.have_values(used) => {}
                    _ => return Some("it uses a value of a type that has none"),
                }
            }
            let branches = match (api.as_terminator)(instruction).is_null() {
                true => 0,
                false => (api.successor_count)(instruction),
            };
            if labels != branches {
                return Some("a label stands where nothing branches to it");
            }
        }
    }
    None
}

/// What is known of the types of a module.
struct Types<'a> {
    api: &'a Api,
    is_arm: bool,
    /// Whether a structure has values.
    known: HashMap<Ref, bool>,
}

impl Types<'_> {
    /// Whether a type has values that code can be made of, as far as it is not a matter of
    /// instructions. To have a size is another thing: some that are as long as the processor's
    /// vectors have none.
    ///
    /// # Safety
    ///
    /// The type must be alive, as those that were asked for before.
    unsafe fn have_values(&mut self, of: Ref) -> bool {
        let api = self.api;
        // SAFETY: promised by the caller; only structures and arrays are asked for their elements,
        // and structures for as many as they have. A text is LLVM's own, ends, and is disposed of
        // once.
        unsafe {
            match (api.type_kind)(of) {
                VOID | LABEL | METADATA | TOKEN => false,
                ARRAY => self.have_values((api.element)(of)),
                STRUCT => {
                    // One that is in itself ends nowhere.
                    if let Some(known) = self.known.insert(of, false) {
                        self.known.insert(of, known);
                        return known;
                    }
                    let mut elements = 0..(api.element_count)(of);
                    let has_values = (api.is_opaque)(of) == 0
                        && elements.all(|i| self.have_values((api.element_at)(of, i)));
                    self.known.insert(of, has_values);
                    has_values
                }
                OF_A_TARGET => {
                    let text = (api.type_text)(of);
                    let is_it = CStr::from_ptr(text) == COUNT_AS_PREDICATE;
                    (api.message_dispose)(text);
                    self.is_arm && is_it
                }
                _ => true,
            }
        }
    }

    /// Whether each target can take values of a type from a variable number of arguments.
    /// Compilers have their own ways for the others.
    ///
    /// # Safety
    ///
    /// The type must be alive.
    unsafe fn are_passed(&self, of: Ref) -> bool {
        // SAFETY: promised by the caller; only integers are asked for their width.
        unsafe {
            match (self.api.type_kind)(of) {
                DOUBLE | POINTER => true,
                INTEGER => matches!((self.api.integer_width)(of), 32 | 64),
                _ => false,
            }
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
