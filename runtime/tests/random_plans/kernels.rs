//! Kernels that show any wrong byte: each element that one of them writes follows from
//! every byte that it reads, from its scalar and from the element's place. And each tells
//! what it has read: a digest, by the number of the op that it runs for.
//!
//! They are functions of this program, so that no compiler is needed.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use svod_runtime::plan::Cancel;
use svod_runtime::signature::{Access, Convention, Returns};
use svod_runtime::{Arg, Bounds, DType, Kernel, Signature, ViewMut};

use Access::{Read as R, ReadWrite as RW, Write as W};

/// A kernel, as far as a reader of its code would know it.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) dtype: DType,
    /// What it does with each buffer, of how many elements, at which alignment.
    pub(crate) buffers: &'static [(Access, usize, usize)],
    pub(crate) form: Form,
    /// Whether it writes the elements of odd index alone, and leaves the others.
    pub(crate) odd: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    /// It returns a status.
    Status,
    /// It takes `void **` and `int64_t *`.
    Packed,
    /// Its scalar is an `f64`, so that its calls go through libffi.
    Float,
    /// Each index writes one element, and reads no other of what is written.
    Grid,
}

const fn spec(
    name: &'static str,
    dtype: DType,
    buffers: &'static [(Access, usize, usize)],
    form: Form,
    odd: bool,
) -> Spec {
    Spec {
        name,
        dtype,
        buffers,
        form,
        odd,
    }
}

pub(crate) const SPECS: [Spec; 16] = [
    spec("make", DType::U32, &[(W, 8, 4)], Form::Plain, false),
    spec(
        "map",
        DType::U32,
        &[(W, 16, 4), (R, 16, 4)],
        Form::Plain,
        false,
    ),
    spec(
        "bytes",
        DType::U8,
        &[(W, 24, 1), (R, 5, 1)],
        Form::Plain,
        false,
    ),
    spec(
        "join",
        DType::U64,
        &[(W, 6, 8), (R, 6, 8), (R, 2, 8)],
        Form::Plain,
        false,
    ),
    spec(
        "update",
        DType::U32,
        &[(RW, 8, 4), (R, 12, 4)],
        Form::Plain,
        false,
    ),
    spec(
        "odd",
        DType::U32,
        &[(W, 12, 4), (R, 4, 4)],
        Form::Plain,
        true,
    ),
    spec(
        "odd_update",
        DType::U8,
        &[(RW, 31, 1), (R, 8, 1)],
        Form::Plain,
        true,
    ),
    spec(
        "split",
        DType::U64,
        &[(W, 4, 8), (W, 3, 8), (R, 5, 8)],
        Form::Plain,
        false,
    ),
    spec(
        "swap",
        DType::U32,
        &[(RW, 4, 4), (RW, 6, 4)],
        Form::Plain,
        false,
    ),
    spec(
        "wide",
        DType::U8,
        &[(W, 64, 64), (R, 32, 16)],
        Form::Plain,
        false,
    ),
    spec(
        "gather",
        DType::U8,
        &[
            (W, 16, 1),
            (R, 64, 1),
            (R, 48, 1),
            (R, 32, 1),
            (R, 16, 1),
            (R, 8, 1),
        ],
        Form::Plain,
        false,
    ),
    spec(
        "status",
        DType::U32,
        &[(RW, 8, 4), (R, 8, 4)],
        Form::Status,
        false,
    ),
    spec(
        "packed",
        DType::U8,
        &[(RW, 16, 1), (R, 16, 1), (R, 9, 1)],
        Form::Packed,
        false,
    ),
    spec(
        "float",
        DType::U64,
        &[(W, 8, 8), (R, 4, 8)],
        Form::Float,
        false,
    ),
    spec(
        "each",
        DType::U32,
        &[(W, 16, 4), (R, 8, 4)],
        Form::Grid,
        false,
    ),
    spec(
        "each_update",
        DType::U64,
        &[(RW, 8, 8), (R, 2, 8)],
        Form::Grid,
        false,
    ),
];

impl Spec {
    /// The bytes of a buffer parameter.
    pub(crate) fn bytes(&self, buffer: usize) -> usize {
        self.buffers[buffer].1 * self.dtype.size()
    }

    /// The largest grid: an index for each element of the first buffer.
    pub(crate) fn max_grid(&self) -> usize {
        match self.form {
            Form::Grid => self.buffers[0].1,
            _ => 1,
        }
    }

