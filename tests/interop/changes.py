"""Tables that UPDATE, DELETE, MERGE, INSERT OVERWRITE and ALTER TABLE changed."""

import datetime
import decimal

from parties import DELTA_RS, SPARK, TIDEMILL, Parties, Report, expect, of_arrow, refused

COLUMNS = "id, word, part"
NOTED = "id, word, part, note"


def run(parties: Parties, report: Report) -> None:
    statements(parties, report)
    partition_values(parties, report)
    types(parties, report)
    properties(parties, report)
    made(parties, report)
    widened(parties, report)
    if parties.spark is not None:
        constraints(parties, report)


def statements(parties: Parties, report: Report) -> None:
    tidemill, path = parties.tidemill, parties.folder / "ours"
    tidemill(
        f"CREATE TABLE ours PARTITIONED BY (part) WITH (location = '{path}') AS "
        "SELECT value AS id, nullif('row ' || value, '') AS word, value % 2 AS part FROM generate_series(1, 8)"
    )
    rows = {n: (n, f"row {n}", n % 2) for n in range(1, 9)}

    def check(what: str, columns: str = NOTED) -> None:
        report.compare(parties, what, path, columns, rows.values())

    check("CREATE TABLE AS, partitioned", COLUMNS)
    tidemill("DELETE FROM ours WHERE id IN (2, 3)")
    del rows[2], rows[3]
    check("DELETE of rows", COLUMNS)
    tidemill("UPDATE ours SET word = NULL WHERE id = 4")
    rows[4] = (4, None, 0)
    check("UPDATE", COLUMNS)
    tidemill("UPDATE ours SET part = 1, word = word || '!' WHERE id = 6")
    rows[6] = (6, "row 6!", 1)
    check("UPDATE of a partition column", COLUMNS)
    tidemill("ALTER TABLE ours ADD COLUMNS (note VARCHAR)")
    rows = {n: (*row, None) for n, row in rows.items()}
    check("ALTER TABLE ADD COLUMNS, files without the column")
    tidemill("INSERT INTO ours VALUES (9, 'row 9', 1, 'noted')")
    rows[9] = (9, "row 9", 1, "noted")
    check("ALTER TABLE ADD COLUMNS, files with and without the column")
    tidemill("ALTER TABLE ours ADD CONSTRAINT positive CHECK (id > 0)")
    tidemill("ALTER TABLE ours ALTER COLUMN id SET NOT NULL")
    check("ALTER TABLE ADD CONSTRAINT, SET NOT NULL")
    tidemill(
        "MERGE INTO ours AS t USING (SELECT 1 AS id, 'merged' AS word, 1 AS part, 'n' AS note "
        "UNION ALL SELECT 20, 'new', 0, 'n') AS s ON t.id = s.id "
        "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT * "
        "WHEN NOT MATCHED BY SOURCE AND t.id = 8 THEN DELETE "
        "WHEN NOT MATCHED BY SOURCE AND t.id = 5 THEN UPDATE SET note = 'not matched'"
    )
    del rows[8]
    rows |= {1: (1, "merged", 1, "n"), 20: (20, "new", 0, "n"), 5: (5, "row 5", 1, "not matched")}
    check("MERGE with all its clauses")
    before = dict(rows)
    tidemill("OPTIMIZE ours")
    check("OPTIMIZE after MERGE")
    tidemill("INSERT INTO ours REPLACE WHERE part = 0 SELECT 30, 'replaced', 0, NULL")
    rows = {n: row for n, row in rows.items() if row[2] != 0} | {30: (30, "replaced", 0, None)}
    check("INSERT REPLACE WHERE")
    tidemill("DELETE FROM ours WHERE part = 1")
    rows = {30: rows[30]}
    check("DELETE of a partition: only the log")
    tidemill("INSERT OVERWRITE ours SELECT value, 'over', value % 3, NULL FROM generate_series(1, 5)")
    rows = {n: (n, "over", n % 3, None) for n in range(1, 6)}
    check("INSERT OVERWRITE")
    version = tidemill("DESCRIBE HISTORY ours LIMIT 1")["version"][0].as_py()
    tidemill("TRUNCATE TABLE ours")
    rows = {}
    check("TRUNCATE TABLE")
    report.compare(parties, "a version from before TRUNCATE", path, NOTED, before.values(), version=version - 3)
    tidemill("INSERT INTO ours SELECT value, 'again', 0, 'n' FROM generate_series(1, 3)")
    rows = {n: (n, "again", 0, "n") for n in range(1, 4)}
    check("INSERT after TRUNCATE")


