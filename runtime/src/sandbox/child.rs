//! A child process: made, waited for, and stopped.
//!
//! It is made by the system call itself: the C library's `fork` takes locks, and calls whatever
//! anybody has asked to be called. And it is made so that no signal tells of its end, which the
//! host's handlers, or a thread of the host's that waits for any child, could take for something
//! of theirs: who waits for it waits on its descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

use super::Limits;
use super::control::Control;
use super::fault::{self, now};
use crate::Error;

/// How long at most before a child's memory is looked at, where it has a limit.
pub(super) const MEMORY_LOOK: Duration = Duration::from_millis(4);

/// How long a child has to write down where it is, before it is ended.
const PATIENCE: Duration = Duration::from_millis(50);

/// A child that is there, or was and has not been asked how it ended.
#[derive(Debug)]
pub(super) struct Child {
    descriptor: OwnedFd,
    /// Its id, for the files that the system has of it.
    id: i32,
    ended: bool,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    Signalled(i32),
    /// How cannot be known.
    Unknown,
    /// It was stopped here, for its time, or for its memory.
    OverTime,
    OverCpu,
    OverMemory,
}

/// Forks this process, and runs `child` in the new one. All signals are blocked there, until it
/// lets them in.
///
/// # Safety
///
/// `child` must do only what a handler of signals may: other threads of this process could hold
/// any lock.
pub(super) unsafe fn fork(child: impl FnOnce()) -> Result<Child, Error> {
    let mut descriptor: libc::c_int = -1;
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: a set is plain numbers; both calls write all of the one that they are given.
    unsafe {
        let mut all = std::mem::MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    // SAFETY: without a stack and without shared memory it is a fork; the new process has this
    // thread alone, which does what the caller promises and does not return.
    let id = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_ulong::from(libc::CLONE_PIDFD.unsigned_abs()),
            0_usize,
            &raw mut descriptor,
            0_usize,
            0_usize,
        )
    };
    if id == 0 {
        child();
        fault::exit(0);
    }
    let error = io::Error::last_os_error();
    // SAFETY: the set that was there before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    if id < 0 {
        return Err(Error::system("fork a child to run kernels in", error));
    }
    if descriptor < 0 {
        // Before Linux 5.2 it is not given one.
        // SAFETY: the child that was just made, which nobody has waited for.
        unsafe {
            let id = libc::pid_t::try_from(id).unwrap_or(-1);
            libc::kill(id, libc::SIGKILL);
            libc::waitpid(id, std::ptr::null_mut(), libc::__WALL);
        }
        let error = io::Error::from(io::ErrorKind::Unsupported);
        return Err(Error::system(
            "have a descriptor of a child (Linux 5.4)",
            error,
        ));
    }
    Ok(Child {
        // SAFETY: the system has just opened it, for nobody else.
        descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) },
        id: i32::try_from(id).unwrap_or(0),
        ended: false,
    })
}

impl Child {
    /// One that was started as any program is.
    pub(super) fn of(process: &std::process::Child) -> Result<Child, Error> {
        let id = i32::try_from(process.id()).unwrap_or(0);
        let system = |e: rustix::io::Errno| Error::system("watch a sandbox's helper", e);
        let pid = Pid::from_raw(id).ok_or_else(|| system(rustix::io::Errno::SRCH))?;
        Ok(Child {
            descriptor: pidfd_open(pid, PidfdFlags::empty()).map_err(system)?,
            id,
            ended: false,
        })
    }

