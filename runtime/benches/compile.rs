//! How long one waits for compilers: from an empty cache, from a full one, and with quickly
//! compiled code first. Bundles are named on the command line; without any, it is
//! `examples/digits`. Objects that bundles carry are not used.
//!
//! - **cold**: all kernels of a bundle with an empty cache, beside one `clang -c` process for
//!   each, one after another and as many at a time as there are cores;
//! - **ir**: a small kernel of LLVM IR in this process, beside `clang -x ir -c`;
//! - **mlir**: a small kernel of MLIR, and sixteen of them, beside as many times
//!   `mlir-opt | mlir-translate | clang -x ir -c` with no more passes than it needs;
//! - **warm**: from the start of a process to its first launch with a full cache, beside a
//!   process that opens a shared library for each kernel. The processes are this program
//!   again; they report the time of a clock that all processes share;
//! - **first answer**: from nothing to the end of the first run, with quickly compiled code and
//!   with optimised code alone.
//!
//! The ways take turns; the figures are medians.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use svod_runtime::bench::Replay;
use svod_runtime::bundle::{Bundle, Load};
use svod_runtime::{OptLevel, Runtime, RuntimeBuilder, Source};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Rounds of what takes seconds, and of what takes milliseconds.
const ROUNDS: usize = 9;
const QUICK_ROUNDS: usize = 31;

/// What a child process is to do, and with what.
const TASK: &str = "SVOD_BENCH_TASK";

const FLAGS: [&str; 10] = [
    "-c",
    "-O2",
    "-march=native",
    "-ffreestanding",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-ident",
];

unsafe extern "C" {
    fn dlopen(path: *const std::ffi::c_char, flags: i32) -> *mut std::ffi::c_void;
    fn dlsym(
        library: *mut std::ffi::c_void,
        name: *const std::ffi::c_char,
    ) -> *mut std::ffi::c_void;
}
const RTLD_NOW: i32 = 2;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// In ms.
fn timed<T>(work: impl FnOnce() -> Fallible<T>) -> Fallible<f64> {
    let start = Instant::now();
    let result = work()?;
    let time = start.elapsed().as_secs_f64() * 1e3;
    drop(std::hint::black_box(result));
    Ok(time)
}

/// Nanoseconds of the clock that all processes share.
fn now() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn no_cache() -> Fallible<Runtime> {
    Ok(RuntimeBuilder::from_env().no_cache().threads(1).build()?)
}

/// The sources of a bundle's kernels.
fn files(bundle: &Bundle) -> Vec<PathBuf> {
    let kernels = 0..bundle.plan().kernels().len();
    kernels.filter_map(|i| bundle.source_file(i)).collect()
}

fn clang(runtime: &Runtime) -> Fallible<PathBuf> {
    Ok(runtime.toolchain().c_compiler("bench")?.path.clone())
}

/// One process for each file, so many at a time.
fn processes(compiler: &Path, files: &[PathBuf], out: &Path, at_once: usize) -> Fallible<()> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((i, file)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    files.get(i).map(|file| (i, file))
                } {
                    let status = Command::new(compiler)
                        .args(FLAGS)
                        .arg(file)
                        .arg("-o")
                        .arg(out.join(format!("{i}.o")))
                        .status();
                    assert!(status.is_ok_and(|s| s.success()), "{}", file.display());
                }
            });
        }
    });
    Ok(())
}

fn load(bundle: &Bundle, runtime: &Runtime) -> Fallible<svod_runtime::plan::Executable> {
    let load = Load {
        carried: false,
        ..Load::default()
    };
    // SAFETY: whoever names a bundle to this program trusts it as a program.
    Ok(unsafe { bundle.load_with(runtime, &load)? })
}

fn cold(name: &str, bundle: &Bundle) -> Fallible<()> {
    let dir = tempfile::tempdir()?;
    let compiler = clang(&no_cache()?)?;
    let files = files(bundle);
    let cores = std::thread::available_parallelism()?.get();
    let (mut ours, mut serial, mut parallel) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let cache = dir.path().join(format!("cache{round}"));
        ours.push(timed(|| {
            let runtime = RuntimeBuilder::from_env()
                .cache_dir(cache)
                .threads(1)
                .build()?;
            load(bundle, &runtime)
        })?);
        serial.push(timed(|| processes(&compiler, &files, dir.path(), 1))?);
        parallel.push(timed(|| processes(&compiler, &files, dir.path(), cores))?);
    }
    let [ours, serial, parallel] = [ours, serial, parallel].map(median);
    println!(
        "cold    {name:<12} {:3} kernels   ours {ours:7.1} ms   a process each {serial:7.1} ms ({:.2} times)   {cores} at a time {parallel:7.1} ms ({:.2} times)",
        files.len(),
        serial / ours,
        parallel / ours
    );
    Ok(())
}

const IR: &str = "
define void @square(ptr noalias %y, ptr noalias %x, i64 %i) {
  %px = getelementptr inbounds float, ptr %x, i64 %i
  %py = getelementptr inbounds float, ptr %y, i64 %i
  %v = load float, ptr %px
  %w = fmul float %v, %v
  store float %w, ptr %py
  ret void
}
";

