//! Linking: what compilers emit runs, what no kernel may have is refused by name,
//! and no bytes whatsoever make the linker panic.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use common::{Rng, compilers, kernel, load, object, with};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use svod_runtime::compile::OptLevel;
use svod_runtime::link::{Definition, Image, ObjectFile, Resolver, Rights, layout, link};
use svod_runtime::{DType, Element, Error, Kernel, RuntimeBuilder, Scalar, Signature};

const PAGE: u64 = 4096;

// ---- What compilers emit

/// Kernels of two pointers to 64 bytes or more, each of which makes compilers emit
/// something that a linker has to get right.
const EMITTED: &str = r#"
typedef unsigned char u8;
typedef unsigned long size_t;
extern double sin(double), cos(double), sqrt(double);
extern void *memcpy(void *, const void *, size_t), *memset(void *, int, size_t);

void float_constants(float *out, const float *in) {
    for (int i = 0; i < 8; i++) out[i] = in[i] * 1.1f + 0.3f;
}
void double_constants(double *out, const double *in) {
    out[0] = in[0] * 1.1 + 0.3; out[1] = -in[1]; out[2] = __builtin_fabs(in[2]);
}
typedef float f8 __attribute__((vector_size(32)));
void vector_constants(f8 *out, const f8 *in) {
    *out = *in * (f8){1, 2, 3, 4, 5, 6, 7, 8} + (f8){.5, .25, .125, 1, 2, 4, 8, 16};
}
void jump_table(long *out, const long *in) {
    for (int i = 0; i < 8; i++) switch (in[i]) {
        case 0: out[i] = in[i] + 17; break;
        case 1: out[i] = in[i] * in[i + 1]; break;
        case 2: out[i] = ~in[i]; break;
        case 3: out[i] = in[i] << 9; break;
        case 4: out[i] = out[0] ^ 5; break;
        case 5: out[i] = in[0] - 6; break;
        case 6: out[i] = 1000 / in[i]; break;
        default: out[i] = -99;
    }
}
static const long primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
void constant_table(long *out, const long *in) {
    for (int i = 0; i < 8; i++) out[i] = primes[in[i] & 7];
}
static const char zero[] = "zero", one[] = "one-", two[] = "two!";
static const char *const words[] = {zero, one, two, one + 1};
void table_of_pointers(char *out, const long *in) {
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++) out[4 * i + j] = words[in[i] & 3][j];
}
static double (*const functions[])(double) = {sin, cos, sqrt};
void table_of_functions(double *out, const double *in) {
    for (int i = 0; i < 6; i++) out[i] = functions[i % 3](in[i]);
}
static __attribute__((noinline)) long square(long x) { return x * x + 1; }
static __attribute__((noinline)) long twice(long (*f)(long), long x) { return f(f(x)); }
void static_functions(long *out, const long *in) {
    for (int i = 0; i < 8; i++) out[i] = twice(square, in[i]);
}
long helper(long x);
void visible_functions(long *out, const long *in) {
    for (int i = 0; i < 8; i++) out[i] = helper(in[i]);
}
long helper(long x) { return 3 * x + 1; }
struct big { u8 bytes[4096]; };
void copied_struct(u8 *out, const u8 *in) {
    struct big a;
    for (int i = 0; i < 4096; i++) a.bytes[i] = in[i % 64] + i;
    volatile int which = 0;
    struct big both[2];
    both[which] = a;
    both[1 - which] = both[which];
    for (int i = 0; i < 64; i++) out[i] = both[1].bytes[64 * i + 5];
}
void copied_loop(u8 *restrict out, const u8 *restrict in) {
    long n = in[0];
    for (long i = 0; i < n; i++) out[i] = in[i];
}
void cleared_struct(u8 *out, const u8 *in) {
    struct big a = {{0}};
    volatile int at = in[0];
    a.bytes[at] = 7;
    for (int i = 0; i < 64; i++) out[i] = a.bytes[i];
}
void called(u8 *out, const u8 *in) {
    long n = in[0];
    memset(out, 9, n);
    memcpy(out + n, in + n, 64 - n);
}
static const u8 aligned16[16] __attribute__((aligned(16))) = {1};
static const u8 aligned64[64] __attribute__((aligned(64))) = {2};
static const u8 aligned4096[1] __attribute__((aligned(4096))) = {3};
void aligned_constants(long *out, const long *in) {
    const volatile u8 *a = aligned16, *b = aligned64, *c = aligned4096;
    out[0] = (long)a; out[1] = (long)b; out[2] = (long)c;
    out[3] = a[0] + b[0] + c[0] + in[0];
}
__attribute__((aligned(256))) void aligned_code(long *out, const long *in) {
    out[0] = (long)aligned_code; out[1] = in[0];
}
"#;

/// A name for what was compiled how, the object, and its image.
struct Emitted {
    how: String,
    object: Vec<u8>,
    image: Arc<Image>,
}

