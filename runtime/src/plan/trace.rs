//! When each op of a run ran, and on which thread.
//!
//! A script has as many places for times as there are steps and parts of steps that a thread
//! takes, and each is written by the one thread that runs it: to trace a run is two looks at the
//! clock and three stores a step, with no lock, no list and nothing allocated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Schedule;
use super::replay::Script;

/// When each op of a run ran, and on which thread: given to a [`Run`](super::Run), which
/// overwrites it.
///
/// Two looks at the clock for each op take some 70 ns, about half of which is in the op's own
/// time. A run that follows another schedule than the one before allocates anew, before its first
/// op; others allocate nothing.
#[derive(Debug)]
pub struct Trace {
    followed: Option<Followed>,
    places: Vec<Place>,
    spans: Vec<Times>,
    /// The threads that were seen, as they are told apart here.
    threads: Vec<usize>,
    start: Instant,
    took: Duration,
    is_trial: bool,
}

/// What a run has followed.
#[derive(Debug)]
struct Followed {
    script: Arc<Script>,
    with_team: bool,
}

/// One op, or one part of one, on one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The number of the op.
    pub op: usize,
    /// Which part of its grid, from 0.
    pub part: u32,
    /// Of how many parts.
    pub parts: u32,
    /// In which phase of the run's [schedule](Trace::schedule), from 0; 0 in a run without a team,
    /// which has no phases.
    pub phase: u32,
    /// The thread, by a number of this trace's own. The thread that called the first run is 0.
    pub thread: usize,
    /// When it began, from the start of the run.
    pub start: Duration,
    /// When it ended, from the start of the run.
    pub end: Duration,
}

impl Span {
    /// How long it took.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// What is known of a span before the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) op: u32,
    pub(super) part: u32,
    pub(super) parts: u32,
    pub(super) phase: u32,
}

/// What a run writes of a span: nanoseconds from its start.
#[derive(Debug, Default)]
struct Times {
    start: AtomicU64,
    /// 0 if it has not run.
    end: AtomicU64,
    thread: AtomicUsize,
}

/// Where the threads of a run write.
#[derive(Clone, Copy)]
pub(super) struct Spans<'a> {
    start: Instant,
    times: &'a [Times],
}

impl Spans<'_> {
    #[inline]
    pub(super) fn put(&self, span: usize, start: Instant, end: Instant) {
        let nanos = |at: Instant| at.duration_since(self.start).as_nanos() as u64;
        let times = &self.times[span];
        // Whoever reads them has waited for this thread.
        times.start.store(nanos(start), Ordering::Relaxed);
        times.end.store(nanos(end).max(1), Ordering::Relaxed);
        times.thread.store(this_thread(), Ordering::Relaxed);
    }
}

/// What tells this thread from the others that live: an address of its own.
fn this_thread() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}

impl Trace {
    /// Of no run yet.
    #[must_use]
    pub fn new() -> Trace {
        Trace {
            followed: None,
            places: Vec::new(),
            spans: Vec::new(),
            threads: Vec::new(),
            start: Instant::now(),
            took: Duration::ZERO,
            is_trial: false,
        }
    }

    /// What ran, in no particular order, but parts of an op and ops of a phase stand together.
    /// What a run that failed did not come to is missing.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        let both = self.places.iter().zip(&self.spans);
        both.filter_map(|(place, times)| {
            let end = times.end.load(Ordering::Relaxed);
            let here = times.thread.load(Ordering::Relaxed);
            let thread = self.threads.iter().position(|&thread| thread == here)?;
            (end > 0).then(|| Span {
                op: place.op as usize,
                part: place.part,
                parts: place.parts,
                phase: place.phase,
                thread,
                start: Duration::from_nanos(times.start.load(Ordering::Relaxed)),
                end: Duration::from_nanos(end),
            })
        })
    }

    /// The time of the whole run, from right before its first op, with what it took to have
    /// other threads join in.
    #[must_use]
    pub const fn took(&self) -> Duration {
        self.took
    }

    /// How many threads were seen, in this run and those before.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Whether the run tried a schedule, so as to [learn](super::Scheduling).
    #[must_use]
    pub const fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// The schedule that the run followed; none before the first.
    #[must_use]
    pub fn schedule(&self) -> Option<&Schedule> {
        self.followed.as_ref().map(|f| f.script.schedule())
    }

    /// Forgets what ran: a run that is refused leaves nothing.
    pub(super) fn clear(&mut self) {
        self.took = Duration::ZERO;
        for times in &mut self.spans {
            *times.end.get_mut() = 0;
        }
    }

    /// Gets ready for a run, of which nothing is known yet.
    pub(super) fn begin(&mut self, script: &Arc<Script>, with_team: bool, is_trial: bool) {
        let is_same = |f: &Followed| f.with_team == with_team && Arc::ptr_eq(&f.script, script);
        if !self.followed.as_ref().is_some_and(is_same) {
            self.places.clear();
            script.places(with_team, &mut self.places);
            self.spans.resize_with(self.places.len(), Times::default);
            let script = script.clone();
            self.followed = Some(Followed { script, with_team });
            self.clear();
        }
        self.is_trial = is_trial;
        self.start = Instant::now();
    }

    /// Where its threads write.
    pub(super) fn open(&self) -> Spans<'_> {
        Spans {
            start: self.start,
            times: &self.spans,
        }
    }

    /// Takes down what the run has come to.
    pub(super) fn end(&mut self) {
        self.took = self.start.elapsed();
        let mut last = this_thread();
        self.see(last);
        for span in 0..self.spans.len() {
            let times = &mut self.spans[span];
            let thread = *times.thread.get_mut();
            if *times.end.get_mut() > 0 && thread != last {
                last = thread;
                self.see(thread);
            }
        }
    }

    fn see(&mut self, thread: usize) {
        if !self.threads.contains(&thread) {
            self.threads.push(thread);
        }
    }
}
