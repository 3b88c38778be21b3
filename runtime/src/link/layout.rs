//! Where everything goes, before any address is known.

use std::ops::Range;

use super::architecture::Architecture;
use super::elf::MAX_ALIGN;
use super::object_file::{ObjectFile, Section, Symbol, SymbolAt};

/// What may be done with a segment's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rights {
    /// Read and execute.
    Code,
    /// Read.
    Constants,
    /// Read and write: what code that keeps state writes to.
    Data,
}

impl Rights {
    /// All of them, in the order of their segments.
    const ALL: [Rights; 3] = [Rights::Code, Rights::Constants, Rights::Data];

    pub(super) const fn executes(self) -> bool {
        matches!(self, Rights::Code)
    }
}

/// A part of an image with rights of its own, on pages of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What may be done with it.
    pub rights: Rights,
    /// Where it lies in the image, in bytes; both ends are multiples of the
    /// page size.
    pub range: Range<u64>,
}

/// Where the parts of objects lie in the image that they share.
#[derive(Debug)]
pub struct Layout {
    segments: Vec<Segment>,
    /// In the order of the objects.
    pub(super) parts: Vec<Parts>,
    size: u64,
}

impl Layout {
    /// The image's size in bytes, a multiple of the page size.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The image's segments in the order of their addresses.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The offset in the image of the function `name` of `object`, the only object
    /// that was laid out, or the first.
    #[must_use]
    pub fn function(&self, object: &ObjectFile<'_>, name: &str) -> Option<u64> {
        self.function_of(0, object, name)
    }

    /// The offset in the image of the function `name` of `object`, which was laid out as
    /// number `index`, counted from 0.
    #[must_use]
    pub fn function_of(&self, index: usize, object: &ObjectFile<'_>, name: &str) -> Option<u64> {
        self.parts.get(index)?.place(object.function(name)?)
    }

    /// Where a symbol of object number `index` lies in the image.
    pub(super) fn place_of(&self, index: usize, symbol: &Symbol<'_>) -> Option<u64> {
        self.parts.get(index)?.place(symbol)
    }

    /// The bytes of the image that object number `index` takes.
    pub(super) fn size_of(&self, index: usize) -> u64 {
        let ranges = self.parts.get(index).map(|parts| &parts.ranges);
        let ranges = ranges.into_iter().flatten();
        ranges.map(|range| range.end - range.start).sum()
    }

    /// Where the code of object number `index` lies in the image.
    pub(super) fn code_of(&self, index: usize) -> Range<u64> {
        let parts = self.parts.get(index);
        parts.map_or(0..0, |parts| parts.range(Rights::Code).clone())
    }

    /// Whether object number `index` has writable data.
    pub(super) fn keeps_state(&self, index: usize) -> bool {
        let parts = self.parts.get(index);
        parts.is_some_and(|parts| !parts.range(Rights::Data).is_empty())
    }

    /// The parts of `object`, which was laid out as number `index`; `None` where an object
    /// with such parts does not fit there.
    pub(super) fn parts_of(&self, index: usize, object: &ObjectFile<'_>) -> Option<&Parts> {
        let parts = self.parts.get(index)?;
        let fits = |(section, offset): (&Section<'_>, &u64)| {
            let end = offset.checked_add(section.size);
            end.is_some_and(|end| end <= self.size)
        };
        let is_of = parts.architecture == object.architecture
            && parts.sections.len() == object.sections.len()
            && parts.stand_ins.len() == object.symbols.len()
            && object.sections.iter().zip(&parts.sections).all(fits);
        is_of.then_some(parts)
    }
}

/// The largest page of any system that this may run on is 64 KiB; more than this
/// is a mistake, and would ask for memory to no end.
const MAX_PAGE: u64 = 16 << 20;

/// What the code of an object begins at a multiple of: a line of the cache, so that no
/// entry shares one with another object's code.
const CODE_ALIGN: u64 = 64;

const GOT_SLOT_SIZE: u64 = 8;

/// What a symbol may need in the image beside itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StandIns {
    /// The offset of its slot in the GOT.
    pub(super) slot: Option<u64>,
    /// The offset of its stub, which jumps through the slot.
    pub(super) stub: Option<u64>,
}

/// Where the parts of one object lie in an image.
#[derive(Debug)]
pub(super) struct Parts {
    /// The offset of each section of the object in the image.
    pub(super) sections: Vec<u64>,
    /// For each symbol, the offsets of what stands for it.
    pub(super) stand_ins: Vec<StandIns>,
    /// The offset of the global offset table, which begins where its slots do.
    pub(super) table: u64,
    /// What it has of each segment, by its rights, up to where the next object's begins.
    ranges: [Range<u64>; 3],
    architecture: Architecture,
}

