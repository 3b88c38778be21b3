//! Half precision and bfloat16, on CPUs without instructions for them.

use std::sync::{Arc, OnceLock};

use half::f16;
use svod_runtime::compile::{CCompiler, Family, OptLevel};
use svod_runtime::link::Image;

use crate::common::{Rng, compilers, every_compiler, load, object, with};
use crate::{map, undefined};

/// A floating-point type of 16 bits.
struct Narrow {
    c: &'static str,
    /// Which compilers convert from and to it.
    has: fn(&CCompiler) -> bool,
    /// The helpers that they call where the CPU has no conversions.
    helpers: &'static [&'static str],
    /// The bits of infinity; those of the positive numbers below are in order.
    infinity: u16,
    widen: fn(u16) -> f64,
    /// Kernels that convert, from each compiler, at two levels.
    images: OnceLock<Vec<Arc<Image>>>,
}

static NARROW: [Narrow; 3] = [
    Narrow {
        c: "_Float16",
        has: |compiler| compiler.family == Family::Gcc || compiler.major >= 15,
        helpers: &["__extendhfsf2", "__truncsfhf2", "__truncdfhf2"],
        infinity: 0x7c00,
        widen: |bits| f16::from_bits(bits).to_f64(),
        images: OnceLock::new(),
    },
    Narrow {
        // The older convention, in integer registers.
        c: "__fp16",
        has: |compiler| compiler.family == Family::Clang && compiler.major < 15,
        helpers: &["__gnu_h2f_ieee", "__gnu_f2h_ieee", "__truncdfhf2"],
        infinity: 0x7c00,
        widen: |bits| f16::from_bits(bits).to_f64(),
        images: OnceLock::new(),
    },
    Narrow {
        c: "__bf16",
        has: |compiler| compiler.family == Family::Clang && compiler.major >= 17,
        helpers: &["__truncsfbf2", "__truncdfbf2"],
        infinity: 0x7f80,
        widen: |bits| f64::from(f32::from_bits(u32::from(bits) << 16)),
        images: OnceLock::new(),
    },
];

impl Narrow {
    /// The value of a positive number's bits. Infinity counts as the number that
    /// would follow the largest finite one, as it does in rounding.
    fn value(&self, bits: u16) -> f64 {
        match bits == self.infinity {
            true => 2.0 * self.value(bits - 1) - self.value(bits - 2),
            false => (self.widen)(bits),
        }
    }

