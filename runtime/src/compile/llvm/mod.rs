//! LLVM IR, compiled in this process.
//!
//! libLLVM is opened at run time, where it is found: nothing of it is needed to build this
//! library, or to run what needs no IR. It is called through its C interface, which is the same
//! from version 15 on as far as it is used here.
//!
//! **What LLVM gives up on must not end the process.** Its answer to what it cannot select is to
//! report a fatal error, and to exit once the handler for that returns. So each compilation
//! has a thread of its own, and the handler, which says to whoever waits why, does not return: the
//! thread sleeps for good, with what it has. A program that compiles a thousand such modules has
//! a thousand sleeping threads, and lives. What LLVM crashes on, as with a signal, it is not
//! protected from; for that there are processes. What fuzzing found to crash it is [refused](check)
//! before, which is not all that there is.

mod api;
mod check;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use libloading::os::unix::{Library as UnixLibrary, RTLD_LOCAL, RTLD_NOW};

use self::api::{Api, Ref};
use super::{OptLevel, Options, Source};

/// Versions, from the newest that is looked for to the oldest that has opaque pointers.
const VERSIONS: std::ops::RangeInclusive<u32> = 15..=30;

/// The libraries that are prepared: LLVM keeps lists of its own for the process, which only
/// one thread may add to. A library is in a process once, whichever runtime opens it.
static PREPARED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What a thread that compiles has for its stack, in bytes. LLVM recurses, and what is not touched
/// takes no memory. The C library keeps up to 40 MB of stacks, in all, for later threads; a larger one
/// is mapped and unmapped each time.
const STACK: usize = 32 << 20;

/// LLVM's numbers.
const RELOCATION_PIC: i32 = 2;
const CODE_MODEL_DEFAULT: i32 = 0;
const RETURN_STATUS: i32 = 2;
const OBJECT_FILE: i32 = 1;
const SEVERITY_ERROR: i32 = 0;

/// A libLLVM that is open, for the rest of the process's life.
#[derive(Clone, Debug)]
pub struct Llvm {
    path: PathBuf,
    version: u32,
    api: Api,
}

/// Why there is no object.
pub(super) enum Failure {
    /// LLVM said so.
    Diagnostics(String),
    /// It is left to a compiler that knows more CPUs by their names.
    Elsewhere,
}

