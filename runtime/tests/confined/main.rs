//! Kernels and plans in a helper, which is this program: what they are given and nothing else.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use support::{Files, X, Y, runtime};
use svod_runtime::bundle::{Bundle, Load};
use svod_runtime::confine::{Helper, Protection, Protections};
use svod_runtime::memory::Guard;
use svod_runtime::sandbox::{
    Confined, Fault, Launch, Limits, Outcome, PlanOptions, TimeLimit, Untrusted, enter,
};
use svod_runtime::signature::Returns;
use svod_runtime::{Bounds, Buffer, DType, Error, Scalar, Signature, Source, View};

fn main() {
    enter();
    // What a system lacks cannot be installed.
    let there = Protections::of_this_system();
    let needed = [
        Protection::NoNewPrivileges,
        Protection::Seccomp,
        Protection::Limits,
    ];
    if let Some(lacks) = needed.iter().find(|needed| !there.has(**needed)) {
        println!("skipped: this system lacks {lacks}");
        return;
    }
    if std::env::args().nth(1).as_deref() == Some(HOST) {
        be_a_host();
    }
    let tests: [(&str, fn()); 14] = [
        ("what_is_computed_comes_back", what_is_computed_comes_back),
        (
            "what_goes_wrong_is_named_and_the_next_goes_on",
            what_goes_wrong_is_named,
        ),
        ("the_system_is_out_of_reach", the_system_is_out_of_reach),
        ("nothing_is_inherited", nothing_is_inherited),
        ("the_first_descriptors_stay", the_first_descriptors_stay),
        (
            "a_helper_ends_with_its_host_whatever_runs_there",
            a_helper_ends_with_its_host,
        ),
        ("the_host_cannot_be_read", the_host_cannot_be_read),
        ("a_plan_is_what_it_is_here", a_plan_is_what_it_is_here),
        ("a_plan_that_failed_is_torn", a_plan_that_failed_is_torn),
        ("a_plan_learns_its_schedule", a_plan_learns_its_schedule),
        (
            "a_plan_that_goes_wrong_is_named",
            a_plan_that_goes_wrong_is_named,
        ),
        (
            "a_plan_cannot_reach_the_system",
            a_plan_cannot_reach_the_system,
        ),
        (
            "a_kernel_without_an_object_is_refused",
            a_kernel_without_an_object_is_refused,
        ),
        (
            "a_program_that_is_no_helper_is_an_error",
            a_program_that_is_no_helper_is_an_error,
        ),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn sandbox() -> Confined {
    let limits = Limits::default().wall(Duration::from_millis(300));
    Confined::new(Helper::this_program().unwrap(), limits).unwrap()
}

/// Bare system calls, of which a kernel has no library.
const SYSTEM_CALL: &str = r#"
static long ask(long number, long a, long b, long c) {
#if defined(__x86_64__)
    register long r10 __asm__("r10") = 0;
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return number;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}
"#;

/// Adds 1 to each of 8 elements, and then does what it is told to.
fn obey() -> Untrusted {
    let text = "
        int obey(int *x, int what) {
            for (int i = 0; i < 8; i++) x[i] += 1;
            volatile int zero = 0;
            switch (what) {
            case 1: for (;;) __asm__ volatile(\"\");
            case 2: return 7;
            case 3: ((volatile int *)x)[8] = 0; break;
            case 4: x[0] /= zero; break;
            case 5: ((volatile int *)x)[-1] = 0; break;
            }
            return 0;
        }";
    let signature = Signature::builder()
        .read_write(DType::I32, 8)
        .scalar(DType::I32, "what", Bounds::Any)
        .returns(Returns::Status)
        .build()
        .unwrap();
    let source = Source::c("obey", text);
    runtime().load_untrusted(&source, signature).unwrap()
}

fn launch<'a>(kernel: &'a Untrusted, x: &'a mut Buffer, what: i32) -> Launch<'a> {
    Launch::new(kernel, vec![x.into()], &[Scalar::I32(what)], 1)
}

fn what_is_computed_comes_back() {
    let (sandbox, kernel) = (sandbox(), obey());
    let mut x = Buffer::zeroed(DType::I32, 8).unwrap();
    for run in 1..5 {
        let outcome = sandbox.run(launch(&kernel, &mut x, 0)).unwrap();
        assert!(outcome.is_completed(), "{outcome}");
        assert_eq!(x.as_slice::<i32>().unwrap(), [run; 8]);
    }
}

fn what_goes_wrong_is_named() {
    let (sandbox, kernel) = (sandbox(), obey());
    let whats = [0, 3, 0, 1, 2, 4, 5, 0];
    let mut buffers: Vec<_> = whats.map(|_| Buffer::zeroed(DType::I32, 8).unwrap()).into();
    let launches = buffers.iter_mut().zip(whats);
    let mut launches: Vec<_> = launches
        .map(|(x, what)| {
            let launch = launch(&kernel, x, what);
            if what == 5 {
                launch.guard(Guard::Start)
            } else {
                launch
            }
        })
        .collect();
    let outcomes = sandbox.run_all(&mut launches).unwrap();
    drop(launches);
    for (what, outcome) in whats.iter().zip(&outcomes) {
        match (what, outcome) {
            (0, Outcome::Completed { .. }) => {}
            (1, Outcome::TimedOut { limit, at, .. }) => {
                assert_eq!((*limit, at.kernel.as_str()), (TimeLimit::Wall, "obey"));
            }
            (2, Outcome::Failed(Error::KernelStatus { status: 7, .. })) => {}
            (3 | 5, Outcome::Crashed(crash)) => {
                assert_eq!(crash.fault, Fault::Memory);
                let access = crash.access.as_ref().unwrap();
                let place = access.argument.as_ref().unwrap();
                let element = if *what == 3 { 8 } else { -1 };
                assert_eq!((place.element, place.outside), (element, 1));
                assert_eq!(crash.code.as_ref().unwrap().function, "obey");
            }
            (4, Outcome::Crashed(crash)) if cfg!(target_arch = "x86_64") => {
                assert_eq!(crash.fault, Fault::DivisionByZero);
            }
            (4, _) => {}
            (what, other) => panic!("{what}: {other}"),
        }
    }
    for (buffer, what) in buffers.iter().zip(whats) {
        let expected = i32::from(what == 0);
        assert_eq!(buffer.as_slice::<i32>().unwrap(), [expected; 8], "{what}");
    }
}

/// A kernel that makes a system call, and writes what comes of it.
fn asker(number: i64) -> Untrusted {
    let text = format!(
        "{SYSTEM_CALL}
        void asker(long *x) {{ static const char path[] = \"/etc/passwd\";
            x[0] = ask({number}, (long)path, 0, 0); }}"
    );
    let signature = Signature::builder().write(DType::I64, 1).build().unwrap();
    let source = Source::c("asker", text);
    runtime().load_untrusted(&source, signature).unwrap()
}

fn the_system_is_out_of_reach() {
    let sandbox = sandbox();
    let calls = [
        ("openat", libc::SYS_openat),
        ("socket", libc::SYS_socket),
        ("execve", libc::SYS_execve),
        ("ptrace", libc::SYS_ptrace),
        ("kill", libc::SYS_kill),
        #[cfg(target_arch = "x86_64")]
        ("open", libc::SYS_open),
        #[cfg(target_arch = "x86_64")]
        ("fork", libc::SYS_fork),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("ftruncate", libc::SYS_ftruncate),
    ];
    for (name, number) in calls {
        let kernel = asker(number);
        let mut x = Buffer::zeroed(DType::I64, 1).unwrap();
        let outcome = sandbox.run(Launch::new(&kernel, vec![(&mut x).into()], &[], 1));
        match outcome.unwrap() {
            Outcome::Denied { system_call, at } => {
                assert_eq!((system_call.as_str(), at.kernel.as_str()), (name, "asker"));
            }
            other => panic!("{name}: {other}"),
        }
    }
}

/// What becomes of a system call with a descriptor, and of bytes where it takes some; and what comes
/// of it.
fn with_descriptor(number: i64, descriptor: i64) -> (Outcome, i64) {
    let text = format!(
        "{SYSTEM_CALL}
        void user(long *x, long file) {{ static const char byte[] = \"!\";
            x[0] = ask({number}, file, (long)byte, 1); }}"
    );
    let signature = Signature::builder()
        .write(DType::I64, 1)
        .scalar(DType::I64, "file", Bounds::Any)
        .build()
        .unwrap();
    let source = Source::c("user", text);
    let kernel = runtime().load_untrusted(&source, signature).unwrap();
    let mut x = Buffer::zeroed(DType::I64, 1).unwrap();
    let scalars = [Scalar::I64(descriptor)];
    let launch = Launch::new(&kernel, vec![(&mut x).into()], &scalars, 1);
    let outcome = sandbox().run(launch).unwrap();
    (outcome, x.as_slice::<i64>().unwrap()[0])
}

/// By the pipe among them the system tells a helper that its host has ended. Of a descriptor the
/// system reads 32 bits.
fn the_first_descriptors_stay() {
    for descriptor in [0, 1, 2, 1 << 32 | 1] {
        match with_descriptor(libc::SYS_close, descriptor).0 {
            Outcome::Denied { system_call, .. } => assert_eq!(system_call, "close"),
            other => panic!("{descriptor}: {other}"),
        }
    }
    let (outcome, refused) = with_descriptor(libc::SYS_close, 1000);
    assert!(outcome.is_completed(), "{outcome}");
    assert_eq!(refused, -i64::from(libc::EBADF));
}

/// Nothing that the host has open, whatever it says of who inherits it.
fn nothing_is_inherited() {
    let mut pipe = [0; 2];
    // SAFETY: it writes two numbers, which live until it returns.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let (outcome, refused) = with_descriptor(libc::SYS_write, pipe[1].into());
    assert!(outcome.is_completed(), "{outcome}");
    assert_eq!(refused, -i64::from(libc::EBADF));
}

/// What this program is started with to be a host that is killed.
const HOST: &str = "a host that is killed";

/// Runs a kernel that takes its timers away and does not end.
fn be_a_host() -> ! {
    let timer = libc::SYS_setitimer;
    let text = format!(
        "{SYSTEM_CALL}
        void stay(int *x) {{ static const long never[4];
            for (int which = 0; which < 3; which++) ask({timer}, which, (long)never, 0);
            for (;;) __asm__ volatile(\"\"); }}"
    );
    let signature = Signature::builder().write(DType::I32, 1).build().unwrap();
    let kernel = runtime().load_untrusted(&Source::c("stay", text), signature);
    let kernel = kernel.unwrap();
    let limits = Limits::default().wall(Duration::from_secs(600));
    let sandbox = Confined::new(Helper::this_program().unwrap(), limits).unwrap();
    let mut x = Buffer::zeroed(DType::I32, 1).unwrap();
    println!("ready");
    let outcome = sandbox.run(Launch::new(&kernel, vec![(&mut x).into()], &[], 1));
    panic!("it was to be killed before: {outcome:?}");
}

fn a_helper_ends_with_its_host() {
    let mut host = Command::new(std::env::current_exe().unwrap());
    let mut host = host.arg(HOST).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(host.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let id = host.id();
    let children = format!("/proc/{id}/task/{id}/children");
    // It is there, and code may run in it.
    let helper: i32 = loop {
        assert!(host.try_wait().unwrap().is_none(), "it ended by itself");
        let found = fs::read_to_string(&children).unwrap();
        let Some(helper) = found.split_whitespace().next() else {
            thread::yield_now();
            continue;
        };
        let status = fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
        if status.contains("Seccomp:\t2") {
            break helper.parse().unwrap();
        }
        thread::yield_now();
    };
    let helper = Pid::from_raw(helper).unwrap();
    let end = pidfd_open(helper, PidfdFlags::empty()).unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    let half_a_minute = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    let ended = poll(
        &mut [PollFd::new(&end, PollFlags::IN)],
        Some(&half_a_minute),
    )
    .unwrap();
    if ended == 0 {
        kill_process(helper, Signal::KILL).unwrap();
    }
    assert_eq!(ended, 1, "the helper is there, and its host is gone");
}

fn the_host_cannot_be_read() {
    static SECRET: i64 = 42;
    let signature = Signature::builder()
        .write(DType::I64, 1)
        .scalar(DType::I64, "at", Bounds::Any)
        .build()
        .unwrap();
    let source = Source::c(
        "peek",
        "void peek(long *x, long at) { x[0] = *(long *)at; }",
    );
    let kernel = runtime().load_untrusted(&source, signature).unwrap();
    let mut x = Buffer::zeroed(DType::I64, 1).unwrap();
    let address = std::ptr::from_ref(&SECRET).expose_provenance() as i64;
    let launch = Launch::new(&kernel, vec![(&mut x).into()], &[Scalar::I64(address)], 1);
    let outcome = sandbox().run(launch).unwrap();
    // The program is the same, and may lie at the same address; what it has there is not this
    // process's.
    assert!(matches!(outcome, Outcome::Crashed(_)) || x.as_slice::<i64>().unwrap() == [42]);
}

fn a_plan_is_what_it_is_here() {
    let files = Files::small();
    let bundle = files.open().unwrap();
    let sandbox = sandbox();
    for options in [
        PlanOptions::default(),
        PlanOptions::default().threads(2),
        PlanOptions::default().guard(Guard::End),
        PlanOptions::default().guard(Guard::Start),
    ] {
        let mut plan = sandbox
            .load(&bundle, runtime(), &Load::default(), options)
            .unwrap();
        let error = plan.run(&[("n", 8)]).unwrap_err();
        assert!(error.to_string().contains("not given"), "{error}");
        plan.set_input("x", View::from_slice(&X)).unwrap();
        for run in 1..4_i64 {
            let outcome = plan.run(&[("n", 8)]).unwrap();
            assert!(outcome.is_completed(), "{outcome}");
            assert_eq!(plan.output("y").unwrap().as_slice::<f32>().unwrap(), Y);
            let runs = plan.output("runs").unwrap();
            assert_eq!(runs.as_slice::<i64>().unwrap(), [run]);
        }
        plan.reset().unwrap();
        assert!(plan.run(&[("n", 8)]).unwrap().is_completed());
        assert_eq!(plan.output("runs").unwrap().as_slice::<i64>().unwrap(), [1]);
        assert!(plan.run(&[("n", 9)]).is_err());
    }
}

/// What is learned takes some runs, after which nothing may be asked of the system either.
fn a_plan_learns_its_schedule() {
    const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits");
    let bundle = Bundle::open(DIGITS).unwrap();
    let sandbox = Confined::new(Helper::this_program().unwrap(), Limits::default()).unwrap();
    let options = PlanOptions::default().threads(3);
    let load = Load::default();
    let mut plan = sandbox.load(&bundle, runtime(), &load, options).unwrap();
    for _ in 0..100 {
        let report = bundle.run_test(&bundle.tests()[0], &mut plan).unwrap();
        assert!(report.is_within());
    }
}

fn a_plan_that_goes_wrong_is_named() {
    let files = Files::small();
    let bad = support::AFFINE.replace("t[i] =", "if (n == 7 && i == 6) t[12] = 0; t[i] =");
    files.text("kernels/affine.c", &bad);
    let bundle = files.open().unwrap();
    let sandbox = sandbox();
    for options in [
        PlanOptions::default().guard(Guard::End),
        PlanOptions::default().guard(Guard::End).threads(2),
    ] {
        let mut plan = sandbox
            .load(&bundle, runtime(), &Load::default(), options)
            .unwrap();
        plan.set_input("x", View::from_slice(&X)).unwrap();
        assert!(plan.run(&[("n", 8)]).unwrap().is_completed());
        let outcome = plan.run(&[("n", 7)]).unwrap();
        let Outcome::Crashed(crash) = &outcome else {
            panic!("{outcome}");
        };
        assert_eq!(
            (crash.at.kernel.as_str(), crash.fault),
            ("affine", Fault::Memory)
        );
        let place = crash.access.as_ref().unwrap().argument.as_ref().unwrap();
        assert_eq!((place.argument, place.element, place.outside), (0, 12, 17));
        assert!(crash.at.op.is_some() && place.buffer.is_some());
        // Another helper, with new states.
        assert!(plan.run(&[("n", 8)]).unwrap().is_completed());
        assert_eq!(plan.output("runs").unwrap().as_slice::<i64>().unwrap(), [1]);
    }
}

/// What a failed run has left is told as it is here: it is no crash.
fn a_plan_that_failed_is_torn() {
    let mut files = Files::small();
    files.set("/kernels/1/returns", "status".into());
    files.text(
        "kernels/count.c",
        "int count(long long *runs) { runs[0] += 1; return runs[0] == 2; }",
    );
    let bundle = files.open().unwrap();
    let (sandbox, load) = (sandbox(), Load::default());
    let options = PlanOptions::default();
    let mut plan = sandbox.load(&bundle, runtime(), &load, options).unwrap();
    plan.set_input("x", View::from_slice(&X)).unwrap();
    assert!(plan.run(&[("n", 8)]).unwrap().is_completed());
    let outcome = plan.run(&[("n", 8)]).unwrap();
    let Outcome::Failed(Error::KernelStatus { op, status, .. }) = outcome else {
        panic!("{outcome}");
    };
    assert_eq!((op, status), (Some(3), 1));
    let error = plan.run(&[("n", 8)]).unwrap_err().to_string();
    assert!(error.contains("torn"), "{error}");
    plan.reset().unwrap();
    assert!(plan.run(&[("n", 8)]).unwrap().is_completed());
}

fn a_plan_cannot_reach_the_system() {
    let files = Files::small();
    let number = libc::SYS_socket;
    let count =
        format!("{SYSTEM_CALL} void count(long long *r) {{ r[0] = ask({number}, 1, 1, 0); }}");
    files.text("kernels/count.c", &count);
    let bundle = files.open().unwrap();
    let sandbox = sandbox();
    let load = Load::default();
    let mut plan = sandbox
        .load(&bundle, runtime(), &load, PlanOptions::default())
        .unwrap();
    plan.set_input("x", View::from_slice(&X)).unwrap();
    let outcome = plan.run(&[("n", 8)]).unwrap();
    let Outcome::Denied { system_call, at } = &outcome else {
        panic!("{outcome}");
    };
    assert_eq!(
        (system_call.as_str(), at.kernel.as_str()),
        ("socket", "count")
    );
}

fn a_kernel_without_an_object_is_refused() {
    // SAFETY: nothing runs it.
    let kernel = Untrusted::new(unsafe { obey().vouch() });
    let mut x = Buffer::zeroed(DType::I32, 8).unwrap();
    let error = sandbox().run(launch(&kernel, &mut x, 0)).unwrap_err();
    assert!(error.to_string().contains("no object"), "{error}");
}

fn a_program_that_is_no_helper_is_an_error() {
    let sandbox = Confined::new(Helper::program("/bin/true"), Limits::default()).unwrap();
    let kernel = obey();
    let mut x = Buffer::zeroed(DType::I32, 8).unwrap();
    let error = sandbox.run(launch(&kernel, &mut x, 0)).unwrap_err();
    assert!(error.to_string().contains("helper"), "{error}");
}
