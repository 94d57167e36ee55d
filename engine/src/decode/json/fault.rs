//! Why one record is refused.

use std::fmt;

pub(super) type Faulty<T> = Result<T, Box<Fault>>;

/// The reason, and the path of the field in which it was found, innermost name first.
#[derive(Debug)]
pub(super) struct Fault {
    path: Vec<String>,
    what: String,
}

impl Fault {
    fn new(what: String) -> Box<Self> {
        Box::new(Self { path: Vec::new(), what })
    }

    pub(super) fn malformed(expected: &str, at: usize, found: Option<u8>) -> Box<Self> {
        Self::new(match found {
            Some(byte) if byte.is_ascii_graphic() => {
                format!("malformed JSON at byte {at}: expected {expected}, got `{}`", char::from(byte))
            }
            Some(byte) => {
                format!("malformed JSON at byte {at}: expected {expected}, got the byte 0x{byte:02x}")
            }
            None => format!("malformed JSON at byte {at}: expected {expected}, got the end of the record"),
        })
    }

    pub(super) fn too_deep(limit: usize) -> Box<Self> {
        Self::new(format!("nested deeper than {limit} levels"))
    }

    pub(super) fn bad_escape() -> Box<Self> {
        Self::new("half of a UTF-16 surrogate pair".to_owned())
    }

    pub(super) fn expected(expected: &dyn fmt::Display, got: &dyn fmt::Display) -> Box<Self> {
        Self::new(format!("expected {expected}, got {got}"))
    }

    pub(super) fn missing() -> Box<Self> {
        Self::new("missing or null, but declared NOT NULL".to_owned())
    }

    pub(super) fn inside(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(name.to_owned());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            let path: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
            write!(f, "field `{}`: ", path.join("."))?;
        }
        f.write_str(&self.what)
    }
}
