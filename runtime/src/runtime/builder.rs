//! How a runtime is configured, by its caller and by the environment.

use std::ffi::{OsString, c_void};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::{CacheFolder, Runtime};
use crate::Error;
use crate::compile::cache::DEFAULT_LIMIT;
use crate::compile::{OptLevel, Options, Toolchain};
use crate::confine::Confinement;
use crate::link::{LoadOptions, Symbols};
use crate::memory::Guard;
use crate::pool::{MAX_THREADS, Pool, available_threads};

/// Configures a [`Runtime`].
#[derive(Debug, Default)]
#[must_use]
pub struct RuntimeBuilder {
    cc: Option<PathBuf>,
    llvm: Option<PathBuf>,
    mlir: Option<PathBuf>,
    cache: Option<PathBuf>,
    cache_limit: Option<u64>,
    path: OsString,
    options: Options,
    symbols: Symbols,
    load: LoadOptions,
    guard: Guard,
    /// What `SVOD_GUARD` says that is no guard, unless the caller knows better.
    unknown_guard: Option<String>,
    pool: Option<Pool>,
    /// What `SVOD_CACHE` says that is neither `on` nor `off`, likewise.
    unknown_cache: Option<String>,
    /// What `SVOD_THREADS` says that is no number of threads, likewise.
    unknown_threads: Option<String>,
    /// What `SVOD_PERF_MAP` and `SVOD_GDB` say that is neither 0 nor 1, likewise.
    unknown_perf_map: Option<String>,
    unknown_gdb: Option<String>,
}

