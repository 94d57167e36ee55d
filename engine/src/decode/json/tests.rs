use crate::decode::{Decoded, DecoderSpec, Format};
use arrow::array::{AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type,
    Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt64Type,
};
use arrow::json::LineDelimitedWriter;
use std::sync::Arc;
use tidemill_core::{Code, RawBatch};

fn raw(payloads: &[Option<&[u8]>]) -> RawBatch {
    let rows = i64::try_from(payloads.len()).unwrap();
    RawBatch {
        payload: BinaryArray::from_iter(payloads),
        position: Int64Array::from_iter_values(0..rows),
        timestamp_ms: Int64Array::new_null(payloads.len()),
    }
}

fn decode_bytes(fields: Vec<Field>, payloads: &[Option<&[u8]>]) -> Decoded {
    let mut decoder = DecoderSpec { format: Format::Json }.build(Arc::new(Schema::new(fields))).unwrap();
    let raw = raw(payloads);
    let first = decoder.decode(&raw).unwrap();
    // What it remembers of the first batch must not change the second.
    let again = decoder.decode(&raw).unwrap();
    assert_eq!(first.batch, again.batch);
    assert_eq!(first.rejected, again.rejected);
    let rows = first.batch.num_rows() + first.rejected.len();
    assert_eq!(rows, payloads.len(), "every raw row is good or rejected");
    first
}

fn decode(fields: Vec<Field>, payloads: &[&str]) -> Decoded {
    let payloads: Vec<Option<&[u8]>> = payloads.iter().map(|text| Some(text.as_bytes())).collect();
    decode_bytes(fields, &payloads)
}

