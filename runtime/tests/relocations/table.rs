//! The global offset table.

use crate::made::*;

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
