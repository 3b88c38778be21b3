//! Plans built in code: what the builder refuses, what an executable is made
//! of, and that a run does what a plain reading of the plan says.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod support;

use std::ops::Range;
use std::sync::OnceLock;

use proptest::prelude::*;
use svod_runtime::compile::OptLevel;
use svod_runtime::memory::Constant;
use svod_runtime::plan::{
    BufferRange, Executable, Instance, Operator, Plan, PlanBuilder, Role, Value, VariableId,
};
use svod_runtime::{Bounds, DType, Error, Kernel, RuntimeBuilder, Scalar, Signature, Source, View};

use support::{assert_refused, output, runtime};

fn range(buffer: usize, offset: usize, bytes: usize) -> BufferRange {
    BufferRange {
        buffer,
        offset,
        bytes,
    }
}

/// `y[i] = x[i] + k`
fn add_signature() -> Signature {
    let signature = Signature::builder()
        .write(DType::I32, 4)
        .read(DType::I32, 4)
        .scalar(DType::I32, "k", Bounds::integers(0, 9))
        .index(DType::I32, 4);
    signature.build().unwrap()
}

fn add_kernel() -> Kernel {
    let text =
        "void add(int *restrict y, const int *restrict x, int k, int i) { y[i] = x[i] + k; }";
    // SAFETY: for i in [0, 4) it reads x[i] and writes y[i]; `add_signature`
    // says so.
    unsafe { runtime().load(&Source::c("add", text), add_signature()) }.unwrap()
}

/// An input, a constant, a state, a temp and an output of four `i32` each, in
/// this order; the kernel `add`; a variable `v` from 0 to 9.
fn builder() -> (PlanBuilder, VariableId) {
    let mut plan = PlanBuilder::new("parts");
    let v = plan.variable("v", 0, 9).unwrap();
    plan.kernel("add", add_signature());
    for role in Role::ALL {
        let buffer = plan.buffer(Some(role.name()), role, DType::I32, &[4]);
        buffer.unwrap();
    }
    (plan, v)
}

const INPUT: usize = 0;
const CONSTANT: usize = 1;
const STATE: usize = 2;
const TEMP: usize = 3;
const OUTPUT: usize = 4;

fn whole(buffer: usize) -> BufferRange {
    range(buffer, 0, 16)
}

// ---------------------------------------------------------------------------
// Building
// ---------------------------------------------------------------------------

#[test]
fn an_error_names_the_op_and_the_argument() {
    let k = |value: i64| [("k", Value::from(value))];
    let (mut plan, v) = builder();
    plan.fill(whole(TEMP), DType::I32, 0).unwrap();
    plan.copy(whole(INPUT), whole(OUTPUT)).unwrap();
    let over = Value::op(Operator::Add, v, 1);
    let y = whole(OUTPUT);
    for (args, scalars, grid, place, word) in [
        (
            vec![y],
            &k(1)[..],
            4.into(),
            "ops[2].args",
            "1 buffer arguments",
        ),
        (
            vec![y, range(9, 0, 16)],
            &k(1),
            4.into(),
            "ops[2].args[1]",
            "buffer 9",
        ),
        (
            vec![y, range(0, 4, 16)],
            &k(1),
            4.into(),
            "ops[2].args[1]",
            "leave buffer 0",
        ),
        (
            vec![y, range(0, 8, usize::MAX)],
            &k(1),
            4.into(),
            "ops[2].args[1]",
            "leave",
        ),
        (
            vec![y, range(0, 0, 12)],
            &k(1),
            4.into(),
            "ops[2].args[1]",
            "12 bytes",
        ),
        (
            vec![whole(INPUT), y],
            &k(1),
            4.into(),
            "ops[2].args[0]",
            "input",
        ),
        (
            vec![whole(CONSTANT), y],
            &k(1),
            4.into(),
            "ops[2].args[0]",
            "constant",
        ),
        (vec![y, y], &k(1), 4.into(), "ops[2].args[1]", "overlap"),
        (
            vec![y, whole(INPUT)],
            &[("m", 1.into())],
            4.into(),
            "ops[2].scalars.m",
            "no such scalar; it has k",
        ),
        (
            vec![y, whole(INPUT)],
            &[],
            4.into(),
            "ops[2].scalars.k",
            "no value",
        ),
        (
            vec![y, whole(INPUT)],
            &k(10),
            4.into(),
            "ops[2].scalars.k",
            "outside 0..=9",
        ),
        (vec![y, whole(INPUT)], &k(1), 5.into(), "ops[2].grid", "5"),
        (
            vec![y, whole(INPUT)],
            &k(1),
            v.into(),
            "ops[2].grid",
            "v = 5",
        ),
        (
            vec![y, whole(INPUT)],
            &[("k", over)],
            4.into(),
            "ops[2].scalars.k",
            "v = 9",
        ),
    ] {
        let grid: Value = grid;
        let error = plan.launch(0, &args, scalars, grid).unwrap_err();
        assert_refused(&error, place, word);
        if !word.contains("buffer ") && !word.contains("leave") {
            assert!(error.to_string().contains("`add`"), "{error}");
        }
    }
    let error = plan.launch(1, &[], &[], 1).unwrap_err();
    assert_refused(&error, "ops[2].launch", "kernel 1");
    // What was refused left nothing behind.
    let op = plan.launch(0, &[y, whole(INPUT)], &k(1), 4).unwrap();
    assert_eq!((op, plan.build().unwrap().ops().len()), (2, 3));
}

