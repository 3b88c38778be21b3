//! No space left, and folders that cannot be written: what is there is served, all else is
//! compiled, and one warning says so. A child is this program again.

use std::fmt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Many more than fit.
const KEYS: usize = 200;

fn large(n: usize) -> Vec<u8> {
    object(n).repeat(40)
}

/// Asks for all objects, and says how many were there, were compiled, and were warned of.
pub(super) fn ask(cache: &Cache) {
    let warnings: &'static Warnings = Box::leak(Box::default());
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let found = std::cell::Cell::new(0);
    let mut compiled = 0;
    tracing::subscriber::with_default(warnings, || {
        let check = |i, bytes| {
            assert_eq!(bytes, large(i));
            found.set(found.get() + 1);
        };
        cache.obtain_all(&keys, &check, &mut |numbers, publish| {
            for &i in numbers {
                publish(i, &large(i));
                compiled += 1;
            }
        });
    });
    let text = warnings.text.lock().unwrap();
    let count = warnings.count.load(Ordering::Relaxed);
    println!(
        "{} found, {compiled} compiled, {count} warned: {text}",
        found.get()
    );
}

/// Counts warnings, and keeps what they say.
#[derive(Default)]
struct Warnings {
    count: AtomicUsize,
    text: Mutex<String>,
}

impl tracing::Subscriber for &'static Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        event.record(&mut Message(&mut self.text.lock().unwrap()));
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Message<'a>(&'a mut String);

impl tracing::field::Visit for Message<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 += &format!("{value:?}");
        }
    }
}

/// A child that is started by a shell, after what the shell does first.
fn after(first: &str, task: &str, folder: &std::path::Path, with: &[&str]) -> Output {
    let child = processes::child(task, folder);
    let [shell, before @ ..] = with else {
        panic!("no shell");
    };
    let mut command = Command::new(shell);
    command
        .args(before)
        .args(["-c", &format!("{first} && exec \"$@\""), "sh"])
        .arg(child.get_program())
        .args(child.get_args())
        .env("ROOM", folder);
    for (name, value) in child.get_envs() {
        command.env(name, value.unwrap());
    }
    command.output().unwrap()
}

/// What a child has said: found, compiled, warned, and of what.
fn said(output: &Output) -> (usize, usize, usize, String) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let line = text
        .lines()
        .find(|line| line.contains(" warned: "))
        .unwrap();
    let (counts, warning) = line.split_once(" warned: ").unwrap();
    let counts: Vec<usize> = counts
        .split(", ")
        // The harness may have begun the line.
        .map(|c| {
            c.split_whitespace()
                .rev()
                .find_map(|w| w.parse().ok())
                .unwrap()
        })
        .collect();
    (counts[0], counts[1], counts[2], warning.to_owned())
}

#[test]
fn where_files_may_not_grow_all_is_compiled_and_one_warning_says_so() {
    let made = made();
    made.cache.put(&key(7), &large(7));
    let output = after("trap '' XFSZ", "short", made.dir.path(), &["sh"]);
    let (found, compiled, warned, warning) = said(&output);
    assert_eq!((found, compiled, warned), (1, KEYS - 1, 1), "{warning}");
    assert!(warning.contains("File too large"), "{warning}");
    assert!(
        warning.contains(made.folder().to_str().unwrap()),
        "{warning}"
    );
    nothing_is_left(&made);
}

#[test]
fn on_a_full_disk_all_is_compiled_and_one_warning_says_so() {
    // A disk of its own, that nobody else sees.
    let room = "mount -t tmpfs -o size=600k,mode=700 none \"$ROOM\"";
    let private = ["unshare", "-m", "--propagation", "private", "sh"];
    let made = made();
    let may = Command::new(private[0])
        .args(&private[1..])
        .args(["-c", room])
        .env("ROOM", made.dir.path())
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user cannot mount");
        return;
    }
    let (found, compiled, warned, warning) = said(&after(room, "full", made.dir.path(), &private));
    assert_eq!((found, compiled, warned), (0, KEYS, 1), "{warning}");
    assert!(warning.contains("No space left"), "{warning}");

    // On a disk that is only read there may be something.
    made.cache.put(&key(7), &large(7));
    let room = "mount --bind \"$ROOM\" \"$ROOM\" && mount -o remount,bind,ro \"$ROOM\"";
    let (found, compiled, warned, warning) = said(&after(room, "full", made.dir.path(), &private));
    assert_eq!((found, compiled, warned), (1, KEYS - 1, 1), "{warning}");
    assert!(warning.contains("Read-only"), "{warning}");
    nothing_is_left(&made);
}

/// No lock, and nothing that is half written.
fn nothing_is_left(made: &Made) {
    let verified = made.cache.verify().unwrap();
    assert_eq!((verified.good, verified.removed.len()), (1, 0));
    let count = |folder: &str| fs::read_dir(made.folder().join(folder)).unwrap().count();
    assert_eq!((count("objects"), count("locks")), (1, 0));
}
