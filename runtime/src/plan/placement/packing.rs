//! Items that are placed one after another, and moved until they fit.

use std::collections::BinaryHeap;

use super::conflicts::Conflicts;
use super::{Item, align_up};

/// Items of which some are placed, and a budget of visits to move them.
pub(super) struct Packing<'a> {
    items: &'a [Item],
    conflicts: &'a Conflicts,
    budget: usize,
    spots: Vec<Spot>,
    /// Of the item at hand: the neighbours that are placed, by where they start.
    near: Vec<(Spot, usize)>,
    /// The same ones' ends, ascending, with what each costs to displace.
    ends: Vec<(usize, u64)>,
    /// How often each item found no gap, and one more.
    failures: Vec<u64>,
    noise: Noise,
}

/// Where an item lies.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Spot {
    start: usize,
    end: usize,
}

impl Spot {
    /// Of an item that is not placed. No item is empty, so no other ends here.
    const NONE: Spot = Spot { start: 0, end: 0 };
}

impl<'a> Packing<'a> {
    pub(super) fn new(items: &'a [Item], conflicts: &'a Conflicts, budget: usize) -> Packing<'a> {
        Packing {
            items,
            conflicts,
            budget,
            spots: vec![Spot::NONE; items.len()],
            near: Vec::new(),
            ends: Vec::new(),
            failures: vec![1; items.len()],
            noise: Noise(1),
        }
    }

    /// Places the items in `order`, each at the lowest offset that is free. `None`
    /// where one would end past `limit`.
    pub(super) fn pack(&mut self, order: &[usize], limit: usize) -> Option<Vec<usize>> {
        self.spots.fill(Spot::NONE);
        for &i in order {
            self.approach(i);
            let offset = self.lowest_gap(i, limit)?;
            self.put(i, offset);
        }
        Some(self.offsets())
    }

    /// Moves items that lie at `offsets` until none ends past `limit`, which must
    /// leave room for each alone. `None` where the budget is spent before.
    ///
    /// What finds no gap goes where it costs least, and displaces what lies there.
    /// An item costs the more, the larger it is and the more often it found
    /// no gap itself; so the same ones do not displace each other for ever. Costs
    /// are a little noisy, or twins would take turns.
    pub(super) fn repack(&mut self, offsets: &[usize], limit: usize) -> Option<Vec<usize>> {
        self.budget = self.budget.checked_sub(offsets.len())?;
        // Large ones first, as small ones find gaps more easily.
        let mut displaced = BinaryHeap::new();
        for (i, &offset) in offsets.iter().enumerate() {
            self.put(i, offset);
            if self.spots[i].end > limit {
                self.spots[i] = Spot::NONE;
                displaced.push((self.items[i].size, i));
            }
        }
        while let Some((_, i)) = displaced.pop() {
            self.budget = self.budget.checked_sub(self.conflicts.count(i))?;
            self.approach(i);
            if let Some(offset) = self.lowest_gap(i, limit) {
                self.put(i, offset);
                continue;
            }
            self.failures[i] += 1;
            let offset = self.cheapest(i, limit)?;
            self.put(i, offset);
            let Spot { start, end } = self.spots[i];
            for &(spot, other) in &self.near {
                if spot.start < end && start < spot.end {
                    self.spots[other] = Spot::NONE;
                    displaced.push((self.items[other].size, other));
                }
            }
        }
        Some(self.offsets())
    }

    /// Finds which neighbours of an item are placed.
    fn approach(&mut self, i: usize) {
        self.near.clear();
        self.near.extend(self.conflicts.of(i).filter_map(|other| {
            let spot = self.spots[other];
            (spot != Spot::NONE).then_some((spot, other))
        }));
        self.near.sort_unstable_by_key(|(spot, _)| spot.start);
    }

    /// The lowest offset at which the item at hand displaces none.
    fn lowest_gap(&self, i: usize, limit: usize) -> Option<usize> {
        let Item { size, align, .. } = self.items[i];
        let mut free = 0;
        for (spot, _) in &self.near {
            if align_up(free, align).saturating_add(size) <= spot.start {
                break;
            }
            free = free.max(spot.end);
        }
        let offset = align_up(free, align);
        (offset.saturating_add(size) <= limit).then_some(offset)
    }

    /// The offset at which the item at hand displaces what costs least, the lowest of
    /// several: of 0, and of where its neighbours end.
    fn cheapest(&mut self, i: usize, limit: usize) -> Option<usize> {
        let Item { size, align, .. } = self.items[i];
        let (items, failures) = (self.items, &self.failures);
        let cost = |other: usize| {
            failures[other]
                .saturating_mul(u64::from(usize::BITS - items[other].size.leading_zeros()))
        };
        self.ends.clear();
        let ends = self.near.iter();
        self.ends
            .extend(ends.map(|&(spot, other)| (spot.end, cost(other))));
        self.ends.sort_unstable_by_key(|&(end, _)| end);

        // At an offset, all that starts below its end is in the way, but what ends
        // at or below it.
        let (mut started, mut ended) = (0u64, 0u64);
        let mut noise = self.noise;
        let mut starting = self.near.iter().peekable();
        let mut best = None;
        for (end, gone) in [(0, 0)].into_iter().chain(self.ends.iter().copied()) {
            ended = ended.saturating_add(gone);
            let offset = align_up(end, align);
            let past = offset.saturating_add(size);
            if past > limit {
                break;
            }
            while let Some(&(_, other)) = starting.next_if(|(spot, _)| spot.start < past) {
                started = started.saturating_add(cost(other));
            }
            let price = started.saturating_sub(ended).saturating_mul(noise.factor());
            if best.is_none_or(|(least, _)| price < least) {
                best = Some((price, offset));
            }
        }
        self.noise = noise;
        best.map(|(_, offset)| offset)
    }

    fn put(&mut self, i: usize, offset: usize) {
        self.spots[i] = Spot {
            start: offset,
            end: offset.saturating_add(self.items[i].size),
        };
    }

    fn offsets(&self) -> Vec<usize> {
        self.spots.iter().map(|spot| spot.start).collect()
    }
}

/// Numbers that are the same in every run.
#[derive(Clone, Copy)]
struct Noise(u64);

impl Noise {
    /// 64 to 71: up to a tenth more.
    fn factor(&mut self) -> u64 {
        // Knuth's linear congruence, of which the high bits are good.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        64 + (self.0 >> 61)
    }
}
