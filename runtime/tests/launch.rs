//! A checked launch: what fits the signature runs where the memory lies, and
//! what does not is refused before anything has run.
//!
//! The kernels here are functions of this program, so that no compiler is needed.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ptr::NonNull;

use half::f16;
use svod_runtime::signature::{ArgShape, Convention, Misuse, Number};
use svod_runtime::{Arg, Bounds, DType, Error, Kernel, Scalar, Signature, View, ViewMut};

const LEN: usize = 8;

/// `y[i] += a * x[i + from]`, of which `x` has twice as many elements.
extern "C" fn axpy(y: *mut f32, x: *const f32, a: f32, from: i32, i: i32) {
    let (from, i) = (from as usize, i as usize);
    // SAFETY: called through a kernel whose signature promises `LEN` elements of
    // `y`, `2 * LEN` of `x`, `from` up to `LEN` and `i` below it.
    unsafe { *y.add(i) += a * *x.add(i + from) };
}

fn axpy_signature() -> Signature {
    Signature::builder()
        .read_write(DType::F32, LEN)
        .read(DType::F32, 2 * LEN)
        .scalar(DType::F32, "a", Bounds::floats(-2.0, 2.0))
        .scalar(DType::I32, "from", Bounds::integers(0, LEN as i128))
        .index(DType::I32, LEN as u64)
        .build()
        .unwrap()
}

fn axpy_kernel() -> Kernel {
    // SAFETY: for each `i` below `LEN` and each `from` up to `LEN` it touches
    // y[i] and x[i + from], which is within 2 * LEN, and writes only the first.
    unsafe { Kernel::from_entry("axpy", axpy as *const _, axpy_signature()) }
}

/// A kernel that does nothing, for signatures that are only checked.
fn idle(signature: Signature) -> Kernel {
    extern "C" fn nothing() {}
    // SAFETY: it takes no argument and touches nothing; C lets a caller pass
    // arguments in registers, and on a stack that the caller cleans, to a
    // function that looks at none of them.
    unsafe { Kernel::from_entry("idle", nothing as *const _, signature) }
}

fn misuse(result: Result<(), Error>) -> Misuse {
    match result {
        Err(Error::Launch { kernel, misuse }) => {
            let text = Error::Launch {
                kernel: kernel.clone(),
                misuse: misuse.clone(),
            }
            .to_string();
            assert!(text.contains(&format!("`{kernel}`")), "{text}");
            assert!(text.contains(&misuse.to_string()), "{text}");
            *misuse
        }
        other => panic!("a refused launch, not {other:?}"),
    }
}

/// Memory of the caller's that begins at a multiple of 64 bytes.
#[repr(C, align(64))]
struct Aligned<T, const N: usize>([T; N]);

#[test]
fn what_fits_runs_for_each_index_of_the_grid() {
    let kernel = axpy_kernel();
    let x = common::from_slice(&std::array::from_fn::<f32, { 2 * LEN }, _>(|i| i as f32));
    let mut y = common::zeroed(DType::F32, LEN);
    // Both ends of every bound.
    for (grid, a, from) in [(0, 1.0, 0), (1, -2.0, 8), (8, 2.0, 8), (8, -0.5, 0)] {
        y.as_mut_slice::<f32>().unwrap().fill(1.0);
        let scalars = [Scalar::F32(a), Scalar::I32(from)];
        kernel
            .launch(&mut [Arg::from(&mut y), Arg::from(&x)], &scalars, grid)
            .unwrap();
        let expected: Vec<f32> = (0..LEN)
            .map(|i| match (i as u64) < grid {
                true => 1.0 + a * (i as i32 + from) as f32,
                false => 1.0,
            })
            .collect();
        assert_eq!(y.as_slice::<f32>().unwrap(), expected, "grid {grid}");
    }
}