/// The kernels of `EMITTED` from each compiler, at each level and with each set of
/// flags that changes what is emitted.
fn emitted() -> &'static [Emitted] {
    static ALL: OnceLock<Vec<Emitted>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut ways: Vec<(String, RuntimeBuilder)> = Vec::new();
        for compiler in compilers() {
            let name = compiler.path.display().to_string();
            for level in [OptLevel::O0, OptLevel::O1, OptLevel::O2, OptLevel::O3] {
                ways.push((
                    format!("{name} {level:?}"),
                    with(&compiler).opt_level(level),
                ));
            }
            for flags in [
                "-fno-plt -fvisibility=default",
                "-fno-pic -mcmodel=large",
                "-ffunction-sections -fdata-sections -g -fcf-protection=full \
                 -fasynchronous-unwind-tables",
                "-fno-jump-tables -march=x86-64",
            ] {
                let builder = with(&compiler);
                let builder = flags
                    .split_whitespace()
                    .fold(builder, |b, flag| b.flag(flag));
                ways.push((format!("{name} {flags}"), builder));
            }
        }
        // Two at a time: it is compilers that take the time.
        let compile = |ways: Vec<(String, RuntimeBuilder)>| -> Vec<Emitted> {
            let each = ways.into_iter().map(|(how, builder)| {
                let object = object(builder, EMITTED);
                let image = load(&object).unwrap_or_else(|e| panic!("{how}: {e}"));
                Emitted { how, object, image }
            });
            each.collect()
        };
        let rest = ways.split_off(ways.len() / 2);
        std::thread::scope(|scope| {
            let rest = scope.spawn(|| compile(rest));
            let mut all = compile(ways);
            all.extend(rest.join().unwrap());
            all
        })
    })
}

/// What each build of the kernel `name` makes of `input`: 64 bytes, as `T`s.
fn outputs<T: Element + Default>(
    name: &str,
    input: &[T],
) -> impl Iterator<Item = (&'static Emitted, Vec<T>)> {
    // Some kernels look one element further than they use.
    let mut padded = [input, &[T::default(); 64]].concat();
    padded.truncate(128 / size_of::<T>());
    let input = common::from_slice(&padded);
    emitted().iter().map(move |emitted| {
        let signature = Signature::builder()
            .write(T::DTYPE, 64 / size_of::<T>())
            .align(64)
            .read(T::DTYPE, 128 / size_of::<T>())
            .align(64);
        // SAFETY: the kernels of `EMITTED` write 64 bytes at most, to `out`, and
        // read 128 at most.
        let kernel = unsafe { kernel(&emitted.image, name, signature.build().unwrap()) };
        let mut out = common::zeroed(T::DTYPE, 64 / size_of::<T>());
        kernel
            .launch(&mut [(&mut out).into(), (&input).into()], &[], 1)
            .unwrap();
        (emitted, out.as_slice::<T>().unwrap().to_vec())
    })
}

#[test]
fn the_kernels_here_make_compilers_emit_what_they_are_to_emit() {
    let (mut sections, mut undefined, mut kinds) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for Emitted { object, .. } in emitted() {
        let file = object::read::elf::ElfFile64::<object::Endianness>::parse(&**object).unwrap();
        for section in file.sections() {
            sections.insert(section.name().unwrap().to_owned());
            if section.kind() == object::SectionKind::Debug {
                continue;
            }
            for (_, relocation) in section.relocations() {
                let object::RelocationFlags::Elf { r_type, .. } = relocation.flags() else {
                    continue;
                };
                kinds.insert(r_type.0);
            }
        }
        let symbols = file.symbols().filter(|s| s.is_undefined());
        undefined.extend(symbols.map(|s| s.name().unwrap().to_owned()));
    }
    for name in [
        ".rodata.cst4",
        ".rodata.cst8",
        ".rodata.cst16",
        ".rodata.cst32",
    ] {
        assert!(sections.contains(name), "no {name} among {sections:?}");
    }
    for part in [
        ".data.rel.ro",
        ".text.jump_table",
        ".eh_frame",
        ".debug_info",
        ".note.gnu",
    ] {
        assert!(sections.iter().any(|s| s.starts_with(part)), "no {part}");
    }
    for name in ["memcpy", "memset", "sin"] {
        assert!(undefined.contains(name), "no {name} among {undefined:?}");
    }
    use object::elf::{R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_REX_GOTPCRELX};
    for kind in [
        R_X86_64_64,
        R_X86_64_PC32,
        R_X86_64_PLT32,
        R_X86_64_REX_GOTPCRELX,
    ] {
        assert!(kinds.contains(&kind.0), "no {kind:?} among {kinds:?}");
    }
}

#[test]
fn constants_of_every_width_are_found() {
    // Fused or not is a compiler's choice at some levels.
    let close = |a: f64, b: f64, epsilon: f64| (a - b).abs() <= epsilon * b.abs().max(1.0);
    let x = [1.0_f32, -2.0, 3.5, 0.0, 1e3, -0.25, 7.0, 8.0];
    for (Emitted { how, .. }, got) in outputs("float_constants", &x) {
        for (got, x) in got.into_iter().zip(x) {
            assert!(
                close(got.into(), f64::from(x * 1.1 + 0.3), 1e-6),
                "{how}: {got} for {x}"
            );
        }
    }
    for (Emitted { how, .. }, got) in outputs("double_constants", &[2.0_f64, 3.0, -4.0]) {
        assert!(close(got[0], 2.5, 1e-12), "{how}");
        assert_eq!(got[1..3], [-3.0, 4.0], "{how}");
    }
    for (Emitted { how, .. }, got) in outputs("vector_constants", &x) {
        let add = [0.5, 0.25, 0.125, 1.0, 2.0, 4.0, 8.0, 16.0];
        // Exact in either way: no product needs rounding.
        let expected: Vec<f32> = (0..8).map(|i| x[i] * (i as f32 + 1.0) + add[i]).collect();
        assert_eq!(got[..8], expected, "{how}");
    }
}

