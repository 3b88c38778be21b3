//! What it costs to make an object callable: from its bytes in memory to the
//! address of its entry; beside `dlopen` and `dlsym` of a shared library made of the
//! same object, the way that needs no linker of one's own. Unmapping and `dlclose`
//! are not counted.
//!
//! The kernels are of the size of real ones: an unrolled product whose object has
//! some 5, 20 and 30 KB. The two ways take turns; the figures are medians.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Instant;

use svod_runtime::compile::Object;
use svod_runtime::link::{Image, ObjectFile, Symbols};
use svod_runtime::{Runtime, Source};

/// Rounds, of which the median counts.
const ROUNDS: usize = 301;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlclose(library: *mut c_void) -> c_int;
}
const RTLD_NOW: c_int = 2;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A kernel with constants, a call into libm, and as many statements.
fn source(statements: usize) -> Source {
    let mut text = "float expf(float);\n\
         void kernel(float *restrict out, const float *restrict in) {\n"
        .to_owned();
    for i in 0..statements {
        let a = i * 7 % 61;
        let b = i * 13 % 67;
        let _ = writeln!(
            text,
            "  out[{i}] = in[{a}] * {}.{i}f + in[{b}] * in[{i}];",
            i + 1
        );
    }
    text += "  out[0] = expf(out[0]);\n}\n";
    Source::c("kernel", text)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn link(object: &Object, symbols: &Symbols) -> Fallible<f64> {
    let start = Instant::now();
    let file = ObjectFile::parse(object.entry(), object.bytes())?;
    let image = Image::load(&file, symbols)?;
    std::hint::black_box(image.function(object.entry()));
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

fn load(library: &CString) -> Fallible<f64> {
    // SAFETY: a library without constructors, by its path; a name with an end.
    // Nothing is called, and nothing of it is used after it is closed.
    unsafe {
        let start = Instant::now();
        let handle = dlopen(library.as_ptr(), RTLD_NOW);
        if handle.is_null() {
            return Err("dlopen failed".into());
        }
        std::hint::black_box(dlsym(handle, c"kernel".as_ptr()));
        let time = start.elapsed().as_secs_f64() * 1e6;
        dlclose(handle);
        Ok(time)
    }
}

fn main() -> Fallible<()> {
    let runtime = Runtime::new()?;
    let symbols = Symbols::default();
    let compiler = runtime.toolchain().c_compiler("kernel")?;
    println!("to a callable entry, in µs; medians of {ROUNDS} rounds\n");
    println!("  object bytes      ours    dlopen   dlopen ÷ ours");
    for statements in [80, 350, 600] {
        let object = runtime.compile(&source(statements))?;
        let dir = tempfile::tempdir()?;
        let (o, so) = (dir.path().join("k.o"), dir.path().join("k.so"));
        std::fs::write(&o, object.bytes())?;
        let made = Command::new(&compiler.path)
            .args(["-shared", "-o"])
            .args([&so, &o])
            .status()?;
        if !made.success() {
            return Err("the peer's shared library could not be made".into());
        }
        let library = CString::new(so.as_os_str().as_bytes())?;
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let times = (link(&object, &symbols)?, load(&library)?);
            // The first round warms up.
            if round > 0 {
                ours.push(times.0);
                peer.push(times.1);
            }
        }
        let ratio = median(ours.iter().zip(&peer).map(|(a, b)| b / a).collect());
        println!(
            "  {:12} {:9.1} {:9.1} {ratio:15.1}",
            object.bytes().len(),
            median(ours),
            median(peer),
        );
    }
    Ok(())
}