    fn signature(&self) -> Signature {
        let mut signature = Signature::builder();
        for &(access, len, align) in self.buffers {
            signature = match access {
                R => signature.read(self.dtype, len),
                W => signature.write(self.dtype, len),
                RW => signature.read_write(self.dtype, len),
            };
            signature = signature.align(align);
        }
        let k = match self.form {
            Form::Float => DType::F64,
            _ => DType::I64,
        };
        signature = signature
            .scalar(k, "k", Bounds::Any)
            .scalar(DType::I32, "op", Bounds::Any);
        signature = match self.form {
            Form::Plain | Form::Float => signature,
            Form::Status => signature.returns(Returns::Status),
            Form::Packed => signature.convention(Convention::Packed),
            Form::Grid => signature.index(DType::I32, self.max_grid() as u64),
        };
        signature.build().unwrap()
    }
}

/// The kernels of [`SPECS`].
pub(crate) fn kernels() -> &'static [Kernel] {
    static KERNELS: OnceLock<Vec<Kernel>> = OnceLock::new();
    KERNELS.get_or_init(|| {
        let entries: [*const c_void; SPECS.len()] = [
            one::<0> as *const c_void,
            two::<1> as *const c_void,
            two::<2> as *const c_void,
            three::<3> as *const c_void,
            two::<4> as *const c_void,
            two::<5> as *const c_void,
            two::<6> as *const c_void,
            three::<7> as *const c_void,
            two::<8> as *const c_void,
            two::<9> as *const c_void,
            six::<10> as *const c_void,
            status::<11> as *const c_void,
            packed::<12> as *const c_void,
            float::<13> as *const c_void,
            each::<14> as *const c_void,
            each::<15> as *const c_void,
        ];
        let all = SPECS.iter().zip(entries);
        all.map(|(spec, entry)| {
            // SAFETY: each is a function of as many pointers as its spec has buffers, in
            // the spec's form, and touches through `call` what the spec says.
            unsafe { Kernel::from_entry(spec.name, entry, spec.signature()) }
        })
        .collect()
    })
}

extern "C" fn one<const K: usize>(a: *mut u8, k: i64, op: i32) {
    // SAFETY: called as the signature of `SPECS[K]` says.
    unsafe { call(&SPECS[K], &[a], k as u64, op, 0) }
}

extern "C" fn two<const K: usize>(a: *mut u8, b: *mut u8, k: i64, op: i32) {
    // SAFETY: as above.
    unsafe { call(&SPECS[K], &[a, b], k as u64, op, 0) }
}

extern "C" fn three<const K: usize>(a: *mut u8, b: *mut u8, c: *mut u8, k: i64, op: i32) {
    // SAFETY: as above.
    unsafe { call(&SPECS[K], &[a, b, c], k as u64, op, 0) }
}

#[allow(clippy::too_many_arguments)] // many arguments are the point
extern "C" fn six<const K: usize>(
    a: *mut u8,
    b: *mut u8,
    c: *mut u8,
    d: *mut u8,
    e: *mut u8,
    f: *mut u8,
    k: i64,
    op: i32,
) {
    // SAFETY: as above.
    unsafe { call(&SPECS[K], &[a, b, c, d, e, f], k as u64, op, 0) }
}

/// What a kernel that fails returns.
pub(crate) const FAILED: i32 = 7;

extern "C" fn status<const K: usize>(a: *mut u8, b: *mut u8, k: i64, op: i32) -> i32 {
    // SAFETY: as above.
    unsafe { call(&SPECS[K], &[a, b], k as u64, op, 0) };
    if fails(op as usize) { FAILED } else { 0 }
}

extern "C" fn packed<const K: usize>(buffers: *const *mut u8, values: *const i64) {
    // SAFETY: as above; there are as many pointers as the spec has buffers, and two
    // values.
    unsafe {
        let buffers = std::slice::from_raw_parts(buffers, SPECS[K].buffers.len());
        let (k, op) = (values.read(), values.add(1).read());
        call(&SPECS[K], buffers, k as u64, op as i32, 0);
    }
}

extern "C" fn float<const K: usize>(a: *mut u8, b: *mut u8, k: f64, op: i32) {
    // SAFETY: as above.
    unsafe { call(&SPECS[K], &[a, b], k.to_bits(), op, 0) }
}

extern "C" fn each<const K: usize>(a: *mut u8, b: *mut u8, k: i64, op: i32, index: i32) {
    // SAFETY: as above.
    unsafe { call(&SPECS[K], &[a, b], k as u64, op, index as usize) }
}

