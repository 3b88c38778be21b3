//! How much a child may take.

use std::time::Duration;

/// How much a sandboxed launch, or run of a plan, may take. Of a list of launches each has it
/// anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How long it may take on the clock.
    pub wall: Duration,
    /// How much of the processors' time it may have, of all its threads together; without a
    /// limit, what `wall` allows.
    pub cpu: Option<Duration>,
    /// How many bytes of memory the child may take beyond what it has when it starts; without a
    /// limit, what the system has. It is looked at every few milliseconds, and so may be exceeded
    /// for as long; where it cannot be looked at, for want of `/proc`, a limit is an error.
    pub memory: Option<usize>,
    /// The bytes of stack that a kernel has.
    pub stack: usize,
}

impl Default for Limits {
    /// Ten seconds, 1 GiB, and a stack of 1 MiB.
    fn default() -> Limits {
        Limits {
            wall: Duration::from_secs(10),
            cpu: None,
            memory: Some(1 << 30),
            stack: 1 << 20,
        }
    }
}

impl Limits {
    /// The same, with another limit on the clock.
    #[must_use]
    pub const fn wall(mut self, wall: Duration) -> Limits {
        self.wall = wall;
        self
    }

    /// The same, with another limit on the processors' time.
    #[must_use]
    pub const fn cpu(mut self, cpu: Duration) -> Limits {
        self.cpu = Some(cpu);
        self
    }

    /// The same, with another limit on memory, in bytes.
    #[must_use]
    pub const fn memory(mut self, bytes: usize) -> Limits {
        self.memory = Some(bytes);
        self
    }

    /// The same, with a stack of so many bytes.
    #[must_use]
    pub const fn stack(mut self, bytes: usize) -> Limits {
        self.stack = bytes;
        self
    }
}
