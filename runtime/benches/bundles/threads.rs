//! Each bundle on several threads, with the schedule that was learned: beside one thread,
//! beside the C program with the grid of each op split evenly and a barrier after each op, at
//! which its threads wait awake, and beside the bound that follows from what the ops cost.
//!
//! Each set of memory learns a schedule of its own. As the C program's threads wait awake
//! between runs as well, they are ended before the others have a turn.

use std::cell::RefCell;
use std::path::Path;

use svod_runtime::bench::{Budget, Candidate, Replay, Spread, race};
use svod_runtime::bundle::Bundle;
use svod_runtime::plan::Scheduling;
use svod_runtime::pool::Pool;
use svod_runtime::{Error, Runtime};

use crate::program::{Code, Program};
use crate::{Fallible, PLACES, compare};

/// More runs than learning takes.
const LEARNING_RUNS: usize = 1_000;

/// A candidate in whose turn the C program's threads rest.
struct Undisturbed<'a, 'b>(&'a mut Replay<'b>, &'a RefCell<Program<'b>>);

impl Candidate for Undisturbed<'_, '_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.1.borrow_mut().rest();
        self.0.prepare()
    }

    fn run(&mut self) -> Result<(), Error> {
        self.0.run()
    }
}

/// The C program, while others can have it rest.
struct Shared<'a, 'b>(&'a RefCell<Program<'b>>);

impl Candidate for Shared<'_, '_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.0.borrow_mut().prepare()
    }

    fn run(&mut self) -> Result<(), Error> {
        self.0.borrow_mut().run()
    }
}

pub(crate) fn print_head(threads: usize) {
    println!(
        "each bundle's first test on {threads} threads, in µs a run; ratios of each round, with\n\
         those of {PLACES} sets of memory and schedules from least to most\n"
    );
    println!(
        "bundle       one thread   threads         C     bound   \
         ÷ one thread           ÷ C                    ÷ bound                phases"
    );
}

/// Measures a bundle on the runtime's threads.
pub(crate) fn measure(path: &str, runtime: &Runtime, budget: &Budget) -> Fallible<()> {
    let bundle = Bundle::open(path)?;
    // SAFETY: whoever names a bundle to this program trusts it as a program.
    let executable = unsafe { bundle.load(runtime, &|_| {})? };
    let alone = executable.clone().with_pool(Pool::alone());
    let code = Code::new(&bundle, runtime, executable.pool().threads())?;
    let (mut times, mut ratios) = ([const { Vec::new() }; 4], [const { Vec::new() }; 3]);
    let (mut of_places, mut phases) = ([const { Vec::new() }; 3], Vec::new());
    for _ in 0..PLACES {
        let executable = executable.clone().with_scheduling(Scheduling::Learned);
        let (mut one, mut team) = (Replay::new(&alone)?, Replay::new(&executable)?);
        if !bundle.tests().is_empty() {
            one.set_test(&bundle, 0)?;
            team.set_test(&bundle, 0)?;
        }
        for _ in 0..LEARNING_RUNS {
            if executable.learned().is_some() {
                break;
            }
            team.prepare()?;
            team.run()?;
        }
        let learned = executable.learned().ok_or("no schedule was learned")?;
        let mut program = Program::new(&code, &bundle)?.on_threads();
        compare(&mut one, &mut program)?;
        compare(&mut team, &mut program)?;
        let program = RefCell::new(program);
        let race = race(
            &mut [
                &mut Undisturbed(&mut one, &program),
                &mut Undisturbed(&mut team, &program),
                &mut Shared(&program),
            ],
            budget,
        )?;
        program.borrow_mut().rest();
        for (i, times) in times.iter_mut().take(3).enumerate() {
            times.extend_from_slice(race.samples(i));
        }
        times[3].push(learned.bound_nanos);
        let to_bound = race.samples(1).iter().map(|ns| ns / learned.bound_nanos);
        let to_bound: Vec<_> = to_bound.collect();
        for (i, other) in [0, 2].into_iter().enumerate() {
            let rounds = race.samples(1).iter().zip(race.samples(other));
            ratios[i].extend(rounds.map(|(ours, other)| ours / other));
            of_places[i].push(race.ratios(1, other).median);
        }
        of_places[2].push(Spread::of(&to_bound).median);
        ratios[2].extend(to_bound);
        phases.push(learned.schedule.phases.len());
    }
    let name = Path::new(path).file_stem().unwrap_or_default();
    print!("{:<12}", name.to_string_lossy());
    for times in &times {
        print!(" {:>9.1}", Spread::of(times).median / 1e3);
    }
    for (ratios, of_places) in ratios.iter().zip(&of_places) {
        let (ratios, of_places) = (Spread::of(ratios), Spread::of(of_places));
        let (least, most) = (of_places.min, of_places.max);
        print!("   {:>6.3} ({least:.3} to {most:.3})", ratios.median);
    }
    println!("   {phases:?}");
    Ok(())
}
