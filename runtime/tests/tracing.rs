//! What the library tells whoever listens, and that it tells nobody else.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use common::{compilers, with};
use svod_runtime::plan::{Executable, PlanBuilder};
use svod_runtime::{DType, Signature, Source};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Lines that several threads write.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is told at this level while a kernel is compiled, linked and run in a plan.
fn told(level: LevelFilter) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_span_events(FmtSpan::NEW)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let signature = Signature::builder().write(DType::F32, 4).build().unwrap();
        let source = Source::c(
            "ones",
            "void ones(float *y) { for (int i = 0; i < 4; i++) y[i] = 1; }",
        );
        let runtime = with(&compilers()[0]).build().unwrap();
        // SAFETY: the kernel writes the four elements of `y`.
        let kernel = unsafe { runtime.load(&source, signature.clone()) }.unwrap();
        let mut plan = PlanBuilder::new("told");
        let ones = plan.kernel("ones", signature);
        let y = plan.output("y", DType::F32, &[4]).unwrap();
        plan.launch(ones, &[y], &[], 1).unwrap();
        let executable = Executable::new(plan.build().unwrap(), vec![kernel], []).unwrap();
        executable.instance().unwrap().run(&[]).unwrap();
    });
    let lines = lines.0.lock().unwrap().clone();
    String::from_utf8(lines).unwrap()
}

#[test]
fn each_level_says_what_the_ones_above_say_and_more() {
    let quiet = told(LevelFilter::WARN);
    assert_eq!(quiet, "");
    let info = told(LevelFilter::INFO);
    assert!(info.contains("compile{sources=1}"), "{info}");
    assert!(!info.contains("process{"), "{info}");
    let debug = told(LevelFilter::DEBUG);
    for span in ["compile{sources=1}", "process{program=", "link{objects=1"] {
        assert!(debug.contains(span), "no {span} in {debug}");
    }
    assert!(!debug.contains("run{"), "{debug}");
    let trace = told(LevelFilter::TRACE);
    assert!(trace.contains("run{plan=\"told\"}"), "{trace}");
}
