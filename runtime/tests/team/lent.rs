//! Threads that an embedder lends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;

use svod_runtime::pool::{Invitation, Pool, Team};

use crate::{alone, check, squares, wide};

/// What becomes of an invitation.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Accepted,
    Declined,
    /// Nobody looks at it.
    Kept,
    /// Each of these in turn.
    Any,
}

/// Threads that wait for invitations.
#[derive(Debug)]
struct Threads {
    threads: usize,
    answer: Answer,
    post: Mutex<Sender<Invitation>>,
    kept: Mutex<Vec<Invitation>>,
    invited: AtomicUsize,
}

impl Team for Threads {
    fn threads(&self) -> usize {
        self.threads
    }

    fn invite(&self, invitation: Invitation) {
        let n = self.invited.fetch_add(1, Ordering::Relaxed);
        let answer = match self.answer {
            Answer::Any => [Answer::Accepted, Answer::Declined, Answer::Kept][n % 3],
            answer => answer,
        };
        match answer {
            Answer::Accepted => self.post.lock().unwrap().send(invitation).unwrap(),
            Answer::Kept => self.kept.lock().unwrap().push(invitation),
            _ => drop(invitation),
        }
    }
}

/// A team, and its threads, which end with it.
fn lend(threads: usize, answer: Answer) -> (Arc<Threads>, Vec<JoinHandle<()>>) {
    let (post, letters) = channel();
    let letters: Arc<Mutex<Receiver<Invitation>>> = Arc::new(Mutex::new(letters));
    let next = |letters: &Mutex<Receiver<_>>| letters.lock().unwrap().recv().ok();
    let helpers = (1..threads).map(|_| {
        let letters = letters.clone();
        std::thread::spawn(move || {
            while let Some(invitation) = next(&letters) {
                invitation.accept();
            }
        })
    });
    let helpers = helpers.collect();
    let team = Threads {
        threads,
        answer,
        post: Mutex::new(post),
        kept: Mutex::default(),
        invited: AtomicUsize::new(0),
    };
    (Arc::new(team), helpers)
}

fn pool(team: &Arc<Threads>) -> Pool {
    Pool::builder().team(team.clone()).disturb(5).build()
}

#[test]
fn whether_invitations_are_accepted_declined_or_forgotten_a_run_comes_to_the_same() {
    let _alone = alone();
    for threads in [2, 4, 16] {
        for answer in [
            Answer::Accepted,
            Answer::Declined,
            Answer::Kept,
            Answer::Any,
        ] {
            let (team, helpers) = lend(threads, answer);
            let (executable, adds) = squares(&pool(&team));
            let mut instances = [(); 2].map(|()| executable.instance().unwrap());
            std::thread::scope(|scope| {
                for instance in &mut instances {
                    scope.spawn(|| (0..100).for_each(|_| check(instance, adds)));
                }
            });
            assert!(team.invited.load(Ordering::Relaxed) > 0, "{answer:?}");
            // To come when all is over is no mistake.
            for invitation in std::mem::take(&mut *team.kept.lock().unwrap()) {
                invitation.accept();
            }
            instances
                .iter_mut()
                .for_each(|instance| check(instance, adds));
            team.kept.lock().unwrap().clear();
            drop((instances, executable, team));
            helpers
                .into_iter()
                .for_each(|helper| helper.join().unwrap());
        }
    }
}

#[test]
fn a_run_has_all_threads_that_come() {
    let _alone = alone();
    for threads in [2, 4] {
        let (team, helpers) = lend(threads, Answer::Accepted);
        // Each op needs all the others to be on their way.
        let meeting = Arc::new(Barrier::new(threads));
        let executable = wide(threads, &pool(&team), move |_| {
            meeting.wait();
            Ok(1)
        });
        let mut instance = executable.instance().unwrap();
        (0..20).for_each(|_| check(&mut instance, threads as u64));
        drop((instance, executable, team));
        helpers
            .into_iter()
            .for_each(|helper| helper.join().unwrap());
    }
}

#[test]
fn no_more_are_invited_than_are_lent_and_not_there() {
    let _alone = alone();
    let (team, helpers) = lend(4, Answer::Kept);
    let (executable, adds) = squares(&pool(&team));
    let mut instance = executable.instance().unwrap();
    (0..100).for_each(|_| check(&mut instance, adds));
    assert_eq!(team.invited.load(Ordering::Relaxed), 3);
    team.kept.lock().unwrap().clear();
    check(&mut instance, adds);
    assert!(team.invited.load(Ordering::Relaxed) > 3);
    team.kept.lock().unwrap().clear();
    drop((instance, executable, team));
    helpers
        .into_iter()
        .for_each(|helper| helper.join().unwrap());
}
