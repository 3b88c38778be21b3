//! What the trials of a launch say.

use super::filling::Fill;
use super::report::Kind;
use super::trial::{Calls, Filled, Placement, Secret, Subject, Trial, Variant};
use crate::Error;
use crate::sandbox::{CodePlace, Fault, Outcome};
use crate::signature::{BufferParam, DType};

/// A finding that knows of no plan.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) argument: Option<usize>,
    pub(super) element: Option<i64>,
    pub(super) calls: Vec<u64>,
    pub(super) code: Option<CodePlace>,
    pub(super) text: String,
}

impl Found {
    pub(super) fn new(kind: Kind, argument: usize, element: i64, text: String) -> Found {
        Found {
            kind,
            argument: Some(argument),
            element: Some(element),
            calls: Vec::new(),
            code: None,
            text,
        }
    }

    pub(super) fn calls(mut self, calls: Vec<u64>) -> Found {
        self.calls = calls;
        self
    }
}

/// What was found, each kind once for each argument.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Found>);

impl Findings {
    pub(super) fn add(&mut self, found: Found) {
        if !self.has(found.kind, found.argument) {
            self.0.push(found);
        }
    }

    /// Leaves out that a call depends on others where another writes the same element.
    pub(super) fn settle(&mut self) {
        let overlaps = self.0.iter().filter(|f| f.kind == Kind::Overlap);
        let overlaps: Vec<_> = overlaps.map(|f| (f.argument, f.element)).collect();
        self.0
            .retain(|f| f.kind != Kind::Dependent || !overlaps.contains(&(f.argument, f.element)));
    }

    pub(super) fn has(&self, kind: Kind, argument: Option<usize>) -> bool {
        let mut all = self.0.iter();
        all.any(|f| (f.kind, f.argument) == (kind, argument))
    }
}

/// What the launch does, as far as it can be told: what goes on into the plan.
pub(super) struct Written {
    pub(super) argument: usize,
    pub(super) bytes: Vec<u8>,
    /// For each element, whether it was written.
    pub(super) elements: Vec<bool>,
}

/// A launch that ended, and one of which what the kernel may not know was another.
pub(super) struct Reference {
    pub(super) fill: Fill,
    pub(super) trial: Trial,
    pub(super) other: Option<(Fill, Trial)>,
    /// What the order of calls makes a difference for.
    pub(super) order: Vec<Found>,
}

/// Tries a launch in all ways but by parts of its grid. Without a reference, it ended in none.
pub(super) fn judge(
    subject: &mut Subject<'_>,
    findings: &mut Findings,
) -> Result<Option<Reference>, Error> {
    let fills: &[Fill] = if subject.secrets().is_empty() {
        &[Fill::Ones]
    } else {
        &Fill::ALL
    };
    let filled = fills.iter().map(|f| Variant::new(Placement::End, *f));
    let mut filled = subject.run(&filled.collect::<Vec<_>>())?;
    let ended = filled.iter().position(Trial::has_ended);
    let fill = fills[ended.unwrap_or(0)];
    let order = |calls| Variant::new(Placement::End, fill).calls(calls);
    let mut variants = vec![
        Variant::new(Placement::End, fill),
        Variant::new(Placement::Start, fill),
        Variant::new(Placement::Barely, fill),
    ];
    if subject.grid > 1 {
        variants.push(order(Calls::Reversed));
    }
    if subject.grid > 2 {
        variants.push(order(Calls::These(shuffled(subject.grid))));
    }
    let others = subject.run(&variants)?;
    // Of several fillings, one may have led it astray.
    let sure = filled.iter().filter(|t| ended.is_none() || t.has_ended());
    for trial in sure.chain(&others) {
        if let Some(found) = ending(&trial.outcome, subject) {
            findings.add(found);
        }
    }
    let Some(ended) = ended else {
        let start = others.into_iter().nth(1).filter(Trial::has_ended);
        let Some(trial) = start else {
            return Ok(None);
        };
        // It ends where the guard is elsewhere: what it writes there will do.
        let other = match fills {
            [_, other, ..] => {
                let again = subject.run(&[Variant::new(Placement::Start, *other)])?;
                let mut again = again.into_iter().filter(Trial::has_ended);
                again.next().map(|trial| (*other, trial))
            }
            _ => None,
        };
        return Ok(Some(Reference {
            fill,
            trial,
            other,
            order: Vec::new(),
        }));
    };
    let trial = filled.remove(ended);
    let fills: Vec<_> = fills.iter().copied().filter(|f| *f != fill).collect();
    let mut depends = filled
        .iter()
        .any(|other| differs(subject, &trial, other) != Differs::No);
    if depends {
        depends = blame(subject, fill, &fills, &trial, findings)?;
    }
    if !depends {
        // No filling led it astray: what it did, it did by itself.
        for other in &filled {
            if let Some(found) = ending(&other.outcome, subject) {
                findings.add(found);
            }
        }
    }
    steadiness(subject, &trial, &others, findings, depends);
    let order = orders(subject, &trial, &others);
    not_bools(subject, &trial, findings);
    let other = fills.into_iter().zip(filled).find(|(_, t)| t.has_ended());
    Ok(Some(Reference {
        fill,
        trial,
        other,
        order,
    }))
}

