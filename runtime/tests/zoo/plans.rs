//! Runs of plans in a child: there, too, nothing is allocated, however they end.

use svod_runtime::memory::Guard;
use svod_runtime::plan::{Executable, Instance, PlanBuilder};
use svod_runtime::sandbox::{CrashIsolation, Limits, Outcome};
use svod_runtime::signature::Returns;
use svod_runtime::{DType, Error, Signature, Source};

use crate::{host, runtime};

/// Launches a kernel that adds 1 to a state, and then does this.
fn instance(then: &str) -> Instance {
    let text = format!("int err(int *x) {{ x[0] += 1; {then} return 0; }}");
    let signature = Signature::builder().read_write(DType::I32, 8);
    let signature = signature.returns(Returns::Status).build().unwrap();
    let source = Source::c("err", text);
    // SAFETY: it does what the signature says, but for one write beside it, which is within
    // memory that guards are for.
    let kernel = unsafe { runtime().load(&source, signature.clone()) }.unwrap();
    let mut plan = PlanBuilder::new("err");
    let state = plan.state("s", DType::I32, &[8]).unwrap();
    let err = plan.kernel("err", signature);
    plan.launch(err, &[state], &[], 1).unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![kernel], []).unwrap();
    // A write past the end meets no page that cannot be written.
    executable.with_guard(Guard::Start).instance().unwrap()
}

/// A run that completes, one that a status ends, and one that has written beside an argument.
pub(crate) fn check() {
    let mut instances = ["", "return 7;", "((volatile int *)x)[8] = 0;"].map(instance);
    let sandbox = CrashIsolation::new(Limits::default());
    host::forbid_allocation_elsewhere();
    let outcomes = instances.each_mut().map(|plan| sandbox.run_plan(plan, &[]));
    for (what, outcome) in outcomes.into_iter().enumerate() {
        match (what, outcome.unwrap()) {
            (0, Outcome::Completed { .. }) => {}
            (1, Outcome::Failed(Error::KernelStatus { kernel, op, .. })) => {
                assert_eq!((kernel.as_str(), op), ("err", Some(0)));
            }
            (2, Outcome::Failed(Error::Overrun { kernel, buffer, .. })) => {
                assert_eq!(kernel, "err");
                assert_eq!(buffer.as_deref(), Some("state `s`"));
            }
            (what, other) => panic!("{what}: {other}"),
        }
    }
}