#[test]
fn an_empty_range_overlaps_nothing() {
    let mut plan = PlanBuilder::new("empty");
    let signature = Signature::builder()
        .write(DType::I32, 8)
        .read(DType::I32, 0);
    plan.kernel("k", signature.build().unwrap());
    plan.buffer(None, Role::Output, DType::I32, &[8]).unwrap();
    plan.launch(0, &[range(0, 0, 32), range(0, 16, 0)], &[], 1)
        .unwrap();
}

#[test]
fn copies_and_fills_name_their_op_too() {
    let (mut plan, v) = builder();
    for (from, to, place, word) in [
        (
            whole(INPUT),
            range(OUTPUT, 0, 8),
            "ops[0].copy",
            "16 bytes, `to` 8",
        ),
        (whole(INPUT), whole(CONSTANT), "ops[0].copy.to", "constant"),
        (
            range(7, 0, 4),
            whole(OUTPUT),
            "ops[0].copy.from",
            "buffer 7",
        ),
        (
            range(TEMP, 0, 8),
            range(TEMP, 4, 8),
            "ops[0].copy",
            "overlap",
        ),
    ] {
        assert_refused(&plan.copy(from, to).unwrap_err(), place, word);
    }
    for (to, dtype, value, place, word) in [
        (
            whole(INPUT),
            DType::I32,
            0.into(),
            "ops[0].fill.to",
            "input",
        ),
        (
            whole(TEMP),
            DType::F32,
            0.into(),
            "ops[0].fill.dtype",
            "i32",
        ),
        (
            range(TEMP, 2, 4),
            DType::I32,
            0.into(),
            "ops[0].fill.to",
            "whole elements",
        ),
        (
            whole(TEMP),
            DType::I32,
            Value::from(0.5),
            "ops[0].fill.value",
            "not a value",
        ),
    ] {
        assert_refused(&plan.fill(to, dtype, value).unwrap_err(), place, word);
    }
    let large = Value::op(Operator::Mul, v, 1_i64 << 30);
    let error = plan.fill(whole(TEMP), DType::I32, large).unwrap_err();
    assert_refused(&error, "ops[0].fill.value", "v = 2");
}

