"""What TPC-H, TPC-DS and ClickBench share: the same queries on many engines, checked, timed and drawn.

First every engine answers every query once, and the answers are compared with DuckDB's. Then come rounds that warm up
and rounds that count. Each round asks the engines in turn for each query, beginning with another one each time, so
that noise of the machine meets all of them. A query that an engine cannot do or does wrong has no time there.

The results are written after each round that counts, so that a run that is cut off leaves those of its whole rounds.
"""

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow

from . import answers, plot, report
from .engines import IN_PROCESS, PIPELINED, STAGED, TITLES, Engine, QueryFailed, interrupted, running

OURS = [IN_PROCESS, PIPELINED, STAGED]
# What issue 3 wants to see, as times: Tidemill's by the peer's, or one engine's by another's.
WANTED = {
    "in-process / DataFusion": 1 / 1.25,
    "in-process / Sail": 1.0,
    "in-process / Spark": 1 / 6,
    "in-process / DuckDB": 1.3,
    "pipelined / in-process": 1.15,
    "staged / in-process": 2.0,
}

# Of a fault; Spark adds the whole stack to it.
FAULT_CHARACTERS = 500

# Engine, then query.
Times = dict[str, dict[str, list[float]]]
# The same; "failed", "too long" or "wrong", a colon, and why.
Faults = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Suite:
    # Of the result files.
    name: str
    title: str
    tables: dict[str, Path]
    # By a name that sorts; as DuckDB takes them.
    queries: dict[str, str]
    # The text for a dialect ("datafusion", "spark"); DuckDB's own is never asked for.
    translate: Callable[[str, str, str], str]
    notes: str = ""

    def text(self, query: str, dialect: str) -> str:
        text = self.queries[query]
        return text if dialect == "duckdb" else self.translate(query, text, dialect)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="that count; default 5; with 0 only the answers are checked and nothing is written",
    )
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before them, after the check; default 1")
    parser.add_argument("--cores", type=int, default=2, help="of each engine; default 2")
    parser.add_argument("--engines", nargs="*", choices=OURS, default=OURS, help="Tidemill's; all by default")
    parser.add_argument("--peers", nargs="*", choices=TITLES, default=["datafusion"], help="default: datafusion")
    parser.add_argument("--peer-memory-gib", type=int, default=5, help="Spark's heap and DuckDB's buffers; default 5")
    parser.add_argument(
        "--memory-gib",
        type=int,
        help="of the in-process engine, and of the cluster's executors together; default: Tidemill's own choice, which "
        "takes the machine to be one process's",
    )
    parser.add_argument("--queries", nargs="*", help="for example q01 q18; all by default")
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=600,
        help="for one query; one that takes longer has no time there; default 600",
    )


def scratch() -> contextlib.AbstractContextManager[str]:
    return tempfile.TemporaryDirectory(prefix="bench-duckdb-")


def fault(what: str, why: object) -> str:
    """Without the folders of this machine, for it is written into the results."""
    text = " ".join(str(why).split()).replace(str(Path.home()), "~")
    return f"{what}: {text[:FAULT_CHARACTERS]}"


def kind(found: str) -> str:
    """Of a fault, as the tables and the log have it."""
    return found.split(":")[0]


def judge(expected: answers.Expected, engine: Engine, text: str) -> tuple[float, str | None]:
    """How many seconds the answer took, and what is wrong."""
    try:
        answer = engine.ask(text, fetch=True)
        difference = expected.difference(answer.table)
    except QueryFailed as failure:
        return 0, fault(failure.kind, failure)
    except (duckdb.Error, pyarrow.ArrowException) as error:
        return 0, fault("wrong", f"cannot be compared: {error}")
    return answer.seconds, fault("wrong", difference) if difference else None


def check(suite: Suite, engines: list[Engine], cores: int) -> tuple[Faults, dict[str, int]]:
    """By engine, then query: what is wrong. And how many rows each answer has."""
    wrong: Faults = {engine.name: {} for engine in engines}
    sizes = {}
    with scratch() as folder, contextlib.closing(answers.connect(suite.tables, cores, Path(folder))) as connection:
        for place, (query, text) in enumerate(suite.queries.items(), start=1):
            expected = answers.Expected(connection, text)
            sizes[query] = len(expected.window)
            done = []
            for engine in engines:
                seconds, found = judge(expected, engine, suite.text(query, engine.dialect))
                done.append(f"{engine.name} {kind(found) if found else f'{seconds:.2f} s'}")
                if found:
                    wrong[engine.name][query] = found
                    print(f"{query} {engine.name}: {found}", flush=True)
            rows = f"{sizes[query]} rows"
            print(f"check, {query} ({place} of {len(suite.queries)}), {rows}: {', '.join(done)}", flush=True)
    return wrong, sizes


