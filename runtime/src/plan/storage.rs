//! The memory of one instance.

use std::collections::HashMap;
use std::ptr::NonNull;

use super::{Executable, PlanBuffer, Role};
use crate::Error;
use crate::memory::{Arena, Buffer, Constant, Filling, Guard};
use crate::signature::DType;

/// What one instance owns: the arena that its temps share, and memory for each buffer
/// that shares none.
#[derive(Debug)]
pub(super) struct Storage {
    arena: Option<Arena>,
    own: Vec<Option<Buffer>>,
    /// Where those buffers begin that are the caller's.
    lent: Lent,
    /// What takes the place of the executable's constants.
    replaced: HashMap<usize, Constant>,
}

/// Memory of the caller's that an instance has for good, by the number of the buffer that it is.
pub(super) type Lent = HashMap<usize, NonNull<u8>>;

impl Storage {
    pub(super) fn new(executable: &Executable, lent: Lent) -> Result<Storage, Error> {
        let plan = executable.plan();
        let separate = executable.separates_temps();
        let guard = executable.guard();
        let mut own = Vec::with_capacity(plan.buffers.len());
        for (i, buffer) in plan.buffers.iter().enumerate() {
            let shared = match buffer.role {
                _ if lent.contains_key(&i) => true,
                Role::Constant => guard == Guard::Off,
                // One that no op uses is nowhere.
                Role::Temp => !separate || plan.layout.offsets[i].is_none(),
                Role::Input | Role::State | Role::Output => false,
            };
            own.push(if shared {
                None
            } else {
                let described = |e| describe(e, &plan.name, &plan.described(i), buffer.bytes);
                Some(allocate(buffer, guard).map_err(described)?)
            });
        }
        let bytes = plan.layout.memory.arena;
        let arena = (!separate)
            .then(|| Arena::new(bytes))
            .transpose()
            .map_err(|e| describe(e, &plan.name, "the arena", bytes))?;
        let mut storage = Storage {
            arena,
            own,
            lent,
            replaced: HashMap::new(),
        };
        for (i, buffer) in plan.buffers.iter().enumerate() {
            if let (Role::Constant | Role::State, Some(content)) =
                (buffer.role, &executable.contents()[i])
                && let Some(own) = &mut storage.own[i]
            {
                own.begin_with(content.as_bytes());
            }
            if let (Role::Constant, Some(own)) = (buffer.role, &mut storage.own[i]) {
                own.make_read_only()?;
            }
        }
        Ok(storage)
    }

    /// Where a buffer of the plan begins. What is a constant must only be read there.
    pub(super) fn base(&self, executable: &Executable, buffer: usize) -> NonNull<u8> {
        if let Some(own) = &self.own[buffer] {
            return own.as_view().start();
        }
        if let Some(lent) = self.lent.get(&buffer) {
            return *lent;
        }
        let placed = executable.plan().layout.offsets[buffer];
        if let (Some(arena), Some(offset)) = (&self.arena, placed) {
            // SAFETY: temps are placed within the arena, which is as long as the plan
            // says; those of no bytes at its start.
            return unsafe { arena.start().byte_add(offset) };
        }
        let constant = self.replaced.get(&buffer);
        let constant = constant.or(executable.contents()[buffer].as_ref());
        // Not of an executable, all of whose constants have contents.
        constant.map_or(NonNull::dangling(), Constant::start)
    }

    /// The memory of a buffer that shares none.
    pub(super) fn own(&self, buffer: usize) -> Option<&Buffer> {
        self.own[buffer].as_ref()
    }

    /// The memory of a buffer that shares none, for writing.
    pub(super) fn own_mut(&mut self, buffer: usize) -> Option<&mut Buffer> {
        self.own[buffer].as_mut()
    }

    /// The buffers that share no memory, by their numbers.
    pub(super) fn all_own_mut(&mut self) -> impl Iterator<Item = (usize, &mut Buffer)> {
        let all = self.own.iter_mut().enumerate();
        all.filter_map(|(i, own)| Some((i, own.as_mut()?)))
    }

    /// Copies contents of the buffer's size to a buffer that shares no memory; to
    /// others, which lie where their contents do, nothing is to be copied.
    pub(super) fn copy(&mut self, buffer: usize, content: &Constant) {
        if let Some(own) = &mut self.own[buffer] {
            own.overwrite(content.as_bytes());
        }
    }

    /// What takes the place of a constant, which is of the buffer's type and size: the
    /// other one, or a copy where it is guarded.
    pub(super) fn replacement(
        &self,
        i: usize,
        buffer: &PlanBuffer,
        constant: &Constant,
        guard: Guard,
    ) -> Result<Replacement, Error> {
        if self.own[i].is_none() {
            return Ok(Replacement::Shared(constant.clone()));
        }
        let mut copy = allocate(buffer, guard)?;
        copy.overwrite(constant.as_bytes());
        copy.make_read_only()?;
        Ok(Replacement::Own(copy))
    }

    pub(super) fn replace(&mut self, i: usize, replacement: Replacement) {
        match replacement {
            Replacement::Own(copy) => self.own[i] = Some(copy),
            Replacement::Shared(constant) => {
                self.replaced.insert(i, constant);
            }
        }
    }

    /// Fills temps and outputs, and the slack beside every guarded buffer.
    pub(super) fn fill_scratch(
        &mut self,
        executable: &Executable,
        filling: Filling,
    ) -> Result<(), Error> {
        let plan = executable.plan();
        for (i, buffer) in plan.buffers.iter().enumerate() {
            let elements = filling.elements(buffer.dtype);
            match (&mut self.own[i], &mut self.arena, plan.layout.offsets[i]) {
                (Some(own), _, _) => {
                    if matches!(buffer.role, Role::Temp | Role::Output) {
                        own.fill(elements);
                    }
                    own.fill_slack(filling.slack(buffer.dtype))?;
                }
                (None, Some(arena), Some(offset)) => {
                    arena.fill_temp(offset, buffer.bytes, elements)
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the arena's memory back to the system.
    pub(super) fn trim(&mut self) {
        if let Some(arena) = &mut self.arena {
            arena.trim();
        }
    }
}

/// See [`Storage::replacement`].
pub(super) enum Replacement {
    Own(Buffer),
    Shared(Constant),
}

fn allocate(buffer: &PlanBuffer, guard: Guard) -> Result<Buffer, Error> {
    let dtype = buffer.dtype.unwrap_or(DType::U8);
    Buffer::guarded(dtype, buffer.bytes / dtype.size(), buffer.align, guard)
}

/// The same error, saying of which plan it is.
fn describe(error: Error, plan: &str, what: &str, bytes: usize) -> Error {
    match error {
        Error::OutOfMemory { .. } => Error::OutOfMemory {
            what: format!("{what} of the plan `{plan}`"),
            bytes,
        },
        other => other,
    }
}
