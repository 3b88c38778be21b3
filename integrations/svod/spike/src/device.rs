//! A CPU device for Svod: its own allocator and its own C renderer, and everything
//! after the text by our runtime.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ours::signature::{Access, BufferParam, IndexParam, Number, Param, ScalarParam};
use ours::{Arg, Bounds, DType, Kernel, Runtime, Scalar, Signature, Source, View, ViewMut};
use svod_device::device::{CompiledSpec, Compiler, Device, Program, ProgramSpec};
use svod_device::registry::DeviceRegistry;
use svod_device::{Error, Result};
use svod_dtype::{DeviceSpec, ScalarDType};
use svod_ir::Op;
use svod_runtime::{CpuBackend, create_cpu_device_with_backend};

/// The variable that Svod counts the grid with.
const GRID_INDEX: &str = "core_id";

/// Whether launches are checked against their signatures by `Kernel::launch`, or
/// trusted to `Kernel::call`.
pub static CHECKED: AtomicBool = AtomicBool::new(true);

/// Kernels that were loaded, and checked launches that were made, in this process.
pub static LOADED: AtomicU64 = AtomicU64::new(0);
pub static LAUNCHED: AtomicU64 = AtomicU64::new(0);

/// The device. Register it with `DEVICE_FACTORIES.register_factory("CPU", …)`.
pub fn device(registry: &DeviceRegistry, runtime: Arc<Runtime>) -> Result<Device> {
    let theirs = create_cpu_device_with_backend(registry, CpuBackend::Clang)?;
    let compiler = Arc::new(ByOurs(Arc::clone(&runtime)));
    Ok(Device::new(
        DeviceSpec::Cpu,
        theirs.allocator,
        theirs.renderer,
        compiler,
        Arc::new(move |spec| link(&runtime, spec)),
    ))
}

struct ByOurs(Arc<Runtime>);

impl Compiler for ByOurs {
    fn compile(&self, spec: &ProgramSpec) -> Result<CompiledSpec> {
        let source = Source::c(&spec.name, &spec.src);
        let object = self.0.compile(&source).map_err(failed)?;
        let bytes = object.bytes().to_vec();
        let mut compiled = CompiledSpec::from_bytes(spec.name.clone(), bytes, spec.ast.clone());
        compiled.var_names = spec.var_names.clone();
        compiled.global_size = spec.global_size.clone();
        compiled.local_size = spec.local_size.clone();
        compiled.buf_count = spec.buf_count;
        Ok(compiled)
    }

    /// Svod keeps kernels by their graph and by this name, for the whole process.
    fn cache_key(&self) -> &'static str {
        "ours"
    }
}

fn link(runtime: &Runtime, spec: &CompiledSpec) -> Result<Box<dyn Program>> {
    let signature = signature(spec)?;
    let object = ours::compile::Object::new(&spec.name, spec.bytes.clone());
    // SAFETY: this is where Svod is trusted. It generated the kernel from the graph
    // that the signature was read from; what the graph does not say, that accesses
    // stay within each buffer and that the indices of one grid are independent, is
    // what its compiler claims of every kernel.
    let kernel = unsafe { runtime.link(&object, signature) }.map_err(failed)?;
    LOADED.fetch_add(1, Ordering::Relaxed);
    Ok(Box::new(OurProgram {
        index: spec.var_names.iter().position(|name| name == GRID_INDEX),
        kernel,
    }))
}

