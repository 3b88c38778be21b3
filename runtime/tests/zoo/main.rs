//! A zoo of kernels that go wrong, each of which must be called by its name.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod host;
mod plans;
mod told;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use svod_runtime::compile::Object;
use svod_runtime::link::ObjectFile;
use svod_runtime::link::disassembly::Listing;
use svod_runtime::sandbox::{CrashIsolation, Outcome, Untrusted};
use svod_runtime::{Runtime, RuntimeBuilder, Source};

use cases::{Case, Kind};
use data::{Data, signature};
use told::told;

/// Nothing is allocated in a child, where a thread that is not there could hold a lock for it.
#[global_allocator]
static ALLOCATOR: host::Allocator = host::Allocator;

/// How many launches are made at once. To fork takes as much longer as there are mappings.
const LIST: usize = 12;

/// One test at a time: they look at the threads and descriptors of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| RuntimeBuilder::from_env().build().unwrap())
}

/// All cases, and the kernels that they are of.
struct Zoo {
    cases: Vec<Case>,
    kernels: HashMap<&'static str, Untrusted>,
    listings: HashMap<&'static str, Listing>,
}

impl Zoo {
    fn new() -> Zoo {
        let mut zoo = Zoo {
            cases: Vec::new(),
            kernels: HashMap::new(),
            listings: HashMap::new(),
        };
        let compile = |source| runtime().compile(&source).unwrap_or_else(|e| panic!("{e}"));
        let source = Source::c("good", include_str!("kernels.c"));
        zoo.add(&compile(source), cases::in_c::all());
        #[cfg(target_arch = "x86_64")]
        {
            let source = Source::c("ud2", include_str!("x86_64.c"));
            zoo.add(&compile(source), cases::in_x86_64::all());
        }
        let source = Source::llvm_ir("ir_good", include_str!("kernels.ll"));
        match runtime().compile(&source) {
            Ok(object) => zoo.add(&object, cases::in_llvm_ir::all()),
            Err(error) => common::skip(&error.to_string()),
        }
        zoo
    }

    /// An object's kernels, and what is done with them.
    fn add(&mut self, object: &Object, cases: Vec<Case>) {
        let listing = ObjectFile::parse(object.entry(), object.bytes());
        let listing = listing.unwrap().disassemble();
        for case in &cases {
            let of_one = || {
                let object = Object::new(case.kernel, object.bytes().to_vec());
                runtime().link_untrusted(object, signature()).unwrap()
            };
            self.kernels.entry(case.kernel).or_insert_with(of_one);
            self.listings
                .entry(case.kernel)
                .or_insert_with(|| listing.clone());
        }
        self.cases.extend(cases);
    }

    /// Runs the cases of one kind in lists of launches, and checks how each ended.
    fn run(&self, sandbox: &CrashIsolation, kind: Kind) {
        let cases: Vec<&Case> = self.cases.iter().filter(|case| case.kind == kind).collect();
        for cases in cases.chunks(LIST) {
            let mut data: Vec<Data> = cases.iter().map(|_| Data::new()).collect();
            let with_data = cases.iter().zip(&mut data);
            let mut launches: Vec<_> = with_data
                .map(|(case, data)| data.launch(&self.kernels[case.kernel], case))
                .collect();
            let outcomes = sandbox.run_all(&mut launches).unwrap();
            drop(launches);
            for ((case, outcome), data) in cases.iter().zip(&outcomes).zip(&data) {
                self.check(case, outcome, data);
            }
        }
    }

    /// Runs one case.
    fn run_alone(&self, case: &Case) {
        let sandbox = CrashIsolation::new(case.kind.limits());
        let mut data = Data::new();
        let launch = data.launch(&self.kernels[case.kernel], case);
        let outcome = sandbox.run(launch).unwrap();
        self.check(case, &outcome, &data);
    }

    #[track_caller]
    fn check(&self, case: &Case, outcome: &Outcome, data: &Data) {
        let (kernel, at) = (case.kernel, case.at);
        let what = format!("{kernel}({at}): {outcome}");
        assert_eq!(told(outcome, kernel), case.told, "{what}");
        data.check_constants();
        if outcome.is_completed() {
            (case.holds)(data);
        } else {
            assert_eq!(*data, Data::new(), "{what}");
        }
        if let Outcome::Crashed(crash) = outcome {
            let access = crash.access.as_ref();
            if case.bytes.is_some() && cfg!(target_arch = "x86_64") {
                assert_eq!(access.and_then(|access| access.bytes), case.bytes, "{what}");
            }
            self.check_code(case, outcome, &what);
        }
    }

    /// The place in the code is one at which an instruction begins, and the text is that
    /// instruction's.
    #[track_caller]
    fn check_code(&self, case: &Case, outcome: &Outcome, what: &str) {
        let Outcome::Crashed(crash) = outcome else {
            return;
        };
        let Some(code) = &crash.code else { return };
        let function = self.listings[case.kernel].function(&code.function);
        let mut instructions = function.expect(what).instructions.iter();
        let found = instructions.find(|instruction| instruction.offset == code.offset);
        let found = found.unwrap_or_else(|| panic!("no instruction begins there: {what}"));
        if cfg!(target_arch = "x86_64") && found.is_known {
            let first = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
            let text = code.instruction.as_deref().unwrap_or_default();
            assert_eq!(first(text), first(&found.text), "{what}");
        }
    }
}

/// How many times the whole zoo is gone through beside a host that is busy.
fn rounds() -> usize {
    let set = std::env::var("SVOD_TEST_ZOO_ROUNDS").ok();
    set.map_or(2, |rounds| rounds.parse().unwrap())
}

#[test]
fn every_one_is_called_by_its_name() {
    let _alone = alone();
    let zoo = Zoo::new();
    host::forbid_allocation_elsewhere();
    // All that are wrong are told.
    let is_wrong = |case: &&Case| catch_unwind(AssertUnwindSafe(|| zoo.run_alone(case))).is_err();
    assert_eq!(zoo.cases.iter().filter(is_wrong).count(), 0);
}

#[test]
fn runs_of_plans_allocate_as_little() {
    let _alone = alone();
    plans::check();
}

#[test]
fn and_again_and_again_beside_a_host_that_is_busy() {
    let _alone = alone();
    let zoo = Zoo::new();
    host::forbid_allocation_elsewhere();
    let sandboxes = Kind::ALL.map(|kind| (kind, CrashIsolation::new(kind.limits())));
    let round = || {
        for (kind, sandbox) in &sandboxes {
            zoo.run(sandbox, *kind);
        }
    };
    round();
    let busy = host::kernel();
    let handlers = host::Handlers::install();
    let before = host::Taken::now();
    let computed = host::beside_busy_threads(&busy, || {
        for i in 0..rounds() {
            if i % 2 == 1 {
                // Whose children's ends are told to nobody.
                handlers.ignore_children();
            }
            round();
        }
    });
    host::Taken::now().check_against(before);
    handlers.check();
    assert!(computed.iter().all(|&count| count > 0), "{computed:?}");
}