def measure(suite: Suite, engines: list[Engine], wrong: Faults, rounds: int, warm_up: int) -> Iterator[Times]:
    """After each round that counts, the times so far. What fails joins what is wrong."""
    times: Times = {engine.name: {} for engine in engines}
    for number in range(warm_up + rounds):
        label = f"round {number - warm_up + 1} of {rounds}"
        if number < warm_up:
            label = f"warm-up {number + 1} of {warm_up}"
        begun = time.monotonic()
        first = number % len(engines)
        for place, query in enumerate(suite.queries, start=1):
            done = []
            for engine in engines[first:] + engines[:first]:
                if query in wrong[engine.name]:
                    done.append(f"{engine.name} {kind(wrong[engine.name][query])}")
                    continue
                try:
                    answer = engine.ask(suite.text(query, engine.dialect), fetch=False)
                except QueryFailed as failure:
                    wrong[engine.name][query] = found = fault(failure.kind, f"in {label}, {failure}")
                    times[engine.name].pop(query, None)
                    done.append(f"{engine.name} {kind(found)}")
                    print(f"{query} {engine.name}: {found}", flush=True)
                    continue
                done.append(f"{engine.name} {answer.seconds:.2f} s")
                if number >= warm_up:
                    times[engine.name].setdefault(query, []).append(answer.seconds)
            print(f"{label}, {query} ({place} of {len(suite.queries)}): {', '.join(done)}", flush=True)
        print(f"{label}: {time.monotonic() - begun:.0f} s", flush=True)
        if number >= warm_up:
            yield times


def mean(times: Times, engine: str, queries: list[str], of: Callable[[list[float]], float] = min) -> float:
    return report.geometric_mean([of(times[engine][query]) for query in queries])


def ratios(times: Times) -> Iterator[tuple[str, float, int, float | None]]:
    """What of what, how many times the time, over how many queries that both did, and how many times it may be."""
    shared = {(a, b): [query for query in times[a] if query in times[b]] for a in times for b in times}
    names = [name for name in times if name not in OURS]
    pairs = [(IN_PROCESS, name) for name in names] + [(PIPELINED, IN_PROCESS), (STAGED, IN_PROCESS)]
    for ours, theirs in pairs:
        if shared.get((ours, theirs)):
            both = shared[ours, theirs]
            wanted = WANTED.get(f"{ours} / {theirs.split()[0]}")
            yield f"{ours} / {theirs}", mean(times, ours, both) / mean(times, theirs, both), len(both), wanted


def tables(suite: Suite, times: Times, wrong: Faults, sizes: dict[str, int]) -> str:
    names = list(times)

    def cell(name: str, query: str) -> str:
        if query in times[name]:
            return f"{min(times[name][query]) * 1e3:.0f}"
        return kind(wrong[name][query])

    rows = [[query, str(sizes[query])] + [cell(name, query) for name in names] for query in suite.queries]
    # One that did none of them must not take the means from the others.
    able = [name for name in names if times[name]]
    everywhere = [query for query in suite.queries if all(query in times[name] for name in able)]
    if able and everywhere:
        label = "" if len(everywhere) == len(suite.queries) else f" of the {len(everywhere)} that all did"
        if len(able) < len(names):
            label = f" of the {len(everywhere)} that {', '.join(able)} did"
        totals = {name: f"{sum(min(times[name][query]) for query in everywhere) * 1e3:.0f}" for name in able}
        rows.append([f"total{label}", ""] + [totals.get(name, "–") for name in names])
        for title, of in [("geometric mean", min), ("the same of the medians", statistics.median)]:
            means = {name: f"{mean(times, name, everywhere, of) * 1e3:.1f}" for name in able}
            rows.append([f"{title}{label}", ""] + [means.get(name, "–") for name in names])
    text = report.table(["ms, best of the rounds", "rows", *names], rows)
    compared = [
        [name, f"{ratio:.2f}", f"{1 / ratio:.2f} ×", str(count), f"{wanted:.2f}" if wanted else ""]
        for name, ratio, count, wanted in ratios(times)
    ]
    if compared:
        header = ["time of … by time of …", "ratio", "speed", "queries that both did", "wanted at most"]
        text += f"\n\nRatios of the geometric means:\n\n{report.table(header, compared)}"
    return text


