//! Which C compiler: the newest clang, then gcc, then `cc`.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::identity::{Identity, Search};
use super::llvm::Llvm;
use super::mlir::Mlir;
use crate::Error;

/// Whose command line and dialect a compiler speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
pub enum Family {
    /// LLVM's.
    #[serde(rename = "clang")]
    Clang,
    /// GNU's.
    #[serde(rename = "gcc")]
    Gcc,
}

impl Family {
    /// The name of its compiler: `clang` or `gcc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Family::Clang => "clang",
            Family::Gcc => "gcc",
        }
    }
}

/// The versions of gcc that a doctor looks for by their numbers.
const GCCS: std::ops::RangeInclusive<u32> = 4..=30;

/// The versions of clang that are looked for by their numbers.
const CLANGS: std::ops::RangeInclusive<u32> = 3..=40;

/// A C compiler that was found. One that is called `clang-N` is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CCompiler {
    /// Its path.
    pub path: PathBuf,
    /// Whose it is.
    pub family: Family,
    /// Its major version.
    pub major: u32,
}

/// The compilers of one runtime: found once, when first needed.
#[derive(Debug)]
pub struct Toolchain {
    cc: Option<PathBuf>,
    path: OsString,
    /// The library that was named, and the one that was found, or why none was.
    named_llvm: Option<PathBuf>,
    llvm: OnceLock<Result<Llvm, String>>,
    llvm_identity: OnceLock<Result<String, String>>,
    /// Likewise the programs that lower MLIR.
    named_mlir: Option<PathBuf>,
    mlir: OnceLock<Result<Mlir, String>>,
    mlir_identity: OnceLock<Result<String, String>>,
    /// Where it is remembered who compilers are.
    memory: Option<PathBuf>,
    found: OnceLock<CCompiler>,
    /// How it was found, where that is to be remembered.
    search: OnceLock<Search>,
    identity: OnceLock<Result<String, String>>,
}

impl Toolchain {
    /// A toolchain that uses the C compiler `cc`, a path or a name; or, without
    /// one, the best that is found in the folders of `path`, a list in the form
    /// of the environment variable `PATH`.
    #[must_use]
    pub const fn new(cc: Option<PathBuf>, path: OsString) -> Toolchain {
        Toolchain {
            cc,
            path,
            named_llvm: None,
            llvm: OnceLock::new(),
            llvm_identity: OnceLock::new(),
            named_mlir: None,
            mlir: OnceLock::new(),
            mlir_identity: OnceLock::new(),
            memory: None,
            found: OnceLock::new(),
            search: OnceLock::new(),
            identity: OnceLock::new(),
        }
    }

    /// The same, which remembers in a folder who compilers are.
    pub(crate) fn remembering(mut self, folder: PathBuf) -> Toolchain {
        self.memory = Some(folder);
        self
    }

    /// The same, which uses this libLLVM, a path or a name that the system looks for, and no
    /// other.
    pub(crate) fn with_llvm(mut self, llvm: Option<PathBuf>) -> Toolchain {
        self.named_llvm = llvm;
        self
    }

    /// The same, which lowers MLIR by the programs in this folder, or by this `mlir-opt`, a path
    /// or a name, and the `mlir-translate` beside it.
    pub(crate) fn with_mlir(mut self, mlir: Option<PathBuf>) -> Toolchain {
        self.named_mlir = mlir;
        self
    }

    /// The programs that lower MLIR to LLVM IR: those that were named, or the newest that are
    /// found.
    ///
    /// # Errors
    ///
    /// Why there are none.
    pub fn mlir(&self) -> Result<&Mlir, &str> {
        let found = self.mlir.get_or_init(|| {
            let folders: Vec<PathBuf> = self.folders().collect();
            Mlir::find(self.named_mlir.as_deref(), &folders, self.memory.as_deref())
        });
        found.as_ref().map_err(String::as_str)
    }

    /// Which programs lower MLIR, file by file, as a part of keys; or why that cannot be told.
    pub(super) fn mlir_identity(&self) -> Result<&str, &str> {
        let identity = self
            .mlir_identity
            .get_or_init(|| self.mlir()?.identity(self.memory.as_deref()));
        identity.as_deref().map_err(String::as_str)
    }

