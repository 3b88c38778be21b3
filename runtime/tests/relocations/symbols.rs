//! Symbols, of each kind.

use crate::made::*;

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
