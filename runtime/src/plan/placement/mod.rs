//! Where blocks that live for a while lie in one arena.
//!
//! A block is some bytes that are live in a range of waves. Two blocks whose
//! lives share a wave must not share a byte; others may, and the arena is the
//! smaller for it. To find the smallest arena is NP-hard, but no arena is smaller
//! than the largest sum of what is live at once, and on real plans that
//! [lower bound](Placement::lower_bound) is nearly always reached.
//!
//! Three steps, each only where the one before left the bound unreached:
//!
//! 1. [`sweep()`] walks through time as an allocator would, and takes the tightest
//!    hole that is free. It always runs, in n log n; where everything is live
//!    at once it is good and the others are too dear.
//! 2. [`Conflicts`] lists who may not overlap whom, and [`packing`] places the
//!    blocks one after another at the lowest offset that is free, in two orders.
//! 3. [`packing`] then takes out what stands above a lower limit and puts it
//!    elsewhere, and what that displaces again elsewhere, until all has a place.
//!
//! Steps 2 and 3 are bounded by [`PAIRS`] and [`VISITS`], not by time: the same
//! blocks are placed the same way on every machine.

mod conflicts;
mod packing;
mod sweep;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use conflicts::Conflicts;
use packing::Packing;
use sweep::sweep;

/// The most pairs of blocks that are live together for which more than the sweep is
/// tried, and as many again for each block.
///
/// Listing a pair and placing it in both orders takes 20 ns to 30 ns, all of them at
/// most some 15 ms for 10,000 blocks. Deep plans have 5 to 30 pairs a block, wide ones
/// of 1,000 blocks 200 a block. Past it the sweep stands: within 9 % of the bound
/// where most is live with most, but up to 23 % above where 10,000 blocks have 200
/// neighbours each. (0, 0) leaves the sweep's placement always.
const PAIRS: (usize, usize) = (1 << 18, 32);

/// The most work for moving blocks, and as much again for each block, in visits: one
/// look at a block because it is live with one that is moved.
///
/// A visit takes 30 ns to 40 ns, the whole so some 20 ms. 200 random plans of up to
/// 1,200 blocks come within 3 % of the bound with it, and within 21 % without.
/// (0, 0) moves none.
const VISITS: (usize, usize) = (1 << 19, 16);

/// The most visits for each block, so that small plans are not searched for long when
/// the bound cannot be reached. Half of it costs 200 random plans 0.7 % at the 95th
/// percentile, twice gains nothing. [`usize::MAX`] is no limit.
const VISITS_PER_BLOCK: usize = 1024;

/// The part of the bound, 1 in this many, that is not worth a search: 1024 is
/// 0.1 %. [`usize::MAX`] searches for the last byte.
const NEGLIGIBLE: usize = 1024;

/// Bytes that are live for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// How many; a block of none lies anywhere.
    pub(super) bytes: usize,
    /// What its offset is a multiple of: a power of two.
    pub(super) align: usize,
    /// The first wave in which it is live.
    pub(super) first: u32,
    /// The last one, not before the first.
    pub(super) last: u32,
}

/// Where blocks lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// For each block the offset of its first byte.
    pub(super) offsets: Vec<usize>,
    /// The size of the arena, in bytes.
    pub(super) bytes: usize,
    /// What no arena can be below: the largest sum, over waves, of the bytes live in
    /// it, each block's rounded up to its alignment.
    pub(super) lower_bound: usize,
}

/// Places `blocks`, whose bytes together, rounded up, must fit an `isize`.
///
/// Each block takes its bytes rounded up to its alignment.
pub(super) fn place(blocks: &[Block]) -> Placement {
    let items = items(blocks);
    let loads = loads(&items);
    let lower_bound = most(&loads);
    let mut best = sweep(&items);
    if height(&items, &best) > lower_bound {
        improve(&items, &loads, lower_bound, &mut best);
    }

    let mut offsets = vec![0; blocks.len()];
    for (item, &offset) in items.iter().zip(&best) {
        offsets[item.source] = offset;
    }
    Placement {
        offsets,
        bytes: height(&items, &best),
        lower_bound,
    }
}

/// The lower bound alone: see [`Placement::lower_bound`].
pub(super) fn lower_bound(blocks: &[Block]) -> usize {
    most(&loads(&items(blocks)))
}

fn most(loads: &[Load]) -> usize {
    loads.iter().map(|load| load.bytes).max().unwrap_or(0)
}

