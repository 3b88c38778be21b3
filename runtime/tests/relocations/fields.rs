//! What goes into fields of data.

use crate::made::*;

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
