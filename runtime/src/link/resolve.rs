//! Symbols to addresses, addresses to bytes.

use super::elf::{ObjectFile, Relocation, Section, SymbolAt};
use super::layout::{Layout, Rights};
use super::symbols::{Definition, Resolver};
use super::x86_64::{self, Kind};
use crate::Error;

/// What fills the gaps between code: `int3`, so that a stray jump traps.
const CODE_FILL: u8 = 0xcc;

/// The bytes of an object's image for the address `base`, a multiple of the
/// page size that `layout` was made with; `layout` must be the object's.
///
/// Pure: it depends on nothing but its arguments, and nothing is mapped.
///
/// # Errors
///
/// [`Error::UndefinedSymbol`] where `resolver` does not know a symbol,
/// [`Error::RelocationOverflow`] where a value does not fit its field,
/// [`Error::UnsupportedObject`] where the image would pass the end of memory, or
/// the layout is another object's.
pub fn link(
    object: &ObjectFile<'_>,
    layout: &Layout,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<Vec<u8>, Error> {
    let mut image = vec![0; to_usize(layout.size())];
    link_into(&mut image, object, layout, base, resolver)?;
    Ok(image)
}

/// As [`link`], into `image`, which must be zeroed and as long as the layout
/// says.
pub(super) fn link_into(
    image: &mut [u8],
    object: &ObjectFile<'_>,
    layout: &Layout,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<(), Error> {
    let unsupported = |feature: String| {
        Err(Error::UnsupportedObject {
            kernel: object.kernel.to_owned(),
            feature,
        })
    };
    if base.checked_add(layout.size()).is_none() {
        return unsupported(format!(
            "an image at {base:#x} would pass the end of memory"
        ));
    }
    if !layout.is_of(object) {
        return unsupported("the layout is another object's".into());
    }
    Linker {
        object,
        layout,
        base,
        addresses: addresses(object, layout, base, resolver)?,
    }
    .link(image)
}

/// S: the address of each symbol.
fn addresses(
    object: &ObjectFile<'_>,
    layout: &Layout,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<Vec<u64>, Error> {
    let mut used = vec![false; object.symbols.len()];
    for relocation in object.sections.iter().flat_map(|s| &s.relocations) {
        used[relocation.symbol] = true;
    }
    let resolve = |(symbol, used): (&super::elf::Symbol<'_>, bool)| match symbol.at {
        SymbolAt::Section { section, offset } => Ok(base + layout.sections[section] + offset),
        SymbolAt::Absolute(address) => Ok(address),
        // The null symbol, and what is declared and not used.
        SymbolAt::Undefined if !used || symbol.name.is_empty() => Ok(0),
        SymbolAt::Undefined => resolver
            .resolve(symbol.name)
            .map(Definition::address)
            .ok_or_else(|| Error::UndefinedSymbol {
                kernel: object.kernel.to_owned(),
                symbol: symbol.name.to_owned(),
            }),
        SymbolAt::NotLoaded => Ok(0),
    };
    object.symbols.iter().zip(used).map(resolve).collect()
}

struct Linker<'a, 'data> {
    object: &'a ObjectFile<'data>,
    layout: &'a Layout,
    base: u64,
    addresses: Vec<u64>,
}

impl Linker<'_, '_> {
    fn link(&self, image: &mut [u8]) -> Result<(), Error> {
        for segment in &self.layout.segments {
            if segment.rights == Rights::Code {
                image[to_usize(segment.range.start)..to_usize(segment.range.end)].fill(CODE_FILL);
            }
        }
        for (section, &offset) in self.object.sections.iter().zip(&self.layout.sections) {
            let start = to_usize(offset);
            image[start..start + section.data.len()].copy_from_slice(section.data);
        }
        for (stand_in, address) in self.layout.stand_ins.iter().zip(&self.addresses) {
            let Some(slot) = stand_in.slot else { continue };
            write(image, slot, &address.to_le_bytes());
            let Some(stub) = stand_in.stub else { continue };
            // Both lie in one image, whose size 32 bits measure unless its object
            // was gigabytes long.
            let code = x86_64::stub(self.base + stub, self.base + slot)
                .ok_or_else(|| self.unsupported("it is larger than 2 GiB"))?;
            write(image, stub, &code);
        }
        for (section, &start) in self.object.sections.iter().zip(&self.layout.sections) {
            for relocation in &section.relocations {
                let field = self.field(section, start, relocation)?;
                let width = relocation.kind.width();
                write(image, start + relocation.offset, &field[..width]);
            }
        }
        Ok(())
    }

    /// The bytes that one relocation puts in place.
    fn field(
        &self,
        section: &Section<'_>,
        start: u64,
        relocation: &Relocation,
    ) -> Result<[u8; 8], Error> {
        let Relocation {
            offset,
            kind,
            symbol,
            addend,
        } = *relocation;
        let address = self.addresses[symbol];
        let here = i128::from(self.base + start + offset);
        let exact = |address: u64| i128::from(address) + i128::from(addend);
        let stand_ins = self.layout.stand_ins[symbol];
        // The layout gave each symbol the stand-ins that its relocations need. Were
        // one missing, the distance to it would fit no field.
        let via = |offset: Option<u64>| {
            offset.map_or(i128::MAX, |offset| exact(self.base + offset) - here)
        };
        let value = match kind {
            Kind::None => 0,
            Kind::Abs64 | Kind::Abs32 | Kind::Abs32Signed => exact(address),
            Kind::Pc32 | Kind::Pc64 => exact(address) - here,
            Kind::GotPcRel => via(stand_ins.slot),
            Kind::Plt32 => {
                let direct = exact(address) - here;
                match stand_ins.stub {
                    Some(_) if kind.encode(direct).is_none() => via(stand_ins.stub),
                    _ => direct,
                }
            }
        };
        kind.encode(value).ok_or_else(|| Error::RelocationOverflow {
            kernel: self.object.kernel.to_owned(),
            kind: kind.name(),
            place: format!("{}+{offset:#x}", section.name),
            symbol: self.symbol_name(symbol),
            value,
        })
    }

    /// Section symbols have no name of their own.
    fn symbol_name(&self, symbol: usize) -> String {
        let symbol = &self.object.symbols[symbol];
        match symbol.at {
            SymbolAt::Section { section, .. } if symbol.name.is_empty() => {
                self.object.sections[section].name.to_owned()
            }
            _ => symbol.name.to_owned(),
        }
    }

    fn unsupported(&self, feature: &str) -> Error {
        Error::UnsupportedObject {
            kernel: self.object.kernel.to_owned(),
            feature: feature.to_owned(),
        }
    }
}

fn write(image: &mut [u8], offset: u64, bytes: &[u8]) {
    let start = to_usize(offset);
    image[start..start + bytes.len()].copy_from_slice(bytes);
}

/// Offsets into an image that is about to be held in memory.
#[allow(clippy::cast_possible_truncation)] // no larger than the object's own bytes, which are in memory
const fn to_usize(offset: u64) -> usize {
    offset as usize
}
