//! Runs of plans in a child: there, too, nothing is allocated, however they end.

use svod_runtime::memory::Guard;
use svod_runtime::plan::{Executable, Instance, PlanBuilder};
use svod_runtime::sandbox::{CrashIsolation, Limits, Outcome};
use svod_runtime::signature::Returns;
use svod_runtime::{Bounds, DType, Error, Signature, Source};

use crate::{host, runtime};

const TEXT: &str = "
    int err(int *x, int what) {
        x[0] += 1;
        if (what == 1) return 7;
        if (what == 2) ((volatile int *)x)[8] = 0;
        return 0;
    }";

/// Launches the kernel twice on the same state, and errs in the second.
fn instance(what: i64) -> Instance {
    let signature = Signature::builder()
        .read_write(DType::I32, 8)
        .scalar(DType::I32, "what", Bounds::Any)
        .returns(Returns::Status)
        .build()
        .unwrap();
    let source = Source::c("err", TEXT);
    // SAFETY: it does what the signature says, but for one write beside it, which is within
    // memory that guards are for.
    let kernel = unsafe { runtime().load(&source, signature.clone()) }.unwrap();
    let mut plan = PlanBuilder::new("err");
    let state = plan.state("s", DType::I32, &[8]).unwrap();
    let err = plan.kernel("err", signature);
    plan.launch(err, &[state], &[("what", 0.into())], 1)
        .unwrap();
    plan.launch(err, &[state], &[("what", what.into())], 1)
        .unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![kernel], []).unwrap();
    // A write past the end meets no page that cannot be written.
    executable.with_guard(Guard::Start).instance().unwrap()
}

/// A run that completes, one that a status ends, and one that has written beside an argument.
pub(crate) fn check() {
    let mut instances = [0, 1, 2].map(instance);
    let sandbox = CrashIsolation::new(Limits::default());
    host::forbid_allocation_elsewhere();
    let outcomes = instances.each_mut().map(|plan| sandbox.run_plan(plan, &[]));
    for (what, outcome) in outcomes.into_iter().enumerate() {
        match (what, outcome.unwrap()) {
            (0, Outcome::Completed { .. }) => {}
            (1, Outcome::Failed(Error::KernelStatus { kernel, op, .. })) => {
                assert_eq!((kernel.as_str(), op), ("err", Some(1)));
            }
            (2, Outcome::Failed(Error::Overrun { kernel, buffer, .. })) => {
                assert_eq!(kernel, "err");
                assert_eq!(buffer.as_deref(), Some("state `s`"));
            }
            (what, other) => panic!("{what}: {other}"),
        }
    }
}
