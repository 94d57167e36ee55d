"""TPC-H whole under a memory limit far below its data: right answers, what it spills, and how much memory it takes.

Then a cross join that explodes: it must fail alone and say what to do, while another client's queries go on.
"""

import argparse
import contextlib
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil

from . import answers, engines, report, tpch
from .engines import IN_PROCESS, QueryFailed, Tidemill
from .servers import Server

# A join whose condition was forgotten. At scale factor 10 neither side fits into 2 GiB.
EXPLODING = """
SELECT a.l_comment, b.l_comment, count(*) AS pairs
FROM lineitem a, lineitem b
GROUP BY a.l_comment, b.l_comment"""
BESIDE = ["q01", "q06", "q14"]
ADVICE = ("memory_limit_bytes", "spill")
SAMPLE_SECONDS = 0.1


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=float, default=10, help="scale factor; default 10")
    parser.add_argument("--limit-bytes", type=int, default=2 << 30, help="engine.memory_limit_bytes; default 2 GiB")
    parser.add_argument("--cores", type=int, default=2, help="default 2")
    parser.add_argument("--limit-seconds", type=float, default=900, help="for one query; default 900")
    parser.add_argument("--spill-limit-bytes", type=int, default=15 << 30, help="more on disk ends the cross join")
    parser.add_argument("--queries", nargs="*", help="for example q09 q18; all by default")


@dataclass
class Peak:
    resident: int = 0
    spilled: int = 0


class Watch:
    """Samples the server's resident memory and its spill folder, from another thread."""

    def __init__(self, server: Server, spill: Path) -> None:
        self.process, self.spill = psutil.Process(server.processes[0].pid), spill
        self.peak = Peak()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.peak.resident = max(self.peak.resident, self.process.memory_info().rss)
        self.peak.spilled = max(self.peak.spilled, used(self.spill))

    def take(self) -> Peak:
        """The peak since the last time."""
        self._look()
        peak, self.peak = self.peak, Peak()
        return peak


