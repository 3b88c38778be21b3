//! A kernel as Svod calls it.

use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use engine::Scalar;
use engine::signature::Number;
use smallvec::SmallVec;
use svod_device::Result;
use svod_device::device::Program;

use crate::code::Code;
use crate::engine;
use crate::error::device;

/// Which programs are ours, by their address: Svod keeps them as `dyn Program`, from which
/// there is no way back to a kernel.
static PROGRAMS: RwLock<Option<HashMap<usize, Weak<Code>>>> = RwLock::new(None);

struct OurProgram {
    code: Arc<Code>,
}

/// A program that calls the kernel.
pub(crate) fn program(code: Arc<Code>) -> Box<dyn Program> {
    let program = Box::new(OurProgram { code });
    let mut programs = PROGRAMS.write().unwrap_or_else(PoisonError::into_inner);
    let known = programs.get_or_insert_default();
    known.insert(address(&*program), Arc::downgrade(&program.code));
    program
}

/// The kernel that a program calls, where it is one of ours.
pub(crate) fn code_of(program: &dyn Program) -> Option<Arc<Code>> {
    let programs = PROGRAMS.read().unwrap_or_else(PoisonError::into_inner);
    programs.as_ref()?.get(&address(program))?.upgrade()
}

fn address<P: Program + ?Sized>(program: &P) -> usize {
    ptr::from_ref(program).cast::<()>().addr()
}

impl Drop for OurProgram {
    fn drop(&mut self) {
        let mut programs = PROGRAMS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = programs.as_mut() {
            known.remove(&address(self));
        }
    }
}

impl Program for OurProgram {
    /// Calls the kernel for each index of the grid, on the threads that the runtime has.
    unsafe fn execute(
        &self,
        buffers: &[*mut u8],
        vals: &[i64],
        global_size: Option<[usize; 3]>,
        _local_size: Option<[usize; 3]>,
    ) -> Result<()> {
        let kernel = self.code.kernel().map_err(device)?;
        let signature = kernel.signature();
        let scalars = slots(&self.code, vals).map_err(device)?;
        let expected = signature.buffers().count();
        if buffers.len() != expected {
            let got = buffers.len();
            let name = self.name();
            return Err(device(format!(
                "`{name}` takes {expected} buffers, not {got}"
            )));
        }
        let grid = grid(&self.code, global_size).map_err(device)?;
        let pool = engine().map_err(device)?.pool();
        // SAFETY: Svod promises buffers as long as its graph says, which nothing else uses
        // meanwhile where the kernel writes them; the counts were checked, and the indices of one
        // grid are independent.
        unsafe { pool.launch(kernel, buffers, &scalars, grid) }.map_err(device)
    }

    fn name(&self) -> &str {
        self.code.source.entry()
    }
}

/// The slots of a kernel's scalars, from Svod's values, among which the grid index stands.
pub(crate) fn slots(code: &Code, vals: &[i64]) -> std::result::Result<SmallVec<[u64; 8]>, String> {
    let name = code.source.entry();
    let expected = code.signature.scalars().count() + usize::from(code.index.is_some());
    if vals.len() != expected {
        let got = vals.len();
        return Err(format!("`{name}` takes {expected} values, not {got}"));
    }
    let vals = vals.iter().enumerate();
    let vals = vals.filter(|(i, _)| Some(*i) != code.index);
    let slots = vals
        .zip(code.signature.scalars())
        .map(|((_, &val), param)| {
            let scalar = Scalar::from_number(param.dtype, Number::Int(val.into()));
            let scalar = scalar.ok_or_else(|| {
                let dtype = param.dtype;
                format!(
                    "`{name}`: {val} is no {dtype}, as which `{}` is passed",
                    param.name
                )
            })?;
            Ok(scalar.to_slot())
        });
    slots.collect()
}

/// The grid of a launch; one dimension is what CPUs have.
pub(crate) fn grid(code: &Code, size: Option<[usize; 3]>) -> std::result::Result<u64, String> {
    let [grid, rows, layers] = size.unwrap_or([1; 3]);
    let name = code.source.entry();
    if (rows, layers) != (1, 1) {
        return Err(format!("`{name}`: a grid of {grid} x {rows} x {layers}"));
    }
    let max = code.signature.max_grid();
    if grid as u64 > max {
        return Err(format!(
            "`{name}`: a grid of {grid}, and it is made for {max}"
        ));
    }
    Ok(grid as u64)
}
