//! An object's code as a person reads it, with names in the place of relocations.
//!
//! It is a pure function of the object's bytes, as linking is, for every architecture on every
//! host. What is decoded is what the compiler left: nothing is linked, so that what code refers
//! to still has its name, and a kernel of another machine can be looked at.
//!
//! x86-64 is decoded by `iced-x86`, which knows all of AVX-512; aarch64 by `yaxpeax-arm`, which
//! knows the base and its vectors, with half precision, but not SVE. Words that it does not know
//! are listed as they are.

mod aarch64;
mod constants;
mod listing;
mod names;
mod usage;
mod x86_64;

pub use usage::Usage;

use super::architecture::Architecture;
use super::layout::Rights;
use super::object_file::ObjectFile;
use listing::Lister;
use names::{Name, Names, Place};
use usage::Tally;

/// What the code of an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What it runs on.
    pub architecture: Architecture,
    /// The sections that are loaded.
    pub sections: Vec<ListedSection>,
    /// Its functions, in the order in which they lie in the file; and code that belongs to no
    /// function, which is called after its section.
    pub functions: Vec<Function>,
}

/// A section that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSection {
    /// Its name.
    pub name: String,
    /// What may be done with its memory.
    pub rights: Rights,
    /// How many bytes it takes.
    pub bytes: u64,
}

/// Code with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Other names of the same place.
    pub aliases: Vec<String>,
    /// The section that it lies in.
    pub section: String,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// How many bytes it takes, up to where the next function begins.
    pub bytes: u64,
    /// What it consists of, in order.
    pub instructions: Vec<Instruction>,
    /// What it takes of the machine.
    pub usage: Usage,
}

/// An instruction, or data among instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins, in bytes from the start of its function.
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
    /// The label of this place, where something jumps here.
    pub label: Option<String>,
    /// The instruction, in Intel's syntax for x86-64 and in Arm's for aarch64. `.byte` or
    /// `.inst` and its bytes where it is not known, `.word` where it is data.
    pub text: String,
    /// Where it jumps to, or what it calls, where it says so itself: a label of its function,
    /// or a name; with `+` and a distance where neither lies there.
    pub target: Option<String>,
    /// The constant that it reads, where it reads one.
    pub constant: Option<String>,
    /// Whether it was understood.
    pub is_known: bool,
}

/// What names are cut to, in bytes: a file may hold a long one, and refer to it everywhere.
const MAX_NAME: usize = 120;

impl Listing {
    /// The function of this name, or with this alias.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        let is_called = |f: &&Function| f.name == name || f.aliases.iter().any(|a| a == name);
        self.functions.iter().find(is_called)
    }

    /// The bytes of its sections with these rights.
    #[must_use]
    pub fn bytes(&self, rights: Rights) -> u64 {
        let sections = self.sections.iter().filter(|s| s.rights == rights);
        sections.map(|s| s.bytes).sum()
    }
}

impl ObjectFile<'_> {
    /// Its code, function by function, as assembly.
    ///
    /// Calls, and what code reads, have the names that the object's relocations give them.
    /// Padding between functions is left out.
    #[must_use]
    pub fn disassemble(&self) -> Listing {
        let functions = match self.architecture {
            Architecture::X86_64 => Lister::<x86_64::X86>::new(self).functions(),
            Architecture::Aarch64 => Lister::<aarch64::A64>::new(self).functions(),
        };
        let sections = self.sections.iter().filter(|s| s.size > 0);
        let sections = sections.map(|s| ListedSection {
            name: names::cut(s.name),
            rights: s.rights,
            bytes: s.size,
        });
        Listing {
            architecture: self.architecture,
            sections: sections.collect(),
            functions,
        }
    }
}

/// What is asked of an architecture's decoder.
trait Machine: Sized {
    /// The bytes of the smallest instruction.
    const STEP: usize;

    /// The instruction at the start of `code`, which is the rest of a section from `offset` on;
    /// `None` where it is not known.
    fn decode(code: &[u8], offset: u64) -> Option<Self>;

    /// How many bytes it takes, 1 at least.
    fn size(&self) -> usize;

    /// The offset in the section that it jumps to or calls, where that is a part of it.
    fn branch(&self) -> Option<u64>;

    /// Whether it does nothing, or traps, as what stands between functions does.
    fn is_padding(&self) -> bool;

    /// Its text, with names.
    fn text(&self, names: &Names<'_>, place: &Place<'_>) -> Text;

    /// Adds what it uses.
    fn tally(&self, tally: &mut Tally);

    /// What bytes are shown as that are no instruction.
    fn unknown(bytes: &[u8]) -> String;
}

/// An instruction with names.
struct Text {
    text: String,
    target: Option<Name>,
    constant: Option<String>,
}
