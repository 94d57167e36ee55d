"""Delta tables after OPTIMIZE, ZORDER, RESTORE, VACUUM and CONVERT, read by others.

    maintenance.py PROGRAM [--jars FOLDER_OF_JARS]

Needs, from PyPI: deltalake==1.6.6 pyarrow==26.0.1 duckdb==1.5.5 duckdb-extension-delta==1.5.5, and for Spark
pyspark==4.2.0. (DuckDB's extension is of its own version exactly.)

Runs the statements with Tidemill (`PROGRAM` is its binary) on a lake of its own, and compares the rows that
delta-rs, DuckDB and, where the jars of delta-spark are given, Spark read with those that were written. At the end
Spark appends to such a table and Tidemill reads it.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import deltalake
import duckdb
import duckdb_extension_delta

ROWS = 2000
PARTS = 3
INSERTS = 20


class Lake:
    def __init__(self, program: Path, folder: Path):
        self.program, self.folder = program.absolute(), folder

    def run(self, *statements: str) -> list[dict]:
        """The rows of the last statement."""
        done = subprocess.run(
            [self.program, "sql", "--format", "json", "--max-rows", "0", "-c", "; ".join(statements)],
            cwd=self.folder, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"{statements}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def path(self, table: str) -> str:
        return str(self.folder / "tidemill-data/lake/public" / table)


def fill(lake: Lake, table: str, partitioned: bool) -> None:
    by = " PARTITIONED BY (part)" if partitioned else ""
    each = ROWS // INSERTS
    lake.run(
        f"CREATE TABLE {table} (id BIGINT, x BIGINT, name VARCHAR, at TIMESTAMP, part BIGINT){by}",
        *(
            f"INSERT INTO {table} SELECT value, (value * 7919) % {ROWS}, concat('name ', value), "
            f"to_timestamp_seconds(value), value % {PARTS} FROM generate_series({n * each}, {(n + 1) * each - 1})"
            for n in range(INSERTS)
        ),
    )


def by_delta_rs(path: str) -> set:
    rows = deltalake.DeltaTable(path).to_pyarrow_table(columns=["id", "x", "name", "part"]).to_pylist()
    return {tuple(row.values()) for row in rows}


def by_duckdb(path: str) -> set:
    (extension,) = Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        return set(connection.execute(f"SELECT id, x, name, part FROM delta_scan('{path}')").fetchall())


def expected(upto: int = ROWS) -> set:
    return {(n, (n * 7919) % ROWS, f"name {n}", n % PARTS) for n in range(upto)}


def spark_session(jars: Path, folder: Path):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]")
    for key, value in {
        "spark.jars": ",".join(str(jar) for jar in sorted(jars.glob("*.jar"))),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--jars", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        lake = Lake(arguments.program, Path(temporary))
        readers = {"delta-rs": by_delta_rs, "DuckDB": by_duckdb}
        if arguments.jars:
            spark = spark_session(arguments.jars, lake.folder)
            readers["Spark"] = lambda path: {
                tuple(row) for row in spark.read.format("delta").load(path).select("id", "x", "name", "part").collect()
            }
        faults = []

        def compare(what: str, table: str, rows: set) -> None:
            for reader, read in readers.items():
                try:
                    same = read(lake.path(table)) == rows
                except Exception as error:  # noqa: BLE001
                    same = f"{type(error).__name__}: {error}"
                print(f"{what}: {reader}: {'same rows' if same is True else same}")
                if same is not True:
                    faults.append((what, reader))

        for table, partitioned in [("plain", False), ("parted", True)]:
            fill(lake, table, partitioned)
            report = lake.run(f"OPTIMIZE {table}")[0]["metrics"]
            wanted = PARTS if partitioned else 1
            if report["numFilesAdded"] != wanted:
                faults.append((f"OPTIMIZE {table} left {report}", "Tidemill"))
            compare(f"OPTIMIZE {table}", table, expected())
            lake.run(f"OPTIMIZE {table} ZORDER BY (id, x)")
            compare(f"OPTIMIZE {table} ZORDER BY", table, expected())
            lake.run(f"RESTORE TABLE {table} TO VERSION AS OF {INSERTS // 2}")
            compare(f"RESTORE {table}", table, expected(ROWS // 2))
            lake.run("SET vacuum_retention_check = false", f"VACUUM {table} RETAIN 0 HOURS")
            compare(f"VACUUM {table}", table, expected(ROWS // 2))

        plain = Path(lake.path("converted"))
        rows = f"SELECT value AS id, (value * 7919) % {ROWS} AS x, concat('name ', value) AS name"
        for part in range(PARTS):
            lake.run(
                f"CREATE TABLE raw_{part} AS {rows} FROM generate_series(0, {ROWS - 1}) WHERE value % {PARTS} = {part}"
            )
            folder = plain / f"part={part}"
            folder.mkdir(parents=True)
            for number, file in enumerate(Path(lake.path(f"raw_{part}")).glob("*.parquet")):
                (folder / f"{number}.parquet").write_bytes(file.read_bytes())
        lake.run(f"CONVERT TO DELTA parquet.'{plain}' PARTITIONED BY (part BIGINT)")
        compare("CONVERT", "converted", expected())

        if arguments.jars:
            path = lake.path("plain")
            history = spark.sql(f"DESCRIBE HISTORY delta.`{path}`").collect()
            print("Spark's history:", [row["operation"] for row in history][:6])
            spark.sql(f"INSERT INTO delta.`{path}` SELECT 5000, 1, 'of Spark', timestamp'2026-01-01', 0")
            spark.sql(f"OPTIMIZE delta.`{path}`")
            (found,) = lake.run("SELECT count(*) AS n FROM plain")
            if found["n"] != ROWS // 2 + 1:
                faults.append((f"Tidemill reads {found} after Spark", "Tidemill"))
    if faults:
        raise SystemExit(f"differences: {faults}")


main()
