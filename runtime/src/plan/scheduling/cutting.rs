//! Where to cut an order into phases.

use super::bunching::{Maker, Piece};
use super::nodes::{Group, Nodes, Phases};
use super::orders::orders;
use super::predicting::Team;
use super::stretch::Stretch;

/// About how many stretches of an order are looked at, the shorter ones, of some 10 ns
/// each. Longer ones come out of several rounds.
const MAX_STRETCHES: usize = 1 << 16;

/// Stretches of so many nodes are looked at in any case.
const MIN_REACH: usize = 24;

/// How many pieces of stretches are played through for a proposal, of some 100 ns each. When
/// they are spent, the length of a phase is estimated.
const MAX_TIMED: usize = 1 << 17;

/// A stretch with this many pieces for each thread is only estimated.
const MANY_PIECES: usize = 4;

/// Cuts orders into phases.
#[derive(Debug)]
pub(super) struct Cutter {
    team: Team,
    maker: Maker,
    pieces: Vec<Piece>,
    /// How many pieces may still be timed.
    may_time: usize,
}

/// The best way to come to a place of an order.
#[derive(Clone, Copy, Debug)]
struct Way {
    nanos: f64,
    /// The stretch that ends there.
    last: Cut,
}

/// A stretch that is a phase.
#[derive(Clone, Copy, Debug)]
struct Cut {
    from: usize,
    end: usize,
    /// Whether it has several units.
    parallel: bool,
}

impl Cutter {
    pub(super) fn new(team: Team) -> Cutter {
        Cutter {
            team,
            maker: Maker::default(),
            pieces: Vec::new(),
            may_time: MAX_TIMED,
        }
    }

    /// The phases of whichever order does best, and how long they take.
    pub(super) fn best_phases(&mut self, nodes: &Nodes) -> (f64, Phases) {
        let (by_level, cuts) = levels(nodes);
        let mut stretch = Stretch::new(nodes, &by_level, 0);
        let mut best = self.phases(&mut stretch, cuts);
        for order in orders(nodes, &self.team) {
            let reach = (MAX_STRETCHES / order.len().max(1)).max(MIN_REACH);
            let mut stretch = Stretch::new(nodes, &order, reach);
            let cuts = self.cut(&mut stretch, reach);
            let found = self.phases(&mut stretch, cuts);
            if found.0 < best.0 {
                best = found;
            }
        }
        best
    }

    /// Where an order is best cut.
    fn cut(&mut self, stretch: &mut Stretch<'_>, reach: usize) -> Vec<Cut> {
        let places = stretch.order.len();
        // Some of what is left for each order, so that all rounds have some.
        let mut may_time = self.may_time / 8;
        self.may_time -= may_time;
        let unknown = Way {
            nanos: f64::INFINITY,
            last: Cut {
                from: 0,
                end: 0,
                parallel: false,
            },
        };
        let mut ways = vec![unknown; places + 1];
        ways[0].nanos = 0.0;
        for from in 0..places {
            let so_far = ways[from].nanos;
            let way = |end: usize, nanos: f64, parallel| Way {
                nanos,
                last: Cut {
                    from,
                    end,
                    parallel,
                },
            };
            // In turn: the other threads are not told.
            let serial = so_far + stretch.own.nanos[stretch.order[from] as usize];
            if serial < ways[from + 1].nanos {
                ways[from + 1] = way(from + 1, serial, false);
            }
            stretch.begin(from);
            for last in from..places.min(from + reach) {
                stretch.push(last);
                let end = last + 1;
                // One chain is no better than its ops in turn.
                if stretch.count == 1 && (last > from || stretch.grid[from] == 1) {
                    continue;
                }
                if so_far + self.least(stretch) >= ways[end].nanos {
                    continue;
                }
                let few = stretch.count < MANY_PIECES * self.team.threads;
                let nanos = if few && stretch.count <= may_time {
                    may_time -= stretch.count;
                    self.time(stretch)
                } else {
                    self.likely(stretch)
                };
                if so_far + nanos < ways[end].nanos {
                    ways[end] = way(end, so_far + nanos, true);
                }
            }
        }
        self.may_time += may_time;
        let mut cuts = Vec::new();
        let mut end = places;
        while end > 0 {
            let cut = ways[end].last;
            cuts.push(cut);
            end = cut.from;
        }
        cuts.reverse();
        cuts
    }

    /// The phases that an order is cut in, and how long they take.
    fn phases(&mut self, stretch: &mut Stretch<'_>, cuts: Vec<Cut>) -> (f64, Phases) {
        let mut total = 0.0;
        let phase = |cut: Cut| {
            let nodes = &stretch.order[cut.from..cut.end];
            let serial = nodes.iter().map(|&node| stretch.own.nanos[node as usize]);
            let serial = serial.sum();
            if cut.parallel {
                stretch.begin(cut.from);
                (cut.from..cut.end).for_each(|at| stretch.push(at));
                let nanos = self.time(stretch);
                if nanos < serial {
                    total += nanos;
                    let members = stretch.members();
                    let group = |(pieces, parts): (Vec<usize>, u32)| Group {
                        nodes: pieces
                            .into_iter()
                            .flat_map(|p| members[p].iter().copied())
                            .collect(),
                        parts,
                    };
                    return self.maker.tasks().map(group).collect();
                }
            }
            total += serial;
            vec![Group {
                nodes: nodes.to_vec(),
                parts: 1,
            }]
        };
        let phases = cuts.into_iter().map(phase).collect();
        (total, phases)
    }

    /// How long a phase of a stretch takes.
    fn time(&mut self, stretch: &Stretch<'_>) -> f64 {
        stretch.pieces(&mut self.pieces);
        self.maker.time(&mut self.team, &self.pieces)
    }

    /// What a phase of a stretch may take, where nobody looks closely: the threads end about
    /// half a piece apart.
    fn likely(&self, stretch: &Stretch<'_>) -> f64 {
        let apart = stretch.total / stretch.count as f64 / 2.0;
        let even = stretch.total / self.team.threads as f64 + apart;
        let taking = 2.0 * self.team.overheads.unit;
        self.team.overheads.phase + even.max(stretch.longest) + taking
    }

    /// What a phase of a stretch takes at least.
    fn least(&self, stretch: &Stretch<'_>) -> f64 {
        let threads = self.team.threads as f64;
        let even = (stretch.total + 2.0 * self.team.overheads.unit) / threads;
        let longest = stretch.longest + self.team.overheads.unit;
        self.team.overheads.phase + even.max(longest)
    }
}

/// The nodes in the order of their levels, and each level as a stretch: what is equally many
/// steps from the start.
fn levels(nodes: &Nodes) -> (Vec<u32>, Vec<Cut>) {
    let mut levels = vec![0_usize; nodes.len()];
    for node in 0..nodes.len() {
        let before = nodes.predecessors.of(node).iter();
        let before = before.map(|&p| levels[p as usize] + 1);
        levels[node] = before.max().unwrap_or(0);
    }
    let mut order: Vec<u32> = (0..nodes.len() as u32).collect();
    order.sort_by_key(|&node| levels[node as usize]);
    let mut cuts = Vec::new();
    let mut from = 0;
    for level in order.chunk_by(|&a, &b| levels[a as usize] == levels[b as usize]) {
        let end = from + level.len();
        cuts.push(Cut {
            from,
            end,
            parallel: level.len() > 1 || nodes.grids[level[0] as usize] > 1,
        });
        from = end;
    }
    (order, cuts)
}
