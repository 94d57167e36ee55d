//! delta-rs' errors in our words.

use datafusion::common::DataFusionError;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::TransactionError;
use std::error::Error as StdError;
use tidemill_core::{Code, Error};
use tidemill_engine::from_datafusion;
use url::Url;

/// Says what went wrong at the table `location`.
pub(super) fn from_delta(error: DeltaTableError, location: &Url) -> Error {
    let place = format!("Delta table {location}");
    match error {
        DeltaTableError::ObjectStore { source } => Error::from(source),
        DeltaTableError::Transaction { source: TransactionError::ObjectStore { source } } => {
            Error::from(source)
        }
        DeltaTableError::Arrow { source } => Error::from(source),
        other => {
            let message = other.to_string();
            let error = Error::new(code(&other, &message), message);
            match error.code {
                Code::NotFound => error.hint("there is no Delta table here; create it first"),
                _ => error,
            }
        }
    }
    .context(place)
}

fn code(error: &DeltaTableError, message: &str) -> Code {
    match error {
        DeltaTableError::NotATable(_) | DeltaTableError::InvalidTableLocation(_) => Code::NotFound,
        DeltaTableError::VersionAlreadyExists(_) => Code::Conflict,
        DeltaTableError::Transaction { source } => match source {
            TransactionError::VersionAlreadyExists(_)
            | TransactionError::CommitConflict(_)
            | TransactionError::MaxCommitAttempts(_) => Code::Conflict,
            TransactionError::UnsupportedTableFeatures(_)
            | TransactionError::TableFeaturesRequired(_)
            | TransactionError::DeltaTableAppendOnly => Code::Unsupported,
            _ => Code::ExternalFailure,
        },
        DeltaTableError::SchemaMismatch { .. } => Code::TypeMismatch,
        DeltaTableError::InvalidData { .. } => Code::BadData,
        DeltaTableError::UnsupportedColumnMapping { .. } => Code::Unsupported,
        DeltaTableError::InvalidJsonLog { .. } | DeltaTableError::InvalidStatsJson { .. } => Code::Corrupt,
        // The kernel's errors can be told apart by their text only.
        DeltaTableError::KernelError(_) if message.contains("nsupported") => Code::Unsupported,
        DeltaTableError::KernelError(_) if message.contains("No files in log segment") => Code::NotFound,
        _ => by_cause(error).unwrap_or(Code::ExternalFailure),
    }
}

/// The store's own error may be several layers down: Parquet's and the kernel's errors wrap it.
fn by_cause(error: &(dyn StdError + 'static)) -> Option<Code> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(store) = error.downcast_ref::<object_store::Error>() {
            use object_store::Error as E;
            return match store {
                E::NotFound { .. } => Some(Code::NotFound),
                E::PermissionDenied { .. } | E::Unauthenticated { .. } => Some(Code::AccessDenied),
                other if other.to_string().contains("No space left") => Some(Code::NoSpace),
                _ => Some(Code::ExternalFailure),
            };
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::StorageFull
        {
            return Some(Code::NoSpace);
        }
        cause = error.source();
    }
    None
}

/// For places that only know DataFusion's error.
pub(super) fn from_df(error: DataFusionError, location: &Url) -> Error {
    from_datafusion(error).context(format!("Delta table {location}"))
}
