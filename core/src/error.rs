//! One structural error: whose fault, retry or not, a code, and what to do next.
//!
//! It is serialisable, so that an executor's error arrives at the client as it was raised.

use serde::{Deserialize, Serialize};
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The statement, the configuration or the data is wrong; only its author can mend it.
    User,
    /// A system that we talk to failed, refused or did not answer.
    External,
    /// We are wrong.
    Internal,
}

/// Whether the same attempt may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    Never,
    WithBackoff,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $blame:ident, $retry:ident;)*) => {
        /// Every error that a user can meet. `docs/errors.md` has a line for each; a test compares the two.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The number behind `TM-`.
            pub fn number(self) -> u16 {
                match self { $(Code::$name => $number,)* }
            }

            pub fn blame(self) -> Blame {
                match self { $(Code::$name => Blame::$blame,)* }
            }

            pub fn retry(self) -> Retry {
                match self { $(Code::$name => Retry::$retry,)* }
            }
        }
    };
}

codes! {
    // 1xxx: the statement
    /// The SQL text does not parse.
    Syntax = 1001, User, Never;
    /// A column that the input does not have.
    UnknownColumn = 1002, User, Never;
    /// A table, source, pipeline, load or connection that does not exist.
    UnknownObject = 1003, User, Never;
    /// The name is taken.
    AlreadyExists = 1004, User, Never;
    /// Types that do not fit.
    TypeMismatch = 1005, User, Never;
    /// A `WITH` option that the connector does not know, lacks, or cannot read.
    BadOption = 1006, User, Never;
    /// Legal elsewhere, not supported here; the message says what is.
    Unsupported = 1007, User, Never;
    /// The statement is wrong in another way; the message says how.
    InvalidStatement = 1008, User, Never;
    /// The configuration is wrong.
    Config = 1009, User, Never;
    /// Wrong or missing credentials of a client of ours.
    Unauthenticated = 1010, User, Never;
    /// An expectation with `ON VIOLATION FAIL` was violated.
    ExpectationFailed = 1011, User, Never;
    /// The query was cancelled.
    Cancelled = 1012, User, Never;
    /// A value in the data cannot be processed (a cast, a division by zero, an overflow).
    BadData = 1013, User, Never;

    // 2xxx: systems that we talk to
    /// A broker, store or database that does not answer.
    Unreachable = 2001, External, WithBackoff;
    /// A topic, bucket, table or file that is not there.
    NotFound = 2002, External, Never;
    /// The other side refuses our credentials or rights.
    AccessDenied = 2003, External, Never;
    /// Positions that the source no longer has (retention), so that rows would be lost.
    PositionLost = 2004, External, Never;
    /// Another writer changed what we write.
    Conflict = 2005, External, WithBackoff;
    /// No space left.
    NoSpace = 2006, External, WithBackoff;
    /// The other side failed in another way.
    ExternalFailure = 2007, External, WithBackoff;
    /// A source row count and its copy in the warehouse differ.
    ReconciliationFailed = 2008, External, Never;

    // 3xxx: ourselves
    /// A worker was lost while it ran a part of the job.
    WorkerLost = 3001, Internal, WithBackoff;
    /// No executor is registered.
    NoExecutors = 3002, Internal, WithBackoff;
    /// An older leader tried to write.
    Fenced = 3003, Internal, Never;
    /// The query needs more memory than it may have.
    ResourcesExhausted = 3004, User, Never;
    /// Stored state that we cannot read or that contradicts itself.
    Corrupt = 3005, Internal, Never;
    /// More statements wait than may.
    TooManyJobs = 3007, Internal, WithBackoff;
    /// A defect.
    Internal = 3006, Internal, Never;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TM-{}", self.number())
    }
}

/// An error with everything that its reader needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    pub code: Code,
    pub message: String,
    /// What is allowed, or what to do next.
    pub hint: Option<String>,
    /// Where it happened, from the inside out: operator, job, pipeline.
    pub context: Vec<String>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, context: Vec::new() }
    }

    /// A defect, which the reader is asked to report.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Code::Internal, message.to_string()).hint("this is a defect; please report it")
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where the error passed through.
    #[must_use]
    pub fn context(mut self, place: impl Into<String>) -> Self {
        self.context.push(place.into());
        self
    }

    /// A hint that names the nearest of `known`, or lists them all when none is near.
    #[must_use]
    pub fn suggest<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_unstable();
        known.dedup();
        let nearest = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase()), name))
            .min()
            .filter(|(distance, _)| *distance <= wrong.len().div_ceil(3).max(1));
        match nearest {
            Some((_, name)) => self.hint(format!("did you mean `{name}`?")),
            None if known.is_empty() => self,
            None => {
                let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                self.hint(format!("there are: {}", names.join(", ")))
            }
        }
    }

    pub fn blame(&self) -> Blame {
        self.code.blame()
    }

    pub fn is_transient(&self) -> bool {
        self.code.retry() == Retry::WithBackoff
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        if !self.context.is_empty() {
            write!(f, " (in {})", self.context.join(", in "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&object_store::Error> for Error {
    fn from(error: &object_store::Error) -> Self {
        use object_store::Error as E;
        let code = match error {
            E::NotFound { .. } => Code::NotFound,
            E::AlreadyExists { .. } | E::Precondition { .. } => Code::Conflict,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Code::AccessDenied,
            other if other.to_string().contains("No space left") => Code::NoSpace,
            _ => Code::ExternalFailure,
        };
        let error = Error::new(code, format!("object store: {error}"));
        match code {
            Code::NoSpace => error.hint("free some space; the work is tried again by itself"),
            Code::AccessDenied => error.hint("check the credentials and rights of the bucket under [store]"),
            _ => error,
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::new(Code::Corrupt, format!("stored JSON does not read: {error}"))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        match error {
            arrow::error::ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(error) => *error,
                Err(other) => Error::internal(other),
            },
            arrow::error::ArrowError::IoError(_, io) if io.kind() == std::io::ErrorKind::StorageFull => {
                Error::new(Code::NoSpace, io.to_string()).hint("free some space and try again")
            }
            arrow::error::ArrowError::IoError(_, io) => Error::new(Code::ExternalFailure, io.to_string()),
            other => Error::new(Code::BadData, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_name_or_lists_all() {
        let near =
            Error::new(Code::UnknownColumn, "no column `usr_id`").suggest("usr_id", ["user_id", "price"]);
        assert_eq!(near.hint.as_deref(), Some("did you mean `user_id`?"));
        let far = Error::new(Code::UnknownColumn, "no column `zzz`").suggest("zzz", ["user_id", "price"]);
        assert_eq!(far.hint.as_deref(), Some("there are: `price`, `user_id`"));
    }

    #[test]
    fn numbers_are_unique() {
        let mut numbers: Vec<u16> = Code::ALL.iter().map(|code| code.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Code::ALL.len());
    }
}