def verdict(suite: Suite, wrong: Faults) -> str:
    right = {name: len(suite.queries) - len(faults) for name, faults in wrong.items()}
    lines = [f"Answers compared with DuckDB {duckdb.__version__}'s, of {len(suite.queries)}: "
             + ", ".join(f"{name} {count}" for name, count in right.items()) + "."]  # fmt: skip
    for name, faults in wrong.items():
        # Of one that does not start, all are the same.
        alike: dict[str, list[str]] = {}
        for query, found in faults.items():
            alike.setdefault(found, []).append(query)
        for found, queries in alike.items():
            which = f"all {len(queries)}" if len(queries) == len(suite.queries) else ", ".join(queries)
            lines.append(f"- {which}, {name}: {found[:200]}")
    return "\n".join(lines)


def save(
    suite: Suite, arguments: argparse.Namespace, held: int, times: Times, wrong: Faults, sizes: dict[str, int]
) -> str:
    """Writes the results of so many rounds and returns the text."""
    compared = list(ratios(times))
    result = {
        "rounds": held,
        "rounds_asked_for": arguments.rounds,
        "cores": arguments.cores,
        "memory_gib": arguments.memory_gib,
        "peer_memory_gib": arguments.peer_memory_gib,
        "rows": sizes,
        "wrong": wrong,
        "seconds": times,
        "ratios": {name: ratio for name, ratio, _, _ in compared},
        "queries_of_ratios": {name: count for name, _, count, _ in compared},
    }
    rounds = f"Rounds: {held}." if held == arguments.rounds else f"Rounds: {held} of the {arguments.rounds} asked for."
    # Beside the last round's, which stay whole until these are.
    with tempfile.TemporaryDirectory(dir=arguments.results, prefix=".bench-") as folder:
        picture = Path(folder) / f"{suite.name}.svg"
        drawn = f"![]({picture.name})" if plot.queries(picture, suite.title, times) else ""
        parts = [f"# {suite.title}", suite.notes, verdict(suite, wrong), rounds]
        text = "\n\n".join(filter(None, [*parts, tables(suite, times, wrong, sizes), drawn]))
        text = report.save(Path(folder), suite.name, arguments.program, result, text)
        for file in Path(folder).iterdir():
            file.replace(arguments.results / file.name)
    return text


def what_is_there(suite: Suite, held: int, rounds: int) -> str:
    return f"{suite.name}.json, .md and .svg hold {held} of {rounds} rounds" if held else "nothing is written"


def run(suite: Suite, arguments: argparse.Namespace) -> None:
    if arguments.queries:
        unknown = set(arguments.queries) - set(suite.queries)
        if unknown:
            raise SystemExit(f"no such queries: {', '.join(sorted(unknown))}")
        for query in set(suite.queries) - set(arguments.queries):
            del suite.queries[query]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rounds, held = arguments.rounds, 0
    try:
        with running(suite.tables, arguments) as engines:
            wrong, sizes = check(suite, engines, arguments.cores)
            print(verdict(suite, wrong), flush=True)
            if rounds == 0:
                return complain(arguments, wrong)
            for times in measure(suite, engines, wrong, rounds, arguments.warm_up):
                text = save(suite, arguments, held + 1, times, wrong, sizes)
                held += 1
                print(what_is_there(suite, held, rounds), flush=True)
    except BaseException as error:
        if not interrupted(error):
            raise
        # Ctrl-C meets the servers too, and ADBC's cursors would complain at length that they are gone.
        sys.unraisablehook = lambda _: None
        raise SystemExit(f"ended early: {what_is_there(suite, held, rounds)}") from None
    print(text, end="")
    complain(arguments, wrong)


def complain(arguments: argparse.Namespace, wrong: Faults) -> None:
    if any(wrong[engine] for engine in arguments.engines):
        raise SystemExit("Tidemill has wrong or missing answers, see above")
