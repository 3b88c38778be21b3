//! Kernels in LLVM's intermediate representation.

use super::{Case, case};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    vec![
        case("ir_good", 0, "completed").holds(|data| {
            assert_eq!(data.y()[..8], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]);
        }),
        case("ir_store", 8, "SIGSEGV Memory: wrote 2[8]+1; in ir_store").bytes(8),
        case(
            "ir_store_vector",
            7,
            "SIGSEGV Memory: wrote 2[8]+1; in ir_store_vector",
        )
        .bytes(16),
        case(
            "ir_gather",
            40,
            "SIGSEGV Memory: read 1[40]+1; in ir_gather",
        ),
        case("ir_divide", 0, "SIGFPE DivisionByZero; in ir_divide"),
        case("ir_call", 0, "SIGSEGV Jump; in ir_call"),
        case("ir_trap", 0, "SIGILL IllegalInstruction; in ir_trap"),
    ]
}
