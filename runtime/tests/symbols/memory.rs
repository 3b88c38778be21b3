//! Memory functions, and the end of a process whose stack or buffer was overrun.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use svod_runtime::compile::{Family, OptLevel};
use svod_runtime::link::Symbols;

use crate::common::{compilers, every_compiler, load, load_with, object, with};
use crate::{map, undefined};

/// What makes compilers call memory functions, and what a kernel may call by name.
const TEXT: &str = r#"
    typedef unsigned char u8; typedef __SIZE_TYPE__ size_t;
    #define COPY(name, c) void name(u8 *out, const u8 *in, long i) { \
        out += 256 * i; in += 256 * i; volatile size_t any = in[0]; size_t n = any; (void)n; c; }
    struct big { u8 bytes[256]; };
    COPY(copied, *(struct big *)out = *(const struct big *)in)
    COPY(cleared, __builtin_memcpy(out, in, n); *(struct big *)out = (struct big){{0}})
    COPY(filled, for (size_t j = 0; j < n; j++) out[j] = 7)
    COPY(moved, __builtin_memcpy(out, in, 256); __builtin_memmove(out + 3, out, n))
    COPY(found, u8 *p = __builtin_memchr(in, 7, 256); out[0] = p ? p - in : 255)
    COPY(compared, out[0] = __builtin_memcmp(in, in + 128, n / 2) < 0)
    COPY(equal, out[0] = __builtin_memcmp(in, in + 128, n / 2) == 0)
    COPY(after, *(u8 *)__builtin_mempcpy(out, in, n) = 99)
    COPY(length, size_t l = 0; const char *s = (const char *)in; while (s[l]) l++; out[0] = l)
    COPY(wide, size_t l = 0; const int *s = (const int *)in; while (s[l]) l++; out[0] = l)
    /* The size of what is written to, as fortified code gives it. */
    COPY(copied_chk, __builtin___memcpy_chk(out, in, n, 256))
    COPY(after_chk, *(u8 *)__builtin___mempcpy_chk(out, in, n, 256) = 99)
    COPY(moved_chk, __builtin_memcpy(out, in, 256); __builtin___memmove_chk(out + 3, out, n, 253))
    COPY(set_chk, __builtin___memset_chk(out, 5, n, 256))
"#;

const KERNELS: [&str; 14] = [
    "copied",
    "cleared",
    "filled",
    "moved",
    "found",
    "compared",
    "equal",
    "after",
    "length",
    "wide",
    "copied_chk",
    "after_chk",
    "moved_chk",
    "set_chk",
];

/// What all compilers call for them, at one level or the other.
const CALLED: &[&str] = &[
    "memcpy",
    "memset",
    "memmove",
    "memchr",
    "memcmp",
    "__memcpy_chk",
    "__mempcpy_chk",
    "__memmove_chk",
    "__memset_chk",
];

/// What each kernel makes of 256 bytes.
fn expected(name: &str, input: &[u8; 256]) -> [u8; 256] {
    let mut out = [0; 256];
    let n = usize::from(input[0]);
    match name {
        "copied" => out = *input,
        "cleared" => {}
        "filled" => out[..n].fill(7),
        "moved" | "moved_chk" => {
            out = *input;
            out.copy_within(..n, 3);
        }
        "found" => {
            out[0] = input
                .iter()
                .position(|&b| b == 7)
                .map_or(255, |at| at as u8)
        }
        "compared" => out[0] = (input[..n / 2] < input[128..][..n / 2]).into(),
        "equal" => out[0] = (input[..n / 2] == input[128..][..n / 2]).into(),
        "after" | "after_chk" => {
            out[..n].copy_from_slice(&input[..n]);
            out[n] = 99;
        }
        "length" => out[0] = input.iter().position(|&b| b == 0).unwrap() as u8,
        "wide" => {
            let zero = input.as_chunks::<4>().0.iter().position(|w| *w == [0; 4]);
            out[0] = zero.unwrap() as u8;
        }
        "copied_chk" => out[..n].copy_from_slice(&input[..n]),
        "set_chk" => out[..n].fill(5),
        _ => panic!("{name}"),
    }
    out
}

