//! What came of a verification.

use std::fmt;
use std::path::PathBuf;

use crate::sandbox::CodePlace;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A kernel touches what lies outside of an argument.
    OutOfBounds,
    /// It writes an argument that is declared `r`.
    WritesReadOnly,
    /// It reads an argument that is declared `w`.
    ReadsWriteOnly,
    /// It reads a part of a temp, or of an output, that no op has written in this run.
    ReadsUnwritten,
    /// Two calls of a grid write the same element.
    Overlap,
    /// What a call of a grid writes depends on whether, or when, others are made.
    Dependent,
    /// The same launch writes other bits the next time.
    Unsteady,
    /// It writes other bits where its arguments lie elsewhere, aligned as they are declared.
    Placement,
    /// It needs more alignment than is declared.
    Misaligned,
    /// It writes a `bool` that is neither 0 nor 1.
    NotBool,
    /// It returns a status other than 0.
    Status,
    /// It does not come to an end.
    Hang,
    /// It ends its process in another way.
    Crash,
    /// A part of an output that no op writes.
    UnwrittenOutput,
    /// A run on several threads differs from one on one.
    Threads,
    /// A run over planned memory differs from one in which every temp has its own.
    PlannedMemory,
    /// A run over guarded memory differs, or fails.
    Guarded,
    /// A run does not give what was recorded.
    Recorded,
}

impl Kind {
    /// Its name in reports: `out-of-bounds`, `reads-write-only`, …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::OutOfBounds => "out-of-bounds",
            Kind::WritesReadOnly => "writes-read-only",
            Kind::ReadsWriteOnly => "reads-write-only",
            Kind::ReadsUnwritten => "reads-unwritten",
            Kind::Overlap => "overlap",
            Kind::Dependent => "dependent",
            Kind::Unsteady => "unsteady",
            Kind::Placement => "placement",
            Kind::Misaligned => "misaligned",
            Kind::NotBool => "not-bool",
            Kind::Status => "status",
            Kind::Hang => "hang",
            Kind::Crash => "crash",
            Kind::UnwrittenOutput => "unwritten-output",
            Kind::Threads => "threads",
            Kind::PlannedMemory => "planned-memory",
            Kind::Guarded => "guarded",
            Kind::Recorded => "recorded",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A line of a kernel's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file, as the compiler knows it.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// In which run it was found first: a recorded test, or a choice of variables.
    pub pass: String,
    /// The op; none where it is the plan as a whole.
    pub op: Option<usize>,
    /// The entry of its kernel.
    pub kernel: Option<String>,
    /// The argument, counted from 0 among the buffer arguments.
    pub argument: Option<usize>,
    /// The buffer that it is a part of: its role, and its name or `#` and its number.
    pub buffer: Option<String>,
    /// The element of the argument: below 0 before the first, and from its length on behind the
    /// last. Of a plan's output, the element of that.
    pub element: Option<i64>,
    /// The calls of the grid, where it is of these.
    pub calls: Vec<u64>,
    /// Where in the kernel's code, where that is known.
    pub code: Option<CodePlace>,
    /// The line of its source, likewise.
    pub line: Option<Line>,
    /// All of it, as a sentence.
    pub text: String,
}

/// What was checked of an op.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// In how many runs of the plan it was.
    pub runs: usize,
    /// In how many of these it was not verified again, as its kernel had been, with the same
    /// scalars and grid.
    pub skipped: usize,
    /// How many launches were made for it.
    pub launches: usize,
    /// How many calls of the grid these had.
    pub calls: u64,
    /// The calls that its grid has, at most.
    pub grid: u64,
    /// Whether each call of the grid was made alone; otherwise, each pair of them was taken apart.
    pub alone: bool,
}

/// What was checked of the plan as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeCheck {
    /// What: `threads`, `planned-memory`, `guarded`, `recorded`.
    pub kind: Kind,
    /// How many runs were compared.
    pub runs: usize,
    /// Why it was not done, where it was not.
    pub skipped: Option<String>,
}

/// What came of a verification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// All that is wrong; of an op, a kind and an argument only the first.
    pub findings: Vec<Finding>,
    /// What was checked of each op; zeros for copies and fills, which have no code.
    pub ops: Vec<Checked>,
    /// The runs, in order.
    pub passes: Vec<String>,
    /// What was checked of the plan as a whole.
    pub whole: Vec<WholeCheck>,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}
