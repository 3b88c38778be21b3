//! The key of a source: all that decides what it compiles to.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::cache::{Beginning, KernelKey, Key};
use super::lexer::{self, Kind};
use super::{Language, Options, Source, Toolchain, c, cpu, in_process, mlir};

/// The beginnings of flags that a key covers by their text. Others may name files, whose
/// contents count as well.
const COVERED_FLAGS: [&str; 9] = ["-O", "-f", "-m", "-D", "-U", "-W", "-w", "-std=", "-g"];

/// Flags among those that read files all the same, or hand on what is read elsewhere.
const NOT_COVERED_FLAGS: [&str; 10] = [
    // Another program assembles, which is no part of what clang is known by.
    "-fno-integrated-as",
    // The source's bytes are other characters than they seem.
    "-finput-charset",
    "-fprofile",
    "-fauto-profile",
    "-fplugin",
    "-fpass-plugin",
    "-fmodule",
    "-Wa,",
    "-Wp,",
    "-Wl,",
];

/// Words by which a source comes to depend on more than its text where a flag defines another
/// word as one of them.
const NOT_COVERED_WORDS: [&str; 4] = ["asm", "__DATE__", "__TIME", "_Pragma"];

/// Words by which a source comes to depend on more than its text.
const READS_MORE: [&str; 7] = [
    "__has_include",
    "__has_include_next",
    "__has_embed",
    "__DATE__",
    "__TIME__",
    "__TIMESTAMP__",
    "_Pragma",
];

/// What a key says of a compiler that is confined.
const CONFINED: &str = "confined";

/// What the keys of many sources have in common.
pub(super) struct Keys<'a> {
    toolchain: &'a Toolchain,
    options: &'a Options,
    target: String,
    /// With what keys of C begin.
    of_c: OnceCell<Beginning>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(toolchain: &'a Toolchain, options: &'a Options) -> Keys<'a> {
        let Options {
            target_cpu,
            target,
            flags,
            ..
        } = options;
        let mut text = target_cpu.clone();
        if let Some(target) = target {
            text = format!("{target}\n{text}");
        }
        // What it means differs from machine to machine.
        let is_here = |name: &String| name.contains("native");
        if is_here(target_cpu) || flags.iter().any(is_here) {
            text = format!("{text}\n{}", cpu::host());
        }
        Keys {
            toolchain,
            options,
            target: text,
            of_c: OnceCell::new(),
        }
    }

    /// The key of a source, or why it has none and is not to be kept.
    pub(super) fn of(&self, source: &Source) -> Result<Key, String> {
        let covered = |flag: &&String| {
            let begins = |all: &[&str]| all.iter().any(|start| flag.starts_with(start));
            begins(&COVERED_FLAGS)
                && !begins(&NOT_COVERED_FLAGS)
                && !flag.contains(['/', '.'])
                && !NOT_COVERED_WORDS.iter().any(|word| flag.contains(word))
        };
        if let Some(flag) = self.options.flags.iter().find(|flag| !covered(flag)) {
            return Err(format!("the flag `{flag}` may have files or the time read"));
        }
        if reads_more(source) {
            return Err("it includes files, or depends on the time".to_owned());
        }
        let Source { entry, name, .. } = source;
        let key_of = |beginning: &Beginning| beginning.key_of(entry, name, &source.contents);
        if let Some(of_c) = self.of_c.get().filter(|_| source.language == Language::C) {
            return Ok(key_of(of_c));
        }
        let beginning = self.beginning(source)?;
        let key = key_of(&beginning);
        if source.language == Language::C {
            self.of_c.get_or_init(|| beginning);
        }
        Ok(key)
    }

    /// What the key of a source has that its text and its names do not decide; of C, the same for
    /// all.
    fn beginning(&self, source: &Source) -> Result<Beginning, String> {
        let made_by = match source.language {
            Language::Mlir => Some(self.toolchain.mlir()?.version()),
            _ => None,
        };
        let is_ir = source.language != Language::C;
        let in_process = is_ir && in_process(self.toolchain, self.options, made_by);
        let identity = match in_process.then(|| self.toolchain.llvm_identity()) {
            Some(Ok(identity)) => Ok((identity, Vec::new())),
            _ => self.by_c_compiler(source),
        };
        let (compiler, mut flags) = identity?;
        if flags.is_empty() {
            flags.push(self.options.opt_level.flag().to_owned());
        }
        let mut compiler = Cow::Borrowed(compiler);
        // What a confined compiler makes is no other thing, but nobody vouches for it: a source that
        // breaks its compiler may choose what comes of those that are compiled with it. So it is
        // not for those who run without confinement what they trust.
        if self.options.confinement.is_some() {
            compiler = format!("{CONFINED}\n{compiler}").into();
        }
        let language = match source.language {
            Language::C => "c",
            Language::LlvmIr => "llvm-ir",
            Language::Mlir => {
                flags.extend(mlir::flags(&source.contents));
                compiler = format!("{}{compiler}", self.toolchain.mlir_identity()?).into();
                "mlir"
            }
        };
        let key = KernelKey {
            language,
            entry: &source.entry,
            name: &source.name,
            source: &source.contents,
            flags: &flags,
            target: &self.target,
            compiler: &compiler,
        };
        Ok(key.beginning())
    }

    fn by_c_compiler(&self, source: &Source) -> Result<(&str, Vec<String>), String> {
        let compiler = self.toolchain.c_compiler(&source.entry);
        let compiler = compiler.map_err(|e| e.to_string())?;
        let identity = self.toolchain.c_identity(compiler)?;
        Ok((identity, c::flags(compiler, self.options)))
    }
}

