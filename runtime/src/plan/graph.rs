//! What must come before what: waves, orders, and the edges that say nothing new.

use super::hazards::{Bytes, Hazards, TooManyHazards};

/// The most steps that are spent on removing edges that follow from others, of some
/// 1 ns each; what is left then stays, which is right, and slower to walk. 0 removes
/// none.
const MAX_REDUCTION_STEPS: u64 = 1 << 28;

/// For each op, the ops that must be done before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    /// An order that keeps all edges: the one in which hazards were found.
    order: Vec<u32>,
    /// For each op, its part of `predecessors`.
    spans: Vec<(u32, u32)>,
    predecessors: Vec<u32>,
    /// For each op, the length of the longest path that leads to it.
    waves: Vec<u32>,
}

impl Graph {
    /// The graph of ops that may run in `order`, one after another, of which each
    /// touches what `touches` says. Two ops must keep their order if they share a byte
    /// and one of them writes it.
    pub(super) fn new<I: Iterator<Item = Bytes>>(
        order: Vec<u32>,
        memories: usize,
        touches: impl Fn(usize) -> I,
    ) -> Result<Graph, TooManyHazards> {
        let mut hazards = Hazards::new(order.len(), memories);
        let mut spans = vec![(0, 0); order.len()];
        let mut waves = vec![0; order.len()];
        let mut edges = 0;
        for &op in &order {
            let found = hazards.add(op, touches(op as usize))?;
            let waves_before = found.iter().map(|&p| waves[p as usize] + 1);
            waves[op as usize] = waves_before.max().unwrap_or(0);
            spans[op as usize] = span(edges, edges + found.len());
            edges += found.len();
        }
        Ok(Graph {
            order,
            spans,
            predecessors: hazards.into_found(),
            waves,
        })
    }

    /// The ops that `op` waits for, without those that it waits for by waiting for
    /// others.
    pub(super) fn predecessors(&self, op: usize) -> &[u32] {
        let (start, end) = self.spans[op];
        &self.predecessors[start as usize..end as usize]
    }

    pub(super) fn edges(&self) -> usize {
        self.predecessors.len()
    }

    /// For each op, its wave, counted from 0.
    pub(super) fn waves(&self) -> &[u32] {
        &self.waves
    }

    /// The ops by wave, and within a wave as they come.
    pub(super) fn by_wave(&self) -> Vec<u32> {
        let mut ops: Vec<u32> = (0..self.waves.len() as u32).collect();
        ops.sort_by_key(|&op| self.waves[op as usize]);
        ops
    }

    /// The order that keeps all edges and is nearest to the ops' own: of those that
    /// nothing holds back, the first is always next.
    pub(super) fn first_come(&self) -> Vec<u32> {
        let ops = self.spans.len();
        let mut waiting: Vec<u32> = self.spans.iter().map(|(start, end)| end - start).collect();
        // Successors as a second table of spans.
        let mut starts = vec![0_u32; ops + 1];
        for &p in &self.predecessors {
            starts[p as usize + 1] += 1;
        }
        for i in 0..ops {
            starts[i + 1] += starts[i];
        }
        let mut fill = starts.clone();
        let mut successors = vec![0_u32; self.predecessors.len()];
        for op in 0..ops {
            for &p in self.predecessors(op) {
                successors[fill[p as usize] as usize] = op as u32;
                fill[p as usize] += 1;
            }
        }
        let mut ready: std::collections::BinaryHeap<_> = (0..ops as u32)
            .filter(|&op| waiting[op as usize] == 0)
            .map(std::cmp::Reverse)
            .collect();
        let mut order = Vec::with_capacity(ops);
        while let Some(std::cmp::Reverse(op)) = ready.pop() {
            order.push(op);
            let (start, end) = (starts[op as usize], starts[op as usize + 1]);
            for &next in &successors[start as usize..end as usize] {
                waiting[next as usize] -= 1;
                if waiting[next as usize] == 0 {
                    ready.push(std::cmp::Reverse(next));
                }
            }
        }
        order
    }

    /// A longest path, from its first op to its last.
    pub(super) fn critical_path(&self) -> Vec<usize> {
        let last = (0..self.waves.len()).max_by_key(|&op| (self.waves[op], std::cmp::Reverse(op)));
        let mut path: Vec<usize> = last.into_iter().collect();
        while let Some(&op) = path.last()
            && let Some(wave) = self.waves[op].checked_sub(1)
        {
            let before = self.predecessors(op).iter();
            let before = before.copied().find(|&p| self.waves[p as usize] == wave);
            // There is one: it is why the op's wave is not an earlier one.
            let Some(before) = before else { break };
            path.push(before as usize);
        }
        path.reverse();
        path
    }