#[test]
fn buffers_variables_and_outputs_name_their_own_place() {
    let (mut plan, _) = builder();
    assert_refused(
        &plan.variable("v", 0, 1).unwrap_err(),
        "variables.v",
        "taken",
    );
    assert_refused(
        &plan.variable("w", 1, 0).unwrap_err(),
        "variables.w",
        "no value",
    );
    let error = plan
        .buffer(None, Role::Input, DType::F32, &[1])
        .unwrap_err();
    assert_refused(&error, "buffers[5]", "name");
    let error = plan
        .buffer(Some("input"), Role::Input, DType::F32, &[1])
        .unwrap_err();
    assert_refused(&error, "buffers[5]", "second");
    let error = plan.bytes(None, Role::Temp, usize::MAX).unwrap_err();
    assert_refused(&error, "buffers[5]", "too large");
    assert_refused(&plan.whole(5).unwrap_err(), "buffers[5]", "no such buffer");

    plan.result("y", OUTPUT, 0, DType::I32, &[4]).unwrap();
    for (name, buffer, offset, dtype, place, word) in [
        ("y", OUTPUT, 0, DType::I32, "outputs[1]", "second output"),
        ("z", TEMP, 0, DType::I32, "outputs[1].buffer", "temp"),
        (
            "z",
            CONSTANT,
            0,
            DType::I32,
            "outputs[1].buffer",
            "constant",
        ),
        ("z", OUTPUT, 4, DType::I32, "outputs[1]", "leave"),
        ("z", OUTPUT, 0, DType::F32, "outputs[1].dtype", "i32"),
        ("z", 8, 0, DType::I32, "outputs[1]", "buffer 8"),
    ] {
        let error = plan.result(name, buffer, offset, dtype, &[4]).unwrap_err();
        assert_refused(&error, place, word);
    }
}

// ---------------------------------------------------------------------------
// Executables
// ---------------------------------------------------------------------------

/// A set of memory, guarded as the tests' is.
fn instance(executable: Executable) -> Instance {
    executable.with_guard(common::guard()).instance().unwrap()
}

fn constant(elements: &[i32]) -> Constant {
    common::from_slice(elements).into()
}

#[test]
fn an_executable_is_a_plan_with_its_kernels_and_contents() {
    let (mut plan, v) = builder();
    let k = [("k", v.into())];
    plan.launch(0, &[whole(TEMP), whole(CONSTANT)], &k, 4)
        .unwrap();
    plan.launch(0, &[whole(OUTPUT), whole(TEMP)], &k, v_at_most_4(v))
        .unwrap();
    plan.result("y", OUTPUT, 0, DType::I32, &[4]).unwrap();
    plan.result("state", STATE, 0, DType::I32, &[4]).unwrap();
    let contents = [
        (CONSTANT, constant(&[1, 2, 3, 4])),
        (STATE, constant(&[7; 4])),
    ];
    let executable = Executable::new(plan.build().unwrap(), vec![add_kernel()], contents).unwrap();
    let mut instance = instance(executable);
    instance
        .set_input("input", View::from_slice(&[0; 4]))
        .unwrap();
    instance.run(&[("v", 3)]).unwrap();
    assert_eq!(output::<i32>(&instance, "y"), [7, 8, 9, 0]);
    assert_eq!(output::<i32>(&instance, "state"), [7; 4]);
}

fn v_at_most_4(v: VariableId) -> Value {
    Value::op(Operator::Min, v, 4)
}

#[test]
fn an_executable_refuses_what_is_not_its_plan_s() {
    let at = |buffer| (buffer, constant(&[1, 2, 3, 4]));
    let refused = |kernels: Vec<Kernel>, contents: Vec<(usize, Constant)>, place: &str, word| {
        let plan = builder().0.build().unwrap();
        let error = Executable::new(plan, kernels, contents).unwrap_err();
        assert_refused(&error, place, word);
    };
    let add = || vec![add_kernel()];
    let contents = || vec![at(CONSTANT)];
    refused(Vec::new(), contents(), "kernels", "0 of them for 1");
    let other = Signature::builder().write(DType::I32, 4).build().unwrap();
    let text = "void zero(int *y) { y[0] = 0; }";
    // SAFETY: it writes y[0], of the 4 elements that its signature allows.
    let zero = unsafe { runtime().load(&Source::c("zero", text), other) }.unwrap();
    refused(vec![zero], contents(), "kernels[0]", "`zero`");
    // Of the same signature, but not the same kernel.
    let text = "void other(int *restrict y, const int *restrict x, int k, int i) { y[i] = 0; }";
    // SAFETY: as `add_kernel`.
    let other = unsafe { runtime().load(&Source::c("other", text), add_signature()) };
    let word = "it is `other`, the plan's is `add`";
    refused(vec![other.unwrap()], contents(), "kernels[0]", word);
    refused(add(), vec![at(5)], "buffers[5]", "one of 5");
    let twice = vec![at(CONSTANT), at(CONSTANT)];
    refused(add(), twice, "buffers[1]", "twice");
    refused(add(), vec![], "buffers[1]", "without contents");
    let misplaced = vec![at(CONSTANT), at(TEMP)];
    refused(add(), misplaced, "buffers[3]", "temp");
    let short = vec![(CONSTANT, constant(&[1, 2]))];
    refused(add(), short, "buffers[1]", "8 bytes for 16");
    let floats: Constant = common::from_slice(&[0.0_f32; 4]).into();
    let floats = vec![(CONSTANT, floats)];
    refused(add(), floats, "buffers[1]", "contents of f32 for i32");
}

