"""What Python does through ADBC, cell by cell: `adbc_matrix.py grpc://HOST:PORT LAKE_FOLDER`."""

import datetime
import decimal
import pathlib
import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow
from cells import cell, expect, refused

URI, LAKE = sys.argv[1], pathlib.Path(sys.argv[2])
ZONE = datetime.timezone.utc
VALUES = {
    "BOOLEAN": True,
    "BIGINT": -(2**62),
    "DOUBLE": 0.5,
    "VARCHAR": "größe 🦀",
    "BYTEA": b"\x00\xff",
    "DATE": datetime.date(2026, 2, 28),
    "TIMESTAMP": datetime.datetime(2026, 2, 28, 12, 30, 1, 5, tzinfo=ZONE),
    "DECIMAL(20, 4)": decimal.Decimal("123456789.0001"),
}


def commits(table):
    return len(list((LAKE / "public" / table / "_delta_log").glob("*.json")))


def count(cursor, table):
    cursor.execute(f"SELECT count(*) FROM {table}")
    return cursor.fetchone()[0]


def numbers(first, last):
    return pyarrow.table({"n": list(range(first, last)), "w": [f"w{n}" for n in range(first, last)]})


def batches(rows):
    """A stream that is never whole in memory."""
    schema = pyarrow.schema([("n", pyarrow.int64()), ("w", pyarrow.string())])
    step = 10_000
    parts = (numbers(n, min(n + step, rows)).to_batches()[0] for n in range(0, rows, step))
    return pyarrow.RecordBatchReader.from_batches(schema, parts)


def queries(cursor):
    with cell("SELECT 1"):
        cursor.execute("SELECT 1")
        expect(cursor.fetchone(), (1,))
    with cell("CREATE, INSERT with count, SELECT"):
        cursor.execute("DROP TABLE IF EXISTS adbc_t")
        cursor.execute("CREATE TABLE adbc_t (n BIGINT, w VARCHAR)")
        cursor.execute("INSERT INTO adbc_t VALUES (1, 'one'), (2, 'two')")
        cursor.execute("SELECT w FROM adbc_t ORDER BY n")
        expect(cursor.fetchall(), [("one",), ("two",)])
    with cell("100,000 rows as a stream of batches"):
        cursor.execute("SELECT value FROM generate_series(1, 100000)")
        expect(sum(batch.num_rows for batch in cursor.fetch_record_batch()), 100_000)
    with cell("rows of 3 MiB"):
        cursor.execute("SELECT repeat('x', 3145728) AS wide FROM generate_series(1, 20)")
        expect([len(row[0]) for row in cursor.fetchall()], [3145728] * 20)
    with cell("partitions (execute_partitions, read_partition)"):
        partitions, schema = cursor.adbc_execute_partitions("SELECT w FROM adbc_t ORDER BY n")
        expect(schema.names, ["w"])
        found = []
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            found += cursor.fetchall()
        expect(found, [("one",), ("two",)])


