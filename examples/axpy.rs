//! One kernel: from C text to its result.
//!
//! `cargo run --release -p svod-runtime --example axpy`

use svod_runtime::{Arg, Bounds, Buffer, DType, Error, Runtime, Signature, Source};

fn main() -> Result<(), Error> {
    let runtime = Runtime::new()?;
    let source = Source::c(
        "axpy",
        "void axpy(float *restrict y, const float *restrict x, float a, int i) { y[i] += a * x[i]; }",
    );
    let signature = Signature::builder()
        .read_write(DType::F32, 4)
        .read(DType::F32, 4)
        .scalar(DType::F32, "a", Bounds::Any)
        .index(DType::I32, 4)
        .build()?;
    // SAFETY: for each i in [0, 4) the kernel touches y[i] and x[i], and writes only y[i].
    let axpy = unsafe { runtime.load(&source, signature)? };

    let x = Buffer::from_slice(&[1.0_f32, 2.0, 3.0, 4.0])?;
    let mut y = Buffer::zeroed(DType::F32, 4)?;
    axpy.launch(
        &mut [Arg::from(&mut y), Arg::from(&x)],
        &[0.5_f32.into()],
        4,
    )?;
    println!("{:?}", y.as_slice::<f32>()?);
    Ok(())
}
