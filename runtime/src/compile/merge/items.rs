//! What a source declares at file scope, one item after another.

use super::super::lexer::{self, Kind, Token};

/// One declaration or function at file scope, or one directive: a range of tokens.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The names that it declares here, each once; of a function that is declared and not
    /// defined, none.
    pub(super) names: Vec<&'a str>,
    /// The function that it defines.
    pub(super) function: Option<&'a str>,
    /// What it declares and leaves to others to define.
    pub(super) external: Option<&'a str>,
    /// The macro that it defines.
    pub(super) defines: Option<&'a str>,
}

/// Words of the language, as far as they can stand where a name can.
const KEYWORDS: &[&str] = &[
    "auto",
    "char",
    "const",
    "double",
    "enum",
    "extern",
    "float",
    "inline",
    "int",
    "long",
    "register",
    "restrict",
    "short",
    "signed",
    "static",
    "struct",
    "typedef",
    "union",
    "unsigned",
    "void",
    "volatile",
    "_Bool",
    "_Complex",
    "_Float16",
    "_Noreturn",
    "_Static_assert",
    "__extension__",
    "__inline",
    "__inline__",
    "__restrict",
    "__restrict__",
    "__const",
    "__volatile__",
    "__signed__",
    "__fp16",
    "__bf16",
    "__int128",
    "__float128",
    "__attribute__",
    "_BitInt",
    "_Float32",
    "_Float64",
    "_Float32x",
    "_Float128",
];

/// Words with which what is written alone and what is written beside others may differ, or
/// that are seldom.
const REFUSED: &[&str] = &[
    "asm",
    "typeof",
    "typeof_unqual",
    "constexpr",
    "thread_local",
    "alignas",
];

/// Those among them that begin with an underscore, as few words of kernels do.
const REFUSED_RESERVED: &[&str] = &[
    "__asm",
    "__asm__",
    "__typeof",
    "__typeof__",
    "_Thread_local",
    "__thread",
    "_Atomic",
    "_Alignas",
    "_Pragma",
    "__pragma",
    "__func__",
    "__FUNCTION__",
    "__PRETTY_FUNCTION__",
    "__FILE__",
    "__LINE__",
    "__FILE_NAME__",
    "__BASE_FILE__",
    "__COUNTER__",
    "__DATE__",
    "__TIME__",
    "__TIMESTAMP__",
    "__INCLUDE_LEVEL__",
    "__has_include",
    "__has_include_next",
    "__has_embed",
    "__label__",
    "__auto_type",
    "_Generic",
    "__declspec",
    "__block",
    "__builtin_FILE",
    "__builtin_LINE",
    "__builtin_FUNCTION",
    "__builtin_FILE_NAME",
    "__builtin_COLUMN",
    "__builtin_source_location",
];

/// What may stand right before a string or a character, and is no name there.
const PREFIXES: &[&str] = &["L", "u", "U", "u8", "R"];

/// What compilers call by themselves: whoever defines it means their calls too.
const CALLED_BY_COMPILERS: &[&str] = &[
    "memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen", "abort",
];

/// Takes tokens apart into items, or says why the source is better left as it is.
pub(super) fn items<'a>(tokens: &[Token<'a>]) -> Result<Vec<Item<'a>>, &'static str> {
    check_words(tokens)?;
    let is_prefixed = |pair: &[Token<'_>]| {
        let quoted = matches!(pair[1].kind, Kind::Text | Kind::Character);
        quoted && pair[0].end() == pair[1].start && PREFIXES.contains(&pair[0].text)
    };
    if tokens.windows(2).any(is_prefixed) {
        return Err("a string of another kind");
    }
    let mut items: Vec<Item<'a>> = Vec::new();
    let mut start = 0;
    while start < tokens.len() {
        let item = if tokens[start].kind == Kind::Directive {
            directive(tokens, start)?
        } else {
            declaration(tokens, start)?
        };
        start = item.end;
        items.push(item);
    }
    check_macros(tokens, &items)?;
    Ok(items)
}

/// Refuses words with which a source, or the body of a macro, may mean something
/// else in another place.
fn check_words(tokens: &[Token<'_>]) -> Result<(), &'static str> {
    let is_refused = |token: &Token<'_>| {
        let refused = match token.text.starts_with('_') {
            true => REFUSED_RESERVED,
            false => REFUSED,
        };
        token.kind == Kind::Word && refused.contains(&token.text)
    };
    if tokens.iter().any(is_refused) {
        return Err("a word that names where it stands, or is seldom");
    }
    Ok(())
}

/// The name and the rest of a directive's line.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches([' ', '\t']);
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    text.split_at(end.unwrap_or(text.len()))
}

