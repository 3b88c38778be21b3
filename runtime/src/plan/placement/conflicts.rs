//! Who is live with whom.

use super::Item;

/// For each item the others whose lives share a wave with its own.
pub(super) struct Conflicts {
    /// The neighbours of all items, one item's after another's.
    neighbours: Vec<u32>,
    /// Where an item's neighbours begin, and after the last where they end.
    starts: Vec<usize>,
}

impl Conflicts {
    /// Of items that are sorted by the wave in which they begin; `None` where there
    /// are more than `most` pairs.
    pub(super) fn new(items: &[Item], most: usize) -> Option<Conflicts> {
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut live: Vec<u32> = Vec::new();
        let mut starts = vec![0; items.len() + 1];
        for (i, item) in items.iter().enumerate() {
            let this = u32::try_from(i).ok()?;
            live.retain(|&other| items[other as usize].last >= item.first);
            if live.len() > most - pairs.len() {
                return None;
            }
            for &other in &live {
                starts[other as usize] += 1;
                pairs.push((this, other));
            }
            starts[i] += live.len();
            live.push(this);
        }
        // Counts become ends; filled from behind, ends become starts.
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        let mut neighbours = vec![0; 2 * pairs.len()];
        for (a, b) in pairs {
            for (of, other) in [(a, b), (b, a)] {
                let at = &mut starts[of as usize];
                *at -= 1;
                neighbours[*at] = other;
            }
        }
        Some(Conflicts { neighbours, starts })
    }

    /// Those of item `i`.
    pub(super) fn of(&self, i: usize) -> &[u32] {
        &self.neighbours[self.starts[i]..self.starts[i + 1]]
    }
}
