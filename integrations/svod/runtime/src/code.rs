//! Kernels that are compiled beside Svod's own work.
//!
//! Svod prepares a plan on one thread: it schedules and optimises a graph, and hands over the
//! text of one kernel after the other. To compile each at once would make it wait for a
//! compiler each time. Here a text is put down, and a thread takes all that lie there, has the
//! library compile them together, in few processes, and looks again. Whoever needs a kernel that
//! nobody has begun with takes all that lie there itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use engine::compile::Source;
use engine::{Kernel, Signature};

use crate::{Error, Result, engine};

/// A kernel that is compiled, or will be.
pub(crate) struct Code {
    pub(crate) source: Source,
    pub(crate) signature: Signature,
    /// Where among Svod's values the grid index stands; ours is no value.
    pub(crate) index: Option<usize>,
    made: OnceLock<std::result::Result<Kernel, String>>,
}

/// What lies there to be compiled, and whether a thread looks after it.
struct Waiting {
    codes: Vec<Arc<Code>>,
    attended: bool,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    codes: Vec::new(),
    attended: false,
});

/// That some code was made.
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
        });
        let mut waiting = lock();
        waiting.codes.push(Arc::clone(&code));
        if !waiting.attended {
            let attend = std::thread::Builder::new().name("svod-compile".into());
            // Without a thread, whoever needs the kernel compiles it.
            waiting.attended = attend.spawn(attend_to_all).is_ok();
        }
        code
    }

    /// The kernel, when it is made.
    pub(crate) fn kernel(&self) -> Result<&Kernel> {
        let made = match self.made.get() {
            Some(made) => made,
            None => self.wait(),
        };
        made.as_ref().map_err(|reason| Error::JitCompilation {
            reason: reason.clone(),
        })
    }

    #[cold]
    fn wait(&self) -> &std::result::Result<Kernel, String> {
        loop {
            let mut waiting = lock();
            if let Some(made) = self.made.get() {
                return made;
            }
            if waiting.codes.is_empty() {
                // Another thread is at it.
                drop(MADE.wait(waiting));
            } else {
                let codes = std::mem::take(&mut waiting.codes);
                drop(waiting);
                make(codes);
            }
        }
    }
}

fn lock() -> std::sync::MutexGuard<'static, Waiting> {
    // No code of others runs under it, and what it guards is whole at each moment.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles what lies there until nothing does.
fn attend_to_all() {
    loop {
        let mut waiting = lock();
        let codes = std::mem::take(&mut waiting.codes);
        if codes.is_empty() {
            waiting.attended = false;
            return;
        }
        drop(waiting);
        make(codes);
    }
}

/// Compiles and links, and has those know who wait.
fn make(codes: Vec<Arc<Code>>) {
    let made = catch_unwind(AssertUnwindSafe(|| compile(&codes)));
    let made = made.unwrap_or_else(|_| {
        let reason = Err("the compiling thread panicked".to_owned());
        vec![reason; codes.len()]
    });
    for (code, made) in codes.iter().zip(made) {
        // Nobody else makes it.
        let _ = code.made.set(made);
    }
    // Under the lock, so that none who has just looked sleeps through it.
    drop(lock());
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
