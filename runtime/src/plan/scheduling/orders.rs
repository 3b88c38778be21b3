//! Orders of nodes in which those stand together that could share a phase.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::nodes::{Edges, Nodes};
use super::predicting::{Nanos, Team};

/// Of more nodes than this, fewer orders are tried.
const MANY_NODES: usize = 1 << 10;

/// Orders that keep what must come before what, each node once.
pub(super) fn orders(nodes: &Nodes, team: &Team) -> Vec<Vec<u32>> {
    let own: Vec<u32> = (0..nodes.len() as u32).collect();
    let mut backwards = own.clone();
    backwards.reverse();
    let to_end = levels(nodes, &backwards, &nodes.successors);
    let to_start = levels(nodes, &own, &nodes.predecessors);
    let forwards = [&nodes.predecessors, &nodes.successors];
    let [started, ended] = play(nodes, team, forwards, &to_end);
    let backwards = [&nodes.successors, &nodes.predecessors];
    let [mut late_ended, mut late_started] = play(nodes, team, backwards, &to_start);
    late_ended.reverse();
    late_started.reverse();
    let mut orders = vec![own, ended, late_started];
    if nodes.len() <= MANY_NODES {
        orders.extend([started, late_ended]);
    }
    orders.dedup();
    orders
}

/// For each node, the longest way from its start along `next`, in nanoseconds. `order` has
/// what comes along `next` first.
fn levels(nodes: &Nodes, order: &[u32], next: &Edges) -> Vec<f64> {
    let mut levels = vec![0.0; nodes.len()];
    for &node in order {
        let node = node as usize;
        let after = next.of(node).iter().map(|&n| levels[n as usize]);
        let after = after.fold(0.0, f64::max);
        levels[node] = after + nodes.shared[node];
    }
    levels
}

/// The orders in which nodes start and end where threads take whatever is ready, that
/// with the highest level first, and need no phases.
fn play(nodes: &Nodes, team: &Team, [before, after]: [&Edges; 2], levels: &[f64]) -> [Vec<u32>; 2] {
    let units = |node: usize| nodes.grids[node].min(team.threads as u32);
    let mut waiting: Vec<u32> = (0..nodes.len())
        .map(|node| before.of(node).len() as u32)
        .collect();
    let entry = |node: usize| (Nanos(levels[node]), Reverse(node));
    let mut ready: BinaryHeap<_> = (0..nodes.len())
        .filter(|&node| waiting[node] == 0)
        .map(entry)
        .collect();
    // Units that nobody has taken, and those that are not done.
    let mut left: Vec<u32> = (0..nodes.len()).map(units).collect();
    let mut undone = left.clone();
    let mut running: BinaryHeap<Reverse<(Nanos, usize)>> = BinaryHeap::new();
    let (mut idle, mut now) = (team.threads, 0.0);
    let mut started = Vec::with_capacity(nodes.len());
    let mut ended = Vec::with_capacity(nodes.len());
    loop {
        while idle > 0
            && let Some(&(_, Reverse(node))) = ready.peek()
        {
            if left[node] == units(node) {
                started.push(node as u32);
            }
            left[node] -= 1;
            if left[node] == 0 {
                ready.pop();
            }
            idle -= 1;
            let nanos = nodes.nanos[node] / f64::from(units(node)) + team.overheads.unit;
            running.push(Reverse((Nanos(now + nanos), node)));
        }
        let Some(&Reverse((Nanos(next), _))) = running.peek() else {
            break;
        };
        now = next;
        // All that ends now, before anything new is taken.
        while let Some(&Reverse((Nanos(end), node))) = running.peek()
            && end <= now
        {
            running.pop();
            idle += 1;
            undone[node] -= 1;
            if undone[node] > 0 {
                continue;
            }
            ended.push(node as u32);
            for &next in after.of(node) {
                let next = next as usize;
                waiting[next] -= 1;
                if waiting[next] == 0 {
                    ready.push(entry(next));
                }
            }
        }
    }
    [started, ended]
}
