"""What SQLAlchemy and Superset do, cell by cell: `sqlalchemy_matrix.py URL`.

Superset's calls, from its models and engine specifications: a ping, the names of schemas, tables and views, the
columns of a table, a sample, a time grain in GROUP BY, and a query inside of another one with a limit.
"""

import contextlib
import sys

import sqlalchemy
from cells import cell, expect
from sqlalchemy import text

with contextlib.suppress(ImportError):
    import flightsql.sqlalchemy  # noqa: F401, this dialect registers itself only when it is imported

URL = sys.argv[1]
TABLE = "alchemy_t"


def main():
    engine = sqlalchemy.create_engine(URL)
    with engine.connect() as connection:

        def run(statement):
            return connection.execute(text(statement)).fetchall()

        with cell("ping (SELECT 1)"):
            expect([tuple(row) for row in run("SELECT 1")], [(1,)])
        with cell("CREATE TABLE, INSERT"):
            for statement in (
                f"DROP TABLE IF EXISTS {TABLE}",
                f"CREATE TABLE {TABLE} (n BIGINT, w VARCHAR, at TIMESTAMP)",
                f"INSERT INTO {TABLE} VALUES (1, 'one', '2026-01-01T10:00:00Z'), (2, 'two', '2026-01-02T10:00:00Z')",
            ):
                connection.execute(text(statement))
        with cell("names of schemas, tables and views"):
            inspector = sqlalchemy.inspect(engine)
            assert "public" in inspector.get_schema_names(), inspector.get_schema_names()
            assert TABLE in inspector.get_table_names("public"), inspector.get_table_names("public")
            inspector.get_view_names("public")
        with cell("columns of a table"):
            columns = sqlalchemy.inspect(engine).get_columns(TABLE, schema="public")
            expect([column["name"] for column in columns], ["n", "w", "at"])
        with cell("keys and indexes of a table"):
            inspector = sqlalchemy.inspect(engine)
            expect(list(inspector.get_foreign_keys(TABLE, schema="public")), [])
            expect(list(inspector.get_indexes(TABLE, schema="public")), [])
        with cell("bound parameter"):
            table = sqlalchemy.table(TABLE, sqlalchemy.column("n"), sqlalchemy.column("w"))
            found = connection.execute(sqlalchemy.select(table.c.w).where(table.c.n == 2)).fetchall()
            expect([tuple(row) for row in found], [("two",)])
        with cell("Superset: sample of a table"):
            expect(len(run(f"SELECT * FROM public.{TABLE} LIMIT 100")), 2)
        with cell("Superset: time grain in GROUP BY"):
            grain = "DATE_TRUNC('day', at)"
            statement = f'SELECT {grain} AS __timestamp, COUNT(*) AS count FROM public.{TABLE} GROUP BY {grain} '
            expect(len(run(statement + "ORDER BY count DESC LIMIT 10000")), 2)
        with cell("Superset: query inside of a query"):
            inner = f"SELECT n, w FROM public.{TABLE}"
            statement = f"SELECT w AS w, SUM(n) AS total FROM ({inner}) AS virtual_table GROUP BY w LIMIT 1000"
            expect(sorted(tuple(row) for row in run(statement)), [("one", 1), ("two", 2)])


if __name__ == "__main__":
    main()
