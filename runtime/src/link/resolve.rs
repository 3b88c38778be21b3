//! Symbols to addresses, addresses to bytes.

use super::elf::{ObjectFile, Relocation, Section, SymbolAt};
use super::layout::{Layout, Rights};
use super::symbols::Resolver;
use super::x86_64::{self, Kind};
use crate::Error;

/// What fills the gaps between code: `int3`, so that a stray jump traps.
const CODE_FILL: u8 = 0xcc;

/// The bytes of an object's image for the address `base`, a multiple of the
/// page size that `layout` was made with, of which `layout` must be the
/// object's.
///
/// Pure: it depends on nothing but its arguments, and nothing is mapped.
///
/// # Errors
///
/// [`Error::UndefinedSymbol`] where `resolver` does not know a symbol,
/// [`Error::RelocationOverflow`] where a value does not fit its field.
pub fn link(
    object: &ObjectFile<'_>,
    layout: &Layout,
    base: u64,
    resolver: &dyn Resolver,
) -> Result<Vec<u8>, Error> {
    Linker {
        object,
        layout,
        base,
        addresses: addresses(object, layout, base, resolver)?,
    }
    .link()
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
        SymbolAt::Undefined => {
            resolver
                .resolve(symbol.name)
                .ok_or_else(|| Error::UndefinedSymbol {
                    kernel: object.kernel.to_owned(),
                    symbol: symbol.name.to_owned(),
                })
        }
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
    fn link(&self) -> Result<Vec<u8>, Error> {
        let mut image = vec![0; to_usize(self.layout.size())];
        for segment in &self.layout.segments {
            if segment.rights == Rights::Code {
                image[to_usize(segment.range.start)..to_usize(segment.range.end)].fill(CODE_FILL);
            }
        }
        for (section, &offset) in self.object.sections.iter().zip(&self.layout.sections) {
            let start = to_usize(offset);
            image[start..start + section.data.len()].copy_from_slice(section.data);
        }
        for (&symbol, &offset) in &self.layout.got {
            write(&mut image, offset, &self.addresses[symbol].to_le_bytes());
        }
        for (&symbol, &offset) in &self.layout.stubs {
            let slot = self.base + self.layout.got[&symbol];
            // Stub and slot lie in one image, whose size `i32` measures unless
            // its object was gigabytes long.
            let stub = x86_64::stub(self.base + offset, slot)
                .ok_or_else(|| self.unsupported("it is larger than 2 GiB"))?;
            write(&mut image, offset, &stub);
        }
        for (section, &start) in self.object.sections.iter().zip(&self.layout.sections) {
            for relocation in &section.relocations {
                let field = self.field(section, start, relocation)?;
                let width = relocation.kind.width();
                write(&mut image, start + relocation.offset, &field[..width]);
            }
        }
        Ok(image)
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
        let image = |offset: u64| self.base + offset;
        let value = match kind {
            Kind::None => 0,
            Kind::Abs64 | Kind::Abs32 | Kind::Abs32Signed => exact(address),
            Kind::Pc32 | Kind::Pc64 => exact(address) - here,
            Kind::GotPcRel => exact(image(self.layout.got[&symbol])) - here,
            Kind::Plt32 => {
                let direct = exact(address) - here;
                match self.layout.stubs.get(&symbol) {
                    Some(&stub) if kind.encode(direct).is_none() => exact(image(stub)) - here,
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
