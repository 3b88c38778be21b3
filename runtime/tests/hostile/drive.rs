//! What is done with bytes that nobody vouches for, up to the point where code from them
//! would run. Errors are expected; a panic, or a check that fails here, is a finding.
//!
//! The tests beside this file drive it with mutations from a fixed seed, and the fuzz
//! targets in `fuzz/` with whatever a fuzzer comes upon.

use std::ffi::c_void;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use svod_runtime::bundle::{Bundle, npy};
use svod_runtime::compile::cache::{Cache, Key};
use svod_runtime::link::{
    Definition, ObjectFile, Resolver, Rights, layout, layout_all, link, link_all,
};
use svod_runtime::plan::{Role, Schedule};
use svod_runtime::signature::{Convention, Number, Param, Returns};
use svod_runtime::{Arg, Bounds, Buffer, Kernel, OptLevel, Runtime, Scalar, Signature, Source};
use tempfile::TempDir;

// ---- Objects

/// Knows most names, some as functions and some as data, near and far.
struct Anything;

const NEAR: u64 = 0x7f00_0000_0000;

impl Resolver for Anything {
    fn resolve(&self, name: &str) -> Option<Definition> {
        let hash: u64 = name.bytes().map(u64::from).sum();
        let address = if hash & 4 == 0 {
            NEAR + 0x100_0000
        } else {
            0x1000
        };
        match hash & 7 {
            7 => None,
            3 => Some(Definition::Data(address)),
            _ => Some(Definition::Function(address)),
        }
    }
}

/// Lays out and links an object, for several pages and places.
pub(crate) fn object(bytes: &[u8]) {
    let Ok(file) = ObjectFile::parse("hostile", bytes) else {
        return;
    };
    listed(&file);
    for page in [4096, 65536] {
        let layout = layout(&file, page);
        // A symbol takes 24 bytes, and has a slot and a stub at most; zeroed data and
        // padding have an end of their own, and each segment is whole pages.
        let len = bytes.len() as u64;
        let most = 2 * len + 4 * page + (64 << 20);
        assert!(layout.size() <= most, "{} bytes from {len}", layout.size());
        let mut end = 0;
        for segment in layout.segments() {
            assert_eq!(segment.range.start, end);
            end = segment.range.end;
            assert_eq!(end % page, 0);
        }
        assert_eq!(end, layout.size());
        for base in [0x10_0000, NEAR, !0xfff_ffff] {
            if let Ok(image) = link(&file, &layout, base, &Anything) {
                assert_eq!(image.len() as u64, layout.size());
            }
        }
        // Beside itself, it takes no more than twice as often.
        let both = [&file, &file];
        let layout_of_both = layout_all(&both, page);
        assert!(layout_of_both.size() <= 2 * layout.size());
        if let Ok(image) = link_all(&both, &layout_of_both, NEAR, &Anything) {
            assert_eq!(image.len() as u64, layout_of_both.size());
        }
    }
}

/// Lists an object's code: each byte of it once at most.
fn listed(file: &ObjectFile<'_>) {
    let listing = file.disassemble();
    let mut code = 0;
    for function in &listing.functions {
        let mut at = 0;
        for instruction in &function.instructions {
            assert_eq!(instruction.offset, at);
            assert!(instruction.bytes > 0);
            at += instruction.bytes;
        }
        assert!(at <= function.bytes, "{}", function.name);
        code += function.bytes;
    }
    assert!(code <= listing.bytes(Rights::Code));
}

// ---- Bundles

/// What stands between the files of a packed bundle.
pub(crate) const BETWEEN: &[u8] = b"\n--8<--\n";

/// The files of a packed bundle, in their order. What is missing is not there.
pub(crate) const FILES: [&str; 5] = [
    "plan.json",
    "weights.safetensors",
    "tests/0/x.npy",
    "tests/0/y.npy",
    "kernels/k.o",
];

