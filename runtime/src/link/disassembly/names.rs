//! What places are called that code refers to.

use std::collections::BTreeMap;
use std::ops::Range;

use super::MAX_NAME;
use super::constants::Lane;
use crate::link::layout::Rights;
use crate::link::object_file::{ObjectFile, Relocation, SymbolAt};
use crate::link::relocation::Compute;

/// A stretch of code with a name.
pub(super) struct Stretch {
    pub(super) section: usize,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
}

/// An instruction's place, and the relocations that fill parts of it.
pub(super) struct Place<'a> {
    pub(super) section: usize,
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) relocations: &'a [&'a Relocation],
}

impl Place<'_> {
    /// The relocation of the field so many bytes into the instruction.
    pub(super) fn relocation_at(&self, distance: usize) -> Option<&Relocation> {
        let offset = self.offset + distance as u64;
        let mut relocations = self.relocations.iter();
        relocations.find(|r| r.offset == offset).copied()
    }
}

/// Everything in an object that has a name.
pub(super) struct Names<'a> {
    object: &'a ObjectFile<'a>,
    /// In the order of their places.
    pub(super) stretches: Vec<Stretch>,
    /// Where something jumps to within a stretch.
    pub(super) labels: BTreeMap<(usize, u64), String>,
    /// What constants and data are called, by place, with their sizes.
    data: BTreeMap<(usize, u64), (&'a str, u64)>,
    /// For each section, its relocations in the order of their places.
    relocations: Vec<Vec<&'a Relocation>>,
}

/// What a reference is shown as.
#[derive(Clone)]
pub(super) enum Name {
    /// A label of the function that refers to it.
    Label(String),
    /// A name, perhaps with a distance.
    Global(String),
}

impl Name {
    pub(super) fn into_text(self) -> String {
        match self {
            Name::Label(text) | Name::Global(text) => text,
        }
    }
}

/// Where a reference leads.
pub(super) enum Target {
    /// To a place in a section of the object.
    Section(usize, u64),
    /// Elsewhere.
    Other(String),
}

impl<'a> Names<'a> {
    pub(super) fn new(object: &'a ObjectFile<'a>, stretches: Vec<Stretch>) -> Names<'a> {
        let mut data = BTreeMap::new();
        for symbol in &object.symbols {
            if let SymbolAt::Section { section, offset } = symbol.at
                && !object.sections[section].rights.executes()
                // Marks of the kind of `$d` say what is data, and name nothing.
                && !symbol.name.is_empty()
                && !symbol.name.starts_with('$')
            {
                data.insert((section, offset), (symbol.name, symbol.size));
            }
        }
        let relocations = object.sections.iter().map(|section| {
            let mut sorted: Vec<_> = section.relocations.iter().collect();
            sorted.sort_by_key(|r| r.offset);
            sorted
        });
        Names {
            object,
            stretches,
            labels: BTreeMap::new(),
            data,
            relocations: relocations.collect(),
        }
    }

    /// The relocations that fill something in a range of a section.
    pub(super) fn relocations(&self, section: usize, range: Range<u64>) -> &[&'a Relocation] {
        let sorted = &self.relocations[section];
        let [start, end] =
            [range.start, range.end].map(|at| sorted.partition_point(|r| r.offset < at));
        sorted.get(start..end).unwrap_or_default()
    }

    /// The stretch that a place lies in.
    pub(super) fn stretch(&self, section: usize, offset: u64) -> Option<&Stretch> {
        let after = self
            .stretches
            .partition_point(|s| (s.section, s.start) <= (section, offset));
        let stretch = self.stretches.get(after.checked_sub(1)?)?;
        (stretch.section == section && offset < stretch.end).then_some(stretch)
    }

    /// Where a relocation leads, for an instruction that ends at `end`.
    pub(super) fn target(&self, relocation: &Relocation, end: u64) -> Target {
        // A distance counts from the field on x86-64, and code counts from behind itself.
        let from_end = match relocation.kind.compute {
            Compute::Relative | Compute::Branch | Compute::SlotRelative | Compute::Table
                if self.object.architecture.branch_addend() != 0 =>
            {
                end.saturating_sub(relocation.offset).cast_signed()
            }
            _ => 0,
        };
        let addend = relocation.addend.saturating_add(from_end);
        let symbol = &self.object.symbols[relocation.symbol];
        match symbol.at {
            SymbolAt::Section { section, offset } => match offset.checked_add_signed(addend) {
                Some(offset) => Target::Section(section, offset),
                None => Target::Other(distant(self.object.sections[section].name, addend)),
            },
            _ => Target::Other(distant(symbol.name, addend)),
        }
    }

    /// What a place in a section is called, for a reference from an instruction.
    pub(super) fn at(&self, section: usize, offset: u64, from: &Place<'_>) -> Name {
        if self.object.sections[section].rights.executes() {
            if let Some(stretch) = self.stretch(section, offset) {
                let is_near = stretch.section == from.section
                    && (stretch.start..stretch.end).contains(&from.offset);
                return match self.labels.get(&(section, offset)) {
                    Some(label) if is_near => Name::Label(label.clone()),
                    _ => Name::Global(further(&stretch.name, offset - stretch.start)),
                };
            }
        } else if let Some((&(_, start), &(name, size))) = self
            .data
            .range((section, 0)..=(section, offset))
            .next_back()
            && (offset == start || offset - start < size)
        {
            return Name::Global(further(&cut(name), offset - start));
        }
        Name::Global(further(&cut(self.object.sections[section].name), offset))
    }

    /// What a relocation's field refers to.
    pub(super) fn of(&self, relocation: &Relocation, place: &Place<'_>) -> Name {
        let symbol = cut(self.object.symbols[relocation.symbol].name);
        match self.target(relocation, place.end) {
            Target::Section(section, offset) => match self.stretch(section, offset) {
                // Of several names, the one that was used.
                Some(s) if s.start == offset && s.aliases.contains(&symbol) => Name::Global(symbol),
                _ => self.at(section, offset, place),
            },
            Target::Other(name) => Name::Global(name),
        }
    }

    /// The constant that a reference leads to, as `count` numbers.
    pub(super) fn constant(
        &self,
        relocation: &Relocation,
        place: &Place<'_>,
        lane: Lane,
        count: usize,
    ) -> Option<String> {
        if relocation.kind.compute.needs_slot() {
            return None;
        }
        let Target::Section(section, offset) = self.target(relocation, place.end) else {
            return None;
        };
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(lane.size().checked_mul(count)?)?;
        // An address is 8 bytes at most.
        let addresses = self.relocations(section, offset.saturating_sub(7)..end as u64);
        let section = &self.object.sections[section];
        let bytes = section.data.get(start..end)?;
        let is_constant = section.rights == Rights::Constants && addresses.is_empty();
        (is_constant && !bytes.is_empty()).then(|| lane.show(bytes))
    }
}

/// `name+0x10`
fn further(name: &str, distance: u64) -> String {
    match distance {
        0 => name.to_owned(),
        distance => format!("{name}+{distance:#x}"),
    }
}

/// The same, for distances of either sign.
fn distant(name: &str, distance: i64) -> String {
    let name = cut(name);
    match distance {
        ..0 => format!("{name}-{:#x}", distance.unsigned_abs()),
        _ => further(&name, distance.unsigned_abs()),
    }
}

/// A name that is not too long.
pub(super) fn cut(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    format!("{}…", &name[..name.floor_char_boundary(MAX_NAME)])
}
