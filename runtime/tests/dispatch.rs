//! A call: every argument arrives as it was given, whatever the kernel's
//! signature and whichever way leads into it, from any thread, inside another
//! call, and without an allocation.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod counting;

use std::ffi::c_void;
use std::fmt::Write as _;
use std::num::FpCategory;
use std::sync::Arc;

use common::{Rng, compilers, kernel, load, object, with};
use counting::allocations;
use half::{bf16, f16};
use svod_runtime::compile::{CCompiler, Family, OptLevel};
use svod_runtime::dispatch::{Call, KernelCif, MAX_TRAMPOLINE_ARGS};
use svod_runtime::link::Image;
use svod_runtime::signature::{ArgShape, Convention, MAX_PARAMS, Number, Returns};
use svod_runtime::{Arg, Bounds, Buffer, DType, Error, Kernel, Runtime, Scalar, Signature, Source};

// ---- Kernels that write down what they were given

/// One parameter of a kernel that writes its arguments down.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// The buffer that it writes to: 8 bytes for each parameter, this one too.
    Out,
    /// Another buffer, of which it writes down the address.
    Buffer,
    Scalar(DType),
    Index(DType),
}

/// A kernel that writes each of its arguments to its place in `Part::Out`:
/// integers as 64 bits, extended from their type, and floats as their bits.
#[derive(Clone, Debug)]
struct Recorder {
    name: String,
    parts: Vec<Part>,
    convention: Convention,
    returns: Returns,
}

impl Recorder {
    fn new(name: impl Into<String>, parts: impl Into<Vec<Part>>) -> Recorder {
        Recorder {
            name: name.into(),
            parts: parts.into(),
            convention: Convention::C,
            returns: Returns::Void,
        }
    }

    fn status(&self) -> i32 {
        match self.returns {
            Returns::Void => 0,
            Returns::Status => -1_000_000_007 + self.parts.len() as i32,
        }
    }

    fn c(&self) -> String {
        let packed = self.convention == Convention::Packed;
        let (mut params, mut body) = (Vec::new(), String::new());
        let (mut buffers, mut values) = (0, 0);
        for (i, part) in self.parts.iter().enumerate() {
            let (c, argument) = match *part {
                Part::Out | Part::Buffer => {
                    buffers += 1;
                    ("void *", format!("buffers[{}]", buffers - 1))
                }
                Part::Scalar(dtype) | Part::Index(dtype) => {
                    values += 1;
                    (c_type(dtype), format!("values[{}]", values - 1))
                }
            };
            // In the packed convention the slot is the contract: all 64 bits.
            let stored = match *part {
                Part::Scalar(dtype) if dtype.is_float() && !packed => c,
                _ => "unsigned long long",
            };
            let argument = if packed { argument } else { format!("a{i}") };
            let _ = writeln!(
                body,
                "  *({stored} *)(out + {}) = ({stored}){argument};",
                8 * i
            );
            params.push(format!("{c} a{i}"));
        }
        let out = self.parts.iter().position(|p| *p == Part::Out);
        let out = match out {
            None => "0".to_owned(),
            Some(i) if packed => {
                let before = self.parts[..i].iter();
                let before = before.filter(|p| matches!(p, Part::Out | Part::Buffer));
                format!("buffers[{}]", before.count())
            }
            Some(i) => format!("a{i}"),
        };
        let params = match () {
            () if packed => "void **buffers, long long *values".to_owned(),
            () if params.is_empty() => "void".to_owned(),
            () => params.join(", "),
        };
        let (returned, end) = match self.returns {
            Returns::Void => ("void", String::new()),
            Returns::Status => ("int", format!("  return {};\n", self.status())),
        };
        let name = &self.name;
        format!("{returned} {name}({params}) {{\n  char *out = {out}; (void)out;\n{body}{end}}}\n")
    }

    fn signature(&self) -> Signature {
        let mut builder = Signature::builder()
            .convention(self.convention)
            .returns(self.returns);
        for (i, part) in self.parts.iter().enumerate() {
            builder = match *part {
                Part::Out => builder.write(DType::U8, 8 * self.parts.len()),
                Part::Buffer => builder.read(DType::U8, 1),
                Part::Scalar(dtype) => builder.scalar(dtype, format!("a{i}"), Bounds::Any),
                Part::Index(dtype) => builder.index(dtype, 1 << 31),
            };
        }
        builder.build().unwrap()
    }

