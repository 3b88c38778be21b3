//! ELF: an object file's bytes, read and checked once.
//!
//! Nothing here trusts a number of the file. What takes memory or time is counted
//! against the size of the file, so that a small one cannot ask for much of either.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;

use object::LittleEndian;
use object::elf;
use object::read::elf::{
    FileHeader as _, Rela as _, SectionHeader, SectionTable, Sym as _, SymbolTable,
};

use super::architecture::Architecture;
use super::header::{self, Header, LE, malformed, unsupported};
use super::layout::Rights;
use super::object_file::{COMMON, ObjectFile, Relocation, Section, Symbol, SymbolAt, TABLE_NAME};
use super::relocation::{Compute, Kind};
use crate::Error;

/// The largest alignment, in bytes, that a section may ask for. An image begins
/// at a page, and this is the smallest page there is.
pub(super) const MAX_ALIGN: u64 = 4096;

/// The most memory, in bytes, that an object may ask for beyond its own size, for zeroed
/// data (`.bss` and common symbols) and for padding. Kernels that keep state at all keep little; without
/// an end, a hundred bytes could ask for all memory there is. `u64::MAX` turns it off.
const MAX_ZEROED: u64 = 64 << 20;

/// The most bytes of names, for each byte of the file. Names may share their ends, and no
/// more: many that are one long name over again would take time to no end.
const MAX_NAMES: usize = 16;

/// The symbol by which gcc says that an object has no machine code.
const SLIM_LTO: &str = "__gnu_lto_slim";

/// Functions that an image can be entered by, to their symbols.
type Functions<'data> = HashMap<&'data str, usize>;
type SectionHeader64 = elf::SectionHeader64<LittleEndian>;

/// Reads an object file; `kernel` is what errors call it.
pub(super) fn read<'data>(
    kernel: &'data str,
    bytes: &'data [u8],
) -> Result<ObjectFile<'data>, Error> {
    let (header, architecture) = header::read(kernel, bytes)?;
    let table = header.sections(LE, bytes);
    let table = table.map_err(|e| malformed(kernel, e))?;
    let symbols = table.symbols(LE, bytes, elf::SHT_SYMTAB);
    let symbols = symbols.map_err(|e| malformed(kernel, e))?;
    let names = |section| {
        let names = table.section(section).and_then(|s| s.data(LE, bytes));
        names.map_err(|e| malformed(kernel, e))
    };
    let section_names = match table.is_empty() {
        false => header
            .section_strings_index(LE, bytes)
            .map_err(|e| malformed(kernel, e))
            .and_then(names)?,
        true => &[],
    };
    let symbol_names = match symbols.is_empty() {
        false => names(symbols.string_section())?,
        true => &[],
    };
    let mut reader = Reader {
        kernel,
        bytes,
        table: &table,
        section_names,
        symbol_table: &symbols,
        symbol_names,
        architecture,
        loaded: vec![None; table.len()],
        sections: Vec::new(),
        zeroed_left: MAX_ZEROED,
        name_bytes_left: bytes.len().saturating_mul(MAX_NAMES),
    };
    reader.read_sections()?;
    let (symbols, functions) = reader.read_symbols()?;
    reader.read_relocations(&symbols)?;
    Ok(ObjectFile {
        kernel,
        architecture,
        sections: reader.sections,
        symbols,
        functions,
    })
}

struct Reader<'a, 'data> {
    kernel: &'data str,
    bytes: &'data [u8],
    table: &'a SectionTable<'data, Header>,
    section_names: &'data [u8],
    symbol_table: &'a SymbolTable<'data, Header>,
    symbol_names: &'data [u8],
    architecture: Architecture,
    /// Which of ours each section of the file is, if it is loaded.
    loaded: Vec<Option<usize>>,
    sections: Vec<Section<'data>>,
    /// How much more memory the object may ask for beyond its own bytes.
    zeroed_left: u64,
    /// How many more bytes of names are read.
    name_bytes_left: usize,
}

