//! JSON that a reader can look through: each key of the object on a line of its own, and
//! of its lists each element.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// The text of `value`.
pub(super) fn to_string(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Lines::default()))?;
    text.push(b'\n');
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

#[derive(Default)]
struct Lines {
    depth: usize,
    /// Whether the innermost list or object has nothing in it so far.
    empty: bool,
}

impl Lines {
    fn open(&mut self, w: &mut (impl Write + ?Sized), bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        w.write_all(bracket)
    }

    /// Before a key, or an element.
    fn next(&self, w: &mut (impl Write + ?Sized), first: bool, lines: bool) -> io::Result<()> {
        if !first {
            w.write_all(b",")?;
        }
        if lines {
            self.line(w, self.depth)
        } else if first {
            Ok(())
        } else {
            w.write_all(b" ")
        }
    }

    fn close(
        &mut self,
        w: &mut (impl Write + ?Sized),
        bracket: &[u8],
        lines: bool,
    ) -> io::Result<()> {
        if lines && !self.empty {
            self.line(w, self.depth - 1)?;
        }
        self.depth -= 1;
        self.empty = false;
        w.write_all(bracket)
    }

    fn line(&self, w: &mut (impl Write + ?Sized), indent: usize) -> io::Result<()> {
        w.write_all(b"\n")?;
        (0..indent).try_for_each(|_| w.write_all(b" "))
    }
}

impl Formatter for Lines {
    fn begin_object<W: Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        self.open(w, b"{")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.next(w, first, self.depth == 1)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn end_object<W: Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        self.close(w, b"}", self.depth == 1)
    }

    fn begin_array<W: Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        self.open(w, b"[")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.next(w, first, self.depth == 2)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn end_array<W: Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        self.close(w, b"]", self.depth == 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_of_the_outer_object_and_its_lists() {
        let value = serde_json::json!({
            "a": {"b": [1, 2], "c": {}}, "d": [[3, [4]], {"e": []}], "f": [], "g": "h",
        });
        let expected = r#"{
 "a": {"b": [1, 2], "c": {}},
 "d": [
  [3, [4]],
  {"e": []}
 ],
 "f": [],
 "g": "h"
}
"#;
        assert_eq!(to_string(&value).unwrap(), expected);
    }
}
