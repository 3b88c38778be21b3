//! Relocations, symbols and sections in each form that an object may hold, for both
//! architectures, made by hand: what each computes, where it ends, and what is refused.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;

use common::load_state;
use object::elf::{self, RelocationType};
use object::write::{Comdat, Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    BinaryFormat, ComdatKind, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope,
};
use svod_runtime::link::{Architecture, Definition, ObjectFile, Resolver, Rights, layout, link};
use svod_runtime::{DType, Error, Kernel, Signature};

use Architecture::{Aarch64, X86_64};

const PAGE: u64 = 4096;
const BASE: u64 = 0x6000_0000_0000;
/// Where in the code the field that is relocated begins.
const AT: u64 = 64;
/// What is around it.
const AROUND: u8 = 0xa5;

// ---- Objects, made by hand

/// An object with code that is 128 bytes of `AROUND`, entered at its start by `k`.
struct Made {
    object: Object<'static>,
    text: SectionId,
}

impl Made {
    fn new(architecture: Architecture) -> Made {
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

    fn section(&mut self, name: &str, kind: SectionKind, data: &[u8], align: u64) -> SectionId {
        let section = self.object.add_section(vec![], name.into(), kind);
        self.object.append_section_data(section, data, align);
        section
    }

    fn symbol(&mut self, name: &str, section: SymbolSection, value: u64, weak: bool) -> SymbolId {
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

    fn define(&mut self, name: &str, section: SectionId, at: u64, weak: bool) -> SymbolId {
        self.symbol(name, SymbolSection::Section(section), at, weak)
    }

    fn undefined(&mut self, name: &str) -> SymbolId {
        self.symbol(name, SymbolSection::Undefined, 0, false)
    }

    fn relocate_in(
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

    fn relocate(&mut self, at: u64, kind: RelocationType, symbol: SymbolId, addend: i64) {
        self.relocate_in(self.text, at, kind, symbol, addend);
    }

    /// Puts an instruction, or any word, where the code is.
    fn word(&mut self, at: u64, word: u32) {
        let data = self.object.section_mut(self.text).data_mut();
        data[at as usize..][..4].copy_from_slice(&word.to_le_bytes());
    }

    fn bytes(&self) -> Vec<u8> {
        self.object.write().unwrap()
    }

    fn link(&self, base: u64, symbols: &At) -> Result<Linked, Error> {
        let bytes = self.bytes();
        let file = ObjectFile::parse("k", &bytes)?;
        let layout = layout(&file, PAGE);
        let image = link(&file, &layout, base, symbols)?;
        assert_eq!(layout.function(&file, "k"), Some(0), "the code comes first");
        Ok(Linked { base, image })
    }
}

struct Linked {
    base: u64,
    image: Vec<u8>,
}

impl Linked {
    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        self.image[at as usize..][..N].try_into().unwrap()
    }

    /// The 64 bits at an address of the image.
    fn word_at(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address - self.base))
    }

