use proptest::prelude::*;

use super::*;

const STACK: Range<usize> = 0x7000_0000_0000..0x7000_0010_0000;
const BELOW: Range<usize> = 0x6fff_f000_0000..0x7000_0000_0000;
/// Where the code of the one kernel lies.
const CODE_START: u64 = 0x5000_0000;
const NAME: &str = "k";

/// What the code of the kernel is before any address in it: `nop`s.
const NOPS: [u8; 64] = [0x90; 64];

fn site(argument: usize, start: u64, len: usize, element: usize) -> Site {
    Site {
        start,
        argument,
        len,
        element,
        buffer: None,
    }
}

fn in_code(address: u64) -> Option<Spot<'static>> {
    let before = usize::try_from(address.checked_sub(CODE_START)?).ok()?;
    Some(Spot {
        function: NAME,
        offset: before as u64,
        before: Some(NOPS.get(..before)?),
    })
}

fn told(seen: &Seen, sites: &[Site], peek: &dyn Fn(u64, usize) -> Option<u64>) -> Outcome {
    let scene = Scene {
        at: Place {
            kernel: NAME.into(),
            ..Place::default()
        },
        sites,
        locate: &|address| in_code(address),
        peek,
        stack: STACK,
        below: BELOW,
        limits: Limits::default(),
    };
    explain(seen, scene)
}

#[track_caller]
fn crash(seen: &Seen, sites: &[Site]) -> Crash {
    match told(seen, sites, &|_, _| None) {
        Outcome::Crashed(crash) => *crash,
        other => panic!("{other}"),
    }
}

/// A signal of the processor's at the beginning of the kernel, with this code.
fn seen(signal: i32, trap: u64, code: &[u8]) -> Seen {
    let mut bytes = [0x90; CODE];
    bytes[..code.len()].copy_from_slice(code);
    Seen {
        signal,
        code: 1,
        system_call: 0,
        address: 0,
        instruction: CODE_START,
        stack: STACK.end as u64 - 256,
        syndrome: 0,
        trap,
        registers: [0; REGISTERS],
        bytes: Some(bytes),
        words: Vec::new(),
    }
}

/// Numbers of which many are where something changes.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (any::<u64>(), 0_u32..64).prop_map(|(number, by)| number >> by),
        prop::sample::select(vec![
            0,
            1,
            u64::MAX,
            -12_i64 as u64,
            1 << 47,
            1 << 63,
            CODE_START,
            CODE_START + 64,
            STACK.start as u64,
            STACK.end as u64,
            BELOW.start as u64,
            0x1000,
            0x1fff,
        ]),
    ]
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let signal = prop_oneof![
        any::<i32>(),
        prop::sample::select(vec![
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
            libc::SIGPROF,
        ]),
    ];
    let code = prop_oneof![any::<i32>(), -6..8];
    let trap = prop_oneof![number(), 0_u64..32];
    let bytes = prop::option::of(any::<[u8; CODE]>());
    let words = prop::collection::vec(number(), 0..8);
    let registers = prop::collection::vec(number(), REGISTERS);
    let numbers = (number(), number(), number(), number());
    (signal, code, trap, numbers, registers, bytes, words).prop_map(
        |(signal, code, trap, numbers, registers, bytes, words)| {
            let (address, instruction, stack, syndrome) = numbers;
            Seen {
                signal,
                code,
                system_call: code,
                address,
                instruction,
                stack,
                syndrome,
                trap,
                registers: registers.try_into().unwrap(),
                bytes,
                words,
            }
        },
    )
}

fn any_site() -> impl Strategy<Value = Site> {
    (number(), 0..1000_usize, 0..9_usize)
        .prop_map(|(start, len, element)| site(0, start, len, element))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_numbers_come_to_something_that_can_be_said(
        seen in any_seen(),
        sites in prop::collection::vec(any_site(), 0..4),
        value in prop::option::of(number()),
    ) {
        let outcome = told(&seen, &sites, &|_, bytes| value.filter(|_| bytes <= 8));
        prop_assert!(!outcome.to_string().is_empty());
        prop_assert!(!outcome.is_completed());
        if let Outcome::Crashed(crash) = outcome
            && let Some(place) = crash.access.and_then(|access| access.argument)
        {
            prop_assert!(place.outside <= NEAR);
        }
    }

    #[test]
    fn bytes_beside_an_argument_are_told_by_the_nearest(
        start in 0x10_0000_u64..0x20_0000,
        len in 1..100_usize,
        element in 1..9_usize,
        from in -300_i64..1200,
        bytes in 1..64_u64,
    ) {
        let site = site(0, start, len, element);
        let size = (len * element) as i64;
        let touched = start.wrapping_add_signed(from)..start.wrapping_add_signed(from) + bytes;
        let place = beside(&site, &touched).unwrap();
        // Each byte's own place, the plain way.
        let each = (from..from + bytes as i64).map(|at| {
            let outside = if at < 0 { -at } else { (at - size + 1).max(0) };
            (outside as u64, at.div_euclid(element as i64))
        });
        let past_end = from + bytes as i64 > size;
        let wrong = each.filter(|(outside, element)| match past_end {
            true => *outside > 0 && *element >= 0,
            false => *outside > 0 || from >= 0,
        });
        let nearest = wrong.min_by_key(|(outside, _)| *outside).unwrap();
        prop_assert_eq!((place.outside, place.element), nearest);
    }
}

