//! Products and quotients of complex numbers.

use std::sync::{Arc, OnceLock};

use half::f16;
use libloading::os::unix::Library;
use svod_runtime::compile::{Family, OptLevel};
use svod_runtime::link::Image;

use crate::common::{Rng, compilers, every_compiler, load, object, with};
use crate::{map, undefined};

/// Calls by name. Each reads two numbers and writes one.
const TEXT: &str = r#"
    #define KERNELS(c, float) \
        extern _Complex float __mul##c##3(float, float, float, float); \
        extern _Complex float __div##c##3(float, float, float, float); \
        void mul##c(float *out, const float *in, long i) { \
            _Complex float z = __mul##c##3(in[4 * i], in[4 * i + 1], in[4 * i + 2], in[4 * i + 3]); \
            out[2 * i] = __real__ z; out[2 * i + 1] = __imag__ z; } \
        void div##c(float *out, const float *in, long i) { \
            _Complex float z = __div##c##3(in[4 * i], in[4 * i + 1], in[4 * i + 2], in[4 * i + 3]); \
            out[2 * i] = __real__ z; out[2 * i + 1] = __imag__ z; }
    KERNELS(sc, float) KERNELS(dc, double)
    #ifdef HALF
    KERNELS(hc, _Float16)
    #endif
"#;

/// Operators, which come to a call where the plain product is not a number, and for
/// every quotient.
const NATURAL: &str = r#"
    #define KERNELS(c, float) \
        void mul##c(_Complex float *out, const _Complex float *in, long i) { out[i] = in[2 * i] * in[2 * i + 1]; } \
        void div##c(_Complex float *out, const _Complex float *in, long i) { out[i] = in[2 * i] / in[2 * i + 1]; }
    KERNELS(sc, float) KERNELS(dc, double)
    #ifdef HALF
    KERNELS(hc, _Float16)
    #endif
"#;

/// Images of kernels that call the helpers, by name and by operators, and whose they are.
fn images() -> &'static [(String, Arc<Image>)] {
    static IMAGES: OnceLock<Vec<(String, Arc<Image>)>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let mut images = Vec::new();
        for compiler in compilers() {
            let builder = with(&compiler).opt_level(OptLevel::O0);
            let how = format!("by name, {:?} {}", compiler.family, compiler.major);
            images.push((how, load(&object(builder, TEXT)).unwrap()));
        }
        for compiler in every_compiler() {
            for level in [OptLevel::O0, OptLevel::O2] {
                let builder = with(&compiler).opt_level(level).target_cpu("x86-64");
                let bytes = object(builder, NATURAL);
                let called = undefined(&bytes);
                for name in ["__mulsc3", "__muldc3", "__divsc3", "__divdc3"] {
                    assert!(called.contains(name), "{compiler:?} was to call {name}");
                }
                let how = format!("{:?} {} {level:?}", compiler.family, compiler.major);
                images.push((how, load(&bytes).unwrap()));
            }
        }
        images
    })
}

/// All of four numbers that are odd in some way.
fn odd() -> Vec<[f64; 4]> {
    const ODD: [f64; 8] = [
        0.0,
        -0.0,
        1.0,
        -2.5,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
    ];
    let digit = |i: usize, place: u32| ODD[i / ODD.len().pow(place) % ODD.len()];
    (0..ODD.len().pow(4))
        .map(|i| [0, 1, 2, 3].map(|place| digit(i, place)))
        .collect()
}

/// What annex G says of infinite and finite operands, of zero and not.
fn assert_annex_g([a, b, c, d]: [f64; 4], product: [f64; 2], quotient: [f64; 2], how: &str) {
    let infinite = |z: [f64; 2]| z.iter().any(|x| x.is_infinite());
    let finite = |z: [f64; 2]| z.iter().all(|x| x.is_finite());
    let zero = |z: [f64; 2]| z == [0.0, 0.0];
    let (z, w) = ([a, b], [c, d]);
    let whole = |z: [f64; 2]| infinite(z) || finite(z) && !zero(z);
    if infinite(z) && whole(w) || infinite(w) && whole(z) {
        assert!(infinite(product), "{z:?} * {w:?} = {product:?}, {how}");
    }
    if infinite(z) && finite(w) || whole(z) && zero(w) {
        assert!(infinite(quotient), "{z:?} / {w:?} = {quotient:?}, {how}");
    }
    if finite(z) && infinite(w) {
        assert!(zero(quotient), "{z:?} / {w:?} = {quotient:?}, {how}");
    }
    if finite(z) && finite(w) {
        assert_eq!(
            product,
            [a * c - b * d, a * d + b * c],
            "{z:?} * {w:?}, {how}"
        );
    }
    let unknown = |z: [f64; 2]| !infinite(z) && !finite(z);
    if unknown(z) && !infinite(w) {
        assert!(
            product.iter().any(|x| x.is_nan()),
            "{z:?} * {w:?} = {product:?}, {how}"
        );
    }
    if unknown(w) {
        assert!(
            quotient.iter().any(|x| x.is_nan()),
            "{z:?} / {w:?} = {quotient:?}, {how}"
        );
    }
}

