//! The prompt: editing with history, statements over several lines, and a few commands of its own.

use super::report;
use super::run::Runner;
use super::split::split;
use anyhow::Context;
use reedline::{
    DefaultPrompt, DefaultPromptSegment, FileBackedHistory, Reedline, Signal, ValidationResult, Validator,
};
use std::path::PathBuf;
use std::process::ExitCode;

const HISTORY_LINES: usize = 10_000;

const HELP: &str = "\
A statement ends with `;` and may have several lines. Ctrl-C cancels it, or empties the line; Ctrl-D leaves.
  \\d            all tables
  \\d NAME       the columns of a table
  \\timing       time below results on or off
  \\? or help    this text
  \\q or quit    leave
Try also: SHOW PIPELINES; SELECT * FROM tidemill.jobs; SET engine = 'auto'; EXPLAIN SELECT …;";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Nothing,
    Quit,
    Help,
    Timing,
    /// A command that stands for a statement.
    Shortcut(String),
    /// SQL, perhaps not yet complete.
    Statements(&'a str),
    Unknown(&'a str),
}

fn read(line: &str) -> Request<'_> {
    let line = line.trim();
    let bare = line.trim_end_matches(';').trim_end();
    match bare {
        "" => return Request::Nothing,
        "\\q" => return Request::Quit,
        "\\?" | "\\h" => return Request::Help,
        "\\timing" => return Request::Timing,
        "\\d" => return Request::Shortcut("SHOW TABLES".to_owned()),
        _ => {}
    }
    if bare.eq_ignore_ascii_case("quit") || bare.eq_ignore_ascii_case("exit") {
        return Request::Quit;
    }
    if bare.eq_ignore_ascii_case("help") {
        return Request::Help;
    }
    if let Some(name) = bare.strip_prefix("\\d ") {
        return Request::Shortcut(format!("DESCRIBE {}", name.trim()));
    }
    if bare.starts_with('\\') {
        return Request::Unknown(bare);
    }
    Request::Statements(line)
}

/// A line is complete when its last statement is.
struct Semicolon;

impl Validator for Semicolon {
    fn validate(&self, line: &str) -> ValidationResult {
        match read(line) {
            Request::Statements(text) if split(text).rest.is_some() => ValidationResult::Incomplete,
            _ => ValidationResult::Complete,
        }
    }
}

/// Reads and runs until the user leaves.
pub(super) async fn converse(mut runner: Runner) -> anyhow::Result<ExitCode> {
    println!(
        "Tidemill {} {}. `help` helps, `\\q` leaves.",
        env!("CARGO_PKG_VERSION"),
        runner.backend.place()
    );
    let mut editor = Reedline::create().with_validator(Box::new(Semicolon));
    if let Some(path) = history_file() {
        match FileBackedHistory::with_file(HISTORY_LINES, path.clone()) {
            Ok(history) => editor = editor.with_history(Box::new(history)),
            Err(error) => eprintln!("no history: {}: {error}", path.display()),
        }
    }
    let prompt =
        DefaultPrompt::new(DefaultPromptSegment::Basic("tidemill".to_owned()), DefaultPromptSegment::Empty);
    loop {
        let signal = tokio::task::block_in_place(|| editor.read_line(&prompt));
        match signal.context("cannot read from the terminal")? {
            Signal::Success(line) => match read(&line) {
                Request::Nothing => {}
                Request::Quit => return Ok(ExitCode::SUCCESS),
                Request::Help => println!("{HELP}"),
                Request::Timing => {
                    runner.timing = !runner.timing;
                    println!("timing is {}", if runner.timing { "on" } else { "off" });
                }
                Request::Unknown(command) => println!("no command `{command}`\n{HELP}"),
                Request::Shortcut(sql) => statements(&runner, &sql).await,
                Request::Statements(text) => statements(&runner, text).await,
            },
            Signal::CtrlD => return Ok(ExitCode::SUCCESS),
            _ => {}
        }
    }
}

async fn statements(runner: &Runner, text: &str) {
    let split = split(text);
    for statement in split.statements.into_iter().chain(split.rest) {
        if let Err(error) = runner.statement(&statement.text).await {
            report::error(&error, None);
            return;
        }
    }
}

/// In the user's data folder, by the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("tidemill").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_need_no_semicolon() {
        assert_eq!(read(" \\q "), Request::Quit);
        assert_eq!(read("QUIT;"), Request::Quit);
        assert_eq!(read("help"), Request::Help);
        assert_eq!(read("\\d"), Request::Shortcut("SHOW TABLES".to_owned()));
        assert_eq!(read("\\d a.b;"), Request::Shortcut("DESCRIBE a.b".to_owned()));
        assert_eq!(read("\\x"), Request::Unknown("\\x"));
    }

    #[test]
    fn lines_wait_for_their_semicolon() {
        let complete = |line: &str| matches!(Semicolon.validate(line), ValidationResult::Complete);
        assert!(complete("SELECT 1;") && complete("\\d t") && complete("") && complete("SELECT 1; -- done"));
        assert!(!complete("SELECT 1") && !complete("SELECT ';") && !complete("SELECT 1; SELECT 2"));
        assert!(!complete("DESCRIBE"));
    }
}
