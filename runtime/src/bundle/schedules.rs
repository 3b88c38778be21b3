//! `schedules.json`: schedules that were learned before, an addition of this project's to
//! the format. A bundle is as right without it; its first runs are slower.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Bundle;
use super::files::{Root, read_text};
use crate::Error;
use crate::plan::{LearnedSchedule, Plan, cpu_name};

/// The file, in the bundle's folder.
pub(super) const FILE: &str = "schedules.json";

/// Reads a file of learned schedules: a list of them, or one alone. Of which plan they are,
/// is not looked at.
///
/// # Errors
///
/// [`Error::File`] where it does not say what it should, [`Error::System`] where it cannot
/// be read.
pub fn read_schedules(file: &Path) -> Result<Vec<LearnedSchedule>, Error> {
    LearnedSchedule::list_from_json(&read_text(file)?).map_err(|e| Error::file(file, e))
}

/// Those of a bundle, each a schedule of its plan.
pub(super) fn read(root: &Root, plan: &Plan) -> Result<Vec<LearnedSchedule>, Error> {
    if !root.given().join(FILE).try_exists().unwrap_or(false) {
        return Ok(Vec::new());
    }
    let file = root.file(&FILE.into(), FILE)?;
    let list = read_schedules(&file)?;
    for (i, learned) in list.iter().enumerate() {
        plan.check_learned(learned).map_err(|e| match e {
            Error::Schedule { reason } => Error::Schedule {
                reason: format!(
                    "{FILE}[{i}]: {reason}; remove the file to have schedules learned anew"
                ),
            },
            other => other,
        })?;
        if list[..i]
            .iter()
            .any(|other| is_for_the_same(other, learned))
        {
            let (threads, cpu) = (learned.threads, &learned.cpu);
            let reason = format!("[{i}] is the second for {threads} threads of `{cpu}`");
            return Err(Error::file(file, reason));
        }
    }
    Ok(list)
}

/// Whether one takes the place of the other.
fn is_for_the_same(a: &LearnedSchedule, b: &LearnedSchedule) -> bool {
    a.threads == b.threads && a.cpu == b.cpu
}

/// Adds one to a list, in the place of one for the same processor and number of threads.
pub(super) fn merge(list: &mut Vec<LearnedSchedule>, learned: LearnedSchedule) {
    match list.iter_mut().find(|o| is_for_the_same(o, &learned)) {
        Some(other) => *other = learned,
        None => list.push(learned),
    }
}

impl Bundle {
    /// The schedules that it carries, as they were when it was opened.
    #[must_use]
    pub fn schedules(&self) -> &[LearnedSchedule] {
        &self.schedules
    }

    /// That of them which was learned on a processor like this one, for so many threads.
    #[must_use]
    pub fn schedule(&self, threads: usize) -> Option<&LearnedSchedule> {
        // Most bundles carry none, and need not know the processor.
        let mut fits = self.schedules.iter().filter(|s| s.threads == threads);
        fits.clone().next()?;
        let cpu = cpu_name();
        fits.find(|s| s.cpu == cpu)
    }

    /// Keeps a schedule in the bundle's folder, in the file `schedules.json`, beside those
    /// for other processors and numbers of threads, for whoever opens the bundle next. The
    /// file is replaced in one step; nothing else of the folder is touched. Returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`], whose source says why: a schedule of another plan, a file that
    /// does not say what it should, a folder that cannot be written.
    pub fn save_schedule(&self, learned: &LearnedSchedule) -> Result<PathBuf, Error> {
        let file = self.path().join(FILE);
        let saved = self.plan.check_learned(learned).and_then(|()| {
            // Others may have saved theirs since it was opened.
            let mut list = read(&self.root, &self.plan)?;
            merge(&mut list, learned.clone());
            replace(&file, &LearnedSchedule::list_to_json(&list)?)
        });
        match saved {
            Ok(()) => Ok(file),
            Err(e) => Err(super::in_bundle(self.path(), e)),
        }
    }
}

/// Writes a file beside its place, and moves it there.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = tempfile::Builder::new()
        .prefix(".svod-schedules-")
        // As far as the user's mask allows, like any file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.persist(path)?;
            Ok(())
        });
    written.map_err(|e| Error::system(format!("write {}", path.display()), e))
}
