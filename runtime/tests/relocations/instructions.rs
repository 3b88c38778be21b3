//! What goes into aarch64's instructions.

use crate::made::*;

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
