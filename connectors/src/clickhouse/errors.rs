//! From ClickHouse's error numbers to ours. The numbers are those of ClickHouse's `ErrorCodes.cpp`.

use clickhouse::error::Error as ClientError;
use tidemill_core::{Code, Error};

/// What a failed request means to its user, and whether it is worth another try.
pub(super) fn from_client(error: ClientError, url: &str) -> Error {
    match error {
        ClientError::Network(_) | ClientError::TimedOut => unreachable(url, &chain(&error)),
        ClientError::Unsupported(message) => Error::new(Code::Unsupported, format!("ClickHouse: {message}")),
        ClientError::BadResponse(text) => from_response(&text, url),
        other => Error::new(Code::ExternalFailure, format!("ClickHouse at {url}: {}", chain(&other))),
    }
}

pub(super) fn unreachable(url: &str, reason: &str) -> Error {
    Error::new(Code::Unreachable, format!("ClickHouse at {url} does not answer: {reason}"))
        .hint("check the connection's `url`, and that the server runs")
}

/// An error with its causes: the client's outermost words are only "network error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words = format!("{words}: {inner_words}");
        }
        cause = inner.source();
    }
    words
}

fn from_response(text: &str, url: &str) -> Error {
    let message = format!("ClickHouse: {}", shorten(text));
    let Some(number) = number(text) else {
        // No words of ClickHouse's own: something in front of it answered.
        return match text.get(..3).and_then(|status| status.parse::<u16>().ok()) {
            Some(401 | 403) => access(message),
            Some(404) => Error::new(Code::NotFound, message).hint("check the path of the connection's `url`"),
            _ => Error::new(Code::Unreachable, format!("{message} (from {url})")),
        };
    };
    match number {
        192 | 193 | 194 | 497 | 516 => access(message),
        164 => Error::new(Code::AccessDenied, message).hint("the user may only read; give it INSERT rights"),
        60 => Error::new(Code::NotFound, message).hint("create the table, or let `create_table` be true"),
        81 => Error::new(Code::NotFound, message).hint("CREATE DATABASE in ClickHouse first"),
        16 | 47 => Error::new(Code::UnknownColumn, message),
        // Types and values that do not go into the column.
        6 | 27 | 41 | 43 | 53 | 69 | 70 | 72 | 321 | 349 | 407 => Error::new(Code::TypeMismatch, message)
            .hint("cast in the query, or alter the column; the message names it"),
        62 => Error::internal(message),
        243 => Error::new(Code::NoSpace, message).hint("free some space on the ClickHouse server"),
        // Everything else (memory, too many parts or queries, keeper, read-only replicas) may pass.
        _ => Error::new(Code::ExternalFailure, message),
    }
}

fn access(message: String) -> Error {
    Error::new(Code::AccessDenied, message).hint("check `user` and `password` of the connection")
}

/// The number in `Code: 516. DB::Exception: …`.
fn number(text: &str) -> Option<u32> {
    let digits = text.split("Code: ").nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// ClickHouse's messages may repeat the data; their beginning says what is wrong.
fn shorten(text: &str) -> String {
    const MOST: usize = 600;
    let text = text.trim();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Code {
        from_client(ClientError::BadResponse(text.to_owned()), "http://h").code
    }

    #[test]
    fn clickhouse_numbers_become_our_codes() {
        assert_eq!(code("Code: 516. DB::Exception: default: Authentication failed"), Code::AccessDenied);
        assert_eq!(code("Code: 60. DB::Exception: Unknown table"), Code::NotFound);
        assert_eq!(code("Code: 349. DB::Exception: Cannot convert NULL"), Code::TypeMismatch);
        assert_eq!(code("Code: 252. DB::Exception: Too many parts"), Code::ExternalFailure);
        assert_eq!(code("502 Bad Gateway"), Code::Unreachable);
        assert_eq!(code("403 Forbidden"), Code::AccessDenied);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let transient =
            |text: &str| from_client(ClientError::BadResponse(text.to_owned()), "u").is_transient();
        assert!(transient("Code: 241. DB::Exception: Memory limit exceeded"));
        assert!(transient("503 Service Unavailable"));
        assert!(!transient("Code: 516. DB::Exception: no"));
        assert!(!transient("Code: 53. DB::Exception: Type mismatch"));
        assert!(from_client(ClientError::TimedOut, "u").is_transient());
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let text = format!("Code: 6. {}", "ü".repeat(5000));
        assert!(shorten(&text).chars().count() <= 601);
    }
}
