//! The line of source that an instruction is of.
//!
//! Kernels are compiled without tables of lines. So one that was found at fault is compiled again
//! with them; where that gives the same bytes of code, the table is of these.

use std::path::PathBuf;

use gimli::{AttributeValue, DebugLine, DebugLineOffset, EndianSlice, LineRow, LittleEndian};
use object::read::elf::ElfFile64;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationKind, RelocationTarget,
    SectionIndex,
};

use super::Line;
use crate::compile::Object;
use crate::sandbox::CodePlace;

type File<'d> = ElfFile64<'d, object::LittleEndian>;

/// The line of a place in an object, by the table of another object with the same code.
pub(super) fn line(object: &Object, with_lines: &Object, place: &CodePlace) -> Option<Line> {
    let plain = File::parse(object.bytes()).ok()?;
    let file = File::parse(with_lines.bytes()).ok()?;
    let (_, _, code) = function(&plain, &place.function)?;
    let (section, start, same) = function(&file, &place.function)?;
    if code != same {
        return None;
    }
    let address = base(section) + start + place.offset;
    let table = relocated(&file, ".debug_line")?;
    let strings = [".debug_line_str", ".debug_str"].map(|name| relocated(&file, name));
    let [line_strings, strings] = strings.map(Option::unwrap_or_default);
    let table = DebugLine::new(&table, LittleEndian);
    let program = table.program(DebugLineOffset(0), 8, None, None).ok()?;
    let mut rows = program.rows();
    let mut before: Option<LineRow> = None;
    while let Some((header, row)) = rows.next_row().ok()? {
        let found = before.filter(|b| (b.address()..row.address()).contains(&address));
        if let Some(found) = found {
            let file = found.file(header)?;
            let name = |value: AttributeValue<EndianSlice<'_, LittleEndian>>| match value {
                AttributeValue::String(name) => Some(name.slice().to_vec()),
                AttributeValue::DebugLineStrRef(at) => text(&line_strings, at.0),
                AttributeValue::DebugStrRef(at) => text(&strings, at.0),
                _ => None,
            };
            let mut path = PathBuf::new();
            // The first is the folder in which the compiler ran.
            if file.directory_index() != 0 {
                path.push(String::from_utf8(name(file.directory(header)?)?).ok()?);
            }
            path.push(String::from_utf8(name(file.path_name())?).ok()?);
            return Some(Line {
                file: path,
                line: u32::try_from(found.line()?.get()).ok()?,
            });
        }
        before = (!row.end_sequence()).then_some(*row);
    }
    None
}

/// Where a function lies: its section, where in it, and its bytes.
fn function<'d>(file: &File<'d>, name: &str) -> Option<(SectionIndex, u64, &'d [u8])> {
    let symbol = file
        .symbols()
        .find(|s| s.name() == Ok(name) && s.is_definition())?;
    let index = symbol.section_index()?;
    let data = file.section_by_index(index).ok()?.data().ok()?;
    let start = usize::try_from(symbol.address()).ok()?;
    let end = start.checked_add(usize::try_from(symbol.size()).ok()?)?;
    Some((index, symbol.address(), data.get(start..end)?))
}

/// Addresses of a section's, which all begin at 0 in an object, begin here.
const fn base(section: SectionIndex) -> u64 {
    (section.0 as u64) << 32
}

/// A section with what its relocations add. Addresses of code are as [`base`] has them, and
/// offsets into other sections as they are.
fn relocated(file: &File<'_>, name: &str) -> Option<Vec<u8>> {
    let section = file.section_by_name(name)?;
    let mut data = section.data().ok()?.to_vec();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else {
            return None;
        };
        let symbol = file.symbol_by_index(symbol).ok()?;
        let target = symbol.section_index()?;
        let is_code = file.section_by_index(target).ok()?.kind() == object::SectionKind::Text;
        let start = if is_code { base(target) } else { 0 };
        let value = start
            .wrapping_add(symbol.address())
            .wrapping_add_signed(relocation.addend());
        if relocation.kind() != RelocationKind::Absolute {
            return None;
        }
        let bytes = usize::from(relocation.size() / 8);
        let at = usize::try_from(offset).ok()?;
        let field = data.get_mut(at..at.checked_add(bytes)?)?;
        field.copy_from_slice(value.to_le_bytes().get(..bytes)?);
    }
    Some(data)
}

/// The string at an offset, which ends with a zero.
fn text(strings: &[u8], at: usize) -> Option<Vec<u8>> {
    let rest = strings.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(rest[..end].to_vec())
}