#[test]
fn contents_of_any_type_fit_untyped_bytes() {
    let mut plan = PlanBuilder::new("untyped");
    plan.bytes(None, Role::Constant, 16).unwrap();
    plan.bytes(None, Role::Output, 16).unwrap();
    plan.copy(whole(0), whole(1)).unwrap();
    plan.result("y", 1, 0, DType::I32, &[4]).unwrap();
    let contents = [(0, constant(&[5, 6, 7, 8]))];
    let executable = Executable::new(plan.build().unwrap(), Vec::new(), contents).unwrap();
    let mut instance = instance(executable);
    instance.run(&[]).unwrap();
    assert_eq!(output::<i32>(&instance, "y"), [5, 6, 7, 8]);
}

/// Two ways in which bytes of unknown origin would be read as `bool`.
fn bools_from_bytes() -> [Plan; 2] {
    let signature = Signature::builder()
        .write(DType::U8, 2)
        .read(DType::Bool, 2);
    let mut launched = PlanBuilder::new("launched");
    launched.kernel("invert", signature.build().unwrap());
    launched.bytes(Some("x"), Role::Input, 2).unwrap();
    launched.bytes(None, Role::Output, 2).unwrap();
    launched
        .launch(0, &[range(1, 0, 2), range(0, 0, 2)], &[], 1)
        .unwrap();
    let mut copied = PlanBuilder::new("copied");
    copied.bytes(Some("x"), Role::Input, 2).unwrap();
    copied
        .buffer(None, Role::Output, DType::Bool, &[2])
        .unwrap();
    copied.copy(range(0, 0, 2), range(1, 0, 2)).unwrap();
    launched.result("y", 1, 0, DType::U8, &[2]).unwrap();
    copied.result("y", 1, 0, DType::Bool, &[2]).unwrap();
    [launched.build().unwrap(), copied.build().unwrap()]
}

#[test]
fn bytes_that_become_bool_need_someone_to_vouch_for_them() {
    let text = "void invert(unsigned char *y, const _Bool *x) { y[0] = !x[0]; y[1] = !x[1]; }";
    for plan in bools_from_bytes() {
        let kernels = || -> Vec<Kernel> {
            let kernel = |k: &svod_runtime::plan::PlanKernel| {
                // SAFETY: it reads two elements and writes two, as its
                // signature says.
                unsafe { runtime().load(&Source::c("invert", text), k.signature.clone()) }.unwrap()
            };
            plan.kernels().iter().map(kernel).collect()
        };
        let error = Executable::new(plan.clone(), kernels(), []).unwrap_err();
        let place = if plan.name() == "launched" {
            "ops[0].args"
        } else {
            "ops[0].copy"
        };
        assert_refused(&error, place, "bool");
        // SAFETY: the bytes that are given below are 0 and 1.
        let vouched = unsafe { Executable::new_unchecked(plan.clone(), kernels(), []) };
        let mut instance = instance(vouched.unwrap());
        instance
            .set_input("x", View::from_slice(&[1_u8, 0]))
            .unwrap();
        instance.run(&[]).unwrap();
        let expected = if plan.name() == "launched" {
            [0, 1]
        } else {
            [1, 0]
        };
        assert_eq!(output::<u8>(&instance, "y"), expected);
    }
}

