"""Who is asked: Tidemill through Flight SQL, and its peers, each in a process of its own (../peers/batch.py).

All of them, and all that they start, are bound to the same number of processors.
"""

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow
from adbc_driver_manager import AdbcStatusCode
from adbc_driver_manager import Error as AdbcError

from .servers import Server

PEERS = Path(__file__).parent.parent / "peers"
TITLES = {"datafusion": "DataFusion", "sail": "Sail", "spark": "Spark", "duckdb": "DuckDB"}
AUTO, IN_PROCESS, PIPELINED, STAGED = "auto", "in-process", "pipelined", "staged"
# Each in a Python environment of its own that `peers/install` makes; the others are in this one.
OWN_ENVIRONMENT = ("sail", "spark")
START_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    seconds: float
    # Only if it was asked for.
    table: pyarrow.Table | None


class QueryFailed(Exception):
    """What the engine says why."""

    kind = "failed"


class TooLong(QueryFailed):
    kind = "too long"


def interrupted(error: BaseException) -> bool:
    """By Ctrl-C or SIGTERM: ADBC and DuckDB make errors of their own of them, and closing what was cut off may fail."""
    return (
        isinstance(error, KeyboardInterrupt)
        # The server's own, as of a statement that takes too long for it, say something else.
        or (isinstance(error, AdbcError) and "context canceled" in str(error))
        or (isinstance(error, RuntimeError) and str(error) == "Query interrupted")
        or (error.__context__ is not None and interrupted(error.__context__))
    )


class Tidemill:
    dialect = "datafusion"

    def __init__(self, server: Server, engine: str, limit_seconds: float) -> None:
        self.name, self.server, self.limit = engine, server, limit_seconds
        self.connection = None
        self._connect()

    def _connect(self) -> None:
        self.close()
        self.connection = self.server.connect(self.limit)
        self.cursor = self.connection.cursor()
        self.cursor.execute(f"SET engine = '{self.name.replace('-', '_')}'")

    def ask(self, query: str, fetch: bool) -> Answer:
        try:
            begun = time.perf_counter()
            self.cursor.execute(query)
            table = self.cursor.fetch_arrow_table()
            return Answer(time.perf_counter() - begun, table if fetch else None)
        except Exception as error:  # every failure is a result here
            if interrupted(error):
                raise
            # The next query must not find what this one left.
            self._connect()
            if getattr(error, "status_code", None) == AdbcStatusCode.TIMEOUT:
                raise TooLong(f"no answer within {self.limit:g} seconds") from error
            raise QueryFailed(str(error)) from error

    def close(self) -> None:
        if self.connection is not None:
            with contextlib.suppress(Exception):
                self.cursor.close()
                self.connection.close()


class Peer:
    """One that does not start, at first or after it was stopped, fails every query from then on."""

    def __init__(self, engine: str, tables: dict[str, Path], cores: int, memory_gib: int, limit_seconds: float) -> None:
        self.engine, self.limit = engine, limit_seconds
        self.dialect = "spark" if engine in OWN_ENVIRONMENT else engine
        self.scratch = tempfile.TemporaryDirectory(prefix=f"bench-{engine}-")
        folder = Path(self.scratch.name)
        (folder / "tables.json").write_text(json.dumps({name: str(path) for name, path in tables.items()}))
        self.arguments = [
            str(PEERS / "batch.py"), engine, "--tables", str(folder / "tables.json"),
            "--cores", str(cores), "--memory-gib", str(memory_gib), "--scratch", str(folder),
        ]  # fmt: skip
        self.answer, self.log = folder / "answer.arrow", folder / "log"
        self.process: subprocess.Popen | None = None
        self.version = self.given_up = ""
        self._start()
        self.name = f"{TITLES[engine]} {self.version}".strip()

    def _start(self) -> None:
        print(f"{TITLES[self.engine]} starts", flush=True)
        try:
            command = [str(python(self.engine)), *self.arguments]
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            self.version = self._reply(START_SECONDS)["version"]
        except QueryFailed as failure:
            # Not tried again with each query: it may take START_SECONDS.
            self.given_up = f"it does not start: {failure}"
            log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            print(f"{TITLES[self.engine]}: {self.given_up}\n{log}", flush=True)

    def _reply(self, seconds: float) -> dict:
        readable, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if readable else None
        if not line:
            self._stop()
            if readable:
                raise QueryFailed("its process ended")
            raise TooLong(f"no answer within {seconds:g} seconds")
        return json.loads(line)

    def ask(self, query: str, fetch: bool) -> Answer:
        if self.given_up:
            raise QueryFailed(self.given_up)
        request = {"query": query, **({"answer": str(self.answer)} if fetch else {})}
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            reply = self._reply(self.limit)
        except QueryFailed:
            self._start()
            raise
        except OSError as error:
            self._stop()
            self._start()
            raise QueryFailed("its process had ended") from error
        if "error" in reply:
            raise QueryFailed(reply["error"])
        return Answer(reply["seconds"], read_arrow(self.answer) if fetch else None)

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        self._stop()
        self.scratch.cleanup()


Engine = Tidemill | Peer


def python(engine: str) -> Path:
    if engine not in OWN_ENVIRONMENT:
        return Path(sys.executable)
    environment = Path(os.environ["TIDEMILL_BENCHMARKS"]) / engine / "bin/python"
    if subprocess.run([PEERS / "install", engine]).returncode != 0:
        raise QueryFailed(f"`peers/install {engine}` failed")
    return environment


def read_arrow(path: Path) -> pyarrow.Table:
    with pyarrow.OSFile(str(path)) as source:
        return pyarrow.ipc.open_file(source).read_all()


def declare(server: Server, tables: dict[str, Path]) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for table, path in tables.items():
            cursor.execute(f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{path}'")


@contextlib.contextmanager
def bound_to(cores: int) -> Iterator[None]:
    """Children that start meanwhile run on so many processors."""
    before = os.sched_getaffinity(0)
    if len(before) < cores:
        raise SystemExit(f"--cores {cores}: there are {len(before)} here")
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(tables: dict[str, Path], options: argparse.Namespace) -> Iterator[list[Engine]]:
    """Tidemill's engines and the peers that the options name (see `suite.options`), with the tables declared."""
    cores, limit_seconds = options.cores, options.limit_seconds
    with contextlib.ExitStack() as stack:
        stack.enter_context(bound_to(cores))
        found: list[Engine] = []
        servers: dict[int, Server] = {}
        for engine in options.engines:
            # The cluster's two engines share its executors, of one core each.
            executors = 0 if engine == IN_PROCESS else cores
            if executors not in servers:
                # Each executor's, and the scheduler's.
                limit = options.memory_gib and (options.memory_gib << 30) // max(1, executors)
                settings = {"memory_limit_bytes": limit} if limit else {}
                servers[executors] = stack.enter_context(Server(options.program, executors, cores, settings))
                declare(servers[executors], tables)
            found.append(stack.enter_context(contextlib.closing(Tidemill(servers[executors], engine, limit_seconds))))
        for engine in options.peers:
            peer = Peer(engine, tables, cores, options.peer_memory_gib, limit_seconds)
            found.append(stack.enter_context(contextlib.closing(peer)))
        yield found
