//! The allocator of a test that counts what each thread asks of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

static ASKED_BY_ALL: AtomicU64 = AtomicU64::new(0);

fn count() {
    ASKED_BY_ALL.fetch_add(1, Ordering::Relaxed);
    // A thread that is ending has no counter any more, and no test either.
    let _ = ASKED.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: everything is left to the system's allocator; counting allocates
// nothing, as the counter is a constant at birth and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: promised by the caller.
        unsafe { System.realloc(start, layout, size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        count();
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread asks for memory, or gives it back, meanwhile.
pub(crate) fn allocations(during: impl FnOnce()) -> u64 {
    let before = ASKED.get();
    during();
    ASKED.get() - before
}

/// How often this thread has asked for memory, or given it back.
#[allow(dead_code)] // not every test crate looks in between
pub(crate) fn asked() -> u64 {
    ASKED.get()
}

/// How often any thread asks for memory, or gives it back, meanwhile.
#[allow(dead_code)] // not every test crate has several threads
pub(crate) fn allocations_of_all(during: impl FnOnce()) -> u64 {
    let before = ASKED_BY_ALL.load(Ordering::Relaxed);
    during();
    ASKED_BY_ALL.load(Ordering::Relaxed) - before
}
