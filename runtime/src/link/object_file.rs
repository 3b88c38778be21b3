//! An object in the few terms that linking needs, and what of it is loaded.

use std::collections::HashMap;

use object::elf::RelocationType;

use super::architecture::Architecture;
use super::elf;
use super::layout::Rights;
use super::relocation::Kind;
use crate::Error;

/// A section that takes part in the image.
#[derive(Debug)]
pub(super) struct Section<'data> {
    pub(super) name: &'data str,
    /// What it holds; zeros, up to its size, where this is shorter.
    pub(super) data: &'data [u8],
    pub(super) size: u64,
    pub(super) align: u64,
    pub(super) rights: Rights,
    pub(super) relocations: Vec<Relocation>,
}

impl Section<'_> {
    /// Whether it holds something that code can change.
    fn is_state(&self) -> bool {
        self.rights == Rights::Data && self.size > 0
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    pub(super) offset: u64,
    pub(super) kind: Kind,
    /// Its number in the ABI, by which errors name it.
    pub(super) elf: RelocationType,
    /// Index into [`ObjectFile::symbols`].
    pub(super) symbol: usize,
    pub(super) addend: i64,
}

#[derive(Debug)]
pub(super) struct Symbol<'data> {
    pub(super) name: &'data str,
    pub(super) at: SymbolAt,
    pub(super) size: u64,
    /// Whether it may stay undefined, and is 0 then; or, of a definition, whether
    /// another one goes before it.
    pub(super) weak: bool,
}

/// What a part of the code is called.
#[derive(Debug)]
pub(super) struct CodeSymbol<'a> {
    pub(super) symbol: &'a Symbol<'a>,
    /// In bytes, up to the end of the section at most.
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SymbolAt {
    /// In a section of [`ObjectFile::sections`], so many bytes in.
    Section { section: usize, offset: u64 },
    /// At a fixed address.
    Absolute(u64),
    /// Elsewhere: the runtime's list says where.
    Undefined,
    /// At the global offset table of the image, which large code counts from.
    Table,
    /// In a part of the file that is not loaded, or nowhere.
    NotLoaded,
}

/// The name by which code asks for the address of its global offset table.
pub(super) const TABLE_NAME: &str = "_GLOBAL_OFFSET_TABLE_";

/// The name of what is a section to us, and to the file a common symbol: a variable
/// that C code left without a value.
pub(super) const COMMON: &str = "COMMON";

/// An object file that can be linked: what it holds is understood.
///
/// What its code cannot reach is left out: tables for unwinding, and the variables
/// that only those refer to.
#[derive(Debug)]
pub struct ObjectFile<'data> {
    pub(super) kernel: &'data str,
    pub(super) architecture: Architecture,
    pub(super) sections: Vec<Section<'data>>,
    pub(super) symbols: Vec<Symbol<'data>>,
    /// Functions that an image can be entered by, to their symbols.
    pub(super) functions: HashMap<&'data str, usize>,
}

