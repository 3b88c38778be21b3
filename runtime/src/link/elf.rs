//! An object file, read and checked once, in the few terms that linking needs.

use std::collections::HashMap;

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, Rela as _, SectionHeader, Sym as _};

use super::x86_64;
use crate::Error;

/// The largest alignment, in bytes, that a section may ask for. An image begins
/// at a page, and this is the smallest page there is.
pub(super) const MAX_ALIGN: u64 = 4096;

/// A section that takes part in the image.
#[derive(Debug)]
pub(super) struct Section<'data> {
    pub(super) name: &'data str,
    pub(super) data: &'data [u8],
    pub(super) align: u64,
    pub(super) executable: bool,
    pub(super) relocations: Vec<Relocation>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    pub(super) offset: u64,
    pub(super) kind: x86_64::Kind,
    /// Index into [`ObjectFile::symbols`].
    pub(super) symbol: usize,
    pub(super) addend: i64,
}

#[derive(Debug)]
pub(super) struct Symbol<'data> {
    pub(super) name: &'data str,
    pub(super) at: SymbolAt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SymbolAt {
    /// In a section of [`ObjectFile::sections`], so many bytes in.
    Section { section: usize, offset: u64 },
    /// At a fixed address.
    Absolute(u64),
    /// Elsewhere: the runtime's list says where.
    Undefined,
    /// In a part of the file that is not loaded, or nowhere.
    NotLoaded,
}

/// An object file that can be linked: what it holds is understood.
#[derive(Debug)]
pub struct ObjectFile<'data> {
    pub(super) kernel: &'data str,
    pub(super) sections: Vec<Section<'data>>,
    pub(super) symbols: Vec<Symbol<'data>>,
    /// Functions that an image can be entered by, to their symbols.
    pub(super) functions: HashMap<&'data str, usize>,
}

type Header = elf::FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

impl<'data> ObjectFile<'data> {
    /// Reads an object file; `kernel` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedObject`] for bytes that contradict themselves,
    /// [`Error::UnsupportedObject`] and [`Error::WritableSection`] for what
    /// this linker refuses, by name.
    pub fn parse(kernel: &'data str, bytes: &'data [u8]) -> Result<ObjectFile<'data>, Error> {
        Reader { kernel }.read(bytes)
    }

    /// Whether `name` is a function that this object defines.
    pub(super) fn function(&self, name: &str) -> Option<&Symbol<'data>> {
        self.functions.get(name).map(|&i| &self.symbols[i])
    }
}

struct Reader<'data> {
    kernel: &'data str,
}

