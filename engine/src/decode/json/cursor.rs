//! Reads JSON text (RFC 8259) where it lies: a position that moves over bytes, without a tree in between.
//!
//! Whatever is passed over is held to the grammar too, so a record is well-formed as a whole or refused.
//! The bytes must be UTF-8; the caller checks that once for a whole batch.

use super::fault::{Fault, Faulty};

/// Values nested deeper than this are refused, so that hostile input cannot exhaust the stack.
const MAX_DEPTH: usize = 128;

/// Every byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Number => "number",
            Kind::True | Kind::False => "boolean",
            Kind::Null => "null",
        }
    }
}

/// The inside of a string literal, with its escapes still in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub raw: &'a [u8],
    pub escaped: bool,
}

/// A number literal, read as far as all numeric columns need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    pub text: &'a [u8],
    pub negative: bool,
    /// All digits without the point; meaningless unless `exact`.
    pub mantissa: u64,
    /// The value is `mantissa × 10^exponent`.
    pub exponent: i32,
    /// The digits fit into `mantissa`, and the exponent into `exponent`.
    pub exact: bool,
}

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn malformed(&self, expected: &'static str) -> Box<Fault> {
        Fault::malformed(expected, self.at, self.text.get(self.at).copied())
    }

    #[inline]
    fn peek_byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek_byte() {
            self.at += 1;
        }
    }

    /// Passes over `byte` (after white space) if it stands here.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let here = self.peek_byte() == Some(byte);
        self.at += usize::from(here);
        here
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Faulty<()> {
        if self.take(byte) { Ok(()) } else { Err(self.malformed(what)) }
    }

    /// Refuses anything but white space until the end.
    pub(super) fn end(&mut self) -> Faulty<()> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.malformed("the end of the record")) }
    }

    /// What value begins here. A literal's other letters are checked when it is read.
    #[inline]
    pub(super) fn kind(&mut self) -> Faulty<Kind> {
        self.skip_space();
        match self.peek_byte() {
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.malformed("a value")),
        }
    }

    /// If exactly the string `key` (without escapes) stands here, passes over it.
    #[inline]
    pub(super) fn take_known(&mut self, key: &[u8]) -> bool {
        let end = self.at + 1 + key.len();
        let hit = self.peek_byte() == Some(b'"')
            && self.text.get(self.at + 1..end) == Some(key)
            && self.text.get(end) == Some(&b'"');
        if hit {
            self.at = end + 1;
        }
        hit
    }

    /// A string literal; the position is at its opening quote.
    #[inline]
    pub(super) fn string(&mut self) -> Faulty<Text<'a>> {
        if self.peek_byte() != Some(b'"') {
            return Err(self.malformed("a string"));
        }
        let start = self.at + 1;
        self.at = start;
        let mut escaped = false;
        loop {
            self.at = end_of_plain(self.text, self.at);
            match self.peek_byte() {
                Some(b'"') => {
                    let raw = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.malformed("the end of a string")),
            }
        }
    }

    /// Passes over one escape sequence.
    fn escape(&mut self) -> Faulty<()> {
        self.at += 1;
        match self.peek_byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek_byte().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.malformed("four hexadecimal digits"));
                    }
                }
                self.at += 1;
            }
            _ => return Err(self.malformed("an escape sequence")),
        }
        Ok(())
    }

    /// A number literal; the position is at its first byte.
    #[inline]
    pub(super) fn number(&mut self) -> Faulty<Number<'a>> {
        let start = self.at;
        let negative = self.peek_byte() == Some(b'-');
        self.at += usize::from(negative);
        let mut mantissa = 0u64;
        let whole = self.at;
        self.digits(&mut mantissa)?;
        let mut digits = self.at - whole;
        if digits > 1 && self.text.get(whole) == Some(&b'0') {
            self.at = whole + 1;
            return Err(self.malformed("no digit after a leading zero"));
        }
        let mut exponent = 0i32;
        let mut exact = true;
        if self.peek_byte() == Some(b'.') {
            self.at += 1;
            let fraction = self.at;
            self.digits(&mut mantissa)?;
            digits += self.at - fraction;
            exponent = -i32::try_from(self.at - fraction).unwrap_or(i32::MAX);
        }
        if let Some(b'e' | b'E') = self.peek_byte() {
            self.at += 1;
            let minus = self.peek_byte() == Some(b'-');
            self.at += usize::from(minus || self.peek_byte() == Some(b'+'));
            let mut power = 0u64;
            let first = self.at;
            self.digits(&mut power)?;
            exact = self.at - first <= 6;
            let power = i32::try_from(power).unwrap_or(i32::MAX / 2);
            exponent = exponent.saturating_add(if minus { -power } else { power });
        }
        // 19 digits always fit into 64 bits.
        exact &= digits <= 19;
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Number { text, negative, mantissa, exponent, exact })
    }

    /// At least one digit, added to `mantissa` (which wraps when there are too many).
    #[inline]
    fn digits(&mut self, mantissa: &mut u64) -> Faulty<()> {
        let first = self.at;
        while let Some(byte @ b'0'..=b'9') = self.peek_byte() {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            self.at += 1;
        }
        if self.at == first { Err(self.malformed("a digit")) } else { Ok(()) }
    }

    /// One of the words `true`, `false` and `null`, of which [`Self::kind`] has seen the first letter.
    pub(super) fn word(&mut self, word: &'static str) -> Faulty<()> {
        let end = self.at + word.len();
        if self.text.get(self.at..end) != Some(word.as_bytes()) {
            return Err(self.malformed("a value"));
        }
        self.at = end;
        Ok(())
    }

    /// Passes over one value of any kind.
    #[inline]
    pub(super) fn skip(&mut self, depth: usize) -> Faulty<()> {
        match self.kind()? {
            Kind::String => self.string().map(drop),
            Kind::Number => self.number().map(drop),
            Kind::True => self.word("true"),
            Kind::False => self.word("false"),
            Kind::Null => self.word("null"),
            Kind::Object => self.skip_object(depth),
            Kind::Array => self.skip_array(depth),
        }
    }

    fn skip_object(&mut self, depth: usize) -> Faulty<()> {
        let depth = deeper(depth)?;
        self.at += 1;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            self.string()?;
            self.expect(b':', "`:`")?;
            self.skip(depth)?;
            if !self.take(b',') {
                return self.expect(b'}', "`,` or `}`");
            }
        }
    }

    fn skip_array(&mut self, depth: usize) -> Faulty<()> {
        let depth = deeper(depth)?;
        self.at += 1;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.skip(depth)?;
            if !self.take(b',') {
                return self.expect(b']', "`,` or `]`");
            }
        }
    }

    /// Passes over the white space before a key.
    #[inline]
    pub(super) fn before_key(&mut self) {
        self.skip_space();
    }
}

