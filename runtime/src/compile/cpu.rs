//! What CPUs can do, by the names that compilers use, and the levels that code can be
//! compiled for ahead of time.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__cpuid_count, CpuidResult};
use std::sync::OnceLock;

use super::Options;
use crate::Error;

macro_rules! known_features {
    ($($feature:tt)*) => {
        /// The features that can be asked for, as clang and gcc call them after `-m`.
        #[cfg(target_arch = "x86_64")]
        const KNOWN: &[&str] = &[$($feature,)* "lzcnt", "cx16"];

        /// Whether this CPU has the feature `name`, as clang and gcc call it after `-m`.
        /// Of a name that is not known, nobody can say so.
        #[must_use]
        #[cfg(target_arch = "x86_64")]
        pub fn has(name: &str) -> bool {
            match name {
                $($feature => std::arch::is_x86_feature_detected!($feature),)*
                "lzcnt" | "abm" => std::arch::is_x86_feature_detected!("lzcnt"),
                "cx16" => std::arch::is_x86_feature_detected!("cmpxchg16b"),
                "bmi" => std::arch::is_x86_feature_detected!("bmi1"),
                _ => false,
            }
        }
    };
}

known_features! {
    "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "sse4a" "popcnt" "aes" "pclmulqdq"
    "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "movbe" "sha" "adx" "rdrand" "rdseed"
    "fxsr" "xsave" "xsavec" "xsaveopt" "xsaves" "gfni" "vaes" "vpclmulqdq"
    "avx512f" "avx512cd" "avx512bw" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi"
    "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16"
}

/// Whether this CPU has the feature `name`; of other architectures than x86-64 no names
/// are known.
#[must_use]
#[cfg(not(target_arch = "x86_64"))]
pub fn has(name: &str) -> bool {
    let _ = name;
    false
}

/// The names of all features that this CPU has, as far as they are known.
#[must_use]
pub fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    return KNOWN.iter().copied().filter(|name| has(name)).collect();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// Which CPU this is, as far as a compiler that compiles for it looks: a line a thing. It is
/// the same on each of a machine's cores, and after each boot.
#[must_use]
pub fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(described_host)
}

