//! Input from anyone: objects, bundles and signatures that are damaged in many ways end in
//! an error or in success, without a crash, and without taking memory or time to no end.
//! `cargo xtask asan` runs this under AddressSanitizer, and `cargo xtask fuzz` goes on where
//! it stops.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod drive;
mod mutate;
mod seeds;
#[path = "../support/mod.rs"]
mod support;

use common::Rng;
use svod_runtime::compile::cache::Cache;

/// So many, where nothing else is asked for.
fn rounds() -> usize {
    10_000 / common::share()
}

#[test]
fn ten_thousand_damaged_objects_do_no_harm() {
    let seeds = seeds::objects();
    assert!(seeds.len() >= 10);
    seeds.iter().for_each(|seed| drive::object(seed));
    let mut rng = Rng(1);
    for round in 0..rounds() {
        drive::object(&mutate::bytes(&mut rng, &seeds[round % seeds.len()]));
    }
}

#[test]
fn ten_thousand_damaged_bundles_do_no_harm() {
    let seeds = seeds::bundles();
    let dir = drive::folder();
    seeds
        .iter()
        .for_each(|seed| drive::bundle(dir.path(), &seed.bytes()));
    let mut rng = Rng(2);
    for round in 0..rounds() {
        // The small one is the one in which damage matters most.
        let seed = &seeds[usize::from(round % 8 == 7)];
        let mut files = seed.files.clone();
        let plan = if rng.below(4) > 0 {
            mutate::json(&mut rng, &seed.plan)
        } else {
            let damaged = rng.below(files.len());
            files[damaged] = mutate::bytes(&mut rng, &files[damaged]);
            seed.plan.clone()
        };
        let mut packed = seeds::pack(&plan, &files);
        if rng.below(16) == 0 {
            packed = mutate::bytes(&mut rng, &packed);
        }
        drive::bundle(dir.path(), &packed);
    }
}

#[test]
fn ten_thousand_damaged_weights_do_no_harm() {
    let (dir, seed) = (drive::folder(), seeds::weights());
    drive::weights(dir.path(), &seed);
    let mut rng = Rng(4);
    for _ in 0..rounds() {
        drive::weights(dir.path(), &mutate::bytes(&mut rng, &seed));
    }
}

#[test]
fn ten_thousand_damaged_entries_of_a_cache_do_no_harm() {
    let dir = drive::folder();
    let entry = drive::entry(dir.path());
    let cache = Cache::open(dir.path(), 1 << 20).unwrap();
    let mut rng = Rng(5);
    for round in 0..rounds() {
        let damaged = mutate::bytes(&mut rng, &entry);
        drive::cache(&cache, dir.path(), &[&[round as u8], &damaged[..]].concat());
    }
}

#[test]
fn damaged_llvm_ir_does_no_harm() {
    let seeds = seeds::ir();
    seeds.iter().for_each(|seed| drive::ir(seed.as_bytes()));
    let mut rng = Rng(6);
    for round in 0..rounds() / 20 {
        let seed = seeds[round % seeds.len()].as_bytes();
        drive::ir(&mutate::bytes(&mut rng, seed));
    }
}

#[test]
fn ten_thousand_damaged_signatures_do_no_harm() {
    let seeds = seeds::signatures();
    let mut rng = Rng(3);
    for round in 0..rounds() {
        let (how, params) = &seeds[round % seeds.len()];
        let params = mutate::json(&mut rng, params).to_string();
        let mut bytes = [&[*how], params.as_bytes()].concat();
        if rng.below(4) == 0 {
            bytes = mutate::bytes(&mut rng, &bytes);
        }
        drive::signature(&bytes);
    }
}

/// The seeds must reach the end of each driver, or the damage to them says little.
#[test]
fn undamaged_seeds_are_accepted() {
    for seed in seeds::objects() {
        svod_runtime::link::ObjectFile::parse("seed", &seed).unwrap();
    }
    for seed in seeds::bundles() {
        let dir = drive::folder();
        drive::bundle(dir.path(), &seed.bytes());
        let bundle = svod_runtime::bundle::Bundle::open(dir.path()).unwrap();
        let runtime = svod_runtime::Runtime::builder().build().unwrap();
        // SAFETY: nothing of it is called.
        unsafe { bundle.load(&runtime, &|_| {}) }.unwrap();
    }
    for (_, params) in seeds::signatures() {
        serde_json::from_value::<Vec<svod_runtime::signature::Param>>(params).unwrap();
    }
}

/// Writes the seeds for the fuzz targets, a folder for each, where it is told to.
#[test]
fn seeds_are_written_where_they_are_asked_for() {
    let Some(dir) = std::env::var_os("SVOD_TEST_WRITE_SEEDS") else {
        return;
    };
    let bundles = seeds::bundles().iter().map(seeds::Packed::bytes).collect();
    let signatures = seeds::signatures().into_iter();
    let signatures = signatures.map(|(how, p)| [&[how], p.to_string().as_bytes()].concat());
    for (target, seeds) in [
        ("object", seeds::objects()),
        ("bundle", bundles),
        ("signature", signatures.collect()),
        ("weights", vec![seeds::weights()]),
        (
            "cache",
            vec![[&[0], &drive::entry(drive::folder().path())[..]].concat()],
        ),
        (
            "ir",
            seeds::ir()
                .iter()
                .map(|text| text.as_bytes().to_vec())
                .collect(),
        ),
        (
            "plan",
            (0..8).map(|shape| vec![shape; 8 * 12 + 1]).collect(),
        ),
    ] {
        let dir = std::path::Path::new(&dir).join(target);
        std::fs::create_dir_all(&dir).unwrap();
        for (i, seed) in seeds.iter().enumerate() {
            std::fs::write(dir.join(format!("seed{i}")), seed).unwrap();
        }
    }
}
