//! The functions of LLVM's C interface that are used, as they stand in its headers `Core.h`,
//! `IRReader.h`, `Analysis.h`, `TargetMachine.h`, `Error.h` and `Transforms/PassBuilder.h`.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libloading::Library;

/// Any object of LLVM's.
pub(super) type Ref = *mut c_void;
/// An integer that is 0 for false.
pub(super) type Bool = c_int;
pub(super) type DiagnosticHandler = unsafe extern "C" fn(info: Ref, context: *mut c_void);
pub(super) type FatalHandler = unsafe extern "C" fn(reason: *const c_char);

macro_rules! api {
    ($($name:ident = $symbol:literal: fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// Functions of one library, which is never closed.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl Api {
            /// Looks all of them up, or names one that is not there.
            ///
            /// # Safety
            ///
            /// The library must be LLVM's, or have no function of these names that is of another
            /// type, and must stay open for as long as a function is called.
            pub(super) unsafe fn find(library: &Library) -> Result<Api, &'static str> {
                Ok(Api {
                    $($name: {
                        // SAFETY: a function of that name is of this type, promised by the
                        // caller.
                        let found = unsafe { library.get(concat!($symbol, "\0").as_bytes()) };
                        *found.map_err(|_| $symbol)?
                    },)*
                })
            }
        }
    };
}