fn ir() -> Fallible<()> {
    let runtime = no_cache()?;
    let Ok(llvm) = runtime.toolchain().llvm() else {
        println!("ir      no libLLVM is found");
        return Ok(());
    };
    let compiler = clang(&runtime)?;
    let dir = tempfile::tempdir()?;
    let (file, out) = (dir.path().join("k.ll"), dir.path().join("k.o"));
    fs::write(&file, IR)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..QUICK_ROUNDS {
        ours.push(timed(|| {
            Ok(runtime.compile(&Source::llvm_ir("square", IR))?)
        })?);
        theirs.push(timed(|| {
            let mut clang = Command::new(&compiler);
            clang.args([
                "-x",
                "ir",
                "-Wno-override-module",
                "-c",
                "-O2",
                "-march=native",
            ]);
            Ok(clang.arg(&file).arg("-o").arg(&out).status()?)
        })?);
    }
    let [ours, theirs] = [ours, theirs].map(median);
    println!(
        "ir      LLVM {}            ours {ours:7.2} ms   a process      {theirs:7.2} ms ({:.1} times)",
        llvm.version(),
        theirs / ours
    );
    Ok(())
}

const MLIR: &str = "
func.func @square(%y: memref<64xf32>, %x: memref<64xf32>, %i: i64) {
  %at = arith.index_cast %i : i64 to index
  %v = memref.load %x[%at] : memref<64xf32>
  %w = arith.mulf %v, %v : f32
  memref.store %w, %y[%at] : memref<64xf32>
  return
}
";

const MLIR_PASSES: [&str; 4] = [
    "--finalize-memref-to-llvm",
    "--convert-arith-to-llvm",
    "--convert-func-to-llvm=use-bare-ptr-memref-call-conv=1",
    "--reconcile-unrealized-casts",
];

/// `mlir-opt | mlir-translate | clang -c`, as a shell would start them.
fn pipeline(opt: &Path, translate: &Path, clang: &Path, file: &Path, out: &Path) -> Fallible<()> {
    let mut opt = Command::new(opt)
        .args(MLIR_PASSES)
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()?;
    let lowered = opt.stdout.take().ok_or("no output")?;
    let mut translate = Command::new(translate)
        .arg("--mlir-to-llvmir")
        .stdin(lowered)
        .stdout(Stdio::piped())
        .spawn()?;
    let ir = translate.stdout.take().ok_or("no output")?;
    let mut clang = Command::new(clang)
        .args(["-x", "ir", "-Wno-override-module", "-c", "-O2"])
        .args(["-march=native", "-", "-o"])
        .arg(out)
        .stdin(ir)
        .spawn()?;
    let children = [&mut opt, &mut translate, &mut clang];
    let ended = children.map(|child| child.wait().is_ok_and(|status| status.success()));
    ended
        .iter()
        .all(|&ok| ok)
        .then_some(())
        .ok_or_else(|| "a process failed".into())
}

fn mlir() -> Fallible<()> {
    let runtime = no_cache()?;
    let (Ok(mlir), Ok(llvm)) = (runtime.toolchain().mlir(), runtime.toolchain().llvm()) else {
        println!("mlir    no mlir-opt or no libLLVM is found");
        return Ok(());
    };
    let opt = mlir.path().to_owned();
    let name = opt.file_name().unwrap_or_default().to_string_lossy();
    let translate = opt.with_file_name(name.replace("opt", "translate"));
    let compiler = clang(&runtime)?;
    let dir = tempfile::tempdir()?;
    let (file, out) = (dir.path().join("k.mlir"), dir.path().join("k.o"));
    fs::write(&file, MLIR)?;
    for kernels in [1, 16] {
        let source = |i: usize| {
            let other = MLIR.replace("%w", &format!("%w{i}"));
            Source::mlir("square", other)
        };
        let sources: Vec<Source> = (0..kernels).map(source).collect();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..QUICK_ROUNDS {
            ours.push(timed(|| {
                let objects = no_cache()?.compile_all(&sources, &|_, _| ());
                Ok(objects.into_iter().collect::<Result<Vec<_>, _>>()?)
            })?);
            theirs.push(timed(|| {
                (0..kernels).try_for_each(|_| pipeline(&opt, &translate, &compiler, &file, &out))
            })?);
        }
        let [ours, theirs] = [ours, theirs].map(median);
        println!(
            "mlir    MLIR {}, LLVM {}   {kernels:3} kernels   ours {ours:7.1} ms   processes {theirs:7.1} ms ({:.1} times)",
            mlir.version(),
            llvm.version(),
            theirs / ours
        );
    }
    Ok(())
}