/// Whether what a source compiles to depends on more than its text. When in doubt, it does.
fn reads_more(source: &Source) -> bool {
    let has = |text: &[u8]| source.contents.windows(text.len()).any(|w| w == text);
    match source.language {
        Language::LlvmIr | Language::Mlir => has(b"incbin") || has(b".include"),
        Language::C if is_plain(&source.contents) => false,
        Language::C => {
            let Ok(text) = std::str::from_utf8(&source.contents) else {
                return true;
            };
            // Most of the others have none of these words anywhere, and need not be read.
            let words = [
                "include", "import", "embed", "asm", "__DATE__", "__TIME", "__has_",
            ];
            let split = ["\\", "??", "%:", "##", "_Pragma"];
            if !words.iter().chain(&split).any(|word| text.contains(word)) {
                return false;
            }
            let Ok(tokens) = lexer::tokens(text) else {
                return true;
            };
            let assembler = ["asm", "__asm", "__asm__"];
            let has_assembler = tokens.iter().any(|t| assembler.contains(&t.text));
            tokens.iter().any(|token| match token.kind {
                Kind::Word => READS_MORE.contains(&token.text),
                // By whichever name it is included.
                Kind::Directive => {
                    let name = token.text[1..].trim_start_matches([' ', '\t']);
                    let plain = [
                        "define", "undef", "if", "el", "end", "line", "pragma", "error",
                    ];
                    !name.is_empty() && !plain.iter().any(|p| name.starts_with(p))
                        || READS_MORE.iter().any(|word| token.text.contains(word))
                        // Which makes any word of parts.
                        || token.text.contains("##")
                }
                // Assembler includes files too, by words that begin with a dot.
                Kind::Text => has_assembler && token.text.contains('.'),
                _ => false,
            })
        }
    }
}

/// Whether C has, beyond any doubt, nothing that depends on more than its text; which most kernels
/// have not. Each directive begins with `#`, `%:` or `??=`, and only in directives is something
/// included, embedded or looked for. A word that is spliced or escaped has a `\` or `??/` in it. Each
/// spelling of `asm` has an `sm`; `_Pragma`, `__DATE__`, `__TIME__` and `__TIMESTAMP__` have `_P`, `_D`
/// or `_T`. The last character begins none of these alone.
///
/// All pairs of characters are looked at, with no branch, so that many are at a time.
fn is_plain(text: &[u8]) -> bool {
    let next = text.get(1..).unwrap_or_default();
    !text.iter().zip(next).fold(false, |found, (&a, &b)| {
        let mark = (a == b'#') | (a == b'\\');
        let other_mark = (a == b'?') & (b == b'?') | (a == b'%') & (b == b':');
        let word =
            (a == b's') & (b == b'm') | (a == b'_') & ((b == b'P') | (b == b'D') | (b == b'T'));
        found | mark | other_mark | word
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_includes_is_more_than_its_text() {
        for text in [
            "#include <x.h>",
            "# include MACRO",
            "  #\tinclude_next \"x\"",
            "#import \"x\"",
            "const char x[] = {\n#embed \"f\"\n};",
            "#if __has_include(<x.h>)\n#endif",
            "#define WHEN __DATE__",
            "#define JOIN(a, b) a##b\nconst char *t = JOIN(__DA, TE__);",
            "const char *t = __TIME__;",
            "asm(\".incbin \\\"f\\\"\");",
            "__asm__(\".inc\" \"bin 1\");",
            "__asm(\".incbin 'f'\");",
            "as\\\nm(\".incbin 'f'\");",
            "as??/\nm(\".incbin 'f'\");",
            "char *t = __DATE__;",
            "char *t = __TIMESTAMP__;",
            "_Pragma(\"x\") int a;",
            "%: include <x.h>",
            "??=include <x.h>",
            "#inc\\\nlude <x.h>",
        ] {
            assert!(reads_more(&Source::c("k", text)), "{text}");
            assert!(!is_plain(text.as_bytes()), "{text}");
        }
        for text in [
            "void k(void) {}",
            "// #include\n#define include 3\n#if X\n#else\n#endif\nint a = include;",
            "const char *t = \"__DATE__\";",
        ] {
            assert!(!reads_more(&Source::c("k", text)), "{text}");
        }
        assert!(is_plain(b"void k(float *a) { a[0] = a[1] ? 1 : 2 % 3; }"));
    }
}
