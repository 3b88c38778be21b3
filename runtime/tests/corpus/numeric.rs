//! Numeric code in Rust, as a crate without the standard library: what rustc emits for it
//! is linked like a C compiler's. Each function takes 4096 bytes of input and 4096 bytes of
//! output, as the kernels in C do.

#![cfg_attr(not(with_std), no_std)]

#[cfg(not(with_std))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

unsafe extern "C" {
    safe fn sinf(x: f32) -> f32;
    safe fn exp(x: f64) -> f64;
}

/// The elements of an input or an output.
macro_rules! kernel {
    ($name:ident, $out:ty, $in:ty, |$o:ident, $x:ident| $body:block) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(out: *mut $out, input: *const $in) {
            let $o = unsafe { &mut *(out as *mut [$out; 4096 / size_of::<$out>()]) };
            let $x = unsafe { &*(input as *const [$in; 4096 / size_of::<$in>()]) };
            $body
        }
    };
}

kernel!(k_f32_rust_scale, f32, f32, |out, x| {
    for (o, x) in out.iter_mut().zip(x) {
        *o = x.mul_add_like(1.1, 0.3);
    }
});
trait MulAddLike {
    fn mul_add_like(self, a: f32, b: f32) -> f32;
}
impl MulAddLike for f32 {
    fn mul_add_like(self, a: f32, b: f32) -> f32 {
        self * a + b
    }
}
kernel!(k_f32_rust_matmul, f32, f32, |out, x| {
    for i in 0..16 {
        for j in 0..16 {
            let mut s = 0.0;
            for k in 0..16 {
                s += x[16 * i + k] * x[256 + 16 * k + j];
            }
            out[16 * i + j] = s;
        }
    }
});
kernel!(k_f32_rust_libm, f32, f32, |out, x| {
    for (o, x) in out.iter_mut().zip(x) {
        *o = sinf(*x);
    }
});
kernel!(k_f64_rust_libm_table, f64, f64, |out, x| {
    static FUNCTIONS: [extern "C" fn(f64) -> f64; 2] = [exp, half_of];
    extern "C" fn half_of(x: f64) -> f64 {
        x * 0.5
    }
    for (i, (o, x)) in out.iter_mut().zip(x).enumerate() {
        *o = FUNCTIONS[i & 1](*x);
    }
});
kernel!(k_f64_rust_sum, f64, f64, |out, x| {
    out[0] = x.iter().sum();
    out[1] = x.iter().fold(f64::MIN, |a, b| if *b > a { *b } else { a });
});
kernel!(k_i64_rust_match, i64, i64, |out, x| {
    static TABLE: [i64; 8] = [2, 3, 5, 7, 11, 13, 17, 19];
    for (o, &x) in out.iter_mut().zip(x) {
        *o = match x & 15 {
            0 => x + 17,
            1 => !x,
            2 => x >> 9,
            3 => x ^ 5,
            4 => TABLE[(x >> 4 & 7) as usize],
            5 => 1000 / (x | 1),
            6 => x.rotate_left(7),
            9 => i64::from(x.count_ones()),
            _ => -99,
        };
    }
});
kernel!(k_i64_rust_wide, i64, i64, |out, x| {
    for i in 0..256 {
        let a = i128::from(x[i]) * i128::from(x[i + 256]);
        let b = i128::from(x[i]) << (i & 31) | 1;
        out[2 * i] = (a / b) as i64;
        out[2 * i + 1] = (a % b) as i64 ^ (a as f64) as i64;
    }
});
kernel!(k_u8_rust_sort, u8, u8, |out, x| {
    let mut sorted = *x;
    // An insertion sort, whose inner loop copies.
    for i in 1..256 {
        let value = sorted[i];
        let at = sorted[..i].iter().position(|&b| b > value).unwrap_or(i);
        sorted.copy_within(at..i, at + 1);
        sorted[at] = value;
    }
    *out = sorted;
});
kernel!(k_u8_rust_words, u8, u8, |out, x| {
    static WORDS: [&str; 3] = ["zero", "one-", "two!"];
    for (o, &b) in out.chunks_exact_mut(4).zip(x) {
        o.copy_from_slice(WORDS[usize::from(b) % 3].as_bytes());
    }
});
