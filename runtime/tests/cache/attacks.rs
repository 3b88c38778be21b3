//! What is damaged, or not the user's own, is not used.

use std::os::unix::fs::{chown, symlink};

use super::*;

#[test]
fn no_byte_of_an_entry_changes_unseen() {
    let made = made();
    made.cache.put(&key(1), &object(1));
    let path = made.entry(&key(1));
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, bad).unwrap();
        assert_eq!(made.cache.get(&key(1)), None, "byte {at}");
        assert!(!path.exists(), "what is damaged is removed");
    }
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert_eq!(made.cache.get(&key(1)), None, "cut at {length}");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(made.cache.get(&key(1)), Some(object(1)));
}

#[test]
fn an_entry_under_another_name_is_not_served() {
    let made = made();
    made.cache.put(&key(1), &object(1));
    fs::copy(made.entry(&key(1)), made.entry(&key(2))).unwrap();
    assert_eq!(made.cache.get(&key(2)), None);
    assert_eq!(made.cache.get(&key(1)), Some(object(1)));
}

#[test]
fn verify_finds_what_is_damaged_and_keeps_the_rest() {
    let made = made();
    for n in 0..4 {
        made.cache.put(&key(n), &object(n));
    }
    let path = made.entry(&key(2));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::write(made.folder().join("objects/junk"), "no entry").unwrap();
    let verified = made.cache.verify().unwrap();
    assert_eq!(verified.good, 3);
    assert_eq!(verified.removed.len(), 2, "{verified:?}");
    let again = made.cache.verify().unwrap();
    assert_eq!((again.good, again.removed.len()), (3, 0));
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    for (folder, mode) in [("cache", 0o770), ("cache", 0o702), ("cache/objects", 0o777)] {
        let made = made();
        set_mode(&made.dir.path().join(folder), mode);
        let error = Cache::open(made.folder(), LIMIT).unwrap_err().to_string();
        assert!(error.contains("written by others"), "{error}");
        assert!(error.contains("SVOD_CACHE_DIR"), "{error}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(Cache::open(file.path(), LIMIT).is_err());
}

#[test]
fn nothing_of_another_user_is_used() {
    let made = made();
    made.cache.put(&key(1), &object(1));
    let path = made.entry(&key(1));
    if chown(&path, Some(65534), None).is_err() {
        eprintln!("skipped: this user cannot give files away");
        return;
    }
    assert_eq!(made.cache.get(&key(1)), None);
    chown(made.folder(), Some(65534), None).unwrap();
    let error = Cache::open(made.folder(), LIMIT).unwrap_err().to_string();
    assert!(error.contains("belongs to the user 65534"), "{error}");
}

#[test]
fn an_entry_that_others_may_write_or_that_is_a_link_is_not_used() {
    let made = made();
    made.cache.put(&key(1), &object(1));
    let path = made.entry(&key(1));
    set_mode(&path, 0o666);
    assert_eq!(made.cache.get(&key(1)), None);

    made.cache.put(&key(1), &object(1));
    let elsewhere = made.dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert_eq!(made.cache.get(&key(1)), None);
    assert!(elsewhere.exists());

    // Nor does one wait for whoever writes into a pipe.
    let status = std::process::Command::new("mkfifo").arg(&path).status();
    if status.is_ok_and(|s| s.success()) {
        assert_eq!(made.cache.get(&key(1)), None);
    }
}

#[test]
fn where_nothing_can_be_written_what_is_there_is_read_and_all_else_is_compiled() {
    let made = made();
    made.cache.put(&key(1), &object(1));
    // A file in the place of a folder stops even those who may do all.
    let objects = made.folder().join("objects");
    let aside = made.folder().join("aside");
    fs::rename(&objects, &aside).unwrap();
    fs::write(&objects, "").unwrap();
    let cache = &made.cache;
    let mut compiled = Vec::new();
    cache.obtain_all(&[key(1), key(2)], &|_, _| (), &mut |numbers, publish| {
        for &i in numbers {
            publish(i, &object(i));
            compiled.push(i);
        }
    });
    compiled.sort_unstable();
    assert_eq!(compiled, [0, 1]);
    fs::remove_file(&objects).unwrap();
    fs::rename(&aside, &objects).unwrap();
    // This one only reads from now on.
    assert_eq!(cache.get(&key(1)), Some(object(1)));
    cache.put(&key(3), &object(3));
    assert_eq!(cache.get(&key(3)), None);
}
