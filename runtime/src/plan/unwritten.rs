//! What ops read of scratch that no op before them writes.

use std::collections::BTreeMap;

use super::{BufferRange, Plan, Role};

/// A read of scratch that no earlier op writes: see [`Plan::unwritten_reads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwrittenRead {
    /// The op.
    pub op: usize,
    /// The first stretch of what it may read that nothing has written.
    pub range: BufferRange,
}

impl Plan {
    /// The ops that may read a part of a temp or an output that no op before them, in the
    /// order in which they were added, may write: there they find whatever memory holds.
    /// Most often it is a mistake; a kernel whose signature says more than it reads may do
    /// no harm.
    ///
    /// An op that says that it writes may write less, which only
    /// [two fillings](super::Instance::fill_scratch) show.
    ///
    /// ```
    /// # use svod_runtime::plan::PlanBuilder;
    /// # use svod_runtime::DType;
    /// let mut plan = PlanBuilder::new("forgotten");
    /// let t = plan.temp(DType::F32, &[8])?;
    /// let y = plan.output("y", DType::F32, &[8])?;
    /// plan.fill(plan.view(t, 0..6)?, DType::F32, 0)?;
    /// plan.copy(t, y)?;
    /// let plan = plan.build()?;
    /// let found = plan.unwritten_reads();
    /// assert_eq!((found.len(), found[0].op), (1, 1));
    /// assert_eq!((found[0].range.offset, found[0].range.bytes), (24, 8));
    /// # Ok::<(), svod_runtime::Error>(())
    /// ```
    #[must_use]
    pub fn unwritten_reads(&self) -> Vec<UnwrittenRead> {
        // For each buffer what was written, as ranges that do not touch: start and end.
        let mut written: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); self.buffers.len()];
        let is_scratch = |range: &BufferRange| {
            matches!(self.buffers[range.buffer].role, Role::Temp | Role::Output)
        };
        let mut found = Vec::new();
        for op in 0..self.ops.len() {
            for touch in self.touches(op).filter(|t| is_scratch(&t.range)) {
                let ranges = &written[touch.range.buffer];
                if let Some((from, to)) = gap(ranges, touch.range.offset, touch.range.end())
                    && touch.access.reads()
                {
                    let range = BufferRange {
                        buffer: touch.range.buffer,
                        offset: from,
                        bytes: to - from,
                    };
                    found.push(UnwrittenRead { op, range });
                }
            }
            for touch in self.touches(op).filter(|t| is_scratch(&t.range)) {
                if touch.access.writes() {
                    let ranges = &mut written[touch.range.buffer];
                    add(ranges, touch.range.offset, touch.range.end());
                }
            }
        }
        found
    }
}

/// The first part of a range that is in none of the ranges.
fn gap(ranges: &BTreeMap<usize, usize>, mut start: usize, end: usize) -> Option<(usize, usize)> {
    if let Some((_, &before)) = ranges.range(..=start).next_back() {
        start = start.max(before);
    }
    // Ranges do not touch, so that none begins where another ends.
    let next = ranges.range(start..).next().map_or(end, |(&next, _)| next);
    (start < end).then(|| (start, next.min(end)))
}

/// Adds a range, and joins those that it touches.
fn add(ranges: &mut BTreeMap<usize, usize>, mut start: usize, mut end: usize) {
    if start >= end {
        return;
    }
    while let Some((&from, &to)) = ranges.range(..=end).next_back()
        && to >= start
    {
        ranges.remove(&from);
        start = start.min(from);
        end = end.max(to);
    }
    ranges.insert(start, end);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_what_a_plain_list_of_bytes_says(
            parts in proptest::collection::vec((0..40_usize, 0..12_usize), 0..20),
            (from, len) in (0..40_usize, 1..20_usize),
        ) {
            let (mut ranges, mut bytes) = (BTreeMap::new(), [false; 64]);
            for (start, len) in parts {
                add(&mut ranges, start, start + len);
                bytes[start..start + len].fill(true);
            }
            let end = from + len;
            let first = (from..end).find(|&at| !bytes[at]);
            let expected = first.map(|first| {
                let next = (first..end).find(|&at| bytes[at]);
                (first, next.unwrap_or(end))
            });
            prop_assert_eq!(gap(&ranges, from, end), expected);
        }
    }
}