#[test]
fn the_nearest_of_several_arguments_is_named() {
    let sites = [site(0, 0x10000, 4, 4), site(1, 0x10040, 4, 4)];
    let mut found = seen(libc::SIGSEGV, 14, &[]);
    for (address, argument, element, outside) in [
        (0x1000f, 0, 3, 0),
        (0x10010, 0, 4, 1),
        (0x10020, 0, 8, 17),
        (0x10031, 1, -4, 15),
        (0x1003f, 1, -1, 1),
        (0x10051, 1, 4, 2),
    ] {
        found.address = address;
        let place = crash(&found, &sites).access.unwrap().argument.unwrap();
        let is = (place.argument, place.element, place.outside);
        assert_eq!(is, (argument, element, outside), "{address:#x}");
    }
    found.address = 0x10050 + NEAR;
    assert_eq!(crash(&found, &sites).access.unwrap().argument, None);
}

#[test]
fn memory_that_the_system_refused_and_was_used_all_the_same_is_none() {
    let mut found = seen(libc::SIGSEGV, 14, &[]);
    found.address = -i64::from(libc::ENOMEM) as u64;
    let outcome = told(&found, &[], &|_, _| None);
    assert!(matches!(outcome, Outcome::OutOfMemory { .. }), "{outcome}");
}

#[test]
fn a_fault_below_the_stack_is_an_overflow_of_it_and_nothing_else_is() {
    let mut found = seen(libc::SIGSEGV, 14, &[]);
    for (address, stack, overflow) in [
        (BELOW.end - 8, STACK.start, true),
        (BELOW.start, STACK.start, true),
        (0x1000, STACK.start - (1 << 30), true),
        (0x1000, STACK.end - 64, false),
        (STACK.start, STACK.end - 64, false),
        (BELOW.start - 1, STACK.start, false),
        (0x1000, 0, false),
    ] {
        (found.address, found.stack) = (address as u64, stack as u64);
        let fault = crash(&found, &[]).fault;
        assert_eq!(fault == Fault::StackOverflow, overflow, "{address:#x}");
    }
}

