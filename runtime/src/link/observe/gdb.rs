//! The JIT interface of gdb, which lldb has as well: a list of object files in memory, and
//! a function that is called when it changes, where the debugger has a breakpoint.
//!
//! The interface is described in gdb's manual, *JIT Compilation Interface*. Its list is the
//! process's, by definition: a debugger finds it by its name, `__jit_debug_descriptor`. So it
//! is the one thing that runtimes share, also those of several copies of this library in a
//! program; nothing of a runtime depends on it. One lock guards it, while a file is put in or
//! taken out. The two symbols are weak, so that a program may have another library that defines
//! them; it is for the program not to have both change the list at the same time.
//!
//! What is put there is a small ELF file with the names of the functions at their final
//! addresses, and none of their bytes, which the debugger reads where they run.

use std::arch::global_asm;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, SectionHeader, Sym, Writer};

use super::Function;
use crate::link::Architecture;

/// An object file in the list.
#[repr(C)]
struct Entry {
    next: *mut Entry,
    previous: *mut Entry,
    file: *const u8,
    size: u64,
}

/// The list, and what changed last.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    changed: *mut Entry,
    first: *mut Entry,
}

const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

// In assembly, as Rust has no weak symbols. The descriptor says version 1, and nothing else.
global_asm!(
    ".pushsection .text.__jit_debug_register_code, \"ax\", @progbits",
    ".weak __jit_debug_register_code",
    ".type __jit_debug_register_code, @function",
    ".balign 16",
    "__jit_debug_register_code:",
    "ret",
    ".size __jit_debug_register_code, . - __jit_debug_register_code",
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor, \"aw\", @progbits",
    ".weak __jit_debug_descriptor",
    ".type __jit_debug_descriptor, @object",
    ".balign 8",
    "__jit_debug_descriptor:",
    ".4byte 1, 0",
    ".8byte 0, 0",
    ".size __jit_debug_descriptor, . - __jit_debug_descriptor",
    ".popsection",
);

unsafe extern "C" {
    safe fn __jit_debug_register_code();
    static mut __jit_debug_descriptor: Descriptor;
}

/// Held by whoever changes the list.
static LIST: Mutex<()> = Mutex::new(());

/// A file in the list, until it is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    /// Made from a box, which the list has a pointer to.
    entry: NonNull<Entry>,
    /// What the entry points to.
    _file: Vec<u8>,
}

// SAFETY: its entry is read and written under the lock alone, and freed by whoever drops
// it last, on whatever thread.
unsafe impl Send for Registered {}
// SAFETY: as above; a shared one can do nothing.
unsafe impl Sync for Registered {}

impl Registered {
    /// Tells the debugger of these functions.
    pub(super) fn new(functions: &[Function<'_>]) -> Registered {
        let file = file(functions).unwrap_or_default();
        let entry = NonNull::from(Box::leak(Box::new(Entry {
            next: std::ptr::null_mut(),
            previous: std::ptr::null_mut(),
            file: file.as_ptr(),
            size: file.len() as u64,
        })));
        let _held = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        let list = &raw mut __jit_debug_descriptor;
        // SAFETY: the list is a static, laid out as `Descriptor` is, by the words above it
        // or by another library that follows the same description. We hold its lock. What
        // it points to is entries that are alive: each is taken out before it is freed.
        // All access is by raw pointers, so that no reference claims them for itself.
        unsafe {
            let first = (*list).first;
            (*entry.as_ptr()).next = first;
            if !first.is_null() {
                (*first).previous = entry.as_ptr();
            }
            (*list).first = entry.as_ptr();
            (*list).changed = entry.as_ptr();
            (*list).action = REGISTER;
        }
        __jit_debug_register_code();
        Registered { entry, _file: file }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let held = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        let list = &raw mut __jit_debug_descriptor;
        let entry = self.entry.as_ptr();
        // SAFETY: as in `new`. The entry is in the list, since it was put there when this
        // was made, and is taken out here alone.
        unsafe {
            let (previous, next) = ((*entry).previous, (*entry).next);
            if previous.is_null() {
                (*list).first = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            (*list).changed = entry;
            (*list).action = UNREGISTER;
        }
        __jit_debug_register_code();
        // SAFETY: as above.
        unsafe { (*list).changed = std::ptr::null_mut() };
        drop(held);
        // SAFETY: it was made of a box, and nothing points to it any more: neither its
        // neighbours nor the list, and the debugger forgot it in the call above.
        drop(unsafe { Box::from_raw(entry) });
    }
}

/// An ELF file that names the functions, in one section that spans them and has no bytes.
fn file(functions: &[Function<'_>]) -> object::write::Result<Vec<u8>> {
    let start = functions.iter().map(|f| f.address).min().unwrap_or(0);
    let end = functions.iter().map(|f| f.address + f.size).max();
    let size = end.map_or(0, |end| end - start);

    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    // First what there is, in the order in which it is written.
    writer.reserve_file_header();
    let text_name = writer.add_section_name(b".text");
    let text = writer.reserve_section_index();
    let names: Vec<_> = functions
        .iter()
        .map(|function| {
            writer.reserve_symbol_index(Some(text));
            writer.add_string(function.name.as_bytes())
        })
        .collect();
    writer.reserve_symtab_section_index();
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();
    writer.reserve_symtab();
    writer.reserve_strtab()?;
    writer.reserve_shstrtab()?;
    writer.reserve_section_headers();

    writer.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        // Addresses in it are final.
        e_type: elf::ET_EXEC,
        e_machine: match Architecture::HOST {
            Some(Architecture::Aarch64) => elf::EM_AARCH64,
            Some(Architecture::X86_64) | None => elf::EM_X86_64,
        },
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    })?;
    writer.write_null_symbol();
    for (function, name) in functions.iter().zip(names) {
        writer.write_symbol(&Sym {
            section: Some(text.0),
            st_name: writer.string_offset(Some(name)),
            st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, elf::STT_FUNC),
            st_other: elf::SymbolOther(0),
            st_shndx: elf::SHN_UNDEF,
            st_value: function.address,
            st_size: function.size,
        });
    }
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    writer.write_section_header(&SectionHeader {
        sh_name: writer.section_name_offset(Some(text_name)),
        sh_type: elf::SHT_NOBITS,
        sh_flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR,
        sh_addr: start,
        sh_offset: 0,
        sh_size: size,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 16,
        sh_entsize: 0,
    });
    // The null symbol alone is local.
    writer.write_symtab_section_header(1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Ok(bytes)
}