#[test]
fn each_misuse_is_refused_by_name_and_nothing_has_run() {
    type Launch<'a> = &'a dyn Fn(ViewMut<'_>) -> Result<(), Error>;
    let kernel = axpy_kernel();
    let x = common::from_slice(&[1.0_f32; 2 * LEN]);
    let long = Aligned([1.0_f32; 2 * LEN + 4]);
    let ints = common::zeroed(DType::I32, 2 * LEN);
    let read = || Arg::from(&x);
    let good = [Scalar::F32(1.0), Scalar::I32(0)];

    let check = |expected: Misuse, launch: Launch<'_>| {
        let mut y = Aligned([7.0_f32; LEN]);
        let got = misuse(launch(ViewMut::from_slice(&mut y.0)));
        assert_eq!(got, expected);
        assert_eq!(y.0, [7.0; LEN], "{expected}: something has run");
    };
    let check_scalar = |expected: Misuse, position: usize, value: Scalar| {
        let mut scalars = good;
        scalars[position] = value;
        check(expected, &|y| {
            kernel.launch(&mut [y.into(), read()], &scalars, 8)
        });
    };

    for got in [0, 1, 3] {
        check(Misuse::ArgumentCount { expected: 2, got }, &|y| {
            let mut args = [y.into(), read(), read()];
            kernel.launch(&mut args[..got], &good, 8)
        });
        check(Misuse::ScalarCount { expected: 2, got }, &|y| {
            let scalars = [good[0], good[1], good[1]];
            kernel.launch(&mut [y.into(), read()], &scalars[..got], 8)
        });
    }
    let dtype = Misuse::DType {
        argument: 1,
        expected: DType::F32,
        got: DType::I32,
    };
    check(dtype, &|y| {
        kernel.launch(&mut [y.into(), Arg::from(&ints)], &good, 8)
    });
    let short = |argument, expected, got| Misuse::TooShort {
        argument,
        expected,
        got,
    };
    check(short(0, 4 * LEN, 4 * (LEN - 1)), &|y| {
        let y = y.slice(0..LEN - 1).unwrap();
        kernel.launch(&mut [y.into(), read()], &good, 1)
    });
    check(short(1, 8 * LEN, 4 * LEN), &|y| {
        let x = x.view(LEN..2 * LEN).unwrap();
        kernel.launch(&mut [y.into(), x.into()], &good, 1)
    });
    for by in [1, 2, 3] {
        let misaligned = Misuse::Misaligned {
            argument: 1,
            expected: 16,
            misaligned_by: 4 * by,
        };
        check(misaligned, &|y| {
            let x = View::from_slice(&long.0[by..]);
            kernel.launch(&mut [y.into(), x.into()], &good, 8)
        });
    }
    check(Misuse::ReadOnly { argument: 0 }, &|y| {
        let y = y.as_view().into();
        kernel.launch(&mut [y, read()], &good, 8)
    });
    for (position, expected, value) in [
        (0, DType::F32, Scalar::F64(1.0)),
        (0, DType::F32, Scalar::I32(1)),
        (1, DType::I32, Scalar::I64(0)),
        (1, DType::I32, Scalar::U32(0)),
    ] {
        let name = ["a", "from"][position].into();
        let got = value.dtype();
        let misuse = Misuse::ScalarType {
            name,
            expected,
            got,
        };
        check_scalar(misuse, position, value);
    }
    for (position, value) in [
        (0, Scalar::F32(2.000_001)),
        (0, Scalar::F32(f32::NEG_INFINITY)),
        (1, Scalar::I32(-1)),
        (1, Scalar::I32(LEN as i32 + 1)),
        (1, Scalar::I32(i32::MIN)),
    ] {
        let bounds = [Bounds::floats(-2.0, 2.0), Bounds::integers(0, LEN as i128)];
        let misuse = Misuse::ScalarRange {
            name: ["a", "from"][position].into(),
            value: value.number(),
            bounds: bounds[position],
        };
        check_scalar(misuse, position, value);
    }
    for grid in [LEN as u64 + 1, u64::MAX] {
        let max = LEN as u64;
        check(Misuse::Grid { grid, max }, &|y| {
            kernel.launch(&mut [y.into(), read()], &good, grid)
        });
    }
}

#[test]
fn a_nan_lies_in_no_range() {
    let mut y = common::zeroed(DType::F32, LEN);
    let x = common::zeroed(DType::F32, 2 * LEN);
    let scalars = [Scalar::F32(f32::NAN), Scalar::I32(0)];
    let got = misuse(axpy_kernel().launch(&mut [(&mut y).into(), (&x).into()], &scalars, 1));
    assert!(matches!(got, Misuse::ScalarRange { name, .. } if name == "a"));
}

