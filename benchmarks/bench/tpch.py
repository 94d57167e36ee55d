"""TPC-H: 22 queries over Parquet on every engine, answers checked against DuckDB's.

Each round runs each query on all engines, one after the other, so that noise of the machine meets all of them.
The first round warms up; of the others the best counts. Plain DataFusion (from PyPI) runs in this process on the
same files and as many threads; Tidemill is asked through Flight SQL, with all that this costs.
"""

import argparse
import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import datafusion
import duckdb
import pyarrow

from . import answers, report
from .servers import Server

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]
QUERIES = Path(__file__).parent.parent / "tpch"
PLAIN = "DataFusion 55"
IN_PROCESS, PIPELINED, STAGED = "in-process", "pipelined", "staged"

Ask = Callable[[str], pyarrow.Table]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="after the one that warms up")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--queries", nargs="*", help="for example q01 q18; all by default")


def data(scale: float) -> Path:
    folder = Path(os.environ["TIDEMILL_BENCHMARKS"]) / "data" / f"tpch-sf{scale:g}"
    if not (folder / "region.parquet").exists():
        generator = Path(os.environ["TIDEMILL_BENCHMARKS"]) / "venv/bin/tpchgen-cli"
        subprocess.run([generator, "parquet", "-s", str(scale), "--output-dir", folder], check=True)
    return folder


def duck(folder: Path, cores: int) -> Ask:
    connection = duckdb.connect(config={"threads": cores})
    for table in TABLES:
        connection.sql(f"CREATE VIEW {table} AS SELECT * FROM '{folder}/{table}.parquet'")
    return lambda query: connection.sql(query).to_arrow_table()


def plain(folder: Path, cores: int) -> Ask:
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(cores))
    for table in TABLES:
        context.register_parquet(table, folder / f"{table}.parquet")

    def ask(query: str) -> pyarrow.Table:
        frame = context.sql(query)
        return pyarrow.Table.from_batches(frame.collect(), schema=frame.schema())

    return ask


def declare(server: Server, folder: Path) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(
                f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{folder}/{table}.parquet'"
            )


@contextlib.contextmanager
def flight(server: Server, engine: str):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET engine = '{engine}'")

        def ask(query: str) -> pyarrow.Table:
            cursor.execute(query)
            return cursor.fetch_arrow_table()

        yield ask


def measure(engines: dict[str, Ask], queries: dict[str, str], rounds: int) -> dict[str, dict[str, list[float]]]:
    times = {name: {engine: [] for engine in engines} for name in queries}
    for number in range(rounds + 1):
        for name, query in queries.items():
            for engine, ask in engines.items():
                begun = time.perf_counter()
                ask(query)
                if number > 0:
                    times[name][engine].append(time.perf_counter() - begun)
        print(f"round {number} of {rounds} is done", flush=True)
    return times


def check(engines: dict[str, Ask], queries: dict[str, str], expected: Ask) -> list[str]:
    wrong = []
    for name, query in queries.items():
        answer = expected(query)
        for engine, ask in engines.items():
            try:
                found = answers.difference(ask(query), answer)
            except Exception as error:  # every failure is a result here
                found = f"failed: {error}"
            if found:
                wrong.append(f"{name} {engine}: {found}")
                print(wrong[-1], flush=True)
    return wrong


def summary(times: dict[str, dict[str, list[float]]]) -> tuple[str, dict[str, float]]:
    best = {name: {engine: min(runs) for engine, runs in each.items()} for name, each in times.items()}
    names = list(next(iter(best.values())))
    rows = [[name] + [f"{each[engine] * 1000:.0f}" for engine in names] for name, each in best.items()]
    totals = {engine: sum(each[engine] for each in best.values()) for engine in names}
    rows.append(["total"] + [f"{totals[engine] * 1000:.0f}" for engine in names])
    means = {engine: report.geometric_mean([each[engine] for each in best.values()]) for engine in names}
    rows.append(["geometric mean"] + [f"{means[engine] * 1000:.0f}" for engine in names])
    ratios = {
        "in-process / DataFusion": means[IN_PROCESS] / means[PLAIN],
        "pipelined / in-process": means[PIPELINED] / means[IN_PROCESS],
        "staged / in-process": means[STAGED] / means[IN_PROCESS],
    }
    lines = "\n".join(f"- {name}: {ratio:.2f}" for name, ratio in ratios.items())
    return report.table(["ms, best of the rounds", *names], rows) + f"\n\nRatios of the geometric means:\n\n{lines}", ratios


def run(arguments: argparse.Namespace) -> None:
    folder = data(arguments.scale)
    queries = {
        file.stem: file.read_text()
        for file in sorted(QUERIES.glob("*.sql"))
        if not arguments.queries or file.stem in arguments.queries
    }
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(Server(arguments.program, executors=0, cores=arguments.cores))
        cluster = stack.enter_context(
            Server(arguments.program, executors=arguments.cores, cores=arguments.cores)
        )
        declare(local, folder)
        declare(cluster, folder)
        engines = {
            PLAIN: plain(folder, arguments.cores),
            IN_PROCESS: stack.enter_context(flight(local, "in_process")),
            PIPELINED: stack.enter_context(flight(cluster, "pipelined")),
            STAGED: stack.enter_context(flight(cluster, "staged")),
        }
        wrong = check(engines, queries, duck(folder, arguments.cores))
        print(f"{len(queries)} queries on {len(engines)} engines: {len(wrong)} wrong answers", flush=True)
        if wrong:
            raise SystemExit(1)
        times = measure(engines, queries, arguments.rounds)
    text, ratios = summary(times)
    checked = f"All {len(queries)} answers of every engine equal DuckDB {duckdb.__version__}'s."
    report.write(
        arguments.results,
        f"tpch-sf{arguments.scale:g}",
        arguments.program,
        {"scale": arguments.scale, "rounds": arguments.rounds, "seconds": times, "ratios": ratios},
        f"# TPC-H at scale factor {arguments.scale:g}\n\n{checked}\n\n{text}",
    )