def partition_values(parties: Parties, report: Report) -> None:
    """Values that folder names have to escape, or that are no text; and NULL."""
    tidemill, path = parties.tidemill, parties.tidemill.path("odd")
    words = ["a b", "c/d=e", "50%41", "ü–é", "it''s", "x:y?#[]{}", 'q"uote', "back\\slash", "12:00:00", "+1 &2"]
    values = ", ".join(f"({n}, '{word}')" for n, word in enumerate(words))
    tidemill("CREATE TABLE odd (id BIGINT, k VARCHAR) PARTITIONED BY (k)")
    tidemill(f"INSERT INTO odd VALUES {values}, (100, NULL)")
    rows = {n: (n, word.replace("''", "'")) for n, word in enumerate(words)} | {100: (100, None)}
    report.compare(parties, "partition values with odd characters, and NULL", path, "id, k", rows.values())
    tidemill("INSERT INTO odd SELECT id + 1000, k FROM odd; DELETE FROM odd WHERE id = 1; OPTIMIZE odd")
    rows |= {n + 1000: (n + 1000, word) for n, word in rows.values()}
    del rows[1]
    report.compare(parties, "the same after INSERT, DELETE, OPTIMIZE", path, "id, k", rows.values())

    path = tidemill.path("dated")
    columns = "id BIGINT, d DATE, t TIMESTAMP, n DECIMAL(10, 2), b BOOLEAN"
    tidemill(f"CREATE TABLE dated ({columns}) PARTITIONED BY (d, t, n, b)")
    tidemill(
        "INSERT INTO dated VALUES (1, '2026-01-01', '2026-01-01 12:00:00.123456', 1.50, true), "
        "(2, '1969-12-31', '1969-12-31 23:59:59', -3, false), (3, NULL, NULL, NULL, NULL)"
    )
    tidemill("UPDATE dated SET id = 20 WHERE d = '1969-12-31'; MERGE INTO dated AS t USING (SELECT 1 AS id) AS s "
             "ON t.id = s.id WHEN MATCHED THEN UPDATE SET id = 10; OPTIMIZE dated")  # fmt: skip
    dated = [
        (10, datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, 12, 0, 0, 123456), decimal.Decimal("1.50"), True),
        (20, datetime.date(1969, 12, 31), datetime.datetime(1969, 12, 31, 23, 59, 59), decimal.Decimal("-3.00"), False),
        (3, None, None, None, None),
    ]
    what = "partitions by date, time, decimal and truth after UPDATE, MERGE, OPTIMIZE"
    report.compare(parties, what, path, "id, d, t, n, b", dated)


