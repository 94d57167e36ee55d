//! Our error as a gRPC status and back: the message for people, the structure in a header.

use tidemill_core::{Code, Error};
use tonic::metadata::MetadataValue;
use tonic::{Code as Grpc, Status};

/// The error as JSON, in the status' metadata.
pub const ERROR_HEADER: &str = "tidemill-error";

/// HTTP/2 peers refuse header lists beyond 16 KiB or less, and then nothing of the error arrives.
const MAX_MESSAGE_BYTES: usize = 2_000;
const MAX_DETAILS_BYTES: usize = 5_000;

fn grpc_code(code: Code) -> Grpc {
    match code {
        Code::Syntax
        | Code::UnknownColumn
        | Code::TypeMismatch
        | Code::BadOption
        | Code::InvalidStatement
        | Code::BadData => Grpc::InvalidArgument,
        Code::UnknownObject | Code::NotFound => Grpc::NotFound,
        Code::AlreadyExists => Grpc::AlreadyExists,
        Code::Unsupported => Grpc::Unimplemented,
        Code::Config | Code::ExpectationFailed | Code::ReconciliationFailed | Code::Fenced => {
            Grpc::FailedPrecondition
        }
        Code::Unauthenticated => Grpc::Unauthenticated,
        Code::Cancelled => Grpc::Cancelled,
        Code::Unreachable | Code::WorkerLost | Code::NoExecutors | Code::TooManyJobs => Grpc::Unavailable,
        Code::AccessDenied => Grpc::PermissionDenied,
        Code::PositionLost | Code::Corrupt => Grpc::DataLoss,
        Code::Conflict => Grpc::Aborted,
        Code::NoSpace | Code::ResourcesExhausted => Grpc::ResourceExhausted,
        Code::ExternalFailure => Grpc::Unknown,
        Code::Internal => Grpc::Internal,
    }
}

pub fn to_status(error: &Error) -> Status {
    let mut status = Status::new(grpc_code(error.code), shortened(&error.to_string(), MAX_MESSAGE_BYTES));
    if let Some(value) = details(error) {
        status.metadata_mut().insert(ERROR_HEADER, value);
    }
    status
}

fn details(error: &Error) -> Option<MetadataValue<tonic::metadata::Ascii>> {
    let mut json = ascii(&serde_json::to_string(error).ok()?);
    if json.len() > MAX_DETAILS_BYTES {
        let mut short = error.clone();
        short.message = shortened(&error.message, MAX_MESSAGE_BYTES / 2);
        short.hint = error.hint.as_deref().map(|hint| shortened(hint, MAX_MESSAGE_BYTES / 4));
        short.context.clear();
        json = ascii(&serde_json::to_string(&short).ok()?);
    }
    json.parse().ok()
}

/// JSON with everything beyond ASCII escaped, as headers demand.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} …", &text[..end])
}

/// The error that the other side raised, or what its status says when it is not one of ours.
pub fn to_error(status: &Status) -> Error {
    let header = status.metadata().get(ERROR_HEADER).and_then(|value| value.to_str().ok());
    if let Some(error) = header.and_then(|json| serde_json::from_str(json).ok()) {
        return error;
    }
    let code = match status.code() {
        Grpc::Unavailable | Grpc::DeadlineExceeded => Code::Unreachable,
        Grpc::Unauthenticated => Code::Unauthenticated,
        Grpc::Cancelled => Code::Cancelled,
        Grpc::Unimplemented => Code::Unsupported,
        Grpc::InvalidArgument => Code::InvalidStatement,
        Grpc::NotFound => Code::UnknownObject,
        Grpc::PermissionDenied => Code::AccessDenied,
        _ => Code::ExternalFailure,
    };
    Error::new(code, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was_raised() {
        let error = Error::new(Code::UnknownColumn, "no column `größe`")
            .hint("did you mean `grösse` 🦀?")
            .context("query");
        let status = to_status(&error);
        assert_eq!(status.code(), Grpc::InvalidArgument);
        assert_eq!(status.message(), error.to_string());
        assert_eq!(to_error(&status), error);
    }

    #[test]
    fn a_long_error_stays_below_the_header_limits() {
        let error = Error::new(Code::Internal, "é".repeat(50_000)).hint("x".repeat(9_000));
        let status = to_status(&error);
        assert!(status.message().len() <= MAX_MESSAGE_BYTES + 4);
        let back = to_error(&status);
        assert_eq!(back.code, Code::Internal);
        assert!(back.message.starts_with("éé") && back.message.len() < 1_100);
    }
}
