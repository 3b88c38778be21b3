//! OpenMP: loops in C, compiled by a compiler that has it, and loaded.

use std::ffi::{c_int, c_void};
use std::process::Command;

use libloading::Library;

use crate::Fallible;
use crate::kernels::{Entry, Work};

const TEXT: &str = include_str!("openmp.c");

type Launch = unsafe extern "C" fn(Entry, *mut c_void, i64, i64);
type Launches = unsafe extern "C" fn(Entry, *mut c_void, i64, i64, i64);
type Rest = unsafe extern "C" fn() -> c_int;

/// The loops. Loading them loads OpenMP's runtime, which reads the environment then.
pub(crate) struct OpenMp {
    launch: Launch,
    launches: Launches,
    rest: Rest,
    /// Where they lie.
    _library: Library,
}

impl OpenMp {
    /// Compiles and loads the loops, by `gcc` or the compiler that `OPENMP_CC` names.
    pub(crate) fn new() -> Fallible<OpenMp> {
        let compiler = std::env::var("OPENMP_CC").unwrap_or_else(|_| "gcc".into());
        // What is loaded stays in memory when its file is gone.
        let dir = tempfile::tempdir()?;
        let (source, library) = (dir.path().join("openmp.c"), dir.path().join("openmp.so"));
        std::fs::write(&source, TEXT)?;
        let mut command = Command::new(compiler);
        command
            .args(["-shared", "-fPIC", "-O2", "-fopenmp", "-o"])
            .args([&library, &source]);
        let status = command.status();
        let status = status.map_err(|e| format!("{command:?} cannot be started: {e}"))?;
        if !status.success() {
            return Err(format!("{command:?} ended with {status}").into());
        }
        // SAFETY: its constructors are the compiler's and OpenMP's own; the functions are of
        // these types in its text, and are called only while it is loaded.
        unsafe {
            let library = Library::new(&library)?;
            Ok(OpenMp {
                launch: *library.get::<Launch>(b"launch")?,
                launches: *library.get::<Launches>(b"launches")?,
                rest: *library.get::<Rest>(b"rest")?,
                _library: library,
            })
        }
    }

    /// One launch, with a fork and a join.
    pub(crate) fn launch(&self, work: &Work) {
        // SAFETY: the kernels touch no memory, so that any threads may run them.
        unsafe { (self.launch)(work.entry, std::ptr::null_mut(), work.rounds, work.grid) }
    }

    /// All launches in one parallel region.
    pub(crate) fn launches(&self, work: &Work) {
        let (grid, count) = (work.grid, work.launches);
        // SAFETY: as above.
        unsafe { (self.launches)(work.entry, std::ptr::null_mut(), work.rounds, grid, count) }
    }

    /// Leaves the CPUs to others, until the next launch.
    pub(crate) fn rest(&self) -> Result<(), svod_runtime::Error> {
        // SAFETY: it is called by the thread that makes the launches, between them.
        match unsafe { (self.rest)() } {
            0 => Ok(()),
            _ => Err(svod_runtime::Error::Run {
                reason: "the threads of OpenMP do not rest".into(),
            }),
        }
    }
}
