//! Writable sections, and memory that 32 bits reach.

use crate::common::{self, load_state};
use crate::made::*;
use svod_runtime::{DType, Kernel, Signature};

/// Kernels that count in each kind of writable section.
const COUNTERS: &str = "
    static volatile long zeroed; static volatile long begun = 100; long common[4];
    void count(long *out) { for (int i = 0; i < 500; i++) { zeroed++; begun++; common[2]++; }
                            out[0] = zeroed; out[1] = begun; out[2] = common[2]; }
    void read(long *out) { out[0] = zeroed; out[1] = begun; out[2] = common[2]; }";

#[test]
fn state_is_refused_unless_it_is_admitted_and_is_then_kept_from_call_to_call() {
    for compiler in common::compilers() {
        let builder = || common::with(&compiler).flag("-fcommon");
        let source = svod_runtime::Source::c("count", COUNTERS);
        let signature = || Signature::builder().write(DType::I64, 3).build().unwrap();
        let runtime = builder().build().unwrap();
        // SAFETY: nothing runs; it is refused.
        let refused = unsafe { runtime.load(&source, signature()) }.unwrap_err();
        assert!(
            matches!(refused, Error::WritableSection { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("admit_state"), "{refused}");

        let runtime = builder().admit_state(true).build().unwrap();
        let load = || {
            // SAFETY: it writes three elements; its state was admitted.
            unsafe { runtime.load(&source, signature()) }.unwrap()
        };
        let (kernel, another) = (load(), load());
        let call = |kernel: &Kernel| {
            let mut out = common::zeroed(DType::I64, 3);
            kernel.launch(&mut [(&mut out).into()], &[], 1).unwrap();
            out.as_slice::<i64>().unwrap().to_vec()
        };
        assert_eq!(call(&kernel), [500, 600, 500]);
        assert_eq!(call(&kernel), [1000, 1100, 1000]);
        assert_eq!(call(&another), [500, 600, 500], "each load has its own");
    }
}

#[test]
fn a_large_common_symbol_of_the_medium_model_is_state_as_others_are() {
    let Some(gcc) = common::compiler_of(svod_runtime::compile::Family::Gcc) else {
        return;
    };
    let builder = common::with(&gcc).flag("-mcmodel=medium").flag("-fcommon");
    let text = "int big[100000]; int *k(int i) { return &big[i]; }";
    let bytes = common::object(builder, text);
    let file = ObjectFile::parse("k", &bytes).unwrap();
    let refused = file.check_stateless().unwrap_err();
    assert!(refused.to_string().contains("COMMON (big)"), "{refused}");
    load_state(&bytes).unwrap();
}

#[test]
fn calls_of_code_with_state_are_made_one_at_a_time() {
    const THREADS: i64 = 4;
    const CALLS: i64 = 200;
    let bytes = common::object(
        common::with(&common::compilers()[0]).flag("-fcommon"),
        COUNTERS,
    );
    let image = load_state(&bytes).unwrap();
    let signature = || Signature::builder().write(DType::I64, 3).build().unwrap();
    // SAFETY: they write three elements; their state was admitted.
    let [count, read] =
        ["count", "read"].map(|n| unsafe { common::kernel(&image, n, signature()) });
    let call = |kernel: &Kernel| {
        let mut out = common::zeroed(DType::I64, 3);
        kernel.launch(&mut [(&mut out).into()], &[], 1).unwrap();
        out.as_slice::<i64>().unwrap().to_vec()
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..CALLS).for_each(|_| drop(call(&count))));
        }
    });
    let total = THREADS * CALLS * 500;
    assert_eq!(call(&read), [total, total + 100, total], "no count is lost");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn code_with_absolute_addresses_is_mapped_where_32_bits_reach() {
    let text = "extern double sin(double);
        static const long table[4] = {3, 5, 7, 9};
        static double (*const f)(double) = sin;
        double (*volatile g)(double);
        void k(double *out, const long *in) {
            out[0] = (double)table[in[0] & 3]; out[1] = sin(2); out[2] = f(2);
            double (*volatile h)(double) = sin; out[3] = h(2);
        }";
    for compiler in common::compilers() {
        let builder = common::with(&compiler)
            .flag("-fno-pic")
            .flag("-mcmodel=small")
            .flag("-fno-builtin");
        let bytes = common::object(builder, text);
        assert!(ObjectFile::parse("k", &bytes).unwrap().needs_low_address());
        let image = common::load(&bytes).unwrap();
        let address = image.function("k").unwrap().as_ptr() as usize;
        assert!(address < 1 << 31, "{address:#x}");
        let signature = Signature::builder()
            .write(DType::F64, 4)
            .read(DType::I64, 1);
        // SAFETY: it writes four elements and reads one.
        let kernel = unsafe { common::kernel(&image, "k", signature.build().unwrap()) };
        let (mut out, index) = (common::zeroed(DType::F64, 4), common::from_slice(&[2_i64]));
        kernel
            .launch(&mut [(&mut out).into(), (&index).into()], &[], 1)
            .unwrap();
        let sin = 2_f64.sin();
        assert_eq!(out.as_slice::<f64>().unwrap(), [7.0, sin, sin, sin]);
    }
}