impl<'data> Reader<'data> {
    fn malformed(&self, reason: impl std::fmt::Display) -> Error {
        Error::MalformedObject {
            kernel: self.kernel.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn unsupported(&self, feature: impl Into<String>) -> Error {
        Error::UnsupportedObject {
            kernel: self.kernel.to_owned(),
            feature: feature.into(),
        }
    }

    fn read(&self, bytes: &'data [u8]) -> Result<ObjectFile<'data>, Error> {
        let header = self.header(bytes)?;
        let table = header.sections(LE, bytes).map_err(|e| self.malformed(e))?;

        // Which sections are loaded, and as which of ours. Together they hold no
        // more than the file does, or some of them lie on top of each other, and
        // a small file could ask for any amount of memory.
        let mut loaded = vec![None; table.len()];
        let mut sections = Vec::new();
        let mut bytes_left = bytes.len();
        for (index, section) in table.enumerate() {
            let name = table
                .section_name(LE, section)
                .map_err(|e| self.malformed(e))?;
            let name = self.text(name)?;
            if let Some(section) = self.section(bytes, name, section)? {
                bytes_left = bytes_left
                    .checked_sub(section.data.len())
                    .ok_or_else(|| self.malformed("its sections overlap"))?;
                loaded[index.0] = Some(sections.len());
                sections.push(section);
            }
        }

        let symbol_table = table
            .symbols(LE, bytes, elf::SHT_SYMTAB)
            .map_err(|e| self.malformed(e))?;
        // Names may share their ends, and no more: many that are one long name over
        // again would take time to no end.
        let mut name_bytes_left = bytes.len().saturating_mul(16);
        let mut symbols = Vec::with_capacity(symbol_table.len());
        let mut functions = HashMap::new();
        for (index, symbol) in symbol_table.enumerate() {
            let name = symbol_table
                .symbol_name(LE, symbol)
                .map_err(|e| self.malformed(e))?;
            name_bytes_left = name_bytes_left
                .checked_sub(name.len())
                .ok_or_else(|| self.malformed("its symbols' names overlap"))?;
            let name = self.text(name)?;
            let at = match symbol.st_shndx(LE) {
                elf::SHN_UNDEF => SymbolAt::Undefined,
                elf::SHN_ABS => SymbolAt::Absolute(symbol.st_value(LE)),
                elf::SHN_COMMON => {
                    return Err(Error::WritableSection {
                        kernel: self.kernel.to_owned(),
                        section: format!("COMMON ({name})"),
                        bytes: symbol.st_size(LE),
                    });
                }
                _ => {
                    let section = symbol_table
                        .symbol_section(LE, symbol, index)
                        .map_err(|e| self.malformed(e))?;
                    let section =
                        section
                            .and_then(|s| loaded.get(s.0).copied())
                            .ok_or_else(|| {
                                self.malformed(format!("symbol `{name}` is in no section"))
                            })?;
                    match section {
                        Some(section) => {
                            let offset = symbol.st_value(LE);
                            if offset > sections[section].data.len() as u64 {
                                return Err(self.malformed(format!(
                                    "symbol `{name}` lies outside its section"
                                )));
                            }
                            SymbolAt::Section { section, offset }
                        }
                        None => SymbolAt::NotLoaded,
                    }
                }
            };
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
            let callable = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_NOTYPE)
                && symbol.st_bind() != elf::STB_LOCAL
                && matches!(at, SymbolAt::Section { section, .. } if sections[section].executable);
            if callable && functions.insert(name, symbols.len()).is_some() {
                return Err(self.malformed(format!("it defines `{name}` twice")));
            }
            symbols.push(Symbol { name, at });
        }

        let mut bytes_left = bytes.len();
        for section in table.iter() {
            let other_table = section.link(LE) != symbol_table.section();
            if section.sh_type(LE) == elf::SHT_RELA && other_table {
                return Err(self.malformed("relocations refer to another symbol table"));
            }
            self.relocations(
                bytes,
                section,
                &loaded,
                &mut sections,
                &symbols,
                &mut bytes_left,
            )?;
        }
        Ok(ObjectFile {
            kernel: self.kernel,
            sections,
            symbols,
            functions,
        })
    }

    fn text(&self, bytes: &'data [u8]) -> Result<&'data str, Error> {
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a name in it is not UTF-8"))
    }

    fn header(&self, bytes: &'data [u8]) -> Result<&'data Header, Error> {
        match object::FileKind::parse(bytes) {
            Ok(object::FileKind::Elf64) => {}
            Ok(object::FileKind::Elf32) => {
                return Err(self.unsupported("it is a 32-bit ELF file, not a 64-bit one"));
            }
            Ok(other) => return Err(self.unsupported(format!("it is no ELF file ({other:?})"))),
            Err(_) => return Err(self.malformed("it is no object file")),
        }
        let header = Header::parse(bytes).map_err(|e| self.malformed(e))?;
        if !header.is_little_endian() {
            return Err(self.unsupported("it is big-endian"));
        }
        match header.e_type(LE) {
            elf::ET_REL => {}
            elf::ET_DYN => {
                return Err(self.unsupported("it is a shared object, not a relocatable one"));
            }
            elf::ET_EXEC => {
                return Err(self.unsupported("it is a program, not a relocatable object"));
            }
            other => return Err(self.unsupported(format!("its ELF type is {}", other.0))),
        }
        match header.e_machine(LE) {
            elf::EM_X86_64 => Ok(header),
            elf::EM_AARCH64 => Err(self.unsupported("it is for aarch64, this linker does x86-64")),
            other => Err(self.unsupported(format!(
                "it is for the ELF machine {}, this linker does x86-64",
                other.0
            ))),
        }
    }

    /// The section as it is loaded, or `None` where it is not.
    fn section(
        &self,
        bytes: &'data [u8],
        name: &'data str,
        header: &'data elf::SectionHeader64<LittleEndian>,
    ) -> Result<Option<Section<'data>>, Error> {
        let flags = header.sh_flags(LE);
        let kind = header.sh_type(LE);
        let has = |flag: elf::SectionFlags| flags.0 & flag.0 != 0;
        // Unwind tables are read by debuggers alone; their absence harms no call.
        let skipped = kind == elf::SHT_X86_64_UNWIND || name == ".eh_frame";
        // Notes describe the object; compilers mark them as loaded all the same.
        if !has(elf::SHF_ALLOC) || skipped || kind == elf::SHT_NOTE {
            return Ok(None);
        }
        if has(elf::SHF_COMPRESSED) {
            return Err(self.unsupported(format!("section `{name}` is compressed")));
        }
        if has(elf::SHF_TLS) && header.sh_size(LE) > 0 {
            return Err(self.unsupported(format!("section `{name}` is thread-local")));
        }
        match kind {
            elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY => {
                return Err(self.unsupported(format!(
                    "section `{name}` holds constructors or destructors, which nothing would run"
                )));
            }
            elf::SHT_PROGBITS | elf::SHT_NOBITS => {}
            other => {
                return Err(
                    self.unsupported(format!("section `{name}` is of the ELF type {}", other.0))
                );
            }
        }
        // Constants that hold addresses are writable to a dynamic linker only.
        let constant = name == ".data.rel.ro" || name.starts_with(".data.rel.ro.");
        if has(elf::SHF_WRITE) && !constant {
            // Compilers write empty .data and .bss sections into every object.
            if header.sh_size(LE) == 0 {
                return Ok(None);
            }
            return Err(Error::WritableSection {
                kernel: self.kernel.to_owned(),
                section: name.to_owned(),
                bytes: header.sh_size(LE),
            });
        }
        if kind == elf::SHT_NOBITS && header.sh_size(LE) > 0 {
            return Err(self.unsupported(format!("section `{name}` has no bytes in the file")));
        }
        let align = header.sh_addralign(LE).max(1);
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(self.unsupported(format!(
                "section `{name}` wants an alignment of {align} bytes; a page, {} bytes, is the \
                 most that can be served",
                MAX_ALIGN
            )));
        }
        let data = if header.sh_size(LE) == 0 {
            &[]
        } else {
            header.data(LE, bytes).map_err(|e| self.malformed(e))?
        };
        Ok(Some(Section {
            name,
            data,
            align,
            executable: has(elf::SHF_EXECINSTR),
            relocations: Vec::new(),
        }))
    }

    fn relocations(
        &self,
        bytes: &'data [u8],
        header: &'data elf::SectionHeader64<LittleEndian>,
        loaded: &[Option<usize>],
        sections: &mut [Section<'data>],
        symbols: &[Symbol<'data>],
        bytes_left: &mut usize,
    ) -> Result<(), Error> {
        let target = header.sh_info(LE) as usize;
        let target = |name: &str| match loaded.get(target) {
            Some(Some(section)) => Ok(Some(*section)),
            Some(None) => Ok(None),
            None => Err(self.malformed(format!("a {name} section patches no section"))),
        };
        match header.sh_type(LE) {
            elf::SHT_REL if target("REL")?.is_some() => {
                Err(self.unsupported("relocations without addends (SHT_REL)"))
            }
            elf::SHT_RELA => {
                let Some(target) = target("RELA")? else {
                    return Ok(());
                };
                let Some((entries, _)) = header.rela(LE, bytes).map_err(|e| self.malformed(e))?
                else {
                    return Ok(());
                };
                *bytes_left = bytes_left
                    .checked_sub(size_of_val(entries))
                    .ok_or_else(|| self.malformed("its relocation sections overlap"))?;
                let section = &mut sections[target];
                section.relocations.reserve(entries.len());
                for entry in entries {
                    let kind = entry.r_type(LE, false);
                    let kind = x86_64::Kind::from_elf(kind).ok_or_else(|| {
                        self.unsupported(format!(
                            "the relocation {} in section `{}`",
                            x86_64::elf_name(kind),
                            section.name
                        ))
                    })?;
                    let symbol = entry.r_sym(LE, false) as usize;
                    let offset = entry.r_offset(LE);
                    let Some(referred) = symbols.get(symbol) else {
                        return Err(self.malformed("a relocation refers to no symbol"));
                    };
                    if referred.at == SymbolAt::NotLoaded {
                        return Err(self.malformed(format!(
                            "section `{}` refers to `{}`, which is not loaded",
                            section.name, referred.name
                        )));
                    }
                    let end = offset.checked_add(kind.width() as u64);
                    if end.is_none_or(|end| end > section.data.len() as u64) {
                        return Err(self.malformed(format!(
                            "a relocation lies outside section `{}`",
                            section.name
                        )));
                    }
                    section.relocations.push(Relocation {
                        offset,
                        kind,
                        symbol,
                        addend: entry.r_addend(LE),
                    });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
