//! Parts of a grid, each made without the others: what one call writes, and on what it depends.

use super::filling::Fill;
use super::judge::{Findings, Found, Reference, ending};
use super::report::Kind;
use super::trial::{Calls, Placement, Subject, Trial, Variant};
use crate::Error;

/// Grids of up to so many calls have each call made alone. Of larger ones any two calls are in
/// different parts once: each bit of their numbers parts the calls in two.
pub(super) const ALONE: u64 = 64;

/// How many bytes may be written by launches that are kept at the same time.
const KEPT: usize = 128 << 20;

/// How many elements are looked at together first.
const STRETCH: usize = 256;

/// Makes the parts, and compares each with the whole.
pub(super) fn take_apart(
    subject: &mut Subject<'_>,
    whole: &Reference,
    findings: &mut Findings,
) -> Result<(), Error> {
    let grid = subject.grid;
    if grid <= ALONE {
        let parts: Vec<_> = (0..grid).map(|call| vec![call]).collect();
        Family::new(subject, whole).judge(subject, &parts, findings)?;
        findings.settle();
        return Ok(());
    }
    for bit in 0..u64::BITS - (grid - 1).leading_zeros() {
        let (with, without) = (0..grid).partition(|call| call >> bit & 1 == 1);
        let parts: [Vec<u64>; 2] = [without, with];
        Family::new(subject, whole).judge(subject, &parts, findings)?;
        if findings.0.iter().any(|f| f.kind == Kind::Overlap) {
            break;
        }
    }
    findings.settle();
    Ok(())
}

/// Parts that together are the grid.
struct Family<'w> {
    whole: &'w Reference,
    /// Which part wrote each element of each argument, by one more than its number.
    owners: Vec<Vec<u32>>,
}

