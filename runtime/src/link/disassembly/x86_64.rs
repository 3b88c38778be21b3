//! x86-64.

use iced_x86::{
    ConstantOffsets, Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction,
    InstructionInfoFactory, IntelFormatter, MemorySize, Mnemonic, OpKind, Register, SymbolResolver,
    SymbolResult,
};

use super::constants::Lane;
use super::names::{Name, Names, Place};
use super::usage::Tally;
use super::{Machine, Text};

/// The longest instruction there is, in bytes.
const LONGEST: usize = 15;

/// The name of vector registers of so many bits.
pub(super) const fn vector_name(bits: u32) -> &'static str {
    match bits {
        512 => "zmm",
        256 => "ymm",
        _ => "xmm",
    }
}

pub(super) struct X86 {
    instruction: Instruction,
    fields: ConstantOffsets,
}

impl Machine for X86 {
    const STEP: usize = 1;

    fn decode(code: &[u8], offset: u64) -> Option<X86> {
        let code = code.get(..LONGEST).unwrap_or(code);
        let mut decoder = Decoder::with_ip(64, code, offset, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then(|| X86 {
            instruction,
            fields: decoder.get_constant_offsets(&instruction),
        })
    }

    fn size(&self) -> usize {
        self.instruction.len().max(1)
    }

    fn branch(&self) -> Option<u64> {
        let is_near = is_near_branch(self.instruction.op0_kind());
        is_near.then(|| self.instruction.near_branch_target())
    }

    fn is_padding(&self) -> bool {
        let mnemonic = self.instruction.mnemonic();
        // `xchg ax, ax` and `lea rsi, [rsi]` are nops of older assemblers.
        matches!(mnemonic, Mnemonic::Nop | Mnemonic::Int3)
            || self.instruction.op0_register() == self.instruction.op1_register()
                && mnemonic == Mnemonic::Xchg
    }

    fn text(&self, names: &Names<'_>, place: &Place<'_>) -> Text {
        let instruction = &self.instruction;
        let fields = &self.fields;
        let displaced = fields.has_displacement();
        let displaced = displaced.then(|| place.relocation_at(fields.displacement_offset()));
        let displaced = displaced.flatten();
        let immediate = fields.has_immediate();
        let immediate = immediate.then(|| place.relocation_at(fields.immediate_offset()));
        let immediate = immediate.flatten();
        let within = |offset| names.at(place.section, offset, place);

        let memory = match displaced {
            Some(relocation) => Some(names.of(relocation, place)),
            None if instruction.is_ip_rel_memory_operand() => {
                Some(within(instruction.ip_rel_memory_address()))
            }
            None => None,
        };
        let value = match immediate {
            Some(relocation) => Some(names.of(relocation, place)),
            None => self.branch().map(within),
        };
        let is_slot = displaced.is_some_and(|r| r.kind.compute.needs_slot());
        let target = match instruction.flow_control() {
            FlowControl::Next | FlowControl::Return | FlowControl::Exception => None,
            // Through the address that the GOT has of it.
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                memory.clone().filter(|_| is_slot)
            }
            _ => value.clone(),
        };
        let constant = displaced
            .filter(|_| self.reads_one_place())
            .and_then(|relocation| {
                let (lane, count) = lanes(instruction.memory_size())?;
                names.constant(relocation, place, lane, count)
            });
        let slot = |name: Name| format!("{}@GOT", name.into_text());
        let referred = Referred {
            memory: match memory {
                Some(name) if is_slot => Some(slot(name)),
                name => name.map(Name::into_text),
            },
            value: match value {
                Some(name) if immediate.is_some_and(|r| r.kind.compute.needs_slot()) => {
                    Some(slot(name))
                }
                name => name.map(Name::into_text),
            },
        };
        Text {
            text: format(instruction, referred),
            target,
            constant,
        }
    }

    fn tally(&self, tally: &mut Tally) {
        let instruction = &self.instruction;
        let mut info = InstructionInfoFactory::new();
        for used in info.info(instruction).used_registers() {
            let full = used.register().full_register();
            if full.is_gpr64() && full != Register::RSP {
                let name = format!("{full:?}").to_lowercase();
                tally.general.insert(full.number(), name);
            }
        }
        for register in registers(instruction) {
            if register.is_vector_register() {
                tally.vector.insert(register.number());
                tally.widest = tally.widest.max(bits(register));
            } else if register.is_k() {
                tally.mask.insert(register.number());
            }
        }
        tally.packed = tally.packed.max(packed_bits(instruction));
        note_stack(instruction, tally);
    }

    fn unknown(bytes: &[u8]) -> String {
        let bytes: Vec<_> = bytes.iter().map(|b| format!("{b:#04x}")).collect();
        format!(".byte {}", bytes.join(", "))
    }
}

impl X86 {
    /// Whether its memory operand is at one place, whatever registers hold.
    fn reads_one_place(&self) -> bool {
        let base = self.instruction.memory_base();
        self.instruction.memory_index() == Register::None
            && matches!(base, Register::None | Register::RIP)
    }
}

/// What stands in the place of numbers.
struct Referred {
    memory: Option<String>,
    value: Option<String>,
}

