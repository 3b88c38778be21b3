//! A corpus: many kernels from several compilers with many sets of flags, linked here,
//! and the same kernels loaded by the system's own loader, give the same results.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod aarch64;
mod kernels;
mod rust;
mod system;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use common::{compiler_range, in_parallel, kernel, load};
use kernels::{Kernels, MIN_KERNELS, call};
use svod_runtime::compile::Family;
use system::{compile, link_shared};

/// What every object here is compiled with. libm may not set `errno`, and nothing is
/// contracted, since compilers do so at some levels and not at others.
const COMMON: &str = "-ffreestanding -fno-math-errno -ffp-contract=off";

/// A set of flags: what decides the results, and what decides how the object looks.
const FLAGS: &[(&str, &str)] = &[
    ("-O0 -march=native", ""),
    ("-O1 -march=native", "-fPIC"),
    (
        "-O2 -march=native",
        "-fPIC -ffunction-sections -fdata-sections -g",
    ),
    ("-O3 -march=native", "-fno-pic -fno-pie"),
    ("-O0 -march=native", "-fno-pic -fno-pie"),
    ("-O2 -march=native", "-fno-pic -fno-pie -mcmodel=large"),
    ("-O2 -march=native", "-fPIC -mcmodel=large"),
    ("-O2 -march=native", "-mcmodel=medium -fcommon"),
    ("-O3 -march=x86-64", "-fPIC -fno-plt -fvisibility=default"),
    ("-Os -march=x86-64", "-fno-jump-tables -funwind-tables"),
    (
        "-O2 -march=native",
        "-fPIC -fstack-protector-all -fstack-clash-protection -fcf-protection=full \
         -ftrivial-auto-var-init=zero -ftrivial-auto-var-init=pattern",
    ),
    (
        "-O2 -march=x86-64",
        "-fPIE -fstack-protector-strong -g -fno-omit-frame-pointer",
    ),
];

#[test]
fn kernels_of_every_compiler_and_set_of_flags_give_what_the_systems_loader_gives() {
    let dir = tempfile::tempdir().unwrap();
    let compilers = compiler_range();
    assert!(FLAGS.len() >= 8);
    // A reference for each compiler and each set of flags that decides results.
    let mut references = BTreeMap::new();
    for compiler in &compilers {
        for (deciding, _) in FLAGS {
            references.insert((compiler.path.clone(), *deciding), Mutex::new(None));
        }
    }
    let work: Vec<_> = compilers
        .iter()
        .flat_map(|compiler| FLAGS.iter().map(move |flags| (compiler, flags)))
        .collect();
    let kernel_counts = in_parallel(&work, |i, &(compiler, (deciding, form))| {
        let how = format!("{} {deciding} {form}", compiler.path.display());
        let half = if compiler.family == Family::Clang && compiler.major < 15 {
            ""
        } else {
            "-DHALF"
        };
        let compile = |name: &str, form: &str| {
            let object = dir.path().join(format!("{name}{i}.o"));
            let flags = format!("{COMMON} {half} {deciding} {form}");
            compile(&compiler.path, &flags, Path::new(kernels::SOURCE), &object);
            object
        };
        let results = |object: &Path| -> BTreeMap<String, Vec<u8>> {
            let names = Kernels::of(object).names;
            let library = link_shared(&compiler.path, object, &[]);
            // SAFETY: the kernels of the corpus read and write 4096 bytes.
            let result = |name: &String| unsafe { call(library.function(name), name) };
            names.iter().map(|n| (n.clone(), result(n))).collect()
        };
        let reference = &references[&(compiler.path.clone(), *deciding)];
        let mut reference = reference.lock().unwrap();
        let expected = reference.get_or_insert_with(|| results(&compile("reference", "-fPIC")));

        let object = compile("object", form);
        let Kernels { names, bytes } = Kernels::of(&object);
        assert_eq!(names.len(), expected.len(), "{how}");
        let image = load(&bytes).unwrap_or_else(|e| panic!("{how}: {e}"));
        for name in &names {
            // SAFETY: the kernels of the corpus read and write 4096 bytes, where they
            // are told to.
            let kernel = unsafe { kernel(&image, name, kernels::signature()) };
            let got = kernels::launch(&kernel, name);
            let differs = (0..kernels::BYTES).find(|&i| got[i] != expected[name][i]);
            assert_eq!(differs, None, "{how}: {name} gives another byte there");
            assert!(got.iter().any(|&b| b != 0), "{how}: {name} gives nothing");
        }
        names.len()
    });
    let kernels = kernel_counts.iter().min().unwrap();
    assert!(*kernels >= MIN_KERNELS, "{kernels} kernels");
    println!(
        "{} objects of {kernels} kernels or more, by {} compilers",
        work.len(),
        compilers.len()
    );
}

#[test]
fn entries_of_the_same_name_in_many_objects_do_not_meet() {
    let compiler = &compiler_range()[0];
    let dir = tempfile::tempdir().unwrap();
    let kernels: Vec<_> = (1..=5_u8)
        .map(|n| {
            let source = dir.path().join(format!("{n}.c"));
            let text = format!(
                "static const int add = {n}; int helper(int x) {{ return x + add; }}
                 void entry(unsigned char *out, const unsigned char *in) {{
                     out[0] = (unsigned char)helper(in[0]);
                 }}"
            );
            std::fs::write(&source, text).unwrap();
            let object = source.with_extension("o");
            compile(&compiler.path, "-O1 -fPIC", &source, &object);
            let image = load(&std::fs::read(object).unwrap()).unwrap();
            // SAFETY: it reads and writes one byte.
            unsafe { kernel(&image, "entry", kernels::signature()) }
        })
        .collect();
    let input = kernels::input("k_u8_");
    for (n, kernel) in (1..=5_u8).zip(&kernels) {
        let out = kernels::launch(kernel, "k_u8_entry");
        assert_eq!(out[0], input[0].wrapping_add(n));
    }
}
