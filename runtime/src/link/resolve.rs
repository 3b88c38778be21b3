//! Symbols to addresses, addresses to bytes.

use super::elf::MAX_ALIGN;
use super::layout::{Layout, Parts, Rights};
use super::object_file::{ObjectFile, Relocation, Section, Symbol, SymbolAt};
use super::relocation::Compute;
use super::symbols::{Definition, Resolver};
use crate::Error;

/// The bytes of an object's image for the address `base`, as [`link_all`] gives those of
/// several; `layout` must be the object's.
///
/// Pure: it depends on nothing but its arguments, and nothing is mapped.
///
/// # Errors
///
/// As [`link_all`].
pub fn link(
    object: &ObjectFile<'_>,
    layout: &Layout,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<Vec<u8>, Error> {
    link_all(&[object], layout, base, resolver)
}

/// The bytes of the image of several objects for the address `base`, a multiple of the
/// page size that `layout` was made with; `layout` must be theirs. What one of them
/// defines is no other's: entries may have one name.
///
/// Pure: it depends on nothing but its arguments, and nothing is mapped.
///
/// # Errors
///
/// Of the first object that is at fault: [`Error::UndefinedSymbol`] where `resolver` does
/// not know a symbol, [`Error::RelocationOverflow`] where a value does not fit its field,
/// [`Error::UnsupportedObject`] where `base` is no multiple of a page, the image would
/// pass the end of memory, or the layout is of other objects.
pub fn link_all(
    objects: &[&ObjectFile<'_>],
    layout: &Layout,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<Vec<u8>, Error> {
    let mut image = vec![0; to_usize(layout.size())];
    link_into(&mut image, objects, layout, base, resolver)?;
    Ok(image)
}

/// As [`link_all`], into `image`, which must be zeroed and as long as the layout
/// says.
pub(super) fn link_into(
    image: &mut [u8],
    objects: &[&ObjectFile<'_>],
    layout: &Layout,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<(), Error> {
    for (index, object) in objects.iter().enumerate() {
        if !base.is_multiple_of(MAX_ALIGN) {
            return Err(
                object.unsupported(format!("an image at {base:#x} would begin inside a page"))
            );
        }
        if base.checked_add(layout.size()).is_none() {
            return Err(object.unsupported(format!(
                "an image at {base:#x} would pass the end of memory"
            )));
        }
        let Some(parts) = layout.parts_of(index, object) else {
            return Err(object.unsupported("the layout is another object's"));
        };
        let mut linker = Linker {
            object,
            parts,
            base,
            targets: targets(object, parts, base, resolver)?,
        };
        linker.use_stubs_where_references_do_not_reach();
        linker.link(image)?;
    }
    Ok(())
}

/// What a symbol turned out to be.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// S, as code is told it. A stub's, where it stands for the function.
    address: u64,
    /// What its slot in the GOT holds.
    slot_value: u64,
    /// Whether a stub can stand for it: only for a function that is not part of the
    /// object.
    is_function: bool,
}

fn targets(
    object: &ObjectFile<'_>,
    parts: &Parts,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<Vec<Target>, Error> {
    let mut used = vec![false; object.symbols.len()];
    for relocation in object.relocations() {
        used[relocation.symbol] = true;
    }
    let target = |(symbol, used): (&Symbol<'_>, bool)| {
        let (address, is_function) = match symbol.at {
            SymbolAt::Section { section, offset } => {
                (base + parts.sections[section] + offset, false)
            }
            SymbolAt::Absolute(address) => (address, false),
            SymbolAt::Table => (base + parts.table, false),
            SymbolAt::NotLoaded => (0, false),
            // The null symbol, and what is declared and not used.
            SymbolAt::Undefined if !used || symbol.name.is_empty() => (0, false),
            SymbolAt::Undefined => match resolver.resolve(symbol.name) {
                Some(Definition::Function(address)) => (address, true),
                Some(Definition::Data(address)) => (address, false),
                None if symbol.weak => (0, false),
                None => {
                    return Err(Error::UndefinedSymbol {
                        kernel: object.kernel.to_owned(),
                        symbol: symbol.name.to_owned(),
                    });
                }
            },
        };
        Ok(Target {
            address,
            slot_value: address,
            is_function,
        })
    };
    object.symbols.iter().zip(used).map(target).collect()
}

struct Linker<'a, 'data> {
    object: &'a ObjectFile<'data>,
    parts: &'a Parts,
    base: u64,
    targets: Vec<Target>,
}

const fn page(address: i128) -> i128 {
    address & !0xfff
}

impl Linker<'_, '_> {
    /// A function that some reference does not reach is its stub, for every reference:
    /// one address in two instructions must not be put together of two. Its slot in the
    /// GOT has the function's own address, by which the stub jumps.
    fn use_stubs_where_references_do_not_reach(&mut self) {
        let mut far = Vec::new();
        for (section, start) in self.placed_sections() {
            for relocation in &section.relocations {
                let compute = relocation.kind.compute;
                if self.targets[relocation.symbol].is_function
                    && compute.is_reference()
                    && self.fill(section, relocation, start, 0).is_none()
                {
                    far.push(relocation.symbol);
                }
            }
        }
        for symbol in far {
            if let Some(stub) = self.parts.stand_ins[symbol].stub {
                self.targets[symbol].address = self.base + stub;
            }
        }
    }

    /// The sections with their offsets in the image.
    fn placed_sections(&self) -> impl Iterator<Item = (&Section<'_>, u64)> {
        let offsets = self.parts.sections.iter().copied();
        self.object.sections.iter().zip(offsets)
    }

    fn link(&self, image: &mut [u8]) -> Result<(), Error> {
        let architecture = self.object.architecture;
        let code = self.parts.range(Rights::Code);
        image[to_usize(code.start)..to_usize(code.end)].fill(architecture.code_fill());
        for (section, offset) in self.placed_sections() {
            let start = to_usize(offset);
            image[start..start + section.data.len()].copy_from_slice(section.data);
        }
        for (stand_in, target) in self.parts.stand_ins.iter().zip(&self.targets) {
            let Some(slot) = stand_in.slot else { continue };
            write(image, slot, &target.slot_value.to_le_bytes());
            let Some(stub) = stand_in.stub else { continue };
            // Both lie in one image, whose size 32 bits measure unless its object
            // was gigabytes long.
            let code = architecture
                .stub(self.base + stub, self.base + slot)
                .ok_or_else(|| self.object.unsupported("it is larger than 2 GiB"))?;
            write(image, stub, &code[..to_usize(architecture.stub_size())]);
        }
        for (section, start) in self.placed_sections() {
            for relocation in &section.relocations {
                let width = usize::from(relocation.kind.field.width);
                let place = to_usize(start + relocation.offset);
                let place = &mut image[place..place + width];
                let mut word = [0; 8];
                word[..width].copy_from_slice(place);
                let filled = self
                    .fill(section, relocation, start, u64::from_le_bytes(word))
                    .ok_or_else(|| self.overflow(section, start, relocation))?;
                place.copy_from_slice(&filled.to_le_bytes()[..width]);
            }
        }
        Ok(())
    }

    /// The word `old` as one relocation of `section`, which is at `start`, leaves it;
    /// `None` where the value does not fit.
    fn fill(
        &self,
        section: &Section<'_>,
        relocation: &Relocation,
        start: u64,
        old: u64,
    ) -> Option<u64> {
        let Relocation { kind, addend, .. } = *relocation;
        let direct = kind.field.fill(old, self.value(relocation, start, false)?);
        // Code that branches beside the symbol would land beside the stub. A table of
        // distances counts them from wherever it likes.
        let to_symbol = addend == self.object.architecture.branch_addend();
        let may_use_stub = to_symbol || !section.rights.executes();
        if direct.is_none() && kind.compute.is_branch() && may_use_stub {
            let by_stub = self.value(relocation, start, true)?;
            return kind.field.fill(old, by_stub);
        }
        direct
    }

    /// What a relocation computes, exactly, with the stub in place of the symbol or
    /// not. `None` where the symbol lacks what it needs.
    fn value(&self, relocation: &Relocation, start: u64, by_stub: bool) -> Option<i128> {
        let Relocation {
            offset,
            kind,
            symbol,
            addend,
            ..
        } = *relocation;
        let in_image = |offset: u64| i128::from(self.base + offset);
        let addend = i128::from(addend);
        let place = in_image(start + offset);
        let table = in_image(self.parts.table);
        let stand_ins = self.parts.stand_ins[symbol];
        let symbol_address = || {
            if by_stub {
                stand_ins.stub.map(in_image)
            } else {
                Some(i128::from(self.targets[symbol].address))
            }
        };
        let target = || Some(symbol_address()? + addend);
        let slot = || Some(in_image(stand_ins.slot?) + addend);
        Some(match kind.compute {
            Compute::Nothing => 0,
            Compute::Absolute => target()?,
            Compute::Relative | Compute::Branch | Compute::ShortBranch => target()? - place,
            Compute::Page => page(target()?) - page(place),
            Compute::FromTable | Compute::BranchFromTable => target()? - table,
            Compute::Table => table + addend - place,
            Compute::Slot => slot()?,
            Compute::SlotRelative => slot()? - place,
            Compute::SlotPage => page(slot()?) - page(place),
            Compute::SlotFromTable => slot()? - table,
            Compute::SlotFromPage => slot()? - page(table),
            Compute::Size => i128::from(self.object.symbols[symbol].size) + addend,
        })
    }

    fn overflow(&self, section: &Section<'_>, start: u64, relocation: &Relocation) -> Error {
        let architecture = self.object.architecture;
        Error::RelocationOverflow {
            kernel: self.object.kernel.to_owned(),
            // The tables of relocations are written in terms of these names.
            kind: architecture.relocation_name(relocation.elf).unwrap_or(""),
            place: format!("{}+{:#x}", section.name, relocation.offset),
            symbol: self.object.symbol_name(relocation.symbol).to_owned(),
            value: self.value(relocation, start, false).unwrap_or_default(),
        }
    }
}

fn write(image: &mut [u8], offset: u64, bytes: &[u8]) {
    let start = to_usize(offset);
    image[start..start + bytes.len()].copy_from_slice(bytes);
}

/// Offsets into an image that is about to be held in memory.
#[allow(clippy::cast_possible_truncation)] // the reader bounds an image: see its MAX_ZEROED
const fn to_usize(offset: u64) -> usize {
    offset as usize
}