    /// Calls the kernel in each way there is, with `scalars`, and checks what it
    /// has written down.
    fn check(&self, image: &Arc<Image>, scalars: &[Scalar], index: u64) {
        // SAFETY: the C text of this recorder keeps the signature: it writes 8
        // bytes for each parameter to `out` and reads nothing.
        let kernel = unsafe { kernel(image, &self.name, self.signature()) };
        let mut out = common::zeroed(DType::U8, 8 * self.parts.len());
        let others: Vec<Buffer> = (self.parts.iter().filter(|p| **p == Part::Buffer))
            .map(|_| common::zeroed(DType::U8, 1))
            .collect();
        let out_address = out.as_mut_slice::<u8>().unwrap().as_mut_ptr();
        let mut addresses = others
            .iter()
            .map(|b| b.as_slice::<u8>().unwrap().as_ptr().cast_mut());
        let buffers: Vec<*mut u8> = (self.parts.iter())
            .filter_map(|part| match part {
                Part::Out => Some(out_address),
                Part::Buffer => addresses.next(),
                _ => None,
            })
            .collect();
        let slots: Vec<u64> = scalars.iter().map(|s| s.to_slot()).collect();
        let (mut next_buffer, mut next_scalar) = (buffers.iter(), slots.iter());
        let arguments: Vec<(Part, u64)> = (self.parts.iter())
            .map(|&part| {
                let slot = match part {
                    Part::Out | Part::Buffer => *next_buffer.next().unwrap() as u64,
                    Part::Scalar(_) => *next_scalar.next().unwrap(),
                    Part::Index(_) => index,
                };
                (part, slot)
            })
            .collect();

        let mut call = Call::new(&kernel);
        (buffers.iter().enumerate()).for_each(|(i, &b)| call.set_buffer(i, b));
        (slots.iter().enumerate()).for_each(|(i, &s)| call.set_scalar(i, s));
        let mut values: Vec<u64> = (arguments.iter())
            .filter(|(part, _)| matches!(part, Part::Scalar(_) | Part::Index(_)))
            .map(|&(_, slot)| slot)
            .collect();
        let cif = KernelCif::new(kernel.signature());
        let cif_slots = match self.convention {
            Convention::C => arguments.iter().map(|&(_, slot)| slot).collect(),
            Convention::Packed => vec![buffers.as_ptr() as u64, values.as_mut_ptr() as u64],
        };
        // The index is to come from the call, not from the slot.
        let cif_index = self.convention == Convention::C;
        let mut cif_shared = cif_slots.clone();
        if cif_index && let Some(i) = self.parts.iter().position(|p| matches!(p, Part::Index(_))) {
            cif_shared[i] = !0;
        }
        let entry = image.function(&self.name).unwrap().as_ptr();
        let ways: [(&str, &mut dyn FnMut() -> i32); 5] = [
            // SAFETY, for all of them: the buffers live, are as long as the
            // signature says, and nothing else uses `out` meanwhile; scalars and
            // index are those of the signature.
            ("Kernel::call", &mut || {
                // SAFETY: as above.
                unsafe { kernel.call(&buffers, &slots, index) }
            }),
            ("Call::call_at", &mut || {
                // SAFETY: as above.
                unsafe { call.call_at(index) }
            }),
            ("KernelCif::call", &mut || {
                // SAFETY: as above; the entry is that of this signature.
                unsafe { cif.call(entry, &cif_slots, None) }
            }),
            ("KernelCif::call with an index", &mut || {
                // SAFETY: as above.
                unsafe { cif.call(entry, &cif_shared, cif_index.then_some(index)) }
            }),
            ("Kernel::call, again", &mut || {
                // SAFETY: as above.
                unsafe { kernel.call(&buffers, &slots, index) }
            }),
        ];
        let written = |index: u64| -> Vec<u64> {
            (arguments.iter())
                .map(|&(part, slot)| match part {
                    Part::Index(_) => index,
                    _ => slot,
                })
                .collect()
        };
        let read = || -> Vec<u64> {
            // SAFETY: `out` is that long and lives, and no kernel runs now.
            let bytes = unsafe { std::slice::from_raw_parts(out_address, 8 * self.parts.len()) };
            let words = bytes.chunks_exact(8);
            words
                .map(|w| u64::from_le_bytes(w.try_into().unwrap()))
                .collect()
        };
        // SAFETY: as above.
        let clear = || unsafe { out_address.write_bytes(0, 8 * self.parts.len()) };
        let records = self.parts.contains(&Part::Out);
        for (way, make) in ways {
            clear();
            assert_eq!(make(), self.status(), "{way}: the status of\n{}", self.c());
            if records {
                assert_eq!(
                    read(),
                    written(index),
                    "{way}: what arrived in\n{}",
                    self.c()
                );
            }
        }

        // And the safe way, which counts the index from 0.
        let indexed = self.parts.iter().any(|p| matches!(p, Part::Index(_)));
        let grid = if indexed { 3 } else { 1 };
        clear();
        let mut others = others.iter();
        let mut out = Some(&mut out);
        let mut args: Vec<Arg<'_>> = (self.parts.iter())
            .filter_map(|part| match part {
                Part::Out => out.take().map(Arg::from),
                Part::Buffer => others.next().map(Arg::from),
                _ => None,
            })
            .collect();
        let launched = kernel.launch(&mut args, scalars, grid);
        let last = match self.returns {
            Returns::Void => {
                launched.unwrap();
                grid - 1
            }
            // A status that is not 0 ends the launch.
            Returns::Status => {
                let failed = launched.unwrap_err();
                assert!(
                    matches!(failed, Error::KernelStatus { status, index: 0, .. }
                        if status == self.status()),
                    "{failed}"
                );
                0
            }
        };
        if records {
            assert_eq!(
                read(),
                written(last),
                "launch: what arrived in\n{}",
                self.c()
            );
        }
    }
}

const fn c_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "_Bool",
        DType::I8 => "signed char",
        DType::U8 => "unsigned char",
        DType::I16 => "short",
        DType::U16 => "unsigned short",
        DType::I32 => "int",
        DType::U32 => "unsigned",
        DType::I64 => "long long",
        DType::U64 => "unsigned long long",
        DType::F16 => "_Float16",
        DType::BF16 => "__bf16",
        DType::F32 => "float",
        DType::F64 => "double",
    }
}