def parameters(cursor):
    for kind, value in VALUES.items():
        with cell(f"bound {kind}, and NULL"):
            for given in (value, None):
                cursor.execute(f"SELECT CAST(? AS {kind}) AS v", (given,))
                expect(cursor.fetchone(), (given,))
    with cell("bound TIMESTAMP WITH TIME ZONE"):
        moment = datetime.datetime(2026, 2, 28, 12, 30, tzinfo=ZONE)
        cursor.execute("SELECT ? = TIMESTAMP '2026-02-28T12:30:00Z' AS same", (moment,))
        expect(cursor.fetchone(), (True,))
    with cell("bound list, struct and dictionary"):
        batch = pyarrow.record_batch(
            {
                "0": pyarrow.array([[1, 2, 3]]),
                "1": pyarrow.array([{"a": 7}]),
                "2": pyarrow.array(["x"]).dictionary_encode(),
            }
        )
        cursor.execute("SELECT $1 AS l, $2 AS s, $3 AS d", batch)
        expect(cursor.fetchone(), ([1, 2, 3], {"a": 7}, "x"))
    with cell("executemany: INSERT of 1,000 rows, one commit"):
        before = commits("adbc_t")
        cursor.executemany("INSERT INTO adbc_t VALUES (?, ?)", [(n, f"w{n}") for n in range(1000)])
        expect(count(cursor, "adbc_t"), 1002)
        expect(commits("adbc_t") - before, 1)
    with cell("a batch of parameters in a query"):
        cursor.execute("SELECT w FROM adbc_t WHERE n = ? AND w LIKE 'w%'", pyarrow.record_batch({"n": [7, 42]}))
        expect(sorted(cursor.fetchall()), [("w42",), ("w7",)])
    with cell("executemany: UPDATE, DELETE"):
        cursor.executemany("UPDATE adbc_t SET w = ? WHERE n = ?", [("seven", 7), ("eight", 8)])
        cursor.execute("SELECT w FROM adbc_t WHERE n IN (7, 8) ORDER BY n")
        expect(cursor.fetchall(), [("seven",), ("eight",)])
        cursor.executemany("DELETE FROM adbc_t WHERE n = ?", [(7,), (8,)])
        cursor.execute("SELECT count(*) FROM adbc_t WHERE n IN (7, 8)")
        expect(cursor.fetchone(), (0,))
    with cell("wrong number of parameters is told"):
        refused(lambda: cursor.execute("SELECT ? + 1", (1, 2)), "1 parameter", "2 are given")
    with cell("wrong type of a parameter is told"):
        refused(lambda: cursor.execute("SELECT * FROM adbc_t WHERE n = ?", ("many",)), "$1", "many")


def ingest(cursor):
    cursor.execute("DROP TABLE IF EXISTS adbc_i")
    with cell("ingest: create"):
        expect(cursor.adbc_ingest("adbc_i", numbers(0, 10), mode="create"), 10)
        expect(count(cursor, "adbc_i"), 10)
        refused(lambda: cursor.adbc_ingest("adbc_i", numbers(0, 1), mode="create"), "there is a table")
    with cell("ingest: append of 300,000 rows as a stream, one commit"):
        before = commits("adbc_i")
        expect(cursor.adbc_ingest("adbc_i", batches(300_000), mode="append"), 300_000)
        expect(commits("adbc_i") - before, 1)
        expect(count(cursor, "adbc_i"), 300_010)
        refused(lambda: cursor.adbc_ingest("adbc_none", numbers(0, 1), mode="append"), "no table")
    with cell("ingest: replace, one commit"):
        before = commits("adbc_i")
        expect(cursor.adbc_ingest("adbc_i", numbers(5, 8), mode="replace"), 3)
        expect(count(cursor, "adbc_i"), 3)
        expect(commits("adbc_i") - before, 1)
    with cell("ingest: create_append"):
        cursor.execute("DROP TABLE IF EXISTS adbc_ca")
        for rows in (10, 20):
            cursor.adbc_ingest("adbc_ca", numbers(0, 10), mode="create_append")
            expect(count(cursor, "adbc_ca"), rows)
    with cell("ingest: columns by name, missing ones NULL"):
        cursor.adbc_ingest("adbc_ca", pyarrow.table({"w": ["only"]}), mode="append")
        cursor.execute("SELECT n FROM adbc_ca WHERE w = 'only'")
        expect(cursor.fetchall(), [(None,)])
    with cell("ingest: wrong column and temporary table refused"):
        refused(lambda: cursor.adbc_ingest("adbc_ca", pyarrow.table({"x": [1]}), mode="append"), "`x`")
        refused(lambda: cursor.adbc_ingest("adbc_tmp", numbers(0, 1), mode="create", temporary=True), "temporary")


