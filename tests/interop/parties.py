"""Those who read and write the tables of the interop matrix: Tidemill, delta-rs, DuckDB and Spark; and the matrix."""

import contextlib
import datetime
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import duckdb_extension_delta
import pyarrow

Rows = list[tuple]

TIDEMILL, DELTA_RS, DUCKDB, SPARK = "Tidemill", "delta-rs", "DuckDB", "Spark"
READY_SECONDS = 60


class Refused(Exception):
    """What Tidemill says instead of doing a statement."""


class Tidemill:
    """A `tidemill local` with a lake in the folder; it looks after no table unless it is told to."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary.absolute(), folder
        flight, http = free_port(), free_port()
        self.address = f"127.0.0.1:{flight}"
        self.version = subprocess.run([self.binary, "--version"], capture_output=True, text=True).stdout.split()[-1]
        config = folder / "tidemill.toml"
        config.write_text(
            f"[lake]\nroot = '{folder / 'lake'}'\n[journal]\npath = '{folder / 'journal.redb'}'\n"
            f"[server]\nflight = '{self.address}'\nhttp = '127.0.0.1:{http}'\n[maintenance]\nenabled = false\n"
        )
        self.log = folder / "tidemill.log"
        with self.log.open("w") as log:
            self.server = subprocess.Popen([self.binary, "--config", config, "local"], stdout=log, stderr=log)
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers():
            if self.server.poll() is not None or time.monotonic() > deadline:
                self.server.kill()
                raise SystemExit(f"the server does not answer: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def answers(self) -> bool:
        with socket.socket() as probe:
            host, port = self.address.split(":")
            return probe.connect_ex((host, int(port))) == 0

    def __call__(self, sql: str) -> pyarrow.Table:
        """The rows of the last of the statements."""
        command = [self.binary, "sql", "--server", f"http://{self.address}", "--format", "arrow", "-c", sql]
        done = subprocess.run(command, cwd=self.folder, capture_output=True)
        if done.returncode:
            said = " ".join(done.stderr.decode().split())
            raise Refused(said[max(0, said.find("TM-")) :])
        if not done.stdout:
            return pyarrow.table({})
        return pyarrow.ipc.open_stream(done.stdout).read_all()

    def path(self, table: str) -> Path:
        return self.folder / "lake/public" / table

    def stop(self) -> None:
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def plain(value: Any) -> Any:
    """One form for what the parties give for the same value."""
    match value:
        case datetime.datetime() if value.tzinfo is not None:
            return value.astimezone(datetime.UTC).replace(tzinfo=None)
        case bytearray() | memoryview():
            return bytes(value)
        case dict():
            return tuple((key, plain(each)) for key, each in value.items())
        case tuple() if hasattr(value, "asDict"):
            return plain(value.asDict())
        case list() | tuple():
            return tuple(plain(each) for each in value)
        case _:
            return value


def in_order(rows: Any) -> Rows:
    plain_rows = [tuple(plain(value) for value in row) for row in rows]
    return sorted(plain_rows, key=lambda row: [(value is not None, str(type(value)), value) for value in row[:1]])


def of_arrow(table: pyarrow.Table) -> Rows:
    return in_order(zip(*(column.to_pylist() for column in table.columns), strict=True))


class Parties:
    """A `with` block starts and stops them."""

    def __init__(self, binary: Path, jars: Path | None, folder: Path) -> None:
        self.folder = folder
        self.tidemill = Tidemill(binary, folder)
        (extension,) = Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension")
        self.duckdb = duckdb.connect()
        self.duckdb.execute(f"LOAD '{extension}'")
        self.versions = {
            TIDEMILL: self.tidemill.version,
            DELTA_RS: f"deltalake {deltalake.__version__}",
            DUCKDB: f"{duckdb.__version__}",
        }
        self.readers: dict[str, Callable[[Path, str, int | None], Rows]] = {
            TIDEMILL: self.by_tidemill,
            DELTA_RS: by_delta_rs,
            DUCKDB: self.by_duckdb,
        }
        self.spark = None
        if jars:
            import pyspark
            import write_tables

            self.spark = write_tables.session(jars, folder / "spark")
            delta = next(jar.stem.rsplit("-", 1)[1] for jar in jars.glob("delta-spark*.jar"))
            self.versions[SPARK] = f"{pyspark.__version__}, Delta {delta}"
            self.readers[SPARK] = self.by_spark

    def __enter__(self) -> "Parties":
        return self

    def __exit__(self, *_: object) -> None:
        self.tidemill.stop()
        self.duckdb.close()
        if self.spark is not None:
            self.spark.stop()

    def read(self, party: str, path: Path, query: str, version: int | None = None) -> Rows:
        """The answer of this reader to a query on `{t}`."""
        return self.readers[party](path, query, version)

    def by_tidemill(self, path: Path, query: str, version: int | None) -> Rows:
        past = "" if version is None else f" VERSION AS OF {version}"
        return of_arrow(self.tidemill(query.replace("{t}", f"delta.'{path}'{past}")))

    def by_duckdb(self, path: Path, query: str, version: int | None) -> Rows:
        past = "" if version is None else f", version => {version}"
        return in_order(self.duckdb.execute(query.replace("{t}", f"delta_scan('{path}'{past})")).fetchall())

    def by_spark(self, path: Path, query: str, version: int | None) -> Rows:
        past = "" if version is None else f" VERSION AS OF {version}"
        return in_order(self.spark.sql(query.replace("{t}", f"delta.`{path}`{past}")).collect())


def by_delta_rs(path: Path, query: str, version: int | None) -> Rows:
    # Its own queries; what it gives to pyarrow knows less of the protocol.
    builder = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(path, version=version))
    return of_arrow(pyarrow.table(builder.execute(query.replace("{t}", "t")).read_all()))


class Report:
    """The cells: who, in which version, what, and how it went."""

    def __init__(self) -> None:
        self.cells: list[tuple[str, str, str, str]] = []

    def add(self, party: str, version: str, what: str, outcome: str) -> None:
        self.cells.append((party, version, what, outcome))
        print(f"{party}: {what}: {outcome}", flush=True)

    @contextlib.contextmanager
    def cell(self, parties: Parties, party: str, what: str, known: str = "") -> Iterator[None]:
        """Whatever the block raises is the outcome; `known` is why this party cannot, through no fault of ours."""
        version = parties.versions[party]
        try:
            yield
        except Exception as error:  # whatever a party raises is a result here
            reason = " ".join(str(error).split())[:300]
            self.add(party, version, what, known or f"failed: {type(error).__name__}: {reason}")
        else:
            self.add(party, version, what, "ok" if not known else f"failed: should not be able to: {known}")

    @contextlib.contextmanager
    def guard(self, parties: Parties, what: str) -> Iterator[None]:
        """A cell only if the block fails: what stands between cells has to work too."""
        try:
            yield
        except Exception as error:  # the next case is tried all the same
            reason = " ".join(str(error).split())[:300]
            self.add(TIDEMILL, parties.versions[TIDEMILL], what, f"failed: {type(error).__name__}: {reason}")

    def compare(
        self,
        parties: Parties,
        what: str,
        path: Path,
        columns: str,
        rows: Any,
        version: int | None = None,
        known: dict[str, str] | None = None,
        only: list[str] | None = None,
    ) -> None:
        """A cell for each reader, or for those of `only`: does it read these rows? `known` says who cannot, and why."""
        wanted = in_order(rows)
        for party in parties.readers if only is None else only:
            with self.cell(parties, party, what, (known or {}).get(party, "")):
                expect(parties.read(party, path, f"SELECT {columns} FROM {{t}}", version), wanted)

    def failed(self) -> list[tuple[str, str, str, str]]:
        return [cell for cell in self.cells if cell[3].startswith("failed")]

    def text(self) -> str:
        lines = ["| " + " | ".join(text.replace("|", "\\|") for text in cell) + " |" for cell in self.cells]
        return (
            "# Interop matrix\n\nWritten by `make interop-matrix`: the same Delta tables, written and read by Tidemill "
            "and by others. `ok` means the very rows.\n\n"
            "| who | version | reads, or does | outcome |\n|---|---|---|---|\n"
            + "\n".join(lines)
            + "\n"
        )


def expect(found: Any, wanted: Any) -> None:
    if found != wanted:
        missing = [row for row in wanted if row not in found]
        extra = [row for row in found if row not in wanted]
        if len(missing) == len(extra) == 1 and len(missing[0]) == len(extra[0]):
            pairs = [(was, should) for was, should in zip(extra[0], missing[0], strict=True) if was != should]
            raise AssertionError(f"(found, wanted): {pairs}")
        raise AssertionError(
            f"{len(found)} rows instead of {len(wanted)}; missing {missing[:2]}, too many {extra[:2]}"
        )


def refused(call: Callable[[], object], *words: str) -> None:
    """Calls, and wants an error whose text holds all the words."""
    try:
        call()
    except Exception as error:
        missing = [word for word in words if word not in str(error)]
        if missing:
            raise AssertionError(f"the error does not say {missing}: {error}") from error
    else:
        raise AssertionError("no error")
