//! What is scheduled: ops, or groups of them that are tasks already.

use super::predicting::Team;
use super::{Cost, cost, shared};
use crate::plan::{Plan, Schedule, Task};

/// For each of some things, a few others.
#[derive(Clone, Debug)]
pub(super) struct Edges {
    starts: Vec<u32>,
    ends: Vec<u32>,
}

impl Edges {
    /// Of nothing yet.
    pub(super) fn new() -> Edges {
        Edges {
            starts: vec![0],
            ends: Vec::new(),
        }
    }

    /// Adds the others of the next.
    pub(super) fn push(&mut self, others: impl IntoIterator<Item = u32>) {
        self.ends.extend(others);
        self.starts.push(self.ends.len() as u32);
    }

    /// The others of one.
    pub(super) fn of(&self, node: usize) -> &[u32] {
        &self.ends[self.starts[node] as usize..self.starts[node + 1] as usize]
    }

    /// The same, each from its other end.
    fn reversed(&self) -> Edges {
        let nodes = self.starts.len() - 1;
        let mut starts = vec![0; nodes + 1];
        for &end in &self.ends {
            starts[end as usize + 1] += 1;
        }
        for i in 0..nodes {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut ends = vec![0; self.ends.len()];
        for node in 0..nodes {
            for &end in self.of(node) {
                ends[next[end as usize] as usize] = node as u32;
                next[end as usize] += 1;
            }
        }
        Edges { starts, ends }
    }
}

/// Nodes that run side by side in a phase, or in turn, or in parts: numbers of nodes.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) nodes: Vec<u32>,
    pub(super) parts: u32,
}

/// Groups of nodes, phase by phase.
pub(super) type Phases = Vec<Vec<Group>>;

/// What is scheduled. Each is numbered after all that it waits for.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    /// For each op of the plan's order, which it is.
    order: Vec<u32>,
    /// The ops of each node, as places in the plan's order.
    ops: Edges,
    /// What each costs on one thread.
    pub(super) nanos: Vec<f64>,
    /// In how many parts it is worth while to cut it, at most.
    pub(super) grids: Vec<u32>,
    /// What each takes that all threads share as evenly as its grid allows.
    pub(super) shared: Vec<f64>,
    pub(super) predecessors: Edges,
    pub(super) successors: Edges,
}

impl Nodes {
    /// A node for each op, but for rows of ops of which each waits only for the one before,
    /// and is all that waits for it: those are one.
    pub(super) fn new(plan: &Plan, costs: &[Cost], team: &Team) -> Nodes {
        let order = plan.layout.order.clone();
        let mut places = vec![0; order.len()];
        for (place, &op) in order.iter().enumerate() {
            places[op as usize] = place as u32;
        }
        let (mut ops, mut predecessors) = (Edges::new(), Edges::new());
        let (mut nanos, mut grids) = (Vec::new(), Vec::new());
        let mut all_share = Vec::new();
        for (place, &op) in order.iter().enumerate() {
            ops.push([place as u32]);
            let before = plan.layout.graph.predecessors(op as usize).iter();
            predecessors.push(before.map(|&p| places[p as usize]));
            let cost = cost(costs, op as usize);
            let grid = cost.parts.min(plan.max_parts(op as usize));
            let share = shared(cost.nanos, grid, team.threads);
            let price = team.overheads.phase + team.overheads.unit;
            let (grid, share) = match cost.nanos - share > price {
                true => (grid, share),
                false => (1, cost.nanos),
            };
            grids.push(grid);
            all_share.push(share);
            nanos.push(cost.nanos);
        }
        let nodes = Nodes {
            order,
            ops,
            nanos,
            grids,
            shared: all_share,
            successors: predecessors.reversed(),
            predecessors,
        };
        let rows = nodes.rows();
        nodes.grouped(&rows)
    }

    /// Rows of nodes as groups, each a phase of its own.
    fn rows(&self) -> Phases {
        let mut rows: Phases = Vec::new();
        let mut row_of = vec![0; self.len()];
        for node in 0..self.len() {
            let before = match self.predecessors.of(node) {
                [p] if self.successors.of(*p as usize).len() == 1 => Some(*p as usize),
                _ => None,
            };
            if let Some(p) = before
                && self.grids[p] == 1
                && self.grids[node] == 1
            {
                row_of[node] = row_of[p];
                rows[row_of[p]][0].nodes.push(node as u32);
            } else {
                // Only the first of a row waits for others, so that rows in the order of
                // their first keep it.
                row_of[node] = rows.len();
                rows.push(vec![Group {
                    nodes: vec![node as u32],
                    parts: 1,
                }]);
            }
        }
        rows
    }

    pub(super) fn len(&self) -> usize {
        self.nanos.len()
    }

    /// A node for each group.
    pub(super) fn grouped(&self, phases: &Phases) -> Nodes {
        let groups = || phases.iter().flatten();
        let mut group_of = vec![0; self.len()];
        for (i, group) in groups().enumerate() {
            for &node in &group.nodes {
                group_of[node as usize] = i as u32;
            }
        }
        let (mut ops, mut predecessors) = (Edges::new(), Edges::new());
        let (mut nanos, mut grids) = (Vec::new(), Vec::new());
        let mut shared = Vec::new();
        // The last group that had each as a predecessor.
        let mut seen = vec![u32::MAX; groups().count()];
        for (i, group) in groups().enumerate() {
            let i = i as u32;
            let nodes = || group.nodes.iter().map(|&node| node as usize);
            ops.push(nodes().flat_map(|node| self.ops.of(node)).copied());
            let total = nodes().map(|node| self.nanos[node]).sum();
            let (grid, share) = match group.nodes[..] {
                [node] => (self.grids[node as usize], self.shared[node as usize]),
                _ => (1, total),
            };
            nanos.push(total);
            grids.push(grid);
            shared.push(share);
            let before = nodes().flat_map(|node| self.predecessors.of(node));
            let before = before.map(|&p| group_of[p as usize]);
            predecessors.push(
                before.filter(|&p| p != i && std::mem::replace(&mut seen[p as usize], i) != i),
            );
        }
        Nodes {
            order: self.order.clone(),
            ops,
            nanos,
            grids,
            shared,
            successors: predecessors.reversed(),
            predecessors,
        }
    }

    /// The schedule of groups. In a chain, ops run in the plan's order, and phases of one
    /// chain that follow each other are one.
    pub(super) fn schedule(&self, phases: &Phases) -> Schedule {
        let mut made: Vec<Vec<Task>> = Vec::new();
        // The chain that phases of one chain are joined to.
        let mut chain: Vec<u32> = Vec::new();
        let task = |mut places: Vec<u32>, parts| {
            places.sort_unstable();
            let op = |&place: &u32| self.order[place as usize] as usize;
            Task {
                ops: places.iter().map(op).collect(),
                parts,
            }
        };
        let places = |group: &Group| -> Vec<u32> {
            let nodes = group.nodes.iter();
            nodes
                .flat_map(|&node| self.ops.of(node as usize))
                .copied()
                .collect()
        };
        for phase in phases {
            if let [group] = &phase[..]
                && group.parts == 1
            {
                chain.extend(places(group));
                continue;
            }
            if !chain.is_empty() {
                made.push(vec![task(std::mem::take(&mut chain), 1)]);
            }
            let tasks = phase.iter().map(|group| task(places(group), group.parts));
            made.push(tasks.collect());
        }
        if !chain.is_empty() {
            made.push(vec![task(chain, 1)]);
        }
        Schedule { phases: made }
    }
}
