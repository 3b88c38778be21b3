//! Processes that are forked while a team is there.
//!
//! The child of a process with several threads has only the one that forked, and whatever
//! lock another held stays locked. POSIX lets it call what a signal handler may; glibc sees
//! to it that the child can allocate and start threads as well, which is all that a run
//! needs. The children here print nothing, and say what they found by their exit code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use svod_runtime::Error;
use svod_runtime::plan::Instance;
use svod_runtime::pool::Pool;

use crate::{alone, check, pool, squares, sum, wide};

unsafe extern "C" {
    safe fn fork() -> i32;
    safe fn _exit(code: i32) -> !;
    safe fn alarm(seconds: u32) -> u32;
    fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
}

/// What a child says in which all is well, and one in which a test fails.
const WELL: i32 = 10;
const FAILED: i32 = 11;

/// Ends the child, which was told to be a child, with what `test` finds.
fn end_child(test: impl FnOnce()) -> ! {
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(test));
    _exit(if outcome.is_ok() { WELL } else { FAILED })
}

/// Forks. A child that hangs is ended after a while, and with it the test.
fn fork_now() -> i32 {
    let child = fork();
    assert!(child >= 0, "cannot fork");
    if child == 0 {
        alarm(20);
    }
    child
}

/// That a child found all well.
#[track_caller]
fn wait_for(child: i32) {
    let mut status = 0;
    // SAFETY: it writes one `int`, which lives until it returns.
    assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, WELL << 8, "the child's wait status");
}

#[test]
fn a_child_has_a_team_of_its_own() {
    let _alone = alone();
    for threads in [2, 4, 16] {
        let (executable, adds) = squares(&pool(threads));
        let mut instance = executable.instance().unwrap();
        check(&mut instance, adds);
        let child = fork_now();
        if child == 0 {
            end_child(|| {
                check(&mut instance, adds);
                check(&mut executable.instance().unwrap(), adds);
                let grandchild = fork_now();
                if grandchild == 0 {
                    end_child(|| check(&mut instance, adds));
                }
                check(&mut instance, adds);
                wait_for(grandchild);
                drop((instance, executable));
            });
        }
        check(&mut instance, adds);
        wait_for(child);
        check(&mut instance, adds);
    }
}

#[test]
fn a_child_that_uses_no_team_drops_the_one_of_its_parent() {
    let _alone = alone();
    let (executable, adds) = squares(&pool(4));
    let mut instance = executable.instance().unwrap();
    check(&mut instance, adds);
    let child = fork_now();
    if child == 0 {
        end_child(|| drop((instance, executable)));
    }
    wait_for(child);
    check(&mut instance, adds);
}

/// Forks in the thread that runs an instance, once.
struct Forking {
    leader: ThreadId,
    done: AtomicBool,
    /// In the parent the child, in the child 0.
    child: AtomicI32,
}

impl Forking {
    fn here() -> Arc<Forking> {
        Arc::new(Forking {
            leader: std::thread::current().id(),
            done: AtomicBool::new(false),
            child: AtomicI32::new(-1),
        })
    }

    fn is_leader(&self) -> bool {
        std::thread::current().id() == self.leader
    }

    fn fork_once(&self) {
        if self.is_leader() && !self.done.swap(true, Ordering::SeqCst) {
            self.child.store(fork_now(), Ordering::SeqCst);
        }
    }

    /// Runs an instance that forks in the middle. In the child, what `check_child` is given
    /// is how the run ended; then it is run again.
    fn run(&self, instance: &mut Instance, adds: u64, check_child: impl FnOnce(&Instance, bool)) {
        let before = sum(instance);
        let result = instance.run(&[]);
        let child = self.child.load(Ordering::SeqCst);
        if child == 0 {
            end_child(|| {
                match &result {
                    Ok(()) => assert_eq!(sum(instance), before + adds),
                    Err(Error::Forked) => assert!(instance.is_torn()),
                    Err(_) => panic!(),
                }
                check_child(instance, result.is_ok());
                instance.reset();
                check(instance, adds);
                check(instance, adds);
            });
        }
        result.unwrap();
        assert_eq!(sum(instance), before + adds);
        wait_for(child);
    }
}

#[test]
fn a_run_that_is_forked_in_the_middle_is_torn_in_the_child_where_others_had_a_part_of_it() {
    let _alone = alone();
    for threads in [2, 4] {
        let forking = Forking::here();
        let (in_it, is_helped) = (forking.clone(), Arc::new(AtomicBool::new(false)));
        let executable = wide(threads, &pool(threads), move |_| {
            if in_it.is_leader() {
                while !is_helped.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                in_it.fork_once();
            } else {
                is_helped.store(true, Ordering::SeqCst);
                // In the parent, as in the child there is no such thread.
                while in_it.child.load(Ordering::SeqCst) < 0 {
                    std::thread::yield_now();
                }
            }
            Ok(1)
        });
        let mut instance = executable.instance().unwrap();
        forking.run(&mut instance, threads as u64, |_, is_ok| assert!(!is_ok));
        check(&mut instance, threads as u64);
    }
}

#[test]
fn a_run_that_is_forked_anywhere_ends_in_both_processes() {
    let _alone = alone();
    for threads in [2, 4] {
        for seed in 0..40 {
            let pool = Pool::builder().threads(threads).disturb(seed).build();
            let (warm, adds) = squares(&pool);
            check(&mut warm.instance().unwrap(), adds);
            let forking = Forking::here();
            let in_it = forking.clone();
            let executable = wide(8, &pool, move |i| {
                in_it.fork_once();
                Ok(i as u64)
            });
            let mut instance = executable.instance().unwrap();
            forking.run(&mut instance, 28, |_, _| {});
        }
    }
}

#[test]
fn an_instance_that_was_running_on_another_thread_is_torn_in_the_child() {
    let _alone = alone();
    let pool = pool(2);
    let (began, has_begun) = channel();
    let (go_on, may_go_on) = channel();
    let (began, may_go_on) = (Mutex::new(began), Mutex::new(may_go_on));
    let executable = wide(2, &pool, move |i| {
        if i == 0 {
            began.lock().map_err(|_| "poisoned")?.send(())?;
            may_go_on.lock().map_err(|_| "poisoned")?.recv()?;
        }
        Ok(1)
    });
    let (beside, adds) = squares(&pool);
    let mut instance = executable.instance().unwrap();
    let shared = AtomicPtr::new(&raw mut instance);
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| {
            // SAFETY: until it has run, no other thread of this process uses it.
            unsafe { &mut *shared.load(Ordering::SeqCst) }.run(&[])
        });
        has_begun.recv().unwrap();
        let child = fork_now();
        if child == 0 {
            end_child(|| {
                // SAFETY: the thread that runs it is not in this process.
                let instance = unsafe { &mut *shared.load(Ordering::SeqCst) };
                assert!(instance.is_torn());
                assert!(matches!(instance.run(&[]), Err(Error::Torn)));
                check(&mut beside.instance().unwrap(), adds);
            });
        }
        wait_for(child);
        go_on.send(()).unwrap();
        runs.join().unwrap().unwrap();
    });
    assert!(!instance.is_torn());
    assert_eq!(sum(&instance), 2);
}
