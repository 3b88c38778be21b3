//! A bundle as a plain C program: the kernels' own objects, and one function that
//! calls them in the plan's order, linked into a shared library by the compiler
//! that made them. It reads `plan.json` itself, so that it has nothing in common
//! with the engine that it is measured beside but the objects.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use libloading::Library;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;
use svod_runtime::bench::Candidate;
use svod_runtime::bundle::{Bundle, npy};
use svod_runtime::{Buffer, DType, Error, Runtime, Source};

use crate::Fallible;

#[derive(Deserialize)]
struct RawPlan {
    #[serde(default)]
    variables: BTreeMap<String, RawVariable>,
    kernels: Vec<RawKernel>,
    buffers: Vec<RawBuffer>,
    ops: Vec<RawOp>,
    #[serde(default)]
    outputs: Vec<RawOutput>,
}

#[derive(Deserialize)]
struct RawVariable {
    min: i64,
}

#[derive(Deserialize)]
struct RawKernel {
    entry: String,
    source: Option<String>,
    convention: Option<String>,
    returns: Option<String>,
    params: Vec<RawParam>,
}

#[derive(Deserialize)]
struct RawParam {
    buffer: Option<String>,
    scalar: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct RawBuffer {
    name: Option<String>,
    role: String,
    dtype: Option<String>,
    #[serde(default)]
    shape: Vec<usize>,
    bytes: Option<usize>,
    tensor: Option<String>,
}

#[derive(Deserialize)]
struct RawOp {
    launch: Option<usize>,
    #[serde(default)]
    args: Vec<RawArg>,
    #[serde(default)]
    scalars: BTreeMap<String, Value>,
    grid: Option<Value>,
    copy: Option<RawCopy>,
    fill: Option<RawFill>,
}

#[derive(Deserialize)]
struct RawCopy {
    from: RawArg,
    to: RawArg,
}

#[derive(Deserialize)]
struct RawFill {
    to: RawArg,
    dtype: String,
    value: Value,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum RawArg {
    Whole(usize),
    Part {
        buffer: usize,
        offset: usize,
        bytes: usize,
    },
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    buffer: usize,
    #[serde(default)]
    offset: usize,
    dtype: String,
    shape: Vec<usize>,
}

/// An element type in C, and its size.
fn c_type(dtype: &str) -> Fallible<(&'static str, usize)> {
    Ok(match dtype {
        "bool" => ("_Bool", 1),
        "i8" => ("signed char", 1),
        "u8" => ("unsigned char", 1),
        "i16" => ("short", 2),
        "u16" => ("unsigned short", 2),
        "i32" => ("int", 4),
        "u32" => ("unsigned", 4),
        "i64" => ("long long", 8),
        "u64" => ("unsigned long long", 8),
        "f16" => ("_Float16", 2),
        "bf16" => ("__bf16", 2),
        "f32" => ("float", 4),
        "f64" => ("double", 8),
        other => return Err(format!("no element type `{other}`").into()),
    })
}

/// What every program begins with: the operators of VALUE that C has not.
const PRELUDE: &str = "\
#include <string.h>
typedef long long i64;
static inline i64 floordiv(i64 a, i64 b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
static inline i64 mod(i64 a, i64 b) { return a - b * floordiv(a, b); }
static inline i64 min(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 max(i64 a, i64 b) { return a > b ? a : b; }
";

/// What follows a program's `share`, for several threads: they run until they are told to
/// stop, and wait awake for each other at the end of each op.
const THREADS: &str = "\
static pthread_t threads[THREADS];
static void *help(void *thread) {
    for (i64 turn = 0;;) {
        meet(&turn);
        if (stopped) return 0;
        share((i64)thread, shared_p, shared_v, &turn);
    }
}
static i64 own_turn;
int awake(void) {
    stopped = 0; own_turn = 0; atomic_store(&arrived, 0);
    for (i64 i = 1; i < THREADS; i++) if (pthread_create(&threads[i], 0, help, (void *)i)) return 1;
    return 0;
}
void asleep(void) {
    stopped = 1; meet(&own_turn);
    for (int i = 1; i < THREADS; i++) pthread_join(threads[i], 0);
}
int run_shared(char *const *p, const i64 *v) {
    shared_p = p; shared_v = v;
    meet(&own_turn);
    share(0, p, v, &own_turn);
    return atomic_load(&failed);
}
";

/// What precedes `share`: the barrier, and what the threads have in common.
const BARRIER: &str = "\
#include <pthread.h>
#include <stdatomic.h>
static _Alignas(128) atomic_llong arrived;
static _Alignas(128) atomic_int failed;
static int stopped;
static char *const *shared_p;
static const i64 *shared_v;
static inline void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}
static inline void meet(i64 *turn) {
    *turn += THREADS;
    atomic_fetch_add(&arrived, 1);
    while (atomic_load_explicit(&arrived, memory_order_acquire) < *turn) pause_cpu();
}
";

impl RawPlan {
    fn bytes(&self, buffer: usize) -> Fallible<usize> {
        let buffer = &self.buffers[buffer];
        match (&buffer.bytes, &buffer.dtype) {
            (Some(bytes), _) => Ok(*bytes),
            (None, Some(dtype)) => Ok(c_type(dtype)?.1 * buffer.shape.iter().product::<usize>()),
            (None, None) => Err("a buffer without a size".into()),
        }
    }

    /// The buffer, the offset in it, and the bytes.
    fn range(&self, arg: RawArg) -> Fallible<(usize, usize, usize)> {
        Ok(match arg {
            RawArg::Whole(buffer) => (buffer, 0, self.bytes(buffer)?),
            RawArg::Part {
                buffer,
                offset,
                bytes,
            } => (buffer, offset, bytes),
        })
    }

    /// A VALUE as an expression over the variables `v`.
    fn value(&self, value: &Value) -> Fallible<String> {
        let Value::Object(object) = value else {
            return Ok(match value.as_i64() {
                // C has no literal for it.
                Some(i64::MIN) => format!("({}LL - 1)", i64::MIN + 1),
                Some(number) => format!("{number}LL"),
                None if value.is_u64() => format!("{value}ULL"),
                None => value.to_string(),
            });
        };
        let (key, of) = object.iter().next().ok_or("an empty VALUE")?;
        if key == "var" {
            let i = self.variables.keys().position(|name| of == name);
            return Ok(format!("v[{}]", i.ok_or("no such variable")?));
        }
        let (a, b) = (self.value(&of[0])?, self.value(&of[1])?);
        Ok(match key.as_str() {
            "add" => format!("({a} + {b})"),
            "mul" => format!("({a} * {b})"),
            function => format!("{function}({a}, {b})"),
        })
    }

    /// The program's text, and how many pointers it works with: `run` for one thread, and
    /// for several `share`, in which each has its part of every grid, and the first all else.
    fn program(&self, threads: usize) -> Fallible<(String, usize)> {
        let mut declarations = String::new();
        for (i, kernel) in self.kernels.iter().enumerate() {
            if kernel.convention.as_deref() == Some("packed") {
                return Err(format!("`{}` is of the packed convention", kernel.entry).into());
            }
            let mut params = Vec::new();
            for param in &kernel.params {
                params.push(match &param.scalar {
                    Some(scalar) => c_type(scalar)?.0,
                    None => "void *",
                });
            }
            let returns = if kernel.returns_status() {
                "int"
            } else {
                "void"
            };
            let params = if params.is_empty() {
                "void".into()
            } else {
                params.join(", ")
            };
            let hidden = "__attribute__((visibility(\"hidden\")))";
            writeln!(declarations, "{hidden} {returns} kernel_{i}({params});")?;
        }
        let (mut start, mut run, mut share) = (String::new(), String::new(), String::new());
        let mut pointers = 0;
        let mut pointer = |arg: RawArg| -> Fallible<String> {
            let (buffer, offset, _) = self.range(arg)?;
            writeln!(start, "    p[{pointers}] = buffers[{buffer}] + {offset};")?;
            pointers += 1;
            Ok(format!("p[{}]", pointers - 1))
        };
        for op in &self.ops {
            if let Some(copy) = &op.copy {
                let bytes = self.range(copy.to)?.2;
                let (to, from) = (pointer(copy.to)?, pointer(copy.from)?);
                writeln!(run, "    memcpy({to}, {from}, {bytes});")?;
                writeln!(share, "    if (!t) memcpy({to}, {from}, {bytes});")?;
            } else if let Some(fill) = &op.fill {
                let (c, size) = c_type(&fill.dtype)?;
                let (count, value) = (self.range(fill.to)?.2 / size, self.value(&fill.value)?);
                let to = pointer(fill.to)?;
                let text =
                    format!("for (i64 i = 0; i < {count}; i++) (({c} *){to})[i] = ({c}){value};");
                writeln!(run, "    {text}")?;
                writeln!(share, "    if (!t) {text}")?;
            } else {
                let i = op.launch.ok_or("an op of another form")?;
                let kernel = &self.kernels[i];
                let (mut args, mut buffers) = (Vec::new(), op.args.iter());
                for param in &kernel.params {
                    args.push(match (&param.buffer, &param.scalar, &param.name) {
                        (Some(_), _, _) => pointer(*buffers.next().ok_or("too few arguments")?)?,
                        (None, Some(scalar), Some(name)) if op.scalars.contains_key(name) => {
                            format!("({}){}", c_type(scalar)?.0, self.value(&op.scalars[name])?)
                        }
                        _ => "i".to_owned(),
                    });
                }
                let call = format!("kernel_{i}({})", args.join(", "));
                let (alone, shared) = match kernel.returns_status() {
                    true => (
                        format!("if ({call}) return 1"),
                        format!("if ({call}) atomic_store(&failed, 1)"),
                    ),
                    false => (call.clone(), call),
                };
                match &op.grid {
                    None => {
                        let index = "const i64 i = 0; (void)i";
                        writeln!(run, "    {{ {index}; {alone}; }}")?;
                        writeln!(share, "    if (!t) {{ {index}; {shared}; }}")?;
                    }
                    Some(grid) => {
                        let grid = self.value(grid)?;
                        writeln!(run, "    for (i64 i = 0, n = {grid}; i < n; i++) {alone};")?;
                        writeln!(
                            share,
                            "    for (i64 n = {grid}, i = part(n, t), e = part(n, t + 1); \
                             i < e; i++) {shared};"
                        )?;
                    }
                }
            }
            writeln!(share, "    meet(turn);")?;
        }
        let text = format!(
            "#define THREADS {threads}\n{PRELUDE}{BARRIER}{declarations}\
             static inline i64 part(i64 n, i64 t) {{ return (n * t + THREADS - 1) / THREADS; }}\n\
             void start(char *const *buffers, char **p) {{\n{start}}}\n\
             int run(char *const *p, const i64 *v) {{\n{run}    return 0;\n}}\n\
             static void share(i64 t, char *const *p, const i64 *v, i64 *turn) {{\n{share}}}\n\
             {THREADS}",
        );
        Ok((text, pointers))
    }
}

impl RawKernel {
    fn returns_status(&self) -> bool {
        self.returns.as_deref() == Some("status")
    }
}

/// Runs a command to its end.
fn succeed(command: &mut Command) -> Fallible<()> {
    let status = command.status();
    let status = status.map_err(|e| format!("{command:?} cannot be started: {e}"))?;
    if !status.success() {
        return Err(format!("{command:?} ended with {status}").into());
    }
    Ok(())
}

type Start = unsafe extern "C" fn(*const *mut u8, *mut *mut u8);
type Run = unsafe extern "C" fn(*const *mut u8, *const i64) -> c_int;
type Awake = unsafe extern "C" fn() -> c_int;
type Asleep = unsafe extern "C" fn();

/// The program's code.
pub(crate) struct Code {
    plan: RawPlan,
    pointers: usize,
    start: Start,
    run: Run,
    run_shared: Run,
    awake: Awake,
    asleep: Asleep,
    /// Where they lie.
    _library: Library,
}

impl Code {
    /// Compiles the kernels as the runtime does, and links them with the program.
    pub(crate) fn new(bundle: &Bundle, runtime: &Runtime, threads: usize) -> Fallible<Code> {
        let text = std::fs::read_to_string(bundle.path().join("plan.json"))?;
        let plan: RawPlan = serde_json::from_str(&text)?;
        let compiler = runtime.toolchain().c_compiler("kernel")?;
        // What is loaded stays in memory when its file is gone.
        let dir = tempfile::tempdir()?;
        let mut objects = Vec::new();
        for (i, kernel) in plan.kernels.iter().enumerate() {
            let path = dir.path().join(format!("kernel_{i}.o"));
            object(kernel, i, bundle.path(), runtime, &path)?;
            objects.push(path);
        }
        let (text, pointers) = plan.program(threads)?;
        let source = dir.path().join("program.c");
        let library = dir.path().join("program.so");
        std::fs::write(&source, text)?;
        succeed(
            Command::new(&compiler.path)
                .args(["-shared", "-fPIC", "-O2", "-o"])
                .args([&library, &source])
                .args(&objects)
                .args(["-lm", "-pthread"]),
        )?;
        // SAFETY: it has no constructors but those that the compiler gives to every
        // library; the functions are of these types in its text, and are called
        // only while it is loaded.
        unsafe {
            let library = Library::new(&library)?;
            Ok(Code {
                plan,
                pointers,
                start: *library.get::<Start>(b"start")?,
                run: *library.get::<Run>(b"run")?,
                run_shared: *library.get::<Run>(b"run_shared")?,
                awake: *library.get::<Awake>(b"awake")?,
                asleep: *library.get::<Asleep>(b"asleep")?,
                _library: library,
            })
        }
    }
}

/// Writes the runtime's object of kernel `i`, as one that defines `kernel_i` alone:
/// entries repeat, and so may what else an object defines.
fn object(
    kernel: &RawKernel,
    i: usize,
    bundle: &Path,
    runtime: &Runtime,
    path: &Path,
) -> Fallible<()> {
    let entry = &kernel.entry;
    let name = kernel.source.as_ref();
    let name = name.ok_or_else(|| format!("the kernel `{entry}` has no source"))?;
    let file = bundle.join(name).canonicalize()?;
    let include_dir = file.parent().ok_or("a file in no folder")?;
    let source = Source::c(entry, std::fs::read_to_string(&file)?)
        .named(name)
        .include_dir(include_dir);
    std::fs::write(path, runtime.compile(&source)?.bytes())?;
    for change in [
        format!("--keep-global-symbol={entry}"),
        format!("--redefine-sym={entry}=kernel_{i}"),
    ] {
        succeed(Command::new("objcopy").arg(change).arg(path))?;
    }
    Ok(())
}

/// The program with its memory.
pub(crate) struct Program<'a> {
    code: &'a Code,
    buffers: Vec<Buffer>,
    /// What it calls its kernels with, in order.
    pointers: Vec<*mut u8>,
    /// What states hold at the start.
    states: Vec<(usize, Vec<u8>)>,
    variables: Vec<i64>,
    /// Whether its threads are there, which wait awake for the next run.
    awake: Option<bool>,
}

impl Program<'_> {
    /// The program with the inputs and variables of the bundle's first recorded run;
    /// without one, with zeros and minima.
    pub(crate) fn new<'a>(code: &'a Code, bundle: &Bundle) -> Fallible<Program<'a>> {
        let weights = std::fs::read(bundle.path().join("weights.safetensors")).ok();
        let weights = weights.as_deref().map(SafeTensors::deserialize);
        let weights = weights.transpose()?;
        let test = bundle.tests().first();
        let (mut buffers, mut addresses) = (Vec::new(), Vec::new());
        let mut states = Vec::new();
        for (i, raw) in code.plan.buffers.iter().enumerate() {
            let mut buffer = Buffer::with_align(DType::U8, code.plan.bytes(i)?, 64)?;
            let target = buffer.as_mut_slice::<u8>()?;
            if let Some(tensor) = &raw.tensor {
                let weights = weights.as_ref().ok_or("there are no weights")?;
                target.copy_from_slice(weights.tensor(tensor)?.data());
            }
            let mut inputs = test.into_iter().flat_map(|t| &t.inputs);
            if raw.role == "input"
                && let Some((_, file)) = inputs.find(|(name, _)| Some(name) == raw.name.as_ref())
            {
                target.copy_from_slice(npy::read(file)?.elements.as_view().as_bytes());
            }
            if raw.role == "state" {
                states.push((i, target.to_vec()));
            }
            addresses.push(target.as_mut_ptr());
            buffers.push(buffer);
        }
        let chosen = |(name, variable): (&String, &RawVariable)| {
            let mut given = test.into_iter().flat_map(|t| &t.variables);
            let given = given.find(|(n, _)| n == name);
            given.map_or(variable.min, |(_, value)| *value)
        };
        let mut pointers = vec![std::ptr::null_mut(); code.pointers];
        // SAFETY: there is an address for each buffer of the plan, and room for as many
        // pointers as the program writes.
        unsafe { (code.start)(addresses.as_ptr(), pointers.as_mut_ptr()) };
        Ok(Program {
            code,
            buffers,
            pointers,
            states,
            variables: code.plan.variables.iter().map(chosen).collect(),
            awake: None,
        })
    }

    /// The same, on the threads for which the code was made.
    pub(crate) fn on_threads(mut self) -> Self {
        self.awake = Some(false);
        self
    }

    /// Ends its threads, which otherwise wait awake for the next run.
    pub(crate) fn rest(&mut self) {
        if self.awake == Some(true) {
            // SAFETY: they were started, and are in no run.
            unsafe { (self.code.asleep)() };
            self.awake = Some(false);
        }
    }

    /// The names and bytes of its outputs.
    pub(crate) fn outputs(&self) -> Fallible<Vec<(&str, &[u8])>> {
        let mut outputs = Vec::new();
        for output in &self.code.plan.outputs {
            let bytes = c_type(&output.dtype)?.1 * output.shape.iter().product::<usize>();
            let buffer = self.buffers[output.buffer].as_slice::<u8>()?;
            let bytes = &buffer[output.offset..output.offset + bytes];
            outputs.push((output.name.as_str(), bytes));
        }
        Ok(outputs)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        self.rest();
    }
}

impl Candidate for Program<'_> {
    fn prepare(&mut self) -> Result<(), Error> {
        for (i, contents) in &self.states {
            let state = self.buffers[*i].as_mut_slice::<u8>()?;
            state.copy_from_slice(contents);
        }
        if self.awake == Some(false) {
            // SAFETY: none are there: of all programs of this code only one is awake at a
            // time, as they take turns and rest.
            if unsafe { (self.code.awake)() } != 0 {
                return Err(Error::Run {
                    reason: "the C program's threads do not start".into(),
                });
            }
            self.awake = Some(true);
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        let run = match self.awake {
            None => self.code.run,
            Some(_) => self.code.run_shared,
        };
        // SAFETY: whoever measures a bundle vouches for its kernels; the plan was
        // checked when the bundle was opened, and the program is made of that plan,
        // over buffers of its sizes, which this owns. There is a pointer for each
        // argument, into them, and a value for each variable.
        match unsafe { run(self.pointers.as_ptr(), self.variables.as_ptr()) } {
            0 => Ok(()),
            _ => Err(Error::Run {
                reason: "a kernel of the C program failed".into(),
            }),
        }
    }
}