impl<'data> ObjectFile<'data> {
    /// Reads an object file; `kernel` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedObject`] for bytes that contradict themselves, and
    /// [`Error::UnsupportedObject`] for what this linker refuses, by name.
    pub fn parse(kernel: &'data str, bytes: &'data [u8]) -> Result<ObjectFile<'data>, Error> {
        let mut object = elf::read(kernel, bytes)?;
        object.leave_out_unreachable();
        Ok(object)
    }

    /// What its code runs on.
    #[must_use]
    pub const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Refuses code that keeps state.
    ///
    /// # Errors
    ///
    /// [`Error::WritableSection`] names the first writable section that its code
    /// can reach.
    pub fn check_stateless(&self) -> Result<(), Error> {
        let Some(i) = self.sections.iter().position(Section::is_state) else {
            return Ok(());
        };
        let Section { name, size, .. } = self.sections[i];
        let is_there = |s: &&Symbol<'_>| {
            let start = SymbolAt::Section {
                section: i,
                offset: 0,
            };
            s.at == start
        };
        let symbol = self.symbols.iter().find(is_there).map_or("", |s| s.name);
        Err(Error::WritableSection {
            kernel: self.kernel.to_owned(),
            section: match name {
                COMMON => format!("{COMMON} ({symbol})"),
                name => name.to_owned(),
            },
            bytes: size,
        })
    }

    /// Whether it is code of x86-64 that keeps absolute addresses in 32 bits, so that it
    /// runs in the lowest 2 GiB of memory alone.
    #[must_use]
    pub fn needs_low_address(&self) -> bool {
        let mut relocations = self.relocations();
        self.architecture == Architecture::X86_64
            && relocations.any(|r| {
                let moves = !matches!(self.symbols[r.symbol].at, SymbolAt::Absolute(_));
                moves && r.kind.needs_low_address()
            })
    }

    /// Whether it is to have an image of its own: because it keeps state, or because it
    /// may run only where its code and constants are near to each other, or to the start
    /// of memory.
    pub(super) fn needs_own_image(&self) -> bool {
        let near = |section: &Section<'_>, relocation: &Relocation| {
            let target = match self.symbols[relocation.symbol].at {
                SymbolAt::Section { section, .. } => self.sections[section].rights,
                _ => section.rights,
            };
            relocation.kind.needs_near(section.rights, target)
        };
        let mut sections = self.sections.iter();
        self.sections.iter().any(Section::is_state)
            || self.needs_low_address()
            || sections.any(|s| s.relocations.iter().any(|r| near(s, r)))
    }

    /// Whether `name` is a function that this object defines.
    pub(super) fn function(&self, name: &str) -> Option<&Symbol<'data>> {
        self.functions.get(name).map(|&i| &self.symbols[i])
    }

    /// Its functions that other objects cannot see.
    pub(super) fn inner_functions(&self) -> impl Iterator<Item = &Symbol<'data>> {
        let inner = self.symbols.iter().enumerate().filter(|(i, symbol)| {
            symbol.size > 0
                && !symbol.name.is_empty()
                && matches!(symbol.at, SymbolAt::Section { section, .. }
                    if self.sections[section].rights.executes())
                && self.functions.get(symbol.name) != Some(i)
        });
        inner.map(|(_, symbol)| symbol)
    }

    /// The most bytes of an image that it takes.
    pub(super) fn most_bytes(&self) -> u64 {
        let stand_ins = self.symbols.len() as u64 * 24;
        let sections = self.sections.iter();
        sections.fold(stand_ins, |sum, s| sum.saturating_add(s.size + s.align))
    }

    /// What its code is called, in order: its functions, those among them that other
    /// objects cannot see, and what else has a size there.
    pub(super) fn code_symbols(&self) -> Vec<CodeSymbol<'_>> {
        let mut places: Vec<(usize, u64, &Symbol<'_>)> = Vec::new();
        for (i, symbol) in self.symbols.iter().enumerate() {
            let SymbolAt::Section { section, offset } = symbol.at else {
                continue;
            };
            let is_function = symbol.size > 0 || self.functions.get(symbol.name) == Some(&i);
            if self.sections[section].rights.executes() && is_function && !symbol.name.is_empty() {
                places.push((section, offset, symbol));
            }
        }
        places.sort_by_key(|&(section, offset, symbol)| (section, offset, symbol.name));
        // What gives way to a definition is that definition.
        places.dedup_by_key(|&mut (section, offset, symbol)| (section, offset, symbol.name));
        let size = |&(section, offset, symbol): &(usize, u64, &Symbol<'_>)| {
            let to_end = self.sections[section].size - offset;
            if symbol.size > 0 {
                return symbol.size.min(to_end);
            }
            // Assembly need not say how long a function is: it ends where the next begins.
            let next = places.partition_point(|&(s, o, _)| (s, o) <= (section, offset));
            match places.get(next) {
                Some(&(s, next, _)) if s == section => next - offset,
                _ => to_end,
            }
        };
        let sizes: Vec<u64> = places.iter().map(size).collect();
        let sized = places.into_iter().zip(sizes);
        sized
            .map(|((_, _, symbol), size)| CodeSymbol { symbol, size })
            .collect()
    }

    pub(super) fn relocations(&self) -> impl Iterator<Item = &Relocation> {
        self.sections.iter().flat_map(|s| &s.relocations)
    }

    /// The name that errors use for a symbol. Section symbols have none of their own.
    pub(super) fn symbol_name(&self, symbol: usize) -> &'data str {
        let symbol = &self.symbols[symbol];
        match symbol.at {
            SymbolAt::Section { section, .. } if symbol.name.is_empty() => {
                self.sections[section].name
            }
            _ => symbol.name,
        }
    }

    pub(super) fn unsupported(&self, feature: impl Into<String>) -> Error {
        Error::UnsupportedObject {
            kernel: self.kernel.to_owned(),
            feature: feature.into(),
        }
    }

    /// Leaves out the sections that no code refers to, directly or through others.
    fn leave_out_unreachable(&mut self) {
        let mut reached: Vec<bool> = self.sections.iter().map(|s| s.rights.executes()).collect();
        let mut to_visit: Vec<usize> = (0..reached.len()).filter(|&i| reached[i]).collect();
        while let Some(i) = to_visit.pop() {
            for relocation in &self.sections[i].relocations {
                if let SymbolAt::Section { section, .. } = self.symbols[relocation.symbol].at
                    && !std::mem::replace(&mut reached[section], true)
                {
                    to_visit.push(section);
                }
            }
        }
        let mut kept = 0;
        let new_indices: Vec<Option<usize>> = reached
            .iter()
            .map(|&reached| {
                kept += usize::from(reached);
                reached.then(|| kept - 1)
            })
            .collect();
        for symbol in &mut self.symbols {
            if let SymbolAt::Section { section, offset } = symbol.at {
                symbol.at = match new_indices[section] {
                    Some(section) => SymbolAt::Section { section, offset },
                    None => SymbolAt::NotLoaded,
                };
            }
        }
        let mut reached = reached.into_iter();
        self.sections.retain(|_| reached.next().unwrap_or(true));
    }
}
