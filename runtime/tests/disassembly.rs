//! Listings of what compilers make, held against what the object files say.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{compiler_of, compiler_range, in_parallel, skip};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};
use svod_runtime::compile::Family;
use svod_runtime::link::disassembly::{Function, Listing};
use svod_runtime::link::{Architecture, ObjectFile, Rights};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/kernels.c");

const COMMON: &str = "-O3 -ffreestanding -fno-math-errno -ffp-contract=off";

/// Compiles a file; `None` where there is no such compiler.
fn compile(compiler: &Path, flags: &str, source: &str) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let object = dir.path().join("k.o");
    let mut command = Command::new(compiler);
    command.args(flags.split_whitespace()).arg("-c").arg(source);
    command.arg("-o").arg(&object).stdin(Stdio::null());
    let output = command.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    Some(std::fs::read(object).unwrap())
}

fn list(bytes: &[u8]) -> Listing {
    ObjectFile::parse("k", bytes).unwrap().disassemble()
}

/// Compiles C text with the newest clang for a CPU, and lists it.
fn listed(flags: &str, text: &str) -> Option<Listing> {
    let clang = compiler_of(Family::Clang)?;
    let source = tempfile::Builder::new().suffix(".c").tempfile().unwrap();
    std::fs::write(source.path(), text).unwrap();
    let flags = format!("-O3 -ffreestanding -fno-math-errno {flags}");
    let bytes = compile(&clang.path, &flags, source.path().to_str().unwrap())?;
    Some(list(&bytes))
}

/// Where each label of a function is, each of which is one place.
fn labels(function: &Function) -> BTreeMap<&str, u64> {
    let mut labels = BTreeMap::new();
    for instruction in &function.instructions {
        if let Some(label) = &instruction.label {
            let before = labels.insert(label.as_str(), instruction.offset);
            assert_eq!(before, None, "{}: {label} is in two places", function.name);
        }
    }
    labels
}

/// Holds a listing against its object.
fn check(how: &str, bytes: &[u8]) -> usize {
    let listing = list(bytes);
    let file = object::File::parse(bytes).unwrap();
    let undefined = file.symbols().filter(|s| s.is_undefined());
    let mut names: BTreeSet<&str> = undefined.filter_map(|s| s.name().ok()).collect();
    for function in &listing.functions {
        names.insert(&function.name);
        names.extend(function.aliases.iter().map(String::as_str));
    }
    let mut kernels = 0;
    for function in &listing.functions {
        let how = format!("{how}: {}", function.name);
        kernels += usize::from(function.name.starts_with("k_"));
        let labels = labels(function);
        let mut at = 0;
        for instruction in &function.instructions {
            assert!(instruction.is_known, "{how}: {}", instruction.text);
            assert_eq!(instruction.offset, at, "{how}");
            at += instruction.bytes;
            if let Some(target) = &instruction.target {
                let text = &instruction.text;
                let is_somewhere =
                    labels.contains_key(target.as_str()) || names.contains(target.as_str());
                assert!(is_somewhere, "{how}: {text} leads to `{target}`");
                assert!(text.contains(target.as_str()), "{how}: {text}, {target}");
            }
        }
        assert_eq!(at, function.bytes, "{how}");
    }
    check_calls(how, &listing, &file);
    kernels
}

/// Each relocation of a call names what the instruction around it calls.
fn check_calls(how: &str, listing: &Listing, file: &object::File<'_>) {
    let calls = [
        object::elf::R_X86_64_PLT32.0,
        object::elf::R_AARCH64_CALL26.0,
    ];
    let mut checked = 0;
    for section in file.sections() {
        let name = section.name().unwrap();
        let functions = listing.functions.iter().filter(|f| f.section == name);
        let functions: Vec<_> = functions.collect();
        for (offset, relocation) in section.relocations() {
            let object::RelocationFlags::Elf { r_type } = relocation.flags() else {
                continue;
            };
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                continue;
            };
            let called = file.symbol_by_index(symbol).unwrap();
            let called = called.name().unwrap();
            if !calls.contains(&r_type.0) || called.is_empty() {
                continue;
            }
            let around = functions.iter().find_map(|f| {
                let within = offset.checked_sub(f.offset)?;
                let mut all = f.instructions.iter();
                all.find(|i| (i.offset..i.offset + i.bytes).contains(&within))
            });
            let Some(around) = around else { continue };
            assert_eq!(
                around.target.as_deref(),
                Some(called),
                "{how}: {}",
                around.text
            );
            checked += 1;
        }
    }
    assert!(checked > 20, "{how}: {checked} calls");
}

#[test]
fn every_instruction_of_the_corpus_is_known_and_leads_where_the_object_says() {
    let mut work = Vec::new();
    for compiler in compiler_range() {
        let is_old = compiler.family == Family::Clang && compiler.major < 15;
        let half = if is_old { "" } else { "-DHALF" };
        if cfg!(target_arch = "x86_64") || compiler.family == Family::Clang {
            for level in ["x86-64-v2", "x86-64-v3", "x86-64-v4"] {
                let target = match compiler.family {
                    Family::Clang => "--target=x86_64-linux-gnu",
                    Family::Gcc => "",
                };
                for form in ["-fPIC", "-fno-pic -ffunction-sections"] {
                    let flags = format!("{COMMON} {target} {half} -march={level} {form}");
                    work.push((compiler.path.clone(), flags));
                }
            }
        }
        if compiler.family == Family::Clang {
            let flags = format!("{COMMON} --target=aarch64-linux-gnu {half}");
            work.push((compiler.path.clone(), flags.clone()));
            work.push((
                compiler.path,
                format!("{flags} -march=armv8.2-a+fp16 -fPIC"),
            ));
        }
    }
    for more in [
        "",
        "-mcmodel=large -fno-pic",
        "-march=armv8.2-a+fp16+dotprod",
    ] {
        let flags = format!("{COMMON} -DHALF {more}");
        work.push(("aarch64-linux-gnu-gcc".into(), flags));
    }
    let counts = in_parallel(&work, |_, (compiler, flags)| {
        let how = format!("{} {flags}", compiler.display());
        match compile(compiler, flags, CORPUS) {
            Some(bytes) => Some(check(&how, &bytes)),
            None => {
                skip(&format!("there is no {}", compiler.display()));
                None
            }
        }
    });
    for count in counts.into_iter().flatten() {
        assert!(count >= 60, "{count} kernels");
    }
}

