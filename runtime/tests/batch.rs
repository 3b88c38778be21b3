//! Many C sources at once: few processes, and what each would be alone.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use svod_runtime::bundle::{Bundle, Load};
use svod_runtime::compile::{Family, Object};
use svod_runtime::{
    Arg, Buffer, DType, Error, OptLevel, Runtime, RuntimeBuilder, Signature, Source,
};

fn builder() -> RuntimeBuilder {
    RuntimeBuilder::from_env().no_cache()
}

fn source(entry: &str, text: &str) -> Source {
    Source::c(entry, text)
}

/// What a kernel `void f(int *y)` writes to sixteen numbers that are 0 to 15 before.
#[track_caller]
fn run(runtime: &Runtime, object: &Object) -> Vec<i32> {
    let signature = Signature::builder().read_write(DType::I32, 16);
    // SAFETY: the kernels of these tests keep to the sixteen numbers.
    let kernel = unsafe { runtime.link(object, signature.build().unwrap()) };
    let kernel = kernel.unwrap_or_else(|e| panic!("{e}"));
    let numbers: Vec<i32> = (0..16).collect();
    let mut y = Buffer::from_slice(&numbers).unwrap();
    kernel.launch(&mut [Arg::from(&mut y)], &[], 1).unwrap();
    y.as_slice::<i32>().unwrap().to_vec()
}

/// Compiles all at once and each alone, and asserts that they do the same; returns the
/// first number that each writes.
#[track_caller]
fn same_as_alone(sources: &[Source]) -> Vec<i32> {
    let runtime = builder().build().unwrap();
    let together = runtime.compile_all(sources, &|_, _| ());
    let results = together.into_iter().zip(sources).map(|(object, source)| {
        let object = object.unwrap_or_else(|e| panic!("{e}"));
        let together = run(&runtime, &object);
        let alone = run(&runtime, &runtime.compile(source).unwrap());
        assert_eq!(
            together,
            alone,
            "{}",
            String::from_utf8_lossy(source.contents())
        );
        together[0]
    });
    results.collect()
}

/// A compiler that notes each of its calls.
fn counting(dir: &Path) -> (PathBuf, PathBuf) {
    let runtime = builder().build().unwrap();
    let real = &runtime.toolchain().c_compiler("k").unwrap().path;
    let (script, log) = (dir.join("cc"), dir.join("log"));
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *\" -c \"*|-c*|*function-sections*) echo call >>{} ;; esac\nexec {} \"$@\"\n",
        log.display(),
        real.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    (script, log)
}

fn calls(log: &Path) -> usize {
    fs::read_to_string(log).map_or(0, |text| text.lines().count())
}

#[test]
fn forty_sources_take_no_more_processes_than_there_are_cores() {
    let dir = tempfile::tempdir().unwrap();
    let (script, log) = counting(dir.path());
    let runtime = builder().cc(script).build().unwrap();
    let text = |n| {
        format!("static int f(int x) {{ return x + {n}; }}\nvoid k(int *y) {{ y[0] = f(y[1]); }}\n")
    };
    let sources: Vec<Source> = (0..40).map(|n| source("k", &text(n))).collect();
    let objects = runtime.compile_all(&sources, &|_, _| ());
    for (n, object) in objects.into_iter().enumerate() {
        let object = object.unwrap();
        assert_eq!(object.entry(), "k");
        assert_eq!(run(&runtime, &object)[0], n as i32 + 1);
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!((1..=cores).contains(&calls(&log)), "{}", calls(&log));
}

fn digits() -> Bundle {
    Bundle::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits")).unwrap()
}

/// The bundle of the examples, and those that `SVOD_TEST_BUNDLES` names, as `PATH` names folders.
fn bundles() -> Vec<Bundle> {
    let named = std::env::var_os("SVOD_TEST_BUNDLES").unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|path| path.is_absolute());
    let named = named.map(|path| Bundle::open(path).unwrap());
    named.chain([digits()]).collect()
}