#[test]
fn a_kernel_without_an_index_runs_once_or_not_at_all() {
    extern "C" fn increment(x: *mut i64) {
        // SAFETY: called with a buffer of one element.
        unsafe { *x += 1 };
    }
    let signature = Signature::builder()
        .read_write(DType::I64, 1)
        .build()
        .unwrap();
    // SAFETY: it reads and writes x[0].
    let kernel = unsafe { Kernel::from_entry("increment", increment as *const _, signature) };
    let mut x = common::zeroed(DType::I64, 1);
    for grid in [2, 3, u64::MAX] {
        let got = misuse(kernel.launch(&mut [(&mut x).into()], &[], grid));
        assert_eq!(got, Misuse::GridWithoutIndex { grid });
    }
    assert_eq!(x.as_slice::<i64>().unwrap(), [0]);
    for (grid, count) in [(0, 0), (1, 1), (1, 2)] {
        kernel.launch(&mut [(&mut x).into()], &[], grid).unwrap();
        assert_eq!(x.as_slice::<i64>().unwrap(), [count]);
    }
}

#[test]
fn a_scalar_without_bounds_takes_the_unsafe_launch() {
    extern "C" fn put(x: *mut i32, at: u8, value: i32) {
        // SAFETY: called with `at` below the four elements of `x`.
        unsafe { *x.add(at.into()) = value };
    }
    let signature = Signature::builder()
        .write(DType::I32, 4)
        .scalar(DType::U8, "at", Bounds::Unstated)
        .scalar(DType::I32, "value", Bounds::integers(0, 100))
        .build()
        .unwrap();
    // SAFETY: it writes x[at], and that `at` is below 4 is left to each launch.
    let kernel = unsafe { Kernel::from_entry("put", put as *const _, signature) };
    let mut x = common::zeroed(DType::I32, 4);
    let scalars = [Scalar::U8(2), Scalar::I32(50)];
    let got = misuse(kernel.launch(&mut [(&mut x).into()], &scalars, 1));
    assert_eq!(got, Misuse::Unbounded { name: "at".into() });
    assert!(got.to_string().contains("unsafe"), "says what to do: {got}");
    assert_eq!(x.as_slice::<i32>().unwrap(), [0; 4]);

    // SAFETY: `at` is 2, and x has 4 elements.
    unsafe { kernel.launch_unbounded(&mut [(&mut x).into()], &scalars, 1) }.unwrap();
    assert_eq!(x.as_slice::<i32>().unwrap(), [0, 0, 50, 0]);

    // Everything else is checked as ever.
    let scalars = [Scalar::U8(2), Scalar::I32(101)];
    // SAFETY: as above.
    let got = unsafe { kernel.launch_unbounded(&mut [(&mut x).into()], &scalars, 1) };
    assert!(matches!(misuse(got), Misuse::ScalarRange { name, .. } if name == "value"));
    assert_eq!(x.as_slice::<i32>().unwrap(), [0, 0, 50, 0]);
}

#[test]
fn every_dtype_is_told_from_every_other() {
    for expected in DType::ALL {
        let signature = Signature::builder()
            .read(expected, 2)
            .scalar(expected, "s", Bounds::Any)
            .build()
            .unwrap();
        let kernel = idle(signature);
        for got in DType::ALL {
            let x = common::zeroed(got, 16);
            let zero = Scalar::from_number(got, Number::Int(0)).unwrap();
            let of_expected = Scalar::from_number(expected, Number::Int(0)).unwrap();
            let result = kernel.launch(&mut [(&x).into()], &[of_expected], 1);
            let scalar = kernel.signature().check_scalars(&[zero]);
            if got == expected {
                result.unwrap();
                scalar.unwrap();
            } else {
                let argument = 0;
                let mismatch = Misuse::DType {
                    argument,
                    expected,
                    got,
                };
                assert_eq!(misuse(result), mismatch);
                let name = "s".into();
                assert_eq!(
                    scalar,
                    Err(Misuse::ScalarType {
                        name,
                        expected,
                        got
                    })
                );
            }
        }
    }
}

