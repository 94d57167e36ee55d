//! Session options: `SetSessionOptions` and `GetSessionOptions`, over the session's `SET` variables.
//!
//! `catalog` and `schema` are names that drivers use; all others are variables as `SHOW ALL` lists them. The same
//! names may come as headers, which is what JDBC makes of the parameters of a URL that it does not know.

use super::connection::ClientSession;
use crate::frontend::api::Frontend;
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;
use tonic::metadata::MetadataMap;

const CATALOG: &str = "catalog";
/// Headers that set a variable. Others of a client's headers mean something else.
const HEADERS: [&str; 5] = [CATALOG, "schema", "engine", "statement_timeout", "result_compression"];

/// Variables by name, as headers ask for them.
pub(super) type Wanted = BTreeMap<String, String>;

pub(super) fn of_headers(headers: &MetadataMap) -> Wanted {
    let given = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
    HEADERS.into_iter().filter_map(given).collect()
}

// Messages of Flight.proto that arrow-flight has not.

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, Message)]
struct OptionError {
    #[prost(int32, tag = "1")]
    value: i32,
}

const INVALID_NAME: i32 = 1;
const INVALID_VALUE: i32 = 2;
const OTHER: i32 = 3;

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Float(f64),
    #[prost(message, tag = "5")]
    List(TextList),
}

#[derive(Clone, PartialEq, Message)]
struct TextList {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

impl OptionValue {
    /// As `SET` takes it; `None` puts the default back.
    fn text(self) -> Option<String> {
        Some(match self.value? {
            Value::Text(text) => text,
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::List(list) => list.values.join(","),
        })
    }
}

/// Sets what can be set; what cannot is named in the result.
pub(super) async fn set(
    session: &ClientSession,
    frontend: &dyn Frontend,
    request: SetSessionOptionsRequest,
) -> Result<SetSessionOptionsResult> {
    session.id().await?;
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        if let Err(error) = set_one(session, frontend, &name, value.text().as_deref()).await {
            let value = match error.code {
                Code::Syntax => INVALID_NAME,
                Code::BadOption if error.message.starts_with("no variable") => INVALID_NAME,
                Code::BadOption | Code::UnknownObject => INVALID_VALUE,
                _ => OTHER,
            };
            tracing::debug!(name, %error, "a session option is refused");
            errors.insert(name, OptionError { value });
        }
    }
    Ok(SetSessionOptionsResult { errors })
}

pub(super) async fn get(session: &ClientSession, frontend: &dyn Frontend) -> Result<GetSessionOptionsResult> {
    let answer = frontend.execute(session.id().await?, "SHOW ALL", None).await?;
    let mut session_options = HashMap::new();
    let mut put = |name: &str, value: &str| {
        let value = Some(Value::Text(value.to_owned()));
        session_options.insert(name.to_owned(), OptionValue { value });
    };
    let batches: Vec<_> = answer.stream.try_collect().await.map_err(from_datafusion)?;
    for batch in batches {
        let (names, values) =
            (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Utf8)?);
        let (names, values) = (names.as_string::<i32>(), values.as_string::<i32>());
        for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
            put(names.value(row), values.value(row));
        }
    }
    if let Some(first) = frontend.schemas(session.id().await?).await?.first() {
        put(CATALOG, &first.catalog);
    }
    Ok(GetSessionOptionsResult { session_options })
}

/// Sets one variable of the session, or puts its default back.
pub(super) async fn set_one(
    session: &ClientSession,
    frontend: &dyn Frontend,
    name: &str,
    value: Option<&str>,
) -> Result<()> {
    let id = session.opened().await?;
    if name == CATALOG {
        let schemas = frontend.schemas(id).await?;
        return match value {
            Some(value) if !schemas.iter().any(|schema| schema.catalog == value) => {
                Err(Error::new(Code::UnknownObject, format!("no catalog `{value}`"))
                    .suggest(value, schemas.iter().map(|schema| schema.catalog.as_str())))
            }
            _ => Ok(()),
        };
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(Error::new(Code::Syntax, format!("no variable has the name `{name}`")));
    }
    let statement = match value {
        Some(value) => format!("SET {name} = '{}'", value.replace('\'', "''")),
        None => format!("RESET {name}"),
    };
    frontend.execute(id, &statement, None).await?.affected_rows().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_text_in_the_end() {
        let text = |value| OptionValue { value }.text();
        assert_eq!(text(Some(Value::Text("a".to_owned()))).as_deref(), Some("a"));
        assert_eq!(text(Some(Value::Bool(true))).as_deref(), Some("true"));
        assert_eq!(text(Some(Value::Integer(-1))).as_deref(), Some("-1"));
        assert_eq!(text(Some(Value::Float(0.5))).as_deref(), Some("0.5"));
        let list = TextList { values: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(text(Some(Value::List(list))).as_deref(), Some("a,b"));
        assert_eq!(text(None), None);
    }

    #[test]
    fn integers_have_eight_bytes_as_other_clients_send_them() {
        let value = OptionValue { value: Some(Value::Integer(7)) };
        assert_eq!(value.encode_to_vec(), [0x19, 7, 0, 0, 0, 0, 0, 0, 0]);
    }
}
