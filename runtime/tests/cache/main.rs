//! The object cache: what it gives back, what it refuses, and what others can do to it.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
#[path = "../common/mod.rs"]
mod common;
mod full;
mod processes;
mod sources;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use svod_runtime::compile::cache::{Cache, Explanation, Key};
use tempfile::TempDir;

const LIMIT: u64 = 1 << 20;

/// A cache in a folder of its own.
struct Made {
    dir: TempDir,
    cache: Cache,
}

fn made() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path().join("cache"), LIMIT).unwrap();
    Made { dir, cache }
}

impl Made {
    fn folder(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn entry(&self, key: &Key) -> PathBuf {
        self.folder().join("objects").join(key.digest())
    }

    fn again(&self) -> Cache {
        Cache::open(self.folder(), LIMIT).unwrap()
    }
}

fn key(n: usize) -> Key {
    let entry = format!("kernel_{n}");
    Key::new([
        ("entry", entry.as_str()),
        ("flags", "-O2\n-c\n"),
        ("language", "c"),
    ])
}

fn object(n: usize) -> Vec<u8> {
    (0..200).map(|i| (i * 7 + n) as u8).collect()
}

#[test]
fn what_was_put_is_there_for_every_cache_of_the_folder() {
    let made = made();
    assert_eq!(made.cache.get(&key(1)), None);
    made.cache.put(&key(1), &object(1));
    made.cache.put(&key(2), b"");
    for cache in [&made.cache, &made.again()] {
        assert_eq!(cache.get(&key(1)), Some(object(1)));
        assert_eq!(cache.get(&key(2)), Some(Vec::new()));
        assert_eq!(cache.get(&key(3)), None);
    }
}

#[test]
fn only_what_is_missing_is_compiled_and_then_it_is_there() {
    let made = made();
    made.cache.put(&key(1), &object(1));
    let keys: Vec<Key> = (0..4).map(key).collect();
    let obtain = |cache: &Cache| {
        let (found, mut compiled) = (Mutex::new(Vec::new()), Vec::new());
        let tell = |i, bytes| found.lock().unwrap().push((i, bytes));
        cache.obtain_all(&keys, &tell, &mut |numbers, publish| {
            for &i in numbers {
                // What fails is not published.
                if i != 3 {
                    publish(i, &object(i));
                }
                compiled.push(i);
            }
        });
        compiled.sort_unstable();
        (found.into_inner().unwrap(), compiled)
    };
    assert_eq!(obtain(&made.cache), (vec![(1, object(1))], vec![0, 2, 3]));
    let (found, compiled) = obtain(&made.again());
    assert_eq!(found, [(0, object(0)), (1, object(1)), (2, object(2))]);
    // The next one who asks for what failed tries it.
    assert_eq!(compiled, [3]);
    let locks = fs::read_dir(made.folder().join("locks")).unwrap();
    assert_eq!(locks.count(), 0);
}

#[test]
fn the_oldest_use_leaves_first() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    let big = vec![7; 10_000];
    let cache = Cache::open(&folder, 35_000).unwrap();
    let now = SystemTime::now();
    for n in 0..3 {
        cache.put(&key(n), &big);
        let file = fs::File::options()
            .write(true)
            .open(folder.join("objects").join(key(n).digest()));
        let hours = 100 - 10 * n as u64;
        let used = now - Duration::from_secs(hours * 3600);
        file.unwrap().set_modified(used).unwrap();
    }
    // Of these three, the first is used again, so that the second is the oldest.
    assert!(cache.get(&key(0)).is_some());
    cache.obtain_all(&[key(3)], &|_, _| (), &mut |_, publish| publish(0, &big));
    let there: Vec<bool> = (0..4).map(|n| cache.get(&key(n)).is_some()).collect();
    assert_eq!(there, [true, false, true, true]);
    // What is larger than all that may be there is not kept.
    cache.put(&key(9), &vec![0; 40_000]);
    assert_eq!(cache.get(&key(9)), None);
}

#[test]
fn a_clock_that_jumps_makes_nothing_stay_or_leave_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    let cache = Cache::open(&folder, 25_000).unwrap();
    let big = vec![7; 10_000];
    let entry = |n| folder.join("objects").join(key(n).digest());
    let set = |n, time| {
        let file = fs::File::options().write(true).open(entry(n)).unwrap();
        file.set_modified(time).unwrap();
    };
    cache.put(&key(0), &big);
    cache.put(&key(1), &big);
    // Used in a hundred years, and long before there were computers.
    set(
        0,
        SystemTime::now() + Duration::from_secs(100 * 365 * 86400),
    );
    set(1, SystemTime::UNIX_EPOCH);
    assert!(cache.get(&key(0)).is_some());
    let used = fs::metadata(entry(0)).unwrap().modified().unwrap();
    assert!(used <= SystemTime::now());
    cache.obtain_all(&[key(2)], &|_, _| (), &mut |_, publish| publish(0, &big));
    let there: Vec<bool> = (0..3).map(|n| cache.get(&key(n)).is_some()).collect();
    assert_eq!(there, [true, false, true]);
}

#[test]
fn a_miss_is_explained_by_the_nearest_entry() {
    let made = made();
    let explain = |key: &Key| {
        let keys = std::slice::from_ref(key);
        made.cache.explain(keys).unwrap().remove(0)
    };
    assert_eq!(explain(&key(1)), Explanation::Empty);
    made.cache.put(&key(1), &object(1));
    made.cache.put(&key(2), &object(2));
    assert_eq!(explain(&key(1)), Explanation::Hit);
    let other = Key::new([
        ("entry", "kernel_2"),
        ("flags", "-O2\n-ffast-math\n"),
        ("language", "c"),
    ]);
    let Explanation::Differs(parts) = explain(&other) else {
        panic!("{:?}", explain(&other));
    };
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].part, "flags");
    assert_eq!(
        (&parts[0].here[..], &parts[0].there[..]),
        (&["-ffast-math".to_owned()][..], &["-c".to_owned()][..])
    );
}

#[test]
fn it_says_what_is_there_and_can_be_emptied() {
    let made = made();
    for n in 0..5 {
        made.cache.put(&key(n), &object(n));
    }
    let stats = made.cache.stats().unwrap();
    assert_eq!((stats.entries, stats.limit), (5, LIMIT));
    assert_eq!(stats.languages, [("c".to_owned(), 5)]);
    assert!(stats.bytes > 1000 && stats.oldest <= stats.newest);
    let cleared = made.cache.clear().unwrap();
    assert_eq!((cleared.entries, cleared.bytes), (5, stats.bytes));
    assert_eq!(made.cache.get(&key(1)), None);
    assert_eq!(made.cache.stats().unwrap().entries, 0);
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
