//! Many sources, several at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Options, Source, Toolchain, compile_alone};
use crate::Error;

/// Compiles all sources and tells `done` of each, by its number, as it is ready, from any
/// thread.
pub(super) fn compile_each(
    toolchain: &Toolchain,
    options: &Options,
    sources: &[&Source],
    done: &(dyn Fn(usize, Result<Vec<u8>, Error>) + Sync),
) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let number = || next.fetch_add(1, Ordering::Relaxed);
        while let Some((i, source)) = Some(number()).and_then(|i| Some((i, sources.get(i)?))) {
            done(i, compile_alone(toolchain, source, options));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(sources.len()) {
            // Where the system has no more threads, this one does the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}
