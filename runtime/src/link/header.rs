//! Which files are objects that can be linked, and which are something else by name.

use object::LittleEndian;
use object::elf;
use object::read::elf::FileHeader as _;

use super::architecture::Architecture;
use crate::Error;

pub(super) type Header = elf::FileHeader64<LittleEndian>;
pub(super) const LE: LittleEndian = LittleEndian;

pub(super) fn malformed(kernel: &str, reason: impl std::fmt::Display) -> Error {
    Error::MalformedObject {
        kernel: kernel.to_owned(),
        reason: reason.to_string(),
    }
}

pub(super) fn unsupported(kernel: &str, feature: impl Into<String>) -> Error {
    Error::UnsupportedObject {
        kernel: kernel.to_owned(),
        feature: feature.into(),
    }
}

/// The header of an object file, and what its code runs on.
pub(super) fn read<'data>(
    kernel: &str,
    bytes: &'data [u8],
) -> Result<(&'data Header, Architecture), Error> {
    let unsupported = |feature: String| Err(unsupported(kernel, feature));
    match object::FileKind::parse(bytes) {
        Ok(object::FileKind::Elf64) => {}
        Ok(object::FileKind::Elf32) => {
            return unsupported("it is a 32-bit ELF file, not a 64-bit one".into());
        }
        Ok(other) => return unsupported(format!("it is no ELF file ({other:?})")),
        Err(_) if is_bitcode(bytes) => {
            return unsupported(
                "it is LLVM bitcode, not an object; compile it with -fno-lto".into(),
            );
        }
        Err(_) => return Err(malformed(kernel, "it is no object file")),
    }
    let header = Header::parse(bytes).map_err(|e| malformed(kernel, e))?;
    if !header.is_little_endian() {
        return unsupported("it is big-endian".into());
    }
    match header.e_type(LE) {
        elf::ET_REL => {}
        elf::ET_DYN => {
            return unsupported("it is a shared object, not a relocatable one".into());
        }
        elf::ET_EXEC => {
            return unsupported("it is a program, not a relocatable object".into());
        }
        other => return unsupported(format!("its ELF type is {}", other.0)),
    }
    let machine = header.e_machine(LE);
    match Architecture::of_machine(machine) {
        Some(architecture) => Ok((header, architecture)),
        None => unsupported(format!(
            "it is for the ELF machine {}, and this linker knows x86-64 and aarch64",
            machine.0
        )),
    }
}

/// Whether it is what clang writes for link-time optimisation, plain or in a wrapper.
fn is_bitcode(bytes: &[u8]) -> bool {
    bytes.starts_with(b"BC\xc0\xde") || bytes.starts_with(&0x0b17_c0de_u32.to_le_bytes())
}
