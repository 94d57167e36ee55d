//! Why records fail that neither lack a table nor are only told in other words. What is not in here is listed as not
//! explained, record by record.

struct Cause {
    files: &'static [&'static str],
    /// In what happened, the statement or its error. Empty is in all of them.
    words: &'static str,
    because: &'static str,
}

const CAUSES: &[Cause] = &[
    Cause {
        files: &[
            "spark/array/array_contains.slt",
            "spark/datetime/date_part.slt",
            "spark/datetime/date_trunc.slt",
            "spark/datetime/trunc.slt",
            "spark/math/abs.slt",
            "spark/math/ceil.slt",
            "spark/math/factorial.slt",
            "spark/math/floor.slt",
            "spark/math/pow.slt",
            "spark/math/round.slt",
            "spark/string/ascii.slt",
            "spark/string/concat.slt",
            "spark/string/concat_ws.slt",
            "spark/string/substring.slt",
        ],
        words: "",
        because: "DataFusion has a function of this name too, which ours never replace (engine/src/functions)",
    },
    Cause {
        files: &["joins.slt"],
        words: "another order SELECT * FROM (\n    SELECT * from left_table_append_null_build",
        because: "no order is asked for, but of rows that are joined afterwards, and these come from several tasks",
    },
    Cause {
        files: &["spark/predicate/ilike.slt", "spark/predicate/like.slt"],
        words: "Invalid function",
        because: "LIKE and ILIKE are operators; in Substrait functions of these names would be taken for them",
    },
    Cause {
        files: &["spark/string/len.slt"],
        words: "Invalid function 'len'",
        because: "it is another name of Spark's `length`, and DataFusion has a function of that name",
    },
    Cause {
        files: &["async_udf.slt"],
        words: "async_abs",
        because: "DataFusion's own runner makes the function, in Rust",
    },
    Cause {
        files: &["avro.slt", "repartition_scan.slt"],
        words: "format AVRO",
        because: "this build reads no Avro files",
    },
    Cause {
        files: &["cast_extension_type_metadata.slt"],
        words: "Unsupported SQL type UUID",
        because: "DataFusion's own runner gives its session the type UUID",
    },
    Cause {
        files: &["ddl.slt"],
        words: "SELECT * FROM my_table order by c1 LIMIT 1",
        because: "the file that it is made of is not published with the tests, and its schema is given: it is empty",
    },
    Cause {
        files: &["ddl.slt"],
        words: "information_schema.columns where table_name='empty'",
        because: "the file that the table is over is not published with the tests",
    },
    Cause {
        files: &["dynamic_file.slt"],
        words: "not found",
        because: "DataFusion's own runner allows paths as tables in this file; a session of ours has no such tables",
    },
    Cause {
        files: &["encrypted_parquet.slt"],
        words: "SELECT * FROM parquet_table",
        because: "this build does not encrypt Parquet files, and DataFusion then writes them in the clear without a word",
    },
    Cause {
        files: &["information_schema.slt"],
        words: "SHOW ALL",
        because: "a session of ours begins with some settings of its own (engine/src/session.rs)",
    },
    Cause {
        files: &["information_schema_columns.slt"],
        words: "my_catalog",
        because: "DataFusion's own runner makes the catalog, in Rust",
    },
    Cause {
        files: &["information_schema_columns.slt"],
        words: "information_schema.columns",
        because: "DataFusion's own runner makes the catalog, in Rust",
    },
    Cause {
        files: &["information_schema_table_types.slt"],
        words: "information_schema.tables",
        because: "DataFusion's own runner makes the table `temp` that is listed, in Rust",
    },
    Cause {
        files: &["operator.slt"],
        words: "decimal / decimal",
        because: "a quotient of decimals has the digits that Spark gives it (engine/src/functions/decimals)",
    },
    Cause {
        files: &["null_aware_anti_join.slt"],
        words: "inner_table_no_null",
        because: "NULL is not known to be outside of a query's rows, as in SQL; DataFusion's join takes it for outside",
    },
    Cause {
        files: &["spark/math/sec.slt"],
        words: "sec(a)",
        because: "the last digit of a cosine is the machine's",
    },
    Cause {
        files: &["arrow_field.slt"],
        words: "arrow_field(x)",
        because: "as a Parquet file; where all values of a column are one, DataFusion's scan has a constant for it",
    },
];

/// `text` is what happened, the statement and its error.
pub(crate) fn known(file: &str, text: &str) -> Option<&'static str> {
    let applies = |cause: &&Cause| cause.files.contains(&file) && text.contains(cause.words);
    CAUSES.iter().find(applies).map(|cause| cause.because)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_of_its_files_and_words() {
        assert!(known("spark/math/abs.slt", "another answer SELECT abs(a)").is_some());
        assert!(known("operator.slt", "another answer SELECT arrow_typeof(decimal / decimal)").is_some());
        assert_eq!(known("operator.slt", "another answer SELECT 1 / 2"), None);
        assert_eq!(known("math.slt", "another answer SELECT abs(a)"), None);
    }
}