    fn instruction(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn signed32(&self, at: u64) -> i64 {
        i32::from_le_bytes(self.bytes(at)).into()
    }

    fn signed64(&self, at: u64) -> i64 {
        i64::from_le_bytes(self.bytes(at))
    }
}

/// A resolver from a list.
struct At(HashMap<&'static str, Definition>);

impl At {
    fn none() -> At {
        At(HashMap::new())
    }

    fn data(name: &'static str, address: u64) -> At {
        At([(name, Definition::Data(address))].into())
    }

    fn function(name: &'static str, address: u64) -> At {
        At([(name, Definition::Function(address))].into())
    }
}

impl Resolver for At {
    fn resolve(&self, name: &str) -> Option<Definition> {
        self.0.get(name).copied()
    }
}

/// An object whose only relocation is this one, against a symbol `x` elsewhere.
fn one(architecture: Architecture, kind: RelocationType, word: Option<u32>, addend: i64) -> Made {
    let mut made = Made::new(architecture);
    let x = made.undefined("x");
    if let Some(word) = word {
        made.word(AT, word);
    }
    made.relocate(AT, kind, x, addend);
    made
}

#[track_caller]
fn assert_overflow(result: Result<Linked, Error>, name: &str) {
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

fn name_of(architecture: Architecture, kind: RelocationType) -> &'static str {
    let names = match architecture {
        X86_64 => &elf::NAMES_R_X86_64,
        Aarch64 => &elf::NAMES_R_AARCH64,
    };
    names.name(kind).unwrap()
}

// ---- Fields of data

#[test]
fn a_field_of_data_takes_all_values_that_it_can_hold_and_no_others() {
    use elf::*;
    let unsigned = |bits: u32| (0, (1_i128 << bits) - 1);
    let signed = |bits: u32| (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1);
    let either = |bits: u32| (signed(bits).0, unsigned(bits).1);
    // The relocation, its width, whether it is relative to the place, its range.
    let rows = [
        (X86_64, R_X86_64_8, 1, false, either(8)),
        (X86_64, R_X86_64_16, 2, false, either(16)),
        (X86_64, R_X86_64_32, 4, false, unsigned(32)),
        (X86_64, R_X86_64_32S, 4, false, signed(32)),
        (X86_64, R_X86_64_64, 8, false, either(64)),
        (X86_64, R_X86_64_PC8, 1, true, signed(8)),
        (X86_64, R_X86_64_PC16, 2, true, signed(16)),
        (X86_64, R_X86_64_PC32, 4, true, signed(32)),
        (X86_64, R_X86_64_PLT32, 4, true, signed(32)),
        (X86_64, R_X86_64_PC64, 8, true, signed(64)),
        (Aarch64, R_AARCH64_ABS16, 2, false, either(16)),
        (Aarch64, R_AARCH64_ABS32, 4, false, either(32)),
        (Aarch64, R_AARCH64_ABS64, 8, false, either(64)),
        (Aarch64, R_AARCH64_PREL16, 2, true, either(16)),
        (Aarch64, R_AARCH64_PREL32, 4, true, either(32)),
        (Aarch64, R_AARCH64_PREL64, 8, true, signed(64)),
    ];
    for (architecture, kind, width, relative, (least, most)) in rows {
        let name = name_of(architecture, kind);
        let place = if relative { i128::from(BASE + AT) } else { 0 };
        for value in [least, least + 1, -1, 0, 1, most - 1, most] {
            // S and A that give the value, where there are such.
            for addend in [0, -4, 100] {
                let s = value + place - i128::from(addend);
                let (Ok(s), true) = (u64::try_from(s), (least..=most).contains(&value)) else {
                    continue;
                };
                let linked = one(architecture, kind, None, addend)
                    .link(BASE, &At::data("x", s))
                    .unwrap_or_else(|e| panic!("{name} {value:#x}: {e}"));
                let mut expected = [AROUND; 128];
                expected[AT as usize..][..width].copy_from_slice(&value.to_le_bytes()[..width]);
                assert_eq!(linked.bytes::<128>(0), expected, "{name} {value:#x}");
            }
        }
        // Beyond its ends: an address 64 bits wide cannot pass those of a 64-bit field.
        for value in [least - 1, most + 1] {
            if let Ok(s) = u64::try_from(value + place) {
                // Absolute: a call to what lies elsewhere may go through a stub.
                let mut made = Made::new(architecture);
                let x = made.symbol("x", object::write::SymbolSection::Absolute, s, false);
                made.relocate(AT, kind, x, 0);
                let result = made.link(BASE, &At::none());
                assert_overflow(result, name);
            }
        }
        if width == 8 && !relative {
            let made = one(architecture, kind, None, 1);
            assert_overflow(made.link(BASE, &At::data("x", u64::MAX)), name);
        }
    }
}

#[test]
fn a_relocation_that_does_nothing_asks_for_nothing() {
    for (architecture, kind) in [(X86_64, elf::R_X86_64_NONE), (Aarch64, elf::R_AARCH64_NONE)] {
        let linked = one(architecture, kind, None, 9)
            .link(BASE, &At::none())
            .unwrap();
        assert_eq!(linked.bytes::<128>(0), [AROUND; 128]);
    }
}

#[test]
fn a_size_is_the_symbols_size() {
    for (kind, width) in [(elf::R_X86_64_SIZE32, 4), (elf::R_X86_64_SIZE64, 8)] {
        let mut made = Made::new(X86_64);
        let text = made.text;
        let x = made.define("x", text, 16, false);
        made.relocate(AT, kind, x, 2);
        let linked = made.link(BASE, &At::none()).unwrap();
        let mut expected = [AROUND; 128];
        expected[AT as usize..][..width].copy_from_slice(&42_u64.to_le_bytes()[..width]);
        assert_eq!(linked.bytes::<128>(0), expected);

        let elsewhere = one(X86_64, kind, None, 0).link(BASE, &At::data("x", 7));
        assert!(
            matches!(elsewhere, Err(Error::UnsupportedObject { .. })),
            "nobody knows it"
        );
    }
}

#[test]
fn an_image_begins_at_a_page() {
    let made = Made::new(X86_64);
    let error = made.link(BASE + 64, &At::none()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("inside a page"), "{error}");
}

// ---- Fields of aarch64's instructions

/// The signed number in `count` bits from bit `at` of a word.
fn bits(word: u32, at: u32, count: u32) -> i64 {
    i64::from((word << (32 - at - count)).cast_signed() >> (32 - count))
}

fn adr(word: u32) -> i64 {
    bits(word, 5, 19) << 2 | i64::from(word >> 29 & 3)
}

#[test]
fn an_instruction_takes_the_distances_that_it_reaches_and_no_others() {
    use elf::*;
    type Decode = fn(u32) -> i64;
    // The relocation, an instruction, its distance in bytes, the ends, and the step.
    let rows: [(RelocationType, u32, Decode, i64, i64, i64); 6] = [
        (
            R_AARCH64_CALL26,
            0x9400_0000,
            |w| bits(w, 0, 26) << 2,
            -(1 << 27),
            (1 << 27) - 4,
            4,
        ),
        (
            R_AARCH64_JUMP26,
            0x1400_0000,
            |w| bits(w, 0, 26) << 2,
            -(1 << 27),
            (1 << 27) - 4,
            4,
        ),
        (
            R_AARCH64_CONDBR19,
            0x5400_0001,
            |w| bits(w, 5, 19) << 2,
            -(1 << 20),
            (1 << 20) - 4,
            4,
        ),
        (
            R_AARCH64_TSTBR14,
            0x3618_0001,
            |w| bits(w, 5, 14) << 2,
            -(1 << 15),
            (1 << 15) - 4,
            4,
        ),
        (
            R_AARCH64_LD_PREL_LO19,
            0x5800_0003,
            |w| bits(w, 5, 19) << 2,
            -(1 << 20),
            (1 << 20) - 4,
            4,
        ),
        (
            R_AARCH64_ADR_PREL_LO21,
            0x1000_0003,
            adr,
            -(1 << 20),
            (1 << 20) - 1,
            1,
        ),
    ];
    for (kind, instruction, decode, least, most, step) in rows {
        let name = name_of(Aarch64, kind);
        let made = one(Aarch64, kind, Some(instruction), 0);
        let link = |distance: i64| {
            made.link(
                BASE,
                &At::data("x", (BASE + AT).wrapping_add_signed(distance)),
            )
        };
        for distance in [least, least + step, -step, 0, step, most - step, most] {
            let linked = link(distance).unwrap();
            let word = linked.instruction(AT);
            assert_eq!(decode(word), distance, "{name}");
            // With a distance of 0 it is the instruction that it was.
            let again = link(0).unwrap();
            assert_eq!(again.instruction(AT), instruction, "{name}");
        }
        // What is part of the object, as an absolute symbol is, has no stub.
        let link = |distance: i64| {
            let mut made = Made::new(Aarch64);
            made.word(AT, instruction);
            let at = (BASE + AT).wrapping_add_signed(distance);
            let x = made.symbol("x", object::write::SymbolSection::Absolute, at, false);
            made.relocate(AT, kind, x, 0);
            made.link(BASE, &At::none())
        };
        assert!(link(most).is_ok() && link(least).is_ok());
        assert_overflow(link(most + step), name);
        assert_overflow(link(least - step), name);
        if step > 1 {
            assert_overflow(link(2), name);
        }
    }
}

#[test]
fn a_page_and_the_low_bits_make_the_address() {
    use elf::*;
    const ADRP: u32 = 0x9000_0001;
    // The low bits: the relocation, an instruction, and the size that it counts in.
    let rows = [
        (R_AARCH64_ADD_ABS_LO12_NC, 0x9100_0021_u32, 1),
        (R_AARCH64_LDST8_ABS_LO12_NC, 0x3940_0021, 1),
        (R_AARCH64_LDST16_ABS_LO12_NC, 0x7940_0021, 2),
        (R_AARCH64_LDST32_ABS_LO12_NC, 0xb940_0021, 4),
        (R_AARCH64_LDST64_ABS_LO12_NC, 0xf940_0021, 8),
        (R_AARCH64_LDST128_ABS_LO12_NC, 0x3dc0_0021, 16),
    ];
    for page_kind in [R_AARCH64_ADR_PREL_PG_HI21, R_AARCH64_ADR_PREL_PG_HI21_NC] {
        for (low_kind, instruction, size) in rows {
            let mut made = Made::new(Aarch64);
            let x = made.undefined("x");
            made.word(AT, ADRP);
            made.relocate(AT, page_kind, x, 0x30);
            made.word(AT + 4, instruction);
            made.relocate(AT + 4, low_kind, x, 0x30);
            for s in [
                BASE,
                BASE + 0x1234_5670,
                BASE - 0x7fff_fff0,
                BASE + 0xffff_0fd0 - 0x30,
            ] {
                let linked = made.link(BASE, &At::data("x", s)).unwrap();
                let page =
                    (BASE >> 12 << 12).wrapping_add_signed(adr(linked.instruction(AT)) << 12);
                let word = linked.instruction(AT + 4);
                let low = u64::from(word >> 10 & 0xfff) * size;
                assert_eq!(
                    page + low,
                    s + 0x30,
                    "{} at {s:#x}",
                    name_of(Aarch64, low_kind)
                );
                assert_eq!(word & !(0xfff << 10), instruction);
            }
            if size > 1 {
                let odd = made.link(BASE, &At::data("x", BASE + 0x1001));
                assert!(matches!(odd, Err(Error::RelocationOverflow { .. })));
            }
        }
    }
    let made = one(Aarch64, R_AARCH64_ADR_PREL_PG_HI21, Some(ADRP), 0);
    for far in [BASE + (1 << 32), BASE - (1 << 32) - PAGE] {
        assert_overflow(
            made.link(BASE, &At::data("x", far)),
            "R_AARCH64_ADR_PREL_PG_HI21",
        );
    }
}

#[test]
fn four_moves_make_an_address() {
    use elf::*;
    let mut made = Made::new(Aarch64);
    let x = made.undefined("x");
    let kinds = [
        (R_AARCH64_MOVW_UABS_G0_NC, 0xd280_0001_u32),
        (R_AARCH64_MOVW_UABS_G1_NC, 0xf2a0_0001),
        (R_AARCH64_MOVW_UABS_G2_NC, 0xf2c0_0001),
        (R_AARCH64_MOVW_UABS_G3, 0xf2e0_0001),
    ];
    for (i, (kind, word)) in kinds.into_iter().enumerate() {
        made.word(AT + 4 * i as u64, word);
        made.relocate(AT + 4 * i as u64, kind, x, 5);
    }
    for s in [0, 0x1234_5678_9abc_def0, u64::MAX - 5] {
        let linked = made.link(BASE, &At::data("x", s)).unwrap();
        let part = |i: u64| u64::from(linked.instruction(AT + 4 * i) >> 5 & 0xffff) << (16 * i);
        assert_eq!((0..4).map(part).sum::<u64>(), s + 5);
    }
    // Those that are checked: the address must end where they do.
    for (kind, bits) in [
        (R_AARCH64_MOVW_UABS_G0, 16),
        (R_AARCH64_MOVW_UABS_G1, 32),
        (R_AARCH64_MOVW_UABS_G2, 48),
    ] {
        let made = one(Aarch64, kind, Some(0xd280_0001), 0);
        let last = (1_u64 << bits) - 1;
        let linked = made.link(BASE, &At::data("x", last)).unwrap();
        assert_eq!(linked.instruction(AT) >> 5 & 0xffff, 0xffff);
        assert_overflow(
            made.link(BASE, &At::data("x", last + 1)),
            name_of(Aarch64, kind),
        );
    }
}

#[test]
fn a_signed_move_becomes_the_one_that_its_number_needs() {
    use elf::*;
    const MOVZ: u32 = 0xd280_0001;
    const MOVN: u32 = 0x9280_0001;
    // Of an address, which is not negative.
    for (kind, bits) in [
        (R_AARCH64_MOVW_SABS_G0, 16),
        (R_AARCH64_MOVW_SABS_G1, 32),
        (R_AARCH64_MOVW_SABS_G2, 48),
    ] {
        let made = one(Aarch64, kind, Some(MOVN), 0);
        let last = (1_u64 << bits) - 1;
        let linked = made.link(BASE, &At::data("x", last)).unwrap();
        assert_eq!(linked.instruction(AT), MOVZ | 0xffff << 5, "{kind:?}");
        assert_overflow(
            made.link(BASE, &At::data("x", last + 1)),
            name_of(Aarch64, kind),
        );
    }
    // A move that keeps what is around it does not become one that clears it.
    const MOVK: u32 = 0xf280_0001;
    for (kind, group) in [
        (R_AARCH64_MOVW_PREL_G0_NC, 0),
        (R_AARCH64_MOVW_PREL_G1_NC, 1),
        (R_AARCH64_MOVW_PREL_G2_NC, 2),
        (R_AARCH64_MOVW_PREL_G3, 3),
    ] {
        let made = one(Aarch64, kind, Some(MOVK), 0);
        for x in [0x1234_5678_9abc_i64, -0x1234_5678_9abc] {
            let s = (BASE + AT).wrapping_add_signed(x);
            let word = made.link(BASE, &At::data("x", s)).unwrap().instruction(AT);
            let field = (x >> (16 * group) & 0xffff) as u32;
            assert_eq!(word, MOVK | field << 5, "{kind:?} {x}");
        }
    }
    for (kind, group) in [
        (R_AARCH64_MOVW_PREL_G0, 0),
        (R_AARCH64_MOVW_PREL_G1, 1),
        (R_AARCH64_MOVW_PREL_G2, 2),
        (R_AARCH64_MOVW_PREL_G3, 3),
    ] {
        let name = name_of(Aarch64, kind);
        for word in [MOVZ, MOVN] {
            let made = one(Aarch64, kind, Some(word), 0);
            let link = |x: i64| made.link(BASE, &At::data("x", (BASE + AT).wrapping_add_signed(x)));
            for x in [0, 1_i64 << (16 * group), -1, -(5_i64 << (16 * group))] {
                let word = link(x).unwrap().instruction(AT);
                let field = i64::from(word >> 5 & 0xffff);
                let expected = if x < 0 { MOVN } else { MOVZ };
                assert_eq!(word & !(0xffff << 5), expected, "{name} {x}");
                let number = if x < 0 { !field & 0xffff } else { field };
                assert_eq!(number, x >> (16 * group) & 0xffff, "{name} {x}");
            }
            if group < 2 {
                let end = 1_i64 << (16 * (group + 1));
                assert!(link(end - 1).is_ok() && link(-end).is_ok());
                assert_overflow(link(end), name);
                assert_overflow(link(-end - 1), name);
            }
        }
    }
}

// ---- The global offset table

#[test]
fn every_form_of_a_load_through_the_table_finds_a_slot_with_the_address() {
    use elf::*;
    const S: u64 = 0x1234_5678_9abc;
    let place = BASE + AT;
    for kind in [
        R_X86_64_GOTPCREL,
        R_X86_64_GOTPCRELX,
        R_X86_64_REX_GOTPCRELX,
        R_X86_64_CODE_4_GOTPCRELX,
        R_X86_64_CODE_5_GOTPCRELX,
        R_X86_64_CODE_6_GOTPCRELX,
    ] {
        let linked = one(X86_64, kind, None, -4)
            .link(BASE, &At::data("x", S))
            .unwrap();
        let slot = (place + 4).wrapping_add_signed(linked.signed32(AT));
        assert_eq!(linked.word_at(slot), S, "{kind:?}");
    }
    let linked = one(X86_64, R_X86_64_GOTPCREL64, None, -4)
        .link(BASE, &At::data("x", S))
        .unwrap();
    assert_eq!(
        linked.word_at((place + 4).wrapping_add_signed(linked.signed64(AT))),
        S
    );

    let linked = one(Aarch64, R_AARCH64_GOTPCREL32, None, 0)
        .link(BASE, &At::data("x", S))
        .unwrap();
    assert_eq!(
        linked.word_at(place.wrapping_add_signed(linked.signed32(AT))),
        S
    );
    let literal = one(Aarch64, R_AARCH64_GOT_LD_PREL19, Some(0x5800_0001), 0);
    let linked = literal.link(BASE, &At::data("x", S)).unwrap();
    let distance = bits(linked.instruction(AT), 5, 19) << 2;
    assert_eq!(linked.word_at(place.wrapping_add_signed(distance)), S);

    let mut made = one(Aarch64, R_AARCH64_ADR_GOT_PAGE, Some(0x9000_0001), 0);
    let x = made.undefined("x");
    made.word(AT + 4, 0xf940_0021);
    made.relocate(AT + 4, R_AARCH64_LD64_GOT_LO12_NC, x, 0);
    let linked = made.link(BASE, &At::data("x", S)).unwrap();
    let page = BASE.wrapping_add_signed(adr(linked.instruction(AT)) << 12);
    let low = u64::from(linked.instruction(AT + 4) >> 10 & 0xfff) * 8;
    assert_eq!(linked.word_at(page + low), S);
}

#[test]
fn large_code_counts_from_the_table() {
    use elf::*;
    const S: u64 = 0x1234_5678_9abc;
    // The table's address, as code finds it, and what is counted from there.
    for (table_kind, kind) in [
        (R_X86_64_GOTPC64, R_X86_64_GOT64),
        (R_X86_64_GOTPC64, R_X86_64_GOTPLT64),
        (R_X86_64_GOTPC64, R_X86_64_GOTOFF64),
        (R_X86_64_GOTPC64, R_X86_64_PLTOFF64),
        (R_X86_64_GOTPC32, R_X86_64_GOT32),
        // Some compilers ask for the table's address as for any symbol's.
        (R_X86_64_PC64, R_X86_64_GOT64),
    ] {
        let mut made = Made::new(X86_64);
        let table = made.undefined("_GLOBAL_OFFSET_TABLE_");
        let x = made.undefined("x");
        made.relocate(AT, table_kind, table, 0);
        made.relocate(AT + 16, kind, x, 0);
        let linked = made.link(BASE, &At::function("x", S)).unwrap();
        let narrow = |kind| [R_X86_64_GOTPC32, R_X86_64_GOT32].contains(&kind);
        let read = |at, kind| {
            if narrow(kind) {
                linked.signed32(at)
            } else {
                linked.signed64(at)
            }
        };
        let table = (BASE + AT).wrapping_add_signed(read(AT, table_kind));
        let found = table.wrapping_add_signed(read(AT + 16, kind));
        if [R_X86_64_GOTOFF64, R_X86_64_PLTOFF64].contains(&kind) {
            assert_eq!(found, S, "{kind:?}");
        } else {
            assert_eq!(linked.word_at(found), S, "{kind:?}");
        }
    }
    for (kind, s) in [
        (R_AARCH64_GOTREL64, S),
        (R_AARCH64_GOTREL32, BASE + 0x123_4567),
    ] {
        let mut made = Made::new(Aarch64);
        let table = made.undefined("_GLOBAL_OFFSET_TABLE_");
        let x = made.undefined("x");
        made.relocate(AT, R_AARCH64_PREL64, table, 0);
        made.relocate(AT + 16, kind, x, 0);
        let linked = made.link(BASE, &At::data("x", s)).unwrap();
        let table = (BASE + AT).wrapping_add_signed(linked.signed64(AT));
        let offset = if kind == R_AARCH64_GOTREL32 {
            linked.signed32(AT + 16)
        } else {
            linked.signed64(AT + 16)
        };
        assert_eq!(table.wrapping_add_signed(offset), s, "{kind:?}");
    }
    for (kind, word) in [
        (R_AARCH64_LD64_GOTPAGE_LO15, 0xf940_0021),
        (R_AARCH64_LD64_GOTOFF_LO15, 0xf940_0021),
    ] {
        let mut made = Made::new(Aarch64);
        let table = made.undefined("_GLOBAL_OFFSET_TABLE_");
        let x = made.undefined("x");
        made.relocate(AT, R_AARCH64_PREL64, table, 0);
        made.word(AT + 16, word);
        made.relocate(AT + 16, kind, x, 0);
        let linked = made.link(BASE, &At::function("x", S)).unwrap();
        let table = (BASE + AT).wrapping_add_signed(linked.signed64(AT));
        let from = if kind == R_AARCH64_LD64_GOTPAGE_LO15 {
            table & !0xfff
        } else {
            table
        };
        let offset = u64::from(linked.instruction(AT + 16) >> 10 & 0xfff) * 8;
        assert_eq!(linked.word_at(from + offset), S, "{kind:?}");
    }
}

#[test]
fn a_slot_that_should_hold_more_than_an_address_is_refused() {
    use elf::*;
    for kind in [
        R_AARCH64_ADR_GOT_PAGE,
        R_AARCH64_LD64_GOT_LO12_NC,
        R_AARCH64_GOT_LD_PREL19,
        R_AARCH64_GOTPCREL32,
        R_AARCH64_LD64_GOTPAGE_LO15,
        R_AARCH64_LD64_GOTOFF_LO15,
    ] {
        let made = one(Aarch64, kind, Some(0x9000_0001), 8);
        let error = made.link(BASE, &At::data("x", 5)).map(|_| ()).unwrap_err();
        let expected = format!("{} with an addend", name_of(Aarch64, kind));
        assert!(error.to_string().contains(&expected), "{error}");
    }
}

// ---- Stubs

/// Where a stub at an address of the image leads to.
fn follow(linked: &Linked, architecture: Architecture, stub: u64) -> u64 {
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

const FAR: u64 = 0x1000;

#[test]
fn a_branch_that_does_not_reach_goes_through_a_stub_and_a_near_one_directly() {
    use elf::*;
    type Decode = fn(&Linked) -> i64;
    let rows: [(Architecture, RelocationType, Option<u32>, i64, Decode); 4] = [
        (X86_64, R_X86_64_PLT32, None, -4, |l| l.signed32(AT) + 4),
        (Aarch64, R_AARCH64_CALL26, Some(0x9400_0000), 0, |l| {
            bits(l.instruction(AT), 0, 26) << 2
        }),
        (Aarch64, R_AARCH64_JUMP26, Some(0x1400_0000), 0, |l| {
            bits(l.instruction(AT), 0, 26) << 2
        }),
        (Aarch64, R_AARCH64_PLT32, None, 0, |l| l.signed32(AT)),
    ];
    for (architecture, kind, word, addend, decode) in rows {
        let name = name_of(architecture, kind);
        let made = one(architecture, kind, word, addend);
        let linked = made.link(BASE, &At::function("x", FAR)).unwrap();
        let target = (BASE + AT).wrapping_add_signed(decode(&linked));
        assert_eq!(follow(&linked, architecture, target), FAR, "{name}");
        let near = BASE + 0x4000;
        let linked = made.link(BASE, &At::function("x", near)).unwrap();
        assert_eq!(
            (BASE + AT).wrapping_add_signed(decode(&linked)),
            near,
            "{name}"
        );
    }
}

#[test]
fn a_branch_that_no_stub_can_serve_is_an_error() {
    use elf::*;
    // Those within a function, where a stub's register may be in use, and those that lead
    // beside the symbol.
    for (architecture, kind, word, addend) in [
        (Aarch64, R_AARCH64_CONDBR19, Some(0x5400_0001), 0),
        (Aarch64, R_AARCH64_TSTBR14, Some(0x3618_0001), 0),
        (Aarch64, R_AARCH64_CALL26, Some(0x9400_0000), 8),
        (X86_64, R_X86_64_PLT32, None, 4),
    ] {
        let made = one(architecture, kind, word, addend);
        assert_overflow(
            made.link(BASE, &At::function("x", FAR)),
            name_of(architecture, kind),
        );
        assert!(made.link(BASE, &At::function("x", BASE + 0x4000)).is_ok());
    }
    // A table of distances counts them from wherever it likes.
    let mut made = Made::new(X86_64);
    let table = made.section(".rodata", SectionKind::ReadOnlyData, &[0; 16], 8);
    let x = made.undefined("x");
    made.relocate_in(table, 8, R_X86_64_PLT32, x, 8);
    let start = made.object.section_symbol(table);
    made.relocate(AT, R_X86_64_64, start, 0);
    let linked = made.link(BASE, &At::function("x", FAR)).unwrap();
    let table = linked.signed64(AT).cast_unsigned();
    let stub = table.wrapping_add_signed(linked.signed32(table - BASE + 8));
    assert_eq!(follow(&linked, X86_64, stub), FAR);
}

#[test]
fn a_function_out_of_reach_is_its_stub_for_every_reference_to_it() {
    use elf::*;
    let mut made = Made::new(X86_64);
    let x = made.undefined("x");
    made.relocate(AT, R_X86_64_PC32, x, -4);
    made.relocate(AT + 8, R_X86_64_64, x, 0);
    let linked = made.link(BASE, &At::function("x", FAR)).unwrap();
    let stub = (BASE + AT + 4).wrapping_add_signed(linked.signed32(AT));
    assert_eq!(follow(&linked, X86_64, stub), FAR);
    assert_eq!(
        linked.signed64(AT + 8).cast_unsigned(),
        stub,
        "one function has one address"
    );
    let linked = made.link(BASE, &At::function("x", BASE + 0x4000)).unwrap();
    assert_eq!(linked.signed64(AT + 8).cast_unsigned(), BASE + 0x4000);

    let mut made = Made::new(Aarch64);
    let x = made.undefined("x");
    made.word(AT, 0x9000_0001);
    made.relocate(AT, R_AARCH64_ADR_PREL_PG_HI21, x, 0);
    made.word(AT + 4, 0x9100_0021);
    made.relocate(AT + 4, R_AARCH64_ADD_ABS_LO12_NC, x, 0);
    let linked = made.link(BASE, &At::function("x", FAR)).unwrap();
    let page = BASE.wrapping_add_signed(adr(linked.instruction(AT)) << 12);
    let stub = page + u64::from(linked.instruction(AT + 4) >> 10 & 0xfff);
    assert_eq!(follow(&linked, Aarch64, stub), FAR);
}

#[test]
fn data_out_of_reach_is_an_error_as_no_stub_can_stand_for_it() {
    use elf::*;
    let made = one(X86_64, R_X86_64_PC32, None, -4);
    assert_overflow(made.link(BASE, &At::data("x", FAR)), "R_X86_64_PC32");
    let made = one(X86_64, R_X86_64_32S, None, 0);
    assert_overflow(made.link(BASE, &At::data("x", BASE)), "R_X86_64_32S");
}

// ---- Symbols

#[test]
fn a_weak_symbol_that_nobody_defines_is_zero() {
    let mut made = Made::new(X86_64);
    let x = made.symbol("x", SymbolSection::Undefined, 0, true);
    made.relocate(AT, elf::R_X86_64_64, x, 0);
    made.relocate(AT + 8, elf::R_X86_64_GOTPCREL, x, -4);
    // A call that is never made has somewhere to lead to.
    made.relocate(AT + 16, elf::R_X86_64_PLT32, x, -4);
    let linked = made.link(BASE, &At::none()).unwrap();
    assert_eq!(linked.signed64(AT), 0);
    let slot = (BASE + AT + 12).wrapping_add_signed(linked.signed32(AT + 8));
    assert_eq!(linked.word_at(slot), 0);
    let linked = made.link(BASE, &At::function("x", 77)).unwrap();
    assert_eq!(linked.signed64(AT), 77);

    let strong = one(X86_64, elf::R_X86_64_64, None, 0).link(BASE, &At::none());
    assert!(matches!(strong, Err(Error::UndefinedSymbol { symbol, .. }) if symbol == "x"));
}

#[test]
fn a_strong_definition_goes_before_a_weak_one_and_two_are_refused() {
    for weak_first in [true, false] {
        let mut made = Made::new(X86_64);
        let text = made.text;
        let first = made.define("x", text, 16, weak_first);
        let second = made.define("x", text, 32, !weak_first);
        made.relocate(AT, elf::R_X86_64_64, first, 0);
        made.relocate(AT + 8, elf::R_X86_64_64, second, 0);
        let linked = made.link(BASE, &At::none()).unwrap();
        let strong = (BASE + if weak_first { 32 } else { 16 }).cast_signed();
        assert_eq!([linked.signed64(AT), linked.signed64(AT + 8)], [strong; 2]);
    }
    let mut made = Made::new(X86_64);
    let text = made.text;
    made.define("x", text, 16, false);
    made.define("x", text, 32, false);
    let error = made.link(BASE, &At::none()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("`x` twice"), "{error}");
}

#[test]
fn of_two_copies_of_a_group_one_is_kept() {
    let mut made = Made::new(X86_64);
    let mut copies = Vec::new();
    for fill in [0x11, 0x22] {
        let section = made.section(".text.shared", SectionKind::Text, &[fill; 16], 16);
        let symbol = made.define("shared", section, 0, true);
        made.object.add_comdat(Comdat {
            kind: ComdatKind::Any,
            symbol,
            sections: vec![section],
        });
        copies.push(symbol);
    }
    made.relocate(AT, elf::R_X86_64_64, copies[0], 0);
    made.relocate(AT + 8, elf::R_X86_64_64, copies[1], 0);
    let linked = made.link(BASE, &At::none()).unwrap();
    let kept = linked.signed64(AT).cast_unsigned();
    assert_eq!(
        linked.signed64(AT + 8).cast_unsigned(),
        kept,
        "both are the first"
    );
    assert_eq!(linked.bytes::<16>(kept - BASE), [0x11; 16]);
    assert!(!linked.image.windows(16).any(|w| w == [0x22; 16]));
}

#[test]
fn an_absolute_symbol_stays_where_it_is() {
    let mut made = Made::new(X86_64);
    let x = made.symbol("x", SymbolSection::Absolute, 0x1234_5678, false);
    made.relocate(AT, elf::R_X86_64_64, x, 1);
    for base in [BASE, 0x10_0000] {
        assert_eq!(
            made.link(base, &At::none()).unwrap().signed64(AT),
            0x1234_5679
        );
    }
}

#[test]
fn a_section_is_a_symbol_as_well_and_names_may_share_a_place() {
    let mut made = Made::new(X86_64);
    let data = made.section(
        ".rodata.mine",
        SectionKind::ReadOnlyData,
        b"0123456789abcdef",
        16,
    );
    let section = made.object.section_symbol(data);
    let one_name = made.define("one", data, 4, false);
    let another = made.define("another", data, 4, true);
    made.relocate(AT, elf::R_X86_64_64, section, 4);
    made.relocate(AT + 8, elf::R_X86_64_64, one_name, 0);
    made.relocate(AT + 16, elf::R_X86_64_64, another, 0);
    let linked = made.link(BASE, &At::none()).unwrap();
    let at = linked.signed64(AT);
    assert_eq!([linked.signed64(AT + 8), linked.signed64(AT + 16)], [at; 2]);
    assert_eq!(linked.bytes::<4>(at.cast_unsigned() - BASE), *b"4567");
}

// ---- Sections

/// The segments' rights of a made object.
fn rights(made: &Made) -> Vec<Rights> {
    let bytes = made.bytes();
    let file = ObjectFile::parse("k", &bytes).unwrap();
    layout(&file, PAGE)
        .segments()
        .iter()
        .map(|s| s.rights)
        .collect()
}

#[test]
fn what_no_code_refers_to_is_left_out() {
    let mut made = Made::new(X86_64);
    made.section(".data", SectionKind::Data, &[7; 64], 8);
    let lonely = made.section(
        ".data.rel.ro.table",
        SectionKind::ReadOnlyDataWithRel,
        &[0; 8],
        8,
    );
    let nobody = made.undefined("nobody");
    made.relocate_in(lonely, 0, elf::R_X86_64_64, nobody, 0);
    assert_eq!(rights(&made), [Rights::Code]);
    made.link(BASE, &At::none()).unwrap();

    // Reached through another that code refers to, it is there.
    let mut made = Made::new(X86_64);
    let data = made.section(".data", SectionKind::Data, &[7; 64], 8);
    let table = made.section(
        ".data.rel.ro.table",
        SectionKind::ReadOnlyDataWithRel,
        &[0; 8],
        8,
    );
    let (data, table_at) = (
        made.object.section_symbol(data),
        made.object.section_symbol(table),
    );
    made.relocate_in(table, 0, elf::R_X86_64_64, data, 8);
    made.relocate(AT, elf::R_X86_64_64, table_at, 0);
    assert_eq!(
        rights(&made),
        [Rights::Code, Rights::Constants, Rights::Data]
    );
    let linked = made.link(BASE, &At::none()).unwrap();
    let pointer = linked.word_at(linked.signed64(AT).cast_unsigned());
    assert_eq!(linked.bytes::<4>(pointer - BASE), [7; 4]);
}

#[test]
fn constants_that_hold_addresses_are_constants() {
    for name in [
        ".data.rel.ro",
        ".data.rel.ro.local",
        ".ldata.rel.ro",
        ".ldata.rel.ro.x",
    ] {
        let mut made = Made::new(X86_64);
        // Writable, as compilers mark it for a dynamic linker's sake.
        let table = made.section(name, SectionKind::Data, &[0; 8], 8);
        let entry = made.object.section_symbol(made.text);
        made.relocate_in(table, 0, elf::R_X86_64_64, entry, 3);
        let table = made.object.section_symbol(table);
        made.relocate(AT, elf::R_X86_64_64, table, 0);
        assert_eq!(rights(&made), [Rights::Code, Rights::Constants], "{name}");
        let linked = made.link(BASE, &At::none()).unwrap();
        assert_eq!(
            linked.word_at(linked.signed64(AT).cast_unsigned()),
            BASE + 3
        );
    }
}

#[test]
fn zeroed_data_takes_no_bytes_of_the_file_and_has_an_end() {
    let sized = |bytes: u64| {
        let mut made = Made::new(X86_64);
        let bss = made
            .object
            .add_section(vec![], b".bss".to_vec(), SectionKind::UninitializedData);
        made.object.append_section_bss(bss, bytes, 64);
        let symbol = made.object.section_symbol(bss);
        made.relocate(AT, elf::R_X86_64_64, symbol, 0);
        made
    };
    let made = sized(1 << 20);
    let linked = made.link(BASE, &At::none()).unwrap();
    assert!(made.bytes().len() < 4096 && linked.image.len() > 1 << 20);
    let start = linked.signed64(AT).cast_unsigned() - BASE;
    assert!(linked.image[start as usize..].iter().all(|&b| b == 0));

    for bytes in [(64 << 20) + 1, 1 << 40, u64::MAX >> 1] {
        let error = sized(bytes)
            .link(BASE, &At::none())
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("zeroed memory"), "{error}");
    }
}

#[test]
fn common_symbols_have_room_of_their_own_with_their_alignment() {
    let mut made = Made::new(X86_64);
    let symbols: Vec<_> = [(3, 1), (40, 32), (8, 4096)]
        .into_iter()
        .enumerate()
        .map(|(i, (size, align))| {
            let symbol = Symbol {
                name: format!("common{i}").into_bytes(),
                value: 0,
                size: 0,
                kind: SymbolKind::Data,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Undefined,
                flags: SymbolFlags::None,
            };
            let symbol = made.object.add_common_symbol(symbol, size, align);
            made.relocate(16 * i as u64, elf::R_X86_64_64, symbol, 0);
            (size, align)
        })
        .collect();
    let bytes = made.bytes();
    let file = ObjectFile::parse("k", &bytes).unwrap();
    let refused = file.check_stateless().unwrap_err();
    assert!(
        refused.to_string().contains("COMMON (common0)"),
        "{refused}"
    );
    let linked = made.link(BASE, &At::none()).unwrap();
    let mut taken = Vec::new();
    for (i, (size, align)) in symbols.into_iter().enumerate() {
        let at = linked.signed64(16 * i as u64).cast_unsigned();
        assert_eq!(at % align, 0);
        assert!(
            taken
                .iter()
                .all(|&(from, to)| at + size <= from || to <= at)
        );
        taken.push((at, at + size));
    }
}

#[test]
fn what_is_refused_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Made), named: &str| {
        let mut made = Made::new(X86_64);
        change(&mut made);
        let error = made.link(BASE, &At::none()).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, Error::UnsupportedObject { .. }),
            "{named}: {error:?}"
        );
        let message = error.to_string();
        assert!(
            message.contains(named) && message.contains("`k`"),
            "{named}: {message}"
        );
    };
    let flagged = |name: &'static str, kind, flags: &'static [elf::SectionFlags]| {
        move |made: &mut Made| {
            let section = made.section(name, SectionKind::ReadOnlyData, &[1; 16], 8);
            let sh_flags = elf::SectionFlags(flags.iter().map(|f| f.0).sum());
            made.object.section_mut(section).flags = SectionFlags::Elf {
                sh_type: kind,
                sh_flags,
            };
        }
    };
    use elf::{SHF_ALLOC, SHF_COMPRESSED, SHF_EXECINSTR, SHF_TLS, SHF_WRITE, SHT_PROGBITS};
    for (name, kind) in [
        (".init_array", elf::SHT_INIT_ARRAY),
        (".fini_array", elf::SHT_FINI_ARRAY),
        (".preinit_array", elf::SHT_PREINIT_ARRAY),
        (".ctors", SHT_PROGBITS),
        (".dtors.65535", SHT_PROGBITS),
        (".init_array.5", SHT_PROGBITS),
    ] {
        refused(
            &flagged(name, kind, &[SHF_ALLOC, SHF_WRITE]),
            "constructors",
        );
        refused(&flagged(name, kind, &[SHF_ALLOC, SHF_WRITE]), name);
    }
    refused(
        &flagged(".init", SHT_PROGBITS, &[SHF_ALLOC, SHF_EXECINSTR]),
        "constructors",
    );
    refused(
        &flagged(".tdata", SHT_PROGBITS, &[SHF_ALLOC, SHF_WRITE, SHF_TLS]),
        "thread-local",
    );
    refused(
        &flagged(
            ".both",
            SHT_PROGBITS,
            &[SHF_ALLOC, SHF_WRITE, SHF_EXECINSTR],
        ),
        "writable and executable",
    );
    refused(
        &flagged(".z", SHT_PROGBITS, &[SHF_ALLOC, SHF_COMPRESSED]),
        "compressed",
    );
    refused(
        &flagged(".dynamic", elf::SHT_DYNAMIC, &[SHF_ALLOC]),
        "ELF type 6",
    );
    refused(&flagged(".hash", elf::SHT_HASH, &[SHF_ALLOC]), "ELF type 5");
    refused(
        &|made| {
            made.undefined("__gnu_lto_slim");
        },
        "-fno-lto",
    );
    refused(
        &|made| {
            made.section(".wide", SectionKind::ReadOnlyData, &[1; 16], 8192);
        },
        "8192 bytes",
    );
    for (kind, name) in [
        (elf::SHT_REL, "SHT_REL"),
        (elf::SHT_CREL, "SHT_CREL"),
        (elf::SHT_RELR, "SHT_RELR"),
    ] {
        // The header of the relocations of the code, made one of another form.
        let mut bytes = one(X86_64, elf::R_X86_64_64, None, 0).bytes();
        let header = section_header(&bytes, elf::SHT_RELA.0);
        bytes[header + 4..header + 8].copy_from_slice(&kind.0.to_le_bytes());
        let error = ObjectFile::parse("k", &bytes).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// Where the header of the first section of a kind begins in an object.
fn section_header(bytes: &[u8], kind: u32) -> usize {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (headers, count) = (number(0x28) as usize, (number(0x3c) & 0xffff) as usize);
    let mut all = (0..count).map(|i| headers + 64 * i);
    all.find(|&at| number(at + 4) as u32 == kind).unwrap()
}

#[test]
fn every_relocation_that_is_not_done_is_refused_by_the_name_that_the_abi_gives_it() {
    let mut done = HashMap::new();
    for architecture in [X86_64, Aarch64] {
        for number in 0..1100 {
            let kind = RelocationType(number);
            let bytes = one(architecture, kind, Some(0), 0).bytes();
            match ObjectFile::parse("k", &bytes) {
                Ok(_) => *done.entry(architecture).or_insert(0) += 1,
                Err(error) => {
                    let message = error.to_string();
                    let names = match architecture {
                        X86_64 => &elf::NAMES_R_X86_64,
                        Aarch64 => &elf::NAMES_R_AARCH64,
                    };
                    let expected = names
                        .name(kind)
                        .map_or(format!("number {number}"), str::to_owned);
                    assert!(
                        matches!(error, Error::UnsupportedObject { .. }),
                        "{error:?}"
                    );
                    assert!(message.contains(&expected), "{expected} in: {message}");
                }
            }
        }
    }
    assert_eq!(done, HashMap::from([(X86_64, 25), (Aarch64, 48)]));
    for (architecture, kind) in [
        (X86_64, elf::R_X86_64_COPY),
        (X86_64, elf::R_X86_64_RELATIVE),
        (X86_64, elf::R_X86_64_IRELATIVE),
        (X86_64, elf::R_X86_64_TPOFF32),
        (X86_64, elf::R_X86_64_TLSGD),
        (Aarch64, elf::R_AARCH64_GLOB_DAT),
        (Aarch64, elf::R_AARCH64_TLSDESC_CALL),
    ] {
        let error = ObjectFile::parse("k", &one(architecture, kind, None, 0).bytes()).map(|_| ());
        assert!(
            matches!(error, Err(Error::UnsupportedObject { .. })),
            "{error:?}"
        );
    }
}

#[test]
fn code_of_another_machine_links_here_and_is_not_mapped() {
    let bytes = Made::new(Aarch64).bytes();
    let error = load_state(&bytes).unwrap_err();
    assert!(error.to_string().contains("it is for aarch64"), "{error}");
}

/// An object with `count` copies of the section header at `header` behind its others.
fn with_headers(bytes: &[u8], header: usize, count: usize) -> Vec<u8> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (headers, old) = (number(0x28) as usize, (number(0x3c) & 0xffff) as usize);
    let mut all = bytes.to_vec();
    all.resize(bytes.len().next_multiple_of(8), 0);
    let moved = all.len() as u64;
    all.extend(&bytes[headers..headers + 64 * old]);
    for _ in 0..count {
        all.extend(&bytes[header..header + 64]);
    }
    all[0x28..0x30].copy_from_slice(&moved.to_le_bytes());
    all[0x3c..0x3e].copy_from_slice(&((old + count) as u16).to_le_bytes());
    all
}

