//! A replay from a plan.

use std::collections::HashMap;

use super::super::{BufferRange, Op, Plan, Role, Value, VariableId};
use super::{Address, Replay, Spot, Use, Word};
use crate::Error;
use crate::dispatch::Kernel;
use crate::signature::Convention;

impl Replay {
    /// The frames of a plan's ops, by any kernels of the plan's signatures.
    pub(in crate::plan) fn new(plan: &Plan, kernels: &[Kernel]) -> Result<Replay, Error> {
        let mut making = Making {
            kernels,
            words: Vec::new(),
            addresses: Vec::new(),
            computed: Vec::new(),
            known: HashMap::new(),
            packed: Vec::new(),
            host_args: Vec::new(),
        };
        let mut spots = vec![None; plan.ops.len()];
        // Frames lie in the order in which one thread needs them.
        for &op in &plan.layout.order {
            let op = op as usize;
            let frame = making.here()?;
            let host = making.host_args.len() as u32;
            making.frame(&plan.ops[op])?;
            let mut touches = plan.ops[op].touches(&plan.kernels);
            let writes_state = touches.any(|touch| {
                touch.access.writes() && plan.buffers[touch.range.buffer].role == Role::State
            });
            spots[op] = Some(Spot {
                frame,
                writes_state,
                host,
            });
        }
        // Any further frame would have been refused.
        making.here()?;
        let Making {
            words,
            mut addresses,
            computed,
            packed,
            host_args,
            ..
        } = making;
        addresses.sort_by_key(|(buffer, address)| (*buffer, address.word));
        let mut address_starts = vec![0; plan.buffers.len() + 1];
        for (buffer, _) in &addresses {
            address_starts[buffer + 1] += 1;
        }
        for i in 0..plan.buffers.len() {
            address_starts[i + 1] += address_starts[i];
        }
        Ok(Replay {
            spots: spots.into_iter().flatten().collect(),
            words: words.into(),
            addresses: addresses.into_iter().map(|(_, address)| address).collect(),
            address_starts,
            computed,
            packed,
            host_args,
        })
    }
}

/// What a value is known by.
#[derive(PartialEq, Eq, Hash)]
enum Known {
    Variable(VariableId),
    /// How it is written down.
    Written(String),
}

/// A replay that is being made.
struct Making<'a> {
    kernels: &'a [Kernel],
    words: Vec<u64>,
    addresses: Vec<(usize, Address)>,
    computed: Vec<(Value, Vec<Use>)>,
    /// Which of `computed` a value is.
    known: HashMap<Known, usize>,
    packed: Vec<(u32, u32)>,
    host_args: Vec<u32>,
}

impl Making<'_> {
    /// The next word.
    fn here(&self) -> Result<u32, Error> {
        let here = u32::try_from(self.words.len());
        here.map_err(|_| Error::plan("ops", "more arguments than 32 bits count"))
    }

    fn frame(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Launch(launch) => {
                let kernel = &self.kernels[launch.kernel];
                self.word(&launch.grid, Word::Grid)?;
                let slots = self.words.len();
                self.words.resize(slots + kernel.slots(), 0);
                if kernel.signature().convention() == Convention::Packed {
                    self.packed.push((launch.kernel as u32, slots as u32));
                }
                for (slot, arg) in kernel.buffer_slots().zip(&launch.args) {
                    self.address(slots + slot, arg);
                }
                let params = kernel.signature().scalars().zip(&launch.scalars);
                for (slot, (param, value)) in kernel.scalar_slots().zip(params) {
                    self.set(slots + slot, value, Word::Scalar(param.dtype))?;
                }
            }
            Op::Copy { from, to } => {
                self.push_address(from);
                self.push_address(to);
            }
            Op::Fill { to, dtype, value } => {
                self.push_address(to);
                self.word(value, Word::Scalar(*dtype))?;
            }
            Op::Host(call) => {
                for arg in &call.args {
                    self.push_address(&arg.range);
                }
                self.host_args.push(call.args.len() as u32);
            }
        }
        Ok(())
    }

    fn push_address(&mut self, range: &BufferRange) {
        self.words.push(0);
        self.address(self.words.len() - 1, range);
    }

    fn address(&mut self, word: usize, range: &BufferRange) {
        let address = Address {
            word: word as u32,
            offset: range.offset,
        };
        self.addresses.push((range.buffer, address));
    }

    fn word(&mut self, value: &Value, kind: Word) -> Result<(), Error> {
        self.words.push(0);
        self.set(self.words.len() - 1, value, kind)
    }

    fn set(&mut self, word: usize, value: &Value, kind: Word) -> Result<(), Error> {
        if value.is_constant() {
            let number = value.evaluate(&[]).map_err(Error::run)?;
            self.words[word] = kind.of(number)?;
            return Ok(());
        }
        let known = match value {
            Value::Variable(variable) => Known::Variable(*variable),
            other => Known::Written(format!("{other:?}")),
        };
        let next = self.computed.len();
        let at = *self.known.entry(known).or_insert(next);
        if at == next {
            self.computed.push((value.clone(), Vec::new()));
        }
        let word = word as u32;
        self.computed[at].1.push(Use { word, kind });
        Ok(())
    }
}
