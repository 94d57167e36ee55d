//! Errors as people read them, on standard error, in colour on a terminal.

use std::io::IsTerminal;
use tidemill_core::Error;

/// Prints the whole error; `place` is a file and line.
pub(super) fn error(error: &Error, place: Option<&str>) {
    eprintln!("{}", render(error, place, std::io::stderr().is_terminal()));
}

fn render(error: &Error, place: Option<&str>, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let mut text = String::new();
    if let Some(place) = place {
        text.push_str(&format!("{place}: "));
    }
    let head = paint("1;31", &format!("error {}", error.code));
    text.push_str(&format!("{head}: {}", error.message));
    if let Some(hint) = &error.hint {
        text.push_str(&format!("\n  {} {hint}", paint("36", "hint:")));
    }
    for context in &error.context {
        text.push_str(&format!("\n  {} {context}", paint("2", "in:")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::Code;

    #[test]
    fn everything_is_printed() {
        let error =
            Error::new(Code::UnknownColumn, "no column `x`").hint("did you mean `y`?").context("query");
        let plain = "a.sql:3: error TM-1002: no column `x`\n  hint: did you mean `y`?\n  in: query";
        assert_eq!(render(&error, Some("a.sql:3"), false), plain);
        assert!(render(&error, None, true).starts_with("\u{1b}[1;31merror TM-1002\u{1b}[0m: no column"));
    }
}
