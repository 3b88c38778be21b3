//! What there is in the zoo, and what each must be called.

pub(crate) mod in_c;
pub(crate) mod in_llvm_ir;
#[cfg(target_arch = "x86_64")]
pub(crate) mod in_x86_64;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use svod_runtime::Guard;
use svod_runtime::sandbox::Limits;

use crate::data::Data;

/// What a kernel may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// More than any here needs.
    Plain,
    /// Little of the clock.
    Wall,
    /// Little of the processors' time.
    Cpu,
    /// Little memory.
    Memory,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Plain, Kind::Wall, Kind::Cpu, Kind::Memory];

    pub(crate) fn limits(self) -> Limits {
        let (much, little) = (Duration::from_secs(100), Duration::from_millis(20));
        let limits = Limits::default().wall(much);
        match self {
            Kind::Plain => limits,
            Kind::Wall => limits.wall(little),
            Kind::Cpu => limits.cpu(little),
            Kind::Memory => limits.memory(16 << 20),
        }
    }
}

/// One launch, and how it ends.
pub(crate) struct Case {
    pub(crate) kernel: &'static str,
    pub(crate) at: i64,
    pub(crate) grid: u64,
    pub(crate) guard: Guard,
    pub(crate) kind: Kind,
    /// As `told::told` says it.
    pub(crate) told: &'static str,
    /// How many bytes were touched at once, where that does not depend on the compiler.
    pub(crate) bytes: Option<usize>,
    /// What holds of the data of one that completes.
    pub(crate) holds: fn(&Data),
}

const fn case(kernel: &'static str, at: i64, told: &'static str) -> Case {
    Case {
        kernel,
        at,
        grid: 1,
        guard: Guard::End,
        kind: Kind::Plain,
        told,
        bytes: None,
        holds: |_| {},
    }
}

impl Case {
    const fn grid(mut self, grid: u64) -> Case {
        self.grid = grid;
        self
    }

    /// With guards right before the arguments.
    const fn start(mut self) -> Case {
        self.guard = Guard::Start;
        self
    }

    const fn kind(mut self, kind: Kind) -> Case {
        self.kind = kind;
        self
    }

    const fn bytes(mut self, bytes: usize) -> Case {
        self.bytes = Some(bytes);
        self
    }

    const fn holds(mut self, holds: fn(&Data)) -> Case {
        self.holds = holds;
        self
    }

    /// That it changes nothing.
    const fn idle(self) -> Case {
        self.holds(|data| assert_eq!(*data, Data::new()))
    }
}

/// What a kernel is given the address of, in the host.
pub(crate) static OF_THE_HOST: AtomicU64 = AtomicU64::new(0x600d);

/// An address that no memory could have, one that is the system's, and one where nothing is.
const NO_ADDRESS: i64 = 1 << 62;
const OF_THE_SYSTEM: i64 = -1 << 47;
const WILD: i64 = 0x1234_5678;
