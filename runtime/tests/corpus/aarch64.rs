//! aarch64: linked here, executed under emulation, and compared with x86-64.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::{Object as _, ObjectSymbol as _};
use svod_runtime::link::{Architecture, Definition, ObjectFile, Resolver, Rights, layout, link};

use crate::COMMON;
use crate::common::{compiler_range, in_parallel, kernel, load, skip};
use crate::kernels::{self, BYTES, Kernels, MIN_KERNELS};
use crate::system::{compile, succeed};

/// Where images lie in the emulated process: out of reach of every instruction that
/// does not load an address, from the runner's own code.
const BASE: u64 = 0x20_0000_0000;

const FLAGS: &[&str] = &[
    "-O0",
    "-O1 -fPIC",
    "-O2 -fpic -ffunction-sections -fdata-sections -g",
    "-O3 -fno-pic -fno-pie",
    "-O0 -fno-pic -fno-pie -mcmodel=large",
    "-O2 -fno-pic -fno-pie -mcmodel=large",
    "-O2 -fno-pic -fno-pie -mcmodel=tiny",
    "-Os -fPIC -fno-plt -fno-jump-tables",
    "-O2 -fPIC -fstack-protector-all -mbranch-protection=standard -fstack-clash-protection",
];

/// The cross compiler of Debian, whose C library the emulated process has.
const GCC: &str = "aarch64-linux-gnu-gcc";
const QEMU: [&str; 2] = ["qemu-aarch64", "qemu-aarch64-static"];

/// A compiler's command, and the flags that make it one for aarch64.
fn cross_compilers() -> Vec<(PathBuf, String)> {
    let clangs = compiler_range()
        .into_iter()
        .filter(|c| c.path.to_string_lossy().contains("clang"));
    let mut all: Vec<_> = clangs
        .map(|c| {
            let half = if c.major < 15 { "" } else { "-DHALF" };
            (c.path, format!("--target=aarch64-linux-gnu {half}"))
        })
        .collect();
    all.push((GCC.into(), "-DHALF".into()));
    all
}

fn in_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let candidates = names
        .iter()
        .flat_map(|n| dirs.iter().map(move |d| d.join(n)));
    candidates.into_iter().find(|p| p.is_file())
}

/// A program that maps and runs images, under emulation.
struct Runner {
    qemu: PathBuf,
    program: PathBuf,
    symbols: BTreeMap<String, u64>,
}

impl Resolver for Runner {
    fn resolve(&self, name: &str) -> Option<Definition> {
        let address = *self.symbols.get(name)?;
        Some(if name == "__stack_chk_guard" {
            Definition::Data(address)
        } else {
            Definition::Function(address)
        })
    }
}

impl Runner {
    /// One that has these symbols.
    fn new(qemu: PathBuf, dir: &Path, names: &BTreeSet<String>) -> Runner {
        let list: String = names.iter().map(|n| format!("SYMBOL({n})\n")).collect();
        std::fs::write(dir.join("symbols.h"), list).unwrap();
        let program = dir.join("runner");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/runner.c");
        let mut build = Command::new(GCC);
        build
            .args(["-O1", "-static", "-fno-builtin", "-I"])
            .arg(dir);
        build.arg(source).arg("-o").arg(&program).arg("-lm");
        succeed(&mut build);
        let printed = succeed(Command::new(&qemu).arg(&program).arg("symbols"));
        let printed = String::from_utf8(printed).unwrap();
        let symbol = |line: &str| {
            let (name, address) = line.split_once(" 0x")?;
            Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?))
        };
        let symbols: BTreeMap<_, _> = printed.lines().filter_map(symbol).collect();
        assert_eq!(symbols.len(), names.len());
        Runner {
            qemu,
            program,
            symbols,
        }
    }

    /// What the kernels of an object make of their inputs.
    fn run(&self, dir: &Path, object: &Path) -> BTreeMap<String, Vec<u8>> {
        let Kernels { names, bytes } = Kernels::of(object);
        let file = ObjectFile::parse("corpus", &bytes).unwrap();
        assert_eq!(file.architecture(), Architecture::Aarch64);
        file.check_stateless().unwrap();
        let layout = layout(&file, 4096);
        let image = link(&file, &layout, BASE, self).unwrap_or_else(|e| panic!("{e}"));
        let path = object.with_extension("image");
        std::fs::write(&path, &image).unwrap();

        let mut job = format!("image {} {BASE:x} {:x}\n", path.display(), image.len());
        for segment in layout.segments() {
            let rights = match segment.rights {
                Rights::Code => "CODE",
                Rights::Constants => "CONSTANTS",
                Rights::Data => "DATA",
            };
            let range = &segment.range;
            writeln!(job, "segment {:x} {:x} {rights}", range.start, range.end).unwrap();
        }
        for name in &names {
            let input = dir.join(format!("input_{}", name.split('_').nth(1).unwrap()));
            let entry = BASE + layout.function(&file, name).unwrap();
            writeln!(job, "call {entry:x} {}", input.display()).unwrap();
        }
        let mut qemu = Command::new(&self.qemu);
        qemu.arg(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = qemu.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(job.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            object.display(),
            output.status
        );
        assert_eq!(output.stdout.len(), BYTES * names.len());
        let outputs = output.stdout.chunks(BYTES).map(<[u8]>::to_vec);
        names.into_iter().zip(outputs).collect()
    }
}