#[test]
fn bools_that_stay_bools_need_nobody() {
    let mut plan = PlanBuilder::new("bools");
    plan.buffer(Some("x"), Role::Input, DType::Bool, &[2])
        .unwrap();
    plan.buffer(None, Role::Temp, DType::Bool, &[2]).unwrap();
    plan.buffer(None, Role::Output, DType::Bool, &[2]).unwrap();
    plan.fill(range(1, 0, 2), DType::Bool, 1).unwrap();
    plan.copy(range(0, 0, 1), range(1, 1, 1)).unwrap();
    plan.copy(range(1, 0, 2), range(2, 0, 2)).unwrap();
    plan.result("y", 2, 0, DType::Bool, &[2]).unwrap();
    let executable = Executable::new(plan.build().unwrap(), Vec::new(), []).unwrap();
    let mut instance = instance(executable);
    instance
        .set_input("x", View::from_bools(&[false, true]))
        .unwrap();
    instance.run(&[]).unwrap();
    assert_eq!(output::<u8>(&instance, "y"), [1, 0]);
}

#[test]
fn an_output_that_calls_bytes_bool_needs_someone_to_vouch_for_them() {
    let mut plan = PlanBuilder::new("called bool");
    plan.bytes(Some("x"), Role::Input, 2).unwrap();
    plan.result("y", 0, 0, DType::Bool, &[2]).unwrap();
    let error = Executable::new(plan.build().unwrap(), Vec::new(), []).unwrap_err();
    assert_refused(&error, "outputs[0]", "bool");
}

#[test]
fn a_scalar_without_bounds_needs_someone_to_vouch_for_its_values() {
    let signature = Signature::builder()
        .write(DType::I32, 4)
        .scalar(DType::I64, "at", svod_runtime::Bounds::Unstated)
        .build()
        .unwrap();
    let text = "void put(int *y, long at) { y[at] = 7; }";
    // SAFETY: its values of `at` are those of this test, from 0 to 3.
    let put = unsafe { runtime().load(&Source::c("put", text), signature.clone()) }.unwrap();
    let plan = || {
        let mut plan = PlanBuilder::new("unstated");
        plan.buffer(None, Role::Output, DType::I32, &[4]).unwrap();
        plan.kernel("put", signature.clone());
        plan.launch(0, &[range(0, 0, 16)], &[("at", 3.into())], 1)
            .unwrap();
        plan.result("y", 0, 0, DType::I32, &[4]).unwrap();
        plan.build().unwrap()
    };
    let error = Executable::new(plan(), vec![put.clone()], []).unwrap_err();
    assert_refused(&error, "ops[0].scalars", "bounds");
    // SAFETY: `at` is 3, and the buffer has 4 elements.
    let vouched = unsafe { Executable::new_unchecked(plan(), vec![put], []) };
    let mut instance = instance(vouched.unwrap());
    instance.run(&[]).unwrap();
    assert_eq!(output::<i32>(&instance, "y"), [0, 0, 0, 7]);
}