def types(parties: Parties, report: Report) -> None:
    tidemill, path = parties.tidemill, parties.tidemill.path("typed")
    tidemill(
        "CREATE TABLE typed (id BIGINT, t TINYINT, s SMALLINT, i INT, r REAL, d DOUBLE, n DECIMAL(20, 4), b BOOLEAN, "
        "y BYTEA, day DATE, moment TIMESTAMP, zoned TIMESTAMP WITH TIME ZONE, l BIGINT[], o STRUCT<x INT, w VARCHAR>)"
    )
    one = (
        "1, -128, 32767, 2147483647, 1.5, 1e300, CAST('1234567890123456.7891' AS DECIMAL(20, 4)), true, x'00ff', "
        "DATE '2026-01-31', TIMESTAMP '2026-01-31 23:59:59.999999', "
        "TIMESTAMP WITH TIME ZONE '2026-01-31 12:00:00+02:00', [1, NULL, 3], "
        "named_struct('x', 1, 'w', 'w')"
    )
    tidemill(f"INSERT INTO typed SELECT {one}")
    tidemill("INSERT INTO typed (id) VALUES (2)")
    tidemill("INSERT INTO typed SELECT 3, t, s, i, r, d, n, b, y, day, moment, zoned, l, o FROM typed WHERE id = 1")
    tidemill("UPDATE typed SET n = n + 1, b = false WHERE id = 3")
    tidemill("MERGE INTO typed AS t USING (SELECT 1 AS id) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET i = -1")
    tidemill("OPTIMIZE typed ZORDER BY (id, moment)")
    rest = (
        b"\x00\xff",
        datetime.date(2026, 1, 31),
        datetime.datetime(2026, 1, 31, 23, 59, 59, 999999),
        datetime.datetime(2026, 1, 31, 10, 0, 0),
        [1, None, 3],
        {"x": 1, "w": "w"},
    )
    number = decimal.Decimal("1234567890123456.7891")
    rows = [
        (1, -128, 32767, -1, 1.5, 1e300, number, True, *rest),
        (2, *[None] * 13),
        (3, -128, 32767, 2147483647, 1.5, 1e300, number + 1, False, *rest),
    ]
    columns = "id, t, s, i, r, d, n, b, y, day, moment, zoned, l, o"
    report.compare(parties, "all types after UPDATE, MERGE, OPTIMIZE ZORDER BY", path, columns, rows)
    conditions = {
        "t < 0": [1, 3], "i = -1": [1], "r > 1": [1, 3], "n > 1234567890123456": [1, 3], "b = false": [3],
        "day = DATE '2026-01-31'": [1, 3], "moment > TIMESTAMP '2026-01-31 23:00:00'": [1, 3], "l IS NULL": [2],
    }  # fmt: skip
    for party in parties.readers:
        with report.cell(parties, party, "rows by conditions on these types: statistics hide none"):
            for condition, ids in conditions.items():
                found = parties.read(party, path, f"SELECT id FROM {{t}} WHERE {condition}")
                expect(found, [(each,) for each in ids])


def properties(parties: Parties, report: Report) -> None:
    """A table with a change data feed: appends and deletes of whole files."""
    tidemill, path = parties.tidemill, parties.tidemill.path("fed")
    tidemill("CREATE TABLE fed (id BIGINT, part BIGINT) PARTITIONED BY (part)")
    tidemill("ALTER TABLE fed SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")
    tidemill("INSERT INTO fed VALUES (1, 1), (2, 2)")
    tidemill("DELETE FROM fed WHERE part = 2")
    with report.cell(parties, TIDEMILL, "change data feed: UPDATE of single rows is refused"):
        refused(lambda: tidemill("UPDATE fed SET id = 3 WHERE id = 1"), "TM-")
    tidemill("OPTIMIZE fed")
    wanted = [(1, "insert"), (2, "delete"), (2, "insert")]
    with report.cell(parties, TIDEMILL, "the change data feed of Tidemill's table"):
        found = of_arrow(tidemill("SELECT id, _change_type FROM table_changes('fed', 2)"))
        expect(sorted(found), wanted)
    if parties.spark is not None:
        with report.cell(parties, SPARK, "the change data feed of Tidemill's table"):
            options = {"readChangeFeed": "true", "startingVersion": "2"}
            frame = parties.spark.read.format("delta").options(**options).load(str(path))
            expect(sorted(tuple(row) for row in frame.select("id", "_change_type").collect()), wanted)


