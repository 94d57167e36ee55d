"""64 clients at once: most of them with point queries on a Delta table, some with TPC-H in a loop.

Every client is a connection and a thread of its own, in a few processes. Counted are errors and wrong answers of both,
and how long the point queries take. The point query is prepared once per client and bound to another key each time.
"""

import argparse
import contextlib
import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.queues import Queue

from . import events, latency, report, tpch
from .engines import AUTO, IN_PROCESS, PIPELINED, STAGED
from .light import Light
from .servers import Server

PROCESSES = 4
POINT = latency.POINT.replace("{key}", "?")
WANTED_MILLISECONDS = 300
# Of what was wrong, this many are shown.
SHOWN = 5


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, default=60, help="with point queries; default 60")
    parser.add_argument("--heavy", type=int, default=4, help="with TPC-H; default 4")
    parser.add_argument("--seconds", type=float, default=60, help="default 60")
    parser.add_argument("--scale", type=float, default=1, help="TPC-H's scale factor; default 1")
    parser.add_argument("--cores", type=int, default=2, help="default 2")
    parser.add_argument(
        "--engines", nargs="*", choices=[IN_PROCESS, AUTO, PIPELINED, STAGED], default=[IN_PROCESS, AUTO, PIPELINED]
    )
    parser.add_argument("--text", action="store_true", help="send the point query as text, not prepared and bound")


@dataclass
class Task:
    """What one process is to do."""

    flight: str
    engine: str
    points: int
    heavy: int
    seconds: float
    scale: float
    prepared: bool
    seed: int
    # The rows of each query's answer, as they were without load.
    queries: dict[str, tuple[str, int]]


@dataclass
class Outcome:
    milliseconds: list[float] = field(default_factory=list)
    queries: int = 0
    faults: list[str] = field(default_factory=list)


def point_client(task: Task, number: int, start: threading.Barrier, outcome: Outcome) -> None:
    draw = random.Random(task.seed * 1000 + number)
    with connected(task) as light:
        prepared = light.prepare(POINT) if task.prepared else None
        start.wait()
        deadline = time.monotonic() + task.seconds
        while time.monotonic() < deadline:
            key = latency.order_key(draw, task.scale)
            begun = time.perf_counter()
            try:
                answer = prepared.ask(key) if prepared else light.ask(POINT.replace("?", str(key)))
                keys = answer.column(0).to_pylist()
                outcome.milliseconds.append((time.perf_counter() - begun) * 1000)
                if keys != [key]:
                    outcome.faults.append(f"key {key}: {keys}")
            except Exception as error:  # every failure is a result here
                outcome.faults.append(f"point query: {error}")


def heavy_client(task: Task, number: int, start: threading.Barrier, outcome: Outcome) -> None:
    names = list(task.queries)
    # Each begins with another query.
    place = (task.seed + number) * 5
    with connected(task) as light:
        start.wait()
        deadline = time.monotonic() + task.seconds
        while time.monotonic() < deadline:
            query, rows = task.queries[names[place % len(names)]]
            place += 1
            try:
                found = light.ask(query).num_rows
                outcome.queries += 1
                if found != rows:
                    outcome.faults.append(f"{names[(place - 1) % len(names)]}: {found} rows instead of {rows}")
            except Exception as error:  # every failure is a result here
                outcome.faults.append(f"TPC-H: {error}")


@contextlib.contextmanager
def connected(task: Task) -> Iterator[Light]:
    with Light(task.flight) as light:
        light.ask(setting(task.engine))
        yield light


def setting(engine: str) -> str:
    return f"SET engine = '{engine.replace('-', '_')}'"