fn described_host() -> String {
    let mut text = format!("{}\n", std::env::consts::ARCH);
    #[cfg(target_arch = "x86_64")]
    for (name, registers) in registers(&said_to_c_library()) {
        let registers = registers.iter().map(|r| format!(" {r:08x}"));
        text += &format!("cpuid {name}{}\n", registers.collect::<String>());
    }
    // Where compilers look, too.
    #[cfg(not(target_arch = "x86_64"))]
    {
        text += &described(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    }
    text
}

/// What says what the processor can do and which one it is, as far as compilers ask for it. Other
/// registers, and other bits of the later ones, say which core it is that answers, or how fast it
/// is, or are of no concern to code.
///
/// `cpuid` is what the processor says of a leaf and a subleaf.
#[cfg(target_arch = "x86_64")]
fn registers(cpuid: &dyn Fn(u32, u32) -> CpuidResult) -> Vec<(&'static str, Vec<u32>)> {
    let vendor = cpuid(0, 0);
    let last = vendor.eax;
    let one = cpuid(1, 0);
    let mut lines = vec![
        ("vendor", vec![vendor.ebx, vendor.edx, vendor.ecx]),
        ("1", vec![one.eax, one.ecx, one.edx]),
        ("saved", vec![saved(one.ecx)]),
    ];
    if last >= 7 {
        let seven = cpuid(7, 0);
        lines.push(("7.0", vec![seven.ebx, seven.ecx, seven.edx]));
        if seven.eax >= 1 {
            let seven = cpuid(7, 1);
            lines.push(("7.1", vec![seven.eax, seven.ebx, seven.ecx, seven.edx]));
        }
    }
    if last >= 0xd {
        lines.push(("d.1", vec![cpuid(0xd, 1).eax & 0xf]));
    }
    // PTWRITE, Key Locker as far as it is turned on, what tiles can do, and which AVX10.
    if last >= 0x14 {
        lines.push(("14", vec![cpuid(0x14, 0).ebx & 1 << 4]));
    }
    if last >= 0x19 {
        lines.push(("19", vec![cpuid(0x19, 0).ebx & 0b101]));
    }
    if last >= 0x1e {
        lines.push(("1e.1", vec![cpuid(0x1e, 1).eax]));
    }
    if last >= 0x24 {
        lines.push(("24", vec![cpuid(0x24, 0).ebx & 0x7_00ff]));
    }
    // Every CPU of this architecture has these two: they say that it is one, and how long
    // addresses are.
    let extended = cpuid(0x8000_0001, 0);
    lines.push(("80000001", vec![extended.ecx, extended.edx]));
    // CLZERO, RDPRU, WBNOINVD.
    lines.push(("80000008", vec![cpuid(0x8000_0008, 0).ebx & 0x211]));
    lines
}

/// What the processor says, as the C library heard it when the process began, where it hands that on:
/// to ask again takes 7 to 10 µs each time that a hypervisor answers, and six questions a tenth of
/// the time that a small model takes to be ready.
#[cfg(target_arch = "x86_64")]
fn said_to_c_library() -> impl Fn(u32, u32) -> CpuidResult {
    let feature_leaf = feature_leaf();
    move |leaf, subleaf| {
        let heard = feature_leaf.and_then(|f| heard(f, leaf, subleaf));
        heard.unwrap_or_else(|| __cpuid_count(leaf, subleaf))
    }
}

/// glibc's `__x86_get_cpuid_feature_leaf` of `sys/platform/x86.h`: for the number of a leaf, the four
/// registers as the processor gave them, and behind them what of that is of use.
#[cfg(target_arch = "x86_64")]
type FeatureLeaf = unsafe extern "C" fn(u32) -> *const [u32; 4];

/// The leaves and subleaves that it knows, by their numbers there.
#[cfg(target_arch = "x86_64")]
const FEATURE_LEAVES: [(u32, u32); 9] = [
    (1, 0),
    (7, 0),
    (0x8000_0001, 0),
    (0xd, 1),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (7, 1),
    (0x19, 0),
    (0x14, 0),
];

#[cfg(target_arch = "x86_64")]
fn feature_leaf() -> Option<FeatureLeaf> {
    // SAFETY: looks for a name, which ends, in what is loaded already; null where there is none, as in
    // a static program.
    let address =
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__x86_get_cpuid_feature_leaf".as_ptr()) };
    // SAFETY: such a name is the C library's own, and glibc has had a function of this type by it since
    // version 2.33, which is there as long as the process is; null is no function.
    unsafe { std::mem::transmute::<*mut libc::c_void, Option<FeatureLeaf>>(address) }
}

#[cfg(target_arch = "x86_64")]
fn heard(feature_leaf: FeatureLeaf, leaf: u32, subleaf: u32) -> Option<CpuidResult> {
    let number = FEATURE_LEAVES.iter().position(|&l| l == (leaf, subleaf))?;
    // SAFETY: it takes any number, and returns the address of a part of a table that was filled before
    // the program began and stays as it is, or, for a number that it does not know, of zeros; never
    // null.
    let said @ [eax, ebx, ecx, edx] = unsafe { *feature_leaf(number as u32) };
    (said != [0; 4]).then_some(CpuidResult { eax, ebx, ecx, edx })
}

/// Which registers the system saves, and so lets programs use, whatever the processor has: a bit
/// each, of the lower half of XCR0. `features` is what leaf 1 says in ECX.
#[cfg(target_arch = "x86_64")]
fn saved(features: u32) -> u32 {
    const OSXSAVE: u32 = 1 << 27;
    if features & OSXSAVE == 0 {
        return 0;
    }
    // SAFETY: the instruction is there where the processor says that the system has turned on what
    // it belongs to, and register 0 is the one that there is then.
    let all = unsafe { std::arch::x86_64::_xgetbv(0) };
    (all & u64::from(u32::MAX)) as u32
}

/// What `/proc/cpuinfo` says of the kinds of cores that there are: a line a thing, each once.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn described(cpuinfo: &str) -> String {
    const OF_A_CORE: [&str; 6] = ["processor", "BogoMIPS", "MHz", "hart", "clock", "timebase"];
    let mut lines: Vec<String> = cpuinfo
        .lines()
        .filter(|line| !line.trim().is_empty() && !OF_A_CORE.iter().any(|w| line.contains(w)))
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

/// A CPU, or a level of CPUs, that objects are compiled for ahead of time, and what such
/// an object asks of the CPU that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuLevel {
    name: String,
    arch: &'static str,
    features: Vec<&'static str>,
    /// As `-march` takes it.
    march: &'static str,
    /// The target triple, where it is not this machine's.
    triple: Option<&'static str>,
}

