//! Sections: what is loaded, what is left out, what is refused.

use std::collections::HashMap;

use crate::common::load_state;
use crate::made::*;

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
