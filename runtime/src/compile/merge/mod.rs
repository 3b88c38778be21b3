//! Many sources of C as few translation units.
//!
//! Sources that were written to be compiled alone use the same names for different things. So
//! in a unit every name that a source declares at file scope and defines gets an end of its
//! own, wherever it stands in that source: names that differ everywhere need no scopes to be
//! understood. What a source merely declares, such as a function of libm, keeps its name, as
//! the linker is to find it. Macros end with their source.
//!
//! A type or a constant that the unit has already, token for token once the names in it are
//! resolved, is left out, and its names mean the one that is there. Functions are not, unless
//! they are always inlined: whether a compiler inlines a function depends on how many callers it
//! has, and what is inlined may be folded, with other bits than libm gives, or another NaN. So
//! each source keeps helpers of its own, as it has them alone.
//!
//! **Why the results are the same bits.** What a compiler makes of one function depends on that
//! function, what it calls, what calls it, and flags, all of which are the same. Sources that could
//! tell the difference are refused here and compiled alone: pragmas, conditions of the
//! preprocessor, assembler, the name of a function or a file in its own text. Whoever merges must
//! do the same with flags that let a compiler reassociate, and keep it from folding functions
//! that are alike into one.
//!
//! What is read wrongly shows itself as a unit that does not compile, and is then compiled
//! alone as well.

mod items;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use items::Item;

use super::Source;
use super::lexer::{self, Kind, Token};

/// A source that can be merged with others.
pub(super) struct Prepared<'a> {
    entry: &'a str,
    text: &'a str,
    tokens: Vec<Token<'a>>,
    items: Vec<Item<'a>>,
    /// The names of what may be shared with other sources: they are declared once, and not
    /// used before.
    shareable: HashSet<&'a str>,
}

/// A translation unit.
pub(super) struct Unit {
    pub(super) text: String,
    pub(super) members: Vec<Member>,
}

/// A source in a unit.
#[derive(Debug)]
pub(super) struct Member {
    /// Its number.
    pub(super) source: usize,
    /// What its entry is called in the unit.
    pub(super) entry: String,
    /// What its lines belong to, in the words of the compiler.
    marker: String,
}

/// Whether it may be a name, and is renamed then.
fn is_name(token: &Token<'_>) -> bool {
    token.kind == Kind::Word
}

/// Reads a source, or says why it is to be compiled alone.
pub(super) fn prepare(source: &Source) -> Result<Prepared<'_>, &'static str> {
    let text = std::str::from_utf8(&source.contents).map_err(|_| "text that is not UTF-8")?;
    let tokens = lexer::tokens(text)?;
    let items = items::items(&tokens)?;
    let entry = source.entry.as_str();
    if !items.iter().any(|item| item.function == Some(entry)) {
        return Err("a source that does not define its entry");
    }
    let defined: HashSet<&str> = items.iter().flat_map(|i| i.names.iter().copied()).collect();
    check_calls(&tokens, &items, &defined)?;
    let mut prepared = Prepared {
        entry,
        text,
        tokens,
        items,
        shareable: HashSet::new(),
    };
    prepared.shareable = prepared.shareable();
    Ok(prepared)
}

