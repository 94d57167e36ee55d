//! Our structural error inside somebody else's error text.
//!
//! Both cluster engines carry it between nodes as text, quoted more than once on the way. A marker with
//! URL-encoded JSON survives that.

use crate::error::plain;
use tidemill_core::{Code, Error};
use url::form_urlencoded::{Serializer, parse};

const BEGIN: &str = "tidemill-error(";
const KEY: &str = "e";

/// The error as text that [`from_text`] finds again.
pub fn to_text(error: &Error) -> String {
    match serde_json::to_string(error) {
        Ok(json) => format!("{BEGIN}{})", Serializer::new(String::new()).append_pair(KEY, &json).finish()),
        Err(_) => error.to_string(),
    }
}

/// The error that the text carries; without one, the text itself as a failure of `code`.
pub fn from_text(text: &str, code: Code) -> Error {
    let carried = text.find(BEGIN).and_then(|at| {
        let encoded = &text[at + BEGIN.len()..];
        let (_, json) = parse(&encoded.as_bytes()[..encoded.find(')')?]).find(|(key, _)| key == KEY)?;
        serde_json::from_str(&json).ok()
    });
    carried.unwrap_or_else(|| match code {
        Code::Internal => Error::internal(plain(text)),
        code => Error::new(code, plain(text)),
    })
}

/// What `error` carries, if it carries one; else itself.
pub fn unwrapped(error: Error) -> Error {
    match error.message.contains(BEGIN) {
        true => from_text(&error.message, error.code),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_being_quoted_twice() {
        let error = Error::new(Code::NotFound, "no topic \"x\" (really)").hint("create it").context("ingest");
        let quoted = format!("{:?}", format!("Task failed: {:?}", to_text(&error)));
        assert_eq!(from_text(&quoted, Code::Internal), error);
        assert_eq!(from_text("plain", Code::Internal), Error::internal("plain"));
        assert_eq!(from_text("plain", Code::WorkerLost), Error::new(Code::WorkerLost, "plain"));
    }
}
