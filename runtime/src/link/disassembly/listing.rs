//! Functions found, decoded, and given their labels.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::Range;

use super::names::{Name, Names, Place, Stretch, Target, cut};
use super::usage::Tally;
use super::{Function, Instruction, Machine, Text, aarch64, x86_64};
use crate::link::architecture::Architecture;
use crate::link::object_file::{ObjectFile, Relocation, SymbolAt};

/// What a stretch of code holds at a place.
struct Item<M> {
    offset: u64,
    size: usize,
    /// `None` where it is not known.
    op: Option<M>,
    is_data: bool,
}

/// Lists the functions of an object.
pub(super) struct Lister<'a, M> {
    object: &'a ObjectFile<'a>,
    names: Names<'a>,
    /// Places in sections where the file says that data begins, or code again.
    marks: Vec<(usize, u64, bool)>,
    machine: PhantomData<M>,
}

impl<'a, M: Machine> Lister<'a, M> {
    pub(super) fn new(object: &'a ObjectFile<'a>) -> Self {
        let mut lister = Lister {
            object,
            names: Names::new(object, Vec::new()),
            marks: marks(object),
            machine: PhantomData,
        };
        let stretches = lister.stretches();
        lister.names = Names::new(object, stretches);
        lister
    }

    pub(super) fn functions(mut self) -> Vec<Function> {
        let stretches = self.names.stretches.iter();
        let items: Vec<Vec<Item<M>>> = stretches
            .map(|s| self.items(s.section, s.start..s.end))
            .collect();
        self.find_labels(&items);
        let stretches = self.names.stretches.iter().zip(&items);
        stretches
            .map(|(s, items)| self.function(s, items))
            .collect()
    }

