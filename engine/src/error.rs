//! Between our structural error and DataFusion's.

use datafusion::common::{DataFusionError, SchemaError};
use tidemill_core::{Code, Error};

/// Carries our error through DataFusion, whole.
pub fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Finds our error inside DataFusion's, or says by DataFusion's variant whose fault it is.
pub fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(error) => from_datafusion(*error),
                Err(other) => Error::new(Code::ExternalFailure, other.to_string()),
            },
        },
        DataFusionError::Context(context, inner) => from_datafusion(*inner).context(context),
        DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner),
        DataFusionError::Shared(inner) => from_shared(&inner),
        DataFusionError::ArrowError(error, _) => Error::from(*error),
        DataFusionError::SchemaError(error, _) => from_schema(*error),
        DataFusionError::SQL(error, _) => {
            Error::new(Code::Syntax, error.to_string().replace("sql parser error: ", ""))
        }
        DataFusionError::Plan(message) => from_plan(message),
        DataFusionError::NotImplemented(message) => Error::new(Code::Unsupported, message),
        DataFusionError::ResourcesExhausted(message) => Error::new(Code::ResourcesExhausted, message)
            .hint("raise engine.memory_limit_bytes, read less, or SET engine = 'staged'"),
        DataFusionError::ObjectStore(error) => Error::from(*error),
        DataFusionError::IoError(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Error::new(Code::NoSpace, error.to_string()).hint("free some space and try again")
        }
        DataFusionError::Execution(message) => Error::new(Code::BadData, message),
        DataFusionError::Collection(mut errors) if !errors.is_empty() => {
            from_datafusion(errors.swap_remove(0))
        }
        other => Error::internal(other.strip_backtrace()),
    }
}

/// A shared error cannot be taken apart, only looked at.
fn from_shared(error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => error.clone(),
            None => Error::new(Code::ExternalFailure, inner.to_string()),
        },
        DataFusionError::Plan(message) => from_plan(message.clone()),
        DataFusionError::ResourcesExhausted(message) => Error::new(Code::ResourcesExhausted, message.clone()),
        DataFusionError::Execution(message) => Error::new(Code::BadData, message.clone()),
        other => Error::internal(other.strip_backtrace()),
    }
}

fn from_schema(error: SchemaError) -> Error {
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
    if lower.contains("table") && lower.contains("not found") {
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

    #[test]
    fn our_error_survives_the_way_through_datafusion() {
        let ours = Error::new(Code::NotFound, "no topic `x`").hint("create it");
        let wrapped = to_datafusion(ours.clone()).context("ingest");
        assert_eq!(from_datafusion(wrapped), ours.context("ingest"));
    }
}
