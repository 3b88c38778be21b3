//! `svod inspect BUNDLE KERNEL`
//!
//! `--json` prints one object:
//!
//! | key | what |
//! | --- | --- |
//! | `bundle`, `name` | the folder as it was given, and the plan's name |
//! | `kernel`, `entry`, `launches` | its number in the plan, the name of its entry, and how many ops launch it |
//! | `signature` | its `params`, `convention` (`c` or `packed`) and what it `returns` (`void` or `status`) |
//! | `signature.params[]` | `kind` is `buffer` (`dtype`, `len`, `access`, `align`), `scalar` (`dtype`, `name`, `bounds`) or `index` (`dtype`, `max`) |
//! | `language`, `source_file`, `source` | `C` or `LLVM IR`, the file, and its text; null where there is none |
//! | `object` | its `origin` (`bundle`, `cache` or `compiled`), `architecture`, and `bytes` |
//! | `object.sections[]` | `name`, `rights` (`code`, `constants` or `data`) and `bytes` |
//! | `functions[]` | the entry first: `name`, `aliases`, `section`, `offset`, `bytes`, `usage`, `instructions` |
//! | `functions[].usage` | registers by kind (`general`, `vector`, `mask`), `vector_bits` (null of scalar code), `stack_bytes`, `stack_is_dynamic`, `calls` |
//! | `functions[].instructions[]` | `offset` in the function, `bytes`, `label`, `text`, `target`, `constant` |

use std::io::Write;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json as object};
use svod_runtime::bundle::{Bundle, Wanted};
use svod_runtime::compile::{Language, Object, Origin, Source};
use svod_runtime::link::disassembly::{Function, Instruction, Listing, Usage};
use svod_runtime::link::{Architecture, ObjectFile, Rights};
use svod_runtime::plan::PlanKernel;
use svod_runtime::signature::{Convention, Param, Returns};
use svod_runtime::{Guard, Runtime, RuntimeBuilder};

use crate::inspect::uses;
use crate::{Failure, InspectArgs, Outcome, json, show};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const LABEL: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));

/// How many names are shown where one is not found.
const NEAR: usize = 5;

/// What is known of a kernel.
struct Inspected<'a> {
    bundle: &'a Bundle,
    number: usize,
    kernel: &'a PlanKernel,
    source: Option<Source>,
    object: Object,
    origin: Origin,
    listing: Listing,
}

pub(crate) fn inspect(
    bundle: &Bundle,
    name: &str,
    args: &InspectArgs,
    out: &mut dyn Write,
) -> Outcome {
    let number = find(bundle, name)?;
    let source = bundle.source(number)?;
    if args.source {
        let source = source
            .ok_or_else(|| Failure::Usage(format!("kernel {number} has objects and no source")))?;
        for line in source_text(&source)?.lines() {
            writeln!(out, "{}", plain(line))?;
        }
        return Ok(true);
    }
    let mut builder = RuntimeBuilder::from_env().guard(Guard::Off);
    builder = builder.opt_level(args.opt_level.unwrap_or_default());
    if let Some(cc) = &args.cc {
        builder = builder.cc(cc);
    }
    let as_is = args.cc.is_none() && args.opt_level.is_none() && !args.recompile;
    let wanted = Wanted {
        carried: as_is,
        level: args.cpu.as_ref(),
    };
    let (object, origin) = bundle.object(&builder.build()?, number, &wanted)?;
    let listing = ObjectFile::parse(object.entry(), object.bytes())?.disassemble();
    let inspected = Inspected {
        bundle,
        number,
        kernel: &bundle.plan().kernels()[number],
        source,
        object,
        origin,
        listing,
    };
    if args.json {
        writeln!(out, "{}", json::text(&inspected.as_json()))?;
    } else if args.asm {
        inspected.assembly(false, out)?;
    } else {
        inspected.text(out)?;
    }
    Ok(true)
}

/// The kernel of this entry, or of this number.
fn find(bundle: &Bundle, name: &str) -> Result<usize, Failure> {
    let kernels = bundle.plan().kernels();
    let named = kernels.iter().enumerate().filter(|(_, k)| k.entry == name);
    let numbers: Vec<usize> = named.map(|(i, _)| i).collect();
    match (numbers.as_slice(), name.parse::<usize>()) {
        ([one], _) => Ok(*one),
        ([], Ok(number)) if number < kernels.len() => Ok(number),
        ([], _) => Err(Failure::Usage(not_found(bundle, name))),
        (several, _) => {
            let several: Vec<_> = several.iter().map(ToString::to_string).collect();
            Err(Failure::Usage(format!(
                "{} kernels have the entry `{name}`; say which by its number: {}",
                several.len(),
                several.join(", ")
            )))
        }
    }
}

