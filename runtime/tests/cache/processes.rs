//! Many processes, and processes that die. A child is this program again.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::*;

/// What a child is to do, and where.
const TASK: &str = "SVOD_TEST_CACHE_TASK";
const FOLDER: &str = "SVOD_TEST_CACHE_FOLDER";

const KEYS: usize = 50;

pub(super) fn child(task: &str, folder: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "processes::a_child",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(TASK, task)
        .env(FOLDER, folder)
        .stdout(Stdio::piped());
    command
}

/// Does nothing unless it is told to.
#[test]
fn a_child() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let cache = Cache::open(folder.join("cache"), LIMIT).unwrap();
    match task.as_str() {
        "all" => {
            let found = std::cell::Cell::new(0);
            let mut compiled = 0;
            let keys: Vec<Key> = (0..KEYS).map(key).collect();
            let check = |i, bytes| {
                assert_eq!(bytes, object(i));
                found.set(found.get() + 1);
            };
            cache.obtain_all(&keys, &check, &mut |numbers, publish| {
                let mut log = fs::File::options()
                    .append(true)
                    .create(true)
                    .open(folder.join("log"))
                    .unwrap();
                for &i in numbers {
                    log.write_all(format!("{i}\n").as_bytes()).unwrap();
                    publish(i, &object(i));
                    compiled += 1;
                }
            });
            assert_eq!(found.get() + compiled, KEYS);
        }
        // Looks with no file left that it may open.
        "starved" => {
            let limit = rustix::process::Rlimit {
                current: Some(64),
                maximum: Some(64),
            };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            let mut open = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                open.push(file);
            }
            assert_eq!(cache.get(&key(1)), None);
            cache.put(&key(2), &object(2));
            drop(open);
            assert_eq!(cache.get(&key(1)), Some(object(1)));
            cache.put(&key(2), &object(2));
            assert_eq!(cache.get(&key(2)), Some(object(2)));
        }
        // Asks for all where not all can be written.
        "full" => full::ask(&cache),
        // The same, where no file may be larger than this.
        "short" => {
            let limit = rustix::process::Rlimit {
                current: Some(4096),
                maximum: Some(4096),
            };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
            full::ask(&cache);
        }
        // Writes until it is killed.
        "write" => loop {
            for n in 0..KEYS {
                cache.put(&key(n), &object(n).repeat(500));
            }
        },
        // Takes all locks, says so, and compiles for ever.
        "hang" => {
            let keys: Vec<Key> = (0..KEYS).map(key).collect();
            cache.obtain_all(&keys, &|_, _| (), &mut |numbers, publish| {
                publish(numbers[0], &object(numbers[0]));
                println!("begun");
                loop {
                    std::thread::park();
                }
            });
        }
        other => panic!("{other}"),
    }
}

/// Waits until a child says that it has begun.
fn wait_for_begin(child: &mut Child) {
    use std::io::{BufRead, BufReader};

    let out = child.stdout.as_mut().unwrap();
    let begun = BufReader::new(out)
        .lines()
        .any(|line| line.is_ok_and(|line| line.contains("begun")));
    assert!(begun);
}

#[test]
fn of_32_processes_that_ask_at_once_one_compiles() {
    let made = made();
    let children: Vec<Child> = (0..32)
        .map(|_| child("all", made.dir.path()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let log = fs::read_to_string(made.dir.path().join("log")).unwrap();
    let mut compiled: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    compiled.sort_unstable();
    assert_eq!(compiled, (0..KEYS).collect::<Vec<_>>());
    assert_eq!(
        fs::read_dir(made.folder().join("locks")).unwrap().count(),
        0
    );
}

fn made_long_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(2 * 3600)
}

#[test]
fn who_is_killed_while_it_writes_spoils_nothing() {
    let made = made();
    let half_written = || {
        let names = fs::read_dir(made.folder().join("objects")).unwrap();
        let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.starts_with('.')).count()
    };
    for _ in 0..100 {
        let left = half_written();
        let mut child = child("write", made.dir.path()).spawn().unwrap();
        while half_written() == left {
            assert_eq!(child.try_wait().unwrap(), None);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Some of them were in the middle of it.
    assert!(half_written() > 0);
    let verified = made.cache.verify().unwrap();
    assert_eq!(verified.removed, []);
    for n in 0..KEYS {
        if let Some(bytes) = made.cache.get(&key(n)) {
            assert_eq!(bytes, object(n).repeat(500));
        }
    }
    // What was left half written goes with the next that is written; what is still empty when
    // it is an hour old, or of a time that is to come.
    let stamps = [
        made_long_ago(),
        SystemTime::now() + Duration::from_secs(1 << 20),
    ];
    for (n, left) in fs::read_dir(made.folder().join("objects"))
        .unwrap()
        .enumerate()
    {
        let file = fs::File::open(left.unwrap().path()).unwrap();
        if file.metadata().unwrap().len() == 0 {
            file.set_modified(stamps[n % 2]).unwrap();
        }
    }
    made.cache
        .obtain_all(&[key(99)], &|_, _| (), &mut |_, publish| publish(0, b"new"));
    assert_eq!(half_written(), 0);
}

#[test]
fn who_waits_takes_over_from_who_dies() {
    let made = made();
    let mut hanging = child("hang", made.dir.path()).spawn().unwrap();
    wait_for_begin(&mut hanging);
    let mut waiting = child("all", made.dir.path()).spawn().unwrap();
    // Whether it waits by now or asks later, it is not to compile what is being compiled.
    assert_eq!(waiting.try_wait().unwrap(), None);
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    assert!(waiting.wait_with_output().unwrap().status.success());
    let log = fs::read_to_string(made.dir.path().join("log")).unwrap();
    // One was published before.
    assert_eq!(log.lines().count(), KEYS - 1);
}

#[test]
fn who_may_open_no_more_files_removes_nothing_and_writes_again_later() {
    let made = made();
    made.cache.put(&key(1), &object(1));
    let output = child("starved", made.dir.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_others_remove_stops_nobody_from_writing() {
    let made = made();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = made.again();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                other.clear().unwrap();
            }
        });
        for n in 0..2000 {
            made.cache.put(&key(n), &object(n));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    made.cache.put(&key(1), &object(1));
    assert_eq!(made.cache.get(&key(1)), Some(object(1)));
}

#[test]
fn who_tidies_up_removes_nothing_that_is_being_written() {
    let made = made();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = made.again();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // Nothing comes of it but that it tidies up.
                other.obtain_all(&[key(100_000)], &|_, _| (), &mut |_, _| ());
            }
        });
        for n in 0..2000 {
            made.cache.put(&key(n), &object(n));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    made.cache.put(&key(1), &object(1));
    assert_eq!(made.cache.get(&key(1)), Some(object(1)));
}

#[test]
fn a_lock_of_who_was_killed_is_not_left_behind() {
    let made = made();
    let left = made.folder().join("locks").join(key(1).digest());
    fs::write(&left, "").unwrap();
    let compile = |numbers: &[usize], publish: &dyn Fn(usize, &[u8])| {
        // That of who compiles is there meanwhile.
        made.again()
            .obtain_all(&[key(3)], &|_, _| (), &mut |_, _| ());
        let own = made.folder().join("locks").join(key(2).digest());
        assert!(own.exists());
        numbers.iter().for_each(|&i| publish(i, &object(i)));
    };
    made.cache
        .obtain_all(&[key(2)], &|_, _| (), &mut |numbers, publish| {
            compile(numbers, &publish);
        });
    assert!(!left.exists());
}
