//! A bundle's folder, written whole or not at all.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::lines;
use super::npy::{self, Array};
use super::read::{self, FORMAT, VERSION};
use super::schema::{RawFile, RawHeader, RawPlan};
use super::weights::NewWeights;
use crate::Error;

/// All that a bundle's folder is to hold.
pub(super) struct Parts<'a> {
    pub(super) plan: RawPlan,
    /// Without any, there is no weights file.
    pub(super) weights: Option<NewWeights<'a>>,
    /// The other files, by their paths in the folder.
    pub(super) files: Vec<(PathBuf, Content<'a>)>,
}

/// What a file is to hold.
pub(super) enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    Array(&'a Array),
    /// What this file holds.
    File(PathBuf),
}

impl Parts<'_> {
    /// Writes the folder `target`, which must not exist, or be empty.
    ///
    /// It is written beside its place, read back, so that nothing which a reader would
    /// refuse is ever at that place, and moved there in one step.
    pub(super) fn publish(self, target: &Path) -> Result<(), Error> {
        check_free(target)?;
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let folder = tempfile::Builder::new()
            .prefix(".svod-bundle-")
            .tempdir_in(parent)
            .map_err(|e| Error::system(format!("create a folder in {}", parent.display()), e))?;
        self.write(folder.path())?;
        read::open(folder.path())?;
        fs::rename(folder.path(), target)
            .map_err(|e| Error::system(format!("move it to {}", target.display()), e))?;
        // It has left the place at which it would be removed.
        let _ = folder.keep();
        Ok(())
    }

    fn write(self, folder: &Path) -> Result<(), Error> {
        for (relative, content) in &self.files {
            let path = folder.join(relative);
            let system = |e| Error::system(format!("write {}", path.display()), e);
            fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(system)?;
            match content {
                Content::Bytes(bytes) => fs::write(&path, bytes).map_err(system)?,
                Content::Array(array) => {
                    npy::write(&path, &array.shape, array.elements.as_view())?;
                }
                Content::File(from) => {
                    let doing = || format!("copy {} to {}", from.display(), path.display());
                    fs::copy(from, &path).map_err(|e| Error::system(doing(), e))?;
                }
            }
        }
        if let Some(weights) = self.weights {
            weights.write(&folder.join("weights.safetensors"))?;
        }
        let file = RawFile {
            header: RawHeader {
                format: FORMAT.into(),
                version: VERSION,
                requires: Vec::new(),
            },
            plan: &self.plan,
        };
        let text = lines::to_string(&file).map_err(|e| Error::plan("plan.json", e))?;
        let path = folder.join("plan.json");
        fs::write(&path, text).map_err(|e| Error::system(format!("write {}", path.display()), e))
    }
}

/// Whether a folder may be moved to `target`. Moving it there asks again.
pub(super) fn check_free(target: &Path) -> Result<(), Error> {
    if target.file_name().is_none() {
        return Err(Error::file(target, "it does not name a new folder"));
    }
    let system = |e| Error::system(format!("look for {}", target.display()), e);
    match fs::symlink_metadata(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(system(e)),
        Ok(meta) if !meta.is_dir() => Err(Error::file(target, "it exists, and is no empty folder")),
        Ok(_) => match fs::read_dir(target).map_err(system)?.next() {
            None => Ok(()),
            Some(_) => Err(Error::file(
                target,
                "the folder exists and is not empty; name a new one, or remove it first",
            )),
        },
    }
}
