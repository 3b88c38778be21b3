//! One launch again and again, over arguments of its own each time.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::filling::Fill;
use crate::Error;
use crate::launch::Arg;
use crate::memory::{Buffer, Guard};
use crate::sandbox::{CrashIsolation, Launch, Outcome, Untrusted};
use crate::signature::{BufferParam, Scalar};

/// A launch that is tried.
pub(super) struct Subject<'m> {
    pub(super) kernel: &'m Untrusted,
    pub(super) scalars: Vec<Scalar>,
    pub(super) grid: u64,
    pub(super) arguments: Vec<Argument<'m>>,
    pub(super) sandbox: &'m CrashIsolation,
    /// How many launches there were, and how many calls of the grid in these.
    pub(super) launches: usize,
    pub(super) calls: u64,
    /// What arguments hold at first, by argument and filling.
    initial: HashMap<(usize, Fill), Rc<Vec<u8>>>,
    /// Arguments that are only read, where they lie for all launches.
    read: HashMap<(usize, Placement, Fill), Buffer>,
}

/// An argument: what the launch may touch of its range, and no more.
pub(super) struct Argument<'m> {
    pub(super) param: &'m BufferParam,
    pub(super) bytes: &'m [u8],
    /// For each byte, whether no op has written it; none where all are written.
    pub(super) unwritten: Option<&'m [bool]>,
}

impl Argument<'_> {
    /// Whether what an element holds is nothing that the kernel may read.
    pub(super) fn is_unknown(&self, element: usize) -> bool {
        let size = self.param.dtype.size();
        let unwritten = |all: &[bool]| all[element * size..(element + 1) * size].contains(&true);
        !self.param.access.reads() || self.unwritten.is_some_and(unwritten)
    }

    pub(super) fn has_unknown(&self) -> bool {
        !self.param.access.reads() || self.unwritten.is_some()
    }

    /// The bytes of the last element's end that alignment leaves to the guard.
    fn has_slack(&self) -> bool {
        !self.param.bytes().is_multiple_of(self.param.align)
    }
}

/// Where arguments lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Placement {
    /// They end before a page that nothing may touch.
    End,
    /// They begin behind one.
    Start,
    /// They are as aligned as their signature says, and no more.
    Barely,
}

/// What the kernel may not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    /// The elements of this argument that it may not read.
    Elements(usize),
    /// What lies beside this argument.
    Slack(usize),
}

/// What such things are filled with: all the same, but for one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Filled {
    pub(super) all: Fill,
    /// Of elements, those in this range.
    pub(super) but: Option<(Secret, Range<usize>, Fill)>,
}

impl From<Fill> for Filled {
    fn from(all: Fill) -> Filled {
        Filled { all, but: None }
    }
}

/// Which calls of the grid are made.
#[derive(Clone, Debug)]
pub(super) enum Calls {
    All,
    Reversed,
    These(Vec<u64>),
}

/// A way to make the launch.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) placement: Placement,
    pub(super) filled: Filled,
    pub(super) calls: Calls,
}

impl Variant {
    pub(super) fn new(placement: Placement, filled: impl Into<Filled>) -> Variant {
        Variant {
            placement,
            filled: filled.into(),
            calls: Calls::All,
        }
    }

    pub(super) fn calls(mut self, calls: Calls) -> Variant {
        self.calls = calls;
        self
    }
}

/// What an argument held before, and where it is.
type Held = (Rc<Vec<u8>>, Buffer);

/// What came of it.
pub(super) struct Trial {
    pub(super) outcome: Outcome,
    /// What each argument that may be written held before, and holds now.
    written: Vec<Option<Held>>,
}