fn one(data_type: DataType, values: &[&str]) -> Decoded {
    let payloads: Vec<String> = values.iter().map(|value| format!(r#"{{"v":{value}}}"#)).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    decode(vec![Field::new("v", data_type, true)], &payloads)
}

/// The single reason why a single record of one column `v` was refused.
fn refusal(data_type: DataType, value: &str) -> String {
    let mut decoded = one(data_type, &[value]);
    assert_eq!(decoded.rejected.len(), 1, "{value} was taken");
    decoded.rejected.remove(0).1
}

fn lines(batch: &RecordBatch) -> String {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap()
}

#[test]
fn integers_keep_their_limits_and_take_no_fraction() {
    let decoded = one(DataType::Int8, &["1", "-128", "127", "5.0", "1e2", "null", "-0"]);
    assert_eq!(
        decoded.batch.column(0).as_primitive::<Int8Type>().iter().collect::<Vec<_>>(),
        [Some(1), Some(-128), Some(127), Some(5), Some(100), None, Some(0)]
    );
    for wrong in ["128", "-129", "1e300", "123456789012345678901234567890"] {
        assert_eq!(
            refusal(DataType::Int8, wrong).split(", got").next(),
            Some("field `v`: expected Int8"),
            "{wrong}"
        );
    }
    assert_eq!(refusal(DataType::Int64, "1.5"), "field `v`: expected Int64, got the number 1.5");
    assert_eq!(refusal(DataType::Int32, "\"1\""), "field `v`: expected Int32, got string");
    let decoded = one(DataType::Int64, &["9223372036854775807", "-9223372036854775808"]);
    assert_eq!(decoded.batch.column(0).as_primitive::<Int64Type>().values(), &[i64::MAX, i64::MIN]);
    assert_eq!(one(DataType::Int64, &["9223372036854775808"]).rejected.len(), 1);
    let decoded = one(DataType::UInt64, &["18446744073709551615"]);
    assert_eq!(decoded.batch.column(0).as_primitive::<UInt64Type>().values(), &[u64::MAX]);
    assert_eq!(one(DataType::UInt64, &["-1", "18446744073709551616"]).rejected.len(), 2);
}

#[test]
fn floats_are_the_nearest_and_finite() {
    let texts = [
        "0.1",
        "-0.0",
        "19.9",
        "1e22",
        "1e23",
        "1.7976931348623157e308",
        "5e-324",
        "9007199254740993",
        "123456789012345678901234567890.5",
        "0.000000000000000000000000000001",
        "3",
        "1E5",
        "1e-400",
    ];
    let decoded = one(DataType::Float64, &texts);
    let values = decoded.batch.column(0).as_primitive::<Float64Type>().values();
    let expected: Vec<f64> = texts.iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(values.as_ref(), expected.as_slice());
    assert_eq!(
        refusal(DataType::Float64, "1e400"),
        "field `v`: expected Float64, got a number out of its range"
    );
    let decoded = one(DataType::Float32, &["0.5", "1e39"]);
    assert_eq!(decoded.batch.column(0).as_primitive::<Float32Type>().values(), &[0.5]);
    assert_eq!(decoded.rejected.len(), 1);
}

#[test]
fn decimals_come_as_numbers_or_strings() {
    let decoded = one(DataType::Decimal128(6, 2), &["1.25", "\"-19.99\"", "7", "99999.99", "\"x\""]);
    assert_eq!(decoded.batch.column(0).as_primitive::<Decimal128Type>().values(), &[125, -1999, 700]);
    assert_eq!(decoded.rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn booleans_are_words() {
    let decoded = one(DataType::Boolean, &["true", "false", "null", "1", "tru"]);
    let values: Vec<_> = decoded.batch.column(0).as_boolean().iter().collect();
    assert_eq!(values, [Some(true), Some(false), None]);
    assert_eq!(decoded.rejected[0].1, "field `v`: expected Boolean, got number");
    assert!(decoded.rejected[1].1.contains("malformed JSON"), "{:?}", decoded.rejected);
}

#[test]
fn times_come_as_rfc_3339_or_as_milliseconds() {
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let decoded = one(
        zoned,
        &[
            "\"2026-01-01T00:00:00Z\"",
            "\"2026-01-01T01:00:00.5+01:00\"",
            "1767225600123",
            "\"2026-01-01 00:00:00\"",
        ],
    );
    let column = decoded.batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let midnight = 1_767_225_600_000_000;
    assert_eq!(column.values(), &[midnight, midnight + 500_000, midnight + 123_000, midnight]);
    assert_eq!(column.timezone(), Some("UTC"));
    let nanos = one(DataType::Timestamp(TimeUnit::Nanosecond, None), &["1", "\"3000-01-01T00:00:00Z\""]);
    assert_eq!(nanos.batch.column(0).as_primitive::<TimestampNanosecondType>().values(), &[1_000_000]);
    assert_eq!(nanos.rejected.len(), 1);
    let millis = one(DataType::Timestamp(TimeUnit::Millisecond, None), &["\"3000-01-01T00:00:00Z\""]);
    assert_eq!(
        millis.batch.column(0).as_primitive::<TimestampMillisecondType>().values(),
        &[32_503_680_000_000]
    );
    let seconds = one(DataType::Timestamp(TimeUnit::Second, None), &["-1", "1999"]);
    assert_eq!(seconds.batch.column(0).as_primitive::<TimestampSecondType>().values(), &[-1, 1]);
    let reason = refusal(DataType::Timestamp(TimeUnit::Millisecond, None), "\"yesterday\"");
    assert_eq!(reason, "field `v`: expected Timestamp(ms) (an RFC 3339 time), got `yesterday`");
    assert!(refusal(DataType::Timestamp(TimeUnit::Millisecond, None), "1.5").contains("1.5"));
}

#[test]
fn dates_are_strings() {
    let decoded = one(DataType::Date32, &["\"1970-01-02\"", "\"2026-13-01\"", "3"]);
    assert_eq!(decoded.batch.column(0).as_primitive::<Date32Type>().values(), &[1]);
    assert_eq!(decoded.rejected.len(), 2);
}

#[test]
fn text_resolves_escapes_in_every_string_type() {
    let values = [
        r#""plain""#,
        r#""""#,
        r#""\"\\\/\b\f\n\r\t""#,
        r#""caf\u00e9 \ud83d\ude00 end""#,
        "\"größer als zwölf\"",
    ];
    let expected = ["plain", "", "\"\\/\u{8}\u{c}\n\r\t", "café 😀 end", "größer als zwölf"];
    let view = one(DataType::Utf8View, &values);
    assert_eq!(view.batch.column(0).as_string_view().iter().flatten().collect::<Vec<_>>(), expected);
    let small = one(DataType::Utf8, &values);
    assert_eq!(small.batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), expected);
    let large = one(DataType::LargeUtf8, &values);
    assert_eq!(large.batch.column(0).as_string::<i64>().iter().flatten().collect::<Vec<_>>(), expected);
    assert_eq!(refusal(DataType::Utf8, r#""\ud83d""#), "field `v`: half of a UTF-16 surrogate pair");
    assert_eq!(refusal(DataType::Utf8, r#""\ud83d\u0041""#), "field `v`: half of a UTF-16 surrogate pair");
    assert_eq!(refusal(DataType::Utf8, "{}"), "field `v`: expected Utf8, got object");
}

fn nested() -> Vec<Field> {
    let data = vec![
        Field::new("price", DataType::Float64, true),
        Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
    ];
    vec![Field::new("id", DataType::Int32, false), Field::new("data", DataType::Struct(data.into()), true)]
}

#[test]
fn structs_and_lists_nest_and_unknown_fields_are_ignored() {
    let decoded = decode(
        nested(),
        &[
            r#"{"id":1,"data":{"price":2.5,"more":{"a":[1,{"b":null}]},"tags":["x",null,"y"]},"z":[[]]}"#,
            r#" { "data" : null , "id" : 2 } "#,
            r#"{"id":3,"data":{"tags":[]}}"#,
            r#"{"id":4}"#,
        ],
    );
    assert!(decoded.good.is_none());
    assert_eq!(
        lines(&decoded.batch),
        "{\"id\":1,\"data\":{\"price\":2.5,\"tags\":[\"x\",null,\"y\"]}}\n\
         {\"id\":2}\n{\"id\":3,\"data\":{\"tags\":[]}}\n{\"id\":4}\n"
    );
}

#[test]
fn a_rejected_record_leaves_no_trace() {
    let decoded = decode(
        nested(),
        &[
            r#"{"id":1,"data":{"tags":["a"],"price":1}}"#,
            r#"{"id":2,"data":{"tags":["lost","lost"],"price":"cheap"}}"#,
            r#"{"data":{"tags":["lost"]}}"#,
            r#"{"id":null}"#,
            r#"{"id":5,"data":{"tags":["b",7]}}"#,
            r#"{"id":6,"data":{"tags":["c"]}"#,
            r#"{"id":7,"data":{"tags":["d"]}}"#,
        ],
    );
    assert_eq!(
        lines(&decoded.batch),
        "{\"id\":1,\"data\":{\"price\":1.0,\"tags\":[\"a\"]}}\n{\"id\":7,\"data\":{\"tags\":[\"d\"]}}\n"
    );
    assert_eq!(decoded.good.unwrap().values(), &[0, 6]);
    let reasons: Vec<(u32, &str)> = decoded.rejected.iter().map(|(row, why)| (*row, why.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (1, "field `data.price`: expected Float64, got string"),
            (2, "field `id`: missing or null, but declared NOT NULL"),
            (3, "field `id`: missing or null, but declared NOT NULL"),
            (4, "field `data.tags`: expected Utf8, got number"),
            (5, "malformed JSON at byte 29: expected `,` or `}`, got the end of the record"),
        ]
    );
}

#[test]
fn of_two_equal_keys_the_last_one_counts() {
    let fields = || {
        vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("l", DataType::new_list(DataType::Int32, true), true),
        ]
    };
    let decoded = decode(
        fields(),
        &[r#"{"a":"first","l":[1,2],"a":"second","l":[3]}"#, r#"{"a":"x","a":null}"#, r#"{"a":"y"}"#],
    );
    assert_eq!(lines(&decoded.batch), "{\"a\":\"second\",\"l\":[3]}\n{}\n{\"a\":\"y\"}\n");
}

#[test]
fn names_match_exactly_first_and_then_without_case() {
    let fields = || vec![Field::new("userid", DataType::Int32, true)];
    let decoded = decode(
        fields(),
        &[
            r#"{"userId":1}"#,
            r#"{"userId":1,"userid":2}"#,
            r#"{"userid":2,"USERID":3}"#,
            r#"{"user\u0069d":4}"#,
        ],
    );
    assert_eq!(decoded.batch.column(0).as_primitive::<Int32Type>().values(), &[1, 2, 2, 4]);
}

#[test]
fn key_order_may_change_from_record_to_record() {
    let fields = || vec![Field::new("a", DataType::Int32, true), Field::new("ab", DataType::Int32, true)];
    let decoded = decode(
        fields(),
        &[r#"{"a":1,"ab":2}"#, r#"{"ab":2,"a":1}"#, r#"{"x":0,"a":1,"ab":2}"#, r#"{"ab":2}"#],
    );
    assert_eq!(
        decoded.batch.column(0).as_primitive::<Int32Type>().iter().collect::<Vec<_>>(),
        [Some(1), Some(1), Some(1), None]
    );
    assert_eq!(decoded.batch.column(1).as_primitive::<Int32Type>().values(), &[2; 4]);
}

#[test]
fn everything_malformed_is_rejected_alone() {
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let wrong: Vec<&str> = vec![
        "",
        " ",
        "{",
        "}",
        "null",
        "[]",
        "1",
        "\"text\"",
        "hello",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1}{\"a\":2}",
        "{\"a\":1} x",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":+1}",
        "{\"a\":NaN}",
        "{\"x\":[1,]}",
        "{\"x\":[1}",
        "{\"x\":\"\\x\"}",
        "{\"x\":\"\\u12g4\"}",
        "{\"x\":\"a\nb\"}",
        "{\"x\":\"open}",
        "{\"x\":truth}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        &deep,
    ];
    let mut payloads = vec![r#"{"a":1}"#];
    payloads.extend(&wrong);
    payloads.push(r#"{"a":2}"#);
    let decoded = decode(vec![Field::new("a", DataType::Int32, true)], &payloads);
    assert_eq!(decoded.batch.column(0).as_primitive::<Int32Type>().values(), &[1, 2]);
    assert_eq!(decoded.rejected.len(), wrong.len());
    assert_eq!(decoded.rejected[4].1, "expected a JSON object, got null");
    assert_eq!(decoded.rejected.last().unwrap().1, "nested deeper than 128 levels");
}

#[test]
fn tombstones_and_bytes_that_are_no_text_are_rejected() {
    let payloads: [Option<&[u8]>; 4] =
        [None, Some(b"{\"a\":\"\xff\"}"), Some(b"{\"x\":\"\xc3\"}"), Some("{\"a\":\"é\"}".as_bytes())];
    let decoded = decode_bytes(vec![Field::new("a", DataType::Utf8View, true)], &payloads);
    assert_eq!(decoded.good.unwrap().values(), &[3]);
    let reasons: Vec<&str> = decoded.rejected.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(reasons, ["no payload", "not UTF-8", "not UTF-8"]);
}

#[test]
fn no_columns_still_count_the_good_records() {
    let decoded = decode(Vec::new(), &["{}", "{\"a\":1}", "{"]);
    assert_eq!((decoded.batch.num_rows(), decoded.rejected.len()), (2, 1));
}

#[test]
fn a_slice_of_a_batch_decodes_as_itself() {
    let whole = raw(&[Some(b"{\"a\":1}"), Some(b"{\"a\":2}"), Some(b"{\"a\":3}")]);
    let slice = RawBatch {
        payload: whole.payload.slice(1, 1),
        position: whole.position.slice(1, 1),
        timestamp_ms: whole.timestamp_ms.slice(1, 1),
    };
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
    let decoded = DecoderSpec { format: Format::Json }.build(schema).unwrap().decode(&slice).unwrap();
    assert_eq!(decoded.batch.column(0).as_primitive::<Int32Type>().values(), &[2]);
}

#[test]
fn a_type_that_json_cannot_give_is_refused_by_name() {
    let schema = Schema::new(vec![Field::new("blob", DataType::Binary, true)]);
    let error = DecoderSpec { format: Format::Json }.build(Arc::new(schema)).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.message.contains("`blob`"), "{error}");
}

/// Whatever bytes come, the outcome is that of a reference parser: refused or taken.
#[test]
fn agrees_with_serde_json_about_what_is_well_formed() {
    let seed = r#"{"event_id":"7d0c\u00e9","n":-12.5e3,"data":{"p":[1,true,null],"q":{}},"t":false}"#;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    const BYTES: &[u8] = b"{}[]\":,\\ue0-+.1 tfn\n\xc3";
    let mutants: Vec<Vec<u8>> = (0..20_000)
        .map(|_| {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] = BYTES[random(BYTES.len())],
                    1 => bytes.insert(at, BYTES[random(BYTES.len())]),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
        .collect();
    let payloads: Vec<Option<&[u8]>> = mutants.iter().map(|bytes| Some(bytes.as_slice())).collect();
    let decoded = decode_bytes(Vec::new(), &payloads);
    let rejected: std::collections::BTreeSet<u32> = decoded.rejected.iter().map(|(row, _)| *row).collect();
    let mut taken = 0;
    for (row, bytes) in (0u32..).zip(&mutants) {
        // It skips strings without a look at their encoding.
        let reference = serde_json::from_slice::<serde::de::IgnoredAny>(bytes);
        let reference = reference.is_ok() && std::str::from_utf8(bytes).is_ok();
        let object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        assert_eq!(!rejected.contains(&row), reference && object, "{}", String::from_utf8_lossy(bytes));
        taken += usize::from(reference);
    }
    assert!(taken > 1000, "{taken} well-formed mutants are too few to tell");
}