fn directive<'a>(tokens: &[Token<'a>], at: usize) -> Result<Item<'a>, &'static str> {
    let (name, rest) = word(&tokens[at].text[1..]);
    let (defined, body) = word(rest);
    let defines = match name {
        "" if rest.trim().is_empty() => None,
        // What compilers define must not end with the source.
        "define" if defined.starts_with('_') || matches!(defined, "linux" | "unix") => {
            return Err("a macro whose name is reserved");
        }
        "define" if !defined.is_empty() => {
            check_words(&lexer::tokens(body)?)?;
            Some(defined)
        }
        _ => return Err("a directive other than a plain definition"),
    };
    Ok(Item {
        start: at,
        end: at + 1,
        names: Vec::new(),
        function: None,
        external: None,
        defines,
    })
}

/// Where the group ends that begins with the bracket at `open`: behind its closing bracket.
fn group_end(tokens: &[Token<'_>], open: usize) -> Result<usize, &'static str> {
    let mut expected = Vec::new();
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Mark(b'(') => expected.push(b')'),
            Kind::Mark(b'[') => expected.push(b']'),
            Kind::Mark(b'{') => expected.push(b'}'),
            Kind::Mark(close @ (b')' | b']' | b'}')) => {
                if expected.pop() != Some(close) {
                    return Err("brackets that do not match");
                }
                if expected.is_empty() {
                    return Ok(i + 1);
                }
            }
            Kind::Directive => return Err("a directive inside of a declaration"),
            _ => {}
        }
    }
    Err("a bracket without an end")
}

/// One declaration: its tokens outside of brackets, with each bracketed group as its opening
/// bracket alone, and attributes left out.
fn declaration<'a>(tokens: &[Token<'a>], start: usize) -> Result<Item<'a>, &'static str> {
    let mut outline: Vec<usize> = Vec::new();
    let (mut at, mut in_value) = (start, false);
    let mut function = None;
    loop {
        let token = tokens.get(at).ok_or("a declaration without an end")?;
        match token.kind {
            Kind::Directive => return Err("a directive inside of a declaration"),
            Kind::Mark(b';') => break,
            Kind::Word if token.text == "__attribute__" => {
                if !tokens.get(at + 1).is_some_and(|t| t.is(b'(')) {
                    return Err("an attribute that is unusual");
                }
                let end = group_end(tokens, at + 1)?;
                check_attribute(&tokens[at + 1..end])?;
                at = end;
            }
            Kind::Mark(b'{') if !in_value => {
                let end = group_end(tokens, at)?;
                let before = outline.last().map(|&i| &tokens[i]);
                if before.is_some_and(|t| t.is(b'(')) {
                    function = Some(end);
                    break;
                }
                if !is_record(tokens, &outline) {
                    return Err("a body of something unknown");
                }
                outline.push(at);
                at = end;
            }
            Kind::Mark(b'(' | b'[' | b'{') => {
                outline.push(at);
                at = group_end(tokens, at)?;
            }
            Kind::Mark(b')' | b']' | b'}') => return Err("brackets that do not match"),
            mark => {
                match mark {
                    Kind::Mark(b'=') => in_value = true,
                    Kind::Mark(b',') => in_value = false,
                    _ => {}
                }
                outline.push(at);
                at += 1;
            }
        }
    }
    let end = function.unwrap_or(at + 1);
    declared(tokens, start, end, &outline, function.is_some())
}

