//! Objects, made by hand, and what they are linked to.

use std::collections::HashMap;

pub(crate) use object::elf::{self, RelocationType};
pub(crate) use object::write::{
    Comdat, Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection,
};
pub(crate) use object::{
    BinaryFormat, ComdatKind, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope,
};
pub(crate) use svod_runtime::Error;
pub(crate) use svod_runtime::link::Architecture::{self, Aarch64, X86_64};
pub(crate) use svod_runtime::link::{Definition, ObjectFile, Resolver, Rights, layout, link};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const BASE: u64 = 0x6000_0000_0000;
/// Where in the code the field that is relocated begins.
pub(crate) const AT: u64 = 64;
/// What is around it.
pub(crate) const AROUND: u8 = 0xa5;

/// An object with code that is 128 bytes of `AROUND`, entered at its start by `k`.
pub(crate) struct Made {
    pub(crate) object: Object<'static>,
    pub(crate) text: SectionId,
}

impl Made {
    pub(crate) fn new(architecture: Architecture) -> Made {
        let architecture = match architecture {
            X86_64 => object::Architecture::X86_64,
            Aarch64 => object::Architecture::Aarch64,
        };
        let mut object = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
        let text = object.add_section(vec![], b".text".to_vec(), SectionKind::Text);
        object.append_section_data(text, &[AROUND; 128], 64);
        let mut made = Made { object, text };
        made.define("k", text, 0, false);
        made
    }

    pub(crate) fn section(
        &mut self,
        name: &str,
        kind: SectionKind,
        data: &[u8],
        align: u64,
    ) -> SectionId {
        let section = self.object.add_section(vec![], name.into(), kind);
        self.object.append_section_data(section, data, align);
        section
    }

    pub(crate) fn symbol(
        &mut self,
        name: &str,
        section: SymbolSection,
        value: u64,
        weak: bool,
    ) -> SymbolId {
        self.object.add_symbol(Symbol {
            name: name.into(),
            value,
            size: 40,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak,
            section,
            flags: SymbolFlags::None,
        })
    }

    pub(crate) fn define(
        &mut self,
        name: &str,
        section: SectionId,
        at: u64,
        weak: bool,
    ) -> SymbolId {
        self.symbol(name, SymbolSection::Section(section), at, weak)
    }

    pub(crate) fn undefined(&mut self, name: &str) -> SymbolId {
        self.symbol(name, SymbolSection::Undefined, 0, false)
    }

    pub(crate) fn relocate_in(
        &mut self,
        section: SectionId,
        at: u64,
        kind: RelocationType,
        symbol: SymbolId,
        addend: i64,
    ) {
        let relocation = Relocation {
            offset: at,
            symbol,
            addend,
            flags: RelocationFlags::Elf { r_type: kind },
        };
        self.object.add_relocation(section, relocation).unwrap();
    }

    pub(crate) fn relocate(
        &mut self,
        at: u64,
        kind: RelocationType,
        symbol: SymbolId,
        addend: i64,
    ) {
        self.relocate_in(self.text, at, kind, symbol, addend);
    }

    /// Puts an instruction, or any word, where the code is.
    pub(crate) fn word(&mut self, at: u64, word: u32) {
        let data = self.object.section_mut(self.text).data_mut();
        data[at as usize..][..4].copy_from_slice(&word.to_le_bytes());
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.object.write().unwrap()
    }

    pub(crate) fn link(&self, base: u64, symbols: &At) -> Result<Linked, Error> {
        let bytes = self.bytes();
        let file = ObjectFile::parse("k", &bytes)?;
        let layout = layout(&file, PAGE);
        let image = link(&file, &layout, base, symbols)?;
        assert_eq!(layout.function(&file, "k"), Some(0), "the code comes first");
        Ok(Linked { base, image })
    }
}

pub(crate) struct Linked {
    pub(crate) base: u64,
    pub(crate) image: Vec<u8>,
}

impl Linked {
    pub(crate) fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        self.image[at as usize..][..N].try_into().unwrap()
    }

    /// The 64 bits at an address of the image.
    pub(crate) fn word_at(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address - self.base))
    }

    pub(crate) fn instruction(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn signed32(&self, at: u64) -> i64 {
        i32::from_le_bytes(self.bytes(at)).into()
    }

    pub(crate) fn signed64(&self, at: u64) -> i64 {
        i64::from_le_bytes(self.bytes(at))
    }
}

/// A resolver from a list.
pub(crate) struct At(pub(crate) HashMap<&'static str, Definition>);

impl At {
    pub(crate) fn none() -> At {
        At(HashMap::new())
    }

    pub(crate) fn data(name: &'static str, address: u64) -> At {
        At([(name, Definition::Data(address))].into())
    }

    pub(crate) fn function(name: &'static str, address: u64) -> At {
        At([(name, Definition::Function(address))].into())
    }
}

impl Resolver for At {
    fn resolve(&self, name: &str) -> Option<Definition> {
        self.0.get(name).copied()
    }
}

/// An object whose only relocation is this one, against a symbol `x` elsewhere.
pub(crate) fn one(
    architecture: Architecture,
    kind: RelocationType,
    word: Option<u32>,
    addend: i64,
) -> Made {
    let mut made = Made::new(architecture);
    let x = made.undefined("x");
    if let Some(word) = word {
        made.word(AT, word);
    }
    made.relocate(AT, kind, x, addend);
    made
}

#[track_caller]
pub(crate) fn assert_overflow(result: Result<Linked, Error>, name: &str) {
    match result {
        Err(error @ Error::RelocationOverflow { .. }) => {
            let message = error.to_string();
            for part in ["`k`", name, ".text+0x40", "`x`"] {
                assert!(message.contains(part), "{part} in: {message}");
            }
        }
        Err(error) => panic!("{name}: {error}"),
        Ok(_) => panic!("{name}: a value that does not fit was cut"),
    }
}

pub(crate) fn name_of(architecture: Architecture, kind: RelocationType) -> &'static str {
    let names = match architecture {
        X86_64 => &elf::NAMES_R_X86_64,
        Aarch64 => &elf::NAMES_R_AARCH64,
    };
    names.name(kind).unwrap()
}

/// The signed number in `count` bits from bit `at` of a word.
pub(crate) fn bits(word: u32, at: u32, count: u32) -> i64 {
    i64::from((word << (32 - at - count)).cast_signed() >> (32 - count))
}

pub(crate) fn adr(word: u32) -> i64 {
    bits(word, 5, 19) << 2 | i64::from(word >> 29 & 3)
}

/// Where a stub at an address of the image leads to.
pub(crate) fn follow(linked: &Linked, architecture: Architecture, stub: u64) -> u64 {
    let at = stub - linked.base;
    match architecture {
        X86_64 => {
            assert_eq!(linked.bytes::<2>(at), [0xff, 0x25], "jmp *(%rip)");
            linked.word_at((stub + 6).wrapping_add_signed(linked.signed32(at + 2)))
        }
        Aarch64 => {
            let [adrp, ldr, br] = [0, 4, 8].map(|i| linked.instruction(at + i));
            assert_eq!(adrp & 0x9f00_001f, 0x9000_0010, "adrp x16");
            assert_eq!(ldr & 0xffc0_03ff, 0xf940_0210, "ldr x16, [x16]");
            assert_eq!(br, 0xd61f_0200, "br x16");
            let page = (stub & !0xfff).wrapping_add_signed(adr(adrp) << 12);
            linked.word_at(page + u64::from(ldr >> 10 & 0xfff) * 8)
        }
    }
}

pub(crate) const FAR: u64 = 0x1000;
