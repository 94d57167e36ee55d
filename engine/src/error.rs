//! Between our structural error and DataFusion's.

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::parquet::errors::ParquetError;
use std::io::ErrorKind;
use tidemill_core::{Code, Error};

/// Carries our error through DataFusion, whole.
pub fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Finds our error inside DataFusion's, or says by DataFusion's variant whose fault it is.
pub fn from_datafusion(error: DataFusionError) -> Error {
    classify(&error)
}

/// [`from_datafusion`] of an error that somebody else holds.
pub fn classify(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => carried(inner.as_ref(), Code::ExternalFailure),
        DataFusionError::Context(context, inner) => classify(inner).context(context),
        DataFusionError::Diagnostic(_, inner) => classify(inner),
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::Collection(errors) if !errors.is_empty() => classify(&errors[0]),
        DataFusionError::ArrowError(error, _) => from_arrow(error),
        DataFusionError::ParquetError(error) => from_parquet(error),
        DataFusionError::SchemaError(error, _) => from_schema(error),
        DataFusionError::SQL(error, _) => {
            Error::new(Code::Syntax, error.to_string().replace("sql parser error: ", ""))
        }
        DataFusionError::Plan(message) => from_plan(plain(message)),
        DataFusionError::NotImplemented(message) => Error::new(Code::Unsupported, plain(message)),
        DataFusionError::Configuration(message) => {
            Error::new(Code::BadOption, plain(message)).hint("SHOW ALL lists every variable with its value")
        }
        DataFusionError::Substrait(message) => {
            Error::new(Code::InvalidStatement, format!("the Substrait plan: {}", plain(message)))
        }
        DataFusionError::ResourcesExhausted(message) => Error::new(Code::ResourcesExhausted, plain(message))
            .hint("raise engine.memory_limit_bytes, read less, or SET engine = 'staged'"),
        DataFusionError::ObjectStore(error) => Error::from(&**error),
        DataFusionError::IoError(error) => from_io(error),
        DataFusionError::Execution(message) => Error::new(Code::BadData, plain(message)),
        DataFusionError::Internal(message) => from_internal(plain(message)),
        other => Error::internal(plain(&other.to_string())),
    }
}

/// What an error of no known kind carries; else its text as a failure of `code`.
fn carried(error: &(dyn std::error::Error + Send + Sync + 'static), code: Code) -> Error {
    if let Some(ours) = error.downcast_ref::<Error>() {
        return ours.clone();
    }
    if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        return classify(inner);
    }
    if let Some(inner) = error.downcast_ref::<ArrowError>() {
        return from_arrow(inner);
    }
    if let Some(inner) = error.downcast_ref::<ParquetError>() {
        return from_parquet(inner);
    }
    if let Some(inner) = error.downcast_ref::<std::io::Error>() {
        return from_io(inner);
    }
    match error.downcast_ref::<object_store::Error>() {
        Some(inner) => Error::from(inner),
        None => Error::new(code, plain(&error.to_string())),
    }
}

fn from_parquet(error: &ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => carried(inner.as_ref(), Code::ExternalFailure),
        ParquetError::NYI(message) => Error::new(Code::Unsupported, format!("Parquet: {message}")),
        other => {
            let message = format!("a Parquet file does not read: {}", plain(&other.to_string()));
            Error::new(Code::BadData, message).hint("see whether the file is whole, and Parquet at all")
        }
    }
}

fn from_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, io) => from_io(io),
        ArrowError::ExternalError(inner) => carried(inner.as_ref(), Code::Internal),
        ArrowError::NotYetImplemented(message) => Error::new(Code::Unsupported, plain(message)),
        other => Error::new(Code::BadData, plain(&other.to_string())),
    }
}

/// How DataFusion says that files of spilled rows have become too many.
const SPILL_LIMIT: &str = "used disk space during the spilling process";

fn from_io(error: &std::io::Error) -> Error {
    if error.to_string().contains(SPILL_LIMIT) {
        return Error::new(Code::ResourcesExhausted, error.to_string())
            .hint("read less at a time, or raise datafusion.runtime.max_temp_directory_size");
    }
    if error.kind() == ErrorKind::Other
        && let Some(inner) = error.get_ref()
    {
        return carried(inner, Code::ExternalFailure);
    }
    let (code, hint) = match error.kind() {
        ErrorKind::StorageFull => (Code::NoSpace, "free some space and try again"),
        ErrorKind::PermissionDenied => (Code::AccessDenied, "see who owns the file or folder"),
        ErrorKind::NotFound => (Code::NotFound, "see whether somebody removes files that are read"),
        _ => (Code::ExternalFailure, "see whether the disk is well"),
    };
    Error::new(code, error.to_string()).hint(hint)
}