/// Makes a launch once, so that the plan goes on.
pub(super) fn run_once(
    subject: &mut Subject<'_>,
    findings: &mut Findings,
) -> Result<Vec<Written>, Error> {
    let fills = [Fill::Ones, Fill::High];
    let few = if subject.secrets().is_empty() { 1 } else { 2 };
    let variants = fills[..few]
        .iter()
        .map(|f| Variant::new(Placement::End, *f));
    let tried = subject.run(&variants.collect::<Vec<_>>())?;
    for trial in &tried {
        if let Some(found) = ending(&trial.outcome, subject) {
            findings.add(found);
        }
    }
    let mut ended = fills.into_iter().zip(tried).filter(|(_, t)| t.has_ended());
    let Some((fill, trial)) = ended.next() else {
        return Ok(anything(subject, findings));
    };
    let other = ended.next();
    let reference = Reference {
        fill,
        trial,
        other,
        order: Vec::new(),
    };
    Ok(written(subject, &reference, findings))
}

/// What a launch that never ends well is taken to write, so that ops after it do not seem to be
/// wrong as well: what was there, of all that it may write, and of what it was seen to write.
pub(super) fn anything(subject: &Subject<'_>, findings: &Findings) -> Vec<Written> {
    let all = subject.arguments.iter().enumerate();
    let written = all
        .filter(|(i, a)| a.param.access.writes() || findings.has(Kind::WritesReadOnly, Some(*i)));
    written
        .map(|(argument, a)| Written {
            argument,
            bytes: a.bytes.to_vec(),
            elements: vec![true; a.param.len],
        })
        .collect()
}

/// Compares the same launch with itself: again, and elsewhere.
fn steadiness(
    subject: &Subject<'_>,
    trial: &Trial,
    others: &[Trial],
    findings: &mut Findings,
    depends: bool,
) {
    let mut compare = |other: Option<&Trial>, kind, text: String| {
        let other = other.filter(|other| other.has_ended());
        let differs = other.map(|other| differs(subject, trial, other));
        let Some(Differs::At(argument, element)) = differs else {
            return false;
        };
        let element = i64::try_from(element).unwrap_or(i64::MAX);
        findings.add(Found::new(kind, argument, element, text));
        true
    };
    let again = "the same launch wrote other bits the second time".to_owned();
    if compare(others.first(), Kind::Unsteady, again) {
        return;
    }
    let outside = others
        .iter()
        .any(|t| !matches!(t.outcome, Outcome::Completed { .. }));
    if !outside && !depends {
        for other in others.iter().skip(1).take(2) {
            let text = "it wrote other bits where its arguments lay elsewhere, aligned as declared";
            compare(Some(other), Kind::Placement, text.into());
        }
    }
}

/// Compares the same launch with itself, with the calls of its grid in other orders.
fn orders(subject: &Subject<'_>, trial: &Trial, others: &[Trial]) -> Vec<Found> {
    let mut found = Vec::new();
    for (other, order) in others.iter().skip(3).zip(["reverse", "mixed"]) {
        if let Differs::At(argument, element) = differs(subject, trial, other) {
            let text = format!("it wrote other bits with the calls of its grid in {order} order");
            let element = i64::try_from(element).unwrap_or(i64::MAX);
            found.push(Found::new(Kind::Dependent, argument, element, text));
        }
    }
    found
}