/// Every bit that a bundle's first test writes, with its sources compiled by this runtime.
fn bits(bundle: &Bundle, runtime: &Runtime) -> Vec<Vec<u8>> {
    let load = Load {
        carried: false,
        ..Load::default()
    };
    // SAFETY: the bundle of the examples, and those that a person named, are trusted.
    let executable = unsafe { bundle.load_with(runtime, &load) }.unwrap();
    let mut instance = executable.instance().unwrap();
    bundle.run_test(&bundle.tests()[0], &mut instance).unwrap();
    let outputs = executable.plan().outputs().iter();
    let bytes = outputs.map(|o| instance.output(&o.name).unwrap().as_bytes().to_vec());
    bytes.collect()
}

#[test]
fn merged_and_separate_code_give_the_same_bits_on_every_bundle() {
    let threads = std::thread::available_parallelism().unwrap().get();
    for bundle in bundles() {
        let dir = tempfile::tempdir().unwrap();
        let (script, log) = counting(dir.path());
        let merged = bits(&bundle, &builder().cc(&script).build().unwrap());
        let of_merged = calls(&log);
        // Of what a flag may do, nobody can tell.
        let separate = builder().cc(&script).flag("-DNOBODY_KNOWS=1");
        let separate = bits(&bundle, &separate.build().unwrap());
        let path = bundle.path().display();
        assert!(merged == separate, "{path}");
        assert!(of_merged <= threads, "{path}: {of_merged} calls");
        let kernels = bundle.plan().kernels().len();
        assert_eq!(calls(&log) - of_merged, kernels, "{path}");
    }
}

#[test]
fn every_level_of_every_compiler_gives_the_same_bits() {
    for compiler in common::compilers() {
        let bundles = match compiler.family {
            Family::Clang => bundles(),
            // Other bundles may speak clang's dialect.
            Family::Gcc => vec![digits()],
        };
        for bundle in bundles {
            let of = |level| {
                let runtime = builder().cc(&compiler.path).opt_level(level);
                bits(&bundle, &runtime.build().unwrap())
            };
            let first = of(OptLevel::O2);
            for level in OptLevel::ALL {
                let path = bundle.path().display();
                assert!(of(level) == first, "{path} {compiler:?} {level:?}");
            }
        }
    }
}