impl Trial {
    /// Whether it came to its end, so that what it has written counts.
    pub(super) const fn has_ended(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Completed { .. } | Outcome::Failed(Error::Overrun { .. })
        )
    }

    pub(super) fn before(&self, argument: usize) -> &[u8] {
        self.written[argument]
            .as_ref()
            .map_or(&[], |(before, _)| before)
    }

    pub(super) fn after(&self, argument: usize) -> &[u8] {
        let written = self.written[argument].as_ref();
        written.map_or(&[], |(_, after)| after.as_view().as_bytes())
    }

    /// Whether these elements hold what they held before.
    pub(super) fn kept(&self, argument: usize, elements: Range<usize>) -> bool {
        let Some((before, after)) = &self.written[argument] else {
            return true;
        };
        let size = after.dtype().size();
        let part = elements.start * size..elements.end * size;
        before[part.clone()] == after.as_view().as_bytes()[part]
    }

    /// Whether an element is the same in both.
    pub(super) fn same(&self, other: &Trial, argument: usize, element: usize) -> bool {
        let (Some((_, a)), Some((_, b))) = (&self.written[argument], &other.written[argument])
        else {
            return true;
        };
        let size = a.dtype().size();
        let part = element * size..(element + 1) * size;
        a.as_view().as_bytes()[part.clone()] == b.as_view().as_bytes()[part]
    }

    /// The arguments that it may have written.
    pub(super) fn arguments(&self) -> impl Iterator<Item = usize> + '_ {
        let all = self.written.iter().enumerate();
        all.filter(|(_, written)| written.is_some()).map(|(i, _)| i)
    }
}

