//! Profilers and debuggers see linked code, where that is asked for.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::c_void;
use std::process::Command;

use common::{compilers, object, with};
use svod_runtime::compile::Object;
use svod_runtime::link::{Image, LoadOptions, ObjectFile, Observers, Symbols};
use svod_runtime::{DType, Kernel, RuntimeBuilder, Signature};

fn signature() -> Signature {
    let signature = Signature::builder().read_write(DType::F32, 4);
    signature.build().unwrap()
}

/// Kernels of the sources, which are each called by the name beside them, in bulk.
fn load(builder: RuntimeBuilder, sources: &[(&str, &str)]) -> Vec<Kernel> {
    let object = |&(name, text): &(&str, &str)| {
        // What keeps the frame pointer can be unwound without tables.
        let builder = with(&compilers()[0]).flag("-fno-omit-frame-pointer");
        Object::new(name, object(builder, text))
    };
    let objects: Vec<Object> = sources.iter().map(object).collect();
    let runtime = builder.build().unwrap();
    let signature = signature();
    let kernels: Vec<_> = objects.iter().map(|o| (o, &signature)).collect();
    // SAFETY: the kernels here keep to the four elements of `x`.
    unsafe { runtime.link_all(&kernels) }.unwrap()
}

// ---- perf

#[test]
fn perf_finds_each_function_of_each_kernel_in_its_map() {
    let path = format!("/tmp/perf-{}.map", std::process::id());
    // An earlier process may have had this number.
    let _ = std::fs::remove_file(&path);
    let builder = || with(&compilers()[0]);
    // Nobody asks for it.
    let text = "void seen_unasked(float *x) { x[0] = 1; }";
    load(builder(), &[("seen_unasked", text)]);
    assert!(!std::fs::exists(&path).unwrap());

    let first = "__attribute__((noinline)) static float part(float x) { return x * x + 1; }
                 void seen_first(float *x) { x[0] = part(x[0]) + part(x[1]); }";
    let second = "void seen_second(float *x) { x[0] += 1; }";
    let bytes = [first, second].map(|text| object(builder(), text));
    let names = ["seen_first", "seen_second"];
    let files: Vec<_> = names
        .iter()
        .zip(&bytes)
        .map(|(name, bytes)| ObjectFile::parse(name, bytes).unwrap())
        .collect();
    let options = LoadOptions {
        observers: Observers {
            perf_map: true,
            gdb: false,
        },
        ..LoadOptions::default()
    };
    let images = Image::load_all(&files, &Symbols::default(), options).unwrap();
    let map = std::fs::read_to_string(&path).unwrap();
    let line = |name: &str| {
        let lines: Vec<_> = map
            .lines()
            .filter(|l| l.split(' ').nth(2) == Some(name))
            .collect();
        let [line] = lines[..] else {
            panic!("{name} in {map}")
        };
        let numbers = line.split(' ').take(2);
        let numbers = numbers.map(|n| usize::from_str_radix(n, 16).unwrap());
        <[usize; 2]>::try_from(numbers.collect::<Vec<_>>()).unwrap()
    };
    let mut ends = Vec::new();
    for (name, image) in names.iter().zip(&images) {
        let [start, size] = line(&format!("svod:{name}"));
        assert_eq!(start, image.function(name).unwrap().as_ptr().addr());
        assert!(size > 0 && size < 4096, "{size}");
        ends.push(start + size);
    }
    let [start, size] = line("svod:seen_first:part");
    assert!(size > 0 && start + size <= line("svod:seen_second")[0]);
    assert_eq!(map.lines().count(), 3, "{map}");

    // Another load appends to it, also one of a single object and by a runtime.
    load(builder().perf_map(true), &[("seen_unasked", text)]);
    let longer = std::fs::read_to_string(&path).unwrap();
    assert!(longer.starts_with(&map) && longer.ends_with(" svod:seen_unasked\n"));
    assert_eq!(longer.lines().count(), 4, "{longer}");
    std::fs::remove_file(&path).unwrap();
}

// ---- gdb

/// Says that this process is the one under gdb.
const UNDER_GDB: &str = "SVOD_TEST_UNDER_GDB";

/// Where the debugger stops.
extern "C" fn stop() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a debugger takes the trap and goes on behind it.
    unsafe {
        std::arch::asm!("int3");
    }
}

#[test]
#[ignore = "the next test runs it, under gdb"]
fn what_gdb_is_shown() {
    if std::env::var_os(UNDER_GDB).is_none() {
        return;
    }
    // SAFETY: a function without arguments.
    let builder = unsafe { with(&compilers()[0]).symbol("stop", stop as *const c_void) };
    let kernels = load(
        builder.gdb(true),
        &[
            ("seen_before", "void seen_before(float *x) { x[0] += 1; }"),
            (
                "seen_inside",
                "void stop(void); static float volatile const one = 1;
                 void seen_inside(float *x) { x[0] += one; stop(); x[0] += one; }",
            ),
        ],
    );
    let mut x = common::zeroed(DType::F32, 4);
    kernels[1].launch(&mut [(&mut x).into()], &[], 1).unwrap();
    drop(kernels);
    stop();
}

#[test]
fn gdb_names_a_kernel_in_a_backtrace_and_forgets_it_when_it_goes() {
    let gdb = Command::new("gdb").arg("--version").output();
    if gdb.is_err() || cfg!(not(target_arch = "x86_64")) {
        return common::skip("this machine has no gdb, or maps no kernels");
    }
    let steps = [
        "set debuginfod enabled off",
        "run",
        "echo [inside]\\n",
        "backtrace",
        "info functions ^seen_before$",
        "continue",
        "echo [after]\\n",
        "info functions ^seen_before$",
        "kill",
    ];
    let output = Command::new("gdb")
        .args(["-nx", "-batch"])
        .args(steps.iter().flat_map(|step| ["-ex", step]))
        .arg("--args")
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "what_gdb_is_shown", "--nocapture"])
        .env(UNDER_GDB, "1")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    let Some((_, inside)) = out.split_once("[inside]") else {
        panic!("{out}{err}");
    };
    if out.contains("not permitted") || err.contains("not permitted") {
        return common::skip("nothing may be debugged here");
    }
    let (inside, after) = inside.split_once("[after]").unwrap();
    let frame = inside.lines().find(|line| line.starts_with("#1 "));
    assert!(
        frame.is_some_and(|f| f.contains(" in seen_inside ()")),
        "{out}{err}"
    );
    // Named with or without debug information of the types.
    let names = ["Kernel::launch", "Kernel>::launch"];
    let caller = names.iter().any(|name| inside.contains(name));
    assert!(caller, "{out}{err}");
    assert!(inside.contains("  seen_before"), "{out}{err}");
    assert!(!after.contains("  seen_before"), "{out}{err}");
}