#[test]
fn a_runs_variables_can_be_checked_before_there_is_an_instance() {
    let mut plan = PlanBuilder::new("variables");
    plan.variable("m", -1, 1).unwrap();
    plan.variable("n", 1, 4).unwrap();
    let plan = plan.build().unwrap();
    plan.check_variables(&[("n", 4), ("m", -1)]).unwrap();
    for (given, words) in [
        (&[("n", 4)][..], "`m` has no value; it takes -1 to 1"),
        (&[("m", 0), ("n", 5)], "`n` is 5; it takes 1 to 4"),
        (
            &[("m", 0), ("n", 1), ("o", 1)],
            "no variable `o`; there are: `m`, `n`",
        ),
    ] {
        let error = plan.check_variables(given).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_plan_checks_the_same_whether_a_kernel_is_launched_by_it_or_alone() {
    let kernel = add_kernel();
    let x = common::from_slice(&[1, 2, 3, 4]);
    let mut y = common::zeroed(DType::I32, 4);
    for (k, grid) in [(0, 4), (9, 1), (10, 4), (-1, 4), (5, 5), (5, 0)] {
        let (mut plan, _) = builder();
        let planned = plan.launch(
            0,
            &[whole(OUTPUT), whole(INPUT)],
            &[("k", i64::from(k).into())],
            i64::try_from(grid).unwrap(),
        );
        let mut args = [(&mut y).into(), (&x).into()];
        let launched = kernel.launch(&mut args, &[Scalar::I32(k)], grid);
        assert_eq!(planned.is_ok(), launched.is_ok(), "k = {k}, grid = {grid}");
        if let Err(error) = launched {
            assert!(matches!(error, Error::Launch { .. }), "{error:?}");
        }
    }
}

// ---------------------------------------------------------------------------
// A plan against a plain reading of it
// ---------------------------------------------------------------------------

/// Bytes that a kernel of the property touches.
const LEN: usize = 8;

/// `y[i] = 3 * y[i] + x[i] + k` over bytes, and a kernel that writes the odd
/// ones of four `short`s, whatever they were; unoptimised, and optimised.
fn property_kernels() -> &'static [Vec<Kernel>; 2] {
    static KERNELS: OnceLock<[Vec<Kernel>; 2]> = OnceLock::new();
    KERNELS.get_or_init(|| {
        [OptLevel::O0, OptLevel::O2].map(|level| {
            let runtime = RuntimeBuilder::from_env().opt_level(level).build().unwrap();
            let mix = "void mix(unsigned char *restrict y, const unsigned char *restrict x, int k,
                            int i) { y[i] = (unsigned char)(3 * y[i] + x[i] + k); }";
            let odd = "void odd(short *restrict y, long long i, short k) {
                       if (i & 1) y[i] = (short)(k + i); }";
            let mix_signature = Signature::builder()
                .read_write(DType::U8, LEN)
                .align(1)
                .read(DType::U8, LEN)
                .align(1)
                .scalar(DType::I32, "k", Bounds::integers(-50, 50))
                .index(DType::I32, LEN as u64);
            let odd_signature = Signature::builder()
                .write(DType::I16, LEN / 2)
                .align(2)
                .index(DType::I64, LEN as u64 / 2)
                .scalar(DType::I16, "k", Bounds::integers(-50, 50));
            // SAFETY: for each i below the index's maximum, `mix` reads x[i] and
            // y[i] and writes y[i], and `odd` writes y[i]: all below the lengths.
            unsafe {
                vec![
                    runtime
                        .load(&Source::c("mix", mix), mix_signature.build().unwrap())
                        .unwrap(),
                    runtime
                        .load(&Source::c("odd", odd), odd_signature.build().unwrap())
                        .unwrap(),
                ]
            }
        })
    })
}

/// A number of the plan and what it should be.
#[derive(Clone, Debug)]
enum Expr {
    Number(i64),
    Var,
    Op(Operator, Box<[Expr; 2]>),
}

impl Expr {
    fn value(&self, v: VariableId) -> Value {
        match self {
            Expr::Number(n) => (*n).into(),
            Expr::Var => v.into(),
            Expr::Op(op, ab) => Value::op(*op, ab[0].value(v), ab[1].value(v)),
        }
    }

    fn at(&self, v: i64) -> Option<i64> {
        let Expr::Op(op, ab) = self else {
            return Some(if let Expr::Number(n) = self { *n } else { v });
        };
        let (a, b) = (ab[0].at(v)?, ab[1].at(v)?);
        match op {
            Operator::Add => a.checked_add(b),
            Operator::Mul => a.checked_mul(b),
            Operator::Min => Some(a.min(b)),
            Operator::Max => Some(a.max(b)),
            Operator::FloorDiv if b == 0 => None,
            Operator::FloorDiv => Some((a as f64 / b as f64).floor() as i64),
            Operator::Mod if b == 0 => None,
            Operator::Mod => Some(a - b * (a as f64 / b as f64).floor() as i64),
        }
    }

    /// Whether it lies in `range` for every value of the variable.
    fn always_in(&self, range: Range<i64>) -> bool {
        V.map(|v| self.at(v))
            .all(|at| at.is_some_and(|at| range.contains(&at)))
    }
}

/// The values of the property's variable.
const V: std::ops::RangeInclusive<i64> = 0..=5;

#[derive(Clone, Debug)]
enum Step {
    Mix {
        y: BufferRange,
        x: BufferRange,
        k: Expr,
        grid: Expr,
    },
    Odd {
        y: BufferRange,
        k: Expr,
        grid: Expr,
    },
    Copy {
        from: BufferRange,
        to: BufferRange,
    },
    Fill {
        to: BufferRange,
        value: Expr,
    },
}

/// Sizes of the property's buffers: input, constant, state, temp, output.
const SIZES: [usize; 5] = [24, 16, 20, 32, 24];
const ROLES: [Role; 5] = Role::ALL;

