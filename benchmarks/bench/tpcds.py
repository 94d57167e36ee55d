"""TPC-DS: 99 queries over 24 Parquet tables on every engine and its peers, answers checked against DuckDB's.

The data and the query texts come from DuckDB's `tpcds` extension (PyPI). DuckDB, DataFusion and Tidemill get the texts
as they are; sqlglot turns them into Spark's SQL.
"""

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

import sqlglot

from . import suite

HERE = Path(__file__).parent


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=float, default=1, help="scale factor; default 1")
    suite.options(parser)


def data(scale: float) -> Path:
    cache = Path(os.environ["TIDEMILL_BENCHMARKS"])
    folder = cache / "data" / f"tpcds-sf{scale:g}"
    if not (folder / "queries.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier run did not finish
        subprocess.run([HERE.parent / "peers/install", "tpcds"], check=True)
        python = cache / "tpcds/bin/python"
        subprocess.run([python, HERE / "tpcds_data.py", "--scale", str(scale), folder], check=True)
    return folder


def translate(query: str, text: str, dialect: str) -> str:
    if dialect == "spark":
        # Read as Postgres's, for there nulls come where DuckDB is told to put them.
        return sqlglot.transpile(text, read="postgres", write="spark")[0]
    return text


def run(arguments: argparse.Namespace) -> None:
    folder = data(arguments.scale)
    suite.run(
        suite.Suite(
            name=f"tpcds-sf{arguments.scale:g}",
            title=f"TPC-DS at scale factor {arguments.scale:g}",
            tables={file.stem: file for file in sorted(folder.glob("*.parquet"))},
            queries=json.loads((folder / "queries.json").read_text()),
            translate=translate,
        ),
        arguments,
    )