def used(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # It has just gone.
            total += file.stat().st_blocks * 512
    return total


def queries(asked: Tidemill, watch: Watch, folder: Path, arguments: argparse.Namespace) -> dict[str, dict]:
    found = {}
    texts = {name: text for name, text in tpch.queries().items() if not arguments.queries or name in arguments.queries}
    for name, text in texts.items():
        watch.take()
        begun = time.monotonic()
        fault, answer = None, None
        try:
            answer = asked.ask(text, fetch=True)
        except QueryFailed as failure:
            fault = f"failed: {failure}"
        seconds, peak = time.monotonic() - begun, watch.take()
        if answer:
            # DuckDB's turn comes when Tidemill's is over: both at once would not fit.
            with tempfile.TemporaryDirectory(prefix="bench-duckdb-") as scratch:
                with answers.connect(tpch.files(folder), arguments.cores, Path(scratch)) as connection:
                    wrong = answers.Expected(connection, text).difference(answer.table)
            fault = wrong and f"wrong: {wrong}"
        found[name] = {"seconds": seconds, "resident": peak.resident, "spilled": peak.spilled, "fault": fault}
        print(f"{name}: {found[name]}", flush=True)
    return found


def explode(server: Server, watch: Watch, arguments: argparse.Namespace) -> dict:
    """Runs the cross join, and other queries until it is over and once after."""
    over = threading.Event()
    outcome: dict = {"beside": 0, "beside_failed": []}

    def others() -> None:
        asked = Tidemill(server, IN_PROCESS, arguments.limit_seconds)
        last = False
        while not last:
            last = over.is_set()
            for name in BESIDE:
                try:
                    asked.ask(tpch.queries()[name], fetch=False)
                    outcome["beside"] += 1
                except QueryFailed as failure:
                    outcome["beside_failed"].append(f"{name}: {failure}")
        asked.close()

    def guard() -> None:
        while not over.wait(1):
            if used(watch.spill) > arguments.spill_limit_bytes:
                outcome["cancelled"] = f"it had spilled {gib(used(watch.spill))} GiB"
                cursor.adbc_cancel()
                return

    watch.take()
    with server.connect(arguments.limit_seconds) as connection, connection.cursor() as cursor:
        cursor.execute("SET engine = 'in_process'")
        threads = [threading.Thread(target=others), threading.Thread(target=guard)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        try:
            cursor.execute(EXPLODING)
            rows = sum(batch.num_rows for batch in cursor.fetch_record_batch())
            outcome["error"] = None
            outcome["rows"] = rows
        except Exception as error:  # what is looked for
            outcome["error"] = str(error)
        finally:
            outcome["seconds"] = time.monotonic() - begun
            over.set()
        for thread in threads:
            thread.join()
    peak = watch.take()
    outcome |= {"resident": peak.resident, "spilled": peak.spilled, "alive": server.processes[0].poll() is None}
    outcome["advice"] = all(word in (outcome["error"] or "") for word in ADVICE) and "cancelled" not in outcome
    return outcome


def gib(count: int) -> str:
    return f"{count / 2**30:.2f}"


def run(arguments: argparse.Namespace) -> None:
    folder = tpch.data(arguments.scale)
    with contextlib.ExitStack() as stack:
        stack.enter_context(engines.bound_to(arguments.cores))
        spill = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-spill-")))
        limits = {"memory_limit_bytes": arguments.limit_bytes, "spill_dir": str(spill)}
        server = stack.enter_context(Server(arguments.program, 0, arguments.cores, limits))
        tpch.declare(server, folder)
        watch = stack.enter_context(Watch(server, spill))
        asked = stack.enter_context(contextlib.closing(Tidemill(server, IN_PROCESS, arguments.limit_seconds)))
        found = queries(asked, watch, folder, arguments)
        crossed = explode(server, watch, arguments)
    rows = [
        [
            name,
            f"{each['seconds']:.1f}",
            gib(each["resident"]),
            gib(each["spilled"]),
            each["fault"] and each["fault"].split(":")[0] or "right",
        ]
        for name, each in found.items()
    ]
    rows.append(
        ["all", f"{sum(each['seconds'] for each in found.values()):.1f}", gib(max(each["resident"] for each in found.values())),
         gib(max(each["spilled"] for each in found.values())), f"{sum(not each['fault'] for each in found.values())} right"]
    )  # fmt: skip
    header = ["", "s", "peak resident, GiB", "spilled at once, GiB", f"by DuckDB {duckdb.__version__}"]
    faults = "\n".join(
        f"- {name}: {' '.join(each['fault'].split())[:300]}" for name, each in found.items() if each["fault"]
    )
    good = crossed["advice"] and crossed["alive"] and not crossed["beside_failed"]
    error = " ".join((crossed["error"] or f"nothing: it returned {crossed.get('rows')} rows").split())[:600]
    if "cancelled" in crossed:
        error = f"cancelled, for {crossed['cancelled']}"
    report.write(
        arguments.results,
        "memory",
        arguments.program,
        {"scale": arguments.scale, "limit_bytes": arguments.limit_bytes, "queries": found, "cross_join": crossed},
        f"# TPC-H at scale factor {arguments.scale:g} within {gib(arguments.limit_bytes)} GiB\n\n"
        f"In process, one query at a time, `engine.memory_limit_bytes = {arguments.limit_bytes}`. Resident is the whole "
        f"process, with what is not counted against the limit: the program itself, buffers of files and answers.\n\n"
        f"{report.table(header, rows)}\n\n{faults}\n\n## A cross join that explodes\n\n```sql{EXPLODING}\n```\n\n"
        f"After {crossed['seconds']:.1f} s, with {gib(crossed['resident'])} GiB resident at most: {error}\n\n"
        f"Meanwhile and right after, another client's {', '.join(BESIDE)} were answered {crossed['beside']} times and "
        f"failed {len(crossed['beside_failed'])} times. The process {'lives' if crossed['alive'] else 'is gone'}.",
    )
    if faults or not good:
        raise SystemExit("not as it should be, see above")
