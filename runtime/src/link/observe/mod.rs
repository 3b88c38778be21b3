//! Debuggers and profilers are told where linked code is, which no file on disk says.
//!
//! Nobody is, unless it is asked for, and nothing of this costs anything then. Each gets
//! the names and places of the functions: a backtrace of a debugger names the kernel that
//! it leads through, and a profile counts what each kernel took. Objects hold no tables
//! for unwinding by the time that they are linked, so that a debugger finds the caller of
//! a kernel only where the kernel keeps the frame pointer (`-fno-omit-frame-pointer`).

mod gdb;
mod perf_map;

use super::layout::Layout;
use super::object_file::ObjectFile;
use crate::Error;

/// Who is told where linked code is: nobody, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observers {
    /// `perf`, by its map file: `/tmp/perf-PID.map` gets a line for each function, which is
    /// called `svod:KERNEL`, or `svod:KERNEL:FUNCTION` where it is not the kernel's entry.
    /// The file stays when the process ends, since `perf report` reads it, and lines stay
    /// when code goes: the format has no way to take one back.
    pub perf_map: bool,
    /// `gdb`, and `lldb`, by the JIT interface of gdb. Functions have their own names.
    pub gdb: bool,
}

/// Who is to be told when the code goes.
#[derive(Debug)]
pub(super) struct Observed {
    _gdb: gdb::Registered,
}

impl Observers {
    /// Tells of the code of `objects`, which lies at `base` as `layout` says, and is not to
    /// go before what this returns is dropped.
    pub(super) fn tell(
        self,
        objects: &[&ObjectFile<'_>],
        layout: &Layout,
        base: u64,
    ) -> Result<Option<Observed>, Error> {
        if self == Observers::default() {
            return Ok(None);
        }
        let functions: Vec<Function<'_>> = objects
            .iter()
            .zip(&layout.parts)
            .flat_map(|(object, parts)| {
                object.code_symbols().into_iter().filter_map(move |code| {
                    Some(Function {
                        kernel: object.kernel,
                        name: code.symbol.name,
                        address: base + parts.place(code.symbol)?,
                        size: code.size,
                    })
                })
            })
            .collect();
        if self.perf_map {
            perf_map::append(&functions)?;
        }
        Ok(self.gdb.then(|| Observed {
            _gdb: gdb::Registered::new(&functions),
        }))
    }
}

/// A function where it lies.
struct Function<'a> {
    /// What errors call its object.
    kernel: &'a str,
    name: &'a str,
    address: u64,
    /// In bytes.
    size: u64,
}