#[test]
fn memory_functions_that_compilers_call_do_what_c_says() {
    let mut inputs = Vec::new();
    for n in [0, 1, 2, 7, 100, 250, 252] {
        let mut bytes: [u8; 256] = std::array::from_fn(|i| (i * 37 % 251) as u8 | 1);
        bytes[0] = n;
        bytes[240..].fill(0);
        inputs.push(bytes);
        bytes.copy_within(..128, 128);
        bytes[250..].fill(0);
        inputs.push(bytes);
        for difference in [1, 254] {
            let byte = &mut bytes[128 + usize::from(n) / 4];
            *byte = byte.wrapping_add(difference);
            inputs.push(bytes);
        }
        bytes[16..24].fill(0);
        inputs.push(bytes);
    }
    for compiler in every_compiler() {
        let mut called = BTreeSet::new();
        for level in [OptLevel::O0, OptLevel::O2] {
            let bytes = {
                let builder = with(&compiler).opt_level(level).target_cpu("x86-64");
                object(builder.flag("-fhosted"), TEXT)
            };
            // Some are written out at one level, some at the other.
            called.extend(undefined(&bytes));
            let image = load(&bytes).unwrap();
            for name in KERNELS {
                let got: Vec<[u8; 256]> = map(&image, name, &inputs);
                for (input, got) in inputs.iter().zip(got) {
                    assert_eq!(
                        got,
                        expected(name, input),
                        "{name} of {input:?}, {compiler:?} {level:?}"
                    );
                }
            }
        }
        let more: &[&str] = match (compiler.family, compiler.major) {
            (Family::Gcc, _) => &["mempcpy", "strlen"],
            (Family::Clang, 22..) => &["bcmp", "strlen", "wcslen"],
            (Family::Clang, _) => &["bcmp"],
        };
        for name in CALLED.iter().chain(more) {
            assert!(
                called.contains(*name),
                "{compiler:?} was to call {name}: {called:?}"
            );
        }
    }
}

extern "C" fn nothing(_: *mut u8) {}

/// Kernels that read `n` and go wrong where it is not 0.
const DEADLY: &str = r#"
    typedef __SIZE_TYPE__ size_t;
    extern void use(char *);
    /* Says nothing of what it does to its caller's memory. */
    __attribute__((noinline)) static void write(volatile char *at, long n) { while (n-- > 0) at[n] = 1; }
    void smashed(long *out, const long *in, long i) {
        char bytes[16]; use(bytes); write(bytes, 16 + in[i]); out[i] = 1;
    }
    extern void *__memcpy_chk(void *, const void *, size_t, size_t);
    void overrun(long *out, const long *in, long i) {
        char bytes[16]; use(bytes); __memcpy_chk(bytes, in, 8 + in[i], 16); use(bytes); out[i] = 1;
    }
    extern int __addvsi3(int, int);
    void overflowed(long *out, const long *in, long i) { out[i] = __addvsi3(2147483647 - 64 + in[i], 32) & 1; }
"#;

/// A process that went on would run with a stack that an attacker has written.
#[test]
fn a_process_with_a_smashed_stack_or_buffer_says_so_and_ends() {
    const NAME: &str = "SVOD_TEST_DEADLY_KERNEL";
    if let Ok(how) = std::env::var(NAME) {
        let (compiler, name) = how.split_once(' ').unwrap();
        let compiler = &compilers()[compiler.parse::<usize>().unwrap()];
        let builder = with(compiler).flag("-fstack-protector-all");
        let bytes = object(builder.opt_level(OptLevel::O0), DEADLY);
        assert!(undefined(&bytes).contains("__stack_chk_fail"));
        let mut symbols = Symbols::default();
        // SAFETY: a function of the type that the source declares, always there.
        unsafe { symbols.insert("use", nothing as *const _) };
        let image = load_with(&bytes, &symbols).unwrap();
        // What goes well, first.
        assert_eq!(map::<i64, i64, 1, 1>(&image, name, &[[0]]), [[1]]);
        println!("survived");
        map::<i64, i64, 1, 1>(&image, name, &[[64]]);
        println!("survived twice");
        return;
    }
    for (i, compiler) in compilers().iter().enumerate() {
        for (name, says) in [
            ("smashed", "stack smashing detected"),
            (
                "overrun",
                "buffer overflow detected: memcpy of 72 bytes into 16",
            ),
            ("overflowed", "signed integer overflow detected"),
        ] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture"])
                .arg("memory::a_process_with_a_smashed_stack_or_buffer_says_so_and_ends")
                .env(NAME, format!("{i} {name}"))
                .output()
                .unwrap();
            let [out, err] =
                [child.stdout, child.stderr].map(|text| String::from_utf8(text).unwrap());
            let how = format!("{name}, {compiler:?}:\n{out}{err}");
            const SIGABRT: i32 = 6;
            assert_eq!(child.status.signal(), Some(SIGABRT), "{how}");
            assert!(out.contains("survived") && !out.contains("twice"), "{how}");
            assert!(err.contains(says) && err.contains("terminated"), "{how}");
        }
    }
}