#[test]
fn a_slice_that_is_aligned_is_used_where_it_lies() {
    let x = Aligned(std::array::from_fn::<f32, 40, _>(|i| i as f32));
    let mut y = Aligned([0.5_f32; 24]);
    // A part that begins at 32 bytes is as aligned as 16 asks for.
    axpy_kernel()
        .launch(
            &mut [
                ViewMut::from_slice(&mut y.0[8..16]).into(),
                View::from_slice(&x.0[4..]).into(),
            ],
            &[Scalar::F32(1.0), Scalar::I32(3)],
            8,
        )
        .unwrap();
    for (i, got) in y.0.into_iter().enumerate() {
        let inside = (8..16).contains(&i);
        let expected = if inside {
            0.5 + (i - 8 + 4 + 3) as f32
        } else {
            0.5
        };
        assert_eq!(got, expected, "y[{i}]");
    }
}

/// Such as that of a compiler's own allocator, which knows addresses and no slices.
#[test]
fn memory_that_is_known_by_its_address_is_used_where_it_lies_and_checked_alike() {
    let kernel = axpy_kernel();
    let mut y = Aligned([1.0_f32; LEN]);
    let mut x = Aligned([2.0_f32; 2 * LEN + 1]);
    let (y_start, x_start) = (NonNull::from(&mut y).cast(), NonNull::from(&mut x).cast());
    let scalars = [Scalar::F32(0.5), Scalar::I32(0)];
    let launch = |y: ViewMut<'_>, x: View<'_>| {
        kernel.launch(&mut [Arg::from(y), Arg::from(x)], &scalars, LEN as u64)
    };
    // SAFETY: both live until the end, and nothing but the launches uses them until
    // the last; where the arguments overlap, nothing runs.
    unsafe {
        let y = || ViewMut::from_raw(y_start, DType::F32, LEN);
        launch(y(), View::from_raw(x_start, DType::F32, 2 * LEN)).unwrap();
        let refused = launch(y(), View::from_raw(x_start, DType::F32, LEN));
        assert!(matches!(misuse(refused), Misuse::TooShort { .. }));
        let odd = View::from_raw(x_start.byte_add(4), DType::F32, 2 * LEN);
        assert!(matches!(
            misuse(launch(y(), odd)),
            Misuse::Misaligned { .. }
        ));
        let inside = ViewMut::from_raw(x_start.byte_add(4 * LEN), DType::F32, LEN);
        let refused = launch(inside, View::from_raw(x_start, DType::F32, 2 * LEN));
        assert!(matches!(misuse(refused), Misuse::Overlap { .. }));
    }
    assert_eq!(y.0, [2.0; LEN]);
}

#[test]
fn views_of_one_buffer_that_share_nothing_go_to_one_launch() {
    let mut both = common::zeroed(DType::F32, 4 * LEN);
    both.as_mut_slice::<f32>().unwrap().fill(3.0);
    let (y, x) = both.as_view_mut().split_at(2 * LEN).unwrap();
    let mut args = [y.slice(4..4 + LEN).unwrap().into(), Arg::from(x.as_view())];
    axpy_kernel()
        .launch(&mut args, &[Scalar::F32(2.0), Scalar::I32(0)], 2)
        .unwrap();
    let got = both.as_slice::<f32>().unwrap();
    for (i, &got) in got.iter().enumerate() {
        let expected = if (4..6).contains(&i) { 9.0 } else { 3.0 };
        assert_eq!(got, expected, "element {i}");
    }
}

#[test]
fn the_alignment_that_a_parameter_states_is_the_one_that_is_asked_for() {
    let bytes = common::aligned(DType::U8, 8192, 4096);
    for align in [1, 2, 16, 64, 128, 4096] {
        let signature = Signature::builder()
            .read(DType::U8, 1)
            .align(align)
            .build()
            .unwrap();
        let kernel = idle(signature);
        for offset in [0, 1, 2, 15, 16, 64, 128, 2048, 4096] {
            let view = bytes.view(offset..8192).unwrap();
            let result = kernel.launch(&mut [view.into()], &[], 1);
            if offset % align == 0 {
                result.unwrap();
            } else {
                let misaligned = Misuse::Misaligned {
                    argument: 0,
                    expected: align,
                    misaligned_by: offset % align,
                };
                assert_eq!(misuse(result), misaligned);
            }
        }
    }
}