impl<'data> Reader<'_, 'data> {
    fn malformed(&self, reason: impl std::fmt::Display) -> Error {
        malformed(self.kernel, reason)
    }

    fn unsupported(&self, feature: impl Into<String>) -> Error {
        unsupported(self.kernel, feature)
    }

    /// The name that begins at an offset into a table of names. `object` would look for its end
    /// with `memchr`, which asks the processor for what it can do when it is first called: 50 µs
    /// where a hypervisor answers, as long as all else takes for ten objects.
    fn name(&mut self, names: &'data [u8], offset: u32) -> Result<&'data str, Error> {
        let name = names.get(offset as usize..);
        let name = name.and_then(|name| CStr::from_bytes_until_nul(name).ok());
        let name = name.ok_or_else(|| self.malformed("a name in it lies outside its table"))?;
        let left = self.name_bytes_left.checked_sub(name.count_bytes());
        self.name_bytes_left = left.ok_or_else(|| self.malformed("its names overlap"))?;
        let name = name.to_str();
        name.map_err(|_| self.malformed("a name in it is not UTF-8"))
    }

    // ---- Sections

    /// Which sections are loaded, and as which of ours. Together they hold no more
    /// than the file does, or some of them lie on top of each other, and a small file
    /// could ask for any amount of memory.
    fn read_sections(&mut self) -> Result<(), Error> {
        let repeated = self.repeated_group_members()?;
        let mut bytes_left = self.bytes.len();
        for (index, header) in self.table.enumerate() {
            let name = self.name(self.section_names, header.sh_name(LE))?;
            if repeated.contains(&index.0) {
                continue;
            }
            if let Some(section) = self.section(name, header)? {
                bytes_left = bytes_left
                    .checked_sub(section.data.len())
                    .ok_or_else(|| self.malformed("its sections overlap"))?;
                // What it lacks in the file, and what pads it to its alignment.
                let more = section.size - section.data.len() as u64;
                self.ask_for(more.saturating_add(section.align), section.name)?;
                self.loaded[index.0] = Some(self.sections.len());
                self.sections.push(section);
            }
        }
        Ok(())
    }

    /// The members of section groups of which the object has an earlier copy: a
    /// linker that joined objects may leave both.
    fn repeated_group_members(&mut self) -> Result<HashSet<usize>, Error> {
        let mut signatures = HashSet::new();
        let mut repeated = HashSet::new();
        let mut bytes_left = self.bytes.len();
        for header in self.table.iter() {
            let group = header.group(LE, self.bytes);
            let Some((flags, members)) = group.map_err(|e| self.malformed(e))? else {
                continue;
            };
            // The members, and the flags before them.
            bytes_left = bytes_left
                .checked_sub(size_of_val(members) + size_of_val(&flags))
                .ok_or_else(|| self.malformed("its section groups overlap"))?;
            if header.link(LE) != self.symbol_table.section() {
                return Err(self.malformed("a section group refers to another symbol table"));
            }
            let signature = object::SymbolIndex(header.sh_info(LE) as usize);
            let signature = self.symbol_table.symbol(signature);
            let signature = signature.map_err(|e| self.malformed(e))?;
            let signature = self.name(self.symbol_names, signature.st_name(LE))?;
            let is_comdat = flags.0 & elf::GRP_COMDAT.0 != 0;
            if is_comdat && !signature.is_empty() && !signatures.insert(signature) {
                repeated.extend(members.iter().map(|m| m.get(LE) as usize));
            }
        }
        Ok(repeated)
    }

    /// The section as it is loaded, or `None` where it is not.
    fn section(
        &self,
        name: &'data str,
        header: &'data SectionHeader64,
    ) -> Result<Option<Section<'data>>, Error> {
        let flags = header.sh_flags(LE);
        let kind = header.sh_type(LE);
        let size = header.sh_size(LE);
        let has = |flag: elf::SectionFlags| flags.0 & flag.0 != 0;
        // Unwind tables are read by debuggers alone; their absence harms no call.
        let unwind = matches!(name, ".eh_frame" | ".sframe")
            || self.architecture == Architecture::X86_64 && kind == elf::SHT_X86_64_UNWIND;
        // Notes describe the object; compilers mark them as loaded all the same.
        if !has(elf::SHF_ALLOC) || unwind || kind == elf::SHT_NOTE {
            return Ok(None);
        }
        if has(elf::SHF_COMPRESSED) {
            return Err(self.unsupported(format!("section `{name}` is compressed")));
        }
        if has(elf::SHF_TLS) && size > 0 {
            return Err(self.unsupported(format!("section `{name}` is thread-local")));
        }
        let starts = |prefixes: &[&str]| {
            let rest = |prefix: &&str| name.strip_prefix(*prefix);
            let mut rests = prefixes.iter().filter_map(rest);
            rests.any(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let runs_by_itself = matches!(
            kind,
            elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY
        ) || starts(&[
            ".ctors",
            ".dtors",
            ".init",
            ".fini",
            ".init_array",
            ".fini_array",
            ".preinit_array",
        ]);
        if runs_by_itself && size > 0 {
            return Err(self.unsupported(format!(
                "section `{name}` holds constructors or destructors, which nothing would run"
            )));
        }
        match kind {
            elf::SHT_PROGBITS | elf::SHT_NOBITS => {}
            _ if runs_by_itself => return Ok(None),
            other => {
                return Err(
                    self.unsupported(format!("section `{name}` is of the ELF type {}", other.0))
                );
            }
        }
        // Constants that hold addresses are writable to a dynamic linker only; large code has
        // them in a section of another name.
        let constant = starts(&[".data.rel.ro", ".ldata.rel.ro"]);
        let rights = match (has(elf::SHF_EXECINSTR), has(elf::SHF_WRITE) && !constant) {
            (true, true) => {
                return Err(self.unsupported(format!(
                    "section `{name}` is writable and executable at once"
                )));
            }
            (true, false) => Rights::Code,
            (false, true) => Rights::Data,
            (false, false) => Rights::Constants,
        };
        if kind == elf::SHT_NOBITS && rights == Rights::Code && size > 0 {
            return Err(self.unsupported(format!("section `{name}` is code without bytes")));
        }
        let data = if size == 0 || kind == elf::SHT_NOBITS {
            &[]
        } else {
            let data = header.data(LE, self.bytes);
            data.map_err(|e| self.malformed(e))?
        };
        Ok(Some(Section {
            name,
            data,
            size,
            align: self.alignment(format_args!("section `{name}`"), header.sh_addralign(LE))?,
            rights,
            relocations: Vec::new(),
        }))
    }

    fn alignment(&self, what: std::fmt::Arguments<'_>, align: u64) -> Result<u64, Error> {
        let align = align.max(1);
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(self.unsupported(format!(
                "{what} wants an alignment of {align} bytes; a page, {MAX_ALIGN} bytes, is the \
                 most that can be served"
            )));
        }
        Ok(align)
    }

    fn ask_for(&mut self, bytes: u64, name: &str) -> Result<(), Error> {
        self.zeroed_left = self.zeroed_left.checked_sub(bytes).ok_or_else(|| {
            self.unsupported(format!(
                "`{name}` asks for {bytes} bytes of zeroed memory and padding; an object may \
                 have {MAX_ZEROED} beyond its own bytes"
            ))
        })?;
        Ok(())
    }

    // ---- Symbols

    fn read_symbols(&mut self) -> Result<(Vec<Symbol<'data>>, Functions<'data>), Error> {
        let table = self.symbol_table;
        let mut symbols: Vec<Symbol<'_>> = Vec::with_capacity(table.len());
        // What other objects could see, to the symbol that defines it.
        let mut definitions: HashMap<&str, usize> = HashMap::new();
        let mut replaceable = Vec::new();
        for (index, symbol) in table.enumerate() {
            let name = self.name(self.symbol_names, symbol.st_name(LE))?;
            if name == SLIM_LTO {
                return Err(self.unsupported(
                    "it holds code for link-time optimisation alone; compile it with -fno-lto",
                ));
            }
            match symbol.st_type() {
                elf::STT_TLS => {
                    return Err(self
                        .unsupported(format!("`{name}` is thread-local, which no kernel may be")));
                }
                elf::STT_GNU_IFUNC => {
                    return Err(self
                        .unsupported(format!("`{name}` is an indirect function (STT_GNU_IFUNC)")));
                }
                _ => {}
            }
            let section = || {
                let section = table.symbol_section(LE, symbol, index);
                section.map_err(|e| self.malformed(e))
            };
            let at = match symbol.st_shndx(LE) {
                elf::SHN_UNDEF if name == TABLE_NAME => SymbolAt::Table,
                elf::SHN_UNDEF => SymbolAt::Undefined,
                elf::SHN_ABS => SymbolAt::Absolute(symbol.st_value(LE)),
                elf::SHN_COMMON => self.common(name, symbol)?,
                index if self.is_large_common(index) => self.common(name, symbol)?,
                _ => self.in_section(name, symbol.st_value(LE), section()?)?,
            };
            let weak = symbol.st_bind() == elf::STB_WEAK;
            let global = symbol.st_bind() != elf::STB_LOCAL;
            if global && (weak || at == SymbolAt::NotLoaded) {
                replaceable.push(symbols.len());
            }
            if global && matches!(at, SymbolAt::Section { .. } | SymbolAt::Absolute(_)) {
                match definitions.get(name).map(|&earlier| &symbols[earlier]) {
                    Some(earlier) if !weak && !earlier.weak => {
                        return Err(self.malformed(format!("it defines `{name}` twice")));
                    }
                    Some(_) if weak => {}
                    _ => drop(definitions.insert(name, symbols.len())),
                }
            }
            symbols.push(Symbol {
                name,
                at,
                size: symbol.st_size(LE),
                weak,
            });
        }
        // What is another copy of its group, or weak, gives way to the definition.
        for i in replaceable {
            if let Some(&definition) = definitions.get(symbols[i].name) {
                symbols[i].at = symbols[definition].at;
                symbols[i].size = symbols[definition].size;
            }
        }
        let is_function = |(_, i): &(&str, usize)| {
            let callable = table
                .symbol(object::SymbolIndex(*i))
                .is_ok_and(|s| matches!(s.st_type(), elf::STT_FUNC | elf::STT_NOTYPE));
            callable
                && matches!(symbols[*i].at, SymbolAt::Section { section, .. }
                    if self.sections[section].rights.executes())
        };
        let functions = definitions.into_iter().filter(is_function).collect();
        Ok((symbols, functions))
    }

    fn in_section(
        &self,
        name: &str,
        offset: u64,
        section: Option<object::SectionIndex>,
    ) -> Result<SymbolAt, Error> {
        let section = section.and_then(|s| self.loaded.get(s.0).copied());
        let section =
            section.ok_or_else(|| self.malformed(format!("symbol `{name}` is in no section")))?;
        let Some(section) = section else {
            return Ok(SymbolAt::NotLoaded);
        };
        if offset > self.sections[section].size {
            return Err(self.malformed(format!("symbol `{name}` lies outside its section")));
        }
        Ok(SymbolAt::Section { section, offset })
    }

    /// Whether a symbol is common in code of the medium model, and large.
    fn is_large_common(&self, section: elf::SymbolSection) -> bool {
        const SHN_X86_64_LCOMMON: u16 = 0xff02;
        self.architecture == Architecture::X86_64 && section.0 == SHN_X86_64_LCOMMON
    }

    /// Room of its own for a common symbol: a variable that C code left without a
    /// value. Its value in the file is its alignment.
    fn common(
        &mut self,
        name: &'data str,
        symbol: &elf::Sym64<LittleEndian>,
    ) -> Result<SymbolAt, Error> {
        let (size, align) = (symbol.st_size(LE), symbol.st_value(LE));
        let align = self.alignment(format_args!("the common symbol `{name}`"), align)?;
        // Many small ones with a large alignment take as much as a few large ones.
        self.ask_for(size.saturating_add(align), name)?;
        self.sections.push(Section {
            name: COMMON,
            data: &[],
            size,
            align,
            rights: Rights::Data,
            relocations: Vec::new(),
        });
        Ok(SymbolAt::Section {
            section: self.sections.len() - 1,
            offset: 0,
        })
    }

    // ---- Relocations

    /// What errors call a relocation.
    fn relocation_name(&self, number: elf::RelocationType) -> String {
        match self.architecture.relocation_name(number) {
            Some(name) => name.to_owned(),
            None => format!("number {}", number.0),
        }
    }

    fn read_relocations(&mut self, symbols: &[Symbol<'data>]) -> Result<(), Error> {
        let mut bytes_left = self.bytes.len();
        for header in self.table.iter() {
            let form = match header.sh_type(LE) {
                elf::SHT_RELA => "RELA",
                elf::SHT_REL => "REL",
                elf::SHT_RELR => "RELR",
                elf::SHT_CREL => "CREL",
                _ => continue,
            };
            let target = self.loaded.get(header.sh_info(LE) as usize).copied();
            let target = target
                .ok_or_else(|| self.malformed(format!("a {form} section patches no section")))?;
            if form == "RELA" && header.link(LE) != self.symbol_table.section() {
                return Err(self.malformed("relocations refer to another symbol table"));
            }
            let Some(target) = target else { continue };
            if form != "RELA" {
                return Err(self.unsupported(format!(
                    "relocations in another form than RELA (SHT_{form})"
                )));
            }
            let entries = header.rela(LE, self.bytes);
            let Some((entries, _)) = entries.map_err(|e| self.malformed(e))? else {
                continue;
            };
            bytes_left = bytes_left
                .checked_sub(size_of_val(entries))
                .ok_or_else(|| self.malformed("its relocation sections overlap"))?;
            let mut relocations = Vec::with_capacity(entries.len());
            for entry in entries {
                let relocation = self.relocation(&self.sections[target], symbols, entry)?;
                // A note to other tools asks nothing of this one, not even the symbol.
                if relocation.kind != Kind::NOTHING {
                    relocations.push(relocation);
                }
            }
            self.sections[target].relocations.append(&mut relocations);
        }
        Ok(())
    }

    fn relocation(
        &self,
        section: &Section<'_>,
        symbols: &[Symbol<'_>],
        entry: &elf::Rela64<LittleEndian>,
    ) -> Result<Relocation, Error> {
        let number = entry.r_type(LE, false);
        let kind = self.architecture.relocation(number).ok_or_else(|| {
            self.unsupported(format!(
                "the relocation {} in section `{}`",
                self.relocation_name(number),
                section.name
            ))
        })?;
        let (offset, addend) = (entry.r_offset(LE), entry.r_addend(LE));
        let symbol = entry.r_sym(LE, false) as usize;
        let Some(referred) = symbols.get(symbol) else {
            return Err(self.malformed("a relocation refers to no symbol"));
        };
        if referred.at == SymbolAt::NotLoaded {
            return Err(self.malformed(format!(
                "section `{}` refers to `{}`, which is not loaded",
                section.name, referred.name
            )));
        }
        if kind.compute == Compute::Size && referred.at == SymbolAt::Undefined {
            return Err(self.unsupported(format!(
                "the relocation {} in section `{}`: nobody knows the size of `{}`",
                self.relocation_name(number),
                section.name,
                referred.name
            )));
        }
        // A slot holds an address, not one with a number added: x86-64 adds it to
        // the slot's own, to reach it from the end of an instruction.
        if self.architecture == Architecture::Aarch64 && kind.compute.needs_slot() && addend != 0 {
            return Err(self.unsupported(format!(
                "the relocation {} with an addend in section `{}`",
                self.relocation_name(number),
                section.name
            )));
        }
        let end = offset.checked_add(kind.field.width.into());
        if end.is_none_or(|end| end > section.data.len() as u64) {
            return Err(self.malformed(format!(
                "a relocation lies outside section `{}`",
                section.name
            )));
        }
        Ok(Relocation {
            offset,
            kind,
            elf: number,
            symbol,
            addend,
        })
    }
}
