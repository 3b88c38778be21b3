//! Who is run how often, and until when. What looks are told are made-up times.

use std::cell::RefCell;

use super::*;
use crate::bench::race;

#[test]
fn a_sample_has_as_many_runs_as_the_clock_needs() {
    let nanos = Duration::from_nanos;
    let more = |runs, took, enough| more_runs(runs, nanos(took), nanos(enough));
    assert_eq!(more(1, 19_999, 20_000), 2);
    assert_eq!(more(1, 4_000, 20_000), 5);
    assert_eq!(more(5, 350, 20_000), 40, "no more than eight times as many");
    assert_eq!(more(40, 2_800, 20_000), 286);
    assert_eq!(more(1, 0, 20_000), 8);
    assert_eq!(more(MAX_RUNS / 2, 1, u64::MAX), MAX_RUNS);
    // What lasts for long enough is run once.
    let mut slow = || {
        let start = Instant::now();
        while start.elapsed() < nanos(10_000) {}
        Ok(())
    };
    let mut field = Field::new(1, &Budget::rounds(1), None).unwrap();
    let mut alone: &mut [&mut dyn Candidate] = &mut [&mut slow];
    let runs = field.runs_in_a_row(&mut alone, nanos(10_000));
    assert_eq!(runs.unwrap(), 1);
}

/// Notes what is done with it.
struct Witness<'a>(char, &'a RefCell<String>);

impl Candidate for Witness<'_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.1.borrow_mut().push(self.0.to_ascii_uppercase());
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        self.1.borrow_mut().push(self.0);
        Ok(())
    }
}

/// A budget that no clock has a say in.
fn rounds(rounds: usize) -> Budget {
    Budget {
        warm_up: Duration::ZERO,
        sample: Duration::ZERO,
        ..Budget::rounds(rounds)
    }
}

#[test]
fn candidates_are_prepared_before_each_sample_and_take_turns() {
    let log = RefCell::new(String::new());
    let (mut a, mut b) = (Witness('a', &log), Witness('b', &log));
    let race = race(&mut [&mut a, &mut b], &rounds(3)).unwrap();
    // A round of warm-up, and three that count.
    assert_eq!(*log.borrow(), "AaBb AaBb BbAa BbAa".replace(' ', ""));
    assert_eq!(race.runs_in_a_sample(), 1);
    for i in 0..2 {
        assert_eq!(race.samples(i).len(), 3);
        assert!(race.samples(i).iter().all(|t| *t >= 0.0));
    }
}

#[test]
fn the_budget_says_how_many_rounds() {
    let run_for = |budget: &Budget| {
        let race = race(&mut [&mut || Ok(())], budget).unwrap();
        race.samples(0).len()
    };
    let no_time = Budget {
        time: Duration::ZERO,
        ..rounds(0)
    };
    let at_least = |min_rounds| Budget {
        min_rounds,
        max_rounds: 10_000,
        ..no_time
    };
    assert_eq!(run_for(&at_least(7)), 7);
    assert_eq!(run_for(&at_least(0)), 1);
    let all_time = Budget {
        time: Duration::MAX,
        max_rounds: 13,
        ..no_time
    };
    assert_eq!(run_for(&all_time), 13);
    assert!(race(&mut [], &rounds(3)).unwrap().samples(0).is_empty());
}

#[test]
fn a_failure_ends_the_race() {
    let mut runs = 0;
    let mut fails = || {
        runs += 1;
        if runs < 3 {
            Ok(())
        } else {
            Err(Error::run("it is broken"))
        }
    };
    let error = race(&mut [&mut fails], &rounds(10)).unwrap_err();
    assert!(error.to_string().contains("broken"));
    assert_eq!(runs, 3);
    let too_many = race(&mut [&mut || Ok(())], &rounds(usize::MAX)).unwrap_err();
    assert!(matches!(too_many, Error::OutOfMemory { .. }), "{too_many}");
}

/// A field of candidates whose times in each round are made up.
fn looked_at(times: &[f64], rounds: usize, budget: &Budget) -> (Field, Option<(usize, Ending)>) {
    let mut field = Field::new(times.len(), budget, None).unwrap();
    for round in 1..=rounds {
        for i in field.there.clone() {
            // A slow round for all, and a sample that is slower still.
            let busy = if round % 5 == 0 { 2.0 } else { 1.0 };
            let disturbed = if (round + i) % 7 == 0 { 1.3 } else { 1.0 };
            field.race.push(i, times[i] * busy * disturbed);
        }
        if let Some(ending) = field.look(round, round >= budget.min_rounds, budget) {
            return (field, Some((round, ending)));
        }
    }
    (field, None)
}