api! {
    context_create = "LLVMContextCreate": fn() -> Ref;
    context_dispose = "LLVMContextDispose": fn(Ref);
    set_diagnostic_handler = "LLVMContextSetDiagnosticHandler": fn(Ref, DiagnosticHandler, *mut c_void);
    diagnostic_text = "LLVMGetDiagInfoDescription": fn(Ref) -> *mut c_char;
    diagnostic_severity = "LLVMGetDiagInfoSeverity": fn(Ref) -> c_int;
    message_dispose = "LLVMDisposeMessage": fn(*mut c_char);
    buffer_copy = "LLVMCreateMemoryBufferWithMemoryRangeCopy": fn(*const c_char, usize, *const c_char) -> Ref;
    buffer_start = "LLVMGetBufferStart": fn(Ref) -> *const c_char;
    buffer_size = "LLVMGetBufferSize": fn(Ref) -> usize;
    buffer_dispose = "LLVMDisposeMemoryBuffer": fn(Ref);
    parse = "LLVMParseIRInContext": fn(Ref, Ref, *mut Ref, *mut *mut c_char) -> Bool;
    module_dispose = "LLVMDisposeModule": fn(Ref);
    verify = "LLVMVerifyModule": fn(Ref, c_int, *mut *mut c_char) -> Bool;
    first_function = "LLVMGetFirstFunction": fn(Ref) -> Ref;
    next_function = "LLVMGetNextFunction": fn(Ref) -> Ref;
    first_param = "LLVMGetFirstParam": fn(Ref) -> Ref;
    next_param = "LLVMGetNextParam": fn(Ref) -> Ref;
    first_block = "LLVMGetFirstBasicBlock": fn(Ref) -> Ref;
    next_block = "LLVMGetNextBasicBlock": fn(Ref) -> Ref;
    first_instruction = "LLVMGetFirstInstruction": fn(Ref) -> Ref;
    next_instruction = "LLVMGetNextInstruction": fn(Ref) -> Ref;
    opcode = "LLVMGetInstructionOpcode": fn(Ref) -> c_int;
    as_terminator = "LLVMIsATerminatorInst": fn(Ref) -> Ref;
    operand_count = "LLVMGetNumOperands": fn(Ref) -> c_int;
    successor_count = "LLVMGetNumSuccessors": fn(Ref) -> c_uint;
    operand = "LLVMGetOperand": fn(Ref, c_uint) -> Ref;
    value_name = "LLVMGetValueName2": fn(Ref, *mut usize) -> *const c_char;
    type_of = "LLVMTypeOf": fn(Ref) -> Ref;
    type_kind = "LLVMGetTypeKind": fn(Ref) -> c_int;
    type_text = "LLVMPrintTypeToString": fn(Ref) -> *mut c_char;
    value_type = "LLVMGlobalGetValueType": fn(Ref) -> Ref;
    return_type = "LLVMGetReturnType": fn(Ref) -> Ref;
    integer_width = "LLVMGetIntTypeWidth": fn(Ref) -> c_uint;
    is_opaque = "LLVMIsOpaqueStruct": fn(Ref) -> Bool;
    element_count = "LLVMCountStructElementTypes": fn(Ref) -> c_uint;
    element_at = "LLVMStructGetTypeAtIndex": fn(Ref, c_uint) -> Ref;
    element = "LLVMGetElementType": fn(Ref) -> Ref;
    module_target = "LLVMGetTarget": fn(Ref) -> *const c_char;
    set_module_target = "LLVMSetTarget": fn(Ref, *const c_char);
    default_triple = "LLVMGetDefaultTargetTriple": fn() -> *mut c_char;
    host_cpu = "LLVMGetHostCPUName": fn() -> *mut c_char;
    host_features = "LLVMGetHostCPUFeatures": fn() -> *mut c_char;
    target_of = "LLVMGetTargetFromTriple": fn(*const c_char, *mut Ref, *mut *mut c_char) -> Bool;
    machine_create = "LLVMCreateTargetMachine": fn(Ref, *const c_char, *const c_char, *const c_char, c_int, c_int, c_int) -> Ref;
    machine_dispose = "LLVMDisposeTargetMachine": fn(Ref);
    machine_layout = "LLVMCreateTargetDataLayout": fn(Ref) -> Ref;
    layout_dispose = "LLVMDisposeTargetData": fn(Ref);
    set_module_layout = "LLVMSetModuleDataLayout": fn(Ref, Ref);
    emit = "LLVMTargetMachineEmitToMemoryBuffer": fn(Ref, Ref, c_int, *mut *mut c_char, *mut Ref) -> Bool;
    passes_create = "LLVMCreatePassBuilderOptions": fn() -> Ref;
    passes_dispose = "LLVMDisposePassBuilderOptions": fn(Ref);
    passes_slp = "LLVMPassBuilderOptionsSetSLPVectorization": fn(Ref, Bool);
    passes_loops = "LLVMPassBuilderOptionsSetLoopVectorization": fn(Ref, Bool);
    passes_interleaving = "LLVMPassBuilderOptionsSetLoopInterleaving": fn(Ref, Bool);
    passes_unrolling = "LLVMPassBuilderOptionsSetLoopUnrolling": fn(Ref, Bool);
    run_passes = "LLVMRunPasses": fn(Ref, *const c_char, Ref, Ref) -> Ref;
    error_message = "LLVMGetErrorMessage": fn(Ref) -> *mut c_char;
    error_message_dispose = "LLVMDisposeErrorMessage": fn(*mut c_char);
    install_fatal_handler = "LLVMInstallFatalErrorHandler": fn(FatalHandler);
    reset_fatal_handler = "LLVMResetFatalErrorHandler": fn();
}

/// The version, as libraries from 16 on tell it.
pub(super) fn version(library: &Library) -> Option<u32> {
    type GetVersion = unsafe extern "C" fn(*mut c_uint, *mut c_uint, *mut c_uint);
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: LLVM's function of that name takes three pointers to numbers, which it writes.
    unsafe {
        let get = library.get::<GetVersion>(b"LLVMGetVersion\0").ok()?;
        get(&raw mut major, &raw mut minor, &raw mut patch);
    }
    Some(major)
}

/// Makes a target known, where the library has it.
pub(super) fn initialise(library: &Library, target: &str) {
    for part in [
        "TargetInfo",
        "Target",
        "TargetMC",
        "AsmPrinter",
        "AsmParser",
    ] {
        let name = format!("LLVMInitialize{target}{part}\0");
        // SAFETY: LLVM's functions of these names take nothing and return nothing, and may be
        // called again.
        unsafe {
            if let Ok(initialise) = library.get::<unsafe extern "C" fn()>(name.as_bytes()) {
                initialise();
            }
        }
    }
}
