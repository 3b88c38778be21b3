//! What is said of made-up times.

use std::cell::Cell;
use std::time::Duration;

use super::*;

fn race_of(samples: Vec<Vec<f64>>) -> Race {
    Race::new(samples, 0.95)
}

#[test]
fn ratios_are_of_each_round_on_its_own() {
    // The machine is ten times slower in every second round; candidate 1 takes
    // twice as long in all of them, but for one in which it was disturbed.
    let race = race_of(vec![
        vec![1.0, 10.0, 1.0, 10.0, 1.0],
        vec![2.0, 20.0, 2.0, 20.0, 200.0],
    ]);
    let ratio = race.ratios(1, 0);
    assert_eq!((ratio.lower, ratio.median, ratio.upper), (2.0, 2.0, 2.0));
    assert_eq!(ratio.max, 200.0);
    assert_eq!(race.ratios(0, 0).median, 1.0);
    assert!(race.times(2).median.is_nan() && race.samples(2).is_empty());
}

/// A busy machine, made up: from round to round it is now faster, now slower, and each
/// sample has its own disturbance, which only ever adds.
fn busy(rounds: usize, seed: u64, slower: &[f64]) -> Race {
    let mut state = seed;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    let mut samples = vec![Vec::new(); slower.len()];
    let mut machine = 0.0;
    for _ in 0..rounds {
        machine = 0.98 * machine + random();
        for (samples, slower) in samples.iter_mut().zip(slower) {
            let disturbed = -0.02 * random().max(1e-9).ln();
            samples.push(1000.0 * slower * (1.0 + machine / 100.0) * (1.0 + disturbed));
        }
    }
    race_of(samples)
}

#[test]
fn two_that_are_the_same_are_not_told_apart() {
    let mut told = 0;
    for seed in 0..200 {
        match busy(400, seed, &[1.0, 1.0]).verdict(1, 0) {
            Verdict::Alike { within } => assert!(within < 0.02, "{within}"),
            Verdict::Open => panic!("400 rounds are enough"),
            _ => told += 1,
        }
    }
    // One in twenty at most; a few more by chance.
    assert!(told <= 15, "{told}");
}

#[test]
fn a_difference_is_told_that_the_machine_varies_more_than() {
    for seed in 0..50 {
        let race = busy(400, seed, &[1.0, 1.02, 0.5]);
        let Verdict::Slower { by } = race.verdict(1, 0) else {
            panic!("{:?}", race.verdict(1, 0));
        };
        assert!(by.low > 0.01 && by.high < 0.03, "{by:?}");
        assert!(matches!(race.verdict(0, 1), Verdict::Faster { .. }));
        assert!(matches!(race.verdict(2, 0), Verdict::Faster { by } if by.low > 0.45));
        assert_eq!(race.fastest(), Some(2));
        // What is more certain is wider.
        let interval = race.interval(0).unwrap();
        let surer = race.with_confidence(0.999).interval(0).unwrap();
        assert!(surer.low <= interval.low && interval.high <= surer.high);
        assert!(surer.width() > interval.width());
    }
}

#[test]
fn a_few_rounds_say_nothing() {
    let race = busy(5, 1, &[1.0, 3.0]);
    assert_eq!((race.interval(0), race.ratio_interval(1, 0)), (None, None));
    assert_eq!(race.verdict(1, 0), Verdict::Open);
    // Rounds in which the clock saw nothing, neither.
    let race = race_of(vec![vec![0.0; 10], vec![0.0; 10]]);
    assert_eq!(race.verdict(1, 0), Verdict::Open);
    assert_eq!(race.verdict(7, 0), Verdict::Open);
}

#[test]
fn where_memory_lies_is_told_from_what_code_does() {
    // In each of nine parts both have their luck, far more than what varies within one.
    let luck = [0.97, 1.02, 1.0, 0.99, 1.03, 1.01, 0.98, 1.0, 1.02];
    let mut whole: Option<Race> = None;
    for (part, luck) in luck.into_iter().enumerate() {
        let race = busy(100, part as u64, &[1.0, luck]);
        match &mut whole {
            None => whole = Some(race),
            Some(whole) => whole.join(race).unwrap(),
        }
    }
    let whole = whole.unwrap();
    assert_eq!((whole.sets(), whole.rounds()), (9, 900));
    assert!(matches!(whole.verdict(1, 0), Verdict::Alike { within } if within >= 0.02));
    // One of them alone would be sure of what it saw.
    let first = busy(100, 0, &[1.0, 0.97]);
    assert!(matches!(first.verdict(1, 0), Verdict::Faster { .. }));
}

/// Notes the order in which candidates run.
struct Noted<'a>(usize, &'a Cell<Vec<usize>>);

impl Candidate for Noted<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let mut log = self.1.take();
        log.push(self.0);
        self.1.set(log);
        Ok(())
    }
}

#[test]
fn sets_share_the_budget_and_the_order_goes_on() {
    let budget = Budget {
        warm_up: Duration::ZERO,
        sample: Duration::ZERO,
        ..Budget::rounds(5)
    };
    let (log, made) = (Cell::new(Vec::new()), Cell::new(0));
    let race = race_sets(3, &budget, || {
        made.set(made.get() + 1);
        Ok::<_, Error>(vec![Noted(0, &log), Noted(1, &log)])
    });
    let race = race.unwrap();
    assert_eq!((made.get(), race.rounds(), race.sets()), (3, 5, 3));
    // A round of warm-up in each set, and then two, two and one.
    let rounds = [
        [0, 1],
        [0, 1],
        [1, 0],
        [0, 1],
        [1, 0],
        [0, 1],
        [0, 1],
        [0, 1],
    ];
    assert_eq!(log.take(), rounds.as_flattened());

    let mut count = 2;
    let other = race_sets(2, &budget, || {
        count -= 1;
        Ok::<_, Error>((0..count).map(|i| Noted(i, &log)).collect())
    });
    let error = other.unwrap_err().to_string();
    assert!(error.contains("1 candidates goes on with 0"), "{error}");
    let failed = race_sets(2, &budget, || {
        Err::<Vec<Noted<'_>>, _>(Error::run("no memory"))
    });
    assert!(failed.unwrap_err().to_string().contains("no memory"));
}
