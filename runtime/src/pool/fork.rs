//! Whether this process is the one that something was made in.
//!
//! A process that is made by `fork` has a copy of its parent's memory, and of its
//! threads only the one that forked. A team that was copied so waits for workers that are
//! not there. Nobody says so to a library: the handlers of `pthread_atfork` are not called
//! for a bare system call, and can't be taken back. But the kernel can be told to give a
//! child an empty page in the place of a certain one, whoever forks, and then to ask is
//! one load.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::param::page_size;

use crate::Error;

/// A mark on this process that its children by `fork` do not have.
///
/// A child by `vfork` shares all memory with its parent, and with it the mark.
#[derive(Debug)]
pub(crate) struct ForkMark {
    /// Holds [`HERE`] in the process that made it, and 0 in its children; `None` where
    /// the system does not empty pages.
    page: Option<Page>,
    /// The id of the process that made it.
    maker: u32,
}

const HERE: u32 = 1;

impl ForkMark {
    /// A mark on this process.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if there is no page to be had.
    pub(crate) fn new() -> Result<ForkMark, Error> {
        let page = Page::new()?;
        let page = match page.empty_in_children() {
            Ok(()) => {
                page.word().store(HERE, Ordering::Relaxed);
                Some(page)
            }
            // Linux before 4.14, or what only imitates it.
            Err(error) => {
                tracing::debug!(%error, "forks are told by the id of the process");
                None
            }
        };
        let maker = std::process::id();
        Ok(ForkMark { page, maker })
    }

    /// Whether this process is the one that made the mark, and not a fork of it.
    ///
    /// This is a load; only where the system does not empty pages it is a system call,
    /// and then mistakes a child for its parent that has the same id, in a namespace of
    /// its own.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        match &self.page {
            // Relaxed: whoever has the mark has it from the thread that stored this, and
            // a child's page is emptied before the child runs.
            Some(page) => page.word().load(Ordering::Relaxed) == HERE,
            None => std::process::id() == self.maker,
        }
    }
}

/// A page of memory, mapped for itself, and zeroed.
#[derive(Debug)]
struct Page(NonNull<AtomicU32>);

// SAFETY: a page owns its memory, like a `Box<AtomicU32>`, which may be sent.
unsafe impl Send for Page {}
// SAFETY: likewise; all that a shared reference gives is one to the atomic.
unsafe impl Sync for Page {}

impl Page {
    fn new() -> Result<Page, Error> {
        let system = |e: Errno| Error::system("map a page to mark this process with", e);
        // SAFETY: a new private mapping, at an address that the kernel chooses
        // among those that nothing uses, replaces nothing.
        let page = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                page_size(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let page = NonNull::new(page.map_err(system)?).ok_or_else(|| system(Errno::NOMEM))?;
        Ok(Page(page.cast()))
    }

    /// Has the system empty the page in each child that is forked from now on.
    fn empty_in_children(&self) -> Result<(), Errno> {
        // SAFETY: this is the whole of a mapping that belongs to the page. In this
        // process the advice changes no byte; in a child, which has only the thread that
        // forked, nobody holds more of the page than a reference to an atomic, of which 0
        // is a value like any other.
        unsafe { madvise(self.0.as_ptr().cast(), page_size(), Advice::LinuxWipeOnFork) }
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped until it is dropped, which the borrow rules out, and
        // a child inherits the mapping. It begins at a multiple of its size, so that it is
        // aligned; it holds zeros or what was stored in it, and is reached by this
        // function alone.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new` and belongs to this page alone; a child
        // has a mapping of its own to unmap.
        let result = unsafe { munmap(self.0.as_ptr().cast(), page_size()) };
        if let Err(error) = result {
            tracing::error!(%error, "cannot unmap the page that marks a process");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        safe fn fork() -> i32;
        safe fn _exit(code: i32) -> !;
        fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
    }

    /// What `question` answers in a child that is forked now; a wait status, or a
    /// negative number, where there is no answer. A child may do only what a signal
    /// handler may, as other threads of this process could hold any lock, and so it must
    /// not panic.
    fn in_a_child(question: impl Fn() -> bool) -> Result<bool, i32> {
        let child = fork();
        if child == 0 {
            _exit(if question() { 11 } else { 10 });
        }
        let mut status = 0;
        // SAFETY: it writes one `int`, which lives until it returns.
        if child < 0 || unsafe { waitpid(child, &mut status, 0) } != child {
            return Err(-1);
        }
        match (status & 0x7f, status >> 8 & 0xff) {
            (0, 10) => Ok(false),
            (0, 11) => Ok(true),
            _ => Err(status),
        }
    }

    #[test]
    fn a_mark_is_seen_where_it_was_made_and_not_in_a_child() {
        let mark = ForkMark::new().unwrap();
        assert!(mark.is_here());
        assert_eq!(in_a_child(|| mark.is_here()), Ok(false));
        assert!(mark.is_here());
    }

    #[test]
    fn a_child_marks_itself() {
        let mark = ForkMark::new().unwrap();
        let answer = in_a_child(|| {
            let own = ForkMark::new();
            own.is_ok_and(|own| {
                own.is_here() && !mark.is_here() && in_a_child(|| own.is_here()) == Ok(false)
            })
        });
        assert_eq!(answer, Ok(true));
    }

    #[test]
    fn the_mark_is_gone_in_a_grandchild_too() {
        let mark = ForkMark::new().unwrap();
        let answer = in_a_child(|| in_a_child(|| mark.is_here()) == Ok(false));
        assert_eq!(answer, Ok(true));
    }

    #[test]
    fn every_thread_sees_it() {
        let mark = ForkMark::new().unwrap();
        std::thread::scope(|s| {
            let other = s.spawn(|| (mark.is_here(), in_a_child(|| mark.is_here())));
            assert_eq!(other.join().unwrap(), (true, Ok(false)));
        });
    }

    #[test]
    fn where_pages_are_not_emptied_the_id_of_the_process_tells() {
        let mark = ForkMark {
            page: None,
            maker: std::process::id(),
        };
        assert!(mark.is_here());
        assert_eq!(in_a_child(|| mark.is_here()), Ok(false));
    }

    #[test]
    fn this_system_empties_pages() {
        assert!(ForkMark::new().unwrap().page.is_some());
    }
}