/// Stands in a packed plan for the digest of the object.
pub(crate) const DIGEST: &str = "@digest";

/// The files of a packed bundle; the last takes what is left.
pub(crate) fn unpack(packed: &[u8]) -> Vec<&[u8]> {
    let mut files = Vec::new();
    let mut rest = packed;
    while files.len() + 1 < FILES.len()
        && let Some(at) = find(rest, BETWEEN)
    {
        files.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    files.push(rest);
    files
}

/// Where some bytes stand first. It compares where the first one stands alone: whoever counts
/// comparisons, as a fuzzer does, has fewer to count.
fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    let Some(first) = part.first() else {
        return Some(0);
    };
    let mut from = 0;
    loop {
        let at = from + all[from..].iter().position(|byte| byte == first)?;
        if all[at..].starts_with(part) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// A folder for a bundle, in memory where the system has such a place: thousands of
/// bundles are written to it.
pub(crate) fn folder() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(in_memory).or_else(|_| tempfile::tempdir());
    folder.expect("a folder for bundles")
}

/// Loads a packed bundle, from the folder `dir`, up to where its kernels would run.
pub(crate) fn bundle(dir: &Path, packed: &[u8]) {
    let files = unpack(packed);
    let object = files.get(4).copied().unwrap_or_default();
    for (i, name) in FILES.iter().enumerate() {
        let path = dir.join(name);
        let Some(bytes) = files.get(i) else {
            let _ = std::fs::remove_file(path);
            continue;
        };
        let mut bytes = bytes.to_vec();
        if i == 0 {
            let text = String::from_utf8_lossy(&bytes);
            if text.contains(DIGEST) {
                let digest: [u8; 32] = Sha256::digest(object).into();
                let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
                bytes = text.replace(DIGEST, &hex).into_bytes();
            }
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let Ok(bundle) = Bundle::open(dir) else {
        return;
    };
    // What a plan says of itself holds, whatever it is.
    let plan = bundle.plan();
    for op in 0..plan.ops().len() {
        assert!(plan.explain(op).is_some_and(|e| !e.to_string().is_empty()));
    }
    plan.check_schedule(&Schedule::waves(plan, 8)).unwrap();
    plan.check_schedule(&Schedule::serial(plan.order()))
        .unwrap();
    assert!(plan.unwritten_reads().len() <= plan.ops().len() * 1024);
    assert!(plan.memory().lower_bound <= plan.memory().arena);

    // No compiler is found in an empty search path: objects are all that is loaded.
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::builder().build().unwrap());
    // SAFETY: nothing of it is ever called, and nobody writes the folder before it is
    // dropped.
    let Ok(executable) = (unsafe { bundle.load(runtime, &|_| {}) }) else {
        return;
    };
    // Whoever embeds a plan sees what it takes before anything is allocated.
    let bytes: u128 = Role::ALL.iter().map(|&r| plan.bytes(r) as u128).sum();
    if bytes > 64 << 20 {
        return;
    }
    let Ok(mut instance) = executable.instance() else {
        return;
    };
    for test in bundle.tests() {
        let variables: Vec<_> = test
            .variables
            .iter()
            .map(|(n, v)| (n.as_str(), *v))
            .collect();
        plan.check_variables(&variables).unwrap();
        for (name, file) in &test.inputs {
            if let Ok(array) = bundle.read_input(name, file) {
                instance.set_input(name, array.elements.as_view()).unwrap();
            }
        }
        for (_, file) in &test.outputs {
            let _ = npy::read(file);
        }
    }
    for output in plan.outputs() {
        assert_eq!(
            instance.output(&output.name).unwrap().as_bytes().len(),
            output.range.bytes
        );
    }
    instance.reset();
}

// ---- Weights

/// What reads every kind of tensor: constants and a state, of several types, which outputs are
/// copies of, so that no kernel is needed.
const WEIGHED: &str = r#"{
    "format": "svod-plan", "version": 1, "kernels": [],
    "buffers": [
        {"name": "w", "role": "constant", "dtype": "f32", "shape": [8], "tensor": "w"},
        {"name": "b", "role": "constant", "dtype": "bool", "shape": [4], "tensor": "b"},
        {"name": "h", "role": "constant", "dtype": "f16", "shape": [2, 3], "tensor": "h"},
        {"name": "s", "role": "state", "dtype": "i64", "shape": [1], "tensor": "s"},
        {"name": "y", "role": "output", "dtype": "f32", "shape": [8]}
    ],
    "ops": [{"copy": {"from": 0, "to": 4}}],
    "outputs": [{"name": "y", "buffer": 4, "offset": 0, "dtype": "f32", "shape": [8]}]
}"#;

/// Loads weights, from the folder `dir`, and looks at what became of each tensor.
pub(crate) fn weights(dir: &Path, bytes: &[u8]) {
    let plan = dir.join("plan.json");
    if !plan.exists() {
        std::fs::write(&plan, WEIGHED).unwrap();
    }
    // Another file each time: constants are mapped from the one before.
    let path = dir.join("weights.safetensors");
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).unwrap();
    let Ok(bundle) = Bundle::open(dir) else {
        return;
    };
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::builder().build().unwrap());
    // SAFETY: it has no kernel, and nobody writes the file before it is dropped.
    let Ok(executable) = (unsafe { bundle.load(runtime, &|_| {}) }) else {
        return;
    };
    for (buffer, content) in bundle.plan().buffers().iter().zip(executable.contents()) {
        let held = content.as_ref().map(|content| content.as_bytes());
        let Some(held) = held else { continue };
        assert_eq!(held.len(), buffer.bytes);
        // All of it is somewhere in the file.
        assert!(find(bytes, held).is_some());
        if buffer.name.as_deref() == Some("b") {
            assert!(held.iter().all(|b| *b < 2));
        }
    }
    let mut instance = executable.instance().unwrap();
    instance.run(&[]).unwrap();
    let w = executable.contents()[0].as_ref().unwrap().as_bytes();
    assert_eq!(instance.output("y").unwrap().as_bytes(), w);
}

