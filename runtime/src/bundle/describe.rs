//! A checked plan as `plan.json` states it: the way back of what [`read`](super::read)
//! does.

use super::schema::{
    Named, RawArg, RawBuffer, RawCopy, RawFill, RawKernel, RawLanguage, RawObject, RawOp,
    RawOutput, RawPart, RawPlan, RawValue, RawVariable,
};
use crate::Error;
use crate::error::Place;
use crate::plan::{BufferRange, Launch, Op, Plan, PlanBuffer, Value};
use crate::signature::Number;

/// What a kernel is made from: paths in the bundle.
pub(super) struct Code {
    pub(super) source: Option<(String, RawLanguage)>,
    pub(super) objects: Vec<RawObject>,
}

/// States a plan whose kernels are made from `code` and whose buffers hold `tensors`.
/// It has no producer, tests or classifier yet.
pub(super) fn describe(
    plan: &Plan,
    code: Vec<Code>,
    tensors: Vec<Option<String>>,
) -> Result<RawPlan, Error> {
    let variables = plan.variables().iter().map(|v| {
        let (min, max) = (v.min, v.max);
        (v.name.clone(), RawVariable { min, max })
    });
    let kernels = plan.kernels().iter().zip(code).map(|(kernel, code)| {
        let (source, language) = code.source.unzip();
        RawKernel {
            entry: kernel.entry.clone(),
            source,
            language,
            params: kernel.signature.params().to_vec(),
            convention: kernel.signature.convention(),
            returns: kernel.signature.returns(),
            objects: code.objects,
        }
    });
    let buffers = plan.buffers().iter().zip(tensors);
    let buffers = buffers.map(|(buffer, tensor)| self::buffer(buffer, tensor));
    let outputs = plan.outputs().iter().map(|output| RawOutput {
        name: output.name.clone(),
        buffer: output.range.buffer,
        offset: output.range.offset,
        dtype: output.dtype,
        shape: output.shape.clone(),
    });
    Ok(RawPlan {
        name: plan.name().to_owned(),
        producer: String::new(),
        variables: Named(variables.collect()),
        kernels: kernels.collect(),
        buffers: buffers.collect(),
        ops: ops(plan)?,
        outputs: outputs.collect(),
        tests: Vec::new(),
        classifier: None,
    })
}

fn buffer(buffer: &PlanBuffer, tensor: Option<String>) -> RawBuffer {
    RawBuffer {
        name: buffer.name.clone(),
        role: buffer.role,
        dtype: buffer.dtype,
        shape: buffer.dtype.map(|_| buffer.shape.clone()),
        bytes: buffer.dtype.is_none().then_some(buffer.bytes),
        tensor,
    }
}

fn ops(plan: &Plan) -> Result<Vec<RawOp>, Error> {
    let mut ops = Vec::new();
    let mut functions = Vec::new();
    for (i, op) in plan.ops().iter().enumerate() {
        let place = Place::at("ops", i);
        ops.push(match op {
            Op::Launch(launch) => self::launch(plan, &place, launch)?,
            Op::Copy { from, to } => RawOp {
                copy: Some(RawCopy {
                    from: arg(plan, from),
                    to: arg(plan, to),
                }),
                ..RawOp::default()
            },
            Op::Fill { to, dtype, value } => RawOp {
                fill: Some(RawFill {
                    to: arg(plan, to),
                    dtype: *dtype,
                    value: self::value(plan, &place.key("fill").key("value"), value)?,
                }),
                ..RawOp::default()
            },
            // All of them are named, so that nobody has to find them one by one.
            Op::Host(call) => {
                functions.push(format!("`{}` ({place})", call.function.name()));
                continue;
            }
        });
    }
    if !functions.is_empty() {
        let functions = functions.join(", ");
        let reason = format!("a bundle cannot hold functions of the embedder's: {functions}");
        return Err(Error::plan("ops", reason));
    }
    Ok(ops)
}

fn launch(plan: &Plan, place: &Place, launch: &Launch) -> Result<RawOp, Error> {
    let params = plan.kernels()[launch.kernel].signature.scalars();
    let scalars = params.zip(&launch.scalars).map(|(param, value)| {
        let place = place.key("scalars").key(&param.name);
        Ok((param.name.clone(), self::value(plan, &place, value)?))
    });
    let grid = match &launch.grid {
        Value::Number(Number::Int(1)) => None,
        grid => Some(self::value(plan, &place.key("grid"), grid)?),
    };
    let estimate = |n: Option<u64>| n.map(|n| Number::Int(n.into()));
    Ok(RawOp {
        launch: Some(launch.kernel),
        args: Some(launch.args.iter().map(|range| arg(plan, range)).collect()),
        scalars: Named(scalars.collect::<Result<_, Error>>()?),
        grid,
        flops: estimate(launch.flops),
        bytes: estimate(launch.bytes),
        ..RawOp::default()
    })
}

fn arg(plan: &Plan, range: &BufferRange) -> RawArg {
    let BufferRange {
        buffer,
        offset,
        bytes,
    } = *range;
    if offset == 0 && bytes == plan.buffers()[buffer].bytes {
        return RawArg::Whole(buffer);
    }
    RawArg::Part(RawPart {
        buffer,
        offset,
        bytes,
    })
}

fn value(plan: &Plan, place: &Place, value: &Value) -> Result<RawValue, Error> {
    Ok(match value {
        Value::Number(Number::Float(v)) if !v.is_finite() => {
            let reason = format!("{v} cannot be written: JSON has no such number");
            return Err(Error::plan(place.clone(), reason));
        }
        Value::Number(number) => RawValue::Number(*number),
        Value::Variable(id) => RawValue::Variable(plan.variables()[id.0].name.clone()),
        Value::Op(expression) => {
            let [a, b] = expression.operands();
            let operands = [self::value(plan, place, a)?, self::value(plan, place, b)?];
            RawValue::Op(expression.operator(), Box::new(operands))
        }
        Value::TooDeep => return Err(Error::plan(place.clone(), "it is nested too deep")),
    })
}
