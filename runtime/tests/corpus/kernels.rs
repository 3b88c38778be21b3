//! The kernels of the corpus, and what they are given.

use std::ffi::c_void;
use std::path::Path;

use half::f16;
use object::{Object as _, ObjectSymbol as _};
use svod_runtime::{Buffer, DType, Guard, Kernel, Signature};

use crate::common::Rng;

pub(crate) const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/kernels.c");

/// How many kernels every compiler can make of the source.
pub(crate) const MIN_KERNELS: usize = 60;

/// The bytes that a kernel reads, and that it may write.
pub(crate) const BYTES: usize = 4096;

/// What both are aligned to.
const ALIGN: usize = 64;

/// An object, and the kernels that it defines.
pub(crate) struct Kernels {
    pub(crate) names: Vec<String>,
    pub(crate) bytes: Vec<u8>,
}

impl Kernels {
    pub(crate) fn of(object: &Path) -> Kernels {
        let bytes = std::fs::read(object).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let defined = file.symbols().filter(|s| s.is_definition());
        let mut names: Vec<String> = defined
            .filter_map(|s| s.name().ok().map(str::to_owned))
            // A compiler names the static variables of a kernel after it, with a point.
            .filter(|n| n.starts_with("k_") && !n.contains('.'))
            .collect();
        names.sort_unstable();
        Kernels { names, bytes }
    }
}

pub(crate) fn signature() -> Signature {
    Signature::builder()
        .write(DType::U8, BYTES)
        .align(ALIGN)
        .read(DType::U8, BYTES)
        .align(ALIGN)
        .build()
        .unwrap()
}

/// What the kernel `name`, which begins with `k_` and a type, is given: numbers of that
/// type, the same each time.
pub(crate) fn input(name: &str) -> Vec<u8> {
    let mut rng = Rng(17);
    let unit = |x: u64| (x >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    let kind = name.split('_').nth(1).unwrap();
    let mut bytes = Vec::with_capacity(BYTES);
    while bytes.len() < BYTES {
        let x = rng.next();
        match kind {
            "f32" => bytes.extend(((4.0 * unit(x)) as f32).to_le_bytes()),
            "f64" => bytes.extend((4.0 * unit(x)).to_le_bytes()),
            "h16" => bytes.extend(f16::from_f64(4.0 * unit(x)).to_le_bytes()),
            "i32" => bytes.extend((x as i32 >> 1).to_le_bytes()),
            "i64" => bytes.extend((x as i64 >> 2).to_le_bytes()),
            "u8" => bytes.push(x as u8),
            other => panic!("{name}: numbers of {other}"),
        }
    }
    bytes
}

/// What a kernel makes of its input, in memory that is guarded in each way.
pub(crate) fn launch(kernel: &Kernel, name: &str) -> Vec<u8> {
    let bytes = input(name);
    let [plain, end, start] = [Guard::Off, Guard::End, Guard::Start].map(|guard| {
        let buffer = || Buffer::guarded(DType::U8, BYTES, ALIGN, guard).unwrap();
        let (mut out, mut input) = (buffer(), buffer());
        input.as_mut_slice().unwrap().copy_from_slice(&bytes);
        let mut args = [(&mut out).into(), (&input).into()];
        kernel.launch(&mut args, &[], 1).unwrap();
        out.as_slice::<u8>().unwrap().to_vec()
    });
    assert!(plain == end && plain == start, "{name}: by the guard");
    plain
}

/// What a kernel that was loaded otherwise makes of its input.
///
/// # Safety
///
/// `entry` must be a kernel of the corpus.
pub(crate) unsafe fn call(entry: *const c_void, name: &str) -> Vec<u8> {
    // SAFETY: promised by the caller; it stays where it is.
    let kernel = unsafe { Kernel::from_entry(name, entry, signature()) };
    launch(&kernel, name)
}