/// The blocks that take room, by the wave in which they begin.
fn items(blocks: &[Block]) -> Vec<Item> {
    let mut items: Vec<Item> = blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| block.bytes > 0 && block.first <= block.last)
        .map(|(source, block)| Item {
            size: align_up(block.bytes, block.align),
            align: block.align,
            first: block.first,
            last: block.last,
            source,
        })
        .collect();
    // What lives longest lies lowest among those that begin together.
    items.sort_by_key(|item| (item.first, Reverse((item.last, item.size))));
    items
}

/// Makes `best` better, as far as the budget goes.
fn improve(items: &[Item], loads: &[Load], lower_bound: usize, best: &mut Vec<usize>) {
    let count = items.len();
    let scaled = |(base, each): (usize, usize)| count.saturating_mul(each).saturating_add(base);
    let visits = scaled(VISITS).min(count.saturating_mul(VISITS_PER_BLOCK));
    let Some(conflicts) = Conflicts::new(items, scaled(PAIRS)) else {
        return;
    };
    let mut packing = Packing::new(items, &conflicts, visits);
    let crowd = crowds(items, loads);
    // Large blocks first, as the small ones then fill the gaps; those that are live
    // where it is tight before those that are not.
    let weighed = |i: usize| (crowd[i] as u128 * items[i].size as u128, 0);
    let tight = |i: usize| (crowd[i] as u128, items[i].size);
    let orders: [&dyn Fn(usize) -> (u128, usize); 2] = [&weighed, &tight];
    for key in orders {
        let bytes = height(items, best);
        if bytes == lower_bound {
            return;
        }
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_cached_key(|&i| Reverse(key(i)));
        if let Some(offsets) = packing.pack(&order, bytes - 1) {
            *best = offsets;
        }
    }
    let enough = lower_bound.saturating_add(lower_bound / NEGLIGIBLE);
    loop {
        let bytes = height(items, best);
        if bytes <= enough {
            return;
        }
        match packing.repack(best, bytes - 1) {
            Some(offsets) => *best = offsets,
            None => return,
        }
    }
}

/// A block that takes room. They are sorted by the wave in which they begin.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Its bytes, rounded up to its alignment; not 0.
    size: usize,
    align: usize,
    first: u32,
    last: u32,
    /// Its index among the blocks.
    source: usize,
}

/// What is live from one wave on, until the next load.
#[derive(Clone, Copy, Debug)]
struct Load {
    wave: u32,
    bytes: usize,
}

/// What is live in each wave in which an item begins. In between it only falls.
fn loads(items: &[Item]) -> Vec<Load> {
    let mut ends: Vec<(u32, usize)> = items.iter().map(|item| (item.last, item.size)).collect();
    ends.sort_unstable();
    let mut ends = ends.into_iter().peekable();
    let mut loads: Vec<Load> = Vec::new();
    let mut live = 0usize;
    for item in items {
        while let Some((_, size)) = ends.next_if(|&(last, _)| last < item.first) {
            live = live.saturating_sub(size);
        }
        live = live.saturating_add(item.size);
        match loads.last_mut() {
            Some(load) if load.wave == item.first => load.bytes = live,
            _ => loads.push(Load {
                wave: item.first,
                bytes: live,
            }),
        }
    }
    loads
}

/// For each item the largest load in its life.
fn crowds(items: &[Item], loads: &[Load]) -> Vec<usize> {
    // From the last wave to the first: of the loads seen, those that are larger
    // than each before them, the nearest on top.
    let mut peaks: Vec<Load> = Vec::new();
    let mut crowds = vec![0; items.len()];
    let mut left = loads.iter().rev().peekable();
    for (item, crowd) in items.iter().zip(&mut crowds).rev() {
        while let Some(&load) = left.next_if(|load| load.wave >= item.first) {
            while peaks.pop_if(|peak| peak.bytes <= load.bytes).is_some() {}
            peaks.push(load);
        }
        let farthest = peaks.partition_point(|peak| peak.wave > item.last);
        *crowd = peaks.get(farthest).map_or(item.size, |peak| peak.bytes);
    }
    crowds
}

/// The size of an arena in which items lie at `offsets`, in bytes.
fn height(items: &[Item], offsets: &[usize]) -> usize {
    let ends = items.iter().zip(offsets);
    ends.map(|(item, &offset)| offset.saturating_add(item.size))
        .max()
        .unwrap_or(0)
}

/// The next multiple of `align`, a power of two.
fn align_up(offset: usize, align: usize) -> usize {
    let mask = align.saturating_sub(1);
    offset.saturating_add(mask) & !mask
}
