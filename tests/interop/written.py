"""Tables that Spark, delta-rs and DuckDB wrote: read by Tidemill, and changed by it where it may."""

import csv
import io
import subprocess
from pathlib import Path

import deltalake
import pyarrow
from parties import DELTA_RS, DUCKDB, SPARK, TIDEMILL, Parties, Refused, Report, expect, of_arrow

ROWS = 20
COLUMNS = "id, v, part"
# What a reader itself does not do.
NOT_BY_DELTA_RS = {DELTA_RS: "not by the reader: it refuses tables with type widening"}
NOT_BY_DUCKDB = {DUCKDB: "not by the reader: partition columns of mapped tables are NULL to it"}
KNOWN = {
    "type widening": NOT_BY_DELTA_RS,
    "column mapping by name": NOT_BY_DUCKDB,
    "column mapping by id": NOT_BY_DUCKDB,
    "column mapping by id, deletion vectors": NOT_BY_DUCKDB,
}
# Features of a table that Spark makes, with what it takes to get them.
FEATURES = {
    "deletion vectors": "'delta.enableDeletionVectors' = 'true'",
    "column mapping by name": "'delta.columnMapping.mode' = 'name'",
    "column mapping by id": "'delta.columnMapping.mode' = 'id'",
    "column mapping by id, deletion vectors": "'delta.columnMapping.mode' = 'id', "
    "'delta.enableDeletionVectors' = 'true'",
    "checkpoints V2, deletion vectors": "'delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '2', "
    "'delta.enableDeletionVectors' = 'true'",
    "in-commit timestamps": "'delta.enableInCommitTimestamps' = 'true'",
    "row tracking": "'delta.enableRowTracking' = 'true'",
    "type widening": "'delta.enableTypeWidening' = 'true'",
    "change data feed": "'delta.enableChangeDataFeed' = 'true'",
    "append-only": "'delta.appendOnly' = 'true'",
}
# Which of our statements a feature makes us refuse.
ALL = {"INSERT", "UPDATE", "DELETE", "MERGE", "OPTIMIZE"}
REFUSED = {
    "column mapping by name": ALL,
    "column mapping by id": ALL,
    "column mapping by id, deletion vectors": ALL,
    "in-commit timestamps": ALL,
    "row tracking": ALL,
    "change data feed": {"UPDATE", "DELETE", "MERGE"},
    "append-only": {"UPDATE", "DELETE", "MERGE"},
}


def run(parties: Parties, report: Report) -> None:
    by_delta_rs(parties, report)
    by_duckdb(parties, report)
    if parties.spark is not None:
        zoo(parties, report)
        for feature, settings in FEATURES.items():
            with report.guard(parties, f"Spark's table, {feature}, as a whole"):
                changed_by_both(parties, report, feature, settings)


def zoo(parties: Parties, report: Report) -> None:
    """The tables of write_tables.py, written anew and read by us. The rows are compared as text."""
    import write_tables

    for table in write_tables.TABLES:
        folder = parties.folder / "zoo"
        with report.cell(parties, TIDEMILL, f"reads what Spark wrote: {table.name.replace('_', ' ')}"):
            answers = write_tables.write(parties.spark, table, folder)
            name = f"zoo_{table.name}"
            parties.tidemill(f"CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{folder / table.name}'")
            for answer in answers:
                wanted = [[value or "" for value in row] for row in answer["rows"]]
                expect(as_text(parties, answer["sql"].replace("{t}", name)), wanted)


def as_text(parties: Parties, sql: str) -> list[list[str]]:
    tidemill = parties.tidemill
    command = [tidemill.binary, "sql", "--server", f"http://{tidemill.address}", "--format", "csv", "-c", sql]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr)
    return list(csv.reader(io.StringIO(done.stdout)))[1:]