/// Whether a compiler takes `dtype` as the type of a parameter.
fn takes(compiler: &CCompiler, dtype: DType) -> bool {
    match (dtype, compiler.family) {
        (DType::F16, Family::Gcc) => compiler.major >= 12,
        (DType::BF16, Family::Gcc) => compiler.major >= 13,
        (DType::F16, Family::Clang) => compiler.major >= 15,
        (DType::BF16, Family::Clang) => compiler.major >= 17,
        _ => true,
    }
}

/// Values of `dtype` at the ends of its range and at its odd places.
fn extremes(dtype: DType) -> Vec<Scalar> {
    if let Some((min, max)) = dtype.integer_range() {
        let values = [min, max, 0, 1, -1, min + 1, max - 1, max / 2 + 1];
        return (values.into_iter())
            .filter_map(|v| Scalar::from_number(dtype, Number::Int(v)))
            .collect();
    }
    // Zeros, one, infinities, quiet and signalling NaNs with payloads, the
    // smallest and largest subnormals, the largest finite number, all bits set.
    let (width, mantissa) = match dtype {
        DType::F16 => (16, 10),
        DType::BF16 => (16, 7),
        DType::F32 => (32, 23),
        _ => (64, 52),
    };
    let (sign, one, quiet) = (
        1_u64 << (width - 1),
        1_u64 << mantissa,
        1_u64 << (mantissa - 1),
    );
    let infinity = sign - one;
    let bits = [
        0,
        infinity,
        infinity | quiet | 0x2a,
        infinity | 0x15,
        1,
        one - 1,
        infinity - 1,
        sign - 1,
        quiet << 1 | 0x3d,
    ];
    (bits.into_iter())
        .flat_map(|b| [b, b | sign])
        .map(|b| from_bits(dtype, b))
        .collect()
}

fn from_bits(dtype: DType, bits: u64) -> Scalar {
    match dtype {
        DType::Bool => Scalar::Bool(bits & 1 == 1),
        DType::I8 => Scalar::I8(bits as i8),
        DType::U8 => Scalar::U8(bits as u8),
        DType::I16 => Scalar::I16(bits as i16),
        DType::U16 => Scalar::U16(bits as u16),
        DType::I32 => Scalar::I32(bits as i32),
        DType::U32 => Scalar::U32(bits as u32),
        DType::I64 => Scalar::I64(bits as i64),
        DType::U64 => Scalar::U64(bits),
        DType::F16 => Scalar::F16(f16::from_bits(bits as u16)),
        DType::BF16 => Scalar::BF16(bf16::from_bits(bits as u16)),
        DType::F32 => Scalar::F32(f32::from_bits(bits as u32)),
        DType::F64 => Scalar::F64(f64::from_bits(bits)),
    }
}

/// `scalar` as code of this level can take it without changing it: clang's -O0 stores a
/// `__bf16` parameter through a conversion, which quietens a NaN, and with the CPU's own
/// instruction for it, as clang 22 has it, makes a subnormal number zero.
fn takeable(level: OptLevel, scalar: Scalar) -> Scalar {
    match scalar {
        Scalar::BF16(v) if v.is_nan() && level == OptLevel::O0 => {
            Scalar::BF16(bf16::from_bits(v.to_bits() | 0x40))
        }
        Scalar::BF16(v) if v.classify() == FpCategory::Subnormal && level == OptLevel::O0 => {
            Scalar::BF16(bf16::ZERO)
        }
        other => other,
    }
}

/// All recorders as one source, compiled and linked.
fn compiled(compiler: &CCompiler, level: OptLevel, recorders: &[Recorder]) -> Arc<Image> {
    let text: String = recorders.iter().map(Recorder::c).collect();
    load(&object(with(compiler).opt_level(level), &text)).unwrap()
}

#[test]
fn every_argument_of_every_count_arrives_on_both_sides_of_the_trampolines() {
    let mut recorders = Vec::new();
    for count in (0..=40).chain([100, 128, 129, MAX_PARAMS]) {
        for returns in [Returns::Void, Returns::Status] {
            let parts: Vec<Part> = (0..count)
                .map(|i| match i {
                    _ if i == count / 2 => Part::Out,
                    _ if i % 3 == 0 => Part::Buffer,
                    _ => Part::Scalar(DType::U64),
                })
                .collect();
            recorders.push(Recorder {
                returns,
                ..Recorder::new(format!("take{count}_{returns:?}"), parts)
            });
        }
    }
    assert!(
        (1..40).contains(&MAX_TRAMPOLINE_ARGS),
        "both sides are here"
    );
    let compiler = &compilers()[0];
    let image = compiled(compiler, OptLevel::O2, &recorders);
    let mut rng = Rng(1);
    for recorder in &recorders {
        let scalars = (recorder.parts.iter()).filter(|p| matches!(p, Part::Scalar(_)));
        let scalars: Vec<Scalar> = scalars.map(|_| rng.next().into()).collect();
        recorder.check(&image, &scalars, 0);
    }
}

