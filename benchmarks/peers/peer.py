"""What the two peers share: their command line, the measurement and the result file.

Standard library only, for it runs in the environments of both.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

JARS = Path.home() / ".cache/tidemill/benchmarks/jars"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """What something took, by the clock and of the processors."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Run(Span):
    """What one run of the job took."""

    # As the engine itself says.
    seconds_processing: float


@dataclass(frozen=True)
class Output:
    """What is in the table afterwards."""

    rows: int
    sum_events: int


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--brokers", required=True, metavar="HOST:PORT")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--groups", choices=["few", "many"], default="few", help="by region and type, or by user")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the tables and the checkpoints")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--memory", default="6g", help="of the JVM's heap")
    parser.add_argument("--result", type=Path, required=True, help="the JSON file to write")
    # The last run counts. Those before it warm the JVM up, as that of a service is.
    parser.add_argument("--runs", type=int, default=2, help="in one JVM: the first is cold, the last warm")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def cpu_seconds() -> float:
    """CPU time so far of this process and everything below it, which is the JVM."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue  # It has just ended.
        # The name stands in parentheses and may hold spaces: the fields are counted from behind it.
        fields = stat.rpartition(")")[2].split()
        parents[pid] = int(fields[1])
        # User and system time, and that of children which have ended.
        ticks[pid] = sum(int(field) for field in fields[11:15])
    return sum(ticks[pid] for pid in _tree(os.getpid(), parents)) / TICKS_PER_SECOND


def _tree(root: int, parents: dict[int, int]) -> Iterator[int]:
    yield root
    for pid, parent in parents.items():
        if parent == root:
            yield from _tree(pid, parents)


def measure(job: Callable[[], T]) -> tuple[T, Span]:
    cpu, begun = cpu_seconds(), time.monotonic()
    returned = job()
    return returned, Span(time.monotonic() - begun, cpu_seconds() - cpu)


def write_result(
    options: argparse.Namespace, engine: str, version: str, events: int, runs: list[Run], output: Output
) -> None:
    cold, warm = runs[0], runs[-1]
    result = {
        "engine": engine,
        "version": version,
        "groups": options.groups,
        "events": events,
        "events_per_second": events / warm.seconds,
        # Of the warm run, as are all that do not say otherwise.
        "seconds_total": warm.seconds,
        "seconds_processing": warm.seconds_processing,
        "cpu_seconds": warm.cpu_seconds,
        "seconds_warm": warm.seconds,
        "seconds_cold": cold.seconds,
        "cpu_seconds_cold": cold.cpu_seconds,
        "rows": output.rows,
        "sum_events": output.sum_events,
    }
    options.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
