// Kernels of the kind that ML compilers emit, and code that makes C compilers ask a linker
// for everything it has to do. Each takes 4096 bytes of input and 4096 bytes of output; its
// name says what the input holds: f32, f64, i32, i64, u8, h16 (half precision). They give the
// same bits wherever C defines them; those in whose names `libm` stands depend on the libm.

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long i64;
typedef unsigned long u64;
typedef float f32;
typedef double f64;
typedef __int128 i128;
typedef unsigned __int128 u128;

#define K(name, O, I) void name(O *restrict out, const I *restrict in)
#define EACH(i, n) for (i32 i = 0; i < (n); i++)
#define NOINLINE __attribute__((noinline))

extern f64 sin(f64), cos(f64), tan(f64), exp(f64), log(f64), pow(f64, f64), fmod(f64, f64),
    cbrt(f64), erf(f64), tgamma(f64), atan2(f64, f64), hypot(f64, f64), floor(f64), ceil(f64),
    trunc(f64), rint(f64), round(f64), fma(f64, f64, f64), log1p(f64), expm1(f64), ldexp(f64, int);
extern f32 sinf(f32), cosf(f32), expf(f32), logf(f32), tanhf(f32), powf(f32, f32), erff(f32),
    exp2f(f32), log2f(f32), fmodf(f32, f32), floorf(f32), roundf(f32), fmaf(f32, f32, f32),
    sqrtf(f32), fmaxf(f32, f32), fminf(f32, f32), copysignf(f32, f32);
extern void *memcpy(void *, const void *, u64), *memmove(void *, const void *, u64),
    *memset(void *, int, u64);
extern int memcmp(const void *, const void *, u64);

// ---- Elementwise, reductions, products

K(k_f32_add, f32, f32) { EACH(i, 512) out[i] = in[i] + in[i + 512]; }
K(k_f32_scale, f32, f32) { EACH(i, 1024) out[i] = in[i] * 1.1f + 0.3f; }
K(k_f32_relu, f32, f32) { EACH(i, 1024) out[i] = in[i] > 0 ? in[i] : 0; }
K(k_f32_leaky, f32, f32) { EACH(i, 1024) out[i] = in[i] > 0 ? in[i] : in[i] * 0.01f; }
K(k_f32_sum, f32, f32) { f32 s = 0; EACH(i, 1024) s += in[i]; out[0] = s; }
K(k_f32_max, f32, f32) { f32 m = in[0]; EACH(i, 1024) m = in[i] > m ? in[i] : m; out[0] = m; }
K(k_f32_matmul, f32, f32) {
    EACH(i, 16) EACH(j, 16) {
        f32 s = 0;
        EACH(k, 16) s += in[16 * i + k] * in[256 + 16 * k + j];
        out[16 * i + j] = s;
    }
}
K(k_f32_transpose, f32, f32) { EACH(i, 32) EACH(j, 32) out[32 * j + i] = in[32 * i + j]; }
K(k_f32_conv, f32, f32) {
    static const f32 filter[9] = {.25f, -1, .25f, 2, 4, 2, .25f, -1, .25f};
    EACH(y, 30) EACH(x, 30) {
        f32 s = 0;
        EACH(v, 3) EACH(u, 3) s += filter[3 * v + u] * in[32 * (y + v) + x + u];
        out[32 * y + x] = s;
    }
}
K(k_f32_pool, f32, f32) {
    EACH(y, 16) EACH(x, 16) {
        const f32 *p = in + 64 * y + 2 * x;
        f32 a = p[0] > p[1] ? p[0] : p[1], b = p[32] > p[33] ? p[32] : p[33];
        out[16 * y + x] = a > b ? a : b;
    }
}
K(k_f32_norm, f32, f32) {
    EACH(r, 16) {
        f32 s = 0, q = 0;
        EACH(i, 64) s += in[64 * r + i];
        s *= 1.0f / 64;
        EACH(i, 64) q += (in[64 * r + i] - s) * (in[64 * r + i] - s);
        q = 1.0f / __builtin_sqrtf(q * (1.0f / 64) + 1e-5f);
        EACH(i, 64) out[64 * r + i] = (in[64 * r + i] - s) * q;
    }
}
K(k_f64_axpy, f64, f64) { EACH(i, 256) out[i] = in[i] * -2.75 + in[i + 256]; }
K(k_f64_poly, f64, f64) {
    static const f64 c[8] = {1, -.5, 1. / 3, -.25, .2, -1. / 6, 1. / 7, -.125};
    EACH(i, 512) {
        f64 s = 0;
        EACH(j, 8) s = s * in[i] + c[j];
        out[i] = s;
    }
}
K(k_f64_scan, f64, f64) { f64 s = 0; EACH(i, 512) out[i] = s += in[i]; }
K(k_f64_signs, f64, f64) {
    EACH(i, 512) out[i] = i & 1 ? -in[i] : __builtin_copysign(__builtin_fabs(in[i]) + 1e-3, in[i]);
}
typedef f32 f32x4 __attribute__((vector_size(16)));
typedef f32 f32x8 __attribute__((vector_size(32)));
typedef i32 i32x8 __attribute__((vector_size(32)));
K(k_f32_vector4, f32x4, f32x4) {
    EACH(i, 256) out[i] = in[i] * (f32x4){1, 2, 3, 4} + (f32x4){.5f, .25f, .125f, 8};
}
K(k_f32_vector8, f32x8, f32x8) {
    EACH(i, 128) out[i] = in[i] * (f32x8){1, 2, 3, 4, 5, 6, 7, 8} - in[127 - i];
}
K(k_i32_vector8, i32x8, i32x8) { EACH(i, 128) out[i] = (in[i] ^ in[127 - i]) + (i32x8){1, -2, 3}; }
static NOINLINE f32x4 by_value(f32x4 a, f32x4 b) { return a * b + a; }
K(k_f32_vector_call, f32x4, f32x4) { EACH(i, 255) out[i] = by_value(in[i], in[i + 1]); }

