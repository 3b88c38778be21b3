//! 128-bit integers, checked arithmetic, bit counts, powers.

use std::process::Command;

use svod_runtime::compile::{CCompiler, Family, OptLevel};

use crate::common::{Rng, compilers, every_compiler, load, object, with};
use crate::{map, undefined};

/// Who calls a helper, and with which flags, for the C that a row has.
#[derive(Clone, Copy, PartialEq)]
enum Callers {
    /// All, at -O0.
    All,
    /// gcc at -O0.
    Gcc,
    /// gcc at -Os, which looks at more than one operation and prefers calls.
    GccOs,
    /// gcc with -ftrapv.
    GccTrapv,
}

use Callers::{All, Gcc, GccOs, GccTrapv};

/// A helper: its name, its type in C, a call of it, the same in Rust, and the C that
/// makes a compiler call it. `a` and `b` are signed, `ua` and `ub` the same bits,
/// `x` and `y` are `float` and `double` of the low bits of `a`.
struct Row {
    name: &'static str,
    declared: &'static str,
    call: &'static str,
    expected: fn(i128, i128) -> i128,
    natural: Option<(Callers, &'static str)>,
}

macro_rules! rows {
    ($($name:ident: $declared:literal, $call:literal $(, $callers:ident $natural:literal)?; $expected:expr;)*) => {
        &[$(Row {
            name: stringify!($name),
            declared: $declared,
            call: $call,
            expected: $expected,
            natural: [$(($callers, $natural))?].first().copied(),
        }),*]
    };
}

/// What 0 is replaced by where it is divided by.
const fn nonzero(b: i128) -> i128 {
    if b == 0 { 1 } else { b }
}

/// A float's bits; -1 for what is not a number.
fn bits(x: f64) -> i128 {
    if x.is_nan() { -1 } else { x.to_bits().into() }
}

const fn single(a: i128) -> f32 {
    f32::from_bits(a as u32)
}

const fn double(a: i128) -> f64 {
    f64::from_bits(a as u64)
}

/// Quotient and remainder, together in a way that loses neither.
const fn together(quotient: i128, remainder: i128) -> i128 {
    quotient ^ remainder.wrapping_mul(3)
}

#[rustfmt::skip]
const ROWS: &[Row] = rows! {
    __multi3: "ti F(ti, ti)", "F(a, b)"; |a, b| a.wrapping_mul(b);
    __negti2: "ti F(ti)", "F(a)"; |a, _| a.wrapping_neg();
    __divti3: "ti F(ti, ti)", "F(a, NZ(b))", All "a / NZ(b)"; |a, b| a.wrapping_div(nonzero(b));
    __modti3: "ti F(ti, ti)", "F(a, NZ(b))", All "a % NZ(b)"; |a, b| a.wrapping_rem(nonzero(b));
    __udivti3: "uti F(uti, uti)", "F(a, NZ(b))", All "ua / NZ(ub)"; |a, b| (a as u128 / nonzero(b) as u128) as i128;
    __umodti3: "uti F(uti, uti)", "F(a, NZ(b))", All "ua % NZ(ub)"; |a, b| (a as u128 % nonzero(b) as u128) as i128;
    __divmodti4: "ti F(ti, ti, ti *)", "({ ti r, q = F(a, NZ(b), &r); q ^ 3 * r; })", GccOs "a / NZ(b) ^ 3 * (a % NZ(b))";
        |a, b| together(a.wrapping_div(nonzero(b)), a.wrapping_rem(nonzero(b)));
    __udivmodti4: "uti F(uti, uti, uti *)", "({ uti r, q = F(a, NZ(b), &r); q ^ 3 * r ^ F(a, NZ(b), 0) ^ q; })", GccOs "ua / NZ(ub) ^ 3 * (ua % NZ(ub))";
        |a, b| together((a as u128 / nonzero(b) as u128) as i128, (a as u128 % nonzero(b) as u128) as i128);

    __ashlti3: "ti F(ti, int)", "F(a, b & 127)"; |a, b| a << (b & 127);
    __ashrti3: "ti F(ti, int)", "F(a, b & 127)"; |a, b| a >> (b & 127);
    __lshrti3: "uti F(uti, int)", "F(a, b & 127)"; |a, b| (a as u128 >> (b & 127)) as i128;
    __cmpti2: "int F(ti, ti)", "F(a, b)"; |a, b| 1 + i128::from(a > b) - i128::from(a < b);
    __ucmpti2: "int F(uti, uti)", "F(a, b)"; |a, b| 1 + i128::from(a as u128 > b as u128) - i128::from((a as u128) < b as u128);

    __mulosi4: "int F(int, int, int *)", "({ int o, p = F(a, b, &o); 2 * (ti)p + o; })";
        |a, b| { let (p, o) = (a as i32).overflowing_mul(b as i32); 2 * i128::from(p) + i128::from(o) };
    __mulodi4: "long F(long, long, int *)", "({ int o; long p = F(a, b, &o); 2 * (ti)p + o; })";
        |a, b| { let (p, o) = (a as i64).overflowing_mul(b as i64); 2 * i128::from(p) + i128::from(o) };
    __muloti4: "ti F(ti, ti, int *)", "({ int o; ti p = F(a, b, &o); o ? ~p : p; })";
        |a, b| { let (p, o) = a.overflowing_mul(b); if o { !p } else { p } };

    // Halves of numbers add up, halves as long multiply.
    __addvsi3: "int F(int, int)", "F((int)a >> 1, (int)b >> 1)", GccTrapv "((int)a >> 1) + ((int)b >> 1)"; |a, b| ((a as i32 >> 1) + (b as i32 >> 1)).into();
    __addvdi3: "long F(long, long)", "F((long)a >> 1, (long)b >> 1)", GccTrapv "((long)a >> 1) + ((long)b >> 1)"; |a, b| ((a as i64 >> 1) + (b as i64 >> 1)).into();
    __addvti3: "ti F(ti, ti)", "F(a >> 1, b >> 1)", GccTrapv "(a >> 1) + (b >> 1)"; |a, b| (a >> 1) + (b >> 1);
    __subvsi3: "int F(int, int)", "F((int)a >> 1, (int)b >> 1)", GccTrapv "((int)a >> 1) - ((int)b >> 1)"; |a, b| ((a as i32 >> 1) - (b as i32 >> 1)).into();
    __subvdi3: "long F(long, long)", "F((long)a >> 1, (long)b >> 1)", GccTrapv "((long)a >> 1) - ((long)b >> 1)"; |a, b| ((a as i64 >> 1) - (b as i64 >> 1)).into();
    __subvti3: "ti F(ti, ti)", "F(a >> 1, b >> 1)", GccTrapv "(a >> 1) - (b >> 1)"; |a, b| (a >> 1) - (b >> 1);
    __mulvsi3: "int F(int, int)", "F((short)a, (short)b)", GccTrapv "(int)(short)a * (int)(short)b"; |a, b| (i32::from(a as i16) * i32::from(b as i16)).into();
    __mulvdi3: "long F(long, long)", "F((int)a, (int)b)", GccTrapv "(long)(int)a * (long)(int)b"; |a, b| (i64::from(a as i32) * i64::from(b as i32)).into();
    __mulvti3: "ti F(ti, ti)", "F((long)a, (long)b)", GccTrapv "(ti)(long)a * (ti)(long)b"; |a, b| i128::from(a as i64) * i128::from(b as i64);
    __negvsi2: "int F(int)", "F((int)a >> 1)", GccTrapv "-((int)a >> 1)"; |a, _| (-(a as i32 >> 1)).into();
    __negvdi2: "long F(long)", "F((long)a >> 1)", GccTrapv "-((long)a >> 1)"; |a, _| (-(a as i64 >> 1)).into();
    __negvti2: "ti F(ti)", "F(a >> 1)", GccTrapv "-(a >> 1)"; |a, _| -(a >> 1);
    __absvsi2: "int F(int)", "F((int)a >> 1)"; |a, _| (a as i32 >> 1).abs().into();
    __absvdi2: "long F(long)", "F((long)a >> 1)"; |a, _| (a as i64 >> 1).abs().into();
    __absvti2: "ti F(ti)", "F(a >> 1)"; |a, _| (a >> 1).abs();

    __popcountsi2: "int F(unsigned)", "F(a)"; |a, _| (a as u32).count_ones().into();
    __popcountdi2: "int F(unsigned long)", "F(a)", Gcc "__builtin_popcountl(a)"; |a, _| (a as u64).count_ones().into();
    __popcountti2: "int F(uti)", "F(a)"; |a, _| a.count_ones().into();
    __paritysi2: "int F(unsigned)", "F(a)"; |a, _| (a as u32).count_ones() as i128 & 1;
    __paritydi2: "int F(unsigned long)", "F(a)"; |a, _| (a as u64).count_ones() as i128 & 1;
    __parityti2: "int F(uti)", "F(a)"; |a, _| a.count_ones() as i128 & 1;
    __clzsi2: "int F(unsigned)", "F(a | 1)"; |a, _| (a as u32 | 1).leading_zeros().into();
    __clzdi2: "int F(unsigned long)", "F(a | 1)"; |a, _| (a as u64 | 1).leading_zeros().into();
    __clzti2: "int F(uti)", "F(a | 1)"; |a, _| (a | 1).leading_zeros().into();
    __ctzsi2: "int F(unsigned)", "F(a | 1u << 31)"; |a, _| (a as u32 | 1 << 31).trailing_zeros().into();
    __ctzdi2: "int F(unsigned long)", "F(a | 1ul << 63)"; |a, _| (a as u64 | 1 << 63).trailing_zeros().into();
    __ctzti2: "int F(uti)", "F(a | (ti)1 << 126)"; |a, _| (a | 1 << 126).trailing_zeros().into();
    __ffssi2: "int F(int)", "F(a)"; |a, _| (1..=32).find(|i| a >> (i - 1) & 1 == 1).unwrap_or(0);
    __ffsdi2: "int F(long)", "F(a)"; |a, _| (1..=64).find(|i| a >> (i - 1) & 1 == 1).unwrap_or(0);
    __ffsti2: "int F(ti)", "F(a)"; |a, _| (1..=128).find(|i| a >> (i - 1) & 1 == 1).unwrap_or(0);
    __clrsbsi2: "int F(int)", "F(a)"; |a, _| (0..31).take_while(|i| a >> (30 - i) & 1 == a >> 31 & 1).count() as i128;
    __clrsbdi2: "int F(long)", "F(a)", GccOs "__builtin_clrsbl(a)"; |a, _| (0..63).take_while(|i| a >> (62 - i) & 1 == a >> 63 & 1).count() as i128;
    __clrsbti2: "int F(ti)", "F(a)"; |a, _| (0..127).take_while(|i| a >> (126 - i) & 1 == a >> 127 & 1).count() as i128;
    __bswapsi2: "unsigned F(unsigned)", "F(a)"; |a, _| (a as u32).swap_bytes().into();
    __bswapdi2: "unsigned long F(unsigned long)", "F(a)"; |a, _| (a as u64).swap_bytes().into();

    __fixsfti: "ti F(float)", "F(x)", All "(ti)x"; |a, _| single(a) as i128;
    __fixdfti: "ti F(double)", "F(y)", All "(ti)y"; |a, _| double(a) as i128;
    __fixunssfti: "uti F(float)", "F(x)", All "(uti)x"; |a, _| single(a) as u128 as i128;
    __fixunsdfti: "uti F(double)", "F(y)", All "(uti)y"; |a, _| double(a) as u128 as i128;
    __floattisf: "float F(ti)", "bits(F(a))", All "bits((float)a)"; |a, _| bits((a as f32).into());
    __floattidf: "double F(ti)", "bits(F(a))", All "bits((double)a)"; |a, _| bits(a as f64);
    __floatuntisf: "float F(uti)", "bits(F(ua))", All "bits((float)ua)"; |a, _| bits((a as u128 as f32).into());
    __floatuntidf: "double F(uti)", "bits(F(ua))", All "bits((double)ua)"; |a, _| bits(a as u128 as f64);
    __powisf2: "float F(float, int)", "bits(F(x, b))", All "bits(__builtin_powif(x, b))"; |a, b| bits(single(a).powi(b as i32).into());
    __powidf2: "double F(double, int)", "bits(F(y, b))", All "bits(__builtin_powi(y, b))"; |a, b| bits(double(a).powi(b as i32));
};

const PRELUDE: &str = r#"
    typedef __int128 ti; typedef unsigned __int128 uti;
    #define NZ(b) ((b) == 0 ? 1 : (b))
    static ti bits(double x) {
        union { double x; unsigned long bits; } u = {x};
        return x != x ? (ti)-1 : (ti)u.bits;
    }
    #define KERNEL(name, ...) void name(ti *out, const ti *in, long i) { \
        ti a = in[2 * i], b = in[2 * i + 1]; uti ua = a, ub = b; \
        union { unsigned bits; float x; } s = {(unsigned)ua}; \
        union { unsigned long bits; double x; } d = {(unsigned long)ua}; \
        float x = s.x; double y = d.x; (void)ub; (void)x; (void)y; \
        out[i] = (ti)(__VA_ARGS__); }
