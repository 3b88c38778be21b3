//! What it costs to make objects callable: from their bytes in memory to the addresses of
//! their entries; beside `dlopen` and `dlsym` of a shared library made of each object, the
//! way that needs no linker of one's own. Unmapping and `dlclose` are not counted.
//!
//! First one object, of the size of real ones: an unrolled product whose object has some
//! 5, 20 and 30 KB. Then many: 300 copies of small kernels, and the kernels of each bundle
//! that is named on the command line. Many are loaded in bulk, and with an image each. The
//! ways take turns; the figures are medians.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use svod_runtime::bundle::Bundle;
use svod_runtime::compile::Object;
use svod_runtime::link::{Image, LoadOptions, ObjectFile, Symbols};
use svod_runtime::{Runtime, Source};

/// Rounds, of which the median counts.
const ROUNDS: usize = 301;
/// Rounds of many objects.
const BULK_ROUNDS: usize = 31;
/// How many small kernels are loaded at once.
const COPIES: usize = 300;

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

/// How long `work` takes, in µs; without the dropping of what it returns.
fn timed<T>(work: impl FnOnce() -> Fallible<T>) -> Fallible<f64> {
    let start = Instant::now();
    let result = work()?;
    let time = start.elapsed().as_secs_f64() * 1e6;
    drop(std::hint::black_box(result));
    Ok(time)
}

fn parse(object: &Object) -> Fallible<ObjectFile<'_>> {
    Ok(ObjectFile::parse(object.entry(), object.bytes())?)
}

fn one_by_one(objects: &[Object], symbols: &Symbols) -> Fallible<Vec<Image>> {
    let load = |object| {
        let image = Image::load(&parse(object)?, symbols)?;
        std::hint::black_box(image.function(object.entry()));
        Ok(image)
    };
    objects.iter().map(load).collect()
}

fn in_bulk(objects: &[Object], symbols: &Symbols) -> Fallible<Vec<Image>> {
    let files = objects.iter().map(parse).collect::<Fallible<Vec<_>>>()?;
    let images = Image::load_all(&files, symbols, LoadOptions::default())?;
    for (object, image) in objects.iter().zip(&images) {
        std::hint::black_box(image.function(object.entry()));
    }
    Ok(images)
}

/// Shared libraries that are open.
struct Libraries(Vec<*mut c_void>);

impl Drop for Libraries {
    fn drop(&mut self) {
        for &handle in &self.0 {
            // SAFETY: it was opened, and nothing of it is used any more.
            unsafe { dlclose(handle) };
        }
    }
}

fn by_the_system(libraries: &[(CString, CString)]) -> Fallible<Libraries> {
    let mut open = Libraries(Vec::with_capacity(libraries.len()));
    for (path, entry) in libraries {
        // SAFETY: a library without constructors, by its path; a name with an end.
        // Nothing is called, and nothing of it is used after it is closed.
        unsafe {
            let handle = dlopen(path.as_ptr(), RTLD_NOW);
            if handle.is_null() {
                return Err("dlopen failed".into());
            }
            std::hint::black_box(dlsym(handle, entry.as_ptr()));
            open.0.push(handle);
        }
    }
    Ok(open)
}

/// A shared library of each object in the folder `dir`, and the entry to look for.
fn libraries(compiler: &Path, objects: &[Object], dir: &Path) -> Fallible<Vec<(CString, CString)>> {
    let library = |(i, object): (usize, &Object)| {
        let [o, so] = ["o", "so"].map(|end| dir.join(format!("{i}.{end}")));
        std::fs::write(&o, object.bytes())?;
        let made = Command::new(compiler)
            .args(["-shared", "-o"])
            .args([&so, &o])
            .status()?;
        if !made.success() {
            return Err("the peer's shared library could not be made".into());
        }
        let path = CString::new(so.as_os_str().as_bytes())?;
        Ok((path, CString::new(object.entry())?))
    };
    objects.iter().enumerate().map(library).collect()
}

