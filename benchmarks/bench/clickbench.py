"""ClickBench: 43 queries over one wide Parquet file on every engine and its peers, answers checked against DuckDB's.

The table is made up (see hits_data.py). The query texts are those that the package `benchbox` (PyPI) ships.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from . import hits_data, suite

QUERIES_PACKAGE = "benchbox==0.4.2"
TITLE = "ClickBench's queries, {rows:,} rows"
NOTES = (
    "The `hits` table is made up: ClickBench's 105 columns with skew, empty texts and the constants that the queries "
    "ask for. So these times do not compare with published ones."
)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=10_000_000, help="default 10,000,000")
    suite.options(parser)


def data(rows: int) -> Path:
    label = f"{rows // 1_000_000}m" if rows % 1_000_000 == 0 else str(rows)
    file = Path(os.environ["TIDEMILL_BENCHMARKS"]) / "data/clickbench" / f"hits-{label}.parquet"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        hits_data.make(file, rows)
    return file


def queries() -> dict[str, str]:
    """From one file of the package; what it needs otherwise is neither installed nor loaded."""
    folder = Path(os.environ["TIDEMILL_BENCHMARKS"]) / QUERIES_PACKAGE
    file = folder / "benchbox/core/clickbench/queries.py"
    if not file.exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--target", folder, QUERIES_PACKAGE],
            check=True,
        )  # fmt: skip
    spec = importlib.util.spec_from_file_location("clickbench_queries", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.ClickBenchQueryManager().get_all_queries()
    texts = {f"q{int(name[1:]):02}": text.rstrip(";") for name, text in found.items()}
    # Two slips of the package: the benchmark means the first group, and a later part of the minutes.
    texts["q29"] = texts["q29"].replace(r"\\1", r"\1")
    texts["q43"] += " LIMIT 10 OFFSET 1000"
    return texts


def translate(query: str, text: str, dialect: str) -> str:
    if dialect == "spark":
        # A backslash is an escape in Spark's texts, and groups are called $1.
        return text.replace(r"'\1'", "'$1'").replace("\\", r"\\")
    # DataFusion takes names that are not quoted as lower case.
    return re.sub(rf"\b({'|'.join(name for name, _, _ in hits_data.COLUMNS)})\b", r'"\1"', text)


def run(arguments: argparse.Namespace) -> None:
    suite.run(
        suite.Suite(
            name="clickbench",
            title=TITLE.format(rows=arguments.rows),
            tables={"hits": data(arguments.rows)},
            queries=queries(),
            translate=translate,
            notes=NOTES,
        ),
        arguments,
    )