#[test]
fn names_and_groups_that_are_one_over_again_are_refused_before_they_take_long() {
    let long = "x".repeat(100_000);
    let mut made = Made::new(X86_64);
    made.section(&format!(".note.{long}"), SectionKind::Other, &[1], 1);
    let section = made.section(".text.shared", SectionKind::Text, &[0x11; 16], 16);
    let symbol = made.define(&long, section, 0, true);
    made.object.add_comdat(Comdat {
        kind: ComdatKind::Any,
        symbol,
        sections: vec![section],
    });
    let good = made.bytes();
    ObjectFile::parse("k", &good).unwrap();
    let group = section_header(&good, elf::SHT_GROUP.0);
    // The named section, by its name's offset: no other has a name as far as its own.
    let names = ObjectFile::parse("k", &with_headers(&good, group, 5000)).unwrap_err();
    assert!(names.to_string().contains("overlap"), "{names}");
    let number = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().unwrap());
    let (headers, count) = (number(0x28) as usize, (number(0x3c) & 0xffff) as usize);
    let is_named = |at: &usize| number(at + 32) == 1;
    let named = (0..count).map(|i| headers + 64 * i).find(is_named).unwrap();
    let names = ObjectFile::parse("k", &with_headers(&good, named, 5000)).unwrap_err();
    assert!(names.to_string().contains("names overlap"), "{names}");
    // A group of another symbol table, which would have to be read for each.
    let mut other = good.clone();
    other[group + 40] ^= 1;
    let error = ObjectFile::parse("k", &other).unwrap_err();
    assert!(
        error.to_string().contains("another symbol table"),
        "{error}"
    );
}

