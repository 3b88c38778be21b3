//! The host's side of one helper: started, asked, and waited for.

use std::io::{self, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ChildStderr, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::thread::futex;

use super::super::Limits;
use super::super::child::{Child, Clock, Ended, MEMORY_LOOK, Memory};
use super::super::control::{Region, SharedFile};
use super::super::explain::{Seen, call_name};
use super::super::fault::now;
use super::super::outcome::signal_name;
use super::serve;
use super::wire::{MOST, SceneText, Span, Task};
use crate::Error;
use crate::confine::Helper;
use crate::pool::SPIN_BETWEEN_RUNS;

/// By how much later than its own timer a helper that has had all of the processors' time that it
/// may is stopped, in nanoseconds.
const CPU_LATE: u64 = 20_000_000;

/// How much of what a helper says of an error is read, in bytes.
const MOST_SAID: usize = 16 << 10;

/// How long a helper may take for what is no kernel's: to start, to open a bundle, to link.
pub(super) const OWN_TIME: Duration = Duration::from_secs(60);

/// A helper, and what is shared with it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    memory: Option<Memory>,
    limits: Limits,
    file: OwnedFd,
    map: SharedFile,
    region: Region,
    /// Up to where the file is used.
    used: u64,
    asked: u32,
    /// Where the helper writes what is mapped where.
    scene: Span,
    /// Bytes that it has by what it was given, beyond the file.
    given: usize,
    /// The helper ends when this does.
    _alive: PipeWriter,
    said: ChildStderr,
    /// It is reaped by its descriptor.
    _process: std::process::Child,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Reply {
    Done,
    /// It could not be done, for this reason; no code is to blame.
    Failed(String),
    /// The helper has ended.
    Ended(Ended),
}

impl Server {
    pub(super) fn start(helper: &Helper, limits: &Limits, less: bool) -> Result<Server, Error> {
        let system = |doing: &'static str| move |e: io::Error| Error::system(doing, e);
        let shares = system("make what a sandbox shares");
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("svod-sandbox", flags).map_err(|e| shares(e.into()))?;
        let head = Region::in_file(MOST);
        ftruncate(&file, head as u64).map_err(|e| shares(e.into()))?;
        // What is mapped stays there.
        fcntl_add_seals(&file, SealFlags::SHRINK).map_err(|e| shares(e.into()))?;
        let (reads, writes) = io::pipe().map_err(shares)?;
        let mut process = helper
            .command(serve::MODE.0)
            .args(serve::arguments(limits, less))
            .stdin(file.try_clone().map_err(shares)?)
            .stdout(reads)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::system(format!("start {}", helper.path().display()), e))?;
        let child = match Child::of(&process) {
            Ok(child) => child,
            Err(error) => {
                // It may have ended by itself.
                let _ = process.kill();
                let _ = process.wait();
                return Err(error);
            }
        };
        let said = process.stderr.take();
        let said = said.ok_or_else(|| Error::confinement("kernels", "its helper has no output"))?;
        // Who has it still open, once the helper is gone, is not waited for.
        rustix::io::ioctl_fionbio(&said, true).map_err(|e| shares(e.into()))?;
        Ok(Server {
            memory: match child.memory(limits, true) {
                Err(_) if less => None,
                memory => memory?,
            },
            limits: *limits,
            child,
            // SAFETY: it is as long, and cannot shrink.
            map: unsafe { SharedFile::map(file.as_fd(), head as u64) }?,
            // SAFETY: it is as long, and cannot shrink.
            region: unsafe { Region::over(file.as_fd(), MOST, limits) }?,
            file,
            used: head as u64,
            asked: 0,
            scene: Span::default(),
            given: 0,
            _alive: writes,
            said,
            _process: process,
        })
    }

    pub(super) const fn region(&self) -> &Region {
        &self.region
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Forgets what was placed from there on, and has the file forget it.
    pub(super) fn free_from(&mut self, used: u64) -> Result<(), Error> {
        self.map.clear(used, self.used)?;
        self.used = used;
        Ok(())
    }

    /// Has it have so many bytes beside the file, such as a bundle's weights.
    pub(super) const fn allow(&mut self, bytes: usize) {
        self.given = bytes;
    }

    /// Whether it has one thread, so that nobody is at work in it who was not asked.
    pub(super) fn is_quiet(&self) -> bool {
        self.child.threads() == Some(1)
    }

    /// Up to where the file is used.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// Room for so many bytes, on pages of their own.
    pub(super) fn place(&mut self, bytes: usize) -> Result<Span, Error> {
        let page = rustix::param::page_size() as u64;
        let nothing = || Error::OutOfMemory {
            what: "what a sandbox shares".into(),
            bytes,
        };
        let at = self.used;
        let end = at.checked_add((bytes as u64).max(1));
        let end = end.and_then(|end| end.checked_next_multiple_of(page));
        let end = end.ok_or_else(nothing)?;
        if end > self.map.len() as u64 {
            // Twice as long, so that this is seldom.
            let long = end.max(2 * self.map.len() as u64).next_multiple_of(page);
            ftruncate(&self.file, long).map_err(|_| nothing())?;
            // SAFETY: it is as long, and cannot shrink.
            self.map = unsafe { SharedFile::map(self.file.as_fd(), long) }?;
        }
        self.used = end;
        Ok(Span {
            at,
            bytes: bytes as u64,
        })
    }

    /// Room with these bytes in it.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<Span, Error> {
        let span = self.place(bytes.len())?;
        self.write(span.at, bytes)?;
        Ok(span)
    }

    /// Copies bytes into the file, which is as long.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.map.write(at, bytes)
    }

    /// Copies bytes from the file.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.map.read(at, bytes)
    }

    /// Asks for what a text says, with so much room for what is mapped where.
    pub(super) fn ask_text(&mut self, task: &Task, room: usize) -> Result<Reply, Error> {
        let text = serde_json::to_vec(task).map_err(|e| Error::run(format!("a request: {e}")))?;
        let text = self.put(&text)?;
        let scene = self.place(room)?;
        self.scene = scene;
        let control = self.region.control();
        control.text.store(text.at, Ordering::Relaxed);
        control.text_bytes.store(text.bytes, Ordering::Relaxed);
        control.scene.store(scene.at, Ordering::Relaxed);
        control.scene_room.store(scene.bytes, Ordering::Relaxed);
        control.scene_bytes.store(0, Ordering::Relaxed);
        let most = match task {
            Task::Launches(launches) => launches.launches.len(),
            Task::Plan(_) => 1,
        };
        self.ask_most(super::wire::TEXT, most)
    }

    /// Asks for something, and waits for the answer.
    pub(super) fn ask(&mut self, task: u32) -> Result<Reply, Error> {
        self.ask_most(task, 1)
    }

    /// The same, of so many launches, each of which has the limits anew.
    fn ask_most(&mut self, task: u32, most: usize) -> Result<Reply, Error> {
        self.region.clear();
        let control = self.region.control();
        control.failed.store(0, Ordering::Relaxed);
        control.task.store(task, Ordering::Relaxed);
        let long = self.map.len() as u64;
        control.file_bytes.store(long, Ordering::Relaxed);
        self.asked = self.asked.wrapping_add(1);
        control.requests.store(self.asked, Ordering::Release);
        // Nobody may be waiting yet.
        let _ = futex::wake(&control.requests, futex::Flags::empty(), 1);
        let ended = self.wait(most)?;
        let control = self.region.control();
        if let Some(ended) = ended {
            return Ok(Reply::Ended(ended));
        }
        if control.failed.load(Ordering::Relaxed) == 0 {
            return Ok(Reply::Done);
        }
        let mut text = self.written()?;
        text.truncate(MOST_SAID);
        let text = String::from_utf8_lossy(&text).into_owned();
        match self.region.control().began.load(Ordering::Relaxed) {
            0 => Ok(Reply::Failed(text)),
            // Code was running, and may have said anything.
            _ => {
                let ended = self.child.stop(Ended::Unknown)?;
                Ok(Reply::Ended(ended))
            }
        }
    }

    /// Waits for the answer; how the helper ended, if it has.
    fn wait(&mut self, most: usize) -> Result<Option<Ended>, Error> {
        let limits = self.limits;
        let made = now();
        let mut clock = Clock::new(limits.wall, most, made);
        // What is no kernel's: to start, to read, to link.
        let own_time = limits.wall.max(OWN_TIME);
        let mut own_clock = Clock::new(own_time, 1, made);
        let mut cpu = (0, self.child.cpu_time());
        let answers = &self.region.control().answers;
        let is_there = |answers: &AtomicU32| answers.load(Ordering::Acquire) == self.asked;
        let start = Instant::now();
        while start.elapsed() < SPIN_BETWEEN_RUNS {
            if is_there(answers) {
                return Ok(None);
            }
            std::hint::spin_loop();
        }
        loop {
            let answers = &self.region.control().answers;
            let had = answers.load(Ordering::Acquire);
            if had == self.asked {
                return Ok(None);
            }
            let began = self.region.control().began.load(Ordering::Relaxed);
            let at = self.region.control().at.load(Ordering::Relaxed);
            // No code runs yet, where it says so.
            let left = match began {
                0 => own_clock.left(0, now()),
                began => clock.left(began, now()),
            };
            if left == 0 {
                return self.child.stop_where_it_is(Ended::OverTime).map(Some);
            }
            // Twice the file: it has all of it mapped, and what is worked on again.
            let given = self.given.saturating_add(self.map.len().saturating_mul(2));
            if self
                .memory
                .as_ref()
                .is_some_and(|memory| memory.is_over(given))
            {
                return self.child.stop_where_it_is(Ended::OverMemory).map(Some);
            }
            // The timer that a helper sets is a kernel's to cancel.
            if let Some(most) = limits.cpu.filter(|_| began > 0) {
                let now = self.child.cpu_time();
                if cpu.0 != at {
                    cpu = (at, now);
                }
                let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
                let had = now.zip(cpu.1).map(|(now, then)| now.saturating_sub(then));
                if had.is_some_and(|had| had > most.saturating_add(CPU_LATE)) {
                    return self.child.stop_where_it_is(Ended::OverCpu).map(Some);
                }
            }
            let slice = Duration::from_nanos(left).min(MEMORY_LOOK);
            let timeout = futex::Timespec {
                tv_sec: 0,
                tv_nsec: slice.subsec_nanos().into(),
            };
            // Woken, late or interrupted: what counts is what is there then.
            let _ = futex::wait(answers, futex::Flags::empty(), had, Some(&timeout));
            if !is_there(&self.region.control().answers) && self.child.has_ended(Duration::ZERO)? {
                return self.child.ask().map(Some);
            }
        }
    }

    /// What the helper has written of itself: what is mapped where, or why it has failed.
    fn written(&self) -> Result<Vec<u8>, Error> {
        let bytes = self.region.control().scene_bytes.load(Ordering::Relaxed);
        let bytes = bytes.min(self.scene.bytes);
        let mut text = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.read(self.scene.at, &mut text)?;
        Ok(text)
    }

    /// What is mapped where; nothing, where it says nothing that can be understood.
    pub(super) fn scene(&self) -> SceneText {
        let text = self.written().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Why a helper has ended before any code ran in it.
    pub(super) fn complaint(mut self, ended: Ended) -> Error {
        let seen = Seen::read(&self.region.control().fault);
        drop(self.child);
        let mut said = Vec::new();
        // It has ended, and all is there that it has said.
        let _ = (&mut self.said).take(1 << 16).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let reason = match (said.as_str(), seen) {
            ("", _) if ended == Ended::OverMemory => {
                "its helper took more memory than it may before any code ran".to_owned()
            }
            ("", _) if ended == Ended::OverTime => {
                "its helper took too long before any code ran".to_owned()
            }
            ("", Some(seen)) if seen.signal == libc::SIGSYS => format!(
                "its helper asked the system for {}, to which it has no right",
                call_name(seen.system_call)
            ),
            ("", Some(seen)) => format!("its helper ended with {}", signal_name(seen.signal)),
            ("", None) => "its helper ended at once, and said nothing".to_owned(),
            (said, _) => said.to_owned(),
        };
        Error::confinement("kernels", reason)
    }
}
