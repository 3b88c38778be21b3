//! Sources that are read, refused and spoilt.

use super::*;

fn alone(text: &str) -> Option<&'static str> {
    prepare(&Source::c("k", text)).err()
}

#[test]
fn what_could_tell_the_difference_is_refused() {
    for text in [
        "#include <math.h>\nvoid k(void) {}",
        "#pragma STDC FP_CONTRACT OFF\nvoid k(void) {}",
        "#if 1\nvoid k(void) {}\n#endif",
        "#define __FAST__ 1\nvoid k(void) {}",
        "#define CAT(a, b) a##b\nvoid k(void) {}",
        "void k(void) { _Pragma(\"STDC FP_CONTRACT OFF\") }",
        "asm(\"nop\");\nvoid k(void) {}",
        "void k(void) { const char *f = __FILE__; (void)f; }",
        "void *memcpy(void *a, const void *b, unsigned long n) { return a; }\nvoid k(void) {}",
        "void f(void);\nvoid g(void) __attribute__((alias(\"f\")));\nvoid k(void) {}",
        "float expf(float) __attribute__((const));\nvoid k(void) {}",
        "#define START static\nSTART int f(void) { return 1; }\nvoid k(void) {}",
        "static float fmodf(float a, float b) { return a; }\nvoid k(void) { __builtin_fmodf(1, 2); }",
        "void other(void) {}",
        "void k(float *y) { y[0] = expf(y[1]); }",
        "#define E(x) expf(x)\nvoid k(float *y) { y[0] = E(y[1]); }",
        "#define S(x) %:x\nvoid k(void) {}",
        "#define F __func__\nvoid k(void) {}",
        "enum l { packed = 1 };\nstruct s { char a; int b; } __attribute__((packed));\nvoid k(void) {}",
        "static int aligned(int x) { return x; }\nvoid k(void) { int a __attribute__((aligned(16))) = 1; aligned(a); }",
        "#define U(x) \\\n f(x)\nvoid k(void) {}",
        "#define P _Pragma(\"pack(1)\")\nvoid k(void) { P }",
        "#define C __COUNTER__\nvoid k(void) {}",
        "inline float h(float x) { return x; }\nvoid k(float *y) { y[0] = h(y[1]); }",
        "void k(void) { const int *s = L\"x\"; (void)s; }",
        "void k(void) {",
        "void k(void) { ]",
        "%: define X\nvoid k(void) {}",
    ] {
        assert!(alone(text).is_some(), "{text}");
    }
}

#[test]
fn what_compilers_of_models_write_is_not() {
    for text in [
        "typedef float f4 __attribute__((aligned(16),ext_vector_type(4)));\nvoid k(f4 *restrict y) { *y = (f4){1, 2, 3, 4}; }",
        "typedef __fp16 __fp164 __attribute__((aligned(8),ext_vector_type(4)));\nvoid k(__fp164 *y) {}",
        "static inline __attribute__((always_inline)) float h(float x) { return x; }\nvoid k(float *y) { y[0] = h(y[1]); }",
        "float expf(float);\nstatic const float t[2] = {1.0f, -2.0f};\nvoid k(float *y) { y[0] = expf(t[0]); }",
        "#define N 4\n#define MAX(a, b) ((a) > (b) ? (a) : (b))\nvoid k(float *y) { y[N] = MAX(y[0], y[1]); }",
        "struct s { int a, b[3]; };\nenum { A, B = 3, C };\nvoid k(struct s *y) { y->a = C; }",
        "void k(float *y) { float u = 1, L = 2; y[0] = u + L; }",
        "_Static_assert(sizeof(int) == 4, \"int\");\nvoid k(void) {};",
    ] {
        assert_eq!(alone(text), None, "{text}");
    }
}