#[test]
fn tables_are_found() {
    let x = [0_i64, 1, 2, 3, 4, 5, 6, 7];
    for (Emitted { how, .. }, got) in outputs("jump_table", &x) {
        assert_eq!(got, [17, 2, -3, 1536, 17 ^ 5, -6, 166, -99], "{how}");
    }
    for (Emitted { how, .. }, got) in outputs("constant_table", &[7_i64, 6, 5, 4, 3, 2, 1, 0]) {
        assert_eq!(got, [19, 17, 13, 11, 7, 5, 3, 2], "{how}");
    }
    for (Emitted { how, .. }, got) in outputs("table_of_pointers", &x) {
        let bytes: Vec<u8> = got.iter().flat_map(|x| x.to_le_bytes()).collect();
        let text = std::str::from_utf8(&bytes[..32]).unwrap();
        assert_eq!(text, "zeroone-two!ne-\0zeroone-two!ne-\0", "{how}");
    }
    let y = [0.5_f64, 0.25, 2.0, -3.0, 100.0, 3.0];
    for (Emitted { how, .. }, got) in outputs("table_of_functions", &y) {
        let f = [f64::sin, f64::cos, f64::sqrt];
        let expected: Vec<f64> = (0..6).map(|i| f[i % 3](y[i])).collect();
        assert_eq!(got[..6], expected, "{how}");
    }
}

#[test]
fn functions_of_the_same_object_are_called() {
    let x = [0_i64, 1, -2, 3, 40, 5, -6, 7];
    for (Emitted { how, .. }, got) in outputs("static_functions", &x) {
        let f = |x: i64| x * x + 1;
        assert_eq!(got, x.map(|x| f(f(x))), "{how}");
    }
    for (Emitted { how, .. }, got) in outputs("visible_functions", &x) {
        assert_eq!(got, x.map(|x| 3 * x + 1), "{how}");
    }
}

#[test]
fn memory_functions_that_compilers_call_on_their_own_work() {
    let x: [u8; 64] = std::array::from_fn(|i| 40 + i as u8);
    for (Emitted { how, .. }, got) in outputs("copied_struct", &x) {
        let expected: Vec<u8> = (0..64_usize)
            .map(|i| x[5].wrapping_add((64 * i + 5) as u8))
            .collect();
        assert_eq!(got, expected, "{how}");
    }
    for (Emitted { how, .. }, got) in outputs("copied_loop", &x) {
        assert_eq!((&got[..40], &got[40..]), (&x[..40], &[0; 24][..]), "{how}");
    }
    for (Emitted { how, .. }, got) in outputs("cleared_struct", &x) {
        let expected: [u8; 64] = std::array::from_fn(|i| if i == 40 { 7 } else { 0 });
        assert_eq!(got, expected, "{how}");
    }
    for (Emitted { how, .. }, got) in outputs("called", &x) {
        assert_eq!((&got[..40], &got[40..]), (&[9; 40][..], &x[40..]), "{how}");
    }
}

#[test]
fn alignment_is_honoured_for_constants_and_code() {
    for (Emitted { how, .. }, got) in outputs("aligned_constants", &[1_i64]) {
        for (address, align) in got.iter().zip([16, 64, 4096]) {
            assert_eq!(address % align, 0, "{how}: {address:#x}");
        }
        assert_eq!(got[3], 7, "{how}");
    }
    for (Emitted { how, image, .. }, got) in outputs("aligned_code", &[5_i64]) {
        let address = image.function("aligned_code").unwrap().as_ptr() as i64;
        assert_eq!((got[0], got[1]), (address, 5), "{how}");
        assert_eq!(address % 256, 0, "{how}");
    }
}

// ---- Linking as a function of its arguments

