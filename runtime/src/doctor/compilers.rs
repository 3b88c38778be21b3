//! Compilers.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{Choice, Compiler, Llvm};
use crate::compile::Llvm as Library;
use crate::compile::{Ailment, Family, Toolchain, probe};

/// Every C compiler, with what it can do. They are asked at the same time.
pub(super) fn found(toolchain: &Toolchain, patience: Duration) -> Vec<Compiler> {
    let paths = toolchain.every_compiler();
    thread::scope(|scope| {
        let ask = |path: &Path| {
            let probed = probe(path, patience);
            let problem = probed.as_ref().err().map(|ailment| match ailment {
                Ailment::Silent => format!("it did not answer within {} s", patience.as_secs()),
                Ailment::Broken(why) => why.clone(),
            });
            Compiler {
                path: path.to_owned(),
                hangs: probed == Err(Ailment::Silent),
                abilities: probed.ok(),
                problem,
            }
        };
        let asked: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(move || ask(path)))
            .collect();
        asked.into_iter().filter_map(|a| a.join().ok()).collect()
    })
}

/// The one that is used, as far as it can be told without asking one that does not answer.
pub(super) fn used(toolchain: &Toolchain, found: &[Compiler]) -> Choice {
    let none = |why: String| Choice {
        path: None,
        major: None,
        why,
    };
    // To find the best one, those are asked whose names tell no version; the one that is named
    // is asked alone.
    let is_named = toolchain.named_compiler().is_some();
    let is_asked = |c: &&Compiler| {
        let name = c.path.file_name().unwrap_or_default().to_string_lossy();
        is_named || !name.starts_with("clang-")
    };
    let asked = found.iter().take(if is_named { 1 } else { usize::MAX });
    if let Some(silent) = asked.filter(is_asked).find(|c| c.hangs) {
        return none(format!("{} does not answer", silent.path.display()));
    }
    match toolchain.c_compiler("kernels") {
        Ok(compiler) => Choice {
            path: Some(compiler.path.clone()),
            major: Some(compiler.major),
            why: match (toolchain.named_compiler(), compiler.family) {
                (Some(_), _) => "SVOD_CC names it".to_owned(),
                (None, Family::Clang) => "the newest clang that is found".to_owned(),
                (None, Family::Gcc) => "no clang is found".to_owned(),
            },
        },
        Err(error) => none(error.to_string()),
    }
}

pub(super) fn llvms() -> Vec<Llvm> {
    let installed = Library::installed().into_iter();
    installed
        .map(|(major, path)| Llvm { path, major })
        .collect()
}

pub(super) fn used_llvm(toolchain: &Toolchain) -> Choice {
    match toolchain.llvm() {
        Ok(library) => Choice {
            path: Some(library.path().to_owned()),
            major: Some(library.version()),
            why: match toolchain.named_llvm() {
                Some(_) => "SVOD_LLVM names it".to_owned(),
                None => "the newest that is found".to_owned(),
            },
        },
        Err(why) => Choice {
            path: None,
            major: None,
            why: why.to_owned(),
        },
    }
}

pub(super) fn used_mlir(toolchain: &Toolchain) -> Choice {
    match toolchain.mlir() {
        Ok(tools) => Choice {
            path: Some(tools.path().to_owned()),
            major: Some(tools.version()),
            why: match toolchain.named_mlir() {
                Some(_) => "SVOD_MLIR names it".to_owned(),
                None => "the newest that is found".to_owned(),
            },
        },
        Err(why) => Choice {
            path: None,
            major: None,
            why: why.to_owned(),
        },
    }
}
