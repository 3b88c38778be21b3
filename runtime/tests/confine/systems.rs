//! Systems that lack a protection.

use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use svod_runtime::confine::{Protection, Protections};
use svod_runtime::{Error, RuntimeBuilder, Source};

use crate::Test;
use crate::compilers::confinement;

pub(crate) const TESTS: &[Test] = &[
    ("where_tests_run_all_is_there", where_tests_run_all_is_there),
    (
        "what_a_system_lacks_is_named_and_refused",
        what_a_system_lacks_is_named_and_refused,
    ),
];

#[track_caller]
pub(crate) fn assert_confined(error: &Error) {
    assert!(
        error.to_string().contains("the compiler was confined"),
        "{error}"
    );
}

/// Does something on a thread, in whose system this call is not there.
fn without<T: Send>(call: i64, work: impl FnOnce() -> T + Send) -> T {
    let filter = SeccompFilter::new(
        [(call, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn where_tests_run_all_is_there() {
    let there = Protections::of_this_system();
    let missing: Vec<_> = there.missing().collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(there.landlock_version().is_some_and(|version| version > 0));
}

fn what_a_system_lacks_is_named_and_refused() {
    for (call, protection, name) in [
        (
            libc::SYS_landlock_create_ruleset,
            Protection::Landlock,
            "Landlock",
        ),
        (libc::SYS_seccomp, Protection::Seccomp, "seccomp"),
    ] {
        without(call, || {
            let there = Protections::of_this_system();
            let missing: Vec<Protection> = there.missing().map(|(missing, _)| missing).collect();
            assert_eq!(missing, [protection]);
            let builder = || RuntimeBuilder::from_env().no_cache();
            let error = builder()
                .confine_compilers(confinement())
                .build()
                .unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Confinement { .. }), "{text}");
            assert!(text.contains(&format!("lacks {name}")), "{text}");
            assert!(text.contains("Confinement::allow_less"), "{text}");
            // With less, what is there is used.
            let less = confinement().allow_less(true);
            let runtime = builder().confine_compilers(less).build().unwrap();
            runtime
                .compile(&Source::c("k", "void k(void) {}\n"))
                .unwrap();
            let source = Source::c("k", "#include \"/etc/passwd\"\nvoid k(void) {}\n");
            let error = runtime.compile(&source).unwrap_err();
            if protection != Protection::Landlock {
                assert_confined(&error);
            }
        });
    }
}
