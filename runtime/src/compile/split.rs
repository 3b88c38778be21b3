//! An object of many kernels as an object for each.
//!
//! A unit is compiled with a section for each function and each constant, so that what one
//! kernel needs is what relocations lead to from its section. The rest is left out, and its
//! entry gets its own name back. What is left is a relocatable object like any other.

use object::build::elf::{Builder, SectionData, SectionId};
use object::build::{ByteString, Id};
use object::elf;

/// For each pair of names, that of a function in the object and the one that it is to have,
/// an object that holds it and what it needs.
///
/// The same bytes give the same objects.
///
/// # Errors
///
/// What is not understood, in words.
pub(super) fn split(object: &[u8], entries: &[(&str, &str)]) -> Result<Vec<Vec<u8>>, String> {
    let split = entries.iter().map(|(from, to)| one(object, from, to));
    split.collect()
}

fn one(object: &[u8], from: &str, to: &str) -> Result<Vec<u8>, String> {
    let said = |e: object::build::Error| e.to_string();
    let mut builder = Builder::read(object).map_err(said)?;
    let entry = builder
        .symbols
        .iter_mut()
        .find(|s| s.section.is_some() && s.name.as_slice() == from.as_bytes());
    let entry = entry.ok_or_else(|| format!("it defines no `{from}`"))?;
    entry.name = ByteString::from(to.as_bytes().to_vec());
    let (entry, first) = (entry.id(), entry.section);
    let reached = reached(&builder, first.into_iter().collect())?;
    let kept = |section: SectionId| reached.get(section.index()).is_some_and(|r| *r);

    // clang keeps the names of sections among those of symbols.
    let is_names = |data: &SectionData<'_>| matches!(data, SectionData::SectionString);
    if !builder.sections.iter().any(|s| is_names(&s.data)) {
        let names = builder.sections.add();
        names.name = ByteString::from(&b".shstrtab"[..]);
        names.sh_type = elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }

    // Where the data of a section lies is said by whoever writes it.
    let mut offset = builder.file_header_size();
    let mut used = vec![entry.index()];
    for section in &mut builder.sections {
        let needed = match &section.data {
            SectionData::Relocation(relocations) => {
                let needed = section.sh_info_section.is_some_and(kept);
                if needed {
                    used.extend(relocations.iter().filter_map(|r| Some(r.symbol?.index())));
                }
                needed
            }
            SectionData::Symbol | SectionData::String | SectionData::SectionString => true,
            SectionData::SymbolSectionIndex => {
                return Err("it has more sections than are understood".into());
            }
            _ => kept(section.id()),
        };
        section.delete = !needed;
        if needed && section.is_alloc() {
            section.sh_offset = offset.next_multiple_of(section.sh_addralign.max(1));
            offset = section.sh_offset;
            if let SectionData::Data(data) = &section.data {
                offset += data.len() as u64;
            }
        }
    }
    used.sort_unstable();
    for symbol in &mut builder.symbols {
        let there = symbol.section.is_none_or(kept);
        // Symbols that no relocation refers to may say what code and what data is.
        let says = symbol.section.is_some() && symbol.st_type() != elf::STT_FILE;
        symbol.delete = !there || !(says || used.binary_search(&symbol.id().index()).is_ok());
    }
    let mut written = Vec::new();
    builder.write(&mut written).map_err(said)?;
    Ok(written)
}

/// Which sections relocations lead to, by their numbers.
fn reached(builder: &Builder<'_>, mut next: Vec<SectionId>) -> Result<Vec<bool>, String> {
    let count = builder.sections.iter().map(|s| s.id().index() + 1).max();
    let count = count.unwrap_or(0);
    let mut leads_to: Vec<Vec<SectionId>> = vec![Vec::new(); count];
    for section in &builder.sections {
        let SectionData::Relocation(relocations) = &section.data else {
            continue;
        };
        let from = section.sh_info_section;
        let from = from.ok_or("it has relocations of no section")?;
        let symbols = relocations.iter().filter_map(|r| r.symbol);
        let sections = symbols.filter_map(|s| builder.symbols.get(s).section);
        leads_to[from.index()].extend(sections);
    }
    let mut reached = vec![false; count];
    while let Some(section) = next.pop() {
        if std::mem::replace(&mut reached[section.index()], true) {
            continue;
        }
        if builder.sections.get(section).sh_flags.0 & elf::SHF_GROUP.0 != 0 {
            return Err("it has groups of sections".into());
        }
        next.append(&mut leads_to[section.index()]);
    }
    Ok(reached)
}