fn within(range: &BufferRange) -> bool {
    range.buffer < SIZES.len() && range.offset + range.bytes <= SIZES[range.buffer]
}

fn writable(range: &BufferRange) -> bool {
    ROLES[range.buffer].writable()
}

fn share_a_byte(a: &BufferRange, b: &BufferRange) -> bool {
    let of = |r: BufferRange| (r.offset..r.offset + r.bytes).map(move |byte| (r.buffer, byte));
    of(*a).any(|byte| of(*b).any(|other| byte == other))
}

impl Step {
    /// Whether the format allows it, as one reads it there.
    fn is_allowed(&self) -> bool {
        match self {
            Step::Mix { y, x, k, grid } => {
                within(y)
                    && within(x)
                    && writable(y)
                    && y.bytes >= LEN
                    && x.bytes >= LEN
                    && !share_a_byte(y, x)
                    && k.always_in(-50..51)
                    && grid.always_in(0..LEN as i64 + 1)
            }
            Step::Odd { y, k, grid } => {
                within(y)
                    && writable(y)
                    && ROLES[y.buffer] != Role::State // which holds u8
                    && y.bytes >= LEN
                    && y.offset % 2 == 0
                    && k.always_in(-50..51)
                    && grid.always_in(0..LEN as i64 / 2 + 1)
            }
            Step::Copy { from, to } => {
                within(from)
                    && within(to)
                    && writable(to)
                    && from.bytes == to.bytes
                    && !share_a_byte(from, to)
            }
            Step::Fill { to, value } => {
                within(to)
                    && writable(to)
                    && ROLES[to.buffer] != Role::State
                    && to.offset % 2 == 0
                    && to.bytes % 2 == 0
                    && value.always_in(-32768..32768)
            }
        }
    }

    fn add_to(&self, plan: &mut PlanBuilder, v: VariableId) -> Result<usize, Error> {
        match self {
            Step::Mix { y, x, k, grid } => {
                plan.launch(0, &[*y, *x], &[("k", k.value(v))], grid.value(v))
            }
            Step::Odd { y, k, grid } => plan.launch(1, &[*y], &[("k", k.value(v))], grid.value(v)),
            Step::Copy { from, to } => plan.copy(*from, *to),
            Step::Fill { to, value } => plan.fill(*to, DType::I16, value.value(v)),
        }
    }

    fn interpret(&self, memory: &mut [Vec<u8>], v: i64) {
        let at = |expr: &Expr| expr.at(v).unwrap();
        let elements = |grid: &Expr| 0..usize::try_from(at(grid)).unwrap();
        let put = |memory: &mut [Vec<u8>], to: &BufferRange, i: usize, element: i64| {
            let start = to.offset + 2 * i;
            let bytes = (element as i16).to_le_bytes();
            memory[to.buffer][start..start + 2].copy_from_slice(&bytes);
        };
        match self {
            Step::Mix { y, x, k, grid } => {
                for i in elements(grid) {
                    let x = i64::from(memory[x.buffer][x.offset + i]);
                    let y = &mut memory[y.buffer][y.offset + i];
                    *y = (3 * i64::from(*y) + x + at(k)) as u8;
                }
            }
            Step::Odd { y, k, grid } => {
                for i in elements(grid).filter(|i| i % 2 == 1) {
                    put(memory, y, i, at(k) + i as i64);
                }
            }
            Step::Copy { from, to } => {
                let bytes = memory[from.buffer][from.offset..][..from.bytes].to_vec();
                memory[to.buffer][to.offset..][..to.bytes].copy_from_slice(&bytes);
            }
            Step::Fill { to, value } => {
                (0..to.bytes / 2).for_each(|i| put(memory, to, i, at(value)));
            }
        }
    }
}

fn expr() -> impl Strategy<Value = Expr> {
    let operator = || {
        let all = [
            Operator::Add,
            Operator::Mul,
            Operator::FloorDiv,
            Operator::Mod,
            Operator::Min,
            Operator::Max,
        ];
        proptest::sample::select(all.to_vec())
    };
    let leaf = prop_oneof![(-2_i64..8).prop_map(Expr::Number), Just(Expr::Var)];
    leaf.prop_recursive(2, 4, 2, move |inner| {
        (operator(), inner.clone(), inner).prop_map(|(op, a, b)| Expr::Op(op, Box::new([a, b])))
    })
}

