//! What it costs that two threads work together: a launch, a step from one launch to the
//! next, and a start after the threads went to sleep; beside rayon and OpenMP, with the same
//! kernels, in turns within one process.
//!
//! OpenMP's threads wait awake or asleep as the environment says when it is loaded, so that
//! each way has a process. Awake they keep a CPU busy for good. So before whoever else has a
//! turn they are ended, and before its own turn each starts or wakes its threads.

mod kernels;
mod openmp;

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rustix::time::{ClockId, clock_gettime};
use svod_runtime::Error;
use svod_runtime::bench::{Budget, Candidate, Race, race};
use svod_runtime::pool::Pool;

use kernels::{THREADS, Work};
use openmp::OpenMp;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Who takes turns.
struct Peers {
    pool: Pool,
    rayon: ThreadPool,
    openmp: Option<OpenMp>,
}

/// A way of running something, that gets ready for its turn.
struct Way<'a> {
    openmp: Option<&'a OpenMp>,
    /// Passes time after it has got ready, so that all threads sleep.
    idle: Duration,
    run: Box<dyn FnMut() -> Result<(), Error> + 'a>,
}

impl Candidate for Way<'_> {
    fn prepare(&mut self) -> Result<(), Error> {
        if let Some(openmp) = self.openmp {
            openmp.rest()?;
        }
        // Some, since a thread may be slow to wake up.
        for _ in 0..10 {
            self.run()?;
        }
        let start = Instant::now();
        while start.elapsed() < self.idle {
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        (self.run)()
    }
}

impl Peers {
    fn new() -> Fallible<Peers> {
        let openmp = OpenMp::new();
        if let Err(error) = &openmp {
            println!("without OpenMP: {error}");
        }
        Ok(Peers {
            pool: Pool::builder().threads(THREADS).build(),
            rayon: ThreadPoolBuilder::new().num_threads(THREADS).build()?,
            openmp: openmp.ok(),
        })
    }

    /// Has all run it in turns, ours as a plan, and prints a line for each: nanoseconds divided
    /// by `by`, and the ratio to ours.
    fn compare(&self, work: &Work, idle: Duration, by: f64) -> Fallible<()> {
        let [mut ours, mut alone] = [work.instance(Some(&self.pool))?, work.instance(None)?];
        self.race(
            work,
            (idle, by),
            Box::new(move || black_box(&mut ours).run(&[])),
            Box::new(move || black_box(&mut alone).run(&[])),
        )
    }

    /// The same of one launch, which has no plan.
    fn compare_launch(&self, work: &Work, idle: Duration, by: f64) -> Fallible<()> {
        let ours = Box::new(work.launch(&self.pool)?);
        let alone = Box::new(work.launch(&Pool::alone())?);
        self.race(work, (idle, by), ours, alone)
    }

    fn race<'a>(
        &'a self,
        work: &'a Work,
        (idle, by): (Duration, f64),
        ours: Box<dyn FnMut() -> Result<(), Error> + 'a>,
        alone: Box<dyn FnMut() -> Result<(), Error> + 'a>,
    ) -> Fallible<()> {
        let mut names = vec!["ours"];
        let mut ways = vec![self.way(idle, ours)];
        ways.push(self.way(
            idle,
            Box::new(|| {
                self.with_rayon(work);
                Ok(())
            }),
        ));
        names.push("rayon");
        if let Some(openmp) = &self.openmp {
            let run = || {
                match work.launches {
                    1 => openmp.launch(work),
                    _ => openmp.launches(work),
                }
                Ok(())
            };
            // Its own threads are the ones that are to be awake.
            ways.push(Way {
                openmp: None,
                idle,
                run: Box::new(run),
            });
            names.push("OpenMP");
        }
        ways.push(self.way(idle, alone));
        names.push("one thread");
        let race = {
            let mut candidates: Vec<_> = ways.iter_mut().map(|w| w as &mut dyn Candidate).collect();
            let sample = match idle.is_zero() {
                true => Duration::from_micros(200),
                false => Duration::ZERO,
            };
            let budget = Budget {
                sample,
                max_rounds: 2_000,
                ..Budget::default()
            };
            race(&mut candidates, &budget)?
        };
        for (i, name) in names.iter().enumerate() {
            print(name, &race, i, by);
        }
        Ok(())
    }

    fn way<'a>(
        &'a self,
        idle: Duration,
        run: Box<dyn FnMut() -> Result<(), Error> + 'a>,
    ) -> Way<'a> {
        Way {
            openmp: self.openmp.as_ref(),
            idle,
            run,
        }
    }

    /// Enters the pool once, from outside, for all launches.
    fn with_rayon(&self, work: &Work) {
        self.rayon.install(|| {
            for _ in 0..work.launches {
                (0..work.grid)
                    .into_par_iter()
                    .for_each(|index| work.call(index));
            }
        });
    }
}

