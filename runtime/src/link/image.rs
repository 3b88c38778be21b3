//! Linked code in executable memory: the only part of linking that is the host's.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::architecture::Architecture;
use super::layout::{Layout, Rights, layout_all};
use super::object_file::{ObjectFile, Symbol};
use super::observe::{Observed, Observers};
use super::resolve::link_into;
use super::symbols::Resolver;
use crate::Error;

/// Up to this many bytes for each object, an image's memory is asked for at once: all of it
/// is about to be written, and one call to the kernel is cheaper than a fault for each page.
/// A larger one has much zeroed data, of which little may ever be touched. 0 turns it off.
const MAX_POPULATED: usize = 1 << 20;

/// The most bytes that objects share: less than the 2 GiB that code can be sure to reach
/// its constants over, however many there are.
const MAX_SHARED: u64 = 1 << 30;

/// Linux's flag, on x86-64, for memory in the lowest 2 GiB.
const MAP_32BIT: MapFlags = MapFlags::from_bits_retain(0x40);

/// What is asked for when objects are loaded, beside their code. Nothing is, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Admits code that keeps state in writable sections, which is refused otherwise.
    /// Kernels of such an image are called one at a time, on whatever threads.
    pub admit_state: bool,
    /// Who is told where the code is.
    pub observers: Observers,
}

/// The linked code of an object, mapped with the rights that it needs and no others.
///
/// Images that were loaded together share their memory, which goes with the last of them.
#[derive(Debug)]
pub struct Image {
    functions: Vec<(String, NonNull<c_void>)>,
    /// Those that it cannot be entered by.
    inner: Vec<(String, NonNull<c_void>)>,
    /// Held during each call, where the code keeps state.
    state: Option<Mutex<()>>,
    /// Of the mapping.
    size: usize,
    /// The addresses of its code.
    code: Range<usize>,
    _mapping: Arc<Mapping>,
}