/// One level further down.
pub(super) fn deeper(depth: usize) -> Faulty<usize> {
    if depth >= MAX_DEPTH { Err(Fault::too_deep(MAX_DEPTH)) } else { Ok(depth + 1) }
}

/// Where the run of plain string bytes that starts at `at` ends: at a quote, a backslash, a control
/// character or the end of the text. Eight bytes at a time; the lowest marked byte of a word is exact.
#[inline]
fn end_of_plain(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let slash = word ^ (ONES * u64::from(b'\\'));
        let marked = (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let marked = marked & HIGHS;
        if marked != 0 {
            return at + (marked.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// Writes the text of a string literal, escapes resolved, to the end of `out`.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Faulty<()> {
    let mut rest = raw;
    while let Some(slash) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at(slash);
        out.extend_from_slice(plain);
        let (letter, after) = match escape {
            [_, letter, after @ ..] => (*letter, after),
            _ => return Err(Fault::bad_escape()),
        };
        rest = after;
        match letter {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (character, after) = unicode(rest).ok_or_else(Fault::bad_escape)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// The character of `XXXX` or of the surrogate pair `XXXX\uXXXX`; `None` for half a pair.
fn unicode(rest: &[u8]) -> Option<(char, &[u8])> {
    let (high, rest) = hex(rest)?;
    if !(0xD800..0xDC00).contains(&high) {
        return Some((char::from_u32(high)?, rest));
    }
    let (low, rest) = hex(rest.strip_prefix(b"\\u")?)?;
    let low = low.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low)?, rest))
}

fn hex(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let value =
        digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))?;
    Some((value, rest))
}
