//! One launch without a plan, on the threads of a pool.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{compilers, kernel, load, object, with};
use svod_runtime::pool::{Invitation, Pool, Team};
use svod_runtime::signature::Returns;
use svod_runtime::{Bounds, DType, Error, Kernel, Signature};

const GRID: u64 = 70_000;

fn signature(returns: Returns) -> Signature {
    let params = Signature::builder()
        .write(DType::I32, GRID as usize)
        .scalar(DType::I32, "k", Bounds::Any)
        .index(DType::I32, GRID);
    params.returns(returns).build().unwrap()
}

fn loaded(code: &str, signature: Signature) -> Kernel {
    let image = load(&object(with(&compilers()[0]), code)).unwrap();
    // SAFETY: the sources of this file keep their signatures.
    unsafe { kernel(&image, "f", signature) }
}

#[test]
fn every_index_is_called_once_whatever_the_threads_and_the_grid() {
    let code = "void f(int *y, int k, int i) { y[i] += k + i; }";
    let kernel = loaded(code, signature(Returns::Void));
    for threads in [1, 2, 5] {
        let pool = Pool::builder().threads(threads).build();
        // The last has more indices than a run has units.
        for grid in [0, 1, 2, 3, 1000, GRID] {
            let mut y = vec![0_i32; GRID as usize];
            // SAFETY: as long as the signature says, and the indices are independent.
            unsafe { pool.launch(&kernel, &[ptr::from_mut(&mut y[..]).cast()], &[7], grid) }
                .unwrap();
            let expected = |i: usize| if (i as u64) < grid { 7 + i as i32 } else { 0 };
            assert!(
                y.iter().enumerate().all(|(i, &y)| y == expected(i)),
                "{threads} {grid}"
            );
        }
    }
}

#[test]
fn the_lowest_index_that_fails_is_told_and_the_others_are_called() {
    let code = "int f(int *y, int k, int i) { y[i] = 1; return i % 10 == k ? i : 0; }";
    let kernel = loaded(code, signature(Returns::Status));
    for threads in [1, 2] {
        let pool = Pool::builder().threads(threads).build();
        let mut y = vec![0_i32; GRID as usize];
        // SAFETY: as above.
        let failed =
            unsafe { pool.launch(&kernel, &[ptr::from_mut(&mut y[..]).cast()], &[3], 100) };
        match failed.unwrap_err() {
            Error::KernelStatus { status, index, .. } => assert_eq!((status, index), (3, 3)),
            other => panic!("{other}"),
        }
        assert_eq!(y.iter().sum::<i32>(), 100);
    }
}

/// A team that counts how often somebody is asked to come, and nobody ever does.
#[derive(Debug, Default)]
struct Invited(AtomicUsize);

impl Team for Invited {
    fn threads(&self) -> usize {
        2
    }

    fn invite(&self, _: Invitation) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn nobody_is_woken_for_launches_that_are_too_short() {
    let short = loaded(
        "void f(int *y, int k, int i) { y[i] = k; }",
        signature(Returns::Void),
    );
    let code = "void f(int *y, int k, int i) {
        for (int n = 0; n < 300000; n++) y[i] = y[i] * 5 + (n ^ k);
    }";
    let long = loaded(code, signature(Returns::Void));
    let team = Arc::new(Invited::default());
    let pool = Pool::builder().team(team.clone()).build();
    let mut y = vec![0_i32; GRID as usize];
    let mut invited = |kernel: &Kernel, launches, grid| {
        let before = team.0.load(Ordering::Relaxed);
        for _ in 0..launches {
            // SAFETY: as above.
            unsafe { pool.launch(kernel, &[ptr::from_mut(&mut y[..]).cast()], &[3], grid) }
                .unwrap();
        }
        team.0.load(Ordering::Relaxed) - before
    };
    // Some are: while it is not known how short they are, where one was interrupted, and for all
    // that short ones lose together.
    let some = invited(&short, 10_000, 2);
    assert!(some < 1_000, "{some} of 10,000");
    // Each of these takes far longer than it takes to wake a thread.
    assert_eq!(invited(&long, 20, 2), 20);
}

#[test]
fn long_launches_are_shared_whatever_else_their_kernel_did() {
    // Launches with much work in turn with those of none, and calls that take the longer, the
    // higher their index is.
    let by_scalar = "void f(int *y, int k, int i) {
        for (int n = 0; n < k; n++) y[i] = y[i] * 5 + n;
    }";
    let by_index = "void f(int *y, int k, int i) {
        for (int n = 0; n < i * k; n++) y[i] = y[i] * 5 + n;
    }";
    for (code, long) in [(by_scalar, 100_000), (by_index, 2000)] {
        let kernel = loaded(code, signature(Returns::Void));
        let team = Arc::new(Invited::default());
        let pool = Pool::builder().team(team.clone()).build();
        let mut y = vec![0_i32; GRID as usize];
        let mut invited = 0;
        for launch in 0..40 {
            let before = team.0.load(Ordering::Relaxed);
            let scalar = if launch % 2 == 0 { long } else { 0 };
            // SAFETY: as above.
            unsafe { pool.launch(&kernel, &[ptr::from_mut(&mut y[..]).cast()], &[scalar], 64) }
                .unwrap();
            if launch % 2 == 0 {
                invited += team.0.load(Ordering::Relaxed) - before;
            }
        }
        assert_eq!(invited, 20, "{code}");
    }
}
