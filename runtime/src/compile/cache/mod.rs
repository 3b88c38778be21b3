//! Objects that were compiled before, on disk.
//!
//! An entry is found by its [key](Key), which holds all that decides its bytes, and carries the
//! key's parts, so that the cache can say why something is not there. It is a file of its own,
//! verified as a whole whenever it is read, and published by a rename: what is there is whole,
//! or it is found out and removed. Nothing is flushed to the disk for that; what a crash of the
//! machine damages is compiled again.
//!
//! **Compiled once.** Whoever misses takes the lock of the key, a file that is locked with
//! `flock`, looks again, and compiles with the lock in hand. Locks are first tried, in the order
//! of their keys; what was won is compiled, published and released, and only then, with no lock
//! in hand, is one waited for that somebody else has. So no one waits for a lock while
//! another waits for his: there is no cycle, whatever the order. A lock goes with its process,
//! and who gets it then finds nothing, and compiles. Lock files are removed by who holds them;
//! after taking a lock one looks whether the file is still the one of that name.
//!
//! **Trust.** Code is run from here, so the folder and each entry must be the user's own and
//! writable by nobody else; links are not followed.
//!
//! **Never in the way.** What cannot be written is not written: after one warning the cache
//! is only read. A folder that cannot be had at all is an error to who asks for it by name, and
//! a warning to a runtime.

mod entry;
mod key;
mod report;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_OMIT, futimens};
use rustix::io::Errno;

pub(crate) use key::Beginning;
pub(super) use key::hex;
pub use key::{CACHE_VERSION, KernelKey, Key};
pub use report::{Cleared, Difference, Explanation, Stats, Verified};

use crate::Error;

/// How many bytes of entries a cache keeps where nobody says another number: 1 GiB, some
/// hundred thousand kernels.
pub const DEFAULT_LIMIT: u64 = 1 << 30;

/// A use of an entry is noted once in this time: a note is a write to the disk. It decides
/// nothing but which entries leave first.
const NOTE_USE_AFTER: Duration = Duration::from_secs(3600);

/// How many locks are held at once: each is an open file, of which a process may have 1,024
/// where nobody says otherwise.
const LOCKS: usize = 256;

/// How the names of files begin that are being written.
const TEMPORARY: &str = ".new-";

/// A folder of objects. Any number of processes and threads may use one at the same time.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    objects: PathBuf,
    locks: PathBuf,
    limit: u64,
    /// Until the first write that fails.
    writes: AtomicBool,
}

/// Told of an object that was compiled, by the number of its key, from any thread.
pub type Publish<'a> = dyn Fn(usize, &[u8]) + Sync + 'a;

/// Compiles what belongs to the keys of these numbers, and publishes each.
pub type Compile<'a> = dyn FnMut(&[usize], &Publish<'_>) + 'a;

/// What came of asking for a lock.
enum Asked {
    Won(Lock),
    Busy,
    /// There are no locks here.
    None,
}

/// A lock of a key.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // With the lock still held, so that nobody else has a file of this name locked.
        let _ = fs::remove_file(&self.path);
    }
}

impl Cache {
    /// The cache in `folder`, which is created where it lacks, and in which entries take at most
    /// `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::CacheFolder`] where the folder is not there and cannot be created, or is not the
    /// user's own, or others may write to it.
    pub fn open(folder: impl AsRef<Path>, limit: u64) -> Result<Cache, Error> {
        let folder = folder.as_ref();
        let refused = |reason: String| Error::CacheFolder {
            folder: folder.to_owned(),
            reason,
        };
        let absolute = std::path::absolute(folder).map_err(|e| refused(e.to_string()))?;
        let cache = Cache {
            objects: absolute.join("objects"),
            locks: absolute.join("locks"),
            folder: absolute,
            limit,
            writes: AtomicBool::new(true),
        };
        own_folder(&cache.folder).map_err(refused)?;
        for folder in [&cache.objects, &cache.locks] {
            match created(folder) {
                Ok(meta) => check_folder(folder, &meta).map_err(refused)?,
                // There may still be something to read.
                Err(e) => cache.stop_writing("create a folder in it", &e),
            }
        }
        Ok(cache)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The bytes that entries may take.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The object of this key. One that is damaged is removed.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.objects.join(key.digest());
        let payload = match read_own(&path) {
            Ok((bytes, file, meta)) => match entry::decode(&bytes) {
                Ok((stored, payload)) if key.is_encoded_as(stored) => {
                    self.note_use(&file, &meta);
                    Ok(payload.to_vec())
                }
                Ok(_) => Err("it is another key's".to_owned()),
                Err(reason) => Err(reason.to_owned()),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) if is_of_the_system(&e) => {
                let path = path.display();
                tracing::warn!("the cache entry {path} cannot be read now: {e}");
                return None;
            }
            Err(e) => Err(e.to_string()),
        };
        payload.map_err(|reason| self.remove(&path, &reason)).ok()
    }