    /// The libLLVM that compiles LLVM IR in this process: the one that was named, or the newest
    /// that is found.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn llvm(&self) -> Result<&Llvm, &str> {
        let found = self.llvm.get_or_init(|| match &self.named_llvm {
            Some(path) => Llvm::open(path).map_err(|why| format!("{}: {why}", path.display())),
            None => Llvm::search().ok_or_else(|| "no libLLVM from 15 on is found".to_owned()),
        });
        found.as_ref().map_err(String::as_str)
    }

    /// Whether a libLLVM was named: no other compiler takes its place then.
    pub(super) const fn names_llvm(&self) -> bool {
        self.named_llvm.is_some()
    }

    /// Which library compiles LLVM IR, as a part of keys; or why that cannot be told. It is
    /// the one that is open: which one a name leads to, nobody but the system can say.
    pub(super) fn llvm_identity(&self) -> Result<&str, &str> {
        let identity = self.llvm_identity.get_or_init(|| {
            let identity = Identity::of_library(self.llvm()?.path());
            identity.map(Identity::into_text)
        });
        identity.as_deref().map_err(String::as_str)
    }

    /// Which compiler it is, file by file, as a part of keys; or why that cannot be told.
    pub(super) fn c_identity(&self, compiler: &CCompiler) -> Result<&str, &str> {
        let identity = self.identity.get_or_init(|| {
            let search = self.search.get();
            let identity = Identity::of_compiler(compiler, search, self.memory.as_deref());
            identity.map(Identity::into_text)
        });
        identity.as_deref().map_err(String::as_str)
    }

    /// As [`identify`], unless it is remembered.
    fn identify(&self, path: &Path) -> Result<CCompiler, Error> {
        let known = Identity::recall(path, self.memory.as_deref());
        match known.and_then(|known| known.compiler()) {
            Some(known) => Ok(known),
            None => identify(path),
        }
    }

    /// As [`search`](Self::search), unless it is remembered.
    fn find(&self, kernel: &str) -> Result<CCompiler, Error> {
        if self.memory.is_none() {
            return Ok(self.search(kernel, None)?.0);
        }
        let folders: Vec<PathBuf> = self.folders().collect();
        let known = Identity::recall_found(&folders, self.memory.as_deref());
        if let Some(known) = known
            && let Some(compiler) = known.compiler()
        {
            // Who it is was remembered with it.
            self.identity.get_or_init(|| Ok(known.into_text()));
            return Ok(compiler);
        }
        let (found, search) = self.search(kernel, Some(Search::new(&folders)))?;
        if let Some(search) = search {
            self.search.get_or_init(|| search);
        }
        Ok(found)
    }

    /// The C compiler; `kernel` is what an error names as waiting for it.
    ///
    /// # Errors
    ///
    /// [`Error::NoCompiler`] where none is found, [`Error::BadCompiler`] where
    /// the one that was named, or found, does not answer as a C compiler does.
    pub fn c_compiler(&self, kernel: &str) -> Result<&CCompiler, Error> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let found = match &self.cc {
            Some(cc) => self.identify(&self.named(cc)?)?,
            None => self.find(kernel)?,
        };
        tracing::info!(compiler = %found.path.display(), major = found.major, "C compiler");
        Ok(self.found.get_or_init(|| found))
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        // An empty entry means the current folder to a shell; a compiler that
        // depends on where one stands is no compiler of ours.
        std::env::split_paths(&self.path).filter(|dir| dir.is_absolute())
    }

    /// A path is used as it is, a bare name is looked for.
    fn named(&self, cc: &Path) -> Result<PathBuf, Error> {
        if cc.components().count() > 1 {
            // Compilers are started in other folders.
            return std::path::absolute(cc).map_err(|e| Error::BadCompiler {
                compiler: cc.to_owned(),
                reason: "its path cannot be made absolute".into(),
                source: Some(e),
            });
        }
        self.folders()
            .map(|dir| dir.join(cc))
            .find(|path| executable(path))
            .ok_or_else(|| Error::BadCompiler {
                compiler: cc.to_owned(),
                reason: format!(
                    "no program of that name is in {}; it names a program alone, flags go to \
                     RuntimeBuilder::flag",
                    self.searched()
                ),
                source: None,
            })
    }

    /// The best compiler, and `search`, if the same is found as long as what that watches is the
    /// same.
    fn search(
        &self,
        kernel: &str,
        mut search: Option<Search>,
    ) -> Result<(CCompiler, Option<Search>), Error> {
        // The newest first; of one version the one that comes first in the list. To look for
        // names takes less than to read the folders, which have thousands of others.
        let numbered = CLANGS.rev().find_map(|major| {
            let name = format!("clang-{major}");
            let mut paths = self.folders().map(|dir| dir.join(&name));
            let found = |path: &PathBuf| {
                let seen = is_program(path);
                search = search.take().filter(|_| seen != Some(false));
                seen == Some(true)
            };
            Some((major, paths.find(found)?))
        });
        let newest = numbered.map(|(major, path)| CCompiler {
            path,
            family: Family::Clang,
            major,
        });
        // A plain `clang` shows its version only when it is asked, which costs
        // 20 ms; one that is a link to a numbered name need not be.
        // Names of no program that may come to be one: their folders would not show it.
        for folder in self.folders() {
            let names = ["clang", "gcc", "cc"].map(|name| folder.join(name));
            search = search.filter(|_| !names.iter().any(|path| is_program(path) == Some(false)));
        }
        let plain = self.named(Path::new("clang")).ok().and_then(|path| {
            let same = newest
                .as_ref()
                .is_some_and(|n| n.path.canonicalize().ok() == path.canonicalize().ok());
            if same {
                // Where its link leads may change with no folder that is searched.
                if let Some(search) = &mut search {
                    search.watch(path);
                }
                return None;
            }
            let plain = self.identify(&path).ok();
            let is_watched = plain.as_ref().zip(search.as_mut());
            if !is_watched.is_some_and(|(plain, search)| search.watch_compiler(plain)) {
                search = None;
            }
            plain
        });
        let best = [newest, plain]
            .into_iter()
            .flatten()
            .max_by_key(|c| c.major);
        if let Some(clang) = best {
            return Ok((clang, search));
        }
        let mut broken = None;
        for name in ["gcc", "cc"] {
            let Ok(path) = self.named(Path::new(name)) else {
                continue;
            };
            match self.identify(&path) {
                Ok(compiler) => return Ok((compiler, search)),
                Err(error) => {
                    broken = Some(error);
                    search = None;
                }
            }
        }
        Err(broken.unwrap_or_else(|| Error::NoCompiler {
            kernel: kernel.to_owned(),
            looked_for: "clang-N, clang, gcc and cc".into(),
            searched: self.searched(),
        }))
    }

    /// The compiler that was named, as it was.
    pub(crate) fn named_compiler(&self) -> Option<&Path> {
        self.cc.as_deref()
    }

    /// The libLLVM that was named, as it was.
    pub(crate) fn named_llvm(&self) -> Option<&Path> {
        self.named_llvm.as_deref()
    }

    /// What was named to lower MLIR.
    pub(crate) fn named_mlir(&self) -> Option<&Path> {
        self.named_mlir.as_deref()
    }

    /// Every compiler that can be found, the one that was named first: each file once, by the
    /// most telling of its names.
    pub(crate) fn every_compiler(&self) -> Vec<PathBuf> {
        let named = self.cc.as_deref().and_then(|cc| self.named(cc).ok());
        let clangs = CLANGS.rev().map(|major| format!("clang-{major}"));
        let gccs = GCCS.rev().map(|major| format!("gcc-{major}"));
        let plain = ["clang", "gcc", "cc"].map(str::to_owned);
        let names: Vec<String> = clangs.chain(gccs).chain(plain).collect();
        let folders: Vec<PathBuf> = self.folders().collect();
        let places = names
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        let mut seen = std::collections::HashSet::new();
        let all = named
            .into_iter()
            .chain(places.filter(|path| executable(path)));
        // Two names of one script may do two things; of one program they do not.
        all.filter(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())))
            .collect()
    }

    fn searched(&self) -> String {
        let folders: Vec<_> = self.folders().map(|d| d.display().to_string()).collect();
        if folders.is_empty() {
            "PATH, or the search path that was given, which is empty".into()
        } else {
            folders.join(", ")
        }
    }
}