/// Mostly a range of the size that kernels want, at any place, fitting or not.
fn any_range() -> impl Strategy<Value = BufferRange> {
    let bytes = prop_oneof![8 => Just(LEN), 1 => 0..LEN, 2 => LEN..20];
    (0..SIZES.len(), 0..20_usize, bytes).prop_map(|(b, offset, bytes)| range(b, offset, bytes))
}

fn step() -> impl Strategy<Value = Step> {
    let grid = || prop_oneof![Just(Expr::Number(4)), Just(Expr::Number(8)), expr()];
    prop_oneof![
        (any_range(), any_range(), expr(), grid()).prop_map(|(y, x, k, grid)| Step::Mix {
            y,
            x,
            k,
            grid
        }),
        (any_range(), expr(), grid()).prop_map(|(y, k, grid)| Step::Odd { y, k, grid }),
        (any_range(), any_range()).prop_map(|(from, to)| Step::Copy { from, to }),
        (any_range(), expr()).prop_map(|(to, value)| Step::Fill { to, value }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Of any steps, the builder takes those that the format allows; and what
    /// it took does to memory, over several runs, what a plain interpreter does, with
    /// unoptimised code and with optimised code that takes over from it, and back.
    #[test]
    fn a_plan_does_what_it_says(
        steps in proptest::collection::vec(step(), 1..24),
        runs in proptest::collection::vec((V, any::<[u8; SIZES[0]]>(), 0..4_usize), 1..4),
        constant in any::<[u8; SIZES[1]]>(),
        state in any::<[u8; SIZES[2]]>(),
    ) {
        let mut plan = PlanBuilder::new("property");
        let v = plan.variable("v", *V.start(), *V.end()).unwrap();
        for kernel in &property_kernels()[0] {
            plan.kernel(kernel.name(), kernel.signature().clone());
        }
        // What has contents is typed; the rest are bytes of any type.
        for (role, size) in ROLES.into_iter().zip(SIZES) {
            let buffer = match role {
                Role::Constant | Role::State => plan.buffer(None, role, DType::U8, &[size]),
                _ => plan.bytes(Some(role.name()), role, size),
            };
            let buffer = buffer.unwrap();
            if matches!(role, Role::Input | Role::State | Role::Output) {
                plan.result(role.name(), buffer, 0, DType::U8, &[size]).unwrap();
            }
        }
        // Nothing is promised of what these hold before their first write.
        let blank = |buffer| Step::Fill {
            to: range(buffer, 0, SIZES[buffer]),
            value: Expr::Number(7),
        };
        let mut taken = vec![blank(TEMP), blank(OUTPUT)];
        for step in &taken {
            step.add_to(&mut plan, v).unwrap();
        }
        for step in steps {
            let result = step.add_to(&mut plan, v);
            prop_assert_eq!(result.is_ok(), step.is_allowed(), "{:?}: {:?}", step, result);
            if result.is_ok() {
                taken.push(step);
            }
        }
        let contents = |bytes: &[u8]| Constant::from(common::from_slice(bytes));
        let contents = [(CONSTANT, contents(&constant)), (STATE, contents(&state))];
        let kernels = property_kernels()[0].clone();
        let executable = Executable::new(plan.build().unwrap(), kernels, contents).unwrap();
        let mut instance = instance(executable.clone());
        let mut memory = SIZES.map(|size| vec![0; size]);
        memory[CONSTANT] = constant.to_vec();
        memory[STATE] = state.to_vec();
        for (v, input, code) in runs {
            if let Some(kernels) = property_kernels().get(code) {
                executable.replace_code(kernels.clone()).unwrap();
            }
            instance.set_input("input", View::from_slice(&input)).unwrap();
            instance.run(&[("v", v)]).unwrap();
            memory[INPUT] = input.to_vec();
            for step in &taken {
                step.interpret(&mut memory, v);
            }
            for buffer in [INPUT, STATE, OUTPUT] {
                let name = ROLES[buffer].name();
                prop_assert_eq!(output::<u8>(&instance, name), &memory[buffer][..], "{}", name);
            }
        }
        instance.reset();
        prop_assert_eq!(output::<u8>(&instance, "state"), state);
    }
}