#[test]
fn an_error_in_one_of_many_is_its_own_and_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (script, log) = counting(dir.path());
    let runtime = builder().cc(script).build().unwrap();
    let mut sources: Vec<Source> = (0..20)
        .map(|n| source("k", &format!("void k(int *y) {{\n  y[0] = {n};\n}}\n")))
        .map(|source| source.named("kernels/k.c"))
        .collect();
    sources[7] =
        source("seven", "void seven(int *y) {\n\n  y[0] = nothing;\n}\n").named("kernels/seven.c");
    let objects = runtime.compile_all(&sources, &|_, _| ());
    for (n, object) in objects.into_iter().enumerate() {
        match object {
            Ok(object) => assert_eq!(run(&runtime, &object)[0], n as i32),
            Err(Error::Compile {
                kernel,
                diagnostics,
                ..
            }) => {
                assert_eq!((n, kernel.as_str()), (7, "seven"));
                assert!(diagnostics.contains("kernels/seven.c:3:"), "{diagnostics}");
                assert!(!diagnostics.contains("svod"), "{diagnostics}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    // The units, what is left of the broken one, and the one at fault.
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(calls(&log) <= cores + 2, "{}", calls(&log));
}

#[test]
fn a_unit_that_breaks_with_nobody_to_blame_is_compiled_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = builder().build().unwrap();
    let real = &runtime.toolchain().c_compiler("k").unwrap().path;
    let script = dir.path().join("cc");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *function-sections*) kill -9 $$ ;; esac\nexec {} \"$@\"\n",
        real.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let runtime = builder().cc(&script).build().unwrap();
    let text = |n| format!("void f(int *y) {{ y[0] = {n}; }}");
    let mut sources: Vec<Source> = (0..6).map(|n| source("f", &text(n))).collect();
    sources.push(source("f", "void f(int *y) { y[0] = unknown; }"));
    let objects = runtime.compile_all(&sources, &|_, _| ());
    for (n, object) in objects.iter().take(6).enumerate() {
        assert_eq!(run(&runtime, object.as_ref().unwrap())[0], n as i32);
    }
    let error = objects[6].as_ref().unwrap_err().to_string();
    assert!(error.contains("unknown"), "{error}");
}

#[test]
fn names_that_collide_stay_apart() {
    let twice = |n: i32| {
        [
            // Functions, objects, types, tags and enumerators of the same names.
            format!("static int f(int x) {{ return x * {n}; }}\nvoid k(int *y) {{ y[0] = f(7); }}"),
            format!("static const int t[2] = {{ {n}, 3 }};\nvoid k(int *y) {{ y[0] = t[0] + t[1]; }}"),
            format!("struct s {{ int a[{n}]; }};\nvoid k(int *y) {{ y[0] = sizeof(struct s); }}"),
            format!("typedef struct {{ char a[{n}]; }} t;\nvoid k(int *y) {{ y[0] = sizeof(t); }}"),
            format!("enum e {{ A = {n}, B }};\nvoid k(int *y) {{ enum e b = B; y[0] = b; }}"),
            format!("union u {{ int a; char b[{n} * 4]; }};\nvoid k(int *y) {{ y[0] = sizeof(union u); }}"),
            format!("#define M {n}\nvoid k(int *y) {{ y[0] = M; }}"),
            format!("#define F(x) ((x) * {n})\nvoid k(int *y) {{ y[0] = F(y[2]); }}"),
            format!("int other = {n};\nvoid helper(int *y) {{ y[0] = {n}; }}\nvoid k(int *y) {{ helper(y); }}")
                .replace("int other", "static const int other"),
        ]
    };
    let mut sources = Vec::new();
    for n in [2, 5, 2] {
        sources.extend(twice(n).map(|text| source("k", &text)));
    }
    let [first, second, third] = [0, 1, 2].map(|i| i * 9..(i + 1) * 9);
    let results = same_as_alone(&sources);
    assert_eq!(results[first.clone()], results[third]);
    for (a, b) in results[first].iter().zip(&results[second]) {
        assert_ne!(a, b);
    }
}

#[test]
fn a_helper_of_the_same_text_over_another_type_is_another() {
    let text = |of: &str| {
        format!(
            "typedef {of} number;\nstatic number half(number x) {{ return x / 2; }}\n\
             void k(int *y) {{ y[0] = (int)(half(7) * 2); }}\n"
        )
    };
    let sources = ["int", "float", "int", "double"].map(|of| source("k", &text(of)));
    assert_eq!(same_as_alone(&sources), [6, 7, 6, 7]);
}

#[test]
fn a_macro_reaches_no_other_source() {
    let sources = [
        source(
            "k",
            "#define y z\n#define value 3\nvoid k(int *y) { y[0] = value; }",
        ),
        source("k", "void k(int *y) { int value = 4; y[0] = value; }"),
        source("k", "#define value 5\nvoid k(int *y) { y[0] = value; }"),
        source(
            "k",
            "static int value(void) { return 6; }\nvoid k(int *y) { y[0] = value(); }",
        ),
        source(
            "k",
            "#define x 1\nstatic int g(int a) { return a + x; }\n#undef x\nvoid k(int *y) { int x = 6; y[0] = g(x); }",
        ),
        // The same text, where a macro means something else.
        source(
            "k",
            "#define C 8\nstatic int h(void) { return C; }\nvoid k(int *y) { y[0] = h(); }",
        ),
        source(
            "k",
            "#define C 9\nstatic int h(void) { return C; }\nvoid k(int *y) { y[0] = h(); }",
        ),
    ];
    assert_eq!(same_as_alone(&sources), [3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn what_one_defines_is_not_what_another_calls() {
    // libm's function beside two of that name.
    let sources = [
        source(
            "k",
            "float floorf(float);\nvoid k(int *y) { y[0] = (int)floorf(y[3] + 0.5f); }",
        ),
        source(
            "k",
            "static float floorf(float x) { return x + 20; }\nvoid k(int *y) { y[0] = (int)floorf(y[3]); }",
        ),
        source(
            "k",
            "float floorf(float x) { return x + 30; }\nvoid k(int *y) { y[0] = (int)floorf(y[3]); }",
        ),
        source(
            "k",
            "float floorf(float);\nvoid k(int *y) { y[0] = (int)floorf(y[5] + 0.5f); }",
        ),
        source(
            "k",
            "static int g(int);\nvoid k(int *y) { y[0] = g(1); }\nstatic int g(int x) { return x + 1; }",
        ),
        source(
            "k",
            "static int g(int);\nvoid k(int *y) { y[0] = g(1); }\nstatic int g(int x) { return x + 2; }",
        ),
    ];
    assert_eq!(same_as_alone(&sources), [3, 23, 33, 5, 2, 3]);
}

#[test]
fn what_cannot_be_merged_is_compiled_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("two.h"), "#define TWO 2\n").unwrap();
    let includes = "#include \"two.h\"\nvoid k(int *y) { y[0] = TWO; }";
    let sources = [
        source("k", "void k(int *y) { y[0] = 1; }"),
        source("k", includes).include_dir(dir.path()),
        source(
            "k",
            "#if 1\nvoid k(int *y) { y[0] = 3; }\n#else\nnonsense {\n#endif",
        ),
        source(
            "k",
            "#pragma STDC FP_CONTRACT OFF\nvoid k(int *y) { y[0] = 4; }",
        ),
        source("k", "int (*f)(int);\nvoid k(int *y) { y[0] = 5; }"),
        source("k", "void k(int *y) { y[0] = __LINE__ + 5; }"),
        source("k", "void k(int *y) { y[0] = sizeof(__func__) + 5; }"),
        source(
            "k",
            "// a comment that goes \\\n on\nvoid k(int *y) { y[0] = 8; }",
        ),
        source("k", "void k(int *y)\r\n{ y[0] = 9; }\r\n"),
        source("k", "void k(y) int *y; { y[0] = 10; }"),
        source("k", "\nvoid k(int *y) { y[0] = 11; }"),
        source(
            "k",
            "/* é */ void k(int *y) { y[0] = \"\\\"}{\"[1] + 12 - '}'; } /* } */",
        ),
        source(
            "k",
            "__attribute__((noinline)) static int f(int x) { return x + 9; }\nvoid k(int *y) { y[0] = f(4); }",
        ),
    ];
    let results = same_as_alone(&sources);
    assert_eq!(results, (1..=13).collect::<Vec<_>>());
}

#[test]
fn none_one_and_the_same_often() {
    assert_eq!(same_as_alone(&[]), [0; 0]);
    let one = source("k", "void k(int *y) { y[0] = 3; }");
    assert_eq!(same_as_alone(std::slice::from_ref(&one)), [3]);
    assert_eq!(same_as_alone(&vec![one; 30]), [3; 30]);
}

#[test]
fn helpers_constants_and_calls_come_along_at_every_level() {
    let text = |n: i32| {
        format!(
            "float sqrtf(float);\nstatic const float table[4] = {{ 1.5f, 2.5f, {n}.5f, 4.5f }};\n\
             static __attribute__((noinline)) float at(int i) {{ return table[i & 3]; }}\n\
             void k(int *y) {{\n  for (int i = 0; i < 16; i++)\n\
             y[i] = (int)(at(y[i]) * 100.0f + sqrtf((float)y[i] * 3.25f) + {n});\n}}\n"
        )
    };
    for level in OptLevel::ALL {
        let runtime = builder().opt_level(level).build().unwrap();
        let sources: Vec<Source> = (0..6).map(|n| source("k", &text(n))).collect();
        let objects = runtime.compile_all(&sources, &|_, _| ());
        for (object, source) in objects.into_iter().zip(&sources) {
            let alone = runtime.compile(source).unwrap();
            assert_eq!(run(&runtime, &object.unwrap()), run(&runtime, &alone));
        }
    }
}

/// What a compiler folds may have other bits than what libm computes, and it folds what it
/// inlines, which depends on how many callers there are.
#[test]
fn a_helper_has_the_callers_that_it_has_alone() {
    let mut helper = String::from(
        "static float h(float x, const float *q) {\n  float r = __builtin_expf(x) + (x - x) / (x - x) * 0;\n  float e = __builtin_expf(x);\n",
    );
    for i in 0..60 {
        helper += &format!(
            "  r = r * q[{}] + q[{}] / (q[{}] + {i}.5f);\n",
            i % 16,
            (i * 3) % 16,
            (i * 5) % 16
        );
    }
    helper += "  return e + (r != r ? 0.0f : 0.0f * r);\n}\n";
    let text = |x: &str| {
        format!(
            "{helper}void k(int *y) {{\n  float q[16];\n  for (int i = 0; i < 16; i++) q[i] = y[i];\n  float f = h({x}, q);\n  y[0] = __builtin_bit_cast(int, f);\n}}\n"
        )
    };
    let runtime = builder().build().unwrap();
    let compiler = runtime.toolchain().c_compiler("k").unwrap();
    if compiler.family != svod_runtime::compile::Family::Clang {
        return; // gcc 12 has no __builtin_bit_cast.
    }
    let sources = ["0.503899992f", "0.526199996f"].map(|x| source("k", &text(x)));
    same_as_alone(&sources);
}

#[test]
fn without_a_compiler_each_says_so() {
    let runtime = Runtime::builder().cc("/nowhere/cc").build().unwrap();
    let sources = [
        source("a", "void a(void) {}"),
        source("b", "void b(void) {}"),
    ];
    for (object, source) in runtime
        .compile_all(&sources, &|_, _| ())
        .into_iter()
        .zip(&sources)
    {
        let text = object.unwrap_err().to_string();
        assert!(text.contains("/nowhere/cc"), "{}: {text}", source.entry());
    }
}

/// A file-scope item whose names are from a small pool, so that they often collide.
fn item() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    (name, 1..4_i32, 0..6_usize).prop_map(|(name, n, kind)| match kind {
        0 => format!("static int {name}(int x) {{ return x * {n} + 1; }}"),
        1 => format!("static const int {name}_t[3] = {{ {n}, 2, 1 }};"),
        2 => format!("typedef struct {{ char x[{n}]; }} {name}_s;"),
        3 => format!("enum {{ {name}_e = {n} }};"),
        4 => format!("#define {name}_m (x + {n})"),
        _ => format!("static int {name}_f(int x) {{ int a = x, b = {n}; return a * b; }}"),
    })
}

/// A source of such items, none of which declares a name again, and a kernel that uses all.
fn program() -> impl Strategy<Value = String> {
    proptest::collection::vec(item(), 0..8).prop_map(|items| {
        let (mut text, mut body, mut seen) = (String::new(), String::new(), Vec::new());
        for item in items {
            let words = ["a(", "b(", "c("].map(|w| &w[..1]);
            let kind = [
                ("_t[", "{}_t[1] + {}_t[0]"),
                ("_s;", "(int)sizeof({}_s)"),
                ("_e =", "{}_e"),
                ("_m ", "{}_m"),
                ("_f(", "{}_f(x)"),
                ("(int x) {", "{}(x)"),
            ];
            let found = words
                .iter()
                .flat_map(|w| kind.iter().map(move |(end, uses)| (w, end, uses)));
            let mut found = found.filter(|(w, end, _)| item.contains(&format!("{w}{end}")));
            let Some((word, end, uses)) = found.next() else {
                continue;
            };
            if seen.contains(&(*word, *end)) {
                continue;
            }
            seen.push((*word, *end));
            text += &item;
            text.push('\n');
            body += &format!("  r = r * 31 + {};\n", uses.replace("{}", word));
        }
        format!("{text}void k(int *y) {{\n  int x = y[3], r = 1;\n{body}  y[0] = r;\n}}\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn merged_sources_compute_what_they_compute_alone(
        programs in proptest::collection::vec(program(), 2..8),
    ) {
        let sources: Vec<Source> = programs.iter().map(|text| source("k", text)).collect();
        same_as_alone(&sources);
    }
}
