"""The latency floor: `SELECT 1`, a point query on a Delta table and a small GROUP BY; one client, one at a time.

The point query looks one order up by its key in a Delta table of 1.5 million, which Tidemill writes before. Each
statement is sent as text, through Flight SQL, and timed until its rows are here.
"""

import argparse
import random
import statistics

from . import report, tpch
from .engines import IN_PROCESS, PIPELINED, STAGED, Tidemill
from .servers import Server

GROUP = "SELECT n_regionkey, count(*) FROM nation GROUP BY n_regionkey"
POINT = "SELECT o_orderkey, o_custkey, o_totalprice, o_orderdate FROM lake_orders WHERE o_orderkey = {key}"
# In the order of their key, as a table that is loaded in order: its statistics say where a key is.
FILL = "CREATE TABLE lake_orders AS SELECT * FROM orders ORDER BY o_orderkey"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=200, help="default 200")
    parser.add_argument("--warm-up", type=int, default=30, help="default 30")
    parser.add_argument("--cores", type=int, default=2, help="default 2")
    parser.add_argument("--scale", type=float, default=1, help="TPC-H's scale factor, of the table; default 1")


def order_key(draw: random.Random, scale: float) -> int:
    """One that exists: of every 32 numbers TPC-H uses the first eight, and not 0."""
    number = draw.randint(1, int(1_500_000 * scale))
    return number // 8 * 32 + number % 8


def times(asked: Tidemill, arguments: argparse.Namespace) -> dict[str, list[float]]:
    draw = random.Random(1)
    statements = {
        "`SELECT 1`": (lambda: "SELECT 1", 1),
        "point query": (lambda: POINT.format(key=order_key(draw, arguments.scale)), 1),
        "`GROUP BY`, 25 rows": (lambda: GROUP, 5),
    }
    found: dict[str, list[float]] = {}
    for name, (statement, rows) in statements.items():
        taken = []
        for number in range(arguments.warm_up + arguments.count):
            query = statement()
            answer = asked.ask(query, fetch=True)
            if number >= arguments.warm_up:
                taken.append(answer.seconds * 1000)
            if answer.table.num_rows != rows:
                raise SystemExit(f"{asked.name}: {answer.table.num_rows} rows of {query}")
        found[name] = sorted(taken)
    return found


def run(arguments: argparse.Namespace) -> None:
    folder = tpch.data(arguments.scale)
    found = {}
    for engine, executors in [(IN_PROCESS, 0), (PIPELINED, 2), (STAGED, 2)]:
        with Server(arguments.program, executors, arguments.cores) as server:
            tpch.declare(server, folder)
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute(FILL)
            asked = Tidemill(server, engine, limit_seconds=60)
            for name, taken in times(asked, arguments).items():
                found[f"{name}, {engine}"] = taken
            asked.close()
    rows = [
        [name, f"{taken[0]:.1f}", f"{statistics.median(taken):.1f}", f"{taken[int(len(taken) * 0.99)]:.1f}"]
        for name, taken in sorted(found.items())
    ]
    text = report.table(["ms", "least", "p50", "p99"], rows)
    report.write(
        arguments.results,
        "latency",
        arguments.program,
        {"point": POINT, "group": GROUP, "milliseconds": found},
        f"# Latency floor\n\nEach {arguments.count} times through Flight SQL, one client. The point query finds an "
        f"order by its key in a Delta table of {1_500_000 * arguments.scale:,.0f}; the `GROUP BY` is `{GROUP}`."
        f"\n\n{text}",
    )
