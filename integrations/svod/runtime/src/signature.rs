//! What a kernel of Svod's expects, as a signature of the library's.

use std::sync::Arc;

use engine::signature::{Access, BufferParam, IndexParam, Param, ScalarParam};
use engine::{Bounds, DType, Signature};
use svod_device::device::{CompiledSpec, ProgramSpec};
use svod_dtype::{DeviceSpec, ScalarDType};
use svod_ir::{Op, UOp};

/// The variable that Svod counts the grid with.
pub(crate) const GRID_INDEX: &str = "core_id";

/// As what Svod allocates memory. Wider vectors stay in registers and on the stack.
const MAX_ALIGN: usize = 64;

/// The signature of a kernel, read from its graph, which is all of it that Svod hands on from
/// its compiler to its loader. `least_align` is what the kernel assumes of any pointer.
///
/// Scalars are without bounds: Svod checks variables itself, and runs kernels with what it was
/// not given as 0, inside their bounds or not.
pub(crate) fn of(spec: &CompiledSpec, least_align: usize) -> Result<Signature, String> {
    let unclear = |what: &str| format!("kernel `{}`: its graph does not say {what}", spec.name);
    let ast = Arc::clone(&spec.ast);
    let mut program = ProgramSpec::new(spec.name.clone(), String::new(), DeviceSpec::Cpu, ast);
    program.apply_derived_metadata_from_ast();
    let nodes = spec.ast.toposort();
    let mut params = Vec::new();
    // The order of the function: buffers by slot, then variables as they are named.
    for slot in &program.globals {
        let (pointer, len) = nodes
            .iter()
            .find_map(|node| match node.op() {
                Op::Param {
                    slot: s,
                    size,
                    device: None,
                } if s == slot => Some((node.dtype(), *size)),
                _ => None,
            })
            .ok_or_else(|| unclear("what a buffer is"))?;
        let element = pointer.base();
        // Vectors are loaded and stored with the alignment that their type states.
        let vectors = nodes.iter().map(|node| node.dtype());
        let vectors = vectors.filter(|d| d.count() > 1 && d.base() == element);
        let widest = vectors
            .map(|d| (d.base().bytes() * d.count()).next_power_of_two())
            .max();
        params.push(Param::Buffer(BufferParam {
            dtype: dtype(element).ok_or_else(|| unclear("what a buffer's elements are"))?,
            len,
            access: match (program.ins.contains(slot), program.outs.contains(slot)) {
                (_, false) => Access::Read,
                (false, true) => Access::Write,
                (true, true) => Access::ReadWrite,
            },
            align: widest
                .unwrap_or(element.bytes())
                .clamp(least_align, MAX_ALIGN),
        }));
    }
    for name in &spec.var_names {
        let (scalar, max) = nodes
            .iter()
            .find_map(|node| variable(node, name))
            .ok_or_else(|| unclear(&format!("what `{name}` is")))?;
        let dtype = dtype(scalar).ok_or_else(|| unclear(&format!("of what type `{name}` is")))?;
        params.push(if name == GRID_INDEX {
            let max = u64::try_from(max).map_err(|_| unclear("how large its grid is"))?;
            Param::Index(IndexParam {
                dtype,
                max: max.saturating_add(1),
            })
        } else {
            Param::Scalar(ScalarParam {
                dtype,
                name: name.clone(),
                bounds: Bounds::Unstated,
            })
        });
    }
    Signature::new(params, Default::default(), Default::default()).map_err(|e| e.to_string())
}

/// The type and the largest value of the variable `name`, if the node defines it.
fn variable(node: &UOp, name: &str) -> Option<(ScalarDType, i64)> {
    match node.op() {
        Op::DefineVar {
            name: n, max_val, ..
        } if n == name => Some((node.dtype().base(), *max_val)),
        _ => None,
    }
}

/// The library's type for a scalar of Svod's. The two 8-bit floats travel as bytes.
pub(crate) fn dtype(scalar: ScalarDType) -> Option<DType> {
    Some(match scalar {
        ScalarDType::Bool => DType::Bool,
        ScalarDType::Int8 => DType::I8,
        ScalarDType::UInt8 | ScalarDType::FP8E4M3 | ScalarDType::FP8E5M2 => DType::U8,
        ScalarDType::Int16 => DType::I16,
        ScalarDType::UInt16 => DType::U16,
        ScalarDType::Int32 => DType::I32,
        ScalarDType::UInt32 => DType::U32,
        ScalarDType::Int64 | ScalarDType::Index => DType::I64,
        ScalarDType::UInt64 => DType::U64,
        ScalarDType::Float16 => DType::F16,
        ScalarDType::BFloat16 => DType::BF16,
        ScalarDType::Float32 => DType::F32,
        ScalarDType::Float64 => DType::F64,
        ScalarDType::Void => return None,
    })
}