// SAFETY: an image is written before it is handed out and never again by us. Where
// its code has no state, its pages are readable or executable only, so that sharing
// and moving it between threads is sharing constants. Where it has some, `dispatch`
// makes one call of it at a time, which is what its lock is for; such an image shares
// its memory with no other.
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
        Image::load_with(object, resolver, LoadOptions::default())
    }

    /// As [`load`](Self::load), with what is asked for beside the code.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), but for state that is admitted; [`Error::System`] where an
    /// observer cannot be told.
    pub fn load_with(
        object: &ObjectFile<'_>,
        resolver: &dyn Resolver,
        options: LoadOptions,
    ) -> Result<Image, Error> {
        check(object, options)?;
        let objects = [object];
        let layout = layout_all(&objects, page_size());
        let mapping = Mapping::new(&objects, &layout, resolver, options.observers)?;
        Ok(Image::of(&Arc::new(mapping), &layout, 0, object))
    }

    /// Links many objects at once, into memory that they share, but for those that keep
    /// state or must lie somewhere in particular: each of them has its own. The images are
    /// in the order of the objects.
    ///
    /// For hundreds of small objects this takes a fraction of the time that
    /// [`load_with`](Self::load_with) takes for each, as the system is asked for memory and
    /// for a change of rights once; they fill their pages, and lie near each other.
    ///
    /// # Errors
    ///
    /// As [`load_with`](Self::load_with) for each, of one that is at fault; nothing is
    /// loaded then.
    pub fn load_all(
        objects: &[ObjectFile<'_>],
        resolver: &dyn Resolver,
        options: LoadOptions,
    ) -> Result<Vec<Image>, Error> {
        for object in objects {
            check(object, options)?;
        }
        let (own, shared): (Vec<_>, Vec<_>) =
            (0..objects.len()).partition(|&i| objects[i].needs_own_image());
        let mut images = Vec::with_capacity(objects.len());
        let mut load = |group: &[usize]| -> Result<(), Error> {
            let group_of: Vec<_> = group.iter().map(|&i| &objects[i]).collect();
            let layout = layout_all(&group_of, page_size());
            let mapping = Mapping::new(&group_of, &layout, resolver, options.observers)?;
            let mapping = Arc::new(mapping);
            for (part, &i) in group.iter().enumerate() {
                images.push((i, Image::of(&mapping, &layout, part, &objects[i])));
            }
            Ok(())
        };
        let mut rest = shared.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0_u64;
            let fits = |&&i: &&usize| {
                bytes = bytes.saturating_add(objects[i].most_bytes());
                bytes <= MAX_SHARED
            };
            // One that is larger than what objects may share is alone.
            let count = rest.iter().take_while(fits).count().max(1);
            let group;
            (group, rest) = rest.split_at(count);
            load(group)?;
        }
        for i in own {
            load(&[i])?;
        }
        images.sort_unstable_by_key(|(i, _)| *i);
        Ok(images.into_iter().map(|(_, image)| image).collect())
    }

    /// The image of `object`, which was laid out in the mapping as number `part`.
    fn of(mapping: &Arc<Mapping>, layout: &Layout, part: usize, object: &ObjectFile<'_>) -> Image {
        let address = |symbol: &Symbol<'_>| {
            let offset = layout.place_of(part, symbol)?;
            // SAFETY: a function lies inside the mapping, whose end no address passes.
            let address = unsafe { mapping.base.byte_add(offset as usize) };
            Some((symbol.name.to_owned(), address))
        };
        let functions = object.functions.keys();
        let functions = functions.filter_map(|name| address(object.function(name)?));
        Image {
            functions: functions.collect(),
            inner: object.inner_functions().filter_map(address).collect(),
            state: layout.keeps_state(part).then(Mutex::default),
            size: layout.size_of(part) as usize,
            code: {
                let base = mapping.base.addr().get();
                let code = layout.code_of(part);
                base + code.start as usize..base + code.end as usize
            },
            _mapping: mapping.clone(),
        }
    }

    /// The address of the function `name`. It is valid while the image lives.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<NonNull<c_void>> {
        let found = self.functions.iter().find(|(n, _)| n == name)?;
        Some(found.1)
    }

    /// The function whose code an address lies in, and how many bytes into it.
    #[must_use]
    pub fn locate(&self, address: usize) -> Option<(&str, u64)> {
        let (function, before) = self.code_before(address)?;
        Some((function, before.len() as u64))
    }

    /// The function whose code an address lies in, and its bytes before that address.
    pub(crate) fn code_before(&self, address: usize) -> Option<(&str, &[u8])> {
        if !self.code.contains(&address) {
            return None;
        }
        let starts = self.functions.iter().chain(&self.inner);
        let before = starts.filter(|(_, start)| start.addr().get() <= address);
        let (name, start) = before.max_by_key(|(name, start)| (*start, name))?;
        let bytes = address - start.addr().get();
        // SAFETY: from a function's start to an address behind it, both of this image's code, which
        // is mapped, readable and never written as long as the image lives.
        let before = unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), bytes) };
        Some((name, before))
    }

    /// Where its code lies.
    pub(crate) fn code(&self) -> Code {
        // Those among them that it cannot be entered by.
        let functions = self.functions.iter().chain(&self.inner);
        Code {
            addresses: self.code.clone(),
            functions: functions
                .map(|(name, start)| (name.clone(), start.addr().get()))
                .collect(),
        }
    }

    /// The names of its functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|(name, _)| name.as_str())
    }

    /// The lock to hold during each call, where the code keeps state.
    pub(crate) const fn state(&self) -> Option<&Mutex<()>> {
        self.state.as_ref()
    }

    /// The bytes of memory that it takes: all that it has of its own, or its part of what
    /// it shares.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }
}

/// Where an image's code lies.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub(crate) addresses: Range<usize>,
    /// Each function, and its address.
    pub(crate) functions: Vec<(String, usize)>,
}

