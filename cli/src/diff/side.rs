//! What `--left` and `--right` say.

use std::path::{Path, PathBuf};

use svod_runtime::bundle::Bundle;
use svod_runtime::compile::cpu::CpuLevel;
use svod_runtime::plan::Executable;
use svod_runtime::{Guard, OptLevel, Runtime, RuntimeBuilder};

use crate::loading::{self, Loading};
use crate::{Failure, show};

/// What a side is compiled from, with what, and how it runs. What is left out is as `svod run`
/// has it, on one thread.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Side {
    /// As it was given.
    pub(crate) text: String,
    pub(crate) bundle: Option<PathBuf>,
    compiler: Option<PathBuf>,
    level: Option<OptLevel>,
    cpu: Option<String>,
    flags: Vec<String>,
    pub(crate) threads: Option<usize>,
    carried: bool,
}

/// Reads `HEAD`, `HEAD:WORD,…` or `WORD,…`.
pub(crate) fn parse(text: &str) -> Result<Side, String> {
    let mut side = Side {
        text: text.to_owned(),
        ..Side::default()
    };
    let words = match text.split_once(':') {
        _ if is_word(text) => text,
        Some((head, words)) => {
            side.head(head)?;
            words
        }
        None => {
            side.head(text)?;
            return Ok(side);
        }
    };
    for word in words.split(',') {
        side.word(word)?;
    }
    let compiles = side.compiler.is_some() || side.compiles();
    if side.carried && compiles {
        let reason =
            "`carried` is code that is there already: it has no compiler, level, CPU or flag";
        return Err(reason.into());
    }
    Ok(side)
}

/// Whether a side begins with a word, and has no head.
fn is_word(text: &str) -> bool {
    let first = text.split([',', ':']).next().unwrap_or_default();
    first.starts_with('-') || first == "carried" || first.contains('=')
}