    /// The functions, none of which reaches into the next, and what code lies between them.
    fn stretches(&self) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for named in self.object.code_symbols() {
            let SymbolAt::Section { section, offset } = named.symbol.at else {
                continue;
            };
            let name = cut(named.symbol.name);
            match stretches.last_mut() {
                Some(last) if last.section == section && last.start == offset => {
                    last.aliases.push(name);
                    last.end = last.end.max(offset + named.size);
                }
                _ => stretches.push(Stretch {
                    section,
                    start: offset,
                    end: offset + named.size,
                    name,
                    aliases: Vec::new(),
                }),
            }
        }
        for i in 1..stretches.len() {
            let next = (stretches[i].section, stretches[i].start);
            let last = &mut stretches[i - 1];
            if last.section == next.0 {
                last.end = last.end.min(next.1);
            }
        }
        let mut all = Vec::new();
        let mut named = stretches.into_iter().peekable();
        for (section, data) in self.object.sections.iter().enumerate() {
            if !data.rights.executes() {
                continue;
            }
            let mut at = 0;
            while let Some(stretch) = named.next_if(|s| s.section == section) {
                all.extend(self.between(section, at..stretch.start));
                at = stretch.end;
                all.push(stretch);
            }
            all.extend(self.between(section, at..data.data.len() as u64));
        }
        all
    }

    /// Code that has no name, unless it is padding.
    fn between(&self, section: usize, range: Range<u64>) -> Option<Stretch> {
        let is_padding = |item: &Item<M>| match &item.op {
            Some(op) => op.is_padding(),
            None => self.bytes(section, item).iter().all(|&b| b == 0),
        };
        let items = self.items(section, range.clone());
        let is_code = items.iter().any(|item| !is_padding(item));
        is_code.then(|| {
            let name = cut(self.object.sections[section].name);
            Stretch {
                section,
                start: range.start,
                end: range.end,
                name: match range.start {
                    0 => name,
                    start => format!("{name}+{start:#x}"),
                },
                aliases: Vec::new(),
            }
        })
    }

    /// The bytes of an item.
    fn bytes(&self, section: usize, item: &Item<M>) -> &'a [u8] {
        let start = usize::try_from(item.offset).unwrap_or(usize::MAX);
        let rest = self.object.sections[section].data.get(start..);
        let rest = rest.unwrap_or_default();
        &rest[..item.size.min(rest.len())]
    }

    /// Decodes a range of a section.
    fn items(&self, section: usize, range: Range<u64>) -> Vec<Item<M>> {
        let data = self.object.sections[section].data;
        let mut items = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let start = usize::try_from(at).unwrap_or(usize::MAX);
            let end = usize::try_from(range.end).unwrap_or(usize::MAX);
            let Some(rest) = data
                .get(start..end.min(data.len()))
                .filter(|r| !r.is_empty())
            else {
                break;
            };
            let is_data = self.is_data(section, at);
            let op = (!is_data).then(|| M::decode(rest, at)).flatten();
            let size = match &op {
                Some(op) => op.size(),
                None => self.address_size(section, at).unwrap_or(M::STEP),
            };
            items.push(Item {
                offset: at,
                size: size.clamp(1, rest.len()),
                op,
                is_data,
            });
            at += size.max(1) as u64;
        }
        items
    }

    /// The bytes of what a relocation fills here.
    fn address_size(&self, section: usize, at: u64) -> Option<usize> {
        let relocation = self.names.relocations(section, at..at + 1).first();
        relocation.map(|r| r.kind.field.width.into())
    }

    /// Whether the file says that data lies here, among code.
    fn is_data(&self, section: usize, offset: u64) -> bool {
        let after = self
            .marks
            .partition_point(|&(s, o, _)| (s, o) <= (section, offset));
        let mark = after.checked_sub(1).and_then(|i| self.marks.get(i));
        mark.is_some_and(|&(s, _, is_data)| s == section && is_data)
    }

    fn place(&self, section: usize, item: &Item<M>) -> Place<'_> {
        let end = item.offset + item.size as u64;
        Place {
            section,
            offset: item.offset,
            end,
            relocations: self.names.relocations(section, item.offset..end),
        }
    }

    /// Gives names to where something jumps to, or where an address in data points.
    fn find_labels(&mut self, items: &[Vec<Item<M>>]) {
        let mut targets: BTreeSet<(usize, u64)> = BTreeSet::new();
        for (stretch, items) in self.names.stretches.iter().zip(items) {
            for item in items {
                let place = self.place(stretch.section, item);
                for relocation in place.relocations {
                    targets.extend(self.in_code(relocation, place.end));
                }
                if place.relocations.is_empty() {
                    let branch = item.op.as_ref().and_then(M::branch);
                    targets.extend(branch.map(|offset| (stretch.section, offset)));
                }
            }
        }
        let data = self.object.sections.iter().filter(|s| !s.rights.executes());
        for relocation in data.flat_map(|s| &s.relocations) {
            targets.extend(self.in_code(relocation, relocation.offset));
        }
        let mut labels = Vec::new();
        for (stretch, items) in self.names.stretches.iter().zip(items) {
            let starts = items.iter().skip(1).map(|i| (stretch.section, i.offset));
            let hit = starts.filter(|start| targets.contains(start));
            labels.extend(hit.zip(1..).map(|(at, n)| (at, format!(".L{n}"))));
        }
        self.names.labels.extend(labels);
    }

    /// Where in code a relocation leads.
    fn in_code(&self, relocation: &Relocation, end: u64) -> Option<(usize, u64)> {
        match self.names.target(relocation, end) {
            Target::Section(section, offset) if self.object.sections[section].rights.executes() => {
                Some((section, offset))
            }
            _ => None,
        }
    }

    fn function(&self, stretch: &Stretch, items: &[Item<M>]) -> Function {
        let mut tally = Tally::default();
        let instructions = items.iter().map(|item| {
            let Text {
                text,
                target,
                constant,
            } = self.text(stretch.section, item);
            if let Some(op) = &item.op {
                op.tally(&mut tally);
            }
            if let Some(Name::Global(name)) = &target
                && *name != stretch.name
            {
                tally.calls.insert(name.clone());
            }
            let label = self.names.labels.get(&(stretch.section, item.offset));
            Instruction {
                offset: item.offset - stretch.start,
                bytes: item.size as u64,
                label: label.cloned(),
                text,
                target: target.map(Name::into_text),
                constant,
                is_known: item.op.is_some() || item.is_data,
            }
        });
        let instructions = instructions.collect();
        let vectors = match self.object.architecture {
            Architecture::X86_64 => x86_64::vector_name,
            Architecture::Aarch64 => aarch64::vector_name,
        };
        Function {
            name: stretch.name.clone(),
            aliases: stretch.aliases.clone(),
            section: cut(self.object.sections[stretch.section].name),
            offset: stretch.start,
            bytes: stretch.end - stretch.start,
            instructions,
            usage: tally.usage(vectors),
        }
    }

    fn text(&self, section: usize, item: &Item<M>) -> Text {
        let place = self.place(section, item);
        if let Some(op) = &item.op {
            return op.text(&self.names, &place);
        }
        let bytes = self.bytes(section, item);
        let text = match place.relocations.first() {
            Some(relocation) => format!(".word {}", self.names.of(relocation, &place).into_text()),
            None if item.is_data => data(bytes),
            None => M::unknown(bytes),
        };
        Text {
            text,
            target: None,
            constant: None,
        }
    }
}

fn data(bytes: &[u8]) -> String {
    let mut word = [0; 8];
    let size = bytes.len().min(8);
    word[..size].copy_from_slice(&bytes[..size]);
    format!(".word {:#x}", u64::from_le_bytes(word))
}

/// Where the file says that data begins among code, and code again, in order: on aarch64 by
/// symbols of certain names.
fn marks(object: &ObjectFile<'_>) -> Vec<(usize, u64, bool)> {
    let is = |name: &str, mark: &str| {
        let rest = name.strip_prefix(mark);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut marks = Vec::new();
    for symbol in &object.symbols {
        let SymbolAt::Section { section, offset } = symbol.at else {
            continue;
        };
        let is_data = is(symbol.name, "$d");
        if object.architecture == Architecture::Aarch64 && (is_data || is(symbol.name, "$x")) {
            marks.push((section, offset, is_data));
        }
    }
    marks.sort_unstable();
    marks
}
