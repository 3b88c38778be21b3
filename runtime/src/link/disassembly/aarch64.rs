//! aarch64.

use yaxpeax_arch::{Decoder as _, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction, Opcode, Operand, SIMDSizeCode, SizeCode};

use super::constants::Lane;
use super::names::{Name, Names, Place};
use super::usage::Tally;
use super::{Machine, Text};
use crate::link::object_file::Relocation;
use crate::link::relocation::{self, Compute};

/// The number of the stack's pointer, where it is one.
const SP: u16 = 31;

/// The frame's pointer.
const FP: u16 = 29;

/// The name of vector registers.
pub(super) const fn vector_name(_bits: u32) -> &'static str {
    "v"
}

pub(super) struct A64 {
    instruction: Instruction,
    offset: u64,
}

impl Machine for A64 {
    const STEP: usize = 4;

    fn decode(code: &[u8], offset: u64) -> Option<A64> {
        let word = code.get(..4)?;
        let instruction = InstDecoder::default().decode(&mut U8Reader::new(word));
        let instruction = instruction.ok()?;
        Some(A64 {
            instruction,
            offset,
        })
    }

    fn size(&self) -> usize {
        4
    }

    fn branch(&self) -> Option<u64> {
        self.is_branch().then(|| self.referred()).flatten()
    }

    fn is_padding(&self) -> bool {
        self.instruction.opcode == Opcode::UDF || self.instruction.to_string() == "nop"
    }

    fn text(&self, names: &Names<'_>, place: &Place<'_>) -> Text {
        let text = self.plain();
        let relocation = place.relocations.first().copied();
        let name = match relocation {
            Some(relocation) => Some(names.of(relocation, place)),
            None => self
                .referred()
                .map(|offset| names.at(place.section, offset, place)),
        };
        let target = name.clone().filter(|_| self.is_branch());
        let constant = relocation.and_then(|relocation| {
            let (lane, count) = self.reads()?;
            names.constant(relocation, place, lane, count)
        });
        let prefix = relocation.map_or_else(String::new, prefix);
        let named = |name: Name| with_name(&text, &format!("{prefix}{}", name.into_text()));
        Text {
            text: name.map_or_else(|| text.clone(), named),
            target,
            constant,
        }
    }

    fn tally(&self, tally: &mut Tally) {
        let mut general = |number: u16| {
            if number < SP {
                tally.general.insert(number.into(), format!("x{number}"));
            }
        };
        let mut vectors = Vec::new();
        for operand in self.instruction.operands {
            match operand {
                Operand::Register(_, n)
                | Operand::RegisterOrSP(_, n)
                | Operand::RegShift(_, _, _, n)
                | Operand::RegPreIndex(n, _, _)
                | Operand::RegPostIndex(n, _) => general(n),
                Operand::RegisterPair(_, n) => [n, n + 1].into_iter().for_each(&mut general),
                Operand::RegRegOffset(n, m, ..) | Operand::RegPostIndexReg(n, m) => {
                    [n, m].into_iter().for_each(&mut general);
                }
                Operand::SIMDRegister(_, n)
                | Operand::SIMDRegisterElements(_, n, _)
                | Operand::SIMDRegisterElementsLane(_, n, _, _)
                | Operand::SIMDRegisterElementsMultipleLane(_, n, _, _, _) => vectors.push(n),
                Operand::SIMDRegisterGroup(_, n, _, count)
                | Operand::SIMDRegisterGroupLane(n, _, count, _) => {
                    vectors.extend((0..u16::from(count)).map(|i| (n + i) % 32));
                }
                _ => {}
            }
        }
        tally.vector.extend(vectors.into_iter().map(usize::from));
        tally.packed = tally.packed.max(self.packed_bits());
        self.note_stack(tally);
    }

    fn unknown(bytes: &[u8]) -> String {
        match bytes.first_chunk() {
            Some(&word) => format!(".inst {:#010x}", u32::from_le_bytes(word)),
            None => format!(".byte {bytes:?}"),
        }
    }
}

impl A64 {
    /// The text without names.
    fn plain(&self) -> String {
        let text = self.instruction.to_string();
        // Of all elements, or of one: the decoder calls both a move.
        match text.strip_prefix("mov ") {
            Some(operands)
                if self.instruction.opcode == Opcode::DUP
                    && matches!(
                        self.instruction.operands[0],
                        Operand::SIMDRegisterElements(..)
                    ) =>
            {
                format!("dup {operands}")
            }
            _ => text,
        }
    }

    fn is_branch(&self) -> bool {
        matches!(
            self.instruction.opcode,
            Opcode::B
                | Opcode::BL
                | Opcode::Bcc(_)
                | Opcode::CBZ
                | Opcode::CBNZ
                | Opcode::TBZ
                | Opcode::TBNZ
        )
    }