#[test]
fn vectors_are_as_wide_as_the_cpu_has_them_and_scalars_are_none() {
    let text = "void k(float *restrict y, const float *restrict x) {
                    for (int i = 0; i < 64; i++) y[i] = x[i] * 1.5f;
                }
                void one(float *restrict y, const float *restrict x) {
                    y[0] = x[0] * 1.5f > 2.5f ? -x[0] : x[1];
                }";
    let widths = [
        ("--target=x86_64-linux-gnu -march=x86-64-v2", 128, "xmm"),
        ("--target=x86_64-linux-gnu -march=x86-64-v3", 256, "ymm"),
        (
            "--target=x86_64-linux-gnu -march=x86-64-v4 -mprefer-vector-width=512",
            512,
            "zmm",
        ),
        ("--target=aarch64-linux-gnu", 128, "v"),
    ];
    for (flags, bits, register) in widths {
        let Some(listing) = listed(flags, text) else {
            return;
        };
        let usage = &listing.function("k").unwrap().usage;
        assert_eq!(usage.vector_bits, Some(bits), "{flags}: {usage:?}");
        assert!(usage.vector[0].starts_with(register), "{flags}: {usage:?}");
        assert!(usage.calls.is_empty(), "{flags}: {usage:?}");
        let usage = &listing.function("one").unwrap().usage;
        assert_eq!(usage.vector_bits, None, "{flags}: {usage:?}");
        assert!(!usage.vector.is_empty(), "{flags}: {usage:?}");
        if flags.contains("x86") {
            let constants = listing.functions.iter().flat_map(|f| &f.instructions);
            let mut constants = constants.filter_map(|i| i.constant.as_deref());
            assert!(constants.any(|c| c.starts_with("f32 1.5")), "{flags}");
        }
    }
}

#[test]
fn calls_stack_and_helpers_are_told() {
    let text = "extern float expf(float); void fill(char *);
                __attribute__((noinline)) static float twice(float x) { return 2 * expf(x); }
                void k(float *y, const float *x, int n) {
                    char room[200];
                    fill(room);
                    for (int i = 0; i < n; i++) y[i] = twice(x[i]) + room[i];
                }
                void any(float *y, int n) { char room[n]; fill(room); y[0] = room[0]; }";
    for (target, architecture) in [
        ("--target=x86_64-linux-gnu", Architecture::X86_64),
        ("--target=aarch64-linux-gnu", Architecture::Aarch64),
    ] {
        let Some(listing) = listed(target, text) else {
            return;
        };
        assert_eq!(listing.architecture, architecture);
        assert!(listing.bytes(Rights::Code) > 0);
        let usage = |name: &str| &listing.function(name).unwrap().usage;
        assert_eq!(usage("k").calls, ["fill", "twice"], "{target}");
        assert_eq!(usage("twice").calls, ["expf"], "{target}");
        let k = usage("k");
        assert!((200..400).contains(&k.stack_bytes), "{target}: {k:?}");
        assert!(!k.stack_is_dynamic, "{target}");
        assert!(usage("any").stack_is_dynamic, "{target}");
        assert!(!k.general.is_empty() && k.general.iter().all(|r| r != "rsp" && r != "sp"));
        // A loop has a label, and something that jumps to it.
        let k = listing.function("k").unwrap();
        let labels = labels(k);
        let targets = k.instructions.iter().filter_map(|i| i.target.as_deref());
        assert!(
            targets.into_iter().any(|t| labels.contains_key(t)),
            "{target}"
        );
        assert!(labels.keys().all(|l| l.starts_with(".L")), "{labels:?}");
    }
}

#[test]
fn what_is_not_known_is_listed_as_it_is() {
    let text = "__asm__(\".text\\n.globl k\\nk:\\n.byte 0x06, 0xc3\\n.long 0\\n\");";
    let Some(listing) = listed("--target=x86_64-linux-gnu", text) else {
        return;
    };
    let k = listing.function("k").unwrap();
    assert_eq!(k.instructions[0].text, ".byte 0x06");
    assert!(!k.instructions[0].is_known);
    assert_eq!(k.instructions[1].text, "ret");
    // SVE is not.
    let text = "__asm__(\".text\\n.globl k\\nk:\\n.inst 0x2518e3e0\\nret\\n\");";
    let listing = listed("--target=aarch64-linux-gnu", text).unwrap();
    let k = listing.function("k").unwrap();
    assert_eq!(k.instructions[0].text, ".inst 0x2518e3e0");
    assert!(!k.instructions[0].is_known);
    assert_eq!(k.instructions[1].text, "ret");
}