// ---- Entries of the cache

/// Where the digest of an entry stands, and behind it the lengths of the key and the payload.
const ENTRY_DIGEST: std::ops::Range<usize> = 12..44;
const ENTRY_LENGTHS: std::ops::Range<usize> = 44..60;

/// The object of the seeds, and the parts of its key.
pub(crate) const CACHED: &[u8] = b"the object's bytes";
pub(crate) const CACHED_KEY: [(&str, &str); 2] = [("source", "void k(void) {}"), ("flags", "-O2")];

/// An entry as it should be.
pub(crate) fn entry(dir: &Path) -> Vec<u8> {
    let cache = Cache::open(dir, 1 << 20).unwrap();
    let key = Key::new(CACHED_KEY);
    cache.put(&key, CACHED);
    std::fs::read(dir.join("objects").join(key.digest())).unwrap()
}

/// Has a cache, in the folder `dir`, find an entry of these bytes; of those that begin with an odd
/// byte, what follows is given the digest that it should have. One in four is looked at in all
/// ways.
pub(crate) fn cache(cache: &Cache, dir: &Path, bytes: &[u8]) {
    let Some((how, entry)) = bytes.split_first() else {
        return;
    };
    let mut entry = entry.to_vec();
    if how & 1 == 1
        && let Some(lengths) = entry.get(ENTRY_LENGTHS)
    {
        let key = u64::from_le_bytes(lengths[..8].try_into().unwrap());
        let payload = usize::try_from(key).ok().and_then(|key| {
            let start = ENTRY_LENGTHS.end.checked_add(key)?;
            entry.get(start..)
        });
        let digest = Sha256::new().chain_update(lengths);
        let digest = digest.chain_update(payload.unwrap_or_default()).finalize();
        entry[ENTRY_DIGEST].copy_from_slice(&digest);
    }
    let key = Key::new(CACHED_KEY);
    let path = dir.join("objects").join(key.digest());
    std::fs::write(&path, &entry).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let in_all_ways = how & 6 == 0;
    if in_all_ways {
        let stats = cache.stats().unwrap();
        assert!(stats.bytes <= entry.len() as u64);
        let other = Key::new([CACHED_KEY[0], ("flags", "-O3")]);
        assert_eq!(cache.explain(&[other]).unwrap().len(), 1);
    }
    match cache.get(&key) {
        // It ends with what it gives, and what it gives is not more than all of it.
        Some(object) => assert!(entry.ends_with(&object) && object.len() < entry.len()),
        // What is no entry is not there any more.
        None => assert!(!path.exists()),
    }
    if in_all_ways {
        cache.verify().unwrap();
    }
    cache.put(&key, CACHED);
    assert_eq!(cache.get(&key).as_deref(), Some(CACHED));
}