    /// The offset in the section that it is told by its distance; of `adrp` it is told none.
    fn referred(&self) -> Option<u64> {
        let distance = self.instruction.operands.iter().find_map(|o| match o {
            Operand::PCOffset(distance) => Some(*distance),
            _ => None,
        });
        let distance = distance.filter(|_| self.instruction.opcode != Opcode::ADRP);
        self.offset.checked_add_signed(distance?)
    }

    /// What a load takes memory for: the type of its register says how much it is.
    fn reads(&self) -> Option<(Lane, usize)> {
        if self.instruction.opcode != Opcode::LDR {
            return None;
        }
        match self.instruction.operands[0] {
            Operand::SIMDRegister(SIMDSizeCode::H, _) => Some((Lane::F16, 1)),
            Operand::SIMDRegister(SIMDSizeCode::S, _) => Some((Lane::F32, 1)),
            Operand::SIMDRegister(SIMDSizeCode::D, _) => Some((Lane::F64, 1)),
            Operand::SIMDRegister(SIMDSizeCode::Q, _) => Some((Lane::Bits(4), 4)),
            Operand::Register(SizeCode::W, _) => Some((Lane::Bits(4), 1)),
            Operand::Register(SizeCode::X, _) => Some((Lane::Bits(8), 1)),
            _ => None,
        }
    }

    /// The bits of the vectors that it works on; 0 where it works on one element, or may do so.
    fn packed_bits(&self) -> u32 {
        let Instruction { opcode, operands } = self.instruction;
        let on_stack = operands.iter().any(|operand| {
            matches!(
                operand,
                Operand::RegPreIndex(SP | FP, ..) | Operand::RegPostIndex(SP | FP, _)
            )
        });
        // Registers are cleared, and copied, like this.
        let is_plain =
            opcode == Opcode::MOVI || opcode == Opcode::ORR && operands[1] == operands[2];
        if on_stack || is_plain {
            return 0;
        }
        let bits = operands.iter().map(|operand| match operand {
            Operand::SIMDRegisterElements(size, ..) | Operand::SIMDRegisterGroup(size, ..) => {
                if *size == SIMDSizeCode::Q {
                    128
                } else {
                    64
                }
            }
            Operand::SIMDRegister(SIMDSizeCode::Q, _) => 128,
            _ => 0,
        });
        bits.max().unwrap_or(0)
    }

    /// How it moves the stack's pointer.
    fn note_stack(&self, tally: &mut Tally) {
        let Instruction { opcode, operands } = self.instruction;
        if matches!(opcode, Opcode::RET | Opcode::B | Opcode::BR) {
            return tally.end_path();
        }
        for operand in operands {
            match operand {
                Operand::RegPreIndex(SP, by, true) | Operand::RegPostIndex(SP, by) => {
                    tally.grow(i64::from(by).saturating_neg());
                }
                _ => {}
            }
        }
        let is_sp = |operand| matches!(operand, Operand::RegisterOrSP(SizeCode::X, SP));
        if !is_sp(operands[0]) {
            return;
        }
        let by = match operands[2] {
            Operand::Immediate(by) => Some(i64::from(by)),
            Operand::Imm16(by) => Some(by.into()),
            Operand::ImmShift(by, shift) => Some(i64::from(by) << shift.min(32)),
            _ => None,
        };
        let from_frame = matches!(operands[1], Operand::RegisterOrSP(SizeCode::X, FP));
        match (opcode, by) {
            (Opcode::SUB, Some(by)) if is_sp(operands[1]) => tally.grow(by),
            (Opcode::ADD, Some(by)) if is_sp(operands[1]) => tally.grow(-by),
            // Back to where a frame began.
            (Opcode::ADD | Opcode::SUB, Some(_)) if from_frame => {}
            (Opcode::SUBS | Opcode::ADDS, _) => {}
            _ => tally.is_dynamic = true,
        }
    }
}

/// What an assembler wants before the name, to know which part of the address is meant.
fn prefix(relocation: &Relocation) -> String {
    let field = relocation.kind.field;
    match relocation.kind.compute {
        Compute::SlotPage => ":got:".into(),
        Compute::Slot | Compute::SlotFromPage if field.width == 4 => ":got_lo12:".into(),
        Compute::Absolute if field.place == relocation::Place::Move => {
            format!(":abs_g{}:", field.shift / 16)
        }
        Compute::Absolute if field.width == 4 => ":lo12:".into(),
        _ => String::new(),
    }
}

/// The text with a name in the place of what the linker will fill: a distance, or a zero.
fn with_name(text: &str, name: &str) -> String {
    if let Some(at) = text.find('$') {
        let after = text[at..]
            .find([',', ' '])
            .map_or("", |end| &text[at + end..]);
        return format!("{}{name}{after}", &text[..at]);
    }
    if let Some((before, after)) = text.rsplit_once("#0x0") {
        return format!("{before}{name}{after}");
    }
    match text.rsplit_once(']') {
        Some((before, after)) if !before.contains('#') => format!("{before}, {name}]{after}"),
        _ => format!("{text}, {name}"),
    }
}