/// The objects of a bundle's kernels, compiled one after the other.
fn of_bundle(runtime: &Runtime, path: &Path) -> Fallible<Vec<Object>> {
    let bundle = Bundle::open(path)?;
    let compile = |(i, kernel): (usize, &svod_runtime::plan::PlanKernel)| {
        let file = bundle.source_file(i).ok_or("a kernel without a source")?;
        let text = std::fs::read_to_string(&file)?;
        let dir = file.parent().unwrap_or(path).canonicalize()?;
        let source = Source::c(&kernel.entry, text).include_dir(dir);
        Ok(runtime.compile(&source)?)
    };
    bundle
        .plan()
        .kernels()
        .iter()
        .enumerate()
        .map(compile)
        .collect()
}

fn many(runtime: &Runtime, name: &str, objects: &[Object]) -> Fallible<()> {
    let symbols = Symbols::default();
    let compiler = runtime.toolchain().c_compiler("kernel")?;
    let dir = tempfile::tempdir()?;
    let libraries = libraries(&compiler.path, objects, dir.path())?;
    let mut times = [(); 3].map(|()| Vec::new());
    for round in 0..=BULK_ROUNDS {
        let took = [
            timed(|| in_bulk(objects, &symbols))?,
            timed(|| one_by_one(objects, &symbols))?,
            timed(|| by_the_system(&libraries))?,
        ];
        // The first round warms up.
        if round > 0 {
            for (times, took) in times.iter_mut().zip(took) {
                times.push(took / objects.len() as f64);
            }
        }
    }
    let [bulk, each, peer] = &times;
    let ratio = median(bulk.iter().zip(peer).map(|(a, b)| b / a).collect());
    let bytes: usize = objects.iter().map(|o| o.bytes().len()).sum();
    println!(
        "  {name:20} {:7} {:12} {:9.1} {:9.1} {:9.1} {ratio:15.1}",
        objects.len(),
        bytes / objects.len(),
        median(bulk.clone()),
        median(each.clone()),
        median(peer.clone()),
    );
    Ok(())
}

fn main() -> Fallible<()> {
    let runtime = Runtime::new()?;
    let symbols = Symbols::default();
    let compiler = runtime.toolchain().c_compiler("kernel")?;
    println!("to a callable entry, in µs; medians of {ROUNDS} rounds\n");
    println!("  object bytes      ours    dlopen   dlopen ÷ ours");
    for statements in [80, 350, 600] {
        let objects = [runtime.compile(&source(statements))?];
        let dir = tempfile::tempdir()?;
        let libraries = libraries(&compiler.path, &objects, dir.path())?;
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let times = (
                timed(|| one_by_one(&objects, &symbols))?,
                timed(|| by_the_system(&libraries))?,
            );
            // The first round warms up.
            if round > 0 {
                ours.push(times.0);
                peer.push(times.1);
            }
        }
        let ratio = median(ours.iter().zip(&peer).map(|(a, b)| b / a).collect());
        println!(
            "  {:12} {:9.1} {:9.1} {ratio:15.1}",
            objects[0].bytes().len(),
            median(ours),
            median(peer),
        );
    }

    println!("\nmany at once, in µs a kernel; medians of {BULK_ROUNDS} rounds\n");
    println!(
        "                       kernels object bytes   in bulk one by one    dlopen  dlopen ÷ in bulk"
    );
    for statements in [1, 20, 80] {
        let object = runtime.compile(&source(statements))?;
        many(&runtime, "copies", &vec![object; COPIES])?;
    }
    // Cargo hands over flags of its own.
    for path in std::env::args().skip(1).filter(|a| !a.starts_with('-')) {
        let path = PathBuf::from(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        many(&runtime, &name, &of_bundle(&runtime, &path)?)?;
    }
    Ok(())
}