/// Whether two results are the same: every bit, but for what two builds of libm may
/// round otherwise.
fn same(name: &str, got: &[u8], expected: &[u8]) -> bool {
    let near = |a: f64, b: f64, epsilon: f64| (a - b).abs() <= epsilon * b.abs().max(1e-6);
    if !name.contains("_libm") || name.contains("_exact") {
        return got == expected;
    }
    if name.contains("_f64_") {
        let numbers = |x: &[u8]| {
            x.as_chunks()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect::<Vec<_>>()
        };
        let pairs = numbers(got).into_iter().zip(numbers(expected));
        pairs.into_iter().all(|(a, b)| near(a, b, 1e-14))
    } else {
        let numbers = |x: &[u8]| {
            x.as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect::<Vec<_>>()
        };
        let pairs = numbers(got).into_iter().zip(numbers(expected));
        pairs
            .into_iter()
            .all(|(a, b)| near(a.into(), b.into(), 1e-6))
    }
}

#[test]
fn aarch64_objects_linked_here_give_under_emulation_what_x86_64_gives() {
    let (Some(qemu), Some(_)) = (in_path(&QEMU), in_path(&[GCC])) else {
        return skip("there is no qemu-aarch64 (qemu-user), or no aarch64-linux-gnu-gcc");
    };
    let dir = tempfile::tempdir().unwrap();
    for kind in ["f32", "f64", "h16", "i32", "i64", "u8"] {
        let path = dir.path().join(format!("input_{kind}"));
        std::fs::write(path, kernels::input(&format!("k_{kind}_"))).unwrap();
    }
    let work: Vec<_> = cross_compilers()
        .into_iter()
        .flat_map(|(compiler, target)| {
            let all = FLAGS.iter().map(move |f| format!("{COMMON} {target} {f}"));
            all.map(move |flags| (compiler.clone(), flags))
        })
        .collect();
    let objects = in_parallel(&work, |i, (compiler, flags)| {
        let object = dir.path().join(format!("{i}.o"));
        compile(compiler, flags, Path::new(kernels::SOURCE), &object);
        object
    });
    let mut undefined = BTreeSet::new();
    for object in &objects {
        let bytes = std::fs::read(object).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        // A weak symbol stays undefined.
        let symbols = file.symbols().filter(|s| s.is_undefined() && !s.is_weak());
        let names = symbols
            .filter_map(|s| s.name().ok())
            .filter(|n| !n.is_empty());
        undefined.extend(
            names
                .filter(|n| *n != "_GLOBAL_OFFSET_TABLE_")
                .map(str::to_owned),
        );
    }
    let runner = Runner::new(qemu, dir.path(), &undefined);

    // Of this machine's own compilers the newest gives the expected results.
    let host = compiler_range();
    let host = host.iter().rfind(|c| c.major >= 12).unwrap();
    let object = dir.path().join("host.o");
    let flags = format!("{COMMON} -O1 -fPIC -DHALF");
    compile(&host.path, &flags, Path::new(kernels::SOURCE), &object);
    let host = Kernels::of(&object);
    let image = load(&host.bytes).unwrap();
    let expected: BTreeMap<String, Vec<u8>> = host
        .names
        .iter()
        .map(|name| {
            // SAFETY: the kernels of the corpus read and write 4096 bytes.
            let kernel = unsafe { kernel(&image, name, kernels::signature()) };
            (name.clone(), kernels::launch(&kernel, name))
        })
        .collect();

    let pairs: Vec<_> = work.iter().zip(&objects).collect();
    in_parallel(&pairs, |_, ((compiler, flags), object)| {
        let results = runner.run(dir.path(), object);
        assert!(results.len() >= MIN_KERNELS);
        for (name, got) in results {
            let how = format!("{} {flags}: {name}", compiler.display());
            assert!(
                same(&name, &got, &expected[&name]),
                "{how} gives other results"
            );
        }
    });
    println!("{} objects of {MIN_KERNELS} kernels or more", objects.len());
}