#[test]
fn every_dtype_arrives_bit_for_bit_alone_and_in_company() {
    use Part::{Buffer, Index, Out};
    for compiler in compilers() {
        let mut recorders = Vec::new();
        for dtype in DType::ALL {
            if !takes(&compiler, dtype) {
                eprintln!("{} takes no {dtype}", compiler.path.display());
                continue;
            }
            let it = Part::Scalar(dtype);
            let (int, long) = (Index(DType::I32), Index(DType::I64));
            let mut many = vec![it; 20];
            many[7] = Out;
            let shapes = [
                vec![Out, it],
                vec![it, Out],
                vec![int, Out, it],
                vec![Out, long, it],
                vec![it, Buffer, Out, int],
                vec![Buffer, it, long, Out, it, Buffer],
                // More than there are registers of either kind.
                many,
            ];
            for (i, parts) in shapes.into_iter().enumerate() {
                for convention in [Convention::C, Convention::Packed] {
                    recorders.push(Recorder {
                        convention,
                        ..Recorder::new(format!("{dtype}_{i}_{convention:?}"), parts.clone())
                    });
                }
            }
        }
        for level in [OptLevel::O0, OptLevel::O2] {
            let image = compiled(&compiler, level, &recorders);
            for recorder in &recorders {
                let dtype = recorder.parts.iter().find_map(|p| match p {
                    Part::Scalar(dtype) => Some(*dtype),
                    _ => None,
                });
                let values = extremes(dtype.unwrap());
                let count = recorder.parts.iter();
                let count = count.filter(|p| matches!(p, Part::Scalar(_))).count();
                for start in 0..values.len() {
                    let scalars = values.iter().cycle().skip(start).take(count);
                    let scalars: Vec<Scalar> = scalars.map(|s| takeable(level, *s)).collect();
                    recorder.check(&image, &scalars, i32::MAX as u64 - start as u64);
                }
            }
        }
    }
}

#[test]
fn any_mix_of_kinds_and_dtypes_arrives_in_any_order_and_convention() {
    const SIGNATURES: usize = 128;
    for compiler in compilers() {
        let mut rng = Rng(2);
        let dtypes: Vec<DType> = DType::ALL
            .into_iter()
            .filter(|d| takes(&compiler, *d))
            .collect();
        let recorders: Vec<Recorder> = (0..SIGNATURES)
            .map(|i| {
                let mut parts: Vec<Part> = (0..rng.below(24))
                    .map(|_| match rng.below(4) {
                        0 => Part::Buffer,
                        _ => Part::Scalar(rng.pick(&dtypes)),
                    })
                    .collect();
                parts.insert(rng.below(parts.len() + 1), Part::Out);
                if rng.below(3) > 0 {
                    let index = Part::Index(rng.pick(&[DType::I32, DType::I64]));
                    parts.insert(rng.below(parts.len() + 1), index);
                }
                Recorder {
                    convention: rng.pick(&[Convention::C, Convention::C, Convention::Packed]),
                    returns: rng.pick(&[Returns::Void, Returns::Status]),
                    ..Recorder::new(format!("mix{i}"), parts)
                }
            })
            .collect();
        for level in [OptLevel::O0, OptLevel::O3] {
            let image = compiled(&compiler, level, &recorders);
            for recorder in &recorders {
                for _ in 0..4 {
                    let scalars: Vec<Scalar> = (recorder.parts.iter())
                        .filter_map(|part| match *part {
                            Part::Scalar(dtype) if rng.below(2) == 0 => {
                                Some(rng.pick(&extremes(dtype)))
                            }
                            Part::Scalar(dtype) => Some(from_bits(dtype, rng.next())),
                            _ => None,
                        })
                        .map(|scalar| takeable(level, scalar))
                        .collect();
                    recorder.check(&image, &scalars, rng.next() >> 33);
                }
            }
        }
    }
}

#[test]
fn an_index_of_64_bits_arrives_whole() {
    let recorder = Recorder::new("whole", [Part::Out, Part::Index(DType::I64)]);
    let image = compiled(
        &compilers()[0],
        OptLevel::O2,
        std::slice::from_ref(&recorder),
    );
    let entry = image.function("whole").unwrap().as_ptr();
    let signature = Signature::builder()
        .write(DType::U8, 16)
        .index(DType::I64, 1 << 63)
        .build()
        .unwrap();
    let cif = KernelCif::new(&signature);
    // SAFETY: it writes 16 bytes to `out`, whatever its index.
    let kernel = unsafe { kernel(&image, "whole", signature) };
    for index in [0, 1 << 31, 1 << 32, (1 << 63) - 1] {
        let mut out = [0_u64; 2];
        let address = out.as_mut_ptr().cast::<u8>();
        // SAFETY: `out` has 16 bytes, and nothing else uses it.
        unsafe { kernel.call(&[address], &[], index) };
        assert_eq!(out[1], index);
        out[1] = !0;
        // SAFETY: as above; the entry is that of this signature.
        unsafe { cif.call(entry, &[address as u64, 0], Some(index)) };
        assert_eq!(out[1], index);
    }
}

#[test]
#[should_panic(expected = "no index for a packed call")]
fn an_index_that_cannot_be_patched_into_a_packed_call_is_not_passed_over() {
    extern "C" fn nothing(_: *mut *mut u8, _: *mut i64) {}
    let signature = Signature::builder()
        .index(DType::I64, 4)
        .convention(Convention::Packed)
        .build()
        .unwrap();
    let cif = KernelCif::new(&signature);
    // SAFETY: it takes two pointers and looks at neither.
    unsafe { cif.call(nothing as *const _, &[0, 0], Some(2)) };
}

// ---- Grids and statuses