impl SymbolResolver for Referred {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        let name = match instruction.op_kind(instruction_operand?) {
            OpKind::Memory => self.memory.as_deref(),
            _ => self.value.as_deref(),
        };
        Some(SymbolResult::with_str(address, name?))
    }
}

fn format(instruction: &Instruction, referred: Referred) -> String {
    let mut formatter = IntelFormatter::with_options(Some(Box::new(referred)), None);
    let options = formatter.options_mut();
    options.set_space_after_operand_separator(true);
    options.set_space_between_memory_add_operators(true);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_rip_relative_addresses(true);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

const fn is_near_branch(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    )
}

/// The registers that it names, its mask among them.
fn registers(instruction: &Instruction) -> impl Iterator<Item = Register> {
    let operands = (0..instruction.op_count())
        .filter(|&i| instruction.op_kind(i) == OpKind::Register)
        .map(|i| instruction.op_register(i));
    let others = [instruction.memory_index(), instruction.op_mask()];
    operands.chain(others)
}

fn bits(register: Register) -> u32 {
    u32::try_from(8 * register.size()).unwrap_or(0)
}

/// The bits of the vectors that it works on; 0 where it works on one element, or may do so.
fn packed_bits(instruction: &Instruction) -> u32 {
    let vectors = registers(instruction).filter(|r| r.is_vector_register());
    let width = vectors.map(bits).max().unwrap_or(0);
    let mnemonic = format!("{:?}", instruction.mnemonic()).to_lowercase();
    let mnemonic = mnemonic.strip_prefix('v').unwrap_or(&mnemonic);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| mnemonic.starts_with(p));
    let base = instruction.memory_base();
    let on_stack = matches!(base, Register::RSP | Register::RBP);
    // The registers of scalars are cleared, copied, and have their signs changed like this.
    let is_logic = starts(&["xor", "pxor", "and", "pand", "or", "por"]);
    let is_move = starts(&["mova", "movu", "movdq"]);
    let in_memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
    let is_data = in_memory && base != Register::RIP;
    let is_preparation = starts(&["broadcast"]) && width == 128;
    if is_preparation || is_move && on_stack || (is_move || is_logic) && width == 128 && !is_data {
        return 0;
    }
    let of_one = ["ss", "sd", "sh", "si"]
        .iter()
        .any(|e| mnemonic.ends_with(e));
    let into_one = starts(&["movd", "movq", "pinsr", "pextr", "insertps", "extractps"])
        && !starts(&["movdqa", "movdqu", "movddup"]);
    let half_of_one = starts(&["cvtph2ps", "cvtps2ph"]) && !in_memory;
    let is_scalar = of_one || into_one || half_of_one;
    if is_scalar && width == 128 { 0 } else { width }
}

/// How it moves the stack's pointer.
fn note_stack(instruction: &Instruction, tally: &mut Tally) {
    match instruction.flow_control() {
        FlowControl::Next => {}
        FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
            return tally.end_path();
        }
        _ => return,
    }
    let by = i64::from(instruction.stack_pointer_increment());
    if by != 0 {
        return tally.grow(by.saturating_neg());
    }
    if instruction.op0_register() != Register::RSP {
        return;
    }
    let is_immediate = !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
    let immediate = || instruction.immediate(1).cast_signed();
    match instruction.mnemonic() {
        Mnemonic::Sub if is_immediate => tally.grow(immediate()),
        Mnemonic::Add if is_immediate => tally.grow(immediate().saturating_neg()),
        // What is cut off to align it; it was a multiple of 8 before.
        Mnemonic::And if is_immediate => tally.grow(immediate().saturating_neg().max(8) - 8),
        Mnemonic::Lea if instruction.memory_base() == Register::RSP => {
            let by = instruction.memory_displacement64().cast_signed();
            tally.grow(by.saturating_neg());
        }
        // Back to where a frame began.
        Mnemonic::Lea if instruction.memory_base() == Register::RBP => {}
        Mnemonic::Mov if instruction.op1_register() == Register::RBP => {}
        Mnemonic::Cmp | Mnemonic::Test => {}
        _ => tally.is_dynamic = true,
    }
}

/// What the bytes that it reads are taken for, and how many of them.
fn lanes(size: MemorySize) -> Option<(Lane, usize)> {
    let bytes = size.size();
    let lane = match size.element_type() {
        MemorySize::Float16 => Lane::F16,
        MemorySize::BFloat16 => Lane::Bf16,
        MemorySize::Float32 => Lane::F32,
        MemorySize::Float64 => Lane::F64,
        MemorySize::Int8 => Lane::Int(1),
        MemorySize::Int16 => Lane::Int(2),
        MemorySize::Int32 => Lane::Int(4),
        MemorySize::Int64 => Lane::Int(8),
        MemorySize::UInt8 => Lane::Bits(1),
        MemorySize::UInt16 => Lane::Bits(2),
        MemorySize::UInt32 => Lane::Bits(4),
        MemorySize::UInt64 => Lane::Bits(8),
        _ if bytes.is_multiple_of(4) => Lane::Bits(4),
        _ => return None,
    };
    (bytes > 0).then(|| (lane, bytes / lane.size()))
}