#[test]
fn the_same_type_is_there_once_and_lines_stay_where_they_are() {
    let text = "typedef float f2 __attribute__((ext_vector_type(2)));\nstatic f2 h(f2 x) {\n  return x;\n}\nvoid k(f2 *y) {\n  *y = h(i(*y));\n}\n";
    let inlined = "static inline __attribute__((always_inline)) f2 i(f2 x) { return -x; }";
    let text = text.replacen('\n', &format!(" {inlined}\n"), 1);
    let text = text.as_str();
    let sources = [Source::c("k", text), Source::c("k", text)];
    let prepared = sources.iter().map(|s| prepare(s).unwrap()).enumerate();
    let [unit] = &units(prepared.collect(), 1)[..] else {
        panic!("one unit");
    };
    assert_eq!(unit.text.matches("typedef").count(), 1, "{}", unit.text);
    assert_eq!(unit.text.matches("return -x").count(), 1, "{}", unit.text);
    // A helper that is not always inlined has the callers that it has alone.
    assert_eq!(unit.text.matches("return x").count(), 2, "{}", unit.text);
    // Of each source, the kernel begins in its fifth line.
    for part in unit.text.split("# 1 ").skip(1) {
        assert!(part.lines().nth(5).unwrap().starts_with("void k"), "{part}");
    }
    let of = |n: usize| format!("{}:6:3: error: no\n", unit.members[n].marker);
    assert_eq!(unit.at_fault(&of(1)), [unit.members[1].source]);
    assert_eq!(unit.at_fault("error: out of memory"), [0; 0]);
}

#[test]
fn what_takes_long_has_a_unit_of_its_own() {
    let fast = format!(
        "void k(float *y) {{ y[0] = 1.0f{}; }}",
        " + 2.5f".repeat(200)
    );
    for (load, is_slow) in [
        ("t[i+1&7]", true),
        ("t[(i+1)&7]", true),
        ("t[i%7]", true),
        ("t[i+1]", false),
        ("(t[i] && i)", false),
        ("f(&t[i])", false),
    ] {
        // Shorter than the others, of which there are four.
        let loads = [load; 20].join("+");
        let body = format!("for (int i = 0; i < 9; i++) t[i] = {loads};");
        let odd = format!("int f(int *);\nvoid k(int *t) {{ {body} }}");
        assert!(odd.len() < fast.len());
        let mut sources = vec![Source::c("k", fast.clone()); 4];
        sources.insert(2, Source::c("k", odd));
        let prepared = sources.iter().map(|s| prepare(s).unwrap()).enumerate();
        let units = units(prepared.collect(), 2);
        let is_alone = units.iter().any(|unit| unit.members.len() == 1);
        assert_eq!(is_alone, is_slow, "{load}");
    }
}

#[test]
fn spoilt_text_is_refused_or_read_and_never_a_panic() {
    let good = "typedef float f2 __attribute__((ext_vector_type(2)));\n#define N(x) (x + 1)\nenum e { A = 'x', B };\nstruct s { int a[2]; } t = {{1, 2}}, *u;\n/* c */ static f2 h(f2 x) { return x; } // c\nint g(int);\nvoid k(f2 *y) { const char *s = \"a\\\"b\"; *y = h(*y) + N(1.5e+3f); }\n";
    let pieces = [
        "{",
        "}",
        "(",
        ")",
        "\"",
        "'",
        "/*",
        "*/",
        "//",
        "\\",
        "\n",
        "#",
        ";",
        ",",
        "=",
        "é",
        "enum",
        "struct",
        "__attribute__",
        "\0",
        "[",
        "]",
        "typedef ",
        "??",
    ];
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let mut text = good.to_owned();
        for _ in 0..=next(4) {
            let at = (0..=next(text.len() + 1))
                .rev()
                .find(|&i| text.is_char_boundary(i));
            let at = at.unwrap_or(0);
            match next(3) {
                0 => text.truncate(at),
                1 => text.insert_str(at, pieces[next(pieces.len())]),
                _ => drop(text.pop()),
            }
        }
        let source = Source::c("k", text);
        if let Ok(prepared) = prepare(&source) {
            let text = units(vec![(0, prepared)], 1).remove(0).text;
            assert!(text.len() < 10 * good.len());
        }
    }
}