#[test]
fn who_is_clearly_slower_drops_out_after_a_few_rounds() {
    let budget = Budget {
        drop_out: true,
        ..rounds(200)
    };
    let (field, ending) = looked_at(&[10.0, 30.0, 10.0, 10.5, 100.0], 200, &budget);
    assert_eq!(ending, None);
    // The same, or as good as the same, stay.
    assert_eq!(field.there, [0, 2]);
    assert_eq!(field.race.samples(1).len(), 3);
    assert_eq!(field.race.samples(4).len(), 3);
    assert!((6..60).contains(&field.race.samples(3).len()));
    assert_eq!(field.race.samples(0).len(), 200);
    let dropped: Vec<_> = (0..5).map(|i| field.race.dropped_out(i)).collect();
    assert_eq!(dropped, [false, true, false, true, true]);
    assert!(matches!(field.race.fastest(), Some(0 | 2)));
    // Compared with them is what they took part in.
    assert_eq!(field.race.ratios(1, 0).median, 3.0);

    // Without being asked to, nobody goes.
    let (field, _) = looked_at(&[10.0, 100.0], 20, &rounds(20));
    assert_eq!(field.there, [0, 1]);
}

#[test]
fn who_is_alone_has_won_once_there_were_rounds_enough() {
    let budget = Budget {
        min_rounds: 12,
        drop_out: true,
        ..rounds(200)
    };
    let (field, ending) = looked_at(&[50.0, 10.0], 200, &budget);
    assert_eq!(ending, Some((12, Ending::Spent)));
    assert_eq!((field.there, field.race.samples(0).len()), (vec![1], 3));
    let (_, ending) = looked_at(&[50.0], 20, &budget);
    assert_eq!(ending, None, "nobody was there to win against");
}

#[test]
fn a_race_ends_when_its_intervals_are_as_narrow_as_asked_for() {
    let narrow = |precision| {
        let budget = Budget {
            min_rounds: 10,
            precision,
            ..rounds(500)
        };
        looked_at(&[10.0, 20.0], 500, &budget).1
    };
    let (soon, ending) = narrow(10.0).unwrap();
    assert_eq!((soon, ending), (10, Ending::Precise));
    let (later, ending) = narrow(0.1).unwrap();
    assert_eq!(ending, Ending::Precise);
    assert!(later > soon);
    assert_eq!(narrow(0.0), None);
}

/// As [`looked_at`], of one that may be cut off.
fn cut_off_at(limit: f64, times: &[f64]) -> Option<(usize, Ending)> {
    let mut field = Field::new(1, &rounds(100), Some(limit)).unwrap();
    let mut rounds = times.iter().enumerate();
    rounds.find_map(|(i, time)| {
        field.race.push(0, *time);
        let ending = field.look(i + 1, false, &super::super::Budget::rounds(100))?;
        Some((i + 1, ending))
    })
}

#[test]
fn what_is_slower_than_a_given_time_is_cut_off() {
    assert_eq!(cut_off_at(10.0, &[25.0; 20]), Some((3, Ending::Slower)));
    assert_eq!(cut_off_at(10.0, &[11.0; 20]), Some((6, Ending::Slower)));
    assert_eq!(cut_off_at(10.0, &[10.05; 100]), None);
    assert_eq!(cut_off_at(10.0, &[5.0; 100]), None);
    // Two disturbed samples at the start say nothing.
    let mut disturbed = [9.0; 100];
    disturbed[..2].fill(1000.0);
    assert_eq!(cut_off_at(10.0, &disturbed), None);
}

#[test]
fn one_that_runs_once_has_all_run_once() {
    struct Once(u32);
    impl Candidate for Once {
        fn run(&mut self) -> Result<(), Error> {
            self.0 += 1;
            Ok(())
        }

        fn runs_once(&self) -> bool {
            true
        }
    }
    let mut once = Once(0);
    let budget = Budget {
        warm_up: Duration::ZERO,
        runs: 40,
        ..Budget::rounds(5)
    };
    let together = race(&mut [&mut once, &mut || Ok(())], &budget).unwrap();
    assert_eq!((together.runs_in_a_sample(), once.0), (1, 6));
    // Otherwise as many as the budget says.
    let alone = race(&mut [&mut || Ok(())], &budget).unwrap();
    assert_eq!(alone.runs_in_a_sample(), 40);
}