/// What each level adds to the one before it, as the psABI of x86-64 has it (section
/// 3.1.1). `LAHF` in 64-bit mode and `OSXSAVE` have no names of compilers' here: no CPU
/// with the others lacks the first, and AVX counts only where the system saves it.
const X86_64_LEVELS: [(&str, &[&str]); 4] = [
    ("x86-64", &[]),
    (
        "x86-64-v2",
        &["cx16", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"],
    ),
    (
        "x86-64-v3",
        &[
            "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe",
        ],
    ),
    (
        "x86-64-v4",
        &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
    ),
];

impl CpuLevel {
    /// The names that there are.
    pub const NAMES: [&str; 6] = [
        "native",
        X86_64_LEVELS[0].0,
        X86_64_LEVELS[1].0,
        X86_64_LEVELS[2].0,
        X86_64_LEVELS[3].0,
        "aarch64",
    ];

    /// The level of that name: `native` is the CPU of this machine, with all features that
    /// it has; the levels of x86-64 are those of its psABI; `aarch64` is what each CPU of
    /// that architecture runs (`armv8-a`).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownCpu`] for a name that is not among [`NAMES`](Self::NAMES).
    pub fn named(name: &str) -> Result<CpuLevel, Error> {
        let here = std::env::consts::ARCH;
        let level = |arch, march, features| CpuLevel {
            name: name.to_owned(),
            arch,
            features,
            march,
            triple: None,
        };
        if name == "native" {
            return Ok(level(here, "native", features()));
        }
        if name == "aarch64" {
            let triple = (here != name).then_some("aarch64-unknown-linux-gnu");
            let level = level("aarch64", "armv8-a", Vec::new());
            return Ok(CpuLevel { triple, ..level });
        }
        let found = X86_64_LEVELS.iter().position(|(n, _)| *n == name);
        let Some(found) = found else {
            return Err(Error::UnknownCpu {
                name: name.to_owned(),
            });
        };
        let needed = X86_64_LEVELS[..=found].iter();
        let needed = needed.flat_map(|(_, adds)| adds.iter().copied());
        let triple = (here != "x86_64").then_some("x86_64-unknown-linux-gnu");
        let level = level("x86_64", X86_64_LEVELS[found].0, needed.collect());
        Ok(CpuLevel { triple, ..level })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its architecture, as [`std::env::consts::ARCH`] names it.
    #[must_use]
    pub const fn arch(&self) -> &'static str {
        self.arch
    }

    /// The features that a CPU must have to run its code, as compilers call them after
    /// `-m`.
    #[must_use]
    pub fn features(&self) -> &[&'static str] {
        &self.features
    }

    /// What compilers call it after `-march=`, as
    /// [`RuntimeBuilder::target_cpu`](crate::RuntimeBuilder::target_cpu) takes it.
    #[must_use]
    pub const fn march(&self) -> &'static str {
        self.march
    }

    /// Whether this CPU runs its code.
    #[must_use]
    pub fn runs_here(&self) -> bool {
        runs_here(self.arch, &self.features)
    }

    /// The same options, for this level.
    pub(crate) fn apply(&self, options: &Options) -> Options {
        Options {
            target_cpu: self.march.to_owned(),
            target: self.triple.map(str::to_owned),
            ..options.clone()
        }
    }
}