impl Side {
    /// A folder is a bundle, and all else a compiler.
    fn head(&mut self, head: &str) -> Result<(), String> {
        if head.is_empty() {
            return Err(
                "it begins with a compiler, a bundle's folder, or a word such as -O1".into(),
            );
        }
        if head.contains(',') {
            let first = head.split(',').next().unwrap_or_default();
            return Err(format!(
                "behind `{first}` comes a colon, then words with commas between"
            ));
        }
        let path = Path::new(head);
        let is_bundle = path.extension().is_some_and(|ending| ending == "svod");
        match path.is_dir() {
            true => self.bundle = Some(path.into()),
            false if is_bundle => return Err(format!("there is no folder `{head}`")),
            false => self.compiler = Some(path.into()),
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let twice = |what: &str, before: bool| match before {
            true => Err(format!("it has two {what}s")),
            false => Ok(()),
        };
        match word.split_once('=') {
            _ if word == "carried" => self.carried = true,
            _ if word.starts_with("-O") => {
                twice("level", self.level.is_some())?;
                let level = OptLevel::ALL.into_iter().find(|l| l.flag() == word);
                self.level = Some(level.ok_or_else(|| {
                    format!("`{word}` is no level; there are -O0, -O1, -O2 and -O3")
                })?);
            }
            Some(("cpu" | "-march", name)) => {
                twice("CPU", self.cpu.is_some())?;
                if let Ok(level) = CpuLevel::named(name)
                    && !level.runs_here()
                {
                    return Err(format!("this CPU does not run code for `{name}`"));
                }
                self.cpu = Some(name.to_owned());
            }
            Some(("cc", name)) if !name.is_empty() => {
                twice("compiler", self.compiler.is_some())?;
                self.compiler = Some(name.into());
            }
            Some(("tier", tier)) => {
                twice("level", self.level.is_some())?;
                match tier {
                    "quick" => self.level = Some(OptLevel::O0),
                    _ => return Err(format!("`{tier}` is no tier; there is `quick`")),
                }
            }
            Some(("threads", number)) => {
                twice("number of thread", self.threads.is_some())?;
                let threads = number.parse().ok().filter(|n| crate::THREADS.contains(n));
                let threads = threads.and_then(|n: i64| usize::try_from(n).ok());
                self.threads = Some(threads.ok_or_else(|| {
                    format!(
                        "`{number}` is no number of threads, 1 to {}",
                        crate::THREADS.end()
                    )
                })?);
            }
            _ if word.starts_with('-') && word.len() > 1 => self.flags.push(word.to_owned()),
            _ => {
                return Err(format!(
                    "`{word}` is no word of a side; these are -O0 to -O3, cpu=NAME, cc=COMPILER, \
                     threads=N, tier=quick, carried, and flags for the C compiler"
                ));
            }
        }
        Ok(())
    }

    /// Whether kernels of which the bundle carries an object are compiled all the same.
    const fn compiles(&self) -> bool {
        self.compiler.is_some()
            || self.level.is_some()
            || self.cpu.is_some()
            || !self.flags.is_empty()
    }

    fn runtime(&self) -> Result<Runtime, Failure> {
        let mut builder = RuntimeBuilder::from_env()
            .guard(Guard::Off)
            .threads(self.threads.unwrap_or(1));
        if let Some(compiler) = &self.compiler {
            builder = builder.cc(compiler);
        }
        if let Some(level) = self.level {
            builder = builder.opt_level(level);
        }
        if let Some(cpu) = &self.cpu {
            builder = builder.target_cpu(cpu);
        }
        for flag in &self.flags {
            builder = builder.flag(flag);
        }
        Ok(builder.build()?)
    }

    /// Makes a bundle's kernels ready, for the side of this name.
    pub(crate) fn load(&self, name: &str, bundle: &Bundle) -> Result<Loaded, Failure> {
        let to_compile = bundle.kernels_to_compile();
        if self.carried && to_compile > 0 {
            let kernels = show::count(bundle.plan().kernels().len(), "kernel");
            return Err(Failure::Usage(format!(
                "`carried`, the {name} side: of {to_compile} of its {kernels}, {} has no object that this CPU runs",
                bundle.path().display()
            )));
        }
        let runtime = self.runtime()?;
        let (executable, loading) = loading::load(bundle, &runtime, !self.compiles())
            .map_err(|error| Failure::Part(format!("the {name} side"), Box::new(error)))?;
        Ok(Loaded {
            setting: self.setting(&runtime, &loading),
            executable,
            loading,
        })
    }

    /// `gcc -O1 -march=x86-64-v3`
    fn setting(&self, runtime: &Runtime, loading: &Loading) -> String {
        let mut words = Vec::new();
        if loading.compiled + loading.cached == 0 {
            words.push("objects of the bundle".to_owned());
        } else {
            let compiler = runtime.toolchain().c_compiler("").ok();
            let name = compiler.and_then(|c| c.path.file_name());
            let name = name.map_or("libLLVM".into(), |name| name.to_string_lossy());
            words.push(show::plain(&name));
            words.push(self.level.unwrap_or_default().flag().to_owned());
            words.extend(
                self.cpu
                    .iter()
                    .map(|cpu| format!("-march={}", show::plain(cpu))),
            );
            words.extend(self.flags.iter().map(|flag| show::plain(flag)));
        }
        if let Some(threads) = self.threads {
            words.push(format!("on {}", show::count(threads, "thread")));
        }
        words.join(" ")
    }
}

/// A side that is ready to run.
pub(crate) struct Loaded {
    pub(crate) setting: String,
    pub(crate) executable: Executable,
    pub(crate) loading: Loading,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_head_and_words() {
        let side =
            parse("gcc:-O1,cpu=x86-64,threads=3,-fno-tree-vectorize,-mtune=generic").unwrap();
        assert_eq!(side.compiler, Some("gcc".into()));
        assert_eq!(side.level, Some(OptLevel::O1));
        assert_eq!(side.cpu.as_deref(), Some("x86-64"));
        assert_eq!(side.threads, Some(3));
        assert_eq!(side.flags, ["-fno-tree-vectorize", "-mtune=generic"]);
        for (text, compiler) in [("/usr/bin/cc", "/usr/bin/cc"), ("-O3,cc=gcc", "gcc")] {
            assert_eq!(
                parse(text).unwrap().compiler,
                Some(compiler.into()),
                "{text}"
            );
        }
        let side = parse("/:cc=clang,-march=native").unwrap();
        assert_eq!(
            (side.bundle, side.compiler),
            (Some("/".into()), Some("clang".into()))
        );
        assert_eq!(parse("tier=quick").unwrap().level, Some(OptLevel::O0));
        assert!(parse("carried,threads=2").unwrap().carried);
    }

    #[test]
    fn what_is_wrong_with_a_side_is_said() {
        for (text, why) in [
            ("", "begins with"),
            (":-O1", "begins with"),
            ("gcc:", "`` is no word"),
            ("gcc,-O1", "behind `gcc` comes a colon"),
            ("gcc:-O4", "`-O4` is no level"),
            ("gcc:-O1,-O2", "two levels"),
            ("-O1,tier=quick", "two levels"),
            ("tier=slow", "`slow` is no tier"),
            ("gcc:cc=clang", "two compilers"),
            ("threads=0", "`0` is no number of threads"),
            ("gcc:fast", "`fast` is no word"),
            ("gcc:carried", "has no compiler"),
            ("carried,-O1", "has no compiler"),
            ("none/there.svod", "no folder"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
