"""DataFrames built in Python, run by a Tidemill server: Substrait plans sent through ADBC.

    python substrait_smoke.py grpc://127.0.0.1:32010

Needs adbc-driver-flightsql, datafusion and pyarrow. With ibis-substrait beside them its plans are tried, too (it
needs `substrait<0.24` and pyarrow-hotfix); without it that part says that it was skipped.
"""

import argparse

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import datafusion
import pyarrow
from datafusion import SessionContext, col, lit
from datafusion import functions as f
from datafusion.expr import Window
from datafusion.substrait import Producer

ROWS = [(1, "one", 1.5), (2, "two", 2.5), (3, "two", 4.0), (4, None, 8.0)]


def check(what, holds, note=""):
    if not holds:
        raise SystemExit(f"FAILED {what}: {note}")
    print(f"ok {what} {note}".rstrip())


def setup(cursor):
    cursor.execute("DROP TABLE IF EXISTS frames_smoke")
    cursor.execute("CREATE TABLE frames_smoke (n BIGINT, word VARCHAR, price DOUBLE)")
    for n, word, price in ROWS:
        word = "NULL" if word is None else f"'{word}'"
        cursor.execute(f"INSERT INTO frames_smoke VALUES ({n}, {word}, {price})")


def mirror(connection):
    """A local session that knows the server's table by its columns."""
    context = SessionContext()
    schema = connection.adbc_get_table_schema("frames_smoke")
    empty = pyarrow.RecordBatch.from_pylist([], schema=schema)
    context.register_record_batches("frames_smoke", [[empty]])
    return context


def run(cursor, plan):
    cursor.execute(plan)
    return cursor.fetchall()


def data_frames(cursor, context):
    def collect(frame):
        return run(cursor, Producer.to_substrait_plan(frame.logical_plan(), context).encode())

    table = context.table("frames_smoke")
    frame = table.filter(col("n") > lit(1)).select((col("n") * lit(10)).alias("ten"), col("word")).sort(col("ten").sort())
    check("filter, select, sort", collect(frame) == [(20, "two"), (30, "two"), (40, None)])
    frame = table.aggregate([col("word")], [f.sum(col("price")).alias("total"), f.count(lit(1)).alias("rows")])
    frame = frame.filter(~col("word").is_null()).sort(col("word").sort())
    check("group, aggregate", collect(frame) == [("one", 1.5, 1), ("two", 6.5, 2)])
    other = context.table("frames_smoke").select(col("n").alias("m"), col("word").alias("same"))
    frame = table.join(other, left_on=["word"], right_on=["same"], how="inner").select("n", "m").sort(col("n").sort(), col("m").sort())
    check("self join", collect(frame) == [(1, 1), (2, 2), (2, 3), (3, 2), (3, 3)])
    place = f.row_number().over(Window(order_by=[col("price").sort(ascending=False)])).alias("place")
    frame = table.select(col("n"), place).sort(col("place").sort()).limit(2)
    check("window, limit", collect(frame) == [(4, 1), (3, 2)])
    frame = context.sql("SELECT n FROM frames_smoke WHERE price > (SELECT avg(price) FROM frames_smoke)")
    check("subquery", collect(frame) == [(4,)])
    frame = context.sql("SELECT upper(word) AS u FROM frames_smoke WHERE word LIKE 'o%' UNION ALL SELECT 'x'")
    check("union, functions", sorted(collect(frame)) == [("ONE",), ("x",)])


def prepared(cursor, context):
    plan = context.sql("SELECT word FROM frames_smoke WHERE n > 2 ORDER BY n").logical_plan()
    cursor.adbc_prepare(Producer.to_substrait_plan(plan, context).encode())
    check("prepared", run(cursor, Producer.to_substrait_plan(plan, context).encode()) == [("two",), (None,)])


def errors(cursor, context):
    empty = pyarrow.RecordBatch.from_pylist([], schema=pyarrow.schema([("n", pyarrow.int64())]))
    context.register_record_batches("no_such_table", [[empty]])
    plan = Producer.to_substrait_plan(context.table("no_such_table").logical_plan(), context).encode()
    for what, sent, code in [("missing table", plan, "TM-1003"), ("no plan at all", b"SELECT 1", "TM-1008")]:
        try:
            cursor.execute(sent)
        except adbc_driver_manager.Error as error:
            check(what, code in str(error), str(error).splitlines()[0])
        else:
            check(what, False, "was not an error")


def ibis_frames(connection, cursor):
    try:
        import ibis
        from ibis_substrait.compiler.core import SubstraitCompiler
    except (ImportError, AttributeError) as error:
        print(f"SKIPPED ibis-substrait: {error}")
        return
    schema = ibis.Schema.from_pyarrow(connection.adbc_get_table_schema("frames_smoke"))
    table = ibis.table(schema, name="frames_smoke")
    later = table.filter(table.n > 1)
    grouped = later.group_by("word").agg(total=later.price.sum(), rows=later.count()).order_by("total")
    plan = SubstraitCompiler().compile(grouped).SerializeToString()
    check("ibis-substrait", run(cursor, plan) == [("two", 6.5, 2), (None, 8.0, 1)], f"ibis {ibis.__version__}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("uri")
    arguments.add_argument("--server-pid", type=int, help="not used: the other scripts take it")
    arguments.add_argument("--user")
    arguments.add_argument("--password")
    given = arguments.parse_args()
    options = {}
    if given.user:
        options[adbc_driver_manager.DatabaseOptions.USERNAME.value] = given.user
        options[adbc_driver_manager.DatabaseOptions.PASSWORD.value] = given.password or ""
    print(f"adbc-driver-flightsql {adbc_driver_flightsql.__version__}, datafusion {datafusion.__version__}")
    with flightsql.connect(given.uri, db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            setup(cursor)
            context = mirror(connection)
            data_frames(cursor, context)
            prepared(cursor, context)
            errors(cursor, context)
            ibis_frames(connection, cursor)
            cursor.execute("DROP TABLE frames_smoke")
    print("ok")


if __name__ == "__main__":
    main()
