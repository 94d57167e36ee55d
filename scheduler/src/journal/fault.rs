//! What goes wrong with a journal's file, in words that say what to do.

use std::io::ErrorKind;
use tidemill_core::{Code, Error};

/// `name` is what the user knows the journal by: its path.
pub(super) fn explain(name: &str, error: redb::Error) -> Error {
    use redb::Error as E;
    let fault = |code, what: &str| Error::new(code, format!("the journal `{name}` {what}"));
    match error {
        E::Io(error) => io(name, &error),
        E::DatabaseAlreadyOpen => fault(Code::Conflict, "is open in another process")
            .hint("only one scheduler can use it: stop the other one, or set journal.path to another file"),
        E::PreviousIo | E::DatabaseClosed => fault(
            Code::ExternalFailure,
            "was closed after an error of its disk; it is opened again by itself",
        ),
        E::UpgradeRequired(version) => fault(Code::Corrupt, &format!("has the old file format {version}"))
            .hint("open it with the version of Tidemill that wrote it"),
        E::Corrupted(reason) => fault(Code::Corrupt, &format!("is damaged: {reason}"))
            .hint("stop the scheduler and put a copy of the file in its place"),
        other => fault(Code::Internal, &format!("failed: {other}")),
    }
}

pub(super) fn io(name: &str, error: &std::io::Error) -> Error {
    let (code, hint) = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (Code::NoSpace, "free some space on its disk; the work is tried again by itself")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            (Code::AccessDenied, "let this user write there, or set journal.path to another file")
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists => {
            (Code::Config, "journal.path must name a file in a folder")
        }
        // redb's word for a file that is not one of its own.
        ErrorKind::InvalidData => {
            (Code::Config, "it is not a journal: set journal.path to another file, which is created")
        }
        _ => (Code::ExternalFailure, "look after the disk that it is on"),
    };
    Error::new(code, format!("the journal `{name}` cannot be used: {error}")).hint(hint)
}