fn not_found(bundle: &Bundle, name: &str) -> String {
    let kernels = bundle.plan().kernels().iter().map(|k| k.entry.as_str());
    let mut near: Vec<_> = kernels
        .map(|entry| (strsim::jaro_winkler(name, entry), entry))
        .collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.dedup_by_key(|(_, entry)| *entry);
    let likely = near.iter().filter(|(likeness, _)| *likeness > 0.6).count();
    let (shown, intro) = match likely {
        0 => (NEAR, "some are"),
        likely => (likely.min(NEAR), "near to it"),
    };
    let near = near.iter().take(shown);
    let near: Vec<_> = near.map(|(_, entry)| format!("`{entry}`")).collect();
    let count = show::count(bundle.plan().kernels().len(), "kernel");
    let near = near.join(", ");
    format!("there is no kernel `{name}` among {count}, counted from 0; {intro}: {near}")
}

/// Tabs are no harm, and indent.
fn plain(line: &str) -> String {
    let parts: Vec<_> = line.split('\t').map(show::plain).collect();
    parts.join("\t")
}

fn source_text(source: &Source) -> Result<&str, Failure> {
    std::str::from_utf8(source.contents())
        .map_err(|_| Failure::Usage("its source is bitcode, which is no text".into()))
}

const fn language(source: &Source) -> &'static str {
    match source.language() {
        Language::C => "C",
        Language::LlvmIr => "LLVM IR",
        Language::Mlir => "MLIR",
    }
}

/// The functions, the entry first.
fn functions<'a>(listing: &'a Listing, entry: &str) -> impl Iterator<Item = &'a Function> {
    let entry = listing.function(entry);
    let others = listing.functions.iter();
    let others = others.filter(move |f| !entry.is_some_and(|e| std::ptr::eq(e, *f)));
    entry.into_iter().chain(others)
}

/// Their instructions, with where each lies, or without, so that two can be compared.
fn write_assembly(
    listing: &Listing,
    entry: &str,
    with_offsets: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let comment = match listing.architecture {
        Architecture::X86_64 => ";",
        Architecture::Aarch64 => "//",
    };
    for (i, function) in functions(listing, entry).enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        for name in function.aliases.iter().chain([&function.name]) {
            writeln!(out, "{BOLD}{}:{BOLD:#}", show::plain(name))?;
        }
        for instruction in &function.instructions {
            line(instruction, with_offsets, comment, out)?;
        }
    }
    Ok(())
}

