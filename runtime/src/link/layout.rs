//! Where everything goes, before any address is known.

use std::ops::Range;

use super::architecture::Architecture;
use super::elf::MAX_ALIGN;
use super::object_file::{ObjectFile, Section, SymbolAt};

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

/// Where the parts of an object lie in its image.
#[derive(Debug)]
pub struct Layout {
    pub(super) segments: Vec<Segment>,
    /// The offset of each section of the object in the image.
    pub(super) sections: Vec<u64>,
    /// For each symbol, the offsets of what stands for it.
    pub(super) stand_ins: Vec<StandIns>,
    /// The offset of the global offset table, which begins where its slots do.
    pub(super) table: u64,
    architecture: Architecture,
    size: u64,
}

impl Layout {
    /// The image's size in bytes, a multiple of the page size.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether an object with such parts fits it.
    pub(super) fn is_of(&self, object: &ObjectFile<'_>) -> bool {
        let fits = |(section, offset): (&Section<'_>, &u64)| {
            let end = offset.checked_add(section.size);
            end.is_some_and(|end| end <= self.size)
        };
        self.architecture == object.architecture
            && self.sections.len() == object.sections.len()
            && self.stand_ins.len() == object.symbols.len()
            && object.sections.iter().zip(&self.sections).all(fits)
    }

    /// The image's segments in the order of their addresses.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The offset in the image of the function `name` of `object`, the object
    /// that was laid out.
    #[must_use]
    pub fn function(&self, object: &ObjectFile<'_>, name: &str) -> Option<u64> {
        match object.function(name)?.at {
            SymbolAt::Section { section, offset } => {
                self.sections.get(section)?.checked_add(offset)
            }
            _ => None,
        }
    }
}

/// The largest page of any system that this may run on is 64 KiB; more than this
/// is a mistake, and would ask for memory to no end.
const MAX_PAGE: u64 = 16 << 20;

/// What a symbol may need in the image beside itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StandIns {
    /// The offset of its slot in the GOT.
    pub(super) slot: Option<u64>,
    /// The offset of its stub, which jumps through the slot.
    pub(super) stub: Option<u64>,
}

const GOT_SLOT_SIZE: u64 = 8;

/// Lays out an object on pages of `page` bytes, a power of two from 4 KiB to 16 MiB;
/// another number is taken for the next larger one, or the largest.
///
/// Pure: it depends on nothing but its arguments.
#[must_use]
pub fn layout(object: &ObjectFile<'_>, page: u64) -> Layout {
    let page = page.clamp(MAX_ALIGN, MAX_PAGE).next_power_of_two();
    let mut needs = vec![(false, false); object.symbols.len()];
    for relocation in object.relocations() {
        let undefined = object.symbols[relocation.symbol].at == SymbolAt::Undefined;
        let compute = relocation.kind.compute;
        let stub = undefined && compute.may_need_stub() && !relocation.kind.holds_any_address();
        let (needs_slot, needs_stub) = &mut needs[relocation.symbol];
        *needs_slot |= stub || compute.needs_slot();
        *needs_stub |= stub;
    }

    let mut at = 0;
    let mut sections = vec![0; object.sections.len()];
    let mut segments = Vec::new();
    let place = |at: &mut u64, size: u64, align: u64| {
        let start = at.next_multiple_of(align);
        *at = start + size;
        start
    };
    let mut place_sections = |at: &mut u64, rights: Rights| {
        for (section, offset) in object.sections.iter().zip(&mut sections) {
            if section.rights == rights {
                *offset = place(at, section.size, section.align);
            }
        }
    };
    let mut close = |at: &mut u64, start: u64, rights: Rights| {
        *at = at.next_multiple_of(page);
        if *at > start {
            segments.push(Segment {
                rights,
                range: start..*at,
            });
        }
    };

    place_sections(&mut at, Rights::Code);
    let mut stand_ins = vec![StandIns::default(); needs.len()];
    for (stand_in, (_, stub)) in stand_ins.iter_mut().zip(&needs) {
        let size = object.architecture.stub_size();
        stand_in.stub = stub.then(|| place(&mut at, size, size));
    }
    close(&mut at, 0, Rights::Code);

    let constants = at;
    place_sections(&mut at, Rights::Constants);
    let table = place(&mut at, 0, GOT_SLOT_SIZE);
    for (stand_in, (slot, _)) in stand_ins.iter_mut().zip(&needs) {
        stand_in.slot = slot.then(|| place(&mut at, GOT_SLOT_SIZE, GOT_SLOT_SIZE));
    }
    close(&mut at, constants, Rights::Constants);

    let data = at;
    place_sections(&mut at, Rights::Data);
    close(&mut at, data, Rights::Data);

    Layout {
        segments,
        sections,
        stand_ins,
        table,
        architecture: object.architecture,
        size: at,
    }
}