impl Llvm {
    /// Opens the library at this path, or of this name.
    ///
    /// # Errors
    ///
    /// Why it cannot be opened, or used.
    pub(super) fn open(path: &Path) -> Result<Llvm, String> {
        let mut prepared = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: who names a library trusts it as a program. LLVM's runs nothing at its start
        // but what sets up its own lists.
        let library = unsafe { UnixLibrary::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let library = libloading::Library::from(library.map_err(|e| e.to_string())?);
        // SAFETY: who names it says that it is LLVM's, and it is never closed, as it is
        // forgotten below.
        let api = unsafe { Api::find(&library) };
        let told = api::version(&library);
        let path = loaded_path(&library).unwrap_or_else(|| path.to_owned());
        let is_new = !prepared.contains(&path);
        if is_new {
            for target in ["X86", "AArch64"] {
                api::initialise(&library, target);
            }
        }
        std::mem::forget(library);
        let api = api.map_err(|name| format!("it has no function {name}"))?;
        let llvm = Llvm {
            path: path.clone(),
            version: told.unwrap_or(*VERSIONS.start()),
            api,
        };
        if !llvm.has_opaque_pointers() {
            return Err("it is older than version 15".into());
        }
        if is_new {
            // SAFETY: the handler is a function of this program. Where there was one, it goes.
            unsafe {
                (api.reset_fatal_handler)();
                (api.install_fatal_handler)(give_up);
            }
            prepared.push(path);
        }
        Ok(llvm)
    }

    /// The newest that is found.
    pub(super) fn search() -> Option<Llvm> {
        let versioned = VERSIONS.rev().flat_map(|version| {
            [
                format!("libLLVM-{version}.so"),
                format!("libLLVM.so.{version}.1"),
                format!("libLLVM-{version}.so.1"),
                format!("/usr/lib/llvm-{version}/lib/libLLVM.so.1"),
            ]
        });
        let mut names = versioned.chain(["libLLVM.so".to_owned()]);
        names.find_map(|name| Llvm::open(Path::new(&name)).ok())
    }

    /// The files of all versions in the usual folders, the newest first. None is opened.
    pub(crate) fn installed() -> Vec<(u32, PathBuf)> {
        let arch = std::env::consts::ARCH;
        let folders = [
            format!("/usr/lib/{arch}-linux-gnu"),
            "/usr/lib64".to_owned(),
            "/usr/lib".to_owned(),
            "/usr/local/lib".to_owned(),
        ];
        let mut found: Vec<(u32, PathBuf)> = Vec::new();
        for version in VERSIONS.rev() {
            let of_folder = |folder: &String| {
                [
                    format!("{folder}/libLLVM.so.{version}.1"),
                    format!("{folder}/libLLVM-{version}.so.1"),
                    format!("{folder}/libLLVM-{version}.so"),
                ]
            };
            let own = format!("/usr/lib/llvm-{version}/lib/libLLVM.so.1");
            let places = folders.iter().flat_map(of_folder).chain([own]);
            for real in places.filter_map(|place| std::fs::canonicalize(place).ok()) {
                if found.iter().all(|(_, there)| *there != real) {
                    found.push((version, real));
                }
            }
        }
        found
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its major version; 15 of those that do not tell.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    fn has_opaque_pointers(&self) -> bool {
        let probe = c"define void @probe(ptr %x) { ret void }";
        let task = Task::new(self.api);
        // SAFETY: the context is the task's, and the text is there.
        unsafe { task.parse(probe.to_bytes(), c"probe") }.is_ok()
    }

    /// Whether it is asked for code with these options.
    pub(super) fn takes(options: &Options) -> bool {
        Machine::of(options).is_some()
    }

    /// Compiles a module.
    pub(super) fn compile(&self, source: &Source, options: &Options) -> Result<Vec<u8>, Failure> {
        let Some(machine) = Machine::of(options) else {
            return Err(Failure::Elsewhere);
        };
        let _llvm = tracing::debug_span!("llvm", kernel = source.entry).entered();
        let (api, (told, answer)) = (self.api, channel());
        let contents = source.contents.clone();
        let name = CString::new(source.name.replace('\0', "?")).unwrap_or_default();
        let level = options.opt_level;
        let work = move || {
            WAITING.with_borrow_mut(|waiting| *waiting = Some(told.clone()));
            let task = Task::new(api);
            // SAFETY: the context is the task's own.
            let object = unsafe { task.compile(&contents, &name, &machine, level) };
            drop(task);
            WAITING.take();
            // Nobody who waits is no reason to fail.
            let _ = told.send(Ended::Thread(object));
        };
        let thread = thread::Builder::new()
            .name("svod-llvm".into())
            .stack_size(STACK)
            .spawn(work);
        let failed = |e: &dyn std::fmt::Display| {
            Failure::Diagnostics(format!("{}: error: {e}", source.name))
        };
        let thread = thread.map_err(|e| failed(&e))?;
        let object = match answer.recv().map_err(|e| failed(&e))? {
            Ended::Thread(object) => {
                // So that no thread is in LLVM when the process ends.
                let _ = thread.join();
                object
            }
            Ended::Never(reason) => Err(reason),
        };
        object.map_err(|message| {
            let message = message.trim_end();
            if message.starts_with(source.name.as_str()) {
                Failure::Diagnostics(message.to_owned())
            } else {
                failed(&message)
            }
        })
    }
}

/// What comes of a thread that compiles.
enum Ended {
    /// It is about to end, with an object or without.
    Thread(Result<Vec<u8>, String>),
    /// It sleeps for good: LLVM gave up.
    Never(String),
}

thread_local! {
    /// Who waits for what this thread compiles.
    static WAITING: RefCell<Option<Sender<Ended>>> = const { RefCell::new(None) };
}

/// Called by LLVM when it gives up. On a thread of ours it does not return, as the process
/// would end then.
unsafe extern "C" fn give_up(reason: *const c_char) {
    // SAFETY: LLVM hands over a text that ends, and lives for as long as the call.
    let reason = unsafe { text(reason) };
    let waiting = WAITING.try_with(|waiting| waiting.take()).ok().flatten();
    if let Some(waiting) = waiting {
        let _ = waiting.send(Ended::Never(format!("LLVM gives up: {reason}")));
        loop {
            thread::park();
        }
    }
    // A thread of the host's, in the same library. LLVM says nothing where there is a handler.
    let _ = writeln!(std::io::stderr(), "LLVM ERROR: {reason}");
}

/// What code is made for.
struct Machine {
    /// The triple, where it is not the library's own.
    triple: Option<CString>,
    /// The CPU, where it is not this one.
    cpu: Option<&'static CStr>,
}

impl Machine {
    /// `None` for CPUs of which LLVM would not say whether it knows them: it goes on with
    /// another.
    fn of(options: &Options) -> Option<Machine> {
        let cpu = match options.target_cpu.as_str() {
            "native" if options.target.is_none() => None,
            "armv8-a" => Some(c"generic"),
            "x86-64" => Some(c"x86-64"),
            "x86-64-v2" => Some(c"x86-64-v2"),
            "x86-64-v3" => Some(c"x86-64-v3"),
            "x86-64-v4" => Some(c"x86-64-v4"),
            _ => return None,
        };
        // What else is asked for is asked of a C compiler.
        if !options.flags.is_empty() {
            return None;
        }
        let target = options.target.as_deref();
        let is_of_target = |cpu: &&CStr| {
            let x86 = cpu.to_bytes().starts_with(b"x86");
            target.is_none_or(|target| x86 == (architecture(target) == "x86_64"))
        };
        let cpu = match cpu {
            Some(cpu) => Some(Some(cpu).filter(is_of_target)?),
            None => None,
        };
        let triple = options.target.as_deref();
        Some(Machine {
            triple: triple.map(CString::new).transpose().ok()?,
            cpu,
        })
    }
}

/// The work of one thread.
struct Task {
    api: Api,
    context: Ref,
    /// What the context has to say, from whichever pass; in a place of its own, whose address
    /// the context has.
    told: Box<Told>,
}

/// What is told of a context, and how to ask for it.
struct Told {
    api: Api,
    said: RefCell<String>,
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: the context is this task's alone, and what lived in it is gone.
        unsafe { (self.api.context_dispose)(self.context) }
    }
}

/// Told by LLVM of what happens in a context.
unsafe extern "C" fn note(info: Ref, told: *mut c_void) {
    // SAFETY: what LLVM hands on is the address that it was given with the handler, of what
    // the task of this context keeps until the context is gone. It calls on the task's thread.
    let Told { api, said } = unsafe { &*told.cast::<Told>() };
    // SAFETY: the information lives for as long as the call; the text is freed once.
    unsafe {
        if (api.diagnostic_severity)(info) != SEVERITY_ERROR {
            return;
        }
        let message = (api.diagnostic_text)(info);
        let mut said = said.borrow_mut();
        said.push_str(&text(message));
        said.push('\n');
        (api.message_dispose)(message);
    }
}

impl Task {
    fn new(api: Api) -> Task {
        let said = RefCell::default();
        let told = Box::new(Told { api, said });
        // SAFETY: a context of its own, which is disposed of with the task, and before what it
        // is told of.
        let context = unsafe {
            let context = (api.context_create)();
            let told = (&raw const *told).cast_mut().cast();
            (api.set_diagnostic_handler)(context, note, told);
            context
        };
        Task { api, context, told }
    }

