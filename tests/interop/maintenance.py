"""Tables after OPTIMIZE, ZORDER, RESTORE, VACUUM and CONVERT."""

from parties import SPARK, TIDEMILL, Parties, Report, expect, of_arrow

ROWS = 2000
PARTS = 3
INSERTS = 20
COLUMNS = "id, x, name, part"


def expected(upto: int = ROWS) -> list[tuple]:
    return [(n, (n * 7919) % ROWS, f"name {n}", n % PARTS) for n in range(upto)]


def fill(parties: Parties, table: str, partitioned: bool) -> None:
    by = " PARTITIONED BY (part)" if partitioned else ""
    each = ROWS // INSERTS
    inserts = (
        f"INSERT INTO {table} SELECT value, (value * 7919) % {ROWS}, concat('name ', value), "
        f"to_timestamp_seconds(value), value % {PARTS} FROM generate_series({n * each}, {(n + 1) * each - 1})"
        for n in range(INSERTS)
    )
    create = f"CREATE TABLE {table} (id BIGINT, x BIGINT, name VARCHAR, at TIMESTAMP, part BIGINT){by}"
    parties.tidemill("; ".join([create, *inserts]))


def files(parties: Parties, table: str) -> int:
    return parties.tidemill(f"DESCRIBE DETAIL {table}")["numFiles"][0].as_py()


def run(parties: Parties, report: Report) -> None:
    for table, partitioned in [("plain", False), ("parted", True)]:
        kind = "a partitioned table" if partitioned else "a table"
        path = parties.tidemill.path(table)
        fill(parties, table, partitioned)
        report.compare(parties, f"{kind} after {INSERTS} INSERTs, with checkpoints", path, COLUMNS, expected())
        with report.cell(parties, TIDEMILL, f"OPTIMIZE of {kind} leaves a file a partition"):
            parties.tidemill(f"OPTIMIZE {table}")
            expect([(files(parties, table),)], [(PARTS if partitioned else 1,)])
        report.compare(parties, f"{kind} after OPTIMIZE", path, COLUMNS, expected())
        parties.tidemill(f"OPTIMIZE {table} ZORDER BY (id, x)")
        report.compare(parties, f"{kind} after OPTIMIZE ZORDER BY", path, COLUMNS, expected())
        report.compare(
            parties, f"{kind} in a version before OPTIMIZE", path, COLUMNS, expected(ROWS // 2), version=INSERTS // 2
        )
        # Whoever deletes after OPTIMIZE, and inserts small files before the next one.
        parties.tidemill(
            f"DELETE FROM {table} WHERE id < 7; INSERT INTO {table} SELECT * FROM {table} WHERE id = 7; "
            f"UPDATE {table} SET x = -1 WHERE id = 8; OPTIMIZE {table}"
        )
        rows = [(n, -1 if n == 8 else x, *more) for n, x, *more in expected() if n >= 7]
        report.compare(
            parties, f"{kind} after DELETE, INSERT, UPDATE, OPTIMIZE", path, COLUMNS, [*rows, expected()[7]]
        )
        parties.tidemill(f"RESTORE TABLE {table} TO VERSION AS OF {INSERTS // 2}")
        report.compare(parties, f"{kind} after RESTORE", path, COLUMNS, expected(ROWS // 2))
        parties.tidemill(f"SET vacuum_retention_check = false; VACUUM {table} RETAIN 0 HOURS")
        report.compare(parties, f"{kind} after VACUUM", path, COLUMNS, expected(ROWS // 2))

    convert(parties, report)
    if parties.spark is not None:
        goes_on(parties, report)


def convert(parties: Parties, report: Report) -> None:
    lake = parties.folder / "lake/public"
    rows = f"SELECT value AS id, (value * 7919) % {ROWS} AS x, concat('name ', value) AS name"
    for part in range(PARTS):
        parties.tidemill(
            f"CREATE TABLE raw_{part} AS {rows} FROM generate_series(0, {ROWS - 1}) WHERE value % {PARTS} = {part}"
        )
        folder = lake / f"converted/part={part}"
        folder.mkdir(parents=True)
        for number, file in enumerate((lake / f"raw_{part}").glob("*.parquet")):
            (folder / f"{number}.parquet").write_bytes(file.read_bytes())
    parties.tidemill(f"CONVERT TO DELTA parquet.'{lake / 'converted'}' PARTITIONED BY (part BIGINT)")
    report.compare(parties, "a table after CONVERT", lake / "converted", COLUMNS, expected())


def goes_on(parties: Parties, report: Report) -> None:
    path = parties.tidemill.path("plain")
    with report.cell(parties, SPARK, "DESCRIBE HISTORY of Tidemill's table names RESTORE, OPTIMIZE, VACUUM"):
        operations = {row.operation for row in parties.spark.sql(f"DESCRIBE HISTORY delta.`{path}`").collect()}
        expect({"RESTORE", "OPTIMIZE", "VACUUM END"} - operations, set())
    with report.cell(parties, SPARK, "INSERT, OPTIMIZE and VACUUM of Tidemill's table, Tidemill reads it"):
        parties.spark.sql(f"INSERT INTO delta.`{path}` SELECT 5000, 1, 'of Spark', timestamp'2026-01-01', 0")
        parties.spark.sql(f"OPTIMIZE delta.`{path}`")
        parties.spark.sql(f"VACUUM delta.`{path}`")
        found = of_arrow(parties.tidemill("SELECT id, x, name, part FROM plain"))
        expect(found, [*expected(ROWS // 2), (5000, 1, "of Spark", 0)])