/// The same kernel behind each way in: a trampoline, libffi (for the sake of a
/// scalar in a floating-point register), and the packed convention. `params` are
/// its C parameters and `values` how its packed form finds them.
fn three_ways(body: &str, returned: &str, index: &str) -> String {
    format!(
        "{returned} trampoline(long long *x, {index} i) {{ {body} }}
         {returned} cif(long long *x, float unused, {index} i) {{ (void)unused; {body} }}
         {returned} packed(void **buffers, long long *values) {{
             long long *x = buffers[0]; {index} i = ({index})values[1]; {body}
         }}"
    )
}

/// The kernels of [`three_ways`], with the scalars that each is launched with.
///
/// # Safety
///
/// The body must touch only the `len` elements of `x`, for each index below
/// `max`.
unsafe fn ways(
    image: &Arc<Image>,
    len: usize,
    (index, max): (DType, u64),
    returns: Returns,
) -> [(Kernel, &'static [Scalar]); 3] {
    let plain = || {
        Signature::builder()
            .read_write(DType::I64, len)
            .returns(returns)
    };
    let unused = || plain().scalar(DType::F32, "unused", Bounds::Any);
    let signature = |b: svod_runtime::signature::SignatureBuilder| b.index(index, max);
    let packed = unused().convention(Convention::Packed);
    // SAFETY: promised by the caller.
    unsafe {
        [
            (
                kernel(image, "trampoline", signature(plain()).build().unwrap()),
                &[],
            ),
            (
                kernel(image, "cif", signature(unused()).build().unwrap()),
                &[Scalar::F32(1.5)],
            ),
            (
                kernel(image, "packed", signature(packed).build().unwrap()),
                &[Scalar::F32(1.5)],
            ),
        ]
    }
}

#[test]
fn each_index_of_a_grid_is_called_once_and_in_order() {
    const MAX: usize = 100;
    for (index, c) in [(DType::I32, "int"), (DType::I64, "long long")] {
        // x[0] counts the calls, x[1..] are the indices in the order of the calls.
        let text = three_ways("x[++x[0]] = i;", "void", c);
        let image = load(&object(with(&compilers()[0]), &text)).unwrap();
        // SAFETY: it writes x[0] and x[n], where n is the number of calls, at
        // most MAX. That calls depend on each other harms nothing here: all of
        // them are made by one thread, one after another.
        let kernels = unsafe { ways(&image, MAX + 1, (index, MAX as u64), Returns::Void) };
        for (kernel, scalars) in kernels {
            for grid in [0, 1, 2, 63, MAX] {
                let mut x = common::zeroed(DType::I64, MAX + 1);
                kernel
                    .launch(&mut [(&mut x).into()], scalars, grid as u64)
                    .unwrap();
                let x = x.as_slice::<i64>().unwrap();
                assert_eq!(x[0], grid as i64, "{} calls", kernel.name());
                assert!(x[1..=grid].iter().copied().eq(0..grid as i64), "{x:?}");
                assert!(x[grid + 1..].iter().all(|&x| x == 0));
            }
        }
    }
}

#[test]
fn a_status_ends_the_launch_and_names_the_index_that_gave_it() {
    for status in [1, -7, i32::MAX, i32::MIN] {
        let body =
            format!("x[i] = 1; return i == 3 ? {status} : 0;").replace("-2147483648", "1 << 31");
        let text = three_ways(&body, "int", "int");
        let image = load(&object(with(&compilers()[0]), &text)).unwrap();
        // SAFETY: it writes x[i], and the index is below 6.
        for (kernel, scalars) in unsafe { ways(&image, 6, (DType::I32, 6), Returns::Status) } {
            let mut x = common::zeroed(DType::I64, 6);
            kernel.launch(&mut [(&mut x).into()], scalars, 3).unwrap();
            assert_eq!(x.as_slice::<i64>().unwrap(), [1, 1, 1, 0, 0, 0]);

            let mut x = common::zeroed(DType::I64, 6);
            let failed = kernel
                .launch(&mut [(&mut x).into()], scalars, 6)
                .unwrap_err();
            let name = kernel.name();
            assert!(
                matches!(&failed, Error::KernelStatus { kernel, op: None, status: s, index: 3 }
                    if kernel == name && *s == status),
                "{failed}"
            );
            let text = failed.to_string();
            for part in [&format!("`{name}`"), &format!("status {status}"), "index 3"] {
                assert!(text.contains(part), "{text}");
            }
            assert_eq!(x.as_slice::<i64>().unwrap(), [1, 1, 1, 1, 0, 0], "{name}");
        }
    }
}

// ---- Threads

/// A kernel of `args` integer and pointer arguments, or of one more that is a
/// float: `out[i] = i * a1 + … `, where `out` is the first argument and `i`, the
/// index, the last.
fn summing(args: usize, float: bool) -> (String, String, Signature) {
    let name = format!("sum{args}{}", if float { "f" } else { "" });
    let mut signature = Signature::builder().write(DType::I64, 64);
    let (mut params, mut sum) = (String::from("long long *out"), String::from("0"));
    for i in 1..args - 1 {
        signature = signature.scalar(DType::I64, format!("a{i}"), Bounds::Any);
        let _ = write!(params, ", long long a{i}");
        let _ = write!(sum, " + a{i}");
    }
    if float {
        signature = signature.scalar(DType::F64, "f", Bounds::Any);
        params.push_str(", double f");
        sum.push_str(" + (long long)f");
    }
    let text = format!("void {name}({params}, int i) {{ out[i] = i * ({sum}); }}\n");
    (name, text, signature.index(DType::I32, 64).build().unwrap())
}

#[test]
fn threads_share_a_kernel_and_a_call_interface_and_get_their_own_results() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 500;
    let shapes = [(5, false), (5, true), (40, false), (100, true)];
    let text: String = shapes.iter().map(|&(n, f)| summing(n, f).1).collect();
    let image = load(&object(with(&compilers()[0]), &text)).unwrap();
    for (args, float) in shapes {
        let (name, _, signature) = summing(args, float);
        // SAFETY: it writes out[i], for `i` below 64.
        let kernel = unsafe { kernel(&image, &name, signature) };
        let cif = KernelCif::new(kernel.signature());
        let entry = image.function(&name).unwrap().as_ptr() as usize;
        let scalars: Vec<u64> = (kernel.signature().scalars().enumerate())
            .map(|(i, p)| match p.dtype {
                DType::F64 => Scalar::F64(1000.0).to_slot(),
                _ => i as u64,
            })
            .collect();
        let each: i64 = (args as i64 - 3) * (args as i64 - 2) / 2 + i64::from(float) * 1000;
        let mut shared = [0_i64; 64];
        let address = shared.as_mut_ptr() as usize;
        let mut shared_slots = vec![address as u64];
        shared_slots.extend(&scalars);
        shared_slots.push(0);
        let shared_slots = &shared_slots;
        let (kernel, cif, scalars) = (&kernel, &cif, &scalars);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut own = [0_i64; 64];
                    let buffer = own.as_mut_ptr();
                    let mut call = Call::new(kernel);
                    call.set_buffer(0, buffer.cast());
                    (scalars.iter().enumerate()).for_each(|(i, &s)| call.set_scalar(i, s));
                    for round in 0..ROUNDS {
                        let index = (round * THREADS + thread) % 64;
                        for prepared in [false, true] {
                            // SAFETY: `own` has 64 elements, which only this
                            // thread uses, and the index is below 64.
                            let got = unsafe {
                                buffer.add(index as usize).write(-1);
                                if prepared {
                                    call.call_at(index);
                                } else {
                                    kernel.call(&[buffer.cast()], scalars, index);
                                }
                                buffer.add(index as usize).read()
                            };
                            assert_eq!(got, index as i64 * each, "thread {thread}");
                        }
                        // SAFETY: no two threads have the same index, as `THREADS`
                        // divides 64, so that each element has one writer.
                        unsafe { cif.call(entry as *const c_void, shared_slots, Some(index)) };
                    }
                });
            }
        });
        let expected: Vec<i64> = (0..64).map(|i| i * each).collect();
        assert_eq!(shared.as_slice(), expected, "{name}");
    }
}

