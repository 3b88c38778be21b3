//! Kernels in C, for every architecture.

use std::sync::atomic::Ordering;

use super::{Case, Kind, NO_ADDRESS, OF_THE_HOST, OF_THE_SYSTEM, WILD, case};
use crate::data::Data;
use crate::host::is_sanitized;

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut all = good();
    all.extend(memory());
    all.extend(anywhere());
    all.extend(ends());
    #[cfg(target_arch = "x86_64")]
    all.extend(instructions());
    all
}

fn good() -> Vec<Case> {
    vec![
        case("good", 3, "completed").holds(|data| {
            let y: Vec<f32> = (0..10)
                .map(|k| (2 * k + [0, 1, 2, 3, -1][k as usize % 5]) as f32)
                .collect();
            assert_eq!(data.y(), y);
            assert_eq!(data.v(), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        }),
        case("good_grid", 0, "completed").grid(10).holds(|data| {
            let y: Vec<f32> = (0..10).map(|i| (4 * i) as f32).collect();
            assert_eq!(data.y(), y);
        }),
        case("good_stack", 0, "completed"),
        case("fails", 0, "status 3 at 0"),
        case("fails", 7, "status 3 at 7").grid(10),
        case("fails", 11, "completed").grid(10).idle(),
    ]
}

fn memory() -> Vec<Case> {
    vec![
        // Past the end, where no slack is.
        case("write_v", 8, "SIGSEGV Memory: wrote 2[8]+1; in write_v").bytes(8),
        case("write_v", 9, "SIGSEGV Memory: wrote 2[9]+9; in write_v"),
        case(
            "write_v",
            800,
            "SIGSEGV Memory: wrote 2[800]+6337; in write_v",
        ),
        case("read_v", 8, "SIGSEGV Memory: read 2[8]+1; in read_v"),
        case("read_x", 40, "SIGSEGV Memory: read 1[40]+1; in read_x").bytes(4),
        case("read_x", 41, "SIGSEGV Memory: read 1[41]+5; in read_x"),
        case(
            "read_x",
            8000,
            "SIGSEGV Memory: read 1[8000]+31841; in read_x",
        ),
        case(
            "write_byte",
            64,
            "SIGSEGV Memory: wrote 2[8]+1; in write_byte",
        )
        .bytes(1),
        case(
            "write_byte",
            73,
            "SIGSEGV Memory: wrote 2[9]+10; in write_byte",
        ),
        case("loop_too_far", 7, "completed").holds(|data| {
            assert_eq!(data.v(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        }),
        case(
            "loop_too_far",
            8,
            "SIGSEGV Memory: read 2[8]+1; in loop_too_far",
        ),
        // Past the end, and past the slack.
        case("write_y", 12, "SIGSEGV Memory: wrote 0[12]+9; in write_y"),
        case("read_y", 12, "SIGSEGV Memory: read 0[12]+9; in read_y"),
        case("read_n", 8, "SIGSEGV Memory: read 3[8]+13; in read_n"),
        // In the slack.
        case("write_y", 10, "overran 0: bytes 1 to 4 past its end"),
        case("write_y", 11, "overran 0: bytes 5 to 8 past its end"),
        case("write_v", -1, "overran 2: bytes 1 to 8 before its start"),
        case("write_grid", 0, "overran 2: bytes 1 to 8 past its end")
            .grid(9)
            .start(),
        case("read_n", 5, "completed"),
        // Before the start.
        case("write_y", -1, "SIGSEGV Memory: wrote 0[-1]+1; in write_y")
            .start()
            .bytes(4),
        case("write_v", -2, "SIGSEGV Memory: wrote 2[-2]+9; in write_v").start(),
        case("read_x", -1, "SIGSEGV Memory: read 1[-1]+1; in read_x").start(),
        case(
            "read_n",
            -100,
            "SIGSEGV Memory: read 3[-100]+397; in read_n",
        )
        .start(),
        case(
            "write_byte",
            -9,
            "SIGSEGV Memory: wrote 2[-2]+9; in write_byte",
        )
        .start(),
        // What is only read.
        case("write_x", 0, "SIGSEGV Memory: wrote 1[0]+0; in write_x"),
        case("write_x", 39, "SIGSEGV Memory: wrote 1[39]+0; in write_x"),
        case("write_n", 4, "SIGSEGV Memory: wrote 3[4]+0; in write_n"),
        case("write_n", 5, "SIGSEGV Memory: wrote 3[5]+1; in write_n"),
        case("write_n", 2, "SIGSEGV Memory: wrote 3[2]+0; in write_n").start(),
        case("make_writable", 0, "completed").idle(),
        // At some index of the grid.
        case(
            "write_grid",
            0,
            "SIGSEGV Memory at 8: wrote 2[8]+1; in write_grid",
        )
        .grid(20),
        case(
            "read_row",
            0,
            "SIGSEGV Memory at 5: read 1[40]+1; in read_row",
        )
        .grid(10),
        // Many bytes at once: the first that is outside.
        case(
            "write_vector16",
            7,
            "SIGSEGV Memory: wrote 2[8]+1; in write_vector16",
        )
        .bytes(16),
        case(
            "write_vector16",
            8,
            "SIGSEGV Memory: wrote 2[8]+1; in write_vector16",
        ),
        case(
            "write_vector16",
            -1,
            "SIGSEGV Memory: wrote 2[-1]+1; in write_vector16",
        )
        .start(),
        case(
            "write_vector32",
            5,
            "SIGSEGV Memory: wrote 2[8]+1; in write_vector32",
        ),
        case(
            "write_vector32",
            6,
            "SIGSEGV Memory: wrote 2[8]+1; in write_vector32",
        ),
        case(
            "read_vector16",
            37,
            "SIGSEGV Memory: read 1[40]+1; in read_vector16",
        ),
        case("read_vector16", 36, "completed").holds(|data| {
            assert_eq!(data.y()[..4], [36.0, 37.0, 38.0, 39.0]);
        }),
        case(
            "write_atomic",
            8,
            "SIGSEGV Memory: wrote 2[8]+1; in write_atomic",
        )
        .bytes(8),
        // In what a kernel calls.
        case("set_memory", 64, "completed"),
        case(
            "set_memory",
            65,
            of_callee("SIGSEGV Memory: wrote 2[8]+1; in set_memory"),
        ),
        case(
            "copy_memory",
            65,
            of_callee("SIGSEGV Memory: wrote 2[8]+1; in copy_memory"),
        ),
    ]
}

/// What is told of a fault in a function that a kernel calls. AddressSanitizer has such functions of
/// its own, from which the way back to the kernel is not seen.
fn of_callee(told: &'static str) -> &'static str {
    match told.split_once("; in ") {
        Some((told, _)) if is_sanitized() => told,
        _ => told,
    }
}

/// Memory that is no argument's, stacks and jumps.
fn anywhere() -> Vec<Case> {
    vec![
        case(
            "read_address",
            0,
            "SIGSEGV Memory: read 0x0; in read_address",
        ),
        case(
            "write_address",
            0,
            "SIGSEGV Memory: wrote 0x0; in write_address",
        ),
        case(
            "read_address",
            8,
            "SIGSEGV Memory: read 0x8; in read_address",
        ),
        case(
            "read_address",
            WILD,
            "SIGSEGV Memory: read 0x12345678; in read_address",
        ),
        case(
            "write_address",
            WILD,
            "SIGSEGV Memory: wrote 0x12345678; in write_address",
        ),
        case(
            "read_address",
            NO_ADDRESS,
            "SIGSEGV Memory: read 0x4000000000000000; in read_address",
        ),
        case(
            "write_address",
            NO_ADDRESS,
            "SIGSEGV Memory: wrote 0x4000000000000000; in write_address",
        ),
        case(
            "read_address",
            OF_THE_SYSTEM,
            "SIGSEGV Memory: read 0xffff800000000000; in read_address",
        ),
        case(
            "write_code",
            0,
            "SIGSEGV Memory: wrote elsewhere; in write_code",
        ),
        case(
            "write_address",
            OF_THE_HOST.as_ptr().expose_provenance() as i64,
            "completed",
        )
        .holds(|data| {
            assert_eq!(OF_THE_HOST.load(Ordering::Relaxed), 0x600d);
            assert_eq!(*data, Data::new());
        }),
        case("recurse", 0, "SIGSEGV StackOverflow; in deep"),
        case("huge_frame", 0, "SIGSEGV StackOverflow; in huge_frame"),
        case(
            "huge_frame",
            4 << 20,
            "SIGSEGV StackOverflow; in huge_frame",
        ),
        case("vast_frame", 0, "SIGSEGV StackOverflow; in vast_frame"),
        case(
            "drop_stack",
            0,
            "SIGSEGV Memory: wrote elsewhere; in drop_stack",
        ),
        case("call_address", 0, "SIGSEGV Jump; in call_address"),
        case("call_address", WILD, "SIGSEGV Jump; in call_address"),
        case("call_address", NO_ADDRESS, "SIGSEGV Jump; in call_address"),
        case(
            "call_address",
            OF_THE_SYSTEM,
            "SIGSEGV Jump; in call_address",
        ),
        case("call_buffer", 0, "SIGSEGV Jump; in call_buffer"),
    ]
}

/// What other processors do not stop at, or call otherwise.
#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<Case> {
    vec![
        case("divide32", 0, "SIGFPE DivisionByZero; in divide32"),
        case("divide64", 0, "SIGFPE DivisionByZero; in divide64"),
        case("remainder32", 0, "SIGFPE DivisionByZero; in remainder32"),
        case(
            "unsigned_divide",
            0,
            "SIGFPE DivisionByZero; in unsigned_divide",
        ),
        case("divide32", 2, "completed").holds(|data| assert_eq!(data.y()[0], 3.0)),
        case(
            "least_divide32",
            -1,
            "SIGFPE DivisionOverflow; in least_divide32",
        ),
        case(
            "least_divide64",
            -1,
            "SIGFPE DivisionOverflow; in least_divide64",
        ),
        case(
            "least_remainder",
            -1,
            "SIGFPE DivisionOverflow; in least_remainder",
        ),
        case(
            "least_divide32",
            0,
            "SIGFPE DivisionByZero; in least_divide32",
        ),
        case("trap", 0, "SIGILL IllegalInstruction; in trap"),
    ]
}

fn ends() -> Vec<Case> {
    vec![
        case(
            "send_signal",
            libc::SIGABRT.into(),
            "SIGABRT Abort; in send_signal",
        ),
        case(
            "send_to_thread",
            libc::SIGABRT.into(),
            "SIGABRT Abort; in send_to_thread",
        ),
        case("send_signal", libc::SIGKILL.into(), "SIGKILL Killed"),
        case("send_signal", libc::SIGTERM.into(), "SIGTERM Killed"),
        case("send_signal", libc::SIGUSR1.into(), "SIGUSR1 Killed"),
        case(
            "send_signal",
            libc::SIGSEGV.into(),
            "SIGSEGV Killed; in send_signal",
        ),
        case(
            "send_signal",
            libc::SIGFPE.into(),
            "SIGFPE Killed; in send_signal",
        ),
        case(
            "send_signal",
            libc::SIGPROF.into(),
            "SIGPROF Killed; in send_signal",
        ),
        case(
            "send_to_thread",
            libc::SIGBUS.into(),
            "SIGBUS Killed; in send_to_thread",
        ),
        case("send_signal", libc::SIGCHLD.into(), "completed").idle(),
        case("send_signal", libc::SIGSTOP.into(), "timed out: Wall").kind(Kind::Wall),
        case("signal_group", libc::SIGKILL.into(), "SIGKILL Killed"),
        case("end_process", 0, "Exited(0)"),
        case("end_process", 7, "Exited(7)"),
        case("end_process", 121, "Exited(121)"),
        case("end_process", 122, "Exited(122)"),
        case("end_thread", 3, "Exited(3)"),
        case("loop_forever", 0, "timed out: Wall").kind(Kind::Wall),
        case("sleep_forever", 0, "timed out: Wall").kind(Kind::Wall),
        case("block_then_loop", 0, "timed out: Wall").kind(Kind::Wall),
        case("loop_forever", 0, "timed out: Cpu").kind(Kind::Cpu),
        case("default_then_loop", 0, "timed out: Cpu").kind(Kind::Cpu),
        case("hog", 0, "out of memory").kind(Kind::Memory),
        case("hog_addresses", 0, "out of memory").kind(Kind::Memory),
        case("leave_child", 2, "completed").holds(|data| {
            assert!(
                data.v()[..2].iter().all(|id| is_gone(*id)),
                "{:?}",
                data.v()
            );
        }),
        case("default_then_read", 0, "SIGSEGV Memory"),
        case("ignore_then_read", 0, "SIGSEGV Memory"),
        case("block_then_read", 0, "SIGSEGV Memory"),
        case(
            "no_stack_then_read",
            0,
            "SIGSEGV Memory: read 0x0; in no_stack_then_read",
        ),
        case("no_stack_then_recurse", 0, "SIGSEGV Memory"),
    ]
}

/// Waits until a process is gone, or one that has ended and whose parent does not ask.
fn is_gone(id: f64) -> bool {
    assert!(id > 1.0);
    loop {
        match std::fs::read_to_string(format!("/proc/{id}/stat")) {
            Ok(stat) if !stat.contains(") Z") && !stat.contains(") X") => std::thread::yield_now(),
            _ => return true,
        }
    }
}
