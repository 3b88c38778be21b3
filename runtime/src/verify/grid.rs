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

/// Makes the parts, and compares each with the whole.
pub(super) fn take_apart(
    subject: &mut Subject<'_>,
    whole: &Reference,
    findings: &mut Findings,
) -> Result<(), Error> {
    let grid = subject.grid;
    if grid <= ALONE {
        let parts: Vec<_> = (0..grid).map(|call| vec![call]).collect();
        return Family::new(subject, whole).judge(subject, &parts, findings);
    }
    for bit in 0..u64::BITS - (grid - 1).leading_zeros() {
        let (with, without) = (0..grid).partition(|call| call >> bit & 1 == 1);
        let parts: [Vec<u64>; 2] = [without, with];
        Family::new(subject, whole).judge(subject, &parts, findings)?;
        if findings.0.iter().any(|f| f.kind == Kind::Overlap) {
            break;
        }
    }
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
        self.left_over(subject, findings);
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
            let size = subject.arguments[argument].param.dtype.size();
            for element in 0..subject.arguments[argument].param.len {
                let at = element * size..(element + 1) * size;
                let kept =
                    |t: &Trial| t.after(argument)[at.clone()] == t.before(argument)[at.clone()];
                if trials.iter().all(kept) {
                    continue;
                }
                let owner = self.owners[argument][element];
                self.owners[argument][element] = u32::try_from(part + 1).unwrap_or(u32::MAX);
                let signed = i64::try_from(element).unwrap_or(i64::MAX);
                if owner != 0 && !findings.has(Kind::Overlap, Some(argument)) {
                    let first = first_writer(
                        subject,
                        self.whole.fill,
                        &parts[owner as usize - 1],
                        argument,
                        element,
                    )?;
                    let second =
                        first_writer(subject, self.whole.fill, &parts[part], argument, element)?;
                    let mut calls: Vec<_> = first.into_iter().chain(second).collect();
                    calls.sort_unstable();
                    let text = format!("calls {} of its grid both write it", list(&calls));
                    findings.add(Found::new(Kind::Overlap, argument, signed, text).calls(calls));
                }
                let same = self.fills().zip(trials);
                let same = same.map(|((_, whole), t)| {
                    whole.after(argument)[at.clone()] == t.after(argument)[at.clone()]
                });
                let same = same.fold(true, |all, same| all && same);
                let known = [Kind::Overlap, Kind::Dependent];
                if !same && !known.iter().any(|kind| findings.has(*kind, Some(argument))) {
                    let call =
                        first_writer(subject, self.whole.fill, &parts[part], argument, element)?;
                    let calls: Vec<_> = call.into_iter().collect();
                    let text = format!(
                        "call {} of its grid writes other bits without the others",
                        list(&calls)
                    );
                    findings.add(Found::new(Kind::Dependent, argument, signed, text).calls(calls));
                }
            }
        }
        Ok(())
    }

    /// What the whole has written, and no part.
    fn left_over(&self, subject: &Subject<'_>, findings: &mut Findings) {
        for (argument, owners) in self.owners.iter().enumerate() {
            let size = subject.arguments[argument].param.dtype.size();
            let missing = owners.iter().enumerate().position(|(element, owner)| {
                let at = element * size..(element + 1) * size;
                let kept =
                    |t: &Trial| t.after(argument)[at.clone()] == t.before(argument)[at.clone()];
                *owner == 0 && !self.fills().all(|(_, whole)| kept(whole))
            });
            if let Some(element) = missing
                && findings.0.is_empty()
            {
                let text = "no call of its grid writes it without the others";
                let element = i64::try_from(element).unwrap_or(i64::MAX);
                findings.add(Found::new(Kind::Dependent, argument, element, text.into()));
            }
        }
    }
}

/// Which of these calls writes an element first.
fn first_writer(
    subject: &mut Subject<'_>,
    fill: Fill,
    calls: &[u64],
    argument: usize,
    element: usize,
) -> Result<Option<u64>, Error> {
    let size = subject.arguments[argument].param.dtype.size();
    let at = element * size..(element + 1) * size;
    let (mut none, mut some) = (0, calls.len());
    while some - none > 1 {
        let middle = usize::midpoint(none, some);
        let these = Calls::These(calls[..middle].to_vec());
        let tried = subject.run(&[Variant::new(Placement::End, fill).calls(these)])?;
        let writes = tried.first().is_some_and(|t| {
            t.has_ended() && t.after(argument)[at.clone()] != t.before(argument)[at.clone()]
        });
        match writes {
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