// ---- Calls inside calls

/// What a kernel that calls back gets as an argument: how to go one level down.
struct Nest<'a> {
    kernel: &'a Kernel,
    cif: KernelCif,
    entry: *const c_void,
    call: &'a Call,
    way: usize,
    float: bool,
}

impl Nest<'_> {
    const WAYS: [&'static str; 4] = ["Kernel::call", "KernelCif::call", "Call", "Call, the same"];

    /// # Safety
    ///
    /// `out` must be valid for writes of `depth + 1` elements.
    unsafe fn enter(&self, out: *mut i64, depth: i64) {
        let mut scalars = vec![std::ptr::from_ref(self) as u64, depth.cast_unsigned()];
        if self.float {
            scalars.push(Scalar::F64(depth as f64).to_slot());
        }
        let mut slots = vec![out as u64];
        slots.extend(&scalars);
        // SAFETY: the arguments are those of the kernel's signature, and promised
        // by the caller.
        unsafe {
            match self.way {
                0 => self.kernel.call(&[out.cast()], &scalars, 0),
                1 => self.cif.call(self.entry, &slots, None),
                2 => {
                    let mut call = Call::new(self.kernel);
                    call.set_buffer(0, out.cast());
                    (scalars.iter().enumerate()).for_each(|(i, &s)| call.set_scalar(i, s));
                    call.call()
                }
                // One that is being made already, with what it was packed with:
                // its depth is 0, so that it ends.
                _ => self.call.call(),
            }
        };
    }
}

/// # Safety
///
/// As [`Nest::enter`].
unsafe extern "C" fn go_down(nest: &Nest<'_>, out: *mut i64, depth: i64) {
    // SAFETY: promised by the caller.
    unsafe { nest.enter(out, depth) }
}

