//! What a confined compiler was refused, told to whoever reads its diagnostics.

use super::{Options, Source};

/// How compilers, and their assemblers, say that a file is not there for them.
const NOT_THERE: [&str; 6] = [
    "Permission denied",
    "Operation not permitted",
    "No such file",
    "file not found",
    "Could not find",
    "can't open",
];

/// What to do about diagnostics that may come of confinement.
pub(super) fn hint(options: &Options, source: &Source, diagnostics: &str) -> Option<String> {
    options.confinement.as_ref()?;
    let file = missing_file(diagnostics)?;
    let may = match source.readable_folder() {
        Some(folder) => format!(
            "what lies below {}, and the system's headers",
            folder.display()
        ),
        None => "the system's headers".to_owned(),
    };
    Some(format!(
        "the compiler was confined: it may read {may}, and nothing else; `{file}` is not there, or \
         is not among that"
    ))
}

/// The file that the first line is about which says that one is not there.
fn missing_file(diagnostics: &str) -> Option<&str> {
    let is_about = |line: &&str| NOT_THERE.iter().any(|words| line.contains(words));
    let line = diagnostics.lines().find(is_about)?;
    // In quotes, or between colons.
    let quoted = line
        .split('\'')
        .nth(1)
        .filter(|_| line.matches('\'').count() > 1);
    let plain = || {
        let parts = line
            .rsplit(": ")
            .map(|part| part.trim().trim_start_matches("can't open "));
        let mut files = parts.filter(|part| !NOT_THERE.iter().any(|words| part.contains(words)));
        let file = files.find(|part| !part.is_empty())?;
        Some(file.split(" for reading").next().unwrap_or(file))
    };
    quoted.or_else(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_one_that_was_asked_for() {
        for (said, file) in [
            (
                "k.c:1:10: fatal error: cannot open file '/etc/passwd': Permission denied\n",
                "/etc/passwd",
            ),
            (
                "k.c:1:10: fatal error: '/etc/passwd' file not found\n",
                "/etc/passwd",
            ),
            (
                "k.c:1:10: fatal error: /etc/passwd: Permission denied\ncompilation terminated.",
                "/etc/passwd",
            ),
            (
                "<inline asm>:1:9: error: Could not find incbin file '/etc/passwd'",
                "/etc/passwd",
            ),
            (
                "{standard input}:5: Error: file not found: /etc/passwd",
                "/etc/passwd",
            ),
            (
                "{standard input}: Error: can't open /etc/passwd for reading: Permission denied",
                "/etc/passwd",
            ),
            (
                "warning: it's odd\nk.c:1:10: fatal error: x.h: No such file or directory",
                "x.h",
            ),
        ] {
            assert_eq!(missing_file(said), Some(file), "{said}");
        }
        assert_eq!(
            missing_file("k.c:1:1: error: use of undeclared identifier 'x'"),
            None
        );
    }
}
