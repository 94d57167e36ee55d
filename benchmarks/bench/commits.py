"""Many commits into one table: does the rate hold, and the memory; and do writers that share a table lose anything?

Two parts. `sink`: one client inserts a few rows at a time into one table of a folder and looks after nothing; the
table looks after itself. INSERTs commit as pipelines and loads do. `shared`: one table on S3 and two servers that know
nothing of each other; a writer on each, OPTIMIZE again and again on the first, and a reader on each that looks whether
what it sees is whole: of each writer's rows the first so many, once each, and at least what was told to be committed.
In the end delta-rs counts too. The store is that of `. .services/env`.
"""

import argparse
import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import deltalake
import pyarrow.compute as compute

from . import report
from .servers import Server

SINK, SHARED = "sink", "shared"
TABLE = "sink"
# Commits between two points of a plot.
STEP = 50
# Of the shared table, between two OPTIMIZEs.
OPTIMIZE_EVERY = 25
# Between two reads of a reader.
READ_SECONDS = 0.5
# Twice `maintenance.interval`, and some: by then a table that looks after itself has done so.
CARED_FOR_SECONDS = 90
# The rows of writer `n` have ids from `n` times this on.
WRITER = 1_000_000_000
# From the second quarter of the commits to the last one. Before that caches fill.
WANTED_RATE, WANTED_MEMORY = 0.8, 1.25
# Of what was wrong, this many are shown.
SHOWN = 5


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="*", choices=[SINK, SHARED], default=[SINK, SHARED])
    parser.add_argument("--commits", type=int, default=5_000, help="into the sink table; default 5,000")
    parser.add_argument("--shared-commits", type=int, default=1_000, help="of both writers together; default 1,000")
    parser.add_argument("--rows", type=int, default=100, help="of a commit; default 100")


def insert(table: str, first: int, rows: int) -> str:
    return (
        f"INSERT INTO {table} SELECT value, concat('name ', value), to_timestamp_seconds(value) "
        f"FROM generate_series({first}, {first + rows - 1})"
    )


