//! Who is live with whom.

use super::Item;

/// For each item the others whose lives share a wave with its own.
///
/// Of items that are sorted by the wave in which they begin, those that begin in one
/// item's life stand directly behind it. Only those that began before have to be
/// listed.
pub(super) struct Conflicts {
    /// Those that begin before an item and are still live, one item's after another's.
    earlier: Vec<u32>,
    /// Where an item's begin, and after the last where they end.
    starts: Vec<usize>,
    /// For each item the first behind it that begins after its life.
    ends: Vec<u32>,
}

impl Conflicts {
    /// Of items that are sorted by the wave in which they begin; `None` where there
    /// are more than `most` pairs.
    pub(super) fn new(items: &[Item], most: usize) -> Option<Conflicts> {
        let mut pairs = 0usize;
        let mut ends = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let end = items.partition_point(|other| other.first <= item.last);
            pairs = pairs.saturating_add(end - i - 1);
            ends.push(u32::try_from(end).ok()?);
        }
        if pairs > most {
            return None;
        }
        let mut earlier = Vec::with_capacity(pairs);
        let mut starts = Vec::with_capacity(items.len() + 1);
        let mut live: Vec<u32> = Vec::new();
        for (item, i) in items.iter().zip(0..) {
            live.retain(|&other| items[other as usize].last >= item.first);
            starts.push(earlier.len());
            earlier.extend_from_slice(&live);
            live.push(i);
        }
        starts.push(earlier.len());
        Some(Conflicts {
            earlier,
            starts,
            ends,
        })
    }

    /// Those of item `i`.
    pub(super) fn of(&self, i: usize) -> impl Iterator<Item = usize> {
        let earlier = &self.earlier[self.starts[i]..self.starts[i + 1]];
        let later = i + 1..self.ends[i] as usize;
        earlier.iter().map(|&other| other as usize).chain(later)
    }

    /// How many those are.
    pub(super) fn count(&self, i: usize) -> usize {
        self.starts[i + 1] - self.starts[i] + self.ends[i] as usize - i - 1
    }
}