#[test]
fn a_writable_section_without_bytes_is_no_state() {
    let mut made = Made::new(X86_64);
    let empty = made.section(".data", SectionKind::Data, &[], 8);
    let symbol = made.object.section_symbol(empty);
    made.relocate(AT, elf::R_X86_64_64, symbol, 0);
    let bytes = made.bytes();
    let file = ObjectFile::parse("k", &bytes).unwrap();
    file.check_stateless().unwrap();
}

#[test]
fn padding_has_an_end_as_zeroed_data_has() {
    let mut made = Made::new(X86_64);
    for i in 0..(64 << 20) / PAGE + 1 {
        let name = format!(".rodata.{i}");
        made.section(&name, SectionKind::ReadOnlyData, &[1], PAGE);
    }
    let error = made.link(BASE, &At::none()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("padding"), "{error}");
}

// ---- State

/// Kernels that count in each kind of writable section.
const COUNTERS: &str = "
    static volatile long zeroed; static volatile long begun = 100; long common[4];
    void count(long *out) { for (int i = 0; i < 500; i++) { zeroed++; begun++; common[2]++; }
                            out[0] = zeroed; out[1] = begun; out[2] = common[2]; }
    void read(long *out) { out[0] = zeroed; out[1] = begun; out[2] = common[2]; }";

