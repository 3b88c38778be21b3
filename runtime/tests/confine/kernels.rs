//! The rights of a kernel: a process of this program takes all others from itself, and then tries
//! what a kernel has no business with.

use std::ffi::{c_int, c_void};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{ptr, thread};

use svod_runtime::confine::{Protections, Rights, one_heap, system_call_name};
use svod_runtime::plan::{Executable, PlanBuilder, Schedule};
use svod_runtime::pool::Pool;
use svod_runtime::{Arg, DType};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "what_a_kernel_tries_is_stopped_and_named",
        what_a_kernel_tries_is_stopped_and_named,
    ),
    ("what_a_kernel_needs_it_has", what_a_kernel_needs_it_has),
    (
        "other_ways_into_the_system_are_closed",
        other_ways_into_the_system_are_closed,
    ),
    (
        "rights_are_taken_in_a_forked_child_too",
        rights_are_taken_in_a_forked_child_too,
    ),
];

/// What this program is called when it is to be a kernel.
pub(crate) const NAME: &str = "posing-kernel";

/// How a process ends that was stopped.
const STOPPED: i32 = 77;

/// Says which call it was, and ends.
extern "C" fn stopped(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system hands over what it knows, in which the number of the call follows three
    // numbers, what they are padded to, and an address.
    let call = unsafe { *info.cast::<i32>().add(6) };
    let name = system_call_name(call.into()).unwrap_or("a call");
    // SAFETY: it writes text that is there, and ends the process.
    unsafe {
        libc::write(1, name.as_ptr().cast(), name.len());
        libc::_exit(STOPPED);
    }
}

pub(crate) fn become_kernel(what: &str) -> ExitCode {
    // SAFETY: all of it is numbers, for which 0 says nothing, and the handler makes calls that a
    // handler may make.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = stopped as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut());
    }
    one_heap();
    let spin = Duration::from_micros(50);
    let pool = Pool::builder().threads(4).spin(spin, spin).build();
    let executable = squares(&pool);
    let there = Protections::of_this_system();
    let rights = Rights::kernel().unwrap().as_far_as(&there);
    rights.apply().unwrap();
    match what {
        "compute" => compute(&executable),
        _ => attempt(what),
    }
    println!("done");
    ExitCode::SUCCESS
}

/// Tries something; the result is 0, or the system's error, where it comes to that.
fn attempt(what: &str) {
    let path = c"/etc/passwd".as_ptr();
    let nothing: *const c_void = ptr::null();
    // SAFETY: what is pointed at is there, and what would start a process or end this one is
    // not reached where the tests pass.
    let result = unsafe {
        match what {
            #[cfg(target_arch = "x86_64")]
            "open" => libc::syscall(libc::SYS_open, path, libc::O_RDONLY),
            #[cfg(target_arch = "x86_64")]
            "fork" => libc::syscall(libc::SYS_fork),
            #[cfg(target_arch = "x86_64")]
            "vfork" => libc::syscall(libc::SYS_vfork),
            #[cfg(target_arch = "x86_64")]
            "x32" => libc::syscall(0x4000_0000 | libc::SYS_openat, libc::AT_FDCWD, path, 0),
            #[cfg(target_arch = "x86_64")]
            "i386" => {
                let number: usize;
                // Number 5 is `open` there.
                std::arch::asm!("int 0x80", inlateout("rax") 5_usize => number);
                number.cast_signed().try_into().unwrap()
            }
            "openat" => libc::open(path, libc::O_RDONLY).into(),
            "openat2" => libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, nothing, 0),
            "socket" => libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0).into(),
            "socketpair" => {
                let mut pair = [0; 2];
                libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()).into()
            }
            "clone" => libc::fork().into(),
            "clone3" => libc::syscall(libc::SYS_clone3, nothing, 0),
            "execve" => libc::execv(c"/bin/true".as_ptr(), [ptr::null()].as_ptr()).into(),
            "ptrace" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0),
            "kill" => libc::kill(1, 0).into(),
            "tgkill" => {
                libc::abort();
            }
            "memfd_create" => libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0),
            "process_vm_readv" => {
                libc::syscall(libc::SYS_process_vm_readv, 1, nothing, 0, nothing, 0, 0)
            }
            "io_uring_setup" => libc::syscall(libc::SYS_io_uring_setup, 1, nothing),
            "prctl" => libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0),
            "rt_sigaction" => {
                let default = libc::signal(libc::SIGSYS, libc::SIG_DFL);
                i64::from(default == libc::SIG_ERR)
            }
            "madvise" => libc::madvise(ptr::null_mut(), 4096, libc::MADV_HWPOISON).into(),
            "prlimit64" => {
                let mut limit: libc::rlimit = std::mem::zeroed();
                libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit).into()
            }
            "seccomp" => libc::syscall(libc::SYS_seccomp, 0, 0, nothing),
            _ => panic!("{what}"),
        }
    };
    let error = std::io::Error::last_os_error();
    println!("{what} returned {result}: {error}");
}

