//! Which earlier ops an op must come after: the search over the bytes that ops touch.
//!
//! For each stretch of memory it keeps who wrote it last and who has read it since. Who
//! writes comes after the readers, or after the writer where nobody has read; who reads,
//! after the writer. Whatever came before those follows from them, so that few edges are
//! found that say nothing new. A write ends the stretches that it covers, and no others:
//! what an older op wrote beside it is still that op's.

use std::collections::BTreeMap;

/// The most steps that the search for hazards takes, of some 5 ns and 16 bytes each, so
/// that it ends after 0.1 s and a quarter of a gigabyte. Five thousand ops that each read
/// what five thousand others wrote in parts exceed it, and are refused; plans of models
/// take some 10 steps an op. 4 billion is where the tables' numbers end.
const MAX_HAZARD_STEPS: u64 = 1 << 24;

/// More hazards than anybody plans, as was found at this op.
#[derive(Debug)]
pub(super) struct TooManyHazards {
    pub(super) op: usize,
}

/// A part of some memory that an op touches. Memories of different numbers share no
/// byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    pub(super) memory: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) writes: bool,
}

const NONE: u32 = u32::MAX;

/// A stretch of memory that was last touched by the same ops. It ends where the map
/// says.
#[derive(Clone, Copy)]
struct Stretch {
    end: usize,
    /// Who wrote it last, or `NONE`.
    writer: u32,
    /// Who has read it since: the head of a list, or `NONE`.
    readers: u32,
}

/// A part of a list: an op, and the rest.
#[derive(Clone, Copy)]
struct Node {
    op: u32,
    rest: u32,
    /// The last op that walked the list from here to its end.
    walker: u32,
}

/// The search for hazards, op by op.
pub(super) struct Hazards {
    /// For each memory, its stretches by their starts; what nobody touched is in none.
    memories: Vec<BTreeMap<usize, Stretch>>,
    /// Lists of ops that share their tails.
    lists: Vec<Node>,
    /// For each op, the last op that was found to wait for it.
    seen: Vec<u32>,
    /// The predecessors of all ops so far, op after op.
    found: Vec<u32>,
    steps: u64,
}

impl Hazards {
    pub(super) fn new(ops: usize, memories: usize) -> Hazards {
        Hazards {
            memories: vec![BTreeMap::new(); memories],
            lists: Vec::new(),
            seen: vec![NONE; ops],
            found: Vec::new(),
            steps: 0,
        }
    }

    /// Adds the next op, and returns those that it must come after, each once.
    pub(super) fn add(
        &mut self,
        op: u32,
        touches: impl Iterator<Item = Bytes>,
    ) -> Result<&[u32], TooManyHazards> {
        let start = self.found.len();
        for bytes in touches {
            self.touch(op, bytes);
        }
        if self.steps > MAX_HAZARD_STEPS {
            return Err(TooManyHazards { op: op as usize });
        }
        Ok(&self.found[start..])
    }

    /// What was returned for all ops, one after another.
    pub(super) fn into_found(self) -> Vec<u32> {
        self.found
    }

    fn touch(&mut self, op: u32, bytes: Bytes) {
        let Bytes {
            memory,
            start,
            end,
            writes,
        } = bytes;
        if start >= end || self.steps > MAX_HAZARD_STEPS {
            return;
        }
        self.split(memory, start);
        self.split(memory, end);
        let mut stretches = std::mem::take(&mut self.memories[memory]);
        if writes {
            // What an earlier op wrote or read here is behind this write from now on:
            // who comes later waits for it by waiting for this op.
            while let Some((&at, stretch)) = stretches.range(start..end).next() {
                let stretch = *stretch;
                self.after_readers(op, stretch);
                stretches.remove(&at);
            }
            let written = Stretch {
                end,
                writer: op,
                readers: NONE,
            };
            stretches.insert(start, written);
        } else {
            let mut gaps = Vec::new();
            let mut at = start;
            for (&from, stretch) in stretches.range_mut(start..end) {
                if at < from {
                    gaps.push((at, from));
                }
                at = stretch.end;
                self.after(op, stretch.writer);
                stretch.readers = self.push(op, stretch.readers);
            }
            if at < end {
                gaps.push((at, end));
            }
            // Read before anybody wrote it.
            for (from, to) in gaps {
                let read = Stretch {
                    end: to,
                    writer: NONE,
                    readers: self.push(op, NONE),
                };
                stretches.insert(from, read);
            }
        }
        self.memories[memory] = stretches;
    }

    /// Has a stretch end at `at`, if it lies in one.
    fn split(&mut self, memory: usize, at: usize) {
        let stretches = &mut self.memories[memory];
        if let Some((&start, stretch)) = stretches.range_mut(..at).next_back()
            && start < at
            && at < stretch.end
        {
            let rest = *stretch;
            stretch.end = at;
            stretches.insert(at, rest);
        }
    }

    fn push(&mut self, op: u32, list: u32) -> u32 {
        self.steps += 1;
        self.lists.push(Node {
            op,
            rest: list,
            walker: NONE,
        });
        (self.lists.len() - 1) as u32
    }

    /// A write comes after all who have read, or, where nobody has, who has written.
    fn after_readers(&mut self, op: u32, stretch: Stretch) {
        if stretch.readers == NONE {
            return self.after(op, stretch.writer);
        }
        // Stretches that were once one share the end of their lists; it is walked once.
        let mut list = stretch.readers;
        while list != NONE {
            let node = &mut self.lists[list as usize];
            if node.walker == op {
                break;
            }
            node.walker = op;
            let Node {
                op: reader, rest, ..
            } = *node;
            self.after(op, reader);
            list = rest;
        }
        // All of them wait for the writer; if this op is the only one, it must say so.
        self.after(op, stretch.writer);
    }

    fn after(&mut self, op: u32, earlier: u32) {
        self.steps += 1;
        if earlier == NONE || earlier == op || self.seen[earlier as usize] == op {
            return;
        }
        self.seen[earlier as usize] = op;
        self.found.push(earlier);
    }
}
