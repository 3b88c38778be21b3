//! Vector libm, on systems that have it.

use svod_runtime::compile::Family;
use svod_runtime::link::{Resolver, Symbols};

use crate::common::{every_compiler, load, object, with};
use crate::{map, undefined};

/// A function of one argument, or of two, the same in Rust, and where it is tried.
type Row = (&'static str, fn(f64, f64) -> f64, [f64; 2]);

/// What glibc has in vectors from 2.22 on; clang 14 knows no more.
#[rustfmt::skip]
const ROWS: [Row; 5] = [
    ("sin", |x, _| x.sin(), [-30.0, 30.0]),
    ("cos", |x, _| x.cos(), [-30.0, 30.0]),
    ("exp", |x, _| x.exp(), [-20.0, 20.0]),
    ("log", |x, _| x.ln(), [0.001, 1000.0]),
    ("pow", f64::powf, [0.01, 8.0]),
];

#[test]
fn loops_over_libm_become_calls_of_vector_functions_a_few_ulps_away() {
    if Symbols::default().resolve("_ZGVbN2v_sin").is_none() {
        eprintln!("skipped: this system has no libmvec.so.1");
        return;
    }
    // gcc takes the names of vector variants from a declaration, clang has a table.
    let mut text = String::from(
        "#ifdef __clang__\n#define SIMD\n#else\n#define SIMD __attribute__((simd(\"notinbranch\")))\n#endif\n",
    );
    for (name, ..) in ROWS {
        let second = if name == "pow" {
            ", in[64 * i + 63 - j]"
        } else {
            ""
        };
        for (float, f) in [("double", ""), ("float", "f")] {
            let declared = if second.is_empty() {
                float.to_owned()
            } else {
                format!("{float}, {float}")
            };
            text += &format!(
                "SIMD extern {float} {name}{f}({declared});
                 void k_{name}{f}({float} *restrict out, const {float} *restrict in, long i) {{
                     for (int j = 0; j < 64; j++) out[64 * i + j] = {name}{f}(in[64 * i + j]{second});
                 }}\n"
            );
        }
    }
    for compiler in every_compiler() {
        // Vectors of every width that this machine has.
        for flags in [&[][..], &["-mno-avx512f"], &["-mno-avx"]] {
            let flags = flags
                .iter()
                .chain(["-fhosted", "-ffast-math", "-O3"].iter());
            let mut builder = flags.fold(with(&compiler), |b, flag| b.flag(*flag));
            if compiler.family == Family::Clang {
                builder = builder.flag("-fveclib=libmvec");
            }
            let bytes = object(builder, &text);
            let called = undefined(&bytes);
            let vector = called.iter().filter(|name| name.starts_with("_ZGV"));
            assert!(vector.count() >= 2 * ROWS.len(), "{compiler:?}: {called:?}");
            let image = load(&bytes).unwrap();
            for (name, expected, [low, high]) in ROWS {
                let doubles: [f64; 64] =
                    std::array::from_fn(|j| low + (high - low) * (j as f64 + 0.3) / 64.0);
                let singles = doubles.map(|x| x as f32);
                let got: Vec<[f64; 64]> = map(&image, &format!("k_{name}"), &[doubles]);
                let got_single: Vec<[f32; 64]> = map(&image, &format!("k_{name}f"), &[singles]);
                for j in 0..64 {
                    let exact = expected(doubles[j], doubles[63 - j]);
                    let error = (got[0][j] - exact).abs() / exact.abs();
                    assert!(
                        error < 8.0 * f64::EPSILON,
                        "{name}({}) {compiler:?}",
                        doubles[j]
                    );
                    let exact = expected(singles[j].into(), singles[63 - j].into());
                    let error = (f64::from(got_single[0][j]) - exact).abs() / exact.abs();
                    assert!(
                        error < 8.0 * f64::from(f32::EPSILON),
                        "{name}f({}) {compiler:?}",
                        singles[j]
                    );
                }
            }
        }
    }
}

/// An image may outlive the list that it was linked with.
#[test]
fn vector_functions_stay_when_the_list_goes() {
    let symbols = Symbols::default();
    let copy = symbols.clone();
    let Some(function) = symbols.resolve("_ZGVbN2v_exp") else {
        eprintln!("skipped: this system has no libmvec.so.1");
        return;
    };
    assert_eq!(copy.resolve("_ZGVbN2v_exp"), Some(function));
    assert!(symbols.names().all(|name| !name.starts_with("_ZGV")));
    drop((symbols, copy));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = |line: &str| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        (start..end).contains(&function.address()) && line.contains("libmvec")
    };
    assert!(maps.lines().any(mapped), "{maps}");
}