/// A plan for several threads.
fn squares(pool: &Pool) -> Executable {
    let mut plan = PlanBuilder::new("squares");
    let sum = plan.state("sum", DType::U64, &[8]).unwrap();
    for i in 0..8 {
        let part = sum.part(8 * i..8 * (i + 1)).read_write();
        let square = plan.host("square", &[part], move |args| {
            let [Arg::Write(part)] = args else {
                return Ok(());
            };
            part.reborrow().into_slice::<u64>()?[0] += (i * i) as u64;
            Ok(())
        });
        square.unwrap();
    }
    let plan = plan.build().unwrap();
    let waves = Schedule::waves(&plan, 1);
    let executable = Executable::new(plan, Vec::new(), []).unwrap();
    let executable = executable.with_schedule(&waves).unwrap();
    executable.with_pool(pool.clone())
}

/// What a pool of threads does, and allocators, and clocks.
fn compute(executable: &Executable) {
    let mut instance = executable.instance().unwrap();
    for _ in 0..100 {
        instance.run(&[]).unwrap();
    }
    let sums = instance.state("sum").unwrap();
    let sum: u64 = sums.as_slice::<u64>().unwrap().iter().sum();
    assert_eq!(sum, 14_000);
    let total = Arc::new(Mutex::new(0));
    let threads = (0..8_usize).map(|i| {
        let total = total.clone();
        let work = move || {
            let mut rows = Vec::new();
            for size in 0..2000 {
                rows.push(vec![i; size]);
            }
            thread::sleep(Duration::from_millis(1));
            *total.lock().unwrap() += rows.iter().map(Vec::len).sum::<usize>();
            drop(rows);
            // More than an allocator keeps.
            drop(vec![0_u8; 100 << 20]);
        };
        thread::Builder::new()
            .name(format!("kernel-{i}"))
            .spawn(work)
            .unwrap()
    });
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(*total.lock().unwrap(), 8 * 1999 * 1000);
    // A panic is caught, with its message on standard error.
    let caught = thread::spawn(|| panic!("on purpose")).join();
    assert!(caught.is_err());
}

/// What comes of a kernel that tries this.
fn tries(what: &str) -> Output {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(what).env_remove("RUST_BACKTRACE");
    command.output().unwrap()
}

#[track_caller]
fn assert_stopped(what: &str, name: &str) {
    let output = tries(what);
    assert_eq!(output.status.code(), Some(STOPPED), "{what}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), name, "{what}");
}

fn what_a_kernel_tries_is_stopped_and_named() {
    if cfg!(target_arch = "x86_64") {
        for what in ["open", "fork", "vfork"] {
            assert_stopped(what, what);
        }
    }
    for what in [
        "openat",
        "openat2",
        "socket",
        "socketpair",
        "clone",
        "execve",
        "ptrace",
        "kill",
        "tgkill",
        "memfd_create",
        "process_vm_readv",
        "io_uring_setup",
        "prctl",
        "rt_sigaction",
        "madvise",
        "prlimit64",
        "seccomp",
    ] {
        assert_stopped(what, what);
    }
}

fn what_a_kernel_needs_it_has() {
    let output = tries("compute");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("on purpose"));
}

fn other_ways_into_the_system_are_closed() {
    // It is not there, so that libc asks for a thread by another call.
    let output = tries("clone3");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("clone3 returned -1: Function not implemented"),
        "{said}"
    );
    if cfg!(target_arch = "x86_64") {
        assert_stopped("x32", "a call");
        // Another architecture's: by the filter, or by a system that has none.
        let status = tries("i386").status;
        assert!(
            [Some(libc::SIGSYS), Some(libc::SIGSEGV)].contains(&status.signal()),
            "{status}"
        );
    }
}

fn rights_are_taken_in_a_forked_child_too() {
    let rights = Rights::kernel().unwrap();
    // SAFETY: the child makes system calls, and ends by one of them.
    let child = unsafe { libc::fork() };
    assert_ne!(child, -1);
    if child == 0 {
        let status = i32::from(rights.apply().is_ok());
        // SAFETY: it opens a file, which ends the process.
        unsafe {
            libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY);
            libc::_exit(status);
        }
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and the status is there.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status), "{status}");
    assert_eq!(libc::WTERMSIG(status), libc::SIGSYS);
}
