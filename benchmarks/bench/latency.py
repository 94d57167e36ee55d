"""The latency floor: a two-stage GROUP BY over 25 rows through Flight SQL, one client, one query at a time."""

import argparse
import statistics
import time

from . import report, tpch
from .servers import Server

QUERY = "SELECT n_regionkey, count(*) FROM nation GROUP BY n_regionkey"
GROUPS = 5


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=30)
    parser.add_argument("--cores", type=int, default=2)


def times(server: Server, engine: str, count: int, warm_up: int) -> list[float]:
    taken = []
    with tpch.flight(server, engine) as ask:
        for number in range(warm_up + count):
            begun = time.perf_counter()
            answer = ask(QUERY)
            if number >= warm_up:
                taken.append((time.perf_counter() - begun) * 1000)
            if answer.num_rows != GROUPS:
                raise SystemExit(f"{engine}: {answer.num_rows} rows instead of {GROUPS}")
    return taken


def run(arguments: argparse.Namespace) -> None:
    folder = tpch.data(1)
    found = {}
    for engine, executors in [("in_process", 0), ("pipelined", 2), ("staged", 2)]:
        with Server(arguments.program, executors, arguments.cores) as server:
            tpch.declare(server, folder)
            found[engine] = sorted(times(server, engine, arguments.count, arguments.warm_up))
    rows = [
        [engine, f"{taken[0]:.1f}", f"{statistics.median(taken):.1f}", f"{taken[int(len(taken) * 0.99)]:.1f}"]
        for engine, taken in found.items()
    ]
    text = report.table(["ms", "least", "p50", "p99"], rows)
    report.write(
        arguments.results,
        "latency",
        arguments.program,
        {"query": QUERY, "milliseconds": found},
        f"# Latency floor\n\n`{QUERY}` over 25 rows, {arguments.count} times through Flight SQL.\n\n{text}",
    )
