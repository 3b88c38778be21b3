//! A stretch of an order, and the pieces that it falls in.

use super::bunching::Piece;
use super::nodes::{Edges, Nodes};

/// Some nodes that follow each other in an order, and what hangs together in them.
pub(super) struct Stretch<'a> {
    pub(super) own: &'a Nodes,
    pub(super) order: &'a [u32],
    /// For each place, those places within reach that it waits for, the nearest first.
    before: Edges,
    from: usize,
    end: usize,
    /// For each place, a later one that it hangs together with: the last leads to
    /// itself, and stands for the piece.
    leads: Vec<u32>,
    /// At the place that stands for a piece, what the piece is: as in [`Nodes`].
    nanos: Vec<f64>,
    pub(super) grid: Vec<u32>,
    shared: Vec<f64>,
    /// How many pieces there are.
    pub(super) count: usize,
    /// What all of it takes on one thread.
    pub(super) total: f64,
    /// The longest piece, where all threads share it that can.
    pub(super) longest: f64,
}

impl<'a> Stretch<'a> {
    pub(super) fn new(own: &'a Nodes, order: &'a [u32], reach: usize) -> Stretch<'a> {
        let mut places = vec![0; order.len()];
        for (place, &node) in order.iter().enumerate() {
            places[node as usize] = place as u32;
        }
        let mut before = Edges::new();
        let mut near: Vec<u32> = Vec::new();
        for (at, &node) in order.iter().enumerate() {
            let all = own.predecessors.of(node as usize).iter();
            let all = all.map(|&p| places[p as usize]);
            near.extend(all.filter(|&p| p as usize + reach > at));
            near.sort_unstable_by(|a, b| b.cmp(a));
            before.push(near.drain(..));
        }
        Stretch {
            own,
            order,
            before,
            from: 0,
            end: 0,
            leads: vec![0; order.len()],
            nanos: vec![0.0; order.len()],
            grid: vec![1; order.len()],
            shared: vec![0.0; order.len()],
            count: 0,
            total: 0.0,
            longest: 0.0,
        }
    }

    pub(super) fn begin(&mut self, from: usize) {
        (self.from, self.end) = (from, from);
        (self.count, self.total, self.longest) = (0, 0.0, 0.0);
    }

    /// Adds the node at a place, which is the next.
    pub(super) fn push(&mut self, at: usize) {
        let node = self.order[at] as usize;
        self.leads[at] = at as u32;
        self.nanos[at] = self.own.nanos[node];
        self.grid[at] = self.own.grids[node];
        self.shared[at] = self.own.shared[node];
        self.count += 1;
        self.total += self.nanos[at];
        self.end = at + 1;
        for i in 0..self.before.of(at).len() {
            let before = self.before.of(at)[i] as usize;
            if before < self.from {
                break;
            }
            let piece = self.find(before);
            if piece != at {
                self.leads[piece] = at as u32;
                self.nanos[at] += self.nanos[piece];
                self.grid[at] = 1;
                self.shared[at] = self.nanos[at];
                self.count -= 1;
            }
        }
        self.longest = self.longest.max(self.shared[at]);
    }

    /// The place that stands for a piece.
    fn find(&mut self, mut at: usize) -> usize {
        while self.leads[at] as usize != at {
            let next = self.leads[at] as usize;
            self.leads[at] = self.leads[next];
            at = next;
        }
        at
    }

    /// The pieces, by their last places.
    pub(super) fn pieces(&self, pieces: &mut Vec<Piece>) {
        let last = (self.from..self.end).filter(|&at| self.leads[at] as usize == at);
        pieces.clear();
        pieces.extend(last.map(|at| Piece {
            nanos: self.nanos[at],
            grid: self.grid[at],
            shared: self.shared[at],
        }));
    }

    /// The nodes of each piece.
    pub(super) fn members(&mut self) -> Vec<Vec<u32>> {
        let mut members: Vec<Vec<u32>> = Vec::new();
        let mut index = vec![0; self.end - self.from];
        for at in self.from..self.end {
            if self.leads[at] as usize == at {
                index[at - self.from] = members.len();
                members.push(Vec::new());
            }
        }
        for at in self.from..self.end {
            let piece = self.find(at);
            members[index[piece - self.from]].push(self.order[at]);
        }
        members
    }
}