    /// The processors' time that it has had, of all its threads, in nanoseconds.
    pub(super) fn cpu_time(&self) -> Option<u64> {
        let mut clock = 0;
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: each writes one value, which lives until it returns.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.id, &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        (!failed).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// How many threads it has; none where the system does not say.
    pub(super) fn threads(&self) -> Option<usize> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id)).ok()?;
        Some(tasks.count())
    }

    /// What it takes of memory, where that has a limit; `shared` says whether what it shares with
    /// others counts.
    pub(super) fn memory(&self, limits: &Limits, shared: bool) -> Result<Option<Memory>, Error> {
        let limit = limits.memory;
        limit
            .map(|limit| Memory::new(self.id, limit, shared))
            .transpose()
    }

    /// Waits until it ends, or takes more than it may for any of so many launches.
    pub(super) fn wait(
        &mut self,
        control: &Control,
        limits: &Limits,
        launches: usize,
    ) -> Result<Ended, Error> {
        let memory = self.memory(limits, false)?;
        let mut clock = Clock::new(limits.wall, launches, now());
        loop {
            let left = clock.left(control.began.load(Ordering::Relaxed), now());
            if left == 0 {
                return self.stop(Ended::OverTime);
            }
            let mut left = Duration::from_nanos(left);
            if let Some(memory) = &memory {
                if memory.is_over(0) {
                    return self.stop(Ended::OverMemory);
                }
                left = left.min(MEMORY_LOOK);
            }
            if self.has_ended(left)? {
                return self.ask();
            }
        }
    }

    /// Waits for as long for its end.
    pub(super) fn has_ended(&self, wait: Duration) -> Result<bool, Error> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = rustix::event::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut descriptors, Some(&timeout)) {
                Ok(found) => return Ok(found > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::system("wait for a sandbox's child", e)),
            }
        }
    }

    /// How it ended, once it has. Processes that a kernel started end with it.
    pub(super) fn ask(&mut self) -> Result<Ended, Error> {
        // The number is the child's, and so its group's, until it has been asked.
        if let Some(group) = Pid::from_raw(self.id).filter(|id| !id.is_init()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        // It is none of those whose end a signal tells of.
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
        let status = loop {
            match waitid(WaitId::PidFd(self.descriptor.as_fd()), options) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        self.ended = true;
        // Somebody who waits for any child of this process has taken the answer, or nobody is to
        // have one.
        if status
            .as_ref()
            .is_err_and(|e| *e == rustix::io::Errno::CHILD)
        {
            return Ok(Ended::Unknown);
        }
        let status = status.map_err(|e| Error::system("ask how a sandbox's child ended", e))?;
        let Some(status) = status else {
            return Ok(Ended::Unknown);
        };
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Exited(code),
            (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
        })
    }

    /// Stops it, and says why, unless it had ended by then.
    pub(super) fn stop(&mut self, why: Ended) -> Result<Ended, Error> {
        if self.has_ended(Duration::ZERO)? {
            return self.ask();
        }
        // It may end in this moment.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        self.ask()?;
        Ok(why)
    }
}

impl Child {
    /// As [`stop`](Self::stop), of one whose handlers write down where it is when it is stopped: in
    /// a thread that is at work, where there is one.
    pub(super) fn stop_where_it_is(&mut self, why: Ended) -> Result<Ended, Error> {
        if self.has_ended(Duration::ZERO)? {
            return self.ask();
        }
        if let Some(thread) = self.thread_at_work() {
            // SAFETY: it sends a signal, to a thread of this process's child.
            unsafe { libc::syscall(libc::SYS_tgkill, self.id, thread, libc::SIGXCPU) };
            self.has_ended(PATIENCE)?;
        }
        // It may end in this moment, or have done so.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        self.ask()?;
        Ok(why)
    }

    /// The number of a thread of it that has a processor, or waits for one.
    fn thread_at_work(&self) -> Option<i32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id)).ok()?;
        tasks.flatten().find_map(|task| {
            let status = std::fs::read_to_string(task.path().join("stat")).ok()?;
            // Behind its name, which may be anything.
            let state = status.rsplit_once(") ")?.1;
            let thread = task.file_name().to_str()?.parse().ok()?;
            state.starts_with('R').then_some(thread)
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        if let Err(error) = self.ask() {
            let descriptor = self.descriptor.as_raw_fd();
            tracing::error!(%error, descriptor, "cannot end a sandbox's child");
        }
    }
}

/// How long a child may still take, in nanoseconds of the monotonic clock.
#[derive(Debug)]
pub(super) struct Clock {
    wall: u64,
    /// When the launch that is under way began, as far as that is believed.
    began: u64,
    /// How many have yet to begin: a child that says so more often is not believed.
    to_begin: usize,
    /// When all must be over, whatever the child says.
    end: u64,
}

impl Clock {
    /// From now on, for each of so many launches.
    pub(super) fn new(wall: Duration, launches: usize, now: u64) -> Clock {
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        // One more for what lies between them.
        let all = wall.saturating_mul((launches as u64).saturating_add(1));
        Clock {
            wall,
            began: now,
            to_begin: launches,
            end: now.saturating_add(all),
        }
    }

