//! Linked code in executable memory: the only part of linking that is the host's.

use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::elf::ObjectFile;
use super::layout::{Rights, layout};
use super::resolve::link_into;
use super::symbols::Resolver;
use crate::Error;

/// Linked code, mapped with the rights that it needs and no others.
#[derive(Debug)]
pub struct Image {
    base: NonNull<c_void>,
    size: usize,
    functions: Vec<(String, NonNull<c_void>)>,
}

// SAFETY: an image is written before it is handed out and never again; its
// pages are readable or executable only, so sharing and moving it between
// threads is sharing constants.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// Links an object into memory of its own.
    ///
    /// # Errors
    ///
    /// As [`link`](super::link()), and [`Error::System`] where the memory cannot be
    /// had or its rights cannot be set.
    pub fn load(object: &ObjectFile<'_>, resolver: &dyn Resolver) -> Result<Image, Error> {
        let page = rustix::param::page_size();
        let layout = layout(object, page as u64);
        let system = |doing: &str| {
            let doing = format!("{doing} for the code of kernel `{}`", object.kernel);
            move |e: rustix::io::Errno| Error::system(doing, e)
        };
        // An object with no code still gets a page, so that there is a mapping.
        let size = usize::try_from(layout.size())
            .unwrap_or(usize::MAX)
            .max(page);
        // SAFETY: a new private mapping, at an address that the kernel chooses
        // among those that nothing uses, replaces nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                // All of it is about to be written: one call to the kernel is
                // cheaper than a fault for each page.
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )
        }
        .map_err(system("map memory"))?;
        let base =
            NonNull::new(base).ok_or_else(|| system("map memory")(rustix::io::Errno::NOMEM))?;
        let mut image = Image {
            base,
            size,
            functions: Vec::new(),
        };

        // SAFETY: the mapping is `size` bytes long, zeroed and writable, and
        // nothing else knows of it yet; the slice is gone before rights change.
        let bytes = unsafe { std::slice::from_raw_parts_mut(base.as_ptr().cast::<u8>(), size) };
        link_into(bytes, object, &layout, base.as_ptr() as u64, resolver)?;
        for segment in layout.segments() {
            let rights = match segment.rights {
                Rights::Code => MprotectFlags::READ | MprotectFlags::EXEC,
                Rights::Constants => MprotectFlags::READ,
            };
            let [start, end] = [segment.range.start, segment.range.end].map(|o| o as usize);
            // SAFETY: segments lie inside the mapping, on pages of their own.
            // No Rust reference points into it.
            unsafe { mprotect(base.as_ptr().byte_add(start), end - start, rights) }
                .map_err(system("set the rights of memory"))?;
        }
        for &name in object.functions.keys() {
            if let Some(offset) = layout.function(object, name) {
                // SAFETY: a function lies inside the image, whose end no
                // address passes.
                let address = unsafe { base.byte_add(offset as usize) };
                image.functions.push((name.to_owned(), address));
            }
        }
        tracing::debug!(kernel = object.kernel, bytes = size, "linked");
        Ok(image)
    }

    /// The address of the function `name`. It is valid while the image lives.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<NonNull<c_void>> {
        let found = self.functions.iter().find(|(n, _)| n == name)?;
        Some(found.1)
    }

    /// The names of its functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|(name, _)| name.as_str())
    }

    /// The bytes of memory that it takes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `load` and belongs to this image
        // alone; whoever holds an address into it promised not to outlive it.
        let result = unsafe { munmap(self.base.as_ptr(), self.size) };
        if let Err(error) = result {
            tracing::error!(%error, "cannot unmap an image");
        }
    }
}
