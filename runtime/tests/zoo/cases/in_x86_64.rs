//! Kernels in C that are x86-64's.

use super::{Case, NO_ADDRESS, WILD, case};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut all = vec![
        case("store_misaligned", 0, "completed"),
        case(
            "load_misaligned",
            1,
            "SIGSEGV Misaligned: read 1[1]+0; in load_misaligned",
        )
        .bytes(16),
        case(
            "store_misaligned",
            8,
            "SIGSEGV Misaligned: wrote 2[1]+0; in store_misaligned",
        )
        .bytes(16),
        case(
            "store_misaligned",
            4,
            "SIGSEGV Misaligned: wrote 2[0]+0; in store_misaligned",
        ),
        case(
            "fill_bytes",
            65,
            "SIGSEGV Memory: wrote 2[8]+1; in fill_bytes",
        ),
        case(
            "copy_words",
            9,
            "SIGSEGV Memory: wrote 2[8]+1; in copy_words",
        ),
        case(
            "read_from_frame",
            NO_ADDRESS,
            "SIGBUS Memory: read 0x4000000000000000; in read_from_frame",
        ),
        case("lose_stack", 8, "SIGSEGV Memory: wrote 0x0; in lose_stack"),
        case(
            "lose_stack",
            0,
            "SIGSEGV Memory: wrote 0xfffffffffffffff8; in lose_stack",
        ),
        case(
            "lose_stack",
            0x1000,
            "SIGSEGV Memory: wrote 0xff8; in lose_stack",
        ),
        case(
            "lose_stack",
            NO_ADDRESS,
            "SIGBUS Memory: wrote 0x3ffffffffffffff8; in lose_stack",
        ),
        case("ud2", 0, "SIGILL IllegalInstruction; in ud2"),
        case(
            "no_instruction",
            0,
            "SIGILL IllegalInstruction; in no_instruction",
        ),
        case("hlt", 0, "SIGSEGV IllegalInstruction; in hlt"),
        case("cli", 0, "SIGSEGV IllegalInstruction; in cli"),
        case("port", 0, "SIGSEGV IllegalInstruction; in port"),
        case("interrupt", 0, "SIGSEGV IllegalInstruction; in interrupt"),
        case("breakpoint", 0, "SIGTRAP Breakpoint; in breakpoint"),
        case("step", 0, "SIGTRAP Breakpoint; in step"),
        case(
            "divide_by_memory",
            0,
            "SIGFPE DivisionByZero; in divide_by_memory",
        ),
        case(
            "least_by_constant",
            0,
            "SIGFPE DivisionByZero; in least_by_constant",
        ),
        case(
            "least_by_constant",
            4,
            "SIGFPE DivisionOverflow; in least_by_constant",
        ),
        case(
            "least_by_written",
            0,
            "SIGFPE DivisionByZero; in least_by_written",
        ),
        case(
            "least_by_written",
            -1,
            "SIGFPE DivisionOverflow; in least_by_written",
        ),
        case(
            "quotient_too_large",
            5,
            "SIGFPE DivisionOverflow; in quotient_too_large",
        ),
        case(
            "quotient_too_large",
            0,
            "SIGFPE DivisionByZero; in quotient_too_large",
        ),
        case("return_to", 0, "SIGSEGV Jump"),
        case("return_to", WILD, "SIGSEGV Jump"),
        case("return_to", NO_ADDRESS, "SIGSEGV Jump; in return_to"),
        case("jump_to", 0, "SIGSEGV Jump"),
        case("jump_to", NO_ADDRESS, "SIGSEGV Jump; in jump_to"),
        case("call_through", 0, "SIGSEGV Jump; in call_through"),
        case("call_through", NO_ADDRESS, "SIGSEGV Jump; in call_through"),
        case(
            "check_alignment",
            0,
            "SIGBUS Misaligned: read 1[0]+0; in check_alignment",
        )
        .bytes(4),
        case("divide_floats", 0, "SIGFPE FloatingPoint; in divide_floats"),
        case(
            "divide_long_doubles",
            0,
            "SIGFPE FloatingPoint; in divide_long_doubles",
        ),
    ];
    for leaves in [
        "leave_alignment_checked",
        "leave_backwards",
        "leave_control",
        "leave_unmasked",
    ] {
        all.push(case(leaves, 0, "completed").idle());
        all.push(tiny());
    }
    if std::is_x86_feature_detected!("avx2") {
        all.extend([
            case("gather", 39, "completed").holds(|data| assert_eq!(data.y()[0], 39.0)),
            case("gather", 40, "SIGSEGV Memory: read 1[40]+1; in gather"),
            case("gather", 44, "SIGSEGV Memory: read 1[44]+17; in gather"),
            case("store_masked", 2, "completed"),
            case(
                "store_masked",
                5,
                "SIGSEGV Memory: wrote 0[10]+1; in store_masked",
            ),
        ]);
    }
    all
}

/// A good one, for which what the processor was told has to be as the ABI has it.
fn tiny() -> Case {
    case("good_tiny", 0, "completed").holds(|data| {
        assert_eq!(data.y()[0], 1e-39);
        assert_eq!(data.v(), [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]);
    })
}