/// Finds what a launch has read that it may not: whatever alone makes a difference.
fn blame(
    subject: &mut Subject<'_>,
    fill: Fill,
    others: &[Fill],
    trial: &Trial,
    findings: &mut Findings,
) -> Result<bool, Error> {
    let mut found = false;
    for secret in subject.secrets() {
        let (Secret::Elements(argument) | Secret::Slack(argument)) = secret;
        let len = subject.arguments[argument].param.len;
        for other in others {
            let mut with = |end| -> Result<Differs, Error> {
                let but = Some((secret, 0..end, *other));
                let filled = Filled { all: fill, but };
                let tried = subject.run(&[Variant::new(Placement::End, filled)])?;
                Ok(tried
                    .first()
                    .map_or(Differs::No, |t| differs(subject, trial, t)))
            };
            let mut seen = with(len)?;
            if seen == Differs::No {
                continue;
            }
            // The first elements that make a difference end with one that does.
            let (mut none, mut some) = (0, len);
            while matches!(secret, Secret::Elements(_)) && some - none > 1 {
                let middle = usize::midpoint(none, some);
                match with(middle)? {
                    Differs::No => none = middle,
                    differs => (some, seen) = (middle, differs),
                }
            }
            let effect = match seen {
                Differs::At(argument, element) => {
                    format!("element {element} of argument {argument} depends on it")
                }
                _ => "whether it comes to its end depends on it".to_owned(),
            };
            let param = subject.arguments[argument].param;
            let (kind, element, text) = match secret {
                Secret::Slack(_) => (
                    Kind::OutOfBounds,
                    len,
                    format!(
                        "it read past the end, at most {} bytes: {effect}",
                        slack(param)
                    ),
                ),
                Secret::Elements(_) if !param.access.reads() => (
                    Kind::ReadsWriteOnly,
                    some - 1,
                    format!("it read what is declared `w`: {effect}"),
                ),
                Secret::Elements(_) => (
                    Kind::ReadsUnwritten,
                    some - 1,
                    format!("it read what no op has written: {effect}"),
                ),
            };
            let element = i64::try_from(element).unwrap_or(i64::MAX);
            findings.add(Found::new(kind, argument, element, text));
            found = true;
            break;
        }
    }
    Ok(found)
}

/// The bytes that alignment leaves behind an argument.
const fn slack(param: &BufferParam) -> usize {
    param.bytes().next_multiple_of(param.align) - param.bytes()
}

/// How two trials differ in what they have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Differs {
    No,
    /// One alone came to its end.
    Ending,
    /// In this element of this argument.
    At(usize, usize),
}

/// How two trials differ: in an element that was not left alone in both.
pub(super) fn differs(subject: &Subject<'_>, a: &Trial, b: &Trial) -> Differs {
    match (a.has_ended(), b.has_ended()) {
        (true, true) => {}
        (false, false) => return Differs::No,
        _ => return Differs::Ending,
    }
    for argument in a.arguments() {
        let (after, other) = (a.after(argument), b.after(argument));
        if after == other {
            continue;
        }
        let size = subject.arguments[argument].param.dtype.size();
        let elements = after.chunks(size).zip(other.chunks(size));
        let before = a.before(argument).chunks(size);
        let before = before.zip(b.before(argument).chunks(size));
        let differing = elements
            .zip(before)
            .position(|((a, b), (was_a, was_b))| a != b && !(a == was_a && b == was_b));
        if let Some(element) = differing {
            return Differs::At(argument, element);
        }
    }
    Differs::No
}

/// Looks for bytes that are no `bool`.
fn not_bools(subject: &Subject<'_>, trial: &Trial, findings: &mut Findings) {
    for argument in trial.arguments() {
        if subject.arguments[argument].param.dtype != DType::Bool {
            continue;
        }
        let bytes = trial.after(argument);
        if let Some(element) = bytes.iter().position(|byte| *byte > 1) {
            let text = format!("it wrote {}, and a bool is 0 or 1", bytes[element]);
            let element = i64::try_from(element).unwrap_or(i64::MAX);
            findings.add(Found::new(Kind::NotBool, argument, element, text));
        }
    }
}

