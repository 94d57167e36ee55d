"""A sink table of many commits: does the commit rate hold, and the memory of the process?

One client inserts a few rows at a time into one table and looks after nothing; the table looks after itself. Writes
the rate and the resident memory over time as JSON and as an SVG, with the number of files and of log entries at the
end.
"""

import argparse
import time
from pathlib import Path

import deltalake
import psutil

from . import report
from .servers import Server

TABLE = "sink"
# Commits between two points of the plot.
STEP = 50


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--commits", type=int, default=5_000)
    parser.add_argument("--rows", type=int, default=100, help="rows of a commit")


def memory(server: Server) -> float:
    """Resident MiB of all processes of the server."""
    return sum(psutil.Process(process.pid).memory_info().rss for process in server.processes) / (1 << 20)


def measure(server: Server, commits: int, rows: int) -> list[dict]:
    points = []
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {TABLE} (id BIGINT, name VARCHAR, at TIMESTAMP)")
        begun = last = time.monotonic()
        for commit in range(commits):
            first = commit * rows
            cursor.execute(
                f"INSERT INTO {TABLE} SELECT value, concat('name ', value), now() "
                f"FROM generate_series({first}, {first + rows - 1})"
            )
            if (commit + 1) % STEP == 0:
                now = time.monotonic()
                points.append(
                    {"commits": commit + 1, "seconds": now - begun, "rate": STEP / (now - last),
                     "memory_mib": memory(server)}
                )  # fmt: skip
                last = now
        cursor.execute(f"SELECT count(*), count(DISTINCT id) FROM {TABLE}")
        if tuple(cursor.fetchone()) != (commits * rows, commits * rows):
            raise SystemExit("rows are lost, or there twice")
    return points


def draw(points: list[dict], file: Path) -> None:
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
    figure.suptitle("One sink table that looks after itself")
    figure.tight_layout()
    figure.savefig(file)


def run(arguments: argparse.Namespace) -> None:
    with Server(arguments.program, executors=0) as server:
        points = measure(server, arguments.commits, arguments.rows)
        path = server.folder / "lake/public" / TABLE
        table = deltalake.DeltaTable(str(path))
        files, version = len(table.file_uris()), table.version()
        entries = sum(1 for _ in (path / "_delta_log").iterdir())
    quarter = max(1, len(points) // 4)
    mean = lambda points, key: sum(point[key] for point in points) / len(points)  # noqa: E731
    rows = [
        [name, f"{mean(part, 'rate'):.1f}", f"{mean(part, 'memory_mib'):.0f}"]
        for name, part in [("first quarter", points[:quarter]), ("last quarter", points[-quarter:])]
    ]
    draw(points, arguments.results / "commits.svg")
    report.write(
        arguments.results,
        "commits",
        arguments.program,
        {"commits": arguments.commits, "rows": arguments.rows, "points": points, "files": files, "entries": entries},
        f"# Commits into one table\n\n{arguments.commits:,} INSERTs of {arguments.rows} rows, one after the other. At "
        f"version {version} the table has {files} files; its log has {entries}.\n\n"
        + report.table(["", "commits/s", "MiB"], rows)
        + "\n\n![rate and memory](commits.svg)",
    )