/// Runtime, kernel, and its entry, that goes down `depth` levels through
/// `go_down` and writes on its way back what only its own arguments tell.
fn nesting(float: bool) -> (Kernel, *const c_void) {
    // The kernel gives its entry's address away when it is asked for it.
    let (param, value) = if float {
        (", double f", "(long long)f")
    } else {
        ("", "depth")
    };
    let text = format!(
        "extern void go_down(void *, long long *, long long);
         void nest(long long *out, void *how, long long depth{param}) {{
             if (depth < 0) {{ *out = (long long)nest; return; }}
             out[depth] = depth;
             if (depth > 0) go_down(how, out, depth - 1);
             out[depth] = out[depth] * 1000 + {value} * 10 + (depth > 0 ? out[depth - 1] % 10 + 1 : 0);
         }}"
    );
    let builder = with(&compilers()[0]);
    // SAFETY: a function of the type that the source declares, which is always
    // there.
    let builder = unsafe { builder.symbol("go_down", go_down as *const c_void) };
    let runtime = builder.build().unwrap();
    let mut signature = Signature::builder()
        .read_write(DType::I64, 8)
        .scalar(DType::U64, "how", Bounds::Unstated)
        .scalar(DType::I64, "depth", Bounds::integers(-1, 7));
    if float {
        signature = signature.scalar(DType::F64, "f", Bounds::Any);
    }
    let source = Source::c("nest", text);
    // SAFETY: it touches out[0..=depth], which is within 8, or out[0].
    let kernel = unsafe { runtime.load(&source, signature.build().unwrap()) }.unwrap();
    let mut entry = 0_i64;
    let depth = (-1_i64).cast_unsigned();
    let scalars = [0, depth, 0];
    let scalars = &scalars[..kernel.signature().scalars().count()];
    // SAFETY: with this depth it writes out[0] and nothing else.
    unsafe { kernel.call(&[(&raw mut entry).cast()], scalars, 0) };
    (kernel, entry as *const c_void)
}

#[test]
fn a_kernel_may_launch_itself_from_inside_many_levels_deep() {
    for float in [false, true] {
        let (kernel, entry) = nesting(float);
        let mut bottom = [0_i64; 8];
        let mut same = Call::new(&kernel);
        same.set_buffer(0, bottom.as_mut_ptr().cast());
        for (way, name) in Nest::WAYS.into_iter().enumerate() {
            let nest = Nest {
                kernel: &kernel,
                cif: KernelCif::new(kernel.signature()),
                entry,
                call: &same,
                way,
                float,
            };
            let mut out = [-1_i64; 8];
            let deep = if way == 3 { 0 } else { 7 };
            // SAFETY: `out` has 8 elements, and depth is at most 7.
            unsafe { nest.enter(out.as_mut_ptr(), deep) };
            if way == 3 {
                assert_eq!(bottom[0], 0, "{name}");
                continue;
            }
            let expected: Vec<i64> = (0..8).map(|d| d * 1000 + d * 10 + d).collect();
            assert_eq!(out.as_slice(), expected, "{name}, float: {float}");
        }
    }
}

#[test]
fn a_launch_may_happen_inside_a_launch() {
    /// What the outer kernel is given: the inner one and its buffer.
    struct Inner {
        kernel: Kernel,
        x: Buffer,
    }
    extern "C" fn double(x: *mut i64, i: i32) {
        // SAFETY: called with an index below the 4 elements.
        unsafe { *x.add(i as usize) *= 2 };
    }
    extern "C" fn outer(out: *mut i64, inner: *mut Inner, i: i64) {
        // SAFETY: called with the address of an `Inner` that nothing else uses,
        // and with an index below the 3 elements.
        unsafe {
            let inner = &mut *inner;
            let launched = inner.kernel.launch(&mut [(&mut inner.x).into()], &[], 4);
            *out.add(i as usize) = if launched.is_ok() { i + 1 } else { -1 };
        }
    }
    let signature = Signature::builder()
        .read_write(DType::I64, 4)
        .index(DType::I32, 4);
    // SAFETY: it touches x[i].
    let kernel =
        unsafe { Kernel::from_entry("double", double as *const _, signature.build().unwrap()) };
    let x = common::from_slice(&[1_i64, 2, 3, 4]);
    let mut inner = Inner { kernel, x };
    let signature = Signature::builder()
        .write(DType::I64, 3)
        .scalar(DType::U64, "inner", Bounds::Unstated)
        .index(DType::I64, 3);
    // SAFETY: it writes out[i]; `inner` is up to each launch.
    let kernel =
        unsafe { Kernel::from_entry("outer", outer as *const _, signature.build().unwrap()) };
    let mut out = common::zeroed(DType::I64, 3);
    let scalars = [Scalar::U64(&raw mut inner as u64)];
    // SAFETY: `inner` is the address of one, which nothing else uses meanwhile.
    unsafe { kernel.launch_unbounded(&mut [(&mut out).into()], &scalars, 3) }.unwrap();
    assert_eq!(out.as_slice::<i64>().unwrap(), [1, 2, 3]);
    assert_eq!(inner.x.as_slice::<i64>().unwrap(), [8, 16, 24, 32]);
}

// ---- No allocation

#[test]
fn the_allocations_of_a_thread_are_counted() {
    // One asks for it, the other gives it back.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 2);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn a_call_allocates_nothing_with_any_number_of_arguments() {
    let counts = [2, 5, 20, MAX_TRAMPOLINE_ARGS, 33, 100, 500];
    let shapes: Vec<(usize, bool)> = counts
        .into_iter()
        .flat_map(|n| [(n, false), (n, true)])
        .collect();
    let text: String = shapes.iter().map(|&(n, f)| summing(n, f).1).collect();
    let image = load(&object(with(&compilers()[0]), &text)).unwrap();
    for (args, float) in shapes {
        let (name, _, signature) = summing(args, float);
        let entry = image.function(&name).unwrap().as_ptr();
        // SAFETY: it writes out[i], for `i` below 64.
        let kernel = unsafe { kernel(&image, &name, signature) };
        let cif = KernelCif::new(kernel.signature());
        let mut out = [0_i64; 64];
        let buffers = [out.as_mut_ptr().cast::<u8>()];
        let scalars = vec![1; kernel.signature().scalars().count()];
        let mut slots = vec![buffers[0] as u64];
        slots.extend(&scalars);
        slots.push(0);
        let mut call = Call::new(&kernel);
        call.set_buffer(0, buffers[0]);
        (scalars.iter().enumerate()).for_each(|(i, &s)| call.set_scalar(i, s));
        let mut calls = |times: u64| {
            for index in 0..times {
                // SAFETY: `out` has 64 elements, which nothing else uses, and the
                // index is below 64.
                unsafe {
                    kernel.call(&buffers, &scalars, index);
                    call.call_at(index);
                    call.call();
                    call.run(times).unwrap();
                    cif.call(entry, &slots, Some(index));
                    cif.call(entry, &slots, None);
                }
            }
        };
        calls(1);
        assert_eq!(allocations(|| calls(64)), 0, "{name}");
    }
}

