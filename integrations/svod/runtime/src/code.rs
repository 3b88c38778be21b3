//! Kernels that are compiled beside Svod's own work.
//!
//! Svod prepares a plan on one thread: it schedules and optimises a graph, and hands over the
//! text of one kernel after the other. To compile each at once would make it wait for a
//! compiler each time. Here a text is put down, and a thread takes all that lie there, has the
//! library compile them together, in few processes, and looks again. Whoever needs a kernel that
//! nobody has begun with takes all that lie there itself.
//!
//! A process that is forked has none of these threads but the one that forked. What was begun with
//! is therefore noted with the process, and in another one begun with again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::compile::Source;
use engine::{Kernel, Signature};

use crate::{Error, Result, engine};

/// A kernel that is compiled, or will be.
pub(crate) struct Code {
    pub(crate) source: Source,
    pub(crate) signature: Signature,
    /// Where among Svod's values the grid index stands; ours is no value.
    pub(crate) index: Option<usize>,
    made: OnceLock<Kernel>,
    /// How far it is, if it is not made. Under the lock of what waits.
    progress: Mutex<Progress>,
}

/// How far a code is that is not made.
enum Progress {
    /// Nobody has begun with it.
    Waits,
    /// A thread of this process is at it.
    Begun(u32),
    /// It could not be made, which nobody knows yet.
    Failed(String),
}

/// What lies there to be compiled, and the process of the thread that looks after it, or 0.
struct Waiting {
    codes: Vec<Arc<Code>>,
    attended: u32,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    codes: Vec::new(),
    attended: 0,
});

/// That some code was made, or could not be.
static MADE: Condvar = Condvar::new();

impl Code {
    /// Puts a kernel down to be compiled.
    pub(crate) fn put_down(
        source: Source,
        signature: Signature,
        index: Option<usize>,
    ) -> Arc<Code> {
        let code = Arc::new(Code {
            source,
            signature,
            index,
            made: OnceLock::new(),
            progress: Mutex::new(Progress::Waits),
        });
        let here = std::process::id();
        let mut waiting = lock();
        waiting.codes.push(Arc::clone(&code));
        if waiting.attended != here {
            waiting.attended = here;
            drop(waiting);
            let attend = std::thread::Builder::new().name("svod-compile".into());
            if attend.spawn(attend_to_all).is_err() {
                // Whoever needs the kernel compiles it.
                lock().attended = 0;
            }
        }
        code
    }

    /// The kernel, when it is made. Why it could not be made is said once; who asks after that
    /// has it tried again.
    pub(crate) fn kernel(self: &Arc<Self>) -> Result<&Kernel> {
        match self.made.get() {
            Some(made) => Ok(made),
            None => self.wait(),
        }
    }

    #[cold]
    fn wait(self: &Arc<Self>) -> Result<&Kernel> {
        let here = std::process::id();
        loop {
            let mut waiting = lock();
            if let Some(made) = self.made.get() {
                return Ok(made);
            }
            let mut progress = self.progress();
            match &mut *progress {
                // In another process its thread is not there.
                Progress::Begun(process) if *process == here => {
                    drop(progress);
                    drop(MADE.wait(waiting));
                    continue;
                }
                Progress::Waits | Progress::Begun(_) => {}
                Progress::Failed(reason) => {
                    let reason = std::mem::take(reason);
                    *progress = Progress::Waits;
                    return Err(Error::JitCompilation { reason });
                }
            }
            drop(progress);
            if !waiting.codes.iter().any(|code| Arc::ptr_eq(code, self)) {
                waiting.codes.push(Arc::clone(self));
            }
            let codes = begin(&mut waiting);
            drop(waiting);
            make(&codes);
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock() -> MutexGuard<'static, Waiting> {
    // No code of others runs under it, and what it guards is whole at each moment.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles what lies there until nothing does.
fn attend_to_all() {
    loop {
        let mut waiting = lock();
        let codes = begin(&mut waiting);
        if codes.is_empty() {
            waiting.attended = 0;
            return;
        }
        drop(waiting);
        make(&codes);
    }
}

/// Takes what lies there, for a thread of this process.
fn begin(waiting: &mut Waiting) -> Vec<Arc<Code>> {
    let codes = std::mem::take(&mut waiting.codes);
    for code in &codes {
        *code.progress() = Progress::Begun(std::process::id());
    }
    codes
}

/// Compiles and links, and has those know who wait.
fn make(codes: &[Arc<Code>]) {
    let made = catch_unwind(AssertUnwindSafe(|| compile(codes)));
    let made = made.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref().map(String::as_str));
        let text = text.unwrap_or("no text");
        vec![Err(format!("the compiling thread panicked: {text}")); codes.len()]
    });
    // Under the lock, so that none who has just looked sleeps through it.
    let waiting = lock();
    for (code, made) in codes.iter().zip(made) {
        match made {
            // Nobody else makes it.
            Ok(kernel) => drop(code.made.set(kernel)),
            Err(reason) => *code.progress() = Progress::Failed(reason),
        }
    }
    drop(waiting);
    MADE.notify_all();
}

