"""Tables that UPDATE, DELETE, MERGE and ALTER TABLE changed, read by delta-rs, DuckDB and Spark, and the other way round.

    python tests/interop/changes.py --binary target/debug/tidemill [--jars folder with delta-spark and its jars]

Needs the packages `deltalake` and `duckdb`, and `pyspark` where --jars is given. Ends with an error at the first
difference.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

Rows = list[tuple]


class Tidemill:
    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary.absolute(), folder

    def run(self, sql: str) -> subprocess.CompletedProcess[str]:
        command = [self.binary, "sql", "--format", "csv", "-c", sql]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def __call__(self, sql: str) -> list[str]:
        done = self.run(sql)
        if done.returncode:
            raise SystemExit(f"{sql}\n{done.stderr}")
        return done.stdout.splitlines()[1:]

    def refuses(self, sql: str, word: str) -> None:
        done = self.run(sql)
        if done.returncode == 0 or word not in done.stderr:
            raise SystemExit(f"should have been refused for `{word}`: {sql}\n{done.stderr}")


def by_delta_rs(table: Path, columns: str) -> Rows:
    from deltalake import DeltaTable

    names = columns.split(", ")
    rows = DeltaTable(table).to_pyarrow_table(columns=names).to_pylist()
    return sorted(tuple(row[name] for name in names) for row in rows)


def by_duckdb(table: Path, columns: str) -> Rows:
    import duckdb

    connection = duckdb.connect()
    connection.execute("INSTALL delta")
    connection.execute("LOAD delta")
    return sorted(connection.execute(f"SELECT {columns} FROM delta_scan('{table}')").fetchall())


def spark_session(jars: Path, folder: Path):
    from pyspark.sql import SparkSession

    settings = {
        "spark.jars": ",".join(str(jar) for jar in sorted(jars.glob("*.jar"))),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    builder = SparkSession.builder.master("local[1]").appName("interop")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def expect(what: str, found: Rows, wanted: Rows) -> None:
    if found != wanted:
        raise SystemExit(f"{what}: {found}\nwanted: {wanted}")
    print(f"ok  {what}")


def written_here(tidemill: Tidemill, folder: Path, spark) -> None:
    table = folder / "ours"
    tidemill(
        f"CREATE TABLE ours PARTITIONED BY (part) WITH (location = '{table}') AS "
        "SELECT value AS id, 'row ' || value AS word, value % 2 AS part FROM generate_series(1, 8)"
    )
    tidemill("DELETE FROM ours WHERE id IN (2, 3)")
    tidemill("UPDATE ours SET word = 'updated' WHERE id = 4")
    tidemill("ALTER TABLE ours ADD COLUMNS (note VARCHAR)")
    tidemill("ALTER TABLE ours ADD CONSTRAINT positive CHECK (id > 0)")
    tidemill(
        "MERGE INTO ours AS t USING (SELECT 1 AS id, 'merged' AS word, 1 AS part, 'n' AS note "
        "UNION ALL SELECT 20, 'new', 0, 'n') AS s ON t.id = s.id "
        "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT * "
        "WHEN NOT MATCHED BY SOURCE AND t.id = 8 THEN DELETE"
    )
    columns = "id, word, part, note"
    wanted = [
        (1, "merged", 1, "n"),
        (4, "updated", 0, None),
        (5, "row 5", 1, None),
        (6, "row 6", 0, None),
        (7, "row 7", 1, None),
        (20, "new", 0, "n"),
    ]
    expect("delta-rs reads what we changed", by_delta_rs(table, columns), wanted)
    expect("DuckDB reads what we changed", by_duckdb(table, columns), wanted)
    if spark is None:
        return

    def read() -> Rows:
        return sorted(tuple(row) for row in spark.sql(f"SELECT {columns} FROM delta.`{table}`").collect())

    expect("Spark reads what we changed", read(), wanted)
    try:
        spark.sql(f"INSERT INTO delta.`{table}` VALUES (-1, 'bad', 0, NULL)")
        raise SystemExit("Spark does not see our constraint")
    except Exception as error:  # noqa: BLE001: whatever Spark raises, it has to name the constraint
        if "positive" not in str(error):
            raise
        print("ok  Spark keeps our constraint")
    spark.sql(f"UPDATE delta.`{table}` SET note = 'by Spark' WHERE id = 20")
    answer = tidemill("SELECT note FROM ours WHERE id = 20")
    expect("we read what Spark changed after us", [tuple(answer)], [("by Spark",)])
    operations = [row.operation for row in spark.sql(f"DESCRIBE HISTORY delta.`{table}`").collect()]
    expect("Spark reads our history", [("MERGE" in operations, "DELETE" in operations)], [(True, True)])


def written_by_spark(tidemill: Tidemill, folder: Path, spark) -> None:
    table = folder / "theirs"
    spark.sql(
        f"CREATE TABLE delta.`{table}` (id BIGINT NOT NULL, ts TIMESTAMP, "
        "day DATE GENERATED ALWAYS AS (CAST(ts AS DATE))) USING delta PARTITIONED BY (day)"
    )
    spark.sql(f"ALTER TABLE delta.`{table}` ADD CONSTRAINT Small CHECK (`ID` < 100)")
    tidemill(f"CREATE EXTERNAL TABLE theirs STORED AS DELTA LOCATION '{table}'")
    tidemill("INSERT INTO theirs (id, ts) VALUES (1, '2026-01-01T10:00:00Z'), (2, '2026-01-02T10:00:00Z')")
    tidemill.refuses("INSERT INTO theirs (id, ts) VALUES (100, '2026-01-01T10:00:00Z')", "small")
    tidemill.refuses("INSERT INTO theirs (id, ts) VALUES (NULL, '2026-01-01T10:00:00Z')", "NOT NULL")
    tidemill.refuses("INSERT INTO theirs VALUES (3, '2026-01-01T10:00:00Z', '2026-01-02')", "2 columns")
    tidemill("UPDATE theirs SET ts = '2026-01-03T10:00:00Z' WHERE id = 2")
    rows = spark.sql(f"SELECT id, CAST(day AS STRING) FROM delta.`{table}` ORDER BY id").collect()
    expect("generated columns follow", [tuple(row) for row in rows], [(1, "2026-01-01"), (2, "2026-01-03")])
    spark.sql(f"MERGE INTO delta.`{table}` t USING (SELECT 2 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE")
    expect("we read what Spark merged", [tuple(tidemill("SELECT id FROM theirs"))], [("1",)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--jars", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tidemill = Tidemill(options.binary, folder)
        spark = spark_session(options.jars, folder) if options.jars else None
        written_here(tidemill, folder, spark)
        if spark is not None:
            written_by_spark(tidemill, folder, spark)


if __name__ == "__main__":
    main()