"#;

/// Pairs: the ends of all widths and what lies next to them, floats of all sizes,
/// and numbers of random lengths.
fn pairs() -> Vec<[i128; 2]> {
    let mut edges = vec![0, 1, 2, 3, 7, 10, i128::MAX];
    for width in [31, 32, 53, 63, 64, 65, 96, 126] {
        edges.extend([(1 << width) - 1, 1 << width, (1 << width) + 1]);
    }
    let floats = [0.75, 1.5, 16_777_217.0, 1e18, 1.7e38, 3.5e38, f64::NAN];
    edges.extend(floats.map(|x| i128::from(x.to_bits())));
    edges.extend(floats.map(|x| i128::from((x as f32).to_bits())));
    let edges: Vec<i128> = edges.iter().flat_map(|&e| [e, !e, -e]).collect();
    let all = |&a: &i128| edges.iter().map(move |&b| [a, b]);
    let mut pairs: Vec<[i128; 2]> = edges.iter().flat_map(all).collect();
    let mut rng = Rng(1);
    let mut number = || {
        let bits = i128::from(rng.next()) << 64 | i128::from(rng.next());
        bits >> rng.below(128)
    };
    pairs.extend((0..2000).map(|_| [number(), number()]));
    pairs
}

/// The words of 128-bit integers, as memory holds them.
fn words(pair: &[i128; 2]) -> [u64; 4] {
    let [a, b] = pair.map(|v| [v as u64, (v >> 64) as u64]);
    [a[0], a[1], b[0], b[1]]
}

