//! Where a bundle goes, and that it takes the place of an older one, and of nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Failure;

/// The folder of a bundle that is to be written.
pub(crate) struct Output(PathBuf);

impl Output {
    /// The folder that `path` leads to, if a bundle may be written there: one that is not there, is
    /// empty, or is a bundle. A name that was mistyped must not cost anyone a folder.
    pub(crate) fn at(path: &Path) -> Result<Output, Failure> {
        let shown = path.display();
        let name = path.file_name();
        let name = name.ok_or_else(|| format!("{shown} names no folder that can be written"))?;
        // A link stays, and what it leads to is replaced.
        if let Ok(target) = path.canonicalize() {
            let is_bundle = target.join("plan.json").is_file();
            let is_empty = || fs::read_dir(&target).is_ok_and(|mut files| files.next().is_none());
            return match is_bundle || is_empty() {
                true => Ok(Output(target)),
                false => Err(format!(
                    "{shown} is there, and is no bundle: remove it, or choose another name"
                )
                .into()),
            };
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let there = parent.canonicalize().ok().filter(|there| there.is_dir());
        let there = there.ok_or_else(|| {
            let parent = parent.display();
            format!("there is no folder {parent} for {shown}: make it first")
        })?;
        Ok(Output(there.join(name)))
    }

    /// Has `write` write a bundle, into a folder that does not exist yet, and puts it in its place.
    /// What fails leaves what was there.
    pub(crate) fn replace(
        self,
        write: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Output(target) = self;
        // Beside it, so that to move it there is to rename it.
        let beside = target.parent().unwrap_or(Path::new("/"));
        let folder = tempfile::Builder::new()
            .prefix(".svod-capture-")
            .tempdir_in(beside)
            .map_err(|e| format!("create a folder in {}: {e}", beside.display()))?;
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        write(&new)?;
        let had_one = target.exists();
        if had_one {
            fs::rename(&target, &old)
                .map_err(|e| format!("move {} aside: {e}", target.display()))?;
        }
        if let Err(e) = fs::rename(&new, &target) {
            if had_one {
                // What went wrong is said already.
                let _ = fs::rename(&old, &target);
            }
            return Err(format!("move the bundle to {}: {e}", target.display()).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn write(text: &str) -> impl FnOnce(&Path) -> Result<(), Failure> {
        move |folder| {
            fs::create_dir(folder)?;
            Ok(fs::write(folder.join("plan.json"), text)?)
        }
    }

    #[test]
    fn a_bundle_is_replaced_whole_and_stays_where_the_new_one_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.svod");
        let holds = || fs::read_to_string(path.join("plan.json")).unwrap();
        Output::at(&path).unwrap().replace(write("1")).unwrap();
        fs::write(path.join("other"), "").unwrap();
        let fails = |_: &Path| Err("no".into());
        assert!(Output::at(&path).unwrap().replace(fails).is_err());
        assert_eq!(holds(), "1");
        Output::at(&path).unwrap().replace(write("2")).unwrap();
        assert_eq!(holds(), "2");
        assert!(!path.join("other").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_bundle_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Output::at(&folder.path().join(name));
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(at("file").is_err());
        assert!(at("nowhere/m.svod").is_err());
        assert!(Output::at(folder.path()).is_err());
        fs::create_dir(folder.path().join("empty")).unwrap();
        at("empty").unwrap().replace(write("1")).unwrap();
        assert!(folder.path().join("empty/plan.json").exists());
    }
}