/// Refuses what is not to be loaded on this machine.
fn check(object: &ObjectFile<'_>, options: LoadOptions) -> Result<(), Error> {
    if !options.admit_state {
        object.check_stateless()?;
    }
    if Some(object.architecture()) != Architecture::HOST {
        return Err(object.unsupported(format!(
            "it is for {}, and what runs on this machine is {}",
            object.architecture(),
            Architecture::HOST.map_or("no code yet", Architecture::name)
        )));
    }
    Ok(())
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// Memory with the code of one or several objects.
#[derive(Debug)]
struct Mapping {
    base: NonNull<c_void>,
    size: usize,
    /// Who is told when it goes.
    observed: Option<Observed>,
}

// SAFETY: its address is only used to compute others, and to unmap it once nobody else
// has it, which any thread may do. Whether its contents may be shared is for images to say.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps memory, links objects into it, and gives it its rights. It is plain data
    /// until all of it is written, and nothing writes it afterwards.
    fn new(
        objects: &[&ObjectFile<'_>],
        layout: &Layout,
        resolver: &dyn Resolver,
        observers: Observers,
    ) -> Result<Mapping, Error> {
        let system = |doing: &str| {
            let whose = match objects {
                [object] => format!("kernel `{}`", object.kernel),
                _ => format!("{} kernels", objects.len()),
            };
            let doing = format!("{doing} for the code of {whose}");
            move |e: rustix::io::Errno| Error::system(doing, e)
        };
        // An object with no code still gets a page, so that there is a mapping.
        let size = usize::try_from(layout.size().max(page_size())).unwrap_or(usize::MAX);
        let _link = tracing::debug_span!("link", objects = objects.len(), bytes = size).entered();
        let mut flags = MapFlags::PRIVATE;
        if size <= MAX_POPULATED.saturating_mul(objects.len()) {
            flags |= MapFlags::POPULATE;
        }
        let mut doing = "map memory";
        if objects.iter().any(|object| object.needs_low_address()) {
            flags |= MAP_32BIT;
            doing = "map memory in the lowest 2 GiB, where alone it runs unless it is \
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
        .map_err(|e| system(doing)(e))?;
        let base = NonNull::new(base).ok_or_else(|| system(doing)(rustix::io::Errno::NOMEM))?;
        let mut mapping = Mapping {
            base,
            size,
            observed: None,
        };

        let address = base.as_ptr() as u64;
        // SAFETY: the mapping is `size` bytes long, zeroed and writable, and
        // nothing else knows of it yet; the slice is gone before rights change.
        let bytes = unsafe { std::slice::from_raw_parts_mut(base.as_ptr().cast::<u8>(), size) };
        link_into(bytes, objects, layout, address, resolver)?;
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
                .map_err(|e| system("set the rights of memory")(e))?;
        }
        mapping.observed = observers.tell(objects, layout, address)?;
        for object in objects {
            tracing::debug!(kernel = object.kernel, "linked");
        }
        Ok(mapping)
    }
}

/// Whether memory can be filled and then made executable, which is what loading does: some
/// systems forbid it to a process.
pub(crate) fn try_executable_memory() -> Result<(), Error> {
    let system = |doing: &str| {
        let doing = doing.to_owned();
        move |e: rustix::io::Errno| Error::system(doing, e)
    };
    let size = usize::try_from(page_size()).unwrap_or(usize::MAX);
    // SAFETY: a new private mapping, at an address that the kernel chooses among those that nothing
    // uses, replaces nothing.
    let base = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            size,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .map_err(system("map memory"))?;
    // SAFETY: the mapping is `size` bytes from `base` on, writable until its rights change, and
    // nobody else knows of it; no reference points into it.
    let filled = unsafe {
        base.cast::<u8>().write_bytes(0xcc, size);
        mprotect(base, size, MprotectFlags::READ | MprotectFlags::EXEC)
    };
    // SAFETY: it was mapped above, and nothing points into it.
    let unmapped = unsafe { munmap(base, size) };
    filled.map_err(system("make memory executable"))?;
    unmapped.map_err(system("unmap memory"))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Nobody is to look for code where there is none.
        self.observed = None;
        // SAFETY: this mapping was made by `new` and belongs to its images alone, of
        // which none is left; whoever holds an address into it promised not to outlive
        // them.
        let result = unsafe { munmap(self.base.as_ptr(), self.size) };
        if let Err(error) = result {
            tracing::error!(%error, "cannot unmap an image");
        }
    }
}