    /// The bits of the number nearest to `x`; of two, the one that is even.
    fn nearest(&self, x: f64) -> u16 {
        let magnitude = x.abs();
        let (mut low, mut high) = (0, self.infinity);
        while low < high {
            let middle = (low + high).div_ceil(2);
            match self.value(middle) <= magnitude {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        if low < self.infinity {
            let tie = f64::midpoint(self.value(low), self.value(low + 1));
            if magnitude > tie || magnitude == tie && low % 2 == 1 {
                low += 1;
            }
        }
        low | u16::from(x.is_sign_negative()) << 15
    }

    /// Numbers, ties between them, and the `f32` and the `f64` next to each on
    /// either side; all the odd places and one in five of the others.
    fn around(&self) -> Vec<f64> {
        let mut all = vec![f64::INFINITY, 1e300, 3.5e38, 1e-300, 5e-324];
        let odd = |bits: u16| bits < 300 || self.infinity - bits < 300;
        for bits in (0..self.infinity).filter(|bits| bits % 5 == 0 || odd(*bits)) {
            let here = self.value(bits);
            for x in [here, f64::midpoint(here, self.value(bits + 1))] {
                let single = x as f32;
                all.extend([x, x.next_up(), x.next_down()]);
                all.extend([single.next_up(), single.next_down()].map(f64::from));
            }
        }
        let negative: Vec<f64> = all.iter().map(|x| -x).collect();
        [all, negative].concat()
    }

    fn images(&self) -> &[Arc<Image>] {
        self.images.get_or_init(|| {
            let c = self.c;
            let text = format!(
                "void to_single(float *y, const {c} *x, long i) {{ y[i] = x[i]; }}
                 void to_double(double *y, const {c} *x, long i) {{ y[i] = x[i]; }}
                 void from_single({c} *y, const float *x, long i) {{ y[i] = ({c})x[i]; }}
                 void from_double({c} *y, const double *x, long i) {{ y[i] = ({c})x[i]; }}"
            );
            let mut images = Vec::new();
            for compiler in every_compiler().iter().filter(|c| (self.has)(c)) {
                for level in [OptLevel::O0, OptLevel::O2] {
                    let builder = with(compiler).opt_level(level).target_cpu("x86-64");
                    let bytes = object(builder, &text);
                    let called = undefined(&bytes);
                    for helper in self.helpers {
                        assert!(
                            called.contains(*helper),
                            "{compiler:?} was to call {helper}"
                        );
                    }
                    images.push(load(&bytes).unwrap());
                }
            }
            if images.is_empty() {
                eprintln!("skipped: no compiler here converts {} as is tested", self.c);
            }
            images
        })
    }
}

/// Runs a kernel over all of `input`.
fn convert<F: svod_runtime::Element, T: svod_runtime::Element>(
    image: &Arc<Image>,
    name: &str,
    input: &[F],
) -> Vec<T> {
    map::<F, T, 1, 1>(image, name, input.as_chunks().0).into_flattened()
}

/// The same numbers, `NaN` being equal to itself if it has the same sign.
fn same(a: f64, b: f64) -> bool {
    match a.is_nan() {
        true => b.is_nan() && a.is_sign_negative() == b.is_sign_negative(),
        false => a.to_bits() == b.to_bits(),
    }
}

#[test]
fn every_half_and_bfloat_widens_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for narrow in &NARROW {
        for image in narrow.images() {
            let singles: Vec<f32> = convert(image, "to_single", &all);
            let doubles: Vec<f64> = convert(image, "to_double", &all);
            for ((&bits, single), double) in all.iter().zip(singles).zip(doubles) {
                let expected = (narrow.widen)(bits);
                for got in [f64::from(single), double] {
                    assert!(same(got, expected), "{} {bits:#x} became {got}", narrow.c);
                }
            }
        }
    }
}

#[test]
fn singles_round_to_the_nearest_half_and_bfloat() {
    for narrow in &NARROW {
        let singles: Vec<f32> = narrow.around().iter().map(|x| *x as f32).collect();
        let nearest = singles.iter().map(|x| narrow.nearest((*x).into()));
        let nearest: Vec<u16> = nearest.collect();
        for image in narrow.images() {
            let got: Vec<u16> = convert(image, "from_single", &singles);
            for ((x, got), expected) in singles.iter().zip(got).zip(&nearest) {
                assert_eq!(got, *expected, "{x:e} ({:#x}) as {}", x.to_bits(), narrow.c);
            }
        }
    }
}

#[test]
fn doubles_round_to_the_nearest_half_and_bfloat_in_one_step() {
    for narrow in &NARROW {
        let doubles = narrow.around();
        let nearest: Vec<u16> = doubles.iter().map(|x| narrow.nearest(*x)).collect();
        for image in narrow.images() {
            let got: Vec<u16> = convert(image, "from_double", &doubles);
            for ((x, got), expected) in doubles.iter().zip(got).zip(&nearest) {
                assert_eq!(got, *expected, "{x:e} ({:#x}) as {}", x.to_bits(), narrow.c);
            }
        }
    }
}

#[test]
fn a_nan_stays_one_when_it_is_narrowed_and_keeps_its_sign() {
    // Payloads at both ends, of which the low one is lost with the low bits.
    let singles = [0x7fc0_0000, 0x7f80_0001, 0x7fff_ffff].map(f32::from_bits);
    let doubles = [0x7ff8 << 48, (0x7ff0 << 48) + 1, u64::MAX >> 1].map(f64::from_bits);
    for narrow in &NARROW {
        for image in narrow.images() {
            for sign in [1.0, -1.0] {
                let single: Vec<u16> =
                    convert(image, "from_single", &singles.map(|x| x.copysign(sign)));
                let double: Vec<u16> = convert(
                    image,
                    "from_double",
                    &doubles.map(|x| x.copysign(sign.into())),
                );
                for got in single.into_iter().chain(double) {
                    assert!(got & 0x7fff > narrow.infinity, "{} {got:#x}", narrow.c);
                    assert_eq!(got >> 15 == 1, sign < 0.0, "{} {got:#x}", narrow.c);
                }
            }
        }
    }
}

/// Each helper by its name, in each convention that some compiler follows: `unsigned
/// short` is a half in an integer register, a `float` one in a vector register.
#[test]
fn helpers_serve_both_conventions_whichever_compiler_calls() {
    let text = r#"
        typedef unsigned short u16; typedef unsigned u32;
        static float passed(u16 bits, u16 rubbish) {
            union { u32 bits; float x; } u = {bits | (u32)rubbish << 16}; return u.x;
        }
        static u16 returned(float x) { union { float x; u32 bits; } u = {x}; return u.bits; }
        #define NARROWS(f, from) \
            extern u16 f##_old(from) __asm__(#f); extern float f##_new(from) __asm__(#f); \
            void k##f(u16 *out, const from *in, long i) { \
                out[2 * i] = f##_old(in[i]); out[2 * i + 1] = returned(f##_new(in[i])); }
        #define WIDENS(f, to) \
            extern to f(float); \
            void k##f(to *out, const u16 *in, long i) { out[i] = f(passed(in[i], 0x7fc1)); }
        NARROWS(__truncsfhf2, float) NARROWS(__truncdfhf2, double)
        NARROWS(__truncsfbf2, float) NARROWS(__truncdfbf2, double)
        WIDENS(__extendhfsf2, float) WIDENS(__extendhfdf2, double) WIDENS(__extendbfsf2, float)
        extern float __gnu_h2f_ieee(u32);
        void k__gnu_h2f_ieee(float *out, const u16 *in, long i) {
            out[i] = __gnu_h2f_ieee(in[i] | 0x7fc10000u);
        }
        extern u16 __gnu_f2h_ieee(float);
        void k__gnu_f2h_ieee(u16 *out, const float *in, long i) { out[i] = __gnu_f2h_ieee(in[i]); }
    "#;
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let [half, _, bfloat] = &NARROW;
    for compiler in compilers() {
        let image = load(&object(with(&compiler).opt_level(OptLevel::O0), text)).unwrap();
        for (name, narrow) in [
            ("k__extendhfsf2", half),
            ("k__gnu_h2f_ieee", half),
            ("k__extendbfsf2", bfloat),
        ] {
            let got: Vec<f32> = convert(&image, name, &all);
            for (&bits, got) in all.iter().zip(got) {
                assert!(same(got.into(), (narrow.widen)(bits)), "{name} {bits:#x}");
            }
        }
        let got: Vec<f64> = convert(&image, "k__extendhfdf2", &all);
        for (&bits, got) in all.iter().zip(got) {
            assert!(same(got, (half.widen)(bits)), "__extendhfdf2 {bits:#x}");
        }
        for (narrow, from_single, from_double) in [
            (half, "k__truncsfhf2", "k__truncdfhf2"),
            (bfloat, "k__truncsfbf2", "k__truncdfbf2"),
        ] {
            let doubles: Vec<f64> = narrow.around().into_iter().step_by(7).collect();
            let singles: Vec<f32> = doubles.iter().map(|&x| x as f32).collect();
            let narrowed: [Vec<[u16; 2]>; 2] = [
                map(&image, from_single, singles.as_chunks::<1>().0),
                map(&image, from_double, doubles.as_chunks::<1>().0),
            ];
            for (i, &x) in doubles.iter().enumerate() {
                assert_eq!(
                    narrowed[0][i],
                    [narrow.nearest(singles[i].into()); 2],
                    "{x:e}"
                );
                assert_eq!(narrowed[1][i], [narrow.nearest(x); 2], "{x:e}");
            }
            if std::ptr::eq(narrow, half) {
                let old: Vec<u16> = convert(&image, "k__gnu_f2h_ieee", &singles);
                let new: Vec<u16> = narrowed[0].iter().map(|both| both[0]).collect();
                assert_eq!(old, new);
            }
        }
    }
}

#[test]
fn halves_become_integers_of_128_bits_and_back() {
    let text = r#"
        typedef __int128 ti; typedef unsigned __int128 uti;
        void fix(ti *out, const _Float16 *in, long i) { out[i] = (ti)in[i]; }
        void fixuns(uti *out, const _Float16 *in, long i) { out[i] = (uti)in[i]; }
        void from(_Float16 *out, const ti *in, long i) { out[i] = (_Float16)in[i]; }
        void fromuns(_Float16 *out, const uti *in, long i) { out[i] = (_Float16)in[i]; }
    "#;
    let half = &NARROW[0];
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    // All around the numbers that halves can hold, and beyond.
    let mut whole: Vec<i128> = (0..67_000).step_by(3).collect();
    whole.extend(65_503..65_530);
    let mut rng = Rng(2);
    whole.extend((0..500).map(|_| {
        let bits = i128::from(rng.next()) << 64 | i128::from(rng.next());
        bits.unsigned_abs() as i128 >> rng.below(128)
    }));
    whole.extend([i128::MAX, i128::MIN, 1 << 20, (1 << 20) + 1, 1 << 64]);
    whole.extend(whole.clone().iter().map(|a| a.wrapping_neg()));
    let input: Vec<[u64; 2]> = whole
        .iter()
        .map(|&a| [a as u64, (a >> 64) as u64])
        .collect();
    let mut tested = false;
    for compiler in every_compiler().iter().filter(|c| (half.has)(c)) {
        tested = true;
        let builder = with(compiler).opt_level(OptLevel::O0).target_cpu("x86-64");
        let bytes = object(builder, text);
        let called = undefined(&bytes);
        for name in ["__fixhfti", "__fixunshfti", "__floattihf", "__floatuntihf"] {
            assert!(called.contains(name), "{compiler:?} was to call {name}");
        }
        let image = load(&bytes).unwrap();
        let [signed, unsigned] = ["fix", "fixuns"].map(|name| {
            let out: Vec<[u64; 2]> = map(&image, name, halves.as_chunks::<1>().0);
            out
        });
        for (&bits, (signed, unsigned)) in halves.iter().zip(signed.into_iter().zip(unsigned)) {
            let x = f16::from_bits(bits).to_f64();
            let words = |a: u128| [a as u64, (a >> 64) as u64];
            assert_eq!(signed, words(x as i128 as u128), "{x}, {compiler:?}");
            assert_eq!(unsigned, words(x as u128), "{x}, {compiler:?}");
        }
        let [signed, unsigned] = ["from", "fromuns"].map(|name| {
            let out: Vec<[u16; 1]> = map(&image, name, &input);
            out
        });
        for (&a, (signed, unsigned)) in whole.iter().zip(signed.into_iter().zip(unsigned)) {
            // Where an `f64` is not exact, the half is infinite.
            assert_eq!(signed, [half.nearest(a as f64)], "{a}, {compiler:?}");
            assert_eq!(
                unsigned,
                [half.nearest(a as u128 as f64)],
                "{a}, {compiler:?}"
            );
        }
    }
    if !tested {
        eprintln!("skipped: no compiler here has _Float16");
    }
}

#[test]
fn halves_are_compared_as_numbers() {
    let text = r#"
        typedef unsigned short u16;
        static float passed(u16 bits) { union { unsigned bits; float x; } u = {bits}; return u.x; }
        extern int __eqhf2(float, float), __nehf2(float, float);
        void k(int *out, const u16 *in, long i) {
            float a = passed(in[2 * i]), b = passed(in[2 * i + 1]);
            out[2 * i] = __eqhf2(a, b); out[2 * i + 1] = __nehf2(a, b);
        }
    "#;
    let mut halves = vec![0, 0x8000, 0x3c00, 0xbc00, 1, 0x7c00, 0xfc00, 0x7e00, 0xfe01];
    let mut rng = Rng(3);
    halves.extend((0..20).map(|_| rng.next() as u16));
    let all = |&a: &u16| halves.iter().map(move |&b| [a, b]);
    let pairs: Vec<[u16; 2]> = halves.iter().flat_map(all).collect();
    let image = load(&object(with(&compilers()[0]), text)).unwrap();
    let got: Vec<[i32; 2]> = map(&image, "k", &pairs);
    for ([a, b], got) in pairs.iter().zip(got) {
        let equal = f16::from_bits(*a) == f16::from_bits(*b);
        assert_eq!(
            got.map(|result| result == 0),
            [equal; 2],
            "{a:#x} and {b:#x}"
        );
    }
}
