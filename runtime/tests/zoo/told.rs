//! An outcome as a short line, of all in it that must be exact.

use std::fmt::Write as _;

use svod_runtime::Error;
use svod_runtime::sandbox::{Access, Crash, Outcome, signal_name};

pub(crate) fn told(outcome: &Outcome, kernel: &str) -> String {
    let named = |name: &str| assert_eq!(name, kernel, "{outcome}");
    match outcome {
        Outcome::Completed { .. } => "completed".into(),
        Outcome::Failed(Error::KernelStatus {
            status,
            index,
            kernel,
            ..
        }) => {
            named(kernel);
            format!("status {status} at {index}")
        }
        Outcome::Failed(Error::Overrun {
            argument,
            stray,
            kernel,
            ..
        }) => {
            named(kernel);
            format!("overran {argument}: {stray}")
        }
        Outcome::Crashed(crash) => {
            named(&crash.at.kernel);
            crashed(crash)
        }
        Outcome::TimedOut { limit, at, .. } => {
            named(&at.kernel);
            format!("timed out: {limit:?}")
        }
        Outcome::OutOfMemory { at, .. } => {
            named(&at.kernel);
            "out of memory".into()
        }
        other => format!("{other:?}"),
    }
}

fn crashed(crash: &Crash) -> String {
    let mut text = match crash.signal {
        0 => String::new(),
        signal => format!("{} ", signal_name(signal)),
    };
    write!(text, "{:?}", crash.fault).unwrap();
    if crash.at.index > 0 {
        write!(text, " at {}", crash.at.index).unwrap();
    }
    if let Some(access) = &crash.access {
        write!(text, ": {}", touched(access)).unwrap();
    }
    if let Some(code) = &crash.code {
        write!(text, "; in {}", code.function).unwrap();
    }
    text
}

fn touched(access: &Access) -> String {
    let verb = match access.write {
        Some(true) => "wrote",
        Some(false) => "read",
        None => "touched",
    };
    match &access.argument {
        // Where code and stacks lie is another address each time.
        None if (1 << 32..1 << 47).contains(&access.address) => format!("{verb} elsewhere"),
        None => format!("{verb} {:#x}", access.address),
        Some(place) => {
            let (argument, element, outside) = (place.argument, place.element, place.outside);
            format!("{verb} {argument}[{element}]+{outside}")
        }
    }
}
