"""Writes a zoo of small Delta tables with Spark, and beside each the rows that Spark reads from it.

    write_tables.py FOLDER --jars FOLDER_OF_JARS [--only NAME …]

FOLDER gets a folder for each table and `expected.json`: a list of {table, sql, rows}, where `sql` reads `{t}`. Rows are
compared as text. The test `interop` of the scheduler crate runs the same queries with Tidemill.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

DV = "'delta.enableDeletionVectors' = 'true'"
CDF = "'delta.enableChangeDataFeed' = 'true'"
PLAIN = "'delta.enableDeletionVectors' = 'false'"


def mapping(mode: str) -> str:
    return f"'delta.columnMapping.mode' = '{mode}', {PLAIN}"


@dataclass
class Table:
    name: str
    # `{t}` is the table; a statement ends with a commit or does nothing.
    statements: list[str]
    # What both engines read in the same words …
    queries: list[str] = field(default_factory=list)
    # … and what Spark says in other words than Tidemill: (Tidemill's, Spark's).
    pairs: list[tuple[str, str]] = field(default_factory=list)


SOME = "SELECT id, concat('name ', id) AS name, id % 3 AS grp, CAST(id AS DOUBLE) / 4 AS x FROM range({n})"
TABLES = [
    Table(
        "plain_partitioned",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING, grp BIGINT, x DOUBLE) USING delta "
            f"PARTITIONED BY (grp) TBLPROPERTIES ({PLAIN})",
            "INSERT INTO {t} " + SOME.format(n=20),
            "INSERT INTO {t} VALUES (100, NULL, NULL, NULL)",
            "UPDATE {t} SET name = 'changed' WHERE id = 7",
            "DELETE FROM {t} WHERE grp = 1",
        ],
        [
            "SELECT id, name, grp, x FROM {t} ORDER BY id",
            "SELECT count(*) FROM {t} WHERE grp IS NULL",
            "SELECT count(*) AS n FROM {t} VERSION AS OF 1",
            "SELECT count(*), sum(id) FROM {t} VERSION AS OF 2",
            "SELECT name FROM {t} VERSION AS OF 3 WHERE id = 7",
        ],
    ),
    Table(
        "deletion_vectors",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING, grp BIGINT, x DOUBLE) USING delta TBLPROPERTIES ({DV})",
            "INSERT INTO {t} " + SOME.format(n=1000),
            "INSERT INTO {t} SELECT id + 1000, concat('later ', id), id % 3, NULL FROM range(10)",
            "DELETE FROM {t} WHERE id % 10 = 3",
            "DELETE FROM {t} WHERE id >= 500 AND id < 900",
            "UPDATE {t} SET name = 'changed' WHERE id = 44",
        ],
        [
            "SELECT count(*) FROM {t}",
            "SELECT count(*), min(id), max(id), sum(id), count(x) FROM {t}",
            "SELECT id, name FROM {t} WHERE id > 480 AND id < 910 ORDER BY id",
            "SELECT grp, count(*) FROM {t} GROUP BY grp ORDER BY grp",
            "SELECT id FROM {t} WHERE name = 'changed'",
            "SELECT count(*) FROM {t} WHERE id % 10 = 3",
            "SELECT count(*) FROM {t} VERSION AS OF 2",
            "SELECT count(*) FROM {t} VERSION AS OF 3",
        ],
    ),
    Table(
        "deletion_vectors_partitioned",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING, grp BIGINT, x DOUBLE) USING delta PARTITIONED BY (grp) "
            f"TBLPROPERTIES ({DV})",
            "INSERT INTO {t} " + SOME.format(n=60),
            "DELETE FROM {t} WHERE id IN (0, 3, 4, 59)",
        ],
        [
            "SELECT grp, count(*), sum(id) FROM {t} GROUP BY grp ORDER BY grp",
            "SELECT id, grp FROM {t} WHERE grp = 0 AND id < 12 ORDER BY id",
            "SELECT count(*) FROM {t}",
        ],
    ),
    *(
        Table(
            f"mapping_{mode}",
            [
                f"CREATE TABLE {{t}} (id BIGINT, `the name` STRING, day DATE, n INT) USING delta PARTITIONED BY (day) "
                f"TBLPROPERTIES ({mapping(mode)})",
                "INSERT INTO {t} VALUES (1, 'a', DATE '2026-01-01', 10), (2, 'b', DATE '2026-01-02', 20)",
                "ALTER TABLE {t} RENAME COLUMN `the name` TO `the, label`",
                "INSERT INTO {t} VALUES (3, 'c', DATE '2026-01-02', 30), (4, NULL, NULL, 40)",
                "ALTER TABLE {t} DROP COLUMN n",
                "ALTER TABLE {t} ADD COLUMN n STRING",
                "ALTER TABLE {t} RENAME COLUMN day TO date",
                "INSERT INTO {t} VALUES (5, 'e', DATE '2026-01-03', 'new')",
            ],
            ["SELECT count(*) FROM {t}", "SELECT id, date, n FROM {t} WHERE date = DATE '2026-01-02' ORDER BY id"],
            [
                (
                    'SELECT id, "the, label", date, n FROM {t} ORDER BY id',
                    "SELECT id, `the, label`, date, n FROM {t} ORDER BY id",
                ),
                (
                    "SELECT id FROM {t} WHERE \"the, label\" = 'c'",
                    "SELECT id FROM {t} WHERE `the, label` = 'c'",
                ),
                (
                    'SELECT "the name", n FROM {t} VERSION AS OF 1 WHERE id > 1',
                    "SELECT `the name`, n FROM {t} VERSION AS OF 1 WHERE id > 1",
                ),
            ],
        )
        for mode in ("name", "id")
    ),
    Table(
        "mapping_nested",
        [
            f"CREATE TABLE {{t}} (id INT, s STRUCT<a: INT, b: STRUCT<c: STRING>>, l ARRAY<STRUCT<u: INT, v: STRING>>, "
            f"m MAP<STRING, STRUCT<k: INT>>) USING delta TBLPROPERTIES ({mapping('name')})",
            "INSERT INTO {t} VALUES (1, named_struct('a', 1, 'b', named_struct('c', 'x')), "
            "array(named_struct('u', 1, 'v', 'p'), named_struct('u', 2, 'v', 'q')), map('one', named_struct('k', 1)))",
            "ALTER TABLE {t} RENAME COLUMN s.b.c TO renamed",
            "ALTER TABLE {t} ADD COLUMN s.d INT",
            "INSERT INTO {t} VALUES (2, named_struct('a', 2, 'b', named_struct('renamed', 'y'), 'd', 7), NULL, NULL)",
        ],
        [],
        [
            (
                "SELECT id, s['a'], s['b']['renamed'], s['d'], l[1]['v'], m['one']['k'] FROM {t} ORDER BY id",
                "SELECT id, s.a, s.b.renamed, s.d, l[0].v, m['one'].k FROM {t} ORDER BY id",
            ),
            (
                "SELECT id FROM {t} WHERE s['b']['renamed'] = 'y'",
                "SELECT id FROM {t} WHERE s.b.renamed = 'y'",
            ),
        ],
    ),
    Table(
        "mapping_with_deletion_vectors",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING, grp BIGINT) USING delta PARTITIONED BY (grp) "
            f"TBLPROPERTIES ('delta.columnMapping.mode' = 'name', {DV})",
            "INSERT INTO {t} SELECT id, concat('name ', id), id % 2 FROM range(100)",
            "DELETE FROM {t} WHERE id % 4 = 1",
            "ALTER TABLE {t} RENAME COLUMN name TO label",
        ],
        [
            "SELECT grp, count(*), min(label), sum(id) FROM {t} GROUP BY grp ORDER BY grp",
            "SELECT id, label FROM {t} WHERE grp = 1 AND id < 10 ORDER BY id",
            "SELECT count(*) FROM {t}",
        ],
    ),
    Table(
        "upgraded_to_mapping",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING) USING delta TBLPROPERTIES ({PLAIN})",
            "INSERT INTO {t} VALUES (1, 'a')",
            "ALTER TABLE {t} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
            "ALTER TABLE {t} RENAME COLUMN name TO label",
            "INSERT INTO {t} VALUES (2, 'b')",
        ],
        ["SELECT id, label FROM {t} ORDER BY id", "SELECT id FROM {t} WHERE label = 'a'"],
    ),
    Table(
        "checkpoint_v2",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING) USING delta "
            f"TBLPROPERTIES ({DV}, 'delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '3')",
            *[f"INSERT INTO {{t}} VALUES ({n}, 'row {n}')" for n in range(4)],
            "DELETE FROM {t} WHERE id = 2",
        ],
        ["SELECT id, name FROM {t} ORDER BY id", "SELECT count(*) FROM {t} VERSION AS OF 3"],
    ),
    Table(
        "checkpoint_v1",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING, day DATE) USING delta PARTITIONED BY (day) "
            f"TBLPROPERTIES ({PLAIN}, 'delta.checkpointInterval' = '3', 'delta.checkpoint.writeStatsAsStruct' = 'true')",
            *[f"INSERT INTO {{t}} VALUES ({n}, 'row {n}', DATE '2026-01-0{n + 1}')" for n in range(4)],
        ],
        ["SELECT id, name, day FROM {t} ORDER BY id", "SELECT id FROM {t} WHERE day > DATE '2026-01-02' ORDER BY id"],
    ),
    Table(
        "timestamp_ntz",
        [
            f"CREATE TABLE {{t}} (id INT, at TIMESTAMP, wall TIMESTAMP_NTZ) USING delta TBLPROPERTIES ({PLAIN})",
            "INSERT INTO {t} VALUES (1, TIMESTAMP '2026-01-01 12:00:00.123456', TIMESTAMP_NTZ '2026-01-01 12:00:00.5'),"
            " (2, NULL, NULL)",
        ],
        ["SELECT id FROM {t} WHERE wall > TIMESTAMP '2026-01-01 12:00:00' ORDER BY id"],
        [
            (
                "SELECT id, to_char(at, '%Y-%m-%d %H:%M:%S%.6f'), to_char(wall, '%Y-%m-%d %H:%M:%S%.6f') FROM {t} "
                "ORDER BY id",
                "SELECT id, date_format(at, 'yyyy-MM-dd HH:mm:ss.SSSSSS'), "
                "date_format(wall, 'yyyy-MM-dd HH:mm:ss.SSSSSS') FROM {t} ORDER BY id",
            )
        ],
    ),
    Table(
        "in_commit_timestamps",
        [
            f"CREATE TABLE {{t}} (id INT) USING delta "
            f"TBLPROPERTIES ({PLAIN}, 'delta.enableInCommitTimestamps' = 'true')",
            "INSERT INTO {t} VALUES (1)",
            "INSERT INTO {t} VALUES (2)",
        ],
        ["SELECT id FROM {t} ORDER BY id", "SELECT id FROM {t} VERSION AS OF 1"],
    ),
    *(
        Table(
            name,
            [
                f"CREATE TABLE {{t}} (id BIGINT, name STRING, grp BIGINT) USING delta PARTITIONED BY (grp) "
                f"TBLPROPERTIES ({CDF}, {more})",
                "INSERT INTO {t} SELECT id, concat('name ', id), id % 2 FROM range(10)",
                "UPDATE {t} SET name = 'changed' WHERE id = 4",
                "DELETE FROM {t} WHERE id IN (1, 2)",
                "DELETE FROM {t} WHERE grp = 1",
                "INSERT INTO {t} VALUES (20, 'last', 0)",
            ],
            ["SELECT id, name, grp FROM {t} ORDER BY id"],
            [
                (
                    f"SELECT id, name, grp, _change_type, _commit_version FROM table_changes('{{t}}', {versions}) "
                    f"ORDER BY _commit_version, id, _change_type",
                    f"SELECT id, name, grp, _change_type, _commit_version FROM table_changes('{{name}}', {versions}) "
                    f"ORDER BY _commit_version, id, _change_type",
                )
                for versions in ("0", "2", "2, 3", "4, 4")
            ],
        )
        for name, more in (
            ("change_data_feed", PLAIN),
            ("change_data_feed_dv", DV),
            ("change_data_feed_mapping", mapping("name")),
        )
    ),
    Table(
        "merged",
        [
            f"CREATE TABLE {{t}} (id BIGINT, v STRING) USING delta TBLPROPERTIES ({DV})",
            "INSERT INTO {t} SELECT id, concat('v', id) FROM range(20)",
            "MERGE INTO {t} AS t USING (SELECT id + 10 AS id, concat('m', id) AS v FROM range(20)) AS s ON t.id = s.id "
            "WHEN MATCHED AND s.id = 12 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v "
            "WHEN NOT MATCHED THEN INSERT *",
        ],
        ["SELECT id, v FROM {t} ORDER BY id", "SELECT count(*) FROM {t}"],
    ),
    Table(
        "type_widening",
        [
            f"CREATE TABLE {{t}} (id INT, n SMALLINT) USING delta "
            f"TBLPROPERTIES ({PLAIN}, 'delta.enableTypeWidening' = 'true')",
            "INSERT INTO {t} VALUES (1, 1)",
            "ALTER TABLE {t} ALTER COLUMN n TYPE BIGINT",
            "INSERT INTO {t} VALUES (2, 5000000000)",
        ],
        ["SELECT id, n FROM {t} ORDER BY id", "SELECT id FROM {t} WHERE n > 4 ORDER BY id"],
    ),
    Table(
        "clustered",
        [
            f"CREATE TABLE {{t}} (id BIGINT, name STRING) USING delta CLUSTER BY (id) TBLPROPERTIES ({DV})",
            "INSERT INTO {t} SELECT id, concat('name ', id) FROM range(50)",
            "OPTIMIZE {t}",
            "DELETE FROM {t} WHERE id = 9",
        ],
        ["SELECT count(*), sum(id) FROM {t}", "SELECT id FROM {t} WHERE id BETWEEN 8 AND 10 ORDER BY id"],
    ),
]


def session(jars: Path, scratch: Path) -> SparkSession:
    settings = {
        "spark.jars": ",".join(str(jar) for jar in sorted(jars.glob("*.jar"))),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.driver.extraJavaOptions": f"-Dderby.system.home={scratch}",
    }
    builder = SparkSession.builder.master("local[1]").appName("interop")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def text(value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def write(spark: SparkSession, table: Table, folder: Path) -> list[dict]:
    path = folder / table.name
    shutil.rmtree(path, ignore_errors=True)
    for statement in table.statements:
        created = statement.replace(") USING delta", f") USING delta LOCATION '{path}'") if "CREATE" in statement else statement
        spark.sql(created.format(t=table.name)).collect()
    answers = []
    for sql, spark_sql in [(query, query) for query in table.queries] + table.pairs:
        rows = spark.sql(spark_sql.format(t=table.name, name=table.name)).collect()
        answers.append({"table": table.name, "sql": sql, "rows": [[text(value) for value in row] for row in rows]})
    spark.sql(f"DROP TABLE {table.name}")
    for checksum in path.rglob("*.crc"):
        checksum.unlink()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jars", type=Path, required=True, help="folder of Delta's jars and what they need")
    parser.add_argument("--only", nargs="*", help="names of tables")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".{folder.name}-scratch"
    spark = session(options.jars, scratch)
    delta = next(jar.stem.rsplit("-", 1)[1] for jar in options.jars.glob("delta-spark*.jar"))
    answers = []
    for table in TABLES:
        if not options.only or table.name in options.only:
            print(table.name, flush=True)
            answers += write(spark, table, folder)
    written = {"written_by": f"Spark {pyspark.__version__}, Delta {delta}", "answers": answers}
    (folder / "expected.json").write_text(json.dumps(written, indent=1) + "\n")
    spark.stop()
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
