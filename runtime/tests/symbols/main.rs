//! The symbols that the runtime gives to kernels: each is on the list, compilers call
//! those that they are expected to call, and each does what C says.
//!
//! A helper is tested twice: called by its name, which needs no particular compiler,
//! and from the operation that makes a compiler call it, with every compiler of this
//! machine that does; what the object asks for is read from its symbol table.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod complex;
mod half;
mod integer;
mod libm;
mod memory;
mod vector;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{compilers, kernel, load, object, with};
use object::{Object as _, ObjectSymbol as _};
use svod_runtime::link::{Definition, Image, Resolver, Symbols};
use svod_runtime::{DType, Element, Signature};

/// The symbols that an object asks for.
fn undefined(bytes: &[u8]) -> BTreeSet<String> {
    let file = object::File::parse(bytes).unwrap();
    let symbols = file.symbols().filter(|symbol| symbol.is_undefined());
    symbols.map(|s| s.name().unwrap().to_owned()).collect()
}

/// Calls `void name(To *out, const From *in, long i)` for each element, which is `OUT`
/// and `IN` numbers long.
fn map<From: Element, To: Element, const IN: usize, const OUT: usize>(
    image: &Arc<Image>,
    name: &str,
    input: &[[From; IN]],
) -> Vec<[To; OUT]> {
    let n = input.len();
    let signature = Signature::builder()
        .write(To::DTYPE, n * OUT)
        .read(From::DTYPE, n * IN)
        .index(DType::I64, n as u64)
        .build()
        .unwrap();
    // SAFETY: promised by every test that calls it: the kernel writes element `i` of
    // `out` and reads element `i` of `in`.
    let kernel = unsafe { kernel(image, name, signature) };
    let mut out = common::zeroed(To::DTYPE, n * OUT);
    let input = common::from_slice(input.as_flattened());
    let mut args = [(&mut out).into(), (&input).into()];
    kernel.launch(&mut args, &[], n as u64).unwrap();
    let (elements, rest) = out.as_slice::<To>().unwrap().as_chunks::<OUT>();
    assert!(rest.is_empty());
    elements.to_vec()
}

#[test]
fn every_symbol_of_the_list_can_be_linked() {
    let symbols = Symbols::default();
    let mut names: Vec<&str> = symbols.names().collect();
    names.sort_unstable();
    let declared: String = names
        .iter()
        .map(|n| format!("extern const char t_{n}[] __asm__(\"{n}\");\n"))
        .collect();
    let taken: String = (names.iter().enumerate())
        .map(|(i, n)| format!("out[{i}] = t_{n};\n"))
        .collect();
    let text = format!("{declared} void k(const void **out) {{ {taken} }}");
    let image = load(&object(with(&compilers()[0]), &text)).unwrap();
    let signature = Signature::builder()
        .write(DType::U64, names.len())
        .build()
        .unwrap();
    // SAFETY: it writes one element for each name.
    let kernel = unsafe { kernel(&image, "k", signature) };
    let mut out = common::zeroed(DType::U64, names.len());
    kernel.launch(&mut [(&mut out).into()], &[], 1).unwrap();
    for (name, &got) in names.iter().zip(out.as_slice::<u64>().unwrap()) {
        assert_eq!(
            Some(got),
            symbols.resolve(name).map(Definition::address),
            "{name}"
        );
        assert_ne!(got, 0, "{name}");
    }
}

#[test]
fn what_an_embedder_adds_comes_before_the_list() {
    let mut symbols = Symbols::default();
    for name in ["__divti3", "sin", "_ZGVbN2v_sin", "mine"] {
        // SAFETY: nothing is linked with it.
        unsafe { symbols.insert(name, std::ptr::without_provenance(16)) };
        assert_eq!(symbols.resolve(name), Some(Definition::Function(16)));
    }
    // SAFETY: as above.
    unsafe { symbols.insert_data("sin", std::ptr::without_provenance(32)) };
    assert_eq!(symbols.resolve("sin"), Some(Definition::Data(32)));
    assert_eq!(symbols.names().filter(|name| *name == "sin").count(), 1);
}
