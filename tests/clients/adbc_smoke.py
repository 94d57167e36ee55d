"""What Python people do with a Flight SQL server: connect, look around, query, bind, stream.

    python3 -m venv venv
    venv/bin/pip install adbc-driver-flightsql adbc-driver-manager pyarrow pandas polars
    venv/bin/python adbc_smoke.py grpc://127.0.0.1:32010 [--rows 10000000] [--server-pid PID] [--user U --password P]

Every check raises on failure; the last line is `ok`. With --server-pid the memory of the server must stay flat
while ten million rows are fetched.
"""

import argparse
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pandas
import polars
import pyarrow
import pyarrow.compute


def check(name, condition, detail=""):
    if not condition:
        raise SystemExit(f"FAILED: {name} {detail}")
    print(f"{name}: {detail}" if detail != "" else name, flush=True)


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
    return 0


def look_around(connection):
    info = connection.adbc_get_info()
    check("info", info["vendor_name"] == "Tidemill", info.get("vendor_version"))
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    tables = {
        table["table_name"]: [column["column_name"] for column in table["table_columns"] or []]
        for catalog in objects
        for schema in catalog["catalog_db_schemas"] or []
        for table in schema["db_schema_tables"] or []
    }
    check("tables", tables.get("adbc_smoke") == ["n", "word"], len(tables))
    check("table types", "TABLE" in connection.adbc_get_table_types())
    schema = connection.adbc_get_table_schema("adbc_smoke")
    check("table schema", schema.names == ["n", "word"], str(schema.types))


def change_and_query(cursor):
    cursor.execute("DROP TABLE IF EXISTS adbc_smoke")
    cursor.execute("CREATE TABLE adbc_smoke (n BIGINT, word VARCHAR)")
    cursor.execute("INSERT INTO adbc_smoke VALUES (1, 'one'), (2, 'two')")
    cursor.execute("SELECT word, n FROM adbc_smoke ORDER BY n")
    check("rows", cursor.fetchall() == [("one", 1), ("two", 2)])


def prepared(cursor):
    cursor.executemany("INSERT INTO adbc_smoke VALUES (?, ?)", [(n, f"w{n}") for n in range(3, 103)])
    check("executemany", cursor.rowcount in (100, -1), cursor.rowcount)
    cursor.execute("SELECT count(*) FROM adbc_smoke")
    check("rows after executemany", cursor.fetchone() == (102,))
    for n in (7, 42):
        cursor.execute("SELECT word FROM adbc_smoke WHERE n = ?", (n,))
        check("bound ?", cursor.fetchone() == (f"w{n}",))
    cursor.execute("SELECT count(*) FROM adbc_smoke WHERE n > $1 AND word LIKE $2", (50, "w5%"))
    check("bound $1, $2", cursor.fetchone() == (9,))
    schema = cursor.adbc_execute_schema("SELECT n, word FROM adbc_smoke")
    check("schema without running", schema.names == ["n", "word"])
    parameters = cursor.adbc_prepare("SELECT word FROM adbc_smoke WHERE n = ?")
    check("parameter schema", parameters is not None and parameters.field(0).type == pyarrow.int64())


def frames(connection, cursor):
    sql = "SELECT n, word FROM adbc_smoke ORDER BY n LIMIT 5"
    frame = pandas.read_sql(sql, connection)
    check("pandas", frame["n"].tolist() == [1, 2, 3, 4, 5])
    cursor.execute(sql)
    check("pandas from arrow", cursor.fetch_df()["word"].tolist()[:2] == ["one", "two"])
    frame = polars.read_database(sql, connection)
    check("polars", frame["n"].sum() == 15, str(frame.schema))


def errors(cursor):
    try:
        cursor.execute("SELECT nn FROM adbc_smoke")
    except adbc_driver_manager.Error as error:
        check("error", "TM-1002" in str(error) and "`n`" in str(error), str(error).splitlines()[0])
    else:
        check("error", False, "a missing column was not an error")


def stream(cursor, rows, pid):
    before = resident_mib(pid) if pid else 0
    peak, count, total, batches = before, 0, 0, 0
    started = time.monotonic()
    cursor.execute(f"SELECT value AS n, value * 2 AS twice FROM generate_series(1, {rows})")
    for batch in cursor.fetch_record_batch():
        count += batch.num_rows
        batches += 1
        total += pyarrow.compute.sum(batch.column("n")).as_py()
        if pid and batches % 100 == 0:
            peak = max(peak, resident_mib(pid))
    seconds = time.monotonic() - started
    check("streamed", count == rows and total == rows * (rows + 1) // 2, f"{count} rows, {batches} batches, {seconds:.2f} s")
    if pid:
        check("server memory flat", peak - before < 100, f"{before} MiB before, {peak} MiB at most")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("uri")
    arguments.add_argument("--rows", type=int, default=10_000_000)
    arguments.add_argument("--server-pid", type=int)
    arguments.add_argument("--user")
    arguments.add_argument("--password")
    given = arguments.parse_args()
    options = {}
    if given.user:
        options[adbc_driver_manager.DatabaseOptions.USERNAME.value] = given.user
        options[adbc_driver_manager.DatabaseOptions.PASSWORD.value] = given.password or ""
    print(f"adbc-driver-flightsql {adbc_driver_flightsql.__version__}, pyarrow {pyarrow.__version__}")
    with flightsql.connect(given.uri, db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            change_and_query(cursor)
            look_around(connection)
            prepared(cursor)
            frames(connection, cursor)
            errors(cursor)
            stream(cursor, given.rows, given.server_pid)
            cursor.execute("DROP TABLE adbc_smoke")
    print("ok")


if __name__ == "__main__":
    main()
