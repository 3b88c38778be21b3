//! What the processor itself counts.
//!
//! Linux counts for a thread, and for those that it starts later: to have a team's threads counted
//! as well, counters are opened before the pool's first run. Virtual machines mostly have none.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

use serde::Serialize;

/// The events, by their numbers in `perf_event_open(2)`: `PERF_COUNT_HW_*`.
const CYCLES: u64 = 0;
const INSTRUCTIONS: u64 = 1;
const CACHE_MISSES: u64 = 3;
const BRANCH_MISSES: u64 = 5;

/// Counters of the calling thread and of those that it starts from now on, in their own code, not in the
/// system's.
#[derive(Debug)]
pub struct Counters {
    cycles: File,
    instructions: File,
    /// Those that not every processor has.
    cache_misses: Option<File>,
    branch_misses: Option<File>,
}

/// What was counted. Where the processor has fewer counters than there are events, these took turns, and
/// what each missed is filled in in proportion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Cycles of the cores.
    pub cycles: f64,
    /// Instructions that were completed.
    pub instructions: f64,
    /// What was in none of the caches, mostly.
    pub cache_misses: Option<f64>,
    /// Jumps that went elsewhere than foreseen.
    pub branch_misses: Option<f64>,
}

impl Counts {
    /// The same, of one of so many runs.
    #[must_use]
    pub fn per_run(self, runs: u64) -> Counts {
        let of = |all: f64| all / runs.max(1) as f64;
        Counts {
            cycles: of(self.cycles),
            instructions: of(self.instructions),
            cache_misses: self.cache_misses.map(of),
            branch_misses: self.branch_misses.map(of),
        }
    }
}

/// Why nothing is counted.
#[derive(Debug, thiserror::Error)]
pub enum NoCounters {
    /// There is nothing that counts, as on most virtual machines.
    #[error("this machine has no hardware counters, as most virtual machines have none")]
    Absent,
    /// The system does not allow it to this process.
    #[error(
        "this process may not count; lower kernel.perf_event_paranoid to 2, or give it CAP_PERFMON"
    )]
    Forbidden,
    /// Another reason.
    #[error("the system does not count: {0}")]
    Failing(io::Error),
}

impl From<io::Error> for NoCounters {
    fn from(error: io::Error) -> NoCounters {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV) => NoCounters::Absent,
            Some(libc::EACCES | libc::EPERM) => NoCounters::Forbidden,
            _ => NoCounters::Failing(error),
        }
    }
}

impl Counters {
    /// Opens them; they stand still.
    ///
    /// # Errors
    ///
    /// Why nothing can be counted.
    pub fn open() -> Result<Counters, NoCounters> {
        Ok(Counters {
            cycles: open(CYCLES)?,
            instructions: open(INSTRUCTIONS)?,
            cache_misses: open(CACHE_MISSES).ok(),
            branch_misses: open(BRANCH_MISSES).ok(),
        })
    }

    /// Has them count.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn start(&self) -> io::Result<()> {
        // PERF_EVENT_IOC_ENABLE
        self.all().try_for_each(|file| tell(file, 0x2400))
    }

    /// Has them stand still.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn stop(&self) -> io::Result<()> {
        // PERF_EVENT_IOC_DISABLE
        self.all().try_for_each(|file| tell(file, 0x2401))
    }

    /// What was counted up to now.
    ///
    /// # Errors
    ///
    /// What reading them returns; [`io::ErrorKind::InvalidData`] where that is no count.
    pub fn counts(&self) -> io::Result<Counts> {
        let optional = |file: &Option<File>| file.as_ref().map(count).transpose();
        Ok(Counts {
            cycles: count(&self.cycles)?,
            instructions: count(&self.instructions)?,
            cache_misses: optional(&self.cache_misses)?,
            branch_misses: optional(&self.branch_misses)?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &File> {
        let certain = [&self.cycles, &self.instructions];
        let others = [&self.cache_misses, &self.branch_misses];
        certain.into_iter().chain(others.into_iter().flatten())
    }
}

fn open(event: u64) -> io::Result<File> {
    // `struct perf_event_attr`, of its first size. The type 0 is the processor's events.
    const SIZE: u64 = 64;
    const TIME_ENABLED: u64 = 1;
    const TIME_RUNNING: u64 = 1 << 1;
    const DISABLED: u64 = 1;
    const INHERIT: u64 = 1 << 1;
    const NOT_IN_THE_KERNEL: u64 = 1 << 5;
    const NOT_IN_A_HYPERVISOR: u64 = 1 << 6;
    let attributes: [u64; 8] = [
        SIZE << 32,
        event,
        0,
        0,
        TIME_ENABLED | TIME_RUNNING,
        DISABLED | INHERIT | NOT_IN_THE_KERNEL | NOT_IN_A_HYPERVISOR,
        0,
        0,
    ];
    let (this_thread, any_cpu, no_group) = (0, -1, -1);
    // PERF_FLAG_FD_CLOEXEC
    let flags: libc::c_ulong = 1 << 3;
    // SAFETY: the attributes are as many bytes as they say, and are read in the call alone.
    let counter = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            this_thread,
            any_cpu,
            no_group,
            flags,
        )
    };
    match libc::c_int::try_from(counter) {
        // SAFETY: it was just opened, and is nobody else's.
        Ok(file) if file >= 0 => Ok(unsafe { File::from_raw_fd(file) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn tell(file: &File, request: libc::Ioctl) -> io::Result<()> {
    // SAFETY: the request takes a number, and touches no memory.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn count(mut file: &File) -> io::Result<f64> {
    let mut read = [0; 24];
    file.read_exact(&mut read)?;
    let count = parse(read).ok_or("a counter that never counted, though it was asked to");
    count.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

/// The count, how long it was to be counted, and how long it was, each of 64 bits.
fn parse(read: [u8; 24]) -> Option<f64> {
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| read[8 * at + i]));
    let (count, enabled, running) = (word(0), word(1), word(2));
    match (enabled, running) {
        (0, _) => Some(0.0),
        (_, 0) => None,
        _ => Some(count as f64 * (enabled as f64 / running as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the system gives them on a machine of x86-64.
    fn recorded(words: [u64; 3]) -> [u8; 24] {
        std::array::from_fn(|i| words[i / 8].to_ne_bytes()[i % 8])
    }

    #[test]
    fn a_count_of_part_of_the_time_is_filled_in() {
        assert_eq!(parse(recorded([12_345, 1_000, 1_000])), Some(12_345.0));
        assert_eq!(parse(recorded([300, 4_000, 1_000])), Some(1_200.0));
        assert_eq!(parse(recorded([0, 0, 0])), Some(0.0));
        assert_eq!(parse(recorded([0, 500, 0])), None);
    }

    #[test]
    fn where_nothing_counts_the_reason_is_named() {
        let why = |number| NoCounters::from(io::Error::from_raw_os_error(number)).to_string();
        assert!(why(libc::ENOENT).contains("no hardware counters"));
        assert!(why(libc::EACCES).contains("kernel.perf_event_paranoid"));
        assert!(why(libc::EMFILE).contains("open files"));
    }

    #[test]
    fn what_can_be_counted_is() {
        let counters = match Counters::open() {
            Ok(counters) => counters,
            Err(why) => {
                println!("not counted: {why}");
                return;
            }
        };
        counters.start().unwrap();
        let sum: u64 = std::hint::black_box(0..100_000_u64).sum();
        counters.stop().unwrap();
        let counts = counters.counts().unwrap();
        assert!(sum > 0 && counts.instructions > 100_000.0, "{counts:?}");
        assert_eq!(counters.counts().unwrap(), counts);
    }
}