    /// Removes the edges that follow from others.
    ///
    /// For 64 ops at a time, each later op gets a word that says which of them come
    /// before it. An edge from one of them says nothing new if the op's other
    /// predecessors have it in their words. A block of 64 is looked at only up to the
    /// last op that any of them has an edge to, which in most plans is near.
    pub(super) fn reduce(&mut self) {
        const BLOCK: usize = 64;
        let ops = self.order.len();
        let mut position = vec![0_u32; ops];
        for (at, &op) in self.order.iter().enumerate() {
            position[op as usize] = at as u32;
        }
        // By position: the last position that an op has an edge to.
        let mut reach: Vec<usize> = (0..ops).collect();
        for (at, &op) in self.order.iter().enumerate() {
            for &p in self.predecessors(op as usize) {
                let from = position[p as usize] as usize;
                reach[from] = reach[from].max(at);
            }
        }
        let mut redundant = vec![false; self.predecessors.len()];
        let mut before = vec![0_u64; ops];
        let mut steps = 0;
        for first in (0..ops).step_by(BLOCK) {
            let block = first..(first + BLOCK).min(ops);
            let last = reach[block.clone()].iter().copied().max().unwrap_or(first);
            for at in first..=last {
                let op = self.order[at] as usize;
                let (start, end) = self.spans[op];
                steps += u64::from(end - start) + 1;
                let (mut direct, mut through) = (0_u64, 0_u64);
                for &p in self.predecessors(op) {
                    let from = position[p as usize] as usize;
                    if from >= first {
                        through |= before[from];
                        if block.contains(&from) {
                            direct |= 1 << (from - first);
                        }
                    }
                }
                before[at] = direct | through;
                if direct & through != 0 {
                    for edge in start..end {
                        let p = self.predecessors[edge as usize];
                        let from = position[p as usize] as usize;
                        if block.contains(&from) && through & (1 << (from - first)) != 0 {
                            redundant[edge as usize] = true;
                        }
                    }
                }
            }
            if steps > MAX_REDUCTION_STEPS {
                break;
            }
        }
        let mut kept = Vec::with_capacity(self.predecessors.len());
        for &op in &self.order {
            let (start, end) = self.spans[op as usize];
            let from = kept.len();
            let edges = start as usize..end as usize;
            kept.extend(
                edges
                    .filter(|&e| !redundant[e])
                    .map(|e| self.predecessors[e]),
            );
            self.spans[op as usize] = span(from, kept.len());
        }
        self.predecessors = kept;
    }
}