class Points:
    """Rate and memory, a point every so many commits."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers, self.points = servers, []
        self.begun = self.last = time.monotonic()

    def add(self, commits: int) -> None:
        now = time.monotonic()
        memory = sum(server.memory_mib() for server in self.servers)
        rate = STEP / (now - self.last)
        self.points.append({"commits": commits, "seconds": now - self.begun, "rate": rate, "memory_mib": memory})
        self.last = now


def quarters(points: list[dict]) -> list[dict[str, float]]:
    """The means of each quarter of the points, or of what there is."""
    bounds = [len(points) * number // 4 for number in range(5)]
    parts = [points[begin:end] for begin, end in zip(bounds, bounds[1:], strict=False) if end > begin]
    return [{key: sum(point[key] for point in part) / len(part) for key in ("rate", "memory_mib")} for part in parts]


def flat(points: list[dict]) -> list[str]:
    """What is not."""
    found = quarters(points)
    if len(found) < 4:
        return ["too few commits to see whether the rate holds"]
    rate, memory = (found[3][key] / found[1][key] for key in ("rate", "memory_mib"))
    faults = [f"the commit rate fell to {rate:.2f} of the second quarter's"] if rate < WANTED_RATE else []
    return faults + ([f"memory grew to {memory:.2f} of the second quarter's"] if memory > WANTED_MEMORY else [])


def described(points: list[dict]) -> str:
    names = ["first quarter", "second", "third", "last"]
    rows = [
        [name, f"{each['rate']:.1f}", f"{each['memory_mib']:.0f}"]
        for name, each in zip(names, quarters(points), strict=False)
    ]
    return report.table(["", "commits/s", "MiB"], rows)


def sink(arguments: argparse.Namespace) -> tuple[dict, str, list[str]]:
    commits, rows, faults = arguments.commits, arguments.rows, []
    with Server(arguments.program, executors=0) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {TABLE} (id BIGINT, name VARCHAR, at TIMESTAMP)")
            points = Points([server])
            for commit in range(commits):
                cursor.execute(insert(TABLE, commit * rows, rows))
                if (commit + 1) % STEP == 0:
                    points.add(commit + 1)
            cursor.execute(f"SELECT count(*), count(DISTINCT id) FROM {TABLE}")
            found = tuple(cursor.fetchone())
        if found != (commits * rows, commits * rows):
            faults.append(f"rows are lost, or there twice: {found} instead of {commits * rows}")
        path = Path(server.root) / "public" / TABLE
        table = deltalake.DeltaTable(path)
        files, version = len(table.file_uris()), table.version()
        entries = sum(1 for _ in (path / "_delta_log").iterdir())
    # CREATE TABLE is version 0.
    compacted = version - commits
    if not compacted and points.points[-1]["seconds"] > CARED_FOR_SECONDS:
        faults.append("the table did not look after itself: it was never compacted")
    faults += flat(points.points)
    text = (
        f"# A sink table\n\n{commits:,} INSERTs of {rows} rows, one after the other, into a folder. The table was "
        f"compacted {compacted} times without being asked; at version {version:,} it has {files:,} files, and its log "
        f"{entries:,}.\n\n{described(points.points)}\n\n"
        "![rate and memory](commits-sink.svg)"
    )
    draw(points.points, "One sink table that looks after itself", arguments.results / "commits-sink.svg")
    result = {"commits": commits, "version": version, "files": files, "entries": entries, "points": points.points}
    return result, text, faults


@dataclass
class Shared:
    """What the threads of the second part know of each other."""

    commits: int
    rows: int
    # Of each writer, those that the server has confirmed.
    confirmed: list[int] = field(default_factory=lambda: [0, 0])
    reads: int = 0
    optimized: int = 0
    faults: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def write(self, server: Server, writer: int) -> None:
        with server.connect() as connection, connection.cursor() as cursor:
            for commit in range(self.commits // 2):
                cursor.execute(insert("shared", writer * WRITER + commit * self.rows, self.rows))
                self.confirmed[writer] = commit + 1

    def optimize(self, server: Server) -> None:
        last = 0
        with server.connect() as connection, connection.cursor() as cursor:
            while not self.done.wait(0.05):
                if sum(self.confirmed) - last >= OPTIMIZE_EVERY:
                    last = sum(self.confirmed)
                    cursor.execute("OPTIMIZE shared")
                    cursor.fetchall()
                    self.optimized += 1

    def read(self, server: Server) -> None:
        with server.connect() as connection, connection.cursor() as cursor:
            while not self.done.wait(READ_SECONDS):
                least = list(self.confirmed)
                cursor.execute(
                    f"SELECT id / {WRITER}, count(*), count(DISTINCT id), min(id) % {WRITER}, max(id) % {WRITER} "
                    "FROM shared GROUP BY 1"
                )
                self.check("a reader", {int(row[0]): tuple(row[1:]) for row in cursor.fetchall()}, least)
                self.reads += 1

    def check(self, who: str, found: dict[int, tuple[int, int, int, int]], least: list[int]) -> None:
        for writer, confirmed in enumerate(least):
            rows, different, first, last = found.get(writer, (0, 0, 0, -1))
            if rows != different or first != 0 or last + 1 != rows or rows % self.rows:
                self.faults.append(f"{who}: writer {writer}: {rows} rows, {different} ids from {first} to {last}")
            if rows < confirmed * self.rows:
                self.faults.append(f"{who}: writer {writer}: {rows} rows, but {confirmed * self.rows} are committed")

    def safely(self, work: Callable[..., None], *given: object) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*given)
            except Exception as error:  # every failure is a result here
                self.faults.append(f"{work.__name__}: {' '.join(str(error).split())[:300]}")

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread


def shared(arguments: argparse.Namespace) -> tuple[dict, str, list[str]]:
    try:
        endpoint, bucket = os.environ["TIDEMILL_S3_ENDPOINT"], os.environ["TIDEMILL_S3_BUCKET"]
    except KeyError as missing:
        raise SystemExit(f"{missing} is not set. Next: deploy/services/up s3, then: . .services/env") from None
    root = f"s3://{bucket}/commits-{time.time_ns()}"
    store = {
        "endpoint": endpoint, "region": os.environ["AWS_REGION"], "allow_http": endpoint.startswith("http://"),
        "access_key_id": "env:AWS_ACCESS_KEY_ID", "secret_access_key": "env:AWS_SECRET_ACCESS_KEY",
    }  # fmt: skip
    state = Shared(arguments.shared_commits, arguments.rows)
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(Server(arguments.program, executors=0, root=root, store=store)) for _ in range(2)
        ]
        with servers[0].connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE shared (id BIGINT, name VARCHAR, at TIMESTAMP)")
        points = Points(servers)
        writers = [state.safely(state.write, server, number) for number, server in enumerate(servers)]
        others = [state.safely(state.read, server) for server in servers]
        others.append(state.safely(state.optimize, servers[0]))
        reached = 0
        while any(writer.is_alive() for writer in writers):
            time.sleep(0.05)
            while sum(state.confirmed) >= reached + STEP:
                reached += STEP
                points.add(reached)
        seconds = time.monotonic() - points.begun
        state.done.set()
        for thread in others:
            thread.join()
        # Another reader than ours, and each server once more.
        whole = [arguments.shared_commits // 2] * 2
        for server in servers:
            state.done.clear()
            before = len(state.faults)
            threading.Timer(2 * READ_SECONDS, state.done.set).start()
            state.confirmed = whole
            state.read(server)
            if len(state.faults) > before:
                state.faults.append(f"{server.flight} does not see all at the end")
        table = deltalake.DeltaTable(f"{root}/public/shared", storage_options={"aws_endpoint": endpoint})
        ids = table.to_pyarrow_table(columns=["id"])["id"]
        state.check("delta-rs", {number: counted(ids, number) for number in range(2)}, whole)
        files, version = len(table.file_uris()), table.version()
    draw(points.points, "Two writers and OPTIMIZE on one table", arguments.results / "commits-shared.svg")
    commits = sum(state.confirmed)
    text = (
        f"# Two writers and OPTIMIZE on one table\n\nTwo servers on one lake on S3 ({endpoint}), a writer and a "
        f"reader on each, OPTIMIZE on the first: {commits:,} INSERTs of {state.rows} rows in {seconds:.0f} s, "
        f"{state.optimized} OPTIMIZEs, {state.reads:,} reads. At version {version:,} the table has {files:,} files. "
        f"{len(state.faults)} faults.\n\n{described(points.points)}\n\n![rate and memory](commits-shared.svg)"
    )
    result = {
        "commits": commits, "seconds": seconds, "optimizes": state.optimized, "reads": state.reads,
        "version": version, "files": files, "faults": state.faults, "points": points.points,
    }  # fmt: skip
    return result, text, state.faults


def counted(ids, writer: int) -> tuple[int, int, int, int]:
    """Rows, different ids, the least and the greatest, of one writer."""
    own = compute.subtract(ids.filter(compute.equal(compute.divide(ids, WRITER), writer)), writer * WRITER)
    if not len(own):
        return 0, 0, 0, -1
    least, greatest = (bound.as_py() for bound in compute.min_max(own).values())
    return len(own), compute.count_distinct(own).as_py(), least, greatest


def draw(points: list[dict], title: str, file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    commits = [point["commits"] for point in points]
    figure, (rate, rss) = plt.subplots(2, 1, sharex=True, figsize=(8, 5))
    rate.plot(commits, [point["rate"] for point in points], linewidth=1)
    rate.set_ylabel("commits/s")
    rate.set_ylim(bottom=0)
    rss.plot(commits, [point["memory_mib"] for point in points], linewidth=1, color="tab:orange")
    rss.set_ylabel("resident memory, MiB")
    rss.set_ylim(bottom=0)
    rss.set_xlabel("commits")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def run(arguments: argparse.Namespace) -> None:
    parts = {SINK: sink, SHARED: shared}
    faults = []
    for name in arguments.only:
        result, text, found = parts[name](arguments)
        if found:
            text += "\n\nFaults:\n\n" + "\n".join(f"- {fault}" for fault in found[:SHOWN])
        result = {"rows": arguments.rows, **result}
        report.write(arguments.results, f"commits-{name}", arguments.program, result, text)
        faults += found
    if faults:
        raise SystemExit(f"{len(faults)} faults, see above")
