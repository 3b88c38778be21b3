//! What decides the bytes of an object, by name, and a digest over all of it.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// To be raised when what we do to a source or an object changes: a flag of ours that is not
/// in the list of flags, the way in which sources are merged or objects are split.
pub const CACHE_VERSION: u32 = 1;

/// The name of the part that says which function is called.
pub(super) const ENTRY: &str = "entry";

/// The name of the part that says what a source is written in.
pub(super) const LANGUAGE: &str = "language";

/// What decides the bytes of an object: parts with a name and a value, in a fixed order.
///
/// The value of a part is text for people. Where it is a list, each thing stands in a line of
/// its own, so that [`explain`](super::Cache::explain) can say which one differs.
#[derive(Clone)]
pub struct Key {
    /// The parts, each name and each value after its length: those that many keys begin with, and
    /// the others.
    beginning: Arc<[u8]>,
    rest: Vec<u8>,
    name: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        // The digest of all parts.
        self.name == other.name
    }
}

impl Eq for Key {}

impl Key {
    /// A key of these parts. The order counts, and so does the name of each.
    #[must_use]
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Key {
        Beginning::new(parts).key([])
    }

    /// The SHA-256 over all parts, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.name
    }

    /// The parts, each a name and a value.
    #[must_use]
    pub fn parts(&self) -> Vec<(&str, &str)> {
        let parts = self.encoded().map(decode);
        parts.into_iter().flatten().flatten().collect()
    }

    /// Whether this is what entries carry of it.
    pub(super) fn is_encoded_as(&self, encoded: &[u8]) -> bool {
        encoded.strip_prefix(&*self.beginning) == Some(&self.rest)
    }

    /// The parts, as entries carry them, in two pieces.
    pub(super) fn encoded(&self) -> [&[u8]; 2] {
        [&self.beginning, &self.rest]
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.parts()).finish()
    }
}

/// All that decides what a kernel compiles to, where nothing is included.
#[derive(Clone, Copy, Debug)]
pub struct KernelKey<'a> {
    /// What the source is written in, as `c` or `llvm-ir`.
    pub language: &'a str,
    /// The function to call.
    pub entry: &'a str,
    /// The source's file name, which `__FILE__` and debug information show.
    pub name: &'a str,
    /// The source itself.
    pub source: &'a [u8],
    /// All flags that the compiler is given, in their order.
    pub flags: &'a [String],
    /// The CPU: its name or, for `native`, what [`cpu::host`](crate::compile::cpu::host) says.
    pub target: &'a str,
    /// The compiler: the files that it is made of, a line a file.
    pub compiler: &'a str,
}

impl KernelKey<'_> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> Key {
        self.beginning().key_of(self.entry, self.name, self.source)
    }

    /// What it has in common with those of other sources that are compiled in the same way.
    pub(crate) fn beginning(&self) -> Beginning {
        Beginning::new([
            ("cache", CACHE_VERSION.to_string().as_str()),
            (LANGUAGE, self.language),
            ("flags", &lines(self.flags)),
            ("target", self.target),
            ("compiler", self.compiler),
        ])
    }
}

/// What keys of many sources begin with: it is most of their text, and digested once.
#[derive(Clone)]
pub(crate) struct Beginning {
    encoded: Arc<[u8]>,
    digest: Sha256,
}

impl Beginning {
    fn new<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Beginning {
        let encoded = encode(parts);
        let digest = Sha256::new_with_prefix(&encoded);
        Beginning {
            encoded: encoded.into(),
            digest,
        }
    }

    /// The key of a source.
    pub(crate) fn key_of(&self, entry: &str, name: &str, source: &[u8]) -> Key {
        let source = hex(&Sha256::digest(source));
        self.key([(ENTRY, entry), ("name", name), ("source", &source)])
    }

    fn key<'a>(&self, parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Key {
        let rest = encode(parts);
        let digest = self.digest.clone().chain_update(&rest);
        let name = hex(&digest.finalize());
        Key {
            beginning: self.encoded.clone(),
            rest,
            name,
        }
    }
}