#[test]
fn arguments_overlap_where_they_share_a_byte_and_one_is_written() {
    let signature = Signature::builder()
        .write(DType::U8, 4)
        .align(1)
        .read(DType::U8, 4)
        .align(1)
        .read(DType::U8, 4)
        .align(1)
        .read_write(DType::U8, 4)
        .align(1)
        .build()
        .unwrap();
    let shape = |space, start, bytes| ArgShape {
        dtype: Some(DType::U8),
        space,
        start,
        bytes,
        writable: true,
    };
    let apart = [
        shape(0, 0, 4),
        shape(0, 4, 4),
        shape(0, 8, 4),
        shape(0, 12, 4),
    ];
    assert_eq!(signature.check_arguments(4, |i| apart[i]), Ok(()));
    for (moved, to, expected) in [
        (1, shape(0, 1, 4), Some((0, 1))),
        (1, shape(0, 3, 5), Some((0, 1))),
        (0, shape(0, 0, 5), Some((0, 1))),
        (3, shape(0, 11, 4), Some((2, 3))),
        (0, shape(0, 0, 16), Some((0, 1))),
        (3, shape(0, 0, 4), Some((0, 3))),
        // Two that are only read may share all they like.
        (2, shape(0, 4, 4), None),
        (2, shape(0, 5, 7), None),
        // Other memory.
        (1, shape(1, 0, 4), None),
    ] {
        let mut args = apart;
        args[moved] = to;
        let expected = match expected {
            Some((first, second)) => Err(Misuse::Overlap { first, second }),
            None => Ok(()),
        };
        let got = signature.check_arguments(4, |i| args[i]);
        assert_eq!(got, expected, "argument {moved} at {to:?}");
    }
}

#[test]
fn an_argument_without_bytes_overlaps_none() {
    let shape = |start, bytes| ArgShape {
        dtype: None,
        space: 0,
        start,
        bytes,
        writable: true,
    };
    let whole = shape(16, 16);
    for start in [0, 16, 20, 31, 32, 40] {
        assert!(!shape(start, 0).overlaps(&whole), "empty at {start}");
        assert!(!whole.overlaps(&shape(start, 0)), "empty at {start}");
        assert!(!shape(start, 0).overlaps(&shape(start, 0)));
    }
}

#[test]
fn untyped_bytes_fit_any_dtype_and_a_read_may_be_of_writable_memory() {
    let signature = axpy_signature();
    let shape = |start, bytes, writable| ArgShape {
        dtype: None,
        space: 0,
        start,
        bytes,
        writable,
    };
    let args = [shape(0, 4 * LEN, true), shape(4 * LEN, 8 * LEN, true)];
    signature.check_arguments(2, |i| args[i]).unwrap();
    let args = [shape(0, 4 * LEN, false), shape(4 * LEN, 8 * LEN, true)];
    let refused = signature.check_arguments(2, |i| args[i]);
    assert_eq!(refused, Err(Misuse::ReadOnly { argument: 0 }));
}

#[test]
fn a_kernel_that_writes_a_part_leaves_the_rest_as_it_was() {
    extern "C" fn row(cache: *mut f16, values: *const f16, at: i64, i: i64) {
        let (at, i) = (at as usize, i as usize);
        // SAFETY: `at` is below 4 and `i` below 8, of 4 rows of 8 elements.
        unsafe { *cache.add(at * 8 + i) = *values.add(i) };
    }
    let signature = Signature::builder()
        .write(DType::F16, 32)
        .read(DType::F16, 8)
        .scalar(DType::I64, "at", Bounds::integers(0, 3))
        .index(DType::I64, 8)
        .build()
        .unwrap();
    // SAFETY: for each `at` and index it writes one element of the cache, within
    // its 32, and reads one of 8.
    let kernel = unsafe { Kernel::from_entry("row", row as *const _, signature) };
    let old: Vec<f16> = (0..32).map(|i| f16::from_bits(0x7c00 + i)).collect();
    let new: Vec<f16> = (0..8).map(|i| f16::from_bits(0x8000 + i)).collect();
    let mut cache = common::from_slice(&old);
    let values = common::from_slice(&new);
    let mut args = [Arg::from(&mut cache), Arg::from(&values)];
    kernel.launch(&mut args, &[Scalar::I64(2)], 8).unwrap();
    let bits = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let got = bits(cache.as_slice::<f16>().unwrap());
    let mut expected = bits(&old);
    expected[16..24].copy_from_slice(&bits(&new));
    assert_eq!(got, expected);
}