#[test]
fn a_call_inside_a_call_allocates_nothing() {
    extern "C" fn down(nest: &Down, out: *mut i64, depth: i64, f: f64) {
        // SAFETY: called with arguments of the kernel's signature.
        unsafe { (nest.enter)(nest, out, depth - 1, f + 0.5) };
    }
    struct Down {
        kernel: Kernel,
        cif: KernelCif,
        entry: *const c_void,
        enter: unsafe fn(&Down, *mut i64, i64, f64),
    }
    /// # Safety
    ///
    /// `out` must be valid for a write.
    unsafe fn by_kernel(nest: &Down, out: *mut i64, depth: i64, f: f64) {
        let scalars = [
            std::ptr::from_ref(nest) as u64,
            depth.cast_unsigned(),
            f.to_bits(),
        ];
        // SAFETY: promised by the caller.
        unsafe { nest.kernel.call(&[out.cast()], &scalars, 0) };
    }
    /// # Safety
    ///
    /// As `by_kernel`.
    unsafe fn by_cif(nest: &Down, out: *mut i64, depth: i64, f: f64) {
        let nested = std::ptr::from_ref(nest) as u64;
        let slots = [out as u64, nested, depth.cast_unsigned(), f.to_bits()];
        // SAFETY: promised by the caller.
        unsafe { nest.cif.call(nest.entry, &slots, None) };
    }
    extern "C" fn step(out: *mut i64, nest: &Down, depth: i64, f: f64) {
        if depth > 0 {
            down(nest, out, depth, f);
        } else {
            // SAFETY: `out` is valid for a write, as `enter` was promised.
            unsafe { *out = (f * 2.0) as i64 };
        }
    }
    let signature = || {
        Signature::builder()
            .write(DType::I64, 1)
            .scalar(DType::U64, "nest", Bounds::Unstated)
            .scalar(DType::I64, "depth", Bounds::Any)
            .scalar(DType::F64, "f", Bounds::Any)
            .build()
            .unwrap()
    };
    let entry = step as *const c_void;
    // SAFETY: it writes out[0]; `nest` is up to each call.
    let kernel = unsafe { Kernel::from_entry("step", entry, signature()) };
    let cif = KernelCif::new(&signature());
    let mut nest = Down {
        kernel,
        cif,
        entry,
        enter: by_kernel,
    };
    for enter in [by_kernel, by_cif] as [unsafe fn(&Down, *mut i64, i64, f64); 2] {
        nest.enter = enter;
        let mut out = 0;
        // SAFETY: `out` is valid for a write.
        let mut run = || unsafe { enter(&nest, &mut out, 6, 1.0) };
        run();
        assert_eq!(allocations(run), 0);
        assert_eq!(out, 8, "six levels add a half each to one, doubled");
    }
}

#[test]
fn checking_a_launch_allocates_nothing() {
    let (_, _, signature) = summing(40, true);
    let scalars: Vec<Scalar> = (signature.scalars())
        .map(|p| from_bits(p.dtype, 1))
        .collect();
    let shape = ArgShape {
        dtype: Some(DType::I64),
        space: 0,
        start: 64,
        bytes: 512,
        writable: true,
    };
    let check = || {
        signature.check_arguments(1, |_| shape).unwrap();
        signature.check_scalars(&scalars).unwrap();
        signature.check_grid(64).unwrap();
    };
    assert_eq!(allocations(check), 0);
}

#[test]
fn a_kernel_outlives_the_runtime_that_made_it() {
    let source = Source::c("put", "void put(int *x, int v) { *x = v; }");
    let signature = Signature::builder()
        .write(DType::I32, 1)
        .scalar(DType::I32, "v", Bounds::Any);
    let kernel = {
        let runtime: Runtime = with(&compilers()[0]).build().unwrap();
        // SAFETY: it writes x[0].
        unsafe { runtime.load(&source, signature.build().unwrap()) }.unwrap()
    };
    let call = Call::new(&kernel);
    let clone = kernel.clone();
    drop(kernel);
    let mut x = common::zeroed(DType::I32, 1);
    clone
        .launch(&mut [(&mut x).into()], &[5.into()], 1)
        .unwrap();
    assert_eq!(x.as_slice::<i32>().unwrap(), [5]);
    drop(clone);
    let mut call = call;
    let mut y = 0_i32;
    call.set_buffer(0, (&raw mut y).cast());
    call.set_scalar(0, Scalar::I32(-6).to_slot());
    // SAFETY: both arguments are set, and y is valid for a write.
    unsafe { call.call() };
    assert_eq!(y, -6);
}