impl RuntimeBuilder {
    /// What the environment asks for, and the only place that reads it:
    ///
    /// | variable | what | method |
    /// | --- | --- | --- |
    /// | `SVOD_CC` | the C compiler, a path or a name | [`cc`](Self::cc) |
    /// | `SVOD_LLVM` | libLLVM, a path or a name that the system looks for | [`llvm`](Self::llvm) |
    /// | `SVOD_MLIR` | the folder of `mlir-opt` and `mlir-translate`, or the former, a path or a name | [`mlir`](Self::mlir) |
    /// | `PATH` | where compilers are looked for | [`search_path`](Self::search_path) |
    /// | `SVOD_CACHE_DIR` | the folder of the object cache; `svod` in `XDG_CACHE_HOME`, or else in `.cache` of `HOME`, without it | [`cache_dir`](Self::cache_dir) |
    /// | `SVOD_CACHE` | `off`: no cache of objects | [`no_cache`](Self::no_cache) |
    /// | `SVOD_GUARD` | `off`, `end` or `start`: how buffers are guarded | [`guard`](Self::guard) |
    /// | `SVOD_THREADS` | how many threads a run may have | [`threads`](Self::threads) |
    /// | `SVOD_PERF_MAP` | `1` or `0`: whether `perf` is told of kernels | [`perf_map`](Self::perf_map) |
    /// | `SVOD_GDB` | `1` or `0`: whether `gdb` is told of kernels | [`gdb`](Self::gdb) |
    pub fn from_env() -> RuntimeBuilder {
        let mut builder = RuntimeBuilder {
            path: std::env::var_os("PATH").unwrap_or_default(),
            ..RuntimeBuilder::default()
        };
        if let Some(cc) = std::env::var_os("SVOD_CC").filter(|cc| !cc.is_empty()) {
            builder.cc = Some(cc.into());
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        builder.llvm = variable("SVOD_LLVM").map(PathBuf::from);
        builder.mlir = variable("SVOD_MLIR").map(PathBuf::from);
        builder.cache = variable("SVOD_CACHE_DIR")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(variable("XDG_CACHE_HOME")?).join("svod")))
            .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache/svod")));
        match variable("SVOD_CACHE") {
            Some(value) if value == "off" => builder.cache = None,
            Some(value) if value != "on" => {
                builder.unknown_cache = Some(value.to_string_lossy().into_owned());
            }
            _ => {}
        }
        if let Some(name) = std::env::var_os("SVOD_GUARD").filter(|name| !name.is_empty()) {
            let name = name.to_string_lossy();
            match Guard::from_name(&name) {
                Some(guard) => builder.guard = guard,
                None => builder.unknown_guard = Some(name.into_owned()),
            }
        }
        if let Some(text) = std::env::var_os("SVOD_THREADS").filter(|text| !text.is_empty()) {
            let text = text.to_string_lossy();
            match text.parse() {
                Ok(threads @ 1..=MAX_THREADS) => builder = builder.threads(threads),
                _ => builder.unknown_threads = Some(text.into_owned()),
            }
        }
        let switch = |name| match std::env::var_os(name).filter(|text| !text.is_empty()) {
            None => (false, None),
            Some(text) if text == "0" => (false, None),
            Some(text) if text == "1" => (true, None),
            Some(text) => (false, Some(text.to_string_lossy().into_owned())),
        };
        let observers = &mut builder.load.observers;
        (observers.perf_map, builder.unknown_perf_map) = switch("SVOD_PERF_MAP");
        (observers.gdb, builder.unknown_gdb) = switch("SVOD_GDB");
        builder
    }

    /// The C compiler, a path or a name that is looked for in the search path.
    /// Without one, the best that is found there is used.
    pub fn cc(mut self, cc: impl Into<PathBuf>) -> Self {
        self.cc = Some(cc.into());
        self
    }

    /// The folders in which compilers are looked for, in the form of `PATH`.
    pub fn search_path(mut self, path: impl Into<OsString>) -> Self {
        self.path = path.into();
        self
    }

    /// The libLLVM that compiles LLVM IR, a path or a name that the system looks for. Without
    /// one, the newest from version 15 on that is found is used, and without any clang.
    pub fn llvm(mut self, library: impl Into<PathBuf>) -> Self {
        self.llvm = Some(library.into());
        self
    }

    /// What lowers MLIR to LLVM IR: the folder that has an `mlir-opt` and an `mlir-translate`,
    /// or an `mlir-opt`, a path or a name that is looked for in the search path, with an
    /// `mlir-translate` of the same number beside it. Without it, the newest from version 19 on
    /// that are found there, or in `/usr/lib/llvm-N/bin`, are used.
    pub fn mlir(mut self, tools: impl Into<PathBuf>) -> Self {
        self.mlir = Some(tools.into());
        self
    }

    /// Keeps objects in this folder, for this runtime and whoever else is told the same: what
    /// was compiled once is not compiled again. The folder is created where it lacks, and must
    /// be the user's own. Nothing is kept where neither this nor the environment says so.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self.unknown_cache = None;
        self
    }

    /// How many bytes the objects in the cache may take, [`DEFAULT_LIMIT`] where this is not
    /// called. What was not used for the longest time leaves first.
    pub fn cache_limit(mut self, bytes: u64) -> Self {
        self.cache_limit = Some(bytes);
        self
    }

    /// Keeps no objects, and uses none that were kept.
    pub fn no_cache(mut self) -> Self {
        self.cache = None;
        self.unknown_cache = None;
        self
    }

    /// How hard compilers try; `-O2` where this is not called.
    pub fn opt_level(mut self, level: OptLevel) -> Self {
        self.options.opt_level = level;
        self
    }

    /// The CPU to compile for, as `-march` names it; `native`, this one, where
    /// this is not called.
    pub fn target_cpu(mut self, cpu: impl Into<String>) -> Self {
        self.options.target_cpu = cpu.into();
        self
    }

    /// A further flag for the C compiler, after all others. Compilers run in the
    /// folder of the source: a path in a flag is to be absolute.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.options.flags.push(flag.into());
        self
    }

    /// Confines every process that compiles a source for this runtime, as [`Confinement`] says, so
    /// that it compiles sources that nobody vouches for. LLVM IR is compiled by a confined clang
    /// then, and not in this process. Compilers are not confined while they are asked who they
    /// are, which no source has a say in.
    ///
    /// What was compiled so is kept, and found, apart from what was compiled otherwise. What it
    /// takes is some three milliseconds for each process.
    ///
    /// The kernels that come of it are to be confined as well: see
    /// [`Rights`](crate::confine::Rights).
    pub fn confine_compilers(mut self, confinement: Confinement) -> Self {
        self.options.confinement = Some(Arc::new(confinement));
        self
    }

    /// Admits kernels that keep state in writable sections of their own, which are
    /// refused where this is not called. The calls of such a kernel, and of others in
    /// the same object, are made one at a time, also those of one grid; a kernel must
    /// not lead back to itself by a symbol of the embedder's. What it computes may
    /// depend on all earlier calls, which no instance's reset undoes.
    pub fn admit_state(mut self, admit: bool) -> Self {
        self.load.admit_state = admit;
        self
    }

    /// Whether `perf` is told of the kernels, by lines in `/tmp/perf-PID.map` that call
    /// them `svod:` and their entry; not where this is not called. What `perf report` says
    /// then names them. Nobody removes the file.
    pub fn perf_map(mut self, tell: bool) -> Self {
        self.load.observers.perf_map = tell;
        self.unknown_perf_map = None;
        self
    }

    /// Whether `gdb` is told of the kernels, by its JIT interface, so that backtraces name
    /// them and breakpoints can be set in them; not where this is not called. The interface
    /// is the process's, not the runtime's: a debugger sees the kernels of all runtimes
    /// that were told to.
    pub fn gdb(mut self, tell: bool) -> Self {
        self.load.observers.gdb = tell;
        self.unknown_gdb = None;
        self
    }

    /// How buffers are guarded; not at all where this is not called.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self.unknown_guard = None;
        self
    }

    /// How many threads a run may have, with the one that calls it; as many as the process
    /// [has room for](available_threads) where neither this nor [`pool`](Self::pool) is called.
    pub fn threads(self, threads: usize) -> Self {
        self.pool(Pool::builder().threads(threads).build())
    }

    /// The threads that runs may have, with all that can be said about them; also those that
    /// another runtime has.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pool = Some(pool);
        self.unknown_threads = None;
        self
    }

    /// Adds a function that kernels may call, or replaces one of the list.
    ///
    /// # Safety
    ///
    /// As [`Symbols::insert`].
    pub unsafe fn symbol(mut self, name: impl Into<String>, address: *const c_void) -> Self {
        // SAFETY: promised by the caller.
        unsafe { self.symbols.insert(name, address) };
        self
    }

    /// Adds a constant that kernels may read, or replaces one of the list.
    ///
    /// # Safety
    ///
    /// As [`Symbols::insert_data`].
    pub unsafe fn data_symbol(mut self, name: impl Into<String>, address: *const c_void) -> Self {
        // SAFETY: promised by the caller.
        unsafe { self.symbols.insert_data(name, address) };
        self
    }

    /// The runtime. Compilers are looked for when the first source comes.
    ///
    /// # Errors
    ///
    /// [`Error::Environment`] where a variable of [`from_env`](Self::from_env) says
    /// what cannot be; [`Error::Confinement`] where compilers are to be
    /// [confined](Self::confine_compilers) and the system lacks what it takes.
    pub fn build(self) -> Result<Runtime, Error> {
        if let Some(confinement) = &self.options.confinement {
            confinement.check()?;
        }
        if let Some(value) = self.unknown_guard {
            return Err(Error::Environment {
                name: "SVOD_GUARD",
                value,
                takes: "off, end or start",
            });
        }
        if let Some(value) = self.unknown_cache {
            return Err(Error::Environment {
                name: "SVOD_CACHE",
                value,
                takes: "on or off",
            });
        }
        if let Some(value) = self.unknown_threads {
            return Err(Error::Environment {
                name: "SVOD_THREADS",
                value,
                takes: "a number of threads, 1 to 4096",
            });
        }
        for (name, unknown) in [
            ("SVOD_PERF_MAP", self.unknown_perf_map),
            ("SVOD_GDB", self.unknown_gdb),
        ] {
            if let Some(value) = unknown {
                let takes = "1 or 0";
                return Err(Error::Environment { name, value, takes });
            }
        }
        let pool = self.pool.unwrap_or_else(|| {
            let threads = available_threads();
            Pool::builder().threads(threads).build()
        });
        let toolchain = Toolchain::new(self.cc, self.path)
            .with_llvm(self.llvm)
            .with_mlir(self.mlir);
        Ok(Runtime {
            pool,
            toolchain: Arc::new(match &self.cache {
                Some(folder) => toolchain.remembering(folder.join("compilers")),
                None => toolchain,
            }),
            cache: self.cache.map(|folder| {
                Arc::new(CacheFolder {
                    folder,
                    limit: self.cache_limit.unwrap_or(DEFAULT_LIMIT),
                    opened: OnceLock::new(),
                })
            }),
            options: self.options,
            symbols: Arc::new(self.symbols),
            load: self.load,
            guard: self.guard,
        })
    }
}
