//! The plan's buffers, each in memory of its own, and which bytes of scratch were written.

use crate::memory::Constant;
use crate::plan::{BufferRange, Plan, Role};

/// All buffers of a plan.
#[derive(Debug)]
pub(super) struct Memory {
    buffers: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    content: Content,
    /// Of a temp or an output: for each byte, whether no op has written it in this run.
    unwritten: Option<Vec<bool>>,
}

#[derive(Debug)]
enum Content {
    Constant(Constant),
    Own(Vec<u8>),
}

impl Memory {
    /// With these contents of constants; states begin as [`reset`](Self::reset) leaves them.
    pub(super) fn new(plan: &Plan, contents: &[Option<Constant>]) -> Memory {
        let buffers = plan.buffers().iter().zip(contents).map(|(buffer, given)| {
            let content = match given {
                Some(constant) if buffer.role == Role::Constant => {
                    Content::Constant(constant.clone())
                }
                _ => Content::Own(vec![0; buffer.bytes]),
            };
            let scratch = matches!(buffer.role, Role::Temp | Role::Output);
            Held {
                content,
                unwritten: scratch.then(|| vec![true; buffer.bytes]),
            }
        });
        let mut memory = Memory {
            buffers: buffers.collect(),
        };
        memory.reset(plan, contents);
        memory
    }

    /// Puts states back to what they were at the start.
    pub(super) fn reset(&mut self, plan: &Plan, contents: &[Option<Constant>]) {
        for ((held, buffer), content) in self.buffers.iter_mut().zip(plan.buffers()).zip(contents) {
            if let (Role::State, Content::Own(own)) = (buffer.role, &mut held.content) {
                match content {
                    Some(content) => own.copy_from_slice(content.as_bytes()),
                    None => own.fill(0),
                }
            }
        }
    }

    /// A run begins: nothing of temps and outputs was written.
    pub(super) fn begin(&mut self) {
        for held in &mut self.buffers {
            if let Some(unwritten) = &mut held.unwritten {
                unwritten.fill(true);
            }
        }
    }

    pub(super) fn bytes(&self, range: &BufferRange) -> &[u8] {
        let all = match &self.buffers[range.buffer].content {
            Content::Constant(constant) => constant.as_bytes(),
            Content::Own(own) => own,
        };
        &all[range.offset..range.offset + range.bytes]
    }

    /// For each byte of a range, whether no op has written it; none where all are written.
    pub(super) fn unwritten(&self, range: &BufferRange) -> Option<&[bool]> {
        let all = self.buffers[range.buffer].unwritten.as_ref()?;
        let part = &all[range.offset..range.offset + range.bytes];
        part.contains(&true).then_some(part)
    }

    /// Writes bytes into a range, from `at` on.
    pub(super) fn write(&mut self, range: &BufferRange, at: usize, bytes: &[u8]) {
        let held = &mut self.buffers[range.buffer];
        let part = range.offset + at..range.offset + at + bytes.len();
        if let Content::Own(own) = &mut held.content {
            own[part.clone()].copy_from_slice(bytes);
        }
        if let Some(unwritten) = &mut held.unwritten {
            unwritten[part].fill(false);
        }
    }

    /// Copies a range; what was not written is not written there either.
    pub(super) fn copy(&mut self, from: &BufferRange, to: &BufferRange) {
        let bytes = self.bytes(from).to_vec();
        let unwritten = self.unwritten(from).map(<[bool]>::to_vec);
        self.write(to, 0, &bytes);
        let held = self.buffers[to.buffer].unwritten.as_mut();
        if let (Some(unwritten), Some(held)) = (unwritten, held) {
            held[to.offset..to.offset + to.bytes].copy_from_slice(&unwritten);
        }
    }

    /// Repeats an element over a range.
    pub(super) fn fill(&mut self, to: &BufferRange, element: &[u8]) {
        let bytes: Vec<u8> = element.iter().copied().cycle().take(to.bytes).collect();
        self.write(to, 0, &bytes);
    }
}