fn compile(codes: &[Arc<Code>]) -> Vec<std::result::Result<Kernel, String>> {
    let engine = match engine() {
        Ok(engine) => engine,
        Err(e) => return vec![Err(e.to_string()); codes.len()],
    };
    let sources: Vec<_> = codes.iter().map(|code| code.source.clone()).collect();
    let objects = engine.compile_all(&sources, &|_, _| ());
    let good = objects.iter().zip(codes);
    let good = good.filter_map(|(object, code)| Some((object.as_ref().ok()?, &code.signature)));
    let good: Vec<_> = good.collect();
    // SAFETY: this is where Svod is trusted. It generated each kernel from the graph that its
    // signature was read from; what the graph does not say, that accesses stay within each
    // buffer and that the indices of one grid are independent, is what its compiler claims
    // of every kernel.
    let linked = unsafe { engine.link_all(&good) };
    let mut linked = linked.map(Vec::into_iter).ok();
    let kernels = objects.into_iter().zip(codes).map(|(object, code)| {
        let object = object.map_err(|e| e.to_string())?;
        if let Some(kernel) = linked.as_mut().and_then(Iterator::next) {
            return Ok(kernel);
        }
        // One of them is at fault: each for itself.
        // SAFETY: as above.
        let kernel = unsafe { engine.link(&object, code.signature.clone()) };
        kernel.map_err(|e| e.to_string())
    });
    kernels.collect()
}

#[cfg(test)]
mod tests {
    use engine::DType;

    use super::*;

    fn code(text: &str, progress: Progress) -> Arc<Code> {
        let signature = Signature::builder().write(DType::F32, 1).build();
        Arc::new(Code {
            source: Source::c("k", text),
            signature: signature.unwrap(),
            index: None,
            made: OnceLock::new(),
            progress: Mutex::new(progress),
        })
    }

    #[test]
    fn what_another_process_has_begun_with_is_made_here() {
        let text = "void k(float *restrict y) { y[0] = 41; }";
        // As after a fork: no thread of this process is at it.
        let forked = code(text, Progress::Begun(0));
        assert!(forked.kernel().is_ok());
    }

    #[test]
    fn an_error_is_told_once_and_the_code_tried_again() {
        let good = code(
            "void k(float *restrict y) { y[0] = 42; }",
            Progress::Failed("no compiler".to_owned()),
        );
        let error = good.kernel().map(drop).unwrap_err().to_string();
        assert!(error.contains("no compiler"), "{error}");
        assert!(good.kernel().is_ok());

        let bad = code("void k(float *restrict y) { y[0] = x; }", Progress::Waits);
        for _ in 0..2 {
            let error = bad.kernel().map(drop).unwrap_err().to_string();
            assert!(error.contains('x'), "{error}");
        }
    }
}