/// # Safety
///
/// The buffers must be as the spec's signature says, and those that are written share no
/// byte with others.
unsafe fn call(spec: &Spec, buffers: &[*mut u8], k: u64, op: i32, index: usize) {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for (i, (&start, &(access, ..))) in buffers.iter().zip(spec.buffers).enumerate() {
        let (from, to) = spec.touched(i, index);
        // SAFETY: this part of the buffer is what this call may touch, and bytes are of
        // any alignment.
        unsafe {
            let start = start.add(from);
            if access.writes() {
                writes.push(Written {
                    bytes: std::slice::from_raw_parts_mut(start, to - from),
                    reads: access.reads(),
                    first: from / spec.dtype.size(),
                });
            } else {
                reads.push(std::slice::from_raw_parts(start, to - from));
            }
        }
    }
    let op = op as usize;
    let digest = mix(op, k, &reads, &mut writes, spec.dtype.size(), spec.odd);
    tell(op, digest);
}

impl Spec {
    /// Which bytes of a buffer the call for one index touches.
    pub(crate) fn touched(&self, buffer: usize, index: usize) -> (usize, usize) {
        if self.form == Form::Grid && self.buffers[buffer].0.writes() {
            let size = self.dtype.size();
            (index * size, (index + 1) * size)
        } else {
            (0, self.bytes(buffer))
        }
    }
}

/// What a kernel or a host function may write.
pub(crate) struct Written<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// Whether it reads what was there.
    pub(crate) reads: bool,
    /// Which element of its buffer the first one is.
    pub(crate) first: usize,
}