impl Parts {
    fn new(object: &ObjectFile<'_>) -> Parts {
        let mut stand_ins = vec![StandIns::default(); object.symbols.len()];
        for relocation in object.relocations() {
            let undefined = object.symbols[relocation.symbol].at == SymbolAt::Undefined;
            let compute = relocation.kind.compute;
            let stub = undefined && compute.may_need_stub() && !relocation.kind.holds_any_address();
            let StandIns {
                slot: needs_slot,
                stub: needs_stub,
            } = &mut stand_ins[relocation.symbol];
            // Their places are not known yet.
            if stub || compute.needs_slot() {
                *needs_slot = Some(0);
            }
            if stub {
                *needs_stub = Some(0);
            }
        }
        Parts {
            sections: vec![0; object.sections.len()],
            stand_ins,
            table: 0,
            ranges: [0..0, 0..0, 0..0],
            architecture: object.architecture,
        }
    }

    /// Places what has these rights, from the offset `at` on.
    fn lay_out(&mut self, object: &ObjectFile<'_>, rights: Rights, at: &mut u64) {
        let place = |at: &mut u64, size: u64, align: u64| {
            let start = at.next_multiple_of(align);
            *at = start + size;
            start
        };
        if rights == Rights::Code {
            place(at, 0, CODE_ALIGN);
        }
        let start = *at;
        for (section, offset) in object.sections.iter().zip(&mut self.sections) {
            if section.rights == rights {
                *offset = place(at, section.size, section.align);
            }
        }
        match rights {
            Rights::Code => {
                let size = self.architecture.stub_size();
                for stub in self.stand_ins.iter_mut().filter_map(|s| s.stub.as_mut()) {
                    *stub = place(at, size, size);
                }
            }
            Rights::Constants => {
                self.table = place(at, 0, GOT_SLOT_SIZE);
                for slot in self.stand_ins.iter_mut().filter_map(|s| s.slot.as_mut()) {
                    *slot = place(at, GOT_SLOT_SIZE, GOT_SLOT_SIZE);
                }
            }
            Rights::Data => {}
        }
        self.ranges[rights as usize] = start..*at;
    }

    /// What it has of the segment with these rights.
    pub(super) const fn range(&self, rights: Rights) -> &Range<u64> {
        &self.ranges[rights as usize]
    }

    /// The offset in the image of a symbol of its object; `None` where it is not in the
    /// image.
    pub(super) fn place(&self, symbol: &Symbol<'_>) -> Option<u64> {
        match symbol.at {
            SymbolAt::Section { section, offset } => {
                self.sections.get(section)?.checked_add(offset)
            }
            _ => None,
        }
    }
}

/// Lays out an object on pages of `page` bytes, as [`layout_all`] does several.
///
/// Pure: it depends on nothing but its arguments.
#[must_use]
pub fn layout(object: &ObjectFile<'_>, page: u64) -> Layout {
    layout_all(&[object], page)
}

/// Lays out objects, in their order, in one image on pages of `page` bytes, a power of two
/// from 4 KiB to 16 MiB; another number is taken for the next larger one, or the largest.
///
/// Each segment has what all objects have of it, so that an image takes as many changes of
/// rights as there are kinds of them, however many objects it has.
///
/// Pure: it depends on nothing but its arguments.
#[must_use]
pub fn layout_all(objects: &[&ObjectFile<'_>], page: u64) -> Layout {
    let page = page.clamp(MAX_ALIGN, MAX_PAGE).next_power_of_two();
    let mut parts: Vec<Parts> = objects.iter().map(|object| Parts::new(object)).collect();
    let mut segments = Vec::new();
    let mut at = 0;
    for rights in Rights::ALL {
        let start = at;
        for (object, parts) in objects.iter().zip(&mut parts) {
            parts.lay_out(object, rights, &mut at);
        }
        at = at.next_multiple_of(page);
        // What is between two objects belongs to the first.
        let mut end = at;
        for parts in parts.iter_mut().rev() {
            let range = &mut parts.ranges[rights as usize];
            range.end = end;
            end = range.start;
        }
        if at > start {
            segments.push(Segment {
                rights,
                range: start..at,
            });
        }
    }
    Layout {
        segments,
        parts,
        size: at,
    }
}
