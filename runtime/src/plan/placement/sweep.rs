//! An allocator that walks through time.

use std::collections::{BTreeMap, BTreeSet};

use super::{Item, align_up};

/// How many of the holes that are large enough are tried for one that is also
/// aligned, before one is taken that is so large that it must be. 1 tries the
/// tightest only.
const TRIES: usize = 4;

/// The offsets of items that are placed in the order in which they begin, each in
/// the tightest hole that those which have ended left. In n log n.
pub(super) fn sweep(items: &[Item]) -> Vec<usize> {
    let mut offsets = vec![0; items.len()];
    let mut ending: Vec<usize> = (0..items.len()).collect();
    ending.sort_by_key(|&i| items[i].last);
    let mut ending = ending.into_iter().peekable();
    let mut holes = Holes::default();
    for (i, item) in items.iter().enumerate() {
        while let Some(ended) = ending.next_if(|&e| items[e].last < item.first) {
            holes.give(offsets[ended], items[ended].size);
        }
        offsets[i] = holes.take(item.size, item.align);
    }
    offsets
}

/// What is free. Beyond `top` all is.
#[derive(Default)]
struct Holes {
    top: usize,
    /// The size of each hole by its offset. No two touch, none touches the top.
    sizes: BTreeMap<usize, usize>,
    /// The same holes as (size, offset).
    by_size: BTreeSet<(usize, usize)>,
}

impl Holes {
    fn take(&mut self, size: usize, align: usize) -> usize {
        let certain = size.saturating_add(align - 1);
        let tight = self.by_size.range((size, 0)..).take(TRIES);
        let hole = tight
            .chain(self.by_size.range((certain, 0)..).take(1))
            .copied()
            .find(|&(bytes, at)| align_up(at, align) - at <= bytes - size);
        let (at, end) = match hole {
            Some((bytes, at)) => {
                self.remove(at, bytes);
                (at, at + bytes)
            }
            None => {
                let at = self.top;
                self.top = align_up(at, align).saturating_add(size);
                (at, self.top)
            }
        };
        let offset = align_up(at, align);
        self.insert(at, offset);
        self.insert(offset.saturating_add(size), end);
        offset
    }

    fn give(&mut self, offset: usize, size: usize) {
        let (mut at, mut end) = (offset, offset.saturating_add(size));
        if let Some((&before, &bytes)) = self.sizes.range(..at).next_back()
            && before + bytes == at
        {
            self.remove(before, bytes);
            at = before;
        }
        if let Some(&bytes) = self.sizes.get(&end) {
            self.remove(end, bytes);
            end += bytes;
        }
        if end == self.top {
            self.top = at;
        } else {
            self.insert(at, end);
        }
    }

    fn insert(&mut self, at: usize, end: usize) {
        if at < end {
            self.sizes.insert(at, end - at);
            self.by_size.insert((end - at, at));
        }
    }

    fn remove(&mut self, at: usize, bytes: usize) {
        self.sizes.remove(&at);
        self.by_size.remove(&(bytes, at));
    }
}