#[test]
fn signals_that_somebody_sent_are_no_faults() {
    for signal in [libc::SIGSEGV, libc::SIGFPE, libc::SIGTRAP, libc::SIGPROF] {
        for code in [0, -1, -6] {
            let mut found = seen(signal, 14, &[]);
            found.code = code;
            assert_eq!(crash(&found, &[]).fault, Fault::Killed, "{signal}");
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::*;

    /// `idiv dword ptr [rdi]`, `div dword ptr [rdi]`, `idiv esi`.
    const SIGNED: &[u8] = &[0xf7, 0x3f];
    const UNSIGNED: &[u8] = &[0xf7, 0x37];
    const BY_REGISTER: &[u8] = &[0xf7, 0xfe];

    fn divided(code: &[u8], low: u64, high: u64, by: Option<u64>) -> Fault {
        let mut found = seen(libc::SIGFPE, 0, code);
        found.registers[0] = low;
        found.registers[2] = high;
        found.registers[6] = by.unwrap_or(0);
        match told(&found, &[], &|_, bytes| by.filter(|_| bytes == 4)) {
            Outcome::Crashed(crash) => crash.fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_divisor_is_looked_at_where_it_lies() {
        let least = 1 << 31;
        for code in [SIGNED, UNSIGNED, BY_REGISTER] {
            assert_eq!(
                divided(code, least, 0xffff_ffff, Some(0)),
                Fault::DivisionByZero
            );
            assert_eq!(
                divided(code, least, 0xffff_ffff, Some(0xffff_ffff)),
                Fault::DivisionOverflow
            );
        }
    }

    #[test]
    fn where_a_divisor_cannot_be_read_the_dividend_tells() {
        assert_eq!(divided(SIGNED, 7, 0, None), Fault::DivisionByZero);
        assert_eq!(
            divided(SIGNED, 0xffff_fff9, 0xffff_ffff, None),
            Fault::DivisionByZero
        );
        assert_eq!(
            divided(SIGNED, 1 << 31, 0xffff_ffff, None),
            Fault::DivisionOverflow
        );
        assert_eq!(
            divided(UNSIGNED, 0xffff_ffff, 0, None),
            Fault::DivisionByZero
        );
        assert_eq!(divided(UNSIGNED, 0, 1, None), Fault::DivisionOverflow);
    }

    #[test]
    fn what_a_kernel_calls_is_told_at_the_call() {
        // `call` of what lies 0 bytes behind it.
        const CALL: [u8; 8] = [0x90, 0x90, 0x90, 0xe8, 0, 0, 0, 0];
        let call_at = CODE_START + 8;
        let locate = |address| {
            let spot = Spot {
                function: NAME,
                offset: 8,
                before: Some(&CALL),
            };
            (address == call_at).then_some(spot)
        };
        let mut found = seen(libc::SIGSEGV, 14, &[]);
        found.instruction = 0x1234;
        found.words = vec![5, STACK.start as u64, call_at, 7];
        let scene = Scene {
            at: Place::default(),
            sites: &[],
            locate: &locate,
            peek: &|_, _| None,
            stack: STACK,
            below: BELOW,
            limits: Limits::default(),
        };
        let Outcome::Crashed(crash) = explain(&found, scene) else {
            panic!("no crash");
        };
        let code = crash.code.unwrap();
        assert_eq!((code.function.as_str(), code.offset), (NAME, 3));
        assert!(code.instruction.unwrap().starts_with("call"));
    }

    #[test]
    fn a_word_of_the_stack_that_no_call_stands_before_is_none() {
        let mut found = seen(libc::SIGSEGV, 14, &[]);
        found.instruction = 0x1234;
        found.words = vec![CODE_START + 7];
        assert_eq!(crash(&found, &[]).code, None);
    }

    #[test]
    fn an_instruction_s_own_address_is_told_and_not_where_its_page_begins() {
        // `movups xmmword ptr [rdi+8], xmm0`.
        let mut found = seen(libc::SIGSEGV, 14, &[0x0f, 0x11, 0x47, 0x08]);
        found.registers[7] = 0x1fec;
        (found.address, found.syndrome) = (0x2000, 6);
        let access = crash(&found, &[site(0, 0x1f00, 64, 4)]).access.unwrap();
        assert_eq!((access.address, access.bytes), (0x1ff4, Some(16)));
        assert_eq!(access.write, Some(true));
        let place = access.argument.unwrap();
        assert_eq!((place.element, place.outside), (64, 1));
    }
}

mod aarch64 {
    use super::super::aarch64::{call_before, decode, returns};
    use super::*;

    /// A class of syndromes, and whether it was a write.
    const fn syndrome(class: u64, write: bool) -> u64 {
        class << 26 | (write as u64) << 6
    }

    fn decoded(signal: i32, syndrome: u64, address: u64) -> Decoded {
        let mut found = seen(signal, 0, &[]);
        (found.syndrome, found.address) = (syndrome, address);
        decode(&found, &|_, _| None)
    }

    #[test]
    fn the_syndrome_says_what_an_access_was() {
        for write in [false, true] {
            let read = decoded(libc::SIGSEGV, syndrome(0x24, write), 0x1000);
            assert_eq!((read.write, read.is_jump), (Some(write), false));
            assert_eq!(read.instruction, Some(CODE_START));
        }
        assert_eq!(decoded(libc::SIGSEGV, 0, 0x1000).write, None);
        for class in [0x20, 0x22] {
            let jump = decoded(libc::SIGSEGV, syndrome(class, false), 0x1000);
            assert_eq!((jump.is_jump, jump.instruction), (true, None));
        }
        assert!(decoded(libc::SIGSEGV, 0, CODE_START).is_jump);
        // Their address is the instruction's.
        for signal in [libc::SIGILL, libc::SIGTRAP] {
            let other = decoded(signal, 0, CODE_START);
            assert_eq!(
                (other.is_jump, other.instruction),
                (false, Some(CODE_START))
            );
        }
    }

    #[test]
    fn a_jump_comes_from_where_the_link_register_says() {
        let mut found = seen(libc::SIGSEGV, 0, &[]);
        found.registers[30] = 0x1234;
        found.words = vec![5, 6];
        assert_eq!(returns(&found, true).collect::<Vec<_>>(), [0x1234]);
        assert_eq!(returns(&found, false).collect::<Vec<_>>(), [0x1234, 5, 6]);
        let spot = |offset| Spot {
            function: NAME,
            offset,
            before: None,
        };
        assert_eq!(call_before(&spot(12), 0x1234), Some((8, None)));
        assert_eq!(call_before(&spot(3), 0x1234), None);
    }
}
