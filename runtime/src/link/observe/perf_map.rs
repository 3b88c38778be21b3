//! The map file of `perf`: `START SIZE NAME` in each line, numbers in hexadecimal.
//!
//! The format is that of `tools/perf/Documentation/jit-interface.txt` in Linux's sources.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::Function;
use crate::Error;

/// Appends a line for each function, all of them in one write, so that lines of several
/// threads, and of other writers of code, do not mix.
pub(super) fn append(functions: &[Function<'_>]) -> Result<(), Error> {
    let path = path();
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        // Everybody may write to the folder, and put a link there that leads elsewhere.
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(|e| Error::system(format!("open perf's map file {}", path.display()), e))?;
    file.write_all(lines(functions).as_bytes())
        .map_err(|e| Error::system(format!("write perf's map file {}", path.display()), e))
}

/// Where `perf` looks for it, whatever the folder for temporary files is.
fn path() -> PathBuf {
    format!("/tmp/perf-{}.map", std::process::id()).into()
}

fn lines(functions: &[Function<'_>]) -> String {
    let mut lines = String::new();
    for function in functions {
        let Function { address, size, .. } = function;
        let start = lines.len();
        let _ = write!(lines, "{address:x} {size:x} svod:{}", function.kernel);
        if function.name != function.kernel {
            let _ = write!(lines, ":{}", function.name);
        }
        // A name may hold what ends a line.
        if lines[start..].contains(char::is_control) {
            let line = lines.split_off(start);
            lines.push_str(&line.replace(char::is_control, "?"));
        }
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_is_a_line_whatever_its_name_is() {
        let function = |kernel, name| Function {
            kernel,
            name,
            address: 0x7f12_3456_7000,
            size: 0x1f,
        };
        let functions = [
            function("axpy", "axpy"),
            function("axpy", "dot product"),
            function("a\nb", "a\nb"),
        ];
        assert_eq!(
            lines(&functions),
            "7f1234567000 1f svod:axpy\n\
             7f1234567000 1f svod:axpy:dot product\n\
             7f1234567000 1f svod:a?b\n"
        );
    }
}