/// What each element of each argument is after the launch, and whether it was written.
///
/// Where it was seen to read what it may only write, that is all of the argument: what else depends
/// on it is not found again in each op behind.
pub(super) fn written(
    subject: &Subject<'_>,
    reference: &Reference,
    findings: &Findings,
) -> Vec<Written> {
    let trial = &reference.trial;
    let of = |argument: usize| {
        let mut bytes = trial.after(argument).to_vec();
        let of = &subject.arguments[argument];
        if of.param.dtype == DType::Bool {
            bytes.iter_mut().for_each(|byte| *byte &= 1);
        }
        let reads = findings.has(Kind::ReadsWriteOnly, Some(argument));
        let size = of.param.dtype.size();
        let elements = (0..of.param.len).map(|element| {
            let kept = |t: &Trial| t.kept(argument, element..element + 1);
            let other = reference.other.as_ref();
            let left_alone = kept(trial) && other.is_none_or(|(_, other)| kept(other));
            if left_alone && reads {
                let part = element * size..(element + 1) * size;
                bytes[part.clone()].copy_from_slice(&of.bytes[part]);
            }
            reads || !left_alone || !of.is_unknown(element)
        });
        let elements = elements.collect();
        Written {
            argument,
            elements,
            bytes,
        }
    };
    trial.arguments().map(of).collect()
}

/// What a launch that did not do what it should has done.
pub(super) fn ending(outcome: &Outcome, subject: &Subject<'_>) -> Option<Found> {
    let mut found = Found {
        kind: Kind::Crash,
        argument: None,
        element: None,
        calls: Vec::new(),
        code: None,
        text: outcome.to_string(),
    };
    match outcome {
        Outcome::Completed { .. } => return None,
        Outcome::Failed(Error::Overrun {
            argument, stray, ..
        }) => {
            let param = subject.arguments.get(*argument)?.param;
            let size = param.dtype.size();
            let beyond = i64::try_from((stray.nearest - 1) / size).unwrap_or(i64::MAX);
            let len = i64::try_from(param.len).unwrap_or(i64::MAX);
            found.kind = Kind::OutOfBounds;
            found.argument = Some(*argument);
            found.element = Some(if stray.past_end {
                len + beyond
            } else {
                -1 - beyond
            });
            found.text = format!("it wrote {stray}");
        }
        Outcome::Failed(Error::KernelStatus { status, index, .. }) => {
            found.kind = Kind::Status;
            found.calls = vec![*index];
            found.text = format!("it returned status {status}");
        }
        Outcome::TimedOut { .. } => found.kind = Kind::Hang,
        Outcome::Crashed(crash) => {
            found.code.clone_from(&crash.code);
            if subject.grid > 1 {
                found.calls = vec![crash.at.index];
            }
            let access = crash.access.as_ref();
            let place = access.and_then(|access| Some((access, access.argument.as_ref()?)));
            if let Some((access, place)) = place {
                let reads = |argument: usize| {
                    let argument = subject.arguments.get(argument);
                    argument.is_some_and(|a| !a.param.access.writes())
                };
                found.kind = match crash.fault {
                    Fault::Misaligned => Kind::Misaligned,
                    _ if place.outside > 0 => Kind::OutOfBounds,
                    _ if access.write != Some(false) && reads(place.argument) => {
                        Kind::WritesReadOnly
                    }
                    _ => Kind::Crash,
                };
                found.argument = Some(place.argument);
                found.element = Some(place.element);
                found.text = access.to_string();
            } else if crash.fault == Fault::Misaligned {
                found.kind = Kind::Misaligned;
            }
        }
        _ => {}
    }
    Some(found)
}

/// All calls of a grid, in an order in which none comes where it does in either direction.
fn shuffled(grid: u64) -> Vec<u64> {
    // Odd ones first, from the middle on: neighbours change places and no stride is left.
    let half = grid / 2;
    let turned = (0..grid).map(|i| (i + half) % grid);
    let (odd, even): (Vec<_>, Vec<_>) = turned.partition(|i| i % 2 == 1);
    odd.into_iter().chain(even).collect()
}
