//! Whether two plans do the same with the same memory.

use super::{BufferRange, HostCall, Launch, Op, Plan, Value};
use crate::Error;
use crate::error::Place;
use crate::signature::Number;

impl Plan {
    /// Checks that another plan has the same ops over the same buffers, so that what one does
    /// in an op the other does in the op of the same number: variables, buffers, what kernels
    /// expect, and each op with all that it is given are the same. Names of kernels, of host
    /// functions and of buffers other than inputs may differ, and so may what computes them.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`] names the first place at which they are not alike, and how.
    pub fn check_alike(&self, other: &Plan) -> Result<(), Error> {
        let unlike = |place, reason: String| Err(Error::plan(place, reason));
        let counts = [
            ("variables", self.variables.len(), other.variables.len()),
            ("kernels", self.kernels.len(), other.kernels.len()),
            ("buffers", self.buffers.len(), other.buffers.len()),
            ("ops", self.ops.len(), other.ops.len()),
        ];
        for (what, ours, theirs) in counts {
            if ours != theirs {
                return unlike(
                    what.into(),
                    format!("one plan has {ours}, the other {theirs}"),
                );
            }
        }
        for (i, (a, b)) in self.variables.iter().zip(&other.variables).enumerate() {
            if a != b {
                let variable =
                    |v: &super::Variable| format!("`{}` in {}..={}", v.name, v.min, v.max);
                let reason = format!("one is {}, the other {}", variable(a), variable(b));
                return unlike(Place::at("variables", i), reason);
            }
        }
        for (i, (a, b)) in self.kernels.iter().zip(&other.kernels).enumerate() {
            if a.signature != b.signature {
                let reason = format!("`{}` and `{}` expect different things", a.entry, b.entry);
                return unlike(Place::at("kernels", i), reason);
            }
        }
        for (i, (a, b)) in self.buffers.iter().zip(&other.buffers).enumerate() {
            let named = a.role != super::Role::Input || a.name == b.name;
            if !named
                || (a.role, a.dtype, &a.shape, a.bytes) != (b.role, b.dtype, &b.shape, b.bytes)
            {
                let [ours, theirs] = [self, other].map(|plan| plan.typed(i));
                let reason = format!("one is {ours}, the other {theirs}");
                return unlike(Place::at("buffers", i), reason);
            }
        }
        for (i, (a, b)) in self.ops.iter().zip(&other.ops).enumerate() {
            if !same_op(a, b) {
                let (ours, theirs) = (self.op_label(i), other.op_label(i));
                let reason = match ours == theirs {
                    true => format!("each is a {ours}, over different bytes or with other numbers"),
                    false => format!("one is a {ours}, the other a {theirs}"),
                };
                return unlike(Place::at("ops", i), reason);
            }
        }
        Ok(())
    }

    /// ``temp `t` of [2, 4] f32``
    fn typed(&self, i: usize) -> String {
        let buffer = &self.buffers[i];
        let dtype = buffer.dtype.map_or("bytes", |dtype| dtype.name());
        let (role, label) = (buffer.role.name(), self.buffer_label(i));
        format!("{role} {label} of {:?} {dtype}", buffer.shape)
    }
}

fn same_op(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (Op::Launch(a), Op::Launch(b)) => same_launch(a, b),
        (Op::Copy { from: a, to: c }, Op::Copy { from: b, to: d }) => (a, c) == (b, d),
        (
            Op::Fill {
                to: a,
                dtype: t,
                value: v,
            },
            Op::Fill {
                to: b,
                dtype: u,
                value: w,
            },
        ) => a == b && t == u && same_value(v, w),
        (Op::Host(HostCall { args: a, .. }), Op::Host(HostCall { args: b, .. })) => a == b,
        _ => false,
    }
}

fn same_launch(a: &Launch, b: &Launch) -> bool {
    let args: [&[BufferRange]; 2] = [&a.args, &b.args];
    let scalars = a.scalars.iter().zip(&b.scalars);
    a.kernel == b.kernel
        && args[0] == args[1]
        && a.scalars.len() == b.scalars.len()
        && scalars.into_iter().all(|(a, b)| same_value(a, b))
        && a.grid == b.grid
}

/// A NaN is the same as itself.
fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(Number::Float(a)), Value::Number(Number::Float(b))) => {
            a.to_bits() == b.to_bits()
        }
        _ => a == b,
    }
}
