//! Linked code in executable memory: the only part of linking that is the host's.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Mutex;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::architecture::Architecture;
use super::layout::{Rights, layout};
use super::object_file::ObjectFile;
use super::resolve::link_into;
use super::symbols::Resolver;
use crate::Error;

/// Up to this many bytes, an image's memory is asked for at once: all of it is about
/// to be written, and one call to the kernel is cheaper than a fault for each page. A
/// larger one has much zeroed data, of which little may ever be touched. 0 turns it off.
const MAX_POPULATED: usize = 1 << 20;

/// Linux's flag, on x86-64, for memory in the lowest 2 GiB.
const MAP_32BIT: MapFlags = MapFlags::from_bits_retain(0x40);

/// Linked code, mapped with the rights that it needs and no others.
#[derive(Debug)]
pub struct Image {
    base: NonNull<c_void>,
    size: usize,
    functions: Vec<(String, NonNull<c_void>)>,
    /// Held during each call, where the code keeps state.
    state: Option<Mutex<()>>,
}

// SAFETY: an image is written before it is handed out and never again by us. Where
// its code has no state, its pages are readable or executable only, so that sharing
// and moving it between threads is sharing constants. Where it has some, `dispatch`
// makes one call of it at a time, which is what `load_with_state` asks for.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// Links an object into memory of its own.
    ///
    /// # Errors
    ///
    /// As [`link`](super::link()); [`Error::WritableSection`] for code that keeps
    /// state, [`Error::UnsupportedObject`] for that of another machine, and
    /// [`Error::System`] where the memory cannot be had or its rights cannot be set.
    pub fn load(object: &ObjectFile<'_>, resolver: &dyn Resolver) -> Result<Image, Error> {
        object.check_stateless()?;
        Image::load_with_state(object, resolver)
    }

    /// As [`load`](Self::load), for code that may keep state in writable sections.
    /// Kernels of such an image are called one at a time, on whatever threads.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), but for the state.
    pub fn load_with_state(
        object: &ObjectFile<'_>,
        resolver: &dyn Resolver,
    ) -> Result<Image, Error> {
        if Some(object.architecture()) != Architecture::HOST {
            return Err(object.unsupported(format!(
                "it is for {}, and what runs on this machine is {}",
                object.architecture(),
                Architecture::HOST.map_or("no code yet", Architecture::name)
            )));
        }
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
        let mut flags = MapFlags::PRIVATE;
        if size <= MAX_POPULATED {
            flags |= MapFlags::POPULATE;
        }
        let mut mapping = "map memory";
        if object.needs_low_address() {
            flags |= MAP_32BIT;
            mapping = "map memory in the lowest 2 GiB, where alone it runs unless it is \
                       compiled with -fPIC,";
        }
        // SAFETY: a new private mapping, at an address that the kernel chooses
        // among those that nothing uses, replaces nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }
        .map_err(system(mapping))?;
        let base = NonNull::new(base).ok_or_else(|| system(mapping)(rustix::io::Errno::NOMEM))?;
        let keeps_state = layout.segments().iter().any(|s| s.rights == Rights::Data);
        let mut image = Image {
            base,
            size,
            functions: Vec::new(),
            state: keeps_state.then(Mutex::default),
        };

        // SAFETY: the mapping is `size` bytes long, zeroed and writable, and
        // nothing else knows of it yet; the slice is gone before rights change.
        let bytes = unsafe { std::slice::from_raw_parts_mut(base.as_ptr().cast::<u8>(), size) };
        link_into(bytes, object, &layout, base.as_ptr() as u64, resolver)?;
        for segment in layout.segments() {
            let rights = match segment.rights {
                Rights::Code => MprotectFlags::READ | MprotectFlags::EXEC,
                Rights::Constants => MprotectFlags::READ,
                Rights::Data => continue,
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

    /// The lock to hold during each call, where the code keeps state.
    pub(crate) const fn state(&self) -> Option<&Mutex<()>> {
        self.state.as_ref()
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