def made(parties: Parties, report: Report) -> None:
    """All that CREATE TABLE can say, and a table that takes the place of another one."""
    tidemill, path = parties.tidemill, parties.tidemill.path("made")
    tidemill(
        "CREATE TABLE made (id BIGINT NOT NULL CHECK (id > 0) COMMENT 'counted', twice INT GENERATED ALWAYS AS (id * 2), "
        "ts TIMESTAMP, day DATE GENERATED ALWAYS AS (CAST(ts AS DATE)), CONSTRAINT small CHECK (twice < 100)) "
        "PARTITIONED BY (day) COMMENT 'made' TBLPROPERTIES ('owner' = 'me')"
    )
    tidemill("INSERT INTO made (ts, id) VALUES ('2026-01-02T10:00:00Z', 1); "
             "INSERT INTO made BY NAME SELECT 2 AS id, TIMESTAMP '2026-01-03 10:00:00' AS ts")  # fmt: skip
    rows = [(1, 2, datetime.date(2026, 1, 2)), (2, 4, datetime.date(2026, 1, 3))]
    if parties.spark is not None:
        with report.cell(parties, SPARK, "keeps what Tidemill's CREATE TABLE says"):
            refused(lambda: parties.spark.sql(f"INSERT INTO delta.`{path}` (id, ts) VALUES (-1, NULL)"), "made_id_check")
            refused(lambda: parties.spark.sql(f"INSERT INTO delta.`{path}` (id, ts) VALUES (50, NULL)"), "small")
            parties.spark.sql(f"INSERT INTO delta.`{path}` (id, ts) VALUES (3, TIMESTAMP '2026-01-04 10:00:00')")
        rows.append((3, 6, datetime.date(2026, 1, 4)))
    report.compare(parties, "generated columns of Tidemill's CREATE TABLE", path, "id, twice, day", rows)
    before = tidemill("DESCRIBE HISTORY made LIMIT 1")["version"][0].as_py()
    tidemill("CREATE OR REPLACE TABLE made PARTITIONED BY (word) AS SELECT 'w' || id AS word, id FROM made")
    words = [(f"w{row[0]}", row[0]) for row in rows]
    report.compare(parties, "CREATE OR REPLACE TABLE AS, over itself", path, "word, id", words)
    report.compare(parties, "the version before", path, "id, twice, day", rows, version=before)
    tidemill("INSERT INTO made VALUES ('w9', 9); CREATE OR REPLACE TABLE made (id BIGINT)")
    report.compare(parties, "CREATE OR REPLACE TABLE without rows", path, "id", [])


def widened(parties: Parties, report: Report) -> None:
    """Columns that get wider types while their files stay; Spark widens one more and goes on."""
    tidemill, path = parties.tidemill, parties.tidemill.path("widened")
    tidemill(
        "CREATE TABLE widened (id BIGINT, i SMALLINT, r REAL, n DECIMAL(6, 2), w INT CHECK (id > 0)) "
        "TBLPROPERTIES ('delta.enableTypeWidening' = 'true')"
    )
    tidemill("INSERT INTO widened VALUES (1, 1, 1.5, 1.25, 1), (2, -32768, -2.5, -9999.99, 2)")
    tidemill("ALTER TABLE widened ALTER COLUMN i TYPE BIGINT; ALTER TABLE widened ALTER COLUMN r TYPE DOUBLE; "
             "ALTER TABLE widened ALTER COLUMN n TYPE DECIMAL(20, 4)")  # fmt: skip
    number = "CAST('1234567890123456.1234' AS DECIMAL(20, 4))"
    tidemill(f"INSERT INTO widened VALUES (3, 5000000000, 1e300, {number}, 3)")
    rows = {
        1: (1, 1, 1.5, decimal.Decimal("1.25"), 1),
        2: (2, -32768, -2.5, decimal.Decimal("-9999.99"), 2),
        3: (3, 5000000000, 1e300, decimal.Decimal("1234567890123456.1234"), 3),
    }
    known = {DELTA_RS: "not by the reader: it refuses tables with type widening"}

    def check(what: str) -> None:
        report.compare(parties, what, path, "id, i, r, n, w", rows.values(), known=known)

    check("ALTER COLUMN TYPE, files of both types")
    tidemill("UPDATE widened SET w = 20 WHERE id = 2; OPTIMIZE widened")
    rows[2] = (*rows[2][:4], 20)
    check("ALTER COLUMN TYPE, after UPDATE and OPTIMIZE")
    if parties.spark is not None:
        parties.spark.sql(f"ALTER TABLE delta.`{path}` ALTER COLUMN w TYPE BIGINT")
        parties.spark.sql(f"INSERT INTO delta.`{path}` VALUES (4, 4, 4.5, 4.25, 6000000000)")
        rows[4] = (4, 4, 4.5, decimal.Decimal("4.25"), 6000000000)
        check("Tidemill's table after Spark's ALTER COLUMN TYPE and INSERT")