fn print(name: &str, race: &Race, i: usize, by: f64) {
    let (time, ratio) = (race.times(i), race.ratios(i, 0));
    println!(
        "    {name:<12} {:>9.3} ({:.3} to {:.3})   {:>7.2} ({:.2} to {:.2})",
        time.median / by,
        time.lower / by,
        time.upper / by,
        ratio.median,
        ratio.lower,
        ratio.upper,
    );
}

/// Threads awake, or as awake as each keeps them from run to run.
fn awake(peers: &Peers) -> Fallible<()> {
    for grid in [2, 8] {
        println!("fork and join of a launch with grid {grid}, in µs");
        peers.compare(&Work::nothing(grid, 1), Duration::ZERO, 1e3)?;
    }
    println!("one of 1,000 launches with grid 2 that wait for each other, in µs");
    peers.compare(&Work::nothing(2, 1_000), Duration::ZERO, 1e6)?;
    for nanos in [5_000.0, 2_500.0] {
        let micros = nanos / 1e3;
        println!(
            "100 launches with grid 2 of {micros} µs each index, in µs; half of one thread is ideal"
        );
        peers.compare(&Work::spinning(nanos, 2, 100), Duration::ZERO, 1e3)?;
    }
    println!("one launch without a plan, grid 2, in µs");
    peers.compare_launch(&Work::nothing(2, 1), Duration::ZERO, 1e3)?;
    for micros in ALONE {
        println!("the same, of {micros} µs each index");
        peers.compare_launch(&Work::spinning(micros * 1e3, 2, 1), Duration::ZERO, 1e3)?;
    }
    Ok(())
}

/// Microseconds that an index of a launch takes which has no plan.
const ALONE: [f64; 4] = [0.2, 1.0, 5.0, 50.0];

/// Threads asleep.
fn asleep(peers: &Peers) -> Fallible<()> {
    let idle = Duration::from_millis(2);
    println!("the first launch with grid 2 after 2 ms of serial work, in µs");
    peers.compare(&Work::nothing(2, 1), idle, 1e3)?;
    println!("the same, of 200 µs each index");
    peers.compare(&Work::spinning(200_000.0, 2, 1), idle, 1e3)?;
    println!("one launch without a plan, grid 2, after 2 ms of serial work, in µs");
    peers.compare_launch(&Work::nothing(2, 1), idle, 1e3)?;
    for micros in ALONE {
        println!("the same, of {micros} µs each index");
        peers.compare_launch(&Work::spinning(micros * 1e3, 2, 1), idle, 1e3)?;
    }
    Ok(())
}

/// What the whole process has used of its CPUs. Of a thread that is running this may miss
/// what it used since the system last looked, some milliseconds.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[allow(clippy::cast_sign_loss)] // since the process began
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What is burnt when nothing runs. As the time is exact only while the other thread sleeps, it
/// is taken before a short run and a second after it, and with it what that thread had in the
/// run.
fn after() -> Fallible<()> {
    println!("CPU time of the second thread in a run of some 50 µs and the second after, in µs");
    let pool = Pool::builder().threads(THREADS).build();
    let mut instance = Work::nothing(2, 1_000).instance(Some(&pool))?;
    for round in 0..6 {
        let (before, start) = (cpu_time(), Instant::now());
        instance.run(&[])?;
        let run = start.elapsed();
        std::thread::sleep(Duration::from_secs(1));
        let burnt = (cpu_time() - before).saturating_sub(run);
        // The first starts the thread.
        if round > 0 {
            println!("    ours         {:>9.1}", burnt.as_secs_f64() * 1e6);
        }
    }
    Ok(())
}

fn main() -> Fallible<()> {
    // Cargo says `--bench` to every benchmark.
    let part = std::env::args().skip(1).find(|arg| arg != "--bench");
    match part.as_deref() {
        Some("active") => return awake(&Peers::new()?),
        Some("passive") => return asleep(&Peers::new()?),
        Some("after") => return after(),
        Some(part) => return Err(format!("no part `{part}`: active, passive, after").into()),
        None => println!("medians with their quartiles, and ratios to ours of each round\n"),
    }
    for (part, policy) in [
        ("active", "active"),
        ("passive", "passive"),
        ("after", "passive"),
    ] {
        let mut command = Command::new(std::env::current_exe()?);
        let status = command.arg(part).env("OMP_WAIT_POLICY", policy).status()?;
        if !status.success() {
            return Err(format!("{command:?} ended with {status}").into());
        }
    }
    Ok(())
}
