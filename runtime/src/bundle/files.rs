//! The files of a bundle: found without leaving it, and as long as they should be.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

use crate::Error;
use crate::error::Place;

/// The folder of a bundle.
#[derive(Debug)]
pub(super) struct Root {
    given: PathBuf,
    /// Without links, to compare paths with.
    canonical: PathBuf,
    /// The folder itself, while many of its files are looked for.
    folder: Option<OwnedFd>,
}

impl Root {
    pub(super) fn new(path: &Path) -> Result<Root, Error> {
        let system = |e| Error::system(format!("open the folder {}", path.display()), e);
        let canonical = path.canonicalize().map_err(system)?;
        if !canonical.is_dir() {
            return Err(Error::file(
                path,
                "it is no folder; a bundle is a folder with a plan.json",
            ));
        }
        Ok(Root {
            given: path.to_owned(),
            folder: open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok(),
            canonical,
        })
    }

    /// The same, with nothing open; what is still looked for is found all the same.
    pub(super) fn closed(self) -> Root {
        Root {
            folder: None,
            ..self
        }
    }

    pub(super) fn given(&self) -> &Path {
        &self.given
    }

    /// The file `relative` of the bundle, which must exist; `place` is where the
    /// plan names it.
    pub(super) fn file(&self, place: &Place, relative: &str) -> Result<PathBuf, Error> {
        let plain = Path::new(relative)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let leaves = || Error::plan(place.clone(), format!("`{relative}` leaves the bundle"));
        if !plain || relative.is_empty() {
            return Err(leaves());
        }
        let path = self.given.join(relative);
        if self.has(relative) {
            return Ok(path);
        }
        let missing =
            |reason: String| Error::plan(place.clone(), format!("the file `{relative}` {reason}"));
        let canonical = path
            .canonicalize()
            .map_err(|e| missing(format!("cannot be opened: {e}")))?;
        if !canonical.starts_with(&self.canonical) {
            return Err(leaves());
        }
        if !canonical.is_file() {
            return Err(missing("is no file".into()));
        }
        Ok(path)
    }

    /// Whether the kernel finds a file of that name without leaving the folder on the way, which
    /// takes a third of the time that following each link by its name takes. A no is not final: old
    /// kernels lack the call, and a link may lead out and in again.
    fn has(&self, relative: &str) -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let found = |folder| openat2(folder, relative, flags, Mode::empty(), beneath).ok();
        let is_file = |file| {
            let stat = fstat(file).ok();
            stat.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile)
        };
        self.folder.as_ref().and_then(found).is_some_and(is_file)
    }

    /// The path in the bundle of a file that [`file`](Self::file) found.
    pub(super) fn relative(&self, file: &Path) -> String {
        let relative = file.strip_prefix(&self.given).unwrap_or(file);
        let parts = relative.iter().map(|part| part.to_string_lossy());
        parts.collect::<Vec<_>>().join("/")
    }

    /// Every file of the folder, by its path in it.
    pub(super) fn all(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        self.list(Path::new(""), &mut found)?;
        Ok(found)
    }

    fn list(&self, folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
        let path = self.given.join(folder);
        let system = |e| Error::system(format!("list the folder {}", path.display()), e);
        for entry in std::fs::read_dir(&path).map_err(system)? {
            let entry = entry.map_err(system)?;
            let relative = folder.join(entry.file_name());
            if entry.file_type().map_err(system)?.is_dir() {
                self.list(&relative, found)?;
                continue;
            }
            let canonical = entry.path().canonicalize().map_err(|e| {
                Error::system(format!("find the file {}", entry.path().display()), e)
            })?;
            if !canonical.is_file() {
                let reason = "neither a file nor a folder, nor a link to a file";
                return Err(Error::file(entry.path(), reason));
            }
            if !canonical.starts_with(&self.canonical) {
                return Err(Error::file(entry.path(), "a link that leaves the bundle"));
            }
            found.push(relative);
        }
        Ok(())
    }

    /// The text of the file `relative`, if there is one.
    pub(super) fn optional_text(&self, relative: &str) -> Result<Option<String>, Error> {
        let path = self.given.join(relative);
        if !path.try_exists().unwrap_or(false) {
            return Ok(None);
        }
        read_text(&self.file(&relative.into(), relative)?).map(Some)
    }
}

pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::system(format!("read {}", path.display()), e))
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::system(format!("read {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_the_same_with_the_folder_open_and_closed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = |to: &Path, name| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        for file in [dir.path().join("folder/file"), other.path().join("file")] {
            std::fs::write(file, "text").unwrap();
        }
        link(Path::new("folder/file"), "in");
        link(&dir.path().join("folder/file"), "out and in");
        link(&other.path().join("file"), "out");
        link(Path::new("nowhere"), "dangling");
        link(Path::new("loop"), "loop");
        let root = || Root::new(dir.path()).unwrap();
        let (open, closed) = (root(), root().closed());
        assert!(open.folder.is_some() && closed.folder.is_none());
        let place = Place::from("here");
        for (name, is_there) in [
            ("folder/file", true),
            ("./folder/./file", true),
            ("in", true),
            ("out and in", true),
            ("out", false),
            ("dangling", false),
            ("loop", false),
            ("folder", false),
            ("missing", false),
            ("folder/../folder/file", false),
            ("/etc/passwd", false),
            ("", false),
        ] {
            let [open, closed] = [&open, &closed].map(|root| {
                let found = root.file(&place, name);
                found.map_err(|e| e.to_string())
            });
            assert_eq!(open, closed, "{name}");
            assert_eq!(open.is_ok(), is_there, "{name}");
        }
    }
}
