//! libm, in both precisions.

use std::collections::BTreeSet;
use std::f64::consts::{E, LN_2, LN_10, PI};

use libloading::os::unix::Library;
use svod_runtime::compile::OptLevel;
use svod_runtime::link::{Definition, Resolver, Symbols};

use crate::common::{compilers, every_compiler, load, object, with};
use crate::{map, undefined};

/// A function: its name in double precision, its type, a call of it, and what that gives.
/// `T` is the type of the precision, `F` the function.
type Row = (&'static str, &'static str, &'static str, f64);

/// C11's real functions, all of its section 7.12, and those of GNU that compilers call.
#[rustfmt::skip]
fn rows() -> Vec<Row> {
    const NUMBERS: &str = "T F(T, T)";
    vec![
        ("acos", "T F(T)", "F(.5)", PI / 3.0),
        ("asin", "T F(T)", "F(.5)", PI / 6.0),
        ("atan", "T F(T)", "F(-1)", -PI / 4.0),
        ("atan2", NUMBERS, "F(1, -1)", 3.0 * PI / 4.0),
        ("cos", "T F(T)", "F(2)", 2_f64.cos()),
        ("sin", "T F(T)", "F(2)", 2_f64.sin()),
        ("tan", "T F(T)", "F(2)", 2_f64.tan()),
        ("sincos", "void F(T, T *, T *)", "({ T s, c; F(2, &s, &c); s / c; })", 2_f64.tan()),
        ("acosh", "T F(T)", "F(2)", (2.0 + 3_f64.sqrt()).ln()),
        ("asinh", "T F(T)", "F(1)", (1.0 + 2_f64.sqrt()).ln()),
        ("atanh", "T F(T)", "F(.5)", 3_f64.sqrt().ln()),
        ("cosh", "T F(T)", "F(1)", (E + 1.0 / E) / 2.0),
        ("sinh", "T F(T)", "F(1)", (E - 1.0 / E) / 2.0),
        ("tanh", "T F(T)", "F(1)", (E * E - 1.0) / (E * E + 1.0)),
        ("exp", "T F(T)", "F(1)", E),
        ("exp10", "T F(T)", "F(3)", 1000.0),
        ("exp2", "T F(T)", "F(-3)", 0.125),
        ("expm1", "T F(T)", "F(1)", E - 1.0),
        ("frexp", "T F(T, int *)", "({ int e; T m = F(12, &e); m * 100 + e; })", 79.0),
        ("ilogb", "int F(T)", "F(10)", 3.0),
        ("ldexp", "T F(T, int)", "F(.75, 4)", 12.0),
        ("log", "T F(T)", "F(2)", LN_2),
        ("log10", "T F(T)", "F(1000)", 3.0),
        ("log1p", "T F(T)", "F(1)", LN_2),
        ("log2", "T F(T)", "F(8)", 3.0),
        ("logb", "T F(T)", "F(10)", 3.0),
        ("modf", "T F(T, T *)", "({ T whole, rest = F(2.75, &whole); whole * 10 + rest; })", 20.75),
        ("scalbn", "T F(T, int)", "F(3, -2)", 0.75),
        ("scalbln", "T F(T, long)", "F(3, -2)", 0.75),
        ("cbrt", "T F(T)", "F(-27)", -3.0),
        ("fabs", "T F(T)", "F(-2.5)", 2.5),
        ("hypot", NUMBERS, "F(3, -4)", 5.0),
        ("pow", NUMBERS, "F(1.5, 3)", 3.375),
        ("sqrt", "T F(T)", "F(2.25)", 1.5),
        ("erf", "T F(T)", "F(.5)", 0.520_499_877_813_046_5),
        ("erfc", "T F(T)", "F(.5)", 0.479_500_122_186_953_5),
        ("lgamma", "T F(T)", "F(-.5)", (2.0 * PI.sqrt()).ln()),
        ("lgamma_r", "T F(T, int *)", "({ int s; T r = F(-.5, &s); r * s; })", -(2.0 * PI.sqrt()).ln()),
        ("tgamma", "T F(T)", "F(5)", 24.0),
        ("ceil", "T F(T)", "F(-2.5)", -2.0),
        ("floor", "T F(T)", "F(-2.5)", -3.0),
        ("nearbyint", "T F(T)", "F(2.5)", 2.0),
        ("rint", "T F(T)", "F(3.5)", 4.0),
        ("lrint", "long F(T)", "F(-2.5)", -2.0),
        ("llrint", "long long F(T)", "F(3.5)", 4.0),
        ("round", "T F(T)", "F(2.5)", 3.0),
        ("lround", "long F(T)", "F(-2.5)", -3.0),
        ("llround", "long long F(T)", "F(2.5)", 3.0),
        ("roundeven", "T F(T)", "F(-2.5) * 10 + F(3.5)", -16.0),
        ("trunc", "T F(T)", "F(-2.75)", -2.0),
        ("fmod", NUMBERS, "F(-5, 3)", -2.0),
        ("remainder", NUMBERS, "F(5, 3)", -1.0),
        ("remquo", "T F(T, T, int *)", "({ int q; T r = F(10, 3, &q); r * 10 + q; })", 13.0),
        ("copysign", NUMBERS, "F(2, -0.)", -2.0),
        ("nan", "T F(const char *)", "F(\"1\") != F(\"1\")", 1.0),
        ("nextafter", NUMBERS, "(F(1, 2) - 1) / EPSILON", 1.0),
        ("nexttoward", "T F(T, long double)", "(F(1, 2) - 1) / EPSILON", 1.0),
        ("fdim", NUMBERS, "F(5, 3)", 2.0),
        ("fmax", NUMBERS, "F(3, __builtin_nan(\"\"))", 3.0),
        ("fmin", NUMBERS, "F(__builtin_nan(\"\"), 3)", 3.0),
        ("fma", "T F(T, T, T)", "F(1 + EPSILON, 1 - EPSILON, -1) / EPSILON / EPSILON", -1.0),
    ]
}

/// What a function is called in single precision.
fn single(name: &str) -> String {
    match name {
        "lgamma_r" => "lgammaf_r".into(),
        _ => format!("{name}f"),
    }
}

#[test]
fn every_function_can_be_called_in_both_precisions_and_gives_what_is_known() {
    let mut text = String::new();
    let mut names = Vec::new();
    for (name, declared, call, _) in rows() {
        for (float, name, epsilon) in [
            ("double", name.to_owned(), "__DBL_EPSILON__"),
            ("float", single(name), "__FLT_EPSILON__"),
        ] {
            let i = names.len();
            text += &format!(
                "#define F {name}\n#define T {float}\n#define EPSILON {epsilon}\nextern {declared};
                 static double k{i}(void) {{ return {call}; }}
                 #undef F\n#undef T\n#undef EPSILON\n"
            );
            names.push(name);
        }
    }
    text += "void k(double *out, const double *in, long i) { switch (i) {\n";
    for i in 0..names.len() {
        text += &format!("case {i}: out[i] = k{i}(); break;\n");
    }
    text += "} }";
    for compiler in compilers() {
        let bytes = object(with(&compiler).opt_level(OptLevel::O0), &text);
        let called = undefined(&bytes);
        let all: BTreeSet<String> = names.iter().cloned().collect();
        assert_eq!(called, all, "{compiler:?}");
        let image = load(&bytes).unwrap();
        let got: Vec<[f64; 1]> = map(&image, "k", &vec![[0.0]; names.len()]);
        let expected = rows();
        for (i, ([got], name)) in got.into_iter().zip(&names).enumerate() {
            let expected = expected[i / 2].3;
            let ulp = [f64::EPSILON, f64::from(f32::EPSILON)][i % 2];
            let near = (got - expected).abs() <= 4.0 * ulp * expected.abs();
            assert!(near, "{name} gives {got}, not {expected}");
        }
    }
}

/// No function stands in for another, and none is another library's: what the list has
/// is where the system's libm says that it is.
#[test]
fn the_functions_are_the_systems_own() {
    // Some are in both, the same.
    let libraries = ["libm.so.6", "libc.so.6"].map(|name| {
        // SAFETY: this process has run the initialisers of both.
        unsafe { Library::new(name) }
    });
    let [Ok(libm), Ok(libc)] = libraries else {
        eprintln!("skipped: the C library is not glibc");
        return;
    };
    let symbols = Symbols::default();
    for (name, ..) in rows() {
        for name in [name.to_owned(), single(name)] {
            // Ours: libm's write to a global, or are not in every libm.
            if name.starts_with("roundeven") || name == "lgamma" || name == "lgammaf" {
                continue;
            }
            let addresses = [&libm, &libc].map(|library| {
                // SAFETY: only the address is taken.
                let found = unsafe { library.get::<unsafe extern "C" fn()>(&*name) };
                found.map_or(0, |function| *function as usize as u64)
            });
            let got = symbols.resolve(&name).map_or(0, Definition::address);
            assert!(
                got != 0 && addresses.contains(&got),
                "{name}: {got:#x}, {addresses:#x?}"
            );
        }
    }
}

/// What compilers make of operations, and of functions that they know.
#[test]
fn compilers_find_what_they_call_on_their_own() {
    let text = r#"
        extern double sin(double), cos(double), pow(double, double), exp(double), fmod(double, double);
        extern float sinf(float), cosf(float), powf(float, float), fmodf(float, float);
        void k(double *out, const double *in, long i) {
            double x = in[i]; float f = x;
            double *r = out + 9 * i;
            r[0] = sin(x); r[1] = cos(x); r[2] = sinf(f); r[3] = cosf(f);
            r[4] = pow(10, x); r[5] = powf(10, f); r[6] = pow(2, x);
            r[7] = fmod(x, 0.75); r[8] = pow(exp(x), 0.5);
        }"#;
    let input: Vec<f64> = (0..100).map(|i| f64::from(i) * 0.037 + 0.01).collect();
    for compiler in every_compiler() {
        for flags in [&["-fhosted"][..], &["-fhosted", "-ffast-math"]] {
            let builder = flags.iter().fold(with(&compiler), |b, flag| b.flag(*flag));
            let bytes = object(builder, text);
            let called = undefined(&bytes);
            let has = |name: &str| called.contains(name);
            assert!(has("sincos") && has("sincosf"), "{compiler:?}: {called:?}");
            let image = load(&bytes).unwrap();
            let got: Vec<[f64; 9]> = map(&image, "k", input.as_chunks::<1>().0);
            for (&x, got) in input.iter().zip(got) {
                let expected = [
                    x.sin(),
                    x.cos(),
                    x.sin(),
                    x.cos(),
                    (x * LN_10).exp(),
                    (x * LN_10).exp(),
                    x.exp2(),
                    x % 0.75,
                    (x / 2.0).exp(),
                ];
                for (i, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                    let slack = if [2, 3, 5].contains(&i) { 1e-5 } else { 1e-13 };
                    let near = (got - expected).abs() <= slack * expected.abs().max(1.0);
                    assert!(
                        near,
                        "{i} of {x} is {got}, not {expected}: {compiler:?} {flags:?}"
                    );
                }
            }
        }
    }
}