pub(super) fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Whether what is there is a program; `None` where nothing is, as by most names, which is found out
/// by one question. What is no program may come to be one, such as a link that leads nowhere.
fn is_program(path: &Path) -> Option<bool> {
    path.symlink_metadata().ok()?;
    Some(executable(path))
}

/// How a compiler is asked for the macros that it predefines.
pub(super) const ASK_MACROS: [&str; 5] = ["-dM", "-E", "-x", "c", "/dev/null"];

/// Asks a compiler who it is: the macros that it predefines tell family and
/// version, whatever it is called and whichever language it answers in.
fn identify(path: &Path) -> Result<CCompiler, Error> {
    let bad = |reason: String, source: Option<io::Error>| Error::BadCompiler {
        compiler: path.to_owned(),
        reason,
        source,
    };
    let output = Command::new(path)
        .args(ASK_MACROS)
        .output()
        .map_err(|e| bad("it cannot be started".into(), Some(e)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(bad(
            format!(
                "asked for its predefined macros, it failed: {}",
                said.trim()
            ),
            None,
        ));
    }
    let macros = String::from_utf8_lossy(&output.stdout);
    let (family, major) =
        family_of(&macros).ok_or_else(|| bad("it is neither a clang nor a gcc".into(), None))?;
    Ok(CCompiler {
        path: path.to_owned(),
        family,
        major,
    })
}

/// Whose compiler predefines these macros, and of which version.
pub(super) fn family_of(macros: &str) -> Option<(Family, u32)> {
    let value = |name: &str| {
        macros.lines().find_map(|line| {
            let rest = line.strip_prefix("#define ")?.strip_prefix(name)?;
            rest.strip_prefix(' ')?.trim().parse::<u32>().ok()
        })
    };
    let clang = value("__clang_major__").map(|major| (Family::Clang, major));
    clang.or_else(|| Some((Family::Gcc, value("__GNUC__")?)))
}
