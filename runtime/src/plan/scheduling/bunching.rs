//! A phase of pieces: which are cut in parts, and which are run in turn by one thread.

use super::MAX_UNITS;
use super::predicting::{Team, parts};

/// What stands alone in a phase: a chain, or a launch that can be split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) nanos: f64,
    /// In how many parts it can be cut.
    pub(super) grid: u32,
    /// What it takes that all threads share as evenly as its grid allows.
    pub(super) shared: f64,
}

/// Pieces that one thread runs in turn, or one that is cut in parts.
#[derive(Clone, Debug)]
struct Bunch {
    /// Which of the pieces, or the first of the small ones.
    first: usize,
    /// How many small ones; 0 for a piece that is not.
    small: usize,
    parts: u32,
    nanos: f64,
    grid: u32,
    /// The longest of its units.
    unit: f64,
}

/// How many units a thread may have in a phase, about: as few as are good, since each is
/// taken at a price, and caches like few.
const FINENESS: [f64; 4] = [1.0, 2.0, 4.0, 12.0];

/// By what factor a phase must become shorter to be cut finer.
const FINER_GAIN: f64 = 0.995;

/// Makes phases of pieces, in memory that it keeps.
#[derive(Debug, Default)]
pub(super) struct Maker {
    /// The small pieces, which are bunched.
    small: Vec<u32>,
    bunches: Vec<Bunch>,
    best_small: Vec<u32>,
    best: Vec<Bunch>,
}

impl Maker {
    /// How long a phase of these pieces takes, at best.
    pub(super) fn time(&mut self, team: &mut Team, pieces: &[Piece]) -> f64 {
        let total: f64 = pieces.iter().map(|piece| piece.nanos).sum();
        let longest = pieces.iter().map(|piece| piece.shared).fold(0.0, f64::max);
        let ideal = longest.max(total / team.threads as f64);
        let good = team.overheads.phase + 2.0 * team.overheads.unit + ideal * 1.002;
        let mut best = f64::INFINITY;
        for fineness in FINENESS {
            self.bunch(pieces, (ideal / fineness).max(1e-3));
            let bunches = self.bunches.iter();
            let units: usize = bunches.map(|bunch| bunch.parts as usize).sum();
            if units > MAX_UNITS {
                break;
            }
            let bunches = self.bunches.iter();
            let nanos =
                team.run(bunches.flat_map(|bunch| parts(bunch.nanos, bunch.grid, bunch.parts)));
            let mut bunches = self.bunches.iter();
            let finest = bunches.all(|bunch| bunch.small == 0 && bunch.parts == bunch.grid);
            if nanos < best * FINER_GAIN {
                best = nanos;
                std::mem::swap(&mut self.best, &mut self.bunches);
                std::mem::swap(&mut self.best_small, &mut self.small);
            }
            if finest || best <= good {
                break;
            }
        }
        best
    }

    /// The phase that [`time`](Self::time) found last: for each task its pieces, and in
    /// how many parts it is cut.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (Vec<usize>, u32)> {
        self.best.iter().map(|bunch| {
            if bunch.small == 0 {
                return (vec![bunch.first], bunch.parts);
            }
            let small = &self.best_small[bunch.first..bunch.first + bunch.small];
            let pieces = small.iter().map(|&piece| piece as usize);
            (pieces.collect(), 1)
        })
    }

    /// Makes units of about `grain` nanoseconds: what is longer is cut, if it can be, and what
    /// is much shorter is bunched. Each bunch is more than half a grain but for the last.
    fn bunch(&mut self, pieces: &[Piece], grain: f64) {
        self.small.clear();
        self.bunches.clear();
        let mut open: Option<Bunch> = None;
        for (i, &Piece { nanos, grid, .. }) in pieces.iter().enumerate() {
            if nanos > grain / 2.0 {
                // Rounding must not make three parts of two.
                let indices = (grain / (nanos / f64::from(grid)) - 1e-6).ceil().max(1.0);
                let parts = (f64::from(grid) / indices).ceil() as u32;
                self.bunches.push(Bunch {
                    first: i,
                    small: 0,
                    parts,
                    nanos,
                    grid,
                    unit: nanos * f64::from(grid.div_ceil(parts)) / f64::from(grid),
                });
                continue;
            }
            let full = |bunch: &Bunch| bunch.nanos + nanos / 2.0 > grain;
            self.bunches.extend(open.take_if(|bunch| full(bunch)));
            let bunch = open.get_or_insert(Bunch {
                first: self.small.len(),
                small: 0,
                parts: 1,
                nanos: 0.0,
                grid: 1,
                unit: 0.0,
            });
            bunch.small += 1;
            bunch.nanos += nanos;
            bunch.unit = bunch.nanos;
            self.small.push(i as u32);
        }
        self.bunches.extend(open);
        self.bunches.sort_by(|a, b| b.unit.total_cmp(&a.unit));
    }
}
