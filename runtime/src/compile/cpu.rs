//! What this CPU can do, by the names that compilers use.

/// Whether this CPU has the feature `name`, as clang and gcc call it after `-m`.
/// Of a name that is not known, nobody can say so.
#[must_use]
pub fn has(name: &str) -> bool {
    macro_rules! detect {
        ($($feature:tt)*) => {
            match name {
                $($feature => std::arch::is_x86_feature_detected!($feature),)*
                "lzcnt" | "abm" => std::arch::is_x86_feature_detected!("lzcnt"),
                "cx16" => std::arch::is_x86_feature_detected!("cmpxchg16b"),
                _ => false,
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    {
        detect! {
            "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "sse4a" "popcnt" "aes" "pclmulqdq"
            "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "movbe" "sha" "adx" "rdrand" "rdseed"
            "fxsr" "xsave" "xsavec" "xsaveopt" "xsaves" "gfni" "vaes" "vpclmulqdq"
            "avx512f" "avx512cd" "avx512bw" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi"
            "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16"
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = name;
        false
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_has_the_baseline_and_none_what_is_unknown() {
        assert!(has("sse2"));
        assert!(!has("telepathy"));
    }
}
