//! What every kernel of the zoo is launched over.

use svod_runtime::sandbox::{Launch, Untrusted};
use svod_runtime::{Bounds, Buffer, DType, Scalar, Signature};

use crate::cases::Case;

/// The arguments of a launch, in ordinary memory.
#[derive(Debug)]
pub(crate) struct Data {
    y: Buffer,
    x: Buffer,
    v: Buffer,
    n: Buffer,
}

/// What the kernels say of themselves.
pub(crate) fn signature() -> Signature {
    Signature::builder()
        .write(DType::F32, 10)
        .read(DType::F32, 40)
        .read_write(DType::F64, 8)
        .read(DType::I32, 5)
        .scalar(DType::I64, "at", Bounds::Any)
        .index(DType::I32, 100)
        .returns(svod_runtime::signature::Returns::Status)
        .build()
        .unwrap()
}

impl Data {
    pub(crate) fn new() -> Data {
        let x: Vec<f32> = (0..40_u8).map(f32::from).collect();
        let v: Vec<f64> = (0..8_u8).map(f64::from).collect();
        Data {
            y: crate::common::zeroed(DType::F32, 10),
            x: crate::common::from_slice(&x),
            v: crate::common::from_slice(&v),
            n: crate::common::from_slice(&[0, 1, 2, 3, -1]),
        }
    }

    pub(crate) fn y(&self) -> &[f32] {
        self.y.as_slice().unwrap()
    }

    pub(crate) fn v(&self) -> &[f64] {
        self.v.as_slice().unwrap()
    }

    fn x(&self) -> &[f32] {
        self.x.as_slice().unwrap()
    }

    fn n(&self) -> &[i32] {
        self.n.as_slice().unwrap()
    }

    /// What is only read is as it was.
    pub(crate) fn check_constants(&self) {
        let new = Data::new();
        assert_eq!((self.x(), self.n()), (new.x(), new.n()));
    }

    pub(crate) fn launch<'a>(&'a mut self, kernel: &'a Untrusted, case: &Case) -> Launch<'a> {
        let args = vec![
            (&mut self.y).into(),
            (&self.x).into(),
            (&mut self.v).into(),
            (&self.n).into(),
        ];
        Launch::new(kernel, args, &[Scalar::I64(case.at)], case.grid).guard(case.guard)
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        (self.y(), self.x(), self.v(), self.n()) == (other.y(), other.x(), other.v(), other.n())
    }
}