fn encode<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut encoded = Vec::new();
    for text in parts.into_iter().flat_map(|(name, value)| [name, value]) {
        // With its length before it, no text runs into the next one.
        encoded.extend_from_slice(&(text.len() as u64).to_le_bytes());
        encoded.extend_from_slice(text.as_bytes());
    }
    encoded
}

/// The name of a key's entry.
pub(super) fn name(encoded: &[u8]) -> String {
    hex(&Sha256::digest(encoded))
}

/// A list as text, each item in a line of its own.
fn lines(items: &[String]) -> String {
    let mut text = String::new();
    for item in items {
        // A backslash is doubled, so that an escaped line end is no other item's text.
        text.push_str(&item.replace('\\', "\\\\").replace('\n', "\\n"));
        text.push('\n');
    }
    text
}

/// The parts of an encoded key; nothing where it is none.
pub(super) fn decode(mut encoded: &[u8]) -> Option<Vec<(&str, &str)>> {
    let mut texts = Vec::new();
    while let Some((len, rest)) = encoded.split_first_chunk() {
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (text, rest) = rest.split_at_checked(len)?;
        texts.push(std::str::from_utf8(text).ok()?);
        encoded = rest;
    }
    let (pairs, odd) = texts.as_chunks::<2>();
    (encoded.is_empty() && odd.is_empty()).then(|| pairs.iter().map(|[n, v]| (*n, *v)).collect())
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_run_together_the_same_way_are_other_keys() {
        let digest = |parts: &[(&str, &str)]| Key::new(parts.iter().copied()).digest().to_owned();
        let all = [
            digest(&[("a", "bc"), ("d", "e")]),
            digest(&[("ab", "c"), ("d", "e")]),
            digest(&[("a", "bcd"), ("", "e")]),
            digest(&[("a", "bc")]),
            digest(&[("d", "e"), ("a", "bc")]),
            digest(&[]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one), "{i}");
        }
    }

    #[test]
    fn a_key_reads_back_and_half_a_key_does_not() {
        // What many share, and what this one has.
        let key = Beginning::new([("one", "1")]).key([("two", "a\nb"), ("", "")]);
        let whole = Key::new([("one", "1"), ("two", "a\nb"), ("", "")]);
        assert!(key == whole && key.digest() == whole.digest());
        assert_eq!(key.parts(), [("one", "1"), ("two", "a\nb"), ("", "")]);
        let encoded = key.encoded().concat();
        assert!(key.is_encoded_as(&encoded));
        for cut in 1..encoded.len() {
            assert!(!key.is_encoded_as(&encoded[..cut]));
            let read = decode(&encoded[..cut]);
            assert!(read.is_none_or(|parts| parts.len() < 3), "{cut}");
        }
        assert!(!key.is_encoded_as(&[&encoded[..], b"x"].concat()));
    }

    #[test]
    fn each_thing_that_decides_the_bytes_makes_another_key() {
        let flags = ["-O2".to_owned(), "-c".to_owned()];
        let joined = ["-O2\n-c".to_owned()];
        let escaped = ["-O2\\n-c".to_owned()];
        let plain = KernelKey {
            language: "c",
            entry: "k",
            name: "k.c",
            source: b"void k(void) {}",
            flags: &flags,
            target: "x86-64-v3",
            compiler: "clang",
        };
        let keys = [
            plain,
            KernelKey {
                language: "llvm-ir",
                ..plain
            },
            KernelKey {
                entry: "l",
                ..plain
            },
            KernelKey {
                name: "l.c",
                ..plain
            },
            KernelKey {
                source: b"void k(void) {;}",
                ..plain
            },
            KernelKey {
                flags: &flags[..1],
                ..plain
            },
            KernelKey {
                flags: &joined,
                ..plain
            },
            KernelKey {
                flags: &escaped,
                ..plain
            },
            KernelKey {
                target: "x86-64-v4",
                ..plain
            },
            KernelKey {
                compiler: "gcc",
                ..plain
            },
        ]
        .map(|key| key.key().digest().to_owned());
        for (i, one) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(one), "{i}");
        }
    }
}