/// Whether this CPU runs code of the architecture that asks for these features.
pub(crate) fn runs_here(arch: &str, features: &[impl AsRef<str>]) -> bool {
    arch == std::env::consts::ARCH && features.iter().all(|f| has(f.as_ref()))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_has_the_baseline_and_none_what_is_unknown() {
        assert!(has("sse2"));
        assert!(!has("telepathy"));
        assert!(features().contains(&"sse2"));
    }

    #[test]
    fn a_cpu_is_described_by_what_it_is_and_not_by_which_core_answers() {
        let core = |n: usize, features: &str| {
            format!(
                "processor\t: {n}\nBogoMIPS\t: {n}.00\nFeatures\t: {features}\nCPU part\t: 0xd40\n\n"
            )
        };
        let one = core(0, "fp asimd sve");
        assert_eq!(
            described(&one),
            "CPU part\t: 0xd40\nFeatures\t: fp asimd sve\n"
        );
        assert_eq!(
            described(&one),
            described(&(one.clone() + &core(1, "fp asimd sve")))
        );
        assert_ne!(described(&one), described(&core(0, "fp asimd")));
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_c_library_heard_what_the_processor_says() {
        let feature_leaf = feature_leaf().expect("glibc 2.33 or later");
        for (leaf, subleaf) in FEATURE_LEAVES {
            let Some(mut heard) = heard(feature_leaf, leaf, subleaf) else {
                assert!(leaf != 1 && leaf != 0x8000_0001, "{leaf:x}");
                continue;
            };
            let said = __cpuid_count(leaf, subleaf);
            if leaf == 1 {
                // Which core it is that answers.
                heard.ebx = said.ebx;
            }
            assert_eq!(heard, said, "{leaf:x}.{subleaf}");
        }
    }

    #[test]
    fn each_core_describes_the_same_cpu() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let all = sched_getaffinity(None).unwrap();
        let cores = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
        let ask = |core| {
            let mut one = CpuSet::new();
            one.set(core);
            sched_setaffinity(None, &one).unwrap();
            registers(&__cpuid_count)
        };
        for core in cores {
            // On a thread of its own, whose place nobody else minds.
            let said = std::thread::spawn(move || ask(core)).join().unwrap();
            assert_eq!(said, registers(&said_to_c_library()), "core {core}");
        }
    }

    #[test]
    fn a_level_asks_for_what_the_one_below_it_asks_for() {
        let features = |name| CpuLevel::named(name).unwrap().features().to_vec();
        assert!(features("x86-64").is_empty());
        assert!(features("x86-64-v3").contains(&"sse4.2"));
        assert!(features("x86-64-v4").starts_with(&features("x86-64-v3")));
        for name in CpuLevel::NAMES {
            let level = CpuLevel::named(name).unwrap();
            let known = |f: &&str| KNOWN.contains(f);
            assert!(level.features().iter().all(known), "{name}");
        }
    }

    #[test]
    fn no_cpu_of_another_architecture_is_this_one() {
        assert!(CpuLevel::named("native").unwrap().runs_here());
        assert!(CpuLevel::named("x86-64").unwrap().runs_here());
        assert!(!CpuLevel::named("aarch64").unwrap().runs_here());
        let error = CpuLevel::named("pentium").unwrap_err().to_string();
        assert!(error.contains("x86-64-v3"), "{error}");
    }
}
