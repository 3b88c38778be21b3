//! What a cache says of itself.

use std::path::PathBuf;
use std::time::SystemTime;

use super::key::{self, ENTRY, LANGUAGE};
use super::{Cache, Key, entry, is_of_the_system, is_temporary, read_own};
use crate::Error;

/// What is in a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many objects.
    pub entries: usize,
    /// How many bytes their files have.
    pub bytes: u64,
    /// How many bytes they may have.
    pub limit: u64,
    /// How many objects there are of each language, by its name.
    pub languages: Vec<(String, usize)>,
    /// When the one was used that was not used for the longest time, to the hour.
    pub oldest: Option<SystemTime>,
    /// When one was used last, to the hour.
    pub newest: Option<SystemTime>,
}

/// What came of [`Cache::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many entries are what they were.
    pub good: usize,
    /// The files that were removed, each with the reason.
    pub removed: Vec<(PathBuf, String)>,
}

/// What [`Cache::clear`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// How many objects.
    pub entries: usize,
    /// How many bytes.
    pub bytes: u64,
}

/// Why a key hits, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// Its object is there.
    Hit,
    /// It is not, and this is in what it differs from the entry that is most like it.
    Differs(Vec<Difference>),
    /// It is not, and there is no entry to compare it with.
    Empty,
    /// It is not kept in a cache, for this reason.
    NotKept(String),
}

/// A part of a key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The part's name.
    pub part: String,
    /// The lines that only this key has.
    pub here: Vec<String>,
    /// The lines that only the entry has.
    pub there: Vec<String>,
}

impl Cache {
    /// Counts what is there.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where the folder cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        self.check_readable()?;
        let mut stats = Stats {
            limit: self.limit,
            ..Stats::default()
        };
        for (path, meta) in self.files() {
            let Some(bytes) = read_entry(&path) else {
                continue;
            };
            stats.entries += 1;
            stats.bytes += meta.len();
            let used = meta.modified().ok();
            stats.oldest = stats.oldest.into_iter().chain(used).min();
            stats.newest = stats.newest.into_iter().chain(used).max();
            let parts = parts(&bytes).unwrap_or_default();
            let language = value(&parts, LANGUAGE).unwrap_or("unknown");
            match stats.languages.iter_mut().find(|(l, _)| l == language) {
                Some((_, count)) => *count += 1,
                None => stats.languages.push((language.to_owned(), 1)),
            }
        }
        stats.languages.sort();
        Ok(stats)
    }

    /// Checks every entry, and removes those that are not what they were.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where the folder or an entry cannot be read, which says nothing about
    /// the entry.
    pub fn verify(&self) -> Result<Verified, Error> {
        self.check_readable()?;
        let mut verified = Verified::default();
        for (path, _) in self.files() {
            if is_temporary(&path) {
                continue;
            }
            let bytes = match read_own(&path).map(|(bytes, ..)| bytes) {
                // It has left meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) if is_of_the_system(&e) => {
                    return Err(Error::system(format!("read {}", path.display()), e));
                }
                bytes => bytes,
            };
            let checked = bytes.map_err(|e| e.to_string()).and_then(|bytes| {
                let (stored, _) = entry::decode(&bytes)?;
                key::decode(stored).ok_or("its key cannot be read")?;
                match is_named_by(&path, stored) {
                    true => Ok(()),
                    false => Err("its name is not its key's".to_owned()),
                }
            });
            match checked {
                Ok(()) => verified.good += 1,
                Err(reason) => {
                    self.remove(&path, &reason);
                    verified.removed.push((path, reason));
                }
            }
        }
        Ok(verified)
    }

    /// Removes all entries. Others may use the cache meanwhile: what they have read they have.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where a file cannot be removed.
    pub fn clear(&self) -> Result<Cleared, Error> {
        self.check_readable()?;
        let mut cleared = Cleared::default();
        for (path, meta) in self.files() {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::system(format!("remove {}", path.display()), e)),
            }
            if !is_temporary(&path) {
                cleared.entries += 1;
                cleared.bytes += meta.len();
            }
        }
        Ok(cleared)
    }

    /// Of each key, whether it hits and, if not, in what it differs from the entry that is most
    /// like it: one of the same function rather than of another, and then the one with the most
    /// equal parts.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where the folder cannot be read.
    pub fn explain(&self, keys: &[Key]) -> Result<Vec<Explanation>, Error> {
        self.check_readable()?;
        let hits: Vec<bool> = keys.iter().map(|key| self.get(key).is_some()).collect();
        let mut nearest: Vec<Option<((bool, usize), Explanation)>> = vec![None; keys.len()];
        let entries = self.files().filter(|_| hits.contains(&false));
        for bytes in entries.filter_map(|(path, _)| read_entry(&path)) {
            let Some(there) = parts(&bytes) else { continue };
            for ((key, _), nearest) in keys
                .iter()
                .zip(&hits)
                .zip(&mut nearest)
                .filter(|((_, hit), _)| !**hit)
            {
                let here = key.parts();
                let equal = here.iter().filter(|part| there.contains(part)).count();
                let likeness = (value(&here, ENTRY) == value(&there, ENTRY), equal);
                if nearest.as_ref().is_none_or(|(best, _)| likeness > *best) {
                    let differences = differences(&here, &there);
                    *nearest = Some((likeness, Explanation::Differs(differences)));
                }
            }
        }
        let all = hits
            .into_iter()
            .zip(nearest)
            .map(|(hit, nearest)| match nearest {
                _ if hit => Explanation::Hit,
                Some((_, differs)) => differs,
                None => Explanation::Empty,
            });
        Ok(all.collect())
    }

    fn check_readable(&self) -> Result<(), Error> {
        let read = std::fs::read_dir(&self.objects);
        read.map(|_| ())
            .map_err(|e| Error::system(format!("read {}", self.objects.display()), e))
    }
}

/// The bytes of an entry; `None` of what is none, or damaged.
fn read_entry(path: &std::path::Path) -> Option<Vec<u8>> {
    if is_temporary(path) {
        return None;
    }
    let (bytes, ..) = read_own(path).ok()?;
    let (key, _) = entry::decode(&bytes).ok()?;
    is_named_by(path, key).then_some(bytes)
}

/// Whether a file has the name of its key.
fn is_named_by(path: &std::path::Path, key: &[u8]) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name == Some(&key::name(key))
}

fn parts(entry: &[u8]) -> Option<Vec<(&str, &str)>> {
    key::decode(entry::decode(entry).ok()?.0)
}

fn value<'a>(parts: &[(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    parts.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

fn differences(here: &[(&str, &str)], there: &[(&str, &str)]) -> Vec<Difference> {
    let only = |a: Option<&str>, b: Option<&str>| {
        let known: Vec<&str> = b.unwrap_or_default().lines().collect();
        let lines = a.unwrap_or_default().lines();
        let lines = lines.filter(|line| !known.contains(line));
        lines.map(str::to_owned).collect()
    };
    let mut names: Vec<&str> = here.iter().map(|(name, _)| *name).collect();
    names.extend(
        there
            .iter()
            .map(|(name, _)| *name)
            .filter(|n| value(here, n).is_none()),
    );
    let differ = names.into_iter().filter_map(|name| {
        let [a, b] = [value(here, name), value(there, name)];
        (a != b).then(|| Difference {
            part: name.to_owned(),
            here: only(a, b),
            there: only(b, a),
        })
    });
    differ.collect()
}