    /// Keeps the object of this key, if it can be kept. What is too much by that leaves with the
    /// next [`obtain_all`](Self::obtain_all).
    pub fn put(&self, key: &Key, object: &[u8]) {
        if !self.writes.load(Ordering::Relaxed) {
            return;
        }
        let bytes = entry::encode(key.encoded(), object);
        if bytes.len() as u64 > self.limit {
            return;
        }
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            // Opened here, so that an error is the system's own.
            let mut file = tempfile::Builder::new()
                .prefix(TEMPORARY)
                .make_in(&self.objects, |path| options.open(path))?;
            // As long as it is empty or locked, it is not rubbish.
            let _ = file.as_file().try_lock();
            file.write_all(&bytes)?;
            match file.persist(self.objects.join(key.digest())) {
                // Somebody has removed it, as who clears the cache does; the next may last.
                Err(e) if e.error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done.map(|_| ()).map_err(io::Error::from),
            }
        };
        match write() {
            Ok(()) => {}
            Err(e) if is_passing(&e) => tracing::debug!("an object is not kept: {e}"),
            Err(e) => self.stop_writing("write to it", &e),
        }
    }

    /// Gets the objects of keys, each of which stands there once: `found` is told of those that
    /// are here. The others are to be compiled: `compile` is given their numbers, some at a time,
    /// and says by the function that it is given, from any thread, what came of each; those that
    /// it says nothing of are compiled by whoever asks next. Of all who ask at the same time,
    /// one compiles.
    pub fn obtain_all(
        &self,
        keys: &[Key],
        found: &dyn Fn(usize, Vec<u8>),
        compile: &mut Compile<'_>,
    ) {
        let look = |i: usize| match self.get(&keys[i]) {
            Some(object) => {
                found(i, object);
                true
            }
            None => false,
        };
        let mut missing: Vec<usize> = (0..keys.len()).filter(|&i| !look(i)).collect();
        if missing.is_empty() {
            return;
        }
        missing.sort_by_key(|&i| keys[i].digest());
        let mut has_put = false;
        for some in missing.chunks(LOCKS) {
            has_put |= self.obtain(keys, some.to_vec(), &look, compile);
        }
        if has_put {
            self.trim();
        }
    }

    /// Returns whether something was put.
    fn obtain(
        &self,
        keys: &[Key],
        mut missing: Vec<usize>,
        look: &dyn Fn(usize) -> bool,
        compile: &mut Compile<'_>,
    ) -> bool {
        let has_put = AtomicBool::new(false);
        while !missing.is_empty() {
            let (mut locks, mut won, mut busy) = (HashMap::new(), Vec::new(), Vec::new());
            let mut take = |i: usize, lock: Asked| match lock {
                Asked::Busy => busy.push(i),
                // Whoever had the lock before may have published it.
                Asked::Won(_) if look(i) => {}
                Asked::Won(lock) => {
                    locks.insert(i, lock);
                    won.push(i);
                }
                Asked::None => won.push(i),
            };
            for &i in &missing {
                take(i, self.lock(&keys[i], false));
            }
            if won.is_empty()
                && let Some(first) = busy.first().copied()
            {
                // No lock is held here. What those who have the others do meanwhile is
                // looked at in the next round.
                drop(self.lock(&keys[first], true));
                let there = busy.iter().filter(|&&i| !look(i));
                missing = there.copied().collect();
                continue;
            }
            let locks = Mutex::new(locks);
            let publish = |i: usize, object: &[u8]| {
                self.put(&keys[i], object);
                has_put.store(true, Ordering::Relaxed);
                let mut locks = locks.lock().unwrap_or_else(PoisonError::into_inner);
                drop(locks.remove(&i));
            };
            if !won.is_empty() {
                compile(&won, &publish);
            }
            missing = busy;
        }
        has_put.into_inner()
    }

    /// The lock of a key; `wait`s for it, or says that it is busy.
    fn lock(&self, key: &Key, wait: bool) -> Asked {
        if !self.writes.load(Ordering::Relaxed) {
            return Asked::None;
        }
        Cache::lock_file(self.locks.join(key.digest()), wait)
    }

    fn lock_file(path: PathBuf, wait: bool) -> Asked {
        let open = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let flags = OFlags::NOFOLLOW.bits().cast_signed();
            options.custom_flags(flags).open(&path)
        };
        loop {
            let Ok(file) = open() else {
                return Asked::None;
            };
            let locked = if wait {
                file.lock().map_err(TryLockError::Error)
            } else {
                file.try_lock()
            };
            match locked {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Asked::Busy,
                Err(TryLockError::Error(_)) => return Asked::None,
            }
            // Who held it may have removed the file of this name since it was opened.
            let inode = |meta: io::Result<fs::Metadata>| meta.map(|m| (m.dev(), m.ino())).ok();
            let here = inode(file.metadata());
            if here.is_some() && here == inode(fs::symlink_metadata(&path)) {
                return Asked::Won(Lock { path, _file: file });
            }
        }
    }

    /// Notes that an entry was used, now and then.
    fn note_use(&self, file: &File, meta: &fs::Metadata) {
        let now = SystemTime::now();
        if is_fresh(meta.modified(), now) || !self.writes.load(Ordering::Relaxed) {
            return;
        }
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: now.as_secs().cast_signed(),
                tv_nsec: now.subsec_nanos().into(),
            },
        };
        // It decides nothing but what leaves first.
        let _ = futimens(file, &times);
    }

    /// Removes what is no entry, or no longer one.
    fn remove(&self, path: &Path, reason: &str) {
        let path_shown = path.display();
        tracing::warn!("the cache entry {path_shown} is not used: {reason}");
        if self.writes.load(Ordering::Relaxed) {
            let _ = fs::remove_file(path);
        }
    }

    /// From here on the cache is read only, which is said once.
    fn stop_writing(&self, doing: &str, error: &io::Error) {
        if self.writes.swap(false, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::warn!(
                "the cache in {folder} is only read from now on: cannot {doing}: {error}"
            );
        }
    }

    /// Has the oldest entries leave until the rest is within the limit, and what those left who
    /// died: files half written, and locks.
    fn trim(&self) {
        if !self.writes.load(Ordering::Relaxed) {
            return;
        }
        let locks = fs::read_dir(&self.locks).into_iter().flatten().flatten();
        for left in locks {
            // Removed with the lock in hand, where nobody else has it.
            drop(Cache::lock_file(left.path(), false));
        }
        let now = SystemTime::now();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (path, meta) in self.files() {
            if is_temporary(&path) {
                // Whoever writes to it has it locked before; what is rubbish, nobody has. One
                // that is empty may be about to be locked, which takes no hour.
                let is_begun = meta.len() == 0 && is_fresh(meta.modified(), now);
                if !is_begun && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            bytes += meta.len();
            let used = meta.modified().map_or(now, |used| used.min(now));
            entries.push((used, meta.len(), path));
        }
        if bytes <= self.limit {
            return;
        }
        entries.sort();
        for (_, size, path) in entries {
            if bytes <= self.limit {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                bytes -= size;
            }
        }
    }

    /// The files among the objects, with what the system says of them.
    fn files(&self) -> impl Iterator<Item = (PathBuf, fs::Metadata)> + use<> {
        let entries = fs::read_dir(&self.objects).into_iter().flatten().flatten();
        entries.filter_map(|e| Some((e.path(), e.metadata().ok()?)))
    }
}