/// Compiles `text`, and runs the kernel of each row's name over all pairs.
fn check<'a>(
    compiler: &CCompiler,
    how: (OptLevel, &[&str]),
    text: &str,
    rows: impl Iterator<Item = &'a Row>,
) {
    let builder = with(compiler).opt_level(how.0).target_cpu("x86-64");
    let builder = how.1.iter().fold(builder, |b, flag| b.flag(*flag));
    let bytes = object(builder, &format!("{PRELUDE}{text}"));
    let called = undefined(&bytes);
    let image = load(&bytes).unwrap();
    let pairs = pairs();
    let input: Vec<[u64; 4]> = pairs.iter().map(words).collect();
    for row in rows {
        assert!(
            called.contains(row.name),
            "{compiler:?} was to call {}",
            row.name
        );
        let out: Vec<[u64; 2]> = map(&image, &format!("k{}", row.name), &input);
        for (&[a, b], [low, high]) in pairs.iter().zip(out) {
            let got = (u128::from(low) | u128::from(high) << 64) as i128;
            let expected = (row.expected)(a, b);
            assert_eq!(
                got, expected,
                "{} of {a:#x} and {b:#x}, {compiler:?}",
                row.name
            );
        }
    }
}

#[test]
fn every_integer_helper_gives_what_rust_gives() {
    let text: String = ROWS
        .iter()
        .map(
            |Row {
                 name,
                 declared,
                 call,
                 ..
             }| {
                let [declared, call] =
                    [declared, call].map(|text| text.replace("F(", &format!("{name}(")));
                format!("extern {declared};\nKERNEL(k{name}, {call})\n")
            },
        )
        .collect();
    for compiler in compilers() {
        check(&compiler, (OptLevel::O0, &[]), &text, ROWS.iter());
    }
}