impl<'m> Subject<'m> {
    pub(super) fn new(
        kernel: &'m Untrusted,
        arguments: Vec<Argument<'m>>,
        scalars: Vec<Scalar>,
        grid: u64,
        sandbox: &'m CrashIsolation,
    ) -> Subject<'m> {
        Subject {
            kernel,
            scalars,
            grid,
            arguments,
            sandbox,
            launches: 0,
            calls: 0,
            initial: HashMap::new(),
            read: HashMap::new(),
        }
    }

    /// The bytes of all arguments that a launch may write.
    pub(super) fn written_bytes(&self) -> usize {
        let written = self.arguments.iter().filter(|a| a.param.access.writes());
        written.map(|a| a.param.bytes()).sum()
    }

    /// Whether it may read what no op has written.
    pub(super) fn may_read_unwritten(&self) -> bool {
        let mut all = self.arguments.iter();
        all.any(|a| a.param.access.reads() && a.unwritten.is_some())
    }

    /// Everything that the kernel may not know, of arguments that lie so.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let all = self.arguments.iter().enumerate();
        let elements = all.clone().filter(|(_, a)| a.has_unknown());
        let slack = all.filter(|(_, a)| a.param.len > 0 && a.has_slack());
        let elements = elements.map(|(i, _)| Secret::Elements(i));
        elements
            .chain(slack.map(|(i, _)| Secret::Slack(i)))
            .collect()
    }

    /// Makes launches, one after another in one process.
    pub(super) fn run(&mut self, variants: &[Variant]) -> Result<Vec<Trial>, Error> {
        let mut buffers = Vec::new();
        for variant in variants {
            buffers.push(self.stage(variant)?);
        }
        let mut launches = Vec::new();
        let mut made = 0;
        for (variant, staged) in variants.iter().zip(&mut buffers) {
            let args = staged.iter_mut().enumerate().map(|(i, staged)| {
                if let Some((_, buffer)) = staged {
                    return Ok(Arg::from(buffer));
                }
                let key = self.key(i, variant);
                let read = self.read.get(&key);
                let read = read.ok_or_else(|| Error::run("an argument was not staged"))?;
                Ok(Arg::from(read))
            });
            let args = args.collect::<Result<Vec<_>, Error>>()?;
            let launch = Launch::new(self.kernel, args, &self.scalars, self.grid);
            let (launch, calls) = match &variant.calls {
                Calls::All => (launch, self.grid),
                Calls::Reversed => (launch.reversed(), self.grid),
                Calls::These(order) => (launch.order(order.clone()), order.len() as u64),
            };
            launches.push(launch);
            made += calls;
        }
        let outcomes = self.sandbox.run_all(&mut launches)?;
        drop(launches);
        self.launches += variants.len();
        self.calls += made;
        let trials = outcomes.into_iter().zip(buffers);
        let trials = trials.map(|(outcome, staged)| {
            let params = self.arguments.iter().map(|a| a.param.access.writes());
            let written = staged.into_iter().zip(params);
            let written = written.map(|(staged, writes)| staged.filter(|_| writes));
            Trial {
                outcome,
                written: written.collect(),
            }
        });
        Ok(trials.collect())
    }

    fn key(&self, argument: usize, variant: &Variant) -> (usize, Placement, Fill) {
        let of = &self.arguments[argument];
        let fill = match of.has_unknown() || of.has_slack() {
            true => variant.filled.all,
            false => Fill::Ones,
        };
        (argument, variant.placement, fill)
    }

    /// The memory of each argument that this launch has alone. The others are made ready.
    fn stage(&mut self, variant: &Variant) -> Result<Vec<Option<Held>>, Error> {
        let mut staged = Vec::new();
        for i in 0..self.arguments.len() {
            let but = variant.filled.but.as_ref();
            let special = but.is_some_and(
                |(secret, ..)| matches!(secret, Secret::Elements(a) | Secret::Slack(a) if *a == i),
            );
            if special || self.arguments[i].param.access.writes() {
                let before = self.initial(i, &variant.filled);
                let buffer = self.place(i, variant, &before)?;
                staged.push(Some((before, buffer)));
                continue;
            }
            let key = self.key(i, variant);
            if !self.read.contains_key(&key) {
                let before = self.initial(i, &variant.filled);
                let buffer = self.place(i, variant, &before)?;
                self.read.insert(key, buffer);
            }
            staged.push(None);
        }
        Ok(staged)
    }

    fn place(&self, i: usize, variant: &Variant, bytes: &[u8]) -> Result<Buffer, Error> {
        let BufferParam {
            dtype, len, align, ..
        } = *self.arguments[i].param;
        let mut buffer = match variant.placement {
            Placement::End => Buffer::shared(dtype, len, align, Guard::End),
            Placement::Start => Buffer::shared(dtype, len, align, Guard::Start),
            Placement::Barely => Buffer::barely_aligned(dtype, len, align),
        }?;
        buffer.overwrite(bytes);
        let slack = match &variant.filled.but {
            Some((Secret::Slack(argument), _, fill)) if *argument == i => *fill,
            _ => variant.filled.all,
        };
        buffer.fill_slack(slack.slack())?;
        Ok(buffer)
    }

    /// What an argument holds at first.
    fn initial(&mut self, i: usize, filled: &Filled) -> Rc<Vec<u8>> {
        let argument = &self.arguments[i];
        let base = self.initial.entry((i, filled.all)).or_insert_with(|| {
            let mut bytes = argument.bytes.to_vec();
            hide(argument, i, filled.all, 0..argument.param.len, &mut bytes);
            Rc::new(bytes)
        });
        match &filled.but {
            Some((Secret::Elements(of), range, fill)) if *of == i => {
                let mut bytes = base.to_vec();
                hide(argument, i, *fill, range.clone(), &mut bytes);
                Rc::new(bytes)
            }
            _ => base.clone(),
        }
    }
}

/// Fills those elements of a range that the kernel may not read.
fn hide(argument: &Argument<'_>, salt: usize, fill: Fill, range: Range<usize>, bytes: &mut [u8]) {
    if !argument.has_unknown() {
        return;
    }
    let size = argument.param.dtype.size();
    let mut filling = vec![0; bytes.len()];
    fill.fill(argument.param.dtype, salt, &mut filling);
    for element in range {
        if argument.is_unknown(element) {
            let part = element * size..(element + 1) * size;
            bytes[part.clone()].copy_from_slice(&filling[part]);
        }
    }
}