/// The assembly of a kernel as this runtime loads it, for what is no terminal.
pub(crate) fn assembly_text(
    bundle: &Bundle,
    runtime: &Runtime,
    number: usize,
) -> Result<String, Failure> {
    let (object, _) = bundle.object(runtime, number, &Wanted::default())?;
    let listing = ObjectFile::parse(object.entry(), object.bytes())?.disassemble();
    let mut text = Vec::new();
    write_assembly(&listing, object.entry(), false, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(anstream::adapter::strip_str(&text).to_string())
}

impl Inspected<'_> {
    fn functions(&self) -> impl Iterator<Item = &Function> {
        functions(&self.listing, &self.kernel.entry)
    }

    fn text(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let entry = show::plain(&self.kernel.entry);
        let launches = uses(self.bundle.plan()).remove(&self.number).unwrap_or(0);
        let number = self.number;
        let ops = show::count(launches, "op");
        writeln!(
            out,
            "{BOLD}{entry}{BOLD:#}: kernel {number}, launched by {ops}"
        )?;

        writeln!(out, "\n{BOLD}signature{BOLD:#}")?;
        let signature = &self.kernel.signature;
        for (i, param) in signature.params().iter().enumerate() {
            writeln!(out, "  {i}  {}", param_text(param))?;
        }
        if signature.convention() == Convention::Packed {
            writeln!(
                out,
                "  packed: called with a table of pointers and one of values"
            )?;
        }
        if signature.returns() == Returns::Status {
            writeln!(out, "  returns a status, 0 where all is well")?;
        }

        writeln!(out, "\n{BOLD}object{BOLD:#}")?;
        let architecture = self.listing.architecture;
        let bytes = show::bytes(self.object.bytes().len());
        let origin = match self.origin {
            Origin::Compiled => "compiled now",
            Origin::Cached => "from the cache",
            Origin::Carried => "carried by the bundle",
        };
        writeln!(out, "  {bytes} of {architecture}, {origin}")?;
        for section in &self.listing.sections {
            let size = show::bytes(usize::try_from(section.bytes).unwrap_or(usize::MAX));
            let (rights, name) = (rights(section.rights), show::plain(&section.name));
            writeln!(out, "  {rights:<9}  {size:>9}  {name}")?;
        }
        for function in self.functions() {
            let name = show::plain(&function.name);
            writeln!(out, "\n{BOLD}{name}{BOLD:#}")?;
            usage_text(function, out)?;
        }

        if let Some(source) = &self.source {
            let file = self.bundle.source_file(self.number).unwrap_or_default();
            let file = show::plain(&file.to_string_lossy());
            writeln!(out, "\n{BOLD}source{BOLD:#}: {}, {file}", language(source))?;
            match source_text(source) {
                Ok(text) => {
                    for line in text.lines() {
                        writeln!(out, "{}", plain(line))?;
                    }
                }
                Err(_) => writeln!(out, "bitcode")?,
            }
        }
        writeln!(out, "\n{BOLD}assembly{BOLD:#}")?;
        self.assembly(true, out)
    }

    fn assembly(&self, with_offsets: bool, out: &mut dyn Write) -> Result<(), Failure> {
        write_assembly(&self.listing, &self.kernel.entry, with_offsets, out)
    }

    fn as_json(&self) -> Value {
        let signature = &self.kernel.signature;
        let source = self.source.as_ref();
        let sections = self.listing.sections.iter().map(|section| {
            object!({
                "name": section.name,
                "rights": rights(section.rights),
                "bytes": section.bytes,
            })
        });
        object!({
            "bundle": self.bundle.path(),
            "name": self.bundle.plan().name(),
            "kernel": self.number,
            "entry": self.kernel.entry,
            "launches": uses(self.bundle.plan()).remove(&self.number).unwrap_or(0),
            "signature": {
                "params": signature.params().iter().map(param_json).collect::<Vec<_>>(),
                "convention": match signature.convention() {
                    Convention::C => "c",
                    Convention::Packed => "packed",
                },
                "returns": match signature.returns() {
                    Returns::Void => "void",
                    Returns::Status => "status",
                },
            },
            "language": source.map(language),
            "source_file": self.bundle.source_file(self.number),
            "source": source.and_then(|s| std::str::from_utf8(s.contents()).ok()),
            "object": {
                "origin": match self.origin {
                    Origin::Compiled => "compiled",
                    Origin::Cached => "cache",
                    Origin::Carried => "bundle",
                },
                "architecture": self.listing.architecture.name(),
                "bytes": self.object.bytes().len(),
                "sections": sections.collect::<Vec<_>>(),
            },
            "functions": self.functions().map(function_json).collect::<Vec<_>>(),
        })
    }
}

/// `rw f32[1024], aligned to 16 bytes`
fn param_text(param: &Param) -> String {
    match param {
        Param::Buffer(p) => format!(
            "{:<2} {}[{}], aligned to {}",
            p.access.name(),
            p.dtype,
            p.len,
            show::count(p.align, "byte")
        ),
        Param::Scalar(p) => format!("{} {} {}", p.dtype, show::plain(&p.name), p.bounds),
        Param::Index(p) => format!("{} grid index, below {}", p.dtype, p.max),
    }
}

fn param_json(param: &Param) -> Value {
    match param {
        Param::Buffer(p) => object!({
            "kind": "buffer",
            "dtype": p.dtype.name(),
            "len": p.len,
            "access": p.access.name(),
            "align": p.align,
        }),
        Param::Scalar(p) => object!({
            "kind": "scalar",
            "dtype": p.dtype.name(),
            "name": p.name,
            "bounds": p.bounds.to_string(),
        }),
        Param::Index(p) => object!({ "kind": "index", "dtype": p.dtype.name(), "max": p.max }),
    }
}

const fn rights(rights: Rights) -> &'static str {
    match rights {
        Rights::Code => "code",
        Rights::Constants => "constants",
        Rights::Data => "data",
    }
}