/// The tokens without attributes, of which those are refused that have a word that is also a
/// name, as it would be renamed.
fn without_attributes<'a>(
    tokens: &[Token<'a>],
    names: &HashSet<&str>,
) -> Result<Vec<Token<'a>>, &'static str> {
    if tokens
        .windows(2)
        .any(|pair| pair[0].is(b'[') && pair[1].is(b'['))
    {
        return Err("an attribute in brackets");
    }
    let (mut rest, mut without) = (tokens.iter(), Vec::new());
    while let Some(token) = rest.next() {
        if token.text != "__attribute__" {
            without.push(*token);
            continue;
        }
        let mut depth = 0_usize;
        for token in rest.by_ref() {
            match token.kind {
                Kind::Mark(b'(') => depth += 1,
                Kind::Mark(b')') => depth = depth.saturating_sub(1),
                Kind::Word if names.contains(token.text) => {
                    return Err("an attribute with a word that is also a name");
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    Ok(without)
}

/// What stands before a parenthesis and calls nothing.
const NO_CALLS: &[&str] = &[
    "if",
    "for",
    "while",
    "switch",
    "return",
    "sizeof",
    "do",
    "else",
    "case",
    "int",
    "void",
    "_Alignof",
    "_Static_assert",
];

/// Refuses calls of what the source does not declare: another source of the unit may declare it,
/// and a declaration says how it is called. And macros that a compiler's own functions would
/// lead around what the source defines.
fn check_calls(
    tokens: &[Token<'_>],
    items: &[Item<'_>],
    defined: &HashSet<&str>,
) -> Result<(), &'static str> {
    let declared: HashSet<&str> = items
        .iter()
        .flat_map(|item| item.external.into_iter().chain(item.defines))
        .collect();
    let check = |tokens: &[Token<'_>]| {
        let tokens = without_attributes(tokens, defined)?;
        for (i, token) in tokens.iter().enumerate().filter(|(_, t)| is_name(t)) {
            if let Some(name) = token.text.strip_prefix("__builtin_")
                && defined.contains(name)
            {
                return Err("a function that compilers have a builtin for");
            }
            let is_called = tokens.get(i + 1).is_some_and(|next| next.is(b'('));
            let is_known = || {
                token.text.starts_with("__")
                    || NO_CALLS.contains(&token.text)
                    || defined.contains(token.text)
                    || declared.contains(token.text)
            };
            if is_called && !is_known() {
                return Err("a call of what it does not declare");
            }
        }
        Ok(())
    };
    check(tokens)?;
    let directives = tokens.iter().filter(|t| t.kind == Kind::Directive);
    for directive in directives {
        check(&lexer::tokens(&directive.text[1..])?)?;
    }
    Ok(())
}

impl<'a> Prepared<'a> {
    fn shareable(&self) -> HashSet<&'a str> {
        let (mut seen, mut shareable) = (HashSet::new(), HashSet::new());
        let last = self.items.len().saturating_sub(1);
        for (i, item) in self.items.iter().enumerate() {
            for &name in &item.names {
                if seen.contains(name) {
                    shareable.remove(name);
                } else if name != self.entry {
                    shareable.insert(name);
                }
            }
            // Nothing comes after the last, which is the kernel, as a rule, and most of the source.
            if i == last {
                break;
            }
            let tokens = &self.tokens[item.start..item.end];
            seen.extend(tokens.iter().filter(|t| is_name(t)).map(|t| t.text));
        }
        shareable
    }
}

/// The most sources in a unit. To split its object takes time for each pair of them: 31 µs for
/// each of 27, 38 of 54, 180 of 200 (clang 19, two cores); and constants that clang puts into
/// one section come along with each. [`usize::MAX`] turns it off.
const MAX_MEMBERS: usize = 64;

/// What a remainder or a mask weighs as against the text around it, in bytes of text. Most kernels
/// take a compiler some 5 µs for each byte. Places in memory that it cannot follow, as these make
/// them, are computed and loaded for each lane of a loop on its own: 1 to 4 ms for each of them, 160
/// ms for a kernel of 3.4 kB that has 33 (in `gpt`; clang 19, two cores). Of 200 to 1,000, 600 packs
/// the kernels of seven models most evenly into two and into four units, as computed from what each
/// takes alone. Zero turns it off.
const MARK_WEIGHT: usize = 600;

/// How long a compiler takes for a source, as against others.
fn weight(source: &Prepared<'_>) -> usize {
    // With what stands on either side.
    let all = source.tokens.windows(3);
    let marks = all.filter(|t| match t[1].kind {
        Kind::Mark(b'%') => true,
        // Not where it takes an address, nor one of two that mean "and".
        Kind::Mark(b'&') => {
            let ends_value =
                matches!(t[0].kind, Kind::Word | Kind::Number) || t[0].is(b')') || t[0].is(b']');
            ends_value && !t[2].is(b'&')
        }
        _ => false,
    });
    source.text.len() + MARK_WEIGHT * marks.count()
}

/// Packs sources, with their numbers, into so many units, or more, that take about the same time.
pub(super) fn units(mut sources: Vec<(usize, Prepared<'_>)>, count: usize) -> Vec<Unit> {
    let count = count.max(sources.len().div_ceil(MAX_MEMBERS));
    // The heaviest first, each into what is lightest by then.
    sources.sort_by_cached_key(|(number, s)| (std::cmp::Reverse(weight(s)), *number));
    let mut packs: Vec<(usize, Vec<(usize, Prepared<'_>)>)> = Vec::new();
    packs.resize_with(count.clamp(1, sources.len().max(1)), Default::default);
    for source in sources {
        let open = packs.iter_mut().filter(|pack| pack.1.len() < MAX_MEMBERS);
        if let Some(pack) = open.min_by_key(|pack| pack.0) {
            pack.0 += weight(&source.1);
            pack.1.push(source);
        }
    }
    packs.retain(|pack| !pack.1.is_empty());
    packs.iter().map(|(_, pack)| Merging::merge(pack)).collect()
}

/// A unit that grows.
#[derive(Default)]
struct Merging {
    text: String,
    /// The names of what is there, by what it says.
    declared: HashMap<String, Vec<String>>,
}

impl Merging {
    fn merge(pack: &[(usize, Prepared<'_>)]) -> Unit {
        let mut merging = Merging::default();
        let members = pack.iter().map(|(number, source)| {
            let marker = format!("svod-source-{number}.c");
            // Writing to a string cannot fail.
            let _ = writeln!(merging.text, "# 1 \"{marker}\"");
            let entry = merging.add(*number, source);
            Member {
                source: *number,
                entry,
                marker,
            }
        });
        let members = members.collect();
        Unit {
            text: merging.text,
            members,
        }
    }

    /// Adds a source, and returns what its entry is called here.
    fn add(&mut self, number: usize, source: &Prepared<'_>) -> String {
        let mut names: HashMap<&str, String> = HashMap::new();
        for &name in source.items.iter().flat_map(|item| &item.names) {
            names.insert(name, format!("{name}__svod{number}"));
        }
        let mut macros = String::new();
        let mut written = 0;
        for item in &source.items {
            let tokens = &source.tokens[item.start..item.end];
            let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
                continue;
            };
            self.text
                .push_str(blank(&source.text[written..first.start]).as_str());
            written = last.end();
            if first.kind == Kind::Directive {
                let text = renamed(first.text, &names);
                macros.push_str(&text);
                macros.push('\n');
                self.text.push_str(&text);
                continue;
            }
            if self.shares(item, tokens, source, &macros, &mut names) {
                self.text
                    .push_str(&blank(&source.text[first.start..written]));
                continue;
            }
            let mut at = first.start;
            for token in tokens {
                // What is between tokens stays: comments and lines.
                self.text.push_str(&source.text[at..token.start]);
                self.text.push_str(resolve(token, &names));
                at = token.end();
            }
        }
        self.text.push('\n');
        for name in source.items.iter().filter_map(|item| item.defines) {
            let name = names.get(name).map_or(name, String::as_str);
            let _ = writeln!(self.text, "#undef {name}");
        }
        names.remove(source.entry).unwrap_or_default()
    }

    /// Whether the unit has this item already; its names mean the one that is there then.
    fn shares<'a>(
        &mut self,
        item: &Item<'a>,
        tokens: &[Token<'_>],
        source: &Prepared<'_>,
        macros: &str,
        names: &mut HashMap<&'a str, String>,
    ) -> bool {
        let is_inlined = |t: &Token<'_>| matches!(t.text, "always_inline" | "__always_inline__");
        if item.function.is_some() && !tokens.iter().any(is_inlined) {
            return false;
        }
        let all_shareable = item.names.iter().all(|n| source.shareable.contains(n));
        if item.names.is_empty() || item.external.is_some() || !all_shareable {
            return false;
        }
        let mut said = format!("{macros}\0");
        let mut end = 0;
        for token in tokens {
            // `--` is another thing than `- -`.
            if token.start == end {
                said.push('\u{3}');
            }
            end = token.end();
            match item.names.iter().position(|n| *n == token.text) {
                // Its own names count by their order, and as they are, so that a reader of
                // the unit sees what it is.
                Some(own) if is_name(token) => {
                    let _ = write!(said, "\u{1}{own}:{}", token.text);
                }
                _ => said.push_str(resolve(token, names)),
            }
            said.push('\u{2}');
        }
        if let Some(there) = self.declared.get(&said) {
            for (&name, there) in item.names.iter().zip(there) {
                names.insert(name, there.clone());
            }
            return true;
        }
        let here = item.names.iter().filter_map(|n| names.get(n).cloned());
        self.declared.insert(said, here.collect());
        false
    }
}

/// A token as it stands in the unit.
fn resolve<'t>(token: &Token<'t>, names: &'t HashMap<&str, String>) -> &'t str {
    let name = is_name(token).then(|| names.get(token.text)).flatten();
    name.map_or(token.text, String::as_str)
}

/// A directive with the names in it as they are in the unit. It was read as tokens before.
fn renamed(directive: &str, names: &HashMap<&str, String>) -> String {
    let tokens = lexer::tokens(&directive[1..]).unwrap_or_default();
    let (mut text, mut at) = (String::from("#"), 0);
    for token in &tokens {
        text.push_str(&directive[1 + at..1 + token.start]);
        text.push_str(resolve(token, names));
        at = token.end();
    }
    text.push_str(&directive[1 + at..]);
    text
}

/// The lines of a text, without what is on them.
fn blank(text: &str) -> String {
    text.chars().filter(|c| *c == '\n').collect()
}

impl Unit {
    /// The sources that a compiler's errors are about; none where it does not say.
    pub(super) fn at_fault(&self, diagnostics: &str) -> Vec<usize> {
        let errors = diagnostics.lines().filter(|line| line.contains("error: "));
        let about: HashSet<&str> = errors.filter_map(|l| l.split(':').next()).collect();
        let members = self.members.iter();
        let faulty = members.filter(|m| about.contains(m.marker.as_str()));
        faulty.map(|m| m.source).collect()
    }
}

#[cfg(test)]
mod tests;