#[test]
fn infinities_zeros_and_what_is_no_number_follow_annex_g() {
    let doubles = odd();
    let singles: Vec<[f32; 4]> = doubles.iter().map(|z| z.map(|x| x as f32)).collect();
    for (how, image) in images() {
        let [products, quotients] =
            ["muldc", "divdc"].map(|name| map::<f64, f64, 4, 2>(image, name, &doubles));
        for (i, &numbers) in doubles.iter().enumerate() {
            assert_annex_g(numbers, products[i], quotients[i], how);
        }
        let [products, quotients] = ["mulsc", "divsc"].map(|name| {
            let out: Vec<[f32; 2]> = map(image, name, &singles);
            out.into_iter()
                .map(|z| z.map(f64::from))
                .collect::<Vec<_>>()
        });
        for (i, &numbers) in doubles.iter().enumerate() {
            assert_annex_g(numbers, products[i], quotients[i], how);
        }
    }
}

/// libgcc's functions, where this machine has them as a library.
#[test]
fn libgcc_agrees_on_every_odd_number() {
    type Double = unsafe extern "C" fn(f64, f64, f64, f64) -> Pair;
    #[repr(C)]
    struct Pair(f64, f64);
    // SAFETY: the compiler's own library, which Rust programs are linked with.
    let Ok(libgcc) = (unsafe { Library::new("libgcc_s.so.1") }) else {
        eprintln!("skipped: this machine has no libgcc_s.so.1");
        return;
    };
    let image = load(&object(with(&compilers()[0]), TEXT)).unwrap();
    for (kernel, name) in [("muldc", "__muldc3"), ("divdc", "__divdc3")] {
        let numbers = odd();
        let got: Vec<[f64; 2]> = map(&image, kernel, &numbers);
        // SAFETY: libgcc's manual gives it this type.
        let reference = unsafe { libgcc.get::<Double>(name) }.unwrap();
        for (&[a, b, c, d], got) in numbers.iter().zip(got) {
            // SAFETY: a function of its arguments' values.
            let Pair(re, im) = unsafe { reference(a, b, c, d) };
            let expected = [re, im];
            let agrees = if expected.iter().all(|x| x.is_finite()) && expected != [0.0, 0.0] {
                // In another order of operations, which rounds otherwise.
                distance(got, expected) < 4.0 * f64::EPSILON
            } else {
                let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
                got.iter().zip(&expected).all(same)
            };
            assert!(
                agrees,
                "{name} of {:?}: {got:?}, not {expected:?}",
                [a, b, c, d]
            );
        }
    }
}

fn random(rng: &mut Rng, exponents: i32) -> f64 {
    let fraction = (rng.next() >> 11) as f64 / (1_u64 << 53) as f64 + 1.0;
    let sign = if rng.next().is_multiple_of(2) {
        1.0
    } else {
        -1.0
    };
    sign * fraction * 2_f64.powi(rng.below(2 * exponents as usize) as i32 - exponents)
}

/// The distance of two complex numbers, relative to the second.
fn distance(z: [f64; 2], w: [f64; 2]) -> f64 {
    (z[0] - w[0]).hypot(z[1] - w[1]) / w[0].hypot(w[1])
}

#[test]
fn finite_numbers_multiply_plainly_and_divide_within_a_few_ulps() {
    let mut rng = Rng(4);
    let doubles: Vec<[f64; 4]> = (0..2000)
        .map(|_| [(); 4].map(|()| random(&mut rng, 30)))
        .collect();
    let singles: Vec<[f32; 4]> = doubles.iter().map(|z| z.map(|x| x as f32)).collect();
    for (how, image) in images() {
        let products: Vec<[f64; 2]> = map(image, "muldc", &doubles);
        let quotients: Vec<[f64; 2]> = map(image, "divdc", &doubles);
        for (i, &[a, b, c, d]) in doubles.iter().enumerate() {
            assert_eq!(products[i], [a * c - b * d, a * d + b * c], "{how}");
            // Multiplied back, it is what was divided.
            let [x, y] = quotients[i];
            let back = [x.mul_add(c, -(y * d)), x.mul_add(d, y * c)];
            assert!(
                distance(back, [a, b]) < 8.0 * f64::EPSILON,
                "{:?}, {how}",
                doubles[i]
            );
        }
        let products: Vec<[f32; 2]> = map(image, "mulsc", &singles);
        let quotients: Vec<[f32; 2]> = map(image, "divsc", &singles);
        for (i, &[a, b, c, d]) in singles.iter().enumerate() {
            assert_eq!(products[i], [a * c - b * d, a * d + b * c], "{how}");
            // In double precision it is exact enough to be rounded.
            let [a, b, c, d] = [a, b, c, d].map(f64::from);
            let square = c * c + d * d;
            let exact = [(a * c + b * d) / square, (b * c - a * d) / square];
            for (got, exact) in quotients[i].into_iter().zip(exact) {
                assert_eq!(got, exact as f32, "{:?}, {how}", singles[i]);
            }
        }
    }
}