// ---- LLVM IR

/// Compiles LLVM IR in process, where there is a libLLVM, and has what comes of it laid out and
/// linked; it is never called.
pub(crate) fn ir(bytes: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build = || Runtime::builder().opt_level(OptLevel::O0).build().unwrap();
    let runtime = RUNTIME.get_or_init(build);
    if let Ok(made) = runtime.compile(&Source::llvm_ir("k", bytes.to_vec())) {
        object(made.bytes());
    }
}

// ---- Signatures

/// Takes no arguments, whatever it is called with.
extern "C" fn nothing() -> i32 {
    0
}

/// Makes a signature of bytes: the first says how it is called, the others are its
/// parameters in JSON. Where there can be such a kernel, one is called, with what the
/// signature allows and with what it does not.
pub(crate) fn signature(bytes: &[u8]) {
    let Some((how, params)) = bytes.split_first() else {
        return;
    };
    let Ok(params) = serde_json::from_slice::<Vec<Param>>(params) else {
        return;
    };
    let convention = if how & 1 == 0 {
        Convention::C
    } else {
        Convention::Packed
    };
    let returns = if how & 2 == 0 {
        Returns::Void
    } else {
        Returns::Status
    };
    let Ok(signature) = Signature::new(params, convention, returns) else {
        return;
    };
    // SAFETY: in the C ABIs of these machines, a function that looks at none of its
    // arguments can be called with any, and one whose result is not looked at may
    // return one.
    let kernel =
        unsafe { Kernel::from_entry("nothing", nothing as *const c_void, signature.clone()) };
    let bytes = signature
        .buffers()
        .try_fold(0_usize, |n, p| n.checked_add(p.bytes()));
    if bytes.is_none_or(|b| b > 1 << 20) {
        return;
    }
    let mut buffers: Vec<Buffer> = signature
        .buffers()
        .map(|p| Buffer::with_align(p.dtype, p.len, p.align).unwrap())
        .collect();
    let scalars: Vec<Scalar> = signature
        .scalars()
        .map(|p| match p.bounds {
            Bounds::Between { min, .. } => Scalar::from_number(p.dtype, min).unwrap(),
            Bounds::Any | Bounds::Unstated => Scalar::from_number(p.dtype, Number::Int(0)).unwrap(),
        })
        .collect();
    let grid = signature.max_grid().min(3);
    let mut args: Vec<Arg<'_>> = buffers.iter_mut().map(Arg::from).collect();
    // SAFETY: the kernel does nothing, so that it keeps every contract.
    unsafe { kernel.launch_unbounded(&mut args, &scalars, grid) }.unwrap();

    let too_far = signature.max_grid().checked_add(1);
    if let Some(too_far) = too_far {
        assert!(kernel.launch(&mut args, &scalars, too_far).is_err());
    }
    if args.pop().is_some() {
        assert!(kernel.launch(&mut args, &scalars, grid).is_err());
    }
}