/// Whether a stamp is of the last hour. One that lies in the future is of a clock that was
/// wrong.
fn is_fresh(stamp: io::Result<SystemTime>, now: SystemTime) -> bool {
    let age = stamp.ok().and_then(|stamp| now.duration_since(stamp).ok());
    age.is_some_and(|age| age < NOTE_USE_AFTER)
}

/// Whether the system could not read an entry, as where too many files are open; that says
/// nothing about the entry. That a link stands in its place does.
fn is_of_the_system(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| code != Errno::LOOP.raw_os_error())
}

/// Whether the same may succeed later, with nothing done about it.
fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR];
    let code = error.raw_os_error();
    passing.iter().any(|e| code == Some(e.raw_os_error()))
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str());
    name.is_some_and(|n| n.starts_with(TEMPORARY))
}

/// A folder that is there, or is created, with those that it lies in, for the user alone.
fn created(folder: &Path) -> io::Result<fs::Metadata> {
    match fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => Ok(meta),
        _ => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            fs::metadata(folder)
        }
    }
}

/// A folder that is there, or is created, and is the user's own.
pub(super) fn own_folder(folder: &Path) -> Result<(), String> {
    let meta = created(folder).map_err(|e| format!("it cannot be created: {e}"))?;
    check_folder(folder, &meta)
}

fn check_folder(folder: &Path, meta: &fs::Metadata) -> Result<(), String> {
    check_own(meta).map_err(|reason| format!("{} {reason}", folder.display()))
}

/// Whether nobody but the user can have written it.
fn check_own(meta: &fs::Metadata) -> Result<(), String> {
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(format!("belongs to the user {}, not to {user}", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(format!("may be written by others (its mode is {mode:o})"));
    }
    Ok(())
}

/// What is in a file that is the user's own, and no link; and the file.
pub(super) fn read_own(path: &Path) -> io::Result<(Vec<u8>, File, fs::Metadata)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    check_own(&meta).map_err(io::Error::other)?;
    // To its end as it is now, without asking where that is.
    let mut bytes = vec![0; usize::try_from(meta.len()).map_err(io::Error::other)?];
    (&file).read_exact(&mut bytes)?;
    Ok((bytes, file, meta))
}