/// Whether what stands before a brace is `struct`, `union` or `enum`, with a name or not.
fn is_record(tokens: &[Token<'_>], outline: &[usize]) -> bool {
    let back = |n: usize| {
        outline
            .len()
            .checked_sub(n)
            .map(|i| tokens[outline[i]].text)
    };
    let record = |text: Option<&str>| matches!(text, Some("struct" | "union" | "enum"));
    record(back(1)) || record(back(2))
}

/// Attributes may name symbols by strings.
fn check_attribute(tokens: &[Token<'_>]) -> Result<(), &'static str> {
    let names_something = |t: &Token<'_>| {
        t.kind == Kind::Text
            || matches!(
                t.text.trim_matches('_'),
                "alias" | "ifunc" | "cleanup" | "weakref" | "constructor" | "destructor" | "error"
            )
    };
    if tokens.iter().any(names_something) {
        return Err("an attribute that may name a symbol");
    }
    Ok(())
}

/// What a declaration declares.
fn declared<'a>(
    tokens: &[Token<'a>],
    start: usize,
    end: usize,
    outline: &[usize],
    is_function: bool,
) -> Result<Item<'a>, &'static str> {
    let mut item = Item {
        start,
        end,
        names: Vec::new(),
        function: None,
        external: None,
        defines: None,
    };
    let outer = |i: usize| outline.get(i).map(|&at| &tokens[at]);
    let first = outer(0).map_or("", |t| t.text);
    if first == "_Static_assert" || outline.is_empty() {
        return Ok(item);
    }
    let body = if is_function { outline.last() } else { None };
    tags(tokens, start, body.copied().unwrap_or(end), &mut item.names)?;
    let is_typedef = outline.iter().any(|&at| tokens[at].text == "typedef");
    let is_extern = outline.iter().any(|&at| tokens[at].text == "extern");
    let (mut name, mut in_value, mut calls) = (None, false, false);
    for (i, &at) in outline.iter().enumerate() {
        let token = &tokens[at];
        let before = i.checked_sub(1).and_then(outer);
        match token.kind {
            Kind::Mark(b'=') => in_value = true,
            Kind::Mark(b',') => {
                declare(
                    &mut item,
                    name.take(),
                    calls,
                    is_typedef,
                    is_extern && !in_value,
                )?;
                (in_value, calls) = (false, false);
            }
            _ if in_value => {}
            Kind::Mark(b'(') => {
                // A declarator in parentheses would hide its name.
                let is_name = before.is_some_and(|t| t.kind == Kind::Word && Some(t.text) == name);
                if !is_name || calls {
                    return Err("a declarator in parentheses");
                }
                calls = true;
            }
            Kind::Word if KEYWORDS.contains(&token.text) => {}
            Kind::Word if calls => return Err("a word behind a list of parameters"),
            Kind::Word => name = Some(token.text),
            Kind::Mark(b'*' | b'[' | b'{') => {}
            _ => return Err("a declaration that is unusual"),
        }
    }
    let has_attribute = || tokens[start..end].iter().any(|t| t.text == "__attribute__");
    if is_function {
        let name = name.filter(|_| calls).ok_or("a function without a name")?;
        if CALLED_BY_COMPILERS.contains(&name) || name.starts_with("__") {
            return Err("a function that compilers call by themselves");
        }
        // Alone, its calls may be of a function that is defined elsewhere.
        let has = |words: &[&str]| outline.iter().any(|&at| words.contains(&tokens[at].text));
        if has(&["inline", "__inline", "__inline__"]) && !has(&["static"]) {
            return Err("an inline function that is not static");
        }
        item.function = Some(name);
        add(&mut item.names, name);
        return Ok(item);
    }
    // `struct s;` and `struct s { … };` declare no more than the tag.
    let last_is_tag = name.is_some_and(|name| {
        let at = outline.iter().rposition(|&at| tokens[at].text == name);
        let before = at.and_then(|at| at.checked_sub(1)).and_then(outer);
        before.is_some_and(|t| matches!(t.text, "struct" | "union" | "enum"))
    });
    if !last_is_tag {
        declare(&mut item, name, calls, is_typedef, is_extern && !in_value)?;
    }
    if item.external.is_some() && has_attribute() {
        return Err("an external name with attributes, which others would inherit");
    }
    Ok(item)
}

/// Notes what one declarator declares.
fn declare<'a>(
    item: &mut Item<'a>,
    name: Option<&'a str>,
    is_call: bool,
    is_typedef: bool,
    is_extern: bool,
) -> Result<(), &'static str> {
    let Some(name) = name else { return Ok(()) };
    if !is_typedef && (is_call || is_extern) {
        if item.external.replace(name).is_some() {
            return Err("several external names in one declaration");
        }
        return Ok(());
    }
    add(&mut item.names, name);
    Ok(())
}

fn add<'a>(names: &mut Vec<&'a str>, name: &'a str) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// The tags of structs, unions and enums, and enumerators, wherever they stand before `end`.
fn tags<'a>(
    tokens: &[Token<'a>],
    start: usize,
    end: usize,
    names: &mut Vec<&'a str>,
) -> Result<(), &'static str> {
    let mut at = start;
    while at < end {
        let is_enum = tokens[at].text == "enum";
        if !is_enum && !matches!(tokens[at].text, "struct" | "union") {
            at += 1;
            continue;
        }
        at += 1;
        if tokens.get(at).is_some_and(|t| t.text == "__attribute__") {
            at = group_end(tokens, at + 1)?;
        }
        if let Some(tag) = tokens.get(at).filter(|t| t.kind == Kind::Word) {
            add(names, tag.text);
            at += 1;
        }
        if is_enum && tokens.get(at).is_some_and(|t| t.is(b'{')) {
            let close = group_end(tokens, at)?;
            let mut expects_name = false;
            let mut inner = at;
            while inner < close {
                let token = &tokens[inner];
                match token.kind {
                    Kind::Word if expects_name => add(names, token.text),
                    Kind::Mark(b'(' | b'[') => {
                        inner = group_end(tokens, inner)?;
                        continue;
                    }
                    _ => {}
                }
                expects_name = token.is(b'{') || token.is(b',');
                inner += 1;
            }
            at = close;
        }
    }
    Ok(())
}

/// A macro that is used where declarations are, could be any part of one.
fn check_macros(tokens: &[Token<'_>], items: &[Item<'_>]) -> Result<(), &'static str> {
    let macros: Vec<&str> = items.iter().filter_map(|item| item.defines).collect();
    if macros.is_empty() {
        return Ok(());
    }
    for item in items.iter().filter(|item| item.defines.is_none()) {
        let mut depth = 0_usize;
        for token in &tokens[item.start..item.end] {
            match token.kind {
                Kind::Mark(b'(' | b'[' | b'{') => depth += 1,
                Kind::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
                Kind::Word if depth == 0 && macros.contains(&token.text) => {
                    return Err("a macro outside of functions");
                }
                _ => {}
            }
        }
    }
    Ok(())
}
