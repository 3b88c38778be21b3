//! A whole model: loads the bundle of handwritten digits and classifies one
//! file of pictures with it.
//!
//! `cargo run --release -p svod-runtime --example classify [BUNDLE [IMAGES.npy]]`

use std::path::PathBuf;

use svod_runtime::bundle::{Bundle, npy};
use svod_runtime::{Error, Runtime};

fn main() -> Result<(), Error> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let path = args.next().unwrap_or_else(|| "examples/digits".into());
    let images = args
        .next()
        .unwrap_or_else(|| path.join("tests/0/images.npy"));

    let bundle = Bundle::open(&path)?;
    let runtime = Runtime::new()?;
    // SAFETY: the bundle is this repository's own, and its kernels keep the
    // signatures that its plan.json states; nobody writes its files meanwhile.
    let executable = unsafe { bundle.load(&runtime, &|_| {})? };
    let mut instance = executable.instance()?;

    let array = npy::read(&images)?;
    instance.set_input("images", array.elements.as_view())?;
    instance.run(&[])?;
    let answers = bundle.answers(&instance, "scores")?;
    for (image, answer) in answers.into_iter().enumerate() {
        let label = bundle.labels().get(answer).map_or("?", String::as_str);
        println!("image {image:2}: {label}");
    }
    Ok(())
}