/// Words by which DataFusion calls a defect of its own what is a matter of types: functions and operators that look
/// at them only when they run.
const OF_TYPES: [&str; 8] = [
    "match any signature",
    "unsupported data type",
    "unsupported datatype",
    "unexpected data type",
    "unexpected type",
    "does not support",
    "not supported for",
    "invalid argument type",
];
/// The same for a wrong number of arguments.
const OF_ARGUMENTS: [&str; 3] =
    ["does not accept arguments", "requires at least", "called with no arguments"];

fn from_internal(message: String) -> Error {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| lower.contains(words));
    if says(&OF_TYPES) {
        Error::new(Code::TypeMismatch, message).hint("CAST the values to types that it takes")
    } else if says(&OF_ARGUMENTS) {
        Error::new(Code::InvalidStatement, message)
    } else {
        Error::internal(message)
    }
}

/// How DataFusion's words about defects begin and end, wherever they are quoted.
const REPORT: (&str, &str) = ("This issue was likely caused by a bug in DataFusion", "datafusion/issues");

/// A message without DataFusion's request to report a defect to DataFusion: the code and the hint say whose it is.
pub(crate) fn plain(message: &str) -> String {
    let mut left = message.replace("Internal error: ", "");
    while let Some(begin) = left.find(REPORT.0) {
        let end = left[begin..].find(REPORT.1).map_or(left.len(), |at| begin + at + REPORT.1.len());
        // Quoted as text, the line's end is two letters.
        let before = left[..begin].trim_end().trim_end_matches("\\n").trim_end();
        left = format!("{before}{}", &left[end..]);
    }
    left.trim_end().to_owned()
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
            Error::new(Code::UnknownColumn, format!("no column `{}`", field.flat_name()))
                .suggest(&field.name, names.iter().map(String::as_str))
        }
        other => Error::new(Code::InvalidStatement, other.to_string()),
    }
}

fn from_plan(message: String) -> Error {
    let lower = message.to_lowercase();
    if lower.contains("match any signature") {
        Error::new(Code::TypeMismatch, message).hint("CAST the values to types that it takes")
    } else if lower.contains("table") && lower.contains("not found") {
        Error::new(Code::UnknownObject, message).hint("SHOW TABLES lists what there is")
    } else if lower.contains("coerce") || lower.contains("type") {
        Error::new(Code::TypeMismatch, message)
    } else {
        Error::new(Code::InvalidStatement, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn our_error_survives_the_way_through_datafusion() {
        let ours = Error::new(Code::NotFound, "no topic `x`").hint("create it");
        let wrapped = to_datafusion(ours.clone()).context("ingest");
        assert_eq!(from_datafusion(wrapped), ours.clone().context("ingest"));
        let deep = ArrowError::ExternalError(Box::new(to_datafusion(ours.clone())));
        let shared = DataFusionError::Shared(Arc::new(DataFusionError::from(deep)));
        assert_eq!(from_datafusion(shared), ours);
    }

    #[test]
    fn a_defect_is_said_once_and_what_is_none_is_told_apart() {
        let internal = |text: &str| DataFusionError::Internal(text.to_owned());
        let defect = from_datafusion(internal("Column index 1 out of bounds"));
        assert_eq!(
            defect.to_string(),
            "TM-3006: Column index 1 out of bounds; this is a defect; please report it"
        );
        let quoted = internal("Column index 1 out of bounds").to_string();
        assert!(quoted.contains("DataFusion"), "{quoted}");
        for text in [quoted.clone(), format!("{quoted:?}"), format!("before {quoted} after {quoted}")] {
            let error = from_datafusion(DataFusionError::External(text.into()));
            assert!(!error.message.contains("DataFusion"), "{error}");
            assert!(!error.message.contains("Internal error"), "{error}");
        }
        let signature = "Function 'trunc' failed to match any signature, errors: none";
        let planned = DataFusionError::Plan(internal(signature).to_string());
        for (error, code) in [
            (internal(signature), Code::TypeMismatch),
            (planned, Code::TypeMismatch),
            (internal("Unsupported data type Utf8 for function signum"), Code::TypeMismatch),
            (internal("random function does not accept arguments"), Code::InvalidStatement),
            (DataFusionError::Configuration("no such key".to_owned()), Code::BadOption),
            (DataFusionError::Substrait("no root".to_owned()), Code::InvalidStatement),
            (ParquetError::General("Invalid magic".to_owned()).into(), Code::BadData),
            (std::io::Error::from(ErrorKind::PermissionDenied).into(), Code::AccessDenied),
            (ArrowError::NotYetImplemented("that".to_owned()).into(), Code::Unsupported),
            // As a spilled batch that finds no room.
            (ArrowError::from(std::io::Error::from(ErrorKind::StorageFull)).into(), Code::NoSpace),
            (
                std::io::Error::other(format!("The {SPILL_LIMIT} has exceeded")).into(),
                Code::ResourcesExhausted,
            ),
        ] {
            let error = from_datafusion(error);
            assert_eq!(error.code, code, "{error}");
            assert!(!error.to_string().contains("bug"), "{error}");
        }
    }
}