def process(task: Task, start: threading.Barrier, outcomes: Queue) -> None:
    clients = [(point_client, number) for number in range(task.points)]
    clients += [(heavy_client, number) for number in range(task.heavy)]
    found = [Outcome() for _ in clients]

    def safely(client, number: int, outcome: Outcome) -> None:
        try:
            client(task, number, start, outcome)
        except Exception as error:  # as when it cannot connect
            start.abort()
            outcome.faults.append(f"client: {error}")

    threads = [
        threading.Thread(target=safely, args=(client, number, outcome))
        for (client, number), outcome in zip(clients, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes.put(found)


def load(
    server: Server, engine: str, queries: dict[str, tuple[str, int]], arguments: argparse.Namespace
) -> list[Outcome]:
    context = multiprocessing.get_context("spawn")
    outcomes = context.Queue()
    start = context.Barrier(arguments.clients + arguments.heavy)
    workers = []
    for number in range(PROCESSES):
        share = [count // PROCESSES + (number < count % PROCESSES) for count in (arguments.clients, arguments.heavy)]
        task = Task(
            server.flight, engine, *share, arguments.seconds, arguments.scale, not arguments.text, number, queries
        )
        workers.append(context.Process(target=process, args=(task, start, outcomes)))
    for worker in workers:
        worker.start()
    # A TPC-H query that is under way at the end is waited for.
    found = [outcome for _ in workers for outcome in outcomes.get(timeout=arguments.seconds + 300)]
    for worker in workers:
        worker.join()
    return found


def run(arguments: argparse.Namespace) -> None:
    folder = tpch.data(arguments.scale)
    results = {}
    for engine in arguments.engines:
        executors = 0 if engine == IN_PROCESS else arguments.cores
        with Server(arguments.program, executors, arguments.cores) as server:
            tpch.declare(server, folder)
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute(latency.FILL)
                cursor.execute(setting(engine))
                queries = {}
                for name, query in tpch.queries().items():
                    cursor.execute(query)
                    queries[name] = (query, cursor.fetch_arrow_table().num_rows)
            outcomes = load(server, engine, queries, arguments)
        taken = sorted(value for outcome in outcomes for value in outcome.milliseconds)
        faults = [fault for outcome in outcomes for fault in outcome.faults]
        results[engine] = {
            "point_queries": len(taken),
            "tpch_queries": sum(outcome.queries for outcome in outcomes),
            "errors": len(faults),
            "faults": faults[:SHOWN],
            "milliseconds": {
                f"p{round(share * 100)}": events.percentile(taken, share) for share in (0.5, 0.95, 0.99) if taken
            },
            # Whether one was left behind by the others.
            "least_of_a_client": min(len(outcome.milliseconds) for outcome in outcomes if not outcome.queries),
        }
        print(f"{engine}: {results[engine]}", flush=True)
    rows = [
        [engine, f"{each['point_queries']:,}", *(f"{value:.0f}" for value in each["milliseconds"].values()),
         f"{each['least_of_a_client']:,}", str(each["tpch_queries"]), str(each["errors"])]
        for engine, each in results.items()
    ]  # fmt: skip
    header = ["", "point queries", "p50, ms", "p95, ms", "p99, ms", "least of a client", "TPC-H queries", "errors"]
    shown = "\n".join(
        f"- {engine}: {' '.join(fault.split())[:200]}" for engine, each in results.items() for fault in each["faults"]
    )
    report.write(
        arguments.results,
        "concurrency",
        arguments.program,
        {"clients": arguments.clients, "heavy": arguments.heavy, "seconds": arguments.seconds, "engines": results},
        f"# {arguments.clients + arguments.heavy} clients at once\n\n{arguments.clients} of them with point queries on a "
        f"Delta table of {1_500_000 * arguments.scale:,.0f} orders, {arguments.heavy} with TPC-H at scale factor "
        f"{arguments.scale:g} in a loop, for {arguments.seconds:g} s on {arguments.cores} cores, which the clients "
        f"share.\n\n{report.table(header, rows)}\n\n{shown}".rstrip(),
    )
    if any(each["errors"] for each in results.values()):
        raise SystemExit("there were errors, see above")