/// What a function takes of the machine.
fn usage_text(function: &Function, out: &mut dyn Write) -> Result<(), Failure> {
    let Usage {
        general,
        vector,
        mask,
        vector_bits,
        stack_bytes,
        stack_is_dynamic,
        calls,
    } = &function.usage;
    let mut fact = |name: &str, words: &[String]| match words {
        [] => Ok(()),
        words => facts(name, words, out),
    };
    let instructions = show::count(function.instructions.len(), "instruction");
    let bytes = show::count(
        usize::try_from(function.bytes).unwrap_or(usize::MAX),
        "byte",
    );
    fact("code", &[format!("{bytes}, {instructions}")])?;
    let unknown = function.instructions.iter().filter(|i| !i.is_known).count();
    if unknown > 0 {
        fact("not known", &[show::count(unknown, "instruction")])?;
    }
    let width = match vector_bits {
        Some(bits) => format!("{bits} bits wide"),
        None => "none, scalar code".to_owned(),
    };
    fact("vectors", &[width])?;
    let stack = match (stack_bytes, stack_is_dynamic) {
        (0, false) => "none".to_owned(),
        (bytes, false) => format!("{bytes} bytes"),
        (bytes, true) => format!("{bytes} bytes, and more that it computes"),
    };
    fact("stack", &[stack])?;
    fact(
        "registers",
        &[ranges(general), ranges(vector), ranges(mask)].concat(),
    )?;
    let calls: Vec<_> = calls.iter().map(|c| show::plain(c)).collect();
    fact("calls", &calls)
}

/// A line of words, or several where the terminal is narrow.
fn facts(name: &str, words: &[String], out: &mut dyn Write) -> Result<(), Failure> {
    const INDENT: usize = 13;
    let columns = terminal_size::terminal_size().map_or(80, |(w, _)| w.0.into());
    let mut line = format!("  {name:<9}  ");
    let mut used = INDENT;
    for (i, word) in words.iter().enumerate() {
        let word = if i + 1 < words.len() {
            format!("{word}, ")
        } else {
            word.clone()
        };
        let takes = word.chars().count();
        if used > INDENT && used + takes.saturating_sub(1) > columns {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(INDENT);
            used = INDENT;
        }
        line += &word;
        used += takes;
    }
    writeln!(out, "{line}")?;
    Ok(())
}

/// `ymm0-ymm7`: registers that follow each other by number.
fn ranges(names: &[String]) -> Vec<String> {
    let split = |name: &String| -> Option<(String, u32)> {
        let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        let stem = name.strip_suffix(digits)?;
        Some((stem.to_owned(), digits.parse().ok()?))
    };
    let follows = |a: &String, b: &String| match (split(a), split(b)) {
        (Some((a, n)), Some((b, m))) => a == b && n + 1 == m,
        _ => false,
    };
    let runs = names.chunk_by(|a, b| follows(a, b)).map(|run| match run {
        [first, _, .., last] => vec![format!("{first}-{last}")],
        few => few.to_vec(),
    });
    runs.flatten().collect()
}

fn line(
    instruction: &Instruction,
    with_offset: bool,
    comment: &str,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if let Some(label) = &instruction.label {
        writeln!(out, "{LABEL}{}:{LABEL:#}", show::plain(label))?;
    }
    let text = show::plain(&instruction.text);
    if with_offset {
        write!(out, "{DIM}{:6x}{DIM:#}", instruction.offset)?;
    }
    write!(out, "  {text}")?;
    if let Some(constant) = &instruction.constant {
        write!(out, "  {DIM}{comment} {}{DIM:#}", show::plain(constant))?;
    }
    writeln!(out)?;
    Ok(())
}

fn function_json(function: &Function) -> Value {
    let usage = &function.usage;
    let instructions = function.instructions.iter().map(|i| {
        object!({
            "offset": i.offset,
            "bytes": i.bytes,
            "label": i.label,
            "text": i.text,
            "target": i.target,
            "constant": i.constant,
        })
    });
    object!({
        "name": function.name,
        "aliases": function.aliases,
        "section": function.section,
        "offset": function.offset,
        "bytes": function.bytes,
        "usage": {
            "general": usage.general,
            "vector": usage.vector,
            "mask": usage.mask,
            "vector_bits": usage.vector_bits,
            "stack_bytes": usage.stack_bytes,
            "stack_is_dynamic": usage.stack_is_dynamic,
            "calls": usage.calls,
        },
        "instructions": instructions.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_in_a_row_are_a_range() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let all = names(&["ymm0", "ymm1", "ymm2", "ymm5", "ymm6", "ymm9"]);
        assert_eq!(ranges(&all), ["ymm0-ymm2", "ymm5", "ymm6", "ymm9"]);
        assert_eq!(
            ranges(&names(&["rax", "rcx", "r8", "r9", "r10"])),
            ["rax", "rcx", "r8-r10"]
        );
    }
}