    /// A message of LLVM's, taken and freed.
    ///
    /// # Safety
    ///
    /// It must be null or a message that LLVM allocated, which nobody uses after this.
    unsafe fn take(&self, message: *mut c_char) -> String {
        if message.is_null() {
            return String::new();
        }
        // SAFETY: promised by the caller.
        unsafe {
            let taken = text(message);
            (self.api.message_dispose)(message);
            taken
        }
    }

    /// # Safety
    ///
    /// The module must be disposed of before the task is.
    unsafe fn parse(&self, contents: &[u8], name: &CStr) -> Result<Ref, String> {
        let (mut module, mut message) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the buffer copies the bytes, adds the end that LLVM wants, and goes with the
        // call of `parse`, which writes a module or a message.
        let failed = unsafe {
            let start = contents.as_ptr().cast();
            let buffer = (self.api.buffer_copy)(start, contents.len(), name.as_ptr());
            (self.api.parse)(self.context, buffer, &raw mut module, &raw mut message)
        };
        // SAFETY: the message was written by the call, if there is one.
        let message = unsafe { self.take(message) };
        if failed != 0 || module.is_null() {
            return Err(self.all_said(message));
        }
        Ok(module)
    }

    fn all_said(&self, message: String) -> String {
        let said = self.told.said.borrow();
        match (said.trim(), message.trim()) {
            ("", "") => "LLVM did not say why".to_owned(),
            ("", message) => message.to_owned(),
            (said, _) => said.to_owned(),
        }
    }