/// What a child does: opens and runs a bundle, or opens libraries; says when it came to the
/// first launch, or was done.
fn child(task: &str) -> Fallible<()> {
    let (what, rest) = task.split_once('\n').ok_or("no task")?;
    match what {
        "run" => {
            let (path, cache) = rest.split_once('\n').ok_or("no cache")?;
            let bundle = Bundle::open(path)?;
            let runtime = RuntimeBuilder::from_env()
                .cache_dir(cache)
                .threads(1)
                .build()?;
            let executable = load(&bundle, &runtime)?;
            let mut replay = Replay::new(&executable)?;
            if !bundle.tests().is_empty() {
                replay.set_test(&bundle, 0)?;
            }
            println!("{}", now());
        }
        _ => {
            for line in rest.lines() {
                let (path, entry) = line.split_once('\t').ok_or("no entry")?;
                let (path, entry) = (CString::new(path)?, CString::new(entry)?);
                // SAFETY: a library without constructors, by its path, and a name in it.
                let entry = unsafe { dlsym(dlopen(path.as_ptr(), RTLD_NOW), entry.as_ptr()) };
                assert!(!entry.is_null());
            }
            println!("{}", now());
        }
    }
    Ok(())
}

/// From the start of a process to what it says, in ms.
fn process(task: &str) -> Fallible<f64> {
    let start = now();
    let output = Command::new(std::env::current_exe()?)
        .env(TASK, task)
        .output()?;
    let said: i64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok((said - start) as f64 / 1e6)
}

fn warm(name: &str, path: &str, bundle: &Bundle) -> Fallible<()> {
    let dir = tempfile::tempdir()?;
    let cache = dir.path().join("cache");
    let runtime = RuntimeBuilder::from_env()
        .cache_dir(&cache)
        .threads(1)
        .build()?;
    load(bundle, &runtime)?;
    let compiler = clang(&runtime)?;
    let mut libraries = String::from("open\n");
    for (i, kernel) in bundle.plan().kernels().iter().enumerate() {
        let Some(file) = bundle.source_file(i) else {
            continue;
        };
        let library = dir.path().join(format!("{i}.so"));
        let status = Command::new(&compiler)
            .args([
                "-shared",
                "-O2",
                "-march=native",
                "-fPIC",
                "-ffreestanding",
                "-fno-math-errno",
            ])
            .arg(file)
            .arg("-o")
            .arg(&library)
            .arg("-lm")
            .status()?;
        assert!(status.success());
        libraries += &format!("{}\t{}\n", library.display(), kernel.entry);
    }
    let ours = format!("run\n{path}\n{}", cache.display());
    let (mut ours_ms, mut theirs_ms, mut nothing_ms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..QUICK_ROUNDS {
        ours_ms.push(process(&ours)?);
        theirs_ms.push(process(&libraries)?);
        nothing_ms.push(process("open\n")?);
    }
    let kernels = bundle.plan().kernels().len() as f64;
    let [ours, theirs, nothing] = [ours_ms, theirs_ms, nothing_ms].map(median);
    println!(
        "warm    {name:<12} {kernels:3} kernels   ours {ours:7.2} ms, {:5.1} µs a kernel   dlopen {theirs:7.2} ms, {:5.1} µs a kernel   a process that does nothing {nothing:.2} ms",
        (ours - nothing) * 1e3 / kernels,
        (theirs - nothing) * 1e3 / kernels
    );
    Ok(())
}

fn first_answer(name: &str, bundle: &Bundle) -> Fallible<()> {
    let answer = |quick: bool| {
        let start = Instant::now();
        let runtime = no_cache()?;
        let load = Load {
            carried: false,
            ..Load::default()
        };
        let (executable, upgrade) = if quick {
            // SAFETY: whoever names a bundle to this program trusts it as a program.
            let tiered = unsafe { bundle.load_tiered(&runtime, &load, OptLevel::O0)? };
            (tiered.0, Some(tiered.1))
        } else {
            (self::load(bundle, &runtime)?, None)
        };
        let mut instance = executable.instance()?;
        if let Some(test) = bundle.tests().first() {
            bundle.run_test(test, &mut instance)?;
        }
        let time = start.elapsed().as_secs_f64() * 1e3;
        // So that it takes nothing from what is measured next.
        upgrade.map_or(Ok(()), |upgrade| upgrade.wait())?;
        Fallible::Ok(time)
    };
    let (mut quick, mut optimised) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        quick.push(answer(true)?);
        optimised.push(answer(false)?);
    }
    let [quick, optimised] = [quick, optimised].map(median);
    println!(
        "first   {name:<12} quick {quick:7.1} ms   optimised {optimised:7.1} ms ({:.2} times)",
        optimised / quick
    );
    Ok(())
}

fn main() -> Fallible<()> {
    if let Ok(task) = std::env::var(TASK) {
        return child(&task);
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits").to_owned();
    let mut paths: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if paths.is_empty() {
        paths.push(example);
    }
    ir()?;
    mlir()?;
    for path in &paths {
        let bundle = Bundle::open(path)?;
        let name = Path::new(path).file_stem().unwrap_or_default();
        let name = name.to_string_lossy();
        cold(&name, &bundle)?;
        warm(&name, path, &bundle)?;
        first_answer(&name, &bundle)?;
    }
    Ok(())
}