#[test]
fn a_parameter_without_elements_takes_an_empty_buffer_or_view() {
    let signature = Signature::builder()
        .write(DType::F32, 0)
        .read(DType::F32, 0)
        .build()
        .unwrap();
    let kernel = idle(signature);
    let mut nothing = common::zeroed(DType::F32, 0);
    let empty = common::zeroed(DType::F32, 0);
    let mut some = common::from_slice(&[1.0_f32; 8]);
    kernel
        .launch(&mut [(&mut nothing).into(), (&empty).into()], &[], 1)
        .unwrap();
    let (left, right) = some.as_view_mut().split_at(4).unwrap();
    let part = right.as_view().slice(0..0).unwrap();
    kernel
        .launch(&mut [left.into(), part.into()], &[], 1)
        .unwrap();
    // Longer than the parameter is no misuse.
    kernel
        .launch(&mut [(&mut some).into(), (&empty).into()], &[], 1)
        .unwrap();
    // Nothing is assumed of the address of no elements.
    let view = View::from_slice::<f32>(&[]);
    kernel
        .launch(&mut [(&mut nothing).into(), view.into()], &[], 1)
        .unwrap();
}

#[test]
fn bools_arrive_as_bytes_of_zero_and_one() {
    extern "C" fn invert(out: *mut u8, mask: *const u8, i: i32) {
        let i = i as usize;
        // SAFETY: `i` is below the three elements of both.
        unsafe { *out.add(i) = 1 - *mask.add(i) };
    }
    let signature = Signature::builder()
        .write(DType::Bool, 3)
        .read(DType::Bool, 3)
        .index(DType::I32, 3)
        .build()
        .unwrap();
    // SAFETY: it reads mask[i] and writes out[i], which stays 0 or 1.
    let kernel = unsafe { Kernel::from_entry("invert", invert as *const _, signature) };
    let mask = Aligned([true, false, true]);
    let mut out = common::zeroed(DType::Bool, 3);
    let mut args = [Arg::from(&mut out), View::from_bools(&mask.0).into()];
    kernel.launch(&mut args, &[], 3).unwrap();
    assert_eq!(out.as_slice::<u8>().unwrap(), [0, 1, 0]);

    let bytes = Aligned([2_u8; 3]);
    let mut args = [Arg::from(&mut out), View::from_slice(&bytes.0).into()];
    let got = misuse(kernel.launch(&mut args, &[], 3));
    assert!(matches!(got, Misuse::DType { argument: 1, .. }), "{got}");
}

#[test]
fn the_packed_convention_is_checked_like_any_other() {
    extern "C" fn put(buffers: *const *mut i64, values: *const i64) {
        // SAFETY: called with one buffer of three elements, a value, and an index
        // below 3.
        unsafe {
            let (value, index) = (*values, *values.add(1));
            *(*buffers).add(index as usize) = value;
        }
    }
    let signature = Signature::builder()
        .scalar(DType::I8, "value", Bounds::integers(-5, 5))
        .write(DType::I64, 3)
        .index(DType::I64, 3)
        .convention(Convention::Packed)
        .build()
        .unwrap();
    // SAFETY: it writes x[index].
    let kernel = unsafe { Kernel::from_entry("put", put as *const _, signature) };
    let mut x = common::zeroed(DType::I64, 3);
    let mut launch = |value, grid| kernel.launch(&mut [(&mut x).into()], &[value], grid);
    let refused = misuse(launch(Scalar::I8(6), 3));
    assert!(matches!(refused, Misuse::ScalarRange { .. }));
    let refused = misuse(launch(Scalar::I8(5), 4));
    assert_eq!(refused, Misuse::Grid { grid: 4, max: 3 });
    launch(Scalar::I8(-5), 2).unwrap();
    assert_eq!(x.as_slice::<i64>().unwrap(), [-5, -5, 0]);
}