/// What every kernel and every host function does: it returns a digest of the op's number,
/// `k` and all that it reads, and writes elements that follow from the digest and their
/// place. No two ops write the same.
pub(crate) fn mix(
    op: usize,
    k: u64,
    reads: &[&[u8]],
    writes: &mut [Written<'_>],
    size: usize,
    odd: bool,
) -> u64 {
    let was_there = writes.iter().filter(|w| w.reads).map(|w| &*w.bytes);
    let all = reads.iter().copied().chain(was_there);
    let digest = all.fold(scramble(k ^ scramble(op as u64)), |digest, bytes| {
        let absorb = |digest: u64, &byte| {
            (digest.rotate_left(23) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        scramble(bytes.iter().fold(digest, absorb))
    });
    for (n, written) in writes.iter_mut().enumerate() {
        for (i, element) in written.bytes.chunks_mut(size).enumerate() {
            let i = written.first + i;
            if !odd || i % 2 == 1 {
                let place = (n << 32 | i) as u64;
                let value = scramble(digest.wrapping_add(place)).to_le_bytes();
                element.copy_from_slice(&value[..element.len()]);
            }
        }
    }
    digest
}

fn scramble(x: u64) -> u64 {
    crate::common::Rng(x).next()
}

/// Does what a kernel does to the arguments of a host function, and tells what it has read
/// and where.
pub(crate) fn mix_host(op: usize, k: u64, args: &mut [Arg<'_>], read_too: &[bool], odd: bool) {
    let mut held: Vec<Vec<u8>> = Vec::new();
    for arg in &*args {
        if let Arg::Write(view) = arg {
            held.push(view.as_view().as_bytes().to_vec());
        }
    }
    let is_write = |arg: &&Arg<'_>| matches!(arg, Arg::Write(_));
    let size = args.iter().find(is_write).map_or(1, |arg| match arg {
        Arg::Read(view) => view.dtype().size(),
        Arg::Write(view) => view.dtype().size(),
    });
    let reads: Vec<&[u8]> = args
        .iter()
        .filter_map(|arg| match arg {
            Arg::Read(view) => Some(view.as_bytes()),
            Arg::Write(_) => None,
        })
        .collect();
    let mut writes: Vec<_> = held
        .iter_mut()
        .zip(read_too)
        .map(|(bytes, &reads)| Written {
            bytes,
            reads,
            first: 0,
        })
        .collect();
    let digest = mix(op, k, &reads, &mut writes, size, odd);
    tell(op, digest);
    let starts = reads.iter().map(|bytes| (op, bytes.as_ptr().addr()));
    if listens() {
        ADDRESSES.with_borrow_mut(|addresses| addresses.extend(starts));
    }
    let views = args.iter_mut().filter_map(|arg| match arg {
        Arg::Read(_) => None,
        Arg::Write(view) => Some(view),
    });
    for (view, bytes) in views.zip(&held) {
        store(view.reborrow(), bytes);
    }
}

/// Writes bytes over all elements of a view.
pub(crate) fn store(view: ViewMut<'_>, bytes: &[u8]) {
    match view.dtype() {
        DType::U8 => view.into_slice::<u8>().unwrap().copy_from_slice(bytes),
        DType::U32 => {
            let elements = view.into_slice::<u32>().unwrap();
            for (element, bytes) in elements.iter_mut().zip(bytes.as_chunks().0) {
                *element = u32::from_le_bytes(*bytes);
            }
        }
        DType::U64 => {
            let elements = view.into_slice::<u64>().unwrap();
            for (element, bytes) in elements.iter_mut().zip(bytes.as_chunks().0) {
                *element = u64::from_le_bytes(*bytes);
            }
        }
        other => panic!("no plan here has {other}"),
    }
}

// A run that has no team calls its kernels on the thread that asked for it.
thread_local! {
    static SEEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static ADDRESSES: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
    static FAILING: RefCell<Option<usize>> = const { RefCell::new(None) };
}

/// Whether this thread listens to a run of its own.
fn listens() -> bool {
    SEEN.with_borrow(|seen| !seen.is_empty())
}

/// What the ops of a run have read that is on several threads. No order is asked of it,
/// so that it hides no race.
static SEEN_BY_ALL: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// The ops that fail, and the one that cancels, on whatever thread: a bit for each.
static FAILING_ON_ALL: AtomicU64 = AtomicU64::new(0);
static CANCELLING: AtomicU64 = AtomicU64::new(0);

/// Notes what an op has read: of a grid, the sum of what its calls have.
pub(crate) fn tell(op: usize, digest: u64) {
    let own = SEEN.with_borrow_mut(|seen| {
        let seen = seen.get_mut(op)?;
        *seen = seen.wrapping_add(digest);
        Some(())
    });
    if own.is_none() {
        SEEN_BY_ALL[op].fetch_add(digest, Ordering::Relaxed);
        if CANCELLING.load(Ordering::Relaxed) >> op & 1 == 1 {
            switch().cancel();
        }
    }
}

/// What [`cancel_in`] has an op throw.
pub(crate) fn switch() -> &'static Cancel {
    static SWITCH: OnceLock<Cancel> = OnceLock::new();
    SWITCH.get_or_init(Cancel::new)
}

/// As [`listen`], to a run that may be on several threads; one at a time.
pub(crate) fn listen_to_all<T>(ops: usize, run: impl FnOnce() -> T) -> (T, Vec<u64>) {
    for seen in &SEEN_BY_ALL {
        seen.store(0, Ordering::Relaxed);
    }
    let result = run();
    let seen = SEEN_BY_ALL[..ops].iter();
    (result, seen.map(|s| s.load(Ordering::Relaxed)).collect())
}

/// Has these ops fail on whatever thread they run, those that can.
pub(crate) fn fail_on_all(ops: &[usize]) {
    let bits = ops.iter().fold(0, |bits, op| bits | 1 << op);
    FAILING_ON_ALL.store(bits, Ordering::Relaxed);
}

/// Has an op throw the [switch] on whatever thread it runs.
pub(crate) fn cancel_in(op: Option<usize>) {
    CANCELLING.store(op.map_or(0, |op| 1 << op), Ordering::Relaxed);
}

/// What each op of a plan has read during `run`; 0 for copies and fills, and for what did
/// not run.
pub(crate) fn listen<T>(ops: usize, run: impl FnOnce() -> T) -> (T, Vec<u64>) {
    SEEN.set(vec![0; ops]);
    ADDRESSES.set(Vec::new());
    let result = run();
    (result, SEEN.take())
}

/// Where the arguments lay that a host function has read in the last run of this thread.
pub(crate) fn addresses(op: usize) -> Vec<usize> {
    let of_op = |(other, address): &(usize, usize)| (*other == op).then_some(*address);
    ADDRESSES.with_borrow(|all| all.iter().filter_map(of_op).collect())
}

/// Has one op fail in the runs of this thread, if it is one that can.
pub(crate) fn fail_at(op: Option<usize>) {
    FAILING.set(op);
}

/// Whether an op is to fail.
pub(crate) fn fails(op: usize) -> bool {
    if listens() {
        return FAILING.with_borrow(|failing| *failing == Some(op));
    }
    FAILING_ON_ALL.load(Ordering::Relaxed) >> op & 1 == 1
}