// ---- Integers of every width

K(k_u8_average, u8, u8) { EACH(i, 2048) out[i] = (in[i] + in[i + 2048] + 1) >> 1; }
K(k_u8_histogram, u32, u8) { EACH(i, 4096) out[in[i]]++; }
K(k_u8_dequantize, f32, u8) { EACH(i, 1024) out[i] = ((i32)in[i] - 128) * 0.0078125f; }
K(k_u8_dot, i32, i8) {
    EACH(r, 64) {
        i32 s = 0;
        EACH(i, 64) s += in[64 * r + i] * in[i];
        out[r] = s;
    }
}
K(k_u8_crc, u32, u8) {
    static const u32 table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                  0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                  0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    u32 crc = ~0u;
    EACH(i, 4096) {
        crc ^= in[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    out[0] = ~crc;
}
K(k_i32_mix, i32, i32) { EACH(i, 1024) out[i] = (i32)((u32)in[i] * 2654435761u >> 7) ^ in[i ^ 5]; }
K(k_i32_divide, i32, i32) { EACH(i, 512) out[i] = in[i] / (in[i + 512] | 1) + in[i] % 1000; }
K(k_i32_clamp, i16, i32) { EACH(i, 1024) out[i] = in[i] > 32767 ? 32767 : in[i] < -32768 ? -32768 : in[i]; }
K(k_i32_float, f32, i32) { EACH(i, 1024) out[i] = (f32)in[i] + (f32)(u32)in[i]; }
K(k_i64_mix, i64, i64) { EACH(i, 512) out[i] = (i64)((u64)in[i] * 0x9e3779b97f4a7c15u) ^ in[511 - i] >> 13; }
K(k_i64_divide, i64, i64) { EACH(i, 256) out[i] = in[i] / (in[i + 256] | 1) - in[i] % 77777; }
K(k_i64_rotate, u64, u64) { EACH(i, 512) out[i] = in[i] << (i & 63) | in[i] >> (-i & 63); }
K(k_i64_bits, u64, u64) {
    EACH(i, 512) out[i] = __builtin_popcountl(in[i]) + 100 * __builtin_clzl(in[i] | 1) + 10000 * __builtin_ctzl(in[i] | 1ul << 63) +
             __builtin_bswap64(in[i]) + __builtin_parityl(in[i]);
}
K(k_i64_float, f64, i64) { EACH(i, 512) out[i] = (f64)in[i] - (f64)(u64)in[i]; }
K(k_i64_wide_divide, u64, u64) {
    EACH(i, 128) {
        u128 a = (u128)in[i] << 64 | in[i + 128], b = (u128)(in[i + 256] >> (i & 63)) << 32 | in[i + 1] | 1;
        u128 q = a / b, r = a % b;
        out[2 * i] = (u64)q ^ (u64)(q >> 64);
        out[2 * i + 1] = (u64)r ^ (u64)(r >> 64);
    }
}
K(k_i64_wide_signed, i64, i64) {
    EACH(i, 128) {
        i128 a = (i128)in[i] * in[i + 128], b = (i128)in[i + 256] << (i & 31) | 1;
        out[2 * i] = (i64)(a / b);
        out[2 * i + 1] = (i64)(a % b);
    }
}
K(k_i64_wide_float, f64, i64) {
    EACH(i, 256) {
        i128 a = (i128)in[i] * in[i + 256];
        out[2 * i] = (f64)a;
        out[2 * i + 1] = (f64)(f32)(u128)a;
    }
}
K(k_f64_wide_integer, u64, f64) {
    EACH(i, 256) {
        i128 a = (i128)(in[i] * 1e25);
        u128 b = (u128)(__builtin_fabs(in[i]) * 1e30);
        out[2 * i] = (u64)a ^ (u64)(a >> 64);
        out[2 * i + 1] = (u64)b ^ (u64)(b >> 64);
    }
}

// ---- Half precision

#ifdef HALF
typedef _Float16 h16;
K(k_h16_widen, f32, h16) { EACH(i, 1024) out[i] = (f32)in[i]; }
K(k_f32_narrow_half, h16, f32) { EACH(i, 1024) out[i] = (h16)in[i]; }
K(k_h16_widen_double, f64, h16) { EACH(i, 512) out[i] = (f64)in[i] * 3; }
K(k_h16_dot, f32, h16) {
    EACH(r, 32) {
        f32 s = 0;
        EACH(i, 64) s += (f32)in[64 * r + i] * (f32)in[i];
        out[r] = s;
    }
}
K(k_h16_scale, h16, h16) { EACH(i, 2048) out[i] = (h16)((f32)in[i] * 1.5f); }
K(k_f64_narrow_half, h16, f64) { EACH(i, 512) out[i] = (h16)in[i]; }
#endif

// ---- Tables, switches, functions

K(k_i64_switch, i64, i64) {
    EACH(i, 512) switch (in[i] & 15) {
        case 0: out[i] = in[i] + 17; break;
        case 1: out[i] = in[i] ^ in[i ^ 1]; break;
        case 2: out[i] = ~in[i]; break;
        case 3: out[i] = in[i] >> 9; break;
        case 4: out[i] = in[0] ^ 5; break;
        case 5: out[i] = in[3] - 6; break;
        case 6: out[i] = 1000 / (in[i] | 1); break;
        case 7: out[i] = (i64)((u64)in[i] * 31); break;
        case 9: out[i] = i; break;
        case 11: out[i] = -i; break;
        default: out[i] = -99;
    }
}
K(k_i32_sparse_switch, i32, i32) {
    EACH(i, 1024) switch (in[i] & 0xfff) {
        case 3: out[i] = 1; break;
        case 77: out[i] = 2; break;
        case 401: out[i] = 3; break;
        case 4000: out[i] = 4; break;
        default: out[i] = in[i] & 3 ? 5 : 6;
    }
}
static const i64 primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
K(k_i64_table, i64, i64) { EACH(i, 512) out[i] = primes[in[i] & 7]; }
static const char zero[] = "zero", one[] = "one-", two[] = "two!";
static const char *const words[] = {zero, one, two, one + 1};
K(k_u8_pointer_table, u8, u8) { EACH(i, 512) EACH(j, 4) out[4 * i + j] = (u8)words[in[i] & 3][j]; }
static const struct { const i64 *at; i64 add; } rows[] = {{primes + 2, 1}, {primes, -7}, {&primes[5], 100}};
K(k_u8_struct_table, i64, u8) { EACH(i, 512) out[i] = rows[in[i] % 3].at[in[i] & 1] + rows[in[i] % 3].add; }
static NOINLINE i64 square(i64 x) { return (i64)((u64)x * (u64)x + 1); }
static NOINLINE i64 negate(i64 x) { return -(x >> 1); }
static NOINLINE i64 twice(i64 (*f)(i64), i64 x) { return f(f(x)); }
K(k_i64_static_calls, i64, i64) { EACH(i, 512) out[i] = twice(i & 1 ? square : negate, in[i]); }
static i64 (*const local_functions[])(i64) = {square, negate, square};
K(k_i64_function_table, i64, i64) { EACH(i, 512) out[i] = local_functions[i % 3](in[i]); }
i64 seen_from_outside(i64 x);
K(k_i64_global_calls, i64, i64) { EACH(i, 512) out[i] = seen_from_outside(in[i]); }
NOINLINE i64 seen_from_outside(i64 x) { return (x >> 3) * 3 + 1; }
__attribute__((weak, noinline)) i64 weakly_defined(i64 x) { return x ^ 0x5555; }
i64 aliased(i64) __attribute__((alias("weakly_defined")));
K(k_i64_weak_and_alias, i64, i64) { EACH(i, 512) out[i] = weakly_defined(in[i]) + aliased(in[i] >> 1); }
extern i64 nowhere(i64) __attribute__((weak));
extern i64 no_number __attribute__((weak));
K(k_i64_weak_undefined, i64, i64) {
    EACH(i, 512) out[i] = (nowhere ? nowhere(in[i]) : in[i] + 1) + (&no_number ? no_number : 2);
}
const i64 visible_table[4] = {10, -20, 30, -40};
K(k_i64_visible_table, i64, i64) { EACH(i, 512) out[i] = visible_table[in[i] & 3]; }
static NOINLINE i64 recursive(i64 n) { return n < 2 ? n : recursive(n - 1) + recursive(n - 2); }
K(k_u8_recursion, i64, u8) { EACH(i, 64) out[i] = recursive(in[i] & 15); }
static NOINLINE i64 many(i64 a, i64 b, i64 c, i64 d, i64 e, i64 f, i64 g, i64 h, i64 i, i64 j) {
    return a - b + c - d + e - f + g - h + i - j;
}
K(k_i64_many_arguments, i64, i64) {
    EACH(i, 500) out[i] = many(in[i] >> 8, 1, 2, in[i + 1] >> 8, 4, 5, in[i + 2] >> 8, 7, in[i + 3] >> 8, 9);
}
K(k_i64_labels, i64, i64) {
    static const void *const steps[] = {&&add, &&flip, &&done};
    EACH(i, 512) {
        i64 x = in[i], n = 0;
        goto *steps[x & 1];
    add:
        x += 3;
        if (n++ < 2) goto *steps[n & 1];
        goto *steps[2];
    flip:
        x = ~x;
        if (n++ < 3) goto *steps[x & 1];
        goto *steps[2];
    done:
        out[i] = x;
    }
}

// ---- Constants that ask for alignment and for sections of their own

static const u8 aligned64[64] __attribute__((aligned(64))) = {2, 7};
static const u8 aligned4096[8] __attribute__((aligned(4096))) = {3, 9};
K(k_u8_alignment, u64, u8) {
    const volatile u8 *a = aligned64, *b = aligned4096;
    out[0] = ((u64)a & 63) + ((u64)b & 4095);
    out[1] = a[in[0] & 1] + b[in[1] & 1];
}
static const i32 in_its_section[4] __attribute__((section(".rodata.mine"))) = {5, 6, 7, 8};
K(k_u8_named_section, i32, u8) { EACH(i, 1024) out[i] = in_its_section[in[i] & 3]; }
__attribute__((section(".text.elsewhere"), noinline)) static i32 in_other_text(i32 x) { return x * 7 - 3; }
K(k_u8_several_texts, i32, u8) { EACH(i, 1024) out[i] = in_other_text(in[i]); }
static const f32 large[16384] = {1, 2, 3, [4000] = 5, [16000] = 7};
K(k_u8_large_table, f32, u8) { EACH(i, 1024) out[i] = large[in[i] * 64]; }
static const f32 zeros[1024];
K(k_u8_zero_table, f32, u8) { EACH(i, 1024) out[i] = ((const volatile f32 *)zeros)[in[i]] + 1; }

// ---- Memory functions, named and not

struct big { u8 bytes[4096]; };
K(k_u8_struct_copy, struct big, struct big) {
    struct big a = *in;
    EACH(i, 4096) a.bytes[i] ^= (u8)i;
    *out = a;
}
K(k_u8_struct_clear, struct big, u8) {
    struct big a = {{0}};
    EACH(i, 16) a.bytes[16 * in[i]] = (u8)(i + 1);
    *out = a;
}
K(k_u8_copy_loop, u8, u8) { i64 n = 1000 + in[0]; for (i64 i = 0; i < n; i++) out[i] = in[i]; }
K(k_u8_called, u8, u8) {
    memset(out, 9, 1000 + in[0]);
    memcpy(out + 1500, in + 10, 700 + in[1]);
    memmove(out + 1, out, 3000);
    out[4000] = memcmp(in, in + 2048, 100) < 0;
}
K(k_u8_big_stack, u32, u8) {
    u32 sums[8192];
    EACH(i, 8192) sums[i] = in[i & 4095] + (u32)i;
    EACH(i, 1024) out[i] = sums[(u32)i * 2654435761u >> 19];
}

// ---- libm

K(k_f64_libm_exact, f64, f64) {
    EACH(i, 64) {
        const f64 x = in[i] * 10;
        out[8 * i] = floor(x), out[8 * i + 1] = ceil(x), out[8 * i + 2] = trunc(x), out[8 * i + 3] = rint(x);
        out[8 * i + 4] = round(x), out[8 * i + 5] = fma(x, x, x), out[8 * i + 6] = fmod(x, 3), out[8 * i + 7] = ldexp(x, i & 7);
    }
}
K(k_f32_libm_exact, f32, f32) {
    EACH(i, 128) {
        const f32 x = in[i] * 10;
        out[8 * i] = floorf(x), out[8 * i + 1] = roundf(x), out[8 * i + 2] = fmaf(x, x, x), out[8 * i + 3] = fmodf(x, 3);
        out[8 * i + 4] = sqrtf(x * x), out[8 * i + 5] = fmaxf(x, 1), out[8 * i + 6] = fminf(x, 1), out[8 * i + 7] = copysignf(2, x);
    }
}
K(k_f64_libm, f64, f64) {
    EACH(i, 32) {
        const f64 x = in[i];
        f64 *o = out + 16 * i;
        o[0] = sin(x), o[1] = cos(x), o[2] = tan(x), o[3] = exp(x), o[4] = log(x * x + 1), o[5] = pow(x * x + 1, .7);
        o[6] = cbrt(x), o[7] = erf(x), o[8] = tgamma(x * x + 1), o[9] = atan2(x, 2), o[10] = hypot(x, 3);
        o[11] = log1p(x * x), o[12] = expm1(x);
    }
}
K(k_f32_libm, f32, f32) {
    EACH(i, 64) {
        const f32 x = in[i];
        f32 *o = out + 16 * i;
        o[0] = sinf(x), o[1] = cosf(x), o[2] = expf(x), o[3] = logf(x * x + 1), o[4] = tanhf(x), o[5] = powf(x * x + 1, .7f);
        o[6] = erff(x), o[7] = exp2f(x), o[8] = log2f(x * x + 1);
    }
}
static f64 (*const libm_functions[])(f64) = {sin, cos, floor, exp};
K(k_f64_libm_table, f64, f64) { EACH(i, 512) out[i] = libm_functions[i & 3](in[i]); }
static NOINLINE f64 (*pick(i32 i))(f64) { return i & 1 ? sin : cos; }
K(k_f64_libm_address, f64, f64) { EACH(i, 512) out[i] = pick(i)(in[i]); }
K(k_f32_libm_softmax, f32, f32) {
    EACH(r, 16) {
        const f32 *x = in + 64 * r;
        f32 m = x[0], s = 0;
        EACH(i, 64) m = x[i] > m ? x[i] : m;
        EACH(i, 64) s += out[64 * r + i] = expf(x[i] - m);
        EACH(i, 64) out[64 * r + i] /= s;
    }
}