impl Family<'_> {
    fn new<'w>(subject: &Subject<'_>, whole: &'w Reference) -> Family<'w> {
        let arguments = subject.arguments.iter();
        let lens = arguments.map(|a| {
            if a.param.access.writes() {
                a.param.len
            } else {
                0
            }
        });
        Family {
            whole,
            owners: lens.map(|len| vec![0; len]).collect(),
        }
    }

    fn judge(
        mut self,
        subject: &mut Subject<'_>,
        parts: &[Vec<u64>],
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let fills: Vec<Fill> = self.fills().map(|(fill, _)| fill).collect();
        let each = subject.written_bytes().max(1) * fills.len();
        let at_once = (KEPT / each).clamp(1, 16);
        for (i, chunk) in parts.chunks(at_once).enumerate() {
            let variants = chunk.iter().flat_map(|calls| {
                let variant = |fill: &Fill| {
                    Variant::new(Placement::End, *fill).calls(Calls::These(calls.clone()))
                };
                fills.iter().map(variant)
            });
            let variants: Vec<_> = variants.collect();
            let trials = subject.run(&variants)?;
            for (j, trials) in trials.chunks(fills.len()).enumerate() {
                self.part(subject, parts, i * at_once + j, trials, findings)?;
            }
        }
        self.left_over(findings);
        Ok(())
    }

    /// The wholes, and what the kernel may not know was filled with in each.
    fn fills(&self) -> impl Iterator<Item = (Fill, &Trial)> {
        let first = (self.whole.fill, &self.whole.trial);
        let other = self.whole.other.as_ref();
        std::iter::once(first).chain(other.map(|(fill, trial)| (*fill, trial)))
    }

    /// What one part has written.
    fn part(
        &mut self,
        subject: &mut Subject<'_>,
        parts: &[Vec<u64>],
        part: usize,
        trials: &[Trial],
        findings: &mut Findings,
    ) -> Result<(), Error> {
        for trial in trials {
            if let Some(found) = ending(&trial.outcome, subject) {
                findings.add(found);
            }
        }
        if !trials.iter().all(Trial::has_ended) {
            return Ok(());
        }
        for argument in self.whole.trial.arguments() {
            let len = subject.arguments[argument].param.len;
            for start in (0..len).step_by(STRETCH) {
                let end = len.min(start + STRETCH);
                // Most parts leave most of it alone.
                if trials.iter().all(|t| t.kept(argument, start..end)) {
                    continue;
                }
                for element in start..end {
                    if trials
                        .iter()
                        .all(|t| t.kept(argument, element..element + 1))
                    {
                        continue;
                    }
                    let owner = &mut self.owners[argument][element];
                    let number = u32::try_from(part + 1).unwrap_or(u32::MAX);
                    let before = std::mem::replace(owner, number) as usize;
                    let mut whole = self.fills().zip(trials);
                    let same = whole.all(|((_, w), t)| w.same(t, argument, element));
                    let writers = [
                        before.checked_sub(1).map(|before| &parts[before]),
                        Some(&parts[part]),
                    ];
                    let at = (argument, element);
                    match (before, same) {
                        (0, true) => {}
                        (0, false) => {
                            dependent(subject, self.whole.fill, &parts[part], at, findings)?
                        }
                        _ => overlap(subject, self.whole.fill, writers, at, findings)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// What the whole has written, and no part.
    fn left_over(&self, findings: &mut Findings) {
        if !findings.0.is_empty() {
            return;
        }
        for (argument, owners) in self.owners.iter().enumerate() {
            let missing = owners.iter().enumerate().position(|(element, owner)| {
                let mut wholes = self.fills();
                *owner == 0 && wholes.any(|(_, w)| !w.kept(argument, element..element + 1))
            });
            if let Some(element) = missing {
                let text = "no call of its grid writes it without the others";
                let element = i64::try_from(element).unwrap_or(i64::MAX);
                findings.add(Found::new(Kind::Dependent, argument, element, text.into()));
            }
        }
    }
}

/// Two parts that write the same element.
fn overlap(
    subject: &mut Subject<'_>,
    fill: Fill,
    parts: [Option<&Vec<u64>>; 2],
    at: (usize, usize),
    findings: &mut Findings,
) -> Result<(), Error> {
    if findings.has(Kind::Overlap, Some(at.0)) {
        return Ok(());
    }
    let mut calls = Vec::new();
    for part in parts.into_iter().flatten() {
        calls.extend(first_writer(subject, fill, part, at)?);
    }
    calls.sort_unstable();
    let text = format!("calls {} of its grid both write it", list(&calls));
    let element = i64::try_from(at.1).unwrap_or(i64::MAX);
    findings.add(Found::new(Kind::Overlap, at.0, element, text).calls(calls));
    Ok(())
}

/// A part that writes other bits than the whole.
fn dependent(
    subject: &mut Subject<'_>,
    fill: Fill,
    part: &[u64],
    at: (usize, usize),
    findings: &mut Findings,
) -> Result<(), Error> {
    let known = [Kind::Overlap, Kind::Dependent];
    if known.iter().any(|kind| findings.has(*kind, Some(at.0))) {
        return Ok(());
    }
    let call = first_writer(subject, fill, part, at)?;
    let calls: Vec<_> = call.into_iter().collect();
    let calls_text = list(&calls);
    let text = format!("call {calls_text} of its grid writes other bits without the others");
    let element = i64::try_from(at.1).unwrap_or(i64::MAX);
    findings.add(Found::new(Kind::Dependent, at.0, element, text).calls(calls));
    Ok(())
}

/// Which of these calls writes an element first.
fn first_writer(
    subject: &mut Subject<'_>,
    fill: Fill,
    calls: &[u64],
    (argument, element): (usize, usize),
) -> Result<Option<u64>, Error> {
    let (mut none, mut some) = (0, calls.len());
    while some - none > 1 {
        let middle = usize::midpoint(none, some);
        let these = Calls::These(calls[..middle].to_vec());
        let tried = subject.run(&[Variant::new(Placement::End, fill).calls(these)])?;
        let mut tried = tried.iter().filter(|t| t.has_ended());
        match tried.any(|t| !t.kept(argument, element..element + 1)) {
            true => some = middle,
            false => none = middle,
        }
    }
    Ok(calls.get(some - 1).copied())
}

fn list(calls: &[u64]) -> String {
    let words: Vec<_> = calls.iter().map(u64::to_string).collect();
    words.join(" and ")
}