#[test]
fn state_is_refused_unless_it_is_admitted_and_is_then_kept_from_call_to_call() {
    for compiler in common::compilers() {
        let builder = || common::with(&compiler).flag("-fcommon");
        let source = svod_runtime::Source::c("count", COUNTERS);
        let signature = || Signature::builder().write(DType::I64, 3).build().unwrap();
        let runtime = builder().build().unwrap();
        // SAFETY: nothing runs; it is refused.
        let refused = unsafe { runtime.load(&source, signature()) }.unwrap_err();
        assert!(
            matches!(refused, Error::WritableSection { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("admit_state"), "{refused}");

        let runtime = builder().admit_state(true).build().unwrap();
        let load = || {
            // SAFETY: it writes three elements; its state was admitted.
            unsafe { runtime.load(&source, signature()) }.unwrap()
        };
        let (kernel, another) = (load(), load());
        let call = |kernel: &Kernel| {
            let mut out = common::zeroed(DType::I64, 3);
            kernel.launch(&mut [(&mut out).into()], &[], 1).unwrap();
            out.as_slice::<i64>().unwrap().to_vec()
        };
        assert_eq!(call(&kernel), [500, 600, 500]);
        assert_eq!(call(&kernel), [1000, 1100, 1000]);
        assert_eq!(call(&another), [500, 600, 500], "each load has its own");
    }
}

#[test]
fn a_large_common_symbol_of_the_medium_model_is_state_as_others_are() {
    let Some(gcc) = common::compiler_of(svod_runtime::compile::Family::Gcc) else {
        return;
    };
    let builder = common::with(&gcc).flag("-mcmodel=medium").flag("-fcommon");
    let text = "int big[100000]; int *k(int i) { return &big[i]; }";
    let bytes = common::object(builder, text);
    let file = ObjectFile::parse("k", &bytes).unwrap();
    let refused = file.check_stateless().unwrap_err();
    assert!(refused.to_string().contains("COMMON (big)"), "{refused}");
    load_state(&bytes).unwrap();
}

#[test]
fn calls_of_code_with_state_are_made_one_at_a_time() {
    const THREADS: i64 = 4;
    const CALLS: i64 = 200;
    let bytes = common::object(
        common::with(&common::compilers()[0]).flag("-fcommon"),
        COUNTERS,
    );
    let image = load_state(&bytes).unwrap();
    let signature = || Signature::builder().write(DType::I64, 3).build().unwrap();
    // SAFETY: they write three elements; their state was admitted.
    let [count, read] =
        ["count", "read"].map(|n| unsafe { common::kernel(&image, n, signature()) });
    let call = |kernel: &Kernel| {
        let mut out = common::zeroed(DType::I64, 3);
        kernel.launch(&mut [(&mut out).into()], &[], 1).unwrap();
        out.as_slice::<i64>().unwrap().to_vec()
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..CALLS).for_each(|_| drop(call(&count))));
        }
    });
    let total = THREADS * CALLS * 500;
    assert_eq!(call(&read), [total, total + 100, total], "no count is lost");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn code_with_absolute_addresses_is_mapped_where_32_bits_reach() {
    let text = "extern double sin(double);
        static const long table[4] = {3, 5, 7, 9};
        static double (*const f)(double) = sin;
        double (*volatile g)(double);
        void k(double *out, const long *in) {
            out[0] = (double)table[in[0] & 3]; out[1] = sin(2); out[2] = f(2);
            double (*volatile h)(double) = sin; out[3] = h(2);
        }";
    for compiler in common::compilers() {
        let builder = common::with(&compiler)
            .flag("-fno-pic")
            .flag("-mcmodel=small")
            .flag("-fno-builtin");
        let bytes = common::object(builder, text);
        assert!(ObjectFile::parse("k", &bytes).unwrap().needs_low_address());
        let image = common::load(&bytes).unwrap();
        let address = image.function("k").unwrap().as_ptr() as usize;
        assert!(address < 1 << 31, "{address:#x}");
        let signature = Signature::builder()
            .write(DType::F64, 4)
            .read(DType::I64, 1);
        // SAFETY: it writes four elements and reads one.
        let kernel = unsafe { common::kernel(&image, "k", signature.build().unwrap()) };
        let (mut out, index) = (common::zeroed(DType::F64, 4), common::from_slice(&[2_i64]));
        kernel
            .launch(&mut [(&mut out).into(), (&index).into()], &[], 1)
            .unwrap();
        let sin = 2_f64.sin();
        assert_eq!(out.as_slice::<f64>().unwrap(), [7.0, sin, sin, sin]);
    }
}