/// The signature, from the kernel's graph: a `CompiledSpec` carries the object and
/// the names of the variables, and of the rest only the graph.
pub fn signature(spec: &CompiledSpec) -> Result<Signature> {
    let ast = Arc::clone(&spec.ast);
    let mut program = ProgramSpec::new(spec.name.clone(), String::new(), DeviceSpec::Cpu, ast);
    program.apply_derived_metadata_from_ast();
    let nodes = spec.ast.toposort();
    let mut params = Vec::new();
    // The order of the C function: buffers by slot, then variables as they are named.
    for slot in &program.globals {
        let found = nodes.iter().find_map(|node| match node.op() {
            Op::Param {
                slot: s,
                size,
                device: None,
            } if s == slot => Some((node.dtype(), *size)),
            _ => None,
        });
        let (pointer, len) = found.ok_or_else(|| unclear(spec, "a buffer without a PARAM"))?;
        let element = pointer.base();
        // Vectors are loaded and stored with the alignment that their C type states.
        let vectors = nodes.iter().map(|node| node.dtype());
        let vectors = vectors.filter(|d| d.count() > 1 && d.base() == element);
        let widest = vectors
            .map(|d| (d.base().bytes() * d.count()).next_power_of_two())
            .max();
        params.push(Param::Buffer(BufferParam {
            dtype: dtype(element).ok_or_else(|| unclear(spec, "an element type"))?,
            len,
            access: match (program.ins.contains(slot), program.outs.contains(slot)) {
                (_, false) => Access::Read,
                (false, true) => Access::Write,
                (true, true) => Access::ReadWrite,
            },
            align: widest.unwrap_or(element.bytes()),
        }));
    }
    for name in &spec.var_names {
        let found = nodes.iter().find_map(|node| match node.op() {
            Op::DefineVar {
                name: n,
                min_val,
                max_val,
            } if n == name => Some((node.dtype().base(), *min_val, *max_val)),
            _ => None,
        });
        let (scalar, min, max) = found.ok_or_else(|| unclear(spec, "a variable"))?;
        let dtype = dtype(scalar).ok_or_else(|| unclear(spec, "a variable's type"))?;
        params.push(if name == GRID_INDEX {
            let max = u64::try_from(max).map_err(|_| unclear(spec, "a grid below 1"))? + 1;
            Param::Index(IndexParam { dtype, max })
        } else {
            let bounds = Bounds::integers(min.into(), max.into());
            Param::Scalar(ScalarParam {
                dtype,
                name: name.clone(),
                bounds,
            })
        });
    }
    Signature::new(params, Default::default(), Default::default()).map_err(failed)
}

fn dtype(scalar: ScalarDType) -> Option<DType> {
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

struct OurProgram {
    kernel: Kernel,
    /// Where among Svod's values the grid index stands; ours is no value.
    index: Option<usize>,
}

impl Program for OurProgram {
    unsafe fn execute(
        &self,
        buffers: &[*mut u8],
        vals: &[i64],
        global_size: Option<[usize; 3]>,
        _local_size: Option<[usize; 3]>,
    ) -> Result<()> {
        let [grid, rows, layers] = global_size.unwrap_or([1; 3]);
        if (rows, layers) != (1, 1) {
            return Err(error(format!("a grid of {grid} x {rows} x {layers}")));
        }
        let signature = self.kernel.signature();
        let vals = vals
            .iter()
            .enumerate()
            .filter(|(i, _)| Some(*i) != self.index);
        let scalars = vals.zip(signature.scalars()).map(|((_, &val), param)| {
            Scalar::from_number(param.dtype, Number::Int(val.into()))
                .ok_or_else(|| error(format!("{val} is no value of `{}`", param.name)))
        });
        let scalars: Vec<Scalar> = scalars.collect::<Result<_>>()?;
        if !CHECKED.load(Ordering::Relaxed) {
            let slots: Vec<u64> = scalars.iter().map(|scalar| scalar.to_slot()).collect();
            for index in 0..grid as u64 {
                // SAFETY: Svod promises buffers as long as their parameters say, that
                // nothing else uses meanwhile where the kernel writes them, and
                // that values and grid are within what its graph says.
                unsafe { self.kernel.call(buffers, &slots, index) };
            }
            return Ok(());
        }
        LAUNCHED.fetch_add(1, Ordering::Relaxed);
        let mut args = Vec::with_capacity(buffers.len());
        for (&start, param) in buffers.iter().zip(signature.buffers()) {
            let start = NonNull::new(start).ok_or_else(|| error("no memory".into()))?;
            // SAFETY: as above, for as long as this call.
            args.push(unsafe {
                if param.access.writes() {
                    Arg::from(ViewMut::from_raw(start, param.dtype, param.len))
                } else {
                    Arg::from(View::from_raw(start, param.dtype, param.len))
                }
            });
        }
        self.kernel
            .launch(&mut args, &scalars, grid as u64)
            .map_err(failed)
    }

    fn name(&self) -> &str {
        self.kernel.name()
    }
}

fn unclear(spec: &CompiledSpec, what: &str) -> Error {
    error(format!(
        "kernel `{}`: its graph does not explain {what}",
        spec.name
    ))
}

fn failed(e: ours::Error) -> Error {
    error(e.to_string())
}

fn error(message: String) -> Error {
    Error::Runtime { message }
}