def changed_by_both(parties: Parties, report: Report, feature: str, settings: str) -> None:
    """Spark writes and deletes, we go on with each statement, everyone reads, Spark goes on, everyone reads again."""
    tidemill, spark = parties.tidemill, parties.spark
    name = "both_" + "".join(each if each.isalnum() else "_" for each in feature)
    path = parties.folder / name
    spark.sql(
        f"CREATE TABLE delta.`{path}` (id BIGINT, v STRING, part INT) USING delta PARTITIONED BY (part) "
        f"TBLPROPERTIES ({settings})"
    )
    rows = {n: (n, f"v{n}", n % 2) for n in range(ROWS)}
    insert = f"INSERT INTO delta.`{path}` SELECT id, concat('v', id), CAST(id % 2 AS INT) FROM range"
    spark.sql(f"{insert}(0, 10)")
    spark.sql(f"{insert}(10, {ROWS})")
    if feature == "type widening":
        spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (n SMALLINT)")
        spark.sql(f"ALTER TABLE delta.`{path}` ALTER COLUMN n TYPE INT")
    if feature != "append-only":
        spark.sql(f"DELETE FROM delta.`{path}` WHERE id IN (0, 5, 15)")
        for n in (0, 5, 15):
            del rows[n]
    known = KNOWN.get(feature, {})
    report.compare(parties, f"Spark's table, {feature}", path, COLUMNS, rows.values(), known=known)

    tidemill(f"CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{path}'")
    done = []
    for word, sql, change in (
        ("INSERT", f"INSERT INTO {name} ({COLUMNS}) VALUES (100, 'new', 0), (101, 'new', 1)",
         {100: (100, "new", 0), 101: (101, "new", 1)}),
        ("UPDATE", f"UPDATE {name} SET v = 'updated' WHERE id IN (1, 100)",
         {1: (1, "updated", 1), 100: (100, "updated", 0)}),
        ("DELETE", f"DELETE FROM {name} WHERE id IN (2, 101)", {2: None, 101: None}),
        ("MERGE", f"MERGE INTO {name} AS t USING (SELECT 3 AS id, 'merged' AS v UNION ALL SELECT 200, 'new') AS s "
         "ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v "
         "WHEN NOT MATCHED THEN INSERT (id, v, part) VALUES (s.id, s.v, 0)",
         {3: (3, "merged", 1), 200: (200, "new", 0)}),
        ("OPTIMIZE", f"OPTIMIZE {name}", {}),
    ):  # fmt: skip
        expected = word in REFUSED.get(feature, set())
        try:
            tidemill(sql)
        except Refused as error:
            said = str(error).split(" hint:")[0].split(" in: ")[0]
            outcome = f"refused: {said}" if expected and said.startswith("TM-1") else f"failed: {said}"
            report.add(TIDEMILL, parties.versions[TIDEMILL], f"{word}, {feature}", outcome)
        else:
            done.append(word)
            if expected:
                report.add(TIDEMILL, parties.versions[TIDEMILL], f"{word}, {feature}", "failed: it should refuse")
            for n, row in change.items():
                rows.pop(n, None)
                if row:
                    rows[n] = row
    if done:
        what = f"the same after Tidemill's {', '.join(done)}: {feature}"
        report.compare(parties, what, path, COLUMNS, rows.values(), known=known)

    insert = f"INSERT INTO delta.`{path}` ({COLUMNS}) VALUES (300, 'spark', 1)"
    rows[300] = (300, "spark", 1)
    statements = [insert]
    if feature != "append-only":
        statements.append(
            f"MERGE INTO delta.`{path}` t USING (SELECT * FROM VALUES (4L), (13L) AS s(id)) s ON t.id = s.id "
            "WHEN MATCHED AND s.id = 4 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'by Spark'"
        )
        statements.append(f"UPDATE delta.`{path}` SET v = 'by Spark' WHERE id = 6")
        del rows[4]
        rows |= {13: (13, "by Spark", 1), 6: (6, "by Spark", 0)}
    statements.append(f"OPTIMIZE delta.`{path}`")
    words = ", ".join(statement.split()[0] for statement in statements)
    with report.cell(parties, SPARK, f"{words} after that: {feature}"):
        for statement in statements:
            spark.sql(statement)
    report.compare(parties, f"the same after Spark's: {feature}", path, COLUMNS, rows.values(), known=known)


def by_delta_rs(parties: Parties, report: Report) -> None:
    tidemill, path = parties.tidemill, parties.folder / "of_delta_rs"

    def some(first: int, last: int) -> pyarrow.Table:
        numbers = range(first, last)
        columns = {"id": list(numbers), "v": [f"v{n}" for n in numbers], "part": [n % 2 for n in numbers]}
        return pyarrow.table(columns)

    deltalake.write_deltalake(path, some(0, 10), partition_by=["part"])
    deltalake.write_deltalake(path, some(10, 20), mode="append")
    rows = {n: (n, f"v{n}", n % 2) for n in range(20)}
    table = deltalake.DeltaTable(path)
    table.delete("id = 3")
    table.update(updates={"v": "'updated'"}, predicate="id = 4")
    source = pyarrow.table({"id": [5, 50], "v": ["merged", "new"], "part": [1, 0]})
    merge = table.merge(source, "t.id = s.id", source_alias="s", target_alias="t")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    table.optimize.compact()
    del rows[3]
    rows |= {4: (4, "updated", 0), 5: (5, "merged", 1), 50: (50, "new", 0)}
    what = "delta-rs's table after its append, delete, update, merge, compact"
    report.compare(parties, what, path, COLUMNS, rows.values())
    table.optimize.z_order(["id"])
    table.create_checkpoint()
    report.compare(parties, "the same after its z_order and checkpoint", path, COLUMNS, rows.values())
    tidemill(f"CREATE EXTERNAL TABLE of_delta_rs STORED AS DELTA LOCATION '{path}'")
    tidemill("UPDATE of_delta_rs SET v = 'ours' WHERE id = 6; DELETE FROM of_delta_rs WHERE id = 7")
    tidemill("OPTIMIZE of_delta_rs")
    rows[6] = (6, "ours", 0)
    del rows[7]
    report.compare(parties, "the same after Tidemill's UPDATE, DELETE, OPTIMIZE", path, COLUMNS, rows.values())
    with report.cell(parties, DELTA_RS, "goes on with delete and merge, Tidemill reads it"):
        table = deltalake.DeltaTable(path)
        table.delete("id = 8")
        table.merge(source, "t.id = s.id", source_alias="s", target_alias="t").when_matched_delete().execute()
        for n in (5, 8, 50):
            del rows[n]
        expect(of_arrow(tidemill(f"SELECT {COLUMNS} FROM of_delta_rs")), sorted(rows.values()))


def by_duckdb(parties: Parties, report: Report) -> None:
    """DuckDB appends to tables that are there; it does nothing else."""
    path: Path = parties.tidemill.path("for_duckdb")
    parties.tidemill("CREATE TABLE for_duckdb AS SELECT value AS id, 'v' AS v FROM generate_series(1, 5)")
    with report.cell(parties, DUCKDB, "INSERT into Tidemill's table, Tidemill reads it"):
        parties.duckdb.execute(f"ATTACH '{path}' AS for_duckdb (TYPE delta)")
        parties.duckdb.execute("INSERT INTO for_duckdb SELECT 6, 'of DuckDB'")
        found = of_arrow(parties.tidemill("SELECT id, v FROM for_duckdb"))
        expect(found, [*((n, "v") for n in range(1, 6)), (6, "of DuckDB")])
