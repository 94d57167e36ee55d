"""Tidemill as child processes: one `local`, or a `scheduler` with executors of one core each."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import psutil

READY_SECONDS = 60
STOP_SECONDS = 20


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """A `with` block starts the processes, waits until they are ready, and stops them."""

    def __init__(
        self,
        program: Path,
        executors: int,
        cores: int = 2,
        engine: dict[str, int | str] | None = None,
        root: str | None = None,
        store: dict[str, str | bool] | None = None,
    ) -> None:
        """`engine` and `store` hold further keys of these sections of the configuration; `root` is where the lake is,
        by default in a folder of its own."""
        self.program, self.executors, self.cores = program, executors, cores
        self.engine = {"target_partitions": cores, **(engine or {})}
        self.store = store or {}
        self.folder = Path(tempfile.mkdtemp(prefix="tidemill-bench-"))
        self.root = root or f"{self.folder}/lake"
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> "Server":
        flight, http, ballista = free_ports(3)
        self.flight, self.http = f"127.0.0.1:{flight}", f"http://127.0.0.1:{http}"
        # A TOML text or number is written as JSON's is.
        engine, store = (
            "\n".join(f"{key} = {json.dumps(value)}" for key, value in section.items())
            for section in (self.engine, self.store)
        )
        (self.folder / "tidemill.toml").write_text(f"""
[lake]
root = "{self.root}"
[store]
{store}
[journal]
path = "{self.folder}/journal.redb"
[server]
flight = "{self.flight}"
http = "127.0.0.1:{http}"
[cluster]
scheduler_url = "{self.http}"
ballista_scheduler = "127.0.0.1:{ballista}"
executor_threads = 1
[engine]
{engine}
""")
        roles = ["scheduler"] + ["executor"] * self.executors if self.executors else ["local"]
        for number, role in enumerate(roles):
            self._launch(role, self.folder / f"{role}-{number}.log")
        try:
            self._await_ready()
        except BaseException:  # also Ctrl-C: what has started must not stay
            self.__exit__()
            raise
        return self

    def _launch(self, role: str, log: Path) -> None:
        command = [self.program, role, "--config", self.folder / "tidemill.toml"]
        with log.open("wb") as output:
            self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output))

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self.processes):
                break
            if self._ready():
                return
            time.sleep(0.1)
        logs = "\n".join(log.read_text()[-2000:] for log in self.folder.glob("*.log"))
        raise SystemExit(f"the server is not ready:\n{logs}")

    def _ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.http}/readyz", timeout=2).close()
            with self.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM tidemill.executors")
                return self.executors == 0 or cursor.fetchone()[0] == self.executors
        except (urllib.error.URLError, OSError):
            return False

    def connect(self, limit_seconds: float | None = None) -> flightsql.Connection:
        """A call that takes longer than the limit fails."""
        names = ("query", "fetch", "update") if limit_seconds else ()
        limits = {f"adbc.flight.sql.rpc.timeout_seconds.{name}": str(float(limit_seconds)) for name in names}
        return flightsql.connect(f"grpc://{self.flight}", conn_kwargs=limits, autocommit=True)

    def memory_mib(self) -> float:
        """Resident, of all processes."""
        return sum(psutil.Process(process.pid).memory_info().rss for process in self.processes) / (1 << 20)

    def cpu_seconds(self) -> float:
        """Of all processes since their start."""
        times = [psutil.Process(process.pid).cpu_times() for process in self.processes]
        return sum(each.user + each.system for each in times)

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if "TIDEMILL_BENCH_KEEP" not in os.environ:
            shutil.rmtree(self.folder, ignore_errors=True)