    /// With when a child says that its launch began, which may be anything.
    pub(super) fn left(&mut self, said: u64, now: u64) -> u64 {
        if self.to_begin > 0 && said > self.began && said <= now {
            self.began = said;
            self.to_begin -= 1;
        }
        let end = self.began.saturating_add(self.wall).min(self.end);
        end.saturating_sub(now)
    }
}

/// What a child takes of memory.
#[derive(Debug)]
pub(super) struct Memory {
    statistics: File,
    limit: usize,
    at_first: usize,
    /// Whether what it shares with others counts: a forked child has all of its parent's, and a
    /// helper nothing but what it was given, or has made itself.
    shared: bool,
}

impl Memory {
    fn new(id: i32, limit: usize, shared: bool) -> Result<Memory, Error> {
        let statistics = format!("/proc/{id}/statm");
        let statistics = File::open(&statistics).map_err(|e| {
            let doing = format!(
                "open {statistics}, by which a sandbox's limit on memory is kept (without /proc, \
                 set no such limit)"
            );
            Error::system(doing, e)
        })?;
        let mut memory = Memory {
            statistics,
            limit,
            at_first: 0,
            shared,
        };
        memory.at_first = memory.now().unwrap_or(0);
        Ok(memory)
    }

    /// Whether it has more than it may, and as many bytes as it was given.
    pub(super) fn is_over(&self, given: usize) -> bool {
        let most = self.limit.saturating_add(given);
        let now = self.now();
        now.is_some_and(|now| now.saturating_sub(self.at_first) > most)
    }

    /// The bytes that it has.
    fn now(&self) -> Option<usize> {
        let mut text = [0; 128];
        let read = self.statistics.read_at(&mut text, 0).ok()?;
        let [_, resident, shared] = pages(text.get(..read)?)?;
        let counted = match self.shared {
            true => resident,
            false => resident.saturating_sub(shared),
        };
        Some(counted.saturating_mul(rustix::param::page_size()))
    }
}

/// The bytes of addresses that this process has.
pub(super) fn addresses() -> Option<usize> {
    let text = std::fs::read("/proc/self/statm").ok()?;
    Some(pages(&text)?[0].saturating_mul(rustix::param::page_size()))
}

/// The first three numbers of a `statm`: pages of addresses, in memory, and of these shared.
fn pages(text: &[u8]) -> Option<[usize; 3]> {
    let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let mut next = || numbers.next()?.parse().ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(wall: u64, launches: usize) -> Clock {
        Clock::new(Duration::from_nanos(wall), launches, 1000)
    }

    #[test]
    fn where_memory_cannot_be_looked_at_a_limit_is_refused() {
        let this = std::process::id().cast_signed();
        assert!(Memory::new(this, 1 << 20, false).is_ok());
        // The system has no process 0 to show.
        let error = Memory::new(0, 1 << 20, false).unwrap_err().to_string();
        assert!(error.contains("set no such limit"), "{error}");
    }

    #[test]
    fn each_launch_has_its_time_anew() {
        let mut clock = clock(100, 3);
        assert_eq!(clock.left(0, 1000), 100);
        assert_eq!(clock.left(1010, 1030), 80);
        assert_eq!(clock.left(1010, 1090), 20);
        assert_eq!(clock.left(1095, 1100), 95);
        assert_eq!(clock.left(1095, 1195), 0);
        assert_eq!(clock.left(1095, 9000), 0);
    }

    #[test]
    fn a_child_that_says_anything_of_its_beginning_has_an_end() {
        for said in [u64::MAX, 1 << 63, 0] {
            let mut clock = clock(100, 1);
            assert_eq!(clock.left(said, 1050), 50);
            assert_eq!(clock.left(said, 1100), 0);
        }
        // One that begins twice.
        let mut once = clock(100, 1);
        assert_eq!(once.left(1040, 1050), 90);
        assert_eq!(once.left(1130, 1130), 10);
        assert_eq!(once.left(1140, 1140), 0);
        // One that always has just begun.
        let mut clock = clock(100, 2);
        assert_eq!(clock.left(1290, 1290), 10);
        assert_eq!(clock.left(1300, 1300), 0);
    }

    #[test]
    fn a_limit_may_be_as_long_as_it_likes() {
        for wall in [Duration::MAX, Duration::from_nanos(u64::MAX)] {
            let mut clock = Clock::new(wall, usize::MAX, u64::MAX - 5);
            assert_eq!(clock.left(u64::MAX - 3, u64::MAX - 1), 1);
        }
    }
}