#[test]
fn compilers_call_the_integer_helpers_and_get_what_rust_gives() {
    for compiler in every_compiler() {
        let groups: [(Callers, OptLevel, &[&str]); 4] = [
            (All, OptLevel::O0, &[]),
            (Gcc, OptLevel::O0, &[]),
            (GccOs, OptLevel::O2, &["-Os"]),
            (GccTrapv, OptLevel::O0, &["-ftrapv"]),
        ];
        for (callers, level, flags) in groups {
            if callers != All && compiler.family != Family::Gcc {
                continue;
            }
            let group = || {
                ROWS.iter().filter_map(move |row| {
                    let (_, c) = row.natural.filter(|natural| natural.0 == callers)?;
                    Some((row, c))
                })
            };
            let text: String = group()
                .map(|(row, c)| format!("KERNEL(k{}, {c})\n", row.name))
                .collect();
            check(
                &compiler,
                (level, flags),
                &text,
                group().map(|(row, _)| row),
            );
        }
    }
}

#[test]
fn rustc_calls_helpers_that_are_on_the_list() {
    const TEXT: &str = r#"
        #![no_std]
        #[panic_handler] fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
        const fn nonzero(b: i128) -> i128 { if b == 0 { 1 } else { b } }
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn k(out: *mut i128, input: *const i128, i: isize) {
            let (a, b) = unsafe { (*input.offset(2 * i), nonzero(*input.offset(2 * i + 1))) };
            let (ua, ub) = (a as u128, b as u128);
            let (x, y) = (f32::from_bits(a as u32), f64::from_bits(a as u64));
            let results = [
                a.wrapping_div(b), a.wrapping_rem(b), (ua / ub) as i128, (ua % ub) as i128,
                a.checked_mul(b).unwrap_or(1), x as i128, y as i128, x as u128 as i128, y as u128 as i128,
                (a as f32).to_bits() as i128, (a as f64).to_bits() as i128,
                (ua as f32).to_bits() as i128, (ua as f64).to_bits() as i128,
            ];
            unsafe { *out.offset(i) = results.iter().fold(0, |sum, r| sum.rotate_left(9) ^ r) };
        }
    "#;
    let folder = tempfile::tempdir().unwrap();
    let [source, out] = ["k.rs", "k.o"].map(|name| folder.path().join(name));
    std::fs::write(&source, TEXT).unwrap();
    for level in ["1", "3"] {
        let mut rustc = Command::new("rustc");
        rustc.args([
            "--edition=2024",
            "--crate-type=lib",
            "--emit=obj",
            "-Cpanic=abort",
        ]);
        rustc
            .arg(format!("-Copt-level={level}"))
            .arg("-o")
            .args([&out, &source]);
        let Ok(output) = rustc.output() else {
            eprintln!("skipped: this machine has no rustc in PATH");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let bytes = std::fs::read(&out).unwrap();
        let called = undefined(&bytes);
        for name in [
            "__divti3",
            "__udivti3",
            "__fixdfti",
            "__fixunssfti",
            "__floatuntisf",
        ] {
            assert!(
                called.contains(name),
                "rustc was to call {name}: {called:?}"
            );
        }
        let image = load(&bytes).unwrap();
        let pairs = pairs();
        let input: Vec<[u64; 4]> = pairs.iter().map(words).collect();
        let out: Vec<[u64; 2]> = map(&image, "k", &input);
        for (&[a, b], [low, high]) in pairs.iter().zip(out) {
            let b = nonzero(b);
            let (ua, ub) = (a as u128, b as u128);
            let (x, y) = (single(a), double(a));
            let results = [
                a.wrapping_div(b),
                a.wrapping_rem(b),
                (ua / ub) as i128,
                (ua % ub) as i128,
                a.checked_mul(b).unwrap_or(1),
                x as i128,
                y as i128,
                x as u128 as i128,
                y as u128 as i128,
                (a as f32).to_bits().into(),
                (a as f64).to_bits().into(),
                (ua as f32).to_bits().into(),
                (ua as f64).to_bits().into(),
            ];
            let expected = results
                .iter()
                .fold(0, |sum: i128, r| sum.rotate_left(9) ^ r);
            let got = (u128::from(low) | u128::from(high) << 64) as i128;
            assert_eq!(got, expected, "{a:#x} and {b:#x}, -O{level}");
        }
    }
}
