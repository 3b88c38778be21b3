//! Branches and references that do not reach.

use crate::made::*;

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
