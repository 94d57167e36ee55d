"""TPC-H: 22 queries over Parquet on every engine and its peers, answers checked against DuckDB's."""

import argparse
import os
import subprocess
from pathlib import Path

from . import suite
from .servers import Server

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]
QUERIES = Path(__file__).parent.parent / "tpch"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=float, default=[1], nargs="+", help="one or more scale factors; default 1")
    suite.options(parser)


def data(scale: float) -> Path:
    folder = Path(os.environ["TIDEMILL_BENCHMARKS"]) / "data" / f"tpch-sf{scale:g}"
    if not (folder / "region.parquet").exists():
        generator = Path(os.environ["TIDEMILL_BENCHMARKS"]) / "venv/bin/tpchgen-cli"
        subprocess.run([generator, "parquet", "-s", str(scale), "--output-dir", folder], check=True)
    return folder


def files(folder: Path) -> dict[str, Path]:
    return {table: folder / f"{table}.parquet" for table in TABLES}


def queries() -> dict[str, str]:
    return {file.stem: file.read_text() for file in sorted(QUERIES.glob("*.sql"))}


def declare(server: Server, folder: Path) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for table, file in files(folder).items():
            cursor.execute(f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{file}'")


def run(arguments: argparse.Namespace) -> None:
    for scale in arguments.scale:
        of_scale = suite.Suite(
            name=f"tpch-sf{scale:g}",
            title=f"TPC-H at scale factor {scale:g}",
            tables=files(data(scale)),
            queries=queries(),
            translate=lambda _query, text, _dialect: text,  # one text for all
        )
        suite.run(of_scale, arguments)