/// Numbers whose products and squares leave the range of the type, though the quotient
/// lies well inside.
#[test]
fn quotients_do_not_depend_on_how_large_the_numbers_are() {
    let mut rng = Rng(5);
    let image = load(&object(with(&compilers()[0]), TEXT)).unwrap();
    let near: Vec<[f64; 4]> = (0..500)
        .map(|_| [(); 4].map(|()| random(&mut rng, 8)))
        .collect();
    let quotients: Vec<[f64; 2]> = map(&image, "divdc", &near);
    for exponent in [-1000, -600, 600, 1000] {
        let scale = 2_f64.powi(exponent);
        let far: Vec<[f64; 4]> = near.iter().map(|z| z.map(|x| x * scale)).collect();
        assert_eq!(
            quotients,
            map::<f64, f64, 4, 2>(&image, "divdc", &far),
            "2^{exponent}"
        );
    }
    let near: Vec<[f32; 4]> = near.iter().map(|z| z.map(|x| x as f32)).collect();
    let quotients: Vec<[f32; 2]> = map(&image, "divsc", &near);
    for exponent in [-110, 110] {
        let scale = 2_f32.powi(exponent);
        let far: Vec<[f32; 4]> = near.iter().map(|z| z.map(|x| x * scale)).collect();
        assert_eq!(
            quotients,
            map::<f32, f32, 4, 2>(&image, "divsc", &far),
            "2^{exponent}"
        );
    }
    let largest = [[f64::MAX; 4]];
    assert_eq!(
        map::<f64, f64, 4, 2>(&image, "divdc", &largest),
        [[1.0, 0.0]]
    );
}

#[test]
fn complex_halves_are_computed_in_single_precision() {
    let mut rng = Rng(6);
    let mut numbers: Vec<[f64; 4]> = (0..1000)
        .map(|_| [(); 4].map(|()| random(&mut rng, 6)))
        .collect();
    numbers.extend(odd());
    let halves: Vec<[u16; 4]> = numbers
        .iter()
        .map(|z| z.map(|x| f16::from_f64(x).to_bits()))
        .collect();
    for compiler in every_compiler() {
        if compiler.family == Family::Clang && compiler.major < 15 {
            eprintln!("skipped: clang {} has no complex halves", compiler.major);
            continue;
        }
        // clang 15 computes in halves and calls helpers for them, later ones and gcc
        // compute in single precision.
        for text in [TEXT, NATURAL] {
            let builder = with(&compiler).opt_level(OptLevel::O1).target_cpu("x86-64");
            let bytes = object(builder.flag("-DHALF"), text);
            if (compiler.family, compiler.major) == (Family::Clang, 15) {
                assert!(undefined(&bytes).contains("__divhc3"));
            }
            let image = load(&bytes).unwrap();
            let [products, quotients] = ["mulhc", "divhc"].map(|name| {
                let out: Vec<[u16; 2]> = map(&image, name, &halves);
                out.into_iter()
                    .map(|z| z.map(|x| f16::from_bits(x).to_f64()))
                    .collect::<Vec<_>>()
            });
            for (i, half) in halves.iter().enumerate() {
                let z @ [a, b, c, d] = half.map(|x| f16::from_bits(x).to_f64());
                let how = format!("{compiler:?}");
                if z.iter().any(|x| !x.is_finite()) || c == 0.0 && d == 0.0 {
                    assert_annex_g(z, products[i], quotients[i], &how);
                    continue;
                }
                let product = [a * c - b * d, a * d + b * c];
                let square = c * c + d * d;
                let quotient = [(a * c + b * d) / square, (b * c - a * d) / square];
                for (got, exact) in [(products[i], product), (quotients[i], quotient)] {
                    // Rounded once, or at every step.
                    let size = exact[0].hypot(exact[1]).max(1e-4);
                    let error = (got[0] - exact[0]).hypot(got[1] - exact[1]);
                    assert!(error <= size * 3e-3, "{z:?} {got:?} {exact:?} {how}");
                }
            }
        }
    }
}