    /// # Safety
    ///
    /// The calling thread must have [`WAITING`] set, for what is fatal.
    unsafe fn compile(
        &self,
        contents: &[u8],
        name: &CStr,
        machine: &Machine,
        level: OptLevel,
    ) -> Result<Vec<u8>, String> {
        // SAFETY: the module goes before the task does.
        unsafe {
            let module = Module(self.api, self.parse(contents, name)?);
            self.emit(&module, machine, level)
        }
    }

    /// # Safety
    ///
    /// The module must be of this task's context.
    unsafe fn emit(
        &self,
        module: &Module,
        machine: &Machine,
        level: OptLevel,
    ) -> Result<Vec<u8>, String> {
        let api = &self.api;
        // SAFETY: LLVM's functions ask for objects of their kinds that are alive. The module is
        // promised. The target is a static of the library's. The target machine, its layout, the
        // settings and the buffer are made below; each is checked or cannot be null, and its
        // guard disposes of it at the end of this block, in the reverse order, after its last
        // use. Texts that are handed over are C strings that live as long as the call, and
        // those that come back are taken once. The bytes of the buffer are copied while it is
        // there.
        unsafe {
            let mut message = ptr::null_mut();
            if (api.verify)(module.1, RETURN_STATUS, &raw mut message) != 0 {
                return Err(self.all_said(self.take(message)));
            }
            drop(self.take(message));
            let triple = match &machine.triple {
                Some(triple) => triple.clone(),
                None => CString::new(self.take((api.default_triple)())).unwrap_or_default(),
            };
            let stated = text((api.module_target)(module.1));
            let wanted = triple.to_string_lossy();
            if !stated.is_empty() && architecture(&stated) != architecture(&wanted) {
                return Err(format!(
                    "the module is for {stated}, what is compiled for is {wanted}"
                ));
            }
            check::check(api, module.1, architecture(&wanted))?;
            (api.set_module_target)(module.1, triple.as_ptr());
            let (mut target, mut message) = (ptr::null_mut(), ptr::null_mut());
            if (api.target_of)(triple.as_ptr(), &raw mut target, &raw mut message) != 0 {
                return Err(self.all_said(self.take(message)));
            }
            let (cpu, features) = match machine.cpu {
                Some(cpu) => (cpu.to_owned(), CString::default()),
                None => (
                    CString::new(self.take((api.host_cpu)())).unwrap_or_default(),
                    CString::new(self.take((api.host_features)())).unwrap_or_default(),
                ),
            };
            let (passes, effort) = match level {
                OptLevel::O0 => (c"default<O0>", 0),
                OptLevel::O1 => (c"default<O1>", 1),
                OptLevel::O2 => (c"default<O2>", 2),
                OptLevel::O3 => (c"default<O3>", 3),
            };
            let target = (api.machine_create)(
                target,
                triple.as_ptr(),
                cpu.as_ptr(),
                features.as_ptr(),
                effort,
                RELOCATION_PIC,
                CODE_MODEL_DEFAULT,
            );
            if target.is_null() {
                return Err(format!("LLVM makes no code for {wanted}"));
            }
            let target = Guard(api.machine_dispose, target);
            let layout = Guard(api.layout_dispose, (api.machine_layout)(target.1));
            (api.set_module_layout)(module.1, layout.1);
            let settings = Guard(api.passes_dispose, (api.passes_create)());
            // As clang has it.
            for setting in [
                api.passes_slp,
                api.passes_loops,
                api.passes_interleaving,
                api.passes_unrolling,
            ] {
                setting(settings.1, i32::from(effort > 1));
            }
            let error = (api.run_passes)(module.1, passes.as_ptr(), target.1, settings.1);
            if !error.is_null() {
                let message = (api.error_message)(error);
                let said = text(message);
                (api.error_message_dispose)(message);
                return Err(self.all_said(said));
            }
            let (mut message, mut buffer) = (ptr::null_mut(), ptr::null_mut());
            let failed = (api.emit)(
                target.1,
                module.1,
                OBJECT_FILE,
                &raw mut message,
                &raw mut buffer,
            );
            let message = self.take(message);
            if failed != 0 || buffer.is_null() {
                return Err(self.all_said(message));
            }
            let buffer = Guard(api.buffer_dispose, buffer);
            if !self.told.said.borrow().is_empty() {
                return Err(self.all_said(message));
            }
            let start = (api.buffer_start)(buffer.1).cast::<u8>();
            let bytes = std::slice::from_raw_parts(start, (api.buffer_size)(buffer.1));
            Ok(bytes.to_vec())
        }
    }
}

/// A module, until it is disposed of.
struct Module(Api, Ref);

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the module is this guard's, and its context lives.
        unsafe { (self.0.module_dispose)(self.1) }
    }
}

/// An object of LLVM's, and what disposes of it.
struct Guard(unsafe extern "C" fn(Ref), Ref);

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: the object is this guard's, and the function is the one for its kind.
        unsafe { (self.0)(self.1) }
    }
}

/// A text of LLVM's.
///
/// # Safety
///
/// The address must be null or that of a text that ends.
unsafe fn text(start: *const c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    let text = unsafe { CStr::from_ptr(start) };
    text.to_string_lossy().into_owned()
}

/// The architecture of a triple, by one name.
fn architecture(triple: &str) -> &str {
    match triple.split('-').next().unwrap_or(triple) {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        name => name,
    }
}

/// Where a library was found.
fn loaded_path(library: &libloading::Library) -> Option<PathBuf> {
    // SAFETY: it is only looked at where it lies.
    let symbol = unsafe { library.get::<unsafe extern "C" fn()>(b"LLVMContextCreate\0") }.ok()?;
    let address = (*symbol as usize) as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        range.is_some_and(|(start, end)| {
            let number = |hex| u64::from_str_radix(hex, 16).unwrap_or(0);
            (number(start)..number(end)).contains(&address)
        })
    })?;
    let path = line.find('/').map(|at| &line[at..])?;
    Some(PathBuf::from(path))
}
