//! What rustc emits for numeric code.

use std::path::Path;
use std::process::Command;

use svod_runtime::link::{Definition, Image, ObjectFile, Resolver, Symbols};

use crate::common::kernel;
use crate::kernels::{self, Kernels};
use crate::system::{Library, succeed};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/numeric.rs");

fn rustc(flags: &str, output: &Path) {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "-A", "warnings", SOURCE]);
    command.args(flags.split_whitespace()).arg("-o").arg(output);
    succeed(&mut command);
}

/// The runtime's symbols, and the functions that code in Rust panics by: with them an
/// embedder says what becomes of a panic.
struct WithPanics(Symbols);

extern "C" fn never() {
    panic!("a kernel panicked");
}

impl Resolver for WithPanics {
    fn resolve(&self, name: &str) -> Option<Definition> {
        // Mangled: of the crate `core`, and named for what fails.
        let panics = name.starts_with("_R")
            && name.contains("4core")
            && (name.contains("panic") || name.contains("fail"));
        let never = Definition::Function(never as *const () as u64);
        self.0.resolve(name).or(panics.then_some(never))
    }
}

#[test]
fn numeric_code_of_rustc_gives_what_the_systems_loader_gives_at_every_level() {
    let dir = tempfile::tempdir().unwrap();
    let symbols = WithPanics(Symbols::default());
    for level in ["0", "1", "2", "3", "s"] {
        for form in ["", "-Crelocation-model=static", "-Ccode-model=large"] {
            let flags = format!("-Copt-level={level} -Cdebug-assertions=no -Coverflow-checks=no");
            let library = dir.path().join(format!("{level}.so"));
            rustc(
                &format!("--crate-type=cdylib --cfg with_std {flags}"),
                &library,
            );
            let library = Library::open(&library);

            let object = dir.path().join(format!("{level}.o"));
            let lone = "--crate-type=lib --emit=obj -Cpanic=abort -Ccodegen-units=1";
            rustc(&format!("{lone} {flags} {form}"), &object);
            let Kernels { names, bytes } = Kernels::of(&object);
            assert!(names.len() >= 9, "{names:?}");
            let file = ObjectFile::parse("numeric", &bytes).unwrap();
            let image = Image::load(&file, &symbols);
            let image = image
                .unwrap_or_else(|e| panic!("{level} {form}: {e}"))
                .into();
            for name in &names {
                // SAFETY: its kernels read and write 4096 bytes, as those in C.
                let kernel = unsafe { kernel(&image, name, kernels::signature()) };
                let got = kernels::launch(&kernel, name);
                // SAFETY: as above.
                let expected = unsafe { kernels::call(library.function(name), name) };
                assert!(got == expected, "{level} {form}: {name}");
            }
        }
    }
}
