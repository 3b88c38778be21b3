//! Kernels made ready, as a person watches it.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use svod_runtime::bundle::{Bundle, Load, Progress, Upgrade};
use svod_runtime::compile::Origin;
use svod_runtime::plan::Executable;
use svod_runtime::sandbox::UntrustedCode;
use svod_runtime::{Error, OptLevel, Runtime};

use crate::show;

/// What it took to make kernels ready.
#[derive(Clone, Copy)]
pub(crate) struct Loading {
    pub(crate) time: Duration,
    pub(crate) compiled: usize,
    pub(crate) cached: usize,
    pub(crate) carried: usize,
}

impl Loading {
    /// `3 kernels ready in 2 ms (2 compiled, 1 from the cache)`
    pub(crate) fn line(&self) -> String {
        let Loading {
            time,
            compiled,
            cached,
            carried,
        } = *self;
        let kernels = show::count(compiled + cached + carried, "kernel");
        let time = show::duration(time);
        format!("{kernels} ready in {time} ({})", self.origins())
    }

    /// `2 compiled, 1 from the cache`
    pub(crate) fn origins(&self) -> String {
        let counts = [
            (self.compiled, "compiled"),
            (self.cached, "from the cache"),
            (self.carried, "from the bundle"),
        ];
        let some = counts.into_iter().filter(|(n, _)| *n > 0);
        let words: Vec<_> = some.map(|(n, what)| format!("{n} {what}")).collect();
        if words.is_empty() {
            "nothing to compile".into()
        } else {
            words.join(", ")
        }
    }
}

/// A bar that counts kernels, and says how many were there already.
pub(crate) struct Watch {
    bar: ProgressBar,
    start: Instant,
    compiled: AtomicUsize,
    cached: AtomicUsize,
    carried: AtomicUsize,
}

impl Watch {
    /// For so many kernels; visible where a person looks.
    pub(crate) fn new(kernels: usize) -> Watch {
        let visible = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = if visible {
            ProgressBar::new(kernels as u64)
        } else {
            ProgressBar::hidden()
        };
        // The template is right as long as it is not edited; without it the bar is
        // merely plainer.
        if let Ok(style) = ProgressStyle::with_template("compiling {bar:30} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.tick();
        Watch {
            bar,
            start: Instant::now(),
            compiled: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
            carried: AtomicUsize::new(0),
        }
    }

    /// Counts a kernel that is ready.
    pub(crate) fn count(&self, progress: Progress<'_>) {
        let count = match progress.origin {
            Origin::Compiled => &self.compiled,
            Origin::Cached => &self.cached,
            Origin::Carried => &self.carried,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if !self.bar.is_hidden() {
            let there = self.cached.load(Ordering::Relaxed) + self.carried.load(Ordering::Relaxed);
            let kernel = show::plain(progress.kernel);
            let message = match there {
                0 => kernel,
                there => format!("({there} were there) {kernel}"),
            };
            self.bar.set_message(message);
            // Several threads report; only the count is sure to grow.
            self.bar.inc(1);
        }
    }

    /// Clears the bar, and says what came of it.
    pub(crate) fn finish(self) -> Loading {
        self.bar.finish_and_clear();
        Loading {
            time: self.start.elapsed(),
            compiled: self.compiled.into_inner(),
            cached: self.cached.into_inner(),
            carried: self.carried.into_inner(),
        }
    }
}

/// Makes a bundle's kernels ready, behind a progress bar.
pub(crate) fn load(
    bundle: &Bundle,
    runtime: &Runtime,
    carried: bool,
) -> Result<(Executable, Loading), Error> {
    watched(bundle, carried, |load| {
        // SAFETY: whoever calls this command on a bundle trusts it as a program, as
        // the help says; its files are not written while it runs.
        unsafe { bundle.load_with(runtime, load) }
    })
}

/// As [`load`], with quickly compiled code where there is no better; better code follows.
pub(crate) fn load_quickly(
    bundle: &Bundle,
    runtime: &Runtime,
    carried: bool,
) -> Result<((Executable, Upgrade), Loading), Error> {
    watched(bundle, carried, |load| {
        // SAFETY: as in `load`.
        unsafe { bundle.load_tiered(runtime, load, OptLevel::O0) }
    })
}

/// As [`load`], for kernels that nobody vouches for.
pub(crate) fn load_untrusted(
    bundle: &Bundle,
    runtime: &Runtime,
    carried: bool,
) -> Result<(UntrustedCode, Loading), Error> {
    watched(bundle, carried, |load| bundle.load_untrusted(runtime, load))
}

/// Does it behind a progress bar, and says what it took.
pub(crate) fn watched<T>(
    bundle: &Bundle,
    carried: bool,
    load: impl FnOnce(&Load<'_>) -> Result<T, Error>,
) -> Result<(T, Loading), Error> {
    let watch = Watch::new(bundle.plan().kernels().len());
    let loaded = load(&Load {
        progress: &|progress| watch.count(progress),
        carried,
    });
    let loading = watch.finish();
    Ok((loaded?, loading))
}