/// A resolver from a list.
struct At(HashMap<&'static str, Definition>);

impl At {
    /// Functions.
    fn new<const N: usize>(symbols: [(&'static str, u64); N]) -> At {
        At(symbols
            .map(|(name, at)| (name, Definition::Function(at)))
            .into())
    }

    /// A constant.
    fn data(name: &'static str, at: u64) -> At {
        At([(name, Definition::Data(at))].into())
    }
}

impl Resolver for At {
    fn resolve(&self, name: &str) -> Option<Definition> {
        self.0.get(name).copied()
    }
}

fn word(bytes: &[u8], at: u64) -> u64 {
    let at = at as usize;
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Where the field at `at` points, relative to the end of the field.
fn relative(bytes: &[u8], at: u64) -> u64 {
    let i = at as usize;
    let distance = i32::from_le_bytes(bytes[i..i + 4].try_into().unwrap());
    (at + 4).wrapping_add_signed(distance.into())
}

const FAR: u64 = 0x7f00_0000_0000;

/// Where in the image the field of the first relocation against `symbol` in the
/// section of the function `k` lies.
fn field_of(bytes: &[u8], k: u64, symbol: &str) -> u64 {
    let file = object::File::parse(bytes).unwrap();
    let entry = file.symbols().find(|s| s.name() == Ok("k")).unwrap();
    let section = file
        .section_by_index(entry.section_index().unwrap())
        .unwrap();
    let place = section.relocations().find_map(|(place, relocation)| {
        let object::RelocationTarget::Symbol(target) = relocation.target() else {
            return None;
        };
        (file.symbol_by_index(target).unwrap().name() == Ok(symbol)).then_some(place)
    });
    k - entry.address() + place.unwrap()
}

#[test]
fn a_call_too_far_for_the_instruction_goes_through_a_stub_and_a_near_one_directly() {
    let text = "extern long far(long); long k(long x) { return far(x) + far(x + 1) + 1; }";
    for compiler in compilers() {
        let bytes = object(with(&compiler), text);
        let file = ObjectFile::parse("k", &bytes).unwrap();
        let layout = layout(&file, PAGE);
        let field = field_of(&bytes, layout.function(&file, "k").unwrap(), "far");
        let [code, constants] = layout.segments() else {
            panic!("code and a GOT, not {:?}", layout.segments());
        };
        for (base, target) in [
            (FAR, 0x1000),
            (0x10_0000, FAR),
            (FAR, FAR - (1 << 31) - PAGE),
        ] {
            let image = link(&file, &layout, base, &At::new([("far", target)])).unwrap();
            let stub = relative(&image, field);
            assert!(code.range.contains(&stub), "{stub:#x}");
            let jump = stub as usize;
            assert_eq!(image[jump..jump + 2], [0xff, 0x25], "jmp *disp32(%rip)");
            let slot = relative(&image, stub + 2);
            assert!(constants.range.contains(&slot), "{slot:#x}");
            assert_eq!(slot % 8, 0);
            assert_eq!(word(&image, slot), target);
        }
        for target in [FAR + 0x1000_0000, FAR - 0x1000_0000, FAR + 0x7fff_0000] {
            let image = link(&file, &layout, FAR, &At::new([("far", target)])).unwrap();
            assert_eq!(
                FAR.wrapping_add(relative(&image, field)),
                target,
                "directly"
            );
        }
    }
}

#[test]
fn an_image_depends_on_its_base_only_where_it_holds_an_address() {
    let text = "static const char a[] = \"a\", b[] = \"bb\", c[] = \"ccc\";
         static const char *const table[] = {a, b, c, b + 1};
         int k(int i) { return table[i & 3][0]; }";
    for compiler in compilers() {
        // Not optimised: clang makes such a table one of distances.
        let bytes = object(with(&compiler).opt_level(OptLevel::O0), text);
        let file = ObjectFile::parse("k", &bytes).unwrap();
        let layout = layout(&file, PAGE);
        let at = |base| link(&file, &layout, base, &At::new([])).unwrap();
        let (here, there) = (at(0x5000_0000), at(FAR));
        assert_eq!(here, at(0x5000_0000), "the same twice");
        assert_eq!(here.len() as u64, layout.size());
        let mut addresses = 0;
        for i in (0..layout.size()).step_by(8) {
            let (a, b) = (word(&here, i), word(&there, i));
            if a != b {
                assert_eq!(b.wrapping_sub(a), FAR - 0x5000_0000, "at {i:#x}");
                assert!((0x5000_0000..0x5000_0000 + layout.size()).contains(&a));
                addresses += 1;
            }
        }
        assert_eq!(addresses, 4, "one for each pointer of the table");
    }
}

#[test]
fn an_image_that_would_pass_the_end_of_memory_is_refused() {
    let compiler = compilers().remove(0);
    let bytes = object(with(&compiler), "int k(void) { return 1; }");
    let file = ObjectFile::parse("k", &bytes).unwrap();
    let layout = layout(&file, PAGE);
    let last_page = u64::MAX - PAGE + 1;
    let error = link(&file, &layout, last_page, &At::new([])).unwrap_err();
    assert!(error.to_string().contains("end of memory"), "{error}");
}

#[test]
fn a_value_that_does_not_fit_is_an_error_that_says_which_and_where() {
    let text =
        "__attribute__((visibility(\"hidden\"))) extern int data; int k(void) { return data; }";
    for compiler in compilers() {
        let bytes = object(with(&compiler), text);
        let file = ObjectFile::parse("k", &bytes).unwrap();
        let layout = layout(&file, PAGE);
        let linked = |target| link(&file, &layout, FAR, &At::data("data", target));
        let field = field_of(&bytes, layout.function(&file, "k").unwrap(), "data");
        let image = linked(FAR - 0x2000_0000).unwrap();
        assert_eq!(FAR.wrapping_add(relative(&image, field)), FAR - 0x2000_0000);
        for target in [0x1000, FAR + (1 << 32), u64::MAX] {
            let error = linked(target).unwrap_err();
            assert!(
                matches!(&error, Error::RelocationOverflow { kernel, kind, place, symbol, .. }
                    if kernel == "k" && *kind == "R_X86_64_PC32" && place.starts_with(".text+0x") && symbol == "data"),
                "{error:?}"
            );
            assert!(error.to_string().contains("-fPIC"), "{error}");
        }
    }
}

#[test]
fn absolute_code_links_low_and_is_refused_high() {
    let text = "static const long table[64] = {1, 2, 3}; long k(long i) { return table[i]; }";
    for compiler in compilers() {
        let bytes = object(
            with(&compiler).flag("-fno-pic").flag("-mcmodel=small"),
            text,
        );
        let file = ObjectFile::parse("k", &bytes).unwrap();
        let layout = layout(&file, PAGE);
        assert!(file.needs_low_address());
        assert!(link(&file, &layout, 0x40_0000, &At::new([])).is_ok());
        let error = link(&file, &layout, FAR, &At::new([])).unwrap_err();
        assert!(matches!(error, Error::RelocationOverflow { .. }), "{error}");
    }
}

#[test]
fn segments_are_whole_pages_apart_and_in_order() {
    for Emitted { how, object, .. } in emitted() {
        let file = ObjectFile::parse("k", object).unwrap();
        for page in [4096, 16384, 65536] {
            let layout = layout(&file, page);
            let rights: Vec<_> = layout.segments().iter().map(|s| s.rights).collect();
            assert_eq!(rights, [Rights::Code, Rights::Constants], "{how}");
            let mut end = 0;
            for segment in layout.segments() {
                assert_eq!(segment.range.start, end, "{how}");
                assert!(segment.range.end > segment.range.start);
                assert_eq!(segment.range.end % page, 0);
                end = segment.range.end;
            }
            assert_eq!(end, layout.size(), "{how}");
            let code = &layout.segments()[0].range;
            let entry = layout.function(&file, "jump_table").unwrap();
            assert!(code.contains(&entry), "{how}");
        }
    }
}

#[test]
fn no_page_of_an_image_is_writable_and_code_alone_can_be_executed() {
    for Emitted { how, object, image } in emitted() {
        let file = ObjectFile::parse("k", object).unwrap();
        let layout = layout(&file, rustix::param::page_size() as u64);
        let entry = image.function("jump_table").unwrap().as_ptr() as u64;
        let base = entry - layout.function(&file, "jump_table").unwrap();
        assert_eq!(image.size() as u64, layout.size(), "{how}");
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        for segment in layout.segments() {
            let expected = match segment.rights {
                Rights::Code => "r-xp",
                Rights::Constants => "r--p",
                Rights::Data => "rw-p",
            };
            let (start, end) = (base + segment.range.start, base + segment.range.end);
            let mut covered = 0;
            for line in maps.lines() {
                let (range, rest) = line.split_once(' ').unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let [from, to] = [from, to].map(|x| u64::from_str_radix(x, 16).unwrap());
                if from < end && start < to {
                    assert!(rest.starts_with(expected), "{how}: {line}");
                    covered += to.min(end) - from.max(start);
                }
            }
            assert_eq!(covered, end - start, "{how}");
        }
        assert!(!maps.contains(" rwx"), "{maps}");
    }
}

// ---- Refusals

#[test]
fn what_no_kernel_may_have_is_refused_by_name() {
    let refused = |text: &str, flags: &[&str], named: &[&str]| {
        for compiler in compilers() {
            let builder = flags.iter().fold(with(&compiler), |b, f| b.flag(*f));
            let error = match load(&object(builder, text)) {
                Ok(_) => panic!("{} accepts {text}", compiler.path.display()),
                Err(error) => error,
            };
            let message = error.to_string();
            assert!(message.contains("`k`"), "names the kernel: {message}");
            for name in named {
                assert!(message.contains(name), "{name} in: {message}");
            }
            if named[0].starts_with(['.', 'C']) {
                assert!(matches!(error, Error::WritableSection { .. }), "{error:?}");
            } else if named[0].starts_with('`') {
                assert!(matches!(error, Error::UndefinedSymbol { .. }), "{error:?}");
            } else {
                assert!(
                    matches!(error, Error::UnsupportedObject { .. }),
                    "{error:?}"
                );
            }
        }
    };
    refused(
        "static volatile int n = 5; int k(void) { return n++; }",
        &[],
        &[".data", "4 bytes"],
    );
    refused(
        "static volatile long n; long k(void) { return n++; }",
        &[],
        &[".bss", "8 bytes"],
    );
    refused(
        "int n[3]; int k(void) { return n[1]++; }",
        &["-fcommon"],
        &["COMMON", "n", "12 bytes"],
    );
    refused(
        "static volatile int n = 5; int k(void) { return n++; }",
        &["-fdata-sections"],
        &[".data.n"],
    );
    for text in [
        "static _Thread_local volatile int n; int k(void) { return n++; }",
        "static _Thread_local volatile int n = 4; int k(void) { return n++; }",
        "extern _Thread_local int n; int k(void) { return n++; }",
    ] {
        refused(text, &[], &["thread-local"]);
    }
    refused(
        "static int a(void) { return 1; } static int (*pick(void))(void) { return a; }
         __attribute__((ifunc(\"pick\"))) int chosen(void); int k(void) { return chosen(); }",
        &[],
        &["indirect", "`chosen`", "IFUNC"],
    );
    refused(
        "__attribute__((constructor)) static void begin(void) { volatile int x = 1; } int k(void) { return 1; }",
        &[],
        &["constructors", ".init_array"],
    );
    refused(
        "__attribute__((destructor)) static void end(void) { volatile int x = 1; } int k(void) { return 1; }",
        &[],
        &["destructors", "_array"],
    );
    refused(
        "extern int printf(const char *, ...); int k(void) { return printf(\"hi\"); }",
        &[],
        &["`printf`", "RuntimeBuilder::symbol"],
    );
    refused(
        "extern int there; int k(void) { return there; }",
        &[],
        &["`there`"],
    );
}

#[test]
fn a_symbol_that_is_declared_and_not_used_is_not_asked_for() {
    let text = "extern int printf(const char *, ...); extern int n; int k(void) { return 7; }";
    for compiler in compilers() {
        load(&object(with(&compiler), text)).unwrap();
    }
}

#[test]
fn an_entry_that_is_not_there_is_an_error_that_lists_what_is() {
    let text = "static const int t = 3; static __attribute__((noinline)) int hidden(int x) { return x + t; }
         int first(int x) { return hidden(x); } int second(int x) { return hidden(x) + 1; }
         const int number = 5;";
    for compiler in compilers() {
        let image = load(&object(with(&compiler), text)).unwrap();
        for name in ["k", "hidden", "number", ""] {
            let signature = Signature::builder().build().unwrap();
            // SAFETY: there is nothing to call.
            let error = unsafe { Kernel::new(name, image.clone(), signature) }.unwrap_err();
            let Error::NoEntry { kernel, defined } = &error else {
                panic!("{error}");
            };
            assert_eq!(kernel, name);
            let mut defined: Vec<&str> = defined.split(", ").collect();
            defined.sort_unstable();
            assert_eq!(defined, ["`first`", "`second`"]);
        }
    }
}

#[test]
fn objects_of_other_machines_and_kinds_are_refused_by_what_they_are() {
    let good = object(with(&compilers()[0]), "int k(int x) { return x; }");
    load(&good).unwrap();
    // Offsets of the ELF header: class, byte order, type, machine.
    for (at, byte, named) in [
        (4, 1, "32-bit"),
        (5, 2, "big-endian"),
        (16, 2, "program"),
        (16, 3, "shared object"),
        (16, 4, "ELF type"),
        (18, 183, "aarch64"),
        (18, 243, "243"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        // A file whose words are swapped has its type and machine swapped too.
        if named == "big-endian" {
            bytes.swap(16, 17);
            bytes.swap(18, 19);
        }
        let error = load(&bytes).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(error, Error::UnsupportedObject { .. }),
            "{named}: {error:?}"
        );
        assert!(
            message.contains(named) && message.contains("`k`"),
            "{named}: {message}"
        );
    }
    for bitcode in [
        &b"BC\xc0\xde\x35\x14\0\0\x05\0\0\0\x62\x0c\x30\x24"[..],
        b"\xde\xc0\x17\x0b\0\0\0\0",
    ] {
        let message = load(bitcode).unwrap_err().to_string();
        assert!(
            message.contains("bitcode") && message.contains("-fno-lto"),
            "{message}"
        );
    }
    for (bytes, what) in [
        (&b""[..], "nothing"),
        (b"\x7fELF", "a magic number alone"),
        (b"void k(void) {}\n", "a source"),
        (b"!<arch>\n", "an archive"),
        (
            b"BC\xc0\xde\x35\x14\0\0\x05\0\0\0\x62\x0c\x30\x24",
            "bitcode",
        ),
    ] {
        let error = load(bytes).unwrap_err();
        assert!(
            matches!(
                error,
                Error::MalformedObject { .. } | Error::UnsupportedObject { .. }
            ),
            "{what}: {error:?}"
        );
    }
}

// ---- Damage

/// Everything that is done with an object before it is mapped. What is too large
/// or a panic fails the test; an error is fine.
fn survives(bytes: &[u8]) {
    /// Near, so that most fields hold.
    struct Anything;
    impl Resolver for Anything {
        fn resolve(&self, _: &str) -> Option<Definition> {
            Some(Definition::Function(FAR + 0x100_0000))
        }
    }
    let Ok(file) = ObjectFile::parse("k", bytes) else {
        return;
    };
    let layout = layout(&file, PAGE);
    let len = bytes.len() as u64;
    // A section header takes 64 bytes of the file, and a section is padded to a
    // page at most; a symbol takes 24, and has a slot and a stub at most.
    let most = 2 * len + PAGE * (len / 64 + 2);
    assert!(layout.size() <= most, "{} bytes from {len}", layout.size());
    if let Ok(image) = link(&file, &layout, FAR, &Anything) {
        assert_eq!(image.len() as u64, layout.size());
    }
}

/// Objects in which there is something to damage.
fn victims() -> Vec<Vec<u8>> {
    let text = "extern double sin(double);
         static const char a[] = \"a\", b[] = \"bb\";
         static const char *const table[] = {a, b};
         static double (*const f[])(double) = {sin};
         double k(double x, int i) { return f[i](x) * 1.5 + sin(x) + table[i & 1][0]; }";
    let flags = ["-g0", "-fasynchronous-unwind-tables"];
    (compilers().iter().zip(flags))
        .map(|(compiler, flag)| object(with(compiler).flag(flag), text))
        .collect()
}

#[test]
fn an_object_cut_short_anywhere_does_no_harm() {
    for whole in victims() {
        for len in 0..=whole.len() {
            survives(&whole[..len]);
        }
    }
}

#[test]
fn an_object_with_any_byte_changed_does_no_harm() {
    let mut rng = Rng(3);
    for whole in victims() {
        let mut bytes = whole.clone();
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff, rng.next() as u8, whole[at]] {
                bytes[at] = whole[at] ^ change;
                survives(&bytes);
            }
            bytes[at] = whole[at];
        }
    }
}

#[test]
fn an_object_with_many_bytes_changed_does_no_harm() {
    let mut rng = Rng(4);
    let odd = [
        0,
        1,
        7,
        8,
        0x7f,
        0x80,
        0xff,
        0x1000,
        1 << 31,
        1 << 32,
        1 << 63,
        !0,
        !0 - 7,
    ];
    for whole in victims() {
        // The section headers, the symbols and the relocations stand behind the
        // contents.
        let mut bytes = whole.clone();
        for _ in 0..6000 {
            bytes.copy_from_slice(&whole);
            for _ in 0..=rng.below(4) {
                let width = rng.pick(&[1, 2, 4, 8]);
                let at = rng.below(whole.len() - 8) & !(width - 1);
                let value = if rng.below(4) == 0 {
                    rng.next()
                } else {
                    rng.pick(&odd)
                };
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            survives(&bytes);
        }
    }
}

#[test]
fn bytes_of_no_meaning_do_no_harm() {
    let mut rng = Rng(5);
    let header = object(with(&compilers()[0]), "void k(void) {}")[..64].to_vec();
    for round in 0..4000 {
        let len = rng.below(2048);
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
        // Half of them begin like an object.
        if round % 2 == 0 {
            let n = len.min(64);
            bytes[..n].copy_from_slice(&header[..n]);
        }
        survives(&bytes);
    }
}

#[test]
fn a_small_file_cannot_ask_for_much_memory_by_naming_the_same_bytes_often() {
    use object::elf::{SHT_PROGBITS, SHT_RELA};
    let calls = "x = f(x) + 1;".repeat(20);
    let text = format!("extern long f(long); long k(long x) {{ {calls} return x; }}");
    let good = object(with(&compilers()[0]), &text);
    let number = |at: usize, width: usize| {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&good[at..at + width]);
        u64::from_le_bytes(bytes) as usize
    };
    // Of the ELF header: where the section headers begin, and how many there are.
    let (headers, count) = (number(0x28, 8), number(0x3c, 2));
    let table = &good[headers..headers + 64 * count];
    for kind in [SHT_PROGBITS, SHT_RELA] {
        // The first of its kind that holds something; a section that patches
        // nothing loaded would be passed over.
        let header = (table.chunks_exact(64))
            .find(|h| h[4] == kind.0 as u8 && h[32..40] != [0; 8])
            .unwrap();
        let mut bytes = good.clone();
        bytes.resize(good.len().next_multiple_of(8), 0);
        let moved = bytes.len() as u64;
        bytes.extend(table);
        for _ in 0..5000 {
            bytes.extend(header);
        }
        bytes[0x28..0x30].copy_from_slice(&moved.to_le_bytes());
        bytes[0x3c..0x3e].copy_from_slice(&(count as u16 + 5000).to_le_bytes());
        let size = u64::from_le_bytes(header[32..40].try_into().unwrap());
        assert!(size > 64, "or the headers alone would pay for it");
        let parsed = ObjectFile::parse("k", &bytes);
        assert!(
            matches!(parsed, Err(Error::MalformedObject { .. })),
            "5000 times {size} bytes from a file of {}",
            bytes.len()
        );
    }
}

/// Where the header of the first section of a kind begins in an object.
fn section_header(bytes: &[u8], kind: u32) -> usize {
    let headers = word(bytes, 0x28) as usize;
    let count = (word(bytes, 0x3c) & 0xffff) as usize;
    (0..count)
        .map(|i| headers + 64 * i)
        .find(|at| word(bytes, *at as u64 + 4) as u32 == kind)
        .unwrap()
}

/// Gives every symbol that is a function of its own the same name.
fn with_one_name(bytes: &[u8], functions: usize) -> Vec<u8> {
    let header = section_header(bytes, object::elf::SHT_SYMTAB.0) as u64;
    let (start, size) = (word(bytes, header + 24), word(bytes, header + 32));
    let mut same = bytes.to_vec();
    let is_function = |at: u64| bytes[at as usize + 4] & 0xf == object::elf::STT_FUNC.0;
    let symbols = (start..start + size)
        .step_by(24)
        .filter(|at| is_function(*at));
    // The longest name comes last in the source, and its symbol among the last.
    let symbols: Vec<_> = symbols.map(|at| at as usize).collect();
    assert_eq!(symbols.len(), functions);
    let name = |at: usize| bytes[at..at + 4].to_vec();
    let last = name(*symbols.last().unwrap());
    for at in symbols {
        same[at..at + 4].copy_from_slice(&last);
    }
    same
}

#[test]
fn a_function_that_is_defined_twice_is_refused() {
    let text = "int a(void) { return 1; } int k(void) { return 2; }";
    for compiler in compilers() {
        let good = object(with(&compiler), text);
        ObjectFile::parse("k", &good).unwrap();
        let twice = with_one_name(&good, 2);
        let error = ObjectFile::parse("k", &twice).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }
}

#[test]
fn names_that_are_one_long_name_over_again_are_refused_before_they_take_long() {
    // Local functions may share a name; these share one of 3,000 bytes.
    let few = "__attribute__((used)) static int f";
    let mut text: String = (0..2000)
        .map(|i| format!("{few}{i}(void) {{ return {i}; }}\n"))
        .collect();
    text += &format!("{few}_{}(void) {{ return 0; }}", "x".repeat(3000));
    let good = object(with(&compilers()[0]), &text);
    ObjectFile::parse("k", &good).unwrap();
    let error = ObjectFile::parse("k", &with_one_name(&good, 2001)).unwrap_err();
    assert!(error.to_string().contains("names overlap"), "{error}");
}

#[test]
fn names_outside_their_table_are_refused() {
    let good = object(with(&compilers()[0]), "int k(void) { return 1; }");
    ObjectFile::parse("k", &good).unwrap();
    let refused = |bytes: &[u8]| {
        let error = ObjectFile::parse("k", bytes).unwrap_err().to_string();
        assert!(error.contains("outside its table"), "{error}");
    };
    // Names of sections and of symbols may share a table.
    let names = (word(&good, 0x3c) >> 16) & 0xffff;
    let names = word(&good, 0x28) + 64 * names;
    let (start, size) = (word(&good, names + 24), word(&good, names + 32));
    // A name that begins behind the last, the last without an end, and no names at all.
    let section = section_header(&good, object::elf::SHT_PROGBITS.0);
    let mut beyond = good.clone();
    beyond[section..section + 4].copy_from_slice(&(size as u32).to_le_bytes());
    refused(&beyond);
    let mut endless = good.clone();
    let last = (start + size - 2) as usize;
    let shortened = (names + 32) as usize;
    endless[section..section + 4].copy_from_slice(&(size as u32 - 2).to_le_bytes());
    assert_ne!(endless[last], 0);
    endless[shortened..shortened + 8].copy_from_slice(&(size - 1).to_le_bytes());
    refused(&endless);
    let mut none = good.clone();
    none[shortened..shortened + 8].fill(0);
    refused(&none);
}

#[test]
fn an_object_without_sections_is_read() {
    let good = object(with(&compilers()[0]), "int k(void) { return 1; }");
    let mut bytes = good[..64].to_vec();
    // Where the sections are, how many, and which of them has their names.
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    ObjectFile::parse("k", &bytes).unwrap();
    bytes[0x3e] = 7;
    ObjectFile::parse("k", &bytes).unwrap();
}

#[test]
fn relocations_of_another_symbol_table_are_refused() {
    let text = "extern int f(int); int k(int x) { return f(x) + 1; }";
    for compiler in compilers() {
        let mut bytes = object(with(&compiler), text);
        ObjectFile::parse("k", &bytes).unwrap();
        let link = section_header(&bytes, object::elf::SHT_RELA.0) + 40;
        bytes[link] ^= 1;
        let error = ObjectFile::parse("k", &bytes).unwrap_err();
        assert!(
            error.to_string().contains("another symbol table"),
            "{error}"
        );
    }
}

#[test]
fn a_scalar_reaches_an_object_that_was_given_as_bytes() {
    let bytes = object(
        with(&compilers()[0]),
        "int k(int a, int b) { return a - b; }",
    );
    let signature = Signature::builder()
        .returns(svod_runtime::signature::Returns::Status)
        .scalar(DType::I32, "a", svod_runtime::Bounds::Any)
        .scalar(DType::I32, "b", svod_runtime::Bounds::Any);
    let object = svod_runtime::compile::Object::new("k", bytes);
    let runtime = svod_runtime::Runtime::builder().build().unwrap();
    // SAFETY: it touches no memory.
    let kernel = unsafe { runtime.link(&object, signature.build().unwrap()) }.unwrap();
    kernel
        .launch(&mut [], &[Scalar::I32(4), Scalar::I32(4)], 1)
        .unwrap();
    let failed = kernel.launch(&mut [], &[Scalar::I32(4), Scalar::I32(9)], 1);
    assert!(matches!(
        failed,
        Err(Error::KernelStatus { status: -5, .. })
    ));
}