def constraints(parties: Parties, report: Report) -> None:
    """Spark goes on with a table that has our constraint; we keep those of Spark's."""
    tidemill, spark, path = parties.tidemill, parties.spark, parties.folder / "kept"
    rows = "SELECT value AS id, 'w' AS note FROM generate_series(1, 3)"
    tidemill(f"CREATE TABLE kept WITH (location = '{path}') AS {rows}")
    tidemill("ALTER TABLE kept ADD CONSTRAINT positive CHECK (id > 0)")
    with report.cell(parties, SPARK, "keeps Tidemill's constraint"):
        refused(lambda: spark.sql(f"INSERT INTO delta.`{path}` VALUES (-1, 'bad')"), "positive")
    spark.sql(f"UPDATE delta.`{path}` SET note = 'by Spark' WHERE id = 2")
    spark.sql(f"MERGE INTO delta.`{path}` t USING (SELECT 3 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE")
    spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (more INT)")
    spark.sql(f"INSERT INTO delta.`{path}` VALUES (4, 'new', 4)")
    rows = [(1, "w", None), (2, "by Spark", None), (4, "new", 4)]
    what = "Tidemill's table after Spark's UPDATE, MERGE, ADD COLUMNS, INSERT"
    report.compare(parties, what, path, "id, note, more", rows)

    path = parties.folder / "theirs"
    spark.sql(
        f"CREATE TABLE delta.`{path}` (id BIGINT NOT NULL, ts TIMESTAMP, "
        "day DATE GENERATED ALWAYS AS (CAST(ts AS DATE))) USING delta PARTITIONED BY (day)"
    )
    spark.sql(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT Small CHECK (`ID` < 100)")
    tidemill(f"CREATE EXTERNAL TABLE theirs STORED AS DELTA LOCATION '{path}'")
    tidemill("INSERT INTO theirs (id, ts) VALUES (1, '2026-01-01T10:00:00Z'), (2, '2026-01-02T10:00:00Z')")
    with report.cell(parties, TIDEMILL, "keeps Spark's CHECK, NOT NULL and generated columns"):
        refused(lambda: tidemill("INSERT INTO theirs (id, ts) VALUES (100, '2026-01-01T10:00:00Z')"), "small")
        refused(lambda: tidemill("INSERT INTO theirs (id, ts) VALUES (NULL, '2026-01-01T10:00:00Z')"), "NOT NULL")
        refused(lambda: tidemill("INSERT INTO theirs VALUES (3, '2026-01-01T10:00:00Z', '2026-01-02')"), "2 columns")
    tidemill("UPDATE theirs SET ts = '2026-01-03T10:00:00Z' WHERE id = 2")
    rows = [(1, datetime.date(2026, 1, 1)), (2, datetime.date(2026, 1, 3))]
    report.compare(parties, "generated columns after Tidemill's INSERT, UPDATE", path, "id, day", rows)
