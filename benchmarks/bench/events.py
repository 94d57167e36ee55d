"""100 million events in a Delta table, in the order of their time: what a dashboard asks, through Flight SQL.

The table is made once by delta-rs (see events_data.py). Each question is asked many times, one after the other, and
its answer compared with DuckDB's, which reads the files that the table's log names.
"""

import argparse
import math
import os
import tempfile
from pathlib import Path

import deltalake
import duckdb

from . import answers, engines, events_data, report
from .engines import IN_PROCESS, PIPELINED, STAGED, QueryFailed, Tidemill
from .servers import Server

WANTED_MILLISECONDS = 300
QUERIES = {
    "by type and hour, last day": """
SELECT event_type, date_trunc('hour', ts) AS hour, count(*) AS events
FROM events WHERE ts >= TIMESTAMP '2026-03-31 00:00:00'
GROUP BY event_type, date_trunc('hour', ts) ORDER BY hour, event_type""",
    "unique users a day, last 7 days": """
SELECT date_trunc('day', ts) AS day, count(DISTINCT user_id) AS users
FROM events WHERE ts >= TIMESTAMP '2026-03-25 00:00:00'
GROUP BY date_trunc('day', ts) ORDER BY day""",
    "top 10 types, all": """
SELECT event_type, count(*) AS events FROM events GROUP BY event_type ORDER BY events DESC LIMIT 10""",
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=100_000_000, help="of the table; default 100 million")
    parser.add_argument("--count", type=int, default=50, help="of each question; default 50")
    parser.add_argument("--warm-up", type=int, default=3, help="default 3")
    parser.add_argument("--cores", type=int, default=2, help="default 2")
    parser.add_argument(
        "--engines", nargs="*", choices=[IN_PROCESS, PIPELINED, STAGED], default=[IN_PROCESS, PIPELINED]
    )


def data(rows: int) -> Path:
    label = f"{rows // 1_000_000}m" if rows % 1_000_000 == 0 else str(rows)
    folder = Path(os.environ["TIDEMILL_BENCHMARKS"]) / "data" / f"events-{label}"
    if not (folder / "_delta_log").exists():
        # The log's first entry is written last.
        events_data.make(folder, rows)
    return folder


def judge(folder: Path, cores: int, scratch: str) -> duckdb.DuckDBPyConnection:
    connection = answers.connect({}, cores, Path(scratch))
    files = deltalake.DeltaTable(str(folder)).file_uris()
    # Without its time zone extension DuckDB can do little with points in time; these are UTC all the same.
    connection.execute(
        f"CREATE VIEW events AS SELECT * REPLACE (make_timestamp(epoch_us(ts)) AS ts) FROM read_parquet({files})"
    )
    return connection


def percentile(ordered: list[float], share: float) -> float:
    """The least that so large a share of all does not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def ask(asked: Tidemill, query: str, arguments: argparse.Namespace, expected: answers.Expected) -> list[float]:
    taken = []
    for number in range(arguments.warm_up + arguments.count):
        answer = asked.ask(query, fetch=True)
        fault = expected.difference(answer.table)
        if fault:
            raise QueryFailed(f"wrong answer: {fault}")
        if number >= arguments.warm_up:
            taken.append(answer.seconds * 1000)
    return sorted(taken)


def run(arguments: argparse.Namespace) -> None:
    folder = data(arguments.rows)
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-duckdb-") as scratch, engines.bound_to(arguments.cores):
        for engine in arguments.engines:
            executors = 0 if engine == IN_PROCESS else arguments.cores
            with Server(arguments.program, executors, arguments.cores) as server:
                with server.connect() as connection, connection.cursor() as cursor:
                    cursor.execute(f"CREATE EXTERNAL TABLE events STORED AS DELTA LOCATION '{folder}'")
                asked = Tidemill(server, engine, limit_seconds=120)
                for name, query in QUERIES.items():
                    with judge(folder, arguments.cores, scratch) as connection:
                        expected = answers.Expected(connection, query)
                        found.setdefault(name, {})[engine] = ask(asked, query, arguments, expected)
                    print(f"{engine}: {name} is done", flush=True)
                asked.close()
    rows = []
    for name, each in found.items():
        for engine, taken in each.items():
            p95 = percentile(taken, 0.95)
            values = [taken[0], percentile(taken, 0.5), p95, percentile(taken, 0.99)]
            held = "yes" if p95 < WANTED_MILLISECONDS else "no"
            rows.append([f"{name}, {engine}", *(f"{value:.0f}" for value in values), held])
    header = ["ms", "least", "p50", "p95", "p99", f"p95 under {WANTED_MILLISECONDS}"]
    questions = "\n\n".join(f"{name}:\n\n```sql{query}\n```" for name, query in QUERIES.items())
    report.write(
        arguments.results,
        "events",
        arguments.program,
        {"rows": arguments.rows, "queries": QUERIES, "milliseconds": found},
        f"# {arguments.rows:,} events in a Delta table\n\nEach question {arguments.count} times through Flight SQL, one "
        f"client, {arguments.cores} cores; every answer equals DuckDB {duckdb.__version__}'s.\n\n"
        f"{report.table(header, rows)}\n\n{questions}",
    )
