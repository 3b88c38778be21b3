//! The tokens of C, as far as it takes to tell declarations apart and to rename what they
//! declare. What is unusual is refused rather than understood.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or a keyword.
    Word,
    Number,
    /// A string, without what may stand before it.
    Text,
    Character,
    /// One character of punctuation.
    Mark(u8),
    /// A line of the preprocessor, as a whole.
    Directive,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// In bytes from the start of the source.
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn is(&self, mark: u8) -> bool {
        self.kind == Kind::Mark(mark)
    }

    pub(super) const fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// Reads all tokens, or says what is unusual.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, &'static str> {
    if text.contains("??") {
        return Err("a trigraph, perhaps");
    }
    let lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
    };
    lexer.all()
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn all(mut self) -> Result<Vec<Token<'a>>, &'static str> {
        let mut tokens = Vec::new();
        let mut line_is_empty = true;
        while self.at < self.bytes.len() {
            let start = self.at;
            let kind = match self.peek(0) {
                b'\n' => {
                    line_is_empty = true;
                    self.at += 1;
                    continue;
                }
                b' ' | b'\t' => {
                    self.at += 1;
                    continue;
                }
                b'/' if matches!(self.peek(1), b'/' | b'*') => {
                    self.comment()?;
                    continue;
                }
                b'#' if line_is_empty => {
                    self.directive()?;
                    Kind::Directive
                }
                b'"' => {
                    self.quoted(b'"')?;
                    Kind::Text
                }
                b'\'' => {
                    self.quoted(b'\'')?;
                    Kind::Character
                }
                b'0'..=b'9' => {
                    self.number();
                    Kind::Number
                }
                b'.' if self.peek(1).is_ascii_digit() => {
                    self.number();
                    Kind::Number
                }
                b if is_word(b) => {
                    while is_word(self.peek(0)) {
                        self.at += 1;
                    }
                    Kind::Word
                }
                b'<' if matches!(self.peek(1), b':' | b'%') => return Err("a digraph"),
                b'%' if matches!(self.peek(1), b':' | b'>') => return Err("a digraph"),
                b':' if self.peek(1) == b'>' => return Err("a digraph"),
                b if b.is_ascii_punctuation()
                    && !matches!(b, b'\\' | b'$' | b'@' | b'`' | b'#') =>
                {
                    self.at += 1;
                    Kind::Mark(b)
                }
                _ => return Err("a character that C text seldom has"),
            };
            line_is_empty = kind == Kind::Directive;
            let text = self.text.get(start..self.at).ok_or("text that is cut")?;
            tokens.push(Token { kind, text, start });
        }
        Ok(tokens)
    }

    /// A comment counts as nothing, and may be followed by a directive where nothing is before
    /// it.
    fn comment(&mut self) -> Result<(), &'static str> {
        let rest = &self.text[self.at..];
        if self.peek(1) == b'/' {
            let length = rest.find('\n').unwrap_or(rest.len());
            self.at += length;
            return if rest[..length].contains('\\') {
                Err("a comment that may go on in the next line")
            } else {
                Ok(())
            };
        }
        let end = rest.get(2..).and_then(|rest| rest.find("*/"));
        self.at += end.ok_or("a comment without an end")? + 4;
        Ok(())
    }

    /// A directive ends with its line, or with the last of those that a backslash joins.
    fn directive(&mut self) -> Result<(), &'static str> {
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            match (self.peek(0), self.peek(1)) {
                (b'\\', b'\n') => self.at += 2,
                (b'\\', _) => return Err("a backslash in a directive"),
                (b'/', b'/' | b'*') => return Err("a comment in a directive"),
                (b'"', _) => self.quoted(b'"')?,
                (b'\'', _) => self.quoted(b'\'')?,
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn quoted(&mut self, quote: u8) -> Result<(), &'static str> {
        self.at += 1;
        loop {
            match self.peek(0) {
                b if b == quote => break,
                b'\\' if self.peek(1) != b'\n' => self.at += 2,
                b'\\' | b'\n' => return Err("a quoted text of several lines"),
                0 => return Err("a quoted text without an end"),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Ok(())
    }

    /// A preprocessing number: more than what is a number.
    fn number(&mut self) {
        while is_word(self.peek(0)) || self.peek(0) == b'.' {
            let exponent = matches!(self.peek(0), b'e' | b'E' | b'p' | b'P');
            self.at += 1;
            if exponent && matches!(self.peek(0), b'+' | b'-') {
                self.at += 1;
            }
        }
    }
}

const fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