def metadata(connection):
    with cell("info, table types"):
        expect(connection.adbc_get_info()["vendor_name"], "Tidemill")
        expect(sorted(connection.adbc_get_table_types()), ["SYSTEM TABLE", "TABLE", "VIEW"])
    with cell("objects: catalogs, schemas, tables, columns"):
        tree = connection.adbc_get_objects(depth="all", table_name_filter="adbc_t").read_all().to_pylist()
        tables = [
            (catalog["catalog_name"], schema["db_schema_name"], [c["column_name"] for c in table["table_columns"]])
            for catalog in tree
            for schema in catalog["catalog_db_schemas"]
            for table in schema["db_schema_tables"]
        ]
        expect(tables, [("tidemill", "public", ["n", "w"])])
    with cell("table schema, schema of a query without running it"):
        expect(connection.adbc_get_table_schema("adbc_t").names, ["n", "w"])
        with connection.cursor() as cursor:
            expect(cursor.adbc_execute_schema("SELECT 1 AS one").names, ["one"])


def session(cursor, connection):
    with cell("session options: catalog and schema"):
        cursor.execute("CREATE SCHEMA IF NOT EXISTS adbc_s")
        expect(connection.adbc_current_catalog, "tidemill")
        connection.adbc_current_db_schema = "adbc_s"
        expect(connection.adbc_current_db_schema, "adbc_s")
        cursor.execute("SHOW schema")
        expect(cursor.fetchone()[1], "adbc_s")
        connection.adbc_current_db_schema = "public"
    with cell("statement_timeout ends a long statement"):
        cursor.execute("SET statement_timeout = '300ms'")
        long = "SELECT count(*) FROM generate_series(1, 1000000000000)"
        refused(lambda: (cursor.execute(long), cursor.fetchall()), "statement_timeout")
        cursor.execute("RESET statement_timeout")
    for kind in ("lz4", "zstd"):
        with cell(f"results compressed with {kind}"):
            cursor.execute(f"SET result_compression = '{kind}'")
            cursor.execute("SELECT repeat('a', 1000) AS a FROM generate_series(1, 1000)")
            expect({row[0] for row in cursor.fetchall()}, {"a" * 1000})
            cursor.execute("RESET result_compression")
    with cell("polled statement (incremental partitions)"):
        cursor.adbc_statement.set_options(**{"adbc.statement.exec.incremental": "true"})
        partitions, _ = cursor.adbc_execute_partitions("SELECT sum(value) FROM generate_series(1, 3000000)")
        while not partitions:
            partitions, _ = cursor.adbc_execute_partitions("SELECT sum(value) FROM generate_series(1, 3000000)")
        cursor.adbc_read_partition(partitions[0])
        expect(cursor.fetchone(), (4500001500000,))
    with cell("headers: schema and engine"):
        prefix = "adbc.flight.sql.rpc.call_header."
        options = {prefix + "schema": "adbc_s", prefix + "engine": "in_process"}
        with flightsql.connect(URI, db_kwargs=options, autocommit=True) as other, other.cursor() as cursor:
            for name, wanted in (("schema", "adbc_s"), ("engine", "in_process")):
                cursor.execute(f"SHOW {name}")
                expect(cursor.fetchone()[1], wanted)


def ending(cursor):
    with cell("errors carry code and hint"):
        refused(lambda: cursor.execute("SELECT nn FROM adbc_t"), "TM-1002", "did you mean")
    with cell("cancel"):
        cursor.execute("SELECT value FROM generate_series(1, 1000000000000)")
        cursor.fetchone()
        cursor.adbc_cancel()
        refused(lambda: [cursor.fetchone() for _ in range(100_000_000)], "ancel")


def main():
    with flightsql.connect(URI, autocommit=True) as connection:
        with connection.cursor() as cursor:
            queries(cursor)
            parameters(cursor)
            ingest(cursor)
            metadata(connection)
            ending(connection.cursor())
        with connection.cursor() as cursor:
            session(cursor, connection)


if __name__ == "__main__":
    main()
