//! The CPU device: Svod's allocator and code generators, and from the text on the library.

use std::sync::Arc;

use engine::compile::Source;
use svod_codegen::{RenderedKernel, c, llvm};
use svod_device::Result;
use svod_device::device::{CompiledSpec, Compiler, Device, Program, ProgramSpec, Renderer};
use svod_device::registry::DeviceRegistry;
use svod_dtype::DeviceSpec;
use svod_ir::UOp;

use crate::code::Code;
use crate::error::device;
use crate::program::program;
use crate::signature::{self, GRID_INDEX};

/// In which language Svod writes kernels for this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CpuBackend {
    /// C, compiled by a C compiler in few processes.
    #[default]
    Clang,
    /// LLVM IR, compiled in process where a libLLVM is found, and by clang where not.
    Llvm,
}

impl CpuBackend {
    /// What `SVOD_CPU_BACKEND` asks for, `clang` or `llvm`; C where it says neither.
    #[must_use]
    pub fn from_env() -> Self {
        match std::env::var("SVOD_CPU_BACKEND") {
            Ok(name) if name.eq_ignore_ascii_case("llvm") => CpuBackend::Llvm,
            _ => CpuBackend::Clang,
        }
    }

    /// What keeps this backend's kernels apart from others in Svod's caches.
    const fn cache_key(self) -> &'static str {
        match self {
            CpuBackend::Clang => "svod-runtime-c",
            CpuBackend::Llvm => "svod-runtime-llvm",
        }
    }

    fn render(self, ast: &Arc<UOp>, name: &str) -> Result<RenderedKernel> {
        match self {
            CpuBackend::Clang => c::render(ast, Some(name)),
            CpuBackend::Llvm => llvm::text::render(ast, Some(name)),
        }
        .map_err(|e| device(format!("kernel `{name}` was not written: {e}")))
    }

    fn source(self, entry: &str, text: &str) -> Source {
        match self {
            CpuBackend::Clang => Source::c(entry, without_includes(text)),
            CpuBackend::Llvm => Source::llvm_ir(entry, text),
        }
    }

    /// What this backend's kernels assume of any pointer, in bytes: the text of LLVM IR says so
    /// of each.
    const fn least_align(self) -> usize {
        match self {
            CpuBackend::Clang => 1,
            CpuBackend::Llvm => 32,
        }
    }
}

/// Svod's C needs three names of one header. With these as macros it includes no file, so that
/// it can be compiled together with others and kept in the cache.
fn without_includes(text: &str) -> String {
    const BOOLS: &str = "#define bool _Bool\n#define true 1\n#define false 0\n";
    text.replacen("#include <stdbool.h>\n", BOOLS, 1)
}

/// The CPU device, with the backend that the environment [asks for](CpuBackend::from_env).
///
/// # Errors
///
/// As [`create_cpu_device_with_backend`].
pub fn create_cpu_device(registry: &DeviceRegistry) -> Result<Device> {
    create_cpu_device_with_backend(registry, CpuBackend::from_env())
}

/// The CPU device with a backend.
///
/// # Errors
///
/// Where the registry has no allocator for CPUs.
pub fn create_cpu_device_with_backend(
    registry: &DeviceRegistry,
    backend: CpuBackend,
) -> Result<Device> {
    let load = move |spec: &CompiledSpec| load(backend, spec);
    Ok(Device::new(
        DeviceSpec::Cpu,
        registry.get(&DeviceSpec::Cpu)?,
        Arc::new(CpuRenderer(backend)),
        Arc::new(CpuCompiler(backend)),
        Arc::new(load),
    ))
}

struct CpuRenderer(CpuBackend);

impl Renderer for CpuRenderer {
    fn render(&self, ast: &Arc<UOp>, name: Option<&str>) -> Result<ProgramSpec> {
        let rendered = self.0.render(ast, name.unwrap_or("kernel"))?;
        let mut spec = ProgramSpec::new(rendered.name, rendered.code, DeviceSpec::Cpu, ast.clone());
        spec.set_var_names(rendered.var_names);
        spec.apply_derived_metadata_from_ast();
        if spec.buf_count == 0 {
            spec.buf_count = rendered.buffer_args.len();
        }
        Ok(spec)
    }

    fn device(&self) -> &DeviceSpec {
        &DeviceSpec::Cpu
    }
}

struct CpuCompiler(CpuBackend);

impl Compiler for CpuCompiler {
    /// Hands the text on: it is compiled beside whatever Svod does next.
    fn compile(&self, spec: &ProgramSpec) -> Result<CompiledSpec> {
        let (name, text, ast) = (spec.name.clone(), spec.src.clone(), spec.ast.clone());
        let mut compiled = CompiledSpec::from_source(name, text, ast, spec.buf_count);
        compiled.var_names.clone_from(&spec.var_names);
        compiled.global_size.clone_from(&spec.global_size);
        compiled.local_size.clone_from(&spec.local_size);
        Ok(compiled)
    }

    fn cache_key(&self) -> &'static str {
        self.0.cache_key()
    }
}

fn load(backend: CpuBackend, spec: &CompiledSpec) -> Result<Box<dyn Program>> {
    let text = spec
        .src
        .as_ref()
        .ok_or_else(|| device(format!("kernel `{}` came without its text", spec.name)))?;
    let signature = signature::of(spec, backend.least_align()).map_err(device)?;
    let index = spec.var_names.iter().position(|name| name == GRID_INDEX);
    let source = backend.source(&spec.name, text);
    Ok(program(Code::put_down(source, signature, index)))
}