/// There are no more edges than the search for hazards takes steps, which 32 bits count.
fn span(start: usize, end: usize) -> (u32, u32) {
    (start as u32, end as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    type Touches = Vec<Vec<Bytes>>;

    fn bytes() -> impl Strategy<Value = Bytes> {
        let parts = (0..3_usize, 0..24_usize, 0..12_usize, any::<bool>());
        parts.prop_map(|(memory, start, len, writes)| Bytes {
            memory,
            start,
            end: start + len,
            writes,
        })
    }

    /// Ops as plans have them: what one writes, it does not touch otherwise.
    fn touches() -> impl Strategy<Value = Touches> {
        let op = proptest::collection::vec(bytes(), 0..4).prop_map(|touches| {
            let mut kept: Vec<Bytes> = Vec::new();
            for touch in touches {
                if kept.iter().all(|other| !conflict(other, &touch)) {
                    kept.push(touch);
                }
            }
            kept
        });
        // More than 64, so that there are several blocks.
        proptest::collection::vec(op, 0..150)
    }

    fn conflict(a: &Bytes, b: &Bytes) -> bool {
        let shared = a.start.max(b.start)..a.end.min(b.end);
        a.memory == b.memory && (a.writes || b.writes) && !shared.is_empty()
    }

    fn graph(touches: &Touches) -> Graph {
        let order = (0..touches.len() as u32).collect();
        Graph::new(order, 3, |op| touches[op].iter().copied()).unwrap()
    }

    /// For each op, all that must come before it, by way of others or not.
    fn closure(graph: &Graph) -> Vec<BTreeSet<u32>> {
        let mut closed: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); graph.spans.len()];
        for &op in &graph.order {
            let mut all = BTreeSet::new();
            for &p in graph.predecessors(op as usize) {
                all.insert(p);
                all.extend(&closed[p as usize]);
            }
            closed[op as usize] = all;
        }
        closed
    }

    proptest! {
        /// Two ops are ordered, by way of others or not, exactly where a chain of
        /// conflicts leads from one to the other.
        #[test]
        fn hazards_are_what_shares_a_byte_that_is_written(touches in touches()) {
            let mut expected: Vec<BTreeSet<u32>> = Vec::new();
            for (op, mine) in touches.iter().enumerate() {
                let mut before = BTreeSet::new();
                for (earlier, theirs) in touches[..op].iter().enumerate() {
                    if mine.iter().any(|a| theirs.iter().any(|b| conflict(a, b))) {
                        before.insert(earlier as u32);
                        before.extend(&expected[earlier]);
                    }
                }
                expected.push(before);
            }
            prop_assert_eq!(closure(&graph(&touches)), expected);
        }

        #[test]
        fn what_is_removed_follows_from_what_stays(touches in touches()) {
            let full = graph(&touches);
            let mut reduced = full.clone();
            reduced.reduce();
            let closed = closure(&full);
            prop_assert_eq!(&closure(&reduced), &closed);
            prop_assert_eq!(reduced.waves(), full.waves());
            // And what stays follows from nothing else.
            for op in 0..touches.len() {
                let direct = reduced.predecessors(op);
                for p in direct {
                    let others = direct.iter().filter(|q| *q != p);
                    prop_assert!(others.into_iter().all(|&q| !closed[q as usize].contains(p)));
                }
            }
        }

        #[test]
        fn orders_and_waves_keep_every_edge(touches in touches()) {
            let mut graph = graph(&touches);
            graph.reduce();
            for order in [graph.by_wave(), graph.first_come()] {
                let mut done = vec![false; touches.len()];
                for &op in &order {
                    prop_assert!(graph.predecessors(op as usize).iter().all(|&p| done[p as usize]));
                    done[op as usize] = true;
                }
                prop_assert!(done.into_iter().all(|d| d));
            }
            // The order that they came in keeps all edges, so it is the nearest to itself.
            prop_assert!(graph.first_come().is_sorted());
            let path = graph.critical_path();
            let depth = graph.waves().iter().max().map_or(0, |w| *w as usize + 1);
            prop_assert_eq!(path.len(), depth);
            for pair in path.windows(2) {
                prop_assert!(graph.predecessors(pair[1]).contains(&(pair[0] as u32)));
            }
        }
    }

    #[test]
    fn a_part_that_is_overwritten_does_not_end_the_rest() {
        let touch = |start, end, writes| Bytes {
            memory: 0,
            start,
            end,
            writes,
        };
        let touches = vec![
            vec![touch(0, 100, true)],
            vec![touch(0, 50, true)],
            vec![touch(50, 100, false)],
            vec![touch(0, 60, false)],
        ];
        let graph = graph(&touches);
        assert_eq!(graph.predecessors(1), [0]);
        assert_eq!(graph.predecessors(2), [0]);
        assert_eq!(graph.predecessors(3), [1, 0]);
        assert_eq!(graph.waves(), [0, 1, 1, 2]);
    }

    #[test]
    fn a_list_that_stretches_share_is_walked_once() {
        // Many read all, many read a part, one overwrites all of it.
        let many = 10_000;
        let touches = |op: usize| {
            let (start, end) = match op {
                op if op < many => (0, many),
                op if op < 2 * many => (op - many, op - many + 1),
                _ => (0, many),
            };
            let bytes = Bytes {
                memory: 0,
                start,
                end,
                writes: op == 2 * many,
            };
            std::iter::once(bytes)
        };
        let order = (0..=2 * many as u32).collect();
        let graph = Graph::new(order, 1, touches).unwrap();
        assert_eq!(graph.edges(), 2 * many);
    }

    #[test]
    fn what_nobody_could_plan_is_refused() {
        // Each of many ops reads what each of many others wrote a part of.
        let half = 10_000;
        let touches = |op: usize| {
            let (start, end) = if op < half { (op, op + 1) } else { (0, half) };
            let bytes = Bytes {
                memory: 0,
                start,
                end,
                writes: op < half,
            };
            std::iter::once(bytes)
        };
        let order = (0..2 * half as u32).collect();
        assert!(Graph::new(order, 1, touches).is_err());
    }
}
